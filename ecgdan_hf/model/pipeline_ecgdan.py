"""Pipelines of transformers for ECGs: from recordings, or files of them, to answers.

    from transformers import pipeline
    import ecgdan_hf  # registers the pipelines
    name_it = pipeline("zero-shot-ecg-classification", model="runs/pretrained")
    name_it({"signal": signal, "sampling_rate": 500, "unit": "mV", "lead_names": names}, top_k=5)
    judge = pipeline("ecg-classification", model="runs/danet")
    judge("ecg.hea")  # [{"label": "APC", "score": 0.91, ..., "intervals": [{"start": 4.1, "end": 4.4, ...}]}]

Travels with the weights: imports only torch, numpy, transformers and its neighbours; files are read with the package,
where it is installed.
"""

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Pipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import logging

from .conditioning_ecgdan import fit_length, resample

logger = logging.get_logger(__name__)

SIGNAL_ARGUMENTS = ("sampling_rate", "unit", "lead_names")
FLAT_ATTENTION = 0.05  # a(t) whose maximum is not this far above its median attends to nothing in particular
# With a smaller share of its leads, a network's thresholds do not hold: with lead I alone the released classifier says
# "MI" of 95 % of those who have none (docs/data.md). Its order of records still does.
MIN_LEAD_SHARE_FOR_THRESHOLDS = 0.5


