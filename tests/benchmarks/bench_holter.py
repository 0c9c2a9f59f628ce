"""Time and memory of `ecgdan predict --window 10 --step 10` on a day of three leads.

Writes a WFDB record of synthetic beats with noise, three leads at 250 Hz, and judges it in a process of its own, on so
many cores. Wall time depends on what else the machine does; processor time hardly.

    python tests/benchmarks/bench_holter.py --hours 24 --cores 1,2 --checkpoint model_cards/danet-apc
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import wfdb

from ecgdan_hf.data.simulate.synthetic import SAMPLING_RATE, make_signal
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS

RATE, LEADS, COUNTS_PER_MV = 250, ("II", "V1", "V5"), 200
VARIANTS = 12  # stretches of ten seconds of different rates, in random order


def write_holter(folder: Path, hours: float, seed: int = 0) -> Path:
    """Writes the record `holter` and returns its header."""
    draw, rows = np.random.default_rng(seed), [STANDARD_LEADS.index(lead) for lead in LEADS]
    stretches = [
        make_signal(0.0, 95.0, 55.0 + 4 * number, seed=number)[rows, :: SAMPLING_RATE // RATE]
        for number in range(VARIANTS)
    ]
    count = max(1, round(hours * 3600 * RATE / stretches[0].shape[1]))
    signal_mv = np.concatenate([stretches[place] for place in draw.integers(0, VARIANTS, count)], axis=1)
    counts = np.round(COUNTS_PER_MV * (signal_mv + draw.normal(0, 0.02, signal_mv.shape))).astype(np.int16)
    about = {"units": ["mV"] * 3, "fmt": ["16"] * 3, "adc_gain": [COUNTS_PER_MV] * 3, "baseline": [0] * 3}
    wfdb.wrsamp("holter", RATE, sig_name=list(LEADS), d_signal=counts.T, write_dir=str(folder), **about)
    return folder / "holter.hea"


def judge(header: Path, checkpoint: str, cores: int) -> dict[str, Any]:
    """Seconds of the clock and of the processor, peak memory in MiB, and what the row says."""
    out = header.with_name(f"row-{cores}.csv")
    options = ["--checkpoint", checkpoint, "--window", "10", "--step", "10", "--num-workers", "0", "--out", str(out)]
    command = [sys.executable, "-m", "ecgdan_hf.cli", "predict", str(header), *options]
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    environment = os.environ | {"OMP_NUM_THREADS": str(cores)}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, env=environment, check=True, capture_output=True, preexec_fn=lambda: os.sched_setaffinity(0, allowed)
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with out.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    return {
        "cores": len(allowed),
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
        "windows": row["windows"],
    }


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Prints a row for each number of cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--cores", default="1,2")
    parser.add_argument("--checkpoint", default="model_cards/danet-apc")
    given = parser.parse_args(argv)
    with TemporaryDirectory() as folder:
        header = write_holter(Path(folder), given.hours)
        found = [judge(header, given.checkpoint, int(cores)) for cores in given.cores.split(",")]
    print(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
