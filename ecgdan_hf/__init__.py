"""Dual attention networks for 12-lead ECG in the Hugging Face ecosystem.

Importing the package makes its models, processors and pipelines known to transformers' Auto classes and to
`transformers.pipeline`. It imports neither torch nor transformers: a name is imported when it is first used.

Research use only.
"""

import importlib
from typing import Any

from .registration import register_with_transformers

__version__ = "0.1.0"

# Where each public name is; `__init__.pyi` says the same to type checkers.
_NAMES = {
    "STANDARD_LEADS": "model.configuration_ecgdan",
    "WAVEFORM_RULES": "model.configuration_danet",
    "DanetConfig": "model.configuration_danet",
    "DanetForPreTraining": "model.modeling_danet",
    "DanetForSequenceClassification": "model.modeling_danet",
    "EcgClassificationPipeline": "model.pipeline_ecgdan",
    "EcgDanConfig": "model.configuration_ecgdan",
    "EcgDanFeatureExtractor": "model.feature_extraction_ecgdan",
    "EcgDanForPreTraining": "model.modeling_ecgdan",
    "EcgDanForSequenceClassification": "model.modeling_ecgdan",
    "EcgDanForSurvival": "model.modeling_ecgdan",
    "EcgDanModel": "model.modeling_ecgdan",
    "EcgDanSurvivalConfig": "model.configuration_ecgdan",
    "EcgFeatureExtractionPipeline": "model.pipeline_base_ecgdan",
    "EcgSurvivalPipeline": "model.pipeline_survival_ecgdan",
    "EcgTextConfig": "model.configuration_ecg_text",
    "EcgTextModel": "model.modeling_ecg_text",
    "EcgTextProcessor": "model.processing_ecgdan",
    "ZeroShotEcgClassificationPipeline": "model.pipeline_ecgdan",
    "attended_intervals": "model.intervals_ecgdan",
}

__all__ = [*_NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for (PEP 562)."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_transformers()
