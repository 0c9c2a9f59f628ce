"""The two strongest convolutional networks of the PTB-XL benchmark, to compare with under one recipe.

Strodthoff et al., Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL, IEEE JBHI 25(5), 2021, written
from the description of `resnet1d_wang` and `xresnet1d101` in the repository of that paper. They take what
`EcgDanForSequenceClassification` takes and have its loss, so that the same loop trains them; signals of any length.

Shapes: N records, L leads, T samples, C channels.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.heads_ecgdan import EcgDanClassifier
from ecgdan_hf.model.modeling_ecgdan import (
    EcgDanClassifierOutput,
    EcgDanForSurvival,
    EcgDanModelOutput,
    EcgDanPreTrainedModel,
)

HEAD_WIDTH = 128


def convolution(before: int, after: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Convolution that keeps the length (or divides it by `stride`, rounding up), and batch norm."""
    conv = nn.Conv1d(before, after, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(after))


class Residual(nn.Module):
    """ReLU(path(x) + shortcut(x))."""

    def __init__(self, path: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.path, self.shortcut = path, shortcut

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, C, T) -> (N, C', T / stride)."""
        return F.relu(self.path(hidden) + self.shortcut(hidden))


def basic_block(channels: int, stride: int) -> Residual:
    """Kernels 5 and 3; where time is halved the shortcut is a strided 1x1 convolution."""
    path = nn.Sequential(convolution(channels, channels, 5, stride), nn.ReLU(), convolution(channels, channels, 3))
    return Residual(path, convolution(channels, channels, 1, stride) if stride > 1 else nn.Identity())


def bottleneck(before: int, inner: int, stride: int, expansion: int = 4) -> Residual:
    """1x1, 5 and 1x1 convolutions; the shortcut averages pairs before it changes width, as in XResNet."""
    after = inner * expansion
    path = nn.Sequential(
        convolution(before, inner, 1),
        nn.ReLU(),
        convolution(inner, inner, 5, stride),
        nn.ReLU(),
        convolution(inner, after, 1),
    )
    shortcut = nn.Sequential()
    if stride > 1:
        shortcut.append(nn.AvgPool1d(stride, ceil_mode=True))
    if before != after:
        shortcut.append(convolution(before, after, 1))
    return Residual(path, shortcut)


class BenchmarkNetwork(EcgDanPreTrainedModel):
    """A trunk (N, L, T) -> (N, C, T'), max and mean over time, and the benchmark's head of one hidden layer."""

    def __init__(self, config: EcgDanConfig, trunk: nn.Module, channels: int):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.trunk = trunk
        self.head = nn.Sequential(
            nn.BatchNorm1d(2 * channels),
            nn.Dropout(0.25),
            nn.Linear(2 * channels, HEAD_WIDTH),
            nn.ReLU(),
            nn.BatchNorm1d(HEAD_WIDTH),
            nn.Dropout(0.5),
        )
        self.classifier = nn.Linear(HEAD_WIDTH, config.num_labels)
        auxiliary = config.num_auxiliary_labels
        self.auxiliary_classifier = nn.Linear(HEAD_WIDTH, auxiliary) if auxiliary else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):  # Kaiming for these too, as the benchmark has it
            init.kaiming_normal_(module.weight)

    def forward(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        labels: Tensor | None = None,
        auxiliary_targets: Tensor | None = None,
        **kwargs: object,
    ) -> EcgDanClassifierOutput:
        """(N, L, T) -> logits (N, num_labels); a masked lead is a flat line."""
        features = self.features(input_values, lead_mask)
        logits = self.classifier(features)
        auxiliary = None if self.auxiliary_classifier is None else self.auxiliary_classifier(features)
        loss = None
        if labels is not None:
            loss = EcgDanClassifier.multi_label_loss(logits, labels)
            if auxiliary is not None and auxiliary_targets is not None:
                second = EcgDanClassifier.multi_label_loss(auxiliary, auxiliary_targets)
                loss = loss + self.config.auxiliary_weight * second
        return EcgDanClassifierOutput(loss=loss, logits=logits, auxiliary_logits=auxiliary)

    def features(self, input_values: Tensor, lead_mask: Tensor | None = None) -> Tensor:
        """(N, L, T) -> what the head's hidden layer makes of it, (N, HEAD_WIDTH)."""
        if lead_mask is not None:
            input_values = input_values.masked_fill(~lead_mask.bool()[:, :, None], 0)
        hidden = self.trunk(input_values.to(self.dtype))
        return self.head(torch.cat([hidden.amax(-1), hidden.mean(-1)], dim=-1))


class Resnet1dWang(BenchmarkNetwork):
    """Three basic blocks of 128 channels after a stem of kernel 7 that keeps the length."""

    def __init__(self, config: EcgDanConfig):
        stem = nn.Sequential(convolution(config.num_leads, 128, 7), nn.ReLU())
        super().__init__(config, nn.Sequential(stem, *(basic_block(128, stride) for stride in (1, 2, 2))), 128)


class Xresnet1d101(BenchmarkNetwork):
    """3, 4, 23 and 3 bottlenecks; the benchmark keeps 64 (256) channels in all stages instead of doubling them."""

    def __init__(self, config: EcgDanConfig):
        widths = (config.num_leads, 32, 32, 64)
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(itertools.pairwise(widths)):
            layers += [convolution(before, after, 5, 2 if index == 0 else 1), nn.ReLU()]
        layers.append(nn.MaxPool1d(3, 2, padding=1))
        for stage, blocks in enumerate((3, 4, 23, 3)):
            for block in range(blocks):
                first = block == 0
                layers.append(bottleneck(64 if first and stage == 0 else 256, 64, 2 if first and stage else 1))
        super().__init__(config, nn.Sequential(*layers), 256)


NETWORKS = {"resnet1d_wang": Resnet1dWang, "xresnet1d101": Xresnet1d101}


class BenchmarkEncoder(nn.Module):
    """A network of the benchmark in the place of our encoder, so that it learns survival under our heads."""

    def __init__(self, config: EcgDanConfig, kind: type[BenchmarkNetwork]):
        super().__init__()
        self.network = kind(config)
        self.network.classifier = nn.Identity()
        self.projection = nn.Linear(HEAD_WIDTH, config.hidden_size)

    def forward(
        self, input_values: Tensor, lead_mask: Tensor | None = None, *options: object, **more: object
    ) -> EcgDanModelOutput:
        """(N, L, T) -> `pooler_output` (N, hidden_size); it has no maps."""
        return EcgDanModelOutput(pooler_output=self.projection(self.network.features(input_values, lead_mask)))


def survival_network(name: str) -> Callable[[EcgDanSurvivalConfig], EcgDanForSurvival]:
    """Builds our survival model around a network of the benchmark."""

    def build(config: EcgDanSurvivalConfig) -> EcgDanForSurvival:
        model = EcgDanForSurvival(config)
        model.ecgdan = BenchmarkEncoder(config, NETWORKS[name])
        return model

    return build
