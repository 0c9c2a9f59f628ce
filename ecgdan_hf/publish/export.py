"""Writes a checkpoint as one ONNX file, for programs that have no torch.

The file holds the network alone: the feature extractor stays in Python, and its settings are in the metadata. A file
gets its name only after onnxruntime has given the same answers as the network. torch's own exporter is used: that of
transformers writes two files and every output.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ecgdan_hf.files import whole_file
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.model.configuration_ecgdan import ECGDAN_VERSION
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel
from ecgdan_hf.telemetry import import_silently

_TOLERANCE = 1e-4
_OUTPUTS = (
    *("logits", "log_hazard", "survival", "incidence", "prompt_logits", "ecg_embeds", "waveform_attention"),
    "pooler_output",
)
"""Outputs that are exported, where the network has them."""
_RESEARCH_USE = "research use only; not a medical device"
_TRACED, _PROVED = 2, (1, 3)
"""Records the network is traced with, and those of the batches it is then compared on."""


@dataclass(frozen=True)
class _Exported:
    """The written file: name -> shape of each output, whose first dimension is `batch`, and what `_prove` found."""

    path: Path
    num_bytes: int
    outputs: dict[str, list[int | str]]
    largest_difference: float


class _ExportedNetwork(nn.Module):
    """Returns `_OUTPUTS` as a tuple; `survival` and `incidence` at the times of `_risk_years`."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Maps tensors of (N, ...) by name to those of `_OUTPUTS` that the model has.

        One mapping, as older versions of torch do not export keyword arguments without a name. Copies, as they also
        rename an input that is an output, such as the weights of a hard-coded waveform module.
        """
        return tuple(value.clone() for value in self.named_outputs(**inputs).values())

    def named_outputs(self, **inputs: Tensor) -> dict[str, Tensor]:
        """As `forward`, by name."""
        output = dict(self.model(**inputs, return_loss=False))
        config = self.model.config
        if getattr(config, "gives_risks", False):
            output |= _incidence_curves(self.model, output)
        return {name: output[name] for name in _OUTPUTS if output.get(name) is not None}


def _risk_years(model: Any) -> list[float]:
    """Times of the curves in the file: those of the baseline, or the cuts of a discrete hazard but the first."""
    if model.config.hazard == "discrete":
        return [float(cut) for cut in model.config.hazard_cuts[1:]]
    years: list[float] = model.baseline.times.tolist()
    return years


def _incidence_curves(model: Any, output: dict[str, Any]) -> dict[str, Tensor]:
    """`survival` (N, times), free of every event; and `incidence` (N, risks, times) of competing causes or endpoints.

    In plain operations that ONNX has. The baseline's own times need no look-up.
    """
    if model.config.hazard == "discrete":
        hazards = nn.functional.softplus(output["hazard_logits"])
    elif model.config.endpoint_names:  # each by itself
        log_cumulative = output["log_hazard"][:, :, None] + model.baseline.knots[1:]
        return {"incidence": -torch.expm1(-torch.exp(log_cumulative))}
    elif not model.config.cause_names:  # S = exp(-H0 exp(log hazard))
        log_cumulative = output["log_hazard"][:, None] + model.baseline.log_cumulative_hazard
        return {"survival": torch.exp(-torch.exp(log_cumulative))}
    else:
        steps = torch.diff(model.baseline.knots[1:].exp(), prepend=torch.zeros(model.config.num_risks, 1))
        hazards = output["log_hazard"].exp()[:, :, None] * steps
    total = hazards.sum(dim=1, keepdim=True)
    before = torch.exp(total - torch.cumsum(total, dim=2))
    share = hazards / total.clamp(min=torch.finfo(total.dtype).tiny)
    incidence = torch.cumsum(before * -torch.expm1(-total) * share, dim=2)
    survival = torch.exp(-torch.cumsum(total, dim=2))[:, 0]
    return {"survival": survival} | ({"incidence": incidence} if model.config.cause_names else {})


def export_onnx(checkpoint: str | Path, out: str | Path, int8: bool = False) -> _Exported:
    """Writes a checkpoint as ONNX.

    Inputs of the file: `input_values` (batch, leads, samples), float32, as the feature extractor scales them;
    `lead_mask` (batch, leads), boolean; `covariates` (batch, covariates), float32, NaN where unknown, and
    `waveform_weights` (batch, samples), float32, where the network takes them. Of the dual encoder of ECG and text
    the ECG's side is exported, with the prompts it carries.

    Args:
        checkpoint: folder, or `USER/NAME` on the Hub.
        out: file to write, replaced if it is there.
        int8: keep the weights as 8-bit integers and compute with them; the difference is then reported, not judged.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: not a checkpoint, libraries that are missing, or a file that does not answer as the network does.
            Nothing is left behind.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise ValueError(f"export: needs {name}, which is not installed; pip install ecgdan-hf[onnx]")
    model, extractor = load_checkpoint(checkpoint)
    network, out = _ExportedNetwork(model).float().eval(), Path(out)
    with whole_file(out) as part, _quietly():
        if int8:
            import_silently("onnxruntime")
            from onnxruntime.quantization import QuantType, quantize_dynamic

            with TemporaryDirectory() as work:
                _write_onnx(network, extractor, Path(work) / "network.onnx")
                # weights are stored as integers; activations are rounded to integers at run time
                quantize_dynamic(Path(work) / "network.onnx", part, weight_type=QuantType.QUInt8)
        else:
            _write_onnx(network, extractor, part)
        shapes, difference = _prove(network, part, tolerance=np.inf if int8 else _TOLERANCE)
        return _Exported(out, part.stat().st_size, shapes, difference)


