"""Model cards: what a checkpoint is, was trained on, achieves and must not be used for.

Every number comes from the checkpoint's own `metrics.json`; what is not there is listed as missing. A number measured
on simulated outcomes says so beside the number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from ecgdan_hf.evaluation.prediction import endpoint_text
from ecgdan_hf.model.configuration_ecgdan import ECGDAN_VERSION, EcgDanConfig
from ecgdan_hf.model.modeling_ecgdan import (
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanPreTrainedModel,
)
from ecgdan_hf.publish.verify import AUTO_CLASSES

TEMPLATE = Path(__file__).with_name("card_template.md")
PLACEHOLDER_REPOSITORY = "USER/NAME"

TASKS: dict[type[EcgDanPreTrainedModel], tuple[str, str]] = {
    EcgDanForSurvival: ("survival-analysis", "time to an event"),
    EcgDanForSequenceClassification: ("ecg-classification", "multi-label classification"),
    EcgDanForPreTraining: ("ecg-pretraining", "self-supervised pretraining"),
}

PARTS = {"test": "test", "valid": "validation (the epoch was chosen on it: optimistic)"}

METRIC_NAMES = {
    "concordance_index": "C-index (Harrell)",
    "attainable_concordance_index": "C-index of the true hazard (the best attainable)",
    "macro_auroc": "macro AUROC",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1 at the stored threshold",
    "age_sex": "age and sex alone (Cox)",
    "random_encoder": "random encoder (ridge Cox)",
    "num_records": "records",
    "num_events": "events",
    "num_positives": "records with the label",
    "median_follow_up_years": "median follow-up, years",
}

NOT_RESULTS = ("num_negatives", "num_labels", "num_labels_estimable", "threshold", "num_patients")

EXPECTED: dict[type[EcgDanPreTrainedModel], dict[str, str]] = {
    EcgDanForSurvival: {
        "concordance_index": "C-index on test patients",
        "age_sex": "comparison with age and sex alone",
        "random_encoder": "comparison with a random encoder",
        "calibration": "calibration of the absolute risks",
    },
    EcgDanForSequenceClassification: {
        "macro_auroc": "macro AUROC on test patients",
        "random_encoder": "comparison with a random encoder",
    },
    EcgDanForPreTraining: {"reconstruction_loss": "reconstruction loss on test patients"},
}

DATA: dict[str, tuple[str, str]] = {
    "ptb-xl": (
        "PTB-XL",
        "PTB-XL, 12-lead ECGs of 10 s from Germany, 1989 to 1996 (PhysioNet, CC BY 4.0; Wagner et al. 2020)",
    ),
    "synthetic": ("synthetic ECGs", "synthetic ECGs drawn by this package; no patient is behind them"),
    "wfdb": ("WFDB recordings", "recordings of the person who trained it, in WFDB format; describe them here"),
    "csv": ("own recordings", "recordings of the person who trained it, listed in a table; describe them here"),
}


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

    def number(self, simulated: bool) -> str:
        """The number with its interval, and with the word "simulated" where it must not be read without."""
        text = f"{self.value:g}" if self.is_count else f"{self.value:.3f}"
        if self.low is not None and self.high is not None:
            text += f" ({self.low:.3f} to {self.high:.3f})"
        return f"{text}, simulated outcome" if simulated else text


def build_card(
    model: EcgDanPreTrainedModel, metrics: Mapping[str, Any] | None, recipe: Mapping[str, Any] | None, name: str
) -> ModelCard:
    """The card of a checkpoint.

    Args:
        model: the checkpoint's model; its configuration is described, its parameters are counted.
        metrics: content of `metrics.json`, None where there is none.
        recipe: content of `recipe.yaml`, None where there is none.
        name: title.

    Returns:
        A card whose metadata huggingface_hub accepts, with `model-index` where there are test results.
    """
    config: Any = getattr(model.config, "ecg_config", model.config)  # of a dual encoder, its ECG side
    simulated = is_simulated(config, metrics)
    found = list(results(metrics))
    data_name, data_text = DATA.get(
        str((recipe or {}).get("data")), ("unknown data", "not recorded; describe it here")
    )
    _, task = TASKS.get(type(model), ("feature-extraction", "embedding of ECGs"))
    metadata = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        tags=["ecg", "electrocardiogram", "cardiology", "ecgdan", "custom_code", *_tags(model)],
        datasets=["ptb-xl"] if data_name == "PTB-XL" else None,
        metrics=sorted({result.path[-1] for result in found if not result.is_count}) or None,
        model_name=name,
        eval_results=_model_index(model, found, data_name, simulated) or None,
    )
    return ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        name=name,
        task=task,
        repository=PLACEHOLDER_REPOSITORY,
        auto_class=AUTO_CLASSES[type(model)],
        model_class=type(model).__name__,
        config=config,
        survival=isinstance(model, EcgDanForSurvival),
        classification=isinstance(model, EcgDanForSequenceClassification),
        duration=(config.num_samples - 2 * config.pad_samples) / config.sampling_rate,
        num_parameters=f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        version=ECGDAN_VERSION,
        simulated=simulated,
        endpoint=endpoint_text(config),
        training_data=data_text,
        training_sizes=_sizes(metrics),
        recipe=recipe,
        rows=[(PARTS[result.part], result.name, result.number(simulated)) for result in found] + _unscored(metrics),
        missing=_missing(model, found),
        reasons=[(PARTS[part], metrics[part]["not_estimable"]) for part in _reasons(metrics)] if metrics else [],
        labels=_label_rows(config) if isinstance(model, EcgDanForSequenceClassification) else [],
    )


def results(metrics: Mapping[str, Any] | None) -> Iterator[Result]:
    """Every number of the test and validation parts of `metrics.json`, test first."""
    for part in PARTS:
        yield from _walk((metrics or {}).get(part), part, ())


def eval_results(model: EcgDanPreTrainedModel, metrics: Mapping[str, Any], dataset_id: str) -> list[dict[str, Any]]:
    """The test results in the Hub's `.eval_results/*.yaml` format.

    Args:
        model: the checkpoint's model.
        metrics: content of `metrics.json`.
        dataset_id: `OWNER/NAME` of the evaluation data on the Hub.
    """
    simulated = is_simulated(model.config, metrics)
    entries = [
        EvalResultEntry(
            dataset_id=dataset_id,
            task_id="_".join(result.path),
            value=result.value,
            notes=f"{result.name}: {result.number(simulated)}",
        )
        for result in results(metrics)
        if result.part == "test" and not result.is_count
    ]
    return eval_result_entries_to_yaml(entries)


def is_simulated(config: EcgDanConfig, metrics: Mapping[str, Any] | None) -> bool:
    """Whether the outcome was simulated: said by either the configuration or the metrics."""
    return bool(getattr(config, "simulated_outcome", False) or (metrics or {}).get("simulated_outcome"))


def _walk(node: Any, part: str, path: tuple[str, ...]) -> Iterator[Result]:
    if isinstance(node, Mapping) and isinstance(node.get("estimate"), int | float):
        yield Result(part, path, float(node["estimate"]), node.get("low"), node.get("high"))
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if key not in NOT_RESULTS:
                yield from _walk(value, part, (*path, str(key)))
    elif isinstance(node, int | float) and not isinstance(node, bool) and path:
        yield Result(part, path, float(node))


def _model_index(
    model: EcgDanPreTrainedModel, found: list[Result], data_name: str, simulated: bool
) -> list[EvalResult]:
    task_type, task_name = TASKS.get(type(model), ("feature-extraction", "embedding of ECGs"))
    suffix = ", simulated outcomes" if simulated else ""
    return [
        EvalResult(
            task_type=task_type,
            task_name=task_name + suffix,
            dataset_type=data_name.lower().replace(" ", "-"),
            dataset_name=data_name + suffix,
            dataset_split="test",
            metric_type="_".join(result.path),
            metric_name=result.name + suffix,
            metric_value=round(result.value, 4),
        )
        for result in found
        if result.part == "test" and not result.is_count
    ]


def _missing(model: EcgDanPreTrainedModel, found: list[Result]) -> list[str]:
    tested = {key for result in found if result.part == "test" for key in result.path}
    return [text for key, text in EXPECTED.get(type(model), {}).items() if key not in tested]


def _reasons(metrics: Mapping[str, Any]) -> list[str]:
    return [part for part in PARTS if isinstance(metrics.get(part), Mapping) and "not_estimable" in metrics[part]]


def _unscored(metrics: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Labels that had no positives or no negatives, so that nobody takes the macro average for one over all labels."""
    parts = {part: (metrics or {}).get(part) for part in PARTS}
    named = {part: found.get("labels_not_estimable") for part, found in parts.items() if isinstance(found, Mapping)}
    return [(PARTS[part], "labels without AUROC", ", ".join(labels)) for part, labels in named.items() if labels]


def _sizes(metrics: Mapping[str, Any] | None) -> str:
    sizes = (metrics or {}).get("num_records")
    if not isinstance(sizes, Mapping):
        return ""
    return ", ".join(f"{count:,} {part}" for part, count in sizes.items())


def _tags(model: EcgDanPreTrainedModel) -> list[str]:
    return [TASKS[type(model)][0]] if type(model) in TASKS else ["feature-extraction"]


def _label_rows(config: EcgDanConfig) -> list[tuple[str, str]]:
    thresholds = config.thresholds or {}
    return [
        (name, f"{thresholds[name]:.3f}" if name in thresholds else "0.5 (not chosen)")
        for _, name in sorted(config.id2label.items())
    ]
