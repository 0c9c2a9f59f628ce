"""Cox models on ECG measurements: which hazards they recover, what they do with what is missing, what they refuse."""

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.data.measure.delineated_ecg import DelineatedEcg
from ecgdan_hf.data.measure.measurements import MEASUREMENTS, measure_delineated
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.evaluation.comparators.comparison import age_sex_scores
from ecgdan_hf.evaluation.comparators.measurement_cox import MeasurementCox
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS


def measurement_cox(train: pd.DataFrame, test: pd.DataFrame, *options: object, **named: object) -> np.ndarray:
    return MeasurementCox.fit(train, *options, **named).log_hazard(test, "test")


def people(num: int, seed: int) -> pd.DataFrame:
    """Measurements around normal, with a hazard of 0.8 per 20 ms of QRS, 0.7 without a P wave, 0.5 per decade."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({name: rng.normal(0, 1, num) for name in MEASUREMENTS})
    table["heart_rate_bpm"], table["qrs_ms"] = rng.normal(70, 10, num), rng.normal(100, 20, num)
    for name in ("p_axis_deg", "qrs_axis_deg", "t_axis_deg"):
        table[name] = rng.uniform(-180, 180, num)
    without_p = rng.random(num) < 0.2
    table.loc[without_p, ["p_duration_ms", "pr_ms", "p_axis_deg"]] = np.nan
    table["age"], table["sex"] = rng.uniform(40, 80, num), rng.choice(["male", "female"], num)
    log_hazard = 0.8 * (table["qrs_ms"] - 100) / 20 + 0.7 * without_p + 0.5 * (table["age"] - 60) / 10
    times = rng.exponential(20 * np.exp(-log_hazard)) + 1e-3
    return table.assign(event=(times < 10).astype(int), time=np.minimum(times, 10.0), log_hazard=log_hazard)


def score(test: pd.DataFrame, log_hazard: np.ndarray) -> float:
    return concordance_index(test["event"], test["time"], log_hazard)


def test_values_recover_the_hazard_they_were_drawn_from() -> None:
    train, test = people(2500, 0), people(800, 1)
    fitted = MeasurementCox.fit(train, "values", age_and_sex=True)
    assert fitted.weights["qrs_ms"] == pytest.approx(0.8, abs=0.12)
    assert fitted.weights["age_decades"] == pytest.approx(0.5 * train["age"].std() / 10, abs=0.12)
    assert fitted.weights["p_duration_ms_missing"] == pytest.approx(0.7 * 0.4, abs=0.1)  # a share of 0.2 varies by 0.4
    assert np.corrcoef(fitted.log_hazard(test), test["log_hazard"])[0, 1] > 0.95


def test_values_beat_flags_and_age_and_sex_add_to_either() -> None:
    train, test = people(2000, 0), people(1000, 1)
    found = {
        (kind, both): score(test, measurement_cox(train, test, kind, both))
        for kind in ("values", "flags")
        for both in (False, True)
    }
    assert found["values", False] > found["flags", False] + 0.02
    assert found["values", True] > found["values", False] + 0.02
    assert found["flags", True] > found["flags", False] + 0.02
    assert found["flags", False] > 0.6
    assert found["values", True] > score(test, age_sex_scores(train, test)) + 0.05


def test_missing_measurements_leave_no_record_out() -> None:
    train, test = people(400, 0), people(60, 1)
    test.loc[:20, list(MEASUREMENTS)] = np.nan
    test.loc[:5, ["age", "sex"]] = None
    for kind in ("values", "flags"):
        predicted = measurement_cox(train, test, kind, age_and_sex=True)
        assert predicted.shape == (60,)
        assert np.isfinite(predicted).all()


def test_what_is_missing_is_one_predictor_for_each_pattern() -> None:
    fitted = MeasurementCox.fit(people(500, 0), "values")
    assert [name for name in fitted.standardiser.names if name.endswith("_missing")] == ["p_duration_ms_missing"]


def test_a_far_left_and_a_far_right_axis_may_both_raise_the_hazard() -> None:
    train, test = people(2500, 0), people(800, 1)
    for table in (train, test):
        turn = np.abs((table["qrs_axis_deg"] - 40 + 180) % 360 - 180)
        times = np.random.default_rng(len(table)).exponential(20 * np.exp(-0.02 * (turn - 90)))
        table["event"], table["time"] = (times < 10).astype(int), np.minimum(times + 1e-3, 10.0)
    fitted = MeasurementCox.fit(train, "values")
    assert min(fitted.weights["qrs_axis_deg_left"], fitted.weights["qrs_axis_deg_right"]) > 0.5
    assert score(test, fitted.log_hazard(test)) > 0.65


def test_one_measurement_gone_wild_does_not_decide_a_log_hazard() -> None:
    train, test = people(500, 0), people(20, 1)
    wild = test.assign(qrs_ms=1e6)
    usual = measurement_cox(train, train, "values")
    assert np.abs(measurement_cox(train, wild, "values")).max() < 3 * np.abs(usual).max() + 5


def test_the_penalty_may_be_chosen_by_cross_validation_over_patients() -> None:
    train = people(300, 0).assign(patient_id=np.arange(300) // 2)
    fitted = MeasurementCox.fit(train, "values", penalizer=None, penalizers=(1e-3, 100.0))
    assert fitted.cox.penalizer == 1e-3
    assert fitted.weights["qrs_ms"] > 0.3


def test_measurements_of_synthetic_ecgs_tell_their_simulated_hazard() -> None:
    subjects = synthetic._make_subjects(100, seed=1)
    signals = [synthetic._signal_of(row, 1) for row in subjects.itertuples()]
    measured = pd.DataFrame([measure_delineated(DelineatedEcg.of(signal, 500, STANDARD_LEADS)) for signal in signals])
    table = pd.concat([subjects.drop(columns="heart_rate_bpm"), measured], axis=1)
    train, test = table[:70].reset_index(drop=True), table[70:].reset_index(drop=True)
    predicted = measurement_cox(train, test, "values", penalizer=0.1)
    assert np.corrcoef(predicted, test["log_hazard"])[0, 1] > 0.6


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"kind": "both"}, {}, "kind: expected one of values, flags, got 'both'"),
        ({}, {"event": 0}, "train: no event among 50 records"),
        ({}, {"time": -1.0}, "time: expected positive years"),
        ({}, dict.fromkeys(MEASUREMENTS, np.nan), "expected measurements that vary"),
        ({"age_and_sex": True}, {"sex": "M"}, r"train: sex: expected male, female or nothing, got \['M'\]"),
        ({"penalizer": 0}, {}, "penalizer: expected a positive number"),
    ],
)
def test_a_measurement_cox_refuses_what_it_cannot_be_fitted_to(options: dict, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measurement_cox(people(50, 0).assign(**change), people(5, 1), **options)
    with pytest.raises(ValueError, match="test: expected a column pr_ms"):
        measurement_cox(people(50, 0), people(5, 1).drop(columns="pr_ms"))
