"""`EcgRecord`: one ECG as every source delivers it, in millivolt and with named leads.

The record rejects signals that cannot be in millivolt (ADC counts, microvolt) and invalid rates. It accepts poor
signals (gaps, flat leads), which `quality_flags` names. Every reader ends here, so here each lead is looked at: see
`lead_checks`.
"""

import ast
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdan_hf.data.lead_checks import checked_leads
from ecgdan_hf.model.conditioning_ecgdan import MAX_MEDIAN_RANGE_MV, lead_ranges, typical_range
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS

FloatArray = NDArray[np.float32]

MAX_AGE_YEARS = 130.0
MEDIAN_UNUSABLE = "median_beat_unusable"

_SPELLING = {lead.upper(): lead for lead in STANDARD_LEADS}


def canonical_lead(name: str) -> str:
    """Standard spelling of a lead name: `"AVR"` and `"lead i"` give `"aVR"` and `"I"`; other names stay."""
    bare = str(name).strip()
    words = bare.split()
    if len(words) == 2 and words[0].lower() == "lead":
        bare = words[1]
    return _SPELLING.get(bare.upper(), bare)


def scp_likelihoods(value: str | Mapping[str, float]) -> dict[str, float]:
    """Returns the SCP statements of a record, code -> likelihood in percent.

    Args:
        value: a mapping, its JSON, or the Python literal of PTB-XL's `ptbxl_database.csv`.

    Raises:
        ValueError: anything else.
    """
    given: Any = value
    codes = given
    for parse in (json.loads, ast.literal_eval):
        if not isinstance(codes, Mapping):
            with suppress(TypeError, ValueError, SyntaxError):
                codes = parse(given)
    try:
        return {str(code): float(likelihood) for code, likelihood in codes.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"scp_codes: expected {{code: likelihood}}, got {value!r}") from None


def check_sampling_rate(sampling_rate: Any, source: str = "sampling_rate") -> float:
    """Returns the rate in Hz; raises ValueError if it is missing, not a number, not finite, zero or negative."""
    try:
        rate = float(sampling_rate)
    except (TypeError, ValueError, OverflowError):
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"{source}: expected a sampling rate in Hz above zero, got {sampling_rate!r}")
    return rate


def _check_millivolt(signal_mv: FloatArray, sampling_rate: float, source: str = "signal_mv") -> None:
    """Rejects a median range over leads above 20 mV, and values that are all integers, as ADC counts are."""
    median_range = typical_range(signal_mv, sampling_rate)
    if median_range > MAX_MEDIAN_RANGE_MV:
        raise ValueError(
            f"{source}: expected millivolt, got a median range over leads of {median_range:.0f}: probably ADC counts "
            "or microvolt; give the gain in the header, or unit='uV'"
        )
    few = signal_mv[:, :1000]  # rarely whole numbers by chance
    if not np.all(np.isnan(few) | (few == np.round(few))):
        return
    lows, highs = lead_ranges(signal_mv)
    if np.any(highs > lows) and np.all(np.isnan(signal_mv) | (signal_mv == np.round(signal_mv))):
        raise ValueError(
            f"{source}: expected millivolt, got whole numbers only: probably ADC counts; divide by the gain"
        )


