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
