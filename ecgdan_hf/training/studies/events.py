"""Concordance against the number of events: what a frozen encoder, measurements, and age and sex are worth.

    ecgdan study events --checkpoint runs/encoder --control "shuffled texts=runs/shuffled" --data-dir ptb-xl \
        --folds 6-9 --output-dir runs/events

Follow-up is simulated on real ECGs from known hazards (`data.simulate.plasmode`), and scores are judged against the
hazard itself and not against the luck of a few test outcomes. Each repetition splits the patients 60 to 40 and draws
follow-up with a given number of training events. The encoder must have been pretrained on other patients. A finished
cell (hazard, number of events) is not repeated. All numbers are simulated and say nothing about patients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.measure.table import measure_table
from ecgdan_hf.data.record import scp_likelihoods
from ecgdan_hf.data.simulate.plasmode import follow_up, simulate
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.evaluation.comparators.baselines import random_encoder
from ecgdan_hf.evaluation.comparators.evidence_cox import EvidenceCox, Scaling
from ecgdan_hf.evaluation.comparators.measurement_cox import MeasurementCox
from ecgdan_hf.evaluation.folds import check_unseen, parse_folds, select_folds
from ecgdan_hf.evaluation.measures.concordance import expected_concordance
from ecgdan_hf.evaluation.measures.intervals import FloatArray
from ecgdan_hf.evaluation.report.events_report import events_figure, events_report
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.files import locked_folder, write_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import Head
from ecgdan_hf.inference.rows import columns_of, embed
from ecgdan_hf.training.arguments.fields import EventsArguments, ProbeArguments
from ecgdan_hf.training.arguments.options import check_options
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.few_events import FewEventsHead
from ecgdan_hf.training.core.run_folder import RunFolder

HAZARDS = {
    "default": "age, sex and groups of statements",
    "measured": "age, sex and quantities that the measurements hold",
    "signal": "age, sex and statistics of the signal that nobody measures",
    "statements": "age, sex and a random log hazard ratio for each statement",
    "nothing": "age, sex and something that no ECG shows",
}
LANGUAGE, RANDOM, AGE_SEX = "language embedding", "random encoder", "age and sex"
MEASURED, BOTH, PROMPTS = "ECG measurements", "measurements + embedding", "prompt logits"
FIXED = "15 flags, fixed penalty"
ATTAINABLE = "attainable (true hazard)"
_MEASURED_LOG_HAZARDS = {"heart_rate_bpm": 0.3, "qrs_ms": 0.4, "qtc_fridericia_ms": 0.3, "sokolow_lyon_mv": 0.3,
                         "st_lowest_mv": -0.3, "qrs_t_angle_deg": 0.3}  # fmt: skip
_SPLIT, _SIGNAL_SD, _STATEMENT_SD, _COMMON = 0.6, 0.4, 1.0, 20
_OLD_PENALIZER = 1e-3  # that of comparators before their penalties were chosen by evidence
_DRAWS = 10  # of test outcomes behind a calibration slope
_FLAT = 10.0  # prior SD of that slope, per SD of the score: next to none


@dataclass(frozen=True)
class _Cohort:
    """The records, row for row.

    Attributes:
        table: subjects, statements and measurements.
        age_sex: (n, 2), standardised, 0 where unknown.
        measured: (n, measurements), without missing values.
        embeddings: name -> (n, width).
        statistics: (n, statistics) of the signal, standardised.
    """

    table: pd.DataFrame
    age_sex: FloatArray
    measured: FloatArray
    embeddings: dict[str, FloatArray]
    statistics: FloatArray

    @classmethod
    def load(cls, args: EventsArguments) -> "_Cohort":
        """Reads the records of the folds, measures them and embeds them by every encoder."""
        folds, found, table, statistics = parse_folds(args.folds, "folds"), {}, None, None
        shared = {name: getattr(args, name) for name in ("data", "data_dir", "cache_dir", "num_proc", "skip_bad")}
        for name, path in {LANGUAGE: args.checkpoint, **args.control}.items():
            check_unseen(str(path), folds, args.data_dir)
            model, extractor = load_checkpoint(str(path))
            dataset = select_folds(rows.load_dataset(ProbeArguments(**shared), extractor), folds)
            if table is None:
                columns = ["record_id", "patient_id", "age", "sex", "scp_codes"]
                table, statistics = columns_of(dataset, columns), _signal_statistics(dataset)
                found[RANDOM] = embed(random_encoder(Head.encoder_of(model).config, args.seed), dataset)
            found[name] = embed(model, dataset)
            if name == LANGUAGE and getattr(model.config, "prompt_labels", None):
                found[PROMPTS] = _prompt_logits(model, found[name])
        assert table is not None and statistics is not None
        files = read_source(args.data, str(args.data_dir))
        files = files[files["record_id"].astype(str).isin(set(table["record_id"]))]
        measured = measure_table(files, num_proc=args.num_proc, cache_dir=args.cache_dir)
        table = MeasurementCox.joined(table, measured)
        return cls(table, *MeasurementCox.predictors(table), found, statistics)


def _signal_statistics(dataset: Any) -> FloatArray:
    """Kurtosis, share of fast change, autocorrelation and share of the power of a lead: (n, 4), standardised."""
    parts = []
    for batch in dataset.with_format("numpy", columns=["input_values"]).iter(batch_size=256):
        signal = np.asarray(batch["input_values"], dtype=np.float64)
        signal = signal - signal.mean(-1, keepdims=True)
        power = (signal**2).mean(-1) + 1e-12  # (n, leads)
        change = (np.diff(signal, axis=-1) ** 2).mean(-1) / power
        lag = (signal[..., 12:] * signal[..., :-12]).mean(-1) / power
        columns = (signal**4).mean(-1)[:, 7] / power[:, 7] ** 2, change[:, 10], lag[:, 1], power[:, 6] / power.sum(-1)
        parts.append(
            np.stack([np.log(columns[0]), np.log(columns[1] + 1e-9), columns[2], np.log(columns[3] + 1e-9)], 1)
        )
    found = np.concatenate(parts)
    result: FloatArray = (found - found.mean(axis=0)) / found.std(axis=0)
    return result


def _prompt_logits(model: Any, embeddings: FloatArray) -> FloatArray:
    """(n, prompts), of the prompts that a pretrained checkpoint carries."""
    import torch

    with torch.inference_mode():
        projected = model.alignment_head.project_ecg(torch.from_numpy(embeddings).float().to(model.device))
        found: FloatArray = model.alignment_head.prompt_logits(projected).double().cpu().numpy()
    return found


def study_events(args: EventsArguments, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Runs what is missing of the study; writes `cells/`, `report.md`, `metrics.json` and `events.png`.

    Args:
        args: encoders, data, hazards, numbers of events and repetitions.
        say: called with a line when something begins.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, or an encoder that was pretrained on these patients.
    """
    folder, cells = _check(args)
    with locked_folder(folder):
        cohort = _Cohort.load(args)
        tables = []
        for hazard, events in cells:
            path = folder / "cells" / f"{hazard}-{events}.csv"
            if not path.is_file():
                say(f"{hazard}, {events} events: {args.repetitions} repetitions")
                found = [_repetition(cohort, hazard, events, args.seed + each) for each in range(args.repetitions)]
                write_text(path, pd.concat(found).to_csv(index=False, float_format="%.6g"))
            tables.append(pd.read_csv(path).assign(hazard=hazard, events=events))
        table = pd.concat(tables, ignore_index=True)
        metrics = {"metric": "expected_concordance", "simulated_outcome": True, "repetitions": args.repetitions,
                   "num_records": len(cohort.table), "num_patients": int(cohort.table["patient_id"].nunique()),
                   "models": _summary(table), "hazards": HAZARDS, **RunFolder.environment()}  # fmt: skip

        def write(staging: Path) -> None:
            write_text(staging / "report.md", events_report(table, metrics, MEASURED) + "\n")
            events_figure(table, next(iter(args.hazards.split(",")))).savefig(staging / "events.png", dpi=150)

        RunFolder(folder).finish(write, Result("events", metrics))
    return metrics


