"""Competing causes from the table of outcomes to risks: training, files, pipeline, recalibration and evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import ecgdan_hf  # noqa: F401  # registers the pipelines
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.evaluation.protocols.held_out import held_out
from ecgdan_hf.evaluation.report.comparison_text import held_out_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.predict import predict
from ecgdan_hf.inference.rows import predict_rows
from ecgdan_hf.training import finetune, recalibration
from ecgdan_hf.training.arguments.fields import FinetuneArguments, RecalibrateArguments
from ecgdan_hf.training.core import rows

Build = Callable[..., FinetuneArguments]
CAUSES = "heart failure,death"


@pytest.fixture(scope="module")
def outcomes(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort's follow-up, in which every second of those without the event dies of something else."""
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str})[["record_id", "event", "time"]]
    died = (table["event"] == 0) & (np.arange(len(table)) % 2 == 1)
    table = table.assign(event=table["event"].mask(died, 2), time=table["time"].mask(died, table["time"] * 0.7))
    path = tmp_path_factory.mktemp("outcomes") / "outcomes.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def build(module_finetune_args: Build, outcomes: Path) -> Build:
    common = {"labels": str(outcomes), "causes": CAUSES, "covariates": "age,sex", "epochs": 1, "bootstrap": 5}
    folds = {"train_folds": "1-6", "test_folds": "7-10"}
    return lambda name, **flags: module_finetune_args(name, **{**common, **folds, **flags})


METHODS = ("cox", "discrete", "few-events")


@pytest.fixture(scope="module", params=METHODS)
def run(request: Any, build: Build, encoder: Path) -> tuple[FinetuneArguments, dict[str, Any]]:
    given = {
        "cox": {},
        "discrete": {"hazard": "discrete", "hazard_cuts": "0,1,3,12"},
        "few-events": {"method": "few-events", "checkpoint": str(encoder), "epochs": 60},
    }
    args = build(request.param, **given[request.param])
    return args, finetune.finetune(args)


def test_each_cause_has_a_risk_and_no_two_of_them_can_both_come_first(run) -> None:
    args, metrics = run
    model, extractor = load_checkpoint(str(args.output_dir))
    assert model.config.risk_names == ["heart failure", "death"] and model.config.endpoint == "heart failure"
    found = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv", dtype={"record_id": str})
    found = found[found["part"] == "test"]
    dataset = rows.load_dataset(args, extractor, outcomes=args.labels)
    position = {record: row for row, record in enumerate(dataset["record_id"])}
    scores, risks = predict_rows(
        model, dataset.select([position[record] for record in found["record_id"]]), [1.0, 5.0]
    )
    assert found[["log_hazard", "log_hazard_death"]].to_numpy() == pytest.approx(scores, abs=1e-4)
    assert found[["risk_1y", "risk_5y", "risk_1y_death", "risk_5y_death"]].to_numpy() == pytest.approx(
        risks.reshape(len(found), 4), abs=1e-4
    )
    assert (risks > 0).all() and (risks.sum(axis=1) < 1).all()
    truth = found["time"], found["log_hazard_death"]
    expected = concordance_index(FollowUp.of_cause(found["event"], 2), *truth)
    assert metrics["test"]["causes"]["death"]["concordance_index"]["estimate"] == pytest.approx(expected)
    assert metrics["test"]["num_competing_events"] == int((found["event"] == 2).sum())


