import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from synthetic_beats import LEADS, beat, record
from transformers import AutoFeatureExtractor
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import FLAGS, EcgDanFeatureExtractor, logger
from ecgdan_hf.model.leads_ecgdan import canonical_leads, derive_limb_lead


def extractor(**config) -> EcgDanFeatureExtractor:
    return EcgDanFeatureExtractor(**EcgDanConfig(**config).signal_contract)


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    return record(noise_mv=0.01)[0]


@pytest.fixture(scope="module")
def beat_extractor() -> EcgDanFeatureExtractor:
    return extractor()


def given(signal, names=LEADS, rate=500, unit="mV") -> dict:
    return {"signal": signal, "sampling_rate": rate, "unit": unit, "lead_names": list(names)}


def flag_names(flags: list[str]) -> set[str]:
    return {flag.split(":")[0] for flag in flags}


def similarity(first, second) -> float:
    return float(np.corrcoef(np.ravel(first), np.ravel(second))[0, 1])


# What comes out


@pytest.mark.parametrize(("kind", "length", "pad"), [("median_beat", 608, 4), ("rhythm", 1024, 12)])
def test_output_has_the_contract_s_shape_types_and_zero_padding(ecg, kind, length, pad):
    batch = extractor(input_kind=kind)(**given(ecg), return_tensors="pt")
    assert set(batch) == {"input_values", "lead_mask"}
    assert batch["input_values"].shape == (1, 12, length) and batch["input_values"].dtype == torch.float32
    assert batch["lead_mask"].shape == (1, 12) and batch["lead_mask"].dtype == torch.bool and batch["lead_mask"].all()
    assert not batch["input_values"][..., :pad].any() and not batch["input_values"][..., -pad:].any()
    assert batch["input_values"][..., pad:-pad].abs().sum() > 0


def test_zscore_has_mean_0_and_deviation_1_over_the_signal_without_its_padding(ecg, beat_extractor):
    values = beat_extractor(**given(ecg))["input_values"][0, :, 4:-4]
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(axis=1), 1, atol=1e-5)


def test_global_scale_keeps_voltage_and_zscore_does_not(ecg):
    for normalization, factor in (("global", 2.0), ("per_lead_zscore", 1.0)):
        fe = extractor(normalization=normalization)
        single, double = (fe(**given(signal))["input_values"] for signal in (ecg, 2 * ecg))
        np.testing.assert_allclose(double, factor * single, atol=1e-3)


def test_global_scale_is_clipped_at_20_deviations(ecg):
    values = extractor(normalization="global", global_std_mv=0.01)(**given(ecg))["input_values"]
    assert values.max() == 20 and values.min() == -20


def test_condition_is_the_input_before_scaling_and_padding(ecg):
    for kind in ("median_beat", "rhythm"):
        fe = extractor(input_kind=kind, normalization="global", global_std_mv=1.0)
        signal, mask, _ = fe.condition(**given(ecg))
        np.testing.assert_allclose(fe(**given(ecg))["input_values"][0, :, fe.pad_samples : -fe.pad_samples], signal)
        assert signal.dtype == np.float32 and mask.all()
        assert 1 < signal[1].max() < 2  # millivolt: lead II was made with an R wave of 1.2 mV


def test_leads_that_are_not_used_are_masked_as_if_they_were_not_recorded(ecg):
    wearable = extractor(input_kind="rhythm", used_leads=["I", "II", "III"])
    batch, flags = (wearable(**given(ecg[:2], LEADS[:2]), return_flags=True)[key] for key in ("input_values", "flags"))
    whole = wearable(**given(ecg))
    assert whole["lead_mask"][0].tolist() == [True] * 3 + [False] * 9
    np.testing.assert_allclose(batch[0, :2], whole["input_values"][0, :2], atol=1e-6)
    assert not whole["input_values"][0, 3:].any()
    assert "lead_absent" not in flag_names(flags[0])
    with pytest.raises(ValueError, match="none of the leads V1, V2 is usable for a model of I, II, III"):
        wearable(**given(ecg[6:8], LEADS[6:8]))


