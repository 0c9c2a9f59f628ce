"""Decisions by a threshold of risk: sensitivity, predictive values, net benefit; NRI and IDI; minimum sample size.

Status at the horizon is known for some records alone; those like them weigh more, by the inverse probability of
censoring. Records with a competing event by the horizon have no event by then. Plain functions of arrays: imports
numpy only.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import FloatArray, Interval, bootstrap_intervals

MEASURES = ("sensitivity", "specificity", "ppv", "npv", "net_benefit", "share_above")
_COX_SNELL_SHARE = 0.15  # of the largest R² that there can be: Riley's suggestion where nothing is known


class _Decisions(NamedTuple):
    """Weighted shares of all records at a threshold."""

    true_positive: float
    false_positive: float
    false_negative: float
    true_negative: float

    def measure(self, name: str, threshold: float) -> float:
        """One of `MEASURES`; NaN where nobody is in its denominator."""
        tp, fp, fn, tn = self
        if name == "net_benefit":
            return tp - fp * threshold / (1 - threshold)
        parts = {
            "sensitivity": (tp, tp + fn),
            "specificity": (tn, tn + fp),
            "ppv": (tp, tp + fp),
            "npv": (tn, tn + fn),
        }
        parts["share_above"] = (tp + fp, tp + fp + fn + tn)
        share, whole = parts[name]
        return share / whole if whole else float("nan")


@dataclass(frozen=True)
class _Status:
    """Who had the event by the horizon, with the weights that censoring asks for; (n,) each."""

    risk: FloatArray
    cases: npt.NDArray[np.bool_]
    controls: npt.NDArray[np.bool_]
    weights: FloatArray

    @classmethod
    def of(cls, event: npt.ArrayLike, time: npt.ArrayLike, risk: npt.ArrayLike, horizon_years: float) -> "_Status":
        follow_up = FollowUp(event, time)
        return cls(follow_up.risks(risk), *follow_up.status(horizon_years))

    def at(self, threshold: float) -> _Decisions:
        above = self.risk >= threshold
        chosen = (self.cases & above, self.controls & above, self.cases & ~above, self.controls & ~above)
        return _Decisions(*(float(self.weights[each].sum() / len(above)) for each in chosen))


def decision_measure(
    event: npt.ArrayLike, time: npt.ArrayLike, risk: npt.ArrayLike, horizon_years: float, threshold: float, name: str
) -> float:
    r"""Sensitivity, specificity, PPV, NPV, net benefit or share of records at or above a threshold of risk.

    With weights w of `FollowUp.status`, sensitivity is \(\sum w\) of cases at or above the threshold over that of all
    cases, and so on (Uno, Cai, Tian, Wei, JASA 102:527-537, 2007; Blanche, Dartigues, Jacqmin-Gadda, Biometrical
    Journal 55:687-704, 2013). Net benefit is \(TP / n - FP / n \cdot q / (1 - q)\) (Vickers and Elkin, Medical
    Decision Making 26:565-574, 2006).

    Args:
        event: (n,), 1 happened, 0 censored, 2, 3, ... a competing event.
        time: (n,), years, positive.
        risk: (n,), predicted probability of the event within `horizon_years`.
        horizon_years: at most the last follow-up.
        threshold: q, between 0 and 1.
        name: one of `MEASURES`.

    Raises:
        ValueError: what [`FollowUp`] refuses, a threshold outside (0, 1), or nobody in the denominator.

    Examples:
        >>> decision_measure([1, 1, 0, 0], [1.0, 2.0, 6.0, 6.0], [0.9, 0.1, 0.3, 0.1], 5.0, 0.2, "sensitivity")
        0.5
    """
    if not 0 < threshold < 1 or name not in MEASURES:
        raise ValueError(f"threshold, name: expected a probability and one of {', '.join(MEASURES)}, got {threshold}")
    found = _Status.of(event, time, risk, horizon_years).at(threshold).measure(name, threshold)
    if np.isnan(found):
        raise ValueError(f"threshold: {name} at {threshold:g} has nobody in its denominator; take another")
    return found


def decision_intervals(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    risk: npt.ArrayLike,
    horizon_years: float,
    thresholds: Sequence[float],
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Each of `MEASURES` at each threshold, with intervals over resampled patients; None where it does not exist."""
    pairs = [(threshold, name) for threshold in thresholds for name in MEASURES]

    def measures(event: npt.ArrayLike, time: npt.ArrayLike, risk: npt.ArrayLike) -> dict[str, float]:
        status = _Status.of(event, time, risk, horizon_years)
        return {f"{threshold} {name}": status.at(threshold).measure(name, threshold) for threshold, name in pairs}

    found: dict[str, Interval | None] = {}
    with suppress(ValueError):  # such as a horizon beyond the follow-up
        found = bootstrap_intervals(measures, event, time, risk, patient_ids=patient_ids, n=n, seed=seed)
    return [
        {"threshold": float(threshold)} | {name: _as_dict(found.get(f"{threshold} {name}")) for name in MEASURES}
        for threshold in thresholds
    ]


