"""Heart beats are where hand marks and known beats say."""

from pathlib import Path

import neurokit2 as nk
import numpy as np
import pytest
import wfdb
from synthetic_beats import LEADS, record
from wfdb.processing import compare_annotations

from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.model.conditioning_ecgdan import resample
from ecgdan_hf.model.filters_ecgdan import apply_filter
from ecgdan_hf.model.r_peaks_ecgdan import REFRACTORY_SECONDS, _lead_peaks, find_r_peaks

JUDGED = range(51, 101)  # records of LUDB; all hundred are in tests/benchmarks/bench_r_peaks.py


def counts(found: np.ndarray, marked: np.ndarray, tolerance: float = 0.05) -> np.ndarray:
    """Hits, misses and false alarms between the first and the last mark; all in seconds."""
    judged = found[(found >= marked[0] - tolerance) & (found <= marked[-1] + tolerance)]
    milliseconds = [np.rint(1000 * values).astype(int) for values in (marked, judged)]
    compared = compare_annotations(*milliseconds, round(1000 * tolerance) + 1)  # its window is exclusive
    return np.array([compared.tp, compared.fn, compared.fp])


def rates(totals: np.ndarray) -> tuple[float, float]:
    """Sensitivity and positive predictive value."""
    hits, missed, false = totals
    return hits / (hits + missed), hits / (hits + false)


def beats(signal_mv: np.ndarray, sampling_rate: float, model_rate: float) -> np.ndarray:
    """Seconds, found in what the feature extractor hands on."""
    signal_mv = resample(apply_filter(signal_mv, sampling_rate, 0.5, None, 50), sampling_rate, model_rate)
    return find_r_peaks(signal_mv, model_rate) / model_rate


def hand_marks(path: str, leads: list[str], sampling_rate: float) -> np.ndarray:
    """Seconds: the median over the leads of their marks of each beat that half of them mark."""
    annotations = [wfdb.rdann(path, lead) for lead in leads]
    marks = np.sort(np.concatenate([each.sample[np.array(each.symbol) == "N"] for each in annotations]))
    groups = np.split(marks, np.flatnonzero(np.diff(marks) > 0.15 * sampling_rate) + 1)
    return np.array([np.median(group) for group in groups if 2 * len(group) >= len(leads)]) / sampling_rate


def test_beats_agree_with_the_hand_marks_of_twelve_leads_within_50_ms(shared: Path):
    folder = shared / "data/ludb/data"
    totals = {500: np.zeros(3, dtype=int), 100: np.zeros(3, dtype=int)}  # median beat and rhythm models
    for number in JUDGED:
        recording = wfdb.rdrecord(str(folder / str(number)))
        marked = hand_marks(str(folder / str(number)), recording.sig_name, recording.fs)
        for model_rate in totals:
            totals[model_rate] += counts(beats(recording.p_signal.T, recording.fs, model_rate), marked)
    for model_rate, total in totals.items():
        sensitivity, predictive_value = rates(total)
        print(
            f"LUDB 51-100 at {model_rate} Hz: sensitivity {sensitivity:.4f}, predictive value {predictive_value:.4f}"
        )
        assert total[:2].sum() == 471
        assert sensitivity >= 0.985 and predictive_value >= 0.985


@pytest.mark.parametrize("sampling_rate", [100, 250, 500])
def test_the_peaks_of_each_lead_are_those_of_neurokit2(sampling_rate: int):
    signal, _ = record(sampling_rate, heart_rate=75, noise_mv=0.1, ectopics=(2, 4), seed=3)
    noise = np.random.default_rng(0).normal(size=signal.shape)
    for leads in (signal, noise, noise.cumsum(axis=1), np.round(signal, 1), signal[:, : 3 * sampling_rate]):
        for lead, found in zip(leads, _lead_peaks(leads, sampling_rate), strict=True):
            expected = nk.ecg_findpeaks(lead, sampling_rate, method="neurokit", mindelay=REFRACTORY_SECONDS)
            np.testing.assert_array_equal(found, expected["ECG_R_Peaks"])


def test_a_signal_without_any_slope_has_no_beat():
    assert len(find_r_peaks(np.zeros((12, 1000)), 100)) == 0


