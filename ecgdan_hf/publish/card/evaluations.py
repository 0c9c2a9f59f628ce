"""Results of a checkpoint for its card: of its own training run, and of further evaluations.

Both are read from the folders that verbs wrote (`evaluation.result`). Numbers of controls are marked: they are not
results of the model. Paths of this machine are replaced by their last part, the data folder by its source's name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from ecgdan_hf.evaluation.folds import recipe_of
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
HUB_METRICS = {"macro_auroc": "roc_auc", "auroc": "roc_auc", "AUROC": "roc_auc", "auprc": "average_precision"}
HUB_METRICS |= {"f1": "f1", "F1": "f1", "concordance_index": "concordance_index"}
"""Metrics by which the Hub lists models."""
PARTS = {"test": "test", "valid": "validation (the epoch was chosen on it: optimistic)"}

_UNNAMED = ("models", "labels", "levels", "controls", "label_fractions", "test")
_CONTROLS = ("controls", "permuted_prompts", "highest_on_beat_chance", "beats_found_chance")
_NOT_RESULTS = ("num_negatives", "num_labels", "num_labels_estimable", "threshold", "num_patients")
_MAX_LABELS = 10
"""A card shows the results of single labels up to this many; those of more are in the file in `evaluation/`."""
_LOCAL_PATHS = ("output_dir", "cache_dir", "checkpoint", "labels", "prompts", "control", "teachers")
"""Entries of recipes and metrics that may hold paths of one machine."""

_TITLES = {
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

_Span = tuple[float, float | None, float | None]


@dataclass(frozen=True)
class Number:
    """One number of a result.

    Attributes:
        path: keys that lead to it; for a training run, without its part.
        value, low, high: the number and, where there is one, its interval.
        ahead: how far the model is ahead of this control, where that was measured.
        is_control: whether the number is another model's, or reached by chance.
        part: of a training run, "test" or "valid".
    """

    path: tuple[str, ...]
    value: float
    low: float | None = None
    high: float | None = None
    ahead: _Span | None = None
    is_control: bool = False
    part: str = ""

    @staticmethod
    def metric_id(key: str) -> str:
        """Returns the Hub's name of a metric; our own, as metadata may hold it, where the Hub has none."""
        return HUB_METRICS.get(key, _slug(key))

    @classmethod
    def of_run(cls, node: Any, part: str, path: tuple[str, ...] = ()) -> "Iterator[Number]":
        """Yields every number of one part of a training run, with or without an interval."""
        if isinstance(node, Mapping) and isinstance(node.get("estimate"), int | float):
            yield cls(path, float(node["estimate"]), node.get("low"), node.get("high"), part=part)
        elif isinstance(node, Mapping):
            for key, value in node.items():
                if key not in _NOT_RESULTS:
                    yield from cls.of_run(value, part, (*path, str(key)))
        elif isinstance(node, int | float) and not isinstance(node, bool) and path:
            yield cls(path, float(node), part=part)

    @property
    def words(self) -> str:
        """The keys in words."""
        said = []
        for before, key in zip((None, *self.path), self.path, strict=False):
            if before == "label_fractions":
                said.append(f"{100 * float(key):g} % of the labels")
            elif key not in _UNNAMED:
                said.append(METRIC_NAMES.get(key, key.replace("_", " ")))
        return ", ".join(said)

    @property
    def text(self) -> str:
        """The number with its interval."""
        if self.is_count and self.low is None:
            return f"{self.value:g}"
        return _span_text((self.value, self.low, self.high), signed=self.path[-1].startswith("area_over"))

    @property
    def ahead_text(self) -> str:
        """The model's lead with its interval; empty where it was not measured."""
        return _span_text(self.ahead, signed=True) if self.ahead else ""

    @property
    def is_count(self) -> bool:
        """Whether it counts or describes records and is no measure of quality."""
        return self.path[-1].startswith("num_") or self.path[-1] == "median_follow_up_years"

    @property
    def is_the_models(self) -> bool:
        """Whether it measures the model, and not the records, a control, or the best that any model could reach."""
        return not (self.is_control or self.is_count or self.path[-1] == "attainable_concordance_index")


