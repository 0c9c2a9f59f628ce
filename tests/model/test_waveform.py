"""Weights of the waves under a rule: rules as data, features of beats, and the feature extractor that has one."""

import json
import sys

import numpy as np
import pytest
import wfdb
from synthetic_beats import LEADS, beat, ectopic
from transformers import AutoFeatureExtractor

from ecgdan_hf import WAVEFORM_RULES, DanetConfig, EcgDanConfig, EcgDanFeatureExtractor
from ecgdan_hf.data.prepared.preparation import Preparation
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.configuration_danet import BEAT_FEATURES, resolve_waveform_rule
from ecgdan_hf.model.waveform_danet import BeatWaves, _beat_features, _meets_rule, waveform_weights

RATE = 100
EARLY = 6  # index of the premature beat
SECONDS = {"p": -0.16, "qrs": 0.0, "t": 0.28}  # of the synthetic waves' peaks, from R


def strip(early_by: float = 0.3, pause: float = 0.9, wide: bool = False, leads: int = 12) -> tuple:
    """(leads, 1000) mV at 100 Hz and the R peaks in samples: RR 0.8 s, one beat early by `early_by` seconds."""
    intervals = np.full(11, 0.8)
    intervals[EARLY - 1], intervals[EARLY] = 0.8 - early_by, pause
    peaks = 0.5 + np.concatenate([[0], np.cumsum(intervals)])
    peaks = peaks[peaks < 9.7]
    time = np.arange(1000) / RATE
    shapes = [ectopic if wide and index == EARLY else beat for index in range(len(peaks))]
    signal = sum(shape(time - peak) for shape, peak in zip(shapes, peaks, strict=True))
    return signal[:leads], np.rint(peaks * RATE).astype(int)


def at(weights: np.ndarray, peak: int, wave: str) -> float:
    """The largest weight within 20 ms of a wave's peak."""
    centre = peak + round(SECONDS[wave] * RATE)
    return float(weights[centre - 2 : centre + 3].max())


def features_of(**values: list[float]) -> dict[str, np.ndarray]:
    beats = len(next(iter(values.values())))
    return {name: np.array(values.get(name, [np.nan] * beats)) for name in BEAT_FEATURES}


# Rules


def test_a_rule_by_name_is_a_copy_and_a_rule_from_yaml_is_the_same_as_from_a_dictionary(tmp_path):
    resolved = resolve_waveform_rule("apc")
    assert resolved == WAVEFORM_RULES["apc"] and resolved is not WAVEFORM_RULES["apc"]
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nwave_weights: {p: 1, qrs: 0.5, t: 0.2, baseline: 0}\nbeat: {qrs_seconds: {above: 0.12}}\n",
        encoding="utf-8",
    )
    given = {
        "name": "mine",
        "wave_weights": {"p": 1, "qrs": 0.5, "t": 0.2, "baseline": 0},
        "beat": {"qrs_seconds": {"above": 0.12}},
    }
    assert resolve_waveform_rule(str(file)) == resolve_waveform_rule(file) == resolve_waveform_rule(given)
    assert DanetConfig(waveform_rule=str(file)).waveform_rule["beat"] == given["beat"]


@pytest.mark.parametrize("name", sorted(WAVEFORM_RULES))
def test_shipped_rules_are_complete_and_pass_their_own_check(name):
    assert resolve_waveform_rule(WAVEFORM_RULES[name]) == WAVEFORM_RULES[name] and WAVEFORM_RULES[name]["name"] == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {}}, "waveform_rule: expected keys among name, wave_weights, .*, got weights"),
        ({"wave_weights": {"p": 1.0}}, "wave_weights: expected p, qrs, t, baseline, qrs is missing"),
        ({"wave_weights": {"p": 1.5, "qrs": 1, "t": 1, "baseline": 0}}, "p: expected a number from 0 to 1, got 1.5"),
        ({"wave_weights": {"u": 1}}, "wave_weights: expected keys among p, qrs, t, baseline, got u"),
        ({"beat": {"pp_ratio": {"below": 1}}}, "beat: expected keys among rr_ratio, .*, got pp_ratio"),
        ({"beat": {"rr_ratio": {"under": 1}}}, "rr_ratio: expected keys among above, below, got under"),
        ({"beat": {"rr_ratio": {"below": "0.8"}}}, "rr_ratio: below: expected a number from -10 to 10, got '0.8'"),
        ({"beat": {"rr_ratio": {}}}, "rr_ratio: expected a limit, below or above, got none"),
        ({"beat": {"rr_ratio": 0.8}}, "rr_ratio: expected a dictionary"),
        ({"other_beats": -0.1}, "other_beats: expected a number from 0 to 1, got -0.1"),
        ({"smooth_seconds": 5}, "smooth_seconds: expected a number from 0 to 1, got 5"),
        ({"random": True}, "random weights know no wave_weights"),
        ({"random": "yes"}, "random: expected true or false, got 'yes'"),
    ],
)
def test_a_wrong_rule_is_refused_in_one_line_that_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        resolve_waveform_rule(WAVEFORM_RULES["apc"] | change)
    assert "\n" not in str(caught.value)


