"""Refits the baseline hazard and slope of a survival checkpoint to another population; its weights stay.

    ecgdan recalibrate --checkpoint runs/survival --data csv --data-dir their-ecgs --output-dir runs/survival-there

How often the event happens differs between populations far more than what raises its hazard. The new population gives
its own baseline (`--method baseline`) and, with events enough, also how far apart log hazards are (`--method slope`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.data.splits import check_patients_disjoint
from ecgdan_hf.evaluation.folds import check_unseen, parse_folds, recipe_of, select_folds
from ecgdan_hf.evaluation.measures.absolute_risk import brier_score
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.risk_calibration import RiskCalibration
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.evaluation.seen_records import SeenRecords, check_records_unseen
from ecgdan_hf.files import check_output_folder
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.inference.rows import columns_of, predict_rows
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.training.arguments.fields import RecalibrateArguments
from ecgdan_hf.training.arguments.options import check_options
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.core.tasks import OUTCOME, outcome_of


def recalibrate_checkpoint(args: RecalibrateArguments) -> dict[str, Any]:
    """Fits baseline and slope to the records, and leaves a checkpoint folder with `metrics.json` and `report.md`.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: a checkpoint of another kind, folds it was trained on, records without outcome, or what
            `EcgDanForSurvival.recalibrate` rejects.
    """
    folder = check_output_folder(args.output_dir, args.overwrite, "report.md")
    check_options(args)
    if args.checkpoint and folder.resolve() == Path(args.checkpoint).resolve():
        raise ValueError(f"output_dir: expected another folder than the checkpoint's, got {folder} for both")
    model, extractor = _load_survival(args)
    if names := model.config.endpoint_names:
        raise ValueError(f"checkpoint: recalibrate fits one endpoint, got {', '.join(names)}; fine-tune there instead")
    fit, test = _load_parts(args, extractor)
    check_records_unseen(str(args.checkpoint), fit)
    check_records_unseen(str(args.checkpoint), test)
    check_patients_disjoint({} if test is fit else {"fit": _subjects(fit), "test": _subjects(test)})
    is_simulated = find_source(args.data, args.data_dir).is_simulated
    model.config.simulated_outcome |= "log_hazard" in fit.column_names or is_simulated
    before = _judge(model, test, args)
    outcome = outcome_of(fit)
    log_hazard = torch.from_numpy(predict_rows(model, fit, [args.horizon_years], args.batch_size)[0])
    log_hazard = log_hazard if model.config.num_risks > 1 else log_hazard[:, 0]
    slope = model.recalibrate(log_hazard, **outcome, method=args.method)
    metrics = {
        "task": "survival",
        "simulated_outcome": bool(model.config.simulated_outcome),
        "checkpoint": Path(str(args.checkpoint)).name,
        "method": args.method,
        "slope": slope,
        "judged_on": "held-out records" if args.test_folds else "the records it was fitted to: optimistic",
        "num_records": {"recalibration": len(fit), "judged": len(test)},
        "num_events": {"recalibration": _num_events(fit), "judged": _num_events(test)},
        "before": before,
        "after": _judge(model, test, args),
    }
    RunFolder(folder).finish(
        lambda staging: _write(staging, model, extractor, metrics, args, fit), Result("recalibration", metrics)
    )
    return metrics


def _load_survival(args: RecalibrateArguments) -> tuple[EcgDanForSurvival, Any]:
    """The checkpoint and its feature extractor."""
    for name in ("checkpoint", "data_dir"):
        if not getattr(args, name):
            raise ValueError(f"{name}: expected one, got none; give --{name.replace('_', '-')}")
    model: Any
    model, extractor = load_checkpoint(str(args.checkpoint))
    if not head_of(model).is_survival or not model.config.gives_risks:
        raise ValueError(f"{args.checkpoint}: expected a fine-tuned survival checkpoint, got {type(model).__name__}")
    return model, extractor


def _load_parts(args: RecalibrateArguments, extractor: Any) -> tuple[Any, Any]:
    """The records to fit to, and the test records, which are the same without `test_folds`."""
    from ecgdan_hf.data.loading import load

    fit_folds, test_folds = parse_folds(args.fit_folds, "fit_folds"), parse_folds(args.test_folds, "test_folds")
    if set(fit_folds or ()) & set(test_folds or ()) or (test_folds and not fit_folds):
        raise ValueError(
            f"fit_folds, test_folds: expected different folds, got {args.fit_folds} and {args.test_folds}"
        )
    for folds in (fit_folds, test_folds or fit_folds):
        check_unseen(str(args.checkpoint), folds, args.data_dir)
    names = ("limit", "num_proc", "cache_dir", "skip_bad", "ecgs_per_patient")
    options: dict[str, Any] = {name: getattr(args, name) for name in names}
    options |= {"outcomes": args.labels, "with_outcome": True}
    dataset = load(args.data, str(args.data_dir), feature_extractor=extractor, **options)
    fit = select_folds(dataset, fit_folds)
    return fit, select_folds(dataset, test_folds) if test_folds else fit


def _judge(model: Any, rows: Any, args: RecalibrateArguments) -> dict[str, Any]:
    """Observed over expected, slope and Brier score of the risks at the horizon."""
    years, followed = args.horizon_years, model.follow_up_years
    if not 0 < years <= followed:
        raise ValueError(
            f"horizon_years: expected at most {followed:g}, the follow-up the risks were fitted to, got {years:g}"
        )
    risk = predict_rows(model, rows, [years], args.batch_size)[1][:, 0, 0]
    table = columns_of(rows, [*OUTCOME, "patient_id"])
    truth = table["event"], FollowUp.time_of(table), risk, years
    if truth[1].ndim == 2:  # the measures below weight by the chance of censoring
        observed = 1 - float(FollowUp(*truth[:2]).free().at(years))
        return {"horizon_years": years, "predicted_risk": float(risk.mean()), "observed_risk": observed}
    judged = RiskCalibration(*truth, table["patient_id"].to_numpy())
    return {
        "horizon_years": years,
        "predicted_risk": float(risk.mean()),
        "observed_over_expected": judged.observed_over_expected().as_dict(),
        "calibration_slope": judged.slope().as_dict(),
        "brier_score": brier_score(*truth),
    }


def _num_events(rows: Any) -> int:
    return int(np.sum(np.equal(rows["event"], 1)))


def _write(
    staging: Path,
    model: EcgDanForSurvival,
    extractor: Any,
    metrics: dict[str, Any],
    args: RecalibrateArguments,
    fit: Any,
) -> None:
    """Checkpoint and report, into an existing folder."""
    model.save_pretrained(staging)
    extractor.save_pretrained(staging)
    SeenRecords.of({"train": fit}, args.checkpoint).write(staging)
    recipe = _recalibrated_recipe(args)
    (staging / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    (staging / "report.md").write_text(_report(metrics, args), encoding="utf-8")


def _recalibrated_recipe(args: RecalibrateArguments) -> dict[str, Any]:
    """The checkpoint's own recipe with the data of the recalibration, so that the leakage guard knows them."""
    recipe, names = recipe_of(str(args.checkpoint)) or {}, ("data", "data_dir", "labels", "fit_folds", "method")
    return {**recipe, "recalibrated_on": {name: getattr(args, name) for name in names}}


