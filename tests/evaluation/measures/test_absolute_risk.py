"""Risks at a horizon: observed risk, AUC, Brier score, calibration, net benefit, competing events."""

import doctest

import numpy as np
import pytest
from effort import effort_of
from lifelines import AalenJohansenFitter, KaplanMeierFitter
from lifelines.datasets import load_gbsg2, load_lung, load_rossi
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss, roc_auc_score

from ecgdan_hf.evaluation.measures import absolute_risk, cumulative_incidence
from ecgdan_hf.evaluation.measures.absolute_risk import (
    brier_score,
    dynamic_auc,
    observed_risk,
    scaled_brier_score,
)
from ecgdan_hf.evaluation.measures.concordance import concordance_index
from ecgdan_hf.evaluation.measures.cumulative_incidence import aalen_johansen_table
from ecgdan_hf.evaluation.measures.follow_up import FollowUp, SurvivalCurve
from ecgdan_hf.evaluation.measures.risk_calibration import RiskCalibration
from ecgdan_hf.evaluation.measures.survival import survival_metrics

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
HORIZON = 5.0
BASELINE = 0.05  # events a year at a log hazard of 0


def cohort(num: int, seed: int = 0) -> Arrays:
    """Event, time and log hazard of an exponential model, censored at random and, all that are left, at 12 years."""
    rng = np.random.default_rng(seed)
    log_hazard = rng.normal(size=num)
    times, ends = rng.exponential(np.exp(-log_hazard) / BASELINE), np.minimum(rng.uniform(0, 20, num), 12.0)
    return (times < ends).astype(float), np.minimum(times, ends), log_hazard


def true_risk(log_hazard: np.ndarray, years: float = HORIZON) -> np.ndarray:
    return 1 - np.exp(-BASELINE * years * np.exp(log_hazard))


def published() -> dict[str, Arrays]:
    """Event, time and a risk between 0 and 1 of three cohorts, with ties in everything."""
    rossi, lung, gbsg2 = load_rossi(), load_lung(), load_gbsg2()
    return {
        "rossi": (rossi["arrest"].to_numpy(float), rossi["week"].to_numpy(float), rossi["prio"].to_numpy() / 20),
        "lung": (lung["status"].to_numpy(float), lung["time"].to_numpy(float), lung["age"].to_numpy() / 100),
        "gbsg2": (gbsg2["cens"].to_numpy(float), gbsg2["time"].to_numpy(float), gbsg2["age"].to_numpy() / 100),
    }


def left_limit(event: np.ndarray, time: np.ndarray, year: float) -> float:
    """G(year-), censorings after events, written out."""
    value = 1.0
    for u in np.unique(time[time < year]):
        exposed = (time >= u).sum() - ((time == u) & (event == 1)).sum()
        value *= 1 - ((time == u) & (event == 0)).sum() / exposed if exposed else 1.0
    return value


@pytest.mark.parametrize("name", ["rossi", "lung", "gbsg2"])
def test_auc_and_brier_score_are_their_formulas_written_out_with_ties(name: str) -> None:
    event, time, risk = published()[name]
    horizon = float(np.sort(time[event == 1])[int(event.sum() / 2)])  # an event time, often tied
    weight = np.zeros(len(time))
    cases = (time <= horizon) & (event == 1)
    controls = (time > horizon) | ((time == horizon) & (event == 0))
    for row in np.flatnonzero(cases):
        weight[row] = 1 / left_limit(event, time, time[row])
    brier = (weight * (1 - risk) ** 2).sum() + (risk[controls] ** 2).sum() / left_limit(event, time, horizon)
    assert brier_score(event, time, risk, horizon) == pytest.approx(brier / len(time), abs=1e-12)
    value = (risk[cases][:, None] > risk[controls]) + 0.5 * (risk[cases][:, None] == risk[controls])
    expected = (weight[cases][:, None] * value).sum() / (weight[cases].sum() * controls.sum())
    assert dynamic_auc(event, time, risk, horizon) == pytest.approx(expected, abs=1e-12)


