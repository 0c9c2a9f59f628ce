import numpy as np
import pytest
import wfdb
from synthetic_beats import beat, record

from ecgdan_hf.model.filters_ecgdan import apply_filter
from ecgdan_hf.model.median_beat_ecgdan import MedianBeat, _median
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks, heart_rate

CORE = slice(90, 440)  # 300 ms before to 400 ms after the R peak: no neighbouring beat reaches here


def true_beat() -> np.ndarray:
    return beat((np.arange(600) - 240) / 500)


def score(found: np.ndarray, marked: np.ndarray, tolerance: float) -> tuple[int, int, int]:
    """Hits, misses and false alarms between the first and the last mark."""
    found = found[(found >= marked[0] - tolerance) & (found <= marked[-1] + tolerance)]
    distance = np.abs(found[:, None] - marked)
    hits = int((distance <= tolerance).any(axis=0).sum())
    return hits, len(marked) - hits, int((~(distance <= tolerance).any(axis=1)).sum())


def test_r_peaks_of_a_clean_record_are_where_they_were_put():
    signal, times = record()
    assert np.abs(find_r_peaks(signal, 500) / 500 - times).max() <= 0.002 + 1e-9


@pytest.mark.parametrize("bpm", [40, 70, 120, 180])
def test_heart_rate_is_the_one_the_record_was_made_with(bpm):
    signal, _ = record(heart_rate=bpm)
    peaks = find_r_peaks(signal, 500)
    assert heart_rate(peaks, signal.shape[1], 500) == pytest.approx(bpm, rel=0.04)


def test_one_lead_of_noise_and_one_with_spikes_move_no_r_peak():
    signal, _ = record(noise_mv=0.01)
    spoiled = signal.copy()
    spoiled[1] = np.random.default_rng(1).standard_normal(5000)
    spoiled[7, ::370] += 5
    clean, found = find_r_peaks(signal, 500), find_r_peaks(spoiled, 500)
    assert len(found) == len(clean) and np.abs(found - clean).max() <= 3


def test_median_of_identical_beats_is_the_beat_with_its_r_peak_at_sample_240():
    signal, _ = record()
    found = MedianBeat.of(signal, find_r_peaks(signal, 500), 500)
    assert found.signal_mv.shape == (12, 600)
    assert np.abs(found.signal_mv[1]).argmax() == 240
    # Half a sample of jitter at the steepest point of a 1.5 mV R wave is 0.07 mV.
    assert np.abs(found.signal_mv - true_beat())[:, CORE].max() < 0.08
    assert found.num_dropped == 0


def test_median_equals_the_mean_of_beats_cut_at_the_true_r_peaks():
    signal, times = record(noise_mv=0.03, seed=3)
    inside = np.rint(times * 500).astype(int)
    inside = inside[(inside >= 240) & (inside <= 5000 - 360)]
    mean = np.mean([signal[:, peak - 240 : peak + 360] for peak in inside], axis=0)
    found = MedianBeat.of(signal, find_r_peaks(signal, 500), 500)
    assert found.num_kept == len(inside)
    assert np.corrcoef(found.signal_mv[:, CORE].ravel(), mean[:, CORE].ravel())[0, 1] > 0.998


def test_median_beat_has_a_third_of_the_noise_of_a_beat():
    signal, _ = record(noise_mv=0.1, duration=30, seed=4)
    found = MedianBeat.of(signal, find_r_peaks(signal, 500), 500)
    quiet = slice(90, 110)  # before the P wave, nothing but noise
    assert found.signal_mv[:, quiet].std() < 0.1 / 3


@pytest.mark.parametrize("beats", [1, 2, 3, 4, 7, 10, 23, 24, 25])
def test_a_median_by_a_sorting_network_is_the_median(beats):
    rows = np.random.default_rng(beats).integers(0, 9, (beats, 2, 50)).astype(float)
    np.testing.assert_array_equal(_median(rows), np.median(rows, axis=0))


