"""`ecgdan data VERB`: make, check and convert data; whatever is heavy is imported inside the verbs."""

from pathlib import Path
from typing import Annotated

import typer

from ecgdan_hf.cli_output import check_writable, say, write_whole

app = typer.Typer(help="Make, check and convert data.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def plasmode(
    data_dir: Annotated[Path, typer.Argument(help="PTB-XL folder")],
    out: Annotated[Path, typer.Option(help="CSV to write: record_id, patient_id, event, time, log_hazard")],
    seed: Annotated[int, typer.Option(help="seed of the simulation")] = 0,
    scenario: Annotated[
        str, typer.Option(help="default, invisible (no ECG tells more than age and sex) or rare (2 % events)")
    ] = "default",
    event_rate: Annotated[
        float | None, typer.Option(help="share of records with an event [default: 0.2, rare: 0.02]")
    ] = None,
) -> None:
    """Simulate follow-up on real ECGs from a known hazard. The outcomes are invented; every number on them is too.

    \b
    Example:
      ecgdan data plasmode ptb-xl --out outcomes.csv --seed 0
    """
    from ecgdan_hf.data.plasmode import attainable_c_index, simulate
    from ecgdan_hf.data.ptbxl import read_table

    check_writable(out)
    outcomes = simulate(read_table(data_dir), seed, scenario=scenario, event_rate=event_rate)
    write_whole(out, outcomes.to_csv(index=False))
    events = int(outcomes["event"].sum())
    say(
        f"{out}: simulated follow-up of {len(outcomes)} records, {events} events, attainable C-index "
        f"{attainable_c_index(outcomes):.3f}"
    )


@app.command()
def synthetic(
    out_dir: Annotated[Path, typer.Argument(help="folder to make")],
    n: Annotated[int, typer.Option(help="number of subjects")] = 600,
    seed: Annotated[int, typer.Option(help="seed of the cohort")] = 0,
) -> None:
    """Write a cohort of synthetic 12-lead ECGs (WFDB and table.csv) whose hazard is known.

    \b
    Example:
      ecgdan data synthetic cohort --n 600 --seed 0
    """
    from ecgdan_hf.data.plasmode import attainable_c_index
    from ecgdan_hf.data.synthetic import write_cohort

    table = write_cohort(out_dir, n=n, seed=seed)
    say(
        f"{out_dir}: {len(table)} synthetic ECGs, {int(table['event'].sum())} simulated events, attainable C-index "
        f"{attainable_c_index(table):.3f}"
    )


@app.command()
def check(
    data_dir: Annotated[Path, typer.Argument(help="folder with recordings")],
    data: Annotated[str | None, typer.Option(help="source: ptb-xl, wfdb, csv; default: told by the files")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON to write the counts to")] = None,
    limit: Annotated[int | None, typer.Option(help="read only the first records")] = None,
) -> None:
    """Read every record of a folder and say what is there and what is wrong, before hours of training do.

    \b
    Example:
      ecgdan data check ptb-xl
    """
    import json

    from ecgdan_hf.data.folder_check import check as check_folder

    if out is not None:
        check_writable(out)
    found = check_folder(data, data_dir, limit=limit)
    for name, value in found.items():
        if name != "unreadable":
            say(f"{name}: {value}")
    for error in found["unreadable"]:
        say(f"unreadable: {error}")
    if out is not None:
        write_whole(out, json.dumps(found, indent=2) + "\n")
    if found["unreadable"]:
        raise ValueError(f"{data_dir}: {len(found['unreadable'])} of {found['records']} records cannot be used")
