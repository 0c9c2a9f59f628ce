"""Pipelines that give labels of recordings: of a classifier, or of texts; and the registration of all pipelines.

    name_it = pipeline("zero-shot-ecg-classification", model="runs/pretrained")  # import ecgdan_hf before
    name_it({"signal": signal, "sampling_rate": 500, "unit": "mV", "lead_names": names}, top_k=5)
    pipeline("ecg-classification", model="runs/danet")("ecg.hea")  # [{"label": "APC", "score": 0.91, ...}]

Travels with the weights: imports only torch, transformers and its neighbours; the package reads files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

from .conditioning_ecgdan import fit_length
from .configuration_ecgdan import EcgDanConfig
from .contract_ecgdan import STANDARD_LEADS
from .covariates_ecgdan import Covariate
from .discrete_time_ecgdan import discrete_time_loss
from .filters_ecgdan import apply_filter
from .intervals_ecgdan import attended_intervals
from .leads_ecgdan import canonical_leads
from .pipeline_base_ecgdan import AUTO_CLASSES, CLASSIFICATION, ZERO_SHOT, EcgFeatureExtractionPipeline, EcgPipeline
from .pipeline_survival_ecgdan import EcgSurvivalPipeline
from .recording_ecgdan import Recording
from .risk_ecgdan import Baseline
from .survival_ecgdan import working_dtype

TRAVELS = (
    fit_length,
    apply_filter,
    STANDARD_LEADS,
    EcgDanConfig,
    canonical_leads,
    Covariate,
    Baseline,
    discrete_time_loss,
    working_dtype,
)
"""Not used here: a file that is loaded by name has to name every file it needs, also through a neighbour."""


class EcgClassificationPipeline(EcgPipeline):
    r"""Scores the labels of ECGs and, for a network with waveform attention (DANet), says where it looked.

    Takes a checkpoint of [`EcgDanForSequenceClassification`] or [`DanetForSequenceClassification`].

    Args of a call, besides those of [`EcgPipeline.__call__`]:
        top_k: how many labels to return; default all.
        thresholds: for some labels, by name, a threshold in place of the checkpoint's.

    Returns, for each recording: a list of dictionaries, highest score first. `label`; `score`, its probability under
    the network; `threshold` and `positive`, whether the score reaches it, both None where there is no threshold, and
    where fewer than half of the leads that it uses were recorded, as the checkpoint's thresholds do not hold then;
    `flags`, the recording's quality flags. With waveform attention each also has `intervals`, see
    [`attended_intervals`], in seconds from the beginning of the recording as it was given, or of a prepared row. Flags
    and intervals are the same for every label. Of a recording that is longer than the network's input only the middle
    was looked at.
    """

    serves = CLASSIFICATION

    def _sanitize_parameters(
        self, top_k: int | None = None, thresholds: Mapping[str, float] | None = None, **signal: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        first = self._signal_arguments(signal, "top_k, thresholds")
        self._check_top_k(top_k)
        if thresholds is not None:
            self._check_thresholds(thresholds)
        return first, {}, self._given_only({"top_k": top_k, "thresholds": thresholds})

    def _check_thresholds(self, thresholds: Any) -> None:
        labels = [str(label) for label in self.model.config.id2label.values()]
        if not isinstance(thresholds, Mapping):
            raise ValueError(f"thresholds: expected a mapping of labels, got {type(thresholds).__name__}")
        for label, threshold in thresholds.items():
            if label not in labels:
                raise ValueError(f"thresholds: expected labels among {', '.join(labels)}, got {label}")
            if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
                raise ValueError(f"thresholds: {label}: expected a probability from 0 to 1, got {threshold!r}")

    def preprocess(self, inputs: Any, **signal: Any) -> dict[str, Any]:  # type: ignore[override]
        """As every pipeline here; and `recorded` (1, 3), see [`EcgDanFeatureExtractor.recorded_samples`]."""
        recording, fe = Recording.read(inputs, signal), self.feature_extractor
        prepared, given = self._prepare(recording), recording.inputs
        if "signal" in given:
            place = fe.recorded_samples(given["signal"].shape[-1], given["sampling_rate"])
        else:
            place = (fe.pad_samples, fe.num_samples - fe.pad_samples, 0)
        return prepared | {"recorded": torch.tensor([place])}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        output = self.model(**self._network_inputs(model_inputs))
        found = {name: model_inputs[name] for name in ("recorded", "lead_mask", "flags")}
        found["logits"] = output.logits.float()
        attention = getattr(output, "waveform_attention", None)
        return found if attention is None else found | {"waveform_attention": attention.float()}

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Any], top_k: int | None = None, thresholds: Mapping[str, float] | None = None
    ) -> list[dict[str, Any]]:
        """Labels with scores, highest first."""
        config, logits = self.model.config, model_outputs["logits"][0]
        scores = config.label_probabilities(logits)
        chosen, flags = self._thresholds(model_outputs, thresholds or {})
        of_all = {"flags": flags} | self._intervals(model_outputs)
        entries = []
        for index in scores.argsort(descending=True, stable=True)[:top_k].tolist():
            label, score = config.id2label[index], float(scores[index])
            threshold = chosen.get(label)
            positive = None if threshold is None else score >= threshold
            entries.append({"label": label, "score": score, "threshold": threshold, "positive": positive} | of_all)
        return entries

    def _thresholds(
        self, model_outputs: dict[str, Any], given: Mapping[str, float]
    ) -> tuple[dict[str, float], list[str]]:
        """Thresholds by label, and the flags: one more where the checkpoint's own do not hold."""
        own, mask = dict(self.model.config.thresholds or {}), model_outputs["lead_mask"][0]
        flags = list(model_outputs["flags"])
        if not self.model.config.thresholds_hold(int(mask.sum())):
            own, flags = {}, [*flags, "thresholds_need_more_leads"]
        return own | dict(given), flags

    def _intervals(self, model_outputs: dict[str, Tensor]) -> dict[str, list[dict[str, float]]]:
        """`intervals`, if the network has waveform attention and its time is the recording's."""
        fe = self.feature_extractor
        if "waveform_attention" not in model_outputs or fe.input_kind != "rhythm":
            return {}
        first, end, start = model_outputs["recorded"][0].tolist()
        weights = model_outputs["waveform_attention"][0, first:end].cpu().numpy()
        return {"intervals": attended_intervals(weights, fe.sampling_rate, start / fe.sampling_rate)}