@pytest.mark.parametrize("sampling_rate", [250, 360, 500, 1000])
@pytest.mark.parametrize("heart_rate", [40, 75, 150])
def test_every_beat_of_a_noisy_record_is_found_and_nothing_else(sampling_rate: float, heart_rate: float):
    signal, seconds = record(sampling_rate, heart_rate=heart_rate, noise_mv=0.05, seed=int(heart_rate))
    for model_rate in (500, 100):
        np.testing.assert_array_equal(
            counts(beats(signal, sampling_rate, model_rate), seconds), [len(seconds), 0, 0], err_msg=f"{model_rate} Hz"
        )


@pytest.mark.parametrize("heart_rate", [40, 75, 110])
def test_an_extrasystole_is_one_beat(heart_rate: float):
    signal, seconds = record(heart_rate=heart_rate, noise_mv=0.05, ectopics=(2, 4), seed=1)
    found = beats(signal, 500, 500)
    # Where in a wide two-phase complex its beat lies is open: the tolerance is the one of ANSI/AAMI EC57.
    np.testing.assert_array_equal(counts(found, seconds, tolerance=0.15), [len(seconds), 0, 0])


@pytest.mark.parametrize("given", [("I",), ("II",), ("V2",), ("I", "II"), ("I", "II", "V2")])
def test_one_to_three_leads_are_enough_for_the_beats_of_a_clean_record(given: tuple[str, ...]):
    signal, seconds = record(duration=30, noise_mv=0.02)
    found = beats(signal[[LEADS.index(lead) for lead in given]], 500, 500)
    np.testing.assert_array_equal(counts(found, seconds), [len(seconds), 0, 0])


@pytest.mark.parametrize("model_rate", [500, 100])
def test_a_single_lead_whose_complexes_only_point_down_shows_every_beat(model_rate: float):
    _, seconds = record(duration=30)
    time = np.arange(15000) / 500
    waves = ((-0.16, 0.025, 0.1), (0.0, 0.02, -1.0), (0.28, 0.05, 0.4))  # P, QS, T: seconds from R, width, mV
    signal = sum(
        mv * np.exp(-0.5 * ((time - beat - shift) / width) ** 2) for beat in seconds for shift, width, mv in waves
    )
    signal = signal + 0.02 * np.random.default_rng(0).standard_normal(15000)
    np.testing.assert_array_equal(counts(beats(signal[None], 500, model_rate), seconds), [len(seconds), 0, 0])


# QS complexes; QS complexes between extrasystoles; wide low complexes beside tall P waves, of which it found one
@pytest.mark.parametrize(
    ("number", "lead", "least"), [("06332", "II", 0.9), ("10301", "V1", 0.8), ("06517", "II", 0.5)]
)
def test_a_single_lead_finds_what_twelve_find_where_it_is_hard(shared: Path, number: str, lead: str, least: float):
    path = shared / f"data/ptb-xl/records500/{number[:2]}000/{number}_hr"
    if not path.with_suffix(".hea").is_file():
        pytest.skip(f"needs record {number} of PTB-XL")
    recording = wfdb.rdrecord(str(path))
    row = [name.upper() for name in recording.sig_name].index(lead)
    twelve = beats(recording.p_signal.T, 500, 500)
    for model_rate in (500, 100):
        found = beats(recording.p_signal.T[[row]], 500, model_rate)
        assert min(rates(counts(found, twelve, tolerance=0.15))) >= least


def test_twelve_leads_find_the_beats_that_wide_complexes_and_inverted_t_waves_hide_in_one():
    totals = np.zeros((2, 3), dtype=int)
    for seed in range(12):
        heart_rate, strain, width = 50 + 5 * seed, -1.0 + 0.25 * seed, 80 + 6 * seed
        signal = synthetic.make_signal(strain, width, heart_rate, seed).astype(float)
        seconds = synthetic._beat_times(heart_rate, synthetic._generator(seed, 1))
        seconds = seconds[(seconds > 0.25) & (seconds < 9.75)]
        totals += [counts(beats(rows, 500, 500), seconds) for rows in (signal, signal[:1])]
    twelve, one = map(rates, totals)
    assert min(twelve) >= 0.985
    assert sum(twelve) >= sum(one)
