"""Rules for the code that travels with the weights, checked before anything is published.

transformers copies Hub code file by file and finds the files it needs by reading the text. It silently loses imports
that it cannot follow, so they are rejected here: see `transformers.dynamic_module_utils`.
"""

import ast
import hashlib
import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_TRAVEL_LIBRARIES = frozenset({"huggingface_hub", "numpy", "safetensors", "torch", "transformers"})
"""Libraries that every user of a checkpoint has installed; anything else must be imported inside try/except."""

_OPTIONAL_LIBRARIES = frozenset({"peft"})
"""Needed only to adapt the language model, never to use a checkpoint."""

MODEL_FOLDER = Path(__file__).resolve().parents[1] / "model"

_packages_distributions = cache(metadata.packages_distributions)

# the same patterns as transformers' get_relative_imports, which knows nothing of docstrings
_SEEN_BY_TRANSFORMERS = re.compile(r"^\s*(?:from\s+\.(\S+)\s+import|import\s+\.(\S+)\s*$)", re.MULTILINE)


class HubCode:
    """Python files that travel with weights.

    Args:
        files: the files; default all of `model/`.
    """

    def __init__(self, files: Iterable[Path] | None = None) -> None:
        self._files = list(files or MODEL_FOLDER.glob("*.py"))

    def check(self, entry_points: Iterable[str]) -> None:
        """Raises ValueError, with file, line and reason, for files that would not load from the Hub.

        `entry_points` are module names that `auto_map` refers to. They must import every file they need themselves,
        because not every version of transformers follows imports of imports.
        """
        modules = {path.stem: path for path in self._files}
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

    @property
    def revision(self) -> str:
        """A short hash of names and contents, by which anyone can check which code a bundle carries."""
        digest = hashlib.sha256()
        for path in sorted(self._files, key=lambda path: path.name):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()[:12]

    def requirements(self) -> list[str]:
        """Lists what a user without the package has to install to run these files, for `pip install`.

        That is every library the code imports, also inside `try`, except those that transformers requires itself.
        Versions are those the package asks for; a library that it does not require raises ValueError.
        """
        imported = {name for path in self._files for name in _libraries(path)}
        asked, brought = _required("ecgdan-hf"), _required("transformers")
        needed = {_distribution(name) for name in imported - _OPTIONAL_LIBRARIES} - brought.keys()
        for unknown in sorted(needed - asked.keys()):
            raise ValueError(f"{unknown}: imported by code that travels, expected among the package's requirements")
        return [asked[name] for name in sorted(needed)]


def _required(distribution: str) -> dict[str, str]:
    """Returns the requirements of an installed distribution without its extras, by name."""
    parsed = [Requirement(each) for each in metadata.requires(distribution) or ()]
    here = [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return {canonicalize_name(each.name): f"{each.name}{each.specifier}" for each in here}


def _libraries(path: Path) -> set[str]:
    """Returns the top-level names of all third-party imports of a file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
    return found - set(sys.stdlib_module_names)


def _distribution(library: str) -> str:
    """Returns the distribution that provides an import: `yaml` comes with pyyaml."""
    return canonicalize_name(next(iter(_packages_distributions().get(library, ())), library))


def _neighbours(path: Path, modules: dict[str, Path]) -> set[str]:
    """Checks all imports of a file; returns the modules of the same folder among them."""
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
        if library not in _TRAVEL_LIBRARIES and library not in sys.stdlib_module_names:
            where = f"{path.name}, line {node.lineno}"
            raise ValueError(f"{where}: imports {library}, which a reader may not have; guard it with try/except")


def _reachable(start: str, needs: dict[str, set[str]]) -> set[str]:
    found, new = {start}, {start}
    while new:
        new = set().union(*(needs[name] for name in new)) - found
        found |= new
    return found