def _subjects(rows: Any) -> Any:
    """Record and patient ids of the rows."""
    return columns_of(rows, ["record_id", "patient_id"])


def _slope_text(slope: float | list[float]) -> str:
    return ", ".join(f"{each:.3f}" for each in (slope if isinstance(slope, list) else [slope]))


def _report(metrics: dict[str, Any], args: RecalibrateArguments) -> str:
    """Before and after, as Markdown."""
    records, events = metrics["num_records"], metrics["num_events"]
    lines = ["# Recalibration", ""]
    if metrics["simulated_outcome"]:
        lines += ["**The outcome is simulated: these numbers say nothing about patients.**", ""]
    lines += [
        f"{metrics['checkpoint']}, fitted to {records['recalibration']} records with {events['recalibration']} "
        f"events; method {metrics['method']}, slope {_slope_text(metrics['slope'])}. Judged on {records['judged']} "
        f"records with {events['judged']} events, {metrics['judged_on']}.",
        "",
        f"| risk within {args.horizon_years:g} years | before | after |",
        "|---|---|---|",
    ]
    for name in ("observed_over_expected", "calibration_slope"):
        if name not in metrics["before"]:
            continue
        cells = [metrics[when][name] for when in ("before", "after")]
        texts = [f"{cell['estimate']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})" for cell in cells]
        lines.append(f"| {name.replace('_', ' ')} (95 % interval) | {' | '.join(texts)} |")
    for name in ("predicted_risk", "observed_risk", "brier_score"):
        if name in metrics["before"]:
            values = f"{metrics['before'][name]:.4f} | {metrics['after'][name]:.4f}"
            lines.append(f"| {name.replace('_', ' ')} | {values} |")
    if "observed_risk" in metrics["before"]:
        lines += ["", "Some records entered late: slope and Brier score do not know delayed entry and are left out."]
    return "\n".join([*lines, "", "Research use only."]) + "\n"
