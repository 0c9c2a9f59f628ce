"""Results of `ecgdan sanity` as sentences, a Markdown report and figures. See `sanity` for the measures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.explain.checks.deletion import ORDERS

_UNITS = ("leads", "time")
_COLOURS = {"attention": "#c05621", "reverse": "#2b6cb0", "random": "#4a5568", "shifted": "#a0aec0"}
_METHOD_COLOURS = {
    "attention": "#c05621",
    "rollup": "#b7791f",
    "waveform": "#b7791f",
    "gradient": "#2b6cb0",
    "integrated-gradients": "#2c7a7b",
    "occlusion": "#6b46c1",
}
_SAME = 0.5
"""Above this rank correlation with the map of random weights, a map counts as unchanged."""


def _verdict(area: Mapping[str, Any], what: str = "changes the output") -> str:
    """Describes an area between deletion curves."""
    if area["low"] > 0:
        return f"{what} sooner"
    return f"{what} later" if area["high"] < 0 else "is not told apart"


def _map_verdict(entry: Mapping[str, Any], unit: str) -> str:
    """Returns one sentence on one method's map of `leads` or `time`; `entry` is of one of `metrics["methods"]`."""
    stages = entry.get("random_weights")
    last = list(stages.values())[-1] if stages else None
    if last and last["low"] > _SAME:
        return (
            f"This map does not change when the weights are random (rank correlation {last['estimate']:.2f}): it says "
            "nothing about what was learned."
        )
    if entry["area_over_random"]["high"] < 0:
        return f"It points away from the {unit} the output depends on: taken away, what it marks matters less."
    if entry["area_over_random"]["low"] <= 0:
        return f"It points at no {unit} the output depends on: taken away, what it marks matters as a random choice."
    if "area_over_shifted" in entry and entry["area_over_shifted"]["low"] <= 0:
        return "The same pattern moved elsewhere does as well: its clusters matter, not where they lie."
    partly = last is not None and last["low"] > _SAME / 2
    shared = ", but a part of it is there with random weights too" if partly else ""
    return f"It points at {'leads' if unit == 'leads' else 'moments'} the output depends on{shared}."


def _sanity_of(checkpoint: str | Path) -> dict[str, Any] | None:
    """Result of `ecgdan sanity` in a checkpoint's `sanity/` or a bundle's `evaluation/`; None for a Hub name."""
    folder, found = Path(checkpoint), []
    for path in (folder / "sanity" / "metrics.json", *sorted(folder.glob("evaluation/*.json"))):
        if path.is_file():
            result = Result.read(path)
            found += [result.metrics] if result.kind == "sanity" else []
    return max(found, key=lambda metrics: len(metrics.get("methods", ())), default=None)


def map_findings(checkpoint: str | Path, method: str) -> list[str]:
    """Summarises the tests of one method's maps of a checkpoint for the page: one line each for leads and time.

    Args:
        checkpoint: folder with a result of `ecgdan sanity`, of any version; without one the maps count as not tested.
        method: of `METHODS`. Rollup has the same order as attention side by side, and so the same findings.
    """
    metrics = _sanity_of(checkpoint)
    entries = {each["method"]: each for each in (metrics or {}).get("methods", ())}
    if metrics and "attention" not in entries:  # of before there were other methods
        entries["attention"] = {unit: metrics[unit] for unit in _UNITS if unit in metrics}
    entries.setdefault("rollup", entries.get("attention", {}))
    if metrics is None or not entries.get(method):
        return [f"Not tested: ecgdan sanity has not said whether {method} maps of this network mean anything."]
    lines = []
    for unit in (unit for unit in _UNITS if unit in entries[method]):
        entry = entries[method][unit]
        last = [each for each in list(entry.get("random_weights", {}).values())[-1:] if each]
        alike = f"rank correlation {last[0]['estimate']:.2f}" if last else "not tested"
        told = f"deletion {entry['area_over_random']['estimate']:+.3f} over random, random weights {alike}"
        lines.append(
            f"{unit.capitalize()}, {metrics['num_records']} test records: {told}. {_map_verdict(entry, unit)}"
        )
    return lines


