import zipfile
from datetime import date

import pytest
from fixtures.write_cardiosoft import cardiosoft_xml

from ecgdan_hf.data.formats import read
from ecgdan_hf.data.readers import zips as zip_files
from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.data.sources.ukbiobank import observation_dates, read_ukbiobank

NAMES = ("9000011_20205_3_0", "9000011_20205_2_0", "900002_20205_2_1")


@pytest.fixture(scope="module")
def text(ecg) -> str:
    return cardiosoft_xml(ecg[:, :200])


def write_zip(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def write_loose(folder, text, names=NAMES):
    for name in names:
        path = folder / name[:2] / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_a_folder_is_searched_and_sorted_by_participant_and_instance(tmp_path, text):
    write_loose(tmp_path, text)
    table = read_ukbiobank(tmp_path)
    assert table["record_id"].tolist() == ["900002_20205_2_1", "9000011_20205_2_0", "9000011_20205_3_0"]
    assert table["patient_id"].tolist() == ["900002", "9000011", "9000011"]
    assert (table["instance"].tolist(), table["array"].tolist()) == ([2, 2, 3], [1, 0, 0])
    assert "member" not in table and table["file"][0] == str(tmp_path / "90/900002_20205_2_1.xml")
    assert observation_dates(table) == [date(2015, 6, 1)] * 3


def test_a_zip_of_many_zips_of_one_and_loose_files_give_the_same_records(tmp_path, text):
    one = write_zip(tmp_path / "a/all.zip", {f"x/{name}.xml": text for name in NAMES})
    for name in NAMES[:2]:
        write_zip(tmp_path / f"b/{name}.zip", {f"{name}.xml": text})
    write_loose(tmp_path / "b", text, NAMES[2:])
    from_one, from_folder, mixed = read_ukbiobank(one), read_ukbiobank(tmp_path / "a"), read_ukbiobank(tmp_path / "b")
    assert from_one["record_id"].tolist() == from_folder["record_id"].tolist() == mixed["record_id"].tolist()
    assert from_one["member"].tolist()[0] == "x/900002_20205_2_1.xml" and set(from_one["file"]) == {str(one)}
    assert mixed["member"].isna().tolist() == [True, False, False]
    assert observation_dates(from_one) == observation_dates(mixed) == [date(2015, 6, 1)] * 3


def test_a_zip_may_carry_the_name_for_its_only_entry(tmp_path, text):
    write_zip(tmp_path / "9000011_20205_2_0.zip", {"ecg.xml": text, "__MACOSX/._ecg.xml": "x"})
    table = read_ukbiobank(tmp_path)
    assert (table["record_id"][0], table["member"][0]) == ("9000011_20205_2_0", "ecg.xml")


def test_other_files_are_counted_in_one_warning_without_their_names(tmp_path, text, caplog):
    write_loose(tmp_path, text)
    for name in ("9000099_6025_0_0.xml", "9000099_copy.xml", "9000098_copy.xml", "notes.txt", ".9000097.xml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "9000096_20205_2_0.zip").write_bytes(b"PK\x03\x04 damaged")
    future = write_zip(tmp_path / "9000092_20205_2_0.zip", {"a.xml": text})
    listed = future.read_bytes().replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\xff")
    future.write_bytes(listed)  # of a version that is not known
    assert len(read_ukbiobank(tmp_path)) == 3
    (said,) = caplog.messages
    assert "1 exercise ECGs (field 6025), 2 XML of another name, 2 zips that cannot be opened" in said
    assert "90000" not in said.replace(str(tmp_path), "")


def test_ecgs_in_another_wrapping_are_counted_and_not_forgotten(tmp_path, text, caplog):
    write_loose(tmp_path, text)
    (tmp_path / "9000095_20205_2_0.xml.gz").write_bytes(b"x")
    inner = write_zip(tmp_path / "9000094_20205_2_0.zip", {"9000094_20205_2_0.xml": text})
    write_zip(tmp_path / "bulk/all.zip", {f"a/{inner.name}": inner.read_bytes(), "9000093_20205_2_0.dcm": "x"})
    inner.unlink()
    assert len(read_ukbiobank(tmp_path)) == 3
    (said,) = caplog.messages
    assert said.endswith("2 neither XML nor zip, 1 zips inside a zip")
    with pytest.raises(FileNotFoundError, match="found 1 neither XML nor zip, 1 zips inside a zip"):
        read_ukbiobank(tmp_path / "bulk/all.zip")


def test_the_list_of_a_zip_is_read_once_for_all_its_records(tmp_path, text):
    names = [f"{9000000 + i}_20205_2_0.xml" for i in range(40)]
    table = read_ukbiobank(write_zip(tmp_path / "all.zip", dict.fromkeys(names, text)))
    assert find_source(None, tmp_path).name == "ukb"
    before = zip_files._open.cache_info().misses
    assert observation_dates(table) == [date(2015, 6, 1)] * 40
    records = [read(file, member=member) for file, member in zip(table["file"], table["member"], strict=True)]
    assert [record.record_id for record in records] == table["record_id"].tolist()
    assert zip_files._open.cache_info().misses - before <= 1


def test_a_folder_without_ecgs_is_refused(tmp_path, text):
    with pytest.raises(FileNotFoundError, match=r"expected EID_20205_INSTANCE_ARRAY.xml.* found no XML and no zip"):
        read_ukbiobank(tmp_path)
    (tmp_path / "9000099_6025_0_0.xml").write_text(text, encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"found 1 exercise ECGs \(field 6025\)") as error:
        read_ukbiobank(tmp_path)
    assert "9000099" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        read_ukbiobank(tmp_path / "nowhere")


def test_a_record_that_lies_there_twice_is_refused_without_its_number(tmp_path, text):
    write_loose(tmp_path, text)
    write_zip(tmp_path / "all.zip", {f"{NAMES[0]}.xml": text})
    with pytest.raises(ValueError, match="expected each ECG once, got 1 more than once") as error:
        read_ukbiobank(tmp_path)
    assert "9000011" not in str(error.value)


def test_a_file_that_cannot_be_read_has_no_date(tmp_path, text):
    write_loose(tmp_path, "nothing", NAMES[:1])
    table = read_ukbiobank(tmp_path)
    assert observation_dates(table) == [None]
    assert observation_dates(table.assign(file="nowhere")) == [None]
