"""Entries of a zip, read into memory. Rejects zip bombs and path traversal."""

import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ecgdan_hf.data.readers.messages import one_line

MAX_BYTES = 512 << 20
MAX_RATIO = 50  # samples written as text compress far less, zeros far more
FREE_BYTES = 32 << 20  # an entry up to this size may have any ratio
DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, LookupError)


class ZipReader:
    """A zip file. Its directory is read once per process, not again for each of 50,000 records."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[zipfile.ZipInfo]:
        """The files in the zip, in its order; raises ValueError for a damaged zip or path traversal."""
        try:
            _, entries, outside = self._opened()
        except DAMAGED as error:
            raise ValueError(f"{self.path}: truncated or damaged zip file: {one_line(error)[:200]}") from error
        if outside:
            raise ValueError(f"{self.path}: expected entries inside the zip's own folder, got the name {outside[0]!r}")
        return entries

    def entry(self, name: str) -> zipfile.ZipInfo:
        """The entry of this name; raises ValueError for a damaged zip, or if there is none."""
        try:
            return self._opened()[0].getinfo(name)
        except DAMAGED as error:
            raise ValueError(
                f"{self.path}: expected a zip with the entry {name}, got {one_line(error)[:200]}"
            ) from error

    def read(self, entry: zipfile.ZipInfo, num_bytes: int | None = None) -> bytes:
        """Content of an entry, or its first bytes.

        Raises ValueError for an entry that is damaged, encrypted, larger than `MAX_BYTES`, or compressed over
        `MAX_RATIO` times.
        """
        where = f"{self.path}: entry {entry.filename}"
        size = entry.file_size
        if num_bytes is None and (size > MAX_BYTES or size > max(FREE_BYTES, MAX_RATIO * entry.compress_size)):
            raise ValueError(
                f"{where}: expected at most {MAX_BYTES >> 20} MiB and {MAX_RATIO} times its packed size, got {size} "
                f"bytes packed in {entry.compress_size}"
            )
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others decompress without a limit
            raise ValueError(f"{where}: expected it stored or deflated, got compression method {entry.compress_type}")
        try:
            with self._opened()[0].open(entry) as stream:
                return stream.read(size if num_bytes is None else min(size, num_bytes))  # also if the size is a lie
        except DAMAGED as error:
            raise ValueError(f"{where}: truncated or damaged: {one_line(error)[:200]}") from error

    def _opened(self) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo], list[str]]:
        """The zip, the files in it, and those of their names that lead out of a folder."""
        found = self.path.stat()
        return _open(self.path, found.st_mtime_ns, found.st_size, os.getpid())  # processes would share a file position


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
