"""Predicted risks at a horizon: observed risk, Brier score, scaled Brier score, AUC, net benefit.

Inverse probability weights account for censoring: a record censored before the horizon counts through similar records
that were followed. Competing events (codes 2, 3, ... of `event`) are no censoring: such a record does not have the
event by any later time, and the observed risk is the cumulative incidence. Plain functions of arrays: imports numpy
and pandas only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.evaluation.measures.follow_up import FollowUp, SurvivalCurve, check_scores
from ecgdan_hf.evaluation.measures.intervals import AnalyticInterval, FloatArray, Patients, half_width

_THRESHOLDS = tuple(np.round(np.arange(0.01, 0.51, 0.01), 2).tolist())


def observed_risk(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    horizon_years: float,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    level: float = 0.95,
) -> AnalyticInterval:
    r"""Share with the event by a horizon, one minus Kaplan-Meier, or the Aalen-Johansen estimate where events compete.

    The limits are on the log(-log) scale of its complement.

    The standard error is the jackknife's, from pseudo-observations summed by patient; with one record per patient it
    agrees with Greenwood's up to terms of order 1/n. O(n log n).

    Args:
        event: (n,), 1 happened, 0 censored, 2, 3, ... a competing event.
        time: (n,), years, positive.
        horizon_years: at most the last follow-up.
        patient_ids: patient of each record; None takes every record for a patient of its own.
        level: coverage.

    Returns:
        The interval; there is no p value (NaN), since no risk means nothing.

    Raises:
        ValueError: what [`FollowUp`] refuses, or an observed risk of 0 or 1, which has no interval.

    Examples:
        >>> observed_risk([1, 0, 1, 0], [1.0, 2.0, 3.0, 4.0], 3.5).estimate
        0.625
    """
    follow_up = FollowUp(event, time)
    pseudo = follow_up.pseudo_observations(horizon_years)
    survival = float(follow_up.free().at(horizon_years))
    risk = 1 - survival
    if not 0 < risk < 1:
        raise ValueError(
            f"horizon_years: observed risk at {horizon_years:g} years is {risk:g}, which has no interval; take another"
        )
    patients = Patients(patient_ids, len(pseudo))
    error = patients.error((pseudo - pseudo.mean()) / len(pseudo))
    half = half_width(level) * error / (survival * -np.log(survival))
    low, high = (float(1 - survival ** np.exp(sign * half)) for sign in (-1, 1))
    return AnalyticInterval.of(risk, (low, high), level, error, float("nan"), patients)


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
    there is none, G(t-) = G(t) and this is Graf's formula. A record with a competing event by t has no event by t:
    it counts with $p_i^2 / G(t_i-)$ (Schoop, Beyersmann, Schumacher, Binder, Biometrical Journal 53:88-112, 2011).

    Args:
        event, time: as in [`observed_risk`].
        risk: (n,), predicted probability of the event within `horizon_years`.
        horizon_years: t.
        censoring: survival of censoring, `FollowUp.censoring` of, say, the training records; None estimates it on
            these records.

    Raises:
        ValueError: what [`FollowUp`] refuses, a risk outside [0, 1], or G(t-) of 0.

    Examples:
        >>> round(brier_score([1, 1, 0, 1], [1.0, 2.0, 4.0, 5.0], [0.9, 0.5, 0.1, 0.0], horizon_years=3.0), 4)
        0.0675
    """
    follow_up = FollowUp(event, time)
    risks = follow_up.risks(risk)
    cases, _, weights = follow_up.status(horizon_years, censoring)
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
        null_risk: the risk that everybody is given in $\mathrm{BS}_0$; None takes that of [`observed_risk`].

    Raises:
        ValueError: as [`brier_score`], or a null model that is perfect (nobody, or everybody, has the event).
    """
    score = brier_score(event, time, risk, horizon_years, censoring)
    overall = 1 - float(FollowUp(event, time).free().at(horizon_years)) if null_risk is None else null_risk
    null = brier_score(event, time, np.full(np.size(event), overall), horizon_years, censoring)
    if null == 0:
        raise ValueError(
            f"horizon_years: one risk for all, {overall:g}, is already right at {horizon_years:g} years; take another"
        )
    return 1 - score / null


def dynamic_auc(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    score: npt.ArrayLike,
    horizon_years: float,
    censoring: SurvivalCurve | None = None,
) -> float:
    r"""Cumulative/dynamic AUC at a horizon t, cases weighted by the inverse probability of censoring.

    $$\mathrm{AUC}(t) = \frac{\sum_{i: t_i \le t,\, \delta_i = 1} \sum_{j: t_j > t} w_i
    \left(1[s_i > s_j] + \tfrac12 1[s_i = s_j]\right)}{\#\{j: t_j > t\} \sum_{i: t_i \le t,\, \delta_i = 1} w_i},
    \qquad w_i = 1 / G(t_i-)$$

    (Uno, Cai, Tian, Wei, JASA 102:527-537, 2007; Hung and Chiang, Canadian Journal of Statistics 38:8-26, 2010). A
    record censored exactly at t is a control. O(n log n). Records with a competing event by t are controls too, and
    every control is weighted by $1 / G(\min(t_j, t)-)$ (Blanche, Dartigues, Jacqmin-Gadda, Statistics in Medicine
    32:5381-5397, 2013, definition 2).

    Args:
        event: (n,), 1 happened, 0 censored, 2, 3, ... a competing event.
        time: (n,), years, positive.
        score: (n,), log hazard or risk at the horizon; higher means likelier.
        horizon_years: t.
        censoring: survival of censoring, `FollowUp.censoring` of, say, the training records; None estimates it on
            these records.

    Raises:
        ValueError: what [`FollowUp`] refuses, a horizon beyond the last follow-up, no case or no
            control at the horizon, or G(t-) of 0.

    Examples:
        Of the pairs (0, 2), (1, 2) and (0, 3), (1, 3) three are in order.

        >>> dynamic_auc([1, 1, 0, 1], [1.0, 2.0, 4.0, 5.0], [0.9, 0.2, 0.3, 0.1], horizon_years=3.0)
        0.75
    """
    follow_up = FollowUp(event, time)
    scores = check_scores(score, len(follow_up), name="score")
    cases, controls, weights = follow_up.status(horizon_years, censoring)
    if not cases.any() or not controls.any():
        missing = "control" if cases.any() else "case"
        raise ValueError(
            f"horizon_years: no {missing} at {horizon_years:g} years among {len(scores)} records, the AUC does not "
            f"exist; take a {'shorter' if cases.any() else 'longer'} one"
        )
    order = np.argsort(scores[controls], kind="stable")
    opposed, asked, weight = scores[controls][order], scores[cases], weights[cases]
    reached = np.append(0.0, np.cumsum(weights[controls][order]))
    if not follow_up.competing.any():
        reached = np.arange(len(opposed) + 1.0)  # of one weight
    below, through = (reached[np.searchsorted(opposed, asked, side=side)] for side in ("left", "right"))
    return float((weight * (below + through)).sum() / (2 * weight.sum() * reached[-1]))


def decision_curve(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    risk: npt.ArrayLike,
    horizon_years: float,
    thresholds: Sequence[float] = _THRESHOLDS,
) -> pd.DataFrame:
    r"""Net benefit at each threshold probability q, per record.

    $$\mathrm{NB}(q) = \pi_q F_q(t) - \pi_q (1 - F_q(t)) \frac{q}{1 - q}$$

    with $\pi_q$ the share of records whose risk is at least q and $F_q$ the observed risk among them (Vickers, Cronin,
    Elkin, Gönen, BMC Medical Informatics and Decision Making 8:53, 2008). O(n log n) per threshold.

    Args:
        event: (n,), 1 happened, 0 censored.
        time: (n,), years, positive.
        risk: (n,), predicted probability of the event within `horizon_years`.
        horizon_years: t, at most the last follow-up.
        thresholds: probabilities between 0 and 1, exclusive.

    Returns:
        One row per threshold: `threshold`, `model`, `treat_all`, `treat_none` (0), `share_treated`. `model` is NaN
        where follow-up of the treated ends before the horizon without all of them having had the event.

    Raises:
        ValueError: what [`FollowUp`] refuses, delayed entry, a risk outside [0, 1], or a threshold outside (0, 1).

    Examples:
        >>> decision_curve([1, 0], [1.0, 5.0], [0.9, 0.2], 4.0, thresholds=[0.5])["model"].tolist()
        [0.5]
    """
    follow_up = FollowUp(event, time)
    follow_up.refuse_entry("net benefit")
    risks, horizon = follow_up.risks(risk), follow_up.horizon(horizon_years)
    cuts = np.asarray(thresholds, dtype=np.float64)
    if cuts.ndim != 1 or not ((cuts > 0) & (cuts < 1)).all():
        raise ValueError(f"thresholds: expected probabilities between 0 and 1, exclusive, got {list(thresholds)}")
    events, times = follow_up.codes, follow_up.time
    everybody = _risk_by(events, times, horizon)
    rows = []
    for cut in cuts:
        treated, odds = risks >= cut, cut / (1 - cut)
        share = float(treated.mean())
        observed = _risk_by(events[treated], times[treated], horizon) if share else 0.0
        rows.append((cut, share * _benefit(observed, odds), _benefit(everybody, odds), 0.0, share))
    return pd.DataFrame(rows, columns=["threshold", "model", "treat_all", "treat_none", "share_treated"])


def _benefit(risk: float, odds: float) -> float:
    return risk - (1 - risk) * odds


def _risk_by(events: FloatArray, times: FloatArray, horizon: float) -> float:
    """Observed risk at a horizon; NaN where follow-up does not reach it and not everybody had an event before."""
    followed = times.max() >= horizon or (events[times == times.max()] > 0).all()
    return 1 - float(FollowUp(events, times).free().at(horizon)) if followed else float("nan")
