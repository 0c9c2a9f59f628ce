"""Training rows of DANet: real records, then simulated ones, and the targets of the waveform module."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import concatenate_datasets

from ecgdan_hf.data.simulate.premature_beats import annotated_weights
from ecgdan_hf.data.simulate.simulated_beats import in_millivolt, simulated_rows
from ecgdan_hf.data.sources.mitbih import BEATS
from ecgdan_hf.inference.heads import weight_columns
from ecgdan_hf.inference.rows import label_matrix
from ecgdan_hf.model.configuration_danet import DanetConfig, resolve_waveform_rule
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core import rows

_MAX_POSITIVE_WEIGHT = 10.0
"""Limit of balanced weights; a weight of hundreds would let a few records dominate."""


def positives(part: Any) -> dict[str, int]:
    """The number of records with each label."""
    counts = label_matrix(part).sum(axis=0).astype(int).tolist()
    return dict(zip(part.features["labels"].feature.names, counts, strict=True))


def check_labels(parts: dict[str, Any]) -> None:
    """Rejects training and validation parts in which no label varies.

    A test part without positives is allowed, as a fold of a cross-validation may have none.

    Raises:
        ValueError: no label that some records of the part have and some have not.
    """
    for name in ("train", "valid"):
        counts, total = positives(parts[name]), len(parts[name])
        if not any(0 < count < total for count in counts.values()):
            said = ", ".join(f"{label} in {count}" for label, count in counts.items())
            raise ValueError(
                f"labels: expected records with and without a label in the {name} part, found {said} of {total} "
                "records; choose other folds or fractions"
            )


def positive_weights(part: Any, wanted: str | float | None) -> dict[str, float] | None:
    """The factor on the loss of positive records, for each label.

    Args:
        part: what is trained on.
        wanted: "balanced", records without the label over records with it, `_MAX_POSITIVE_WEIGHT` at most; one number
            for all labels; None for none.
    """
    if wanted is None:
        return None
    counts = positives(part)
    if wanted != "balanced":
        return dict.fromkeys(counts, float(wanted))
    return {
        label: min((len(part) - count) / count, _MAX_POSITIVE_WEIGHT) if 0 < count < len(part) else 1.0
        for label, count in counts.items()
    }


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


def learned_rows(
    train: Any, config: DanetConfig, feature_extractor: EcgDanFeatureExtractor, args: FinetuneArguments
) -> LearnedRows:
    """The training rows, behind them those simulated from the regular ones among them, and where a(t) is known.

    Raises:
        ValueError: labels other than the rule's own, which is all that is known of a simulated record.
    """
    soft = config.waveform_module == "soft"
    known: list[np.ndarray | None] = [None]
    if soft and args.beat_annotations:
        known = [_annotated_targets(train, config, feature_extractor)]
    learned = LearnedRows(train, list(train["patient_id"]))
    if args.simulated_records:
        made = _simulate_from(train, config, feature_extractor, args)
        columns = ["input_values", "lead_mask", *weight_columns(config), "labels"]
        both = concatenate_datasets([part.select_columns(columns) for part in (train, made)])
        learned = LearnedRows(both, [*train["patient_id"], *made["patient_id"]], len(made))
        known.append(np.asarray(made.with_format("numpy")["waveform_targets"], dtype=np.float32) if soft else None)
    if any(each is not None for each in known):
        counts = (len(train), learned.num_simulated)
        unknown = [np.full((count, feature_extractor.num_samples), np.nan, np.float32) for count in counts]
        found = [unknown[part] if each is None else each for part, each in enumerate(known)]
        learned.waveform_targets = np.concatenate(found)
    return learned


def _simulate_from(
    train: Any, config: DanetConfig, feature_extractor: EcgDanFeatureExtractor, args: FinetuneArguments
) -> Any:
    """Rows simulated from the training records.

    Raises:
        ValueError: labels other than the rule's own.
    """
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
