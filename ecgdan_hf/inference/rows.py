"""A model applied to the prepared rows of a dataset: scores, embeddings, and the columns and labels beside them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.model.survival_ecgdan import survival_curve

FloatArray = npt.NDArray[np.float64]


def model_inputs(model: Any, dataset: Any, batch_size: int) -> Iterator[dict[str, Tensor]]:
    """Yields what the model takes, covariates included, batch by batch, on its device.

    Raises:
        ValueError: covariates that the rows do not have.
    """
    taken, read = Covariates.of(model.config), ["input_values", "lead_mask", *model.config.weight_columns]
    covariates = taken.matrix(columns_of(dataset, taken.columns)) if taken.names else None
    start = 0
    for batch in dataset.with_format("numpy", columns=read).iter(batch_size=batch_size):
        inputs = {name: np.asarray(batch[name], bool if name == "lead_mask" else np.float32) for name in read}
        if covariates is not None:
            inputs["covariates"] = covariates[start : start + batch_size]
        start += batch_size
        yield {name: torch.from_numpy(values).to(model.device) for name, values in inputs.items()}


@torch.inference_mode()
def score_rows(model: Any, dataset: Any, batch_size: int = 256) -> FloatArray:
    """Log hazards (n,) of a survival model, or logits (n, labels) of a classifier, in the order of the rows.

    Raises:
        ValueError: another kind of model, or covariates that the rows do not have.
    """
    scores = head_of(model).scores
    if scores is None:
        raise ValueError(f"model: expected a survival or classification model, got {type(model).__name__}")
    outputs = (model(**inputs)[scores] for inputs in model_inputs(model, dataset, batch_size))
    return np.concatenate([output.double().cpu().numpy() for output in outputs])


@torch.inference_mode()
def embed(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> FloatArray:
    """Returns embeddings of ECGs, (records, hidden_size), by the encoder of a model.

    Args:
        model: any model of the package; its head is not used.
        batches: mappings with `input_values` (n, leads, samples) and, optionally, `lead_mask` (n, leads), for example
            `dataset.with_format("torch").iter(batch_size=256)`.

    Raises:
        ValueError: no batch at all.
    """
    encoder = getattr(model, "ecgdan", model)
    device, was_training = next(encoder.parameters()).device, encoder.training
    encoder.eval()
    pooled = []
    for batch in batches:
        mask = batch.get("lead_mask")
        output = encoder(
            torch.as_tensor(batch["input_values"], dtype=torch.float32, device=device),
            None if mask is None else torch.as_tensor(mask, dtype=torch.bool, device=device),
        )
        pooled.append(output.pooler_output.double().cpu().numpy())
    encoder.train(was_training)
    if not pooled:
        raise ValueError("batches: expected at least one batch, got none")
    return np.concatenate(pooled)


def risk_within(log_hazard: FloatArray, baseline: Iterable[Tensor], years: Sequence[float]) -> FloatArray:
    """Probability of the event within each of `years`, (n, years); NaN beyond the end of follow-up.

    Args:
        log_hazard: (n,).
        baseline: times and log cumulative hazard, from `baseline_hazard` or the `knots` of a checkpoint's baseline.
        years: horizons.
    """
    times, log_cumulative = (values.cpu().double() for values in baseline)
    curve = survival_curve(torch.from_numpy(log_hazard), times, log_cumulative, torch.tensor(years).double())
    risk: FloatArray = 1 - curve.numpy()
    return risk


def columns_of(dataset: Any, names: Sequence[str]) -> pd.DataFrame:
    """Returns those of the columns that the dataset has, as a table."""
    present = [name for name in names if name in dataset.column_names]
    table: pd.DataFrame = dataset.select_columns(present).to_pandas() if present else pd.DataFrame()
    return table


def label_matrix(dataset: Any) -> FloatArray:
    """Returns the lists in `labels` as (n, labels) of 0 and 1."""
    names = dataset.features["labels"].feature.names
    hot = np.zeros((len(dataset), len(names)))
    for row, present in enumerate(dataset["labels"]):
        hot[row, list(present)] = 1
    return hot
