"""What checkpoints lose with fewer leads, end to end: the record a device with these leads would have delivered.

python tests/benchmarks/bench_reduced_leads.py --ptb-xl ../shared/data/ptb-xl \
    --checkpoint model_cards/ecg-dan-rhythm-superclasses [--checkpoint runs/other-seed] \
    [--survival runs/survival-0 --outcomes outcomes-0.csv [--survival runs/survival-1 --outcomes outcomes-1.csv]]

Each PTB-XL record of the fold is reduced to the leads before anything else sees it: limb leads are derived from those
that are left, R peaks found in them, the rest is masked. Several checkpoints are seeds of one model: their AUROC (or
C-index, each on its own outcomes) is averaged. Intervals: 95 %, patients resampled, the same for all sets of leads, so
that the difference to twelve leads is paired. `masked` is what one gets who prepares all twelve leads and then hides
those that neither are given nor follow from them. A record that the feature extractor refuses with some set of leads
counts for none; `refused` says how many.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ecgdan_hf.data.formats import read
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.sources import ptbxl
from ecgdan_hf.data.sources.csv_table import join_outcomes, read_outcomes
from ecgdan_hf.evaluation.measures.classification import auroc, macro_auroc
from ecgdan_hf.evaluation.measures.concordance import concordance_index
from ecgdan_hf.evaluation.measures.intervals import bootstrap_comparison
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.prediction_rows import DEFAULT_THRESHOLD
from ecgdan_hf.inference.rows import _mask_leads, kept_leads
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival, EcgDanPreTrainedModel

LEAD_SETS: tuple[tuple[str, ...], ...] = (
    STANDARD_LEADS,
    ("I", "II", *STANDARD_LEADS[6:]),
    STANDARD_LEADS[:6],
    ("I", "II", "V2"),
    ("I", "II"),
    ("II",),
    ("I",),
)
RISK_YEARS = 10.0
Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fold:
    """The judged records.

    Attributes:
        table: `record_id`, `patient_id`, `labels` and what else PTB-XL's table says.
        label_names: in the order of `labels`.
        records: one for each row.
    """

    table: pd.DataFrame
    label_names: list[str]
    records: list[EcgRecord]

    @property
    def labels(self) -> np.ndarray:
        """(n, labels) of 0 and 1."""
        return np.array([[float(name in row) for name in self.label_names] for row in self.table["labels"]])


def read_fold(data_dir: Path, fold: int, limit: int | None = None) -> Fold:
    """The records of one fold of PTB-XL, the first `limit` of them."""
    table = ptbxl.read_ptbxl(data_dir)
    names = table.attrs["label_names"]
    table = table[table["fold"] == fold].iloc[:limit].reset_index(drop=True)
    return Fold(table, names, [read(file) for file in table["file"]])


def with_leads(record: EcgRecord, leads: Sequence[str]) -> EcgRecord:
    """The record as a device with these leads would have written it."""
    rows = [record.lead_names.index(lead) for lead in leads]
    return replace(record, signal_mv=record.signal_mv[rows], lead_names=tuple(leads))


def prepare(records: Sequence[EcgRecord], leads: Sequence[str], extractor: EcgDanFeatureExtractor) -> Inputs:
    """`input_values` (n, leads, samples) and `lead_mask` (n, leads) of records reduced to `leads`.

    A record that the extractor refuses has no lead in its mask.
    """
    empty, rows = without_leads(extractor), []
    for record in records:
        try:
            rows.append(extractor(**with_leads(record, leads).as_inputs()))
        except ValueError as error:
            print(f"{record.record_id}, {name_of(leads)}: {error}", file=sys.stderr)
            rows.append(empty)
    return {name: np.concatenate([row[name] for row in rows]) for name in empty}


def without_leads(extractor: EcgDanFeatureExtractor) -> Inputs:
    """One row without any lead."""
    leads = len(extractor.lead_names)
    values = np.zeros((1, leads, extractor.num_samples), dtype=np.float32)
    return {"input_values": values, "lead_mask": np.zeros((1, leads), dtype=bool)}


@torch.inference_mode()
def scores(model: EcgDanPreTrainedModel, inputs: Inputs, batch_size: int = 64) -> np.ndarray:
    """Probabilities (n, labels) of a classifier; log hazard and ten-year risk (n, 2) of a survival model."""
    rows = []
    for start in range(0, len(inputs["lead_mask"]), batch_size):
        batch = {name: torch.from_numpy(values[start : start + batch_size]) for name, values in inputs.items()}
        if isinstance(model, EcgDanForSurvival):
            log_hazard = model(**batch, return_loss=False).log_hazard
            rows.append(torch.stack([log_hazard, model.predict_risk(**batch, horizon_years=RISK_YEARS)], dim=1))
        else:
            rows.append(model(**batch).logits.sigmoid())
    return torch.cat(rows).double().numpy()


@dataclass(frozen=True)
class Said:
    """What the seeds of one model say of the same records.

    Attributes:
        models: the seeds.
        judged: (n,) true for the records that no set of leads lets the feature extractor refuse; the others follow.
        whole: name of the lead set -> (judged, seeds, columns of [`scores`]), end to end.
        masked: the same, hidden from the network after preparing twelve leads.
        used: name of the lead set -> most leads a record was left with, derived ones included.
        refused: name of the lead set -> records refused.
    """

    models: list[EcgDanPreTrainedModel]
    judged: np.ndarray
    whole: dict[str, np.ndarray]
    masked: dict[str, np.ndarray]
    used: dict[str, int]
    refused: dict[str, int]


def ask(checkpoints: Sequence[Path], records: Sequence[EcgRecord]) -> Said:
    """Every checkpoint on every set of leads.

    Raises:
        ValueError: seeds that prepare signals differently, or a model that needs covariates.
    """
    loaded = [load_checkpoint(checkpoint) for checkpoint in checkpoints]
    models, extractors = [model for model, _ in loaded], [extractor for _, extractor in loaded]
    if any(extractor.to_dict() != extractors[0].to_dict() for extractor in extractors):
        raise ValueError(f"{checkpoints[0]}: the others prepare signals differently; judge them on their own")
    if any(getattr(model.config, "covariate_names", []) for model in models):
        raise ValueError(f"{checkpoints[0]}: expected a model of the ECG alone, got one with covariates")
    prepared = {leads: prepare(records, leads, extractors[0]) for leads in LEAD_SETS}
    accepted = {leads: inputs["lead_mask"].any(axis=1) for leads, inputs in prepared.items()}
    judged = np.all(list(accepted.values()), axis=0)
    said, names = Said(models, judged, {}, {}, {}, {}), extractors[0].lead_names
    for leads, inputs in prepared.items():
        shown = {name: values[judged] for name, values in inputs.items()}
        twelve = {name: values[judged] for name, values in prepared[STANDARD_LEADS].items()}
        hidden, name = _mask_leads(twelve, kept_leads(leads, names)), name_of(leads)
        said.whole[name] = np.stack([scores(model, shown) for model in models], axis=1)
        said.masked[name] = np.stack([scores(model, hidden) for model in models], axis=1)
        said.used[name] = int(shown["lead_mask"].sum(axis=1).max())
        said.refused[name] = int((~accepted[leads]).sum())
    return said


def name_of(leads: Sequence[str]) -> str:
    """`3: I, II, V2`, and ranges where they are long."""
    short = {STANDARD_LEADS: "all", STANDARD_LEADS[:6]: "limb", LEAD_SETS[1]: "I, II, V1-V6"}
    return f"{len(leads)}: {short.get(tuple(leads), ', '.join(leads))}"


def mean_auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over seeds of the macro AUROC: labels (n, labels), probabilities (n, seeds, labels)."""
    return float(np.mean([macro_auroc(labels, probabilities[:, seed]) for seed in range(probabilities.shape[1])]))


