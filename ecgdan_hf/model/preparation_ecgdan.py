"""Signal, sampling rate, unit and lead names -> arrays for the ECG networks: the feature extractor's work.

It raises for a recording that cannot be trusted (no unit, no rate, ADC counts instead of millivolt) and flags what it
can work with but the user should know (`FLAGS`). With a waveform rule (DANet) it also weighs each sample.

Travels with the weights: numpy; scipy where it is needed. A waveform rule also needs transformers and neurokit2.
"""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .conditioning_ecgdan import (
    MAX_MISSING_FRACTION,
    MAX_RANGE_MV,
    MIN_SECONDS,
    LeadQuality,
    check_recording,
    fit_length,
    printed_samples,
    resample,
)
from .contract_ecgdan import CHOICES, DEFAULT_FILTER, STANDARD_LEADS
from .doubts_ecgdan import doubts
from .filters_ecgdan import apply_filter
from .leads_ecgdan import canonical_leads, contradicting_leads, derive_limb_lead, einthoven_residual
from .median_beat_ecgdan import MIN_BEATS, GivenBeat, MedianBeat
from .r_peaks_ecgdan import find_r_peaks, heart_rate

logger = logging.getLogger(__name__)

MAX_SECONDS = 60.0  # a median beat is taken over at most this much, from the middle of the record
MIN_RATED_BEATS = 4  # of fewer, among pauses or noise, no heart rate says that the sampling rate is wrong
HEART_RATES = (20.0, 300.0)  # per minute; outside, the sampling rate is more likely wrong than the heart
MAX_EINTHOVEN_RESIDUAL = 0.2
MAX_STILL = 0.1  # share of the recording in which no lead changes; none of PTB-XL, LUDB and MIT-BIH exceeds it
GLOBAL_CLIP = 20.0  # standard deviations kept by the "global" scale
BEAT_SECONDS = 1.2  # window of the beat that rhythm input is checked by
TIME_SCALES = (-1.2, 1.5)  # `MedianBeat.time_scale`; outside, a wrong sampling rate fits better than a heart
MIN_ALIKE = 0.33  # share of beats of one shape; below, waves that are no beats were taken for beats

FLAGS: dict[str, str] = {
    "lead_absent": "leads of the model that were neither given nor derivable; masked",
    "lead_derived": "limb leads computed from two others",
    "lead_ignored": "recognised leads that are not among the twelve (Frank, right-sided, posterior)",
    "lead_missing_samples": f"leads with more than {MAX_MISSING_FRACTION:.0%} missing samples; masked",
    "nan_interpolated": f"leads with up to {MAX_MISSING_FRACTION:.0%} missing samples, interpolated linearly",
    "lead_in_part": "leads of a printed page, which shows a part of each; the part is repeated over the rest",
    "ends_missing": "share of the recording at its ends that is missing in all leads",
    "lead_flat": "leads without signal; masked",
    "lead_out_of_range": f"leads with a range above {MAX_RANGE_MV:g} mV, which no heart writes; samples far off are "
    "missing, and the lead is masked if these are many",
    "lead_clipped": "leads with peaks cut off: 20 ms or more at exactly their largest or smallest value",
    "limb_leads_contradict": "limb leads that contradict the others at any gain: exchanged, mislabelled or inverted",
    "einthoven_residual": f"II - I - III is above {MAX_EINTHOVEN_RESIDUAL:.0%} of the limb leads: unequal gains, "
    "swapped or mislabelled leads, or leads that were not recorded at the same time",
    "doubtful": "what the recording probably is instead of what it is named as: inverted, with the arms' electrodes "
    "exchanged, reversed in time, of twice or half its true rate, of three times its true gain, or partly empty "
    f"(with the share in which no lead changes, above {MAX_STILL:.0%}); do not trust the answer before looking at it",
    "sampling_rate_doubtful": "heart rate and QRS width, or few beats being alike, suggest a wrong rate; a slow "
    "heart with a very wide QRS complex does too",
    "resampled": "the recording's sampling rate is not the model's",
    "cropped": "the recording is longer than the model's input; its middle was taken",
    "padded": "the recording is shorter than the model's input; zeros around it",
    "no_r_peaks": "no heart beat found (rhythm input only; a median beat is refused)",
    "too_few_beats": f"number of beats the median beat rests on, fewer than {MIN_BEATS}; of rhythm input number of R "
    f"peaks, fewer than {MIN_RATED_BEATS}, so that nothing was checked by the heart rate",
    "outlier_beats_dropped": "number of beats of another shape, left out of the median beat",
    "median_beat_of_file": "the recording's own median beat, as its cart computed it, was taken",
    "median_beat_unlike": "the recording's own median beat is not like the one computed here, which was taken",
}