@dataclass(frozen=True)
class CheckpointRun:
    """The training run of a checkpoint, without local paths; None for a file that is not there."""

    result: Result | None
    recipe: dict[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> "CheckpointRun":
        """Reads the folder of a checkpoint; raises ValueError for a file that is not readable."""
        return cls(_result(folder) if (folder / "metrics.json").is_file() else None, _recipe(folder))

    def write(self, folder: Path) -> None:
        """Writes the files that there are."""
        if self.result is not None:
            self.result.write(folder)
        if self.recipe is not None:
            text = yaml.safe_dump(self.recipe, sort_keys=False)
            (folder / "recipe.yaml").write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Evaluation:
    """One further result of a checkpoint.

    Attributes:
        name: of its folder; the numbers are published as `evaluation/NAME.json`.
        result: what a verb wrote, without local paths.
    """

    name: str
    result: Result

    @classmethod
    def read(cls, folder: str | Path) -> "Evaluation":
        """Reads the folder that a verb wrote its result to; ValueError if no number in it has an interval."""
        folder = Path(folder)
        result, recipe = _result(folder), _recipe(folder) or {}
        for key in ("data", "test_folds"):
            if recipe.get(key) and not result.metrics.get(key):
                result.metrics[key] = recipe[key]
        found = cls(_slug(folder.resolve().name), result)
        if not found.numbers():
            raise ValueError(f"{folder / 'metrics.json'}: expected numbers with intervals, found none")
        return found

    @classmethod
    def gather(cls, checkpoint: Path, folders: Sequence[str | Path]) -> "list[Evaluation]":
        """Reads these folders and the evaluations that a released checkpoint carries, in the order of a card.

        A folder replaces the carried evaluation of the same name; two folders of the same name raise ValueError. The
        order is by kind, then all leads before fewer.
        """
        given = [cls.read(folder) for folder in folders]
        names = [each.name for each in given]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"results: expected folders of different names, got {twice} more than once; rename one")
        carried = [path for path in (checkpoint / "evaluation").glob("*.json") if path.stem not in names]
        return sorted([*given, *(cls(path.stem, Result.read(path)) for path in carried)], key=cls._place)

    def _place(self) -> tuple[int, int, str]:
        leads = self.metrics.get("leads")
        number = leads.count(",") if isinstance(leads, str) else len(STANDARD_LEADS)
        return list(_TITLES).index(self.result.kind), -number, self.name

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of the result."""
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
    def metric(self) -> str:
        """The metric in words."""
        return METRIC_NAMES.get(str(self.metrics.get("metric")), "value")

    @property
    def title(self) -> str:
        """The kind in words, and the leads that the network was given where it was not given all."""
        task = {"survival": "survival"}.get(str(self.metrics.get("task")), "classification")
        title = self.metrics.get("title") or _TITLES[self.result.kind].format(task=task)
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

    def numbers(self) -> list[Number]:
        """Returns every number with an interval; those of single labels only where the labels are few.

        Of a run, the test part; the validation part where there is no test. Of a benchmark, the variant `as_recipes`.
        """
        if self.result.kind == "benchmark":
            return list(_intervals(self.metrics.get("variants", {}).get(self.metrics.get("as_recipes"), {}), ()))
        parts = [part for part in ("test", "valid") if isinstance(self.metrics.get(part), Mapping)]
        if parts:
            return list(_intervals(self.metrics[parts[0]], () if parts[0] == "test" else ("validation",)))
        return list(_intervals(self.metrics, ()))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "_", text.lower()).strip("_") or "results"


def _intervals(node: Any, path: tuple[str, ...], is_control: bool = False) -> Iterator[Number]:
    if not isinstance(node, Mapping):
        return
    span = _span(node)
    if span is not None:
        yield Number(path, *span, ahead=_span(node.get("ahead")), is_control=is_control)
        return
    first = next(iter(node), None)
    for key, value in node.items():
        other = is_control or key in _CONTROLS or (path[-1:] == ("models",) and key != first)
        if key == "subgroups" or (key == "labels" and isinstance(value, Mapping) and len(value) > _MAX_LABELS):
            continue
        yield from _intervals(value, (*path, str(key)), other)


def _span(node: Any) -> _Span | None:
    """Returns value and limits of an interval, in any of the forms the verbs write."""
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


def _span_text(span: _Span, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    value, low, high = span
    return f"{value:{form}}" if low is None or high is None else f"{value:{form}} ({low:{form}} to {high:{form}})"


def _result(folder: Path) -> Result:
    result = Result.read(folder / "metrics.json")
    return Result(result.kind, _without_local_paths(result.metrics))


def _recipe(folder: Path) -> dict[str, Any] | None:
    recipe = recipe_of(str(folder))
    return None if recipe is None else dict(_without_local_paths(recipe))


def _without_local_paths(content: Any, key: str = "") -> Any:
    """Replaces every path of this machine by its last part."""
    if isinstance(content, Mapping):
        inner = {name: key if key == "control" else str(name) for name in content}
        public = {name: _without_local_paths(value, inner[name]) for name, value in content.items()}
        # the folder's name may be a hospital's; the source's name stands for it
        return public | ({"data_dir": content.get("data")} if content.get("data_dir") else {})
    if isinstance(content, list):
        return [_without_local_paths(value, key) for value in content]
    if not isinstance(content, str):
        return content
    if key in _LOCAL_PATHS:
        return ",".join(PureWindowsPath(part).name for part in content.split(","))  # takes both kinds of slashes
    is_path = Path(content).is_absolute() or PureWindowsPath(content).is_absolute()
    return PureWindowsPath(content).name if is_path else content
