"""Checks and conditions one recording: errors, gaps, flat and clipped leads, resampling.

Arrays are (leads, samples) in millivolt.

Travels with the weights: numpy, and scipy where it is needed.
"""

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from .contract_ecgdan import STANDARD_LEADS
from .filters_ecgdan import import_scipy
from .leads_ecgdan import canonical_leads

_MICRO_SIGN, _GREEK_MU = "\u00b5", "\u03bc"
_SPELLINGS = {
    "mV": ("mv", "millivolt", "millivolts"),
    "uV": ("uv", f"{_MICRO_SIGN}v", f"{_GREEK_MU}v", "microvolt", "microvolts"),
    "V": ("v", "volt", "volts"),
}
_STANDARD_UNIT = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings}
_MV_PER_UNIT = {"mV": 1.0, "uV": 1e-3, "V": 1e3}
MAX_MEDIAN_RANGE_MV = 20.0  # no heart writes more; counts and microvolt do
MAX_RANGE_MV = 16.0  # of one lead; in PTB-XL one record of 2,664 exceeds it, in which an amplifier failed
MIN_RANGE_RATIO = 3.0  # to that of most leads; if all are as large, the gain is wrong and no electrode is loose
MAX_DEVIATION_MV = 6.0  # from the median of such a lead; samples beyond are missing
CODE_GAP_MV = 2.0  # a code of "no sample" lies at least this far from all samples, and as far as their range
CODE_MV = 20.0  # beyond, a single such value is a code; nearer to zero only a run of it
STRETCH_SECONDS = 10.0  # over which the range of a long recording is judged
MAX_RATE_HZ = 1e6  # far above any recorder
MIN_SECONDS = 2.4  # a column of a printed 12-lead ECG has 2.5 s

MAX_MISSING_FRACTION = 0.05  # of one lead; up to here NaN gaps are interpolated linearly, above the lead is masked
FLAT_RANGE_MV = 0.02  # a lead whose whole range is below this carries no ECG
FLAT_FRACTION = 0.95  # nor does one of which this share of samples repeats the sample before
STILL_SECONDS = 0.5  # in which no lead changes: nothing was recorded
CLIP_SECONDS = 0.02  # this long at exactly the largest or smallest value: the amplifier's rail, not an R peak
RESAMPLED_SAMPLES = 50  # made by one block at least: a matrix small enough for the cache, large enough for BLAS


