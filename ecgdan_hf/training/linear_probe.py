"""Linear probe: what a frozen encoder knows, read by a linear model, beside an untrained encoder and age and sex.

    ecgdan probe --checkpoint runs/pretrained --data ptb-xl --data-dir ptb-xl --train-folds 1-8 --test-folds 9 \
        --output-dir runs/probe

Classification: logistic regression for each label (scikit-learn). Survival: Cox with a ridge penalty. The penalty is
chosen by cross-validation over patients of the training part; nothing is learned from the test part.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from ecgdan_hf.evaluation.baselines import random_encoder
from ecgdan_hf.evaluation.checkpoints import load_checkpoint
from ecgdan_hf.evaluation.comparison import Outcome, age_sex_scores, compare, report_table
from ecgdan_hf.evaluation.protocol import ATTAINABLE, label_matrix, linear_scores
from ecgdan_hf.training import rows
from ecgdan_hf.training.arguments import ProbeArguments
from ecgdan_hf.training.command import run_as_program
from ecgdan_hf.training.run_folder import begin_run, check_run, finish_run

MAIN, RANDOM, AGE_SEX = "this encoder, linear", "random encoder, linear", "age and sex"


def run(args: ProbeArguments) -> dict[str, Any]:
    """Fits the probes and compares them on the test part (the validation part is added to training).

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used.
    """
    started, folder = time.monotonic(), check_run(args)
    check_arguments(args)
    model, feature_extractor = load_checkpoint(str(args.checkpoint))
    dataset = rows.load_dataset(args, feature_extractor, outcomes=args.labels, label_level=args.label_level)
    survival = args.task == "survival"
    wanted = "event" if survival else "labels"
    if wanted not in dataset.column_names:
        raise ValueError(f"labels: {args.task} needs a column {wanted}, the data have none")
    fit, test = fit_and_test(dataset, args, "event" if survival else None)
    if not survival:
        fit, test = (
            part.remove_columns([c for c in ("event", "time") if c in part.column_names]) for part in (fit, test)
        )
    encoders = {MAIN: model, RANDOM: random_encoder(model.config, args.seed)}
    scores = {
        name: linear_scores(encoder, fit, test, args.batch_size, args.seed) for name, encoder in encoders.items()
    }
    columns = ["patient_id", "age", "sex", "event", "time", "log_hazard"]
    table = rows.read_table(test, columns)
    simulated = survival and "log_hazard" in table
    if {"age", "sex"} <= set(table):
        labels = None if survival else label_matrix(fit)
        scores[AGE_SEX] = age_sex_scores(rows.read_table(fit, columns), table, labels)
    if simulated:
        scores[ATTAINABLE] = table["log_hazard"].to_numpy()
    patients = table["patient_id"].to_numpy()
    outcome = Outcome.survival(table, simulated) if survival else Outcome.classification(label_matrix(test), patients)
    found = compare(outcome, scores, n=args.bootstrap, seed=args.seed)
    metrics = {"task": args.task, "metric": outcome.name, **outcome.counts(), "models": found}
    metrics |= {"num_records_fitted": len(fit), "seconds": round(time.monotonic() - started, 1)}
    report = "# Linear probe\n\n" + ("Simulated outcome.\n\n" if simulated else "") + report_table(outcome, found)
    begin_run(folder, args)
    finish_run(folder, lambda staging: _write(staging, report), metrics)
    return metrics


def _write(staging: Path, report: str) -> None:
    (staging / "report.md").write_text(report + "\n", encoding="utf-8")


def check_arguments(args: ProbeArguments) -> None:
    """Refuses what is missing or would be ignored.

    Raises:
        ValueError: see above.
    """
    if args.task not in ("survival", "classification"):
        raise ValueError(f"task: expected survival or classification, got {args.task!r}")
    if not args.checkpoint:
        raise ValueError("checkpoint: expected the encoder to probe, got none; give --checkpoint")
    if args.push_to_hub:
        raise ValueError("push_to_hub: a probe leaves no model to upload; leave it out")
    if args.task == "classification" and args.labels:
        raise ValueError("labels: only task survival uses it, got task classification; leave it out")
    if args.label_level is not None and (args.task == "survival" or args.data != "ptb-xl"):
        raise ValueError("label_level: only classification on ptb-xl uses it; leave it out")
    if args.train_folds and not args.test_folds:
        raise ValueError("test_folds: expected folds to judge on beside train_folds, got none")


def fit_and_test(dataset: Any, args: ProbeArguments, stratify_by: str | None) -> tuple[Any, Any]:
    """Training rows, those that would choose an epoch included, and test rows."""
    parts = rows.split(dataset, args, stratify_by)
    fitted = set(parts.train["record_id"]) | set(parts.valid["record_id"])
    keep = np.flatnonzero([record in fitted for record in dataset["record_id"]])
    return dataset.select(keep), parts.test


if __name__ == "__main__":
    run_as_program(ProbeArguments, run)
