"""Time of `import ecgdan_hf` beside `import transformers`, each in fresh processes, in turn.

python tests/benchmarks/bench_import.py
"""

import argparse
import subprocess
import sys

STATEMENTS = {
    "nothing": "pass",
    "import transformers": "import transformers",
    "import ecgdan_hf": "import ecgdan_hf",
    "from transformers import AutoModel": "from transformers import AutoModel",
    "the same after import ecgdan_hf": "import ecgdan_hf; from transformers import AutoModel",
    "from ecgdan_hf import EcgDanModel": "from ecgdan_hf import EcgDanModel",
    "ecgdan --help": "from ecgdan_hf.cli.main import app; app(['--help'], standalone_mode=False)",
}
TIMED = "import time; start = time.perf_counter(); {}; import sys; print(time.perf_counter() - start, file=sys.stderr)"


def seconds(statement: str) -> float:
    """Seconds of a statement in a fresh process, the interpreter's own start left out."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    return float(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stderr.split()[-1])


def main() -> None:
    """Prints the shortest time of each statement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    found = [{name: seconds(statement) for name, statement in STATEMENTS.items()} for _ in range(repeats)]
    shortest = {name: min(each[name] for each in found) for name in STATEMENTS}
    print(f"seconds, shortest of {repeats} processes")
    for name, value in shortest.items():
        print(f"{value:6.2f}  {name}")
    print(f"{shortest['import ecgdan_hf'] - shortest['import transformers']:+6.2f}  ecgdan_hf against transformers")


if __name__ == "__main__":
    main()
