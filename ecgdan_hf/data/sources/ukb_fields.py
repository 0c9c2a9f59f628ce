"""A table of UK Biobank's fields: dates of diagnoses, of visits and of death, sex and birth of each participant.

First-occurrence fields (category 1712) use special dates as codes (data-coding 819), as does field 42000 (272): two
mean "in the year of birth", so before the ECG; the others mean a diagnosis at an unknown time. Messages never contain
a participant's number: they name rows of the table by their line.
"""

import calendar
import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ecgdan_hf.data.readers.worksheet import is_workbook, read_sheet

DEFAULT_FIELDS = {
    "hypertension": "131286",  # first occurrence of I10
    "myocardial-infarction": "42000",  # algorithmically defined outcome
    "heart-failure": "131354",  # first occurrence of I50
    "death": "40000",
    "lost": "191",
    "date": "53",  # of attending the assessment centre
    "sex": "31",
    "birth-year": "34",
    "birth-month": "52",
    "age": "21003",
}

# 1902-02-02 (day of birth) and 1903-03-03 (year of birth) are kept: they are long before any ECG
_UNKNOWN = ("1900-01-01", "1901-01-01", "1909-09-09", "2037-07-07")
_MEANINGS = (  # in tables exported with meanings instead of codes
    ("matching participant's date of birth", "1902-02-02"),
    ("same calendar year as date of birth", "1903-03-03"),
    ("has no event date", "1900-01-01"),
    ("date is unknown", "1900-01-01"),
    ("before participant's date of birth", "1901-01-01"),
    ("in the future", "2037-07-07"),
)
_SELF_REPORTED = "42000"  # there, no date means reported at an assessment, so before any ECG
_SEX = {"0": "female", "1": "male", "female": "female", "male": "male"}
_COLUMN = re.compile(
    r"(?:participant\.)?p(\d+)(?:_i(\d+))?(?:_a(\d+))?|(?:f\.|x)?(\d+)[-._](\d+)[._](\d+)", re.IGNORECASE
)
_EID = re.compile(r"(?:participant\.|f\.|n_)?eid|participant id|encoded anonymi[sz]ed participant id", re.IGNORECASE)
_SEPARATORS = ("\t", ";", ",")
_TITLE = re.compile(r"(.+?)(?:\s*\|\s*Instance\s+(\d+))?(?:\s*\|\s*Array\s+(\d+))?", re.IGNORECASE)
_FIELD_OF = {  # titles of the showcase; first occurrences name their code: "Date I50 first reported (heart failure)"
    "date of myocardial infarction": "42000",
    "date of death": "40000",
    "date lost to follow-up": "191",
    "date of attending assessment centre": "53",
    "sex": "31",
    "year of birth": "34",
    "month of birth": "52",
    "age when attended assessment centre": "21003",
    "date i10 first reported": "131286",
    "date i21 first reported": "131298",
    "date i50 first reported": "131354",
}


