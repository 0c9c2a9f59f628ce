"""Released checkpoints load from a clone, whole, and are documented."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline
from warm import WARM

from ecgdan_hf import STANDARD_LEADS, EcgDanFeatureExtractor, EcgDanForSurvival, EcgDanModel
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.data.simulate.premature_beats import SimulatedEcg
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks
from ecgdan_hf.publish.bundle import make_bundle

CARDS = Path(__file__).parents[3] / "model_cards"
FOLDERS = sorted(folder for folder in CARDS.iterdir() if folder.is_dir())
ENCODERS = [
    folder for folder in FOLDERS if '"model_type": "ecgdan' in (folder / "config.json").read_text(encoding="utf-8")
]


@functools.cache
def synthetic_signals(seed: int) -> np.ndarray:
    """(20, 12, 5000), millivolt."""
    return np.stack([synthetic._signal_of(row, seed) for row in synthetic._make_subjects(20, seed).itertuples()])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_released_checkpoint_is_whole_and_tells_ecgs_apart(folder):
    model, feature_extractor = load_checkpoint(folder)
    signals = synthetic_signals(seed=0)
    given = {"sampling_rate": 500, "unit": "mV", "lead_names": list(STANDARD_LEADS), "return_tensors": "pt"}
    with torch.no_grad():
        first, second = model(**feature_extractor(signals[:2], **given)).pooler_output
    assert first.isfinite().all() and not torch.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize("folder", ENCODERS, ids=lambda folder: folder.name)
def test_a_released_checkpoint_is_the_base_of_other_heads(folder):
    encoder = EcgDanModel.from_pretrained(folder)
    survival = EcgDanForSurvival.from_pretrained(folder)
    shared = survival.ecgdan.state_dict()
    assert all(torch.equal(weight, shared[name]) for name, weight in encoder.state_dict().items())
    assert EcgDanFeatureExtractor.from_pretrained(folder).num_samples == encoder.config.num_samples


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_card_says_what_it_is_for_what_it_saw_and_what_it_reached(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("## Intended use", "## Training data", "## Results", "## Limits", "## Citation"):
        assert heading in card
    assert "Research use only" in card and "CC BY 4.0" in card
    assert {"metrics.json", "recipe.yaml"} <= {path.name for path in folder.iterdir()}


def test_the_released_danet_tells_premature_beats_and_says_where_they_are():
    classify = pipeline("ecg-classification", model=str(CARDS / "danet-apc"))
    signals = synthetic_signals(seed=3)
    given = {"sampling_rate": 500, "unit": "mV", "lead_names": ["II", "V1"]}
    scores: dict[str, list[float]] = {"premature": [], "sinus": []}
    found = []
    for number, twelve in enumerate(signals):
        two = twelve[[STANDARD_LEADS.index("II"), STANDARD_LEADS.index("V1")]]
        peaks = find_r_peaks(two, 500)
        for kind, values in scores.items():
            simulated = SimulatedEcg.simulate(
                two, 500, peaks, np.random.default_rng(number), kind=kind, ventricular_share=0
            )
            [answer] = classify({"signal": simulated.signal_mv, **given})
            assert answer["label"] == "APC"
            values.append(answer["score"])
            early = simulated.r_peaks[simulated.premature] / 500
            if len(early):
                found.append(any(np.abs(each["peak"] - early).min() < 0.2 for each in answer["intervals"][:1]))
    assert np.median(scores["premature"]) > np.median(scores["sinus"])
    assert len(found) > 6 and np.mean(found) > 0.7  # the strongest interval lies on an early beat


def test_a_released_checkpoint_is_bundled_with_the_card_and_the_results_it_has(tmp_path: Path):
    released = CARDS / "ecg-dan-rhythm"
    out = make_bundle(released, tmp_path / "out")
    documents = [
        path.relative_to(released) for path in released.rglob("*") if path.suffix in (".md", ".yaml", ".json")
    ]
    kept = [name for name in documents if name.name not in ("config.json", "preprocessor_config.json")]
    assert len(kept) > 4 and all(
        (out / name).read_text(encoding="utf-8") == (released / name).read_text(encoding="utf-8") for name in kept
    )
    assert (
        "modeling_ecgdan" in (out / "config.json").read_text(encoding="utf-8")
        and (out / "modeling_ecgdan.py").is_file()
    )


def test_a_card_is_a_bundle_without_code_and_replaces_only_a_card(survival_checkpoint: Path, tmp_path: Path):
    script = Path(__file__).parents[3] / "hub_scripts" / "release_checkpoint.py"
    out = tmp_path / "cards" / "ecg-dan-survival"
    command = [sys.executable, str(script), str(survival_checkpoint), str(out)]
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("years of work", encoding="utf-8")
    refused = WARM.run(command)
    assert refused.returncode == 2 and "found other files" in refused.stderr and (out / "thesis.txt").exists()
    (out / "thesis.txt").unlink()
    out.rmdir()
    WARM.run(command, check=True)
    assert not list(out.glob("*.py")) and "auto_map" not in (out / "config.json").read_text(encoding="utf-8")
    assert isinstance(load_checkpoint(out)[0], EcgDanForSurvival)
