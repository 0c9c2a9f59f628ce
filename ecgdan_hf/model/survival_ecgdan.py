r"""Cox partial likelihood, its version for competing causes, and survival curves, as pure functions of tensors.

`event` is 1 where the event happened and 0 where follow-up was censored; `time` is in years. A subject of weight 2
counts as two. `entry` is left truncation: at risk at the times t with entry < t <= time, as (start, stop] in R. Only
subjects of one of the `strata` share a risk set. Sums of exponentials run in log space, in float32 or better, and none
is a difference of two sums: large scores do not overflow, and the few who are at risk last keep their digits. A score
that is not finite gives a loss that is not finite. Travels with the weights: imports only torch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

TIES = ("efron", "breslow")


def cox_loss(
    log_hazard: Tensor,
    event: Tensor,
    time: Tensor,
    ties: str = "efron",
    *,
    weights: Tensor | None = None,
    entry: Tensor | None = None,
    strata: Tensor | None = None,
) -> Tensor:
    r"""Negative log partial likelihood of Cox's model (1972), mean over events.

    With \(R_i\) the subjects at risk at time \(t_i\), \(D_i\) the \(d\) events that share it and \(\bar w_i\) the mean
    weight of these, an event of rank \(l = 0 \ldots d-1\) among its ties contributes

    \(\bar w_i \log \left( \sum_{j \in R_i} w_j e^{\eta_j} - c \frac{l}{d} \sum_{j \in D_i} w_j e^{\eta_j} \right)
    - w_i \eta_i\),

    c = 1 for Efron (1977) and 0 for Breslow (1974), as in R's `coxph`. O(n log n) time, O(n) memory.

    Args:
        log_hazard: (n,) or (n, 1), the linear predictor \(\eta\).
        event: (n,), 1 = happened, 0 = censored.
        time: (n,), years.
        ties: "efron" or "breslow".
        weights: (n,), case weights, zero or more; 1 where left out.
        entry: (n,), years, before `time`; left truncation, none where left out.
        strata: (n,), integers; one stratum where left out.

    Returns:
        Scalar: the sum over events, divided by the sum of their weights. Without any event in the batch, a zero that
        still carries a gradient. Its gradient cannot be differentiated again with `entry` or `strata`.

    Raises:
        ValueError: lengths that differ, unknown `ties`, an event that is neither 0 nor 1, a time that is not finite,
            an entry at or after `time`, a negative or infinite weight, strata that are no integers.

    Example:
        >>> one, later = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 2.0])
        >>> round(cox_loss(one, event=torch.tensor([1, 0]), time=later).item(), 4)  # log 2: one of two at risk
        0.6931
    """
    total, weight = _partial_likelihood(_risk_sets(log_hazard, event, time, weights, entry, strata), ties)
    return total / torch.where(weight > 0, weight, torch.ones_like(weight))


def cause_specific_loss(
    log_hazards: Tensor,
    cause: Tensor,
    time: Tensor,
    ties: str = "efron",
    *,
    weights: Tensor | None = None,
    entry: Tensor | None = None,
    strata: Tensor | None = None,
) -> Tensor:
    r"""Negative log partial likelihood of cause-specific hazards, mean over events of all causes.

    The likelihood is a product over causes, in each of which the other causes censor (Prentice et al., Biometrics
    34:541, 1978): the sum of `cox_loss` of every cause, weighted by its share of the events.

    Args:
        log_hazards: (n, causes), column c the linear predictor of cause c + 1.
        cause: (n,), 0 = censored, 1 ... causes = what happened first.
        time, ties, weights, entry, strata: as in [`cox_loss`], which has the result and the other errors too.

    Raises:
        ValueError: a cause that is no column of `log_hazards`.
    """
    cause = check_cause(log_hazards, cause)
    parts = []
    for column, log_hazard in enumerate(log_hazards.unbind(dim=1)):
        sets = _risk_sets(log_hazard, cause == column + 1, time, weights, entry, strata)
        parts.append(_partial_likelihood(sets, ties))
    return _mean_over_events(parts)


def endpoint_loss(
    log_hazards: Tensor,
    event: Tensor,
    time: Tensor,
    ties: str = "efron",
    *,
    weights: Tensor | None = None,
    entry: Tensor | None = None,
    strata: Tensor | None = None,
) -> Tensor:
    r"""Negative log partial likelihood of several endpoints, each with a follow-up of its own.

    The sum of `cox_loss` of every endpoint over the subjects whose follow-up for it is known, weighted by its share of
    the events. Endpoints do not censor each other.

    Args:
        log_hazards: (n, endpoints).
        event, time: (n, endpoints), as in [`cox_loss`], NaN where the follow-up of an endpoint is not known.
        ties: as in [`cox_loss`], which has the result and the other errors too.
        weights, entry, strata: (n,), of the subject, as there.

    Raises:
        ValueError: an event or time of another shape than `log_hazards`.
    """
    if not log_hazards.shape == event.shape == time.shape:
        shapes = f"{tuple(event.shape)} and {tuple(time.shape)}"
        raise ValueError(f"event and time: expected {tuple(log_hazards.shape)}, one column an endpoint, got {shapes}")
    parts = []
    for scores, happened, years in zip(*(values.unbind(dim=1) for values in (log_hazards, event, time)), strict=True):
        known = ~(happened.isnan() | years.isnan())
        of_subject = (None if values is None else values[known] for values in (weights, entry, strata))
        if known.any():
            parts.append(
                _partial_likelihood(_risk_sets(scores[known], happened[known], years[known], *of_subject), ties)
            )
    return _mean_over_events(parts) if parts else log_hazards.sum() * 0


def _mean_over_events(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean over the events of all of several partial likelihoods; 0 without any event."""
    total, weight = (torch.stack(values).sum() for values in zip(*parts, strict=True))
    return total / torch.where(weight > 0, weight, torch.ones_like(weight))


