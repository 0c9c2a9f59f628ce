"""Model cards: what a checkpoint is, was trained on, achieves and must not be used for.

Every number comes from the checkpoint's own `metrics.json` and from the folders of its further evaluations; what is
not there is listed as missing. Every number from simulated outcomes is marked as such.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ecgdan_hf.model.configuration_ecgdan import ECGDAN_VERSION
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel
from ecgdan_hf.publish.card.checks import MISSING_KEY, RESEARCH_USE
from ecgdan_hf.publish.card.evaluations import Evaluation
from ecgdan_hf.publish.card.facts import WORLD_GCO2_PER_KWH, CardFacts
from ecgdan_hf.publish.hub_code import HubCode
from ecgdan_hf.publish.verify import pipelines_of

PLACEHOLDER_REPOSITORY = "USER/NAME"

_CODE_BLOCK = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")

_TEMPLATE = Path(__file__).with_name("card_template.md")
_CONTACT = f"use the Community tab of its repository, https://huggingface.co/{PLACEHOLDER_REPOSITORY}/discussions"

_CALLS = {
    "ecg-classification": "classify",
    "ecg-survival": "risk_of",
    "zero-shot-ecg-classification": "name_it",
    "ecg-feature-extraction": "embed",
}
"""Task -> name of its pipeline in the card."""

_PAPERS = {"ecgdan": ("2403.10581", "10.1109/TBDATA.2025.3536922"), "danet": ("2407.18033", None)}
"""Type of the model -> arXiv number and DOI; the Hub's paper pages list the models whose cards link arXiv."""

_REQUIRED = {
    "data": "the training data; give them with `ecgdan bundle --training-data TEXT`",
    "results": "results on records that it was not trained on; run `ecgdan evaluate` (for an encoder `ecgdan probe`), "
    "then `ecgdan bundle` with `--results` and the folder of that run",
    "groups": "results by sex and age; `ecgdan evaluate` and `ecgdan probe` measure them where the data have `sex` "
    "and `age`; then run `ecgdan bundle` with `--results` and the folder of that run",
}
"""Parts that a published card must have, with the command that makes each, in the order of the card."""


def build_card(
    model: EcgDanPreTrainedModel,
    metrics: Mapping[str, Any] | None,
    recipe: Mapping[str, Any] | None,
    name: str,
    evaluations: Sequence[Evaluation] = (),
    power_watts: float | None = None,
    grid_gco2_per_kwh: float = WORLD_GCO2_PER_KWH,
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
        power_watts: power of the hardware that training kept busy, for an estimate of its energy; None makes none.
        grid_gco2_per_kwh: carbon intensity of the electricity.
        contact: whom to write to; default the repository's own Community tab.
        training_data: what it was trained on, in words; default what the recipe says of a known source.
        base_model: `OWNER/NAME` on the Hub of the checkpoint it was fine-tuned from.
        dataset_id: `OWNER/NAME` on the Hub of the data; without it the metadata name no dataset.

    Returns:
        A card whose metadata the Hub accepts, with `model-index` where there are results of test records. Required
        parts that nothing was given for are listed in its metadata and named in the text, with the command that makes
        them.

    Raises:
        ValueError: a power or an intensity that is not positive.
    """
    facts = CardFacts(model, metrics or {}, recipe or {}, evaluations, power_watts, grid_gco2_per_kwh)
    config = facts.config
    data_text = training_data or (facts.source.description if facts.source else "")
    given = {"data": data_text, "results": facts.is_tested, "groups": facts.groups}
    required = {part: text for part, text in _REQUIRED.items() if not given[part]}
    arxiv, doi = _PAPERS["danet" if config.model_type == "danet" else "ecgdan"]
    card: ModelCard = ModelCard.from_template(
        _metadata(facts, name, arxiv, required, base_model, dataset_id),
        template_path=str(_TEMPLATE),
        facts=facts,
        name=name,
        repository=PLACEHOLDER_REPOSITORY,
        model_class=type(model).__name__,
        config=config,
        survival=facts.head.is_survival,
        classification=facts.head.is_classifier,
        dual_encoder=config is not model.config,
        duration=(config.num_samples - 2 * config.pad_samples) / config.sampling_rate,
        num_parameters=f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        version=ECGDAN_VERSION,
        endpoint=", ".join([getattr(config, "endpoint_text", ""), *list(getattr(config, "endpoint_names", []))[1:]]),
        training_data=data_text,
        required=required,
        arxiv=arxiv,
        doi=doi,
        research_use=RESEARCH_USE,
        contact=contact or _CONTACT,
        base=base_model or facts.base,
        calls=[(pipeline.serves, _CALLS[pipeline.serves]) for pipeline in pipelines_of(model)],
        requirements=" ".join(f'"{each}"' for each in HubCode().requirements()),
    )
    card.text = _without_html(card.text)
    return card


def _without_html(text: str) -> str:
    """Shows tags as text, outside code: labels and endpoints are other people's, and the template has no tag."""
    parts = _CODE_BLOCK.split(text)
    return "".join(part if number % 2 else _TAG.sub("&lt;", part) for number, part in enumerate(parts))


def _metadata(
    facts: CardFacts,
    name: str,
    arxiv: str,
    required: Mapping[str, str],
    base_model: str | None,
    dataset_id: str | None,
) -> ModelCardData:
    dataset_id = dataset_id or (facts.source.hub_id if facts.source else None)
    tags = ["ecg", "electrocardiogram", "cardiology", "ecgdan", "custom_code", facts.head.card_task[0]]
    further: dict[str, Any] = {"base_model_relation": "finetune"} if base_model else {}
    further |= {"co2_eq_emissions": facts.emissions} if facts.emissions else {}
    further |= {MISSING_KEY: list(required.values())} if required else {}
    return ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        tags=[*tags, f"arxiv:{arxiv}"],
        datasets=[dataset_id] if dataset_id else None,
        metrics=facts.hub_metrics or None,
        # the Hub has no task for labels or risks of a signal, and takes a classifier without a task for one of text
        pipeline_tag="other" if facts.head.scores else "feature-extraction",
        base_model=base_model,
        model_name=name,
        eval_results=facts.model_index or None,
        **further,
    )
