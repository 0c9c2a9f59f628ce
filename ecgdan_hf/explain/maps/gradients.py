"""Attribution by gradients: how much each sample of each lead adds to a score.

Pure functions of a score (see `scores`) and its inputs, in the score's unit: logits or log hazard. The lead mask,
covariates and the weights of DANet's hard module are held fixed. Captum has both methods and is the oracle of the
tests; the code here doubles its steps until completeness holds, and needs no further dependency.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecgdan_hf.explain.maps.scores import Inputs, Score

FloatArray = npt.NDArray[np.float64]

_FIRST_STEPS = 16


@dataclass(frozen=True)
class _Integrated:
    """Integrated gradients of N records.

    Attributes:
        attribution: (N, L, T).
        gap: (N,), error of completeness: sum of the attribution minus (score(whole) - score(baseline)).
        change: (N,), score(whole) - score(baseline).
        steps: number of points on the path.
    """

    attribution: FloatArray
    gap: FloatArray
    change: FloatArray
    steps: int

    @property
    def incompleteness(self) -> FloatArray:
        """(N,), the gap as a share of the change, or of 1 % of the map's absolute sum if that is larger.

        The second bound matters where flat line and ECG have nearly the same score.
        """
        floor = 0.01 * np.abs(self.attribution).sum(axis=(1, 2))
        return np.asarray(np.abs(self.gap) / np.maximum(np.maximum(np.abs(self.change), floor), np.finfo(float).tiny))


def gradient_times_input(score: Score, inputs: Inputs) -> FloatArray:
    """Gradient x input: a(l, t) = x(l, t) dF / dx(l, t) (Shrikumar et al., arXiv 1605.01713, 2016).

    Exact for a score that is linear in the ECG. A sample at zero always gets 0.

    Args:
        score: of [`score_of`].
        inputs: (N, ...).

    Returns:
        (N, L, T), in the score's unit; 0 in absent leads.
    """
    values = _values(inputs)
    return _numpy(_gradient(score, inputs, values) * values)


def integrated_gradients(
    score: Score, inputs: Inputs, baseline: Tensor | None = None, tolerance: float | None = 0.05, max_steps: int = 512
) -> _Integrated:
    """Integrated gradients (Sundararajan, Taly and Yan, ICML 2017, arXiv 1703.01365).

        a = (x - x') * integral over u from 0 to 1 of dF/dx (x' + u (x - x')),  midpoint rule, steps doubled
        completeness: sum of a = F(x) - F(x')

    The default baseline x' is the flat line, 0 after scaling: the mean of each lead with z-scored leads, about 0 mV
    with one scale for all leads. No ECG is flat, so the network never saw inputs like the start of the path. The leads
    of the baseline count as recorded. The paper's trunk normalises every record in its stem and sees even the faintest
    ECG on the path at full strength, so nearly all change happens next to the flat line and no number of steps may be
    enough. Use another baseline there, or occlusion.

    Args:
        score: of [`score_of`].
        inputs: (N, ...).
        baseline: (N, L, T) or broadcast to it, scaled as `input_values`.
        tolerance: largest allowed `incompleteness` of a record. None uses `max_steps` points without a check.
        max_steps: largest number of points on the path.

    Raises:
        ValueError: completeness does not hold with `max_steps`.
    """
    values = _values(inputs)
    start = torch.zeros_like(values) if baseline is None else baseline.to(values).expand_as(values)
    with torch.no_grad():
        change = _numpy(score(inputs) - score({**inputs, "input_values": start}))
    steps = max_steps if tolerance is None else min(_FIRST_STEPS, max_steps)
    while True:
        attribution = _numpy(_mean_gradient(score, inputs, start, values, steps) * (values - start))
        found = _Integrated(attribution, attribution.sum(axis=(1, 2)) - change, change, steps)
        if tolerance is None or (found.incompleteness <= tolerance).all():
            return found
        if steps >= max_steps:
            worst = int(np.argmax(found.incompleteness))
            raise ValueError(
                f"integrated gradients: not complete after {steps} steps: record {worst}'s map sums to "
                f"{found.gap[worst] + change[worst]:.4f}, its score changes by {change[worst]:.4f}; try occlusion"
            )
        steps = min(2 * steps, max_steps)


def _mean_gradient(score: Score, inputs: Inputs, start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Mean of the gradient over the middles of `steps` equal parts of the path."""
    total = torch.zeros_like(end)
    for step in range(steps):
        total += _gradient(score, inputs, start + (step + 0.5) / steps * (end - start))
    return total / steps


def _gradient(score: Score, inputs: Inputs, values: Tensor) -> Tensor:
    with torch.enable_grad():
        given = values.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(score({**inputs, "input_values": given}).sum(), given)
    return gradient


def _values(inputs: Inputs) -> Tensor:
    """`input_values`, 0 in absent leads."""
    values = inputs["input_values"].float()
    mask = inputs.get("lead_mask")
    return values if mask is None else values.masked_fill(~mask.bool()[:, :, None], 0)


def _numpy(values: Tensor) -> FloatArray:
    return values.detach().double().cpu().numpy()
