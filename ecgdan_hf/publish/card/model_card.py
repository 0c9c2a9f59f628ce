"""Model cards: what a checkpoint is, was trained on, achieves and must not be used for.

Every number comes from the checkpoint's own `metrics.json` and from the folders of its further evaluations; what is
not there is listed as missing. Every number from simulated outcomes is marked as such.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from ecgdan_hf.data.sources.registry import card_source
from ecgdan_hf.evaluation.folds import parse_folds
from ecgdan_hf.evaluation.report.subgroup_text import subgroup_text
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.model.configuration_danet import DanetConfig
from ecgdan_hf.model.configuration_ecgdan import ECGDAN_VERSION, EcgDanConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel
from ecgdan_hf.publish.card.attention_text import attention_sentences
from ecgdan_hf.publish.card.carbon import Emissions, time_text
from ecgdan_hf.publish.card.checks import MISSING_KEY, RESEARCH_USE
from ecgdan_hf.publish.card.eval_results import (
    HUB_METRICS,
    PARTS,
    Result,
    further_index,
    is_simulated,
    model_index,
    results,
)
from ecgdan_hf.publish.card.evaluations import METRIC_NAMES, Evaluation
from ecgdan_hf.publish.hub_code import requirements
from ecgdan_hf.publish.verify import pipelines_of

TEMPLATE = Path(__file__).with_name("card_template.md")
PLACEHOLDER_REPOSITORY = "USER/NAME"

FEATURES, OTHER = "feature-extraction", "other"
"""Tasks of the Hub. It knows none for labels or risks of a physiological signal, and would take a classifier that
names none for one of text."""

CONTACT = f"use the Community tab of its repository, https://huggingface.co/{PLACEHOLDER_REPOSITORY}/discussions"

CALLS = {
    "ecg-classification": ("classify", ""),
    "ecg-survival": ("risk_of", ""),
    "zero-shot-ecg-classification": ("name_it", ", top_k=3"),
    "ecg-feature-extraction": ("embed", ""),
}
"""Task -> name of its pipeline in the card, and further arguments of a call."""

VERBS = {"pretraining": "pretrain", "survival": "finetune", "classification": "finetune", "danet": "finetune"}
PAPERS = {"ecg-dan": ("2403.10581", "10.1109/TBDATA.2025.3536922"), "danet": ("2407.18033", None)}
"""arXiv number and DOI of the method; the Hub's paper pages list the models whose cards link arXiv."""

REQUIRED = {
    "data": "the training data; give them with `ecgdan bundle --training-data TEXT`",
    "results": "results on records that it was not trained on; run `ecgdan evaluate` (for an encoder `ecgdan probe`), "
    "then `ecgdan bundle` with `--results` and the folder of that run",
    "groups": "results by sex and age; `ecgdan evaluate` and `ecgdan probe` measure them where the data have `sex` "
    "and `age`; then run `ecgdan bundle` with `--results` and the folder of that run",
}
"""Parts that a published card must have, with the command that makes each, in the order of the card."""

TRAINING_TYPES = {"pretrain": "pre-training", "finetune": "fine-tuning"}


