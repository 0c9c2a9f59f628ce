"""Cumulative incidence of an event that competing events, such as death, can forestall.

One minus Kaplan-Meier, with competing events taken for censoring, overstates the risk: it answers what would happen if
nobody died of anything else. Plain functions of arrays: imports numpy and pandas alone.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.evaluation.analytic_interval import half_width
from ecgdan_hf.evaluation.bootstrap import FloatArray
from ecgdan_hf.evaluation.follow_up import check_times


def cumulative_incidence(
    event: npt.ArrayLike, time: npt.ArrayLike, event_of_interest: int = 1, level: float = 0.95
) -> pd.DataFrame:
    r"""Aalen-Johansen estimate of the cumulative incidence, with limits on the log(-log) scale.

    $$F_1(t) = \sum_{u \le t} S(u-) \frac{d_{1u}}{n_u}$$

    with S the survival of all events together. Variance by the delta method (Marubini and Valsecchi, Analysing
    Survival Data from Clinical Trials and Observational Studies, 1995, equation 10.12). Ties are taken as they are,
    without jitter. Without competing events this is one minus Kaplan-Meier. O(n log n).

    Args:
        event: (n,), 0 censored, `event_of_interest`, or another positive integer for a competing event.
        time: (n,), years, positive.
        event_of_interest: its code.
        level: coverage.

    Returns:
        One row per distinct time, from 0: `time`, `incidence`, `low`, `high`, `at_risk` (just before `time`).

    Raises:
        ValueError: different lengths, codes that are not integers of at least 0, times that are not positive, or no
            event of interest.

    Examples:
        >>> cumulative_incidence([1, 2, 1, 0], [1.0, 2.0, 3.0, 4.0])["incidence"].tolist()
        [0.0, 0.25, 0.25, 0.5, 0.5]
    """
    codes, times = _check(event, time, event_of_interest)
    distinct, row = np.unique(times, return_inverse=True)
    at_risk = np.cumsum(np.bincount(row)[::-1])[::-1].astype(np.float64)
    any_event = np.bincount(row[codes != 0], minlength=len(distinct)).astype(np.float64)
    ours = np.bincount(row[codes == event_of_interest], minlength=len(distinct)).astype(np.float64)
    before = np.concatenate([[1.0], np.cumprod(1 - any_event / at_risk)[:-1]])
    incidence = np.cumsum(before * ours / at_risk)
    error = np.sqrt(_variance(incidence, before, at_risk, any_event, ours))
    low, high = _limits(incidence, error, level)
    columns = {"time": distinct, "incidence": incidence, "low": low, "high": high}
    table = pd.DataFrame({name: np.append(0.0, values) for name, values in columns.items()})
    return table.assign(at_risk=np.append(len(codes), at_risk).astype(int))


def _check(
    event: npt.ArrayLike, time: npt.ArrayLike, event_of_interest: int
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    codes, times = np.asarray(event, dtype=np.float64), np.asarray(time, dtype=np.float64)
    if codes.ndim != 1 or codes.shape != times.shape or codes.size == 0:
        raise ValueError(f"event and time: expected two arrays of one length, got shapes {codes.shape}, {times.shape}")
    odd = ~(np.isfinite(codes) & (codes >= 0) & (codes == np.floor(codes)))
    if odd.any():
        raise ValueError(f"event: expected 0 (censored) or a positive integer for each kind, got {codes[odd][0]:g}")
    check_times(times)
    if event_of_interest == 0 or not (codes == event_of_interest).any():
        found = sorted({int(code) for code in codes})
        raise ValueError(f"event_of_interest: expected a code that happened, got {event_of_interest} of {found}")
    return codes.astype(np.int64), times


def _variance(
    incidence: FloatArray, before: FloatArray, at_risk: FloatArray, any_event: FloatArray, ours: FloatArray
) -> FloatArray:
    """Of the incidence at each time. The sums over u with F(t) - F(u) inside are opened up into cumulative sums."""
    left = at_risk - any_event
    hazard = np.divide(any_event, at_risk * left, out=np.zeros_like(left), where=left > 0)
    own = before**2 * (at_risk - ours) * ours / at_risk**3
    cross = before * ours / at_risk**2
    spread = incidence**2 * np.cumsum(hazard) - 2 * incidence * np.cumsum(incidence * hazard)
    spread += np.cumsum(incidence**2 * hazard)
    mixed = incidence * np.cumsum(cross) - np.cumsum(incidence * cross)
    variance: FloatArray = np.maximum(spread + np.cumsum(own) - 2 * mixed, 0.0)
    return variance


def _limits(incidence: FloatArray, error: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    inside = (incidence > 0) & (incidence < 1)
    survival = np.where(inside, 1 - incidence, 0.5)
    half = half_width(level) * error / (survival * -np.log(survival))
    low, high = (np.where(inside, 1 - survival ** np.exp(sign * half), incidence) for sign in (-1, 1))
    return low, high
