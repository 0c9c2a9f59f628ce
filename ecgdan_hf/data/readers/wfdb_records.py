"""One WFDB record as an `EcgRecord`: any storage format that `wfdb` reads; 16 and 516 (FLAC) mostly without it.

The header is checked first, because the library takes 250 Hz for a missing or negative rate and 200 per millivolt for
a missing gain, accepts a header that names fewer leads than the data hold, averages the samples of a frame, does not
compare checksums, and passes on numpy's errors for other damage. Segments are put together here, each with its own
unit and leads, because the library mixes them up. Layout: https://physionet.org/physiotools/wag/header-5.htm.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecgdan_hf.data.readers.declared import Declared, one_line
from ecgdan_hf.data.readers.wfdb_samples import common_samples
from ecgdan_hf.data.record import MAX_AGE_YEARS, EcgRecord, check_sampling_rate
from ecgdan_hf.model.conditioning_ecgdan import millivolt_per

RECORD_LINE = re.compile(r"^\S+\s+\d+(\s|$)")
_PLAIN_RECORD_LINE = re.compile(
    r"^[-\w]+\s+\d+\s+\d+(\.\d+)?\s+\d+(\s+\d{1,2}:\d{2}:\d{2}(\.\d+)?(\s+\d{2}/\d{2}/\d{4})?)?$"
)
OTHER_RATE = "lead_of_other_rate"
CHECKSUM = "checksum_differs"
_BYTES_PER_SAMPLE = {"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0, "212": 1.5}
_MAX_BYTES = 4 << 30
_OWN = r"(?:^#+\s*|[<,;]\s*|\s{2,})(?:patient'?s?\s+)?"  # not "gestational age", "mother's age"
_YEARS = ("", "y", "yr", "yrs", "year", "years", "sex", "gender")  # what may follow an age in years
_STORAGE = re.compile(r"^(\d+)(?:x(\d+))?(?::\d+)?(?:\+(\d+))?$")  # format, samples per frame, skew, offset


@dataclass(frozen=True)
class _Header:
    path: Path
    sampling_rate: float
    num_leads: int
    num_samples: int | None
    lead_lines: list[list[str]]
    is_segmented: bool = False
    is_plain: bool = False
    """Whether the record line holds name, leads, rate and samples, and perhaps a time and a date, and nothing else."""
    text: str = ""

    @property
    def frame_samples(self) -> list[int]:
        """How many samples of each lead are in a frame; the sampling rate counts frames."""
        storages = [_STORAGE.match(words[1]) if len(words) > 1 else None for words in self.lead_lines]
        return [int(storage.group(2) or 1) if storage else 1 for storage in storages]


def find_header(data_file: Path) -> Path | None:
    """Header that names `data_file`: with the same stem, or the stem before `_1` (PTB-XL's `00001_hr_1.dat`)."""
    for stem in (data_file.stem, re.sub(r"_\d+$", "", data_file.stem)):
        header = data_file.with_name(stem + ".hea")
        if header.is_file() and data_file.name in header.read_text(encoding="utf-8", errors="replace").split():
            return header
    return None


def read_subject(header: Path) -> dict[str, Any]:
    """`age` (years) and `sex` from a header's comments (`# Age: 56`, `#<sex>: F`); None if not stated."""
    return subject_in(header.read_text(encoding="utf-8", errors="replace"))


def subject_in(header_text: str) -> dict[str, Any]:
    """As `read_subject`, from the text of a header."""
    text = "\n".join(line for line in header_text.splitlines() if line.startswith("#"))
    age = re.search(
        rf"{_OWN}age\b>?\s*[:=]\s*(\d+(?:\.\d+)?)\s*(?!\s*[.\d])([a-z]*)", text, re.IGNORECASE | re.MULTILINE
    )
    sex = re.search(rf"{_OWN}(?:sex|gender)\b>?\s*[:=]\s*(male|female|m|f)\b", text, re.IGNORECASE | re.MULTILINE)
    years = float(age.group(1)) if age and age.group(2).lower() in _YEARS else None
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
    if checked.is_segmented:
        return _read_segments(checked, declared, start_seconds, seconds)
    if max(checked.frame_samples) > 1:
        return _read_frames(checked, declared, start_seconds, seconds)
    rate = declared.rate(checked.sampling_rate, header)
    first, last = 0, checked.num_samples
    if last is not None and (start_seconds or seconds is not None):
        first, last = sample_range(start_seconds, seconds, rate, last, str(header))
    _check_memory(checked, (last or 0) - first)
    common = None
    if checked.is_plain and last is not None and checked.num_samples is not None:
        common = common_samples(header.parent, checked.lead_lines, checked.num_samples, first, last)
    if common is not None:
        flags = _differing(checked, common.names, common.sums, first, last)
        return _as_record(checked, common.names, common.units, common.signal, rate, declared, flags)
    record, differing = _read_samples(checked, first, last)
    signal = np.asarray(record.p_signal, dtype=np.float64).T
    if last is None:  # the header does not state a length, and wfdb reads no part of such a record
        first, last = sample_range(start_seconds, seconds, rate, signal.shape[1], str(header))
        signal = signal[:, first:last]
    return _as_record(checked, record.sig_name, record.units, signal, rate, declared, differing)


def _as_record(
    header: _Header,
    channels: Sequence[str],
    units: Sequence[str],
    signals: np.ndarray | list[np.ndarray],
    rate: float,
    declared: Declared,
    flags: tuple[str, ...] = (),
) -> EcgRecord:
    """The voltages among the channels, all of one length."""
    path = header.path
    names = declared.leads([name for name in channels if name], path)
    if len(names) != len(signals):
        raise ValueError(f"{path}: lead_names: expected one for each of {len(signals)} leads, got {', '.join(names)}")
    kept, factors = _voltages(units, declared, path)
    length = max(len(signals[i]) for i in kept)
    slow = [i for i in kept if len(signals[i]) < length]
    whole = [i for i in kept if i not in slow]
    is_complete = isinstance(signals, np.ndarray) and len(whole) == len(signals)
    signal = np.asarray(signals if is_complete else np.stack([signals[i] for i in whole]))  # copies take time
    chosen = factors[[kept.index(i) for i in whole]]
    left_out = [f"not_voltage:{name}" for i, name in enumerate(names) if i not in kept]
    left_out += [f"{OTHER_RATE}:{names[i]}" for i in slow]
    return EcgRecord(
        signal_mv=signal if (chosen == 1).all() else signal * chosen[:, None],
        sampling_rate=rate,
        lead_names=tuple(names[i] for i in whole),
        record_id=path.stem,
        source=str(path),
        flags=(*left_out, *flags),
        **subject_in(header.text),
    )


def _read_frames(header: _Header, declared: Declared, start_seconds: float, seconds: float | None) -> EcgRecord:
    """Reads a record with several samples of a lead in a frame, at the rate of its leads."""
    frame_rate, last, path = header.sampling_rate, header.num_samples, header.path
    first = 0
    if start_seconds or seconds is not None:
        if last is None:
            raise ValueError(f"{path}: start_seconds: expected a header that states the number of samples")
        first, last = sample_range(start_seconds, seconds, frame_rate, last, str(path))
    _check_memory(header, ((last or 0) - first) * max(header.frame_samples))
    record, _ = _read_samples(header, first, last, frames=True)
    signals = [np.asarray(signal, dtype=np.float64) for signal in record.e_p_signal]
    kept, _ = _voltages(record.units, declared, path)
    rate = declared.rate(frame_rate * max(header.frame_samples[i] for i in kept), path)
    return _as_record(header, record.sig_name, record.units, signals, rate, declared)


def _read_segments(header: _Header, declared: Declared, start_seconds: float, seconds: float | None) -> EcgRecord:
    """Puts segments together, each read with its own unit and leads; gaps, and leads a segment lacks, are NaN."""
    path = header.path
    parts = [(words[0], int(words[1])) for words in header.lead_lines if len(words) > 1 and words[1].isdigit()]
    length = sum(count for _, count in parts)
    if header.num_samples not in (None, length):
        raise ValueError(f"{path}: expected segments of {header.num_samples} samples together, got {length}")
    first, last = 0, length
    if start_seconds or seconds is not None:
        first, last = sample_range(start_seconds, seconds, header.sampling_rate, length, str(path))
    _check_memory(header, last - first)
    pieces, at = list[tuple[int, EcgRecord]](), 0
    for name, count in parts:
        begin, end = max(first - at, 0), min(last - at, count)
        if name != "~" and begin < end:
            pieces.append((at + begin - first, _segment(header, name, count, declared, begin, end)))
        at += count
    if not pieces:
        raise ValueError(f"{path}: expected a segment with samples, got gaps only")
    return _joined(header, pieces, last - first)


def _segment(header: _Header, name: str, count: int, declared: Declared, begin: int, end: int) -> EcgRecord:
    """Samples `begin` to `end` of a segment that must have `count` samples at the rate of the record."""
    file, rate = header.path.with_name(f"{name}.hea"), header.sampling_rate
    if not file.is_file():
        raise FileNotFoundError(f"{header.path}: its segment is missing: {file.name}")
    own = _check_header(file)
    for what, expected, found in (("rate", rate, own.sampling_rate), ("length", count, own.num_samples or count)):
        if found != expected:
            raise ValueError(f"{header.path}: segment {file.name}: expected a {what} of {expected:g}, got {found:g}")
    part = (0.0, None) if (begin, end) == (0, count) else (begin / rate, (end - begin) / rate)
    return read_wfdb(file, declared, *part)


def _joined(header: _Header, pieces: list[tuple[int, EcgRecord]], length: int) -> EcgRecord:
    """One record of the pieces, each at its place; leads in the order in which they are met."""
    names = list(dict.fromkeys(lead for _, piece in pieces for lead in piece.lead_names))
    step = pieces[0][1].sampling_rate / header.sampling_rate
    if any(piece.sampling_rate != pieces[0][1].sampling_rate for _, piece in pieces):
        raise ValueError(f"{header.path}: expected segments of one rate, got different ones")
    signal = np.full((len(names), round(length * step)), np.nan)
    for start, piece in pieces:
        first = round(start * step)
        rows = [names.index(lead) for lead in piece.lead_names]
        signal[rows, first : first + piece.signal_mv.shape[1]] = piece.signal_mv
    return EcgRecord(
        signal_mv=signal,
        sampling_rate=pieces[0][1].sampling_rate,
        lead_names=tuple(names),
        record_id=header.path.stem,
        source=str(header.path),
        flags=tuple(dict.fromkeys(flag for _, piece in pieces for flag in piece.flags)),
        **subject_in(header.text),
    )


def _read_samples(
    header: _Header, first: int = 0, last: int | None = None, frames: bool = False
) -> tuple[Any, tuple[str, ...]]:
    """The record in the units of its header, with all samples of a frame or without; and the flag of checksums."""
    import wfdb  # slow to import, and most records are read without

    path = header.path
    try:
        record = wfdb.rdrecord(
            str(path.with_suffix("")), sampfrom=first, sampto=last, physical=False, smooth_frames=not frames
        )
        sums = () if frames else [column.sum() for column in record.d_signal.T]  # many times as fast as over axis 0
        flags = () if frames else _differing(header, record.sig_name, sums, first, last)
        record.dac(expanded=frames, inplace=True)
        return record, flags
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: its data file is missing: {error.filename}") from error
    except Exception as error:  # the type depends on where the damage is
        expected = f"{header.num_leads} leads x {header.num_samples or '?'} samples"
        raise ValueError(f"{path}: truncated or damaged data, expected {expected}: {one_line(error)}") from error


def _differing(
    header: _Header, names: Sequence[str], sums: Iterable[int], first: int, last: int | None
) -> tuple[str, ...]:
    """The flag of the leads whose samples do not add up to the checksum of the header, modulo 65536.

    A checksum of 0 counts as not stated, and a part of a record has none.
    """
    if (
        first
        or last not in (None, header.num_samples)
        or any(len(words) < 7 or ":" in words[1] for words in header.lead_lines)
    ):
        return ()
    stated = [int(words[6]) if re.fullmatch(r"-?\d+", words[6]) else 0 for words in header.lead_lines]
    wrong = [name for name, a, b in zip(names, stated, sums, strict=True) if a and (int(b) - a) % 65536]
    return (f"{CHECKSUM}:{'+'.join(wrong)}",) if wrong else ()


def _check_header(path: Path) -> _Header:
    if path.suffix != ".hea":
        raise ValueError(f"{path}: a WFDB header must be named {path.stem}.hea to be read")
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or not RECORD_LINE.match(lines[0]):
        found = repr(lines[0][:80])[:80] if lines else "an empty file"
        raise ValueError(f"{path}: expected a WFDB record line (name, leads, rate, samples), got {found}")
    words = lines[0].split()
    rate = words[2].split("/")[0] if len(words) > 2 else None  # "500/1(0)": rate / counter frequency (base value)
    if words[3:4] == ["0"] and len(lines) > 1 and not lines[1].startswith("~"):
        raise ValueError(f"{path}: expected the number of samples in the record line, or none, got 0")
    header = _Header(
        path=path,
        sampling_rate=check_sampling_rate(rate, f"{path}: sampling_rate"),
        num_leads=int(words[1]),
        num_samples=int(words[3]) if len(words) > 3 and words[3].isdigit() and int(words[3]) else None,
        lead_lines=[line.split() for line in lines[1:]],
        is_segmented="/" in words[0],
        is_plain=bool(_PLAIN_RECORD_LINE.match(lines[0])),
        text=text,
    )
    for name in dict.fromkeys(words[0] for words in header.lead_lines):
        _check_inside(path, name)
    if header.is_segmented:  # it has no leads of its own
        _check_segments(header)
    else:
        _check_leads(header)
        _check_sizes(header)
    return header


def _check_inside(path: Path, name: str) -> None:
    """Rejects data files outside the header's folder: path traversal, or a link that leads out."""
    if re.search(r"[/\\:]", name) or name in (".", ".."):
        raise ValueError(f"{path}: expected names of files in its own folder, got {name[:80]!r}")
    if not (path.parent / name).is_symlink() and not path.is_symlink():
        return
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
    for name in dict.fromkeys(words[0] for words in header.lead_lines):
        if not (path.parent / name).is_file():
            raise FileNotFoundError(f"{path}: its data file is missing: {name}")
    for words in header.lead_lines:
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
