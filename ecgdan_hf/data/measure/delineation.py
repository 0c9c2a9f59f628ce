"""Onsets and ends of the waves of a median beat: one P, QRS and T for all leads together, as carts measure.

A wave lasts while the spatial velocity, the length of the slope over all leads, exceeds a share of its largest value:
around the R peak for the QRS, past the steepest flanks for P and T (Kligfield et al., Circulation 115:1306, 2007).
Shares and smoothing widths were chosen on LUDB's hand-marked records 1-50; `tests/benchmarks/bench_measurements.py`
measures the error on records 51-100, and that of neurokit2's wavelets, whose QRS is 70 ms too long. An ST segment as
steep as a twentieth of the QRS counts as part of it. Imports nothing of the package.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import savgol_filter

RATE_HZ = 500
BEAT_SAMPLES = 600  # 480 ms before the R peak, 720 ms after it
R_SAMPLE = 240

QRS_SMOOTH, QRS_SHARE = 11, 0.05  # samples of the smoothing polynomial; share of the largest speed outside the QRS
QUIET_SAMPLES = 6  # 12 ms below the share; at the tip of a wave the speed falls for a shorter time
QRS_REACH = (90, 110)  # 180 ms before and 220 ms after the fastest point
T_SMOOTH, T_SHARE = 41, 0.3
T_DELAY_SAMPLES = 25  # after the QRS, 50 ms of ST segment are skipped
QT_SHARE_OF_RR, QT_LONGEST_SAMPLES = 0.68, 340  # end of the search for the end of T
P_SMOOTH, P_SHARE = 15, 0.3
PR_LONGEST_SAMPLES, T_TO_P_SAMPLES = 200, 10  # search starts 400 ms before the QRS, and 20 ms after the T before it
P_TO_QRS_SAMPLES = 6
SHORTEST_WINDOW = 40  # samples; 80 ms, too short for a P or T wave
SMALLEST_WAVE_MV = 0.1  # root sum of squares over twelve leads; smaller P and T waves are ignored


@dataclass(frozen=True)
class Waves:
    """Sample indices within the beat, 500 Hz: first and last of QRS and P, last of T; None without the wave."""

    qrs: tuple[int, int]
    t_end: int | None
    p: tuple[int, int] | None


def delineate(beat_mv: np.ndarray, heart_rate_bpm: float) -> Waves:
    """Finds the waves of a median beat (leads, 600), millivolt, 500 Hz, R peak at sample 240, without NaN.

    The heart rate limits where T may end and P may begin.
    """
    if beat_mv.ndim != 2 or beat_mv.shape[1] != BEAT_SAMPLES:
        raise ValueError(f"beat_mv: expected (leads, {BEAT_SAMPLES}) at {RATE_HZ} Hz, got shape {beat_mv.shape}")
    if not heart_rate_bpm > 0:
        raise ValueError(f"heart_rate_bpm: expected a positive number, got {heart_rate_bpm}")
    rr_samples = 60.0 / heart_rate_bpm * RATE_HZ
    qrs = _find_qrs(beat_mv)
    t_stop = min(BEAT_SAMPLES - 1, int(qrs[0] + min(QT_SHARE_OF_RR * rr_samples, QT_LONGEST_SAMPLES)))
    t_end = _find_t_end(beat_mv, qrs[1] + T_DELAY_SAMPLES, t_stop)
    previous_t = (t_stop if t_end is None else t_end) - rr_samples + T_TO_P_SAMPLES
    p_start = max(0, int(max(qrs[0] - PR_LONGEST_SAMPLES, previous_t)))
    return Waves(qrs, t_end, _find_p(beat_mv, p_start, qrs[0] - P_TO_QRS_SAMPLES))


def _speed(beat_mv: np.ndarray, width: int) -> np.ndarray:
    """Length of the slope over all leads, (samples,), mV per sample; parabolas over `width` samples."""
    return np.asarray(np.sqrt((savgol_filter(beat_mv, width, 2, deriv=1, axis=1) ** 2).sum(axis=0)))


def _find_qrs(beat_mv: np.ndarray) -> tuple[int, int]:
    speed = _speed(beat_mv, QRS_SMOOTH)
    peak = R_SAMPLE - 30 + int(speed[R_SAMPLE - 30 : R_SAMPLE + 30].argmax())
    floor = float(np.median(speed))
    quiet = speed < floor + QRS_SHARE * (speed[peak] - floor)
    runs = np.convolve(quiet, np.ones(QUIET_SAMPLES), mode="valid") == QUIET_SAMPLES  # runs[i]: quiet from i on
    before = np.flatnonzero(runs[peak - QRS_REACH[0] : peak - QUIET_SAMPLES + 1])
    after = np.flatnonzero(runs[peak : peak + QRS_REACH[1]])
    onset = peak - QRS_REACH[0] + (int(before[-1]) + QUIET_SAMPLES - 1 if len(before) else 0)
    return onset, peak + (int(after[0]) if len(after) else QRS_REACH[1])


def _find_t_end(beat_mv: np.ndarray, start: int, stop: int) -> int | None:
    if stop - start < SHORTEST_WINDOW:
        return None
    smooth = savgol_filter(beat_mv, 21, 2, axis=1)[:, :stop]
    size = np.sqrt(((smooth - np.median(smooth[:, -8:], axis=1, keepdims=True)) ** 2).sum(axis=0))
    peak = start + 15 + int(size[start + 15 :].argmax())
    if size[peak] < SMALLEST_WAVE_MV or peak > stop - 4:
        return None
    speed = _speed(beat_mv, T_SMOOTH)[:stop]
    steepest = peak + int(speed[peak:].argmax())
    return _last_above(speed[steepest:]) + steepest


def _find_p(beat_mv: np.ndarray, start: int, stop: int) -> tuple[int, int] | None:
    if stop - start < SHORTEST_WINDOW:
        return None
    window = savgol_filter(beat_mv, P_SMOOTH, 2, axis=1)[:, start:stop]
    size = np.sqrt((above_chord(window) ** 2).sum(axis=0))
    peak = 10 + int(size[10:-5].argmax())
    if size[peak] < SMALLEST_WAVE_MV:
        return None
    slope = savgol_filter(beat_mv, P_SMOOTH, 2, deriv=1, axis=1)[:, start:stop]
    speed = np.sqrt(((slope - np.median(slope, axis=1, keepdims=True)) ** 2).sum(axis=0))
    rise, fall = int(speed[: peak + 1].argmax()), peak + int(speed[peak:].argmax())
    limit = P_SHARE * max(speed[rise], speed[fall]) + np.percentile(speed, 5)
    return start + rise - _run_above(speed[rise::-1], limit), start + fall + _run_above(speed[fall:], limit)


def above_chord(window: np.ndarray) -> np.ndarray:
    """(leads, samples) less the straight line between the first and the last four samples of each lead."""
    first, last = window[:, :4].mean(axis=1, keepdims=True), window[:, -4:].mean(axis=1, keepdims=True)
    return np.asarray(window - first - (last - first) * np.linspace(0, 1, window.shape[1]))


def _last_above(speed: np.ndarray) -> int:
    """Number of samples until the speed falls to its minimum plus `T_SHARE` of the way up to its first value."""
    floor = float(speed.min())
    return _run_above(speed, floor + T_SHARE * (speed[0] - floor))


def _run_above(speed: np.ndarray, limit: float) -> int:
    below = np.flatnonzero(speed <= limit)
    return int(below[0]) if len(below) else len(speed) - 1
