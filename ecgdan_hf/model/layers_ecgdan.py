"""Dropout with one mask for each record or one for the whole batch, used by both trunks and by the heads.

Travels with the weights: imports only torch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