def test_a_printed_page_shows_a_quarter_of_each_lead_and_its_rhythm_strip(ecg):
    whole, page = (
        extractor(input_kind="rhythm", normalization="global", page_layout=layout)(**given(ecg))
        for layout in ("whole", "3x4")
    )
    for lead, name in enumerate(LEADS):
        seen = np.zeros(1024, bool)
        seen[slice(12, -12) if name == "II" else slice(12 + 250 * (lead // 3), 12 + 250 * (lead // 3) + 250)] = True
        np.testing.assert_array_equal(page["input_values"][0, lead, seen], whole["input_values"][0, lead, seen])
        assert not page["input_values"][0, lead, ~seen].any()
    assert page["lead_mask"].all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"used_leads": ["V7"]}, "used_leads: expected some of"),
        ({"used_leads": []}, "used_leads: expected some of"),
        ({"input_kind": "rhythm", "page_layout": "6x2"}, "page_layout"),
        ({"input_kind": "median_beat", "page_layout": "3x4"}, "page_layout: expected input_kind='rhythm'"),
    ],
)
def test_what_a_network_looks_at_is_checked(config: dict, message: str):
    with pytest.raises(ValueError, match=message):
        extractor(**config)


def test_a_batch_equals_its_recordings_one_by_one(ecg, beat_extractor):
    other = record(seed=5, heart_rate=90)[0]
    together = beat_extractor(**given([ecg, other]), return_flags=True)
    stacked = beat_extractor(**given(np.stack([ecg, other])))
    for index, signal in enumerate((ecg, other)):
        alone = beat_extractor(**given(signal), return_flags=True)
        np.testing.assert_array_equal(together["input_values"][index], alone["input_values"][0])
        np.testing.assert_array_equal(stacked["input_values"][index], alone["input_values"][0])
        assert together["flags"][index] == alone["flags"][0]


def test_recordings_of_a_batch_may_differ_in_rate_unit_and_leads(ecg, beat_extractor):
    limb = record(rate=250)[0][:2] * 1000
    batch = beat_extractor([ecg, limb], [500, 250], ["mV", "uV"], [list(LEADS), ["I", "II"]], return_tensors="pt")
    assert batch["lead_mask"].sum(dim=1).tolist() == [12, 6]


def test_the_same_recording_gives_the_same_bits_and_is_left_untouched(ecg):
    signal = ecg.copy()
    first, second = (extractor()(**given(signal))["input_values"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(signal, ecg)


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e3), ("V", 1e-3)])
def test_microvolt_and_volt_give_what_millivolt_give(ecg, beat_extractor, unit, factor):
    expected = beat_extractor(**given(ecg))["input_values"]
    np.testing.assert_allclose(beat_extractor(**given(ecg * factor, unit=unit))["input_values"], expected, atol=1e-4)


def test_whole_microvolt_are_accepted(ecg, beat_extractor):
    assert beat_extractor(**given(np.rint(ecg * 1000).astype(np.int16), unit="uV"))["lead_mask"].all()


# Leads


@pytest.mark.parametrize(
    ("lead", "names"),
    [
        ("aVR", ["avr", "AVR", "aVr", "Lead-aVR"]),
        ("II", ["MLII", "Lead II", "lead_ii", "DII", "D2", "ECG II"]),
        ("V1", ["v1", " V1 ", "C1", "ECG Lead V1", "MV1"]),
        ("VX", ["Vx", "X"]),
    ],
)
def test_common_spellings_of_a_lead_are_known(lead, names):
    assert {canonical_leads([name])[0] for name in names} == {lead}


@pytest.mark.parametrize("name", ["-aVR", "V10", "ECG1", "", "pleth", "IV"])
def test_what_is_no_lead_is_not_guessed_at(name):
    with pytest.raises(ValueError, match="is no lead known here"):
        canonical_leads([name])


def test_order_and_spelling_of_leads_change_nothing(ecg, beat_extractor):
    order = np.random.default_rng(0).permutation(12)
    names = [("lead " + LEADS[index]).upper() for index in order]
    shuffled = beat_extractor(**given(ecg[order], names))["input_values"]
    np.testing.assert_allclose(shuffled, beat_extractor(**given(ecg))["input_values"], atol=1e-5)


