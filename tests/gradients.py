"""Which parameters a loss teaches, told by the size of their gradients in float64.

Some parameters cannot learn: a bias before a batch norm, a constant added to every log hazard. Their gradient is zero
but for rounding, and an optimiser like Adam turns rounding into a full step on one machine and into none on another.
In float64 rounding lies far below `ROUNDING`, a share of the largest gradient, and real gradients lie far above it.
"""

import torch
from torch import nn

ROUNDING = 1e-9

CONSTANT_IN_THE_LOG_HAZARD = {"risk_head.hidden_norm.bias", "risk_head.output.bias"}
"""The partial likelihood ignores a constant added to all log hazards."""
CONSTANT_BEFORE_A_NORM = {"ecgdan.readout.norm.bias"}
"""Of the light trunk, where no record misses a lead: a batch norm follows."""


def untaught_parameters(model: nn.Module, batch: dict, steps: int = 1) -> set[str]:
    """The names of parameters to which the loss is invariant.

    Args:
        model: in training mode; changed to float64 and trained by `steps` steps.
        batch: arguments of `forward`.
        steps: gradients to look at; more than one where a weight of zero hides others from the first.
    """
    model.double()
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    size: dict[str, float] = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        found = {name: float(p.grad.abs().max()) for name, p in model.named_parameters() if p.grad is not None}
        size |= {name: max(size[name], value / max(found.values())) for name, value in found.items()}
        optimizer.step()
    return {name for name, value in size.items() if value < ROUNDING}
