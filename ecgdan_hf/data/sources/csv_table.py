"""The user's tables: a CSV of ECG files, and a CSV of outcomes to join to any source.

Errors name the file, the record of the row and what was expected.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.data.sources.hospital_tables import endpoint_pairs, read_hospital_table, with_times
from ecgdan_hf.files import whole_file
from ecgdan_hf.model.covariates_ecgdan import SEXES

logger = logging.getLogger(__name__)

TABLE_NAME = "table.csv"


def read_csv_table(data_dir: str | Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Reads a table of files, in any form that `hospital_tables` reads.

    Args:
        data_dir: the CSV, or the folder that has it as `table.csv`. Columns: `file` (relative to the CSV) and
            `patient_id`; optional `record_id` (else the file without suffix), `age` (years), `sex` (male, female,
            m, f, w), `fold`, `report`, `scp_codes`, `labels` (names separated by `;`), `event` with `time`
            (years) and `entry`, `sampling_rate`, `unit` and `lead_names` (separated by `;`) for files that do not
            state them, and `median_file` (relative to the CSV), a WFDB record with the median beat. Further columns
            are kept.
        columns: name here -> name in the table, for columns of other names.

    Returns:
        The table, with absolute `file` and `median_file` and lists in `labels`; `table.attrs["label_names"]` has all
        names, sorted.
    """
    path = Path(data_dir)
    path = path / TABLE_NAME if path.is_dir() else path
    raw = with_times(read_hospital_table(path, columns), path, keep_blank=True)
    _require(raw, ["file", "patient_id"], path)
    _check_present(raw, path)
    table = raw.copy()
    table["file"] = [str(path.parent / name) for name in raw["file"]]
    if "median_file" in raw:
        table["median_file"] = [None if pd.isna(name) else str(path.parent / name) for name in raw["median_file"]]
    if "record_id" not in raw:
        table["record_id"] = [Path(name).with_suffix("").as_posix() for name in raw["file"]]
    _check_ids(table, path)
    _check_subject(table, path)
    if "labels" in raw:
        table["labels"] = [_split(value) for value in raw["labels"]]
        table.attrs["label_names"] = sorted({name for names in table["labels"] for name in names})
    if "event" in raw or "time" in raw:
        known = table[table[["event", "time"]].notna().any(axis=1)] if {"event", "time"} <= set(raw) else table
        _check_outcomes(known, path)
        table = table.astype({"event": int if len(known) == len(table) else float, "time": float})
        table = table.astype({"entry": float} if "entry" in table else {})
    elif pairs := endpoint_pairs(table):
        _with_endpoints(table, pairs, path)
    first = ["record_id", "patient_id", "file"]
    return table[[*first, *(column for column in table.columns if column not in first)]]


def read_synthetic(data_dir: Path) -> pd.DataFrame:
    """The synthetic cohort in a folder; writes it first if the folder is missing or empty."""
    if not data_dir.exists() or not any(data_dir.iterdir()):
        synthetic.write_cohort(data_dir)
    return read_csv_table(data_dir)


