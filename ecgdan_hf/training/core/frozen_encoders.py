"""What a probe needs of its encoders: the rows each was made for, and their embeddings, computed once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgdan_hf.evaluation.comparators.baselines import (
    cross_validated_ridge_cox,
    random_encoder,
)
from ecgdan_hf.evaluation.comparators.comparison import fit_logistic
from ecgdan_hf.evaluation.protocols.reduced_leads import kept_leads, row_batches
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.rows import columns_of, embed, label_matrix
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.training.arguments.fields import ProbeArguments
from ecgdan_hf.training.core import rows

MAIN, RANDOM = "this encoder, linear", "random encoder, linear"


@dataclass(frozen=True)
class Probed:
    """Rows a linear model is fitted on and judged on, as one encoder's feature extractor prepared them.

    Attributes:
        config: the encoder's.
        fit: training rows, those that would choose an epoch included.
        test: held-out rows.
        features: embeddings (n, width) of the first, and of the second with the leads that `args.leads` leaves.
    """

    config: EcgDanConfig
    fit: Any
    test: Any
    features: tuple[np.ndarray, np.ndarray]


def probe_checkpoint(path: str, args: ProbeArguments, like: Probed | None = None) -> Probed:
    """Loads an encoder and its rows, and embeds them.

    Args:
        path: checkpoint folder or Hub name.
        args: data, folds and leads.
        like: rows that these must be, record for record.

    Raises:
        ValueError: data without the labels, other records than those of `like`, or what loading refuses.
    """
    model, extractor = load_checkpoint(path)
    dataset = rows.load_dataset(args, extractor, outcomes=args.labels, label_level=args.label_level)
    if args.task == "classification" and "labels" not in dataset.column_names:
        raise ValueError("labels: classification needs a labels column, the data have none")
    fit, test = fit_and_test(dataset, args, "event" if args.task == "survival" else None)
    for part, theirs in ((fit, like.fit), (test, like.test)) if like else ():
        check_same_records(path, part["record_id"], theirs["record_id"])
    return Probed(encoder_config(model), fit, test, features(model, fit, test, args))


def fit_and_test(dataset: Any, args: ProbeArguments, stratify_by: str | None) -> tuple[Any, Any]:
    """Training rows, those that would choose an epoch included, and test rows."""
    parts = rows.split(dataset, args, stratify_by)
    fitted = set(parts.train["record_id"]) | set(parts.valid["record_id"])
    keep = np.flatnonzero([record in fitted for record in dataset["record_id"]])
    return dataset.select(keep), parts.test


def features(model: Any, fit: Any, test: Any, args: ProbeArguments) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of both parts, (n, width): `args.leads` hides leads of the second only, as a new device would."""
    kept = kept_leads(args.leads, encoder_config(model).lead_names)
    batches = row_batches(fit, args.batch_size), row_batches(test, args.batch_size, kept)
    return embed(model, batches[0]), embed(model, batches[1])


def random_features(like: Probed, args: ProbeArguments, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of an untrained encoder of the same architecture."""
    return features(random_encoder(like.config, seed), like.fit, like.test, args)


def linear_model_scores(
    args: ProbeArguments, fitted: np.ndarray, fit: Any, tested: np.ndarray, seed: int
) -> np.ndarray:
    """Log hazards (m,) of a ridge Cox model, or logits (m, labels) of a logistic one, on embeddings.

    Args:
        args: the task.
        fitted: (n, width), embeddings of `fit`.
        fit: rows with the outcome.
        tested: (m, width).
        seed: of the inner cross-validation.
    """
    table = columns_of(fit, ["patient_id", "event", "time"])
    patients = table["patient_id"].to_numpy()
    if args.task == "survival":
        cox = cross_validated_ridge_cox(fitted, table["event"], table["time"], patients, seed=seed)
        return cox.log_hazard(tested)
    return fit_logistic(fitted, label_matrix(fit), tested, patient_ids=patients)


def controls(args: ProbeArguments, taken: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Name and checkpoint of each control.

    Raises:
        ValueError: a name that is taken.
    """
    for name, path in args.control.items():
        if name in taken:
            raise ValueError(f"control: expected a name other than {', '.join(taken)}, got {name!r}")
        yield name, str(path)


def check_same_records(path: str, found: Sequence[str], expected: Sequence[str]) -> None:
    """Refuses to compare encoders on different records: what one's feature extractor refuses, the other may take.

    Raises:
        ValueError: see above.
    """
    odd = set(found) ^ set(expected)
    if odd or list(found) != list(expected):
        which = f", for example {sorted(odd)[0]}" if odd else " in order"
        raise ValueError(f"{path}: expected the records of the judged encoder, they differ in {len(odd)}{which}")


def encoder_config(model: Any) -> EcgDanConfig:
    """Configuration of the ECG encoder inside a model."""
    return getattr(model, "ecgdan", model).config
