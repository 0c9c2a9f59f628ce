"""ECGs in HDF5 and MATLAB files (a MATLAB file of version 7.3 is HDF5): one array, or one row of many.

Read like a .npz: the array `signal`, or the only one with two dimensions; `sampling_rate`, `unit` and `lead_names`
are arrays or attributes. A file of several records holds them in an array `tracings` (records, samples, leads), as
CODE-15 does; one row is read at a time, without the zeros around it. Declared sizes are checked before memory is
allocated, and links to other files are not followed. Both are decoded in a child process; see `child`.
"""

from pathlib import Path

from ecgdan_hf.data.readers.arrays import as_record
from ecgdan_hf.data.readers.child import decode
from ecgdan_hf.data.readers.declared import Declared, Format
from ecgdan_hf.data.record import EcgRecord

_HDF5_MARK = b"\x89HDF\r\n\x1a\n"


def _is_hdf5(head: bytes) -> bool:
    return any(head[at:].startswith(_HDF5_MARK) for at in (0, 512, 1024, 2048))  # MATLAB's comes after a user block


def _is_matlab(head: bytes) -> bool:
    return head.startswith(b"MATLAB") and head[124:128] in (b"\x00\x01IM", b"\x01\x00MI")


def _read_hdf5(path: Path, declared: Declared, member: str | None) -> EcgRecord:
    array, said = decode("hdf5_content", path, member)
    return as_record(array, said, path, declared, member)


HDF5 = Format("hdf5", _is_hdf5, _read_hdf5, has_members=True)
MATLAB = Format(
    "matlab",
    _is_matlab,
    lambda path, declared, _: as_record(*decode("matlab_content", path), path, declared),
)
