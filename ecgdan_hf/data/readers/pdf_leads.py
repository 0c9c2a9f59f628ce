"""Leads of a printed page: its long lines, the names that belong to them, and their places in time.

Traces are sorted into columns by where they begin and rows by height, names likewise; a column of traces takes the
names of its column in their order from above. Columns follow each other in time unless the limb leads say that they
were recorded together. A page on which names and traces do not fit together is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdan_hf.data.readers.pdf_scale import Pulse, Scale, find_pulse
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.leads_ecgdan import LIMB_LEADS, derive_limb_lead, known_lead

FloatArray = NDArray[np.float64]

MIN_POINTS, MIN_SECONDS = 40, 1.5  # of a trace; median beats are shorter
DEFAULT_RATE = 500.0  # Hz, of traces whose points are no samples
SPIKE, GAP, SHORT = "single_sample_spikes", "trace_gap", "trace_cut_short"
NO_NAME, IN_SEQUENCE = "strip_without_name", "columns_taken_in_sequence"
NO_SAMPLES = "points_are_no_samples"
_RATES = (100, 120, 125, 128, 200, 240, 250, 256, 257, 300, 360, 400, 480, 500, 512, 600, 800, 1000, 2000)
_MAX_GAP_SECONDS = 0.2  # between points of a trace that leaves out straight parts
_COLUMN_MM, _NAME_COLUMN_MM = 3.0, 12.0
_NAME_LEFT_MM, _NAME_RIGHT_MM = 30.0, 15.0  # of where a column begins
_SPIKE_MV, _SPIKE_SECONDS = 0.3, 0.0085
_JOINING = 5  # points between a pulse and its trace
_DISAGREE_MV, _DISAGREE = 0.05, 0.2  # root mean square, and share of that of the signal
_NAME = re.compile(r"(?P<minus>[-–]?)\s*(?:lead\s+)?(?P<name>I{1,3}|aV[RLF]|[VC][1-6])\s*[:.]?", re.IGNORECASE)


@dataclass(frozen=True)
class Name:
    """A lead's name and where it is written, in points; `sign` is -1 for -aVR of the Cabrera order."""

    lead: str
    x: float
    y: float
    sign: float


@dataclass(frozen=True)
class Trace:
    """A long line, (points, 2) upright, and its name once it is known."""

    points: FloatArray
    name: Name | None = None

    @property
    def left(self) -> float:
        """Where it begins."""
        return float(self.points[0, 0])

    @property
    def width(self) -> float:
        """How long it is, to its last point."""
        return float(self.points[-1, 0] - self.points[0, 0])

    @property
    def height(self) -> float:
        """Where its row is."""
        return float(np.median(self.points[:, 1]))


@dataclass(frozen=True)
class Piece:
    """A lead in a part of the time: millivolt from `start` (a sample) on; NaN in gaps."""

    lead: str
    start: int
    values_mv: FloatArray


def find_names(texts: Sequence[dict[str, Any]]) -> list[Name]:
    """Texts that are nothing but a lead's name."""
    found = []
    for text in texts:
        match = _NAME.fullmatch(text["text"].strip())
        lead = known_lead(match.group("name")) if match else None
        if match and lead in STANDARD_LEADS:
            found.append(Name(lead, text["x"], text["y"], -1.0 if match.group("minus") else 1.0))
    return found


def find_traces(lines: Sequence[FloatArray], scale: Scale, source: str) -> tuple[list[Trace], list[Pulse]]:
    """Lines that run from left to right for long enough, without calibration pulses, each once; and the pulses.

    Raises:
        ValueError: a long line that runs back.
    """
    shortest, found, pulses = MIN_SECONDS * scale.points_per_second, list[Trace](), list[Pulse]()
    for line in lines:
        if len(line) < MIN_POINTS or abs(line[-1, 0] - line[0, 0]) < shortest:
            continue
        points = line if line[-1, 0] > line[0, 0] else line[::-1]
        steps = np.diff(points[:, 0])
        if (steps > 0).mean() < 0.5:
            continue
        if steps.min() < -0.05 * scale.points_per_mm:
            raise ValueError(f"{source}: expected traces that run from left to right, got one that runs back")
        points, cut = _without_pulses(points, scale.points_per_mm)
        pulses += cut
        if len(points) >= MIN_POINTS and not any(np.array_equal(points, other.points) for other in found):
            found.append(Trace(points))
    return found, pulses


