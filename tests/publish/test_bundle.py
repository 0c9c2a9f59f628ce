"""Bundles: what is in them, that they load without the package, and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from changed_code import with_higher_log_hazard
from huggingface_hub import ModelCard
from transformers import AutoFeatureExtractor, AutoModel, pipeline

from ecgdan_hf import EcgSurvivalPipeline
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.publish import bundle
from ecgdan_hf.publish.bundle import make_bundle
from ecgdan_hf.publish.hub_code import HubCode
from ecgdan_hf.publish.verify import _largest_difference, _probe_inputs, is_bundle, verify_bundle


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def test_code_that_computes_something_else_fails_the_proof(survival_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(survival_bundle, folder)
    code = folder / "heads_ecgdan.py"
    code.write_text(with_higher_log_hazard(code.read_text(encoding="utf-8"), by=0.1), encoding="utf-8")
    with pytest.raises(ValueError, match="the code is not the bundled one"):
        verify_bundle(folder)
    config = config_of(folder) | {"ecgdan_code_revision": HubCode(folder.glob("*.py")).revision}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"without the package log_hazard differs by 0\.1"):
        verify_bundle(folder)


def test_a_card_with_small_cells_left_out_shows_none_and_no_total_gives_one_away(
    survival_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "verify_bundle", lambda folder: None)
    source, sizes = tmp_path / "run", {"<40": (31, 3), "40-59": (40, 9), "60-79": (59, 19)}
    shutil.copytree(survival_checkpoint, source)
    result = Result.read(source)
    index = result.metrics["test"]["concordance_index"]
    result.metrics["subgroups"]["age"] = {
        name: {"num_records": records, "num_patients": records, "num_events": events, "concordance_index": index}
        for name, (records, events) in sizes.items()
    }
    result.write(source)
    shown = {}
    for smallest in (0, 5):
        out = make_bundle(source, tmp_path / f"bundle-{smallest}", small_cells=smallest)
        shown[smallest] = (out / "README.md").read_text(encoding="utf-8") + (out / "metrics.json").read_text()
    for name, is_kept in (("<40", False), ("40-59", False), ("60-79", True)):
        assert f"age: {name}" in shown[0] and (f"age: {name}" in shown[5]) == is_kept
        assert f'"{name}"' in shown[0] and (f'"{name}"' in shown[5]) == is_kept


def test_a_classifier_bundle_lists_every_head_of_its_configuration(classification_bundle: Path) -> None:
    # the clean process of make_bundle() has loaded each of them
    assert config_of(classification_bundle)["auto_map"] == {
        "AutoConfig": "configuration_ecgdan.EcgDanConfig",
        "AutoModel": "modeling_ecgdan.EcgDanModel",
        "AutoModelForPreTraining": "modeling_ecgdan.EcgDanForPreTraining",
        "AutoModelForSequenceClassification": "modeling_ecgdan.EcgDanForSequenceClassification",
    }


def test_a_survival_bundle_maps_auto_model_to_the_survival_head(survival_bundle: Path) -> None:
    assert config_of(survival_bundle)["auto_map"] == {
        "AutoConfig": "configuration_ecgdan.EcgDanSurvivalConfig",
        "AutoModel": "modeling_ecgdan.EcgDanForSurvival",
    }
    preprocessor = json.loads((survival_bundle / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert preprocessor["auto_map"] == {"AutoFeatureExtractor": "feature_extraction_ecgdan.EcgDanFeatureExtractor"}


def test_a_bundle_says_which_version_and_code_it_carries(survival_bundle: Path) -> None:
    config = config_of(survival_bundle)
    assert config["ecgdan_version"] == "0.1.0"
    assert config["ecgdan_code_revision"] == HubCode(survival_bundle.glob("*.py")).revision
    assert {"README.md", "LICENSE", "model.safetensors", "metrics.json", "recipe.yaml"} <= {
        path.name for path in survival_bundle.iterdir()
    }
    assert "Apache License" in (survival_bundle / "LICENSE").read_text(encoding="utf-8")
    assert "simulated outcome" in ModelCard.load(survival_bundle / "README.md").text


def test_no_path_of_the_training_machine_is_published(survival_bundle: Path, pretrained_bundle: Path) -> None:
    for folder in (survival_bundle, pretrained_bundle):
        for path in filter(Path.is_file, folder.rglob("*")):
            assert b"/home/someone" not in path.read_bytes(), path.name
        assert "data_dir: ptb-xl" in (folder / "recipe.yaml").read_text(encoding="utf-8")


def test_results_are_carried_along_and_no_benchmark_is_claimed(pretrained_bundle: Path) -> None:
    names = ["label-efficiency", "probe", "sanity", "zero-shot"]
    assert sorted(path.stem for path in (pretrained_bundle / "evaluation").iterdir()) == names
    assert (
        json.loads((pretrained_bundle / "evaluation" / "probe.json").read_text(encoding="utf-8"))["checkpoint"]
        == "run"
    )
    assert not (pretrained_bundle / ".eval_results").exists()
    assert ModelCard.load(pretrained_bundle / "README.md").data.datasets == ["owner/ptb-xl"]
    assert verify_bundle(pretrained_bundle) <= 1e-5


def test_results_that_cannot_be_used_are_refused_before_anything_is_written(
    pretrained_checkpoint: Path, result_folders: dict[str, Path], tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    Result("finetune", {"task": "survival", "num_records": {"train": 3}}).write(empty)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.json").write_text('{"seconds": 3}', encoding="utf-8")
    probe = result_folders["probe"]
    for folders, error, message in (
        (
            [tmp_path],
            FileNotFoundError,
            r"metrics\.json: expected a result that a verb .*, found no file",
        ),
        ([tmp_path / "other"], ValueError, r"metrics\.json: schema: expected 1, found None"),
        ([empty], ValueError, r"metrics\.json: expected numbers with intervals, found none"),
        ([probe, probe], ValueError, "results: expected folders of different names, got probe more than once"),
    ):
        with pytest.raises(error, match=message):
            make_bundle(pretrained_checkpoint, tmp_path / "out", results=folders)
    assert not (tmp_path / "out").exists()


def test_the_files_of_a_bundle_can_be_read_by_others(survival_bundle: Path) -> None:
    assert survival_bundle.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in survival_bundle.iterdir() if path.is_file()} == {0o644}


def test_a_bundle_brings_the_pipelines_that_fit_its_head(survival_bundle: Path, pretrained_bundle: Path) -> None:
    # the clean process of make_bundle() has asked each of them
    found = config_of(survival_bundle)["custom_pipelines"]
    classes = {task: pipeline["impl"] for task, pipeline in found.items()}
    assert classes == {
        "ecg-survival": "pipeline_survival_ecgdan.EcgSurvivalPipeline",
        "ecg-feature-extraction": "pipeline_base_ecgdan.EcgFeatureExtractionPipeline",
    }
    assert found["ecg-survival"]["pt"][0] == "AutoModel"
    tasks = {"zero-shot-ecg-classification", "ecg-feature-extraction"}
    assert set(config_of(pretrained_bundle)["custom_pipelines"]) == tasks


def test_a_pipeline_that_answers_something_else_fails_the_proof(survival_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(survival_bundle, folder)
    code = folder / "pipeline_survival_ecgdan.py"
    changed = code.read_text(encoding="utf-8").replace(
        "HORIZONS_YEARS = (1.0, 5.0, 10.0)", "HORIZONS_YEARS = (1.0, 6.0, 10.0)"
    )
    assert changed != code.read_text(encoding="utf-8")
    code.write_text(changed, encoding="utf-8")
    config = config_of(folder) | {"ecgdan_code_revision": HubCode(folder.glob("*.py")).revision}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="without the package pipeline ecg-survival/risk/1/years differs by 1,"):
        verify_bundle(folder)


def test_every_number_and_word_of_a_pipeline_s_answer_is_compared() -> None:
    def outputs(**changed: object) -> dict[str, np.ndarray]:
        answer = {
            "risk": [{"years": 5.0, "risk": 0.25}],
            "low": None,
            "simulated": True,
            "flags": ["padded"],
        } | changed
        return {"pipeline ecg-survival": np.array(json.dumps(answer))}

    folder = Path("bundle")
    assert _largest_difference(outputs(), outputs(), folder) == 0
    assert _largest_difference(outputs(), outputs(risk=[{"years": 5.0, "risk": 0.25 + 5e-7}]), folder) > 1e-7
    for changed in (
        {"risk": [{"years": 5.0, "risk": 0.2501}]},
        {"risk": []},
        {"low": 0.0},
        {"simulated": False},
        {"flags": []},
    ):
        with pytest.raises(
            ValueError, match=r"^bundle: without the package pipeline ecg-survival/(risk|low|sim|flags)"
        ):
            _largest_difference(outputs(), outputs(**changed), folder)
    with pytest.raises(ValueError, match="pipeline ecg-survival"):
        _largest_difference(outputs(), {}, folder)


def test_with_the_package_a_bundle_loads_as_the_local_class(survival_bundle: Path) -> None:
    model = AutoModel.from_pretrained(survival_bundle)
    assert type(model) is EcgDanForSurvival


@pytest.mark.parametrize("trust", [None, True])
def test_with_the_package_a_bundle_s_pipelines_are_the_local_ones_trusted_or_not(
    survival_bundle: Path, trust: bool | None
) -> None:
    risk_of = pipeline("ecg-survival", model=str(survival_bundle), trust_remote_code=trust)
    assert type(risk_of) is EcgSurvivalPipeline and type(risk_of.model) is EcgDanForSurvival
    assert not hasattr(risk_of.model.config, "custom_pipelines")  # a copy saved from here has no code to refer to


STRANGER = """
import json, sys, transformers
assert "ecgdan_hf" not in sys.modules
try:
    transformers.pipeline(model=sys.argv[1], trust_remote_code=True)
