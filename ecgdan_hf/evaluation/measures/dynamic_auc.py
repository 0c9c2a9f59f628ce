"""Discrimination at a given year: the cumulative/dynamic area under the ROC curve under censoring.

Cases are the records with the event by t, controls those known to be free of it at t. Plain functions of arrays:
imports numpy alone.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ecgdan_hf.evaluation.measures.bootstrap import FloatArray
from ecgdan_hf.evaluation.measures.follow_up import (
    SurvivalCurve,
    censoring_survival,
    check_horizon,
    check_outcomes,
    check_scores,
    product_limit,
    status_weights,
)


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
    record censored exactly at t is a control. O(n log n).

    Args:
        event: (n,), 1 happened, 0 censored.
        time: (n,), years, positive.
        score: (n,), log hazard or risk at the horizon; higher means likelier.
        horizon_years: t.
        censoring: survival of censoring, from `follow_up.censoring_survival` of, say, the training records; None
            estimates it on these records.

    Raises:
        ValueError: what the checks of [`follow_up`] refuse, a horizon beyond the last follow-up, no case or no
            control at the horizon, or G(t-) of 0.

    Examples:
        Of the pairs (0, 2), (1, 2) and (0, 3), (1, 3) three are in order.

        >>> dynamic_auc([1, 1, 0, 1], [1.0, 2.0, 4.0, 5.0], [0.9, 0.2, 0.3, 0.1], horizon_years=3.0)
        0.75
    """
    events, times = check_outcomes(event, time)
    scores, horizon = check_scores(score, len(events), name="score"), check_horizon(horizon_years, times)
    cases, controls, weights = status_weights(events, times, horizon, censoring)
    if not cases.any() or not controls.any():
        missing = "control" if cases.any() else "case"
        raise ValueError(
            f"horizon_years: no {missing} at {horizon:g} years among {len(events)} records, the AUC does not exist; "
            f"take a {'shorter' if cases.any() else 'longer'} one"
        )
    opposed, asked = np.sort(scores[controls]), np.sort(scores[cases])
    weight = weights[cases][np.argsort(scores[cases], kind="stable")]
    below, through = np.searchsorted(opposed, asked), np.searchsorted(opposed, asked, side="right")
    return float((weight * (below + through)).sum() / (2 * weight.sum() * len(opposed)))


def dynamic_aucs(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    scores: npt.ArrayLike,
    horizons_years: Sequence[float],
    censoring: SurvivalCurve | None = None,
) -> tuple[FloatArray, float]:
    r"""AUC at several horizons and their mean, weighted by how many events fall before each.

    $$\overline{\mathrm{AUC}} = \frac{\sum_k \mathrm{AUC}(t_k) \left(S(t_{k-1}) - S(t_k)\right)}{1 - S(t_K)}$$

    with S by Kaplan-Meier and S(t_0) = 1 (Lambert and Chevret, Statistical Methods in Medical Research 25:2088, 2016).

    Args:
        event, time, censoring: as in [`dynamic_auc`].
        scores: (n,), one score for all horizons, or (n, horizons).
        horizons_years: ascending.

    Returns:
        (horizons,) and the mean.

    Raises:
        ValueError: as [`dynamic_auc`], scores of another shape, or horizons that do not ascend.
    """
    events, times = check_outcomes(event, time)
    horizons = check_horizons(horizons_years, times)
    values = np.asarray(scores, dtype=np.float64)
    if values.shape not in ((len(events),), (len(events), len(horizons))):
        raise ValueError(
            f"scores: expected shape ({len(events)},) or ({len(events)}, {len(horizons)}), got {values.shape}"
        )
    columns = np.broadcast_to(values if values.ndim == 2 else values[:, None], (len(events), len(horizons)))
    curve = censoring_survival(events, times) if censoring is None else censoring
    found = np.array([dynamic_auc(events, times, columns[:, k], t, curve) for k, t in enumerate(horizons)])
    survival = product_limit(events, times).at(horizons)
    shares = -np.diff(survival, prepend=1.0)
    return found, float((found * shares).sum() / shares.sum())


def check_horizons(horizons_years: Sequence[float] | npt.ArrayLike, times: FloatArray) -> FloatArray:
    """Ascending horizons in years that the follow-up reaches.

    Raises:
        ValueError: none, not ascending, or one that [`check_horizon`] refuses.
    """
    horizons = np.asarray(horizons_years, dtype=np.float64)
    if horizons.ndim != 1 or horizons.size == 0 or (np.diff(horizons) <= 0).any():
        raise ValueError(f"horizons_years: expected ascending years, got {horizons.tolist()}")
    for horizon in horizons:
        check_horizon(horizon, times, "horizons_years")
    return horizons
