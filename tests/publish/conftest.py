"""Small checkpoints as training leaves them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ecgdan_hf.evaluation.comparators.comparison import Outcome
from ecgdan_hf.evaluation.protocols.zero_shot import Level
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import (
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanPreTrainedModel,
)
from ecgdan_hf.publish.bundle import make_bundle

TINY = {"trunk_channels": [2, 2, 4, 4, 4], "num_attention_heads": 2, "hidden_size": 16, "stem_features": 2}

INTERVAL = {"estimate": 0.7123, "low": 0.65, "high": 0.77, "level": 0.95, "num_records": 90, "num_patients": 80}


def save(model: EcgDanPreTrainedModel, folder: Path) -> Path:
    """Weights as after training (no two buffers alike), with the feature extractor beside them."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not name.startswith("baseline"):
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    model.eval().save_pretrained(folder)
    EcgDanFeatureExtractor(**model.config.signal_contract).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def survival_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rhythm input, two covariates, fitted baseline, simulated outcome, metrics and recipe."""
    torch.manual_seed(0)
    config = EcgDanSurvivalConfig(
        **TINY,
        input_kind="rhythm",
        normalization="global",
        covariate_names=["age", "sex"],
        covariate_means=[60.0, 0.5],
        covariate_stds=[12.0, 0.5],
        simulated_outcome=True,
    )
    model = EcgDanForSurvival(config)
    times = 0.1 + 11 * torch.rand(60)
    model.fit_baseline(torch.randn(60), (torch.rand(60) < 0.4).float(), times)
    folder = save(model, tmp_path_factory.mktemp("survival") / "run")
    metrics = {
        "task": "survival",
        "simulated_outcome": True,
        "checkpoint": "/home/someone/secret/pretrained",
        "num_records": {"train": 300, "valid": 80, "test": 90},
        "valid": {"concordance_index": {**INTERVAL, "estimate": 0.7456}, "num_records": 80, "num_events": 17},
        "test": {"concordance_index": INTERVAL, "num_records": 90, "num_events": 21},
        "subgroups": {"sex": {"female": {"num_records": 90, "num_patients": 80, "num_events": 21}}, "age": {}},
        "history": [{"epoch": 0, "loss": 1.0}],
    }
    recipe = {"data": "ptb-xl", "data_dir": "/home/someone/secret/ptb-xl", "epochs": 3, "labels": None}
    Result("finetune", metrics).write(folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def classification_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Median-beat input, three labels, two thresholds, neither metrics nor recipe."""
    torch.manual_seed(0)
    config = EcgDanConfig(**TINY, id2label={0: "NORM", 1: "MI", 2: "HYP"}, thresholds={"NORM": 0.6, "MI": 0.3})
    return save(EcgDanForSequenceClassification(config), tmp_path_factory.mktemp("classification") / "run")


