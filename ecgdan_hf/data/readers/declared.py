"""The rate, unit and leads that a file or its caller states: at least one of them must, and they may not differ."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ecgdan_hf.data.record import canonical_lead, check_sampling_rate
from ecgdan_hf.model.conditioning_ecgdan import millivolt_per

_HOW_TO_GIVE = {
    "sampling_rate": "--sampling-rate HZ",
    "unit": "--unit mV, uV or V",
    "lead_names": "--lead-names I,II,...",
}


def to_millivolt(unit: Any, source: str) -> float:
    """Factor from `unit` to millivolt.

    Raises:
        ValueError: the unit is absent or no voltage.
    """
    factor = millivolt_per(unit)
    if factor is None:
        raise ValueError(f"{source}: expected 'mV', 'uV' or 'V', got {unit!r}")
    return factor


def check_declared(path: Path, given: dict[str, Any], said: dict[str, Any]) -> None:
    """Checks that each of `given` is known from the caller or the file.

    Raises:
        ValueError: one error for all that are missing, with the options that give them.
    """
    missing = [name for name, value in given.items() if not value and said.get(name) is None]
    if missing:
        it = "it" if len(missing) == 1 else "them"
        options = "; ".join(_HOW_TO_GIVE[name] for name in missing)
        raise ValueError(
            f"{path}: {', '.join(missing)}: the file does not say {it}; give {options} "
            f"(or {it} as columns of a table of files)"
        )


def agreed_rate(given: Any, said: Any, path: Path) -> float:
    """The sampling rate (Hz) that caller and file agree on.

    Raises:
        ValueError: neither states it, both differ, or it is no rate.
    """
    return _agreed(given, said, "sampling_rate", path, check_sampling_rate)


def agreed_factor(given: Any, said: Any, path: Path) -> float:
    """Factor to millivolt of the unit that caller and file agree on.

    Raises:
        ValueError: neither states it, both differ, or it is no voltage.
    """
    return _agreed(given, said, "unit", path, to_millivolt)


def agreed_leads(given: Sequence[str] | None, said: Sequence[str] | None, path: Path) -> list[str]:
    """The lead names, in standard spelling, that caller and file agree on.

    Raises:
        ValueError: neither states them, or both differ.
    """
    check_declared(path, {"lead_names": given}, {"lead_names": said or None})
    in_file, asked = ([canonical_lead(name) for name in names or ()] for names in (said, given))
    if in_file and asked and in_file != asked:
        raise ValueError(f"{path}: lead_names: the file says {', '.join(in_file)}, given {', '.join(asked)}")
    return in_file or asked


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, or its name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _agreed(given: Any, said: Any, name: str, path: Path, check: Callable[[Any, str], float]) -> float:
    if given is None:
        check_declared(path, {name: None}, {name: said})
    values = {check(value, f"{path}: {name}") for value in (given, said) if value is not None}
    if len(values) > 1:
        raise ValueError(f"{path}: {name}: the file says {said}, which contradicts the given {given}")
    return values.pop()
