"""`ecgdan data VERB`: make, check and convert data; whatever is heavy is imported inside the verbs."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ecgdan_hf.cli.output import say
from ecgdan_hf.cli.predict import (
    Data,
    Engine,
    LeadNames,
    NumWorkers,
    Resume,
    SamplingRate,
    Shard,
    Unit,
    read_options,
    recordings_of,
    write_rows,
)
from ecgdan_hf.data.sources.registry import SOURCE_NAMES
from ecgdan_hf.files import check_output_file, write_text

DATA_HELP = f"source, one of {SOURCE_NAMES} [default: recognised from the files]; see docs/data.md"


def _plasmode(
    data_dir: Annotated[Path, typer.Argument(help="PTB-XL folder")],
    out: Annotated[Path, typer.Option(help="CSV to write: record_id, patient_id, event, time, log_hazard")],
    seed: Annotated[int, typer.Option(help="seed of the simulation")] = 0,
    scenario: Annotated[
        str, typer.Option(help="default, invisible (the ECG adds nothing to age and sex) or rare (2 % events)")
    ] = "default",
    event_rate: Annotated[
        float | None, typer.Option(help="share of records with an event [default: 0.2, rare: 0.02]")
    ] = None,
) -> None:
    """Simulate follow-up on real ECGs from a known hazard. The outcomes, and all numbers from them, are simulated.

    \b
    Example:
      ecgdan data plasmode ptb-xl --out outcomes.csv --seed 0
    """
    from ecgdan_hf.data.simulate.plasmode import simulate
    from ecgdan_hf.data.sources.ptbxl import read_ptbxl
    from ecgdan_hf.evaluation.measures.concordance import concordance_index

    check_output_file(out)
    outcomes = simulate(read_ptbxl(data_dir), seed, scenario=scenario, event_rate=event_rate)
    write_text(out, outcomes.to_csv(index=False))
    events = int(outcomes["event"].sum())
    say(
        f"{out}: simulated follow-up of {len(outcomes)} records, {events} events, attainable C-index "
        f"{concordance_index(outcomes['event'], outcomes['time'], outcomes['log_hazard']):.3f}"
    )


def _synthetic(
    out_dir: Annotated[Path, typer.Argument(help="folder to create")],
    n: Annotated[int, typer.Option(help="number of subjects")] = 600,
    seed: Annotated[int, typer.Option(help="seed of the cohort")] = 0,
) -> None:
    """Write a cohort of synthetic 12-lead ECGs (WFDB and table.csv) with a known hazard.

    \b
    Example:
      ecgdan data synthetic cohort --n 600 --seed 0
    """
    from ecgdan_hf.data.simulate.synthetic import write_cohort
    from ecgdan_hf.evaluation.measures.concordance import concordance_index

    table = write_cohort(out_dir, n=n, seed=seed)
    say(
        f"{out_dir}: {len(table)} synthetic ECGs, {int(table['event'].sum())} simulated events, attainable C-index "
        f"{concordance_index(table['event'], table['time'], table['log_hazard']):.3f}"
    )


def _measure(
    paths: Annotated[list[Path], typer.Argument(help="ECG files, or folders of them")],
    out: Annotated[Path, typer.Option(help="table to write, one row for each file: .csv or .parquet")],
    sampling_rate: SamplingRate = None,
    unit: Unit = None,
    lead_names: LeadNames = None,
    num_workers: NumWorkers = None,
    resume: Resume = False,
    shard: Shard = None,
    data: Data = None,
    engine: Engine = "local",
) -> None:
    """Measure ECGs: rate, RR variability, PR, QRS, QT, QTc, axes, voltages, ST and T of each lead, 14 flags.

    Units are in the names of the columns. What a recording does not show is blank. Not for diagnosis.

    \b
    Example:
      ecgdan data measure archive --out measurements.csv
    """
    from ecgdan_hf.inference.archive import SUFFIXES, shard_of
    from ecgdan_hf.inference.measured_files import Measurer
    from ecgdan_hf.inference.on_ray import workers_on

    check_output_file(out, SUFFIXES)
    files = shard_of(recordings_of(paths, data)[0], shard)
    measurer = Measurer(read_options(sampling_rate, unit, lead_names), workers_on(engine, num_workers, len(files)))
    write_rows(measurer, files, out, resume, data, engine)


def _check(
    data_dir: Annotated[Path, typer.Argument(help="folder with recordings")],
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    labels: Annotated[Path | None, typer.Option(help="table of outcomes to join: record_id, event, time")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write all findings to")] = None,
    html: Annotated[Path | None, typer.Option(help="HTML page to write, with plots of the worst records")] = None,
    limit: Annotated[int | None, typer.Option(help="read only the first records")] = None,
    strict: Annotated[bool, typer.Option(help="fail on warnings too")] = False,
    num_proc: Annotated[int | None, typer.Option(help="processes [default: one per core]")] = None,
    sampling_rate: SamplingRate = None,
    unit: Unit = None,
    lead_names: LeadNames = None,
) -> None:
    """Read every record of a folder, and report its contents and problems before training.

    Exit code 2 on errors: problems that would stop training or silently corrupt its results.

    \b
    Example:
      ecgdan data check ptb-xl --labels outcomes.csv --out check.json --html check.html
    """
    import json

    from ecgdan_hf.data.check.folder import check as check_folder
    from ecgdan_hf.data.check.page import html as page
    from ecgdan_hf.data.check.problems import summary

    for path, option in ((out, "--out"), (html, "--html")):
        if path is not None:
            check_output_file(path, option=option)
    found = check_folder(
        data,
        data_dir,
        labels=labels,
        limit=limit,
        num_proc=num_proc,
        read_options=read_options(sampling_rate, unit, lead_names),
    )
    facts = found.facts
    for line in summary(facts):
        say(line)
    if out is not None:
        write_text(out, json.dumps(facts, indent=2) + "\n")
    if html is not None:
        write_text(html, page(facts, found.read_worst(), data_dir.resolve().name))
    if facts["errors"] or (strict and facts["warnings"]):
        raise ValueError(f"{data_dir}: {facts['errors']} with errors, {facts['warnings']} with warnings, see above")


def _outcomes(
    table: Annotated[Path, typer.Argument(help="table of a hospital: .xlsx, or text with commas, semicolons or tabs")],
    out: Annotated[Path, typer.Option(help="CSV to write: record_id, event, time in years")],
    columns: Annotated[
        str | None, typer.Option(help="names of columns in the table, as record_id=EKG-Nr,event_date=Ereignis")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="folder with the recordings, to check that ids match")] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    deaths: Annotated[
        str | None,
        typer.Option(
            help="deaths that compete with the event, as its code 2: a table with record_id, event, time, or `source` "
            "for those in the table of the recordings, as CODE-15 has"
        ),
    ] = None,
) -> None:
    """Read a hospital's table of outcomes, say what was understood, check it and write it for --labels.

    It has event and time (or time_days, time_months), or the dates ecg_date, event_date and last_contact. Who came
    under observation after the ECG has an entry in the unit of time, or an entry_date. An event of 2, 3, ... is
    another one that came first and competes with event 1; see --causes of finetune.

    \b
    Example:
      ecgdan data outcomes follow-up.xlsx --columns record_id=EKG-Nr,event=Ereignis,time_days=Tage --out outcomes.csv
    """
    from ecgdan_hf.data.sources.csv_table import join_outcomes, read_outcomes, with_deaths
    from ecgdan_hf.data.sources.hospital_tables import endpoint_pairs, parse_mapping
    from ecgdan_hf.data.sources.registry import read_source

    check_output_file(out)
    found = read_outcomes(table, parse_mapping(columns))
    for line in found.attrs["understood"]:
        say(f"{table}: {line}")
    if data_dir is not None:
        joined = join_outcomes(read_source(data, data_dir), found, str(table))
        say(f"{data_dir}: {len(joined)} records with an outcome, {joined.attrs['without_outcome']} without")
        found = joined[[name for name in found.columns if name in joined]]
    if deaths == "source" and data_dir is None:
        raise ValueError("--deaths: source needs the folder of the recordings; give --data-dir")
    if deaths is not None:
        died = read_source(data, Path(str(data_dir))) if deaths == "source" else read_outcomes(deaths)
        found = with_deaths(found, died, deaths if deaths != "source" else str(data_dir))
    write_text(out, found.to_csv(index=False))
    if pairs := [] if "event" in found else endpoint_pairs(found):
        each = (f"{name} {int(found[f'event_{name}'].sum())} of {found[f'event_{name}'].count()}" for name in pairs)
        say(f"{out}: {len(found)} rows, events: {', '.join(each)}; train with --endpoints {','.join(pairs)}")
        return
    median = f"median follow-up {found['time'].median():.3g} years"
    others = int((found["event"] > 1).sum())
    competing = f"{others} with a competing event, " if others else ""
    late = int((found["entry"] > 0).sum()) if "entry" in found else 0
    entered = f", {late} with delayed entry" if late else ""
    say(f"{out}: {len(found)} rows, {int((found['event'] == 1).sum())} events, {competing}{median}{entered}")


def _ukb_cohort(
    data_dir: Annotated[Path, typer.Argument(help="folder or zip with EID_20205_INSTANCE_ARRAY.xml, loose or zipped")],
    fields: Annotated[
        Path, typer.Option(help="table of fields: one row per participant, columns p131286 or 131286-0.0")
    ],
    out: Annotated[
        Path, typer.Option(help="CSV of outcomes to write; also writes STEM_flow.csv, who was excluded and why")
    ],
    end_of_follow_up: Annotated[
        str, typer.Option(help="last day of follow-up; default: end of the hospital records of England")
    ] = "2022-10-31",
    instance: Annotated[
        int | None, typer.Option(help="ECGs of this visit only [default: a participant's first]")
    ] = None,
    prevalent: Annotated[
        str, typer.Option(help="condition before the ECG: any, hypertension, myocardial-infarction or none")
    ] = "any",
    field: Annotated[
        list[str] | None,
        typer.Option(help="field or fields to read NAME from, in order of preference: heart-failure=131354,42000"),
    ] = None,
    withdrawn: Annotated[Path | None, typer.Option(help="list of participants who have withdrawn")] = None,
    all_ecgs: Annotated[
        bool, typer.Option("--all-ecgs", help="keep every ECG of a participant, not only the first")
    ] = False,
    competing_death: Annotated[
        bool, typer.Option("--competing-death", help="event 2: death ended the follow-up; without, it is censoring")
    ] = False,
) -> None:
    """Compute outcomes of UK Biobank's resting ECGs: incident heart failure after hypertension or infarction.

    Death counts as censoring, or with --competing-death as event 2, for finetune --causes "heart failure,death".
    Prints how many ECGs each criterion excluded, never a participant's id.

    \b
    Example:
      ecgdan data ukb-cohort ecgs --fields fields.csv --out outcomes.csv --withdrawn w12345.csv
    """
    from ecgdan_hf.data.sources.ukb_cohort import build

    check_output_file(out)
    unnamed = [text for text in field or () if "=" not in text]
    if unnamed:
        raise ValueError(f"--field: expected NAME=ID, got {unnamed[0]}")
    if out.resolve() in [file.resolve() for file in (data_dir, fields, withdrawn) if file is not None]:
        raise ValueError(f"--out: expected a file other than the inputs, got {out}")
    try:
        end = datetime.strptime(end_of_follow_up, "%Y-%m-%d").date()
    except ValueError:
        raise ValueError(f"--end-of-follow-up: expected a date such as 2022-10-31, got {end_of_follow_up}") from None
    cohort = build(
        data_dir,
        fields,
        end_of_follow_up=end,
        instance=instance,
        prevalent=prevalent,
        fields=dict(text.split("=", 1) for text in field or ()),
        withdrawn=withdrawn,
        all_ecgs=all_ecgs,
    )
    for row in cohort.flow.itertuples():
        change = f"-{row.left_out}, " if row.Index else ""
        say(f"{row.step}: {change}{row.ecgs} ECGs of {row.participants} participants")
    for note in cohort.notes:
        say(f"note: {note}")
    flow_file = cohort.write(out, competing_death)
    outcomes = cohort.outcomes
    say(
        f"{out}: {len(outcomes)} ECGs, {int(outcomes['event'].sum())} with heart failure, "
        f"{int(outcomes['competing_event'].sum())} ended by death, median follow-up "
        f"{outcomes['time'].median():.1f} years; exclusions in {flow_file.name}"
    )


def _convert(
    data_dir: Annotated[Path, typer.Argument(help="folder with recordings")],
    out_dir: Annotated[Path, typer.Argument(help="new folder, or one whose conversion was interrupted")],
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    labels: Annotated[Path | None, typer.Option(help="outcomes to join: table with record_id, event, time")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="write the model input of this checkpoint instead of the recorded signals")
    ] = None,
    license_id: Annotated[str, typer.Option("--license", help="licence of the data, by its Hub identifier")] = "other",
    title: Annotated[str | None, typer.Option(help="title of the dataset card")] = None,
    keep: Annotated[
        str, typer.Option(help="further columns to write, such as report; check them for personal data")
    ] = "",
    keep_ids: Annotated[
        bool, typer.Option(help="keep the record and patient ids of the source instead of pseudonyms")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="use only the first records")] = None,
    strict: Annotated[bool, typer.Option(help="stop at the first unusable record instead of skipping it")] = False,
    num_proc: Annotated[int | None, typer.Option(help="processes [default: one per core]")] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="folder for preprocessed signals [default: user cache]")
    ] = None,
    engine: Engine = "local",
) -> None:
    """Convert a source to Parquet with a dataset card and without patient identifiers, ready for the Hub.

    Run the same command again to resume an interrupted conversion.

    \b
    Example:
      ecgdan data convert ptb-xl parquet --license cc-by-4.0 --keep-ids
    """
    from ecgdan_hf.data.prepared.shards import shards_written_by
    from ecgdan_hf.inference.checkpoints import repository_and_revision
    from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
    from ecgdan_hf.publish.dataset import check_converted, convert_dataset

    extractor = None
    if checkpoint is not None:
        repository, revision = repository_and_revision(checkpoint)
        extractor = EcgDanFeatureExtractor.from_pretrained(repository, revision=revision)
    with shards_written_by(engine):
        folder = convert_dataset(
            data,
            data_dir,
            out_dir,
            license_id=license_id,
            title=title,
            keep=[name.strip() for name in keep.split(",") if name.strip()],
            keep_ids=keep_ids,
            num_proc=num_proc,
            outcomes=labels,
            feature_extractor=extractor,
            limit=limit,
            skip_bad=not strict,
            cache_dir=cache_dir,
        )
    say(f"{folder}: {check_converted(folder)} records")


def _push(
    folder: Annotated[Path, typer.Argument(help="folder made by `ecgdan data convert`")],
    repository: Annotated[str, typer.Argument(help="USER/NAME")],
    private: Annotated[bool, typer.Option(help="create the repository as private")] = False,
) -> None:
    """Check that a converted dataset loads, then upload it to the Hub.

    \b
    Example:
      ecgdan data push parquet USER/my-ecgs --private
    """
    from ecgdan_hf.publish.dataset import push_dataset

    say(push_dataset(folder, repository, private=private))


VERBS: dict[str, Callable[..., None]] = {
    "plasmode": _plasmode,
    "synthetic": _synthetic,
    "check": _check,
    "measure": _measure,
    "outcomes": _outcomes,
    "ukb-cohort": _ukb_cohort,
    "convert": _convert,
    "push": _push,
}
