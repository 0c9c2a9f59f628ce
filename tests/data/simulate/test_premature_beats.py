"""Simulated premature beats: what is put in is there, and what is known about it is true."""

import dataclasses

import numpy as np
import pytest
from model.synthetic_beats import record

from ecgdan_hf.data.simulate import premature_beats as pb
from ecgdan_hf.model.configuration_danet import WAVEFORM_RULES
from ecgdan_hf.model.waveform_danet import _beat_features

RATE = 100
APC, PVC = WAVEFORM_RULES["apc"], WAVEFORM_RULES["pvc"]


def regular(rate: float = RATE, leads: int = 2, **options: float) -> tuple[np.ndarray, np.ndarray]:
    """(leads, 10 s) mV: leads II and V1 first, and the R peaks in samples."""
    signal, seconds = record(rate=rate, **options)
    order = [1, 6, *(lead for lead in range(12) if lead not in (1, 6))][:leads]
    return signal[order], np.rint(seconds * rate).astype(int)


def simulated(number: int, kind: str, seed: int = 0, **options: float) -> list[pb.SimulatedEcg]:
    signal, peaks = regular()
    rng = np.random.default_rng(seed)
    return [pb.SimulatedEcg.simulate(signal, RATE, peaks, rng, kind, **options) for _ in range(number)]


# Beats moved


@pytest.mark.parametrize("leads", [1, 2, 12])
@pytest.mark.parametrize("rate", [100, 250, 500])
def test_beats_put_down_where_they_were_are_the_recording(rate, leads):
    signal, peaks = regular(rate, leads, noise_mv=0.02)
    every = np.arange(len(peaks))
    again = pb._move_beats(signal, rate, peaks, peaks, every, every < 0, np.ones(leads), 0)
    inner = slice(peaks[0] - round(0.2 * rate), min(peaks[-1] + round(0.3 * rate), round(9.9 * rate)))
    np.testing.assert_allclose(again[:, inner], signal[:, inner], atol=1e-12)


def test_a_p_wave_left_as_it_is_changes_nothing_and_one_multiplied_by_zero_is_gone():
    signal, peaks = regular()
    every = np.arange(len(peaks))
    changed = every == 4
    same, gone = (pb._move_beats(signal, RATE, peaks, peaks, every, changed, np.full(2, f), 0) for f in (1.0, 0.0))
    np.testing.assert_allclose(same[:, 100:900], signal[:, 100:900], atol=1e-12)
    p, r = peaks[4] - 16, peaks[4]
    assert signal[0, p] > 0.12 and abs(gone[0, p]) < 0.03
    np.testing.assert_array_equal(gone[:, r - 3 : r + 40], same[:, r - 3 : r + 40])


def test_a_shifted_p_wave_is_where_it_was_shifted_to():
    signal, peaks = regular()
    every = np.arange(len(peaks))
    moved = pb._move_beats(signal, RATE, peaks, peaks, every, every == 4, np.ones(2), -4)
    place = slice(peaks[4] - 26, peaks[4] - 7)
    assert moved[0, place].argmax() == signal[0, place].argmax() - 4


def test_a_qrs_complex_at_the_edge_that_was_not_found_is_in_no_simulated_beat():
    signal, peaks = regular()
    found = peaks[1:-1]
    rng = np.random.default_rng(0)
    for _ in range(20):
        ecg = pb.SimulatedEcg.simulate(signal, RATE, found, rng, "sinus", ventricular_share=0)
        tall = np.flatnonzero(ecg.signal_mv[0] > 0.6)
        assert (np.abs(tall[:, None] - ecg.r_peaks).min(axis=1) <= 2).all()


# Rhythms


def test_premature_beats_are_early_and_the_label_is_in_the_flags():
    early = 0
    for ecg in simulated(60, "premature", ventricular_share=0):
        rr = np.diff(ecg.r_peaks)
        usual = 60 / 70 * RATE
        assert (rr[ecg.premature[1:]] < 0.95 * 1.4 * usual).all() and not ecg.ventricular.any()
        sinus = rr[~ecg.premature[1:] & ~ecg.premature[:-1]]
        first = np.flatnonzero(ecg.premature[1:] & ~ecg.premature[:-1])
        if len(sinus) and len(first):
            assert (rr[first] < 0.95 * np.median(sinus)).all() and (rr >= 28 - 1).all()
            early += len(first)
        assert np.array_equal(ecg.targets(APC), ecg.premature)
    assert early > 40


