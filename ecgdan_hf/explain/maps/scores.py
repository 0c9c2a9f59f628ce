"""The score that a map explains: one number for each record, for every head.

Survival: the log hazard, of several causes that of the first. Classification, DANet included: the logit of one label.
Any other head: the projection of the embedding on the direction of the whole record's embedding. (Their cosine has no
gradient where it is 1.)

Must not import the figures.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ecgdan_hf.inference.heads import head_of

Inputs = Mapping[str, Tensor]
"""Output of the feature extractor, and covariates: `input_values` (N, L, T), `lead_mask` (N, L), ..."""
Score = Callable[[Inputs], Tensor]
"""Inputs of the records it was made for, whole or with parts deleted -> (N,) float32, higher is more likely."""


@dataclass(frozen=True)
class _ModelScore:
    """A score with its name in words; `column` (N,) has the explained logits of a classifier."""

    function: Score
    name: str
    column: Tensor | None = None

    def __call__(self, inputs: Inputs) -> Tensor:
        return self.function(inputs)


def score_of(model: Any, inputs: Inputs, label: str | Tensor | None = None) -> _ModelScore:
    """Returns the score to explain as a function of the inputs; its `name` says what it is.

    Args:
        model: any model of the package. It runs in evaluation mode; its own mode is restored.
        inputs: the whole records, (N, ...).
        label: of a classifier, the label whose logit is explained: a name, or (N,) columns of the logits. Default:
            each record's most probable label.

    Raises:
        ValueError: an unknown label, or a network that predicts nothing.
    """
    head = head_of(model)
    if head.task == "waveform":
        raise ValueError("model: expected a network that predicts something, got a pretrained waveform module alone")
    if head.is_classifier:
        column = _label_column(model, inputs, label)
        name = f"logit of {model.config.id2label[int(column[0])]}"
        return _ModelScore(
            lambda given: output_of(model, given).logits.float().gather(1, column[:, None])[:, 0], name, column
        )
    if label is not None:
        raise ValueError(f"label: {type(model).__name__} has no labels; leave it out")
    if head.is_survival:
        return _ModelScore(lambda given: first_log_hazard(output_of(model, given)).float(), "log hazard")
    with torch.no_grad():
        direction = torch.nn.functional.normalize(_embedding(model, inputs), dim=-1)
    return _ModelScore(lambda given: (_embedding(model, given) * direction).sum(-1), "length of the embedding")


def first_log_hazard(output: Any) -> Tensor:
    """Log hazard of the endpoint, the first of several risks: (N,)."""
    log_hazard: Tensor = output.log_hazard
    return log_hazard if log_hazard.ndim == 1 else log_hazard[:, 0]


def _label_column(model: Any, inputs: Inputs, label: str | Tensor | None) -> Tensor:
    if isinstance(label, Tensor):
        return label
    names = model.config.label_names
    if label is None:
        with torch.no_grad():
            highest: Tensor = output_of(model, inputs).logits.argmax(-1)
        return highest
    if label not in names:
        raise ValueError(f"label: expected one of {', '.join(names)}, got {label!r}")
    return torch.full((len(inputs["input_values"]),), names.index(label), device=model.device)


def output_of(model: Any, inputs: Inputs, **options: bool) -> Any:
    """Runs the model in evaluation mode and restores its mode."""
    training = model.training
    model.train(False)
    try:
        return model(**inputs, **options)
    finally:
        model.train(training)


def _embedding(model: Any, inputs: Inputs) -> Tensor:
    output = output_of(model, inputs)
    pooled = output.get("pooler_output")
    embedding: Tensor = output.ecg_embeds if pooled is None else pooled
    return embedding.float()
