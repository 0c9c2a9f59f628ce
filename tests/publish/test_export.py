"""ONNX: what is written answers as the network does for any batch, says what it needs, or is not written at all."""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from heads import build, inputs
from tiny import TINY, signals
from typer.testing import CliRunner

from ecgdan_hf import EcgDanFeatureExtractor
from ecgdan_hf.cli.main import app
from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.inference.archive import rows_to_file
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.lite import LitePredictor
from ecgdan_hf.inference.predict import Predictor
from ecgdan_hf.model.configuration_ecgdan import EcgDanSurvivalConfig
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.publish import export as exporting
from ecgdan_hf.publish.export import _describe, _Exported, _ExportedNetwork, _risk_years, export_onnx

HEADS = {
    "classification": {"logits", "pooler_output"},
    "survival": {"log_hazard", "survival", "pooler_output"},
    "ecg-text": {"prompt_logits", "ecg_embeds", "pooler_output"},
    "danet": {"logits", "waveform_attention", "pooler_output"},
    "danet-hard": {"logits", "waveform_attention", "pooler_output"},
}
OPTIONS = {
    "classification": {"id2label": {0: "NORM", 1: "MI", 2: "HYP"}, "thresholds": {"MI": 0.3}, "trunk": "light"},
    "survival": {},
    "ecg-text": {"trunk": "light", "use_time_attention": False, "use_lead_attention": False},
    "danet": {"waveform_channels": [4, 6], "classifier_network": "resnet1d"},
    "danet-hard": {},
}
"""Tracing takes long: one block for a trunk, and each trunk's attentions once."""
ABSENT = (
    "torch",
    "transformers",
    "pandas",
    "pyarrow",
    "datasets",
    "h5py",
    "wfdb",
    "matplotlib",
    "sklearn",
    "neurokit2",
)
WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from ecgdan_hf.cli.main import main
main()
"""


def save(name: str, folder: Path) -> Path:
    model = build(name, trunk_channels=[8], **OPTIONS[name])
    model.save_pretrained(folder)
    EcgDanFeatureExtractor(**model.config.signal_contract).save_pretrained(folder)
    return folder


def answers(file: Path, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    given = {each.name: batch[each.name].numpy() for each in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


def metadata(file: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(name, tmp_path_factory.mktemp("checkpoints") / name) for name in HEADS}


@pytest.fixture(scope="module")
def classifier(checkpoints: dict[str, Path]) -> Path:
    return checkpoints["classification"]


@pytest.fixture(scope="module")
def written(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., _Exported]:
    """Exports of the checkpoints, each made once."""

    @cache
    def write(name: str, int8: bool = False) -> _Exported:
        return export_onnx(checkpoints[name], tmp_path_factory.mktemp(name) / "model.onnx", int8=int8)

    return write


def test_an_export_holds_no_path_of_the_machine_that_made_it(written: Callable[..., _Exported]):
    content = written("classification").path.read_bytes()
    for trace in ("ecgdan_hf/", "site-packages", "stack_trace", str(Path.cwd())):
        assert trace.encode() not in content, trace


@pytest.mark.parametrize("name", [name for name in HEADS if name != "danet-hard"])  # which is written with 8 bits
def test_onnxruntime_answers_as_the_network_for_a_batch_of_another_size(
    name: str, checkpoints: dict[str, Path], written: Callable[..., _Exported]
):
    found = written(name)
    model, batch = load_checkpoint(checkpoints[name])[0], inputs(name, records=5)
    with torch.no_grad():
        expected = model(**batch, return_loss=False)
    got = answers(found.path, batch)
    assert set(got) == set(found.outputs) == HEADS[name]
    for key in got.keys() - {"survival"}:
        np.testing.assert_allclose(got[key], expected[key].numpy(), atol=1e-4, rtol=1e-4, err_msg=key)
    if name == "survival":
        years = json.loads(metadata(found.path)["survival_years"])
        with torch.no_grad():
            curve = model.predict_survival(**batch, years=years)
        np.testing.assert_allclose(got["survival"], curve.numpy(), atol=1e-4)
    assert found.num_bytes == found.path.stat().st_size and found.largest_difference < 1e-4
    assert [path.name for path in found.path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("hazard", ["cox", "discrete"])
def test_the_exported_incidence_of_competing_causes_is_the_networks_own_at_the_times_it_names(hazard: str):
    given = {"cause_names": ["failure", "death"], "hazard": hazard, "reconstruction_weight": 0.0}
    given |= {"hazard_cuts": [0, 1, 3, 8]} if hazard == "discrete" else {}
    torch.manual_seed(0)
    model = EcgDanForSurvival(EcgDanSurvivalConfig(**TINY, **given)).eval()
    if hazard == "cox":
        model.fit_baseline(torch.randn(60, 2), torch.arange(60) % 3, torch.linspace(0.5, 9, 60))
    batch = {"input_values": signals(3), "lead_mask": torch.ones(3, 12, dtype=torch.bool)}
    with torch.no_grad():
        found = _ExportedNetwork(model).named_outputs(**batch)
        expected = model.risks(model(**batch, return_loss=False), _risk_years(model)).risk
    assert found["log_hazard"].shape == (3, 2)
    np.testing.assert_allclose(found["incidence"].numpy(), expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(found["survival"].numpy(), 1 - expected.sum(dim=1).numpy(), atol=1e-5)


def test_the_exported_risk_of_several_endpoints_is_the_networks_own_of_each():
    torch.manual_seed(0)
    given = {"endpoint_names": ["hf", "af"], "endpoint": "hf", "reconstruction_weight": 0.0}
    model = EcgDanForSurvival(EcgDanSurvivalConfig(**TINY, **given)).eval()
    event = (torch.arange(60)[:, None] % torch.tensor([2, 3]) == 0).double()
    model.fit_baseline(torch.randn(60, 2), event, torch.linspace(0.5, 9, 60)[:, None] * torch.tensor([1.0, 0.5]))
    batch = {"input_values": signals(3), "lead_mask": torch.ones(3, 12, dtype=torch.bool)}
    with torch.no_grad():
        found = _ExportedNetwork(model).named_outputs(**batch)
        expected = model.risks(model(**batch, return_loss=False), _risk_years(model)).risk
    assert _risk_years(model)[-1] == 4.5  # of the endpoint that was followed for less
    np.testing.assert_allclose(found["incidence"].numpy(), expected.numpy(), atol=1e-5)
    assert "survival" not in found
    assert _describe(model, EcgDanFeatureExtractor(**model.config.signal_contract))["endpoint_names"] == '["hf", "af"]'


def test_the_file_says_what_it_needs_and_what_its_columns_are(classifier: Path, written: Callable[..., _Exported]):
    told = metadata(written("classification").path)
    assert json.loads(told["labels"]) == ["NORM", "MI", "HYP"] and json.loads(told["thresholds"]) == {"MI": 0.3}
    model, extractor = load_checkpoint(classifier)
    assert json.loads(told["lead_names"]) == model.config.lead_names and told["unit"] == "mV"
    assert float(told["sampling_rate_hz"]) == model.config.sampling_rate
    assert "research use only" in told["use"] and told["ecgdan_version"] == model.config.ecgdan_version
    again = EcgDanFeatureExtractor.from_dict(json.loads(told["preprocessor_config"]))
    assert again.to_dict() == extractor.to_dict()


def test_eight_bits_store_kernels_as_integers_and_stay_near(
    checkpoints: dict[str, Path], written: Callable[..., _Exported]
):
    found = written("danet-hard", int8=True)
    kinds = {node.op_type for node in onnx.load(found.path).graph.node}
    assert "ConvInteger" in kinds and "Conv" not in kinds
    batch = inputs("danet-hard", records=5)
    with torch.no_grad():
        expected = load_checkpoint(checkpoints["danet-hard"])[0](**batch).logits.numpy()
    got = answers(found.path, batch)
    assert set(got) == HEADS["danet-hard"]
    assert 1e-4 < np.abs(got["logits"] - expected).max() < 0.3 and found.largest_difference > 1e-4
    np.testing.assert_allclose(got["waveform_attention"], batch["waveform_weights"].numpy(), atol=1e-6)


def test_a_file_that_answers_otherwise_is_not_written(
    checkpoints: dict[str, Path], written: Callable[..., _Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "model.onnx").write_text("of before", encoding="utf-8")
    rounded = written("danet-hard", int8=True).path  # what 8 bits make of it is not near enough
    monkeypatch.setattr(exporting, "_write_onnx", lambda network, extractor, file: shutil.copy(rounded, file))
    with pytest.raises(ValueError, match=r"expected onnxruntime to differ from the network by less"):
        export_onnx(checkpoints["danet-hard"], tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text(encoding="utf-8") == "of before"


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_one_line(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
):
    real = importlib.util.find_spec
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(ValueError, match=rf"export: needs {missing}, .* pip install ecgdan-hf\[onnx\]") as refusal:
        export_onnx(classifier, tmp_path / "model.onnx")
    assert "\n" not in str(refusal.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/at/all", "model.onnx"], "no such checkpoint folder"),
        (["CHECKPOINT", "model.pt"], "out: expected a name that ends in .onnx"),
        (["CHECKPOINT", "absent/model.onnx"], "out: expected a file in an existing folder"),
    ],
)
def test_the_command_refuses_what_it_cannot_write(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    given = [str(classifier) if each == "CHECKPOINT" else each for each in arguments]
    result = CliRunner().invoke(app, ["export", *given])
    assert result.exit_code and message in str(result.exception) and not list(tmp_path.iterdir())


# ---- without torch


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Twelve leads, three (too few for thresholds), and what is no ECG."""
    folder = tmp_path_factory.mktemp("files")
    for name, leads in (("=twelve", slice(12)), ("three", slice(6, 9))):
        signal, names = make_signal(0.0, 98.0, 70.0, seed=3)[leads], STANDARD_LEADS[leads]
        np.savez(folder / f"{name}.npz", signal=signal, sampling_rate=500, unit="mV", lead_names=names)
    (folder / "none.csv").write_text("no ECG", encoding="utf-8")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", ["classification", "survival", "danet"])
