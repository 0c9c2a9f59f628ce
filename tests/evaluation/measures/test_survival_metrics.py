"""Harrell's C, Kaplan-Meier and calibration."""

import numpy as np
import pandas as pd
import pytest
from effort import effort_of
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import concordance_index as lifelines_concordance_index

from ecgdan_hf.evaluation.measures.survival import (
    calibration,
    concordance_index,
    kaplan_meier,
    logrank_p_value,
    survival_metrics,
)


def cohort(num: int, seed: int = 0, effect: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Event, time and the true log hazard of an exponential model, censored at 10 years."""
    rng = np.random.default_rng(seed)
    log_hazard = effect * rng.normal(size=num)
    times = rng.exponential(20 * np.exp(-log_hazard))
    return (times < 10).astype(float), np.minimum(times, 10.0), log_hazard


def test_concordance_index_equals_lifelines_with_ties_in_everything() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(300):
        num = int(rng.integers(2, 80))
        event, time = rng.integers(0, 2, num), rng.integers(1, 12, num) / 2
        score = rng.integers(0, 8, num) / 4
        try:
            expected = lifelines_concordance_index(time, -score, event)
        except ZeroDivisionError:
            with pytest.raises(ValueError, match="the C-index does not exist"):
                concordance_index(event, time, score)
            continue
        assert concordance_index(event, time, score) == expected
        compared += 1
    assert compared > 200


def test_concordance_index_equals_the_definition_written_out() -> None:
    event, time, score = cohort(120, seed=4)
    time, score = np.ceil(time), np.round(score, 1)
    right = tied = pairs = 0
    for i in range(120):
        for j in range(120):
            if event[i] and (time[j] > time[i] or (time[j] == time[i] and not event[j])):
                pairs += 1
                right += score[i] > score[j]
                tied += score[i] == score[j]
    assert concordance_index(event, time, score) == (right + tied / 2) / pairs


def test_concordance_index_depends_on_the_order_alone() -> None:
    event, time, score = cohort(200)
    reference = concordance_index(event, time, score)
    assert concordance_index(event, time**2, np.exp(3 * score) + 5) == reference
    assert concordance_index(event, time, -score) == pytest.approx(1 - reference)
    assert concordance_index(event, time, np.zeros(200)) == 0.5
    shuffled = np.random.default_rng(1).permutation(200)
    assert concordance_index(event[shuffled], time[shuffled], score[shuffled]) == reference


def test_concordance_index_is_fast_enough_to_bootstrap() -> None:
    event, time, score = cohort(100_000)
    lines, peak_bytes = effort_of(lambda: concordance_index(event, time, score))
    assert lines < 2000 and peak_bytes < 300 * 100_000  # 560 and 125: no loop over records, no matrix of pairs


def test_concordance_index_takes_lists_booleans_and_float32() -> None:
    event, time, score = cohort(50)
    reference = concordance_index(event, time, score.astype(np.float32))
    assert concordance_index(event.astype(bool), list(time), list(score.astype(np.float32))) == reference


@pytest.mark.parametrize(
    ("event", "time", "score", "message"),
    [
        ([0, 0], [1, 2], [0, 1], "no event among 2 records"),
        ([1, 0], [1, 0], [0, 1], r"time: expected positive years, got 0 in row 1 \(1 such rows\)"),
        ([1, 0], [1, -3], [0, 1], "time: expected positive years, got -3"),
        ([1, 0], [1, np.nan], [0, 1], "time: expected positive years, got nan"),
        ([1, 0], [1, 2], [0, np.nan], "log_hazard: expected finite values, got 1 NaN"),
        ([1, 0], [1, 2], [0, np.inf], "log_hazard: expected finite values"),
        ([1, 0], [1, 2, 3], [0, 1], "two arrays of one length"),
        ([1, 0], [1, 2], [0, 1, 2], "log_hazard: expected 2 values"),
        ([1, 0.5], [1, 2], [0, 1], r"event: expected 1 \(happened\), 0 \(censored\) or 2, 3, .*, got 0.5"),
        ([1, np.nan], [1, 2], [0, 1], "event: expected 1"),
        ([], [], [], "at least one record"),
        ([0, 1], [1, 2], [0, 1], "no comparable pair among 2 records"),
    ],
)
def test_what_has_no_concordance_index_is_refused_in_one_line(
    event: list, time: list, score: list, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        concordance_index(event, time, score)
    assert "\n" not in str(caught.value)


def test_kaplan_meier_agrees_with_a_hand_count() -> None:
    curve = kaplan_meier([1, 0, 1, 0], [1.0, 2.0, 3.0, 4.0]).set_index("time")
    assert curve.loc[0.0, "survival"] == 1.0
    assert curve.loc[1.0, "survival"] == pytest.approx(3 / 4)
    assert curve.loc[3.0, "survival"] == pytest.approx(3 / 4 * 1 / 2)
    assert list(curve.loc[[1.0, 2.0, 3.0, 4.0], "at_risk"]) == [4, 3, 2, 1]
    assert ((curve["low"] <= curve["survival"]) & (curve["survival"] <= curve["high"])).all()


@pytest.mark.parametrize("num", [1, 2, 7, 300])
def test_kaplan_meier_agrees_with_lifelines_with_ties_and_where_all_had_the_event(num: int) -> None:
    rng = np.random.default_rng(num)
    time = rng.integers(1, 20, num) / 4
    for event in (rng.integers(0, 2, num), np.ones(num), np.zeros(num)):
        curve, oracle = kaplan_meier(event, time), KaplanMeierFitter().fit(time, event)
        limits = oracle.confidence_interval_.to_numpy()
        assert curve["time"].tolist() == oracle.survival_function_.index.tolist()
        assert curve["survival"].to_numpy() == pytest.approx(oracle.survival_function_.to_numpy()[:, 0], abs=1e-12)
        assert curve[["low", "high"]].to_numpy() == pytest.approx(limits, abs=1e-12)
        assert curve["at_risk"].tolist() == oracle.event_table["at_risk"].tolist()


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_logrank_agrees_with_lifelines_with_ties(groups: int) -> None:
    rng = np.random.default_rng(groups)
    for num in (10, 60, 500):
        event, time, group = rng.integers(0, 2, num), rng.integers(1, 30, num) / 4, rng.integers(0, groups, num)
        expected = multivariate_logrank_test(time, group, event).p_value
        assert logrank_p_value(event, time, group) == pytest.approx(expected, rel=1e-9)


def test_logrank_separates_groups_that_differ_and_not_those_that_do_not() -> None:
    event, time, log_hazard = cohort(400)
    assert logrank_p_value(event, time, log_hazard > 0) < 1e-6
    assert logrank_p_value(event, time, np.arange(400) % 2) > 0.01
    with pytest.raises(ValueError, match="at least two groups"):
        logrank_p_value(event, time, np.zeros(400))


def test_calibration_finds_true_risks_calibrated_and_halved_ones_not() -> None:
    event, time, log_hazard = cohort(4000)
    risk = 1 - np.exp(-5 / 20 * np.exp(log_hazard))
    table = calibration(event, time, risk, horizon_years=5.0)
    assert list(table["num_records"]) == [800] * 5
    assert ((table["low"] <= table["predicted"]) & (table["predicted"] <= table["high"])).sum() >= 4
    halved = calibration(event, time, risk / 2, horizon_years=5.0)
    assert (halved["predicted"] < halved["low"]).all()


def test_calibration_says_nothing_beyond_the_follow_up_and_takes_one_risk_for_all() -> None:
    event, time, _ = cohort(50)
    table = calibration(event, time, np.full(50, 0.3), horizon_years=20.0)
    assert len(table) == 1
    assert table["observed"].isna().all()
    with pytest.raises(ValueError, match="risk: expected probabilities"):
        calibration(event, time, np.full(50, 1.3), horizon_years=5.0)


def test_survival_metrics_count_and_bracket() -> None:
    event, time, log_hazard = cohort(200)
    metrics = survival_metrics(event, time, log_hazard, patient_ids=np.arange(200) // 2, n=100)
    assert metrics["num_events"] == event.sum()
    assert metrics["num_records"] == 200
    interval = metrics["concordance_index"]
    assert interval["num_patients"] == 100
    assert interval["low"] < interval["estimate"] == concordance_index(event, time, log_hazard) < interval["high"]
    assert metrics["median_follow_up_years"] == pytest.approx(pd.Series(time).median())
