r"""Survival on a grid of intervals: likelihood and curves of a discrete-time logistic hazard, also of several causes.

Pure functions of logits (n, intervals) or (n, causes, intervals), for a network that gives the shape of the hazard too
and not its size alone (Tutz and Schmid, Modeling Discrete Time-to-Event Data, 2016; Gensheimer and Narasimhan, PeerJ
7:e6257, 2019). Of several causes each has a hazard that is constant inside an interval; see [`discrete_incidence`].

Travels with the weights: imports only torch.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot, softplus

from .survival_ecgdan import check_cause, check_sample, refuse, working_dtype


def discrete_time_loss(
    logits: Tensor,
    event: Tensor,
    time: Tensor,
    cuts: Tensor,
    weights: Tensor | None = None,
    entry: Tensor | None = None,
) -> Tensor:
    r"""Negative log likelihood of a discrete-time logistic hazard, mean over subjects.

    Interval k is (cuts[k], cuts[k+1]] and \(h_k\) = sigmoid(logits[:, k]) the probability of the event in it given
    that it began without. A subject seen in a part f of interval k survives it with \((1 - h_k)^f\), the hazard being
    constant inside an interval: censoring in an interval is worth the part before it, entry the part after it. With S
    of [`discrete_survival`], \(u_k\) = cuts[k], and e = entry or cuts[0], whichever is later, a subject contributes

    * censored at t: \(-\log S(t) + \log S(e)\);
    * event in interval k: \(-\log(S(\max(u_k, e)) - S(u_{k+1})) + \log S(e)\). Where in k it happened does not enter.

    With censoring and entry at cuts it is the logistic regression of person-periods (Tutz and Schmid 2016, section 3).
    What happens after the last cut counts as censored there.

    Of several causes, cause c has the cumulative hazard \(\Lambda_{ck} = -\log(1 - h_{ck})\) in interval k, and S is
    the survival free of all. An event of cause c in interval k then contributes in addition
    \(-\log(\Lambda_{ck} / \sum_j \Lambda_{jk})\), the chance that it was this cause.

    Args:
        logits: (n, intervals) or (n, causes, intervals).
        event, time, weights, entry: as in `cox_loss`, but with causes `event` is 0 (censored), 1, ... causes; `time`
            after cuts[0], `entry` cuts[0] where left out.
        cuts: (intervals + 1,), years, ascending.

    Returns:
        Scalar: the weighted sum over subjects, divided by the sum of weights.

    Raises:
        ValueError: as `cox_loss`, a time before the first cut, or cuts that are not ascending or not one more than
            the intervals.

    Example:
        >>> cuts = torch.tensor([0.0, 1.0, 2.0])  # hazards of 1/2; censored half-way through the second interval
        >>> loss = discrete_time_loss(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1.5]), cuts)
        >>> round(loss.item() / math.log(2), 4)
        1.5
    """
    cuts, logits = _check_cuts(logits, cuts), _with_causes(logits)
    cause = check_cause(logits[..., 0], event) if logits.shape[1] > 1 else event
    happened_at_all = cause.clamp(max=1) if logits.shape[1] > 1 else cause
    _, event, time, weight, start = check_sample(logits[:, 0, 0], happened_at_all, time, weights, entry)
    dtype = torch.promote_types(time.dtype, cuts.dtype)
    time, cuts = time.to(dtype), cuts.to(dtype)
    refuse("time", time <= cuts[0], time, f"years after the first cut, {cuts[0].item():g}")
    lower, upper, width = cuts[:-1], cuts[1:], cuts.diff()
    start = cuts[0].expand(len(time)) if start is None else start.clamp(min=cuts[0].item())
    died = (torch.searchsorted(cuts, time.contiguous()) - 1).clamp(max=len(width) - 1)
    event = event & (time <= cuts[-1])
    seen = torch.minimum(time[:, None], upper) - torch.maximum(start[:, None], lower)  # (n, intervals), years
    exposed = (seen.clamp(min=0) / width).to(working_dtype(logits))
    in_event = (upper[died] - torch.maximum(start, lower[died])) / width[died]  # 1 unless entry is in that interval
    logits = logits.to(exposed.dtype)
    happened = one_hot(died, len(width)).bool() & event[:, None]
    survived = -(exposed.masked_fill(happened, 0) * softplus(logits).sum(dim=1)).sum(dim=1)
    log_hazards = _log_hazard(logits[torch.arange(len(died), device=died.device), :, died])  # (n, causes)
    of_all = log_hazards.logsumexp(dim=1)
    of_cause = log_hazards.gather(1, (cause.reshape(-1, 1).long() - 1).clamp(min=0))[:, 0]
    log_died = of_cause - of_all + _log_died(of_all, in_event.to(exposed.dtype))
    contribution = survived + torch.where(event, log_died, torch.zeros_like(survived))
    weight = torch.ones_like(survived) if weight is None else weight.to(survived.dtype)
    total = weight.sum()
    return -(weight * contribution).sum() / torch.where(total > 0, total, torch.ones_like(total))


def discrete_survival(logits: Tensor, cuts: Tensor, years: Tensor) -> Tensor:
    r"""Probability of being free of the event under a discrete-time logistic hazard.

    \(S(t) = (1 - h_k)^f \prod_{j < k} (1 - h_j)\) for t a part f of the way through interval k: the logarithm of S is
    interpolated linearly, the hazard being constant inside an interval, as [`discrete_time_loss`] has it.

    Args:
        logits, cuts: as in [`discrete_time_loss`].
        years: (m,), years since the ECG, zero or more.

    Returns:
        (n, m) in float32 or better; 1 up to the first cut, NaN beyond the last: no estimate exists.
    """
    if logits.ndim != 2:
        raise ValueError(f"logits: expected (subjects, intervals), got {tuple(logits.shape)}")
    interval, part, beyond = _places(logits, cuts, years)
    log_survived = logsigmoid(-logits.to(working_dtype(logits)))  # (n, intervals)
    before = torch.cumsum(log_survived, dim=1) - log_survived
    log_survival = before[:, interval] + part.to(before.dtype) * log_survived[:, interval]
    return torch.exp(log_survival).masked_fill(beyond, torch.nan)


def discrete_incidence(logits: Tensor, cuts: Tensor, years: Tensor) -> Tensor:
    r"""Cumulative incidence of each cause under discrete-time logistic hazards.

    \(F_c(t) = \sum_{j < k} S(u_j) (1 - e^{-\Lambda_j}) \Lambda_{cj} / \Lambda_j\), with the notation of
    [`discrete_time_loss`] and \(\Lambda_j\) the sum over causes, and of the interval that t is in the part before t.
    The incidences and S add up to 1; with one cause F is one minus [`discrete_survival`].

    Args:
        logits: (n, intervals) or (n, causes, intervals).
        cuts, years: as in [`discrete_survival`].

    Returns:
        (n, causes, m) in float32 or better; NaN beyond the last cut.
    """
    interval, part, beyond = _places(logits, cuts, years)
    hazards = softplus(_with_causes(logits.to(working_dtype(logits))))  # (n, causes, intervals)
    total = hazards.sum(dim=1, keepdim=True)
    share = hazards / total.clamp(min=torch.finfo(total.dtype).tiny)
    survival = torch.exp(total - torch.cumsum(total, dim=2))  # at the start of each interval
    steps = survival * -torch.expm1(-total) * share
    before = torch.cumsum(steps, dim=2) - steps
    inside = survival * share
    last = inside[:, :, interval] * -torch.expm1(-part.to(total.dtype) * total[:, :, interval])
    return (before[:, :, interval] + last).masked_fill(beyond, torch.nan)


def log_cumulative_hazard(logits: Tensor) -> Tensor:
    """Logarithm of the cumulative hazard up to the last cut: (..., intervals) -> (...). It orders subjects."""
    return _log_hazard(logits.to(working_dtype(logits))).logsumexp(dim=-1)


def marginal_logits(event: Tensor, time: Tensor, cuts: Tensor, causes: int = 1, entry: Tensor | None = None) -> Tensor:
    """Logits under which all subjects share one hazard: events over years at risk in each interval.

    Args:
        event, time, cuts, entry: as in [`discrete_time_loss`].
        causes: how many there are.

    Returns:
        (causes, intervals), from which training starts; half an event is added where none happened.
    """
    time, cuts = time.double().reshape(-1, 1), cuts.double()
    lower, upper = cuts[:-1], cuts[1:]
    start = lower if entry is None else torch.maximum(entry.double().reshape(-1, 1), lower)
    exposed = ((torch.minimum(time, upper) - start).clamp(min=0) / cuts.diff()).sum(dim=0)
    inside = (time > lower) & (time <= upper)
    codes = torch.arange(1, causes + 1, device=event.device)[:, None, None]
    deaths = (inside & (event.reshape(-1, 1) == codes)).sum(dim=1).double()
    hazards = deaths.clamp(min=0.5) / exposed.clamp(min=1.0)
    return hazards.expm1().log().float()


def _places(logits: Tensor, cuts: Tensor, years: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The interval of each of `years`, the part of it that lies before, and whether it is beyond the last cut."""
    cuts = _check_cuts(logits, cuts)
    years = years.to(cuts.dtype).contiguous()
    refuse("years", ~(years >= 0), years, "zero or more")
    interval = (torch.searchsorted(cuts, years) - 1).clamp(min=0, max=len(cuts) - 2)
    part = ((years - cuts[interval]) / cuts.diff()[interval]).clamp(min=0, max=1)
    return interval, part, years > cuts[-1] * (1 + 1e-6)


