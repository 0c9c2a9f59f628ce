"""Tables of outcomes, covariates and files as hospitals have them: Excel, `;`, decimal commas, dates, own names.

Everything that reads a table of the user ends here. What was understood is in `attrs["understood"]`, line by line.
Columns of other names are given explicitly, never guessed.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.readers.dates import parse_dates
from ecgdan_hf.data.readers.messages import one_line
from ecgdan_hf.data.readers.tables import decoded
from ecgdan_hf.data.readers.worksheet import is_workbook, read_sheet

TEXT_COLUMNS = ("record_id", "patient_id", "file", "median_file")
DATE_COLUMNS = ("ecg_date", "event_date", "last_contact", "entry_date")
_YEARS_PER = {"time_years": 1.0, "time_months": 1 / 12, "time_days": 1 / 365.25}
_SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?|[-+]?\.\d+|[-+]?\d*,\d+")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(\.\d{3})+,\d+|[-+]?\d{1,3}(,\d{3})+\.\d+")
_YES, _NO = ("yes", "ja", "s\u00ed", "si", "oui"), ("no", "nein", "non")
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"
_MAX_MEDIAN_YEARS = 30.0  # of follow-up; above, days or months
_MAX_WHOLE_MEDIAN = 12.0  # of follow-up in whole numbers, as months are counted
_MANY_ROWS = 20  # of which whole numbers are no chance
_SHOWN = 3


def parse_mapping(text: str | None) -> dict[str, str]:
    """`record_id=EKG-Nr,event=Ereignis` -> names of columns here and in the table; raises ValueError."""
    names: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        ours, found, theirs = (word.strip() for word in part.partition("="))
        if not (ours and found and theirs) or ours in names:
            raise ValueError(f"columns: expected names as record_id=EKG-Nr,event=Ereignis, got {text!r}")
        names[ours] = theirs
    return names


def read_hospital_table(
    path: Path, columns: Mapping[str, str] | None = None, text_columns: Sequence[str] = TEXT_COLUMNS
) -> pd.DataFrame:
    """Reads a table with its names, blanks as NaN; columns of numbers are numbers, ids stay text.

    Args:
        path: text (UTF-8, UTF-16 or Latin-1; commas, semicolons, tabs or bars) or an .xlsx,
            of which the first visible sheet with rows is read.
        columns: name here -> name in the table, for columns of other names.
        text_columns: those that stay text, with leading zeros.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged table, one without rows, a name twice, or a mapping of a column that is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    rows, form = _rows(path)
    names = _renamed([name.strip() for name in rows[0]], columns or {}, path) if rows else []
    body = [row for row in rows[1:] if any(row)]
    if not body:
        raise ValueError(f"{path}: expected rows below the column names, got none")
    width = len(names)
    wide = next((i for i, row in enumerate(body) if any(row[width:])), None)
    if wide is not None:
        raise ValueError(f"{path}: not a readable CSV: expected {width} fields in row {wide + 2}, saw more")
    body = [(row + [""] * (width - len(row)))[:width] for row in body]
    commas = _decimal_commas(body, names, text_columns, path)
    table = _typed(names, body, {name: str for name in names if name in (*text_columns, *DATE_COLUMNS)}, path)
    used = [f"{theirs} as {ours}" for ours, theirs in (columns or {}).items()]
    table.attrs["understood"] = [
        f"{form}, {len(table)} rows, columns {', '.join(names[:12])}{', ...' if width > 12 else ''}",
        *([f"decimal commas in {', '.join(commas)}"] if commas else []),
        *([f"read {', '.join(used)}"] if used else []),
    ]
    return table


