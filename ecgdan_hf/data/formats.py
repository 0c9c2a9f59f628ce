"""Any single ECG file as an `EcgRecord`: WFDB, .npy, .npz and .csv.

What a file is, is decided by its content, not by its name. A rate and a unit are never guessed: the file says them or
the caller does, and the two may not contradict.
"""

import re
import zipfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.declared import agreed_factor, agreed_leads, agreed_rate, one_line
from ecgdan_hf.data.record import EcgRecord, check_sampling_rate
from ecgdan_hf.data.wfdb_files import RECORD_LINE, find_header, read_wfdb

READABLE = "WFDB (.hea with its .dat), .npy, .npz, .csv"
BOM = b"\xef\xbb\xbf"
TIME_COLUMNS = ("time", "time_s", "time_seconds", "seconds", "t")
# where a format of another vendor gives itself away: offset and mark
_NOT_READ_YET = {"XML": (0, b"<"), "DICOM": (128, b"DICM"), "SCP-ECG": (14, b"SCPECG"), "EDF": (0, b"0       ")}


def read(
    path: str | Path,
    sampling_rate: float | None = None,
    unit: str | None = None,
    lead_names: Sequence[str] | None = None,
) -> EcgRecord:
    """Reads one ECG file.

    Args:
        path: a WFDB record (header, data file, or their common stem), or a .npy, .npz or .csv file. Arrays may be
            (leads, samples) or the other way round; a .npz names them `signal`, `sampling_rate`, `unit`,
            `lead_names`; a .csv has a column for each lead, and may have a time column in seconds and lines
            `# sampling_rate: 500` and `# unit: mV` before its names.
        sampling_rate: Hz; needed where the file does not say it, and may not contradict it.
        unit: `"mV"`, `"uV"` or `"V"`; the same.
        lead_names: names in the order of the file; the same.

    Returns:
        The record, in millivolt.

    Raises:
        FileNotFoundError: there is no such file, or a header names data that are not there.
        ValueError: the file is damaged, or rate, unit or lead names are missing or contradict each other.
    """
    path = Path(path)
    if not path.is_file():
        header = path.with_name(path.name + ".hea")
        if not header.is_file():
            raise FileNotFoundError(f"{path}: no such file (nor a WFDB header {header.name})")
        path = header
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        array, said = _read_numpy(path)
        return _from_array(array, path, said, sampling_rate, unit, lead_names)
    if _is_header(head):
        return read_wfdb(path, sampling_rate, unit, lead_names)
    if header := find_header(path):
        return read_wfdb(header, sampling_rate, unit, lead_names)
    if _is_table(head):
        array, said = _read_csv(path)
        return _from_array(array, path, said, sampling_rate, unit, lead_names)
    raise ValueError(f"{path}: {_describe(path, head)}; what is read: {READABLE}")


def _is_text(head: bytes) -> bool:
    return bool(head) and not any(byte < 9 for byte in head)


def _first_line(head: bytes) -> str:
    lines = (line.strip() for line in head.decode("utf-8", "replace").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def _is_header(head: bytes) -> bool:
    line = _first_line(head)
    return _is_text(head) and "," not in line and bool(RECORD_LINE.match(line))


def _is_table(head: bytes) -> bool:
    return _is_text(head) and not head.lstrip().startswith(b"<") and bool(re.search(r"[,;\t]", _first_line(head)))


def _describe(path: Path, head: bytes) -> str:
    if not head:
        return "the file is empty"
    if path.suffix == ".hea":
        return f"expected a WFDB record line (name, leads, rate, samples), got {_first_line(head)!r}"
    found = [name for name, (at, mark) in _NOT_READ_YET.items() if head.removeprefix(BOM)[at:].startswith(mark)]
    return f"{found[0]} files are not read yet" if found else "not a known ECG file"


def _read_numpy(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The array of a .npy or .npz and what the latter says of it; never pickled objects."""
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            return content, {}
        said = {name: values.tolist() if values.ndim <= 1 else values for name, values in dict(content).items()}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: truncated or damaged numpy file: {one_line(error)}") from error
    if "signal" not in said:
        raise ValueError(f"{path}: expected an array named 'signal', got {', '.join(said) or 'none'}")
    return np.asarray(said.pop("signal")), said


def _read_csv(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The columns of a .csv, (leads, samples), and what it says of them."""
    text = path.read_text(errors="replace")
    said: dict[str, Any] = dict(re.findall(r"^#\s*(\w+)\s*[:=]\s*(.+?)\s*$", text, re.MULTILINE))
    try:
        table = pd.read_csv(StringIO(text), sep=None, engine="python", comment="#")
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: not a readable table: {one_line(error)}") from error
    if all(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?(\.\d+)?", str(name), re.IGNORECASE) for name in table.columns):
        raise ValueError(f"{path}: expected a first row with lead names, got numbers")
    text_columns = [str(name) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    if text_columns:
        raise ValueError(f"{path}: column {text_columns[0]}: expected numbers, got text")
    times = [name for name in table.columns if str(name).strip().lower() in TIME_COLUMNS]
    if times:
        said["sampling_rate"] = agreed_rate(_rate_of(table.pop(times[0]), path), said.get("sampling_rate"), path)
    said["lead_names"] = [str(name) for name in table.columns]
    return table.to_numpy().T, said


def _rate_of(times: pd.Series, path: Path) -> float:
    step = float(np.median(np.diff(times.to_numpy(dtype=np.float64)))) if len(times) > 1 else 0.0
    # three decimals: times are written with few digits
    return check_sampling_rate(round(1 / step, 3) if step else 0.0, f"{path}: column {times.name}")


def _from_array(
    array: np.ndarray,
    path: Path,
    said: dict[str, Any],
    sampling_rate: float | None,
    unit: str | None,
    lead_names: Sequence[str] | None,
) -> EcgRecord:
    rate = agreed_rate(sampling_rate, said.get("sampling_rate"), path)
    factor = agreed_factor(unit, said.get("unit"), path)
    leads = agreed_leads(lead_names, said.get("lead_names"), path)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or len(leads) not in array.shape:
        found = f"{array.dtype} {array.shape}"
        raise ValueError(f"{path}: expected numbers (leads, samples) for {len(leads)} leads, got {found}")
    if array.shape[0] != len(leads):
        array = array.T
    return EcgRecord(
        signal_mv=array.astype(np.float64) * factor,
        sampling_rate=rate,
        lead_names=tuple(leads),
        record_id=path.stem,
        source=str(path),
    )
