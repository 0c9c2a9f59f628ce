"""Heads on the embedding of an ECG: labels, log hazard, covariates, the fitted baseline hazard, alignment with texts.

Alignment: `clip` is the symmetric InfoNCE of Radford et al. (2021), with one change ECG statements need: records that
carry the same text are not each other's negatives, so equal texts share the target mass. `siglip` is the pairwise
sigmoid loss of Zhai et al. (2023). `cosine` is ECG-DAN's own: positives only; nothing keeps records apart. With
`statements` each record meets every text of a list, one sigmoid a pair: a text is true of many records, and a record
has many texts.

Travels with the weights: imports only torch, transformers and its neighbours in this folder.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from .layers_ecgdan import EcgDanDropout, EcgDanHeadNorm
from .risk_ecgdan import Baseline
from .survival_ecgdan import at_years

MAX_BASELINE_TIMES = 2048
MAX_DEVIATION = 4.0
_LOG_NOTHING = -87.0  # of a cumulative hazard before the first event; weights must be finite
OBJECTIVES = ("clip", "siglip", "cosine")
"""Those of one text a record; `statements` has its own loss, [`statement_loss`]."""
_START = {"clip": (1 / 0.07, 0.0), "siglip": (10.0, -10.0), "statements": (10.0, -4.0)}
"""Scale and bias at the start: those of the papers; exp(-4) is the share of texts that are true of a record."""


class EcgDanClassifier(nn.Module):
    """(N, hidden_size) -> label logits and auxiliary logits, over a hidden layer if the configuration has one."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        self.config = config
        width, inner = config.hidden_size, config.classifier_hidden_size
        self.norm = EcgDanHeadNorm(width)
        self.dropout = EcgDanDropout(config.head_dropout, config.dropout_scope)
        if inner:
            self.hidden, self.hidden_norm = nn.Linear(width, inner), EcgDanHeadNorm(inner)
            self.hidden_dropout = EcgDanDropout(min(2 * config.head_dropout, 0.9), config.dropout_scope)
        self.has_hidden = bool(inner)
        self.output = nn.Linear(inner or width, config.num_labels)
        auxiliary = config.num_auxiliary_labels
        self.auxiliary_output = nn.Linear(inner or width, auxiliary) if auxiliary else None

    @torch.no_grad()
    def store_linear(self, mean: Tensor, scale: Tensor, weights: Tensor, bias: Tensor) -> None:
        """Stores a linear classifier of the embedding; there must be no hidden layer.

        Args:
            mean, scale: (hidden_size,), of the embeddings that it was fitted to.
            weights, bias: (num_labels, hidden_size) of standardised embeddings, and (num_labels,).
        """
        spread = (scale.square() + self.norm.eps).sqrt()
        self.norm.load_state_dict({**self.norm.state_dict(), "running_mean": mean, "running_var": scale.square()})
        self.norm.weight.fill_(1.0)
        self.norm.bias.zero_()
        self.output.weight.copy_(weights * spread / scale)
        self.output.bias.copy_(bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, hidden_size) -> (N, num_labels), and (N, num_auxiliary_labels) or None."""
        hidden = self.dropout(self.norm(pooled))
        if self.has_hidden:
            hidden = self.hidden_dropout(self.hidden_norm(F.relu(self.hidden(hidden))))
        return self.output(hidden), None if self.auxiliary_output is None else self.auxiliary_output(hidden)

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        auxiliary_logits: Tensor | None = None,
        auxiliary_targets: Tensor | None = None,
        positive_weights: Tensor | None = None,
    ) -> Tensor:
        """Loss of the labels, plus `auxiliary_weight` times that of the auxiliary labels where there are any."""
        if self.config.problem_type == "single_label_classification":
            loss = F.cross_entropy(logits.float(), labels)
        else:
            loss = self.multi_label_loss(logits, labels, positive_weights)
        if auxiliary_logits is None or auxiliary_targets is None:
            return loss
        return loss + self.config.auxiliary_weight * self.multi_label_loss(auxiliary_logits, auxiliary_targets)

    @staticmethod
    def multi_label_loss(logits: Tensor, labels: Tensor, positive_weights: Tensor | None = None) -> Tensor:
        """Mean binary cross-entropy over the known entries of (N, labels); NaN is unknown, fractions are soft targets.

        `positive_weights` (labels,) multiply the loss of what is positive.
        """
        known = ~labels.float().isnan()
        targets = labels.float().nan_to_num()
        loss = F.binary_cross_entropy_with_logits(
            logits.float(), targets, reduction="none", pos_weight=positive_weights
        )
        return (loss * known).sum() / known.sum().clamp(min=1)


class EcgDanMeasurementHead(nn.Linear):
    """(N, hidden_size) -> (N, measurements), in the units of `config.measurement_names`."""

    def __init__(self, config: EcgDanConfig):
        super().__init__(config.hidden_size, len(config.measurement_names))
        self.config = config

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        means, stds = self.config.measurement_means, self.config.measurement_stds
        return like.new_tensor(means, dtype=torch.float32), like.new_tensor(stds, dtype=torch.float32)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, hidden_size) -> (N, measurements)."""
        means, stds = self._scale(pooled)
        return super().forward(pooled).float() * stds + means

    def loss(self, measurements: Tensor, targets: Tensor) -> Tensor:
        """Mean Huber loss of the known values, in SDs; an outlier of the delineation counts `MAX_DEVIATION` SDs."""
        means, stds = self._scale(measurements)
        known = ~targets.isnan()
        wanted = ((targets.nan_to_num() - means) / stds).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        loss = F.smooth_l1_loss((measurements - means) / stds, wanted, reduction="none")
        return (loss * known).sum() / known.sum().clamp(min=1)


