"""A training verb's arguments as a command line: one flag for each field, none of them written twice.

Shared by `ecgdan VERB` and `python -m ecgdan_hf.training.VERB` (for `accelerate launch`). Imports no torch.
"""

import dataclasses
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
import yaml

from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.training.arguments.options import T, check_options, resolve

_CONFIG_HELP = "recipe: a YAML file, or the name of one that ships with the package; flags override it"


def with_flags(kind: type[T], function: Callable[[T], Any], doc: str | None = None) -> Callable[..., None]:
    """Returns a function that typer turns into a command: `--config`, and one flag for each field of `kind`.

    Its help is `doc`, or the docstring of `function`, which gets the resolved arguments.
    """

    def command(config: str | None = None, **flags: Any) -> None:
        for item in dataclasses.fields(kind):
            if get_origin(item.type) is dict and flags[item.name] is not None:
                flags[item.name] = _parse_assignments(flags[item.name], item.name)
        args: Any = resolve(kind, config, flags)
        _recognise_source(args)
        check_options(args)
        function(args)

    parameters = [_parameter("config", str, "no recipe", _CONFIG_HELP)]
    for item in dataclasses.fields(kind):
        default = item.default if item.default is not dataclasses.MISSING else {}
        parameters.append(_parameter(item.name, item.type, default, item.metadata["help"]))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = doc or function.__doc__
    return command


def _recognise_source(args: Any) -> None:
    """Fills in a missing `data` with the source recognised from `data_dir`, and reports it."""
    if getattr(args, "data", "given") is None and args.data_dir:
        source = find_source(None, args.data_dir)
        args.data = source.name
        print(f"data: {args.data_dir} is recognised as {source.name} ({source.title})", file=sys.stderr)


def _parameter(name: str, kind: Any, default: Any, text: str) -> inspect.Parameter:
    """One flag. Its default is None, "not given", so that a recipe is overridden only by what was typed."""
    if get_origin(kind) is dict:
        kind = list[str]
    else:
        plain = [part for part in get_args(kind) if part is not type(None)]
        kind = plain[0] if plain else kind
        if default is not None and name != "config":
            text = f"{text} [default: {str(default).lower() if isinstance(default, bool) else default}]"
    annotation = Annotated[kind | None, typer.Option(help=text, show_default=False)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _parse_assignments(texts: list[str], name: str = "model") -> dict[str, Any]:
    """Reads `key=value` pairs, the values as YAML.

    >>> _parse_assignments(["dropout_scope=batch", "hidden_size=256"])
    {'dropout_scope': 'batch', 'hidden_size': 256}

    Raises:
        ValueError: a text without an equals sign.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (key, equals, _) in zip(texts, pairs, strict=True):
        if not equals or not key:
            raise ValueError(f"--{name}: expected key=value, got {text!r}")
    return {key.strip(): _parsed(value, f"--{name}: {key}") for key, _, value in pairs}


def _parsed(value: str, what: str) -> Any:
    try:
        return yaml.safe_load(value)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{what}: not readable as YAML: {' '.join(str(error).split())}") from error


def run_safely(function: Callable[[], Any]) -> int:
    """Runs a command; errors become one line on stderr, or are raised with `ECGDAN_TRACEBACK=1`.

    Returns 0; 2 for a wrong argument or input (ValueError, OSError); 1 for a loss that is not finite.
    """
    try:
        function()
    except (ValueError, OSError, ArithmeticError) as error:
        if os.environ.get("ECGDAN_TRACEBACK") == "1":
            raise
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1 if isinstance(error, ArithmeticError) else 2
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        print("error: there is not enough memory; ask for a smaller network, batch or file", file=sys.stderr)
        return 2
    return 0


def run_as_program(kind: type[T], function: Callable[[Any], dict[str, Any]]) -> None:
    """`python -m ecgdan_hf.training.VERB`: the flags of `ecgdan VERB`, started by `accelerate launch` or by hand."""

    def run(args: Any) -> None:
        if getattr(args, "push_to_hub", None):
            raise ValueError(
                "push_to_hub: only the command ecgdan uploads; use it, or `ecgdan bundle` and `ecgdan push`"
            )
        function(args)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(with_flags(kind, run, f"The same as `ecgdan {Path(sys.argv[0]).stem}`."))
    try:
        sys.exit(run_safely(lambda: app(standalone_mode=True)))
    finally:
        _part_processes()


def _part_processes() -> None:
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
