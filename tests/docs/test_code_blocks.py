"""Every code block of README and docs runs, in order, in what a reader has: a clone after `make demo` and some data.

Bash splits and expands the commands; they then run in this process, made small by flags at their end. A block that
cannot run in a test says why in a comment before it: `<!-- not run: REASON -->`.
"""

import base64
import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml
from accelerate.commands.launch import launch_command_parser
from fixtures.write_clone import REPOSITORY, write_clone
from golden_weights import authors_state, read_oracle
from publish.hub_client import CLI, HubClient
from publish.hub_server import TOKEN, HubServer
from torch.distributed.run import get_args_parser as torchrun_parser
from warm import WARM

from ecgdan_hf.cli.main import app
from ecgdan_hf.training.arguments.command import run_safely

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NEEDS_A_HUB = "publish.md"
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```", re.M | re.S)

RUN = ["--num-proc", "1", "--epochs", "1", "--log-with", "none", "--batch-size", "16"]
JUDGE = ["--num-proc", "1", "--bootstrap", "20"]
SMALL = {
    "pretrain": RUN,
    "finetune": [*RUN, "--bootstrap", "20"],
    "probe": JUDGE,
    "evaluate": JUDGE,
    "sanity": [*JUDGE, "--draws", "1", "--limit", "4", "--map-records", "2", "--methods", "attention,gradient"],
}
"""Flags that make a command small; nothing else of it changes."""

PROGRAMS = {"ecgdan": CLI, "hf": "from huggingface_hub.cli.hf import main; main()"}
LAUNCHERS = ("accelerate", "torchrun")

LISTEN = """
listen() { printf "%q " "$PWD" "$(env --null | base64 --wrap=0)" "$@" >> "$COMMANDS"; echo >> "$COMMANDS"; }
ecgdan() { listen ecgdan "$@"; }
python() { listen python "$@"; }
accelerate() { listen accelerate "$@"; }
torchrun() { listen torchrun "$@"; }
hf() { listen hf "$@"; }
make() { listen make "$@"; }
set -euo pipefail
"""


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int
    reason: str | None


def blocks_of(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], text.count("\n", 0, found.start()) + 1, found["reason"])
        for found in BLOCK.finditer(text)
    ]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A reader's folder, and one cache of prepared recordings for all documents."""
    caches = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_DATASETS_CACHE", str(caches / "datasets"))
        patched.setenv("XDG_CACHE_HOME", str(caches / "cache"))
        yield write_clone(tmp_path_factory.mktemp("reader") / "ecgdan_hf")


@pytest.fixture
def clone(reader: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The reader's folder; what a document leaves there is removed after it."""
    monkeypatch.chdir(reader)
    before = states_of(reader)
    yield reader
    after = states_of(reader)
    for path in sorted(after.keys() - before.keys(), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert {path: after.get(path) for path in before} == before, "a document changed what is there for all"


def states_of(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of change of everything in a folder; size 0 and time 0 of folders."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {x: (0, 0) if x.is_dir() else (stat.st_size, stat.st_mtime_ns) for x, stat in found.items()}


@pytest.mark.parametrize("document", [x for x in DOCUMENTS if x.name != NEEDS_A_HUB], ids=lambda path: path.name)
def test_every_code_block_runs(document: Path, clone: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    names: dict[str, object] = {}
    if "AUTHORS.ckpt" in document.read_text(encoding="utf-8"):
        oracle, _ = read_oracle(request.getfixturevalue("shared"))
        torch.save(authors_state(oracle, "median_608"), clone / "AUTHORS.ckpt")
    for block in blocks_of(document):
        if block.reason is None:
            where = f"{document.name}:{block.line}"
            if block.language == "python":
                exec(compile(block.code, where, "exec"), names)
            elif block.language == "bash":
                for command in commands_of(block.code, tmp_path / "commands"):
                    assert run(command) == 0, f"{where}: {shlex.join(command.words)}"
            elif block.language == "yaml":
                assert yaml.safe_load(block.code), where


def test_every_code_block_on_publishing_runs_against_a_hub(clone: Path, tmp_path: Path) -> None:
    blocks = blocks_of(REPOSITORY / "docs" / NEEDS_A_HUB)
    code = {
        language: [block.code for block in blocks if block.language == language] for language in ("bash", "python")
    }
    commands = commands_of("".join(code["bash"]).replace("USER/", "user/"), tmp_path / "commands")
    programs = [(PROGRAMS[x.words[0]], x.words[1:], x.variables) for x in commands]
    loaded_at_the_end = "".join(code["python"]).replace("USER/", "user/")  # what it loads has been pushed by then
    programs.append((loaded_at_the_end, [], {}))
    with HubServer() as hub, HubClient({**hub.environment, "HF_TOKEN": TOKEN}, tmp_path) as client:
        for program, arguments, variables in programs:
            done = client.run(program, *arguments, environment=variables)
            assert done.returncode == 0, f"{NEEDS_A_HUB}: {shlex.join(arguments)}\n{done.stderr}"


def test_a_block_in_another_language_is_neither_code_nor_overlooked() -> None:
    languages = {block.language for document in DOCUMENTS for block in blocks_of(document)}
    assert languages <= {"python", "bash", "yaml", "text", "bibtex"}
    fences = sum(document.read_text(encoding="utf-8").count("\n```") for document in DOCUMENTS)
    assert fences == 2 * sum(len(blocks_of(document)) for document in DOCUMENTS)


