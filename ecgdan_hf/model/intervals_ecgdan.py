"""Finds the intervals of a recording that stand out in waveform attention.

Travels with the weights: imports only numpy.
"""

import numpy as np

FLAT_ATTENTION = 0.05  # a(t) whose maximum is not this far above its median attends to nothing in particular


def attended_intervals(
    weights: np.ndarray,
    sampling_rate: float,
    offset_seconds: float = 0.0,
    share: float = 0.5,
    min_seconds: float = 0.04,
    merge_seconds: float = 0.1,
) -> list[dict[str, float]]:
    """The stretches of a recording that stand out in waveform attention.

    Args:
        weights: (samples,), a(t), recorded samples only.
        sampling_rate: Hz, of a(t).
        offset_seconds: time of the first sample in the recording.
        share: how far above the median of a(t), on the way to its maximum, from 0 to below 1.
        min_seconds: shorter stretches are left out.
        merge_seconds: two that are no further apart are one.

    Returns:
        For each its `start`, `end` and `peak`, seconds, and `weight`, a(t) at the peak; highest weight first. None
        where a(t) is flat: its maximum less than 0.05 above its median.

    Raises:
        ValueError: weights of another shape, or a share out of range.

    >>> attended_intervals([0, 0, 0, 0, 1, 0.8, 0, 0, 0, 0], sampling_rate=10, offset_seconds=2.0)
    [{'start': 2.4, 'end': 2.6, 'peak': 2.4, 'weight': 1.0}]
    """
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 1:
        raise ValueError(f"weights: expected (samples,), got shape {weights.shape}")
    if not 0 <= share < 1:
        raise ValueError(f"share: expected a number from 0 to below 1, got {share}")
    if not len(weights) or weights.max() - np.median(weights) < FLAT_ATTENTION:
        return []
    level = np.median(weights) + share * (weights.max() - np.median(weights))
    edges = np.diff((weights > level).astype(int), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)  # one past the last
    apart = starts[1:] - ends[:-1] > merge_seconds * sampling_rate
    starts, ends = starts[np.r_[True, apart]], ends[np.r_[apart, True]]
    stretches = [(int(a), int(b)) for a, b in zip(starts, ends, strict=True) if b - a >= min_seconds * sampling_rate]
    peaks = [a + _middle_of_top(weights[a:b]) for a, b in stretches]

    def seconds(sample: int) -> float:
        return round(offset_seconds + sample / sampling_rate, 4)

    found = [
        {"start": seconds(a), "end": seconds(b), "peak": seconds(peak), "weight": float(weights[peak])}
        for (a, b), peak in zip(stretches, peaks, strict=True)
    ]
    return sorted(found, key=lambda interval: -interval["weight"])


def _middle_of_top(weights: np.ndarray) -> int:
    """Index of the maximum; of the middle one where a rule gives a whole wave the same weight."""
    top = np.flatnonzero(weights > weights.max() - 1e-4)
    return int(top[len(top) // 2])