class UkbFields:
    """The field ids to read: `DEFAULT_FIELDS`, with the given ones in their places.

    Several ids of a name, separated by commas, mean the first date. Raises ValueError for an unknown name or ids that
    are not numbers.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        for name, text in fields.items():
            if name not in DEFAULT_FIELDS:
                raise ValueError(f"fields: expected one of {', '.join(DEFAULT_FIELDS)}, got {name!r}")
            if not re.fullmatch(r"\d+(,\d+)*", text):
                raise ValueError(
                    f"fields: {name}: expected a field's number, or several separated by commas, got {text!r}"
                )
        self.ids = {**DEFAULT_FIELDS, **fields}

    def read(
        self,
        path: str | Path,
        participants: Iterable[str],
        conditions: Iterable[str],
        instances: Iterable[int],
    ) -> pd.DataFrame:
        """Reads the fields of these participants, indexed by their number.

        The table is text, separated by commas, semicolons or tabs, or the first visible sheet with rows of an .xlsx;
        its columns are called by numbers or titles of fields, and dates are written 2015-06-01 or 01/06/2015.

        Columns: dates (NaT if unknown) `heart-failure`, `death`, `lost` and each condition; for each disease also
        `NAME unknown` (diagnosed at an unknown time) and `NAME before` (at an unknown time before any ECG); `sex`;
        `born` (the middle of the month); `date INSTANCE` and `age INSTANCE` of each instance. See `ukb_cohort.build`
        for errors.
        """
        diseases = ("heart-failure", *conditions)
        asked_for = [name for name in self.ids if self.ids[name] != DEFAULT_FIELDS[name]]
        table = _Table(Path(path), self.ids, (*diseases, "death", *asked_for), set(participants))
        people = pd.DataFrame(index=table.eid)
        for name in diseases:
            dates = table.dates(name)
            people[name] = dates.mask(dates.isin(pd.to_datetime(_UNKNOWN))).min(axis=1)
            people[f"{name} unknown"] = dates.isin(pd.to_datetime(_UNKNOWN)).any(axis=1)
            reported = dates[[column for column in dates.columns if table.is_of(column, _SELF_REPORTED)]]
            people[f"{name} before"] = (reported == pd.Timestamp("1900-01-01")).any(axis=1)
        for name in ("death", "lost"):
            people[name] = table.dates(name).min(axis=1)
        people["sex"] = table.text("sex").str.removesuffix(".0").str.lower().map(_SEX)
        people["born"] = _born(table.text("birth-year"), table.text("birth-month"))
        for number in instances:
            people[f"date {number}"] = table.dates("date", number).min(axis=1)
            people[f"age {number}"] = pd.to_numeric(table.text("age", number), errors="coerce")
        return people


class _Table:
    """Columns of a table of fields, by the names of the fields."""

    def __init__(self, path: Path, fields: Mapping[str, str], required: Iterable[str], participants: set[str]) -> None:
        self.path, self.fields = path, fields
        names, separator = _header(path)
        eid = [name for name in names if _EID.fullmatch(name.strip())]
        if len(eid) != 1:
            raise ValueError(f"{path}: expected one column eid, participant.eid or f.eid, got {len(eid)}")
        wanted = {number for text in fields.values() for number in text.split(",")}
        self.columns = {name: key for name in names if (key := _key(name)) and key[0] in wanted}
        for name in required:
            self._check_there(name)
        _check_widths(path, separator, len(names))
        data = _read(path, separator, [eid[0], *self.columns])
        numbers = self._checked(data[eid[0]].str.removesuffix(".0"))
        wanted_rows = numbers.isin(participants)
        self.data, self.eid = data[wanted_rows], numbers[wanted_rows].tolist()  # the index is kept: it gives the line

    def _check_there(self, name: str) -> None:
        absent = set(self.fields[name].split(",")) - {field for field, _ in self.columns.values()}
        if absent:
            field = min(absent)
            raise ValueError(
                f"{self.path}: expected a column of field {field} ({name}), such as p{field} or {field}-0.0; add it, "
                f"or name another with --field {name}=ID"
            )

    def _checked(self, eid: pd.Series) -> pd.Series:
        for bad, expected in ((~eid.str.fullmatch(r"\d+"), "a number"), (eid.duplicated(), "each participant once")):
            if bad.any():
                raise ValueError(f"{self.path}: line {_line(bad)}: eid: expected {expected}")
        return eid

    def is_of(self, column: str, field: str) -> bool:
        return column in self.columns and self.columns[column][0] == field

    def text(self, name: str, instance: int | None = None) -> pd.Series:
        """The first value of a field, at an instance if one is given; empty if there is none."""
        found = self._named(name, instance)
        values = pd.Series("", index=self.data.index)
        for column in found:
            values = values.mask(values == "", self.data[column].str.strip())
        return values.set_axis(self.eid)

    def dates(self, name: str, instance: int | None = None) -> pd.DataFrame:
        """Dates of a field, one column for each of its columns; NaT if there is none."""
        found = self._named(name, instance)
        if not found:
            return pd.DataFrame({name: pd.NaT}, index=self.eid, dtype="datetime64[ns]")
        return pd.DataFrame({column: self._dates(column) for column in found}, index=self.eid)

    def _named(self, name: str, instance: int | None) -> list[str]:
        ids = self.fields[name].split(",")
        return [
            column
            for column, (field, number) in self.columns.items()
            if field in ids and (instance is None or number == instance)
        ]

    def _dates(self, column: str) -> np.ndarray:
        written = pd.Series(self.data[column].unique())  # far fewer than participants
        text = written.str.strip()
        for meaning, code in _MEANINGS:
            text = text.mask(text.str.contains(meaning, case=False, regex=False), code)
        dates = pd.to_datetime(text.str[:10], format="%Y-%m-%d", errors="coerce")
        if not written.str.match(r"\s*\d{4}-").any():  # a column is written in one way
            dates = dates.fillna(pd.to_datetime(text.str[:10], format="%d/%m/%Y", errors="coerce"))
        bad = self.data[column].isin(written[dates.isna() & (text != "")])
        if bad.any():
            raise ValueError(
                f"{self.path}: line {_line(bad)}: {column}: expected a date as 2015-06-01 or nothing, or all dates as "
                "25/12/2015"
            )
        return self.data[column].map(dates.set_axis(written)).to_numpy()


def _line(bad: pd.Series) -> int:
    """The line of the file with the first bad row; line 1 is the header."""
    return int(bad.index.to_numpy()[bad.to_numpy(dtype=bool)][0]) + 2


def _header(path: Path) -> tuple[list[str], str]:
    """Names of the columns, and what separates them; nothing does in a workbook."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if _is_sheet(path):
        return [name.strip() for name in read_sheet(path)[0][0]], ""
    by_separator = {each: [str(name) for name in _read(path, each, None).columns] for each in _SEPARATORS}
    separator = max(by_separator, key=lambda each: len(by_separator[each]))
    if len(by_separator[separator]) > 1:
        return by_separator[separator], separator
    raise ValueError(
        f"{path}: expected a table with columns eid and p131286 or the like, separated by commas, semicolons or tabs"
    )


