"""What trained classifiers say of the records another one learns from."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader

from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import head_of, input_names, weight_columns
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EcgCollator, NumberedRows


def mean_probabilities(
    teachers: Sequence[str], record_ids: Sequence[str], label_names: Sequence[str], args: FinetuneArguments
) -> np.ndarray:
    """Mean probability of each label over the teachers, which may read another view of the record than the student.

    Args:
        teachers: checkpoint folders or Hub names.
        record_ids: records, in the order wanted.
        label_names: labels, in the order wanted.
        args: where the records are.

    Returns:
        (records, labels) float32.

    Raises:
        ValueError: a teacher that is no classifier of these labels.
    """
    total = np.zeros((len(record_ids), len(label_names)), np.float32)
    for teacher in teachers:
        total += _probabilities(teacher.strip(), record_ids, label_names, args)
    return total / len(teachers)


@torch.inference_mode()
def _probabilities(
    teacher: str, record_ids: Sequence[str], label_names: Sequence[str], args: FinetuneArguments
) -> np.ndarray:
    model, feature_extractor = load_checkpoint(teacher)
    found = list(model.config.id2label.values())
    if not head_of(model).is_classifier or found != list(label_names):
        raise ValueError(f"teachers: expected a classifier of {', '.join(label_names)}, got {teacher}")
    dataset = rows.load_dataset(args, feature_extractor, label_level=args.label_level)
    position = {record: row for row, record in enumerate(dataset["record_id"])}
    part = dataset.select([position[record] for record in record_ids])
    read = input_names(model.config)
    collator = EcgCollator(model.config.lead_names, sample_columns=weight_columns(model.config))
    loader = DataLoader(NumberedRows(part, collator.reads), batch_size=args.batch_size, collate_fn=collator)
    logits = [model(**{name: batch[name] for name in read}).logits for batch in loader]
    return torch.cat(logits).sigmoid().numpy()
