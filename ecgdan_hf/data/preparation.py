"""Records -> network input in Arrow: read and prepared once, in parallel, and found again by a fingerprint.

Records are written a few at a time and memory-mapped when read back, so that memory does not grow with their number.
`datasets` builds in a folder of its own and renames it when it is complete: an interrupted build leaves nothing that
could be taken for a dataset.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import multiprocess  # the copy of multiprocessing that `datasets` builds with
import numpy as np
from datasets import Array2D, Dataset, Features, IterableDataset, List, Value
from datasets.exceptions import DatasetGenerationError

from ecgdan_hf.data.record import EcgRecord, quality_flags
from ecgdan_hf.data.record_file import RecordFile, UnreadableRecordError
from ecgdan_hf.model.configuration_ecgdan import ECGDAN_VERSION

logger = logging.getLogger(__name__)

CHUNK_RECORDS = 16
WRITER_BATCH_RECORDS = 32  # what a process holds before it writes; 12 leads x 10 s x 500 Hz are 240 kB each
MIN_RECORDS_PER_PROCESS = 64
MAX_LISTED_ERRORS = 20

# Code whose change makes prepared signals stale.
_CODE = (
    "data/array_files.py",
    "data/declared.py",
    "data/formats.py",
    "data/record.py",
    "data/record_file.py",
    "data/wfdb_files.py",
    "model/conditioning_ecgdan.py",
    "model/feature_extraction_ecgdan.py",
    "model/leads_ecgdan.py",
    "model/median_beat_ecgdan.py",
)


@dataclass(frozen=True)
class Preparation:
    """How records become rows: through a feature extractor, or as recorded.

    Args:
        feature_extractor: prepares the signals; None keeps them as recorded.
        lead_names: the leads of every record and their order, where there is no feature extractor.
        skip_bad: a record that cannot be used becomes an empty row whose `error` says why, instead of an exception.
    """

    feature_extractor: Any | None
    lead_names: tuple[str, ...] = ()
    skip_bad: bool = False

    @property
    def features(self) -> dict[str, Any]:
        """Types of the columns of a row; `error` is empty where all went well."""
        shared = {"flags": List(Value("string")), "error": Value("string")}
        if self.feature_extractor is None:
            signal = Array2D((None, len(self.lead_names)), "float32")  # only the first size of an Array2D may vary
            return {"signal": signal, "sampling_rate": Value("float32"), "lead_names": List(Value("string")), **shared}
        return {"input_values": Array2D(self._input_shape, "float32"), "lead_mask": List(Value("bool")), **shared}

    def examples(self, chunks: list[list[RecordFile]]) -> Iterator[dict[str, Any]]:
        """Reads and prepares records.

        Args:
            chunks: records in groups, because `datasets` hands whole list items to its processes.

        Raises:
            UnreadableRecordError: a record cannot be used, and `skip_bad` is not set.
        """
        for source in (source for chunk in chunks for source in chunk):
            _stop_if_orphaned()
            try:
                yield {**self.prepare(source.read()), "error": ""}
            except (OSError, ValueError) as error:
                if not self.skip_bad:
                    raise UnreadableRecordError(source.line(error)) from error
                yield {**self._empty(), "error": source.line(error)}

    def prepare(self, record: EcgRecord) -> dict[str, Any]:
        """One row, without `error`.

        Raises:
            ValueError: a record that the feature extractor refuses, or one with other leads than `lead_names`.
        """
        if self.feature_extractor is None:
            return self._as_recorded(record)
        inputs = self.feature_extractor(**record.as_inputs(), return_flags=True)
        return {
            "input_values": np.asarray(inputs["input_values"][0], dtype=np.float32),
            "lead_mask": np.asarray(inputs["lead_mask"][0], dtype=bool),
            "flags": [*record.flags, *inputs["flags"][0]],
        }

    def _as_recorded(self, record: EcgRecord) -> dict[str, Any]:
        if set(record.lead_names) != set(self.lead_names):
            raise ValueError(
                f"expected the leads of the first record, {', '.join(self.lead_names)}, got "
                f"{', '.join(record.lead_names)}; give a feature extractor to load different leads together"
            )
        order = [record.lead_names.index(lead) for lead in self.lead_names]
        return {
            "signal": record.signal_mv[order].T,
            "sampling_rate": record.sampling_rate,
            "lead_names": list(self.lead_names),
            "flags": [*record.flags, *quality_flags(record.signal_mv, record.lead_names)],
        }

    def _empty(self) -> dict[str, Any]:
        if self.feature_extractor is None:
            signal = np.zeros((1, len(self.lead_names)), np.float32)
            return {"signal": signal, "sampling_rate": 0.0, "lead_names": list(self.lead_names), "flags": []}
        shape = self._input_shape
        return {"input_values": np.zeros(shape, np.float32), "lead_mask": np.zeros(shape[0], bool), "flags": []}

    @property
    def _input_shape(self) -> tuple[int, int]:
        return len(self.feature_extractor.lead_names), self.feature_extractor.num_samples


def prepare_all(
    sources: list[RecordFile], preparation: Preparation, num_proc: int | None, cache_dir: str | Path | None
) -> Dataset:
    """Rows of all records, in order, memory-mapped from Arrow; prepared unless a complete build is found.

    Raises:
        UnreadableRecordError: a record cannot be used (without `skip_bad`), or none can.
    """
    chunks = [sources[start : start + CHUNK_RECORDS] for start in range(0, len(sources), CHUNK_RECORDS)]
    processes = min(num_processes(len(sources), num_proc), len(chunks))
    try:
        prepared = Dataset.from_generator(
            preparation.examples,
            features=Features(preparation.features),
            cache_dir=None if cache_dir is None else str(cache_dir),
            gen_kwargs={"chunks": chunks},
            num_proc=processes if processes > 1 else None,
            fingerprint=fingerprint(sources, preparation),
            writer_batch_size=WRITER_BATCH_RECORDS,
        )
    except DatasetGenerationError as error:
        raise _unwrapped(error) from None
    _remove_strays(prepared)
    errors = [error for error in prepared.data["error"].to_pylist() if error]
    _report_bad(errors, len(sources), preparation.skip_bad)
    return prepared


def _stop_if_orphaned() -> None:
    """Ends a worker whose build was killed, so that it cannot write into the files of the next build."""
    builder = multiprocess.parent_process()
    if builder is not None and os.getppid() != builder.pid:  # its sentinel stays open in the other workers
        os._exit(1)


def _remove_strays(dataset: Dataset) -> None:
    """Removes what a killed build left in the folder that a later one completed."""
    files = {Path(file["filename"]) for file in dataset.cache_files}
    for folder in {file.parent for file in files}:
        for stray in set(folder.glob("*.arrow")) - files:
            stray.unlink(missing_ok=True)


def _unwrapped(error: BaseException) -> BaseException:
    """What stopped a build; from another process only the text of its traceback arrives."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UnreadableRecordError):
            return cause
        if remote := re.search(rf"{UnreadableRecordError.__name__}: (.+)", str(cause)):
            return UnreadableRecordError(remote.group(1))
        cause = cause.__cause__
    return error


