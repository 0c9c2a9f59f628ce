"""Repeated cross-validation: patients apart, nothing chosen on those who are judged, resumable fold by fold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from training.conftest import COMMON, TINY_MODEL

from ecgdan_hf.training import cross_validation
from ecgdan_hf.training.arguments import EvaluateArguments
from ecgdan_hf.training.run_folder import as_json, read_metrics


@pytest.fixture(scope="module")
def cv_args(cohort: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory):
    def build(folder: Path | None = None, **given):
        common = {name: value for name, value in COMMON.items() if name != "num_proc"}
        return EvaluateArguments(
            protocol="repeated-cv",
            data="csv",
            data_dir=str(cohort),
            cache_dir=str(cache),
            output_dir=str(folder or tmp_path_factory.mktemp("cv") / "out"),
            model=TINY_MODEL,
            common=common,
            num_proc=1,
            bootstrap=20,
            **{"seeds": "0,1", **given},
        )

    return build


@pytest.fixture(scope="module")
def finished(cv_args):
    args = cv_args()
    return args, cross_validation.run(args)


def test_every_record_is_judged_once_for_each_seed_by_models_that_never_saw_its_patient(finished):
    args, metrics = finished
    folder = Path(args.output_dir)
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"record_id": str, "patient_id": str})
    assert (predictions.groupby("seed")["record_id"].nunique() == 48).all() and len(predictions) == 96
    for part in sorted(folder.glob("seed-*")):
        judged = pd.read_csv(part / "predictions.csv", dtype={"patient_id": str})
        chosen_on = pd.read_csv(part / "ecg-dan" / "predictions.csv", dtype={"patient_id": str}).query(
            "part == 'valid'"
        )
        assert len(chosen_on) and not set(judged["patient_id"]) & set(chosen_on["patient_id"])
    assert [each["num_events"] for each in metrics["splits"]["folds"]]


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
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for name in ("kaplan_meier", "kaplan_meier_prevalence", "risk_histogram", "lead_attention", "auc"):
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
    again = cross_validation.run(args, say=said.append)
    assert said == ["seed-1-fold-2: ECG-DAN", "judging"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # the network had finished, its fold had not
    assert as_json(again["models"]) == as_json(metrics["models"])


def test_going_on_with_other_arguments_is_refused(finished, cv_args):
    args, _ = finished
    other = cv_args(Path(args.output_dir), folds=3)
    with pytest.raises(ValueError, match=r"folds: the folds in .* began with 2, got 3"):
        cross_validation.run(other)


def test_a_checkpoint_that_has_seen_the_records_is_refused_or_declared(finished, cv_args):
    args, _ = finished
    tuned = Path(args.output_dir) / "seed-0-fold-1" / "ecg-dan"
    for accepted in (False, True):  # it was fine-tuned on them: nothing makes that acceptable
        again = cv_args(checkpoint=str(tuned), seen_in_pretraining=accepted)
        with pytest.raises(ValueError, match="was trained on records of"):
            cross_validation.run(again)
        assert not Path(again.output_dir).exists()


def test_a_fold_pretrains_without_the_patients_it_judges(cv_args, tmp_path):
    (tmp_path / "pretrain.yaml").write_text(yaml.safe_dump({**COMMON, "epochs": 1, "text_model": "none"}))
    args = cv_args(pretrain=str(tmp_path / "pretrain.yaml"), seeds="0")
    metrics = cross_validation.run(args)
    folder = Path(args.output_dir)
    assert list(metrics["models"])[:2] == ["ECG-DAN", "no pretraining"]
    for fold, counts in enumerate(metrics["splits"]["folds"], start=1):
        pretrained = read_metrics(folder / f"seed-0-fold-{fold}" / "pretraining")
        assert sum(pretrained["num_records"].values()) == 48 - counts["num_records"]
        tuned = read_metrics(folder / f"seed-0-fold-{fold}" / "ecg-dan")
        assert tuned["checkpoint"].endswith(f"seed-0-fold-{fold}/pretraining")


def test_pretraining_and_a_checkpoint_are_not_both_asked_for(cv_args):
    with pytest.raises(ValueError, match="checkpoint, pretrain: expected one of the two, got both"):
        cross_validation.run(cv_args(pretrain="pretrain-rhythm", checkpoint="model_cards/ecg-dan"))
