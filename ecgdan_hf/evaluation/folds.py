"""Folds: the one parser of them, the rows in them, and the guard that keeps training records out of a test.

Imports neither torch nor pandas, because the command line reads it before `--help`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

TRAINED_ON = ("train_folds", "valid_folds")
"""Entries of a recipe whose records a checkpoint has seen: the second chose its epoch."""


def parse_folds(folds: object, name: str = "folds") -> list[int] | None:
    """Returns the numbers in `1-8`, `9`, `1,3,5-7`, `[1, 2, 3]`, a list, or an integer; None for None.

    >>> parse_folds("1,3,5-7"), parse_folds("[1, 2, 3]"), parse_folds([9])
    ([1, 3, 5, 6, 7], [1, 2, 3], [9])

    Args:
        folds: as a recipe, a flag or a result states them.
        name: the argument or file, for errors.

    Raises:
        ValueError: anything else, no number, or the same number twice.
    """
    if folds is None:
        return None
    text = ",".join(map(str, folds)) if isinstance(folds, list | tuple) else str(folds).strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    ranges = [re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip()) for part in text.split(",")]
    numbers: list[int] = []
    for found in ranges:
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise ValueError(f"{name}: expected numbers such as 1-8 or 1,2,5, got {folds!r}")
        numbers += range(int(found[1]), int(found[2] or found[1]) + 1)
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"{name}: expected each number once, got {folds!r}")
    return numbers


def select_folds(dataset: Any, folds: Sequence[int] | None) -> Any:
    """Returns the rows of these folds; all rows for None.

    Raises:
        ValueError: the data have no folds, or no record in any of these.
    """
    if folds is None:
        return dataset
    if "fold" not in dataset.column_names:
        raise ValueError("folds: expected data with folds, found none; omit test_folds to use every record")
    wanted = set(folds)
    rows = [row for row, fold in enumerate(dataset["fold"][:]) if fold in wanted]
    if not rows:
        raise ValueError(f"folds: no record in folds {list(folds)}")
    return dataset.select(rows)


def recipe_of(checkpoint: str) -> dict[str, Any] | None:
    """Returns the content of a checkpoint's `recipe.yaml`; None without one.

    Raises:
        ValueError: a file that is not readable, or not a recipe.
    """
    path = Path(checkpoint) / "recipe.yaml"
    if not path.is_file():
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of argument names to values, found {type(content).__name__}")
    return content


def check_unseen(
    checkpoint: str,
    test_folds: Sequence[int] | None,
    data_dir: str | None,
    seen_in: Sequence[str] = TRAINED_ON,
) -> None:
    """Refuses to evaluate a checkpoint on records that its recipe lists as training data.

    Checkpoints that it started from are checked too.

    Args:
        checkpoint: folder; one without a recipe passes.
        test_folds: folds to evaluate on; None for every record.
        data_dir: folder of the test records.
        seen_in: entries of the recipe whose folds are refused.

    Raises:
        ValueError: a fold in common, every record of the folder it was trained on, or a recipe whose folds are not
            readable.
    """
    recipe = recipe_of(checkpoint)
    if recipe is None:
        return
    if recipe.get("checkpoint") and "train_folds" in seen_in:
        check_unseen(str(recipe["checkpoint"]), test_folds, data_dir, ("train_folds",))
    _check_not_recalibrated_on(checkpoint, recipe.get("recalibrated_on") or {}, test_folds, data_dir)
    if not _is_same_folder(recipe.get("data_dir"), data_dir):
        return
    seen = {fold for name in seen_in for fold in _folds_in(checkpoint, recipe, name)}
    common = sorted(seen & set(test_folds or ()))
    if common or test_folds is None or not seen:
        what = f"folds {common}" if common else f"records of {data_dir}"
        raise ValueError(f"{checkpoint}: was trained on {what}; choose test folds it has not seen")


def _check_not_recalibrated_on(
    checkpoint: str, fitted: Mapping[str, Any], test_folds: Sequence[int] | None, data_dir: str | None
) -> None:
    if not _is_same_folder(fitted.get("data_dir"), data_dir):
        return
    seen = _folds_in(checkpoint, fitted, "fit_folds")
    if not seen or not test_folds or set(seen) & set(test_folds):
        raise ValueError(f"{checkpoint}: was recalibrated to records of {data_dir}; choose test folds it has not seen")


def _is_same_folder(one: Any, other: str | None) -> bool:
    return bool(one) and other is not None and Path(str(one)).resolve() == Path(other).resolve()


def _folds_in(checkpoint: str, recipe: Mapping[str, Any], name: str) -> list[int]:
    return parse_folds(recipe.get(name), f"{Path(checkpoint) / 'recipe.yaml'}: {name}") or []
