"""Pipelines of transformers for ECGs: from recordings, or files of them, to answers.

    from transformers import pipeline
    import ecgdan_hf  # registers the pipelines
    name_it = pipeline("zero-shot-ecg-classification", model="runs/pretrained")
    name_it({"signal": signal, "sampling_rate": 500, "unit": "mV", "lead_names": names}, top_k=5)

Travels with the weights: imports only torch, numpy and transformers; files are read with the package, where it is
installed.
"""

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoModelForPreTraining, AutoTokenizer, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

SIGNAL_ARGUMENTS = ("sampling_rate", "unit", "lead_names")


class ZeroShotEcgClassificationPipeline(Pipeline):
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

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

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
        unknown = [name for name in signal if name not in SIGNAL_ARGUMENTS]
        if unknown:
            raise ValueError(f"{unknown[0]}: nothing reads it; expected {', '.join(SIGNAL_ARGUMENTS)} and labels")
        if isinstance(candidate_labels, str):
            candidate_labels = [label.strip() for label in candidate_labels.split(",") if label.strip()]
        if candidate_labels is not None and not len(candidate_labels):
            raise ValueError("candidate_labels: expected at least one label, got none")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k: expected one or more, got {top_k}")
        forward = {"candidate_labels": candidate_labels, "hypothesis_template": hypothesis_template}
        last = {"candidate_labels": candidate_labels, "multi_label": multi_label, "top_k": top_k}
        return signal, _given(forward), _given(last)

    def preprocess(self, inputs: Any, **signal: Any) -> dict[str, Tensor]:
        """A recording -> the network's input; (1, leads x samples), because batches are joined along one axis."""
        recording = as_recording(inputs, signal)
        features = self.feature_extractor(**recording, return_tensors="pt")
        return {"input_values": features["input_values"].flatten(1), "lead_mask": features["lead_mask"]}

    def _forward(
        self,
        model_inputs: dict[str, Tensor],
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str = "{}",
    ) -> dict[str, Any]:
        mask, head = model_inputs["lead_mask"], self.model.alignment_head
        values = model_inputs["input_values"].unflatten(1, (mask.shape[1], -1)).to(self.model.dtype)
        prompts = self._prompts(candidate_labels, hypothesis_template)
        ecg = head.project_ecg(self.model.ecgdan(values, mask).pooler_output).float()
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


def register_pipelines() -> None:
    """Makes the pipelines known to `transformers.pipeline` by their task."""
    PIPELINE_REGISTRY.register_pipeline(
        "zero-shot-ecg-classification",
        pipeline_class=ZeroShotEcgClassificationPipeline,
        pt_model=(AutoModelForPreTraining, AutoModel),
        type="multimodal",
    )
