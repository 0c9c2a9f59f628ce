"""Decodes MATLAB and HDF5 files: the array that is the signal, and what the file says of it.

Runs in a child process (see `child`), which starts quickly because this module imports only `zips` of the package.
"""

import math
import re
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from wrapt import lazy_import

from ecgdan_hf.data.readers.messages import one_line
from ecgdan_hf.data.readers.zips import FREE_BYTES, MAX_BYTES, MAX_RATIO

if TYPE_CHECKING:
    import h5py
else:  # slow to import, and not needed for most files
    h5py = lazy_import("h5py")

_MAX_NAMES = 1024  # what a file says of its signal is a number, a word, or a name for each lead
# element types in "MAT-File Format" (The MathWorks), version 5: miMATRIX, miCOMPRESSED, and all allowed types
_MATRIX, _COMPRESSED, _KINDS = 14, 15, (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 16, 17, 18)
_DAMAGED = (OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError, MemoryError)


def signal_name(shapes: dict[str, tuple[int, ...]], path: Path) -> str:
    """Which numeric array of a file is the signal: `signal`, or the only one with two dimensions; else ValueError."""
    planes = {name: shape for name, shape in shapes.items() if len(shape) == 2 and max(shape) > 1}
    found = [name for name, shape in planes.items() if min(shape) > 1] or list(planes)  # a row is a lead or a time
    if "signal" in shapes or len(found) == 1:
        return "signal" if "signal" in shapes else found[0]
    raise ValueError(
        f"{path}: expected an array named 'signal', or one array only with two dimensions, got "
        f"{', '.join(f'{name} {shape}' for name, shape in list(shapes.items())[:8]) or 'none'}"
    )


def hdf5_content(path: Path, member: str | None) -> tuple[np.ndarray, dict[str, Any]]:
    """The signal, or the row `member` (from 0) of a file of several, and what the file says of it."""
    try:
        with h5py.File(path, "r") as file:
            arrays = _arrays(file)
            numeric = {name: array for name, array in arrays.items() if array.dtype.kind in "fiu"}
            many = [name for name, array in numeric.items() if array.ndim == 3]
            name = many[0] if len(many) == 1 else signal_name({n: a.shape for n, a in numeric.items()}, path)
            signal = _rows(numeric[name], member, path)
            attributes = _attributes(file, name)
            others = {other: array for other, array in arrays.items() if other != name and array.size <= _MAX_NAMES}
            said = {other.rsplit("/", 1)[-1]: _value(array, file) for other, array in others.items()}
            return signal, _words({**attributes, **said})
    except _DAMAGED as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: truncated or damaged HDF5 file: {one_line(error)[:200]}") from error


def _arrays(file: "h5py.File") -> "dict[str, h5py.Dataset]":
    """Arrays of a file by name, without links to other files and MATLAB's own `#refs#`."""
    found: dict[str, h5py.Dataset] = {}

    def add(name: str, item: "h5py.Dataset | h5py.Group") -> None:  # called for hard links only
        outside = isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
        if isinstance(item, h5py.Dataset) and item.shape is not None and not outside and not name.startswith("#"):
            found[name] = item

    file.visititems(add)
    return found


def _attributes(file: "h5py.File", name: str) -> dict[str, Any]:
    """Attributes of the file, of the groups that hold the array, and of the array; the nearer one counts."""
    groups = name.split("/")
    places = [file, *(file["/".join(groups[:depth])] for depth in range(1, len(groups) + 1))]
    return {key: value for place in places for key, value in place.attrs.items()}


def _rows(array: "h5py.Dataset", member: str | None, path: Path) -> np.ndarray:
    """An array with two dimensions, or one row of one with three without its zero padding."""
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
    """Removes the first and last samples that are zero in all leads; the longer side is time."""
    row = row if row.shape[0] > row.shape[1] else row.T
    recorded = np.flatnonzero(row.any(axis=1))
    if not recorded.size:
        raise ValueError(f"{source}: expected a signal, got zeros only")
    return row[recorded[0] : recorded[-1] + 1]


