"""ECG-DAN: the dual attention network for 12-lead ECG (arXiv 2403.10581, IEEE Trans. Big Data 11(3):948-960, 2025).

A residual trunk shared by all leads, twelve lead-specific temporal attentions, cross-lead attention, and heads for
pretraining, classification and survival. Written from the description of the method; `lead_layout="reference"`
computes what the authors' released network computes.

Shapes: N records, L leads, C channels, T samples, T' = T / 32 tokens. Inside the trunk tensors are (N, C, L, T), so
that (1, k) kernels run along time and are shared by the leads.

Travels with the weights: imports only torch, transformers and its neighbours in this folder.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, can_return_tuple

from .alignment_ecgdan import alignment_loss, equal_rows
from .configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from .layers_ecgdan import EcgDanDropout, attention_weights, eager_attention_forward, sinusoidal_positions
from .light_ecgdan import (
    EcgDanLeadScale,
    EcgDanLightBlock,
    EcgDanLightDecoder,
    EcgDanLightLeadAttention,
    EcgDanLightReadout,
    EcgDanLightStem,
    EcgDanLightTimeAttention,
    EcgDanPairConvolution,
)
from .risk_ecgdan import Baseline, Risk, absolute_risk, baseline_hazard, recalibrate
from .survival_ecgdan import cox_loss, survival_curve

MAX_BASELINE_TIMES = 2048

HEADS = ("decoder", "alignment_head", "superclass_head", "classifier", "risk_head", "covariate_head", "baseline")
HEADS += ("evidence", "reconstruction_head")
"""Parts of checkpoints that another model of the package may leave out, by their name in it."""


@dataclass
class EcgDanModelOutput(ModelOutput):
    """Output of [`EcgDanModel`].

    Args:
        last_hidden_state: (N, L, T', C), what both attentions together make of each lead's tokens.
        pooler_output: (N, hidden_size), the ECG's embedding.
        lead_attention: (N, L, L), how much each lead (row) reads from each lead, mean over heads, rows sum to 1.
        time_attention: (N, L, T', T'), the same over the tokens of each lead.
        hidden_states: the trunk's blocks in order, then the time branch's output (the last state in which, with
            `lead_layout="lead_true"`, no lead has seen another), then `last_hidden_state`; each (N, L, tokens, C).
        readout_features: light trunk: (N, hidden_size / 2, T'), what `pooler_output` is the mean and maximum of.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    lead_attention: Tensor | None = None
    time_attention: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    readout_features: Tensor | None = None


@dataclass
class EcgDanPreTrainingOutput(ModelOutput):
    """Output of [`EcgDanForPreTraining`].

    Args:
        loss: weighted sum of the losses that could be computed.
        reconstruction: (N, L, T), in the scaling of `input_values`.
        reconstruction_loss, alignment_loss, superclass_loss: the parts, unweighted.
        superclass_logits: (N, num_superclasses).
        ecg_embeds, text_embeds: (N, projection_size), of unit length.
        prompt_logits: (N, len(config.prompt_labels)), similarity to each cached prompt times the logit scale.
        pooler_output, lead_attention, time_attention, hidden_states: as in [`EcgDanModelOutput`].
    """

    loss: Tensor | None = None
    reconstruction: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    alignment_loss: Tensor | None = None
    superclass_loss: Tensor | None = None
    superclass_logits: Tensor | None = None
    ecg_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    prompt_logits: Tensor | None = None
    pooler_output: Tensor | None = None
    lead_attention: Tensor | None = None
    time_attention: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class EcgDanClassifierOutput(ModelOutput):
    """Output of [`EcgDanForSequenceClassification`].

    Args:
        loss: of the labels, plus `auxiliary_weight` times that of the auxiliary labels.
        logits: (N, num_labels).
        auxiliary_logits: (N, num_auxiliary_labels).
        pooler_output, lead_attention, time_attention, hidden_states: as in [`EcgDanModelOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    auxiliary_logits: Tensor | None = None
    pooler_output: Tensor | None = None
    lead_attention: Tensor | None = None
    time_attention: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class EcgDanSurvivalOutput(ModelOutput):
    """Output of [`EcgDanForSurvival`]: losses, log_hazard (N,), reconstruction (N, L, T), the encoder's fields."""

    loss: Tensor | None = None
    log_hazard: Tensor | None = None
    cox_loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    reconstruction: Tensor | None = None
    pooler_output: Tensor | None = None
    lead_attention: Tensor | None = None
    time_attention: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class EcgDanStem(nn.Module):
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
        """(N, L, T) -> (N, features, L, T)."""
        hidden = F.gelu(self.norm1(self.conv1(signal)))
        hidden = F.gelu(self.norm2(self.conv2(hidden)))
        if self.lead_true:
            hidden = hidden.unflatten(1, (self.leads, self.features)).transpose(1, 2)
        else:
            hidden = hidden.unflatten(1, (self.features, self.leads))
        return hidden.contiguous(memory_format=torch.channels_last)  # half the backward time with so few channels


class EcgDanResidualBlock(GradientCheckpointingLayer):
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
        """(N, C, L, T) -> (N, C', L, T / 2), (N, C', L, 2 T) or (N, C', L, T)."""
        if self.upsample is None:
            identity = self.shortcut(self.pool(hidden))
        else:
            identity = hidden = self.shortcut(self.upsample(hidden))
        main = F.leaky_relu(self.norm1(self.conv1(hidden)))
        main = F.leaky_relu(self.norm2(self.conv2(main)))
        return F.gelu(main + identity)


class EcgDanTimeAttention(GradientCheckpointingLayer):
    """One pre-norm attention block per lead over that lead's tokens, all leads in one batched computation.

    The leads' weights are stacked in front; lead l is block l of the paper.
    """

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        leads, width, inner = config.num_leads, config.trunk_channels[-1], config.trunk_channels[-1] * config.mlp_ratio
        self.heads = config.num_attention_heads
        self.scaling = (width // self.heads) ** -0.5
        self.register_buffer("positions", sinusoidal_positions(config.num_tokens, width), persistent=False)
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
        attended, weights = eager_attention_forward(self, query, key, value, None, self.scaling)
        attended = torch.baddbmm(self.out_bias, attended.reshape(leads, flat, width), self.out_weight.mT)
        if not output_attentions:
            return attended, None
        return attended, weights.mean(1).unflatten(0, (leads, records)).transpose(0, 1)

    def _mlp(self, hidden: Tensor, records: int) -> Tensor:
        inner = self._drop(F.gelu(torch.baddbmm(self.fc1_bias, hidden, self.fc1_weight.mT)), records)
        return self._drop(torch.baddbmm(self.fc2_bias, inner, self.fc2_weight.mT), records)

    def _drop(self, hidden: Tensor, records: int) -> Tensor:
        return self.dropout(hidden.unflatten(1, (records, -1)), batch_dim=1).flatten(1, 2)


class EcgDanLeadAttention(GradientCheckpointingLayer):
    """One pre-norm attention block across leads; a token is all a lead's channels and times, C x T' wide."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        width = config.trunk_channels[-1] * config.num_tokens
        self.config, self.heads, self.is_causal = config, config.num_attention_heads, False
        self.scaling = (width // self.heads) ** -0.5
        self.register_buffer("positions", sinusoidal_positions(config.num_leads, width), persistent=False)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, width * config.mlp_ratio), nn.Linear(width * config.mlp_ratio, width)
        self.dropout = EcgDanDropout(config.mlp_dropout, config.dropout_scope)

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
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, _ = attend(self, query, key, value, mask, scaling=self.scaling, dropout=0.0)
        weights = attention_weights(query, key, self.scaling, mask).mean(1) if output_attentions else None
        return self.out(attended.flatten(2)), weights


class EcgDanDecoder(nn.Module):
    """(N, hidden_size) -> (N, L, T): the signal the embedding stands for."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        self.shape = (4, config.num_leads, config.num_tokens)
        self.reduce = nn.Linear(config.hidden_size, 4 * config.num_tokens)
        self.expand = nn.Linear(4 * config.num_tokens, math.prod(self.shape))
        up = [EcgDanResidualBlock(4, 4, "up") for _ in config.trunk_channels]
        self.blocks = nn.ModuleList([*up, EcgDanResidualBlock(4, 1, "same")])
        self.output = nn.Conv1d(config.num_leads, config.num_leads, 1, groups=config.num_leads)
        # A z-scored target has unit variance in every lead; a voltage-keeping one must be free to be small.
        self.norm = nn.InstanceNorm1d(config.num_leads) if config.normalization == "per_lead_zscore" else nn.Identity()

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, hidden_size) -> (N, L, T)."""
        hidden = self.expand(self.reduce(pooled)).unflatten(1, self.shape)
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(self.output(hidden.squeeze(1)))


class EcgDanAlignmentHead(nn.Module):
    """Projects ECG and text embeddings into one space and measures their distance."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        self.objective = config.alignment_objective
        self.ecg_projection = self._projection(config.hidden_size, config)
        self.text_projection = self._projection(config.text_embed_dim, config)
        if self.objective != "cosine":
            self.log_logit_scale = nn.Parameter(torch.empty(()))
        if self.objective == "siglip":
            self.logit_bias = nn.Parameter(torch.empty(()))
        if config.prompt_labels:
            self.register_buffer("prompt_embeds", torch.zeros(len(config.prompt_labels), config.projection_size))

    @staticmethod
    def _projection(width: int, config: EcgDanConfig) -> nn.Sequential:
        hidden = config.projection_hidden_size
        return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, config.projection_size))

    def project_ecg(self, pooled: Tensor) -> Tensor:
        """(N, hidden_size) -> (N, projection_size), of unit length."""
        return F.normalize(self.ecg_projection(pooled), dim=-1)

    def project_text(self, text: Tensor) -> Tensor:
        """(N, text_embed_dim) -> (N, projection_size), of unit length."""
        return F.normalize(self.text_projection(text), dim=-1)

    def forward(self) -> tuple[Tensor | float, Tensor | float]:
        """What cosine similarities are multiplied by, and what is added; a call, in which offloaded weights come."""
        scale = 1.0 if self.objective == "cosine" else self.log_logit_scale.clamp(max=math.log(100.0)).exp()
        return scale, self.logit_bias if self.objective == "siglip" else 0.0

    def logit_scale(self) -> Tensor | float:
        """What cosine similarities are multiplied by."""
        return self()[0]

    def prompt_logits(self, ecg_embeds: Tensor) -> Tensor:
        """(N, projection_size) -> (N, prompts): scaled cosine similarity to each cached prompt."""
        return self.logit_scale() * ecg_embeds @ self.prompt_embeds.to(ecg_embeds.dtype).T

    @torch.no_grad()
    def set_prompts(self, text_embeds: Tensor) -> None:
        """Caches prompts: (K, text_embed_dim), or (K, templates, text_embed_dim), averaged once projected."""
        if text_embeds.ndim not in (2, 3):
            raise ValueError(f"text_embeds: expected (prompts, [templates,] width), got {tuple(text_embeds.shape)}")
        weight = self.text_projection[0].weight
        projected = self.project_text(text_embeds.to(weight))
        projected = projected if projected.ndim == 2 else F.normalize(projected.mean(1), dim=-1)
        self.register_buffer("prompt_embeds", projected.float())

    def loss(self, ecg_embeds: Tensor, text_embeds: Tensor, same_text: Tensor) -> Tensor:
        """Scalar distance of the paired, projected embeddings."""
        if self.objective == "cosine":
            return alignment_loss(ecg_embeds, text_embeds, "cosine")
        scale, bias = self()
        return alignment_loss(ecg_embeds, text_embeds, self.objective, scale, bias, same_text)


