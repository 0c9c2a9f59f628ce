"""Processes many records in parallel: in order, or into files, which appear whole so that a job can resume."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ecgdan_hf.data.prepared.ray_cluster import check_ray, in_order_on_ray
from ecgdan_hf.files import whole_file

Part = Sequence[Any]

ENGINES = ("local", "ray")
_ENGINE: ContextVar[str] = ContextVar("engine", default="local")

CHUNK_RECORDS = 16  # handed to a process at once
MIN_RECORDS_PER_PROCESS = 64


def _num_processes(records: int, num_proc: int | None) -> int:
    """`num_proc`, or one process for each core that has enough to do."""
    if num_proc is not None:
        return max(1, num_proc)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, records // MIN_RECORDS_PER_PROCESS))


def in_order(function: Callable[[Any], Any], items: Sequence[Any], num_proc: int | None) -> Iterator[Any]:
    """Yields the function's result for each item, in order; with several processes it must be picklable."""
    processes = _num_processes(len(items), num_proc)
    if processes == 1:
        yield from map(function, items)
        return
    with _worker_pool(processes) as pool:
        yield from pool.map(function, items, chunksize=CHUNK_RECORDS)


def is_ray(engine: str) -> bool:
    """Whether the work goes to a Ray cluster; ValueError for an unknown engine, or if Ray is not installed."""
    if engine not in ENGINES:
        raise ValueError(f"engine: expected {' or '.join(ENGINES)}, got {engine!r}")
    if engine == "ray":
        check_ray()
    return engine == "ray"


@contextmanager
def shards_written_by(engine: str) -> Iterator[None]:
    """Within it, [`write_shards`] uses "local" processes, or a "ray" cluster that shares the folder of the files."""
    before = _ENGINE.set("ray" if is_ray(engine) else "local")
    try:
        yield
    finally:
        _ENGINE.reset(before)


def write_shards(
    write: Callable[[Any, Path], None], parts: Sequence[Part], files: Sequence[Path], num_proc: int | None, job: str
) -> None:
    """Writes each missing file from its part, with a progress bar titled `job` that counts the lengths of the parts.

    With several processes `write` must be picklable. If it raises, finished files stay. See [`shards_written_by`].
    """
    left = [(part, file) for part, file in zip(parts, files, strict=True) if not file.is_file()]
    remaining = sum(len(part) for part, _ in left)
    done, processes = sum(map(len, parts)) - remaining, _num_processes(remaining, num_proc)
    write_whole = partial(_write_whole, write)
    with tqdm(total=sum(map(len, parts)), initial=done, desc=job, unit="ECG", disable=not left) as bar:
        if _ENGINE.get() == "ray":
            for written in in_order_on_ray(partial(_write_one, write_whole), left):
                bar.update(written)
        elif min(processes, len(left)) > 1:
            _in_parallel(write_whole, left, min(processes, len(left)), bar)
        else:
            for part, file in left:
                bar.update(write_whole(part, file))


def _write_one(write: Callable[[Part, Path], int], left: tuple[Part, Path]) -> int:
    return write(*left)


def _write_whole(write: Callable[[Any, Path], None], part: Part, file: Path) -> int:
    try:
        with whole_file(file) as unfinished:
            write(part, unfinished)
    except OSError as error:  # of writing: reading raises ValueError
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
    """A pool whose processes end with this one; raises ChildProcessError if one of them was killed."""
    try:
        with ProcessPoolExecutor(processes, initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"num_proc: one of {processes} processes was killed, as happens where memory runs out; try fewer"
        ) from error


def end_with_parent(parent: int) -> None:
    """Ends this process when process `parent` is gone, as a killed parent cannot stop its workers."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
