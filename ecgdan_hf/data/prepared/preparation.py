"""One record -> one row of a dataset, through a feature extractor or as recorded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Array2D, List, Value

from ecgdan_hf.data.prepared.record_file import RecordFile, UnreadableRecordError
from ecgdan_hf.data.record import EcgRecord

if TYPE_CHECKING:
    from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor


@dataclass(frozen=True)
class Preparation:
    """Turns records into rows, through a feature extractor or as recorded.

    Args:
        feature_extractor: prepares the signals; None keeps them as recorded.
        lead_names: the leads of every record and their order, if there is no feature extractor.
        skip_bad: an unusable record becomes an empty row whose `error` says why, instead of an exception.
    """

    feature_extractor: "EcgDanFeatureExtractor | None"
    lead_names: tuple[str, ...] = ()
    skip_bad: bool = False

    @property
    def features(self) -> dict[str, Any]:
        """Types of the columns of a row; `error` is empty for a good record."""
        shared = {"flags": List(Value("string")), "error": Value("string")}
        if self.feature_extractor is None:
            signal = Array2D((None, len(self.lead_names)), "float32")  # only the first size of an Array2D may vary
            return {"signal": signal, "sampling_rate": Value("float32"), "lead_names": List(Value("string")), **shared}
        columns = {"input_values": Array2D(self._input_shape, "float32"), "lead_mask": List(Value("bool"))}
        if self._weighs:  # delineated once and cached with the signal
            columns["waveform_weights"] = List(Value("float32"), length=self.feature_extractor.num_samples)
        return columns | shared

    def examples(self, sources: Iterable[RecordFile]) -> Iterator[dict[str, Any]]:
        """Reads and prepares records; raises UnreadableRecordError for an unusable one, unless `skip_bad`."""
        for source in sources:
            try:
                yield {**self.prepare(source.read()), "error": ""}
            except Exception as error:  # of any decoder: one file must not stop 50,000
                if not self.skip_bad:
                    raise UnreadableRecordError(source.line(error)) from error
                yield {**self._empty(), "error": source.line(error)}

    def prepare(self, record: EcgRecord) -> dict[str, Any]:
        """One row, without `error`; raises ValueError for an unusable record or leads other than `lead_names`."""
        if self.feature_extractor is None:
            return self._as_recorded(record)
        inputs = self.feature_extractor(**record.as_inputs(), return_flags=True)
        row = {
            "input_values": np.asarray(inputs["input_values"][0], dtype=np.float32),
            "lead_mask": np.asarray(inputs["lead_mask"][0], dtype=bool),
            "flags": [*record.flags, *inputs["flags"][0]],
        }
        return row | {"waveform_weights": inputs["waveform_weights"][0]} if self._weighs else row

    def _as_recorded(self, record: EcgRecord) -> dict[str, Any]:
        if set(record.lead_names) != set(self.lead_names):
            raise ValueError(
                f"expected the leads of the first record, {', '.join(self.lead_names)}, got "
                f"{', '.join(record.lead_names)}; give a feature extractor to load different leads together"
            )
        order = [record.lead_names.index(lead) for lead in self.lead_names]
        return {
            "signal": record.signal_mv[order].T,
            "sampling_rate": record.sampling_rate,
            "lead_names": list(self.lead_names),
            "flags": [*record.flags, *record.quality_flags()],
        }

    def _empty(self) -> dict[str, Any]:
        if self.feature_extractor is None:
            signal = np.zeros((1, len(self.lead_names)), np.float32)
            return {"signal": signal, "sampling_rate": 0.0, "lead_names": list(self.lead_names), "flags": []}
        shape = self._input_shape
        row = {"input_values": np.zeros(shape, np.float32), "lead_mask": np.zeros(shape[0], bool), "flags": []}
        return row | {"waveform_weights": np.zeros(shape[1], np.float32)} if self._weighs else row

    @property
    def _weighs(self) -> bool:
        return getattr(self.feature_extractor, "waveform_rule", None) is not None

    @property
    def _input_shape(self) -> tuple[int, int]:
        extractor = self.feature_extractor
        if extractor is None:
            raise ValueError("feature_extractor: expected one, as recordings as such have no common shape, got None")
        return len(extractor.lead_names), extractor.num_samples
