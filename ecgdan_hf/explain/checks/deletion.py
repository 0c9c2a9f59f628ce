"""Deletion curves: how far the output moves as more and more of a record is deleted, in the order of a map.

If a map says where the network looked, deleting what it looked at most must change the output sooner than deleting
anything else (Samek et al., IEEE TNNLS 28(11):2660-2673, 2017). Leads are deleted by `lead_mask`, time by a straight
line through the gap in all leads. Orders: `attention` (most marked first), `reverse`, `random`, and for time
`shifted`, the map's order moved along the record: as clustered as the map, but elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from scipy.stats import rankdata
from torch import Tensor
from tqdm.auto import tqdm

from ecgdan_hf.evaluation.measures.intervals import bootstrap_interval
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.explain.maps.methods import METHODS, maps_of, methods_of
from ecgdan_hf.explain.maps.occlusion import bridge, tokens_of_samples
from ecgdan_hf.explain.maps.scores import first_log_hazard, output_of, score_of
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.inference.rows import model_inputs
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]
Truth = tuple[str, tuple[Any, ...]]

_CHANGES = {
    "probability": "drop in the probability of the label predicted first",
    "class_probability": "drop in the probability of the class predicted",
    "log_hazard": "absolute change of the log hazard",
    "embedding": "cosine distance of the embedding",
}
ORDERS = {"leads": ("attention", "reverse", "random"), "time": ("attention", "reverse", "random", "shifted")}
_DRAWN = ("random", "shifted")
_SIGNED = ("gradient", "integrated-gradients", "occlusion")


@dataclass
class _Curves:
    """Deletion of leads or of time."""

    shares: FloatArray  # (steps,), deleted share
    change: dict[str, Any] = field(default_factory=dict)  # order -> (draws, N, steps), how far the output moved
    scores: dict[str, Any] = field(default_factory=dict)  # order -> (draws, N, steps, outputs); none for embeddings


@dataclass(frozen=True)
class _Deletions:
    """Results of [`delete`] on N records."""

    kind: str  # key of `_CHANGES`
    entropy: dict[str, FloatArray]  # of the map's rows, and of even attention: `leads` or `time` -> (N, 2), nats
    curves: dict[str, _Curves]  # of `leads` and `time`, where a method has a map of them

    def summary(self, patient_ids: Any, truth: Truth | None = None, n: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Areas between the curves with intervals over patients, for `metrics.json`.

        Of attention, `leads` and `time` have the entropy in nats, the curves, and `area_over_random`,
        `area_over_reverse`, `area_over_shifted`: mean over the curve of how much further the attention order moved the
        output. `performance` has the same for the loss of AUROC or C-index, where `truth` is known. `methods` lists,
        for every method, the same areas and curves of the output.
        """
        patients = np.asarray(patient_ids)
        metrics: dict[str, Any] = {"task": "sanity", "change": _CHANGES[self.kind], "num_records": len(patients)}
        metrics["num_patients"] = len(np.unique(patients))
        options: dict[str, Any] = {"patient_ids": patients, "n": n, "seed": seed}
        methods: dict[str, Any] = {}
        for unit, curves in self.curves.items():
            for method in (name for name in curves.change if name in METHODS):
                methods.setdefault(method, {"method": method})[unit] = _areas(curves, method, options)
            if unit not in self.entropy:
                continue
            entropy = bootstrap_interval(np.mean, self.entropy[unit][:, 0], **options).as_dict()
            metrics[unit] = {"entropy": entropy, "even_entropy": float(self.entropy[unit][:, 1].mean())}
            moved = {order: curves.change[order].mean(axis=(0, 1)).tolist() for order in ORDERS[unit]}
            metrics[unit] |= {"shares": curves.shares.tolist(), "curves": moved}
            metrics[unit] |= {
                name: area for name, area in methods["attention"][unit].items() if name.startswith("area")
            }
            if truth is not None:
                metrics[unit]["performance"] = _performance(curves, truth, options)
        return {**metrics, "methods": [methods[name] for name in METHODS if name in methods]}


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
) -> _Deletions:
    """Runs a model on every record, whole and with increasing parts deleted, in the orders of the methods' maps.

    There are `draws` random orders per record; time is deleted in steps of 1 / `time_steps`.

    Raises:
        ValueError: no records, or no method that applies to this network.
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
    """One batch of whole records with the network's output and maps."""

    def __init__(self, model: Any, inputs: dict[str, Tensor], methods: Sequence[str]) -> None:
        self.model, self.inputs, self.methods = model, inputs, methods
        self.values = inputs["input_values"].cpu().numpy()
        self.mask = inputs["lead_mask"].cpu().numpy()
        self.output = output_of(model, inputs, output_attentions="attention" in methods)
        self.kind, self.whole = _outputs_of(model, self.output)

    def delete(self, draws: int, time_steps: int, rng: np.random.Generator) -> _Deletions:
        """The curves of this batch."""
        score, found = score_of(self.model, self.inputs), {}
        for method in self.methods:
            found[method] = maps_of(method, self.model, self.inputs, score)
            # where only the size of a change is measured, its sign does not count
            if method in _SIGNED and self.kind in ("log_hazard", "embedding"):
                found[method] = {unit: np.abs(values) for unit, values in found[method].items()}
        entropy, curves = {}, {}
        for unit in ("leads", "time"):
            importance = {method: units[unit] for method, units in found.items() if unit in units}
            if importance:
                curves[unit] = self._curves(unit, importance, draws, time_steps, rng)
            if "attention" in importance:
                tensor = self.output.lead_attention if unit == "leads" else self.output.time_attention
                entropy[unit] = _entropies(unit, tensor.float().cpu().numpy(), self.mask)
        return _Deletions(self.kind, entropy, curves)

    def _curves(
        self, unit: str, importance: Mapping[str, FloatArray], draws: int, time_steps: int, rng: np.random.Generator
    ) -> _Curves:
        first = next(iter(importance.values()))
        total = first.shape[1]
        shares = np.arange(1, total) / total if unit == "leads" else np.arange(1, time_steps) / time_steps
        curves = _Curves(shares)
        for name, (method, order) in _orders_of(unit, list(importance)).items():
            found = []
            for _ in range(draws if order in _DRAWN else 1):
                ranks = _deletion_ranks(importance[method], order, rng)
                found.append([self._without(unit, ranks, round(share * total)) for share in shares])
            scores = np.stack([np.stack(steps, axis=1) for steps in found])
            curves.change[name] = _change_of(self.kind, self.whole[None, :, None], scores)
            if self.kind != "embedding" and name in ORDERS[unit]:
                curves.scores[name] = scores
        return curves

    def _without(self, unit: str, ranks: Any, count: int) -> Any:
        """(N, outputs) after `count` deletions."""
        device, values, mask = self.model.device, self.values, self.mask
        if unit == "leads":
            mask = _remaining_leads(ranks, mask, count)
        else:
            stride = self.model.config.token_stride
            values = bridge(values, ranks[:, tokens_of_samples(values.shape[2], ranks.shape[1], stride)] < count)
        left = {"input_values": torch.from_numpy(values).to(device), "lead_mask": torch.from_numpy(mask).to(device)}
        return _outputs_of(self.model, output_of(self.model, {**self.inputs, **left}))[1]


