"""CODE-15 %: 345,779 ECGs of 233,770 patients in Minas Gerais, with diagnoses and deaths (Zenodo 4916206).

Ribeiro et al., Nature Communications 11:1760 (2020); Lima et al., Nature Communications 12:5117 (2021). Expects
`exams.csv` and those of `exams_part0.hdf5` to `exams_part17.hdf5` that were downloaded and unpacked. Follow-up is
published with the first exam of each patient only.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from ecgdan_hf.data.sources.exams import EXAMS_NAME, as_table, exam_ids, read_exams

logger = logging.getLogger(__name__)

LABELS = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")


def read_code15(data_dir: str | Path) -> pd.DataFrame:
    """One row per exam whose tracing is here.

    Args:
        data_dir: folder with `exams.csv` and the HDF5 parts.

    Returns:
        Columns `record_id, patient_id, file, member, sampling_rate, unit, lead_names, age, sex, event, time,
        normal_ecg, nn_predicted_age, labels`, in the order of the parts. `event` is death, `time` years, both NaN for
        all but a patient's first exam; `labels` are of the six diagnoses.

    Raises:
        FileNotFoundError: no `exams.csv`, or none of the parts it names.
        ValueError: a table that is not CODE-15's, or a damaged part.
    """
    data_dir = Path(data_dir)
    path = data_dir / EXAMS_NAME
    types = {"patient_id": "int64", "trace_file": "str", **dict.fromkeys(LABELS, "boolean")}
    exams = read_exams(path, "CODE-15 %", types)
    names = sorted(exams["trace_file"].unique())
    parts = [name for name in names if (data_dir / name).is_file()]
    if not parts:
        packed = any(data_dir.glob("exams_part*.zip"))
        hint = "unpack the .zip files first" if packed else f"it names {len(names)} such files"
        raise FileNotFoundError(f"{data_dir / names[0]}: no such file, nor any other part of {EXAMS_NAME}; {hint}")
    rows = pd.concat([_rows(data_dir, name) for name in parts])
    found = rows.merge(exams, on=["exam_id", "trace_file"], how="inner")
    if len(found) < len(exams):
        absent = len(names) - len(parts)
        logger.warning(
            "%s: %d of %d exams have no tracing here and are left out; %d of %d parts are missing",
            *(path, len(exams) - len(found), len(exams), absent, len(names)),
        )
    table = as_table(found, path)
    table["labels"] = _labels(found)
    table.attrs["label_names"] = list(LABELS)
    return table


def _rows(data_dir: Path, name: str) -> pd.DataFrame:
    """Where the exams of a part lie in it."""
    path = data_dir / name
    ids = exam_ids(path)
    rows = pd.DataFrame({"exam_id": ids, "trace_file": name, "file": str(path), "member": np.arange(len(ids))})
    rows = rows[rows["exam_id"] != 0]  # each part ends with an empty row
    twice = rows["exam_id"][rows["exam_id"].duplicated()]
    if len(twice):
        raise ValueError(f"{path}: exam_id: expected each exam once, got {twice.iloc[0]} more than once")
    return rows


def _labels(exams: pd.DataFrame) -> list[list[str]]:
    """Names of the diagnoses that are true; the 64 combinations are spelled once."""
    true = exams[list(LABELS)].fillna(False).to_numpy(dtype=bool)
    spelled = [[name for bit, name in enumerate(LABELS) if code >> bit & 1] for code in range(2 ** len(LABELS))]
    return [spelled[code].copy() for code in true @ (1 << np.arange(len(LABELS)))]
