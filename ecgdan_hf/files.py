"""Writes files and folders whole or not at all, for every verb.

Content is written under a temporary name beside its destination, `.part-MACHINE-PROCESS-XXXXXXXX-NAME`, and renamed
when complete. The name keeps its suffix, from which writers infer the format. What a killed process leaves is removed
or completed by the next one that writes there ([`remove_leftovers`]). New files get the permissions that the umask
allows, even from writers that restrict them to their owner. A folder that is being written can be locked. Imports
nothing of the package; every other module may import this one.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_OURS = re.compile(r"\.(part|full|old)-([0-9a-f]{6})-(\d+)-[0-9a-f]{8}-(.+)")
"""Kind, machine, process and destination: `part` is being written, `full` is complete and being moved into its folder,
named after the file that moves last, `old` makes room for its successor."""
_RESULT, _STALE = "-result", ".stale-"
_OF_RESULTS: tuple[str, ...] = ("report.md", "report.html", "predictions.csv", "kaplan_meier.png")
_OF_RESULTS += ("kaplan_meier_prevalence.png", "calibration.png", "decision_curve.png", "auc.png", "subgroups.png")
_OF_RESULTS += ("risk_histogram.png", "lead_attention.png", "deletion.png", "maps.png", "randomisation.png")
_OF_RESULTS += ("events.png",)
"""What verbs write beside `metrics.json`, some of them only for some data: none of an earlier result may stay."""
_being_written: set[Path] = set()
"""What this process is writing."""
_FORGOTTEN_SECONDS = 7 * 86400
"""Age after which what a process of another machine or container left is taken for abandoned."""
_BLOCK = 2**16
"""A disk with fewer free bytes is full."""
_EXCHANGE, _HERE = 2, -100
_LOCK, _HOLDER = ".lock", ".locked-by"
_held: set[tuple[str, int]] = set()
"""The folders that this process has locked, each with the thread that did."""


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`, which replaces `path` if the block raises nothing.

    The folder of `path` is created. A symbolic link stays, and the file that it points to is replaced.
    """
    path = _without_link(Path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy_once(path.parent)
    with _temporary(path) as part:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)
        _force(part)
        part.replace(path)
        _force(path.parent)


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
    path = _without_link(Path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    if path.exists() and not (path.is_dir() and (overwrite or not content_of(path))):
        raise FileExistsError(f"{path}: expected no folder or an empty one, found files; choose another folder")
    with _temporary(path) as part:
        part.mkdir()
        yield part
        _allow_reading(part)
        to_disk(part)
        if not path.exists():
            part.rename(path)
        elif not _exchange(part, path):
            with _temporary(path, "old") as old:
                path.rename(old)
                try:
                    part.rename(path)
                except BaseException:
                    old.rename(path)
                    raise
        _force(path.parent)


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
        remove_leftovers(folder)
        with _temporary(folder / (last + _RESULT)) as part:
            part.mkdir()
            yield part
            _allow_reading(part)
            for name in _OF_RESULTS if last == "metrics.json" else ():
                if (folder / name).exists() and not (part / name).exists():
                    (part / (_STALE + name)).touch()
            to_disk(part)
            full = part.rename(part.with_name(part.name.replace(".part-", ".full-", 1)))
            _move_into(folder, full, last)


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


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Keeps other processes that lock this file from writing it while the block runs, by `PATH.lock` beside it.

    Raises:
        ValueError: another process has the lock.
    """
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{path}: expected no other run that writes it, found one; wait until it ends, or choose another file"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows deletes no open file
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def content_of(folder: Path) -> list[Path]:
    """What a folder holds, apart from its lock and what is being written there."""
    ours = (_LOCK, _HOLDER)
    return [path for path in folder.iterdir() if path.name not in ours and not _OURS.fullmatch(path.name)]


def remove_leftovers(folder: str | Path) -> None:
    """Removes what killed processes left in a folder; completes a result that one of them was moving there."""
    for path in sorted(Path(folder).iterdir()):  # `.full` and `.old` before `.part`
        named = _OURS.fullmatch(path.name)
        if not named or not _is_abandoned(path, named[2], int(named[3])):
            continue
        with contextlib.suppress(OSError):  # another process tidies too, or the folder is read-only
            if named[1] == "full":
                _move_into(Path(folder), path, named[4].removesuffix(_RESULT))
            elif named[1] == "old" and not (path.parent / named[4]).exists():
                path.rename(path.parent / named[4])
            else:
                _remove(path)


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turns what any library raises in the block because the disk is full into an OSError that names `path`."""
    try:
        yield
    except Exception as error:
        told = isinstance(error, OSError) and error.errno == errno.ENOSPC
        full = told or "os error 28" in str(error) or shutil.disk_usage(path.parent).free < _BLOCK
        if full and not isinstance(error, ValueError):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def to_disk(folder: Path) -> None:
    """Waits until a folder and everything in it are on disk."""
    for path in [*folder.rglob("*"), folder]:
        _force(path)


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
    if folder.is_dir():
        remove_leftovers(folder)
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


def _force(path: Path) -> None:
    """Waits until a file, or the list of files of a folder, is on disk; not every system can for a folder."""
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _temporary(path: Path, kind: str = "part") -> Iterator[Path]:
    """Yields a name beside `path` for a file or folder, which is removed in the end."""
    named = path.with_name(f".{kind}-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    _being_written.add(named)
    try:
        with full_disk_named(path):
            yield named
    finally:
        _remove(named)
        _being_written.discard(named)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _move_into(folder: Path, full: Path, last: str) -> None:
    """Moves the content of a complete folder; until `last` has moved, `folder` holds no file of that name."""
    if (full / last).exists():
        (folder / last).unlink(missing_ok=True)
    for path in sorted(full.iterdir(), key=lambda path: (path.name == last, path.name)):
        if path.name.startswith(_STALE):
            (folder / path.name.removeprefix(_STALE)).unlink(missing_ok=True)
            path.unlink()
            continue
        if (folder / path.name).is_dir():
            shutil.rmtree(folder / path.name)
        path.replace(folder / path.name)
    full.rmdir()
    _force(folder)


def _without_link(path: Path) -> Path:
    return path.resolve() if path.is_symlink() else path


@functools.cache
def _tidy_once(folder: Path) -> None:
    remove_leftovers(folder)


@functools.cache
def _machine() -> str:
    """Six digits that differ between machines, and between containers, which count processes for themselves."""
    space = Path("/proc/self/ns/pid")
    name = platform.node() + (str(space.readlink()) if space.is_symlink() else "")
    return hashlib.sha256(name.encode()).hexdigest()[:6]


def _is_abandoned(path: Path, machine: str, process: int) -> bool:
    if machine != _machine():
        return time.time() - path.lstat().st_mtime > _FORGOTTEN_SECONDS
    return path not in _being_written if process == os.getpid() else not _is_alive(process)


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(0x100000, False, process)  # SYNCHRONIZE
        if not handle:
            return bool(kernel.GetLastError() == 5)  # it is another user's
        ended = kernel.WaitForSingleObject(handle, 0) == 0
        kernel.CloseHandle(handle)
        return not ended
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step, where the system can (Linux)."""
    if sys.platform != "linux":
        return False
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    return exchange is not None and exchange(_HERE, bytes(one), _HERE, bytes(other), _EXCHANGE) == 0


def _allow_reading(folder: Path) -> None:
    """Gives all files in `folder` the permissions of a new file; some writers restrict theirs to the owner."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
