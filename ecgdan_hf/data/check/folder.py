"""Checks the contents of a folder before training.

An error is what training would refuse, or what would silently go wrong; a warning can be used but should be looked at.
Records are read once, in parallel; only a few numbers of each are kept.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ecgdan_hf.data.check.problems import DIFFERING_FACTOR, PROBLEMS
from ecgdan_hf.data.check.signals import SignalFindings, check_signal
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.prepared.shards import in_order
from ecgdan_hf.data.record import MAX_AGE_YEARS, EcgRecord
from ecgdan_hf.data.sources.csv_table import read_outcomes, with_zeros
from ecgdan_hf.data.sources.ecg_folder import left_out_files
from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.model.leads_ecgdan import LIMB_LEADS, canonical_leads

NUM_WORST = 24
USUAL_TYPICAL_QRS_MV = (0.4, 2.4)  # of a whole folder; 0.95 in PTB-XL, 0.75 in LUDB
MIN_RECORDS_TO_COMPARE = 20


@dataclass(frozen=True)
class FolderCheck:
    """Findings of [`check`].

    Attributes:
        facts: for `check.json`, documented at [`check`].
        worst: the readable records with the most problems, worst first: record_id and file.
    """

    facts: dict[str, Any]
    worst: list[tuple[str, RecordFile]]

    def read_worst(self) -> Iterator[tuple[str, EcgRecord]]:
        """Reads the worst records, to draw them."""
        for record_id, file in self.worst:
            yield record_id, file.read()


@dataclass
class _Seen:
    """The numbers that are kept of one record."""

    error: str = ""
    sampling_rate: float = 0.0
    duration_seconds: float = 0.0
    leads: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    findings: SignalFindings = field(default_factory=SignalFindings)


def check(
    name: str | None,
    data_dir: str | Path,
    *,
    labels: str | Path | None = None,
    limit: int | None = None,
    num_proc: int | None = None,
    read_options: Mapping[str, Any] | None = None,
) -> FolderCheck:
    """Reads every record of a folder and reports its contents and problems.

    Args:
        name: a source of `load`; None recognises it from the files.
        data_dir: its folder.
        labels: CSV of outcomes to join, as for training.
        limit: reads the first so many records only.
        num_proc: processes; default one for each core.
        read_options: `sampling_rate`, `unit`, `lead_names` for files that do not state them.

    Returns:
        `worst` and `facts`, which can be written as JSON:
        `source`; the numbers `records` (checked), `readable`, `patients`, `patients_with_several_records`,
        `age_missing`, `sex_missing`; counts by value of `folds`, `labels`, `sampling_rates` (Hz),
        `durations_seconds`, `leads` and `flags` (left out or repaired by the reader); `qrs_mv`, percentiles `p5`,
        `p50` and `p95` over records of the QRS complex, mV; `outcomes`, None or, of those with event and time, `rows`,
        `events`, `shortest_years`, `median_years`, `longest_years`; `errors` and `warnings`, the numbers of names with
        at least one; and `problems`: for each name of `PROBLEMS` that was met, errors first, its `severity`,
        `meaning`, `advice`, `count`, and `found`, the records (or rows, or folder) with the detail of each: leads, a
        number, a reason.

    Raises:
        FileNotFoundError: as `read_source`, or no such CSV of outcomes.
        ValueError: as `read_source`, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least one record, got {limit}")
    source = find_source(name, data_dir)
    whole = source.read_table(data_dir)
    outcomes, found = _check_outcomes(whole, labels)
    table = whole.iloc[:limit]
    ids = table["record_id"].astype(str).tolist()
    patients = _patients(table, outcomes)
    files = [RecordFile(file.file, {**(read_options or {}), **file.options}) for file in RecordFile.of_table(table)]
    if source.name in ("folder", "wfdb") and limit is None:
        others = {str(file.relative_to(data_dir)): why for file, why in left_out_files(data_dir).items()}
        _merge(found, {"left_out": others})
    tally = _Tally()
    for record_id, seen in zip(
        ids, tqdm(in_order(_inspect, files, num_proc), "Checking records", len(files)), strict=True
    ):
        tally.add(record_id, seen)
    _merge(found, tally.found, tally.missing_leads(), tally.amplitudes(Path(data_dir).name))
    _merge(found, _duplicates(tally.by_hash, patients), _fold_problems(table, patients))
    problems = _explained(found)
    facts = {
        "source": source.name,
        "records": len(table),
        "readable": len(table) - len(found.get("unreadable", ())),
        **_table_facts(table, patients),
        **tally.counts(),
        "outcomes": _outcome_facts(outcomes),
        "errors": _num_affected(problems, "error"),
        "warnings": _num_affected(problems, "warning"),
        "problems": problems,
    }
    return FolderCheck(facts, _worst(problems, dict(zip(ids, files, strict=True))))


