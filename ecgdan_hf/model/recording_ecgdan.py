"""One recording in any of the forms a pipeline is given -> what the feature extractor takes, and what else is known.

A form that says its rate, unit and leads is taken at its word; what it does not say must be given. Nothing is guessed.

Travels with the weights: imports only torch and numpy; files are read with the package, where it is installed.
"""

import importlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

SIGNAL_ARGUMENTS = ("sampling_rate", "unit", "lead_names")
PREPARED = ("input_values", "lead_mask", "waveform_weights")
"""Columns of a row that went through the feature extractor already."""

FORMS = (
    "a path, bytes of a file, a mapping with signal, path or bytes, an array (leads, samples) or a row of a dataset"
)


class Recording(NamedTuple):
    """One recording and what is known about it."""

    inputs: dict[str, Any]
    """Keyword arguments of the feature extractor; or its outputs, `PREPARED`, for a row that is prepared."""
    flags: list[str]
    """Quality flags of its source."""
    said: dict[str, Any]
    """Age in years and sex of the patient, from its file."""
    given: dict[str, Any]
    """Further entries of a mapping."""

    @classmethod
    def read(cls, recording: Any, arguments: Mapping[str, Any]) -> "Recording":
        """Reads one recording.

        Args:
            recording: a path; bytes of a file, or a file opened for reading bytes; an array (leads, samples), or
                (samples, leads) where `lead_names` tell them apart; a mapping with `signal`, `path` or `bytes`, and
                the arguments below; a row of a dataset of this package, as recorded (millivolt) or prepared; an
                `EcgRecord`.
            arguments: `sampling_rate` (Hz), `unit`, `lead_names`, for what the recording does not say itself.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file without the package that reads files, one that cannot be read, or no recording.
        """
        if isinstance(recording, Mapping):
            return _of_mapping(recording, arguments)
        if hasattr(recording, "as_inputs"):
            return _of_record(recording)
        if isinstance(recording, (str, os.PathLike)):
            return _of_record(_read_file(recording, arguments))
        if hasattr(recording, "read"):
            recording = recording.read()
        if isinstance(recording, (bytes, bytearray, memoryview)):
            return _of_record(_read_bytes(bytes(recording), arguments))
        if isinstance(recording, (np.ndarray, Tensor, list, tuple)):
            return cls(_with_signal(recording, arguments), [], {}, {})
        raise ValueError(f"inputs: expected {FORMS}, got {type(recording).__name__}")


def _of_mapping(row: Mapping[str, Any], arguments: Mapping[str, Any]) -> Recording:
    """A mapping of a user, or a row of a dataset, which has `flags` and is in millivolt."""
    own = {name: row[name] for name in SIGNAL_ARGUMENTS if row.get(name) is not None}
    rest = {name: value for name, value in row.items() if name not in ("signal", "path", "bytes", *PREPARED)}
    flags = [str(flag) for flag in row.get("flags") or ()]
    if row.get("signal") is not None:
        contract = {"unit": "mV"} if "flags" in row else {}
        inputs = _with_signal(row["signal"], {**contract, **arguments, **own})
        if row.get("median_beat") is not None:
            inputs["median_beat"] = _numbers(row["median_beat"])
        return Recording(inputs, flags, {}, rest)
    if row.get("input_values") is not None:
        return Recording({name: row[name] for name in PREPARED if row.get(name) is not None}, flags, {}, rest)
    file = row.get("bytes") if row.get("bytes") is not None else row.get("path")
    if file is None:
        found = ", ".join(map(str, row)) or "nothing"
        raise ValueError(f"inputs: expected a mapping with signal, path or bytes, got {found}")
    return Recording.read(file, {**arguments, **own})._replace(given=rest)


def _of_record(record: Any) -> Recording:
    said = {name: getattr(record, name, None) for name in ("age", "sex")}
    return Recording(record.as_inputs(), list(record.flags), said, {})


def _with_signal(signal: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the feature extractor's arguments; transposes a signal that the lead names show to be transposed."""
    array, names = _numbers(signal), arguments.get("lead_names")
    if array.ndim != 2:
        raise ValueError(
            f"inputs: expected an array (leads, samples), got shape {array.shape}; give several recordings as a list"
        )
    given = dict(arguments)
    if isinstance(names, (Sequence, np.ndarray)) and not isinstance(names, str):
        given["lead_names"] = [str(name) for name in names]
        array = array.T if len(names) == array.shape[1] != array.shape[0] else array
    rate: Any = given.get("sampling_rate")
    return {"signal": array, **given, "sampling_rate": rate.item() if hasattr(rate, "item") else rate}


def _numbers(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"inputs: expected {FORMS}, got a {type(values).__name__} that is no array") from error


def _read_file(path: str | os.PathLike[str], arguments: Mapping[str, Any]) -> Any:
    try:
        # by name: this file travels to the Hub, where the package may not be there
        formats = importlib.import_module("ecgdan_hf.data.formats")
    except ImportError as error:
        raise ValueError(
            f"{path}: reading files needs the package (pip install ecgdan-hf), or give the signal as an array; {error}"
        ) from error
    return formats.read(path, **arguments)


def _read_bytes(content: bytes, arguments: Mapping[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recording")
        file.write_bytes(content)
        try:
            return _read_file(file, arguments)
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(str(file), "bytes")) from error
