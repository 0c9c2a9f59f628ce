"""The schema of `metrics.json`: what every verb writes, and what cards, pages and later verbs read.

A result is one JSON object: `schema` and `kind`, then the verb's own numbers. A number with an interval is an object
with `estimate`, `low` and `high`. Keys that several kinds share have one meaning:

| key | meaning |
|---|---|
| `task` | what the network learned: survival, classification, danet, pretraining |
| `data` | source of the records, a name or an object with `source` |
| `test_folds` | folds of the test records, as `evaluation.folds` reads them; absent or null for every record |
| `num_records`, `num_patients`, `num_events` | counts, of all records or by part (`train`, `valid`, `test`) |
| `seeds` | seeds that the numbers are means over |
| `metric`, `models` | name of the metric, and its intervals by model, the evaluated model first |
| `subgroups` | the metric by sex and age |
| `simulated_outcome` | whether the follow-up was simulated |
| `seconds`, `hardware` | duration, and the machine |

Imports neither torch nor pandas.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgdan_hf.files import write_text

FILE = "metrics.json"

_SCHEMA = 1
_REQUIRED: dict[str, tuple[str, ...]] = {
    "pretrain": ("task", "num_records"),
    "finetune": ("task", "num_records"),
    "recalibration": ("before", "after"),
    "held-out": ("metric", "models"),
    "repeated-cv": ("metric", "models", "splits"),
    "zero-shot": ("metric", "levels"),
    "probe": ("metric", "models"),
    "label-efficiency": ("metric", "label_fractions"),
    "ablation": ("variants",),
    "events": ("metric", "models"),
    "sanity": ("change", "num_records"),
    "benchmark": ("title", "report"),
}


@dataclass(frozen=True)
class Result:
    """One result of a verb.

    Attributes:
        kind: what was done, one of `pretrain`, `finetune`, `recalibration`, `held-out`, `repeated-cv`, `zero-shot`,
            `probe`, `label-efficiency`, `ablation`, `events`, `sanity`, `benchmark`.
        metrics: the numbers, without `schema` and `kind`.

    Raises:
        ValueError: an unknown kind, or numbers without a key that every result of this kind has.
    """

    kind: str
    metrics: dict[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in _REQUIRED:
            raise ValueError(f"kind: expected one of {', '.join(_REQUIRED)}, got {self.kind!r}")
        if missing := [key for key in _REQUIRED[self.kind] if key not in self.metrics]:
            raise ValueError(f"{', '.join(missing)}: missing in a result of kind {self.kind}")

    @property
    def data(self) -> str | None:
        """Source of the records; None where the result does not name it."""
        data = self.metrics.get("data")
        return data.get("source") if isinstance(data, Mapping) else data

    @property
    def is_simulated(self) -> bool:
        """Whether the follow-up was simulated."""
        return bool(self.metrics.get("simulated_outcome"))

    def to_json(self) -> str:
        """Returns the content of the file; NaN and infinity, which JSON does not have, become null."""
        return json.dumps({"schema": _SCHEMA, "kind": self.kind, **_plain(self.metrics)}, indent=2) + "\n"

    def write(self, path: str | Path) -> None:
        """Writes a `.json` file, or `metrics.json` into a folder, whole or not at all."""
        write_text(_file(path), self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> "Result":
        """Reads a `.json` file, or `metrics.json` of a folder.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not readable as JSON, another schema, or an unknown kind.
        """
        path = _file(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected a result that a verb of ecgdan wrote, found no file")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not readable as JSON: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected an object, found {type(content).__name__}")
        if (schema := content.pop("schema", None)) != _SCHEMA:
            raise ValueError(f"{path}: schema: expected {_SCHEMA}, found {schema!r}; run the verb that wrote it again")
        try:
            return cls(content.pop("kind", None), content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _file(path: str | Path) -> Path:
    return Path(path) if Path(path).suffix == ".json" else Path(path) / FILE


def _plain(value: Any) -> Any:
    """Returns the value in the types of JSON: numpy scalars become numbers, other objects text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