def survival_curve(
    log_hazard: Tensor, baseline_times: Tensor, baseline_log_cumulative_hazard: Tensor, years: Tensor
) -> Tensor:
    r"""Probability of being free of the event, \(S(t) = \exp(-H_0(t) e^{\eta})\).

    Args:
        log_hazard: (n,), the linear predictor.
        baseline_times: (knots,), years, ascending, the last one the end of follow-up.
        baseline_log_cumulative_hazard: (knots,), natural logarithm.
        years: (m,), years since the ECG, zero or more.

    Returns:
        (n, m) in float32 or better; 1 before the first event, NaN beyond the end of follow-up: no estimate exists.
    """
    dtype = working_dtype(log_hazard)
    log_cumulative = at_years(baseline_times, baseline_log_cumulative_hazard, years, before=-torch.inf).to(dtype)
    return torch.exp(-torch.exp(log_hazard.to(dtype)[:, None] + log_cumulative[None, :]))


def at_years(times: Tensor, values: Tensor, years: Tensor, before: float) -> Tensor:
    """A step function of the knots (times, values), (..., knots), at `years`, (m,), zero or more: (..., m).

    `before` is its value ahead of the first knot; it is NaN beyond the last, where nothing was observed.
    """
    years = years.to(times.dtype).contiguous()
    refuse("years", ~(years >= 0), years, "zero or more")
    knot = torch.searchsorted(times, years, right=True) - 1
    found = values[..., knot.clamp(min=0)].masked_fill(knot < 0, before)
    beyond = years > times[-1] * (1 + 1e-6)  # the end itself must survive a rounding to float32
    return found.masked_fill(beyond, torch.nan)


class _RiskSets(NamedTuple):
    """Subjects of positive weight in order of strata, in each from the latest time to the first: (n,) each."""

    log_hazard: Tensor
    weight: Tensor
    event: Tensor
    time: Tensor
    group: Tensor
    """Index of the distinct time of the stratum, ascending by one."""
    log_at_risk: Tensor
    """Logarithm of the sum of weighted hazards at risk at the subject's own time."""
    row: Tensor
    """The subject's place in the arguments."""


