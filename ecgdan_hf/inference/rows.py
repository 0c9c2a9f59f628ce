"""A model applied to the prepared rows of a dataset: scores, embeddings of all or some leads, columns and labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.heads import Head, head_of, scores_and_risks
from ecgdan_hf.model.leads_ecgdan import LIMB_LEADS, canonical_leads

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

    Of several causes the log hazards are those of the first, the endpoint.

    Raises:
        ValueError: another kind of model, covariates that the rows do not have, or scores that are not finite.
    """
    scores = head_of(model).scores
    if scores is None:
        raise ValueError(f"model: expected a survival or classification model, got {type(model).__name__}")
    outputs = (model(**inputs)[scores] for inputs in model_inputs(model, dataset, batch_size))
    found: FloatArray = np.concatenate([output.double().cpu().numpy() for output in outputs])
    _check_finite(found, scores)
    return found[:, 0] if scores == "log_hazard" and found.ndim > 1 else found


def _check_finite(found: FloatArray, name: str) -> None:
    odd = ~np.isfinite(found).reshape(len(found), -1).all(1)
    if odd.any():
        raise ValueError(f"{name}: expected finite numbers, found NaN or infinity in {odd.sum()} of {len(found)} rows")


@torch.inference_mode()
def predict_rows(
    model: Any, dataset: Any, years: Sequence[float], batch_size: int = 256
) -> tuple[FloatArray, FloatArray]:
    """Log hazards (n, risks) and absolute risks (n, risks, years) of a survival model, in the order of the rows.

    Risks are NaN beyond the follow-up of the model, or without a fitted baseline hazard.

    Raises:
        ValueError: covariates that the rows do not have, or log hazards that are not finite.
    """
    parts = [scores_and_risks(model, inputs, years) for inputs in model_inputs(model, dataset, batch_size)]
    scores, risks = (np.concatenate(part) for part in zip(*parts, strict=True))
    _check_finite(scores, "log_hazard")
    return scores, risks


@torch.inference_mode()
def embed(
    model: nn.Module, dataset: Any, batch_size: int = 256, leads: Sequence[str] | str | None = None
) -> FloatArray:
    """Returns embeddings of the rows, (rows, hidden_size), by the encoder of a model.

    Args:
        model: any model of the package; its head is not used.
        dataset: a `datasets.Dataset` with `input_values` and `lead_mask`.
        batch_size: rows per forward pass.
        leads: of a smaller device, as [`kept_leads`] takes them; the other leads are hidden from the network.

    Raises:
        ValueError: no row at all, no lead, an unknown one, or one that the network does not have.
    """
    if not len(dataset):
        raise ValueError("dataset: expected at least one row, got none")
    encoder = Head.encoder_of(model)
    kept = kept_leads(leads, encoder.config.lead_names)
    device, was_training = next(encoder.parameters()).device, encoder.training
    encoder.eval()
    pooled = []
    for batch in dataset.with_format("numpy", columns=["input_values", "lead_mask"]).iter(batch_size=batch_size):
        given = batch if kept.all() else _mask_leads(batch, kept)
        values = torch.as_tensor(given["input_values"], dtype=torch.float32, device=device)
        output = encoder(values, torch.as_tensor(given["lead_mask"], dtype=torch.bool, device=device))
        pooled.append(output.pooler_output.double().cpu().numpy())
    encoder.train(was_training)
    return np.concatenate(pooled)


def kept_leads(leads: Sequence[str] | str | None, lead_names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Returns which leads a smaller device has: those of `lead_names` that stay, or follow from those that stay.

    Limb leads that follow from two kept ones are kept too, as the feature extractor derives them from a device's I and
    II. For rhythm input the network then sees what it would see of the device's own files; a median beat was still
    found on all leads.

    >>> kept_leads("avf, V1", ["I", "II", "aVF", "V1"]).tolist()
    [False, False, True, True]
    >>> kept_leads("I, avf", ["I", "II", "aVF", "V1"]).tolist()
    [True, True, True, False]

    Args:
        leads: names in any spelling, as a sequence or separated by commas; None keeps all.
        lead_names: of the network's input, in order.

    Raises:
        ValueError: no lead, an unknown one, or one the network does not have.
    """
    if leads is None:
        return np.ones(len(lead_names), dtype=bool)
    given = leads.split(",") if isinstance(leads, str) else list(leads)
    names = canonical_leads([name for name in given if name.strip()])
    absent = [name for name in names if name not in lead_names]
    if absent or not names:
        found = ", ".join(absent) or "none"
        raise ValueError(f"leads: expected some of the model's {', '.join(lead_names)}, got {found}")
    derived = LIMB_LEADS if len(set(names) & set(LIMB_LEADS)) > 1 else ()
    return np.isin(list(lead_names), [*names, *derived])


def _mask_leads(batch: Mapping[str, Any], kept: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Returns a batch with `input_values` (n, leads, samples) and `lead_mask` (n, leads), reduced to these leads."""
    values, mask = np.asarray(batch["input_values"]), np.asarray(batch["lead_mask"], dtype=bool) & kept
    return {**batch, "input_values": np.where(mask[:, :, None], values, 0).astype(values.dtype), "lead_mask": mask}


def columns_of(dataset: Any, names: Sequence[str]) -> pd.DataFrame:
    """Returns those of the columns that the dataset has, as a table."""
    present = [name for name in names if name in dataset.column_names]
    table: pd.DataFrame = dataset.select_columns(present).to_pandas() if present else pd.DataFrame()
    return table


def endpoint_table(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows whose follow-up for an endpoint is known, with it as `event` and `time`.

    Raises:
        ValueError: no column `event_NAME` or `time_NAME`, or nothing known in them.
    """
    pair = [f"event_{name}", f"time_{name}"]
    absent = [column for column in pair if column not in table]
    if absent:
        raise ValueError(f"endpoints: expected columns {' and '.join(pair)}, the data have no {absent[0]}")
    known = table[table[pair].notna().all(axis=1)]
    if known.empty:
        raise ValueError(f"endpoints: expected follow-up for {name}, got none in {len(table)} records")
    return known.assign(event=known[pair[0]].astype(float), time=known[pair[1]].astype(float))


def endpoint_rows(dataset: Any, name: str) -> Any:
    """As [`endpoint_table`], of a dataset."""
    table = columns_of(dataset, [f"event_{name}", f"time_{name}"])
    found = endpoint_table(table, name)
    replaced = [column for column in ("event", "time", "log_hazard") if column in dataset.column_names]
    rows = dataset.remove_columns(replaced).select(found.index.to_numpy())
    for column in ("event", "time"):
        rows = rows.add_column(column, found[column].to_numpy())
    return rows


def label_matrix(dataset: Any) -> FloatArray:
    """Returns the lists in `labels` as (n, labels) of 0 and 1."""
    names = dataset.features["labels"].feature.names
    hot = np.zeros((len(dataset), len(names)))
    for row, present in enumerate(dataset["labels"]):
        hot[row, list(present)] = 1
    return hot
