"""Dual attention networks for 12-lead ECG in the Hugging Face ecosystem.

Importing the package registers its models with transformers' Auto classes. Research use only.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

from .model.configuration_danet import WAVEFORM_RULES, DanetConfig
from .model.configuration_ecg_text import EcgTextConfig
from .model.configuration_ecgdan import ECGDAN_VERSION as __version__
from .model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig, EcgDanSurvivalConfig
from .model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from .model.modeling_danet import DanetForPreTraining, DanetForSequenceClassification
from .model.modeling_ecg_text import EcgTextModel
from .model.modeling_ecgdan import (
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanModel,
)
from .model.pipeline_ecgdan import (
    EcgClassificationPipeline,
    ZeroShotEcgClassificationPipeline,
    attended_intervals,
    register_pipelines,
)
from .model.processing_ecgdan import EcgTextProcessor

AutoConfig.register("danet", DanetConfig)
AutoConfig.register("ecg-text", EcgTextConfig)
AutoConfig.register("ecgdan", EcgDanConfig)
AutoConfig.register("ecgdan-survival", EcgDanSurvivalConfig)
AutoFeatureExtractor.register(DanetConfig, EcgDanFeatureExtractor)
AutoFeatureExtractor.register(EcgDanConfig, EcgDanFeatureExtractor)
AutoFeatureExtractor.register(EcgDanSurvivalConfig, EcgDanFeatureExtractor)
AutoFeatureExtractor.register(EcgTextConfig, EcgDanFeatureExtractor)
AutoModel.register(EcgDanConfig, EcgDanModel)
AutoModel.register(EcgDanSurvivalConfig, EcgDanForSurvival)
AutoModel.register(EcgTextConfig, EcgTextModel)
AutoModelForPreTraining.register(DanetConfig, DanetForPreTraining)
AutoModelForPreTraining.register(EcgDanConfig, EcgDanForPreTraining)
AutoModelForSequenceClassification.register(DanetConfig, DanetForSequenceClassification)
AutoModelForSequenceClassification.register(EcgDanConfig, EcgDanForSequenceClassification)
AutoProcessor.register(EcgTextConfig, EcgTextProcessor)
register_pipelines()

__all__ = [
    "STANDARD_LEADS",
    "WAVEFORM_RULES",
    "DanetConfig",
    "DanetForPreTraining",
    "DanetForSequenceClassification",
    "EcgClassificationPipeline",
    "EcgDanConfig",
    "EcgDanFeatureExtractor",
    "EcgDanForPreTraining",
    "EcgDanForSequenceClassification",
    "EcgDanForSurvival",
    "EcgDanModel",
    "EcgDanSurvivalConfig",
    "EcgTextConfig",
    "EcgTextModel",
    "EcgTextProcessor",
    "ZeroShotEcgClassificationPipeline",
    "__version__",
    "attended_intervals",
]
