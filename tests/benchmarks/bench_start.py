"""Seconds and memory of the first prediction, by a checkpoint with torch and by its ONNX file without.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_start.py FILE [--checkpoint model_cards/...] [--repeats 3]

Each is `ecgdan predict` on one file in a process of its own; the quickest of the repeats counts, and its largest
resident memory. The two take turns, and `python -c pass` says what a process costs by itself.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKPOINT = Path(__file__).parents[2] / "model_cards" / "ecg-dan-rhythm-superclasses"
PREDICT = "from ecgdan_hf.cli.main import main; main()"


def measured(command: list[str]) -> tuple[float, float, float]:
    """Seconds by the clock, seconds of the processor, and largest resident memory in MB of a process."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        onnx, out = Path(work, "model.onnx"), Path(work, "out.csv")
        # in a process of its own: a process begins with the largest memory of the one that started it
        subprocess.run([sys.executable, "-c", PREDICT, "export", str(given.checkpoint), str(onnx)], check=True)
        predict = [sys.executable, "-c", PREDICT, "predict", str(given.file), "--out", str(out), "--checkpoint"]
        commands = {
            "python alone": [sys.executable, "-c", "pass"],
            "checkpoint, torch": [*predict, str(given.checkpoint)],
            "ONNX file, lite": [*predict, str(onnx)],
        }
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
        for _ in range(given.repeats):
            for name, command in commands.items():
                found[name].append(measured(command))
    print("| first prediction | s | s of the processor | MB |\n|---|---|---|---|")
    for name, runs in found.items():
        seconds, processor, memory = min(runs)
        print(f"| {name} | {seconds:.2f} | {processor:.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
