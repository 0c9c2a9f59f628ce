"""Metrics by sex and age as Markdown: tables, groups that are too small, and the number of differences.

Imports nothing but `subgroups`, whose numbers it writes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ecgdan_hf.evaluation.protocols.subgroups import MIN_PATIENTS, Found

_WORDS = {
    "concordance_index": "C-index",
    "macro_auroc": "macro AUROC",
    "auroc": "AUROC",
    "false_positive_rate": "false positive rate",
    "predicted_minus_observed": "predicted minus observed",
}
_REST = "minus everyone else"
Entries = Sequence[tuple[str, Mapping[str, Any]]]


def subgroup_text(found: Found, simulated: bool = False) -> str:
    """Returns the groups as Markdown.

    Args:
        found: of `survival_subgroups` or `classification_subgroups`.
        simulated: the outcome was simulated, which the heading of every number then says.
    """
    entries = [(f"{by}: {group}", entry) for by, members in found.items() for group, entry in members.items()]
    survival = any("num_events" in entry for _, entry in entries)
    tables = [_survival_table(entries, simulated)] if survival else [_group_table(entries), _label_table(entries)]
    return "\n\n".join([*filter(None, tables), _small_print(found, survival)])


def _survival_table(entries: Entries, simulated: bool) -> str:
    mark = " (simulated)" if simulated else ""
    heads = ["group", "records", "patients", f"events{mark}", f"C-index{mark}", _REST]
    heads.append(f"observed over predicted risk{mark}")
    rows = []
    for name, entry in entries:
        index, ratio = _pair(entry.get("concordance_index")), _text(entry.get("observed_over_expected"))
        rows.append([name, *_sizes(entry), str(entry["num_events"]), *index, ratio])
    return _table(heads, rows)


def _group_table(entries: Entries) -> str:
    heads = ["group", "records", "patients", "macro AUROC", _REST, "over the labels"]
    rows = [
        [name, *_sizes(entry), *_pair(entry.get("macro_auroc")), ", ".join(entry.get("labels_judged", []))]
        for name, entry in entries
    ]
    return _table(heads, rows)


def _label_table(entries: Entries) -> str:
    """Returns each label in each group, without empty columns; labels that no group can judge are listed below."""
    heads = ["label, group", "with the label", "AUROC", _REST, "sensitivity", _REST, "false positive rate", _REST]
    heads.append("predicted minus observed")
    rows = []
    labels = dict.fromkeys(label for _, entry in entries for label in entry["labels"])
    judged = [label for label in labels if any("auroc" in entry["labels"][label] for _, entry in entries)]
    for label in judged or labels:
        for name, entry in entries:
            each = entry["labels"][label]
            cells = [f"{label}, {name}", str(each["num_positives"])]
            for measure in ("auroc", "sensitivity", "false_positive_rate"):
                cells += _pair(each.get(measure))
            rows.append([*cells, _text(each.get("predicted_minus_observed"), signed=True)])
    filled = [column for column in range(len(heads)) if any(row[column] for row in rows)]
    table = _table([heads[column] for column in filled], [[row[column] for column in filled] for row in rows])
    rare = [label for label in labels if judged and label not in judged]
    return f"{table}\n\nJudged in no group, for want of patients: {', '.join(rare)}." if rare else table


def _small_print(found: Found, survival: bool) -> str:
    whom = "the event" if survival else "the label, or without it,"
    said = [f"95 % intervals by resampling patients. A group with fewer than {MIN_PATIENTS} patients with {whom} is"]
    said.append("counted and not judged.")
    spans = list(_differences(found))
    if not spans:
        said.append("No group could be compared with everyone else: nothing is known of how it does by sex and age.")
        return " ".join(said)
    beyond = [_readable(name) for name, span in spans if span["low"] > 0 or span["high"] < 0]
    said.append(f"Of {len(spans)} differences, none chosen beforehand, about {0.05 * len(spans):.1f} would have zero")
    said.append(f"outside their interval by chance alone; {_list(beyond)}.")
    said.append("An interval with zero inside is no proof of equality: groups are small.")
    if survival:
        said.append("Risks differ less within a band of age than over all ages, so C-indices are lower there.")
    return " ".join(said)


def _differences(found: Found) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields name and interval of every difference between a group and everyone else."""
    for by, members in found.items():
        for group, entry in members.items():
            for name, measured in entry.items():
                if isinstance(measured, Mapping) and "versus_rest" in measured:
                    yield f"{by} {group}: {name}", measured["versus_rest"]
            for label, each in entry.get("labels", {}).items():
                for name, measured in each.items():
                    if isinstance(measured, Mapping) and "versus_rest" in measured:
                        yield f"{by} {group}: {label}, {name}", measured["versus_rest"]


def _readable(name: str) -> str:
    for key, words in _WORDS.items():
        name = name.removesuffix(key) + words if name.endswith(f" {key}") else name
    return name


def _list(beyond: list[str]) -> str:
    if not beyond:
        return "none has"
    return f"{len(beyond)} {'has' if len(beyond) == 1 else 'have'} ({'; '.join(beyond)})"


def _sizes(entry: Mapping[str, Any]) -> list[str]:
    return [f"{entry['num_records']:,}", f"{entry['num_patients']:,}"]


def _pair(measured: Mapping[str, Any] | None) -> list[str]:
    return [_text(measured), _text((measured or {}).get("versus_rest"), signed=True)]


def _text(span: Mapping[str, Any] | None, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    if span is None:
        return ""
    value, low, high = (f"{round(span[key], 3) + 0.0:{form}}" for key in ("estimate", "low", "high"))  # no minus zero
    return f"{value} ({low} to {high})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))
