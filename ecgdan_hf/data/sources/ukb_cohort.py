"""A heart failure cohort from UK Biobank's resting ECGs and a table of its fields.

Included, as in ECG-DAN (arXiv 2403.10581): participants with hypertension or a myocardial infarction on or before the
day of their ECG and without heart failure by then. Follow-up starts at the ECG and ends at the first of heart failure,
death, loss to follow-up and the end of follow-up. Messages never contain a participant's number, only counts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd

from ecgdan_hf.data.sources.csv_table import write_table
from ecgdan_hf.data.sources.ukb_fields import UkbFields
from ecgdan_hf.data.sources.ukbiobank import observation_dates, read_ukbiobank

PREVALENT = ("any", "hypertension", "myocardial-infarction", "none")
CONDITIONS = ("hypertension", "myocardial-infarction")
END_OF_FOLLOW_UP = date(2022, 10, 31)  # of England's hospital records; Scotland's and Wales's end some months earlier
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True)
class _Cohort:
    """Outcomes of the included ECGs, and the flow of exclusions.

    Attributes:
        outcomes: `record_id`, `patient_id`, `event` (1 heart failure, 0 censored), `time` (years since the ECG),
            `competing_event` (1 if death ended the follow-up), `age` (years), `sex`, `instance`.
        flow: `step`, `left_out`, `ecgs`, `participants`: who was excluded and how many remained; counts only.
        notes: further remarks, one line each; counts only.
    """

    outcomes: pd.DataFrame
    flow: pd.DataFrame
    notes: tuple[str, ...]

    def write(self, out: str | Path, competing_death: bool = False) -> Path:
        """Writes the outcomes, and the flow to `STEM_flow.csv` in the same folder; returns the file of the flow.

        With `competing_death` the event of those whose follow-up ended by death is 2, a competing cause; without, 0:
        death is censoring. Raises ValueError for a cohort without heart failure, which cannot be trained on.
        """
        out = Path(out)
        if not self.outcomes["event"].any():
            raise ValueError(f"{out}: expected heart failure in the cohort, got none in {len(self.outcomes)} ECGs")
        flow_file = out.with_name(f"{out.stem}_flow.csv")
        write_table(self.flow, flow_file)
        died = (self.outcomes["competing_event"] == 1) & competing_death
        outcomes = self.outcomes.assign(event=self.outcomes["event"].mask(died, 2))
        write_table(outcomes.drop(columns="competing_event"), out)
        return flow_file


def build(
    data_dir: str | Path,
    fields_table: str | Path,
    *,
    end_of_follow_up: date = END_OF_FOLLOW_UP,
    instance: int | None = None,
    prevalent: str = "any",
    fields: Mapping[str, str] | None = None,
    withdrawn: str | Path | None = None,
    all_ecgs: bool = False,
) -> _Cohort:
    """Builds the cohort.

    The day of an ECG is that of the visit in the table (field 53), else the one in the file. Without `all_ecgs` only a
    participant's first ECG (lowest instance, then array) is considered, so that someone with heart failure by then is
    not included by a later one.

    Args:
        data_dir: ECGs, as `ukbiobank.read_ukbiobank` takes them.
        fields_table: CSV or tab-separated; a row per participant, columns named as on the research platform
            (`p131286`, `p53_i2`, with or without `participant.`) or as in older exports (`131286-0.0`, `f.53.2.0`).
        end_of_follow_up: last day of follow-up, not in the future; a heart failure on that day counts.
        instance: uses the ECGs of this visit only.
        prevalent: the condition required on or before the ECG, one of `PREVALENT`.
        fields: other field ids for the names of `DEFAULT_FIELDS`; several, separated by commas, mean the first date.
        withdrawn: file with the number of a withdrawn participant in each line, as UK Biobank sends it.
        all_ecgs: keeps every eligible ECG of a participant.

    Raises:
        ValueError: a missing field, a value that cannot be read (with its line), or an unknown name.
    """
    chosen = UkbFields(fields or {})
    if prevalent not in PREVALENT:
        raise ValueError(f"prevalent: expected one of {', '.join(PREVALENT)}, got {prevalent!r}")
    if end_of_follow_up > date.today():  # follow-up cannot end in the future
        raise ValueError(f"end_of_follow_up: expected a day in the past, got {end_of_follow_up}")
    conditions: tuple[str, ...] = {"any": CONDITIONS, "none": ()}.get(prevalent, (prevalent,))
    ecgs = read_ukbiobank(data_dir)
    people = chosen.read(fields_table, ecgs["patient_id"], conditions, sorted(ecgs["instance"].unique()))
    flow = _Flow(ecgs)
    if withdrawn is not None:
        flow.keep(~flow.ecgs["patient_id"].isin(_read_withdrawn(withdrawn)), "participant has withdrawn")
    if instance is not None:
        flow.keep(flow.ecgs["instance"] == instance, f"not of instance {instance}")
    if not all_ecgs:
        flow.keep(~flow.ecgs["patient_id"].duplicated(), "not the participant's first ECG")
    flow.keep(flow.ecgs["patient_id"].isin(people.index), "participant is not in the table of fields")
    flow.ecgs, notes = _dated(flow.ecgs.join(people, on="patient_id"))
    ends = flow.ecgs[["death", "lost"]].assign(end=pd.Timestamp(end_of_follow_up))
    flow.ecgs = flow.ecgs.assign(last=ends.min(axis=1))
    _keep_eligible(flow, conditions)
    return _Cohort(_outcomes(flow.ecgs), flow.table(), tuple(notes))


def _read_withdrawn(path: str | Path) -> set[str]:
    """Numbers of the withdrawn participants, skipping lines without digits (a title); errors do not quote lines."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    numbers = set()
    for line_number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        bare = line.strip().strip('",;')
        if re.fullmatch(r"\d+", bare):
            numbers.add(bare)
        elif re.search(r"\d", bare):
            raise ValueError(f"{path}: line {line_number}: expected a participant's number and nothing else")
    return numbers


