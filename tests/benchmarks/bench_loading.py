"""How fast prepared records become batches, and how much memory preparing and reading take.

python tests/benchmarks/bench_loading.py [--records 2048] [--memory]

Speed: rhythm records (12 leads, 10 s at 100 Hz) a second on one core, from Arrow to the tensors of a batch of 64 in
random order, beside the same through the numpy format of `datasets`. Memory: growth of the resident memory, mapped
files apart, when four times as many records are prepared, streamed and read.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from datasets import Dataset

from ecgdan_hf.data.prepared.cache import prepare_all
from ecgdan_hf.data.prepared.preparation import Preparation
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.prepared.streaming import stream
from ecgdan_hf.data.simulate.synthetic import write_cohort
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.training.core.batching import EcgCollator, EpochBatchSampler, NumberedRows

BATCH = 64
ROUNDS = 3
CHECKPOINT = Path(__file__).parents[2] / "model_cards" / "ecg-dan-rhythm"
AUGMENTED = {"lead_masking": "record", "augment_scale": 0.1, "augment_noise": 0.02}


def prepared(records: int, folder: Path) -> Dataset:
    """As many prepared rhythm records, of 64 different ones."""
    return prepare_all(record_sources(records, folder), preparation(), num_proc=None, cache_dir=folder / "cache")


def record_sources(records: int, folder: Path) -> list[RecordFile]:
    if not (folder / "cohort").exists():
        write_cohort(folder / "cohort", n=64, seed=0)
    files = sorted((folder / "cohort").rglob("*.hea"))
    return [RecordFile(str(files[i % len(files)].with_suffix("")), {}) for i in range(records)]


def preparation() -> Preparation:
    return Preparation(EcgDanFeatureExtractor.from_pretrained(CHECKPOINT))


class NumpyFormat:
    """What `datasets` documents for arrays: rows through its numpy format."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset.with_format("numpy", columns=["input_values", "lead_mask"])

    def __getitems__(self, rows: list[int]) -> list[dict[str, Any]]:
        columns = self.dataset[rows]
        return [{"row": row, **{name: values[i] for name, values in columns.items()}} for i, row in enumerate(rows)]


def batches_per_second(dataset: Dataset, rows: Any, **augmentation: Any) -> float:
    """Best of some rounds, processor time: other programs on the machine do not count."""
    collator = EcgCollator(EcgDanFeatureExtractor.from_pretrained(CHECKPOINT).lead_names, num_pad=4, **augmentation)
    found = []
    for epoch in range(ROUNDS):
        sampler = EpochBatchSampler(len(dataset), BATCH, seed=epoch)
        start = time.process_time()
        for batch in sampler:
            collator(rows.__getitems__(batch))
        found.append(len(dataset) / (time.process_time() - start))
    return max(found)


def speed(records: int, folder: Path) -> None:
    dataset = prepared(records, folder)
    ours, theirs = NumberedRows(dataset, ["input_values", "lead_mask"]), NumpyFormat(dataset)
    for name, augmentation in (("as it is", {}), ("leads hidden, scaled, noise added", AUGMENTED)):
        here, there = (batches_per_second(dataset, rows, **augmentation) for rows in (ours, theirs))
        print(f"{name}: {here:,.0f} records/s, {here / there:.1f} x the numpy format of datasets ({there:,.0f})")


def read_all(dataset: Dataset) -> None:
    rows = NumberedRows(dataset, ["input_values", "lead_mask"])
    for batch in EpochBatchSampler(len(dataset), BATCH, seed=0):
        np.stack([row["input_values"] for row in rows.__getitems__(batch)])


def stream_all(records: int, folder: Path) -> None:
    metadata = Dataset.from_dict({"row": list(range(records))})
    for _ in stream(record_sources(records, folder), metadata, preparation()):
        pass


def peak_of(job: str, records: int, folder: Path) -> float:
    """Largest resident memory (MB) without mapped files, of a process of its own."""
    process = subprocess.run(
        [sys.executable, __file__, "--job", job, "--records", str(records), "--folder", str(folder)],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return float(json.loads(process.stdout.splitlines()[-1])["peak_mb"])


def run_job(job: str, records: int, folder: Path) -> None:
    jobs: dict[str, Callable[[], Any]] = {
        "prepare": lambda: prepare_all(
            record_sources(records, folder), preparation(), 1, folder / f"prepare-{records}"
        ),
        "read": lambda: read_all(prepared(records, folder)),
        "stream": lambda: stream_all(records, folder),
    }
    own = psutil.Process()
    peak, running = [0.0], [True]

    def watch() -> None:
        while running[0]:
            memory = own.memory_info()
            peak[0] = max(peak[0], (memory.rss - memory.shared) / 1e6)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    jobs[job]()
    running[0] = False
    watcher.join()
    print(json.dumps({"peak_mb": peak[0]}))


def memory(records: int, folder: Path) -> None:
    prepared(records, folder), prepared(4 * records, folder)
    for job in ("prepare", "stream", "read"):
        few, many = (peak_of(job, n, folder) for n in (records, 4 * records))
        print(f"{job}: {few:.0f} MB for {records:,} records, {many:.0f} MB for {4 * records:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=2048)
    parser.add_argument("--memory", action="store_true", help="also measure memory; takes minutes")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where cohort and Arrow files are kept; default a temporary one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        folder = arguments.folder or Path(work)
        if arguments.job:
            run_job(arguments.job, arguments.records, folder)
            return
        speed(arguments.records, folder)
        if arguments.memory:
            memory(arguments.records, folder)


if __name__ == "__main__":
    main()