def test_without_censoring_auc_and_brier_score_are_those_of_a_classifier() -> None:
    _, time, score = cohort(300)
    truth, risk = time <= HORIZON, true_risk(score)
    assert dynamic_auc(np.ones(300), time, risk, HORIZON) == pytest.approx(roc_auc_score(truth, risk))
    assert brier_score(np.ones(300), time, risk, HORIZON) == pytest.approx(brier_score_loss(truth, risk))
    assert FollowUp(np.ones(300), time).pseudo_observations(HORIZON) == pytest.approx(truth.astype(float), abs=1e-9)


def test_weights_sum_to_the_records_and_their_cases_to_kaplan_meier() -> None:
    for event, time, _ in published().values():
        horizon = float(np.median(time))
        cases, controls, weights = FollowUp(event, time).status(horizon)
        assert not (cases & controls).any()
        assert weights.sum() == pytest.approx(len(time), abs=1e-8)
        expected = 1 - KaplanMeierFitter().fit(time, event).predict(horizon)
        assert weights[cases].sum() / len(time) == pytest.approx(expected, abs=1e-10)


def test_everybody_censored_at_the_horizon_still_counts_as_free_of_the_event() -> None:
    event, time, score = cohort(2000)
    at_the_end = brier_score(event, time, true_risk(score, 12.0), 12.0)
    followed_on = brier_score(event, np.where(time == 12.0, 13.0, time), true_risk(score, 12.0), 12.0)
    assert at_the_end == pytest.approx(followed_on, abs=1e-12)
    assert dynamic_auc(event, time, score, 12.0) > 0.7


def test_true_risks_beat_one_risk_for_all_and_no_better_than_themselves() -> None:
    event, time, score = cohort(20_000)
    risk = true_risk(score)
    assert scaled_brier_score(event, time, np.full(20_000, risk.mean()), HORIZON) == pytest.approx(0, abs=1e-3)
    best = scaled_brier_score(event, time, risk, HORIZON)
    assert 0.1 < best < 0.5
    assert best > scaled_brier_score(event, time, risk**2, HORIZON)
    assert best == pytest.approx(1 - (risk * (1 - risk)).mean() / (risk.mean() * (1 - risk.mean())), abs=0.02)
    assert scaled_brier_score(event, time, risk, HORIZON, null_risk=0.9) > best


@pytest.mark.parametrize("name", ["rossi", "lung", "gbsg2"])
def test_pseudo_observations_are_leave_one_out_kaplan_meier_by_lifelines(name: str) -> None:
    event, time, _ = (values[:60] for values in published()[name])
    horizon, num = float(np.median(time)), 60
    whole = 1 - KaplanMeierFitter().fit(time, event).predict(horizon)
    expected = []
    for row in range(num):
        fitter = KaplanMeierFitter().fit(np.delete(time, row), np.delete(event, row))
        expected.append(num * whole - (num - 1) * (1 - fitter.predict(horizon)))
    assert FollowUp(event, time).pseudo_observations(horizon) == pytest.approx(np.array(expected), abs=1e-9)


def test_observed_risk_agrees_with_kaplan_meier_and_greenwood() -> None:
    event, time, _ = published()["gbsg2"]
    found, fitter = observed_risk(event, time, 1000.0), KaplanMeierFitter().fit(time, event)
    assert found.estimate == pytest.approx(1 - fitter.predict(1000.0), abs=1e-12)
    low, high = 1 - fitter.confidence_interval_.loc[:1000.0].iloc[-1].to_numpy()[::-1]
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-3)
    copies = [np.repeat(values, 3) for values in (event, time)]
    together = observed_risk(*copies, 1000.0, patient_ids=np.repeat(np.arange(len(time)), 3))
    assert together.standard_error == pytest.approx(found.standard_error, rel=0.01)
    assert together.num_patients == len(time)