def _keep_eligible(flow: "_Flow", conditions: Sequence[str]) -> None:
    """Applies the criteria at the day of the ECG, in this order."""
    flow.keep(flow.ecgs["day"].notna(), "day of the ECG is unknown")
    flow.keep(~flow.ecgs["heart-failure unknown"], "heart failure at an unknown time")
    flow.keep(~(flow.ecgs["heart-failure"] <= flow.ecgs["day"]), "heart failure on or before the day of the ECG")
    if conditions:
        found = [(flow.ecgs[name] <= flow.ecgs["day"]) | flow.ecgs[f"{name} before"] for name in conditions]
        words = " or ".join(name.replace("-", " ") for name in conditions)
        flow.keep(pd.concat(found, axis=1).any(axis=1), f"no {words} on or before the day of the ECG")
    flow.keep(flow.ecgs["last"] > flow.ecgs["day"], "no follow-up after the day of the ECG")


class _Flow:
    """The ECGs that remain, and a row for each exclusion."""

    def __init__(self, ecgs: pd.DataFrame) -> None:
        self.ecgs = ecgs
        self.rows = [("ECGs found", 0, len(ecgs), ecgs["patient_id"].nunique())]

    def keep(self, good: pd.Series, reason: str) -> None:
        """Keeps the good ones; `reason` says why the others are excluded."""
        self.ecgs = self.ecgs[good]
        self.rows.append((reason, int((~good).sum()), len(self.ecgs), self.ecgs["patient_id"].nunique()))

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=["step", "left_out", "ecgs", "participants"])


def _dated(ecgs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Adds `day`, of the visit or else of the file, and the `age` that day; returns notes if the two days differ."""
    of_file = pd.to_datetime(pd.Series(observation_dates(ecgs), index=ecgs.index, dtype=object), errors="coerce")
    of_visit, age = (_of_instance(ecgs, name) for name in ("date", "age"))
    of_visit = pd.to_datetime(of_visit)
    day = of_visit.fillna(of_file)
    since_birth = (day - ecgs["born"]).dt.days / DAYS_PER_YEAR
    differ = int((of_visit.notna() & of_file.notna() & (of_visit != of_file)).sum())
    alone = int((of_visit.isna() & of_file.notna()).sum())
    notes = [f"{differ} ECGs whose file says another day than the visit; the visit's was taken"] if differ else []
    notes += [f"{alone} ECGs without a day of the visit; their file's was taken"] if alone else []
    return ecgs.assign(day=day, age=since_birth.fillna(age.astype(float)).round(2)), notes


def _of_instance(ecgs: pd.DataFrame, name: str) -> pd.Series:
    """The column `NAME INSTANCE` of each ECG's own instance."""
    values = pd.Series(None, index=ecgs.index, dtype=object)
    for number, rows in ecgs.groupby("instance"):
        values[rows.index] = rows[f"{name} {number}"]
    return values


def _outcomes(ecgs: pd.DataFrame) -> pd.DataFrame:
    """Heart failure on the last day counts, because death certificates are among its sources."""
    event = ecgs["heart-failure"] <= ecgs["last"]
    end = ecgs["heart-failure"].where(event, ecgs["last"])
    return pd.DataFrame(
        {
            "record_id": ecgs["record_id"],
            "patient_id": ecgs["patient_id"],
            "event": event.astype(int),
            "time": ((end - ecgs["day"]).dt.days / DAYS_PER_YEAR).round(6),
            "competing_event": (~event & (ecgs["death"] == ecgs["last"])).astype(int),
            "age": ecgs["age"],
            "sex": ecgs["sex"],
            "instance": ecgs["instance"],
        }
    ).reset_index(drop=True)
