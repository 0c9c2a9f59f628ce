"""Rows of simulated recordings, on which DANet is trained without labels before it sees diseased hearts.

Regular recordings are the sources; `data.simulate.premature_beats` moves their beats. Rows are cached in Arrow, and
row i depends only on the seed and i, so that any number of processes makes the same rows.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value

from ecgdan_hf.data.prepared.cache import code_digest, made_once
from ecgdan_hf.data.simulate.premature_beats import SimulatedEcg
from ecgdan_hf.data.simulate.rhythms import VENTRICULAR_SHARE
from ecgdan_hf.model.configuration_danet import resolve_waveform_rule
from ecgdan_hf.model.configuration_ecgdan import ECGDAN_VERSION
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks

_MIN_SOURCES = 10
_NOISY_SHARE = 0.5  # sources are cleaner than Holter recordings
_VENTRICULAR_SHARE_OF_THEIR_RULE = 0.85  # makes half of the rows positive, as few beats are chosen


def in_millivolt(feature_extractor: EcgDanFeatureExtractor) -> EcgDanFeatureExtractor:
    """A copy without scaling and rule, whose `input_values` are mV; raises ValueError for input other than rhythms."""
    if feature_extractor.input_kind != "rhythm":
        raise ValueError(f"input_kind: expected 'rhythm' to move beats in, got {feature_extractor.input_kind!r}")
    plain = {"normalization": "global", "global_mean_mv": 0.0, "global_std_mv": 1.0, "waveform_rule": None}
    extractor = EcgDanFeatureExtractor.from_dict(feature_extractor.to_dict() | plain)
    assert isinstance(extractor, EcgDanFeatureExtractor)  # `from_dict` returns more only on request
    return extractor


def simulated_rows(
    dataset_mv: Dataset,
    feature_extractor: EcgDanFeatureExtractor,
    rule: str | Path | Mapping[str, Any],
    number: int,
    seed: int,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Returns rows of simulated recordings to train on, half of them with beats that meet the rule.

    Columns: `record_id` ("simulated-000012"), `patient_id` of the source, `input_values` and `lead_mask`, `labels`
    (the rule's name in capitals, or none), `waveform_targets` (samples,), the weights known by construction, 0 in the
    padding; and, if the feature extractor has a rule, `waveform_weights` (samples,), which it finds from the R peaks.

    Args:
        dataset_mv: rows prepared by `in_millivolt(feature_extractor)`, with `patient_id`; no label is read.
        feature_extractor: scales the simulated recordings, and weights them if it has a rule.
        rule: as for `resolve_waveform_rule`, with a condition on beats.
        number: of rows.
        seed: of all draws.
        num_proc: processes; default one for each core.
        cache_dir: folder of the Arrow files; default that of `datasets`.
    """
    if number < 1:
        raise ValueError(f"number: expected at least one simulated row, got {number}")
    complete = resolve_waveform_rule(rule) or {}
    SimulatedEcg.target_kinds(complete)
    shape = (len(feature_extractor.lead_names), feature_extractor.num_samples)
    if dataset_mv.features["input_values"].shape != shape:
        found = dataset_mv.features["input_values"].shape
        raise ValueError(f"dataset_mv: expected input_values of shape {shape}, found {found}; prepare them again")
    recordings = _Recordings.of(dataset_mv, feature_extractor)
    sources = _sources(recordings, dataset_mv, num_proc, cache_dir)
    simulation = _Simulation(recordings, sources, feature_extractor, complete, seed)
    name = f"simulated-{_digest(dataset_mv, feature_extractor.to_dict(), complete, number, seed)}"
    features = _features(dataset_mv, feature_extractor, complete)
    return made_once(name, range(number), simulation.rows, features, num_proc, cache_dir, "Simulating ECGs")


