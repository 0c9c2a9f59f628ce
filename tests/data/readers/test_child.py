"""Decoders that a damaged file crashes or hangs run in a child process, which is replaced."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from fixtures import write_vendor_files as vendor
from numpy.testing import assert_array_equal

from ecgdan_hf.data import formats
from ecgdan_hf.data.readers import child
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "LIMIT_SECONDS", 0.2)
    (tmp_path / "a.h5").write_bytes(b"x")
    return tmp_path / "a.h5"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("crash", "got a damaged one that ends its decoder"),
        ("hang", "got a damaged one that its decoder did not finish in 0.2 s"),
        ("fail", "damaged file: two lines"),
        ("fill_memory", "damaged file: Unable to allocate 3.00 GiB"),
    ],
)
def test_a_decoder_that_fails_costs_one_line_and_not_the_process(path, function, message):
    with pytest.raises(ValueError, match=message) as caught:
        child.decode(f"fixtures.decoder_faults:{function}", path)
    assert str(caught.value).startswith(f"{path}: ")
    array, said = child.decode("fixtures.decoder_faults:say", path, "7")  # by the same child, or the next
    assert_array_equal(array, [0, 1, 2])
    assert said == {"member": "7", "rate": 2.0, "names": ["I"]}


def test_the_time_of_one_file_does_not_run_on_into_the_imports_for_the_next(path):
    child.decode("fixtures.decoder_faults:say", path, "1")
    array, _ = child.decode("fixtures.decoder_slow_to_import:say", path, "2")
    assert_array_equal(array, [0, 1, 2])


def test_threads_never_take_the_answers_of_each_other(path):
    def own(number: int) -> bool:
        return child.decode("fixtures.decoder_faults:say", path, str(number))[1]["member"] == str(number)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(own, range(40)))


def rate_of(path: Path) -> float:
    return formats.read(path).sampling_rate


def test_forked_processes_have_children_of_their_own(tmp_path):
    vendor.hdf5(tmp_path / "a.h5", vendor.counts())
    assert rate_of(tmp_path / "a.h5") == 500
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        assert list(pool.map(rate_of, [tmp_path / "a.h5"] * 2)) == [500] * 2
    assert rate_of(tmp_path / "a.h5") == 500


@pytest.mark.parametrize(
    "name",
    [
        "hdf5_one_byte/segfault.h5",
        "hdf5_one_byte/hang.h5",
        "process_killers/hang_attrs.h5",
        "process_killers/mat_segfault.mat",
        "process_killers/npz_bad_unicode.npz",
    ],
)
def test_a_file_that_kills_processes_is_refused_in_one_line(shared, name, monkeypatch):
    monkeypatch.setattr(child, "LIMIT_SECONDS", 0.5)
    about = {"sampling_rate": 500, "unit": "mV", "lead_names": list(STANDARD_LEADS)}
    with pytest.raises(ValueError, match=Path(name).name) as caught:
        formats.read(shared / "cases" / name, **about)
    assert "\n" not in str(caught.value)
