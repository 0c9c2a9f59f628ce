import pytest

from ecgdan_hf.data import wfdb_folder


def test_every_header_below_the_folder_is_a_record_of_its_own_patient(write_record, tmp_path):
    write_record("b", comments=["Age: 56", "Sex: F"])
    write_record("sub/a", fmt="516")
    write_record(".hidden/c")
    table = wfdb_folder.read_table(tmp_path)
    assert table["record_id"].tolist() == ["b", "sub/a"]
    assert table["patient_id"].tolist() == ["b", "sub/a"]
    assert table["file"].tolist() == [str(tmp_path / "b"), str(tmp_path / "sub/a")]
    assert table["age"].tolist()[0] == 56
    assert table["sex"].tolist() == ["female", None]


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected WFDB records, found no \.hea file"):
        wfdb_folder.read_table(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        wfdb_folder.read_table(tmp_path / "absent")