def test_limb_leads_follow_exactly_from_any_two():
    ecg, _ = record()
    limb = dict(zip(LEADS[:6], ecg[:6], strict=True))
    for first in limb:
        for second in limb:
            if first < second:
                pair = {name: limb[name] for name in (first, second)}
                for lead in set(limb) - set(pair):
                    np.testing.assert_allclose(derive_limb_lead(lead, pair), limb[lead], atol=1e-12)


def test_chest_leads_are_never_derived():
    assert derive_limb_lead("V1", {"I": np.ones(3), "II": np.ones(3)}) is None
    assert derive_limb_lead("III", {"I": np.ones(3), "V1": np.ones(3)}) is None


def test_eight_leads_become_twelve(ecg, beat_extractor):
    eight = [0, 1, 6, 7, 8, 9, 10, 11]
    batch = beat_extractor(**given(ecg[eight], [LEADS[i] for i in eight]), return_flags=True)
    assert batch["lead_mask"].all() and batch["flags"][0] == ["lead_derived:III+aVR+aVL+aVF"]
    # White noise breaks Einthoven's law a little; the derived leads carry that of I and II.
    assert similarity(batch["input_values"], beat_extractor(**given(ecg))["input_values"]) > 0.995


@pytest.mark.parametrize(("names", "present"), [(["II"], 1), (["MLII", "V5"], 2), (["I", "II", "V2"], 7)])
def test_absent_leads_are_masked_and_zero(ecg, beat_extractor, names, present):
    rows = [LEADS.index(name) for name in canonical_leads(names)]
    batch = beat_extractor(**given(ecg[rows], names), return_flags=True)
    mask = batch["lead_mask"][0]
    assert mask.sum() == present and not batch["input_values"][0][~mask].any()
    assert all(np.abs(values).max() > 1 for values in batch["input_values"][0][mask])
    assert "lead_absent" in flag_names(batch["flags"][0])


def test_leads_beyond_the_twelve_are_ignored_with_a_flag(ecg, beat_extractor):
    more = np.concatenate([ecg, ecg[:1]])
    batch = beat_extractor(**given(more, [*LEADS, "vz"]), return_flags=True)
    np.testing.assert_array_equal(batch["input_values"], beat_extractor(**given(ecg))["input_values"])
    assert batch["flags"] == [["lead_ignored:VZ"]]


# Quality


@pytest.mark.parametrize(
    ("spoil", "flag", "masked"),
    [
        (lambda ecg: ecg.__setitem__(8, 0.3), "lead_flat:V3", True),
        (lambda ecg: ecg.__setitem__(2, 0.0), "lead_flat:III", True),
        (lambda ecg: ecg.__setitem__(8, np.nan), "lead_missing_samples:V3", True),
        (lambda ecg: ecg.__setitem__((8, slice(0, 1000)), np.nan), "lead_missing_samples:V3", True),
        (lambda ecg: ecg.__setitem__((8, slice(1000, 1003)), np.inf), "nan_interpolated:V3", False),
        (lambda ecg: np.clip(ecg[9], None, 0.4, out=ecg[9]), "lead_clipped:V4", False),
    ],
)
def test_a_spoilt_lead_is_flagged_and_masked_where_it_carries_nothing(ecg, spoil, flag, masked):
    signal = ecg.copy()
    spoil(signal)
    for kind in ("median_beat", "rhythm"):
        batch = extractor(input_kind=kind)(**given(signal), return_flags=True)
        lead = LEADS.index(flag.split(":")[1])
        assert flag in batch["flags"][0]
        assert batch["lead_mask"][0, lead] == (not masked) and batch["lead_mask"][0].sum() == 12 - masked
        assert np.isfinite(batch["input_values"]).all()
        assert bool(batch["input_values"][0, lead].any()) == (not masked)


def test_a_repeated_last_sample_and_a_flat_baseline_are_no_clipping(beat_extractor):
    signal = np.round(record()[0], 2)  # coarse steps: long runs at the baseline, and at the end of the record
    signal[:, -30:] = signal[:, -30:-29]
    signal[3, -30:] = signal[3].max()
    assert beat_extractor(**given(signal), return_flags=True)["flags"] == [[]]


