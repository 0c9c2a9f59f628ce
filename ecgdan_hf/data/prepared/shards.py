"""Many records in parallel: in order, or into files.

Each file appears whole or not at all, so that an interrupted job goes on where it stopped.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ecgdan_hf.files import whole_file

Part = Sequence[Any]

CHUNK_RECORDS = 16  # what a process is handed at once
MIN_RECORDS_PER_PROCESS = 64


def num_processes(records: int, num_proc: int | None) -> int:
    """`num_proc`, or one process for each core that has enough to do."""
    if num_proc is not None:
        return max(1, num_proc)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, records // MIN_RECORDS_PER_PROCESS))


def in_order(function: Callable[[Any], Any], items: Sequence[Any], num_proc: int | None) -> Iterator[Any]:
    """What the function makes of each item, in order, as soon as it is there.

    Args:
        function: with several processes it must be picklable.
        items: one for each record.
        num_proc: as [`num_processes`].

    Raises:
        Exception: what the function raises, or [`_worker_pool`].
    """
    processes = num_processes(len(items), num_proc)
    if processes == 1:
        yield from map(function, items)
        return
    with _worker_pool(processes) as pool:
        yield from pool.map(function, items, chunksize=CHUNK_RECORDS)


def write_shards(
    write: Callable[[Any, Path], None], parts: Sequence[Part], files: Sequence[Path], processes: int, job: str
) -> None:
    """Writes the files that are not there yet, with a progress bar.

    Args:
        write: function of a part and the path to write it to; with several processes it must be picklable.
        parts: what goes into each file; their lengths are what the bar counts.
        files: one for each part.
        processes: how many write at the same time.
        job: title of the bar.

    Raises:
        Exception: the first that `write` raises; files that were finished by then stay. An OSError names the file.
    """
    left = [(part, file) for part, file in zip(parts, files, strict=True) if not file.is_file()]
    done = sum(map(len, parts)) - sum(len(part) for part, _ in left)
    write_whole = partial(_write_whole, write)
    with tqdm(total=sum(map(len, parts)), initial=done, desc=job, unit="ECG", disable=not left) as bar:
        if min(processes, len(left)) > 1:
            _in_parallel(write_whole, left, min(processes, len(left)), bar)
        else:
            for part, file in left:
                bar.update(write_whole(part, file))


def _write_whole(write: Callable[[Any, Path], None], part: Part, file: Path) -> int:
    try:
        with whole_file(file) as unfinished:
            write(part, unfinished)
    except OSError as error:  # what is read was refused as ValueError
        raise OSError(f"{file}: cannot be written: {' '.join(str(error).split())}") from error
    return len(part)


def _in_parallel(
    write: Callable[[Part, Path], int], left: Sequence[tuple[Part, Path]], processes: int, bar: Any
) -> None:
    with _worker_pool(processes) as pool:
        futures: list[Future[int]] = []
        for part, file in left:
            futures.append(pool.submit(write, part, file))
            futures[-1].add_done_callback(lambda done: bar.update(0 if _failed(done) else done.result()))
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
        for future in filter(_failed, futures):
            future.result()


def _failed(future: "Future[int]") -> bool:
    return future.cancelled() or future.exception() is not None


@contextmanager
def _worker_pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with this one, however it ends.

    Raises:
        ChildProcessError: one of them was ended from outside, as is done where memory runs out.
    """
    try:
        with ProcessPoolExecutor(processes, initializer=_end_with_parent, initargs=(os.getpid(),)) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"num_proc: one of {processes} processes was killed, as happens where memory runs out; try fewer"
        ) from error


def _end_with_parent(parent: int) -> None:
    """Ends this process when process `parent` is gone: one that was killed cannot tell its workers to stop."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
