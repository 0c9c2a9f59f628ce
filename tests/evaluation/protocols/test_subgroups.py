"""Performance by sex and age: who is in a group, what is said of it, and what is not."""

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.evaluation.measures.classification import auroc, macro_auroc
from ecgdan_hf.evaluation.measures.concordance import concordance_index
from ecgdan_hf.evaluation.protocols.subgroups import (
    MIN_PATIENTS,
    NOT_STATED,
    _groups_of,
    classification_subgroups,
    survival_subgroups,
)
from ecgdan_hf.evaluation.report.subgroup_text import subgroup_text

NAMES = ["MI", "HYP"]


def people(records: int = 240, seed: int = 0) -> pd.DataFrame:
    """Two records each, sex and age at random, one patient in eight without sex, none younger than 50."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(records // 2), 2)
    sex = rng.choice(["female", "male"], records // 2).astype(object)
    sex[::8] = None
    age = rng.uniform(50, 95, records // 2)
    return pd.DataFrame({"patient_id": patients, "sex": sex[patients], "age": age[patients]})


def judged(table: pd.DataFrame, noise: dict[str, float], seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) labels and probabilities, with so much noise for each sex."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((len(table), 2)) < 0.4).astype(float)
    spread = table["sex"].map(noise).astype(float).fillna(1.0).to_numpy()[:, None]
    return labels, 1 / (1 + np.exp(-(3 * labels - 1.5 + spread * rng.normal(size=labels.shape))))


def cohort() -> tuple[pd.DataFrame, np.ndarray]:
    """Follow-up whose hazard doubles with each SD of the score."""
    table = people(400)
    rng = np.random.default_rng(2)
    score = rng.normal(size=len(table))
    time = rng.exponential(8 / np.exp(score))
    censored = rng.uniform(2, 12, len(table))
    return table.assign(event=(time <= censored).astype(int), time=np.minimum(time, censored)), score


def test_every_record_is_in_one_group_by_sex_and_one_by_age_and_what_is_not_stated_is_one() -> None:
    table = people()
    table.loc[:3, "age"] = np.nan
    found = _groups_of(table)
    assert list(found["sex"]) == ["female", "male", NOT_STATED]
    assert list(found["age"]) == ["50 to 64", "65 to 79", "80 and over", NOT_STATED]
    for members in found.values():
        assert (np.sum(list(members.values()), axis=0) == 1).all()
    assert found["age"][NOT_STATED].tolist() == [True] * 4 + [False] * (len(table) - 4)
    assert _groups_of(table[["patient_id"]])["sex"][NOT_STATED].all()


@pytest.mark.parametrize(
    ("age", "band"), [(49.99, "under 50"), (50, "50 to 64"), (79.5, "65 to 79"), (95, "80 and over")]
)
def test_a_band_begins_with_its_first_year(age: float, band: str) -> None:
    assert list(_groups_of(pd.DataFrame({"age": [age]}))["age"]) == [band]


def test_a_group_is_judged_on_its_own_records_and_compared_with_those_of_everyone_else() -> None:
    table = people()
    labels, scores = judged(table, {"female": 1.0, "male": 1.0})
    found = classification_subgroups(table, labels, scores, NAMES, {"MI": 0.7}, n=20)["sex"]["female"]
    inside = (table["sex"] == "female").to_numpy()
    apart = macro_auroc(labels[inside], scores[inside]) - macro_auroc(labels[~inside], scores[~inside])
    assert found["num_records"] == inside.sum() and found["num_patients"] == inside.sum() / 2
    assert found["macro_auroc"]["estimate"] == pytest.approx(macro_auroc(labels[inside], scores[inside]))
    assert found["macro_auroc"]["versus_rest"]["estimate"] == pytest.approx(apart)
    mi, truth, called = found["labels"]["MI"], labels[inside, 0], scores[inside, 0] >= 0.7
    assert mi["num_positives"] == truth.sum()
    assert mi["auroc"]["estimate"] == pytest.approx(auroc(truth, scores[inside, 0]))
    assert mi["sensitivity"]["estimate"] == pytest.approx(called[truth == 1].mean())
    assert mi["false_positive_rate"]["estimate"] == pytest.approx(called[truth == 0].mean())
    assert mi["predicted_minus_observed"]["estimate"] == pytest.approx(scores[inside, 0].mean() - truth.mean())
    others = (scores[~inside, 0] >= 0.7)[labels[~inside, 0] == 0].mean()
    gap = mi["false_positive_rate"]["versus_rest"]["estimate"]
    assert gap == pytest.approx(called[truth == 0].mean() - others)
    half = (scores[inside, 1] >= 0.5)[labels[inside, 1] == 1].mean()  # a label without a threshold
    assert found["labels"]["HYP"]["sensitivity"]["estimate"] == pytest.approx(half)


def test_a_group_for_which_the_model_fails_is_found_and_equal_groups_are_not_told_apart() -> None:
    table = people(600).drop(columns="age")
    for noise, beyond in (({"female": 6.0, "male": 1.0}, True), ({"female": 1.0, "male": 1.0}, False)):
        labels, scores = judged(table, noise)
        span = classification_subgroups(table, labels, scores, NAMES, n=40)["sex"]["female"]["macro_auroc"][
            "versus_rest"
        ]
        assert (span["high"] < 0) == beyond


def test_without_thresholds_no_decision_is_judged() -> None:
    table = people()
    found = classification_subgroups(table, *judged(table, {}), NAMES, n=20)
    assert set(found["sex"]["male"]["labels"]["MI"]) == {"num_positives", "auroc"}


def test_a_group_is_judged_by_its_patients_and_not_by_how_many_records_they_have() -> None:
    table = people().assign(sex="male")
    few = table["patient_id"] < MIN_PATIENTS - 1
    table.loc[few, "sex"] = "female"
    table = pd.concat([table, *[table[few]] * 10], ignore_index=True)  # hundreds of records of nine women
    labels, scores = judged(table, {})
    found = classification_subgroups(table, labels, scores, NAMES, n=20)["sex"]
    assert found["female"]["num_records"] > 100 and "macro_auroc" not in found["female"]
    assert all(set(label) == {"num_positives"} for label in found["female"]["labels"].values())
    assert "auroc" in found["male"]["labels"]["MI"]  # judged, but there is nobody to compare with
    assert "versus_rest" not in found["male"]["labels"]["MI"]["auroc"]


def test_both_sides_of_a_difference_average_over_the_same_labels() -> None:
    table = people()
    labels, scores = judged(table, {})
    inside = (table["sex"] == "female").to_numpy()
    labels[inside, 1] = 0  # HYP cannot be judged among women
    found = classification_subgroups(table, labels, scores, NAMES, n=20)["sex"]["female"]
    apart = auroc(labels[inside, 0], scores[inside, 0]) - auroc(labels[~inside, 0], scores[~inside, 0])
    assert found["labels_judged"] == ["MI"]
    assert found["macro_auroc"]["versus_rest"]["estimate"] == pytest.approx(apart)


def test_unknown_labels_are_left_out_of_decisions_and_calibration() -> None:
    table = people().drop(columns="age")
    labels, scores = judged(table, {})
    known = np.arange(len(table)) % 3 > 0
    labels[~known] = np.nan
    kept = classification_subgroups(table[known], labels[known], scores[known], NAMES, {}, n=8)
    found = classification_subgroups(table, labels, scores, NAMES, {}, n=8)
    for name, measured in kept["sex"]["male"]["labels"]["MI"].items():
        if name != "num_positives":
            assert found["sex"]["male"]["labels"]["MI"][name]["estimate"] == pytest.approx(measured["estimate"])


def test_survival_is_judged_by_order_and_by_risk_within_each_group() -> None:
    table, score = cohort()
    risk = np.full(len(table), 0.3)
    risk[table["age"] < 65] = 0.6  # twice as high a risk is said of the younger, who do not have it
    found = survival_subgroups(table, score, risk, horizon_years=3, n=20)
    young, old = found["age"]["50 to 64"], found["age"]["65 to 79"]
    where = table["age"] < 65
    assert young["num_events"] == table["event"][where].sum()
    expected = concordance_index(table["event"][where], table["time"][where], score[where])
    assert young["concordance_index"]["estimate"] == pytest.approx(expected)
    assert {"estimate", "low", "high"} <= set(young["concordance_index"]["versus_rest"])
    ratio = young["observed_over_expected"]["estimate"] / old["observed_over_expected"]["estimate"]
    assert 0.35 < ratio < 0.7 and young["observed_over_expected"]["horizon_years"] == 3


def test_the_text_counts_the_differences_and_names_those_that_leave_zero_out() -> None:
    table = people(600).drop(columns="age")
    found = classification_subgroups(table, *judged(table, {"female": 8.0, "male": 1.0}), NAMES, {}, n=20)
    text = subgroup_text(found)
    parts = [part for group in found["sex"].values() for part in (group, *group.get("labels", {}).values())]
    measured = [value for part in parts for value in part.values() if isinstance(value, dict)]
    spans = [value["versus_rest"] for value in measured if "versus_rest" in value]
    beyond = [span for span in spans if span["low"] > 0 or span["high"] < 0]
    assert f"Of {len(spans)} differences, none chosen beforehand, about {0.05 * len(spans):.1f}" in text
    assert f"{len(beyond)} have (" in text and "sex female: macro AUROC" in text
    assert "| sex: not stated |" in text and "sensitivity" in text
    assert len({line.count("|") for line in text.split("\n\n")[1].splitlines()}) == 1


def test_a_label_that_no_group_can_judge_is_named_once_instead_of_in_every_group() -> None:
    table = people()
    labels, probabilities = judged(table, {"female": 1.0, "male": 1.0})
    labels[:, 1] = np.arange(len(table)) < 3
    text = subgroup_text(classification_subgroups(table, labels, probabilities, NAMES, None, n=20))
    assert "Judged in no group, for want of patients: HYP." in text
    assert "| HYP, " not in text and "| MI, " in text


def test_the_text_says_when_nothing_is_known_and_when_outcomes_are_simulated() -> None:
    table, score = cohort()
    few = survival_subgroups(table.iloc[:16], score[:16], n=20)
    assert "No group could be compared with everyone else" in subgroup_text(few)
    text = subgroup_text(survival_subgroups(table, score, n=20), simulated=True)
    assert "C-index (simulated)" in text and "events (simulated)" in text
    assert "(simulated)" not in subgroup_text(survival_subgroups(table, score, n=20))
