"""MIT-BIH Arrhythmia Database: two-lead Holter recordings, cut into segments with the beats in them.

Moody and Mark, IEEE EMB 20(3):45 (2001): 48 records of 47 patients, 30 min, 360 Hz, each beat annotated (`.atr`).
Labels are the short names of the beat annotations in WFDB's `ecgcodes.h`; `APC` is an atrial premature beat, `PVC` a
premature ventricular contraction. Records 201 and 202 are of the same patient.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import wfdb

from ecgdan_hf.data.readers.declared import one_line

BEATS = {
    "N": "NORMAL",
    "L": "LBBB",
    "R": "RBBB",
    "A": "APC",
    "a": "ABERR",
    "J": "NPC",
    "S": "SVPB",
    "V": "PVC",
    "F": "FUSION",
    "e": "AESC",
    "j": "NESC",
    "E": "VESC",
    "/": "PACE",
    "f": "PFUS",
    "Q": "UNKNOWN",
}
PACED = ("102", "104", "107", "217")
SAME_PATIENT = {"202": "201"}
FILE_PATTERN = "[12][0-3][0-9].atr"
_SUBJECT = re.compile(r"^#?\s*(\d+)\s+([MF])\b")  # first comment of a header: "# 69 M 1085 1629 x1"


def read_mitbih(data_dir: str | Path, segment_seconds: float = 10.0) -> pd.DataFrame:
    """Returns one row per segment of `segment_seconds`; segments do not overlap, and the rest of a record is dropped.

    Columns: `record_id` ("100-0010" begins at second 10), `patient_id`, `file`, `start_seconds`, `seconds` (also as
    `duration_seconds`, which rows keep), `age`, `sex`, `paced` (1 for the four records with paced beats, which are
    usually excluded), `labels` (kinds of beats in the segment), `num_beats`, `beats_KIND` (the number of each kind),
    `beat_seconds` (R peaks, from the start of the segment) and `beat_kinds`.
    """
    data_dir = Path(data_dir)
    annotations = sorted(data_dir.glob(FILE_PATTERN))
    if not annotations:
        raise FileNotFoundError(f"{data_dir}: expected MIT-BIH records such as 100.atr and 100.hea, found none")
    table = pd.concat([_segments(path.with_suffix(""), segment_seconds) for path in annotations], ignore_index=True)
    table.attrs["label_names"] = list(BEATS.values())
    return table


def _segments(stem: Path, segment_seconds: float) -> pd.DataFrame:
    """The segments of one record."""
    header, annotation = _read_record(stem)
    length = round(segment_seconds * header.fs)
    number = header.sig_len // length if length > 0 else 0
    if number == 0:
        longest = f"at most the {header.sig_len / header.fs:g} s of {stem}"
        raise ValueError(f"segment_seconds: expected more than 0 and {longest}, got {segment_seconds}")
    starts = np.arange(number) * length / header.fs
    beats = _beats(annotation, number, length)
    names = np.array(list(BEATS.values()))
    counts = np.zeros((number, len(names)), dtype=np.int64)
    np.add.at(counts, (beats["segment"].to_numpy(), pd.Index(names).get_indexer(beats["kind"])), 1)
    borders = np.searchsorted(beats["segment"], np.arange(1, number))
    seconds = np.split(beats["sample"].to_numpy() / header.fs, borders)
    kinds = np.split(beats["kind"].to_numpy(), borders)
    subject = next((found for line in header.comments if (found := _SUBJECT.match(line))), None)
    return pd.DataFrame(
        {
            "record_id": [f"{stem.name}-{start:04g}" for start in starts],
            "patient_id": SAME_PATIENT.get(stem.name, stem.name),
            "file": str(stem),
            "start_seconds": starts,
            "seconds": length / header.fs,
            "duration_seconds": length / header.fs,
            "age": float(subject[1]) if subject else np.nan,
            "sex": {"M": "male", "F": "female"}[subject[2]] if subject else None,
            "paced": int(stem.name in PACED),
            "labels": [names[np.flatnonzero(row)].tolist() for row in counts],
            "num_beats": counts.sum(axis=1),
            **{f"beats_{name}": counts[:, column] for column, name in enumerate(names)},
            "beat_seconds": [part.tolist() for part in seconds],
            "beat_kinds": [part.tolist() for part in kinds],
        }
    )


def _read_record(stem: Path) -> tuple[wfdb.Record, wfdb.Annotation]:
    """Header and beat annotations of one record."""
    try:
        return wfdb.rdheader(str(stem)), wfdb.rdann(str(stem), "atr")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{stem}.hea: no such file; it belongs to {stem.name}.atr") from error
    except Exception as error:  # the type depends on where the damage is
        raise ValueError(f"{stem}: damaged header or annotations: {one_line(error)}") from error


def _beats(annotation: wfdb.Annotation, number: int, length: int) -> pd.DataFrame:
    """The beats in `number` segments of `length` samples: `segment`, `sample` in it, and `kind`."""
    kinds = pd.Series(annotation.symbol, dtype=object).map(BEATS)
    table = pd.DataFrame({"segment": annotation.sample // length, "sample": annotation.sample % length, "kind": kinds})
    table = table[table["kind"].notna() & table["segment"].between(0, number - 1)]
    return table.sort_values("segment", kind="stable")
