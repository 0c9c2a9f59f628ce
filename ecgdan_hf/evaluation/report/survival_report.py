"""The page of a survival evaluation: figures, TRIPOD+AI report in Markdown and HTML, predictions.

Takes predictions of one repetition or of many, in the columns that `repeated_cv` describes; scores are standardised
within their fold and averaged over seeds, so that a figure shows each record once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.evaluation.measures.absolute_risk import dynamic_auc
from ecgdan_hf.evaluation.measures.intervals import FloatArray
from ecgdan_hf.evaluation.measures.risk_calibration import calibration_curve
from ecgdan_hf.evaluation.measures.survival import calibration
from ecgdan_hf.evaluation.protocols.held_out import AGE_SEX, ATTAINABLE, RISK
from ecgdan_hf.evaluation.protocols.repeated_cv import (
    as_predicted,
    describe,
    judge_risks,
    risk_column,
    standardised,
    subgroups,
    subjects,
)
from ecgdan_hf.evaluation.report import tripod
from ecgdan_hf.evaluation.report.attention_figures import lead_attention_figure
from ecgdan_hf.evaluation.report.performance_figures import (
    auc_figure,
    calibration_figure,
    forest_figure,
    subgroup_table,
)
from ecgdan_hf.evaluation.report.survival_figures import kaplan_meier_figure, risk_groups, risk_histogram_figure

DPI = 130
AUC_MODELS = 7
AUC_YEARS = 10
"""Points of the AUC's curve, between the first tenth and nine tenths of the longest follow-up."""


@dataclass(frozen=True)
class Judged:
    """What the figures are drawn from.

    Attributes:
        predictions: as in `repeated_cv.judge`.
        models: names, the judged one first.
        metrics: content of `metrics.json`.
        lead_attention: (records, leads, leads) of the judged network, in order of `record_id`; None draws none.
        lead_names: of its rows and columns.
    """

    predictions: pd.DataFrame
    models: Sequence[str]
    metrics: Mapping[str, Any]
    lead_attention: FloatArray | None = None
    lead_names: Sequence[str] = ()

    @property
    def people(self) -> pd.DataFrame:
        """One row per record."""
        return subjects(self.predictions)

    @property
    def score(self) -> FloatArray:
        """The judged model's, (records,)."""
        return self.score_of(self.models[0])

    @property
    def simulated(self) -> bool:
        """Whether the outcome is."""
        return bool(self.metrics.get("simulated_outcome"))

    def score_of(self, model: str) -> FloatArray:
        """Standardised within folds, mean over seeds: (records,)."""
        result: FloatArray = standardised(self.predictions, model).mean(axis=1)
        return result


def write_survival_report(
    folder: Path, judged: Judged, recipe: Mapping[str, Any] | None = None, name: str | None = None
) -> None:
    """`report.md`, `report.html`, `predictions.csv` and the figures, into an existing folder.

    A figure that these records do not give (no event in a subgroup, too short a follow-up) is left out.
    """
    drawn = _draw(folder, judged)
    text = tripod.report(judged.metrics, recipe, drawn, name or judged.models[0])
    judged.predictions.to_csv(folder / "predictions.csv", index=False, float_format="%.6g")
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(tripod.html(text, folder), encoding="utf-8")


def write_held_out_page(
    folder: Path,
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    recipe: Mapping[str, Any] | None = None,
    n: int = 200,
) -> None:
    """`report.html` and its figures for one held-out evaluation, into an existing folder.

    Args:
        folder: where to.
        predictions: of `protocol.held_out`: subjects, outcome, a column for each model, and the judged one's risk.
        metrics: of `protocol.held_out`.
        recipe: of the judged checkpoint.
        n: resamples behind the intervals that `metrics` does not have.
    """
    models = [name for name in metrics["models"] if name in predictions]
    judged = predictions.assign(seed=0, fold=1)
    columns = [name for name in predictions if str(name).startswith(f"{RISK} | ")]
    judged = judged.rename(columns={name: str(name).replace(RISK, models[0], 1) for name in columns})
    horizons = [float(str(name).split("within ")[1].split()[0]) for name in columns]
    found = {
        name: {"concordance_index": entry, **({"ahead": entry["ahead"]} if "ahead" in entry else {})}
        for name, entry in metrics["models"].items()
    }
    found[models[0]]["horizons"] = judge_risks(judged, models[0], horizons, n)
    page = {
        "task": "survival",
        "protocol": "held-out",
        **{key: metrics.get(key) for key in ("simulated_outcome", "endpoint", "test_folds", "statements")},
        "data": describe(predictions),
        "models": found,
        "subgroups": metrics.get("subgroups") or subgroups(judged, models[0], n),
    }
    drawn = _draw(folder, Judged(judged, models, page))
    text = tripod.report(page, recipe, drawn, models[0])
    (folder / "report.html").write_text(tripod.html(text, folder), encoding="utf-8")