class EventTable(NamedTuple):
    """Sums over a cohort at its distinct event times, ascending, in float64."""

    times: Tensor
    """(knots,), years."""
    deaths: Tensor
    """(knots,), sum of the weights of the events."""
    log_at_risk: Tensor
    """(knots,), logarithm of the sum of weighted hazards at risk."""
    follow_up_years: float
    """The latest time of the cohort, event or not."""
    subjects: _RiskSets
    """The subjects, and in `knot` below each one's row of this table."""
    knot: Tensor
    """(n,), for events; of no meaning for others."""

    @classmethod
    def of(
        cls,
        log_hazard: Tensor,
        event: Tensor,
        time: Tensor,
        weights: Tensor | None = None,
        entry: Tensor | None = None,
    ) -> "EventTable":
        """Takes the arguments of [`cox_loss`]; log hazards must be finite, and one event must have happened."""
        refuse("log_hazard", ~log_hazard.isfinite(), log_hazard, "finite values")
        sets = _risk_sets(log_hazard.double(), event, time.double(), weights, entry, None)
        if not sets.event.any():
            raise ValueError("event: expected at least one event to fit a baseline hazard, found none")
        groups = int(sets.group[-1]) + 1
        count = sets.weight.new_zeros(groups).index_add(0, sets.group, sets.event.to(sets.weight.dtype))
        deaths = torch.zeros_like(count).index_add(0, sets.group, sets.weight * sets.event)
        member = torch.searchsorted(sets.group, torch.arange(groups, device=count.device))
        chosen = (count > 0).nonzero()[:, 0].flip(0)  # groups run from the latest time to the first
        knot = len(chosen) - torch.cumsum(count > 0, dim=0)[sets.group]
        times, log_at_risk = sets.time[member][chosen], sets.log_at_risk[member][chosen]
        return cls(times, deaths[chosen], log_at_risk, sets.time.max().item(), sets, knot)

    def with_end_of_follow_up(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The times and values, (..., knots), of a step function, with a last knot at the end of follow-up."""
        if self.follow_up_years <= self.times[-1]:
            return self.times, values
        times = torch.cat([self.times, self.times.new_tensor([self.follow_up_years])])
        return times, torch.cat([values, values[..., -1:]], dim=-1)


def _risk_sets(
    log_hazard: Tensor,
    event: Tensor,
    time: Tensor,
    weights: Tensor | None,
    entry: Tensor | None,
    strata: Tensor | None,
) -> _RiskSets:
    log_hazard, event, time, weight, entry = check_sample(log_hazard, event, time, weights, entry)
    stratum = torch.zeros_like(time, dtype=torch.long) if strata is None else _check_strata(strata, len(time))
    weight = torch.ones_like(log_hazard) if weight is None else weight.to(log_hazard.dtype)
    time_key, entry_key = _keys(time, entry, stratum)
    order = torch.argsort(time_key, stable=True)
    if weights is not None:
        order = order[weight[order] > 0]
    log_hazard, weight, event, time = log_hazard[order], weight[order], event[order], time[order]
    keys, group = torch.unique_consecutive(time_key[order], return_inverse=True)
    log_mass = log_hazard if weights is None else log_hazard + weight.log()
    if entry is None and strata is None:
        last = torch.searchsorted(group, group, right=True) - 1  # everyone of that time is at risk
        log_at_risk = torch.logcumsumexp(log_mass, dim=0)[last]
    else:
        last = torch.searchsorted(keys, entry_key[order]) - 1
        log_at_risk = _LogSumOfCovering.apply(log_mass, group, last, len(keys))[group]
    return _RiskSets(log_hazard, weight, event, time, group, log_at_risk, order)


def _keys(time: Tensor, entry: Tensor | None, stratum: Tensor) -> tuple[Tensor, Tensor]:
    """Integers that ascend by stratum, then from the latest time to the first: of `time`, and of `entry`.

    A subject is at risk at the keys from its own to the last one below its entry's.
    """
    values, rank = torch.unique(time if entry is None else torch.cat([time, entry]), return_inverse=True)
    start = stratum * len(values)
    return start - rank[: len(time)], start + 1 if entry is None else start - rank[len(time) :]


def _partial_likelihood(sets: _RiskSets, ties: str) -> tuple[Tensor, Tensor]:
    """Negative log partial likelihood, summed, and the sum of the weights of the events."""
    if ties not in TIES:
        raise ValueError(f"ties: expected one of {', '.join(TIES)}, got {ties!r}")
    zero = torch.zeros_like(sets.log_hazard)
    contribution = torch.where(sets.event, sets.weight * (sets.log_at_risk - sets.log_hazard), zero)
    if ties == "efron":
        contribution = contribution + _efron_correction(sets)
    return contribution.sum(), torch.where(sets.event, sets.weight, zero).sum()


def _efron_correction(sets: _RiskSets) -> Tensor:
    """w log(1 - l/d D/R) of each event: l its rank among the d of its time, w their mean weight, D and R the sums."""
    zero = torch.zeros_like(sets.log_hazard)
    deaths = sets.event.long()
    count = torch.zeros_like(deaths).index_add(0, sets.group, deaths)[sets.group].clamp(min=1)
    earlier = torch.cumsum(deaths, dim=0) - deaths
    rank = earlier - earlier[torch.searchsorted(sets.group, sets.group)]
    share = torch.where(sets.event, sets.weight * torch.exp(sets.log_hazard - sets.log_at_risk), zero)
    share = zero.index_add(0, sets.group, share)[sets.group]
    weight = zero.index_add(0, sets.group, torch.where(sets.event, sets.weight, zero))[sets.group] / count
    fraction = torch.where(sets.event, rank.to(zero.dtype) / count, zero)
    return torch.where(sets.event, weight * torch.log1p(-fraction * share.clamp(max=1.0)), zero)


class _LogSumOfCovering(torch.autograd.Function):
    """log of the sum of exp(values) over the intervals [first, last] that cover each point: (n,) -> (points,).

    Adds positive terms alone. The points are cut in halves, quarters, ...; an interval belongs to the largest cut it
    crosses, and is there a tail of the left part and a head of the right one: cumulative sums in parts of one length.
    O((n + points) log points) time, O(n + points) memory.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, first: Tensor, last: Tensor, points: int) -> Tensor:
        levels = max(points - 1, 0).bit_length()
        crossed, size = first ^ last, 1 << levels
        sums = _scatter_logsumexp(values[crossed == 0], first[crossed == 0], size)
        for level in range(1, levels + 1):
            here = (crossed >> (level - 1)) == 1
            tails = _scatter_logsumexp(values[here], first[here], size)
            heads = _scatter_logsumexp(values[here], last[here], size)
            sums = torch.logaddexp(sums, _halves(tails, heads, level))
        sums = sums[:points]
        ctx.save_for_backward(values, first, last, sums)
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        values, first, last, sums = ctx.saved_tensors
        positive = _log_sum_within(gradient.clamp(min=0).log() - sums, first, last)
        negative = _log_sum_within((-gradient).clamp(min=0).log() - sums, first, last)
        return torch.exp(values + positive) - torch.exp(values + negative), None, None, None


