"""Released checkpoints load from a clone, whole, and are documented."""

from pathlib import Path

import pytest
import torch

from ecgdan_hf import STANDARD_LEADS, EcgDanFeatureExtractor, EcgDanForSurvival, EcgDanModel
from ecgdan_hf.data.synthetic import make_cohort
from ecgdan_hf.evaluation.checkpoints import load_checkpoint

CARDS = Path(__file__).parents[2] / "model_cards"
FOLDERS = sorted(folder for folder in CARDS.iterdir() if folder.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_released_checkpoint_is_whole_and_tells_ecgs_apart(folder):
    model, feature_extractor = load_checkpoint(folder)
    signals, _ = make_cohort(20, seed=0)
    given = {"sampling_rate": 500, "unit": "mV", "lead_names": list(STANDARD_LEADS), "return_tensors": "pt"}
    with torch.no_grad():
        first, second = model(**feature_extractor(signals[:2], **given)).pooler_output
    assert first.isfinite().all() and not torch.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_released_checkpoint_is_the_base_of_other_heads(folder):
    encoder = EcgDanModel.from_pretrained(folder)
    survival = EcgDanForSurvival.from_pretrained(folder)
    assert torch.equal(encoder.stem.conv1.weight, survival.ecgdan.stem.conv1.weight)
    assert EcgDanFeatureExtractor.from_pretrained(folder).num_samples == encoder.config.num_samples


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_card_says_what_it_is_for_what_it_saw_and_what_it_reached(folder):
    card = (folder / "README.md").read_text()
    for heading in ("## Intended use", "## Training data", "## Results", "## Limits", "## Citation"):
        assert heading in card
    assert "Research use only" in card and "CC BY 4.0" in card
    assert {"metrics.json", "recipe.yaml"} <= {path.name for path in folder.iterdir()}
