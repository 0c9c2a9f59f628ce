"""`ecgdan demo`: every step on synthetic ECGs with simulated follow-up, without any download.

Writes a cohort as files, reads it like any other data, trains a survival model, evaluates it on held-out folds against
age and sex and the attainable concordance, explains one ECG, and writes a page.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ecgdan_hf.cli.output import say
from ecgdan_hf.files import check_output_folder, filled_folder, write_text
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.arguments.options import resolve

_TRAIN_FOLDS, _TEST_FOLDS = "1-6", "7-10"
_COHORT, _MODEL = "cohort", "model"
_MARK = "report.md"

_PAGE = """# ecgdan demo: synthetic ECGs, simulated follow-up

Everything on this page is made up: {records} synthetic 12-lead ECGs whose hazard is a known function of two visible
features (repolarisation strain and QRS duration), age and sex, and a follow-up simulated from it. It shows that the
parts work together and recover what was put in. It says nothing about patients.

## Did it learn?

Trained on {train} ECGs, the epoch chosen on {valid}, judged once on {test} others with {events} simulated events.

{table}

"Random encoder" is a linear Cox model on an untrained network of the same shape. "Ahead" is the paired difference, the
same patients resampled for both. The true hazard is the best that any model can be expected to reach.

## Who is at high risk?

![Kaplan-Meier curves by thirds of predicted risk](kaplan_meier.png)

## Where does it look?

ECG {record} of the test folds, the one with the highest predicted risk (simulated outcome: {outcome}).

![ECG with temporal attention, map of leads, risk curve](explained.png)

## The same on your own ECGs

    ecgdan data check FOLDER
    ecgdan finetune --config finetune-survival --data csv --data-dir FOLDER --labels outcomes.csv --from-scratch \\
      --output-dir runs/mine
    ecgdan predict FOLDER --checkpoint runs/mine --out predictions.csv
    ecgdan explain FILE --checkpoint runs/mine --out figure.png

This model: `{model}`; it took {seconds:.0f} s. Research use only.
"""


def _run(output_dir: Path, n: int, seed: int, overwrite: bool) -> dict[str, Any]:
    """Runs the demo, prints what it found, and returns the comparison, as in `metrics.json`."""
    started, folder = time.monotonic(), _prepare_folder(output_dir, overwrite)
    from ecgdan_hf.data.simulate.synthetic import write_cohort
    from ecgdan_hf.training.finetune import finetune

    say(f"1/4 writing {n} synthetic 12-lead ECGs with simulated follow-up to {folder / _COHORT}")
    write_cohort(folder / _COHORT, n=n, seed=seed)
    flags: dict[str, Any] = {
        "data_dir": str(folder / _COHORT),
        "output_dir": str(folder / _MODEL),
        "train_folds": _TRAIN_FOLDS,
    }
    flags |= {"test_folds": _TEST_FOLDS, "seed": seed, "cache_dir": str(folder / "cache")}
    say("2/4 preparing signals and training a survival network")
    trained = finetune(resolve(FinetuneArguments, "demo", flags))
    say("3/4 evaluating it on held-out folds")
    result = _evaluate(folder, seed)
    say("4/4 explaining one ECG and writing the page")
    page = _page(folder, trained, result, time.monotonic() - started)
    _write(folder, page, result)
    for name, entry in result.metrics["models"].items():
        say(
            f"simulated outcome, {name}: C-index {entry['estimate']:.3f} "
            f"(95 % interval {entry['low']:.3f} to {entry['high']:.3f})"
        )
    say(f"{folder / _MARK}: the page; {time.monotonic() - started:.0f} s in all")
    metrics: dict[str, Any] = result.metrics
    return metrics


def _prepare_folder(output_dir: Path, overwrite: bool) -> Path:
    begun = output_dir / _COHORT / "cohort.json"
    folder = check_output_folder(
        str(output_dir), overwrite, _MARK if not begun.is_file() else f"{_COHORT}/cohort.json"
    )
    for name in (_COHORT, _MODEL, "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _evaluate(folder: Path, seed: int) -> Any:
    from ecgdan_hf.data.loading import load
    from ecgdan_hf.evaluation.folds import parse_folds
    from ecgdan_hf.evaluation.protocols.held_out import (
        held_out,
    )

    def load_rows(feature_extractor: Any) -> Any:
        options = {"feature_extractor": feature_extractor, "cache_dir": folder / "cache"}
        return load("csv", folder / _COHORT, **options)

    checkpoints = {"this network": str(folder / _MODEL)}
    data_dir = str(folder / _COHORT)
    return held_out(
        checkpoints, load_rows, parse_folds(_TEST_FOLDS), parse_folds(_TRAIN_FOLDS), data_dir=data_dir, seed=seed
    )


def _page(folder: Path, trained: dict[str, Any], result: Any, seconds: float) -> str:
    from ecgdan_hf.data.formats import read
    from ecgdan_hf.data.sources.csv_table import read_csv_table
    from ecgdan_hf.evaluation.report.comparison_text import comparison_table
    from ecgdan_hf.explain.page.figures import explain_page
    from ecgdan_hf.inference.checkpoints import load_checkpoint

    highest = result.predictions.iloc[int(result.risk_groups.argmax())]
    table = read_csv_table(folder / _COHORT)
    record = read(table.loc[table["record_id"] == highest["record_id"], "file"].iloc[0])
    model, extractor = load_checkpoint(folder / _MODEL)
    explain_page(record, model, extractor, checkpoint="demo").savefig(folder / "explained.png", dpi=110)
    after = f"after {highest['time']:.1f} years"
    counts = trained["num_records"]
    return _PAGE.format(
        records=len(table),
        train=counts["train"],
        valid=counts["valid"],
        test=counts["test"],
        events=result.metrics["num_events"],
        table=comparison_table(result.metrics),
        record=highest["record_id"],
        outcome=f"event {after}" if highest["event"] else f"none, censored {after}",
        model=folder / _MODEL,
        seconds=seconds,
    )


def _write(folder: Path, page: str, result: Any) -> None:
    from ecgdan_hf.evaluation.report.survival_report import write_held_out_report
    from ecgdan_hf.evaluation.result import Result

    with filled_folder(folder, last=_MARK) as part:
        write_held_out_report(part, result)
        Result("held-out", result.metrics).write(part)
        write_text(part / _MARK, page)


def _demo(
    output_dir: Annotated[Path, typer.Option(help="folder for cohort, model and report")] = Path("ecgdan-demo"),
    n: Annotated[int, typer.Option(help="number of synthetic ECGs")] = 600,
    seed: Annotated[int, typer.Option(help="seed of cohort and training; the recipe was chosen on seed 0")] = 1,
    overwrite: Annotated[bool, typer.Option(help="replace an earlier demo in the folder")] = False,
) -> None:
    """Run every step on synthetic ECGs with simulated follow-up, in a few minutes and without any download.

    \b
    Example:
      ecgdan demo --output-dir ecgdan-demo
    """
    _run(output_dir, n=n, seed=seed, overwrite=overwrite)


VERBS: dict[str, Callable[..., None]] = {"demo": _demo}
