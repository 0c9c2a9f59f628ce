"""Long recordings in windows: a Holter or monitor record as one row, by a rule that the row states.

A model judges the length it was trained on; without windows, the middle of a longer record. A checkpoint may carry
windows of its own (`config.windows`), which judge only records that are longer than its input. Only a batch of windows
is prepared at a time, so memory does not grow with the number of windows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.inference.heads import Head
from ecgdan_hf.inference.prediction_rows import DEFAULT_THRESHOLD
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.contract_ecgdan import check_windows
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor

WINDOW_COLUMNS = ("windows", "episodes", "burden_per_hour")
UNUSABLE = "windows_unusable"
_USUAL = ("resampled", "padded", "cropped", "too_few_beats")


@dataclass(frozen=True)
class Windows:
    """Windows of `seconds` every `step_seconds`, and the rule that makes one number of theirs.

    Args:
        seconds: length of a window; that of the model's input is best.
        step_seconds: from one window to the next.
        rule: `"mean"`, `"max"`, or `"share"`, that of the windows at or above a label's threshold.

    Raises:
        ValueError: lengths that are not above zero, or another rule.
    """

    seconds: float
    step_seconds: float
    rule: str = "max"

    def __post_init__(self) -> None:
        check_windows(self.seconds, self.step_seconds, self.rule)

    @classmethod
    def of_checkpoint(cls, config: EcgDanConfig) -> "Windows | None":
        """Returns the windows that a checkpoint asks for, None where it has none."""
        return None if config.windows is None else cls(**config.windows)  # type: ignore[arg-type]

    def starts(self, num_samples: int, sampling_rate: float) -> list[int]:
        """First samples of the windows that lie wholly in a record; 0 alone for a shorter one.

        >>> Windows(10, 5).starts(2000, 100)
        [0, 500, 1000]
        """
        surplus = max(num_samples - round(self.seconds * sampling_rate), 0)
        steps = math.floor(surplus / (self.step_seconds * sampling_rate)) + 1
        return [round(step * self.step_seconds * sampling_rate) for step in range(steps)]

    def row(
        self,
        record: EcgRecord,
        model: Any,
        head: Head,
        feature_extractor: EcgDanFeatureExtractor,
        covariates: NDArray[np.float32] | None = None,
        batch_size: int = 32,
    ) -> dict[str, Any]:
        """One row of predictions for all windows of a record: the columns of the head, and `WINDOW_COLUMNS`.

        `windows` says how many were judged and by which rule; `episodes` and `burden_per_hour` count, for each label,
        runs of consecutive windows at or above its threshold, and such windows per hour judged.

        Raises:
            ValueError: no window can be judged; the message is that of the first.
        """
        judged, predicted, prepared = list[int](), dict[str, list[Any]](), _Prepared()
        starts = self.starts(record.signal_mv.shape[1], record.sampling_rate)
        for first in range(0, len(starts), batch_size):
            batch = prepared.batch(record, starts[first : first + batch_size], self.seconds, feature_extractor)
            if batch:
                judged += [first + place for place, _ in batch]
                for name, values in _predict([inputs for _, inputs in batch], model, head, covariates).items():
                    predicted.setdefault(name, []).extend(values)
        if not judged:
            raise ValueError(f"no window of {self.seconds:g} s can be judged: {prepared.first_error}")
        if len(judged) < len(starts):
            prepared.flags[f"{UNUSABLE}:{len(starts) - len(judged)}"] = None
        return {
            **self._together(predicted, np.array(judged), model, head),
            "windows": f"{self.rule} of {len(judged)} of {len(starts)} windows of {self.seconds:g} s",
            "num_leads": prepared.num_leads,
            "flags": list(prepared.flags),
        }

    def _together(
        self, predicted: Mapping[str, list[Any]], judged: NDArray[np.int_], model: Any, head: Head
    ) -> dict[str, Any]:
        """One value for each column of predictions."""
        row: dict[str, Any] = {}
        if head.is_survival:
            row = {name: values[0] for name, values in predicted.items() if isinstance(values[0], str)}
            combine = np.mean if self.rule == "mean" else np.max
            return row | {name: float(combine(predicted[name])) for name in predicted if name not in row}
        names, thresholds = model.config.label_names, model.config.thresholds or {}
        episodes, burden, positive = list[str](), list[str](), list[str]()
        hours = len(judged) * min(self.seconds, self.step_seconds) / 3600
        for name in names:
            scores = np.array(predicted[name])
            found = scores >= thresholds.get(name, DEFAULT_THRESHOLD)
            row[name] = float({"mean": scores.mean(), "max": scores.max(), "share": found.mean()}[self.rule])
            whole = scores.mean() if self.rule == "mean" else scores.max()
            positive += [name] if whole >= thresholds.get(name, DEFAULT_THRESHOLD) else []
            episodes.append(f"{name}={_runs(judged[found])}")
            burden.append(f"{name}={found.sum() / hours:.3g}")
        return row | {
            "positive": ";".join(positive),
            "episodes": ";".join(episodes),
            "burden_per_hour": ";".join(burden),
        }


def _runs(places: NDArray[np.int_]) -> int:
    """Number of runs of consecutive places."""
    return int((np.diff(places) > 1).sum()) + 1 if len(places) else 0


class _Prepared:
    """Prepares windows, and keeps what was flagged in any of them."""

    def __init__(self) -> None:
        self.flags: dict[str, None] = {}
        self.first_error, self.num_leads = "", 0

    def batch(
        self, record: EcgRecord, starts: Sequence[int], seconds: float, extractor: EcgDanFeatureExtractor
    ) -> list[tuple[int, dict[str, NDArray[Any]]]]:
        """Place among `starts` and inputs of the windows that can be used."""
        length, found = round(seconds * record.sampling_rate), []
        for place, start in enumerate(starts):
            given = record.as_inputs() | {"signal": record.signal_mv[:, start : start + length]}
            given.pop("median_beat", None)
            try:
                features = extractor(**given, return_tensors="np", return_flags=True)
            except ValueError as error:  # a stretch of noise must not stop the others
                self.first_error = self.first_error or str(error)
                continue
            self.flags |= dict.fromkeys(flag for flag in features["flags"][0] if not flag.startswith(_USUAL))
            inputs = {name: features[name] for name in extractor.model_input_names}
            self.num_leads = max(self.num_leads, int(inputs["lead_mask"].sum()))
            found.append((place, inputs))
        return found


@torch.inference_mode()
def _predict(
    windows: list[dict[str, NDArray[Any]]], model: Any, head: Head, covariates: NDArray[np.float32] | None
) -> dict[str, list[Any]]:
    """The head's columns for a batch of windows."""
    arrays = {name: np.concatenate([each[name] for each in windows]) for name in windows[0]}
    if covariates is not None:
        arrays["covariates"] = np.repeat(covariates[None], len(windows), axis=0)
    inputs = {name: torch.from_numpy(values).to(model.device) for name, values in arrays.items()}
    return {} if head.predict is None else head.predict(model, inputs)
