"""Further evaluations of a checkpoint, from the folders its verbs wrote: every number that has an interval.

Reads `metrics.json` of `ecgdan probe`, `evaluate`, `finetune`, `sanity` and `ablate` alike: an interval is a mapping
with `estimate`, `low` and `high`, wherever it stands. Numbers of controls are told from those of the model, because
they stand beside it in a table but are no result of it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from ecgdan_hf.evaluation.protocols import module_comparison
from ecgdan_hf.evaluation.report.subgroup_text import subgroup_text
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

METRIC_NAMES = {
    "concordance_index": "C-index (Harrell)",
    "attainable_concordance_index": "C-index of the true hazard (the best attainable)",
    "macro_auroc": "macro AUROC",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1 at the stored threshold",
    "age_sex": "age and sex alone (Cox)",
    "random_encoder": "random encoder (ridge Cox)",
    "permuted_prompts": "prompts permuted (range)",
    "highest_on_beat": "highest attention on a beat of the label",
    "highest_on_beat_chance": "the same by chance",
    "beats_found": "beats of the label at an attention peak",
    "beats_found_chance": "the same by chance, of beats",
    "num_records": "records",
    "num_events": "events",
    "num_positives": "records with the label",
    "median_follow_up_years": "median follow-up, years",
}

UNSAID = ("models", "labels", "levels", "controls", "label_fractions", "test")
CONTROLS = ("controls", "permuted_prompts", "highest_on_beat_chance", "beats_found_chance")
MAX_LABELS = 10
"""Labels whose own results a card shows; those of more are in the file beside it."""

LOCAL_PATHS = ("data_dir", "output_dir", "cache_dir", "checkpoint", "labels", "prompts", "control", "teachers")
"""Entries of recipes and metrics that may hold paths of one machine: only their last part is published."""

KINDS = ("Held-out evaluation", "Zero-shot", "Linear probe", "Label efficiency", "Ablation")
"""In this order a card shows them; what is not named comes after, the test of the attention maps last."""

Span = tuple[float, float | None, float | None]


@dataclass(frozen=True)
class Measured:
    """One number with its interval.

    Attributes:
        path: keys that lead to it.
        value, low, high: the number and its limits.
        ahead: how far the model is ahead of this control, where that was measured.
        is_control: whether the number is another model's.
    """

    path: tuple[str, ...]
    value: float
    low: float | None
    high: float | None
    ahead: Span | None = None
    is_control: bool = False

    @property
    def words(self) -> str:
        """What it is, in words."""
        return words(self.path)

    @property
    def row(self) -> tuple[str, str, str]:
        """Words, value and lead for a table."""
        signed = self.path[-1].startswith("area_over")
        return self.words, span_text((self.value, self.low, self.high), signed), span_text(self.ahead, signed=True)


@dataclass(frozen=True)
class Evaluation:
    """One folder of results.

    Attributes:
        name: of the folder; its numbers are published as `evaluation/NAME.json`.
        kind: what was done, in words.
        metrics: content of its `metrics.json`, without local paths.
        data: source of the records, where the folder says it.
        folds: folds that were judged, as text; empty where unknown.
    """

    name: str
    kind: str
    metrics: Mapping[str, Any]
    data: str | None = None
    folds: str = ""

    @property
    def is_sanity(self) -> bool:
        """Whether this is the test of the attention maps."""
        return self.metrics.get("task") == "sanity"

    @property
    def title(self) -> str:
        """What was done, and the leads the network was shown where it was not shown all."""
        leads = self.metrics.get("leads")
        return f"{self.kind}, shown {leads.replace(',', ', ')} alone" if isinstance(leads, str) else self.kind

    @property
    def split(self) -> str:
        """The part of the data, for metadata."""
        if self._compares_modules:
            return "cross-validation"
        return f"{'fold' if self.folds.isdigit() else 'folds'} {self.folds}" if self.folds else "test"

    @property
    def tables(self) -> str:
        """Tables of the whole comparison in Markdown, where this is one of DANet's modules; else empty."""
        return module_comparison.tables(self.metrics) if self._compares_modules else ""

    @property
    def _compares_modules(self) -> bool:
        return self.metrics.get("task") == "waveform comparison"

    @property
    def groups(self) -> str:
        """How the model does by sex and age, in Markdown; empty where that was not measured."""
        found = self.metrics.get("subgroups")
        return subgroup_text(found, bool(self.metrics.get("simulated_outcome"))) if found else ""

    def measured(self) -> list[Measured]:
        """Every number with an interval; per-label ones only where the labels are few.

        Of a comparison of DANet's modules those of the recipe as it is: the others are controls.
        """
        if self._compares_modules:
            return list(_walk(self.metrics["variants"].get(self.metrics.get("as_recipes"), {}), ()))
        parts = [part for part in ("test", "valid") if isinstance(self.metrics.get(part), Mapping)]
        if parts:  # of a run, the test part, or the one that chose the epoch where there is no other
            return list(_walk(self.metrics[parts[0]], () if parts[0] == "test" else ("validation",)))
        return list(_walk(self.metrics, ()))