def mean_concordance(event: np.ndarray, time: np.ndarray, said: np.ndarray) -> float:
    """Mean over seeds of the C-index, each seed on its own follow-up: event, time (n, seeds), said (n, seeds, 2)."""
    each = zip(event.T, time.T, said[:, :, 0].T, strict=True)
    return float(np.mean([concordance_index(*seed) for seed in each]))


def main_table(
    title: str, metric: Callable[..., float], truth: Sequence[np.ndarray], said: Said, fold: Fold, n: int
) -> Iterator[str]:
    """One line for each set of leads, with its paired difference to twelve leads; `truth` of the judged records."""
    patients = fold.table["patient_id"].to_numpy()[said.judged]
    intervals, ahead = bootstrap_comparison(metric, *truth, scores=said.whole, patient_ids=patients, n=n, seed=0)
    yield f"{title}: {len(patients)} records, {len(set(patients))} patients, {len(said.models)} seed(s)\n"
    yield f"| leads given | used | refused | {title} (95 % interval) | below twelve leads by | masked |"
    yield "|---|---|---|---|---|---|"
    for name, found in intervals.items():
        limits = ahead.get(name)
        cells = [name, str(said.used[name]), str(said.refused[name])]
        cells += [f"{found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})"]
        cells += [f"{limits.estimate:.3f} ({limits.low:+.3f} to {limits.high:+.3f})" if limits else ""]
        yield f"| {' | '.join(cells)} | {metric(*truth, said.masked[name]):.3f} |"


