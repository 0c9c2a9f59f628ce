"""The light trunk: a third of the paper's weights, for 10 s of rhythm or a median beat, amplitude kept.

Leads share stem, residual blocks and both attentions; a scale, a bias and an embedding of its own tells one from
another. Time attention stays within a lead; across leads there is one map of (leads, leads) per head, from each lead's
mean over time, applied to every token. No position is encoded: any length that is a multiple of sixteen fits. Tokens
and their mean cannot count beats; with `count_beats` correlations over the whole record do.

Shapes: N records, L leads, C channels, T' tokens; tensors are (N, C, L, T') as in the paper's trunk.
Travels with the weights: imports only torch, transformers and its neighbours in this folder.
"""

import itertools
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_ecgdan import EcgDanConfig
from .layers_ecgdan import EcgDanDropout, Trunk

STEM_KERNEL = 7
BLOCK_KERNELS = (7, 5)
NUM_ACTIVITIES, BEAT_FEATURES = 6, 16
MAX_LAG_SECONDS = 2.0  # the RR interval at 30 beats per minute
BEAT_SECONDS = (0.3, 0.5)  # before and after the trigger
BEAT_DROPOUT = 0.2


def _blocks(config: EcgDanConfig) -> dict[str, nn.Module | None]:
    channels = [config.stem_features, *config.trunk_channels]
    return {
        "stem": _Stem(config),
        "trunk": nn.ModuleList(
            _ResidualBlock(config, before, after) for before, after in itertools.pairwise(channels)
        ),
        "time_attention": _TimeAttention(config) if config.use_time_attention else None,
        "lead_attention": _LeadAttention(config) if config.use_lead_attention else None,
        "readout": _Readout(config),
        "beats": _Beats(config) if config.count_beats else None,
    }


class _DropPath(nn.Module):
    """Skips a residual branch for some records (stochastic depth), or for the whole batch with `scope="batch"`."""

    def __init__(self, p: float, scope: str):
        super().__init__()
        self.p, self.scope = p, scope

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return branch
        records = 1 if self.scope == "batch" else len(branch)
        return branch * F.dropout(branch.new_ones(records, *[1] * (branch.ndim - 1)), self.p)


class EcgDanLeadScale(nn.Module):
    """A scale and a bias for every channel of every lead: what sets a lead apart in a trunk that all leads share."""

    def __init__(self, channels: int, leads: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, leads, 1))
        self.bias = nn.Parameter(torch.empty(channels, leads, 1))

    def initialise(self) -> None:
        """Starts as the identity."""
        init.ones_(self.weight)
        init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, C, L, T') -> the same shape."""
        return torch.addcmul(self.bias, hidden, self.weight)


