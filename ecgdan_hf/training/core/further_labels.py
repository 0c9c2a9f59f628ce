"""Labels of the training records besides the source's own: of another level, or softened by trained classifiers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ecgdan_hf.data.sources import ptbxl
from ecgdan_hf.data.text.statements import read_statements
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import head_of, weight_columns
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EcgCollator, NumberedRows, multi_hot


def auxiliary_names(args: FinetuneArguments) -> list[str]:
    """Names of the labels of `auxiliary_level`; none without it."""
    if args.auxiliary_level is None:
        return []
    return list(ptbxl.codes_by_label(read_statements(str(args.data_dir)), args.auxiliary_level))


def auxiliary_targets(part: Any, args: FinetuneArguments) -> np.ndarray:
    """(records, labels of `auxiliary_level`) of 0 and 1."""
    labels = ptbxl.codes_by_label(read_statements(str(args.data_dir)), str(args.auxiliary_level))
    column_of_code = {code: column for column, codes in enumerate(labels.values()) for code in codes}
    records = [
        {column_of_code[code] for code in json.loads(codes) if code in column_of_code} for codes in part["scp_codes"]
    ]
    return multi_hot([list(columns) for columns in records], len(labels)).numpy()


def soften_labels(collator: EcgCollator, train: Any, config: EcgDanConfig, args: FinetuneArguments) -> EcgCollator:
    """The collator with labels moved towards the mean probability of the teachers (Hinton et al., 2015).

    The teachers may read another view of the record than the network that learns from them.

    Raises:
        ValueError: a teacher that is no classifier of the same labels.
    """
    names = config.label_names
    hard = multi_hot(train["labels"], len(names)).numpy()
    teachers = str(args.teachers).split(",")
    total = np.zeros(hard.shape, np.float32)
    for teacher in teachers:
        total += _probabilities(teacher.strip(), train["record_id"], names, args)
    mixed = ((1 - args.teacher_weight) * hard + args.teacher_weight * (total / len(teachers))).astype(np.float32)
    return replace(collator, num_labels=0, lookups={**collator.lookups, "labels": mixed})


@torch.inference_mode()
def _probabilities(
    teacher: str, record_ids: Sequence[str], names: Sequence[str], args: FinetuneArguments
) -> np.ndarray:
    model: Any
    model, feature_extractor = load_checkpoint(teacher)
    if not head_of(model).is_classifier or list(model.config.id2label.values()) != list(names):
        raise ValueError(f"teachers: expected a classifier of {', '.join(names)}, got {teacher}")
    dataset = rows.load_dataset(args, feature_extractor, label_level=args.label_level)
    position = {record: row for row, record in enumerate(dataset["record_id"])}
    part = dataset.select([position[record] for record in record_ids])
    weights = weight_columns(model.config)
    read = ["input_values", "lead_mask", *weights]
    collator = EcgCollator(model.config.lead_names, sample_columns=weights)
    loader = DataLoader(NumberedRows(part, collator.reads), batch_size=args.batch_size, collate_fn=collator)
    logits = [model(**{name: batch[name] for name in read}).logits for batch in loader]
    return torch.cat(logits).sigmoid().numpy()
