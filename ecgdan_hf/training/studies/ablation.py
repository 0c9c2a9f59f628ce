"""Ablations: one recipe of pretraining with one thing changed at a time, compared in one table.

    ecgdan ablate --config ablation --data-dir ptb-xl --output-dir runs/ablation

Every variant is pretrained in a folder of its own, then evaluated on held-out folds: a linear probe of its
frozen encoder (all labels, and a share of them), zero-shot where it has text, and the paired difference to the first
variant over resampled patients. Finished runs are not repeated: the same command goes on after an interruption.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.data.text.statements import read_statements
from ecgdan_hf.evaluation.comparators.baselines import random_encoder
from ecgdan_hf.evaluation.comparators.linear_classifier import LinearClassifier
from ecgdan_hf.evaluation.folds import parse_folds
from ecgdan_hf.evaluation.measures.classification import macro_auroc
from ecgdan_hf.evaluation.measures.intervals import bootstrap_difference, bootstrap_interval
from ecgdan_hf.evaluation.protocols.zero_shot import Level, group_scores
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.files import locked_folder, write_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import Head
from ecgdan_hf.inference.rows import columns_of, embed, label_matrix
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.training import pretrain
from ecgdan_hf.training.arguments.fields import AblateArguments, PretrainArguments
from ecgdan_hf.training.arguments.options import check_keys, check_options, resolve
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EcgCollator
from ecgdan_hf.training.core.frozen_encoders import Probed
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.core.starting_weights import build_config
from ecgdan_hf.training.zero_shot_probe import similarity

_RANDOM = "random encoder"
_KINDS = {"probe": "linear probe", "few": "probe, {share:.3g} % of the labels", "zero": "zero-shot"}
_SHARED = ("data", "data_dir", "cache_dir", "train_folds", "test_folds", "limit", "num_proc", "epochs")
"""Arguments handed on to every variant; those that are not given are the base recipe's."""

_NUM_SUBSETS = 5
"""Draws of the patients whose labels a probe with few labels sees: one draw may be lucky."""


@dataclass(frozen=True)
class _Variant:
    """One line of the table: its name, what it changes in words, and the arguments of its runs, one for each seed."""

    name: str
    changed: str
    runs: list[PretrainArguments]


