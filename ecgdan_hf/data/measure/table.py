"""A table of measurements for a whole source, made in parallel and cached.

The cache is that of prepared records: an interrupted run resumes, and a change of a file, of the records or of the
code that measures makes a new table.
"""

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Features, Value

from ecgdan_hf.data.measure import rhythm
from ecgdan_hf.data.measure.measurements import MEASUREMENTS
from ecgdan_hf.data.measure.rhythm import RHYTHM, measure_ecg
from ecgdan_hf.data.prepared.cache import code_digest, fingerprint, made_once
from ecgdan_hf.data.prepared.preparation import Preparation
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.sources.registry import read_source

logger = logging.getLogger(__name__)

_NAMES = (*MEASUREMENTS, *RHYTHM)
_COLUMNS = {"record_id": "string", **dict.fromkeys(_NAMES, "float64"), "error": "string"}
_FROM_SOURCE = ("patient_id", "age", "sex")


def measure_table(
    source: pd.DataFrame | str | Path,
    *,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Measures every record of a source: a table with `record_id` and `file`, or the folder of a source.

    Returns:
        One row per record in the order of the source: `record_id`, `patient_id`, `age` and `sex` if the source has
        them, the keys of `measurements.MEASUREMENTS` and of `rhythm.RHYTHM`, and `error`. A record that cannot be
        measured has NaN and an error, and is counted in a warning.

    Raises:
        FileNotFoundError: a folder without a known source.
        ValueError: a missing column, a repeated record id, or no record that can be measured.
    """
    table = _checked(source)
    files, record_ids = RecordFile.of_table(table), table["record_id"].astype(str)
    key = hashlib.sha256(f"{fingerprint(files, Preparation(None))} {code_digest(rhythm.__name__)}".encode())
    key.update("\n".join(record_ids).encode())
    name, items = f"measurements-{key.hexdigest()[:32]}", list(zip(record_ids, files, strict=True))
    types = Features({column: Value(kind) for column, kind in _COLUMNS.items()})
    rows = made_once(name, items, _measured_rows, types, num_proc, cache_dir, "Measuring ECGs")
    measured: pd.DataFrame = rows.to_pandas()
    _report(measured)
    known = table[[column for column in _FROM_SOURCE if column in table]].reset_index(drop=True)
    return pd.concat([measured[["record_id"]], known, measured.drop(columns="record_id")], axis=1)


def _checked(source: pd.DataFrame | str | Path) -> pd.DataFrame:
    table = source if isinstance(source, pd.DataFrame) else read_source(None, source)
    absent = [name for name in ("record_id", "file") if name not in table]
    if absent:
        raise ValueError(f"source: expected columns record_id and file, missing {', '.join(absent)}")
    if not len(table):
        raise ValueError("source: expected at least one record, got none")
    twice = table["record_id"][table["record_id"].astype(str).duplicated()]
    if len(twice):
        raise ValueError(f"source: record_id: expected each record once, got {twice.iloc[0]} more than once")
    return table


def _measured_rows(items: Sequence[tuple[str, RecordFile]]) -> Iterator[dict[str, Any]]:
    for record_id, file in items:
        try:
            yield {"record_id": record_id, **measure_ecg(file.read()), "error": ""}
        except (OSError, ValueError) as error:
            yield {"record_id": record_id, **dict.fromkeys(_NAMES, math.nan), "error": file.line(error)}


def _report(measured: pd.DataFrame) -> None:
    errors = [error for error in measured["error"] if error]
    if errors and len(errors) == len(measured):
        raise ValueError(f"source: none of {len(measured)} records can be measured; the first: {errors[0]}")
    if errors:
        logger.warning("%d of %d records cannot be measured; the first: %s", len(errors), len(measured), errors[0])
