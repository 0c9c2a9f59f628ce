"""A folder of ECG files, as hospitals export them, or of WFDB records, searched through its sub-folders.

The content of a file decides whether it is an ECG. Links that lead out of the folder are not followed. Ids, age and
sex come from the files; a file without an id counts as its own patient: for patients with several, give `patient_id`
in the outcomes table, or use a CSV of files.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wrapt import lazy_import

from ecgdan_hf.data import formats
from ecgdan_hf.data.prepared.shards import in_order
from ecgdan_hf.data.readers.tables import decoded
from ecgdan_hf.data.readers.wfdb_records import find_header, read_subject

if TYPE_CHECKING:
    import pandas as pd
else:  # slow to import, and not needed for most files
    pd = lazy_import("pandas")

logger = logging.getLogger(__name__)

# an empty file with such a suffix is a failed copy, which should be reported
_ECG_SUFFIXES = (".dcm", ".ecg", ".edf", ".h5", ".hdf5", ".mat", ".mfer", ".mwf", ".npy", ".npz", ".scp", ".xml")
_UNREAD_SUFFIXES = (".bdf", ".dicom", ".pdf", ".xlsx", ".xls")
_MIN_TABLE_BYTES = 10_000
_WITH_SUBJECT = ("cardiosoft", "hl7-aecg", "muse", "sierra", "mortara", "kardia", "dicom", "scp-ecg", "edf", "mfer")
_NOBODY = re.compile(r"[0\W_X]*|anonym\w*|unknown|none|n/?a|test|unbekannt|desconocido", re.IGNORECASE)


def ecg_files(folder: str | Path) -> list[Path]:
    """The ECG files below a folder, sorted by name; raises FileNotFoundError if there is no such folder.

    A WFDB record counts once, with its header; its segments do not count. A .csv counts if its first row names a lead,
    a .zip if it holds an ECG, an empty file if it has the suffix of an ECG. PDFs count if there is nothing else.
    Hidden files and folders are skipped.
    """
    return list(_ecg_files(Path(folder)))


def expand_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Returns the files, with folders replaced by their ECG files, in order and each once.

    A data file of a WFDB record stands for its record. A path that does not exist is kept: reading it reports the
    error. A folder without any ECG file raises FileNotFoundError.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise ValueError("paths: expected at least one file or folder, got none")
    files: dict[Path, None] = {}
    for path in map(Path, given):
        if not path.is_dir():
            files[_record_path(path)] = None
            continue
        found = ecg_files(path)
        if not found:
            raise FileNotFoundError(f"{path}: no ECG file in this folder; what is read: {formats.READABLE}")
        files.update(dict.fromkeys([*found, *left_out_files(path)]))  # their rows say why they cannot be read
    return list(files)


def _record_path(path: Path) -> Path:
    """Replaces a WFDB data file or stem by its header."""
    if path.suffix.lower() == ".hea":
        return path
    header = path.with_name(path.name + ".hea")
    return (find_header(path) if path.is_file() else None) or (header if header.is_file() else path)


def left_out_files(folder: str | Path) -> dict[Path, str]:
    """Files below a folder that look like recordings and are not among `ecg_files`, with the reason.

    Those have the suffix of an ECG, or are large tables of numbers without names of leads.
    """
    folder = Path(folder)
    taken, files = set(ecg_files(folder)), sorted(_files_inside(folder))
    parts = {part for file in files if file.suffix == ".hea" for part in _parts(file)}
    others = [file for file in files if file not in taken and file not in parts and _looks_recorded(file)]
    return {file: _why(file) for file in others}


def _looks_recorded(file: Path) -> bool:
    if file.suffix.lower() in (*_ECG_SUFFIXES, *_UNREAD_SUFFIXES):
        return True
    if file.suffix.lower() not in (".csv", ".tsv", ".txt") or file.stat().st_size < _MIN_TABLE_BYTES:
        return False
    lines = (decoded(file.read_bytes()[:4096]) or "").splitlines()[:-1]  # the last may be cut
    numbers = [line for line in lines if re.fullmatch(r"[-+\d.,;\s\"eE]+", line)]
    return len(numbers) > len(lines) // 2


def _why(file: Path) -> str:
    try:
        if file.suffix.lower() == ".pdf" and file.stat().st_size:
            return "a PDF among recordings in other formats, probably a printout of one"
        formats.read(file)
    except (ValueError, OSError) as error:
        return str(error).replace(f"{file}: ", "").partition("; what is read")[0]
    return "not recognised by its content"


def holds_ecgs(folder: Path) -> bool:
    """Whether there is an ECG of any format below the folder."""
    return next(_ecg_files(folder), None) is not None


def holds_wfdb_alone(folder: Path) -> bool:
    """Whether there are WFDB records below the folder and no ECG of another format."""
    suffixes = (file.suffix for file in _ecg_files(folder))
    return next(suffixes, None) == ".hea" and all(suffix == ".hea" for suffix in suffixes)


def read_folder(data_dir: str | Path) -> "pd.DataFrame":
    """Returns one row for each ECG file below `data_dir`: `record_id`, `patient_id`, `file`; `age`, `sex` if known.

    `record_id` is the path below the folder, without suffix if all are then still different. `patient_id` is that in
    the file, or `record_id` for a file without one.
    """
    data_dir = Path(data_dir)
    files = ecg_files(data_dir)
    if not files:
        raise FileNotFoundError(f"{data_dir}: expected ECG files, found none; what is read: {formats.READABLE}")
    paths = [file.relative_to(data_dir) for file in files]
    record_ids = [path.with_suffix("").as_posix() for path in paths]
    if len(set(record_ids)) < len(record_ids):
        record_ids = [path.as_posix() for path in paths]
    subjects = list(in_order(_subject, files, None))
    patients = [patient or record for record, (patient, _, _) in zip(record_ids, subjects, strict=True)]
    table = pd.DataFrame({"record_id": record_ids, "patient_id": patients, "file": [str(file) for file in files]})
    ages, sexes = [age for _, age, _ in subjects], [sex for _, _, sex in subjects]
    if any(age is not None for age in ages):
        table["age"] = pd.Series(ages, dtype=float)
    if any(sexes):
        table["sex"] = pd.Series(sexes, dtype=object)
    return table


def _subject(file: Path) -> tuple[str | None, float | None, str | None]:
    """Patient, age in years and sex that a file states; a file that cannot be read is reported later."""
    if file.suffix == ".hea":
        said = read_subject(file)
        return None, said["age"], said["sex"]
    try:
        if formats.kind(file) not in _WITH_SUBJECT:
            return None, None, None
        record = formats.read(file)
    except (ValueError, OSError):
        return None, None, None
    named = record.patient_id is not None and not _NOBODY.fullmatch(record.patient_id.strip())
    return record.patient_id if named else None, record.age, record.sex


def read_wfdb_folder(data_dir: str | Path) -> "pd.DataFrame":
    """Returns one row for each WFDB record below `data_dir`, sorted by name; segments do not count.

    Columns: `record_id` and `patient_id` (path below the folder, without suffix), `file`, and `age`, `sex` as in
    headers.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: no such folder")
    found = sorted(path for path in data_dir.rglob("*.hea") if not _is_hidden(path.relative_to(data_dir)))
    if not found:
        raise FileNotFoundError(f"{data_dir}: expected WFDB records, found no .hea file")
    segments = {part for header in found for part in _parts(header)}
    headers = [header for header in found if header not in segments]
    record_ids = [header.relative_to(data_dir).with_suffix("").as_posix() for header in headers]
    subjects = [read_subject(header) for header in headers]
    return pd.DataFrame(
        {
            "record_id": record_ids,
            "patient_id": record_ids,
            "file": [str(header.with_suffix("")) for header in headers],
            "age": pd.Series([subject["age"] for subject in subjects], dtype=float),
            "sex": pd.Series([subject["sex"] for subject in subjects], dtype=object),
        }
    )


