"""Does looking where the rule says help? DANet's modules and controls, compared on patients that none of them saw.

    python -m ecgdan_hf.training.waveform_comparison --config compare-danet --data-dir mit-bih \
        --pretrain-data-dir ptb-xl --output-dir runs/danet-comparison

For each seed every variant is pretrained once, on another database, and fine-tuned once for each fold of patients. All
predictions are made for patients left out; thresholds and epochs are chosen on other patients of the training folds.
Variants are compared in pairs on the same resampled patients. Finished runs are not repeated: the same command goes on
after an interruption, and two processes may share the work by seeds, if a third one makes the table.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgdan_hf.evaluation.bootstrap import bootstrap_comparison, bootstrap_interval
from ecgdan_hf.evaluation.checkpoints import load_checkpoint
from ecgdan_hf.evaluation.classification import auprc, auroc
from ecgdan_hf.evaluation.waveform_attention import beat_localisation
from ecgdan_hf.training import finetune_danet, pretrain_danet, rows
from ecgdan_hf.training.ablation import describe, slug
from ecgdan_hf.training.arguments import (
    CompareWaveformsArguments,
    FinetuneArguments,
    PretrainArguments,
    check_keys,
    parse_folds,
    resolve,
)
from ecgdan_hf.training.batching import EcgCollator
from ecgdan_hf.training.collect import Batch, collect, evaluation_loader
from ecgdan_hf.training.command import run_as_program
from ecgdan_hf.training.cross_validation import inner_split
from ecgdan_hf.training.finetune import build_collator
from ecgdan_hf.training.loop import build_accelerator
from ecgdan_hf.training.run_folder import as_json, check_folder, is_finished, write_text
from ecgdan_hf.training.tasks import INPUTS

SCORES = ("AUROC", "AUPRC", "F1", "sensitivity", "specificity", "PPV")
LOCALISATION = ("highest_on_beat", "highest_on_beat_chance", "beats_found", "beats_found_chance")


def run(args: CompareWaveformsArguments, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
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
        found["variants"][name] |= {"changed": describe(overrides), "seeds": seeds[name]}
    metrics = {"task": "waveform comparison", "label": label_of(args), **found}
    every = [
        t.assign(variant=name, seed=seed)
        for name, runs in tables.items()
        for seed, t in zip(seeds[name], runs, strict=True)
    ]
    write_text(folder / "predictions.csv", pd.concat(every).to_csv(index=False, float_format="%.6g"))
    write_text(folder / "report.md", report(metrics, args))
    write_text(folder / "metrics.json", json.dumps(as_json(metrics), indent=2) + "\n")
    return metrics


def begin(args: CompareWaveformsArguments) -> tuple[Path, dict[str, dict[str, Any]]]:
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
        raise ValueError("variants: expected at least one, got none; give --config compare-danet")
    if args.folds < 2:
        raise ValueError(f"folds: expected two or more, got {args.folds}")
    folder = Path(str(args.output_dir))
    if not any((folder / slug(name)).is_dir() for name in args.variants):
        check_folder(args.output_dir, True, "metrics.json")
    folder.mkdir(parents=True, exist_ok=True)
    return folder, {name: dict(args.variants[name] or {}) for name in wanted}


def predictions(
    args: CompareWaveformsArguments, name: str, overrides: Mapping[str, Any], seed: int, say: Callable[[str], None]
) -> pd.DataFrame:
    """One variant and seed: every segment, predicted by the network that did not see its patient."""
    folder = Path(str(args.output_dir)) / slug(name) / f"seed-{seed}"
    file = folder / "predictions.csv"
    if not file.is_file():
        say(f"{name}, seed {seed}: pretraining")
        pretrained = pretrain_danet.run(pretrain_arguments(args, overrides, seed, folder / "pretrained"))
        say(f"{name}, seed {seed}: pretrained, AUROC on simulated beats {pretrained['valid']['macro_auroc']:.3f}")
        parts = [predict_fold(args, overrides, seed, fold, folder) for fold in range(args.folds)]
        table = pd.concat(parts, ignore_index=True).sort_values("record_id", ignore_index=True)
        write_text(file, table.to_csv(index=False, float_format="%.6g"))
    return pd.read_csv(file, dtype={"record_id": str, "patient_id": str})  # the same numbers now as when resumed


def pretrain_arguments(
    args: CompareWaveformsArguments, overrides: Mapping[str, Any], seed: int, folder: Path
) -> PretrainArguments:
    """The recipe of pretraining with what this variant changes of the network."""
    given = {"data_dir": args.pretrain_data_dir, "output_dir": str(folder), "seed": seed}
    return _resolved(PretrainArguments, args.pretrain, args, args.pretrain_common, overrides, given)


def finetune_arguments(
    args: CompareWaveformsArguments, overrides: Mapping[str, Any], seed: int, fold: int, folder: Path
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
    args: CompareWaveformsArguments,
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
    args: CompareWaveformsArguments, overrides: Mapping[str, Any], seed: int, fold: int, folder: Path
) -> pd.DataFrame:
    """Fine-tunes without the patients of one fold, and says of each of their segments what the network found."""
    run_args = finetune_arguments(args, overrides, seed, fold, folder)
    kept: dict[str, Any] = {}

    def split(dataset: Any, run_args: FinetuneArguments, stratify_by: str | None) -> rows.Parts:
        parts = inner_split(
            dataset, patients_of_fold(dataset, args.folds, fold, label_of(args)), run_args, stratify_by
        )
        kept["test"] = parts.test
        return parts

    finished = is_finished(Path(str(run_args.output_dir)))
    finetune_danet.run(run_args, split=split)
    if finished:
        _, extractor = load_checkpoint(Path(str(run_args.output_dir)))
        split(rows.load_dataset(run_args, extractor), run_args, None)
    return judged(Path(str(run_args.output_dir)), kept["test"], run_args, label_of(args))


def label_of(args: CompareWaveformsArguments) -> str:
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
    table = rows.read_table(dataset, ["record_id", "patient_id"])
    place = dataset.features["labels"].feature.names.index(label)
    table["positive"] = [place in labels for labels in dataset["labels"]]
    totals = table.groupby("patient_id")["positive"].sum().sort_index().sort_values(ascending=False, kind="stable")
    there_and_back = [*range(folds), *reversed(range(folds))]
    fold_of = {patient: there_and_back[rank % len(there_and_back)] for rank, patient in enumerate(totals.index)}
    return table.loc[table["patient_id"].map(fold_of) == fold, ["record_id", "patient_id"]]


def judged(folder: Path, test: Any, args: FinetuneArguments, label: str) -> pd.DataFrame:
    """Probability, decision and localisation of every segment of a fold's patients."""
    model, extractor = load_checkpoint(folder)
    collator = build_collator(test, model.config, args).still()
    found = _forward_all(model, test, collator, args)
    place = next(number for number, name in model.config.id2label.items() if name == label)
    probability = 1 / (1 + np.exp(-found["logits"][:, place].astype(float)))
    table = rows.read_table(test, ["record_id", "patient_id"])
    table["true"] = [place in labels for labels in test["labels"]]
    table["probability"] = probability
    table["positive"] = probability >= model.config.thresholds[label]
    if "waveform_attention" not in found:
        return table
    recorded = slice(extractor.pad_samples, found["waveform_attention"].shape[1] - extractor.pad_samples)
    places = [
        localisation(weights[recorded], row, label, extractor.sampling_rate)
        for weights, row in zip(found["waveform_attention"], _beats(test), strict=True)
    ]
    return pd.concat([table, pd.DataFrame(places)], axis=1)


