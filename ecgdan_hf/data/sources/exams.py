"""CODE-15 % and SaMi-Trop, which share a layout: `exams.csv`, and tracings in HDF5.

CODE-15 %: 345,779 ECGs of 233,770 patients in Minas Gerais (Zenodo 4916206; Ribeiro et al., Nat Commun 11:1760, 2020;
Lima et al., Nat Commun 12:5117, 2021). SaMi-Trop: 1,631 ECGs of patients with chronic Chagas cardiomyopathy (Zenodo
4905618; Cardoso et al., BMJ Open 6:e011181, 2016). Tracings are (exams, 4096, 12) at 400 Hz, zero-padded. The
publishers state "scale 1e-4 V" but mean millivolt (github.com/antonior92/automatic-ecg-diagnosis, issue 3). Users
found amplitudes about twice those of other devices (antonior92/ecg-age-prediction, issues 1, 5); they are not changed.
"""

import logging
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ecgdan_hf.data.readers.declared import one_line
from ecgdan_hf.data.sources.published_tables import read_published
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS

logger = logging.getLogger(__name__)

_EXAMS_NAME = "exams.csv"
_SAMITROP_TRACINGS = "exams.hdf5"
_TRACINGS = "tracings"
_SAMPLING_RATE = 400.0
_LABELS = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
_COLUMNS = {"exam_id": "int64", "age": "float64", "is_male": "boolean", "death": "boolean", "timey": "float64"}
_CODE15_COLUMNS = {"patient_id": "int64", "trace_file": "str", **dict.fromkeys(_LABELS, "boolean")}
_OPTIONAL = {"normal_ecg": "boolean", "nn_predicted_age": "float64"}


def read_code15(data_dir: str | Path) -> pd.DataFrame:
    """Returns one row per exam of CODE-15 % whose tracing is in the folder, in the order of the parts.

    Columns: `record_id, patient_id, file, member, sampling_rate, unit, lead_names, age, sex, event, time, normal_ecg,
    nn_predicted_age, labels`. `event` is death, `time` years, both NaN except for a patient's first exam, as
    published; `labels` are of the six diagnoses.

    Args:
        data_dir: folder with `exams.csv` and those of `exams_part0.hdf5` to `exams_part17.hdf5` that were downloaded
            and unpacked.
    """
    data_dir = Path(data_dir)
    path = data_dir / _EXAMS_NAME
    exams = read_published(path, "CODE-15 %", "exam_id", {**_COLUMNS, **_CODE15_COLUMNS}, _OPTIONAL)
    names = sorted(exams["trace_file"].unique())
    parts = [name for name in names if (data_dir / name).is_file()]
    if not parts:
        packed = any(data_dir.glob("exams_part*.zip"))
        hint = "unpack the .zip files first" if packed else f"it names {len(names)} such files"
        raise FileNotFoundError(f"{data_dir / names[0]}: no such file, nor any other part of {_EXAMS_NAME}; {hint}")
    rows = pd.concat([_rows_of_part(data_dir, name) for name in parts])
    found = rows.merge(exams, on=["exam_id", "trace_file"], how="inner")
    if len(found) < len(exams):
        absent = len(names) - len(parts)
        logger.warning(
            "%s: %d of %d exams have no tracing here and are left out; %d of %d parts are missing",
            *(path, len(exams) - len(found), len(exams), absent, len(names)),
        )
    table = _as_table(found, path)
    table["labels"] = _labels(found)
    table.attrs["label_names"] = list(_LABELS)
    return table


def read_samitrop(data_dir: str | Path) -> pd.DataFrame:
    """Returns one row per exam of SaMi-Trop, one for each patient; columns as of [`read_code15`], without `labels`.

    The folder has `exams.csv` and `exams.hdf5`, whose tracings are in the order of the table.
    """
    path, tracings = (Path(data_dir) / name for name in (_EXAMS_NAME, _SAMITROP_TRACINGS))
    exams = read_published(path, "SaMi-Trop", "exam_id", _COLUMNS, _OPTIONAL)
    with _opened(tracings) as file:
        found = int(file[_TRACINGS].shape[0])
    if found != len(exams):
        raise ValueError(
            f"{tracings}: expected a tracing for each of {len(exams)} exams of {_EXAMS_NAME}, got {found}"
        )
    return _as_table(exams.assign(file=str(tracings), member=np.arange(found)), path)


def _rows_of_part(data_dir: Path, name: str) -> pd.DataFrame:
    """Exams of a part of CODE-15 % and their rows in it."""
    path = data_dir / name
    with _opened(path) as file:
        if "exam_id" not in file or len(file["exam_id"]) != file[_TRACINGS].shape[0]:
            raise ValueError(f"{path}: expected 'exam_id' with one number for each of its tracings")
        ids = np.asarray(file["exam_id"][:], dtype=np.int64)
    rows = pd.DataFrame({"exam_id": ids, "trace_file": name, "file": str(path), "member": np.arange(len(ids))})
    rows = rows[rows["exam_id"] != 0]  # each part ends with an empty row
    twice = rows["exam_id"][rows["exam_id"].duplicated()]
    if len(twice):
        raise ValueError(f"{path}: exam_id: expected each exam once, got {twice.iloc[0]} more than once")
    return rows


def _labels(exams: pd.DataFrame) -> list[list[str]]:
    """Names of the diagnoses that are true; each of the 64 combinations is made once."""
    true = exams[list(_LABELS)].fillna(False).to_numpy(dtype=bool)
    spelled = [[name for bit, name in enumerate(_LABELS) if code >> bit & 1] for code in range(2 ** len(_LABELS))]
    return [spelled[code].copy() for code in true @ (1 << np.arange(len(_LABELS)))]


def _as_table(exams: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The source's table of exams with `file` and `member`; `path` is named in warnings."""
    record_ids = exams["exam_id"].astype(str)
    sex = exams["is_male"].map({True: "male", False: "female"}).astype(object)
    event, time = _follow_up(exams, path)
    table = pd.DataFrame(
        {
            "record_id": record_ids,
            "patient_id": exams["patient_id"].astype(str) if "patient_id" in exams else record_ids,
            "file": exams["file"],
            "member": exams["member"].astype(str),
            "sampling_rate": _SAMPLING_RATE,
            "unit": "mV",
            "lead_names": ";".join(STANDARD_LEADS),
            "age": exams["age"],
            "sex": sex.where(sex.notna(), None),
            "event": event,
            "time": time,
        }
    )
    for name in _OPTIONAL:
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
    shape = getattr(file.get(_TRACINGS), "shape", None)
    if shape is None or len(shape) != 3 or shape[2] != len(STANDARD_LEADS):
        file.close()
        raise ValueError(f"{path}: expected 'tracings' (exams, samples, {len(STANDARD_LEADS)}), got shape {shape}")
    return file


def _follow_up(exams: pd.DataFrame, path: Path) -> tuple[pd.Series, pd.Series]:
    """Death (1, 0) and years to death or the end of follow-up; NaN where not stated."""
    stated = exams["death"].notna() & exams["timey"].notna()
    usable = stated & (exams["timey"] > 0)
    if unusable := int((stated & ~usable).sum()):
        logger.warning("%s: timey: %d exams have no time above zero and count as without follow-up", path, unusable)
    event = pd.Series(exams["death"].to_numpy(dtype=np.float64, na_value=np.nan), index=exams.index)
    return event.where(usable), exams["timey"].where(usable)