def _as_dict(interval: Interval | None) -> dict[str, float | int] | None:
    return None if interval is None else interval.as_dict()


def reclassification(
    event: npt.ArrayLike, time: npt.ArrayLike, risk: npt.ArrayLike, other_risk: npt.ArrayLike, horizon_years: float
) -> dict[str, float]:
    r"""Continuous NRI and IDI of a risk against another one, weighted for censoring.

    NRI is \(P(up | case) - P(down | case) + P(down | control) - P(up | control)\) (Pencina, D'Agostino, Steyerberg,
    Statistics in Medicine 30:11-21, 2011), IDI the gain in the difference of mean risks between cases and controls.
    **Both can favour a worse, miscalibrated model** and NRI rises with noise alone (Hilden and Gerds, Statistics in
    Medicine 33:3405-3414, 2014; Kerr et al., Epidemiology 25:114-121, 2014): read differences of C, Brier score and
    net benefit first.

    Args:
        event, time, horizon_years: as in [`decision_measure`].
        risk, other_risk: (n,), of the evaluated model and of the one it is compared with.

    Returns:
        `nri`, `nri_events`, `nri_nonevents`, `idi`.

    Raises:
        ValueError: what [`FollowUp`] refuses, or no case or control at the horizon.
    """
    follow_up = FollowUp(event, time)
    ours, theirs = follow_up.risks(risk), follow_up.risks(other_risk)
    cases, controls, weights = follow_up.status(horizon_years)
    if not cases.any() or not controls.any():
        raise ValueError(f"horizon_years: expected cases and controls at {horizon_years:g} years; take another")
    change = np.sign(ours - theirs)
    up = [float(np.average(change[chosen], weights=weights[chosen])) for chosen in (cases, controls)]
    gain = [float(np.average((ours - theirs)[chosen], weights=weights[chosen])) for chosen in (cases, controls)]
    return {"nri": up[0] - up[1], "nri_events": up[0], "nri_nonevents": -up[1], "idi": gain[0] - gain[1]}


def minimum_sample_size(
    num_parameters: int,
    event_rate: float,
    mean_follow_up_years: float,
    horizon_years: float,
    r_squared: float | None = None,
) -> dict[str, float]:
    r"""Records that a survival model needs (Riley, Ensor, Snell et al., BMJ 368:m441, 2020; Stat Med 38:1276, 2019).

    The largest of: (1) a shrinkage of at least 0.9, \(n = p / ((S - 1) \ln(1 - R^2 / S))\), S = 0.9; (2) at most 0.05
    between apparent and adjusted Nagelkerke R², the same with \(S = R^2 / (R^2 + 0.05 \max R^2)\); (3) the risk at the
    horizon known to ± 0.05.

    Args:
        num_parameters: p, of the model; for a network, of what is fitted to the outcome.
        event_rate: events per person-year.
        mean_follow_up_years: of the records.
        horizon_years: at which risk is predicted.
        r_squared: Cox-Snell R² expected; None takes 15 % of the largest there can be.

    Returns:
        `num_records` and `num_events`, the largest of `shrinkage`, `optimism` and `overall_risk`; and `r_squared`.

    Raises:
        ValueError: a rate, follow-up or number that is not positive, or an R² outside its range.
    """
    events = event_rate * mean_follow_up_years  # per record
    if not (num_parameters > 0 and event_rate > 0 and mean_follow_up_years > 0 and horizon_years > 0):
        raise ValueError("num_parameters, event_rate, follow-up and horizon: expected positive numbers")
    # of the exponential null model: ln L = E ln(E / T) - E, per record
    largest = 1 - float(np.exp(2 * (events * np.log(event_rate) - events)))
    known = _COX_SNELL_SHARE * largest if r_squared is None else r_squared
    if not 0 < known < largest:
        raise ValueError(f"r_squared: expected a value between 0 and {largest:.3g}, got {known:g}")

    def records(shrinkage: float) -> float:
        return float(num_parameters / ((shrinkage - 1) * np.log(1 - known / shrinkage)))

    parts = {"shrinkage": records(0.9), "optimism": records(known / (known + 0.05 * largest))}
    parts["overall_risk"] = _records_for_overall_risk(event_rate, mean_follow_up_years, horizon_years)
    found = float(np.ceil(max(parts.values())))
    return {"num_records": found, "num_events": float(np.ceil(found * events)), **parts, "r_squared": known}


def _records_for_overall_risk(event_rate: float, follow_up_years: float, horizon_years: float) -> float:
    """Records with which the risk at the horizon, under a constant rate, is known to ± 0.05."""
    risk = 1 - np.exp(-event_rate * horizon_years)
    sizes = np.unique(np.geomspace(10, 1e7, 4000).astype(int))
    error = 1.96 * np.sqrt(event_rate / (sizes * follow_up_years))
    low, high = (1 - np.exp(-np.maximum(event_rate + sign * error, 0) * horizon_years) for sign in (-1, 1))
    enough = np.maximum(risk - low, high - risk) <= 0.05
    return float(sizes[np.argmax(enough)])
