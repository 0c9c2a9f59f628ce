"""Sanity checks of maps, for `ecgdan sanity`: whether maps show what the output depends on and what was learned.

Deletion curves over held-out records (`deletion`), maps of networks with random weights (`randomisation`), and
occlusion by wave. Measured is the drop in the probability of the label predicted first (classification, DANet), the
change of the log hazard (survival) or the cosine distance of the embedding (pretraining); for attention, where the
outcome is known, also the loss of macro AUROC or C-index.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ecgdan_hf.evaluation.folds import check_unseen, select_folds
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import bootstrap_interval
from ecgdan_hf.evaluation.seen_records import check_records_unseen
from ecgdan_hf.explain.checks.deletion import Truth, delete
from ecgdan_hf.explain.checks.randomisation import randomisation
from ecgdan_hf.explain.maps.methods import methods_of
from ecgdan_hf.explain.maps.occlusion import WAVES, occlude_waves, waves_of
from ecgdan_hf.explain.maps.scores import score_of
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.inference.rows import columns_of, label_matrix, model_inputs
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel

_logger = logging.getLogger(__name__)


def check_maps(
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

    Validation folds are allowed: no map was fitted to them.

    Args:
        checkpoint: folder or Hub name.
        load_rows: feature extractor -> dataset.
        test_folds: folds to test on; None is every record.
        data_dir: where the rows come from, to recognise training data.
        draws, time_steps, batch_size, seed: as in [`delete`]; `n` resamples are behind each interval.
        methods: of [`methods_of`]; None is all but rollup where its order is that of attention.
        controls: name -> checkpoint whose maps are compared, such as one trained on shuffled labels.
        map_records, map_draws: records whose maps are compared, and networks with random weights.
        limit: test on a random sample of so many records.

    Raises:
        ValueError: folds the checkpoint was trained on, controls of another kind, or as [`delete`].
    """
    if draws < 1 or time_steps < 2 or map_draws < 1 or map_records < 0:
        expected = "draws, time_steps, map_draws, map_records: expected at least 1, 2, 1 and 0"
        raise ValueError(f"{expected}, got {draws}, {time_steps}, {map_draws} and {map_records}")
    started = time.monotonic()
    check_unseen(checkpoint, test_folds, data_dir, seen_in=("train_folds",))
    model, extractor = load_checkpoint(checkpoint)
    others = {name: _control(name, path, model) for name, path in (controls or {}).items()}
    methods = methods or [each for each in methods_of(model) if each != "rollup" or not _is_parallel(model)]
    tested = select_folds(load_rows(extractor), test_folds)
    seen = check_records_unseen(checkpoint, tested, with_chosen=False)
    dataset = _drawn_rows(_rows_with_outcome(model, tested), limit, seed)
    found = delete(model, dataset, draws, time_steps, batch_size, seed, progress=True, methods=methods)
    metrics = found.summary(dataset["patient_id"], _truth_of(model, dataset), n, seed)
    metrics["seen_records"] = seen
    if map_records:
        options: dict[str, Any] = {"batch_size": batch_size, "n": n, "seed": seed}
        compared = randomisation(model, _drawn_rows(dataset, map_records, seed), others, methods, map_draws, **options)
        for entry in metrics["methods"]:
            for unit, correlations in compared.get(entry["method"], {}).items():
                entry[unit] |= correlations
        metrics |= {"map_records": min(map_records, len(dataset)), "map_draws": map_draws}
        metrics["waves"] = _wave_changes(model, dataset, **options)
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


def _drawn_rows(dataset: Any, count: int | None, seed: int) -> Any:
    """Draws `count` rows and keeps their order; returns all rows for None."""
    if count is None or count >= len(dataset):
        return dataset
    return dataset.select(np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count]))


def _control(name: str, path: str, model: Any) -> Any:
    """Loads a control and checks that its maps can be compared with the model's."""
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


def _rows_with_outcome(model: EcgDanPreTrainedModel, dataset: Any) -> Any:
    """Drops rows without follow-up, for a survival model; drops the outcome columns where no row has any."""
    if not head_of(model).is_survival or not {"event", "time"} <= set(dataset.column_names):
        return dataset
    known = np.all([np.isfinite(np.asarray(dataset[name], np.float64)) for name in ("event", "time")], axis=0)
    if not known.any():
        return dataset.remove_columns(["event", "time"])
    if not known.all():
        _logger.warning("%d of %d records have no follow-up and are left out", (~known).sum(), len(dataset))
    return dataset.select(np.flatnonzero(known))


def _truth_of(model: EcgDanPreTrainedModel, dataset: Any) -> Truth | None:
    """Returns metric name and truth arrays where the rows have the outcome that the model predicts."""
    if head_of(model).is_survival and {"event", "time"} <= set(dataset.column_names):
        table = columns_of(dataset, ["event", "time", "entry"])
        return "concordance_index", (table["event"].to_numpy(np.float64), FollowUp.time_of(table))
    if not head_of(model).is_classifier or "labels" not in dataset.column_names:
        return None
    if list(dataset.features["labels"].feature.names) == model.config.label_names:
        return "macro_auroc", (label_matrix(dataset),)
    return None


@torch.no_grad()
def _wave_changes(
    model: Any, dataset: Any, batch_size: int = 128, n: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Change by bridging all P waves, QRS complexes or T waves, against the same stretches moved elsewhere.

    Returns, for each wave that was found in some record: `wave`, `num_records`, `share_of_time`, `score` (mean change
    of the score, positive where the wave raised it), `change` (its mean size) and `over_shifted` (how much larger that
    is than elsewhere), with intervals over patients.
    """
    rng, parts = np.random.default_rng(seed), []
    for inputs in model_inputs(model, dataset, batch_size):
        found = waves_of(model.config, inputs)
        places = {wave: np.stack([each[wave] for each in found]) for wave in WAVES}
        moved = {f"{wave}, moved": _moved(places[wave], rng) for wave in WAVES}
        changes = occlude_waves(score_of(model, inputs), inputs, {**places, **moved})
        parts.append({**changes, **{f"{wave}, share": places[wave].mean(axis=1) for wave in WAVES}})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    patients, rows = np.asarray(dataset["patient_id"]), []
    for wave in WAVES:
        there = np.isfinite(columns[wave])
        if there.any():
            own, other = columns[wave][there], columns[f"{wave}, moved"][there]
            options: dict[str, Any] = {"patient_ids": patients[there], "n": n, "seed": seed}
            values = {"score": own, "change": np.abs(own), "over_shifted": np.abs(own) - np.abs(other)}
            intervals = {name: bootstrap_interval(np.mean, each, **options).as_dict() for name, each in values.items()}
            share = float(columns[f"{wave}, share"][there].mean())
            rows.append({"wave": wave, "num_records": int(there.sum()), "share_of_time": share, **intervals})
    return rows


def _moved(places: Any, rng: np.random.Generator) -> Any:
    """Rotates each record's stretches along it by a random shift."""
    length = places.shape[1]
    shift = rng.integers(1, length, len(places))
    return np.take_along_axis(places, (np.arange(length) - shift[:, None]) % length, axis=1)
