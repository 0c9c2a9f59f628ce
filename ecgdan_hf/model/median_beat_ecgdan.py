"""The median beat of a multi-lead recording.

Beats are aligned by cross-correlation over all leads, beats of another shape (extrasystoles, artefacts) are left out,
and the rest is reduced to its median sample by sample. Neighbouring beats that reach into the window stay in it, as
they do in the median beats of ECG carts.

Travels with the weights: numpy, and scipy where it is needed.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .conditioning_ecgdan import FLAT_RANGE_MV, LeadQuality, millivolt_per, resample
from .filters_ecgdan import apply_filter
from .r_peaks_ecgdan import QRS_SECONDS, lead_sizes, unit_rows

R_POSITION = 0.4  # the R peak's place in the window: sample 240 of 600, 480 ms before and 720 ms after it
SHIFT_SECONDS = 0.06  # largest shift of a beat in alignment
SAME_SHAPE = 0.9  # correlation of two QRS complexes of one kind
MAX_SORTED = 24  # beats of which a median is found by a sorting network
MIN_BEATS = 3  # below this a median is no better than a beat
MAX_RESIDUAL = 0.6  # of a given beat, of the size of the computed one; above, they are not of one heart in one unit
MIN_COVERED = 0.5  # share of the window that a given beat must reach


@dataclass(frozen=True)
class MedianBeat:
    """A median beat.

    Attributes:
        signal_mv: (leads, samples), mV, R peak at sample `round(0.4 * samples)`; NaN where no beat reaches.
        num_kept: beats the median was taken over.
        num_dropped: beats left out because of their shape.
    """

    signal_mv: np.ndarray
    num_kept: int
    num_dropped: int

    @classmethod
    def of(
        cls, signal_mv: np.ndarray, r_peaks: np.ndarray, sampling_rate: float, num_samples: int = 600
    ) -> "MedianBeat":
        """Takes the median of the aligned beats of the most frequent shape, in a window of `num_samples`.

        `signal_mv`: (leads, samples), mV, high-pass filtered; `r_peaks` from `find_r_peaks`.

        Raises:
            ValueError: no R peak has its QRS complex inside the recording.
        """
        shift, reach = round(SHIFT_SECONDS * sampling_rate), round(QRS_SECONDS * sampling_rate)
        size = lead_sizes(signal_mv)
        peaks = _inside(r_peaks, signal_mv.shape[1], reach + 2 * shift)
        wide = _cut(signal_mv, peaks, reach + shift, reach + shift) / size
        moved = _align(wide, reach, shift)
        alike = _same_shape(_narrow(wide, moved, reach, shift))
        peaks = peaks + moved
        kept = peaks[alike]
        wide = _cut(signal_mv, kept, reach + shift, reach + shift) / size
        moved = _align(wide, reach, shift)
        kept = kept + moved + _offset_of_r(_narrow(wide, moved, reach, shift), shift)
        before = round(R_POSITION * num_samples)
        beats = _windows(signal_mv, kept, before, num_samples - before)
        with warnings.catch_warnings():  # samples that no beat reaches stay NaN
            warnings.simplefilter("ignore", RuntimeWarning)
            signal = np.nanmedian(beats, axis=0) if np.isnan(beats).any() else _median(beats)
        return cls(signal, len(beats), len(peaks) - len(kept))

    def time_scale(self, sampling_rate: float, beats_per_minute: float) -> float:
        """Returns log((heart rate / 72 per minute) / (QRS width / 50 ms)), which tells a wrong sampling rate.

        A recording at half (twice) its true rate moves by -1.4 (+1.4); hearts themselves spread by about 0.3, because
        a slow rate and a wide QRS rarely come together. On PTB-XL and LUDB 99.5 % lie between -1.2 and 1.5.
        """
        centre, reach = round(R_POSITION * self.signal_mv.shape[1]), round(0.2 * sampling_rate)
        window = np.nan_to_num(self.signal_mv[:, centre - reach : centre + reach])
        speed = np.sqrt((np.diff(window, axis=1) ** 2).sum(axis=0))
        speed = np.maximum(speed - np.median(speed), 0.0)
        width_seconds = speed.sum() ** 2 / max((speed**2).sum(), 1e-12) / sampling_rate
        return float(np.log(beats_per_minute / 72.0) - np.log(max(width_seconds, 1e-3) / 0.05))


def _inside(r_peaks: np.ndarray, num_samples: int, margin: int) -> np.ndarray:
    inside = r_peaks[(r_peaks >= margin) & (r_peaks < num_samples - margin)]
    if not len(inside):
        raise ValueError("signal: no complete heart beat in the recording; expected at least one, better ten seconds")
    return inside


def _cut(signal: np.ndarray, centres: np.ndarray, before: int, after: int) -> np.ndarray:
    """Windows (beats, leads, before + after) around sample indices, all inside the signal."""
    return np.stack([signal[:, centre - before : centre + after] for centre in centres.tolist()])


def _narrow(wide: np.ndarray, moved: np.ndarray, reach: int, shift: int) -> np.ndarray:
    """The middle of each window, (beats, leads, 2 * reach), where its beat was moved to."""
    return _cut_each(wide, moved + shift, 2 * reach)


def _cut_each(windows: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    parts = zip(windows, starts.tolist(), strict=True)
    return np.stack([window[:, start : start + length] for window, start in parts])


def _align(wide: np.ndarray, reach: int, shift: int) -> np.ndarray:
    """Shift of each beat, by at most `shift`, to the least squared distance from the median QRS; two rounds.

    `wide`: (beats, leads, 2 * (reach + shift)), around the R peaks.
    """
    moved = np.zeros(len(wide), dtype=int)
    energy = np.cumsum((wide**2).sum(axis=1), axis=1)
    energy = np.concatenate((np.zeros((len(wide), 1)), energy), axis=1)
    energy = energy[:, 2 * reach :] - energy[:, : -2 * reach]
    for _ in range(2):
        template = _median(_narrow(wide, moved, reach, shift))
        product = wide.reshape(len(wide), -1) @ _shifted(template, 2 * shift + 1)
        moved = (2 * product - energy).argmax(axis=1) - shift
    return moved


def _shifted(template: np.ndarray, shifts: int) -> np.ndarray:
    """Columns (leads * samples, shifts): the template (leads, length) begun at each shift, zeros around it."""
    leads, length = template.shape
    columns = np.zeros((leads, length + shifts - 1, shifts))
    lead, row, column = columns.strides
    view = np.lib.stride_tricks.as_strided(columns, (leads, length, shifts), (lead, row, row + column))
    view[...] = template[:, :, None]
    return columns.reshape(-1, shifts)


def _median(rows: np.ndarray) -> np.ndarray:
    """The median over the first axis of (rows, ...) without NaN; of few rows by a sorting network, which is faster."""
    count = len(rows)
    if not 2 < count <= MAX_SORTED:
        return np.asarray(np.median(rows, axis=0))
    wires, spare = list(np.array(rows)), np.empty_like(rows[0], order="C")
    for low, high in _comparisons(count):
        np.minimum(wires[low], wires[high], out=spare)
        np.maximum(wires[low], wires[high], out=wires[high])
        wires[low], spare = spare, wires[low]
    return np.asarray(wires[count // 2] if count % 2 else (wires[count // 2 - 1] + wires[count // 2]) / 2)


@cache
def _comparisons(count: int) -> list[tuple[int, int]]:
    """Comparisons of Batcher's sorting network that the middle depends on (Knuth, TAOCP 3, algorithm 5.2.2M)."""
    every, top = list[tuple[int, int]](), 1 << (count - 1).bit_length() - 1
    part = top
    while part:
        step, rest, distance = top, 0, part
        while True:
            every += [(i, i + distance) for i in range(count - distance) if i & part == rest]
            if step == part:
                break
            distance, step, rest = step - part, step // 2, part
        part //= 2
    needed, kept = {count // 2, (count - 1) // 2}, list[tuple[int, int]]()
    for pair in reversed(every):
        if needed & set(pair):
            needed |= set(pair)
            kept.append(pair)
    return kept[::-1]


def _same_shape(beats: np.ndarray) -> np.ndarray:
    """True (beats,) for the beats, (beats, leads, samples), that look like the one with the most look-alikes."""
    complexes = unit_rows(beats.reshape(len(beats), -1))
    likeness = complexes @ complexes.T
    alike = likeness > SAME_SHAPE
    return np.asarray(alike[np.argmax(alike.sum(axis=1) + 0.5 * likeness.mean(axis=1))])


def _offset_of_r(beats: np.ndarray, shift: int) -> int:
    centre = beats.shape[2] // 2
    template = _median(beats[:, :, centre - shift : centre + shift + 1])
    return int(np.argmax((template**2).sum(axis=0))) - shift


def _windows(signal_mv: np.ndarray, centres: np.ndarray, before: int, after: int) -> np.ndarray:
    """The complete windows; all windows, NaN beyond the record's ends, where fewer than 3 are complete."""
    complete = (centres >= before) & (centres + after <= signal_mv.shape[1])
    if complete.sum() >= MIN_BEATS or complete.all():
        return _cut(signal_mv, centres[complete], before, after)
    padded = np.pad(signal_mv, ((0, 0), (before, after)), constant_values=np.nan)
    return _cut(padded, centres + before, before, after)


class GivenBeat:
    """The median beat that a recording brings with it, in the place of one computed here.

    A cart averages the same ten seconds, but filters otherwise, puts the R peak elsewhere in its window and keeps a
    baseline of its own. So its beat is laid on the computed one: shifted to the largest cross-correlation, which
    brings the R peak to 40 % of the window, and moved up or down lead by lead. The 0.5 Hz high-pass of the recording
    is not run on it: a beat of 1.2 s is shorter than one period.

    Args:
        signal_mv: (leads, samples), mV; NaN where it has no sample.
        sampling_rate: Hz.
    """

    def __init__(self, signal_mv: np.ndarray, sampling_rate: float) -> None:
        self.signal_mv, self.sampling_rate = signal_mv, sampling_rate

    @staticmethod
    def rows_mv(median_beat: Any, unit: str, num_leads: int) -> np.ndarray:
        """Returns a beat as it was given in mV, float64 (leads, samples), one row for each lead of the recording."""
        try:
            beat = np.asarray(median_beat, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError("median_beat: expected a numeric (leads, samples) array") from None
        if beat.ndim != 2 or len(beat) != num_leads or not beat.shape[1]:
            raise ValueError(
                f"median_beat: expected ({num_leads}, samples), leads as in signal, got shape {beat.shape}"
            )
        mv_per_unit = millivolt_per(unit)
        if mv_per_unit is None:
            raise ValueError(f"unit: expected mV, uV or V, got {unit!r}")
        return beat * mv_per_unit

    def conditioned(self, sampling_rate: float, lowpass_hz: float | None = None) -> "GivenBeat":
        """The beat at another rate; NaN where it had no sample. A notch would ring through all of it."""
        missing = ~np.isfinite(self.signal_mv)
        filled = LeadQuality(self.signal_mv).filled_mv
        filtered = apply_filter(filled, self.sampling_rate, lowpass_hz=lowpass_hz)
        beat = resample(filtered, self.sampling_rate, sampling_rate)
        nearest = np.rint(np.arange(beat.shape[1]) * self.sampling_rate / sampling_rate)
        nearest = np.minimum(nearest, missing.shape[1] - 1).astype(int)
        return GivenBeat(np.where(missing[:, nearest], np.nan, beat), sampling_rate)

    def placed_on(self, own_mv: np.ndarray) -> np.ndarray | None:
        """Lays the beat on the one computed here, (leads, window) mV, R peak at 40 %; NaN beyond its ends.

        None where it does not reach around the R peak, has a lead without signal, or is unlike the other.
        """
        placed = np.full_like(own_mv, np.nan)
        shift = _shift(self.signal_mv, own_mv)
        start, end = max(shift, 0), min(shift + self.signal_mv.shape[1], own_mv.shape[1])
        placed[:, start:end] = self.signal_mv[:, start - shift : end - shift]
        common = np.isfinite(placed) & np.isfinite(own_mv)
        centre, reach = round(R_POSITION * own_mv.shape[1]), round(QRS_SECONDS * self.sampling_rate)
        if not common[:, centre - reach : centre + reach].all() or common.mean(axis=1).min() < MIN_COVERED:
            return None
        if (np.nanmax(placed, axis=1) - np.nanmin(placed, axis=1)).min() < FLAT_RANGE_MV:
            return None
        placed += np.nanmedian(np.where(common, own_mv - placed, np.nan), axis=1, keepdims=True)
        return placed if _beat_residual(placed, own_mv) <= MAX_RESIDUAL else None


def _beat_residual(beat_mv: np.ndarray, own_mv: np.ndarray) -> float:
    """Root mean square of the difference of two beats over that of the second, each lead's mean and NaN left out."""
    common = np.isfinite(beat_mv) & np.isfinite(own_mv)
    own = np.where(common, own_mv, np.nan)
    own = own - np.nanmean(own, axis=1, keepdims=True)
    return float(np.sqrt(np.mean((beat_mv - own_mv)[common] ** 2) / max(np.nanmean(own**2), 1e-12)))


def _shift(beat_mv: np.ndarray, own_mv: np.ndarray) -> int:
    """Returns the position of the beat's first sample in the other's window, by cross-correlation over all leads."""
    beat = np.nan_to_num(beat_mv - np.nanmedian(LeadQuality(beat_mv).filled_mv, axis=1, keepdims=True))
    own = np.nan_to_num(own_mv)
    own = own / np.maximum(own.std(axis=1, keepdims=True), 1e-6) ** 2  # leads weigh alike in whatever size
    score = sum(np.correlate(a, b, "full") for a, b in zip(own, beat, strict=True))
    return int(np.argmax(score) - (beat_mv.shape[1] - 1))
