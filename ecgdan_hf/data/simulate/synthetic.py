"""Seeded synthetic 12-lead ECGs whose hazard is a known function of visible features.

Each beat is a cardiac dipole: Gaussian waves P, Q, R, S, ST and T along directions in space (McSharry et al., IEEE
Trans Biomed Eng 50:289, 2003; Sameni et al., EURASIP J Adv Signal Process 2007), seen by the leads through Dower's
matrix (Dower et al., J Electrocardiol 13:109, 1980). The hazard depends on *repolarisation strain*, which lowers the
ST segment and inverts the T wave in every lead, on the QRS duration, and a little on age and sex. Strain and duration
change shape rather than voltage, so they survive the z-score of each lead. Simulated; it means nothing for patients.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from ecgdan_hf.data.simulate import plasmode
from ecgdan_hf.files import whole_folder
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS

SAMPLING_RATE = 500
DURATION_SECONDS = 10.0
COUNTS_PER_MV = 1000
EVENT_RATE = 0.28
NUM_FOLDS = 10
WIDE_QRS_MS = 120.0

STRAIN_LOG_HAZARD = 1.2  # per standard deviation
QRS_LOG_HAZARD = 0.5  # per standard deviation
AGE_LOG_HAZARD_PER_DECADE = 0.3
MALE_LOG_HAZARD = 0.3

# Dower: leads I, II, V1-V6 from the dipole's X (left), Y (down) and Z (back)
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

# centre (ms from R), width (ms, one standard deviation), dipole (mV)
WAVES: dict[str, tuple[float, float, tuple[float, float, float]]] = {
    "P": (-165.0, 20.0, (0.07, 0.10, -0.01)),
    "Q": (-22.0, 8.0, (-0.14, 0.02, -0.32)),
    "R": (0.0, 11.0, (1.00, 0.95, 0.25)),
    "S": (24.0, 10.0, (-0.20, -0.10, 0.55)),
    "ST": (120.0, 45.0, (0.02, 0.02, -0.02)),
    "T": (265.0, 48.0, (0.30, 0.26, -0.18)),
}
QRS_WAVES = ("Q", "R", "S")


def _make_subjects(n: int, seed: int) -> pd.DataFrame:
    """Draws subjects with one record each: columns of [`write_cohort`] except `file`."""
    if n < 20:
        raise ValueError(f"n: expected at least 20 subjects, got {n}")
    rng = _generator(seed, 0)
    width, strain = rng.standard_normal(n), rng.standard_normal(n)
    table = pd.DataFrame(
        {
            "record_id": [f"{i:05d}" for i in range(1, n + 1)],
            "patient_id": [f"P{i:05d}" for i in range(1, n + 1)],
            "age": np.round(np.clip(rng.normal(60, 12, n), 25, 90), 1),
            "sex": np.where(rng.random(n) < 0.5, "male", "female"),
            "fold": rng.permutation(np.arange(n) % NUM_FOLDS) + 1,
            "strain": np.round(strain, 6),
            "qrs_duration_ms": np.round(98 * np.exp(0.2 * np.clip(width, -2, 3)), 2),
            "heart_rate_bpm": np.round(np.clip(rng.normal(70, 12, n), 45, 115), 1),
        }
    )
    table["labels"] = [_labels(*row) for row in zip(table["strain"], table["qrs_duration_ms"], strict=True)]
    table["log_hazard"] = _true_log_hazard(table)
    event, time = plasmode.follow_up(table["log_hazard"].to_numpy(), seed, event_rate=EVENT_RATE)
    return table.assign(event=event, time=time)


def _true_log_hazard(table: pd.DataFrame) -> np.ndarray:
    """1.2 strain + 0.5 ln(QRS / 98 ms) / 0.2 + 0.3 (age - 60) / 10 + 0.3 male, (n,)."""
    return np.asarray(
        STRAIN_LOG_HAZARD * table["strain"]
        + QRS_LOG_HAZARD * np.log(table["qrs_duration_ms"] / 98) / 0.2
        + AGE_LOG_HAZARD_PER_DECADE * (table["age"] - 60) / 10
        + MALE_LOG_HAZARD * (table["sex"] == "male"),
        dtype=np.float64,
    )


def make_signal(strain: float, qrs_duration_ms: float, heart_rate_bpm: float, seed: int) -> np.ndarray:
    """One synthetic ECG (12, 5000), millivolt, 500 Hz, leads in `STANDARD_LEADS` order.

    Args:
        strain: repolarisation strain; 0 is an ordinary T wave, about 1.3 a flat one, above it an inverted one.
        qrs_duration_ms: width of the QRS complex.
        heart_rate_bpm: mean heart rate; single beats vary around it.
        seed: of anatomy (axis, size, wave widths) and noise.
    """
    rng = _generator(seed, 1)
    samples = int(SAMPLING_RATE * DURATION_SECONDS)
    seconds = np.arange(samples) / SAMPLING_RATE
    beats = _beat_times(heart_rate_bpm, rng)
    dipole = _rotation(rng) @ _dipole(samples, beats, strain, qrs_duration_ms, rng)
    size = np.exp(rng.normal(0, 0.25))
    leads = size * (DOWER * np.exp(rng.normal(0, 0.08, (len(DOWER), 1)))) @ dipole
    leads += _noise(seconds, len(DOWER), rng)
    return _twelve(leads).astype(np.float32)


def write_cohort(directory: str | Path, n: int = 600, seed: int = 0) -> pd.DataFrame:
    """Writes the cohort as a folder of WFDB records (format 16, 1 uV) and `table.csv`, whole or not at all.

    Columns: `record_id, patient_id, file` (relative to the folder), `age, sex, fold, labels, event, time` (years), the
    true `log_hazard`, and the visible features `strain` (standard normal), `qrs_duration_ms`, `heart_rate_bpm`. The
    same seed writes the same bytes.

    Raises:
        FileExistsError: the folder exists and is not empty.
        ValueError: fewer than 20 subjects, too few for folds and events.
    """
    table = _make_subjects(n, seed)
    with whole_folder(directory) as partial:
        files = [_write_record(partial, row, seed) for row in tqdm(table.itertuples(), "synthetic ECGs", len(table))]
        table.insert(2, "file", files)
        table.assign(labels=table["labels"].map(";".join)).to_csv(partial / "table.csv", index=False)
        facts = {"simulated": True, "n": n, "seed": seed}
        (partial / "cohort.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return table


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))


def _labels(strain: float, qrs_duration_ms: float) -> list[str]:
    """Labels: repolarisation `strain` (flat or inverted T), `wide_qrs`, else `normal`."""
    found = [
        name for name, present in (("strain", strain > 1), ("wide_qrs", qrs_duration_ms > WIDE_QRS_MS)) if present
    ]
    return found or ["normal"]


def _beat_times(heart_rate_bpm: float, rng: np.random.Generator) -> np.ndarray:
    """R peaks in seconds, from before the first sample to after the last, with respiratory sinus arrhythmia."""
    mean_rr = 60.0 / heart_rate_bpm
    count = int(DURATION_SECONDS / mean_rr * 1.3) + 4
    breathing = 0.03 * np.sin(2 * np.pi * 0.25 * mean_rr * np.arange(count) + rng.uniform(0, 2 * np.pi))
    intervals = mean_rr * (1 + breathing + rng.normal(0, 0.015, count))
    return np.cumsum(intervals) - mean_rr * (1 + rng.random())


def _dipole(
    samples: int, beats: np.ndarray, strain: float, qrs_duration_ms: float, rng: np.random.Generator
) -> np.ndarray:
    """(3, samples): sum over beats and waves of Gaussians in time along fixed directions."""
    stretch = qrs_duration_ms / 98.0
    mean_rr = float(np.mean(np.diff(beats)))
    total = np.zeros((3, samples))
    for name, (centre, width, direction) in WAVES.items():
        vector = np.array(direction) * np.exp(rng.normal(0, 0.15, 3))
        if name in QRS_WAVES:
            centre, width = centre * stretch, width * stretch
        elif name in ("ST", "T"):
            # Bazett: repolarisation shortens with the square root of RR; it starts at the end of the QRS
            centre = centre * np.sqrt(mean_rr) + (qrs_duration_ms - 98.0) / 2
            width = width * np.sqrt(mean_rr)
        if name == "T":
            vector = vector * (1.0 - 0.75 * strain)
        elif name == "ST":
            vector = vector - 0.35 * strain * np.array(WAVES["T"][2])
        total += vector[:, None] * _gaussians(beats + centre / 1000.0, width / 1000.0, samples)
    return total


def _gaussians(centres: np.ndarray, width: float, samples: int) -> np.ndarray:
    """(samples,): a Gaussian of height 1 around each of `centres` (seconds), cut off at five widths."""
    reach = int(np.ceil(5 * width * SAMPLING_RATE))
    index = np.round(centres[:, None] * SAMPLING_RATE).astype(int) + np.arange(-reach, reach + 1)  # (beats, window)
    height = np.exp(-0.5 * ((index / SAMPLING_RATE - centres[:, None]) / width) ** 2)
    inside = (index >= 0) & (index < samples)
    return np.bincount(index[inside], weights=height[inside], minlength=samples)


def _rotation(rng: np.random.Generator) -> np.ndarray:
    """Rotation of the heart: about 20 degrees in the frontal plane, 15 in the transverse plane."""
    frontal, transverse = np.deg2rad(rng.normal(0, [20.0, 15.0]))
    c, s = np.cos(frontal), np.sin(frontal)
    u, v = np.cos(transverse), np.sin(transverse)
    return np.asarray(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[u, 0, -v], [0, 1, 0], [v, 0, u]]))


def _noise(seconds: np.ndarray, leads: int, rng: np.random.Generator) -> np.ndarray:
    """(leads, samples), millivolt: baseline wander by breathing, 50 Hz mains and muscle noise."""
    phase = rng.uniform(0, 2 * np.pi, (3, leads, 1))
    slow, breath = rng.uniform(0.05, 0.15), rng.uniform(0.18, 0.35)
    wander = 0.06 * np.sin(2 * np.pi * slow * seconds + phase[0]) + 0.04 * np.sin(
        2 * np.pi * breath * seconds + phase[1]
    )
    mains = 0.006 * np.sin(2 * np.pi * 50 * seconds + phase[2])
    muscle = np.exp(rng.normal(np.log(0.015), 0.3)) * rng.standard_normal((leads, len(seconds)))
    return np.asarray(wander * np.exp(rng.normal(0, 0.4, (leads, 1))) + mains + muscle)


def _twelve(eight: np.ndarray) -> np.ndarray:
    """(12, samples) in `STANDARD_LEADS` order from I, II, V1-V6."""
    one, two = eight[0], eight[1]
    limb = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    return np.concatenate([limb, eight[2:]])


def _signal_of(row: Any, seed: int) -> np.ndarray:
    own_seed = seed * 1_000_003 + int(row.record_id)  # so that one ECG can be made without the others
    return make_signal(row.strain, row.qrs_duration_ms, row.heart_rate_bpm, own_seed)


def _write_record(directory: Path, row: Any, seed: int) -> str:
    """Writes one WFDB record, without `wfdb.wrsamp`, which is thirty times slower."""
    name = f"records/{row.record_id[:2]}/{row.record_id}"
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = np.round(_signal_of(row, seed) * COUNTS_PER_MV).astype("<i2").T  # (samples, leads)
    counts.tofile(path.with_suffix(".dat"))
    checksums = counts.sum(axis=0, dtype=np.int64) % 65536
    header = [f"{row.record_id} {counts.shape[1]} {SAMPLING_RATE} {counts.shape[0]}"]
    for lead, first, checksum in zip(STANDARD_LEADS, counts[0], checksums, strict=True):
        header.append(f"{row.record_id}.dat 16 {COUNTS_PER_MV}.0(0)/mV 16 0 {first} {checksum} 0 {lead}")
    header += [f"# Age: {row.age}", f"# Sex: {row.sex}", "# Synthetic ECG, simulated follow-up"]
    path.with_suffix(".hea").write_text("\n".join(header) + "\n", encoding="utf-8")
    return name
