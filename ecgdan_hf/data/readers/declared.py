"""`Declared`, the values that a caller states of a file, and `Format`, an entry of the table in `data.formats`.

A rate, a unit and lead names are never guessed: the file states them or the caller does, and the two may not differ.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ecgdan_hf.data.readers.messages import one_line as one_line
from ecgdan_hf.data.record import EcgRecord, canonical_lead, check_sampling_rate
from ecgdan_hf.model.conditioning_ecgdan import millivolt_per
from ecgdan_hf.model.leads_ecgdan import canonical_leads, known_lead

_HOW_TO_GIVE = {
    "sampling_rate": "--sampling-rate HZ",
    "unit": "--unit mV, uV or V",
    "lead_names": "--lead-names I,II,...",
}


@dataclass(frozen=True)
class Declared:
    """The values that the caller states of a file.

    `rate`, `factor` and `leads` return the value that the caller and the file (`said`) agree on. They raise ValueError
    if neither states it, if the two differ, or if it is invalid.
    """

    sampling_rate: float | None = None
    unit: str | None = None
    lead_names: Sequence[str] | None = None

    def check_complete(self, said: Mapping[str, Any], path: Path) -> None:
        """Raises one ValueError that names everything neither side states, with the options that give it."""
        given = {"sampling_rate": self.sampling_rate, "unit": self.unit, "lead_names": self.lead_names}
        _refuse_missing([name for name in given if given[name] is None and said.get(name) is None], path)

    def rate(self, said: Any, path: Path) -> float:
        """Sampling rate, Hz."""
        return _agreed(self.sampling_rate, said, "sampling_rate", path, check_sampling_rate)

    def factor(self, said: Any, path: Path) -> float:
        """Factor from the unit to millivolt."""
        return _agreed(self.unit, said, "unit", path, _to_millivolt)

    def leads(self, said: Sequence[str] | None, path: Path) -> list[str]:
        """Lead names in standard spelling."""
        if not said and not self.lead_names:
            _refuse_missing(["lead_names"], path)
        in_file, asked = ([canonical_lead(name) for name in names or ()] for names in (said, self.lead_names))
        if in_file and asked and not _are_leads(in_file):  # `ECG`, `ECG`: the caller knows better
            if len(asked) != len(in_file):
                raise ValueError(
                    f"{path}: lead_names: expected {len(in_file)} names, got {len(asked)}: {', '.join(asked)}"
                )
            return asked
        if in_file and asked and in_file != asked:
            raise ValueError(f"{path}: lead_names: the file says {', '.join(in_file)}, given {', '.join(asked)}")
        return in_file or asked

    def check_unit(self, units: Collection[str], path: Path) -> None:
        """Raises ValueError if a channel of the file has another unit than the one given."""
        if self.unit is None:
            return
        factor = _to_millivolt(self.unit, f"{path}: unit")
        if any(millivolt_per(word) != factor for word in units):
            raise ValueError(f"{path}: unit: the file says {', '.join(sorted(set(units)))}, given {self.unit}")


@dataclass(frozen=True)
class Format:
    """A format of single ECG files.

    Attributes:
        name: as `formats.kind` returns it.
        recognises: whether a file is in this format, by its first 4 kB.
        read: reads a file; a member (an entry or a row) is given only where `has_members`.
        has_members: whether a file may hold several records. Its size is then not limited, only that of a record.
    """

    name: str
    recognises: Callable[[bytes], bool]
    read: Callable[[Path, Declared, str | None], EcgRecord]
    has_members: bool = False


def _are_leads(names: Sequence[str]) -> bool:
    """Whether all names are different leads that are known here."""
    try:
        canonical_leads(list(names))
    except ValueError:
        return False
    return True


def known_leads(record: EcgRecord) -> EcgRecord:
    """The record without channels that are no lead known here, and without a lead that is there already.

    They are flagged `not_a_lead:NAME` and `lead_twice:NAME`. A record without any known lead stays as it is.
    """
    kept, flags = dict[str, int](), list[str]()
    for row, name in enumerate(record.lead_names):
        lead = known_lead(name)
        if lead is None or lead in kept:
            flags.append(f"{'not_a_lead' if lead is None else 'lead_twice'}:{name}")
        else:
            kept[lead] = row
    if not flags or not kept:
        return record
    rows = list(kept.values())
    return replace(
        record,
        signal_mv=record.signal_mv[rows],
        lead_names=tuple(record.lead_names[row] for row in rows),
        median_beat_mv=None if record.median_beat_mv is None else record.median_beat_mv[rows],
        flags=(*record.flags, *flags),
    )


def _to_millivolt(unit: Any, source: str) -> float:
    factor = millivolt_per(unit)
    if factor is None:
        raise ValueError(f"{source}: expected 'mV', 'uV' or 'V', got {unit!r}")
    return factor


def _agreed(given: Any, said: Any, name: str, path: Path, check: Callable[[Any, str], float]) -> float:
    if given is None and said is None:
        _refuse_missing([name], path)
    values = {check(value, f"{path}: {name}") for value in (given, said) if value is not None}
    if len(values) > 1:
        raise ValueError(f"{path}: {name}: the file says {said}, which contradicts the given {given}")
    return values.pop()


def _refuse_missing(missing: Sequence[str], path: Path) -> None:
    if missing:
        it = "it" if len(missing) == 1 else "them"
        options = "; ".join(_HOW_TO_GIVE[name] for name in missing)
        raise ValueError(
            f"{path}: {', '.join(missing)}: the file does not say {it}; give {options} "
            f"(or {it} as columns of a table of files)"
        )