@pytest.fixture(scope="session")
def survival_bundle(survival_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle of the survival checkpoint, written where an older bundle was. Each bundle costs a process: share it."""
    folder = tmp_path_factory.mktemp("survival-bundle") / "ecg-dan-risk"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"auto_map": {}, "ecgdan_code_revision": "0"}), encoding="utf-8")
    (folder / "leftover.txt").write_text("of the bundle before", encoding="utf-8")
    return make_bundle(survival_checkpoint, folder, name="ECG-DAN risk", dataset_id="owner/ptb-xl-plasmode")


@pytest.fixture(scope="session")
def classification_bundle(classification_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle of the classification checkpoint, at a new path."""
    return make_bundle(classification_checkpoint, tmp_path_factory.mktemp("classification-bundle") / "new" / "beats")


@pytest.fixture(scope="session")
def pretrained_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Light trunk, rhythm input, cached prompts of three statements, metrics with time and hardware, recipe."""
    torch.manual_seed(0)
    light = {"trunk": "light", "input_kind": "rhythm", "trunk_channels": [2, 4], "num_attention_heads": 2}
    text = {"text_embed_dim": 8, "text_model_name": "owner/text-model", "text_model_revision": "abc123"}
    model = EcgDanForPreTraining(EcgDanConfig(**light, **text, hidden_size=16, normalization="global"))
    model.set_prompts(["NORM", "IMI", "AFIB"], torch.randn(3, 8))
    folder = save(model, tmp_path_factory.mktemp("pretraining") / "run")
    metrics = {
        "task": "pretraining",
        "num_records": {"train": 2331, "valid": 333},
        "valid": {"reconstruction_loss": 0.4, "recall": 0.5},
        "seconds": 3600.0,
        "hardware": {"device": "A Processor", "kind": "cpu", "processes": 1, "threads": 2},
    }
    recipe = {"data": "ptb-xl", "data_dir": "/home/someone/secret/ptb-xl", "seed": 7, "train_folds": "1-8"}
    recipe |= {"valid_folds": "9", "versions": {"python": "3.12", "torch": "2.9"}}
    Result("pretrain", metrics).write(folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


def area(estimate: float, half_width: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - half_width, "high": estimate + half_width}


SANITY = {
    "task": "sanity",
    "change": "cosine distance of the embedding",
    "num_records": 333,
    "num_patients": 310,
    "test_folds": [9],
    "leads": {
        "entropy": area(2.42, 0.01),
        "even_entropy": 2.48,
        "curves": {"attention": [0.1]},
        "area_over_random": area(0.001, 0.004),
        "area_over_reverse": area(0.002, 0.004),
    },
    "time": {
        "entropy": area(3.1, 0.1),
        "even_entropy": 4.14,
        "area_over_random": area(0.05, 0.01),
        "area_over_shifted": area(0.03, 0.01),
    },
}


@pytest.fixture(scope="session")
def result_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders as `ecgdan probe`, `probe --zero-shot`, `probe --label-fractions` and `sanity` leave them."""
    rng, names = np.random.default_rng(0), ["NORM", "IMI", "AFIB"]
    labels, patients = (rng.random((60, 3)) < 0.4).astype(float), np.arange(60)
    scores = {"this encoder, linear": labels + rng.normal(size=(60, 3)), "random encoder, linear": rng.random((60, 3))}
    outcome = Outcome.classification(labels, patients)
    probe = {"task": "classification", "metric": outcome.name, **outcome.counts(), "num_records_fitted": 100}
    probe |= {"models": outcome.compare(scores, n=20), "checkpoint": "/home/someone/secret/run"}
    level = Level.judged("superclass", {name: [name] for name in names}, labels, names, names, min_positives=1)
    controls = {"shuffled text": (rng.random((60, 3)), names)}
    judged = level.metrics(scores["this encoder, linear"], names, patients, controls, permutations=3, n=20)
    zero_shot = {"task": "zero-shot", "metric": "macro_auroc", "num_records": 60, "levels": {"superclass": judged}}
    spread = {"values": [0.8], "mean": 0.8, "sd": None, "interval": area(0.8, 0.02)}
    few = {"models": {"this encoder, linear": spread, "random encoder, linear": spread | {"ahead": spread}}}
    efficiency = {"task": "classification", "metric": "macro_auroc", "label_fractions": {"0.01": few}, "leads": "I,II"}
    folders, root = {}, tmp_path_factory.mktemp("results")
    everything = {"probe": probe, "zero-shot": zero_shot, "label-efficiency": efficiency, "sanity": SANITY}
    for name, metrics in everything.items():
        folders[name] = root / name
        folders[name].mkdir()
        Result(name, metrics).write(folders[name])
        if name != "sanity":
            recipe = {"data": "ptb-xl", "data_dir": "/home/someone/secret/ptb-xl", "test_folds": "9"}
            (folders[name] / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folders


@pytest.fixture(scope="session")
def pretrained_bundle(
    pretrained_checkpoint: Path, result_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Bundle of the pretrained checkpoint with every kind of further evaluation and an estimate of its carbon."""
    folder = tmp_path_factory.mktemp("pretrained-bundle") / "ecg-dan-rhythm"
    results = list(result_folders.values())
    return make_bundle(pretrained_checkpoint, folder, dataset_id="owner/ptb-xl", results=results, power_watts=20)
