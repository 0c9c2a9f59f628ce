"""The median beat that a recording brings with it, as carts compute it, in the place of one computed here.

A cart averages the same ten seconds, but filters otherwise, puts the R peak elsewhere in its window and keeps a
baseline of its own. So its beat is laid on the one computed here: shifted to the largest cross-correlation, which
brings the R peak to 40 % of the window, and moved up or down lead by lead. The 0.5 Hz high-pass of the recording is
not run on it: a beat of 1.2 s is shorter than one period.

Travels with the weights: numpy.
"""

from typing import Any

import numpy as np

from .conditioning_ecgdan import FLAT_RANGE_MV, apply_filter, fill_gaps, millivolt_per, resample
from .median_beat_ecgdan import QRS_SECONDS, R_POSITION

MAX_RESIDUAL = 0.6  # of the size of the beat computed here; above, the two are not beats of one heart in one unit
MIN_COVERED = 0.5  # share of the window that the beat must reach


def check_given_beat(median_beat: Any, unit: str, num_leads: int) -> np.ndarray:
    """The beat in mV, float64 (leads, samples).

    Raises:
        ValueError: not numbers, not a row for each lead of the recording, or a unit that is no voltage.
    """
    try:
        beat = np.asarray(median_beat, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("median_beat: expected a numeric (leads, samples) array") from None
    if beat.ndim != 2 or len(beat) != num_leads or not beat.shape[1]:
        raise ValueError(f"median_beat: expected ({num_leads}, samples), leads as in signal, got shape {beat.shape}")
    mv_per_unit = millivolt_per(unit)
    if mv_per_unit is None:
        raise ValueError(f"unit: expected mV, uV or V, got {unit!r}")
    return beat * mv_per_unit


def condition_beat(
    beat_mv: np.ndarray, sampling_rate: float, model_rate: float, lowpass_hz: float | None = None
) -> np.ndarray:
    """The beat at the model's rate, (leads, samples); NaN where it had none. A notch would ring through all of it."""
    missing = ~np.isfinite(beat_mv)
    filled, _ = fill_gaps(beat_mv)
    beat = resample(apply_filter(filled, sampling_rate, lowpass_hz=lowpass_hz), sampling_rate, model_rate)
    nearest = np.minimum(np.rint(np.arange(beat.shape[1]) * sampling_rate / model_rate), missing.shape[1] - 1)
    return np.where(missing[:, nearest.astype(int)], np.nan, beat)


def place_beat(beat_mv: np.ndarray, own_mv: np.ndarray, sampling_rate: float) -> np.ndarray | None:
    """Lays a beat on the one computed here.

    Args:
        beat_mv: (leads, samples), mV; NaN where it has no sample.
        own_mv: (leads, window), mV, R peak at 40 % of the window.
        sampling_rate: Hz, of both.

    Returns:
        (leads, window), NaN beyond the beat's ends; None where it does not reach around the R peak, has a lead
        without signal, or is unlike the other.
    """
    placed = np.full_like(own_mv, np.nan)
    shift = _shift(beat_mv, own_mv)
    start, end = max(shift, 0), min(shift + beat_mv.shape[1], own_mv.shape[1])
    placed[:, start:end] = beat_mv[:, start - shift : end - shift]
    common = np.isfinite(placed) & np.isfinite(own_mv)
    centre, reach = round(R_POSITION * own_mv.shape[1]), round(QRS_SECONDS * sampling_rate)
    if not common[:, centre - reach : centre + reach].all() or common.mean(axis=1).min() < MIN_COVERED:
        return None
    if (np.nanmax(placed, axis=1) - np.nanmin(placed, axis=1)).min() < FLAT_RANGE_MV:
        return None
    placed += np.nanmedian(np.where(common, own_mv - placed, np.nan), axis=1, keepdims=True)
    return placed if _beat_residual(placed, own_mv) <= MAX_RESIDUAL else None


def _beat_residual(beat_mv: np.ndarray, own_mv: np.ndarray) -> float:
    """Root mean square of the difference of two beats over that of the second, each lead's mean removed.

    Args:
        beat_mv, own_mv: (leads, samples), mV; NaN in either is left out.
    """
    common = np.isfinite(beat_mv) & np.isfinite(own_mv)
    own = np.where(common, own_mv, np.nan)
    own = own - np.nanmean(own, axis=1, keepdims=True)
    return float(np.sqrt(np.mean((beat_mv - own_mv)[common] ** 2) / max(np.nanmean(own**2), 1e-12)))


def _shift(beat_mv: np.ndarray, own_mv: np.ndarray) -> int:
    """Returns the position of the beat's first sample in the other's window, by cross-correlation over all leads."""
    beat = np.nan_to_num(beat_mv - np.nanmedian(fill_gaps(beat_mv)[0], axis=1, keepdims=True))
    own = np.nan_to_num(own_mv)
    own = own / np.maximum(own.std(axis=1, keepdims=True), 1e-6) ** 2  # leads weigh alike in whatever size
    score = sum(np.correlate(a, b, "full") for a, b in zip(own, beat, strict=True))
    return int(np.argmax(score)) - (beat_mv.shape[1] - 1)
