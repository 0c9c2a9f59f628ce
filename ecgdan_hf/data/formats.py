"""Any single ECG file as an `EcgRecord`.

The content of a file decides its format, not its name. A rate and a unit are never guessed: the file states them or
the caller does, and the two may not differ.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np

from ecgdan_hf.data.readers.arrays import CSV, NUMPY
from ecgdan_hf.data.readers.cardiosoft import CARDIOSOFT
from ecgdan_hf.data.readers.declared import Declared, known_leads, one_line
from ecgdan_hf.data.readers.matlab import HDF5, MATLAB
from ecgdan_hf.data.readers.median_beats import with_median_beat
from ecgdan_hf.data.readers.parquet import PARQUET
from ecgdan_hf.data.readers.pdf import DIGITISERS, PDF
from ecgdan_hf.data.readers.tables import names_a_lead
from ecgdan_hf.data.readers.vendors import VENDOR_FORMATS, xml_root
from ecgdan_hf.data.readers.wfdb_records import RECORD_LINE, find_header, read_wfdb, sample_range
from ecgdan_hf.data.readers.zips import MAX_BYTES, ZipReader
from ecgdan_hf.data.record import EcgRecord

READABLE = (
    "WFDB (.hea with its .dat), HL7 aECG, GE MUSE, GE CardioSoft, Philips Sierra, Mortara, AliveCor Kardia, DICOM, "
    "SCP-ECG, EDF, ISHNE, MFER, PDF with the ECG as lines, .npy, .npz, .csv, MATLAB, HDF5, Parquet, and one of these "
    "in a .zip"
)
FORMATS = (NUMPY, HDF5, MATLAB, PARQUET, PDF, CARDIOSOFT, *VENDOR_FORMATS, CSV)
"""In the order in which a file is compared with them; WFDB, with files beside its header, and zips come before."""

_OTHERS = {  # what ECGs come in and is not read, with what to do
    b"\xffBIOSEMI": "BDF of 24 bits; export it as EDF",
    **dict.fromkeys((b"\0\0\0\0\2\0\0\0", b"\0\0\0\0\1\0\0\0"), "MATLAB of version 4; save it with save(..., '-v7')"),
    **dict.fromkeys(
        (b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"GIF8"), f"a picture of an ECG at best; {DIGITISERS}"
    ),
    b"\xd0\xcf\x11\xe0": "an Excel workbook of 2003 or older; save it as .csv",
}
_HEAD_BYTES = 4096
_ZIP_MARK = b"PK\x03\x04"
_MAX_LISTED = 100  # entries of a zip that are looked into


@np.errstate(over="ignore", invalid="ignore")  # what exceeds float32 becomes infinity, which `EcgRecord` refuses
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
            system, or an array: .npy, .npz, .csv, MATLAB, HDF5. Arrays are (leads, samples) or (samples, leads); a
            .npz, MATLAB or HDF5 file names them `signal`, `sampling_rate`, `unit`, `lead_names`; a .csv has a column
            for each lead, and may have a time column in seconds and lines `# sampling_rate: 500` and `# unit: mV`
            before its names.
        sampling_rate: Hz; needed if the file does not state it, and may not contradict the file.
        unit: `"mV"`, `"uV"` or `"V"`; likewise.
        lead_names: names in the order of the file; likewise.
        member: which record of a file that holds several: the name of an entry in a zip, the row of an HDF5 or
            Parquet file.
        start_seconds: where to begin, such as a segment of a Holter recording.
        seconds: how much to read; None reads to the end.
        median_file: WFDB record with the median beat of the recording, if that is in a file of its own; see
            `readers.median_beats`.

    Returns:
        The record, in millivolt. A part of a recording has no median beat.

    Raises:
        FileNotFoundError: no such file, or a header names data that do not exist.
        ValueError: the file is damaged or too large, or rate, unit or lead names are missing or contradict the file.
    """
    path = Path(path)
    if not path.is_file():
        header = path.with_name(path.name + ".hea")
        if not header.is_file():
            found = "expected a file, got a folder" if path.is_dir() else "no such file"
            raise FileNotFoundError(f"{path}: {found} (nor a WFDB header {header.name})")
        path = header
    try:
        return _read_part(path, Declared(sampling_rate, unit, lead_names), member, start_seconds, seconds, median_file)
    except OSError:
        raise
    except ValueError as error:
        if str(path.with_suffix("")) in str(error):
            raise
        raise ValueError(f"{path}: {one_line(error)}") from error  # of a library, which does not know the file
    except ImportError as error:  # where the package was installed without all that it requires
        raise ValueError(f"{path}: needs {error.name}, which is not installed; pip install {error.name}") from error
    except Exception as error:  # of a decoder: one damaged file must not stop the others
        raise ValueError(f"{path}: damaged file: {type(error).__name__}: {one_line(error)[:200]}") from error


def _read_part(
    path: Path,
    declared: Declared,
    member: str | None,
    start_seconds: float,
    seconds: float | None,
    median_file: str | Path | None,
) -> EcgRecord:
    head = _head(path)
    record_header = _wfdb_header(path, head) if member is None else None
    if record_header is not None:
        record = read_wfdb(record_header, declared, start_seconds, seconds)
    else:
        record = _read(path, head, None if member is None else str(member), declared)
        record = _cut(record, start_seconds, seconds)
    record = known_leads(record)
    whole = not start_seconds and seconds is None
    return with_median_beat(record, median_file) if median_file is not None and whole else record


