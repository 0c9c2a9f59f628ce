"""Zero-shot: classes scored from their statements, beside prompts that belong to nobody."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.data.text.statements import read_statements
from ecgdan_hf.evaluation.protocols.zero_shot import (
    AGGREGATIONS,
    Level,
    group_scores,
)
from ecgdan_hf.evaluation.report.comparison_text import zero_shot_tables

STATEMENTS = pd.DataFrame(
    {
        "diagnostic": [1.0, 1.0, 1.0, np.nan, np.nan],
        "form": [np.nan, np.nan, np.nan, 1.0, np.nan],
        "rhythm": [np.nan, np.nan, np.nan, np.nan, 1.0],
        "diagnostic_class": ["MI", "NORM", "MI", np.nan, np.nan],
        "diagnostic_subclass": ["IMI", "NORM", "AMI", np.nan, np.nan],
    },
    index=["IMI", "NORM", "ASMI", "LVOLT", "AFIB"],
)
NAMES = [f"s{number}" for number in range(12)]
RAW = partial(group_scores, softmax=False)
GROUPS = {"A": NAMES[:4], "B": NAMES[4:8], "C": NAMES[8:]}


def records(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Statements of each record, and the patient it is of (two records each)."""
    rng = np.random.default_rng(seed)
    return (rng.random((n, len(NAMES))) < 0.1).astype(float), np.arange(n) // 2


def perfect_level() -> Level:
    return Level.judged("superclass", GROUPS, records()[0], NAMES, NAMES)


def test_statements_are_grouped_by_class_and_rhythm_statements_stand_alone():
    assert Level.groups_of(STATEMENTS, "superclass") == {"NORM": ["NORM"], "MI": ["IMI", "ASMI"]}
    assert Level.groups_of(STATEMENTS, "subclass") == {"IMI": ["IMI"], "NORM": ["NORM"], "AMI": ["ASMI"]}
    assert Level.groups_of(STATEMENTS, "rhythm") == {"AFIB": ["AFIB"]}
    assert list(Level.groups_of(STATEMENTS, "statement")) == list(STATEMENTS.index)
    with pytest.raises(ValueError, match="level: expected one of superclass, subclass, rhythm, statement"):
        Level.groups_of(STATEMENTS, "form")


def test_the_real_statements_have_five_superclasses_and_twelve_rhythms(shared: Path):
    statements = read_statements(shared / "data" / "ptb-xl")
    groups = {level: Level.groups_of(statements, level) for level in ("superclass", "subclass", "rhythm")}
    assert list(groups["superclass"]) == ["NORM", "MI", "STTC", "CD", "HYP"]
    assert sum(map(len, groups["superclass"].values())) == sum(map(len, groups["subclass"].values())) == 44
    assert (len(groups["subclass"]), len(groups["rhythm"])) == (23, 12)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("softmax", [True, False])
def test_logits_that_know_the_statements_rank_their_classes_perfectly(aggregation: str, softmax: bool):
    """Without competing prompts exactly; shares of one sum depend on what else a record has."""
    labels, _ = records()
    level = Level.judged("superclass", GROUPS, labels, NAMES, NAMES)
    logits = 20 * (labels - 0.5)
    scores = group_scores(logits, NAMES, level.groups, aggregation, softmax=softmax)
    present, absent = scores[level.truth[:, 0] == 1, 0], scores[level.truth[:, 0] == 0, 0]
    if not softmax:
        assert present.min() > absent.max()
    assert np.median(present) > np.median(absent) + 1


def test_a_perfect_network_scores_one_and_permuted_statements_are_near_chance():
    labels, patients = records()
    level = Level.judged("statement", {name: [name] for name in NAMES}, labels, NAMES, NAMES)
    found = level.metrics(20 * labels, NAMES, patients, score=RAW, permutations=200, n=20)
    assert found["macro_auroc"]["estimate"] == 1
    permuted = found["permuted_prompts"]
    assert abs(permuted["mean"] - (0.5 + 0.5 / len(NAMES))) < 0.03
    assert permuted["low"] < 0.5 < permuted["high"] < 0.9


def test_a_class_of_many_statements_keeps_some_of_its_own_when_they_are_permuted():
    labels, patients = records()
    found = perfect_level().metrics(20 * labels, NAMES, patients, score=RAW, permutations=200, n=20)
    permuted = found["permuted_prompts"]
    assert 0.55 < permuted["mean"] < 0.75


def test_a_control_network_is_compared_on_the_same_patients():
    labels, patients = records()
    noise = np.random.default_rng(1).standard_normal(labels.shape)
    controls = {"shuffled": (noise, NAMES), "twin": (20 * labels[:, ::-1], NAMES[::-1])}
    found = perfect_level().metrics(20 * labels, NAMES, patients, controls, score=RAW, n=50)
    assert found["controls"]["twin"]["ahead"]["estimate"] == 0
    ahead = found["controls"]["shuffled"]["ahead"]
    assert ahead["low"] > 0.3
    assert ahead["estimate"] == pytest.approx(1 - found["controls"]["shuffled"]["macro_auroc"])
    table, classes = (part.splitlines() for part in zero_shot_tables({"superclass": found}).split("\n\n"))
    assert "shuffled" in table[0]
    assert table[2].startswith("| superclass | 3 |")
    assert "1.000 (1.000 to 1.000)" in table[2]
    assert len(classes) == 2 + 3


def test_classes_too_rare_or_without_a_prompt_are_named_and_left_out():
    labels, _ = records()
    labels[:, 8:] = 0
    labels[:3, 8] = 1
    level = Level.judged("superclass", GROUPS, labels, NAMES, NAMES[4:], min_positives=10)
    assert level.groups == {"B": NAMES[4:8]}
    assert level.not_judged == {"A": "no prompt", "C": "3 positives"}
    with pytest.raises(ValueError, match="expected at least one class to judge"):
        Level.judged("x", {"A": ["s0"]}, labels, NAMES, []).metrics(labels, NAMES, np.arange(len(labels)))


def test_a_class_may_have_a_prompt_of_its_own():
    labels, _ = records()
    level = Level.judged("superclass", GROUPS, labels, NAMES, ["A", "s4"])
    assert level.groups == {"A": ["A"], "B": ["s4"]}
    np.testing.assert_array_equal(level.truth[:, 0], labels[:, :4].max(1))


def test_permuting_leaves_no_trace_of_which_prompt_was_whose():
    """With one prompt there is nothing to permute, so the control must equal the score itself."""
    truth = np.array([[0.0], [1.0], [0.0], [1.0]])
    level = Level("one", {"A": ["a"]}, truth, {})
    found = level.metrics([[0.1], [0.9], [0.2], [0.8]], ["a"], np.arange(4), score=RAW, permutations=3, n=20)
    assert found["permuted_prompts"]["mean"] == found["macro_auroc"]["estimate"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_logits": np.zeros((2, 3))}, r"prompt_logits: expected \(records, 2 prompts\), got shape \(2, 3\)"),
        ({"aggregation": "sum"}, "aggregation: expected one of logsumexp, max, mean, got 'sum'"),
        ({"temperature": 0.0}, "temperature: expected a positive number"),
        ({"groups": {"A": ["z"]}}, "groups: expected a prompt for A, one of z; got none of them"),
    ],
)
def test_what_cannot_be_scored_is_refused(change: dict, message: str):
    given = {"prompt_logits": np.zeros((2, 2)), "prompt_labels": ["a", "b"], "groups": {"A": ["a"]}}
    with pytest.raises(ValueError, match=message):
        group_scores(**{**given, **change})
