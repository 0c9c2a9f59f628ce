"""Metrics of multi-label scores: AUROC, AUPRC, thresholds and F1, with intervals over patients.

Labels are 1 (present), 0 (absent) or NaN (unknown, left out for that label alone). A label without a positive or
without a negative has no AUROC: it is reported as not estimable, and every macro average says how many labels entered.
Plain functions of arrays: imports numpy, scipy and scikit-learn, nothing of the network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from ecgdan_hf.evaluation.measures.intervals import FloatArray, bootstrap_interval

DEFAULT_THRESHOLD = 0.5
MIN_POSITIVES = 10
"""Positives, and negatives, that a label needs to enter a macro average."""


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    r"""Returns the area under the ROC curve of one label, as the Mann-Whitney statistic.

    $$\mathrm{AUROC} = P(s_+ > s_-) + \tfrac12 P(s_+ = s_-)$$

    Args:
        labels: (n,), 1 present, 0 absent, NaN unknown.
        scores: (n,), higher means more likely.

    Raises:
        ValueError: different shapes, another label value, a NaN score, or a label without positives or negatives.

    Examples:
        >>> auroc([1, 0, 1, 0], [0.9, 0.1, 0.4, 0.4])
        0.875
    """
    truth, values = _check(labels, scores, ndim=1)
    positives, negatives = _counts(truth)
    if not positives or not negatives:
        missing = "negative" if positives else "positive"
        raise ValueError(f"labels: no {missing} among {positives + negatives} records, the AUROC does not exist")
    return _auroc(truth, values)


def auroc_per_label(labels: npt.ArrayLike, scores: npt.ArrayLike) -> FloatArray:
    """Returns the AUROC of every label.

    Args:
        labels: (n, labels), 1, 0 or NaN.
        scores: (n, labels).

    Returns:
        (labels,), NaN where a label has no positives or no negatives.

    Raises:
        ValueError: different shapes, another label value, or a NaN score.
    """
    truth, values = _check(labels, scores, ndim=2)
    return np.array([_auroc(truth[:, column], values[:, column]) for column in range(truth.shape[1])])


def averaged_labels(labels: npt.ArrayLike, min_positives: int = MIN_POSITIVES) -> npt.NDArray[np.bool_]:
    """Returns which labels a macro average is over, (labels,): those with so many positives and negatives.

    If no label has as many, those with at least one. Choose them once for all resamples and models: a rare label would
    leave the average with its last positive, and the interval would be one of another number.

    Args:
        labels: (n, labels), 1, 0 or NaN.
        min_positives: how many; 1 for labels that were chosen already.
    """
    truth = np.asarray(labels, dtype=np.float64)
    fewest = np.minimum((truth == 1).sum(axis=0), (truth == 0).sum(axis=0))
    common: npt.NDArray[np.bool_] = fewest >= min_positives
    return common if common.any() else fewest > 0


def macro_auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Returns the mean AUROC of the labels that have positives and negatives.

    How many those are is part of the number: [`classification_metrics`] reports it.

    Args:
        labels, scores: as in [`auroc_per_label`].

    Raises:
        ValueError: as [`auroc_per_label`], or no label is estimable.
    """
    values = auroc_per_label(labels, scores)
    if np.isnan(values).all():
        raise ValueError(f"labels: none of {len(values)} labels has positives and negatives, the AUROC does not exist")
    return float(np.nanmean(values))