def _value(array: "h5py.Dataset", file: "h5py.File") -> Any:
    """A number, a word, or words. MATLAB stores a word as character codes and several words as references to those."""
    if array.dtype.kind == "O" and h5py.check_ref_dtype(array.dtype):
        cells = (file[reference] for reference in np.ravel(array[()]) if reference)
        return [_value(cell, file) for cell in cells if isinstance(cell, h5py.Dataset) and cell.size <= _MAX_NAMES]
    if array.attrs.get("MATLAB_class") == b"char":
        return "".join(chr(code) for code in np.ravel(array[()]))
    return array.asstr()[()] if h5py.check_string_dtype(array.dtype) else array[()]


def matlab_content(path: Path, _: str | None) -> tuple[np.ndarray, dict[str, Any]]:
    """The signal of a file of version 5 to 7 and what the file says of it."""
    from scipy.io import loadmat

    try:
        content = _without_structs(loadmat(_inflated(path)))
    except (*_DAMAGED, zlib.error, struct.error) as error:
        raise ValueError(f"{path}: truncated or damaged MATLAB file: {one_line(error)[:200]}") from error
    except Exception as error:  # `MatReadError`, and whatever damaged headers cause
        raise ValueError(f"{path}: damaged MATLAB file: {one_line(error)[:200]}") from error
    numeric = {name: value.shape for name, value in content.items() if getattr(value, "dtype", None) is not None}
    numeric = {name: shape for name, shape in numeric.items() if content[name].dtype.kind in "fiu"}
    name = signal_name(numeric, path)
    return content[name], _words({other: value for other, value in content.items() if other != name})


def _without_structs(content: dict[str, Any]) -> dict[str, Any]:
    """The variables of a file; those of a structure, such as `ECG.data` of CPSC 2018, by the names of its fields."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        fields = getattr(getattr(value, "dtype", None), "names", None)
        if fields and value.size == 1:
            found |= {field: value.ravel()[0][field] for field in fields if field not in found}
        elif not name.startswith("__"):
            found[name] = value
    return found


def _inflated(path: Path) -> BytesIO:
    """Decompresses a MATLAB file; rejects parts that declare more bytes than there are."""
    content = path.read_bytes()
    order = "<" if content[126:128] == b"IM" else ">"
    parts, at = [content[:128]], 128
    while at < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        step = size if kind == _COMPRESSED else size + -size % 8
        if size > len(content) - at - 8:
            raise ValueError(f"expected a part of {size} bytes, got {len(content) - at - 8}")
        part = content[at : at + 8 + step]
        parts.append(_decompressed(part[8:]) if kind == _COMPRESSED else part)
        if sum(map(len, parts)) > MAX_BYTES:
            raise ValueError(f"expected parts of at most {MAX_BYTES} bytes together, got more")
        _check_elements(memoryview(parts[-1]), order)
        at += 8 + step
    return BytesIO(b"".join(parts))


def _decompressed(packed: bytes) -> bytes:
    inflater = zlib.decompressobj()
    limit = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * len(packed)))
    part = inflater.decompress(packed, limit)
    if inflater.unconsumed_tail or not inflater.eof:
        raise ValueError(f"expected a whole part of at most {limit} bytes, got {len(part)} bytes and no end")
    return part


def _check_elements(content: memoryview, order: str) -> None:
    """Rejects an element, at any depth, that declares more bytes than are left: scipy allocates before it reads."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        if kind >> 16:  # a small element: type and size in four bytes, content in the next four
            at += 8
            continue
        left = len(content) - at - 8
        if kind not in _KINDS or size > left:
            raise ValueError(f"expected an element of at most {left} bytes, got {size} of kind {kind}")
        if kind == _MATRIX:
            _check_elements(content[at + 8 : at + 8 + size], order)
        at += 8 + size + -size % 8


def _words(said: dict[str, Any]) -> dict[str, Any]:
    """Metadata as plain numbers, words and lists; lead names always as a list."""
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
    items = [_plain(item) for item in (value if isinstance(value, list) else np.ravel(value).tolist())[:_MAX_NAMES]]
    return items[0] if len(items) == 1 else items
