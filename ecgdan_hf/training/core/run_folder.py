"""The folder of a run: checked before any work, and filled with the result at the end.

While a run lasts its folder holds `recipe.yaml`, `logs/` and `checkpoints/`. `metrics.json` is written last, so a
folder that has one holds a finished run.
"""

import dataclasses
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.evaluation.folds import recipe_of
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.files import (
    check_output_folder,
    content_of,
    filled_folder,
    locked_folder,
    remove_leftovers,
    write_text,
)
from ecgdan_hf.training.arguments.fields import NOT_PART_OF_THE_RUN, RunArguments
from ecgdan_hf.training.arguments.options import check_options

_PACKAGES = ("ecgdan-hf", "torch", "transformers", "accelerate", "datasets", "timm", "numpy")
_RUN_CONTENTS = ("checkpoints", "logs", "last", "stage-1", "stage-2")


def _versions() -> dict[str, Any]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _hardware() -> dict[str, Any]:
    """The machine of a run: `device` by name, `processes`, and `threads` of each."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else _processor(),
        "kind": "gpu" if on_gpu else "cpu",
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's model; Python itself knows it on few systems."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        path: where it is, or will be.
    """

    path: Path

    @classmethod
    def check(cls, args: RunArguments) -> "RunFolder":
        """Rejects, before any work, arguments with a value that is not used, and a folder that cannot be written.

        That is a folder with other files, or with a run where neither `resume` nor `overwrite` was given or both were;
        with `resume` it is one without a run, or of another recipe.
        """
        check_options(args)
        resume, folder = getattr(args, "resume", False), cls(Path(str(args.output_dir)))
        if args.output_dir and folder.path.is_dir():
            remove_leftovers(folder.path)
        if resume and args.overwrite:
            raise ValueError("resume, overwrite: expected one of the two, got both")
        if args.output_dir and resume:
            _check_same_recipe(folder.path, args)
            return folder
        if args.output_dir and (folder.path / "recipe.yaml").is_file() and not args.overwrite:
            state = "an unfinished" if folder.metrics is None else "a finished"
            way = "--resume to continue it or " if hasattr(args, "resume") else ""
            raise ValueError(f"{folder.path}: holds {state} run; give {way}--overwrite to replace it")
        return cls(check_output_folder(args.output_dir, args.overwrite, "recipe.yaml"))

    @contextmanager
    def begun(self, args: RunArguments) -> Iterator[None]:
        """Locks the folder while the block runs, empties it of the run it replaces, and writes the resolved recipe.

        Raises:
            ValueError: another run has the folder, or had it since it was checked.
        """
        with locked_folder(self.path):
            RunFolder.check(args)
            if not getattr(args, "resume", False):
                _clear(self.path)
                args.data = find_source(args.data, args.data_dir).name  # the recipe names what was recognised
                _write_recipe(self.path, args)
            elif self.metrics is not None:
                raise ValueError(f"{self.path}: the run was finished by another process in the meantime")
            yield

    @property
    def metrics(self) -> Any:
        """The metrics of a finished run; None for one that is not finished."""
        return Result.read(self.path).metrics if (self.path / "metrics.json").is_file() else None

    @staticmethod
    def environment() -> dict[str, dict[str, Any]]:
        """What a result may depend on: the `hardware`, and `versions` of packages."""
        return {"hardware": _hardware(), "versions": _versions()}

    def finish(self, write: Callable[[Path], None], result: Result) -> None:
        """Moves the result into the folder file by file, `metrics.json` last, with the hardware added.

        Args:
            write: writes model, feature extractor, tables and figures into the folder it is given.
            result: the content of `metrics.json`.
        """
        with filled_folder(self.path, last="metrics.json") as staging:
            write(staging)
            Result(result.kind, {**result.metrics, "hardware": _hardware()}).write(staging)


def _write_recipe(folder: Path, args: RunArguments) -> None:
    """Writes every argument of the run, with versions; `--config` accepts the file again."""
    content = {**dataclasses.asdict(args), "versions": _versions()}
    for name in ("resume", "overwrite"):
        content.pop(name, None)
    write_text(folder / "recipe.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _check_same_recipe(folder: Path, args: RunArguments) -> None:
    before = recipe_of(str(folder))
    if before is None:
        raise ValueError(f"{folder}: expected a run to resume, found no recipe.yaml; start it without --resume")
    for name, value in dataclasses.asdict(args).items():
        if name in NOT_PART_OF_THE_RUN or name == "output_dir":
            continue
        if before.get(name) != value:
            raise ValueError(
                f"{name}: the run in {folder} began with {before.get(name)!r}, got {value!r}; resume with the same "
                "arguments, or start over with --overwrite"
            )


def _clear(folder: Path) -> None:
    """Removes the folders and files of a run, but no other folder."""
    for name in _RUN_CONTENTS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in content_of(folder):
        if path.is_file():
            path.unlink()
