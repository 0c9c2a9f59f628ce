"""MIMIC-IV-ECG: 800,035 ECGs of 161,352 patients of one hospital in Boston (Gow et al., PhysioNet 2023).

Expects `record_list.csv` and the WFDB records it names; `machine_measurements.csv` in the same folder has the
machine's reports. Age, sex and death come from MIMIC-IV's `patients.csv` and `admissions.csv` (or `.csv.gz`) in the
same folder or its `hosp/`. Headers name aVF before aVL, so leads are matched by name.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from ecgdan_hf.data.record import MAX_AGE_YEARS
from ecgdan_hf.data.sources.published_tables import read_published

SOURCE = "MIMIC-IV-ECG"
LIST_NAME = "record_list.csv"
REPORTS_NAME = "machine_measurements.csv"
NUM_REPORT_LINES = 18
SECONDS_PER_YEAR = 365.25 * 86400
DEATHS_KNOWN = pd.Timedelta(seconds=SECONDS_PER_YEAR)  # MIMIC-IV records deaths up to a year after the last discharge

_LIST_COLUMNS = {"subject_id": "int64", "study_id": "int64", "ecg_time": "datetime64[ns]", "path": "str"}
_PATIENT_COLUMNS = {
    "subject_id": "int64",
    "gender": "object",
    "anchor_age": "float64",
    "anchor_year": "int64",
    "dod": "datetime64[ns]",
}


def read_mimic_iv_ecg(data_dir: str | Path) -> pd.DataFrame:
    """Returns one row per record, without opening the record files.

    Columns: `record_id` (study), `patient_id`, `file`, `ecg_time`, `report` (the machine's lines, joined by "; "),
    and, from MIMIC-IV's tables, `age` (91 stands for 90 and above at the anchor year), `sex`, and `event` (death) with
    `time` (years). Follow-up ends a year after the patient's last discharge. Event and time are NaN for patients who
    were never admitted, or whose ECG is later.
    """
    data_dir = Path(data_dir)
    records = read_published(data_dir / LIST_NAME, SOURCE, "study_id", _LIST_COLUMNS)
    table = pd.DataFrame(
        {
            "record_id": records["study_id"].astype(str),
            "patient_id": records["subject_id"].astype(str),
            "file": str(data_dir) + os.sep + records["path"],
            "ecg_time": np.datetime_as_string(records["ecg_time"].to_numpy(), unit="s"),
        }
    )
    if (data_dir / REPORTS_NAME).is_file():
        table["report"] = records["study_id"].map(_reports(data_dir / REPORTS_NAME)).fillna("")
    if patients := _hospital_table(data_dir, "patients"):
        subjects = read_published(patients, "MIMIC-IV", "subject_id", _PATIENT_COLUMNS).set_index("subject_id")
        subjects = subjects.reindex(records["subject_id"]).reset_index(drop=True)
        age = subjects["anchor_age"] + records["ecg_time"].dt.year - subjects["anchor_year"]
        table["age"] = age.clip(0, MAX_AGE_YEARS)
        sex = subjects["gender"].map({"M": "male", "F": "female"})
        table["sex"] = sex.astype(object).where(sex.notna(), None)
        if admissions := _hospital_table(data_dir, "admissions"):
            table["event"], table["time"] = _follow_up(records, subjects["dod"], admissions)
    return table


def _hospital_table(data_dir: Path, name: str) -> Path | None:
    places = (folder / f"{name}{ending}" for folder in (data_dir, data_dir / "hosp") for ending in (".csv", ".csv.gz"))
    return next((path for path in places if path.is_file()), None)


def _reports(path: Path) -> pd.Series:
    """The lines of each study's report, joined, by study."""
    lines = [f"report_{number}" for number in range(NUM_REPORT_LINES)]
    columns = {"study_id": "int64", lines[0]: "object"}
    table = read_published(path, SOURCE, "study_id", columns, dict.fromkeys(lines[1:], "object"))
    report = np.full(len(table), "", dtype=object)
    for name in table.columns.drop("study_id"):
        spelled = {line: str(line).strip().rstrip(".") for line in table[name].dropna().unique()}  # few distinct lines
        line = table[name].map(spelled).fillna("").to_numpy(dtype=object)
        said = line != ""
        before = report[said]
        report[said] = np.where(before == "", line[said], before + "; " + line[said])
    return pd.Series(report, index=table["study_id"])


def _follow_up(records: pd.DataFrame, died: pd.Series, admissions: Path) -> tuple[pd.Series, pd.Series]:
    """Death (1, 0) and years to death or the end of follow-up, by record; a death is dated to the end of its day."""
    columns = {"hadm_id": "int64", "subject_id": "int64", "dischtime": "datetime64[ns]"}
    stays = read_published(admissions, "MIMIC-IV", "hadm_id", columns)
    last = records["subject_id"].map(stays.groupby("subject_id")["dischtime"].max()) + DEATHS_KNOWN
    dead = died.notna()
    end = (died + pd.Timedelta(days=1)).where(dead, last)
    years = (end - records["ecg_time"]).dt.total_seconds() / SECONDS_PER_YEAR
    known = (years > 0) & last.notna()  # without an admission only deaths would be known, not survival
    return dead.astype(float).where(known), years.where(known)
