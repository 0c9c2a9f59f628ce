"""The result of deleting what attention points at, as a page and a figure. See `sanity` for what is measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgdan_hf.explain.sanity import ORDERS

UNITS = ("leads", "time")
COLOURS = {"attention": "#c05621", "reverse": "#2b6cb0", "random": "#4a5568", "shifted": "#a0aec0"}


def verdict(area: Mapping[str, Any], costs: bool = False) -> str:
    """An area between deletion curves in words; `costs` where it is of performance."""
    what = "costs performance" if costs else "changes the output"
    if area["low"] > 0:
        return f"{what} sooner"
    return f"{what} later" if area["high"] < 0 else "is not told apart"


def report(metrics: Mapping[str, Any], name: str) -> str:
    """The result as Markdown.

    Args:
        metrics: of [`summarise`].
        name: the checkpoint's.
    """
    lines = [f"# What the attention maps of {name} say", ""]
    if metrics.get("simulated_outcome"):
        lines += ["**The outcome is simulated: these numbers say nothing about patients.**", ""]
    lines += [
        f"On {metrics['num_records']} held-out records of {metrics['num_patients']} patients. Deleted in order of "
        f"attention, most attended first; measured: {metrics['change']}. Area: mean over the curve of how much "
        "further the attention order moved it than the order named; 95 % interval over patients.",
        "",
        "| deleted | against | measure | area (95 % interval) | the attention order |",
        "|---|---|---|---|---|",
    ]
    for unit in (unit for unit in UNITS if unit in metrics):
        for measure, entry in (("output", metrics[unit]), ("performance", metrics[unit].get("performance", {}))):
            words = entry.get("metric", measure).replace("_", " ")
            for order in (order for order in ORDERS[unit] if f"area_over_{order}" in entry):
                area = entry[f"area_over_{order}"]
                span = f"{area['estimate']:+.4f} ({area['low']:+.4f} to {area['high']:+.4f})"
                told = (
                    verdict(area) if measure == "output" else verdict(area).replace("changes the output", "costs it")
                )
                lines.append(f"| {unit} | {order} | {words} | {span} | {told} |")
    lines.append("")
    for unit in (unit for unit in UNITS if unit in metrics):
        entropy, even = metrics[unit]["entropy"]["estimate"], metrics[unit]["even_entropy"]
        lines.append(f"Entropy of the {unit} map: {entropy:.2f} of {even:.2f} nats (even attention).")
    lines += ["", "![Deletion curves](deletion.png)", "", "Research use only."]
    return "\n".join(lines) + "\n"


def figure_of(metrics: Mapping[str, Any]) -> Any:
    """The curves: a column for leads and for time, a row for the output and, where known, for the performance."""
    from matplotlib.figure import Figure

    units = [unit for unit in UNITS if unit in metrics]
    rows = 1 + any("performance" in metrics[unit] for unit in units)
    figure = Figure(figsize=(4.6 * len(units), 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, len(units), squeeze=False)
    for column, unit in enumerate(units):
        entries = [metrics[unit], *([metrics[unit]["performance"]] if "performance" in metrics[unit] else [])]
        for row, entry in enumerate(entries):
            axes = panels[row, column]
            for order, curve in entry["curves"].items():
                axes.plot(metrics[unit]["shares"], curve, marker=".", color=COLOURS[order], label=order)
            axes.set_ylabel(entry.get("metric", metrics["change"]).replace("_", " "), fontsize=8, wrap=True)
            axes.set_xlabel(f"share of {unit} deleted", fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].legend(frameon=False, fontsize=8, title="order", title_fontsize=8)
    return figure


def write_report(folder: Path, metrics: Mapping[str, Any], name: str) -> None:
    """`report.md` and `deletion.png`, into an existing folder."""
    (folder / "report.md").write_text(report(metrics, name), encoding="utf-8")
    figure_of(metrics).savefig(folder / "deletion.png", dpi=130)
