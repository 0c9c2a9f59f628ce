"""Follow-up with censoring: checked events and times, product-limit curves, censoring weights, pseudo-observations.

Convention: an event precedes a censoring at the same time, so that a record censored at t had no event by t. Survival
of the event is S(t) = P(T > t), that of censoring G(t) = P(C > t). An event at t is observed if C >= t, with
probability G(t-), the left limit.

Competing events have the codes 2, 3, ...: whoever had one first cannot have the event any more, and is not censored.
The risk of the event is then its cumulative incidence (Aalen-Johansen), not one minus Kaplan-Meier, which censors the
others.

Delayed entry (left truncation): `time` may be (n, 2), entry and end of follow-up. A record is at risk at t if entry
< t <= end, as `Surv(start, stop)` in R. Risk sets then leave out who has not entered; what rests on the chance of
censoring (Brier score, AUC(t), calibration regression, decisions) refuses it, as its weights do not know it.
Plain functions of arrays: imports numpy only.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdan_hf.evaluation.measures.intervals import FloatArray

BoolArray = npt.NDArray[np.bool_]


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

    def chance(self, years: FloatArray) -> FloatArray:
        """Returns `before(years)` of a curve of censoring, whose inverse is a weight.

        Raises:
            ValueError: a chance of still being followed that is 0.
        """
        chances = self.before(years)
        if (chances <= 0).any():
            first = float(years[chances <= 0].min())
            raise ValueError(
                f"censoring: expected a positive chance of follow-up, got 0 at {first:g} years; take a shorter horizon"
            )
        return chances

    def _value(self, years: npt.ArrayLike, side: str) -> FloatArray:
        steps = np.searchsorted(self.times, np.asarray(years, dtype=np.float64), side=side)  # type: ignore[call-overload]
        values: FloatArray = np.concatenate([[1.0], self.survival])[steps]
        return values


class FollowUp:
    """What happened to each record, and when: checked arrays, and the curves that follow from them.

    Args:
        event: (n,), 1 happened, 0 censored, 2, 3, ... another event that competes with it.
        time: (n,), years, positive; or (n, 2), entry (years, 0 or more) and time.

    Attributes:
        codes, time: (n,), as floats.
        entry: (n,), years; None where all entered at 0.
        event: (n,), 1 where the event happened, else 0.
        competing: (n,), true where another one happened first.

    Raises:
        ValueError: different lengths, an event that is no such code, a time that is not finite and positive, or an
            entry that is not before it.
    """

    def __init__(self, event: npt.ArrayLike, time: npt.ArrayLike) -> None:
        self.codes, self.time = np.asarray(event, dtype=np.float64), np.asarray(time, dtype=np.float64)
        self.entry: FloatArray | None = None
        if self.time.ndim == 2 and self.time.shape[1] == 2:
            self.entry, self.time = self.time[:, 0], self.time[:, 1]
        if self.codes.ndim != 1 or self.codes.shape != self.time.shape:
            shapes = f"{self.codes.shape} and {self.time.shape}"
            raise ValueError(f"event and time: expected two arrays of one length, got shapes {shapes}")
        if self.codes.size == 0:
            raise ValueError("event and time: expected at least one record, got none")
        known = np.isfinite(self.codes) & (self.codes >= 0) & (self.codes == np.floor(self.codes))
        if not known.all():
            found = f"got {self.codes[~known][0]:g}"
            raise ValueError(f"event: expected 1 (happened), 0 (censored) or 2, 3, ... (a competing event), {found}")
        self.event, self.competing = (self.codes == 1).astype(np.float64), self.codes > 1
        unusable = ~(np.isfinite(self.time) & (self.time > 0))
        if unusable.any():
            row, rows = int(np.flatnonzero(unusable)[0]), int(unusable.sum())
            raise ValueError(f"time: expected positive years, got {self.time[row]:g} in row {row} ({rows} such rows)")
        if self.entry is not None:
            self._check_entry(self.entry)

    def _check_entry(self, entry: FloatArray) -> None:
        unusable = ~((entry >= 0) & (entry < self.time))
        if unusable.any():
            row, rows = int(np.flatnonzero(unusable)[0]), int(unusable.sum())
            found = f"got {entry[row]:g} for time {self.time[row]:g} in row {row} ({rows} such rows)"
            raise ValueError(f"entry: expected years from 0 to before time, {found}")
        if not entry.any():
            self.entry = None

    @staticmethod
    def time_of(table: Any) -> FloatArray:
        """The columns `time` (n,), or `entry` and `time` (n, 2) where the table has late entries, in years.

        >>> FollowUp.time_of({"entry": [0.0, 1.0], "time": [2.0, 3.0]}).tolist()
        [[0.0, 2.0], [1.0, 3.0]]
        """
        time = np.asarray(table["time"], dtype=np.float64)
        entry = np.asarray(table["entry"], dtype=np.float64) if "entry" in table else np.zeros_like(time)
        both: FloatArray = np.stack([entry, time], axis=1) if (entry != 0).any() else time
        return both

    @property
    def times(self) -> FloatArray:
        """`time` as a `FollowUp` takes it: (n,), or (n, 2) with the entry."""
        return self.time if self.entry is None else np.stack([self.entry, self.time], axis=1)

    def __len__(self) -> int:
        return len(self.event)

    @staticmethod
    def of_cause(event: npt.ArrayLike, cause: int) -> FloatArray:
        """Codes in which `cause` is the event, 1, and all other causes compete with it, 2.

        >>> FollowUp.of_cause([0, 1, 2, 3], 2).tolist()
        [0.0, 2.0, 1.0, 2.0]
        """
        codes = np.asarray(event, dtype=np.float64)
        found: FloatArray = np.where(codes == cause, 1.0, np.where(codes > 0, 2.0, codes))
        return found

    @property
    def has_pair(self) -> bool:
        """Whether any record was still at risk at another's event, so that a C-index exists."""
        _, deaths, at_risk, _, _ = self._table
        return bool(((deaths > 0) & (at_risk > deaths)).any())

    def risks(self, risk: npt.ArrayLike) -> FloatArray:
        """Returns (n,) predicted probabilities as floats.

        Raises:
            ValueError: what [`check_scores`] refuses, or a risk outside [0, 1].
        """
        risks = check_scores(risk, len(self), name="risk")
        if risks.min() < 0 or risks.max() > 1:
            raise ValueError(f"risk: expected probabilities, got {risks.min():g} to {risks.max():g}")
        return risks

    def horizon(self, horizon_years: float, name: str = "horizon_years") -> float:
        """Returns a horizon in years that the follow-up reaches.

        Raises:
            ValueError: not finite and positive, or beyond the last follow-up.
        """
        horizon, last = float(horizon_years), self.time.max()
        if not (np.isfinite(horizon) and horizon > 0):
            raise ValueError(f"{name}: expected positive years, got {horizon:g}")
        if horizon > last:
            raise ValueError(
                f"{name}: expected at most the last follow-up, {last:g} years, got {horizon:g}; take a shorter one"
            )
        return horizon

    def survival(self) -> SurvivalCurve:
        r"""Kaplan-Meier survival, $S(t) = \prod_{u \le t} (1 - d_u / n_u)$; competing events censor. O(n log n).

        Examples:
            >>> FollowUp([1, 0, 1], [1.0, 2.0, 3.0]).survival().at([0.5, 1.0, 2.9]).round(4).tolist()
            [1.0, 0.6667, 0.6667]
        """
        distinct, deaths, at_risk, _, _ = self._table
        return SurvivalCurve(distinct, np.cumprod(1 - deaths / at_risk, dtype=np.float64))

    def free(self) -> SurvivalCurve:
        r"""One minus the cumulative incidence of the event (Aalen-Johansen); Kaplan-Meier if nothing competes.

        $F(t) = \sum_{u \le t} S(u-) d_u / n_u$, with S the survival free of every event. O(n log n).

        Examples:
            Whoever had another event at 2 is not at risk any more, but is not forgotten either.

            >>> FollowUp([1, 2, 1, 0], [1.0, 2.0, 3.0, 4.0]).free().at([1.0, 2.0, 3.0]).tolist()
            [0.75, 0.75, 0.5]
        """
        if not self.competing.any():
            return self.survival()
        distinct, deaths, at_risk, _, others = self._table
        staying = np.cumprod(1 - (deaths + others) / at_risk)
        return SurvivalCurve(distinct, 1 - np.cumsum(np.append(1.0, staying[:-1]) * deaths / at_risk))

    def censoring(self) -> SurvivalCurve:
        """Survival of censoring, G(t) = P(C > t): Kaplan-Meier with censorings as events and events leaving first.

        Examples:
            The event at 2 has left when the censoring at 2 happens, so that half of those still there remain.

            >>> FollowUp([1, 0, 0], [2.0, 2.0, 3.0]).censoring().at([1.0, 2.0]).tolist()
            [1.0, 0.5]

        Raises:
            ValueError: delayed entry.
        """
        self.refuse_entry("weights by the chance of censoring")
        distinct, deaths, at_risk, counts, others = self._table
        exposed = at_risk - deaths - others  # 0 only where nobody is left to be censored
        hazard = np.divide(counts - deaths - others, exposed, out=np.zeros_like(deaths), where=exposed > 0)
        return SurvivalCurve(distinct, np.cumprod(1 - hazard))

    def refuse_entry(self, what: str) -> None:
        """Raises ValueError where records entered late, as `what` does not know it."""
        if self.num_delayed:
            raise ValueError(
                f"entry: {what}: expected follow-up from the ECG on, got {self.num_delayed} of {len(self)} records "
                "that entered later; judge by C-index, Kaplan-Meier and calibration groups"
            )

    @property
    def num_delayed(self) -> int:
        """How many records entered after the ECG."""
        return 0 if self.entry is None else int((self.entry > 0).sum())

    def status(
        self, horizon_years: float, censoring: SurvivalCurve | None = None
    ) -> tuple[BoolArray, BoolArray, FloatArray]:
        """Returns cases and controls at a horizon, and their inverse probability of censoring weights.

        Args:
            horizon_years: as [`horizon`] accepts it.
            censoring: survival of censoring; None estimates it on the same records.

        Returns:
            `cases` (event at or before the horizon), `controls` (followed beyond it, censored exactly at it, or with
            a competing event by then), and `weights`: 1/G(min(time, horizon)-) of both, 0 of those censored before;
            (n,) each.

        Raises:
            ValueError: what [`horizon`] refuses, delayed entry, or G is 0 where a weight is needed.
        """
        self.refuse_entry("weights by the chance of censoring")
        horizon, curve = self.horizon(horizon_years), self.censoring() if censoring is None else censoring
        cases = (self.event == 1) & (self.time <= horizon)
        controls = (self.time > horizon) | ((self.time == horizon) & (self.event == 0)) | self.competing
        known, weights = cases | controls, np.zeros(len(self))
        weights[known] = 1.0 / curve.chance(np.minimum(self.time, horizon)[known])
        return cases, controls, weights

    def pseudo_observations(self, horizon_years: float) -> FloatArray:
        r"""Returns the pseudo-observation of each record's status at a horizon.

        Andersen, Klein, Rosthøj, Biometrika 90:15-27, 2003:

        $$\theta_i = n F(t) - (n - 1) F^{(-i)}(t), \qquad F = 1 - \text{Kaplan-Meier}$$

        with record i left out of the second curve. Without censoring this is 1 for an event by t and 0 otherwise; with
        it, it replaces the unknown status in any regression. Assumes censoring independent of the risk. O(n log n).
        With competing events F is the cumulative incidence, and theta its first-order (infinitesimal) jackknife.

        Returns:
            (n,), mean close to the observed risk; single values may leave [0, 1].

        Raises:
            ValueError: what [`horizon`] refuses, a single record, or delayed entry.

        Examples:
            The second record, censored at 2, would have had the event by 3.5 with a chance of one half.

            >>> FollowUp([1, 0, 1, 0], [1.0, 2.0, 3.0, 4.0]).pseudo_observations(3.5).round(4).tolist()
            [1.0, 0.5, 1.5, -0.5]
        """
        horizon, num = self.horizon(horizon_years), len(self)
        self.refuse_entry("pseudo-observations")
        if num < 2:
            raise ValueError("event and time: expected at least two records for pseudo-observations, got 1")
        if self.competing.any():
            return self._incidence_pseudo_observations(horizon)
        distinct, deaths, at_risk, _, _ = self._table
        deaths = np.where(distinct <= horizon, deaths, 0.0)
        own = np.searchsorted(distinct, self.time)
        # Left out, a record is missing from the risk sets up to its own time; the later ones stay as they are.
        fewer = np.maximum(at_risk - 1, 1)
        earlier = np.concatenate([[1.0], np.cumprod(1 - np.minimum(deaths / fewer, 1.0))])[own]
        later = np.concatenate([np.cumprod((1 - deaths / at_risk)[::-1])[::-1], [1.0]])[own + 1]
        own_deaths = deaths[own] - self.event * (self.time <= horizon)
        survival = np.prod(1 - deaths / at_risk)
        left_out = earlier * (1 - np.minimum(own_deaths / fewer[own], 1.0)) * later
        pseudo: FloatArray = num * (1 - survival) - (num - 1) * (1 - left_out)
        return pseudo

    def _incidence_pseudo_observations(self, horizon: float) -> FloatArray:
        r"""F(t) plus the influence of each record on it.

        $F(t) = \frac1n \sum_i 1[T_i \le t, \delta_i = 1] / G(T_i-)$; the influence of record i is its own term less
        F(t), plus $\int_0^{t-} \frac{n (F(t) - F(u))}{n_u - c_u} dM_i(u)$ with M the martingale of its censoring,
        $n_u$ exposed to it and $c_u$ censored at u.
        """
        distinct, deaths, at_risk, counts, others = self._table
        cases, _, weights = self.status(horizon)
        own = np.searchsorted(distinct, self.time)
        exposed, censored = at_risk - deaths - others, counts - deaths - others
        incidence = 1 - self.free().survival
        value = float(incidence[np.searchsorted(distinct, horizon, side="right") - 1])
        ahead = np.where(distinct < horizon, value - incidence, 0.0)
        gain = len(self) * np.maximum(ahead, 0.0) / np.maximum(exposed - censored, 1.0)
        hazard = np.divide(censored, exposed, out=np.zeros_like(exposed), where=exposed > 0)
        paid = np.concatenate([[0.0], np.cumsum(gain * hazard)])
        is_censored = self.codes == 0
        at_own = paid[own + is_censored]  # an event leaves before it is exposed to censoring at its time
        pseudo: FloatArray = cases * weights + np.where(is_censored, gain[own], 0.0) - at_own
        return pseudo

    @cached_property
    def _table(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Distinct times, and at each: events, at risk just before, leaving for any reason, competing events."""
        distinct, code = np.unique(self.time, return_inverse=True)
        deaths, counts, others = (
            np.bincount(code, weights=weights).astype(np.float64)
            for weights in (self.event, np.ones_like(self.event), self.competing.astype(np.float64))
        )
        at_risk = np.cumsum(counts[::-1])[::-1].astype(np.float64)
        if self.entry is not None:
            at_risk = at_risk - (len(self) - np.searchsorted(np.sort(self.entry), distinct))  # entry < t <= time
        return distinct.astype(np.float64), deaths, at_risk, counts, others
