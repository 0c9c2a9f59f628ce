"""Dual attention networks for 12-lead ECG in the Hugging Face ecosystem.

Importing the package registers its models with transformers' Auto classes. Research use only.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
)

from .model.configuration_ecgdan import ECGDAN_VERSION as __version__
from .model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig, EcgDanSurvivalConfig
from .model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from .model.modeling_ecgdan import (
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanModel,
)

AutoConfig.register("ecgdan", EcgDanConfig)
AutoConfig.register("ecgdan-survival", EcgDanSurvivalConfig)
AutoFeatureExtractor.register(EcgDanConfig, EcgDanFeatureExtractor)
AutoFeatureExtractor.register(EcgDanSurvivalConfig, EcgDanFeatureExtractor)
AutoModel.register(EcgDanConfig, EcgDanModel)
AutoModel.register(EcgDanSurvivalConfig, EcgDanForSurvival)
AutoModelForPreTraining.register(EcgDanConfig, EcgDanForPreTraining)
AutoModelForSequenceClassification.register(EcgDanConfig, EcgDanForSequenceClassification)

__all__ = [
    "STANDARD_LEADS",
    "EcgDanConfig",
    "EcgDanFeatureExtractor",
    "EcgDanForPreTraining",
    "EcgDanForSequenceClassification",
    "EcgDanForSurvival",
    "EcgDanModel",
    "EcgDanSurvivalConfig",
    "__version__",
]
