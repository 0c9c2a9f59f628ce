"""Outputs of a network -> columns and rows of predictions, whatever computed them; needs neither torch nor pandas."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ecgdan_hf import __version__
from ecgdan_hf.data.flag_words import by_importance

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
Columns = dict[str, list[Any]]

RISK_YEARS = (1, 5, 10)
RISK_COLUMNS = tuple(f"risk_{year}y" for year in RISK_YEARS)
DEFAULT_THRESHOLD = 0.5
NEEDS_MORE_LEADS = "thresholds_need_more_leads"
NOT_FINITE = "expected finite predictions, the model gave NaN or infinity"


def risk_suffixes(risk_names: Sequence[str]) -> list[str]:
    """What the columns of each risk end with: nothing for the first, the name of a further cause behind `_`."""
    return ["", *("_" + "_".join(name.lower().split()) for name in risk_names[1:])]


def risk_column_names(risk_names: Sequence[str]) -> list[str]:
    """Names of the columns of a model of risk, in order."""
    names = ["log_hazard", *RISK_COLUMNS]
    return [*(f"{name}{suffix}" for suffix in risk_suffixes(risk_names) for name in names), "endpoint"]


def risk_columns(risk_names: Sequence[str], log_hazard: FloatArray, risk: FloatArray) -> dict[str, FloatArray]:
    """Columns of predictions: `log_hazard` and `risk_1y`, ..., and those of further causes with their names.

    Args:
        risk_names: of the model.
        log_hazard: (n,), or (n, risks).
        risk: (n, risks, `RISK_YEARS`).
    """
    scores, columns = np.reshape(log_hazard, (len(log_hazard), -1)), {}
    for number, suffix in enumerate(risk_suffixes(risk_names)):
        columns[f"log_hazard{suffix}"] = scores[:, number]
        columns |= {f"{name}{suffix}": risk[:, number, year] for year, name in enumerate(RISK_COLUMNS)}
    return columns


def label_columns(
    names: Sequence[str], probabilities: npt.NDArray[np.float32], thresholds: Mapping[str, float]
) -> Columns:
    """One column for each label of (n, labels), and `positive`, the labels at or above their threshold."""
    cuts = np.array([thresholds.get(name, DEFAULT_THRESHOLD) for name in names])
    positive = [";".join(np.array(names)[row >= cuts]) for row in probabilities]
    return {name: probabilities[:, column].tolist() for column, name in enumerate(names)} | {"positive": positive}


def add_predictions(
    rows: Sequence[dict[str, Any]],
    predict: Callable[[dict[str, npt.NDArray[Any]]], Columns],
    thresholds_hold: Callable[[int], bool],
) -> None:
    """Replaces the `inputs` of rows by what is predicted from them.

    Args:
        rows: as `prepared_files` makes them; those without `inputs` stay as they are.
        predict: arrays (n, ...) by name -> columns of n values.
        thresholds_hold: number of leads -> whether `positive` can be said.
    """
    usable = [row for row in rows if "inputs" in row]
    if not usable:
        return
    inputs = {name: np.concatenate([row["inputs"][name] for row in usable]) for name in usable[0]["inputs"]}
    columns = predict(inputs)
    for position, row in enumerate(usable):
        del row["inputs"]
        predicted = {name: values[position] for name, values in columns.items()}
        if not is_finite(predicted):
            row["error"] = f"{NOT_FINITE} for this signal"
            continue
        row.update(predicted)
        if "positive" in row and not thresholds_hold(row["num_leads"]):
            row["positive"] = None
            row["flags"] = ";".join(by_importance(filter(None, [*row["flags"].split(";"), NEEDS_MORE_LEADS])))


def is_finite(predicted: Mapping[str, Any]) -> bool:
    """Whether all numbers are finite; only risks may be NaN: beyond the follow-up of the training data."""
    numbers = {name: value for name, value in predicted.items() if isinstance(value, float)}
    return all(math.isfinite(value) for name, value in numbers.items() if not name.startswith(RISK_COLUMNS))


def check_batching(batch_size: int, num_workers: int) -> None:
    """Raises ValueError for a batch without records, or a negative number of processes."""
    for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")


def made_with(
    read_options: Mapping[str, Any], covariates: "pd.DataFrame | None", missing_covariates: str
) -> dict[str, Any]:
    """What rows depend on besides the network, by name; JSON values."""
    table = None if covariates is None else hashlib.sha256(covariates.to_csv().encode()).hexdigest()
    return {
        "read options": json.dumps(dict(read_options), sort_keys=True),
        "covariates": table,
        "missing covariates": missing_covariates,
        "version of the package": __version__,
    }
