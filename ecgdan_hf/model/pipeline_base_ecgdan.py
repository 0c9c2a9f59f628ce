"""The base of the ECG pipelines, and the pipeline that turns recordings into embeddings.

    embed = pipeline("ecg-feature-extraction", model="model_cards/ecg-dan-rhythm")  # import ecgdan_hf before
    vectors = embed(["one.hea", "two.xml"], batch_size=8, return_tensors=True)  # of (256,) each

Travels with the weights: imports only torch, numpy, transformers and its neighbours.
"""

import re
from collections.abc import Iterator, Mapping
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, Pipeline

from .recording_ecgdan import PREPARED, SIGNAL_ARGUMENTS, Recording

CLASSIFICATION, SURVIVAL = "ecg-classification", "ecg-survival"
ZERO_SHOT, FEATURES = "zero-shot-ecg-classification", "ecg-feature-extraction"

TASKS_OF_SAVED: dict[str, tuple[str, ...]] = {
    "EcgDanModel": (FEATURES,),
    "EcgDanForPreTraining": (ZERO_SHOT, FEATURES),
    "EcgDanForSequenceClassification": (CLASSIFICATION, FEATURES),
    "EcgDanForSurvival": (SURVIVAL, FEATURES),
    "EcgTextModel": (ZERO_SHOT, FEATURES),
    "DanetForPreTraining": (),
    "DanetForSequenceClassification": (CLASSIFICATION, FEATURES),
}
"""Tasks that the weights of a checkpoint serve, by the class that saved it."""

AUTO_CLASSES: dict[str, Any] = {
    "AutoModel": AutoModel,
    "AutoModelForSequenceClassification": AutoModelForSequenceClassification,
    "AutoModelForPreTraining": AutoModelForPreTraining,
}

_POOLINGS = ("pooler", "mean", "none")
_OF_PIPELINE = ("local_files_only",)  # `transformers.pipeline` hands it on


def _saved_tasks(model: Any) -> list[str]:
    """Pipelines that the checkpoint serves which a model was loaded from; of a new model, those of its class."""
    saved, config = _saved_by(model), model.config
    tasks = TASKS_OF_SAVED.get(saved, (CLASSIFICATION, SURVIVAL, ZERO_SHOT, FEATURES))
    has_texts = saved == "EcgTextModel" or bool(getattr(config, "prompt_labels", ()))
    return [task for task in tasks if task != ZERO_SHOT or has_texts]


def _saved_by(model: Any) -> str:
    """Name of the class that saved the checkpoint."""
    return str((model.config.architectures or [type(model).__name__])[0])


