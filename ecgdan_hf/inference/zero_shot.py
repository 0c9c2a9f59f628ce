r"""ECG files -> answers to prompts by measurement and network, for `ecgdan zero-shot`.

Each prompt has a score \(s\) of the network and, if it is about something measured, a probability \(p_m\) by
measurement (`data.text.prompts`). The network's own probability is \(p_n = \sigma(s)\) if it was pretrained by the
objective `statements`; the scores of other objectives are no probabilities. Without calibration,

* a prompt that is wholly about something measured is answered by \(p_m\), and by \(p_n\) where that is not known;
* one that is partly so by \(p_m p_n\), as both have to hold; by \(p_m\), which it cannot exceed, where that is below
  one half and \(p_n\) is not known;
* any other by \(p_n\).

Training gives rare statements more weight, so \(p_n\) reads high for them. With labelled records, or with a known
prevalence for what is not wholly measured, [`FusedZeroShot`] combines and calibrates the two. There is no answer where
the odds are within a factor of `MIN_ODDS_RATIO` of those of the prevalence, or of even odds without calibration.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.special import expit, logit
from tqdm.auto import tqdm

from ecgdan_hf.data.formats import read
from ecgdan_hf.data.measure.measurements import MEASUREMENTS
from ecgdan_hf.data.measure.rhythm import RHYTHM, measure_ecg
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.sources.ecg_folder import expand_files
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.inference.asked_prompts import AskedPrompt, asked_prompts
from ecgdan_hf.inference.fused_zero_shot import MAX_LOG_ODDS, FusedZeroShot
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor

FloatArray = npt.NDArray[np.float64]

MIN_ODDS_RATIO = 2.0
MIN_RECORDS = 20  # whose scores have a distribution that a prevalence can divide
MIN_LABELLED = 5  # with the label, and without
COLUMNS = (
    *("file", "prompt", "probability", "no_answer", "rests_on"),
    *("network_score", "network_probability", "measured_probability", "num_leads", "flags", "error"),
)

NO_PROBABILITY = "the network's score is no probability without calibration"
NOT_KNOWN = "neither measured nor recognised"
TOO_CLOSE = "too close to call"
_FEW_LEADS, _NOT_MEASURED = "network_needs_more_leads", "not_measured"


def zero_shot(
    paths: str | Path | Iterable[str | Path],
    prompts: Sequence[str],
    model: Any,
    feature_extractor: EcgDanFeatureExtractor,
    text_model: str | None = None,
    calibrate_on: pd.DataFrame | None = None,
    prevalence: float | Sequence[float] | None = None,
    min_odds_ratio: float = MIN_ODDS_RATIO,
    batch_size: int = 32,
    read_options: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Answers prompts about ECG files.

    Args:
        paths: files and folders; see [`expand_files`].
        prompts: labels, their names, or free text.
        model: a network pretrained with texts; see [`load_checkpoint`].
        feature_extractor: the model's own.
        text_model: language model for texts that the checkpoint does not carry; see [`asked_prompts`].
        calibrate_on: labelled records; see [`labelled_records`]. Prompts that are wholly measured need no label.
        prevalence: share of records of which a prompt is true: one for all, or one for each. Without `calibrate_on` it
            calibrates on the files themselves, of which it needs `MIN_RECORDS`.
        min_odds_ratio: there is no answer with less evidence; 1 answers always.
        batch_size: ECGs per forward pass.
        read_options: `sampling_rate`, `unit`, `lead_names` for files that do not state them.
        progress: show a progress bar.

    Returns:
        One row per file and prompt, with `COLUMNS`: `probability`, NaN without an answer, and `no_answer`, why not;
        `rests_on`, the measured values and "network"; the network's logit and probability and the probability by
        measurement, each NaN where there is none; `num_leads` and `flags` as in [`predict`]; `error`, why the file
        cannot be used.

    Raises:
        ValueError: a wrong argument, a prompt without the labels it needs, or too few records for a prevalence.
        FileNotFoundError: a folder without ECG files.
        OSError: the language model cannot be loaded.
    """
    if not min_odds_ratio >= 1:
        raise ValueError(f"min_odds_ratio: expected at least 1, got {min_odds_ratio}")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    asked = asked_prompts(prompts, model, text_model)
    shares = _shares(prevalence, len(asked))
    files = [(str(file), _reader(file, read_options or {})) for file in expand_files(paths)]
    scorer = _Scorer(asked, model, feature_extractor, batch_size, progress)
    labelled = None if calibrate_on is None else (scorer.score(_labelled_files(calibrate_on)), calibrate_on)
    scored = scorer.score(files)
    answers = []
    for column, prompt in enumerate(asked):
        values = scored.of(prompt, column)
        if labelled is not None:
            fused = _from_labels(prompt, labelled[0].of(prompt, column), labelled[1], shares[column])
        else:
            fused = _from_prevalence(prompt, values, shares[column])
        answers.append(_answers(prompt, values, fused, math.log(min_odds_ratio)))
    table = pd.concat(answers).sort_index(kind="stable").reset_index(drop=True)
    return table[list(COLUMNS)].astype({"num_leads": "Int64"})


