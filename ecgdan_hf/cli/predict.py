"""Verbs that apply a checkpoint to ECG files: `ecgdan predict` and `ecgdan explain`."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecgdan_hf.cli.output import say, say_rows
from ecgdan_hf.files import check_output_file, whole_file

if TYPE_CHECKING:
    import pandas as pd

    from ecgdan_hf.data.prepared.record_file import Recording
    from ecgdan_hf.inference.archive import RowMaker

SamplingRate = Annotated[float | None, typer.Option(help="sampling rate in Hz, for files that do not state it")]
Unit = Annotated[str | None, typer.Option(help="unit of the signal: mV, uV or V, for files that do not state it")]
LeadNames = Annotated[str | None, typer.Option(help="lead names such as I,II,V1, for files that do not state them")]
CovariateTable = Annotated[
    Path | None, typer.Option(help="CSV with file or record_id, and the covariates that the model was trained with")
]
MissingCovariates = Annotated[
    str, typer.Option(help="a covariate that is unknown: refuse (an error), or mean (of the training; flagged)")
]
NumWorkers = Annotated[
    int | None, typer.Option(help="processes that read files [default: one per core for 64 files or more, else 0]")
]
Data = Annotated[
    str | None,
    typer.Option(help="source of the records of a folder, such as code-15, whose files hold many; see docs/data.md"),
]
Engine = Annotated[
    str, typer.Option(help="local, or ray: all machines of the Ray cluster of RAY_ADDRESS, which share the files")
]
Resume = Annotated[bool, typer.Option(help="go on with an interrupted run that wrote to the same --out")]
Shard = Annotated[str | None, typer.Option(help="i/n: every n-th file from the i-th, for n jobs with an --out each")]


def _predict(
    paths: Annotated[list[Path], typer.Argument(help="ECG files, or folders of them")],
    checkpoint: Annotated[
        str, typer.Option(help="checkpoint folder, USER/NAME or USER/NAME@REVISION on the Hub, or .onnx")
    ],
    out: Annotated[Path, typer.Option(help="table to write, one row for each file: .csv or .parquet")],
    covariates: CovariateTable = None,
    missing_covariates: MissingCovariates = "refuse",
    sampling_rate: SamplingRate = None,
    unit: Unit = None,
    lead_names: LeadNames = None,
    data: Data = None,
    embeddings: Annotated[
        bool, typer.Option(help="write the encoder's embedding of each ECG instead of what the head predicts")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="ECGs per forward pass")] = 32,
    num_workers: NumWorkers = None,
    device: Annotated[str, typer.Option(help="where the network runs: auto, cpu, cuda, cuda:1, mps")] = "auto",
    window: Annotated[
        float | None,
        typer.Option(
            help="judge all of a recording, in windows of so many s; 0: its middle [default: the checkpoint's]"
        ),
    ] = None,
    step: Annotated[float | None, typer.Option(help="seconds from one window to the next [default: --window]")] = None,
    rule: Annotated[str, typer.Option(help="one number of all windows: mean, max, or share above threshold")] = "max",
    resume: Resume = False,
    shard: Shard = None,
    engine: Engine = "local",
    strict: Annotated[bool, typer.Option(help="exit with code 2 if any file cannot be used")] = False,
) -> None:
    """Predict for ECG files: log hazard and risk at 1, 5 and 10 years, or label probabilities; and quality flags.

    A file that cannot be used gets a row with the reason; the other files are still predicted. Rows are on disk after
    every batch, so a run that was killed goes on with --resume.

    \b
    Example:
      ecgdan predict ptb-xl/records500/00000 --checkpoint runs/survival --out predictions.csv
      ecgdan predict archive --checkpoint runs/survival --out part-3.parquet --shard 3/8 --resume
      ecgdan predict archive --checkpoint runs/pretrained --out embeddings.parquet --embeddings
      ecgdan predict code15 --data code-15 --checkpoint runs/survival --out predictions.parquet
      ecgdan predict holter --checkpoint model_cards/danet-apc --out episodes.csv --window 10 --step 10
    """
    from ecgdan_hf.inference.archive import SUFFIXES, shard_of
    from ecgdan_hf.inference.lite import SUFFIX, LitePredictor
    from ecgdan_hf.inference.on_ray import device_on, workers_on

    check_output_file(out, SUFFIXES)
    device = device_on(engine, device)
    options = read_options(sampling_rate, unit, lead_names)
    recordings, known = recordings_of(paths, data)
    files, table = shard_of(recordings, shard), known if covariates is None else _covariate_table(covariates)
    workers = workers_on(engine, num_workers, len(files))
    if checkpoint.endswith(SUFFIX):
        if window or step is not None or device not in ("auto", "cpu") or embeddings:
            raise ValueError(
                "window, step, device, embeddings: an ONNX file predicts for whole records on the CPU; give its "
                "checkpoint"
            )
        lite = LitePredictor(Path(checkpoint), table, options, missing_covariates, batch_size, workers)
        return write_rows(lite, files, out, resume, data, engine, strict)

    if find_spec("torch") is None:
        raise ValueError(
            f"checkpoint: {checkpoint} needs torch, which is not installed; give the .onnx file that ecgdan export "
            "makes of it where torch is, or pip install ecgdan-hf"
        )
    from ecgdan_hf.inference.checkpoints import load_checkpoint, place
    from ecgdan_hf.inference.predict import Predictor, encoder_of
    from ecgdan_hf.inference.windows import Windows

    model, feature_extractor = load_checkpoint(checkpoint)
    model = encoder_of(model) if embeddings else model
    windows: Any = "checkpoint" if window is None else None
    if window:
        windows = Windows(window, window if step is None else step, rule)
    predictor = Predictor(
        place(model, device), feature_extractor, table, options, missing_covariates, batch_size, workers, windows
    )
    write_rows(predictor, files, out, resume, data, engine, strict)


def recordings_of(paths: "list[Path]", data: str | None) -> "tuple[Sequence[Recording], pd.DataFrame | None]":
    """The files, or the records of a source and its table."""
    if data is None:
        from ecgdan_hf.data.sources.ecg_folder import expand_files

        return expand_files(paths), None
    from ecgdan_hf.data.prepared.record_file import RecordFile
    from ecgdan_hf.inference.source_rows import source_table

    table = source_table(data, paths)
    return RecordFile.of_table(table), table.drop(columns="file")  # rows belong to records, not to files


def write_rows(
    maker: "RowMaker",
    files: "Sequence[Recording]",
    out: Path,
    resume: bool,
    data: str | None,
    engine: str,
    strict: bool = False,
) -> None:
    """Writes the table, on one machine or many, and says what became of it."""
    from ecgdan_hf.inference.archive import rows_to_file
    from ecgdan_hf.inference.on_ray import on_engine
    from ecgdan_hf.inference.source_rows import WithRecordIds

    maker = on_engine(engine, maker)
    say_rows(rows_to_file(maker if data is None else WithRecordIds(maker), files, out, resume, progress=True), strict)


def _explain(
    file: Annotated[Path, typer.Argument(help="ECG file")],
    checkpoint: Annotated[str, typer.Option(help="checkpoint folder, or USER/NAME or USER/NAME@REVISION on the Hub")],
    out: Annotated[Path, typer.Option(help="figure to write: png, pdf or svg")],
    sampling_rate: SamplingRate = None,
    unit: Unit = None,
    lead_names: LeadNames = None,
    start_seconds: Annotated[float, typer.Option(help="start in a long recording, in seconds")] = 0.0,
    seconds: Annotated[float | None, typer.Option(help="duration to read; default: to the end")] = None,
    method: Annotated[
        str | None, typer.Option(help="attention (default), rollup, gradient, integrated-gradients or occlusion")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="label to explain, for methods other than attention; default: the most probable")
    ] = None,
    covariates: CovariateTable = None,
    missing_covariates: MissingCovariates = "refuse",
    layout: Annotated[str, typer.Option(help="of twelve leads: 3x4 with a rhythm strip, 6x2, or 12x1")] = "3x4",
) -> None:
    """Draw one page: the ECG over bands of importance, a map of the leads, and the risk curve or label probabilities.

    For a DANet checkpoint: the output a(t) of its waveform module, and the beats of an `.atr` file next to FILE.
    A footer quotes the results of `ecgdan sanity`, if they are in CHECKPOINT/sanity or in the bundle.

    \b
    Example:
      ecgdan explain ptb-xl/records500/00000/00001_hr --checkpoint runs/survival --out figure.png
      ecgdan explain my.xml --checkpoint runs/rhythm --method integrated-gradients --label MI --out figure.png
      ecgdan explain mit-bih/209 --start-seconds 143 --seconds 10 --checkpoint runs/danet --out figure.png
    """
    from ecgdan_hf.data.formats import read
    from ecgdan_hf.explain.checks.sanity_report import map_findings
    from ecgdan_hf.explain.maps.methods import methods_of
    from ecgdan_hf.explain.page.figures import explain_page
    from ecgdan_hf.explain.page.paper import save_figure
    from ecgdan_hf.explain.page.waveform_figure import read_beats, waveform_page
    from ecgdan_hf.inference.checkpoints import load_checkpoint
    from ecgdan_hf.inference.covariates import FileCovariates

    check_output_file(out, (".png", ".pdf", ".svg"))
    options = read_options(sampling_rate, unit, lead_names)
    record = read(file, **options, start_seconds=start_seconds, seconds=seconds)
    network, feature_extractor = load_checkpoint(checkpoint)
    model: Any = network  # a DANet where the maps of a waveform module exist
    name = Path(checkpoint).name
    if "waveform" not in methods_of(model) or method or label:
        method = method or "attention"
        known = FileCovariates(model.config, _covariate_table(covariates), missing_covariates)
        known.check_some_match([file])
        findings, options = map_findings(checkpoint, method), {"method": method, "label": label}
        options |= {"covariates": known.of(file, record)[0], "layout": layout}
        figure = explain_page(record, model, feature_extractor, checkpoint=name, findings=findings, **options)
    else:
        findings = map_findings(checkpoint, "waveform")
        figure = waveform_page(record, model, feature_extractor, read_beats(file), name, start_seconds, findings)
    with whole_file(out) as part:
        save_figure(figure, part)
    say(str(out))


def _covariate_table(path: Path | None) -> Any:
    """Reads a table of covariates, ids as text; None without one."""
    if path is None:
        return None
    from ecgdan_hf.data.sources.hospital_tables import read_hospital_table

    return read_hospital_table(path)


def read_options(sampling_rate: float | None, unit: str | None, lead_names: str | None) -> dict[str, Any]:
    """Returns those that are given, as options of `formats.read`."""
    names = None if lead_names is None else [name.strip() for name in lead_names.split(",")]
    given = {"sampling_rate": sampling_rate, "unit": unit, "lead_names": names}
    return {name: value for name, value in given.items() if value is not None}


VERBS: dict[str, Callable[..., None]] = {"predict": _predict, "explain": _explain}