class EcgPipeline(Pipeline):
    """What the pipelines share: a feature extractor in front, and recordings in any of their forms."""

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    def preprocess(self, inputs: Any, **signal: Any) -> dict[str, Tensor]:
        """A recording -> the network's input; (1, leads x samples), because batches are joined along one axis."""
        return self._prepare(as_recording(inputs, signal))

    def _prepare(self, recording: dict[str, Any]) -> dict[str, Tensor]:
        features = self.feature_extractor(**recording, return_tensors="pt")
        return {name: features[name].flatten(1) for name in self.feature_extractor.model_input_names}

    def _network_inputs(self, model_inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """With `input_values` (batch, leads, samples) again, in the network's precision."""
        leads = model_inputs["lead_mask"].shape[1]
        values = model_inputs["input_values"].unflatten(1, (leads, -1)).to(self.model.dtype)
        return {**model_inputs, "input_values": values}


class EcgClassificationPipeline(EcgPipeline):
    r"""Scores the labels of ECGs and, for a network with waveform attention (DANet), says where it looked.

    Takes a checkpoint of [`EcgDanForSequenceClassification`] or [`DanetForSequenceClassification`].

    A call takes a recording or a list of them. A recording is a mapping with `signal` (leads, samples),
    `sampling_rate` (Hz), `unit` and `lead_names`; or an array, or a path to an ECG file, with the rest as arguments.

    Args of a call:
        top_k: how many labels to return; default all.
        sampling_rate, unit, lead_names: of arrays, and of files that do not say them.

    Returns, for each recording: a list of dictionaries, highest score first. `label`; `score`, its probability under
    the network; `threshold` of the checkpoint and `positive`, whether the score reaches it, both None where the
    checkpoint has no threshold, and where fewer than half of the network's leads were recorded, as thresholds do not
    hold then. With waveform attention each also has `intervals`, see [`attended_intervals`], in seconds from the
    beginning of the recording as it was given. They are the same for every label. Of a recording that is longer than
    the network's input only the middle was looked at.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if getattr(self.model, "classifier", None) is None:
            raise ValueError(f"model: expected one for classification, got {type(self.model).__name__}")

    def _sanitize_parameters(
        self, top_k: int | None = None, **signal: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        _check_arguments(top_k, signal, "top_k")
        return signal, {}, _given({"top_k": top_k})

    def preprocess(self, inputs: Any, **signal: Any) -> dict[str, Tensor]:
        """As every pipeline here; and `recorded` (1, 3), see [`recorded_samples`]."""
        recording = as_recording(inputs, signal)
        prepared = self._prepare(recording)
        samples = np.shape(recording["signal"])[-1]
        place = recorded_samples(self.feature_extractor, samples, recording["sampling_rate"])
        return prepared | {"recorded": torch.tensor([place])}

    def _forward(self, model_inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs = self._network_inputs(model_inputs)
        found = {"recorded": inputs.pop("recorded"), "lead_mask": inputs["lead_mask"]}
        output = self.model(**inputs)
        found["logits"] = output.logits.float()
        attention = getattr(output, "waveform_attention", None)
        return found if attention is None else found | {"waveform_attention": attention.float()}

    def postprocess(self, model_outputs: dict[str, Tensor], top_k: int | None = None) -> list[dict[str, Any]]:
        """Labels with scores, highest first."""
        config, logits = self.model.config, model_outputs["logits"][0]
        scores = logits.softmax(-1) if config.problem_type == "single_label_classification" else logits.sigmoid()
        thresholds = self._thresholds(model_outputs["lead_mask"][0])
        looked_at = self._intervals(model_outputs)
        entries = []
        for index in scores.argsort(descending=True, stable=True)[:top_k].tolist():
            label, score = config.id2label[index], float(scores[index])
            threshold = thresholds.get(label)
            positive = None if threshold is None else score >= threshold
            entries.append({"label": label, "score": score, "threshold": threshold, "positive": positive} | looked_at)
        return entries

    def _thresholds(self, lead_mask: Tensor) -> dict[str, float]:
        thresholds = dict(self.model.config.thresholds or {})
        if thresholds and int(lead_mask.sum()) < MIN_LEAD_SHARE_FOR_THRESHOLDS * len(lead_mask):
            logger.warning_once("Thresholds are left out where fewer than half of the model's leads were recorded.")
            return {}
        return thresholds

    def _intervals(self, model_outputs: dict[str, Tensor]) -> dict[str, list[dict[str, float]]]:
        """`intervals`, if the network has waveform attention and its time is the recording's."""
        fe = self.feature_extractor
        if "waveform_attention" not in model_outputs or fe.input_kind != "rhythm":
            return {}
        first, end, start = model_outputs["recorded"][0].tolist()
        weights = model_outputs["waveform_attention"][0, first:end].cpu().numpy()
        return {"intervals": attended_intervals(weights, fe.sampling_rate, start / fe.sampling_rate)}


def recorded_samples(feature_extractor: Any, num_samples: int, sampling_rate: float) -> tuple[int, int, int]:
    """Where a recording lies in the rhythm input that was made of it, by the feature extractor's own rules.

    Args:
        feature_extractor: an [`EcgDanFeatureExtractor`] with `input_kind="rhythm"`.
        num_samples: of the recording.
        sampling_rate: of the recording, Hz.

    Returns:
        First and one past the last sample of `input_values` that were recorded, and the number of samples, at the
        rate of the input, by which the first of them comes after the beginning of the recording.
    """
    length = resample(np.zeros((1, num_samples)), sampling_rate, feature_extractor.sampling_rate).shape[1]
    placed = fit_length(np.arange(length, dtype=float)[None], feature_extractor.signal_samples)[0]
    known = np.flatnonzero(np.isfinite(placed))
    pad = feature_extractor.pad_samples
    return int(known[0]) + pad, int(known[-1]) + 1 + pad, int(placed[known[0]])


def attended_intervals(
    weights: np.ndarray,
    sampling_rate: float,
    offset_seconds: float = 0.0,
    share: float = 0.5,
    min_seconds: float = 0.04,
    merge_seconds: float = 0.1,
) -> list[dict[str, float]]:
    """The stretches of a recording that stand out in waveform attention.

    Those above `share` of the way from the median of a(t) to its maximum; two that are no more than `merge_seconds`
    apart are one, and one shorter than `min_seconds` is none.

    Args:
        weights: (samples,), a(t), recorded samples only.
        sampling_rate: Hz, of a(t).
        offset_seconds: time of the first sample in the recording.
        share: from 0 to below 1.
        min_seconds, merge_seconds: see above.

    Returns:
        For each its `start`, `end` and `peak`, seconds, and `weight`, a(t) at the peak; highest weight first. None
        where a(t) is flat: its maximum less than 0.05 above its median.

    Raises:
        ValueError: weights of another shape, or a share out of range.

    >>> attended_intervals([0, 0, 0, 0, 1, 0.8, 0, 0, 0, 0], sampling_rate=10, offset_seconds=2.0)
    [{'start': 2.4, 'end': 2.6, 'peak': 2.4, 'weight': 1.0}]
    """
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 1:
        raise ValueError(f"weights: expected (samples,), got shape {weights.shape}")
    if not 0 <= share < 1:
        raise ValueError(f"share: expected a number from 0 to below 1, got {share}")
    if not len(weights) or weights.max() - np.median(weights) < FLAT_ATTENTION:
        return []
    level = np.median(weights) + share * (weights.max() - np.median(weights))
    edges = np.diff((weights > level).astype(int), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)  # one past the last
    apart = starts[1:] - ends[:-1] > merge_seconds * sampling_rate
    starts, ends = starts[np.r_[True, apart]], ends[np.r_[apart, True]]
    stretches = [(a, b) for a, b in zip(starts, ends, strict=True) if b - a >= min_seconds * sampling_rate]
    peaks = [a + _middle_of_top(weights[a:b]) for a, b in stretches]
    found = [
        {
            "start": round(offset_seconds + float(a) / sampling_rate, 4),
            "end": round(offset_seconds + float(b) / sampling_rate, 4),
            "peak": round(offset_seconds + float(peak) / sampling_rate, 4),
            "weight": float(weights[peak]),
        }
        for (a, b), peak in zip(stretches, peaks, strict=True)
    ]
    return sorted(found, key=lambda interval: -interval["weight"])


def _middle_of_top(weights: np.ndarray) -> int:
    """Index of the maximum; of the middle one where a rule gives a whole wave the same weight."""
    top = np.flatnonzero(weights > weights.max() - 1e-4)
    return int(top[len(top) // 2])


class ZeroShotEcgClassificationPipeline(EcgPipeline):
    r"""Compares ECGs with the texts of candidate labels (CLIP, Radford et al., 2021).

    Takes a checkpoint pretrained with texts: [`EcgDanForPreTraining`] or [`EcgTextModel`]. Labels whose prompts the
    checkpoint carries need no language model; any other text needs an [`EcgTextModel`] with its language model.

    A call takes a recording or a list of them. A recording is a mapping with `signal` (leads, samples),
    `sampling_rate` (Hz), `unit` and `lead_names`; or an array, or a path to an ECG file, with the rest as arguments.

    Args of a call:
        candidate_labels: texts, as a list or separated by commas; default all prompts of the checkpoint.
        hypothesis_template: the sentence a label that is not among those prompts is put in.
        multi_label: score each label by itself.
        top_k: how many labels to return; default all.
        sampling_rate, unit, lead_names: of arrays, and of files that do not say them.

    Returns, for each recording: a list of `{"label", "score"}`, highest first. Scores are the softmax over the
    candidates of the scaled cosine similarity: they add up to 1 and depend on which candidates are given. With
    `multi_label` each is a sigmoid of its similarity (with the trained bias of the `siglip` objective): comparable
    between recordings for one label. Neither is the probability of a diagnosis.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if getattr(self.model, "alignment_head", None) is None:
            kind = type(self.model).__name__
            raise ValueError(f"model: expected one pretrained with texts, this {kind} has no alignment head")
        self._texts: dict[str, Tensor] = {}

    def _sanitize_parameters(
        self,
        candidate_labels: Sequence[str] | str | None = None,
        hypothesis_template: str | None = None,
        multi_label: bool | None = None,
        top_k: int | None = None,
        **signal: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        _check_arguments(top_k, signal, "labels")
        if isinstance(candidate_labels, str):
            candidate_labels = [label.strip() for label in candidate_labels.split(",") if label.strip()]
        if candidate_labels is not None and not len(candidate_labels):
            raise ValueError("candidate_labels: expected at least one label, got none")
        forward = {"candidate_labels": candidate_labels, "hypothesis_template": hypothesis_template}
        last = {"candidate_labels": candidate_labels, "multi_label": multi_label, "top_k": top_k}
        return signal, _given(forward), _given(last)

    def _forward(
        self,
        model_inputs: dict[str, Tensor],
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str = "{}",
    ) -> dict[str, Any]:
        inputs, head = self._network_inputs(model_inputs), self.model.alignment_head
        prompts = self._prompts(candidate_labels, hypothesis_template)
        ecg = head.project_ecg(self.model.ecgdan(inputs["input_values"], inputs["lead_mask"]).pooler_output).float()
        logits = head.logit_scale() * ecg @ prompts.to(ecg).T
        bias = head.logit_bias if head.objective == "siglip" else torch.zeros(())
        return {"logits": logits.float(), "bias": bias.float().expand(len(logits))}

    def postprocess(
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
        return [{"label": labels[index], "score": float(scores[index])} for index in order]

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
        if self.tokenizer is None:
            config = self.model.config
            if not config.text_model_name:
                raise ValueError("tokenizer: expected that of the language model, the checkpoint names none; give it")
            self.tokenizer = AutoTokenizer.from_pretrained(config.text_model_name, revision=config.text_model_revision)
        return self.tokenizer


def as_recording(inputs: Any, signal: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the feature extractor.

    Args:
        inputs: a mapping with `signal`, an array (leads, samples), or a path.
        signal: what is known besides.

    Raises:
        ValueError: a path without the package that reads files, or anything else.
    """
    if isinstance(inputs, Mapping):
        if "signal" not in inputs:
            raise ValueError(f"inputs: expected a mapping with signal, got {', '.join(map(str, inputs)) or 'nothing'}")
        return {**signal, **{name: inputs[name] for name in ("signal", *SIGNAL_ARGUMENTS) if name in inputs}}
    if isinstance(inputs, (str, os.PathLike)):
        return _read_file(inputs, signal)
    if isinstance(inputs, (np.ndarray, Tensor)) and inputs.ndim == 2:
        return {"signal": np.asarray(inputs), **signal}
    raise ValueError(
        f"inputs: expected a mapping with signal, an array (leads, samples) or a path, got {type(inputs).__name__}; "
        "give several recordings as a list"
    )


def _read_file(path: str | os.PathLike, signal: Mapping[str, Any]) -> dict[str, Any]:
    try:
        # by name: this file travels to the Hub, where the package may not be there
        formats = importlib.import_module("ecgdan_hf.data.formats")
    except ImportError as error:
        raise ValueError(f"{path}: reading files needs the package ecgdan-hf; install it, or give a signal") from error
    return formats.read(path, **signal).as_inputs()


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _check_arguments(top_k: int | None, signal: Mapping[str, Any], others: str) -> None:
    unknown = [name for name in signal if name not in SIGNAL_ARGUMENTS]
    if unknown:
        raise ValueError(f"{unknown[0]}: nothing reads it; expected {', '.join(SIGNAL_ARGUMENTS)} and {others}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: expected one or more, got {top_k}")


def register_pipelines() -> None:
    """Makes the pipelines known to `transformers.pipeline` by their task."""
    PIPELINE_REGISTRY.register_pipeline(
        "ecg-classification",
        pipeline_class=EcgClassificationPipeline,
        pt_model=(AutoModelForSequenceClassification,),
        type="multimodal",
    )
    PIPELINE_REGISTRY.register_pipeline(
        "zero-shot-ecg-classification",
        pipeline_class=ZeroShotEcgClassificationPipeline,
        pt_model=(AutoModelForPreTraining, AutoModel),
        type="multimodal",
    )