@pytest.mark.parametrize("follow_up", [1e9, 12.0])
def test_slope_and_intercept_maximise_the_weighted_binomial_likelihood(follow_up: float) -> None:
    rng = np.random.default_rng(3)
    score = rng.normal(size=400)
    times, ends = rng.exponential(np.exp(-0.7 * score) / 0.1), follow_up * rng.random(400)
    event, time, risk = (times < ends).astype(float), np.minimum(times, ends), true_risk(score)
    truth, _, weights = FollowUp(event, time).status(HORIZON)
    predicted = np.log(-np.log1p(-risk))

    def loss(parameters: np.ndarray) -> float:
        hazard = np.exp(parameters[0] + (parameters[1] if len(parameters) > 1 else 1.0) * predicted)
        return -float((weights * np.where(truth, np.log(-np.expm1(-hazard)), -hazard)).sum())

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000}
    expected = minimize(loss, [0.0, 1.0], method="Nelder-Mead", options=options).x[1]
    assert RiskCalibration(event, time, risk, HORIZON).slope().estimate == pytest.approx(expected, abs=1e-6)
    expected = minimize(loss, [0.0], method="Nelder-Mead", options=options).x[0]
    assert RiskCalibration(event, time, risk, HORIZON).intercept().estimate == pytest.approx(expected, abs=1e-6)
    one = RiskCalibration(event, time, np.full(400, 0.3), HORIZON).intercept().estimate
    overall = 1 - np.exp(-np.exp(one) * -np.log(0.7))
    assert overall == pytest.approx(1 - KaplanMeierFitter().fit(time, event).predict(HORIZON), abs=1e-9)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_a_stretched_log_hazard_shows_as_its_slope(slope: float) -> None:
    event, time, score = cohort(20_000)
    found = RiskCalibration(event, time, true_risk(score / slope), HORIZON).slope()
    assert found.low < slope < found.high
    assert found.high - found.low < 0.25
    assert (found.p_value < 1e-3) == (slope != 1.0)


def test_halved_hazards_show_in_intercept_and_ratio_and_true_ones_do_not() -> None:
    event, time, score = cohort(20_000)
    right, low = true_risk(score), true_risk(score - np.log(2))
    found = RiskCalibration(event, time, low, HORIZON).intercept()
    assert found.low < np.log(2) < found.high
    assert RiskCalibration(event, time, right, HORIZON).intercept().p_value > 0.01
    ratio = RiskCalibration(event, time, low, HORIZON).observed_over_expected()
    assert ratio.low < right.mean() / low.mean() < ratio.high
    assert ratio.p_value < 1e-6
    ratio = RiskCalibration(event, time, right, HORIZON).observed_over_expected()
    assert ratio.low < 1 < ratio.high
    assert RiskCalibration(event, time, np.full(20_000, right.mean()), HORIZON).intercept().low < 0


def test_the_smooth_curve_finds_the_true_curve_of_distorted_risks() -> None:
    event, time, score = cohort(20_000, seed=2)
    right = true_risk(score)
    distorted = right**1.5
    curve = RiskCalibration(event, time, distorted, HORIZON).curve()
    truth = curve["predicted"] ** (1 / 1.5)
    assert np.abs(curve["observed"] - truth).max() < 0.04
    assert ((curve["low"] <= truth) & (truth <= curve["high"])).mean() > 0.6
    assert (curve["low"] < curve["observed"]).all() and (curve["observed"] < curve["high"]).all()
    found, honest = (
        RiskCalibration(event, time, distorted, HORIZON).errors(),
        RiskCalibration(event, time, right, HORIZON).errors(),
    )
    distance = np.abs(right - distorted)
    assert found["ici"] == pytest.approx(distance.mean(), abs=0.012)
    assert found["e50"] == pytest.approx(np.median(distance), abs=0.012)
    assert found["e90"] == pytest.approx(np.quantile(distance, 0.9), abs=0.015)
    assert honest["ici"] < 0.02 and honest["e50"] <= honest["e90"] <= honest["emax"]


