"""SaMi-Trop: 1,631 ECGs of patients with chronic Chagas cardiomyopathy, with deaths (Zenodo 4905618).

Cardoso et al., BMJ Open 6:e011181 (2016). Expects `exams.csv` and `exams.hdf5`, whose tracings are in the order of the
table. One exam for each patient.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ecgdan_hf.data.sources.exams import EXAMS_NAME, as_table, num_tracings, read_exams

TRACINGS_NAME = "exams.hdf5"


def read_samitrop(data_dir: str | Path) -> pd.DataFrame:
    """One row per exam.

    Args:
        data_dir: folder with `exams.csv` and `exams.hdf5`.

    Returns:
        Columns `record_id, patient_id` (the same), `file, member, sampling_rate, unit, lead_names, age, sex, event,
        time, normal_ecg, nn_predicted_age`; `event` is death, `time` years.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: a table that is not SaMi-Trop's, damaged tracings, or another number of them.
    """
    path, tracings = (Path(data_dir) / name for name in (EXAMS_NAME, TRACINGS_NAME))
    exams = read_exams(path, "SaMi-Trop")
    found = num_tracings(tracings)
    if found != len(exams):
        raise ValueError(f"{tracings}: expected a tracing for each of {len(exams)} exams of {EXAMS_NAME}, got {found}")
    return as_table(exams.assign(file=str(tracings), member=np.arange(found)), path)
