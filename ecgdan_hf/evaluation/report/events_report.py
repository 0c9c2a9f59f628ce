"""Table and figure of a study over numbers of events: C against events, and what does not help."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ecgdan_hf.evaluation.report.figure_style import (
    BLACK,
    GREY,
    LABEL_SIZE,
    SMALL_SIZE,
    STYLES,
    new_figure,
    tidy,
    title,
)

_ATTAINABLE = "attainable (true hazard)"
_STYLES = (*STYLES, {"color": GREY, "linestyle": "-", "marker": "*"})


def events_report(table: pd.DataFrame, metrics: dict[str, Any], reference: str) -> str:
    """Returns the tables as Markdown: one for each hazard, methods by numbers of events.

    Args:
        table: columns `hazard`, `events`, `repetition`, `method`, `concordance` and `slope`.
        metrics: of the result of kind `events`.
        reference: method that the others are compared with.
    """
    lines = [
        "# Concordance against the number of events",
        "",
        "**All outcomes are simulated: these numbers say nothing about patients.**",
        "",
        f"{metrics['num_records']} records of {metrics['num_patients']} patients; each number is the mean of "
        f"{metrics['repetitions']} repetitions with other splits of the patients (60 to 40) and other follow-up. C is "
        "the expected one under the known hazard, so that test outcomes add no luck; in brackets the difference to "
        f"{reference}, with 1.96 standard errors over repetitions on these ECGs.",
    ]
    for hazard, cells in metrics["models"].items():
        methods = list(next(iter(cells.values())))
        lines += ["", f"## {hazard}: {metrics['hazards'][hazard]}", ""]
        lines += [f"| training events | {' | '.join(map(str, cells))} |", "|---" * (len(cells) + 1) + "|"]
        for method in methods:
            told = [_cell(cell[method], method, reference) for cell in cells.values()]
            lines.append(f"| {method} | {' | '.join(told)} |")
        slopes = [f"{cell[_first_embedding(methods)]['median_slope']:.2f}" for cell in cells.values()]
        lines += ["", f"Median calibration slope of the {_first_embedding(methods)}: {', '.join(slopes)}."]
        lines += [_no_help(cells, methods, reference)]
    return "\n".join(lines)


def _first_embedding(methods: list[str]) -> str:
    return next((name for name in methods if "language" in name), methods[0])


def _cell(found: dict[str, float], method: str, reference: str) -> str:
    text = f"{found['concordance']:.3f}"
    if method in (reference, _ATTAINABLE):
        return text
    return f"{text} ({found[f'ahead of {reference}']:+.3f} ± {found[f'ahead of {reference}, 1.96 se']:.3f})"


def _no_help(cells: dict[int, Any], methods: list[str], reference: str) -> str:
    """Names the methods that are ahead of the reference at no number of events."""
    compared = [name for name in methods if name not in (reference, _ATTAINABLE)]
    key = f"ahead of {reference}"
    idle = [
        name for name in compared if all(cell[name][key] <= cell[name][f"{key}, 1.96 se"] for cell in cells.values())
    ]
    return f"Not ahead of {reference} by an interval at any number of events: {', '.join(idle) or 'none'}."


def events_figure(table: pd.DataFrame, hazard: str) -> Figure:
    """Draws C against the number of events for one hazard: means, bands of 1.96 standard errors, attainable line."""
    part = table[table["hazard"] == hazard]
    figure = new_figure(4.6)
    axes = figure.subplots()
    methods = [name for name in part["method"].unique() if name != _ATTAINABLE]
    for index, name in enumerate(methods):
        grouped = part[part["method"] == name].groupby("events")["concordance"]
        mean, error = grouped.mean(), 1.96 * grouped.std(ddof=1) / np.sqrt(grouped.count())
        style = _STYLES[index % len(_STYLES)]
        axes.plot(mean.index, mean, label=name, markersize=4, **style)
        axes.fill_between(mean.index, mean - error, mean + error, color=style["color"], alpha=0.12, linewidth=0)
    best = part[part["method"] == _ATTAINABLE].groupby("events")["concordance"].mean()
    axes.plot(best.index, best, color=BLACK, linewidth=1, label="attainable")
    axes.set_xscale("log")
    axes.set_xticks(best.index, [str(count) for count in best.index])
    axes.minorticks_off()
    axes.set_xlabel("training events", fontsize=LABEL_SIZE)
    axes.set_ylabel("expected C-index on other patients", fontsize=LABEL_SIZE)
    axes.set_title(title(f"concordance against the number of events, hazard {hazard}", simulated=True), fontsize=10)
    axes.legend(fontsize=SMALL_SIZE, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    tidy(axes)
    return figure
