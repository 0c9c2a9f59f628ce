"""DANet: a waveform-enhanced module under the rule of one disease, in front of a classifier (arXiv 2407.18033).

Each sample has a weight a(t), shared by all leads, and the classifier sees a(t) x(t) with the rule's own weights
("hard", from the feature extractor), or (1 + a(t)) x(t) with those of a small U-Net ("soft"), pretrained to predict
the rule's weights or hidden samples. The weights double as the explanation. A reconstruction: layers, weights and
pretext task of the published method could not be read. Shapes: N records, L leads, T samples, C channels.
Travels with the weights: imports only torch, transformers and its neighbours.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_danet import DanetConfig
from .configuration_ecgdan import EcgDanConfig
from .contract_ecgdan import STANDARD_LEADS as STANDARD_LEADS  # names every file that travels
from .discrete_time_ecgdan import discrete_time_loss
from .heads_ecgdan import EcgDanClassifier
from .layers_ecgdan import EcgDanDropout
from .light_ecgdan import LIGHT_TRUNK
from .modeling_ecgdan import EcgDanModel, EcgDanModelOutput, EcgDanPreTrainedModel
from .paper_ecgdan import PAPER_TRUNK
from .risk_ecgdan import Baseline
from .risk_prediction_ecgdan import RiskPredictionMixin
from .survival_ecgdan import cox_loss

TRAVELS: tuple[object, ...] = (EcgDanConfig, EcgDanDropout, LIGHT_TRUNK, PAPER_TRUNK)
TRAVELS += (Baseline, RiskPredictionMixin, cox_loss, discrete_time_loss)
"""Not used here: a file that `auto_map` names has to import every file it needs directly."""

_RESNET_KERNEL = 9  # 90 ms at 100 Hz before the first halving of time: a QRS complex
_MERGE_KERNEL = 5
_WEIGHT_STRIDE = 4  # samples between two weights of the soft module
_SAME_LABEL = {"APC": "PAC", "PVC": "VPC"}  # MIT-BIH's names, and how other sources turn them round
_EVIDENCE_SECONDS = 0.12  # a QRS complex, or a P wave: shorter peaks of a(t) are no beat


@dataclass
class DanetPreTrainingOutput(ModelOutput):
    """Output of [`DanetForPreTraining`].

    Args:
        loss: weighted sum of the losses that could be computed; `*_loss` are its parts, unweighted.
        waveform_attention: (N, T), a(t) in (0, 1), float32.
        reconstruction: (N, L, T), in the scaling of `input_values`; None where `reconstruction_weight` is 0.
    """

    loss: Tensor | None = None
    waveform_loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    waveform_attention: Tensor | None = None
    reconstruction: Tensor | None = None


@dataclass
class DanetClassifierOutput(ModelOutput):
    """Output of [`DanetForSequenceClassification`].

    Args:
        loss: of the labels, plus `auxiliary_weight` times that of the auxiliary labels and `waveform_weight` times
            `waveform_loss`.
        waveform_loss: of a(t), where `waveform_targets` were given to a soft module.
        logits, auxiliary_logits: (N, num_labels), (N, num_auxiliary_labels).
        waveform_attention: (N, T), a(t) from 0 to 1, float32, for all leads; None for `waveform_module="none"`.
        pooler_output and what follows: as in [`EcgDanModelOutput`]; a residual network has the first alone.
    """

    loss: Tensor | None = None
    waveform_loss: Tensor | None = None
    logits: Tensor | None = None
    auxiliary_logits: Tensor | None = None
    waveform_attention: Tensor | None = None
    pooler_output: Tensor | None = None
    lead_attention: Tensor | None = None
    time_attention: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class _WaveformBlock(GradientCheckpointingLayer):
    """A convolution that halves time, and a second one with a shortcut around it: (N, C, T) -> (N, C', T / 2)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__()
        self.conv1 = nn.Conv1d(in_channels, out_channels, kernel, 2, kernel // 2, bias=False)
        self.norm1 = nn.BatchNorm1d(out_channels)
        self.conv2 = nn.Conv1d(out_channels, out_channels, _MERGE_KERNEL, 1, _MERGE_KERNEL // 2, bias=False)
        self.norm2 = nn.BatchNorm1d(out_channels)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(hidden)))
        return F.relu(hidden + self.norm2(self.conv2(hidden)))


class _Merge(nn.Module):
    """One step up: the coarser features, repeated, (N, width, T' / 2), plus what the way down has, (N, C, T')."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.lateral = nn.Conv1d(channels, width, 1)
        self.conv = nn.Conv1d(width, width, _MERGE_KERNEL, 1, _MERGE_KERNEL // 2, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, state: Tensor, coarser: Tensor | None) -> Tensor:
        hidden = self.lateral(state)
        if coarser is not None:
            hidden = hidden + coarser.repeat_interleave(2, dim=-1)
        return F.relu(self.norm(self.conv(hidden)))


class _WaveformModule(nn.Module):
    """The soft module: a one-dimensional U-Net (Ronneberger et al. 2015), one weight per sample for all leads.

    The way up adds instead of concatenating (feature pyramid, Lin et al. 2017) and ends at a fourth of the sampling
    rate, 40 ms at 100 Hz, between which weights are interpolated: waves are longer, and the last steps would cost
    most. With the default widths and kernel a weight depends on 6 s of ECG at 100 Hz: a beat is early only against
    the intervals before it.
    """

    def __init__(self, config: DanetConfig):
        super().__init__()
        channels = list(config.waveform_channels)
        self.stride = 2 ** len(channels)
        self.down = nn.ModuleList(
            _WaveformBlock(before, after, config.waveform_kernel)
            for before, after in itertools.pairwise([config.num_leads, *channels])
        )
        self.up = nn.ModuleList(_Merge(each, channels[1]) for each in reversed(channels[1:]))
        self.attention_head = nn.Conv1d(channels[1], 1, 1)

    def forward(self, signal: Tensor, lead_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, L, T) and (N, L) -> logits of a(t), (N, T), and the features (N, C, T / 4) they come from."""
        samples = signal.shape[-1]
        if lead_mask is not None:
            signal = signal.masked_fill(~lead_mask.bool()[:, :, None], 0)
        states = [F.pad(signal, (0, -samples % self.stride))]
        for block in self.down:
            states.append(block(states[-1]))
        hidden: Any = None  # above the coarsest features there are none
        for merge in self.up:
            hidden = merge(states.pop(), hidden)
        features = hidden[..., : -(-samples // _WEIGHT_STRIDE)]
        logits = F.interpolate(self.attention_head(hidden), scale_factor=_WEIGHT_STRIDE, mode="linear")
        return logits[:, 0, :samples], features


class _Evidence(nn.Module):
    """The soft module's confidence in its strongest wave, for each label's logit: (N, T) -> (N, num_labels).

    The highest mean of a(t)'s logits over 120 ms: one beat is enough for the label, wherever it lies, and what the map
    shows as the highest is what spoke for it. Only the rule's own label starts with it.
    """

    def __init__(self, config: DanetConfig):
        super().__init__()
        self.window = max(1, round(_EVIDENCE_SECONDS * config.sampling_rate))
        self.weight = nn.Parameter(torch.empty(config.num_labels))
        rule: Any = config.waveform_rule or {}
        name = str(rule.get("name", "")).upper()
        spellings = {name, _SAME_LABEL.get(name, name)}
        labels = [str(config.id2label[label]).upper() for label in range(config.num_labels)]
        self.initial = [float(len(labels) == 1 or label in spellings) for label in labels]

    def initialise(self) -> None:
        init.copy_(self.weight, torch.tensor(self.initial))

    def forward(self, waveform_logits: Tensor) -> Tensor:
        means = F.avg_pool1d(waveform_logits[:, None], self.window, _WEIGHT_STRIDE)
        return means.amax(-1) * self.weight


class _ResNetBlock(GradientCheckpointingLayer):
    """Two convolutions and an averaged shortcut; time halves, rounded up."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv1d(in_channels, out_channels, _RESNET_KERNEL, 2, _RESNET_KERNEL // 2, bias=False)
        self.norm1 = nn.BatchNorm1d(out_channels)
        self.conv2 = nn.Conv1d(out_channels, out_channels, _RESNET_KERNEL, 1, _RESNET_KERNEL // 2, bias=False)
        self.norm2 = nn.BatchNorm1d(out_channels)
        self.pool = nn.AvgPool1d(2, ceil_mode=True)
        self.shortcut = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.shortcut_norm = nn.BatchNorm1d(out_channels)

    def forward(self, hidden: Tensor) -> Tensor:
        main = F.relu(self.norm1(self.conv1(hidden)))
        return F.relu(self.norm2(self.conv2(main)) + self.shortcut_norm(self.shortcut(self.pool(hidden))))


class _ResNet(nn.Module):
    """A plain residual network over all leads, without attention, as wide as the light trunk."""

    def __init__(self, config: DanetConfig):
        super().__init__()
        channels = [config.stem_features, *config.trunk_channels, config.hidden_size // 2]
        self.stem = nn.Conv1d(config.num_leads, channels[0], _RESNET_KERNEL, 2, _RESNET_KERNEL // 2, bias=False)
        self.norm = nn.BatchNorm1d(channels[0])
        self.blocks = nn.ModuleList(_ResNetBlock(before, after) for before, after in itertools.pairwise(channels))

    def forward(self, signal: Tensor) -> EcgDanModelOutput:
        """(N, L, T), masked leads zeroed -> the mean and maximum over time, (N, hidden_size), as `pooler_output`."""
        hidden = F.relu(self.norm(self.stem(signal)))
        for block in self.blocks:
            hidden = block(hidden)
        return EcgDanModelOutput(pooler_output=torch.cat([hidden.mean(-1), hidden.amax(-1)], dim=-1))


class _DanetPreTrainedModel(EcgDanPreTrainedModel):
    """Loading, saving and freezing shared by both heads."""

    config: DanetConfig
    config_class = DanetConfig
    _no_split_modules = [*EcgDanPreTrainedModel._no_split_modules, "_WaveformModule", "_ResNet"]  # noqa: RUF012
    _no_split_modules += ["_WaveformBlock", "_ResNetBlock"]
    waveform_module: _WaveformModule | None
    _waveform_frozen = False

    def freeze_waveform_module(self) -> None:
        """Keeps the soft module as it is: no gradients, and its norms' statistics stay fixed in training too."""
        self._set_frozen(True)

    def unfreeze_waveform_module(self) -> None:
        """Lets the soft module learn again."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        if self.waveform_module is None:
            raise ValueError(f"waveform_module: expected 'soft' to freeze, got {self.config.waveform_module!r}")
        self._waveform_frozen = frozen
        self.waveform_module.requires_grad_(not frozen)
        self.waveform_module.train(self.training and not frozen)

    def train(self, mode: bool = True) -> "_DanetPreTrainedModel":
        """A frozen waveform module stays in evaluation mode."""
        super().train(mode)
        if self._waveform_frozen and self.waveform_module is not None:
            self.waveform_module.train(False)
        return self


class DanetForPreTraining(_DanetPreTrainedModel):
    """The soft module alone: it learns to predict a rule's weights, or what was hidden of the signal, or both.

    Its weights have the names they have in [`DanetForSequenceClassification`], which loads them from here.
    """

    waveform_module: _WaveformModule

    def __init__(self, config: DanetConfig):
        super().__init__(config)
        if config.waveform_module != "soft":
            raise ValueError(f"waveform_module: expected 'soft' for pretraining, got {config.waveform_module!r}")
        self.waveform_module = _WaveformModule(config)
        width, leads = config.waveform_channels[1], config.num_leads
        head = nn.Conv1d(width, leads * _WEIGHT_STRIDE, 1) if config.reconstruction_weight else None
        self.reconstruction_head = head  # every step tells the samples of all leads beneath it
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator, unused-ignore]
    def forward(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        waveform_targets: Tensor | None = None,
        target_values: Tensor | None = None,
        target_mask: Tensor | None = None,
        return_loss: bool = True,
        **kwargs: object,
    ) -> DanetPreTrainingOutput:
        """Weighs the samples and fills in what was hidden.

        The weights are learned by cross-entropy, which is least where a(t) is the expected weight, as squared error
        is, but whose gradient does not vanish where a(t) is near 0 or 1 and wrong.

        Args:
            input_values, lead_mask: as in [`EcgDanModel`]; samples may be set to 0 for the exercise.
            waveform_targets: (N, T), the rule's weights, 0 to 1.
            target_values: (N, L, T), the whole signal, where hidden samples are to be found again.
            target_mask: (N, L, T), true where a sample was hidden, or (N, L), where leads count; default all of
                `lead_mask`.
            return_loss: compute the losses.

        Raises:
            ValueError: shapes the network was not built for, or `target_values` without a reconstruction head.
        """
        self._check_input(input_values, lead_mask)
        logits, features = self.waveform_module(input_values.to(self.dtype), lead_mask)
        output = DanetPreTrainingOutput(waveform_attention=logits.float().sigmoid())
        if self.reconstruction_head is not None:
            steps = self.reconstruction_head(features).unflatten(1, (self.config.num_leads, -1))
            output.reconstruction = steps.transpose(2, 3).flatten(2)[..., : input_values.shape[-1]]
        if not return_loss:
            return output
        if waveform_targets is not None:
            _checked_weights(waveform_targets, input_values, "waveform_targets")
            output.waveform_loss = F.binary_cross_entropy_with_logits(logits.float(), waveform_targets.float())
            output.loss = self.config.waveform_weight * output.waveform_loss
        if target_values is not None:
            output.reconstruction_loss = self._hidden_samples_loss(
                output.reconstruction, target_values, lead_mask if target_mask is None else target_mask
            )
            weighted = self.config.reconstruction_weight * output.reconstruction_loss
            output.loss = weighted if output.loss is None else output.loss + weighted
        return output

    def _hidden_samples_loss(self, found: Tensor | None, target: Tensor, mask: Tensor | None) -> Tensor:
        """Mean squared error of the samples in the mask."""
        if found is None:
            raise ValueError("target_values: expected a model with reconstruction_weight above 0, this one has 0")
        if mask is None:
            return F.mse_loss(found.float(), target.float())
        if tuple(mask.shape) not in (tuple(target.shape), tuple(target.shape[:2])):
            expected = f"{tuple(target.shape)} or {tuple(target.shape[:2])}"
            raise ValueError(f"target_mask: expected {expected}, got {tuple(mask.shape)}")
        mask = (mask if mask.ndim == 3 else mask[:, :, None]).bool().expand_as(target)
        error = (found.float() - target.float()).masked_fill(~mask, 0).square()  # a lead that is not there may be NaN
        return error.sum() / mask.sum().clamp(min=1)


class DanetForSequenceClassification(_DanetPreTrainedModel):
    """Waveform-enhanced module and classifier; multi-label unless `config.problem_type` says otherwise."""

    def __init__(self, config: DanetConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.positive_weights = _positive_weights(config)
        self.waveform_module = _WaveformModule(config) if config.waveform_module == "soft" else None
        if config.classifier_network == "ecgdan":
            self.ecgdan = EcgDanModel(config)
        else:
            self.resnet = _ResNet(config)
        self.classifier = EcgDanClassifier(config)
        evident = config.use_attention_evidence and self.waveform_module is not None
        self.evidence = _Evidence(config) if evident else None
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator, unused-ignore]
    def forward(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        waveform_weights: Tensor | None = None,
        labels: Tensor | None = None,
        auxiliary_targets: Tensor | None = None,
        waveform_targets: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: object,
    ) -> DanetClassifierOutput:
        """Classifies ECGs and says where it looked.

        Args:
            input_values, lead_mask, output_attentions, output_hidden_states: as in [`EcgDanModel`];
                `waveform_attention` is always there.
            waveform_weights: (N, T), the rule's weights, 0 to 1, from a feature extractor with the model's
                `waveform_rule`; needed by `waveform_module="hard"`, and ignored by the others.
            labels, auxiliary_targets: as in [`EcgDanForSequenceClassification`].
            waveform_targets: (N, T), what a(t) should be, 0 to 1, or NaN where it is not known: the soft module learns
                it together with the labels, as in pretraining; ignored by other modules and without `labels`.

        Raises:
            ValueError: shapes the network was not built for, or a hard module without weights.
        """
        self._check_input(input_values, lead_mask)
        if lead_mask is not None:
            input_values = input_values.masked_fill(~lead_mask.bool()[:, :, None], 0)
        amended, attention, waveform_logits = self._amend(input_values.to(self.dtype), lead_mask, waveform_weights)
        if self.config.classifier_network == "ecgdan":
            encoded = self.ecgdan(amended, lead_mask, output_attentions, output_hidden_states)
        else:
            encoded = self.resnet(amended)
        logits, auxiliary = self.classifier(encoded.pooler_output)
        if self.evidence is not None:
            logits = logits + self.evidence(waveform_logits).to(logits.dtype)
        loss = waveform_loss = None
        if labels is not None:
            weights = None if self.positive_weights is None else logits.new_tensor(self.positive_weights).float()
            loss = self.classifier.loss(logits, labels, auxiliary, auxiliary_targets, weights)
            if waveform_targets is not None and waveform_logits is not None:
                _checked_weights(waveform_targets, input_values, "waveform_targets")
                waveform_loss = self.classifier.multi_label_loss(waveform_logits, waveform_targets)
                loss = loss + self.config.waveform_weight * waveform_loss
        return DanetClassifierOutput(
            loss=loss,
            waveform_loss=waveform_loss,
            logits=logits,
            auxiliary_logits=auxiliary,
            waveform_attention=attention,
            **encoded.for_head(),
        )

    def _amend(
        self, signal: Tensor, lead_mask: Tensor | None, weights: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The signal the classifier sees, (N, L, T), a(t), (N, T), and its logits where a soft module made it."""
        if self.config.waveform_module == "hard":
            weights = _checked_weights(weights, signal, "waveform_weights")
            return weights.to(signal.dtype)[:, None] * signal, weights.float(), None
        if self.waveform_module is None:
            return signal, None, None
        logits = self.waveform_module(signal, lead_mask)[0].float()
        attention = logits.sigmoid()
        return (1 + attention.to(signal.dtype))[:, None] * signal, attention, logits


def _checked_weights(weights: Tensor | None, signal: Tensor, name: str) -> Tensor:
    expected = (signal.shape[0], signal.shape[2])
    if weights is None or tuple(weights.shape) != expected:
        got = None if weights is None else tuple(weights.shape)
        advice = "; prepare signals with an EcgDanFeatureExtractor that has the model's waveform_rule"
        advice = advice if name == "waveform_weights" else ""
        raise ValueError(f"{name}: expected (batch, samples) {expected}, got {got}{advice}")
    return weights


def _positive_weights(config: DanetConfig) -> list[float] | None:
    """`config.positive_weights` in the order of the labels, 1 where a label is not named."""
    if not config.positive_weights:
        return None
    names = [config.id2label[label] for label in range(config.num_labels)]
    unknown = sorted(set(config.positive_weights) - set(names))
    if unknown:
        raise ValueError(f"positive_weights: expected labels among {', '.join(names)}, got {unknown[0]}")
    if config.problem_type == "single_label_classification":
        raise ValueError("positive_weights: expected a multi-label problem, got single_label_classification")
    return [float(config.positive_weights.get(name, 1.0)) for name in names]
