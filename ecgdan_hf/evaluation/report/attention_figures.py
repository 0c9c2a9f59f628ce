"""Lead attention of a cohort: mean and spread over subjects, low risk, high risk and their difference.

After the figure of arXiv 2403.10581. Attention shows what a network read, not what caused the outcome. Plain arrays
in, a matplotlib Figure out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ecgdan_hf.evaluation.measures.intervals import FloatArray
from ecgdan_hf.evaluation.report.figure_style import LABEL_SIZE, TITLE_SIZE, new_figure, read_flags, title
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

LEVELS, SIGNED = "cividis", "PuOr_r"
"""Both colour maps keep their order for colour-blind readers and in grey."""


def lead_attention_figure(
    lead_attention: npt.ArrayLike,
    high_risk: npt.ArrayLike,
    event: npt.ArrayLike,
    lead_names: Sequence[str] = STANDARD_LEADS,
    simulated: bool = False,
) -> Figure:
    """Draws maps of leads: mean (top) and SD over subjects (bottom) of low risk, high risk, and high minus low.

    Means and SDs share one colour scale, both differences another, which is symmetric around 0.

    Args:
        lead_attention: (n, leads, leads), rows sum to 1: row reads from column; NaN where a lead was absent.
        high_risk: (n,), 1 for the high-risk group, for example `risk_groups(score, "prevalence", event).index`.
        event: (n,), 1 happened, 0 censored; counted in the titles.
        lead_names: names of rows and columns.
        simulated: says so in the title.

    Raises:
        ValueError: another shape, or fewer than two subjects in a group.
    """
    maps, high, events = _read(lead_attention, high_risk, event, len(lead_names))
    low_mean, low_sd = _mean_and_sd(maps[~high])
    high_mean, high_sd = _mean_and_sd(maps[high])
    levels, changes = (low_mean, high_mean, low_sd, high_sd), (high_mean - low_mean, high_sd - low_sd)
    top, change = (max(float(np.nanmax(np.abs(part))), 1e-9) for part in (np.stack(levels), np.stack(changes)))
    figure = new_figure(6.3)
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    for row, panels in enumerate((levels[:2], levels[2:])):
        for column, panel in enumerate(panels):
            image = _draw_map(axes[row, column], panel, lead_names, cmap=LEVELS, vmin=0, vmax=top)
        signed = _draw_map(axes[row, 2], changes[row], lead_names, cmap=SIGNED, vmin=-change, vmax=change)
    _draw_titles(figure, axes, high, events, simulated)
    bars: dict[str, Any] = {"location": "bottom", "shrink": 0.9, "aspect": 30, "pad": 0.02}
    figure.colorbar(image, ax=axes[:, :2], **bars).set_label("attention: mean (top), SD (bottom)", fontsize=LABEL_SIZE)
    ticks: dict[str, Any] = {"aspect": 15, "ticks": MaxNLocator(3, symmetric=True)}
    figure.colorbar(signed, ax=axes[:, 2], **{**bars, **ticks}).set_label("difference", fontsize=LABEL_SIZE)
    return figure


def _read(
    lead_attention: npt.ArrayLike, high_risk: npt.ArrayLike, event: npt.ArrayLike, num_leads: int
) -> tuple[FloatArray, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    maps = np.asarray(lead_attention, dtype=np.float64)
    if maps.ndim != 3 or maps.shape[1:] != (num_leads, num_leads):
        raise ValueError(f"lead_attention: expected shape (n, {num_leads}, {num_leads}), found {maps.shape}")
    high, events = read_flags("high_risk", high_risk, len(maps)), read_flags("event", event, len(maps))
    sizes = int((~high).sum()), int(high.sum())
    if min(sizes) < 2:
        raise ValueError(
            f"high_risk: expected two subjects or more in each group, found {sizes[0]} low, {sizes[1]} high"
        )
    return maps, high, events


def _mean_and_sd(maps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Over the subjects that have both leads: (leads, leads) each, NaN where fewer than two have."""
    there = np.isfinite(maps)
    number = there.sum(axis=0).astype(np.float64)
    number[number < 2] = np.nan
    mean = np.where(there, maps, 0).sum(axis=0) / number
    square = np.where(there, (maps - mean) ** 2, 0).sum(axis=0)
    return mean, np.sqrt(square / (number - 1))


def _draw_map(axes: Axes, values: FloatArray, lead_names: Sequence[str], **scale: Any) -> Any:
    axes.set_facecolor("#e8e8e8")
    image = axes.imshow(values, interpolation="nearest", **scale)
    axes.set_xticks(range(len(lead_names)), lead_names, fontsize=7, rotation=90)
    axes.set_yticks(range(len(lead_names)), lead_names, fontsize=7)
    axes.tick_params(length=0, pad=2)
    return image


def _draw_titles(
    figure: Figure, axes: Any, high: npt.NDArray[np.bool_], events: npt.NDArray[np.bool_], simulated: bool
) -> None:
    word = "simulated events" if simulated else "events"
    for column, (name, chosen) in enumerate((("low risk", ~high), ("high risk", high))):
        said = f"n = {int(chosen.sum()):,}\n{int(events[chosen].sum()):,} {word}"
        axes[0, column].set_title(f"{name}\n{said}", fontsize=LABEL_SIZE)
    axes[0, 2].set_title("difference\nhigh minus low", fontsize=LABEL_SIZE)
    for row, name in enumerate(("mean", "SD over subjects")):
        axes[row, 0].set_ylabel(name, fontsize=LABEL_SIZE)
    total = f"n = {len(high):,}, {int(events.sum()):,} {word}"
    said = title("lead attention by predicted risk", simulated)
    figure.suptitle(f"{said} ({total})\nrow reads from column", fontsize=TITLE_SIZE)
