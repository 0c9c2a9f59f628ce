"""Measures of risks where another event may come first, against formulas written out, lifelines and the truth."""

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lifelines import AalenJohansenFitter

from ecgdan_hf.evaluation.measures.absolute_risk import (
    brier_score,
    decision_curve,
    dynamic_auc,
    observed_risk,
    scaled_brier_score,
)
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.risk_calibration import RiskCalibration
from ecgdan_hf.evaluation.measures.survival import calibration, concordance_index, survival_metrics

Cohort = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
HORIZON, RATE, OTHER = 5.0, 0.05, 0.07


def cohort(num: int, seed: int = 0, tied: bool = False) -> Cohort:
    """Codes, times, log hazard and true incidence of two exponential causes with their own log hazards."""
    rng = np.random.default_rng(seed)
    log_hazard = rng.normal(size=num)
    rates = np.stack([RATE * np.exp(log_hazard), OTHER * np.exp(-0.5 * log_hazard)], axis=1)
    times, end = rng.exponential(size=(num, 2)) / rates, np.minimum(rng.uniform(1, 20, num), 12.0)
    first = times.min(axis=1)
    codes, time = np.where(first <= end, times.argmin(axis=1) + 1, 0), np.minimum(first, end)
    total = rates.sum(axis=1)
    incidence = rates[:, 0] / total * -np.expm1(-HORIZON * total)
    return codes, np.ceil(time * 2) / 2 if tied else time, log_hazard, incidence


def left_limit(codes: np.ndarray, time: np.ndarray, year: float) -> float:
    """Chance of being followed just before a time; every event leaves before it can be censored."""
    value = 1.0
    for u in np.unique(time[time < year]):
        exposed = (time >= u).sum() - ((time == u) & (codes > 0)).sum()
        value *= 1 - ((time == u) & (codes == 0)).sum() / exposed if exposed else 1.0
    return value


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
def test_auc_and_brier_score_are_their_formulas_written_out(tied: bool) -> None:
    codes, time, _, risk = cohort(150, tied=tied)
    risk = risk.round(2)  # ties in the prediction
    case = (codes == 1) & (time <= HORIZON)
    beyond = (time > HORIZON) | ((time == HORIZON) & (codes == 0))
    known, weight = case | beyond | ((codes == 2) & (time <= HORIZON)), np.zeros(150)
    for row in np.flatnonzero(known):
        weight[row] = 1 / left_limit(codes, time, min(time[row], HORIZON))
    assert brier_score(codes, time, risk, HORIZON) == pytest.approx((weight * (case - risk) ** 2).mean(), abs=1e-12)
    won = total = 0.0
    for i in np.flatnonzero(case):
        for j in np.flatnonzero(known & ~case):
            total += weight[i] * weight[j]
            won += weight[i] * weight[j] * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
    assert dynamic_auc(codes, time, risk, HORIZON) == pytest.approx(won / total, abs=1e-12)


def test_observed_risk_is_lifelines_aalen_johansen_with_its_standard_error() -> None:
    codes, time, *_ = cohort(400)
    found = observed_risk(codes, time, HORIZON)
    fitter = AalenJohansenFitter().fit(time, codes, 1)
    assert found.estimate == pytest.approx(fitter.cumulative_density_.loc[:HORIZON].iloc[-1, 0], abs=1e-12)
    theirs = fitter.variance_.loc[:HORIZON].iloc[-1].item() ** 0.5
    assert found.standard_error == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
def test_pseudo_observations_are_nearly_the_leave_one_out_incidence(tied: bool) -> None:
    codes, time, *_ = cohort(200, tied=tied)
    found = FollowUp(codes, time).pseudo_observations(HORIZON)
    whole = 1 - FollowUp(codes, time).free().at(HORIZON)
    for row in range(0, 200, 7):
        others = FollowUp(np.delete(codes, row), np.delete(time, row))
        left_out = 1 - others.free().at(HORIZON)
        assert found[row] == pytest.approx(200 * whole - 199 * left_out, abs=0.01)
    assert found.mean() == pytest.approx(whole, abs=1e-12)


def test_the_mean_weight_of_cases_is_the_incidence() -> None:
    codes, time, *_ = cohort(300, tied=True)
    cases, controls, weights = FollowUp(codes, time).status(HORIZON)
    assert weights[cases].sum() / 300 == pytest.approx(1 - FollowUp(codes, time).free().at(HORIZON), abs=1e-12)
    assert weights.sum() == pytest.approx(300, rel=1e-9) and (controls & (codes == 2)).any()


def test_true_incidences_are_calibrated_and_the_risk_if_nobody_died_is_too_high() -> None:
    codes, time, log_hazard, incidence = cohort(20_000, seed=1)
    naive = 1 - np.exp(-RATE * HORIZON * np.exp(log_hazard))
    judged, wrong = (RiskCalibration(codes, time, risk, HORIZON) for risk in (incidence, naive))
    assert judged.observed_over_expected().estimate == pytest.approx(1, abs=0.04)
    assert judged.slope().estimate == pytest.approx(1, abs=0.06)
    assert wrong.observed_over_expected().high < 0.97
    groups = calibration(codes, time, incidence, HORIZON)
    assert np.abs(groups["observed"] - groups["predicted"]).max() < 0.02
    assert ((groups["low"] < groups["observed"]) & (groups["observed"] < groups["high"])).all()
    assert scaled_brier_score(codes, time, incidence, HORIZON) > scaled_brier_score(codes, time, naive, HORIZON)


def test_net_benefit_of_treating_all_is_that_of_the_incidence() -> None:
    codes, time, _, incidence = cohort(2000, seed=2)
    observed = 1 - float(FollowUp(codes, time).free().at(HORIZON))
    row = decision_curve(codes, time, incidence, HORIZON, [0.2]).iloc[0]
    assert row["treat_all"] == pytest.approx(observed - (1 - observed) / 4)
    assert row["model"] > max(row["treat_all"], 0)


def test_concordance_of_a_cause_takes_the_others_for_censored() -> None:
    codes, time, log_hazard, incidence = cohort(300)
    assert concordance_index(codes, time, log_hazard) == concordance_index(codes == 1, time, log_hazard)
    found = survival_metrics(codes, time, log_hazard, n=3, risks={HORIZON: incidence})
    assert (found["num_events"], found["num_competing_events"]) == ((codes == 1).sum(), (codes == 2).sum())
    assert found["horizons"][0]["observed_risk"]["estimate"] == observed_risk(codes, time, HORIZON).estimate


@pytest.mark.parametrize("measure", [brier_score, dynamic_auc, scaled_brier_score])
def test_without_competing_events_nothing_changes_by_a_code_that_nobody_has(measure: Callable[..., float]) -> None:
    codes, time, _, risk = cohort(200)
    event = (codes == 1).astype(float)
    assert measure(event, time, risk, HORIZON) == measure(FollowUp.of_cause(event, 1), time, risk, HORIZON)
    assert measure(codes, time, risk, HORIZON) != measure(event, time, risk, HORIZON)


def test_heads_find_the_incidence_of_two_causes_with_known_hazards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    bench = importlib.import_module("bench_competing_causes")
    for name, causes in bench.compare(4000, seed=1, names=["few-events head"]).items():
        for cause, found in causes.items():
            assert abs(found["bias"]) < 0.02, (name, cause, found)
            assert found["absolute error"] < 0.03 and found["C"] > found["attainable C"] - 0.02, (name, cause, found)
