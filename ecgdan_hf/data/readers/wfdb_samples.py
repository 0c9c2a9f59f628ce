"""Samples of common WFDB records, decoded with numpy and libsndfile.

`wfdb` builds a table for each header, which takes longer than decoding. Records in format 16 or 516 (FLAC) whose
header states all that is needed, such as those of PTB-XL and LUDB, are therefore decoded here, to the same values. For
any other, `common_samples` returns None, and `wfdb_records` asks the library.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgdan_hf.model.conditioning_ecgdan import millivolt_per

_NO_SAMPLE = -32768
_STORAGE = re.compile(r"^(16|516)(?:\+(\d+))?$")  # with the bytes before the samples, as in MATLAB files
_GAIN = re.compile(r"^(\d+(?:\.\d+)?)(?:\((-?\d+)\))?/(\S+)$")
_NUMBER = re.compile(r"^-?\d+$")
_LARGEST_EXACT = 1 << 23  # counts and baselines below have exact differences in float32


class Samples(NamedTuple):
    """Channels of a record.

    Attributes:
        names: of the channels.
        units: of the channels.
        signal: (channels, samples) in these units, NaN where there is no sample; float32 only where that is as exact
            as the conversion of float64 to float32.
        sums: (channels,), of the counts.
    """

    names: list[str]
    units: list[str]
    signal: NDArray[Any]
    sums: NDArray[np.int64]


class _Channel(NamedTuple):
    file: str
    format: str
    offset: int
    gain: float
    baseline: int
    unit: str
    name: str


def common_samples(
    folder: Path, lead_lines: Sequence[list[str]], num_samples: int, first: int, last: int
) -> Samples | None:
    """Samples `first` to `last` of a record; None where its header or data are not of the common kinds.

    Args:
        folder: of the data files.
        lead_lines: words of the header's signal lines.
        num_samples: of the whole record.
        first: inclusive.
        last: exclusive.
    """
    channels = [_channel(words) for words in lead_lines]
    known = [channel for channel in channels if channel is not None]
    if len(known) < len(channels) or not known:
        return None
    rows: dict[str, list[int]] = {}
    for row, channel in enumerate(known):
        rows.setdefault(channel.file, []).append(row)
    counts = np.empty((len(known), last - first), _precision(known))
    for name, here in rows.items():
        kinds = {(known[row].format, known[row].offset) for row in here}
        if len(kinds) > 1:
            return None
        ((storage, offset),) = kinds
        decoded = _DECODERS[storage](folder / name, offset, len(here), num_samples)
        if decoded is None:
            return None
        counts[here] = decoded[first:last].T
    sums = counts.sum(axis=1, dtype=np.float64).astype(np.int64)
    return Samples(
        [channel.name for channel in known],
        [channel.unit for channel in known],
        _in_units(counts, known),
        sums,
    )


def _channel(words: list[str]) -> _Channel | None:
    """A signal line that states everything: file, format, gain(baseline)/unit, ..., checksum, block size, name."""
    if len(words) != 9 or not all(map(_NUMBER.match, words[3:8])):
        return None
    storage, gain = _STORAGE.match(words[1]), _GAIN.match(words[2])
    if storage is None or gain is None:
        return None
    baseline = int(gain[2] if gain[2] is not None else words[4])
    return _Channel(words[0], storage[1], int(storage[2] or 0), float(gain[1]), baseline, gain[3], words[8])


def _precision(channels: Sequence[_Channel]) -> type[np.float32] | type[np.float64]:
    """float32 where the quotient is the correctly rounded one, as float64 converted to float32 is."""
    exact = all(
        float(np.float32(each.gain)) == each.gain
        and abs(each.baseline) < _LARGEST_EXACT
        and millivolt_per(each.unit) == 1
        for each in channels
    )
    return np.float32 if exact else np.float64


def _in_units(counts: NDArray[Any], channels: Sequence[_Channel]) -> NDArray[Any]:
    """(counts - baseline) / gain, in place; NaN for the code of no sample."""
    missing = counts == _NO_SAMPLE if counts.min(initial=0) == _NO_SAMPLE else None
    baselines = np.array([[channel.baseline] for channel in channels], counts.dtype)
    if baselines.any():
        counts -= baselines
    counts /= np.array([[channel.gain] for channel in channels], counts.dtype)
    if missing is not None:
        counts[missing] = np.nan
    return counts


def _binary(file: Path, offset: int, num_channels: int, num_samples: int) -> NDArray[Any] | None:
    found = np.fromfile(file, "<i2", num_channels * num_samples, offset=offset)
    return found.reshape(-1, num_channels) if len(found) == num_channels * num_samples else None


def _flac(file: Path, offset: int, num_channels: int, num_samples: int) -> NDArray[Any] | None:
    if offset:
        return None
    try:
        import soundfile
    except (ImportError, OSError):  # the library itself may be missing
        return None
    try:
        with soundfile.SoundFile(file) as audio:
            if (audio.format, audio.subtype, audio.channels) != ("FLAC", "PCM_16", num_channels):
                return None
            found: NDArray[Any] = audio.read(num_samples, dtype="int16", always_2d=True)
    except RuntimeError:  # damaged: the library says how
        return None
    return found if len(found) == num_samples else None


_DECODERS = {"16": _binary, "516": _flac}