def _without_pulses(points: FloatArray, mm: float) -> tuple[FloatArray, list[Pulse]]:
    """Cuts off the pulse at either end, and the line that joins it to the trace."""
    found = []
    for _ in range(2):
        pulse = find_pulse(points, mm)
        if pulse is not None:
            found.append(pulse)
            points = points[pulse.end :]
            even = (first for first in range(_JOINING) if _step(points[first:, 0], exact=True) is not None)
            long = np.flatnonzero(np.diff(points[:_JOINING, 0]) > 0.3 * mm)
            points = points[next(even, int(long[-1]) + 1 if len(long) else 0) :]
        points = points[::-1] * np.array([-1.0, 1.0])  # the other end, as in a mirror
    return points, found


def named(traces: list[Trace], names: list[Name], scale: Scale, source: str) -> tuple[list[Trace], tuple[str, ...]]:
    """Traces with their names, those of several columns in a row cut; and flags.

    Raises:
        ValueError: numbers or places of names and traces that do not fit together.
    """
    mm = scale.points_per_mm
    traces, flags = _with_whole_rows_cut(traces, names, mm), list[str]()
    starts = _clusters([trace.left for trace in traces], _COLUMN_MM * mm)
    found = []
    for start in starts:
        column = sorted((t for t in traces if abs(t.left - start) < _COLUMN_MM * mm), key=lambda t: -t.height)
        its = [
            n
            for n in names
            if -_NAME_LEFT_MM * mm < n.x - start < _NAME_RIGHT_MM * mm and _nearest(n, starts) == start
        ]
        its = sorted(_beside(its, column), key=lambda name: -name.y)
        if len(its) < len(column):
            short = min(trace.width for trace in traces)
            kept = [trace for trace in column if trace.width < 1.5 * short]
            if len(kept) == len(its) and len(starts) > 1:
                column = kept
                flags.append(NO_NAME)
        if len(its) != len(column) or not column:
            raise ValueError(
                f"{source}: expected a name for each of {len(column)} traces in a column, got "
                f"{', '.join(name.lead for name in its) or 'none'}"
            )
        _check_heights(its, column, source)
        found += [replace(trace, name=name) for trace, name in zip(column, its, strict=True)]
    without = sorted({name.lead for name in names} - {_lead(trace) for trace in found})
    if without:
        raise ValueError(f"{source}: expected a trace for each name, got none for {', '.join(without)}")
    return found, tuple(flags)


def _nearest(name: Name, starts: Sequence[float]) -> float:
    return min(starts, key=lambda start: abs(start - name.x))


def _beside(names: list[Name], column: list[Trace]) -> list[Name]:
    """Names that are not far above or below all traces of a column."""
    heights = [trace.height for trace in column]
    rows = -np.diff(heights)
    reach = float(np.median(rows)) if len(rows) else np.inf
    return [name for name in names if heights[-1] - reach < name.y < heights[0] + reach] if heights else []


def _check_heights(names: Sequence[Name], column: Sequence[Trace], source: str) -> None:
    """Names stand at the same place by their traces, less than half a row apart."""
    if len(names) < 2:
        return
    offsets = np.array([name.y - trace.height for name, trace in zip(names, column, strict=True)])
    row = float(np.median(-np.diff([trace.height for trace in column])))
    if np.abs(offsets - np.median(offsets)).max() > 0.6 * row:
        raise ValueError(
            f"{source}: expected names at the same place of each trace, got {names[0].lead} and others off"
        )


def _clusters(values: Sequence[float], apart: float) -> list[float]:
    """Means of values that are less than `apart` from the next."""
    ordered = np.sort(np.array(values))
    parts = np.split(ordered, np.flatnonzero(np.diff(ordered) > apart) + 1)
    return [float(part.mean()) for part in parts if len(part)]


def _with_whole_rows_cut(traces: list[Trace], names: list[Name], mm: float) -> list[Trace]:
    """Cuts traces that hold several leads one after another, as many as names stand along them."""
    if len(_clusters([trace.left for trace in traces], _COLUMN_MM * mm)) != 1 or len(traces) < 1:
        return traces
    columns = _clusters([name.x for name in names], _NAME_COLUMN_MM * mm)
    first = sorted((n for n in names if abs(n.x - columns[0]) < _NAME_COLUMN_MM * mm), key=lambda n: -n.y)
    rows = sorted(traces, key=lambda trace: -trace.height)
    if len(columns) < 2 or len(first) != len(rows):
        return traces
    found = []
    for trace, name in zip(rows, first, strict=True):
        parts = sum(abs(other.y - name.y) < 3 * mm for other in names)
        step = trace.width / (len(trace.points) - 1)
        edges = trace.left - step / 2 + np.arange(parts + 1) * (trace.width + step) / parts
        for low, high in pairwise(edges):
            inside = (trace.points[:, 0] >= low) & (trace.points[:, 0] < high)
            found.append(Trace(trace.points[inside]))
    return found