@pytest.mark.parametrize("ectopics", [(3,), (2, 5, 8), (1, 3, 5, 7, 9)])
def test_extrasystoles_are_left_out(ectopics):
    signal, times = record(ectopics=ectopics, noise_mv=0.01)
    found = MedianBeat.of(signal, find_r_peaks(signal, 500), 500)
    assert found.num_dropped == len(ectopics)
    assert np.corrcoef(found.signal_mv[:, CORE].ravel(), true_beat()[:, CORE].ravel())[0, 1] > 0.99
    assert found.num_kept <= len(times) - len(ectopics)


def test_misplaced_r_peaks_are_realigned():
    signal, _ = record(noise_mv=0.01)
    peaks = find_r_peaks(signal, 500)
    jitter = np.random.default_rng(0).integers(-15, 16, len(peaks))
    exact, moved = (MedianBeat.of(signal, where, 500).signal_mv for where in (peaks, peaks + jitter))
    assert np.abs(exact - moved)[:, CORE].max() < 0.05


def test_a_short_record_uses_its_incomplete_beats_and_leaves_unreached_samples_missing():
    signal, _ = record(duration=2.5, heart_rate=50)
    found = MedianBeat.of(signal, find_r_peaks(signal, 500), 500)
    assert found.num_kept < 3
    assert np.isfinite(found.signal_mv[:, 200:300]).all()


def test_a_record_without_a_complete_beat_is_refused():
    signal, _ = record()
    with pytest.raises(ValueError, match="no complete heart beat"):
        MedianBeat.of(signal, np.array([5, 4990]), 500)


def test_a_negative_qrs_is_centred_as_a_positive_one():
    signal, _ = record()
    upright, inverted = (MedianBeat.of(s, find_r_peaks(s, 500), 500).signal_mv for s in (signal, -signal))
    np.testing.assert_allclose(inverted, -upright, atol=0.05)


def test_time_scale_moves_by_twice_the_logarithm_of_a_wrong_rate():
    true = MedianBeat(true_beat(), 1, 0).time_scale(500, 70)
    half = MedianBeat(true_beat()[:, ::2], 1, 0).time_scale(500, 140)  # the same beat played twice as fast
    assert half - true == pytest.approx(2 * np.log(2), abs=0.25)


def test_r_peaks_agree_with_the_hand_marks_of_ludb(shared):
    folder, totals = shared / "data/ludb/data", np.zeros(3, dtype=int)
    for number in range(1, 101):
        recording = wfdb.rdrecord(str(folder / str(number)))
        marks = wfdb.rdann(str(folder / str(number)), "ii")
        marked = marks.sample[np.array(marks.symbol) == "N"]
        signal = apply_filter(recording.p_signal.T, 500, 0.5, None, 50)
        totals += score(find_r_peaks(signal, 500), marked, 0.075 * 500)
    hits, missed, false = totals
    sensitivity, precision = hits / (hits + missed), hits / (hits + false)
    print(
        f"LUDB, {hits + missed} marked beats: sensitivity {sensitivity:.4f}, positive predictive value {precision:.4f}"
    )
    assert sensitivity >= 0.995 and precision >= 0.995


def test_r_peaks_agree_with_the_annotations_of_two_lead_mit_bih(shared):
    totals = np.zeros(3, dtype=int)
    for header in sorted((shared / "data/mit-bih").glob("*.hea")):
        path = str(header.with_suffix(""))
        recording, marks = wfdb.rdrecord(path, sampto=21600), wfdb.rdann(path, "atr", sampto=21600)
        beats = np.array([symbol in "NLRBAaJSVrFejnE/fQ?" for symbol in marks.symbol])
        signal = apply_filter(recording.p_signal.T, 360, 0.5, None, 60)
        totals += score(find_r_peaks(signal, 360), marks.sample[beats], 0.075 * 360)
    hits, missed, false = totals
    sensitivity, precision = hits / (hits + missed), hits / (hits + false)
    print(f"MIT-BIH, first minute, {hits + missed} beats: sensitivity {sensitivity:.4f}, precision {precision:.4f}")
    assert sensitivity >= 0.96 and precision >= 0.98