def _orders_of(unit: str, methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Name of a curve -> (method, order of [`_deletion_ranks`]), of which `attention` is most marked first.

    Curves of attention keep their earlier names; the random orders are one control for all methods.
    """
    found = {name: (methods[0], name) for name in ORDERS[unit]} if "attention" in methods else {}
    for method in methods:
        found[method] = (method, "attention")
        if unit == "time" and method != "attention":
            found[f"{method}, shifted"] = (method, "shifted")
    return {**found, "random": (methods[0], "random")}


def _outputs_of(model: Any, output: Any) -> tuple[str, Any]:
    """Returns the output to follow while parts are deleted: key of `_CHANGES`, and (N, outputs) float32."""
    found: Tensor
    if head_of(model).is_survival:
        kind, found = "log_hazard", first_log_hazard(output)[:, None]
    elif head_of(model).is_classifier:
        one_of = model.config.problem_type == "single_label_classification"
        kind = "class_probability" if one_of else "probability"
        found = model.config.label_probabilities(output.logits.float()) if one_of else output.logits
    else:
        embeds = getattr(output, "ecg_embeds", None)
        kind, found = "embedding", output.pooler_output if embeds is None else embeds
    return kind, found.float().cpu().numpy()


def _change_of(kind: str, whole: Any, deleted: Any) -> FloatArray:
    """Distance between outputs on whole records and on the remaining parts: (..., outputs) twice -> (...)."""
    whole, deleted = np.asarray(whole, np.float64), np.asarray(deleted, np.float64)
    if kind == "log_hazard":
        return np.asarray(np.abs(deleted - whole)[..., 0])
    if kind == "embedding":
        lengths = np.linalg.norm(whole, axis=-1) * np.linalg.norm(deleted, axis=-1)
        return np.asarray(1 - (whole * deleted).sum(-1) / np.maximum(lengths, np.finfo(float).tiny))
    if kind == "probability":
        whole, deleted = expit(whole), expit(deleted)
    first = np.broadcast_to(whole.argmax(-1)[..., None], (*deleted.shape[:-1], 1))
    whole = np.broadcast_to(whole, deleted.shape)
    return np.take_along_axis(whole - deleted, first, axis=-1)[..., 0]


def _entropies(unit: str, maps: Any, mask: Any) -> FloatArray:
    """(N, 2): mean entropy of a record's rows, and that of even attention."""
    if unit == "leads":
        even = np.log(np.maximum(mask.sum(axis=1), 1))
        return np.stack([_row_entropy(maps, mask), even], axis=1)
    records, leads, tokens, _ = maps.shape
    each = _row_entropy(maps.reshape(-1, tokens, tokens), np.ones((records * leads, tokens))).reshape(records, leads)
    mean = np.where(mask, each, 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
    return np.stack([mean, np.full(records, np.log(tokens))], axis=1)


def _joined(parts: list[_Deletions]) -> _Deletions:
    first = parts[0]
    curves = {}
    for unit in first.curves:
        curves[unit] = _Curves(first.curves[unit].shares)
        for order in first.curves[unit].change:
            for name in ("change", "scores"):
                found = [getattr(part.curves[unit], name).get(order) for part in parts]
                if found[0] is not None:
                    getattr(curves[unit], name)[order] = np.concatenate(found, axis=1)
    entropy = {unit: np.concatenate([part.entropy[unit] for part in parts]) for unit in first.entropy}
    return _Deletions(first.kind, entropy, curves)


def _row_entropy(maps: npt.ArrayLike, present: npt.ArrayLike) -> FloatArray:
    """Mean entropy of the present rows (N, K) of each map, nats: (N, K, K) -> (N,).

    >>> round(float(_row_entropy(np.full((1, 12, 12), 1 / 12), np.ones((1, 12)))[0]), 2)
    2.48
    """
    weights, rows = np.asarray(maps, dtype=np.float64), np.asarray(present, dtype=bool)
    entropy = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(axis=-1)
    return np.asarray(np.where(rows, entropy, 0).sum(axis=1) / np.maximum(rows.sum(axis=1), 1))


def _deletion_ranks(importance: npt.ArrayLike, order: str, rng: np.random.Generator) -> IntArray:
    """Rank at which each unit is deleted: (N, units) of 0 (first), 1, ...; absent units (NaN) come last.

    Ties are ordered at random. Raises ValueError for an unknown order.
    """
    if order not in ORDERS["time"]:
        raise ValueError(f"order: expected one of {', '.join(ORDERS['time'])}, got {order!r}")
    values, chance = np.asarray(importance, dtype=np.float64), rng.random(np.shape(importance))
    if order == "shifted":
        shift = rng.integers(1, max(values.shape[1], 2), len(values))
        values = np.take_along_axis(values, (np.arange(values.shape[1]) - shift[:, None]) % values.shape[1], axis=1)
    key = {"reverse": values, "random": np.where(np.isnan(values), np.nan, 0)}.get(order, -values)
    sequence = np.lexsort((chance, np.nan_to_num(key, nan=np.inf)), axis=1)
    return np.argsort(sequence, axis=1)


def _remaining_leads(ranks: IntArray, lead_mask: npt.ArrayLike, count: int) -> BoolArray:
    """Leads left after `count` deletions, (N, L); the last lead of a record is never deleted."""
    mask = np.asarray(lead_mask, dtype=bool)
    last = np.where(mask, ranks, -1).argmax(axis=1)
    left = mask & (ranks >= count)
    left[np.arange(len(left)), last] |= mask.any(axis=1)
    return left


def _areas(curves: _Curves, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns one method's curve, and the areas between it and its controls."""
    shifted = "shifted" if method == "attention" else f"{method}, shifted"
    others = {"reverse": "reverse"} if method == "attention" else {}
    others |= {"random": "random", "shifted": shifted}
    entry: dict[str, Any] = {"shares": curves.shares.tolist(), "curves": {}}
    for order, name in {method: method, **others}.items():
        if name in curves.change:
            entry["curves"][order] = curves.change[name].mean(axis=(0, 1)).tolist()
            if order != method:
                gap = _mean_gap(curves.change[method], curves.change[name])
                entry[f"area_over_{order}"] = bootstrap_interval(np.mean, gap, **options).as_dict()
    return entry


def _mean_gap(first: npt.ArrayLike, second: npt.ArrayLike) -> FloatArray:
    """Area between two curves (draws, N, steps) of each record, (N,): positive where the first changes more."""
    one, other = (np.asarray(curve, dtype=np.float64).mean(axis=(0, 2)) for curve in (first, second))
    return np.asarray(one - other)


def _performance(curves: _Curves, truth: Truth, options: Mapping[str, Any]) -> dict[str, Any]:
    """The curves of macro AUROC or C-index, and how much sooner the attention order loses it."""
    name, arrays = truth
    columns: Callable[..., FloatArray] = _macro_auroc_columns if name == "macro_auroc" else _concordance_columns
    found: dict[str, Any] = {"metric": name, "curves": {}}
    flat = {order: np.concatenate(list(scores), axis=1) for order, scores in curves.scores.items()}
    steps = len(curves.shares)

    def gap(*arrays: FloatArray) -> float:
        each = columns(*arrays)  # the steps of the attention order, then those of each draw of the control
        return float(each[steps:].mean() - each[:steps].mean())

    for order, scores in flat.items():
        found["curves"][order] = columns(*arrays, scores).reshape(-1, steps).mean(axis=0).tolist()
    for order in (order for order in _DRAWN if order in flat):
        both = np.concatenate([flat["attention"], flat[order]], axis=1)
        found[f"area_over_{order}"] = bootstrap_interval(gap, *arrays, both, **options).as_dict()
    return found


def _concordance_columns(event: FloatArray, years: FloatArray, scores: FloatArray) -> FloatArray:
    return np.array([concordance_index(event, years, scores[:, column, 0]) for column in range(scores.shape[1])])


def _macro_auroc_columns(labels: npt.ArrayLike, scores: npt.ArrayLike) -> FloatArray:
    """Macro AUROC of many score matrices at once: (n, labels) and (n, columns, labels) -> (columns,).

    Equals [`macro_auroc`] of each column, with a single sort, so that whole curves can be bootstrapped.
    """
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores)
    positives = truth.sum(axis=0)
    usable = (positives > 0) & (positives < len(truth))
    if not usable.any():
        raise ValueError(f"labels: none of {truth.shape[1]} labels has positives and negatives")
    truth, positives, values = truth[:, usable], positives[usable], values[:, :, usable]
    ranks = np.einsum("nck,nk->ck", rankdata(values, axis=0), truth)
    aurocs = (ranks - positives * (positives + 1) / 2) / (positives * (len(truth) - positives))
    return np.asarray(aurocs.mean(axis=1))
