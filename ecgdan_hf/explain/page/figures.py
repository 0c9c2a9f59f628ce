"""One page that explains one prediction: the ECG with temporal attention, the map of leads, the risk or the labels."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.explain.maps.attention import ReceptiveField, sample_attention
from ecgdan_hf.explain.maps.methods import Attribution
from ecgdan_hf.explain.maps.scores import first_log_hazard, output_of
from ecgdan_hf.explain.page.first_lines import about_recording, measured_line
from ecgdan_hf.explain.page.panels import draw_labels, draw_lead_map, draw_risk
from ecgdan_hf.explain.page.paper import GREY, ORANGE, SPEED_MM_S, Layout, Page, draw_ecg
from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival, EcgDanPreTrainedModel

FloatArray = npt.NDArray[np.float64]

A4_LANDSCAPE_MM = (297.0, 210.0)
# left, bottom, width, height in millimetres of the page
_BEAT_PLACES = {
    "ecg": (10, 46, 182, 140),
    "bar": (10, 37, 75, 2.5),
    "leads": (209, 116, 66, 66),
    "result": (211, 42, 74, 50),
    "labels": (220, 42, 65, 50),
    "notes": (10, 12, 277, 17),
}
_RHYTHM_PLACES = {
    "ecg": (10, 54, 277, 133),
    "bar": (196, 46, 70, 2.5),
    "leads": (18, 10, 36, 36),
    "result": (98, 13, 76, 32),
    "labels": (98, 11, 76, 34),
    "notes": (190, 4, 97, 34),
    "findings": (10, 51, 277, 7),
}
_AGAINST, _SHARE = "#2171b5", "#3d82c4"


@dataclass(frozen=True)
class Explanation:
    """Result of one forward pass on one ECG, with its attention."""

    signal_mv: FloatArray  # (leads, samples), mV, filtered, as the network saw it before scaling
    lead_mask: npt.NDArray[np.bool_]  # (leads,)
    flags: tuple[str, ...]  # quality flags of the record and of the feature extractor
    lead_map: FloatArray | None  # (leads, leads), NaN where a lead is absent; None without lead attention
    attention: FloatArray | None  # (leads, samples), multiple of even attention; None without time attention
    output: Any  # of the model, batch of one

    @classmethod
    @torch.inference_mode()
    def of(
        cls,
        record: EcgRecord,
        model: EcgDanPreTrainedModel,
        feature_extractor: EcgDanFeatureExtractor,
        covariates: npt.ArrayLike | None = None,
    ) -> "Explanation":
        """Runs the model on one record and keeps its attention.

        Args:
            record: any leads, any rate.
            model: any model of this package; it runs in evaluation mode.
            feature_extractor: the one saved beside the model.
            covariates: (len(covariate_names),) for a survival model that takes them, in their own units; by default
                age and sex of the record; the training mean stands for what is unknown, with a flag.

        Raises:
            ValueError: a waveform module alone, a record that the feature extractor refuses, or covariates of another
                length.
        """
        if head_of(model).task == "waveform":
            raise ValueError(f"model: expected one that predicts something of an ECG, got {type(model).__name__}")
        signal_mv, lead_mask, flags = feature_extractor.condition(**record.as_inputs())
        inputs = _inputs_of(record, model, feature_extractor, covariates)
        output = output_of(model, inputs, output_attentions=True)
        lead_map = time_map = None
        if output.lead_attention is not None:
            both = lead_mask[:, None] & lead_mask[None, :]
            lead_map = np.where(both, output.lead_attention[0].double().cpu().numpy(), np.nan)
        if output.time_attention is not None:
            received = output.time_attention[0].double().cpu().numpy().mean(axis=-2)
            time_map = sample_attention(received, model.config)
        all_flags = tuple(dict.fromkeys((*record.flags, *flags, *_unknown_covariates(model, inputs))))
        return cls(signal_mv.astype(np.float64), lead_mask, all_flags, lead_map, time_map, output)


def _inputs_of(
    record: EcgRecord,
    model: EcgDanPreTrainedModel,
    feature_extractor: EcgDanFeatureExtractor,
    covariates: npt.ArrayLike | None = None,
) -> dict[str, torch.Tensor]:
    """Returns the model's inputs for one record, (1, ...), on its device; arguments as in [`Explanation.of`]."""
    inputs: dict[str, Any] = dict(feature_extractor(**record.as_inputs(), return_tensors="pt"))
    taken = Covariates.of(model.config)
    if taken.names:
        values = taken.of_record(record) if covariates is None else np.asarray(covariates, np.float32).reshape(1, -1)
        if values.shape[1] != len(taken.names):
            expected = f"{len(taken.names)} values for {', '.join(taken.names)}"
            raise ValueError(f"covariates: expected {expected}, got {values.shape[1]}")
        inputs["covariates"] = torch.from_numpy(values)
    return {name: value.to(model.device) for name, value in inputs.items()}