@dataclass(frozen=True, eq=False)
class EcgRecord:
    """One ECG and its metadata.

    Args:
        signal_mv: (leads, samples), millivolt, float32; NaN where nothing was recorded. Codes of "no sample", such as
            -32768 counts, become NaN and are flagged `no_sample_codes:LEAD`; leads of an impossible range are flagged
            `lead_out_of_range:LEAD`.
        sampling_rate: Hz.
        lead_names: one name for each lead; converted to standard spelling where they are standard leads.
        record_id: name of the record within its source.
        patient_id: name of the patient; records of one patient must stay in one split.
        age: years.
        sex: `"male"`, `"female"` or None.
        median_beat_mv: (leads, samples), millivolt, at the same rate, if the source has one; NaN outside the beat.
            One that cannot be in millivolt is left out and flagged `median_beat_unusable`.
        report: text written by the reader of the ECG.
        source: file the record came from, for error messages.
        flags: what the source left out or repaired.

    Raises:
        ValueError: shapes, names, rate or amplitudes that are invalid or do not fit together.
    """

    signal_mv: FloatArray
    sampling_rate: float
    lead_names: tuple[str, ...]
    record_id: str = ""
    patient_id: str | None = None
    age: float | None = None
    sex: str | None = None
    median_beat_mv: FloatArray | None = None
    report: str | None = None
    source: str = ""
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = self.source or self.record_id or "EcgRecord"
        set_field = object.__setattr__  # frozen after set-up
        set_field(self, "sampling_rate", check_sampling_rate(self.sampling_rate, f"{where}: sampling_rate"))
        set_field(self, "lead_names", tuple(canonical_lead(name) for name in self.lead_names))
        signal, flags = self._checked_signal(self.signal_mv, f"{where}: signal_mv")
        set_field(self, "signal_mv", signal)
        if self.median_beat_mv is not None:
            beat = self._array(self.median_beat_mv, f"{where}: median_beat_mv")
            try:
                set_field(self, "median_beat_mv", self._checked_signal(beat, f"{where}: median_beat_mv")[0])
            except ValueError:  # the recording is whole without it
                set_field(self, "median_beat_mv", None)
                flags += (MEDIAN_UNUSABLE,)
        set_field(self, "flags", tuple(dict.fromkeys((*self.flags, *flags))))
        self._check_subject(where)

    def _array(self, signal: Any, where: str) -> FloatArray:
        """Returns the signal as float32; rejects a shape that does not fit the lead names."""
        array = np.ascontiguousarray(signal, dtype=np.float32)
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"{where}: expected an array (leads, samples) with values, got shape {array.shape}")
        if len(self.lead_names) != array.shape[0]:
            raise ValueError(
                f"{where}: expected one row for each of {len(self.lead_names)} lead names, got {array.shape}"
            )
        if len({name.upper() for name in self.lead_names}) < len(self.lead_names):
            raise ValueError(f"{where}: expected different lead names, got {', '.join(self.lead_names)}")
        return array

    def _checked_signal(self, signal: Any, where: str) -> tuple[FloatArray, tuple[str, ...]]:
        """The signal without what is none, and the flags of that; rejects what cannot be in millivolt."""
        array = self._array(signal, where)
        if np.isinf(array).any():
            raise ValueError(f"{where}: expected finite values, got infinity")
        if np.isnan(array).all():
            raise ValueError(f"{where}: expected values, got NaN only")
        array, flags = checked_leads(array, self.sampling_rate, self.lead_names)
        _check_millivolt(array, self.sampling_rate, where)
        return array, flags

    def _check_subject(self, where: str) -> None:
        if self.sex not in ("male", "female", None):
            raise ValueError(f"{where}: sex: expected 'male', 'female' or None, got {self.sex!r}")
        if self.age is not None and not 0 <= self.age <= MAX_AGE_YEARS:
            raise ValueError(f"{where}: age: expected years from 0 to {MAX_AGE_YEARS:.0f} or None, got {self.age!r}")

    @property
    def duration_seconds(self) -> float:
        """Length of the recording, seconds."""
        return float(self.signal_mv.shape[1] / self.sampling_rate)

    def quality_flags(self) -> tuple[str, ...]:
        """Flags of a poor signal with their leads: `lead_missing_samples:V1+V2` (NaN), `lead_flat:V3` (one value)."""
        present = [values[~np.isnan(values)] for values in self.signal_mv]
        found = {
            "lead_missing_samples": [values.size < self.signal_mv.shape[1] for values in present],
            "lead_flat": [values.size == 0 or np.ptp(values) == 0 for values in present],
        }
        leads = {
            name: [lead for lead, true in zip(self.lead_names, which, strict=True) if true]
            for name, which in found.items()
        }
        return tuple(f"{name}:{'+'.join(which)}" for name, which in leads.items() if which)

    def as_inputs(self) -> dict[str, Any]:
        """Keyword arguments of the feature extractor: signal, sampling rate, unit, lead names and any median beat."""
        inputs = {
            "signal": self.signal_mv,
            "sampling_rate": self.sampling_rate,
            "unit": "mV",
            "lead_names": list(self.lead_names),
        }
        return inputs if self.median_beat_mv is None else {**inputs, "median_beat": self.median_beat_mv}
