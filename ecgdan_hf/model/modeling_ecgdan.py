"""ECG-DAN: the dual attention network for 12-lead ECG (arXiv 2403.10581, IEEE Trans. Big Data 11(3):948-960, 2025).

A trunk (`paper_ecgdan`, `light_ecgdan`) feeds an attention over time within each lead and one across leads; heads
(`heads_ecgdan`) serve pretraining, classification and survival. Shapes: N records, L leads, C channels, T samples, T'
tokens. Travels with the weights: imports only torch, transformers and its neighbours in this folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_ecgdan import ENCODER_FIELDS, EcgDanConfig, EcgDanSurvivalConfig
from .contract_ecgdan import STANDARD_LEADS as STANDARD_LEADS  # names every file that travels
from .discrete_time_ecgdan import discrete_time_loss, log_cumulative_hazard, marginal_logits
from .heads_ecgdan import (
    EcgDanAlignmentHead,
    EcgDanBaselineHazard,
    EcgDanClassifier,
    EcgDanCovariateHead,
    EcgDanMeasurementHead,
    EcgDanRiskHead,
)
from .layers_ecgdan import Trunk
from .light_ecgdan import LIGHT_TRUNK
from .paper_ecgdan import PAPER_TRUNK
from .risk_ecgdan import Risk as Risk  # not used here: `auto_map` names this file, so it imports all that it needs
from .risk_prediction_ecgdan import RiskPredictionMixin
from .survival_ecgdan import cause_specific_loss, cox_loss, endpoint_loss

TRUNKS: dict[str, Trunk] = {"paper": PAPER_TRUNK, "light": LIGHT_TRUNK}

HEADS = {"decoder", "alignment_head", "superclass_head", "classifier", "risk_head", "covariate_head", "baseline"}
HEADS |= {"evidence", "reconstruction_head", "measurement_head"}
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

    def for_head(self) -> dict[str, Tensor | tuple[Tensor, ...]]:
        """Returns the fields that every head's output repeats."""
        return {name: self[name] for name in ENCODER_FIELDS if name in self}


