"""Millimetres, millivolt and seconds of a printed page: from its grid, its calibration pulse and its words.

"25 mm/s 10 mm/mV" says how millimetres of paper become seconds and millivolt; the grid, or a pulse of 1 mV, says how
large a millimetre is on a page that may have been scaled. All that is there must agree, and nothing is guessed: a page
without words needs grid and pulse, a page without grid needs words and pulse. Convention: Kligfield et al.,
Circulation 115:1306 (2007).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

TRUE_MM = 72 / 25.4  # points, on a page that was not scaled
SPEEDS_MM_S = (5.0, 10.0, 12.5, 25.0, 50.0, 100.0)
GAINS_MM_MV = (2.5, 5.0, 10.0, 15.0, 20.0, 40.0)
PULSE_SECONDS = (0.2, 0.1)
FROM_PULSE, NO_PULSE = "scale_from_pulse", "no_calibration_pulse"
_TOLERANCE = 0.03  # between pulse, grid and words
_SQUARES_MM = (1.0, 5.0)
_NEAR = (0.75, 1.35)  # of its true size, in which a grid is known without a pulse
_MIN_LINES, _MIN_LINE, _SAME_LINE = 10, 10.0, 0.06  # number; points
_NUMBER = r"(\d+(?:[.,]\d+)?)"
_SPEED = re.compile(_NUMBER + r"\s*mm\s*/\s*s", re.IGNORECASE)
_GAIN = re.compile(r"([^\d\n]{0,16}?)" + _NUMBER + r"\s*mm\s*/\s*mV", re.IGNORECASE)
_LIMB = re.compile(r"limb|extrem|glied|ext\b", re.IGNORECASE)
_CHEST = re.compile(r"chest|precord|pr[äe]kord|brust|thorax", re.IGNORECASE)


@dataclass(frozen=True)
class Scale:
    """Points of the page for a second and for a millivolt; chest leads may have a gain of their own."""

    points_per_second: float
    limb_points_per_mv: float
    chest_points_per_mv: float
    points_per_mm: float
    flags: tuple[str, ...] = ()

    def points_per_mv(self, lead: str) -> float:
        """Of a lead in standard spelling."""
        return self.chest_points_per_mv if lead.startswith("V") else self.limb_points_per_mv


@dataclass(frozen=True)
class Pulse:
    """A calibration pulse at the beginning of a line: `end` is the first point behind it; sizes in points."""

    end: int
    height: float
    width: float


@dataclass(frozen=True)
class Words:
    """What the words of a page say: mm/s, and mm/mV of limb and chest leads; None where they do not."""

    speed: float | None
    limb: float | None
    chest: float | None

    @classmethod
    def of(cls, texts: Sequence[str], source: str) -> "Words":
        """Reads all texts; raises ValueError for values that no cart has, or that contradict each other."""
        text = "\n".join(texts)
        speeds = {_value(each) for each in _SPEED.findall(text)}
        gains = [(before, _value(number)) for before, number in _GAIN.findall(text)]
        for name, found, known in (("mm/s", speeds, SPEEDS_MM_S), ("mm/mV", {g for _, g in gains}, GAINS_MM_MV)):
            if odd := sorted(set(found) - set(known)):
                raise ValueError(
                    f"{source}: {name}: expected one of {', '.join(map('{:g}'.format, known))}, got {odd}"
                )
        limb = {gain for before, gain in gains if not _CHEST.search(before)}
        chest = {gain for before, gain in gains if not _LIMB.search(before)}
        for name, values in (("mm/s", speeds), ("mm/mV", limb), ("mm/mV", chest)):
            if len(values) > 1:
                raise ValueError(f"{source}: {name}: expected one value on a page, got {sorted(values)}")
        return cls(*(next(iter(values), None) for values in (speeds, limb, chest)))


def _value(number: str) -> float:
    return float(number.replace(",", "."))


def find_pulse(points: FloatArray, mm: float = TRUE_MM) -> Pulse | None:
    """The pulse with which a line, (points, 2) upright, begins: flat, up, flat, down; None if it does not."""
    x, y = points[:, 0], points[:, 1] - points[0, 1]
    high = np.flatnonzero(y > 2 * mm)
    up = int(high[0]) if len(high) else 0
    if not up or np.abs(y[:up]).max() > 0.3 * mm or x[up] - x[up - 1] > 1.2 * mm:
        return None
    off = np.flatnonzero(np.abs(y[up:] - y[up]) > 0.3 * mm)
    down = up + int(off[0]) if len(off) else 0
    if not down or np.abs(y[down]) > 0.3 * mm or x[down] - x[down - 1] > 1.2 * mm:
        return None
    width = float(x[down - 1] - x[up])
    return Pulse(down, float(np.median(y[up:down])), width) if 0.8 * mm < width < 25 * mm else None


def grid_spacing(lines: Sequence[FloatArray], axis: int) -> float | None:
    """Spacing in points of the grid's lines across an axis (0: vertical lines along x); None without a grid."""
    found: list[float] = []
    for line in lines:
        steps = np.abs(np.diff(line, axis=0))
        straight = (steps[:, axis] < _SAME_LINE) & (steps[:, 1 - axis] > _MIN_LINE)
        found += line[:-1][straight, axis].tolist()
    places = np.sort(np.array(found))
    places = places[np.diff(places, prepend=-np.inf) > _SAME_LINE]
    if len(places) < _MIN_LINES:
        return None
    steps = np.diff(places)
    spacing = float(np.median(steps))
    counts = np.round(steps / spacing)
    good = (counts >= 1) & (counts <= 10) & (np.abs(steps - counts * spacing) < 0.05 * spacing)
    return float(steps[good].sum() / counts[good].sum()) if good.mean() > 0.6 else None


