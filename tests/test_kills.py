"""Thirty kills of verbs at random moments; `make soak` has a thousand of all verbs."""

import os
import sys
from pathlib import Path

import pytest
from warm import WARM

BENCH = Path(__file__).parent / "benchmarks" / "bench_kills.py"
VERBS = "data outcomes,data measure"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_verb_ends_with_the_bits_of_one_that_nobody_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": str(BENCH.parents[2])}
    done = WARM.run([sys.executable, BENCH, "--kills", 30, "--verbs", VERBS], env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].split(" kills of ")[0]) >= 30 and "other" not in done.stdout
