"""Delayed entry from the table of outcomes to training, baseline, evaluation and recalibration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ecgdan_hf.data.loading import load
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.evaluation.protocols.held_out import held_out
from ecgdan_hf.evaluation.report.comparison_text import held_out_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.rows import columns_of, embed, predict_rows
from ecgdan_hf.model.risk_ecgdan import baseline_hazard
from ecgdan_hf.model.survival_ecgdan import cox_loss
from ecgdan_hf.training import finetune, recalibration
from ecgdan_hf.training.arguments.fields import FinetuneArguments, RecalibrateArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.few_events import FewEventsHead
from ecgdan_hf.training.core.tasks import OUTCOME, outcome_of

Build = Callable[..., FinetuneArguments]


@pytest.fixture(scope="module")
def outcomes(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort's follow-up in days, of which every second begins after a third of it."""
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str})[["record_id", "event", "time"]]
    days = (table.pop("time") * 365.25).round(2)
    late = np.arange(len(table)) % 2 == 1
    path = tmp_path_factory.mktemp("outcomes") / "outcomes.csv"
    table.assign(time_days=days, entry=(days / 3).where(late, 0)).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module", params=["few-events", "fine-tune"])
def run(request: Any, module_finetune_args: Build, outcomes: Path, encoder: Path) -> tuple[Any, dict[str, Any]]:
    few = {"method": "few-events", "checkpoint": str(encoder), "epochs": 60}
    given = {"epochs": 1, "bootstrap": 3, **(few if request.param == "few-events" else {})}
    folds = {"train_folds": "1-4", "valid_folds": "5-6", "test_folds": "7-10"}
    args = module_finetune_args(request.param, labels=str(outcomes), **{**given, **folds})
    return args, finetune.finetune(args)


def test_the_baseline_is_that_of_those_at_risk(run) -> None:
    args, _ = run
    model, extractor = load_checkpoint(str(args.output_dir))
    dataset = rows.load_dataset(args, extractor, outcomes=args.labels)
    fitted = [1, 2, 3, 4, 5, 6] if args.method == "few-events" else [1, 2, 3, 4]
    train = dataset.filter(lambda fold: fold in fitted, input_columns="fold")
    outcome = outcome_of(train)
    assert 0 < float(outcome["entry"].max()) < 20  # years
    log_hazard = torch.from_numpy(predict_rows(model, train, [1.0])[0][:, 0])
    expected = baseline_hazard(log_hazard, **outcome)
    assert model.baseline.log_cumulative_hazard.numpy() == pytest.approx(
        expected.log_cumulative_hazard.numpy(), abs=1e-3
    )
    if args.method == "few-events":
        none = np.empty((len(train), 0))
        head = FewEventsHead.fit(embed(model, train), none, *_truth(columns_of(train, OUTCOME)))
        centred = log_hazard - log_hazard.mean()
        again = head.log_hazard(embed(model, train), none)
        assert centred.numpy() == pytest.approx(again - again.mean(), abs=1e-4)


def _truth(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return table["event"].to_numpy(np.float64), FollowUp.time_of(table)


def test_the_epoch_and_the_test_are_judged_on_pairs_that_were_at_risk_together(run) -> None:
    args, metrics = run
    table = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv").query("part == 'test'")
    expected = concordance_index(*_truth(table), table["log_hazard"])
    assert metrics["test"]["concordance_index"]["estimate"] == pytest.approx(expected, abs=1e-6)
    assert metrics["test"]["num_delayed_entry"] == (table["entry"] > 0).sum() > 0
    if args.method != "few-events":
        valid = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv").query("part == 'valid'")
        found = concordance_index(*_truth(valid), valid["log_hazard"])
        assert metrics["history"][-1]["concordance_index"] == pytest.approx(found, abs=1e-6)


def test_the_loss_of_a_batch_is_that_of_those_at_risk(run) -> None:
    args, _ = run
    if args.method == "few-events":
        pytest.skip("nothing is trained by batches")
    model, extractor = load_checkpoint(str(args.output_dir))
    dataset = rows.load_dataset(args, extractor, outcomes=args.labels)
    training = finetune.SurvivalFinetuning(args, None, rows.split)
    training.config = model.config
    collator = training.supervised_collator(dataset, args)
    given = collator.rows(dataset)
    batch = collator([given[row] for row in range(24)])
    with torch.no_grad():
        output = model.eval()(**batch)
    event, time, entry = (batch[name] for name in OUTCOME)
    assert output.cox_loss == pytest.approx(cox_loss(output.log_hazard, event, time, entry=entry).item(), abs=1e-6)
    assert output.cox_loss != pytest.approx(cox_loss(output.log_hazard, event, time).item(), abs=1e-4)


def test_evaluation_and_recalibration_know_it_or_say_that_they_do_not(run, cohort, cache, tmp_path) -> None:
    args, _ = run
    if args.method != "few-events":
        pytest.skip("one run is enough")
    result = held_out(
        {"ours": str(args.output_dir)},
        lambda extractor: rows.load_dataset(args, extractor, outcomes=args.labels),
        [7, 8, 9, 10],
        [1, 2, 3, 4, 5, 6],
        with_random_encoder=False,
        n=3,
        thresholds=[0.2],
    )
    table, text = result.predictions, held_out_text(result.metrics)
    expected = concordance_index(*_truth(table), table["age and sex"])
    assert result.metrics["models"]["age and sex"]["estimate"] == pytest.approx(expected)
    assert "decisions" not in result.metrics
    assert f"{result.metrics['num_delayed_entry']} records came under observation after their ECG" in text
    given = RecalibrateArguments(
        checkpoint=str(args.output_dir), data="csv", data_dir=str(cohort), cache_dir=str(cache), num_proc=1,
        labels=args.labels, fit_folds="7-10", output_dir=str(tmp_path / "there"), horizon_years=1.0,
    )  # fmt: skip
    metrics = recalibration.recalibrate_checkpoint(given)
    assert metrics["after"]["predicted_risk"] == pytest.approx(metrics["after"]["observed_risk"], abs=0.1)
    assert "brier_score" not in metrics["after"]
    assert "Some records entered late" in (tmp_path / "there" / "report.md").read_text()


def test_another_table_of_outcomes_does_not_inherit_the_entries(cohort: Path, outcomes: Path, cache: Path) -> None:
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str})
    table["file"] = [str(cohort / name) for name in table["file"]]
    both = table.assign(entry=table["time"] / 2)
    both.to_csv(outcomes.parent / "with_entry.csv", index=False)
    plain = table[["record_id", "event", "time"]]
    own = load("csv", outcomes.parent / "with_entry.csv", streaming=True)
    joined = load("csv", outcomes.parent / "with_entry.csv", outcomes=plain, streaming=True)
    assert "entry" in own.column_names and "entry" not in joined.column_names
