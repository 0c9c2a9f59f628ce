import subprocess
import sys

import numpy as np
import pytest
from fixtures.write_sources import write_code15, write_mimic, write_mitbih, write_samitrop

from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.sources import registry as sources

RATES = {"code-15": 400, "sami-trop": 400, "mimic-iv-ecg": 500, "mit-bih": 360}
WRITERS = {"code-15": write_code15, "sami-trop": write_samitrop, "mimic-iv-ecg": write_mimic, "mit-bih": write_mitbih}


@pytest.mark.parametrize("name", WRITERS)
def test_a_layout_tells_its_source_and_every_record_of_its_table_is_read(name, tmp_path):
    folder = WRITERS[name](tmp_path / "data")
    assert sources.find_source(None, folder).name == name
    table = sources.read_source(name, folder)
    for file in RecordFile.of_table(table):
        record = file.read()
        assert record.sampling_rate == RATES.get(name, record.sampling_rate)
        assert 7 <= record.duration_seconds <= 10


def test_tables_have_what_every_source_has(ptbxl_folder, cohort, tmp_path):
    folders = {name: write(tmp_path / name) for name, write in WRITERS.items()}
    for name, folder in {**folders, "ptb-xl": ptbxl_folder, "csv": cohort, "wfdb": cohort, "folder": cohort}.items():
        table = sources.read_source(name, folder)
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
    assert sources.find_source(None, tmp_path / "samitrop").name == "sami-trop"
    with pytest.raises(FileNotFoundError, match=r"unpack exams\.zip first"):
        sources.read_source("sami-trop", tmp_path / "samitrop")


def test_wfdb_records_alone_are_wfdb_and_among_other_files_a_folder(write_record, ecg, tmp_path):
    write_record("mixed/a", comments=["Age: 50"])
    (tmp_path / "mixed/notes.txt").write_text("no ECG", encoding="utf-8")
    assert sources.find_source(None, tmp_path / "mixed").name == "wfdb"
    np.savez(tmp_path / "mixed/b.npz", signal=ecg, sampling_rate=500, unit="mV", lead_names=["I"] * 12)
    assert sources.find_source(None, tmp_path / "mixed").name == "folder"
    assert sources.read_source("folder", tmp_path / "mixed")["record_id"].tolist() == ["a", "b"]


def test_a_folder_of_uk_biobank_is_told_by_the_names_in_it(tmp_path):
    (tmp_path / "bulk").mkdir()
    (tmp_path / "bulk/9000001_20205_2_0.xml").write_text("<CardiologyXML/>", encoding="utf-8")
    assert sources.find_source(None, tmp_path).name == "ukb"


def test_an_empty_folder_and_an_unknown_name_are_refused_with_what_is_known(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected ECG files or the layout of ptb-xl, .*, found none of them"):
        sources.find_source(None, tmp_path)
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        sources.find_source(None, tmp_path / "absent")
    with pytest.raises(ValueError, match=r"data: expected a source, one of ptb-xl, mimic-iv-ecg, .*, got 'mimic-iii'"):
        sources.read_source("mimic-iii", tmp_path)


def test_names_and_aliases_of_sources_differ_and_every_reader_exists(tmp_path):
    names = [name for source in sources.SOURCES for name in (source.name.replace("-", ""), *source.aliases)]
    assert len(set(names)) == len(names)
    for source in sources.SOURCES:
        if source.name != "synthetic":  # which makes the folder
            with pytest.raises(FileNotFoundError, match="absent"):
                source.read_table(tmp_path / "absent")


def test_importing_the_registry_imports_no_reader():
    code = (
        "import sys, ecgdan_hf.data.sources.registry; print({'pandas', 'numpy', 'torch'} & set(sys.modules) or 'none')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "none"


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
    assert sources.find_source(name).name == written


def test_a_named_source_whose_files_are_another_says_which_they_look_like(cohort):
    with pytest.raises(FileNotFoundError, match=r"scp_statements\.csv: .*; the files look like csv, not ptb-xl"):
        sources.read_source("ptb-xl", cohort)


def test_a_file_that_is_no_table_is_refused_when_no_source_is_named(tmp_path):
    (tmp_path / "ecg.dcm").write_bytes(b"DICM")
    with pytest.raises(ValueError, match=r"expected a folder or a file that ends in \.csv or \.zip"):
        sources.find_source(None, tmp_path / "ecg.dcm")
    with pytest.raises(ValueError, match="give --data-dir"):
        sources.find_source(None)


def test_every_published_source_states_its_licence_and_how_to_cite_it():
    for source in sources.SOURCES:
        assert source.license is None or (source.description and source.citation and source.caveat), source.name
        assert source.hub_id is None or source.hub_id.count("/") == 1
