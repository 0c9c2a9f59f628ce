"""The study over numbers of events: known hazards recovered, patients apart, resumable, and idle methods named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.data.measure.measurements import MEASUREMENTS
from ecgdan_hf.data.simulate.plasmode import follow_up
from ecgdan_hf.evaluation.measures.concordance import concordance_index, expected_concordance
from ecgdan_hf.evaluation.report.events_report import events_figure, events_report
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.training.arguments.fields import EventsArguments
from ecgdan_hf.training.studies import events
from ecgdan_hf.training.studies.events import AGE_SEX, ATTAINABLE, BOTH, FIXED, LANGUAGE, MEASURED, RANDOM


def test_expected_concordance_is_the_mean_of_harrells_index_over_drawn_outcomes() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    score = truth + rng.normal(size=300)
    drawn = [
        concordance_index(*follow_up(truth, seed, event_rate=0.2, entry_censored=0.0), score) for seed in range(200)
    ]
    assert expected_concordance(truth, score, 0.2) == pytest.approx(np.mean(drawn), abs=0.005)
    assert expected_concordance(truth, np.zeros(300), 0.2) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="event_share, score: expected a share"):
        expected_concordance(truth, score[:5], 0.2)


@pytest.fixture(scope="module")
def cohort() -> events._Cohort:
    """Six hundred records whose default hazard one of two embeddings shows."""
    rng, num = np.random.default_rng(0), 600
    codes = [{code: 100.0 for code in ("AFIB", "LVH", "IMI") if rng.random() < 0.3} for _ in range(num)]
    ids = {"record_id": [f"r{row}" for row in range(num)], "patient_id": [f"p{row // 2}" for row in range(num)]}
    table = pd.DataFrame(ids)
    table = table.assign(age=rng.uniform(40, 80, num), sex=rng.choice(["male", "female"], num), scp_codes=codes)
    for name in (*MEASUREMENTS, "heart_rate_bpm"):
        table[name] = rng.normal(100, 20, num)
    shown = np.array([["AFIB" in each, "LVH" in each, "IMI" in each] for each in codes], dtype=float)
    embeddings = {
        LANGUAGE: shown @ rng.normal(size=(3, 12)) + rng.normal(0, 0.1, (num, 12)),
        RANDOM: rng.normal(size=(num, 12)),
    }
    both = np.stack([table["age"], table["sex"] == "male"], axis=1).astype(float)
    measured = table[list(MEASUREMENTS)].to_numpy(float)
    return events._Cohort(table, (both - both.mean(0)) / both.std(0), measured, embeddings, rng.normal(size=(num, 4)))


def test_the_embedding_that_shows_the_hazard_wins_and_nothing_wins_where_nothing_is_visible(cohort) -> None:
    shown = pd.concat([events._repetition(cohort, "default", 60, seed) for seed in range(4)])
    mean = shown.groupby("method")["concordance"].mean()
    assert mean[LANGUAGE] > mean[MEASURED] + 0.05 and mean[LANGUAGE] > mean[RANDOM] + 0.05
    assert mean[ATTAINABLE] == mean.max()
    hidden = pd.concat([events._repetition(cohort, "nothing", 60, seed) for seed in range(4)])
    mean = hidden.groupby("method")["concordance"].mean()
    assert mean[LANGUAGE] < mean[AGE_SEX] + 0.01 and mean[FIXED] < mean[AGE_SEX]


def test_no_patient_is_both_fitted_and_judged(cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = events._scores
    monkeypatch.setattr(events, "_scores", lambda *given: seen.append(given[1]) or plain(*given))
    events._repetition(cohort, "default", 30, 0)
    (train,) = seen
    patients = cohort.table["patient_id"]
    assert not set(patients[train]) & set(patients[~train]) and 0.5 < train.mean() < 0.7


@pytest.mark.parametrize("hazard", sorted(events.HAZARDS))
def test_a_hazard_is_the_same_for_a_seed_and_is_shown_but_for_the_hidden_part(cohort, hazard: str) -> None:
    (shown, whole), again = events._true_log_hazards(cohort, hazard, 1), events._true_log_hazards(cohort, hazard, 1)
    assert np.array_equal(shown, again[0]) and np.array_equal(whole, again[1])
    assert np.array_equal(shown, whole) == (hazard != "nothing")
    assert shown.std() > 0.1


def test_a_study_leaves_table_and_figure_and_repeats_no_finished_cell(
    tmp_path: Path, cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events._Cohort, "load", classmethod(lambda cls, args: cohort))
    given = {"checkpoint": "c", "data_dir": "d", "output_dir": str(tmp_path / "out")}
    args = EventsArguments(**given, events="20,40", hazards="default,nothing", repetitions=2)
    said: list[str] = []
    metrics = events.study_events(args, said.append)
    assert len(said) == 4 and set(metrics["models"]["default"][20]) >= {AGE_SEX, MEASURED, BOTH, LANGUAGE, ATTAINABLE}
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "**All outcomes are simulated" in report and "Not ahead of ECG measurements by an interval" in report
    assert (tmp_path / "out" / "events.png").stat().st_size > 20_000
    assert Result.read(tmp_path / "out").is_simulated
    (tmp_path / "out" / "cells" / "nothing-40.csv").unlink()
    said.clear()
    again = events.study_events(args, said.append)["models"]["nothing"][40][LANGUAGE]
    assert again == pytest.approx(metrics["models"]["nothing"][40][LANGUAGE])
    assert said == ["nothing, 40 events: 2 repetitions"]


def test_a_method_that_does_not_help_is_named() -> None:
    draws = [(20, seed, name, value + 0.001 * seed, 1.0) for seed in range(5) for name, value in
             ((MEASURED, 0.70), (RANDOM, 0.69), (LANGUAGE, 0.75), (ATTAINABLE, 0.8))]  # fmt: skip
    table = pd.DataFrame(draws, columns=["events", "repetition", "method", "concordance", "slope"])
    table = table.assign(hazard="default")
    counts = {"num_records": 1, "num_patients": 1, "repetitions": 5}
    metrics = {"models": events._summary(table), "hazards": events.HAZARDS, **counts}
    text = events_report(table, metrics, MEASURED)
    assert f"Not ahead of ECG measurements by an interval at any number of events: {RANDOM}." in text
    assert "0.752 (+0.050 ± 0.000)" in text
    assert len(events_figure(table, "default").axes) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hazards": "default,luck"}, "hazards: expected some of default, .*, got luck"),
        ({"events": "many"}, "events, repetitions: expected numbers from 2, got many and 30"),
        ({"repetitions": 1}, "events, repetitions: expected numbers from 2"),
        ({"checkpoint": None}, "checkpoint: expected one, got none; give --checkpoint"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(tmp_path: Path, change, message) -> None:
    given = {"checkpoint": "c", "data_dir": "d", "output_dir": str(tmp_path / "out"), **change}
    with pytest.raises(ValueError, match=message):
        events.study_events(EventsArguments(**given))
