"""ECG files -> one row of predictions each, for `ecgdan predict`.

A file that cannot be read does not stop the others: its row has the error. Nothing is guessed: rate, unit and leads
that a file does not state must be given. Files are read and prepared by worker processes where there are many.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ecgdan_hf.data.flag_words import by_importance
from ecgdan_hf.data.prepared.record_file import Recording, read_recording
from ecgdan_hf.data.sources.ecg_folder import expand_files
from ecgdan_hf.inference.covariates import FileCovariates
from ecgdan_hf.inference.heads import Head, head_of
from ecgdan_hf.inference.prediction_rows import (
    NEEDS_MORE_LEADS,
    NOT_FINITE,
    Columns,
    add_predictions,
    check_batching,
    is_finite,
    made_with,
)
from ecgdan_hf.inference.prepared_files import KILLED, longer_than_input, prepared_row, row_of_error, row_of_record
from ecgdan_hf.inference.windows import WINDOW_COLUMNS, Windows
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel

_Whole = Literal["none", "longer", "all"]


def predict(
    paths: str | Path | Iterable[str | Path],
    model: EcgDanPreTrainedModel,
    feature_extractor: EcgDanFeatureExtractor,
    batch_size: int = 32,
    on_error: str = "row",
    covariates: pd.DataFrame | None = None,
    read_options: Mapping[str, Any] | None = None,
    progress: bool = False,
    missing_covariates: str = "refuse",
    num_workers: int = 0,
    windows: Windows | Literal["checkpoint"] | None = "checkpoint",
) -> pd.DataFrame:
    """Predicts for ECG files.

    Args:
        paths: files and folders; see [`expand_files`].
        model: a survival or classification model, or an encoder; see [`load_checkpoint`] and [`encoder_of`].
        feature_extractor: the model's own.
        batch_size: ECGs per forward pass.
        on_error: `"row"` puts the error of an unusable file into its row and continues; `"raise"` stops.
        covariates: for a survival model with `covariate_names`: a table with `file` or `record_id` and one column per
            name; see [`FileCovariates`]. Age and sex that it does not have come from the files.
        read_options: `sampling_rate`, `unit`, `lead_names` for files that do not state them.
        progress: show a progress bar.
        missing_covariates: what is done about a covariate that is unknown: "refuse" makes it the error of its row,
            "mean" predicts at the training mean, with a flag.
        num_workers: processes that read and prepare files; 0 does it in this one.
        windows: judge all of every recording, in windows; None judges the middle of a long one; by default those of
            the checkpoint (`config.windows`), where it has any, for recordings that are longer than its input.

    Returns:
        One row per file, in order: `file`; `log_hazard`, `risk_1y`, `risk_5y`, `risk_10y` (probability of the event;
        NaN beyond the follow-up of the training data, or where no baseline hazard was fitted) and `endpoint` (the
        event in words, "simulated" where it was), or `embedding_000`, ..., or one probability column per label and
        `positive` (labels at or above their threshold, joined by `;`; missing, and flagged, with fewer than half of
        the model's leads, for which thresholds do not hold); `num_leads` (leads that were used, derived ones
        included); `flags` (quality flags joined by `;`); `error` (empty without one).

    Raises:
        ValueError: a model without a prediction head, a wrong argument, a table of covariates without a row for any
            file, or, with `on_error="raise"`, a bad file.
        FileNotFoundError: a path that does not exist, with `on_error="raise"`; a folder without ECG files.
    """
    if on_error not in ("row", "raise"):
        raise ValueError(f"on_error: expected 'row' or 'raise', got {on_error!r}")
    predictor = Predictor(
        model, feature_extractor, covariates, read_options or {}, missing_covariates, batch_size, num_workers, windows
    )
    files = expand_files(paths)
    predictor.check(files)
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(files), desc=predictor.doing, unit="file", disable=not progress) as bar:
        for batch in predictor.batches(files, raise_errors=on_error == "raise"):
            rows += batch
            bar.update(len(batch))
    return pd.DataFrame(rows, columns=predictor.columns).astype({"num_leads": "Int64"})


def encoder_of(model: EcgDanPreTrainedModel) -> EcgDanPreTrainedModel:
    """Returns the ECG encoder of a model, which predicts embeddings.

    Raises:
        ValueError: a model without one, or a DANet, whose encoder sees what its waveform module makes of the ECG.
    """
    encoder: EcgDanPreTrainedModel = Head.encoder_of(model)
    if head_of(encoder).task != "embedding" or hasattr(model.config, "waveform_module"):
        raise ValueError(f"embeddings: expected a model with an ECG-DAN encoder, got {type(model).__name__}")
    return encoder


@dataclass(frozen=True)
class Predictor:
    """A model with all that its predictions for files depend on; arguments and errors as [`predict`]."""

    model: EcgDanPreTrainedModel
    feature_extractor: EcgDanFeatureExtractor
    covariates: pd.DataFrame | None = None
    read_options: Mapping[str, Any] = field(default_factory=dict)
    missing_covariates: str = "refuse"
    batch_size: int = 32
    num_workers: int = 0
    windows: Windows | Literal["checkpoint"] | None = "checkpoint"

    def __post_init__(self) -> None:
        if self.head.predict is None:
            raise ValueError(
                f"model: expected a survival or classification model, got {type(self.model).__name__}; of an ECG-DAN "
                "encoder, ecgdan predict --embeddings writes the embeddings"
            )
        check_batching(self.batch_size, self.num_workers)
        if self._windows is not None and self.head.task == "embedding":
            raise ValueError("window: an embedding is of one recording of the model's length; leave the window out")
        if self._windows is not None and self._windows.rule == "share" and self.head.is_survival:
            raise ValueError("rule: expected mean or max for a model of risk, got 'share'")

    @property
    def head(self) -> Head:
        """What the model predicts."""
        return head_of(self.model)

    @property
    def _windows(self) -> Windows | None:
        if self.windows == "checkpoint":
            return None if self.head.task == "embedding" else Windows.of_checkpoint(self.model.config)
        return self.windows

    @property
    def columns(self) -> list[str]:
        """Columns of a row, in order."""
        windows = () if self._windows is None else WINDOW_COLUMNS
        return ["file", *self.head.columns(self.model.config), *windows, "num_leads", "flags", "error"]

    @property
    def made_with(self) -> dict[str, Any]:
        """What the rows depend on, by name; JSON values."""
        return {
            "model": _digest_of(self.model),
            "feature extractor": self.feature_extractor.to_json_string(),
            **({} if self._windows is None else {"windows": f"{self.windows} {self._windows}"}),
            **made_with(self.read_options, self.covariates, self.missing_covariates),
        }

    @property
    def doing(self) -> str:
        """What is being done, for the progress bar."""
        return "Predicting"

    @property
    def _known(self) -> FileCovariates:
        config: Any = self.model.config if self.head.task != "embedding" else SimpleNamespace(covariate_names=[])
        return FileCovariates(config, self.covariates, self.missing_covariates)

    def check(self, files: Sequence[Recording]) -> None:
        """ValueError for covariates that are none of the model's, or of none of the files."""
        self._known.check_some_match(list(files))

    def batches(self, files: Sequence[Recording], raise_errors: bool = False) -> Iterator[list[dict[str, Any]]]:
        """Rows of predictions, a batch at a time, in the order of the files."""
        options = dict(self.read_options)
        whole: _Whole = "none" if self._windows is None else "longer" if self.windows == "checkpoint" else "all"
        prepared = _PreparedFiles(files, self.feature_extractor, self._known, options, raise_errors, whole)
        loader: DataLoader[Any] = DataLoader(
            prepared, self.batch_size, num_workers=self.num_workers, collate_fn=list, shuffle=False
        )
        try:
            for batch in loader:
                for row in batch:
                    if "exception" in row:
                        raise row["exception"]
                if self._windows is not None:
                    batch = [self._in_windows(row) for row in batch]
                yield _predict_batch(batch, self.model, self.head)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ValueError(KILLED) from error

    def _in_windows(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row whose record is judged in windows."""
        record, covariates, unknown = row.pop("record", None), row.pop("covariates", None), row.pop("unknown", ())
        if record is None or self._windows is None:
            return row
        try:
            found = self._windows.row(
                record, self.model, self.head, self.feature_extractor, covariates, self.batch_size
            )
        except ValueError as error:
            return {**row, "error": f"{row['file']}: {error}"}
        flags = [*record.flags, *found["flags"], *unknown]
        if not is_finite(found):
            return {**row, "error": f"{row['file']}: {NOT_FINITE}"}
        if "positive" in found and not self.model.config.thresholds_hold(found["num_leads"]):
            found |= dict.fromkeys(("positive", "episodes", "burden_per_hour"))
            flags.append(NEEDS_MORE_LEADS)
        return {**row, **found, "flags": ";".join(by_importance(flags))}


def _digest_of(model: EcgDanPreTrainedModel) -> str:
    """SHA-256 of configuration and weights, in hexadecimal digits."""
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _PreparedFiles(Dataset[dict[str, Any]]):
    """Rows by file, with the network's `inputs` as arrays, or with an `error`, and its `exception` where asked for."""

    files: Sequence[Recording]
    feature_extractor: EcgDanFeatureExtractor
    known: FileCovariates
    options: dict[str, Any]
    raise_errors: bool
    whole: _Whole = "none"  # of which files the record itself is returned, for windows

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self.files[index]
        row: dict[str, Any] = {"file": str(file), "flags": "", "error": ""}
        try:
            if self.whole == "none":
                return prepared_row(file, self.feature_extractor, self.known, self.options)
            record = read_recording(file, self.options)
            if self.whole == "longer" and not any(longer_than_input(record, self.feature_extractor)):
                return row_of_record(file, record, self.feature_extractor, self.known)
            covariates, unknown = self.known.of(file, record)
            return {**row, "record": record, "covariates": covariates, "unknown": unknown}
        except Exception as error:  # of any decoder: one file must not stop the others
            return row_of_error(file, error) | ({"exception": error} if self.raise_errors else {})


@torch.inference_mode()
def _predict_batch(rows: list[dict[str, Any]], model: EcgDanPreTrainedModel, head: Head) -> list[dict[str, Any]]:
    def predict(arrays: Mapping[str, Any]) -> Columns:
        inputs = {name: torch.from_numpy(values).to(model.device) for name, values in arrays.items()}
        return {} if head.predict is None else head.predict(model, inputs)

    add_predictions(rows, predict, model.config.thresholds_hold)
    return rows
