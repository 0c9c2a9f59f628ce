"""Answers of a run on its methods (items 5 to 16 and 24 of TRIPOD+AI).

Answers use entries of the run's files, or what this package does with any record. A sentence whose entry is absent is
left out. A partial answer lists what is still missing.
"""

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from ecgdan_hf.evaluation.report.tripod_run import (
    CROSS_VALIDATION,
    HELD_OUT,
    HORIZON_COLUMNS,
    NOTHING,
    Answer,
    Run,
    count,
    dig,
    escape,
    is_number,
    listed,
)


def _source(run: Run) -> Answer:
    source = run.get("data", "source")
    return Answer(f"Source: {escape(source)}.", "why these data, and whom they represent") if source else NOTHING


def _dates(run: Run) -> Answer:
    said = run.follow_up()
    return Answer(said, "calendar dates of recruitment and of the end of follow-up") if said else NOTHING


def _eligibility(run: Run) -> Answer:
    records = run.get("data", "num_records")
    said = f"{count(records)} records entered the run; what was left out before is not known to it."
    return Answer(said, "who could take part and who was left out") if is_number(records) else NOTHING


def _preparation(run: Run) -> Answer:
    keys = ("input_kind", "normalization", "filter")
    said = [f"{key.replace('_', ' ')}: {escape(value)}" for key in keys if (value := run.setting("model", key))]
    if run.recipe.get("skip_bad") is not None:
        said.append("records that cannot be read are " + ("left out" if run.recipe["skip_bad"] else "an error"))
    known = f"By the feature extractor, alike for all records; {'; '.join(said)}." if said else ""
    return Answer(known, "cleaning before the run, and checks of quality") if said else NOTHING


def _outcome(run: Run) -> Answer:
    endpoint = run.endpoint
    name = f"{'Simulated e' if run.simulated else 'E'}vent: {escape(endpoint)}." if endpoint else ""
    scale = f"Time is in years from the ECG to the {run.sim}event or to censoring." if endpoint else ""
    at = f"Risks are judged at {run.years()} years." if run.horizons else ""
    if run.simulated:
        drawn = "**The outcome is simulated**: follow-up was drawn by a program."
        return Answer.of(drawn, name, scale, at)
    asked = "the definition, with codes, and how and when events were found; what was done about death"
    if run.get("simulated_outcome") is None:
        asked += "; whether the outcome is real or simulated"
    return Answer.of(name, scale, at, missing=asked) if endpoint else NOTHING


def _no_assessor(run: Run) -> Answer:
    return Answer("Does not apply: the outcome is simulated, nobody judged it.") if run.simulated else NOTHING


def _predictor_choice(run: Run) -> Answer:
    names = run.get("covariates", "names")
    if names is None:
        return NOTHING
    beside = f", and {listed(names)}" if names else ", and no covariate"
    return Answer(f"The ECG signal{beside}.", "why these predictors, and whether others were tried")


def _predictors(run: Run) -> Answer:
    kinds = {"median_beat": "one median beat per lead", "rhythm": "the rhythm recording"}
    kind = kinds.get(str(run.setting("model", "input_kind")), "")
    ecg = f"The ECG, in millivolt: {kind}." if kind else ""
    names = run.get("covariates", "names")
    beside = f"Covariates: {listed(names)}, in their own units (item 20b)." if names else ""
    return Answer.of(ecg, beside, missing="devices, and how and when each was recorded")


def _sample_size(run: Run) -> Answer:
    numbers = run.cohort()
    return Answer(numbers, "how this number came about, and why it suffices") if numbers else NOTHING


def _missing_data(run: Run) -> Answer:
    counts = [
        f"{name}: {count(number)}"
        for name in ("age", "sex")
        if is_number(number := run.get("data", name, "num_missing"))
    ]
    names, missing = run.get("covariates", "names") or [], run.get("covariates", "num_missing") or []
    counts += [f"covariate {escape(name)}: {count(number)}" for name, number in zip(names, missing, strict=False)]
    known = f"Missing values: {'; '.join(counts)}." if counts else ""
    if names:
        known += " An unknown covariate of the network counts as the mean in training"
        known += ", and another covariate says so." if run.recipe.get("missing_covariates") == "indicator" else "."
    return Answer(known, "why values are missing, and records left out for it") if counts else NOTHING


def _use_of_data(run: Run) -> Answer:
    asked = "which data developed the model" if run.get("protocol") == HELD_OUT else ""
    return Answer(known, asked) if (known := run.division()) else NOTHING


def _scaling(run: Run) -> Answer:
    names = run.get("covariates", "names")
    signal = run.setting("model", "normalization")
    how = {"per_lead_zscore": "each lead to mean 0 and SD 1", "global": "one scale for all leads, which keeps voltage"}
    scaled = f"Signal: {how.get(str(signal), escape(signal))}." if signal else ""
    beside = "Covariates of the network: minus the mean, over the SD in training (item 20b)." if names else ""
    return Answer.of(scaled, beside)


