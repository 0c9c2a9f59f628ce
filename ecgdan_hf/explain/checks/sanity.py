"""Do maps say what the output depends on? Deletion curves over held-out records, and maps of random networks.

Leads are deleted by `lead_mask`, time by a straight line through the gap in all leads, what a map marks most first;
the output must change sooner than under a random order, or the map says nothing about the output. Measured is the drop
in the probability of the label predicted first (classification, DANet), the change of the log hazard (survival), the
cosine distance of the embedding (pretraining); and, for attention where the outcome is known, the loss of macro AUROC
or C-index. How maps compare with those of other networks: `randomisation`.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor
from tqdm.auto import tqdm

from ecgdan_hf.evaluation.folds import check_unseen, select_folds
from ecgdan_hf.evaluation.measures.intervals import bootstrap_interval
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.explain.checks.randomisation import randomisation
from ecgdan_hf.explain.checks.wave_changes import wave_changes
from ecgdan_hf.explain.maps.deletion import (
    FloatArray,
    bridge,
    deletion_ranks,
    macro_auroc_columns,
    mean_gap,
    performance_gap,
    remaining_leads,
    row_entropy,
    tokens_of_samples,
)
from ecgdan_hf.explain.maps.methods import METHODS, maps_of, methods_of
from ecgdan_hf.explain.maps.scores import drawn_rows, output_of, score_of
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.inference.rows import label_matrix, model_inputs
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel

logger = logging.getLogger(__name__)

CHANGES = {
    "probability": "drop in the probability of the label predicted first",
    "class_probability": "drop in the probability of the class predicted",
    "log_hazard": "absolute change of the log hazard",
    "embedding": "cosine distance of the embedding",
}
ORDERS = {"leads": ("attention", "reverse", "random"), "time": ("attention", "reverse", "random", "shifted")}
DRAWN = ("random", "shifted")
SIGNED = ("gradient", "integrated-gradients", "occlusion")


@dataclass
class DeletionCurves:
    """What deleting one kind of unit did.

    Attributes:
        shares: (steps,), share of the leads or of the time that was deleted.
        change: order -> (draws, N, steps), how far the output moved.
        scores: order -> (draws, N, steps, outputs), the outputs themselves; None for embeddings.
    """

    shares: FloatArray
    change: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Deletions:
    """What [`delete`] measured on N records.

    Attributes:
        kind: key of `CHANGES`.
        entropy: `leads` or `time` -> (N, 2), mean entropy of the map's rows and that of an even map, nats.
        curves: `leads` or `time` -> curves; a network without that attention has none.
    """

    kind: str
    entropy: dict[str, FloatArray]
    curves: dict[str, DeletionCurves]


@torch.no_grad()
def delete(
    model: EcgDanPreTrainedModel,
    dataset: Any,
    draws: int = 3,
    time_steps: int = 10,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = False,
    methods: Sequence[str] = ("attention",),
) -> Deletions:
    """Runs a model on every record, whole and with more and more of it deleted.

    Args:
        model: any model of the package; evaluated as it is.
        dataset: rows with `input_values` and `lead_mask`, and the covariates of a survival model.
        draws: random orders per record.
        time_steps: time is deleted in steps of 1 / `time_steps`.
        batch_size: records per forward pass.
        seed: of the random orders.
        progress: show a progress bar.
        methods: whose maps are followed, of [`methods_of`].

    Raises:
        ValueError: no records, or a method that this network has nothing for.
    """
    if not len(dataset):
        raise ValueError("dataset: expected at least one record, got none")
    if not set(methods) & set(methods_of(model)):
        raise ValueError("model: expected lead or time attention to test, got a network with neither")
    rng, parts = np.random.default_rng(seed), []
    batches = range(-(-len(dataset) // batch_size))
    for _, inputs in zip(
        tqdm(batches, desc="Deleting", disable=not progress), model_inputs(model, dataset, batch_size), strict=True
    ):
        parts.append(_Batch(model, inputs, methods).delete(draws, time_steps, rng))
    return _joined(parts)


class _Batch:
    """One batch of records, whole, what the network says of it, and what maps say of that."""

    def __init__(self, model: Any, inputs: dict[str, Tensor], methods: Sequence[str]) -> None:
        self.model, self.inputs, self.methods = model, inputs, methods
        self.values = inputs["input_values"].cpu().numpy()
        self.mask = inputs["lead_mask"].cpu().numpy()
        self.output = output_of(model, inputs, output_attentions="attention" in methods)
        self.kind, self.whole = outputs_of(model, self.output)

    def delete(self, draws: int, time_steps: int, rng: np.random.Generator) -> Deletions:
        """The curves of this batch."""
        score, found = score_of(self.model, self.inputs), {}
        for method in self.methods:
            found[method] = maps_of(method, self.model, self.inputs, score).units()
            if method in SIGNED and self.kind in ("log_hazard", "embedding"):  # change counts, whatever its sign
                found[method] = {unit: np.abs(values) for unit, values in found[method].items()}
        entropy, curves = {}, {}
        for unit in ("leads", "time"):
            importance = {method: units[unit] for method, units in found.items() if unit in units}
            if importance:
                curves[unit] = self._curves(unit, importance, draws, time_steps, rng)
            if "attention" in importance:
                tensor = self.output.lead_attention if unit == "leads" else self.output.time_attention
                entropy[unit] = _entropies(unit, tensor.float().cpu().numpy(), self.mask)
        return Deletions(self.kind, entropy, curves)

    def _curves(
        self, unit: str, importance: Mapping[str, FloatArray], draws: int, time_steps: int, rng: np.random.Generator
    ) -> DeletionCurves:
        first = next(iter(importance.values()))
        total = first.shape[1]
        shares = np.arange(1, total) / total if unit == "leads" else np.arange(1, time_steps) / time_steps
        curves = DeletionCurves(shares)
        for name, (method, order) in orders_of(unit, list(importance)).items():
            found = []
            for _ in range(draws if order in DRAWN else 1):
                ranks = deletion_ranks(importance[method], order, rng)
                found.append([self._without(unit, ranks, round(share * total)) for share in shares])
            scores = np.stack([np.stack(steps, axis=1) for steps in found])
            curves.change[name] = change_of(self.kind, self.whole[None, :, None], scores)
            if self.kind != "embedding" and name in ORDERS[unit]:
                curves.scores[name] = scores
        return curves

    def _without(self, unit: str, ranks: Any, count: int) -> Any:
        """(N, outputs) after `count` deletions."""
        device, values, mask = self.model.device, self.values, self.mask
        if unit == "leads":
            mask = remaining_leads(ranks, mask, count)
        else:
            stride = self.model.config.token_stride
            values = bridge(values, ranks[:, tokens_of_samples(values.shape[2], ranks.shape[1], stride)] < count)
        left = {"input_values": torch.from_numpy(values).to(device), "lead_mask": torch.from_numpy(mask).to(device)}
        return outputs_of(self.model, output_of(self.model, {**self.inputs, **left}))[1]


def orders_of(unit: str, methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Name of a curve -> (method, order of [`deletion_ranks`]), of which `attention` is most marked first.

    Those of attention have the names they always had; the random orders are one control for all methods.
    """
    found = {name: (methods[0], name) for name in ORDERS[unit]} if "attention" in methods else {}
    for method in methods:
        found[method] = (method, "attention")
        if unit == "time" and method != "attention":
            found[f"{method}, shifted"] = (method, "shifted")
    return {**found, "random": (methods[0], "random")}


