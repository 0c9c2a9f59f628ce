"""ECGs in HDF5 and MATLAB files (a MATLAB file of version 7.3 is HDF5): one array, or one row of many.

Read like a .npz: the array `signal`, or the only one with two dimensions; `sampling_rate`, `unit` and `lead_names`
beside it or as attributes of it. A file of several records holds them in an array `tracings` (records, samples,
leads), as CODE-15 does; one row is read at a time, without the zeros around it. What a file claims to hold is weighed
before memory is asked for, and what it says to lie in another file is not followed.
"""

import math
import re
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import loadmat

from ecgdan_hf.data.readers.arrays import signal_name
from ecgdan_hf.data.readers.declared import one_line
from ecgdan_hf.data.readers.zips import FREE_BYTES, MAX_BYTES, MAX_RATIO

HDF5_MARK = b"\x89HDF\r\n\x1a\n"
MAX_NAMES = 1024  # what a file says of its signal is a number, a word, or a name for each lead
# kinds of elements in "MAT-File Format", the MathWorks, version 5: miMATRIX, miCOMPRESSED, and all inside of those
_MATRIX, _COMPRESSED, _KINDS = 14, 15, (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 16, 17, 18)
DAMAGED = (OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError, MemoryError)


def is_hdf5(head: bytes) -> bool:
    """Whether a file is HDF5, by its first 4 kB; a user block, as MATLAB writes one, may come before its mark."""
    return any(head[at:].startswith(HDF5_MARK) for at in (0, 512, 1024, 2048))


def is_matlab(head: bytes) -> bool:
    """Whether a file is MATLAB's of version 5 to 7, by its first 128 bytes."""
    return head.startswith(b"MATLAB") and head[124:128] in (b"\x00\x01IM", b"\x01\x00MI")


