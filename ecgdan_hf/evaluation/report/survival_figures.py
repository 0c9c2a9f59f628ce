"""Survival by groups of predicted risk: the groups, Kaplan-Meier curves, and the histogram of scores.

Kaplan-Meier with numbers at risk follows Pocock, Clayton and Altman (Lancet 359:1686-1689, 2002); the cut at the event
prevalence is that of arXiv 2403.10581. Plain functions of arrays that return matplotlib Figures.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgdan_hf.evaluation.measures.follow_up import FollowUp, check_scores
from ecgdan_hf.evaluation.measures.intervals import FloatArray
from ecgdan_hf.evaluation.measures.survival import kaplan_meier, logrank_p_value
from ecgdan_hf.evaluation.report.figure_style import (
    BLUE,
    LABEL_SIZE,
    SMALL_SIZE,
    STYLES,
    TITLE_SIZE,
    VERMILION,
    new_figure,
    read_flags,
    tidy,
    title,
)

_MAX_GROUPS = 5
MIN_AT_RISK, MIN_SHARE_AT_RISK = 10, 0.02
"""A curve ends where fewer records than that, or a smaller share of its group, are left: its tail is noise."""

_IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _RiskGroups:
    """Records by predicted risk.

    Attributes:
        index: (n,), 0 for the lowest group.
        names: one per group, lowest first.
        title: how they were cut, such as "thirds of predicted risk".
    """

    index: _IntArray
    names: tuple[str, ...]
    title: str


def risk_groups(
    score: npt.ArrayLike,
    kind: str = "tertiles",
    event: npt.ArrayLike | None = None,
    fold: npt.ArrayLike | None = None,
) -> _RiskGroups:
    """Cuts records into groups of predicted risk; equal scores share the lower group.

    Args:
        score: (n,), higher means more risk; predictions for records the model has not seen.
        kind: "tertiles"; "quantiles=4", or 2 to 5 of them; or "prevalence", the paper's cut: the top fraction equal to
            the share of records with an event, against the rest.
        event: (n,), 1 happened, 0 censored; needed for "prevalence" alone.
        fold: (n,), the fold that predicted each record. Scores of models from different folds have no common scale, so
            that groups are cut within each fold.

    Raises:
        ValueError: another kind, scores that are not finite, arrays of another length, or "prevalence" without events.

    Examples:
        >>> risk_groups([0.1, 0.9, 0.5, 0.2], "prevalence", event=[0, 1, 0, 0]).index.tolist()
        [0, 1, 0, 0]
    """
    values = check_scores(score, np.size(score), "score")
    folds = np.zeros(len(values)) if fold is None else np.asarray(fold)
    if folds.shape != values.shape:
        raise ValueError(f"fold: expected {len(values)} values, one per record, found shape {folds.shape}")
    events = None if event is None else read_flags("event", event, len(values))
    names, title = _group_names(kind)
    index = np.zeros(len(values), dtype=np.int64)
    for part in np.unique(folds):
        chosen = folds == part
        shares = _cuts(kind, len(names), None if events is None else events[chosen])
        index[chosen] = _cut(values[chosen], shares)
    return _RiskGroups(index, names, title)


def kaplan_meier_figure(
    event: npt.ArrayLike,
    time: npt.ArrayLike,
    log_hazard: npt.ArrayLike,
    simulated: bool = False,
    kind: str = "tertiles",
    fold: npt.ArrayLike | None = None,
    small_cells: int = 0,
) -> Figure:
    """Draws Kaplan-Meier curves with 95 % bands by groups of predicted risk, numbers at risk, log-rank p.

    Curves end where fewer than 10 records, or 2 % of the group, are at risk; the test uses all follow-up.

    Args:
        event: (n,), 1 happened, 0 censored.
        time: (n,), years.
        log_hazard: (n,), predictions for records the model has not seen.
        simulated: says so in the title.
        kind, fold: see [`risk_groups`].
        small_cells: numbers below it are not written.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: what [`kaplan_meier`] and [`risk_groups`] refuse.
    """
    follow_up = FollowUp(event, time)
    events, times = follow_up.event, follow_up.times
    groups = risk_groups(check_scores(log_hazard, len(events)), kind, events, fold)
    present = [int(group) for group in np.unique(groups.index)]
    rows = len(groups.names)
    figure = new_figure(4.5 + 0.38 * rows)
    curves, table = figure.subplots(2, 1, sharex=True, height_ratios=(14, rows))
    lowest = [_draw_curve(curves, groups, group, events, times) for group in present]
    floor = min(lowest) if min(lowest) < 0.5 else max(0.0, 1 - 1.15 * (1 - min(lowest)))
    bottom = 0.0 if floor < 0.5 else floor
    cut = f" (axis from {bottom:.2g})" if bottom > 0 else ""
    others = ", competing events censored" if follow_up.competing.any() else ""
    curves.set_ylabel(f"event-free{others}{cut}", fontsize=LABEL_SIZE)
    curves.set(ylim=(bottom, 1 + 0.01 * (1 - bottom)), xlim=(0, follow_up.time.max()))
    look: dict[str, Any] = {"frameon": False, "fontsize": SMALL_SIZE, "handlelength": 3.2, "columnspacing": 1.2}
    columns = 1 if rows == 2 else 2
    curves.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=columns, **look)  # where no curve is
    p = logrank_p_value(events, times, groups.index) if len(present) > 1 else None
    said = title(f"event-free by {groups.title}", simulated, (len(events), int(events.sum())))
    curves.set_title(f"{said}; {_p_text(p)}; bands: 95 %", fontsize=TITLE_SIZE)
    _draw_numbers_at_risk(table, groups, events, times, small_cells)
    tidy(curves)
    return figure


def risk_histogram_figure(
    event: npt.ArrayLike, log_hazard: npt.ArrayLike, simulated: bool = False, num_bins: int = 30
) -> Figure:
    """Draws a histogram of log hazards of records with and without an event, each as a share of its group.

    Args:
        event: (n,), 1 happened, 0 censored: none was seen by the end of follow-up.
        log_hazard: (n,), standardised within each fold where models of several folds predicted.
        simulated: says so in the title.
        num_bins: bars from the lowest to the highest score.

    Raises:
        ValueError: arrays of different lengths, an event that is not 0 or 1, or a score that is not finite.
    """
    events = read_flags("event", event, np.size(event))
    scores = check_scores(log_hazard, len(events))
    if not len(scores):
        raise ValueError("event: expected at least one record, found none")
    figure = new_figure(4.2)
    axes = figure.subplots()
    edges = np.histogram_bin_edges(scores, bins=num_bins)
    looks = ((~events, "no event seen", BLUE, "-", None), (events, "event", VERMILION, "--", "////"))
    for chosen, name, color, line, hatch in looks:
        if chosen.any():
            _draw_bars(axes, scores[chosen], edges, name, color, line, hatch)
    axes.set_xlabel("predicted log hazard", fontsize=LABEL_SIZE)
    axes.set_ylabel("share of the group", fontsize=LABEL_SIZE)
    said = title("predicted risk by what happened", simulated, (len(events), int(events.sum())))
    axes.set_title(said, fontsize=TITLE_SIZE)
    axes.legend(frameon=False, fontsize=LABEL_SIZE, loc="upper left", bbox_to_anchor=(0, 1))
    axes.set_ylim(0, 1.18 * axes.get_ylim()[1])
    tidy(axes)
    return figure


def _group_names(kind: str) -> tuple[tuple[str, ...], str]:
    found = re.fullmatch(r"quantiles=(\d+)", kind)
    if kind == "tertiles":
        return ("low", "middle", "high"), "thirds of predicted risk"
    if kind == "prevalence":
        return ("lower", "highest"), "predicted risk (event-prevalence cut)"
    if found and 2 <= int(found[1]) <= _MAX_GROUPS:
        number = int(found[1])
        names = ("lowest", *("second", "third", "fourth")[: number - 2], "highest")
        return names, f"{number} equal groups of predicted risk"
    raise ValueError(f"kind: expected tertiles, prevalence or quantiles=2 to quantiles={_MAX_GROUPS}, found {kind}")


def _cuts(kind: str, num_groups: int, events: npt.NDArray[np.bool_] | None) -> FloatArray:
    """Share of records below each cut."""
    if kind != "prevalence":
        return np.arange(1, num_groups) / num_groups
    if events is None:
        raise ValueError("event: expected one value per record for kind prevalence, found none")
    return np.array([1 - events.mean()])


def _cut(values: FloatArray, shares: FloatArray) -> _IntArray:
    """Group of each value: group k starts above the value that ends a share of the records."""
    ordered = np.sort(values)
    ends = np.ceil(np.round(shares * len(values), 6)).astype(int) - 1
    limits = np.where(ends >= 0, ordered[ends], -np.inf)
    return np.searchsorted(limits, values, side="left").astype(np.int64)


def _draw_curve(axes: Axes, groups: _RiskGroups, group: int, events: FloatArray, times: FloatArray) -> float:
    """Draws one group; returns the lowest value that the axis has to show."""
    chosen, style = groups.index == group, STYLES[group]
    curve = _curtail(kaplan_meier(events[chosen], times[chosen]))
    label = f"{groups.names[group]} predicted risk (n = {chosen.sum():,})"
    line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.8}
    axes.step(curve["time"], curve["survival"], where="post", label=label, **line)
    axes.fill_between(
        curve["time"], curve["low"], curve["high"], step="post", alpha=0.15, color=style["color"], linewidth=0
    )
    return float(curve[["survival", "low"]].min().min())


def _curtail(curve: pd.DataFrame) -> pd.DataFrame:
    """Returns the curve while enough records are at risk; all of it in a group that never had so many."""
    most = curve["at_risk"].max()
    least = max(MIN_AT_RISK, MIN_SHARE_AT_RISK * most)
    return curve[curve["at_risk"] >= least] if most >= least else curve


def _draw_numbers_at_risk(
    axes: Axes, groups: _RiskGroups, events: FloatArray, times: FloatArray, small_cells: int = 0
) -> None:
    def shown(count: int) -> str:
        return f"<{small_cells}" if 0 < count < small_cells else str(count)

    rows = range(len(groups.names))
    ends = times if times.ndim == 1 else times[:, 1]
    entries = np.zeros_like(ends) if times.ndim == 1 else times[:, 0]
    years = _years(float(ends.max()))
    labels = []
    for row in rows:
        chosen = groups.index == row
        labels.append(f"{groups.names[row]} ({shown(int(events[chosen].sum()))} ev.)")
        for year in years:
            there = chosen & (ends >= year) & ((entries < year) | (entries == 0))
            at_risk = shown(int(there.sum()))
            axes.text(year, -row, at_risk, ha="center", va="center", fontsize=SMALL_SIZE, clip_on=False)
    axes.set(ylim=(-len(groups.names) + 0.4, 0.6), xticks=years)
    axes.set_yticks([-row for row in rows], labels)
    axes.set_xlabel("years since the ECG", fontsize=LABEL_SIZE)
    axes.set_title(
        "at risk (ev.: events in all); curves end where fewer than 10 or 2 % are left",
        fontsize=SMALL_SIZE,
        loc="left",
        pad=3,
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=LABEL_SIZE)
    axes.tick_params(axis="y", pad=22, labelsize=SMALL_SIZE)


def _years(last: float) -> FloatArray:
    """About eight round times from 0 to the end of follow-up, in years."""
    steps = np.array([0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20])
    step = float(steps[np.searchsorted(steps, min(last / 10, steps[-1]))])
    return np.arange(0, last + step / 1e6, step)


def _p_text(p: float | None) -> str:
    if p is None:
        return "one group, no log-rank test"
    return "log-rank p < 0.001" if p < 0.001 else f"log-rank p = {p:.3f}"


def _draw_bars(
    axes: Axes, scores: FloatArray, edges: FloatArray, name: str, color: str, line: str, hatch: str | None
) -> None:
    weights = np.full(len(scores), 1 / len(scores))
    label = f"{name} (n = {len(scores):,})"
    axes.hist(scores, edges.tolist(), weights=weights, color=color, alpha=0.25 if hatch is None else 0.12)
    look: dict[str, Any] = {"edgecolor": color, "linewidth": 1.5, "linestyle": line, "hatch": hatch}
    axes.hist(scores, edges.tolist(), weights=weights, histtype="step", fill=False, label=label, **look)
