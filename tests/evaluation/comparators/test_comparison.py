"""One model beside its controls, with paired differences."""

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.evaluation.comparators.comparison import Outcome, age_sex_scores
from ecgdan_hf.evaluation.report.comparison_text import comparison_table
from ecgdan_hf.evaluation.report.survival_figures import kaplan_meier_figure, risk_groups

RNG = np.random.default_rng(0)


@pytest.fixture
def survival() -> tuple[Outcome, np.ndarray]:
    hazard = RNG.standard_normal(300)
    time = RNG.exponential(np.exp(-hazard)) + 1e-3
    table = pd.DataFrame({"event": 1, "time": time, "patient_id": np.arange(300) // 2})
    return Outcome.survival(table, simulated=True), hazard


def test_the_first_model_is_ahead_of_noise_and_level_with_itself(survival: tuple[Outcome, np.ndarray]):
    outcome, hazard = survival
    found = outcome.compare({"a": hazard, "same": hazard * 2, "noise": RNG.standard_normal(300)}, n=200)
    assert found["same"]["ahead"]["low"] == found["same"]["ahead"]["high"] == 0
    assert found["noise"]["ahead"]["low"] > 0.1
    assert "ahead" not in found["a"]
    assert found["a"]["num_patients"] == 150
    table = comparison_table({"metric": outcome.name, "models": found})
    assert table.count("\n") == 4
    assert "| noise | 0." in table
    assert outcome.counts()["num_events"] == 300


def test_labels_are_compared_by_macro_auroc():
    labels = (RNG.random((200, 3)) < 0.4).astype(float)
    outcome = Outcome.classification(labels, np.arange(200))
    found = outcome.compare({"truth": labels + 0.1 * RNG.standard_normal(labels.shape)}, n=20)
    assert found["truth"]["estimate"] > 0.99
    assert outcome.counts()["num_positives"] == labels.sum(axis=0).astype(int).tolist()
    with pytest.raises(ValueError, match="at least one model"):
        outcome.compare({})


def test_age_and_sex_score_labels_even_where_they_are_missing():
    age = RNG.uniform(30, 90, 200)
    table = pd.DataFrame({"age": age, "sex": "female"})
    table.loc[::10, "age"] = np.nan
    table.loc[::7, "sex"] = None
    labels = (age > 60).astype(float)[:, None]
    logits = age_sex_scores(table, table, labels)
    assert np.isfinite(logits).all()
    known = table["age"].notna().to_numpy()
    assert ((logits[known, 0] > 0) == labels[known, 0]).mean() > 0.9
    with pytest.raises(ValueError, match="expected a column age"):
        age_sex_scores(table.drop(columns="age"), table, labels)


def test_risk_groups_are_thirds_in_the_order_of_risk():
    values = RNG.permutation(30).astype(float)
    groups = risk_groups(values).index
    assert [int((groups == third).sum()) for third in range(3)] == [10, 10, 10]
    assert values[groups == 0].max() < values[groups == 1].min() < values[groups == 2].min()


def test_the_kaplan_meier_page_has_a_curve_per_third_and_says_simulated(survival: tuple[Outcome, np.ndarray]):
    outcome, hazard = survival
    figure = kaplan_meier_figure(*outcome.truth, hazard, simulated=True)
    curves, at_risk = figure.axes
    assert [text.get_text() for text in curves.get_legend().get_texts()] == [
        f"{name} predicted risk (n = 100)" for name in ("low", "middle", "high")
    ]
    assert curves.get_title().startswith("Simulated outcome")
    assert [text.get_text() for text in at_risk.texts].count("100") == 3  # at year 0
