"""Tables of a report: participants, folds, models, horizons, subgroups. A table without entries is empty."""

from collections.abc import Mapping
from typing import Any

from ecgdan_hf.evaluation.report.tripod_run import Run, count, dig, escape, estimate, is_number, markdown_table, number

HORIZON_COLUMNS = {
    "predicted_risk": "mean predicted risk",
    "observed_risk": "observed risk",
    "auc": "AUC",
    "brier": "Brier score",
    "scaled_brier": "scaled Brier",
    "calibration_slope": "calibration slope",
    "observed_over_expected": "observed / expected",
    "ici": "ICI",
}


def models_table(run: Run) -> str:
    """Returns the C-index of each model, its spread, and the lead of the evaluated model."""
    headings = [
        "model",
        f"C-index{run.mark} (95 % interval)",
        f"mean over folds{run.mark} (SD over folds; SD over seeds)",
        f"judged model ahead by{run.mark} (95 % interval)",
        f"corrected t-test p{run.mark}",
    ]
    rows = [
        [escape(name), estimate(dig(found, "concordance_index")), _spread(found), *_ahead(found, place == 0)]
        for place, (name, found) in enumerate(run.models.items())
    ]
    return markdown_table(headings, rows) if rows else ""


def horizons_table(run: Run) -> str:
    """Returns the measures of absolute risk of each model at each horizon."""
    shown = [key for key in HORIZON_COLUMNS if any(_at(run, key, years) for years in run.horizons)]
    rows = [
        [f"{escape(name)}, {float(years):g} years", *(estimate(dig(found, "horizons", years, key)) for key in shown)]
        for name, found in run.models.items()
        for years in run.horizons
        if dig(found, "horizons", years)
    ]
    headings = ["model, horizon", *(f"{HORIZON_COLUMNS[key]}{run.mark}" for key in shown)]
    return markdown_table(headings, rows) if rows and shown else ""


def not_estimable(run: Run) -> str:
    """Returns why measures at a horizon are not estimable, one line each."""
    lines = [
        f"* {escape(name)}, {float(years):g} years, {HORIZON_COLUMNS.get(key, escape(key))}: "
        + escape(reason or "no reason given")
        for name, found in run.models.items()
        for years in run.horizons
        for key, reason in (dig(found, "horizons", years, "not_estimable") or {}).items()
    ]
    return "\n".join(["Not estimable:\n", *lines]) if lines else ""


def folds_table(run: Run) -> str:
    """Returns records, patients and events of each test fold."""
    folds = run.get("splits", "folds") or []
    rows = [
        [f"seed {fold.get('seed', '?')}, fold {fold.get('fold', '?')}", *_counts(fold)]
        for fold in folds
        if isinstance(fold, Mapping)
    ]
    return markdown_table(["judged part", "records", "patients", f"{run.sim}events"], rows) if rows else ""


def subgroups_table(run: Run) -> str:
    """Returns the C-index within subgroups, with their records and events."""
    rows = [
        [f"{escape(name)}: {escape(level)}", estimate(dig(found, "concordance_index")), *_counts(found)[::2]]
        for name, levels in (run.get("subgroups") or {}).items()
        for level, found in (levels or {}).items()
    ]
    headings = ["subgroup", f"C-index{run.mark} (95 % interval)", "records", f"{run.sim}events"]
    return markdown_table(headings, rows) if rows else ""


def participants_table(run: Run) -> str:
    """Returns age, sex and covariates, with the number of missing values."""
    rows = []
    if age := run.get("data", "age"):
        rows.append(["age (years), mean (SD)", _mean(age.get("mean"), age.get("sd")), count(age.get("num_missing"))])
    if sex := run.get("data", "sex"):
        rows.append(["sex, female / male", f"{count(sex.get('female'))} / {count(sex.get('male'))}",
                     count(sex.get("num_missing"))])  # fmt: skip
    known = run.get("covariates") or {}
    for place, name in enumerate(known.get("names") or []):
        mean, spread, missing = (_item(known.get(key), place) for key in ("means", "stds", "num_missing"))
        rows.append([f"covariate {escape(name)}, mean (SD) in training", _mean(mean, spread), count(missing)])
    return markdown_table(["characteristic", "value", "missing"], rows) if rows else ""


def _spread(found: Mapping[str, Any]) -> str:
    mean, over_folds = dig(found, "over_folds", "mean"), dig(found, "over_folds", "sd")
    if not is_number(mean):
        return "-"
    return f"{number(mean)} ({number(over_folds)}; {number(dig(found, 'over_seeds', 'sd'))})"


def _ahead(found: Mapping[str, Any], judged: bool) -> tuple[str, str]:
    if judged:
        return "judged", "-"
    p = dig(found, "t_test", "p")
    said = "-" if not is_number(p) else "< 0.001" if p < 0.001 else number(p)
    return estimate(dig(found, "ahead")) if dig(found, "ahead") else "-", said


def _at(run: Run, key: str, years: str) -> bool:
    return any(dig(found, "horizons", years, key) is not None for found in run.models.values())


def _counts(found: Any) -> list[str]:
    return [count(dig(found, name)) for name in ("num_records", "num_patients", "num_events")]


def _mean(mean: Any, spread: Any) -> str:
    return f"{number(mean, 1)} ({number(spread, 1)})" if is_number(mean) else "unknown"


def _item(values: Any, place: int) -> Any:
    return values[place] if isinstance(values, list | tuple) and place < len(values) else None