def test_short_gaps_hardly_change_the_median_beat(ecg, beat_extractor):
    gaps = ecg.copy()
    for start in range(40, 4900, 97):
        gaps[:, start : start + 3] = np.nan
    batch = beat_extractor(**given(gaps), return_flags=True)
    assert flag_names(batch["flags"][0]) == {"nan_interpolated"}
    assert similarity(batch["input_values"], beat_extractor(**given(ecg))["input_values"]) > 0.999


def test_clean_recordings_have_no_flags(ecg, beat_extractor):
    assert beat_extractor(**given(ecg), return_flags=True)["flags"] == [[]]


def test_unequal_gains_of_limb_leads_are_flagged(ecg, beat_extractor):
    signal = ecg.copy()
    signal[1] *= 1.6
    assert "einthoven_residual" in flag_names(beat_extractor(**given(signal), return_flags=True)["flags"][0])


def test_few_and_odd_beats_are_flagged(beat_extractor):
    short, odd = record(duration=2.5, heart_rate=50)[0], record(ectopics=(3, 6))[0]
    assert "too_few_beats" in flag_names(beat_extractor(**given(short), return_flags=True)["flags"][0])
    assert "outlier_beats_dropped:2" in beat_extractor(**given(odd), return_flags=True)["flags"][0]


def test_rhythm_input_is_cropped_in_the_middle_and_padded_around():
    fe = extractor(input_kind="rhythm", sampling_rate=500, num_samples=5024, pad_samples=12)
    long, short = record(duration=14)[0], record(duration=6)[0]
    cropped, padded = (fe(**given(signal), return_flags=True) for signal in (long, short))
    assert cropped["flags"] == [["cropped"]] and padded["flags"] == [["padded"]]
    assert similarity(cropped["input_values"][0, 1, 12:-12], long[1, 1000:6000]) > 0.99
    values = padded["input_values"][0, 1, 12:-12]
    assert not values[:1000].any() and not values[4000:].any() and similarity(values[1000:4000], short[1]) > 0.99
    assert values[1000:4000].std() == pytest.approx(1, abs=1e-3)  # zeros around it took no part in the scaling


def test_every_flag_is_documented(ecg, beat_extractor):
    source = Path(sys.modules[EcgDanFeatureExtractor.prepare.__module__].__file__).read_text(encoding="utf-8")
    assert all(source.count(f'"{name}') >= 2 for name in FLAGS)  # described once, raised at least once


# A beat that came with the recording


def cart_beat(rate: float = 500, seconds: float = 1.2) -> np.ndarray:
    """(12, samples) mV: the beat as a cart might have it, its R peak at 35 %, each lead on a baseline of its own."""
    samples = round(seconds * rate)
    return beat((np.arange(samples) - round(0.35 * samples)) / rate) + np.linspace(-0.2, 0.3, 12)[:, None]


@pytest.mark.parametrize("rate", [500, 250, 1000])
def test_a_given_beat_is_taken_with_its_r_peak_and_baseline_where_ours_are(beat_extractor, rate):
    recording = given(record(rate=rate, noise_mv=0.01)[0], rate=rate)
    own, _, _ = beat_extractor.condition(**recording)
    taken, mask, flags = beat_extractor.condition(**recording, median_beat=cart_beat(rate))
    assert "median_beat_of_file" in flags and mask.all()
    r_peak = np.abs(own[1]).argmax()
    assert abs(np.abs(taken[1]).argmax() - r_peak) <= 1
    first = np.flatnonzero(taken.any(axis=0))[0]
    assert abs(first - (r_peak - 210)) <= 1  # nothing is made up in front of the beat's first sample
    reached = slice(first, -1)
    alike = [similarity(a, b) for a, b in zip(taken[:, reached], own[:, reached], strict=True)]
    assert min(alike) > 0.97
    assert np.sqrt(np.mean((taken - own)[:, reached] ** 2, axis=1)).max() < 0.04


