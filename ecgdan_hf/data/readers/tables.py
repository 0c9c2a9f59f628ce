"""ECGs as tables of text, a column for each lead, as Excel, pandas, MATLAB and German programs write them.

Any of UTF-8, UTF-16 and Latin-1; comma, semicolon or tab; decimal point or comma; `I (mV)`, `Lead I`, `Ableitung I`;
lines of metadata before the names, with or without `#`; an index column; a time column. The line of names is the first
that names a lead and that a line of numbers follows.
"""

import csv
import re
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from wrapt import lazy_import

from ecgdan_hf.data.readers.declared import Declared, one_line
from ecgdan_hf.data.record import check_sampling_rate
from ecgdan_hf.model.conditioning_ecgdan import millivolt_per
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.leads_ecgdan import known_lead

if TYPE_CHECKING:
    import pandas as pd
else:  # slow to import, and not needed for most files
    pd = lazy_import("pandas")

_SECONDS_PER_STEP = {
    **dict.fromkeys(("time", "time_s", "time_seconds", "seconds", "t", "zeit", "tiempo", "temps"), 1.0),
    **dict.fromkeys(("time_ms", "ms", "milliseconds"), 1e-3),
}
_SECONDS_PER_UNIT = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3}
_MIN_TIMED_RATE = 20.0  # Hz; below, times are not in seconds
_MAX_LINES_BEFORE = 100
_MAX_WORD = 80  # letters of a name or value
_UNIT = re.compile(r"^(.*?)\s*(?:[(\[]\s*([^)\]]+?)\s*[)\]]|[_ ]([mu\u00b5\u03bc]V))$", re.IGNORECASE)
_LEAD_WORD = re.compile(
    r"^(?:lead|ab(?:leitung|l\.?)|derivaci[o\u00f3]n|d[e\u00e9]rivation|derivazione|channel|kanal)[\s_:.]*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)(e[-+]?\d+)?", re.IGNORECASE)
_BLANKS = ("", "nan", "na")


def decoded(content: bytes) -> str | None:
    """The text of a file, or of its beginning; None for a file that is no text."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content[: len(content) // 2 * 2].decode("utf-16", "replace")
    if not content or min(content) < 9:
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_cut = error.reason == "unexpected end of data"  # a letter in two halves, at the end of the head
        return content.decode("utf-8-sig" if is_cut else "latin-1", "ignore" if is_cut else "strict")


def names_a_lead(head: bytes) -> bool:
    """Whether the beginning of a file is a table whose line of names has a standard lead."""
    text = decoded(head)
    return text is not None and _line_of_names(text.splitlines()) is not None


def read_table(path: Path, declared: Declared) -> tuple[np.ndarray, dict[str, Any]]:
    """The columns of a table, (leads, samples), and what it says of them; raises ValueError."""
    lines = (decoded(path.read_bytes()) or "").splitlines()
    at = _line_of_names(lines)
    said = _metadata(lines if at is None else lines[:at] + [line for line in lines[at:] if line.startswith("#")])
    body = [line for line in lines[at or 0 :] if line.strip() and not line.startswith("#")]
    if not body:
        raise ValueError(f"{path}: expected a line of lead names and lines of numbers, got none")
    separator = _separator(body[0])
    if at is None and _all_numbers(body[0], separator):
        count = len(_split(body[0], separator))
        if declared.lead_names is None or len(declared.lead_names) != count:
            raise ValueError(f"{path}: expected a first row with lead names, got numbers; give {count} lead_names")
        body.insert(0, (separator or ",").join(declared.lead_names))
    return _columns(_frame(body, separator, path), said, path)


def _line_of_names(lines: list[str]) -> int | None:
    """Number of the first line that names a lead and is followed by numbers."""
    kept = [(i, line) for i, line in enumerate(lines[:_MAX_LINES_BEFORE]) if line.strip() and not line.startswith("#")]
    for place, (i, line) in enumerate(kept):
        following = kept[place + 1][1] if place + 1 < len(kept) else ""
        if _names_leads(line) and (not following or re.match(r"[\"'\s,;]*[-+\d.]", following)):
            return i
    return None


def _names_leads(line: str) -> bool:
    """Whether a line has a name of a standard lead, or two names that may stand for one."""
    names = [_lead_and_unit(name)[0] for name in _split(line, _separator(line))]
    plain = [name.upper() in _STANDARD for name in names]
    return any(plain) or sum(known_lead(name) in STANDARD_LEADS for name in names) >= 2


_STANDARD = {lead.upper() for lead in STANDARD_LEADS}


def _lead_and_unit(name: str) -> tuple[str, str | None]:
    """`I (mV)`, `Lead I`, `Ableitung I` -> the lead, and the unit if there is one."""
    bare = name.strip().strip("\"'").strip()
    found = _UNIT.match(bare) if len(bare) <= _MAX_WORD else None  # time grows with the square of the length
    unit = (found.group(2) or found.group(3)) if found else None
    if found and unit and (millivolt_per(unit) is not None or unit.lower() in _SECONDS_PER_UNIT):
        bare = found.group(1)
    else:
        unit = None
    word = _LEAD_WORD.sub("", bare)
    return (word if word and known_lead(word) else bare), unit


def _separator(line: str) -> str | None:
    """Semicolon and tab before the comma, which may be a decimal comma; None in a table of one column."""
    return next((mark for mark in (";", "\t", ",") if mark in line), None)


def _split(line: str, separator: str | None) -> list[str]:
    return [line] if separator is None else next(csv.reader([line], delimiter=separator), [])


def _all_numbers(line: str, separator: str | None) -> bool:
    return all(_NUMBER.fullmatch(word.strip()) for word in _split(line, separator))


def _metadata(lines: list[str]) -> dict[str, Any]:
    """`sampling_rate`, `unit` and the like from lines `# name: value`, `name = value` and `name;value`."""
    said = {}
    for line in lines:
        words = re.split("[:=;,\t]", line.removeprefix("#"), maxsplit=1)
        name, value = words[0].strip(' \t"'), words[-1].strip(' ;,\t"')
        if name and value and len(words) == 2:
            said[name] = value if len(value) <= _MAX_WORD else f"{value[:_MAX_WORD]}..."
    return {**said, **_rate_with_unit(said)}


def _rate_with_unit(said: dict[str, Any]) -> dict[str, Any]:
    """`sampling_rate: 500 Hz` -> 500."""
    rates = {name: re.fullmatch(r"([\d.]+)\s*Hz", str(value), re.IGNORECASE) for name, value in said.items()}
    return {name: found.group(1) for name, found in rates.items() if found}


def _frame(body: list[str], separator: str | None, path: Path) -> "pd.DataFrame":
    """The table as text; rejects rows that are longer than the line of names."""
    names = [name.strip() for name in _split(body[0], separator)]
    while len(names) > 1 and not names[-1]:  # Excel writes empty columns behind
        names.pop()
    try:
        table = pd.read_csv(
            StringIO("\n".join(body[1:])),
            sep=separator or ",",
            header=None,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
        )
    except (ValueError, csv.Error, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: not a readable table: {one_line(error)[:200]}") from error
    extra = table.iloc[:, len(names) :]
    if extra.apply(lambda column: column.fillna("").str.strip() != "").to_numpy().any():
        raise ValueError(f"{path}: expected {len(names)} values in a row, one for each name, got more")
    if table.shape[1] < len(names):
        raise ValueError(f"{path}: expected {len(names)} values in a row, one for each name, got {table.shape[1]}")
    counts = Counter(name for name in names if name)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{path}: expected different lead names, got {twice} twice")
    return table.iloc[:, : len(names)].set_axis(names, axis=1)


def _columns(table: "pd.DataFrame", said: dict[str, Any], path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The columns of leads as numbers; the rate from a time column, the unit from the names."""
    units: dict[str, str | None] = {}
    leads: dict[str, np.ndarray] = {}
    for name in table.columns:
        lead, unit = _lead_and_unit(str(name))
        seconds = _SECONDS_PER_STEP.get(lead.strip().lower())
        if seconds is not None and known_lead(lead) is None:
            seconds = _SECONDS_PER_UNIT.get(str(unit).lower(), seconds)
            times = pd.Series(_numbers(table[name], path) * seconds, name=name)
            said["sampling_rate"] = Declared(sampling_rate=_rate_of(times, path)).rate(said.get("sampling_rate"), path)
        elif not _is_index(lead, table[name]):
            leads[lead], units[lead] = _numbers(table[name], path), unit
    stated = {unit for unit in units.values() if unit is not None}
    if len({millivolt_per(unit) for unit in stated}) > 1:
        raise ValueError(f"{path}: unit: expected one unit for all columns, got {', '.join(sorted(stated))}")
    if stated:
        unit = stated.pop()
        said["unit"] = unit if millivolt_per(said.get("unit")) in (None, millivolt_per(unit)) else said["unit"]
        Declared(unit=unit).factor(said["unit"], path)
    if not leads:
        raise ValueError(f"{path}: expected a column for each lead, got none")
    said["lead_names"] = list(leads)
    return np.stack(list(leads.values())), said