def with_times(table: pd.DataFrame, path: str | Path, keep_blank: bool = False) -> pd.DataFrame:
    """The outcomes with `event` (0 or 1) and `time` (years), from dates or other units where the table has those.

    Rows without any outcome are left out, or kept if `keep_blank`. `time_days` and `time_months` become years, and
    `entry` with them; `ecg_date` with `event_date` and `last_contact` become `event` and `time`, and `entry_date`
    `entry`, 0 where observation began before the ECG.

    Raises ValueError for dates that cannot be read or lie before the ECG, and for follow-up that looks like days or
    months in a column called `time`.
    """
    understood = list(table.attrs.get("understood", ()))
    table = table.copy()
    if "ecg_date" in table and "time" not in table:
        table = _from_dates(table, path, understood)
    other = next((name for name in _YEARS_PER if name in table), None)
    if other is not None and "time" not in table:
        table["time"] = table[other].map(lambda value: value * _YEARS_PER[other] if _is_number(value) else value)
        if "entry" in table:
            table["entry"] = table["entry"].map(
                lambda value: value * _YEARS_PER[other] if _is_number(value) else value
            )
        understood.append(f"time{' and entry' if 'entry' in table else ''} in years from {other}")
    if "event" in table and "time" in table:
        blank = table["event"].isna() & table["time"].isna()
        if blank.any() and not blank.all() and not keep_blank:
            understood.append(f"{int(blank.sum())} rows without an outcome left out")
            table = table[~blank].reset_index(drop=True)
        table["event"] = _yes_or_no(table["event"])
        if other is None:
            _check_years(table["time"], path)
    for name in endpoint_pairs(table):
        table[f"event_{name}"] = _yes_or_no(table[f"event_{name}"])
        _check_years(table[f"time_{name}"], path, f"time_{name}")
    table.attrs["understood"] = understood
    return table


def _rows(path: Path) -> tuple[list[list[str]], str]:
    """The rows of a table, and its form in words."""
    content = path.read_bytes()
    if is_workbook(content):
        return read_sheet(path)
    if content.startswith(_OLD_EXCEL):
        raise ValueError(f"{path}: expected a table, got an Excel workbook of 2003 or older; save it as .xlsx or .csv")
    text = decoded(content)
    if text is None:
        found = "an empty file" if not content else "a file that is no text"
        raise ValueError(f"{path}: expected a table (.csv, .tsv, .xlsx) with rows below the column names, got {found}")
    first = next((line for line in text.splitlines() if line.strip()), "")
    counts = {mark: len(next(csv.reader([first], delimiter=mark), [])) for mark in _SEPARATORS}
    mark = max(counts, key=counts.__getitem__) if max(counts.values()) > 1 else ","
    try:
        read = csv.reader(StringIO(text), delimiter=mark, skipinitialspace=True, strict=True)
        return [[word.strip() for word in row] for row in read if any(map(str.strip, row))], _SEPARATORS[mark]
    except csv.Error as error:
        raise ValueError(f"{path}: not a readable CSV: {one_line(error)}") from error


def _renamed(names: list[str], columns: Mapping[str, str], path: Path) -> list[str]:
    for ours, theirs in columns.items():
        if theirs not in names:
            raise ValueError(f"{path}: columns: expected a column {theirs} (for {ours}), got {', '.join(names)}")
        if ours in names and ours != theirs:
            raise ValueError(f"{path}: columns: {theirs} is given as {ours}, and the table has a column {ours} too")
    own = {theirs: ours for ours, theirs in columns.items()}
    renamed = [own.get(name, name) for name in names]
    while len(renamed) > 1 and not renamed[-1]:  # Excel writes empty columns behind
        renamed.pop()
    twice = next((name for name, count in Counter(renamed).items() if count > 1 and name), None)
    if twice is not None:
        raise ValueError(f"{path}: expected each column once, got {twice} more than once")
    return renamed


def _decimal_commas(body: list[list[str]], names: list[str], text: Sequence[str], path: Path) -> list[str]:
    """Writes columns of numbers with decimal commas with points, in place; returns their names."""
    found = []
    for column, name in enumerate(names):
        words = [row[column] for row in body if row[column]]
        if name in text or not any(_DECIMAL_COMMA.fullmatch(word) for word in words):
            continue
        thousands = next((word for word in words if _THOUSANDS.fullmatch(word)), None)
        if thousands is not None:
            raise ValueError(f"{path}: column {name}: expected numbers without marks of thousands, got {thousands}")
        if all(_NUMBER.fullmatch(word) for word in words):
            found.append(name)
            for row in body:
                row[column] = row[column].replace(",", ".")
    return found


