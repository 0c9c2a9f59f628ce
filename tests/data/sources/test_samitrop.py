import h5py
import numpy as np
import pytest
from fixtures.write_sources import SAMITROP_ROWS, code_signal, code_tracings, write_samitrop

from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.sources.exams import read_samitrop


@pytest.fixture
def folder(tmp_path):
    return write_samitrop(tmp_path / "samitrop")


def test_tracings_are_those_of_the_table_in_its_order(folder):
    table = read_samitrop(folder)
    assert table["record_id"].tolist() == table["patient_id"].tolist() == [str(row[0]) for row in SAMITROP_ROWS]
    assert table["sex"].tolist() == ["male", "female", "female"]
    assert table["event"].tolist() == [0, 1, 0]
    assert table["time"].tolist() == [2.14, 1.02, 2.19]
    for record_id, file in zip(table["record_id"], RecordFile.of_table(table), strict=True):
        expected = code_signal(int(record_id))[:, : 2800 if record_id == "900002" else 4000]
        np.testing.assert_array_equal(file.read().signal_mv, expected)


def test_another_number_of_tracings_than_exams_is_refused(folder):
    with h5py.File(folder / "exams.hdf5", "w") as file:
        file["tracings"] = code_tracings([900001, 900002])
    with pytest.raises(ValueError, match=r"exams\.hdf5: expected a tracing for each of 3 exams of exams\.csv, got 2"):
        read_samitrop(folder)


def test_a_missing_file_is_named_and_a_packed_one_told_to_unpack(folder):
    (folder / "exams.hdf5").unlink()
    with pytest.raises(FileNotFoundError, match=r"exams\.hdf5: no such file; it holds the signals"):
        read_samitrop(folder)
    (folder / "exams.zip").write_bytes(b"PK")
    with pytest.raises(FileNotFoundError, match=r"exams\.hdf5: no such file; unpack exams\.zip first"):
        read_samitrop(folder)
    (folder / "exams.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"exams\.csv: no such file; expected the folder of SaMi-Trop"):
        read_samitrop(folder)
