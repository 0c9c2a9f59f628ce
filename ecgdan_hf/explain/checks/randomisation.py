"""Randomisation test: does a map change when the weights are random? (Adebayo et al., NeurIPS 2018, arXiv 1810.03292)

Weights are randomly initialised from the head down to the stem, and the maps are compared with those of the trained
network by rank correlation. A map that stays the same shows the ECG and the architecture, not what was learned. The
randomised batch norms are refitted: with the old mean and variance activations explode or vanish, and maps would
differ for that reason alone.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import nn

from ecgdan_hf.evaluation.measures.intervals import bootstrap_interval
from ecgdan_hf.explain.maps.methods import maps_of
from ecgdan_hf.explain.maps.scores import Inputs, score_of
from ecgdan_hf.inference.rows import model_inputs

FloatArray = npt.NDArray[np.float64]

_ENCODER = ("stem", "trunk", "time_attention", "lead_attention")
"""Parts of the encoder, from the signal up; all others are its pooling."""


def _stages(model: nn.Module) -> dict[str, list[str]]:
    """Names of the submodules with weights by depth, from the head down to the signal.

    >>> from ecgdan_hf import EcgDanConfig, EcgDanForSequenceClassification
    >>> list(_stages(EcgDanForSequenceClassification(EcgDanConfig(trunk="light", input_kind="rhythm"))))
    ['head', 'pooling', 'lead_attention', 'time_attention', 'trunk', 'stem']
    """
    found: dict[str, list[str]] = {name: [] for name in ("head", "pooling", *reversed(_ENCODER), "waveform_module")}
    prefix = next((name for name in ("ecgdan", "resnet") if hasattr(model, name)), "")
    for name, child in model.named_children():
        if name != prefix:
            found[_stage(name, "pooling" if not prefix else "head")].append(name)
            continue
        for inner, _ in child.named_children():
            found[_stage(inner, "pooling")].append(f"{name}.{inner}")
    return {stage: names for stage, names in found.items() if any(_weights(model, name) for name in names)}


def _stage(name: str, other: str) -> str:
    same = {"norm": "stem", "blocks": "trunk"}  # of DANet's residual network
    name = same.get(name, name)
    return name if name in (*_ENCODER, "waveform_module") else other


def _weights(model: nn.Module, name: str) -> bool:
    return next(model.get_submodule(name).parameters(), None) is not None


def randomised(model: Any, names: Sequence[str], seed: int, inputs: Sequence[Inputs] = ()) -> Any:
    """Copies the model and randomly initialises these submodules.

    Args:
        model: any model of the package; not changed.
        names: of submodules, see [`_stages`].
        seed: of the weights.
        inputs: batches to which the randomised batch norms are refitted.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(model)(copy.deepcopy(model.config)).state_dict()
    twin = copy.deepcopy(model)
    state = twin.state_dict()
    chosen = {key: fresh[key] for key in state if key.startswith(tuple(f"{name}." for name in names))}
    twin.load_state_dict({**state, **chosen})
    twin.train(False)
    _fit_norms([twin.get_submodule(name) for name in names], twin, inputs)
    return twin


@torch.no_grad()
def _fit_norms(parts: Sequence[nn.Module], model: nn.Module, inputs: Sequence[Inputs]) -> None:
    """Refits mean and variance of the batch norms of these parts to these batches."""
    norms = [each for part in parts for each in part.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not inputs or not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
        norm.train()
    for batch in inputs:
        model(**batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _cascade(model: Any, seed: int, inputs: Sequence[Inputs] = ()) -> Iterator[tuple[str, Any]]:
    """Yields, from the head down, (stage, model with random weights from the head to this stage)."""
    reached: list[str] = []
    for stage, names in _stages(model).items():
        reached += names
        yield stage, randomised(model, reached, seed, inputs)


def rank_correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> FloatArray:
    """Spearman's correlation of the maps of each record: (N, units) twice -> (N,).

    NaN where a map has fewer than three units, or all units are equal. Units that are NaN in either map are ignored.

    >>> rank_correlation([[1, 2, 3]], [[10, 30, 20]]).round(6).tolist()
    [0.5]
    """
    pairs = zip(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64), strict=True)
    return np.array([_spearman(one, other) for one, other in pairs])


def _spearman(one: FloatArray, other: FloatArray) -> float:
    there = np.isfinite(one) & np.isfinite(other)
    ranks = [rankdata(each[there]) for each in (one, other)]
    if there.sum() < 3 or min(np.ptp(each) for each in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


@torch.no_grad()
def _compare_maps(
    model: Any, dataset: Any, others: Mapping[str, Any], methods: Sequence[str], batch_size: int = 128, steps: int = 32
) -> dict[str, dict[str, dict[str, FloatArray]]]:
    """Rank correlation of a network's maps with those of other networks, for the same records and labels.

    The most probable label of the tested network is explained. Returns method -> `leads` and `time` -> name -> (N,).
    """
    found: dict[str, Any] = {}
    for inputs in model_inputs(model, dataset, batch_size):
        label = score_of(model, inputs).column
        for method in methods:
            own, *maps = (
                maps_of(method, each, inputs, score_of(each, inputs, label), steps)
                for each in (model, *others.values())
            )
            for name, theirs in zip(others, maps, strict=True):
                for unit in own:
                    by_name = found.setdefault(method, {}).setdefault(unit, {})
                    by_name.setdefault(name, []).append(rank_correlation(own[unit], theirs[unit]))
    return {
        method: {unit: {name: np.concatenate(parts) for name, parts in names.items()} for unit, names in units.items()}
        for method, units in found.items()
    }


def randomisation(
    model: Any,
    dataset: Any,
    controls: Mapping[str, Any],
    methods: Sequence[str],
    draws: int = 1,
    batch_size: int = 128,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares maps with those of networks with random weights, and of other networks.

    There are `draws` networks with random weights at each depth; the correlation of a record is their mean. Intervals
    are over patients. Returns method -> `leads` and `time` -> `random_weights` (stage the weights are random down to
    -> interval, or None where the maps have no order) and `controls` (name of another network -> the same).
    """
    batches, correlations = list(model_inputs(model, dataset, batch_size)), []
    for draw in range(draws):
        twins = dict(_cascade(model, seed + draw, batches))
        correlations.append(_compare_maps(model, dataset, twins, methods, batch_size))
    others = _compare_maps(model, dataset, controls, methods, batch_size) if controls else {}
    options: dict[str, Any] = {"patient_ids": np.asarray(dataset["patient_id"]), "n": n, "seed": seed}
    found: dict[str, Any] = {}
    for method, units in correlations[0].items():
        for unit, names in units.items():
            random = {name: np.mean([each[method][unit][name] for each in correlations], axis=0) for name in names}
            entry = {"random_weights": {name: _mean_interval(values, options) for name, values in random.items()}}
            if others:
                given = others[method][unit].items()
                entry["controls"] = {name: _mean_interval(values, options) for name, values in given}
            found.setdefault(method, {})[unit] = entry
    return found


def _mean_interval(values: FloatArray, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Mean over the records that have a correlation, with its interval; None where none has one."""
    known = np.isfinite(values)
    if not known.any():
        return None
    patients = options["patient_ids"][known]
    return bootstrap_interval(np.mean, values[known], **{**options, "patient_ids": patients}).as_dict()
