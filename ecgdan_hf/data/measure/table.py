"""A table of measurements for a whole source, made once, in parallel, and found again by a fingerprint.

Results are appended to a CSV as they come, so that an interrupted run goes on where it stopped; the finished table is
Parquet. Both lie beside the Arrow files of `datasets`. A change of a file, of the records or of the code that measures
changes the name of the table.
"""

import hashlib
import logging
import math
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import config as datasets_config
from filelock import FileLock
from tqdm.auto import tqdm

from ecgdan_hf.data.measure import measurements
from ecgdan_hf.data.measure.measurements import MEASUREMENTS, measure
from ecgdan_hf.data.prepared.cache import fingerprint
from ecgdan_hf.data.prepared.code_digest import code_digest
from ecgdan_hf.data.prepared.preparation import Preparation
from ecgdan_hf.data.prepared.record_file import RecordFile, record_files
from ecgdan_hf.data.prepared.shards import CHUNK_RECORDS, in_order
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.files import whole_file

logger = logging.getLogger(__name__)

COLUMNS = ("record_id", *MEASUREMENTS, "error")
_CARRIED = ("patient_id", "age", "sex")  # of the source's table, joined to what is measured


def measure_table(
    source: pd.DataFrame | str | Path,
    *,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Measures every record of a source.

    Args:
        source: a table with `record_id` and `file`, as `read_source` gives, or a folder it can be read from.
        num_proc: processes; default one for each core.
        cache_dir: where the tables go; default the cache folder of `datasets`.

    Returns:
        One row per record in the order of the source: `record_id`, `patient_id`, `age` and `sex` where the source has
        them, the keys of `measurements.MEASUREMENTS`, and `error`, empty where all went well. A record that cannot be
        measured has NaN and is counted in one warning.

    Raises:
        FileNotFoundError: a folder that holds no known source.
        ValueError: a table without the columns, a record id twice, or not one record that can be measured.
    """
    table = _checked(source)
    files = record_files(table)
    folder = Path(cache_dir) if cache_dir is not None else Path(datasets_config.HF_DATASETS_CACHE)
    finished = folder / f"measurements-{_fingerprint(table, files)}.parquet"
    if finished.is_file():
        measured = pd.read_parquet(finished)
    else:
        measured = _measure_all(table["record_id"].astype(str).tolist(), files, num_proc, finished)
    _report(measured)
    carried = table[[name for name in ("record_id", *_CARRIED) if name in table]].reset_index(drop=True)
    return carried.assign(record_id=carried["record_id"].astype(str)).merge(measured, on="record_id", how="left")


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


def _fingerprint(table: pd.DataFrame, files: list[RecordFile]) -> str:
    digest = hashlib.sha256(f"{fingerprint(files, Preparation(None))} {code_digest(measurements.__name__)}".encode())
    digest.update("\n".join(table["record_id"].astype(str)).encode())
    return digest.hexdigest()[:32]


def _measure_all(record_ids: list[str], files: list[RecordFile], num_proc: int | None, finished: Path) -> pd.DataFrame:
    """Measures what the partial table lacks, and turns it into the finished one, which appears whole or not at all."""
    finished.parent.mkdir(parents=True, exist_ok=True)
    partial = finished.with_suffix(".partial.csv")
    with FileLock(finished.with_suffix(".lock")):
        if finished.is_file():  # another process was faster
            return pd.read_parquet(finished)
        done = _complete_rows(partial)
        left = [(name, file) for name, file in zip(record_ids, files, strict=True) if name not in done]
        _append_rows(left, partial, num_proc, len(done))
        measured = _read_partial(partial).set_index("record_id").loc[record_ids].reset_index()
        with whole_file(finished) as part:
            measured.to_parquet(part)
        partial.unlink()
    return measured


def _complete_rows(partial: Path) -> set[str]:
    """Record ids of an interrupted run; a last line that was cut off is removed."""
    if not partial.is_file():
        partial.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    text = partial.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        partial.write_text(text[: text.rfind("\n") + 1] or ",".join(COLUMNS) + "\n", encoding="utf-8")
    return set(_read_partial(partial)["record_id"])


def _read_partial(partial: Path) -> pd.DataFrame:
    missing = {name: [""] for name in MEASUREMENTS}
    types = {"record_id": str, "error": str, **dict.fromkeys(MEASUREMENTS, float)}
    return pd.read_csv(partial, dtype=types, na_values=missing, keep_default_na=False, float_precision="round_trip")


def _append_rows(left: list[tuple[str, RecordFile]], partial: Path, num_proc: int | None, num_done: int) -> None:
    with tqdm(total=num_done + len(left), initial=num_done, desc="Measuring ECGs") as progress:
        rows = in_order(_measured_row, left, num_proc)
        while chunk := list(islice(rows, CHUNK_RECORDS)):
            pd.DataFrame(chunk, columns=list(COLUMNS)).to_csv(partial, mode="a", header=False, index=False)
            progress.update(len(chunk))


def _measured_row(item: tuple[str, RecordFile]) -> dict[str, Any]:
    record_id, file = item
    try:
        return {"record_id": record_id, **measure(file.read()), "error": ""}
    except (OSError, ValueError) as error:
        return {"record_id": record_id, **dict.fromkeys(MEASUREMENTS, math.nan), "error": file.line(error)}


def _report(measured: pd.DataFrame) -> None:
    errors = [error for error in measured["error"] if error]
    if errors and len(errors) == len(measured):
        raise ValueError(f"source: none of {len(measured)} records can be measured; the first: {errors[0]}")
    if errors:
        logger.warning("%d of %d records cannot be measured; the first: %s", len(errors), len(measured), errors[0])
