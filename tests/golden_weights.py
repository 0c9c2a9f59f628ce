"""Weights of the parity oracle: the authors' state dict filled from a fixed generator, as golden/README.md says."""

import json
from pathlib import Path

import numpy as np
import torch

CASES = ("median_608", "rhythm_1024", "no_lead_608", "no_time_608", "sequential_608")


def read_oracle(shared: Path) -> tuple[dict, np.lib.npyio.NpzFile]:
    """The JSON with every name and shape, and the arrays the authors' network computed."""
    folder = shared / "golden"
    return json.loads((folder / "ecgdan_reference.json").read_text(encoding="utf-8")), np.load(
        folder / "ecgdan_reference.npz"
    )


def fill(shapes: dict[str, list[int]], seed: int) -> dict[str, torch.Tensor]:
    """A state dict of these shapes, drawn name by name in plain string order."""
    generator = np.random.default_rng(seed)
    return {name: _draw(name, shapes[name], generator) for name in sorted(shapes)}


def _draw(name: str, shape: list[int], generator: np.random.Generator) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    value = generator.standard_normal(shape)
    if name.endswith("running_var"):
        value = 0.5 + np.abs(value)
    elif len(shape) >= 2:
        value = value / np.sqrt(np.prod(shape[1:]))
    else:
        value = 1 + 0.1 * value if name.endswith("weight") else 0.1 * value
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def authors_state(oracle: dict, case: str) -> dict[str, torch.Tensor]:
    """Network and risk head of one case, by the authors' names."""
    shapes, seed = oracle["cases"][case], oracle["seed"]
    return fill(shapes["network"], seed) | fill(shapes["risk_head"], seed + 1)


def authors_input(oracle: dict, case: str) -> torch.Tensor:
    """(4, 12, T) input of one case."""
    generator = np.random.default_rng(oracle["seed"] + 2)
    return torch.from_numpy(generator.standard_normal((4, 12, oracle["cases"][case]["time_steps"])).astype(np.float32))