def _is_sheet(path: Path) -> bool:
    with path.open("rb") as file:
        return is_workbook(file.read(8))


def _check_widths(path: Path, separator: str, count: int) -> None:
    """Rejects rows with too many values, which would be shifted, and truncated ones, whose dates would seem blank."""
    if not separator:
        return
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        try:
            bad = next(((rows.line_num, len(row)) for row in rows if row and len(row) != count), None)
        except csv.Error as error:
            raise ValueError(f"{path}: line {rows.line_num}: not a readable table of fields ({error})") from None
    if bad:
        raise ValueError(f"{path}: line {bad[0]}: expected {count} values, one under each name, got {bad[1]}")


def _read(path: Path, separator: str, columns: list[str] | None) -> pd.DataFrame:
    """All values as text, blanks as ""; only the header without `columns`."""
    if not separator:
        names, *rows = read_sheet(path)[0]
        cells = [[*row, *[""] * (len(names) - len(row))][: len(names)] for row in rows]
        return pd.DataFrame(cells, columns=[name.strip() for name in names], dtype=str)[list(columns or names)]
    try:
        return pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            usecols=columns,
            nrows=0 if columns is None else None,
            na_values=["NA"],
            keep_default_na=False,
            encoding="utf-8-sig",
        ).fillna("")
    except (ValueError, OSError, pd.errors.ParserError) as error:  # its message may quote a row
        raise ValueError(f"{path}: not a readable table of fields ({type(error).__name__})") from None


def _key(column: str) -> tuple[str, int] | None:
    """Field and instance of a column's name."""
    found = _COLUMN.fullmatch(column.strip())
    if found is not None:
        return found[1] or found[4], int(found[2] or found[5] or 0)
    title = _TITLE.fullmatch(column.strip())
    field = _FIELD_OF.get(re.sub(r"\s*\(.*", "", title[1]).strip().lower()) if title else None
    return None if title is None or field is None else (field, int(title[2] or 0))


def _born(year: pd.Series, month: pd.Series) -> pd.Series:
    """The middle of the month of birth, or of the year if the month is unknown."""
    by_name = {name.lower(): str(number) for number, name in enumerate(calendar.month_name) if name}
    number = pd.to_numeric(month.str.lower().replace(by_name), errors="coerce").fillna(6).astype(int)
    text = year.str.removesuffix(".0") + "-" + number.astype(str) + "-15"
    return pd.to_datetime(text, format="%Y-%m-%d", errors="coerce")
