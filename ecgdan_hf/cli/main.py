"""The command `ecgdan`: its verbs, its version and its errors.

Each verb is one function in a module of this folder; that function imports whatever is heavy, so `--help` is quick.

Exit codes: 0, 1 for a run that failed, 2 for a wrong argument or input. An error is one line on stderr;
`ECGDAN_TRACEBACK=1` shows the traceback. Research use only: nothing here is a clinical claim.
"""

import io
import sys
from typing import Annotated

import typer

from ecgdan_hf.cli import data, demo, evaluate, predict, publish, train, zero_shot
from ecgdan_hf.cli.output import say
from ecgdan_hf.training.arguments.command import run_safely

app = typer.Typer(
    name="ecgdan",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _module in (train, evaluate, predict, zero_shot, demo, publish):
    for _name, _verb in _module.VERBS.items():
        app.command(_name)(_verb)

_data_app = typer.Typer(help="Make, check and convert data.", no_args_is_help=True, rich_markup_mode=None)
for _name, _verb in data.VERBS.items():
    _data_app.command(_name)(_verb)
app.add_typer(_data_app, name="data")

_study_app = typer.Typer(help="Many fits, one table.", no_args_is_help=True, rich_markup_mode=None)
for _name, _verb in train.STUDIES.items():
    _study_app.command(_name)(_verb)
app.add_typer(_study_app, name="study")


def _show_version(asked: bool) -> None:
    if asked:
        from ecgdan_hf import __version__

        say(f"ecgdan-hf {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Dual attention networks for 12-lead ECG: pretrain, fine-tune, evaluate, predict, explain. Research use only."""


def main() -> None:
    """Entry point of `ecgdan`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # characters that the terminal lacks
    sys.exit(run_safely(app))


if __name__ == "__main__":
    main()
