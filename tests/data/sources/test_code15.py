import logging

import h5py
import numpy as np
import pandas as pd
import pytest
from fixtures.write_sources import CODE15_COLUMNS, CODE15_ROWS, code_signal, write_code15, write_rows

from ecgdan_hf.data.loading import load
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.sources.exams import read_code15
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.training import finetune
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.arguments.options import resolve


@pytest.fixture
def folder(tmp_path):
    return write_code15(tmp_path / "code15")


def test_a_row_is_what_the_table_and_the_parts_say(folder):
    table = read_code15(folder).set_index("record_id")
    assert sorted(table.index) == ["2812", "2813", "2820", "2840"]
    row = table.loc["2812"]
    assert (row["patient_id"], row["age"], row["sex"]) == ("7", 54, "male")
    assert (row["sampling_rate"], row["unit"], row["lead_names"]) == (400, "mV", ";".join(STANDARD_LEADS))
    assert (row["normal_ecg"], row["nn_predicted_age"]) == (0, 51.2)
    assert table.loc["2813", "patient_id"] == row["patient_id"]
    assert table["sex"].to_dict() == {"2812": "male", "2813": "male", "2820": "female", "2840": "female"}


def test_labels_are_the_diagnoses_that_are_true_and_none_is_possible(folder):
    table = read_code15(folder).set_index("record_id")
    assert table.attrs["label_names"] == ["1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"]
    expected = {"2812": ["1dAVb", "AF"], "2813": [], "2820": ["RBBB", "SB"], "2840": ["LBBB"]}
    assert table["labels"].to_dict() == expected


def test_the_signal_is_that_of_its_exam_without_the_zeros_around_it(folder):
    table = read_code15(folder)
    for record_id, file in zip(table["record_id"], RecordFile.of_table(table), strict=True):
        record = file.read()
        expected = code_signal(int(record_id))[:, : 2800 if record_id == "2820" else 4000]
        np.testing.assert_array_equal(record.signal_mv, expected)
        assert (record.sampling_rate, record.lead_names) == (400, STANDARD_LEADS)


def test_a_lead_of_zeros_and_zeros_within_the_record_are_not_padding(folder):
    with h5py.File(folder / "exams_part0.hdf5", "a") as file:
        file["tracings"][1, :, 0] = 0
        file["tracings"][1, 1000:1010] = 0
    record = RecordFile.of_table(read_code15(folder))[1].read()
    assert record.signal_mv.shape == (12, 4000)
    assert not record.signal_mv[0].any()


def test_follow_up_belongs_to_the_first_exam_and_a_time_of_zero_is_none(folder, caplog):
    with caplog.at_level(logging.WARNING):
        table = read_code15(folder).set_index("record_id")
    assert table.loc["2812", ["event", "time"]].tolist() == [0, 4.25]
    assert table.loc["2820", ["event", "time"]].tolist() == [1, 0.5]
    assert table.loc[["2813", "2840"], ["event", "time"]].isna().all(axis=None)
    assert "timey: 1 exams have no time above zero and count as without follow-up" in caplog.text


def test_exams_of_missing_parts_are_left_out_and_counted_once(folder, caplog):
    with caplog.at_level(logging.WARNING):
        read_code15(folder)
    lines = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(lines) == 1
    assert "1 of 5 exams have no tracing here and are left out; 1 of 3 parts are missing" in lines[0]


def test_a_folder_without_any_part_is_refused_and_told_to_unpack(folder):
    for path in folder.glob("*.hdf5"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"exams_part0\.hdf5: no such file, nor any other .* names 3 such"):
        read_code15(folder)
    (folder / "exams_part4.zip").write_bytes(b"PK")
    with pytest.raises(FileNotFoundError, match=r"unpack the \.zip files first"):
        read_code15(folder)


