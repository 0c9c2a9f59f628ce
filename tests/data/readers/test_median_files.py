"""Median beats in files of their own, in the layout of PTB-XL+ 1.0.1."""

import os
from pathlib import Path

import numpy as np
import pytest
from fixtures.write_cardiosoft import cardiosoft_xml
from fixtures.write_sources import write_ptbxl_plus
from numpy.testing import assert_allclose

from ecgdan_hf.data.formats import read
from ecgdan_hf.data.loading import load
from ecgdan_hf.data.prepared.cache import fingerprint
from ecgdan_hf.data.prepared.preparation import Preparation
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.sources import csv_table as csv_files
from ecgdan_hf.data.sources import ptbxl
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor

UNUSABLE = "median_beat_unusable"


def median(folder: Path, ecg_id: int = 1) -> Path:
    return folder / f"ptb-xl-plus/median_beats/12sl/00000/{ecg_id:05d}_medians.hea"


def record_of(folder: Path, sampling_rate: int = 500, row: int = 0):
    return RecordFile.of_table(ptbxl.read_ptbxl(folder, sampling_rate))[row].read()


@pytest.fixture
def with_medians(ptbxl_folder: Path) -> Path:
    """PTB-XL with PTB-XL+ in it, which lacks the beat of the last record."""
    write_ptbxl_plus(ptbxl_folder / "ptb-xl-plus", [1, 2, 7])
    return ptbxl_folder


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_recording_settles_whether_a_header_s_millivolt_are_microvolt(ptbxl_folder, scale):
    write_ptbxl_plus(ptbxl_folder / "ptb-xl-plus", [1], scale)
    assert median(ptbxl_folder).read_text(encoding="utf-8").startswith("ge_median_beats_wfdb/00001_medians 12 500 600")
    record = record_of(ptbxl_folder)
    assert_allclose(record.median_beat_mv, record.signal_mv[:, 1000:1600], atol=0.0006)  # a step of the recording
    assert record.flags == ()


@pytest.mark.parametrize("scale", [30.0, 1e-3, 1e6])
def test_a_beat_as_large_as_the_recording_in_neither_unit_is_left_out(ptbxl_folder, scale):
    write_ptbxl_plus(ptbxl_folder / "ptb-xl-plus", [1], scale)
    record = record_of(ptbxl_folder)
    assert record.median_beat_mv is None and record.flags == (UNUSABLE,)


def test_a_beat_has_the_rate_and_the_leads_of_its_recording(with_medians):
    beat = record_of(with_medians, 100).median_beat_mv
    assert beat.shape == (12, 120)
    whole = record_of(with_medians).median_beat_mv
    assert np.corrcoef(beat.ravel(), whole[:, ::5].ravel())[0, 1] > 0.98
    header = median(with_medians)
    header.write_text(
        header.read_text(encoding="utf-8")
        .replace(" aVL\n", " \n")
        .replace(" aVF\n", " aVL\n")
        .replace(" \n", " aVF\n"),
        encoding="utf-8",
    )
    assert_allclose(record_of(with_medians).median_beat_mv, whole[[0, 1, 2, 3, 5, 4, *range(6, 12)]])


def test_a_record_without_a_beat_has_none_and_no_flag(with_medians):
    record = record_of(with_medians, row=3)
    assert record.median_beat_mv is None and record.flags == ()


def damage(header: Path, how: str) -> None:
    data = header.with_suffix(".dat")
    if how == "no header":
        header.unlink()
    elif how == "no data":
        data.unlink()
    elif how == "truncated":
        data.write_bytes(data.read_bytes()[:-100])
    elif how == "too large":
        data.write_bytes(bytes(2 << 20))
    elif how == "no lead V6":
        header.write_text(header.read_text(encoding="utf-8").replace(" V6", " X"), encoding="utf-8")
    elif how == "a blank lead":
        samples = np.fromfile(data, "<i4").reshape(600, 12)
        samples[:, 3] = -(2**31)
        samples.tofile(data)
    else:
        header.write_text(how, encoding="utf-8")


@pytest.mark.parametrize(
    "how", ["no header", "no data", "truncated", "too large", "no lead V6", "a blank lead", "", "00001_medians/2 12\n"]
)
def test_a_damaged_beat_leaves_the_record_usable(with_medians, how):
    whole = record_of(with_medians)
    file = RecordFile.of_table(ptbxl.read_ptbxl(with_medians))[0]
    damage(median(with_medians), how)
    record = file.read()
    assert whole.median_beat_mv is not None
    assert record.median_beat_mv is None and record.flags == (UNUSABLE,)
    assert_allclose(record.signal_mv, whole.signal_mv)


def test_flat_leads_settle_no_unit(with_medians, write_record):
    signal = np.zeros((12, 5000))
    record = read(write_record("flat", signal), median_file=median(with_medians))
    assert record.median_beat_mv is None and record.flags == (UNUSABLE,)


def test_a_part_of_a_record_has_no_median_beat_of_the_whole(with_medians):
    file = with_medians / "records500/00000/00001_hr"
    assert read(file, median_file=median(with_medians)).median_beat_mv is not None
    assert read(file, seconds=5, median_file=median(with_medians)).median_beat_mv is None
    assert read(file, start_seconds=5, median_file=median(with_medians)).median_beat_mv is None


def test_a_part_of_a_file_loses_the_median_beat_in_it(ecg, tmp_path):
    file = tmp_path / "a.xml"
    file.write_text(cardiosoft_xml(ecg, ecg[:, 1000:1600]), encoding="latin-1")
    whole, part = read(file), read(file, seconds=4)
    assert whole.median_beat_mv is not None
    assert part.median_beat_mv is None and part.duration_seconds == 4


def test_a_median_beat_checkpoint_takes_the_beat_of_the_file(with_medians, tmp_path):
    extractor = EcgDanFeatureExtractor(**EcgDanConfig().signal_contract)
    rows = load("ptb-xl", with_medians, feature_extractor=extractor, cache_dir=tmp_path / "cache", num_proc=1)
    taken = ["median_beat_of_file" in flags for flags in rows["flags"]]
    assert taken == [True, True, True, False]
    assert "median_file" not in rows.column_names


def test_a_table_of_ones_own_names_median_files_beside_it(with_medians):
    name = median(with_medians).relative_to(with_medians)
    lines = ["file,patient_id,median_file", f"records500/00000/00001_hr,a,{name}", "records500/00000/00002_hr,b,"]
    (with_medians / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    first, second = (file.read() for file in RecordFile.of_table(csv_files.read_csv_table(with_medians)))
    assert_allclose(first.median_beat_mv, record_of(with_medians).median_beat_mv)
    assert second.median_beat_mv is None and second.flags == ()


def test_a_median_file_that_changes_makes_the_cache_stale(with_medians):
    def now() -> str:
        return fingerprint(RecordFile.of_table(ptbxl.read_ptbxl(with_medians)), Preparation(None, ("I",)))

    first = now()
    assert now() == first
    os.utime(median(with_medians).with_suffix(".dat"), ns=(1, 1))
    assert now() != first
