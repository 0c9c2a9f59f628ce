"""The file of a record, and what the table of its source adds to what the file states."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wrapt import lazy_import

from ecgdan_hf.data import formats
from ecgdan_hf.data.record import EcgRecord

if TYPE_CHECKING:
    import pandas as pd
else:  # slow to import, and not needed for files
    pd = lazy_import("pandas")

# columns passed to `formats.read`: what a file does not state, and which part of it to read
READ_HINTS = ("sampling_rate", "unit", "lead_names", "member", "start_seconds", "seconds", "median_file")


class UnreadableRecordError(ValueError):
    """A record that cannot be used; the message is one line that names the file."""


@dataclass(frozen=True, slots=True)  # there may be a million
class RecordFile:
    """A file to read, with options of `formats.read`, and the id that its source gives the record."""

    file: str
    options: dict[str, Any]
    record_id: str = ""

    @classmethod
    def of_table(cls, table: "pd.DataFrame") -> "list[RecordFile]":
        """The files of a table, with the options in its columns `READ_HINTS` (`lead_names` separated by `;`)."""
        hints = {name: table[name].tolist() for name in READ_HINTS if name in table}
        ids = table["record_id"].tolist() if "record_id" in table else [""] * len(table)
        sources = []
        for i, file in enumerate(table["file"]):
            options = {name: values[i] for name, values in hints.items() if not pd.isna(values[i])}
            if "lead_names" in options:
                options["lead_names"] = [lead.strip() for lead in options["lead_names"].split(";")]
            sources.append(cls(file, options, ids[i]))
        return sources

    def read(self) -> EcgRecord:
        """Reads the record; see `formats.read` for errors."""
        return formats.read(self.file, **self.options)

    @property
    def name(self) -> str:
        """The file and, if only a part is read, that part: `exams_part0.hdf5[12]`, `100[10 s]`."""
        part = self.options.get("member")
        if part is None and self.options.get("seconds") is not None:
            part = f"{self.options.get('start_seconds', 0):g} s"
        return self.file if part is None else f"{self.file}[{part}]"

    def __str__(self) -> str:
        return self.name

    def line(self, error: Exception) -> str:
        """The error on one line that names the file and the part."""
        text = " ".join(str(error).split())
        if self.name in text:
            return text
        return text.replace(self.file, self.name, 1) if self.file in text else f"{self.name}: {text}"


Recording = Path | RecordFile
"""A file, or a record of a source, of which a file may hold many."""


def read_recording(recording: Recording, options: Mapping[str, Any]) -> EcgRecord:
    """Reads it; `options` of `formats.read` are for what neither the file nor its source states."""
    if isinstance(recording, RecordFile):
        return formats.read(recording.file, **{**options, **recording.options})
    return formats.read(recording, **options)
