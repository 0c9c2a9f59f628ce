"""Bootstrap over patients."""

import numpy as np
import pytest

from ecgdan_hf.evaluation.measures.intervals import (
    Patients,
    bootstrap_comparison,
    bootstrap_difference,
    bootstrap_interval,
)


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def test_interval_of_a_mean_agrees_with_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    interval = bootstrap_interval(mean, values, n=4000, seed=1)
    half_width = 1.96 * values.std() / np.sqrt(400)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.high - interval.estimate == pytest.approx(half_width, rel=0.1)
    assert interval.estimate - interval.low == pytest.approx(half_width, rel=0.1)


def test_ten_copies_of_a_patient_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(0).normal(size=100)
    once = bootstrap_interval(mean, values, n=500, seed=3)
    copied = bootstrap_interval(mean, np.repeat(values, 10), patient_ids=np.repeat(np.arange(100), 10), n=500, seed=3)
    as_records = bootstrap_interval(mean, np.repeat(values, 10), n=500, seed=3)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert copied.num_patients == 100
    assert copied.num_records == 1000
    assert as_records.high - as_records.low < 0.5 * (copied.high - copied.low)


def test_a_resample_keeps_all_records_of_a_patient_together() -> None:
    patient_ids = np.array(["b", "a", "b", "c", "a", "b"])
    patients = Patients(patient_ids, 6)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        rows, counts = np.unique(patients.resample(rng), return_counts=True)
        by_patient = [set(counts[np.isin(rows, np.flatnonzero(patient_ids == name))]) for name in "abc"]
        assert all(len(times) <= 1 for times in by_patient)
        assert all(sum(patient_ids[rows] == name) in (0, sum(patient_ids == name)) for name in "abc")
        seen |= {tuple(rows)}
    assert len(seen) > 3


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).normal(size=60)
    first, second, other = (bootstrap_interval(mean, values, n=100, seed=seed) for seed in (7, 7, 8))
    assert first == second
    assert other.low != first.low


def test_paired_difference_is_narrower_than_two_separate_intervals() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    ours, theirs = truth + rng.normal(size=300), truth + rng.normal(size=300)
    both = ours + 0.01, ours

    def agreement(outcome: np.ndarray, scores: np.ndarray) -> float:
        return float(np.corrcoef(outcome, scores)[0, 1])

    same = bootstrap_difference(agreement, truth, scores=both[0], baseline_scores=both[1], n=200)
    assert same.estimate == pytest.approx(0, abs=1e-12)
    assert same.high - same.low == pytest.approx(0, abs=1e-9)
    one = bootstrap_interval(agreement, truth, ours, n=200)
    paired = bootstrap_difference(agreement, truth, scores=ours, baseline_scores=theirs, n=200)
    assert paired.high - paired.low < 2 * (one.high - one.low)
    assert paired.estimate == pytest.approx(agreement(truth, ours) - agreement(truth, theirs))


def test_models_compared_at_once_are_those_compared_one_by_one() -> None:
    rng = np.random.default_rng(0)
    truth, patients = rng.integers(0, 2, 60).astype(float), np.arange(60) // 2
    scores = {name: truth + rng.normal(size=60) for name in ("a", "b", "c")}
    options = {"patient_ids": patients, "n": 100, "seed": 3}

    def agreement(outcome: np.ndarray, values: np.ndarray) -> float:
        if np.mean(outcome) < 0.4:
            raise ValueError("too few")
        return float(np.corrcoef(outcome, values)[0, 1])

    def apart(outcome: np.ndarray, both: np.ndarray) -> float:
        return agreement(outcome, both[:, 0]) - agreement(outcome, both[:, 1])

    intervals, ahead = bootstrap_comparison(agreement, truth, scores=scores, **options)
    assert intervals == {name: bootstrap_interval(agreement, truth, each, **options) for name, each in scores.items()}
    assert list(ahead) == ["b", "c"]
    for name, found in ahead.items():
        pair = {"scores": scores["a"], "baseline_scores": scores[name]}
        assert found == bootstrap_difference(agreement, truth, **pair, **options)
        assert found == bootstrap_interval(apart, truth, np.stack([*pair.values()], axis=1), **options)
        assert found.num_undefined > 0


def test_undefined_resamples_are_counted_and_left_out() -> None:
    def share_of_first(values: np.ndarray) -> float:
        if not values.any():
            raise ValueError("nothing there")
        return float(values.mean())

    interval = bootstrap_interval(share_of_first, np.array([1.0, 1.0, 0.0, 0.0]), n=500)
    assert 0 < interval.num_undefined < 100  # (1/2)^4 of the resamples
    assert interval.low > 0


def test_a_metric_that_mostly_does_not_exist_is_refused() -> None:
    def only_complete(values: np.ndarray) -> float:
        if len(np.unique(values)) < 20:
            raise ValueError("nothing there")
        return 1.0

    with pytest.raises(ValueError, match="does not exist on 100 of 100 resamples"):
        bootstrap_interval(only_complete, np.arange(20), n=100)


@pytest.mark.parametrize(
    ("arrays", "patient_ids", "message"),
    [
        ((np.ones(3), np.ones(4)), None, r"one row per record.*\[3, 4\]"),
        ((np.ones(3),), ["a", "b"], r"one row per record.*\[3, 2\]"),
        ((np.ones(0),), None, "at least one record"),
        ((np.ones(3),), np.array(["a", None, "b"], dtype=object), "patient_ids.*1 are missing"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: tuple, patient_ids: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(lambda *columns: 0.0, *arrays, patient_ids=patient_ids, n=5)


def test_interval_reads_as_a_sentence_and_as_numbers() -> None:
    interval = bootstrap_interval(mean, np.arange(10.0), n=50)
    assert str(interval).startswith("4.500 (95% interval ")
    assert set(interval.as_dict()) >= {"estimate", "low", "high", "level", "num_patients", "num_undefined"}
