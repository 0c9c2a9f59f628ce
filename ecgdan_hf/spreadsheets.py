"""Keeps a spreadsheet from running the text of a CSV cell as a formula (CWE-1236).

Names of files, ids and labels come from other people's files. A cell that begins with `=`, `+`, `-`, `@`, a tab or a
carriage return gets an apostrophe in front, which spreadsheets do not show; numbers stay. Imports nothing of the
package.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from wrapt import lazy_import

if TYPE_CHECKING:
    import pandas as pd
else:  # slow to import, and not needed for most files
    pd = lazy_import("pandas")


_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""Also behind apostrophes, so that each change can be undone."""


def plain_cell(value: object) -> object:
    """Puts an apostrophe in front of text that a spreadsheet would compute; returns anything else as it is.

    >>> plain_cell("=cmd|' /C calc'!A0"), plain_cell("-0.5"), plain_cell("a=b"), plain_cell(-0.5)
    ("'=cmd|' /C calc'!A0", '-0.5', 'a=b', -0.5)
    """
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _is_number(value)
    return f"'{value}" if is_formula else value


def original_cell(value: object) -> object:
    """Undoes [`plain_cell`].

    >>> original_cell(plain_cell("=1+1")), original_cell(plain_cell("'=1+1")), original_cell("'a'")
    ('=1+1', "'=1+1", "'a'")
    """
    return value[1:] if isinstance(value, str) and value.startswith("'") and _FORMULA.match(value) else value


def plain_cells(table: "pd.DataFrame") -> "pd.DataFrame":
    """Returns a table with [`plain_cell`] for every cell of text and every column's name."""
    return _each_text(table, plain_cell)


def original_cells(table: "pd.DataFrame") -> "pd.DataFrame":
    """Undoes [`plain_cells`]."""
    return _each_text(table, original_cell)


def _each_text(table: "pd.DataFrame", change: Callable[[object], object]) -> "pd.DataFrame":
    text = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    changed = table.assign(**{name: table[name].map(change) for name in text})
    return changed.set_axis([change(name) for name in table.columns], axis=1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
