"""Configuration of the ECG-text dual encoder: the ECG network's, the language model's, and where the latter is kept.

Travels with the weights: imports only transformers, huggingface_hub and its neighbour in this folder.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from .configuration_ecgdan import ECGDAN_VERSION, ENCODER_FIELDS, EcgDanConfig, VersionedConfig
from .contract_ecgdan import STANDARD_LEADS as STANDARD_LEADS  # names every file that travels

_DEFAULT: Any = None
if TYPE_CHECKING:  # `__post_init__` makes it a configuration
    _EcgConfig = EcgDanConfig
else:
    _EcgConfig = dict[str, Any] | PreTrainedConfig | None


@strict
class EcgTextConfig(VersionedConfig):
    r"""Configuration of [`EcgTextModel`].

    Args:
        ecg_config: the ECG encoder with its alignment head (`text_embed_dim`, `projection_size`,
            `alignment_objective`, `prompt_labels`).
        text_config: the language model's own configuration; None where it is only referred to.
        text_model_name: the language model's name on the Hub, or a folder; default `ecg_config.text_model_name`.
        text_model_revision: its branch, tag or commit.
        store_text_model: whether the checkpoint holds the language model's weights too. If not, it is loaded from
            `text_model_name` once a text is asked for; prompts that are cached need no language model at all.
        ecgdan_version: version of the package that wrote the configuration.

    Raises:
        ValueError: weights to be stored without `text_config`, or a language model of another width than the head.
    """

    model_type = "ecg-text"
    keys_to_ignore_at_inference: ClassVar[list[str]] = list(ENCODER_FIELDS)
    sub_configs = {"ecg_config": EcgDanConfig, "text_config": AutoConfig}  # noqa: RUF012 (transformers reads a dict)

    ecg_config: _EcgConfig = _DEFAULT
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    text_model_name: str | None = None
    text_model_revision: str | None = None
    store_text_model: bool = False
    ecgdan_version: str = ECGDAN_VERSION

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.ecg_config, PreTrainedConfig):
            self.ecg_config = EcgDanConfig(**(self.ecg_config or {}))
        if isinstance(self.text_config, dict):
            self.text_config = AutoConfig.for_model(**self.text_config)
        if self.text_model_name is None:
            self.text_model_name = self.ecg_config.text_model_name
            self.text_model_revision = self.text_model_revision or self.ecg_config.text_model_revision
        super().__post_init__(**kwargs)
        self.check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; says where it, or the ECG encoder's, comes from another version of the package."""
        config, inner = super().from_dict(config_dict, **kwargs), config_dict.get("ecg_config")
        if isinstance(inner, dict) and "transformers_version" in config_dict:
            said = {"transformers_version": "", "ecgdan_version": ECGDAN_VERSION}  # of the versions, just above
            EcgDanConfig.say_what_differs(inner | said)
        return config

    def check(self) -> None:
        """Raises for a language model that cannot be stored or does not fit the alignment head."""
        if self.store_text_model and self.text_config is None:
            raise ValueError("store_text_model: needs a text_config, got none; or store_text_model=False")
        expected, found = self.ecg_config.text_embed_dim, getattr(self.text_config, "hidden_size", None)
        if None not in (expected, found) and expected != found:
            raise ValueError(
                f"text_config: expected a model of the head's width, text_embed_dim {expected}, got {found}"
            )

    @property
    def prompt_labels(self) -> list[str]:
        """Labels whose prompts the checkpoint carries."""
        return list(self.ecg_config.prompt_labels)

    @property
    def signal_contract(self) -> dict[str, Any]:
        """The contract of the input, as keyword arguments of [`EcgDanFeatureExtractor`]."""
        return self.ecg_config.signal_contract

    @property
    def weight_columns(self) -> list[str]:
        """Those of the ECG encoder."""
        return self.ecg_config.weight_columns
