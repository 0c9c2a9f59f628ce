"""Any single ECG file as an `EcgRecord`: WFDB (formats 16, 516 and the others of PhysioNet), .npy, .npz and .csv.

What a file is, is decided by its content, not by its name. A rate and a unit are never guessed: the file says them or
the caller does, and the two may not contradict. WFDB: https://physionet.org/physiotools/wag/header-5.htm. The
library `wfdb` reads an absent or negative rate as 250 Hz and an absent gain as 200 per millivolt, so headers are
checked first.
"""

import re
import zipfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import wfdb

from ecgdan_hf.data.record import EcgRecord, canonical_lead, check_sampling_rate

READABLE = "WFDB (.hea with its .dat), .npy, .npz, .csv"
PER_MILLIVOLT = {
    "mv": 1.0,
    "millivolt": 1.0,
    "uv": 1e-3,
    "µv": 1e-3,
    "μv": 1e-3,
    "microvolt": 1e-3,
    "v": 1e3,
    "volt": 1e3,
}
TIME_COLUMNS = ("time", "time_s", "time_seconds", "seconds", "t")
_RECORD_LINE = re.compile(r"^\S+(/\d+)?\s+\d+(\s|$)")
_NOT_READ_YET = {b"<": "XML", b"DICM": "DICOM", b"SCPECG": "SCP-ECG", b"0       ": "EDF"}


def read(
    path: str | Path,
    sampling_rate: float | None = None,
    unit: str | None = None,
    lead_names: Sequence[str] | None = None,
) -> EcgRecord:
    """Reads one ECG file.

    Args:
        path: a WFDB record (header, data file, or their common stem), .npy, .npz or .csv.
        sampling_rate: Hz; needed where the file does not say it, and may not contradict it.
        unit: `"mV"`, `"uV"` or `"V"`; the same.
        lead_names: names in the order of the file; the same.

    Returns:
        The record, in millivolt.

    Raises:
        FileNotFoundError: there is no such file, or a header names data that are not there.
        ValueError: the file is damaged, or lacks or contradicts rate, unit or lead names.
    """
    path = Path(path)
    if not path.is_file():
        header = path.with_name(path.name + ".hea")
        if not header.is_file():
            raise FileNotFoundError(f"{path}: no such file (nor a WFDB header {header.name})")
        path = header
    head = _head(path)
    if head.startswith(b"\x93NUMPY"):
        return _read_npy(path, sampling_rate, unit, lead_names)
    if head.startswith(b"PK\x03\x04"):
        return _read_npz(path, sampling_rate, unit, lead_names)
    if _is_header(head):
        return _read_wfdb(path, sampling_rate, unit, lead_names)
    if header := _header_of(path):
        return _read_wfdb(header, sampling_rate, unit, lead_names)
    if _is_table(head):
        return _read_csv(path, sampling_rate, unit, lead_names)
    raise ValueError(f"{path}: {_describe(head)}; what is read: {READABLE}")


def read_subject(header: Path) -> dict[str, Any]:
    """`age` (years) and `sex` from a WFDB header's free comments (`# Age: 56`, `#<sex>: F`); None where not said."""
    lines = header.read_text(errors="replace").splitlines()
    return _subject("\n".join(line for line in lines if line.startswith("#")))


def to_millivolt(unit: Any, source: str) -> float:
    """Factor from `unit` to millivolt.

    Raises:
        ValueError: the unit is absent or no voltage.
    """
    factor = PER_MILLIVOLT.get(str(unit).strip().lower())
    if factor is None:
        raise ValueError(f"{source}: unit: expected 'mV', 'uV' or 'V', got {unit!r}")
    return factor


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _is_text(head: bytes) -> bool:
    return bool(head) and not any(byte < 9 for byte in head)


