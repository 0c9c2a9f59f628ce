"""DANet's modules compared: who is judged by whom, what the metrics say, and that finished runs are not repeated."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bench_danet_modules import ModulesArguments, localisation, patients_of_fold, run
from danet_modules import SCORES, compare, one_score
from fixtures.danet_arguments import TINY_DANET, danet_flags
from fixtures.write_holter import write_holter
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from ecgdan_hf import EcgDanFeatureExtractor
from ecgdan_hf.data.loading import load
from ecgdan_hf.model.configuration_danet import DanetConfig
from ecgdan_hf.training.arguments.options import resolve
from ecgdan_hf.training.core.learned_rows import _annotated_targets


@pytest.fixture(scope="module")
def holter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_holter(tmp_path_factory.mktemp("comparing") / "holter")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def rows(holter: Path, cache: Path):
    extractor = EcgDanFeatureExtractor(**DanetConfig(**TINY_DANET).signal_contract)
    return load("mit-bih", holter, feature_extractor=extractor, keep_labels=["APC"], num_proc=1, cache_dir=cache)


def test_every_patient_is_in_one_fold_and_those_with_early_beats_are_spread(rows):
    parts = [patients_of_fold(rows, 3, fold, "APC") for fold in range(3)]
    records = [record for part in parts for record in part["record_id"]]
    assert sorted(records) == sorted(rows["record_id"])
    patients = [set(part["patient_id"]) for part in parts]
    assert all(not first & second for first, second in zip(patients, patients[1:] + patients[:1], strict=True))
    assert [sum(int(patient) % 2 for patient in part) for part in patients] == [2, 2, 2]  # six have early beats


def test_marked_beats_are_where_a_t_shall_be_high_also_in_a_cropped_segment(rows, holter: Path, cache: Path):
    config = DanetConfig(**TINY_DANET, num_samples=784, pad_samples=12)  # 7.6 s, the middle of ten
    extractor = EcgDanFeatureExtractor(**config.signal_contract)
    short = load("mit-bih", holter, feature_extractor=extractor, keep_labels=["APC"], num_proc=1, cache_dir=cache)
    whole_config = DanetConfig(**TINY_DANET)
    whole = _annotated_targets(rows, whole_config, EcgDanFeatureExtractor(**whole_config.signal_contract))
    cut = _annotated_targets(short, config, extractor)
    pad = whole_config.pad_samples
    inside = slice(40, -40)  # a wave half outside ends where the input does
    np.testing.assert_allclose(cut[:, 12:-12][:, inside], whole[:, pad + 120 : -pad - 120][:, inside], atol=1e-6)
    assert not cut[:, :12].any() and not cut[:, -12:].any()
    row = next(number for number, labels in enumerate(rows["labels"]) if len(labels))
    beats = zip(rows[row]["beat_seconds"], rows[row]["beat_kinds"], strict=True)
    for seconds, kind in beats:
        if 0.3 < seconds < 9.7:
            height = whole[row, round(seconds * 100) + pad]
            assert height > 0.5 if kind == "APC" else height < 0.5


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_those_of_scikit_learn(score: str):
    rng = np.random.default_rng(0)
    truth = (rng.random(200) < 0.3).astype(float)
    probability = np.clip(0.3 * truth + rng.random(200) * 0.7, 0, 1)
    said = (probability > 0.5).astype(float)
    expected = {
        "AUROC": roc_auc_score(truth, probability),
        "AUPRC": average_precision_score(truth, probability),
        "F1": f1_score(truth, said),
        "sensitivity": recall_score(truth, said),
        "specificity": recall_score(1 - truth, 1 - said),
        "PPV": precision_score(truth, said),
    }[score]
    assert one_score(score, truth, np.stack([probability, said], axis=1)) == pytest.approx(expected)


def test_differences_are_paired_and_of_the_variant_minus_the_first():
    rng = np.random.default_rng(1)
    base = pd.DataFrame({"record_id": np.arange(300).astype(str), "patient_id": np.arange(300) // 10})
    base["true"] = rng.random(300) < 0.4
    worse, better = rng.random(300), 0.5 * base["true"] + rng.random(300)
    tables = {
        name: [base.assign(probability=values, positive=values > 0.5)]
        for name, values in {"none": worse, "soft": better}.items()
    }
    found = compare(tables, n=200)
    assert (found["num_records"], found["num_patients"]) == (300, 30)
    first, second = found["variants"]["none"]["AUROC"], found["variants"]["soft"]["AUROC"]
    assert "difference" not in first
    assert second["difference"]["estimate"] == pytest.approx(second["estimate"] - first["estimate"])
    assert second["difference"]["low"] > 0 and second["by_seed"] == [second["estimate"]]


@pytest.mark.parametrize(
    "other",
    [{"patient_id": [1, 1, 2, 3]}, {"true": [True, False, True, True]}, None],
    ids=["another patient", "another truth", "fewer records"],
)
@pytest.mark.parametrize("where", ["another variant", "another seed"])
def test_tables_of_different_records_are_not_compared(other: dict | None, where: str):
    base = pd.DataFrame({"record_id": ["a", "b", "c", "d"], "patient_id": [1, 1, 2, 2]})
    base = base.assign(true=[True, False, True, False], probability=[0.9, 0.2, 0.6, 0.4], positive=[1, 0, 1, 0])
    wrong = base.iloc[:3] if other is None else base.assign(**other)
    variants = {"none": [base], "soft": [wrong]} if where == "another variant" else {"soft": [base, wrong]}
    message = "tables: expected the same records in every variant and seed, soft has others"
    with pytest.raises(ValueError, match=message):
        compare(variants, n=10)


def test_a_segment_is_located_by_the_label_s_own_beats_that_were_shown():
    config = DanetConfig(**TINY_DANET, num_samples=784, pad_samples=12)
    extractor = EcgDanFeatureExtractor(**config.signal_contract)
    weights = np.zeros(784)
    weights[12 + 380 - 10 : 12 + 380 + 10] = 1.0  # second 5.0 of a segment of ten, of which the middle 7.6 s are shown

    def found(seconds: list[float], kinds: list[str]) -> dict[str, float]:
        beats = {"duration_seconds": 10.0, "beat_seconds": seconds, "beat_kinds": kinds}
        return localisation(weights, beats, "APC", extractor)

    assert found([5.0, 8.0], ["APC", "NORMAL"])["highest_on_beat"] == 1
    assert found([5.0, 8.0], ["NORMAL", "APC"])["highest_on_beat"] == 0
    assert found([0.5, 5.0], ["APC", "NORMAL"]) == {} == localisation(weights, {}, "APC", extractor)


def test_variants_are_trained_judged_and_not_trained_again(holter: Path, cache: Path, tmp_path: Path):
    shared = danet_flags(holter, cache, tmp_path)
    for name in ("data", "data_dir", "cache_dir", "output_dir", "log_with", "progress", "num_proc", "task", "model"):
        shared.pop(name)
    flags = {
        "variants": {"none": {"model": {"waveform_module": "none"}}, "hard": {"model": {"waveform_module": "hard"}}},
        "pretrain_common": {**shared, "data": "mit-bih", "train_folds": None, "model": TINY_DANET}
        | {"simulated_records": 64, "epochs": 1},
        "common": {**shared, "epochs": 1, "joint_epochs": 1, "simulated_records": 16},
        "data_dir": str(holter),
        "pretrain_data_dir": str(holter),
        "cache_dir": str(cache),
        "output_dir": str(tmp_path / "comparison"),
        "folds": 2,
        "seeds": "0",
        "num_proc": 1,
        "bootstrap": 20,
        "pretrain": str(write_recipe(tmp_path, "pretrain", "task: danet\n")),
        "recipe": str(write_recipe(tmp_path, "finetune", "task: danet\nkeep_labels: APC\n" + JOINT)),
    }
    said: list[str] = []
    metrics = run(resolve(ModulesArguments, None, flags), said.append)
    folder = tmp_path / "comparison"
    assert (
        json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["num_records"]
        == metrics["num_records"]
        == 60
    )
    table = pd.read_csv(folder / "predictions.csv")
    assert table.groupby("variant").size().to_dict() == {"none": 60, "hard": 60}
    assert "highest_on_beat" in metrics["variants"]["hard"] and "highest_on_beat" not in metrics["variants"]["none"]
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "| hard | waveform_module: hard | 1 |" in report and "Research use only" in report
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    again = run(resolve(ModulesArguments, None, flags), said.append)
    assert again["variants"] == metrics["variants"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")} == stamps
    with pytest.raises(ValueError, match=r"folds: the comparison in .* began with 2, got 3"):
        run(resolve(ModulesArguments, None, {**flags, "folds": 3}))


JOINT = "joint_learning_rate: 1e-3\n"


def write_recipe(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_cannot_be_compared_is_refused_in_one_line(holter: Path, tmp_path: Path):
    good = {"variants": {"none": {}}, "data_dir": str(holter), "pretrain_data_dir": str(holter)}
    for change, message in {
        "output_dir": ({"output_dir": None}, "output_dir: expected a folder"),
        "variants": ({"output_dir": str(tmp_path), "variants": {}}, "variants: expected at least one"),
        "only": ({"output_dir": str(tmp_path), "only": "sof"}, "sof"),
        "folds": ({"output_dir": str(tmp_path), "folds": 1}, "folds: expected two or more"),
    }.values():
        with pytest.raises(ValueError, match=message):
            run(ModulesArguments(**{**good, **change}))
