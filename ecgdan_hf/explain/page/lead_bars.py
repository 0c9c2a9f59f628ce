"""Panel of the page: what each lead adds to the score, as bars."""

import numpy as np
from matplotlib.axes import Axes

from ecgdan_hf.explain.maps.attribution import Attribution

FOR, AGAINST, SHARE = "#d95f02", "#2171b5", "#3d82c4"


def draw_lead_bars(axes: Axes, shown: Attribution, lead_names: list[str]) -> None:
    """One bar for each lead: its part of the score, or its share of attention with a line where all are alike.

    Args:
        axes: axes to draw into.
        shown: the map.
        lead_names: names of the bars, the first on top.
    """
    titles = {
        "rollup": "Share of each lead, attention rollout",
        "occlusion": f"What the {shown.score} loses without a lead",
    }
    axes.set_title(titles.get(shown.method, f"Part of the {shown.score} by lead"), fontsize=8, pad=5)
    values, rows = np.nan_to_num(shown.leads), np.arange(len(lead_names))
    colours = [(FOR if value >= 0 else AGAINST) if shown.signed else SHARE for value in values]
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