def _building(run: Run) -> Answer:
    start = run.recipe.get("checkpoint")
    if run.recipe.get("method") == "few-events" and start:
        known = (
            "A Cox model, linear in covariates and in principal components of the embedding of the frozen encoder "
            f"{escape(PurePath(str(start)).name)}; penalties averaged by their evidence, without validation patients."
        )
        return Answer(known, "why this model, and what was tried before")
    words = {"epochs": "epochs at most", "batch_size": "records per batch", "learning_rate": "learning rate",
             "weight_decay": "weight decay", "seed": "seed"}  # fmt: skip
    said = [f"{words[key]}: {escape(run.recipe[key])}" for key in words if run.recipe.get(key) is not None]
    trained = f"A neural network; {'; '.join(said)}; the whole recipe is at the end." if said else ""
    began = f"Training began from the checkpoint {escape(PurePath(str(start)).name)}." if start else ""
    share = run.get("splits", "inner_valid_fraction")
    inner = (
        f"Of the patients trained on, {100 * share:.0f} % were kept aside for validation." if is_number(share) else ""
    )
    asked = "why this model, and what was tried before"
    return Answer.of(trained, began, inner, missing=asked) if trained else NOTHING


def _clusters(run: Run) -> Answer:
    other = [name for name in run.get("subgroups") or {} if name not in ("sex", "age")]
    return Answer(f"The C-index is given by {listed(other)} (item 23a).") if other else NOTHING


def _measures(run: Run) -> Answer:
    shown = [key for key in HORIZON_COLUMNS if any(_has(model, key) for model in run.models.values())]
    at = f" {', '.join(HORIZON_COLUMNS[key] for key in shown)} at {run.years()} years." if shown else ""
    found = [dig(model, "concordance_index") for model in run.models.values()]
    resamples = next((n for each in found if is_number(n := dig(each, "num_resamples"))), None)
    how = f" Intervals: percentiles of {count(resamples)} resamples of patients." if resamples is not None else ""
    tested = any(dig(model, "t_test") for model in run.models.values())
    test = " Folds share training records: p values are of the corrected resampled t-test (Nadeau and Bengio, 2003)."
    known = f"Concordance index of predicted risk.{at}{how}{test if tested else ''}"
    return Answer(known) if any(found) else NOTHING


def _updating(run: Run) -> Answer:
    known = run.get("protocol") in (CROSS_VALIDATION, HELD_OUT)
    return (
        Answer("No updating: this protocol evaluates models as they are and does not change them after.")
        if known
        else NOTHING
    )


def _predictions(run: Run) -> Answer:
    said = {
        CROSS_VALIDATION: "Each record is predicted, once per repetition, by a model not trained on its fold.",
        HELD_OUT: "Each record is predicted once by the checkpoint, as it was saved.",
    }.get(run.get("protocol"), "")
    return Answer(said) if said else NOTHING


def _imbalance(run: Run) -> Answer:
    events, records = run.get("data", "num_events"), run.get("data", "num_records")
    if not is_number(events):
        return NOTHING
    share = f"{100 * events / records:.1f} %" if is_number(records) and records else "unknown"
    known = f"{count(events)} of {count(records)} records have a {run.sim}event ({share})."
    if run.get("splits", "stratified_by") == "event":
        known += " Folds are stratified by event."
    if run.recipe.get("stratify") is not None:
        known += " Training batches are " + ("stratified by event." if run.recipe["stratify"] else "not stratified.")
    return Answer(known, "" if run.recipe else "what was done in training")


def _fairness(run: Run) -> Answer:
    names = list(run.get("subgroups") or {})
    known = f"Performance is given by {listed(names)} (item 23a)."
    return Answer(known, "what else was done for fairness, and why") if names else NOTHING


def _output(run: Run) -> Answer:
    if not run.models:
        return NOTHING
    risks = f" and the absolute risk of the {run.sim}event within {run.years()} years" if run.horizons else ""
    return Answer(f"A log hazard, which orders people by risk{risks}.", "thresholds for a decision, if any is meant")


def _training_versus_evaluation(run: Run) -> Answer:
    if run.get("protocol") == CROSS_VALIDATION:
        return Answer("Both are parts of the same data, divided at random: setting, eligibility, predictors and "
                      "outcome are defined alike. This is no external validation.")  # fmt: skip
    return NOTHING


def _has(model: Mapping[str, Any], key: str) -> bool:
    return any(dig(found, key) is not None for found in (dig(model, "horizons") or {}).values())


METHODS: Mapping[str, Callable[[Run], Answer]] = {
    "5a": _source,
    "5b": _dates,
    "6b": _eligibility,
    "7": _preparation,
    "8a": _outcome,
    "8b": _no_assessor,
    "8c": _no_assessor,
    "9a": _predictor_choice,
    "9b": _predictors,
    "10": _sample_size,
    "11": _missing_data,
    "12a": _use_of_data,
    "12b": _scaling,
    "12c": _building,
    "12d": _clusters,
    "12e": _measures,
    "12f": _updating,
    "12g": _predictions,
    "13": _imbalance,
    "14": _fairness,
    "15": _output,
    "16": _training_versus_evaluation,
    "24": _updating,
}
"""By number."""
