"""Columns of a table or ECG files -> the covariates of a survival model; `model.covariates_ecgdan` has the grammar."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from wrapt import lazy_import

from ecgdan_hf.data.prepared.record_file import RecordFile, Recording
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.covariates_ecgdan import Covariate

if TYPE_CHECKING:
    import pandas as pd
else:  # slow to import, and not needed for most files
    pd = lazy_import("pandas")

_MISSING = ("mean", "indicator", "refuse")
_MAX_LEVELS = 20
_FROM_FILE = ("age", "sex")
_SUFFIXES = frozenset((
    ".csv", ".dat", ".dcm", ".ecg", ".edf", ".h5", ".hdf5", ".hea", ".mat", ".mfer", ".mwf", ".npy", ".npz",
    ".parquet", ".scp", ".txt", ".xml", ".zip",
))  # fmt: skip
"""Others may be part of a record's name, such as `visit.2`."""
_Key = tuple[str, ...]


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
    def expanded(cls, table: "pd.DataFrame", columns: Sequence[str], missing: str = "mean") -> "Covariates":
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

    @property
    def columns_of_names(self) -> list[str]:
        """For each covariate the column it is made of."""
        return [Covariate(name).column for name in self.names]

    def matrix(self, table: "pd.DataFrame") -> npt.NDArray[np.float32]:
        """Returns the network's covariates: (records, names), NaN where unknown.

        Raises:
            ValueError: a column that is missing, not numeric or infinite, or a level of a column that has numbers.
        """
        columns = [_values(table, name).to_numpy(dtype=np.float32, na_value=np.nan) for name in self.names]
        return np.stack(columns, axis=1) if columns else np.empty((len(table), 0), dtype=np.float32)

    def of_record(self, record: EcgRecord) -> npt.NDArray[np.float32]:
        """Covariates that an ECG file itself holds, such as age and sex: (1, names), NaN where unknown."""
        said = {name: getattr(record, name, None) for name in self.columns}
        known = {name: value for name, value in said.items() if value is not None}
        return np.array([[Covariate(name).value(known) for name in self.names]], dtype=np.float32)


def _values(table: "pd.DataFrame", name: str) -> "pd.Series[float]":
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


def _column(table: "pd.DataFrame", column: str) -> "pd.Series[Any]":
    if column not in table:
        raise ValueError(f"covariates: expected a column {column}, got {', '.join(map(str, table.columns))}")
    values: pd.Series[Any] = table[column]
    return values


def _numbers(values: "pd.Series[Any]") -> "pd.Series[float]":
    return values.map(lambda value: Covariate.number(value, str(values.name))).astype(float)


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


class FileCovariates:
    """Covariates of ECG files: from a table, else age and sex from the file itself.

    A row of the table belongs to the files whose path, without suffix, is or ends with its `file` or `record_id`, as
    `records/00001` does in `my-ecgs/records/00001.hea`: a record id is the path below its folder.

    Args:
        config: of the model.
        table: `file` or `record_id`, and the model's covariates by their columns; None without a table.
        missing: "refuse", or "mean": the training mean stands for an unknown value, and the file is flagged.

    Raises:
        ValueError: another `missing`, a table without a column that is needed, or two rows of one record.
    """

    def __init__(self, config: Any, table: "pd.DataFrame | None" = None, missing: str = "refuse") -> None:
        if missing not in ("refuse", "mean"):
            raise ValueError(f"missing_covariates: expected refuse or mean, got {missing!r}")
        self.taken, self.missing = Covariates.of(config), missing
        self.values: dict[_Key, npt.NDArray[np.float32]] = {}
        if table is None or not self.taken.names:
            return
        column = next((name for name in ("file", "record_id") if name in table), None)
        if column is None:
            found = ", ".join(map(str, table.columns))
            raise ValueError(f"covariates: expected a column file or record_id, got {found}")
        keys = [_key(str(value)) for value in table[column]]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"covariates: expected one row per file, found {'/'.join(twice)} more than once")
        self.values = dict(zip(keys, self.taken.matrix(table), strict=True))

    def check_some_match(self, files: Iterable[Recording]) -> None:
        """Raises a ValueError where the table has no row for any of the files."""
        files = list(files)
        if self.values and files and all(self._row(file) is None for file in files):
            row = "/".join(next(iter(self.values)))
            raise ValueError(
                f"covariates: expected rows for {files[0]} and the other files, found none; a row is matched by the "
                f"path without its suffix, or the end of it; the first row is {row}"
            )

    def of(self, file: Recording, record: EcgRecord) -> tuple[npt.NDArray[np.float32] | None, list[str]]:
        """Returns the covariates of a file, (names,), and a flag for each that is unknown.

        They are None for a model without covariates. What the table leaves empty is taken from the file.

        Raises:
            ValueError: a covariate that is unknown, where that is refused.
        """
        if not self.taken.names:
            return None, []
        values, own = self._row(file), self.taken.of_record(record)[0]
        values = own if values is None else np.where(np.isnan(values) & self._in_files, own, values)
        unknown = list(dict.fromkeys(np.array(self.taken.columns_of_names)[np.isnan(values) & ~self._told].tolist()))
        if unknown and self.missing == "refuse":
            raise ValueError(
                f"{file}: covariates: expected {', '.join(unknown)}, which the model was trained with, found none; "
                "give a table with --covariates, or --missing-covariates mean to predict at the training mean"
            )
        return values, [f"covariate_{name}_unknown" for name in unknown]

    @property
    def _in_files(self) -> npt.NDArray[np.bool_]:
        """Covariates that a file may state itself, (names,)."""
        return np.array([name in _FROM_FILE for name in self.taken.names])

    @property
    def _told(self) -> npt.NDArray[np.bool_]:
        """Covariates whose absence the model has learned as an indicator, (names,)."""
        return np.array([f"{column}?" in self.taken.names for column in self.taken.columns_of_names])

    def _row(self, file: Recording) -> npt.NDArray[np.float32] | None:
        """The row with the longest name that the path, or the id of a record of a source, ends with."""
        named = file.record_id or file.file if isinstance(file, RecordFile) else file
        for path in (_key(named), _key(Path(named).resolve())):
            for start in range(len(path)):
                if path[start:] in self.values:
                    return self.values[path[start:]]
        return None


def _key(file: str | Path) -> _Key:
    """Parts of a path without its suffix; those of a WFDB header, of its data file and of its stem are the same."""
    path = Path(file)
    path = path.resolve() if ".." in path.parts else path
    known = path.suffix.lower() in _SUFFIXES
    return (path.with_suffix("") if known else path).parts
