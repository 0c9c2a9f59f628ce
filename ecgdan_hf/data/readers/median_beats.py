"""The median beat of a recording from a WFDB file of its own, as PTB-XL+ publishes those of GE's 12SL.

The headers of PTB-XL+ 1.0.1 (Strodthoff et al., Scientific Data 10:279, 2023) name a folder of the publisher in every
line (`ge_median_beats_wfdb/00001_medians`), which wfdb refuses, and state millivolt for microvolt. So names are read
without their folder, and the unit is the one in which the beat is about as large as the beats of the recording.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ecgdan_hf.data.readers.declared import Declared
from ecgdan_hf.data.readers.wfdb_records import read_wfdb
from ecgdan_hf.data.record import MEDIAN_UNUSABLE, EcgRecord, FloatArray
from ecgdan_hf.model.conditioning_ecgdan import resample

_MAX_BYTES = 1 << 20  # 12 leads x 600 samples x 4 bytes are 28,800
_STRETCH_SECONDS = 2.0  # long enough for one beat at 30 per minute, short enough for little baseline wander
_MAX_RATIO = 4.0  # of the sizes of beat and recording; 0.60 to 0.99 for our own beats of 666 records of PTB-XL
_LIKE_A_BEAT = (0.4, 1.2)  # of these sizes, for a beat of the same recording
_FOLDER = re.compile(r"^[^#\s]+/", re.MULTILINE)  # before the first name of a line
_MILLIVOLT = re.compile(r"/mV\b", re.IGNORECASE)


def with_median_beat(record: EcgRecord, file: str | Path) -> EcgRecord:
    """Adds the median beat in a WFDB record (its header, or its stem), which may have another rate.

    Flags the record `median_beat_unusable` instead if the file is missing or damaged, lacks a lead, or its values are
    not about as large as the recording, neither in the unit of its header nor in microvolt.
    """
    path = Path(file)
    try:
        beat_mv = _beat_of(record, path if path.suffix == ".hea" else path.with_name(f"{path.name}.hea"))
        return replace(record, median_beat_mv=beat_mv)
    except (OSError, ValueError):
        return replace(record, median_beat_mv=None, flags=(*record.flags, MEDIAN_UNUSABLE))


def with_plausible_beat(record: EcgRecord) -> EcgRecord:
    """Halves a median beat whose resolution the file does not state, if it is as large as no beat of the recording.

    Philips Sierra 1.03 stores beats in 2.5 uV and the recording in 5 uV (1.04 says so of both). A beat that fits
    neither way is left out. Flags: `median_beat_rescaled:0.5`, `median_beat_unusable`.
    """
    if record.median_beat_mv is None:
        return record
    sizes, beat = (_sizes(signal, record.sampling_rate) for signal in (record.signal_mv, record.median_beat_mv))
    both = (sizes > 0) & (beat > 0)
    ratio = float(np.median(beat[both] / sizes[both])) if both.any() else float("nan")
    for factor in (1.0, 0.5):
        if _LIKE_A_BEAT[0] <= factor * ratio <= _LIKE_A_BEAT[1]:
            flags = record.flags if factor == 1.0 else (*record.flags, f"median_beat_rescaled:{factor:g}")
            return replace(record, median_beat_mv=record.median_beat_mv * factor, flags=flags)
    return replace(record, median_beat_mv=None, flags=(*record.flags, MEDIAN_UNUSABLE))


def beat_at_rate(beat_mv: FloatArray, from_rate: float, to_rate: float) -> FloatArray:
    """Resamples a beat (leads, samples); NaN stays NaN, but no lead may be NaN only."""
    if from_rate == to_rate:
        return beat_mv
    missing = np.isnan(beat_mv)
    position = np.arange(beat_mv.shape[1])
    filled = [np.interp(position, position[~gap], lead[~gap]) for lead, gap in zip(beat_mv, missing, strict=True)]
    resampled = resample(np.stack(filled), from_rate, to_rate)
    nearest = np.minimum(np.round(np.arange(resampled.shape[1]) * from_rate / to_rate), len(position) - 1).astype(int)
    return np.where(missing[:, nearest], np.nan, resampled).astype(np.float32)


def _beat_of(record: EcgRecord, header: Path) -> FloatArray:
    """(leads, samples) in millivolt, in the order and at the rate of the record."""
    beat = _read_as_microvolt(header)
    if absent := set(record.lead_names) - set(beat.lead_names):
        raise ValueError(f"{header}: expected the leads of the recording, missing {', '.join(sorted(absent))}")
    signal = beat.signal_mv[[beat.lead_names.index(lead) for lead in record.lead_names]]
    if np.isnan(signal).all(axis=1).any():
        raise ValueError(f"{header}: expected samples in every lead")
    signal = signal * _factor(signal, beat.sampling_rate, record, header)
    return beat_at_rate(signal.astype(np.float32), beat.sampling_rate, record.sampling_rate)


def _read_as_microvolt(header: Path) -> EcgRecord:
    """Reads a copy without folders in its names, in microvolt: as millivolt, the values might be refused."""
    data = header.with_suffix(".dat")
    if data.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{data}: expected a median beat of at most {_MAX_BYTES >> 20} MiB")
    text = header.read_text(encoding="utf-8", errors="replace")
    with TemporaryDirectory() as folder:
        copy = Path(folder) / header.name
        copy.write_text(_MILLIVOLT.sub("/uV", _FOLDER.sub("", text)), encoding="utf-8")
        shutil.copyfile(data, copy.with_suffix(".dat"))
        return read_wfdb(copy, Declared())


def _factor(beat_uv: FloatArray, beat_rate: float, record: EcgRecord, header: Path) -> float:
    """1000 if the header is right, 1 if its millivolts are microvolt."""
    sizes = _sizes(record.signal_mv, record.sampling_rate)
    recorded = sizes > 0
    if not recorded.any():
        raise ValueError(f"{header}: expected a recording to compare with, got flat leads")
    ratio = float(np.median(_sizes(beat_uv, beat_rate)[recorded] / sizes[recorded]))
    for factor in (1000.0, 1.0):
        if 1 / _MAX_RATIO <= factor * ratio <= _MAX_RATIO:
            return factor
    raise ValueError(f"{header}: expected a beat as large as the recording, got {1000 * ratio:.3g} times its size")


def _sizes(signal: FloatArray, sampling_rate: float) -> FloatArray:
    """(leads,) median over stretches of the peak-to-peak size; 0 if most stretches have no samples."""
    length = min(round(_STRETCH_SECONDS * sampling_rate), signal.shape[1])
    stretches = signal[:, : signal.shape[1] // length * length].reshape(len(signal), -1, length)
    ranges = np.fmax.reduce(stretches, axis=2) - np.fmin.reduce(stretches, axis=2)
    return np.asarray(np.median(np.nan_to_num(ranges), axis=1))
