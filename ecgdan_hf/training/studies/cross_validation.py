"""Repeated cross-validation of survival models: every fold trains all models and tests them on held-out patients.

    ecgdan evaluate --protocol repeated-cv --recipe finetune-survival --data csv --data-dir my-ecgs \
        --output-dir runs/cross-validation

2 folds x 5 seeds by default (the paper's), by patient, stratified by event. A fifth of a fold's training patients
chooses the epoch, so that nothing is chosen on the test patients. A finished fold is not repeated: the same command
resumes after an interruption.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from ecgdan_hf.evaluation.folds import parse_folds, recipe_of
from ecgdan_hf.evaluation.protocols.repeated_cv import Fold, Predictions, describe_cohort
from ecgdan_hf.evaluation.report.survival_report import Judged
from ecgdan_hf.evaluation.report.tripod import read_author_statements
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.evaluation.small_cells import without_small_cells
from ecgdan_hf.files import content_of, locked_folder, write_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.rows import model_inputs
from ecgdan_hf.training.arguments.fields import EvaluateArguments
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.finetune import FEW_EVENTS
from ecgdan_hf.training.studies.ablation import slug
from ecgdan_hf.training.studies.cv_fold import FoldModels
from ecgdan_hf.training.studies.cv_recipes import Networks, Recipes


def cross_validate(
    args: EvaluateArguments, networks: Networks | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Trains and evaluates in cross-validation; writes `predictions.csv`, figures, report and `metrics.json`.

    Args:
        args: data, recipe, folds and seeds.
        networks: further networks to compare with, by name, each built from the configuration.
        say: called with a line when something begins.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    begin, recipes = time.monotonic(), Recipes(args, networks or {})
    statements = read_author_statements(args.statements)
    folder = _check_folder(args, recipes)
    models = FoldModels(args, recipes)
    cohort = models.cohort
    folds = Fold.divide(cohort.table, args.folds, parse_folds(args.seeds, "seeds") or [])
    with locked_folder(folder):
        write_text(folder / "recipe.yaml", yaml.safe_dump(recipes.lasting(), sort_keys=False))
        tables = [_predictions(fold, models, folder, say) for fold in folds]
        predictions = Predictions(pd.concat(tables, ignore_index=True))
        _say_which_model(recipes, predictions, say)
        say("judging")
        metrics = {**_summarise(models, predictions), **_cost(recipes, folder, predictions.table, begin)}
        metrics |= {"statements": statements} if statements else {}
        metrics = without_small_cells(metrics, args.small_cells) if args.small_cells else metrics
        maps = _lead_attention(models, folder, predictions.table)
        judged = Judged(predictions, models.names, metrics, maps, cohort.config.lead_names)
        recipe = asdict(recipes.evaluated())
        RunFolder(folder).finish(lambda staging: judged.write(staging, recipe), Result("repeated-cv", metrics))
    return metrics


def _say_which_model(recipes: Recipes, predictions: Predictions, say: Callable[[str], None]) -> None:
    """Says by the number of training events which of fine-tuning and the few-events model to use."""
    if not any(each.few_events for each in recipes.contenders):
        return
    table = predictions.table
    sizes = (table["event"] == 1).groupby([table["seed"], table["fold"]]).sum()
    events = int(len(table) and sizes.groupby("seed").sum().mean() - sizes.mean())
    use = "the few-events model" if events < FEW_EVENTS else "the better of the two by this table"
    say(f"about {events} training events a fold (few: below {FEW_EVENTS}): use {use}")


def _check_folder(args: EvaluateArguments, recipes: Recipes) -> Path:
    """The folder of the cross-validation: new, empty, or begun with the same arguments."""
    if not args.output_dir:
        raise ValueError("output_dir: expected a folder for the folds and the report, got none; give --output-dir")
    folder, recipe = Path(args.output_dir), Path(args.output_dir) / "recipe.yaml"
    if not recipe.is_file():
        if folder.exists() and (not folder.is_dir() or content_of(folder)):
            raise ValueError(f"{folder}: expected an empty folder or an earlier cross-validation, found other files")
        return folder
    given, before = recipes.lasting(), recipe_of(str(folder)) or {}
    changed = next((name for name, value in given.items() if before.get(name) != value), None)
    if changed:
        raise ValueError(
            f"{changed}: the folds in {folder} began with {before.get(changed)!r}, got {given[changed]!r}; go on with "
            "the same arguments, or choose another folder"
        )
    return folder


def _predictions(fold: Fold, models: FoldModels, folder: Path, say: Callable[[str], None]) -> pd.DataFrame:
    """One row for each record of a fold, read if the fold was finished before."""
    path = folder / fold.name / "predictions.csv"
    if not path.is_file():
        say(f"{fold.name}: {', '.join(each.name for each in models.recipes.contenders)}")
        write_text(path, models.predict(fold).to_csv(index=False, float_format="%.9g"))
    table = pd.read_csv(path, dtype={"record_id": str, "patient_id": str})
    now = models.cohort.table.iloc[fold.test].set_index("record_id")[["event", "time"]]
    before = table.set_index("record_id")[["event", "time"]]
    if set(now.index) != set(before.index) or not np.allclose(now.loc[before.index], before, rtol=1e-6):
        raise ValueError(
            f"{path}: expected the records and outcomes of {fold.name} as the data have them now, found others; "
            "choose another folder"
        )
    return table


def _cost(recipes: Recipes, folder: Path, predictions: pd.DataFrame, begin: float) -> dict[str, Any]:
    """Time, machine and versions, and the covariates of the evaluated network in the first fold."""
    first = folder / f"seed-{predictions['seed'].iloc[0]}-fold-1" / slug(recipes.contenders[0].name)
    covariates = RunFolder(first).metrics.get("covariates")
    found = {"seconds": round(time.monotonic() - begin, 1), **RunFolder.environment()}
    return {**found, **({"covariates": covariates} if covariates else {})}


def _summarise(models: FoldModels, predictions: Predictions) -> dict[str, Any]:
    """The metrics of all folds together."""
    args, cohort, names = models.args, models.cohort, models.names
    valid_fraction = models.recipes.evaluated().valid_fraction
    judged = predictions.compare(names, args.bootstrap, args.seed, trained_share=1 - valid_fraction)
    for name in names:
        found = predictions.evaluate_risks(name, models.years, args.bootstrap, args.seed)
        judged[name] |= {"horizons": found} if found else {}
    return {
        "task": "survival",
        "protocol": "repeated-cv",
        "metric": "concordance_index",
        "simulated_outcome": cohort.config.simulated_outcome,
        "endpoint": cohort.config.endpoint,
        "seen_in_pretraining": bool((args.checkpoint or args.control) and args.seen_in_pretraining),
        "data": {"source": args.data, **describe_cohort(cohort.table)},
        "splits": {
            "num_folds": args.folds,
            "seeds": sorted(int(seed) for seed in predictions.table["seed"].unique()),
            "stratified_by": "event",
            "grouped_by": "patient_id",
            "inner_valid_fraction": valid_fraction,
            "folds": predictions.fold_counts(),
        },
        "models": judged,
        "subgroups": predictions.subgroups(names[0], args.bootstrap, args.seed),
    }


def _lead_attention(models: FoldModels, folder: Path, predictions: pd.DataFrame) -> np.ndarray | None:
    """Maps of every record by the network of the first seed that was not trained on it, (records, leads, leads).

    In order of `record_id`; None for a network without attention across leads.
    """
    first = predictions[predictions["seed"] == predictions["seed"].iloc[0]]
    row_of = {record: row for row, record in enumerate(models.cohort.table["record_id"])}
    name = slug(models.recipes.contenders[0].name)
    maps: dict[str, np.ndarray] = {}
    for (seed, fold), part in first.groupby(["seed", "fold"]):
        model: Any = load_checkpoint(folder / f"seed-{seed}-fold-{fold}" / name)[0]
        if not model.config.use_lead_attention:
            return None
        records = models.cohort.rows.select([row_of[record] for record in part["record_id"]])
        found = _attention_maps(model, records, models.args.batch_size)
        maps.update(zip(part["record_id"], found, strict=True))
    return np.stack([maps[record] for record in sorted(maps)])


@torch.inference_mode()
def _attention_maps(model: Any, dataset: Any, batch_size: int) -> np.ndarray:
    """(records, leads, leads), averaged over heads."""
    parts = []
    for inputs in model_inputs(model, dataset, batch_size):
        output = model.ecgdan(inputs["input_values"], inputs["lead_mask"], output_attentions=True)
        parts.append(output.lead_attention.cpu().numpy())
    return np.concatenate(parts)