def test_a_rule_that_is_no_rule_is_refused_by_its_name_or_file(tmp_path):
    with pytest.raises(ValueError, match=r"expected one of apc, pvc, .*, a YAML file or a dictionary, got 'afib'"):
        resolve_waveform_rule("afib")
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml: no such file"):
        resolve_waveform_rule(tmp_path / "absent.yaml")
    for text in ("- a\n- b\n", "a: [1\nb: 2\n"):
        (tmp_path / "bad.yml").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"bad\.yml: expected") as caught:
            resolve_waveform_rule(tmp_path / "bad.yml")
        assert "\n" not in str(caught.value)


# Waves and features of beats


def test_waves_lie_where_they_were_put():
    signal, peaks = strip(early_by=0)
    waves = BeatWaves.delineate(signal, RATE, peaks)
    for onset, end, wave in (("p_onset", "p_end", "p"), ("qrs_onset", "qrs_end", "qrs"), ("t_onset", "t_end", "t")):
        centre = peaks + SECONDS[wave] * RATE
        inside = (getattr(waves, onset) < centre) & (centre < getattr(waves, end))
        assert inside[1:-1].all(), wave
        assert np.nanmax(getattr(waves, end) - getattr(waves, onset)) < 0.3 * RATE
    np.testing.assert_allclose(waves.t_peak[1:-1], peaks[1:-1] + 28, atol=1.5)


def test_the_same_waves_are_found_at_another_rate_and_with_inverted_leads():
    signal, peaks = strip()
    waves = BeatWaves.delineate(signal, RATE, peaks)
    fine = np.stack([np.interp(np.arange(5000) / 5, np.arange(1000), lead) for lead in signal])
    np.testing.assert_allclose(BeatWaves.delineate(fine, 500, 5 * peaks).t_peak[1:-1] / 5, waves.t_peak[1:-1], atol=3)
    turned = BeatWaves.delineate(-signal, RATE, peaks)
    np.testing.assert_allclose(turned.p_onset, waves.p_onset)


def test_beat_features_are_what_they_say():
    signal, peaks = strip(early_by=0.3, pause=0.9)
    found = _beat_features(signal, RATE, peaks)
    assert set(found) == set(BEAT_FEATURES)
    assert np.isnan(found["rr_ratio"][0]) and np.isnan(found["rr_pair_ratio"][[0, -1]]).all()
    assert found["rr_ratio"][EARLY] == pytest.approx(0.5 / 0.8, abs=0.02)
    assert found["rr_pair_ratio"][EARLY] == pytest.approx(1.4 / 1.6, abs=0.02)
    assert found["rr_ratio"][[2, EARLY + 2]] == pytest.approx([1.0, 1.0], abs=0.02)
    assert np.nanmin(found["qrs_likeness"]) > 0.95
    assert np.nanmedian(found["pr_seconds"]) == pytest.approx(0.2, abs=0.06)
    assert 0.04 < np.nanmedian(found["qrs_seconds"]) < 0.14


def test_beats_of_a_run_are_early_against_the_slower_beats_and_not_against_each_other():
    signal, _ = strip()
    rr = np.array([80, 80, 80, 50, 50, 50, 50, 120, 80, 80, 80])
    found = _beat_features(signal, RATE, 40 + np.cumsum(rr))
    assert found["rr_ratio"][3:7] == pytest.approx([0.625] * 4)


