"""Checks without a network that a model card says what it must before it is published.

`build_card` lists the required parts that nothing was given for in the metadata, under `ecgdan_missing`. This list and
the headings are checked, so that edited cards can be checked too. The Hub's own check (`/api/validate-yaml`, which
`ModelCard.validate` asks) needs a network and publishes no schema. The rules here are the documented ones (hub-docs:
modelcard.md, model-cards.md, repositories-licenses.md; huggingface.js: tasks/pipelines.ts) and the quoted patterns.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

_logger = logging.getLogger(__name__)

SECTIONS = (
    "Use",
    "Input",
    "Intended use",
    "Training data",
    "Results",
    "By sex and age",
    "Limits",
    "What the attention maps say",
    "Carbon and time",
    "Licence",
    "Contact",
    "Citation",
)
"""Headings of the parts that every card has."""

RESEARCH_USE = "Research use only"
MISSING_KEY = "ecgdan_missing"
"""Entry of the metadata; whoever fills in a part by hand removes it there."""

_NAME = re.compile(r"(?:[\w-]+/)?[\w.-]+")
"""Name of a model, dataset or metric, as the Hub's refusals quote the pattern."""

_DATASET = re.compile(r"[\w-]+/[\w.-]+")
"""Id of a dataset; without an owner the Hub takes it for another dataset of that name, or for none."""

_LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")

