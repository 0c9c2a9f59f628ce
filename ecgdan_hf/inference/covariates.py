"""Columns of a table -> the covariates of a survival model, by names that state the rule.

A model stores only names, so a name carries its rule: `age` is a column of numbers, `smoking=current` is 1
where the column `smoking` says current, and `bmi?` is 1 where `bmi` is missing. `sex` may be "male" (1) or "female"
(0).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.data.record import EcgRecord

SEX_VALUES = {"male": 1.0, "female": 0.0}
MISSING = ("mean", "indicator", "refuse")
"""Treatment of a missing value: the training mean, the mean and an indicator column, or an error."""
MAX_LEVELS = 20


def source_columns(names: Sequence[str]) -> list[str]:
    """Returns the columns of the table that these covariates need.

    >>> source_columns(["age", "bmi", "bmi?", "smoking=never"])
    ['age', 'bmi', 'smoking']
    """
    return list(dict.fromkeys(_parsed(name)[0] for name in names))


def is_rule(name: str) -> bool:
    """Whether a name is a rule and not a column."""
    return "=" in name or name.endswith("?")


def expand_covariates(table: pd.DataFrame, columns: Sequence[str], missing: str = "mean") -> list[str]:
    """Returns the covariates that the columns become: one per level of text, and indicators of missing values.

    Args:
        table: the training records.
        columns: columns of the table. Every level of a text column but the most frequent becomes a covariate. Names
            that are rules are kept.
        missing: one of `MISSING`.

    Returns:
        Names for [`covariate_matrix`].

    Raises:
        ValueError: an unknown `missing`, a missing column, text of too many levels, or values that are missing where
            that is an error.
    """
    if missing not in MISSING:
        raise ValueError(f"missing_covariates: expected one of {', '.join(MISSING)}, got {missing!r}")
    names: list[str] = []
    for column in columns:
        if is_rule(column):
            names.append(column)
            continue
        values = _column(table, column)
        absent = int(values.isna().sum())
        if absent and missing == "refuse":
            raise ValueError(f"covariates: {column}: expected a value in every row, {absent} have none")
        names += _levels(values, column) if _is_text(values) else [column]
        if absent and missing == "indicator":
            names.append(f"{column}?")
    return names


def covariate_matrix(table: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Returns the network's covariates: (records, names), float32, NaN where unknown.

    Args:
        table: one row per record.
        names: as `config.covariate_names` has them.

    Raises:
        ValueError: a column that is missing, not numeric or infinite, or a level of a column that has numbers.
    """
    columns = [_values(table, name).to_numpy(dtype=np.float32, na_value=np.nan) for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((len(table), 0), dtype=np.float32)


def record_covariates(record: EcgRecord, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Covariates that an ECG file itself holds, such as age and sex: (1, names), NaN where unknown."""
    known = pd.DataFrame([{name: getattr(record, name, None) for name in source_columns(names)}])
    return covariate_matrix(known.where(known.notna(), np.nan), names)


def _values(table: pd.DataFrame, name: str) -> "pd.Series[float]":
    column, level = _parsed(name)
    values = _column(table, column)
    if level is None and name.endswith("?"):
        return values.isna().astype(float)
    if level is not None:
        if values.notna().any() and not _is_text(values):
            raise ValueError(f"covariates: {name}: expected text in {column}, got {values.dropna().iloc[0]!r}")
        return (values.astype(str) == level).astype(float).where(values.notna())
    numbers = pd.to_numeric(values.map(_plain), errors="coerce")
    if np.isinf(numbers).any():
        raise ValueError(f"covariates: {name}: expected finite numbers, got an infinite one")
    unusable = values[numbers.isna() & values.notna()]
    if len(unusable):
        raise ValueError(f"covariates: {name}: expected numbers, got {unusable.iloc[0]!r}")
    return numbers.astype(float)


def _column(table: pd.DataFrame, column: str) -> "pd.Series[Any]":
    if column not in table:
        raise ValueError(f"covariates: expected a column {column}, got {', '.join(map(str, table.columns))}")
    values: pd.Series[Any] = table[column]
    return values


def _parsed(name: str) -> tuple[str, str | None]:
    """Column and level of a name; the level is None for numbers and for indicators of missing values."""
    column, is_level, level = name.partition("=")
    return (column, level) if is_level else (name.removesuffix("?"), None)


def _plain(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return float(value)
    return SEX_VALUES.get(value, value) if isinstance(value, str) else value


def _is_text(values: "pd.Series[Any]") -> bool:
    return bool(pd.to_numeric(values.dropna().map(_plain), errors="coerce").isna().any())


def _levels(values: "pd.Series[Any]", column: str) -> list[str]:
    counts = values.dropna().astype(str).value_counts()
    if len(counts) > MAX_LEVELS:
        raise ValueError(f"covariates: {column}: expected numbers or at most {MAX_LEVELS} levels, got {len(counts)}")
    odd = next((level for level in counts.index if "," in level), None)
    if odd is not None:
        raise ValueError(f"covariates: {column}: expected levels without a comma, got {odd!r}")
    reference = min(counts.index[counts == counts.max()])  # ties: the first by name
    return [f"{column}={level}" for level in sorted(counts.index) if level != reference]