def test_a_wide_beat_has_an_unlike_and_longer_qrs():
    signal, peaks = strip(wide=True)
    found = _beat_features(signal, RATE, peaks)
    others = np.delete(np.arange(len(peaks)), EARLY)
    assert found["qrs_likeness"][EARLY] < 0.6 < 0.95 < np.nanmin(found["qrs_likeness"][others])
    assert found["qrs_seconds"][EARLY] > 1.2 * np.nanmedian(found["qrs_seconds"][others])


@pytest.mark.parametrize("broken", ["rr_ratio", "rr_pair_ratio", "qrs_likeness"])
def test_every_condition_of_a_rule_must_hold(broken):
    values = {"rr_ratio": [0.7], "rr_pair_ratio": [0.9], "qrs_likeness": [0.95]}
    assert _meets_rule(features_of(**values), WAVEFORM_RULES["apc"]).all()
    wrong = {"rr_ratio": [0.9], "rr_pair_ratio": [1.01], "qrs_likeness": [0.7]}[broken]
    assert not _meets_rule(features_of(**values | {broken: wrong}), WAVEFORM_RULES["apc"]).any()


def test_an_unknown_feature_neither_meets_nor_breaks_a_condition_but_rr_must_be_known():
    rule = WAVEFORM_RULES["apc"]
    nan = float("nan")
    assert _meets_rule(features_of(rr_ratio=[0.7], rr_pair_ratio=[nan], qrs_likeness=[nan]), rule).all()
    assert not _meets_rule(features_of(rr_ratio=[nan], rr_pair_ratio=[0.9], qrs_likeness=[0.99]), rule).any()
    wide = resolve_waveform_rule(rule | {"beat": {"qrs_seconds": {"above": 0.12, "below": 0.3}}})
    found = _meets_rule(features_of(qrs_seconds=[nan, 0.1, 0.15, 0.4]), wide)
    assert found.tolist() == [False, False, True, False]
    assert _meets_rule(features_of(rr_ratio=[nan, 1.0]), WAVEFORM_RULES["all-ones"]).all()


# Weights


def test_weights_of_an_early_beat_rank_p_over_qrs_over_t_over_baseline_and_exceed_other_beats():
    signal, peaks = strip()
    weights = waveform_weights(signal, RATE, "apc", peaks)
    assert weights.shape == (1000,) and weights.dtype == np.float32 and weights.min() >= 0 and weights.max() <= 1
    for peak in (peaks[EARLY], peaks[2]):
        p, qrs, t = (at(weights, peak, wave) for wave in ("p", "qrs", "t"))
        assert p > qrs > t >= weights.min()
    assert at(weights, peaks[EARLY], "p") == pytest.approx(1.0, abs=0.05)
    assert at(weights, peaks[2], "p") == pytest.approx(0.4, abs=0.05)
    assert weights[peaks[2] + 45] == pytest.approx(0.1, abs=0.02)
    # what is found without being given the R peaks is the same
    np.testing.assert_allclose(waveform_weights(signal, RATE, "apc"), weights, atol=0.3)


def test_the_early_beat_is_one_interval_without_a_dip_between_p_and_qrs_and_others_have_the_dip_of_their_weights():
    signal, peaks = strip()
    weights = waveform_weights(signal, RATE, "apc", peaks)
    assert weights[peaks[EARLY] - 14 : peaks[EARLY] + 2].min() > 0.55


def test_an_early_beat_without_a_p_wave_has_its_usual_place_raised():
    signal, peaks = strip(early_by=0.35)
    gone = slice(peaks[EARLY] - 30, peaks[EARLY] - 6)
    signal[:, gone] = signal[:, [gone.start]]  # a flat stretch where P would be
    weights = waveform_weights(signal, RATE, "apc", peaks)
    assert weights[peaks[EARLY] - 12] > 0.9
    assert weights[peaks[EARLY - 1] + 10] < 0.5


@pytest.mark.parametrize(("options", "raised"), [({"pause": 1.2}, False), ({"early_by": 0.05}, False), ({}, True)])
def test_the_apc_rule_raises_a_beat_only_if_it_is_early_and_its_pause_incomplete(options, raised):
    signal, peaks = strip(**options)
    weights = waveform_weights(signal, RATE, "apc", peaks)
    assert (at(weights, peaks[EARLY], "p") > 0.8) is raised


