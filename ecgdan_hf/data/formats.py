"""Any single ECG file as an `EcgRecord`.

What a file is, is decided by its content, not by its name. A rate and a unit are never guessed: the file says them or
the caller does, and the two may not contradict.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ecgdan_hf.data.array_files import as_record, read_csv, read_numpy
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.wfdb_files import RECORD_LINE, find_header, read_wfdb, sample_range

READABLE = "WFDB (.hea with its .dat), .npy, .npz, .csv"
BOM = b"\xef\xbb\xbf"
# where a format of another vendor gives itself away: offset and mark
_NOT_READ_YET = {"XML": (0, b"<"), "DICOM": (128, b"DICM"), "SCP-ECG": (14, b"SCPECG"), "EDF": (0, b"0       ")}


def read(
    path: str | Path,
    sampling_rate: float | None = None,
    unit: str | None = None,
    lead_names: Sequence[str] | None = None,
    member: str | None = None,
    start_seconds: float = 0.0,
    seconds: float | None = None,
) -> EcgRecord:
    """Reads one ECG file, or a part of it.

    Args:
        path: a WFDB record (header, data file, or their common stem), or a .npy, .npz or .csv file. Arrays may be
            (leads, samples) or the other way round; a .npz names them `signal`, `sampling_rate`, `unit`,
            `lead_names`; a .csv has a column for each lead, and may have a time column in seconds and lines
            `# sampling_rate: 500` and `# unit: mV` before its names.
        sampling_rate: Hz; needed where the file does not say it, and may not contradict it.
        unit: `"mV"`, `"uV"` or `"V"`; the same.
        lead_names: names in the order of the file; the same.
        member: which record of a file that holds several: the name of an entry in a zip, the row of an HDF5 file.
        start_seconds: where to begin, such as a segment of a Holter recording.
        seconds: how much to read; None reads to the end.

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
    if header := path if _is_header(head) else find_header(path):
        return read_wfdb(header, sampling_rate, unit, lead_names, start_seconds, seconds)
    return _cut(_read(path, head, sampling_rate, unit, lead_names), start_seconds, seconds)


def _read(
    path: Path, head: bytes, sampling_rate: float | None, unit: str | None, lead_names: Sequence[str] | None
) -> EcgRecord:
    if head.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        return as_record(*read_numpy(path), path, sampling_rate, unit, lead_names)
    if _is_table(head):
        return as_record(*read_csv(path), path, sampling_rate, unit, lead_names)
    raise ValueError(f"{path}: {_describe(path, head)}; what is read: {READABLE}")


def _cut(record: EcgRecord, start_seconds: float, seconds: float | None) -> EcgRecord:
    """The part of a record that was asked for; its quality is judged on that part alone."""
    if not start_seconds and seconds is None:
        return record
    samples = record.signal_mv.shape[1]
    first, last = sample_range(start_seconds, seconds, record.sampling_rate, samples, record.source)
    return replace(record, signal_mv=record.signal_mv[:, first:last])


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
