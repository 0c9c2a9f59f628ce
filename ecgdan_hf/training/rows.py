"""From a run's arguments to its data: load once, then divide into training, validation and test by patient."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.splits import split_by_fold, split_by_patient
from ecgdan_hf.evaluation.protocol import read_table as read_table
from ecgdan_hf.training.arguments import RunArguments, parse_folds


@dataclass(frozen=True)
class Parts:
    """Three datasets that share no patient; `test` may be missing."""

    train: Any
    valid: Any
    test: Any | None

    def named(self) -> dict[str, Any]:
        """The parts whose predictions are out of sample."""
        return {"valid": self.valid} | ({"test": self.test} if self.test is not None else {})


def load_dataset(
    args: RunArguments, feature_extractor: Any, outcomes: str | None = None, label_level: str | None = None
):
    """The preprocessed rows of the source that `args` names.

    Raises:
        ValueError: no `data_dir`, or what `data.loading` refuses.
    """
    from ecgdan_hf.data.loading import load

    if not args.data_dir:
        raise ValueError("data_dir: expected the folder of the recordings, got none; give --data-dir")
    levels = {"label_level": label_level} if label_level else {}
    return load(
        args.data,
        args.data_dir,
        outcomes=outcomes,
        feature_extractor=feature_extractor,
        limit=args.limit,
        num_proc=args.num_proc,
        cache_dir=args.cache_dir,
        skip_bad=args.skip_bad,
        **levels,
    )


def split(dataset: Any, args: RunArguments, stratify_by: str | None = None) -> Parts:
    """Divides rows by fold where folds are given, else by patient.

    Without `valid_folds` the patients of the training folds are divided again, so that the epoch is never chosen on
    the test folds.

    Args:
        dataset: with `record_id`, `patient_id`, and `fold` where folds are given.
        args: folds, fractions and seed.
        stratify_by: column whose values each part should hold in equal shares, such as `event`.

    Raises:
        ValueError: folds that do not fit together, or a part without records.
    """
    wanted = ["record_id", "patient_id", "fold", *([stratify_by] if stratify_by else [])]
    table = read_table(dataset, wanted)
    table["row"] = np.arange(len(table))
    stratify_by = stratify_by if stratify_by in table else None
    tables = _by_fold(table, args, stratify_by) if args.train_folds else _by_fraction(table, args, stratify_by)
    parts = {name: dataset.select(part["row"].to_numpy()) for name, part in tables.items()}
    return Parts(parts["train"], parts["valid"], parts.get("test"))


def _by_fold(table: pd.DataFrame, args: RunArguments, stratify_by: str | None) -> dict[str, pd.DataFrame]:
    folds = {"train": parse_folds(args.train_folds), "valid": parse_folds(args.valid_folds)}
    folds = {name: numbers for name, numbers in {**folds, "test": parse_folds(args.test_folds)}.items() if numbers}
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
        raise ValueError("valid_folds, test_folds: need train_folds beside them, got none")
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
