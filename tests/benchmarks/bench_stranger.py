"""A stranger's path, timed: clone, install, first prediction, first fine-tuning, round trip to a Hub on this machine.

python tests/benchmarks/bench_stranger.py FOLDER [--python python3]

FOLDER is made. Everything runs in processes of the new installation, as the README says it; the Hub is the server of
`tests/publish/hub_server.py`. Prints a table of wall times.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

from publish.hub_server import TOKEN, HubServer  # noqa: E402

THREE_LINES = """
from transformers import pipeline
import ecgdan_hf
classify = pipeline("ecg-classification", model="model_cards/ecg-dan-rhythm-superclasses")
print(classify("cohort/records/00/00001", top_k=1))
"""
BY_NAME = """
from transformers import pipeline
import ecgdan_hf
print(pipeline("ecg-survival", model="user/mine")("cohort/records/00/00001", horizon_years=5))
"""
FINETUNE = "finetune --config finetune-survival-rhythm --data csv --data-dir cohort --epochs 3 --output-dir runs/mine"


def steps(clone: Path, python: str, hub: dict[str, str]) -> list[tuple[str, list[str], dict[str, str]]]:
    """What is done, the command, and what its environment has beside this one."""
    ecgdan, new = str(clone / ".venv/bin/ecgdan"), str(clone / ".venv/bin/python")
    tune = [*FINETUNE.split(), "--checkpoint", "model_cards/ecg-dan-rhythm"]
    offline = {"HF_HUB_OFFLINE": "1"}
    push = ["push", "bundles/mine", "user/mine", "--private"]
    return [
        ("git clone", ["git", "clone", "--quiet", str(REPOSITORY), str(clone)], {}),
        (
            "install: python -m venv, pip install -e .",
            ["sh", "-c", f"{python} -m venv .venv && {new} -m pip install -q -e ."],
            {},
        ),
        ("200 synthetic ECGs as WFDB files", [ecgdan, "data", "synthetic", "cohort", "--n", "200"], offline),
        ("first prediction, three lines of Python", [new, "-c", THREE_LINES], offline),
        (
            "ecgdan predict, 200 files",
            [ecgdan, "predict", "cohort", "--checkpoint", "model_cards/ecg-dan-rhythm-superclasses", "--out", "p.csv"],
            offline,
        ),
        ("first fine-tuning, 3 epochs of 200 ECGs", [ecgdan, *tune], offline),
        ("ecgdan bundle, proved in a clean process", [ecgdan, "bundle", "runs/mine", "bundles/mine"], offline),
        ("ecgdan push, proved again", [ecgdan, *push], hub),
        ("risk by name from the Hub", [new, "-c", BY_NAME], hub),
        ("the same, offline from the cache", [new, "-c", BY_NAME], {**hub, **offline}),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="python3")
    given = parser.parse_args()
    clone = given.folder.resolve() / "ecgdan_hf"
    given.folder.mkdir(parents=True)
    with HubServer() as server:
        hub = {**server.environment, "HF_TOKEN": TOKEN, "HF_HOME": str(given.folder.resolve() / "home")}
        print("| step | seconds |\n|---|---|", flush=True)
        for name, command, environment in steps(clone, given.python, hub):
            started = time.monotonic()
            where = clone if clone.exists() else given.folder
            variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
            done = subprocess.run(
                command, cwd=where, env=variables, capture_output=True, encoding="utf-8", check=False
            )
            if done.returncode:
                sys.exit(f"{name}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
            print(f"| {name} | {time.monotonic() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