def _forward_all(model: Any, test: Any, collator: EcgCollator, args: FinetuneArguments) -> dict[str, np.ndarray]:
    accelerator = build_accelerator(args, Path(str(args.output_dir)))
    loader = evaluation_loader(test, collator, args.batch_size, accelerator)

    @torch.no_grad()
    def forward(network: Any, batch: Batch) -> Batch:
        output = network(**{name: batch[name] for name in INPUTS if name in batch})
        wanted = ("logits", "waveform_attention")
        return {name: output[name] for name in wanted if output.get(name) is not None}

    return collect(model.to(accelerator.device), loader, forward, accelerator)


def _beats(test: Any) -> list[tuple[list[float], list[str]]]:
    """Times and kinds of each segment's beats; none where the source has no beat annotations."""
    if "beat_seconds" not in test.column_names:
        return [([], [])] * len(test)
    return list(zip(test["beat_seconds"], test["beat_kinds"], strict=True))


def localisation(
    weights: np.ndarray, beats: tuple[list[float], list[str]], label: str, sampling_rate: float
) -> dict[str, float]:
    """[`beat_localisation`] of the label's own beats in one segment, and their number; empty without any."""
    own = [at for at, kind in zip(*beats, strict=True) if kind == label]
    if not own:
        return {}
    found = beat_localisation(weights, own, sampling_rate)
    return {"num_beats": len(own), **{name: found[name] for name in LOCALISATION}}


def compare(tables: Mapping[str, list[pd.DataFrame]], n: int = 1000) -> dict[str, Any]:
    """Every variant's metrics, mean over seeds, and for each metric the paired difference to the first variant.

    Args:
        tables: variant -> a table for each seed, rows in the same order: `patient_id`, `true`, `probability`,
            `positive`, and the columns of `LOCALISATION` where there is attention.
        n: resamples of patients.

    Returns:
        `num_records`, `num_positive`, `num_patients`, and under `variants` for each of `SCORES` an interval with, but
        for the first variant, its `difference` (this minus the first), and the localisation where there is any.
    """
    base = next(iter(tables.values()))[0]
    truth = base["true"].to_numpy(dtype=float)
    options: dict[str, Any] = {"patient_ids": base["patient_id"].to_numpy(), "n": n, "seed": 0}
    stacked = {name: np.stack([_both(table) for table in runs], axis=1) for name, runs in tables.items()}
    found: dict[str, dict[str, Any]] = {name: {} for name in tables}
    for score in SCORES:
        metric = _over_seeds(score)
        intervals, differences = bootstrap_comparison(metric, truth, scores=stacked, **options)
        for name, interval in intervals.items():
            found[name][score] = interval.as_dict() | {"by_seed": _by_seed(score, truth, stacked[name])}
            if name in differences:  # given as "first minus this"
                this = differences[name].as_dict()
                turned = {"estimate": -this["estimate"], "low": -this["high"], "high": -this["low"]}
                found[name][score]["difference"] = this | turned
    for name, runs in tables.items():
        found[name] |= localisation_of(runs, n)
    counts = {"num_records": len(base), "num_positive": int(truth.sum()), "num_patients": base["patient_id"].nunique()}
    return {**counts, "variants": found}


