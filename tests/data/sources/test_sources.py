import numpy as np
import pytest
from fixtures.write_sources import write_code15, write_mimic, write_mitbih, write_samitrop

from ecgdan_hf.data import SOURCE_NAMES, source_name
from ecgdan_hf.data.prepared.record_file import record_files
from ecgdan_hf.data.sources import registry as sources

WRITERS = {"code-15": write_code15, "sami-trop": write_samitrop, "mimic-iv-ecg": write_mimic, "mit-bih": write_mitbih}


@pytest.mark.parametrize("name", WRITERS)
def test_a_layout_tells_its_source_and_every_record_of_its_table_is_read(name, tmp_path):
    folder = WRITERS[name](tmp_path / "data")
    assert sources.detect_source(folder) == name
    table = sources.read_table(name, folder)
    for file in record_files(table):
        record = file.read()
        assert record.sampling_rate == {"mit-bih": 360, "mimic-iv-ecg": 500}.get(name, 400)
        assert 7 <= record.duration_seconds <= 10


def test_tables_have_what_every_source_has(ptbxl_folder, cohort, tmp_path):
    folders = {name: write(tmp_path / name) for name, write in WRITERS.items()}
    for name, folder in {**folders, "ptb-xl": ptbxl_folder, "csv": cohort, "wfdb": cohort, "folder": cohort}.items():
        table = sources.read_table(name, folder)
        assert table.columns[:3].tolist() == ["record_id", "patient_id", "file"], name
        assert table["record_id"].is_unique, name
        assert table[["record_id", "patient_id", "file"]].map(type).eq(str).all(axis=None), name
        assert table.index.tolist() == list(range(len(table))), name
        for labels in table.get("labels", []):
            assert set(labels) <= set(table.attrs["label_names"]), name
        assert ("event" in table) == ("time" in table), name


def test_a_packed_download_is_known_and_told_to_unpack(tmp_path):
    write_samitrop(tmp_path / "samitrop")
    (tmp_path / "samitrop/exams.hdf5").rename(tmp_path / "samitrop/exams.zip")
    assert sources.detect_source(tmp_path / "samitrop") == "sami-trop"
    with pytest.raises(FileNotFoundError, match=r"unpack exams\.zip first"):
        sources.read_table("sami-trop", tmp_path / "samitrop")


def test_wfdb_records_alone_are_wfdb_and_among_other_files_a_folder(write_record, ecg, tmp_path):
    write_record("mixed/a", comments=["Age: 50"])
    (tmp_path / "mixed/notes.txt").write_text("no ECG", encoding="utf-8")
    assert sources.detect_source(tmp_path / "mixed") == "wfdb"
    np.savez(tmp_path / "mixed/b.npz", signal=ecg, sampling_rate=500, unit="mV", lead_names=["I"] * 12)
    assert sources.detect_source(tmp_path / "mixed") == "folder"
    assert sources.read_table("folder", tmp_path / "mixed")["record_id"].tolist() == ["a", "b"]


def test_a_folder_of_uk_biobank_is_told_by_the_names_in_it(tmp_path):
    (tmp_path / "bulk").mkdir()
    (tmp_path / "bulk/9000001_20205_2_0.xml").write_text("<CardiologyXML/>", encoding="utf-8")
    assert sources.detect_source(tmp_path) == "ukb"


def test_an_empty_folder_and_an_unknown_name_are_refused_with_what_is_known(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected ECG files or the layout of ptb-xl, .*, found none of them"):
        sources.detect_source(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        sources.detect_source(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"name: expected a source, one of ptb-xl, code-15, .*, got 'mimic-iii'"):
        sources.read_table("mimic-iii", tmp_path)


def test_help_texts_name_every_source():
    assert SOURCE_NAMES.split(", ") == list(sources.SOURCES)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("PTB_XL", "ptb-xl"),
        ("code15", "code-15"),
        ("UKBiobank", "ukb"),
        ("mimic", "mimic-iv-ecg"),
        ("wfdb", "wfdb"),
    ],
)
def test_sources_are_known_by_any_spelling(name, written):
    assert source_name(name) == written
    assert written in sources.SOURCES