def _unknown_covariates(model: EcgDanPreTrainedModel, inputs: dict[str, torch.Tensor]) -> list[str]:
    """A flag for each covariate that the model takes and that is unknown."""
    if "covariates" not in inputs:
        return []
    columns, unknown = Covariates.of(model.config).columns_of_names, inputs["covariates"][0].isnan().tolist()
    return [f"covariate_{name}_unknown" for name, odd in zip(columns, unknown, strict=True) if odd]


def explain_page(
    record: EcgRecord,
    model: EcgDanPreTrainedModel,
    feature_extractor: EcgDanFeatureExtractor,
    covariates: npt.ArrayLike | None = None,
    checkpoint: str | None = None,
    method: str = "attention",
    label: str | None = None,
    findings: Sequence[str] = (),
    layout: str = "3x4",
) -> Figure:
    """The page, A4 landscape: ECG on ECG paper, map of leads, and the risk curve or the labels' probabilities.

    Args:
        record, model, feature_extractor, covariates: see [`Explanation.of`].
        checkpoint: name to print; default: the path the model was loaded from.
        method: source of the bands behind the traces: "attention" or a method of [`Attribution.of`].
        label: whose logit is explained, for methods other than attention; default: the most probable label.
        findings: results of the sanity checks of this method, see [`map_findings`]; printed below.
        layout: of a rhythm: "3x4", as carts print it, with a strip of ten seconds; "6x2"; or "12x1", all of each lead.

    Returns:
        A matplotlib figure; `figure.savefig("figure.png", dpi=150)`.

    Raises:
        ValueError: as [`Explanation.of`] and [`Attribution.of`], or a label for attention, which is the same for all.
    """
    if method == "attention" and label is not None:
        raise ValueError("label: attention is the same for every label; leave it out, or choose another method")
    found = Explanation.of(record, model, feature_extractor, covariates)
    shown = None
    if method != "attention":
        shown = Attribution.of(model, _inputs_of(record, model, feature_extractor, covariates), method, label)
    page = Page(*A4_LANDSCAPE_MM)
    places = _BEAT_PLACES if feature_extractor.input_kind == "median_beat" else _RHYTHM_PLACES
    gain = _draw_paper(page, places, model.config, found, shown, layout)
    slots = model.config.lead_layout == "reference"
    names = [f"slot {index + 1}" if slots else lead for index, lead in enumerate(model.config.lead_names)]
    if shown is None:
        draw_lead_map(page.axes(*places["leads"]), found.lead_map, names, found.lead_mask)
    else:
        _draw_lead_bars(page.axes(*places["leads"]), shown, names)
    if head_of(model).is_survival:
        draw_risk(page.axes(*places["result"]), cast(EcgDanForSurvival, model), found.output)
    elif head_of(model).is_classifier:
        draw_labels(page.axes(*places["labels"]), model.config, found.output.logits)
    _draw_header(page, record, model, found, checkpoint)
    notes = _notes(feature_extractor, found, gain, slots, shown, layout)
    _draw_notes(page, places, feature_extractor, notes, findings)
    return page.figure