def kind(path: str | Path) -> str | None:
    """Returns the format of an ECG file, by its first bytes; None for any other file.

    Returns:
        `"wfdb"` (a header, or data that a header in its folder names), `"zip"` (if it holds an ECG), or the name of
        one of `FORMATS`: `"numpy"`, `"csv"` (if its first row names a lead), `"matlab"`, `"hdf5"`, `"parquet"`,
        `"pdf"`, `"cardiosoft"`, `"hl7-aecg"`, `"muse"`, `"sierra"`, `"mortara"`, `"kardia"`, `"dicom"`, `"scp-ecg"`,
        `"edf"`, `"ishne"`, `"mfer"`.
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
        return file.read(_HEAD_BYTES)


def _wfdb_header(path: Path, head: bytes) -> Path | None:
    """The header of a WFDB record: the file itself, or the one in its folder that names it."""
    return path if _is_header(head) else find_header(path)


def _kind(path: Path, head: bytes) -> str | None:
    if _wfdb_header(path, head):
        return "wfdb"
    if _is_zip(head):
        return "zip"
    return next((each.name for each in FORMATS if each.recognises(head)), None)


def _is_zip(head: bytes) -> bool:
    return head.startswith(_ZIP_MARK) and not NUMPY.recognises(head)  # a .npz is a zip too


def _read(path: Path, head: bytes, member: str | None, declared: Declared) -> EcgRecord:
    """Reads any file but a WFDB record."""
    found, size = _kind(path, head), path.stat().st_size
    if found is None or (found == "wfdb" and member is None):
        raise ValueError(f"{path}: {_describe(path, head)}; what is read: {READABLE}")
    known = next((each for each in FORMATS if each.name == found), None)
    if known is not None and known.has_members:
        return known.read(path, declared, member)
    if size > MAX_BYTES:
        raise ValueError(f"{path}: expected a file of at most {MAX_BYTES >> 20} MiB, got {size >> 20} MiB")
    if found == "zip":
        return _read_entry(path, member, declared)
    if known is None or member is not None:
        raise ValueError(f"{path}: member: expected None, as the file holds one record, got {member!r}")
    return known.read(path, declared, None)


def _read_entry(path: Path, member: str | None, declared: Declared) -> EcgRecord:
    """Reads an entry of a zip, copied to a temporary file for the readers that need one."""
    packed = ZipReader(path)
    names = {entry.filename: entry for entry in packed.entries()}
    if any(name.endswith(".hea") for name in names) and (member is None or member.endswith((".hea", ".dat"))):
        raise ValueError(f"{path}: expected a file that holds a whole record, got a WFDB record in parts; unpack it")
    if member is None and len(names) == 1:
        member = next(iter(names))
    if member not in names:
        listed = ", ".join(list(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise ValueError(f"{path}: member: expected an entry of this zip ({listed or 'it is empty'}), got {member!r}")
    where = f"{path}/{member}"
    content = packed.read(names[member])
    if _is_zip(content):
        raise ValueError(f"{where}: expected an ECG file, got a zip in a zip; unpack it")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "entry"
        file.write_bytes(content)
        try:
            record = _read(file, content[:_HEAD_BYTES], None, declared)
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(str(file), where)) from error
    return replace(record, record_id=PurePosixPath(member).stem, source=where)


def _holds_an_ecg(path: Path) -> bool:
    """Whether one of the first entries of a zip is an ECG; a .csv or .npz among them does not count."""
    packed = ZipReader(path)
    try:
        heads = (packed.read(entry, _HEAD_BYTES) for entry in packed.entries()[:_MAX_LISTED])
        return any(_is_header(head) or _is_ecg_by_mark(head) for head in heads)
    except ValueError:
        return False


def _is_ecg_by_mark(head: bytes) -> bool:
    known = (each for each in FORMATS if each is not CSV)
    return not head.startswith(_ZIP_MARK) and any(each.recognises(head) for each in known)


def _cut(record: EcgRecord, start_seconds: float, seconds: float | None) -> EcgRecord:
    """The part of a record that was asked for, without the median beat of the whole."""
    if not start_seconds and seconds is None:
        return record
    samples = record.signal_mv.shape[1]
    first, last = sample_range(start_seconds, seconds, record.sampling_rate, samples, record.source)
    return replace(record, signal_mv=record.signal_mv[:, first:last], median_beat_mv=None)


def _first_line(head: bytes) -> str:
    lines = (line.strip() for line in head.decode("utf-8", "replace").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def _is_header(head: bytes) -> bool:
    line = _first_line(head) if head and min(head) >= 9 else ""
    return "," not in line and bool(RECORD_LINE.match(line))


def _describe(path: Path, head: bytes) -> str:
    if not head:
        return "the file is empty"
    other = next((words for mark, words in _OTHERS.items() if head.startswith(mark)), None)
    if other is not None:
        return f"not a known ECG file, got {other}"
    if path.suffix == ".hea":
        return f"expected a WFDB record line (name, leads, rate, samples), got {repr(_first_line(head)[:80])[:80]}"
    root = xml_root(head)
    return f"not a known ECG file, got {f'XML of {root[:40]!r}' if root else f'one that begins with {head[:8]!r}'}"
