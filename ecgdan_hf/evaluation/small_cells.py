"""Leaves out of a result the groups of so few people that somebody could be recognised (small cells).

A group with fewer than the given number of records, patients, events, or records without an event is left out whole,
its estimates included, because a rate gives its count away. Where it is the only one of its kind that is left out, the
next smallest goes too, or the total would give it away. 0 is no small cell. Imports nothing of the package.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_PEOPLE = ("num_records", "num_patients")
_PARTS = ("events", "positives", "competing_events")
_SEXES = ("female", "male")


def without_small_cells(metrics: Mapping[str, Any], smallest: int) -> dict[str, Any]:
    """Returns the content of a `metrics.json` without groups of fewer than `smallest`, and with `small_cells`.

    Raises:
        ValueError: `smallest` is below 2, or there are so few records or events in all.
    """
    if smallest < 2:
        raise ValueError(f"small_cells: expected the smallest count to show, 2 or more, got {smallest}")
    kept = dict(metrics)
    if isinstance(kept.get("subgroups"), Mapping):
        kept["subgroups"] = _without_rare_labels(kept["subgroups"], smallest)
    if isinstance(kept.get("decisions"), Mapping):
        kept["decisions"] = _decisions(kept["decisions"], kept, smallest)
    return {**_cleaned(kept, smallest, "result"), "small_cells": smallest}


def _cleaned(node: Any, smallest: int, name: str) -> Any:
    if isinstance(node, list | tuple):
        return [_cleaned(each, smallest, name) for each in _of_groups(dict(enumerate(node)), smallest).values()]
    if not isinstance(node, Mapping):
        return node
    if any(0 < count < smallest for count in _cells(node)):
        raise ValueError(
            f"small_cells: {name}: fewer than {smallest} records, patients, events or records without an event in "
            "all; nothing of it can be shown"
        )
    groups = _of_groups(node, smallest)
    late, records = node.get("num_delayed_entry", 0), node.get("num_records", 0)
    if late and (late < smallest or 0 < records - late < smallest):
        del groups["num_delayed_entry"]
    return {key: _cleaned(value, smallest, str(key)) for key, value in groups.items()}


def _of_groups(groups: Mapping[Any, Any], smallest: int) -> dict[Any, Any]:
    """The members without those that are small cells, and without one more if it was one."""
    sizes = {key: [*_cells(each)] for key, each in groups.items() if isinstance(each, Mapping)}
    counted = {key: cells for key, cells in sizes.items() if cells}
    small = {key for key, cells in counted.items() if any(0 < cell < smallest for cell in cells)}
    others = [key for key in counted if key not in small and max(counted[key]) > 0]
    if len(small) == 1 and others and len(counted) > 1:
        small.add(min(others, key=lambda key: max(counted[key])))
    return {key: each for key, each in groups.items() if key not in small}


def _cells(node: Mapping[str, Any]) -> Iterator[int]:
    """All counts of people that a group tells, also by subtraction."""
    for key, value in node.items():
        if key in _PEOPLE or key in _SEXES or (key.startswith("num_") and key[4:] in (*_PARTS, "missing")):
            values = value.values() if isinstance(value, Mapping) and key not in _SEXES else [value]
            yield from (each for each in values if isinstance(each, int) and each)
    records = node.get("num_records")
    for part in _PARTS:
        if isinstance(records, int) and isinstance(node.get(f"num_{part}"), int):
            yield records - node[f"num_{part}"]


def _without_rare_labels(subgroups: Mapping[str, Any], smallest: int) -> dict[str, Any]:
    """Leaves a label that is rare in one of the groups out of all of them."""
    groups = [group for members in subgroups.values() for group in members.values() if "labels" in group]
    rare = {
        label
        for group in groups
        for label, found in group["labels"].items()
        if any(0 < cell < smallest for cell in _cells({"num_records": group.get("num_records"), **found}))
    }

    def kept(group: Mapping[str, Any]) -> dict[str, Any]:
        if "labels" not in group:
            return dict(group)
        labels = {label: found for label, found in group["labels"].items() if label not in rare}
        return {**group, "labels": labels, "labels_judged": [*filter(labels.get, group.get("labels_judged", []))]}

    return {by: {name: kept(group) for name, group in members.items()} for by, members in subgroups.items()}


def _decisions(decisions: Mapping[str, Any], metrics: Mapping[str, Any], smallest: int) -> dict[str, Any]:
    """Leaves out thresholds above or below which there are few, or few with or without the event."""
    records, events = metrics.get("num_records", 0), metrics.get("num_events", 0)

    def is_small(row: Mapping[str, Any]) -> bool:
        share, hit = (row[name]["estimate"] if row.get(name) else 0.0 for name in ("share_above", "sensitivity"))
        above, true = share * records, hit * events
        return any(0 < round(cell) < smallest for cell in (above, records - above, true, events - true, above - true))

    rows = [row for row in decisions.get("thresholds", []) if not is_small(row)]
    return {**decisions, "thresholds": rows}
