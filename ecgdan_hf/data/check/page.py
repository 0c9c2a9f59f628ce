"""The check of a folder as one self-contained HTML page: contents, problems, and the worst records on ECG paper.

Names and details come from untrusted files: all text is escaped, and the Content-Security-Policy forbids scripts and
external resources. The page shows names of records, never of patients.
"""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import numpy as np

from ecgdan_hf.data.flag_words import HARMLESS, MATTERS, flag_words
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
PARTS = {"p5": "5 % below", "p50": "median", "p95": "95 % below"}
LISTED = 20  # records of each problem; the JSON has all

ROWS = 3
SECONDS = 2.5
SPEED_MM_S, GAINS_MM_MV = 25.0, (10.0, 5.0, 2.5, 1.0, 0.5, 0.1)  # the first at which every lead fits its row
CELL_MM, ROW_MM, NAME_MM = SECONDS * SPEED_MM_S, 25.0, 5.0  # a cell is a row with the lead's name above
MARGIN_MM = 9.0  # for the calibration pulse
POINTS_PER_SECOND = 100

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --page: #fff; --faint: #5c5c5c; --line: #d5d5d5; --bad: #b3261e;
  --look: #8a5300; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8e8; --page: #16181a; --faint: #a9a9a9; --line: #3c4044;
  --bad: #ff8a80; --look: #ffb74d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 82rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--text);
  background: var(--page); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: 0.3rem; }
