"""ECGs in Parquet, as `ecgdan data convert` writes them and the Hub serves them: one row for each record.

Columns `signal` (samples, leads) in millivolt, `sampling_rate` (Hz), `lead_names`, `record_id`, and more.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from wrapt import lazy_import

from ecgdan_hf.data.readers.declared import Declared, Format, one_line
from ecgdan_hf.data.record import EcgRecord

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
else:  # slow to import, and not needed for most files
    pd = lazy_import("pandas")
    pa = lazy_import("pyarrow")
    pq = lazy_import("pyarrow.parquet")

_SIGNAL_COLUMNS = ("signal", "sampling_rate", "lead_names")
_NOT_OF_THE_TABLE = ("signal", "flags")  # read record by record


def _read_row(path: Path, _: Declared, member: str | None) -> EcgRecord:
    """The record in row `member`, from 0. The file states everything, so what the caller declares is not needed."""
    if member is None or not member.isdigit():
        raise ValueError(f"{path}: member: expected the number of a row, got {member!r}")
    row = int(member)
    try:
        starts = _row_groups(path)
        group = int(np.searchsorted(starts, row, side="right")) - 1
        if row >= starts[-1]:
            raise ValueError(f"member: expected a row below {starts[-1]}, got {row}")
        values = _read_group(path, group, path.stat().st_mtime_ns).slice(row - starts[group], 1).to_pylist()[0]
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: row {row}: {one_line(error)}") from error
    return EcgRecord(
        signal_mv=np.asarray(values["signal"], dtype=np.float32).T,
        sampling_rate=values["sampling_rate"],
        lead_names=tuple(values["lead_names"]),
        record_id=str(values.get("record_id") or member),
        source=f"{path}[{member}]",
    )


def read_parquet_folder(data_dir: Path) -> "pd.DataFrame":
    """Returns one row for each record of the Parquet files in a folder, or in its folder `data`.

    Columns: those of the files without the signals, and `file`, `member` to read the signals; `record_id` and
    `patient_id` are composed of file and row if the files lack them.
    """
    files = sorted(data_dir.glob("data/*.parquet")) or sorted(data_dir.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{data_dir}: expected Parquet files in it or in its folder data, found none")
    table = pd.concat([_read_metadata(file) for file in files], ignore_index=True)
    for name in ("record_id", "patient_id"):
        if name not in table:
            table[name] = [
                f"{Path(file).stem}-{row}" for file, row in zip(table["file"], table["member"], strict=True)
            ]
    table.attrs["label_names"] = _label_names(files[0])
    if "labels" in table and table.attrs["label_names"]:
        names = table.attrs["label_names"]
        table["labels"] = [[names[label] for label in labels] for labels in table["labels"]]
    return table


def _read_metadata(file: Path) -> "pd.DataFrame":
    try:
        schema = pq.read_schema(file)
        absent = [name for name in _SIGNAL_COLUMNS if name not in schema.names]
        if absent:
            raise ValueError(f"expected columns {', '.join(_SIGNAL_COLUMNS)}, missing {', '.join(absent)}")
        wanted = [name for name in schema.names if name not in (*_NOT_OF_THE_TABLE, *_SIGNAL_COLUMNS)]
        table: pd.DataFrame = pq.read_table(file, columns=wanted).to_pandas()
        rows = pq.read_metadata(file).num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{file}: not a Parquet file of ECGs: {one_line(error)}") from error
    if not len(table.columns):
        table = pd.DataFrame(index=range(rows))
    return table.assign(file=str(file), member=[str(row) for row in range(rows)])


def _label_names(file: Path) -> list[str]:
    from datasets import Features

    said: dict[bytes, bytes] = pq.read_schema(file).metadata or {}
    info: dict[str, Any] = json.loads(said.get(b"huggingface", b"{}")).get("info", {})
    labels = Features.from_dict(info.get("features", {})).get("labels")
    return list(getattr(getattr(labels, "feature", None), "names", None) or [])


@lru_cache(maxsize=64)
def _row_groups(path: Path) -> np.ndarray:
    """Number of the first row of each row group, and the number of rows."""
    metadata = pq.read_metadata(path)
    return np.cumsum([0, *(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))])


@lru_cache(maxsize=1)
def _read_group(path: Path, group: int, changed: int) -> "pa.Table":
    """A row group; cached, as rows are mostly read in order."""
    file = pq.ParquetFile(path)
    present = [name for name in (*_SIGNAL_COLUMNS, "record_id") if name in file.schema_arrow.names]
    return file.read_row_group(group, columns=present)


PARQUET = Format("parquet", lambda head: head.startswith(b"PAR1"), _read_row, has_members=True)
