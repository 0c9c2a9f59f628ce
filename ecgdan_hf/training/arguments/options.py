"""Declares the arguments of training verbs, and resolves recipes and flags into arguments.

An argument is a dataclass field made by [`option`], with its meaning, its choices and the tasks that use it. Help
texts and checks are derived from it. A library such as jsonargparse also reads dataclasses from YAML and flags, but it
would be a second command-line parser next to typer. It supports neither arguments that only one task uses nor mappings
that a flag extends. Must import neither torch nor transformers: the command line imports this module for `--help`.
"""

import contextlib
import dataclasses
import difflib
import math
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import yaml

from ecgdan_hf.data.sources.registry import find_source

_LARGEST = 2**32 - 1  # of a seed
_RECIPES_DIR = Path(__file__).parents[1] / "recipes"

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def option(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    within: tuple[float, float] | None = None,
    **when: Any,
) -> Any:
    """Declares a dataclass field that is a key of a recipe and a flag of the command line.

    Args:
        default: value if neither a recipe nor a flag gives one.
        text: help text.
        choices: the values allowed besides the default; empty allows any.
        within: the smallest and the largest number allowed.
        when: other field -> the value, or tuple of values, of that field with which this one is used.
    """
    accepted = {name: value if isinstance(value, tuple) else (value,) for name, value in when.items()}
    uses = [_words(name, values) for name, values in accepted.items()]
    metadata = {
        "help": f"{text} ({'; '.join(uses)})" if uses else text,
        "choices": choices,
        "within": within,
        "when": accepted,
    }
    if isinstance(default, dict):
        return field(metadata=metadata, default_factory=lambda: dict(default))
    return field(metadata=metadata, default=default)


def _words(name: str, values: tuple[Any, ...]) -> str:
    if values in ((True,), (False,)):
        return name if values[0] else f"not {name}"
    return f"{name} {_listed([value for value in values if value is not None])}"


def _listed(values: Any) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


def check_options(args: Any) -> None:
    """Rejects a value that is not one of the choices, is out of range, or would be ignored by the chosen task."""
    items = dataclasses.fields(args)
    for item in items:
        choices, value = item.metadata["choices"], getattr(args, item.name)
        if choices and value not in choices and value != item.default:
            raise ValueError(f"{item.name}: expected {_listed(choices)}, got {value!r}")
        _check_within(item, value)
    for item in items:
        default = item.default if item.default is not dataclasses.MISSING else {}
        if getattr(args, item.name) == default:
            continue
        for name, values in item.metadata["when"].items():
            chosen = getattr(args, name)
            if chosen not in values:
                raise ValueError(f"{item.name}: {_unused(name, values, chosen)}; leave it out")


def _check_within(item: dataclasses.Field[Any], value: Any) -> None:
    within = item.metadata["within"]
    if within is not None and isinstance(value, int | float) and not within[0] <= value <= within[1]:
        low, high = within
        expected = f"at least {low:g}" if math.isinf(high) else f"a share between {low:g} and {high:g}"
        raise ValueError(f"{item.name}: expected {expected}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{item.name}: expected a finite number, got {value!r}")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(f"{item.name}: expected a number within {_LARGEST:,}, got {value!r}")


def _unused(name: str, values: tuple[Any, ...], chosen: Any) -> str:
    if isinstance(chosen, bool):
        return f"not used {'with' if chosen else 'without'} {name}"
    return f"only {_words(name, values)} uses it, got {name} {chosen}"


def check_keys(keys: Any, known: Any, where: str) -> None:
    """Rejects an unknown key and suggests the nearest known one."""
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(sorted(known))}"
            raise ValueError(f"{where}: unknown key {key!r}{hint}")


def _read_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """Reads a recipe: a YAML file, or the name of one that ships with the package (`pretrain-rhythm`)."""
    path = Path(name_or_path)
    shipped = _RECIPES_DIR / f"{path.name.removesuffix('.yaml')}.yaml"
    if not path.is_file() and not shipped.is_file():
        known = ", ".join(sorted(recipe.stem for recipe in _RECIPES_DIR.glob("*.yaml")))
        raise FileNotFoundError(
            f"--config: no file {name_or_path} and no shipped recipe of that name; shipped: {known}"
        )
    path = path if path.is_file() else shipped
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path}: expected a mapping of argument names to values, found {type(recipe).__name__}")
    recipe.pop("versions", None)  # written by a finished run, so that its recipe.yaml is a recipe again
    return recipe


def resolve(kind: type[T], config: str | Path | None = None, flags: dict[str, Any] | None = None) -> T:
    """Defaults, overridden by the recipe, overridden by the flags that were given (those that are not None)."""
    fields = {item.name: item for item in dataclasses.fields(kind)}
    recipe = _read_recipe(config) if config else {}
    check_keys(recipe, fields, str(config))
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    check_keys(given, fields, "flags")
    for name in fields:
        if get_origin(fields[name].type) is dict:  # a flag adds to the recipe's mapping
            parts = [_checked(values, fields[name]) for values in (recipe.get(name) or {}, given.get(name, {}))]
            given[name] = {**parts[0], **parts[1]}
    values = {key: _checked(value, fields[key]) for key, value in {**recipe, **given}.items()}
    if values.get("data") is not None:
        values["data"] = find_source(values["data"]).name
    return kind(**values)


def _checked(value: Any, item: dataclasses.Field[Any]) -> Any:
    """The value in its field's type: YAML reads `1e-3` as text and `1` as an integer."""
    kinds = (dict,) if get_origin(item.type) is dict else get_args(item.type) or (item.type,)
    if float in kinds and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError):
            return float(value)
    if str in kinds and isinstance(value, int | Path) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
        return value
    expected = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
    raise ValueError(f"{item.name}: expected {expected}, got {value!r}")
