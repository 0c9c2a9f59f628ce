"""Makes the classes of `model/` known to transformers' Auto classes and pipelines, and imports none of them for it.

When transformers imports an Auto class, configurations are registered with it as they are; models, the feature
extractor and the processor as stand-ins, which import the class when it is first used. transformers may then be half
imported itself: its layers import its Auto classes, so that the models cannot be imported at that moment.
"""

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from wrapt import lazy_import, register_post_import_hook

import ecgdan_hf

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONFIGURATIONS = ("configuration_danet", "configuration_ecg_text", "configuration_ecgdan")


class _Registered(NamedTuple):
    """Names of the configuration class of a model, and of the Auto class that loads the model."""

    config_class: str
    auto_class: str


MODELS = {
    "EcgDanModel": _Registered("EcgDanConfig", "AutoModel"),
    "EcgDanForPreTraining": _Registered("EcgDanConfig", "AutoModelForPreTraining"),
    "EcgDanForSequenceClassification": _Registered("EcgDanConfig", "AutoModelForSequenceClassification"),
    "EcgDanForSurvival": _Registered("EcgDanSurvivalConfig", "AutoModel"),
    "EcgTextModel": _Registered("EcgTextConfig", "AutoModel"),
    "DanetForPreTraining": _Registered("DanetConfig", "AutoModelForPreTraining"),
    "DanetForSequenceClassification": _Registered("DanetConfig", "AutoModelForSequenceClassification"),
}
"""Every model class by name; `inference.heads` says what each predicts."""
PIPELINES = ("pipeline_base_ecgdan", "pipeline_ecgdan", "pipeline_survival_ecgdan")


def register_with_transformers() -> None:
    """Registers with what is imported already, and with the rest when it is."""
    auto = "transformers.models.auto."
    _when_imported(auto + "configuration_auto", CONFIGURATIONS, _register_configurations)
    _when_imported(auto + "feature_extraction_auto", CONFIGURATIONS, _register_feature_extractors)
    _when_imported(auto + "processing_auto", CONFIGURATIONS, _register_processors)
    _when_imported(auto + "modeling_auto", CONFIGURATIONS, _register_models)
    _when_imported("transformers.pipelines", PIPELINES, _register_pipelines)


def _when_imported(theirs: str, ours: Iterable[str], register: Callable[[], None]) -> None:
    """Importing `theirs` imports `ours`; `register` is called when the last of them is there.

    One of ours may be what imports theirs. It is then half imported when theirs arrives, and is waited for.
    """
    awaited = {theirs, *(f"ecgdan_hf.model.{name}" for name in ours)}

    def arrived(module: ModuleType) -> None:
        awaited.remove(module.__name__)
        if not awaited:
            register()
        elif theirs not in awaited and not awaited & set(sys.modules):
            for name in list(awaited):
                import_module(name)

    for name in list(awaited):
        register_post_import_hook(arrived, name)


def _register_configurations() -> None:
    from transformers import AutoConfig

    for config_class in _config_classes():
        AutoConfig.register(config_class.model_type, config_class)


def _register_feature_extractors() -> None:
    from transformers import FEATURE_EXTRACTOR_MAPPING

    for config_class in _config_classes():
        FEATURE_EXTRACTOR_MAPPING.register(config_class, _stand_in("EcgDanFeatureExtractor"))


def _config_classes() -> "tuple[type[PreTrainedConfig], ...]":
    return tuple(getattr(ecgdan_hf, name) for name in dict.fromkeys(model.config_class for model in MODELS.values()))


def _register_processors() -> None:
    from transformers import PROCESSOR_MAPPING

    PROCESSOR_MAPPING.register(ecgdan_hf.EcgTextConfig, _stand_in("EcgTextProcessor"))


def _register_models() -> None:
    from transformers import MODEL_FOR_PRETRAINING_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    mappings = {
        "AutoModel": MODEL_MAPPING,
        "AutoModelForPreTraining": MODEL_FOR_PRETRAINING_MAPPING,
        "AutoModelForSequenceClassification": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    }
    for name, (config_class, auto_class) in MODELS.items():
        mappings[auto_class].register(getattr(ecgdan_hf, config_class), _stand_in(name))


def _register_pipelines() -> None:
    from ecgdan_hf.model.pipeline_ecgdan import register_pipelines

    register_pipelines()


def _stand_in(name: str) -> Any:
    """What behaves as the class of that name and imports it when it is first asked for anything."""
    return lazy_import("ecgdan_hf", name)
