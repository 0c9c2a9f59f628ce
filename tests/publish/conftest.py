"""Small checkpoints as training leaves them."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival, EcgDanPreTrainedModel
from ecgdan_hf.publish.bundle import bundle

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
        "history": [{"epoch": 0, "loss": 1.0}],
    }
    recipe = {"data": "ptb-xl", "data_dir": "/home/someone/secret/ptb-xl", "epochs": 3, "labels": None}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
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
    (folder / "config.json").write_text(json.dumps({"auto_map": {}, "ecgdan_code_revision": "0"}))
    (folder / "leftover.txt").write_text("of the bundle before")
    return bundle(survival_checkpoint, folder, name="ECG-DAN risk", dataset_id="owner/ptb-xl-plasmode")


@pytest.fixture(scope="session")
def classification_bundle(classification_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle of the classification checkpoint, at a new path."""
    return bundle(classification_checkpoint, tmp_path_factory.mktemp("classification-bundle") / "new" / "beats")