@dataclass
class EcgDanPreTrainingOutput(ModelOutput):
    """Output of [`EcgDanForPreTraining`].

    Args:
        loss: weighted sum of the losses that could be computed; `*_loss` are its parts, unweighted.
        reconstruction: (N, L, T), in the scaling of `input_values`.
        superclass_logits: (N, num_superclasses).
        measurements: (N, len(config.measurement_names)), read from the embedding, in the units of their names.
        ecg_embeds, text_embeds: (N, projection_size), of unit length.
        prompt_logits: (N, len(config.prompt_labels)), scaled similarity to each cached prompt; with the objective
            `statements` its sigmoid is the probability that the prompt is true.
    """

    loss: Tensor | None = None
    reconstruction: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    alignment_loss: Tensor | None = None
    superclass_loss: Tensor | None = None
    measurement_loss: Tensor | None = None
    superclass_logits: Tensor | None = None
    measurements: Tensor | None = None
    ecg_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    prompt_logits: Tensor | None = None
    pooler_output: Tensor | None = None
    lead_attention: Tensor | None = None
    time_attention: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class EcgDanClassifierOutput(ModelOutput):
    """Output of [`EcgDanForSequenceClassification`]: logits (N, num_labels), (N, num_auxiliary_labels)."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    auxiliary_logits: Tensor | None = None
    pooler_output: Tensor | None = None
    lead_attention: Tensor | None = None
    time_attention: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class EcgDanSurvivalOutput(ModelOutput):
    """Output of [`EcgDanForSurvival`]: losses, log_hazard, reconstruction (N, L, T), the encoder's fields.

    `log_hazard` is (N,), or (N, risks) of competing causes; `log_hazard_error`, of the same shape, its standard error,
    of models that know it. `hazard_logits` (N, risks, intervals) are those of a discrete hazard, whose `log_hazard` is
    the logarithm of the cumulative hazard up to the last cut. `cox_loss` is the loss of the follow-up, also then.
    """

    loss: Tensor | None = None
    log_hazard: Tensor | None = None
    log_hazard_error: Tensor | None = None
    hazard_logits: Tensor | None = None
    cox_loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    reconstruction: Tensor | None = None
    pooler_output: Tensor | None = None
    lead_attention: Tensor | None = None
    time_attention: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


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
    # the first three: `device_map="auto"` then leaves so small a network on one device
    _no_split_modules = ["EcgDanModel", "EcgDanAlignmentHead", "_Readout"]  # noqa: RUF012 (as transformers has it)
    _no_split_modules += ["_ResidualBlock", "_TimeAttention", "_LeadAttention"]
    _keep_in_fp32_modules_strict = ["baseline"]  # noqa: RUF012

    def post_init(self) -> None:
        """Finishes the construction; loading then passes over the weights of heads that this class does not have.

        Set here and not on the class, because transformers adds the patterns of a model's parts to its own.
        """
        super().post_init()  # type: ignore[no-untyped-call]
        self._keys_to_ignore_on_load_unexpected = {rf"^{name}\." for name in HEADS if not hasattr(self, name)}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises one module, and refills what no checkpoint carries.

        Our own blocks bring an `initialise`. The paper's trunk has Kaiming's and Xavier's distributions and zero
        biases; the light trunk torch's own, because under norms smaller weights learn faster.
        """
        config = getattr(self.config, "ecg_config", self.config)  # of the ECG side of the dual encoder
        initialise = getattr(module, "initialise", None)
        if callable(initialise):
            initialise()
        elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            light, bound = config.trunk == "light", module.weight[0].numel() ** -0.5
            if light:
                init.uniform_(module.weight, -bound, bound)
            elif isinstance(module, nn.Linear):
                init.xavier_uniform_(module.weight)
            else:
                init.kaiming_normal_(module.weight, nonlinearity="leaky_relu")
            if module.bias is not None and light:
                init.uniform_(module.bias, -bound, bound)
            elif module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
            super()._init_weights(module)  # type: ignore[no-untyped-call]

    def _check_input(self, input_values: Tensor, lead_mask: Tensor | None) -> None:
        """Raises a ValueError for shapes that the network was not built for."""
        leads, samples, stride = self.config.num_leads, self.config.num_samples, self.config.token_stride
        shape = tuple(input_values.shape)
        piece = self.config.trunk == "light" and len(shape) == 3 and 0 < shape[2] < samples and not shape[2] % stride
        if len(shape) != 3 or shape[1] != leads or (shape[2] != samples and not piece):
            raise ValueError(
                f"input_values: expected (batch, {leads} leads, {samples} samples), got {shape}; prepare signals with "
                "EcgDanFeatureExtractor"
            )
        if lead_mask is not None and tuple(lead_mask.shape) != shape[:2]:
            raise ValueError(f"lead_mask: expected {shape[:2]}, got {tuple(lead_mask.shape)}")

    def _build_decoder(self, config: EcgDanConfig) -> nn.Module | None:
        """The trunk's decoder, for which the trunk reads whole records; None without a reconstruction loss."""
        if config.reconstruction_weight <= 0:
            return None
        encoder: Any = self.ecgdan
        encoder.trunk_crop = 0
        return TRUNKS[config.trunk].decoder(config)

    @staticmethod
    def _reconstruction_loss(reconstruction: Tensor, target: Tensor, target_mask: Tensor | None) -> Tensor:
        """Mean squared error over the samples of the leads that have a target: scalar."""
        error = F.mse_loss(reconstruction.float(), target.float(), reduction="none").mean(-1)
        if target_mask is None:
            return error.mean()
        return (error * target_mask).sum() / target_mask.sum().clamp(min=1)