def _draw_paper(
    page: Page,
    places: dict[str, Any],
    config: EcgDanConfig,
    found: Explanation,
    shown: Attribution | None,
    layout: str,
) -> float:
    paper = page.axes(*_paper_place(places["ecg"], found, config, layout))
    paper.set_anchor("NW")
    names, rate = list(config.lead_names), float(config.sampling_rate or 0)
    field = ReceptiveField.of(config)
    label = (
        f"receptive field of one time token: {field.width} samples = {field.milliseconds:.0f} ms "
        f"(half of its paths in the middle {field.half_milliseconds:.0f} ms)"
    )
    weights = found.attention if shown is None else shown.samples
    signed = shown is not None and shown.signed
    scale_bar = (field.milliseconds, label) if weights is not None and not signed else None
    gain, band = draw_ecg(paper, found.signal_mv, names, found.lead_mask, rate, weights, scale_bar, signed, layout)
    if band is None:
        return gain
    bar = page.figure.colorbar(band, cax=page.axes(*places["bar"]), orientation="horizontal")
    scale = "temporal attention (1 = even, clear up to it; one scale)"
    if shown is not None:
        scale = (
            f"{shown.method}: {shown.score}" if signed else "attention rollout (1 = even, clear up to it; one scale)"
        )
    bar.set_label(scale, fontsize=7, labelpad=1)
    bar.ax.locator_params(axis="x", nbins=5)
    bar.ax.tick_params(labelsize=6.5, length=2, pad=1)
    bar.outline.set_linewidth(0.4)
    return gain


def _paper_place(
    place: tuple[float, float, float, float], found: Explanation, config: EcgDanConfig, layout: str
) -> tuple[float, float, float, float]:
    """Where the ECG goes: a rhythm true to scale, a median beat as large as its place."""
    left, bottom, _, height = place
    seconds = found.signal_mv.shape[1] / float(config.sampling_rate or 0)
    paper = Layout.of(len(config.lead_names), seconds, layout)
    if config.input_kind != "rhythm" or not _fits(paper, place):
        return place
    return left, bottom + height - paper.height_mm, paper.width_mm, paper.height_mm


def _fits(paper: Layout, place: Sequence[float]) -> bool:
    return paper.width_mm <= place[2] and paper.height_mm <= place[3]


def _draw_header(
    page: Page, record: EcgRecord, model: EcgDanPreTrainedModel, found: Explanation, checkpoint: str | None
) -> None:
    name = record.record_id or PurePath(record.source).name or "unnamed"
    where = checkpoint or str(model.config._name_or_path) or "not saved"
    person = [f"{record.age:.0f} years" if record.age is not None else "", record.sex or ""]
    leads = f"{int(found.lead_mask.sum())} of {len(found.lead_mask)} leads"
    page.write(10, 9.03, f"ECG {name}", 13, weight="bold")
    subject = ", ".join(word for word in (*person, leads) if word)
    page.write(10, 13.6, f"{subject}   |   {measured_line(record)}")
    page.write(10, 17.7, about_recording(record, found.flags))
    model_line = f"{type(model).__name__}: {textwrap.shorten(where, 70, placeholder='…')}"
    if getattr(found.output, "log_hazard", None) is not None:
        model_line += f"   |   log hazard {float(first_log_hazard(found.output)[0]):+.2f}"
    page.write(10, 21.2, model_line, 7, color=GREY)
    simulated = getattr(model.config, "simulated_outcome", False)
    page.warn(287, 7.98, "Research use only" + "  ·  simulated outcomes" * bool(simulated), ha="right")