class _Tally:
    """Collects findings over all records."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, str]] = defaultdict(dict)
        self.by_hash: dict[str, list[str]] = defaultdict(list)
        self._rates: Counter[str] = Counter()
        self._durations: Counter[str] = Counter()
        self._flags: Counter[str] = Counter()
        self._records_by_leads: dict[tuple[str, ...], list[str]] = defaultdict(list)
        self._qrs_mv = array("f")
        self._with_qrs: list[str] = []

    def add(self, record_id: str, seen: _Seen) -> None:
        if seen.error:
            self.found["unreadable"][record_id] = seen.error
            return
        for name, detail in seen.findings.problems.items():
            self.found[name][record_id] = detail
        self._rates[f"{seen.sampling_rate:g}"] += 1
        self._durations[f"{seen.duration_seconds:g}"] += 1
        self._flags.update(flag.split(":")[0] for flag in seen.flags)
        self._records_by_leads[seen.leads].append(record_id)
        if seen.findings.signal_hash:
            self.by_hash[seen.findings.signal_hash].append(record_id)
        if np.isfinite(seen.findings.qrs_mv):
            self._qrs_mv.append(seen.findings.qrs_mv)
            self._with_qrs.append(record_id)

    def counts(self) -> dict[str, Any]:
        leads = {", ".join(names): len(records) for names, records in self._records_by_leads.items()}
        percentiles = np.percentile(self._qrs_mv, (5, 50, 95)) if self._qrs_mv else (None,) * 3
        return {
            "sampling_rates": dict(self._rates.most_common()),
            "durations_seconds": dict(self._durations.most_common()),
            "leads": dict(Counter(leads).most_common()),
            "flags": dict(self._flags.most_common()),
            "qrs_mv": {
                name: value if value is None else round(float(value), 3)
                for name, value in zip(("p5", "p50", "p95"), percentiles, strict=True)
            },
        }

    def missing_leads(self) -> dict[str, dict[str, str]]:
        """Records that lack leads of the most frequent set."""
        if not self._records_by_leads:
            return {}
        usual = max(self._records_by_leads, key=lambda leads: len(self._records_by_leads[leads]))
        found = {}
        for leads, records in self._records_by_leads.items():
            if missing := [lead for lead in usual if _is_missing(lead, leads)]:
                found.update(dict.fromkeys(records, "+".join(missing)))
        return {"lead_missing": found}

    def amplitudes(self, folder: str) -> dict[str, dict[str, str]]:
        """Records whose amplitude differs from the others, and a folder with amplitudes unlike those of ECGs."""
        if len(self._qrs_mv) < MIN_RECORDS_TO_COMPARE:
            return {}
        sizes = np.asarray(self._qrs_mv, dtype=np.float64)
        typical = _typical(sizes)
        judged = self.found["amplitude_impossible"].keys() | self.found["amplitude_doubtful"].keys()
        differs = np.abs(np.log(np.maximum(sizes, 1e-6) / typical)) > np.log(DIFFERING_FACTOR)
        found = {
            self._with_qrs[i]: f"QRS {sizes[i]:.3g} mV, the folder's {typical:.3g} mV"
            for i in np.flatnonzero(differs)
            if self._with_qrs[i] not in judged
        }
        usual = USUAL_TYPICAL_QRS_MV[0] <= typical <= USUAL_TYPICAL_QRS_MV[1]
        return {
            "amplitude_differs": found,
            "amplitudes_unusual": {} if usual else {folder: f"QRS {typical:.3g} mV, others have about 1 mV"},
        }


def _typical(sizes: np.ndarray) -> float:
    """Median of the values in the range [x, 2 x] that holds most: of two mixed scales, the more frequent one."""
    ordered = np.sort(sizes)
    ends = np.searchsorted(ordered, 2 * ordered, side="right")
    first = int(np.argmax(ends - np.arange(len(ordered))))
    return float(np.median(ordered[first : ends[first]]))


def _inspect(file: RecordFile) -> _Seen:
    try:
        record = file.read()
        findings = check_signal(record)
    except Exception as error:  # from any decoder: one damaged file must not stop the check of 50,000
        named = error if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
        return _Seen(error=file.line(ValueError(str(named))))
    leads = tuple(canonical_leads(record.lead_names))
    return _Seen("", record.sampling_rate, round(record.duration_seconds, 1), leads, record.flags, findings)


def _check_outcomes(
    table: pd.DataFrame, labels: str | Path | None
) -> tuple[pd.DataFrame | None, dict[str, dict[str, str]]]:
    """The outcomes of the records, from the CSV or from the table itself, and their problems."""
    if labels is None:
        return (table if {"event", "time"} <= set(table.columns) else None), {}
    try:
        outcomes = read_outcomes(labels)
    except ValueError as error:
        return None, {"outcomes_refused": {Path(labels).name: str(error)}}
    ids = table["record_id"].astype(str)
    keys = with_zeros(outcomes["record_id"].astype(str), ids)
    outcomes = outcomes.assign(record_id=keys)
    here = outcomes[keys.isin(ids).to_numpy()]
    found = {
        "outcome_without_record": dict.fromkeys(keys[~keys.isin(ids)], ""),
        "record_without_outcome": dict.fromkeys(ids[~ids.isin(keys)], ""),
    }
    if "event" not in here:  # several endpoints: read and checked, not described
        return None, found
    too_long = here[here["time"] > MAX_AGE_YEARS]
    found |= {
        "time_impossible": {str(key): f"{time:g}" for key, time in too_long[["record_id", "time"]].to_numpy()},
    }
    if not (here["event"] == 1).any():
        found["outcomes_refused"] = {Path(labels).name: "no event among the records here"}
    return here, found


def _outcome_facts(outcomes: pd.DataFrame | None) -> dict[str, Any] | None:
    """Summary of the rows with follow-up, which are those used in training."""
    known = pd.DataFrame() if outcomes is None else outcomes.dropna(subset=["event", "time"])
    if known.empty:
        return None
    return {
        "rows": len(known),
        "events": int((known["event"] == 1).sum()),
        "shortest_years": float(known["time"].min()),
        "median_years": float(known["time"].median()),
        "longest_years": float(known["time"].max()),
    }


def _patients(table: pd.DataFrame, outcomes: pd.DataFrame | None) -> dict[str, str]:
    """Patient of each record; the outcomes table overrides the source, as in training."""
    patients = dict(zip(table["record_id"].astype(str), table["patient_id"].astype(str), strict=True))
    if outcomes is not None and "patient_id" in outcomes:
        told = zip(outcomes["record_id"].astype(str), outcomes["patient_id"].astype(str), strict=True)
        patients.update({record: patient for record, patient in told if record in patients})
    return patients


def _table_facts(table: pd.DataFrame, patients: dict[str, str]) -> dict[str, Any]:
    records_of = Counter(patients.values())
    folds = table["fold"].value_counts().sort_index() if "fold" in table else pd.Series(dtype=int)
    return {
        "patients": len(records_of),
        "patients_with_several_records": sum(count > 1 for count in records_of.values()),
        "age_missing": int(table["age"].isna().sum()) if "age" in table else len(table),
        "sex_missing": int(table["sex"].isna().sum()) if "sex" in table else len(table),
        "folds": {str(fold): int(count) for fold, count in folds.items()},
        "labels": _counts(table["labels"].explode().dropna()) if "labels" in table else {},
    }


def _duplicates(by_hash: dict[str, list[str]], patients: dict[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {"duplicate_of_other_patient": {}, "duplicate_of_same_patient": {}}
    for records in by_hash.values():
        if len(records) > 1:
            alone = len({patients[record] for record in records}) == 1
            name = "duplicate_of_same_patient" if alone else "duplicate_of_other_patient"
            found[name].update(dict.fromkeys(records[1:], f"as {records[0]}"))
    return found


def _fold_problems(table: pd.DataFrame, patients: dict[str, str]) -> dict[str, dict[str, str]]:
    if "fold" not in table:
        return {}
    folds = defaultdict(set)
    for record, fold in zip(table["record_id"].astype(str), table["fold"], strict=True):
        folds[patients[record]].add(fold)
    several = {record: folds[patient] for record, patient in patients.items() if len(folds[patient]) > 1}
    return {
        "patient_in_several_folds": {
            record: "folds " + ", ".join(str(fold) for fold in sorted(here)) for record, here in several.items()
        }
    }


def _explained(found: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Each problem with its explanation, count and findings (name of a record, row, file or folder -> detail)."""
    met = sorted((name for name in found if found[name]), key=list(PROBLEMS).index)
    return {name: {**asdict(PROBLEMS[name]), "count": len(found[name]), "found": found[name]} for name in met}


