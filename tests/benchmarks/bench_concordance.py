"""Time of the survival measures at biobank scale, and Harrell's C beside lifelines on the same records.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_concordance.py [--records 500000] [--repeats 3]

A ratio of 10 says ten times quicker than lifelines. Processor seconds, the shortest of several, so that a busy machine
does not decide; lifelines runs between ours.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from lifelines.utils import concordance_index as lifelines_concordance_index

from ecgdan_hf.evaluation.measures.absolute_risk import (
    brier_score,
    decision_curve,
    dynamic_auc,
    observed_risk,
)
from ecgdan_hf.evaluation.measures.concordance import (
    concordance_difference,
    concordance_index,
    concordance_interval,
    uno_concordance_index,
)
from ecgdan_hf.evaluation.measures.cumulative_incidence import aalen_johansen_table
from ecgdan_hf.evaluation.measures.risk_calibration import RiskCalibration
from ecgdan_hf.evaluation.measures.survival import calibration, kaplan_meier, logrank_p_value

HORIZON = 5.0


def cohort(records: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Event, time in days as years (tied, as in registries) and log hazard of an exponential model."""
    rng = np.random.default_rng(seed)
    log_hazard = rng.normal(size=records)
    times, ends = rng.exponential(20 * np.exp(-log_hazard)), rng.uniform(0, 15, records)
    return (times < ends).astype(float), np.ceil(np.minimum(times, ends) * 365.25) / 365.25, log_hazard


def seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    event, times, score = cohort(arguments.records)
    risk = 1 - np.exp(-HORIZON / 20 * np.exp(score))
    found = concordance_index(event, times, score), lifelines_concordance_index(times, -score, event)
    print(f"{arguments.records} records, {int(event.sum())} events; numpy {np.__version__}")
    print(f"C-index {found[0]:.12f}, lifelines {found[1]:.12f}, difference {abs(found[0] - found[1]):.1e}")
    ours, theirs = [], []
    for _ in range(arguments.repeats):
        ours.append(seconds(lambda: concordance_index(event, times, score)))
        theirs.append(seconds(lambda: lifelines_concordance_index(times, -score, event)))
    print(f"Harrell's C {min(ours):.2f} s, lifelines {min(theirs):.2f} s: ratio {min(theirs) / min(ours):.1f}")
    noisy = score + np.random.default_rng(1).normal(size=len(score))
    others = {
        "C with analytic interval": lambda: concordance_interval(event, times, score),
        "paired difference of two C": lambda: concordance_difference(event, times, score, noisy),
        "Uno's C": lambda: uno_concordance_index(event, times, score, 10.0),
        "AUC at 5 years": lambda: dynamic_auc(event, times, score, HORIZON),
        "Brier score": lambda: brier_score(event, times, risk, HORIZON),
        "observed risk": lambda: observed_risk(event, times, HORIZON),
        "calibration slope": lambda: RiskCalibration(event, times, risk, HORIZON).slope(),
        "calibration curve": lambda: RiskCalibration(event, times, risk, HORIZON).curve(),
        "ICI, E50, E90": lambda: RiskCalibration(event, times, risk, HORIZON).errors(),
        "calibration in groups": lambda: calibration(event, times, risk, HORIZON),
        "decision curve, 50 thresholds": lambda: decision_curve(event, times, risk, HORIZON),
        "Kaplan-Meier": lambda: kaplan_meier(event, times),
        "log-rank": lambda: logrank_p_value(event, times, score > 0),
        "cumulative incidence": lambda: aalen_johansen_table(event + (score > 1) * (event == 1), times),
    }
    print("| measure | seconds |\n|---|---|")
    for name, function in others.items():
        print(f"| {name} | {seconds(function):.2f} |", flush=True)


if __name__ == "__main__":
    main()
