"""Prepared records in Arrow: made once, in parallel, and found again by a fingerprint.

A build is a folder of shards. Each shard appears whole or not at all, so that an interrupted build goes on where it
stopped and never passes for a complete one. Shards are written a few records at a time and memory-mapped when read
back: memory does not grow with the number of records.
"""

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from pathlib import Path

from datasets import Dataset, Features, concatenate_datasets
from datasets import config as datasets_config
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock
from tqdm.auto import tqdm

from ecgdan_hf.data.preparation import Preparation, num_processes
from ecgdan_hf.data.record_file import RecordFile, UnreadableRecordError
from ecgdan_hf.model.configuration_ecgdan import ECGDAN_VERSION

logger = logging.getLogger(__name__)

MIN_SHARD_RECORDS = 16
MAX_SHARD_RECORDS = 1024  # 50 MB of prepared rhythm records
USUAL_SHARDS = 128  # in between: enough for a bar that moves, and for any number of processes
WRITER_BATCH_RECORDS = 32  # what a process holds before it writes; 12 leads x 10 s x 500 Hz are 240 kB each
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


def prepare_all(
    sources: Sequence[RecordFile], preparation: Preparation, num_proc: int | None, cache_dir: str | Path | None
) -> Dataset:
    """Rows of all records, in order, memory-mapped from Arrow; what an earlier build has is not prepared again.

    Args:
        sources: the records.
        preparation: how they become rows.
        num_proc: processes; default one for each core.
        cache_dir: where builds lie; default the cache folder of `datasets`.

    Raises:
        UnreadableRecordError: a record cannot be used (without `skip_bad`), or none can.
    """
    root = Path(cache_dir) if cache_dir is not None else Path(datasets_config.HF_DATASETS_CACHE)
    folder = root / f"ecgdan-{fingerprint(sources, preparation)}"
    folder.mkdir(parents=True, exist_ok=True)
    shards = _shards(len(sources))
    files = [folder / f"{i:05d}-of-{len(shards):05d}.arrow" for i in range(len(shards))]
    with FileLock(folder.with_suffix(".lock")):  # another process may be building the same
        for stray in set(folder.iterdir()) - set(files):
            stray.unlink()
        left = [(sources[rows.start : rows.stop], file) for rows, file in zip(shards, files, strict=True)]
        _build([(part, file) for part, file in left if not file.is_file()], preparation, num_proc, len(sources))
    prepared = concatenate_datasets([Dataset.from_file(str(file)) for file in files])
    _report_bad([error for error in prepared.data["error"].to_pylist() if error], len(sources), preparation.skip_bad)
    return prepared


def _shards(records: int) -> list[range]:
    """Rows of each shard; depends on the number of records alone, so that a build can go on with other settings."""
    size = min(max(-(-records // USUAL_SHARDS), MIN_SHARD_RECORDS), MAX_SHARD_RECORDS)
    return [range(start, min(start + size, records)) for start in range(0, records, size)]


def _build(
    left: list[tuple[Sequence[RecordFile], Path]], preparation: Preparation, num_proc: int | None, total: int
) -> None:
    """Writes the shards that are not there yet."""
    records = sum(len(part) for part, _ in left)
    processes = min(num_processes(records, num_proc), max(1, len(left)))
    progress = tqdm(total=total, initial=total - records, desc="Preparing ECGs", unit="ECG", disable=not left)
    with progress:
        if processes == 1:
            for part, file in left:
                progress.update(write_shard(part, file, preparation))
        else:
            _build_in_parallel(left, preparation, processes, progress)


def _build_in_parallel(
    left: list[tuple[Sequence[RecordFile], Path]], preparation: Preparation, processes: int, progress: tqdm
) -> None:
    with ProcessPoolExecutor(processes, initializer=_end_with_parent, initargs=(os.getpid(),)) as pool:
        futures: list[Future[int]] = []
        for part, file in left:
            futures.append(pool.submit(write_shard, part, file, preparation))
            futures[-1].add_done_callback(lambda done: progress.update(0 if _failed(done) else done.result()))
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
        for future in futures:
            if _failed(future):
                future.result()


def _failed(future: "Future[int]") -> bool:
    return future.cancelled() or future.exception() is not None


def _end_with_parent(parent: int) -> None:
    """Ends this process when its builder is gone: a killed one cannot tell its workers to stop."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def write_shard(sources: Sequence[RecordFile], file: Path, preparation: Preparation) -> int:
    """Prepares some records into one Arrow file, which appears whole or not at all; returns how many.

    Raises:
        UnreadableRecordError: a record cannot be used, and `preparation.skip_bad` is not set.
    """
    partial = file.with_suffix(f".{os.getpid()}")
    features = Features(preparation.features)
    try:
        with ArrowWriter(features=features, path=str(partial), writer_batch_size=WRITER_BATCH_RECORDS) as writer:
            for example in preparation.examples(sources):
                writer.write(features.encode_example(example))
            writer.finalize()
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return len(sources)


def fingerprint(sources: Sequence[RecordFile], preparation: Preparation) -> str:
    """Changes with the records, their files' sizes and times, the feature extractor, or the code that prepares."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(ECGDAN_VERSION.encode())
    for name in _CODE:
        digest.update((package / name).read_bytes())
    extractor = preparation.feature_extractor
    settings = list(preparation.lead_names) if extractor is None else extractor.to_dict()
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for source in sources:
        digest.update(json.dumps([source.file, source.options], sort_keys=True).encode())
    for stamp in _file_stamps({Path(source.file) for source in sources}):
        digest.update(stamp.encode())
    return digest.hexdigest()[:32]


def _file_stamps(files: set[Path]) -> Iterator[str]:
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