def test_premature_beats_have_another_p_wave_than_the_others():
    differences = []
    for ecg in simulated(40, "premature", ventricular_share=0):
        late = np.diff(ecg.r_peaks, prepend=-200) > 55  # the T before ends before its P
        whole = (ecg.r_peaks > 30) & (ecg.r_peaks < 990) & late
        cut = {flag: ecg.r_peaks[whole & (ecg.premature == flag)] for flag in (False, True)}
        if len(cut[True]) and len(cut[False]):
            usual, other = (ecg.signal_mv[0, peaks[0] - 22 : peaks[0] - 8] for peaks in (cut[False], cut[True]))
            differences.append(np.abs(usual - other).max())
    assert len(differences) > 15 and np.median(differences) > 0.04


@pytest.mark.parametrize("kind", ["sinus", "pause", "arrhythmia", "fibrillation"])
def test_counter_examples_have_no_premature_beat(kind):
    for ecg in simulated(10, kind):
        assert not ecg.premature.any() and not ecg.targets(APC).any()
        assert ecg.signal_mv.dtype == np.float32 and np.isfinite(ecg.signal_mv).all()


def test_fibrillation_is_irregular_and_has_no_p_wave():
    variation, p_height = {}, {}
    for kind in ("sinus", "fibrillation"):
        ecgs = simulated(30, kind, ventricular_share=0)
        variation[kind] = [np.diff(ecg.r_peaks).std() / np.diff(ecg.r_peaks).mean() for ecg in ecgs]
        inside = [ecg.r_peaks[(ecg.r_peaks > 30) & (ecg.r_peaks < 990)] for ecg in ecgs]
        p_height[kind] = np.mean([ecg.signal_mv[0, r - 16].mean() for ecg, r in zip(ecgs, inside, strict=True)])
        assert all(ecg.p_wave.all() != (kind == "fibrillation") for ecg in ecgs)
    assert np.median(variation["fibrillation"]) > 0.1 > 0.06 > max(variation["sinus"])
    assert p_height["sinus"] > 0.1 > 0.06 > abs(p_height["fibrillation"])


def test_a_pause_lasts_longer_than_any_interval_of_sinus_arrhythmia():
    longest = [np.diff(ecg.r_peaks).max() for ecg in simulated(20, "pause", ventricular_share=0)]
    usual = [np.median(np.diff(ecg.r_peaks)) for ecg in simulated(20, "sinus", ventricular_share=0)]
    assert np.quantile(longest, 0.7) > 1.4 * np.median(usual)


def test_ventricular_beats_are_wide_unlike_the_others_and_the_target_of_their_rule_alone():
    signal, peaks = regular(leads=12)
    rng, likeness, narrow = np.random.default_rng(3), [], []
    for _ in range(15):
        ecg = pb.SimulatedEcg.simulate(signal, RATE, peaks, rng, "sinus", ventricular_share=1)
        features = _beat_features(ecg.signal_mv.astype(float), RATE, ecg.r_peaks)
        likeness += features["qrs_likeness"][ecg.ventricular].tolist()
        narrow += features["qrs_likeness"][~ecg.ventricular].tolist()
        assert np.array_equal(ecg.targets(PVC), ecg.ventricular) and not ecg.targets(APC).any()
        assert not (ecg.ventricular & ecg.p_wave).any()
    assert len(likeness) > 8 and np.nanmedian(likeness) < 0.7 < 0.95 < np.nanmedian(narrow)


def test_the_shares_of_the_kinds_make_half_of_the_recordings_positive():
    signal, peaks = regular()
    rng = np.random.default_rng(0)
    ecgs = [pb.SimulatedEcg.simulate(signal, RATE, peaks, rng) for _ in range(400)]
    assert 0.42 < np.mean([ecg.premature.any() for ecg in ecgs]) < 0.58
    assert 0.08 < np.mean([ecg.ventricular.any() for ecg in ecgs]) < 0.25


@pytest.mark.parametrize("kind", pb.KINDS)
def test_the_same_draws_give_the_same_times_and_waves_at_any_sampling_rate(kind):
    coarse, fine = (
        pb.SimulatedEcg.simulate(*_at(rate), np.random.default_rng(7), kind, ventricular_share=1)
        for rate in (100, 250)
    )
    np.testing.assert_allclose(coarse.r_peaks / 100, fine.r_peaks / 250, atol=0.01)
    for name in ("premature", "ventricular", "p_wave"):
        np.testing.assert_array_equal(getattr(coarse, name), getattr(fine, name))
    if kind != "fibrillation":  # f waves are drawn sample by sample
        resampled = fine.signal_mv[:, (np.arange(1000) * 2.5).astype(int)]
        assert np.corrcoef(coarse.signal_mv.ravel(), resampled.ravel())[0, 1] > 0.93
    weights = [ecg.known_weights(rate, APC) for ecg, rate in ((coarse, 100), (fine, 250))]
    assert np.abs(weights[0] - weights[1][(np.arange(1000) * 2.5).astype(int)]).mean() < 0.02


