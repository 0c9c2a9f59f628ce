"""Superclasses of PTB-XL: the light network beside the benchmark's networks, same records, recipe, loop and loss.

python tests/benchmarks/bench_superclasses.py --data-dir ../shared/data/ptb-xl --output-dir runs/superclasses \
    [--networks light,resnet1d_wang,xresnet1d101] [--seeds 0,1,2] [--checkpoint runs/pretrained-rhythm] \
    [--recipe finetune-rhythm] [--set epochs=2]

Every run is a folder of its own under the output folder; finished ones are not repeated and an unfinished one goes on,
so that the same command continues after an interruption. The first network of the table is compared with each other.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ptbxl_networks import NETWORKS

from ecgdan_hf.evaluation.folds import parse_folds
from ecgdan_hf.evaluation.measures.classification import macro_auroc
from ecgdan_hf.evaluation.measures.intervals import bootstrap_difference, bootstrap_interval
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.files import write_text
from ecgdan_hf.training import finetune
from ecgdan_hf.training.arguments.command import _parse_assignments
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.arguments.options import resolve
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.studies.ablation import _mean_macro_auroc

LIGHT, PRETRAINED = "light", "light, pretrained"


@dataclass(frozen=True)
class Runs:
    """What the seeds of one network say of the judged records.

    Attributes:
        labels: (n, labels) of 0 and 1.
        probabilities: (n, seeds, labels).
        records, patient_ids: (n,).
        parameters: of the network.
        seconds: training time of each seed.
        judged_on: part of `predictions.csv`: `test`, or `valid` where the recipe has no test part.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    records: np.ndarray
    patient_ids: np.ndarray
    parameters: int
    seconds: list[float]
    judged_on: str

    @property
    def per_seed(self) -> list[float]:
        """Macro AUROC of each seed."""
        return [macro_auroc(self.labels, self.probabilities[:, seed]) for seed in range(self.probabilities.shape[1])]


def folder_of(output_dir: Path, name: str, seed: int) -> Path:
    return output_dir / f"{name.replace(', ', '-')}-{seed}"


def train(name: str, seed: int, options: argparse.Namespace) -> None:
    """One run, unless it is there already."""
    folder = folder_of(options.output_dir, name, seed)
    if RunFolder(folder).metrics is not None:
        return
    flags: dict[str, Any] = {**options.set, "data_dir": str(options.data_dir), "output_dir": str(folder), "seed": seed}
    flags |= {"checkpoint": str(options.checkpoint)} if name == PRETRAINED else {"from_scratch": True}
    args = resolve(FinetuneArguments, options.recipe, {**flags, "resume": (folder / "recipe.yaml").is_file()})
    print(f"{folder}: training", flush=True)
    metrics = finetune.finetune(args, network=NETWORKS.get(name))
    print(f"{folder}: {metrics['seconds']:.0f} s", flush=True)


def read_runs(folders: list[Path]) -> Runs:
    """The seeds of one network from their folders.

    Raises:
        ValueError: seeds that were judged on different records.
    """
    tables, metrics = [], [RunFolder(folder).metrics for folder in folders]
    for folder in folders:
        table = pd.read_csv(folder / "predictions.csv")
        judged_on = "test" if "test" in set(table["part"]) else "valid"
        tables.append(table[table["part"] == judged_on].reset_index(drop=True))
    first = tables[0]
    truth = [column for column in first if column.startswith("true_")]
    if any(not table["record_id"].equals(first["record_id"]) for table in tables):
        raise ValueError(f"{folders[0]}: its seeds were judged on different records; start over in another folder")
    names = [column.removeprefix("true_") for column in truth]
    return Runs(
        labels=first[truth].to_numpy(dtype=float),
        probabilities=np.stack([table[names].to_numpy() for table in tables], axis=1),
        records=first["record_id"].to_numpy(),
        patient_ids=first["patient_id"].to_numpy(),
        parameters=metrics[0]["num_parameters"],
        seconds=[found["seconds"] for found in metrics],
        judged_on=judged_on,
    )