def test_net_benefit_is_its_formula_by_lifelines() -> None:
    for event, time, risk in published().values():
        horizon, thresholds = float(np.quantile(time, 0.6)), [0.1, 0.25, 0.6]
        table = absolute_risk.decision_curve(event, time, risk, horizon, thresholds).set_index("threshold")
        for cut in thresholds:
            odds, benefit = cut / (1 - cut), {}
            for name, treated in {"model": risk >= cut, "treat_all": risk >= 0}.items():
                known = treated.any()
                observed = (
                    1 - KaplanMeierFitter().fit(time[treated], event[treated]).predict(horizon) if known else 0.0
                )
                benefit[name] = treated.mean() * (observed - (1 - observed) * odds)
            assert table.loc[cut, ["model", "treat_all"]].to_dict() == pytest.approx(benefit, abs=1e-12)
        assert (table["treat_none"] == 0).all()


def test_the_true_risk_is_worth_more_than_treating_all_or_none() -> None:
    event, time, score = cohort(20_000)
    table = absolute_risk.decision_curve(event, time, true_risk(score), HORIZON, [0.1, 0.2, 0.3])
    assert (table["model"] > table[["treat_all", "treat_none"]].max(axis=1)).all()
    beyond = absolute_risk.decision_curve([0, 1, 0], [1.0, 2.0, 9.0], [0.9, 0.1, 0.1], 5.0, [0.5])
    assert beyond["model"].isna().all()


def test_cumulative_incidence_agrees_with_lifelines_and_with_kaplan_meier() -> None:
    rng = np.random.default_rng(0)
    times, codes = rng.exponential(5, 400), rng.integers(0, 3, 400)
    table = aalen_johansen_table(codes, times)
    fitter = AalenJohansenFitter(calculate_variance=True).fit(times, codes, event_of_interest=1)
    assert table["incidence"].to_numpy() == pytest.approx(fitter.cumulative_density_.iloc[:, 0].to_numpy(), abs=1e-10)
    limits = fitter.confidence_interval_.iloc[5:-5].to_numpy()
    assert table[["low", "high"]].iloc[5:-5].to_numpy() == pytest.approx(limits, abs=5e-3)
    event, time, _ = published()["lung"]
    alone = aalen_johansen_table(event, time).set_index("time")["incidence"]
    survival = KaplanMeierFitter().fit(time, event).survival_function_.iloc[:, 0]
    assert alone.to_numpy() == pytest.approx(1 - survival.to_numpy(), abs=1e-12)


