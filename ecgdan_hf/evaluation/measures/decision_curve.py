"""Net benefit of acting on a predicted risk at a horizon, beside acting on everybody and on nobody.

Plain functions of arrays: imports numpy and pandas alone.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.evaluation.measures.bootstrap import FloatArray
from ecgdan_hf.evaluation.measures.follow_up import check_horizon, check_outcomes, check_risks

DEFAULT_THRESHOLDS = tuple(np.round(np.arange(0.01, 0.51, 0.01), 2).tolist())


def decision_curve(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    risk: npt.ArrayLike,
    horizon_years: float,
    thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
) -> pd.DataFrame:
    r"""Net benefit at each threshold probability q, per record.

    $$\mathrm{NB}(q) = \pi_q F_q(t) - \pi_q (1 - F_q(t)) \frac{q}{1 - q}$$

    with $\pi_q$ the share of records whose risk is at least q and $F_q$ one minus Kaplan-Meier among them (Vickers,
    Cronin, Elkin, Gönen, BMC Medical Informatics and Decision Making 8:53, 2008). O(n) per threshold.

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
        ValueError: what the checks of [`follow_up`] refuse, a risk outside [0, 1], or a threshold outside (0, 1).

    Examples:
        >>> decision_curve([1, 0], [1.0, 5.0], [0.9, 0.2], 4.0, thresholds=[0.5])["model"].tolist()
        [0.5]
    """
    events, times = check_outcomes(event, time)
    risks, horizon = check_risks(risk, len(events)), check_horizon(horizon_years, times)
    cuts = np.asarray(thresholds, dtype=np.float64)
    if cuts.ndim != 1 or not ((cuts > 0) & (cuts < 1)).all():
        raise ValueError(f"thresholds: expected probabilities between 0 and 1, exclusive, got {list(thresholds)}")
    order = np.argsort(times, kind="stable")
    events, times, risks = events[order], times[order], risks[order]
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
    """One minus Kaplan-Meier at a horizon, of times in ascending order; NaN where follow-up does not reach it."""
    happened = np.flatnonzero((events == 1) & (times <= horizon))
    first = np.searchsorted(times, times[happened])
    deaths = np.bincount(first, minlength=1)[first] if len(first) else np.ones(0)
    # An event among d at one time, n at risk: d factors (1 - d/n)^(1/d) make up the step of that time.
    survival = float(np.prod((1 - deaths / (len(times) - first)) ** (1 / deaths)))
    return 1 - survival if times[-1] >= horizon or survival == 0 else float("nan")