def outputs_of(model: Any, output: Any) -> tuple[str, Any]:
    """What is followed while parts are deleted: the key of `CHANGES`, and (N, outputs) float32, logits of labels."""
    found: Tensor
    if head_of(model).is_survival:
        kind, found = "log_hazard", output.log_hazard[:, None]
    elif head_of(model).is_classifier:
        one_of = model.config.problem_type == "single_label_classification"
        kind = "class_probability" if one_of else "probability"
        found = output.logits.float().softmax(-1) if one_of else output.logits
    else:
        embeds = getattr(output, "ecg_embeds", None)
        kind, found = "embedding", output.pooler_output if embeds is None else embeds
    return kind, found.float().cpu().numpy()


def change_of(kind: str, whole: Any, deleted: Any) -> FloatArray:
    """How far the output moved: (..., outputs) twice, which may broadcast -> (...).

    Args:
        kind: key of `CHANGES`.
        whole: outputs on whole records.
        deleted: outputs on what was left of them.
    """
    whole, deleted = np.asarray(whole, np.float64), np.asarray(deleted, np.float64)
    if kind == "log_hazard":
        return np.abs(deleted - whole)[..., 0]
    if kind == "embedding":
        lengths = np.linalg.norm(whole, axis=-1) * np.linalg.norm(deleted, axis=-1)
        return 1 - (whole * deleted).sum(-1) / np.maximum(lengths, np.finfo(float).tiny)
    if kind == "probability":
        whole, deleted = expit(whole), expit(deleted)
    first = np.broadcast_to(whole.argmax(-1)[..., None], (*deleted.shape[:-1], 1))
    whole = np.broadcast_to(whole, deleted.shape)
    return np.take_along_axis(whole - deleted, first, axis=-1)[..., 0]