def label_table(said: Said, labels: np.ndarray, names: Sequence[str]) -> Iterator[str]:
    """AUROC, sensitivity and specificity of each label at the first seed's released thresholds."""
    known = said.models[0].config.thresholds or {}
    cuts = np.array([known.get(name, DEFAULT_THRESHOLD) for name in names])
    yield f"| leads given | {' | '.join(f'{name} ({int(labels[:, i].sum())})' for i, name in enumerate(names))} |"
    yield "|---" * (len(names) + 1) + "|"
    for leads, probabilities in said.whole.items():
        cells = [leads]
        for i, cut in enumerate(cuts):
            values, truth = probabilities[:, 0, i], labels[:, i] == 1
            area, positive = auroc(truth, values), values >= cut
            cells.append(f"{area:.3f}; {positive[truth].mean():.2f} / {(~positive[~truth]).mean():.2f}")
        yield f"| {' | '.join(cells)} |"


def risk_table(said: Said) -> Iterator[str]:
    """Spread of the log hazard and mean ten-year risk, means over seeds: does the calibration still hold?"""
    yield f"| leads given | SD of the log hazard | mean {RISK_YEARS:.0f}-year risk |"
    yield "|---|---|---|"
    for leads, values in said.whole.items():
        yield f"| {leads} | {values[:, :, 0].std(axis=0).mean():.2f} | {values[:, :, 1].mean():.3f} |"


def judge_labels(checkpoints: Sequence[Path], fold: Fold, n: int) -> Iterator[str]:
    """Tables of a classifier of the superclasses; one seed for each checkpoint, `n` resamples."""
    said = ask(checkpoints, fold.records)
    labels = fold.labels[said.judged]
    yield from main_table("macro AUROC", mean_auroc, [labels], said, fold, n)
    yield "\nAUROC; sensitivity / specificity at the released threshold (first checkpoint)\n"
    yield from label_table(said, labels, fold.label_names)


def judge_survival(checkpoints: Sequence[Path], outcomes: Sequence[Path], fold: Fold, n: int) -> Iterator[str]:
    """Tables of survival models, each judged on its own outcomes; records must have one in every file."""
    given = [read_outcomes(path) for path in outcomes]
    given = [table[table["record_id"].isin(fold.table["record_id"])] for table in given]
    tables = [join_outcomes(fold.table, *pair) for pair in zip(given, map(str, outcomes), strict=True)]
    if any(list(table["record_id"]) != list(fold.table["record_id"]) for table in tables):
        raise ValueError("outcomes: expected one for every record of the fold in every file")
    said = ask(checkpoints, fold.records)
    event, time = (
        np.stack([table[name].to_numpy(float)[said.judged] for table in tables], axis=1) for name in ("event", "time")
    )
    simulated = " (simulated)" if any(model.config.simulated_outcome for model in said.models) else ""
    yield from main_table(f"C-index{simulated}", mean_concordance, [event, time], said, fold, n)
    counts = ", ".join(str(int(count)) for count in event.sum(axis=0))
    yield f"\nEvents{simulated}: {counts}; share of records {event.mean():.3f}\n"
    yield from risk_table(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ptb-xl", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="of superclasses; one per seed")
    parser.add_argument("--survival", type=Path, action="append", default=[], help="survival checkpoint; one per seed")
    parser.add_argument("--outcomes", type=Path, action="append", default=[], help="one for each --survival")
    parser.add_argument("--fold", type=int, default=9)
    parser.add_argument("--limit", type=int, help="first records of the fold only")
    parser.add_argument("--bootstrap", type=int, default=1000)
    options = parser.parse_args()
    if len(options.survival) != len(options.outcomes):
        parser.error(f"--outcomes: expected {len(options.survival)}, one for each --survival")
    fold = read_fold(options.ptb_xl, options.fold, options.limit)
    if options.checkpoint:
        print(*judge_labels(options.checkpoint, fold, options.bootstrap), sep="\n", flush=True)
    if options.survival:
        print(*judge_survival(options.survival, options.outcomes, fold, options.bootstrap), sep="\n")


if __name__ == "__main__":
    main()
