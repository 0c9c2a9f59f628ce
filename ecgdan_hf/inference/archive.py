"""One row for each file of an archive: rows go to disk as they come, and an interrupted run goes on where it stopped.

While a run lasts, its rows are in `OUT.rows`, a CSV file of which every batch is on disk before the next one is
made, and `OUT.rows.json` says what they were made with. At the end they become OUT, as CSV or Parquet.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TextIO

from tqdm.auto import tqdm

from ecgdan_hf.data.prepared.record_file import Recording
from ecgdan_hf.files import locked_file, whole_file, write_text
from ecgdan_hf.spreadsheets import original_cell, plain_cell

SUFFIXES = (".csv", ".parquet")
MANY_FILES = 64
_TEXT = (
    "file",
    "record_id",
    "sex",
    "endpoint",
    "positive",
    "windows",
    "episodes",
    "burden_per_hour",
    "flags",
    "error",
)


class RowMaker(Protocol):
    """What makes one row for each file, such as a [`Predictor`]."""

    @property
    def columns(self) -> list[str]:
        """Columns of a row, in order; the first is `file`, the last `error`, and one is `num_leads`."""

    @property
    def made_with(self) -> dict[str, Any]:
        """What the rows depend on, by name; JSON values."""

    @property
    def doing(self) -> str:
        """What is being done, for the progress bar."""

    def check(self, files: Sequence[Recording]) -> None:
        """ValueError for arguments that do not fit the files."""

    def batches(self, files: Sequence[Recording]) -> Iterator[list[dict[str, Any]]]:
        """The rows, a batch at a time, in the order of the files."""


@dataclass(frozen=True)
class RowMakerAround:
    """A maker of rows that leaves all to another but `batches`, or what it adds to a row."""

    maker: RowMaker

    @property
    def columns(self) -> list[str]:
        """Columns of a row, in order."""
        return self.maker.columns

    @property
    def made_with(self) -> dict[str, Any]:
        """What the rows depend on, by name; JSON values."""
        return self.maker.made_with

    @property
    def doing(self) -> str:
        """What is being done, for the progress bar."""
        return self.maker.doing

    def check(self, files: Sequence[Recording]) -> None:
        """ValueError for arguments that do not fit the files."""
        self.maker.check(files)

    def batches(self, files: Sequence[Recording]) -> Iterator[list[dict[str, Any]]]:
        """The rows, a batch at a time, in the order of the files."""
        return self.maker.batches(files)


@dataclass
class GrowingTable:
    """A table that is written batch by batch.

    Attributes:
        out: the file it becomes, `.csv` or `.parquet`.
        columns: names, in order; the first is `file`.
        made_with: what the rows depend on, by name; JSON values.
        num_rows: rows that are on disk.
        num_bad: those of them with an error.
        first_error: the first such error.
        was_complete: whether there was nothing left to do.
    """

    out: Path
    columns: Sequence[str]
    made_with: Mapping[str, Any]
    num_rows: int = 0
    num_bad: int = 0
    first_error: str = ""
    was_complete: bool = False
    _file: TextIO = field(init=False, repr=False)

    @property
    def rows(self) -> Path:
        """The rows of an unfinished run."""
        return self.out.with_name(f"{self.out.name}.rows")

    @property
    def was_begun(self) -> bool:
        """Whether a run that has not ended left something here."""
        return self.rows.exists() or self._said.exists()

    @property
    def _said(self) -> Path:
        return self.rows.with_name(f"{self.rows.name}.json")

    def open(self, files: Sequence[Recording], resume: bool) -> None:
        """Begins the table, or takes up an interrupted run on the same files.

        Raises:
            ValueError: an interrupted run without `resume`, or one that was begun with something else.
        """
        if self.rows.exists() and not resume:
            raise ValueError(
                f"{self.rows}: an interrupted run; give --resume to go on, or delete the file to begin again"
            )
        if self.rows.exists():
            self._check_the_same()
            self._keep_whole_rows(files)
        write_text(self._said, json.dumps(dict(self.made_with)))  # first: rows without it cannot be gone on with
        if not self.rows.exists():
            try:
                write_text(self.rows, self._header)
            except OSError:
                self._said.unlink()
                raise
        self._file = self.rows.open("a", encoding="utf-8", newline="")

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows; they are on disk when it returns."""
        for row in rows:
            self._file.write(self._line([self._cell(row.get(name)) for name in self.columns]))
        self._file.flush()
        os.fsync(self._file.fileno())
        for row in rows:
            self._count(row.get("error") or "")

    def finish(self) -> None:
        """Turns the rows into `out`, whole or not at all."""
        self._file.close()
        if self._is_parquet:
            with whole_file(self.out) as part:
                _to_parquet(self.rows, part, self.columns)
            self.rows.unlink()
        else:
            self.rows.replace(self.out)
        self._said.unlink()

    def _check_the_same(self) -> None:
        before = json.loads(self._said.read_text(encoding="utf-8")) if self._said.exists() else {}
        changed = [name for name, value in self.made_with.items() if before.get(name) != value]
        if changed:
            raise ValueError(
                f"{self.rows}: an interrupted run with another {', '.join(changed)}; repeat its command, or delete "
                "the file to begin again"
            )

    def _keep_whole_rows(self, files: Sequence[Recording]) -> None:
        """Leaves out what a crash cut off, and checks that the rows belong to these files."""
        with whole_file(self.rows) as part, part.open("w", encoding="utf-8", newline="") as kept:
            kept.write(self._header)
            for row in _whole_rows(self.rows, len(self.columns)):
                name = row[0] if self._is_parquet else original_cell(row[0])
                if self.num_rows >= len(files) or name != str(files[self.num_rows]):
                    raise ValueError(
                        f"{self.rows}: its row {self.num_rows + 1} is of {row[0]}, the files are others now; "
                        "repeat the command with the same files, or delete the file to begin again"
                    )
                kept.write(self._line(row))
                self._count(row[-1])

    def _count(self, error: str) -> None:
        self.num_rows += 1
        self.num_bad += bool(error)
        self.first_error = self.first_error or error

    @property
    def _is_parquet(self) -> bool:
        return self.out.suffix.lower() == ".parquet"

    def _cell(self, value: object) -> object:
        """Empty for an unknown number; a spreadsheet may open a CSV file, and Parquet has no formulas."""
        if value is None or value != value:
            return ""
        return value if self._is_parquet else plain_cell(value)

    @property
    def _header(self) -> str:
        return self._line([self._cell(name) for name in self.columns])

    @staticmethod
    def _line(row: Sequence[object]) -> str:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        return line.getvalue()


