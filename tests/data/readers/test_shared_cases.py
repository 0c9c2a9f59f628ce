"""The inputs of `../shared/cases`, each kind of fault by its folder; tests with inputs of their own are elsewhere."""

from pathlib import Path

import numpy as np
import pytest

from ecgdan_hf.data import formats
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.sources.ecg_folder import ecg_files, left_out_files
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS


@pytest.fixture
def read(shared: Path):
    def read(name: str, **options) -> EcgRecord:
        return formats.read(shared / "cases" / name, **options)

    return read


def masked(record: EcgRecord) -> list[str]:
    return [lead for lead, row in zip(record.lead_names, record.signal_mv, strict=True) if np.isnan(row).all()]


def test_codes_of_no_sample_are_nan(read):
    assert np.isnan(read("no_sample_codes/v1.xml").signal_mv).sum() == 50
    assert np.isnan(read("no_sample_codes/all.xml").signal_mv[:, -200:]).all()


def test_leads_that_were_off_are_masked(read):
    assert masked(read("muse_lead_off/leadoff.xml")) == ["V2"]
    assert masked(read("dicom_disconnected_channels/status.dcm")) == ["V1", "V2"]


def test_a_lead_of_an_impossible_amplitude_is_flagged(read):
    assert "lead_out_of_range:V4" in read("impossible_amplitude_of_one_lead/v4.xml").flags


@pytest.mark.parametrize("name", ["aecg.xml", "dicom.dcm", "muse.xml"])
def test_filler_in_a_median_beat_does_not_refuse_the_recording(read, name):
    beat = read(f"median_beat_refuses_the_recording/{name}").median_beat_mv
    assert np.isnan(beat).any(axis=1).all()
    assert np.nanmax(np.abs(beat)) < 5


@pytest.mark.parametrize("rate", [360, 400])
def test_times_rounded_to_milliseconds_give_the_true_rate(read, rate):
    assert read(f"csv_time_in_milliseconds_of_three_decimals/true_{rate}.csv").sampling_rate == rate


def test_a_gap_in_time_is_refused(read):
    with pytest.raises(ValueError, match="a gap of 5 s"):
        read("csv_gap_in_time/gap.csv")


@pytest.mark.parametrize("name", ["frame1", "frame125"])
def test_several_samples_in_a_frame_are_all_read(read, name):
    record = read(f"wfdb_several_samples_per_frame/{name}.hea")
    assert (record.signal_mv.shape, record.sampling_rate) == ((2, 2000), 500)


def test_gaps_and_units_of_segments_are_read(read):
    record = read("wfdb_gap_in_fixed_layout/gap.hea")
    assert np.flatnonzero(np.isnan(record.signal_mv).all(axis=0)).tolist() == list(range(1000, 1500))
    with pytest.raises(ValueError, match="expected the number of samples"):
        read("wfdb_gap_in_fixed_layout/zero.hea")
    record = read("wfdb_segments_of_two_units_end_predict/units.hea")
    assert record.signal_mv.shape == (2, 2000)
    assert np.ptp(record.signal_mv[:, :1000]) == pytest.approx(np.ptp(record.signal_mv[:, 1000:]), rel=0.2)


def test_a_sierra_103_beat_is_scaled_by_the_recording(read):
    record = read("sierra_103_median_twice_as_large/sierra103.xml")
    assert np.ptp(record.median_beat_mv, axis=1) == pytest.approx(np.ptp(record.signal_mv, axis=1), rel=0.1)


def test_limb_leads_against_goldbergers_law_are_flagged(read):
    assert "limb_leads_contradict:aVL+aVF" in read("limb_leads_against_goldberger/swapped.hea").flags


@pytest.mark.parametrize("name", ["excel", "german", "index", "latin1", "units"])
def test_tables_are_read_as_programs_write_them(read, name):
    record = read(f"csv_as_programs_write_it/{name}.csv")
    assert (record.lead_names, record.sampling_rate, record.signal_mv.shape) == (("I", "II"), 500, (2, 2000))
    assert 0.5 < np.ptp(record.signal_mv) < 5


def test_tables_that_do_not_say_all_are_read_with_what_is_given(read):
    assert read("csv_as_programs_write_it/excel2.csv", sampling_rate=500, unit="mV").lead_names == ("I", "II")
    assert read("csv_as_programs_write_it/one.csv", lead_names=["II"]).lead_names == ("II",)


def test_an_unknown_channel_does_not_refuse_the_rest(read):
    folder = "one_unknown_channel_refuses_the_rest"
    assert read(f"{folder}/psg.edf").lead_names == read(f"{folder}/monitor.hea").lead_names == ("II",)
    assert read(f"{folder}/names.hea", lead_names=["II", "V1"]).lead_names == ("II", "V1")


def test_dicom_without_preamble_is_read(read):
    assert read("dicom_without_preamble/raw.dcm").lead_names[:3] == ("I", "II", "III")


def test_arrays_are_read_as_programs_write_them(read):
    folder, about = "arrays_as_programs_write_them", {"sampling_rate": 500, "unit": "mV", "lead_names": STANDARD_LEADS}
    assert read(f"{folder}/cpsc.mat", **about).signal_mv.shape == (12, 2000)
    assert read(f"{folder}/first.npy", **about).signal_mv.shape == (12, 2000)
    assert read(f"{folder}/rate.npz").sampling_rate == 500
    with pytest.raises(ValueError, match="MATLAB of version 4"):
        read(f"{folder}/v4.mat")


def test_files_left_out_of_a_folder_are_named(shared):
    folder = shared / "cases/folder_leaves_out_without_a_word"
    named = {file.name for file in (*ecg_files(folder), *left_out_files(folder))}
    assert {"a.dcm", "b.bdf", "c.scp", "d.csv", "good.hea"} <= named
