"""From a run's arguments to its data: load once, then divide into training, validation and test by patient.

`label_fraction` keeps a share of the patients whose labels a run may see. Whoever chooses an epoch reads labels too,
so the validation part is reduced to the same share; the test part is never touched.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.splits import split_by_fold, split_by_patient
from ecgdan_hf.evaluation.folds import parse_folds
from ecgdan_hf.inference.rows import columns_of, label_matrix
from ecgdan_hf.training.arguments.fields import RunArguments

_PARTS = ("train", "valid", "test")


def load_dataset(
    args: RunArguments, feature_extractor: Any, outcomes: str | None = None, label_level: str | None = None
) -> Any:
    """The preprocessed rows of the source that `args` names; for survival, those whose outcome is known."""
    from ecgdan_hf.data.loading import load

    if not args.data_dir:
        raise ValueError("data_dir: expected the folder of the recordings, got none; give --data-dir")
    labels: dict[str, Any] = {"label_level": label_level} if label_level else {}
    if kept := getattr(args, "keep_labels", None):
        labels["keep_labels"] = [name.strip() for name in kept.split(",")]
    return load(
        args.data,
        args.data_dir,
        outcomes=outcomes,
        with_outcome=getattr(args, "task", None) == "survival",
        ecgs_per_patient=getattr(args, "ecgs_per_patient", "all"),
        feature_extractor=feature_extractor,
        limit=args.limit,
        num_proc=args.num_proc,
        cache_dir=args.cache_dir,
        skip_bad=args.skip_bad,
        **labels,
    )


def split(dataset: Any, args: RunArguments, stratify_by: str | None = None) -> dict[str, Any]:
    """Divides rows by fold where folds are given, else by patient.

    Without `valid_folds` the patients of the training folds are divided again, so that the epoch is never chosen on
    the test folds. With `label_fraction` below one, training and validation each keep that share of their patients,
    as [`labelled_subset`] draws it.

    Args:
        dataset: with `record_id`, `patient_id`, and `fold` where folds are given.
        args: folds, fractions and seed.
        stratify_by: column whose values each part should hold in equal shares, such as `event`; for `labels` a
            patient counts by the rarest of them.

    Returns:
        `train`, `valid` and, where there is one, `test`.
    """
    table = _table_to_split(dataset, stratify_by)
    if args.train_folds and "fold" not in table:
        raise ValueError(
            f"train_folds: expected data with folds for {args.train_folds}, found none; --train-folds '' splits by "
            "patient"
        )
    stratify_by = stratify_by if stratify_by in table else None
    tables = _by_fold(table, args, stratify_by) if args.train_folds else _by_fraction(table, args, stratify_by)
    if args.label_fraction != 1:
        labels = _known_labels(dataset, None if stratify_by == "labels" else stratify_by)
        for name in ("train", "valid"):
            rows = tables[name]["row"].to_numpy()
            patients = tables[name]["patient_id"].to_numpy()
            least = 2 if stratify_by else 1  # two events can be put in order, whatever the others' follow-up
            kept = labelled_subset(patients, labels[rows], args.label_fraction, args.seed, least)
            tables[name] = tables[name].iloc[kept]
    return {name: dataset.select(tables[name]["row"].to_numpy()) for name in _PARTS if name in tables}


def inner_split(dataset: Any, judged: pd.DataFrame, args: RunArguments, stratify_by: str | None) -> dict[str, Any]:
    """The test rows, and those of other patients divided by patient into training and validation.

    Other records of the test patients, such as those without an outcome, are in no part. `judged` has `record_id` and
    `patient_id` of the test rows.
    """
    table = _table_to_split(dataset, stratify_by)
    is_judged = table["record_id"].isin(set(judged["record_id"]))
    patients = set(judged["patient_id"].astype(str)) | set(table.loc[is_judged, "patient_id"].astype(str))
    inside = ~is_judged & ~table["patient_id"].astype(str).isin(patients)
    shares = {"train": 1 - args.valid_fraction, "valid": args.valid_fraction}
    inner = split_by_patient(table[inside], shares, args.seed, stratify_by)
    tables = {**inner, "test": table[is_judged]}
    return {name: dataset.select(tables[name]["row"].to_numpy()) for name in _PARTS}


def _rarest_label(labels: np.ndarray) -> np.ndarray:
    """(n,): 0 for a record without a label, else the rank of its rarest one, the highest rank for the rarest."""
    rank = np.empty(labels.shape[1])
    rank[np.argsort(-labels.sum(axis=0), kind="stable")] = np.arange(1, labels.shape[1] + 1)
    return np.asarray((labels * rank).max(axis=1, initial=0))


def _table_to_split(dataset: Any, stratify_by: str | None) -> pd.DataFrame:
    """The columns a split needs: `record_id`, `patient_id`, `fold` if there are folds, `row`, and the stratum.

    The stratum `labels` becomes the number of each record's rarest label.
    """
    table = columns_of(dataset, ["record_id", "patient_id", "fold", *([stratify_by] if stratify_by else [])])
    table["row"] = np.arange(len(table))
    if stratify_by == "labels" and "labels" in table:
        table["labels"] = _rarest_label(label_matrix(dataset))
    return table


def _known_labels(dataset: Any, column: str | None = None) -> np.ndarray:
    """(n, labels) of 0 and 1 that a subset is balanced by: a column such as `event`, else the labels, else nothing."""
    if column is not None:
        return np.asarray(dataset[column], dtype=float)[:, None]
    named = "labels" in dataset.column_names and hasattr(dataset.features["labels"].feature, "names")
    return label_matrix(dataset) if named else np.zeros((len(dataset), 1))


def labelled_subset(
    patient_ids: np.ndarray, labels: np.ndarray, fraction: float, seed: int, least: int = 1
) -> np.ndarray:
    """Rows, ascending, of a share of the patients, all records of each, with every label in its share.

    Patients are put in one order, drawn from the seed, and the first of them are taken: the 1 % of a seed lies inside
    its 10 %. A patient belongs to its rarest label, and the members of each label are spread evenly over the order, so
    that a label of m patients has about `fraction` m in the subset: one at least where `fraction` m is one or more.
    A subset grows until some label has `least` patients with it and one without; otherwise nothing could be learned or
    validated.

    Args:
        patient_ids: (n,), of each record.
        labels: (n, labels) of 0 and 1.
        fraction: share of the patients, above 0, at most 1.
        seed: of the order.
        least: patients with the label that the subset needs.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"label_fraction: expected a share above 0 and at most 1, got {fraction}")
    names, patient_of = np.unique(np.asarray(patient_ids).astype(str), return_inverse=True)
    present = np.zeros((len(names), labels.shape[1]), dtype=bool)
    np.logical_or.at(present, patient_of, np.nan_to_num(labels) > 0)
    order = _spread_order(present, seed)
    count = max(1, math.floor(fraction * len(names) + 0.5))
    with_label = present[order].cumsum(axis=0)[count - 1 :]
    enough = ((with_label >= least) & (with_label < np.arange(count, len(names) + 1)[:, None])).any(axis=1)
    count += int(enough.argmax()) if enough.any() else len(enough) - 1
    return np.flatnonzero(np.isin(patient_of, order[:count]))


