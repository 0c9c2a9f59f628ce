"""Survival likelihoods and absolute risk as pure functions of tensors.

Cox (1972) partial likelihood with the tie corrections of Breslow (1974) and Efron (1977), the Breslow estimator of the
baseline hazard, and survival curves. `event` is 1 where the event happened and 0 where follow-up was censored; `time`
is in years and positive. All sums of exponentials run in log space and in float32 or better, so that adding a constant
to every log hazard changes nothing and large scores do not overflow.

Travels with the weights: imports nothing but torch.
"""

import torch
from torch import Tensor

TIES = ("efron", "breslow")


def cox_loss(log_hazard: Tensor, event: Tensor, time: Tensor, ties: str = "efron") -> Tensor:
    r"""Negative log partial likelihood of Cox's model, mean over events.

    With \(R_i\) the subjects still at risk at time \(t_i\) and \(D_i\) the \(d\) events that share it, an event of
    rank \(l = 0 \ldots d-1\) among its ties contributes

    \(\log \left( \sum_{j \in R_i} e^{\eta_j} - c \frac{l}{d} \sum_{j \in D_i} e^{\eta_j} \right) - \eta_i\),

    c = 1 for Efron and 0 for Breslow. O(n log n) time, O(n) memory.

    Args:
        log_hazard: (n,) or (n, 1), the linear predictor \(\eta\).
        event: (n,), 1 = happened, 0 = censored.
        time: (n,), years.
        ties: "efron" or "breslow".

    Returns:
        Scalar. Without any event in the batch, a zero that still carries a gradient.

    Raises:
        ValueError: lengths that differ, or unknown `ties`.

    Example:
        >>> one, later = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 2.0])
        >>> round(cox_loss(one, event=torch.tensor([1, 0]), time=later).item(), 4)  # log 2: one of two at risk
        0.6931
    """
    if ties not in TIES:
        raise ValueError(f"ties: expected one of {', '.join(TIES)}, got {ties!r}")
    log_hazard, event, time = _as_columns(log_hazard, event, time)
    order = torch.argsort(time, descending=True, stable=True)
    log_hazard, event, time = log_hazard[order], event[order], time[order]
    group = _tie_group(time)
    log_at_risk = _at_group_end(torch.logcumsumexp(log_hazard, dim=0), group)
    if ties == "efron":
        log_at_risk = log_at_risk + _efron_correction(log_hazard, event, group, log_at_risk)
    contribution = torch.where(event, log_at_risk - log_hazard, torch.zeros_like(log_hazard))
    return contribution.sum() / event.sum().clamp(min=1)


def breslow_baseline(log_hazard: Tensor, event: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    r"""Breslow's estimate of the cumulative baseline hazard at each distinct event time.

    \(H_0(t) = \sum_{t_i \le t} d_i / \sum_{j \in R_i} e^{\eta_j}\) (Breslow 1974), computed in float64. The last
    knot is the end of follow-up, event or not: beyond it nothing was observed.

    Args:
        log_hazard: (n,), the fitted linear predictor.
        event: (n,), 1 = happened, 0 = censored.
        time: (n,), years.

    Returns:
        times: (knots,), years, ascending; and log_cumulative_hazard: (knots,), natural logarithm of \(H_0\).

    Raises:
        ValueError: no event at all, or lengths that differ.
    """
    log_hazard, event, time = _as_columns(log_hazard.double(), event, time.double())
    if not event.any():
        raise ValueError("event: expected at least one event to fit a baseline hazard, found none")
    order = torch.argsort(time, descending=True, stable=True)
    log_hazard, event, time = log_hazard[order], event[order], time[order]
    group = _tie_group(time)
    log_at_risk = _at_group_end(torch.logcumsumexp(log_hazard, dim=0), group)
    knots = torch.unique_consecutive(time[event]).flip(0)
    log_step = torch.where(event, -log_at_risk, torch.full_like(time, -torch.inf)).flip(0)
    log_cumulative = torch.logcumsumexp(log_step[event.flip(0)], dim=0)
    last_of_knot = torch.searchsorted(time[event].flip(0), knots, right=True) - 1
    log_cumulative = log_cumulative[last_of_knot]
    if time[0] > knots[-1]:
        knots, log_cumulative = torch.cat([knots, time[:1]]), torch.cat([log_cumulative, log_cumulative[-1:]])
    return knots, log_cumulative


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

    Raises:
        ValueError: negative years.
    """
    dtype = torch.promote_types(log_hazard.dtype, torch.float32)
    years = years.to(baseline_times.dtype)
    if (years < 0).any():
        raise ValueError(f"years: expected zero or more, got {years.min().item():g}")
    knot = torch.searchsorted(baseline_times, years.contiguous(), right=True) - 1
    log_cumulative = baseline_log_cumulative_hazard[knot.clamp(min=0)].to(dtype)
    log_cumulative = log_cumulative.masked_fill(knot < 0, -torch.inf)
    beyond = years > baseline_times[-1] * (1 + 1e-6)  # the end itself must survive a rounding to float32
    log_cumulative = log_cumulative.masked_fill(beyond, torch.nan)
    return torch.exp(-torch.exp(log_hazard.to(dtype)[:, None] + log_cumulative[None, :]))


def _as_columns(log_hazard: Tensor, event: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    log_hazard, event, time = log_hazard.reshape(-1), event.reshape(-1), time.reshape(-1)
    if not len(log_hazard) == len(event) == len(time):
        raise ValueError(
            f"log_hazard, event and time: expected one value per subject, got {len(log_hazard)}, {len(event)} "
            f"and {len(time)}"
        )
    return log_hazard.to(torch.promote_types(log_hazard.dtype, torch.float32)), event.bool(), time


def _tie_group(time: Tensor) -> Tensor:
    """Index of each subject's distinct time, for times already sorted: (n,)."""
    new = torch.ones_like(time, dtype=torch.long)
    new[1:] = (time[1:] != time[:-1]).long()
    return torch.cumsum(new, dim=0) - 1


def _at_group_end(cumulative: Tensor, group: Tensor) -> Tensor:
    """The cumulative value at the last member of each subject's tie group: everyone with that time is at risk."""
    last = torch.searchsorted(group, group, right=True) - 1
    return cumulative[last]


def _efron_correction(log_hazard: Tensor, event: Tensor, group: Tensor, log_at_risk: Tensor) -> Tensor:
    """log(1 - l/d * D/R) for each event, l its rank among the d events of its time, D and R the sums of hazards."""
    deaths = event.long()
    count = torch.zeros_like(deaths).index_add(0, group, deaths)[group]
    cumulative = torch.cumsum(deaths, dim=0)
    first = torch.searchsorted(group, group, right=False)
    rank = cumulative - deaths - (cumulative - deaths)[first]
    share = torch.where(event, torch.exp(log_hazard - log_at_risk), torch.zeros_like(log_hazard))
    share = torch.zeros_like(share).index_add(0, group, share)[group]
    fraction = torch.where(event, rank.to(share.dtype) / count.clamp(min=1), torch.zeros_like(share))
    return torch.log1p(-fraction * share.clamp(max=1.0))
