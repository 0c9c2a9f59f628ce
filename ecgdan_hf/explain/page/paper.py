"""Pages in millimetres, and leads on ECG paper: 25 mm/s, 10 mm/mV, black traces, weights as bands behind them.

The axes count millimetres of paper, so that a small square is 40 ms by 0.1 mV at the standard gain whatever the size
of the figure. Convention: Kligfield et al., Circulation 115:1306 (2007).
"""

import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

FloatArray = npt.NDArray[np.float64]

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)

SPEED_MM_S = 25.0
GAINS_MM_MV = (10.0, 5.0, 2.5)  # full, half, quarter: the first at which the leads fit their rows
_SCALE_BAR_MM = 5.0  # strip under the leads for the bar that shows the receptive field
PULSE_MM = 7.0  # room in front of a row for the 1 mV calibration pulse
NAME_MM = 8.0  # room in front of that for the lead's name, where rows are too low to write it above the trace
_GAP_MM = 5.0  # between beats side by side
_MM_PER_INCH = 25.4
_PAPER, _MINOR, MAJOR = "#fffafa", "#f9dede", "#f0b4b4"
INK, GREY, ORANGE = "#1a1a1a", "#666666", "#d95f02"
# Clear to dark in one hue, so that it reads in grey, for every kind of colour vision and against the red grid; never
# so dark that trace and grid are not seen through it.
_ATTENTION_COLOURS = LinearSegmentedColormap.from_list("attention", ["#9cc5ea00", "#3d82c466", "#0b3a7a9c"])
# Blue speaks against, orange for; what says neither is clear.
_SIGNED = ["#08306b9c", "#2171b566", "#ffffff00", "#d95f0266", "#7f27049c"]
_SIGNED_COLOURS = LinearSegmentedColormap.from_list("signed", _SIGNED)
LAYOUTS = ("3x4", "6x2", "12x1")
"""Of twelve leads of a rhythm: rows by columns, each column a part of the time; 3x4 has a strip of all of it below."""
STRIP_LEAD = "II"
_BAND = 0.47  # of a row, to each side of the zero line
_EVEN = 0.25  # the scale always reaches 1 plus this much: nearly even attention must look nearly even


