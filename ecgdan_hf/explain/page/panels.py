"""Panels of the page: the map of leads, the risk curve, the labels' probabilities."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from ecgdan_hf.explain.page.paper import ORANGE
from ecgdan_hf.inference.prediction_rows import DEFAULT_THRESHOLD, RISK_YEARS
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival

FloatArray = npt.NDArray[np.float64]

_MAX_LABELS = 12
_BLUE, _PALE = "#08519c", "#b8cbe0"
_LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}


def draw_lead_map(
    axes: Axes, lead_map: FloatArray | None, lead_names: list[str], lead_mask: npt.NDArray[np.bool_]
) -> None:
    """The map of leads, on square axes: each row shows from which leads one lead reads; absent leads are hatched.

    `lead_map` is (leads, leads), NaN for absent leads, or None where the network has no lead attention.
    """
    axes.set_title("Lead attention: row reads from column", fontsize=8, pad=9)
    count = len(lead_names)
    if lead_map is None:
        axes.text(0.5, 0.5, "this network has no lead attention", fontsize=7, ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    axes.set_facecolor("#e8e8e8")
    top = max(float(np.nanmax(lead_map)), 2.0 / max(int(lead_mask.sum()), 1))
    image = axes.imshow(lead_map, cmap="cividis", vmin=0.0, vmax=min(top, 1.0), interpolation="nearest")
    for index in np.flatnonzero(~lead_mask):
        for across in ((index - 0.5, -0.5, 1, count), (-0.5, index - 0.5, count, 1)):
            axes.add_patch(
                Rectangle(across[:2], across[2], across[3], fill=False, hatch="////", edgecolor="#b0b0b0", lw=0)
            )
    axes.set_xticks(range(count), lead_names, fontsize=6.5, rotation=90)
    axes.set_yticks(range(count), lead_names, fontsize=6.5)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        for label, there in zip(labels, lead_mask, strict=True):
            label.set_color("black" if there else "#999999")
    axes.tick_params(length=0, pad=2)
    box = axes.get_position()
    bar_axes = axes.figure.add_axes((box.x1 + 0.006, box.y0, 0.008, box.height))
    bar = axes.figure.colorbar(image, cax=bar_axes)
    bar.ax.tick_params(labelsize=6, length=2, pad=1)
    bar.outline.set_linewidth(0.4)
    bar.ax.axhline(1.0 / lead_mask.sum(), color="white", linewidth=1.2)


def draw_risk(axes: Axes, model: EcgDanForSurvival, output: Any) -> None:
    """Risk of the endpoint over the years after the ECG, marked at 1, 5 and 10 years, with its limits."""
    config = model.config
    simulated = " (simulated outcomes)" if config.simulated_outcome else ""
    axes.set_title(f"Risk of {config.endpoint}{simulated}", fontsize=8, pad=4)
    if not config.gives_risks:
        note = "no baseline hazard was fitted:\nthe log hazard ranks, it gives no risk"
        axes.text(0.5, 0.5, note, fontsize=7, ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    last = model.follow_up_years
    years = np.union1d(np.linspace(0.0, last, 400), model.baseline.times.cpu().numpy())
    risk, low, high = risk_at(model, output, years)
    limits = bool(np.isfinite(high).any())  # a checkpoint may have none
    if limits:
        axes.fill_between(years, low, high, step="post", color=_PALE, alpha=0.6, linewidth=0, zorder=1)
    axes.plot(years, risk, color=_BLUE, linewidth=1.4, drawstyle="steps-post")
    marked = risk_at(model, output, np.array(RISK_YEARS, dtype=float))[0]
    end = max(last, RISK_YEARS[-1]) * 1.05
    top = float(max(0.05, min(1.25, 1.35 * np.nanmax(high if limits else risk))))
    for year, value in zip(RISK_YEARS, marked, strict=True):
        if np.isfinite(value):
            axes.plot(year, value, "o", color=ORANGE, markersize=4, zorder=3)
        text = f"{year:g} y: {100 * value:.1f} %" if np.isfinite(value) else f"{year:g} y: beyond\nfollow-up"
        above = (value if np.isfinite(value) else 0.0) + 0.05 * top
        side = "right" if year > 0.7 * end else "center"
        axes.text(max(year, 0.09 * end), above, text, fontsize=6.5, ha=side, va="bottom", zorder=4, bbox=_LABEL_BOX)
    if last < end / 1.06:
        axes.axvspan(last, end, color="#eeeeee", zorder=0)
    axes.set(xlim=(0, end), ylim=(0, top))
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= end])
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= min(top, 1.0)])
    band = "; band: 95 % limits of the baseline" if limits else ""
    axes.set_xlabel(f"years after the ECG{band}", fontsize=7, labelpad=1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.1 else 1))
    _plain(axes, grid="y")


def risk_at(model: EcgDanForSurvival, output: Any, years: npt.ArrayLike) -> list[FloatArray]:
    """Risk of one record's endpoint by each of `years` (m,), zero or more, and its 95 % limits, (m,) each."""
    times = torch.as_tensor(np.asarray(years), dtype=torch.float32)
    return [part[0, 0].double().cpu().numpy() for part in model.risks(output, times)]


def draw_labels(axes: Axes, config: EcgDanConfig, logits: torch.Tensor, with_thresholds: bool = True) -> None:
    """Probability of each label, the highest first, with its decision threshold.

    `logits` is (1, labels); `with_thresholds` is False where thresholds do not hold, as with few leads.
    """
    single = config.problem_type == "single_label_classification"
    marked = with_thresholds and not single
    probabilities = config.label_probabilities(logits[0].float()).cpu().numpy()
    order = np.argsort(-probabilities)[:_MAX_LABELS]
    names = [config.label_names[index] for index in order]
    thresholds = np.array([(config.thresholds or {}).get(name, DEFAULT_THRESHOLD) for name in names])
    values, rows = probabilities[order], np.arange(len(order))
    more = f", highest {_MAX_LABELS} of {len(probabilities)}" if len(probabilities) > _MAX_LABELS else ""
    marks = " (orange: threshold)" if marked else ""
    axes.set_title(f"Label probabilities{marks}{more}", fontsize=8, pad=4)
    reached = (values >= thresholds) & (with_thresholds or single)
    axes.barh(rows, values, height=0.62, color=[_BLUE if above else _PALE for above in reached])
    if marked:
        axes.vlines(thresholds, rows - 0.42, rows + 0.42, color=ORANGE, linewidth=1.6)
    for row, value in enumerate(values):
        axes.text(value + 0.015, row, f"{value:.2f}", fontsize=6.5, va="center")
    axes.set_yticks(rows, [name if len(name) <= 14 else f"{name[:13]}…" for name in names])
    axes.set(xlim=(0, 1.12), ylim=(max(len(rows), 4) - 0.4, -0.6), xticks=[0, 0.25, 0.5, 0.75, 1])
    _plain(axes, grid="x")


def _plain(axes: Axes, grid: Literal["x", "y"]) -> None:
    axes.tick_params(labelsize=6.5, length=2, pad=1.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e5e5e5", linewidth=0.5)
    axes.set_axisbelow(True)