def test_the_pvc_rule_raises_the_wide_beat_alone_and_the_apc_rule_does_not():
    signal, peaks = strip(wide=True, pause=1.1)
    pvc, apc = (waveform_weights(signal, RATE, rule, peaks) for rule in ("pvc", "apc"))
    raised = [index for index, peak in enumerate(peaks) if at(pvc, peak, "qrs") > 0.8]
    assert raised == [EARLY] and at(apc, peaks[EARLY], "qrs") < 0.5
    narrow, peaks = strip()
    assert waveform_weights(narrow, RATE, "pvc", peaks).max() < 0.5


def test_neurokit2_is_named_when_a_rule_needs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "neurokit2", None)
    signal, peaks = strip()
    with pytest.raises(ImportError, match="finds P and T with neurokit2: pip install neurokit2"):
        waveform_weights(signal, RATE, "apc", peaks)


def test_controls_weigh_everything_the_wrong_wave_or_nothing_in_particular():
    signal, peaks = strip()
    assert (waveform_weights(signal, RATE, "all-ones", peaks) == 1).all()
    wrong = waveform_weights(signal, RATE, "wrong-wave", peaks)
    assert at(wrong, peaks[EARLY], "t") > 0.9 > at(wrong, peaks[EARLY], "qrs") > at(wrong, peaks[EARLY], "p")
    noise = waveform_weights(signal, RATE, "random")
    assert np.array_equal(noise, waveform_weights(signal.copy(), RATE, "random"))
    assert not np.array_equal(noise, waveform_weights(signal * 1.1, RATE, "random"))
    assert 0 < noise.min() < 0.25 < 0.75 < noise.max() < 1 and np.abs(np.diff(noise)).max() < 0.3


@pytest.mark.parametrize("rule", sorted(WAVEFORM_RULES))
@pytest.mark.parametrize("kind", ["one lead", "noise", "silence", "two beats", "no beat", "short"])
def test_any_signal_has_weights(rule, kind):
    signal, peaks = strip()
    noise = np.random.default_rng(0).standard_normal((12, 1000))
    signal, peaks = {
        "one lead": (signal[1:2], peaks),
        "noise": (noise, None),
        "silence": (signal * 0, None),
        "two beats": (signal, peaks[[2, 3]]),
        "no beat": (signal, peaks[:0]),
        "short": (signal[:, :250], None),
    }[kind]
    weights = waveform_weights(signal, RATE, rule, peaks)
    assert (
        weights.shape == signal.shape[1:] and np.isfinite(weights).all() and 0 <= weights.min() <= weights.max() <= 1
    )


def test_one_lead_is_enough_to_raise_the_early_beat():
    signal, peaks = strip()
    for lead in (0, 1, 6, 10):
        weights = waveform_weights(signal[lead : lead + 1], RATE, "apc", peaks)
        assert at(weights, peaks[EARLY], "p") > 0.9 > 0.5 > at(weights, peaks[2], "p"), LEADS[lead]


# Feature extractor and rows


def extractor(rule="apc", **options) -> EcgDanFeatureExtractor:
    return EcgDanFeatureExtractor(**DanetConfig(waveform_module="hard", waveform_rule=rule, **options).signal_contract)


def given(signal: np.ndarray, names=LEADS) -> dict:
    return {"signal": signal, "sampling_rate": RATE, "unit": "mV", "lead_names": list(names)}


def test_the_feature_extractor_weighs_the_signal_and_gives_its_padding_no_weight():
    signal, peaks = strip()
    fe = extractor()
    outputs = fe(**given(signal), return_tensors="pt")
    weights = outputs["waveform_weights"].numpy()[0]
    assert outputs["waveform_weights"].shape == (1, fe.num_samples) and weights.dtype == np.float32
    pad = fe.pad_samples
    assert not weights[:pad].any() and not weights[-pad:].any() and weights[pad:-pad].min() > 0
    assert at(weights[pad:], peaks[EARLY], "p") > 0.9 > 0.5 > at(weights[pad:], peaks[2], "p")
    short = fe(**given(signal[:, 200:900]))["waveform_weights"][0, pad:-pad]
    assert (short > 0).sum() == 700 and not short[:150].any() and not short[-150:].any()


