"""Label efficiency: the linear probe at several shares of the labels, compared with random encoders.

    ecgdan probe --label-fractions 0.01,0.1,1 --seeds 5 --checkpoint runs/pretrained --data ptb-xl \
        --data-dir ptb-xl --train-folds 1-8 --test-folds 9 --output-dir runs/label-efficiency

Each seed draws patients (whole ones, the smaller share inside the larger) and an untrained encoder of its own; every
encoder is fitted on the same patients. No epoch is chosen, so the stated share is all the labels that are used: the
validation part counts as training. Two spreads are reported, because they answer different questions: over seeds, how
much depends on which patients were labelled; over resampled test patients, how well these test records tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgdan_hf.evaluation.measures.classification import macro_auroc
from ecgdan_hf.evaluation.measures.intervals import bootstrap_difference, bootstrap_interval
from ecgdan_hf.inference.rows import label_matrix
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import ProbeArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.frozen_encoders import MAIN, RANDOM, Features, Probed, load_controls, run_probe


@dataclass(frozen=True)
class _Draw:
    """Training rows of one seed at one share, and the labels that have no positive or no negative among them."""

    rows: np.ndarray
    num_patients: int
    not_learned: list[str]


def label_efficiency(args: ProbeArguments) -> dict[str, Any]:
    """Fits a linear model for each share of the labels, seed and encoder, and compares them on the test part.

    Returns:
        The content of `metrics.json`.
    """
    return run_probe(args, "label-efficiency", _compare_shares)


def _compare_shares(args: ProbeArguments) -> tuple[dict[str, Any], str]:
    """Returns the metrics and the report."""
    fractions, seeds = _parse_fractions(args.label_fractions), range(args.seed, args.seed + args.seeds)
    if args.seeds < 1:
        raise ValueError(f"seeds: expected at least one, got {args.seeds}")
    main = Probed.load(str(args.checkpoint), args)
    embedded: dict[str, list[Features]] = {MAIN: [main.features] * args.seeds}
    embedded[RANDOM] = [main.random_features(seed) for seed in seeds]
    for name, control in load_controls(args, Probed.load, main, tuple(embedded)):
        embedded[name] = [control.features] * args.seeds
    truth, patients = label_matrix(main.test), np.asarray(main.test["patient_id"])
    found: dict[str, Any] = {}
    for fraction in fractions:
        draws = [_draw(main, fraction, seed) for seed in seeds]
        scores = {name: _seed_scores(main, draws, several) for name, several in embedded.items()}
        found[f"{fraction:g}"] = _describe(draws) | {"models": _compare_over_seeds(truth, scores, patients, args)}
    metrics = {"task": args.task, "metric": "macro_auroc", "num_records": len(truth), "seeds": list(seeds)}
    metrics |= {"num_patients": len(np.unique(patients)), "label_fractions": found}
    return metrics, _report(metrics)


def _parse_fractions(text: str | None) -> list[float]:
    """Reads `0.01,0.1,1`, ascending."""
    try:
        fractions = sorted({float(part) for part in str(text).split(",")})
    except ValueError:
        fractions = []
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"label_fractions: expected shares such as 0.01,0.1,1, got {text!r}")
    return fractions


def _draw(main: Probed, fraction: float, seed: int) -> _Draw:
    """Training rows of a share of the patients."""
    labels, patients = label_matrix(main.fit), np.asarray(main.fit["patient_id"])
    kept = rows.labelled_subset(patients, labels, fraction, seed)
    constant = labels[kept].min(axis=0) == labels[kept].max(axis=0)
    names = main.fit.features["labels"].feature.names
    absent = [name for name, same in zip(names, constant, strict=True) if same]
    return _Draw(kept, len(np.unique(patients[kept])), absent)


def _seed_scores(main: Probed, draws: list[_Draw], several: list[Features]) -> np.ndarray:
    """(seeds, m, labels): logits of the linear model of each draw.

    Seeds that would fit the same model, an encoder with all labels, share it. A label that a draw cannot teach is
    scored alike for all records, which is an AUROC of one half.
    """
    fitted: dict[tuple[int, bytes], np.ndarray] = {}
    scores = []
    for chosen, (train, test) in zip(draws, several, strict=True):
        key = id(train), chosen.rows.tobytes()
        if key not in fitted:
            fitted[key] = main.linear_scores((train, test), chosen.rows)
        scores.append(fitted[key])
    return np.stack(scores)


def _compare_over_seeds(
    truth: np.ndarray, scores: Mapping[str, np.ndarray], patients: np.ndarray, args: ProbeArguments
) -> dict[str, Any]:
    """Macro AUROC of each encoder as mean over seeds, and how far the first is ahead of each other.

    `truth` is (m, labels), `scores` are (seeds, m, labels), `patients` (m,). Returns name -> `values` of each seed,
    `mean`, `sd` over seeds (null for one), `interval` of the mean over resampled patients; for all but the first
    `ahead` with the same fields for the paired differences.
    """
    options: dict[str, Any] = {"patient_ids": patients, "n": args.bootstrap, "seed": args.seed}
    by_record = {name: values.transpose(1, 0, 2) for name, values in scores.items()}
    main = next(iter(scores))
    each = {name: np.array([macro_auroc(truth, one) for one in values]) for name, values in scores.items()}
    found: dict[str, Any] = {}
    for name, values in each.items():
        interval = bootstrap_interval(_seed_mean_auroc, truth, by_record[name], **options)
        found[name] = _over_seeds(values) | {"interval": interval.as_dict()}
        if name != main:
            ours, theirs = by_record[main], by_record[name]
            apart = bootstrap_difference(_seed_mean_auroc, truth, scores=ours, baseline_scores=theirs, **options)
            found[name]["ahead"] = _over_seeds(each[main] - values) | {"interval": apart.as_dict()}
    return found


def _seed_mean_auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean over seeds of the macro AUROC: truth (m, labels), scores (m, seeds, labels)."""
    return float(np.mean([macro_auroc(truth, scores[:, seed]) for seed in range(scores.shape[1])]))


