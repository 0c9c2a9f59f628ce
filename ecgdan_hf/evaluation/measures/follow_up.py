"""Follow-up with censoring: checks of the arrays, product-limit curves, censoring weights, pseudo-observations.

Convention: an event precedes a censoring at the same time, so that a record censored at t had no event by t. Survival
of the event is S(t) = P(T > t), that of censoring G(t) = P(C > t). An event at t is observed if C >= t, with
probability G(t-), the left limit. Plain functions of arrays: imports numpy only.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdan_hf.evaluation.measures.intervals import FloatArray

BoolArray = npt.NDArray[np.bool_]


def check_outcomes(event: npt.ArrayLike, time: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Returns `event` and `time` as float arrays of one length.

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
    known = (events == 0) | (events == 1)
    if not known.all():
        raise ValueError(f"event: expected 1 (happened) or 0 (censored), got {events[~known][0]:g}")
    check_times(times)
    return events, times


def check_times(times: FloatArray) -> None:
    """Refuses a time that is not finite and positive.

    Raises:
        ValueError: naming the first such row.
    """
    unusable = ~(np.isfinite(times) & (times > 0))
    if unusable.any():
        row = int(np.flatnonzero(unusable)[0])
        raise ValueError(
            f"time: expected positive years, got {times[row]:g} in row {row} ({int(unusable.sum())} such rows)"
        )


def check_scores(scores: npt.ArrayLike, num_records: int, name: str = "log_hazard") -> FloatArray:
    """Returns (n,) finite scores as floats.

    Raises:
        ValueError: another shape, or a NaN or infinite score.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (num_records,):
        raise ValueError(f"{name}: expected {num_records} values, one per record, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite values, got {int((~np.isfinite(values)).sum())} NaN or infinite")
    return values


def check_risks(risk: npt.ArrayLike, num_records: int) -> FloatArray:
    """Returns (n,) predicted probabilities as floats.

    Raises:
        ValueError: what [`check_scores`] refuses, or a risk outside [0, 1].
    """
    risks = check_scores(risk, num_records, name="risk")
    if risks.min() < 0 or risks.max() > 1:
        raise ValueError(f"risk: expected probabilities, got {risks.min():g} to {risks.max():g}")
    return risks


def check_horizon(horizon_years: float, times: FloatArray, name: str = "horizon_years") -> float:
    """Returns a horizon in years that the follow-up reaches.

    Raises:
        ValueError: not finite and positive, or beyond the last follow-up.
    """
    horizon = float(horizon_years)
    if not (np.isfinite(horizon) and horizon > 0):
        raise ValueError(f"{name}: expected positive years, got {horizon:g}")
    if horizon > times.max():
        raise ValueError(
            f"{name}: expected at most the last follow-up, {times.max():g} years, got {horizon:g}; take a shorter one"
        )
    return horizon


@dataclass(frozen=True)
class SurvivalCurve:
    """A product-limit curve: constant between its times, falling at them.

    Attributes:
        times: (k,), distinct times, ascending.
        survival: (k,), probability to stay free of the event beyond each time.
    """

    times: FloatArray
    survival: FloatArray

    def at(self, years: npt.ArrayLike) -> FloatArray:
        """P(T > years), of the shape of `years`."""
        return self._value(years, "right")

    def before(self, years: npt.ArrayLike) -> FloatArray:
        """P(T >= years), the left limit, of the shape of `years`."""
        return self._value(years, "left")

    def _value(self, years: npt.ArrayLike, side: str) -> FloatArray:
        steps = np.searchsorted(self.times, np.asarray(years, dtype=np.float64), side=side)  # type: ignore[call-overload]
        values: FloatArray = np.concatenate([[1.0], self.survival])[steps]
        return values


def product_limit(event: npt.ArrayLike, time: npt.ArrayLike) -> SurvivalCurve:
    r"""Kaplan-Meier survival, $S(t) = \prod_{u \le t} (1 - d_u / n_u)$. O(n log n).

    Args:
        event: (n,), 1 happened, 0 censored.
        time: (n,), years, positive.

    Raises:
        ValueError: what [`check_outcomes`] refuses.

    Examples:
        >>> product_limit([1, 0, 1], [1.0, 2.0, 3.0]).at([0.5, 1.0, 2.9]).round(4).tolist()
        [1.0, 0.6667, 0.6667]
    """
    distinct, deaths, at_risk, _ = _event_table(*check_outcomes(event, time))
    return SurvivalCurve(distinct, np.cumprod(1 - deaths / at_risk, dtype=np.float64))