class ZeroShotEcgClassificationPipeline(EcgPipeline):
    r"""Compares ECGs with the texts of candidate labels (CLIP, Radford et al., 2021).

    Takes a checkpoint pretrained with texts: [`EcgDanForPreTraining`] or [`EcgTextModel`]. Labels whose prompts the
    checkpoint carries need no language model; any other text needs an [`EcgTextModel`] with its language model.

    Args of a call, besides those of [`EcgPipeline.__call__`]:
        candidate_labels: texts, as a list or separated by commas; default all prompts of the checkpoint.
        hypothesis_template: the sentence a label that is not among those prompts is put in.
        multi_label: score each label by itself.
        top_k: how many labels to return; default all.

    Returns, for each recording: a list of `{"label", "score", "flags"}`, highest score first; `flags` are the
    recording's quality flags, the same for every label. Scores are the softmax over the
    candidates of the scaled cosine similarity: they add up to 1 and depend on which candidates are given. With
    `multi_label` each is a sigmoid of its similarity (with the trained bias of the `siglip` objective): comparable
    between recordings for one label. Neither is the probability of a diagnosis.
    """

    serves = ZERO_SHOT

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._texts: dict[str, Tensor] = {}

    def _sanitize_parameters(
        self,
        candidate_labels: Sequence[str] | str | None = None,
        hypothesis_template: str | None = None,
        multi_label: bool | None = None,
        top_k: int | None = None,
        **signal: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        first = self._signal_arguments(signal, "candidate_labels, hypothesis_template, multi_label, top_k")
        self._check_top_k(top_k)
        if isinstance(candidate_labels, str):
            candidate_labels = [label.strip() for label in candidate_labels.split(",") if label.strip()]
        if candidate_labels is not None and not len(candidate_labels):
            raise ValueError("candidate_labels: expected at least one label, got none")
        forward = {"candidate_labels": candidate_labels, "hypothesis_template": hypothesis_template}
        last = {"candidate_labels": candidate_labels, "multi_label": multi_label, "top_k": top_k}
        return first, self._given_only(forward), self._given_only(last)

    def _forward(  # type: ignore[override]
        self,
        model_inputs: dict[str, Any],
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str = "{}",
    ) -> dict[str, Any]:
        inputs, head = self._network_inputs(model_inputs), self.model.alignment_head
        prompts = self._prompts(candidate_labels, hypothesis_template)
        ecg = head.project_ecg(self.model.ecgdan(inputs["input_values"], inputs["lead_mask"]).pooler_output).float()
        logits = head.logit_scale() * ecg @ prompts.to(ecg).T
        bias = head.logit_bias.detach() if head.has_bias else torch.zeros(())
        bias = bias.float().expand(len(logits))
        return {"logits": logits.float(), "bias": bias, "flags": model_inputs["flags"]}

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: dict[str, Any],
        candidate_labels: Sequence[str] | None = None,
        multi_label: bool = False,
        top_k: int | None = None,
    ) -> list[dict[str, Any]]:
        """Labels with scores, highest first."""
        logits, labels = model_outputs["logits"][0], self._labels(candidate_labels)
        scores = torch.sigmoid(logits + model_outputs["bias"][0]) if multi_label else logits.softmax(-1)
        order = scores.argsort(descending=True, stable=True)[:top_k].tolist()
        flags = model_outputs["flags"]
        return [{"label": labels[index], "score": float(scores[index]), "flags": flags} for index in order]

    def _labels(self, candidates: Sequence[str] | None) -> list[str]:
        return list(self.model.ecgdan.config.prompt_labels if candidates is None else candidates)

    def _prompts(self, candidates: Sequence[str] | None, template: str) -> Tensor:
        """(labels, projection_size), of unit length."""
        cached, labels = self._labels(None), self._labels(candidates)
        if not labels:
            raise ValueError("candidate_labels: expected labels, got none, and the checkpoint carries no prompts")
        embeds: Any = self.model.alignment_head.prompt_embeds if cached else ()
        known = dict(zip(cached, embeds, strict=True))
        missing = [label for label in labels if label not in known]
        given = {label: self._text(template, label, missing, cached) for label in missing}
        return torch.stack([(known | given)[label] for label in labels])

    def _text(self, template: str, label: str, missing: list[str], cached: list[str]) -> Tensor:
        """(projection_size,), of a text the checkpoint does not carry."""
        text = template.format(label)
        if text in self._texts:
            return self._texts[text]
        if not hasattr(self.model, "get_text_features"):
            some = ", ".join(cached[:5]) + (", ..." if len(cached) > 5 else "")
            raise ValueError(
                f"candidate_labels: {', '.join(missing)}: expected labels the checkpoint carries ({some}); other "
                "texts need an EcgTextModel"
            )
        tokens = self._text_tokenizer()(text, return_tensors="pt", truncation=True, max_length=512).to(self.device)
        self._texts[text] = F.normalize(self.model.get_text_features(**tokens).pooler_output[0].float(), dim=-1)
        return self._texts[text]

    def _text_tokenizer(self) -> Any:
        """Returns the language model's tokenizer, from the checkpoint if it stores the model, else from its source."""
        config = self.model.config
        if self.tokenizer is None and config.store_text_model and config.name_or_path:
            self.tokenizer = AutoTokenizer.from_pretrained(config.name_or_path)
        elif self.tokenizer is None:
            if not config.text_model_name:
                raise ValueError("tokenizer: expected that of the language model, the checkpoint names none; give it")
            self.tokenizer = AutoTokenizer.from_pretrained(config.text_model_name, revision=config.text_model_revision)
        return self.tokenizer


PIPELINES: tuple[type[EcgPipeline], ...] = (
    EcgClassificationPipeline,
    EcgSurvivalPipeline,
    ZeroShotEcgClassificationPipeline,
    EcgFeatureExtractionPipeline,
)


def register_pipelines() -> None:
    """Makes the pipelines known to `transformers.pipeline` by their task."""
    for pipeline_class in PIPELINES:
        PIPELINE_REGISTRY.register_pipeline(
            pipeline_class.serves,
            pipeline_class=pipeline_class,
            pt_model=tuple(AUTO_CLASSES[name] for name in pipeline_class.auto_classes()),
            type="multimodal",
        )