class EcgDanModel(EcgDanPreTrainedModel):
    """The dual attention encoder without a head."""

    stem: Callable[[Tensor], Tensor]
    trunk: nn.ModuleList
    time_attention: Callable[[Tensor, bool], tuple[Tensor, Tensor | None]] | None
    lead_attention: Callable[[Tensor, Tensor | None, bool], tuple[Tensor, Tensor | None]] | None
    readout: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
    beats: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None
    average_projection: Callable[[Tensor], Tensor]
    max_projection: Callable[[Tensor], Tensor]

    def __init__(self, config: EcgDanConfig):
        super().__init__(config)
        self.trunk_crop = config.trunk_crop
        for name, block in TRUNKS[config.trunk].blocks(config).items():
            setattr(self, name, block)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator, unused-ignore]
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
            lead_mask: (N, L) boolean, true where the lead was recorded; None means all were. A masked lead is set
                to zero; with `lead_layout="lead_true"` it is neither attended to nor pooled.
            output_attentions: return `lead_attention` and `time_attention`.
            output_hidden_states: return `hidden_states`.

        Raises:
            ValueError: `input_values` or `lead_mask` of another shape than the configuration says.
        """
        self._check_input(input_values, lead_mask)
        maps = bool(output_attentions)
        if lead_mask is not None:
            lead_mask = lead_mask.bool()
            input_values = input_values.masked_fill(~lead_mask[:, :, None], 0)
        # In the reference layout slots are no physical leads: masking the input is all that can be done.
        slot_mask = lead_mask if self.config.lead_layout == "lead_true" else None
        whole = input_values.to(self.dtype)
        hidden, states = self.stem(self._piece(whole)), []
        for block in self.trunk:
            hidden = block(hidden)
            states.append(hidden)
        timed, time_map = (hidden, None) if self.time_attention is None else self.time_attention(hidden, maps)
        fused, lead_map = self._fuse(hidden, timed, slot_mask, maps)
        if slot_mask is not None:
            fused = fused.masked_fill(~slot_mask[:, None, :, None], 0)
        states += [timed, fused]
        pooled, features = self._pool(fused, slot_mask)
        if self.beats is not None:
            pooled = self.beats(pooled, whole, slot_mask)
        return EcgDanModelOutput(
            last_hidden_state=fused.permute(0, 2, 3, 1),
            pooler_output=pooled,
            readout_features=features,
            lead_attention=lead_map,
            time_attention=time_map,
            hidden_states=tuple(state.permute(0, 2, 3, 1) for state in states) if output_hidden_states else None,
        )

    def _piece(self, signal: Tensor) -> Tensor:
        """A random stretch of `trunk_crop` samples in training, the same for all records; else the whole record."""
        crop = self.trunk_crop
        if not (self.training and 0 < crop < signal.shape[-1]):
            return signal
        start = int(torch.randint(signal.shape[-1] - crop + 1, ()))
        return signal[..., start : start + crop]

    def _fuse(self, trunk: Tensor, timed: Tensor, mask: Tensor | None, maps: bool) -> tuple[Tensor, Tensor | None]:
        """Adds the two branches, or chains them: (N, C, L, T') and the lead map.

        Without time attention the time branch is the trunk, and without lead attention the lead branch is the time
        branch, as in the authors' ablations.
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


class EcgDanForPreTraining(EcgDanPreTrainedModel):
    """Encoder and decoder, with an optional alignment head (`text_embed_dim`) and superclass head.

    A checkpoint with `config.prompt_labels` carries the projected embedding of each of these labels' prompts, and so
    classifies without any text model: `prompt_logits` in the output.
    """

    def __init__(self, config: EcgDanConfig):
        super().__init__(config)
        self.ecgdan = EcgDanModel(config)
        self.decoder = self._build_decoder(config)
        self.alignment_head = EcgDanAlignmentHead(config) if config.text_embed_dim else None
        count = config.num_superclasses
        self.superclass_head = nn.Linear(config.hidden_size, count) if count else None
        self.measurement_head = EcgDanMeasurementHead(config) if config.measurement_names else None
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator, unused-ignore]
    def forward(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        target_values: Tensor | None = None,
        target_mask: Tensor | None = None,
        text_embeds: Tensor | None = None,
        text_targets: Tensor | None = None,
        text_weights: Tensor | None = None,
        superclass_targets: Tensor | None = None,
        measurement_targets: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_loss: bool = True,
        **kwargs: object,
    ) -> EcgDanPreTrainingOutput:
        """Reconstructs the signal and aligns the embedding with text.

        Args:
            input_values, lead_mask, output_attentions, output_hidden_states: as in [`EcgDanModel`]; some leads may be
                masked for the exercise.
            target_values: (N, L, T), the unmasked signal; default `input_values`.
            target_mask: (N, L), true where a target was recorded; default all leads, or `lead_mask` when
                `target_values` is not given.
            text_embeds: (N, text_embed_dim), the frozen language model's embedding of each record's text; with the
                objective `statements` (texts, text_embed_dim), the texts that all records are compared with.
            text_targets: (N, texts), with that objective: 1 where the text is true of the record, 0, or NaN: unknown.
            text_weights: (texts,), weights of the pairs that are true; default 1.
            superclass_targets: (N, num_superclasses), 0 or 1.
            measurement_targets: (N, len(config.measurement_names)), in the units of their names, NaN where unknown.
            return_loss: compute the losses.
        """
        encoded = self.ecgdan(input_values, lead_mask, output_attentions, output_hidden_states)
        output = EcgDanPreTrainingOutput(**encoded.for_head())
        if self.decoder is not None:
            output.reconstruction = self.decoder(encoded.pooler_output, encoded.readout_features)
        if self.superclass_head is not None:
            output.superclass_logits = self.superclass_head(encoded.pooler_output)
        if self.measurement_head is not None:
            output.measurements = self.measurement_head(encoded.pooler_output)
        if self.alignment_head is not None:
            ecg = output.ecg_embeds = self.alignment_head.project_ecg(encoded.pooler_output)
            if self.config.prompt_labels:
                output.prompt_logits = self.alignment_head.prompt_logits(ecg)
            if text_embeds is not None:
                text = output.text_embeds = self.alignment_head.project_text(text_embeds.to(self.dtype))
        if not return_loss:
            return output
        if output.reconstruction is not None:
            if target_values is None:
                target_values, target_mask = input_values, lead_mask if target_mask is None else target_mask
            output.reconstruction_loss = self._reconstruction_loss(output.reconstruction, target_values, target_mask)
        if self.alignment_head is not None and text_embeds is not None:
            if self.alignment_head.objective != "statements":
                output.alignment_loss = self.alignment_head.loss(ecg, text, text_embeds)
            elif text_targets is not None:
                output.alignment_loss = self.alignment_head.statement_loss(ecg, text, text_targets, text_weights)
        if superclass_targets is not None and output.superclass_logits is not None:
            logits, targets = output.superclass_logits.float(), superclass_targets.float()
            output.superclass_loss = F.binary_cross_entropy_with_logits(logits, targets)
        if measurement_targets is not None and self.measurement_head is not None and output.measurements is not None:
            output.measurement_loss = self.measurement_head.loss(output.measurements, measurement_targets)
        output.loss = self._total(output)
        return output

    def _total(self, output: EcgDanPreTrainingOutput) -> Tensor | None:
        """The losses that were computed, weighted as the configuration says."""
        parts = ("reconstruction", "alignment", "superclass", "measurement")
        found: dict[str, Tensor | None] = {part: getattr(output, f"{part}_loss") for part in parts}
        terms = [getattr(self.config, f"{part}_weight") * loss for part, loss in found.items() if loss is not None]
        return sum(terms[1:], terms[0]) if terms else None

    def set_prompts(self, labels: Sequence[str], text_embeds: Tensor) -> None:
        """Caches the prompts of `labels`, so that the checkpoint compares them without a text model.

        Args:
            labels: names, in the order of `text_embeds`.
            text_embeds: (labels, text_embed_dim), or (labels, templates, text_embed_dim) for an ensemble of prompts.

        Raises:
            ValueError: no alignment head, or shapes that do not fit.
        """
        if self.alignment_head is None:
            raise ValueError("text_embeds: expected a model with an alignment head, this one has text_embed_dim=None")
        self.alignment_head.set_prompts(labels, text_embeds)