def labelled_records(source: str | Path, folds: Sequence[int] | None = None) -> pd.DataFrame:
    """Reads records with labels to calibrate on.

    Args:
        source: a CSV with `file`, `patient_id` and `labels` (prompts or labels, separated by `;`), or the folder of a
            source that has labels, such as PTB-XL, whose labels are then its SCP statements.
        folds: only these of the source.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no labels, or no record in these folds.
    """
    table = read_source(None, source, label_level="statement")
    if "labels" not in table:
        raise ValueError(f"{source}: expected records with labels, found none; add a column labels")
    if folds is None:
        return table
    kept = table[table["fold"].isin(list(folds))] if "fold" in table else table.iloc[:0]
    if not len(kept):
        raise ValueError(f"{source}: expected records in folds {list(folds)}, found none")
    return kept.reset_index(drop=True)


@dataclass(frozen=True)
class _Values:
    """What is known of one prompt, (records,) each; `table` has the columns of the records."""

    table: pd.DataFrame
    score: FloatArray
    network: FloatArray
    measured: FloatArray
    rests_on: list[str]


@dataclass(frozen=True)
class _Scored:
    """Records: `table` (file, num_leads, flags, error), logits (records, prompts), NaN if unusable; measurements."""

    table: pd.DataFrame
    logits: FloatArray
    measurements: pd.DataFrame
    are_probabilities: bool

    def of(self, prompt: AskedPrompt, column: int) -> _Values:
        """What is known of the prompt in this column."""
        score, measured = self.logits[:, column], prompt.measured
        network = expit(score) if self.are_probabilities else np.full(len(score), np.nan)
        probability = measured.probability(self.measurements)
        return _Values(self.table, score, network, probability, measured.rests_on(self.measurements))


@dataclass(frozen=True)
class _Scorer:
    """Reads, measures and scores records."""

    prompts: Sequence[AskedPrompt]
    model: Any
    extractor: EcgDanFeatureExtractor
    batch_size: int
    progress: bool

    def score(self, files: Sequence[tuple[str, Callable[[], EcgRecord]]]) -> _Scored:
        rows: list[dict[str, Any]] = []
        with tqdm(total=len(files), desc="Reading ECGs", unit="file", disable=not self.progress) as bar:
            for start in range(0, len(files), self.batch_size):
                batch = [self._row(*file) for file in files[start : start + self.batch_size]]
                self._add_logits(batch)
                rows += batch
                bar.update(len(batch))
        table = pd.DataFrame(rows, columns=["file", "num_leads", "flags", "error"])
        nothing = np.full(len(self.prompts), np.nan)
        logits = np.stack([row.get("logits", nothing) for row in rows])
        measurements = pd.DataFrame([row["measured"] for row in rows], columns=[*MEASUREMENTS, *RHYTHM], dtype=float)
        return _Scored(table, logits, measurements, self.model.alignment_head.objective == "statements")

    def _row(self, name: str, read_record: Callable[[], EcgRecord]) -> dict[str, Any]:
        row: dict[str, Any] = {"file": name, "flags": "", "error": "", "measured": {}}
        try:
            record = read_record()
            features = self.extractor(**record.as_inputs(), return_tensors="pt", return_flags=True)
        except (ValueError, OSError) as error:
            return {**row, "error": " ".join(str(error).split())}
        row["inputs"] = {key: features[key] for key in ("input_values", "lead_mask")}
        row["num_leads"] = int(features["lead_mask"].sum())
        flags = [*record.flags, *features["flags"][0]]
        if not self.model.config.thresholds_hold(row["num_leads"]):
            flags.append(_FEW_LEADS)
        if any(prompt.measured.claims for prompt in self.prompts):
            try:
                row["measured"] = measure_ecg(record)
            except ValueError:
                flags.append(_NOT_MEASURED)
        return {**row, "flags": ";".join(dict.fromkeys(flags))}

    @torch.inference_mode()
    def _add_logits(self, rows: list[dict[str, Any]]) -> None:
        """Adds `logits`, (prompts,), to rows whose leads the network knows how to weigh."""
        inputs = [(row, row.pop("inputs")) for row in rows if "inputs" in row]
        usable = [(row, given) for row, given in inputs if _FEW_LEADS not in row["flags"].split(";")]
        if not usable:
            return
        values, mask = (
            torch.cat([given[key] for _, given in usable]).to(self.model.device)
            for key in ("input_values", "lead_mask")
        )
        head = self.model.alignment_head
        ecg = head.project_ecg(self.model.ecgdan(values, mask).pooler_output).float()
        logits = head.logits(ecg, torch.stack([prompt.embedding for prompt in self.prompts])).double().cpu().numpy()
        for (row, _), each in zip(usable, logits, strict=True):
            row["logits"] = each


