"""Weights that a checkpoint hands on: those whose meaning stays."""

from pathlib import Path

import pytest
import torch

from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival
from ecgdan_hf.training.core.starting_weights import build_model

TINY = {"num_samples": 64, "pad_samples": 2, "trunk_channels": [4, 8], "num_attention_heads": 2, "hidden_size": 16}


def labelled(*names: str) -> EcgDanConfig:
    return EcgDanConfig(**TINY, id2label=dict(enumerate(names)), problem_type="multi_label_classification")


@pytest.mark.parametrize("names", [("A", "Z"), ("B", "A")])
def test_a_head_for_other_labels_or_another_order_starts_from_random_values_and_is_reported(
    names: tuple[str, str], tmp_path: Path
):
    before = EcgDanForSequenceClassification(labelled("A", "B"))
    before.save_pretrained(tmp_path)
    after, new = build_model(EcgDanForSequenceClassification, labelled(*names), str(tmp_path))
    assert new == ["classifier.output.bias", "classifier.output.weight"]
    assert not torch.equal(after.classifier.output.weight, before.classifier.output.weight)
    assert torch.equal(after.ecgdan.stem.conv1.weight, before.ecgdan.stem.conv1.weight)


def test_a_head_for_the_same_labels_goes_on(tmp_path: Path):
    before = EcgDanForSequenceClassification(labelled("A", "B"))
    before.save_pretrained(tmp_path)
    after, new = build_model(EcgDanForSequenceClassification, labelled("A", "B"), str(tmp_path))
    assert new == [] and torch.equal(after.classifier.output.weight, before.classifier.output.weight)


def test_terms_of_other_covariates_start_anew(tmp_path: Path):
    before = EcgDanForSurvival(EcgDanSurvivalConfig(**TINY, covariate_names=["age", "sex"]))
    torch.nn.init.ones_(before.covariate_head.weight)
    before.save_pretrained(tmp_path)
    config = EcgDanSurvivalConfig(**TINY, covariate_names=["bmi", "age"])
    after, new = build_model(EcgDanForSurvival, config, str(tmp_path))
    assert new == ["covariate_head.weight"] and not torch.equal(after.covariate_head.weight, torch.ones(1, 2))
