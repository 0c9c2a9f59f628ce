"""ECGs kept as plain arrays: .npy, .npz and .csv; and any array as a record."""

import csv
import math
import re
import zipfile
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.lib import format as npy_format

from ecgdan_hf.data.readers.declared import Declared, Format, one_line
from ecgdan_hf.data.readers.zips import ZipReader
from ecgdan_hf.data.record import EcgRecord, canonical_lead, check_sampling_rate
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

_NPY_MARK = b"\x93NUMPY"
_SECONDS_PER_STEP = {
    **dict.fromkeys(("time", "time_s", "time_seconds", "seconds", "t", "zeit", "tiempo"), 1.0),
    **dict.fromkeys(("time_ms", "ms", "milliseconds"), 1e-3),
}
_MIN_TIMED_RATE = 20.0  # Hz; below, times are not in seconds


def as_record(
    array: np.ndarray, said: dict[str, Any], path: Path, declared: Declared, member: str | None = None
) -> EcgRecord:
    """The array in millivolt, with what file (`said`) and caller state; `member` is its place in a file of several."""
    declared.check_complete(said, path)
    rate = declared.rate(said.get("sampling_rate"), path)
    factor = declared.factor(said.get("unit"), path)
    leads = declared.leads(said.get("lead_names"), path)
    if array.ndim == 1 and len(leads) == 1:  # a device with a single lead
        array = array[None]
    if array.ndim != 2 or array.dtype.kind not in "fiu" or len(leads) not in array.shape:
        found = f"{array.dtype} {array.shape}"
        raise ValueError(f"{path}: expected numbers (leads, samples) for {len(leads)} leads, got {found}")
    if array.shape[0] != len(leads):
        array = array.T
    return EcgRecord(
        signal_mv=(array.astype(np.float64) * factor).astype(np.float32),
        sampling_rate=rate,
        lead_names=tuple(leads),
        record_id=path.stem if member is None else f"{path.stem}/{member}",
        source=str(path),
    )


def signal_name(shapes: dict[str, tuple[int, ...]], path: Path) -> str:
    """Which numeric array of a file is the signal: `signal`, or the only one with two dimensions; else ValueError."""
    planes = {name: shape for name, shape in shapes.items() if len(shape) == 2 and max(shape) > 1}
    found = [name for name, shape in planes.items() if min(shape) > 1] or list(planes)  # a row is a lead or a time
    if "signal" in shapes or len(found) == 1:
        return "signal" if "signal" in shapes else found[0]
    raise ValueError(
        f"{path}: expected an array named 'signal', or one array only with two dimensions, got "
        f"{', '.join(f'{name} {shape}' for name, shape in list(shapes.items())[:8]) or 'none'}"
    )


def _is_numpy(head: bytes) -> bool:
    """An array, or a zip whose first entry is one."""
    first_name = head[30 : 30 + int.from_bytes(head[26:28], "little")] if head.startswith(b"PK\x03\x04") else b""
    return head.startswith(_NPY_MARK) or first_name.endswith(b".npy")


def _read_numpy(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The array of a .npy or .npz and what the latter says of it; never pickled objects."""
    with path.open("rb") as file:
        if file.read(len(_NPY_MARK)) == _NPY_MARK:
            return _load(file, path.stat().st_size, path), {}
    packed = ZipReader(path)
    arrays = {entry.filename.removesuffix(".npy"): _load_entry(packed, entry) for entry in packed.entries()}
    said = {name: values.tolist() if values.ndim <= 1 else values for name, values in arrays.items()}
    name = signal_name({name: values.shape for name, values in arrays.items() if values.dtype.kind in "fiu"}, path)
    said.pop(name)
    return arrays[name], said


def _load_entry(packed: ZipReader, entry: zipfile.ZipInfo) -> np.ndarray:
    content = packed.read(entry)
    return _load(BytesIO(content), len(content), packed.path)


def _load(file: BinaryIO, size: int, path: Path) -> np.ndarray:
    """Loads an array after comparing its declared size with the file's, so that a false shape allocates no memory."""
    try:
        file.seek(0)
        version = npy_format.read_magic(file)
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        expected, found = math.prod(shape) * dtype.itemsize, size - file.tell()
        if not dtype.hasobject and expected > found:
            raise ValueError(f"expected {expected} bytes for {shape} of {dtype}, got {found}")
        file.seek(0)
        return np.asarray(np.load(file, allow_pickle=False))
    except Exception as error:  # numpy parses the header as Python, and raises what its tokenizer does
        raise ValueError(f"{path}: truncated or damaged numpy file: {one_line(error)[:200]}") from error


def _is_table(head: bytes) -> bool:
    if not head or min(head) < 9 or head.lstrip().startswith(b"<"):
        return False
    first = _first_row(head.decode("utf-8", "replace"))
    return bool(re.search(r"[,;\t]", first)) or names_a_lead(head)  # a single lead needs no separator


def _read_csv(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The columns of a .csv, (leads, samples), and what it says of them."""
    text = path.read_text(encoding="utf-8", errors="replace")
    said = _comments(text)
    try:
        one_lead = canonical_lead(_first_row(text).strip('"')) in STANDARD_LEADS
        separator = "," if one_lead else None  # in one column there is none to be found
        table = pd.read_csv(StringIO(text), sep=separator, engine="python", comment="#")
    except (ValueError, csv.Error, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: not a readable table: {one_line(error)[:200]}") from error
    if all(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?(\.\d+)?", str(name), re.IGNORECASE) for name in table.columns):
        raise ValueError(f"{path}: expected a first row with lead names, got numbers")
    if not isinstance(table.index, pd.RangeIndex):  # pandas would take the first lead for names of rows
        raise ValueError(f"{path}: expected {len(table.columns)} values in a row, one for each name, got more")
    twice = [str(name) for name in table.columns if f"{name}.1" in table.columns]  # as pandas renames the second
    if twice:
        raise ValueError(f"{path}: expected different lead names, got {twice[0]} twice")
    text_columns = [str(name) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    if text_columns:
        raise ValueError(f"{path}: column {text_columns[0]}: expected numbers, got text")
    times = [name for name in table.columns if str(name).strip().lower() in _SECONDS_PER_STEP]
    if times:
        column = table.pop(times[0]) * _SECONDS_PER_STEP[str(times[0]).strip().lower()]
        in_column = Declared(sampling_rate=_rate_of(column, path))
        said["sampling_rate"] = in_column.rate(said.get("sampling_rate"), path)
    said["lead_names"] = [str(name) for name in table.columns]
    return table.to_numpy().T, said


def names_a_lead(head: bytes) -> bool:
    """Whether the first row of a table that is no comment names a standard lead."""
    first = _first_row(head.decode("utf-8-sig", "replace"))
    return any(canonical_lead(name.strip().strip('"')) in STANDARD_LEADS for name in re.split("[,;\t]", first))


def _first_row(text: str) -> str:
    """The first line that is neither empty nor a comment."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def _comments(text: str) -> dict[str, Any]:
    """`sampling_rate`, `unit` and the like from lines `# name: value`."""
    said = {}
    for line in re.findall("^#(.*)$", text, re.MULTILINE):
        name, _, value = line.replace("=", ":", 1).partition(":")
        if value := value.strip():
            said[name.strip()] = value if len(value) <= 80 else f"{value[:80]}..."
    return said


def _rate_of(times: pd.Series, path: Path) -> float:
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


NUMPY = Format("numpy", _is_numpy, lambda path, declared, _: as_record(*_read_numpy(path), path, declared))
CSV = Format("csv", _is_table, lambda path, declared, _: as_record(*_read_csv(path), path, declared))
