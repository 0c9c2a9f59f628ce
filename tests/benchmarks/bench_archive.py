"""Kills `ecgdan predict` on an archive again and again: is the table the one of a run that nobody killed?

OMP_NUM_THREADS=1 python tests/benchmarks/bench_archive.py [--files 3000] [--kills 10] [--checkpoint ...]

The archive has synthetic ECGs, each under many names. Every run is killed as by `kill -9`, with all its processes, at
a random time after its first rows, and the next goes on with `--resume`. Rows are on disk a batch at a time, so that a
kill costs at most the batches that were being made.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

DIFFERENT = 64
CHECKPOINT = Path(__file__).parents[2] / "model_cards" / "ecg-dan-rhythm-superclasses"
ECGDAN = [sys.executable, "-c", "from ecgdan_hf.cli.main import main; main()"]


def write_archive(folder: Path, files: int) -> Path:
    """So many files, links to 64 different ones."""
    archive, ecgs = folder / "archive", folder / "ecgs"
    archive.mkdir()
    ecgs.mkdir()
    for number in range(DIFFERENT):
        signal = make_signal(0.0, 90.0, 50 + number, number)
        np.savez(ecgs / f"{number}.npz", signal=signal, sampling_rate=500, unit="mV", lead_names=STANDARD_LEADS)
    for number in range(files):
        (archive / f"{number:06d}.npz").hardlink_to(ecgs / f"{number % DIFFERENT}.npz")
    return archive


def rows_in(file: Path) -> int:
    """Whole lines below the header."""
    return max(0, file.read_bytes().count(b"\n") - 1) if file.exists() else 0


def start(archive: Path, out: Path, given: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [*ECGDAN, "predict", archive, "--checkpoint", given.checkpoint, "--out", out, "--resume"]
    command += ["--num-workers", given.workers]
    return subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL, start_new_session=True)


def killed(archive: Path, out: Path, given: argparse.Namespace, draw: random.Random) -> int:
    """Kills one run some seconds after its first new row; the rows that are then on disk."""
    unfinished = out.with_name(f"{out.name}.rows")
    before, process = rows_in(unfinished), start(archive, out, given)
    while process.poll() is None and rows_in(unfinished) <= before:
        time.sleep(0.05)
    time.sleep(draw.random() * given.seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return rows_in(unfinished)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="a run is killed at most so long after its first row"
    )
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="folder or .onnx")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as work:
        archive = write_archive(Path(work), given.files)
        whole, out = Path(work, "whole.csv"), Path(work, "killed.csv")
        assert start(archive, whole, given).wait() == 0
        rows = [killed(archive, out, given, draw) for _ in range(given.kills) if not out.exists()]
        started = rows_in(out.with_name(f"{out.name}.rows"))
        assert start(archive, out, given).wait() == 0
        same = whole.read_bytes() == out.read_bytes()
    print(
        f"{len(rows)} kills at rows {rows} of {given.files}; the last run began at row {started}; same table: {same}"
    )
    sys.exit(not same)


if __name__ == "__main__":
    main()
