import pytest

from ecgdan_hf.data import formats
from ecgdan_hf.data.sources.ecg_folder import read_wfdb_folder


def test_every_header_below_the_folder_is_a_record_of_its_own_patient(write_record, tmp_path):
    write_record("b", comments=["Age: 56", "Sex: F"])
    write_record("sub/a", fmt="516")
    write_record(".hidden/c")
    table = read_wfdb_folder(tmp_path)
    assert table["record_id"].tolist() == ["b", "sub/a"]
    assert table["patient_id"].tolist() == ["b", "sub/a"]
    assert table["file"].tolist() == [str(tmp_path / "b"), str(tmp_path / "sub/a")]
    assert table["age"].tolist()[0] == 56
    assert table["sex"].tolist() == ["female", None]


def test_segments_of_a_record_are_not_patients_of_their_own(write_record, tmp_path):
    for name in ("whole_1", "whole_2", "other"):
        write_record(name)
    (tmp_path / "whole.hea").write_text("whole/2 12 500 10000\nwhole_1 5000\nwhole_2 5000\n", encoding="utf-8")
    table = read_wfdb_folder(tmp_path)
    assert table["patient_id"].tolist() == ["other", "whole"]
    assert formats.read(table["file"][1]).duration_seconds == 20


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected WFDB records, found no \.hea file"):
        read_wfdb_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_wfdb_folder(tmp_path / "absent")
