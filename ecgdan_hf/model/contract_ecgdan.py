"""The words of the physical contract between a recording and a network: leads, filters and what may be chosen.

Travels with the weights: imports no library, so that recordings are read and prepared without transformers.
"""

import math
from collections.abc import Sequence
from typing import Any

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
DEFAULT_FILTER: dict[str, float | None] = {"highpass_hz": 0.5, "lowpass_hz": None, "powerline_hz": 50.0}
WINDOW_RULES = ("mean", "max", "share")
"""One number of all windows of a long recording: their mean, the largest, or the share at or above the threshold."""
_MIN_LEAD_SHARE_FOR_THRESHOLDS = 0.5

CHOICES: dict[str, tuple[str, ...]] = {
    "input_kind": ("median_beat", "rhythm"),
    "page_layout": ("whole", "3x4"),
    "unit": ("mV",),
    "normalization": ("per_lead_zscore", "global"),
    "trunk": ("paper", "light"),
    "lead_layout": ("lead_true", "reference"),
    "attention_order": ("parallel", "sequential"),
    "dropout_scope": ("element", "batch"),
    "alignment_objective": ("clip", "siglip", "cosine", "statements"),
    "ties": ("efron", "breslow"),
    "hazard": ("cox", "discrete"),
}


def check_windows(seconds: Any, step_seconds: Any, rule: Any) -> None:
    """Raises ValueError for windows of a long recording that are not above zero, or another rule."""
    lengths = (seconds, step_seconds)
    if not all(isinstance(length, int | float) and 0 < length < math.inf for length in lengths):
        raise ValueError(f"window, step: expected seconds above zero, got {seconds} and {step_seconds}")
    if rule not in WINDOW_RULES:
        raise ValueError(f"rule: expected one of {', '.join(WINDOW_RULES)}, got {rule!r}")


def thresholds_hold(num_leads: int, looked_at: Sequence[str]) -> bool:
    """Whether thresholds can be used of a record with so many of the leads that a network looks at; see the config."""
    return num_leads >= _MIN_LEAD_SHARE_FOR_THRESHOLDS * len(looked_at)


def endpoint_text(endpoint: str, is_simulated: bool) -> str:
    """The event in words, with "simulated" in front where the follow-up was simulated."""
    return f"simulated {endpoint}" if is_simulated and "simulated" not in endpoint else endpoint