def test_an_onnx_file_predicts_what_its_checkpoint_does(checkpoints, written, files, name):
    folder, exported = checkpoints[name], written(name).path
    model, extractor = load_checkpoint(folder)
    full = Predictor(model, extractor, missing_covariates="mean")
    lite = LitePredictor(exported, missing_covariates="mean", batch_size=2)
    assert lite.columns == full.columns
    expected, found = ([row for batch in each.batches(files) for row in batch] for each in (full, lite))
    for ours, theirs in zip(found, expected, strict=True):
        for column in full.columns:
            assert ours.get(column) == pytest.approx(theirs.get(column), abs=1e-5, nan_ok=True), column
    assert [bool(row["error"]) for row in found] == [False, True, False]


def test_the_command_predicts_without_torch_transformers_and_what_they_bring(written, files, tmp_path):
    exported = written("classification").path
    out = tmp_path / "found.csv"
    command = [sys.executable, "-c", WITHOUT, "predict", *files, "--checkpoint", exported, "--out", out]
    at_home = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    at_home |= {"HOME": str(tmp_path / "home")}
    done = subprocess.run([*map(str, command)], capture_output=True, encoding="utf-8", check=False, env=at_home)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("home/**/*onnxruntime*"))  # where it keeps what it reports to its maker
    with out.open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    expected = rows_to_file(LitePredictor(exported), files, tmp_path / "expected.csv")
    assert out.read_text(encoding="utf-8") == expected.out.read_text(encoding="utf-8")
    assert [row["num_leads"] for row in rows] == ["12", "", "3"]
    assert ["thresholds_need_more_leads" in row["flags"] for row in rows] == [False, False, True]


def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, files):
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx: no such file"):
        LitePredictor(tmp_path / "absent.onnx")
    (tmp_path / "other.onnx").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"other\.onnx: not an ONNX file"):
        LitePredictor(tmp_path / "other.onnx")


def test_workers_give_the_rows_of_one_process(written, files):
    exported = written("classification").path
    rows = [[row for batch in LitePredictor(exported, num_workers=n).batches(files) for row in batch] for n in (0, 2)]
    assert rows[0] == rows[1]
