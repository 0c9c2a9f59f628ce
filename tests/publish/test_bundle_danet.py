"""A DANet on the Hub: what its bundle carries, and that a hard module finds its weights without the package."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from fixtures.danet_arguments import TINY_DANET

from ecgdan_hf import DanetConfig, DanetForSequenceClassification, EcgDanFeatureExtractor
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.inference.heads import HEADS
from ecgdan_hf.publish.bundle import make_bundle


@pytest.fixture
def hard_checkpoint(tmp_path: Path) -> Path:
    """A classifier behind the rule's own weights, with metrics and recipe as fine-tuning leaves them."""
    torch.manual_seed(0)
    config = DanetConfig(**TINY_DANET, waveform_module="hard", id2label={0: "APC"}, thresholds={"APC": 0.4})
    DanetForSequenceClassification(config).save_pretrained(tmp_path / "run")
    EcgDanFeatureExtractor(**config.signal_contract).save_pretrained(tmp_path / "run")
    recipe = {"task": "danet", "data": "mit-bih", "keep_labels": "APC"}
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    Result("finetune", {"task": "danet", "num_records": {"train": 40}}).write(tmp_path / "run")
    return tmp_path / "run"


def test_a_hard_module_is_bundled_with_the_code_that_finds_its_weights(hard_checkpoint: Path, tmp_path: Path):
    folder = make_bundle(hard_checkpoint, tmp_path / "danet-apc")  # proved in a process without the package
    assert (folder / "waveform_danet.py").is_file()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classes = {"AutoConfig", "AutoModelForSequenceClassification"}
    assert set(config["auto_map"]) == classes  # nothing to pretrain without a soft module
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "MIT-BIH Arrhythmia Database" in card and "DanetForSequenceClassification" in card


def test_only_a_soft_module_can_be_pretrained_alone():
    soft, hard = (DanetConfig(**TINY_DANET, waveform_module=module) for module in ("soft", "hard"))
    module = HEADS["DanetForPreTraining"]
    assert module.can_be_built(soft) and not module.can_be_built(hard)
    assert HEADS["DanetForSequenceClassification"].can_be_built(hard)
