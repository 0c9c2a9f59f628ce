"""Heads on the embedding of an ECG: labels, log hazard, covariates, and the fitted baseline hazard.

Travels with the weights: imports only torch, transformers and its neighbours in this folder.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from .layers_ecgdan import EcgDanDropout
from .risk_ecgdan import Baseline


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
    """Linear term of the covariates; starts at zero, because random weights would outweigh the ECG."""

    def initialise(self) -> None:
        """Sets the weights to zero."""
        init.zeros_(self.weight)


class EcgDanBaselineHazard(nn.Module):
    """The fitted baseline, in persistent buffers that stay float32 whatever the network's precision."""

    def __init__(self, num_times: int):
        super().__init__()
        self.register_buffer("knots", torch.zeros(2, num_times, dtype=torch.float32))
        # -1 where it was not fitted; never empty: safetensors would treat two empty buffers as shared
        self.register_buffer("standard_error", torch.full((max(num_times, 1),), -1.0, dtype=torch.float32))

    def initialise(self) -> None:
        """Marks the baseline as not fitted."""
        init.zeros_(self.knots)
        init.constant_(self.standard_error, -1.0)

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


def multi_label_loss(logits: Tensor, labels: Tensor, positive_weights: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over the known entries of (N, labels); NaN is unknown, fractions are soft targets.

    `positive_weights` (labels,) multiply the loss of what is positive.
    """
    known = ~labels.float().isnan()
    targets = labels.float().nan_to_num()
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none", pos_weight=positive_weights)
    return (loss * known).sum() / known.sum().clamp(min=1)