def _entropies(unit: str, maps: Any, mask: Any) -> FloatArray:
    """(N, 2): mean entropy of a record's rows, and that of even attention."""
    if unit == "leads":
        even = np.log(np.maximum(mask.sum(axis=1), 1))
        return np.stack([row_entropy(maps, mask), even], axis=1)
    records, leads, tokens, _ = maps.shape
    each = row_entropy(maps.reshape(-1, tokens, tokens), np.ones((records * leads, tokens))).reshape(records, leads)
    mean = np.where(mask, each, 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
    return np.stack([mean, np.full(records, np.log(tokens))], axis=1)


def _joined(parts: list[Deletions]) -> Deletions:
    first = parts[0]
    curves = {}
    for unit in first.curves:
        curves[unit] = DeletionCurves(first.curves[unit].shares)
        for order in first.curves[unit].change:
            for name in ("change", "scores"):
                found = [getattr(part.curves[unit], name).get(order) for part in parts]
                if found[0] is not None:
                    getattr(curves[unit], name)[order] = np.concatenate(found, axis=1)
    entropy = {unit: np.concatenate([part.entropy[unit] for part in parts]) for unit in first.entropy}
    return Deletions(first.kind, entropy, curves)


def rows_with_outcome(model: EcgDanPreTrainedModel, dataset: Any) -> Any:
    """The rows whose follow-up is known, where a survival model's data know that of some; all where of none."""
    if not head_of(model).is_survival or not {"event", "time"} <= set(dataset.column_names):
        return dataset
    known = np.all([np.isfinite(np.asarray(dataset[name], np.float64)) for name in ("event", "time")], axis=0)
    if not known.any():
        return dataset.remove_columns(["event", "time"])
    if not known.all():
        logger.warning("%d of %d records have no follow-up and are left out", (~known).sum(), len(dataset))
    return dataset.select(np.flatnonzero(known))


def truth_of(model: EcgDanPreTrainedModel, dataset: Any) -> tuple[str, tuple[Any, ...]] | None:
    """The outcome of the rows, if it is what the model predicts: the metric's name and its truth arrays."""
    if head_of(model).is_survival and {"event", "time"} <= set(dataset.column_names):
        return "concordance_index", tuple(np.asarray(dataset[name], np.float64) for name in ("event", "time"))
    if head_of(model).is_classifier and "labels" in dataset.column_names:
        expected = [str(name) for _, name in sorted((model.config.id2label or {}).items())]
        if list(dataset.features["labels"].feature.names) == expected:
            return "macro_auroc", (label_matrix(dataset),)
    return None


def summarise(
    found: Deletions,
    patient_ids: Any,
    truth: tuple[str, tuple[Any, ...]] | None = None,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Areas between the curves with intervals over patients, for `metrics.json`.

    Args:
        found: of [`delete`].
        patient_ids: (N,).
        truth: of [`truth_of`]; None leaves the performance out.
        n, seed: of the bootstrap.

    Returns:
        `change` (in words), `records`, and, of attention, for `leads` and `time`: `entropy` and `even_entropy` in
        nats, the curves, and `area_over_random`, `area_over_reverse`, `area_over_shifted`: mean over the curve of how
        much further the attention order moved the output. Under `performance` the same for the loss of AUROC or
        C-index. `methods` lists, for every method, the same areas and curves of the output under `leads` and `time`.
    """
    patients = np.asarray(patient_ids)
    metrics: dict[str, Any] = {"task": "sanity", "change": CHANGES[found.kind], "num_records": len(patients)}
    metrics["num_patients"] = len(np.unique(patients))
    options: dict[str, Any] = {"patient_ids": patients, "n": n, "seed": seed}
    methods: dict[str, Any] = {}
    for unit, curves in found.curves.items():
        for method in (name for name in curves.change if name in METHODS):
            methods.setdefault(method, {"method": method})[unit] = _areas(curves, method, options)
        if unit not in found.entropy:
            continue
        entropy = bootstrap_interval(np.mean, found.entropy[unit][:, 0], **options).as_dict()
        metrics[unit] = {"entropy": entropy, "even_entropy": float(found.entropy[unit][:, 1].mean())}
        metrics[unit] |= {"shares": curves.shares.tolist(), "curves": {}}
        metrics[unit]["curves"] = {order: curves.change[order].mean(axis=(0, 1)).tolist() for order in ORDERS[unit]}
        metrics[unit] |= {name: area for name, area in methods["attention"][unit].items() if name.startswith("area")}
        if truth is not None:
            metrics[unit]["performance"] = _performance(curves, truth, options)
    return {**metrics, "methods": [methods[name] for name in METHODS if name in methods]}


def _areas(curves: DeletionCurves, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """One method's curve, and the area between it and its controls."""
    shifted = "shifted" if method == "attention" else f"{method}, shifted"
    others = {"reverse": "reverse"} if method == "attention" else {}
    others |= {"random": "random", "shifted": shifted}
    entry: dict[str, Any] = {"shares": curves.shares.tolist(), "curves": {}}
    for order, name in {method: method, **others}.items():
        if name in curves.change:
            entry["curves"][order] = curves.change[name].mean(axis=(0, 1)).tolist()
            if order != method:
                gap = mean_gap(curves.change[method], curves.change[name])
                entry[f"area_over_{order}"] = bootstrap_interval(np.mean, gap, **options).as_dict()
    return entry


def _performance(
    curves: DeletionCurves, truth: tuple[str, tuple[Any, ...]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The curves of macro AUROC or C-index, and how much sooner the attention order loses it."""
    name, arrays = truth
    columns = macro_auroc_columns if name == "macro_auroc" else _concordance_columns
    found: dict[str, Any] = {"metric": name, "curves": {}}
    flat = {order: np.concatenate(list(scores), axis=1) for order, scores in curves.scores.items()}
    steps = len(curves.shares)
    for order, scores in flat.items():
        found["curves"][order] = columns(*arrays, scores).reshape(-1, steps).mean(axis=0).tolist()
    for order in DRAWN:
        if order in flat:
            both = np.concatenate([flat["attention"], flat[order]], axis=1)
            gap = bootstrap_interval(performance_gap(columns, steps), *arrays, both, **options)
            found[f"area_over_{order}"] = gap.as_dict()
    return found


def _concordance_columns(event: FloatArray, years: FloatArray, scores: FloatArray) -> FloatArray:
    return np.array([concordance_index(event, years, scores[:, column, 0]) for column in range(scores.shape[1])])


def judge(
    checkpoint: str,
    load_rows: Callable[[Any], Any],
    test_folds: Sequence[int] | None,
    data_dir: str | None = None,
    draws: int = 3,
    time_steps: int = 10,
    batch_size: int = 128,
    n: int = 1000,
    seed: int = 0,
    methods: Sequence[str] | None = None,
    controls: Mapping[str, str] | None = None,
    map_records: int = 64,
    map_draws: int = 1,
    limit: int | None = None,
) -> dict[str, Any]:
    """Tests the maps of a checkpoint on records it was not trained on, for `ecgdan sanity`.

    Folds that chose the epoch are allowed, for no map was fitted to them.

    Args:
        checkpoint: folder or Hub name.
        load_rows: feature extractor -> dataset.
        test_folds: folds to test on; None is every record.
        data_dir: where the rows come from, to recognise training data.
        draws, time_steps, batch_size, seed: as in [`delete`].
        n: resamples behind each interval.
        methods: of [`methods_of`]; None is all but rollup where its order is that of attention.
        controls: name -> checkpoint whose maps are compared, such as one trained on shuffled labels.
        map_records, map_draws: as in [`randomisation`]; no records leaves it out.
        limit: test on so many of the records, drawn by the seed.

    Raises:
        ValueError: folds the checkpoint was trained on, controls of another kind, or what [`delete`] refuses.
    """
    if draws < 1 or time_steps < 2 or map_draws < 1 or map_records < 0:
        expected = "draws, time_steps, map_draws, map_records: expected at least 1, 2, 1 and 0"
        raise ValueError(f"{expected}, got {draws}, {time_steps}, {map_draws} and {map_records}")
    started = time.monotonic()
    check_unseen(checkpoint, test_folds, data_dir, seen_in=("train_folds",))
    model, extractor = load_checkpoint(checkpoint)
    others = {name: _control(name, path, model) for name, path in (controls or {}).items()}
    methods = methods or [each for each in methods_of(model) if each != "rollup" or not _is_parallel(model)]
    dataset = drawn_rows(rows_with_outcome(model, select_folds(load_rows(extractor), test_folds)), limit, seed)
    found = delete(model, dataset, draws, time_steps, batch_size, seed, progress=True, methods=methods)
    metrics = summarise(found, dataset["patient_id"], truth_of(model, dataset), n, seed)
    if map_records:
        options: dict[str, Any] = {"batch_size": batch_size, "n": n, "seed": seed}
        compared = randomisation(model, dataset, others, methods, map_records, map_draws, **options)
        for entry in metrics["methods"]:
            for unit, correlations in compared["methods"].get(entry["method"], {}).items():
                entry[unit] |= correlations
        metrics |= {"map_records": compared["num_records"], "map_draws": map_draws}
        metrics["waves"] = wave_changes(model, dataset, **options)
    simulated = bool(getattr(model.config, "simulated_outcome", False)) or "log_hazard" in dataset.column_names
    settings = {"draws": draws, "time_steps": time_steps, "seed": seed, "test_folds": test_folds}
    return {
        **metrics,
        **settings,
        "simulated_outcome": simulated and found.kind == "log_hazard",
        "seconds": round(time.monotonic() - started, 1),
    }


def _is_parallel(model: Any) -> bool:
    return bool(model.config.attention_order == "parallel")


def _control(name: str, path: str, model: Any) -> Any:
    """A network whose maps can be compared with the model's."""
    other, _ = load_checkpoint(path)
    for field_name in ("signal_contract", "id2label"):
        expected, got = (getattr(each.config, field_name) for each in (model, other))
        if expected != got:
            raise ValueError(
                f"control {name}: {path}: expected the {field_name} of the checkpoint judged, got another"
            )
    if type(other) is not type(model):
        raise ValueError(f"control {name}: {path}: expected a {type(model).__name__}, got {type(other).__name__}")
    return other