def stream(sources: list[RecordFile], metadata: Dataset, preparation: Preparation) -> IterableDataset:
    """Rows of all records beside their metadata, prepared when asked for; nothing is written.

    Args:
        sources: one for each row of `metadata`.
        metadata: labels, outcomes and the like.
        preparation: how records become rows; with `skip_bad` each bad record is logged where it is met.
    """
    types = {name: kind for name, kind in preparation.features.items() if name != "error"}
    return IterableDataset.from_generator(
        _stream_examples,
        features=Features({**metadata.features, **types}),
        gen_kwargs={
            "sources": sources,
            "rows": [metadata[i] for i in range(len(metadata))],
            "preparation": preparation,
        },
    )


def _stream_examples(
    sources: list[RecordFile], rows: list[dict[str, Any]], preparation: Preparation
) -> Iterator[dict[str, Any]]:
    for row, example in zip(rows, preparation.examples([sources]), strict=True):
        error = example.pop("error")
        if error:
            logger.warning("left out: %s", error)
        else:
            yield {**row, **example}


def num_processes(records: int, num_proc: int | None) -> int:
    """`num_proc`, or one process for each core that has enough to do."""
    if num_proc is not None:
        return max(1, num_proc)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, records // MIN_RECORDS_PER_PROCESS))


def fingerprint(sources: list[RecordFile], preparation: Preparation) -> str:
    """Changes with the records, their files' sizes and times, the feature extractor, or the code that prepares."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(ECGDAN_VERSION.encode())
    for name in _CODE:
        digest.update((package / name).read_bytes())
    extractor = preparation.feature_extractor
    settings = list(preparation.lead_names) if extractor is None else extractor.to_dict()
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(json.dumps([asdict(source) for source in sources], sort_keys=True).encode())
    for stamp in _file_stamps([Path(source.file) for source in sources]):
        digest.update(stamp.encode())
    return digest.hexdigest()[:32]


def _file_stamps(files: list[Path]) -> Iterator[str]:
    """Name, size and time of every file that may belong to a record: `STEM.hea`, `STEM.dat`, `STEM_1.dat`..."""
    wanted: dict[Path, set[str]] = {}
    for file in files:
        wanted.setdefault(file.parent, set()).add(_stem(file.name))
    for folder in sorted(wanted):
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            mine = [(entry.name, entry.stat()) for entry in entries if _stem(entry.name) in wanted[folder]]
        yield f"{folder}{sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in mine)}"


def _stem(name: str) -> str:
    head, _, tail = name.split(".")[0].rpartition("_")
    return head if head and tail.isdigit() else name.split(".")[0]


def _report_bad(errors: list[str], total: int, skip_bad: bool) -> None:
    """One summary of what is left out; a build made with `skip_bad` may also be met by a run without it."""
    if errors and not skip_bad:
        raise UnreadableRecordError(errors[0])
    if total and len(errors) == total:
        raise UnreadableRecordError(f"none of {total} records can be used; the first: {errors[0]}")
    if errors:
        shown = "".join(f"\n  {error}" for error in errors[:MAX_LISTED_ERRORS])
        more = "\n  ..." if len(errors) > MAX_LISTED_ERRORS else ""
        logger.warning("%d of %d records cannot be used and are left out:%s%s", len(errors), total, shown, more)
