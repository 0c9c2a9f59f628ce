"""Zero-shot: how well a pretrained checkpoint classifies by the texts of the classes, without any fitting.

    ecgdan probe --zero-shot --checkpoint runs/pretrained --control "shuffled text=runs/shuffled" \
        --data ptb-xl --data-dir ptb-xl --test-folds 9 --output-dir runs/zero-shot

The prompts are those in the checkpoint, so no language model is needed; `--prompts FILE` gives others. PTB-XL is
evaluated by superclass, subclass, rhythm statement and statement, and by the statements held out of pretraining, where
the checkpoint's recipe names some; other sources by their own labels. Test folds the network was trained on are
rejected; folds that chose its epoch are allowed and noted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.data.text.statements import embed_texts, read_statements
from ecgdan_hf.evaluation.folds import check_unseen, parse_folds, recipe_of, select_folds
from ecgdan_hf.evaluation.protocols.subgroups import classification_subgroups
from ecgdan_hf.evaluation.protocols.zero_shot import LEVELS, Level, group_scores
from ecgdan_hf.evaluation.report.comparison_text import zero_shot_tables
from ecgdan_hf.evaluation.report.subgroup_text import subgroup_text
from ecgdan_hf.evaluation.seen_records import check_records_unseen
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import Head
from ecgdan_hf.inference.rows import columns_of, embed, label_matrix
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import ProbeArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.frozen_encoders import load_controls, run_probe

_HELD_OUT = "held out of pretraining"


@dataclass(frozen=True)
class _Prompted:
    """One checkpoint's opinion of the test records: logits (n, K) of prompts, their labels, and the records."""

    logits: np.ndarray
    labels: list[str]
    test: Any


def zero_shot_probe(args: ProbeArguments) -> dict[str, Any]:
    """Classifies the test part by the texts of the classes, at every level of labels.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: test folds that a checkpoint was trained on, no prompts, no class to evaluate, or records that
            differ between checkpoints.
    """
    return run_probe(args, "zero-shot", _compare_levels)


def _compare_levels(args: ProbeArguments) -> tuple[dict[str, Any], str]:
    """Returns the metrics and the report."""
    main = _prompted(str(args.checkpoint), args)
    others = {name: (each.logits, each.labels) for name, each in load_controls(args, _prompted, main)}
    options: dict[str, Any] = {"aggregation": args.aggregation, "temperature": args.temperature}
    options["softmax"] = args.prompt_softmax
    score: Any = partial(group_scores, **options)
    patients = np.asarray(main.test["patient_id"])
    table = columns_of(main.test, ["patient_id", "age", "sex"])
    found, missing, groups = {}, {}, None
    for level in _levels(main, args):
        if not level.groups:
            missing[level.name] = level.not_judged
            continue
        settings: dict[str, Any] = {"permutations": args.permutations, "n": args.bootstrap, "seed": args.seed}
        found[level.name] = level.metrics(main.logits, main.labels, patients, others, score=score, **settings)
        if groups is None:  # of the first level alone (superclasses of PTB-XL): all would be hundreds of numbers
            logits, names = score(main.logits, main.labels, level.groups), list(level.groups)
            groups = classification_subgroups(table, level.truth, logits, names, None, args.bootstrap, args.seed)
    if not found:
        raise ValueError(f"zero_shot: no class with a prompt and {args.min_positives} positives among {len(patients)}")
    notes = _optimism(args)
    metrics = {"task": "zero-shot", "metric": "macro_auroc", "num_records": len(patients), "options": options}
    metrics |= {"num_patients": len(np.unique(patients)), "notes": notes, "levels": found, "not_judged": missing}
    metrics["subgroups"] = groups
    return metrics, _report(metrics, args)


def _prompted(path: str, args: ProbeArguments) -> _Prompted:
    """Loads a checkpoint and its rows, and compares each record with each prompt."""
    folds = parse_folds(args.test_folds, "test_folds")
    check_unseen(path, folds, args.data_dir, seen_in=("train_folds",))
    model, extractor = load_checkpoint(path)
    head, labels = getattr(model, "alignment_head", None), list(Head.encoder_of(model).config.prompt_labels)
    if head is None:
        raise ValueError(f"{path}: expected a checkpoint pretrained with texts, this one has no alignment head")
    if args.prompts:
        labels, prompts = _custom_prompts(model, args)
    elif labels:
        prompts = head.prompt_embeds
    else:
        raise ValueError(f"{path}: expected a checkpoint that carries prompts, this one has none; give --prompts")
    level = "statement" if find_source(args.data, args.data_dir).label_levels else None
    test = select_folds(rows.load_dataset(args, extractor, label_level=level), folds)
    check_records_unseen(path, test, with_chosen=False)
    if "labels" not in test.column_names:
        raise ValueError("labels: zero_shot needs a labels column in the data, found none")
    return _Prompted(similarity(model, test, prompts, args.batch_size, args.leads), labels, test)


@torch.inference_mode()
def similarity(
    model: Any, dataset: Any, prompts: torch.Tensor, batch_size: int = 256, leads: str | None = None
) -> np.ndarray:
    """(n, K): scaled cosine of each row's ECG and each prompt.

    `prompts` are (K, projection_size), of unit length; the other arguments are those of [`embed`].
    """
    pooled, head = torch.from_numpy(embed(model, dataset, batch_size, leads)), model.alignment_head
    ecg_embeds = head.project_ecg(pooled.to(head.ecg_projection[0].weight)).float()
    logits = head.logits(ecg_embeds, prompts)
    return np.asarray(logits.double().cpu())