def test_damaged_parts_and_tables_of_another_kind_are_refused_in_one_line(folder):
    part = folder / "exams_part1.hdf5"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    refuse(folder, r"exams_part1\.hdf5: truncated or damaged HDF5 file")
    part.write_bytes(b"not HDF5")
    refuse(folder, r"exams_part1\.hdf5: truncated or damaged HDF5 file")
    part.unlink()
    with h5py.File(part, "w") as file:
        file["signals"] = np.zeros(3)
    refuse(folder, r"exams_part1\.hdf5: expected 'tracings' \(exams, samples, 12\), got shape None")
    with h5py.File(part, "w") as file:
        file["tracings"] = np.zeros((2, 4096, 12), np.float32)
    refuse(folder, r"exams_part1\.hdf5: expected 'exam_id' with one number for each of its tracings")
    with h5py.File(part, "w") as file:
        file["tracings"], file["exam_id"] = np.zeros((2, 4096, 12), np.float32), np.array([2813, 2813])
    refuse(folder, r"exams_part1\.hdf5: exam_id: expected each exam once, got 2813 more than once")
    part.write_bytes(whole)
    path = folder / "exams.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("trace_file", "file"), encoding="utf-8")
    refuse(folder, r"exams\.csv: expected the columns of CODE-15 %, missing trace_file")
    path.write_text(text.replace("2812,54,True", "2812,54,perhaps"), encoding="utf-8")
    refuse(folder, r"exams\.csv: is_male: expected boolean values")
    path.write_text(text + text.splitlines()[1] + "\n", encoding="utf-8")
    refuse(folder, r"exams\.csv: exam_id: expected each record once, got 2812 more than once")
    path.unlink()
    refuse(folder, r"exams\.csv: no such file", FileNotFoundError)


def refuse(folder, message, error=ValueError):
    with pytest.raises(error, match=message) as caught:
        read_code15(folder)
    assert "\n" not in str(caught.value)


def test_an_exam_of_zeros_only_cannot_be_read(folder):
    with h5py.File(folder / "exams_part0.hdf5", "a") as file:
        file["tracings"][0] = 0
    with pytest.raises(ValueError, match=r"exams_part0\.hdf5.* zeros? only"):
        RecordFile.of_table(read_code15(folder))[0].read()


def test_a_source_with_partial_follow_up_loads_whole_or_where_there_is_an_outcome(folder, extractor, tmp_path):
    whole = load("code-15", folder, feature_extractor=extractor, cache_dir=tmp_path / "cache", num_proc=1)
    assert len(whole) == 4
    cohort = load(
        "code-15", folder, feature_extractor=extractor, cache_dir=tmp_path / "cache", num_proc=1, with_outcome=True
    )
    assert dict(zip(cohort["record_id"], cohort["event"], strict=True)) == {"2820": 1, "2812": 0}


def test_a_table_of_many_exams_is_built_without_reading_a_signal(tmp_path):
    number, parts = 20_000, 3
    usual = [value for name, value in zip(CODE15_COLUMNS, CODE15_ROWS[0], strict=True) if name != "trace_file"][1:]
    rows = ([exam, *usual, f"exams_part{exam % parts}.hdf5"] for exam in range(1, number + 1))
    write_rows(tmp_path / "exams.csv", CODE15_COLUMNS, rows)
    for part in range(parts):
        ids = np.array([exam for exam in range(1, number + 1) if exam % parts == part] + [0])
        with h5py.File(tmp_path / f"exams_part{part}.hdf5", "w") as file:
            file["exam_id"] = ids
            file.create_dataset("tracings", shape=(len(ids), 4096, 12), dtype="float32")  # unwritten: takes no space
    table = read_code15(tmp_path)
    assert len(table) == number
    members = table.set_index("record_id")["member"]
    assert (members["1"], members["4"], members["3"]) == ("0", "1", "0")
    assert pd.Series(table["labels"].map(tuple)).unique().tolist() == [("1dAVb", "AF")]


def test_survival_is_trained_on_the_exams_with_follow_up(tmp_path, caplog):
    """`ecgdan finetune --task survival --data code-15 --data-dir DIR`, without a table of outcomes."""
    rows = [
        (
            100 + exam,
            40 + exam,
            exam % 2 == 0,
            50.0,
            *[False] * 6,
            exam % 24,
            *follow_up(exam),
            True,
            "exams_part0.hdf5",
        )
        for exam in range(32)
    ]
    folder = write_code15(tmp_path / "code15", rows)
    network = {"sampling_rate": 50, "num_samples": 64, "pad_samples": 2, "trunk_channels": [4, 8], "hidden_size": 16}
    flags = {
        **{"data": "code-15", "data_dir": str(folder), "output_dir": str(tmp_path / "run"), "from_scratch": True},
        **{"model": {**network, "num_attention_heads": 2}, "epochs": 1, "batch_size": 8, "valid_fraction": 0.3},
        **{"cache_dir": str(tmp_path / "cache"), "num_proc": 1, "log_with": "none", "progress": False},
    }
    with caplog.at_level(logging.WARNING):
        metrics = finetune.finetune(resolve(FinetuneArguments, None, flags))
    assert sum(metrics["num_records"].values()) == 24
    assert metrics["simulated_outcome"] is False
    assert "code-15: 8 of 32 records have no follow-up and are left out" in caplog.text


def follow_up(exam):
    return (exam % 3 == 0, 1.0 + exam / 10) if exam < 24 else ("", "")
