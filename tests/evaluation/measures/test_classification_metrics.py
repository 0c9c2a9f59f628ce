"""AUROC, AUPRC and thresholds."""

import doctest

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ecgdan_hf.evaluation.measures import classification
from ecgdan_hf.evaluation.measures.classification import (
    _f1_at,
    auprc,
    auroc,
    auroc_per_label,
    best_f1_thresholds,
    classification_metrics,
    macro_auroc,
)

NAMES = ["NORM", "MI", "STTC", "CD", "HYP"]


def scored(num: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Five labels of falling prevalence and probabilities that know something about them, with ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((num, 5)) < [0.5, 0.4, 0.3, 0.2, 0.1]).astype(float)
    return labels, np.round(1 / (1 + np.exp(-(labels - 0.5 + rng.normal(size=(num, 5))))), 2)


def test_auroc_equals_scikit_learn_with_ties() -> None:
    labels, scores = scored()
    expected = roc_auc_score(labels, scores, average=None)
    assert auroc_per_label(labels, scores) == pytest.approx(expected, abs=1e-12)
    assert auroc(labels[:, 1], scores[:, 1]) == pytest.approx(expected[1], abs=1e-12)
    assert macro_auroc(labels, scores) == pytest.approx(expected.mean(), abs=1e-12)


def test_unknown_labels_are_left_out_for_that_label_alone() -> None:
    labels, scores = scored()
    full = auroc_per_label(labels, scores)
    labels[:100, 2] = np.nan
    found = auroc_per_label(labels, scores)
    assert found[2] == pytest.approx(roc_auc_score(labels[100:, 2], scores[100:, 2]))
    assert found[[0, 1, 3, 4]] == pytest.approx(full[[0, 1, 3, 4]])


def test_a_label_without_positives_is_named_and_not_silently_dropped() -> None:
    labels, scores = scored()
    labels[:, 4] = 0
    metrics = classification_metrics(labels, scores, NAMES, n=20)
    assert metrics["labels_not_estimable"] == ["HYP"]
    assert (metrics["num_labels"], metrics["num_labels_estimable"]) == (5, 4)
    assert metrics["macro_auroc"]["estimate"] == pytest.approx(roc_auc_score(labels[:, :4], scores[:, :4]))
    assert metrics["labels"]["HYP"] == {"num_positives": 0, "num_negatives": 300}


def test_metrics_report_every_label_with_interval_and_threshold() -> None:
    labels, scores = scored()
    thresholds = best_f1_thresholds(labels, scores, NAMES)
    metrics = classification_metrics(labels, scores, NAMES, np.arange(300) // 3, thresholds, n=50)
    assert metrics["macro_auroc"]["num_patients"] == 100
    for column, name in enumerate(NAMES):
        entry = metrics["labels"][name]
        assert entry["auroc"]["low"] < entry["auroc"]["estimate"] < entry["auroc"]["high"]
        assert entry["auprc"] == pytest.approx(average_precision_score(labels[:, column], scores[:, column]))
        called = scores[:, column] >= thresholds[name]
        assert entry["f1"] == pytest.approx(f1_score(labels[:, column], called))


def test_a_label_too_rare_to_bootstrap_keeps_its_estimate_without_an_interval() -> None:
    labels, scores = scored(60)
    labels[:, 4] = np.nan
    labels[:2, 4] = 1, 0  # both are drawn in only four resamples of ten
    entry = classification_metrics(labels, scores, NAMES, n=200)["labels"]["HYP"]
    assert entry["auroc"] == {"estimate": auroc(labels[:, 4], scores[:, 4]), "low": None, "high": None}


def test_best_f1_threshold_beats_every_other_threshold() -> None:
    labels, scores = scored()
    thresholds = best_f1_thresholds(labels, scores, NAMES)
    for column, name in enumerate(NAMES):
        best = _f1_at(labels[:, column], scores[:, column], thresholds[name])
        others = [_f1_at(labels[:, column], scores[:, column], cut) for cut in np.unique(scores)]
        assert best == pytest.approx(max(others))
    labels[:, 0] = 0
    assert best_f1_thresholds(labels, scores, NAMES)["NORM"] == 0.5


def test_random_scores_score_half_and_perfect_scores_one() -> None:
    labels, _ = scored(5000)
    noise = np.random.default_rng(5).random(labels.shape)
    assert macro_auroc(labels, noise) == pytest.approx(0.5, abs=0.02)
    assert macro_auroc(labels, labels) == 1.0
    assert auprc(labels[:, 0], labels[:, 0]) == 1.0


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], "no negative among 2 records"),
        ([0, np.nan], [0.1, 0.2], "no positive among 1 records"),
        ([0, 2], [0.1, 0.2], "other values"),
        ([0, 1], [0.1, np.nan], "scores: expected numbers, got 1 NaN"),
        ([0, 1], [0.1], r"expected two arrays \(records,\)"),
    ],
)
def test_what_has_no_auroc_is_refused(labels: list, scores: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        auroc(labels, scores)


def test_a_macro_average_over_nothing_and_a_wrong_number_of_names_are_refused() -> None:
    with pytest.raises(ValueError, match="none of 2 labels has positives and negatives"):
        macro_auroc(np.zeros((4, 2)), np.zeros((4, 2)))
    labels, scores = scored(20)
    with pytest.raises(ValueError, match="label_names: expected 5 names, one per column, got 2"):
        classification_metrics(labels, scores, ["A", "B"], n=5)


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(classification).failed == 0


def test_the_macro_average_is_over_common_labels_in_every_resample():
    rng = np.random.default_rng(0)
    labels = np.stack([rng.random(400) < 0.5, np.arange(400) < 3], axis=1).astype(float)
    scores = np.stack([labels[:, 0] + rng.standard_normal(400), rng.standard_normal(400)], axis=1)
    metrics = classification_metrics(labels, scores, ["common", "rare"], n=50)
    assert metrics["macro_auroc"]["estimate"] == metrics["labels"]["common"]["auroc"]["estimate"]
    assert metrics["macro_auroc"]["low"] == metrics["labels"]["common"]["auroc"]["low"]
    assert metrics["labels_too_rare"] == ["rare"] and metrics["num_labels_estimable"] == 2
    few = classification_metrics(labels[:12], scores[:12], ["common", "rare"], n=50)
    assert few["labels_too_rare"] == []  # where no label is common, all count