def summarise(runs: Mapping[str, Runs], n: int = 1000) -> dict[str, dict[str, Any]]:
    """Every network: its seeds, the interval of their averaged probability, and how far the first one is ahead.

    The difference is that of the means over seeds; its interval comes from resampled patients, the same for both.

    Raises:
        ValueError: networks that were judged on different records.
    """
    ours = next(iter(runs.values()))
    found = {}
    for name, theirs in runs.items():
        if not np.array_equal(theirs.records, ours.records):
            raise ValueError(f"{name}: judged on other records than {next(iter(runs))}")
        options: dict[str, Any] = {"patient_ids": ours.patient_ids, "n": n, "seed": 0}
        averaged = bootstrap_interval(macro_auroc, ours.labels, theirs.probabilities.mean(1), **options)
        entry = {
            "num_parameters": theirs.parameters,
            "macro_auroc_per_seed": theirs.per_seed,
            "mean": float(np.mean(theirs.per_seed)),
            "sd": float(np.std(theirs.per_seed, ddof=1)) if len(theirs.per_seed) > 1 else None,
            "averaged_probabilities": averaged.as_dict(),
            "seconds": theirs.seconds,
        }
        if theirs is not ours:
            scores = {"scores": ours.probabilities, "baseline_scores": theirs.probabilities}
            entry["ahead"] = bootstrap_difference(_mean_macro_auroc, ours.labels, **scores, **options).as_dict()
        found[name] = entry
    return found


def table_text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each network, in Markdown."""
    first = next(iter(found))
    heads = ["network", "parameters", "seeds", "macro AUROC of each", "mean", "SD", "seeds averaged (95 % interval)"]
    heads += [f"{first} ahead by (95 % interval)"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, entry in found.items():
        seeds, averaged, ahead = entry["macro_auroc_per_seed"], entry["averaged_probabilities"], entry.get("ahead")
        cells = [name, f"{entry['num_parameters'] / 1e6:.2f} M", str(len(seeds))]
        cells += [", ".join(f"{value:.4f}" for value in seeds), f"{entry['mean']:.4f}"]
        cells += ["" if entry["sd"] is None else f"{entry['sd']:.4f}"]
        cells += ["{estimate:.4f} ({low:.3f} to {high:.3f})".format(**averaged)]
        cells += ["" if ahead is None else "{estimate:+.4f} ({low:+.4f} to {high:+.4f})".format(**ahead)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--networks", default=",".join([LIGHT, *NETWORKS]), help=f"of {LIGHT}, {', '.join(NETWORKS)}")
    parser.add_argument("--seeds", default="0,1,2", help="such as 0-2 or 0,1,2")
    parser.add_argument("--checkpoint", type=Path, help="adds the light network fine-tuned from here, first")
    parser.add_argument("--recipe", default="finetune-rhythm")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="argument of ecgdan finetune")
    parser.add_argument("--bootstrap", type=int, default=1000)
    options = parser.parse_args()
    options.set = _parse_assignments(options.set, "set")
    names = [PRETRAINED] * bool(options.checkpoint) + options.networks.split(",")
    unknown = set(names) - {LIGHT, PRETRAINED, *NETWORKS}
    if unknown:
        parser.error(f"--networks: expected some of {LIGHT}, {', '.join(NETWORKS)}, got {', '.join(sorted(unknown))}")
    seeds = parse_folds(options.seeds) or []
    for seed in seeds:  # all networks of a seed before the next seed, so that an unfinished table is a fair one
        for name in names:
            train(name, seed, options)
    runs = {name: read_runs([folder_of(options.output_dir, name, seed) for seed in seeds]) for name in names}
    found = summarise(runs, options.bootstrap)
    text = table_text(found)
    write_text(options.output_dir / "table.md", text)
    judged_on = next(iter(runs.values())).judged_on
    metrics = {"recipe": options.recipe, "set": options.set, "judged_on": judged_on, "networks": found}
    Result("benchmark", {"title": "Superclasses of PTB-XL", "report": text, **metrics}).write(options.output_dir)
    note = ", which also chose the epoch" if judged_on == "valid" else ""
    print(f"{text}\nJudged on the {judged_on} part{note}: {len(next(iter(runs.values())).labels)} records.")


if __name__ == "__main__":
    main()
