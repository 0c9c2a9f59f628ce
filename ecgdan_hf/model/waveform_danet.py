"""Weights of the waves of an ECG under the rule of one disease: the hard waveform-enhanced module of DANet.

P and T are found by neurokit2 (`ecg_delineate`, prominence), each in the mean of the leads turned so that its usual
wave points up; the QRS lasts while the leads together are steep. The limits below were chosen on 34 recordings of
LUDB, conditioned to 100 Hz, against the hand-marked waves of lead II (`tests/benchmarks/bench_waveform_attention.py`).

Travels with the weights: numpy, and neurokit2 and scipy where they are needed.
"""

import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from .conditioning_ecgdan import resample
from .configuration_danet import resolve_waveform_rule
from .r_peaks_ecgdan import find_r_peaks

ANALYSIS_HZ = 250  # waves are delineated at this rate
WINDOW_SECONDS = (0.30, 0.45)  # of the usual beat, before and after R
P_SECONDS = (-0.25, -0.07)  # where the usual beat has its P wave, from R
T_SECONDS = (0.14, 0.44)
SMALLEST_P_MV = 0.015  # of the usual beat: with less the recording has no P waves, as in fibrillation
SMALLEST_P_RISE_MV = 0.005  # of each beat, over the higher end of its P wave
P_TO_QRS_SECONDS = 0.04  # at least, from the peak of P
QRS_REACH_SECONDS = (0.10, 0.12)  # before and after R, where the QRS begins and ends
QRS_SHARE = 0.08  # of a QRS complex's largest slope, over the recording's median: where it is slower there is no QRS
QRS_SMOOTH = 5  # samples
QRS_SECONDS = 0.08  # to each side of R: what is compared
SHIFT_SECONDS = 0.02  # an R peak at 100 Hz may be this far off
QRS_USUAL_SECONDS = (-0.04, 0.06)  # from R, where no QRS was delineated
P_USUAL_SECONDS = (-0.24, -0.06)  # from R, where a beat that meets the rule has no P: it may hide in the T before
AFTER_T_SECONDS, AFTER_R_SECONDS = 0.04, 0.2  # and begins no earlier than this after the T peak and the R before
USUAL_PERCENTILE = 75  # of the recording's RR intervals


@dataclass(frozen=True)
class BeatWaves:
    """R peak, P before and T after it for each beat: arrays (beats,), samples, NaN where a wave was not found."""

    r_peak: np.ndarray
    p_onset: np.ndarray
    p_end: np.ndarray
    qrs_onset: np.ndarray
    qrs_end: np.ndarray
    t_onset: np.ndarray
    t_peak: np.ndarray
    t_end: np.ndarray

    @classmethod
    def delineate(cls, signal_mv: np.ndarray, sampling_rate: float, r_peaks: np.ndarray) -> "BeatWaves":
        """Finds one P, QRS and T for all leads together, beat by beat; all NaN with fewer than two beats.

        `signal_mv` (leads, samples) is as [`waveform_weights`] takes it, `r_peaks` (beats,) are sample indices.
        """
        peaks = np.asarray(r_peaks, dtype=float)
        if len(peaks) < 2:
            return cls(peaks, *(np.full(len(peaks), np.nan) for _ in range(7)))
        scale = ANALYSIS_HZ / sampling_rate
        fine = resample(signal_mv, sampling_rate, ANALYSIS_HZ)
        at = np.clip(np.rint(peaks * scale).astype(int), 0, fine.shape[1] - 1)
        beat = _usual_beat(fine, at)
        lead, p_height_mv = _upright(fine, beat, P_SECONDS)
        p = _find(lead, at, "P")
        qrs = _qrs(fine, at)
        t = _find(_upright(fine, beat, T_SECONDS)[0], at, "T")
        is_p = (p_height_mv >= SMALLEST_P_MV) & (_prominence(lead, p) >= SMALLEST_P_RISE_MV)
        is_p &= p[1] + P_TO_QRS_SECONDS * ANALYSIS_HZ <= qrs[0]
        p = [np.where(is_p, edge, np.nan) for edge in p]
        found = (p[0], p[2], *qrs, *t)
        return cls(peaks, *(points / scale for points in found))

    def weights(self, met: np.ndarray, samples: int, sampling_rate: float, rule: Mapping[str, Any]) -> np.ndarray:
        """Computes the weight of each sample of a recording, (samples,) float32, 0 to 1.

        `met` (beats,) is true where a beat meets the rule, a complete one with wave weights.
        """
        weights = np.full(samples, rule["wave_weights"]["baseline"])
        for beat in range(len(met)):
            factor = 1.0 if met[beat] else rule["other_beats"]
            for wave, (start, end) in _stretches(self, beat, bool(met[beat]), sampling_rate).items():
                weight = max(rule["wave_weights"][each] for each in wave.split("+"))
                stretch = slice(max(0, round(start)), max(0, round(end) + 1))
                weights[stretch] = np.maximum(weights[stretch], factor * weight)
        smooth = round(rule["smooth_seconds"] * sampling_rate)
        return np.asarray(np.clip(_smooth(weights, smooth), 0, 1), np.float32)


