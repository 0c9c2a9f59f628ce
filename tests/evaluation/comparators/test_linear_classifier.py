"""Linear classifiers of labels, and how they would score patients they were not fitted to."""

import numpy as np

from ecgdan_hf.evaluation.comparators.linear_classifier import LinearClassifier

RNG = np.random.default_rng(0)


def test_it_finds_a_linear_label_and_answers_a_constant_one_by_its_share():
    features = RNG.standard_normal((300, 20))
    labels = np.stack([features[:, 0] > 0, np.zeros(300)], axis=1).astype(float)
    fitted = LinearClassifier.fit(features[:200], labels[:200], np.arange(200) // 2)
    logits = fitted.logits(features[200:])
    assert ((logits[:, 0] > 0) == labels[200:, 0]).mean() > 0.9
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 1])), 0.5 / 201)


def test_noise_is_not_recognised_in_patients_that_were_left_out():
    features = RNG.standard_normal((120, 100))
    labels = (np.arange(120) // 2 % 2).astype(float)[:, None]  # of patients with two records, at random
    patients = np.arange(120) // 2
    fitted = LinearClassifier.fit(features, labels, patients, regularisation=(10.0, 20.0))
    assert ((fitted.logits(features) > 0) == labels).mean() > 0.95
    assert ((fitted.unseen_logits > 0) == labels).mean() < 0.7
    assert set(fitted.inverse_penalties) <= {10.0, 20.0}


def test_a_label_of_one_patient_has_no_unseen_logits():
    features, labels = RNG.standard_normal((40, 3)), (np.arange(40) < 2).astype(float)[:, None]
    fitted = LinearClassifier.fit(features, labels, np.arange(40) // 2)
    assert np.isnan(fitted.unseen_logits).all() and np.isfinite(fitted.logits(features)).all()