def read_outcomes(source: str | Path | pd.DataFrame, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Reads and checks a table of outcomes, in any form that `hospital_tables` reads; a data frame is only checked.

    Columns: `record_id`, `event` (1 happened, 0 censored, 2, 3, ... what competes with it happened first), `time`
    (years since the ECG), and `entry` where observation began later (in the unit of `time`, 0 or more and before it);
    others are kept. In the place of `time`: `time_days` or `time_months`; in that of both: the dates `ecg_date`,
    `event_date` and `last_contact`; in that of `entry`: `entry_date`.
    For several endpoints, in the place of `event` and `time`: `event_NAME` and `time_NAME` (years) of each, both blank
    where its follow-up is not known.
    Rows without event and time are left out. `columns`: name here -> name in the table. `attrs["understood"]` says
    what was understood.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing, an id is repeated, a time is not a number above zero, an entry is not before
            it, an event is no such code, or there is no event at all.
    """
    if isinstance(source, pd.DataFrame):
        if (pairs := endpoint_pairs(source)) and "event" not in source:
            return _with_endpoints(source, pairs, "outcomes")
        _check_outcomes(source, "outcomes")
        return source
    path = Path(source)
    outcomes = with_times(read_hospital_table(path, columns), path)
    if (pairs := endpoint_pairs(outcomes)) and "record_id" in outcomes and "event" not in outcomes:
        _check_ids(outcomes, path)
        return _with_endpoints(outcomes, pairs, path)
    absent = [name for name in ("record_id", "event", "time") if name not in outcomes]
    if absent:
        raise ValueError(
            f"{path}: expected a column {absent[0]}, got {', '.join(map(str, outcomes.columns[:12]))}; columns of "
            f"other names: ecgdan data outcomes {path.name} --out outcomes.csv --columns "
            f"{','.join(f'{name}=NAME' for name in absent)}"
        )
    _check_ids(outcomes, path)
    _check_outcomes(outcomes, path)
    return outcomes.astype({"event": int, "time": float, **({"entry": float} if "entry" in outcomes else {})})


def with_deaths(outcomes: pd.DataFrame, deaths: pd.DataFrame, source: str = "deaths") -> pd.DataFrame:
    """Outcomes in which a death that came first is a competing event, code 2, at its time.

    A death after the end of the outcome's own follow-up stays unused: what happened in between is not known.

    Args:
        outcomes: `record_id`, `event` (1 happened, 0 censored), `time` (years), as `read_outcomes` gives them.
        deaths: `record_id`, `event` (1 died, 0 or missing: not known to have died), `time`; other records are ignored.
        source: what the deaths come from, for messages.

    Raises:
        ValueError: a column is missing, outcomes that have competing events already, or no death among the records.
    """
    _require(deaths, ["record_id", "event", "time"], source)
    if (outcomes["event"] > 1).any():
        raise ValueError(f"{source}: the outcomes have competing events already, code {int(outcomes['event'].max())}")
    died = deaths[deaths["event"] == 1].drop_duplicates("record_id")
    times = pd.Series(died["time"].to_numpy(dtype=float), index=died["record_id"].astype(str))
    keys = outcomes["record_id"].astype(str)
    at = with_zeros(keys, deaths["record_id"].astype(str)).map(times)
    first = (at < outcomes["time"]) | ((at <= outcomes["time"]) & (outcomes["event"] == 0))
    if not first.any():
        raise ValueError(f"{source}: expected deaths during the follow-up of {len(outcomes)} records, got none")
    found = outcomes.assign(event=outcomes["event"].where(~first, 2), time=outcomes["time"].where(~first, at))
    if "entry" in found:
        _check_entry(found, found["time"], source)
    return found


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Writes a table or outcomes as CSV, whole or not at all; `labels` are joined by `;`."""
    if "labels" in table:
        table = table.assign(labels=table["labels"].map(";".join))
    with whole_file(path) as part:
        table.to_csv(part, index=False)


def _check_outcomes(table: pd.DataFrame, source: str | Path) -> None:
    """Rejects `event` and `time` that a survival model cannot use."""
    _require(table, ["event", "time"], source)
    time = pd.to_numeric(table["time"], errors="coerce")
    _refuse(table, ~(np.isfinite(time) & (time > 0)), "time", "years since the ECG, a number above zero", source)
    event = pd.to_numeric(table["event"].map(lambda value: int(value) if isinstance(value, bool) else value), "coerce")
    known = (event >= 0) & (event % 1 == 0)
    _refuse(table, ~known, "event", "1 (happened), 0 (censored) or 2, 3, ... (a competing event)", source)
    if not (event == 1).any():
        raise ValueError(f"{source}: event: expected at least one event, got none in {len(table)} rows")
    if "entry" in table:
        _check_entry(table, time, source)


def _with_endpoints(table: pd.DataFrame, names: Sequence[str], source: str | Path) -> pd.DataFrame:
    """The rows in which the follow-up of some endpoint is known, with checked pairs of event and time."""
    table = table.copy()
    for name in names:
        event, time = f"event_{name}", f"time_{name}"
        half = table[event].isna() != table[time].isna()
        _refuse(table, half, event, f"a value where {time} has one, and none where it has none", source)
        known = table[table[event].notna()]
        renamed = known.rename(columns={"event": "_", "time": "_", event: "event", time: "time"})
        try:
            _check_outcomes(renamed, source)
        except ValueError as error:
            raise ValueError(f"{error} (endpoint {name})") from error
        _refuse(renamed, renamed["event"].astype(float) > 1, "event", f"0 or 1 of endpoint {name}", source)
        table = table.astype({event: float, time: float})
    followed = table[[f"event_{name}" for name in names]].notna().any(axis=1)
    return table[followed].reset_index(drop=True)


def _check_entry(table: pd.DataFrame, time: "pd.Series[float]", source: str | Path) -> None:
    """Rejects an `entry` that is not before the end of follow-up."""
    entry = pd.to_numeric(table["entry"], errors="coerce")
    expected = "the start of observation, from 0 (the ECG) to before `time`"
    _refuse(table, ~((entry >= 0) & (entry < time)), "entry", expected, source)


def join_outcomes(table: pd.DataFrame, outcomes: pd.DataFrame, source: str = "outcomes") -> pd.DataFrame:
    """Adds `event` and `time` to a table, by `record_id`; returns the records with an outcome, in table order.

    `outcomes` (from `read_outcomes`, the file `source`) may cover only some of the records, such as a cohort;
    `attrs["without_outcome"]` of the result counts the others. A `patient_id` replaces that of the table; further
    columns are added. Raises ValueError for an outcome without its record, or repeated ids.
    """
    for frame, name in ((table, "table"), (outcomes, source)):
        _check_ids(frame, name)
    keys = with_zeros(outcomes["record_id"].astype(str), table["record_id"].astype(str))
    changed = int((keys != outcomes["record_id"].astype(str)).sum())
    if changed:
        logger.warning("%s: %d ids are in the data with leading zeros, which the table lacks", source, changed)
    unmatched = keys[~keys.isin(table["record_id"].astype(str))]
    if len(unmatched):
        raise ValueError(
            f"{source}: record_id: {len(unmatched)} of {len(keys)} ids are not in the data: {_some(unmatched)}"
        )
    replaced = {*outcomes.columns, "entry"} - {"record_id"}  # an entry belongs to its outcome
    if "event" not in outcomes:  # endpoints in its place
        replaced |= {"event", "time"}
    kept = [column for column in table.columns if column not in replaced]
    joined = table[kept].merge(outcomes.assign(record_id=keys), on="record_id", how="inner", validate="one_to_one")
    if "sex" in outcomes.columns and not pd.api.types.is_numeric_dtype(joined["sex"]):
        joined["sex"] = _known_sex(joined, source)
    joined.attrs = {**table.attrs, "without_outcome": len(table) - len(joined)}
    return joined


def with_zeros(keys: "pd.Series[str]", ids: "pd.Series[str]") -> "pd.Series[str]":
    """Ids of outcomes with the leading zeros that they have in the data, where a spreadsheet dropped them.

    Nothing changes if ids of the data or of the outcomes differ in their zeros alone.
    """
    bare = pd.Series(ids.to_numpy(), index=ids.str.lstrip("0"))
    found = keys.str.lstrip("0")
    if bare.index.has_duplicates or found.duplicated().any():
        return keys
    return keys.where(keys.isin(ids), found.map(bare).fillna(keys))


def _require(table: pd.DataFrame, columns: Sequence[str], source: str | Path) -> None:
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise ValueError(f"{source}: expected a column {absent[0]}, got {', '.join(map(str, table.columns))}")


def _check_present(table: pd.DataFrame, source: str | Path) -> None:
    for column in ("record_id", "patient_id", "file"):
        if column in table and table[column].isna().any():
            row = int(np.flatnonzero(table[column].isna())[0]) + 2  # the first line is the header
            raise ValueError(f"{source}: {column}: expected a value in each row, got none in line {row}")


def _check_ids(table: pd.DataFrame, source: str | Path) -> None:
    _check_present(table, source)
    twice = table["record_id"][table["record_id"].duplicated()]
    if len(twice):
        raise ValueError(f"{source}: record_id: expected each record once, got more than one of {_some(twice)}")


def _check_subject(table: pd.DataFrame, path: Path) -> None:
    if "age" in table:
        age = pd.to_numeric(table["age"], errors="coerce")
        bad = (age.isna() & table["age"].notna()) | (age < 0) | (age > 130)
        _refuse(table, bad, "age", "years from 0 to 130, or nothing", path)
        table["age"] = age.astype(float)
    if "sex" in table:
        table["sex"] = _known_sex(table, path)
    if "fold" in table:
        fold = pd.to_numeric(table["fold"], errors="coerce")
        _refuse(table, fold.isna() | (fold % 1 != 0), "fold", "a whole number", path)
        table["fold"] = fold.astype(int)


def _known_sex(table: pd.DataFrame, source: str | Path) -> "pd.Series[Any]":
    """The column `sex` in the words male and female, None where it is empty."""
    known = table["sex"].map(lambda value: SEXES.get(str(value).strip().lower()))
    _refuse(table, known.isna() & table["sex"].notna(), "sex", "male or female", source)
    return known.astype(object).where(known.notna(), None)


def _refuse(table: pd.DataFrame, bad: pd.Series, column: str, expected: str, source: str | Path) -> None:
    if bad.any():
        row = table[bad.to_numpy()].iloc[0]
        more = f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""
        raise ValueError(
            f"{source}: {column} of record {row['record_id']}: expected {expected}, got {row[column]}{more}"
        )


def _split(value: object) -> list[str]:
    if not isinstance(value, str):
        return []
    return list(dict.fromkeys(name.strip() for name in value.split(";") if name.strip()))


def _some(ids: pd.Series) -> str:
    return ", ".join(map(str, ids[:3])) + (", ..." if len(ids) > 3 else "")
