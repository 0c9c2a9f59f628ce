"""Rules for the code that travels with the weights, checked before anything is published.

transformers copies Hub code file by file and finds the files it needs by reading the text. What it cannot follow it
loses without a word, so it is refused here: see `transformers.dynamic_module_utils`.
"""

import ast
import hashlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

TRAVEL_LIBRARIES = frozenset({"huggingface_hub", "numpy", "safetensors", "torch", "transformers"})
"""What every reader of a checkpoint has installed; anything else must be imported inside try/except."""

# the same patterns as transformers' get_relative_imports, which knows nothing of docstrings
_SEEN_BY_TRANSFORMERS = re.compile(r"^\s*(?:from\s+\.(\S+)\s+import|import\s+\.(\S+)\s*$)", re.MULTILINE)


def check_hub_code(files: Iterable[Path], entry_points: Iterable[str]) -> None:
    """Refuses code that would not load from the Hub.

    Args:
        files: the Python files of the folder to be published.
        entry_points: module names that `auto_map` refers to. They must name every file they need themselves, because
            not every version of transformers follows imports of imports.

    Raises:
        ValueError: one line with file, line and reason.
    """
    modules = {path.stem: path for path in files}
    needs = {name: _neighbours(path, modules) for name, path in modules.items()}
    for entry in entry_points:
        if entry not in modules:
            raise ValueError(
                f"auto_map: names the module {entry}, whose file is not among {', '.join(sorted(modules))}"
            )
        unnamed = _reachable(entry, needs) - needs[entry] - {entry}
        if unnamed:
            raise ValueError(
                f"{modules[entry].name}: needs {sorted(unnamed)[0]}.py through a neighbour; import it directly"
            )


def code_revision(files: Iterable[Path]) -> str:
    """Short hash of names and contents, so that a bundle says which code it carries and anyone can check."""
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _neighbours(path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of the same folder that this file imports, all of its imports checked."""
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text, str(path))
    except SyntaxError as error:
        raise ValueError(f"{path.name}, line {error.lineno}: not valid Python: {error.msg}") from error
    guarded = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.add(_neighbour(node, path, modules))
        elif isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in guarded:
            _check_library(node, path)
    seen = {first or second for first, second in _SEEN_BY_TRANSFORMERS.findall(text)}
    if seen != found:
        odd = sorted(seen ^ found)[0]
        raise ValueError(f"{path.name}: transformers would read an import of {odd!r} in its text; reword that line")
    return found


def _neighbour(node: ast.ImportFrom, path: Path, modules: dict[str, Path]) -> str:
    where = f"{path.name}, line {node.lineno}"
    if node.level > 1 or not node.module or "." in node.module:
        raise ValueError(f"{where}: only 'from .file import name' survives on the Hub, got {ast.unparse(node)!r}")
    if node.module not in modules:
        raise ValueError(f"{where}: imports .{node.module}, whose file does not travel with it")
    return node.module


def _check_library(node: ast.Import | ast.ImportFrom, path: Path) -> None:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    for name in names:
        library = name.split(".")[0]
        if library not in TRAVEL_LIBRARIES and library not in sys.stdlib_module_names:
            where = f"{path.name}, line {node.lineno}"
            raise ValueError(f"{where}: imports {library}, which a reader may not have; guard it with try/except")


def _reachable(start: str, needs: dict[str, set[str]]) -> set[str]:
    found, new = {start}, {start}
    while new:
        new = set().union(*(needs[name] for name in new)) - found
        found |= new
    return found