def _with_causes(logits: Tensor) -> Tensor:
    return logits if logits.ndim == 3 else logits[:, None]


def _log_hazard(logits: Tensor) -> Tensor:
    """log(-log(1 - h)), h = sigmoid(logits): the logarithm of softplus, which keeps its digits where h is tiny."""
    floor = -15.0
    return softplus(logits.clamp(min=floor)).log() + (logits - logits.clamp(min=floor))


def _log_died(log_hazard: Tensor, exposed: Tensor) -> Tensor:
    """log(1 - exp(-exposed * hazard)): (n,). Below a floor it is a straight line of slope 1."""
    eps = torch.finfo(log_hazard.dtype).eps
    log_exposed = log_hazard + exposed.clamp(min=eps).log()
    floored = log_exposed.clamp(min=math.log(eps))
    return torch.log(-torch.expm1(-floored.exp())) + (log_exposed - floored)


def _check_cuts(logits: Tensor, cuts: Tensor) -> Tensor:
    if logits.ndim not in (2, 3) or cuts.ndim != 1 or len(cuts) != logits.shape[-1] + 1 or len(cuts) < 2:
        raise ValueError(
            f"cuts: expected one more than the intervals of logits, got {tuple(cuts.shape)} for {tuple(logits.shape)}"
        )
    if not (cuts.isfinite().all() and (cuts.diff() > 0).all()):
        raise ValueError(f"cuts: expected finite years in ascending order, got {cuts.tolist()}")
    return cuts if cuts.is_floating_point() else cuts.float()
