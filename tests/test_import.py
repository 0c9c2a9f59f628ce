"""What `import ecgdan_hf` imports, and that it makes the classes known whatever is imported first.

Each case runs in a process of its own: what is imported cannot be taken back.
"""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from warm import WARM

import ecgdan_hf

# Everything that is registered, through transformers' own doors. {folder} is an empty folder.
USE = """
import sys
import transformers
import ecgdan_hf as ours

def config(name):
    tiny = {"num_samples": 64, "pad_samples": 2, "hidden_size": 16, "trunk_channels": [8, 8], "num_attention_heads": 2}
    return transformers.AutoConfig.for_model(name, **tiny)

def made(auto, name):
    return type(getattr(transformers, auto).from_config(config(name)))

assert made("AutoModel", "ecgdan") is ours.EcgDanModel
assert made("AutoModel", "ecgdan-survival") is ours.EcgDanForSurvival
assert made("AutoModelForPreTraining", "ecgdan") is ours.EcgDanForPreTraining
assert made("AutoModelForPreTraining", "danet") is ours.DanetForPreTraining
assert made("AutoModelForSequenceClassification", "ecgdan") is ours.EcgDanForSequenceClassification
assert made("AutoModelForSequenceClassification", "danet") is ours.DanetForSequenceClassification
assert transformers.MODEL_MAPPING[ours.EcgTextConfig] == ours.EcgTextModel
assert transformers.AutoConfig.for_model("ecg-text").__class__ is ours.EcgTextConfig
assert transformers.PROCESSOR_MAPPING[ours.EcgTextConfig] == ours.EcgTextProcessor
for name in ("ecgdan", "ecgdan-survival", "danet", "ecg-text"):
    assert transformers.FEATURE_EXTRACTOR_MAPPING[type(config(name))] == ours.EcgDanFeatureExtractor
ours.EcgDanFeatureExtractor(**config("ecgdan").signal_contract).save_pretrained(sys.argv[1])
loaded = transformers.AutoFeatureExtractor.from_pretrained(sys.argv[1])
assert type(loaded) is ours.EcgDanFeatureExtractor
from transformers.pipelines import PIPELINE_REGISTRY
TASKS = {"ecg-classification", "ecg-feature-extraction", "ecg-survival", "zero-shot-ecg-classification"}
assert TASKS <= set(PIPELINE_REGISTRY.get_supported_tasks())
"""


def python(script: str, *arguments: object, run: Callable = subprocess.run) -> str:
    """What a script prints in a fresh process."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "first",
    [
        # transformers' layers import its Auto classes: half imported when those are there
        "import ecgdan_hf; from transformers.modeling_layers import GradientCheckpointingLayer",
        "from transformers import AutoModel, AutoProcessor, pipeline; import ecgdan_hf",
        # the package's own modules import Auto classes and pipelines, and are half imported then
        "from ecgdan_hf.model.pipeline_base_ecgdan import EcgPipeline",
        "from ecgdan_hf.model.processing_ecgdan import EcgTextProcessor",
    ],
)
def test_the_classes_are_registered_whatever_is_imported_first(first: str, tmp_path: Path) -> None:
    python(f"{first}\n{USE}", tmp_path, run=WARM.run)


def test_importing_the_package_imports_neither_torch_nor_transformers() -> None:
    script = """
import sys
import ecgdan_hf
assert "EcgDanModel" in dir(ecgdan_hf)
print({"torch", "transformers", "datasets", "numpy", "pandas", "accelerate"} & set(sys.modules))
"""
    assert python(script).strip() == "set()"


@pytest.mark.parametrize("verb", ["", "predict", "finetune", "data convert"])
def test_help_imports_no_torch(verb: str) -> None:
    script = """
import sys
sys.argv = ["ecgdan", *sys.argv[1:], "--help"]
from ecgdan_hf.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code
heavy = {"torch", "transformers", "datasets", "timm", "accelerate", "pandas", "numpy", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    assert "Usage:" in python(script, *verb.split())


def test_every_public_name_can_be_imported() -> None:
    for name in ecgdan_hf.__all__:
        assert getattr(ecgdan_hf, name) is not None
    with pytest.raises(AttributeError, match="module 'ecgdan_hf' has no attribute 'EcgDan'"):
        ecgdan_hf.EcgDan  # noqa: B018
    with pytest.raises(ImportError, match="EcgDan"):
        from ecgdan_hf import EcgDan  # type: ignore[attr-defined]  # noqa: F401


def test_type_checkers_are_told_the_same_names_from_the_same_files() -> None:
    stub = ast.parse(Path(ecgdan_hf.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    told = {each.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for each in node.names}
    assert told == ecgdan_hf._NAMES


def test_the_version_of_the_package_is_the_one_stamped_into_checkpoints() -> None:
    assert ecgdan_hf.EcgDanConfig().ecgdan_version == ecgdan_hf.__version__