def _span(found: Mapping[str, Any] | None, form: str) -> str:
    if not found:
        return "no order"
    return f"{found['estimate']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def _markdown(metrics: Mapping[str, Any], name: str) -> str:
    lines = [f"# What the maps of {name} say", ""]
    if metrics.get("simulated_outcome"):
        lines += ["**The outcome is simulated: these numbers say nothing about patients.**", ""]
    lines += [
        f"On {metrics['num_records']} held-out records of {metrics['num_patients']} patients. Deleted is what a map "
        f"marks most first; measured: {metrics['change']}. Area: mean over the curve of how much further that moved "
        "it than the order named; 95 % interval over patients.",
        "",
        *_method_lines(metrics),
        *_wave_lines(metrics),
        *_attention_lines(metrics),
        "Research use only.",
    ]
    return "\n".join(lines) + "\n"


def _method_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a row and a verdict for each method and unit."""
    methods = metrics.get("methods", ())
    controls = list(dict.fromkeys(name for each in methods for unit in _UNITS for name in _controls(each, unit)))
    compared = any("random_weights" in each.get(unit, {}) for each in methods for unit in _UNITS)
    heads = ["map", "of", "area over random", "area over the map moved elsewhere"]
    heads += ["rank correlation: random weights"] * compared + [f"rank correlation: {name}" for name in controls]
    lines = ["## Every map", ""]
    if compared:
        lines += [
            "Rank correlation of a record's map with that of other networks, mean over "
            f"{metrics['map_records']} of the records: all weights random ({metrics['map_draws']} drawn), controls.",
            "",
        ]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    verdicts = []
    for each in methods:
        for unit in (unit for unit in _UNITS if unit in each):
            entry, row = each[unit], [each["method"], unit, _span(each[unit]["area_over_random"], "+.4f")]
            row.append(_span(entry["area_over_shifted"], "+.4f") if "area_over_shifted" in entry else "")
            if compared:
                row.append(_span(list(entry.get("random_weights", {"": None}).values())[-1], ".2f"))
            row += [_span(_controls(each, unit).get(name), ".2f") for name in controls]
            lines.append(f"| {' | '.join(row)} |")
            verdicts.append(f"* **{each['method']}, {unit}.** {_map_verdict(entry, unit)}")
    figures = ["![Deletion curves of every map](maps.png)", ""]
    figures += ["![Maps under random weights](randomisation.png)", ""] * compared
    return [*lines, "", *verdicts, "", *figures]


def _controls(method: Mapping[str, Any], unit: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = method.get(unit, {}).get("controls", {})
    return found


def _wave_lines(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics.get("waves"):
        return []
    lines = [
        "## Occlusion by wave",
        "",
        "All waves of a kind bridged by a straight line in all leads: change of the score (logit of the label "
        "predicted first, log hazard, or length of the embedding), and how much larger it is than with the same "
        "stretches moved elsewhere in the record.",
        "",
        "| wave | records | share of time | score lost | size of the change | over the stretches moved |",
        "|---|---|---|---|---|---|",
    ]
    for row in metrics["waves"]:
        spans = " | ".join(_span(row[name], "+.3f") for name in ("score", "change", "over_shifted"))
        lines.append(f"| {row['wave']} | {row['num_records']} | {100 * row['share_of_time']:.0f} % | {spans} |")
    return [*lines, ""]


def _attention_lines(metrics: Mapping[str, Any]) -> list[str]:
    units = [unit for unit in _UNITS if unit in metrics]
    if not units:
        return []
    lines = [
        "## Attention, in full",
        "",
        "| deleted | against | measure | area (95 % interval) | the attention order |",
        "|---|---|---|---|---|",
    ]
    for unit in units:
        for measure, entry in (("output", metrics[unit]), ("performance", metrics[unit].get("performance", {}))):
            words = entry.get("metric", measure).replace("_", " ")
            for order in (order for order in ORDERS[unit] if f"area_over_{order}" in entry):
                area = entry[f"area_over_{order}"]
                told = _verdict(area) if measure == "output" else _verdict(area, "costs it")
                lines.append(f"| {unit} | {order} | {words} | {_span(area, '+.4f')} | {told} |")
    lines.append("")
    for unit in units:
        entropy, even = metrics[unit]["entropy"]["estimate"], metrics[unit]["even_entropy"]
        lines.append(f"Entropy of the {unit} map: {entropy:.2f} of {even:.2f} nats (even attention).")
    return [*lines, "", "![Deletion curves of attention](deletion.png)", ""]


def _attention_figure(metrics: Mapping[str, Any]) -> Any:
    """Attention's curves: a column for leads and for time, a row for the output and, where known, the performance."""
    from matplotlib.figure import Figure

    units = [unit for unit in _UNITS if unit in metrics]
    rows = 1 + any("performance" in metrics[unit] for unit in units)
    figure = Figure(figsize=(4.6 * len(units), 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, len(units), squeeze=False)
    for column, unit in enumerate(units):
        entries = [metrics[unit], *([metrics[unit]["performance"]] if "performance" in metrics[unit] else [])]
        for row, entry in enumerate(entries):
            axes = panels[row, column]
            for order, curve in entry["curves"].items():
                axes.plot(metrics[unit]["shares"], curve, marker=".", color=_COLOURS[order], label=order)
            axes.set_ylabel(entry.get("metric", metrics["change"]).replace("_", " "), fontsize=8, wrap=True)
            axes.set_xlabel(f"share of {unit} deleted", fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].legend(frameon=False, fontsize=8, title="order", title_fontsize=8)
    return figure


def _panels(units: Sequence[str]) -> tuple[Any, Any]:
    """A figure with a panel for each unit, and room for a legend at the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(units) + 1.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(units), squeeze=False)[0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
    return figure, zip(panels, units, strict=True)


def _legend(figure: Any) -> Any:
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    return figure


def _maps_figure(metrics: Mapping[str, Any]) -> Any:
    """Every method's deletion curve beside random orders: a panel for leads, one for time."""
    figure, panels = _panels([unit for unit in _UNITS if any(unit in each for each in metrics["methods"])])
    for axes, unit in panels:
        entries = [each for each in metrics["methods"] if unit in each]
        for each in entries:
            entry, colour = each[unit], _METHOD_COLOURS[each["method"]]
            axes.plot(entry["shares"], entry["curves"][each["method"]], marker=".", color=colour, label=each["method"])
            if "shifted" in entry["curves"]:
                axes.plot(entry["shares"], entry["curves"]["shifted"], color=colour, linestyle=":", linewidth=1)
        random = entries[0][unit]
        axes.plot(random["shares"], random["curves"]["random"], color="#1a202c", linestyle="--", label="random order")
        axes.set_xlabel(f"share of {unit} deleted", fontsize=8)
        axes.set_ylabel(metrics["change"], fontsize=8, wrap=True)
        if unit == "time":
            axes.plot([], [], color="#718096", linestyle=":", linewidth=1, label="the map moved elsewhere")
    return _legend(figure)


def _randomisation_figure(metrics: Mapping[str, Any]) -> Any:
    """Rank correlation with the trained network's maps, with random weights from the head down."""
    compared = {
        unit: [each for each in metrics["methods"] if "random_weights" in each.get(unit, {})] for unit in _UNITS
    }
    figure, panels = _panels([unit for unit in _UNITS if compared[unit]])
    for axes, unit in panels:
        axes.axhspan(_SAME, 1.02, color="#f7fafc", zorder=0)
        axes.axhline(0, color="#a0aec0", linewidth=0.8)
        names: list[str] = []
        for each in compared[unit]:
            found = each[unit]["random_weights"]
            names, nothing = ["trained", *found], float("nan")
            spans = [found[name] or dict.fromkeys(("estimate", "low", "high"), nothing) for name in names[1:]]
            curve, low, high = ([1.0, *(span[edge] for span in spans)] for edge in ("estimate", "low", "high"))
            colour = _METHOD_COLOURS[each["method"]]
            axes.plot(range(len(names)), curve, marker=".", color=colour, label=each["method"])
            axes.fill_between(range(len(names)), low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=7)
        axes.set_ylim(min(-0.2, axes.get_ylim()[0]), 1.02)
        axes.set_xlabel("weights random from the head down to", fontsize=8)
        axes.set_ylabel(f"rank correlation of the maps of {unit}", fontsize=8)
    return _legend(figure)


def write_sanity_report(folder: Path, metrics: Mapping[str, Any], name: str) -> None:
    """Writes `report.md` and its figures into an existing folder."""
    (folder / "report.md").write_text(_markdown(metrics, name), encoding="utf-8")
    figures = {"deletion": _attention_figure} if any(unit in metrics for unit in _UNITS) else {}
    figures |= {"maps": _maps_figure} if metrics.get("methods") else {}
    figures |= {"randomisation": _randomisation_figure} if metrics.get("map_records") else {}
    for stem, draw in figures.items():
        draw(metrics).savefig(folder / f"{stem}.png", dpi=130)