class Page:
    """A white matplotlib figure with places in millimetres; no `pyplot`, nothing to close, safe in threads."""

    def __init__(self, width_mm: float, height_mm: float) -> None:
        self.width_mm, self.height_mm = width_mm, height_mm
        self.figure = Figure(figsize=(width_mm / _MM_PER_INCH, height_mm / _MM_PER_INCH), facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Adds axes; `left` and `bottom` are from the lower left corner."""
        wide, high = self.width_mm, self.height_mm
        return self.figure.add_axes((left / wide, bottom / high, width / wide, height / high))

    def write(self, left: float, top: float, text: str, size: float = 8.0, **style: Any) -> None:
        """Writes text at a place from the upper left corner."""
        self.figure.text(left / self.width_mm, 1 - top / self.height_mm, text, fontsize=size, **style)

    def warn(self, left: float, top: float, text: str, size: float = 9.0, **style: Any) -> None:
        """Writes text in an orange box."""
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#fff3e6", "edgecolor": ORANGE, "linewidth": 0.8}
        self.write(left, top, text, size, weight="bold", color="#8c3a00", bbox=box, **style)

    def png(self) -> bytes:
        """The page as a PNG file, 160 dots per inch."""
        content = BytesIO()
        self.figure.savefig(content, format="png", dpi=160, pil_kwargs={"compress_level": 4})
        return content.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Saves a figure as PNG, PDF or SVG, without dates and the texts that SVG repeats as comments."""
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(path, dpi=150, metadata=dates.get(path.suffix.lower()))
    if path.suffix.lower() == ".svg":
        path.write_text(_COMMENT.sub("", path.read_text(encoding="utf-8")), encoding="utf-8")


@dataclass(frozen=True)
class Panel:
    """A piece of a lead on the paper: samples `start` to `stop` from `left` on, mm, its zero line at `zero`."""

    lead: int
    start: int
    stop: int
    left: float
    zero: float


@dataclass(frozen=True)
class Layout:
    """Places of the leads: `columns` columns of `rows` rows, filled column by column, in millimetres of paper.

    With `follows`, each column shows the time after the one before, as carts print it; with `strip`, one lead is below
    in full.
    """

    columns: int
    rows: int
    panel_mm: float
    row_mm: float
    margin_mm: float
    follows: bool = False
    strip: bool = False

    @property
    def width_mm(self) -> float:
        """Width of the paper, whole large squares."""
        panels = self.columns * (self.panel_mm + self._gap_mm) - self._gap_mm
        return 5.0 * float(np.ceil((self.margin_mm + panels + 1.0) / 5.0))

    @property
    def height_mm(self) -> float:
        """Height of the paper, the strip under the leads included."""
        return (self.rows + self.strip) * self.row_mm + _SCALE_BAR_MM

    @property
    def _gap_mm(self) -> float:
        return 0.0 if self.follows else _GAP_MM

    def origin(self, index: int) -> tuple[float, float]:
        """Left end and zero line of a lead, mm from the lower left corner."""
        column, row = divmod(index, self.rows)
        return self.margin_mm + column * (self.panel_mm + self._gap_mm), self.height_mm - (row + 0.5) * self.row_mm

    def panels(self, lead_names: list[str], num_samples: int, recorded: npt.NDArray[np.bool_]) -> list[Panel]:
        """The pieces of all leads; the strip is of lead II, or of the first that was recorded."""
        found = []
        for lead in range(len(lead_names)):
            part, parts = (lead // self.rows, self.columns) if self.follows else (0, 1)
            start, stop = part * num_samples // parts, (part + 1) * num_samples // parts
            found.append(Panel(lead, start, stop, *self.origin(lead)))
        if self.strip:
            usable = STRIP_LEAD in lead_names and recorded[lead_names.index(STRIP_LEAD)]
            lead = lead_names.index(STRIP_LEAD) if usable else int(recorded.argmax())
            zero = self.height_mm - (self.rows + 0.5) * self.row_mm
            found.append(Panel(lead, 0, num_samples, self.margin_mm, zero))
        return found

    @classmethod
    def of(cls, num_leads: int, seconds: float, style: str = "3x4") -> "Layout":
        """Columns of three leads for a median beat; for a rhythm one of `LAYOUTS`, and one row a lead if not twelve.

        Raises:
            ValueError: another layout.
        """
        if style not in LAYOUTS:
            raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {style!r}")
        if seconds <= 2.0:
            rows = min(3, num_leads)
            return cls(int(np.ceil(num_leads / rows)), rows, seconds * SPEED_MM_S, 35.0, PULSE_MM)
        if num_leads == 12 and style != "12x1":
            rows, columns = map(int, style.split("x"))
            strip = style == "3x4"
            row_mm = 120.0 / (rows + strip)
            return cls(columns, rows, seconds / columns * SPEED_MM_S, row_mm, PULSE_MM, follows=True, strip=strip)
        return cls(1, num_leads, seconds * SPEED_MM_S, 120.0 / max(num_leads, 6), NAME_MM + PULSE_MM)

    def draw_grid(self, axes: Axes, above_mm: float = 0.0) -> None:
        """Draws small and large squares, also `above_mm` over the leads; axes in mm from the lower left corner."""
        width, height = self.width_mm, self.height_mm + above_mm
        for step, colour, line in ((1.0, _MINOR, 0.3), (5.0, MAJOR, 0.5)):
            vertical = [((float(x), 0.0), (float(x), height)) for x in np.arange(0, width + 1e-6, step)]
            horizontal = [((0.0, float(y)), (width, float(y))) for y in np.arange(0, height + 1e-6, step)]
            axes.add_collection(LineCollection(vertical + horizontal, colors=colour, linewidths=line, zorder=1))
        axes.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[], aspect="equal", facecolor=_PAPER)
        for spine in axes.spines.values():
            spine.set(color=MAJOR, linewidth=0.6)

    def draw_pulse(self, axes: Axes, zero_mm: float, gain: float) -> None:
        """Draws the calibration pulse in front of a row: 1 mV for 200 ms."""
        x = self.margin_mm - PULSE_MM + np.array([0.6, 1.1, 1.1, 6.1, 6.1, 6.6])
        axes.plot(x, zero_mm + gain * np.array([0, 0, 1, 1, 0, 0]), color=INK, linewidth=0.8, zorder=3)


def _attention_scale(weights: FloatArray | None) -> Normalize:
    """One colour scale for all leads, from even attention, which is clear, to the largest weight and at least 1.25."""
    known = weights is not None and np.isfinite(weights).any()
    return Normalize(1.0, max(float(np.nanmax(weights)), 1 + _EVEN) if known and weights is not None else 1 + _EVEN)


def _signed_scale(weights: FloatArray) -> Normalize:
    """One scale for all leads with 0 in its middle; the largest hundredth of values share the last colour."""
    top = float(np.nanquantile(np.abs(weights), 0.99)) if np.isfinite(weights).any() else 0.0
    return Normalize(-max(top, 1e-6), max(top, 1e-6))


def draw_ecg(
    axes: Axes,
    signal_mv: FloatArray,
    lead_names: list[str],
    lead_mask: npt.NDArray[np.bool_],
    sampling_rate: float,
    weights: FloatArray | None = None,
    scale_bar: tuple[float, str] | None = None,
    signed: bool = False,
    style: str = "3x4",
) -> tuple[float, AxesImage | None]:
    """Draws all leads; returns the gain in mm/mV, and a band behind a trace for a colour bar.

    Args:
        weights: (leads, samples), attention as a multiple of even attention, or, where `signed`, changes of a score;
            None draws traces alone.
        scale_bar: duration in milliseconds and label of a bar at the foot of the paper.
        style: one of `LAYOUTS`, for a rhythm.
    """
    # the isoelectric line on the middle of the row
    signal_mv = signal_mv - np.median(signal_mv, axis=1, keepdims=True)
    layout = Layout.of(len(lead_names), signal_mv.shape[1] / sampling_rate, style)
    panels = layout.panels(lead_names, signal_mv.shape[1], lead_mask)
    gain = _gain(signal_mv, lead_mask, layout, panels)
    layout.draw_grid(axes)
    known = weights[lead_mask] if weights is not None else None
    scale = _signed_scale(known) if signed and known is not None else _attention_scale(known)
    band = None
    for panel in panels:
        _draw_name(axes, lead_names[panel.lead], layout, panel)
        if panel.left == layout.margin_mm:
            layout.draw_pulse(axes, panel.zero, gain)
        if not lead_mask[panel.lead]:
            middle = panel.left + layout.panel_mm / 2
            axes.text(middle, panel.zero, "not recorded", fontsize=6.5, color="#777777", ha="center")
            continue
        x = panel.left + np.arange(panel.stop - panel.start) / sampling_rate * SPEED_MM_S
        axes.plot(x, panel.zero + gain * signal_mv[panel.lead, panel.start : panel.stop], color=INK, lw=0.8, zorder=3)
        if layout.follows and panel.left > layout.margin_mm:
            axes.plot([panel.left] * 2, panel.zero + np.array([-2.5, 2.5]), color=INK, linewidth=0.8, zorder=3)
        if weights is not None:
            reach = _BAND * layout.row_mm
            extent = (float(x[0]), float(x[-1]), panel.zero - reach, panel.zero + reach)
            band = _draw_band(axes, extent, weights[panel.lead, panel.start : panel.stop], scale, signed)
    if scale_bar is not None:
        _draw_scale_bar(axes, layout.margin_mm, *scale_bar)
    return gain, band


def _draw_name(axes: Axes, name: str, layout: Layout, panel: Panel) -> None:
    style: dict[str, Any] = {"fontsize": 8, "weight": "bold", "color": INK, "zorder": 2.5}  # a QRS may stand there
    style["bbox"] = {"facecolor": _PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    if layout.margin_mm > PULSE_MM:
        axes.text(1.0, panel.zero, name, va="center", **style)
    else:
        axes.text(panel.left + 1.0 * layout.follows, panel.zero + 0.5 * layout.row_mm - 1.5, name, va="top", **style)


def _gain(signal_mv: FloatArray, lead_mask: npt.NDArray[np.bool_], layout: Layout, panels: list[Panel]) -> float:
    """Largest standard gain at which leads stay on the paper and reach into at most a third of the next row."""
    rows, reach = layout.rows + layout.strip, 0.0
    for panel in panels:
        if not lead_mask[panel.lead]:
            continue
        row = round((layout.height_mm - panel.zero) / layout.row_mm - 0.5)
        up, down = (0.5 if row == edge else 0.85 for edge in (0, rows - 1))
        shown = signal_mv[panel.lead, panel.start : panel.stop] / layout.row_mm
        reach = max(reach, float(shown.max()) / up, -float(shown.min()) / down)
    return next((gain for gain in GAINS_MM_MV if gain * reach <= 1), GAINS_MM_MV[-1])


def _draw_band(
    axes: Axes, extent: tuple[float, float, float, float], weights: FloatArray, scale: Normalize, signed: bool
) -> AxesImage:
    """A translucent band behind a trace, darker where the weight is larger; NaN is clear."""
    colours = _SIGNED_COLOURS if signed else _ATTENTION_COLOURS
    band = AxesImage(axes, cmap=colours, norm=scale, extent=extent, interpolation="nearest", zorder=2)
    band.set_data(np.ma.masked_invalid(weights[None]))
    band.set_clip_path(axes.patch)
    axes.add_image(band)
    return band


def _draw_scale_bar(axes: Axes, left: float, milliseconds: float, label: str) -> None:
    right = left + milliseconds / 1000.0 * SPEED_MM_S
    axes.plot([left, right], [2.5, 2.5], color=INK, linewidth=1.0, marker="|", markersize=6, zorder=4)
    axes.text(right + 1.5, 2.5, label, fontsize=6.5, va="center", color=INK, zorder=4)
