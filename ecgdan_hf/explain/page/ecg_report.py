"""One ECG under three checkpoints: labels, the nearest statements and a risk, as figures, in words and as tables.

Accessible without the figures: every number of a figure is in its section's table, the important ones in its
alternative text. Every number from simulated outcomes is labelled as simulated. `report_pages` writes the files.
Research use only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.data.check.problems import PROBLEMS
from ecgdan_hf.data.check.signals import check_signal
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.explain.maps.scores import first_log_hazard
from ecgdan_hf.explain.page.figures import Explanation
from ecgdan_hf.explain.page.panels import draw_labels, draw_lead_map, draw_risk, risk_at
from ecgdan_hf.explain.page.paper import SPEED_MM_S, Layout, Page, draw_ecg
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.inference.prediction_rows import DEFAULT_THRESHOLD
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import FLAGS, EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival
from ecgdan_hf.model.pipeline_ecgdan import ZeroShotEcgClassificationPipeline
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks, heart_rate

FloatArray = npt.NDArray[np.float64]

_MAPS_OF = ("labels", "risk")
_TOP_STATEMENTS = 5
_HORIZONS = (1, 2, 3, 5, 10)  # years
_NAMES = Path(__file__).parents[2] / "data" / "text" / "statement_names.csv"
_ELECTRODES = ("limb_leads_reversed", "chest_leads_exchanged", "amplitude_doubtful", "heart_rate_impossible")
_ABOVE_MM = 5.0  # of paper over the first lead
_BAR_MM = 13.0  # under the ECG, for the scale of its colours
_CAVEAT = "Attention shows where the network looked, not why, and proves no cause."
_LIMITS = "the 95 % limits of the baseline hazard; how well the network itself is known is not in them"


@dataclass(frozen=True)
class Networks:
    """The three checkpoints of a report; see [`Networks.load`]."""

    labels: tuple[EcgDanForSequenceClassification, EcgDanFeatureExtractor]
    statements: ZeroShotEcgClassificationPipeline
    risk: tuple[EcgDanForSurvival, EcgDanFeatureExtractor]

    @classmethod
    def load(cls, labels: str | Path, statements: str | Path, risk: str | Path) -> "Networks":
        """Loads the three checkpoints, from folders or from the Hub.

        Args:
            labels: of `EcgDanForSequenceClassification`.
            statements: of `EcgDanForPreTraining` with the prompts of its statements.
            risk: of `EcgDanForSurvival` with a fitted baseline hazard.

        Raises:
            FileNotFoundError, ValueError: as `load_checkpoint`; a checkpoint of another kind.
        """
        classifier, prepare_labels = _load(labels, "EcgDanForSequenceClassification")
        pretrained, prepare_statements = _load(statements, "EcgDanForPreTraining")
        survival, prepare_risk = _load(risk, "EcgDanForSurvival")
        if not pretrained.config.prompt_labels:
            raise ValueError(f"{statements}: expected a checkpoint that carries prompts, found none")
        if not survival.config.gives_risks:
            raise ValueError(f"{risk}: expected a fitted baseline hazard, found none")
        pipeline = ZeroShotEcgClassificationPipeline(model=pretrained, feature_extractor=prepare_statements)
        return cls((classifier, prepare_labels), pipeline, (survival, prepare_risk))


def _load(source: str | Path, expected: str) -> tuple[Any, EcgDanFeatureExtractor]:
    model, feature_extractor = load_checkpoint(source)
    if head_of(model).name != expected:
        raise ValueError(f"{source}: expected a checkpoint of {expected}, found {type(model).__name__}")
    return model, feature_extractor


@dataclass(frozen=True)
class Section:
    """A part of the report; without a figure it has a table only."""

    title: str
    text: str  # what it shows and how to read it
    table: pd.DataFrame  # the numbers of the figure, ready to print
    figure: bytes | None = None  # PNG
    alt: str = ""  # alternative text of the figure
    size_mm: tuple[float, float] = (0.0, 0.0)  # width and height of the figure


@dataclass(frozen=True)
class EcgReport:
    """Report of one ECG."""

    title: str
    facts: str  # one line on the recording and its subject
    findings: tuple[str, ...]  # the results in a sentence each
    notices: tuple[str, ...]  # possible problems of the recording
    sections: tuple[Section, ...]  # in reading order

    @classmethod
    def of(cls, record: EcgRecord, networks: Networks, maps_of: str = "labels") -> "EcgReport":
        """Runs the networks on one ECG; `maps_of` is the network whose attention is drawn, "labels" or "risk".

        Raises:
            ValueError: a record that a feature extractor refuses, or an unknown `maps_of`.
        """
        if maps_of not in _MAPS_OF:
            raise ValueError(f"maps_of: expected {' or '.join(_MAPS_OF)}, got {maps_of!r}")
        found = {name: Explanation.of(record, *getattr(networks, name)) for name in _MAPS_OF}
        shown, model = getattr(networks, maps_of), networks.risk[0]
        labels = _label_table(networks.labels[0].config, found["labels"])
        statements = _statement_table(networks.statements, record)
        risks = _risk_table(model, found["risk"])
        simulated = ", simulated outcome" if model.config.simulated_outcome else ""
        sections = (
            _ecg_section(shown, found[maps_of], maps_of),
            _lead_section(shown[0].config, found[maps_of], maps_of),
            _label_section(networks.labels[0].config, found["labels"], labels),
            _statement_section(statements, len(networks.statements.model.config.prompt_labels)),
            _risk_section(model, found["risk"], risks, simulated),
        )
        said = (_said_of_labels(labels), _said_of_statements(statements), _said_of_risk(networks, risks, simulated))
        title = f"ECG {record.record_id or PurePath(record.source).name or 'without a name'}"
        return cls(title, _facts(record, found), said, _notices(record, found), sections)


def _label_table(config: EcgDanConfig, found: Explanation) -> pd.DataFrame:
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
        rows.append((label, _statement_names().get(label, label), values[index], threshold, positive))
    return pd.DataFrame(rows, columns=["label", "name", "probability", "threshold", "positive"], dtype=object)


def _statement_table(pipeline: ZeroShotEcgClassificationPipeline, record: EcgRecord) -> pd.DataFrame:
    """Returns the statements nearest to an ECG: `code, name, share` of the similarity to all statements."""
    nearest = pipeline(record.as_inputs(), top_k=_TOP_STATEMENTS)
    rows = [
        (entry["label"], _statement_names().get(entry["label"], entry["label"]), entry["score"]) for entry in nearest
    ]
    return pd.DataFrame(rows, columns=["code", "name", "share"])


def _risk_table(model: EcgDanForSurvival, found: Explanation) -> pd.DataFrame:
    """Risk with its limits, `years, risk, low, high`; NaN beyond the follow-up, limits NaN where there are none."""
    columns = dict(zip(("risk", "low", "high"), risk_at(model, found.output, _HORIZONS), strict=True))
    return pd.DataFrame({"years": _HORIZONS, **columns})


@cache
def _statement_names() -> Mapping[str, str]:
    """SCP-ECG codes (EN 1064, as PTB-XL uses them) and the names of superclasses -> plain words."""
    table = pd.read_csv(_NAMES, keep_default_na=False)
    return dict(zip(table["code"], table["name"], strict=True))


def _facts(record: EcgRecord, found: Mapping[str, Explanation]) -> str:
    person = [f"{record.age:.0f} years" if record.age is not None else "", record.sex or ""]
    used = found["labels"]
    signal_mv = np.nan_to_num(record.signal_mv).astype(np.float64)
    peaks = find_r_peaks(signal_mv, record.sampling_rate)
    rate = heart_rate(peaks, signal_mv.shape[1], record.sampling_rate)
    recording = [
        f"{record.duration_seconds:.1f} s at {record.sampling_rate:g} Hz",
        f"{int(used.lead_mask.sum())} of {len(used.lead_mask)} leads",
        f"heart rate {rate:.0f}/min" if rate else "no heart beat found",
    ]
    return ", ".join(filter(None, (*person, *recording)))


def _notices(record: EcgRecord, found: Mapping[str, Explanation]) -> tuple[str, ...]:
    """Describes quality flags, and electrodes that look exchanged; leaves out harmless flags."""
    said = {}
    for flag in dict.fromkeys(flag for part in found.values() for flag in part.flags):
        name, _, detail = flag.partition(":")
        if name != "resampled":
            said[name] = _with_detail(FLAGS.get(name, name.replace("_", " ")), detail)
    for name, detail in check_signal(record).problems.items():
        if name in _ELECTRODES:
            said.setdefault(name, _with_detail(PROBLEMS[name].meaning, detail))
    return tuple(said.values())


def _with_detail(words: str, detail: str) -> str:
    return f"{words} ({detail.replace('+', ', ')})" if detail else words


def _said_of_labels(labels: pd.DataFrame) -> str:
    if labels["threshold"].isna().all():
        first = labels.iloc[0]
        return f"Most probable label: {first['name']} ({first['label']}), {first['probability']:.2f}."
    positive = labels[labels["positive"] == True]  # noqa: E712 (objects, some None)
    names = [f"{row['name']} ({row['label']}, {row['probability']:.2f})" for _, row in positive.iterrows()]
    return f"Labels that reach their threshold: {', '.join(names) or 'none'}."


def _said_of_statements(statements: pd.DataFrame) -> str:
    names = ", ".join(statements["name"][:3])
    return f"Nearest statements, without training for them: {names}."


def _said_of_risk(networks: Networks, risks: pd.DataFrame, simulated: str) -> str:
    known = risks[np.isfinite(risks["risk"])]
    if known.empty:
        return f"No risk{simulated}: its follow-up is shorter than {_HORIZONS[0]} year."
    row = known[known["years"] <= 5].iloc[-1]
    endpoint = networks.risk[0].config.endpoint_text
    return f"Risk of {endpoint} within {_years(row['years'])}: {_percent(row)}{simulated}."


def _years(years: float) -> str:
    return f"{years:g} year" if years == 1 else f"{years:g} years"


def _percent(row: pd.Series) -> str:
    if not np.isfinite(row["risk"]):
        return "beyond the follow-up"
    limits = f" ({100 * row['low']:.1f} to {100 * row['high']:.1f} %)" if np.isfinite(row["high"]) else ""
    return f"{100 * row['risk']:.1f} %{limits}"


def _ecg_section(network: tuple[Any, EcgDanFeatureExtractor], found: Explanation, maps_of: str) -> Section:
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
        bar.set_label("temporal attention, multiple of even attention", fontsize=8, labelpad=1)
        bar.ax.tick_params(labelsize=8, length=2, pad=1)
    table, most = _lead_rows(names, found, rate)
    kind = "One median beat" if network[1].input_kind == "median_beat" else f"{seconds:.0f} seconds"
    scale = f"{SPEED_MM_S:g} mm/s and {gain:g} mm/mV"
    recorded = ", ".join(name for name, there in zip(names, found.lead_mask, strict=True) if there)
    text = f"{kind}, filtered as the network sees them, on paper at {scale}: a small square is 40 ms by "
    text += f"{1 / gain:g} mV. "
    if most:
        text += f"Dark bands: where the network of the {maps_of} looked. {_CAVEAT}"
    alt = f"ECG on paper at {scale}; {kind.lower()}, leads {recorded}. {most}"
    return Section("ECG with temporal attention", text, table, page.png(), alt.strip(), size_mm)


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


def _lead_section(config: EcgDanConfig, found: Explanation, maps_of: str) -> Section:
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


def _label_section(config: EcgDanConfig, found: Explanation, labels: pd.DataFrame) -> Section:
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


def _statement_section(statements: pd.DataFrame, compared: int) -> Section:
    text = (
        f"The {len(statements)} of {compared} SCP statements whose text is nearest to this ECG (zero-shot: the "
        "network was aligned with reports, not trained for these labels). The share is that of the similarity to all "
        "of them; it ranks statements and is not a probability. Rhythm labels are recognised poorly."
    )
    table = pd.DataFrame(
        {
            "Statement": [
                f"{name} ({code})" for name, code in zip(statements["name"], statements["code"], strict=True)
            ],
            "Share of similarity": [f"{100 * value:.1f} %" for value in statements["share"]],
        }
    )
    return Section("Nearest statements", text, table)


def _risk_section(model: EcgDanForSurvival, found: Explanation, risks: pd.DataFrame, simulated: str) -> Section:
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
    cells = [f"{_percent(row)}{simulated}" for _, row in risks.iterrows()]
    table = pd.DataFrame({"Years after the ECG": [str(year) for year in risks["years"]], f"Risk of {endpoint}": cells})
    said = "; ".join(f"{_years(year)} {cell}" for year, cell in zip(risks["years"], cells, strict=True))
    title = "Risk" + (" (simulated outcome)" if simulated else "")
    return Section(title, text, table, page.png(), f"Risk curve of {endpoint}: {said}.", size_mm)
