"""Where a record lies, and what its table says of it beyond what the file says itself."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ecgdan_hf.data import formats
from ecgdan_hf.data.record import EcgRecord

# table columns that are handed to `formats.read`: what a file does not say itself, and which part of it is meant
READ_HINTS = ("sampling_rate", "unit", "lead_names", "member", "start_seconds", "seconds", "median_file")


class UnreadableRecordError(ValueError):
    """A record that cannot be used; one line, which names the file."""


@dataclass(frozen=True, slots=True)  # there is one for each of a million records
class RecordFile:
    """A file to read, and what its table says about it beyond what the file says itself."""

    file: str
    options: dict[str, Any]

    def read(self) -> EcgRecord:
        """Reads it; raises what `formats.read` raises."""
        return formats.read(self.file, **self.options)

    @property
    def name(self) -> str:
        """The file, and which part of it where that is not the whole: `exams_part0.hdf5[12]`, `100[10 s]`."""
        part = self.options.get("member")
        if part is None and self.options.get("seconds") is not None:
            part = f"{self.options.get('start_seconds', 0):g} s"
        return self.file if part is None else f"{self.file}[{part}]"

    def line(self, error: Exception) -> str:
        """The error on one line that names the file and the part."""
        text = " ".join(str(error).split())
        if self.name in text:
            return text
        return text.replace(self.file, self.name, 1) if self.file in text else f"{self.name}: {text}"


def record_files(table: pd.DataFrame) -> list[RecordFile]:
    """The files of a table, with the hints in its columns `sampling_rate`, `unit`, `lead_names` (separated by `;`)."""
    hints = {name: table[name].tolist() for name in READ_HINTS if name in table}
    sources = []
    for i, file in enumerate(table["file"]):
        options = {name: values[i] for name, values in hints.items() if not pd.isna(values[i])}
        if "lead_names" in options:
            options["lead_names"] = [lead.strip() for lead in options["lead_names"].split(";")]
        sources.append(RecordFile(file, options))
    return sources


def first_lead_names(sources: list[RecordFile], skip_bad: bool) -> tuple[str, ...]:
    """Leads of the first record that can be read.

    Raises:
        UnreadableRecordError: the first cannot, and `skip_bad` is not set; or none can.
    """
    for source in sources:
        try:
            return source.read().lead_names
        except (OSError, ValueError) as error:
            if not skip_bad:
                raise UnreadableRecordError(source.line(error)) from error
    raise UnreadableRecordError(f"{sources[0].file}: neither this nor any other of {len(sources)} records can be read")