@dataclass(frozen=True)
class Command:
    folder: Path
    words: list[str]
    variables: dict[str, str]
    """Of the environment: those that the block sets."""


def commands_of(code: str, record: Path) -> list[Command]:
    """The commands of a block, as bash understands them."""
    record.write_text("", encoding="utf-8")
    lines = f"{LISTEN}{code}"
    given = {"COMMANDS": str(record), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", lines],
        env=given,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    found = [shlex.split(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return [Command(Path(folder), words, set_by_the_block(variables, given)) for folder, variables, *words in found]


def set_by_the_block(variables: str, given: dict[str, str]) -> dict[str, str]:
    pairs = (pair.split("=", 1) for pair in base64.b64decode(variables).decode().split("\0") if pair)
    return {name: value for name, value in pairs if name not in {*given, "PWD", "OLDPWD", "SHLVL", "_"}}


def run(command: Command) -> int:
    assert command.folder == Path.cwd(), "a block that changes folder is not understood here"
    with patch.dict(os.environ, command.variables):
        return run_here(command.words)


def run_here(words: list[str]) -> int:
    program, *arguments = words
    if program == "ecgdan":
        return run_safely(lambda: app(made_small(arguments), standalone_mode=False))
    if program == "make":  # the two commands are themselves what CI and a reader run; here: is there such a target
        return int(f"\n{arguments[0]}: " not in (REPOSITORY / "Makefile").read_text(encoding="utf-8"))
    if program in LAUNCHERS or arguments[0] == "-m":
        return run_process(words)
    return run_script(arguments)


def made_small(arguments: list[str]) -> list[str]:
    verb, said = arguments[0], " ".join(arguments)
    small = list(SMALL.get(verb, []))
    if "few-events" in said:  # trains nothing
        at = small.index("--epochs")
        del small[at : at + 2]
    if verb == "pretrain" and "--text-model" not in said and "danet" not in said:
        small += ["--text-model", "minilm"]
    if "danet" in said and verb in ("pretrain", "finetune"):
        small += ["--simulated-records", "60"]
    if "repeated-cv" in said:
        small += ["--seeds", "0", "--folds", "2", "--common", "epochs=1"]
    return [*arguments, *small]


def run_script(arguments: list[str]) -> int:
    before, sys.argv = sys.argv, arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def run_process(words: list[str]) -> int:
    """A module run by python, or by a launcher in as many processes as the block says.

    The launchers' own parsers read their flags; the processes are then started as a launcher starts them.
    """
    program, *arguments = words
    processes = 1
    if program == "accelerate":  # on a CPU it starts `python` with what follows its own flags
        said = launch_command_parser().parse_args(arguments[1:])
    elif program == "torchrun":
        said = torchrun_parser().parse_args(arguments)
        processes = int(said.nproc_per_node)
    if program in LAUNCHERS:
        arguments = ["-m", said.training_script, *said.training_script_args]
    verb = next(word for word in arguments if word.startswith("ecgdan_hf.")).rsplit(".", 1)[1]
    command = [sys.executable, *arguments, *made_small([verb])[1:]]
    if processes == 1:
        return WARM.run(command).returncode
    with ThreadPoolExecutor(processes) as pool:
        return max(pool.map(lambda variables: WARM.run(command, env=variables).returncode, ranks(processes)))


def ranks(processes: int) -> list[dict[str, str]]:
    """The variables by which processes find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