class Sampled:
    """Traces as samples: at the rate of their points where these are samples, else at 500 Hz."""

    def __init__(self, traces: Sequence[Trace], scale: Scale) -> None:
        self.scale, self.flags = scale, list[str]()
        steps = [_step(trace.points[:, 0]) for trace in traces]
        known = [scale.points_per_second / step for step in steps if step is not None]
        rate = float(np.median(known)) if known else 0.0
        self.are_samples = len(known) == len(steps) and all(abs(each / rate - 1) < 0.01 for each in known)
        near = [each for each in _RATES if abs(each / rate - 1) < 0.005] if rate else []
        self.flags += [] if self.are_samples else [NO_SAMPLES]
        self.rate = float(near[0] if near else round(rate)) if self.are_samples else DEFAULT_RATE

    def values(self, trace: Trace) -> FloatArray:
        """Millivolt from the first point on, around its median; NaN in gaps."""
        name = trace.name
        if name is None:
            raise ValueError("trace: expected one with a name")
        x, y = trace.points[:, 0], trace.points[:, 1]
        step = (_step(x) if self.are_samples else None) or self.scale.points_per_second / self.rate
        places = (x - x[0]) / step
        if self.are_samples:
            places = np.round(places) if len(x) - 1 != round(places[-1]) else np.arange(len(x), dtype=float)
        keep = np.concatenate(([True], np.diff(places) > 1e-9))
        places, y = places[keep], y[keep]
        values = np.interp(np.arange(round(places[-1]) + 1), places, y)
        longest = 2.5 if self.are_samples else _MAX_GAP_SECONDS * self.rate
        for at in np.flatnonzero(np.diff(places) > longest):
            values[int(np.ceil(places[at] + 0.5)) : int(places[at + 1])] = np.nan
            self.flags.append(f"{GAP}:{name.lead}")
        points_per_mv = self.scale.points_per_mv(name.lead)
        if _has_spike(places / self.rate, y / points_per_mv):
            self.flags.append(f"{SPIKE}:{name.lead}")
        millivolt: FloatArray = name.sign * (values - np.nanmedian(values)) / points_per_mv
        return millivolt


def _step(x: FloatArray, exact: bool = False) -> float | None:
    """Distance of points that are samples at equal distances, with few missing or none; None if they are not."""
    mean = float((x[-1] - x[0]) / (len(x) - 1))
    if np.abs(x - x[0] - mean * np.arange(len(x))).max() < 0.6 * mean:
        return mean
    if exact:
        return None
    steps = np.diff(x)
    middle = float(np.median(steps))
    if middle <= 0:
        return None
    counts = np.round(steps / middle)
    alike = np.abs(steps - counts * middle) < 0.1 * middle
    return float((x[-1] - x[0]) / counts.sum()) if alike.all() and (counts == 1).mean() > 0.95 else None


def _has_spike(seconds: FloatArray, values_mv: FloatArray) -> bool:
    """Whether a single point stands far out of its neighbours: a pacemaker's spike, or a damaged number."""
    before, after = values_mv[1:-3], values_mv[3:-1]
    jump = np.abs(values_mv[2:-2] - (before + after) / 2)
    changes = np.abs(
        [after - before, before - values_mv[:-4], after - values_mv[4:]]
    )  # an R wave takes several points
    calm = (changes < 0.3 * jump).all(axis=0)
    return bool(np.any((jump > _SPIKE_MV) & calm & (seconds[3:-1] - seconds[1:-3] < _SPIKE_SECONDS)))


def pieces_in_time(traces: Sequence[Trace], scale: Scale, source: str) -> tuple[list[Piece], float, tuple[str, ...]]:
    """All pieces at their time, the sampling rate in Hz, and flags.

    Raises:
        ValueError: leads that contradict their strip or the other limb leads.
    """
    sampled = Sampled(traces, scale)
    columns = _Columns(traces, [sampled.values(trace) for trace in traces], scale.points_per_second / sampled.rate)
    pieces, flags = columns.pieces(), [*sampled.flags, *columns.flags]
    together = [replace(piece, start=0) for piece in pieces]
    checks, other = _checks(pieces, sampled.rate), _checks(together, sampled.rate)
    if len(other) > len(checks) and all(agrees for _, agrees in other):
        pieces, checks = together, other
    elif len(columns.starts) > 1 and len(other) == len(checks):
        flags.append(IN_SEQUENCE)
    wrong = [what for what, agrees in checks if not agrees] + _apart(pieces)
    if wrong:
        raise ValueError(f"{source}: expected leads that agree, got {wrong[0]}: damaged, or not what its words say")
    return pieces, sampled.rate, tuple(dict.fromkeys(flags))


