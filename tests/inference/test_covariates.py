"""Any column of a table becomes a covariate, by a name that says how; what is missing is never passed over."""

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.inference.covariates import Covariates

TABLE = pd.DataFrame(
    {
        "age": [50.0, 60.0, None, 70.0],
        "sex": ["male", "female", "female", None],
        "smoking": ["never", "current", None, "never"],
        "bmi": ["24.5", "31", "28", "22"],  # numbers that a CSV with a comment column gave as text
    }
)


def test_text_becomes_levels_beside_the_most_frequent_one():
    assert Covariates.expanded(TABLE, ["age", "sex", "smoking", "bmi"]).names == [
        "age",
        "sex",
        "smoking=current",
        "bmi",
    ]
    found = Covariates(["smoking=current", "bmi", "sex"]).matrix(TABLE)
    expected = [[0, 24.5, 1], [1, 31, 0], [np.nan, 28, 0], [0, 22, np.nan]]
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float32))


def test_a_missing_value_is_the_mean_or_said_in_a_column_or_refused():
    names = Covariates.expanded(TABLE, ["age", "bmi"], "indicator").names
    assert names == ["age", "age?", "bmi"]
    np.testing.assert_array_equal(Covariates(names).matrix(TABLE)[:, 1], [0, 0, 1, 0])
    with pytest.raises(ValueError, match="covariates: age: expected a value in every row, 1 have none"):
        Covariates.expanded(TABLE, ["age"], "refuse")


def test_names_carry_their_rule_to_another_table():
    other = pd.DataFrame({"smoking": ["former", "current"], "age": [40, None]})
    names = ["age", "age?", "smoking=current"]
    assert Covariates(names).columns == ["age", "smoking"]
    np.testing.assert_array_equal(Covariates(names).matrix(other), np.array([[40, 0, 0], [np.nan, 1, 1]], np.float32))


@pytest.mark.parametrize(
    ("columns", "missing", "message"),
    [
        (["height"], "mean", "covariates: expected a column height, got age, sex, smoking, bmi"),
        (["age"], "impute", "missing_covariates: expected one of mean, indicator, refuse, got 'impute'"),
    ],
)
def test_what_cannot_be_used_is_refused(columns, missing, message):
    with pytest.raises(ValueError, match=message):
        Covariates.expanded(TABLE, columns, missing)


def test_free_text_is_no_covariate():
    notes = pd.DataFrame({"note": [f"patient {number}" for number in range(30)]})
    with pytest.raises(ValueError, match="covariates: note: expected numbers or at most 20 levels, got 30"):
        Covariates.expanded(notes, ["note"])


def test_a_level_may_be_a_question_mark_and_a_yes_or_no_is_a_number():
    table = pd.DataFrame({"smoking": ["never", "?", None, "never"], "smoker": [True, False, None, True]})
    assert Covariates.expanded(table, ["smoking", "smoker"]).names == ["smoking=?", "smoker"]
    found = Covariates(["smoking=?", "smoker"]).matrix(table)
    np.testing.assert_array_equal(found[:, 0], np.array([0, 1, np.nan, 0], np.float32))
    np.testing.assert_array_equal(found[:, 1], np.array([1, 0, np.nan, 1], np.float32))
    np.testing.assert_array_equal(Covariates(["smoker"]).matrix(table.iloc[[0, 1, 3]])[:, 0], [1, 0, 1])


def test_a_level_of_a_column_with_numbers_and_an_infinite_value_are_refused():
    with pytest.raises(ValueError, match=r"covariates: nyha=2: expected text in nyha, got .*2\.0"):
        Covariates(["nyha=2"]).matrix(pd.DataFrame({"nyha": [2.0, 1.0]}))
    with pytest.raises(ValueError, match="covariates: bmi: expected finite numbers, got an infinite one"):
        Covariates(["bmi"]).matrix(pd.DataFrame({"bmi": [22.0, float("inf")]}))


def test_names_that_say_how_they_are_made_are_taken_as_they_are():
    assert Covariates.expanded(TABLE, ["smoking=current", "age?", "age"]).names == ["smoking=current", "age?", "age"]
