"""How often 95 % intervals of the survival measures cover the truth, in simulated cohorts of tables without a network.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_coverage.py [--cohorts 200] [--patients 300] [--resamples 300]

Every patient has two records that share the outcome and differ in their scores, so that an interval that took them for
two patients would be too narrow. The truth is analytic where it can be (slope, observed risk), and otherwise the
estimate on a population of a million under the same censoring. Binomial noise at 95 % of 200 is 1.5 %.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ecgdan_hf.evaluation.measures.absolute_risk import brier_score, dynamic_auc, observed_risk, scaled_brier_score
from ecgdan_hf.evaluation.measures.concordance import (
    concordance_difference,
    concordance_index,
    concordance_interval,
    uno_concordance_index,
)
from ecgdan_hf.evaluation.measures.intervals import bootstrap_interval
from ecgdan_hf.evaluation.measures.risk_calibration import RiskCalibration

HORIZON, BASELINE, NOISE, SLOPE = 5.0, 0.06, 0.7, 1.25
Table = dict[str, np.ndarray]


def cohort(patients: int, seed: int) -> Table:
    """Two records per patient: `event`, `time`, `score` and `other` (two noisy readings), `risk`, `patient`.

    The hazard depends on the patient's trait; a reading is the trait plus noise. `risk` is the true risk given a
    patient's trait with the log hazard divided by SLOPE, so that the calibration slope of `risk` is SLOPE exactly.
    """
    rng = np.random.default_rng(seed)
    trait = rng.normal(size=patients)
    times = rng.exponential(np.exp(-trait) / BASELINE)
    ends = np.minimum(rng.uniform(0, 20, patients), 12.0)
    columns = {"event": (times < ends).astype(float), "time": np.minimum(times, ends), "patient": np.arange(patients)}
    table = {name: np.repeat(values, 2) for name, values in columns.items()}
    both = np.repeat(trait, 2)
    table["score"], table["other"] = (both + NOISE * rng.normal(size=2 * patients) for _ in range(2))
    table["risk"] = 1 - np.exp(-BASELINE * HORIZON * np.exp(both / SLOPE))
    return table


def measures(resamples: int) -> dict[str, Callable[[Table], Any]]:
    """Name -> function of a table that returns an interval."""

    def resampled(metric: Callable[..., float], column: str, **fixed: float) -> Callable[[Table], Any]:
        judged = partial(metric, **fixed)
        return lambda t: bootstrap_interval(
            judged, t["event"], t["time"], t[column], patient_ids=t["patient"], n=resamples
        )

    def analytic(measure: Callable[..., Any]) -> Callable[[Table], Any]:
        return lambda t: measure(RiskCalibration(t["event"], t["time"], t["risk"], HORIZON, t["patient"]))

    return {
        "Harrell's C, bootstrap": resampled(concordance_index, "score"),
        "Harrell's C, analytic": lambda t: concordance_interval(t["event"], t["time"], t["score"], t["patient"]),
        "difference of two C, analytic": lambda t: concordance_difference(
            t["event"], t["time"], t["risk"], t["other"], t["patient"]
        ),
        "Uno's C, bootstrap": resampled(uno_concordance_index, "score", tau_years=HORIZON),
        "AUC at 5 years, bootstrap": resampled(dynamic_auc, "score", horizon_years=HORIZON),
        "Brier score, bootstrap": resampled(brier_score, "risk", horizon_years=HORIZON),
        "scaled Brier score, bootstrap": resampled(scaled_brier_score, "risk", horizon_years=HORIZON),
        "observed risk, Kaplan-Meier": lambda t: observed_risk(t["event"], t["time"], HORIZON, t["patient"]),
        "observed over expected": analytic(RiskCalibration.observed_over_expected),
        "calibration intercept": analytic(RiskCalibration.intercept),
        "calibration slope": analytic(RiskCalibration.slope),
    }


def truths(names: list[str], patients: int = 500_000) -> dict[str, float]:
    """The value each measure estimates: analytic where it can be, else that of a very large population."""
    population = cohort(patients, seed=987_654_321)
    large = measures(resamples=1)
    found = {name: float(large[name](population).estimate) for name in names}
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    risk = float((weights * -np.expm1(-BASELINE * HORIZON * np.exp(nodes))).sum() / weights.sum())
    known = {"calibration slope": SLOPE, "observed risk, Kaplan-Meier": risk}
    return found | {name: value for name, value in known.items() if name in names}


def coverage(
    truth: dict[str, float], cohorts: int, patients: int, resamples: int
) -> dict[str, tuple[int, int, float]]:
    """Name -> cohorts whose interval is below the truth, above it, and the mean width."""
    names, judged = list(truth), measures(resamples)
    found = dict.fromkeys(names, (0, 0, 0.0))
    for seed in range(cohorts):
        table = cohort(patients, seed)
        for name in names:
            interval, (below, above, width) = judged[name](table), found[name]
            found[name] = (
                below + (interval.high < truth[name]),
                above + (interval.low > truth[name]),
                width + (interval.high - interval.low) / cohorts,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=200)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=300)
    arguments = parser.parse_args()
    truth = truths(list(measures(1)))
    found = coverage(truth, arguments.cohorts, arguments.patients, arguments.resamples)
    print(f"{arguments.cohorts} cohorts of {arguments.patients} patients with two records, 95 % intervals")
    print("| measure | truth | covered | too low | too high | mean width |\n|---|---|---|---|---|---|")
    for name, (below, above, width) in found.items():
        inside = arguments.cohorts - below - above
        share = inside / arguments.cohorts
        print(f"| {name} | {truth[name]:.4f} | {inside} ({share:.1%}) | {below} | {above} | {width:.3f} |")


if __name__ == "__main__":
    main()
