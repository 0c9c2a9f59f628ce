"""How long one ECG takes on the page of `hub_scripts/space`, from the record to the HTML, after the start.

python tests/benchmarks/bench_space.py [REPEATS]

One thread. Wall time says what a visitor waits, processor time what it costs on a machine that is busy
with other things.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2] / "hub_scripts" / "space"))

import torch
from app import analyse, networks_of_environment
from uploads import SYNTHETIC, synthetic_ecg


def main(repeats: int) -> None:
    """Prints the median over `repeats` analyses of a synthetic 12-lead ECG."""
    torch.set_num_threads(1)
    record, networks = synthetic_ecg(next(iter(SYNTHETIC))), networks_of_environment()
    found: dict[str, list[tuple[float, float]]] = {"result": [], "result and downloads": []}
    for repeat in range(repeats + 1):
        wall, processor = time.perf_counter(), time.process_time()
        answers = analyse(record, networks, "of the labels")
        next(answers)  # "Analysing"
        for name in found:
            next(answers)
            if repeat:  # the first one loads what is loaded late
                found[name].append((time.perf_counter() - wall, time.process_time() - processor))
    for name, times in found.items():
        walls, processors = zip(*times, strict=True)
        print(f"{name}: {median(walls):.2f} s, processor {median(processors):.2f} s (median of {repeats})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
