"""Fewer leads: what is hidden from the network is really hidden, and files with few leads are predicted from."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from tiny import TINY, signals

from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.predict import predict
from ecgdan_hf.inference.rows import _mask_leads, embed, kept_leads
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival, EcgDanModel

LIMB, CHEST = STANDARD_LEADS[:6], STANDARD_LEADS[6:]
LEAD_SETS = {
    1: ("II",),
    2: ("I", "II"),
    3: ("I", "II", "V2"),
    6: LIMB,
    8: ("I", "II", *CHEST),
    12: STANDARD_LEADS,
}
USED = {1: 1, 2: 6, 3: 7, 6: 6, 8: 12, 12: 12}
RELEASED = Path(__file__).parents[2] / "model_cards/ecg-dan-rhythm-superclasses"
RHYTHM: dict[str, Any] = {"input_kind": "rhythm", "normalization": "global", "sampling_rate": 100, "num_samples": 1008}


def survival_model(**fields: Any) -> tuple[EcgDanForSurvival, EcgDanFeatureExtractor]:
    torch.manual_seed(0)
    config = EcgDanSurvivalConfig(**{**TINY, **fields})
    model = EcgDanForSurvival(config).eval()
    model.fit_baseline(torch.zeros(80), (torch.arange(80) % 3 == 0).float(), torch.linspace(0.1, 12.0, 80))
    return model, EcgDanFeatureExtractor(**config.signal_contract)


def classifier(**fields: Any) -> tuple[EcgDanForSequenceClassification, EcgDanFeatureExtractor]:
    torch.manual_seed(0)
    config = EcgDanConfig(**{**TINY, **fields}, id2label={0: "NORM", 1: "MI"})
    return EcgDanForSequenceClassification(config).eval(), EcgDanFeatureExtractor(**config.signal_contract)


MODELS = {
    "survival, rhythm": lambda: survival_model(**RHYTHM),
    "survival, median beat": lambda: survival_model(num_samples=608),
    "labels, rhythm": lambda: classifier(**RHYTHM),
    "labels, median beat": lambda: classifier(num_samples=608),
    "released": lambda: load_checkpoint(RELEASED),
}


def write_ecg(path: Path, leads: tuple[str, ...]) -> Path:
    """A synthetic ECG as a device with these leads writes it: .csv or .npz, by the name."""
    signal = make_signal(0.0, 98, 70, seed=3)[[STANDARD_LEADS.index(lead) for lead in leads]]
    if path.suffix == ".npz":
        np.savez(path, signal=signal, sampling_rate=500, unit="mV", lead_names=leads)
        return path
    table = pd.DataFrame(dict(zip(leads, np.round(signal, 4), strict=True)))
    path.write_text("# sampling_rate: 500\n# unit: mV\n" + table.to_csv(index=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
@pytest.mark.parametrize("name", MODELS)
def test_files_with_one_to_twelve_leads_are_predicted_from_and_say_which_were_used(
    tmp_path: Path, name: str, suffix: str
):
    files = [write_ecg(tmp_path / f"{count:02d}{suffix}", leads) for count, leads in LEAD_SETS.items()]
    table = predict(files, *MODELS[name]())
    assert (table["error"] == "").all()
    assert list(table["num_leads"]) == list(USED.values())
    assert np.isfinite(table.drop(columns=["num_leads"]).select_dtypes("number").to_numpy()).all()
    for flags, leads in zip(table["flags"].str.split(";"), LEAD_SETS.values(), strict=True):
        derived = [lead for lead in LIMB if lead not in leads] if {"I", "II"} <= set(leads) else []
        absent = [lead for lead in STANDARD_LEADS if lead not in leads and lead not in derived]
        for flag, which in {"lead_derived": derived, "lead_absent": absent}.items():
            assert [text for text in flags if text.startswith(flag)] == [f"{flag}:{'+'.join(which)}"] * bool(which)


@pytest.mark.parametrize("name", MODELS)
def test_thirty_seconds_of_lead_i_at_300_hz_are_predicted_from(tmp_path: Path, name: str):
    from scipy.signal import resample_poly

    signal = resample_poly(np.concatenate([make_signal(0.0, 98, 70, seed)[0] for seed in (3, 3, 3)]), 3, 5)
    np.savez(tmp_path / "device.npz", signal=signal[None] * 1000, sampling_rate=300, unit="uV", lead_names=["I"])
    row = predict(tmp_path / "device.npz", *MODELS[name]()).iloc[0]
    assert row["error"] == "" and row["num_leads"] == 1
    flags = row["flags"].split(";")
    assert "lead_absent:II+III+aVR+aVL+aVF+V1+V2+V3+V4+V5+V6" in flags and "resampled:300Hz" in flags
    assert ("cropped" in flags) == ("median beat" not in name)
    assert not any(flag.startswith(("sampling_rate_doubtful", "no_r_peaks", "too_few_beats")) for flag in flags)


@pytest.mark.parametrize("leads", LEAD_SETS.values(), ids=str)
def test_masking_afterwards_shows_what_the_file_of_a_device_shows(leads: tuple[str, ...]):
    _, extractor = classifier(**RHYTHM)
    signal = make_signal(0.0, 98, 70, seed=3)
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    whole = extractor(signal, 500, "mV", STANDARD_LEADS)
    device = extractor(signal[rows], 500, "mV", leads)
    masked = _mask_leads(whole, kept_leads(leads, STANDARD_LEADS))
    np.testing.assert_array_equal(masked["lead_mask"], device["lead_mask"])
    np.testing.assert_allclose(masked["input_values"], device["input_values"], atol=1e-4)


def test_masked_leads_carry_no_sample_and_no_flag():
    batch = {"input_values": signals(3).numpy(), "lead_mask": np.ones((3, 12), bool)}
    batch["lead_mask"][0, 0] = False  # I, which is not kept either
    masked = _mask_leads(batch, kept_leads("II, v2", STANDARD_LEADS))
    assert masked["lead_mask"].sum(1).tolist() == [2, 2, 2]
    assert (masked["input_values"][~masked["lead_mask"]] == 0).all()
    assert masked["input_values"].dtype == np.float32
    np.testing.assert_array_equal(masked["input_values"][1, 1], batch["input_values"][1, 1])


def test_an_embedding_does_not_depend_on_masked_leads():
    torch.manual_seed(0)
    model = EcgDanModel(EcgDanConfig(**TINY)).eval()
    kept = kept_leads(["I", "II"], STANDARD_LEADS)

    def embedded(values: np.ndarray) -> np.ndarray:
        rows = Dataset.from_dict({"input_values": values.tolist(), "lead_mask": [[True] * 12] * len(values)})
        return embed(model, rows, 2, ["I", "II"])

    values = signals(3).numpy()
    other = np.where(kept[:, None], values, 1 - values)
    np.testing.assert_array_equal(embedded(values), embedded(other))
    assert not np.allclose(embedded(values), embedded(values[::-1]))


def test_no_choice_keeps_every_lead():
    assert kept_leads(None, STANDARD_LEADS).all()


@pytest.mark.parametrize(
    ("leads", "message"), [("", "got none"), ("I,V7", "got V7"), ("I,nonsense", "is no lead known here")]
)
def test_leads_the_model_does_not_have_are_refused(leads: str, message: str):
    with pytest.raises(ValueError, match=message):
        kept_leads(leads, STANDARD_LEADS)
