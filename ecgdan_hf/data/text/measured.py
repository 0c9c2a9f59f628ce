"""Sentences that say what was measured on an ECG, and prompts that ask for it (`measured_sentences.yaml`).

A sentence is true, false or unknown of a recording by its measurements (`data.measure.table.measure_table`) alone, so
any recording can serve, without label or report. A measurement has an error; the probability that a sentence is true
of the heart is the product over its limits of

    1 / (1 + exp(-(value - limit) / tolerance))

with the sign turned for an upper limit, the errors taken as independent and logistic. Not for diagnosis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.special import expit

from ecgdan_hf.data.text.definitions import definitions_file

_PATH = Path(__file__).with_name("measured_sentences.yaml")

Limits = tuple[float, float]
"""Between which a measurement lies; infinite where there is no limit."""


@dataclass(frozen=True)
class MeasuredSentence:
    """A sentence that measurements make true or false.

    Attributes:
        name: such as `"rate_below_60"`.
        where: measurement -> the limits between which it lies, in the measurement's unit.
        wordings: the sentence, first in words, at least once with the number.
        source: where the limits are from, as a citation.
        is_any: one measurement within its limits is enough; otherwise all have to be.
    """

    name: str
    where: Mapping[str, Limits]
    wordings: tuple[str, ...]
    source: str
    is_any: bool = False

    def truth(self, table: pd.DataFrame) -> np.ndarray:
        """(records,): 1.0 true, 0.0 false, NaN where what was not measured could decide it.

        Raises ValueError if the table lacks one of the measurements.
        """
        holds = np.stack([_within(_column(table, name), limits) for name, limits in self.where.items()])
        return self._combined(holds)

    def probability(self, table: pd.DataFrame) -> np.ndarray:
        """(records,): probability that it is true given the errors of measurement; NaN as in [`truth`]."""
        tolerance = {name: float(about["tolerance"]) for name, about in measurements().items()}
        parts = [
            expit((value - low) / tolerance[name]) * expit((high - value) / tolerance[name])
            for name, (low, high) in self.where.items()
            for value in [_column(table, name)]
        ]
        return np.where(np.isnan(self.truth(table)), np.nan, self._combined(np.stack(parts)))

    def _combined(self, parts: np.ndarray) -> np.ndarray:
        """Over measurements, (measurements, records) of 0 to 1: all, or any; an unknown part counts if it decides."""
        if self.is_any:
            return 1.0 - _all(1.0 - parts)
        return _all(parts)


@cache
def measured_sentences() -> dict[str, MeasuredSentence]:
    """Returns the sentences by name, in the order of the file."""
    sources = definitions_file()["sources"]
    return {
        name: MeasuredSentence(
            name,
            {measurement: _limits(limits) for measurement, limits in entry["where"].items()},
            tuple(entry["wordings"]),
            sources[entry["source"]],
            bool(entry.get("any", False)),
        )
        for name, entry in _file()["sentences"].items()
    }


def measured_truth(table: pd.DataFrame) -> pd.DataFrame:
    """Returns what is true of each recording: columns are the sentences, 1.0, 0.0, or NaN where it is not known.

    Args:
        table: the columns of `measure_table`.

    Raises:
        ValueError: a measurement is missing from the table.
    """
    columns = {name: sentence.truth(table) for name, sentence in measured_sentences().items()}
    return pd.DataFrame(columns, index=table.index)


def exact_sentences(measured: Mapping[str, Any] | pd.Series) -> dict[str, str]:
    """Returns "heart rate 47 beats per minute" and the like for each measurement of a record that has a sentence."""
    exact = {name: about["exact"] for name, about in measurements().items() if about["exact"]}
    known = {name: float(measured[name]) for name in exact if name in measured and pd.notna(measured[name])}
    return {name: exact[name].format(value) for name, value in known.items()}


def measurements() -> dict[str, dict[str, Any]]:
    """Measurement -> `names` in prompts, `exact` sentence, `tolerance`."""
    found: dict[str, dict[str, Any]] = _file()["measurements"]
    return found


@cache
def _file() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(_PATH.read_text(encoding="utf-8"))
    return content


def _limits(limits: Mapping[str, float]) -> Limits:
    return float(limits.get("above", -np.inf)), float(limits.get("below", np.inf))


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    if name not in table:
        raise ValueError(f"table: expected the measurements of measure_table, missing {name}")
    return table[name].to_numpy(dtype=np.float64, na_value=np.nan)


def _within(values: np.ndarray, limits: Limits) -> np.ndarray:
    low, high = limits
    inside = (values >= low) & (values < high)
    return np.where(np.isnan(values), np.nan, inside)


def _all(parts: np.ndarray) -> np.ndarray:
    """Product over the first axis; 0 if a known part is 0, else NaN with an unknown one."""
    product = np.where(np.isnan(parts), 1.0, parts).prod(axis=0)
    return np.where(np.isnan(parts).any(axis=0) & (product > 0), np.nan, product)