def ablate(args: AblateArguments, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Pretrains what is missing, evaluates every variant, and writes `report.md` and `metrics.json`.

    Args:
        args: the recipe.
        say: called with a line when something begins.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used.
    """
    folder, variants = _check_folder(args), _plan(args)
    with locked_folder(folder):
        return _ablate(folder, variants, args, say)


def _ablate(
    folder: Path, variants: list[_Variant], args: AblateArguments, say: Callable[[str], None]
) -> dict[str, Any]:
    tables: dict[str, list[pd.DataFrame]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for variant in variants:
        for run_args in variant.runs:
            begins = RunFolder(Path(str(run_args.output_dir))).metrics is None
            say(f"{variant.name}, seed {run_args.seed}: {'pretraining' if begins else 'finished before'}")
            pretrain.pretrain(run_args)
        tables[variant.name] = [_scores_of_run(run_args, args.label_fraction) for run_args in variant.runs]
        facts[variant.name] = {"changed": variant.changed, **_sizes(variant)}
    if args.random_encoder:
        first = variants[0]
        tables[_RANDOM] = [_scores_of_run(run_args, args.label_fraction, untrained=True) for run_args in first.runs]
        facts[_RANDOM] = {**facts[first.name], "changed": "not trained", "seconds": None}
    found = _compare(tables, args.bootstrap)
    for name, entry in found["variants"].items():
        entry |= facts[name]
    metrics = {"task": "ablation", **found, "num_seeds": len(variants[0].runs), "label_fraction": args.label_fraction}
    write_text(folder / "report.md", _report(metrics, args))
    Result("ablation", metrics).write(folder)
    return metrics


def _check_folder(args: AblateArguments) -> Path:
    """The folder of the ablation: new, empty, or one that an ablation was begun in."""
    if not args.output_dir:
        raise ValueError("output_dir: expected a folder for the runs and the report, got none; give --output-dir")
    folder = Path(args.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder, found a file")
    if (folder / "recipe.yaml").exists():
        raise ValueError(f"{folder}: expected an empty folder or an earlier ablation, found a single run")
    return folder


def _plan(args: AblateArguments) -> list[_Variant]:
    """Every variant with the resolved arguments of its runs, so that a misspelt key is rejected first."""
    for name in ("train_folds", "test_folds"):
        if not getattr(args, name):
            raise ValueError(f"{name}: expected folds, got none; all variants are compared on the same test folds")
    wanted = [name.strip() for name in (args.only or "").split(",") if name.strip()] or list(args.variants)
    check_keys(wanted, args.variants, "only")
    if not wanted:
        raise ValueError("variants: expected at least one, got none; give --config ablation")
    if len({slug(name) for name in [*wanted, _RANDOM]}) <= len(wanted):
        raise ValueError(f"variants: expected names that differ, also from {_RANDOM!r}, got {'; '.join(wanted)}")
    runs = {
        name: [_pretrain_arguments(args, name, seed) for seed in parse_folds(args.seeds, "seeds") or []]
        for name in wanted
    }
    return [_Variant(name, _overrides_text(args.variants[name] or {}), runs[name]) for name in wanted]


def slug(name: str) -> str:
    """A variant's name as that of a folder.

    >>> slug("10 s, no lead attention")
    '10-s-no-lead-attention'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _overrides_text(overrides: Mapping[str, Any]) -> str:
    """The overrides of a variant in one line.

    >>> _overrides_text({"model": {"trunk": "light"}, "shuffle_text": True})
    'trunk: light, shuffle_text: true'
    """
    if not overrides:
        return "nothing"
    others = {key: value for key, value in overrides.items() if key != "model"}
    text: str = yaml.safe_dump({**overrides.get("model", {}), **others}, sort_keys=False)
    return text.strip().replace("\n", ", ")


def _pretrain_arguments(args: AblateArguments, name: str, seed: int) -> PretrainArguments:
    """The base recipe, what all variants share, and what this one changes; resumed where its folder has a run."""
    overrides = args.variants[name] or {}
    if not isinstance(overrides, dict):
        raise ValueError(f"variants: {name}: expected arguments of ecgdan pretrain, got {overrides!r}")
    folder = Path(str(args.output_dir)) / slug(name) / f"seed-{seed}"
    shared = {key: getattr(args, key) for key in _SHARED if getattr(args, key) is not None}
    given = {"output_dir": str(folder), "seed": seed, "resume": (folder / "recipe.yaml").is_file()}
    network = {**args.common.get("model", {}), **overrides.get("model", {})}
    try:
        flags = {**args.common, **shared, **overrides, "model": network, **given}
        found = resolve(PretrainArguments, args.base, flags)
        check_options(found)
        EcgCollator.check(found, build_config(EcgDanConfig, found.model, found.checkpoint))
    except ValueError as error:
        raise ValueError(f"variants: {name}: {error}") from error
    return found


def _scores_of_run(
    args: PretrainArguments, label_fraction: float | None, untrained: bool = False, batch_size: int = 256
) -> pd.DataFrame:
    """Scores of the test records by a finished run, or by random weights of its network; cached in its folder.

    Columns: `record_id`, `patient_id`, `true_LABEL`, and `KIND LABEL` with the kinds `probe` (all labels), `few0`,
    `few1` ... (this share of the labelled patients, drawn each time) and `zero` (zero-shot). Higher: more likely.
    """
    share = "" if label_fraction is None else f"-{label_fraction:g}"
    path = Path(str(args.output_dir)) / f"{'untrained' if untrained else 'scores'}{share}.csv"
    if not path.is_file():
        table = _score(args, label_fraction, untrained, batch_size)
        write_text(path, table.to_csv(index=False, float_format="%.6g"))
    return pd.read_csv(path, dtype={"record_id": str, "patient_id": str})


def _score(args: PretrainArguments, label_fraction: float | None, untrained: bool, batch_size: int) -> pd.DataFrame:
    model, extractor = load_checkpoint(str(args.output_dir))
    if untrained:
        model = random_encoder(model.config, args.seed)
    dataset = rows.load_dataset(args, extractor, label_level="superclass")
    if "labels" not in dataset.column_names:
        raise ValueError("labels: an ablation needs a labels column in the data, found none")
    fit, test = Probed.fit_and_test(dataset, args, None)
    names, columns = dataset.features["labels"].feature.names, [label_matrix(test)]
    heads = [f"true_{name}" for name in names]
    for kind, scores in _all_scores(model, fit, test, args, label_fraction, batch_size):
        columns.append(scores)
        heads += [f"{kind} {name}" for name in names]
    table = columns_of(test, ["record_id", "patient_id"])
    return pd.concat([table, pd.DataFrame(np.hstack(columns), columns=heads)], axis=1)


def _all_scores(
    model: Any, fit: Any, test: Any, args: PretrainArguments, label_fraction: float | None, batch_size: int
) -> Iterator[tuple[str, np.ndarray]]:
    features, tested = (embed(model, part, batch_size) for part in (fit, test))
    labels, patients = label_matrix(fit), np.asarray(fit["patient_id"])
    yield "probe", LinearClassifier.fit(features, labels, patients).logits(tested)
    for seed in range(0 if label_fraction is None else _NUM_SUBSETS):
        kept = rows.labelled_subset(patients, labels, float(label_fraction or 1), seed)
        yield f"few{seed}", LinearClassifier.fit(features[kept], labels[kept], patients[kept]).logits(tested)
    prompts = list(Head.encoder_of(model).config.prompt_labels)
    has_statements = bool(find_source(args.data, args.data_dir).label_levels)
    if prompts and getattr(model, "alignment_head", None) is not None and has_statements:
        groups = Level.groups_of(read_statements(str(args.data_dir)), "superclass")
        logits = similarity(model, test, model.alignment_head.prompt_embeds, batch_size)
        yield "zero", group_scores(logits, prompts, groups)


def _sizes(variant: _Variant) -> dict[str, Any]:
    """Weights of the variant's encoder, and seconds of its pretraining, all seeds together."""
    folders = [Path(str(run_args.output_dir)) for run_args in variant.runs]
    encoder: Any = load_checkpoint(folders[0])[0].ecgdan
    return {
        "num_parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "seconds": sum(RunFolder(folder).metrics["seconds"] for folder in folders),
    }


def _mean_macro_auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean over runs of the macro AUROC: labels (n, labels), scores (n, runs, labels)."""
    values = np.asarray(scores)
    return float(np.mean([macro_auroc(labels, values[:, run]) for run in range(values.shape[1])]))


def _compare(tables: Mapping[str, list[pd.DataFrame]], n: int = 1000) -> dict[str, Any]:
    """Each variant's AUROC and its paired difference to the first one, on the records that all of them have.

    `tables` has for each variant a table of each run, from [`_scores_of_run`]. Returns `num_records`, `num_patients`,
    and under `variants` for each variant and each of `_KINDS` that it has the fields of an `Interval` and, but for the
    first, `difference` (this minus the first).
    """
    common = set.intersection(*(set(table["record_id"]) for runs in tables.values() for table in runs))
    if not common:
        raise ValueError("test_folds: the variants have no test record in common")
    aligned = {name: [_common_rows(table, common) for table in runs] for name, runs in tables.items()}
    base = next(iter(aligned.values()))
    labels = _columns(base[0], "true_")
    options: dict[str, Any] = {"patient_ids": base[0]["patient_id"].to_numpy(), "n": n, "seed": 0}
    found: dict[str, dict[str, Any]] = {}
    for name, runs in aligned.items():
        found[name] = {}
        for kind in _KINDS:
            scores, first = (_stack(each, kind, labels.shape[1]) for each in (runs, base))
            if scores is None:
                continue
            found[name][kind] = bootstrap_interval(_mean_macro_auroc, labels, scores, **options).as_dict()
            if runs is not base and first is not None:
                both: dict[str, Any] = {"scores": scores, "baseline_scores": first}
                difference = bootstrap_difference(_mean_macro_auroc, labels, **both, **options)
                found[name][kind]["difference"] = difference.as_dict()
    return {"num_records": len(common), "num_patients": base[0]["patient_id"].nunique(), "variants": found}


def _common_rows(table: pd.DataFrame, records: set[str]) -> pd.DataFrame:
    return table[table["record_id"].isin(records)].sort_values("record_id").reset_index(drop=True)


def _columns(table: pd.DataFrame, start: str) -> np.ndarray:
    return table[[column for column in table if str(column).startswith(start)]].to_numpy(dtype=float)


def _stack(runs: list[pd.DataFrame], kind: str, labels: int) -> np.ndarray | None:
    """(n, runs x subsets, labels) of a kind; None where a run has no such scores."""
    parts = [_columns(table, kind) for table in runs]
    if not all(part.shape[1] for part in parts):
        return None
    return np.concatenate([part.reshape(len(part), -1, labels) for part in parts], axis=1)


def _report(metrics: Mapping[str, Any], args: AblateArguments) -> str:
    """The table with what it is of, and a plain list of what helped and what did not."""
    variants = metrics["variants"]
    first = next(iter(variants))
    kinds = [kind for kind in _KINDS if any(kind in entry for entry in variants.values())]
    words = [_KINDS[kind].format(share=100 * (metrics["label_fraction"] or 1)) for kind in kinds]
    heads = ["variant", "what changed", "encoder"]
    for word in words:
        heads += [word, f"minus {first}"]
    lines = [_row([*heads, "seconds"]), _row(["---"] * (len(heads) + 1))]
    for name, entry in variants.items():
        cells = [name, entry["changed"], f"{entry['num_parameters'] / 1e6:.2f} M"]
        for kind in kinds:
            cells += _cells(entry.get(kind))
        lines.append(_row([*cells, "" if entry["seconds"] is None else f"{entry['seconds']:.0f}"]))
    counts = f"{metrics['num_records']} records, {metrics['num_patients']} patients"
    what = (
        f"Macro AUROC on folds {args.test_folds} ({counts}) of encoders pretrained and probed on folds "
        f"{args.train_folds}, mean of {metrics['num_seeds']} seed(s). "
        "Differences: the same patients resampled for both, 95 % intervals; of many lines one in twenty misses zero "
        "by chance. The luck of a seed is not in the intervals: run several before a claim."
    )
    return "\n".join(["# Ablation", "", what, "", *lines, "", *_verdicts(variants), "", "Research use only."]) + "\n"


def _verdicts(variants: Mapping[str, Mapping[str, Any]], kind: str = "probe") -> list[str]:
    """Which changes made the probe better, which worse, and of which nothing can be said."""
    groups: dict[str, list[str]] = {"Better than": [], "Worse than": [], "No difference shown to": []}
    first = next(iter(variants))
    for name, entry in variants.items():
        difference = entry.get(kind, {}).get("difference")
        if difference is None:
            continue
        word = "Better than" if difference["low"] > 0 else "Worse than"
        groups[word if difference["low"] * difference["high"] > 0 else "No difference shown to"].append(name)
    return [f"* {word} {first} ({_KINDS[kind]}): {'; '.join(names) or 'none'}" for word, names in groups.items()]


def _cells(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["", ""]
    difference = found.get("difference")
    text = "" if difference is None else "{estimate:+.3f} ({low:+.3f} to {high:+.3f})".format(**difference)
    return ["{estimate:.3f}".format(**found), text]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