class _Columns:
    """Traces by the column in which they begin."""

    def __init__(self, traces: Sequence[Trace], values: list[FloatArray], points_per_sample: float) -> None:
        self.traces, self.values, self.points_per_sample = traces, values, points_per_sample
        lefts = [trace.left for trace in traces]
        apart = max(0.1 * min(trace.width for trace in traces), points_per_sample)
        middles = np.array(_clusters(lefts, apart))
        self.of = [int(np.argmin(np.abs(middles - left))) for left in lefts]
        # the earliest of a column: a trace that lost its first samples must not move the others
        columns = range(len(middles))
        self.starts = [min(left for left, of in zip(lefts, self.of, strict=True) if of == each) for each in columns]
        middle = float(np.median([len(each) for each in values]))
        self.is_strip = [len(self.starts) > 1 and len(each) > 1.5 * middle for each in values]
        self.spans = [max(self._lengths(column), default=0) for column in range(len(self.starts))]

    def _lengths(self, column: int) -> list[int]:
        its = zip(self.values, self.of, self.is_strip, strict=True)
        return [len(values) for values, of, strip in its if of == column and not strip]

    def pieces(self) -> list[Piece]:
        """All traces in sequence: by their place if the columns adjoin, else one column after the other."""
        by_place = (np.array(self.starts) - self.starts[0]) / self.points_per_sample
        in_turn = np.concatenate(([0], np.cumsum(self.spans)[:-1]))
        begins = by_place if np.allclose(by_place, in_turn, atol=0.04 * sum(self.spans) + 1) else in_turn
        found = []
        for trace, values, column in zip(self.traces, self.values, self.of, strict=True):
            late = (trace.left - self.starts[column]) / self.points_per_sample
            found.append(Piece(_lead(trace), round(begins[column] + (late if late > 2 else 0.0)), values))
        return found

    @property
    def flags(self) -> list[str]:
        """Leads whose trace is shorter than those of the longest column."""
        its = zip(self.traces, self.values, strict=True)
        short = [_lead(trace) for trace, values in its if len(values) < 0.95 * max(self.spans)]
        return [f"{SHORT}:{'+'.join(short)}"] if short else []


def _lead(trace: Trace) -> str:
    return trace.name.lead if trace.name is not None else ""


def _checks(pieces: Sequence[Piece], rate: float) -> list[tuple[str, bool]]:
    """Whether pieces of one lead agree, and limb leads by Einthoven's and Goldberger's laws, where they share time."""
    found = []
    for first, second in combinations(pieces, 2):
        if first.lead == second.lead and (shared := _shared([first, second], rate)) is not None:
            found.append((f"{first.lead} twice and different", _agree(shared[0] - shared[1], shared[0])))
    longest = {lead: max((p for p in pieces if p.lead == lead), key=_length, default=None) for lead in LIMB_LEADS}
    for three in combinations([piece for piece in longest.values() if piece is not None], 3):
        if (shared := _shared(three, rate)) is not None:
            expected = derive_limb_lead(three[2].lead, {three[0].lead: shared[0], three[1].lead: shared[1]})
            names = ", ".join(piece.lead for piece in three)
            found.append((f"limb leads {names} that contradict each other", _agree(shared[2] - expected, shared)))
    return found


def _apart(pieces: Sequence[Piece]) -> list[str]:
    """Leads that are there twice at different times: a name that is wrong, as no cart prints a lead so."""
    found = []
    for first, second in combinations(pieces, 2):
        shared = min(p.start + _length(p) for p in (first, second)) - max(first.start, second.start)
        if first.lead == second.lead and shared < 0.8 * min(_length(first), _length(second)):
            found.append(f"{first.lead} twice at different times")
    return found


def _length(piece: Piece) -> int:
    return len(piece.values_mv)


def _shared(pieces: Sequence[Piece], rate: float) -> FloatArray | None:
    """(pieces, samples) of the time that all share; None below a second."""
    first, last = max(p.start for p in pieces), min(p.start + _length(p) for p in pieces)
    if last - first < rate:
        return None
    shared = np.stack([piece.values_mv[first - piece.start : last - piece.start] for piece in pieces])
    known: FloatArray = shared[:, ~np.isnan(shared).any(axis=0)]
    return known if known.shape[1] >= rate / 2 else None


def _agree(residual: FloatArray, signal: FloatArray) -> bool:
    """Whether what is left over, around its median, is small."""
    left = np.sqrt(np.mean((residual - np.median(residual)) ** 2))
    return bool(left < max(_DISAGREE_MV, _DISAGREE * float(signal.std())))