def _ecg_files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder, found none")
    files = sorted(_files_inside(folder))
    parts = {part for file in files if file.suffix == ".hea" for part in _parts(file)}
    return _printed_last(file for file in files if file not in parts and _counts(file))


def _printed_last(files: Iterable[Path]) -> Iterator[Path]:
    """The files without PDFs; these only if there is nothing else, as they are printouts of it, or letters."""
    printed, others = list[Path](), False
    for file in files:
        if file.suffix.lower() == ".pdf":
            printed.append(file)
        else:
            others = True
            yield file
    if not others:
        yield from printed


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _files_inside(folder: Path) -> Iterator[Path]:
    root, outside = folder.resolve(), 0
    for parent, folders, names in os.walk(folder):  # does not follow links to folders
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(parent) / name for name in names if not name.startswith(".")):
            if file.is_symlink() and not file.resolve().is_relative_to(root):
                outside += 1
            elif file.is_file():
                yield file
    if outside:
        logger.warning("%s: %d links to files outside this folder are left out", folder, outside)


def _counts(file: Path) -> bool:
    if file.suffix == ".hea":  # a damaged one is reported when it is read
        return True
    try:
        if not file.stat().st_size:
            return file.suffix.lower() in _ECG_SUFFIXES
        return formats.kind(file) not in ("wfdb", None)
    except OSError as error:
        logger.warning("%s is left out: %s", file, error)
        return False


def _parts(header: Path) -> set[Path]:
    """The files that a header names: its data, or the headers of its segments (`name/segments ...`)."""
    lines = [
        line.split()
        for line in header.read_text(encoding="utf-8", errors="replace").splitlines()
        if not line.startswith("#")
    ]
    (first, *_), *others = [words for words in lines if words] or [[""]]
    suffix = ".hea" if "/" in first else ""
    return {header.parent / f"{words[0]}{suffix}" for words in others} - {header}