def test_metrics_of_a_horizon_stand_beside_those_that_were_there() -> None:
    event, time, score = cohort(400)
    plain = survival_metrics(event, time, score, n=40)
    assert set(plain) == {"concordance_index", "num_records", "num_events", "median_follow_up_years"}
    risks = {year: true_risk(score, year) for year in (HORIZON, 2.0)}
    full = survival_metrics(event, time, score, patient_ids=np.arange(400) // 2, n=40, risks=risks)
    assert full["concordance_index"]["estimate"] == plain["concordance_index"]["estimate"]
    assert [entry["horizon_years"] for entry in full["horizons"]] == [2.0, HORIZON]
    entry = full["horizons"][1]
    assert entry["auc"]["estimate"] == dynamic_auc(event, time, score, HORIZON)
    for name in ("uno_concordance_index", "auc", "brier_score", "scaled_brier_score", "observed_risk"):
        assert entry[name]["low"] < entry[name]["estimate"] < entry[name]["high"]
        assert entry[name]["num_patients"] == 200
    assert {"calibration_slope", "calibration_intercept", "observed_over_expected", "ici", "e50", "e90"} < set(entry)
    same = survival_metrics(event, time, score, n=20, risks={HORIZON: np.full(400, 0.2)})["horizons"][0]
    assert "calibration_slope" not in same


def test_effort_grows_with_the_records_and_not_with_their_pairs() -> None:
    event, time, score = cohort(100_000)
    risk = true_risk(score)
    for measure in (
        lambda: dynamic_auc(event, time, score, HORIZON),
        lambda: scaled_brier_score(event, time, risk, HORIZON),
        lambda: RiskCalibration(event, time, risk, HORIZON).slope(),
        lambda: RiskCalibration(event, time, risk, HORIZON).errors(),
        lambda: aalen_johansen_table(event, time),
        lambda: absolute_risk.decision_curve(event, time, risk, HORIZON, [0.1, 0.2, 0.3]),
    ):
        lines, peak_bytes = effort_of(measure)
        assert lines < 8000 and peak_bytes < 500 * 100_000  # up to 1900 and 220


EVENT, TIME, RISK = [1, 1, 0, 1, 0], [1.0, 2.0, 3.0, 4.0, 5.0], [0.9, 0.5, 0.6, 0.2, 0.1]
GONE = SurvivalCurve(np.array([0.5]), np.zeros(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: brier_score(EVENT, TIME, RISK, 6.0), "expected at most the last follow-up, 5 years, got 6; take a"),
        (lambda: brier_score(EVENT, TIME, RISK, -1.0), "horizon_years: expected positive years, got -1"),
        (lambda: brier_score(EVENT, TIME, RISK, np.nan), "horizon_years: expected positive years, got nan"),
        (lambda: brier_score(EVENT, TIME, [2.0] * 5, 3.0), "risk: expected probabilities, got 2 to 2"),
        (lambda: brier_score(EVENT, TIME, [np.nan] * 5, 3.0), "risk: expected finite values, got 5 NaN"),
        (lambda: brier_score(EVENT, TIME, RISK[:4], 3.0), "risk: expected 5 values, one per record"),
        (lambda: brier_score(EVENT, TIME, RISK, 3.0, GONE), "censoring: expected a positive chance.*got 0 at 1 years"),
        (lambda: scaled_brier_score(EVENT, TIME, RISK, 0.5), "one risk for all, 0, is already right at 0.5 years"),
        (
            lambda: dynamic_auc(EVENT, TIME, RISK, 0.5),
            "no case at 0.5 years among 5 records.*a longer one",
        ),
        (
            lambda: dynamic_auc([1, 1], [1, 2], [1, 2], 2),
            "no control at 2 years among 2 records.*a shorter",
        ),
        (lambda: observed_risk(EVENT, TIME, 0.5), "observed risk at 0.5 years is 0, which has no interval"),
        (lambda: RiskCalibration(EVENT, TIME, [0.3] * 5, 3.0).slope(), "got one for all; take `intercept`"),
        (lambda: RiskCalibration(EVENT, TIME, RISK, 0.5).slope(), "by 0.5 years, got 0 with and 5 without; take"),
        (
            lambda: RiskCalibration(EVENT, TIME, [0.0] * 5, 3.0).observed_over_expected(),
            "risk: expected a positive mean, got 0",
        ),
        (lambda: FollowUp([1], [1.0]).pseudo_observations(1.0), "expected at least two records"),
        (lambda: absolute_risk.decision_curve(EVENT, TIME, RISK, 3.0, [0.0]), "thresholds: expected probabilities"),
        (lambda: aalen_johansen_table([0.5], [1.0]), "event: expected 0 .* got 0.5"),
        (lambda: aalen_johansen_table([2, 0], [1.0, 2.0]), r"got 1 of \[0, 2\]"),
        (lambda: aalen_johansen_table([1], [0.0]), "time: expected positive years, got 0"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", [absolute_risk, cumulative_incidence])
def test_docstring_examples_hold(module) -> None:
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted >= 1


def test_with_one_event_time_concordance_and_auc_agree() -> None:
    event, time, score = [1, 1, 0, 0], [1.0, 1.0, 2.0, 3.0], [0.9, 0.2, 0.3, 0.1]
    assert dynamic_auc(event, time, score, 1.5) == concordance_index(event, time, score) == 0.75
