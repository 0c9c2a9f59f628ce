"""The schema of metrics.json: written once, read strictly, and held by every released file."""

import json
from pathlib import Path

import numpy as np
import pytest

from ecgdan_hf.evaluation.result import Result

RELEASED = sorted([*Path("model_cards").glob("*/metrics.json"), *Path("model_cards").glob("*/evaluation/*.json")])
HELD_OUT = {"metric": "macro_auroc", "models": {}}


def test_a_result_is_read_as_it_was_written(tmp_path: Path):
    Result("held-out", HELD_OUT | {"num_records": 3, "test_folds": [9]}).write(tmp_path)
    found = Result.read(tmp_path)
    assert found == Result.read(tmp_path / "metrics.json") == Result("held-out", found.metrics)
    assert found.metrics == HELD_OUT | {"num_records": 3, "test_folds": [9]}
    text = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert list(text)[:2] == ["schema", "kind"]


def test_numbers_become_plain_json_and_nan_becomes_null():
    given = {"a": np.float64(1.5), "b": np.int64(3), "c": [float("nan"), np.inf], "d": {1: np.bool_(True)}}
    found = json.loads(Result("held-out", HELD_OUT | given).to_json())
    assert [found[key] for key in "abcd"] == [1.5, 3, [None, None], {"1": True}] and isinstance(found["b"], int)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "not readable as JSON"),
        ("[1]", "expected an object, found list"),
        ('{"task": "survival"}', "schema: expected 1, found None"),
        ('{"schema": 2, "kind": "held-out"}', "schema: expected 1, found 2"),
        ('{"schema": 1, "metric": "macro_auroc", "models": {}}', "kind: expected one of .*held-out.*, got None"),
        ('{"schema": 1, "kind": "quiz"}', "kind: expected one of .*held-out.*, got 'quiz'"),
        ('{"schema": 1, "kind": {"a": 1}}', "kind: expected one of .*held-out.*, got {.a.: 1}"),
        ('{"schema": 1, "kind": "held-out", "metric": "x"}', "models: missing in a result of kind held-out"),
    ],
)
def test_a_file_of_another_schema_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str, message: str):
    (tmp_path / "metrics.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"metrics\.json: {message}[^\n]*$"):
        Result.read(tmp_path)


def test_the_source_of_the_records_is_a_name_or_part_of_an_object():
    assert Result("held-out", HELD_OUT | {"data": "ptb-xl"}).data == "ptb-xl"
    assert Result("held-out", HELD_OUT | {"data": {"source": "csv", "num_records": 5}}).data == "csv"
    assert Result("held-out", HELD_OUT).data is None


@pytest.mark.parametrize("path", RELEASED, ids=str)
def test_every_released_result_is_of_the_schema(path: Path):
    assert Result.read(path).to_json() == path.read_text(encoding="utf-8")