class EcgDanForSequenceClassification(EcgDanPreTrainedModel):
    """Encoder and classifier; multi-label unless `config.problem_type` says otherwise."""

    def __init__(self, config: EcgDanConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.ecgdan = EcgDanModel(config)
        self.classifier = EcgDanClassifier(config)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator, unused-ignore]
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
            input_values, lead_mask, output_attentions, output_hidden_states: as in [`EcgDanModel`].
            labels: (N, num_labels) of 0, 1, a probability (soft target) or NaN (unknown, ignored) for multi-label;
                (N,) class indices for `problem_type="single_label_classification"`.
            auxiliary_targets: (N, num_auxiliary_labels), as the multi-label ones; not named "labels", since `Trainer`
                takes each argument with "label" in its name for one without which there is no loss.
        """
        encoded = self.ecgdan(input_values, lead_mask, output_attentions, output_hidden_states)
        logits, auxiliary = self.classifier(encoded.pooler_output)
        loss = None
        if labels is not None:
            loss = self.classifier.loss(logits, labels, auxiliary, auxiliary_targets)
        return EcgDanClassifierOutput(loss=loss, logits=logits, auxiliary_logits=auxiliary, **encoded.for_head())


class EcgDanForSurvival(EcgDanPreTrainedModel, RiskPredictionMixin):
    """Encoder and a hazard for each risk; with the decoder too while `reconstruction_weight` is positive.

    The paper has one Cox head and the decoder. Competing causes (`config.cause_names`) have a hazard each, several
    endpoints (`config.endpoint_names`) a hazard and a follow-up each, and `config.hazard` may be discrete.
    """

    config: EcgDanSurvivalConfig
    config_class = EcgDanSurvivalConfig

    def __init__(self, config: EcgDanSurvivalConfig):
        super().__init__(config)
        self.ecgdan = EcgDanModel(config)
        self.decoder = self._build_decoder(config)
        self.risk_head = EcgDanRiskHead(config)
        covariates = len(config.covariate_names)
        self.covariate_head = EcgDanCovariateHead(covariates, config.num_risks, bias=False) if covariates else None
        self.baseline = EcgDanBaselineHazard(config.num_baseline_times, config.num_risks)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator, unused-ignore]
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
            input_values, lead_mask, output_attentions, output_hidden_states: as in [`EcgDanModel`].
            covariates: (N, len(covariate_names)), in their own units; NaN counts as the training mean.
            event: (N,), 1 = happened, 0 = censored; with `config.cause_names` the number of the cause; with
                `config.endpoint_names` (N, endpoints), NaN where the follow-up of an endpoint is not known.
            time: as `event`, years since the ECG, positive.
            target_values, target_mask: as in [`EcgDanForPreTraining`].
            return_loss: compute the losses (that of the follow-up needs `event` and `time`).
            weights: (N,), case weights of the loss of the follow-up.
            entry: (N,), years since the ECG at which a subject came under observation (left truncation).
            strata: (N,), group within which Cox's loss compares subjects.

        Raises:
            ValueError: covariates missing though the configuration names them, or of another width.
        """
        encoded = self.ecgdan(input_values, lead_mask, output_attentions, output_hidden_states)
        pooled, standardised = encoded.pooler_output, self._standardised(covariates, input_values.shape[0])
        log_hazard, logits = self._hazards(pooled, standardised)
        output = EcgDanSurvivalOutput(log_hazard=self._one_a_risk(log_hazard), **encoded.for_head())
        output.hazard_logits = logits
        if self.risk_head.has_posterior:
            error = self._slopes(pooled) * self.risk_head.standard_error(pooled, standardised)
            output.log_hazard_error = self._one_a_risk(error)
        if return_loss and event is not None and time is not None:
            if target_values is None:
                target_values, target_mask = input_values, lead_mask if target_mask is None else target_mask
            options = {"weights": weights, "entry": entry, "strata": strata}
            output.cox_loss = self.follow_up_loss(output, event, time, **options)
            output.loss = self.config.survival_weight * output.cox_loss
            if self.decoder is not None:
                found = output.reconstruction = self.decoder(encoded.pooler_output, encoded.readout_features)
                output.reconstruction_loss = self._reconstruction_loss(found, target_values, target_mask)
                output.loss = output.loss + self.config.reconstruction_weight * output.reconstruction_loss
        return output

    def _hazards(self, pooled: Tensor, standardised: Any) -> tuple[Tensor, Tensor | None]:
        """Log hazards (N, risks), and the logits (N, risks, intervals) of a discrete hazard."""
        scores = self.risk_head(pooled).unflatten(1, (self.config.num_risks, -1))
        if self.covariate_head is not None:
            scores = scores + self.covariate_head(standardised.to(self.dtype))[..., None]
        if self.config.hazard == "discrete":
            return log_cumulative_hazard(scores), scores
        return self._slopes(scores) * scores.squeeze(-1), None

    def _slopes(self, like: Tensor) -> Tensor | float:
        slope = self.config.calibration_slope
        return like.new_tensor(slope) if isinstance(slope, list) else slope

    def follow_up_loss(
        self, output: EcgDanSurvivalOutput, event: Tensor, time: Tensor, **options: Tensor | None
    ) -> Tensor:
        """Negative log likelihood of the follow-up: Cox's, cause-specific or discrete, as the configuration says.

        Args:
            output: of `forward`; its `log_hazard`, or its `hazard_logits`.
            event, time: (N,), as in `forward`; `options` are its `weights`, `entry` and `strata`.
        """
        log_hazard: Any = output.log_hazard
        if output.hazard_logits is not None:
            cuts = output.hazard_logits.new_tensor(self.config.hazard_cuts, dtype=torch.float32)
            options.pop("strata", None)  # it compares nobody
            return discrete_time_loss(output.hazard_logits, event, time, cuts, **options)
        if self.config.endpoint_names:
            return endpoint_loss(log_hazard, event, time, self.config.ties, **options)
        loss = cause_specific_loss if self.config.cause_names else cox_loss
        return loss(log_hazard, event, time, self.config.ties, **options)

    def _standardised(self, covariates: Tensor | None, records: int) -> Any:
        """(N, covariates), 0 where unknown; None for a model without any."""
        names = self.config.covariate_names
        if self.covariate_head is None:
            return None
        if covariates is None or tuple(covariates.shape) != (records, len(names)):
            found = None if covariates is None else tuple(covariates.shape)
            raise ValueError(f"covariates: expected {(records, len(names))} with {', '.join(names)}, got {found}")
        covariates = covariates.to(torch.promote_types(covariates.dtype, torch.float32))
        if not torch.compiler.is_compiling() and covariates.isinf().any():  # a look at the values breaks the graph
            odd = names[int(covariates.isinf().any(dim=0).nonzero()[0])]
            raise ValueError(f"covariates: expected finite numbers or NaN, got an infinite {odd}")
        mean, std = (covariates.new_tensor(x) for x in (self.config.covariate_means, self.config.covariate_stds))
        return ((covariates - mean) / std).nan_to_num(nan=0.0)

    @torch.no_grad()
    def store_linear(self, weights: Tensor, bias: Tensor, covariate_weights: Tensor, posterior: Tensor) -> None:
        """Keeps a linear risk head that was fitted elsewhere.

        With several risks each argument has a dimension of them in front.

        Args:
            weights: (hidden_size,), log hazard per unit of the embedding; `bias` () is added.
            covariate_weights: (len(covariate_names),), per standard deviation.
            posterior: (directions, hidden_size + covariates + 1), as in [`EcgDanRiskHead.standard_error`].

        Raises:
            ValueError: a model whose risk head has a hidden layer.
        """
        if not self.risk_head.is_linear:
            raise ValueError("survival_hidden_size: expected 0, a linear risk head, to store a linear model in")
        self.config.num_posterior_directions = self.risk_head.store(weights, bias, posterior)
        if self.covariate_head is not None:
            self.covariate_head.weight.copy_(covariate_weights.reshape(self.covariate_head.weight.shape))

    @torch.no_grad()
    def start_hazard(self, event: Tensor, time: Tensor, entry: Tensor | None = None) -> None:
        """Lets a discrete hazard start at that of the whole training cohort, by the biases of its head.

        Args:
            event, time, entry: (n,), of the training subjects, as in `forward`.
        """
        cuts = torch.tensor(self.config.hazard_cuts, dtype=torch.float64)
        entry = None if entry is None else entry.cpu()
        logits = marginal_logits(event.cpu(), time.cpu(), cuts, self.config.num_risks, entry)
        self.risk_head.output.bias.copy_(logits.reshape(-1))
