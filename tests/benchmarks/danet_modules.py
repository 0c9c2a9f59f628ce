"""DANet's modules and controls side by side: metrics over seeds, paired differences, localisation, and tables."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from waveform_attention import weighted_mean

from ecgdan_hf.evaluation.measures.classification import auprc, auroc, best_f1_thresholds
from ecgdan_hf.evaluation.measures.intervals import bootstrap_comparison, bootstrap_interval

FloatArray = npt.NDArray[np.float64]

SCORES = ("AUROC", "AUPRC", "F1", "sensitivity", "specificity", "PPV")
LOCALISATION = ("highest_on_beat", "highest_on_beat_chance", "beats_found", "beats_found_chance")


def compare(tables: Mapping[str, list[pd.DataFrame]], n: int = 1000) -> dict[str, Any]:
    """Every variant's metrics, mean over seeds, and for each metric the paired difference to the first variant.

    Args:
        tables: variant -> a table for each seed, rows in the same order: `patient_id`, `true`, `probability`,
            `positive`, and the columns of `LOCALISATION` where there is attention.
        n: resamples of patients.

    Returns:
        `num_records`, `num_positive`, `num_patients`, and under `variants` for each of `SCORES` an interval with, but
        for the first variant, its `difference` (this minus the first), and the localisation where there is any.

    Raises:
        ValueError: tables of different records, which cannot be compared in pairs.
    """
    base = next(iter(tables.values()))[0]
    for name, runs in tables.items():
        if not all(_whose(table) == _whose(base) for table in runs):
            raise ValueError(f"tables: expected the same records in every variant and seed, {name} has others")
    truth = base["true"].to_numpy(dtype=float)
    options: dict[str, Any] = {"patient_ids": base["patient_id"].to_numpy(), "n": n, "seed": 0}
    stacked = {name: np.stack([_both(table) for table in runs], axis=1) for name, runs in tables.items()}
    found: dict[str, dict[str, Any]] = {name: {} for name in tables}
    for score in SCORES:
        metric = _over_seeds(score)
        intervals, differences = bootstrap_comparison(metric, truth, scores=stacked, **options)
        for name, interval in intervals.items():
            found[name][score] = interval.as_dict() | {"by_seed": _by_seed(score, truth, stacked[name])}
            if name in differences:  # given as "first minus this"
                this = differences[name].as_dict()
                turned = {"estimate": -this["estimate"], "low": -this["high"], "high": -this["low"]}
                found[name][score]["difference"] = this | turned
    for name, runs in tables.items():
        found[name] |= localisation_of(runs, n) | {"best_f1_threshold": threshold_of(runs)}
    counts = {"num_records": len(base), "num_positive": int(truth.sum()), "num_patients": base["patient_id"].nunique()}
    return {**counts, "variants": found}


def _whose(table: pd.DataFrame) -> list[tuple[str, bool]]:
    return [(str(patient), bool(true)) for patient, true in zip(table["patient_id"], table["true"], strict=True)]


def _both(table: pd.DataFrame) -> FloatArray:
    """(n, 2): probability and decision."""
    return table[["probability", "positive"]].to_numpy(dtype=float)


def _over_seeds(score: str) -> Callable[..., float]:
    def mean(truth: FloatArray, values: FloatArray) -> float:
        return float(np.mean(_by_seed(score, truth, values)))

    return mean


def _by_seed(score: str, truth: FloatArray, values: FloatArray) -> list[float]:
    """The score of each seed; values are (n, seeds, 2)."""
    return [one_score(score, truth, values[:, seed]) for seed in range(values.shape[1])]


def one_score(score: str, truth: FloatArray, values: FloatArray) -> float:
    """One of `SCORES` of probabilities and decisions (n, 2)."""
    if score in ("AUROC", "AUPRC"):
        return {"AUROC": auroc, "AUPRC": auprc}[score](truth, values[:, 0])
    said, true = values[:, 1] > 0, truth > 0
    counts = {
        "sensitivity": (said & true, true),
        "specificity": (~said & ~true, ~true),
        "PPV": (said & true, said),
        "F1": (2 * (said & true), said.astype(int) + true),
    }
    hit, total = (float(np.sum(each)) for each in counts[score])
    if total == 0:
        raise ValueError(f"{score}: expected segments to judge it by, found none")
    return hit / total


def threshold_of(runs: list[pd.DataFrame]) -> float:
    """Probability with the best F1 on patients left out, mean over seeds: for a network trained on all of them."""
    found = [best_f1_thresholds(run[["true"]], run[["probability"]], ["label"])["label"] for run in runs]
    return float(np.mean(found))


def localisation_of(runs: list[pd.DataFrame], n: int) -> dict[str, Any]:
    """Means over the positive segments and seeds, with intervals over patients; empty without attention."""
    if "num_beats" not in runs[0] or runs[0]["num_beats"].isna().all():
        return {}
    table = pd.concat(runs)
    mean = table.groupby(["record_id", "patient_id"], as_index=False)[[*LOCALISATION, "num_beats"]].mean().dropna()
    found = {}
    for name in LOCALISATION:
        weights = mean["num_beats"] if name.startswith("beats_found") else np.ones(len(mean))
        interval = bootstrap_interval(weighted_mean, weights, mean[name], patient_ids=mean["patient_id"], n=n, seed=0)
        found[name] = interval.as_dict()
    return found


def tables_text(metrics: Mapping[str, Any]) -> str:
    """Returns two Markdown tables with their captions.

    Args:
        metrics: what [`compare`] returns, with `data`, `folds` and `label`, and `changed` and `seeds` of each variant.
    """
    return "\n\n".join([_what(metrics), _score_table(metrics), WHERE, _place_table(metrics)])


WHERE = (
    "Whether a(t) is highest within 150 ms of one of the label's beats, and which share of these beats lies within "
    "150 ms of any attention peak (half way from the median to the maximum of a(t) or higher), in the segments that "
    "have one; by chance: the same a(t) shifted in time."
)


def _what(metrics: Mapping[str, Any]) -> str:
    counts = (
        f"{metrics['num_records']:,} segments, {metrics['num_positive']:,} of them with {metrics['label']}, of "
        f"{metrics['num_patients']} patients"
    )
    pretrained = "neither its patient in fine-tuning nor its database" if metrics.get("other_database") else ""
    seen = f"{pretrained} in pretraining" if pretrained else "not its patient in fine-tuning"
    return (
        f"Source {metrics['data']}: {counts}; {metrics['folds']} folds of patients, means over seeds. Each segment is "
        f"predicted by a network that saw {seen}. In "
        "brackets 95 % intervals by resampling patients, in pairs for differences; few patients have most of the "
        "positive segments, so they are wide, and the luck of a seed is not in them."
    )


def _score_table(metrics: Mapping[str, Any]) -> str:
    variants = metrics["variants"]
    first = next(iter(variants))
    heads = ["variant", "what changed", "seeds", *SCORES, f"AUROC minus {first}", f"F1 minus {first}"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, entry in variants.items():
        differences = [_difference(entry[score].get("difference")) for score in ("AUROC", "F1")]
        cells = [name, entry["changed"], str(len(entry["seeds"])), *(_interval(entry[score]) for score in SCORES)]
        lines.append(_row([*cells, *differences]))
    return "\n".join(lines)


def _place_table(metrics: Mapping[str, Any]) -> str:
    heads = ["variant", "highest on the beat", "by chance", "beats found", "by chance"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, entry in metrics["variants"].items():
        if LOCALISATION[0] in entry:
            lines.append(_row([name, *(_interval(entry[key]) for key in LOCALISATION)]))
    return "\n".join(lines)


def _interval(found: Mapping[str, Any]) -> str:
    return "{estimate:.3f} ({low:.3f} to {high:.3f})".format(**found)


def _difference(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else "{estimate:+.3f} ({low:+.3f} to {high:+.3f})".format(**found)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
