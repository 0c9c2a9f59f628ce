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

from ecgdan_hf.evaluation.measures.absolute_risk import decision_curve, dynamic_auc
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import FloatArray
from ecgdan_hf.evaluation.measures.risk_calibration import RiskCalibration
from ecgdan_hf.evaluation.measures.survival import calibration
from ecgdan_hf.evaluation.protocols.held_out import AGE_SEX, ATTAINABLE, RISK, HeldOut
from ecgdan_hf.evaluation.protocols.repeated_cv import Predictions, describe_cohort
from ecgdan_hf.evaluation.report.attention_figures import lead_attention_figure
from ecgdan_hf.evaluation.report.comparison_text import held_out_text
from ecgdan_hf.evaluation.report.html_page import html_page
from ecgdan_hf.evaluation.report.performance_figures import (
    auc_figure,
    calibration_figure,
    decision_curve_figure,
    forest_figure,
)
from ecgdan_hf.evaluation.report.survival_figures import kaplan_meier_figure, risk_groups, risk_histogram_figure
from ecgdan_hf.evaluation.report.tripod import FOLDED, FOLDED_WORD, tripod_report
from ecgdan_hf.evaluation.small_cells import without_small_cells
from ecgdan_hf.spreadsheets import plain_cells

_DPI = 130
_AUC_MODELS = 7
_AUC_YEARS = 10
"""Points of the AUC's curve, between the first tenth and nine tenths of the longest follow-up."""


@dataclass(frozen=True)
class Judged:
    """Predictions and metrics behind the figures.

    Attributes:
        predictions: of one repetition or of many.
        models: names, the evaluated model first.
        metrics: content of `metrics.json`.
        lead_attention: (records, leads, leads) of the evaluated network, in order of `record_id`; None draws none.
        lead_names: of its rows and columns.
    """

    predictions: Predictions
    models: Sequence[str]
    metrics: Mapping[str, Any]
    lead_attention: FloatArray | None = None
    lead_names: Sequence[str] = ()

    @property
    def people(self) -> pd.DataFrame:
        """One row per record."""
        return self.predictions.people

    @property
    def score(self) -> FloatArray:
        """Scores of the evaluated model: (records,)."""
        return self.score_of(self.models[0])

    @property
    def simulated(self) -> bool:
        """Whether the outcome is simulated."""
        return bool(self.metrics.get("simulated_outcome"))

    def score_of(self, model: str) -> FloatArray:
        """Returns scores standardised within folds, mean over seeds: (records,)."""
        result: FloatArray = self.predictions.standardised(model).mean(axis=1)
        return result

    def write(self, folder: Path, recipe: Mapping[str, Any] | None = None) -> None:
        """Writes `report.md`, `report.html`, `predictions.csv` and the figures into an existing folder.

        A figure that these records do not allow (no event in a subgroup, too short a follow-up) is left out. With
        `small_cells` in the metrics, nothing tells of single people: no predictions, no histogram.
        """
        text = tripod_report(self.metrics, recipe, _draw(folder, self), self.models[0])
        if not self.metrics.get("small_cells"):
            plain_cells(self.predictions.table).to_csv(folder / "predictions.csv", index=False, float_format="%.6g")
        (folder / "report.md").write_text(text, encoding="utf-8")
        (folder / "report.html").write_text(html_page(text, folder, FOLDED, FOLDED_WORD), encoding="utf-8")


def write_held_out_report(folder: Path, result: HeldOut) -> None:
    """Writes `report.md` and `predictions.csv`, and for survival `report.html` and its figures, into a folder."""
    text = held_out_text(result.metrics)
    if result.risk_groups is not None:
        _write_held_out_page(folder, result.predictions, result.metrics, result.recipe)
        text += "\n![Kaplan-Meier curves by thirds of predicted risk](kaplan_meier.png)\n"
        text += "\nWhat TRIPOD+AI asks for, as far as this run can say it: `report.html`.\n"
    if not result.metrics.get("small_cells"):
        plain_cells(result.predictions).to_csv(folder / "predictions.csv", index=False, float_format="%.6g")
    (folder / "report.md").write_text(text, encoding="utf-8")


def _write_held_out_page(
    folder: Path,
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    recipe: Mapping[str, Any] | None,
    n: int = 200,
) -> None:
    """Writes the page; `n` resamples give the intervals that `metrics` does not have."""
    models = [name for name in metrics["models"] if name in predictions]
    risks = {
        str(name): str(name).replace(RISK, models[0], 1) for name in predictions if str(name).startswith(f"{RISK} | ")
    }
    judged = Predictions(predictions.assign(seed=0, fold=1).rename(columns=risks))
    horizons = [float(name.split("within ")[1].split()[0]) for name in risks]
    found = {
        name: {"concordance_index": entry, **({"ahead": entry["ahead"]} if "ahead" in entry else {})}
        for name, entry in metrics["models"].items()
    }
    found[models[0]]["horizons"] = judged.evaluate_risks(models[0], horizons, n)
    page = {
        "task": "survival",
        "protocol": "held-out",
        **{key: metrics.get(key) for key in ("simulated_outcome", "endpoint", "test_folds", "statements")},
        "data": describe_cohort(predictions),
        "models": found,
        "subgroups": metrics.get("subgroups") or judged.subgroups(models[0], n),
    }
    if smallest := metrics.get("small_cells"):
        page = without_small_cells(page, smallest)
    drawn = _draw(folder, Judged(judged, models, page))
    text = tripod_report(page, recipe, drawn, models[0])
    (folder / "report.html").write_text(html_page(text, folder, FOLDED, FOLDED_WORD), encoding="utf-8")


