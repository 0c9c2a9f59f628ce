"""Every damaged, lying or hostile file ends in one line that says what is wrong, soon and without much memory."""

import multiprocessing
import resource
import sys
import time
import tracemalloc
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from fixtures.write_damaged_files import CANARY, DAMAGES, SIZE_BOMBS

from ecgdan_hf.data import formats

MAX_SECONDS = 60.0  # of this process alone, so that a busy machine changes nothing; each file takes less than 0.1
MAX_BYTES = 200 << 20
opened: list[str] = []


def note_opened(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        opened.append(str(arguments[0]))


sys.addaudithook(note_opened)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of its own, beside files that are none of its business."""
    (tmp_path / "canary.txt").write_text(CANARY, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*")}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_refused_in_one_line(folder, tmp_path, name, capfd):
    damage = DAMAGES[name]
    path = damage.write(folder)
    before = contents(tmp_path)
    opened.clear()
    started = time.process_time()
    with warnings.catch_warnings(), pytest.raises((ValueError, FileNotFoundError), match=damage.says) as caught:
        warnings.simplefilter("error")
        formats.read(path, **damage.options)
    assert time.process_time() - started < MAX_SECONDS
    message = str(caught.value)
    assert str(path) in message or str(path.parent) in message
    assert "\n" not in message
    assert len(message) < 500
    assert CANARY not in message
    assert not [file for file in opened if file == "/etc/passwd" or Path(file).parent == tmp_path]
    assert contents(tmp_path) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", SIZE_BOMBS)
def test_a_size_that_a_file_only_claims_takes_no_memory(folder, name):
    damage = DAMAGES[name]
    path = damage.write(folder)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=damage.says):
            formats.read(path, **damage.options)
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


def read_under_a_limit(paths: dict[str, Path]) -> list[str]:
    """What is said of each file by a process that may not have `MAX_BYTES` more than it has."""
    used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, used + MAX_BYTES))
    said = []
    for name, path in paths.items():
        with pytest.raises(ValueError, match=DAMAGES[name].says) as caught:
            formats.read(path, **DAMAGES[name].options)
        said.append(str(caught.value))
    return said


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_no_size_bomb_needs_address_space(tmp_path):
    """What libraries in C allocate, no tracer sees; so all are read under a limit of the operating system."""
    paths = {name: DAMAGES[name].write(new_folder(tmp_path / name)) for name in SIZE_BOMBS}
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        said = pool.submit(read_under_a_limit, paths).result(timeout=60)
    assert len(said) == len(SIZE_BOMBS)
    assert not [line for line in said if "allocate" in line or "MemoryError" in line]


def new_folder(folder: Path) -> Path:
    (folder / "folder").mkdir(parents=True)
    return folder / "folder"


@pytest.mark.parametrize("name", DAMAGES)
def test_what_a_damaged_file_is_may_be_asked_without_an_error(folder, name):
    path = DAMAGES[name].write(folder)
    assert formats.kind(path) in (None, *KINDS)


KINDS = ("wfdb", "numpy", "csv", "matlab", "hdf5", "zip", "cardiosoft", "hl7-aecg", "muse", "sierra", "mortara")
KINDS += ("kardia", "dicom", "scp-ecg", "edf", "ishne", "mfer")
