"""A few of the files that `tests/benchmarks/bench_mutations.py` reads by the thousand."""

import importlib
from pathlib import Path

FILES = 100


def test_a_mutated_file_of_any_format_ends_as_a_record_or_as_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    bench = importlib.import_module("bench_mutations")
    wholes = bench.corpus(tmp_path / "whole")
    for whole in wholes:
        path = bench.write(whole, whole.content, tmp_path / "mutant")
        assert bench.read_mutant(path) == ("record", ""), whole.name
    found = [bench.examine(number, 0, wholes, tmp_path / "mutant") for number in range(FILES)]
    assert not [each for each in found if each.ending not in ("record", "refusal")]
    assert {each.ending for each in found} == {"record", "refusal"}
    assert max(each.seconds for each in found) < bench.LIMIT_SECONDS