def auprc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Returns the average precision of one label (scikit-learn); by chance it is the share of positives.

    Args:
        labels, scores: as in [`auroc`].

    Raises:
        ValueError: as [`auroc`], or no positive.
    """
    from sklearn.metrics import average_precision_score

    truth, values = _check(labels, scores, ndim=1)
    known = ~np.isnan(truth)
    if not truth[known].any():
        raise ValueError(f"labels: no positive among {int(known.sum())} records, the AUPRC does not exist")
    return float(average_precision_score(truth[known], values[known]))


def best_f1_thresholds(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, label_names: Sequence[str]
) -> dict[str, float]:
    """Returns the threshold of each label with the highest F1; choose it on validation data.

    A record is positive where its probability is at or above the threshold. A label without positives keeps 0.5.

    Args:
        labels: (n, labels), 1, 0 or NaN.
        probabilities: (n, labels).
        label_names: names of the columns.

    Raises:
        ValueError: different shapes, another label value, a NaN probability, or a wrong number of names.
    """
    from sklearn.metrics import precision_recall_curve

    truth, values = _check(labels, probabilities, ndim=2)
    thresholds = {}
    for column, name in enumerate(_check_names(label_names, truth)):
        known = ~np.isnan(truth[:, column])
        if not truth[known, column].any():
            thresholds[name] = DEFAULT_THRESHOLD
            continue
        precision, recall, cuts = precision_recall_curve(truth[known, column], values[known, column])
        f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], np.finfo(float).tiny)
        thresholds[name] = float(cuts[np.argmax(f1)])
    return thresholds


def _f1_at(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float) -> float:
    """Returns the F1 of one label, positive at or above the threshold; 0 without true positives."""
    truth, values = _check(labels, probabilities, ndim=1)
    known = ~np.isnan(truth)
    called, present = values[known] >= threshold, truth[known] == 1
    if not present.any():
        raise ValueError(f"labels: no positive among {int(known.sum())} records, F1 does not exist")
    return float(2 * (called & present).sum() / (called.sum() + present.sum()))


def classification_metrics(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    label_names: Sequence[str],
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    thresholds: Mapping[str, float] | None = None,
    n: int = 1000,
    seed: int = 0,
    min_positives: int = MIN_POSITIVES,
) -> dict[str, Any]:
    """Returns the entries of `metrics.json` for a classifier.

    The macro average is over the labels that [`averaged_labels`] chooses.

    Args:
        labels: (n, labels), 1, 0 or NaN.
        probabilities: (n, labels).
        label_names: names of the columns.
        patient_ids, n, seed: as in [`bootstrap_interval`].
        thresholds: threshold by label name, chosen elsewhere; None reports no F1.
        min_positives: as in [`averaged_labels`].

    Returns:
        `macro_auroc` (the fields of `Interval`), `num_records`, `num_labels`, `num_labels_estimable`,
        `labels_not_estimable`, `labels_too_rare` for the macro average, and under `labels` one entry per name:
        `num_positives`, `num_negatives`, and, where estimable, `auroc` (the fields of `Interval`), `auprc`,
        `threshold`, `f1`.

    Raises:
        ValueError: as [`macro_auroc`], or a wrong number of names.
    """
    truth, values = _check(labels, probabilities, ndim=2)
    names = _check_names(label_names, truth)
    common = averaged_labels(truth, min_positives)
    common = common if common.any() else np.ones_like(common)  # which is refused
    averaged = truth[:, common], values[:, common]
    macro = bootstrap_interval(macro_auroc, *averaged, patient_ids=patient_ids, n=n, seed=seed)
    per_label = {
        name: _label_metrics(truth[:, column], values[:, column], patient_ids, (thresholds or {}).get(name), n, seed)
        for column, name in enumerate(names)
    }
    missing = [name for name, entry in per_label.items() if "auroc" not in entry]
    return {
        "macro_auroc": macro.as_dict(),
        "num_records": len(truth),
        "num_labels": len(names),
        "num_labels_estimable": len(names) - len(missing),
        "labels_not_estimable": missing,
        "labels_too_rare": [
            name for name, kept in zip(names, common, strict=True) if not kept and name not in missing
        ],
        "labels": per_label,
    }


def _label_metrics(
    truth: FloatArray,
    values: FloatArray,
    patient_ids: Sequence[Any] | npt.ArrayLike | None,
    threshold: float | None,
    n: int,
    seed: int,
) -> dict[str, Any]:
    positives, negatives = _counts(truth)
    entry: dict[str, Any] = {"num_positives": positives, "num_negatives": negatives}
    if not positives or not negatives:
        return entry
    try:
        entry["auroc"] = bootstrap_interval(auroc, truth, values, patient_ids=patient_ids, n=n, seed=seed).as_dict()
    except ValueError:  # one positive patient: most resamples lose it, so the estimate stands without an interval
        entry["auroc"] = {"estimate": auroc(truth, values), "low": None, "high": None}
    entry["auprc"] = auprc(truth, values)
    if threshold is not None:
        entry["threshold"], entry["f1"] = float(threshold), _f1_at(truth, values, threshold)
    return entry


def _auroc(truth: FloatArray, values: FloatArray) -> float:
    positives, negatives = _counts(truth)
    if not positives or not negatives:
        return float("nan")
    known = ~np.isnan(truth)
    ranks = rankdata(values[known])
    return float((ranks[truth[known] == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _counts(truth: FloatArray) -> tuple[int, int]:
    return int((truth == 1).sum()), int((truth == 0).sum())


def _check(labels: npt.ArrayLike, scores: npt.ArrayLike, ndim: int) -> tuple[FloatArray, FloatArray]:
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    form = "(records, labels)" if ndim == 2 else "(records,)"
    if truth.ndim != ndim or truth.shape != values.shape:
        raise ValueError(f"labels and scores: expected two arrays {form}, got shapes {truth.shape} and {values.shape}")
    if not (np.isin(truth, (0.0, 1.0)) | np.isnan(truth)).all():
        raise ValueError("labels: expected 1 (present), 0 (absent) or NaN (unknown), got other values")
    if np.isnan(values).any():
        raise ValueError(f"scores: expected numbers, got {int(np.isnan(values).sum())} NaN")
    return truth, values


def _check_names(label_names: Sequence[str], truth: FloatArray) -> list[str]:
    names = list(label_names)
    if len(names) != truth.shape[1]:
        raise ValueError(f"label_names: expected {truth.shape[1]} names, one per column, got {len(names)}")
    return names