class _Rows(torch.utils.data.Dataset[Any]):
    """A dataset of `datasets`, whose rows are recordings, as the dataset of torch that pipelines expect."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Any:
        return self.dataset[row]


def _as_batch(inputs: Any) -> Any:
    """Several recordings in a form that `transformers.Pipeline` iterates over; one recording as it is."""
    if hasattr(inputs, "column_names"):  # of `datasets`, which may not be installed
        return _Rows(inputs) if hasattr(inputs, "__len__") else (row for row in inputs)
    if isinstance(inputs, tuple):
        return list(inputs)
    if isinstance(inputs, Iterator) and not isinstance(inputs, GeneratorType) and not hasattr(inputs, "read"):
        return (each for each in inputs)
    return inputs


class EcgPipeline(Pipeline):
    """A feature extractor in front, recordings in any of their forms, and their quality flags behind."""

    _load_processor = _load_image_processor = _load_video_processor = _load_tokenizer = False  # type: ignore[assignment]
    _load_feature_extractor = True  # type: ignore[assignment]

    model: Any
    feature_extractor: Any
    tokenizer: Any

    serves: str
    """The task this pipeline is registered for."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.serves in self.fitting_tasks(self.model):
            return
        names = dict.fromkeys([type(self.model).__name__, _saved_by(self.model)])
        instead = " and ".join(_saved_tasks(self.model)) or "none"
        raise ValueError(
            f"model: expected a checkpoint for {self.serves}, got {', saved as '.join(names)}; it fits {instead}"
        )

    @staticmethod
    def fitting_tasks(model: Any) -> list[str]:
        """Pipelines that a model can serve with weights that were trained.

        An Auto class gives a checkpoint of another head a new, random one of its own without an error: hence what
        `config.architectures` says counts beside the class, unless labels have names, which only training gives them.
        """
        built = {
            CLASSIFICATION: getattr(model, "classifier", None) is not None,
            SURVIVAL: getattr(model, "risk_head", None) is not None,
            ZERO_SHOT: getattr(model, "alignment_head", None) is not None,
            FEATURES: any(hasattr(model, name) for name in ("ecgdan", "resnet", "stem")),
        }
        trained = {SURVIVAL, *_saved_tasks(model)}  # the configuration of a survival checkpoint has no other head
        if any(not re.fullmatch(r"LABEL_\d+", str(label)) for label in (model.config.id2label or {}).values()):
            trained |= {CLASSIFICATION, FEATURES}
        return [task for task, true in built.items() if true and task in trained]

    @classmethod
    def auto_classes(cls) -> list[str]:
        """Names of the Auto classes to load a checkpoint with, tried in this order.

        All of them for every pipeline: a checkpoint of another head is then loaded, and refused in a line that says
        what it fits.
        """
        first = {CLASSIFICATION: "AutoModelForSequenceClassification", ZERO_SHOT: "AutoModelForPreTraining"}
        return list(dict.fromkeys([first.get(cls.serves, "AutoModel"), *AUTO_CLASSES]))

    @staticmethod
    def _given_only(arguments: dict[str, Any]) -> dict[str, Any]:
        """Drops arguments that were left out, so that each default is written once, where it is used."""
        return {name: value for name, value in arguments.items() if value is not None}

    @staticmethod
    def _check_top_k(top_k: int | None) -> None:
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k: expected one or more, got {top_k}")

    def _signal_arguments(self, signal: Mapping[str, Any], others: str) -> dict[str, Any]:
        """Returns the arguments that describe the signal; refuses arguments that this pipeline does not have."""
        unknown = [name for name in signal if name not in (*SIGNAL_ARGUMENTS, *_OF_PIPELINE)]
        if unknown:
            raise ValueError(f"{unknown[0]}: unknown argument; expected {', '.join(SIGNAL_ARGUMENTS)}, {others}")
        return self._given_only({name: value for name, value in signal.items() if name in SIGNAL_ARGUMENTS})

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Answers for one recording, or a list or iterator of answers for several, in order.

        Args:
            inputs: one recording: a path to an ECG file, its bytes, or a file opened for reading them (all three
                with the package `ecgdan-hf` installed, which reads them); an array or tensor (leads, samples); a
                mapping with `signal`, `path` or `bytes`, and `sampling_rate`, `unit`, `lead_names`; a row of a
                dataset of this package; an `EcgRecord`. Or several: a list; or a generator, a `datasets.Dataset` or a
                `KeyDataset`, for which an iterator comes back.
            args, kwargs: `batch_size`, `num_workers`, the arguments of the pipeline, and `sampling_rate`, `unit` and
                `lead_names` of arrays and of files that do not say them.

        Raises:
            FileNotFoundError: no such file.
            ValueError: an argument or a recording that cannot be used; one line that names it.
        """
        inputs = _as_batch(inputs)
        return [] if isinstance(inputs, list) and not inputs else super().__call__(inputs, *args, **kwargs)  # type: ignore[no-untyped-call]

    def preprocess(self, inputs: Any, **signal: Any) -> dict[str, Any]:  # type: ignore[override]
        """A recording -> the network's input; (1, leads x samples), because batches are joined along one axis."""
        return self._prepare(Recording.read(inputs, signal))

    def _prepare(self, recording: Recording) -> dict[str, Any]:
        """The network's input, and `flags`: of the source and of the feature extractor."""
        if "input_values" in recording.inputs:
            features = self._prepared(recording.inputs)
        else:
            features = self.feature_extractor(**recording.inputs, return_tensors="pt", return_flags=True)
        prepared = {name: features[name].flatten(1) for name in self.feature_extractor.model_input_names}
        return prepared | {"flags": list(dict.fromkeys([*recording.flags, *features["flags"][0]]))}

    def _prepared(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row that went through the feature extractor before, as it gave it."""
        fe = self.feature_extractor
        leads, samples = len(fe.lead_names), fe.num_samples
        shapes = dict(zip(PREPARED, ((leads, samples), (leads,), (samples,)), strict=True))
        for name in fe.model_input_names:
            found = tuple(np.shape(row[name])) if name in row else None
            if found != shapes[name]:
                raise ValueError(f"inputs: {name}: expected a prepared row of shape {shapes[name]}, got {found}")
        kinds = {"lead_mask": torch.bool}
        given = {name: torch.as_tensor(np.asarray(row[name]))[None] for name in fe.model_input_names}
        return {name: value.to(kinds.get(name, torch.float32)) for name, value in given.items()} | {"flags": [[]]}

    def _network_inputs(self, model_inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """With `input_values` (batch, leads, samples) again, in the network's precision."""
        given = {name: model_inputs[name] for name in self.feature_extractor.model_input_names}
        leads = given["lead_mask"].shape[1]
        return given | {"input_values": given["input_values"].unflatten(1, (leads, -1)).to(self.model.dtype)}


class EcgFeatureExtractionPipeline(EcgPipeline):
    r"""Vectors of ECGs, for models of one's own, by any checkpoint with an encoder, whatever its head.

    Args of a call, besides those of [`EcgPipeline.__call__`]:
        pooling: "pooler", the encoder's `pooler_output` (hidden_size,); "mean", the mean of the tokens of the leads
            that were recorded (channels,); "none", all tokens (leads, tokens, channels).
        return_tensors: tensors instead of nested lists.
        return_flags: for each recording a dictionary of `features` and `flags` instead of the features alone.

    Returns, for each recording: the features, float32, without unit.
    """

    serves = FEATURES

    def _sanitize_parameters(
        self,
        pooling: str | None = None,
        return_tensors: bool | None = None,
        return_flags: bool | None = None,
        **signal: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        signal = self._signal_arguments(signal, "pooling, return_tensors, return_flags")
        if pooling is not None and pooling not in _POOLINGS:
            raise ValueError(f"pooling: expected one of {', '.join(_POOLINGS)}, got {pooling!r}")
        if pooling not in (None, "pooler") and not hasattr(self.model, "ecgdan") and not hasattr(self.model, "stem"):
            raise ValueError(f"pooling: expected 'pooler', as a residual network has no tokens, got {pooling!r}")
        last = {"return_tensors": return_tensors, "return_flags": return_flags}
        return signal, self._given_only({"pooling": pooling}), self._given_only(last)

    def _forward(self, model_inputs: dict[str, Any], pooling: str = "pooler") -> dict[str, Any]:  # type: ignore[override]
        inputs = self._network_inputs(model_inputs)
        # a waveform module amends the signal before the encoder; every other head only comes after it
        whole = hasattr(self.model, "waveform_module")
        encoder = self.model if whole else getattr(self.model, "ecgdan", self.model)
        output = encoder(**inputs, output_hidden_states=pooling != "pooler")
        features = output.pooler_output if pooling == "pooler" else output.hidden_states[-1]
        if pooling == "mean":
            features = self._mean(features, inputs["lead_mask"])
        return {"features": features.float(), "flags": model_inputs["flags"]}

    def _mean(self, tokens: Tensor, lead_mask: Tensor) -> Tensor:
        """(N, leads, tokens, channels) -> (N, channels), over leads that were recorded."""
        config = getattr(self.model.config, "ecg_config", self.model.config)
        if config.lead_layout == "reference":  # its rows are no physical leads
            lead_mask = torch.ones_like(lead_mask)
        weights = lead_mask.to(tokens.dtype)
        return (tokens.mean(2) * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Any], return_tensors: bool = False, return_flags: bool = False
    ) -> Any:
        """The features, with the flags where they are asked for."""
        features = model_outputs["features"][0]
        features = features if return_tensors else features.tolist()
        return {"features": features, "flags": model_outputs["flags"]} if return_flags else features
