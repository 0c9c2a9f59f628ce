"""ECGs kept as plain arrays: .npy, .npz and .csv; and any array as a record."""

import math
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from ecgdan_hf.data.readers.declared import Declared, Format, one_line
from ecgdan_hf.data.readers.decoders import signal_name
from ecgdan_hf.data.readers.tables import decoded, names_a_lead, read_table
from ecgdan_hf.data.readers.zips import ZipReader
from ecgdan_hf.data.record import EcgRecord

_NPY_MARK = b"\x93NUMPY"
_OTHER_WORDS = {
    "sampling_rate": ("fs", "sampling_frequency", "samplingrate", "sample_rate", "sampling rate", "frequency_hz"),
    "unit": ("units", "signal_unit"),
    "lead_names": ("leads", "channel_names", "channels", "sig_name", "lead_labels"),
}


def as_record(
    array: np.ndarray, said: dict[str, Any], path: Path, declared: Declared, member: str | None = None
) -> EcgRecord:
    """The array in millivolt, with what file (`said`) and caller state; `member` is its place in a file of several."""
    said = _in_our_words(said)
    declared.check_complete(said, path)
    rate = declared.rate(said.get("sampling_rate"), path)
    factor = declared.factor(said.get("unit"), path)
    leads = declared.leads(said.get("lead_names"), path)
    if array.ndim == 1 and len(leads) == 1:  # a device with a single lead
        array = array[None]
    if array.ndim == 3 and array.shape[0] == 1:  # a batch of one
        array = array[0]
    if array.ndim != 2 or array.dtype.kind not in "fiu" or len(leads) not in array.shape:
        found = f"{array.dtype} {array.shape}"
        raise ValueError(f"{path}: expected numbers (leads, samples) for {len(leads)} leads, got {found}")
    if array.shape[0] != len(leads):
        array = array.T
    return EcgRecord(
        signal_mv=(array.astype(np.float64) * factor).astype(np.float32),
        sampling_rate=rate,
        lead_names=tuple(leads),
        record_id=path.stem if member is None else f"{path.stem}/{member}",
        source=str(path),
    )


def _in_our_words(said: dict[str, Any]) -> dict[str, Any]:
    """What a file says, with our names for rate, unit and leads where it has others; an array of one is its value."""
    plain = {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in said.items()}
    ours = {word: plain.pop(word) for word in _OTHER_WORDS if word in plain}
    plain |= {name: value for name, value in ours.items() if value is not None}
    for name, value in list(plain.items()):
        word = next((word for word, others in _OTHER_WORDS.items() if name.strip().lower() in others), None)
        if word is not None and plain.get(word) is None:
            plain[word] = value
    names = plain.get("lead_names")
    if isinstance(names, str):
        plain["lead_names"] = [lead.strip() for lead in re.split("[,;]", names)]
    return plain


def _is_numpy(head: bytes) -> bool:
    """An array, or a zip whose first entry is one."""
    first_name = head[30 : 30 + int.from_bytes(head[26:28], "little")] if head.startswith(b"PK\x03\x04") else b""
    return head.startswith(_NPY_MARK) or first_name.endswith(b".npy")


def _read_numpy(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The array of a .npy or .npz and what the latter says of it; never pickled objects."""
    with path.open("rb") as file:
        if file.read(len(_NPY_MARK)) == _NPY_MARK:
            return _load(file, path.stat().st_size, path), {}
    packed = ZipReader(path)
    arrays = {entry.filename.removesuffix(".npy"): _load_entry(packed, entry) for entry in packed.entries()}
    said = {name: values.tolist() if values.ndim <= 1 else values for name, values in arrays.items()}
    name = signal_name({name: values.shape for name, values in arrays.items() if values.dtype.kind in "fiu"}, path)
    said.pop(name)
    return arrays[name], said


def _load_entry(packed: ZipReader, entry: zipfile.ZipInfo) -> np.ndarray:
    content = packed.read(entry)
    return _load(BytesIO(content), len(content), packed.path)


def _load(file: BinaryIO, size: int, path: Path) -> np.ndarray:
    """Loads an array after comparing its declared size with the file's, so that a false shape allocates no memory."""
    try:
        file.seek(0)
        version = npy_format.read_magic(file)
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        expected, found = math.prod(shape) * dtype.itemsize, size - file.tell()
        if not dtype.hasobject and expected > found:
            raise ValueError(f"expected {expected} bytes for {shape} of {dtype}, got {found}")
        file.seek(0)
        return np.asarray(np.load(file, allow_pickle=False))
    except Exception as error:  # numpy parses the header as Python, and raises what its tokenizer does
        raise ValueError(f"{path}: truncated or damaged numpy file: {one_line(error)[:200]}") from error


def _is_table(head: bytes) -> bool:
    """Text with a separator in its first line that is no comment, or one that names a lead; no XML or JSON."""
    text = decoded(head)
    if text is None or text.lstrip().startswith(("<", "{")):
        return False
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    says_what = re.search(r"^#\s*(unit|sampling_rate)\s*[:=]", text, re.MULTILINE | re.IGNORECASE)  # in one column
    return bool(re.search(r"[,;\t]", first) or (says_what and first) or names_a_lead(head))


NUMPY = Format("numpy", _is_numpy, lambda path, declared, _: as_record(*_read_numpy(path), path, declared))
CSV = Format("csv", _is_table, lambda path, declared, _: as_record(*read_table(path, declared), path, declared))