def _num_affected(problems: dict[str, dict[str, Any]], severity: str) -> int:
    """Number of names with at least one problem of a severity."""
    return len({name for problem in problems.values() if problem["severity"] == severity for name in problem["found"]})


def _is_missing(lead: str, leads: Iterable[str]) -> bool:
    """Whether a lead is not among `leads` and cannot be derived from two limb leads there."""
    here = set(leads)
    return lead not in here and not (lead in LIMB_LEADS and len(here & set(LIMB_LEADS)) >= 2)


def _merge(found: dict[str, dict[str, str]], *others: dict[str, dict[str, str]]) -> None:
    for name, records in chain.from_iterable(other.items() for other in others):
        found.setdefault(name, {}).update(records)


def _worst(problems: dict[str, dict[str, Any]], files: dict[str, RecordFile]) -> list[tuple[str, RecordFile]]:
    """Readable records by number of errors, then warnings; rarer problems count more."""
    badness: dict[str, float] = defaultdict(float)
    readable = files.keys() - problems.get("unreadable", {}).get("found", {}).keys()
    for name, problem in problems.items():
        weight = {"error": 100.0, "warning": 1.0}[problem["severity"]] + 1.0 / problem["count"]
        for record in readable & problem["found"].keys() if name != "record_without_outcome" else ():
            badness[record] += weight
    ranked = sorted(badness, key=lambda record: (-badness[record], record))
    return [(record, files[record]) for record in ranked[:NUM_WORST]]


def _counts(values: Iterable[Any]) -> dict[str, int]:
    return dict(Counter(str(value) for value in values).most_common())
