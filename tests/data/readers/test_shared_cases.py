"""The inputs of `../shared/cases`, each kind of fault by its folder; tests with inputs of their own are elsewhere."""

from pathlib import Path

import numpy as np
import pytest

from ecgdan_hf.data import formats
from ecgdan_hf.data.record import EcgRecord


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
