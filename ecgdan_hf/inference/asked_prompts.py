"""Prompts as somebody asks them: a label or its name, or free text; what of each can be measured, and its embedding.

A label whose prompt the checkpoint carries needs no language model. Other text is embedded by the language model of
pretraining, after which the checkpoint's own projection places it among the ECGs (CLIP, Radford et al., 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer

from ecgdan_hf.data.text.definitions import LEVELS, Definition, definitions
from ecgdan_hf.data.text.prompts import MeasuredPrompt, measured_prompt
from ecgdan_hf.data.text.statements import embed_texts, loading_text_model
from ecgdan_hf.inference.checkpoints import quietly

NO_TEXT_MODEL = "none"
_MAX_TOKENS = 512


@dataclass(frozen=True)
class AskedPrompt:
    """One prompt.

    Attributes:
        text: as it was asked.
        label: the label that it names, such as `"SBRAD"` for "sinus bradycardia"; None for free text.
        measured: what of it can be measured.
        embedding: (projection_size,), of unit length; NaN where it was asked without a language model.
    """

    text: str
    label: str | None
    measured: MeasuredPrompt
    embedding: Tensor

    @property
    def is_measured(self) -> bool:
        """Whether measurements alone can answer it."""
        return bool(self.measured.claims) and not self.measured.rest

    @property
    def names(self) -> set[str]:
        """What a table of labels may call it, in lower case."""
        return {name.casefold() for name in (self.text, self.label) if name}


def asked_prompts(texts: Sequence[str], model: Any, text_model: str | None = None) -> list[AskedPrompt]:
    """Looks the prompts up in a checkpoint, and embeds those that it does not carry.

    Args:
        texts: labels, their names, or free text, each once.
        model: [`EcgDanForPreTraining`] with texts, or [`EcgTextModel`].
        text_model: the language model of pretraining: a name, a folder or `minilm`; default that of the checkpoint.
            `none` for measured prompts and those that the checkpoint carries.

    Raises:
        ValueError: no prompt, an empty or repeated one, a model without texts, another language model than that of
            pretraining, or `none` where one is needed.
        OSError: the language model cannot be loaded.
    """
    if getattr(model, "alignment_head", None) is None:
        raise ValueError(f"model: expected a network pretrained with texts, got {type(model).__name__} without them")
    if not texts or not all(text.strip() for text in texts) or len(set(texts)) < len(texts):
        raise ValueError(f"prompts: expected at least one text, none of them empty or repeated, got {list(texts)}")
    carried = _carried(model)
    known = {text: _definition(text) for text in texts}
    labels = {text: _label(text, known[text], list(carried)) for text in texts}
    measured = {text: measured_prompt(each.name if each else text) for text, each in known.items()}
    other = {text: each.definition if each else text for text, each in known.items() if labels[text] not in carried}
    carried |= _embedded(other, measured, model, text_model)
    return [AskedPrompt(text, labels[text], measured[text], carried[labels[text] or text]) for text in texts]


def _carried(model: Any) -> dict[str, Tensor]:
    """Embeddings of the checkpoint's own prompts by label."""
    labels = list(getattr(model.config, "ecg_config", model.config).prompt_labels)
    return dict(zip(labels, model.alignment_head.prompt_embeds.float(), strict=True)) if labels else {}


@cache
def _known_names() -> dict[str, Definition]:
    """Definitions by code and by name, in lower case; a statement goes before a class of that name."""
    found: dict[str, Definition] = {}
    for level in reversed(LEVELS):
        for definition in definitions(level).values():
            found |= dict.fromkeys((definition.code.casefold(), definition.name.casefold()), definition)
    return found


def _definition(text: str) -> Definition | None:
    return _known_names().get(text.strip().casefold())


def _label(text: str, definition: Definition | None, carried: Sequence[str]) -> str | None:
    own = {label.casefold(): label for label in carried}
    return own.get(text.strip().casefold()) or (definition.code if definition else None)


def _embedded(
    texts: dict[str, str], measured: dict[str, MeasuredPrompt], model: Any, text_model: str | None
) -> dict[str, Tensor]:
    """Embeddings of what the checkpoint does not carry, by prompt and by label."""
    if not texts:
        return {}
    width = model.alignment_head.text_projection[-1].out_features
    if text_model == NO_TEXT_MODEL:
        needed = [text for text in texts if measured[text].rest or not measured[text].claims]
        if needed:
            raise ValueError(f"text_model: {needed[0]!r} is not measured and needs a language model, got none")
        vectors = torch.full((len(texts), width), float("nan"))
    else:
        vectors = _project_texts(list(texts.values()), model, text_model)
    found = dict(zip(texts, vectors, strict=True))
    codes = {text: each.code for text in texts if (each := _definition(text))}
    return found | {code: found[text] for text, code in codes.items()}


@torch.inference_mode()
def _project_texts(texts: Sequence[str], model: Any, text_model: str | None = None) -> Tensor:
    """(texts, projection_size), of unit length; arguments and errors as [`asked_prompts`]."""
    config = model.config
    if text_model is None and getattr(config, "store_text_model", False):
        return _by_own_text_model(texts, model)
    name = text_model or config.text_model_name
    if not name:
        raise ValueError("text_model: expected the language model of pretraining, the checkpoint names none; give it")
    with quietly():
        vectors = embed_texts(texts, name, revision=None if text_model else config.text_model_revision)
    expected = getattr(config, "ecg_config", config).text_embed_dim
    if vectors.shape[1] != expected:
        raise ValueError(
            f"text_model: expected that of pretraining, of width {expected}, {name} has {vectors.shape[1]}"
        )
    weight = model.alignment_head.text_projection[0].weight
    projected: Tensor = model.alignment_head.project_text(torch.from_numpy(vectors).to(weight)).float()
    return projected


def _by_own_text_model(texts: Sequence[str], model: Any) -> Tensor:
    """As [`_project_texts`], by the language model that the checkpoint stores."""
    with loading_text_model(model.config.name_or_path):
        tokenizer = AutoTokenizer.from_pretrained(model.config.name_or_path)
    options: dict[str, Any] = {"padding": True, "truncation": True, "max_length": _MAX_TOKENS, "return_tensors": "pt"}
    tokens = tokenizer(list(texts), **options).to(model.device)
    return F.normalize(model.get_text_features(**tokens).pooler_output.float(), dim=-1)
