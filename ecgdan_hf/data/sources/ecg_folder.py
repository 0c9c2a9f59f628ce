"""A folder of ECG files in any mix of formats, as hospitals export them, searched through its sub-folders.

What counts as an ECG is decided by content. Links that lead out of the folder are not followed.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ecgdan_hf.data import formats

logger = logging.getLogger(__name__)

# an empty file of such a name is a copy that failed, and somebody should hear of it
_ECG_SUFFIXES = (".dcm", ".ecg", ".edf", ".h5", ".hdf5", ".mat", ".mfer", ".mwf", ".npy", ".npz", ".scp", ".xml")


def ecg_files(folder: str | Path) -> list[Path]:
    """The ECG files below a folder, sorted by name.

    A WFDB record counts once, with its header; the segments of a record of several do not count. A .csv counts if its
    first row names a lead, a .zip if it holds an ECG, an empty file if it is named like an ECG. Hidden files
    and folders are left out.

    Raises:
        FileNotFoundError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder, found none")
    files = sorted(_files_inside(folder))
    parts = {part for file in files if file.suffix == ".hea" for part in _parts(file)}
    return [file for file in files if file not in parts and _counts(file)]


def read_table(data_dir: str | Path) -> pd.DataFrame:
    """One row for each ECG file below `data_dir`; each stands for its own patient.

    Where a patient has several records, give `patient_id` in the outcomes table, or use a CSV of files.

    Returns:
        Columns `record_id` (path below the folder; without suffix if that leaves all different), `patient_id` (the
        same) and `file`.

    Raises:
        FileNotFoundError: no such folder, or no ECG in it.
    """
    data_dir = Path(data_dir)
    files = ecg_files(data_dir)
    if not files:
        raise FileNotFoundError(f"{data_dir}: expected ECG files, found none; what is read: {formats.READABLE}")
    paths = [file.relative_to(data_dir) for file in files]
    record_ids = [path.with_suffix("").as_posix() for path in paths]
    if len(set(record_ids)) < len(record_ids):
        record_ids = [path.as_posix() for path in paths]
    return pd.DataFrame({"record_id": record_ids, "patient_id": record_ids, "file": [str(file) for file in files]})


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
    if file.suffix == ".hea":  # a damaged one is to be reported when it is read
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
