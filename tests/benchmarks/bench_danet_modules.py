"""DANet's waveform modules and their controls, compared in cross-validation over patients.

python tests/benchmarks/bench_danet_modules.py --config tests/benchmarks/compare-danet.yaml --data-dir mit-bih \
    --pretrain-data-dir ptb-xl --output-dir runs/danet-comparison

For each seed every variant is pretrained once, on another database, and fine-tuned once for each fold of patients.
Each prediction is for a held-out patient; thresholds and epochs are chosen on other patients of the training folds.
Variants are compared in pairs on the same resampled patients. The same command resumes an interrupted comparison. Two
processes may share the seeds; run the command once more at the end to write the table.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from danet_modules import LOCALISATION, compare, tables_text
from waveform_attention import beat_localisation

from ecgdan_hf.evaluation.folds import parse_folds
from ecgdan_hf.evaluation.protocols.subgroups import Found, classification_subgroups
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.files import check_output_folder, write_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.rows import columns_of
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.training import finetune_danet, pretrain_danet
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import (
    _DATA_HELP,
    FinetuneArguments,
    PretrainArguments,
)
from ecgdan_hf.training.arguments.options import check_keys, option, resolve
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import Batch, EcgCollator
from ecgdan_hf.training.core.run import _build_accelerator
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.core.supervised import _collator
from ecgdan_hf.training.core.tasks import INPUTS, collect
from ecgdan_hf.training.studies.ablation import _overrides_text, slug


@dataclass(kw_only=True)
class ModulesArguments:
    """Arguments of `bench_danet_modules.py`."""

    variants: dict[str, Any] = option({}, "changes of both recipes, as name={key: value}; the first is compared with")  # noqa: RUF009
    only: str | None = option(None, "names of the variants to run, separated by commas; default: all")
    pretrain: str = option("pretrain-danet", "recipe of ecgdan pretrain that every variant begins with")
    pretrain_common: dict[str, Any] = option({}, "arguments of it for all variants, as key=value; repeatable")  # noqa: RUF009
    recipe: str = option("finetune-danet", "recipe of ecgdan finetune for every variant and fold")
    common: dict[str, Any] = option({}, "arguments of it for all variants, as key=value; repeatable")  # noqa: RUF009
    data: str = option("mit-bih", _DATA_HELP)
    data_dir: str | None = option(None, "folder with the recordings to fine-tune and judge on")
    pretrain_data_dir: str | None = option(None, "folder with the recordings to pretrain on")
    output_dir: str | None = option(None, "folder for all runs, report.md, metrics.json and predictions.csv")
    cache_dir: str | None = option(None, "folder for preprocessed signals [default: user cache]")
    folds: int = option(5, "folds of patients, each of which is predicted by networks that did not see it")
    seeds: str = option("0-4", "seeds of each variant, as 0 or 0-4")
    num_proc: int | None = option(None, "processes that preprocess signals [default: one per core]")
    bootstrap: int = option(1000, "patient resamples behind each interval")


TITLE = "DANet's modules and controls, cross-validation of the recipe"
MAY_CHANGE = ("variants", "only", "seeds", "bootstrap", "output_dir", "cache_dir", "num_proc")


def run(args: ModulesArguments, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Trains what is not there yet, judges everything, and writes `report.md`, `metrics.json` and `predictions.csv`.

    Args:
        args: the recipe.
        say: told what begins.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used.
    """
    folder, variants = begin(args)
    seeds = {name: parse_folds(str(each.pop("seeds", args.seeds))) or [] for name, each in variants.items()}
    tables = {
        name: [predictions(args, name, overrides, seed, say) for seed in seeds[name]]
        for name, overrides in variants.items()
    }
    found = compare(tables, args.bootstrap)
    for name, overrides in variants.items():
        found["variants"][name] |= {"changed": _overrides_text(overrides), "seeds": seeds[name]}
    as_recipes = next((name for name, overrides in variants.items() if not overrides), None)
    facts = {"label": label_of(args), "data": args.data, "folds": args.folds, "as_recipes": as_recipes}
    facts["other_database"] = args.data_dir != args.pretrain_data_dir
    judged = tables[as_recipes or next(iter(tables))]
    metrics = {"title": TITLE, "split": "cross-validation", "task": "waveform comparison", **facts, **found}
    metrics |= {"subgroups": by_sex_and_age(judged, args), "report": tables_text(metrics)}
    every = [
        table.assign(variant=name, seed=seed)
        for name, runs in tables.items()
        for seed, table in zip(seeds[name], runs, strict=True)
    ]
    write_text(folder / "predictions.csv", pd.concat(every).to_csv(index=False, float_format="%.6g"))
    write_text(folder / "report.md", f"# DANet's modules and controls\n\n{metrics['report']}\n\nResearch use only.\n")
    Result("benchmark", metrics).write(folder)
    return metrics