def censoring_survival(event: npt.ArrayLike, time: npt.ArrayLike) -> SurvivalCurve:
    """Survival of censoring, G(t) = P(C > t): Kaplan-Meier with censorings as events and events leaving first.

    Args:
        event, time: as in [`product_limit`]; those of the training records, or of the records that are judged.

    Raises:
        ValueError: what [`check_outcomes`] refuses.

    Examples:
        The event at 2 has left when the censoring at 2 happens, so that half of those still there remain.

        >>> censoring_survival([1, 0, 0], [2.0, 2.0, 3.0]).at([1.0, 2.0]).tolist()
        [1.0, 0.5]
    """
    distinct, deaths, at_risk, counts = _event_table(*check_outcomes(event, time))
    exposed = at_risk - deaths  # 0 only where nobody is left to be censored
    hazard = np.divide(counts - deaths, exposed, out=np.zeros_like(deaths), where=exposed > 0)
    return SurvivalCurve(distinct, np.cumprod(1 - hazard))


def status_weights(
    events: FloatArray, times: FloatArray, horizon: float, censoring: SurvivalCurve | None = None
) -> tuple[BoolArray, BoolArray, FloatArray]:
    """Returns cases and controls at a horizon, and their inverse probability of censoring weights.

    Args:
        events, times: (n,), checked.
        horizon: years.
        censoring: survival of censoring; None estimates it on the same records.

    Returns:
        `cases` (event at or before the horizon), `controls` (followed beyond it, or censored exactly at it), and
        `weights`: 1/G(time-) of cases, 1/G(horizon-) of controls, 0 of those censored before.

    Raises:
        ValueError: G is 0 where a weight is needed.
    """
    curve = censoring_survival(events, times) if censoring is None else censoring
    cases = (events == 1) & (times <= horizon)
    controls = (times > horizon) | ((times == horizon) & (events == 0))
    known = cases | controls
    chance = curve.before(np.minimum(times, horizon))
    check_chances(chance[known], times[known])
    weights = np.divide(1.0, chance, out=np.zeros_like(chance), where=known)
    return cases, controls, weights


def check_chances(chances: FloatArray, times: FloatArray) -> None:
    """Refuses a probability of follow-up of 0, which has no inverse.

    Raises:
        ValueError: a chance of still being followed that is 0.
    """
    if (chances <= 0).any():
        first = float(times[chances <= 0].min())
        raise ValueError(
            f"censoring: expected a positive chance of follow-up, got 0 at {first:g} years; take a shorter horizon"
        )


def pseudo_observations(event: npt.ArrayLike, time: npt.ArrayLike, horizon_years: float) -> FloatArray:
    r"""Returns the pseudo-observation of each record's status at a horizon.

    Andersen, Klein, Rosthøj, Biometrika 90:15-27, 2003:

    $$\theta_i = n F(t) - (n - 1) F^{(-i)}(t), \qquad F = 1 - \text{Kaplan-Meier}$$

    with record i left out of the second curve. Without censoring this is 1 for an event by t and 0 otherwise; with it,
    it replaces the unknown status in any regression. Assumes censoring independent of the risk. O(n log n).

    Args:
        event, time: as in [`product_limit`].
        horizon_years: t.

    Returns:
        (n,), mean close to the observed risk; single values may leave [0, 1].

    Raises:
        ValueError: what [`check_outcomes`] and [`check_horizon`] refuse, or a single record.

    Examples:
        The second record, censored at 2, would have had the event by 3.5 with a chance of one half.

        >>> pseudo_observations([1, 0, 1, 0], [1.0, 2.0, 3.0, 4.0], 3.5).round(4).tolist()
        [1.0, 0.5, 1.5, -0.5]
    """
    events, times = check_outcomes(event, time)
    horizon = check_horizon(horizon_years, times)
    num = len(events)
    if num < 2:
        raise ValueError("event and time: expected at least two records for pseudo-observations, got 1")
    distinct, deaths, at_risk, _ = _event_table(events, times)
    deaths = np.where(distinct <= horizon, deaths, 0.0)
    own = np.searchsorted(distinct, times)
    # Left out, a record is missing from the risk sets up to its own time; the later ones stay as they are.
    fewer = np.maximum(at_risk - 1, 1)
    earlier = np.concatenate([[1.0], np.cumprod(1 - np.minimum(deaths / fewer, 1.0))])[own]
    later = np.concatenate([np.cumprod((1 - deaths / at_risk)[::-1])[::-1], [1.0]])[own + 1]
    own_deaths = deaths[own] - events * (times <= horizon)
    survival = np.prod(1 - deaths / at_risk)
    left_out = earlier * (1 - np.minimum(own_deaths / fewer[own], 1.0)) * later
    pseudo: FloatArray = num * (1 - survival) - (num - 1) * (1 - left_out)
    return pseudo


def _event_table(events: FloatArray, times: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Returns the distinct times, and at each: events, records at risk just before, and records that leave."""
    distinct, code = np.unique(times, return_inverse=True)
    deaths = np.bincount(code, weights=events)
    counts = np.bincount(code, weights=np.ones_like(events))
    at_risk: FloatArray = np.cumsum(counts[::-1])[::-1].astype(np.float64)
    return distinct.astype(np.float64), deaths.astype(np.float64), at_risk, counts.astype(np.float64)
