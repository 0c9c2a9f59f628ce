"""Linear probe of a frozen encoder, compared with a randomly initialised encoder and with age and sex.

    ecgdan probe --checkpoint runs/pretrained --data ptb-xl --data-dir ptb-xl --train-folds 1-8 --test-folds 9 \
        --output-dir runs/probe

Classification: logistic regression for each label (scikit-learn). Survival: Cox with a ridge penalty. The penalty is
chosen by cross-validation over patients of the training part; nothing is learned from the test part. `ecgdan
probe` runs `studies.label_efficiency` with `--label-fractions`, and `zero_shot_probe` with `--zero-shot`.
"""

from typing import Any

from ecgdan_hf.evaluation.comparators.comparison import Outcome, age_sex_scores
from ecgdan_hf.evaluation.protocols.held_out import ATTAINABLE
from ecgdan_hf.evaluation.protocols.subgroups import Found, classification_subgroups, survival_subgroups
from ecgdan_hf.evaluation.report.comparison_text import comparison_table
from ecgdan_hf.evaluation.report.subgroup_text import subgroup_text
from ecgdan_hf.inference.rows import columns_of, label_matrix
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import ProbeArguments
from ecgdan_hf.training.core.frozen_encoders import MAIN, RANDOM, Probed, load_controls, run_probe

_AGE_SEX = "age and sex"


def linear_probe(args: ProbeArguments) -> dict[str, Any]:
    """Fits linear models on the training and validation part, and compares them on the test part.

    Returns:
        The content of `metrics.json`.
    """
    for name, module in (("zero_shot", "zero_shot_probe"), ("label_fractions", "studies.label_efficiency")):
        if getattr(args, name):
            raise ValueError(f"{name}: is run by `ecgdan probe` or ecgdan_hf.training.{module}")
    return run_probe(args, "probe", _compare_encoders)


def _compare_encoders(args: ProbeArguments) -> tuple[dict[str, Any], str]:
    """Returns the metrics and the report."""
    main = Probed.load(str(args.checkpoint), args)
    embedded = {MAIN: main.features, RANDOM: main.random_features(args.seed)}
    for name, control in load_controls(args, Probed.load, main, (MAIN, RANDOM, _AGE_SEX)):
        embedded[name] = control.features
    scores = {name: main.linear_scores(features) for name, features in embedded.items()}
    outcome = _outcome(main, args)
    columns = ["age", "sex", "event", "time", "entry", "log_hazard"]
    table = columns_of(main.test, columns)
    if {"age", "sex"} <= set(table):
        labels = None if args.task == "survival" else label_matrix(main.fit)
        scores[_AGE_SEX] = age_sex_scores(columns_of(main.fit, columns), table, labels)
    if outcome.simulated:
        scores[ATTAINABLE] = table["log_hazard"].to_numpy()
    found = outcome.compare(scores, n=args.bootstrap, seed=args.seed)
    metrics = {"task": args.task, "metric": outcome.name, **outcome.counts(), "models": found}
    metrics["num_records_fitted"] = len(main.fit)
    metrics["subgroups"] = _subgroups(main, scores[MAIN], args)
    title = "# Linear probe\n\n" + ("Simulated outcome.\n\n" if outcome.simulated else "")
    by_group = f"\n\n## By sex and age\n\n{subgroup_text(metrics['subgroups'], outcome.simulated)}"
    return metrics, title + comparison_table(metrics) + by_group


def _subgroups(main: Probed, scores: Any, args: ProbeArguments) -> Found:
    """The metric of the evaluated encoder by sex and age, without decisions, which a probe does not make."""
    table = columns_of(main.test, ["patient_id", "age", "sex", "event", "time", "entry"])
    if args.task == "survival":
        return survival_subgroups(table, scores, n=args.bootstrap, seed=args.seed)
    names = main.test.features["labels"].feature.names
    return classification_subgroups(table, label_matrix(main.test), scores, names, None, args.bootstrap, args.seed)


def _outcome(main: Probed, args: ProbeArguments) -> Outcome:
    """The outcome of the test records."""
    table = columns_of(main.test, ["patient_id", "event", "time", "entry", "log_hazard"])
    if args.task == "survival":
        return Outcome.survival(table, simulated="log_hazard" in table)
    return Outcome.classification(label_matrix(main.test), table["patient_id"].to_numpy())


if __name__ == "__main__":
    run_as_program(ProbeArguments, linear_probe)