def _draw(folder: Path, judged: Judged) -> dict[str, Path]:
    drawn = {}
    for caption, (file, draw) in _FIGURES.items():
        try:
            figure = draw(judged)
        except ValueError:
            continue
        if figure is not None:
            figure.savefig(folder / file, dpi=_DPI)
            drawn[caption] = folder / file
    return drawn


def _kaplan_meier(kind: str) -> Callable[[Judged], Any]:
    def draw(judged: Judged) -> Any:
        people = judged.people
        smallest = judged.metrics.get("small_cells", 0)
        return kaplan_meier_figure(
            people["event"], judged.predictions.times, judged.score, judged.simulated, kind, small_cells=smallest
        )

    return draw


def _first_risks(judged: Judged) -> tuple[float, FloatArray] | None:
    """The first horizon of the evaluated model, in years, and its risks within it: (records,)."""
    horizons = judged.metrics["models"][judged.models[0]].get("horizons") or {}
    if not horizons:
        return None
    years = float(next(iter(horizons)))
    return years, judged.predictions.risks(judged.models[0], years).mean(axis=1)


def _calibration(judged: Judged) -> Any:
    found = _first_risks(judged)
    if found is None:
        return None
    years, risk = found
    people = judged.people
    truth = people["event"], judged.predictions.times, risk, years
    smooth = RiskCalibration(*truth, people["patient_id"].to_numpy()).curve()
    return calibration_figure(calibration(*truth, num_groups=10), risk, years, smooth, judged.simulated)


def _decision_curve(judged: Judged) -> Any:
    found = _first_risks(judged)
    if found is None or judged.metrics.get("small_cells"):
        return None  # its ends are groups of a few people
    years, risk = found
    people = judged.people
    curve = decision_curve(people["event"], judged.predictions.times, risk, years)
    return decision_curve_figure(curve, years, len(people), int((people["event"] == 1).sum()), judged.simulated)


def _auc(judged: Judged) -> Any:
    people = judged.people
    FollowUp(people["event"], judged.predictions.times).refuse_entry("AUC over the years")
    years = np.linspace(0.1, 0.9, _AUC_YEARS) * people["time"].max()
    curves = {}
    bounds = [name for name in (AGE_SEX, ATTAINABLE) if name in judged.models]  # what to beat, and the most there is
    for model in list(dict.fromkeys([judged.models[0], *bounds, *judged.models]))[:_AUC_MODELS]:
        score = judged.score_of(model)
        values = [_auc_at(people, score, year) for year in years]
        curves[model] = {"years": years, "auc": np.array(values)}
    return auc_figure(curves, len(people), int((people["event"] == 1).sum()), judged.simulated)


def _auc_at(people: pd.DataFrame, score: FloatArray, year: float) -> float:
    try:
        return dynamic_auc(people["event"], people["time"], score, year)
    except ValueError:  # nobody had the event by then, or nobody was left
        return float("nan")


def _forest(judged: Judged) -> Any:
    counts = {key: judged.metrics["data"][key] for key in ("num_records", "num_events")}
    overall = {**judged.metrics["models"][judged.models[0]], **counts}
    return forest_figure(overall, judged.metrics["subgroups"], judged.simulated)


def _histogram(judged: Judged) -> Any:
    if judged.metrics.get("small_cells"):
        return None  # its bins are groups of a few people
    return risk_histogram_figure(judged.people["event"] == 1, judged.score, judged.simulated)


def _lead_attention(judged: Judged) -> Any:
    if judged.lead_attention is None:
        return None
    event = (judged.people["event"] == 1).astype(float)
    high = risk_groups(judged.score, "prevalence", event).index
    return lead_attention_figure(judged.lead_attention, high, event, judged.lead_names, judged.simulated)


_FIGURES: dict[str, tuple[str, Callable[[Judged], Any]]] = {
    "Kaplan-Meier curves by thirds of predicted risk": ("kaplan_meier.png", _kaplan_meier("tertiles")),
    "Kaplan-Meier curves, the share of highest risk equal to the share of events against the rest": (
        "kaplan_meier_prevalence.png",
        _kaplan_meier("prevalence"),
    ),
    "Calibration of absolute risk": ("calibration.png", _calibration),
    "Net benefit by threshold of risk": ("decision_curve.png", _decision_curve),
    "AUC over the years": ("auc.png", _auc),
    "C-index in subgroups": ("subgroups.png", _forest),
    "Predicted risk of those with and without the event": ("risk_histogram.png", _histogram),
    "Attention between leads by predicted risk": ("lead_attention.png", _lead_attention),
}
"""Caption -> file, and what draws it (None where the run has nothing to draw)."""
