"""The sections of the report of one ECG: tracing, labels, leads, risk, statements; each in words and as a table.

In the order in which a cardiologist reads. A simulated risk is folded away, and of the statements that the network was
not trained for, only those are shown that it is right about more often than chance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.explain.maps.scores import first_log_hazard
from ecgdan_hf.explain.page.figures import Explanation
from ecgdan_hf.explain.page.panels import draw_labels, draw_lead_map, draw_risk, risk_at
from ecgdan_hf.explain.page.paper import SPEED_MM_S, Layout, Page, draw_ecg
from ecgdan_hf.inference.prediction_rows import DEFAULT_THRESHOLD
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.model.pipeline_ecgdan import ZeroShotEcgClassificationPipeline

STATEMENT_SCORE = 0.8
"""Least score of a statement that is shown, see docs/zero_shot.md, "How often a statement is right"."""
HORIZONS = (1, 2, 3, 5, 10)  # years
_TOP_STATEMENTS = 5
_NAMES = Path(__file__).parents[2] / "data" / "text" / "statement_names.csv"
_ABOVE_MM = 5.0  # of paper over the first lead
_BAR_MM = 13.0  # under the ECG, for the scale of its colours
_CAVEAT = "Attention shows where the network looked, not why, and proves no cause."
_LIMITS = "the 95 % limits of the baseline hazard; how well the network itself is known is not in them"


@dataclass(frozen=True)
class Section:
    """A part of the report; without a figure it has a table only."""

    title: str
    text: str  # what it shows and how to read it
    table: pd.DataFrame  # the numbers of the figure, ready to print
    figure: bytes | None = None  # PNG
    alt: str = ""  # alternative text of the figure
    size_mm: tuple[float, float] = (0.0, 0.0)  # width and height of the figure
    folded: str = ""  # words to click on before it is shown; empty where it is shown at once


def label_table(config: EcgDanConfig, found: Explanation) -> pd.DataFrame:
    """One row a label, in the order of the figure: `label, name, probability, threshold, positive`.

    The last two are None where fewer than half of the network's leads were recorded: thresholds do not hold then.
    """
    scores = found.output.logits[0].float()
    single = config.problem_type == "single_label_classification"
    values = config.label_probabilities(scores).tolist()
    enough = config.thresholds_hold(int(found.lead_mask.sum()))
    rows = []
    for index in np.argsort([-value for value in values], kind="stable"):
        label = config.label_names[index]
        threshold = (config.thresholds or {}).get(label, DEFAULT_THRESHOLD) if enough and not single else None
        positive = None if threshold is None else values[index] >= threshold
        rows.append((label, statement_names().get(label, label), values[index], threshold, positive))
    return pd.DataFrame(rows, columns=["label", "name", "probability", "threshold", "positive"], dtype=object)


def statement_table(pipeline: ZeroShotEcgClassificationPipeline, record: EcgRecord) -> pd.DataFrame:
    """Returns the statements above what chance gives, at most five, highest first: `code, name, score`.

    A network trained to tell true statements from false ones has to score `STATEMENT_SCORE`; one that only ranks them,
    more than an even share of the similarity to all of them.
    """
    head = pipeline.model.alignment_head
    least = STATEMENT_SCORE if head.has_bias else 1.0 / len(pipeline.model.config.prompt_labels)
    answers = pipeline(record.as_inputs(), multi_label=head.has_bias, top_k=_TOP_STATEMENTS)
    rows = [
        (answer["label"], statement_names().get(answer["label"], answer["label"]), answer["score"])
        for answer in answers
        if answer["score"] >= least
    ]
    return pd.DataFrame(rows, columns=["code", "name", "score"])


def risk_table(model: EcgDanForSurvival, found: Explanation) -> pd.DataFrame:
    """Risk with its limits, `years, risk, low, high`; NaN beyond the follow-up, limits NaN where there are none."""
    columns = dict(zip(("risk", "low", "high"), risk_at(model, found.output, HORIZONS), strict=True))
    return pd.DataFrame({"years": HORIZONS, **columns})


@cache
def statement_names() -> Mapping[str, str]:
    """SCP-ECG codes (EN 1064, as PTB-XL uses them) and the names of superclasses -> plain words."""
    table = pd.read_csv(_NAMES, keep_default_na=False)
    return dict(zip(table["code"], table["name"], strict=True))


def ecg_section(network: tuple[Any, EcgDanFeatureExtractor], found: Explanation, maps_of: str) -> Section:
    """The tracing on paper at 25 mm/s with the attention of the network of `maps_of`."""
    config, rate = network[0].config, float(network[1].sampling_rate)
    names, seconds = list(config.lead_names), found.signal_mv.shape[1] / rate
    layout = Layout.of(len(names), seconds)
    paper_mm, bar_mm = layout.height_mm + _ABOVE_MM, _BAR_MM if found.attention is not None else 0.0
    size_mm = (layout.width_mm, paper_mm + bar_mm)
    page = Page(*size_mm)
    axes = page.axes(0, bar_mm, layout.width_mm, paper_mm)
    gain, band = draw_ecg(axes, found.signal_mv, names, found.lead_mask, rate, found.attention)
    layout.draw_grid(axes, above_mm=_ABOVE_MM)
    if band is not None:
        bar_axes = page.axes(layout.width_mm - 105, _BAR_MM - 5, 100, 3)
        bar = page.figure.colorbar(band, cax=bar_axes, orientation="horizontal")
        bar.set_label("attention over time, multiple of even attention", fontsize=8, labelpad=1)
        bar.ax.tick_params(labelsize=8, length=2, pad=1)
    table, most = _lead_rows(names, found, rate)
    kind = "One median beat" if network[1].input_kind == "median_beat" else f"{seconds:.0f} seconds"
    scale = f"{SPEED_MM_S:g} mm/s and {gain:g} mm/mV"
    recorded = ", ".join(name for name, there in zip(names, found.lead_mask, strict=True) if there)
    text = f"{kind}, filtered as the network sees them, at {scale}: a small square is 40 ms by {1 / gain:g} mV. "
    if most:
        text += f"Blue bands: where the network of the {maps_of} looked more than evenly. {_CAVEAT}"
    alt = f"ECG on paper at {scale}; {kind.lower()}, leads {recorded}. {most}"
    return Section("ECG with attention", text, table, page.png(), alt.strip(), size_mm)


def _lead_rows(names: list[str], found: Explanation, rate: float) -> tuple[pd.DataFrame, str]:
    """Returns the table of the ECG, and a sentence on where attention is highest."""
    rows = []
    for index, name in enumerate(names):
        if not found.lead_mask[index]:
            rows.append((name, "not recorded", "", "", ""))
            continue
        signal, weights = found.signal_mv[index], None if found.attention is None else found.attention[index]
        limits = (f"{signal.min():.2f}", f"{signal.max():.2f}")
        seen = ("", "") if weights is None else (f"{weights.max():.2f}", f"{weights.argmax() / rate:.2f}")
        rows.append((name, *limits, *seen))
    columns = ["Lead", "Lowest, mV", "Highest, mV", "Highest attention, times even", "at second"]
    most = ""
    if found.attention is not None:
        shown = np.where(found.lead_mask[:, None], found.attention, -np.inf)
        lead, sample = np.unravel_index(int(shown.argmax()), shown.shape)
        low = float(np.min(found.attention[found.lead_mask]))
        most = (
            f"Temporal attention is between {low:.2f} and {shown[lead, sample]:.2f} times even; highest in lead "
            f"{names[lead]} at {sample / rate:.1f} s."
        )
    return pd.DataFrame(rows, columns=columns), most


def lead_section(config: EcgDanConfig, found: Explanation, maps_of: str) -> Section:
    """Which leads the network of `maps_of` reads, as a map."""
    names, size_mm = list(config.lead_names), (84.0, 78.0)
    page = Page(*size_mm)
    draw_lead_map(page.axes(9, 8, 61, 61), found.lead_map, names, found.lead_mask)
    title = "Which leads it reads"
    if found.lead_map is None:
        text = f"The network of the {maps_of} has no attention across leads."
        return Section(title, text, pd.DataFrame(), page.png(), text, size_mm)
    there = np.flatnonzero(found.lead_mask)
    present = [names[index] for index in there]
    shares = found.lead_map[np.ix_(there, there)]
    table = pd.DataFrame([[f"{value:.2f}" for value in row] for row in shares], columns=present)
    table.insert(0, "Lead, reads from", present)
    column = shares.mean(axis=0)
    order = np.argsort(-column, kind="stable")[:3]
    most = ", ".join(f"{present[index]} {100 * column[index]:.0f} %" for index in order)
    even = 100 / len(present)
    text = (
        f"How much each lead (row) reads from each (column) in the network of the {maps_of}; each row adds up to 1, "
        f"even attention is {even:.0f} %. Read most, mean over rows: {most}. {_CAVEAT}"
    )
    alt = (
        f"Map of lead attention, {len(present)} by {len(present)} leads. Read most, mean over rows: {most}; even would"
    )
    return Section(title, text, table, page.png(), f"{alt} be {even:.0f} %.", size_mm)


def label_section(config: EcgDanConfig, found: Explanation, labels: pd.DataFrame) -> Section:
    """Probabilities of the labels with their thresholds."""
    size_mm, told = (84.0, 54.0), bool(labels["threshold"].notna().any())
    page = Page(*size_mm)
    draw_labels(page.axes(13, 7, 69, 41), config, found.output.logits, with_thresholds=told)
    said = [f"{row['name']} {row['probability']:.2f}" for _, row in labels.iterrows()]
    text = "Probability of each label under the network; labels do not exclude each other. "
    text += (
        "A threshold is where F1 was highest in validation, not a decision limit."
        if told
        else "Fewer than half of the network's leads were recorded: thresholds do not hold and are left out."
    )
    table = pd.DataFrame(
        {
            "Label": [f"{name} ({label})" for name, label in zip(labels["name"], labels["label"], strict=True)],
            "Probability": [f"{value:.2f}" for value in labels["probability"]],
            "Threshold": ["none" if pd.isna(value) else f"{value:.2f}" for value in labels["threshold"]],
            "Reaches it": [{None: "", True: "yes", False: "no"}[value] for value in labels["positive"]],
        }
    )
    return Section("Labels", text, table, page.png(), f"Label probabilities: {', '.join(said)}.", size_mm)


def statement_section(statements: pd.DataFrame, compared: int) -> Section:
    """What a network says that compares the ECG with statements of reports (zero-shot); without a figure."""
    text = (
        f"Of {compared} statements of ECG reports, those that the network finds true more often than chance would; it "
        "was not trained for each of them (zero-shot). Scores rank and are no probabilities of a diagnosis."
    )
    if not len(statements):
        text = f"None of {compared} statements of ECG reports is found true more often than chance would (zero-shot)."
    table = pd.DataFrame(
        {
            "Statement": [
                f"{name} ({code})" for name, code in zip(statements["name"], statements["code"], strict=True)
            ],
            "Score": [f"{value:.2f}" for value in statements["score"]],
        }
    )
    return Section("Statements that may apply", text, table)


def risk_section(model: EcgDanForSurvival, found: Explanation, risks: pd.DataFrame, simulated: str) -> Section:
    """The risk curve; `simulated` is what stands behind each risk of a simulated outcome, which is folded away."""
    size_mm, config = (84.0, 62.0), model.config
    page = Page(*size_mm)
    draw_risk(page.axes(11, 10, 71, 46), model, found.output)
    endpoint = config.endpoint_text
    log_hazard = float(first_log_hazard(found.output)[0])
    text = f"Risk of {endpoint} after the ECG (log hazard {log_hazard:+.2f}); in brackets {_LIMITS}."
    if config.simulated_outcome:
        text += (
            " The outcome is simulated: follow-up was made up from a known hazard to test the method. These numbers "
            "say nothing about a patient."
        )
    cells = [f"{percent(row)}{simulated}" for _, row in risks.iterrows()]
    table = pd.DataFrame({"Years after the ECG": [str(year) for year in risks["years"]], f"Risk of {endpoint}": cells})
    said = "; ".join(f"{in_years(year)} {cell}" for year, cell in zip(risks["years"], cells, strict=True))
    title = "Risk" + (" (simulated outcome)" if simulated else "")
    folded = (
        "Show a risk that was learned from simulated outcomes, and says nothing about a patient" if simulated else ""
    )
    return Section(title, text, table, page.png(), f"Risk curve of {endpoint}: {said}.", size_mm, folded)


def percent(row: pd.Series) -> str:
    """Returns the risk in a row of [`risk_table`] with its limits."""
    if not np.isfinite(row["risk"]):
        return "beyond the follow-up"
    limits = f" ({100 * row['low']:.1f} to {100 * row['high']:.1f} %)" if np.isfinite(row["high"]) else ""
    return f"{100 * row['risk']:.1f} %{limits}"


def in_years(years: float) -> str:
    """Returns such as "5 years"."""
    return f"{years:g} year" if years == 1 else f"{years:g} years"
