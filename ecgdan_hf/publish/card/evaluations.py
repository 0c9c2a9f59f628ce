"""Further evaluations of a checkpoint, read from the folders that verbs wrote (`evaluation.result`).

A card lists every number that has an interval. Numbers of controls are marked: they are not results of the model.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from ecgdan_hf.evaluation.report.subgroup_text import subgroup_text
from ecgdan_hf.evaluation.result import Result
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

TITLES = {
    "held-out": "Held-out evaluation",
    "repeated-cv": "Repeated cross-validation",
    "zero-shot": "Zero-shot",
    "probe": "Linear probe",
    "label-efficiency": "Label efficiency",
    "ablation": "Ablation",
    "finetune": "Fine-tuned, {task}",
    "recalibration": "Recalibration",
    "pretrain": "Pretraining",
    "benchmark": "Benchmark",
    "sanity": "Deletion test of the attention maps",
}
"""Kind of a result -> its title, in the order in which a card shows them."""

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
    """One further result of a checkpoint.

    Attributes:
        name: of its folder; the numbers are published as `evaluation/NAME.json`.
        result: what a verb wrote, without local paths.
        data: source of the records; None where neither result nor recipe names it.
    """

    name: str
    result: Result
    data: str | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers."""
        return self.result.metrics

    @property
    def is_sanity(self) -> bool:
        """Whether this is the test of the attention maps."""
        return self.result.kind == "sanity"

    @property
    def folds(self) -> str:
        """Folds of the test records, as text; empty where unknown."""
        folds = self.metrics.get("test_folds") or ""
        return ",".join(map(str, folds)) if isinstance(folds, list) else str(folds)

    @property
    def title(self) -> str:
        """The kind in words, and the leads that the network was given where it was not given all."""
        task = {"survival": "survival"}.get(str(self.metrics.get("task")), "classification")
        title = self.metrics.get("title") or TITLES[self.result.kind].format(task=task)
        leads = self.metrics.get("leads")
        return f"{title}, shown {leads.replace(',', ', ')} alone" if isinstance(leads, str) else str(title)

    @property
    def split(self) -> str:
        """The part of the data, for metadata."""
        if "split" in self.metrics:
            return str(self.metrics["split"])
        return f"{'fold' if self.folds.isdigit() else 'folds'} {self.folds}" if self.folds else "test"

    @property
    def tables(self) -> str:
        """Tables of a benchmark in Markdown; empty for other kinds."""
        return str(self.metrics.get("report", ""))

    @property
    def groups(self) -> str:
        """The metric by sex and age in Markdown; empty where it was not measured."""
        found = self.metrics.get("subgroups")
        return subgroup_text(found, self.result.is_simulated) if found else ""

    def measured(self) -> list[Measured]:
        """Returns every number with an interval; those of single labels only where the labels are few.

        Of a run, the test part; the validation part where there is no test. Of a benchmark, the variant `as_recipes`.
        """
        if self.result.kind == "benchmark":
            return list(_walk(self.metrics.get("variants", {}).get(self.metrics.get("as_recipes"), {}), ()))
        parts = [part for part in ("test", "valid") if isinstance(self.metrics.get(part), Mapping)]
        if parts:
            return list(_walk(self.metrics[parts[0]], () if parts[0] == "test" else ("validation",)))
        return list(_walk(self.metrics, ()))


def read_evaluation(folder: str | Path) -> Evaluation:
    """Reads the folder that a verb wrote its result to.

    Raises:
        FileNotFoundError: no `metrics.json` in it.
        ValueError: not readable, or no number with an interval.
    """
    folder = Path(folder)
    result = read_result(folder)
    recipe = read_mapping(folder / "recipe.yaml", yaml.safe_load) or {}
    for key in ("data", "test_folds"):
        if recipe.get(key) and not result.metrics.get(key):
            result.metrics[key] = recipe[key]
    found = Evaluation(slug(folder.resolve().name), result, result.data)
    if not found.measured():
        raise ValueError(f"{folder / 'metrics.json'}: expected numbers with intervals, found none")
    return found


def kept_evaluations(folder: str | Path) -> list[Evaluation]:
    """Returns the evaluations in `evaluation/` of a released checkpoint or a bundle.

    Raises:
        ValueError: a file that is not readable.
    """
    results = {path.stem: Result.read(path) for path in sorted(Path(folder, "evaluation").glob("*.json"))}
    return in_order([Evaluation(name, result, result.data) for name, result in results.items()])


def read_result(folder: str | Path) -> Result:
    """Reads `metrics.json` of a folder, without local paths.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable.
    """
    result = Result.read(Path(folder) / "metrics.json")
    return Result(result.kind, without_local_paths(result.metrics))


def in_order(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """As a card shows them: by kind, the ones with all leads before those with fewer."""

    def place(each: Evaluation) -> tuple[int, int, str]:
        leads = each.metrics.get("leads")
        kind = list(TITLES).index(each.result.kind)
        return kind, -leads.count(",") if isinstance(leads, str) else -len(STANDARD_LEADS), each.name

    return sorted(evaluations, key=place)


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
