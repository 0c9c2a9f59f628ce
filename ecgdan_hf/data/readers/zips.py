"""Entries of a zip, read into memory; what unfolds beyond reason and names that lead out of a folder are refused."""

import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ecgdan_hf.data.readers.declared import one_line

MAX_BYTES = 512 << 20
MAX_RATIO = 50  # samples as text shrink by far less, zeros by far more
FREE_BYTES = 32 << 20  # what may unfold at any ratio
DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, LookupError)


def zip_entries(path: Path) -> list[zipfile.ZipInfo]:
    """The files in a zip, in its order.

    Raises:
        ValueError: a damaged zip, or a name that leads out of the folder it would be unpacked to.
    """
    try:
        _, entries, outside = _opened(path)
    except DAMAGED as error:
        raise ValueError(f"{path}: truncated or damaged zip file: {one_line(error)[:200]}") from error
    if outside:
        raise ValueError(f"{path}: expected entries inside the zip's own folder, got the name {outside[0]!r}")
    return entries


def entry_named(path: Path, name: str) -> zipfile.ZipInfo:
    """The entry of a name.

    Raises:
        ValueError: a damaged zip, or no such entry.
    """
    try:
        return _opened(path)[0].getinfo(name)
    except DAMAGED as error:
        raise ValueError(f"{path}: expected a zip with the entry {name}, got {one_line(error)[:200]}") from error


def read_entry(path: Path, entry: zipfile.ZipInfo, num_bytes: int | None = None) -> bytes:
    """Content of an entry, or its first bytes.

    Raises:
        ValueError: a damaged or encrypted entry, or one that unfolds to more than `MAX_BYTES` or `MAX_RATIO` times.
    """
    where = f"{path}: entry {entry.filename}"
    size = entry.file_size
    if num_bytes is None and (size > MAX_BYTES or size > max(FREE_BYTES, MAX_RATIO * entry.compress_size)):
        raise ValueError(
            f"{where}: expected at most {MAX_BYTES >> 20} MiB and {MAX_RATIO} times its packed size, got {size} bytes "
            f"packed in {entry.compress_size}"
        )
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unfold without a bound
        raise ValueError(f"{where}: expected it stored or deflated, got compression method {entry.compress_type}")
    try:
        with _opened(path)[0].open(entry) as stream:
            return stream.read(size if num_bytes is None else min(size, num_bytes))  # the bound holds for lying sizes
    except DAMAGED as error:
        raise ValueError(f"{where}: truncated or damaged: {one_line(error)[:200]}") from error


def _opened(path: Path) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo], list[str]]:
    """A zip, the files in it, and their names that lead out of a folder.

    Its directory is read once, and not again for each of 50,000 records.
    """
    found = path.stat()
    return _open(path, found.st_mtime_ns, found.st_size, os.getpid())  # processes would share their place in the file


@lru_cache(maxsize=4)
def _open(
    path: Path, changed: int, size: int, process: int
) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo], list[str]]:
    archive = zipfile.ZipFile(path)
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    return archive, entries, [entry.filename for entry in entries if _leads_out(entry.filename)]


def _leads_out(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or ":" in name
