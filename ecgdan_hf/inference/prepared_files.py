"""ECG files -> prepared rows, in this process or several; needs neither torch nor transformers."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from ecgdan_hf.data.flag_words import by_importance
from ecgdan_hf.data.prepared.record_file import RecordFile, Recording, read_recording
from ecgdan_hf.data.prepared.shards import end_with_parent
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.inference.covariates import FileCovariates
from ecgdan_hf.model.preparation_ecgdan import EcgPreparation

_AT_ONCE = 16  # files handed to a process
KILLED = (
    "num_workers: a process that reads files was killed, by a file or for want of memory; repeat with 0 to see by "
    "which file"
)
Prepare = Callable[[Recording], dict[str, Any]]


def prepared_row(
    file: Recording, preparation: EcgPreparation, known: FileCovariates, options: Mapping[str, Any]
) -> dict[str, Any]:
    """A row with `file`, `flags`, `error`, `num_leads` and the network's `inputs`, arrays of one record.

    Raises:
        ValueError, OSError: a file that cannot be used.
    """
    return row_of_record(file, read_recording(file, options), preparation, known)


def row_of_record(
    file: Recording, record: EcgRecord, preparation: EcgPreparation, known: FileCovariates
) -> dict[str, Any]:
    """The row of [`prepared_row`] for a record that was read already; errors are the same."""
    features = preparation.prepare(**record.as_inputs())
    covariates, unknown = known.of(file, record)
    inputs = {name: features[name] for name in preparation.model_input_names}
    if covariates is not None:
        inputs["covariates"] = covariates[None]
    middle = longer_than_input(record, preparation)
    flags = by_importance((*record.flags, *middle, *features["flags"][0], *unknown))
    row = {"file": str(file), "flags": ";".join(flags), "error": ""}
    return {**row, "inputs": inputs, "num_leads": int(inputs["lead_mask"].sum())}


def row_of_error(file: Recording, error: Exception) -> dict[str, Any]:
    """The row of a file that cannot be used."""
    said = file.line(error) if isinstance(file, RecordFile) else " ".join(str(error).split())
    return {"file": str(file), "flags": "", "error": said or type(error).__name__}


def prepared_rows(files: Sequence[Recording], prepare: Prepare, num_workers: int) -> Iterator[dict[str, Any]]:
    """Rows in the order of the files; only a few of them are in memory at once.

    Args:
        files: any number.
        prepare: makes one row; it must be picklable where there are workers.
        num_workers: processes; 0 prepares in this one.

    Raises:
        ValueError: a process was killed.
    """
    if not num_workers:
        yield from map(prepare, files)
        return
    waiting: deque[Future[list[dict[str, Any]]]] = deque()
    try:
        with ProcessPoolExecutor(num_workers, initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
            for first in range(0, len(files), _AT_ONCE):
                waiting.append(pool.submit(_prepared, prepare, list(files[first : first + _AT_ONCE])))
                if len(waiting) > 2 * num_workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ValueError(KILLED) from error


def preparing(preparation: EcgPreparation, known: FileCovariates, options: Mapping[str, Any]) -> Prepare:
    """Returns what makes the row of a file; the row of a file that cannot be used has an error."""
    return partial(_row_or_error, preparation=preparation, known=known, options=dict(options))


def _row_or_error(
    file: Recording, preparation: EcgPreparation, known: FileCovariates, options: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        return prepared_row(file, preparation, known, options)
    except Exception as error:  # of any decoder: one file must not stop the others
        return row_of_error(file, error)


def _prepared(prepare: Prepare, files: Sequence[Recording]) -> list[dict[str, Any]]:
    return [prepare(file) for file in files]


def longer_than_input(record: EcgRecord, preparation: EcgPreparation) -> Iterator[str]:
    """A flag for a record of which a model of the rhythm sees only the middle: `only_middle_judged:10s_of_1805s`."""
    seen = preparation.signal_samples / preparation.sampling_rate
    if preparation.input_kind == "rhythm" and record.duration_seconds > 1.5 * seen:
        yield f"only_middle_judged:{seen:g}s_of_{record.duration_seconds:.0f}s"