class EcgPreparation:
    r"""What [`EcgDanFeatureExtractor`] does, without transformers; arguments and errors are the same."""

    model_input_names: list[str] = ["input_values", "lead_mask"]  # noqa: RUF012 (transformers reads a list)

    def __init__(
        self,
        lead_names: Sequence[str] = STANDARD_LEADS,
        sampling_rate: float = 500,
        num_samples: int = 608,
        pad_samples: int = 4,
        input_kind: str = "median_beat",
        unit: str = "mV",
        filter: dict[str, float | None] | None = None,
        normalization: str = "per_lead_zscore",
        global_mean_mv: float = 0.0,
        global_std_mv: float = 0.25,
        waveform_rule: str | Path | dict[str, Any] | None = None,
        used_leads: Sequence[str] | None = None,
        page_layout: str = "whole",
    ) -> None:
        self.lead_names = canonical_leads(list(lead_names))
        self.page_layout = page_layout
        self.used_leads = None if used_leads is None else canonical_leads(list(used_leads))
        self.sampling_rate, self.num_samples, self.pad_samples = sampling_rate, num_samples, pad_samples
        self.input_kind, self.unit, self.normalization = input_kind, unit, normalization
        self.global_mean_mv, self.global_std_mv = global_mean_mv, global_std_mv
        self.filter = dict(DEFAULT_FILTER if filter is None else filter)
        self.waveform_rule = None if waveform_rule is None else _resolved(waveform_rule)
        if self.waveform_rule is not None:
            self.model_input_names = [*self.model_input_names, "waveform_weights"]
        self._check_contract()

    def _check_contract(self) -> None:
        for name in ("input_kind", "page_layout", "unit", "normalization"):
            if getattr(self, name) not in CHOICES[name]:
                raise ValueError(f"{name}: expected {' or '.join(CHOICES[name])}, got {getattr(self, name)!r}")
        if self.waveform_rule is not None and self.input_kind != "rhythm":
            raise ValueError(f"waveform_rule: expected input_kind='rhythm' with it, got {self.input_kind!r}")
        if self.page_layout != "whole" and self.input_kind != "rhythm":
            raise ValueError(f"page_layout: expected input_kind='rhythm' with it, got {self.input_kind!r}")
        unknown = sorted(set(self.filter) - set(DEFAULT_FILTER))
        if unknown:
            raise ValueError(f"filter: expected {', '.join(DEFAULT_FILTER)}, got {', '.join(unknown)}")
        if not self.sampling_rate > 0 or not self.global_std_mv > 0:
            raise ValueError(
                "sampling_rate and global_std_mv: expected positive numbers, "
                f"got {self.sampling_rate} and {self.global_std_mv}"
            )
        if self.signal_samples <= 0 or self.pad_samples < 0:
            raise ValueError(
                f"num_samples: {self.num_samples} leaves no room for {self.pad_samples} zeros at each end"
            )

    @property
    def read_leads(self) -> list[str]:
        """Those of `lead_names` that are not masked where they were recorded."""
        return [lead for lead in self.lead_names if self.used_leads is None or lead in self.used_leads]

    @property
    def signal_samples(self) -> int:
        """Samples of signal in `input_values`, without the zero padding."""
        return self.num_samples - 2 * self.pad_samples

    def recorded_samples(self, num_samples: int, sampling_rate: float) -> tuple[int, int, int]:
        """Locates a recording of `num_samples` at `sampling_rate` (Hz) in the rhythm input made from it.

        First and one past the last sample of `input_values` that were recorded, and by how many samples of the input
        the first of them comes after the beginning of the recording.
        """
        length = resample(np.zeros((1, num_samples)), sampling_rate, self.sampling_rate).shape[1]
        placed = fit_length(np.arange(length, dtype=float)[None], self.signal_samples)[0]
        known, pad = np.flatnonzero(np.isfinite(placed)), self.pad_samples
        return int(known[0]) + pad, int(known[-1]) + 1 + pad, int(placed[known[0]])

    def prepare(
        self,
        signal: np.ndarray | list[Any],
        sampling_rate: float | list[float] | None = None,
        unit: str | list[str] | None = None,
        lead_names: Sequence[str] | list[list[str]] | None = None,
        median_beat: np.ndarray | list[Any] | None = None,
    ) -> dict[str, Any]:
        """Prepares one recording or several; arguments and errors as [`EcgDanFeatureExtractor.__call__`].

        Returns:
            Arrays by name, a row for each recording: `input_values` (batch, leads, num_samples) float32, `lead_mask`
            (batch, leads) bool, and with a waveform rule `waveform_weights` (batch, num_samples) float32; and `flags`,
            a list for each recording.
        """
        signals, batched = _as_batch(signal)
        rates = _one_each(sampling_rate, len(signals), "sampling_rate", list | tuple | np.ndarray)
        units = _one_each(unit, len(signals), "unit", list | tuple)
        nested = isinstance(lead_names, list | tuple) and any(isinstance(each, list | tuple) for each in lead_names)
        names: list[Any] = [*(lead_names or ())] if nested else [lead_names] * len(signals)
        if len(names) != len(signals):
            raise ValueError(f"lead_names: expected one list for each of {len(signals)} recordings, got {len(names)}")
        given = median_beat if batched else [median_beat]
        beats = _one_each(given, len(signals), "median_beat", list | tuple | np.ndarray)
        conditioned = []
        for index, recording in enumerate(zip(signals, rates, units, names, beats, strict=True)):
            try:
                conditioned.append(self._condition(*recording))
            except ValueError as error:
                raise ValueError(f"recording {index}: {error}" if batched else str(error)) from error
        inputs = [self.inputs_of(signal_mv, mask) for signal_mv, mask, _ in conditioned]
        data: dict[str, Any] = {name: np.stack([each[name] for each in inputs]) for name in inputs[0]}
        return data | {"flags": [flags for _, _, flags in conditioned]}

    def condition(
        self,
        signal: np.ndarray,
        sampling_rate: float,
        unit: str,
        lead_names: Sequence[str],
        median_beat: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """One recording as the model sees it, before scaling and zero padding; for drawing.

        Returns:
            signal_mv (leads, num_samples - 2 * pad_samples) float32, mV, masked leads 0; lead_mask (leads,) bool; the
            quality flags.
        """
        signal_mv, lead_mask, flags = self._condition(signal, sampling_rate, unit, lead_names, median_beat)
        return np.nan_to_num(signal_mv).astype(np.float32), lead_mask, flags

    def inputs_of(
        self, signal_mv: np.ndarray, lead_mask: np.ndarray, r_peaks: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Returns what `__call__` returns, without the batch dimension, for a recording from `condition` or simulated.

        `signal_mv` is NaN where there is no sample; `r_peaks` (beats,), where known, serve the waveform rule alone.
        """
        inputs = {"input_values": self._scale(signal_mv, lead_mask), "lead_mask": lead_mask}
        if self.waveform_rule is not None:
            inputs["waveform_weights"] = self._weights(self.waveform_rule, signal_mv, lead_mask, r_peaks)
        return inputs

    def _condition(
        self,
        signal: np.ndarray,
        sampling_rate: float,
        unit: str,
        lead_names: Sequence[str],
        median_beat: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """As `condition`, float64, NaN where the record has no sample."""
        signal_mv, leads = check_recording(signal, sampling_rate, unit, lead_names)
        parts = _leads_in_part(signal_mv, leads, sampling_rate) if self.input_kind == "rhythm" else {}
        recorded, flags = _usable_leads(signal_mv, leads, sampling_rate, parts)
        _add_flag(flags, "limb_leads_contradict", contradicting_leads(recorded, sampling_rate))
        given = self._given_beat(median_beat, unit, leads, recorded)
        recorded |= self._derived(recorded, leads, flags)
        shown = recorded | {lead: _repeated(values) for lead, values in parts.items()}
        mask = np.array([lead in shown for lead in self.lead_names])
        read = np.isin(self.lead_names, self.read_leads)
        if not (mask & read).any():
            raise ValueError(
                f"signal: none of the leads {', '.join(leads)} is usable for a model of "
                f"{', '.join(self.read_leads)} ({'; '.join(flags)})"
            )
        names = [lead for lead in self.lead_names if lead in shown]
        usable = apply_filter(np.stack([shown[lead] for lead in names]), sampling_rate, **self.filter)
        whole = [row for row, lead in enumerate(names) if lead in recorded]
        limb = {names[row]: usable[row] for row in whole}
        if not any(flag.startswith("lead_derived") for flag in flags):
            residual = einthoven_residual(limb)
            if residual > MAX_EINTHOVEN_RESIDUAL:
                flags.append(f"einthoven_residual:{residual:.2f}")
        beat = None if given is None else GivenBeat(given[mask], sampling_rate)
        beat = beat and beat.conditioned(self.sampling_rate, self.filter.get("lowpass_hz"))
        usable = self._resampled(usable, sampling_rate, flags)
        signal_mv = np.zeros((len(self.lead_names), self.signal_samples))
        if len(whole) == len(names):
            signal_mv[mask] = self._window(usable, flags, beat, names)
        else:  # beats are looked for in the leads that are whole
            self._window(usable[whole or [0]], flags, None, [names[row] for row in whole or [0]])
            signal_mv[mask] = fit_length(usable, self.signal_samples)
        signal_mv[~read] = 0.0
        if self.page_layout == "3x4":
            signal_mv[~printed_samples(self.lead_names, self.signal_samples)] = 0.0
        return signal_mv, mask & read, flags

    def _given_beat(
        self, median_beat: np.ndarray | None, unit: str, leads: list[str], recorded: dict[str, np.ndarray]
    ) -> np.ndarray | None:
        """The recording's own beat, (model's leads, samples) mV; absent leads derived as those of the recording."""
        if median_beat is None or self.input_kind != "median_beat":
            return None
        beat = dict(zip(leads, GivenBeat.rows_mv(median_beat, unit, len(leads)), strict=True))
        usable = {lead: beat[lead] for lead in recorded}
        derived = {lead: derive_limb_lead(lead, usable) for lead in self.lead_names if lead not in leads}
        rows = {lead: row for lead, row in (usable | derived).items() if row is not None}
        missing = np.full(len(next(iter(beat.values()))), np.nan)
        return np.stack([rows.get(lead, missing) for lead in self.lead_names])

    def _derived(self, recorded: dict[str, np.ndarray], leads: list[str], flags: list[str]) -> dict[str, np.ndarray]:
        """Limb leads that were not given; one that was given and is unusable stays masked."""
        absent = [lead for lead in self.read_leads if lead not in leads]
        found = {lead: derive_limb_lead(lead, recorded) for lead in absent}
        derived = {lead: values for lead, values in found.items() if values is not None}
        _add_flag(flags, "lead_derived", derived)
        _add_flag(flags, "lead_absent", [lead for lead in absent if lead not in derived])
        return derived

    def _resampled(self, signal_mv: np.ndarray, sampling_rate: float, flags: list[str]) -> np.ndarray:
        if sampling_rate == self.sampling_rate:
            return signal_mv
        self._say_once(f"Resampling recordings from {sampling_rate:g} Hz to the model's {self.sampling_rate:g} Hz.")
        flags.append(f"resampled:{sampling_rate:g}Hz")
        return resample(signal_mv, sampling_rate, self.sampling_rate)

    def _window(
        self, signal_mv: np.ndarray, flags: list[str], given: GivenBeat | None, leads: list[str]
    ) -> np.ndarray:
        """Median beat or crop, (leads, signal_samples), with the checks that need R peaks."""
        rhythm = self.input_kind == "rhythm"
        limit = self.signal_samples if rhythm else round(MAX_SECONDS * self.sampling_rate)
        if signal_mv.shape[1] > limit:
            flags.append("cropped")
            signal_mv = fit_length(signal_mv, limit)
        r_peaks = find_r_peaks(signal_mv, self.sampling_rate)
        if not rhythm:
            return self._median_beat(signal_mv, r_peaks, flags, given, leads)
        if 0 < len(r_peaks) < MIN_RATED_BEATS:
            flags.append(f"too_few_beats:{len(r_peaks)}")
        elif len(r_peaks):
            self._checked_beat(signal_mv, r_peaks, round(BEAT_SECONDS * self.sampling_rate), flags, leads)
        else:
            flags.append("no_r_peaks")
        if signal_mv.shape[1] < limit:
            flags.append("padded")
        return fit_length(signal_mv, limit)

    def _median_beat(
        self,
        signal_mv: np.ndarray,
        r_peaks: np.ndarray,
        flags: list[str],
        given: GivenBeat | None,
        leads: list[str],
    ) -> np.ndarray:
        """The median beat (leads, signal_samples): the recording's own where it is like the one computed here."""
        if not len(r_peaks):
            raise ValueError("signal: no R peak found, so no median beat; is this an ECG at this sampling rate?")
        beat = self._checked_beat(signal_mv, r_peaks, self.signal_samples, flags, leads)
        placed = None if given is None else given.placed_on(beat.signal_mv)
        if placed is not None:
            flags.append("median_beat_of_file")
            return placed
        if given is not None:
            flags.append("median_beat_unlike")
        if beat.num_kept < MIN_BEATS:
            flags.append(f"too_few_beats:{beat.num_kept}")
        if beat.num_dropped:
            flags.append(f"outlier_beats_dropped:{beat.num_dropped}")
        return beat.signal_mv

    def _checked_beat(
        self, signal_mv: np.ndarray, r_peaks: np.ndarray, num_samples: int, flags: list[str], leads: list[str]
    ) -> MedianBeat:
        """The median beat; flags what it says against the sampling rate, the gain, the leads and the order of time."""
        rate = heart_rate(r_peaks, signal_mv.shape[1], self.sampling_rate)
        if not HEART_RATES[0] <= rate <= HEART_RATES[1]:
            raise ValueError(
                f"signal: heart rate {rate:.0f}/min from {len(r_peaks)} R peaks, expected {HEART_RATES[0]:.0f} "
                f"to {HEART_RATES[1]:.0f}; is the sampling rate right?"
            )
        beat = MedianBeat.of(signal_mv, r_peaks, self.sampling_rate, num_samples)
        scale = beat.time_scale(self.sampling_rate, rate)
        alike = beat.num_kept / (beat.num_kept + beat.num_dropped)
        if not TIME_SCALES[0] <= scale <= TIME_SCALES[1] or alike < MIN_ALIKE:
            flags.append("sampling_rate_doubtful")
        flags += [f"doubtful:{name}" for name in doubts(beat.signal_mv, leads, self.sampling_rate, rate)]
        return beat

    def _say_once(self, message: str) -> None:
        _warn_once(message)

    def _weights(
        self, rule: dict[str, Any], signal_mv: np.ndarray, lead_mask: np.ndarray, r_peaks: np.ndarray | None
    ) -> np.ndarray:
        """Weights of the samples under the waveform rule, (num_samples,) float32."""
        usable = signal_mv[lead_mask]
        known = np.isfinite(usable).all(axis=0)
        weights = np.zeros(self.signal_samples, np.float32)
        peaks = None if r_peaks is None else r_peaks - known.argmax()
        from .waveform_danet import waveform_weights

        weights[known] = waveform_weights(usable[:, known], self.sampling_rate, rule, peaks)
        return np.pad(weights, self.pad_samples)

    def _scale(self, signal_mv: np.ndarray, lead_mask: np.ndarray) -> np.ndarray:
        if self.normalization == "per_lead_zscore":
            scaled = _zscore_per_lead(signal_mv)
        else:  # one scale for all leads keeps voltage
            scores = (signal_mv - self.global_mean_mv) / self.global_std_mv
            scaled = np.nan_to_num(np.clip(scores, -GLOBAL_CLIP, GLOBAL_CLIP))
        scaled[~lead_mask] = 0.0
        return np.pad(scaled, ((0, 0), (self.pad_samples, self.pad_samples))).astype(np.float32)


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _resolved(rule: str | Path | dict[str, Any]) -> dict[str, Any] | None:
    from .configuration_danet import resolve_waveform_rule  # which needs transformers

    return resolve_waveform_rule(rule)


def _zscore_per_lead(signal_mv: np.ndarray) -> np.ndarray:
    """(x - mean over time) / (standard deviation over time) of each lead, without NaN; NaN and flat leads become 0."""
    known = np.isfinite(signal_mv)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.where(known, signal_mv, 0.0).sum(axis=1, keepdims=True) / count
    centred = np.where(known, signal_mv - mean, 0.0)
    std = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    return np.asarray(np.divide(centred, std, out=np.zeros_like(centred), where=std > 1e-6))


def _as_batch(signal: np.ndarray | list[Any]) -> tuple[list[Any], bool]:
    """A list of recordings, and whether it was given as several."""
    dimensions = np.ndim(signal[0]) + 1 if isinstance(signal, list | tuple) and len(signal) else np.ndim(signal)
    if dimensions == 3 and len(signal):
        return list(signal), True
    return [signal], False


def _one_each(value: Any, count: int, name: str, many: Any) -> list[Any]:
    if not isinstance(value, many):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name}: expected one for each of {count} recordings, got {len(value)}")
    return list(value)


