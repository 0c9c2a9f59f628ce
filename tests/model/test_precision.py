"""Heads in bfloat16, placed by `device_map`, and from files that are no pickles.

bfloat16 keeps 8 bits, an error of up to 0.4 % at each rounding; over the layers of these networks up to 2 % of an
output's length were found, and 3 % are allowed. Where a network is placed changes rounding at most, and on the CPU not
even that.
"""

import os
from pathlib import Path

import pytest
import torch
from accelerate import infer_auto_device_map
from accelerate.utils import get_balanced_memory
from heads import TINY_HEADS, build, inputs, learnable
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from ecgdan_hf import EcgDanConfig, EcgDanForSequenceClassification, EcgDanModel
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.training.core.starting_weights import build_model

TRUNKS = [(name, trunk) for name in TINY_HEADS for trunk in ("paper", "light") if name != "danet-pretraining"]
HEADS = [*TRUNKS, ("danet-pretraining", "light")]  # which has no trunk
YEARS = [1.0, 2.0, 5.0, 8.0]


def answers(model: PreTrainedModel, name: str) -> dict[str, torch.Tensor]:
    """Losses among them where the head has any."""
    batch = inputs(name) if name == "encoder" else learnable(name)
    with torch.no_grad():
        found = model.eval()(**batch)
    return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}


def loaded(model: PreTrainedModel, folder: Path, **options) -> PreTrainedModel:
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder, **options)


@pytest.mark.parametrize(("name", "trunk"), HEADS)
def test_a_head_in_bfloat16_answers_finitely_and_near_float32(name: str, trunk: str, tmp_path: Path):
    model = build(name, trunk=trunk)
    halved = loaded(model, tmp_path, dtype=torch.bfloat16)
    assert {value.dtype for value in halved.parameters()} == {torch.bfloat16}
    found = answers(halved, name)
    for key, expected in answers(model, name).items():
        value = found[key].float()
        assert value.isfinite().all() and (value - expected).norm() <= 0.03 * expected.norm(), key
        assert found[key].dtype == torch.float32 or not key.endswith("loss"), key


@pytest.mark.parametrize("trunk", ["paper", "light"])
def test_risks_of_a_bfloat16_network_are_those_of_its_log_hazards_in_float32(trunk: str, tmp_path: Path):
    model, batch = build("survival", trunk=trunk), inputs("survival")
    halved = loaded(model, tmp_path, dtype=torch.bfloat16).eval()
    found, expected = halved.predict_survival(**batch, years=YEARS), model.predict_survival(**batch, years=YEARS)
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 0.01
    with torch.no_grad():
        log_hazard = halved(**batch, return_loss=False).log_hazard
    assert log_hazard.dtype == torch.bfloat16
    knots = [int((halved.baseline.times <= year).sum()) - 1 for year in YEARS]
    exact = torch.exp(-torch.exp(log_hazard.double()[:, None] + model.baseline.log_cumulative_hazard.double()[knots]))
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=0)  # one rounding to bfloat16 would be 1e-3
    torch.testing.assert_close(halved.predict_risk(**batch, horizon_years=5.0), 1 - found[:, 2])


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, "auto"], ids=str)
@pytest.mark.parametrize("name", TINY_HEADS)
def test_a_device_map_changes_no_number(name: str, device_map: str | dict[str, str], tmp_path: Path):
    model = build(name)
    found = answers(loaded(model, tmp_path, device_map=device_map), name)
    for key, value in answers(model, name).items():
        assert torch.equal(found[key], value) and found[key].device.type == "cpu", key


@pytest.mark.parametrize(("name", "trunk"), HEADS)
def test_weights_that_do_not_fit_are_read_from_disk_where_they_are_used(name: str, trunk: str, tmp_path: Path):
    model = build(name, trunk=trunk)
    little = sum(value.nbytes for value in model.parameters()) // 2
    spread = loaded(model, tmp_path, device_map="auto", max_memory={"cpu": little}, offload_folder=tmp_path / "off")
    assert "disk" in spread.hf_device_map.values()
    found = answers(spread, name)
    for key, value in answers(model, name).items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.parametrize(("name", "trunk"), HEADS)
def test_auto_leaves_a_network_on_one_of_two_gpus(name: str, trunk: str):
    # the encoder alone in its real size, where its largest part is most of it
    model = EcgDanModel(EcgDanConfig(trunk=trunk)) if name == "encoder" else build(name, trunk=trunk)
    if name == "ecg-text":
        model.text_model = None  # another's network; it may go where there is room
    blocks = list(model._no_split_modules)
    memory = get_balanced_memory(model, {0: 10**9, 1: 10**9}, no_split_module_classes=blocks)
    assert set(infer_auto_device_map(model, memory, no_split_module_classes=blocks).values()) == {0}


# Safetensors alone


@pytest.mark.parametrize("options", [{}, {"safe_serialization": False}, {"max_shard_size": "20KB"}], ids=str)
def test_no_pickle_is_written(tmp_path: Path, options: dict):
    build("classification").save_pretrained(tmp_path, **options)
    names = {path.suffix for path in tmp_path.iterdir()}
    assert names == {".json", ".safetensors"}
    load_checkpoint(tmp_path)


class Payload:
    """What runs code when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_that_is_a_pickle_is_refused_in_one_line_and_runs_nothing(tmp_path: Path):
    model = build("classification")
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"expected model\.safetensors, found pytorch_model\.bin, a pickle"
    ) as refusal:
        load_checkpoint(tmp_path)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"cannot be read: Error no file named model\.safetensors"):
        build_model(EcgDanForSequenceClassification, model.config, str(tmp_path))
    torch.save({"weights": Payload(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match="Weights only load failed"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()
