"""Two thousand fuzzed recipes, flags, tables, checkpoints and signals: a result or one line, and nothing else.

`make soak` runs `tests/benchmarks/bench_fuzz.py` with many more, and with the seeds of a series.
"""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench_fuzz

CASES = {"checkpoint": 40, "extractor": 60, "flags": 60, "hospital_table": 120}
"""Of the slow targets; the others have `REST` each."""
REST = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    bench_fuzz.prepare(folder)
    return folder / "case"


@pytest.mark.parametrize("target", bench_fuzz.TARGETS)
def test_fuzzed_input_ends_as_a_result_or_one_line(target: str, folder: Path) -> None:
    endings = [bench_fuzz.run_case(number, 1, target, folder) for number in range(CASES.get(target, REST))]
    assert not [each for each in endings if each.ending not in ("result", "refusal")]
    assert {each.ending for each in endings} == {"result", "refusal"}  # or nothing was changed, or nothing whole tried


def test_a_foreign_exception_would_be_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(folder: Path, draw: random.Random) -> None:
        raise draw.choice((KeyError("x"), ValueError("two\nlines"), UnicodeDecodeError("utf-8", b"", 0, 1, "x")))

    monkeypatch.setitem(bench_fuzz.TARGETS, "failing", failing)
    assert {bench_fuzz.run_case(number, 1, "failing", folder).ending for number in range(9)} == {"foreign"}
