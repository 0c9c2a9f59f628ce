"""What a map explains: one number of a network for each record, whatever its head.

Survival: the log hazard. Classification, DANet too: the logit of one label. Any other: how far the embedding reaches
in the direction it has on the whole record; its cosine would not do, for that has no gradient where it is 1.

Must not import the figures.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecgdan_hf.inference.heads import head_of

Inputs = Mapping[str, Tensor]
"""What the feature extractor returns, and covariates: `input_values` (N, L, T), `lead_mask` (N, L), ..."""
Score = Callable[[Inputs], Tensor]
"""Inputs of the records it was made for, whole or with parts taken away -> (N,) float32, higher where more likely."""


def score_of(model: Any, inputs: Inputs, label: str | Tensor | None = None) -> Score:
    """The number to explain, as a function of the inputs.

    Args:
        model: any model of the package; it runs in evaluation mode and is left as it was.
        inputs: the whole records, (N, ...).
        label: whose logit, for a classifier, by name, or (N,) columns of the logits; by default, for each record,
            the label predicted first.

    Raises:
        ValueError: a label that the network does not have, or a network that predicts nothing.
    """
    head = head_of(model)
    if head.task == "waveform":
        raise ValueError("model: expected a network that predicts something, got a pretrained waveform module alone")
    if head.is_classifier:
        column = label_column(model, inputs, label)
        return lambda given: output_of(model, given).logits.float().gather(1, column[:, None])[:, 0]
    if label is not None:
        raise ValueError(f"label: {type(model).__name__} has no labels; leave it out")
    if head.is_survival:
        return lambda given: output_of(model, given).log_hazard.float()
    with torch.no_grad():
        direction = torch.nn.functional.normalize(_embedding(model, inputs), dim=-1)
    return lambda given: (_embedding(model, given) * direction).sum(-1)


def label_column(model: Any, inputs: Inputs, label: str | Tensor | None = None) -> Tensor:
    """(N,) column of the logits: the label's, or for each record that of the highest logit."""
    if isinstance(label, Tensor):
        return label
    names = {str(name): column for column, name in (model.config.id2label or {}).items()}
    if label is None:
        with torch.no_grad():
            return output_of(model, inputs).logits.argmax(-1)
    if label not in names:
        raise ValueError(f"label: expected one of {', '.join(names)}, got {label!r}")
    return torch.full((len(inputs["input_values"]),), int(names[label]), device=model.device)


def output_of(model: Any, inputs: Inputs, **options: bool) -> Any:
    """The model's output in evaluation mode; its mode afterwards is what it was."""
    training = model.training
    model.train(False)
    try:
        return model(**inputs, **options)
    finally:
        model.train(training)


def _embedding(model: Any, inputs: Inputs) -> Tensor:
    output = output_of(model, inputs)
    pooled = output.get("pooler_output")
    return (output.ecg_embeds if pooled is None else pooled).float()


def drawn_rows(dataset: Any, count: int | None, seed: int) -> Any:
    """So many rows drawn by the seed, in their order; all for None."""
    if count is None or count >= len(dataset):
        return dataset
    return dataset.select(np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count]))
