"""Any single ECG file as an `EcgRecord`.

What a file is, is decided by its content, not by its name. A rate and a unit are never guessed: the file says them or
the caller does, and the two may not contradict.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ecgdan_hf.data.readers.arrays import NPY_MARK, as_record, names_a_lead, read_csv, read_numpy
from ecgdan_hf.data.readers.cardiosoft import is_cardiosoft, read_cardiosoft
from ecgdan_hf.data.readers.declared import agreed_leads, agreed_rate
from ecgdan_hf.data.readers.matlab import is_hdf5, is_matlab, read_hdf5, read_matlab
from ecgdan_hf.data.readers.median_beats import with_median_beat
from ecgdan_hf.data.readers.parquet import PARQUET_MARK, read_row
from ecgdan_hf.data.readers.vendors import read_vendor, vendor_kind, xml_root
from ecgdan_hf.data.readers.wfdb_records import RECORD_LINE, find_header, read_wfdb, sample_range
from ecgdan_hf.data.readers.zips import MAX_BYTES, read_entry, zip_entries
from ecgdan_hf.data.record import EcgRecord

READABLE = (
    "WFDB (.hea with its .dat), HL7 aECG, GE MUSE, GE CardioSoft, Philips Sierra, Mortara, AliveCor Kardia, DICOM, "
    "SCP-ECG, EDF, ISHNE, MFER, .npy, .npz, .csv, MATLAB, HDF5, Parquet, and one of these in a .zip"
)
HEAD_BYTES = 4096
ZIP_MARK = b"PK\x03\x04"
MAX_LISTED = 100  # entries of a zip that are looked into


@np.errstate(over="ignore", invalid="ignore")  # what is no float32 becomes infinity, which is refused in words
def read(
    path: str | Path,
    sampling_rate: float | None = None,
    unit: str | None = None,
    lead_names: Sequence[str] | None = None,
    member: str | None = None,
    start_seconds: float = 0.0,
    seconds: float | None = None,
    median_file: str | Path | None = None,
) -> EcgRecord:
    """Reads one ECG file, or a part of it.

    Args:
        path: a WFDB record (header, data file, or their common stem), a file of a cart, Holter recorder or hospital
            system, or an array: .npy, .npz, .csv, MATLAB, HDF5. Arrays may be (leads, samples) or the other way
            round; a .npz, MATLAB or HDF5 file names them `signal`, `sampling_rate`, `unit`, `lead_names`; a .csv has a
            column for each lead, and may have a time column in seconds and lines `# sampling_rate: 500` and
            `# unit: mV` before its names.
        sampling_rate: Hz; needed where the file does not say it, and may not contradict it.
        unit: `"mV"`, `"uV"` or `"V"`; the same.
        lead_names: names in the order of the file; the same.
        member: which record of a file that holds several: the name of an entry in a zip, the row of an HDF5 or
            Parquet file.
        start_seconds: where to begin, such as a segment of a Holter recording.
        seconds: how much to read; None reads to the end.
        median_file: WFDB record with the median beat of the recording, where that lies in a file of its own; see
            `median_files`.

    Returns:
        The record, in millivolt; a part of one without a median beat, as that would be of the whole.

    Raises:
        FileNotFoundError: there is no such file, or a header names data that are not there.
        ValueError: the file is damaged or of absurd size, or rate, unit or lead names are missing or contradict each
            other.
    """
    path = Path(path)
    if not path.is_file():
        header = path.with_name(path.name + ".hea")
        if not header.is_file():
            found = "expected a file, got a folder" if path.is_dir() else "no such file"
            raise FileNotFoundError(f"{path}: {found} (nor a WFDB header {header.name})")
        path = header
    head = _head(path)
    record_header = _wfdb_header(path, head) if member is None else None
    if record_header is not None:
        record = read_wfdb(record_header, sampling_rate, unit, lead_names, start_seconds, seconds)
    else:
        record = _read(path, head, None if member is None else str(member), sampling_rate, unit, lead_names)
        record = _cut(record, start_seconds, seconds)
    whole = not start_seconds and seconds is None
    return with_median_beat(record, median_file) if median_file is not None and whole else record


def kind(path: str | Path) -> str | None:
    """What an ECG file is, by its first bytes; None for what is none.

    Returns:
        `"wfdb"` (a header, or data that a header beside it names), `"numpy"`, `"csv"` (if its first row names a
        lead), `"matlab"`, `"hdf5"`, `"parquet"`, `"zip"` (if it holds an ECG), `"cardiosoft"` or one of
        `vendor_files`: `"hl7-aecg"`, `"muse"`, `"sierra"`, `"mortara"`, `"kardia"`, `"dicom"`, `"scp-ecg"`, `"edf"`,
        `"ishne"`, `"mfer"`.
    """
    path = Path(path)
    if not path.is_file():
        return None
    head = _head(path)
    found = _kind(path, head)
    if found == "csv" and not names_a_lead(head):
        return None
    return None if found == "zip" and not _holds_an_ecg(path) else found


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _wfdb_header(path: Path, head: bytes) -> Path | None:
    """The header of a WFDB record: the file itself, or the one beside it that names it."""
    return path if _is_header(head) else find_header(path)


def _kind(path: Path, head: bytes) -> str | None:
    if _wfdb_header(path, head):
        return "wfdb"
    if head.startswith(ZIP_MARK):
        return "numpy" if _is_npz(head) else "zip"
    return _kind_of_one(head) or ("csv" if _is_table(head) else None)


def _is_npz(head: bytes) -> bool:
    """Whether the first entry of a zip is an array."""
    return head[30 : 30 + int.from_bytes(head[26:28], "little")].endswith(b".npy")


def _kind_of_one(head: bytes) -> str | None:
    """What a single file is that needs no other."""
    for name, true in (
        ("numpy", head.startswith(NPY_MARK)),
        ("hdf5", is_hdf5(head)),
        ("matlab", is_matlab(head)),
        ("parquet", head.startswith(PARQUET_MARK)),
    ):
        if true:
            return name
    return "cardiosoft" if is_cardiosoft(head) else vendor_kind(head)


def _read(
    path: Path,
    head: bytes,
    member: str | None,
    sampling_rate: float | None,
    unit: str | None,
    lead_names: Sequence[str] | None,
) -> EcgRecord:
    """Any file but a WFDB record."""
    found, size = _kind(path, head), path.stat().st_size
    said: tuple[Any, Any, Any] = (sampling_rate, unit, lead_names)
    if found is None or (found == "wfdb" and member is None):
        raise ValueError(f"{path}: {_describe(path, head)}; what is read: {READABLE}")
    if found == "hdf5":
        array, about = read_hdf5(path, member)
        return as_record(array, about, path, *said, member)
    if found == "parquet":
        return read_row(path, member)
    if size > MAX_BYTES:
        raise ValueError(f"{path}: expected a file of at most {MAX_BYTES >> 20} MiB, got {size >> 20} MiB")
    if found == "zip":
        return _read_member(path, member, *said)
    if member is not None:
        raise ValueError(f"{path}: member: expected None, as the file holds one record, got {member!r}")
    if found in _ARRAYS:
        array, about = _ARRAYS[found](path)
        return as_record(array, about, path, *said)
    if found != "cardiosoft":
        return read_vendor(path, found, *said)
    record = read_cardiosoft(path.read_bytes(), str(path))
    agreed_rate(sampling_rate, record.sampling_rate, path)
    agreed_leads(lead_names, record.lead_names, path)
    return record


_ARRAYS: dict[str, Any] = {"numpy": read_numpy, "csv": read_csv, "matlab": read_matlab}


def _read_member(
    path: Path,
    member: str | None,
    sampling_rate: float | None,
    unit: str | None,
    lead_names: Sequence[str] | None,
) -> EcgRecord:
    """An entry of a zip, written to a file under a name of our own for the readers that need one."""
    names = {entry.filename: entry for entry in zip_entries(path)}
    if any(name.endswith(".hea") for name in names) and (member is None or member.endswith((".hea", ".dat"))):
        raise ValueError(f"{path}: expected a file that holds a whole record, got a WFDB record in parts; unpack it")
    if member is None and len(names) == 1:
        member = next(iter(names))
    if member not in names:
        listed = ", ".join(list(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise ValueError(f"{path}: member: expected an entry of this zip ({listed or 'it is empty'}), got {member!r}")
    where = f"{path}/{member}"
    content = read_entry(path, names[member])
    if content.startswith(ZIP_MARK) and not _is_npz(content):
        raise ValueError(f"{where}: expected an ECG file, got a zip in a zip; unpack it")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "entry"
        file.write_bytes(content)
        try:
            record = _read(file, content[:HEAD_BYTES], None, sampling_rate, unit, lead_names)
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(str(file), where)) from error
    return replace(record, record_id=PurePosixPath(member).stem, source=where)


def _holds_an_ecg(path: Path) -> bool:
    """Whether one of the first entries of a zip is an ECG."""
    try:
        entries = zip_entries(path)[:MAX_LISTED]
        heads = (read_entry(path, entry, HEAD_BYTES) for entry in entries)
        return any(_kind_of_one(head) or _is_header(head) for head in heads)
    except ValueError:
        return False


def _cut(record: EcgRecord, start_seconds: float, seconds: float | None) -> EcgRecord:
    """The part of a record that was asked for, without the median beat, which is of the whole."""
    if not start_seconds and seconds is None:
        return record
    samples = record.signal_mv.shape[1]
    first, last = sample_range(start_seconds, seconds, record.sampling_rate, samples, record.source)
    return replace(record, signal_mv=record.signal_mv[:, first:last], median_beat_mv=None)


def _is_text(head: bytes) -> bool:
    return bool(head) and not any(byte < 9 for byte in head)


def _first_line(head: bytes) -> str:
    lines = (line.strip() for line in head.decode("utf-8", "replace").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def _is_header(head: bytes) -> bool:
    line = _first_line(head)
    return _is_text(head) and "," not in line and bool(RECORD_LINE.match(line))


def _is_table(head: bytes) -> bool:
    if not _is_text(head) or head.lstrip().startswith(b"<"):
        return False
    return bool(re.search(r"[,;\t]", _first_line(head))) or names_a_lead(head)  # one lead needs no separator


def _describe(path: Path, head: bytes) -> str:
    if not head:
        return "the file is empty"
    if path.suffix == ".hea":
        return f"expected a WFDB record line (name, leads, rate, samples), got {_first_line(head)[:80]!r}"
    root = xml_root(head)
    return f"not a known ECG file, got {f'XML of {root[:40]!r}' if root else f'one that begins with {head[:8]!r}'}"
