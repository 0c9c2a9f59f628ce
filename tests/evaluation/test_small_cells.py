"""Small cells: planted counts under 5 stand nowhere, and no total gives them away."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from ecgdan_hf.evaluation.comparators.comparison import Outcome
from ecgdan_hf.evaluation.protocols.held_out import HeldOut
from ecgdan_hf.evaluation.protocols.subgroups import survival_subgroups
from ecgdan_hf.evaluation.report.subgroup_text import subgroup_text
from ecgdan_hf.evaluation.report.survival_figures import kaplan_meier_figure
from ecgdan_hf.evaluation.report.survival_report import write_held_out_report
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.evaluation.small_cells import without_small_cells


def group(records: int, events: int) -> dict[str, int]:
    return {"num_records": records, "num_patients": records, "num_events": events}


def shown(subgroups: dict) -> dict:
    kept = without_small_cells({**group(200, 60), "subgroups": subgroups}, 5)["subgroups"]
    return {by: sorted(members) for by, members in kept.items()}


@pytest.mark.parametrize("cell", [group(4, 0), group(60, 3), group(60, 57)], ids=["records", "events", "no event"])
def test_a_small_group_is_left_out_and_with_it_the_one_that_its_total_would_give_away(cell: dict[str, int]) -> None:
    others = {"40-59": group(70, 20), "60-79": group(50, 20), "80+": group(90, 30)}
    assert shown({"age": {"<40": cell, **others}}) == {"age": ["40-59", "80+"]}
    assert shown({"sex": {"female": cell, "male": group(100, 20)}}) == {"sex": []}


def test_two_small_groups_hide_each_other_and_nobody_at_all_is_no_small_group() -> None:
    found = shown(
        {"age": {"a": group(4, 0), "b": group(3, 0), "c": group(50, 20), "d": group(40, 0), "e": group(0, 0)}}
    )
    assert found == {"age": ["c", "d", "e"]}


def test_a_label_that_is_rare_in_one_group_is_left_out_of_all() -> None:
    def members(rare: int) -> dict:
        return {"num_records": 90, "num_patients": 80, "labels_judged": ["MI", "AF"],
                "labels": {"MI": {"num_positives": 20}, "AF": {"num_positives": rare}}}  # fmt: skip

    metrics = {"num_records": 180, "subgroups": {"sex": {"female": members(2), "male": members(30)}}}
    kept = without_small_cells(metrics, 5)["subgroups"]["sex"]
    assert all(list(each["labels"]) == each["labels_judged"] == ["MI"] for each in kept.values())


def test_thresholds_that_few_exceed_are_left_out() -> None:
    def row(threshold: float, share: float, sensitivity: float) -> dict:
        return {"threshold": threshold, "share_above": {"estimate": share}, "sensitivity": {"estimate": sensitivity}}

    rows = [row(0.05, 0.5, 0.8), row(0.1, 0.015, 0.05), row(0.2, 0.2, 0.98), row(0.3, 0.0, 0.0)]
    kept = without_small_cells({**group(200, 60), "decisions": {"thresholds": rows}}, 5)["decisions"]["thresholds"]
    assert [each["threshold"] for each in kept] == [0.05, 0.3]


@pytest.mark.parametrize(("late", "is_shown"), [(3, False), (98, False), (50, True), (100, True)])
def test_a_small_number_that_entered_late_is_left_out(late: int, is_shown: bool) -> None:
    found = without_small_cells({"data": {"num_records": 100, "num_delayed_entry": late}}, 5)
    assert ("num_delayed_entry" in found["data"]) == is_shown


def test_too_few_in_all_are_refused() -> None:
    with pytest.raises(ValueError, match="small_cells: result: fewer than 5 records, patients, events"):
        without_small_cells(group(50, 4), 5)
    with pytest.raises(ValueError, match="small_cells: result: fewer than 5"):
        without_small_cells({"num_records": {"train": 300, "test": 3}}, 5)
    with pytest.raises(ValueError, match="expected the smallest count to show, 2 or more, got 1"):
        without_small_cells(group(50, 20), 1)


def test_numbers_at_risk_and_of_events_in_a_figure_are_masked() -> None:
    time = np.r_[np.linspace(0.5, 6, 57), 9.0, 9.5, 10.0]
    event, score = (np.arange(60) % 3 == 0).astype(float), np.linspace(-1, 1, 60)
    event[:20] = np.arange(20) < 3
    for smallest, expected in ((0, True), (5, False)):
        figure = kaplan_meier_figure(event, time, score, small_cells=smallest)
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        texts += [label.get_text() for label in figure.axes[-1].get_yticklabels()]
        numbers = [int(number) for text in texts for number in re.findall(r"(?:^|\()(\d+)(?:$| ev)", text)]
        assert any(0 < number < 5 for number in numbers) == expected
        assert any("<5" in text for text in texts) != expected
        plt.close(figure)


def test_nothing_that_an_evaluation_writes_holds_a_planted_small_cell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"record_id": [f"r{i}" for i in range(200)], "patient_id": [f"p{i}" for i in range(200)]})
    table = table.assign(age=np.where(np.arange(200) < 3, 31.0, rng.uniform(61, 79, 200)), sex="female")
    table.loc[::2, "sex"] = "male"
    table = table.assign(event=(rng.random(200) < 0.4).astype(float), time=rng.uniform(0.5, 9, 200))
    score = rng.normal(size=200)
    outcome = Outcome.survival(table, False)
    metrics = {"metric": outcome.name, **outcome.counts(), "models": outcome.compare({"this": score}, n=20)}
    metrics["subgroups"] = survival_subgroups(table, score, None, 5.0, n=20)
    assert re.search(r"\| 3 \| 3 \|", subgroup_text(metrics["subgroups"]))
    metrics = without_small_cells(metrics, 5)
    result = HeldOut(metrics, table.assign(this=score), score, None)
    write_held_out_report(tmp_path, result)
    Result("held-out", metrics).write(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "report.html" in names and not names & {"predictions.csv", "risk_histogram.png"}
    for name in ("report.md", "report.html"):
        text = re.sub(r"data:image[^\"]*|<style>.*?</style>", "", (tmp_path / name).read_text(), flags=re.DOTALL)
        assert not re.search(r"(\||<td>)\s*[1-4]\s*(\||</td>)", text), name
    counts = re.findall(r'"num_(?:records|patients|events)": (\d+)', json.dumps(metrics))
    assert counts and all(int(count) >= 5 for count in counts)
    assert "are left out" in (tmp_path / "report.md").read_text()
