"""A configuration of another version of the package says what differs; one of this version says nothing."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY
from transformers import AutoConfig, PreTrainedConfig

import ecgdan_hf
from ecgdan_hf import DanetConfig, EcgDanConfig, EcgDanModel, EcgDanSurvivalConfig, EcgTextConfig

MODULE = "ecgdan_hf.model.configuration_ecgdan"


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is said under the name of the configurations; what was said before is forgotten, as in a new process."""
    logging.Logger.warning_once.cache_clear()
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(MODULE).addHandler(handler)
    yield said
    logging.getLogger(MODULE).removeHandler(handler)


def saved(config: PreTrainedConfig, folder: Path, without: tuple[str, ...] = (), **fields: object) -> Path:
    config.save_pretrained(folder)
    path = folder / "config.json"
    content = {
        name: value for name, value in json.loads(path.read_text(encoding="utf-8")).items() if name not in without
    }
    path.write_text(json.dumps(content | fields), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", [EcgDanConfig, EcgDanSurvivalConfig, DanetConfig, EcgTextConfig])
def test_a_configuration_of_this_version_says_nothing(
    kind: type[PreTrainedConfig], warnings: list[str], tmp_path: Path
) -> None:
    bundled = {"auto_map": {"AutoConfig": "a.B"}, "ecgdan_code_revision": "abc", "custom_pipelines": {}}
    folder = saved(kind(id2label={0: "NORM"}), tmp_path, **bundled)
    kind.from_pretrained(folder, num_labels=2, output_attentions=True)
    AutoConfig.from_pretrained(folder)
    kind.from_dict(kind().to_dict())
    kind.from_dict({"model_type": kind.model_type})  # by hand
    assert warnings == []


def test_the_released_checkpoints_are_of_this_version(warnings: list[str]) -> None:
    cards = sorted((Path(ecgdan_hf.__file__).parents[1] / "model_cards").glob("*/config.json"))
    for card in cards:
        AutoConfig.from_pretrained(card.parent)
    assert cards
    assert warnings == []


def test_an_older_configuration_says_what_it_lacks_and_how_to_get_what_was_published(
    warnings: list[str], tmp_path: Path
) -> None:
    lacks = ("calibration_slope", "hidden_size")
    folder = saved(EcgDanSurvivalConfig(), tmp_path, lacks, ecgdan_version="0.0.9", ecgdan_code_revision="abc123")
    for _ in range(2):
        config = EcgDanSurvivalConfig.from_pretrained(folder)
    assert warnings == [
        "The ecgdan-survival checkpoint was written by ecgdan-hf 0.0.9 (code abc123), this is "
        f"{ecgdan_hf.__version__}; it lacks fields, which take their defaults: calibration_slope (1.0), hidden_size. "
        "Should it not do as published: pip install ecgdan-hf==0.0.9, or its own code by trust_remote_code=True where "
        "ecgdan_hf is not imported."
    ]
    assert (config.calibration_slope, config.hidden_size) == (1.0, 512)


def test_a_newer_configuration_says_what_is_not_known_here(warnings: list[str], tmp_path: Path) -> None:
    folder = saved(DanetConfig(), tmp_path, ecgdan_version="7.0", second_trunk="big", beats=3)
    AutoConfig.from_pretrained(folder)
    assert len(warnings) == 1
    assert "by ecgdan-hf 7.0, this is" in warnings[0]
    assert "has fields unknown here, which are ignored: beats, second_trunk. Should" in warnings[0]


def test_what_is_not_known_is_said_before_a_value_is_refused(warnings: list[str], tmp_path: Path) -> None:
    folder = saved(EcgDanConfig(), tmp_path, ecgdan_version="7.0", trunk="huge")
    with pytest.raises(Exception, match="trunk: expected one of paper, light, got 'huge'"):
        EcgDanConfig.from_pretrained(folder)
    assert "by ecgdan-hf 7.0" in warnings[0]


def test_a_misspelt_field_is_named_whatever_the_version(warnings: list[str], tmp_path: Path) -> None:
    EcgDanConfig.from_pretrained(saved(EcgDanConfig(), tmp_path, hiden_size=3))
    assert warnings == [
        "The ecgdan checkpoint has fields unknown here, which are ignored: hiden_size. "
        "Check the names in config.json, or save the checkpoint again."
    ]


def test_the_ecg_side_of_a_dual_encoder_is_looked_at_too(warnings: list[str], tmp_path: Path) -> None:
    inner = EcgDanConfig(text_embed_dim=8).to_dict() | {"new_head": True, "ecgdan_version": "7.0"}
    del inner["lead_layout"], inner["transformers_version"]
    EcgTextConfig.from_pretrained(saved(EcgTextConfig(), tmp_path, ecg_config=inner, ecgdan_version="7.0"))
    outer, ecg_side = warnings
    assert outer.startswith("The ecg-text checkpoint was written by ecgdan-hf 7.0, this is")
    assert "ignored: new_head; it lacks fields, which take their defaults: lead_layout (lead_true)." in ecg_side
    assert "7.0" not in ecg_side


def test_what_is_saved_again_is_of_this_version(warnings: list[str], tmp_path: Path) -> None:
    for number, kind in enumerate((EcgDanSurvivalConfig, EcgTextConfig)):
        older = kind.from_pretrained(saved(kind(), tmp_path / str(number), ecgdan_version="0.0.9"))
        assert older.ecgdan_version == "0.0.9"
        warnings.clear()
        older.save_pretrained(tmp_path / "again")
        assert kind.from_pretrained(tmp_path / "again").ecgdan_version == ecgdan_hf.__version__
        assert warnings == []


def test_weights_of_another_version_do_not_go_unnoticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    EcgDanModel(EcgDanConfig(**TINY)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if name.endswith("weight"))
    newer = {**weights, "second_trunk.weight": torch.zeros(1)}
    del newer[name]
    save_file(newer, tmp_path / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    EcgDanModel.from_pretrained(tmp_path)
    assert "second_trunk.weight" in caplog.text
    assert "UNEXPECTED" in caplog.text and "MISSING" in caplog.text