class EcgDanBaselineHazard(nn.Module):
    """The fitted baseline, in persistent buffers that stay float32 whatever the network's precision."""

    def __init__(self, num_times: int):
        super().__init__()
        self.register_buffer("knots", torch.zeros(2, num_times, dtype=torch.float32))
        # -1 where it was not fitted; one value at least, for of two empty buffers saving takes one for the other
        self.register_buffer("standard_error", torch.full((max(num_times, 1),), -1.0, dtype=torch.float32))

    @property
    def times(self) -> Tensor:
        """(knots,), years, ascending; the last is the end of follow-up."""
        return self.knots[0]

    @property
    def log_cumulative_hazard(self) -> Tensor:
        """(knots,), natural logarithm of the cumulative baseline hazard."""
        return self.knots[1]

    @property
    def fitted(self) -> Baseline:
        """Both, and the standard error of the logarithm given the log hazards; NaN in checkpoints without it."""
        error = self.standard_error.masked_fill(self.standard_error < 0, math.nan)
        return Baseline(self.times, self.log_cumulative_hazard, error)

    def _apply(self, fn: Callable, recurse: bool = True) -> "EcgDanBaselineHazard":
        # .to(bfloat16) must not round event times: follow the device, keep the precision
        return super()._apply(lambda buffer: buffer.to(fn(buffer.new_empty(0)).device), recurse)


class EcgDanPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation shared by all heads."""

    config: EcgDanConfig
    config_class = EcgDanConfig
    base_model_prefix = "ecgdan"
    main_input_name = "input_values"
    input_modalities = "time"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # Trainer itself divides the loss by the accumulation steps
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = (  # the first three: `device_map="auto"` then leaves so small a network on one device
        "EcgDanModel",
        "EcgDanAlignmentHead",
        "EcgDanLightReadout",
        "EcgDanResidualBlock",
        "EcgDanTimeAttention",
        "EcgDanLeadAttention",
        "EcgDanLightBlock",
        "EcgDanLightTimeAttention",
        "EcgDanLightLeadAttention",
    )
    _keep_in_fp32_modules_strict = ("baseline",)

    def post_init(self) -> None:
        """Finishes the construction; loading then passes over the weights of heads that this class does not have.

        Every other weight that is left over is still reported. The patterns are set here and not on the class,
        because transformers adds those of a model's parts to its own.
        """
        super().post_init()
        self._keys_to_ignore_on_load_unexpected = {rf"^{name}\." for name in HEADS if not hasattr(self, name)}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Kaiming for convolutions, Xavier for linear layers, zero biases; refills what no checkpoint carries.

        The light trunk starts from torch's own, smaller weights: under norms smaller weights learn faster.
        """
        config = getattr(self.config, "ecg_config", self.config)  # of the ECG's tower in the dual encoder
        if isinstance(module, EcgDanCovariateHead):
            init.zeros_(module.weight)
        elif isinstance(module, EcgDanPairConvolution) or (
            config.trunk == "light" and isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear))
        ):
            bound = module.weight[0].numel() ** -0.5  # torch's own for both kinds of layer
            init.uniform_(module.weight, -bound, bound)
            if getattr(module, "bias", None) is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
            init.kaiming_normal_(module.weight, nonlinearity="leaky_relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, EcgDanTimeAttention):
            self._init_time_attention(module)
        elif isinstance(module, EcgDanLeadAttention):
            init.copy_(module.positions, sinusoidal_positions(*module.positions.shape))
        elif isinstance(module, EcgDanLeadScale):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, EcgDanLightTimeAttention):
            init.normal_(module.lead_embedding, std=0.02)
        elif isinstance(module, EcgDanLightLeadAttention):
            init.zeros_(module.pair_bias)
        elif isinstance(module, EcgDanAlignmentHead):
            self._init_alignment_head(module)
        elif isinstance(module, EcgDanBaselineHazard):
            init.zeros_(module.knots)
            init.constant_(module.standard_error, -1.0)
        elif isinstance(module, (nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
            super()._init_weights(module)

    def _init_time_attention(self, module: EcgDanTimeAttention) -> None:
        init.copy_(module.positions, sinusoidal_positions(*module.positions.shape))
        for name, parameter in module.named_parameters(recurse=False):
            if name.startswith("norm") and name.endswith("weight"):
                init.ones_(parameter)
            elif name.endswith("bias"):
                init.zeros_(parameter)
            else:  # Xavier for each lead's own matrix, not for the stack
                bound = math.sqrt(6 / (parameter.shape[1] + parameter.shape[2]))
                init.uniform_(parameter, -bound, bound)

    def _init_alignment_head(self, module: EcgDanAlignmentHead) -> None:
        if module.objective != "cosine":
            init.constant_(module.log_logit_scale, math.log(10.0 if module.objective == "siglip" else 1 / 0.07))
        if module.objective == "siglip":
            init.constant_(module.logit_bias, -10.0)
        if "prompt_embeds" in module._buffers:
            init.zeros_(module.prompt_embeds)


class EcgDanModel(EcgDanPreTrainedModel):
    """The dual attention encoder without a head."""

    def __init__(self, config: EcgDanConfig):
        super().__init__(config)
        if config.trunk == "light":
            self._build_light(config)
        else:
            self._build_paper(config)
        self.post_init()

    def _build_paper(self, config: EcgDanConfig) -> None:
        channels = [config.stem_features, *config.trunk_channels]
        self.stem = EcgDanStem(config)
        self.trunk = nn.ModuleList(
            EcgDanResidualBlock(before, after, "down") for before, after in itertools.pairwise(channels)
        )
        self.time_attention = EcgDanTimeAttention(config) if config.use_time_attention else None
        self.lead_attention = EcgDanLeadAttention(config) if config.use_lead_attention else None
        if config.lead_layout == "reference" and not config.use_lead_attention:
            # idle, but in the authors' ablation and so in its parameter count and checkpoints
            self.unused_norm = nn.LayerNorm(channels[-1] * config.num_tokens)
        width = config.num_leads * channels[-1]
        self.average_projection = nn.Conv1d(width, config.hidden_size // 2, 1)
        self.max_projection = nn.Conv1d(width, config.hidden_size // 2, 1)

    def _build_light(self, config: EcgDanConfig) -> None:
        channels = [config.stem_features, *config.trunk_channels]
        self.stem = EcgDanLightStem(config)
        self.trunk = nn.ModuleList(
            EcgDanLightBlock(config, before, after) for before, after in itertools.pairwise(channels)
        )
        self.time_attention = EcgDanLightTimeAttention(config) if config.use_time_attention else None
        self.lead_attention = EcgDanLightLeadAttention(config) if config.use_lead_attention else None
        self.readout = EcgDanLightReadout(config)

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: object,
    ) -> EcgDanModelOutput:
        """Encodes ECGs.

        Args:
            input_values: (N, L, T), float, scaled by [`EcgDanFeatureExtractor`].
            lead_mask: (N, L) boolean, true where the lead was recorded; None means all were. A masked lead is zeroed
                at the door; with `lead_layout="lead_true"` it is neither attended to nor pooled.
            output_attentions: return `lead_attention` and `time_attention`.
            output_hidden_states: return `hidden_states`.

        Raises:
            ValueError: `input_values` or `lead_mask` of another shape than the configuration says.
        """
        check_input(input_values, lead_mask, self.config)
        maps = bool(output_attentions)
        if lead_mask is not None:
            lead_mask = lead_mask.bool()
            input_values = input_values.masked_fill(~lead_mask[:, :, None], 0)
        # In the reference layout slots are no physical leads: masking the input is all that can be done.
        slot_mask = lead_mask if self.config.lead_layout == "lead_true" else None
        hidden, states = self.stem(input_values.to(self.dtype)), []
        for block in self.trunk:
            hidden = block(hidden)
            states.append(hidden)
        timed, time_map = self.time_attention(hidden, maps) if self.config.use_time_attention else (hidden, None)
        fused, lead_map = self._fuse(hidden, timed, slot_mask, maps)
        if slot_mask is not None:
            fused = fused.masked_fill(~slot_mask[:, None, :, None], 0)
        states += [timed, fused]
        pooled, features = self._pool(fused, slot_mask)
        return EcgDanModelOutput(
            last_hidden_state=fused.permute(0, 2, 3, 1),
            pooler_output=pooled,
            readout_features=features,
            lead_attention=lead_map,
            time_attention=time_map,
            hidden_states=tuple(state.permute(0, 2, 3, 1) for state in states) if output_hidden_states else None,
        )

    def _fuse(self, trunk: Tensor, timed: Tensor, mask: Tensor | None, maps: bool) -> tuple[Tensor, Tensor | None]:
        """Adds the two branches, or chains them: (N, C, L, T') and the lead map.

        A branch that is switched off hands on what it was given, as in the authors' ablations: without time attention
        the time branch is the trunk, without lead attention the lead branch is the time branch.
        """
        sequential = self.config.attention_order == "sequential"
        if self.lead_attention is None:
            return (timed if sequential else timed + timed), None
        across, lead_map = self.lead_attention(timed if sequential else trunk, mask, maps)
        return (across if sequential else timed + across), lead_map

    def _pool(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(N, C, L, T') -> (N, hidden_size), and the light trunk's features over time."""
        if self.config.trunk == "light":
            return self.readout(tokens, mask)
        flat = tokens.flatten(1, 2)
        return torch.cat([self.average_projection(flat).mean(-1), self.max_projection(flat).amax(-1)], dim=-1), None


def check_input(input_values: Tensor, lead_mask: Tensor | None, config: EcgDanConfig) -> None:
    """Refuses shapes the network was not built for, in one line."""
    leads, samples = config.num_leads, config.num_samples
    shape = tuple(input_values.shape)
    piece = (
        config.trunk == "light" and len(shape) == 3 and 0 < shape[2] < samples and not shape[2] % config.token_stride
    )
    if len(shape) != 3 or shape[1] != leads or (shape[2] != samples and not piece):
        raise ValueError(
            f"input_values: expected (batch, {leads} leads, {samples} samples), got "
            f"{tuple(input_values.shape)}; prepare signals with EcgDanFeatureExtractor"
        )
    if lead_mask is not None and tuple(lead_mask.shape) != tuple(input_values.shape[:2]):
        raise ValueError(f"lead_mask: expected {tuple(input_values.shape[:2])}, got {tuple(lead_mask.shape)}")


def encoder_fields(encoded: EcgDanModelOutput) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """What every head hands on of the encoder's output."""
    names = ("pooler_output", "lead_attention", "time_attention", "hidden_states")
    return {name: encoded[name] for name in names if name in encoded}


def reconstruction_loss(reconstruction: Tensor, target: Tensor, target_mask: Tensor | None) -> Tensor:
    """Mean squared error over the samples of the leads that have a target: scalar."""
    error = F.mse_loss(reconstruction.float(), target.float(), reduction="none").mean(-1)
    if target_mask is None:
        return error.mean()
    return (error * target_mask).sum() / target_mask.sum().clamp(min=1)


def build_decoder(config: EcgDanConfig) -> nn.Module:
    """The decoder that belongs to the trunk; [`reconstruct`] feeds it."""
    return EcgDanLightDecoder(config) if config.trunk == "light" else EcgDanDecoder(config)


def reconstruct(decoder: nn.Module, encoded: EcgDanModelOutput) -> Tensor:
    """(N, L, T) from the embedding, or in the light trunk from what it is pooled from."""
    features = encoded.readout_features
    return decoder(encoded.pooler_output if features is None else features)


class EcgDanForPreTraining(EcgDanPreTrainedModel):
    """Encoder and decoder, with an optional alignment head (`text_embed_dim`) and superclass head.

    A checkpoint with `config.prompt_labels` carries the projected embedding of each of these labels' prompts, and so
    classifies without any text model: `prompt_logits` in the output.
    """

    def __init__(self, config: EcgDanConfig):
        super().__init__(config)
        self.ecgdan = EcgDanModel(config)
        self.decoder = build_decoder(config)
        self.alignment_head = EcgDanAlignmentHead(config) if config.text_embed_dim else None
        count = config.num_superclasses
        self.superclass_head = nn.Linear(config.hidden_size, count) if count else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        target_values: Tensor | None = None,
        target_mask: Tensor | None = None,
        text_embeds: Tensor | None = None,
        superclass_targets: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_loss: bool = True,
        **kwargs: object,
    ) -> EcgDanPreTrainingOutput:
        """Reconstructs the signal and aligns the embedding with text.

        Args:
            input_values: (N, L, T), possibly with leads masked for the exercise.
            lead_mask: (N, L), true where the network may look.
            target_values: (N, L, T), the unmasked signal; default `input_values`.
            target_mask: (N, L), true where a target was recorded; default all leads, or `lead_mask` when
                `target_values` is not given.
            text_embeds: (N, text_embed_dim), the frozen language model's embedding of each record's text.
            superclass_targets: (N, num_superclasses), 0 or 1.
            output_attentions: return the attention maps.
            output_hidden_states: return the hidden states.
            return_loss: compute the losses.
        """
        encoded = self.ecgdan(input_values, lead_mask, output_attentions, output_hidden_states)
        output = EcgDanPreTrainingOutput(
            reconstruction=reconstruct(self.decoder, encoded),
            **encoder_fields(encoded),
        )
        if self.superclass_head is not None:
            output.superclass_logits = self.superclass_head(encoded.pooler_output)
        if self.alignment_head is not None:
            output.ecg_embeds = self.alignment_head.project_ecg(encoded.pooler_output)
            if self.config.prompt_labels:
                output.prompt_logits = self.alignment_head.prompt_logits(output.ecg_embeds)
            if text_embeds is not None:
                output.text_embeds = self.alignment_head.project_text(text_embeds.to(self.dtype))
        if return_loss:
            if target_values is None:
                target_values, target_mask = input_values, lead_mask if target_mask is None else target_mask
            self._set_losses(output, target_values, target_mask, text_embeds, superclass_targets)
        return output

    def set_prompts(self, labels: Sequence[str], text_embeds: Tensor) -> None:
        """Caches the prompts of `labels`, so that the checkpoint needs no text model to tell them apart.

        Args:
            labels: names, in the order of `text_embeds`.
            text_embeds: (labels, text_embed_dim), or (labels, templates, text_embed_dim) for an ensemble of prompts.

        Raises:
            ValueError: no alignment head, or shapes that do not fit.
        """
        if self.alignment_head is None:
            raise ValueError("text_embeds: expected a model with an alignment head, this one has text_embed_dim=None")
        if len(labels) != len(text_embeds) or text_embeds.shape[-1] != self.config.text_embed_dim:
            expected = f"({len(labels)}, [templates,] {self.config.text_embed_dim})"
            raise ValueError(f"text_embeds: expected {expected}, got {tuple(text_embeds.shape)}")
        self.alignment_head.set_prompts(text_embeds)
        self.config.prompt_labels = list(labels)

    def _set_losses(
        self,
        output: EcgDanPreTrainingOutput,
        target: Tensor,
        target_mask: Tensor | None,
        text: Tensor | None,
        superclass: Tensor | None,
    ) -> None:
        output.reconstruction_loss = reconstruction_loss(output.reconstruction, target, target_mask)
        output.loss = self.config.reconstruction_weight * output.reconstruction_loss
        if output.text_embeds is not None:
            output.alignment_loss = self.alignment_head.loss(output.ecg_embeds, output.text_embeds, equal_rows(text))
            output.loss = output.loss + self.config.alignment_weight * output.alignment_loss
        if superclass is not None and output.superclass_logits is not None:
            logits = output.superclass_logits.float()
            output.superclass_loss = F.binary_cross_entropy_with_logits(logits, superclass.float())
            output.loss = output.loss + self.config.superclass_weight * output.superclass_loss


class EcgDanClassifier(nn.Module):
    """(N, hidden_size) -> label logits and auxiliary logits, over a hidden layer if the configuration has one."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        width, inner = config.hidden_size, config.classifier_hidden_size
        self.norm = nn.BatchNorm1d(width)
        self.dropout = EcgDanDropout(config.head_dropout, config.dropout_scope)
        if inner:
            self.hidden, self.hidden_norm = nn.Linear(width, inner), nn.BatchNorm1d(inner)
            self.hidden_dropout = EcgDanDropout(min(2 * config.head_dropout, 0.9), config.dropout_scope)
        self.has_hidden = bool(inner)
        self.output = nn.Linear(inner or width, config.num_labels)
        auxiliary = config.num_auxiliary_labels
        self.auxiliary_output = nn.Linear(inner or width, auxiliary) if auxiliary else None

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, hidden_size) -> (N, num_labels), and (N, num_auxiliary_labels) or None."""
        hidden = self.dropout(self.norm(pooled))
        if self.has_hidden:
            hidden = self.hidden_dropout(self.hidden_norm(F.relu(self.hidden(hidden))))
        return self.output(hidden), None if self.auxiliary_output is None else self.auxiliary_output(hidden)


def multi_label_loss(logits: Tensor, labels: Tensor, positive_weights: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over the known entries of (N, labels); NaN is unknown, fractions are soft targets.

    `positive_weights` (labels,) multiply the loss of what is positive.
    """
    known = ~labels.float().isnan()
    targets = labels.float().nan_to_num()
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none", pos_weight=positive_weights)
    return (loss * known).sum() / known.sum().clamp(min=1)


def classification_loss(
    config: EcgDanConfig,
    logits: Tensor,
    labels: Tensor,
    auxiliary_logits: Tensor | None = None,
    auxiliary_targets: Tensor | None = None,
    positive_weights: Tensor | None = None,
) -> Tensor:
    """Loss of the labels, plus `config.auxiliary_weight` times that of the auxiliary labels where there are any."""
    if config.problem_type == "single_label_classification":
        loss = F.cross_entropy(logits.float(), labels)
    else:
        loss = multi_label_loss(logits, labels, positive_weights)
    if auxiliary_logits is None or auxiliary_targets is None:
        return loss
    return loss + config.auxiliary_weight * multi_label_loss(auxiliary_logits, auxiliary_targets)


class EcgDanForSequenceClassification(EcgDanPreTrainedModel):
    """Encoder and classifier; multi-label unless `config.problem_type` says otherwise."""

    def __init__(self, config: EcgDanConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.ecgdan = EcgDanModel(config)
        self.classifier = EcgDanClassifier(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        labels: Tensor | None = None,
        auxiliary_targets: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: object,
    ) -> EcgDanClassifierOutput:
        """Classifies ECGs.

        Args:
            input_values: (N, L, T).
            lead_mask: (N, L).
            labels: (N, num_labels) of 0, 1, a probability (soft target) or NaN (unknown, ignored) for multi-label;
                (N,) class indices for `problem_type="single_label_classification"`.
            auxiliary_targets: (N, num_auxiliary_labels), as the multi-label ones; not named "labels", since `Trainer`
                takes each argument with "label" in its name for one without which there is no loss.
            output_attentions: return the attention maps.
            output_hidden_states: return the hidden states.
        """
        encoded = self.ecgdan(input_values, lead_mask, output_attentions, output_hidden_states)
        logits, auxiliary = self.classifier(encoded.pooler_output)
        loss = None
        if labels is not None:
            loss = classification_loss(self.config, logits, labels, auxiliary, auxiliary_targets)
        return EcgDanClassifierOutput(loss=loss, logits=logits, auxiliary_logits=auxiliary, **encoder_fields(encoded))


class EcgDanRiskHead(nn.Module):
    """(N, hidden_size) -> (N,): log hazard. The partial likelihood cannot see the last bias; the paper has it."""

    def __init__(self, config: EcgDanSurvivalConfig):
        super().__init__()
        self.norm = nn.BatchNorm1d(config.hidden_size)
        self.dropout = EcgDanDropout(config.head_dropout, config.dropout_scope)
        self.hidden = nn.Linear(config.hidden_size, config.survival_hidden_size)
        self.hidden_norm = nn.BatchNorm1d(config.survival_hidden_size)
        self.output = nn.Linear(config.survival_hidden_size, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, hidden_size) -> (N,)."""
        hidden = self.hidden(self.dropout(self.norm(pooled)))
        return self.output(self.hidden_norm(F.relu(hidden))).squeeze(-1)


class EcgDanCovariateHead(nn.Linear):
    """Linear term of the covariates; starts at zero, for a random one would outweigh the ECG."""


class EcgDanForSurvival(EcgDanPreTrainedModel):
    """Encoder and a Cox head; with the decoder too while `reconstruction_weight` is positive, as in the paper."""

    config: EcgDanSurvivalConfig
    config_class = EcgDanSurvivalConfig

    def __init__(self, config: EcgDanSurvivalConfig):
        super().__init__(config)
        self.ecgdan = EcgDanModel(config)
        self.decoder = build_decoder(config) if config.reconstruction_weight > 0 else None
        self.risk_head = EcgDanRiskHead(config)
        covariates = len(config.covariate_names)
        self.covariate_head = EcgDanCovariateHead(covariates, 1, bias=False) if covariates else None
        self.baseline = EcgDanBaselineHazard(config.num_baseline_times)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        covariates: Tensor | None = None,
        event: Tensor | None = None,
        time: Tensor | None = None,
        target_values: Tensor | None = None,
        target_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_loss: bool = True,
        weights: Tensor | None = None,
        entry: Tensor | None = None,
        strata: Tensor | None = None,
        **kwargs: object,
    ) -> EcgDanSurvivalOutput:
        """Predicts the log hazard.

        Args:
            input_values: (N, L, T).
            lead_mask: (N, L).
            covariates: (N, len(covariate_names)), in their own units; NaN counts as the training mean.
            event: (N,), 1 = happened, 0 = censored.
            time: (N,), years since the ECG, positive.
            target_values, target_mask: as in [`EcgDanForPreTraining`].
            output_attentions: return the attention maps.
            output_hidden_states: return the hidden states.
            return_loss: compute the losses (the Cox loss needs `event` and `time`).
            weights: (N,), case weights of the Cox loss.
            entry: (N,), years since the ECG at which a subject came under observation (left truncation).
            strata: (N,), group within which subjects are compared.

        Raises:
            ValueError: covariates missing though the configuration names them, or of another width.
        """
        encoded = self.ecgdan(input_values, lead_mask, output_attentions, output_hidden_states)
        output = EcgDanSurvivalOutput(
            log_hazard=self.config.calibration_slope
            * (self.risk_head(encoded.pooler_output) + self._covariate_term(covariates, input_values.shape[0])),
            **encoder_fields(encoded),
        )
        if return_loss and event is not None and time is not None:
            if target_values is None:
                target_values, target_mask = input_values, lead_mask if target_mask is None else target_mask
            output.cox_loss = cox_loss(
                output.log_hazard, event, time, self.config.ties, weights=weights, entry=entry, strata=strata
            )
            self._set_losses(output, encoded, target_values, target_mask)
        return output

    def _covariate_term(self, covariates: Tensor | None, records: int) -> Tensor | float:
        names = self.config.covariate_names
        if self.covariate_head is None:
            return 0.0
        if covariates is None or tuple(covariates.shape) != (records, len(names)):
            found = None if covariates is None else tuple(covariates.shape)
            raise ValueError(f"covariates: expected {(records, len(names))} with {', '.join(names)}, got {found}")
        covariates = covariates.to(torch.promote_types(covariates.dtype, torch.float32))
        if not torch.compiler.is_compiling() and covariates.isinf().any():  # a look at the values breaks the graph
            odd = names[int(covariates.isinf().any(dim=0).nonzero()[0])]
            raise ValueError(f"covariates: expected finite numbers or NaN, got an infinite {odd}")
        mean, std = (
            covariates.new_tensor(self.config.covariate_means),
            covariates.new_tensor(self.config.covariate_stds),
        )
        standardised = ((covariates - mean) / std).nan_to_num(nan=0.0)
        return self.covariate_head(standardised.to(self.dtype)).squeeze(-1)

    def _set_losses(
        self,
        output: EcgDanSurvivalOutput,
        encoded: EcgDanModelOutput,
        target: Tensor,
        target_mask: Tensor | None,
    ) -> None:
        output.loss = self.config.survival_weight * output.cox_loss
        if self.decoder is not None:
            output.reconstruction = reconstruct(self.decoder, encoded)
            output.reconstruction_loss = reconstruction_loss(output.reconstruction, target, target_mask)
            output.loss = output.loss + self.config.reconstruction_weight * output.reconstruction_loss

    @torch.no_grad()
    def fit_baseline(self, log_hazard: Tensor, event: Tensor, time: Tensor) -> None:
        """Stores Breslow's baseline hazard, so that `predict_risk` gives absolute risk.

        Args:
            log_hazard: (n,), this model's predictions for its training subjects, in evaluation mode.
            event: (n,), 1 = happened, 0 = censored.
            time: (n,), years.

        Raises:
            ValueError: no event at all.
        """
        self._store_baseline(baseline_hazard(log_hazard, event, time))

    @torch.no_grad()
    def recalibrate(self, log_hazard: Tensor, event: Tensor, time: Tensor, method: str = "baseline") -> float:
        """Fits the absolute risks to a new population without touching a weight.

        Args:
            log_hazard: (n,), this model's predictions for the new population, in evaluation mode.
            event: (n,), 1 = happened, 0 = censored.
            time: (n,), years.
            method: "baseline" refits how often the event happens; "slope" also how far log hazards are apart, which
                is kept in `config.calibration_slope` and multiplies every later `log_hazard`.

        Returns:
            The slope; 1 for "baseline".

        Raises:
            ValueError: what `risk_ecgdan.recalibrate` refuses, or a slope that turns the order of risks round.
        """
        with torch.enable_grad():
            found = recalibrate(log_hazard, event, time, method)
        if found.slope <= 0:
            raise ValueError(
                f"log_hazard: expected higher values where the event comes earlier, got a slope of {found.slope:.3g}: "
                "the model does not order this population; train it anew"
            )
        self.config.calibration_slope = self.config.calibration_slope * found.slope
        self._store_baseline(found.baseline)
        return found.slope

    def _store_baseline(self, fitted: Baseline) -> None:
        knots = torch.stack(tuple(fitted)).float()
        if knots.shape[1] > MAX_BASELINE_TIMES:
            knots = knots[:, torch.linspace(0, knots.shape[1] - 1, MAX_BASELINE_TIMES).round().long()]
        knots = knots.to(self.baseline.knots.device)
        self.baseline.knots, self.baseline.standard_error = knots[:2].contiguous(), knots[2].contiguous()
        self.config.num_baseline_times = knots.shape[1]

    @torch.no_grad()
    def predict_survival(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        covariates: Tensor | None = None,
        years: Sequence[float] | Tensor = (1.0, 5.0, 10.0),
    ) -> Tensor:
        """Probability of being free of the event at each of `years`: (N, len(years)), NaN beyond the follow-up.

        Raises:
            ValueError: the baseline hazard has not been fitted, or negative years.
        """
        log_hazard = self._log_hazard(input_values, lead_mask, covariates)
        years = torch.as_tensor(years, dtype=torch.float32, device=log_hazard.device)
        return survival_curve(log_hazard, self.baseline.times, self.baseline.log_cumulative_hazard, years)

    @torch.no_grad()
    def predict_risk(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        covariates: Tensor | None = None,
        horizon_years: float = 10.0,
    ) -> Tensor:
        """Probability of the event within `horizon_years`: (N,), NaN beyond the follow-up."""
        return 1 - self.predict_survival(input_values, lead_mask, covariates, [horizon_years])[:, 0]

    @torch.no_grad()
    def predict_risk_interval(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        covariates: Tensor | None = None,
        horizon_years: float = 10.0,
        level: float = 0.95,
    ) -> Risk:
        """Risk within `horizon_years` with limits, `(risk, low, high)` of (N,) each, NaN beyond the follow-up.

        The limits say how well the baseline hazard is known, from the number of events it was fitted to. How well the
        network is known is not in them.

        Raises:
            ValueError: as [`predict_survival`], or a level outside (0, 1).
        """
        log_hazard = self._log_hazard(input_values, lead_mask, covariates)
        years = torch.tensor([horizon_years], dtype=torch.float32, device=log_hazard.device)
        found = absolute_risk(log_hazard, self.baseline.fitted, years, level)
        return Risk(*(values[:, 0] for values in found))

    def _log_hazard(self, input_values: Tensor, lead_mask: Tensor | None, covariates: Tensor | None) -> Tensor:
        if self.config.num_baseline_times == 0:
            raise ValueError("baseline: expected a fitted baseline hazard, found none; call fit_baseline first")
        return self(input_values, lead_mask, covariates, return_loss=False).log_hazard
