"""Checks a bundle: a process without the package loads it and must compute the same numbers."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.covariates_ecgdan import Covariate
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel
from ecgdan_hf.model.pipeline_base_ecgdan import SURVIVAL, ZERO_SHOT, EcgPipeline
from ecgdan_hf.model.pipeline_ecgdan import PIPELINES
from ecgdan_hf.publish.hub_code import HubCode

_Arrays = dict[str, np.ndarray]

_TOLERANCE = 1e-5  # float32 sums differ with the number of threads and the processor: 1.6e-6 was seen
_TIMEOUT_SECONDS = 600
REVISION_KEY = "ecgdan_code_revision"


def is_bundle(folder: str | Path) -> bool:
    """Returns whether the folder was written by `ecgdan bundle`."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and REVISION_KEY in config and "auto_map" in config


def verify_bundle(folder: str | Path) -> float:
    """Loads a bundle in a process without the package and compares every output with the package's own.

    Args:
        folder: written by [`make_bundle`].

    Returns:
        The largest difference over all outputs, relative to the largest value of an output where that is above 1.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no bundle, code that would not survive on the Hub or was changed after bundling, a clean process
            that fails, or outputs that differ by more than 1e-5.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if not is_bundle(folder):
        raise ValueError(f"{folder}: expected a bundle, found none; make one with: ecgdan bundle CHECKPOINT {folder}")
    config, preprocessor = _read_json(folder / "config.json"), _read_json(folder / "preprocessor_config.json")
    code = HubCode(sorted(folder.glob("*.py")))
    classes = [*config["auto_map"].values(), *preprocessor.get("auto_map", {}).values()]
    classes += [pipeline["impl"] for pipeline in config.get("custom_pipelines", {}).values()]
    code.check({name.split(".")[0] for name in classes})
    if code.revision != config[REVISION_KEY]:
        raise ValueError(
            f"{folder}: the code is not the bundled one ({REVISION_KEY} {config[REVISION_KEY]}, found "
            f"{code.revision}); bundle the checkpoint again"
        )
    model, extractor = load_checkpoint(folder)
    inputs = _probe_inputs(model)
    expected = _package_outputs(model, extractor, inputs)
    found = _clean_process_outputs(str(folder.resolve()), head_of(model).auto_class, inputs)
    return _largest_difference(expected, found, folder)


def pipelines_of(model: EcgDanPreTrainedModel) -> list[type[EcgPipeline]]:
    """Returns the pipelines that the model's weights serve, and that go into its bundle.

    Zero-shot is left out for a dual encoder that stores neither prompts nor its language model: it cannot be checked.
    """
    fitting = EcgPipeline.fitting_tasks(model)
    if not (getattr(model.config, "prompt_labels", None) or getattr(model.config, "store_text_model", False)):
        fitting = [task for task in fitting if task != ZERO_SHOT]
    return [pipeline for pipeline in PIPELINES if pipeline.serves in fitting]


def _probe_inputs(model: EcgDanPreTrainedModel) -> _Arrays:
    """Returns 10 s of twelve leads at 500 Hz, millivolt, and covariates where the model takes them."""
    time = np.arange(5000) / 500
    gains = np.linspace(-0.6, 1.4, len(STANDARD_LEADS))[:, None]
    inputs = {"sampling_rate": np.array(500.0), "lead_names": np.array(STANDARD_LEADS)}
    waves = [(-0.16, 0.025, 0.12), (-0.03, 0.008, -0.15), (0.0, 0.012, 1.0), (0.03, 0.01, -0.25), (0.25, 0.05, 0.3)]
    beat = sum(
        height * np.exp(-0.5 * ((time - start - delay) / width) ** 2)
        for start in np.arange(0.5, 10, 0.85)
        for delay, width, height in waves
    )
    wander = 0.05 * np.sin(2 * np.pi * 0.3 * time + np.arange(len(STANDARD_LEADS))[:, None])
    inputs["signal"] = (gains * beat + wander).astype(np.float32)
    if Covariates.of(model.config).names:
        means, stds = np.array(model.config.covariate_means), np.array(model.config.covariate_stds)
        inputs["covariates"] = (means + 0.5 * stds)[None].astype(np.float32)
    arguments: dict[str, Any] = {}  # further arguments of some pipelines, by task
    if "covariates" in inputs:
        known = zip(model.config.covariate_names, inputs["covariates"][0].tolist(), strict=True)
        arguments[SURVIVAL] = {"covariates": {name: value for name, value in known if not Covariate(name).is_rule}}
    if not getattr(model.config, "prompt_labels", None):
        arguments[ZERO_SHOT] = {"candidate_labels": ["sinus rhythm", "atrial fibrillation"]}
    inputs["arguments"] = np.array(json.dumps(arguments))
    return inputs


def _clean_process_outputs(
    source: str,
    auto_class: str,
    inputs: _Arrays,
    environment: Mapping[str, str] | None = None,
    python: str | Path = sys.executable,
) -> _Arrays:
    """Loads a checkpoint with `trust_remote_code` where `import ecgdan_hf` fails, and returns its outputs.

    `source` is a folder, or `USER/NAME` on the Hub; a folder needs no network, so the default environment is offline.
    Returns inputs and outputs of the model by name, and the answer of each pipeline as JSON under `pipeline TASK`.
    Raises ValueError with the last line of a process that fails.
    """
    script = Path(__file__).with_name("clean_process.py")
    with tempfile.TemporaryDirectory() as work:
        given, answers = Path(work, "inputs.npz"), Path(work, "outputs.npz")
        arrays: dict[str, Any] = {**inputs}
        np.savez(given, **arrays)
        variables = {
            **os.environ,
            "HF_MODULES_CACHE": str(Path(work, "modules")),  # nothing that an earlier load left behind
            "TRANSFORMERS_VERBOSITY": "error",
            **(environment if environment is not None else {"HF_HUB_OFFLINE": "1"}),
        }
        isolated = [str(python), "-I", "-X", "utf8", str(script)]
        done = subprocess.run(
            [*isolated, source, auto_class, str(given), str(answers)],
            env=variables,
            cwd=work,
            capture_output=True,
            encoding="utf-8",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise ValueError(f"{source}: does not load without the package: {lines[-1].strip()}")
        with np.load(answers, allow_pickle=False) as outputs:
            return dict(outputs)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: the bundle lacks this file; bundle the checkpoint again") from error
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from error
    return dict(content)


@torch.inference_mode()
def _package_outputs(model: Any, extractor: Any, inputs: _Arrays) -> _Arrays:
    """Returns what `_clean_process_outputs` should be, by the package's own classes."""
    recording = {
        "sampling_rate": float(inputs["sampling_rate"]),
        "unit": "mV",
        "lead_names": inputs["lead_names"].tolist(),
    }
    features = extractor(inputs["signal"], **recording, return_tensors="pt")
    given = {name: features[name] for name in extractor.model_input_names}
    if "covariates" in inputs:
        given["covariates"] = torch.from_numpy(inputs["covariates"])
    found = {name: value for name, value in model(**given).items() if isinstance(value, torch.Tensor)}
    if getattr(model.config, "gives_risks", False):
        found["survival"] = model.predict_survival(**given)
    arrays = {name: value.numpy() for name, value in {**given, **found}.items()}
    arguments = json.loads(str(inputs["arguments"]))
    for pipeline in pipelines_of(model):
        answers = pipeline(model=model, feature_extractor=extractor, device=model.device)
        answer = answers(inputs["signal"], **recording, **arguments.get(pipeline.serves, {}))
        arrays[f"pipeline {pipeline.serves}"] = np.array(json.dumps(answer))
    return arrays


