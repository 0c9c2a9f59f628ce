"""What a file says of its rate, unit and leads, and what the caller says: at least one must, and they must agree."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ecgdan_hf.data.record import canonical_lead, check_sampling_rate

PER_MILLIVOLT = {
    "mv": 1.0,
    "millivolt": 1.0,
    "uv": 1e-3,
    "µv": 1e-3,  # micro sign
    "μv": 1e-3,  # Greek mu
    "microvolt": 1e-3,
    "v": 1e3,
    "volt": 1e3,
}


def to_millivolt(unit: Any, source: str) -> float:
    """Factor from `unit` to millivolt.

    Raises:
        ValueError: the unit is absent or no voltage.
    """
    factor = PER_MILLIVOLT.get(str(unit).strip().lower())
    if factor is None:
        raise ValueError(f"{source}: expected 'mV', 'uV' or 'V', got {unit!r}")
    return factor


def agreed_rate(given: Any, said: Any, path: Path) -> float:
    """The sampling rate (Hz) that caller and file agree on.

    Raises:
        ValueError: neither says it, both differ, or it is no rate.
    """
    return _agreed(given, said, "sampling_rate", path, check_sampling_rate)


def agreed_factor(given: Any, said: Any, path: Path) -> float:
    """Factor to millivolt of the unit that caller and file agree on.

    Raises:
        ValueError: neither says it, both differ, or it is no voltage.
    """
    return _agreed(given, said, "unit", path, to_millivolt)


def agreed_leads(given: Sequence[str] | None, said: Sequence[str] | None, path: Path) -> list[str]:
    """The lead names, in standard spelling, that caller and file agree on.

    Raises:
        ValueError: neither says them, or both differ.
    """
    if not said and not given:
        raise ValueError(f"{path}: lead_names: the file does not say them; expected them as an argument, got None")
    in_file, asked = ([canonical_lead(name) for name in names or ()] for names in (said, given))
    if in_file and asked and in_file != asked:
        raise ValueError(f"{path}: lead_names: the file says {', '.join(in_file)}, given {', '.join(asked)}")
    return in_file or asked


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, or its name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _agreed(given: Any, said: Any, name: str, path: Path, check: Callable[[Any, str], float]) -> float:
    if given is None and said is None:
        raise ValueError(f"{path}: {name}: the file does not say it; expected it as an argument, got None")
    values = {check(value, f"{path}: {name}") for value in (given, said) if value is not None}
    if len(values) > 1:
        raise ValueError(f"{path}: {name}: the file says {said}, which contradicts the given {given}")
    return values.pop()
