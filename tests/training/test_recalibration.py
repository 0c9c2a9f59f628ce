"""A checkpoint for another population: the weights stay, the risks fit."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from ecgdan_hf.evaluation.folds import check_unseen
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.training import finetune, recalibration
from ecgdan_hf.training.arguments.fields import RecalibrateArguments


@pytest.fixture(scope="module")
def trained(module_finetune_args) -> str:
    args = module_finetune_args("recalibrated", train_folds="1-4", epochs=1)
    finetune.finetune(args)
    return str(args.output_dir)


@pytest.fixture
def build(trained: str, cohort: Path, cache: Path, tmp_path: Path):
    def make(**given) -> RecalibrateArguments:
        paths = {"data": "csv", "data_dir": str(cohort), "cache_dir": str(cache), "output_dir": str(tmp_path / "out")}
        return RecalibrateArguments(**{"checkpoint": trained, "fit_folds": "5-10", "num_proc": 1, **paths, **given})

    return make


def test_another_population_changes_risks_and_no_weight(build, trained: str, cohort: Path, tmp_path: Path):
    outcomes = pd.read_csv(cohort / "table.csv", dtype={"record_id": str, "patient_id": str})
    outcomes = outcomes[["record_id", "event", "time"]].assign(event=1, time=lambda table: table["time"].clip(upper=8))
    outcomes.to_csv(tmp_path / "outcomes.csv", index=False)  # everybody has the event: far more than it was trained on
    args = build(labels=str(tmp_path / "outcomes.csv"), horizon_years=2.0)
    metrics = recalibration.recalibrate_checkpoint(args)
    apart = [abs(metrics[when]["observed_over_expected"]["estimate"] - 1) for when in ("before", "after")]
    assert apart[1] < 0.1 < apart[0]
    before, after = (load_checkpoint(folder)[0] for folder in (trained, str(args.output_dir)))
    assert all(torch.equal(*pair) for pair in zip(before.parameters(), after.parameters(), strict=True))
    report = (Path(str(args.output_dir)) / "report.md").read_text(encoding="utf-8")
    assert "the records it was fitted to: optimistic" in report and "simulated" in report


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fit_folds": "1-4"}, r"was trained on folds \[1, 2, 3, 4\]"),
        ({"fit_folds": None}, "was trained on records of"),
        ({"fit_folds": "5-7", "test_folds": "7"}, "fit_folds, test_folds: expected different folds, got 5-7 and 7"),
        ({"method": "weights"}, "method: expected baseline or slope, got 'weights'"),
        ({"checkpoint": None}, "checkpoint: expected one, got none; give --checkpoint"),
        ({"checkpoint": "model_cards/ecg-dan"}, "expected a fine-tuned survival checkpoint, got EcgDanForPreTraining"),
    ],
)
def test_what_cannot_be_recalibrated_is_refused_and_nothing_written(build, given: dict, message: str):
    args = build(**given)
    with pytest.raises(ValueError, match=message):
        recalibration.recalibrate_checkpoint(args)
    assert not Path(str(args.output_dir)).exists()


def test_a_recalibrated_checkpoint_remembers_what_it_was_trained_on_and_recalibrated_to(build, cohort: Path):
    args = build()
    recalibration.recalibrate_checkpoint(args)
    folder = str(args.output_dir)
    with pytest.raises(ValueError, match=r"was trained on folds \[1\]"):
        check_unseen(folder, [1], str(cohort))
    with pytest.raises(ValueError, match="was recalibrated to records of"):
        check_unseen(folder, [7], str(cohort))
    assert load_checkpoint(folder)[0].config.simulated_outcome is True


def test_a_checkpoint_is_not_replaced_by_its_recalibration_nor_judged_beyond_its_follow_up(build, trained: str):
    for given, message in (
        ({"output_dir": trained, "overwrite": True}, "folder"),
        (
            {"horizon_years": 50.0},
            "horizon_years: expected at most .*, the follow-up the risks were fitted to",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            recalibration.recalibrate_checkpoint(build(**given))
    assert load_checkpoint(trained)[0].config.calibration_slope == 1


def test_a_checkpoint_from_before_risks_had_limits_is_recalibrated_too(build, trained: str, tmp_path: Path):
    older = tmp_path / "older"
    shutil.copytree(trained, older)
    weights = load_file(older / "model.safetensors")
    del weights["baseline.standard_error"]
    save_file(weights, older / "model.safetensors", metadata={"format": "pt"})
    args = build(checkpoint=str(older))
    recalibration.recalibrate_checkpoint(args)
    assert load_checkpoint(str(args.output_dir))[0].baseline.fitted.standard_error.isfinite().all()
