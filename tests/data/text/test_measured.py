"""Sentences that say what was measured: true exactly within their limits, unknown without the measurement."""

import re

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.data.measure.measurements import MEASUREMENTS
from ecgdan_hf.data.measure.rhythm import RHYTHM, measure_ecg
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.data.text.measured import exact_sentences, measured_sentences, measured_truth, measurements
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS


def records(**columns: list[float]) -> pd.DataFrame:
    """A table in which everything else is unknown."""
    size = len(next(iter(columns.values())))
    return pd.DataFrame({name: columns.get(name, [np.nan] * size) for name in (*MEASUREMENTS, *RHYTHM)})


def truth(name: str, **columns: list[float]) -> list[float]:
    return measured_sentences()[name].truth(records(**columns)).tolist()


def test_every_sentence_rests_on_measurements_of_the_table() -> None:
    known = {*MEASUREMENTS, *RHYTHM}
    assert set(measurements()) <= known
    for name, sentence in measured_sentences().items():
        assert set(sentence.where) <= set(measurements()), name
        assert all(low < high for low, high in sentence.where.values()), name
    assert 40 <= len(measured_sentences()) <= 70


def test_each_is_worded_in_words_and_in_numbers_and_no_two_alike() -> None:
    wordings = [text.lower() for sentence in measured_sentences().values() for text in sentence.wordings]
    assert len(set(wordings)) == len(wordings)
    for name, sentence in measured_sentences().items():
        assert len(sentence.wordings) >= 3, name
        assert not re.search(r"\d\d|\d\.\d", sentence.wordings[0]), name
        assert any(re.search(r"\d", text) for text in sentence.wordings), name


def test_a_limit_belongs_to_one_side() -> None:
    rates = {"heart_rate_bpm": [59.9, 60.0, 99.9, 100.0]}
    assert truth("rate_below_60", **rates) == [1, 0, 0, 0]
    assert truth("rate_60_to_100", **rates) == [0, 1, 1, 0]
    assert truth("rate_above_100", **rates) == [0, 0, 0, 1]


def test_all_limits_must_hold_unless_any_is_enough() -> None:
    assert truth("rr_random", rr_variation=[0.2, 0.2, 0.05], pnn50=[0.8, 0.1, 0.8]) == [1, 0, 0]
    assert truth("lv_voltage_high", sokolow_lyon_mv=[4.0, 2.0, 2.0], cornell_mv=[1.0, 3.0, 1.0]) == [1, 1, 0]


def test_a_sentence_is_unknown_only_where_what_is_missing_could_decide_it() -> None:
    nan = np.nan
    np.testing.assert_equal(truth("pr_above_200", pr_ms=[nan]), [nan])
    np.testing.assert_equal(truth("rr_random", rr_variation=[0.05, 0.2], pnn50=[nan, nan]), [0, nan])
    np.testing.assert_equal(truth("lv_voltage_high", sokolow_lyon_mv=[4, 2], cornell_mv=[nan, nan]), [1, nan])
    assert measured_truth(records(qrs_ms=[90.0]))["p_absent"].isna().all()
    with pytest.raises(ValueError, match="missing heart_rate_bpm"):
        measured_truth(pd.DataFrame({"pr_ms": [1.0]}))


def test_probability_is_one_half_at_a_limit_and_grows_with_the_distance_in_tolerances() -> None:
    sentence, tolerance = measured_sentences()["rate_below_60"], measurements()["heart_rate_bpm"]["tolerance"]
    table = records(heart_rate_bpm=[60.0, 60.0 - tolerance, 40.0, 80.0, np.nan])
    np.testing.assert_allclose(sentence.probability(table)[:2], [0.5, 1 / (1 + np.exp(-1))])
    assert sentence.probability(table)[2] > 0.99 > 0.01 > sentence.probability(table)[3]
    assert np.isnan(sentence.probability(table)[4])


@pytest.mark.parametrize(
    ("rate", "qrs_ms", "expected"),
    [
        (48.0, 98.0, {"rate_below_60", "rate_below_50", "rr_regular", "p_present", "qrs_below_110", "no_early"}),
        (72.0, 98.0, {"rate_60_to_100", "p_present", "pr_120_to_200", "no_early", "t_upright"}),
        (105.0, 98.0, {"rate_above_100", "rr_regular", "no_early"}),
        (72.0, 160.0, {"qrs_above_120", "qrs_above_110", "rate_60_to_100"}),
    ],
)
def test_a_synthetic_ecg_is_told_as_it_was_made(rate: float, qrs_ms: float, expected: set[str]) -> None:
    signal = synthetic.make_signal(0.0, qrs_ms, rate, 3)
    said = measured_truth(pd.DataFrame([measure_ecg(EcgRecord(signal, 500, STANDARD_LEADS))])).iloc[0]
    assert expected <= set(said.index[said == 1])
    others = {"rate_below_60", "rate_60_to_100", "rate_above_100"} - expected
    assert all(said[name] == 0 for name in others)
    assert said[["p_absent", "rr_irregular", "early_wide", "spikes"]].tolist() == [0, 0, 0, 0]


def test_sentences_with_the_value_say_what_was_measured_and_leave_out_what_was_not() -> None:
    said = exact_sentences({"heart_rate_bpm": 47.2, "pr_ms": np.nan, "qrs_ms": 91.0, "age": 60})
    assert said == {"heart_rate_bpm": "heart rate 47 beats per minute", "qrs_ms": "QRS duration 91 ms"}
