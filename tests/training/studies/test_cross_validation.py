"""Repeated cross-validation: patients apart, nothing chosen on those who are judged, resumable fold by fold."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fixtures.training_runs import COMMON, TINY_MODEL

from ecgdan_hf.evaluation.comparators.comparison import age_sex_scores
from ecgdan_hf.evaluation.report import survival_report
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.model.survival_ecgdan import survival_curve
from ecgdan_hf.training.arguments.fields import EvaluateArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.studies import cross_validation, cv_fold

SHORT = {name: value for name, value in COMMON.items() if name != "num_proc"} | {"epochs": 1}


@pytest.fixture(scope="module")
def cv_args(cohort: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory):
    def build(folder: Path | None = None, **given):
        common = given.pop("common", {**SHORT, "epochs": COMMON["epochs"]})
        return EvaluateArguments(
            protocol="repeated-cv",
            data="csv",
            data_dir=given.pop("data_dir", str(cohort)),
            cache_dir=str(cache),
            output_dir=str(folder or tmp_path_factory.mktemp("cv") / "out"),
            model=TINY_MODEL,
            common=common,
            num_proc=1,
            bootstrap=20,
            **{"seeds": "0,1", **given},
        )

    return build


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures out, which the report of `finished` has."""
    monkeypatch.setattr(survival_report, "_draw", lambda folder, judged: {})


@pytest.fixture(scope="module")
def finished(cv_args):
    args = cv_args()
    return args, cross_validation.cross_validate(args)


def test_every_record_is_judged_once_for_each_seed(finished):
    args, metrics = finished
    predictions = pd.read_csv(Path(args.output_dir) / "predictions.csv", dtype={"record_id": str, "patient_id": str})
    assert (predictions.groupby("seed")["record_id"].nunique() == 48).all() and len(predictions) == 96
    assert sum(each["num_records"] for each in metrics["splits"]["folds"]) == 96


def test_no_patient_is_both_judged_and_pretrained_or_fine_tuned_on_also_through_records_without_an_outcome(
    cv_args, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
):
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str})
    table["file"] = [str(cohort / name) for name in table["file"]]
    table["patient_id"] = [f"p{number // 2}" for number in range(len(table))]  # two records each ...
    outcomes = table[["record_id", "event", "time", "log_hazard"]].iloc[::2]  # ... of which the first has an outcome
    outcomes = outcomes.assign(event=[1, 0] * (len(outcomes) // 2))
    outcomes.to_csv(tmp_path / "outcomes.csv", index=False)
    table.drop(columns=["event", "time", "log_hazard"]).to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "pretrain.yaml").write_text(
        yaml.safe_dump({**COMMON, "epochs": 1, "text_model": "none"}), encoding="utf-8"
    )
    seen: list[tuple[set, set]] = []
    plain = rows.inner_split

    def spy(dataset, judged, args, stratify_by):
        parts = plain(dataset, judged, args, stratify_by)
        learned = {patient for part in (parts["train"], parts["valid"]) for patient in part["patient_id"]}
        seen.append((learned, set(judged["patient_id"])))
        return parts

    monkeypatch.setattr(rows, "inner_split", spy)
    given = {"data_dir": str(tmp_path / "table.csv"), "labels": str(tmp_path / "outcomes.csv"), "seeds": "0"}
    given |= {"pretrain": str(tmp_path / "pretrain.yaml"), "common": SHORT}
    args = cv_args(tmp_path / "out", measurements=False, random_encoder=False, **given)
    said: list[str] = []
    metrics = cross_validation.cross_validate(args, say=said.append)
    assert list(metrics["models"])[:3] == ["ECG-DAN", "no pretraining", "few-events model"]
    assert any("(few: below 250): use the few-events model" in line for line in said)
    assert len(seen) == 8 and all(learned and not learned & judged for learned, judged in seen)
    assert metrics["data"]["num_records"] == 24 and metrics["data"]["num_patients"] == 24
    for fold, counts in enumerate(metrics["splits"]["folds"], start=1):
        pretrained = RunFolder(tmp_path / "out" / f"seed-0-fold-{fold}" / "pretraining").metrics
        assert sum(pretrained["num_records"].values()) == 48 - 2 * counts["num_records"]
        tuned = RunFolder(tmp_path / "out" / f"seed-0-fold-{fold}" / "ecg-dan").metrics
        assert tuned["checkpoint"].endswith(f"seed-0-fold-{fold}/pretraining")


def test_risks_are_those_of_the_checkpoint_and_comparators_know_the_training_rows_alone(finished, cohort: Path):
    folder = Path(finished[0].output_dir) / "seed-0-fold-1"
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"record_id": str})
    model, _ = load_checkpoint(folder / "ecg-dan")
    log_hazard = torch.from_numpy(predictions["ECG-DAN"].to_numpy())
    knots = model.baseline.times.double(), model.baseline.log_cumulative_hazard.double()
    risk = 1 - survival_curve(log_hazard, *knots, torch.tensor([5.0]).double())[:, 0].numpy()
    np.testing.assert_allclose(predictions["ECG-DAN | risk within 5 years"], risk, atol=1e-6)
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str})
    train = table[~table["record_id"].isin(predictions["record_id"])]
    alone = age_sex_scores(train, predictions[["age", "sex"]])
    np.testing.assert_allclose(predictions["age and sex"], alone, atol=1e-4)


