r"""Survival on a grid of intervals: likelihood and curves of a discrete-time logistic hazard.

Pure functions of logits (n, intervals), for a network that gives the shape of the hazard too and not its size alone
(Tutz and Schmid, Modeling Discrete Time-to-Event Data, 2016; Gensheimer and Narasimhan, PeerJ 7:e6257, 2019).

Travels with the weights: imports only torch.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from .survival_ecgdan import check_sample, refuse, working_dtype


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

    Args:
        logits: (n, intervals).
        event, time, weights, entry: as in `cox_loss`; `time` after cuts[0], `entry` cuts[0] where left out.
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
    cuts = _check_cuts(logits, cuts)
    _, event, time, weight, start = check_sample(logits[:, 0], event, time, weights, entry)
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
    survived = (exposed.masked_fill(happened, 0) * logsigmoid(-logits)).sum(dim=1)
    log_died = _log_died(logits.gather(1, died[:, None])[:, 0], in_event.to(exposed.dtype))
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
    cuts = _check_cuts(logits, cuts)
    years = years.to(cuts.dtype).contiguous()
    refuse("years", ~(years >= 0), years, "zero or more")
    log_survived = logsigmoid(-logits.to(working_dtype(logits)))  # (n, intervals)
    before = torch.cumsum(log_survived, dim=1) - log_survived
    interval = (torch.searchsorted(cuts, years) - 1).clamp(min=0, max=len(cuts) - 2)
    part = ((years - cuts[interval]) / cuts.diff()[interval]).clamp(min=0, max=1).to(before.dtype)
    log_survival = before[:, interval] + part * log_survived[:, interval]
    return torch.exp(log_survival).masked_fill(years > cuts[-1] * (1 + 1e-6), torch.nan)


def _log_died(logit: Tensor, exposed: Tensor) -> Tensor:
    """log(1 - (1 - h)^exposed), h = sigmoid(logit): (n,). Below the floor it is a straight line of slope 1."""
    eps = torch.finfo(logit.dtype).eps
    floored = logit.clamp(min=math.log(eps))
    return torch.log(-torch.expm1(exposed.clamp(min=eps) * logsigmoid(-floored))) + (logit - floored)


def _check_cuts(logits: Tensor, cuts: Tensor) -> Tensor:
    if logits.ndim != 2 or cuts.ndim != 1 or len(cuts) != logits.shape[1] + 1 or len(cuts) < 2:
        raise ValueError(
            f"cuts: expected one more than the intervals of logits, got {tuple(cuts.shape)} for {tuple(logits.shape)}"
        )
    if not (cuts.isfinite().all() and (cuts.diff() > 0).all()):
        raise ValueError(f"cuts: expected finite years in ascending order, got {cuts.tolist()}")
    return cuts if cuts.is_floating_point() else cuts.float()
