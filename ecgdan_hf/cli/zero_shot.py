"""The verb `ecgdan zero-shot`: questions in words about ECG files."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecgdan_hf.cli.output import say
from ecgdan_hf.cli.predict import LeadNames, SamplingRate, Unit, read_options
from ecgdan_hf.files import check_output_file, write_text

if TYPE_CHECKING:
    import pandas as pd

_RESEARCH_USE = "Research use only: no diagnosis."
_AS_TRAINED = (
    "The network's probabilities are as trained and read high for rare findings; --calibrate-on or --prevalence "
    "calibrates them."
)


def _zero_shot(
    paths: Annotated[list[Path], typer.Argument(help="ECG files, or folders of them")],
    prompt: Annotated[list[str], typer.Option(help="a label, its name, or free text; may be repeated")],
    checkpoint: Annotated[str, typer.Option(help="checkpoint folder, or USER/NAME or USER/NAME@REVISION on the Hub")],
    text_model: Annotated[
        str | None,
        typer.Option(
            help="language model of pretraining: a name, a folder, minilm, or none; default the checkpoint's"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write, one row for each file and prompt")] = None,
    calibrate_on: Annotated[
        Path | None, typer.Option(help="labelled records to calibrate on: a CSV, or the folder of a source")
    ] = None,
    calibrate_folds: Annotated[str | None, typer.Option(help="folds of these records, such as 9 or 1-8")] = None,
    prevalence: Annotated[
        list[float] | None, typer.Option(help="share of records of which a prompt is true: one, or one for each")
    ] = None,
    min_odds_ratio: Annotated[
        float, typer.Option(help="no answer with less evidence than this ratio of odds; 1 answers always")
    ] = 2.0,
    sampling_rate: SamplingRate = None,
    unit: Unit = None,
    lead_names: LeadNames = None,
    batch_size: Annotated[int, typer.Option(help="ECGs per forward pass")] = 32,
    strict: Annotated[bool, typer.Option(help="exit with code 2 if any file cannot be used")] = False,
) -> None:
    """Answer questions in words about ECG files, by measurement and network, and say what each answer rests on.

    What can be measured is measured: "wide QRS and no P wave" needs no label. One file is answered on the terminal;
    several need --out.

    \b
    Example:
      ecgdan zero-shot my.xml --prompt "wide QRS and no P wave" --prompt SBRAD --checkpoint model_cards/ecg-dan-rhythm
      ecgdan zero-shot new-ecgs --prompt "atrial flutter" --prevalence 0.02 --checkpoint model_cards/ecg-dan-rhythm \\
        --out answers.csv
    """
    from ecgdan_hf.data.sources.ecg_folder import expand_files
    from ecgdan_hf.evaluation.folds import check_unseen, parse_folds
    from ecgdan_hf.inference.checkpoints import load_checkpoint
    from ecgdan_hf.inference.zero_shot import labelled_records, zero_shot
    from ecgdan_hf.spreadsheets import plain_cells

    if out is not None:
        check_output_file(out)
    num_files = len(expand_files(paths))
    if out is None and num_files > 1:
        raise ValueError(f"--out: expected a CSV for the answers about {num_files} files, got none")
    labelled = None
    if calibrate_on is not None:
        folds = parse_folds(calibrate_folds, "calibrate_folds")
        check_unseen(checkpoint, folds, str(calibrate_on))
        labelled = labelled_records(calibrate_on, folds)
    elif calibrate_folds is not None:
        raise ValueError("calibrate_folds: only --calibrate-on uses it; leave it out")
    network, feature_extractor = load_checkpoint(checkpoint)
    model: Any = network  # one with an alignment head, which zero_shot checks
    options: dict[str, Any] = {"read_options": read_options(sampling_rate, unit, lead_names), "batch_size": batch_size}
    options |= {"calibrate_on": labelled, "prevalence": prevalence or None, "min_odds_ratio": min_odds_ratio}
    progress = num_files > 1 or labelled is not None
    answers = zero_shot(paths, prompt, model, feature_extractor, text_model, **options, progress=progress)
    if out is not None:
        write_text(out, plain_cells(answers).to_csv(index=False))
    _show(answers, num_files, out)
    is_as_trained = model.alignment_head.objective == "statements" and labelled is None and not prevalence
    if is_as_trained and answers["rests_on"].str.contains("network").any():
        say(_AS_TRAINED)
    say(_RESEARCH_USE)
    _refuse_unusable(answers, strict)


def _show(answers: "pd.DataFrame", num_files: int, out: Path | None) -> None:
    """One line for each prompt about a single file; where the answers are."""
    usable = answers[answers["error"] == ""]
    if num_files == 1 and len(usable):
        first = usable.iloc[0]
        say(f"{first['file']}: {first['num_leads']} leads; flags: {first['flags'] or 'none'}")
        for _, answer in usable.iterrows():
            say(f"  {_line(answer)}")
    if out is not None:
        given = int(usable["probability"].notna().sum())
        say(f"{out}: {len(answers)} answers about {num_files} files, {given} with a probability")


def _line(answer: "pd.Series[Any]") -> str:
    """Such as "sinus bradycardia: 98%; heart rate 47/min, measured (network 41%, measurement above 99%)"."""
    from pandas import notna

    said = {
        "network": _percent(answer["network_probability"]),
        "measurement": _percent(answer["measured_probability"]),
    }
    if not said["network"] and notna(answer["network_score"]):
        said["network"] = f"score {answer['network_score']:.1f}"
    beside = ", ".join(f"{name} {value}" for name, value in said.items() if value)
    found = _percent(answer["probability"]) or f"no answer, {answer['no_answer']}"
    rests_on = f"; {answer['rests_on']}" if answer["rests_on"] else ""
    return f"{answer['prompt']}: {found}{rests_on}" + (f" ({beside})" if beside else "")


def _percent(probability: float) -> str:
    from pandas import notna

    if not notna(probability):
        return ""
    return "below 1%" if probability < 0.01 else "above 99%" if probability > 0.99 else f"{probability:.0%}"


def _refuse_unusable(answers: "pd.DataFrame", strict: bool) -> None:
    """Raises if no file can be used, or, if `strict`, one cannot."""
    errors = answers.drop_duplicates("file").set_index("file")["error"]
    bad = errors[errors != ""]
    if len(bad) == len(errors) or (strict and len(bad)):
        raise ValueError(f"{len(bad)} of {len(errors)} files could not be used; the first: {bad.iloc[0]}")


VERBS: dict[str, Callable[..., None]] = {"zero-shot": _zero_shot}
