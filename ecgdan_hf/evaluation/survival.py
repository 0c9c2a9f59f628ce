"""How well a log hazard orders and predicts survival: Harrell's C, Kaplan-Meier, calibration, intervals.

`event` is 1 where it happened and 0 where follow-up was censored; `time` is in years since the ECG. Plain functions of
arrays: imports numpy, pandas and lifelines, nothing of the network.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.evaluation.bootstrap import FloatArray, Interval, bootstrap_difference, bootstrap_interval

__all__ = [
    "Interval",
    "bootstrap_difference",
    "bootstrap_interval",
    "calibration",
    "check_outcomes",
    "concordance_index",
    "kaplan_meier",
    "logrank_p_value",
    "survival_metrics",
]


def check_outcomes(event: npt.ArrayLike, time: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """`event` and `time` as float arrays of one length.

    Raises:
        ValueError: different lengths, an event that is not 0 or 1, or a time that is not finite and positive.
    """
    events, times = np.asarray(event, dtype=np.float64), np.asarray(time, dtype=np.float64)
    if events.ndim != 1 or events.shape != times.shape:
        raise ValueError(
            f"event and time: expected two arrays of one length, got shapes {events.shape} and {times.shape}"
        )
    if events.size == 0:
        raise ValueError("event and time: expected at least one record, got none")
    if not np.isin(events, (0.0, 1.0)).all():
        bad = events[~np.isin(events, (0.0, 1.0))][0]
        raise ValueError(f"event: expected 1 (happened) or 0 (censored), got {bad:g}")
    unusable = ~(np.isfinite(times) & (times > 0))
    if unusable.any():
        row = int(np.flatnonzero(unusable)[0])
        raise ValueError(
            f"time: expected positive years, got {times[row]:g} in row {row} ({int(unusable.sum())} such rows)"
        )
    return events, times


def concordance_index(event: npt.ArrayLike, time: npt.ArrayLike, log_hazard: npt.ArrayLike) -> float:
    r"""Harrell's concordance index (Harrell, Lee, Mark, Statistics in Medicine 15:361-387, 1996).

    $$C = \frac{\sum_{(i,j)} 1[s_i > s_j] + \tfrac12 1[s_i = s_j]}{\#(i,j)}$$

    over pairs in which i had the event and j was then still at risk: $t_j > t_i$, or $t_j = t_i$ with j censored. Two
    events at one time are not a pair. Agrees with `lifelines.utils.concordance_index(time, -log_hazard, event)`.
    O(n log^2 n).

    Args:
        event: (n,), 1 happened, 0 censored.
        time: (n,), years, positive.
        log_hazard: (n,), higher means earlier; any score that orders risk will do.

    Raises:
        ValueError: what [`check_outcomes`] refuses, a score that is not finite, no event, or no comparable pair.

    Examples:
        Three pairs can be compared, (0, 1), (0, 2) and (1, 2); the second record is ranked last: two are right.

        >>> concordance_index([1, 1, 0], [1.0, 2.0, 3.0], [0.9, 0.1, 0.5])
        0.6666666666666666
    """
    events, times = check_outcomes(event, time)
    scores = _check_scores(log_hazard, events, times)
    # Ranks of (time, censored): j is at risk at i's event exactly if its rank is higher.
    _, order = np.unique(times, return_inverse=True)
    order = 2 * order + (events == 0)
    _, rank = np.unique(scores, return_inverse=True)
    happened = events == 1
    lower, tied, pairs = _count_pairs(order.astype(np.int64), rank.astype(np.int64), happened)
    if pairs == 0:
        raise ValueError(f"event and time: no comparable pair among {len(events)} records, the C-index does not exist")
    return (lower + tied / 2) / pairs


def kaplan_meier(event: npt.ArrayLike, time: npt.ArrayLike) -> pd.DataFrame:
    """Kaplan-Meier survival by lifelines, with 95 % limits on the log(-log) scale.

    Args:
        event, time: as in [`concordance_index`].

    Returns:
        One row per distinct time from 0: `time` (years), `survival`, `low`, `high`, `at_risk` (just before `time`).

    Raises:
        ValueError: what [`check_outcomes`] refuses.
    """
    from lifelines import KaplanMeierFitter

    events, times = check_outcomes(event, time)
    fitter = KaplanMeierFitter().fit(times, events)
    limits = fitter.confidence_interval_
    return pd.DataFrame(
        {
            "time": fitter.survival_function_.index.to_numpy(),
            "survival": fitter.survival_function_.iloc[:, 0].to_numpy(),
            "low": limits.iloc[:, 0].to_numpy(),
            "high": limits.iloc[:, 1].to_numpy(),
            "at_risk": fitter.event_table["at_risk"].to_numpy().astype(int),
        }
    )


def logrank_p_value(event: npt.ArrayLike, time: npt.ArrayLike, group: npt.ArrayLike) -> float:
    """P value of the log-rank test that all groups share one survival curve (lifelines).

    Args:
        event, time: as in [`concordance_index`].
        group: (n,), label of each record's group.

    Raises:
        ValueError: what [`check_outcomes`] refuses, or fewer than two groups.
    """
    from lifelines.statistics import multivariate_logrank_test

    events, times = check_outcomes(event, time)
    groups = np.asarray(group)
    if groups.shape != events.shape or len(np.unique(groups)) < 2:
        raise ValueError(f"group: expected {len(events)} labels of at least two groups, got {len(np.unique(groups))}")
    return float(multivariate_logrank_test(times, groups, events).p_value)


def calibration(
    event: npt.ArrayLike, time: npt.ArrayLike, risk: npt.ArrayLike, horizon_years: float, num_groups: int = 5
) -> pd.DataFrame:
    """Predicted beside observed risk at a horizon, in groups of equal size by predicted risk.

    Observed risk is one minus Kaplan-Meier, so that censoring before the horizon is accounted for. Ties in the
    prediction may leave fewer groups than asked for.

    Args:
        event, time: as in [`concordance_index`].
        risk: (n,), predicted probability of the event within `horizon_years`.
        horizon_years: horizon in years.
        num_groups: number of groups.

    Returns:
        One row per group: `predicted` (mean), `observed`, `low`, `high`, `num_records`, `num_events` by the horizon.
        `observed` is NaN where follow-up of the group ends before the horizon.

    Raises:
        ValueError: what [`check_outcomes`] refuses, or a risk outside [0, 1].
    """
    events, times = check_outcomes(event, time)
    risks = _check_scores(risk, events, times, name="risk", needs_event=False)
    if risks.min() < 0 or risks.max() > 1:
        raise ValueError(f"risk: expected probabilities, got {risks.min():g} to {risks.max():g}")
    groups = pd.Series(risks).rank(method="average", pct=True).mul(num_groups).apply(np.ceil).to_numpy()
    rows = []
    for group in np.unique(groups):
        chosen = groups == group
        curve = kaplan_meier(events[chosen], times[chosen])
        at_horizon = curve[curve["time"] <= horizon_years].iloc[-1][["survival", "high", "low"]]
        observed, low, high = 1 - at_horizon if times[chosen].max() >= horizon_years else [np.nan] * 3
        rows.append(
            {
                "predicted": float(risks[chosen].mean()),
                "observed": float(observed),
                "low": float(low),
                "high": float(high),
                "num_records": int(chosen.sum()),
                "num_events": int(((events == 1) & (times <= horizon_years) & chosen).sum()),
            }
        )
    return pd.DataFrame(rows)


def survival_metrics(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    log_hazard: npt.ArrayLike,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """What `metrics.json` says of a survival model: counts, follow-up, C-index with its interval.

    Args:
        event, time, log_hazard: as in [`concordance_index`].
        patient_ids, n, seed: as in [`bootstrap_interval`].

    Returns:
        `concordance_index` (the fields of [`Interval`]), `num_records`, `num_events`, `median_follow_up_years`.

    Raises:
        ValueError: as [`concordance_index`] and [`bootstrap_interval`].
    """
    interval = bootstrap_interval(concordance_index, event, time, log_hazard, patient_ids=patient_ids, n=n, seed=seed)
    events, times = check_outcomes(event, time)
    return {
        "concordance_index": interval.as_dict(),
        "num_records": len(events),
        "num_events": int(events.sum()),
        "median_follow_up_years": float(np.median(times)),
    }


def _check_scores(
    scores: npt.ArrayLike, events: FloatArray, times: FloatArray, name: str = "log_hazard", needs_event: bool = True
) -> FloatArray:
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != times.shape:
        raise ValueError(f"{name}: expected {len(times)} values, one per record, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite values, got {int((~np.isfinite(values)).sum())} NaN or infinite")
    if needs_event and not events.any():
        raise ValueError(f"event: no event among {len(events)} records, the C-index does not exist")
    return values


def _count_pairs(
    order: npt.NDArray[np.int64], rank: npt.NDArray[np.int64], happened: npt.NDArray[np.bool_]
) -> tuple[int, int, int]:
    """Pairs (i with the event, j later in `order`) with a lower and with a tied `rank` of j, and all of them.

    Two different integers first differ at one bit: the pair is counted there, among the numbers that share the bits
    above it, by binary search in the ranks of those that have the bit set.
    """
    lower = tied = pairs = 0
    width = int(rank.max()) + 1
    for bit in range(int(order.max()).bit_length()):
        block = (order >> (bit + 1)) * width
        has_bit = (order >> bit) & 1 == 1
        later = np.sort(block[has_bit] + rank[has_bit])
        asks = happened & ~has_bit
        start = np.searchsorted(later, block[asks])
        below = np.searchsorted(later, block[asks] + rank[asks])
        through = np.searchsorted(later, block[asks] + rank[asks], side="right")
        end = np.searchsorted(later, block[asks] + width)
        lower += int((below - start).sum())
        tied += int((through - below).sum())
        pairs += int((end - start).sum())
    return lower, tied, pairs
