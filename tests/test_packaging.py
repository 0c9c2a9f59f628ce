"""The wheel and the sdist: what is in them, that they install, and that nothing of an extra is needed without it.

No network: they are built by the setuptools that is installed, and the libraries of the minimal install are linked.
"""

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution, packages_distributions
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny import TINY

import ecgdan_hf
from ecgdan_hf.data.simulate.synthetic import write_cohort

ROOT = Path(ecgdan_hf.__file__).resolve().parents[1]
EXTRAS = {"peft": "peft", "onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "gradio": "space"}


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **environment}
    texts = [str(part) for part in command]
    return subprocess.run(texts, env=environment, capture_output=True, encoding="utf-8", check=False, cwd="/")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the sdist and the wheel that was built from it."""
    source = tmp_path_factory.mktemp("source")
    copytree(ROOT / "ecgdan_hf", source / "ecgdan_hf", ignore=ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "!!" not in done.stdout + done.stderr, done.stdout  # so setuptools marks what it will refuse one day
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the package as pip installs it from the wheel, without its dependencies."""
    target = tmp_path_factory.mktemp("installed")
    wheel = next(built.glob("*.whl"))
    done = run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def minimal(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has what the wheel requires without extras, and nothing else."""
    folder = tmp_path_factory.mktemp("minimal")
    done = run(sys.executable, "-m", "venv", "--without-pip", folder)
    assert done.returncode == 0, done.stderr
    packages = next(folder.glob("lib/python*/site-packages"))
    for path in installed.iterdir():
        (packages / path.name).symlink_to(path)
    about = PathDistribution(next(installed.glob("*.dist-info")))
    for each in closure(about):
        for file in {(Path(part.parts[0])) for part in each.files or () if part.parts[0] not in ("..", "__pycache__")}:
            if not (packages / file).exists():
                (packages / file).symlink_to(Path(str(each.locate_file(file))))
    return folder / "bin/python"


def closure(about: Distribution) -> list[Distribution]:
    """What a distribution requires, and what that requires, without the extras nobody asked for."""
    waiting, found = [(about, "")], {}
    while waiting:
        current, extra = waiting.pop()
        for text in current.requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                needed = distribution(wanted.name)
                fresh = {"", *wanted.extras} - {have for name, have in found if name == wanted.name}
                waiting += [(needed, each) for each in fresh]
                found.update({(wanted.name, each): needed for each in fresh})
    return list(found.values())


def test_the_wheel_has_every_file_of_the_package_and_no_other(built: Path) -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "ecgdan_hf").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    assert {name for name in names if ".dist-info/" not in name} == files
    assert any(name.endswith("licenses/LICENSE") for name in names)
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert files | {"pyproject.toml", "README.md", "LICENSE"} <= inside


def test_the_installed_wheel_runs_and_its_metrics_load(installed: Path, tmp_path: Path) -> None:
    path = {"PYTHONPATH": str(installed)}
    said = run(sys.executable, installed / "bin/ecgdan", "--version", **path)
    assert said.stdout == f"ecgdan-hf {ecgdan_hf.__version__}\n", said.stderr
    script = """
import sys, importlib.metadata, ecgdan_hf
print(ecgdan_hf.__file__, importlib.metadata.version("ecgdan-hf"), sep="\\n")
import evaluate
from ecgdan_hf.evaluation.metrics import metric_path
metric = evaluate.load(metric_path("concordance_index"), cache_dir=sys.argv[1])
print(metric.compute(predictions=[0.9, 0.1, 0.5], event=[1, 1, 0], time=[1.0, 2.0, 3.0]))
"""
    done = run(sys.executable, "-c", script, tmp_path, HF_MODULES_CACHE=str(tmp_path / "modules"), **path)
    assert done.returncode == 0, done.stderr
    file, version, value = done.stdout.splitlines()
    assert (Path(file).parents[1], version) == (installed, ecgdan_hf.__version__)
    assert value.startswith("{'concordance_index': 0.666")


EVERY_MODULE = """
import importlib, pkgutil, sys
import ecgdan_hf
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} can be imported, this is no minimal install")
for module in pkgutil.walk_packages(ecgdan_hf.__path__, "ecgdan_hf."):
    importlib.import_module(module.name)
