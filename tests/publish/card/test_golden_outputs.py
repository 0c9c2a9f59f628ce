"""The released checkpoints give the numbers that they gave when they were released, with any library and processor.

`python tests/publish/card/test_golden_outputs.py` writes `golden_outputs.json`: only for a new release of a network.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ecgdan_hf import STANDARD_LEADS
from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.inference.checkpoints import load_checkpoint

CARDS = Path(__file__).parents[3] / "model_cards"
GOLDEN = Path(__file__).with_name("golden_outputs.json")
TOLERANCE = 1e-4  # of probabilities, and of an embedding of length 1


def outputs(folder: Path) -> list[list[float]]:
    """For two synthetic ECGs: probabilities or survival, else the first numbers of the embedding of length 1."""
    model, extractor = load_checkpoint(folder)
    signals = np.stack([make_signal(0.0, 96.0, 70.0, 1), make_signal(2.0, 140.0, 95.0, 2)])  # (2, 12, 5000), millivolt
    given = {"sampling_rate": 500, "unit": "mV", "lead_names": list(STANDARD_LEADS), "return_tensors": "pt"}
    with torch.inference_mode():
        inputs = extractor(signals, **given)
        output = model(**inputs)
        if hasattr(model, "predict_survival"):
            found = model.predict_survival(**inputs)
        elif output.get("logits") is not None:
            found = output.logits.sigmoid()
        elif output.get("prompt_logits") is not None:
            found = output.prompt_logits.sigmoid()
        else:
            found = torch.nn.functional.normalize(output.pooler_output, dim=-1)
    return [[round(value, 6) for value in row[:12]] for row in found.flatten(1).tolist()]


@pytest.mark.parametrize("name", sorted(folder.name for folder in CARDS.iterdir() if folder.is_dir()))
def test_a_released_checkpoint_gives_the_numbers_of_its_release(name: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    assert np.std(golden, axis=0).max() > 100 * TOLERANCE  # the two ECGs are told apart, or nothing is tested
    np.testing.assert_allclose(outputs(CARDS / name), golden, rtol=0, atol=TOLERANCE)


if __name__ == "__main__":
    released = {folder.name: outputs(folder) for folder in sorted(CARDS.iterdir()) if folder.is_dir()}
    lines = (f'  "{name}": {json.dumps(rows)}' for name, rows in released.items())
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
