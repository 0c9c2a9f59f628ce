"""A digest of the code that makes cached rows, so that a change of the code invalidates the cache.

Reads the import statements, including those inside functions, without importing.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]


@cache
def code_digest(module: str, package: Path = _PACKAGE) -> str:
    """Returns a digest of the source code of a module (full name) and of all it imports from the package.

    The package's own `__init__` is left out, as it only lists public names.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_reachable(module, package).items()):
        digest.update(name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _reachable(module: str, package: Path) -> dict[str, Path]:
    """The files, by name, of a module and of all it imports from the package, directly or not."""
    files: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file(name, package)
        if name in files or file is None:
            continue
        files[name] = file
        waiting += [*_imports(name, file), name.rpartition(".")[0]]
    return files


def _file(name: str, package: Path) -> Path | None:
    """The file of a module below the package; None for anything else, including the package itself."""
    first, *parts = name.split(".")
    if first != package.name or not parts:
        return None
    place = package.joinpath(*parts)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _imports(name: str, file: Path) -> Iterator[str]:
    """The names that a module imports; for `from a import b` both `a` and `a.b`, which may be a module."""
    parents = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