caption { white-space: nowrap; }
th { overflow-wrap: normal; white-space: nowrap; } td { overflow-wrap: break-word; }
details { margin: 0.4rem 0; } summary { cursor: pointer; }
th, td { padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
.error { color: var(--bad); font-weight: 600; } .warning { color: var(--look); font-weight: 600; }
td { min-width: 6rem; } td:nth-of-type(2) { min-width: 0; }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 36rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: 0.6rem; border: 1px solid var(--line); break-inside: avoid; }
figcaption { font-size: 0.875rem; }
.paper { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 34rem; height: auto; background: #fffafa; }
svg text { font-size: 4px; font-weight: 600; fill: #1a1a1a; }
svg line { stroke: #f9dede; } svg line.large { stroke: #eeb0b0; }
polyline, .pulse { fill: none; stroke: #1a1a1a; stroke-width: 0.35; } .named polyline { stroke: #b3261e; }
svg .named text { fill: #b3261e; }
"""


def html(facts: Mapping[str, Any], worst: Iterable[tuple[str, EcgRecord]], title: str) -> str:
    """Returns an HTML5 document from the `facts` of `folder.check` and the records to draw with their record_id."""
    drawn = "".join(_figure(record_id, record, _problems_of(record_id, facts)) for record_id, record in worst)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}: data check</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}: data check</h1>\n<p>{_verdict(facts)}</p>\n"
        f'<h2 id="contents">What is there</h2>\n{_contents(facts)}'
        f'<h2 id="problems">What is wrong</h2>\n{_problems(facts["problems"])}'
        f'<h2 id="worst">The worst records</h2>\n{_worst(drawn)}'
        f'<h2 id="records">Every problem and its records</h2>\n{_records(facts["problems"])}'
        "</main>\n</body>\n</html>\n"
    )


def _verdict(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['records']:,} records, {facts['readable']:,} readable; {facts['errors']:,} with errors "
        f"(training would refuse them or silently go wrong), {facts['warnings']:,} with warnings (usable, but look)."
    )


def _contents(facts: Mapping[str, Any]) -> str:
    outcomes = facts["outcomes"]
    rows = {
        "source": facts["source"],
        "patients": f"{facts['patients']:,}, {facts['patients_with_several_records']:,} with several records",
        "without age, sex": f"{facts['age_missing']:,}, {facts['sex_missing']:,}",
        "sampling rates, Hz": _counts(facts["sampling_rates"]),
        "durations, s": _counts(facts["durations_seconds"]),
        "leads": _counts(facts["leads"]),
        "folds": _counts(facts["folds"]),
        "QRS complex, mV": ", ".join(f"{PARTS.get(part, part)} {value}" for part, value in facts["qrs_mv"].items()),
        "left out or repaired by reading": _counts(
            {flag_words(flag): count for flag, count in facts["flags"].items()}
        ),
        "outcomes": ", ".join(f"{name.replace('_', ' ')} {value:,.4g}" for name, value in (outcomes or {}).items()),
    }
    return _table("Counts of records by what they are", ("", ""), [row for row in rows.items() if row[1]])


def _counts(counts: Mapping[str, int]) -> str:
    shown = "; ".join(f"{value} ({count:,})" for value, count in list(counts.items())[:LISTED])
    return shown + ("; ..." if len(counts) > LISTED else "")


def _problems(problems: Mapping[str, Mapping[str, Any]]) -> str:
    if not problems:
        return "<p>Nothing.</p>\n"
    rows = [
        (problem["severity"], problem["meaning"], f"{problem['count']:,}", problem["advice"], name)
        for name, problem in problems.items()
    ]
    return _table("Problems, errors first", ("severity", "what", "count", "what to do", "name in the JSON"), rows)


def _records(problems: Mapping[str, Mapping[str, Any]]) -> str:
    return "".join(_listed(name, problem) for name, problem in problems.items()) or "<p>None.</p>\n"


def _listed(name: str, problem: Mapping[str, Any]) -> str:
    found = list(problem["found"].items())
    more = f"; the first {LISTED} of {len(found):,}, all are in the JSON" if len(found) > LISTED else ""
    table = _table(f"{problem['meaning']}{more}", ("record", "detail"), found[:LISTED])
    return f"<details><summary>{escape(problem['meaning'])}: {problem['count']:,}</summary>\n{table}</details>\n"


def _table(caption: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def row(cells: tuple[str, ...]) -> str:
        kind = f' class="{cells[0]}"' if cells[0] in ("error", "warning") else ""
        first = f'<th scope="row"{kind}>{escape(cells[0])}</th>'
        return f"<tr>{first}{''.join(f'<td>{escape(cell)}</td>' for cell in cells[1:])}</tr>\n"

    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    top = f"<thead><tr>{names}</tr></thead>\n" if any(head) else ""
    body = f"<caption>{escape(caption)}</caption>\n{top}<tbody>\n{''.join(map(row, rows))}</tbody>"
    return (
        f'<div class="table" role="region" aria-label="{escape(caption)}" tabindex="0"><table>{body}</table></div>\n'
    )


def _problems_of(record_id: str, facts: Mapping[str, Any]) -> dict[str, str]:
    problems = facts["problems"].items()
    return {name: problem["found"][record_id] for name, problem in problems if record_id in problem["found"]}


def _worst(figures: str) -> str:
    if not figures:
        return "<p>None that could be drawn.</p>\n"
    note = f"The first {SECONDS:g} s of each lead, {SPEED_MM_S:g} mm/s; leads that a problem names are in red."
    return f'<p>{note}</p>\n<div class="worst">\n{figures}</div>\n'


def _figure(record_id: str, record: EcgRecord, problems: Mapping[str, str]) -> str:
    said = "; ".join(_said(name, detail) for name, detail in problems.items())
    named = {lead for detail in problems.values() for lead in detail.replace("-", "+").split("+")}
    present = [lead for lead in STANDARD_LEADS if lead in record.lead_names] or list(record.lead_names)
    beginning = record.signal_mv[:, : max(2, round(SECONDS * record.sampling_rate))]
    rows = [beginning[record.lead_names.index(lead)] for lead in present[: len(STANDARD_LEADS)]]
    gain = _gain(max(_range(row) for row in rows))
    width = MARGIN_MM + -(-len(rows) // ROWS) * CELL_MM
    height = min(len(rows), ROWS) * (NAME_MM + ROW_MM)
    cells = "".join(
        _cell(i, lead, row, gain, lead in named) for i, (lead, row) in enumerate(zip(present, rows, strict=False))
    )
    label = escape(f"{len(rows)} leads of {record_id}: {said}")
    drawn = f"{_grid(width, height)}{_pulses(min(len(rows), ROWS), gain)}{cells}"
    return (
        f'<figure>\n<div class="paper" role="region" aria-label="{escape(record_id)}, ECG" tabindex="0">'
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{drawn}</svg></div>\n'
        f"<figcaption><strong>{escape(record_id)}</strong>: {escape(said)}. {SPEED_MM_S:g} mm/s, {gain:g} mm/mV."
        "</figcaption>\n</figure>\n"
    )


def _said(name: str, detail: str) -> str:
    """A problem of one record in words."""
    if name in MATTERS or name in HARMLESS:
        return flag_words(f"{name}:{detail}" if detail else name)
    return f"{name.replace('_', ' ')} {detail}".strip()


def _gain(range_mv: float) -> float:
    return next((gain for gain in GAINS_MM_MV if gain * range_mv <= ROW_MM), ROW_MM / max(range_mv, 1e-9))


def _grid(width: float, height: float) -> str:
    """Squares of 1 and 5 mm: lines as thick as the paper, drawn in dashes."""
    lines = []
    for step, kind, thick in ((1, "small", 0.1), (5, "large", 0.2)):
        dash = f'stroke-dasharray="{thick} {step - thick:g}" class="{kind}"'
        lines.append(
            f'<line x1="0" y1="{height / 2:g}" x2="{width:g}" y2="{height / 2:g}" stroke-width="{height:g}" {dash}/>'
        )
        lines.append(
            f'<line x1="{width / 2:g}" y1="0" x2="{width / 2:g}" y2="{height:g}" stroke-width="{width:g}" {dash}/>'
        )
    return "".join(lines)


def _pulses(rows: int, gain: float) -> str:
    """1 mV for 200 ms at the left of each row, where it fits."""
    bottoms = [row * (NAME_MM + ROW_MM) + NAME_MM + ROW_MM / 2 + gain / 2 for row in range(rows)]
    return "".join(f'<path class="pulse" d="M1 {y:g}h1v-{gain:g}h5v{gain:g}h1"/>' for y in bottoms)


def _range(row_mv: np.ndarray) -> float:
    known = row_mv[np.isfinite(row_mv)]
    return float(np.ptp(known)) if known.size else 0.0


def _cell(place: int, lead: str, row_mv: np.ndarray, gain: float, named: bool) -> str:
    """One lead in a column of three, as on paper; gaps are not drawn."""
    left, top = MARGIN_MM + place // ROWS * CELL_MM, place % ROWS * (NAME_MM + ROW_MM)
    step = max(1, round(len(row_mv) / (SECONDS * POINTS_PER_SECOND)))
    known = row_mv[np.isfinite(row_mv)]
    middle = float(known.min() + known.max()) / 2 if known.size else 0.0
    x = left + np.arange(len(row_mv)) / len(row_mv) * (CELL_MM - 1)
    y = top + NAME_MM + ROW_MM / 2 - (row_mv - middle) * gain
    lines = "".join(f'<polyline points="{points}"/>' for points in _runs(x[::step], y[::step]))
    kind = ' class="named"' if named else ""
    return f'<g{kind}><text x="{left + 0.5:g}" y="{top + NAME_MM - 1:g}">{escape(lead)}</text>{lines}</g>'


def _runs(x: np.ndarray, y: np.ndarray) -> list[str]:
    """Points of each stretch without a gap."""
    starts = np.flatnonzero(np.diff(np.isfinite(y).astype(np.int8), prepend=0) == 1)
    stops = np.flatnonzero(np.diff(np.isfinite(y).astype(np.int8), append=0) == -1) + 1
    return [
        " ".join(f"{a:.2f},{b:.2f}" for a, b in zip(x[start:stop], y[start:stop], strict=True))
        for start, stop in zip(starts, stops, strict=True)
    ]
