"""A folder of any mix of formats, and what counts as an ECG in it."""

import logging
import os

import numpy as np
import pytest
from fixtures import write_vendor_files as vendor
from fixtures.write_cardiosoft import cardiosoft_xml

from ecgdan_hf.data import formats
from ecgdan_hf.data.sources.ecg_folder import ecg_files, left_out_files, read_folder
from ecgdan_hf.data.splits import split_by_patient


@pytest.fixture
def export(tmp_path, write_record):
    """Every format, WFDB records, one of two segments, and what is no ECG."""
    vendor.write_all(tmp_path / "b")
    write_record("a/part_1")
    write_record("a/part_2")
    (tmp_path / "a/whole.hea").write_text("whole/2 12 500 10000\npart_1 5000\npart_2 5000\n", encoding="utf-8")
    write_record("c/flac", fmt="516")
    (tmp_path / "notes.txt").write_text("Dear colleague, see 12 leads", encoding="utf-8")
    (tmp_path / "table.csv").write_text("ecg_id,age\n1,50\n", encoding="utf-8")
    (tmp_path / "page.xml").write_text("<html/>", encoding="utf-8")
    (tmp_path / ".hidden").mkdir()
    for name in (".hidden/ecg.xml", ".ecg.xml"):
        (tmp_path / name).write_bytes(vendor.muse(vendor.counts()))
    return tmp_path


def test_a_folder_holds_one_file_for_each_ecg_whatever_its_format(export):
    found = [path.relative_to(export).as_posix() for path in ecg_files(export)]
    assert found == ["a/whole.hea", *sorted(f"b/{file.name}" for file in (export / "b").iterdir()), "c/flac.hea"]


def test_the_table_of_a_mixed_folder_can_be_read_record_by_record(export):
    for array in ("ecg.npy",):  # does not say its rate
        (export / "b" / array).unlink()
    table = read_folder(export)
    assert list(table.columns) == ["record_id", "patient_id", "file", "age", "sex"]
    assert table["record_id"].is_unique
    assert {len(formats.read(file).lead_names) for file in table["file"]} == {12, 6}
    assert table["record_id"][0] == "a/whole.hea"  # names alone do not tell b/ecg.dcm from b/ecg.scp


def test_names_stand_without_suffix_where_that_leaves_them_different(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.xml").write_bytes(vendor.muse(vendor.counts()))
    assert read_folder(tmp_path)["record_id"].tolist() == ["a", "b"]


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path, caplog):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    content = vendor.muse(vendor.counts())
    (outside / "a.xml").write_bytes(content)
    (folder / "b.xml").write_bytes(content)
    (folder / "out.xml").symlink_to(outside / "a.xml")
    (folder / "out").symlink_to(outside)
    (folder / "in.xml").symlink_to(folder / "b.xml")
    (folder / "nowhere.xml").symlink_to(folder / "absent.xml")
    with caplog.at_level(logging.WARNING):
        assert ecg_files(folder) == [folder / "b.xml", folder / "in.xml"]
    assert caplog.messages == [f"{folder}: 1 links to files outside this folder are left out"]
    (tmp_path / "link").symlink_to(folder)
    assert [path.name for path in ecg_files(tmp_path / "link")] == ["b.xml", "in.xml"]


def test_a_damaged_header_counts_so_that_it_is_reported(tmp_path):
    (tmp_path / "a.hea").write_bytes(b"\0\1\2")
    assert ecg_files(tmp_path) == [tmp_path / "a.hea"]


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_left_out_and_named(tmp_path, caplog):
    (tmp_path / "a.xml").write_bytes(vendor.muse(vendor.counts()))
    (tmp_path / "a.xml").chmod(0)
    assert ecg_files(tmp_path) == []
    assert "a.xml is left out" in caplog.text


def test_a_folder_without_ecgs_or_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected ECG files, found none; what is read: WFDB"):
        read_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder, found none"):
        read_folder(tmp_path / "absent")


def test_records_of_physionet_are_found_by_their_headers(shared):
    folder = shared / "data/mit-bih"
    found = ecg_files(folder)
    assert found == sorted(folder.glob("*.hea"))
    assert np.isfinite(formats.read(found[0], seconds=10.0).signal_mv).all()
    assert read_folder(folder)["record_id"].tolist() == [path.stem for path in found]


def test_a_copy_that_failed_is_listed_to_be_reported(tmp_path):
    for name in ("a.xml", "b.DCM", "notes.txt", "c.csv"):
        (tmp_path / name).touch()
    assert [path.name for path in ecg_files(tmp_path)] == ["a.xml", "b.DCM"]
    with pytest.raises(ValueError, match=r"a\.xml: the file is empty"):
        formats.read(tmp_path / "a.xml")


def test_files_that_look_like_recordings_and_are_not_read_are_named_with_the_reason(export):
    (export / "a.bdf").write_bytes(b"\xffBIOSEMI" + b" " * 300)
    (export / "numbers.csv").write_text("0.1;0.2\n" * 2000, encoding="utf-8")
    (export / "old.scp").write_bytes(b"0\x9d" + b"\1" * 100)
    found = {path.relative_to(export).as_posix(): why for path, why in left_out_files(export).items()}
    assert sorted(found) == ["a.bdf", "numbers.csv", "old.scp", "page.xml"]
    assert "BDF of 24 bits; export it as EDF" in found["a.bdf"]
    assert "lead names" in found["numbers.csv"]


def test_ids_age_and_sex_come_from_the_files_so_that_a_patient_counts_once(tmp_path, ecg):
    xml = cardiosoft_xml(ecg, ecg[:, 1000:1600])
    for name, patient in {**{str(i): f"P{i // 3}" for i in range(6)}, "anonymous": "00000"}.items():
        text = xml.replace("<PID></PID>", f"<PID>{patient}</PID>")
        (tmp_path / f"{name}.xml").write_text(text, encoding="latin-1")
    (tmp_path / "other.csv").write_bytes(vendor.csv(vendor.counts()))
    table = read_folder(tmp_path)
    assert table["patient_id"].tolist() == ["P0"] * 3 + ["P1"] * 3 + ["anonymous", "other"]
    assert table["age"].tolist()[:7] == [61] * 7
    assert table["sex"].tolist() == ["female"] * 7 + [None]
    parts = split_by_patient(table, {"train": 0.5, "test": 0.5}, seed=0)
    assert not set(parts["train"]["patient_id"]) & set(parts["test"]["patient_id"])