def test_the_report_has_every_comparator_and_names_its_spreads(finished):
    _, metrics = finished
    measured = ["ECG measurements", "ECG measurements as 15 flags", "ECG measurements, age and sex"]
    measured.append("15 flags, age and sex")
    others = ["random encoder, linear", *measured, "age and sex", "attainable (true hazard)"]
    assert list(metrics["models"]) == ["ECG-DAN", *others]
    judged = metrics["models"]["ECG-DAN"]
    assert len(judged["over_folds"]["values"]) == 4 and len(judged["over_seeds"]["values"]) == 2
    assert judged["over_seeds"]["mean"] == pytest.approx(np.mean(judged["over_folds"]["values"]), abs=1e-5)
    assert {"ahead", "t_test"} <= set(metrics["models"]["age and sex"])
    assert metrics["simulated_outcome"] is True


def test_the_report_is_a_page_with_its_figures_and_says_what_is_missing(finished):
    folder = Path(finished[0].output_dir)
    page, text = (
        (folder / "report.html").read_text(encoding="utf-8"),
        (folder / "report.md").read_text(encoding="utf-8"),
    )
    drawn = ("kaplan_meier", "kaplan_meier_prevalence", "risk_histogram", "lead_attention", "auc", "decision_curve")
    for name in drawn:
        assert (folder / f"{name}.png").stat().st_size > 10_000 and f"{name}.png" in text
    assert "data:image/png;base64," in page and str(folder) not in page + text
    assert "missing" in text and "simulated" in text and "ECG measurements" in text


def test_an_interrupted_cross_validation_goes_on_where_it_was(finished, cv_args, tmp_path):
    args, metrics = finished
    folder = Path(args.output_dir)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("seed-*/ecg-dan/model.safetensors")}
    (folder / "seed-1-fold-2" / "predictions.csv").unlink()
    (folder / "metrics.json").unlink()
    said: list[str] = []
    again = cross_validation.cross_validate(args, say=said.append)
    assert said == ["seed-1-fold-2: ECG-DAN", "judging"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # the network had finished, its fold had not
    np.testing.assert_equal(again["models"], metrics["models"])


def test_going_on_with_other_arguments_is_refused(finished, cv_args):
    args, _ = finished
    other = cv_args(Path(args.output_dir), folds=3)
    with pytest.raises(ValueError, match=r"folds: the folds in .* began with 2, got 3"):
        cross_validation.cross_validate(other)


def test_a_checkpoint_that_has_seen_the_records_is_refused_or_declared(finished, cv_args):
    args, _ = finished
    tuned = Path(args.output_dir) / "seed-0-fold-1" / "ecg-dan"
    for accepted in (False, True):  # it was fine-tuned on them: nothing makes that acceptable
        again = cv_args(checkpoint=str(tuned), seen_in_pretraining=accepted)
        with pytest.raises(ValueError, match="was trained on records of"):
            cross_validation.cross_validate(again)
        assert not Path(again.output_dir).exists()


def test_pretraining_and_a_checkpoint_are_not_both_asked_for(cv_args):
    with pytest.raises(ValueError, match="checkpoint, pretrain: expected one of the two, got both"):
        cross_validation.cross_validate(cv_args(pretrain="pretrain-rhythm", checkpoint="model_cards/ecg-dan"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"folds": 30}, "folds: expected two patients with an event in each of 30"),
        ({"seeds": "x"}, "seeds: expected numbers such as 1-8 or 1,2,5, got 'x'"),
        ({"horizon_years": "nan"}, "horizon_years: expected positive numbers such as 1,5, got 'nan'"),
        ({"common": {"label_fraction": 0.1}}, "common: label_fraction: repeated-cv makes its own folds"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_written(cv_args, tmp_path, given: dict, message: str):
    args = dataclasses.replace(cv_args(tmp_path / "out", measurements=False), **given)
    with pytest.raises(ValueError, match=message):
        cross_validation.cross_validate(args)
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_was_changed_meanwhile_is_noticed(cv_args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def is_killed(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cv_fold.FoldModels, "predict", is_killed)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"learning_rate": 1e-3}), encoding="utf-8")
    args = cv_args(tmp_path / "out", recipe=str(recipe), seeds="0", measurements=False)
    with pytest.raises(KeyboardInterrupt):
        cross_validation.cross_validate(args)
    recipe.write_text(yaml.safe_dump({"learning_rate": 7e-3}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"recipe: learning_rate: the folds in .* began with 0.001, got 0.007"):
        cross_validation.cross_validate(args)


def test_covariates_are_named_on_all_records_and_stand_beside_the_network_alone(
    cv_args, cohort: Path, tmp_path: Path, undrawn: None
):
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str})
    table["file"] = [str(cohort / name) for name in table["file"]]
    table["stage"] = ["I"] * 40 + ["II"] * 4 + ["IV"] * 4
    table.to_csv(tmp_path / "table.csv", index=False)
    given = {"measurements": False, "random_encoder": False, "seeds": "0"}
    args = cv_args(tmp_path / "out", data_dir=str(tmp_path / "table.csv"), **given)
    args = dataclasses.replace(args, common={**SHORT, "covariates": "age,stage"})
    metrics = cross_validation.cross_validate(args)
    assert "covariates alone" in metrics["models"]
    for fold in (1, 2):
        model, _ = load_checkpoint(tmp_path / "out" / f"seed-0-fold-{fold}" / "ecg-dan")
        assert set(model.config.covariate_names) <= {"age", "stage=II", "stage=IV"}


def test_data_without_follow_up_are_refused_before_anything_is_written(cv_args, no_outcomes: Path, tmp_path: Path):
    args = dataclasses.replace(cv_args(tmp_path / "out", measurements=False), data_dir=str(no_outcomes))
    with pytest.raises(ValueError, match=r"outcomes: csv has no event and time of its own here; .* \(--labels\)"):
        cross_validation.cross_validate(args)
    assert not Path(str(args.output_dir)).exists()