def test_the_given_beat_and_not_ours_reaches_the_network(ecg, beat_extractor):
    marked = cart_beat()
    marked[1, 400:420] += 0.2  # in the T wave of II
    plain, changed = (beat_extractor(**given(ecg), median_beat=each)["input_values"] for each in (cart_beat(), marked))
    changed_leads = np.abs(plain - changed).max(axis=2)[0] > 0.1
    assert changed_leads.tolist() == [lead == "II" for lead in LEADS]
    assert not plain[0, :, 4:14].any() and np.isfinite(plain).all()  # in front of the beat's first sample


def test_rhythm_input_takes_long_pauses_and_flags_that_few_beats_say_nothing_of_the_rate(ecg):
    fe = extractor(input_kind="rhythm")
    pause = np.zeros((12, 5000))
    pause[:, :500], pause[:, 3500:4000] = ecg[:, 1000:1500], ecg[:, 1000:1500]
    with pytest.raises(ValueError, match="heart rate"):
        extractor()(**given(pause))
    inputs = fe(**given(pause), return_flags=True)
    assert "too_few_beats" in flag_names(inputs["flags"][0])
    slow = np.repeat(ecg, 5, axis=1)[:, :25000]  # 50 s at 500 Hz with as many beats as in 10 s
    with pytest.raises(ValueError, match="is the sampling rate right"):
        extractor(input_kind="rhythm", num_samples=5024)(**given(slow))


def test_rhythm_input_ignores_a_given_beat(ecg):
    fe = extractor(input_kind="rhythm")
    with_beat, without = (fe(**given(ecg), median_beat=each, return_flags=True) for each in (-cart_beat(), None))
    np.testing.assert_array_equal(with_beat["input_values"], without["input_values"])
    assert with_beat["flags"] == without["flags"]


def test_leads_of_a_given_beat_are_ordered_derived_and_masked_as_those_of_the_recording(ecg, beat_extractor):
    whole = beat_extractor(**given(ecg), median_beat=cart_beat())["input_values"]
    order = [7, 1, 0, 6, 11, 10, 9, 8]
    recording = given(ecg[order], [LEADS[i] for i in order])
    eight = beat_extractor(**recording, median_beat=cart_beat()[order], return_flags=True)
    assert eight["flags"] == [["lead_derived:III+aVR+aVL+aVF", "median_beat_of_file"]]
    assert similarity(eight["input_values"], whole) > 0.999
    spoilt = ecg.copy()
    spoilt[8] = 0.3
    batch = beat_extractor(**given(spoilt), median_beat=cart_beat(), return_flags=True)
    assert "median_beat_of_file" in batch["flags"][0]
    assert not batch["lead_mask"][0, 8] and not batch["input_values"][0, 8].any()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: 1000 * b,  # microvolt
        lambda b: -b,
        lambda b: b[::-1],  # other leads
        lambda b: np.where(np.arange(12)[:, None] == 4, 0.1, b),  # a lead without signal
        lambda b: np.where(np.arange(600) > 190, np.nan, b),  # ends before the R peak
        lambda b: np.random.default_rng(0).standard_normal(b.shape),
    ],
)
def test_a_given_beat_unlike_ours_is_left_with_a_flag(ecg, beat_extractor, spoil):
    own, left = (
        beat_extractor(**given(ecg)),
        beat_extractor(**given(ecg), median_beat=spoil(cart_beat()), return_flags=True),
    )
    np.testing.assert_array_equal(left["input_values"], own["input_values"])
    assert left["flags"] == [["median_beat_unlike"]]


def test_some_recordings_of_a_batch_may_bring_a_beat(ecg, beat_extractor):
    batch = beat_extractor(**given([ecg, ecg]), median_beat=[None, cart_beat()], return_flags=True)
    assert batch["flags"] == [[], ["median_beat_of_file"]]
    np.testing.assert_array_equal(batch["input_values"][0], beat_extractor(**given(ecg))["input_values"][0])
    both = beat_extractor(**given([ecg, ecg]), median_beat=np.stack([cart_beat()] * 2), return_flags=True)
    assert both["flags"] == [["median_beat_of_file"]] * 2