def _at(rate: float) -> tuple[np.ndarray, float, np.ndarray]:
    signal, peaks = regular(rate, 12)
    return signal, rate, peaks


# What is known


def test_known_weights_are_highest_where_the_p_waves_of_premature_beats_are():
    for ecg in simulated(30, "premature", ventricular_share=0):
        weights = ecg.known_weights(RATE, APC)
        assert weights.shape == (1000,) and weights.dtype == np.float32 and 0 <= weights.min() <= weights.max() <= 1
        raised = np.zeros(1000, bool)
        for peak in ecg.r_peaks[ecg.premature]:
            raised[max(0, peak - 28) : peak + 48] = True
            if peak > 30:
                assert weights[peak - 14] > 0.95
        assert (weights[~raised] < 0.45).all()
        if not ecg.premature.any():
            assert 0.39 < weights.max() < 0.41


def test_known_weights_of_the_ventricular_rule_raise_the_wide_beats():
    for ecg in simulated(20, "premature", ventricular_share=1):
        weights = ecg.known_weights(RATE, PVC)
        inside = (ecg.r_peaks > 5) & (ecg.r_peaks < 990)
        assert (weights[ecg.r_peaks[inside & ecg.ventricular]] > 0.95).all()
        calm = inside & ~ecg.ventricular & ~np.roll(ecg.ventricular, 1) & ~np.roll(ecg.ventricular, -1)
        assert (weights[ecg.r_peaks[calm]] < 0.45).all()


def test_fibrillation_without_p_waves_has_no_weight_before_its_beats():
    ecg = simulated(1, "fibrillation", ventricular_share=0)[0]
    alone = ecg.r_peaks[1:][np.diff(ecg.r_peaks) > 70]
    assert len(alone) and (ecg.known_weights(RATE, APC)[alone - 18] < 0.13).all()


@pytest.mark.parametrize("name", ["all-ones", "random"])
def test_a_rule_without_a_condition_on_beats_cannot_be_simulated(name):
    with pytest.raises(ValueError, match=f"rule: expected one with a condition on beats.*got '{name}'"):
        simulated(1, "sinus")[0].targets(WAVEFORM_RULES[name])


def test_a_rule_that_asks_for_early_beats_alone_has_both_kinds():
    assert pb.SimulatedEcg.target_kinds({"beat": {"rr_ratio": {"below": 0.9}}}) == ("premature", "ventricular")


# Sources and noise


def test_regular_recordings_may_be_sources_and_early_wide_few_or_noisy_beats_may_not():
    signal, peaks = regular(noise_mv=0.02)
    assert pb.SimulatedEcg.can_start_from(signal, RATE, peaks)
    early = peaks.copy()
    early[5] -= 30
    assert not pb.SimulatedEcg.can_start_from(signal, RATE, early)
    wide, _ = record(rate=RATE, ectopics=(3, 6))
    assert not pb.SimulatedEcg.can_start_from(wide[[1, 6]], RATE, peaks)
    assert not pb.SimulatedEcg.can_start_from(signal, RATE, peaks[:3]) and not pb.SimulatedEcg.can_start_from(
        signal, RATE, peaks[:0]
    )
    noise = np.random.default_rng(0).standard_normal(signal.shape)
    assert not pb.SimulatedEcg.can_start_from(noise, RATE, peaks)


def test_unknown_kinds_and_recordings_without_beats_are_refused():
    signal, peaks = regular()
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"kind: expected one of premature, sinus, .* got 'bigeminy'"):
        pb.SimulatedEcg.simulate(signal, RATE, peaks, rng, "bigeminy")
    with pytest.raises(ValueError, match="r_peaks: expected at least two beats whole in the recording, got 0"):
        pb.SimulatedEcg.simulate(signal, RATE, peaks[:0], rng)


def test_noise_grows_with_the_recording_and_is_smaller_than_it():
    ecg, signal = simulated(1, "sinus")[0], simulated(1, "sinus")[0].signal_mv
    sized = [dataclasses.replace(ecg, signal_mv=size * signal) for size in (0.5, 2)]
    small, large = (each.noisy(RATE, np.random.default_rng(1)) for each in sized)
    np.testing.assert_allclose(4 * small, large, rtol=1e-4, atol=1e-5)
    added = [np.std(ecg.noisy(RATE, np.random.default_rng(seed)) - signal) for seed in range(20)]
    assert 0 < min(added) < max(added) < signal.std()