def _describe(draws: list[_Draw]) -> dict[str, Any]:
    """Patients and records of the draws, and in how many draws each label has no positives or no negatives."""
    absent = [name for chosen in draws for name in chosen.not_learned]
    return {
        "num_patients_fitted": [chosen.num_patients for chosen in draws],
        "num_records_fitted": [len(chosen.rows) for chosen in draws],
        "labels_not_learned": {name: absent.count(name) for name in dict.fromkeys(absent)},
    }


def _report(metrics: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""
    count = len(metrics["seeds"])
    lines = [
        "# Label efficiency",
        "",
        f"Logistic regression on frozen encoders, {count} draws of labelled patients, judged on "
        f"{metrics['num_records']} records of {metrics['num_patients']} patients. In brackets the SD over draws, then "
        "the 95 % interval of the mean over resampled test patients.",
        "",
        "| labels | patients, records | encoder | macro AUROC | ahead of it by |",
        "|---|---|---|---|---|",
    ]
    notes = []
    for fraction, entry in metrics["label_fractions"].items():
        size = f"{np.mean(entry['num_patients_fitted']):.0f}, {np.mean(entry['num_records_fitted']):.0f}"
        for name, model in entry["models"].items():
            ahead = _words(model["ahead"], "+.3f") if "ahead" in model else ""
            lines.append(f"| {float(fraction):.3g} | {size} | {name} | {_words(model, '.3f')} | {ahead} |")
        for label, times in entry["labels_not_learned"].items():
            notes.append(f"{label} at {fraction} in {times} of {count} draws")
    if notes:
        lines += ["", f"Without a positive or a negative, and so scored as chance (.5): {'; '.join(notes)}."]
    return "\n".join(lines)


def _over_seeds(values: np.ndarray) -> dict[str, Any]:
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"values": values.tolist(), "mean": float(values.mean()), "sd": sd}


def _words(entry: Mapping[str, Any], form: str) -> str:
    low, high = (format(entry["interval"][name], form) for name in ("low", "high"))
    sd = "" if entry["sd"] is None else f"{entry['sd']:.3f}; "
    return f"{entry['mean']:{form}} ({sd}{low} to {high})"


if __name__ == "__main__":
    run_as_program(ProbeArguments, label_efficiency)