def test_a_low_pass_is_run_on_a_given_beat_too(ecg):
    fe = extractor(filter={"highpass_hz": 0.5, "lowpass_hz": 20.0, "powerline_hz": 50.0})
    hum = 0.1 * np.sin(2 * np.pi * 150 * np.arange(600) / 500)
    clean, noisy = (fe.condition(**given(ecg), median_beat=each)[0] for each in (cart_beat(), cart_beat() + hum))
    assert np.abs(clean - noisy)[:, 50:-20].max() < 0.01


@pytest.mark.parametrize(
    ("median_beat", "message"),
    [
        (np.ones(600), r"median_beat: expected \(12, samples\), leads as in signal, got shape \(600,\)"),
        (np.ones((600, 12)), r"got shape \(600, 12\)"),
        ([["a"] * 3] * 12, "median_beat: expected a numeric"),
    ],
)
def test_a_given_beat_of_another_shape_is_refused(ecg, beat_extractor, median_beat, message):
    with pytest.raises(ValueError, match=message):
        beat_extractor(**given(ecg), median_beat=median_beat)
    with pytest.raises(ValueError, match="median_beat: expected one for each of 2 recordings, got 12"):
        beat_extractor(**given([ecg, ecg]), median_beat=cart_beat())


# Rate


@pytest.mark.parametrize("rate", [100, 250, 257, 360, 1000])
def test_a_beat_recorded_at_another_rate_is_the_same_beat(ecg, beat_extractor, rate):
    batch = beat_extractor(**given(record(rate=rate, noise_mv=0.005)[0], rate=rate), return_flags=True)
    assert f"resampled:{rate}Hz" in batch["flags"][0]
    floor = 0.95 if rate == 100 else 0.99  # 100 Hz holds two samples of this narrow R wave
    assert similarity(batch["input_values"], beat_extractor(**given(ecg))["input_values"]) > floor


def test_resampling_is_said_once(beat_extractor):
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda entry: said.append(entry.getMessage())
    logger.warning_once.cache_clear()
    logger.addHandler(handler)
    signal = record(rate=320)[0]
    for _ in range(3):
        beat_extractor(**given(signal, rate=320))
    logger.removeHandler(handler)
    assert said == ["Resampling recordings from 320 Hz to the model's 500 Hz."]


def test_powerline_and_wander_are_filtered(ecg):
    time = np.arange(5000) / 500
    hum = 0.3 * np.sin(2 * np.pi * 50 * time) + 1.0 * np.sin(2 * np.pi * 0.1 * time)
    fe = extractor(input_kind="rhythm", sampling_rate=500, num_samples=5024, pad_samples=12)
    clean, dirty = (fe.condition(**given(signal))[0] for signal in (ecg, ecg + hum))
    assert np.abs(clean - dirty)[:, 500:-500].max() < 0.03


# Refusals


def refused(ecg: np.ndarray) -> dict[str, tuple[dict, str]]:
    noise = np.random.default_rng(0).standard_normal((12, 5000))
    slow = record(heart_rate=12, duration=30)[0]
    return {
        "no rate": (given(ecg, rate=None), "sampling_rate: expected the recording's rate in Hz, got None"),
        "zero rate": (given(ecg, rate=0), "sampling_rate: .* got 0"),
        "no unit": (given(ecg, unit=None), "unit: expected one of mV, uV, V, got None"),
        "unknown unit": (given(ecg, unit="adu"), "unit: .* got 'adu'"),
        "no names": ({**given(ecg), "lead_names": None}, "lead_names: expected one name for each row"),
        "unknown lead": (given(ecg, [*LEADS[:11], "V66"]), "'V66' is no lead known here"),
        "lead twice": (given(ecg, [*LEADS[:11], "v1"]), "V1 and v1 are the same lead V1"),
        "too few names": (given(ecg, LEADS[:11]), "expected one for each of the 12 rows of signal, got 11"),
        "transposed": (given(ecg.T), r"\(5000, 12\) for 12 lead names; it is \(samples, leads\), transpose it"),
        "one row": (given(ecg[0]), r"expected \(leads, samples\), got an array of shape \(5000,\)"),
        "text": (given([["a", "b"]], ["I"]), "signal: expected a numeric"),
        "counts": (given(np.rint(ecg * 1000)), "microvolt or ADC counts"),
        "small counts": (given(np.rint(ecg * 8)), "every sample is a whole number.*ADC counts"),
        "microvolt": (given(ecg * 1000), "median lead range is .* mV, expected at most 20"),
        "millivolt as volt": (given(ecg, unit="V"), "expected at most 20; the values are likely not V"),
        "millivolt as microvolt": (given(ecg, unit="uV"), "too small for an ECG; the values are likely not uV"),
        "nothing": (given(ecg * np.nan), "every sample is missing"),
        "zeros": (given(ecg * 0), "none of the leads .* is usable"),
        "unused leads only": (given(ecg[:3], ["VX", "VY", "VZ"]), "none of the leads VX, VY, VZ is usable"),
        "short": (given(ecg[:, :1000]), "1000 samples at 500 Hz are 2.00 s, expected at least 2.4 s"),
        "slow heart": (given(slow), "heart rate .* expected 20 to 300; is the sampling rate right"),
        "no beats": (given(0.05 * noise), "no R peak|heart rate|no complete heart beat"),
    }


