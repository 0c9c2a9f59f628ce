"""Concordance of a score with follow-up: Harrell's C, Uno's C, analytic intervals and paired comparisons.

Pairs are not enumerated. Records sorted by score are split by the bits of their rank in time, as in a wavelet tree,
and counted with cumulative sums: O(n log n) for the counts of every record, which estimates and variances need.
Plain functions of arrays: imports numpy and scipy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit

from ecgdan_hf.evaluation.measures.follow_up import BoolArray, FollowUp, SurvivalCurve, check_scores
from ecgdan_hf.evaluation.measures.intervals import AnalyticInterval, FloatArray, Patients, half_width

_IntArray = npt.NDArray[np.int64]


def expected_concordance(true_log_hazard: npt.ArrayLike, score: npt.ArrayLike, event_share: float) -> float:
    r"""Harrell's index as it is on average where proportional hazards are known and all are censored at one time.

    A pair in which i has the event first, before the end of follow-up with cumulative baseline hazard H, has
    probability \(h_i / (h_i + h_j) (1 - e^{-(h_i + h_j) H})\); H is such that `event_share` of the records have their
    event. The result depends on no drawn outcome. O(n^2).

    Args:
        true_log_hazard: (n,).
        score: (n,), higher means earlier.
        event_share: expected share of records with an event, between 0 and 1.

    Examples:
        Of two records, the one with e times the hazard has its event first with probability e / (1 + e).

        >>> round(expected_concordance([0.0, 1.0], [0.0, 1.0], 0.1), 3)
        0.731
    """
    truth, given = np.asarray(true_log_hazard, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if not 0 < event_share < 1 or truth.shape != given.shape or truth.ndim != 1:
        expected = f"expected a share and {truth.shape} scores"
        raise ValueError(f"event_share, score: {expected}, got {event_share} and {given.shape}")
    hazard = np.exp(truth - truth.mean())
    end = float(brentq(lambda log_end: -np.expm1(-hazard * np.exp(log_end)).mean() - event_share, -60, 60))
    both = hazard[:, None] + hazard[None, :]
    first = hazard[:, None] / both * -np.expm1(-both * np.exp(end))
    np.fill_diagonal(first, 0.0)
    ahead = given[:, None] - given[None, :]
    return float((first * ((ahead > 0) + 0.5 * (ahead == 0))).sum() / first.sum())


def concordance_index(event: npt.ArrayLike, time: npt.ArrayLike, log_hazard: npt.ArrayLike) -> float:
    r"""Harrell's concordance index (Harrell, Lee, Mark, Statistics in Medicine 15:361-387, 1996).

    $$C = \frac{\sum_{(i,j)} 1[s_i > s_j] + \tfrac12 1[s_i = s_j]}{\#(i,j)}$$

    over pairs in which i had the event and j was then still at risk: $t_j > t_i$, or $t_j = t_i$ with j censored. Two
    events at one time are not a pair, tied scores count one half. Agrees with
    `lifelines.utils.concordance_index(time, -log_hazard, event)`. With delayed entry, j must have entered before
    $t_i$. O(n log n).

    Args:
        event: (n,), 1 happened, 0 censored.
        time: (n,), years, positive, or (n, 2) with the entry, as [`FollowUp`] takes it.
        log_hazard: (n,), higher means earlier; any score that orders risk works.

    Raises:
        ValueError: what [`FollowUp`] refuses, a score that is not finite, no event, or no comparable pair.

    Examples:
        Three pairs can be compared, (0, 1), (0, 2) and (1, 2); the second record is ranked last: two are right.

        >>> concordance_index([1, 1, 0], [1.0, 2.0, 3.0], [0.9, 0.1, 0.5])
        0.6666666666666666
    """
    follow_up, scores = _check(event, time, log_hazard)
    counts, happened = _PairCounts.of(follow_up, scores, with_losses=False), follow_up.event == 1
    pairs = int(counts.later[happened].sum())
    _require_pairs(pairs, len(scores))
    return int(counts.won[happened].sum()) / 2 / pairs


def uno_concordance_index(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    log_hazard: npt.ArrayLike,
    tau_years: float | None = None,
    censoring: SurvivalCurve | None = None,
) -> float:
    r"""Uno's concordance index (Uno, Cai, Pencina, D'Agostino, Wei, Statistics in Medicine 30:1105-1117, 2011).

    Harrell's pairs with $t_i < \tau$, each weighted by $G(t_i-)^{-2}$, so that the value does not depend on how long
    this cohort happened to be followed. O(n log n).

    Args:
        event, time, log_hazard: as in [`concordance_index`].
        tau_years: events at or after it are not used; choose it where follow-up is still plentiful. None uses all.
        censoring: survival of censoring, `FollowUp.censoring` of, say, the training records; None estimates it on
            these records.

    Raises:
        ValueError: as [`concordance_index`], tau beyond the last follow-up, delayed entry, or G(t-) of 0 at an event.

    Examples:
        >>> uno_concordance_index([1, 1, 0], [1.0, 2.0, 3.0], [0.9, 0.1, 0.5], tau_years=2.0)
        1.0
    """
    follow_up, scores = _check(event, time, log_hazard)
    follow_up.refuse_entry("Uno's C-index")
    tau = np.inf if tau_years is None else follow_up.horizon(tau_years, "tau_years")
    used, order = (follow_up.event == 1) & (follow_up.time < tau), _time_order(follow_up)
    curve = follow_up.censoring() if censoring is None else censoring
    later = _num_later(order)
    used &= later > 0  # the very last event has no pair, and perhaps no G
    _require_pairs(int(used.sum()), len(scores))
    chances = curve.chance(follow_up.time[used])
    won, _ = _doubled_wins(order, scores, with_losses=False)
    return float((won[used] / chances**2).sum() / 2 / (later[used] / chances**2).sum())


def concordance_interval(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    log_hazard: npt.ArrayLike,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    level: float = 0.95,
) -> AnalyticInterval:
    r"""Returns Harrell's C with an analytic interval, for cohorts too large to resample.

    The variance is the infinitesimal jackknife's (Efron, 1982; that of `survival::concordance` in R): with $a_k$ the
    value and $b_k$ the number of the pairs of record k, in either role,

    $$\widehat{\mathrm{Var}}(C) = \sum_{\text{patients}} \Big(\sum_{k} \frac{a_k - C b_k}{\#(i,j)}\Big)^2$$

    The limits are symmetric on the logit scale. O(n log n).

    Args:
        event, time, log_hazard: as in [`concordance_index`].
        patient_ids: patient of each record; None takes every record for a patient of its own.
        level: coverage.

    Returns:
        The interval; its p value asks whether C is 0.5.

    Raises:
        ValueError: as [`concordance_index`], ids that do not fit, or a C of 0 or 1, whose variance is not estimable.
    """
    value, influence = _influence(event, time, log_hazard)
    patients = Patients(patient_ids, len(influence))
    error = patients.error(influence)
    if not 0 < value < 1 or error == 0:
        raise ValueError(
            f"log_hazard: expected pairs in both orders, got a C-index of {value:g} without variance; add records"
        )
    half = half_width(level) * error / (value * (1 - value))
    low, high = float(expit(logit(value) - half)), float(expit(logit(value) + half))
    return AnalyticInterval.of(value, (low, high), level, error, (value - 0.5) / error, patients)


def concordance_difference(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    log_hazard: npt.ArrayLike,
    baseline_log_hazard: npt.ArrayLike,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    level: float = 0.95,
) -> AnalyticInterval:
    """Returns the paired difference of two Harrell C-indices on the same records, as DeLong's test does for AUCs.

    Both indices are averages over the same pairs, so that their influences are subtracted record by record before they
    are squared (Kang, Chen, Petrick, Gallas, Statistics in Medicine 34:685-703, 2015). O(n log n).

    Args:
        event, time: as in [`concordance_index`].
        log_hazard, baseline_log_hazard: (n,), of two models for the same records in the same order.
        patient_ids, level: as in [`concordance_interval`].

    Returns:
        The interval of "first minus baseline"; its p value asks whether the difference is 0.

    Raises:
        ValueError: as [`concordance_interval`]; two scores that order all records alike differ by 0, with p = 1.
    """
    ours, influence = _influence(event, time, log_hazard)
    theirs, baseline_influence = _influence(event, time, baseline_log_hazard)
    patients = Patients(patient_ids, len(influence))
    error = patients.error(influence - baseline_influence)
    difference = ours - theirs
    if error == 0 and difference != 0:
        raise ValueError(f"log_hazard: a difference of {difference:g} without variance cannot be tested; add records")
    return AnalyticInterval.wald(difference, error, 0.0, level, patients)


def _check(event: npt.ArrayLike, time: npt.ArrayLike, log_hazard: npt.ArrayLike) -> tuple[FollowUp, FloatArray]:
    follow_up = FollowUp(event, time)
    scores = check_scores(log_hazard, len(follow_up))
    if not follow_up.event.any():
        raise ValueError(f"event: no event among {len(follow_up)} records, the C-index does not exist")
    return follow_up, scores


def _require_pairs(pairs: int, num_records: int) -> None:
    if pairs == 0:
        raise ValueError(f"event and time: no comparable pair among {num_records} records, the C-index does not exist")


def _influence(event: npt.ArrayLike, time: npt.ArrayLike, log_hazard: npt.ArrayLike) -> tuple[float, FloatArray]:
    """C, and by how much it moves with the weight of each record: (n,), summing to 0."""
    follow_up, scores = _check(event, time, log_hazard)
    counts, happened = _PairCounts.of(follow_up, scores), follow_up.event == 1
    later, won = (np.where(happened, values, 0) for values in (counts.later, counts.won))
    pairs = int(later.sum())
    _require_pairs(pairs, len(scores))
    value = int(won.sum()) / 2 / pairs
    return value, ((won + counts.lost_to) / 2 - value * (later + counts.earlier)) / pairs


@dataclass(frozen=True)
class _PairCounts:
    """Counts of each record's pairs, (n,) each.

    Attributes:
        later: records at risk at its event; of no meaning for a record without one.
        earlier: events at which it was at risk.
        won: twice the value of its pairs with `later`.
        lost_to: twice the value of its pairs with `earlier`; 0 where it was not asked for.
    """

    later: _IntArray
    earlier: _IntArray
    won: _IntArray
    lost_to: _IntArray

    @classmethod
    def of(cls, follow_up: FollowUp, scores: FloatArray, with_losses: bool = True) -> "_PairCounts":
        """Counts the pairs, but for those of records that had not entered yet."""
        order, happened = _time_order(follow_up), follow_up.event == 1
        counts = _num_later(order), _num_earlier(order, happened), *_doubled_wins(order, scores, with_losses)
        if follow_up.entry is None:
            return cls(*counts)
        late = cls._before_entry(follow_up.time, follow_up.entry, happened, scores, with_losses)
        return cls(*(values - fewer for values, fewer in zip(counts, late, strict=True)))

    @staticmethod
    def _before_entry(
        time: FloatArray, entry: FloatArray, happened: BoolArray, scores: FloatArray, with_losses: bool
    ) -> tuple[_IntArray, ...]:
        """The counts over pairs of an event with a record that entered at its time or later.

        Events and entries are put on one axis; what events have among themselves is taken off again.
        """
        events = int(happened.sum())
        order = 2 * _ranks(np.concatenate([time[happened], entry]))
        order[events:] += 1  # an entry at an event's time is behind it
        is_event, both = np.arange(len(order)) < events, np.concatenate([scores[happened], scores])
        won, lost_to = _doubled_wins(order, both, with_losses)
        among, _ = _doubled_wins(order[:events], scores[happened], with_losses=False)
        later, more = np.zeros_like(order[events:]), np.zeros_like(order[events:])
        later[happened] = _num_later(order)[:events] - _num_later(order[:events])
        more[happened] = won[:events] - among
        return later, _num_earlier(order, is_event)[events:], more, lost_to[events:]


def _time_order(follow_up: FollowUp) -> _IntArray:
    """Ranks of (time, censored), even for events: j is at risk at i's event exactly if its rank is higher."""
    order: _IntArray = 2 * _ranks(follow_up.time) + (follow_up.event == 0)
    return order


def _ranks(values: FloatArray) -> _IntArray:
    _, code = np.unique(values, return_inverse=True)
    return code.astype(np.int64, copy=False)


def _num_later(order: _IntArray) -> _IntArray:
    """How many records have a higher rank than each: (n,)."""
    counts = np.bincount(order)
    return np.asarray((len(order) - np.cumsum(counts))[order], dtype=np.int64)


def _num_earlier(order: _IntArray, happened: BoolArray) -> _IntArray:
    """How many events have a lower rank than each record: (n,)."""
    counts = np.bincount(order[happened], minlength=int(order.max()) + 1)
    return np.asarray((np.cumsum(counts) - counts)[order], dtype=np.int64)


def _doubled_wins(order: _IntArray, scores: FloatArray, with_losses: bool = True) -> tuple[_IntArray, _IntArray]:
    """Twice the value of each record's pairs with later ones (n,), and of each record's with earlier events (n,).

    Every record gets a place of its own in time. Records of one time stand there by score, so that of them only equal
    scores are counted, and these are taken off again. Tied scores count once with the later record before the earlier
    and once behind it: one half.
    """
    rank = _ranks(scores)
    num, width = len(order), int(rank.max()) + 1
    tie = order * width + rank
    rows = np.argsort(tie)  # place -> record
    tie, rank, case = tie[rows], rank[rows], 1 - (order[rows] & 1)
    place = np.arange(num)
    later_first, later_last = rank * num + (num - 1 - place), rank * num + place
    won, lost_to = _wins(num - 1 - np.sort(later_first) % num, case, with_losses)
    if width < num:
        strictly = _wins(np.sort(later_last) % num, case, with_losses)
        won, lost_to = won + strictly[0], lost_to + strictly[1]
        won -= np.searchsorted(tie, tie, side="right") - 1 - place
        lost_to -= case * (place - np.searchsorted(tie, tie))
    else:
        won, lost_to = 2 * won, 2 * lost_to
    by_record = np.empty_like(rows)
    by_record[rows] = place
    return won[by_record], lost_to[by_record]


def _wins(place: _IntArray, case: _IntArray, with_losses: bool) -> tuple[_IntArray, _IntArray]:
    """For each place in time, how many later ones stand before it by score, and how many earlier cases behind it.

    Two places first differ at one bit: the pair is counted there, within the block of places that share the bits
    above. A block starts at a multiple of its size, and half of it, or what there is, has the bit clear.

    Args:
        place: (n,), permutation of 0, 1, ...: places in time in ascending order of score.
        case: (n,), by place, 1 for an event.
        with_losses: counts the cases too; the second array is 0 otherwise.
    """
    index = np.arange(len(place), dtype=np.int32)
    by_score, at = case[place].astype(np.int32), place.astype(np.int32)
    won, lost_to = np.zeros_like(at), np.zeros_like(at)
    for bit in reversed(range((len(at) - 1).bit_length())):
        half = 1 << bit
        late, start = (at >> bit) & 1, index & -(2 * half)
        lates_before = np.cumsum(late, dtype=np.int32) - late - (start >> 1)
        won += lates_before * (1 - late)
        split = index - lates_before + late * (start + half + 2 * lates_before - index)
        if with_losses:
            cases = np.cumsum(by_score * (1 - late), dtype=np.int32)
            lost_to += (cases[np.minimum(start + 2 * half, len(at)) - 1] - cases) * late
            by_score, lost_to = _moved(by_score, split), _moved(lost_to, split)
        at, won = _moved(at, split), _moved(won, split)
    return won.astype(np.int64), lost_to.astype(np.int64)  # the last split leaves the places in order


def _moved(values: npt.NDArray[np.int32], target: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    moved = np.empty_like(values)
    moved[target] = values
    return moved
