import json

import numpy as np
import pandas as pd
import pytest
from lifelines import WeibullFitter
from lifelines.utils import concordance_index

from ecgdan_hf.data.simulate import plasmode
from ecgdan_hf.data.sources import ptbxl


def make_table(rows):
    """Rows of age, sex, codes."""
    table = pd.DataFrame(rows, columns=["age", "sex", "codes"])
    table["scp_codes"] = [json.dumps(dict.fromkeys(codes, 0.0)) for codes in table.pop("codes")]
    return table.assign(record_id=[str(i) for i in range(len(table))], patient_id="p")


def many(n=400):
    rng = np.random.default_rng(0)
    codes = [["AFIB"], ["NORM"], ["IMI", "NDT"], ["LVH"]]
    return make_table([(rng.uniform(30, 90), ["male", "female"][i % 2], codes[i % 4]) for i in range(n)])


def test_the_log_hazard_is_the_published_sum():
    table = make_table(
        [
            (60, "female", ["NORM", "SR"]),
            (70, "male", []),
            (60, "female", ["AFIB", "CLBBB"]),
            (60, "female", ["CRBBB", "LVH"]),
            (60, "female", ["IMI", "ASMI"]),  # several statements of a group count once
            (60, "female", ["NDT", "IMI", "ISC_"]),
            (120, "female", []),  # above 95 counts as 95
            (None, "male", []),  # missing counts as 60
            (60, None, []),
        ]
    )
    expected = [0, 0.4, 2.4, 1.8, 1.0, 1.8, 0.7, 0.2, 0]
    np.testing.assert_allclose(plasmode._true_log_hazard(table), expected, atol=1e-12)
    np.testing.assert_allclose(plasmode._age_sex_log_hazard(table)[[1, 2, 6]], [0.4, 0, 0.7], atol=1e-12)


def test_the_official_table_and_ours_give_the_same_outcomes(ptbxl_folder):
    official = pd.concat([pd.read_csv(ptbxl_folder / "ptbxl_database.csv")] * 10)
    ours = pd.concat([ptbxl.read_ptbxl(ptbxl_folder)] * 10)
    pd.testing.assert_frame_equal(plasmode.simulate(official, seed=1), plasmode.simulate(ours, seed=1))


