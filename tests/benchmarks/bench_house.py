"""How the package is laid out, in numbers: its size, its public names, and how often a task changes files.

python tests/benchmarks/bench_house.py [--package FOLDER] [--trace predict finetune bundle]

FOLDER is a checkout, by default this one. A file change is a pair of consecutive Python calls whose code lies in
different files of the package. Counted with `sys.setprofile`, after an untraced run that has imported everything and
filled the caches: one ECG through `ecgdan predict`, a run of `ecgdan finetune` to its first optimizer step, and one
checkpoint through `ecgdan bundle`. Calls in other processes and threads are not counted.
"""

import argparse
import ast
import contextlib
import io
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

REPOSITORY = Path(__file__).parents[2]
CARD = "model_cards/ecg-dan-rhythm-survival-simulated"
ISINSTANCE = re.compile(r"isinstance\((?:self\.)?(?:model|network|loaded|head)\b|isinstance\([a-z_.]*\.model\b")


class _Stop(ArithmeticError):
    """Ends a run at its first optimizer step."""


def modules(package: Path) -> dict[str, ast.Module]:
    """Syntax trees of the package by dotted module name."""
    names = {".".join(path.relative_to(package.parent).with_suffix("").parts): path for path in package.rglob("*.py")}
    return {
        name.removesuffix(".__init__"): ast.parse(path.read_text(encoding="utf-8")) for name, path in names.items()
    }


def imports(name: str, tree: ast.Module, known: set[str], is_package: bool) -> set[str]:
    """Modules of the package that a module imports, also within functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = name.split(".")[: -node.level + is_package or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
    return (found & known) - {name}


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that import each other (strongly connected components of more than one)."""
    reached = {name: _reachable(name, graph) for name in graph}
    groups = {frozenset({name} | {other for other in reached[name] if name in reached[other]}) for name in graph}
    return [set(group) for group in groups if len(group) > 1]


def _reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen, left = set(), [start]
    while left:
        for name in graph[left.pop()] - seen:
            seen.add(name)
            left.append(name)
    return seen


def strict_files(checkout: Path) -> list[Path]:
    """Modules that `[tool.mypy] files` names; strict holds for them."""
    import tomllib

    settings = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    named = [checkout / name for name in settings.get("files", [])]
    files = [file for path in named for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return [file for file in files if (checkout / "ecgdan_hf") in file.parents]


def layout(checkout: Path) -> dict[str, object]:
    """The static numbers of a checkout."""
    package = checkout / "ecgdan_hf"
    files = list(package.rglob("*.py"))
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    lines = {file: text.count("\n") for file, text in texts.items()}
    trees = modules(package)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    public = [node.name for tree in trees.values() for node in tree.body if isinstance(node, kinds)]
    public = [name for name in public if not name.startswith("_")]
    functions = Counter(
        node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    )
    packages = {".".join(file.parent.relative_to(checkout).parts) for file in files if file.name == "__init__.py"}
    graph = {name: imports(name, tree, set(trees), name in packages) for name, tree in trees.items()}
    strict, total = sum(lines[file] for file in strict_files(checkout)), sum(lines.values())
    folders = Counter(str(file.parent.relative_to(checkout)) for file in files)
    return {
        "lines": total,
        "modules": len(files),
        "most files in a folder": "{1} ({0})".format(*folders.most_common(1)[0]),
        "public top-level functions and classes": len(public),
        "the same per 1,000 lines": f"{1000 * len(public) / total:.1f}",
        "public function names that occur more than once": sum(count > 1 for count in functions.values()),
        "import cycles, also within functions": "; ".join(" ".join(sorted(each)) for each in cycles(graph)) or "none",
        "isinstance(model": sum(len(ISINSTANCE.findall(text)) for text in texts.values()),
        "lines under strict mypy": f"{100 * strict / total:.0f} %",
    }


def command_line(checkout: Path) -> Callable[[], None]:
    """The entry point of the checkout's `ecgdan`."""
    sys.path.insert(0, str(checkout))
    try:
        from ecgdan_hf.cli.main import main
    except ModuleNotFoundError:  # before the commands had a folder
        from ecgdan_hf.cli import main  # type: ignore[attr-defined, no-redef]
    return main


def file_changes(checkout: Path, main: Callable[[], None], command: str) -> int:
    """Runs a command once untraced and once traced, and counts the file changes of the second.

    Raises:
        RuntimeError: the command failed.
    """
    root, files = str(checkout / "ecgdan_hf") + os.sep, []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(root):
            files.append(frame.f_code.co_filename)

    for profile in (None, note):
        shutil.rmtree("bundle", ignore_errors=True)
        _run(main, command, profile)
    return sum(first != second for first, second in itertools.pairwise(files))


def _run(main: Callable[[], None], command: str, profile: Any) -> None:
    said = io.StringIO()
    sys.argv = ["ecgdan", *command.split()]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            sys.setprofile(profile)
            main()
    except SystemExit as end:
        if end.code and "optimizer step" not in said.getvalue():
            raise RuntimeError(f"ecgdan {command}: {said.getvalue()}") from end
    finally:
        sys.setprofile(None)


@contextlib.contextmanager
def ending_at_the_first_step() -> Iterator[None]:
    """Lets AdamW raise at its first step."""
    import torch

    def stop(*_: Any, **__: Any) -> None:
        sys.setprofile(None)
        raise _Stop("first optimizer step")

    step, torch.optim.AdamW.step = torch.optim.AdamW.step, stop  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.optim.AdamW.step = step  # type: ignore[method-assign]


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, default=REPOSITORY)
    parser.add_argument("--trace", nargs="*", default=["predict", "finetune", "bundle"])
    options = parser.parse_args()
    checkout = options.package.resolve()
    for name, value in layout(checkout).items():
        print(f"{name:50} {value}")
    if not options.trace:
        return
    os.environ["HF_HUB_OFFLINE"], os.environ["PYTHONPATH"] = "1", str(checkout)
    ecgdan, card = command_line(checkout), checkout / CARD
    commands = {
        "predict": f"predict cohort/records/00/00001 --checkpoint {card} --out predictions.csv",
        "finetune": "finetune --config finetune-survival-rhythm --data csv --data-dir cohort --from-scratch "
        "--epochs 1 --log-with none --no-progress --num-proc 1 --cache-dir cache --overwrite --output-dir run",
        "bundle": f"bundle {card} bundle",
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), ending_at_the_first_step():
        _run(ecgdan, "data synthetic cohort --n 64 --seed 3", None)
        for verb in options.trace:
            print(f"{f'file changes of ecgdan {verb}':50} {file_changes(checkout, ecgdan, commands[verb])}")


if __name__ == "__main__":
    main()
