"""The first visible sheet of an Excel workbook (.xlsx, ISO/IEC 29500-1) that holds anything, as rows of text.

Cells come as a reader of the sheet sees them: dates as 2015-06-01, ids with the zeros that a format such as `00000`
shows. Formulas have the value that was last computed.
openpyxl is not used: the zeros of ids, error cells and limits of size would need the same code on top of it.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from defusedxml import ElementTree

from ecgdan_hf.data.readers.messages import one_line
from ecgdan_hf.data.readers.zips import ZipReader

_BOOK, _RELATIONS = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"
_DATE_FORMATS = {*range(14, 18), 22, *range(27, 37), *range(50, 59)}  # of those that every workbook has
_FIRST_DAY, _FIRST_DAY_OF_1904 = datetime(1899, 12, 30), datetime(1904, 1, 1)
_PHANTOM_DAY = 60  # Excel counts a 29 February 1900, which was none
_MAX_COLUMN = 16_384
_VISIBLE = (None, "visible")


def is_workbook(head: bytes) -> bool:
    """Whether a file may be a workbook, by its first bytes."""
    return head.startswith(b"PK\x03\x04")


def read_sheet(path: Path) -> tuple[list[list[str]], str]:
    """The rows that have a value, each to its last value, and which sheet they are of; raises ValueError."""
    try:
        return _Workbook(path).first_rows()
    except (ElementTree.ParseError, KeyError, IndexError, ArithmeticError) as error:
        raise ValueError(f"{path}: damaged Excel workbook: {one_line(error)[:200]}") from error


class _Workbook:
    def __init__(self, path: Path) -> None:
        self.path, self._zip = path, ZipReader(path)
        self._entries = {entry.filename: entry for entry in self._zip.entries()}
        if _BOOK not in self._entries:
            raise ValueError(f"{path}: expected an Excel workbook or a text table, got another zip file")
        book = self._parsed(_BOOK)
        self._sheets = [each for each in book.iter() if _name(each) == "sheet" and each.get("state") in _VISIBLE]
        if not self._sheets:
            raise ValueError(f"{path}: expected a workbook with a visible sheet, got none")
        is_1904 = any(each.get("date1904") in ("1", "true") for each in book.iter() if _name(each) == "workbookPr")
        self._first_day = _FIRST_DAY_OF_1904 if is_1904 else _FIRST_DAY
        self._shared = [_text(each) for each in self._optional("xl/sharedStrings.xml") if _name(each) == "si"]
        self._formats = self._cell_formats()

    def first_rows(self) -> tuple[list[list[str]], str]:
        """The rows of the first visible sheet with any, and its name in words."""
        for sheet in self._sheets:
            rows = list(self._rows(sheet))
            if rows:
                return rows, f"sheet {sheet.get('name', '')!r} of an Excel workbook"
        return [], "an empty Excel workbook"

    def _rows(self, sheet: Any) -> Iterator[list[str]]:
        for row in self._parsed(self._target(sheet)).iter():
            if _name(row) != "row":
                continue
            cells = dict[int, str]()
            for position, cell in enumerate(each for each in row if _name(each) == "c"):
                value = self._value(cell).strip()
                if value:
                    cells[_column(cell.get("r"), position)] = value
            if cells:
                yield [cells.get(column, "") for column in range(max(cells) + 1)]

    def _parsed(self, name: str) -> Any:
        return ElementTree.fromstring(self._zip.read(self._entries[name]))

    def _optional(self, name: str) -> Any:
        return self._parsed(name) if name in self._entries else ()

    def _target(self, sheet: Any) -> str:
        wanted = next((value for key, value in sheet.attrib.items() if key.rpartition("}")[2] == "id"), None)
        relations = {each.get("Id"): each.get("Target") for each in self._parsed(_RELATIONS)}
        target = str(relations[wanted])
        return target.lstrip("/") if target.startswith("/") else f"xl/{target}"

    def _cell_formats(self) -> list[str]:
        """For each style of a cell `date`, the zeros of an id, or nothing."""
        styles = self._optional("xl/styles.xml")
        own, found = dict[int, str](), list[str]()
        for part in styles:
            if _name(part) == "numFmts":
                own = {int(each.get("numFmtId")): each.get("formatCode", "") for each in part}
            if _name(part) == "cellXfs":
                found = [_kind(int(each.get("numFmtId", 0)), own) for each in part]
        return found

    def _value(self, cell: Any) -> str:
        kind, style = cell.get("t", "n"), int(cell.get("s", 0))
        if kind == "inlineStr":
            return _text(cell)
        value = next((each.text or "" for each in cell if _name(each) == "v"), "")
        if kind == "s" and value:
            return self._shared[int(value)]
        if kind != "n" or not value:
            return {"b": {"1": "TRUE", "0": "FALSE"}.get(value, value), "e": ""}.get(kind, value)
        return self._number(float(value), self._formats[style] if style < len(self._formats) else "")

    def _number(self, value: float, form: str) -> str:
        if form == "date":
            if self._first_day == _FIRST_DAY and value < _PHANTOM_DAY:
                value += 1
            moment = (self._first_day + timedelta(days=value)).replace(microsecond=0)
            return moment.date().isoformat() if not (moment.hour or moment.minute) else moment.isoformat(" ")
        text = str(int(value)) if value == int(value) else repr(float(f"{value:.15g}"))
        return text.zfill(len(form)) if form else text


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _text(element: Any) -> str:
    """All text of a string but its phonetic reading."""
    if _name(element) == "rPh":
        return ""
    own = element.text or "" if _name(element) == "t" else ""
    return own + "".join(_text(each) for each in element)


def _column(reference: str | None, position: int) -> int:
    """`C7` -> 2; a cell without a reference is the next."""
    letters = re.match(r"[A-Z]+", reference or "")
    if letters is None:
        return position
    number = 0
    for letter in letters.group():
        number = 26 * number + ord(letter) - ord("A") + 1
    if number > _MAX_COLUMN:
        raise KeyError(f"column {letters.group()[:10]}")
    return number - 1


def _kind(number: int, own: dict[int, str]) -> str:
    code = own.get(number, "")
    if re.fullmatch("0{2,}", code):
        return code
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\\.|General', "", code, flags=re.IGNORECASE)
    return "date" if number in _DATE_FORMATS or re.search("[dy]", bare, re.IGNORECASE) else ""
