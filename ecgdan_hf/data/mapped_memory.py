"""Gives back the memory that reading memory-mapped Arrow files takes.

Pages of a mapped file stay resident in the process that read them until another needs the memory, so that a pass
over a large dataset looks, to the system's limits as to `top`, as if all of it had been loaded. They are only copies
of what the disk holds: letting them go costs a page fault when they are read again. Linux only; elsewhere nothing
happens.
"""

import ctypes
import mmap
import os
from functools import cache
from pathlib import Path
from typing import Any

DEFAULT_LIMIT_BYTES = 1 << 30
_MAPS = Path("/proc/self/maps")
_STATM = Path("/proc/self/statm")


def release_mapped_pages(limit_bytes: int = DEFAULT_LIMIT_BYTES) -> int:
    """Lets go of the pages of mapped Arrow files once this process holds more than `limit_bytes` of file pages.

    Cheap enough to be called after every batch; every process that reads (a worker of a `DataLoader`) calls it itself.

    Args:
        limit_bytes: file-backed resident memory to tolerate; 0 always releases.

    Returns:
        Number of mappings released: 0 below the limit.
    """
    if not _STATM.exists() or shared_bytes() <= limit_bytes:
        return 0
    released = 0
    for line in _MAPS.read_text().splitlines():
        addresses, permissions, *_, path = line.split(maxsplit=5)
        if path.endswith(".arrow") and "w" not in permissions:  # never what a program may have written to
            start, end = (int(address, 16) for address in addresses.split("-"))
            released += _madvise()(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED) == 0
    return released


def shared_bytes() -> int:
    """File-backed resident memory of this process."""
    return int(_STATM.read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")


@cache
def _madvise() -> Any:
    return ctypes.CDLL(None, use_errno=True).madvise