def _is_index(name: str, column: "pd.Series") -> bool:
    """Whether a column is the number of the row, as pandas writes it."""
    if name and not name.lower().startswith(("unnamed", "index", "sample", "nr", "no.")):
        return False
    words = column.iloc[:100].str.strip().tolist()
    return words in ([str(i) for i in range(len(words))], [str(i + 1) for i in range(len(words))])


def _numbers(column: "pd.Series", path: Path) -> np.ndarray:
    """(samples,) numbers with a decimal point or comma; a blank is NaN."""
    words = column.str.strip().str.strip("\"'")
    words = words.str.replace(",", ".", regex=False)
    numbers = pd.to_numeric(words, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(np.isnan(numbers) & ~words.str.lower().isin(_BLANKS).to_numpy())
    if len(bad):
        raise ValueError(f"{path}: column {column.name}: expected numbers, got text")
    return numbers


def _rate_of(times: "pd.Series", path: Path) -> float:
    """Hz from the first and last time, in seconds, as a step is rounded more than the whole; rejects gaps.

    A whole number is taken where the rounding of the times allows it.
    """
    seconds, where = times.to_numpy(dtype=np.float64), f"{path}: column {times.name}"
    steps = np.diff(seconds)
    if not len(steps) or not np.isfinite(seconds).all() or steps.min() < 0 or seconds[-1] <= seconds[0]:
        check_sampling_rate(0.0, where)
    even = np.linspace(seconds[0], seconds[-1], len(seconds))
    rounding = max(float(steps[steps > 0].min()), (seconds[-1] - seconds[0]) / len(steps))
    if np.abs(seconds - even).max() > 1.01 * rounding:
        at = int(np.argmax(steps))
        raise ValueError(
            f"{where}: expected samples at equal steps, got a gap of {steps[at]:.3g} s after {seconds[at]:.3f} s; "
            "give the parts as files of their own"
        )
    rate = len(steps) / (seconds[-1] - seconds[0])
    if rate < _MIN_TIMED_RATE:
        raise ValueError(f"{where}: expected times in seconds, got steps of {1 / rate:g}; name milliseconds time_ms")
    whole, uncertain = round(rate), 2 * rate * float(np.abs(seconds - even).max()) / (seconds[-1] - seconds[0])
    return float(whole) if abs(rate - whole) <= max(uncertain, 5e-4) else round(rate, 3)