def _whole_rows(path: Path, num_columns: int) -> Iterator[list[str]]:
    """The rows of a file without its header, up to the first that is cut off."""
    with path.open(encoding="utf-8", newline="", errors="replace") as file:
        for number, row in enumerate(csv.reader(_whole_lines(file))):
            if len(row) != num_columns:
                return
            if number:
                yield row


def _whole_lines(file: TextIO) -> Iterator[str]:
    return (line for line in file if line.endswith("\n"))


def _to_parquet(rows: Path, out: Path, columns: Sequence[str]) -> None:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    types = {name: pa.string() if name in _TEXT else pa.float64() for name in columns}
    types["num_leads"] = pa.int64()
    options = arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    parsed = arrow_csv.ParseOptions(newlines_in_values=True)
    with (
        arrow_csv.open_csv(rows, convert_options=options, parse_options=parsed) as reader,
        parquet.ParquetWriter(out, reader.schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)


def rows_to_file(
    maker: RowMaker, files: Sequence[Recording], out: str | Path, resume: bool = False, progress: bool = False
) -> GrowingTable:
    """Makes one row for each file of a CSV or Parquet table, of which an interrupted run loses one batch at most.

    Args:
        maker: a [`Predictor`] or a [`Measurer`].
        files: in the order of the rows; see [`expand_files`] and [`shard_of`].
        out: `.csv` or `.parquet`.
        resume: go on with an interrupted run. A run that is complete is left alone.
        progress: show a progress bar.

    Returns:
        The finished table.

    Raises:
        ValueError: another suffix, another run that writes `out`, an interrupted run without `resume`, or one with
            another model, files or options.
    """
    out = Path(out)
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"out: expected a name that ends in {' or '.join(SUFFIXES)}, got {out.name}")
    if out.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError(f"out: {out.name} needs pyarrow, which is not installed; pip install pyarrow, or write .csv")
    maker.check(files)
    table = GrowingTable(out, maker.columns, maker.made_with)
    if resume and out.exists() and not table.was_begun:
        return replace(table, was_complete=True)
    with locked_file(out):
        table.open(files, resume)
        shown: dict[str, Any] = {"desc": maker.doing, "unit": "file", "disable": not progress}
        with tqdm(total=len(files), initial=table.num_rows, **shown) as bar:
            for batch in maker.batches(files[table.num_rows :]):
                table.append(batch)
                bar.update(len(batch))
        table.finish()
    return table


def default_workers(num_files: int) -> int:
    """One process for each core for many files; none for few, which would be read before the processes are there."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if num_files >= MANY_FILES else 0


def shard_of(files: Sequence[Recording], shard: str | None) -> Sequence[Recording]:
    """Every n-th file from the i-th, for a `shard` of "i/n", counted from 1; all files for None.

    Raises:
        ValueError: not of that form, or i beyond n.
    """
    if shard is None:
        return files
    first, slash, count = shard.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise ValueError(f"shard: expected i/n with i from 1 to n, such as 3/8, got {shard!r}")
    return files[int(first) - 1 :: int(count)]