def _usual_beat(signal_mv: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Median over beats of the window around R, (leads, window)."""
    before, after = (round(seconds * ANALYSIS_HZ) for seconds in WINDOW_SECONDS)
    padded = np.pad(signal_mv, ((0, 0), (before, after)), mode="edge")
    return np.asarray(np.median(padded[:, peaks[:, None] + np.arange(before + after)], axis=1))


def _upright(signal_mv: np.ndarray, beat_mv: np.ndarray, seconds: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Mean over leads (samples,), each turned so that what its usual beat has in these seconds from R points up.

    Also the height of that wave of the usual beat, mV.
    """
    first, last = (round((WINDOW_SECONDS[0] + each) * ANALYSIS_HZ) for each in seconds)
    window = beat_mv[:, first:last]
    if seconds[1] < 0:  # the foot of a P wave may lie on a T: what stands over its chord is the P
        window = window - np.linspace(window[:, 0], window[:, -1], window.shape[1], axis=1)
    else:
        window = window - np.median(beat_mv, axis=1, keepdims=True)
    upwards = np.where(window.max(axis=1) >= -window.min(axis=1), 1.0, -1.0)
    return upwards @ signal_mv / len(signal_mv), float((upwards @ window).max() / len(window))


def _qrs(signal_mv: np.ndarray, peaks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last sample around R, each (beats,), where the leads together are steep."""
    slope = np.sqrt((np.gradient(signal_mv, axis=1) ** 2).mean(axis=0))
    slope = np.convolve(slope, np.full(QRS_SMOOTH, 1 / QRS_SMOOTH), mode="same")
    before, after = (round(seconds * ANALYSIS_HZ) for seconds in QRS_REACH_SECONDS)
    windows = np.pad(slope, (before, after))[peaks[:, None] + np.arange(before + after + 1)]
    floor = float(np.median(slope))
    steep = windows > floor + QRS_SHARE * (windows.max(axis=1, keepdims=True) - floor)
    onset, end = peaks - before + steep.argmax(axis=1), peaks + after - steep[:, ::-1].argmax(axis=1)
    there = steep.any(axis=1)
    return np.where(there, onset, np.nan), np.where(there, end, np.nan)


def _neurokit2() -> ModuleType:
    """`neurokit2`, imported when first needed: only this rule does, and it takes seconds."""
    try:
        import neurokit2
    except ImportError as error:
        raise ImportError("EcgDanFeatureExtractor finds P and T with neurokit2: pip install neurokit2") from error
    return cast(ModuleType, neurokit2)


def _find(lead_mv: np.ndarray, peaks: np.ndarray, wave: str) -> list[np.ndarray]:
    """Onset, peak and end of one wave, each (beats,); a record that neurokit2 cannot read has none."""
    nk = _neurokit2()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, found = nk.ecg_delineate(lead_mv, peaks, sampling_rate=ANALYSIS_HZ, method="prominence")
    except (ValueError, IndexError, TypeError, ZeroDivisionError):  # of a signal without waves
        found = {}
    columns = [
        np.asarray(found.get(f"ECG_{wave}_{point}", []), dtype=float) for point in ("Onsets", "Peaks", "Offsets")
    ]
    nothing = np.full(len(peaks), np.nan)
    columns = [column if len(column) == len(peaks) else nothing for column in columns]
    whole = np.isfinite(columns).all(axis=0) & (columns[2] > columns[0])
    return [np.where(whole, column, np.nan) for column in columns]


def _prominence(lead_mv: np.ndarray, wave: list[np.ndarray]) -> np.ndarray:
    """Height of each beat's wave above the higher of its ends, (beats,), mV; NaN where there is none."""
    height = np.full(len(wave[0]), np.nan)
    there = np.isfinite(wave[0])
    onset, peak, end = (lead_mv[edge[there].astype(int)] for edge in wave)
    height[there] = peak - np.maximum(onset, end)
    return height


def _beat_features(
    signal_mv: np.ndarray, sampling_rate: float, r_peaks: np.ndarray, waves: BeatWaves | None = None
) -> dict[str, np.ndarray]:
    """For each name of `BEAT_FEATURES` an array (beats,), NaN where it is unknown."""
    waves = BeatWaves.delineate(signal_mv, sampling_rate, r_peaks) if waves is None else waves
    peaks = np.asarray(r_peaks, dtype=float)
    before, after = np.full((2, len(peaks)), np.nan)
    before[1:] = after[:-1] = np.diff(peaks)
    usual = _usual_rr(before)
    return {
        "rr_ratio": before / usual,
        "rr_pair_ratio": (before + after) / (2 * usual),
        "qrs_likeness": qrs_likeness(signal_mv, sampling_rate, peaks),
        "qrs_seconds": (waves.qrs_end - waves.qrs_onset) / sampling_rate,
        "pr_seconds": (waves.qrs_onset - waves.p_onset) / sampling_rate,
    }


def _usual_rr(before: np.ndarray) -> float:
    """The RR interval that three quarters of the others do not exceed: what a beat is early against.

    The textbook's mean of the intervals before a beat shrinks with every early one: later beats of a run would be on
    time.
    """
    known = before[np.isfinite(before)]
    return float(np.percentile(known, USUAL_PERCENTILE)) if len(known) else float("nan")


def qrs_likeness(signal_mv: np.ndarray, sampling_rate: float, peaks: np.ndarray) -> np.ndarray:
    """(beats,): correlation of each QRS with their median, best of a few shifts; NaN where it is cut off.

    Takes the arguments of [`BeatWaves.delineate`].
    """
    likeness = np.full(len(peaks), np.nan)
    fine = resample(signal_mv, sampling_rate, ANALYSIS_HZ)
    at = np.rint(peaks * ANALYSIS_HZ / sampling_rate).astype(int)
    reach, shift = round(QRS_SECONDS * ANALYSIS_HZ), round(SHIFT_SECONDS * ANALYSIS_HZ)
    inside = (at >= reach + shift) & (at < fine.shape[1] - reach - shift)
    if inside.sum() < 2:
        return likeness
    offsets = np.arange(-shift, shift + 1)
    windows = at[inside][:, None, None] + offsets[:, None] + np.arange(-reach, reach + 1)
    complexes = fine[:, windows].transpose(1, 2, 0, 3)  # (beats, shifts, leads, samples)
    template = _unit(np.median(complexes[:, shift], axis=0))
    likeness[inside] = (_unit(complexes) * template).sum(axis=(-2, -1)).max(axis=1)
    return likeness


def _unit(complexes: np.ndarray) -> np.ndarray:
    """(..., leads, samples) without each lead's mean, of length 1 over leads and samples."""
    centred = complexes - complexes.mean(axis=-1, keepdims=True)
    centred /= np.maximum(np.sqrt((centred**2).sum(axis=(-2, -1), keepdims=True)), 1e-12)
    return np.asarray(centred)


def _meets_rule(features: Mapping[str, np.ndarray], rule: Mapping[str, Any]) -> np.ndarray:
    """True (beats,) where a beat meets every condition of a complete rule that can be judged, and at least one.

    A feature that is unknown (NaN) neither meets nor breaks its condition. Only `rr_ratio` must be known: whether the
    first beat of a recording is early cannot be said. Without a condition all beats meet the rule.
    """
    conditions = rule["beat"]
    beats = len(next(iter(features.values())))
    if not conditions:
        return np.ones(beats, dtype=bool)
    met, known = np.ones(beats, dtype=bool), np.zeros(beats, dtype=bool)
    for name, limits in conditions.items():
        value = features[name]
        holds = (value > limits.get("above", -np.inf)) & (value < limits.get("below", np.inf))
        unknown = np.isnan(value)
        met &= holds | (unknown & (name != "rr_ratio"))
        known |= ~unknown
    return met & known


def waveform_weights(
    signal_mv: np.ndarray,
    sampling_rate: float,
    rule: str | Path | Mapping[str, Any],
    r_peaks: np.ndarray | None = None,
) -> np.ndarray:
    """Computes the weight of each sample under a rule.

    The waves of beats that meet the rule have the rule's weights, P's until the QRS begins; those of the others
    have `other_beats` times as much; no wave has less than the baseline. Where a beat that meets the rule shows no P
    wave, the usual place of one counts as P.

    Args:
        signal_mv: (leads, samples), mV, high-pass filtered, usable leads only, without NaN.
        sampling_rate: Hz.
        rule: whatever `resolve_waveform_rule` takes.
        r_peaks: (beats,), sample indices, ascending; found here if not given.

    Returns:
        (samples,), float32, 0 to 1; the baseline's weight everywhere if there is no beat.

    Raises:
        ValueError: a rule that cannot be used.
    """
    complete = resolve_waveform_rule(rule)
    if complete is None:
        raise ValueError("rule: expected a waveform rule, got None")
    if complete.get("random"):
        return _random_weights(signal_mv, round(complete["smooth_seconds"] * sampling_rate))
    peaks = find_r_peaks(signal_mv, sampling_rate) if r_peaks is None else np.asarray(r_peaks)
    waves = BeatWaves.delineate(signal_mv, sampling_rate, peaks)
    met = _meets_rule(_beat_features(signal_mv, sampling_rate, peaks, waves), complete)
    return waves.weights(met, signal_mv.shape[1], sampling_rate, complete)


def _stretches(waves: BeatWaves, beat: int, met: bool, sampling_rate: float) -> dict[str, tuple[float, float]]:
    """First and last sample of each wave of one beat, and of the stretch `p+qrs` between them if it meets the rule."""
    r_peak = waves.r_peak[beat]
    found = {
        "p": (waves.p_onset[beat], waves.p_end[beat]),
        "qrs": (waves.qrs_onset[beat], waves.qrs_end[beat]),
        "t": (waves.t_onset[beat], waves.t_end[beat]),
    }
    if np.isnan(found["qrs"]).any():
        found["qrs"] = tuple(r_peak + seconds * sampling_rate for seconds in QRS_USUAL_SECONDS)
    if met and np.isnan(found["p"]).any():
        found["p"] = _usual_p(waves, beat, sampling_rate)
    if met:
        found["p+qrs"] = found["p"][1], max(found["p"][1], found["qrs"][0])
    return {wave: stretch for wave, stretch in found.items() if not np.isnan(stretch).any()}


def _usual_p(waves: BeatWaves, beat: int, sampling_rate: float) -> tuple[float, float]:
    """240 to 60 ms before R, less what belongs to the beat before: its T up to the peak, or 200 ms from its R."""
    first, last = (waves.r_peak[beat] + seconds * sampling_rate for seconds in P_USUAL_SECONDS)
    if beat:
        first = max(first, waves.r_peak[beat - 1] + AFTER_R_SECONDS * sampling_rate)
        after_t = waves.t_peak[beat - 1] + AFTER_T_SECONDS * sampling_rate
        if after_t < last:  # a T peak found later than that is this beat's own P
            first = max(first, after_t)
    return min(first, last), last


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """(samples,) under a Hann window of about `width` samples, the ends repeated."""
    if width < 2:
        return values
    window = np.hanning(width + 2 + (width + 1) % 2)[1:-1]
    padded = np.pad(values, len(window) // 2, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _random_weights(signal_mv: np.ndarray, width: int) -> np.ndarray:
    """Smooth noise between 0 and 1 that knows nothing of the waves and is the same for the same signal."""
    seed = zlib.crc32(np.rint(signal_mv * 100).astype(np.int32).tobytes())
    noise = _smooth(np.asarray(np.random.default_rng(seed).standard_normal(signal_mv.shape[1])), width)
    return (1 / (1 + np.exp(-1.5 * noise / max(float(noise.std()), 1e-12)))).astype(np.float32)
