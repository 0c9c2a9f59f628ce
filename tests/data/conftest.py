"""Miniature ECG files and folders, written by code."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor

WriteRecord = Callable[..., Path]

STATEMENTS = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass,Statement Category,\
SCP-ECG Statement Description
NDT,non-diagnostic T abnormalities,1.0,1.0,,STTC,STTC,other ST-T descriptive statements,non-diagnostic T abnormalities
NORM,normal ECG,1.0,,,NORM,NORM,Normal/abnormal,normal ECG
IMI,inferior myocardial infarction,1.0,,,MI,IMI,Myocardial Infarction,inferior myocardial infarction
LVH,left ventricular hypertrophy,1.0,,,HYP,LVH,Ventricular Hypertrophy,left ventricular hypertrophy
CLBBB,complete left bundle branch block,1.0,,,CD,CLBBB,Intraventricular block,complete left bundle branch block
SR,sinus rhythm,,,1.0,,,Rhythm,sinus rhythm
"""

# ecg_id, patient_id, age, sex, report, scp_codes, strat_fold
PTBXL_ROWS = [
    (1, 15709.0, 56.0, 1, "sinusrhythmus", "{'NORM': 100.0, 'SR': 0.0}", 3),
    (2, 13243.0, 300.0, 0, "", "{'IMI': 35.0, 'NDT': 0.0}", 2),
    (7, 13243.0, "", 0, "lbbb, lvh", "{'CLBBB': 100.0, 'LVH': 50.0, 'SR': 0.0}", 2),
    (9, 11111.0, 40.0, 1, "nothing diagnostic", "{'SR': 0.0}", 9),
]


def write_wfdb(path: Path, signal_mv: np.ndarray, fmt: str = "16", fs: float = 500, **options) -> Path:
    """Writes (leads, samples) millivolt with `wfdb` itself, so that another hand than ours made the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(signal_mv)
    defaults = {
        "units": ["mV"] * count,
        "sig_name": list(STANDARD_LEADS[:count]),
        "adc_gain": [1000.0] * count,
        "baseline": [0] * count,
        "fmt": [fmt] * count,
    }
    samples = np.asarray(signal_mv, dtype=np.float64).T
    wfdb.wrsamp(path.name, fs=fs, p_signal=samples, write_dir=str(path.parent), **{**defaults, **options})
    return path


@pytest.fixture(scope="session")
def ecg() -> np.ndarray:
    """(12, 5000) millivolt, 500 Hz."""
    return synthetic.make_signal(strain=0.0, qrs_duration_ms=98.0, heart_rate_bpm=70.0, seed=1)


@pytest.fixture
def write_record(tmp_path: Path, ecg: np.ndarray) -> WriteRecord:
    """Writes the synthetic ECG, or another, as a WFDB record."""

    def write(name: str = "a", signal_mv: np.ndarray | None = None, **options) -> Path:
        return write_wfdb(tmp_path / name, ecg if signal_mv is None else signal_mv, **options)

    return write


@pytest.fixture
def ptbxl_folder(tmp_path: Path) -> Path:
    """Four records in the layout of PTB-XL, at 500 Hz in format 516 and at 100 Hz in format 16."""
    folder = tmp_path / "ptb-xl"
    for ecg_id, *_ in PTBXL_ROWS:
        signal = synthetic.make_signal(0.0, 98.0, 70.0, seed=ecg_id)
        write_wfdb(folder / f"records500/00000/{ecg_id:05d}_hr", signal, fmt="516")
        write_wfdb(folder / f"records100/00000/{ecg_id:05d}_lr", signal[:, ::5], fs=100)
    (folder / "scp_statements.csv").write_text(STATEMENTS, encoding="utf-8")
    names = ["ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]
    with (folder / "ptbxl_database.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in PTBXL_ROWS:
            stem = f"00000/{row[0]:05d}"
            writer.writerow([*row, f"records100/{stem}_lr", f"records500/{stem}_hr"])
    return folder


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic cohort of 40 on disk; read it, do not write in it."""
    folder = tmp_path_factory.mktemp("cohort") / "synthetic"
    synthetic.write_cohort(folder, n=40, seed=3)
    return folder


@pytest.fixture(scope="session")
def mitbih_table(shared: Path) -> pd.DataFrame:
    """Segments of 10 s of the real MIT-BIH records; the paths are those of the folder."""
    return read_source("mit-bih", shared / "data" / "mit-bih")


@pytest.fixture(scope="session")
def extractor() -> EcgDanFeatureExtractor:
    """The feature extractor of ten seconds at 100 Hz, the quicker of the two."""
    return EcgDanFeatureExtractor(**EcgDanConfig(input_kind="rhythm").signal_contract)