def _spread_order(present: np.ndarray, seed: int) -> np.ndarray:
    """Patients in random order, those of each rarest label evenly spaced from a random start."""
    rng = np.random.Generator(np.random.PCG64(seed))
    counts = present.sum(axis=0)
    rarest = np.where(present, counts, len(present) + 1).argmin(axis=1)
    stratum = np.where(present.any(axis=1), rarest, -1)
    position = np.empty(len(present))
    for label in np.unique(stratum):
        members = rng.permutation(np.flatnonzero(stratum == label))
        position[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(position, kind="stable")


def _by_fold(table: pd.DataFrame, args: RunArguments, stratify_by: str | None) -> dict[str, pd.DataFrame]:
    names = {part: f"{part}_folds" for part in ("train", "valid", "test")}
    parsed = {part: parse_folds(getattr(args, name), name) for part, name in names.items()}
    folds = {part: numbers for part, numbers in parsed.items() if numbers}
    used = [number for numbers in folds.values() for number in numbers]
    if len(set(used)) < len(used):
        raise ValueError(f"folds: expected each fold in one part only, got {folds}")
    tables = split_by_fold(table, folds)
    if "valid" in tables:
        return tables
    _check_fraction("valid_fraction", args.valid_fraction)
    shares = {"train": 1 - args.valid_fraction, "valid": args.valid_fraction}
    return {**tables, **split_by_patient(tables["train"], shares, args.seed, stratify_by)}


def _by_fraction(table: pd.DataFrame, args: RunArguments, stratify_by: str | None) -> dict[str, pd.DataFrame]:
    if args.valid_folds or args.test_folds:
        raise ValueError("valid_folds, test_folds: expected train_folds too, got none")
    _check_fraction("valid_fraction", args.valid_fraction)
    valid = (1 - args.test_fraction) * args.valid_fraction
    shares = {"train": 1 - args.test_fraction - valid, "valid": valid}
    if args.test_fraction:
        _check_fraction("test_fraction", args.test_fraction)
        shares["test"] = args.test_fraction
    return split_by_patient(table, shares, args.seed, stratify_by)


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}: expected a share between 0 and 1, got {value}")
