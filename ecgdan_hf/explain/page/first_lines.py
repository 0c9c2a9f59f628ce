"""The lines that every page of an ECG begins with: what is measured, and what the file itself says of the ECG."""

import textwrap
from collections.abc import Iterable

import numpy as np

from ecgdan_hf.data.flag_words import notable
from ecgdan_hf.data.measure.measurements import measure
from ecgdan_hf.data.record import EcgRecord

_PART_LETTERS = 100  # half a line of A4, landscape


def measured_line(record: EcgRecord) -> str:
    """Returns rate, intervals and axis of the recording itself; a dash for what it does not show."""
    try:
        found = measure(record)
    except ValueError:
        return "Measured: nothing; no beat that can be measured"
    text = {name: f"{value:.0f}" if np.isfinite(value) else "–" for name, value in found.items()}
    return (
        f"Measured: rate {text['heart_rate_bpm']}/min, PR {text['pr_ms']} ms, QRS {text['qrs_ms']} ms, "
        f"QT {text['qt_ms']} ms, QTc (Fridericia) {text['qtc_fridericia_ms']} ms, QRS axis {text['qrs_axis_deg']}°"
    )


def report_line(record: EcgRecord) -> str:
    """Returns the statements that the cart or its reader left in the file; empty where there are none.

    They are quoted, not checked: `In the file: Sinus rhythm; Left axis deviation`.
    """
    said = " ".join((record.report or "").split())
    return f"In the file: {said}" if said else ""


def about_recording(record: EcgRecord, flags: Iterable[str]) -> str:
    """Returns one line of paper: what the file says of the ECG, and what may be wrong with the recording."""
    doubts = "; ".join(notable(flags)) or "nothing seems wrong"
    parts = (report_line(record), f"Recording: {doubts}")
    return "   |   ".join(textwrap.shorten(part, _PART_LETTERS, placeholder=" …") for part in parts if part)
