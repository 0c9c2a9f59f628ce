"""Rows for the records of a source, of which one file may hold many, as those of CODE-15 and Parquet do."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgdan_hf.data.prepared.record_file import Recording
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.inference.archive import RowMakerAround

if TYPE_CHECKING:
    import pandas as pd


class WithRecordIds(RowMakerAround):
    """A maker of rows that also says the id of each record, to join rows with what is known of it."""

    @property
    def columns(self) -> list[str]:
        """Columns of a row, in order."""
        first, *others = self.maker.columns
        return [first, "record_id", *others]

    def batches(self, files: Sequence[Recording]) -> Iterator[list[dict[str, Any]]]:
        """The rows, a batch at a time, in the order of the records."""
        left = iter(files)
        for batch in self.maker.batches(files):
            yield [{**row, "record_id": getattr(next(left), "record_id", "")} for row in batch]


def source_table(data: str, paths: Sequence[Path]) -> "pd.DataFrame":
    """The records of a source, as [`read_source`].

    Raises:
        ValueError: an unknown source, or more than one folder.
        FileNotFoundError: no such folder.
    """
    if len(paths) != 1:
        raise ValueError(f"paths: expected the one folder of the source {data}, got {len(paths)} paths")
    return read_source(data, paths[0])