def _draw(folder: Path, judged: Judged) -> dict[str, Path]:
    drawn = {}
    for caption, (file, draw) in FIGURES.items():
        try:
            figure = draw(judged)
        except ValueError:
            continue
        if figure is not None:
            figure.savefig(folder / file, dpi=DPI)
            drawn[caption] = folder / file
    return drawn


def _kaplan_meier(kind: str) -> Callable[[Judged], Any]:
    def draw(judged: Judged) -> Any:
        people = judged.people
        return kaplan_meier_figure(people["event"], people["time"], judged.score, judged.simulated, kind)

    return draw


def _calibration(judged: Judged) -> Any:
    horizons = judged.metrics["models"][judged.models[0]].get("horizons") or {}
    if not horizons:
        return None
    years = float(next(iter(horizons)))
    people = judged.people
    risk = as_predicted(judged.predictions, risk_column(judged.models[0], years)).mean(axis=1)
    truth = people["event"], people["time"], risk, years
    smooth = calibration_curve(*truth, people["patient_id"].to_numpy())
    return calibration_figure(calibration(*truth, num_groups=10), risk, years, smooth, judged.simulated)


def _auc(judged: Judged) -> Any:
    people = judged.people
    years = np.linspace(0.1, 0.9, AUC_YEARS) * people["time"].max()
    curves = {}
    bounds = [name for name in (AGE_SEX, ATTAINABLE) if name in judged.models]  # what to beat, and the most there is
    for model in list(dict.fromkeys([judged.models[0], *bounds, *judged.models]))[:AUC_MODELS]:
        score = judged.score_of(model)
        values = [_auc_at(people, score, year) for year in years]
        curves[model] = {"years": years, "auc": np.array(values)}
    return auc_figure(curves, len(people), int(people["event"].sum()), judged.simulated)


def _auc_at(people: pd.DataFrame, score: FloatArray, year: float) -> float:
    try:
        return dynamic_auc(people["event"], people["time"], score, year)
    except ValueError:  # nobody had the event by then, or nobody was left
        return float("nan")


def _forest(judged: Judged) -> Any:
    counts = {key: judged.metrics["data"][key] for key in ("num_records", "num_events")}
    overall = {**judged.metrics["models"][judged.models[0]], **counts}
    return forest_figure(subgroup_table(overall, judged.metrics["subgroups"]), judged.simulated)


def _histogram(judged: Judged) -> Any:
    return risk_histogram_figure(judged.people["event"], judged.score, judged.simulated)


def _lead_attention(judged: Judged) -> Any:
    if judged.lead_attention is None:
        return None
    event = judged.people["event"]
    high = risk_groups(judged.score, "prevalence", event).index
    return lead_attention_figure(judged.lead_attention, high, event, judged.lead_names, judged.simulated)


FIGURES: dict[str, tuple[str, Callable[[Judged], Any]]] = {
    "Kaplan-Meier curves by thirds of predicted risk": ("kaplan_meier.png", _kaplan_meier("tertiles")),
    "Kaplan-Meier curves, the share of highest risk equal to the share of events against the rest": (
        "kaplan_meier_prevalence.png",
        _kaplan_meier("prevalence"),
    ),
    "Calibration of absolute risk": ("calibration.png", _calibration),
    "AUC over the years": ("auc.png", _auc),
    "C-index in subgroups": ("subgroups.png", _forest),
    "Predicted risk of those with and without the event": ("risk_histogram.png", _histogram),
    "Attention between leads by predicted risk": ("lead_attention.png", _lead_attention),
}
"""Caption -> file, and what draws it (None where the run has nothing to draw)."""
