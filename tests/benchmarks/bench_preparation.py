"""Time from a file to the network's input, stage by stage, as ratios to reading the same file with wfdb.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_preparation.py [--records runs/demo/cohort] [--limit 50] [--repeats 5]

Times are of the processor; all stages take turns on each record, and the shortest of the repeats counts.
Filter, R peaks and resampling stand beside what they replace: scipy's filters, and neurokit2 lead by lead.
"""

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path

import neurokit2 as nk
import numpy as np
import wfdb
from scipy.signal import butter, resample_poly, sosfiltfilt

from ecgdan_hf import EcgDanFeatureExtractor
from ecgdan_hf.data.formats import read
from ecgdan_hf.model.conditioning_ecgdan import resample
from ecgdan_hf.model.filters_ecgdan import apply_filter
from ecgdan_hf.model.r_peaks_ecgdan import REFRACTORY_SECONDS, find_r_peaks

KINDS = {"rhythm, 100 Hz": "ecg-dan-rhythm", "median beat, 500 Hz": "ecg-dan"}
READING = "read with wfdb"


def stages(header: Path, extractors: dict[str, EcgDanFeatureExtractor]) -> dict[str, Callable[[], object]]:
    """What is timed on one record."""
    record = read(header)
    signal, rate = record.signal_mv, record.sampling_rate
    given = {"sampling_rate": rate, "unit": "mV", "lead_names": record.lead_names}
    filtered = apply_filter(signal, rate, 0.5)
    found: dict[str, Callable[[], object]] = {
        READING: lambda: wfdb.rdrecord(str(header.with_suffix(""))),
        "read": lambda: read(header),
        "filter": lambda: apply_filter(signal.astype(float), rate, 0.5),
        "filter by scipy": lambda: sosfiltfilt(
            butter(2, 0.5, "highpass", fs=rate, output="sos"),
            signal.astype(float),
            padtype="even",
            padlen=round(2 * rate),
        ),
        "R peaks": lambda: find_r_peaks(filtered, rate),
        "R peaks of each lead by neurokit2": lambda: [_neurokit(lead, rate) for lead in filtered],
    }
    if rate == 500:
        found |= {
            "resample to 100 Hz": lambda: resample(filtered, rate, 100),
            "resample to 100 Hz by scipy": lambda: resample_poly(filtered, 1, 5, axis=1, padtype="line"),
        }
    return found | {f"prepare, {kind}": lambda x=x: x(signal, **given) for kind, x in extractors.items()}


def _neurokit(lead_mv: np.ndarray, rate: float) -> object:
    return nk.ecg_findpeaks(lead_mv, rate, method="neurokit", mindelay=REFRACTORY_SECONDS)


def shortest(stage: Callable[[], object], repeats: int) -> float:
    """Milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        stage()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=Path("runs/demo/cohort"))
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    cards = Path(__file__).parents[2] / "model_cards"
    extractors = {kind: EcgDanFeatureExtractor.from_pretrained(cards / name) for kind, name in KINDS.items()}
    times: dict[str, list[float]] = {}
    headers = sorted(given.records.rglob("*.hea"))[: given.limit]
    for header in headers:
        for name, stage in stages(header, extractors).items():
            times.setdefault(name, []).append(shortest(stage, given.repeats))
    reading = np.median(times[READING])
    print(f"{len(headers)} records, median of the shortest of {given.repeats} times\n")
    print("| stage | ms | ratio to wfdb |\n|---|---|---|")
    for name, values in times.items():
        print(f"| {name} | {np.median(values):.2f} | {np.median(values) / reading:.2f} |")


if __name__ == "__main__":
    main()