def _notes(
    fe: EcgDanFeatureExtractor,
    found: Explanation,
    gain: float,
    slots: bool,
    shown: Attribution | None,
    layout: str,
) -> list[str]:
    """Describes what the page shows and how far to trust it."""
    beat = fe.input_kind == "median_beat"
    kind = f"Median beat, {1000 * found.signal_mv.shape[1] / fe.sampling_rate:.0f} ms" if beat else "Rhythm strip"
    stages = {"highpass_hz": "high-pass", "lowpass_hz": "low-pass", "powerline_hz": "notch"}
    filters = [f"{fe.filter[key]:g} Hz {name}" for key, name in stages.items() if fe.filter.get(key)]
    paper = Layout.of(len(found.lead_mask), found.signal_mv.shape[1] / fe.sampling_rate, layout)
    true = not beat and _fits(paper, _RHYTHM_PLACES["ecg"])
    scale = ", 1 mm on A4." if true else "; enlarged or reduced with the page."
    notes = [
        f"{kind}, filtered ({', '.join(filters) or 'no filter'}), {SPEED_MM_S:g} mm/s and {gain:g} mm/mV: "
        f"a small square is 40 ms by {1 / gain:g} mV" + scale
    ]
    if paper.follows:
        notes[0] += " Each column is later than the one before; layout 12x1 shows all of every lead."
    if shown is not None:
        what = "what this network's score depends on here" if shown.signed else "where the network looked, not why"
        notes += [shown.note, f"The map shows {what}; it proves no cause."]
    else:
        colour = (
            "Band behind a trace: mean attention that each time token receives, spread over its receptive field; "
            "nothing is located more sharply than that."
        )
        notes += [
            colour if found.attention is not None else "This network has no time attention: traces are black.",
            "Lead map: each row sums to 1; white line on its scale: even attention. Attention shows where the network "
            "looked, not why, and proves no cause.",
        ]
    if shown is not None and shown.waves:
        changes = ", ".join(f"{wave} {value:+.2f}" for wave, value in shown.waves.items() if np.isfinite(value))
        notes.append(f"With all waves of a kind bridged the {shown.score} loses: {changes or 'none found'}.")
    if slots:
        notes.append(
            "Reference layout: the network mixes leads before attention, so maps and colours tell no leads apart."
        )
    return notes


def _draw_notes(
    page: Page, places: dict[str, Any], fe: EcgDanFeatureExtractor, notes: list[str], findings: Sequence[str]
) -> None:
    """Draws notes and findings in small print."""
    style: dict[str, Any] = {"va": "top", "linespacing": 1.35}
    if fe.input_kind == "rhythm":
        notes = [textwrap.fill(note, 72) for note in notes]
        left, bottom, _, height = places["findings"]
        told = "\n".join(textwrap.fill(line, 230) for line in findings)
        page.write(left, page.height_mm - bottom - height, told, 6.3, color="#333333", **style)
    else:
        notes = [*notes, *findings]
    left, bottom, _, height = places["notes"]
    page.write(left, page.height_mm - bottom - height, "\n".join(notes), 6.8, color=GREY, **style)


def _draw_lead_bars(axes: Axes, shown: Attribution, lead_names: list[str]) -> None:
    """One bar for each lead: its part of the score, or its share of attention with a line where all are alike."""
    titles = {
        "rollup": "Share of each lead, attention rollout",
        "occlusion": f"What the {shown.score} loses without a lead",
    }
    axes.set_title(titles.get(shown.method, f"Part of the {shown.score} by lead"), fontsize=8, pad=5)
    values, rows = np.nan_to_num(shown.leads), np.arange(len(lead_names))
    colours = [(ORANGE if value >= 0 else _AGAINST) if shown.signed else _SHARE for value in values]
    axes.barh(rows, values, height=0.66, color=colours)
    axes.axvline(
        0.0 if shown.signed else 1 / max(int(np.isfinite(shown.leads).sum()), 1), color="#444444", linewidth=0.7
    )
    axes.set_yticks(rows, lead_names, fontsize=6.5)
    for tick, value in zip(axes.get_yticklabels(), shown.leads, strict=True):
        tick.set_color("black" if np.isfinite(value) else "#999999")
    axes.set_ylim(len(lead_names) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="x", labelsize=6.5, length=2, pad=1.5)
    axes.tick_params(axis="y", length=0, pad=2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.5)
    axes.set_axisbelow(True)
