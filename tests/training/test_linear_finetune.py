"""Labels by a linear classifier on a frozen encoder: the checkpoint is the fit, and nothing else was trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from ecgdan_hf.evaluation.comparators.linear_classifier import LinearClassifier
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.rows import embed, label_matrix, score_rows
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.finetune import finetune

Build = Callable[..., FinetuneArguments]


def arguments(build: Build, encoder: Path, name: str, **flags: Any) -> FinetuneArguments:
    given = {"task": "classification", "method": "linear", "epochs": 60, "train_folds": "1-7", "test_folds": "8-10"}
    return build(name, checkpoint=str(encoder), **{**given, **flags})


def test_the_checkpoint_is_the_fit_and_its_encoder_the_pretrained_one(module_finetune_args: Build, encoder: Path):
    args = arguments(module_finetune_args, encoder, "linear")
    metrics = finetune(args)
    model, extractor = load_checkpoint(str(args.output_dir))
    before = load_checkpoint(encoder)[0].ecgdan.state_dict()
    assert all(torch.equal(weights, before[name]) for name, weights in model.ecgdan.state_dict().items())
    dataset = rows.load_dataset(args, extractor)
    found = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv", dtype={"record_id": str})
    tested = np.isin(np.asarray(dataset["record_id"]), found["record_id"].to_numpy())
    fit, test = (dataset.select(np.flatnonzero(kept)) for kept in (~tested, tested))
    labels, penalties = label_matrix(fit), metrics["inverse_penalties"].values()
    fits = [
        LinearClassifier.fit(embed(model, fit), labels[:, [column]], regularisation=(penalty,))
        for column, penalty in enumerate(penalties)
    ]
    expected = np.hstack([fitted.logits(embed(model, test)) for fitted in fits])
    np.testing.assert_allclose(score_rows(model, test), expected, atol=0.02)
    first = model.config.label_names[0]
    by_record = found.set_index("record_id").loc[list(test["record_id"])]
    np.testing.assert_allclose(by_record[first], expit(expected[:, 0]), atol=0.01)
    assert metrics["method"] == "linear" and "valid" not in metrics
    assert metrics["num_records"] == {"train": len(fit), "test": len(test)}
    assert set(model.config.thresholds) == set(model.config.label_names)
    assert metrics["num_positives"][first] == labels[:, 0].sum()


def test_it_is_fitted_to_the_leads_that_are_asked_for(module_finetune_args: Build, encoder: Path):
    args = arguments(module_finetune_args, encoder, "lead I", leads="I")
    finetune(args)
    model, extractor = load_checkpoint(str(args.output_dir))
    dataset = rows.load_dataset(args, extractor)
    found = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv", dtype={"record_id": str})
    assert model.config.used_leads == ["I"] and not np.asarray(dataset["lead_mask"])[:, 1:].any()
    row = list(dataset["record_id"]).index(found["record_id"][0])
    score = score_rows(model, dataset.select([row]))[0, 0]
    assert expit(score) == pytest.approx(found[model.config.label_names[0]][0], abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, "epochs: only method fine-tune uses it, got method linear; leave it out"),
        ({"auxiliary_level": "statement"}, "auxiliary_level: "),
        ({"method": "few-events"}, "method: expected fine-tune or linear for task classification, got few-events"),
        ({"task": "survival"}, "method: expected fine-tune or few-events for task survival, got linear"),
    ],
)
def test_what_it_would_ignore_is_refused(finetune_args: Build, encoder: Path, change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        finetune(arguments(finetune_args, encoder, "refused", **change))


def test_it_needs_an_encoder(finetune_args: Build):
    with pytest.raises(ValueError, match="checkpoint: method linear needs a pretrained encoder, got none"):
        finetune(finetune_args("none", task="classification", method="linear", epochs=60))
