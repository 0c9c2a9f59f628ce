"""Processes that use the unmodified client, forked from one that has imported the libraries and used none of them.

Each is as fresh as a new process and comes without the seconds of importing torch and transformers. The client reads
its endpoint when it is imported, so all processes of one `HubClient` talk to one server, and share its cache.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from warm import WARM

FORK_FOR_EACH_LINE = """
import gc, json, os, sys
import datasets, huggingface_hub.hf_api, pandas, scipy.signal, scipy.stats, torch, transformers.modeling_utils, wfdb
gc.collect()
gc.freeze()
for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if not child:
        os.dup2(os.open(task["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(task["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        for name, value in task["environment"].items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        sys.argv = ["-c", *task["arguments"]]
        sys.path.append(task["tests"])
        import warm
        def program():
            with warm.clean_processes_by(lambda command, **options: warm.ask(task["warm"], command, **options)):
                exec(task["code"], {"__name__": "__main__"})
        os._exit(warm.status_of(program))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

WITHOUT_THE_PACKAGE = "import sys; sys.modules['ecgdan_hf'] = None\n"
"""First line of code that must do with what the repository carries."""

CLI = "import sys; from ecgdan_hf.cli.main import main; sys.exit(main())"


class HubClient:
    """A context in which code runs in processes with these environment variables."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self.variables = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "home"), **environment}

    def __enter__(self) -> "HubClient":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", FORK_FOR_EACH_LINE], env=self.variables, **pipes)
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(600)

    def run(
        self, code: str, *arguments: object, environment: dict[str, str | None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs code, as `python -c` would, and waits; a variable that is None is taken away."""
        files = {name: str(self.folder / name) for name in ("stdout", "stderr")}
        said = {
            "warm": WARM.address(),
            "tests": str(Path(__file__).parents[1]),
            "code": code,
            "arguments": [str(each) for each in arguments],
            "environment": environment or {},
        }
        task = {**said, **files}
        print(json.dumps(task), file=self.process.stdin, flush=True)
        status = int(self.process.stdout.readline())
        texts = {name: Path(file).read_text(encoding="utf-8") for name, file in files.items()}
        return subprocess.CompletedProcess([code, *arguments], status, **texts)

    def cli(
        self, *arguments: object, environment: dict[str, str | None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs `ecgdan` with these arguments."""
        return self.run(CLI, *arguments, environment=environment)