def by_sex_and_age(tables: list[pd.DataFrame], args: ModulesArguments) -> Found:
    """How one variant ranks by sex and age, its probabilities averaged over seeds."""
    truth = tables[0][["true"]].to_numpy(dtype=float)
    scores = np.mean([table[["probability"]].to_numpy() for table in tables], axis=0)
    return classification_subgroups(tables[0], truth, scores, [label_of(args)], n=args.bootstrap)


def begin(args: ModulesArguments) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The folder, and what each variant changes.

    Raises:
        ValueError: no folder, no data, no variant, an unknown one, or fewer than two folds.
    """
    for name in ("output_dir", "data_dir", "pretrain_data_dir"):
        if not getattr(args, name):
            raise ValueError(f"{name}: expected a folder, got none; give --{name.replace('_', '-')}")
    wanted = [name.strip() for name in (args.only or "").split(",") if name.strip()] or list(args.variants)
    check_keys(wanted, args.variants, "only")
    if not wanted:
        raise ValueError("variants: expected at least one, got none; give --config compare-danet.yaml")
    if args.folds < 2:
        raise ValueError(f"folds: expected two or more, got {args.folds}")
    folder = Path(str(args.output_dir))
    if not any((folder / slug(name)).is_dir() for name in args.variants):
        check_output_folder(args.output_dir, True, "metrics.json")
    folder.mkdir(parents=True, exist_ok=True)
    check_same(folder, args)
    return folder, {name: dict(args.variants[name] or {}) for name in wanted}


def check_same(folder: Path, args: ModulesArguments) -> None:
    """Refuses to go on with other folds, data or recipes than the runs in the folder began with.

    Networks of one division of the patients would be judged on patients they were trained on.

    Raises:
        ValueError: see above.
    """
    lasting = {name: value for name, value in asdict(args).items() if name not in MAY_CHANGE}
    file = folder / "comparison.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else lasting
    for name, value in lasting.items():
        if value != before.get(name):
            raise ValueError(
                f"{name}: the comparison in {folder} began with {before.get(name)!r}, got {value!r}; choose another"
            )
    write_text(file, json.dumps(lasting, indent=2) + "\n")


def predictions(
    args: ModulesArguments, name: str, overrides: Mapping[str, Any], seed: int, say: Callable[[str], None]
) -> pd.DataFrame:
    """One variant and seed: every segment, predicted by the network that did not see its patient."""
    folder = Path(str(args.output_dir)) / slug(name) / f"seed-{seed}"
    file = folder / "predictions.csv"
    if not file.is_file():
        say(f"{name}, seed {seed}: pretraining")
        pretrained = pretrain_danet.pretrain_danet(pretrain_arguments(args, overrides, seed, folder / "pretrained"))
        say(f"{name}, seed {seed}: pretrained, AUROC on simulated beats {pretrained['valid']['macro_auroc']:.3f}")
        parts = [predict_fold(args, overrides, seed, fold, folder) for fold in range(args.folds)]
        table = pd.concat(parts, ignore_index=True).sort_values("record_id", ignore_index=True)
        write_text(file, table.to_csv(index=False, float_format="%.6g"))
    return pd.read_csv(file, dtype={"record_id": str, "patient_id": str})  # the same numbers now as when resumed


def pretrain_arguments(
    args: ModulesArguments, overrides: Mapping[str, Any], seed: int, folder: Path
) -> PretrainArguments:
    """The recipe of pretraining with what this variant changes of the network."""
    given = {"data_dir": args.pretrain_data_dir, "output_dir": str(folder), "seed": seed}
    return _resolved(PretrainArguments, args.pretrain, args, args.pretrain_common, overrides, given)


def finetune_arguments(
    args: ModulesArguments, overrides: Mapping[str, Any], seed: int, fold: int, folder: Path
) -> FinetuneArguments:
    """The recipe of fine-tuning, from this seed's pretrained network."""
    given = {
        "data": args.data,
        "data_dir": args.data_dir,
        "output_dir": str(folder / f"fold-{fold}"),
        "checkpoint": str(folder / "pretrained"),
        "seed": seed,
        "bootstrap": 20,  # the intervals of a single fold are not looked at
    }
    return _resolved(FinetuneArguments, args.recipe, args, args.common, overrides, given)


