"""Names of sources, and which of them a folder holds; each source is a module with a `read_table`."""

from pathlib import Path

import pandas as pd

from ecgdan_hf.data import csv_files, ptbxl, synthetic, wfdb_folder

SOURCES = ("ptb-xl", "wfdb", "csv", "synthetic")


def read_table(
    name: str, data_dir: str | Path, *, sampling_rate: int = 500, label_level: str = "superclass"
) -> pd.DataFrame:
    """The table of a source, one row per record; see `load` for the arguments.

    Raises:
        FileNotFoundError: the folder or a part of it is missing.
        ValueError: an unknown source, or a table that cannot be used.
    """
    data_dir = Path(data_dir)
    if name == "ptb-xl":
        return ptbxl.read_table(data_dir, sampling_rate, label_level)
    if name == "wfdb":
        return wfdb_folder.read_table(data_dir)
    if name == "csv":
        return csv_files.read_table(data_dir)
    if name == "synthetic":
        if not data_dir.exists() or not any(data_dir.iterdir()):
            synthetic.write_cohort(data_dir)
        return csv_files.read_table(data_dir)
    raise ValueError(f"name: expected a source, one of {', '.join(SOURCES)}, got {name!r}")


def detect_source(data_dir: str | Path) -> str:
    """Which source a folder holds, by the files in it.

    Raises:
        FileNotFoundError: no such folder, or none of the known layouts.
    """
    data_dir = Path(data_dir)
    if not data_dir.exists():
        raise FileNotFoundError(f"{data_dir}: no such folder")
    if (data_dir / ptbxl.DATABASE_NAME).is_file():
        return "ptb-xl"
    if data_dir.is_file() or (data_dir / csv_files.TABLE_NAME).is_file():
        return "csv"
    if any(data_dir.rglob("*.hea")):
        return "wfdb"
    expected = f"{ptbxl.DATABASE_NAME}, {csv_files.TABLE_NAME} or WFDB headers"
    raise FileNotFoundError(f"{data_dir}: expected {expected}, found none of them")