def build_card(
    model: EcgDanPreTrainedModel,
    metrics: Mapping[str, Any] | None,
    recipe: Mapping[str, Any] | None,
    name: str,
    evaluations: Sequence[Evaluation] = (),
    emissions: Emissions | None = None,
    contact: str | None = None,
    training_data: str | None = None,
    base_model: str | None = None,
    dataset_id: str | None = None,
) -> ModelCard:
    """Builds the card of a checkpoint.

    Args:
        model: the checkpoint's model; its configuration is described, its parameters are counted.
        metrics: content of `metrics.json`, None where there is none.
        recipe: content of `recipe.yaml`, None where there is none.
        name: title.
        evaluations: further results, with their controls.
        emissions: estimate of what the run emitted, None for none.
        contact: whom to write to; default the repository's own Community tab.
        training_data: what it was trained on, in words; default what the recipe says of a known source.
        base_model: `OWNER/NAME` on the Hub of the checkpoint it was fine-tuned from.
        dataset_id: `OWNER/NAME` on the Hub of the data; without it the metadata name no dataset.

    Returns:
        A card whose metadata the Hub accepts, with `model-index` where there are results of test records. Required
        parts that nothing was given for are listed in its metadata and named in the text, with the command that makes
        them.
    """
    config: Any = getattr(model.config, "ecg_config", model.config)  # of a dual encoder, its ECG side
    simulated = is_simulated(config, metrics)
    found = list(results(metrics))
    source = card_source((recipe or {}).get("data"))
    data_name = source.title if source else "unknown data"
    data_text = training_data or (source.description if source else "")
    dataset_id = dataset_id or (source.hub_id if source else None)
    head = head_of(model)
    groups = _groups(metrics, evaluations, recipe, data_name, simulated)
    given = {"data": data_text, "results": _is_tested(found, evaluations), "groups": groups}
    required = {part: text for part, text in REQUIRED.items() if not given[part]}
    arxiv, doi = PAPERS["danet" if isinstance(config, DanetConfig) else "ecg-dan"]
    metadata = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        tags=["ecg", "electrocardiogram", "cardiology", "ecgdan", "custom_code", *_tags(model), f"arxiv:{arxiv}"],
        datasets=[dataset_id] if dataset_id else None,
        metrics=_hub_metrics(found, evaluations) or None,
        pipeline_tag=OTHER if head.scores else FEATURES,
        base_model=base_model,
        model_name=name,
        eval_results=model_index(model, found, data_name, simulated)
        + further_index(model, evaluations, data_name, simulated)
        or None,
        **({"base_model_relation": "finetune"} if base_model else {}),
        **_emission_metadata(metrics, emissions),
        **({MISSING_KEY: list(required.values())} if required else {}),
    )
    verb = VERBS.get(str((metrics or {}).get("task")))
    pretrained_on = card_source(((metrics or {}).get("pretraining") or {}).get("data"))
    trained_on = [each for each in dict.fromkeys((source, pretrained_on)) if each]
    return ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        name=name,
        task=head.card_task[1],
        repository=PLACEHOLDER_REPOSITORY,
        auto_class=head.auto_class,
        model_class=type(model).__name__,
        config=config,
        survival=head.is_survival,
        classification=head.is_classifier,
        dual_encoder=config is not model.config,
        duration=(config.num_samples - 2 * config.pad_samples) / config.sampling_rate,
        num_parameters=f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        version=ECGDAN_VERSION,
        simulated=simulated,
        endpoint=getattr(config, "endpoint_text", ""),
        training_data=data_text,
        training_sizes=_sizes(metrics),
        recipe=recipe,
        rows=[(PARTS[result.part], result.name, result.number(simulated)) for result in found] + _unscored(metrics),
        missing=_missing(model, found, evaluations, metrics, emissions),
        evaluations=[(each, _notes(each, recipe, data_name), _rows(each)) for each in evaluations],
        groups=groups,
        required=required,
        arxiv=arxiv,
        doi=doi,
        research_use=RESEARCH_USE,
        contact=contact or CONTACT,
        base=base_model or _base(metrics),
        calls=[(pipeline.serves, *CALLS[pipeline.serves]) for pipeline in pipelines_of(model)],
        requirements=" ".join(f'"{each}"' for each in requirements()),
        attention=[attention_sentences(each.metrics) for each in evaluations if each.is_sanity],
        folds=_folds(recipe),
        verb=verb,
        time=time_text(metrics),
        emissions=emissions,
        sources=trained_on,
        what=_what(model),
        rule=_rule(config),
        pretraining=_pretraining_text(metrics),
        reasons=[(PARTS[part], metrics[part]["not_estimable"]) for part in _reasons(metrics)] if metrics else [],
        labels=_label_rows(config) if head.is_classifier else [],
    )


def _is_tested(found: list[Result], evaluations: Sequence[Evaluation]) -> bool:
    """Tells whether there are results on records that were not used in training."""
    return any(result.part == "test" for result in found) or any(not each.is_sanity for each in evaluations)


def _groups(
    metrics: Mapping[str, Any] | None,
    evaluations: Sequence[Evaluation],
    recipe: Mapping[str, Any] | None,
    data_name: str,
    simulated: bool,
) -> list[tuple[str, str, str]]:
    """Returns title, records and results by sex and age, for the run's own test part and for each evaluation."""
    found = (metrics or {}).get("subgroups")
    own = [("Test records of the run", "", subgroup_text(found, simulated))] if found else []
    further = [(each.title, _notes(each, recipe, data_name), each.groups) for each in evaluations]
    return own + [entry for entry in further if entry[-1]]


def _base(metrics: Mapping[str, Any] | None) -> str:
    """Name of the checkpoint it was fine-tuned from; empty where it began with random weights."""
    start = str((metrics or {}).get("checkpoint") or "")
    return "" if start == "random weights" else start


def _what(model: EcgDanPreTrainedModel) -> str:
    """The network in words."""
    if isinstance(model.config, DanetConfig):
        words = {"soft": "a waveform module that learns where to look, in front of", "none": "(without its module)"}
        words["hard"] = "weights of the waves under a rule, in front of"
        network = {"ecgdan": "the dual attention network", "resnet1d": "a residual network"}
        return f"DANet, {words[model.config.waveform_module]} {network[model.config.classifier_network]}"
    return "a dual attention network for the 12-lead ECG (ECG-DAN)"


def _rule(config: EcgDanConfig) -> str:
    """The waveform rule as YAML; empty for networks without one."""
    rule = getattr(config, "waveform_rule", None)
    used = rule and getattr(config, "waveform_module", "none") != "none"
    return yaml.safe_dump(rule, sort_keys=False, default_flow_style=None).strip() if used else ""


def _pretraining_text(metrics: Mapping[str, Any] | None) -> str:
    """Describes the pretraining data of a fine-tuned network; empty where they were not recorded."""
    found = (metrics or {}).get("pretraining")
    if not found:
        return ""
    source = card_source(found.get("data"))
    data = source.description or source.title if source else "data that were not recorded"
    folds = f", folds {found['train_folds']}" if found.get("train_folds") else ""
    made = (
        f", {found['simulated_records']:,} records simulated from" if found.get("pretext") == "simulated-beats" else ""
    )
    return f"Pretrained without labels ({found.get('pretext', found.get('task'))}){made}: {data}{folds}."