def _log_sum_within(points: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """log of the sum of exp(points) within each interval: (points,) -> (n,), by the cuts of `_LogSumOfCovering`."""
    levels, crossed = max(len(points) - 1, 0).bit_length(), first ^ last
    points = torch.cat([points, points.new_full(((1 << levels) - len(points),), -torch.inf)])
    sums = points[first]
    for level in range(1, levels + 1):
        # a tail of the left part ends at the cut: summed from there, the other way round than above
        here, reach = (crossed >> (level - 1)) == 1, _halves(points, points, level, outward=True)
        sums[here] = torch.logaddexp(reach[first[here]], reach[last[here]])
    return sums


def _halves(left: Tensor, right: Tensor, level: int, outward: bool = False) -> Tensor:
    """Cumulative log sums in every part of 2**level points: of `left` in the first half, of `right` in the second.

    Towards the middle of the part, or `outward` from it.
    """
    left = left.reshape(-1, 2, 1 << (level - 1))[:, 0]
    right = right.reshape(-1, 2, 1 << (level - 1))[:, 1]
    if outward:
        halves = left.flip(1).logcumsumexp(1).flip(1), right.logcumsumexp(1)
    else:
        halves = left.logcumsumexp(1), right.flip(1).logcumsumexp(1).flip(1)
    return torch.stack(halves, dim=1).reshape(-1)


def _scatter_logsumexp(values: Tensor, index: Tensor, size: int) -> Tensor:
    peak = values.new_full((size,), -torch.inf).scatter_reduce(0, index, values, "amax")
    return values.new_zeros(size).index_add(0, index, torch.exp(values - peak[index])).log() + peak


def refuse(name: str, wrong: Tensor, values: Tensor, expected: str) -> None:
    """Raises one line that names the argument, what was expected, and the first value that is wrong."""
    if wrong.any():
        row = int(wrong.nonzero()[0, 0])
        raise ValueError(f"{name}: expected {expected}, got {values[row].item():g} in row {row}")


def check_sample(
    log_hazard: Tensor, event: Tensor, time: Tensor, weights: Tensor | None, entry: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """The arguments of [`cox_loss`] as checked columns: the log hazard in float32 or better, the event as booleans."""
    log_hazard, event, time = log_hazard.reshape(-1), event.reshape(-1), time.reshape(-1)
    if not len(log_hazard) == len(event) == len(time):
        raise ValueError(
            f"log_hazard, event and time: expected one value per subject, got {len(log_hazard)}, {len(event)} "
            f"and {len(time)}"
        )
    refuse("event", (event != 0) & (event != 1), event, "1 (happened) or 0 (censored)")
    refuse("time", ~time.isfinite(), time, "finite years")
    if weights is not None:
        weights = _column("weights", weights, len(event))
        refuse("weights", ~(weights >= 0) | weights.isinf(), weights, "finite case weights of zero or more")
    if entry is not None:
        entry = _column("entry", entry, len(event))
        refuse("entry", ~(entry < time), entry, "years before `time`")
    return log_hazard.to(working_dtype(log_hazard)), event.bool(), time, weights, entry


def _check_strata(strata: Tensor, subjects: int) -> Tensor:
    strata = _column("strata", strata, subjects)
    if strata.is_floating_point() or strata.is_complex():
        raise ValueError(f"strata: expected integers, got {strata.dtype}")
    index: Tensor = torch.unique(strata, return_inverse=True)[1]
    return index


def check_cause(log_hazards: Tensor, cause: Tensor) -> Tensor:
    """(n,) integers, 0 (censored) or a column of log hazards (n, causes), counted from 1."""
    if log_hazards.ndim != 2 or log_hazards.shape[1] == 0:
        raise ValueError(f"log_hazards: expected (subjects, causes), got {tuple(log_hazards.shape)}")
    cause, causes = _column("cause", cause, len(log_hazards)), log_hazards.shape[1]
    wrong = ~((cause >= 0) & (cause <= causes) & (cause == cause.long()))
    refuse("cause", wrong, cause, f"0 (censored) or 1 to {causes}")
    labels: Tensor = cause.long()
    return labels


def _column(name: str, values: Tensor, subjects: int) -> Tensor:
    values = values.reshape(-1)
    if len(values) != subjects:
        raise ValueError(f"{name}: expected one value per subject, {subjects}, got {len(values)}")
    return values


def working_dtype(values: Tensor) -> torch.dtype:
    """Float32, or float64 where the values have it: half precision is too coarse for sums over risk sets."""
    return torch.promote_types(values.dtype, torch.float32)
