"""Processor of the ECG-text dual encoder: recordings and texts -> everything [`EcgTextModel`] takes.

Travels with the weights: imports only transformers, numpy and its neighbours in this folder.
"""

from typing import Any

import numpy as np
from transformers import AutoFeatureExtractor, AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.utils.generic import TensorType


class EcgTextProcessor(ProcessorMixin):
    r"""A feature extractor and, where texts are to be read, the language model's tokenizer.

    Args:
        feature_extractor: [`EcgDanFeatureExtractor`].
        tokenizer: of the language model; None where only ECGs are prepared, as with prompts that are cached.
    """

    def __init__(self, feature_extractor: Any = None, tokenizer: Any = None):
        if tokenizer is not None:
            super().__init__(feature_extractor, tokenizer)  # type: ignore[no-untyped-call]
        else:
            self.feature_extractor, self.tokenizer, self.chat_template = feature_extractor, None, None

    def __call__(
        self,
        ecg: np.ndarray | list[Any] | None = None,
        text: str | list[str] | None = None,
        sampling_rate: float | list[float] | None = None,
        unit: str | list[str] | None = None,
        lead_names: list[str] | tuple[str, ...] | list[list[str]] | None = None,
        return_tensors: str | TensorType | None = None,
        return_flags: bool = False,
        max_length: int | None = None,
    ) -> BatchFeature:
        """Prepares recordings, texts or both.

        Args:
            ecg, sampling_rate, unit, lead_names, return_tensors, return_flags: as [`EcgDanFeatureExtractor`] takes
                them; `ecg` is its `signal`.
            text: one text or several; padded to the longest, cut at `max_length`.
            max_length: tokens; default the language model's limit, at most 512.

        Returns:
            The feature extractor's outputs, and the tokenizer's `input_ids` and `attention_mask`.

        Raises:
            ValueError: neither ECG nor text, a text without tokenizer, or a recording that cannot be trusted.
        """
        if ecg is None and text is None:
            raise ValueError("ecg, text: expected at least one of them, got none")
        features = BatchFeature({})
        if ecg is not None:
            given = {"sampling_rate": sampling_rate, "unit": unit, "lead_names": lead_names}
            features = self.feature_extractor(ecg, **given, return_tensors=return_tensors, return_flags=return_flags)
        if text is not None:
            features.update(self._tokens(text, max_length, return_tensors))
        return features

    def _tokens(self, text: str | list[str], max_length: int | None, return_tensors: Any) -> Any:
        if self.tokenizer is None:
            raise ValueError(
                "text: needs the language model's tokenizer, got none; make "
                "EcgTextProcessor(feature_extractor, AutoTokenizer.from_pretrained(text_model_name))"
            )
        texts = [text] if isinstance(text, str) else list(text)
        longest = max_length or min(self.tokenizer.model_max_length, 512)
        return self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors=return_tensors)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model's inputs."""
        names = list(self.feature_extractor.model_input_names)
        return names if self.tokenizer is None else names + list(self.tokenizer.model_input_names)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Saves both, or the feature extractor alone."""
        if self.tokenizer is None:
            return self.feature_extractor.save_pretrained(save_directory, *args, **kwargs)
        return super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> "EcgTextProcessor":
        """Loads both, or the feature extractor alone where no tokenizer was saved."""
        source = str(pretrained_model_name_or_path)
        kwargs.pop("_from_auto", None)
        feature_extractor = AutoFeatureExtractor.from_pretrained(source, **kwargs)
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **kwargs)
        except (OSError, ValueError, KeyError):
            tokenizer = None
        return cls(feature_extractor, tokenizer)
