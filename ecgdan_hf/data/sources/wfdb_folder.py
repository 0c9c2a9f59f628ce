"""A folder of WFDB records, searched through its sub-folders; each record stands for its own patient.

Headers carry no patient number: where a patient has several records, give `patient_id` in the outcomes table, or use a
CSV of files.
"""

from pathlib import Path

import pandas as pd

from ecgdan_hf.data.readers.wfdb_records import read_subject


def read_table(data_dir: str | Path) -> pd.DataFrame:
    """One row per record found below `data_dir`, sorted by name; the segments of a record are none of their own.

    Args:
        data_dir: folder with `.hea` files; hidden folders are left out.

    Returns:
        Columns `record_id` (path below the folder, without suffix), `patient_id` (the same), `file`, and `age`, `sex`
        where the header's comments say them.

    Raises:
        FileNotFoundError: no such folder, or no header in it.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: no such folder")
    headers = sorted(path for path in data_dir.rglob("*.hea") if not _is_hidden(path.relative_to(data_dir)))
    if not headers:
        raise FileNotFoundError(f"{data_dir}: expected WFDB records, found no .hea file")
    segments = {segment for header in headers for segment in _segments(header)}
    headers = [header for header in headers if header not in segments]
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


def _segments(header: Path) -> list[Path]:
    """Headers of the segments that a record of several (`name/segments ...`) is made of."""
    text = header.read_text(encoding="utf-8", errors="replace")
    lines = [line.split() for line in text.splitlines() if line.strip()[:1] not in ("", "#")]
    return [header.with_name(f"{words[0]}.hea") for words in lines[1:]] if lines and "/" in lines[0][0] else []


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
