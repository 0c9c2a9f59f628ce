"""Looks at every lead of a recording by itself, wherever a reader ends: `EcgRecord` calls `checked_leads`.

Limits are medians over leads, which a single lead that is none passes. A part that cannot be used becomes NaN or is
cut off, and a flag says so. Imports only the conditioning of signals and the laws of limb leads from the package.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdan_hf.model.conditioning_ecgdan import out_of_range, without_codes
from ecgdan_hf.model.leads_ecgdan import LIMB_LEADS, contradicting_leads

FloatArray = NDArray[np.float32]

NO_SAMPLE = "no_sample_codes"
OUT_OF_RANGE = "lead_out_of_range"
CONTRADICTION = "limb_leads_contradict"
PULSE = "calibration_pulse_cut"

PULSE_MV, HEIGHT_TOLERANCE_MV, STRICT_TOLERANCE_MV = 1.0, 0.15, 0.05  # of the standard pulse; strict: in few leads
PULSE_SECONDS = (0.08, 0.5)  # carts write 0.1 or 0.2 s
PULSE_SEARCH_SECONDS = 2.0  # at either end of the recording
PULSE_EDGE_SECONDS = 0.02
PULSE_TOLERANCE_MV = 0.1  # of its top
MANY_LEADS = 6  # in which a pulse on top of heart beats is told from them; beats of fewer leads may look like one
FLAT_TOLERANCE_MV = 0.03  # of the line beside it


def checked_leads(
    signal_mv: FloatArray, sampling_rate: float, lead_names: Sequence[str]
) -> tuple[FloatArray, tuple[str, ...]]:
    """Returns the signal, (leads, samples) mV, with NaN for what is no sample, and flags with the leads' names.

    Flags: `no_sample_codes` (NaN now), `lead_out_of_range` (kept: the feature extractor leaves such samples out),
    `calibration_pulse_cut:0.9s`, `limb_leads_contradict` (kept).
    """
    signal_mv, coded = without_codes(signal_mv, sampling_rate)
    pulses = _Pulses(signal_mv, sampling_rate, lead_names)
    signal_mv, flags = signal_mv[:, pulses.first : pulses.last], pulses.flags
    found = {NO_SAMPLE: coded, OUT_OF_RANGE: out_of_range(signal_mv)}
    wrong = contradicting_leads(dict(zip(lead_names, signal_mv, strict=True)), sampling_rate)
    flags += (f"{CONTRADICTION}:{'+'.join(wrong)}",) if wrong else ()
    return np.ascontiguousarray(signal_mv), flags + tuple(
        _flag(name, lead_names, which) for name, which in found.items() if which.any()
    )


def _flag(name: str, lead_names: Sequence[str], which: NDArray[np.bool_]) -> str:
    return f"{name}:{'+'.join(lead for lead, true in zip(lead_names, which, strict=True) if true)}"


class _Pulses:
    """Calibration pulses of 1 mV at the ends of a recording, which some carts write into all leads at once.

    No heart raises all leads by the same 1 mV within 20 ms, holds it, and lets it fall as fast. Leads that follow from
    I and II are not looked at: carts write the pulse into them or not.

    Attributes:
        first, last: first sample (inclusive) and last sample (exclusive) of what is left without the pulses and the
            flat line beside them.
        flags: how much was cut off, if anything.
    """

    def __init__(self, signal_mv: FloatArray, sampling_rate: float, lead_names: Sequence[str]) -> None:
        self.first, self.last = 0, signal_mv.shape[1]
        self.flags: tuple[str, ...] = ()
        derived = set(LIMB_LEADS) - {"I", "II"} if {"I", "II"} <= set(lead_names) else set()
        rows = [row for row, name in enumerate(lead_names) if name not in derived]
        reach = min(round(PULSE_SEARCH_SECONDS * sampling_rate), self.last // 3)
        self._rate, self._edge = sampling_rate, max(1, round(PULSE_EDGE_SECONDS * sampling_rate))
        if reach <= 2 * self._edge:
            return
        recorded = [row for row in rows if not np.isnan(signal_mv[row]).all()]
        at_start, at_end = signal_mv[recorded, :reach], signal_mv[recorded, -reach:]
        first, last = self._pulse(at_start[:, ::-1]), self._pulse(at_end)  # a pulse read backwards is a pulse
        if first is not None:
            self.first = reach - first
        if last is not None:
            self.last -= reach - last
        cut = (signal_mv.shape[1] - (self.last - self.first)) / sampling_rate
        if cut:
            self.flags = (f"{PULSE}:{cut:.2g}s",)

    def _pulse(self, part_mv: FloatArray) -> int | None:
        """Where the first pulse in a part, or the flat line before it, begins; None without a pulse."""
        if not len(part_mv) or np.isnan(part_mv).all(axis=1).any():  # leads printed one after another: no pulse of all
            return None
        steps = part_mv[:, self._edge :] - part_mv[:, : -self._edge]
        rises, falls = _steps(steps), _steps(-steps)
        shortest, longest = (round(seconds * self._rate) for seconds in PULSE_SECONDS)
        num_steps = steps.shape[1]
        for rise in rises:
            ends = [
                fall for fall in (*falls, num_steps) if shortest <= fall - rise <= longest
            ]  # or with the recording
            if any(self._is_pulse(part_mv, steps, rise, end) for end in ends):
                flat = (np.abs(part_mv[:, : rise + 1] - part_mv[:, [rise]]) < FLAT_TOLERANCE_MV).all(axis=0)
                return 0 if flat.all() else int(rise + 1 - np.argmin(flat[::-1]))
        return None

    def _is_pulse(self, part_mv: FloatArray, steps: FloatArray, rise: int, fall: int) -> bool:
        """Whether all leads step up and down by the same 1 mV, or hold the same 1 mV in between."""
        top = part_mv[:, rise + self._edge : fall]
        heights = np.median(top, axis=1)
        has_many_leads, has_end = len(part_mv) >= MANY_LEADS, fall < steps.shape[1]
        top_mv, height_mv = (
            (PULSE_TOLERANCE_MV, HEIGHT_TOLERANCE_MV) if has_many_leads else (FLAT_TOLERANCE_MV, STRICT_TOLERANCE_MV)
        )
        is_flat = bool((np.abs(top - heights[:, None]) <= top_mv).mean() > 0.95)
        edges = [steps[:, rise], -steps[:, fall]] if has_end else [steps[:, rise]]
        is_step = all(_is_standard(edge, height_mv) for edge in edges)
        if not has_many_leads:
            return is_flat and is_step and has_end
        return is_step or (is_flat and _is_standard(heights - np.median(part_mv, axis=1), height_mv))


def _steps(steps_mv: FloatArray) -> list[int]:
    """Where all leads, (leads, samples) mV, step up by about 1 mV: the best place of each run of half that or more."""
    high = (steps_mv.min(axis=0) > (PULSE_MV - HEIGHT_TOLERANCE_MV) / 2).astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], high, [0]))))
    runs = zip(edges[::2], edges[1::2], strict=True)
    return [int(a + np.argmin(np.abs(steps_mv[:, a:b] - 1).max(axis=0))) for a, b in runs]


def _is_standard(heights_mv: NDArray[Any], tolerance_mv: float) -> bool:
    """Whether the heights of all leads, (leads,), are those of a standard pulse."""
    return bool(np.abs(heights_mv - PULSE_MV).max() <= tolerance_mv)
