"""The one list of model classes: what each predicts, how rows are scored with it, and how a card names it.

Code that treats survival models and classifiers differently asks [`head_of`] and reads a field; it does not test the
class of the model. To add a head: its class in `model/`, a line in `registration.MODELS`, one in `HEADS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor
from transformers import PreTrainedConfig

from ecgdan_hf.inference.prediction_rows import (
    RISK_YEARS,
    Columns,
    FloatArray,
    label_columns,
    risk_column_names,
    risk_columns,
)
from ecgdan_hf.model.configuration_ecg_text import EcgTextConfig
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.modeling_danet import DanetForPreTraining, DanetForSequenceClassification
from ecgdan_hf.model.modeling_ecg_text import EcgTextModel
from ecgdan_hf.model.modeling_ecgdan import (
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanModel,
    EcgDanPreTrainedModel,
)
from ecgdan_hf.registration import MODELS

Config = EcgDanConfig | EcgTextConfig
Task = Literal["embedding", "pretraining", "classification", "survival", "text", "waveform"]


@dataclass(frozen=True)
class Head:
    """One model class of the package.

    Attributes:
        model_class: the class.
        task: what it was trained for. "waveform" is DANet's waveform module alone, which predicts nothing of an ECG.
        scores: field of the output that orders records: "log_hazard" (N,) or "logits" (N, labels); None without one.
        predict: model and inputs (N, ...) -> columns of predictions, N values each; None without predictions.
        columns: configuration -> names of these columns, in order.
        card_task: task type and name in the metadata of a model card.
        expected_results: results a card should have: key of the result -> its words.
    """

    model_class: type[EcgDanPreTrainedModel]
    task: Task
    scores: Literal["log_hazard", "logits"] | None = None
    predict: Callable[[Any, Mapping[str, Tensor]], Columns] | None = None
    columns: Callable[[Config], list[str]] = lambda config: []
    card_task: tuple[str, str] = ("feature-extraction", "embedding of ECGs")
    expected_results: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the class, as `architectures` in a configuration has it."""
        return self.model_class.__name__

    @property
    def config_class(self) -> type[Config]:
        """Class of its configuration."""
        found: type[Config] = self.model_class.config_class
        return found

    @property
    def auto_class(self) -> str:
        """Name of the Auto class that loads it."""
        return MODELS[self.name].auto_class

    @property
    def is_survival(self) -> bool:
        """Predicts a log hazard."""
        return self.task == "survival"

    @property
    def is_classifier(self) -> bool:
        """Predicts labels."""
        return self.task == "classification"

    @staticmethod
    def encoder_of(model: Any) -> Any:
        """The ECG encoder inside a model, with a configuration of its own; the model itself where it is one."""
        return getattr(model, "ecgdan", model)

    def can_be_built(self, config: Config) -> bool:
        """Whether this head exists for a configuration: a DANet without a soft module has nothing to pretrain."""
        built = type(config) is self.config_class
        return built and (self.task != "waveform" or getattr(config, "waveform_module", None) == "soft")


def head_of(source: Any) -> Head:
    """Returns the head of a model, or of a configuration: the first of its `architectures`, else the default one.

    Raises:
        ValueError: another model or configuration; the message names those of the package.
    """
    if not isinstance(source, PreTrainedConfig):
        found = next((HEADS[kind.__name__] for kind in type(source).__mro__ if kind.__name__ in HEADS), None)
        if found is None:
            raise ValueError(f"model: expected one of {', '.join(HEADS)}, got {type(source).__name__}")
        return found
    given: Any = source.architectures
    named = given[0] if isinstance(given, list | tuple) and given else given or None
    if isinstance(named, str) and named in HEADS:
        return HEADS[named]
    if named is not None:
        raise ValueError(f"architectures: expected one of {', '.join(HEADS)}, got {named!r}")
    default = next((head for head in HEADS.values() if type(source) is head.config_class), None)
    if default is None:
        known = dict.fromkeys(head.config_class.model_type for head in HEADS.values())
        raise ValueError(f"model_type: expected one of {', '.join(known)}, got {source.model_type!r}")
    return default


def scores_and_risks(
    model: Any, inputs: Mapping[str, Tensor], years: Sequence[float]
) -> tuple[FloatArray, FloatArray]:
    """Log hazards (n, risks) and absolute risks (n, risks, years); NaN where the model gives no risk."""
    output = model(**inputs, return_loss=False)
    output.log_hazard = output.log_hazard.double()
    shape = len(output.log_hazard), model.config.num_risks
    known = model.risks(output, years).risk.double().cpu().numpy() if model.config.gives_risks else np.nan
    return output.log_hazard.reshape(shape).cpu().numpy(), np.broadcast_to(known, (*shape, len(years)))


def _predict_risk(model: Any, inputs: Mapping[str, Tensor]) -> Columns:
    columns = risk_columns(model.config.risk_names, *scores_and_risks(model, inputs, RISK_YEARS))
    endpoint = [model.config.endpoint_text] * len(columns["log_hazard"])
    return {name: values.tolist() for name, values in columns.items()} | {"endpoint": endpoint}


def _risk_columns(config: Any) -> list[str]:
    return risk_column_names(config.risk_names)


def _predict_labels(model: Any, inputs: Mapping[str, Tensor]) -> Columns:
    probabilities = model.config.label_probabilities(model(**inputs).logits.float()).cpu().numpy()
    return label_columns(model.config.label_names, probabilities, model.config.thresholds or {})


def _label_columns(config: Config) -> list[str]:
    return [*config.label_names, "positive"]


def _embed(model: Any, inputs: Mapping[str, Tensor]) -> Columns:
    pooled = model(inputs["input_values"], inputs["lead_mask"]).pooler_output.float().cpu().numpy()
    return {name: pooled[:, number].tolist() for number, name in enumerate(_embedding_columns(model.config))}


def _embedding_columns(config: Any) -> list[str]:
    return [f"embedding_{number:03d}" for number in range(config.hidden_size)]


def _classifier(model_class: type[EcgDanPreTrainedModel], expected_results: Mapping[str, str]) -> Head:
    task = ("ecg-classification", "multi-label classification")
    return Head(model_class, "classification", "logits", _predict_labels, _label_columns, task, expected_results)


_PRETRAINING = ("ecg-pretraining", "self-supervised pretraining")
_SURVIVAL = ("survival-analysis", "time to an event")
_AUROC = {"macro_auroc": "macro AUROC on test patients"}
_RANDOM = {"random_encoder": "comparison with a random encoder"}
_RISK = {"concordance_index": "C-index on test patients", "age_sex": "comparison with age and sex alone"}
_RISK |= {**_RANDOM, "calibration": "calibration of the absolute risks"}

HEADS: dict[str, Head] = {
    head.name: head
    for head in (
        Head(EcgDanModel, "embedding", predict=_embed, columns=_embedding_columns),
        Head(EcgDanForPreTraining, "pretraining", card_task=_PRETRAINING),
        _classifier(EcgDanForSequenceClassification, {**_AUROC, **_RANDOM}),
        Head(EcgDanForSurvival, "survival", "log_hazard", _predict_risk, _risk_columns, _SURVIVAL, _RISK),
        Head(EcgTextModel, "text"),
        _classifier(DanetForSequenceClassification, _AUROC),
        Head(DanetForPreTraining, "waveform", card_task=_PRETRAINING),
    )
}
"""By class name. The first head of a configuration class is the default of a configuration that names none."""
