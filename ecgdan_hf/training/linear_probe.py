"""Linear probe: what a frozen encoder knows, read by a linear model, beside an untrained encoder and age and sex.

    ecgdan probe --checkpoint runs/pretrained --data ptb-xl --data-dir ptb-xl --train-folds 1-8 --test-folds 9 \
        --output-dir runs/probe

Classification: logistic regression for each label (scikit-learn). Survival: Cox with a ridge penalty. The penalty is
chosen by cross-validation over patients of the training part; nothing is learned from the test part. With
`--label-fractions` the same at several shares of the labels (`label_efficiency`), with `--zero-shot` without any
(`zero_shot_probe`).
"""

import time
from pathlib import Path
from typing import Any

from ecgdan_hf.evaluation.comparators.comparison import Outcome, age_sex_scores, compare, report_table
from ecgdan_hf.evaluation.protocols.held_out import (
    ATTAINABLE,
)
from ecgdan_hf.evaluation.protocols.subgroups import Found, classification_subgroups, survival_subgroups
from ecgdan_hf.evaluation.report.subgroup_text import subgroup_text
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.inference.rows import columns_of, label_matrix
from ecgdan_hf.training import zero_shot_probe
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import ProbeArguments
from ecgdan_hf.training.core.frozen_encoders import (
    MAIN,
    RANDOM,
    Probed,
    controls,
    linear_model_scores,
    probe_checkpoint,
    random_features,
)
from ecgdan_hf.training.core.run_folder import begin_run, check_run, finish_run
from ecgdan_hf.training.studies import label_efficiency

AGE_SEX = "age and sex"


def run(args: ProbeArguments) -> dict[str, Any]:
    """Fits the probes and compares them on the test part (the validation part is added to training).

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used.
    """
    started, folder = time.monotonic(), check_run(args)
    check_arguments(args)
    if args.zero_shot:
        kind, (metrics, report) = "zero-shot", zero_shot_probe.judge(args)
    elif args.label_fractions:
        kind, (metrics, report) = "label-efficiency", label_efficiency.judge(args)
    else:
        kind, (metrics, report) = "probe", judge(args)
    metrics |= {"leads": args.leads, "seconds": round(time.monotonic() - started, 1)}
    if args.leads:
        follow = "and limb leads that follow from them"
        report += f"\n\nOf the records judged, the networks were shown the leads {args.leads} ({follow}) alone."
    begin_run(folder, args)
    finish_run(folder, lambda staging: _write(staging, report), Result(kind, metrics))
    return metrics


def judge(args: ProbeArguments) -> tuple[dict[str, Any], str]:
    """The probe at one share of the labels: metrics, and the report."""
    main = probe_checkpoint(str(args.checkpoint), args)
    embedded = {MAIN: main.features, RANDOM: random_features(main, args, args.seed)}
    for name, path in controls(args, (MAIN, RANDOM, AGE_SEX)):
        embedded[name] = probe_checkpoint(path, args, like=main).features
    scores = {
        name: linear_model_scores(args, fitted, main.fit, tested, args.seed)
        for name, (fitted, tested) in embedded.items()
    }
    outcome = probed_outcome(main, args)
    columns = ["age", "sex", "event", "time", "log_hazard"]
    table = columns_of(main.test, columns)
    if {"age", "sex"} <= set(table):
        labels = None if args.task == "survival" else label_matrix(main.fit)
        scores[AGE_SEX] = age_sex_scores(columns_of(main.fit, columns), table, labels)
    if outcome.simulated:
        scores[ATTAINABLE] = table["log_hazard"].to_numpy()
    found = compare(outcome, scores, n=args.bootstrap, seed=args.seed)
    metrics = {"task": args.task, "metric": outcome.name, **outcome.counts(), "models": found}
    metrics["num_records_fitted"] = len(main.fit)
    metrics["subgroups"] = subgroups(main, scores[MAIN], args)
    title = "# Linear probe\n\n" + ("Simulated outcome.\n\n" if outcome.simulated else "")
    by_group = f"\n\n## By sex and age\n\n{subgroup_text(metrics['subgroups'], outcome.simulated)}"
    return metrics, title + report_table(outcome, found) + by_group


def subgroups(main: Probed, scores: Any, args: ProbeArguments) -> Found:
    """How the linear model on the judged encoder ranks by sex and age; a probe makes no decisions."""
    table = columns_of(main.test, ["patient_id", "age", "sex", "event", "time"])
    if args.task == "survival":
        return survival_subgroups(table, scores, n=args.bootstrap, seed=args.seed)
    names = main.test.features["labels"].feature.names
    return classification_subgroups(table, label_matrix(main.test), scores, names, None, args.bootstrap, args.seed)


def probed_outcome(main: Probed, args: ProbeArguments) -> Outcome:
    """What happened to the test records."""
    table = columns_of(main.test, ["patient_id", "event", "time", "log_hazard"])
    if args.task == "survival":
        return Outcome.survival(table, simulated="log_hazard" in table)
    return Outcome.classification(label_matrix(main.test), table["patient_id"].to_numpy())


def check_arguments(args: ProbeArguments) -> None:
    """Refuses what is missing or would be ignored.

    Raises:
        ValueError: see above.
    """
    if not args.checkpoint:
        raise ValueError("checkpoint: expected the encoder to probe, got none; give --checkpoint")
    if args.push_to_hub:
        raise ValueError("push_to_hub: a probe leaves no model to upload; leave it out")
    if args.label_fractions and args.label_fraction != 1:
        raise ValueError("label_fraction, label_fractions: expected one of the two, got both")
    if args.text_model and not args.prompts:
        raise ValueError("text_model: only prompts of your own need one; leave it out, or give --prompts")
    if args.train_folds and not args.test_folds:
        raise ValueError("test_folds: expected folds to judge on beside train_folds, got none")


def _write(staging: Path, report: str) -> None:
    (staging / "report.md").write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_as_program(ProbeArguments, run)
