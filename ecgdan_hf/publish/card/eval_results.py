"""Results as `model-index` of a card's metadata.

Only results of the model itself on test records, or on those a further evaluation judged; controls stand in the card.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult

from ecgdan_hf.data.sources.registry import card_source
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel
from ecgdan_hf.publish.card.evaluations import METRIC_NAMES, Evaluation, slug

PARTS = {"test": "test", "valid": "validation (the epoch was chosen on it: optimistic)"}

HUB_METRICS = {"macro_auroc": "roc_auc", "auroc": "roc_auc", "AUROC": "roc_auc", "auprc": "average_precision"}
HUB_METRICS |= {"f1": "f1", "F1": "f1", "concordance_index": "concordance_index"}
"""What the Hub lists models by."""

NOT_RESULTS = ("num_negatives", "num_labels", "num_labels_estimable", "threshold", "num_patients")


@dataclass(frozen=True)
class Result:
    """One number of `metrics.json`.

    Attributes:
        part: "test" or "valid".
        path: keys from the part to the number.
        value, low, high: the number and, where there is one, its interval.
    """

    part: str
    path: tuple[str, ...]
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def name(self) -> str:
        """The metric in words."""
        return ", ".join(METRIC_NAMES.get(key, key.replace("_", " ")) for key in self.path if key != "labels")

    @property
    def is_count(self) -> bool:
        """Whether the number counts or describes records and is no measure of quality."""
        return self.path[-1].startswith("num_") or self.path[-1] == "median_follow_up_years"

    @property
    def is_the_models(self) -> bool:
        """Whether it measures the model, and not the records or the best that any model could reach."""
        return not self.is_count and self.path[-1] != "attainable_concordance_index"

    def number(self, simulated: bool) -> str:
        """The number with its interval, and with the word "simulated" where it must not be read without."""
        text = f"{self.value:g}" if self.is_count else f"{self.value:.3f}"
        if self.low is not None and self.high is not None:
            text += f" ({self.low:.3f} to {self.high:.3f})"
        return f"{text}, simulated outcome" if simulated else text


def results(metrics: Mapping[str, Any] | None) -> Iterator[Result]:
    """Every number of the test and validation parts of `metrics.json`, test first."""
    for part in PARTS:
        yield from _walk((metrics or {}).get(part), part, ())


def _metric_id(key: str) -> str:
    """The Hub's name of a metric, by which it lists results; our own where the Hub has none."""
    return HUB_METRICS.get(key, slug(key))


def is_simulated(config: EcgDanConfig, metrics: Mapping[str, Any] | None) -> bool:
    """Whether the outcome was simulated: said by either the configuration or the metrics."""
    return bool(getattr(config, "simulated_outcome", False) or (metrics or {}).get("simulated_outcome"))


def model_index(
    model: EcgDanPreTrainedModel, found: list[Result], data_name: str, simulated: bool
) -> list[EvalResult]:
    """The test results of `metrics.json`."""
    task_type, task_name = head_of(model).card_task
    suffix = ", simulated outcomes" if simulated else ""
    return [
        EvalResult(
            task_type=task_type,
            task_name=task_name + suffix,
            dataset_type=data_name.lower().replace(" ", "-"),
            dataset_name=data_name + suffix,
            dataset_split="test",
            metric_type=_metric_id(result.path[-1]),
            metric_name=result.name + suffix,
            metric_value=round(result.value, 4),
        )
        for result in found
        if result.part == "test" and result.is_the_models
    ]


def further_index(
    model: EcgDanPreTrainedModel, evaluations: Sequence[Evaluation], data_name: str, simulated: bool
) -> list[EvalResult]:
    """The results of further evaluations."""
    task_type, task_name = head_of(model).card_task
    found = []
    for each in evaluations:
        if each.is_sanity:  # of the maps, and no measure of how good the model is
            continue
        source = card_source(each.data)
        of_folder = source.title if source else data_name
        metric = METRIC_NAMES.get(str(each.metrics.get("metric")), "value")
        suffix = ", simulated outcomes" if simulated or each.metrics.get("simulated_outcome") else ""
        found += [
            EvalResult(
                task_type=task_type,
                task_name=task_name + suffix,
                dataset_type=of_folder.lower().replace(" ", "-"),
                dataset_name=of_folder + suffix,
                dataset_split=each.split,
                metric_type=_metric_id(_metric_key(each, number.path)),
                metric_name=f"{each.title}: {number.words or metric}{suffix}",
                metric_value=round(number.value, 4),
            )
            for number in each.measured()
            if not number.is_control
        ]
    return found


def _walk(node: Any, part: str, path: tuple[str, ...]) -> Iterator[Result]:
    if isinstance(node, Mapping) and isinstance(node.get("estimate"), int | float):
        yield Result(part, path, float(node["estimate"]), node.get("low"), node.get("high"))
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if key not in NOT_RESULTS:
                yield from _walk(value, part, (*path, str(key)))
    elif isinstance(node, int | float) and not isinstance(node, bool) and path:
        yield Result(part, path, float(node))


def _metric_key(evaluation: Evaluation, path: tuple[str, ...]) -> str:
    """Key of the metric: the last of the path, or the evaluation's own where that is the name of a model."""
    return path[-1] if path[-1] in METRIC_NAMES else str(evaluation.metrics.get("metric") or path[-1])
