"""Fine-tuning end to end on a tiny cohort, and every refusal before anything is trained."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.training import finetune, pretrain
from ecgdan_hf.training.arguments.fields import FinetuneArguments, PretrainArguments
from ecgdan_hf.training.arguments.options import _read_recipe, resolve
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.starting_weights import build_config
from ecgdan_hf.training.core.supervised import _auxiliary_names, _auxiliary_targets, _collator, _soften_labels
from ecgdan_hf.training.core.tasks import _SLOPE_LIMITS, _log_hazard_slope

Build = Callable[..., FinetuneArguments]
TINY = {"hidden_size": 16, "num_samples": 64, "pad_samples": 2, "trunk_channels": [4, 8], "num_attention_heads": 2}
BuildPretraining = Callable[..., PretrainArguments]


@pytest.fixture(scope="module")
def survival_run(module_finetune_args: Build) -> tuple[Path, dict]:
    args = module_finetune_args(
        "survival", train_folds="1-6", test_folds="7-10", covariates="age,sex", learning_rate=0.01, epochs=3
    )
    return Path(str(args.output_dir)), finetune.finetune(args)


def test_a_survival_run_leaves_a_checkpoint_that_predicts_what_the_run_reported(survival_run: tuple[Path, dict]):
    folder, metrics = survival_run
    rows = pd.read_csv(folder / "predictions.csv", dtype={"record_id": str})
    test = rows[rows["part"] == "test"]
    assert set(test["fold"]) == {7, 8, 9, 10}
    assert metrics["test"]["concordance_index"]["estimate"] == pytest.approx(
        concordance_index(test["event"], test["time"], test["log_hazard"])
    )
    assert metrics["test"]["attainable_concordance_index"] > 0.5
    assert (rows["risk_1y"] <= rows["risk_5y"]).all()
    model, extractor = load_checkpoint(folder)
    assert model.config.num_baseline_times > 1
    assert model.config.covariate_names == ["age", "sex"]
    assert model.config.simulated_outcome
    assert extractor.sampling_rate == 50
    assert metrics["simulated_outcome"] is True


def test_predicted_risks_are_no_more_extreme_than_the_validation_patients_bear_out(survival_run: tuple[Path, dict]):
    folder, metrics = survival_run
    rows = pd.read_csv(folder / "predictions.csv").query("part == 'valid'")
    found = _log_hazard_slope(*(rows[name].to_numpy() for name in ("event", "time", "log_hazard")))
    raw = metrics["calibration_slope"]
    assert found == pytest.approx(1.0, rel=0.05) or raw in _SLOPE_LIMITS
    assert raw != 1.0


def test_the_recipe_in_the_folder_says_what_was_run_and_with_what(survival_run: tuple[Path, dict]):
    folder, _ = survival_run
    assert "versions" in (folder / "recipe.yaml").read_text(encoding="utf-8")
    recipe = _read_recipe(folder / "recipe.yaml")
    assert recipe["train_folds"] == "1-6"
    assert recipe["model"]["hidden_size"] == 16


def test_validation_patients_come_from_the_training_folds_and_test_folds_choose_nothing(
    survival_run: tuple[Path, dict],
):
    folder, metrics = survival_run
    rows = pd.read_csv(folder / "predictions.csv")
    assert set(rows.loc[rows["part"] == "valid", "fold"]) <= set(range(1, 7))
    assert set(rows["part"]) == {"valid", "test"}
    best = max(metrics["history"], key=lambda entry: entry["concordance_index"])
    assert metrics["best_epoch"] == best["epoch"]
    assert metrics["valid"]["concordance_index"]["estimate"] == pytest.approx(best["concordance_index"])


def test_a_finished_run_is_not_overwritten_and_resuming_it_gives_its_result(
    survival_run: tuple[Path, dict], module_finetune_args: Build
):
    _, metrics = survival_run
    same = {"train_folds": "1-6", "test_folds": "7-10", "covariates": "age,sex", "learning_rate": 0.01, "epochs": 3}
    with pytest.raises(ValueError, match="holds a finished run; give --resume to continue it or --overwrite"):
        finetune.finetune(module_finetune_args("survival", **same))
    assert (
        finetune.finetune(module_finetune_args("survival", resume=True, **same))["best_epoch"] == metrics["best_epoch"]
    )


def test_the_last_epoch_is_kept_where_validation_may_not_choose(finetune_args: Build):
    # a rate at which the first epoch is the best, and the last one far from it
    metrics = finetune.finetune(finetune_args(keep_epoch="last", epochs=3, learning_rate=0.3))
    kept = metrics["history"][-1]["concordance_index"]
    assert metrics["best_epoch"] == 3
    assert metrics["valid"]["concordance_index"]["estimate"] == pytest.approx(kept)


def test_overwriting_replaces_the_run_whole(finetune_args: Build):
    args = finetune_args(epochs=2)
    finetune.finetune(args)
    folder = Path(str(args.output_dir))
    before = load_file(folder / "model.safetensors")
    (folder / "stale.txt").write_text("of the first run", encoding="utf-8")
    finetune.finetune(finetune_args(epochs=1, seed=1, overwrite=True))
    assert not (folder / "stale.txt").exists()
    assert len(list((folder / "checkpoints").glob("state-*"))) == 1
    assert not torch.equal(
        before["risk_head.hidden.weight"], load_file(folder / "model.safetensors")["risk_head.hidden.weight"]
    )


def test_fine_tuning_starts_from_the_weights_of_the_checkpoint(
    finetune_args: Build, pretrain_args: BuildPretraining, monkeypatch: pytest.MonkeyPatch
):
    args = pretrain_args("pretrained", epochs=1)
    pretrain.pretrain(args)
    tuned = finetune_args(checkpoint=args.output_dir, epochs=1, learning_rate=1e-12)
    metrics = finetune.finetune(tuned)
    before, after = (load_file(Path(str(a.output_dir)) / "model.safetensors") for a in (args, tuned))
    for name in ("ecgdan.stem.conv1.weight", "ecgdan.time_attention.qkv_weight", "decoder.reduce.weight"):
        assert torch.allclose(before[name], after[name], atol=1e-6), name
    assert all(name.startswith(("risk_head", "baseline")) for name in metrics["new_weights"])
    assert load_checkpoint(str(tuned.output_dir))[0].config.hidden_size == 16


def test_a_risk_model_goes_on_learning_from_another_cohort_and_gets_its_baseline(
    finetune_args: Build, survival_run: tuple[Path, dict]
):
    before = load_checkpoint(survival_run[0])[0]
    args = finetune_args(
        "further",
        checkpoint=str(survival_run[0]),
        covariates="age,sex",
        train_folds="1-4",
        test_folds="5-10",
        learning_rate=1e-6,
        epochs=1,
    )
    finetune.finetune(args)
    after = load_checkpoint(str(args.output_dir))[0]
    assert after.config.num_baseline_times != before.config.num_baseline_times
    torch.testing.assert_close(after.risk_head.hidden.weight, before.risk_head.hidden.weight, atol=1e-4, rtol=0)


def test_classification_learns_labels_whose_names_and_thresholds_travel(finetune_args: Build):
    args = finetune_args(task="classification", lead_masking="none", learning_rate=0.02, epochs=4)
    metrics = finetune.finetune(args)
    names = ["normal", "strain", "wide_qrs"]
    model, _ = load_checkpoint(str(args.output_dir))
    assert [model.config.id2label[label] for label in range(3)] == names
    assert set(model.config.thresholds) == set(names)
    rows = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv")
    assert rows[names].to_numpy().min() >= 0
    assert set(rows["true_strain"]) <= {0, 1}
    assert set(metrics["test"]["labels"]) == set(names)


def test_teachers_soften_the_labels_of_training_and_of_nothing_else(finetune_args: Build):
    options = {"task": "classification", "lead_masking": "none", "epochs": 1}
    teacher = finetune_args("teacher", **options)
    finetune.finetune(teacher)
    model, extractor = load_checkpoint(str(teacher.output_dir))
    args = finetune_args("student", **options, teachers=str(teacher.output_dir), teacher_weight=0.25)
    config, train = model.config, rows.load_dataset(args, extractor).select(range(6))
    hard = _collator(config, args)
    soft = _soften_labels(hard, train, config, args)
    batches = [collate(collate.rows(train).__getitems__([4, 1])) for collate in (hard, soft)]
    said = model(batches[0]["input_values"], batches[0]["lead_mask"]).logits.sigmoid()
    assert torch.allclose(batches[1]["labels"], 0.75 * batches[0]["labels"] + 0.25 * said, atol=1e-5)
    finetune.finetune(args)
    table = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv")
    assert set(table["true_strain"]) <= {0, 1}


def test_auxiliary_labels_of_ptb_xl_are_learned_beside_the_superclasses(tmp_path: Path, shared: Path, cache: Path):
    args = resolve(
        FinetuneArguments,
        None,
        {
            "task": "classification",
            "data_dir": str(shared / "data" / "ptb-xl"),
            "auxiliary_level": "statement",
            "from_scratch": True,
            "limit": 24,
            "model": {"trunk": "light", "input_kind": "rhythm", "normalization": "global", "trunk_channels": [4, 8]},
            "crop_samples": 504,
            "lead_masking": "none",
            "cache_dir": str(cache),
            "output_dir": str(tmp_path / "run"),
            "epochs": 1,
            "num_proc": 1,
            "bootstrap": 20,
            "log_with": "none",
            "progress": False,
        },
    )
    finetune.finetune(args)
    model, _ = load_checkpoint(tmp_path / "run")
    assert model.config.num_auxiliary_labels == 71
    dataset = rows.load_dataset(args, EcgDanFeatureExtractor(**model.config.signal_contract))
    codes, found = json.loads(dataset["scp_codes"][3]), _auxiliary_targets(dataset, args)[3]
    names = _auxiliary_names(args)
    assert {name for name, value in zip(names, found, strict=True) if value} == set(codes)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"auxiliary_level": "statement"}, "auxiliary_level: only task classification uses it"),
        ({"task": "classification", "auxiliary_level": "statement"}, "auxiliary_level: only data ptb-xl uses it"),
        ({"task": "classification", "teachers": "/nowhere/at/all"}, "/nowhere/at/all: no such checkpoint"),
        (
            {"task": "classification", "teacher_weight": 2.0},
            "teacher_weight: expected a share between 0 and 1, got 2.0",
        ),
        ({"task": "regression"}, "task: expected survival, classification or danet, got 'regression'"),
        ({"checkpoint": "x", "from_scratch": True}, "expected exactly one of the two, got both"),
        ({"from_scratch": False}, "expected exactly one of the two, got neither"),
        ({"task": "classification", "covariates": "age"}, "covariates: only task survival uses it"),
        ({"task": "classification", "labels": "x.csv"}, "labels: only task survival uses it"),
        ({"label_level": "superclass"}, "label_level: only task classification or danet uses it"),
        ({"data": "ptb-xl"}, "labels: ptb-xl has no follow-up of its own"),
        ({"checkpoint": "/nowhere/at/all"}, "/nowhere/at/all: no such checkpoint"),
        ({"model": {"hiden_size": 3}}, r"model: unknown key 'hiden_size'; did you mean hidden_size\?"),
        ({"model": {"trunk": "enormous"}}, "trunk: expected one of"),
        ({"lead_masking": "often"}, "lead_masking: expected record, batch or none"),
        ({"train_folds": "1-8", "test_folds": "8"}, "expected each fold in one part only"),
        ({"test_folds": "8"}, "expected train_folds too, got none"),
        ({"train_folds": "1-8", "test_folds": "12"}, "no record of part 'test'"),
        ({"covariates": "height"}, "covariates: expected a column height"),
        ({"data_dir": "/nowhere"}, "/nowhere"),
        ({"valid_fraction": 1.5}, "valid_fraction: expected a share"),
        ({"resume": True, "overwrite": True}, "resume, overwrite: expected one of the two"),
        ({"resume": True}, "expected a run to resume, found no recipe.yaml"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(finetune_args: Build, flags: dict, message: str):
    args = finetune_args(**flags)
    with pytest.raises((ValueError, OSError), match=message):
        finetune.finetune(args)
    assert not Path(str(args.output_dir)).exists()


def test_a_folder_with_other_files_is_left_alone(finetune_args: Build):
    args = finetune_args(overwrite=True)
    folder = Path(str(args.output_dir))
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(ValueError, match="expected an empty folder or an earlier result, found other files"):
        finetune.finetune(args)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_part_without_events_is_refused(finetune_args: Build, cohort: Path, tmp_path: Path):
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str})
    outcomes = (
        table[["record_id", "event", "time"]]
        .assign(event=(table["fold"] == 1) & (table.index % 2 == 0))
        .astype({"event": int})
    )
    outcomes.to_csv(tmp_path / "outcomes.csv", index=False)
    assert outcomes["event"].any()
    with pytest.raises(ValueError, match="event: expected at least one event in the test part, got none"):
        finetune.finetune(finetune_args(labels=str(tmp_path / "outcomes.csv"), train_folds="1-6", test_folds="9"))


def test_outcomes_of_the_user_replace_those_of_the_table_and_are_not_called_simulated(
    finetune_args: Build, cohort: Path, tmp_path: Path
):
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str}).drop(columns=["log_hazard"])
    rng = np.random.default_rng(0)
    outcomes = table[["record_id"]].assign(event=(np.arange(len(table)) % 2), time=rng.uniform(1, 5, len(table)))
    outcomes.to_csv(tmp_path / "outcomes.csv", index=False)
    args = finetune_args(labels=str(tmp_path / "outcomes.csv"), epochs=1, simulated_outcome=False, endpoint="stroke")
    metrics = finetune.finetune(args)
    assert metrics["simulated_outcome"] is False
    assert load_checkpoint(str(args.output_dir))[0].config.endpoint == "stroke"
    rows = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv", dtype={"record_id": str})
    assert rows["time"].max() <= 5


def test_overrides_that_the_weights_fix_are_refused(tmp_path: Path):
    EcgDanConfig(**TINY).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model: hidden_size is 16 in .*, got 32; the weights fix it"):
        build_config(EcgDanSurvivalConfig, {"hidden_size": 32}, str(tmp_path))
    found = build_config(EcgDanSurvivalConfig, {"hidden_size": 16, "dropout_scope": "batch"}, str(tmp_path))
    assert (found.num_samples, found.dropout_scope, found.reconstruction_weight) == (64, "batch", 0.5)


def test_covariates_start_at_their_own_cox_model():
    rng = np.random.default_rng(0)
    age = rng.normal(60, 10, 400)
    time = rng.exponential(np.exp(-0.07 * (age - 60))) + 1e-3
    train = Dataset.from_dict({"age": age, "event": np.ones(400), "time": time})
    config = EcgDanSurvivalConfig(**TINY, covariate_names=["age"], covariate_means=[60.0], covariate_stds=[10.0])
    model = EcgDanForSurvival(config)
    assert model.covariate_head.weight.item() == 0
    finetune._start_covariates(model, train)
    assert model.covariate_head.weight.item() == pytest.approx(0.7, abs=0.15)


def test_a_text_column_and_its_missing_values_enter_the_head_and_travel_with_it(finetune_args: Build, tmp_path: Path):
    args = finetune_args("levels", train_folds="1-6", test_folds="7-10", covariates="age,smoking", epochs=1)
    table = pd.read_csv(Path(str(args.data_dir)) / "table.csv")
    table["file"] = [str(Path(str(args.data_dir)) / name) for name in table["file"]]
    table["smoking"] = ["never", "never", "current", None] * (len(table) // 4)
    table.to_csv(tmp_path / "table.csv", index=False)
    args = dataclasses.replace(args, data_dir=str(tmp_path / "table.csv"), missing_covariates="indicator")
    metrics = finetune.finetune(args)
    model, _ = load_checkpoint(Path(str(args.output_dir)))
    assert model.config.covariate_names == ["age", "smoking=current", "smoking?"]
    assert metrics["covariates"]["names"] == model.config.covariate_names
    assert metrics["covariates"]["num_missing"][1] > 0


def test_data_without_follow_up_are_refused_before_anything_is_written(finetune_args: Build, no_outcomes: Path):
    args = finetune_args(data_dir=str(no_outcomes))
    with pytest.raises(ValueError, match=r"outcomes: csv has no event and time of its own here; .* \(--labels\)"):
        finetune.finetune(args)
    assert not Path(str(args.output_dir)).exists()
