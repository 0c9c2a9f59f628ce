"""How right predicted risks at a horizon are: observed risk, Brier score and its integral, share explained.

Censoring is weighed out: who is censored before the horizon counts through those like them who were not. Plain
functions of arrays: imports numpy alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdan_hf.evaluation.measures.analytic_interval import AnalyticInterval, clustered_error, half_width
from ecgdan_hf.evaluation.measures.bootstrap import FloatArray
from ecgdan_hf.evaluation.measures.dynamic_auc import check_horizons
from ecgdan_hf.evaluation.measures.follow_up import (
    SurvivalCurve,
    censoring_survival,
    check_horizon,
    check_outcomes,
    check_risks,
    product_limit,
    pseudo_observations,
    status_weights,
)


def observed_risk(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    horizon_years: float,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    level: float = 0.95,
) -> AnalyticInterval:
    r"""Share with the event by a horizon, one minus Kaplan-Meier, with limits on the log(-log) scale.

    The standard error is the jackknife's, from pseudo-observations summed by patient; with one record per patient it
    agrees with Greenwood's up to terms of order 1/n. O(n log n).

    Args:
        event: (n,), 1 happened, 0 censored.
        time: (n,), years, positive.
        horizon_years: at most the last follow-up.
        patient_ids: patient of each record; None takes every record for a patient of its own.
        level: coverage.

    Returns:
        The interval; there is no p value (NaN), since no risk means nothing.

    Raises:
        ValueError: what the checks of [`follow_up`] refuse, or an observed risk of 0 or 1, which has no interval.

    Examples:
        >>> observed_risk([1, 0, 1, 0], [1.0, 2.0, 3.0, 4.0], 3.5).estimate
        0.625
    """
    events, times = check_outcomes(event, time)
    pseudo = pseudo_observations(events, times, horizon_years)
    survival = float(product_limit(events, times).at(horizon_years))
    risk = 1 - survival
    if not 0 < risk < 1:
        raise ValueError(
            f"horizon_years: observed risk at {horizon_years:g} years is {risk:g}, which has no interval; take another"
        )
    error, patients = clustered_error((pseudo - pseudo.mean()) / len(pseudo), patient_ids)
    half = half_width(level) * error / (survival * -np.log(survival))
    low, high = (float(1 - survival ** np.exp(sign * half)) for sign in (-1, 1))
    return AnalyticInterval(risk, low, high, level, error, float("nan"), len(events), patients)


def brier_score(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    risk: npt.ArrayLike,
    horizon_years: float,
    censoring: SurvivalCurve | None = None,
) -> float:
    r"""Brier score at a horizon t: squared error of the risk, weighted for censoring. 0 is perfect. O(n log n).

    $$\mathrm{BS}(t) = \frac1n \sum_i \frac{(1 - p_i)^2\, 1[t_i \le t, \delta_i = 1]}{G(t_i-)}
    + \frac{p_i^2\, 1[t_i > t]}{G(t-)}$$

    (Graf, Schmoor, Sauerbrei, Schumacher, Statistics in Medicine 18:2529-2545, 1999; left limits as in Gerds and
    Schumacher, Biometrical Journal 48:1029-1040, 2006). A record censored exactly at t counts as $t_i > t$; where
    there is none, G(t-) = G(t) and this is Graf's formula.

    Args:
        event, time: as in [`observed_risk`].
        risk: (n,), predicted probability of the event within `horizon_years`.
        horizon_years: t.
        censoring: survival of censoring, from `follow_up.censoring_survival` of, say, the training records; None
            estimates it on these records.

    Raises:
        ValueError: what the checks of [`follow_up`] refuse, a risk outside [0, 1], or G(t-) of 0.

    Examples:
        >>> round(brier_score([1, 1, 0, 1], [1.0, 2.0, 4.0, 5.0], [0.9, 0.5, 0.1, 0.0], horizon_years=3.0), 4)
        0.0675
    """
    events, times = check_outcomes(event, time)
    risks, horizon = check_risks(risk, len(events)), check_horizon(horizon_years, times)
    cases, _, weights = status_weights(events, times, horizon, censoring)
    return float((weights * (cases - risks) ** 2).mean())


def scaled_brier_score(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    risk: npt.ArrayLike,
    horizon_years: float,
    censoring: SurvivalCurve | None = None,
    null_risk: float | None = None,
) -> float:
    r"""Index of prediction accuracy: $1 - \mathrm{BS}(t) / \mathrm{BS}_0(t)$; 0 for one risk for all, 1 is perfect.

    (Kattan and Gerds, Diagnostic and Prognostic Research 2:7, 2018.)

    Args:
        event, time, risk, horizon_years, censoring: as in [`brier_score`].
        null_risk: the risk that everybody is given in $\mathrm{BS}_0$; None takes the observed risk (Kaplan-Meier).

    Raises:
        ValueError: as [`brier_score`], or a null model that is perfect (nobody, or everybody, has the event).
    """
    events, times = check_outcomes(event, time)
    score = brier_score(events, times, risk, horizon_years, censoring)
    overall = 1 - float(product_limit(events, times).at(horizon_years)) if null_risk is None else null_risk
    null = brier_score(events, times, np.full(len(events), overall), horizon_years, censoring)
    if null == 0:
        raise ValueError(
            f"horizon_years: one risk for all, {overall:g}, is already right at {horizon_years:g} years; take another"
        )
    return 1 - score / null


def integrated_brier_score(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    risks: npt.ArrayLike,
    horizons_years: Sequence[float],
    censoring: SurvivalCurve | None = None,
) -> float:
    """Mean Brier score between the first and the last horizon, by the trapezoidal rule.

    Args:
        event, time, censoring: as in [`brier_score`].
        risks: (n, horizons), predicted probability of the event within each horizon.
        horizons_years: (horizons,), ascending, at least two.

    Raises:
        ValueError: as [`brier_score`], risks of another shape, or horizons that do not ascend.
    """
    events, times = check_outcomes(event, time)
    horizons = check_horizons(horizons_years, times)
    columns: FloatArray = np.asarray(risks, dtype=np.float64)
    if len(horizons) < 2 or columns.shape != (len(events), len(horizons)):
        raise ValueError(
            f"risks: expected shape ({len(events)}, horizons) with two horizons or more, got {columns.shape} for "
            f"{len(horizons)}"
        )
    curve = censoring_survival(events, times) if censoring is None else censoring
    scores = np.array([brier_score(events, times, columns[:, k], t, curve) for k, t in enumerate(horizons)])
    widths = np.diff(horizons)
    return float((widths * (scores[1:] + scores[:-1]) / 2).sum() / widths.sum())