def _hub_metrics(found: list[Result], evaluations: Sequence[Evaluation]) -> list[str]:
    """Returns the metrics by which the Hub lists models; losses and diagnostics are only in the card's table."""
    names = {result.path[-1] for result in found} | {str(each.metrics.get("metric")) for each in evaluations}
    return sorted({HUB_METRICS[name] for name in names & HUB_METRICS.keys()})


def _notes(evaluation: Evaluation, recipe: Mapping[str, Any] | None, data_name: str) -> str:
    """Describes the records of an evaluation, and whether the epoch was chosen on them."""
    counts, said = evaluation.metrics, []
    for key, word in (("num_records", "records"), ("num_patients", "patients")):
        if isinstance(counts.get(key), int):
            said.append(f"{counts[key]:,} {word}")
    if evaluation.folds:
        said.append(evaluation.split)
    elif isinstance(counts.get("valid"), Mapping) and "test" not in counts:
        said.append("validation part (the epoch was chosen on it: optimistic)")
    chosen = set(parse_folds((recipe or {}).get("valid_folds"), "recipe: valid_folds") or ())
    chosen &= set(parse_folds(evaluation.folds or None, f"{evaluation.name}: test_folds") or ())
    source = card_source(evaluation.data)
    same_data = evaluation.data is None or (source is not None and source.title == data_name)
    if chosen and same_data:
        said.append("the epoch was chosen on these records" + ("" if evaluation.is_sanity else ": optimistic"))
    if counts.get("simulated_outcome"):
        said.append("**simulated outcome**")
    return "; ".join(said)


def _rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    simulated = ", simulated outcome" if evaluation.metrics.get("simulated_outcome") else ""
    metric = METRIC_NAMES.get(str(evaluation.metrics.get("metric")), "value")
    return [
        (name or metric, value + simulated, ahead) for name, value, ahead in (x.row for x in evaluation.measured())
    ]


def _folds(recipe: Mapping[str, Any] | None) -> str:
    """Folds of training, of choosing the epoch, and of the test, in words."""
    parts = {"train_folds": "trained on", "valid_folds": "epoch chosen on", "test_folds": "tested on"}
    return ", ".join(f"{word} {recipe[key]}" for key, word in parts.items() if recipe and recipe.get(key))


def _emission_metadata(metrics: Mapping[str, Any] | None, emissions: Emissions | None) -> dict[str, Any]:
    if emissions is None:
        return {}
    verb = VERBS.get(str((metrics or {}).get("task")), "")
    entry = {
        "emissions": round(emissions.grams, 3),
        "source": f"estimate, {emissions.assumptions}",
        "training_type": TRAINING_TYPES.get(verb, "training"),
        "hardware_used": str(((metrics or {}).get("hardware") or {}).get("device", "not recorded")),
    }
    return {"co2_eq_emissions": entry}


def _missing(
    model: EcgDanPreTrainedModel,
    found: list[Result],
    evaluations: Sequence[Evaluation],
    metrics: Mapping[str, Any] | None,
    emissions: Emissions | None,
) -> list[str]:
    """Required parts of a card that nothing was given for."""
    tested = {key for result in found if result.part == "test" for key in result.path}
    tested |= {name for each in evaluations for name in _covered(each)}
    absent = [text for key, text in head_of(model).expected_results.items() if key not in tested]
    if head_of(model).task == "pretraining":
        kinds = {each.result.kind for each in evaluations}
        probed = kinds & {"probe", "label-efficiency"}
        absent += [] if probed else ["linear probe with a random encoder as control (`ecgdan probe`)"]
        if model.config.prompt_labels and "zero-shot" not in kinds:
            absent.append("zero-shot results and their controls (`ecgdan probe --zero-shot`)")
    if not any(each.is_sanity for each in evaluations):
        absent.append("test of the attention maps (`ecgdan sanity`)")
    if not (metrics or {}).get("seconds"):
        absent.append("training time")
    return absent if emissions else [*absent, "energy and carbon"]


def _covered(evaluation: Evaluation) -> list[str]:
    """Expected parts that a further evaluation holds, controls by the names the verbs give them."""
    names = " ".join(key for number in evaluation.measured() for key in number.path)
    given = {"age and sex": "age_sex", "random encoder": "random_encoder"}
    found = [key for words, key in given.items() if words in names]
    held_out = [str(evaluation.metrics.get("metric"))] if evaluation.result.kind in ("held-out", "repeated-cv") else []
    return found + held_out + (["calibration"] if evaluation.metrics.get("calibration") else [])


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
    return [head_of(model).card_task[0]]


def _label_rows(config: EcgDanConfig) -> list[tuple[str, str]]:
    thresholds = config.thresholds or {}
    return [
        (name, f"{thresholds[name]:.3f}" if name in thresholds else "0.5 (not chosen)")
        for _, name in sorted(config.id2label.items())
    ]
