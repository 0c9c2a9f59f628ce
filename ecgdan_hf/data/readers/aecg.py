"""Prepares an HL7 aECG for ECGDataKit, which reads the first sequence set of the first series only.

Leads that are split over several series, or over several sequence sets of a series, become one sequence set if they
have one start, one rate and one length. The set with most leads, or else the longest, is read; the leads of the others
are flagged. ANSI/HL7 V3 ECG, R1-2004 (PORT_MT020001).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, tostring

from ecgdan_hf.data.readers.prepared_copy import parse_copy
from ecgdan_hf.data.record import canonical_lead

LEFT_OUT = "series_left_out"
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6}
_LEAD = "_ECG_LEAD_"


def parse_aecg(path: Path, parse: Callable[[Path], tuple[Any, list[str]]]) -> tuple[Any, list[str]]:
    """Returns what `parse` makes of a file, or of a copy with its series joined, and flags of what is left out."""
    from ecgdatakit.parsing.helpers.xml import parse_xml_root

    content = path.read_bytes()
    if not _is_split(content):
        return parse(path)
    try:
        root = parse_xml_root(content)
        flags = _join_series(root)
    except Exception:  # a damaged file; the parser says what is wrong with it
        return parse(path)
    parsed, more = parse_copy(path, tostring(root, encoding="utf-8"), parse)
    return parsed, [*flags, *more]


def _is_split(content: bytes) -> bool:
    """Whether there is more than one sequence set of a rhythm, or of a representative beat."""
    found = re.findall(
        rb"<(?:[\w.-]+:)?(series|derivedSeries|sequenceSet)\b", content.replace(b"\0", b"")
    )  # or UTF-16
    count = Counter(found)
    return count[b"series"] > 1 or count[b"sequenceSet"] > 1 + count[b"derivedSeries"]


@dataclass(frozen=True)
class _Part:
    """A sequence set: where it is, when it was recorded, and its sequences of leads by their codes."""

    series: Element
    element: Element
    time: tuple[Any, ...]  # step in seconds, start, samples
    leads: dict[str, Element]

    @property
    def seconds(self) -> float:
        return float(self.time[0] * self.time[-1])


def _join_series(root: Element) -> list[str]:
    """Leaves one series with one sequence set, and one of representative beats; returns the flags of what is lost."""
    series = [each for each in root.findall("component/series") if not _is_beat(each)]
    beats = [each for each in root.findall("component/series") if _is_beat(each)]
    beats += [each for one in series for each in one.findall("derivation/derivedSeries") if _is_beat(each, "")]
    kept, lost = _joined(part for one in series for part in _parts(one))
    beat = _joined(part for one in beats for part in _parts(one))[0] if beats else None
    for component in root.findall("component"):
        if component.find("series") is not None and component.find("series") is not kept.series:
            root.remove(component)
    for other in series:
        if other is not kept.series:
            kept.series.extend(other.findall("subjectOf"))  # what was written about it
        for derivation in other.findall("derivation"):
            other.remove(derivation)
    if beat is not None:
        derived = Element("derivedSeries")
        derived.extend(beat.series)
        derivation = Element("derivation")
        derivation.append(derived)
        kept.series.append(derivation)
    names = [canonical_lead(code.partition(_LEAD)[2]) for part in lost for code in part.leads]
    return [f"{LEFT_OUT}:{'+'.join(dict.fromkeys(names))}"] if names else []


def _is_beat(series: Element, *others: str) -> bool:
    return _attribute(series, "code", "code").upper() in ("REPRESENTATIVE_BEAT", *others)


def _joined(parts: Iterable[_Part]) -> tuple[_Part, list[_Part]]:
    """The best of parts, with all leads that were recorded with it and in its series the only one; and the others."""
    groups: list[list[_Part]] = []
    for part in parts:
        fits = (group for group in groups if group[0].time == part.time and not part.leads.keys() & _codes(group))
        group = next(fits, None)
        groups.append([part]) if group is None else group.append(part)
    best = max(groups, key=lambda group: (len(_codes(group)), group[0].seconds))
    for part in best[1:]:
        best[0].element.extend(part.leads.values())
    for part in (part for group in groups for part in group if part is not best[0]):
        for component in part.series.findall("component"):
            if component.find("sequenceSet") is part.element:
                part.series.remove(component)
    return best[0], [part for group in groups if group is not best for part in group]


def _codes(group: list[_Part]) -> set[str]:
    return {code for part in group for code in part.leads}


def _parts(series: Element) -> list[_Part]:
    begin = _attribute(series, "effectiveTime/low", "value")
    return [_part(series, element, begin) for element in series.findall("component/sequenceSet")]


def _part(series: Element, element: Element, begin: str) -> _Part:
    """A sequence set; a relative time counts from the beginning of its series."""
    leads, step, start = dict[str, Element](), 0.0, ("", "")
    for component in element.findall("component"):
        code = _attribute(component, "sequence/code", "code").upper()
        if _LEAD in code:
            leads[code] = component
        elif code.startswith("TIME_") and not step:
            unit = _attribute(component, "sequence/value/increment", "unit")
            step = float(_attribute(component, "sequence/value/increment", "value")) * _SECONDS[unit]
            head = _attribute(component, "sequence/value/head", "value")
            start = (head.rstrip("0").rstrip(".") if "." in head else head, begin if "RELATIVE" in code else "")
    digits = [(component.findtext("sequence/value/digits") or "").split() for component in leads.values()]
    return _Part(series, element, (round(step, 12), *start, max(map(len, digits), default=0)), leads)


def _attribute(element: Element, path: str, name: str) -> str:
    found = element.find(path)
    return "" if found is None else (found.get(name) or "").strip()
