"""Small parts that both trunks of the dual attention network are made of.

Travels with the weights: imports nothing but torch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Sine and cosine position encoding of Vaswani et al. (2017), interleaved: (length, width)."""
    angle = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


def attention_weights(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
    """Softmax attention (N, heads, queries, keys) in float32; `mask` is true where a key may be read."""
    scores = (query @ key.transpose(-1, -2)).float() * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """Plain attention, (N, heads, tokens, width) -> (N, tokens, heads, width) and the weights."""
    weights = attention_weights(query, key, scaling, attention_mask)
    return (weights.to(value.dtype) @ value).transpose(1, 2), weights


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


class EcgDanDropPath(nn.Module):
    """Skips a residual branch for some records (stochastic depth), or for the whole batch with `scope="batch"`."""

    def __init__(self, p: float, scope: str):
        super().__init__()
        self.p, self.scope = p, scope

    def forward(self, branch: Tensor) -> Tensor:
        """Same shape in and out, the records in front."""
        if not self.training or self.p == 0:
            return branch
        records = 1 if self.scope == "batch" else len(branch)
        return branch * F.dropout(branch.new_ones(records, *[1] * (branch.ndim - 1)), self.p)
