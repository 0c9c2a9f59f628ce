"""One page on DANet's attention: the ECG, the ECG as amended by the waveform module, and a(t) below.

Black is the recording, blue the amended ECG, orange the annotated beats; light blue stretches are the attended
intervals of the pipeline `ecg-classification`. Figures are matplotlib objects without global state.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt
import wfdb
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgdan_hf.data.readers.wfdb_records import find_header
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.sources.mitbih import BEATS
from ecgdan_hf.explain.page.figures import Explanation
from ecgdan_hf.explain.page.first_lines import about_recording
from ecgdan_hf.explain.page.paper import GAINS_MM_MV, GREY, INK, MAJOR, NAME_MM, PULSE_MM, SPEED_MM_S, Layout, Page
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.intervals_ecgdan import attended_intervals
from ecgdan_hf.model.modeling_danet import DanetForSequenceClassification

FloatArray = npt.NDArray[np.float64]
Beats = Sequence[tuple[float, str]]

BLUE, ORANGE = "#0072b2", "#d55e00"  # told apart by every kind of colour vision
MARKS_MM = 14.0  # strip over the leads for the marks of the beats
BAND_MM = 20.0  # height of a(t)
HEADER_MM, AXIS_MM, NOTES_MM = 26.0, 12.0, 22.0
MARGIN_MM = 10.0
MIN_WIDTH_MM = 200.0  # of the page: room for the header
MAX_PAIRED_LEADS = 3  # up to so many leads have the amended ECG in a row of its own, more under their trace
PAIRED_MM, SHARED_MM = 22.0, 11.0  # heights of rows
AMENDED = {"hard": "a · x", "soft": "(1+a) · x"}
ECTOPIC = "AaJSVFejE"  # of WFDB's symbols; beats of the usual rhythm are written small
GAP_MM = 2.5  # between paper and a(t)
MAX_LABELS, MAX_INTERVALS = 4, 5


@dataclass(frozen=True)
class _AttendedStrip:
    """A recording, its recorded leads only, and its weights by the waveform module."""

    signal_mv: FloatArray  # (leads, samples), mV, filtered, at the network's rate
    amended_mv: FloatArray  # the same as amended by the waveform module
    weights: FloatArray  # (samples,), a(t)
    lead_names: list[str]
    sampling_rate: float
    begin_seconds: float  # time of the first sample
    found: Explanation

    @property
    def seconds(self) -> FloatArray:
        """(samples,), the time of each."""
        return self.begin_seconds + np.arange(len(self.weights)) / self.sampling_rate

    @property
    def intervals(self) -> list[dict[str, float]]:
        """See [`attended_intervals`]."""
        return attended_intervals(self.weights, self.sampling_rate, self.begin_seconds)


def _attended_strip(
    record: EcgRecord,
    model: DanetForSequenceClassification,
    feature_extractor: EcgDanFeatureExtractor,
    begin_seconds: float = 0.0,
) -> _AttendedStrip:
    """Runs the model on one record; arguments and errors as in [`waveform_page`]."""
    if not head_of(model).is_classifier:
        raise ValueError(f"model: expected a DanetForSequenceClassification, got {type(model).__name__}")
    module = getattr(model.config, "waveform_module", "none")
    if module not in AMENDED or feature_extractor.input_kind != "rhythm":
        got = f"waveform_module={module!r} and input_kind={feature_extractor.input_kind!r}"
        raise ValueError(f"model: expected a waveform module, hard or soft, and input_kind='rhythm', got {got}")
    found = Explanation.of(record, model, feature_extractor)
    fe, samples = feature_extractor, record.signal_mv.shape[1]
    first, end, start = fe.recorded_samples(samples, record.sampling_rate)
    weights = found.output.waveform_attention[0, first:end].double().cpu().numpy()
    signal = found.signal_mv[found.lead_mask, first - fe.pad_samples : end - fe.pad_samples]
    amended = (weights if module == "hard" else 1 + weights) * signal
    names = [name for name, there in zip(fe.lead_names, found.lead_mask, strict=True) if there]
    begin = begin_seconds + start / fe.sampling_rate
    return _AttendedStrip(signal, amended, weights, names, float(fe.sampling_rate), begin, found)


def read_beats(path: str | Path) -> list[tuple[float, str]] | None:
    """Reads the beats of the `.atr` file of a WFDB record: seconds from its beginning, and WFDB's symbol.

    `path` is the record's stem, header or data file. Returns None if it has no such file; raises ValueError if that is
    damaged.
    """
    path = Path(path)
    beside = find_header(path) if path.is_file() else path.with_name(path.name + ".hea")
    header = path if path.suffix == ".hea" else beside
    if header is None or not header.is_file() or not header.with_suffix(".atr").is_file():
        return None
    stem = str(header.with_suffix(""))
    try:
        marks, rate = wfdb.rdann(stem, "atr"), wfdb.rdheader(stem).fs
    except Exception as error:  # what wfdb raises depends on where the damage happens to be
        raise ValueError(f"{stem}.atr: damaged annotations: {' '.join(str(error).split())}") from error
    pairs = zip(marks.sample / rate, marks.symbol, strict=True)
    return [(float(seconds), symbol) for seconds, symbol in pairs if symbol in BEATS]


def waveform_page(
    record: EcgRecord,
    model: DanetForSequenceClassification,
    feature_extractor: EcgDanFeatureExtractor,
    beats: Beats | None = None,
    checkpoint: str | None = None,
    begin_seconds: float = 0.0,
    findings: Sequence[str] = (),
) -> Figure:
    """The page: ECG and amended ECG on ECG paper at 25 mm/s, marked beats above, a(t) below, all in one time.

    Args:
        record: any leads, any rate; the network sees the middle of a long one.
        model: one with a waveform module, for rhythm.
        feature_extractor: the one saved beside it.
        beats: time (seconds, on the clock of `begin_seconds`) and symbol of annotated beats; those outside the strip
            are ignored.
        checkpoint: name to print; default: the path the model was loaded from.
        begin_seconds: time of the record's first sample, for a part of a longer record.
        findings: results of the sanity checks of a(t), see [`map_findings`]; printed below.

    Returns:
        A matplotlib figure in its true size; `figure.savefig("figure.png", dpi=150)`.

    Raises:
        ValueError: another model, one without a waveform module or for median beats, or a record that the feature
            extractor refuses.
    """
    strip = _attended_strip(record, model, feature_extractor, begin_seconds)
    paired = len(strip.lead_names) <= MAX_PAIRED_LEADS
    rows = len(strip.lead_names) * (2 if paired else 1)
    panel = len(strip.weights) / strip.sampling_rate * SPEED_MM_S
    layout = Layout(1, rows, panel, PAIRED_MM if paired else SHARED_MM, NAME_MM + PULSE_MM)
    width = max(layout.width_mm + 2 * MARGIN_MM, MIN_WIDTH_MM)
    paper_mm = layout.height_mm + MARKS_MM
    height = HEADER_MM + paper_mm + GAP_MM + BAND_MM + AXIS_MM + NOTES_MM
    page = Page(width, height)
    foot = NOTES_MM + AXIS_MM
    paper = page.axes(MARGIN_MM, foot + BAND_MM + GAP_MM, layout.width_mm, paper_mm)
    band = page.axes(MARGIN_MM + layout.margin_mm, foot, panel, BAND_MM)
    gain = _draw_paper(paper, strip, layout, paired, model.config.waveform_module)
    _draw_beats(paper, strip, layout, beats)
    _draw_band(band, strip)
    _draw_header(page, record, model, strip, checkpoint)
    _draw_notes(page, strip, model, gain, beats, findings)
    return page.figure


def _draw_paper(axes: Axes, strip: _AttendedStrip, layout: Layout, paired: bool, module: str) -> float:
    """Both traces of every lead; returns the gain, mm/mV."""
    layout.draw_grid(axes, MARKS_MM)
    for interval in strip.intervals:
        begin, end = (
            layout.margin_mm + (interval[edge] - strip.begin_seconds) * SPEED_MM_S for edge in ("start", "end")
        )
        axes.axvspan(begin, end, color=BLUE, alpha=_shade(interval), linewidth=0, zorder=2)
    gain = _gain(strip, layout)
    x = layout.margin_mm + np.arange(len(strip.weights)) / strip.sampling_rate * SPEED_MM_S
    for index, name in enumerate(strip.lead_names):
        row = 2 * index if paired else index
        _, zero = layout.origin(row)
        below = layout.origin(row + 1)[1] if paired else zero
        axes.text(1.0, zero, name, fontsize=9, weight="bold", va="center", color=INK)
        if paired or index == 0:  # in low rows the pulses would stand on each other
            layout.draw_pulse(axes, zero, gain)
        if paired:
            axes.text(1.0, below, AMENDED[module], fontsize=6.5, va="center", color=BLUE)
        axes.plot(x, below + gain * strip.amended_mv[index], color=BLUE, linewidth=0.9 if paired else 1.3, zorder=3)
        axes.plot(x, zero + gain * strip.signal_mv[index], color=INK, linewidth=0.8, zorder=4)
    return gain


def _shade(interval: dict[str, float]) -> float:
    """Opacity of an attended interval: the more it weighs, the bluer."""
    return 0.03 + 0.15 * interval["weight"]


def _gain(strip: _AttendedStrip, layout: Layout) -> float:
    """The largest standard gain at which traces keep to the middle of the next row, and off the marks above."""
    reach = max(float(np.abs(strip.signal_mv).max()), float(np.abs(strip.amended_mv).max())) / layout.row_mm
    reach = max(reach, float(strip.signal_mv[0].max()) / (layout.row_mm / 2 + MARKS_MM - 6))
    return next((gain for gain in GAINS_MM_MV if gain * reach <= 1), GAINS_MM_MV[-1])


def _draw_beats(axes: Axes, strip: _AttendedStrip, layout: Layout, beats: Beats | None) -> None:
    """The symbol of each marked beat over the leads; an ectopic one in orange, with a line down to its R peak."""
    top = layout.height_mm
    for seconds, symbol in beats or ():
        x = layout.margin_mm + (seconds - strip.begin_seconds) * SPEED_MM_S
        if not 0 <= seconds - strip.begin_seconds <= len(strip.weights) / strip.sampling_rate:
            continue
        mark = axes.text(x, top + MARKS_MM - 3, symbol, ha="center", va="center", zorder=5, fontsize=7, color=GREY)
        if symbol in ECTOPIC:
            mark.set(color=ORANGE, fontsize=11, weight="bold")
            axes.plot([x, x], [0, top + MARKS_MM - 6], color=ORANGE, linewidth=0.8, linestyle=(0, (3, 3)), zorder=2)


def _draw_band(axes: Axes, strip: _AttendedStrip) -> None:
    """a(t) on an axis from 0 to 1, under the time it belongs to."""
    seconds = strip.seconds
    for interval in strip.intervals:
        axes.axvspan(interval["start"], interval["end"], color=BLUE, alpha=_shade(interval), linewidth=0)
    axes.fill_between(seconds, strip.weights, color=BLUE, alpha=0.35, linewidth=0)
    axes.plot(seconds, strip.weights, color=BLUE, linewidth=0.9)
    axes.set(xlim=(seconds[0], seconds[0] + len(seconds) / strip.sampling_rate), ylim=(0, 1.05), yticks=[0, 0.5, 1])
    axes.set_ylabel("attention a(t)", fontsize=7.5, labelpad=2, color=BLUE)
    axes.set_xlabel("seconds of the recording", fontsize=7.5, labelpad=1)
    axes.set_xticks(np.arange(np.ceil(seconds[0]), seconds[-1] + 1e-6, 1.0))
    axes.tick_params(labelsize=7, length=2, pad=1.5)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.5)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set(color=MAJOR, linewidth=0.6)


def _draw_header(
    page: Page, record: EcgRecord, model: DanetForSequenceClassification, strip: _AttendedStrip, checkpoint: str | None
) -> None:
    name = record.record_id or PurePath(record.source).name or "unnamed"
    where = checkpoint or str(model.config._name_or_path) or "not saved"
    end = strip.begin_seconds + len(strip.weights) / strip.sampling_rate
    person = [f"{record.age:.0f} years" if record.age is not None else "", record.sex or ""]
    shown = [*person, f"{strip.begin_seconds:g} to {end:g} s", f"leads {', '.join(strip.lead_names)}"]
    line = ", ".join(word for word in shown if word)
    kind = f"{type(model).__name__} ({model.config.waveform_module})"
    line += f"   |   {kind}: {textwrap.shorten(where, 60, placeholder='…')}"
    about = about_recording(record, strip.found.flags)
    page.write(MARGIN_MM, 8, f"ECG {name}:  {_scores(model, strip.found)}", 13, weight="bold")
    page.write(MARGIN_MM, 14, textwrap.shorten(line, round(page.width_mm / 1.6), placeholder=" …"))
    page.write(MARGIN_MM, 19, textwrap.shorten(about, round(page.width_mm / 1.5), placeholder=" …"), 7, color=GREY)
    page.warn(page.width_mm - MARGIN_MM, 8, "Research use only", ha="right")


def _scores(model: DanetForSequenceClassification, found: Explanation) -> str:
    """The labels with the highest scores, and their thresholds where these hold."""
    config, logits = model.config, found.output.logits[0].float()
    scores = config.label_probabilities(logits)
    hold = config.thresholds_hold(int(found.lead_mask.sum()))
    thresholds = (config.thresholds or {}) if hold else {}
    words = []
    for index in scores.argsort(descending=True)[:MAX_LABELS].tolist():
        label = str((config.id2label or {})[index])
        threshold = f" (threshold {thresholds[label]:.2f})" if label in thresholds else ""
        words.append(f"{label} {float(scores[index]):.2f}{threshold}")
    return ",  ".join(words)


def _draw_notes(
    page: Page,
    strip: _AttendedStrip,
    model: DanetForSequenceClassification,
    gain: float,
    beats: Beats | None,
    findings: Sequence[str],
) -> None:
    """What the page shows and how far to trust it."""
    intervals = [f"{each['start']:.2f}-{each['end']:.2f} s (a = {each['weight']:.2f})" for each in strip.intervals]
    more = f" and {len(intervals) - MAX_INTERVALS} more" if len(intervals) > MAX_INTERVALS else ""
    attended = ", ".join(intervals[:MAX_INTERVALS]) + more or "none, a(t) is flat"
    amended, resolved = AMENDED[model.config.waveform_module], model.config.waveform_rule
    rule = resolved["name"] if isinstance(resolved, dict) else "none"
    marks = " Letters: beats marked by hand (A atrial, V ventricular premature)." if beats else ""
    notes = [
        f"Attended intervals (light blue), strongest first: {attended}.",
        f"Black: the ECG, filtered, {SPEED_MM_S:g} mm/s and {gain:g} mm/mV: a small square is 40 ms by "
        f"{1 / gain:g} mV. Blue: {amended}, as the network sees it; rule: {rule}.{marks}",
        "Attention shows where the network was made or trained to look; it is no delineation and proves no cause.",
        *findings,
    ]
    lines = "\n".join(textwrap.fill(note, round((page.width_mm - 2 * MARGIN_MM) / 1.35)) for note in notes)
    page.write(MARGIN_MM, page.height_mm - NOTES_MM + 1, lines, 7, va="top", color=GREY, linespacing=1.35)