@pytest.mark.parametrize("case", list(refused(np.ones((12, 5000)))))
def test_what_cannot_be_trusted_is_refused_in_one_line(ecg, beat_extractor, case):
    arguments, message = refused(ecg)[case]
    with pytest.raises(ValueError, match=message) as error:
        beat_extractor(**arguments)
    assert "\n" not in str(error.value)


def test_a_refused_recording_of_a_batch_is_named(ecg, beat_extractor):
    with pytest.raises(ValueError, match="recording 1: signal: every sample is missing"):
        beat_extractor(**given([ecg, ecg * np.nan]))


def test_a_batch_needs_one_rate_for_all_or_one_each(ecg, beat_extractor):
    with pytest.raises(ValueError, match="sampling_rate: expected one for each of 2 recordings, got 3"):
        beat_extractor(**given([ecg, ecg], rate=[500, 500, 500]))


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        ({"input_kind": "beats"}, "input_kind: expected median_beat or rhythm"),
        ({"unit": "uV"}, "unit: expected mV"),
        ({"normalization": "minmax"}, "normalization: expected"),
        ({"filter": {"highpass": 1}}, "filter: expected highpass_hz, lowpass_hz, powerline_hz, got highpass"),
        ({"sampling_rate": 0}, "expected positive numbers"),
        ({"pad_samples": 400}, "no room for 400 zeros"),
        ({"lead_names": ["I", "i"]}, "are the same lead I"),
    ],
)
def test_an_impossible_contract_is_refused(contract, message):
    with pytest.raises(ValueError, match=message):
        EcgDanFeatureExtractor(**contract)


# Hugging Face form


def test_save_and_load_keep_every_setting(tmp_path, ecg):
    fe = extractor(input_kind="rhythm", normalization="global", global_std_mv=0.31, filter={"highpass_hz": 0.67})
    fe.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert saved["feature_extractor_type"] == "EcgDanFeatureExtractor"
    for loaded in (EcgDanFeatureExtractor.from_pretrained(tmp_path), AutoFeatureExtractor.from_pretrained(tmp_path)):
        assert type(loaded) is EcgDanFeatureExtractor and loaded.to_dict() == fe.to_dict()
        np.testing.assert_array_equal(loaded(**given(ecg))["input_values"], fe(**given(ecg))["input_values"])


def test_default_settings_are_those_of_the_configuration():
    assert EcgDanFeatureExtractor().to_dict() == extractor().to_dict()


def test_hub_code_needs_only_transformers_and_numpy_and_names_every_file_it_needs():
    source = sys.modules[EcgDanFeatureExtractor.__module__].__file__
    needed = {Path(file) for file in get_relative_import_files(source)}
    lines = Path(source).read_text(encoding="utf-8").splitlines()
    direct = {Path(source).parent / f"{line.split()[1][1:]}.py" for line in lines if line.startswith("from .")}
    assert needed == direct
    for file in (source, *needed):
        assert set(get_imports(file)) <= {"numpy", "transformers", "huggingface_hub"} | set(sys.stdlib_module_names)