def test_a_rule_is_saved_with_the_feature_extractor_and_without_one_nothing_changes(tmp_path):
    signal, _ = strip()
    fe = extractor("pvc")
    fe.save_pretrained(tmp_path)
    assert (
        json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))["waveform_rule"]
        == WAVEFORM_RULES["pvc"]
    )
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == fe.to_dict() and "waveform_weights" in loaded.model_input_names
    np.testing.assert_array_equal(loaded(**given(signal))["waveform_weights"], fe(**given(signal))["waveform_weights"])
    plain = EcgDanFeatureExtractor(**EcgDanConfig(input_kind="rhythm").signal_contract)
    assert "waveform_rule" not in plain.to_dict() and "model_input_names" not in fe.to_dict()
    assert set(plain(**given(signal))) == {"input_values", "lead_mask"}
    assert plain.model_input_names == ["input_values", "lead_mask"]


def test_a_median_beat_has_no_rule():
    with pytest.raises(ValueError, match="waveform_rule: expected input_kind='rhythm' with it, got 'median_beat'"):
        EcgDanFeatureExtractor(waveform_rule="apc")


def test_the_configuration_asks_for_weights_only_where_the_module_is_hard():
    for module in ("soft", "none"):
        assert "waveform_rule" not in DanetConfig(waveform_module=module).signal_contract


def test_masked_leads_do_not_enter_the_weights():
    signal, _ = strip()
    fe = extractor()
    alone = extractor(lead_names=["V1"])(**given(signal[6:7], ["V1"]))
    one_of_twelve = fe(**given(signal[6:7], ["V1"]))
    np.testing.assert_array_equal(alone["waveform_weights"], one_of_twelve["waveform_weights"])
    two = fe(**given(signal[:2], LEADS[:2]))
    broken = np.vstack([signal[:2], np.full((1, 1000), np.nan)])
    with_nan = fe(**given(broken, ("I", "II", "V1")))
    np.testing.assert_array_equal(two["waveform_weights"], with_nan["waveform_weights"])


def test_rows_carry_the_weights_and_an_unusable_record_has_none():
    signal, _ = strip()
    fe = extractor()
    record = EcgRecord(signal_mv=signal.astype(np.float32), sampling_rate=RATE, lead_names=LEADS)
    preparation = Preparation(fe, skip_bad=True)
    row = preparation.prepare(record)
    assert set(row) | {"error"} == set(preparation.features)
    np.testing.assert_array_equal(row["waveform_weights"], fe(**given(record.signal_mv))["waveform_weights"][0])
    assert preparation.features["waveform_weights"].length == fe.num_samples == len(row["waveform_weights"])
    assert not preparation._empty()["waveform_weights"].any()
    plain = Preparation(EcgDanFeatureExtractor(**DanetConfig().signal_contract))
    assert "waveform_weights" not in plain.features and "waveform_weights" not in plain.prepare(record)


# Real recordings


def test_the_rule_s_p_weight_lies_on_hand_marked_p_waves(shared):
    inside, outside = [], []
    for number in (1, 2, 6, 7, 10):
        stem = str(shared / "data/ludb/data" / str(number))
        recording, marks = wfdb.rdrecord(stem), wfdb.rdann(stem, "ii")
        fe = extractor()
        names = [name.lower() for name in recording.sig_name]
        outputs = fe(recording.p_signal.T, sampling_rate=500, unit="mV", lead_names=names)
        weights = outputs["waveform_weights"][0, fe.pad_samples : -fe.pad_samples]
        is_p = np.zeros(len(weights), bool)
        for index in np.flatnonzero(np.array(marks.symbol) == "p"):
            is_p[marks.sample[index] // 5 - 2 : marks.sample[index] // 5 + 3] = True
        marked = slice(marks.sample[0] // 5, marks.sample[-1] // 5)
        inside.append(weights[marked][is_p[marked]].mean())
        outside.append(weights[marked][~is_p[marked]].mean())
    print("mean weight at hand-marked P peaks and elsewhere:", np.round(inside, 2), np.round(outside, 2))
    assert np.mean(inside) > 1.6 * np.mean(outside)