def _first_line(head: bytes) -> str:
    lines = (line.strip() for line in head.decode("utf-8", "replace").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def _is_header(head: bytes) -> bool:
    line = _first_line(head)
    return _is_text(head) and "," not in line and bool(_RECORD_LINE.match(line))


def _is_table(head: bytes) -> bool:
    return _is_text(head) and len(re.split(r"[,;\t]", _first_line(head))) > 1 and not head.lstrip().startswith(b"<")


def _describe(head: bytes) -> str:
    if not head:
        return "the file is empty"
    found = [
        name for mark, name in _NOT_READ_YET.items() if head.lstrip()[:8].startswith(mark) or head[128:132] == mark
    ]
    return f"{found[0]} files are not read yet" if found else "not a known ECG file"


# ---------------------------------------------------------------------------------------------------------------- WFDB


def _header_of(data_file: Path) -> Path | None:
    """Header of a WFDB data file: of the same stem, or the one beside it that names it (PTB-XL's `_hr_1.dat`)."""
    header = data_file.with_suffix(".hea")
    if header.is_file():
        return header
    stem = re.sub(r"_\d+$", "", data_file.stem)
    header = data_file.with_name(stem + ".hea")
    return header if header.is_file() and data_file.name in header.read_text(errors="replace") else None


def _read_wfdb(
    header: Path, sampling_rate: float | None, unit: str | None, lead_names: Sequence[str] | None
) -> EcgRecord:
    rate, fields = _check_header(header)
    rate = _agreed(sampling_rate, rate, "sampling_rate", header, check_sampling_rate)
    try:
        record = wfdb.rdrecord(str(header.with_suffix("")))
        signal = np.asarray(record.p_signal, dtype=np.float64).T
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{header}: its data file is missing: {error.filename}") from error
    except Exception as error:  # wfdb answers damage with whatever numpy or libsndfile happened to raise
        expected = f"{fields['leads']} leads x {fields['samples'] or '?'} samples"
        raise ValueError(f"{header}: truncated or damaged data: expected {expected}, got {_line(error)}") from error
    names = _names(record.sig_name or [], lead_names, header)
    kept, factors = _voltages(record.units, names, unit, header)
    return EcgRecord(
        signal_mv=signal[kept] * factors[:, None],
        sampling_rate=rate,
        lead_names=tuple(names[i] for i in kept),
        record_id=header.stem,
        source=str(header),
        flags=tuple(f"not_voltage:{names[i]}" for i in range(len(names)) if i not in kept),
        **_subject("\n".join(record.comments)),
    )


def _check_header(header: Path) -> tuple[float, dict[str, Any]]:
    """Rate (Hz) and counts of a WFDB header, refused where `wfdb` would guess or fail without saying why."""
    if header.suffix != ".hea":
        raise ValueError(f"{header}: a WFDB header must be named {header.stem}.hea to be read")
    lines = [line.strip() for line in header.read_text(errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or not _RECORD_LINE.match(lines[0]):
        raise ValueError(f"{header}: expected a WFDB record line (name, leads, rate, samples), got {lines[:1]}")
    words = lines[0].split()
    leads = int(words[1])
    # "500/1(0)" is rate / counter frequency (base counter value)
    rate = check_sampling_rate(words[2].split("/")[0] if len(words) > 2 else None, f"{header}: sampling_rate")
    samples = int(words[3]) if len(words) > 3 and words[3].isdigit() else None
    if "/" not in words[0]:
        _check_signal_lines(header, lines[1:], leads)
    return rate, {"leads": leads, "samples": samples}


def _check_signal_lines(header: Path, lines: list[str], leads: int) -> None:
    if leads == 0 or len(lines) != leads:
        raise ValueError(f"{header}: the record line names {leads} leads, got {len(lines)} lead lines")
    for line in lines:
        words = line.split()
        if not (header.parent / words[0]).is_file():
            raise FileNotFoundError(f"{header}: its data file is missing: {words[0]}")
        gain = re.match(r"[-+]?[\d.]+(e[-+]?\d+)?", words[2]) if len(words) > 2 else None
        if gain is None or float(gain.group()) == 0:
            lead = words[-1] if len(words) > 8 else words[0]
            raise ValueError(
                f"{header}: lead {lead} has no gain, so amplitudes are ADC counts; expected counts per mV"
            )


def _voltages(
    units: Sequence[str], names: Sequence[str], unit: str | None, source: Path
) -> tuple[list[int], np.ndarray]:
    """Rows in volts of any size and their factors to millivolt; other channels (blood pressure...) are left out."""
    if unit is not None and any(to_millivolt(unit, str(source)) != PER_MILLIVOLT.get(u.lower(), 0.0) for u in units):
        raise ValueError(f"{source}: unit: expected the header's {', '.join(sorted(set(units)))}, got {unit!r}")
    kept = [i for i, word in enumerate(units) if word.strip().lower() in PER_MILLIVOLT]
    if not kept:
        raise ValueError(f"{source}: expected leads in mV, uV or V, got {', '.join(sorted(set(units)))}")
    return kept, np.array([to_millivolt(units[i], str(source)) for i in kept])


def _subject(text: str) -> dict[str, Any]:
    age = re.search(r"\bage\b>?\s*[:=]\s*(\d+(\.\d+)?)", text, re.IGNORECASE)
    sex = re.search(r"\bsex\b>?\s*[:=]\s*(male|female|m|f)\b", text, re.IGNORECASE)
    years = float(age.group(1)) if age else None
    return {
        "age": years if years is not None and years <= 130 else None,
        "sex": {"m": "male", "f": "female"}[sex.group(1)[0].lower()] if sex else None,
    }


# -------------------------------------------------------------------------------------------------------------- arrays


def _read_npy(
    path: Path, sampling_rate: float | None, unit: str | None, lead_names: Sequence[str] | None
) -> EcgRecord:
    return _from_array(_load_numpy(path), path, {}, sampling_rate, unit, lead_names)


def _read_npz(
    path: Path, sampling_rate: float | None, unit: str | None, lead_names: Sequence[str] | None
) -> EcgRecord:
    content = _load_numpy(path)
    if "signal" not in content:
        raise ValueError(f"{path}: expected an array named 'signal', got {', '.join(content) or 'none'}")
    return _from_array(content["signal"], path, content, sampling_rate, unit, lead_names)


def _load_numpy(path: Path) -> Any:
    try:
        content = np.load(path, allow_pickle=False)
        return dict(content) if isinstance(content, np.lib.npyio.NpzFile) else content
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: truncated or damaged numpy file: {_line(error)}") from error


def _read_csv(
    path: Path, sampling_rate: float | None, unit: str | None, lead_names: Sequence[str] | None
) -> EcgRecord:
    """A column for each lead; `# key: value` lines and a time column in seconds may say rate and unit."""
    text = path.read_text(errors="replace")
    comments = dict(re.findall(r"^#\s*(\w+)\s*[:=]\s*(.+?)\s*$", text, re.MULTILINE))
    try:
        table = pd.read_csv(StringIO(text), sep=None, engine="python", comment="#")
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: not a readable table: {_line(error)}") from error
    if all(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?(\.\d+)?", str(name), re.IGNORECASE) for name in table.columns):
        raise ValueError(f"{path}: expected a first row with lead names, got numbers")
    text_columns = [str(name) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    if text_columns:
        raise ValueError(f"{path}: column {text_columns[0]}: expected numbers, got text")
    said: dict[str, Any] = {key: comments[key] for key in ("sampling_rate", "unit") if key in comments}
    times = [name for name in table.columns if str(name).strip().lower() in TIME_COLUMNS]
    if times:
        step = float(np.median(np.diff(table.pop(times[0]).to_numpy())))
        from_times = check_sampling_rate(round(1 / step, 3) if step else 0, f"{path}: column {times[0]}")
        said["sampling_rate"] = _agreed(
            said.get("sampling_rate"), from_times, "sampling_rate", path, check_sampling_rate
        )
    said["lead_names"] = [str(name) for name in table.columns]
    return _from_array(table.to_numpy().T, path, said, sampling_rate, unit, lead_names)


def _from_array(
    array: np.ndarray,
    path: Path,
    said: dict[str, Any],
    sampling_rate: float | None,
    unit: str | None,
    lead_names: Sequence[str] | None,
) -> EcgRecord:
    rate = _agreed(sampling_rate, said.get("sampling_rate"), "sampling_rate", path, check_sampling_rate)
    factor = _agreed(unit, said.get("unit"), "unit", path, to_millivolt)
    names = _names([str(name) for name in said.get("lead_names", ())], lead_names, path)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or len(names) not in array.shape:
        raise ValueError(
            f"{path}: expected numbers (leads, samples) for {len(names)} leads, got {array.dtype} {array.shape}"
        )
    if array.shape[0] != len(names):
        array = array.T
    return EcgRecord(
        signal_mv=array.astype(np.float64) * factor,
        sampling_rate=rate,
        lead_names=tuple(names),
        record_id=path.stem,
        source=str(path),
    )


# ------------------------------------------------------------------------------------------- what file and caller say


def _agreed(given: Any, said: Any, name: str, path: Path, check: Any) -> float:
    """The one value that caller and file agree on, checked."""
    if given is None and said is None:
        raise ValueError(f"{path}: {name}: the file does not say it; expected it as an argument, got None")
    values = {check(value, f"{path}: {name}") for value in (given, said) if value is not None}
    if len(values) > 1:
        raise ValueError(f"{path}: {name}: the file says {said}, which contradicts the given {given}")
    return float(values.pop())


def _names(said: Sequence[str], given: Sequence[str] | None, path: Path) -> list[str]:
    if not said and not given:
        raise ValueError(f"{path}: lead_names: the file does not say them; expected them as an argument, got None")
    in_file, asked = ([canonical_lead(name) for name in names or ()] for names in (said, given))
    if in_file and asked and in_file != asked:
        raise ValueError(f"{path}: lead_names: the file says {', '.join(in_file)}, given {', '.join(asked)}")
    return in_file or asked


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