def _resolved(
    kind: type[Any],
    recipe: str,
    args: ModulesArguments,
    common: Mapping[str, Any],
    overrides: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Any:
    """A recipe with what all runs share, what a variant changes, and the run's own folder and seed."""
    resume = (Path(given["output_dir"]) / "recipe.yaml").is_file()
    shared = {"cache_dir": args.cache_dir, "num_proc": args.num_proc, "log_with": "none", "progress": False}
    network = {**common.get("model", {}), **overrides.get("model", {})}
    return resolve(kind, recipe, {**common, **shared, **overrides, **given, "model": network, "resume": resume})


def predict_fold(
    args: ModulesArguments, overrides: Mapping[str, Any], seed: int, fold: int, folder: Path
) -> pd.DataFrame:
    """Fine-tunes without the patients of one fold, and says of each of their segments what the network found."""
    run_args = finetune_arguments(args, overrides, seed, fold, folder)
    kept: dict[str, Any] = {}

    def split(dataset: Any, run_args: FinetuneArguments, stratify_by: str | None) -> dict[str, Any]:
        parts = rows.inner_split(
            dataset, patients_of_fold(dataset, args.folds, fold, label_of(args)), run_args, stratify_by
        )
        kept["test"] = parts["test"]
        return parts

    finished = RunFolder(Path(str(run_args.output_dir))).metrics is not None
    finetune_danet.finetune_danet(run_args, split=split)
    if finished:
        _, extractor = load_checkpoint(Path(str(run_args.output_dir)))
        split(rows.load_dataset(run_args, extractor, label_level=run_args.label_level), run_args, None)
    return judged(Path(str(run_args.output_dir)), kept["test"], run_args, label_of(args))


def label_of(args: ModulesArguments) -> str:
    """The one label that is compared."""
    label = resolve(FinetuneArguments, args.recipe, dict(args.common)).keep_labels
    if not label or "," in label:
        raise ValueError(f"keep_labels: expected one label in the recipe of fine-tuning, got {label!r}")
    return label


def patients_of_fold(dataset: Any, folds: int, fold: int, label: str) -> pd.DataFrame:
    """`record_id` and `patient_id` of one fold: patients in order of their positive segments, dealt out in turn.

    The turn goes back and forth, so that the patient with the most and the one with the next fewer positives are in
    different folds and each fold has about as many.
    """
    table = columns_of(dataset, ["record_id", "patient_id"])
    place = dataset.features["labels"].feature.names.index(label)
    table["positive"] = [place in labels for labels in dataset["labels"]]
    totals = table.groupby("patient_id")["positive"].sum().sort_index().sort_values(ascending=False, kind="stable")
    there_and_back = [*range(folds), *reversed(range(folds))]
    fold_of = {patient: there_and_back[rank % len(there_and_back)] for rank, patient in enumerate(totals.index)}
    return table.loc[table["patient_id"].map(fold_of) == fold, ["record_id", "patient_id"]]


def judged(folder: Path, test: Any, args: FinetuneArguments, label: str) -> pd.DataFrame:
    """Probability, decision and localisation of every segment of a fold's patients."""
    model, extractor = load_checkpoint(folder)
    found = _forward_all(model, test, _collator(model.config, args), args)
    place = next(number for number, name in model.config.id2label.items() if name == label)
    probability = 1 / (1 + np.exp(-found["logits"][:, place].astype(float)))
    table = columns_of(test, ["record_id", "patient_id", "age", "sex"])
    table["true"] = [place in labels for labels in test["labels"]]
    table["probability"] = probability
    table["positive"] = probability >= model.config.thresholds[label]
    if "waveform_attention" not in found:
        return table
    places = [
        localisation(weights, beats, label, extractor)
        for weights, beats in zip(found["waveform_attention"], _beats(test), strict=True)
    ]
    return pd.concat([table, pd.DataFrame(places)], axis=1)


def _forward_all(model: Any, test: Any, collator: EcgCollator, args: FinetuneArguments) -> dict[str, np.ndarray]:
    accelerator = _build_accelerator(args, Path(str(args.output_dir)))
    loader = collator.evaluation_loader(test, args.batch_size, accelerator)

    @torch.no_grad()
    def forward(network: Any, batch: Batch) -> Batch:
        output = network(**{name: batch[name] for name in INPUTS if name in batch})
        wanted = ("logits", "waveform_attention")
        return {name: output[name] for name in wanted if output.get(name) is not None}

    return collect(model.to(accelerator.device), loader, forward, accelerator)


def _beats(test: Any) -> list[dict[str, Any]]:
    """Each segment's length and its beats' times and kinds; empty where the source has no beat annotations."""
    names = ("duration_seconds", "beat_seconds", "beat_kinds")
    if not set(names) <= set(test.column_names):
        return [{}] * len(test)
    return [dict(zip(names, row, strict=True)) for row in zip(*(test[name] for name in names), strict=True)]


def localisation(
    weights: np.ndarray, beats: Mapping[str, Any], label: str, extractor: EcgDanFeatureExtractor
) -> dict[str, float]:
    """[`beat_localisation`] of the label's own beats that the network was shown, and their number; empty without any.

    Args:
        weights: (num_samples,), a(t) with its padding.
        beats: `duration_seconds` of the segment, `beat_seconds`, `beat_kinds`; empty where nothing is annotated.
        label: kind of the beats that count.
        extractor: what prepared the segment.
    """
    if not beats:
        return {}
    rate = extractor.sampling_rate
    first, end, start = extractor.recorded_samples(round(beats["duration_seconds"] * rate), rate)
    own = [at for at, kind in zip(beats["beat_seconds"], beats["beat_kinds"], strict=True) if kind == label]
    shown = [at - start / rate for at in own if 0 <= at * rate - start < end - first]
    if not shown:
        return {}
    found = beat_localisation(weights[first:end], shown, rate)
    return {"num_beats": len(shown), **{name: found[name] for name in LOCALISATION}}


if __name__ == "__main__":
    run_as_program(ModulesArguments, lambda args: run(args, print))
