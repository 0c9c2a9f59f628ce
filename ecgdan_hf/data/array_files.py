"""ECGs kept as plain arrays: .npy, .npz, .csv. A rate, a unit and lead names are never guessed."""

import re
import zipfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.declared import agreed_factor, agreed_leads, agreed_rate, one_line
from ecgdan_hf.data.record import EcgRecord, check_sampling_rate

TIME_COLUMNS = ("time", "time_s", "time_seconds", "seconds", "t")


def read_numpy(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The array of a .npy or .npz and what the latter says of it; never pickled objects."""
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            return content, {}
        said = {name: values.tolist() if values.ndim <= 1 else values for name, values in dict(content).items()}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: truncated or damaged numpy file: {one_line(error)}") from error
    if "signal" not in said:
        raise ValueError(f"{path}: expected an array named 'signal', got {', '.join(said) or 'none'}")
    return np.asarray(said.pop("signal")), said


def read_csv(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The columns of a .csv, (leads, samples), and what it says of them."""
    text = path.read_text(errors="replace")
    said: dict[str, Any] = dict(re.findall(r"^#\s*(\w+)\s*[:=]\s*(.+?)\s*$", text, re.MULTILINE))
    try:
        table = pd.read_csv(StringIO(text), sep=None, engine="python", comment="#")
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: not a readable table: {one_line(error)}") from error
    if all(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?(\.\d+)?", str(name), re.IGNORECASE) for name in table.columns):
        raise ValueError(f"{path}: expected a first row with lead names, got numbers")
    text_columns = [str(name) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    if text_columns:
        raise ValueError(f"{path}: column {text_columns[0]}: expected numbers, got text")
    times = [name for name in table.columns if str(name).strip().lower() in TIME_COLUMNS]
    if times:
        said["sampling_rate"] = agreed_rate(_rate_of(table.pop(times[0]), path), said.get("sampling_rate"), path)
    said["lead_names"] = [str(name) for name in table.columns]
    return table.to_numpy().T, said


def _rate_of(times: pd.Series, path: Path) -> float:
    step = float(np.median(np.diff(times.to_numpy(dtype=np.float64)))) if len(times) > 1 else 0.0
    # three decimals: times are written with few digits
    return check_sampling_rate(round(1 / step, 3) if step else 0.0, f"{path}: column {times.name}")


def as_record(
    array: np.ndarray,
    said: dict[str, Any],
    path: Path,
    sampling_rate: float | None,
    unit: str | None,
    lead_names: Sequence[str] | None,
) -> EcgRecord:
    """The array in millivolt, with what the file and the caller say of it."""
    rate = agreed_rate(sampling_rate, said.get("sampling_rate"), path)
    factor = agreed_factor(unit, said.get("unit"), path)
    leads = agreed_leads(lead_names, said.get("lead_names"), path)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or len(leads) not in array.shape:
        found = f"{array.dtype} {array.shape}"
        raise ValueError(f"{path}: expected numbers (leads, samples) for {len(leads)} leads, got {found}")
    if array.shape[0] != len(leads):
        array = array.T
    return EcgRecord(
        signal_mv=array.astype(np.float64) * factor,
        sampling_rate=rate,
        lead_names=tuple(leads),
        record_id=path.stem,
        source=str(path),
    )
