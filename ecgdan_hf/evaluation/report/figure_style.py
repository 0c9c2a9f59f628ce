"""Shared parts of the figures of an evaluation: colours, line styles, titles, and checks of arrays.

Colours are those of Okabe and Ito (Color Universal Design, 2008), which colour-blind readers tell apart; every series
also has a line style and a marker of its own, so that no figure needs colour. Figures are matplotlib objects without
global state: no `pyplot`, nothing to close, legible at 7 inches. Imports numpy and matplotlib.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#595959"

STYLES: tuple[dict[str, Any], ...] = tuple(
    {"color": color, "linestyle": line, "marker": marker}
    for color, line, marker in (
        (BLUE, "-", "o"),
        (VERMILION, "--", "s"),
        (GREEN, "-.", "^"),
        (PURPLE, ":", "D"),
        (BLACK, (0, (8, 2)), "v"),
        (ORANGE, (0, (4, 1, 1, 1, 1, 1)), "P"),
        (SKY, (0, (1, 2)), "X"),
    )
)
"""One per series: no two share a colour, a line or a marker."""

WIDTH_INCHES = 7.0
TITLE_SIZE, LABEL_SIZE, SMALL_SIZE = 11.0, 9.5, 8.5


def new_figure(height_inches: float) -> Figure:
    """Returns an empty figure, 7 inches wide."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained", facecolor="white")


def title(text: str, simulated: bool, counts: tuple[int, int] | None = None) -> str:
    """Returns the title of a figure; a simulated outcome is named first.

    Args:
        text: what the figure shows.
        simulated: whether the outcome is simulated.
        counts: records and events, for a second line such as "n = 1,200, 93 events"; None gives one line.
    """
    headline = f"Simulated outcome: {text}" if simulated else text[:1].upper() + text[1:]
    if counts is None:
        return headline
    noun = f"{'simulated ' if simulated else ''}{'event' if counts[1] == 1 else 'events'}"
    return f"{headline}\nn = {counts[0]:,}, {counts[1]:,} {noun}"


def tidy(axes: Axes) -> None:
    """Removes the frame on top and right, and sets a readable size of tick labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=LABEL_SIZE)


def read_flags(name: str, values: npt.ArrayLike, num_records: int) -> npt.NDArray[np.bool_]:
    """Returns (n,) values of 0 and 1 as booleans.

    Raises:
        ValueError: another shape or another value.
    """
    array = np.asarray(values)
    if array.shape != (num_records,):
        raise ValueError(f"{name}: expected {num_records} values, one per record, found shape {array.shape}")
    known = (array == 0) | (array == 1)
    if not known.all():
        raise ValueError(f"{name}: expected 0 or 1, found {array[~known][0]}")
    happened: npt.NDArray[np.bool_] = array == 1
    return happened
