"""Figures of an evaluation: survival by groups of predicted risk."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdan_hf.evaluation.survival import kaplan_meier, logrank_p_value

GROUP_NAMES = ("low", "middle", "high")
COLOURS = ("#2b6cb0", "#718096", "#c53030")


def risk_thirds(log_hazard: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """0, 1 or 2 for the lowest, middle and highest third of predicted risk: (n,)."""
    values = np.asarray(log_hazard, dtype=np.float64)
    return np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="left").astype(np.int64)


def kaplan_meier_figure(
    event: npt.ArrayLike, time: npt.ArrayLike, log_hazard: npt.ArrayLike, simulated: bool = False
) -> Any:
    """Kaplan-Meier curves with 95 % bands by thirds of predicted risk, numbers at risk, log-rank p.

    Args:
        event: (n,), 1 happened, 0 censored.
        time: (n,), years.
        log_hazard: (n,), predictions for records the model has not seen.
        simulated: says so in the title.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: what [`kaplan_meier`] refuses.
    """
    from matplotlib.figure import Figure

    events, times, group = np.asarray(event), np.asarray(time, dtype=np.float64), risk_thirds(log_hazard)
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes, table = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    years = np.arange(0, np.floor(times.max()) + 1, max(1, round(times.max() / 10)))
    for third in np.unique(group):
        chosen = group == third
        curve = kaplan_meier(events[chosen], times[chosen])
        label = f"{GROUP_NAMES[third]} predicted risk (n = {chosen.sum()})"
        axes.step(curve["time"], curve["survival"], where="post", color=COLOURS[third], label=label)
        axes.fill_between(curve["time"], curve["low"], curve["high"], step="post", alpha=0.15, color=COLOURS[third])
        for year in years:
            at_risk = int((times[chosen] >= year).sum())
            table.text(year, 2 - third, str(at_risk), ha="center", va="center", color=COLOURS[third], fontsize=9)
    p = logrank_p_value(events, times, group) if len(np.unique(group)) > 1 else float("nan")
    title = (
        "Simulated outcome: event-free by thirds of predicted risk" if simulated else "Event-free by predicted risk"
    )
    axes.set(ylabel="event-free", ylim=(min(0.5, axes.get_ylim()[0]), 1.01))
    axes.set_title(f"{title} (log-rank p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})", fontsize=11)
    axes.legend(frameon=False, loc="lower left")
    table.set(ylim=(-0.6, 2.6), yticks=range(3), yticklabels=GROUP_NAMES[::-1], xlabel="years since the ECG")
    table.set_title("at risk", fontsize=9, loc="left")
    for spine in ("top", "right", "left", "bottom"):
        table.spines[spine].set_visible(False)
    table.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