class _Stem(nn.Module):
    """(N, L, T) -> (N, C, L, T / 2): one convolution over time for all leads, then each lead's own scale."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        channels, padding = config.stem_features, STEM_KERNEL // 2
        self.conv = nn.Conv2d(1, channels, (1, STEM_KERNEL), (1, 2), (0, padding), bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.scale = EcgDanLeadScale(channels, config.num_leads)

    def forward(self, signal: Tensor) -> Tensor:
        hidden = _normed_convolution(self.conv, self.norm, signal.unsqueeze(1))
        return F.relu(self.scale(hidden), inplace=True)


class _PairConvolution(nn.Module):
    """1x1 convolution of the mean of two neighbouring samples: (N, C, L, T) -> (N, C', L, T / 2).

    Not an `nn.Conv2d`: peft would add an update that reads every other sample, and would merge a different one.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1))

    def initialise(self) -> None:
        bound = self.weight[0].numel() ** -0.5
        init.uniform_(self.weight, -bound, bound)

    def forward(self, hidden: Tensor) -> Tensor:
        return self._conv_forward(hidden, self.weight, None)

    def _conv_forward(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(hidden, (weight / 2).expand(-1, -1, -1, 2), bias, stride=(1, 2))


def _normed_convolution(
    conv: nn.Conv1d | nn.Conv2d | _PairConvolution, norm: nn.BatchNorm1d | nn.BatchNorm2d, hidden: Tensor
) -> Tensor:
    """`norm(conv(hidden))`; in evaluation mode the norm's scale is put into the kernel, which saves a pass.

    Not where peft's low-rank update, which has no kernel, or accelerate's offloading stands around the convolution.
    """
    if norm.training or not hasattr(conv, "_conv_forward") or hasattr(conv, "_hf_hook"):
        plain: Tensor = norm(conv(hidden))
        return plain
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    weight = conv.weight * scale.view(-1, *[1] * (conv.weight.ndim - 1))
    return conv._conv_forward(hidden, weight, norm.bias - mean * scale)


class _ResidualBlock(GradientCheckpointingLayer):
    """Two convolutions and an averaged shortcut; time halves, and each lead has its own scale before the sum."""

    def __init__(self, config: EcgDanConfig, in_channels: int, out_channels: int):
        super().__init__()
        (first, second), leads = BLOCK_KERNELS, config.num_leads
        self.conv1 = nn.Conv2d(in_channels, out_channels, (1, first), (1, 2), (0, first // 2), bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, (1, second), 1, (0, second // 2), bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.scale = EcgDanLeadScale(out_channels, leads)
        self.shortcut = _PairConvolution(in_channels, out_channels)
        self.shortcut_norm = nn.BatchNorm2d(out_channels)
        self.drop_path = _DropPath(config.drop_path_rate, config.dropout_scope)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, C, L, T) -> (N, C', L, T / 2)."""
        identity = _normed_convolution(self.shortcut, self.shortcut_norm, hidden)
        main = F.relu(_normed_convolution(self.conv1, self.norm1, hidden), inplace=True)
        main = self.scale(_normed_convolution(self.conv2, self.norm2, main))
        return F.relu(self.drop_path(main) + identity, inplace=True)


class _Mlp(nn.Module):
    """The second half of both attention blocks: (..., C) -> (..., C)."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        width = config.trunk_channels[-1]
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, width * config.mlp_ratio), nn.Linear(width * config.mlp_ratio, width)
        self.dropout = EcgDanDropout(config.mlp_dropout, config.dropout_scope)
        self.drop_path = _DropPath(config.drop_path_rate, config.dropout_scope)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.dropout(F.gelu(self.fc1(self.norm(hidden))))
        added: Tensor = self.drop_path(self.dropout(self.fc2(inner)))
        return hidden + added


class _TimeAttention(GradientCheckpointingLayer):
    """One pre-norm attention block within each lead; all leads share its weights, an embedding tells them apart."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        width = config.trunk_channels[-1]
        self.heads = config.num_attention_heads
        self.scaling = (width // self.heads) ** -0.5
        self.lead_embedding = nn.Parameter(torch.empty(config.num_leads, 1, width))
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.drop_path = _DropPath(config.drop_path_rate, config.dropout_scope)
        self.mlp = _Mlp(config)

    def initialise(self) -> None:
        init.normal_(self.lead_embedding, std=0.02)

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, Tensor | None]:
        """(N, C, L, T') -> the same shape, and the map (N, L, T', T') if asked for."""
        hidden = tokens.permute(0, 2, 3, 1).contiguous() + self.lead_embedding  # and so are all later steps
        attended, weights = self._attend(self.norm(hidden), output_attentions)
        hidden = self.mlp(hidden + self.drop_path(attended))
        return hidden.permute(0, 3, 1, 2), weights

    def _attend(self, hidden: Tensor, output_attentions: bool) -> tuple[Tensor, Tensor | None]:
        records, leads, length, width = hidden.shape
        qkv = self.qkv(hidden).view(records * leads, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = (((query * self.scaling) @ key.transpose(-1, -2)).softmax(-1)) @ value
        attended = self.out(attended.transpose(1, 2).reshape(records, leads, length, width))
        if not output_attentions:
            return attended, None
        weights = ((query @ key.transpose(-1, -2)).float() * self.scaling).softmax(-1).mean(1)
        return attended, weights.unflatten(0, (records, leads))


class _LeadAttention(GradientCheckpointingLayer):
    """One pre-norm attention block across leads: one map per head for the whole record, applied to every token.

    Queries and keys come from each lead's mean over time, plus a learned bias for each head and pair of leads: what
    holds in general need not be inferred from each record.
    """

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        width = config.trunk_channels[-1]
        self.heads = config.num_attention_heads
        self.scaling = (width // self.heads) ** -0.5
        self.norm = nn.LayerNorm(width)
        self.query_key, self.value = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.pair_bias = nn.Parameter(torch.empty(self.heads, config.num_leads, config.num_leads))
        self.out = nn.Linear(width, width)
        self.drop_path = _DropPath(config.drop_path_rate, config.dropout_scope)
        self.mlp = _Mlp(config)

    def initialise(self) -> None:
        init.zeros_(self.pair_bias)

    def forward(
        self, tokens: Tensor, lead_mask: Tensor | None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(N, C, L, T') -> the same shape, and the map (N, L, L) if asked for."""
        hidden = tokens.permute(0, 2, 3, 1)
        normed = self.norm(hidden)
        weights = self._weights(normed.mean(2), lead_mask)
        hidden = self.mlp(hidden + self.drop_path(self.out(self._mix(weights, self.value(normed)))))
        return hidden.permute(0, 3, 1, 2), weights.mean(1) if output_attentions else None

    def _weights(self, means: Tensor, lead_mask: Tensor | None) -> Tensor:
        """(N, L, C) -> (N, heads, L, L), rows sum to 1 over the recorded leads."""
        query, key = self.query_key(means).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores: Tensor = (query @ key.transpose(-1, -2)).float() * self.scaling + self.pair_bias.float()
        if lead_mask is not None:
            scores = scores.masked_fill(~lead_mask[:, None, None, :], torch.finfo(scores.dtype).min)
        return scores.softmax(-1)

    def _mix(self, weights: Tensor, value: Tensor) -> Tensor:
        """Each head's channels of every token, mixed over leads: (N, L, T', C) -> the same shape."""
        records, leads, length, _ = value.shape
        by_head = value.view(records, leads, length, self.heads, -1).permute(0, 3, 1, 2, 4)
        mixed = weights.to(value.dtype) @ by_head.reshape(records, self.heads, leads, -1)
        return mixed.view(records, self.heads, leads, length, -1).permute(0, 2, 3, 1, 4).reshape(value.shape)


class _Readout(nn.Module):
    """All leads of one token at a time, then a residual block over time, then mean and maximum."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        width = config.hidden_size // 2
        self.norm = nn.LayerNorm(config.trunk_channels[-1])
        self.reduce = nn.Conv1d(config.num_leads * config.trunk_channels[-1], width, 1, bias=False)
        self.reduce_norm = nn.BatchNorm1d(width)
        self.conv1 = nn.Conv1d(width, width, 5, padding=2, bias=False)
        self.norm1 = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm1d(width)

    def forward(self, tokens: Tensor, lead_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N, C, L, T') -> (N, hidden_size), and the features (N, hidden_size / 2, T') it was pooled from."""
        hidden = self.norm(tokens.permute(0, 2, 3, 1))
        if lead_mask is not None:
            hidden = hidden.masked_fill(~lead_mask[:, :, None, None], 0)
        hidden = hidden.permute(0, 1, 3, 2).flatten(1, 2)
        hidden = F.relu(_normed_convolution(self.reduce, self.reduce_norm, hidden))
        inner = F.relu(_normed_convolution(self.conv1, self.norm1, hidden))
        inner = _normed_convolution(self.conv2, self.norm2, inner)
        features = F.relu(hidden + inner)
        return torch.cat([features.mean(-1), features.amax(-1)], dim=-1), features


class _Beats(nn.Module):
    """Adds to the embedding what tokens and their mean cannot hold: the count of beats, and the shape of one.

    Convolutions over all leads make a few activities, positive functions of time at half the sampling rate. Their
    autocorrelation peaks at the RR interval, and falls the faster the more RR intervals vary. The correlation of the
    first activity with each lead is an average beat, aligned where that activity is large: PR, QRS and QT have a
    fixed place in it. All correlations are over the whole record, by the Fourier transform.
    """

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        wide, rate, leads = 2 * NUM_ACTIVITIES, config.sampling_rate, config.num_leads
        self.lags = round(MAX_LAG_SECONDS * rate / 2)
        self.before, self.after = (round(seconds * rate) for seconds in BEAT_SECONDS)
        self.conv1 = nn.Conv1d(leads, wide, 15, 2, padding=7, bias=False)
        self.norm1 = nn.BatchNorm1d(wide)
        self.conv2 = nn.Conv1d(wide, wide, 7, padding=3, bias=False)
        self.norm2 = nn.BatchNorm1d(wide)
        self.activity = nn.Conv1d(wide, NUM_ACTIVITIES, 7, padding=3, bias=False)
        self.activity_norm = nn.BatchNorm1d(NUM_ACTIVITIES)
        self.lag_conv1 = nn.Conv1d(NUM_ACTIVITIES, BEAT_FEATURES, 9, 2, padding=4)
        self.lag_conv2 = nn.Conv1d(BEAT_FEATURES, BEAT_FEATURES, 7, 2, padding=3)
        self.beat_norm = nn.BatchNorm1d(leads)
        self.beat_conv1 = nn.Conv1d(leads, 2 * BEAT_FEATURES, 7, padding=3, bias=False)
        self.beat_norm1 = nn.BatchNorm1d(2 * BEAT_FEATURES)
        self.beat_conv2 = nn.Conv1d(2 * BEAT_FEATURES, 2 * BEAT_FEATURES, 5, 2, padding=2, bias=False)
        self.beat_norm2 = nn.BatchNorm1d(2 * BEAT_FEATURES)
        self.beat_conv3 = nn.Conv1d(2 * BEAT_FEATURES, BEAT_FEATURES, 5, 2, padding=2)
        quarters = -(-self.lags // 4) + -(-(self.before + self.after) // 4)
        self.hidden = nn.Linear(NUM_ACTIVITIES + BEAT_FEATURES * quarters, config.hidden_size // 2)
        self.dropout = EcgDanDropout(BEAT_DROPOUT, config.dropout_scope)
        self.output = nn.Linear(config.hidden_size // 2, config.hidden_size)
        self.pooled_norm, self.norm = nn.LayerNorm(config.hidden_size), nn.LayerNorm(config.hidden_size)

    def forward(self, pooled: Tensor, signal: Tensor, lead_mask: Tensor | None) -> Tensor:
        """(N, hidden_size), and the input (N, L, T) with 0 in masked leads -> (N, hidden_size)."""
        shown = signal
        if lead_mask is not None:
            shown = signal * (lead_mask.shape[1] / lead_mask.sum(1).clamp(min=1))[:, None, None].to(signal.dtype)
        activity = self._activities(shown)
        spread, rhythm = self._rhythm(activity)
        lags = F.gelu(self.lag_conv2(F.gelu(self.lag_conv1(rhythm.to(pooled.dtype)))))
        shape = self._shape(self._average_beat(activity[:, 0], signal).to(pooled.dtype))
        features = torch.cat([spread.to(pooled.dtype), lags.flatten(1), shape.flatten(1)], dim=1)
        beats = self.norm(self.output(self.dropout(F.gelu(self.hidden(features)))))
        both: Tensor = self.pooled_norm(pooled) + beats  # each of unit variance, so that neither drowns the other
        return both

    def _activities(self, signal: Tensor) -> Tensor:
        """(N, L, T) -> (N, activities, T / 2), positive."""
        hidden = F.gelu(_normed_convolution(self.conv1, self.norm1, signal))
        hidden = hidden + F.gelu(_normed_convolution(self.conv2, self.norm2, hidden))
        return F.softplus(_normed_convolution(self.activity, self.activity_norm, hidden))

    def _rhythm(self, activity: Tensor) -> tuple[Tensor, Tensor]:
        """The SD of each activity (N, A), and its autocorrelation at lags 1, 2, ... (N, A, lags), in float32."""
        centred = activity.float() - activity.float().mean(-1, keepdim=True)
        steps = centred.shape[-1]
        power = torch.fft.rfft(centred, 2 * steps).abs().square()  # zeros keep the end from meeting the beginning
        total = torch.fft.irfft(power, 2 * steps)[..., : self.lags + 1]
        overlap = steps / torch.arange(steps - 1, steps - 1 - self.lags, -1, device=total.device)
        return (total[..., 0] / steps + 1e-6).sqrt(), total[..., 1:] / (total[..., :1] + 1e-4) * overlap

    def _average_beat(self, activity: Tensor, signal: Tensor) -> Tensor:
        """(N, T / 2), (N, L, T) -> (N, L, before + after): each lead around the times of high activity, in float32."""
        samples = signal.shape[-1]
        trigger = F.interpolate(activity.float()[:, None], size=samples, mode="linear", align_corners=False)
        trigger = trigger - trigger.mean(-1, keepdim=True)
        spectra = torch.fft.rfft(signal.float(), 2 * samples), torch.fft.rfft(trigger, 2 * samples)
        total = torch.fft.irfft(spectra[0] * spectra[1].conj(), 2 * samples)
        beat = torch.cat([total[..., -self.before :], total[..., : self.after]], dim=-1)
        return beat / (trigger.abs().sum(-1, keepdim=True) + 1e-3)

    def _shape(self, beat: Tensor) -> Tensor:
        """(N, L, samples) -> (N, features, samples / 4)."""
        hidden = F.gelu(_normed_convolution(self.beat_conv1, self.beat_norm1, self.beat_norm(beat)))
        hidden = F.gelu(_normed_convolution(self.beat_conv2, self.beat_norm2, hidden))
        return F.gelu(self.beat_conv3(hidden))


class _Decoder(nn.Module):
    """(N, hidden_size / 2, T') -> (N, L, T): every token's features tell the samples of all leads beneath it.

    It does not use `pooled`, which the paper's decoder reads.
    """

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        self.leads = config.num_leads
        self.output = nn.Conv1d(config.hidden_size // 2, config.num_leads * config.token_stride, 1)

    def forward(self, pooled: Tensor, features: Tensor) -> Tensor:
        steps: Tensor = self.output(features).unflatten(1, (self.leads, -1))
        return steps.transpose(2, 3).flatten(2)


LIGHT_TRUNK = Trunk(_blocks, _Decoder)
