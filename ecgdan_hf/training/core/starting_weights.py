"""Configurations and weights: from a recipe's `model:` keys, or from a checkpoint that must not be contradicted."""

import dataclasses
import logging
from typing import Any

import torch
from transformers import logging as transformers_logging

from ecgdan_hf.inference.checkpoints import (
    check_finite,
    check_sizes,
    load_checkpoint,
    load_config,
    reading_weights,
    repository_and_revision,
)
from ecgdan_hf.model.configuration_danet import DanetConfig
from ecgdan_hf.model.configuration_ecgdan import SIGNAL_FIELDS, EcgDanConfig
from ecgdan_hf.training.arguments.options import check_keys

_FIXED_BY_WEIGHTS = (
    *SIGNAL_FIELDS,
    "trunk",
    "lead_layout",
    "use_lead_attention",
    "use_time_attention",
    "attention_order",
    "stem_features",
    "trunk_channels",
    "num_attention_heads",
    "mlp_ratio",
    "hidden_size",
    "count_beats",
)
"""Fields that a checkpoint fixes: its architecture and its input."""

_CARRIED_OVER = (*_FIXED_BY_WEIGHTS, "dropout_scope", "mlp_dropout", "drop_path_rate", "head_dropout")

_WAVEFORM_FIELDS = ("waveform_module", "waveform_channels", "waveform_kernel")
_DANET_FIELDS = (
    *_FIXED_BY_WEIGHTS,
    *_WAVEFORM_FIELDS,
    "classifier_network",
    "classifier_hidden_size",
    "use_attention_evidence",
)
_DANET_CARRIED_OVER = (*_CARRIED_OVER, *_DANET_FIELDS, "waveform_rule", "waveform_weight")

_NOT_OURS_TO_SET = (
    "num_baseline_times",
    "num_auxiliary_labels",
    "positive_weights",
    "prompt_labels",
    "thresholds",
    "ecgdan_version",
)


_MEANINGS = {
    "classifier.output.": "label_names",
    "classifier.auxiliary_output.": "label_names",
    "measurement_head.": "measurement_names",
    "risk_head.output.": "cause_names",
    "risk_head.": "endpoint_names",
    "covariate_head.": "covariate_names",
}
"""Weights whose rows stand for names, and the field of the configuration with these names, in order."""


def build_config(kind: type[EcgDanConfig], overrides: dict[str, Any], checkpoint: str | None) -> EcgDanConfig:
    """A configuration of `kind`: its defaults, then the checkpoint's network, then the overrides."""
    known = {item.name for base in (EcgDanConfig, kind) for item in dataclasses.fields(base)}
    own = known - {item.name for item in dataclasses.fields(EcgDanConfig.__mro__[1])} - set(_NOT_OURS_TO_SET)
    check_keys(overrides, own, "model")
    check_sizes(overrides, "model")
    if checkpoint is None:
        return kind(**overrides)
    source: Any = load_config(checkpoint)
    source = getattr(source, "ecg_config", source)  # of a dual encoder, its ECG side
    carried, fixed = _decided_by(source, kind, checkpoint)
    given = kind(**{**{name: getattr(source, name) for name in carried}, **overrides})
    for name in fixed:
        if getattr(given, name) != getattr(source, name):
            raise ValueError(
                f"model: {name} is {getattr(source, name)!r} in {checkpoint}, got {getattr(given, name)!r}; the "
                "weights fix it, leave it out or train from scratch"
            )
    return given


def _decided_by(source: EcgDanConfig, kind: type[EcgDanConfig], checkpoint: str) -> tuple[tuple[str, ...], ...]:
    """Fields that a checkpoint's configuration hands on, and those of them that its weights fix."""
    if not isinstance(source, DanetConfig):
        return _CARRIED_OVER, _FIXED_BY_WEIGHTS
    if not issubclass(kind, DanetConfig):
        raise ValueError(f"{checkpoint}: is a DANet checkpoint; go on from it with task danet")
    module_alone = "DanetForPreTraining" in (source.architectures or ())
    return _DANET_CARRIED_OVER, (*SIGNAL_FIELDS, *_WAVEFORM_FIELDS) if module_alone else _DANET_FIELDS


