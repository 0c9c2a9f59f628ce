"""Columns of a table -> the covariates of a survival model; `model.covariates_ecgdan` has the grammar."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.covariates_ecgdan import Covariate

_MISSING = ("mean", "indicator", "refuse")
_MAX_LEVELS = 20


class Covariates:
    """The covariates of a model, by their names; see [`Covariate`].

    >>> Covariates(["age", "bmi", "bmi?", "smoking=never"]).columns
    ['age', 'bmi', 'smoking']
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)

    @classmethod
    def of(cls, config: Any) -> "Covariates":
        """Covariates that a model takes besides the ECG; none for all but survival models."""
        return cls(getattr(config, "covariate_names", ()))

    @classmethod
    def expanded(cls, table: pd.DataFrame, columns: Sequence[str], missing: str = "mean") -> "Covariates":
        """Returns the covariates that columns of the training records become.

        Every level of a text column but the most frequent becomes a covariate. Names that are rules are kept.

        Args:
            table: the training records.
            columns: columns of the table, or rules.
            missing: treatment of missing values: "mean" (of the training records), "indicator" (the mean, and a
                covariate that is 1 where the value is missing) or "refuse".

        Raises:
            ValueError: an unknown `missing`, a missing column, text of too many levels, or values that are missing
                where that is refused.
        """
        if missing not in _MISSING:
            raise ValueError(f"missing_covariates: expected one of {', '.join(_MISSING)}, got {missing!r}")
        names: list[str] = []
        for column in columns:
            if Covariate(column).is_rule:
                names.append(column)
                continue
            values = _column(table, column)
            absent = int(values.isna().sum())
            if absent and missing == "refuse":
                raise ValueError(f"covariates: {column}: expected a value in every row, {absent} have none")
            names += _levels(values, column) if _is_text(values) else [column]
            if absent and missing == "indicator":
                names.append(f"{column}?")
        return cls(names)

    @property
    def columns(self) -> list[str]:
        """Columns of the table that these covariates need."""
        return list(dict.fromkeys(Covariate(name).column for name in self.names))

    def matrix(self, table: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Returns the network's covariates: (records, names), NaN where unknown.

        Raises:
            ValueError: a column that is missing, not numeric or infinite, or a level of a column that has numbers.
        """
        columns = [_values(table, name).to_numpy(dtype=np.float32, na_value=np.nan) for name in self.names]
        return np.stack(columns, axis=1) if columns else np.empty((len(table), 0), dtype=np.float32)

    def of_record(self, record: EcgRecord) -> npt.NDArray[np.float32]:
        """Covariates that an ECG file itself holds, such as age and sex: (1, names), NaN where unknown."""
        known = pd.DataFrame([{name: getattr(record, name, None) for name in self.columns}])
        return self.matrix(known.where(known.notna(), np.nan))


def _values(table: pd.DataFrame, name: str) -> "pd.Series[float]":
    rule = Covariate(name)
    values = _column(table, rule.column)
    if rule.is_indicator:
        return values.isna().astype(float)
    if rule.level is not None:
        if values.notna().any() and not _is_text(values):
            raise ValueError(f"covariates: {name}: expected text in {rule.column}, got {values.dropna().iloc[0]!r}")
        return (values.astype(str) == rule.level).astype(float).where(values.notna())
    numbers = _numbers(values)
    if np.isinf(numbers).any():
        raise ValueError(f"covariates: {name}: expected finite numbers, got an infinite one")
    unusable = values[numbers.isna() & values.notna()]
    if len(unusable):
        raise ValueError(f"covariates: {name}: expected numbers, got {unusable.iloc[0]!r}")
    return numbers


def _column(table: pd.DataFrame, column: str) -> "pd.Series[Any]":
    if column not in table:
        raise ValueError(f"covariates: expected a column {column}, got {', '.join(map(str, table.columns))}")
    values: pd.Series[Any] = table[column]
    return values


def _numbers(values: "pd.Series[Any]") -> "pd.Series[float]":
    return values.map(Covariate.number).astype(float)


def _is_text(values: "pd.Series[Any]") -> bool:
    return bool(_numbers(values.dropna()).isna().any())


def _levels(values: "pd.Series[Any]", column: str) -> list[str]:
    counts = values.dropna().astype(str).value_counts()
    if len(counts) > _MAX_LEVELS:
        raise ValueError(f"covariates: {column}: expected numbers or at most {_MAX_LEVELS} levels, got {len(counts)}")
    odd = next((level for level in counts.index if "," in level), None)
    if odd is not None:
        raise ValueError(f"covariates: {column}: expected levels without a comma, got {odd!r}")
    reference = min(counts.index[counts == counts.max()])  # ties: the first by name
    return [f"{column}={level}" for level in sorted(counts.index) if level != reference]
