"""Survival curves, calibration by groups, and the entries of `metrics.json` for a survival model.

The most used measures can be imported from here; they are defined in [`concordance`] (Harrell's and Uno's C),
[`absolute_risk`] (AUC, Brier score, observed risk, net benefit) and [`risk_calibration`] (slope, smooth curve).
Competing events are in [`cumulative_incidence`].

`event` is 1 where it happened, 0 where follow-up was censored and 2, 3, ... where another event came first; `time` is
in years since the ECG. Kaplan-Meier, log-rank and C-indices censor competing events; risks do not. Plain functions of
arrays: imports numpy, pandas and scipy, nothing of the network.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2

from ecgdan_hf.evaluation.measures.absolute_risk import brier_score, dynamic_auc, observed_risk, scaled_brier_score
from ecgdan_hf.evaluation.measures.concordance import concordance_index, uno_concordance_index
from ecgdan_hf.evaluation.measures.follow_up import FollowUp, SurvivalCurve
from ecgdan_hf.evaluation.measures.intervals import (
    FloatArray,
    Interval,
    bootstrap_difference,
    bootstrap_interval,
    half_width,
)
from ecgdan_hf.evaluation.measures.risk_calibration import RiskCalibration

__all__ = [
    "Interval",
    "bootstrap_difference",
    "bootstrap_interval",
    "brier_score",
    "calibration",
    "concordance_index",
    "dynamic_auc",
    "kaplan_meier",
    "logrank_p_value",
    "survival_metrics",
    "uno_concordance_index",
]


def kaplan_meier(event: npt.ArrayLike, time: npt.ArrayLike) -> pd.DataFrame:
    r"""Kaplan-Meier survival with 95 % limits on the log(-log) scale.

    With Greenwood's $\sigma^2 = \sum d_u / (n_u (n_u - d_u))$ the limits are
    $S^{\exp(\pm z \sigma / \log S)}$ (Kalbfleisch and Prentice 1980). Where S is 0 or 1 both limits equal S.

    Args:
        event, time: as in [`concordance_index`]. With delayed entry few are at risk early, and the curve is that of
            those who were followed.

    Returns:
        One row per distinct time from 0: `time` (years), `survival`, `low`, `high`, `at_risk` (just before `time`).

    Raises:
        ValueError: what [`FollowUp`] refuses.
    """
    follow_up = FollowUp(event, time)
    curve = follow_up.survival()
    deaths, at_risk = (counts[:, 0] for counts in _counts_by_time(follow_up, np.zeros(len(follow_up), dtype=np.intp)))
    left = np.where(at_risk > deaths, at_risk - deaths, np.inf)  # nobody is left at the last death: S is 0
    error = np.sqrt(np.cumsum(deaths / (at_risk * left)))
    inside = (curve.survival > 0) & (curve.survival < 1)
    log_survival = np.log(np.where(inside, curve.survival, 0.5))
    half = half_width(0.95) * error / -log_survival
    low, high = (np.where(inside, np.exp(log_survival * np.exp(sign * half)), curve.survival) for sign in (1, -1))
    columns = {"survival": curve.survival, "low": low, "high": high}
    table = {"time": np.append(0.0, curve.times)}
    table |= {name: np.append(1.0, values) for name, values in columns.items()}
    first = len(follow_up) if follow_up.entry is None else int((follow_up.entry == 0).sum())
    return pd.DataFrame(table | {"at_risk": np.append(first, at_risk).astype(int)})


def logrank_p_value(event: npt.ArrayLike, time: npt.ArrayLike, group: npt.ArrayLike) -> float:
    r"""P value of the log-rank test that all groups share one survival curve (Mantel 1966).

    At each time, of d events among n at risk, of whom $n_g$ are in group g, $d\, n_g / n$ are expected in g, with the
    hypergeometric covariance. The statistic is the squared excess of all groups but one over that covariance,
    chi-squared with one degree of freedom fewer than groups.

    Args:
        event, time: as in [`concordance_index`].
        group: (n,), label of each record's group.

    Raises:
        ValueError: what [`FollowUp`] refuses, or fewer than two groups.
    """
    follow_up = FollowUp(event, time)
    labels, code = np.unique(np.asarray(group), return_inverse=True)
    if np.shape(group) != follow_up.event.shape or len(labels) < 2:
        raise ValueError(f"group: expected {len(follow_up)} labels of at least two groups, got {len(labels)}")
    deaths, at_risk = _counts_by_time(follow_up, code)
    total, everyone = deaths.sum(axis=1), at_risk.sum(axis=1)
    share = at_risk / everyone[:, None]
    excess = (deaths - total[:, None] * share).sum(axis=0)[1:]
    spread = (total * (everyone - total) / np.maximum(everyone - 1, 1))[:, None] * share
    covariance = (np.diag(spread.sum(axis=0)) - spread.T @ share)[1:, 1:]
    return float(chi2.sf(excess @ np.linalg.pinv(covariance, hermitian=True) @ excess, len(excess)))


def _counts_by_time(follow_up: FollowUp, group: npt.NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """Events at each distinct time, ascending, and records at risk just before it, by group: (times, groups) each."""
    distinct, code = np.unique(follow_up.time, return_inverse=True)
    groups = int(group.max()) + 1
    cell = code * groups + group
    counts = [
        np.bincount(cell, weights, minlength=len(distinct) * groups).reshape(-1, groups).astype(np.float64)
        for weights in (follow_up.event, np.ones_like(follow_up.event))
    ]
    ended: FloatArray = counts[1]
    if follow_up.entry is not None:  # whoever enters at t or later is not at risk at t
        ended = np.concatenate([np.zeros((1, groups)), ended])
        np.subtract.at(ended, (np.searchsorted(distinct, follow_up.entry, side="right"), group), 1)
    at_risk: FloatArray = np.cumsum(ended[::-1], axis=0)[::-1]
    return counts[0], at_risk[-len(distinct) :]


def calibration(
    event: npt.ArrayLike, time: npt.ArrayLike, risk: npt.ArrayLike, horizon_years: float, num_groups: int = 5
) -> pd.DataFrame:
    """Returns predicted and observed risk at a horizon, in groups of equal size by predicted risk.

    Observed risk is one minus Kaplan-Meier, or the cumulative incidence where events compete, so that censoring before
    the horizon is accounted for. Ties in the prediction may leave fewer groups than asked for.

    Args:
        event, time: as in [`concordance_index`].
        risk: (n,), predicted probability of the event within `horizon_years`.
        horizon_years: horizon in years.
        num_groups: number of groups.

    Returns:
        One row per group: `predicted` (mean), `observed`, `low`, `high`, `num_records`, `num_events` by the horizon.
        `observed` is NaN where follow-up of the group ends before the horizon.

    Raises:
        ValueError: what [`FollowUp`] refuses, or a risk outside [0, 1].
    """
    follow_up = FollowUp(event, time)
    events, times, risks = follow_up.codes, follow_up.times, follow_up.risks(risk)
    groups = pd.Series(risks).rank(method="average", pct=True).mul(num_groups).apply(np.ceil).to_numpy()
    rows = []
    for group in np.unique(groups):
        chosen = groups == group
        observed, low, high = _observed(events[chosen], times[chosen], horizon_years)
        rows.append(
            {
                "predicted": float(risks[chosen].mean()),
                "observed": float(observed),
                "low": float(low),
                "high": float(high),
                "num_records": int(chosen.sum()),
                "num_events": int(((events == 1) & (follow_up.time <= horizon_years) & chosen).sum()),
            }
        )
    return pd.DataFrame(rows)


def _observed(event: FloatArray, time: FloatArray, horizon_years: float) -> tuple[float, float, float]:
    """Observed risk of a group with its limits; NaN where follow-up ends before the horizon."""
    follow_up = FollowUp(event, time)
    if follow_up.time.max() < horizon_years:
        return np.nan, np.nan, np.nan
    if not (event > 1).any():
        curve = kaplan_meier(event, time)
        found, low, high = 1 - curve[curve["time"] <= horizon_years].iloc[-1][["survival", "high", "low"]]
        return float(found), float(low), float(high)
    try:
        interval = observed_risk(event, time, horizon_years)
    except ValueError:  # none of them, or all of them, had the event, or some entered late: there are no limits
        found = 1 - float(follow_up.free().at(horizon_years))
        return (found, np.nan, np.nan) if follow_up.entry is not None else (found, found, found)
    return interval.estimate, interval.low, interval.high


def survival_metrics(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    log_hazard: npt.ArrayLike,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
    risks: Mapping[float, npt.ArrayLike] | None = None,
    censoring: SurvivalCurve | None = None,
) -> dict[str, Any]:
    """Returns the entries of `metrics.json` for a survival model: counts, follow-up, C-index, risks at horizons.

    Args:
        event, time, log_hazard: as in [`concordance_index`].
        patient_ids, n, seed: as in [`bootstrap_interval`].
        risks: years -> (n,), predicted probability of the event within so many years; None leaves `horizons` out.
        censoring: survival of censoring, as in [`brier_score`].

    Returns:
        `concordance_index` (the fields of [`Interval`]), `num_records`, `num_events`, `median_follow_up_years`, and,
        with `risks`, `horizons`: a list of what [`_horizon_metrics`] returns.

    Raises:
        ValueError: as [`concordance_index`], [`bootstrap_interval`] and [`_horizon_metrics`].
    """
    interval = bootstrap_interval(concordance_index, event, time, log_hazard, patient_ids=patient_ids, n=n, seed=seed)
    follow_up = FollowUp(event, time)
    found: dict[str, Any] = {
        "concordance_index": interval.as_dict(),
        "num_records": len(follow_up),
        "num_events": int(follow_up.event.sum()),
        **({"num_competing_events": int(follow_up.competing.sum())} if follow_up.competing.any() else {}),
        **({"num_delayed_entry": follow_up.num_delayed} if follow_up.num_delayed else {}),
        "median_follow_up_years": float(np.median(follow_up.time)),
    }
    if risks is not None:
        follow_up.refuse_entry("risks at horizons")
        found["horizons"] = [
            _horizon_metrics(follow_up, log_hazard, risk, years, patient_ids, n, seed, censoring)
            for years, risk in sorted(risks.items())
        ]
    return found


def _horizon_metrics(
    follow_up: FollowUp,
    log_hazard: npt.ArrayLike,
    risk: npt.ArrayLike,
    horizon_years: float,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
    censoring: SurvivalCurve | None = None,
) -> dict[str, Any]:
    """Returns discrimination, calibration and accuracy of the risks (n,) at one horizon within the follow-up.

    The calibration slope and the calibration errors are absent for a constant risk.
    """
    events, times = follow_up.codes, follow_up.time
    predicted, horizon = follow_up.risks(risk), follow_up.horizon(horizon_years)
    options: dict[str, Any] = {"patient_ids": patient_ids, "n": n, "seed": seed}
    concordance = partial(uno_concordance_index, tau_years=horizon, censoring=censoring)
    found: dict[str, Any] = {"horizon_years": horizon, "predicted_risk": float(predicted.mean())}
    found["uno_concordance_index"] = bootstrap_interval(concordance, events, times, log_hazard, **options).as_dict()
    for name, metric in {
        "auc": dynamic_auc,
        "brier_score": brier_score,
        "scaled_brier_score": scaled_brier_score,
    }.items():
        judged = partial(metric, horizon_years=horizon, censoring=censoring)
        found[name] = bootstrap_interval(judged, events, times, predicted, **options).as_dict()
    known = observed_risk(events, times, horizon, patient_ids).as_dict()
    found["observed_risk"] = {name: value for name, value in known.items() if name != "p_value"}
    judged_risks = RiskCalibration(events, times, predicted, horizon, patient_ids, censoring=censoring)
    found["observed_over_expected"] = judged_risks.observed_over_expected().as_dict()
    found["calibration_intercept"] = judged_risks.intercept().as_dict()
    if np.ptp(predicted) > 0:
        found["calibration_slope"] = judged_risks.slope().as_dict()
        found |= judged_risks.errors()
    return found