def _example_inputs(model: EcgDanPreTrainedModel, records: int) -> dict[str, Tensor]:
    """Returns the same noise at every call, in the shapes the network takes; some leads and covariates are missing."""
    contract, generator = model.config.signal_contract, torch.Generator().manual_seed(records)
    leads, samples = len(contract["lead_names"]), contract["num_samples"]
    inputs = {
        "input_values": torch.randn(records, leads, samples, generator=generator),
        "lead_mask": torch.rand(records, leads, generator=generator) < 0.8,
    }
    inputs["lead_mask"][:, 0] = True
    if names := Covariates.of(model.config).names:
        spread = torch.randn(records, len(names), generator=generator) * torch.tensor(model.config.covariate_stds)
        inputs["covariates"] = spread + torch.tensor(model.config.covariate_means)
        inputs["covariates"][0, 0] = torch.nan
    if model.config.weight_columns:
        inputs["waveform_weights"] = torch.rand(records, samples, generator=generator)
    return inputs


def _prove(network: _ExportedNetwork, file: Path, tolerance: float) -> tuple[dict[str, list[int | str]], float]:
    """Compares onnxruntime's answers with the network's, on batches it was not traced with.

    Returns the shapes of the outputs, and the largest difference, relative to an output's largest value where that is
    above 1. Raises ValueError above `tolerance` and for an answer that is not finite.
    """
    onnxruntime = import_silently("onnxruntime")
    session, largest = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]), 0.0
    for records in _PROVED:
        inputs = _example_inputs(network.model, records)
        with torch.no_grad():
            expected = network.named_outputs(**inputs)
        found = session.run(list(expected), {name: value.numpy() for name, value in inputs.items()})
        for (name, value), other in zip(expected.items(), found, strict=True):
            difference = np.abs(other - value.numpy()).max() / max(1.0, float(value.abs().max()))
            if not difference <= tolerance:  # NaN is no answer either
                raise ValueError(
                    f"{name}: expected onnxruntime to differ from the network by less than {tolerance:g}, found "
                    f"{difference:.2g} for {records} records; nothing is written"
                )
            largest = max(largest, float(difference))
    return {output.name: list(output.shape) for output in session.get_outputs()}, largest


def _describe(model: Any, extractor: EcgDanFeatureExtractor) -> dict[str, str]:
    """Returns the ONNX metadata for programs that read the file; lists and mappings are JSON.

    `labels` name the columns of `logits`, `prompt_labels` those of `prompt_logits`, `survival_years` the times of
    `survival` and `incidence`, and `cause_names` or `endpoint_names` the columns of `incidence` and `log_hazard`.
    """
    config, contract = model.config, model.config.signal_contract
    told: dict[str, Any] = {
        "use": _RESEARCH_USE,
        "model": type(model).__name__,
        "ecgdan_version": ECGDAN_VERSION,
        "preprocessing": "input_values are made by EcgDanFeatureExtractor with preprocessor_config, not in this file",
        "preprocessor_config": extractor.to_dict(),
        "sampling_rate_hz": contract["sampling_rate"],
        "unit": contract["unit"],
        "lead_names": contract["lead_names"],
    }
    if head_of(model).is_classifier:
        told["labels"] = [config.id2label[label] for label in range(config.num_labels)]
        told["problem_type"] = config.problem_type or "multi_label_classification"
        told["thresholds"] = config.thresholds or {}
    if prompts := getattr(config, "ecg_config", config).prompt_labels:
        told["prompt_labels"] = prompts
    if hasattr(config, "endpoint"):
        told |= {"endpoint": config.endpoint, "simulated_outcome": config.simulated_outcome}
        told |= {"covariate_names": config.covariate_names, "survival_years": _risk_years(model)}
        told["hazard"] = config.hazard
        told |= {name: getattr(config, name) for name in ("cause_names", "endpoint_names") if getattr(config, name)}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}


def _write_onnx(network: _ExportedNetwork, extractor: EcgDanFeatureExtractor, file: Path) -> None:
    import onnx
    import onnx_ir
    from onnxscript import optimizer

    inputs = _example_inputs(network.model, _TRACED)
    with torch.no_grad():
        names = list(network.named_outputs(**inputs))
    program: Any = torch.onnx.export(
        network,
        (inputs, {}),  # a mapping at the end would be taken for keyword arguments
        dynamic_shapes={"inputs": {name: {0: "batch"} for name in inputs}},
        input_names=list(inputs),
        output_names=names,
        dynamo=True,
        verbose=False,
    )
    unlimited = 2**31  # norms end up in the kernels, which int8 needs
    optimizer.optimize(program.model, input_size_limit=unlimited, output_size_limit=unlimited)
    proto = onnx_ir.to_proto(program.model)
    del proto.graph.value_info[:]  # shapes of before, some of which no longer hold
    _forget_origins(proto)
    onnx.helper.set_model_props(proto, _describe(network.model, extractor))
    onnx.checker.check_model(proto, full_check=True)
    file.write_bytes(proto.SerializeToString())


def _forget_origins(proto: Any) -> None:
    """Removes stack traces, which hold the paths of this machine, from every part of a graph."""
    graphs = [proto.graph, *proto.functions]
    parts = [*graphs, *(node for graph in graphs for node in graph.node)]
    parts += [*proto.graph.input, *proto.graph.output, *proto.graph.initializer]
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences the exporters' warnings about their own code."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