_LICENCES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1
lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl
lgpl-lr unknown other
"""

_PIPELINE_TAGS = """
text-classification token-classification table-question-answering question-answering zero-shot-classification
translation summarization feature-extraction text-generation fill-mask sentence-similarity text-to-speech
text-to-audio automatic-speech-recognition audio-to-audio audio-classification audio-text-to-text
voice-activity-detection depth-estimation image-classification object-detection image-segmentation text-to-image
image-to-text image-to-image image-to-video unconditional-image-generation video-classification reinforcement-learning
robotics tabular-classification tabular-regression tabular-to-text table-to-text multiple-choice text-ranking
text-retrieval time-series-forecasting text-to-video image-text-to-text visual-question-answering
document-question-answering zero-shot-image-classification graph-ml mask-generation zero-shot-object-detection
text-to-3d image-to-3d image-feature-extraction video-text-to-text keypoint-detection visual-document-retrieval
any-to-any other
"""
"""Tasks of the Hub; none is for physiological signals."""

_BASE_MODEL_RELATIONS = ("adapter", "finetune", "merge", "quantized")

_IDS, _DATASET_IDS, _TEXTS = "an id NAME or OWNER/NAME", "an id OWNER/NAME", "text"


def missing_parts(card: str) -> list[str]:
    """Lists the required parts that a README lacks, each with the command that makes it where there is one."""
    block, _, text = card.partition("\n---\n")
    text = text or card
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)  # a comment in code is not a title
    found = [] if re.search(r"^# \S", prose, re.MULTILINE) else ["a title"]
    found += [] if RESEARCH_USE in text else [f"the words '{RESEARCH_USE}'"]
    found += [f"the part '{name}'" for name in SECTIONS if not _section(text, name)]
    metadata = yaml.safe_load(block.removeprefix("---\n")) if block.startswith("---\n") else None
    listed = metadata.get(MISSING_KEY) if isinstance(metadata, Mapping) else None
    return found + [str(part) for part in listed or ()]


def check_card(folder: str | Path, private: bool = False) -> None:
    """Raises for a card that says too little to be published, or whose metadata the Hub would refuse.

    Args:
        folder: with the card as `README.md`.
        private: only warn of missing parts, because a card may be unfinished among colleagues.

    Raises:
        FileNotFoundError: no card.
        ValueError: metadata against the Hub's rules, or missing parts: one line that names them all.
    """
    path = Path(folder) / "README.md"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a model card, found none; make one with: ecgdan bundle")
    card = path.read_text(encoding="utf-8")
    if problems := metadata_problems(card):
        raise ValueError(f"{path}: the Hub would refuse its metadata: {'; '.join(problems)}")
    missing = "; ".join(missing_parts(card))
    if missing and not private:
        raise ValueError(
            f"{path}: cannot be published; it lacks {missing}. Fill in the parts (remove a part that "
            f"you write by hand from {MISSING_KEY} in the metadata), or push with --private"
        )
    if missing:
        _logger.warning("%s: cannot be made public yet; it lacks %s", path, missing)


def metadata_problems(card: str) -> list[str]:
    """Lists what the Hub would refuse or not show of a README, one line each; empty for a good card."""
    try:
        parsed: Any = ModelCard(card, ignore_metadata_errors=False).data
        data = dict(parsed.to_dict())
    except (ValueError, TypeError, yaml.YAMLError) as error:  # invalid YAML, or an index without its required fields
        return [f"metadata: not readable: {' '.join(str(error).split())}"]
    if not data:
        return ["metadata: expected a YAML block at the top, found none"]
    return [*_plain_fields(data), *_lists(data), *_base_model(data), *_index(data.get("model-index"))]


def _plain_fields(data: Mapping[str, Any]) -> Iterator[str]:
    licence = data.get("license")
    if licence not in _LICENCES.split():
        yield f"license: expected one of the Hub's identifiers such as apache-2.0, got {licence!r}"
    if licence == "other" and not data.get("license_name"):
        yield "license_name: expected a name with license other, got none"
    if data.get("pipeline_tag") not in _PIPELINE_TAGS.split():
        yield f"pipeline_tag: expected one of the Hub's tasks, got {data.get('pipeline_tag')!r}"
    if not isinstance(data.get("library_name"), str):
        yield f"library_name: expected text, got {data.get('library_name')!r}"
    carbon = data.get("co2_eq_emissions")
    grams = carbon.get("emissions") if isinstance(carbon, Mapping) else carbon
    if grams is not None and (isinstance(grams, bool) or not isinstance(grams, int | float) or grams < 0):
        yield f"co2_eq_emissions: emissions: expected grams, got {grams!r}"


def _lists(data: Mapping[str, Any]) -> Iterator[str]:
    patterns = {"tags": (None, _TEXTS), "metrics": (None, _TEXTS), "datasets": (_DATASET, _DATASET_IDS)}
    for name, (pattern, expected) in {**patterns, "language": (_LANGUAGE, "an ISO 639 code")}.items():
        given = data.get(name)
        entries = given if isinstance(given, list) else [] if given is None else [given]
        if given is not None and name != "language" and not isinstance(given, list):
            yield f"{name}: expected a list, got {type(given).__name__}"
        for number, entry in enumerate(entries):
            if not isinstance(entry, str) or not entry or (pattern and not pattern.fullmatch(entry)):
                yield f"{name}[{number}]: expected {expected}, got {entry!r}"


def _base_model(data: Mapping[str, Any]) -> Iterator[str]:
    given, relation = data.get("base_model"), data.get("base_model_relation")
    for entry in given if isinstance(given, list) else [] if given is None else [given]:
        if not isinstance(entry, str) or not _NAME.fullmatch(entry):
            yield f"base_model: expected {_IDS}, got {entry!r}"
    if relation is not None and relation not in _BASE_MODEL_RELATIONS:
        yield f"base_model_relation: expected one of {', '.join(_BASE_MODEL_RELATIONS)}, got {relation!r}"
    if relation is not None and given is None:
        yield "base_model: expected a model with base_model_relation, got none"


def _index(index: Any) -> Iterator[str]:
    for model in _mappings(index):
        if not isinstance(model.get("name"), str):
            yield f"model-index: name: expected text, got {model.get('name')!r}"
        for number, result in enumerate(_mappings(model.get("results"))):
            where = f"model-index: results[{number}]"
            for first, second in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
                found = (result.get(first) or {}).get(second)
                if not isinstance(found, str) or not found.strip():
                    yield f"{where}: {first}.{second}: expected text, got {found!r}"
            kind = (result.get("dataset") or {}).get("type")
            if isinstance(kind, str) and not _NAME.fullmatch(kind):
                yield f"{where}: dataset.type: expected {_IDS}, got {kind!r}"
            if not result.get("metrics"):
                yield f"{where}: metrics: expected at least one, got none"
            for metric in _mappings(result.get("metrics")):
                yield from _metric(metric, where)


def _metric(metric: Mapping[str, Any], where: str) -> Iterator[str]:
    kind, value = metric.get("type"), metric.get("value")
    if not isinstance(kind, str) or not _NAME.fullmatch(kind):
        yield f"{where}: metrics: type: expected the id of a metric, got {kind!r}"
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value != value:
        yield f"{where}: metrics: {metric.get('name', kind)}: expected a value, got {value!r}"


def _mappings(given: Any) -> list[Mapping[str, Any]]:
    return [each for each in given or [] if isinstance(each, Mapping)] if isinstance(given, list) else []


def _section(text: str, name: str) -> str:
    """Returns the text under a heading; empty without such a heading."""
    found = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found.group(1).strip() if found else ""
