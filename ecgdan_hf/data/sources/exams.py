"""`exams.csv` and tracings in HDF5, as CODE-15 % and SaMi-Trop publish them.

Tracings are (exams, 4096, 12) at 400 Hz: 7 or 10 s in the middle of zeros, which are cut off when a row is read. The
publishers write "at the scale 1e-4 V", and have said that millivolt is meant (github.com/antonior92/
automatic-ecg-diagnosis, issue 3). Readers found amplitudes about twice those of other devices (antonior92/
ecg-age-prediction, issues 1 and 5); they are left as published.
"""

import logging
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ecgdan_hf.data.readers.declared import one_line
from ecgdan_hf.data.sources.published_tables import read_published
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

logger = logging.getLogger(__name__)

EXAMS_NAME = "exams.csv"
TRACINGS = "tracings"
SAMPLING_RATE = 400.0

COLUMNS = {"exam_id": "int64", "age": "float64", "is_male": "boolean", "death": "boolean", "timey": "float64"}
OPTIONAL = {"normal_ecg": "boolean", "nn_predicted_age": "float64"}


def read_exams(path: Path, source: str, more: dict[str, str] | None = None) -> pd.DataFrame:
    """The columns of `exams.csv` that both sources have, and `more` with their types.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a table that is not the source's.
    """
    return read_published(path, source, "exam_id", {**COLUMNS, **(more or {})}, OPTIONAL)


def num_tracings(path: Path) -> int:
    """Number of tracings in an HDF5 file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without tracings of twelve leads, or a damaged one.
    """
    with _opened(path) as file:
        return int(file[TRACINGS].shape[0])


def exam_ids(path: Path) -> np.ndarray:
    """Exam of each tracing in an HDF5 file; 0 where the file was filled up.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without tracings of twelve leads or their exams, or a damaged one.
    """
    with _opened(path) as file:
        if "exam_id" not in file or len(file["exam_id"]) != file[TRACINGS].shape[0]:
            raise ValueError(f"{path}: expected 'exam_id' with one number for each of its tracings")
        return np.asarray(file["exam_id"][:], dtype=np.int64)


def as_table(exams: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Exams as a source's table.

    Args:
        exams: what `read_exams` gives, with `file` and `member` (row in it), and `patient_id` where it is known.
        path: the `exams.csv`, to name in warnings.

    Returns:
        Columns `record_id, patient_id, file, member, sampling_rate, unit, lead_names, age, sex, event, time` (death,
        years), and `normal_ecg`, `nn_predicted_age` where they are known. Both `event` and `time` are NaN where there
        is no follow-up.
    """
    record_ids = exams["exam_id"].astype(str)
    sex = exams["is_male"].map({True: "male", False: "female"}).astype(object)
    event, time = _follow_up(exams, path)
    table = pd.DataFrame(
        {
            "record_id": record_ids,
            "patient_id": exams["patient_id"].astype(str) if "patient_id" in exams else record_ids,
            "file": exams["file"],
            "member": exams["member"].astype(str),
            "sampling_rate": SAMPLING_RATE,
            "unit": "mV",
            "lead_names": ";".join(STANDARD_LEADS),
            "age": exams["age"],
            "sex": sex.where(sex.notna(), None),
            "event": event,
            "time": time,
        }
    )
    for name in OPTIONAL:
        if name in exams:
            table[name] = exams[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return table.reset_index(drop=True)


def _opened(path: Path) -> h5py.File:
    if not path.is_file():
        packed = path.with_suffix(".zip")
        hint = f"unpack {packed.name} first" if packed.is_file() else "it holds the signals"
        raise FileNotFoundError(f"{path}: no such file; {hint}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: truncated or damaged HDF5 file: {one_line(error)}") from error
    shape = getattr(file.get(TRACINGS), "shape", None)
    if shape is None or len(shape) != 3 or shape[2] != len(STANDARD_LEADS):
        file.close()
        raise ValueError(f"{path}: expected 'tracings' (exams, samples, {len(STANDARD_LEADS)}), got shape {shape}")
    return file


def _follow_up(exams: pd.DataFrame, path: Path) -> tuple[pd.Series, pd.Series]:
    """Death (1, 0) and years to it or to the end of follow-up; NaN where the table leaves them open."""
    stated = exams["death"].notna() & exams["timey"].notna()
    usable = stated & (exams["timey"] > 0)
    if unusable := int((stated & ~usable).sum()):
        logger.warning("%s: timey: %d exams have no time above zero and count as without follow-up", path, unusable)
    event = pd.Series(exams["death"].to_numpy(dtype=np.float64, na_value=np.nan), index=exams.index)
    return event.where(usable), exams["timey"].where(usable)
