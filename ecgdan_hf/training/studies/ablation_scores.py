"""Scores of test records by the encoder of one pretraining run: linear probes and zero-shot.

Columns: `record_id`, `patient_id`, `true_LABEL`, and `KIND LABEL` with the kinds `probe` (all labels), `few0`, `few1`
... (a share of the labelled patients, drawn each time) and `zero` (zero-shot). Higher means more likely.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.data.text.statements import read_statements
from ecgdan_hf.evaluation.comparators.baselines import (
    random_encoder,
)
from ecgdan_hf.evaluation.comparators.comparison import fit_logistic
from ecgdan_hf.evaluation.protocols.reduced_leads import row_batches
from ecgdan_hf.evaluation.protocols.zero_shot import group_scores, statement_groups
from ecgdan_hf.files import write_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.rows import columns_of, embed, label_matrix
from ecgdan_hf.training.arguments.fields import PretrainArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.frozen_encoders import encoder_config, fit_and_test
from ecgdan_hf.training.zero_shot_probe import similarity

_NUM_SUBSETS = 5
"""Draws of the patients whose labels a probe with few labels sees: one draw may be lucky."""


def scores_of_run(
    args: PretrainArguments, label_fraction: float | None, untrained: bool = False, batch_size: int = 256
) -> pd.DataFrame:
    """Scores of the test records by a finished run; cached in its folder.

    Args:
        args: of the run.
        label_fraction: share of the patients for further probes with few labels; None leaves them out.
        untrained: use random weights of the same network instead.
        batch_size: records per forward pass.

    Raises:
        ValueError: data without labels.
    """
    share = "" if label_fraction is None else f"-{label_fraction:g}"
    path = Path(str(args.output_dir)) / f"{'untrained' if untrained else 'scores'}{share}.csv"
    if not path.is_file():
        table = _score(args, label_fraction, untrained, batch_size)
        write_text(path, table.to_csv(index=False, float_format="%.6g"))
    return pd.read_csv(path, dtype={"record_id": str, "patient_id": str})


def _score(args: PretrainArguments, label_fraction: float | None, untrained: bool, batch_size: int) -> pd.DataFrame:
    model, extractor = load_checkpoint(str(args.output_dir))
    if untrained:
        model = random_encoder(model.config, args.seed)
    dataset = rows.load_dataset(args, extractor, label_level="superclass")
    if "labels" not in dataset.column_names:
        raise ValueError("labels: an ablation needs a labels column in the data, found none")
    fit, test = fit_and_test(dataset, args, None)
    names, columns = dataset.features["labels"].feature.names, [label_matrix(test)]
    heads = [f"true_{name}" for name in names]
    for kind, scores in _all_scores(model, fit, test, args, label_fraction, batch_size):
        columns.append(scores)
        heads += [f"{kind} {name}" for name in names]
    table = columns_of(test, ["record_id", "patient_id"])
    return pd.concat([table, pd.DataFrame(np.hstack(columns), columns=heads)], axis=1)


def _all_scores(
    model: Any, fit: Any, test: Any, args: PretrainArguments, label_fraction: float | None, batch_size: int
) -> Iterator[tuple[str, np.ndarray]]:
    features, tested = (embed(model, row_batches(part, batch_size)) for part in (fit, test))
    labels, patients = label_matrix(fit), np.asarray(fit["patient_id"])
    yield "probe", fit_logistic(features, labels, tested, patients)
    for seed in range(0 if label_fraction is None else _NUM_SUBSETS):
        kept = rows.labelled_subset(patients, labels, float(label_fraction or 1), seed)
        yield f"few{seed}", fit_logistic(features[kept], labels[kept], tested, patients[kept])
    prompts = list(encoder_config(model).prompt_labels)
    has_statements = bool(find_source(args.data, args.data_dir).label_levels)
    if prompts and getattr(model, "alignment_head", None) is not None and has_statements:
        groups = statement_groups(read_statements(str(args.data_dir)), "superclass")
        logits = similarity(model, row_batches(test, batch_size), model.alignment_head.prompt_embeds)
        yield "zero", group_scores(logits, prompts, groups)