except RuntimeError as error:
    print(error)
risk_of = transformers.pipeline("ecg-survival", model=sys.argv[1], trust_remote_code=True)
assert type(risk_of).__module__.startswith("transformers_modules.")
print(json.dumps(risk_of(sys.argv[2])))  # the package is there to read the file, and is imported now at the earliest
print(json.dumps(transformers.pipeline("ecg-survival", model=sys.argv[1])(sys.argv[2])))
"""


def test_where_the_package_is_there_but_not_imported_the_bundle_s_own_code_answers_the_same(
    survival_bundle: Path, tmp_path: Path
) -> None:
    given = _probe_inputs(load_checkpoint(survival_bundle)[0])
    contract = {"sampling_rate": 500, "unit": "mV", "lead_names": given["lead_names"]}
    np.savez(tmp_path / "ecg.npz", signal=given["signal"], **contract)
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", STRANGER, str(survival_bundle), str(tmp_path / "ecg.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-800:]
    choice, bundled, local = done.stdout.strip().splitlines()
    assert json.loads(bundled) == json.loads(local)
    assert "simulated" in bundled
    # transformers infers a task only where there is one to choose from, and says which there are
    assert "ecg-survival" in choice and "ecg-feature-extraction" in choice


def test_ordinary_saving_copies_no_code_after_a_bundle_was_made_and_loaded(
    survival_bundle: Path, survival_checkpoint: Path, tmp_path: Path
) -> None:
    for number, source in enumerate((survival_bundle, survival_checkpoint)):
        model, extractor = load_checkpoint(source)
        folder = tmp_path / str(number)
        model.save_pretrained(folder)
        extractor.save_pretrained(folder)
        assert not list(folder.glob("*.py"))
        assert not {"auto_map", "ecgdan_code_revision"} & set(config_of(folder))
        assert "auto_map" not in json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "result", "shape"),
    [
        ("survival_bundle", "log_hazard", (1,)),
        ("classification_bundle", "probabilities", (1, 3)),
        ("pretrained_bundle", "embedding", (1, 128)),
    ],
)
def test_every_python_block_of_a_card_runs(
    name: str, result: str, shape: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    assert "pipeline(" in blocks[0] and AutoFeatureExtractor.__name__ in blocks[1]
    names = {"signal": _probe_inputs(load_checkpoint(folder)[0])["signal"][[0, 1, 6, 7]]}
    for block in blocks:
        exec(block.replace("USER/NAME", str(folder)), names)
    assert names[result].shape == shape
    if name == "pretrained_bundle":
        assert set(names["likeliest"]) == set(names["scores"]) == {"NORM", "IMI", "AFIB"}


def test_an_older_bundle_is_replaced_as_a_whole(survival_bundle: Path) -> None:
    assert not (survival_bundle / "leftover.txt").exists()
    assert [path.name for path in survival_bundle.parent.iterdir()] == [survival_bundle.name]


def test_a_bundle_that_fails_leaves_the_older_one_and_nothing_half_written(
    survival_checkpoint: Path, tmp_path: Path
) -> None:
    out, broken = tmp_path / "out", tmp_path / "broken"
    out.mkdir()
    (out / "config.json").write_text(json.dumps({"auto_map": {}, "ecgdan_code_revision": "0"}), encoding="utf-8")
    assert is_bundle(out)
    shutil.copytree(survival_checkpoint, broken)
    (broken / "metrics.json").write_text("{not json", encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics\.json: not readable"):
        make_bundle(broken, out)
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "out"]


def test_what_is_no_checkpoint_or_no_place_for_a_bundle_is_refused(survival_checkpoint: Path, tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "thesis.tex").write_text("do not lose this", encoding="utf-8")
    for out, message in (
        (occupied, "expected an empty folder or a previous bundle"),
        (survival_checkpoint, "expected a folder outside the checkpoint"),
        (survival_checkpoint / "bundle", "expected a folder outside the checkpoint"),
        (occupied / "thesis.tex", "expected a folder, found a file"),
    ):
        with pytest.raises(ValueError, match=message):
            make_bundle(survival_checkpoint, out)
    with pytest.raises(FileNotFoundError, match="no such checkpoint folder"):
        make_bundle(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(ValueError, match=r"expected a checkpoint folder with config\.json"):
        make_bundle(occupied, tmp_path / "out")
    with pytest.raises(ValueError, match="expected a bundle, found none"):
        verify_bundle(survival_checkpoint)
    assert (occupied / "thesis.tex").read_text(encoding="utf-8") == "do not lose this"
    assert [path.name for path in tmp_path.iterdir()] == ["occupied"]
