"""Network and measurement together: better than either, calibrated, and silent where neither knows."""

import numpy as np
import pytest
from scipy.special import expit

from ecgdan_hf.evaluation.measures.classification import macro_auroc
from ecgdan_hf.inference.fused_zero_shot import MIN_EVIDENCE, FusedZeroShot

PREVALENCE = 0.2


def cohort(size: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, a network's scores in its own units, and probabilities by measurement, independent given the label."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(size) < PREVALENCE).astype(float)
    scores = 40 + 7 * (1.5 * truth + rng.normal(size=size))
    measured = expit(2 * (1.2 * truth - 0.6 + 0.6 * rng.normal(size=size)))
    return truth, scores, measured


def auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    return macro_auroc(truth[:, None], scores[:, None])


def test_together_they_rank_better_than_each_alone_without_any_label() -> None:
    truth, scores, measured = cohort()
    fused = FusedZeroShot.from_prevalence(scores, measured, PREVALENCE)(scores, measured, 0).probability
    assert auroc(truth, fused) > max(auroc(truth, scores), auroc(truth, measured)) + 0.02


def test_probabilities_are_those_of_the_labels() -> None:
    truth, scores, measured = cohort()
    few = np.r_[np.flatnonzero(truth == 1)[:80], np.flatnonzero(truth == 0)[:320]]
    labelled = FusedZeroShot.from_labels(scores[few], measured[few], truth[few])(scores, measured, 0).probability
    unlabelled = FusedZeroShot.from_prevalence(scores, measured, PREVALENCE)(scores, measured, 0).probability
    for found, error in ((labelled, 0.1), (unlabelled, 0.2)):
        bins = np.digitize(found, [0.1, 0.3, 0.6])
        for each in range(4):
            assert abs(found[bins == each].mean() - truth[bins == each].mean()) < error, each
    assert unlabelled.mean() == pytest.approx(PREVALENCE, abs=1e-6)


def test_scores_alone_are_calibrated_by_prevalence_where_nothing_is_measured() -> None:
    truth, scores, _ = cohort()
    found = FusedZeroShot.from_prevalence(scores, None, PREVALENCE)(scores, None, 0)
    assert auroc(truth, found.probability) == pytest.approx(auroc(truth, scores))
    assert ((found.probability - truth) ** 2).mean() < 0.85 * PREVALENCE * (1 - PREVALENCE)
    assert not found.measured.any()


def test_a_missing_half_contributes_nothing_and_no_half_is_no_answer() -> None:
    truth, scores, measured = cohort()
    fused = FusedZeroShot.from_labels(scores, measured, truth)
    answer = fused([80.0, np.nan, np.nan, 80.0], [np.nan, 0.999, np.nan, 0.999])
    assert np.isnan(answer.probability).tolist() == [False, False, True, False]
    assert answer.probability[3] > max(answer.probability[:2]) > 0.5
    assert answer.network[1] == answer.network[2] == answer.measured[0] == 0


def test_it_abstains_near_the_prevalence_and_only_there() -> None:
    truth, scores, measured = cohort()
    fused = FusedZeroShot.from_labels(scores, measured, truth)
    sure, always = fused(scores, measured).probability, fused(scores, measured, 0).probability
    distance = np.abs(np.log(always / (1 - always)) - np.log(fused.prevalence / (1 - fused.prevalence)))
    np.testing.assert_array_equal(np.isnan(sure), distance < MIN_EVIDENCE)
    assert 0.02 < np.isnan(sure).mean() < 0.5


def test_a_network_that_knows_nothing_gets_no_weight() -> None:
    truth, _, measured = cohort()
    noise = np.random.default_rng(5).normal(size=len(truth))
    for fused in (
        FusedZeroShot.from_labels(noise, measured, truth),
        FusedZeroShot.from_prevalence(noise, measured, PREVALENCE),
    ):
        assert fused.weights[0] < 0.15
    opposed = FusedZeroShot.from_labels(-10 * truth + noise, measured, truth)
    assert opposed.weights[0] == 0


def test_a_measurement_is_never_certain() -> None:
    truth, scores, measured = cohort()
    fused = FusedZeroShot.from_labels(scores, measured, truth)
    np.testing.assert_array_equal(fused([45.0], [1.0]).probability, fused([45.0], [0.99]).probability)
    assert fused([45.0], [1.0]).probability[0] < 1


def test_it_refuses_what_cannot_be_calibrated() -> None:
    _, scores, measured = cohort(100)
    with pytest.raises(ValueError, match="labels: expected 100 of 0 and 1, both kinds"):
        FusedZeroShot.from_labels(scores, measured, np.zeros(100))
    with pytest.raises(ValueError, match=r"prevalence: expected a share between 0 and 1, got 1\.5"):
        FusedZeroShot.from_prevalence(scores, measured, 1.5)
    with pytest.raises(ValueError, match=r"measured: expected shape \(100,\) as scores"):
        FusedZeroShot.from_prevalence(scores, measured[:5], 0.5)
