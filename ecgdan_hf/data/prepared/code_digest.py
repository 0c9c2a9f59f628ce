"""A digest of the code that makes cached rows, so that a change of the code leaves no stale cache.

Found by reading the import statements, those inside functions included: nothing is imported, and no list is kept.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]


@cache
def code_digest(module: str, package: Path = _PACKAGE) -> str:
    """Returns a digest of the source code of a module and of all it imports from this package, directly or not.

    The package's own `__init__` does not count: it only names what is public.

    Args:
        module: full name, such as `ecgdan_hf.data.formats`.
        package: folder of the package.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_reachable(module, package).items()):
        digest.update(name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _reachable(module: str, package: Path) -> dict[str, Path]:
    """The files of a module and of all that it imports from the package, by name."""
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
    """The file of a module below the package; None for anything else, the package itself included."""
    first, *parts = name.split(".")
    if first != package.name or not parts:
        return None
    place = package.joinpath(*parts)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _imports(name: str, file: Path) -> Iterator[str]:
    """The names that a module imports; of `from a import b` both `a` and `a.b`, which may be a module."""
    parents = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
