"""Files and folders that are written whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ecgdan_hf.files import (
    check_output_folder,
    content_of,
    filled_folder,
    locked_folder,
    remove_leftovers,
    whole_file,
    whole_folder,
    write_text,
)

KILLS = Path(__file__).parent / "fixtures" / "kills.py"
HOLDER = """
import sys, time
from ecgdan_hf.files import locked_folder
with locked_folder(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def content(folder):
    return sorted(path.name for path in content_of(folder))


def test_a_file_is_replaced_only_when_its_writer_succeeds(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with pytest.raises(RuntimeError), whole_file(path) as part:
        part.write_text("half of the n", encoding="utf-8")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old" and content(tmp_path) == ["table.csv"]
    with whole_file(path) as part:
        assert part.suffix == ".csv" and path.read_text(encoding="utf-8") == "old"
        part.write_text("new", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "new" and content(tmp_path) == ["table.csv"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_a_writer_that_restricts_its_file_to_the_owner_does_not_restrict_the_result(tmp_path):
    (tmp_path / "usual").touch()
    usual = stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    with whole_file(tmp_path / "file") as part:
        part.chmod(0o600)
    with filled_folder(tmp_path / "run", last="metrics.json") as part:
        (part / "metrics.json").touch(0o600)
    for path in (tmp_path / "file", tmp_path / "run" / "metrics.json"):
        assert stat.S_IMODE(path.stat().st_mode) == usual


def test_a_folder_appears_whole_and_an_earlier_one_stays_until_then(tmp_path):
    with whole_folder(tmp_path / "bundle") as part:
        (part / "first").touch()
    refused = pytest.raises(FileExistsError, match="bundle: expected no folder or an empty one, found files")
    with refused, whole_folder(tmp_path / "bundle"):
        pass
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "bundle", overwrite=True):
        raise RuntimeError
    assert content(tmp_path) == ["bundle"] and content(tmp_path / "bundle") == ["first"]
    with whole_folder(tmp_path / "bundle", overwrite=True) as part:
        (part / "second").touch()
    assert content(tmp_path) == ["bundle"] and content(tmp_path / "bundle") == ["second"]


def test_the_last_file_of_a_filled_folder_moves_last_and_other_content_stays(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").touch()
    moved = []
    replace = type(tmp_path).replace
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda self, target: (moved.append(target.name), replace(self, target))
    )
    with filled_folder(tmp_path, last="metrics.json") as part:
        for name in ("metrics.json", "predictions.csv", "a.png"):
            (part / name).touch()
    assert moved == ["a.png", "predictions.csv", "metrics.json"]
    assert content(tmp_path) == ["a.png", "metrics.json", "notes.txt", "predictions.csv"]


def test_a_locked_folder_refuses_another_process_and_is_taken_over_when_that_was_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        refused = pytest.raises(
            ValueError, match=f"expected no other run in this folder, found one, process {other.pid}"
        )
        with refused, filled_folder(tmp_path, last="metrics.json"):
            pass
        other.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    with pytest.warns(match=f"taken over from a run that was killed, process {other.pid}"), locked_folder(tmp_path):
        pass
    with locked_folder(tmp_path):  # released in order: nothing to warn of
        assert check_output_folder(str(tmp_path), overwrite=False, mark="metrics.json") == tmp_path


def test_a_folder_can_be_locked_again_by_its_holder_but_not_by_another_thread(tmp_path):
    found = []

    def lock():
        try:
            with locked_folder(tmp_path):
                found.append("locked")
        except ValueError as error:
            found.append(str(error))

    with locked_folder(tmp_path):
        with locked_folder(tmp_path):
            pass
        thread = threading.Thread(target=lock)
        thread.start()
        thread.join()
    assert len(found) == 1 and "found one, process" in found[0]


@pytest.mark.skipif(os.name == "nt", reason="killed children are forked")
@pytest.mark.parametrize("scenario", ["file", "folder", "folder_of_two_renames", "filled_folder"])
def test_a_writer_killed_before_any_of_its_file_operations_leaves_the_old_or_the_new_and_nothing_else(
    scenario, tmp_path
):
    done = subprocess.run(
        [sys.executable, str(KILLS), scenario, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5  # it was killed so many times


@pytest.mark.parametrize("error", [RuntimeError("PytorchStreamWriter failed writing file"), OSError(28, "No space")])
def test_whatever_a_library_raises_on_a_full_disk_names_the_file_and_the_disk(tmp_path, monkeypatch, error):
    full = type("usage", (), {"free": 4096})
    monkeypatch.setattr("ecgdan_hf.files.shutil.disk_usage", lambda path: full)
    named = pytest.raises(OSError, match=r"No space left on device: .*best.safetensors")
    with named, whole_file(tmp_path / "best.safetensors"):
        raise error
    kept = pytest.raises(ValueError, match="expected another argument")
    with kept, whole_file(tmp_path / "best.safetensors"):
        raise ValueError("expected another argument")
    assert not list(tmp_path.iterdir())


def test_what_a_living_process_is_writing_stays_and_what_is_not_ours_stays(tmp_path):
    for name in (".part-thesis.docx", ".part-000000-1-00000000-of-another-machine"):
        (tmp_path / name).touch()
    with whole_file(tmp_path / "file") as part:
        part.write_text("half", encoding="utf-8")
        remove_leftovers(tmp_path)
        assert part.exists()
    assert len(list(tmp_path.iterdir())) == 3
    os.utime(tmp_path / ".part-000000-1-00000000-of-another-machine", (0, 0))
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".part-thesis.docx", "file"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("bundle", "table.csv"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    with whole_folder(tmp_path / "bundle", overwrite=True) as part:
        (part / "config.json").touch()
    with whole_folder(tmp_path / "bundle", overwrite=True) as part:
        (part / "weights").touch()
    write_text(tmp_path / "table.csv", "a")
    assert content(tmp_path / "disk") == ["bundle", "table.csv"] and content(tmp_path / "disk" / "bundle") == [
        "weights"
    ]
    assert (tmp_path / "bundle").is_symlink() and (tmp_path / "table.csv").is_symlink()


def test_an_output_folder_with_other_files_is_rejected_even_when_results_may_be_replaced(tmp_path):
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(ValueError, match="found other files"):
        check_output_folder(str(tmp_path), overwrite=True, mark="metrics.json")
    (tmp_path / "metrics.json").touch()
    with pytest.raises(ValueError, match="give --overwrite"):
        check_output_folder(str(tmp_path), overwrite=False, mark="metrics.json")
    assert check_output_folder(str(tmp_path), overwrite=True, mark="metrics.json") == tmp_path


def test_nothing_of_an_earlier_result_stays_beside_another(tmp_path):
    for names in (["predictions.csv", "report.html", "auc.png"], ["report.md", "deletion.png"]):
        (tmp_path / "notes.txt").touch()
        with filled_folder(tmp_path, last="metrics.json") as part:
            for name in (*names, "metrics.json"):
                (part / name).touch()
    assert content(tmp_path) == ["deletion.png", "metrics.json", "notes.txt", "report.md"]
