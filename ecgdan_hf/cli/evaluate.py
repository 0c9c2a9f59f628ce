"""Verbs that evaluate a checkpoint: `ecgdan evaluate` its predictions, `ecgdan sanity` its explanations."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ecgdan_hf.cli.output import say
from ecgdan_hf.cli.train import show_report
from ecgdan_hf.evaluation.folds import parse_folds
from ecgdan_hf.files import check_output_folder, filled_folder
from ecgdan_hf.training.arguments.command import with_flags
from ecgdan_hf.training.arguments.fields import EvaluateArguments, SanityArguments


def _evaluate(args: EvaluateArguments) -> None:
    """Evaluate a checkpoint on held-out records, or a recipe in repeated cross-validation, against controls.

    \b
    Example:
      ecgdan evaluate --checkpoint runs/survival --control "no pretraining=runs/scratch" --data ptb-xl \\
        --data-dir ptb-xl --labels outcomes.csv --train-folds 1-8 --test-folds 9 --output-dir runs/evaluation
      ecgdan evaluate --protocol repeated-cv --recipe finetune-survival --data csv --data-dir my-ecgs \\
        --output-dir runs/cross-validation
    """
    if args.protocol == "repeated-cv":
        _cross_validate(args)
    else:
        _hold_out(args)


def _hold_out(args: EvaluateArguments) -> None:
    from ecgdan_hf.evaluation.protocols.held_out import held_out
    from ecgdan_hf.evaluation.report.survival_report import write_held_out_report
    from ecgdan_hf.evaluation.report.tripod import read_author_statements
    from ecgdan_hf.evaluation.result import Result
    from ecgdan_hf.evaluation.small_cells import without_small_cells

    folder = check_output_folder(args.output_dir, args.overwrite, "metrics.json")
    load_rows, statements = _row_loader(args, as_task=True), read_author_statements(args.statements)
    checkpoints = {
        Path(str(args.checkpoint)).name: str(args.checkpoint),
        **{name: str(path) for name, path in args.control.items()},
    }
    if len(checkpoints) != 1 + len(args.control):
        raise ValueError(f"control: expected names other than the checkpoint's, got {list(args.control)}")
    result = held_out(
        checkpoints,
        load_rows,
        parse_folds(args.test_folds, "test_folds"),
        parse_folds(args.train_folds, "train_folds"),
        with_random_encoder=args.random_encoder,
        data_dir=args.data_dir,
        batch_size=args.batch_size,
        n=args.bootstrap,
        seed=args.seed,
        measurements=_measured(args, args.data, str(args.data_dir)),
        load_controls=_row_loader(_of_controls(args), as_task=True) if args.controls_from else None,
        control_measurements=_measured(args, None, args.controls_from) if args.controls_from else None,
        thresholds=_thresholds(args.risk_thresholds),
        score_columns=[name.strip() for name in (args.scores or "").split(",") if name.strip()],
    )
    result.metrics.update({"statements": statements} if statements else {})
    if args.small_cells:
        result = replace(result, metrics=without_small_cells(result.metrics, args.small_cells))
    with filled_folder(folder, last="metrics.json") as staging:
        write_held_out_report(staging, result)
        Result("held-out", result.metrics).write(staging)
    show_report(folder)


def _thresholds(text: str) -> list[float]:
    """Risks at which decisions are evaluated, from `0.05,0.1`; none from an empty text."""
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = [0.0]
    if not all(0 < value < 1 for value in found):
        raise ValueError(f"risk_thresholds: expected probabilities such as 0.05,0.1, got {text!r}")
    return found


def _of_controls(args: EvaluateArguments) -> EvaluateArguments:
    """The arguments with the data that the controls are fitted on, whose outcomes stand in their own table."""
    if Path(str(args.controls_from)).resolve() == Path(str(args.data_dir)).resolve():
        raise ValueError(
            f"controls_from: expected another folder than data_dir, got {args.controls_from} twice; choose folds of "
            "it with train_folds and test_folds"
        )
    return replace(args, data=None, data_dir=args.controls_from, labels=None)


def _measured(args: EvaluateArguments, source: str | None, folder: str) -> Any:
    """Measurements of the ECGs in a folder; None without controls, and for a classifier, which needs none."""
    from ecgdan_hf.data.measure.table import measure_table
    from ecgdan_hf.data.sources.registry import read_source
    from ecgdan_hf.inference.checkpoints import load_config
    from ecgdan_hf.inference.heads import head_of

    has_controls = args.train_folds or args.controls_from
    if not args.measurements or not has_controls or not head_of(load_config(str(args.checkpoint))).is_survival:
        return None
    files = read_source(source, folder).iloc[: args.limit]
    return measure_table(files, num_proc=args.num_proc, cache_dir=args.cache_dir)


def _cross_validate(args: EvaluateArguments) -> None:
    from ecgdan_hf.training.studies.cross_validation import cross_validate

    metrics = cross_validate(args, say=say)
    simulated = ", simulated outcome" if metrics["simulated_outcome"] else ""
    for name, found in metrics["models"].items():
        index, ahead = found["concordance_index"], found.get("ahead")
        lead = f"; the first is ahead by {ahead['estimate']:+.3f} ({_limits(ahead, '+.3f')})" if ahead else ""
        say(f"{name}: C-index{simulated} {index['estimate']:.3f} (95 % interval {_limits(index, '.3f')}){lead}")
    say(f"{Path(str(args.output_dir)) / 'report.html'}: the page")


def _limits(interval: dict[str, float], form: str) -> str:
    return f"{interval['low']:{form}} to {interval['high']:{form}}"


def _sanity(args: SanityArguments) -> None:
    """Sanity-check the maps of a network: delete what they highlight, and compare with those of random weights.

    \b
    Example:
      ecgdan sanity --checkpoint runs/rhythm --data ptb-xl --data-dir ptb-xl --test-folds 9 \\
        --control "shuffled labels=runs/shuffled" --output-dir runs/sanity
    """
    from ecgdan_hf.evaluation.result import Result
    from ecgdan_hf.explain.checks.sanity import check_maps
    from ecgdan_hf.explain.checks.sanity_report import write_sanity_report
    from ecgdan_hf.training.core.run_folder import RunFolder

    folder = check_output_folder(args.output_dir, args.overwrite, "metrics.json")
    load_rows = _row_loader(
        replace(args, limit=None), as_task=False
    )  # of the test folds, not of the file's first records
    metrics = check_maps(
        str(args.checkpoint),
        load_rows,
        parse_folds(args.test_folds, "test_folds"),
        data_dir=args.data_dir,
        draws=args.draws,
        time_steps=args.time_steps,
        batch_size=args.batch_size,
        n=args.bootstrap,
        seed=args.seed,
        methods=[name.strip() for name in args.methods.split(",")] if args.methods else None,
        controls={name: str(path) for name, path in args.control.items()},
        map_records=args.map_records,
        map_draws=args.map_draws,
        limit=args.limit,
    )
    RunFolder(folder).finish(
        lambda staging: write_sanity_report(staging, metrics, Path(str(args.checkpoint)).name),
        Result("sanity", metrics),
    )
    show_report(folder)


def _row_loader(args: EvaluateArguments | SanityArguments, as_task: bool) -> Callable[[Any], Any]:
    """Returns the loader of the rows that a verb evaluates a checkpoint on.

    With `as_task` it loads the checkpoint's own labels, or the records with an outcome.
    """
    from ecgdan_hf.data.loading import load
    from ecgdan_hf.inference.checkpoints import load_config
    from ecgdan_hf.inference.heads import head_of

    for name in ("checkpoint", "data_dir"):
        if not getattr(args, name):
            raise ValueError(f"{name}: expected one, got none; give --{name.replace('_', '-')}")
    config = load_config(str(args.checkpoint))
    head = head_of(config)
    options = {name: getattr(args, name) for name in ("limit", "num_proc", "cache_dir", "skip_bad")}
    options |= {"label_level": args.label_level} if args.label_level else {}
    options |= {"keep_labels": config.label_names} if as_task and head.is_classifier else {}
    options |= {"outcomes": args.labels, "with_outcome": as_task and head.is_survival}
    options |= {"ecgs_per_patient": getattr(args, "ecgs_per_patient", "all")}
    return lambda extractor: load(args.data, str(args.data_dir), feature_extractor=extractor, **options)


VERBS: dict[str, Callable[..., None]] = {
    "evaluate": with_flags(EvaluateArguments, _evaluate),
    "sanity": with_flags(SanityArguments, _sanity),
}
