"""How well a log hazard orders and predicts survival: curves, groups, and what `metrics.json` says.

The measures live in files of their own and the most used are named here again: Harrell's and Uno's C in
[`concordance`], AUC at a year in [`dynamic_auc`], Brier score and observed risk in [`absolute_risk`], slope and smooth
curve in [`risk_calibration`], net benefit in [`decision_curve`], competing events in [`cumulative_incidence`].

`event` is 1 where it happened and 0 where follow-up was censored; `time` is in years since the ECG. Plain functions of
arrays: imports numpy, pandas and lifelines, nothing of the network.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.evaluation.measures.absolute_risk import brier_score, observed_risk, scaled_brier_score
from ecgdan_hf.evaluation.measures.bootstrap import Interval, bootstrap_difference, bootstrap_interval
from ecgdan_hf.evaluation.measures.concordance import concordance_index, uno_concordance_index
from ecgdan_hf.evaluation.measures.dynamic_auc import dynamic_auc
from ecgdan_hf.evaluation.measures.follow_up import SurvivalCurve, check_horizon, check_outcomes, check_risks
from ecgdan_hf.evaluation.measures.risk_calibration import (
    calibration_errors,
    calibration_intercept,
    calibration_slope,
    observed_over_expected,
)

__all__ = [
    "Interval",
    "bootstrap_difference",
    "bootstrap_interval",
    "brier_score",
    "calibration",
    "check_outcomes",
    "concordance_index",
    "dynamic_auc",
    "kaplan_meier",
    "logrank_p_value",
    "survival_metrics",
    "uno_concordance_index",
]


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
    risks = check_risks(risk, len(events))
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
    risks: Mapping[float, npt.ArrayLike] | None = None,
    censoring: SurvivalCurve | None = None,
) -> dict[str, Any]:
    """What `metrics.json` says of a survival model: counts, follow-up, C-index with its interval, risks at horizons.

    Args:
        event, time, log_hazard: as in [`concordance_index`].
        patient_ids, n, seed: as in [`bootstrap_interval`].
        risks: years -> (n,), predicted probability of the event within so many years; None leaves `horizons` out.
        censoring: survival of censoring, as in [`brier_score`].

    Returns:
        `concordance_index` (the fields of [`Interval`]), `num_records`, `num_events`, `median_follow_up_years`, and,
        with `risks`, `horizons`: a list of what [`horizon_metrics`] returns.

    Raises:
        ValueError: as [`concordance_index`], [`bootstrap_interval`] and [`horizon_metrics`].
    """
    interval = bootstrap_interval(concordance_index, event, time, log_hazard, patient_ids=patient_ids, n=n, seed=seed)
    events, times = check_outcomes(event, time)
    found: dict[str, Any] = {
        "concordance_index": interval.as_dict(),
        "num_records": len(events),
        "num_events": int(events.sum()),
        "median_follow_up_years": float(np.median(times)),
    }
    if risks is not None:
        found["horizons"] = [
            horizon_metrics(events, times, log_hazard, risk, years, patient_ids, n, seed, censoring)
            for years, risk in sorted(risks.items())
        ]
    return found


def horizon_metrics(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    log_hazard: npt.ArrayLike,
    risk: npt.ArrayLike,
    horizon_years: float,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
    censoring: SurvivalCurve | None = None,
) -> dict[str, Any]:
    """Discrimination, calibration and accuracy of the risks at one horizon.

    Args:
        event, time, log_hazard, patient_ids, n, seed, censoring: as in [`survival_metrics`].
        risk: (n,), predicted probability of the event within `horizon_years`.
        horizon_years: at most the last follow-up.

    Returns:
        `horizon_years`, `predicted_risk` (mean); with the fields of a bootstrap [`Interval`]
        `uno_concordance_index` (events before the horizon), `auc`, `brier_score`, `scaled_brier_score`; with those of
        an `AnalyticInterval` `observed_risk`, `observed_over_expected`, `calibration_slope`, `calibration_intercept`;
        and `ici`, `e50`, `e90`, `emax`. Calibration entries are left out where there is one risk for all.

    Raises:
        ValueError: what these functions refuse.
    """
    events, times = check_outcomes(event, time)
    predicted, horizon = check_risks(risk, len(events)), check_horizon(horizon_years, times)
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
    truth = events, times, predicted, horizon
    found["observed_over_expected"] = observed_over_expected(*truth, patient_ids).as_dict()
    found["calibration_intercept"] = calibration_intercept(*truth, patient_ids, censoring=censoring).as_dict()
    if np.ptp(predicted) > 0:
        found["calibration_slope"] = calibration_slope(*truth, patient_ids, censoring=censoring).as_dict()
        found |= calibration_errors(*truth, censoring)
    return found
