"""What trunks and heads share: how a trunk is built, dropout with one mask for the whole batch, the heads' norm.

Travels with the weights: imports only torch and its neighbour in this folder.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_ecgdan import EcgDanConfig


class Trunk(NamedTuple):
    """Builds the parts of one trunk from a configuration."""

    blocks: Callable[[EcgDanConfig], dict[str, nn.Module | None]]
    """The children of [`EcgDanModel`] by name; an attention that is switched off is None."""
    decoder: Callable[[EcgDanConfig], nn.Module]
    """Reads `pooler_output` and `readout_features` of the encoder's output: the signal (N, L, T)."""


class EcgDanDropout(nn.Module):
    """Dropout by element, or (`scope="batch"`) with one mask for every record of the batch."""

    def __init__(self, p: float, scope: str):
        super().__init__()
        self.p, self.scope = p, scope

    def forward(self, hidden: Tensor, batch_dim: int = 0) -> Tensor:
        """Same shape in and out; `batch_dim` is where the records are."""
        if not self.training or self.p == 0:
            return hidden
        if self.scope == "element":
            return F.dropout(hidden, self.p)
        return hidden * F.dropout(torch.ones_like(hidden.narrow(batch_dim, 0, 1)), self.p)


class EcgDanHeadNorm(nn.BatchNorm1d):
    """Batch norm over (N, C). A record alone has no variance: it is scaled by the running statistics, which stay."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C) -> (N, C)."""
        if self.training and input.shape[0] == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        normalized: Tensor = super().forward(input)
        return normalized
