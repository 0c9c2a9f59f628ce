"""Kills fine-tunings before random file operations and resumes them: do they end with the same bits?

    python tests/benchmarks/bench_kills.py --kills 100

Each run is a child of a process that has imported everything, and ends, as by `kill -9`, before a file operation that
a seed draws. Then the run is resumed, or started again where it had not begun. Prints how many ended with the weights
of the run that nobody killed, and what the others said.
"""

import argparse
import hashlib
import os
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.kills import KILLED, die_before, is_operation
from fixtures.training_runs import COMMON, TINY_MODEL

from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.training import finetune
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.arguments.options import resolve


def fine_tune(base: Path, folder: Path) -> None:
    """A short run in a folder, resumed if it began there."""
    resume = (folder / "recipe.yaml").is_file()
    flags = {**COMMON, "epochs": 3, "model": TINY_MODEL, "bootstrap": 20, "from_scratch": True, "task": "survival"}
    flags |= {"data": "csv", "data_dir": str(base / "cohort"), "cache_dir": str(base / "cache"), "resume": resume}
    flags |= {"checkpoint_every_steps": 1, "ema_decay": 0.9, "output_dir": str(folder)}
    finetune.finetune(resolve(FinetuneArguments, None, flags))


def run(base: Path, folder: Path, kill_before: int | None = None) -> int:
    """Fine-tunes in a child; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.dup2(os.open(base / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    try:
        if kill_before is not None:
            die_before(kill_before)
        fine_tune(base, folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def count_operations(base: Path, folder: Path) -> int:
    """File operations of a run that nobody kills."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        seen: list[str] = []
        sys.addaudithook(lambda event, args: seen.append(event) if is_operation(event, args) else None)
        fine_tune(base, folder)
        os.write(writing, str(len(seen)).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reading, 20))


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    draw, found = random.Random(asked.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as work:
        base = Path(work)
        synthetic.write_cohort(base / "cohort", n=48, seed=0)
        assert run(base, base / "warm") == 0, (base / "said.txt").read_text(encoding="utf-8")
        operations, whole = count_operations(base, base / "whole"), digest(base / "whole")
        for number in range(asked.kills):
            folder, place = base / f"run-{number}", draw.randrange(operations)
            killed = run(base, folder, place) == KILLED
            twice = killed and draw.random() < 0.3 and run(base, folder, draw.randrange(operations)) == KILLED
            code = run(base, folder)
            said = (base / "said.txt").read_text(encoding="utf-8").strip().splitlines()
            same = code == 0 and digest(folder) == whole
            left = [path.name for path in folder.rglob(".part-*")]
            what = "same bits" if same else f"exit {code} before operation {place}: {said[-1] if said else ''}"
            found[what + (", leavings" if left else "")] += 1
            found["kills"] += killed + twice
            print(f"{number + 1} runs of {operations} file operations: {dict(found)}", flush=True)


if __name__ == "__main__":
    main()
