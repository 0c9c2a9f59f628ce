from .model.configuration_danet import WAVEFORM_RULES as WAVEFORM_RULES
from .model.configuration_danet import DanetConfig as DanetConfig
from .model.configuration_ecg_text import EcgTextConfig as EcgTextConfig
from .model.configuration_ecgdan import STANDARD_LEADS as STANDARD_LEADS
from .model.configuration_ecgdan import EcgDanConfig as EcgDanConfig
from .model.configuration_ecgdan import EcgDanSurvivalConfig as EcgDanSurvivalConfig
from .model.feature_extraction_ecgdan import EcgDanFeatureExtractor as EcgDanFeatureExtractor
from .model.modeling_danet import DanetForPreTraining as DanetForPreTraining
from .model.modeling_danet import DanetForSequenceClassification as DanetForSequenceClassification
from .model.modeling_ecg_text import EcgTextModel as EcgTextModel
from .model.modeling_ecgdan import EcgDanForPreTraining as EcgDanForPreTraining
from .model.modeling_ecgdan import EcgDanForSequenceClassification as EcgDanForSequenceClassification
from .model.modeling_ecgdan import EcgDanForSurvival as EcgDanForSurvival
from .model.modeling_ecgdan import EcgDanModel as EcgDanModel
from .model.pipeline_ecgdan import EcgClassificationPipeline as EcgClassificationPipeline
from .model.pipeline_ecgdan import EcgFeatureExtractionPipeline as EcgFeatureExtractionPipeline
from .model.pipeline_ecgdan import EcgSurvivalPipeline as EcgSurvivalPipeline
from .model.pipeline_ecgdan import ZeroShotEcgClassificationPipeline as ZeroShotEcgClassificationPipeline
from .model.pipeline_ecgdan import attended_intervals as attended_intervals
from .model.processing_ecgdan import EcgTextProcessor as EcgTextProcessor

__version__: str
