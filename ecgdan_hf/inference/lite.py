"""Predictions by an ONNX file of `ecgdan export`, with onnxruntime, numpy and scipy; without torch and transformers.

The file holds the network, the risk curve and, as metadata, all settings. Reading, checks, filters, resampling, beats
and flags are the package's own numpy code: a graph could hold the filter, but not the checks that decide which leads
reach it, and a second implementation could differ from the first.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgdan_hf.data.prepared.record_file import Recording
from ecgdan_hf.inference.covariates import FileCovariates
from ecgdan_hf.inference.prediction_rows import (
    RISK_YEARS,
    Columns,
    add_predictions,
    check_batching,
    label_columns,
    made_with,
    risk_column_names,
    risk_columns,
)
from ecgdan_hf.inference.prepared_files import prepared_rows, preparing
from ecgdan_hf.model.contract_ecgdan import endpoint_text, thresholds_hold
from ecgdan_hf.model.preparation_ecgdan import EcgPreparation
from ecgdan_hf.telemetry import import_silently

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".onnx"
_SETTINGS = frozenset(inspect.signature(EcgPreparation).parameters)


@dataclass(frozen=True)
class LitePredictor:
    """A network in an ONNX file, with all that its predictions for files depend on; for [`rows_to_file`].

    Args:
        file: of `ecgdan export`.
        covariates: table with `file` or `record_id`; see [`FileCovariates`].
        read_options: `sampling_rate`, `unit`, `lead_names` for files that do not state them.
        missing_covariates: "refuse", or "mean".
        batch_size: ECGs for the network at once.
        num_workers: processes that read and prepare files; 0 does it in this one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no onnxruntime, a file of something else, or a model that predicts nothing.
    """

    file: Path
    covariates: "pd.DataFrame | None" = None
    read_options: Mapping[str, Any] = field(default_factory=dict)
    missing_covariates: str = "refuse"
    batch_size: int = 32
    num_workers: int = 0

    def __post_init__(self) -> None:
        check_batching(self.batch_size, self.num_workers)
        if not self.labels and not self.is_survival:
            raise ValueError(f"{self.file}: expected a survival or classification model, got {self.settings['model']}")
        if self.is_survival and "incidence" not in self._outputs and "survival" not in self._outputs:
            raise ValueError(f"{self.file}: expected a model with a baseline hazard; predict with its checkpoint")
        if self.settings.get("hazard") == "discrete":  # whose risks between two cuts are not in the file
            raise ValueError(f"{self.file}: discrete hazards are predicted by the checkpoint alone")

    @cached_property
    def session(self) -> Any:
        """The network."""
        if not Path(self.file).is_file():
            raise FileNotFoundError(f"{self.file}: no such file; ecgdan export writes one")
        try:
            onnxruntime = import_silently("onnxruntime")
        except ImportError as error:
            raise ValueError(
                f"{self.file}: needs onnxruntime, which is not installed; pip install onnxruntime"
            ) from error
        try:
            return onnxruntime.InferenceSession(str(self.file), providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes have no common base
            raise ValueError(f"{self.file}: not an ONNX file: {' '.join(str(error).split())[:200]}") from error

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The metadata of the file."""
        found = self.session.get_modelmeta().custom_metadata_map
        if "preprocessor_config" not in found:
            raise ValueError(f"{self.file}: expected a file of ecgdan export, found no preprocessor_config in it")
        return {name: _parsed(value) for name, value in found.items()}

    @cached_property
    def preparation(self) -> EcgPreparation:
        """What makes the network's input."""
        config = self.settings["preprocessor_config"]
        if config.get("waveform_rule") is not None:
            raise ValueError(
                f"{self.file}: waveform rules need transformers and neurokit2; predict with the checkpoint"
            )
        return EcgPreparation(**{name: value for name, value in config.items() if name in _SETTINGS})

    @property
    def labels(self) -> list[str]:
        """Of a classifier; none of a model of risk."""
        return list(self.settings.get("labels", []))

    @property
    def is_survival(self) -> bool:
        """Predicts a log hazard."""
        return "endpoint" in self.settings

    @property
    def _outputs(self) -> list[str]:
        return [each.name for each in self.session.get_outputs()]

    @property
    def _risk_names(self) -> list[str]:
        given = self.settings.get("cause_names") or self.settings.get("endpoint_names")
        return list(given or [self.settings["endpoint"]])

    @property
    def columns(self) -> list[str]:
        """Columns of a row, in order."""
        own = risk_column_names(self._risk_names) if self.is_survival else [*self.labels, "positive"]
        return ["file", *own, "num_leads", "flags", "error"]

    @property
    def made_with(self) -> dict[str, Any]:
        """What the rows depend on, by name; JSON values."""
        return {
            "model": hashlib.sha256(Path(self.file).read_bytes()).hexdigest(),
            **made_with(self.read_options, self.covariates, self.missing_covariates),
        }

    @property
    def doing(self) -> str:
        """What is being done, for the progress bar."""
        return "Predicting"

    @property
    def _known(self) -> FileCovariates:
        config = SimpleNamespace(covariate_names=self.settings.get("covariate_names", []))
        return FileCovariates(config, self.covariates, self.missing_covariates)

    def check(self, files: Sequence[Recording]) -> None:
        """ValueError for covariates that are none of the model's, or of none of the files."""
        self._known.check_some_match(list(files))

    def batches(self, files: Sequence[Recording]) -> Iterator[list[dict[str, Any]]]:
        """Rows of predictions, a batch at a time, in the order of the files."""
        prepare = preparing(self.preparation, self._known, self.read_options)
        rows = prepared_rows(files, prepare, self.num_workers)
        while batch := list(islice(rows, self.batch_size)):
            add_predictions(batch, self._predict, self._thresholds_hold)
            yield batch

    def _predict(self, inputs: dict[str, NDArray[Any]]) -> Columns:
        output = dict(zip(self._outputs, self.session.run(self._outputs, inputs), strict=True))
        return self._risks(output) if self.is_survival else self._labels(output["logits"])

    def _thresholds_hold(self, num_leads: int) -> bool:
        return thresholds_hold(num_leads, self.preparation.used_leads or self.preparation.lead_names)

    def _labels(self, logits: NDArray[np.float32]) -> Columns:
        if self.settings["problem_type"] == "single_label_classification":
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            found = shifted / shifted.sum(axis=1, keepdims=True)
        else:
            found = 1 / (1 + np.exp(-logits.clip(-80, 80)))
        return label_columns(self.labels, found, self.settings.get("thresholds", {}))

    def _risks(self, output: Mapping[str, NDArray[np.float32]]) -> Columns:
        """Log hazards, and risks at 1, 5 and 10 years: 0 before the first event, NaN beyond the follow-up."""
        log_hazard = output["log_hazard"].astype(np.float64)
        curves = output["incidence"] if "incidence" in output else 1.0 - output["survival"][:, None].astype(np.float64)
        times, years = np.array(self.settings["survival_years"]), np.array(RISK_YEARS)
        from_start = np.concatenate([np.zeros_like(curves[..., :1]), curves], axis=2).astype(np.float64)
        risks = from_start[..., np.searchsorted(times, years, side="right")]
        risks[..., years > times[-1]] = np.nan
        columns = risk_columns(self._risk_names, log_hazard, risks)
        endpoint = endpoint_text(self.settings["endpoint"], self.settings["simulated_outcome"])
        return {name: values.tolist() for name, values in columns.items()} | {"endpoint": [endpoint] * len(log_hazard)}


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value  # a text of its own
