"""The resumable states of a run: damaged ones are recognised, and the one before is used."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ecgdan_hf.digests import digest_of
from ecgdan_hf.training.core.states import Progress, SavedStates

FILES = ["best.safetensors", "digests.json", "model.safetensors", "progress.json", "random_states_0.pkl"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[Callable[[Path], None]] = [cut, flip, empty, Path.unlink]


@pytest.fixture
def states(tmp_path: Path) -> SavedStates:
    """Two states, each with the best weights of its time."""
    states = SavedStates(tmp_path / "run")
    for epoch in (1, 2):
        progress = Progress(epoch=epoch, best_epoch=epoch, seconds=10.0 * epoch)
        with states.writing(progress) as partial:
            partial.mkdir(parents=True)
            for name in ("model.safetensors", "random_states_0.pkl"):
                (partial / name).write_bytes(b"content " * 10)
            save_file({"weight": torch.full((3,), float(epoch))}, states.best)
            progress.best_digest = digest_of(states.best)
            states.finish(progress, keep=2)
    return states


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_state_is_left_out_and_named_and_the_one_before_is_used(
    states: SavedStates, name: str, damage: Callable[[Path], None]
):
    first, second = states.all()
    assert states.newest() == second
    damage(second / name)
    named = "" if name == "digests.json" else name  # a damaged digest looks like a damaged file
    with pytest.warns(match=f"{second.name}.{named}.*: .*resuming from before it"):
        assert states.newest() == first


def test_without_a_whole_state_a_run_resumes_from_its_beginning(states: SavedStates):
    for state in states.all():
        empty(state / "progress.json")
    with pytest.warns(match=r"progress.json: damaged"):
        assert states.newest() is None
    states.go_back(None, keep=2)
    assert states.all() == []


def test_going_back_restores_the_best_weights_of_the_state_and_removes_what_is_newer(states: SavedStates):
    first, _ = states.all()
    progress = states.read(first)
    assert progress.seconds == progress.earlier_seconds == 10
    with pytest.raises(ValueError, match=r"best.safetensors: expected the weights of epoch 1, found a missing or dam"):
        states.load_best(progress)
    with states.writing(Progress(epoch=3)) as unfinished:
        unfinished.mkdir()  # and a kill
    states.go_back(first, keep=2)
    assert states.load_best(progress)["weight"].tolist() == [1, 1, 1]
    assert states.all() == [first] and not unfinished.exists()


def test_going_back_removes_the_old_states_that_a_kill_left(states: SavedStates):
    _, second = states.all()  # the last state was complete, and the first not yet removed
    states.go_back(second, keep=1)
    assert states.all() == [second]


def test_a_state_that_cannot_be_written_is_removed(states: SavedStates):
    with pytest.raises(RuntimeError), states.writing(Progress(epoch=3)) as unfinished:
        unfinished.mkdir()
        raise RuntimeError
    assert not unfinished.exists() and len(states.all()) == 2


def test_resuming_with_other_threads_or_another_library_is_said(
    states: SavedStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert states.read(states.all()[0]).epoch == 1  # without a word
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9" if name == "torch" else version(name))
    with pytest.warns(
        match=r"state-00001-000000: was made with threads \d+, now 7; torch \S+, now 9.9: the last bits"
    ):
        states.read(states.all()[0])
