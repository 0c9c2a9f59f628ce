"""Loads a published checkpoint as a new user would, in a process that cannot import the package.

Run by path in isolated mode, never imported by the package:

    python -I clean_process.py FOLDER_OR_REPO AUTO_CLASS INPUTS.npz OUTPUTS.npz

Prepares the recording in INPUTS.npz with `AutoFeatureExtractor`, feeds it to `AUTO_CLASS`, writes every tensor of the
output and the answer of every pipeline that comes with the checkpoint, as JSON, and loads every other class that the
configuration's `auto_map` names.
"""

import importlib.abc
import json
import sys
from typing import Any


class _PackageIsAbsent(importlib.abc.MetaPathFinder):
    """Makes `import ecgdan_hf` fail as if it were not installed."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raises for the package; leaves everything else to the other finders."""
        if fullname.split(".")[0] == "ecgdan_hf":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def _is_absent() -> bool:
    try:
        import ecgdan_hf  # noqa: F401
    except ModuleNotFoundError:
        return True
    return False


def _main(source: str, auto_class: str, inputs_path: str, outputs_path: str) -> int:
    """Writes the outputs; prints one line and returns 1 for weights that do not fit."""
    sys.meta_path.insert(0, _PackageIsAbsent())
    assert _is_absent(), "the package can be imported: this process proves nothing"
    import numpy as np
    import torch
    import transformers

    given = np.load(inputs_path, allow_pickle=False)
    auto_extractor: Any = transformers.AutoFeatureExtractor
    extractor = auto_extractor.from_pretrained(source, trust_remote_code=True)
    recording = {
        "sampling_rate": float(given["sampling_rate"]),
        "unit": "mV",
        "lead_names": given["lead_names"].tolist(),
    }
    features = extractor(given["signal"], **recording, return_tensors="pt")
    model, info = getattr(transformers, auto_class).from_pretrained(
        source, trust_remote_code=True, output_loading_info=True
    )
    if info["missing_keys"] or info["unexpected_keys"]:
        print(f"weights missing or left over: {sorted(info['missing_keys']) + sorted(info['unexpected_keys'])}")
        return 1
    inputs = {name: features[name] for name in extractor.model_input_names}
    if "covariates" in given:
        inputs["covariates"] = torch.from_numpy(given["covariates"])
    with torch.inference_mode():
        output = model.eval()(**inputs)
        found = {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}
        if getattr(model.config, "gives_risks", False):
            found["survival"] = model.predict_survival(**inputs)
    for name in model.config.auto_map:
        if name not in ("AutoConfig", auto_class):
            getattr(transformers, name).from_pretrained(source, trust_remote_code=True)
    arrays = {name: value.numpy() for name, value in {**inputs, **found}.items()}
    arguments = json.loads(str(given["arguments"]))
    for task in getattr(model.config, "custom_pipelines", ()):
        answers = transformers.pipeline(task, model=source, trust_remote_code=True)
        arrays[f"pipeline {task}"] = json.dumps(answers(given["signal"], **recording, **arguments.get(task, {})))
    np.savez(outputs_path, model_module=type(model).__module__, model_class=type(model).__name__, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
