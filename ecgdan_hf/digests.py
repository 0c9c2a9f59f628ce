"""Digests of files, by which damage is noticed: a flipped bit as well as a missing end.

Digests of a folder stand in its `digests.json`. A large file of our own is sealed: its digest is its end. Imports of
the package only how files are written.
"""

import functools
import hashlib
import json
from pathlib import Path

import xxhash

from ecgdan_hf.files import to_disk

_DIGESTS = "digests.json"
_SEAL, _SEALED = b"ecgdan01", 8 + 16
_CHUNK = 2**20


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(folder: Path) -> None:
    """Writes size and SHA-256 of every file of a folder into its `digests.json`; returns when all are on disk."""
    found = {
        str(path.relative_to(folder)): _size_and_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    (folder / _DIGESTS).write_text(json.dumps(found, indent=1), encoding="utf-8")
    to_disk(folder)


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


def _size_and_digest(path: Path) -> list[int | str]:
    return [path.stat().st_size, digest_of(path)]


def seal(path: Path) -> None:
    """Appends a digest of a file's content to it; readers of a format with an end, such as Arrow, stop before it.

    XXH3 with 128 bits, which is as fast as the disk: it tells damage, not forgery.
    """
    digest = _fast_digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(_SEAL + digest)


def is_sealed(path: Path) -> bool:
    """Whether a file is there and its content is that which was sealed; read once while the file does not change."""
    if not path.is_file():
        return False
    stat = path.stat()
    return _is_sealed(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _is_sealed(path: Path, size: int, modified: int) -> bool:
    if size < _SEALED:
        return False
    with path.open("rb") as file:
        file.seek(size - _SEALED)
        end = file.read()
    return end == _SEAL + _fast_digest(path, size - _SEALED)


def _fast_digest(path: Path, size: int) -> bytes:
    """XXH3 of the first `size` bytes."""
    digest, left = xxhash.xxh3_128(), size
    with path.open("rb") as file:
        while left:
            part = file.read(min(left, _CHUNK))
            if not part:
                break
            digest.update(part)
            left -= len(part)
    return digest.digest()