def test_files_and_the_pipeline_give_the_risk_of_every_cause(run, cohort: Path) -> None:
    from transformers import pipeline

    folder = str(run[0].output_dir)
    file = sorted((cohort / "records").rglob("*.hea"))[0]
    model, extractor = load_checkpoint(folder)
    row = predict(file, model, extractor, missing_covariates="mean").iloc[0]
    risk_of = pipeline("ecg-survival", model=folder)
    answer = risk_of({"path": str(file)}, horizon_years=[1, 5], return_curve=True)
    assert row["endpoint"] == answer["endpoint"] == "simulated heart failure"
    for name, suffix in (("heart failure", ""), ("death", "_death")):
        one = answer["causes"][name]
        assert one["log_hazard"] == pytest.approx(row[f"log_hazard{suffix}"], abs=1e-5)
        for at in one["risk"]:
            assert at["risk"] == pytest.approx(row[f"risk_{at['years']:g}y{suffix}"], abs=1e-5)
            assert at["low"] is None or at["low"] <= at["risk"] <= at["high"]
        assert run[0].hazard == "discrete" or one["risk"][1]["low"] < one["risk"][1]["high"]
    assert answer["risk"] == answer["causes"]["heart failure"]["risk"]
    curve = answer["curve"]
    total = np.array(curve["survival"]) + np.sum([curve["incidence"][name] for name in answer["causes"]], axis=0)
    assert total == pytest.approx(1.0)
    if run[0].hazard == "discrete":  # one run is enough
        check_evaluation(run[0])


def check_evaluation(args: FinetuneArguments) -> None:
    """Competing events are counted apart; comparators are fitted to the endpoint alone."""
    folder = str(args.output_dir)
    result = held_out(
        {"ours": folder},
        lambda extractor: rows.load_dataset(args, extractor, outcomes=args.labels),
        [7, 8, 9, 10],
        [1, 2, 3, 4, 5, 6],
        with_random_encoder=False,
        n=5,
        thresholds=[0.2],
        score_columns=["age"],
    )
    event = result.predictions["event"]
    assert result.metrics["num_competing_events"] == int((event == 2).sum()) > 0
    assert result.metrics["num_events"] == int((event == 1).sum())
    assert set(result.metrics["models"]) == {"ours", "age and sex", "age (given)", "attainable (true hazard)"}
    row = result.metrics["decisions"]["thresholds"][0]
    assert row["threshold"] == 0.2 and 0 <= row["share_above"]["estimate"] <= 1
    assert "reclassification" not in result.metrics  # age is no probability
    assert "| threshold | sensitivity |" in held_out_text(result.metrics)


def test_recalibration_fits_every_cause_to_the_new_population(build: Build, encoder: Path, cohort, cache, tmp_path):
    few = {"method": "few-events", "checkpoint": str(encoder), "epochs": 60}
    args = build("here", **few, train_folds="1-4", test_folds=None)
    finetune.finetune(args)
    common = {"data": "csv", "data_dir": str(cohort), "cache_dir": str(cache), "num_proc": 1, "horizon_years": 2.0}
    given = RecalibrateArguments(
        checkpoint=str(args.output_dir),
        fit_folds="5-10",
        labels=args.labels,
        output_dir=str(tmp_path / "there"),
        **common,
    )
    metrics = recalibration.recalibrate_checkpoint(given)
    assert metrics["slope"] == [1.0, 1.0]
    assert metrics["after"]["observed_over_expected"]["estimate"] == pytest.approx(1.0, abs=0.1)
    before, after = (load_checkpoint(folder)[0] for folder in (str(args.output_dir), str(given.output_dir)))
    assert all(torch.equal(*pair) for pair in zip(before.parameters(), after.parameters(), strict=True))
    assert before.baseline.knots.shape != after.baseline.knots.shape


REFUSED = [
    ({"causes": None}, r"event: expected 0 \(censored\) and 1 \(happened\), got 2; name the causes"),
    ({"causes": "heart failure,death,cancer"}, r"at least one event of cancer \(code 3\) in the train part"),
    ({"hazard": "discrete", "hazard_cuts": "1,2"}, "hazard_cuts: expected years ascending from 0"),
    ({"hazard_cuts": "0,1"}, "hazard_cuts: only hazard discrete has intervals, got 0,1 for cox"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_outcomes_that_do_not_fit_the_causes_are_refused_in_one_line(build: Build, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        finetune.finetune(build("refused", **given))
    assert "\n" not in str(caught.value)
