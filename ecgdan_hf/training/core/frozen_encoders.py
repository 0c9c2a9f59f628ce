"""The steps that all probes share: frozen encoders with their rows and embeddings, and the folder of the result."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ecgdan_hf.evaluation.comparators.baselines import RidgeCox, random_encoder
from ecgdan_hf.evaluation.comparators.linear_classifier import LinearClassifier
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.files import write_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import Head
from ecgdan_hf.inference.rows import columns_of, embed, label_matrix
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.training.arguments.fields import ProbeArguments, RunArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.run_folder import RunFolder

Features = tuple[np.ndarray, np.ndarray]
MAIN, RANDOM = "this encoder, linear", "random encoder, linear"


class _HasTest(Protocol):
    @property
    def test(self) -> Any: ...


T = TypeVar("T", bound=_HasTest)


@dataclass(frozen=True)
class Probed:
    """A frozen encoder with the rows that a linear model on it is fitted and evaluated on.

    Attributes:
        args: data, folds and leads.
        config: of the encoder.
        fit: training rows, including those that would choose an epoch.
        test: held-out rows.
        features: embeddings (n, width) of `fit`, and of `test` with the leads that `args.leads` leaves.
    """

    args: ProbeArguments
    config: EcgDanConfig
    fit: Any
    test: Any
    features: Features

    @classmethod
    def load(cls, path: str, args: ProbeArguments) -> "Probed":
        """Loads an encoder and its rows, and embeds them."""
        model, extractor = load_checkpoint(path)
        dataset = rows.load_dataset(args, extractor, outcomes=args.labels, label_level=args.label_level)
        if args.task == "classification" and "labels" not in dataset.column_names:
            raise ValueError("labels: classification needs a labels column, the data have none")
        fit, test = cls.fit_and_test(dataset, args, "event" if args.task == "survival" else None)
        return cls(args, Head.encoder_of(model).config, fit, test, _embeddings(model, fit, test, args))

    @staticmethod
    def fit_and_test(dataset: Any, args: RunArguments, stratify_by: str | None) -> tuple[Any, Any]:
        """Training rows, those that would choose an epoch included, and test rows."""
        parts = rows.split(dataset, args, stratify_by)
        fitted = {*parts["train"]["record_id"], *parts["valid"]["record_id"]}
        keep = np.flatnonzero([record in fitted for record in dataset["record_id"]])
        return dataset.select(keep), parts.get("test")

    def random_features(self, seed: int) -> Features:
        """The embeddings of a randomly initialised encoder of the same architecture."""
        return _embeddings(random_encoder(self.config, seed), self.fit, self.test, self.args)

    def linear_scores(self, features: Features, kept: np.ndarray | None = None) -> np.ndarray:
        """Scores of the test rows by a linear model of these embeddings, fitted on `kept` rows of `fit` or on all.

        Returns log hazards (m,) of a ridge Cox model, or logits (m, labels) of a logistic regression.
        """
        fitted, tested = features
        fit = self.fit
        if kept is not None:
            fitted, fit = fitted[kept], fit.select(kept)
        table = columns_of(fit, ["patient_id", "event", "time", "entry"])
        patients = table["patient_id"].to_numpy()
        if self.args.task == "survival":
            outcome = table["event"], FollowUp.time_of(table), patients
            return RidgeCox.cross_validated(fitted, *outcome, seed=self.args.seed).log_hazard(tested)
        return LinearClassifier.fit(fitted, label_matrix(fit), patients).logits(tested)


def run_probe(
    args: ProbeArguments, kind: str, compare: Callable[[ProbeArguments], tuple[dict[str, Any], str]]
) -> dict[str, Any]:
    """Checks the arguments, compares, and writes `report.md` and `metrics.json`; returns the latter's content.

    Args:
        args: what is probed.
        kind: of the result, see `evaluation.result`.
        compare: returns the metrics and the report.
    """
    started, folder = time.monotonic(), RunFolder.check(args)
    _check_probe(args)
    metrics, report = compare(args)
    metrics |= {"leads": args.leads, "seconds": round(time.monotonic() - started, 1)}
    if args.leads:
        follow = "and limb leads that follow from them"
        report += f"\n\nOf the records judged, the networks were shown the leads {args.leads} ({follow}) alone."
    with folder.begun(args):
        folder.finish(lambda staging: write_text(staging / "report.md", report + "\n"), Result(kind, metrics))
    return metrics


def _check_probe(args: ProbeArguments) -> None:
    if not args.checkpoint:
        raise ValueError("checkpoint: expected the encoder to probe, got none; give --checkpoint")
    if args.push_to_hub:
        raise ValueError("push_to_hub: a probe leaves no model to upload; leave it out")
    if args.label_fractions and args.label_fraction != 1:
        raise ValueError("label_fraction, label_fractions: expected one of the two, got both")
    if args.text_model and not args.prompts:
        raise ValueError("text_model: only prompts of your own need one; leave it out, or give --prompts")
    if args.train_folds and not args.test_folds:
        raise ValueError("test_folds: expected test folds with train_folds, got none")


def _embeddings(model: Any, fit: Any, test: Any, args: ProbeArguments) -> Features:
    """Embeddings of both parts, (n, width); `args.leads` hides leads of the second only, as a new device would."""
    return embed(model, fit, args.batch_size), embed(model, test, args.batch_size, args.leads)


def load_controls(
    args: ProbeArguments, load: Callable[[str, ProbeArguments], T], main: T, taken: Sequence[str] = ()
) -> Iterator[tuple[str, T]]:
    """Name and content of each control; rejects one that has not the rows of `main`, record for record."""
    for name, path in args.control.items():
        if name in taken:
            raise ValueError(f"control: expected a name other than {', '.join(taken)}, got {name!r}")
        control = load(str(path), args)
        for part in ("fit", "test"):
            if hasattr(main, part):
                _check_same_records(str(path), *(getattr(each, part)["record_id"] for each in (control, main)))
        yield name, control


def _check_same_records(path: str, found: Sequence[str], expected: Sequence[str]) -> None:
    odd = set(found) ^ set(expected)
    if odd or list(found) != list(expected):
        which = f", for example {sorted(odd)[0]}" if odd else " in order"
        raise ValueError(f"{path}: expected the records of the evaluated encoder, they differ in {len(odd)}{which}")