def _typed(names: list[str], body: list[list[str]], dtype: dict[str, type], path: Path) -> pd.DataFrame:
    buffer = StringIO()
    csv.writer(buffer).writerows([names, *body])
    buffer.seek(0)
    try:
        return pd.read_csv(buffer, dtype=dtype, keep_default_na=True)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: not a readable CSV: {one_line(error)}") from error


def _from_dates(table: pd.DataFrame, path: str | Path, understood: list[str]) -> pd.DataFrame:
    """`event` and `time` from the date of the ECG, of the event, and of the last contact."""
    given = [name for name in DATE_COLUMNS if name in table]
    if "last_contact" not in given:
        raise ValueError(
            f"{path}: expected a column last_contact with ecg_date, to end the follow-up of those without an event; "
            f"got {', '.join(map(str, table.columns))}"
        )
    text = pd.concat([table[name] for name in given], keys=given)
    all_dates: Any = parse_dates(text, f"{path}: {' and '.join(given)}")  # one order of days and months for all
    dates = {name: all_dates[name] for name in given}
    happened = dates["event_date"].notna() if "event_date" in dates else pd.Series(False, table.index)
    end = (
        dates["event_date"].where(happened, dates["last_contact"]) if "event_date" in dates else dates["last_contact"]
    )
    if "event" in table:
        happened = pd.to_numeric(_yes_or_no(table["event"]), errors="coerce") == 1
        end = end.where(~happened | dates.get("event_date", end).notna())
    time = (end - dates["ecg_date"]).dt.days / 365.25
    with_outcome = dates["ecg_date"].notna() & end.notna()
    bad = with_outcome & ~(time > 0)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{path}: row {at + 2}: expected an end of follow-up after the ECG, got "
            f"{end.iloc[at].date()} after {dates['ecg_date'].iloc[at].date()}; leave such rows out"
        )
    understood.append(f"event and time in years from {', '.join(given)}; dates as {dates['ecg_date'].iloc[0].date()}")
    event = happened.astype(float).where(with_outcome)
    found = table.drop(columns=given).assign(event=event, time=time.where(with_outcome))
    if "entry_date" in dates:
        entry = (dates["entry_date"] - dates["ecg_date"]).dt.days / 365.25
        found["entry"] = entry.clip(lower=0).where(with_outcome)
    return found


def endpoint_pairs(table: pd.DataFrame) -> list[str]:
    """Names of the endpoints that a table has `event_NAME` and `time_NAME` of, in its order."""
    names = [str(column).removeprefix("event_") for column in table.columns if str(column).startswith("event_")]
    return [name for name in names if f"time_{name}" in table.columns]


def _check_years(time: "pd.Series[float]", path: str | Path, column: str = "time") -> None:
    """Rejects follow-up whose median is that of days or months."""
    known = pd.to_numeric(time, errors="coerce").replace(np.inf, np.nan).dropna()
    median = float(known.median()) if len(known) else 0.0
    whole = len(known) >= _MANY_ROWS and bool((known % 1 == 0).all())
    if median > _MAX_MEDIAN_YEARS or (whole and median > _MAX_WHOLE_MEDIAN):
        unit = "days" if median > 240 else "months"
        raise ValueError(
            f"{path}: {column}: expected years, got a median of {median:g}, which looks like {unit}; "
            + (f"call the column time_{unit}, or time_years if it is right" if column == "time" else "give years")
        )


def _yes_or_no(event: "pd.Series[Any]") -> "pd.Series[Any]":
    """1 and 0 for a column of nothing but `yes`, `no`, `ja`, `nein` and the like; any other column stays."""
    words = event.dropna().astype(str).str.strip().str.lower()
    if len(words) and words.isin([*_YES, *_NO]).all() and event.dtype == object:
        return words.isin(_YES).astype(int).reindex(event.index)
    return event


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