def _reader(file: Path, options: Mapping[str, Any]) -> Callable[[], EcgRecord]:
    return lambda: read(file, **options)


def _labelled_files(table: pd.DataFrame) -> list[tuple[str, Callable[[], EcgRecord]]]:
    absent = [name for name in ("file", "labels") if name not in table]
    if absent:
        raise ValueError(f"calibrate_on: expected columns file and labels, missing {', '.join(absent)}")
    return [(file.name, file.read) for file in RecordFile.of_table(table)]


def _shares(prevalence: float | Sequence[float] | None, num_prompts: int) -> list[float | None]:
    if prevalence is None or isinstance(prevalence, float | int):
        return [prevalence] * num_prompts
    if len(prevalence) not in (1, num_prompts):
        raise ValueError(f"prevalence: expected one, or one for each of {num_prompts} prompts, got {len(prevalence)}")
    return [*prevalence] * (num_prompts // len(prevalence))


def _from_labels(
    prompt: AskedPrompt, values: _Values, table: pd.DataFrame, prevalence: float | None
) -> FusedZeroShot | None:
    """Calibrates on labelled records; None for a measured prompt without labels."""
    usable = (values.table["error"] == "").to_numpy()
    truth = np.array([any(label.casefold() in prompt.names for label in labels) for labels in table["labels"]])[usable]
    kinds = int(truth.sum()), int((~truth).sum())
    if not kinds[0] and prompt.is_measured:
        return None
    if min(kinds) < MIN_LABELLED:
        raise ValueError(
            f"calibrate_on: {prompt.text}: expected at least {MIN_LABELLED} usable records with this label and "
            f"{MIN_LABELLED} without, got {kinds[0]} and {kinds[1]}"
        )
    fused = FusedZeroShot.from_labels(values.score[usable], values.measured[usable], truth)
    return fused if prevalence is None else fused.at_prevalence(prevalence)


def _from_prevalence(prompt: AskedPrompt, values: _Values, prevalence: float | None) -> FusedZeroShot | None:
    """Calibrates on the files that are asked about; None where nothing is given or needed."""
    if prevalence is None or prompt.is_measured:
        return None
    num_known = int(np.isfinite(values.score).sum())
    if num_known < MIN_RECORDS:
        raise ValueError(
            f"prevalence: expected at least {MIN_RECORDS} usable recordings to calibrate on, got {num_known}; give "
            "more of them, or labelled ones to calibrate_on"
        )
    usable = (values.table["error"] == "").to_numpy()
    return FusedZeroShot.from_prevalence(values.score[usable], values.measured[usable], prevalence)


def _answers(prompt: AskedPrompt, values: _Values, fused: FusedZeroShot | None, min_evidence: float) -> pd.DataFrame:
    """`COLUMNS` of one prompt, (records,)."""
    network = values.network if fused is None else fused(values.score, None, 0.0).probability
    has_measured, has_network = np.isfinite(values.measured), np.isfinite(network)
    if fused is None:
        probability, before = _combined(prompt, network, values.measured), 0.0
        has_network &= ~(prompt.is_measured & has_measured)
    else:
        probability, before = fused(values.score, values.measured, 0.0).probability, logit(fused.prevalence)
    evidence = np.abs(logit(probability) - before)
    is_close = evidence < min_evidence
    whys = np.where(np.isfinite(values.score) & np.isnan(network), NO_PROBABILITY, NOT_KNOWN)
    whys = np.where(np.isfinite(probability), np.where(is_close, TOO_CLOSE, ""), whys)
    return values.table.assign(
        prompt=prompt.text,
        probability=np.where(is_close, np.nan, probability),
        no_answer=np.where(values.table["error"] == "", whys, ""),
        rests_on=[_rests_on(*each) for each in zip(values.rests_on, has_measured, has_network, strict=True)],
        network_score=values.score,
        network_probability=network,
        measured_probability=values.measured,
    )


def _combined(prompt: AskedPrompt, network: FloatArray, measured: FloatArray) -> FloatArray:
    """(records,), the probability without calibration; a measurement is never certain."""
    limits = expit([-MAX_LOG_ODDS, MAX_LOG_ODDS])
    known, sure = np.isfinite(measured), np.clip(measured, *limits)
    refuted = np.where(sure < 0.5, sure, np.nan)
    both = np.where(np.isfinite(network), sure * network, refuted)
    by_measurement = sure if prompt.is_measured else both
    return np.asarray(np.where(known, by_measurement, network))


def _rests_on(measured: str, has_measured: bool, has_network: bool) -> str:
    """Such as "heart rate 47/min, measured; network"."""
    values = measured.replace(" beats per minute", "/min").replace("; ", ", ")
    parts = [f"{values}, measured" if values else "measured"] if has_measured else []
    return "; ".join([*parts, *(["network"] if has_network else [])])
