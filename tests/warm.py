"""Fresh Python processes, forked from one that has imported torch, for tests that need many of them.

A child is as new as `python` just started, but for the imports of `SHARED`: libraries that read nothing of the
environment and take seconds to import. transformers, huggingface_hub and the package are imported by the child.
"""

import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SHARED = ("numpy", "pandas", "scipy.optimize", "scipy.signal", "scipy.stats", "pyarrow.parquet", "tokenizers", "regex")
SHARED += ("torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor", "torch._dynamo")
SHARED += ("torch.export", "torch.utils.tensorboard", "torchvision.transforms.v2", "jinja2", "yaml", "psutil")
FORKS = hasattr(os, "fork") and hasattr(socket, "AF_UNIX")

start_process = subprocess.run


class WarmPython:
    """Starts when it is first asked, and ends with `close` or with the process that started it."""

    def __init__(self) -> None:
        self.folder: tempfile.TemporaryDirectory | None = None

    def run(self, command: Sequence[object], **options: Any) -> subprocess.CompletedProcess:
        """As `subprocess.run` does for `[sys.executable, ...]` with `capture_output`."""
        if not FORKS:
            return start_process([str(word) for word in command], **options)
        return ask(self.address(), command, **options)

    def address(self) -> str:
        """Where the process listens, once it does."""
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="warm-")
            command = [sys.executable, "-I", "-X", "utf8", __file__, f"{self.folder.name}/socket"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)
            assert self.process.stdout.readline() == b"ready\n"
        return f"{self.folder.name}/socket"

    def close(self) -> None:
        if self.folder is not None:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait(600)
            self.folder.cleanup()
            self.folder = None


WARM = WarmPython()
"""Of this process; `tests/conftest.py` closes it."""


def ask(
    address: str,
    command: Sequence[object],
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    check: bool = False,
    **_: Any,
) -> subprocess.CompletedProcess:
    """Has the process at `address` run a command in a child, and waits for it."""
    words = [str(word) for word in command]
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as connection:
        files = {name: f"{folder}/{name}" for name in ("stdout", "stderr")}
        task = {"words": words[1:], "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
        connection.connect(address)
        connection.sendall(json.dumps(task | files).encode() + b"\n")
        status = json.loads(connection.makefile().readline())
        texts = {name: Path(file).read_text(encoding="utf-8") for name, file in files.items()}
    done = subprocess.CompletedProcess(words, status, **texts)
    if check:
        done.check_returncode()
    return done


@contextlib.contextmanager
def clean_processes_by(run: Callable[..., subprocess.CompletedProcess]) -> Iterator[None]:
    """Has `run` start the processes that prove a bundle; all others start as ever."""

    def chosen(command: Any, *arguments: Any, **options: Any) -> subprocess.CompletedProcess:
        warm = isinstance(command, list) and command[0] == sys.executable and "clean_process.py" in " ".join(command)
        return run(command, **options) if warm else start_process(command, *arguments, **options)

    subprocess.run = chosen
    try:
        yield
    finally:
        subprocess.run = start_process


def serve(address: str) -> None:
    """Forks a process for each task until standard input ends."""
    for name in SHARED:
        with contextlib.suppress(ModuleNotFoundError):
            __import__(name)
    gc.collect()
    gc.freeze()  # or each child would copy the memory of all these objects when it collects garbage
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in (ready := select.select([listener, sys.stdin], [], [])[0]):
            connection, _ = ready[0].accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                _answer(connection, address)
                os._exit(0)
            connection.close()


def _answer(connection: socket.socket, address: str) -> None:
    task = json.loads(connection.makefile().readline())
    child = os.fork()
    if not child:
        connection.close()
        os._exit(_run(task, address))
    connection.sendall(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode() + b"\n")


def _run(task: dict[str, Any], address: str) -> int:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(task[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(task["env"])
    os.chdir(task["cwd"])
    with clean_processes_by(lambda command, **options: ask(address, command, **options)):
        return status_of(lambda: _execute(task["words"]))


def status_of(program: Callable[[], None]) -> int:
    """Runs a program as a process would: returns its exit status, with its last words on standard error."""
    code = 0
    try:
        program()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _execute(words: list[str]) -> None:
    """What follows the name of the interpreter: `-I`, `-X utf8`, then `-c CODE`, `-m MODULE` or a script."""
    isolated = "-I" in words[:1]
    words = words[1:] if isolated else words
    words = words[2:] if words[0] == "-X" else words
    kind, rest = (words[0], words[1:]) if words[0] in ("-c", "-m") else ("script", words)
    sys.argv = ["-c" if kind == "-c" else rest[0], *rest[1:]]
    if not isolated:
        sys.path.insert(0, str(Path(rest[0]).parent) if kind == "script" else "")
        sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if kind == "-c":
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(rest[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
