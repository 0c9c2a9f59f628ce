"""Training rows of DANet: real records, then simulated ones, how often each is drawn, and the module's targets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import concatenate_datasets

from ecgdan_hf.data.simulate.premature_beats import annotated_weights
from ecgdan_hf.data.simulate.simulated_beats import in_millivolt, simulated_rows
from ecgdan_hf.data.sources.mitbih import BEATS
from ecgdan_hf.inference.rows import label_matrix
from ecgdan_hf.model.configuration_danet import DanetConfig, resolve_waveform_rule
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EpochBatchSampler

_MAX_POSITIVE_WEIGHT = 10.0
"""Limit of balanced weights; a weight of hundreds would let a few records dominate."""


@dataclass
class LearnedRows:
    """Rows to train on: real records, then simulated ones.

    Attributes:
        rows: of both.
        patient_ids: of each row.
        num_simulated: of them, the last ones.
        waveform_targets: (rows, samples), the target of a(t), NaN where unknown; None if all are unknown.
    """

    rows: Any
    patient_ids: list[str]
    num_simulated: int = 0
    waveform_targets: np.ndarray | None = None

    @classmethod
    def of(
        cls, train: Any, config: DanetConfig, feature_extractor: EcgDanFeatureExtractor, args: FinetuneArguments
    ) -> "LearnedRows":
        """The training rows, those simulated from the regular ones among them, and where a(t) is known."""
        soft = config.waveform_module == "soft"
        known: list[np.ndarray | None] = [None]
        if soft and args.beat_annotations:
            known = [_annotated_targets(train, config, feature_extractor)]
        learned = cls(train, list(train["patient_id"]))
        if args.simulated_records:
            made = _simulate_from(train, config, feature_extractor, args)
            columns = ["input_values", "lead_mask", *config.weight_columns, "labels"]
            both = concatenate_datasets([part.select_columns(columns) for part in (train, made)])
            learned = cls(both, [*train["patient_id"], *made["patient_id"]], len(made))
            known.append(np.asarray(made.with_format("numpy")["waveform_targets"], dtype=np.float32) if soft else None)
        if any(each is not None for each in known):
            counts = (len(train), learned.num_simulated)
            unknown = [np.full((count, feature_extractor.num_samples), np.nan, np.float32) for count in counts]
            found = [unknown[part] if each is None else each for part, each in enumerate(known)]
            learned.waveform_targets = np.concatenate(found)
        return learned

    @staticmethod
    def positives(part: Any) -> dict[str, int]:
        """The number of records with each label."""
        counts = label_matrix(part).sum(axis=0).astype(int).tolist()
        return dict(zip(part.features["labels"].feature.names, counts, strict=True))

    @classmethod
    def check_labels(cls, parts: dict[str, Any]) -> None:
        """Rejects training and validation parts in which no label varies.

        A test part without positives is allowed, as a fold of a cross-validation may have none.
        """
        for name in ("train", "valid"):
            counts, total = cls.positives(parts[name]), len(parts[name])
            if not any(0 < count < total for count in counts.values()):
                said = ", ".join(f"{label} in {count}" for label, count in counts.items())
                raise ValueError(
                    f"labels: expected records with and without a label in the {name} part, found {said} of {total} "
                    "records; choose other folds or fractions"
                )

    def positive_weights(self, wanted: str | float | None) -> dict[str, float] | None:
        """The factor on the loss of positive records, for each label; None where none is wanted.

        "balanced" is the records without the label over the records with it, `_MAX_POSITIVE_WEIGHT` at most.
        """
        if wanted is None:
            return None
        counts, total = self.positives(self.rows), len(self.rows)
        if wanted != "balanced":
            return dict.fromkeys(counts, float(wanted))
        return {
            label: min((total - count) / count, _MAX_POSITIVE_WEIGHT) if 0 < count < total else 1.0
            for label, count in counts.items()
        }

    def sampler(self, args: FinetuneArguments) -> EpochBatchSampler:
        """Batches with every row once an epoch, or with `balance` with rows drawn by [`_balanced_shares`]."""
        if not args.balance:
            return EpochBatchSampler(len(self.rows), args.batch_size, seed=args.seed)
        simulated = np.arange(len(self.rows)) >= len(self.rows) - self.num_simulated
        positive = np.asarray(label_matrix(self.rows).any(axis=1))
        shares = _balanced_shares(positive, self.patient_ids, simulated)
        return _DrawnBatchSampler(shares, args.batch_size, args.seed)


def _simulate_from(
    train: Any, config: DanetConfig, feature_extractor: EcgDanFeatureExtractor, args: FinetuneArguments
) -> Any:
    """Rows simulated from the training records."""
    rule = resolve_waveform_rule(args.simulated_rule or config.waveform_rule) or {}
    names, own = train.features["labels"].feature.names, str(rule.get("name")).upper()
    if names != [own]:
        raise ValueError(
            f"simulated_records: expected keep_labels {own}, the one label of the waveform rule, got "
            f"{', '.join(names)}"
        )
    in_mv = rows.load_dataset(args, in_millivolt(feature_extractor), label_level=args.label_level)
    position = {record: row for row, record in enumerate(in_mv["record_id"])}
    sources = in_mv.select([position[record] for record in train["record_id"]])
    return simulated_rows(
        sources, feature_extractor, rule, args.simulated_records, args.seed, args.num_proc, args.cache_dir
    )


def _annotated_targets(part: Any, config: DanetConfig, feature_extractor: EcgDanFeatureExtractor) -> np.ndarray | None:
    """(records, samples), the rule's weights around the beats that the source has marked; None where it marks none.

    Beats count by their kind, which must have the rule's name: `APC` for `apc`. Of a rule of another name nothing is
    known: that no beat meets it would be learned otherwise.
    """
    rule: Any = config.waveform_rule
    if "beat_seconds" not in part.column_names or not (rule and "wave_weights" in rule):
        return None
    if rule["name"].upper() not in BEATS.values():
        return None
    rate, kind, targets = feature_extractor.sampling_rate, rule["name"].upper(), []
    columns = (part[name] for name in ("beat_seconds", "beat_kinds", "duration_seconds"))
    for seconds, kinds, duration in zip(*columns, strict=True):
        first, end, start = feature_extractor.recorded_samples(round(duration * rate), rate)
        peaks = np.asarray(seconds, dtype=float) * rate - start
        weights = annotated_weights(peaks, np.array(kinds) == kind, end - first, rate, rule)
        targets.append(np.pad(weights, (first, feature_extractor.num_samples - end)))
    return np.stack(targets)


class _DrawnBatchSampler(EpochBatchSampler):
    """Batches of rows drawn by their shares (num_rows,), with replacement; as many in an epoch as the rows make."""

    def __init__(self, shares: Sequence[float] | np.ndarray, batch_size: int, seed: int = 0):
        super().__init__(len(shares), batch_size, seed=seed)
        total = float(np.sum(shares))
        if not total > 0 or np.min(shares) < 0:
            raise ValueError("shares: expected positive numbers for some rows and negative ones for none")
        self.shares = np.asarray(shares, dtype=float) / total

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        drawn = rng.choice(self.num_rows, (self.num_batches, self.batch_size), p=self.shares)
        yield from drawn[list(self._mine)].tolist()


def _balanced_shares(positive: np.ndarray, patient_ids: Sequence[str], simulated: np.ndarray) -> np.ndarray:
    """Probabilities of rows, (rows,) as `positive` and `simulated`, that balance kinds of records and patients.

    Half of what is drawn is simulated, where anything is; half of the real records are positive. A patient's positives
    together are drawn in proportion to the root of their number: one with a hundred early beats ten times as often as
    one with one, not a hundred times. Simulated records are drawn alike.
    """
    patients = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)[1].reshape(-1)
    real_share = 0.5 if simulated.any() else 1.0
    shares = np.where(simulated, 0.5 / max(simulated.sum(), 1), 0.0)
    positives, negatives = positive & ~simulated, ~positive & ~simulated
    shares[negatives] = 0.5 * real_share / max(negatives.sum(), 1)
    counts = np.bincount(patients[positives], minlength=patients.max() + 1)
    each = 1 / np.sqrt(np.maximum(counts, 1))  # root of the number, divided among so many
    shares[positives] = 0.5 * real_share * each[patients[positives]] / np.sqrt(counts).sum()
    return shares
