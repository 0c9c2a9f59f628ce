"""Writes files and folders whole or not at all, for every verb.

Content is written under a temporary name beside its destination, `.part-XXXXXXXX-NAME`, and renamed when complete. The
name keeps its suffix, from which writers infer the format. New files get the permissions that the umask allows, even
from writers that restrict them to their owner. A folder that is being written can be locked. Imports nothing of the
package; every other module may import this one.
"""

import hashlib
import json
import os
import platform
import secrets
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = ".part-"
_DIGESTS = "digests.json"
_LOCK, _HOLDER = ".lock", ".locked-by"
_held: set[tuple[str, int]] = set()
"""The folders that this process has locked, each with the thread that did."""


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`, which replaces `path` if the block raises nothing.

    The folder of `path` is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)
        _to_disk(part)
        part.replace(path)
        _to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, which becomes `path` if the block raises nothing.

    Args:
        path: a folder that does not exist or is empty.
        overwrite: replace a folder that has content; it stays until the new one is complete.

    Raises:
        FileExistsError: `path` is a file, or has content and `overwrite` is false.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and (overwrite or not content_of(path))):
        raise FileExistsError(f"{path}: expected no folder or an empty one, found files; choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    part, old = _part(path), _part(path)
    try:
        part.mkdir()
        yield part
        _allow_reading(part)
        _all_to_disk(part)
        if path.exists():
            path.rename(old)
        try:
            part.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def filled_folder(folder: str | Path, last: str) -> Iterator[Path]:
    """Yields a temporary folder, whose content moves into `folder` if the block raises nothing.

    Other content of `folder` stays.

    Args:
        folder: created if necessary.
        last: the file that moves last, so that a folder that has it is complete.

    Raises:
        ValueError: another process is writing into `folder`.
    """
    folder = Path(folder)
    with locked_folder(folder):
        part = _part(folder / "result")
        try:
            part.mkdir()
            yield part
            _allow_reading(part)
            _all_to_disk(part)
            for path in sorted(part.iterdir(), key=lambda path: (path.name == last, path.name)):
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def locked_folder(folder: str | Path) -> Iterator[None]:
    """Keeps other processes that lock the folder out of it while the block runs; creates the folder.

    The block may lock it again. The system releases the lock of a process that was killed: the next one takes over,
    with a warning.

    Raises:
        ValueError: another process, or another thread of this one, has the lock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key, holder = (os.path.realpath(folder), threading.get_ident()), folder / _HOLDER
    if key in _held:
        yield
        return
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{folder}: expected no other run in this folder, found one{_holder(holder, ', ')}; wait until it ends, "
            "or choose another folder"
        ) from error
    try:
        if holder.exists():
            warnings.warn(f"{folder}: taken over from a run that was killed{_holder(holder, ', ')}", stacklevel=3)
        holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        _held.add(key)
        yield
    finally:
        _held.discard(key)
        holder.unlink(missing_ok=True)
        lock.release()


def content_of(folder: Path) -> list[Path]:
    """What a folder holds, apart from its lock."""
    return [path for path in folder.iterdir() if path.name not in (_LOCK, _HOLDER)]


def remove_leftovers(folder: str | Path) -> None:
    """Removes what killed processes left in `folder`; nobody may be writing there."""
    for path in Path(folder).glob(f"{_PREFIX}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(folder: Path) -> None:
    """Writes size and SHA-256 of every file of a folder into its `digests.json`; returns when all are on disk."""
    found = {str(path.relative_to(folder)): _size_and_digest(path) for path in _files_of(folder)}
    (folder / _DIGESTS).write_text(json.dumps(found, indent=1), encoding="utf-8")
    _all_to_disk(folder)


def check_digests(folder: Path) -> None:
    """Compares the files of a folder with its `digests.json`; other files may have been added.

    Raises:
        ValueError: a file is missing or not the one that was written; the text names it.
    """
    try:
        expected: dict[str, list[int | str]] = json.loads((folder / _DIGESTS).read_text(encoding="utf-8"))
        names = {str(folder / name): size_and_digest for name, size_and_digest in expected.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{folder / _DIGESTS}: expected the digests of the folder, found none or a damaged file"
        ) from error
    for name, wanted in names.items():
        if not Path(name).is_file():
            raise ValueError(f"{name}: expected a file of {wanted[0]} bytes, found none")
        found = _size_and_digest(Path(name))
        if found != wanted:
            change = f"{found[0]} bytes" if found[0] != wanted[0] else "other content"
            raise ValueError(f"{name}: damaged: expected the {wanted[0]} bytes that were written, found {change}")


def check_output_file(path: Path, suffixes: tuple[str, ...] = (), option: str = "--out") -> None:
    """Rejects, before any work, a file that cannot be written.

    Raises:
        ValueError: `path` is a folder, its folder does not exist, or its suffix is not one of `suffixes`.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{option}: expected a file in an existing folder, got {path}")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{option}: expected a name that ends in {', '.join(suffixes)}, got {path}")


def check_output_folder(output_dir: str | None, overwrite: bool, mark: str) -> Path:
    """Rejects, before any work, a folder that has content, unless it is an earlier result to be replaced.

    Args:
        output_dir: the folder.
        overwrite: an earlier result may be replaced.
        mark: the file that identifies an earlier result.

    Returns:
        The folder; nothing is written yet.

    Raises:
        ValueError: no folder given, a file, a folder with other content, or an earlier result without `overwrite`.
    """
    if not output_dir:
        raise ValueError("output_dir: expected a folder for the result, got none; give --output-dir")
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder, found a file")
    if folder.is_dir() and content_of(folder):
        if not (folder / mark).is_file():
            raise ValueError(f"{folder}: expected an empty folder or an earlier result, found other files")
        if not overwrite:
            raise ValueError(f"{folder}: holds a result; give --overwrite to replace it, or choose another folder")
    return folder


def _holder(path: Path, before: str) -> str:
    """Who has a lock, after these words; empty if that is not known."""
    try:
        return before + path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _size_and_digest(path: Path) -> list[int | str]:
    return [path.stat().st_size, digest_of(path)]


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _to_disk(path: Path) -> None:
    """Waits until a file or the entries of a folder are on disk; Windows has this for files only."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _all_to_disk(folder: Path) -> None:
    for path in [*_files_of(folder), folder]:
        _to_disk(path)


def _part(path: Path) -> Path:
    return path.with_name(f"{_PREFIX}{secrets.token_hex(4)}-{path.name}")


def _allow_reading(folder: Path) -> None:
    """Gives all files in `folder` the permissions of a new file; some writers restrict theirs to the owner."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
