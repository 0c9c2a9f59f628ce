"""Names of sources, and which of them a folder holds; each source is a module with a `read_table`."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ecgdan_hf.data import source_name
from ecgdan_hf.data.readers import parquet as parquet_files
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.data.sources import code15, ecg_folder, mimic_iv_ecg, mitbih, ptbxl, samitrop, ukbiobank, wfdb_folder
from ecgdan_hf.data.sources import csv_table as csv_files


def _synthetic(data_dir: Path) -> pd.DataFrame:
    """The cohort in a folder, made first where the folder is absent or empty."""
    if not data_dir.exists() or not any(data_dir.iterdir()):
        synthetic.write_cohort(data_dir)
    return csv_files.read_table(data_dir)


SOURCES: dict[str, Callable[..., pd.DataFrame]] = {
    "ptb-xl": ptbxl.read_table,
    "code-15": code15.read_table,
    "sami-trop": samitrop.read_table,
    "mimic-iv-ecg": mimic_iv_ecg.read_table,
    "mit-bih": mitbih.read_table,
    "ukb": ukbiobank.read_table,
    "wfdb": wfdb_folder.read_table,
    "csv": csv_files.read_table,
    "parquet": parquet_files.read_table,
    "synthetic": _synthetic,
    "folder": ecg_folder.read_table,
}

# a file that tells a source, the particular before the general
_TELLING = (
    ("ptb-xl", ptbxl.DATABASE_NAME),
    ("mimic-iv-ecg", mimic_iv_ecg.LIST_NAME),
    ("sami-trop", "exams.hdf5"),
    ("sami-trop", "exams.zip"),
    ("code-15", "exams.csv"),
    ("csv", csv_files.TABLE_NAME),
    ("parquet", "data/*.parquet"),
    ("parquet", "*.parquet"),
    ("mit-bih", mitbih.FILE_PATTERN),
    ("ukb", "**/*_20205_*"),
)


def read_table(
    name: str, data_dir: str | Path, *, sampling_rate: int = 500, label_level: str = "superclass"
) -> pd.DataFrame:
    """The table of a source, one row per record; see `load` for the arguments.

    Raises:
        FileNotFoundError: the folder or a part of it is missing.
        ValueError: an unknown source, or a table that cannot be used.
    """
    name = source_name(name)
    if name not in SOURCES:
        raise ValueError(f"name: expected a source, one of {', '.join(SOURCES)}, got {name!r}")
    options = (sampling_rate, label_level) if name == "ptb-xl" else ()
    return SOURCES[name](Path(data_dir), *options)


def detect_source(data_dir: str | Path) -> str:
    """Which source a folder holds, by the files in it.

    Returns:
        The name of a known layout, else `"wfdb"` where all ECGs are WFDB records, else `"folder"`.

    Raises:
        FileNotFoundError: no such folder, or no ECG in it.
    """
    data_dir = Path(data_dir)
    if not data_dir.exists():
        raise FileNotFoundError(f"{data_dir}: no such folder")
    if data_dir.is_file():
        return "ukb" if data_dir.suffix.lower() == ".zip" else "csv"
    for name, pattern in _TELLING:
        if any(data_dir.glob(pattern)):
            return name
    if ukbiobank.in_zips(data_dir):
        return "ukb"
    ecgs = ecg_folder.ecg_files(data_dir)
    if not ecgs:
        layouts = ", ".join(dict.fromkeys(name for name, _ in _TELLING))
        raise FileNotFoundError(f"{data_dir}: expected ECG files or the layout of {layouts}, found none of them")
    return "wfdb" if all(file.suffix == ".hea" for file in ecgs) else "folder"
