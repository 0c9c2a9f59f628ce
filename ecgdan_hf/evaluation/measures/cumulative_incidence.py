"""Cumulative incidence of an event in the presence of competing events such as death.

One minus Kaplan-Meier with competing events as censoring overestimates the risk: it is the risk if nobody died of
another cause. The estimator is `model.risk_ecgdan.aalen_johansen`; this module makes a table of it.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import FloatArray, half_width
from ecgdan_hf.model.risk_ecgdan import aalen_johansen
from ecgdan_hf.model.survival_ecgdan import at_years


def aalen_johansen_table(
    event: npt.ArrayLike, time: npt.ArrayLike, event_of_interest: int = 1, level: float = 0.95
) -> pd.DataFrame:
    r"""Returns the Aalen-Johansen estimate of the cumulative incidence, with limits on the log(-log) scale.

    $$F_1(t) = \sum_{u \le t} S(u-) \frac{d_{1u}}{n_u}$$

    with S the survival of all events together. Ties are taken as they are, without jitter. Without competing events
    this is one minus Kaplan-Meier. O(n log n).

    Args:
        event: (n,), 0 censored, `event_of_interest`, or another positive integer for a competing event.
        time: (n,), years, positive, or (n, 2) with the entry, as [`FollowUp`] takes it.
        event_of_interest: its code.
        level: coverage.

    Returns:
        One row per distinct time, from 0: `time`, `incidence`, `low`, `high`, `at_risk` (just before `time`).

    Raises:
        ValueError: different lengths, codes that are not integers of at least 0, times that are not positive, or no
            event of interest.

    Examples:
        >>> aalen_johansen_table([1, 2, 1, 0], [1.0, 2.0, 3.0, 4.0])["incidence"].tolist()
        [0.0, 0.25, 0.25, 0.5, 0.5]
    """
    codes, follow_up = _check(event, time, event_of_interest)
    cause, times = np.where(codes == event_of_interest, 1, np.where(codes > 0, 2, 0)), follow_up.time
    entry = np.zeros_like(times) if follow_up.entry is None else follow_up.entry
    given = None if follow_up.entry is None else torch.from_numpy(entry.copy())
    found = aalen_johansen(torch.from_numpy(cause), torch.from_numpy(times.copy()), entry=given)
    distinct = np.unique(times)
    knots = np.append(0.0, distinct)
    years = torch.from_numpy(knots)
    incidence, error = (at_years(found.times, values[0], years, before=0.0).numpy() for values in found[1:])
    low, high = _limits(incidence, error, level)
    entered, ended = (np.searchsorted(np.sort(values), distinct) for values in (entry, times))
    at_risk = np.append((entry == 0).sum(), entered - ended)
    return pd.DataFrame({"time": knots, "incidence": incidence, "low": low, "high": high, "at_risk": at_risk})


def _check(
    event: npt.ArrayLike, time: npt.ArrayLike, event_of_interest: int
) -> tuple[npt.NDArray[np.int64], FollowUp]:
    codes = np.asarray(event, dtype=np.float64)
    odd = ~(np.isfinite(codes) & (codes >= 0) & (codes == np.floor(codes)))
    if odd.any():
        raise ValueError(f"event: expected 0 (censored) or a positive integer for each kind, got {codes[odd][0]:g}")
    follow_up = FollowUp(codes > 0, time)
    if event_of_interest == 0 or not (codes == event_of_interest).any():
        found = sorted({int(code) for code in codes})
        raise ValueError(f"event_of_interest: expected a code that happened, got {event_of_interest} of {found}")
    return codes.astype(np.int64), follow_up


def _limits(incidence: FloatArray, error: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    inside = (incidence > 0) & (incidence < 1 - 1e-12)  # where all had the event, rounding leaves a trace of survival
    survival = np.where(inside, 1 - incidence, 0.5)
    half = half_width(level) * error / (survival * -np.log(survival))
    low, high = (np.where(inside, 1 - survival ** np.exp(sign * half), incidence) for sign in (-1, 1))
    return low, high
