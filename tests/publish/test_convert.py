"""The authors' network is reproduced by ours, through the converter that users run."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_weights import CASES, authors_input, authors_state, fill, read_oracle
from transformers import AutoConfig, AutoModelForPreTraining
from warm import WARM

from ecgdan_hf import EcgDanForPreTraining, EcgDanForSurvival
from ecgdan_hf.publish.convert import convert_checkpoint

SCRIPT = Path(__file__).parents[2] / "hub_scripts" / "convert_original_checkpoint.py"


def save_finetuned(oracle: dict, case: str, path: Path) -> Path:
    """A fine-tuned checkpoint as the authors' code writes it: no prefix, `downsteam_net.` for the risk head."""
    state = authors_state(oracle, case)
    torch.save({("downsteam_net." if n.startswith("model.") else "") + n: v for n, v in state.items()}, path)
    return path


def save_pretraining(oracle: dict, case: str, path: Path) -> Path:
    """A Lightning checkpoint: `network.` in front, an argparse.Namespace among the hyperparameters."""
    state = fill(oracle["cases"][case]["network"], oracle["seed"])
    content = {
        "state_dict": {f"network.{name}": value for name, value in state.items()},
        "hyper_parameters": {"args": argparse.Namespace(lr=1e-3)},
        "epoch": 3,
    }
    torch.save(content, path)
    return path


def agrees(ours: torch.Tensor, golden: np.ndarray) -> bool:
    ours = ours.detach().numpy()[: len(golden)].reshape(golden.shape)
    return np.allclose(ours, golden, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_converted_checkpoint_computes_what_the_authors_network_computes(shared, tmp_path, case):
    oracle, golden = read_oracle(shared)
    path = save_finetuned(oracle, case, tmp_path / "authors.ckpt")
    folder = convert_checkpoint(path, tmp_path / "ours", sequential=case.startswith("sequential"))
    model = EcgDanForSurvival.from_pretrained(folder).eval()
    with torch.no_grad():
        output = model(authors_input(oracle, case), output_attentions=True)
        reconstruction = model.decoder(output.pooler_output)
    assert agrees(output.pooler_output, golden[f"{case}/z"])
    assert agrees(reconstruction, golden[f"{case}/reconstruction"])
    assert agrees(output.log_hazard, golden[f"{case}/log_hazard"])
    for name in ("lead_attention", "time_attention"):
        key = f"{case}/{name}"
        assert (key in golden) == (name in output)
        assert key not in golden or agrees(output[name], golden[key])


def test_a_pretraining_checkpoint_with_a_namespace_inside_converts_from_the_command_line(shared, tmp_path):
    oracle, golden = read_oracle(shared)
    path = save_pretraining(oracle, "median_608", tmp_path / "pretrained.ckpt")
    done = WARM.run([sys.executable, SCRIPT, path, tmp_path / "ours"])
    assert done.returncode == 0, done.stderr
    model = AutoModelForPreTraining.from_pretrained(tmp_path / "ours").eval()
    assert isinstance(model, EcgDanForPreTraining)
    assert AutoConfig.from_pretrained(tmp_path / "ours").lead_layout == "reference"
    assert agrees(model(authors_input(oracle, "median_608")).pooler_output, golden["median_608/z"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [({"state_dict": {"other": torch.zeros(1)}}, "expected an ECG-DAN checkpoint"), ("pickle", "tensors only")],
)
def test_a_file_that_is_no_ecg_dan_checkpoint_is_refused_and_nothing_is_written(tmp_path, content, reason):
    path = tmp_path / "bad.ckpt"
    if content == "pickle":
        path.write_bytes(b"not a checkpoint")
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=reason):
        convert_checkpoint(path, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_an_incomplete_checkpoint_is_refused_with_the_missing_name(shared, tmp_path):
    oracle, _ = read_oracle(shared)
    state = authors_state(oracle, "median_608")
    del state["encoder.encoder.2.conv1.weight"]
    torch.save(state, tmp_path / "part.ckpt")
    with pytest.raises(ValueError, match=r"trunk\.2\.conv1\.weight"):
        convert_checkpoint(tmp_path / "part.ckpt", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_missing_file_ends_the_script_with_one_line(tmp_path):
    done = WARM.run([sys.executable, SCRIPT, tmp_path / "no.ckpt", tmp_path / "o"])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