def _largest_difference(expected: _Arrays, found: _Arrays, folder: Path) -> float:
    """As `verify_bundle` returns it; raises ValueError for outputs that are missing or differ."""
    largest, found = 0.0, _unpacked(found)
    for name, value in _unpacked(expected).items():
        if name not in found or found[name].shape != value.shape:
            raise ValueError(f"{folder}: without the package {name} is missing or has another shape")
        if not np.array_equal(np.isnan(found[name]), np.isnan(value)):
            raise ValueError(f"{folder}: without the package {name} has other gaps")
        scale = max(1.0, float(np.nanmax(np.abs(value), initial=0.0)))
        difference = float(np.nanmax(np.abs(found[name].astype(np.float64) - value), initial=0.0))
        largest = max(largest, difference / scale)
        if difference > _TOLERANCE * scale:
            raise ValueError(f"{folder}: without the package {name} differs by {difference:.2g}, expected the same")
    return largest


def _unpacked(outputs: _Arrays) -> _Arrays:
    """Returns the outputs with each number of a pipeline's answer under its own name, and each word in the name."""
    plain = {name: value for name, value in outputs.items() if value.dtype.kind != "U"}
    for name in outputs.keys() - plain.keys():
        if name.startswith("pipeline "):
            plain |= dict(_leaves(name, json.loads(str(outputs[name]))))
    return plain


def _leaves(name: str, answer: Any) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(answer, dict | list):
        for key, value in answer.items() if isinstance(answer, dict) else enumerate(answer):
            yield from _leaves(f"{name}/{key}", value)
    elif isinstance(answer, int | float) and not isinstance(answer, bool):
        yield name, np.array(float(answer))
    else:
        yield f"{name}={answer!r}", np.zeros(())