def read_hdf5(path: Path, member: str | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """The array of a HDF5 file and what the file says of it.

    Args:
        path: the file.
        member: which record of a file of several: its row, from 0.

    Raises:
        ValueError: a damaged file, no array that could be the signal, or no such row.
    """
    try:
        with h5py.File(path, "r") as file:
            arrays = _arrays(file)
            numeric = {name: array for name, array in arrays.items() if array.dtype.kind in "fiu"}
            many = [name for name, array in numeric.items() if array.ndim == 3]
            name = many[0] if len(many) == 1 else signal_name({n: a.shape for n, a in numeric.items()}, path)
            signal = _rows(numeric[name], member, path)
            attributes = {**file.attrs, **arrays[name].attrs}
            others = {other: array for other, array in arrays.items() if other != name and array.size <= MAX_NAMES}
            said = {other.rsplit("/", 1)[-1]: _value(array, file) for other, array in others.items()}
            return signal, _words({**attributes, **said})
    except DAMAGED as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: truncated or damaged HDF5 file: {one_line(error)[:200]}") from error


def _arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Arrays of a file by name; only what lies in the file itself, and not MATLAB's own `#refs#`."""
    found: dict[str, h5py.Dataset] = {}

    def add(name: str, item: h5py.Dataset | h5py.Group) -> None:  # is called for hard links only
        outside = isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
        if isinstance(item, h5py.Dataset) and item.shape and not outside and not name.startswith("#"):
            found[name] = item

    file.visititems(add)
    return found


def _rows(array: h5py.Dataset, member: str | None, path: Path) -> np.ndarray:
    """All of an array with two dimensions, one row of one with three, less the zeros it was filled up with."""
    if array.ndim == 3 or member is not None:
        count = array.shape[0] if array.ndim == 3 else 0
        if count == 0 or member is None or not (member.isdecimal() and int(member) < count):
            expected = f"a row from 0 to {count - 1}" if count else "None, as the file holds one record"
            raise ValueError(f"{path}: member: expected {expected}, got {member!r}")
    wanted = math.prod(array.shape[-2:]) * array.dtype.itemsize
    chunk = math.prod(array.chunks or ()) * array.dtype.itemsize
    if max(wanted, chunk) > MAX_BYTES:
        raise ValueError(f"{path}: expected a record of at most {MAX_BYTES >> 20} MiB, got {max(wanted, chunk)} bytes")
    if member is None:
        return np.asarray(array[()])
    return _without_padding(np.asarray(array[int(member)]), f"{path}: row {member}")


def _without_padding(row: np.ndarray, source: str) -> np.ndarray:
    """A record less its first and last samples that are zero in all leads; its longer side is time."""
    row = row if row.shape[0] > row.shape[1] else row.T
    recorded = np.flatnonzero(row.any(axis=1))
    if not recorded.size:
        raise ValueError(f"{source}: expected a signal, got zeros only")
    return row[recorded[0] : recorded[-1] + 1]


def _value(array: h5py.Dataset, file: h5py.File) -> Any:
    """A number, a word, or words; MATLAB keeps a word as numbers of its letters and words as references to those."""
    if array.dtype.kind == "O" and h5py.check_ref_dtype(array.dtype):
        cells = (file[reference] for reference in np.ravel(array[()]) if reference)
        return [_value(cell, file) for cell in cells if isinstance(cell, h5py.Dataset) and cell.size <= MAX_NAMES]
    if array.attrs.get("MATLAB_class") == b"char":
        return "".join(chr(code) for code in np.ravel(array[()]))
    return array.asstr()[()] if h5py.check_string_dtype(array.dtype) else array[()]


def read_matlab(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The array of a MATLAB file of version 5 to 7 and what the file says of it.

    Raises:
        ValueError: a damaged file, or no array that could be the signal.
    """
    try:
        content = {name: value for name, value in loadmat(_inflated(path)).items() if not name.startswith("__")}
    except (*DAMAGED, zlib.error, struct.error) as error:
        raise ValueError(f"{path}: truncated or damaged MATLAB file: {one_line(error)[:200]}") from error
    except Exception as error:  # `MatReadError`, and what its decoder meets in damaged headers
        raise ValueError(f"{path}: damaged MATLAB file: {one_line(error)[:200]}") from error
    numeric = {name: value.shape for name, value in content.items() if getattr(value, "dtype", None) is not None}
    numeric = {name: shape for name, shape in numeric.items() if content[name].dtype.kind in "fiu"}
    name = signal_name(numeric, path)
    return content[name], _words({other: value for other, value in content.items() if other != name})


def _inflated(path: Path) -> BytesIO:
    """A MATLAB file with its compressed parts unfolded, no part of which claims more than there is."""
    content = path.read_bytes()
    order = "<" if content[126:128] == b"IM" else ">"
    parts, at = [content[:128]], 128
    while at < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        step = size if kind == _COMPRESSED else size + -size % 8
        if size > len(content) - at - 8:
            raise ValueError(f"expected a part of {size} bytes, got {len(content) - at - 8}")
        part = content[at : at + 8 + step]
        parts.append(_unfolded(part[8:]) if kind == _COMPRESSED else part)
        if sum(map(len, parts)) > MAX_BYTES:
            raise ValueError(f"expected parts of at most {MAX_BYTES} bytes together, got more")
        _check_elements(memoryview(parts[-1]), order)
        at += 8 + step
    return BytesIO(b"".join(parts))


def _unfolded(packed: bytes) -> bytes:
    inflater = zlib.decompressobj()
    limit = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * len(packed)))
    part = inflater.decompress(packed, limit)
    if inflater.unconsumed_tail or not inflater.eof:
        raise ValueError(f"expected a whole part of at most {limit} bytes, got {len(part)} bytes and no end")
    return part


def _check_elements(content: memoryview, order: str) -> None:
    """Refuses an element, at any depth, of more bytes than are left: they are allocated before they are read."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        if kind >> 16:  # kind and size share four bytes, and the content the next four
            at += 8
            continue
        left = len(content) - at - 8
        if kind not in _KINDS or size > left:
            raise ValueError(f"expected an element of at most {left} bytes, got {size} of kind {kind}")
        if kind == _MATRIX:
            _check_elements(content[at + 8 : at + 8 + size], order)
        at += 8 + size + -size % 8


def _words(said: dict[str, Any]) -> dict[str, Any]:
    """What a file says of its signal as plain numbers, words and lists; lead names always as a list."""
    plain = {name: _plain(value) for name, value in said.items()}
    if isinstance(plain.get("lead_names"), str):
        plain["lead_names"] = [lead.strip() for lead in re.split("[,;]", plain["lead_names"])]
    return plain


def _plain(value: Any) -> Any:
    """A number or a word instead of an array of one, a list instead of a longer one."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, np.ndarray | np.generic | list):
        return value
    items = [_plain(item) for item in (value if isinstance(value, list) else np.ravel(value).tolist())[:MAX_NAMES]]
    return items[0] if len(items) == 1 else items