def _load_danet(model: Any, config: DanetConfig, checkpoint: str) -> set[str]:
    """Takes every weight of the checkpoint that fits, and returns their names.

    The classifier's head is one of them where the labels are the checkpoint's. The checkpoint may also be an ECG-DAN,
    whose encoder is taken.
    """
    source: Any = load_checkpoint(checkpoint)[0]
    source = source.float()
    prefix = "" if hasattr(source, "ecgdan") or isinstance(source.config, DanetConfig) else "ecgdan."
    parts: tuple[str, ...] = ("waveform_module.", "reconstruction_head.", "resnet.", "ecgdan.")
    if isinstance(source.config, DanetConfig) and source.config.id2label == config.id2label:
        parts += ("classifier.", "evidence.")
    weights = {prefix + name: value for name, value in source.state_dict().items()}
    fitting = {name: value for name, value in weights.items() if name in model.state_dict() and name.startswith(parts)}
    if not fitting:
        raise ValueError(
            f"{checkpoint}: expected weights of a DANet like this one, or an ECG-DAN for classifier_network ecgdan; "
            f"nothing of this {type(source).__name__} fits"
        )
    model.load_state_dict(fitting, strict=False)
    return set(fitting)


def _renew_other_meanings(model: Any, checkpoint: str, absent: list[str]) -> list[str]:
    """Draws the loaded weights anew whose rows stood for other names in the checkpoint; returns which."""
    source: Any = load_config(checkpoint)
    source = getattr(source, "ecg_config", source)
    of = {
        prefix: [list(getattr(each, field, [])) for each in (source, model.config)]
        for prefix, field in _MEANINGS.items()
    }
    other = tuple(prefix for prefix, (before, now) in of.items() if before != now)
    renewed = sorted(name for name in model.state_dict() if name.startswith(other) and name not in absent)
    if renewed:
        fresh = type(model)(model.config).state_dict()
        model.load_state_dict({name: fresh[name] for name in renewed}, strict=False)
    return renewed


def build_model(kind: Any, config: EcgDanConfig, checkpoint: str | None) -> tuple[Any, list[str]]:
    """A model with random weights, or with every weight of the checkpoint that it has a place for.

    The checkpoint must fill the encoder; something of it must fit a DANet. A head for other labels, measurements or
    covariates starts from random values, even where the number of them is the same. Returns the model in float32, and
    the names of the parameters that start from random values.
    """
    if checkpoint is None or isinstance(config, DanetConfig):
        model = kind(config)
        found = _load_danet(model, config, checkpoint) if checkpoint and isinstance(config, DanetConfig) else set()
        return model, [name for name, _ in model.named_parameters() if name not in found]
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)  # new heads are expected, and are reported by name
    name, revision = repository_and_revision(checkpoint)
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True, "use_safetensors": True}
    options["ignore_mismatched_sizes"] = True  # a head of other labels, the baseline hazard of another cohort
    load: Any = kind.from_pretrained
    try:
        with reading_weights(checkpoint):
            model, info = load(name, config=config, revision=revision, **options)
    finally:
        transformers_logging.set_verbosity(level)
    misshapen = {str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]}
    absent = sorted({*info["missing_keys"], *misshapen})
    encoder = [name for name in absent if name.startswith(f"{model.base_model_prefix}.")]
    if encoder:
        first = encoder[0]
        raise ValueError(f"{checkpoint}: expected the weights of the whole encoder, missing or misshapen: {first}")
    check_finite(model, checkpoint)
    absent += _renew_other_meanings(model, checkpoint, absent)
    learned = {name for name, _ in model.named_parameters()}
    return model, [name for name in absent if name in learned]
