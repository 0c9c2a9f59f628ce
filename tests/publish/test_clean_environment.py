"""A stranger's machine: an environment with what the card says to install, and nothing else, runs every checkpoint."""

import json
import os
import re
import shlex
import subprocess
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_bundle_text import dual_encoder

from ecgdan_hf import (
    DanetConfig,
    DanetForPreTraining,
    DanetForSequenceClassification,
    EcgDanConfig,
    EcgDanFeatureExtractor,
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanModel,
    EcgDanSurvivalConfig,
)
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.publish import clean_process
from ecgdan_hf.publish.bundle import _write_code_and_weights
from ecgdan_hf.publish.card.model_card import build_card
from ecgdan_hf.publish.hub_code import MODEL_FOLDER, HubCode
from ecgdan_hf.publish.verify import _largest_difference, _package_outputs, _probe_inputs

SMALL = {"trunk_channels": [2, 2, 4, 4, 4], "num_attention_heads": 2, "hidden_size": 16, "stem_features": 2}
DANET = {"trunk_channels": [4, 8], "num_attention_heads": 2, "hidden_size": 16, "waveform_channels": [4, 8]}

STRANGER = """
import importlib.util, json, runpy, sys
for name in json.loads(sys.argv[3]):
    assert importlib.util.find_spec(name) is None, f"{name} can be imported: this environment proves nothing"
main = runpy.run_path(sys.argv[1])["_main"]
for job in json.loads(sys.argv[2]):
    try:
        assert main(*job) == 0
    except Exception as error:
        raise SystemExit(f"{job[0]}: {type(error).__name__}: {error}")
"""


def models() -> dict[str, Any]:
    """One of each class that can be published, with prompts, covariates and a baseline where it may have them."""
    torch.manual_seed(0)
    covariates = {"covariate_names": ["age", "smoking=never"], "covariate_means": [60.0, 0.3]}
    survival = EcgDanForSurvival(EcgDanSurvivalConfig(**SMALL, **covariates, covariate_stds=[12.0, 0.4]))
    survival.fit_baseline(torch.randn(40), (torch.rand(40) < 0.5).float(), 0.1 + 11 * torch.rand(40))
    pretrained = EcgDanForPreTraining(EcgDanConfig(**SMALL, input_kind="rhythm", text_embed_dim=8))
    pretrained.set_prompts(["NORM", "AFIB"], torch.randn(2, 8))
    return {
        "encoder": EcgDanModel(EcgDanConfig(**SMALL, trunk="paper")),
        "pretrained": pretrained,
        "classifier": EcgDanForSequenceClassification(EcgDanConfig(**SMALL, id2label={0: "NORM", 1: "MI"})),
        "survival": survival,
        "danet-soft": DanetForPreTraining(DanetConfig(**DANET)),
        "danet-hard": DanetForSequenceClassification(
            DanetConfig(**DANET, waveform_module="hard", id2label={0: "APC"})
        ),
    }


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What bundles hold of each; proved here and not by `make_bundle`, which would start a process for each."""
    root = tmp_path_factory.mktemp("bundles")
    everything = {name: (model, None) for name, model in models().items()} | {"dual-encoder": dual_encoder()}
    for name, (model, tokenizer) in everything.items():
        (root / name).mkdir()
        extractor = EcgDanFeatureExtractor(**model.config.signal_contract)
        _write_code_and_weights(model.eval(), extractor, root / name, tokenizer)
    return {name: root / name for name in everything}


def installed_with(asked: list[str]) -> set[str]:
    """Names of the distributions that `pip install ASKED` brings, by the metadata of those installed here."""
    found: set[str] = set()
    waiting = [Requirement(each) for each in asked]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += map(Requirement, metadata.requires(name) or ())
    return found


def linked(name: str) -> Iterator[Path]:
    """Files and folders to link for a distribution; parts of a namespace, which others share, one by one."""
    distribution = metadata.distribution(name)
    for file in distribution.files or ():
        top = Path(distribution.locate_file(file.parts[0]))
        if file.parts[0] not in ("..", "__pycache__"):
            shared = top.is_dir() and not (top / "__init__.py").exists() and not top.suffix
            yield Path(*file.parts[: 2 if shared else 1])


@pytest.fixture(scope="module")
def python(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment with what the card's install line brings."""
    card = build_card(load_checkpoint(bundles["classifier"])[0], None, None, "Beats").text
    line = re.search(r"^pip install (.*)$", card, re.MULTILINE)
    assert line, "the card does not say what to install"
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in installed_with(shlex.split(line[1])):
        here = Path(metadata.distribution(name).locate_file(""))
        for part in set(linked(name)):
            (packages / part).parent.mkdir(exist_ok=True)
            if not (packages / part).is_symlink():  # CUDA's libraries share a folder
                (packages / part).symlink_to(here / part)
    return folder / "bin" / "python"