@dataclass(frozen=True)
class _Recordings:
    """Rows as recordings, without padding and unusable leads."""

    dataset: Dataset
    sampling_rate: float
    pad_samples: int

    @classmethod
    def of(cls, dataset_mv: Dataset, feature_extractor: EcgDanFeatureExtractor) -> "_Recordings":
        """Only the needed columns, as arrays."""
        columns = dataset_mv.select_columns(["patient_id", "input_values", "lead_mask"]).with_format("numpy")
        return cls(columns, feature_extractor.sampling_rate, feature_extractor.pad_samples)

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Signal (usable leads, samples) in mV, lead mask (leads,), and patient."""
        values = self.dataset[row]
        signal_mv = np.asarray(values["input_values"], dtype=float)
        mask = np.asarray(values["lead_mask"], dtype=bool)
        return signal_mv[mask, self.pad_samples : signal_mv.shape[1] - self.pad_samples], mask, values["patient_id"]

    def r_peaks(self, rows: Sequence[int]) -> Iterator[dict[str, list[int]]]:
        """The R peaks of each row, empty if it is not regular."""
        for row in rows:
            signal_mv, _, _ = self.read(row)
            peaks = find_r_peaks(signal_mv, self.sampling_rate)
            yield {
                "r_peaks": peaks.tolist() if SimulatedEcg.can_start_from(signal_mv, self.sampling_rate, peaks) else []
            }


def _sources(
    recordings: _Recordings, dataset_mv: Dataset, num_proc: int | None, cache_dir: str | Path | None
) -> dict[int, list[int]]:
    """R peaks of the regular recordings by row number."""
    name = f"regular-{_digest(dataset_mv, recordings.sampling_rate, recordings.pad_samples)}"
    types, rows = Features({"r_peaks": List(Value("int64"))}), range(len(dataset_mv))
    sources = {}
    if rows:
        found = made_once(name, rows, recordings.r_peaks, types, num_proc, cache_dir, "Finding regular ECGs")
        sources = {row: peaks for row, peaks in enumerate(found["r_peaks"]) if len(peaks)}
    if len(sources) < _MIN_SOURCES:
        raise ValueError(
            f"dataset_mv: expected regular recordings to simulate from, at least {_MIN_SOURCES}, found {len(sources)} "
            f"of {len(dataset_mv)}"
        )
    return sources


@dataclass(frozen=True)
class _Simulation:
    """Everything a simulated row depends on except its number."""

    recordings: _Recordings
    sources: dict[int, list[int]]
    feature_extractor: EcgDanFeatureExtractor
    rule: dict[str, Any]
    seed: int

    def rows(self, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The rows of these numbers."""
        regular = list(self.sources)
        for number in numbers:
            rng = np.random.default_rng([self.seed, number])
            source = regular[rng.integers(len(regular))]
            signal_mv, mask, patient = self.recordings.read(source)
            rate = self.recordings.sampling_rate
            simulated = SimulatedEcg.simulate(
                signal_mv, rate, np.array(self.sources[source]), rng, ventricular_share=self._ventricular_share
            )
            noisy = rng.random() < _NOISY_SHARE
            heard = simulated.noisy(rate, rng) if noisy else simulated.signal_mv
            yield {"record_id": f"simulated-{number:06d}", "patient_id": patient, **self._row(simulated, heard, mask)}

    @property
    def _ventricular_share(self) -> float:
        return (
            _VENTRICULAR_SHARE_OF_THEIR_RULE
            if SimulatedEcg.target_kinds(self.rule) == ("ventricular",)
            else VENTRICULAR_SHARE
        )

    def _row(self, simulated: SimulatedEcg, signal_mv: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
        """Inputs and targets of one recording."""
        every_lead = np.zeros((len(mask), signal_mv.shape[1]))
        every_lead[mask] = signal_mv
        weights = simulated.known_weights(self.recordings.sampling_rate, self.rule)
        return {
            **self.feature_extractor.inputs_of(every_lead, mask, simulated.r_peaks),
            "labels": [0] if simulated.targets(self.rule).any() else [],
            "waveform_targets": np.pad(weights, self.recordings.pad_samples),
        }


def _features(dataset_mv: Dataset, feature_extractor: EcgDanFeatureExtractor, rule: Mapping[str, Any]) -> Features:
    kept = {name: dataset_mv.features[name] for name in ("patient_id", "input_values", "lead_mask")}
    weights = List(Value("float32"), length=feature_extractor.num_samples)
    answers = {"labels": List(ClassLabel(names=[str(rule["name"]).upper()])), "waveform_targets": weights}
    found = {"waveform_weights": weights} if feature_extractor.waveform_rule is not None else {}
    return Features({"record_id": Value("string"), **kept, **answers, **found})


def _digest(dataset_mv: Dataset, *settings: Any) -> str:
    """Key that changes with the rows, the settings and the code."""
    digest = hashlib.sha256(f"{ECGDAN_VERSION} {dataset_mv._fingerprint} {code_digest(__name__)}".encode())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]
