"""Runs decoders that a damaged file can crash or hang in a child process with limits of time and memory.

libhdf5 and scipy's `loadmat` end the process with a segmentation fault, or never return, for single changed bytes, and
no signal reaches them. Each process has one child, which decodes one file after another; a child that dies or takes
too long is replaced. Answers are JSON and an array of numpy, never pickles.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from ecgdan_hf.data.readers.messages import one_line

LIMIT_SECONDS = 2.0  # of the processor
SECONDS_PER_BYTE = 1 / (50 << 20)  # a slow disk
WAIT_SECONDS = 180.0  # at most, however busy the machine is
LIMIT_BYTES = 1 << 30
_MODULE, _DECODERS = "ecgdan_hf.data.readers.child", "ecgdan_hf.data.readers.decoders"
_TIME_IS_UP, _KILLED = 27, 9  # SIGPROF of Linux and macOS; SIGKILL after `WAIT_SECONDS`
_children: dict[int, "_Child"] = {}  # by process id: a fork must not share its parent's pipes
_turns: dict[int, threading.Lock] = {}  # likewise: one file at a time, or threads would take each other's answers


def decode(
    place: str, path: Path, member: str | None = None, seconds: float | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns what a function of `decoders` makes of a file: an array, and what the file says of it.

    `place` is its name, or `module:function` of another; `seconds` of the processor are its limit for a small file.

    Raises ValueError if the function does, or if its process dies or exceeds its limits.
    """
    with _turns.setdefault(os.getpid(), threading.Lock()):
        child = _children.get(os.getpid())
        if child is None or child.process.poll() is not None:
            child = _children[os.getpid()] = _Child(path)
        return child.ask(place, path, member, seconds)


class _Child:
    def __init__(self, path: Path) -> None:
        paths = os.pathsep.join(str(each) for each in sys.path if each)
        self.process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self._receive(0, path, "a decoder that starts")

    def ask(
        self, place: str, path: Path, member: str | None, seconds: float | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        seconds = (LIMIT_SECONDS if seconds is None else seconds) + path.stat().st_size * SECONDS_PER_BYTE
        request = {"place": place, "path": str(path.absolute()), "member": member, "seconds": seconds}
        with contextlib.suppress(BrokenPipeError):
            _stream(self.process.stdin).write(json.dumps(request).encode() + b"\n")
            _stream(self.process.stdin).flush()
        answer, content = self._receive(seconds, path, "a file that can be decoded")
        if "error" in answer:
            raise ValueError(answer["error"].replace(str(path.absolute()), str(path)))
        return np.load(BytesIO(content), allow_pickle=False), answer["said"]

    def _receive(self, seconds: float, path: Path, expected: str) -> tuple[dict[str, Any], bytes]:
        """The next answer; ends the child if there is none."""
        late = threading.Timer(WAIT_SECONDS, self.process.kill)
        late.start()
        try:
            line = _stream(self.process.stdout).readline()
            answer = json.loads(line) if line else None
            content = _stream(self.process.stdout).read(answer["bytes"]) if answer else b""
        finally:
            late.cancel()
        if answer is None or len(content) < answer["bytes"]:
            code = self.end()
            time_is_up = code in (-_TIME_IS_UP, -_KILLED)
            found = f"that its decoder did not finish in {seconds:.2g} s" if time_is_up else "that ends its decoder"
            raise ValueError(f"{path}: expected {expected}, got a damaged one {found}")
        return answer, content

    def end(self) -> int:
        """The exit code of a child that has ended or is about to; its pipes are closed."""
        late = threading.Timer(1.0, self.process.kill)
        late.start()
        code = self.process.wait()
        late.cancel()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                _stream(pipe).close()
        return code


@atexit.register
def _end_child() -> None:
    """Ends the child of this process, not one that a fork inherited."""
    child = _children.pop(os.getpid(), None)
    if child is not None:
        child.process.kill()
        child.end()


def _stream(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("child: expected a pipe to the decoder")
    return pipe


def _limit_memory(more: int | None = LIMIT_BYTES) -> None:
    """Allows this process so much more memory than it has, or all; no effect where the system has no such limit."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = hard if more is None else used + more
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))


def _limit_time(seconds: float) -> None:
    """Ends this process after so many more seconds of the processor, or never for 0; a signal that Python handles
    would not reach C code.
    """
    with contextlib.suppress(AttributeError):  # a system without such timers
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    module, _, name = request["place"].rpartition(":")
    try:
        if module and module not in sys.modules:  # what it imports may be larger than any file
            _limit_memory(None)
            import_module(module)
            _limit_memory()
        _limit_time(request["seconds"])
        array, said = getattr(import_module(module or _DECODERS), name)(Path(request["path"]), request["member"])
        buffer = BytesIO()
        np.save(buffer, array, allow_pickle=False)
        return {"said": said, "bytes": buffer.tell()}, buffer.getvalue()
    except ValueError as error:
        return {"error": str(error), "bytes": 0}, b""
    except Exception as error:  # whatever damaged files cause
        return {"error": f"{request['path']}: damaged file: {one_line(error)[:200]}", "bytes": 0}, b""
    finally:
        _limit_time(0.0)  # or what is imported for the next file would end in the time of this one


def _plain(value: Any) -> Any:
    """Numbers and words of numpy for JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _serve() -> None:
    """Answers requests until the parent is gone."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    import_module(_DECODERS)
    _limit_memory()
    out.write(b'{"bytes": 0}\n')
    out.flush()
    for line in sys.stdin.buffer:
        answer, content = _answer(json.loads(line))
        out.write(json.dumps(answer, default=_plain).encode() + b"\n" + content)
        out.flush()


if __name__ == "__main__":
    _serve()
