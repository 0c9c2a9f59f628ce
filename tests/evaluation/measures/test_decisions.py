"""Decisions at a threshold, reclassification and sample size, by counting, by the hidden truth, by a published n."""

import doctest
from functools import partial

import numpy as np
import pytest

from ecgdan_hf.evaluation.measures import decisions
from ecgdan_hf.evaluation.measures.absolute_risk import decision_curve
from ecgdan_hf.evaluation.measures.decisions import (
    MEASURES,
    decision_intervals,
    decision_measure,
    minimum_sample_size,
    reclassification,
)
from ecgdan_hf.evaluation.measures.intervals import bootstrap_interval

HORIZON, RATE = 5.0, 0.05


def cohort(num: int, seed: int = 0, end: float = 20.0) -> tuple[np.ndarray, ...]:
    """Event and time censored at random, true risk, and the status that censoring hides."""
    rng = np.random.default_rng(seed)
    hazard = RATE * np.exp(rng.normal(size=num))
    times, ends = rng.exponential(1 / hazard), rng.uniform(0, end, num)
    risk = -np.expm1(-HORIZON * hazard)
    return (times < ends).astype(float), np.minimum(times, ends), risk, times <= HORIZON


def by_counting(status: np.ndarray, above: np.ndarray, threshold: float) -> dict[str, float]:
    tp, fp = (status & above).mean(), (~status & above).mean()
    fn, tn = (status & ~above).mean(), (~status & ~above).mean()
    rates = {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp),
        "npv": tn / (tn + fn),
    }
    return {**rates, "net_benefit": tp - fp * threshold / (1 - threshold), "share_above": tp + fp}


def test_without_censoring_before_the_horizon_measures_are_shares_by_counting() -> None:
    _, _, risk, status = cohort(500)
    event, time = status.astype(float), np.where(status, 1.0, 6.0)
    for name, expected in by_counting(status, risk >= 0.2, 0.2).items():
        assert decision_measure(event, time, risk, HORIZON, 0.2, name) == pytest.approx(expected, abs=1e-12), name


def test_with_censoring_measures_are_near_those_of_the_hidden_status() -> None:
    event, time, risk, status = cohort(40_000, seed=1)
    for name, expected in by_counting(status, risk >= 0.2, 0.2).items():
        assert decision_measure(event, time, risk, HORIZON, 0.2, name) == pytest.approx(expected, abs=0.015), name


def test_net_benefit_is_that_of_the_decision_curve_where_censoring_is_the_same_for_all() -> None:
    event, time, risk, _ = cohort(20_000, seed=2)
    curve = decision_curve(event, time, risk, HORIZON, [0.2]).iloc[0]["model"]
    assert decision_measure(event, time, risk, HORIZON, 0.2, "net_benefit") == pytest.approx(curve, abs=0.004)


def test_intervals_hold_the_estimate_and_what_has_nobody_is_none() -> None:
    event, time, risk, _ = cohort(200, seed=3)
    rows = decision_intervals(event, time, np.minimum(risk, 0.9), HORIZON, [0.2, 0.95], n=40)
    assert [row["threshold"] for row in rows] == [0.2, 0.95] and rows[1]["ppv"] is None
    for name in MEASURES:
        assert rows[0][name]["low"] <= rows[0][name]["estimate"] <= rows[0][name]["high"], name


def test_reclassification_without_censoring_is_its_definition() -> None:
    _, _, risk, status = cohort(300, seed=4)
    other = np.random.default_rng(0).permutation(risk)
    found = reclassification(status.astype(float), np.where(status, 1.0, 6.0), risk, other, HORIZON)
    up = np.sign(risk - other)
    assert found["nri"] == pytest.approx(up[status].mean() - up[~status].mean())
    gain = risk - other
    assert found["idi"] == pytest.approx(gain[status].mean() - gain[~status].mean()) and found["idi"] > 0


def test_the_sample_size_is_that_of_rileys_published_example() -> None:
    """As in the help of R's `pmsampsize`: 30 parameters, rate 0.065, 2.07 years, R² 0.051 need 5,143 records."""
    found = minimum_sample_size(30, 0.065, 2.07, 2.0, r_squared=0.051)
    assert found["num_records"] == 5143 and found["num_events"] == 692
    assert found["num_records"] == max(np.ceil(found[name]) for name in ("shrinkage", "optimism", "overall_risk"))
    with pytest.raises(ValueError, match="r_squared: expected a value between 0 and"):
        minimum_sample_size(25, 0.065, 2.07, 2.0, r_squared=0.9)


def test_examples_of_the_module_hold() -> None:
    assert doctest.testmod(decisions).failed == 0


def test_intervals_are_those_of_each_measure_by_itself() -> None:
    event, time, risk, _ = cohort(300, seed=5)
    patients = np.arange(300) // 2
    found = decision_intervals(event, time, risk, HORIZON, [0.1, 0.3], patients, n=40, seed=3)
    for row in found:
        for name in MEASURES:
            measure = partial(decision_measure, horizon_years=HORIZON, threshold=row["threshold"], name=name)
            alone = bootstrap_interval(measure, event, time, risk, patient_ids=patients, n=40, seed=3)
            assert row[name] == alone.as_dict() and alone.low < alone.estimate < alone.high, name
