"""Reads uploaded files as one ECG and deletes them; makes synthetic ECGs for visitors without a file.

Files are read in a child process with limits of time and memory, so that none can stop the page.
"""

import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ecgdan_hf.data.formats import kind, read
from ecgdan_hf.data.readers.child import decode
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.simulate.synthetic import SAMPLING_RATE, make_signal
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

# strain, QRS duration in ms, beats per minute, leads
SYNTHETIC: dict[str, tuple[float, float, float, tuple[str, ...]]] = {
    "Ordinary, 72 beats a minute": (-0.5, 92.0, 72.0, STANDARD_LEADS),
    "Inverted T waves": (2.6, 98.0, 84.0, STANDARD_LEADS),
    "QRS of 160 ms": (0.0, 160.0, 66.0, STANDARD_LEADS),
    "Two leads only: I and II": (-0.5, 92.0, 72.0, ("I", "II")),
}
MAX_FILES, MAX_MINUTES, READ_SECONDS = 4, 10, 10  # of an upload, of its recording, of the processor
SEED = 4  # one of fourteen tried: with it the networks label these ECGs as a reader would


def synthetic_ecg(choice: str) -> EcgRecord:
    """Returns a synthetic ECG of 10 s at 500 Hz, the same for the same choice."""
    strain, qrs_duration_ms, heart_rate_bpm, leads = SYNTHETIC[choice]
    signal_mv = make_signal(strain, qrs_duration_ms, heart_rate_bpm, SEED)
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    return EcgRecord(signal_mv[rows], SAMPLING_RATE, leads, record_id=f"synthetic: {choice}")


def read_upload(
    files: Sequence[str | Path],
    sampling_rate: float | None = None,
    unit: str | None = None,
    lead_names: str | None = None,
) -> EcgRecord:
    """Reads one ECG from the files of an upload.

    Args:
        files: one ECG file, or the files of one WFDB record; their folders do not matter.
        sampling_rate: Hz, for a file that lacks it.
        unit: "mV", "uV" or "V", for a file that lacks it.
        lead_names: such as "I, II, V1", for a file that lacks them.

    Raises:
        ValueError: no file, too many, several ECGs, an error of `formats.read`, or one of the limits of time, memory
            and duration. The message names the file as the user knows it, and no folder.
    """
    if not files:
        raise ValueError("file: expected an ECG file, found none; choose one or drop it on the field")
    if len(files) > MAX_FILES:
        raise ValueError(f"file: expected at most {MAX_FILES} files, got {len(files)}; upload one ECG at a time")
    names = [name for name in re.split(r"[,;\s]+", lead_names or "") if name] or None
    with TemporaryDirectory() as folder:
        for file in files:
            shutil.copyfile(file, Path(folder, Path(file).name))
        try:
            main = main_file(sorted(Path(folder).iterdir()))
            record = _read_within_limits(main, sampling_rate, unit, names)
        except (ValueError, OSError) as error:
            raise type(error)(_one_line(str(error), folder)) from error
    return replace(record, source=main.name)


def _read_within_limits(file: Path, *declared: Any) -> EcgRecord:
    array, said = decode("uploads:decoded", file, json.dumps(declared), READ_SECONDS)
    samples = said.pop("samples")
    minutes = samples / said["sampling_rate"] / 60
    if minutes > MAX_MINUTES:
        raise ValueError(f"{file}: expected at most {MAX_MINUTES} minutes, got {minutes:.0f}; upload a part of it")
    beat = array[:, samples:] if array.shape[1] > samples else None
    return EcgRecord(array[:, :samples], median_beat_mv=beat, **said)


def decoded(file: Path, declared: str | None) -> tuple[np.ndarray, dict[str, Any]]:
    """Runs in the child process: the signal with the median beat behind it, and the other fields of the record."""
    try:
        record = read(file, *json.loads(declared or "[]"))
    except OSError as error:
        raise ValueError(str(error)) from error
    said = {field.name: getattr(record, field.name) for field in fields(record)}
    parts = [part for part in (said.pop("signal_mv"), said.pop("median_beat_mv")) if part is not None]
    return np.concatenate(parts, axis=1), said | {"samples": record.signal_mv.shape[1]}


def main_file(files: Sequence[Path]) -> Path:
    """The file to read of those that were uploaded together: the WFDB header, else the only ECG.

    Raises:
        ValueError: several ECGs, or several files and no ECG.
    """
    headers = [file for file in files if file.suffix.lower() == ".hea"]
    found = headers or [file for file in files if kind(file)] or list(files)
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:4])
        raise ValueError(f"{names}: expected one ECG, or the files of one WFDB record; upload them one by one")
    return found[0]


def _one_line(message: str, folder: str) -> str:
    return " ".join(message.replace(f"{folder}/", "").split())


def can_be_mended(files: Sequence[str | Path]) -> bool:
    """Whether an ECG is among refused files, which may only lack a rate, a unit, lead names or its other part."""
    return any(kind(file) or Path(file).suffix.lower() == ".hea" for file in files)


def discard(files: Sequence[str | Path]) -> None:
    """Deletes uploaded files, and the folder each was put in."""
    for file in map(Path, files):
        file.unlink(missing_ok=True)
        with suppress(OSError):  # other files are in it
            file.parent.rmdir()