def test_every_head_runs_with_what_its_card_says_to_install(
    bundles: dict[str, Path], python: Path, tmp_path: Path
) -> None:
    jobs, expected = [], {}
    for name, folder in bundles.items():
        model, extractor = load_checkpoint(folder)
        inputs = _probe_inputs(model)
        np.savez(tmp_path / f"{name}-in.npz", **inputs)
        expected[name] = _package_outputs(model, extractor, inputs)
        jobs.append(
            [str(folder), head_of(model).auto_class, *(f"{tmp_path}/{name}-{way}.npz" for way in ("in", "out"))]
        )
    absent = json.dumps(["ecgdan_hf", "datasets", "wfdb", "peft", "timm"])
    command = [str(python), "-I", "-c", STRANGER, clean_process.__file__, json.dumps(jobs), absent]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
    asked = {}
    for name, folder in bundles.items():
        with np.load(f"{tmp_path}/{name}-out.npz", allow_pickle=False) as outputs:
            found = dict(outputs)
        assert str(found["model_module"]).startswith("transformers_modules.")
        assert _largest_difference(expected[name], found, folder) <= 1e-5
        asked[name] = sorted(output.removeprefix("pipeline ") for output in found if output.startswith("pipeline "))
    features, zero_shot = "ecg-feature-extraction", "zero-shot-ecg-classification"
    assert asked == {
        "encoder": [features],
        "pretrained": [features, zero_shot],
        "classifier": ["ecg-classification", features],
        "survival": [features, "ecg-survival"],
        "danet-soft": [],
        "danet-hard": ["ecg-classification", features],
        "dual-encoder": [features, zero_shot],
    }


def test_the_install_line_has_every_library_the_code_imports_and_nothing_the_package_alone_needs() -> None:
    names = [Requirement(each).name for each in HubCode().requirements()]
    assert names == ["neurokit2", "scipy", "torch", "transformers"]
    assert all(Requirement(each).specifier for each in HubCode().requirements())


def test_code_that_imports_what_the_package_does_not_require_is_refused(tmp_path: Path) -> None:
    code = tmp_path / "model.py"
    code.write_text(
        "import torch\n\n\ntry:\n    import nowhere.to.be.found\nexcept ImportError:\n    pass\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"^nowhere: imported by code that travels, expected among the package's"):
        HubCode([code]).requirements()
    code.write_text(
        "import yaml\nimport torch.nn\nfrom transformers import X\nfrom .other import y\n", encoding="utf-8"
    )
    assert [Requirement(each).name for each in HubCode([code]).requirements()] == ["torch", "transformers"]


def test_every_file_that_travels_is_in_the_folder_the_requirements_are_read_from(bundles: dict[str, Path]) -> None:
    travelling = {path.name for folder in bundles.values() for path in folder.glob("*.py")}
    assert travelling <= {path.name for path in MODEL_FOLDER.glob("*.py")}