def _usable_leads(
    signal_mv: np.ndarray, leads: list[str], sampling_rate: float, parts: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Leads that carry an ECG throughout, gaps filled, by name; and the flags of the others."""
    quality, flags = LeadQuality(signal_mv), list[str]()
    standard, in_part = (np.array([lead in some for lead in leads]) for some in (STANDARD_LEADS, parts))
    for name, found in {
        "lead_ignored": ~standard,
        "lead_in_part": in_part,
        "lead_missing_samples": standard & quality.lost & ~in_part,
        "nan_interpolated": standard & quality.usable & (quality.missing > 0),
        "lead_flat": standard & quality.flat,
        "lead_out_of_range": standard & quality.out_of_range,
        "lead_clipped": standard & quality.usable & quality.clipped(sampling_rate),
    }.items():
        _add_flag(flags, name, [lead for lead, true in zip(leads, found, strict=True) if true])
    if (still := quality.still(sampling_rate)) > MAX_STILL:
        flags.append(f"doubtful:empty_{still:.2f}")
    if quality.ends_missing:
        flags.append(f"ends_missing:{quality.ends_missing:.2f}")
    return {lead: quality.filled_mv[row] for row, lead in enumerate(leads) if quality.usable[row]}, flags


def _leads_in_part(signal_mv: np.ndarray, leads: list[str], sampling_rate: float) -> dict[str, np.ndarray]:
    """Leads of which a single part was recorded, (samples,) mV, NaN elsewhere; none unless most leads are so.

    A part has at least 2.4 s and no gap; a printed page shows 2.5 s or 5 s of most leads.
    """
    found: dict[str, np.ndarray] = {}
    if not np.isnan(signal_mv).any():
        return found
    for lead, values in zip(leads, signal_mv, strict=True):
        known = np.flatnonzero(np.isfinite(values))
        is_part = len(known) >= MIN_SECONDS * sampling_rate and known[-1] - known[0] + 1 == len(known) < len(values)
        if is_part and lead in STANDARD_LEADS and LeadQuality(values[None, known]).usable[0]:
            found[lead] = values
    lost = LeadQuality(signal_mv).lost
    return {lead: found[lead] for lead in found if lost[leads.index(lead)]} if lost.sum() > len(leads) / 2 else {}


def _repeated(lead_mv: np.ndarray) -> np.ndarray:
    """A lead, (samples,) mV, whose recorded part is repeated at its own place and wherever there is none."""
    known = np.flatnonzero(np.isfinite(lead_mv))
    part = lead_mv[known] - np.linspace(lead_mv[known[0]], lead_mv[known[-1]], len(known))  # no steps in between
    return np.asarray(part[(np.arange(len(lead_mv)) - known[0]) % len(known)])


def _add_flag(flags: list[str], name: str, leads: Any) -> None:
    if leads:
        flags.append(f"{name}:{'+'.join(leads)}")
