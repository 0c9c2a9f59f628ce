"""Plasmode: follow-up simulated on real ECGs from a known hazard, so that the attainable concordance is known.

Real recordings with simulated outcomes (Franklin et al., Comput Stat Data Anal 72:219, 2014), so that a model can be
compared with the best possible one. Such numbers say nothing about patients and must be called simulated.

The hazard is proportional, Weibull in time: S(t | x) = exp(-exp(log_hazard(x)) (t / scale) ** shape).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ecgdan_hf.data.record import scp_likelihoods

# Codes of diagnostic_class MI and STTC in PTB-XL's scp_statements.csv, so that outcomes need no second file.
MI_CODES = (
    "IMI", "ASMI", "ILMI", "AMI", "ALMI", "INJAS", "LMI", "INJAL", "IPLMI", "IPMI", "INJIN", "INJLA", "PMI", "INJIL",
)  # fmt: skip
STTC_CODES = (
    "NDT", "NST_", "DIG", "LNGQT", "ISC_", "ISCAL", "ISCIN", "ISCIL", "ISCAS", "ISCLA", "ANEUR", "EL", "ISCAN",
)  # fmt: skip

# log hazard ratio of each group: present when any of its codes is stated, at any likelihood
STATEMENT_LOG_HAZARDS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("AFIB",), 1.2),
    (("CLBBB",), 1.2),
    (("CRBBB",), 0.8),
    (("LVH",), 1.0),
    (MI_CODES, 1.0),
    (STTC_CODES, 0.8),
)
HIDDEN_SD = 1.0
"""Standard deviation of the unrecorded part of the log hazard, in the scenario "invisible"."""

SCENARIOS = {
    "default": "age, sex and what the ECG shows, 20 % events",
    "invisible": "age, sex and something that no ECG shows, 20 % events: nobody can beat age and sex",
    "rare": "as the default, 2 % events",
}
EVENT_RATES = {"default": 0.2, "invisible": 0.2, "rare": 0.02}
AGE_LOG_HAZARD_PER_DECADE = 0.2
MALE_LOG_HAZARD = 0.2
MAX_AGE_YEARS = 95.0  # PTB-XL codes "over 89" as 300
MISSING_AGE_YEARS = 60.0


def simulate(
    table: pd.DataFrame,
    seed: int,
    *,
    scenario: str = "default",
    event_rate: float | None = None,
    shape: float = 1.2,
    follow_up_years: float = 10.0,
    entry_censored: float = 0.25,
) -> pd.DataFrame:
    """Simulates one follow-up for each record.

    Scenarios: "default", hazards of age, sex and the SCP statements, log hazard = 0.2 (age - 60) / 10 + 0.2 male + 1.2
    AFIB + 1.2 CLBBB + 0.8 CRBBB + 1.0 LVH + 1.0 any MI + 0.8 any STTC; "invisible", hazards of age, sex and a normal
    variable that is not recorded, so that no ECG model can be better than age and sex; "rare", the default's hazards
    with few events.

    Args:
        table: a table of this package, or PTB-XL's `ptbxl_database.csv` (`ecg_id`, `sex` 0 = male, `scp_codes` as a
            Python literal).
        seed: of the random draws; the same seed gives the same outcomes on every platform.
        scenario: one of `SCENARIOS`.
        event_rate: share of records with an observed event; the time scale is set to meet it. Default: 0.02 where
            events are rare, else 0.2.
        shape: Weibull shape.
        follow_up_years: administrative censoring.
        entry_censored: share of subjects who entered late and are censored uniformly within the follow-up.

    Returns:
        Columns `record_id, patient_id, event (0 or 1), time (years, > 0), log_hazard` (the recorded part of the true
        one).

    Raises:
        ValueError: an unknown scenario, a column is missing, or an argument is out of range.
    """
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario: expected one of {', '.join(SCENARIOS)}, got {scenario!r}")
    log_hazard = _age_sex_log_hazard(table) if scenario == "invisible" else _true_log_hazard(table)
    event, time = follow_up(
        log_hazard + (_hidden_log_hazard(len(table), seed) if scenario == "invisible" else 0.0),
        seed,
        event_rate=EVENT_RATES[scenario] if event_rate is None else event_rate,
        shape=shape,
        follow_up_years=follow_up_years,
        entry_censored=entry_censored,
    )
    ids = table["record_id"] if "record_id" in table else table["ecg_id"].astype(int)
    patients = table["patient_id"]
    if pd.api.types.is_float_dtype(patients):
        patients = patients.astype(int)
    columns = {"record_id": ids.astype(str), "patient_id": patients.astype(str)}
    outcomes = pd.DataFrame({**columns, "event": event, "time": time, "log_hazard": log_hazard})
    return outcomes.reset_index(drop=True)


def _true_log_hazard(table: pd.DataFrame) -> np.ndarray:
    """(n,), relative to a woman of 60 without any of the statements; see [`simulate`]."""
    absent = [column for column in ("age", "sex", "scp_codes") if column not in table.columns]
    if absent:
        raise ValueError(
            f"table: simulated follow-up needs the columns age, sex and scp_codes, missing {', '.join(absent)}"
        )
    codes = [set(scp_likelihoods(value)) for value in table["scp_codes"]]
    log_hazard = _age_sex_log_hazard(table)
    for group, coefficient in STATEMENT_LOG_HAZARDS:
        log_hazard += coefficient * np.array([not present.isdisjoint(group) for present in codes], dtype=np.float64)
    return log_hazard


def _hidden_log_hazard(count: int, seed: int) -> np.ndarray:
    """The unrecorded part of the log hazard, (count,), normal; drawn independently of the times."""
    return HIDDEN_SD * np.random.Generator(np.random.PCG64([seed, 1])).standard_normal(count)


def _age_sex_log_hazard(table: pd.DataFrame) -> np.ndarray:
    """The part of the true log hazard that needs no ECG, (n,): the baseline of any model."""
    age = table["age"].astype(float).fillna(MISSING_AGE_YEARS).clip(upper=MAX_AGE_YEARS).to_numpy()
    male = table["sex"].isin(["male", 0]).to_numpy(dtype=np.float64)
    return AGE_LOG_HAZARD_PER_DECADE * (age - 60.0) / 10.0 + MALE_LOG_HAZARD * male


def follow_up(
    log_hazard: np.ndarray,
    seed: int | Sequence[int],
    *,
    event_rate: float = 0.2,
    shape: float = 1.2,
    follow_up_years: float = 10.0,
    entry_censored: float = 0.25,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws event (n,) of 0 and 1, and time (n,) years > 0, for log hazards (n,); other arguments as in [`simulate`].

    The Weibull scale is the one at which exactly `event_rate` of the subjects (rounded down) have their event before
    they are censored, so that every seed has the same number of events. Raises ValueError for arguments out of range.
    """
    if not 0 < event_rate < 1 or not 0 <= entry_censored <= 1:
        raise ValueError(f"event_rate, entry_censored: expected shares below 1, got {event_rate}, {entry_censored}")
    if shape <= 0 or follow_up_years <= 0:
        raise ValueError(f"shape, follow_up_years: expected values above zero, got {shape}, {follow_up_years}")
    count = len(log_hazard)
    events = int(event_rate * count)
    if events == 0:
        raise ValueError(f"event_rate: {event_rate} of {count} records is not one event; give more records")
    rng = np.random.Generator(np.random.PCG64(seed))  # explicit, so that a new default of numpy changes nothing
    unit_time = (-np.log1p(-rng.random(count)) / np.exp(log_hazard)) ** (1.0 / shape)
    late = rng.random(count) < entry_censored
    censoring = np.where(late, follow_up_years * (1.0 - rng.random(count)), follow_up_years)  # in (0, follow-up]
    # a subject has its event if scale <= censoring / unit_time: the scale is between the limits of two subjects
    limits = np.sort(censoring / unit_time)[::-1]
    scale = float(np.sqrt(limits[events - 1] * limits[events]))
    time = np.minimum(scale * unit_time, censoring)
    event = (scale * unit_time <= censoring).astype(np.int64)
    return event, np.maximum(np.round(time, 6), 1e-6)  # about half a minute: text reads back to the same value
