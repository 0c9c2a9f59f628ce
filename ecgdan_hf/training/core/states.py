"""The resumable states of a run, and its best weights, in the folder `checkpoints` of the run.

A state is the folder `state-EPOCH-BATCH`. It holds all that resuming needs, the best weights so far among it, and
`digests.json`, written last. A state that was damaged since is left out, and the one before it is used. Must not
import the loop.
"""

import dataclasses
import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ecgdan_hf.digests import check_digests, digest_of, write_digests
from ecgdan_hf.files import full_disk_named, whole_file
from ecgdan_hf.training.core.run_folder import RunFolder

_BEST, _PROGRESS = "best.safetensors", "progress.json"


def _environment() -> dict[str, str]:
    """Threads, processes, device and versions, on which the last bits of a number may depend."""
    found = RunFolder.environment()
    return {name: str(value) for name, value in {**found["hardware"], **found["versions"]}.items()}


@dataclass
class Progress:
    """The state of a run, apart from tensors and generators.

    Attributes:
        best_digest: SHA-256 of the file of the best weights.
        seconds: that training took up to this state, over all sessions.
        earlier_seconds: the part of it before this session.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_value: float | None = None
    best_digest: str | None = None
    seconds: float = 0.0
    earlier_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SavedStates:
    """The states and the best weights of one run of the loop.

    Attributes:
        folder: of the run; its `checkpoints` are made when the first state is written.
    """

    folder: Path

    @property
    def best(self) -> Path:
        """The file of the best weights so far."""
        return self._place / _BEST

    @property
    def _place(self) -> Path:
        return self.folder / "checkpoints"

    def all(self) -> list[Path]:
        """Every state, the oldest first."""
        return sorted(self._place.glob("state-*"))

    @contextmanager
    def writing(self, progress: Progress) -> Iterator[Path]:
        """Yields the folder of the state of this progress, which is removed if the block raises.

        Every process writes its part into it; one of them then calls [`finish`].
        """
        partial = self._partial(progress)
        try:
            with full_disk_named(partial):
                yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def finish(self, progress: Progress, keep: int) -> None:
        """Completes the state that was begun, on disk and with digests, and deletes all but the last `keep` states."""
        partial, state = self._partial(progress), self._place / self._name(progress)
        if progress.best_digest:
            shutil.copyfile(self.best, partial / _BEST)
        saved = {**asdict(progress), "environment": _environment()}
        (partial / _PROGRESS).write_text(json.dumps(saved), encoding="utf-8")
        write_digests(partial)
        shutil.rmtree(state, ignore_errors=True)
        partial.rename(state)
        self._delete_all_but(keep)

    def newest(self) -> Path | None:
        """The newest state that is whole; None if there is none. Warns of newer ones that are damaged."""
        for state in reversed(self.all()):
            try:
                check_digests(state)
            except ValueError as error:
                warnings.warn(f"{error}; resuming from before it, to the same result", stacklevel=2)
            else:
                return state
        return None

    def read(self, state: Path) -> Progress:
        """The progress that a whole state holds. Warns if the machine or a library is another one now."""
        saved = json.loads((state / _PROGRESS).read_text(encoding="utf-8"))
        before, now = saved.pop("environment", {}), _environment()
        if changed := [
            f"{name} {before[name]}, now {now.get(name)}" for name in before if before[name] != now.get(name)
        ]:
            warnings.warn(f"{state}: was made with {'; '.join(changed)}: the last bits may differ", stacklevel=2)
        progress = Progress(**saved)
        progress.earlier_seconds = progress.seconds
        return progress

    def go_back(self, state: Path | None, keep: int) -> None:
        """Puts back the best weights of this state; removes newer states, what killed processes left, and all but the
        last `keep` states, as a process may have been killed before it did.
        """
        newer = [path for path in self.all() if state is None or path > state]
        for path in [*newer, *self._place.glob(".part-state-*")]:
            shutil.rmtree(path)
        if state is not None and (state / _BEST).is_file():
            with whole_file(self.best) as part:
                shutil.copyfile(state / _BEST, part)
        self._delete_all_but(keep)

    def _delete_all_but(self, keep: int) -> None:
        for old in self.all()[:-keep]:  # renamed first: half of a state is none
            shutil.rmtree(old.rename(old.with_name(f".part-{old.name}")))

    def load_best(self, progress: Progress) -> dict[str, Tensor]:
        """The best weights, by name.

        Raises:
            ValueError: the file is not the one that was written.
        """
        if progress.best_digest and (not self.best.is_file() or digest_of(self.best) != progress.best_digest):
            raise ValueError(
                f"{self.best}: expected the weights of epoch {progress.best_epoch}, found a missing or damaged file; "
                "--resume continues from the last whole state"
            )
        return load_file(self.best)

    def _partial(self, progress: Progress) -> Path:
        return self._place / f".part-{self._name(progress)}"

    @staticmethod
    def _name(progress: Progress) -> str:
        return f"state-{progress.epoch:05d}-{progress.batch:06d}"
