"""The held-out protocol on tiny checkpoints: controls, refusals, files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.data.loading import load
from ecgdan_hf.data.measure.table import measure_table
from ecgdan_hf.data.simulate.synthetic import write_cohort
from ecgdan_hf.evaluation.comparators.comparison import age_sex_scores
from ecgdan_hf.evaluation.comparators.measurement_cox import COMPARATORS
from ecgdan_hf.evaluation.protocols.held_out import HeldOut, held_out
from ecgdan_hf.evaluation.report.comparison_text import held_out_text
from ecgdan_hf.evaluation.report.survival_report import write_held_out_report
from ecgdan_hf.training import finetune, pretrain
from ecgdan_hf.training.arguments.fields import FinetuneArguments, PretrainArguments

Build = Callable[..., FinetuneArguments]
TRAIN, TEST = list(range(1, 7)), list(range(7, 11))


@pytest.fixture(scope="module")
def checkpoint(module_finetune_args: Build) -> str:
    args = module_finetune_args("judged", train_folds="1-6", epochs=2, learning_rate=0.01, covariates="age")
    finetune.finetune(args)
    return str(args.output_dir)


@pytest.fixture
def judge(cohort: Path, cache: Path) -> Callable[..., HeldOut]:
    def run(checkpoints: dict[str, str], test: list[int] | None = TEST, **options: object) -> HeldOut:
        def load_rows(extractor: object) -> object:
            return load("csv", cohort, feature_extractor=extractor, cache_dir=cache, num_proc=1)

        return held_out(checkpoints, load_rows, test, data_dir=str(cohort), n=20, **options)

    return run


def test_a_survival_model_stands_beside_its_controls_and_the_attainable(
    judge: Callable[..., HeldOut], checkpoint: str, tmp_path: Path
):
    result = judge({"this": checkpoint}, train_folds=TRAIN)
    names = ["this", "age and sex", "random encoder, linear", "attainable (true hazard)"]
    assert list(result.metrics["models"]) == names
    assert result.metrics["simulated_outcome"] is True
    assert "simulated" in held_out_text(result.metrics)
    reported = pd.read_csv(Path(checkpoint).parent / "judged" / "predictions.csv", dtype={"record_id": str})
    assert not set(reported["record_id"]) & set(result.predictions["record_id"])
    write_held_out_report(tmp_path, result)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "simulated" in page and "data:image/png;base64," in page
    assert {"kaplan_meier.png", "predictions.csv", "report.md"} <= {path.name for path in tmp_path.iterdir()}
    assert result.metrics["num_records"] == len(result.predictions)


def test_a_survival_model_stands_beside_cox_models_of_ecg_measurements(
    judge: Callable[..., HeldOut], checkpoint: str, cohort: Path, cache: Path
):
    measured = measure_table(cohort, num_proc=1, cache_dir=cache)
    found = judge({"this": checkpoint}, train_folds=TRAIN, with_random_encoder=False, measurements=measured)
    assert list(found.metrics["models"]) == ["this", "age and sex", *COMPARATORS, "attainable (true hazard)"]


def test_controls_of_another_site_are_fitted_there_and_judged_here(
    judge: Callable[..., HeldOut], checkpoint: str, cache: Path, tmp_path: Path
):
    there = write_cohort(tmp_path / "there", n=40, seed=9)

    def load_controls(extractor: object) -> object:
        return load("csv", tmp_path / "there", feature_extractor=extractor, cache_dir=cache, num_proc=1)

    found = judge({"this": checkpoint}, load_controls=load_controls, with_random_encoder=False).predictions
    tested = found[["age", "sex", "event", "time"]]
    expected = age_sex_scores(there[["age", "sex", "event", "time"]], tested)
    np.testing.assert_allclose(found["age and sex"], expected, rtol=1e-5)


def test_the_protocol_scores_what_the_checkpoint_itself_predicts(
    judge: Callable[..., HeldOut], module_finetune_args: Build
):
    args = module_finetune_args("own", train_folds="1-6", test_folds="7-10", epochs=1)
    finetune.finetune(args)
    own = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv", dtype={"record_id": str}).query("part == 'test'")
    found = judge({"this": str(args.output_dir)}).predictions
    np.testing.assert_allclose(
        own.set_index("record_id")["log_hazard"], found.set_index("record_id")["this"], atol=1e-5
    )


def test_records_a_checkpoint_was_trained_on_are_refused(judge: Callable[..., HeldOut], checkpoint: str):
    with pytest.raises(ValueError, match=r"was trained on folds \[6\]; choose test folds it has not seen"):
        judge({"this": checkpoint}, [6, 7])
    with pytest.raises(ValueError, match="was trained on records of"):
        judge({"this": checkpoint}, None)
    with pytest.raises(ValueError, match="test_folds, train_folds: expected different folds"):
        judge({"this": checkpoint}, TEST, train_folds=[7])


def test_models_of_different_tasks_are_not_compared(
    judge: Callable[..., HeldOut],
    checkpoint: str,
    finetune_args: Build,
    pretrain_args: Callable[..., PretrainArguments],
):
    labels = finetune_args("labels", task="classification", train_folds="1-6", epochs=1)
    finetune.finetune(labels)
    with pytest.raises(ValueError, match="expected a EcgDanForSurvival as the first one"):
        judge({"this": checkpoint, "other": str(labels.output_dir)})
    result = judge({"labels": str(labels.output_dir)}, train_folds=TRAIN)
    assert result.metrics["metric"] == "macro_auroc"
    assert result.risk_groups is None
    start = pretrain_args("pretrained", train_folds="1-6", epochs=1)
    pretrain.pretrain(start)
    with pytest.raises(ValueError, match="expected a survival or classification model, got EcgDanForPreTraining"):
        judge({"this": str(start.output_dir)})


def test_data_without_folds_cannot_be_divided_by_them(judge: Callable[..., HeldOut], checkpoint: str):
    with pytest.raises(ValueError, match=r"folds: no record in folds \[77\]"):
        judge({"this": checkpoint}, [77])
