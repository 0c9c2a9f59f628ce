"""Intervals cover the truth about as often as they say, in simulated cohorts with two records per patient."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from ecgdan_hf.evaluation.measures.concordance import concordance_interval

ANALYTIC = [
    "Harrell's C, analytic",
    "difference of two C, analytic",
    "observed risk, Kaplan-Meier",
    "observed over expected",
    "calibration intercept",
    "calibration slope",
]
BOOTSTRAP = ["Harrell's C, bootstrap", "AUC at 5 years, bootstrap", "Brier score, bootstrap"]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        return importlib.import_module("bench_coverage")


def test_analytic_intervals_cover_the_truth(bench: ModuleType) -> None:
    found = bench.coverage(bench.truths(ANALYTIC, patients=100_000), cohorts=200, patients=250, resamples=1)
    covered = {name: 200 - below - above for name, (below, above, _) in found.items()}
    assert set(covered) == set(ANALYTIC)
    assert min(covered.values()) >= 180, covered
    assert max(covered.values()) <= 198, covered


def test_bootstrap_intervals_cover_the_truth(bench: ModuleType) -> None:
    found = bench.coverage(bench.truths(BOOTSTRAP, patients=100_000), cohorts=50, patients=150, resamples=100)
    covered = {name: 50 - below - above for name, (below, above, _) in found.items()}
    assert min(covered.values()) >= 42, covered  # 47.5 expected, 42 is 3.6 standard deviations below


def test_taking_two_records_of_a_patient_for_two_patients_covers_too_rarely(bench: ModuleType) -> None:
    truth = bench.truths(["Harrell's C, analytic"], patients=100_000)["Harrell's C, analytic"]
    covered = 0
    for seed in range(200):
        table = bench.cohort(250, seed)
        interval = concordance_interval(table["event"], table["time"], table["score"])
        covered += interval.low <= truth <= interval.high
    assert covered < 184
