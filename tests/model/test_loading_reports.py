"""Loading a released encoder says nothing; a checkpoint that does not fit is still reported."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from ecgdan_hf import EcgDanForPreTraining, EcgDanModel

CARDS = Path(__file__).parents[2] / "model_cards"
ENCODERS = ("ecg-dan", "ecg-dan-rhythm", "ecg-dan-rhythm-superclasses")


@pytest.fixture
def reported() -> Iterator[list[str]]:
    """Everything transformers says from warnings upwards."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    transformers_logging.add_handler(handler)
    yield said
    transformers_logging.remove_handler(handler)


def changed(tmp_path: Path, drop: str = "", **extra: str) -> Path:
    """A released encoder, without some weights and with copies of others under new names."""
    source = CARDS / "ecg-dan-rhythm"
    weights = {name: value for name, value in load_file(source / "model.safetensors").items() if name != drop}
    weights |= {new: weights[old].clone() for new, old in extra.items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((source / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ENCODERS)
def test_a_released_checkpoint_loads_as_an_encoder_without_a_report(name: str, reported: list[str]) -> None:
    model, info = AutoModel.from_pretrained(CARDS / name, output_loading_info=True)
    assert isinstance(model, EcgDanModel)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert reported == []


def test_weights_that_no_head_has_are_reported(tmp_path: Path, reported: list[str]) -> None:
    odd = {"ecgdan.stem.second.weight": "ecgdan.stem.conv.weight", "third_tower.weight": "ecgdan.stem.conv.weight"}
    _, info = AutoModel.from_pretrained(changed(tmp_path, **odd), output_loading_info=True)
    assert "third_tower.weight" in info["unexpected_keys"]
    assert any("UNEXPECTED" in message and "stem.second.weight" in message for message in reported)


def test_weights_of_the_encoder_that_are_missing_are_reported(tmp_path: Path, reported: list[str]) -> None:
    AutoModel.from_pretrained(changed(tmp_path, drop="ecgdan.stem.conv.weight"))
    assert any("MISSING" in message and "stem.conv.weight" in message for message in reported)


def test_leftover_weights_of_a_head_that_the_model_has_are_reported(tmp_path: Path, reported: list[str]) -> None:
    odd = {"measurement_head.second.weight": "measurement_head.weight"}
    EcgDanForPreTraining.from_pretrained(changed(tmp_path, **odd))
    assert any("UNEXPECTED" in message and "measurement_head.second.weight" in message for message in reported)


def test_a_new_classifier_on_an_encoder_is_reported_as_missing_and_nothing_else(reported: list[str]) -> None:
    AutoModelForSequenceClassification.from_pretrained(CARDS / "ecg-dan-rhythm")
    assert len(reported) == 1
    assert "classifier.output.weight" in reported[0]
    assert "UNEXPECTED" not in reported[0]