def test_a_missing_library_is_named_when_it_is_needed(monkeypatch, ecg, beat_extractor):
    for module in ("scipy", "scipy.signal", "scipy.ndimage"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="filters and resamples with scipy: pip install scipy"):
        beat_extractor(**given(ecg))


def test_neurokit2_is_not_needed_for_beats(monkeypatch, ecg, beat_extractor):
    monkeypatch.setitem(sys.modules, "neurokit2", None)
    assert np.isfinite(beat_extractor(**given(ecg))["input_values"]).all()


# Real recordings


def ptbxl(shared, step: int) -> list:
    headers = sorted((shared / "data/ptb-xl/records500").glob("*/*.hea"))[::step]
    return [wfdb.rdrecord(str(header.with_suffix(""))) for header in headers]


def test_ptbxl_recordings_become_median_beats_with_all_leads(shared, beat_extractor):
    for recording in ptbxl(shared, 100):
        batch = beat_extractor(**given(recording.p_signal.T, recording.sig_name), return_flags=True)
        assert batch["lead_mask"].all() and np.isfinite(batch["input_values"]).all()
        assert "sampling_rate_doubtful" not in batch["flags"][0]
        speed = np.abs(np.diff(batch["input_values"][0, :, 4:-4], axis=1)).sum(axis=0)
        assert speed[190:290].max() >= 0.9 * speed[90:390].max()  # the QRS complex stands at sample 240


def test_ptbxl_recordings_with_a_rate_five_times_too_low_are_refused_or_flagged(shared, beat_extractor):
    caught = 0
    recordings = ptbxl(shared, 100)
    for recording in recordings:
        try:
            batch = beat_extractor(**given(recording.p_signal.T, recording.sig_name, rate=100), return_flags=True)
            caught += "sampling_rate_doubtful" in batch["flags"][0]
        except ValueError:
            caught += 1
    print(f"500 Hz recordings given as 100 Hz: {caught} of {len(recordings)} refused or flagged")
    assert caught >= 0.75 * len(recordings)


def test_two_lead_mit_bih_and_ludb_recordings_are_accepted(shared, beat_extractor):
    holter = wfdb.rdrecord(str(shared / "data/mit-bih/101"), sampto=3600)
    batch = beat_extractor(**given(holter.p_signal.T, holter.sig_name, rate=360), return_flags=True)
    assert batch["lead_mask"].sum() == 2 and "resampled:360Hz" in batch["flags"][0]
    ludb = wfdb.rdrecord(str(shared / "data/ludb/data/1"))
    assert beat_extractor(**given(ludb.p_signal.T, ludb.sig_name))["lead_mask"].all()


# A printed page


def printed(ecg):
    """What a page of 3 rows and 4 columns with a strip of lead II shows of (12, samples)."""
    column, quarter = np.arange(12)[:, None] // 3, np.arange(ecg.shape[1]) * 4 // ecg.shape[1]
    return np.where((column == quarter) | (np.arange(12) == 1)[:, None], ecg, np.nan)


def test_leads_of_a_printed_page_are_used_and_what_it_shows_is_repeated(ecg):
    fe = extractor(input_kind="rhythm", sampling_rate=100, num_samples=1024)
    whole = fe(**given(ecg), return_tensors="np")["input_values"][0]
    page = fe(**given(printed(ecg)), return_tensors="np", return_flags=True)
    assert page["lead_mask"].all()
    assert "lead_in_part" in flag_names(page["flags"][0])
    assert not {"lead_missing_samples", "einthoven_residual", "doubtful"} & flag_names(page["flags"][0])
    shown = page["input_values"][0]
    assert similarity(shown[3, 280:500], whole[3, 280:500]) > 0.9  # in the second column
    assert similarity(shown[3, 280:500], shown[3, 530:750]) > 0.9
    np.testing.assert_allclose(shown[1], whole[1], atol=1e-3)


def test_what_a_page_does_not_show_is_zero_for_a_network_trained_so(ecg):
    fe = extractor(input_kind="rhythm", sampling_rate=100, num_samples=1024, page_layout="3x4")
    shown = fe(**given(printed(ecg)))["input_values"][0]
    assert np.abs(shown[3, 280:500]).max() > 1 > 1e3 * np.abs(shown[3, 530:]).max()
