"""ECG files -> one row of measurements each, for `ecgdan data measure`. Not for diagnosis.

Measured on the median beat and the whole recording, as for the comparators of risk models (`data/measure`), and each
lead by itself.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf import __version__
from ecgdan_hf.data.measure.delineated_ecg import DelineatedEcg
from ecgdan_hf.data.measure.measurements import FLAGS, MEASUREMENTS, flags, measure_delineated, st_and_t
from ecgdan_hf.data.measure.rhythm import RHYTHM, measure_rhythm
from ecgdan_hf.data.prepared.record_file import Recording, read_recording
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.sources.ecg_folder import expand_files
from ecgdan_hf.inference.prepared_files import row_of_error
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

_BATCH = 32
HRV_SECONDS = 60.0  # RR variability of less says little (Task Force of the ESC and NASPE, Circulation 93:1043, 1996)
FURTHER = {
    "qtc_framingham_ms": "QT + 154 (1 - RR), RR in seconds, ms (Sagie et al., Am J Cardiol 70:797, 1992)",
    "qtc_hodges_ms": "QT + 1.75 (heart rate - 60), ms (Hodges et al., J Am Coll Cardiol 1:694, 1983)",
}
BY_LEAD = {
    "r": "R amplitude of the median beat, above the level before the QRS, mV",
    "s": "S or Q amplitude, the deepest of the QRS, as a positive number, mV",
    "st": "ST level at J + 60 ms, mV",
    "t": "T amplitude, mV",
}
"""For each lead, in columns such as `st_V2_mv`."""


def measure_files(
    paths: str | Path | Iterable[str | Path], read_options: Mapping[str, Any] | None = None, num_workers: int = 0
) -> pd.DataFrame:
    """Measures ECG files.

    Args:
        paths: files and folders; see [`expand_files`].
        read_options: `sampling_rate`, `unit`, `lead_names` for files that do not state them.
        num_workers: processes that measure; 0 does it in this one.

    Returns:
        One row per file, in order: `file`; `age` and `sex` where the file has them; the keys of `MEASUREMENTS`,
        `FURTHER` and `RHYTHM`; the flags of `data.measure.measurements.FLAGS`, 1 or 0; four columns for each lead
        (`BY_LEAD`); `num_leads`, that were usable; `flags` joined by `;`; `error`, why the file cannot be measured.
        NaN where a lead, a wave or beats are missing.

    Raises:
        FileNotFoundError: a folder without ECG files.
    """
    measurer = Measurer(read_options or {}, num_workers)
    rows = [row for batch in measurer.batches(expand_files(paths)) for row in batch]
    return pd.DataFrame(rows, columns=measurer.columns).astype({"num_leads": "Int64"})


@dataclass(frozen=True)
class Measurer:
    """How files are measured; arguments as [`measure_files`]."""

    read_options: Mapping[str, Any] = field(default_factory=dict)
    num_workers: int = 0

    @property
    def columns(self) -> list[str]:
        """Columns of a row, in order."""
        by_lead = [f"{name}_{lead}_mv" for lead in STANDARD_LEADS for name in BY_LEAD]
        measured = [*MEASUREMENTS, *FURTHER, *RHYTHM, *FLAGS, *by_lead]
        return ["file", "age", "sex", *measured, "num_leads", "flags", "error"]

    @property
    def made_with(self) -> dict[str, Any]:
        """What the rows depend on, by name; JSON values."""
        options = json.dumps(dict(self.read_options), sort_keys=True)
        return {"read options": options, "version of the package": __version__}

    @property
    def doing(self) -> str:
        """What is being done, for the progress bar."""
        return "Measuring"

    def check(self, files: Sequence[Recording]) -> None:
        """Nothing depends on the files."""

    def batches(self, files: Sequence[Recording]) -> Iterator[list[dict[str, Any]]]:
        """The rows, a batch at a time, in the order of the files."""
        if not self.num_workers:
            for start in range(0, len(files), _BATCH):
                yield [self._row(file) for file in files[start : start + _BATCH]]
            return
        size = _BATCH * self.num_workers
        with ProcessPoolExecutor(self.num_workers) as pool:
            try:
                for start in range(0, len(files), size):
                    yield list(pool.map(self._row, files[start : start + size], chunksize=8))
            except BrokenProcessPool as error:
                raise ValueError(
                    "num_workers: a process that measures was killed, by a file or for want of memory; repeat with 0 "
                    "to see by which file"
                ) from error

    def _row(self, file: Recording) -> dict[str, Any]:
        row: dict[str, Any] = {"file": str(file), "flags": "", "error": ""}
        try:
            record = read_recording(file, self.read_options)
            ecg = DelineatedEcg.of(record.signal_mv, record.sampling_rate, record.lead_names)
            found = _measured(ecg, record.sex)
        except Exception as error:  # of any decoder: one file must not stop the others
            return row_of_error(file, error)
        known = {"age": record.age, "sex": record.sex, "num_leads": len(ecg.beat_mv)}
        return {**row, **found, **known, "flags": ";".join(_flags(record, ecg))}


def _measured(ecg: DelineatedEcg, sex: str | None) -> dict[str, float]:
    intervals = measure_delineated(ecg)
    markers = flags(intervals, sex).iloc[0]
    further = _further(intervals["qt_ms"], ecg.heart_rate_bpm)
    return {**intervals, **further, **measure_rhythm(ecg), **{name: markers[name] for name in FLAGS}, **_by_lead(ecg)}


def _further(qt_ms: float, heart_rate_bpm: float) -> dict[str, float]:
    return {
        "qtc_framingham_ms": qt_ms + 154 * (1 - 60 / heart_rate_bpm),
        "qtc_hodges_ms": qt_ms + 1.75 * (heart_rate_bpm - 60),
    }


def _by_lead(ecg: DelineatedEcg) -> dict[str, float]:
    levels, (first, last) = ecg.levels_mv, ecg.waves.qrs
    st, t = st_and_t(levels, ecg.waves)
    found: dict[str, float] = {}
    for lead, beat in levels.items():
        qrs = beat[first:last]
        values = max(0.0, float(np.max(qrs))), max(0.0, -float(np.min(qrs))), st[lead], t.get(lead, math.nan)
        found |= {f"{name}_{lead}_mv": value for name, value in zip(BY_LEAD, values, strict=True)}
    return found


def _flags(record: EcgRecord, ecg: DelineatedEcg) -> list[str]:
    """Those of reading, and what the recording is too short for."""
    seconds = record.signal_mv.shape[1] / record.sampling_rate
    short = [f"short_for_rr_variability:{seconds:.0f}s"] if seconds < HRV_SECONDS else []
    return [*dict.fromkeys(record.flags), *short]
