"""Reads memory-mapped Arrow files without copying, and releases the memory that this takes.

Pages of a mapped file stay resident until another process needs the memory, so that to memory limits and `top` a pass
over a large dataset looks as if all of it was loaded. Releasing them costs a page fault at the next read. Linux only;
has no effect elsewhere.
"""

import ctypes
import mmap
import os
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

DEFAULT_LIMIT_BYTES = 1 << 30
_MAPS = Path("/proc/self/maps")
_STATM = Path("/proc/self/statm")


class MappedArrays:
    """The arrays of one column (`Array2D` of a fixed shape) of a `datasets.Dataset`, as views of its Arrow files.

    `arrays[[3, 1]]` is a list of two read-only views, not copies (`tests/benchmarks/bench_loading.py`).
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset, self.name = dataset, name

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "name": self.name}  # the views would be copied to the other process

    @cached_property
    def _views(self) -> list[np.ndarray]:
        shape = self.dataset.features[self.name].shape
        chunks = self.dataset.data.column(self.name).chunks
        flat = (chunk.storage.flatten().flatten().to_numpy(zero_copy_only=True) for chunk in chunks)
        return [values.reshape(-1, *shape) for values in flat]

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(len(view) for view in self._views)])

    @cached_property
    def _selected(self) -> np.ndarray | None:
        """Rows in the file of a selection; None without one."""
        indices = self.dataset._indices  # set by `Dataset.select`; there is no public name
        return None if indices is None else indices.column(0).to_numpy().astype(np.int64)

    def __getitem__(self, rows: Sequence[int]) -> list[np.ndarray]:
        places = np.asarray(rows) if self._selected is None else self._selected[rows]
        chunks = np.searchsorted(self._starts, places, side="right") - 1
        return [self._views[i][place - self._starts[i]] for i, place in zip(chunks, places, strict=True)]

    @staticmethod
    def release_pages(limit_bytes: int = DEFAULT_LIMIT_BYTES) -> int:
        """Releases the pages of all mapped Arrow files once this process holds more than `limit_bytes` of file pages.

        Cheap enough to call after every batch, in every process that reads. Returns the number of mappings released.
        """
        if not _STATM.exists() or _shared_bytes() <= limit_bytes:
            return 0
        released = 0
        for line in _MAPS.read_text(encoding="utf-8").splitlines():
            addresses, permissions, *_, path = line.split(maxsplit=5)
            if path.endswith(".arrow") and "w" not in permissions:  # only read-only mappings
                start, end = (int(address, 16) for address in addresses.split("-"))
                released += _madvise()(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED) == 0
        return released


def _shared_bytes() -> int:
    """File-backed resident memory of this process."""
    return int(_STATM.read_text(encoding="utf-8").split()[2]) * os.sysconf("SC_PAGE_SIZE")


@cache
def _madvise() -> Any:
    return ctypes.CDLL(None, use_errno=True).madvise
