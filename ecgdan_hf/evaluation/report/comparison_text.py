"""Comparisons of models as Markdown: the held-out report, and the tables of zero-shot results."""

from collections.abc import Mapping, Sequence
from typing import Any

from ecgdan_hf.evaluation.report.subgroup_text import subgroup_text

_METRICS = {"concordance_index": "C-index", "macro_auroc": "macro AUROC"}


def comparison_table(metrics: Mapping[str, Any]) -> str:
    """Returns one row for each model: the metric with its interval, and the lead of the first model.

    Args:
        metrics: `metric`, its name, and `models`, from `Outcome.compare`.
    """
    words = _METRICS[metrics["metric"]]
    lines = [f"| | {words} | 95 % interval | ahead of it by (95 % interval) |", "|---|---|---|---|"]
    for name, entry in metrics["models"].items():
        lead = _signed(entry["ahead"]) if "ahead" in entry else ""
        lines.append(_row([name, f"{entry['estimate']:.3f}", f"{entry['low']:.3f} to {entry['high']:.3f}", lead]))
    return "\n".join(lines)


def held_out_text(metrics: Mapping[str, Any]) -> str:
    """Returns the held-out report.

    Args:
        metrics: of `protocols.held_out`.
    """
    simulated = bool(metrics.get("simulated_outcome"))
    events = f", {metrics['num_events']} events" if "num_events" in metrics else ""
    what = f"{metrics['num_records']} held-out records of {metrics['num_patients']} patients{events}"
    lines = ["# Held-out evaluation", "", f"On {what}. Intervals: patients resampled, differences paired.", ""]
    if simulated:
        lines += ["**The outcome is simulated: these numbers say nothing about patients.**", ""]
    lines += [comparison_table(metrics), ""]
    if metrics.get("seen_records"):
        lines += ["Training records among the test records, recognised by their signals:", ""]
        lines += [*(f"* {name}: {text}" for name, text in metrics["seen_records"].items()), ""]
    if metrics.get("calibration"):
        lines += [f"Risk within {metrics['calibration']['horizon_years']:g} years, by fifths of predicted risk:", ""]
        lines += ["| predicted | observed (95 % interval) | records | events |", "|---|---|---|---|"]
        for group in metrics["calibration"]["groups"]:
            observed = f"{group['observed']:.3f} ({group['low']:.3f} to {group['high']:.3f})"
            lines += [f"| {group['predicted']:.3f} | {observed} | {group['num_records']} | {group['num_events']} |"]
        lines += [""]
    if late := metrics.get("num_delayed_entry"):
        lines += [
            f"{late} records came under observation after their ECG (delayed entry). Risk sets leave them out until"
        ]
        lines += [
            "then; decisions, reclassification and observed over expected, which do not know it, are left out.",
            "",
        ]
    lines += _endpoint_lines(metrics)
    lines += _decision_lines(metrics)
    lines += ["## By sex and age", "", subgroup_text(metrics["subgroups"], simulated), ""]
    if smallest := metrics.get("small_cells"):
        lines += [f"Groups with fewer than {smallest} records, patients, events or records without an event are left"]
        lines[-1] += " out, and with a single one of them the next smallest, so that no total gives it away."
        lines += [""]
    return "\n".join([*lines, "Research use only."]) + "\n"


def _endpoint_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Further endpoints of the network, each on the records that know it; nothing without them."""
    if not metrics.get("endpoints"):
        return []
    lines = [
        f"All but this table are of {metrics['endpoint']}. Further endpoints, each on the records that know it:",
        "",
    ]
    lines += [_row(["endpoint", "records", "events", "C-index (95 % interval)"]), _row(["---"] * 4)]
    for name, found in metrics["endpoints"].items():
        if "not_estimable" in found:
            lines.append(_row([name, "", "", found["not_estimable"]]))
            continue
        counts = str(found["num_records"]), str(found["num_events"])
        lines.append(_row([name, *counts, _span(found["concordance_index"])]))
    return [*lines, ""]


def _decision_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Decisions at thresholds of risk, and reclassification with its warning; nothing without them."""
    lines: list[str] = []
    if "decisions" in metrics:
        names = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}
        names |= {"net_benefit": "net benefit", "share_above": "share above"}
        years = metrics["decisions"]["horizon_years"]
        lines += [f"Decisions by the risk within {years:g} years (95 % intervals):", ""]
        lines += [_row(["threshold", *names.values()]), _row(["---"] * (1 + len(names)))]
        for row in metrics["decisions"]["thresholds"]:
            cells = [_span(row[name]) if row[name] else "nobody" for name in names]
            lines.append(_row([f"{row['threshold']:g}", *cells]))
        lines.append("")
    for name, found in metrics.get("reclassification", {}).items():
        lines += [
            f"Against {name}: continuous NRI {found['nri']:+.3f} (events {found['nri_events']:+.3f}, others "
            f"{found['nri_nonevents']:+.3f}), IDI {found['idi']:+.3f}. Both can favour a worse, miscalibrated model; "
            "read the differences of C and net benefit first.",
            "",
        ]
    return lines


def zero_shot_tables(levels: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns two tables: one row for each level, and one row for each class.

    Args:
        levels: level -> from `zero_shot.Level.metrics`.
    """
    return f"{_level_table(levels)}\n\n{_class_table(levels)}"


def _level_table(levels: Mapping[str, Mapping[str, Any]]) -> str:
    controls = list(next(iter(levels.values()), {}).get("controls", {}))
    heads = ["level", "classes", "positives", "macro AUROC (95 % interval)", "prompts permuted: mean (range)"]
    for name in controls:
        heads += [name, f"ahead of {name} by (95 % interval)"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for level, entry in levels.items():
        positives = [label["num_positives"] for label in entry["labels"].values()]
        permuted = entry["permuted_prompts"]
        cells = [level, str(len(positives)), f"{min(positives)} to {max(positives)} each", _span(entry["macro_auroc"])]
        cells.append("{mean:.3f} ({low:.3f} to {high:.3f})".format(**permuted) if permuted else "")
        for name in controls:
            other = entry["controls"][name]
            cells += [f"{other['macro_auroc']:.3f}", _signed(other["ahead"])]
        lines.append(_row(cells))
    return "\n".join(lines)


def _class_table(levels: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [_row(["level", "class", "positives", "AUROC (95 % interval)"]), _row(["---"] * 4)]
    for level, entry in levels.items():
        for name, label in entry["labels"].items():
            lines.append(_row([level, name, str(label["num_positives"]), _span(label["auroc"])]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _span(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['estimate']:.3f}"
    return "{estimate:.3f} ({low:.3f} to {high:.3f})".format(**found)


def _signed(found: Mapping[str, Any]) -> str:
    return "{estimate:+.3f} ({low:+.3f} to {high:+.3f})".format(**found)