def find_scale(words: Words, lines: Sequence[FloatArray], pulses: Sequence[Pulse], source: str) -> Scale:
    """The scale on which grid, pulses and words agree.

    Raises:
        ValueError: they do not, or too little is there to know it.
    """
    grid = (grid_spacing(lines, 0), grid_spacing(lines, 1))
    height, width = _typical(pulses, source)
    if words.speed is None or words.limb is None or words.chest is None:
        words = _words_of_pulse(words, grid, height, width, source)
        flags: tuple[str, ...] = (FROM_PULSE,)
    else:
        flags = () if pulses else (NO_PULSE,)
    known = (float(words.speed or 0), float(words.limb or 0), float(words.chest or 0))
    mm_x, mm_y = _millimetre(known, grid, height, width, source)
    return Scale(mm_x * known[0], mm_y * known[1], mm_y * known[2], mm_x, flags)


def _typical(pulses: Sequence[Pulse], source: str) -> tuple[float | None, float | None]:
    """Height and width of the pulses, in points; ValueError if they differ much from each other."""
    if not pulses:
        return None, None
    heights, widths = (np.array([getattr(each, name) for each in pulses]) for name in ("height", "width"))
    height, width = float(np.median(heights)), float(np.median(widths))
    if (np.abs(heights / height - 1) > _TOLERANCE).mean() > 0.25:
        raise ValueError(f"{source}: expected calibration pulses of one height, got {np.unique(heights.round(1))}")
    return height, width


def _words_of_pulse(
    words: Words, grid: tuple[float | None, float | None], height: float | None, width: float | None, source: str
) -> Words:
    """mm/s and mm/mV of a page that does not say them, from a pulse of 1 mV and 200 ms on its grid."""
    if None not in grid and height is not None and width is not None:
        for square in _SQUARES_MM:
            mm_x, mm_y = (float(spacing or 0) / square for spacing in grid)
            gains = [gain for gain in GAINS_MM_MV if abs(height / mm_y / gain - 1) < _TOLERANCE]
            speeds = [speed for speed in SPEEDS_MM_S if abs(width / mm_x / speed / 0.2 - 1) < _TOLERANCE]
            if gains and speeds and _NEAR[0] < mm_y / TRUE_MM < _NEAR[1]:
                return Words(words.speed or speeds[0], words.limb or gains[0], words.chest or gains[0])
    raise ValueError(
        f"{source}: expected words such as '25 mm/s 10 mm/mV', or a calibration pulse on a grid, got neither; export "
        "the ECG as XML, DICOM or SCP-ECG"
    )


def _millimetre(
    known: tuple[float, float, float],
    grid: tuple[float | None, float | None],
    height: float | None,
    width: float | None,
    source: str,
) -> tuple[float, float]:
    """Points of a millimetre along x and y."""
    speed, limb, chest = known
    if grid[0] is not None and grid[1] is not None:
        found = [(grid[0] / square, grid[1] / square) for square in _SQUARES_MM]
        if height is not None:
            fitting = [
                mm for mm in found if min(abs(height / mm[1] / gain - 1) for gain in (limb, chest)) < _TOLERANCE
            ]
            if not fitting:
                raise ValueError(
                    f"{source}: expected a calibration pulse of {limb:g} mm, got {height / found[0][1]:.1f} or "
                    f"{height / found[1][1]:.1f} squares: grid, pulse and words contradict each other"
                )
            return fitting[0]
        fitting = [mm for mm in found if all(_NEAR[0] < each / TRUE_MM < _NEAR[1] for each in mm)]
        if fitting:
            return fitting[0]
    elif height is not None and width is not None:
        mm = height / limb
        if min(abs(width / mm / speed / seconds - 1) for seconds in PULSE_SECONDS) < 2 * _TOLERANCE:
            return mm, mm
    raise ValueError(
        f"{source}: expected a grid of 1 or 5 mm, or a calibration pulse of 1 mV and 200 ms, which show how large a "
        "millimetre of this page is, got neither; export the ECG as XML, DICOM or SCP-ECG"
    )
