"""One WFDB record as an `EcgRecord`: any storage format that `wfdb` reads, among them 16 and 516 (FLAC).

The header is checked first, because the library takes 250 Hz for a missing or negative rate and 200 per millivolt for
a missing gain, accepts a header that names fewer leads than the data hold, and passes on numpy's errors for other
damage. Layout: https://physionet.org/physiotools/wag/header-5.htm.
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import wfdb

from ecgdan_hf.data.readers.declared import Declared, one_line
from ecgdan_hf.data.record import MAX_AGE_YEARS, EcgRecord, check_sampling_rate
from ecgdan_hf.model.conditioning_ecgdan import millivolt_per

RECORD_LINE = re.compile(r"^\S+\s+\d+(\s|$)")
_BYTES_PER_SAMPLE = {"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0, "212": 1.5}
_MAX_BYTES = 4 << 30
_STORAGE = re.compile(r"^(\d+)(?:x(\d+))?(?::\d+)?(?:\+(\d+))?$")  # format, samples per frame, skew, offset


@dataclass(frozen=True)
class _Header:
    path: Path
    sampling_rate: float
    num_leads: int
    num_samples: int | None
    lead_lines: list[list[str]]


def find_header(data_file: Path) -> Path | None:
    """Header that names `data_file`: with the same stem, or the stem before `_1` (PTB-XL's `00001_hr_1.dat`)."""
    for stem in (data_file.stem, re.sub(r"_\d+$", "", data_file.stem)):
        header = data_file.with_name(stem + ".hea")
        if header.is_file() and data_file.name in header.read_text(encoding="utf-8", errors="replace").split():
            return header
    return None


def read_subject(header: Path) -> dict[str, Any]:
    """`age` (years) and `sex` from a header's comments (`# Age: 56`, `#<sex>: F`); None if not stated."""
    text = "\n".join(
        line for line in header.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("#")
    )
    age = re.search(r"\bage\b>?\s*[:=]\s*(\d+(\.\d+)?)", text, re.IGNORECASE)
    sex = re.search(r"\bsex\b>?\s*[:=]\s*(male|female|m|f)\b", text, re.IGNORECASE)
    years = float(age.group(1)) if age else None
    return {
        "age": years if years is not None and years <= MAX_AGE_YEARS else None,
        "sex": {"m": "male", "f": "female"}[sex.group(1)[0].lower()] if sex else None,
    }


def sample_range(
    start_seconds: float, seconds: float | None, sampling_rate: float, num_samples: int, source: str
) -> tuple[int, int]:
    """First sample (inclusive) and last sample (exclusive) of a part of a record; `seconds` None reads to the end.

    Raises ValueError for a part that is empty or not within the record.
    """
    first = round(start_seconds * sampling_rate)
    last = num_samples if seconds is None else first + round(seconds * sampling_rate)
    if not 0 <= first < last <= num_samples:
        wanted = f"from {start_seconds:g} s" + (f" for {seconds:g} s" if seconds is not None else "")
        duration = num_samples / sampling_rate
        raise ValueError(f"{source}: start_seconds: expected a part of {duration:g} s, got {wanted}")
    return first, last


def read_wfdb(header: Path, declared: Declared, start_seconds: float = 0.0, seconds: float | None = None) -> EcgRecord:
    """Reads the record of a `.hea` file, or only a part of it; `seconds` None reads to the end.

    Channels that are not voltages are left out and flagged `not_voltage:NAME`.

    Raises:
        FileNotFoundError: a data file of the header is missing.
        ValueError: a header that is incomplete or does not fit its data, damaged data, or a part beyond the record.
    """
    checked = _check_header(header)
    rate = declared.rate(checked.sampling_rate, header)
    first, last = 0, checked.num_samples
    if last is not None and (start_seconds or seconds is not None):
        first, last = sample_range(start_seconds, seconds, rate, last, str(header))
    _check_memory(checked, (last or 0) - first)
    record = _read_samples(checked, first, last)
    signal = np.asarray(record.p_signal, dtype=np.float64).T
    if last is None:  # the header does not state a length, and wfdb reads no part of such a record
        first, last = sample_range(start_seconds, seconds, rate, signal.shape[1], str(header))
        signal = signal[:, first:last]
    names = declared.leads([name for name in record.sig_name if name], header)
    if len(names) != len(signal):
        raise ValueError(f"{header}: lead_names: expected one for each of {len(signal)} leads, got {', '.join(names)}")
    kept, factors = _voltages(record.units, declared, header)
    return EcgRecord(
        signal_mv=signal[kept] * factors[:, None],
        sampling_rate=rate,
        lead_names=tuple(names[i] for i in kept),
        record_id=header.stem,
        source=str(header),
        flags=tuple(f"not_voltage:{name}" for i, name in enumerate(names) if i not in kept),
        **read_subject(header),
    )


def _read_samples(header: _Header, first: int = 0, last: int | None = None) -> wfdb.Record:
    path = header.path
    try:
        return wfdb.rdrecord(str(path.with_suffix("")), sampfrom=first, sampto=last)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: its data file is missing: {error.filename}") from error
    except Exception as error:  # the type depends on where the damage is
        expected = f"{header.num_leads} leads x {header.num_samples or '?'} samples"
        raise ValueError(f"{path}: truncated or damaged data, expected {expected}: {one_line(error)}") from error


def _check_header(path: Path) -> _Header:
    if path.suffix != ".hea":
        raise ValueError(f"{path}: a WFDB header must be named {path.stem}.hea to be read")
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or not RECORD_LINE.match(lines[0]):
        found = repr(lines[0]) if lines else "an empty file"
        raise ValueError(f"{path}: expected a WFDB record line (name, leads, rate, samples), got {found}")
    words = lines[0].split()
    rate = words[2].split("/")[0] if len(words) > 2 else None  # "500/1(0)": rate / counter frequency (base value)
    header = _Header(
        path=path,
        sampling_rate=check_sampling_rate(rate, f"{path}: sampling_rate"),
        num_leads=int(words[1]),
        num_samples=int(words[3]) if len(words) > 3 and words[3].isdigit() and int(words[3]) else None,
        lead_lines=[line.split() for line in lines[1:]],
    )
    for name in dict.fromkeys(words[0] for words in header.lead_lines):
        _check_inside(path, name)
    if "/" in words[0]:  # a record of several segments has no leads of its own
        _check_segments(header)
    else:
        _check_leads(header)
        _check_sizes(header)
    return header


def _check_inside(path: Path, name: str) -> None:
    """Rejects data files outside the header's folder: path traversal, or a link that leads out."""
    if re.search(r"[/\\:]", name) or name in (".", ".."):
        raise ValueError(f"{path}: expected names of files in its own folder, got {name[:80]!r}")
    folders = {path.resolve().parent, path.parent.resolve()}  # both may be links to the same folder
    if (path.parent / name).resolve().parent not in folders:
        raise ValueError(f"{path}: expected data in its own folder, got {name}, a link that leads out of it")


def _check_segments(header: _Header) -> None:
    """Checks the headers of the segments."""
    path = header.path
    for words in header.lead_lines:
        segment = path.with_name(f"{words[0]}.hea")
        if words[0] == "~" or not segment.is_file():  # a gap, or missing: reading names it
            continue
        text = segment.read_text(encoding="utf-8", errors="replace")
        lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if lines and "/" in lines[0][0]:
            raise ValueError(f"{path}: expected segments without segments of their own, got {segment.name}")
        for data in (line[0] for line in lines[1:]):
            _check_inside(segment, data)
        if words[1:2] != ["0"]:  # a layout segment without samples only names the leads
            _check_header(segment)


def _check_memory(header: _Header, num_samples: int) -> None:
    """Limits memory: with gaps between segments or compression, file sizes do not bound the number of samples."""
    wanted = header.num_leads * num_samples * np.dtype(np.float64).itemsize
    if wanted > _MAX_BYTES:
        raise ValueError(
            f"{header.path}: expected at most {_MAX_BYTES >> 30} GiB of samples at once, got {header.num_leads} leads "
            f"x {num_samples} samples; give start_seconds and seconds"
        )


def _check_leads(header: _Header) -> None:
    path, count = header.path, header.num_leads
    if count == 0 or len(header.lead_lines) != count:
        raise ValueError(f"{path}: the record line names {count} leads, got {len(header.lead_lines)} lead lines")
    for words in header.lead_lines:
        if not (path.parent / words[0]).is_file():
            raise FileNotFoundError(f"{path}: its data file is missing: {words[0]}")
        gain = re.match(r"[-+]?[\d.]+(e[-+]?\d+)?", words[2], re.IGNORECASE) if len(words) > 2 else None
        if gain is None or float(gain.group()) == 0:
            lead = words[8] if len(words) > 8 else words[0]
            raise ValueError(f"{path}: lead {lead} has no gain, so its values are ADC counts; expected counts per mV")


def _check_sizes(header: _Header) -> None:
    """Rejects data whose size is not leads x samples; compressed data are left to their decoder."""
    if header.num_samples is None:
        return
    expected: dict[str, float] = defaultdict(float)
    for words in header.lead_lines:
        storage = _STORAGE.match(words[1]) if len(words) > 1 else None
        if storage is None or storage.group(1) not in _BYTES_PER_SAMPLE:
            return
        per_lead = header.num_samples * int(storage.group(2) or 1) * _BYTES_PER_SAMPLE[storage.group(1)]
        expected[words[0]] += per_lead if expected[words[0]] else per_lead + int(storage.group(3) or 0)
    for name, size in expected.items():
        found = (header.path.parent / name).stat().st_size
        shape = f"{math.ceil(size)} bytes for {header.num_leads} leads x {header.num_samples} samples"
        if found < size:
            raise ValueError(f"{header.path}: {name} is truncated: expected {shape}, got {found}")
        if found >= size + 4:  # more than rounding and padding: leads would be mixed up
            raise ValueError(f"{header.path}: {name} holds more than the header names: expected {shape}, got {found}")


def _voltages(units: Sequence[str], declared: Declared, path: Path) -> tuple[list[int], np.ndarray]:
    """Rows that are voltages (not blood pressure or breathing), and their factors to millivolt."""
    declared.check_unit(units, path)
    factors = {i: factor for i, word in enumerate(units) if (factor := millivolt_per(word)) is not None}
    if not factors:
        raise ValueError(f"{path}: unit: expected leads in mV, uV or V, got {', '.join(sorted(set(units)))}")
    return list(factors), np.array(list(factors.values()))
