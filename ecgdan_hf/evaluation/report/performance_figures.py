"""Figures of calibration and net benefit at a horizon, AUC over years, and C-index by subgroup.

The numbers come from the metric functions; nothing is estimated here. Calibration shows groups, a smooth curve and the
distribution of predicted risks together (Van Calster et al., BMC Medicine 17:230, 2019). Returns matplotlib Figures.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ecgdan_hf.evaluation.measures.follow_up import check_scores
from ecgdan_hf.evaluation.measures.intervals import FloatArray
from ecgdan_hf.evaluation.report.figure_style import (
    BLACK,
    BLUE,
    GREY,
    LABEL_SIZE,
    SMALL_SIZE,
    STYLES,
    TITLE_SIZE,
    VERMILION,
    new_figure,
    tidy,
    title,
)

_Table = pd.DataFrame | Mapping[str, npt.ArrayLike]

_INTERVAL = ("estimate", "low", "high")
_COLUMNS = (0.54, 0.72, 1.0)
"""Right edges of the numbers to the right of a forest plot, as shares of their panel."""


def calibration_figure(
    groups: _Table,
    risk: npt.ArrayLike,
    horizon_years: float,
    smooth: _Table | None = None,
    simulated: bool = False,
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """Draws observed against predicted risk at a horizon, over the distribution of predicted risks.

    Args:
        groups: `predicted`, `observed`, `low`, `high`, `num_records`, `num_events` (by the horizon) of each group, as
            [`calibration`](survival.py) gives them; NaN where follow-up ends earlier.
        risk: (n,), predicted probability of the event within `horizon_years`.
        horizon_years: horizon in years.
        smooth: `predicted` and `observed` of a smooth calibration curve, with `low` and `high` where it has a band.
        simulated: says so in the title.
        notes: what to print in the panel, such as `{"slope": "0.94 (0.80 to 1.08)"}`.

    Raises:
        ValueError: a missing column, a risk outside [0, 1], or a horizon that is not positive.
    """
    columns = ("predicted", "observed", "low", "high", "num_records", "num_events")
    table = _read_columns("groups", groups, columns)
    risks = _read_risks(risk)
    if not horizon_years > 0:
        raise ValueError(f"horizon_years: expected positive years, found {horizon_years:g}")
    curve = None if smooth is None else _read_columns("smooth", smooth, ("predicted", "observed"), least=2)
    figure = new_figure(6.4)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    top = _largest_risk(table, risks)
    axes.plot([0, top], [0, top], color=GREY, linewidth=1, linestyle=":", label="perfect")
    if curve is not None:
        _draw_smooth(axes, curve.sort_values("predicted"))
    _draw_groups(axes, table)
    _draw_notes(axes, notes)
    _draw_distribution(below, risks, top, horizon_years)
    axes.set(xlim=(0, top), ylim=(0, top))
    axes.set_ylabel(f"observed risk within {horizon_years:g} years", fontsize=LABEL_SIZE)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(frameon=False, fontsize=LABEL_SIZE, loc="upper left")
    counts = int(table["num_records"].sum()), int(table["num_events"].sum())
    said = title(f"calibration at {horizon_years:g} years", simulated, counts)
    axes.set_title(f"{said} by then", fontsize=TITLE_SIZE)
    tidy(axes)
    return figure


def auc_figure(
    curves: Mapping[str, _Table], num_records: int, num_events: int, simulated: bool = False, ylabel: str = "AUC(t)"
) -> Figure:
    """Draws the time-dependent AUC over the years, one line per model.

    Args:
        curves: name -> `years` and `auc`, with `low` and `high` where there is a band; at most seven models. A
            year that is not estimable is NaN and left out.
        num_records, num_events: what all models were judged on.
        simulated: says so in the title.
        ylabel: what is drawn, for example "cumulative/dynamic AUC".

    Raises:
        ValueError: no model or more than seven, or a missing column.
    """
    if not 1 <= len(curves) <= len(STYLES):
        raise ValueError(f"curves: expected 1 to {len(STYLES)} models, found {len(curves)}; draw the others apart")
    figure = new_figure(4.3 + 0.12 * len(curves))
    axes = figure.subplots()
    ends = [_draw_auc(axes, name, curves[name], style) for name, style in zip(curves, STYLES, strict=False)]
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle=":", label="chance")
    axes.set_ylim(min(0.48, *(low for low, _ in ends)) - 0.02, max(0.55, *(high for _, high in ends)) + 0.02)
    axes.set_xlabel("years since the ECG", fontsize=LABEL_SIZE)
    axes.set_ylabel(ylabel, fontsize=LABEL_SIZE)
    bands = "; bands: 95 %" if any("low" in pd.DataFrame(dict(curve)) for curve in curves.values()) else ""
    said = title("discrimination over the years", simulated, (num_records, num_events))
    axes.set_title(f"{said}{bands}", fontsize=TITLE_SIZE)
    figure.legend(frameon=False, fontsize=LABEL_SIZE, handlelength=4, loc="outside lower center", ncols=2)
    tidy(axes)
    return figure


def decision_curve_figure(
    curve: _Table, horizon_years: float, num_records: int, num_events: int, simulated: bool = False
) -> Figure:
    """Draws net benefit by threshold, beside that of treating everybody and nobody.

    Args:
        curve: `threshold`, `model`, `treat_all`, as [`decision_curve`](absolute_risk.py) gives them; NaN is left out.
        horizon_years: horizon of the risks, in years.
        num_records, num_events: what the model was judged on.
        simulated: says so in the title.

    Raises:
        ValueError: a missing column, or no threshold at which net benefit is known.
    """
    table = _read_columns("curve", curve, ("threshold", "model", "treat_all"))
    if table["model"].isna().all():
        raise ValueError("curve: expected net benefit at one threshold or more, found none; take an earlier horizon")
    figure = new_figure(4.3)
    axes = figure.subplots()
    axes.plot(table["threshold"], table["model"], color=BLUE, label="treat above the threshold")
    axes.plot(table["threshold"], table["treat_all"], color=VERMILION, linestyle="--", label="treat all")
    axes.axhline(0, color=GREY, linewidth=1, linestyle=":", label="treat nobody")
    top = float(np.nanmax(table[["model", "treat_all"]].to_numpy()))
    axes.set(xlim=(0, float(table["threshold"].max())), ylim=(-0.25 * max(top, 0.01), 1.1 * max(top, 0.01)))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(f"threshold of the risk within {horizon_years:g} years", fontsize=LABEL_SIZE)
    axes.set_ylabel("net benefit per record", fontsize=LABEL_SIZE)
    axes.set_title(title("decision curve", simulated, (num_records, num_events)), fontsize=TITLE_SIZE)
    axes.legend(frameon=False, fontsize=LABEL_SIZE, loc="upper right")
    tidy(axes)
    return figure


def forest_figure(
    overall: Mapping[str, Any],
    subgroups: Mapping[str, Mapping[str, Mapping[str, Any]]],
    simulated: bool = False,
    xlabel: str = "C-index (95 % interval)",
) -> Figure:
    """Draws the C-index of subgroups, one row each, with its records and events.

    Everyone is a diamond, and a line through the others.

    Args:
        overall: `concordance_index` (with `estimate`, `low`, `high`), `num_records`, `num_events` of all records.
        subgroups: "sex" -> "female" -> the same; what could not be estimated is absent.
        simulated: says so in the title.
        xlabel: what is drawn.

    Raises:
        ValueError: no row that could be estimated.
    """
    rows = [("", "all", overall)]
    rows += [(name, level, found) for name, levels in subgroups.items() for level, found in levels.items()]
    table = pd.DataFrame([{"subgroup": name, "level": level, **_estimate(found)} for name, level, found in rows])
    if table["estimate"].isna().all():
        raise ValueError(f"subgroups: expected an estimate, found none in {len(table)} rows")
    heights = _row_heights(table["subgroup"].tolist())
    figure = new_figure(1.5 + 0.27 * (heights[-1] + 1))
    axes, text = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2.4))
    for height, (_, row) in zip(heights, table.iterrows(), strict=True):
        _draw_forest_row(axes, text, height, row, simulated)
    _draw_forest_labels(axes, table, heights)
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
    axes.set_xlabel(xlabel, fontsize=LABEL_SIZE)
    axes.set_ylim(heights[-1] + 0.8, -1.2)
    text.axis("off")
    text.set_xlim(0, 1)
    axes.axvline(float(table["estimate"].iloc[0]), color=BLACK, linewidth=0.8, linestyle="--")
    counts = int(overall["num_records"]), int(overall["num_events"])
    figure.suptitle(title("C-index by subgroup", simulated, counts), fontsize=TITLE_SIZE)
    tidy(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _read_columns(name: str, table: _Table, columns: Iterable[str], least: int = 1) -> pd.DataFrame:
    """Returns the table with these columns as floats; others stay. Errors call the table `name`."""
    needed = list(columns)
    try:
        frame = pd.DataFrame(dict(table)).reset_index(drop=True)
    except ValueError as error:
        raise ValueError(f"{name}: expected columns of one length, found {error}") from None
    missing = [column for column in needed if column not in frame]
    if missing:
        raise ValueError(f"{name}: expected columns {', '.join(needed)}, found {', '.join(map(str, frame.columns))}")
    if len(frame) < least:
        raise ValueError(f"{name}: expected at least {least} row{'s' if least > 1 else ''}, found {len(frame)}")
    try:
        return frame.astype(dict.fromkeys(needed, np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers in {', '.join(needed)}, found {error}") from None


def _read_risks(risk: npt.ArrayLike) -> FloatArray:
    risks = check_scores(risk, np.size(risk), "risk")
    if not len(risks) or risks.min() < 0 or risks.max() > 1:
        found = f"{risks.min():g} to {risks.max():g}" if len(risks) else "none"
        raise ValueError(f"risk: expected probabilities between 0 and 1, found {found}")
    return risks


def _largest_risk(table: pd.DataFrame, risks: FloatArray) -> float:
    """End of both axes: all groups with their intervals, and 99 % of the predictions."""
    seen = [*table[["predicted", "observed", "high"]].to_numpy().ravel(), np.quantile(risks, 0.99)]
    return float(min(1.0, 1.06 * max(np.nanmax(seen), 0.01)))


def _draw_smooth(axes: Axes, curve: pd.DataFrame) -> None:
    axes.plot(curve["predicted"], curve["observed"], color=VERMILION, linestyle="--", linewidth=1.8, label="smooth")
    if {"low", "high"} <= set(curve):
        axes.fill_between(curve["predicted"], curve["low"], curve["high"], color=VERMILION, alpha=0.15, linewidth=0)


def _draw_groups(axes: Axes, table: pd.DataFrame) -> None:
    seen = table.dropna(subset=["observed"])
    left_out = len(table) - len(seen)
    label = f"{len(seen)} groups by predicted risk, 95 % intervals"
    if left_out:
        label += f" ({left_out} followed too briefly)"
    bars = [seen["observed"] - seen["low"], seen["high"] - seen["observed"]]
    axes.errorbar(
        seen["predicted"], seen["observed"], yerr=np.clip(np.nan_to_num(bars), 0, None), fmt="o", color=BLUE,
        capsize=3, markersize=5.5, linewidth=1.3, label=label,
    )  # fmt: skip


def _draw_notes(axes: Axes, notes: Mapping[str, str] | None) -> None:
    if notes:
        text = "\n".join(f"{name}: {value}" for name, value in notes.items())
        axes.text(0.985, 0.03, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=SMALL_SIZE,
                  bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2})  # fmt: skip


def _draw_distribution(axes: Axes, risks: FloatArray, top: float, horizon_years: float) -> None:
    axes.hist(risks, np.linspace(0, top, 41).tolist(), color=BLUE, alpha=0.45, edgecolor=BLUE, linewidth=0.5)
    beyond = int((risks > top).sum())
    more = f" ({beyond} above {top:.0%} not drawn)" if beyond else ""
    axes.set_xlabel(f"predicted risk within {horizon_years:g} years{more}", fontsize=LABEL_SIZE)
    axes.set_ylabel("records", fontsize=LABEL_SIZE)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    tidy(axes)


def _draw_auc(axes: Axes, name: str, curve: _Table, style: Mapping[str, Any]) -> tuple[float, float]:
    """Draws one model; returns the lowest and highest value."""
    table = _read_columns(f"curves[{name!r}]", curve, ("years", "auc")).dropna(subset=["auc"]).sort_values("years")
    axes.plot(table["years"], table["auc"], label=name, linewidth=1.6, markersize=5, **style)
    values = [table["auc"]]
    if {"low", "high"} <= set(table):
        axes.fill_between(table["years"], table["low"], table["high"], color=style["color"], alpha=0.12, linewidth=0)
        values += [table["low"], table["high"]]
    seen = np.concatenate([np.asarray(column, dtype=np.float64) for column in values])
    return (float(np.nanmin(seen)), float(np.nanmax(seen))) if len(table) else (0.5, 0.5)


def _estimate(found: Mapping[str, Any]) -> dict[str, float]:
    index = found.get("concordance_index") or {}
    values = {name: index.get(name) for name in _INTERVAL}
    values |= {name: found.get(name) for name in ("num_records", "num_events")}
    return {name: np.nan if value is None else float(value) for name, value in values.items()}


def _row_heights(subgroups: list[str]) -> list[float]:
    """Vertical place of each row; a new subgroup starts after a gap that holds its name."""
    heights: list[float] = []
    height, last = -1.0, ""
    for name in subgroups:
        height += 1.0 if name == last else 2.1
        heights.append(height if heights or name else 0.0)
        height, last = heights[-1], name
    return heights


def _draw_forest_row(axes: Axes, text: Axes, height: float, row: Any, simulated: bool) -> None:
    everyone = row["subgroup"] == ""
    said = "not estimable"
    if np.isfinite(row["estimate"]):
        said = f"{row['estimate']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        low, high = np.nan_to_num(row["estimate"] - row["low"]), np.nan_to_num(row["high"] - row["estimate"])
        look: dict[str, Any] = {"fmt": "D", "color": BLACK} if everyone else {"fmt": "o", "color": BLUE}
        axes.errorbar(
            row["estimate"],
            height,
            xerr=[[max(low, 0)], [max(high, 0)]],
            capsize=3,
            markersize=6,
            linewidth=1.4,
            **look,
        )
    numbers = ["?" if np.isnan(row[name]) else f"{int(row[name]):,}" for name in ("num_records", "num_events")]
    for place, words in zip(_COLUMNS, (said, *numbers), strict=True):
        text.text(place, height, words, ha="right", va="center", fontsize=SMALL_SIZE)
    if height == 0:
        for place, words in zip(
            _COLUMNS, ("C-index", "n", "simulated\nevents" if simulated else "events"), strict=True
        ):
            text.text(place, -1, words, ha="right", va="center", fontsize=SMALL_SIZE, weight="bold")


def _draw_forest_labels(axes: Axes, table: pd.DataFrame, heights: list[float]) -> None:
    axes.set_yticks(heights, [str(level) for level in table["level"]])
    last = ""
    for height, name in zip(heights, table["subgroup"], strict=True):
        if name not in ("", last):
            axes.annotate(
                str(name), (0, height - 1), xycoords=("axes fraction", "data"), xytext=(-4, 0),
                textcoords="offset points", ha="right", va="center", fontsize=LABEL_SIZE, weight="bold",
            )  # fmt: skip
        last = str(name)