def test_the_same_seed_gives_the_same_outcomes_and_another_gives_others():
    first, again, other = (plasmode.simulate(many(), seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first["time"].equals(other["time"])
    assert list(first.columns) == ["record_id", "patient_id", "event", "time", "log_hazard"]


def test_outcomes_are_the_same_on_every_platform():
    outcomes = plasmode.simulate(many(20), seed=0, event_rate=0.3)
    assert outcomes["event"].tolist()[:6] == [0, 0, 1, 1, 0, 0]
    times = [4.284702, 6.781306, 1.356727, 1.485632, 10.0, 10.0]
    np.testing.assert_allclose(outcomes["time"][:6], times, atol=2e-6)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_the_share_of_events_is_the_one_asked_for(rate):
    outcomes = plasmode.simulate(many(), seed=3, event_rate=rate)
    assert outcomes["event"].sum() == 400 * rate
    assert outcomes["time"].between(0, 10, inclusive="right").all()


def test_a_quarter_is_censored_early_and_the_rest_at_ten_years():
    outcomes = plasmode.simulate(many(4000), seed=0)
    censored = outcomes[outcomes["event"] == 0]
    early = (censored["time"] < 10).sum() / len(outcomes)
    assert 0.17 < early < 0.25  # a quarter of all, less those whose event came first
    uniform = censored["time"][censored["time"] < 10]
    assert 4 < uniform.median() < 6
    assert (plasmode.simulate(many(), 0, entry_censored=0.0).query("event == 0")["time"] == 10).all()


def test_times_follow_the_weibull_shape_and_the_hazard_its_coefficients():
    log_hazard = np.where(np.arange(20000) % 2, np.log(3.0), 0.0)
    event, time = plasmode.follow_up(log_hazard, seed=0, event_rate=0.4)
    fits = [WeibullFitter().fit(time[log_hazard == value], event[log_hazard == value]) for value in (0.0, np.log(3.0))]
    assert [fit.rho_ for fit in fits] == pytest.approx([1.2, 1.2], abs=0.05)
    assert 1.2 * np.log(fits[0].lambda_ / fits[1].lambda_) == pytest.approx(np.log(3.0), abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_rate": 0}, "event_rate, entry_censored: expected shares"),
        ({"event_rate": 1.0}, "event_rate, entry_censored: expected shares"),
        ({"entry_censored": -0.1}, "event_rate, entry_censored: expected shares"),
        ({"shape": 0}, "shape, follow_up_years: expected values above zero"),
        ({"follow_up_years": -1}, "shape, follow_up_years: expected values above zero"),
        ({"event_rate": 0.001}, "0.001 of 400 records is not one event"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plasmode.simulate(many(), 0, **options)


def test_a_table_without_what_the_hazard_needs_is_refused():
    with pytest.raises(ValueError, match="needs the columns age, sex and scp_codes, missing sex, scp_codes"):
        plasmode.simulate(pd.DataFrame({"record_id": ["1"], "patient_id": ["1"], "age": [60.0]}), 0)
    with pytest.raises(ValueError, match=r"scp_codes: expected {code: likelihood}, got 'NORM'"):
        plasmode.simulate(many().assign(scp_codes="NORM"), 0)


def test_the_embedded_codes_are_those_of_the_published_statements(shared):
    statements = pd.read_csv(shared / "data/ptb-xl/scp_statements.csv", index_col=0)
    for name, codes in (("MI", plasmode.MI_CODES), ("STTC", plasmode.STTC_CODES)):
        assert set(codes) == set(statements.index[statements["diagnostic_class"] == name])


def test_the_published_figures_are_met_on_real_records(shared):
    table = ptbxl.read_ptbxl(shared / "data/ptb-xl")
    runs = [plasmode.simulate(table, seed) for seed in range(8)]
    age_sex = plasmode._age_sex_log_hazard(table)
    assert [run["event"].sum() for run in runs] == [530] * 8
    true = [concordance_index(run["time"], -run["log_hazard"], run["event"]) for run in runs]
    assert np.mean(true) == pytest.approx(0.774, abs=0.005)
    alone = [concordance_index(run["time"], -age_sex, run["event"]) for run in runs]
    assert np.mean(alone) == pytest.approx(0.670, abs=0.005)


def test_what_is_invisible_moves_the_outcome_and_cannot_be_known():
    table = many(4000)
    told, hidden = plasmode.simulate(table, 0, scenario="invisible"), plasmode._hidden_log_hazard(4000, 0)
    np.testing.assert_allclose(told["log_hazard"], plasmode._age_sex_log_hazard(table), atol=1e-12)
    everything = told["log_hazard"] + hidden
    assert abs(np.corrcoef(hidden, plasmode._true_log_hazard(table))[0, 1]) < 0.05  # of the ECG it knows nothing
    known, all_of_it = (
        concordance_index(told["time"], -risk, told["event"]) for risk in (told["log_hazard"], everything)
    )
    assert known < 0.62 < 0.65 < all_of_it


def test_a_rare_event_is_rare_and_has_the_hazards_of_the_default():
    table = many(1000)
    rare, usual = plasmode.simulate(table, 0, scenario="rare"), plasmode.simulate(table, 0)
    assert (rare["event"].sum(), usual["event"].sum()) == (20, 200)
    np.testing.assert_array_equal(rare["log_hazard"], usual["log_hazard"])
    assert plasmode.simulate(table, 0, scenario="rare", event_rate=0.1)["event"].sum() == 100


def test_an_unknown_scenario_is_refused():
    with pytest.raises(ValueError, match="scenario: expected one of default, invisible, rare, got 'common'"):
        plasmode.simulate(many(), 0, scenario="common")
