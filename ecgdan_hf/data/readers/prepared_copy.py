"""Gives a decoder a changed copy of a file. Imports nothing of the package."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def parse_copy(path: Path, content: bytes, parse: Callable[[Path], Any]) -> Any:
    """Returns what `parse` makes of a file with this content and the name of `path`; its ValueErrors name `path`."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(content)
        try:
            return parse(copy)
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), str(path))) from error