class EcgDanRiskHead(nn.Module):
    """(N, hidden_size) -> (N, outputs): a log hazard for each risk, or a logit for each risk and interval.

    The partial likelihood cannot see the last bias; the paper has it. With `survival_hidden_size` 0 the head is linear
    in the embedding.
    """

    posterior: Tensor
    """(directions, hidden_size + covariates + 1), with a dimension of risks in front where there are several: see
    [`standard_error`]; of a head with `has_posterior` alone."""

    def __init__(self, config: EcgDanSurvivalConfig):
        super().__init__()
        inner, self.num_covariates = config.survival_hidden_size, len(config.covariate_names)
        self.is_linear = not inner
        if inner:
            self.norm = EcgDanHeadNorm(config.hidden_size)
            self.dropout = EcgDanDropout(config.head_dropout, config.dropout_scope)
            self.hidden = nn.Linear(config.hidden_size, inner)
            self.hidden_norm = EcgDanHeadNorm(inner)
        intervals = max(len(config.hazard_cuts) - 1, 1)
        self.output = nn.Linear(inner or config.hidden_size, config.num_risks * intervals)
        if config.num_posterior_directions:
            size = [config.num_posterior_directions, config.hidden_size + self.num_covariates + 1]
            self.register_buffer("posterior", torch.zeros([config.num_risks] * (config.num_risks > 1) + size))

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, hidden_size) -> (N, risks * intervals), the intervals of a risk side by side."""
        if not self.is_linear:
            hidden = self.hidden(self.dropout(self.norm(pooled)))
            pooled = self.hidden_norm(F.relu(hidden))
        found: Tensor = self.output(pooled)
        return found

    def initialise(self) -> None:
        """Forgets how well the weights are known."""
        if self.has_posterior:
            init.zeros_(self.posterior)

    @property
    def has_posterior(self) -> bool:
        """Whether it is stored how well the weights are known."""
        return "posterior" in self._buffers

    def standard_error(self, pooled: Tensor, covariates: Tensor | None) -> Tensor:
        """Standard error of the log hazard relative to the average subject at risk: (N, risks), float32.

        Args:
            pooled: (N, hidden_size).
            covariates: (N, covariates), standardised; None for a model without any.
        """
        known = pooled if covariates is None else torch.cat([pooled, covariates.to(pooled.dtype)], dim=1)
        directions = self.posterior.float().reshape(-1, *self.posterior.shape[-2:])
        moved = torch.einsum("nf,rdf->nrd", known.float(), directions[:, :, :-1]) + directions[:, :, -1]
        error: Tensor = moved.norm(dim=2)
        return error

    @torch.no_grad()
    def store(self, weights: Tensor, bias: Tensor, posterior: Tensor) -> int:
        """Keeps fitted weights ([risks,] hidden_size), biases and a posterior as above; returns its directions."""
        self.output.weight.copy_(weights.reshape(self.output.weight.shape))
        self.output.bias.copy_(bias.reshape(-1))
        self.register_buffer("posterior", posterior.float().to(self.output.weight.device))
        return posterior.shape[-2]


class EcgDanCovariateHead(nn.Linear):
    """Linear term of the covariates; starts at zero, because random weights would outweigh the ECG."""

    def initialise(self) -> None:
        """Sets the weights to zero."""
        init.zeros_(self.weight)


class EcgDanBaselineHazard(nn.Module):
    """The fitted baselines, in persistent buffers that stay float32 whatever the network's precision.

    Several risks share their times, up to the shortest of their follow-ups: the baseline of each is a step function.
    """

    knots: Tensor
    """(1 + risks, knots): times, and the logarithm of each cumulative hazard."""
    standard_error: Tensor
    """(knots,), or (risks, knots) of several."""

    def __init__(self, num_times: int, num_risks: int = 1):
        super().__init__()
        self.register_buffer("knots", torch.zeros(1 + num_risks, num_times, dtype=torch.float32))
        # -1 where it was not fitted; never empty: safetensors would treat two empty buffers as shared
        size = [num_risks] * (num_risks > 1) + [max(num_times, 1)]
        self.register_buffer("standard_error", torch.full(size, -1.0, dtype=torch.float32))

    def initialise(self) -> None:
        """Marks the baseline as not fitted."""
        init.zeros_(self.knots)
        init.constant_(self.standard_error, -1.0)

    def store(self, *fitted: Baseline) -> int:
        """Keeps fitted baselines, one a risk, at most `MAX_BASELINE_TIMES` knots; returns how many it kept."""
        times = torch.unique(torch.cat([baseline.times for baseline in fitted]))
        times = times[times <= min(baseline.times[-1] for baseline in fitted)]  # endpoints may be followed differently
        values = [at_years(each.times, each.log_cumulative_hazard, times, before=_LOG_NOTHING) for each in fitted]
        errors = [at_years(each.times, each.standard_error, times, before=0.0) for each in fitted]
        if len(times) > MAX_BASELINE_TIMES:
            kept = torch.linspace(0, len(times) - 1, MAX_BASELINE_TIMES).round().long()
            times, values, errors = times[kept], [each[kept] for each in values], [each[kept] for each in errors]
        device = self.knots.device
        self.knots = torch.stack([times, *values]).float().to(device)
        self.standard_error = (torch.stack(errors) if len(errors) > 1 else errors[0]).float().to(device)
        return len(times)

    @property
    def times(self) -> Tensor:
        """(knots,), years, ascending; the last is the end of follow-up."""
        return self.knots[0]

    @property
    def log_cumulative_hazard(self) -> Tensor:
        """(knots,), natural logarithm of the cumulative baseline hazard, of the first risk."""
        return self.knots[1]

    @property
    def fitted(self) -> Baseline:
        """That of the first risk, with the standard error of its logarithm given the log hazards."""
        return self.of_risks()[0]

    def of_risks(self) -> list[Baseline]:
        """The baseline of each risk; standard errors are NaN in checkpoints without them."""
        errors = self.standard_error.masked_fill(self.standard_error < 0, math.nan).reshape(len(self.knots) - 1, -1)
        return [Baseline(self.times, values, error) for values, error in zip(self.knots[1:], errors, strict=True)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "EcgDanBaselineHazard":
        # .to(bfloat16) must not round event times: follow the device, keep the precision
        super()._apply(lambda buffer: buffer.to(fn(buffer.new_empty(0)).device), recurse)  # type: ignore[no-untyped-call]
        return self


def alignment_loss(
    ecg_embeds: Tensor,
    text_embeds: Tensor,
    objective: str = "clip",
    logit_scale: Tensor | float = 1.0,
    logit_bias: Tensor | float = 0.0,
    same_text: Tensor | None = None,
) -> Tensor:
    """Distance between paired embeddings, row i of one belonging to row i of the other.

    Args:
        ecg_embeds, text_embeds: (n, width), any scale; normalised here.
        objective: one of `OBJECTIVES`.
        logit_scale: multiplies the cosine similarities (not its logarithm).
        logit_bias: added to them, "siglip" only.
        same_text: (n, n) boolean, true where two rows have equal text; None means no two have.

    Returns:
        Scalar; exchanging the two modalities leaves it unchanged.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {objective!r}")
    ecg, text = F.normalize(ecg_embeds.float(), dim=-1), F.normalize(text_embeds.float(), dim=-1)
    if objective == "cosine":
        return (1 - (ecg * text).sum(-1)).mean()
    if same_text is None:
        same_text = torch.eye(len(ecg), dtype=torch.bool, device=ecg.device)
    logits = logit_scale * ecg @ text.T
    if objective == "clip":
        target = same_text.float() / same_text.sum(-1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    sign = same_text.float() * 2 - 1
    return -F.logsigmoid(sign * (logits + logit_bias)).sum() / len(ecg)


def statement_loss(
    ecg_embeds: Tensor,
    text_embeds: Tensor,
    targets: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    positive_weights: Tensor | None = None,
) -> Tensor:
    """Mean binary cross-entropy over the known pairs of record and text.

    Args:
        ecg_embeds: (n, width), any scale; normalised here.
        text_embeds: (texts, width), the same.
        targets: (n, texts), 1 where the text is true of the record, 0 where not, NaN where unknown.
        logit_scale, logit_bias: of the cosine similarities.
        positive_weights: (texts,), multiply the loss where the text is true, so that rare texts count.

    Returns:
        Scalar; 0 where nothing is known.
    """
    ecg, text = F.normalize(ecg_embeds.float(), dim=-1), F.normalize(text_embeds.float(), dim=-1)
    logits = logit_scale * ecg @ text.T + logit_bias
    return EcgDanClassifier.multi_label_loss(logits, targets, positive_weights)


class EcgDanAlignmentHead(nn.Module):
    """Projects ECG and text embeddings into one space and measures their distance."""

    prompt_embeds: Tensor

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        self.config, self.objective = config, config.alignment_objective
        self.ecg_projection = self._projection(config.hidden_size, config)
        self.text_projection = self._projection(config.text_embed_dim or 0, config)
        self.dropout = EcgDanDropout(config.projection_dropout, config.dropout_scope)
        self.has_bias = self.objective in ("siglip", "statements")
        if self.objective != "cosine":
            self.log_logit_scale = nn.Parameter(torch.empty(()))
        if self.has_bias:
            self.logit_bias = nn.Parameter(torch.empty(()))
        if config.prompt_labels:
            self.register_buffer("prompt_embeds", torch.zeros(len(config.prompt_labels), config.projection_size))

    @staticmethod
    def _projection(width: int, config: EcgDanConfig) -> nn.Sequential:
        hidden = config.projection_hidden_size
        return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, config.projection_size))

    def initialise(self) -> None:
        """Starts at the scale and bias of `_START`."""
        scale, bias = _START.get(self.objective, (1.0, 0.0))
        if self.objective != "cosine":
            init.constant_(self.log_logit_scale, math.log(scale))
        if self.has_bias:
            init.constant_(self.logit_bias, bias)
        if "prompt_embeds" in self._buffers:
            init.zeros_(self.prompt_embeds)

    def project_ecg(self, pooled: Tensor) -> Tensor:
        """(N, hidden_size) -> (N, projection_size), of unit length."""
        return F.normalize(self.ecg_projection(self.dropout(pooled)), dim=-1)

    def project_text(self, text: Tensor) -> Tensor:
        """(N, text_embed_dim) -> (N, projection_size), of unit length."""
        return F.normalize(self.text_projection(text), dim=-1)

    def forward(self) -> tuple[Tensor | float, Tensor | float]:
        """Returns scale and bias of the cosine similarities; a forward call loads offloaded weights."""
        scale = 1.0 if self.objective == "cosine" else self.log_logit_scale.clamp(max=math.log(100.0)).exp()
        return scale, self.logit_bias if self.has_bias else 0.0

    def logit_scale(self) -> Tensor | float:
        """Returns the scale of the cosine similarities."""
        scale: Tensor | float = self()[0]
        return scale

    def logits(self, ecg_embeds: Tensor, text_embeds: Tensor) -> Tensor:
        """Projected (N, projection_size), (texts, projection_size) -> (N, texts): scaled cosine, plus the bias."""
        scale, bias = self()
        logits: Tensor = scale * ecg_embeds @ text_embeds.to(ecg_embeds).T + bias
        return logits

    def prompt_logits(self, ecg_embeds: Tensor) -> Tensor:
        """(N, projection_size) -> (N, prompts): the logits of the cached prompts."""
        return self.logits(ecg_embeds, self.prompt_embeds)

    @torch.no_grad()
    def set_prompts(self, labels: Sequence[str], text_embeds: Tensor) -> None:
        """Caches the prompts of `labels`: (labels, width), or (labels, templates, width), averaged once projected."""
        shape, width = tuple(text_embeds.shape), self.config.text_embed_dim
        if len(shape) not in (2, 3) or (shape[0], shape[-1]) != (len(labels), width):
            raise ValueError(f"text_embeds: expected ({len(labels)}, [templates,] {width}), got {shape}")
        self.config.prompt_labels = list(labels)
        projected = self.project_text(text_embeds.to(next(self.text_projection.parameters())))
        projected = projected if projected.ndim == 2 else F.normalize(projected.mean(1), dim=-1)
        self.register_buffer("prompt_embeds", projected.float())

    def statement_loss(
        self, ecg_embeds: Tensor, text_embeds: Tensor, targets: Tensor, positive_weights: Tensor | None = None
    ) -> Tensor:
        """[`statement_loss`] of projected embeddings, with the head's scale and bias: scalar."""
        scale, bias = self()
        return statement_loss(ecg_embeds, text_embeds, targets, scale, bias, positive_weights)

    def loss(self, ecg_embeds: Tensor, text_embeds: Tensor, given_text: Tensor) -> Tensor:
        """Distance of paired, projected embeddings: scalar. Rows of `given_text` are equal where texts are."""
        if self.objective == "cosine":
            return alignment_loss(ecg_embeds, text_embeds, "cosine")
        scale, bias = self()
        same_text = _equal_rows(given_text).to(ecg_embeds.device)
        return alignment_loss(ecg_embeds, text_embeds, self.objective, scale, bias, same_text)


def _equal_rows(given_text: Tensor) -> Tensor:
    """(N, N) boolean, true where two rows are the same, value by value."""
    text: Tensor = torch.unique(given_text.detach(), dim=0, return_inverse=True)[1]
    return text[:, None] == text[None, :]
