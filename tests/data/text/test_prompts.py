"""Free-text prompts about what can be measured."""

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.data.measure.measurements import MEASUREMENTS
from ecgdan_hf.data.measure.rhythm import RHYTHM
from ecgdan_hf.data.text.definitions import definitions
from ecgdan_hf.data.text.prompts import measured_prompt


def claims(text: str) -> list[str]:
    found = measured_prompt(text).claims
    return ["not " * claim.is_negated + "+".join(sentence.name for sentence in claim.sentences) for claim in found]


def table(**columns: list[float]) -> pd.DataFrame:
    size = len(next(iter(columns.values())))
    return pd.DataFrame({name: columns.get(name, [np.nan] * size) for name in (*MEASUREMENTS, *RHYTHM)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sinus bradycardia", ["rate_below_60+p_present"]),
        ("12-lead electrocardiogram with sinus bradycardia", ["rate_below_60+p_present"]),
        ("ECG showing atrial fibrillation", ["p_absent+rr_irregular"]),
        ("wide QRS and no P wave", ["qrs_above_120", "p_absent"]),
        ("no P waves, irregular rhythm", ["p_absent", "rr_irregular"]),
        ("ST elevation in II, III and aVF", ["st_elevated_inferior"]),
        ("no ST depression", ["not st_depressed"]),
        ("without early beats", ["not early_beats"]),
        ("no early beats", ["no_early"]),
        ("marked left axis deviation, narrow QRS", ["axis_far_left", "qrs_below_110"]),
    ],
)
def test_a_prompt_about_measured_quantities_is_understood_whole(text: str, expected: list[str]) -> None:
    assert claims(text) == expected
    assert measured_prompt(text).rest == ""


def test_every_text_of_a_measured_definition_is_understood_as_it() -> None:
    for code, definition in definitions().items():
        for text in (definition.name, *definition.texts) if definition.measured else ():
            found = measured_prompt(text)
            names = [sentence.name for claim in found.claims for sentence in claim.sentences]
            assert (set(names), found.rest) == (set(definition.measured), ""), (code, text)


@pytest.mark.parametrize(
    ("text", "measurement", "limits"),
    [
        ("heart rate below 47", "heart_rate_bpm", (-np.inf, 47)),
        ("PR interval above 230 ms", "pr_ms", (230, np.inf)),
        ("QRS > 130", "qrs_ms", (130, np.inf)),
        ("QTc between 380 and 420 ms", "qtc_fridericia_ms", (380, 420)),
        ("the axis is less than -10 degrees", "qrs_axis_deg", (-np.inf, -10)),
    ],
)
def test_a_comparison_with_any_number_is_understood(text: str, measurement: str, limits: tuple[float, float]) -> None:
    (claim,) = measured_prompt(text).claims
    assert dict(claim.sentences[0].where) == {measurement: limits}
    assert measured_prompt(text).rest == ""


def test_what_is_not_measured_is_left_to_a_network() -> None:
    assert measured_prompt("atrial flutter").claims == ()
    assert measured_prompt("atrial flutter").rest == "atrial flutter"
    found = measured_prompt("old inferior infarction with a slow heart rate")
    assert [sentence.name for sentence in found.claims[0].sentences] == ["rate_below_60"]
    assert found.rest == "old inferior infarction"


def test_the_answer_is_the_probability_of_all_claims_and_says_what_it_rests_on() -> None:
    measured = table(heart_rate_bpm=[45, 45, 80, np.nan], p_likeness=[0.9, 0.0, 0.9, 0.9])
    prompt = measured_prompt("sinus bradycardia")
    answer = prompt.probability(measured)
    assert answer[0] > 0.95 > 0.05 > max(answer[1:3])
    assert np.isnan(answer[3])
    rate = "heart rate {} beats per minute; P waves present {}"
    assert prompt.rests_on(measured)[:3] == [rate.format(45, "98%"), rate.format(45, "1%"), rate.format(80, "98%")]
    assert prompt.rests_on(measured)[3] == "P waves present 98%"
    assert prompt.rests_on(measured[["heart_rate_bpm", "p_likeness"]].assign(p_likeness=np.nan))[3] == ""
    np.testing.assert_allclose(measured_prompt("no sinus bradycardia").probability(measured), 1 - answer)
    assert np.isnan(measured_prompt("atrial flutter").probability(measured)).all()