from typer.testing import CliRunner
from ecgdan_hf.cli.main import app
names = [command.name or command.callback.__name__ for command in app.registered_commands]
for name in [*names, "data"]:
    found = CliRunner().invoke(app, [name, "--help"])
    assert found.exit_code == 0 and "Usage:" in found.output, (name, found.output)
print(ecgdan_hf.__file__)
"""


def test_the_minimal_install_imports_every_module_and_shows_every_verb(minimal: Path) -> None:
    done = run(minimal, "-c", EVERY_MODULE, *EXTRAS)
    assert done.returncode == 0, done.stderr
    assert ROOT not in Path(done.stdout.strip()).parents


def test_the_minimal_install_predicts_explains_and_says_which_extra_is_missing(minimal: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort", n=20, seed=0)
    file = sorted(tmp_path.rglob("*.hea"))[0]
    torch.manual_seed(0)
    config = ecgdan_hf.EcgDanConfig(**TINY, sampling_rate=50, num_labels=2)
    ecgdan_hf.EcgDanForSequenceClassification(config).save_pretrained(tmp_path / "model")
    ecgdan_hf.EcgDanFeatureExtractor(**config.signal_contract).save_pretrained(tmp_path / "model")
    checkpoint = ("--checkpoint", tmp_path / "model", "--out")
    script = """
import sys
from ecgdan_hf.cli.main import app
from ecgdan_hf.training.arguments.command import run_safely
for line in sys.stdin.read().splitlines():
    sys.argv[1:] = line.split("\\t")
    print(run_safely(lambda: app(standalone_mode=False)), file=sys.stderr)
"""
    commands = [
        ("predict", file, *checkpoint, tmp_path / "found.csv"),
        ("explain", file, *checkpoint, tmp_path / "found.png"),
        ("export", tmp_path / "model", tmp_path / "model.onnx"),
    ]
    lines = "\n".join("\t".join(map(str, command)) for command in commands)
    done = subprocess.run([minimal, "-c", script], input=lines, capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert (tmp_path / "found.csv").read_text(encoding="utf-8").count("\n") == 2, done.stderr
    assert (tmp_path / "found.png").stat().st_size > 10_000
    assert re.search(r"^error: export: needs onnx.*pip install ecgdan-hf\[onnx\]$", done.stderr, re.MULTILINE)
    assert [line for line in done.stderr.splitlines() if line in ("0", "1", "2")] == ["0", "0", "2"]


def test_what_the_package_imports_is_what_it_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    core = {Requirement(text).name for text in project["dependencies"]}
    offered = {Requirement(text).name for name, texts in extras.items() if name != "dev" for text in texts}
    owners = packages_distributions()
    imported = {
        owners[name][0].lower().replace("_", "-")
        for path in (ROOT / "ecgdan_hf").rglob("*.py")
        for name in third_party(ast.parse(path.read_text(encoding="utf-8")))
        if name in owners
    }
    assert imported - core - offered == {"pydicom", "onnx-ir"}  # what ecgdatakit[dicom] and onnxscript bring
    assert core - imported == {"tensorboard"}  # imported by accelerate


def third_party(tree: ast.AST) -> set[str]:
    """Top names of the absolute imports of a file, wherever they stand in it."""
    names = {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
    names |= {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"ecgdan_hf"}


def test_the_lock_of_the_weights_fits_the_package_and_the_recipes_of_the_newest() -> None:
    lines = (ROOT / "hub_scripts" / "weights-2026-11-28.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    pinned = {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [Requirement(text) for text in project["dependencies"]]
    assert not [str(each) for each in needed if not each.specifier.contains(pinned[canonicalize_name(each.name)])]
    recipes = list((ROOT / "model_cards").glob("ecg-dan-rhythm-*-*/recipe.yaml"))  # statements, and simulated survival
    assert len(recipes) == 4
    for recipe in recipes:
        versions = yaml.safe_load(recipe.read_text(encoding="utf-8"))["versions"]
        assert all(pinned[name] == versions[name] for name in versions if name not in ("python", "ecgdan-hf")), recipe