def _both(table: pd.DataFrame) -> np.ndarray:
    """(n, 2): probability and decision."""
    return table[["probability", "positive"]].to_numpy(dtype=float)


def _over_seeds(score: str) -> Callable[..., float]:
    def mean(truth: np.ndarray, values: np.ndarray) -> float:
        return float(np.mean(_by_seed(score, truth, values)))

    return mean


def _by_seed(score: str, truth: np.ndarray, values: np.ndarray) -> list[float]:
    """The score of each seed; values are (n, seeds, 2)."""
    return [one_score(score, truth, values[:, seed]) for seed in range(values.shape[1])]


def one_score(score: str, truth: np.ndarray, values: np.ndarray) -> float:
    """One of `SCORES` of probabilities and decisions (n, 2)."""
    if score in ("AUROC", "AUPRC"):
        return {"AUROC": auroc, "AUPRC": auprc}[score](truth, values[:, 0])
    said, true = values[:, 1] > 0, truth > 0
    counts = {
        "sensitivity": (said & true, true),
        "specificity": (~said & ~true, ~true),
        "PPV": (said & true, said),
        "F1": (2 * (said & true), said.astype(int) + true),
    }
    hit, total = (float(np.sum(each)) for each in counts[score])
    if total == 0:
        raise ValueError(f"{score}: expected segments to judge it by, found none")
    return hit / total


def localisation_of(runs: list[pd.DataFrame], n: int) -> dict[str, Any]:
    """Means over the positive segments and seeds, with intervals over patients; empty without attention."""
    if "num_beats" not in runs[0] or runs[0]["num_beats"].isna().all():
        return {}
    table = pd.concat(runs)
    mean = table.groupby(["record_id", "patient_id"], as_index=False)[[*LOCALISATION, "num_beats"]].mean().dropna()
    found = {}
    for name in LOCALISATION:
        weights = mean["num_beats"] if name.startswith("beats_found") else np.ones(len(mean))
        interval = bootstrap_interval(_weighted_mean, weights, mean[name], patient_ids=mean["patient_id"], n=n, seed=0)
        found[name] = interval.as_dict()
    return found


def _weighted_mean(weights: np.ndarray, values: np.ndarray) -> float:
    return float(np.sum(weights * values) / np.sum(weights))


def report(metrics: Mapping[str, Any], args: CompareWaveformsArguments) -> str:
    """The two tables with what they are of."""
    variants = metrics["variants"]
    first = next(iter(variants))
    heads = ["variant", "what changed", "seeds", *SCORES, f"AUROC minus {first}", f"F1 minus {first}"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, entry in variants.items():
        differences = [_difference(entry[score].get("difference")) for score in ("AUROC", "F1")]
        lines.append(
            _row(
                [
                    name,
                    entry["changed"],
                    str(len(entry["seeds"])),
                    *(_interval(entry[score]) for score in SCORES),
                    *differences,
                ]
            )
        )
    heads = ["variant", "highest on the beat", "by chance", "beats found", "by chance"]
    places = [_row(heads), _row(["---"] * len(heads))]
    places += [
        _row([name, *(_interval(e[key]) for key in LOCALISATION)])
        for name, e in variants.items()
        if LOCALISATION[0] in e
    ]
    counts = (
        f"{metrics['num_records']} segments, {metrics['num_positive']} of them with {metrics['label']}, of "
        f"{metrics['num_patients']} patients"
    )
    what = (
        f"Source {args.data}: {counts}; {args.folds} folds of patients, means over "
        "seeds. Each segment is predicted by a network that saw neither its patient in fine-tuning nor its database "
        "in pretraining. 95 % intervals by resampling patients, in pairs for differences; few patients have most of "
        "the positive segments, so they are wide."
    )
    where = (
        "Whether a(t) is highest within 150 ms of one of the label's beats, and which share of these beats lies "
        "within 150 ms of any attention peak (half way from the median to the maximum of a(t) or higher), in the "
        "segments that have one; by chance: the same a(t) shifted in time."
    )
    return (
        "\n".join(
            ["# DANet's modules and controls", "", what, "", *lines, "", where, "", *places, "", "Research use only."]
        )
        + "\n"
    )


def _interval(found: Mapping[str, Any]) -> str:
    return "{estimate:.3f} ({low:.3f} to {high:.3f})".format(**found)


def _difference(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else "{estimate:+.3f} ({low:+.3f} to {high:+.3f})".format(**found)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    run_as_program(CompareWaveformsArguments, lambda args: run(args, print))
