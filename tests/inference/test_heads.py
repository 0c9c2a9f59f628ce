"""One list of model classes for the package, for transformers, and for the tests."""

from pathlib import Path

import heads
import pytest
import torch
from transformers import AutoConfig, PreTrainedConfig

import ecgdan_hf
from ecgdan_hf.inference.heads import HEADS, head_of
from ecgdan_hf.model.pipeline_base_ecgdan import TASKS_OF_SAVED
from ecgdan_hf.registration import MODELS


def test_every_model_class_is_registered_has_a_head_pipelines_and_a_tiny_version_for_tests() -> None:
    tested = {type(heads.build(name)).__name__ for name in heads.TINY_HEADS}
    assert set(MODELS) == set(HEADS) == set(TASKS_OF_SAVED) == tested
    assert {name for name in ecgdan_hf.__all__ if "Model" in name or "For" in name} == set(MODELS)
    assert all(HEADS[name].config_class.__name__ == model.config_class for name, model in MODELS.items())


@pytest.mark.parametrize("name", heads.TINY_HEADS)
def test_a_saved_model_and_its_configuration_have_the_same_head(name: str, tmp_path: Path) -> None:
    model = heads.build(name)
    model.save_pretrained(tmp_path)
    assert head_of(model).model_class is type(model)
    assert head_of(AutoConfig.from_pretrained(tmp_path)) is head_of(model)


@pytest.mark.parametrize(
    ("config_class", "expected"),
    [
        ("EcgDanConfig", "EcgDanModel"),
        ("EcgDanSurvivalConfig", "EcgDanForSurvival"),
        ("EcgTextConfig", "EcgTextModel"),
        ("DanetConfig", "DanetForSequenceClassification"),
    ],
)
def test_a_configuration_that_names_no_architecture_has_the_default_head(config_class: str, expected: str) -> None:
    assert head_of(getattr(ecgdan_hf, config_class)()).name == expected


def test_a_subclass_has_the_head_of_its_base_and_another_class_is_refused_by_name() -> None:
    class Derived(ecgdan_hf.EcgDanForSurvival):
        pass

    assert head_of(Derived(heads.build("survival").config)).is_survival
    with pytest.raises(ValueError, match=r"model: expected one of EcgDanModel, .*, got Linear"):
        head_of(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"model_type: expected one of ecgdan, .*, got 'other'"):
        head_of(type("Other", (PreTrainedConfig,), {"model_type": "other"})())


def test_a_head_without_a_tiny_version_is_refused_and_not_taken_for_the_encoder() -> None:
    for ask in (heads.build, heads.fresh, heads.inputs, heads.learnable):
        with pytest.raises(ValueError, match=r"head: expected one of encoder, .*, got 'age'; add it to"):
            ask("age")


@pytest.mark.parametrize("given", [7, [7], [{"a": 1}], [["EcgDanModel"]]])
def test_architectures_that_are_no_names_are_refused_in_one_line(given: object) -> None:
    config = ecgdan_hf.EcgDanConfig()
    config.architectures = given
    with pytest.raises(ValueError, match=r"architectures: expected one of EcgDanModel, .*, got "):
        head_of(config)
