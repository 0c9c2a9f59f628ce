"""What the labels of PTB-XL say of an ECG: definitions after the standards, in several wordings.

The texts and their sources are in `definitions.yaml`.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

LEVELS = {"statement": "statements", "subclass": "subclasses", "superclass": "superclasses"}

_PATH = Path(__file__).with_name("definitions.yaml")
_NAMES_PATH = Path(__file__).with_name("statement_names.csv")


@dataclass(frozen=True)
class Definition:
    """What one label says.

    Attributes:
        code: the label, such as the SCP code `"SBRAD"`.
        level: one of `LEVELS`.
        name: its short name, such as "sinus bradycardia".
        definition: what a cardiologist would say it is, with limits in numbers.
        wordings: the same in other words, at least three.
        paraphrase: the same in words that no training text has; kept to test understanding.
        source: the work whose limits these are, as a citation.
        measured: names of the measured sentences (`data.text.measured`) that together define it; empty where
            measurements do not.
    """

    code: str
    level: str
    name: str
    definition: str
    wordings: tuple[str, ...]
    paraphrase: str
    source: str
    measured: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts to train on: the definition, then its wordings."""
        return (self.definition, *self.wordings)


@cache
def definitions(level: str = "statement") -> dict[str, Definition]:
    """Returns the definitions of a level by code: 71 statements, 23 subclasses or 5 superclasses.

    A class that is one statement has that statement's texts. Raises ValueError for an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
    entries, statements = definitions_file()[LEVELS[level]], definitions_file()["statements"]
    return {
        code: _definition(code, level, statements[code] if entry == "statement" else entry)
        for code, entry in entries.items()
    }


@cache
def definitions_file() -> dict[str, Any]:
    """The file as it is: `sources`, `statements`, `subclasses`, `superclasses`."""
    content: dict[str, Any] = yaml.safe_load(_PATH.read_text(encoding="utf-8"))
    return content


def _definition(code: str, level: str, entry: dict[str, Any]) -> Definition:
    return Definition(
        code,
        level,
        _names().get(code, entry["wordings"][0]),
        entry["definition"],
        tuple(entry["wordings"]),
        entry["paraphrase"],
        definitions_file()["sources"][entry["source"]],
        tuple(entry.get("measured", ())),
    )


@cache
def _names() -> dict[str, str]:
    with _NAMES_PATH.open(encoding="utf-8", newline="") as file:
        return {row["code"]: row["name"] for row in csv.DictReader(file)}