def _check(args: EventsArguments) -> tuple[Path, list[tuple[str, int]]]:
    """The folder, and the cells: hazards by numbers of events."""
    check_options(args)
    for name in ("checkpoint", "data_dir", "output_dir"):
        if not getattr(args, name):
            raise ValueError(f"{name}: expected one, got none; give --{name.replace('_', '-')}")
    hazards = [name.strip() for name in args.hazards.split(",")]
    unknown = [name for name in hazards if name not in HAZARDS]
    if unknown:
        raise ValueError(f"hazards: expected some of {', '.join(HAZARDS)}, got {unknown[0]}")
    try:
        counts = [int(text) for text in args.events.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 2 or args.repetitions < 2:
        raise ValueError(f"events, repetitions: expected numbers from 2, got {args.events} and {args.repetitions}")
    return Path(str(args.output_dir)), [(hazard, count) for hazard in hazards for count in counts]


def _true_log_hazards(cohort: _Cohort, hazard: str, seed: int) -> tuple[FloatArray, FloatArray]:
    """The part of the log hazard that the records show, and the whole of it: (n,) each."""
    rng = np.random.default_rng([seed, 7])
    scenario = "default" if hazard == "default" else "invisible"
    shown = simulate(cohort.table, 0, scenario=scenario)["log_hazard"].to_numpy(dtype=np.float64)
    if hazard == "measured":
        values = cohort.table[list(_MEASURED_LOG_HAZARDS)].astype(float)
        values = ((values - values.mean()) / values.std()).clip(-3, 3).fillna(0.0)
        shown = shown + values.to_numpy() @ np.array(list(_MEASURED_LOG_HAZARDS.values()))
    elif hazard == "signal":
        shown = shown + cohort.statistics.clip(-3, 3) @ np.full(cohort.statistics.shape[1], _SIGNAL_SD)
    elif hazard == "statements":
        present = [set(scp_likelihoods(value)) for value in cohort.table["scp_codes"]]
        codes = sorted({code for each in present for code in each})
        hot = np.array([[code in each for code in codes] for each in present], dtype=np.float64)
        hot = hot[:, hot.sum(axis=0) >= _COMMON]
        shown = shown + hot @ rng.normal(0, _STATEMENT_SD, hot.shape[1])
    return shown, shown + rng.normal(size=len(shown)) if hazard == "nothing" else shown


def _repetition(cohort: _Cohort, hazard: str, events: int, seed: int) -> pd.DataFrame:
    """One row a method: expected concordance and calibration slope on the patients that were not fitted to."""
    shown, whole = _true_log_hazards(cohort, hazard, seed)
    patients = np.unique(cohort.table["patient_id"])
    fitted = np.random.default_rng([seed, 1]).permutation(patients)[: int(_SPLIT * len(patients))]
    train = cohort.table["patient_id"].isin(set(fitted)).to_numpy()
    share = (events + 0.5) / train.sum()
    event, time = follow_up(whole[train], seed, event_rate=share)
    scores = _scores(cohort, train, event.astype(float), time)
    found = [
        {
            "repetition": seed,
            "method": name,
            "concordance": expected_concordance(shown[~train], score[~train], share),
            "slope": _slope(whole[~train], score[~train], share, seed),
        }
        for name, score in {**scores, ATTAINABLE: shown}.items()
    ]
    return pd.DataFrame(found)


def _scores(cohort: _Cohort, train: np.ndarray, event: FloatArray, time: FloatArray) -> dict[str, FloatArray]:
    """Log hazards of all records by every method, fitted to the training records: (n,) each."""
    known, outcome = cohort.age_sex, (event, time)

    def by_evidence(block: FloatArray, standardise: bool) -> FloatArray:
        features = np.hstack([known, block])
        scaling = Scaling.of(features[train], known.shape[1], standardise)
        fitted = EvidenceCox.fit(features[train], *outcome, known.shape[1], scaling=scaling)
        return fitted.log_hazard(features)

    found = {AGE_SEX: by_evidence(np.empty((len(train), 0)), True)}
    table = cohort.table.loc[train].reset_index(drop=True).assign(event=event.astype(int), time=time)
    fixed = MeasurementCox.fit(table, "flags", age_and_sex=True, penalizer=_OLD_PENALIZER)
    found[FIXED] = fixed.log_hazard(cohort.table)
    found[MEASURED] = by_evidence(cohort.measured, True)
    for name, embedding in cohort.embeddings.items():
        head = FewEventsHead.fit(embedding[train], known[train], *outcome)
        found[name] = head.log_hazard(embedding, known)
        if name == LANGUAGE:
            blocks = head.components(embedding), (cohort.measured - cohort.measured.mean(0)) / cohort.measured.std(0)
            equal = [block / np.sqrt(block[train].var(axis=0).sum()) for block in blocks]
            found[BOTH] = by_evidence(np.hstack(equal), False)
    return found


def _slope(truth: FloatArray, score: FloatArray, share: float, seed: int) -> float:
    """Calibration slope of a score over several draws of the test outcomes; NaN for a constant score."""
    if np.ptp(score) == 0:
        return float("nan")
    event, time = follow_up(np.tile(truth, _DRAWS), [seed, 2], event_rate=max(share, 2 / len(truth)))
    fitted = EvidenceCox.fit(np.tile(score, _DRAWS)[:, None], event, time, prior_sds=[_FLAT])
    return float(fitted.per_sd[0] / fitted.scaling.sd[0])


def _summary(table: pd.DataFrame) -> dict[str, Any]:
    """hazard -> events -> method -> mean, difference to the measurements with 1.96 standard errors, and slope."""
    found: dict[str, Any] = {}
    cells: Any = table.groupby(["hazard", "events"], sort=False)
    for (hazard, events), cell in cells:
        wide = cell.pivot(index="repetition", columns="method", values="concordance")
        slopes = cell.groupby("method")["slope"].median()
        found.setdefault(str(hazard), {})[int(events)] = {
            name: _of_method(wide, name) | {"median_slope": float(slopes[name])} for name in cell["method"].unique()
        }
    return found


def _of_method(wide: pd.DataFrame, name: str) -> dict[str, float]:
    found = {"concordance": float(wide[name].mean()), "sd": float(wide[name].std(ddof=1))}
    for other in (MEASURED, RANDOM):
        ahead = wide[name] - wide[other]
        found |= {
            f"ahead of {other}": float(ahead.mean()),
            f"ahead of {other}, 1.96 se": float(1.96 * ahead.std(ddof=1) / np.sqrt(len(ahead))),
        }
    return found
