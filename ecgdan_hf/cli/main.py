"""`ecgdan VERB`: one function for each verb; whatever is heavy is imported inside it, so that `--help` is quick.

Exit codes: 0, 1 for a run that failed, 2 for bad usage or input; errors are one line on stderr (`ECGDAN_TRACEBACK=1`
shows the traceback). Research use only: nothing here is a clinical claim.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ecgdan_hf.cli.data import app as data_app
from ecgdan_hf.cli.output import say
from ecgdan_hf.evaluation.folds import parse_folds
from ecgdan_hf.files import check_output_file, check_output_folder, filled_folder, whole_file, write_text
from ecgdan_hf.training.arguments.command import run_safely, with_flags
from ecgdan_hf.training.arguments.fields import (
    AblateArguments,
    EvaluateArguments,
    FinetuneArguments,
    PretrainArguments,
    ProbeArguments,
    RecalibrateArguments,
    RunArguments,
    SanityArguments,
)

app = typer.Typer(
    name="ecgdan",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")


def _version(asked: bool) -> None:
    if asked:
        from ecgdan_hf import __version__

        say(f"ecgdan-hf {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="say it")] = False,
) -> None:
    """Dual attention networks for 12-lead ECG: pretrain, fine-tune, judge, predict, explain. Research use only."""


def pretrain(args: PretrainArguments) -> None:
    """Pretrain: reconstruction and alignment with SCP statements, or a waveform module under the rule of a disease.

    \b
    Example:
      ecgdan pretrain --config pretrain-rhythm --data-dir ptb-xl --output-dir runs/pretrained
      ecgdan pretrain --config pretrain-danet --data-dir ptb-xl --output-dir runs/danet-pretrained
    """
    _check_push(args)
    if args.task == "danet":
        from ecgdan_hf.training.pretrain_danet import pretrain_danet as run
    else:
        from ecgdan_hf.training.pretrain import pretrain as run
    metrics = run(args)
    say(f"{args.output_dir}: best epoch {metrics['best_epoch']}, " + _numbers(metrics["valid"]))
    _push_if_asked(args)


def finetune(args: FinetuneArguments) -> None:
    """Fine-tune for survival or classification, with a waveform module or without, from a checkpoint or from scratch.

    \b
    Example:
      ecgdan finetune --config finetune-survival --data ptb-xl --data-dir ptb-xl --labels outcomes.csv \\
        --train-folds 1-8 --test-folds 9 --checkpoint runs/pretrained --output-dir runs/survival
      ecgdan finetune --config finetune-danet --data-dir mit-bih --checkpoint runs/danet-pretrained \\
        --output-dir runs/danet
    """
    _check_push(args)
    if args.task == "danet":
        from ecgdan_hf.training.finetune_danet import finetune_danet as run
    else:
        from ecgdan_hf.training.finetune import finetune as run
    metrics = run(args)
    simulated = " (simulated outcome)" if metrics["simulated_outcome"] else ""
    for part in ("valid", "test"):
        if part in metrics:
            say(f"{args.output_dir}: {part}{simulated}: " + _headline(metrics[part]))
    _push_if_asked(args)


def probe(args: ProbeArguments) -> None:
    """Fit a linear model on a frozen encoder, beside the same on an untrained one; or classify by prompts alone.

    \b
    Example:
      ecgdan probe --checkpoint runs/pretrained --data ptb-xl --data-dir ptb-xl --train-folds 1-8 --test-folds 9 \\
        --output-dir runs/probe
      ecgdan probe --zero-shot --checkpoint runs/pretrained --data ptb-xl --data-dir ptb-xl --test-folds 9 \\
        --output-dir runs/zero-shot
    """
    if args.zero_shot:
        from ecgdan_hf.training.zero_shot_probe import zero_shot_probe as run
    elif args.label_fractions:
        from ecgdan_hf.training.studies.label_efficiency import label_efficiency as run
    else:
        from ecgdan_hf.training.linear_probe import linear_probe as run
    run(args)
    say((Path(str(args.output_dir)) / "report.md").read_text(encoding="utf-8"))


def ablate(args: AblateArguments) -> None:
    """Pretrain variants of a recipe, one thing changed at a time, and judge their encoders in one table.

    \b
    Example:
      ecgdan ablate --config ablation --data-dir ptb-xl --output-dir runs/ablation
    """
    from ecgdan_hf.training.studies.ablation import ablate as run

    run(args, say=say)
    say((Path(str(args.output_dir)) / "report.md").read_text(encoding="utf-8"))


def evaluate(args: EvaluateArguments) -> None:
    """Judge a checkpoint on held-out records, or a way of training in repeated cross-validation, beside controls.

    \b
    Example:
      ecgdan evaluate --checkpoint runs/survival --control "no pretraining=runs/scratch" --data ptb-xl \\
        --data-dir ptb-xl --labels outcomes.csv --train-folds 1-8 --test-folds 9 --output-dir runs/evaluation
      ecgdan evaluate --protocol repeated-cv --recipe finetune-survival --data csv --data-dir my-ecgs \\
        --output-dir runs/cross-validation
    """
    if args.protocol == "repeated-cv":
        _cross_validate(args)
        return
    from ecgdan_hf.evaluation.protocols.held_out import held_out
    from ecgdan_hf.evaluation.report.survival_report import write_held_out_report
    from ecgdan_hf.evaluation.report.tripod import read_author_statements
    from ecgdan_hf.evaluation.result import Result

    folder = check_output_folder(args.output_dir, args.overwrite, "metrics.json")
    load_rows, statements = _row_loader(args), read_author_statements(args.statements)
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
        measurements=_measurements(args) if args.measurements and args.train_folds else None,
    )
    result.metrics.update({"statements": statements} if statements else {})
    with filled_folder(folder, last="metrics.json") as staging:
        write_held_out_report(staging, result)
        Result("held-out", result.metrics).write(staging)
    say((folder / "report.md").read_text(encoding="utf-8"))


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


def recalibrate(args: RecalibrateArguments) -> None:
    """Fit a survival checkpoint's absolute risks to another population; its weights stay as they are.

    \b
    Example:
      ecgdan recalibrate --checkpoint runs/survival --method slope --data csv --data-dir their-ecgs \\
        --output-dir runs/survival-there
    """
    from ecgdan_hf.training.recalibration import recalibrate as run

    run(args)
    say((Path(str(args.output_dir)) / "report.md").read_text(encoding="utf-8"))


def sanity(args: SanityArguments) -> None:
    """Test whether maps say what the network uses: delete what they point at, and compare them with random networks'.

    \b
    Example:
      ecgdan sanity --checkpoint runs/rhythm --data ptb-xl --data-dir ptb-xl --test-folds 9 \\
        --control "shuffled labels=runs/shuffled" --output-dir runs/sanity
    """
    from ecgdan_hf.evaluation.result import Result
    from ecgdan_hf.explain.checks.sanity import check_maps
    from ecgdan_hf.explain.checks.sanity_report import write_sanity_report
    from ecgdan_hf.training.core.run_folder import finish_run

    folder = check_output_folder(args.output_dir, args.overwrite, "metrics.json")
    load_rows = _row_loader(replace(args, limit=None))  # of the test folds, not of the file's first records
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
    finish_run(
        folder,
        lambda staging: write_sanity_report(staging, metrics, Path(str(args.checkpoint)).name),
        Result("sanity", metrics),
    )
    say((folder / "report.md").read_text(encoding="utf-8"))


for verb, kind in (
    (pretrain, PretrainArguments),
    (finetune, FinetuneArguments),
    (probe, ProbeArguments),
    (ablate, AblateArguments),
    (evaluate, EvaluateArguments),
    (recalibrate, RecalibrateArguments),
    (sanity, SanityArguments),
):
    app.command(verb.__name__)(with_flags(kind, verb, str(verb.__doc__)))

SamplingRate = Annotated[float | None, typer.Option(help="Hz, for files that do not say it")]
Unit = Annotated[str | None, typer.Option(help="mV, uV or V, for files that do not say it")]
LeadNames = Annotated[str | None, typer.Option(help="such as I,II,V1, for files that do not say them")]


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(help="ECG files and folders of them")],
    checkpoint: Annotated[str, typer.Option(help="checkpoint folder, or USER/NAME or USER/NAME@REVISION on the Hub")],
    out: Annotated[Path, typer.Option(help="CSV to write, one row for each file")],
    covariates: Annotated[Path | None, typer.Option(help="CSV with file and the model's covariates")] = None,
    sampling_rate: SamplingRate = None,
    unit: Unit = None,
    lead_names: LeadNames = None,
    batch_size: Annotated[int, typer.Option(help="ECGs per forward pass")] = 32,
    strict: Annotated[bool, typer.Option(help="fail, after writing the others, if a file cannot be used")] = False,
) -> None:
    """Predict for ECG files: log hazard, risk at 1, 5 and 10 years (or label probabilities), quality flags.

    A file that cannot be used has a row that says why; the others go on.

    \b
    Example:
      ecgdan predict ptb-xl/records500/00000 --checkpoint runs/survival --out predictions.csv
    """
    import pandas as pd

    from ecgdan_hf.inference.checkpoints import load_checkpoint
    from ecgdan_hf.inference.predict import predict as predict_files

    check_output_file(out)
    table = None if covariates is None else pd.read_csv(covariates)
    model, feature_extractor = load_checkpoint(checkpoint)
    options = _read_options(sampling_rate, unit, lead_names)
    rows = predict_files(
        paths, model, feature_extractor, batch_size, covariates=table, read_options=options, progress=True
    )
    write_text(out, rows.to_csv(index=False))
    bad = int((rows["error"] != "").sum())
    say(f"{out}: {len(rows)} files" + (f", {bad} could not be used, see the column error" if bad else ""))
    if bad == len(rows) or (strict and bad):
        first = rows["error"][rows["error"] != ""].iloc[0]
        raise ValueError(f"{out}: {bad} of {len(rows)} files could not be used; the first: {first}")


@app.command()
def explain(
    file: Annotated[Path, typer.Argument(help="ECG file")],
    checkpoint: Annotated[str, typer.Option(help="checkpoint folder, or USER/NAME or USER/NAME@REVISION on the Hub")],
    out: Annotated[Path, typer.Option(help="figure to write: png, pdf or svg")],
    sampling_rate: SamplingRate = None,
    unit: Unit = None,
    lead_names: LeadNames = None,
    start_seconds: Annotated[float, typer.Option(help="where to begin in a long recording")] = 0.0,
    seconds: Annotated[float | None, typer.Option(help="how much to read; default: to the end")] = None,
    method: Annotated[
        str | None, typer.Option(help="attention (default), rollup, gradient, integrated-gradients or occlusion")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="label a method other than attention explains; default: the one predicted first")
    ] = None,
) -> None:
    """Draw one page: the ECG coloured by what matters to the network, the leads, the risk curve or the labels.

    Of a DANet checkpoint: the ECG as its waveform module amends it, a(t), and the beats of an `.atr` file beside FILE.
    Beneath stands what `ecgdan sanity` found of such maps, if its result lies in CHECKPOINT/sanity or in a bundle.

    \b
    Example:
      ecgdan explain ptb-xl/records500/00000/00001_hr --checkpoint runs/survival --out figure.png
      ecgdan explain my.xml --checkpoint runs/rhythm --method integrated-gradients --label MI --out figure.png
      ecgdan explain mit-bih/209 --start-seconds 143 --seconds 10 --checkpoint runs/danet --out figure.png
    """
    from ecgdan_hf.data.formats import read
    from ecgdan_hf.explain.checks.sanity_report import map_findings, sanity_of
    from ecgdan_hf.explain.maps.methods import methods_of
    from ecgdan_hf.explain.page.figures import explain_page
    from ecgdan_hf.explain.page.waveform_figure import read_beats, waveform_page
    from ecgdan_hf.inference.checkpoints import load_checkpoint

    check_output_file(out, (".png", ".pdf", ".svg"))
    options = _read_options(sampling_rate, unit, lead_names)
    record = read(file, **options, start_seconds=start_seconds, seconds=seconds)
    model, feature_extractor = load_checkpoint(checkpoint)
    name, tested = Path(checkpoint).name, sanity_of(checkpoint)
    if "waveform" not in methods_of(model) or method or label:
        method = method or "attention"
        findings, options = map_findings(tested, method), {"method": method, "label": label}
        figure = explain_page(record, model, feature_extractor, checkpoint=name, findings=findings, **options)
    else:
        findings = map_findings(tested, "waveform")
        figure = waveform_page(record, model, feature_extractor, read_beats(file), name, start_seconds, findings)
    with whole_file(out) as part:
        figure.savefig(part, dpi=150)
    say(str(out))


@app.command()
def demo(
    output_dir: Annotated[Path, typer.Option(help="folder for cohort, model and report")] = Path("ecgdan-demo"),
    n: Annotated[int, typer.Option(help="number of synthetic ECGs")] = 600,
    seed: Annotated[int, typer.Option(help="of cohort and training; the recipe was chosen on 0")] = 1,
    overwrite: Annotated[bool, typer.Option(help="replace an earlier demo in the folder")] = False,
) -> None:
    """The whole story on synthetic ECGs with simulated follow-up, in a few minutes, without any download.

    \b
    Example:
      ecgdan demo --output-dir ecgdan-demo
    """
    from ecgdan_hf.cli.demo import run

    run(output_dir, n=n, seed=seed, overwrite=overwrite, say=say)


@app.command()
def bundle(
    checkpoint_dir: Annotated[Path, typer.Argument(help="checkpoint folder")],
    out_dir: Annotated[Path, typer.Argument(help="new folder, or an earlier bundle")],
    name: Annotated[str | None, typer.Option(help="title of the model card; default: the folder's name")] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="folder of a further evaluation, for the card; repeatable")
    ] = None,
    dataset_id: Annotated[
        str | None, typer.Option(help="OWNER/NAME of the data on the Hub, for the card's metadata")
    ] = None,
    power_watts: Annotated[
        float | None, typer.Option(help="power of the hardware training kept busy, to estimate energy and carbon")
    ] = None,
    grid_gco2_per_kwh: Annotated[
        float, typer.Option(help="carbon intensity of the electricity; default: the world's mean of 2018")
    ] = 475.0,
    contact: Annotated[
        str | None, typer.Option(help="whom to write to, for the card; default: the repository's Community tab")
    ] = None,
    training_data: Annotated[
        str | None,
        typer.Option(help="what it was trained on, in a sentence for the card; known sources say it themselves"),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="OWNER/NAME on the Hub of the checkpoint it was fine-tuned from")
    ] = None,
) -> None:
    """Make the folder for the Hub: weights, code and card; it loads without this package.

    \b
    Example:
      ecgdan bundle runs/survival bundles/ecg-dan-survival --results runs/evaluation --results runs/sanity
    """
    from ecgdan_hf.publish.bundle import bundle as make_bundle
    from ecgdan_hf.publish.card.checks import missing_parts

    carbon: dict[str, Any] = {"power_watts": power_watts, "grid_gco2_per_kwh": grid_gco2_per_kwh}
    said = {"contact": contact, "training_data": training_data, "base_model": base_model}
    out = make_bundle(checkpoint_dir, out_dir, name, dataset_id, results or (), **carbon, **said)
    say(f"{out}: loads in a clean process with the same outputs")
    for part in missing_parts((out / "README.md").read_text(encoding="utf-8")):
        say(f"{out / 'README.md'}: to be made public it needs {part}")


@app.command()
def push(
    bundle_dir: Annotated[Path, typer.Argument(help="folder made by `ecgdan bundle`")],
    repository: Annotated[str, typer.Argument(help="USER/NAME")],
    private: Annotated[bool, typer.Option(help="make a new repository private")] = False,
    revision: Annotated[str | None, typer.Option(help="branch to upload to, made if needed; default: main")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="open a pull request instead")] = False,
    message: Annotated[str, typer.Option(help="of the commit")] = "Upload model",
) -> None:
    """Upload a bundle to the Hub, after it has proved that it loads; the answer pins the version that was uploaded.

    The answer ends in USER/NAME@COMMIT, which every --checkpoint takes: the version that was uploaded, for good.

    \b
    Example:
      ecgdan push bundles/ecg-dan-survival USER/ecg-dan-survival --private
    """
    from ecgdan_hf.publish.push import push as upload

    commit = upload(bundle_dir, repository, private, message, revision, create_pr)
    say(f"{commit.pr_url or commit.repo_url}: {repository}@{commit.oid}")


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="checkpoint folder or Hub name")],
    out: Annotated[Path, typer.Argument(help="file to write, such as model.onnx")],
    int8: Annotated[bool, typer.Option(help="8-bit weights: a third of the size, and another answer")] = False,
) -> None:
    """Write a checkpoint as ONNX, after onnxruntime has answered from it as the network does.

    The file takes what the feature extractor makes of a recording; its settings, the labels, the rate and the leads
    are in the file's metadata.

    \b
    Example:
      ecgdan export model_cards/ecg-dan-rhythm-superclasses superclasses.onnx
    """
    from ecgdan_hf.publish.export import export as write_onnx

    check_output_file(out, (".onnx",), option="out")
    found = write_onnx(checkpoint, out, int8=int8)
    outputs = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in found.outputs.items())
    say(f"{out}: {found.num_bytes / 1e6:.2f} MB: {outputs}; largest difference {found.largest_difference:.1g}")


def _row_loader(args: EvaluateArguments | SanityArguments) -> Any:
    """Feature extractor -> rows, for a verb that judges a checkpoint; refuses one that names no checkpoint or data."""
    from ecgdan_hf.data.loading import load
    from ecgdan_hf.inference.checkpoints import load_config
    from ecgdan_hf.inference.heads import head_of, label_names

    if not args.checkpoint or not args.data_dir:
        missing = "checkpoint" if not args.checkpoint else "data_dir"
        raise ValueError(f"{missing}: expected one, got none; give --{missing.replace('_', '-')}")
    options: dict[str, Any] = {name: getattr(args, name) for name in ("limit", "num_proc", "cache_dir", "skip_bad")}
    if args.label_level:
        options["label_level"] = args.label_level
    config = load_config(str(args.checkpoint))
    head = head_of(config)
    if isinstance(args, EvaluateArguments) and head.is_classifier:
        options["keep_labels"] = label_names(config)
    options |= {"outcomes": args.labels, "with_outcome": head.is_survival and isinstance(args, EvaluateArguments)}
    return lambda extractor: load(args.data, args.data_dir, feature_extractor=extractor, **options)


def _measurements(args: EvaluateArguments) -> Any:
    """ECG measurements of a survival cohort; None for labels, which are not compared with them."""
    from ecgdan_hf.data.measure.table import measure_table
    from ecgdan_hf.data.sources.registry import read_source
    from ecgdan_hf.inference.checkpoints import load_config
    from ecgdan_hf.inference.heads import head_of

    if not head_of(load_config(str(args.checkpoint))).is_survival:
        return None
    table = read_source(args.data, str(args.data_dir)).iloc[: args.limit]
    return measure_table(table, num_proc=args.num_proc, cache_dir=args.cache_dir)


def _check_push(args: RunArguments) -> None:
    """Refuses before hours of training what would fail after them."""
    if args.push_to_hub:
        from ecgdan_hf.publish.push import check_login

        check_login(args.push_to_hub)


def _push_if_asked(args: RunArguments) -> None:
    if args.push_to_hub:
        from ecgdan_hf.publish.push import push_checkpoint

        commit = push_checkpoint(str(args.output_dir), args.push_to_hub)
        say(f"{commit.repo_url}: {args.push_to_hub}@{commit.oid}")


def _read_options(sampling_rate: float | None, unit: str | None, lead_names: str | None) -> dict[str, Any]:
    names = None if lead_names is None else [name.strip() for name in lead_names.split(",")]
    given = {"sampling_rate": sampling_rate, "unit": unit, "lead_names": names}
    return {name: value for name, value in given.items() if value is not None}


def _headline(metrics: dict[str, Any]) -> str:
    """C-index or AUROC with its interval, in words."""
    for name, words in (("concordance_index", "C-index"), ("macro_auroc", "macro AUROC")):
        if name in metrics:
            found = metrics[name]
            text = f"{words} {found['estimate']:.3f} (95 % interval {found['low']:.3f} to {found['high']:.3f})"
            events = f", {metrics['num_events']} events" if "num_events" in metrics else ""
            best = metrics.get("attainable_concordance_index")
            return f"{text}, {metrics['num_records']} records{events}" + (f", attainable {best:.3f}" if best else "")
    return str(metrics.get("not_estimable", metrics))


def _numbers(metrics: dict[str, Any]) -> str:
    wanted = ("reconstruction_loss", "alignment_loss", "superclass_loss", "recall", "waveform_loss", "macro_auroc")
    wanted = wanted if set(wanted) & set(metrics) else ("loss",)
    return ", ".join(f"{name} {metrics[name]:.4f}" for name in wanted if name in metrics)


def main() -> None:
    """Entry point of `ecgdan`."""
    sys.exit(run_safely(app))


if __name__ == "__main__":
    main()
