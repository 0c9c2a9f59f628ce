"""Counts what a call does, for claims about complexity that must hold on any machine, busy or not."""

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple


class Effort(NamedTuple):
    """Lines of Python that ran, each turn of a loop counted, and the peak of memory allocated.

    Together they bound the work of code on whole arrays: few lines, each on little memory.
    """

    lines: int
    peak_bytes: int


def effort_of(function: Callable[[], object]) -> Effort:
    """Runs a function once. Memory that C libraries allocate without telling Python is not counted."""
    lines = 0

    def count(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(count)
    try:
        function()
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return Effort(lines, peak)
