"""How well DANet's waveform attention a(t) says where it should look: measures, as pure functions on arrays.

Two questions. Which share of a(t) lies inside waves that a person marked, against the share of time they take up; and
does a(t) peak at the beats that make the diagnosis, against the same a(t) put elsewhere.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

from ecgdan_hf.evaluation.measures.intervals import Interval, bootstrap_interval
from ecgdan_hf.model.intervals_ecgdan import FLAT_ATTENTION

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

PEAK_SHARE = 0.5  # of the way from the median to the maximum of a(t), at least
NUM_SHIFTS = 20


def mass_in_intervals(weights: npt.ArrayLike, intervals: npt.ArrayLike, sampling_rate: float) -> tuple[float, float]:
    """Share of the attention's mass inside intervals, and the share of time they take up; a(t) even gives the same.

    Their ratio is the enrichment: 1 for even attention, 2 where the intervals have twice their share.

    Args:
        weights: (samples,), a(t), not negative.
        intervals: (number, 2), start and end of each, seconds from the first sample, end included; they may overlap.
        sampling_rate: Hz.

    Returns:
        Share of mass, NaN where a(t) is 0 throughout, and share of time.

    Raises:
        ValueError: arrays of another shape.

    >>> mass_in_intervals([1, 1, 4, 2], [[0.2, 0.2]], sampling_rate=10)
    (0.5, 0.25)
    """
    weights = _checked_weights(weights)
    edges = np.asarray(intervals, dtype=float).reshape(-1, 2) * sampling_rate
    inside = np.zeros(len(weights), dtype=bool)
    for start, end in np.rint(edges).astype(int):
        inside[max(start, 0) : max(end + 1, 0)] = True
    mass = float(weights.sum())
    return float(weights[inside].sum()) / mass if mass > 0 else float("nan"), float(inside.mean())


def attention_peaks(weights: npt.ArrayLike) -> IntArray:
    """Local maxima of a(t) at least half way from its median to its maximum, in samples, ascending.

    A plateau counts once, by its middle; so does one at either end. Flat attention (its maximum less than 0.05 above
    its median) has no peak.

    Args:
        weights: (samples,), a(t).
    """
    weights = np.round(_checked_weights(weights), 4)  # so that a wave of one weight is a plateau
    middle, top = float(np.median(weights)), float(weights.max())
    if top - middle < FLAT_ATTENTION:
        return np.zeros(0, dtype=np.int64)
    padded = np.pad(weights, 1, constant_values=-1.0)
    peaks: IntArray = find_peaks(padded, height=middle + PEAK_SHARE * (top - middle))[0] - 1
    return peaks


def beat_localisation(
    weights: npt.ArrayLike,
    beat_seconds: npt.ArrayLike,
    sampling_rate: float,
    tolerance_seconds: float = 0.15,
    seed: int = 0,
) -> dict[str, float]:
    """Whether a(t) peaks at the beats that matter, and whether it would by chance.

    Args:
        weights: (samples,), a(t), recorded samples only.
        beat_seconds: (beats,), at least one: R peaks of the beats that matter, seconds from the first sample.
        sampling_rate: Hz.
        tolerance_seconds: how far a peak of a(t) may lie from the R peak, to either side.
        seed: of the shifts.

    Returns:
        `highest_on_beat`: 1 if the highest attention peak is within tolerance of one of the beats, else 0.
        `beats_found`: share of the beats within tolerance of any attention peak.
        `highest_on_beat_chance`, `beats_found_chance`: the same for a(t) shifted in time by random amounts, what goes
        out at one end coming in at the other; mean of 20 shifts. Attention that peaks at every beat finds the beats
        that matter above this chance too: the highest peak is the stricter question.
        `num_peaks`: attention peaks. Without any, nothing is found.

    Raises:
        ValueError: arrays of another shape, or no beat.
    """
    weights = _checked_weights(weights)
    beats = np.asarray(beat_seconds, dtype=float).reshape(-1) * sampling_rate
    if not len(beats):
        raise ValueError("beat_seconds: expected at least one beat, got none")
    peaks, tolerance = attention_peaks(weights), tolerance_seconds * sampling_rate
    highest = peaks[[weights[peaks].argmax()]] if len(peaks) else peaks
    shifts = np.random.default_rng(seed).integers(0, len(weights), NUM_SHIFTS)
    moved = [
        (_found((highest + shift) % len(weights), beats, tolerance), (peaks + shift) % len(weights))
        for shift in shifts
    ]
    return {
        "highest_on_beat": float(_found(highest, beats, tolerance).any()),
        "beats_found": float(_found(peaks, beats, tolerance).mean()),
        "highest_on_beat_chance": float(np.mean([on_beat.any() for on_beat, _ in moved])),
        "beats_found_chance": float(np.mean([_found(each, beats, tolerance).mean() for _, each in moved])),
        "num_peaks": float(len(peaks)),
    }


def _found(peaks: IntArray, beats: FloatArray, tolerance: float) -> npt.NDArray[np.bool_]:
    """(beats,): whether any of the peaks lies within tolerance; all in samples."""
    near = np.abs(beats[:, None] - peaks) <= tolerance + 1e-9
    return np.asarray(near.any(axis=1))


def localisation_table(
    weights: Sequence[npt.ArrayLike],
    beat_seconds: Sequence[npt.ArrayLike],
    sampling_rate: float,
    patient_ids: Sequence[Any] | None = None,
    tolerance_seconds: float = 0.15,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """[`beat_localisation`] over many segments, with intervals by resampling patients.

    Args:
        weights: for each segment (samples,), a(t).
        beat_seconds: for each segment its beats that matter, at least one.
        sampling_rate: Hz.
        patient_ids: of each segment; None takes each for a patient of its own.
        tolerance_seconds: see [`beat_localisation`].
        n, seed: of the bootstrap; the seed is also that of the shifts.

    Returns:
        For each name of [`beat_localisation`] the mean over segments, that of `beats_found` and its chance over beats.

    Raises:
        ValueError: as [`beat_localisation`], and as [`bootstrap_interval`].
    """
    measured = [
        beat_localisation(each, beats, sampling_rate, tolerance_seconds, seed + index)
        for index, (each, beats) in enumerate(zip(weights, beat_seconds, strict=True))
    ]
    if not measured:
        raise ValueError("weights: expected at least one segment, got none")
    beats_of = [np.size(beats) for beats in beat_seconds]
    table = {}
    for name in measured[0]:
        share = beats_of if name.startswith("beats_found") else np.ones(len(measured))
        values = [each[name] for each in measured]
        table[name] = bootstrap_interval(weighted_mean, share, values, patient_ids=patient_ids, n=n, seed=seed)
    return table


def weighted_mean(share: FloatArray, values: FloatArray) -> float:
    """Mean of values that count by their share, both (n,)."""
    return float(np.sum(share * values) / np.sum(share))


def enrichment_interval(
    mass: npt.ArrayLike, time: npt.ArrayLike, patient_ids: Sequence[Any] | None = None, n: int = 1000, seed: int = 0
) -> Interval:
    """Mean share of mass over mean share of time, over records, by resampling patients.

    Args:
        mass, time: (records,), from [`mass_in_intervals`].
        patient_ids, n, seed: see [`bootstrap_interval`].

    Raises:
        ValueError: as [`bootstrap_interval`].
    """
    return bootstrap_interval(_enrichment, time, mass, patient_ids=patient_ids, n=n, seed=seed)


def _enrichment(time: FloatArray, mass: FloatArray) -> float:
    if not np.sum(time) > 0:
        raise ValueError("time: expected intervals of some length, got none")
    return float(np.sum(mass) / np.sum(time))


def _checked_weights(weights: npt.ArrayLike) -> FloatArray:
    found = np.asarray(weights, dtype=float)
    if found.ndim != 1 or not len(found) or not (found >= 0).all():
        raise ValueError(f"weights: expected (samples,), none of them negative or NaN, got shape {found.shape}")
    return found
