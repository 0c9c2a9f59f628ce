"""Blocks of the paper trunk: the dual attention network of arXiv 2403.10581, on one median beat or 10 s of rhythm.

A stem and residual blocks with (1, 5) kernels along time, shared by the leads; one temporal attention block per lead;
one attention block across leads. `lead_layout="reference"` computes what the authors' released network computes.
Shapes: N records, L leads, C channels, T samples, T' = T / 32 tokens; tensors are (N, C, L, T').
Travels with the weights: imports only torch, transformers and its neighbours in this folder.
"""

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_ecgdan import EcgDanConfig
from .layers_ecgdan import EcgDanDropout, Trunk


def _blocks(config: EcgDanConfig) -> dict[str, nn.Module | None]:
    channels = [config.stem_features, *config.trunk_channels]
    width = config.num_leads * channels[-1]
    blocks: dict[str, nn.Module | None] = {
        "stem": _Stem(config),
        "trunk": nn.ModuleList(
            _ResidualBlock(before, after, "down") for before, after in itertools.pairwise(channels)
        ),
        "time_attention": _TimeAttention(config) if config.use_time_attention else None,
        "lead_attention": _LeadAttention(config) if config.use_lead_attention else None,
        "beats": None,
    }
    if config.lead_layout == "reference" and not config.use_lead_attention:
        # unused, but part of the authors' ablation and so of its checkpoints and parameter count
        blocks["unused_norm"] = nn.LayerNorm(channels[-1] * config.num_tokens)
    blocks["average_projection"] = nn.Conv1d(width, config.hidden_size // 2, 1)
    blocks["max_projection"] = nn.Conv1d(width, config.hidden_size // 2, 1)
    return blocks


class _Stem(nn.Module):
    """(N, L, T) -> (N, features, L, T): a few features per lead and sample.

    Both convolutions are grouped by lead, and so is each GroupNorm, so that leads stay apart. The reference layout
    leaves the second convolution ungrouped and reads the lead-major channels as (feature, lead), which mixes leads.
    """

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        self.leads, self.features = config.num_leads, config.stem_features
        self.lead_true = config.lead_layout == "lead_true"
        channels = self.leads * self.features
        groups = self.leads if self.lead_true else 1
        self.conv1 = nn.Conv1d(self.leads, channels, 5, padding=2, groups=self.leads)
        self.norm1 = nn.GroupNorm(self.leads, channels)
        self.conv2 = nn.Conv1d(channels, channels, 5, padding=2, groups=groups)
        self.norm2 = nn.GroupNorm(self.leads, channels)

    def forward(self, signal: Tensor) -> Tensor:
        hidden = F.gelu(self.norm1(self.conv1(signal)))
        hidden = F.gelu(self.norm2(self.conv2(hidden)))
        if self.lead_true:
            features: Tensor = hidden.unflatten(1, (self.leads, self.features)).transpose(1, 2)
        else:
            features = hidden.unflatten(1, (self.features, self.leads))
        return features.contiguous(memory_format=torch.channels_last)  # half the backward time with so few channels


class _ResidualBlock(GradientCheckpointingLayer):
    """Two (1, 5) convolutions and a shortcut. `direction` is "down" (time halves), "up" (doubles) or "same"."""

    def __init__(self, in_channels: int, out_channels: int, direction: str):
        super().__init__()
        self.upsample = (
            nn.ConvTranspose2d(in_channels, in_channels, (1, 4), (1, 2), (0, 1)) if direction == "up" else None
        )
        self.pool = nn.MaxPool2d((1, 2)) if direction == "down" else nn.Identity()
        stride = (1, 2) if direction == "down" else 1
        self.conv1 = nn.Conv2d(in_channels, out_channels, (1, 5), stride, (0, 2), bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, (1, 5), 1, (0, 2), bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=direction != "up")

    def forward(self, hidden: Tensor) -> Tensor:
        if self.upsample is None:
            identity = self.shortcut(self.pool(hidden))
        else:
            identity = hidden = self.shortcut(self.upsample(hidden))
        main = F.leaky_relu(self.norm1(self.conv1(hidden)))
        main = F.leaky_relu(self.norm2(self.conv2(main)))
        return F.gelu(main + identity)


class _TimeAttention(GradientCheckpointingLayer):
    """One pre-norm attention block per lead over that lead's tokens, all leads in one batched computation.

    The leads' weights are stacked in front; lead l is block l of the paper.
    """

    positions: Tensor

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        leads, width, inner = config.num_leads, config.trunk_channels[-1], config.trunk_channels[-1] * config.mlp_ratio
        self.heads = config.num_attention_heads
        self.scaling = (width // self.heads) ** -0.5
        self.register_buffer("positions", _sinusoidal_positions(config.num_tokens, width), persistent=False)
        self.norm1_weight, self.norm1_bias = self._parameter(leads, 1, width), self._parameter(leads, 1, width)
        self.norm2_weight, self.norm2_bias = self._parameter(leads, 1, width), self._parameter(leads, 1, width)
        self.qkv_weight, self.qkv_bias = self._parameter(leads, 3 * width, width), self._parameter(leads, 1, 3 * width)
        self.out_weight, self.out_bias = self._parameter(leads, width, width), self._parameter(leads, 1, width)
        self.fc1_weight, self.fc1_bias = self._parameter(leads, inner, width), self._parameter(leads, 1, inner)
        self.fc2_weight, self.fc2_bias = self._parameter(leads, width, inner), self._parameter(leads, 1, width)
        self.dropout = EcgDanDropout(config.mlp_dropout, config.dropout_scope)

    @staticmethod
    def _parameter(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.empty(shape))

    def initialise(self) -> None:
        """Xavier for each lead's own matrix; the position encoding, which no checkpoint carries, is refilled."""
        init.copy_(self.positions, _sinusoidal_positions(*self.positions.shape))
        for name, parameter in self.named_parameters(recurse=False):
            if name.startswith("norm") and name.endswith("weight"):
                init.ones_(parameter)
            elif name.endswith("bias"):
                init.zeros_(parameter)
            else:
                bound = math.sqrt(6 / (parameter.shape[1] + parameter.shape[2]))
                init.uniform_(parameter, -bound, bound)

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, Tensor | None]:
        """(N, C, L, T') -> the same shape, and the map (N, L, T', T') if asked for."""
        records, _, leads, length = tokens.shape
        hidden = tokens.permute(2, 0, 3, 1) + self.positions
        hidden = hidden.reshape(leads, records * length, -1)
        attended, weights = self._attend(
            self._norm(hidden, self.norm1_weight, self.norm1_bias), records, output_attentions
        )
        hidden = hidden + attended
        hidden = hidden + self._mlp(self._norm(hidden, self.norm2_weight, self.norm2_bias), records)
        return hidden.view(leads, records, length, -1).permute(1, 3, 0, 2), weights

    def _norm(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.addcmul(bias, F.layer_norm(hidden, hidden.shape[-1:]), weight)

    def _attend(self, hidden: Tensor, records: int, output_attentions: bool) -> tuple[Tensor, Tensor | None]:
        """(L, N T', C) -> the same shape, and the map."""
        leads, flat, width = hidden.shape
        qkv = torch.baddbmm(self.qkv_bias, hidden, self.qkv_weight.mT)
        qkv = qkv.view(leads * records, flat // records, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        # Tokens are few and heads two channels wide: plain attention is faster here than any fused kernel.
        attended, weights = _eager_attention(self, query, key, value, None, self.scaling)
        attended = torch.baddbmm(self.out_bias, attended.reshape(leads, flat, width), self.out_weight.mT)
        if not output_attentions:
            return attended, None
        return attended, weights.mean(1).unflatten(0, (leads, records)).transpose(0, 1)

    def _mlp(self, hidden: Tensor, records: int) -> Tensor:
        inner = self._drop(F.gelu(torch.baddbmm(self.fc1_bias, hidden, self.fc1_weight.mT)), records)
        return self._drop(torch.baddbmm(self.fc2_bias, inner, self.fc2_weight.mT), records)

    def _drop(self, hidden: Tensor, records: int) -> Tensor:
        dropped: Tensor = self.dropout(hidden.unflatten(1, (records, -1)), batch_dim=1)
        return dropped.flatten(1, 2)


class _LeadAttention(GradientCheckpointingLayer):
    """One pre-norm attention block across leads; a token is all a lead's channels and times, C x T' wide."""

    positions: Tensor

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        width = config.trunk_channels[-1] * config.num_tokens
        self.config, self.heads, self.is_causal = config, config.num_attention_heads, False
        self.scaling = (width // self.heads) ** -0.5
        self.register_buffer("positions", _sinusoidal_positions(config.num_leads, width), persistent=False)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, width * config.mlp_ratio), nn.Linear(width * config.mlp_ratio, width)
        self.dropout = EcgDanDropout(config.mlp_dropout, config.dropout_scope)

    def initialise(self) -> None:
        init.copy_(self.positions, _sinusoidal_positions(*self.positions.shape))

    def forward(
        self, tokens: Tensor, lead_mask: Tensor | None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(N, C, L, T') -> the same shape, and the map (N, L, L) if asked for."""
        channels = tokens.shape[1]
        hidden = tokens.transpose(1, 2).flatten(2) + self.positions
        attended, weights = self._attend(self.norm1(hidden), lead_mask, output_attentions)
        hidden = hidden + attended
        hidden = hidden + self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(self.norm2(hidden))))))
        return hidden.unflatten(2, (channels, -1)).transpose(1, 2), weights

    def _attend(
        self, hidden: Tensor, lead_mask: Tensor | None, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None]:
        qkv = self.qkv(hidden).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mask = None if lead_mask is None else lead_mask[:, None, None, :].expand(-1, 1, hidden.shape[1], -1)
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, _eager_attention
        )
        attended, _ = attend(self, query, key, value, mask, scaling=self.scaling, dropout=0.0)
        weights = _attention_weights(query, key, self.scaling, mask).mean(1) if output_attentions else None
        return self.out(attended.flatten(2)), weights


class _Decoder(nn.Module):
    """(N, hidden_size) -> (N, L, T): the signal the embedding stands for; the other decoder reads `features`."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        self.shape = (4, config.num_leads, config.num_tokens)
        self.reduce = nn.Linear(config.hidden_size, 4 * config.num_tokens)
        self.expand = nn.Linear(4 * config.num_tokens, math.prod(self.shape))
        up = [_ResidualBlock(4, 4, "up") for _ in config.trunk_channels]
        self.blocks = nn.ModuleList([*up, _ResidualBlock(4, 1, "same")])
        self.output = nn.Conv1d(config.num_leads, config.num_leads, 1, groups=config.num_leads)
        # A z-scored target has unit variance in every lead; a voltage-keeping one must be free to be small.
        self.norm = nn.InstanceNorm1d(config.num_leads) if config.normalization == "per_lead_zscore" else nn.Identity()

    def forward(self, pooled: Tensor, features: Tensor | None = None) -> Tensor:
        hidden = self.expand(self.reduce(pooled)).unflatten(1, self.shape)
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            hidden = block(hidden)
        signal: Tensor = self.norm(self.output(hidden.squeeze(1)))
        return signal


def _sinusoidal_positions(length: int, width: int) -> Tensor:
    """Sine and cosine position encoding of Vaswani et al. (2017), interleaved: (length, width)."""
    angle = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


def _attention_weights(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
    """Softmax attention (N, heads, queries, keys) in float32; `mask` is true where a key may be read."""
    scores = (query @ key.transpose(-1, -2)).float() * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


def _eager_attention(
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
    weights = _attention_weights(query, key, scaling, attention_mask)
    return (weights.to(value.dtype) @ value).transpose(1, 2), weights


PAPER_TRUNK = Trunk(_blocks, _Decoder)
