"""What the P waves, QRS complexes and T waves of held-out records mean to a network: occlusion by wave, over a set."""

from typing import Any

import numpy as np
import torch

from ecgdan_hf.evaluation.measures.intervals import bootstrap_interval
from ecgdan_hf.explain.maps.occlusion import WAVES, occlude_waves, waves_of
from ecgdan_hf.explain.maps.scores import score_of
from ecgdan_hf.inference.rows import model_inputs


@torch.no_grad()
def wave_changes(
    model: Any, dataset: Any, batch_size: int = 128, n: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """What bridging all P waves, QRS complexes or T waves changes, beside the same stretches moved elsewhere.

    Args:
        model, dataset, batch_size: see [`delete`].
        n, seed: of the bootstrap; the seed is also that of the shifts.

    Returns:
        For each wave that was found in some record: `wave`, `num_records`, `share_of_time`, `score` (mean change of
        the score, positive where the wave spoke for it), `change` (its mean size) and `over_shifted` (how much larger
        that is than elsewhere), with intervals over patients.
    """
    rng, parts = np.random.default_rng(seed), []
    for inputs in model_inputs(model, dataset, batch_size):
        found = waves_of(model.config, inputs)
        places = {wave: np.stack([each[wave] for each in found]) for wave in WAVES}
        moved = {f"{wave}, moved": _moved(places[wave], rng) for wave in WAVES}
        changes = occlude_waves(score_of(model, inputs), inputs, {**places, **moved})
        parts.append({**changes, **{f"{wave}, share": places[wave].mean(axis=1) for wave in WAVES}})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    patients, rows = np.asarray(dataset["patient_id"]), []
    for wave in WAVES:
        there = np.isfinite(columns[wave])
        if there.any():
            own, other = columns[wave][there], columns[f"{wave}, moved"][there]
            options: dict[str, Any] = {"patient_ids": patients[there], "n": n, "seed": seed}
            values = {"score": own, "change": np.abs(own), "over_shifted": np.abs(own) - np.abs(other)}
            intervals = {name: bootstrap_interval(np.mean, each, **options).as_dict() for name, each in values.items()}
            share = float(columns[f"{wave}, share"][there].mean())
            rows.append({"wave": wave, "num_records": int(there.sum()), "share_of_time": share, **intervals})
    return rows


def _moved(places: Any, rng: np.random.Generator) -> Any:
    """Each record's stretches moved along it by chance, what goes out at one end coming in at the other."""
    length = places.shape[1]
    shift = rng.integers(1, length, len(places))
    return np.take_along_axis(places, (np.arange(length) - shift[:, None]) % length, axis=1)
