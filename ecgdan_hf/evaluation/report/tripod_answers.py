"""Answers of a run to the items of TRIPOD+AI; items that are not listed need a person.

Answers on methods are in `tripod_methods.py`. Each states only what the run's files hold or this package always does,
and lists what is still missing.
"""

from collections.abc import Callable, Mapping

from ecgdan_hf.evaluation.report.tripod_methods import METHODS
from ecgdan_hf.evaluation.report.tripod_run import (
    CROSS_VALIDATION,
    HELD_OUT,
    NOTHING,
    Answer,
    Run,
    count,
    escape,
    is_number,
)

_MIN_EVALUATION_EVENTS = 100
"""Collins, Ogundimu, Altman, Statistics in Medicine 35:214-226, 2016: at least, to evaluate a model."""


def _title(run: Run) -> Answer:
    kind = {
        CROSS_VALIDATION: "Development and internal evaluation, by repeated cross-validation,",
        HELD_OUT: "Evaluation on held-out records",
    }.get(run.get("protocol"), "Evaluation")
    endpoint = run.endpoint
    event = f" for {run.sim}{escape(endpoint)}" if endpoint else f" for a {run.sim}event" if run.sim else ""
    return Answer(f"{kind} of a survival model of the ECG{event}: {escape(run.name)}.", "the target population")


def _abstract(run: Run) -> Answer:
    return Answer.of(run.cohort(), run.evaluated(), missing="a structured summary; these are its numbers")


def _objectives(run: Run) -> Answer:
    said = {
        CROSS_VALIDATION: "Models are developed anew in every fold and evaluated on the records left out.",
        HELD_OUT: "Models that were trained before are evaluated.",
    }.get(run.get("protocol"), "")
    others = [escape(name) for name in list(run.models)[1:]]
    beside = f"Compared with: {', '.join(others)}." if others else ""
    return Answer.of(said, beside, missing="the aim behind it") if said else NOTHING


def _registered_code(run: Run) -> Answer:
    versions = run.get("versions") or {}
    known = "The analysis is done by the Python package ecgdan_hf (Apache-2.0)"
    version = versions.get("ecgdan-hf") or versions.get("ecgdan_hf")
    known += f", version {escape(version)}." if version else "."
    return Answer(known, "where this study's own code and the weights can be obtained")


def _flow(run: Run) -> Answer:
    return Answer.of(run.cohort(), run.follow_up(), missing="how many were screened and left out, and why")


def _characteristics(run: Run) -> Answer:
    table = run.participants_table()
    return Answer(table, "further characteristics, and differences between groups") if table else NOTHING


def _in_each_analysis(run: Run) -> Answer:
    table = run.folds_table()
    if not table:
        numbers = run.cohort() if run.get("protocol") == HELD_OUT else ""
        return Answer(f"Evaluation: {numbers}", "participants and events in development") if numbers else NOTHING
    return Answer(f"{run.division()}\n\n{table}".strip())


def _model_itself(run: Run) -> Answer:
    known = "The recipe is at the end of this page; a network is given by its weights and its code."
    return Answer(known, "where the weights can be had") if run.recipe else NOTHING


def _performance(run: Run) -> Answer:
    tables = run.models_table(), run.horizons_table(), run.not_estimable(), run.subgroups_table()
    if not any(tables):
        return NOTHING
    note = "**Every number below rests on a simulated outcome.**" if run.simulated else ""
    return Answer("\n\n".join(part for part in (note, *tables) if part))


def _limitations(run: Run) -> Answer:
    events, last = run.get("data", "num_events"), run.get("data", "max_follow_up_years")
    late = [years for years in run.horizons if is_number(last) and float(years) > last]
    found = [
        "The outcome is simulated: no number here says anything about patients." if run.simulated else "",
        "Evaluated within the data it was developed on, on none from elsewhere."
        if run.get("protocol") == CROSS_VALIDATION
        else "",
        f"{count(events)} {run.sim}events are fewer than the {_MIN_EVALUATION_EVENTS} that an evaluation needs "
        "(Collins et al., Statistics in Medicine 35:214-226, 2016)."
        if is_number(events) and events < _MIN_EVALUATION_EVENTS
        else "",
        f"No record was followed to {run.years(late)} years." if late else "",
    ]
    known = "\n".join(f"* {line}" for line in found if line)
    return Answer(f"From the run's numbers:\n\n{known}", "all others") if known else NOTHING


def _poor_input(_: Run) -> Answer:
    return Answer(
        "The package refuses a signal without sampling rate or unit, masks leads that are absent, takes the training "
        "mean for unknown covariates, and puts quality flags beside a prediction.",
        "what users should do about them",
    )


ANSWERS: Mapping[str, Callable[[Run], Answer]] = {
    **METHODS,
    "1": _title,
    "2": _abstract,
    "4": _objectives,
    "18f": _registered_code,
    "20a": _flow,
    "20b": _characteristics,
    "21": _in_each_analysis,
    "22": _model_itself,
    "23a": _performance,
    "26": _limitations,
    "27a": _poor_input,
}
"""By number; 3, 6a, 6c, 9c, 17 to 18e, 19, 20c, 23b, 25, 27b and 27c are for people."""