def read_evaluation(folder: str | Path) -> Evaluation:
    """Reads the folder a verb wrote its results to.

    Raises:
        FileNotFoundError: no `metrics.json` there.
        ValueError: one that is not readable, or without any number that has an interval.
    """
    folder = Path(folder)
    if not (folder / "metrics.json").is_file():
        raise FileNotFoundError(f"{folder}: expected a folder of results with metrics.json, found none")
    metrics = without_local_paths(read_mapping(folder / "metrics.json", json.loads))
    recipe = read_mapping(folder / "recipe.yaml", yaml.safe_load) or {}
    data = recipe.get("data", metrics.get("data"))
    said = {"data": data, "test_folds": metrics.get("test_folds") or recipe.get("test_folds")}
    metrics |= {key: value for key, value in said.items() if value}
    found = Evaluation(slug(folder.resolve().name), _kind(metrics), metrics, data, _folds(metrics))
    if not found.measured():
        raise ValueError(f"{folder}: expected results with intervals in metrics.json, found none")
    return found


def kept_evaluations(folder: str | Path) -> list[Evaluation]:
    """The evaluations that a released checkpoint or a bundle carries in `evaluation/`.

    Raises:
        ValueError: a file that is not readable.
    """
    found = []
    for path in sorted(Path(folder, "evaluation").glob("*.json")):
        metrics = read_mapping(path, json.loads) or {}
        found.append(Evaluation(path.stem, _kind(metrics), metrics, metrics.get("data"), _folds(metrics)))
    return in_order(found)


def in_order(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """As a card shows them: by kind, the ones with all leads before those with fewer."""

    def place(each: Evaluation) -> tuple[int, int, str]:
        leads = each.metrics.get("leads")
        kind = KINDS.index(each.kind) if each.kind in KINDS else len(KINDS) + each.is_sanity
        return kind, -leads.count(",") if isinstance(leads, str) else -len(STANDARD_LEADS), each.name

    return sorted(evaluations, key=place)


def _folds(metrics: Mapping[str, Any]) -> str:
    folds = metrics.get("test_folds") or ""
    return ",".join(map(str, folds)) if isinstance(folds, list) else str(folds)


def words(path: Sequence[str]) -> str:
    """Keys of a number in words."""
    said = []
    for before, key in zip((None, *path), path, strict=False):
        if before == "label_fractions":
            said.append(f"{100 * float(key):g} % of the labels")
        elif key not in UNSAID:
            said.append(METRIC_NAMES.get(key, key.replace("_", " ")))
    return ", ".join(said)


def span_text(span: Span | None, signed: bool = False) -> str:
    """A number with its limits; empty for None."""
    if span is None:
        return ""
    form = "+.3f" if signed else ".3f"
    value, low, high = span
    return f"{value:{form}}" if low is None or high is None else f"{value:{form}} ({low:{form}} to {high:{form}})"


def slug(text: str) -> str:
    """A name that may be a file, or an entry of metadata: lower case, words joined by underscores."""
    return re.sub(r"[^a-z0-9.-]+", "_", text.lower()).strip("_") or "results"


def read_mapping(path: Path, parse: Any) -> dict[str, Any] | None:
    """Content of a JSON or YAML file, None where there is none.

    Raises:
        ValueError: not readable, or no mapping.
    """
    if not path.is_file():
        return None
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not readable: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, found {type(content).__name__}")
    return content


def without_local_paths(content: Any, key: str = "") -> Any:
    """The same with every path of this machine replaced by its last part."""
    if isinstance(content, Mapping):
        return {
            name: without_local_paths(value, key if key == "control" else str(name)) for name, value in content.items()
        }
    if isinstance(content, list):
        return [without_local_paths(value, key) for value in content]
    if not isinstance(content, str):
        return content
    if key in LOCAL_PATHS:
        return ",".join(PureWindowsPath(part).name for part in content.split(","))  # takes both kinds of slashes
    is_path = Path(content).is_absolute() or PureWindowsPath(content).is_absolute()
    return PureWindowsPath(content).name if is_path else content


def _kind(metrics: Mapping[str, Any]) -> str:
    if metrics.get("task") == "waveform comparison":
        return "DANet's modules and controls, cross-validation of the recipe"
    if metrics.get("task") == "sanity":
        return "Deletion test of the attention maps"
    for key, kind in (("levels", "Zero-shot"), ("label_fractions", "Label efficiency"), ("variants", "Ablation")):
        if key in metrics:
            return kind
    if "models" in metrics:
        return "Linear probe" if "num_records_fitted" in metrics else "Held-out evaluation"
    fine_tuned = {"survival": "survival", "classification": "classification", "danet": "classification"}
    task = fine_tuned.get(str(metrics.get("task")))
    return f"Fine-tuned, {task}" if task else "Evaluation"


def _walk(node: Any, path: tuple[str, ...], is_control: bool = False) -> Iterator[Measured]:
    if not isinstance(node, Mapping):
        return
    span = _span(node)
    if span is not None:
        yield Measured(path, *span, ahead=_span(node.get("ahead")), is_control=is_control)
        return
    first = next(iter(node), None)
    for key, value in node.items():
        other = is_control or key in CONTROLS or (path[-1:] == ("models",) and key != first)
        if key == "subgroups" or (key == "labels" and isinstance(value, Mapping) and len(value) > MAX_LABELS):
            continue
        yield from _walk(value, (*path, str(key)), other)


def _span(node: Any) -> Span | None:
    """Value and limits of an interval, in any of the forms the verbs write."""
    if not isinstance(node, Mapping):
        return None
    if isinstance(node.get("interval"), Mapping):
        return _span(node["interval"])
    value = node.get("estimate", node.get("mean"))
    if isinstance(value, int | float) and {"low", "high"} <= set(node):
        return float(value), node["low"], node["high"]
    if isinstance(node.get("macro_auroc"), int | float) and "ahead" in node:  # a zero-shot control
        return float(node["macro_auroc"]), None, None
    return None