@torch.inference_mode()
def _custom_prompts(model: Any, args: ProbeArguments) -> tuple[list[str], torch.Tensor]:
    """Labels of `args.prompts` and (K, projection_size): the mean direction of each label's projected texts."""
    texts, config = _read_prompts(str(args.prompts)), Head.encoder_of(model).config
    name = args.text_model or config.text_model_name
    if not name:
        raise ValueError("text_model: expected the language model of pretraining, the checkpoint names none; give it")
    revision = None if args.text_model else config.text_model_revision
    flat = [text for several in texts.values() for text in several]
    vectors = torch.from_numpy(embed_texts(flat, name, args.cache_dir, revision=revision))
    if vectors.shape[1] != config.text_embed_dim:
        raise ValueError(f"text_model: expected one of width {config.text_embed_dim}, {name} has {vectors.shape[1]}")
    projected = model.alignment_head.project_text(vectors.to(model.device, model.dtype)).float()
    means = [part.mean(0) for part in projected.split([len(several) for several in texts.values()])]
    return list(texts), F.normalize(torch.stack(means), dim=-1)


def _read_prompts(path: str) -> dict[str, list[str]]:
    """Reads `label: text` or `label: [text, text]` from YAML."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected a mapping of labels to texts, found {type(content).__name__}")
    texts = {str(label): [value] if isinstance(value, str) else value for label, value in content.items()}
    for label, several in texts.items():
        if not isinstance(several, list) or not several or not all(isinstance(text, str) and text for text in several):
            raise ValueError(f"{path}: {label}: expected a text or a list of texts, got {several!r}")
    return texts


def _levels(main: _Prompted, args: ProbeArguments) -> list[Level]:
    """The levels to evaluate: for PTB-XL its hierarchy of labels, for other sources their own labels."""
    names, truth = main.test.features["labels"].feature.names, label_matrix(main.test)
    groups: dict[str, Mapping[str, list[str]]] = {"label": {name: [name] for name in names}}
    if find_source(args.data, args.data_dir).label_levels:
        statements = read_statements(str(args.data_dir))
        groups = {level: Level.groups_of(statements, level) for level in LEVELS}
    unseen = _held_out_statements(str(args.checkpoint))
    if unseen:
        groups[f"statement, {_HELD_OUT}"] = {name: [name] for name in unseen}
    options: Any = truth, names, main.labels, args.min_positives
    return [Level.judged(level, members, *options) for level, members in groups.items()]


def _held_out_statements(checkpoint: str) -> list[str]:
    """Statements that the checkpoint's recipe kept out of its texts."""
    given = (recipe_of(checkpoint) or {}).get("hold_out_statements") or []
    return [name.strip() for name in (given.split(",") if isinstance(given, str) else map(str, given)) if name.strip()]


def _optimism(args: ProbeArguments) -> list[str]:
    """Notes on checkpoints whose epoch was chosen on the test folds."""
    judged = set(parse_folds(args.test_folds, "test_folds") or ())
    named = {"this checkpoint": str(args.checkpoint)} | {name: str(path) for name, path in args.control.items()}
    return [
        f"The epoch of {name} was chosen on folds that are judged here, so its values are a little too high."
        for name, path in named.items()
        if judged & set(_chosen_on(path, args.data_dir))
    ]


def _report(metrics: Mapping[str, Any], args: ProbeArguments) -> str:
    """The result as Markdown."""
    normalised = "log probabilities over all prompts" if args.prompt_softmax else "logits"
    lines = [
        "# Zero-shot",
        "",
        f"{metrics['num_records']} records of {metrics['num_patients']} patients; classes with {args.min_positives} "
        f"positives or more. Score of a class: {args.aggregation} of its statements' {normalised}, temperature "
        f"{args.temperature:g}. Intervals: patients resampled. Permuted: the prompts handed out anew among the labels "
        "at random; a class of many statements keeps some of its own and is above one half by that alone.",
        "",
        *(f"{note}\n" for note in metrics["notes"]),
        zero_shot_tables(metrics["levels"]),
    ]
    absent = {level: entry["not_judged"] for level, entry in metrics["levels"].items()} | metrics["not_judged"]
    for level, reasons in absent.items():
        if reasons:
            lines += ["", f"Not judged, {level}: {', '.join(f'{name} ({why})' for name, why in reasons.items())}."]
    lines += ["", f"## By sex and age, {next(iter(metrics['levels']))}", "", subgroup_text(metrics["subgroups"])]
    return "\n".join(lines)


def _chosen_on(checkpoint: str, data_dir: str | None) -> list[int]:
    """Folds of these data that chose the checkpoint's epoch."""
    recipe = recipe_of(checkpoint) or {}
    same = recipe.get("data_dir") and data_dir and Path(recipe["data_dir"]).resolve() == Path(data_dir).resolve()
    return parse_folds(recipe.get("valid_folds"), f"{checkpoint}: valid_folds") or [] if same else []


if __name__ == "__main__":
    run_as_program(ProbeArguments, zero_shot_probe)