def printed_samples(lead_names: Sequence[str], num_samples: int) -> np.ndarray:
    """(leads, samples), true where a page of 3 rows and 4 columns shows the lead: a quarter each, and all of lead II.

    >>> printed_samples(["I", "II", "aVR", "V6"], 8).astype(int)
    array([[1, 1, 0, 0, 0, 0, 0, 0],
           [1, 1, 1, 1, 1, 1, 1, 1],
           [0, 0, 1, 1, 0, 0, 0, 0],
           [0, 0, 0, 0, 0, 0, 1, 1]])
    """
    column = np.array([STANDARD_LEADS.index(name) // 3 for name in lead_names])
    quarter = np.arange(num_samples) * 4 // num_samples
    return np.asarray((column[:, None] == quarter) | (np.array(lead_names) == "II")[:, None])


def millivolt_per(unit: Any) -> float | None:
    """Factor from a unit in any spelling (`"uV"`, `"microvolt"`, either letter mu) to mV; None if it is no voltage."""
    return _MV_PER_UNIT.get(_STANDARD_UNIT.get(str(unit).strip().lower(), ""))


def check_recording(
    signal: Any, sampling_rate: float | None, unit: str | None, lead_names: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
    """Returns the recording in mV, float64 (leads, samples), and its standard lead names; raises for invalid input."""
    given = {"sampling_rate": sampling_rate, "unit": unit, "lead_names": lead_names}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) > 1:
        raise ValueError(
            f"{', '.join(missing)}: expected them with the signal (Hz; mV, uV or V; one name for each row), got None"
        )
    if sampling_rate is None or not _is_rate(sampling_rate):
        raise ValueError(f"sampling_rate: expected the recording's rate in Hz, got {sampling_rate!r}")
    mv_per_unit = millivolt_per(unit)
    if mv_per_unit is None:
        raise ValueError(f"unit: expected one of {', '.join(_MV_PER_UNIT)}, got {unit!r}")
    if lead_names is None or isinstance(lead_names, str) or not np.iterable(lead_names):
        raise ValueError(f"lead_names: expected one name for each row of signal, got {lead_names!r}")
    try:
        array = np.asarray(signal, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            "signal: expected a numeric (leads, samples) array, got rows of unequal length or not numbers"
        ) from None
    names = [str(name) for name in lead_names]
    _check_shape(array, names, sampling_rate)
    leads = canonical_leads(names)
    array, _ = without_codes(array if mv_per_unit == 1 else array * mv_per_unit, sampling_rate)
    _check_amplitude(array, sampling_rate, _STANDARD_UNIT[str(unit).strip().lower()])
    return array, leads


def _is_rate(sampling_rate: Any) -> bool:
    with suppress(TypeError, ValueError, OverflowError):
        return not isinstance(sampling_rate, str | bool) and 0 < float(sampling_rate) <= MAX_RATE_HZ
    return False


def _check_shape(array: np.ndarray, names: list[str], sampling_rate: float) -> None:
    if array.ndim != 2:
        raise ValueError(f"signal: expected (leads, samples), got an array of shape {array.shape}")
    rows, samples = array.shape
    if rows != len(names) and samples == len(names):
        raise ValueError(
            f"signal: expected (leads, samples), got ({rows}, {samples}) for {len(names)} lead names; "
            "it is (samples, leads), transpose it"
        )
    if rows != len(names):
        raise ValueError(f"lead_names: expected one for each of the {rows} rows of signal, got {len(names)}")
    if samples < MIN_SECONDS * sampling_rate:
        raise ValueError(
            f"signal: {samples} samples at {sampling_rate:g} Hz are {samples / sampling_rate:.2f} s, expected "
            f"at least {MIN_SECONDS} s; is the sampling rate right?"
        )


def _check_amplitude(signal_mv: np.ndarray, sampling_rate: float, unit: str) -> None:
    lows, highs = lead_ranges(signal_mv)
    if not np.isfinite(highs - lows).all():
        lows, highs = lead_ranges(np.where(np.isfinite(signal_mv), signal_mv, np.nan))
    ranges = (highs - lows)[np.isfinite(lows)]
    if not len(ranges):
        raise ValueError("signal: every sample is missing (NaN)")
    typical = typical_range(signal_mv, sampling_rate)
    if typical > MAX_MEDIAN_RANGE_MV:
        likely = "microvolt or ADC counts" if unit == "mV" else f"not {unit}"
        raise ValueError(
            f"signal: median lead range is {typical:.3g} mV, expected at most {MAX_MEDIAN_RANGE_MV:g}; "
            f"the values are likely {likely}"
        )
    if unit != "uV" and ranges.max() > 0 and _whole_numbers(signal_mv, _MV_PER_UNIT[unit]):
        raise ValueError(
            f"signal: every sample is a whole number, which {unit} are not; the values are likely ADC "
            "counts (divide by the header's gain) or microvolt (unit='uV')"
        )
    if 0 < ranges.max() < 0.02:
        raise ValueError(
            f"signal: largest lead range is {ranges.max():.2g} mV, too small for an ECG; the values are "
            f"likely {'volt' if unit == 'mV' else 'not ' + unit}"
        )


def _whole_numbers(signal_mv: np.ndarray, mv_per_unit: float) -> bool:
    """Whether all known values are whole numbers in their unit; the first 100 mostly tell."""
    for part in (signal_mv[:, :100], signal_mv):
        known = part[np.isfinite(part)] / mv_per_unit
        if not np.array_equal(known, np.rint(known)):
            return False
    return True


def lead_ranges(signal_mv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest sample of each lead, (leads,) each, NaN for a lead without samples."""
    lows, highs = signal_mv.min(axis=1), signal_mv.max(axis=1)  # many times as fast as those that skip NaN
    gaps = np.isnan(lows)
    if gaps.any():
        lows[gaps], highs[gaps] = (function.reduce(signal_mv[gaps], axis=1) for function in (np.fmin, np.fmax))
    return lows, highs


def typical_range(signal_mv: np.ndarray, sampling_rate: float) -> float:
    """The range of most leads in mV, the lower of the middle two; of a long recording that of most stretches of 10 s.

    NaN without any sample.
    """
    length = max(round(STRETCH_SECONDS * sampling_rate), 1)
    if signal_mv.shape[1] >= 2 * length:  # one artefact in a day is no gain
        stretches = signal_mv[:, : signal_mv.shape[1] // length * length].reshape(len(signal_mv), -1, length)
        lows, highs = lead_ranges(stretches.reshape(-1, length))
        ranges = (highs - lows).reshape(len(signal_mv), -1)
        ranges = np.array([_lower_median(lead) for lead in ranges])
    else:
        lows, highs = lead_ranges(signal_mv)
        ranges = highs - lows
    return _lower_median(ranges)


def out_of_range(signal_mv: np.ndarray) -> np.ndarray:
    """True (leads,) for leads whose range no heart writes while most leads are in range: a loose electrode."""
    lows, highs = lead_ranges(signal_mv)
    return _beyond(highs - lows)


def _beyond(ranges: np.ndarray) -> np.ndarray:
    return np.asarray((ranges > MAX_RANGE_MV) & (ranges > MIN_RANGE_RATIO * _lower_median(ranges)))


def _has_gap(signal_mv: np.ndarray) -> bool:
    """Whether a sample is NaN; the smallest of a lead with one is NaN too."""
    return bool(np.isnan(signal_mv.min(axis=1)).any())


def _lower_median(values: np.ndarray) -> float:
    known = np.sort(values[np.isfinite(values)])
    return float(known[(len(known) - 1) // 2]) if len(known) else float("nan")


def without_codes(signal_mv: np.ndarray, sampling_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Replaces codes of "no sample", such as -32768 counts, by NaN; also returns which leads had one, (leads,) bool.

    A code is the largest or smallest value of a lead, with nothing between it and the other samples, whose range is
    smaller than that gap; and it comes in a run of 20 ms, or is above 20 mV. An amplifier's rail has samples near it.
    """
    lows, highs = lead_ranges(signal_mv)
    run = max(4, round(CLIP_SECONDS * sampling_rate))
    found = np.zeros(len(signal_mv), dtype=bool)
    for lead in np.flatnonzero(highs - lows > CODE_GAP_MV):
        codes = _codes(signal_mv[lead], lows[lead], highs[lead], run)
        if codes.any():
            signal_mv = signal_mv if found.any() else signal_mv.copy()
            signal_mv[lead, codes] = np.nan
            found[lead] = True
    return signal_mv, found


def _codes(lead_mv: np.ndarray, low: float, high: float, run: int) -> np.ndarray:
    """True (samples,) where a lead holds a code of "no sample"."""
    others = lead_mv[(lead_mv > low) & (lead_mv < high)]
    codes = np.zeros(len(lead_mv), dtype=bool)
    if not len(others):
        return codes
    bottom, top = others.min(), others.max()
    for value, gap in ((low, bottom - low), (high, high - top)):
        if gap > max(CODE_GAP_MV, top - bottom):
            held = lead_mv == value
            if abs(value) > CODE_MV or _longest_run(held) >= run:
                codes |= held
    return codes


class LeadQuality:
    """The leads of a recording with their gaps filled, and what is wrong with each.

    Of a lead `out_of_range`, the samples farther than 6 mV from its median are missing. What is missing in all leads
    at either end of the recording does not count as missing of a lead.

    Attributes:
        filled_mv: (leads, samples); missing samples (NaN, infinities) are interpolated linearly, ends take the nearest
            sample, and a lead without any sample is 0.
        missing: (leads,), fraction of missing samples.
        ends_missing: fraction of samples at the ends of the recording that are missing in all leads.
        lost: (leads,) boolean, more than 5 % missing.
        flat: (leads,) boolean, no ECG: range below 0.02 mV, or nearly every sample repeats the last.
        out_of_range: (leads,) boolean, a range that no heart writes; see `out_of_range`.
        usable: (leads,) boolean, neither lost nor flat.
    """

    def __init__(self, signal_mv: np.ndarray) -> None:
        lows, highs = lead_ranges(signal_mv)
        self.out_of_range = _beyond(highs - lows)
        self.filled_mv, self.missing, self.ends_missing = signal_mv, np.zeros(len(signal_mv)), 0.0
        if self.out_of_range.any() or not np.isfinite(highs - lows).all() or _has_gap(signal_mv):
            self._fill(signal_mv)
        self.lost = self.missing > MAX_MISSING_FRACTION
        self._limits = lead_ranges(self.filled_mv)
        self._repeats = self.filled_mv[:, 1:] == self.filled_mv[:, :-1]
        self._num_repeats = np.count_nonzero(self._repeats, axis=1)
        repeated = self._num_repeats / max(signal_mv.shape[1] - 1, 1)
        ranges = self._limits[1] - self._limits[0]
        self.flat = ((ranges < FLAT_RANGE_MV) | (repeated > FLAT_FRACTION)) & ~self.lost
        self.usable = ~self.lost & ~self.flat

    def _fill(self, signal_mv: np.ndarray) -> None:
        gaps = ~np.isfinite(signal_mv)
        for lead in np.flatnonzero(self.out_of_range):
            gaps[lead] |= np.abs(signal_mv[lead] - np.nanmedian(signal_mv[lead])) > MAX_DEVIATION_MV
        self.filled_mv = np.where(gaps, 0.0, signal_mv)
        position = np.arange(signal_mv.shape[1])
        for lead in np.flatnonzero(gaps.any(axis=1) & ~gaps.all(axis=1)):
            gap = gaps[lead]
            self.filled_mv[lead, gap] = np.interp(position[gap], position[~gap], signal_mv[lead, ~gap])
        recorded = np.flatnonzero(~gaps.all(axis=0))
        within = gaps[:, recorded[0] : recorded[-1] + 1] if len(recorded) else gaps
        self.missing = within.mean(axis=1)
        self.ends_missing = 1 - within.shape[1] / gaps.shape[1]

    def still(self, sampling_rate: float) -> float:
        """Share of the recording in stretches of half a second or more in which no usable lead changes at all."""
        shortest = STILL_SECONDS * sampling_rate
        if not self.usable.any() or self._num_repeats[self.usable].min() < shortest:
            return 0.0
        still = self._repeats[self.usable].all(axis=0)
        edges = np.flatnonzero(np.diff(np.concatenate(([0], still.astype(np.int8), [0]))))
        lengths = edges[1::2] - edges[::2]
        return float(lengths[lengths >= shortest].sum()) / max(len(still), 1)

    def clipped(self, sampling_rate: float) -> np.ndarray:
        """True (leads,) where peaks are cut off: 20 ms (at least 4 samples) at exactly the largest or smallest value.

        That value must be a peak, at least 30 % of the range away from the median, and the run must not touch the ends
        of the record, where some carts repeat their last sample.
        """
        run, found = max(4, round(CLIP_SECONDS * sampling_rate)), np.zeros(len(self.filled_mv), dtype=bool)
        for limits in self._limits:
            held = self.filled_mv == limits[:, None]
            for lead in np.flatnonzero(~found & (np.count_nonzero(held, axis=1) >= run)):
                found[lead] = _is_clipped(self.filled_mv[lead], held[lead], run)
        return found


def _is_clipped(lead_mv: np.ndarray, held: np.ndarray, run: int) -> bool:
    """Whether a lead is cut off at the value that it has where `held` (samples,)."""
    if held[0] or held[-1] or _longest_run(held) < run:
        return False
    return bool(abs(lead_mv[held.argmax()] - np.median(lead_mv)) >= 0.3 * np.ptp(lead_mv))


def _longest_run(flags: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def resample(signal_mv: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """Polyphase resampling with its anti-aliasing filter, along the samples of (leads, samples).

    The same as `scipy.signal.resample_poly` with `padtype="line"`, in blocks: one matrix makes many samples of one
    stretch of the signal, and is the same for all stretches and leads.
    """
    if from_rate == to_rate:
        return signal_mv
    ratio = Fraction(to_rate / from_rate).limit_denominator(1000)
    operator, step, reach = _resampling_operator(ratio.numerator, ratio.denominator)
    length = -(-signal_mv.shape[1] * ratio.numerator // ratio.denominator)
    blocks = -(-length // operator.shape[1])
    extended = _extended(signal_mv, reach, (blocks - 1) * step + len(operator))
    windows = np.lib.stride_tricks.sliding_window_view(extended, len(operator), axis=1)[:, ::step]
    return np.asarray(windows @ operator).reshape(len(signal_mv), -1)[:, :length]


@lru_cache(maxsize=64)
def _resampling_operator(up: int, down: int) -> tuple[np.ndarray, int, int]:
    """Matrix (samples in, samples out) of one block, samples in between blocks, samples in before a block's first."""
    half = 10 * max(up, down)  # the filter of scipy.signal.resample_poly
    taps = up * import_scipy("signal").firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", 5.0))
    out = up * -(-RESAMPLED_SAMPLES // up)
    step, reach = out // up * down, -(-half // up)
    lag = half + np.arange(out) * down - np.arange(-reach, step + reach)[:, None] * up
    inside = (lag >= 0) & (lag < len(taps))
    return np.where(inside, taps[np.clip(lag, 0, len(taps) - 1)], 0.0), step, reach


def _extended(signal_mv: np.ndarray, before: int, length: int) -> np.ndarray:
    """The signal as (leads, length), `before` samples in front, on the line through its first and last sample."""
    samples = signal_mv.shape[1]
    slope = (signal_mv[:, -1:] - signal_mv[:, :1]) / max(samples - 1, 1)
    after = max(length - before - samples, 0)
    front = signal_mv[:, :1] + slope * np.arange(-before, 0)
    back = signal_mv[:, -1:] + slope * np.arange(1, after + 1)
    return np.concatenate((front, signal_mv, back), axis=1)[:, :length]


def fit_length(signal_mv: np.ndarray, num_samples: int) -> np.ndarray:
    """Crops to, or pads with NaN to, `num_samples` around the middle of the record; NaN scales to 0 later."""
    surplus = signal_mv.shape[1] - num_samples
    if surplus >= 0:
        return signal_mv[:, surplus // 2 : surplus // 2 + num_samples]
    before = -surplus // 2
    return np.pad(signal_mv, ((0, 0), (before, -surplus - before)), constant_values=np.nan)
