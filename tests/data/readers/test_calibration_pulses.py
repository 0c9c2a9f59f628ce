"""Calibration pulses that carts write into all leads are cut off, and nothing else is."""

import numpy as np
import pytest
from fixtures import write_vendor_files as vendor
from numpy.testing import assert_allclose

from ecgdan_hf.data import formats
from ecgdan_hf.data.check.signals import check_signal
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

MV = 1000 // vendor.UV_PER_COUNT
WIDE = (0, 0.95, 1.06, 0.95, 0)  # mV, of a wide beat that looks like a pulse
LIMB = (1, 1, 0, -1, 0.5, 0.5)  # of the leads that follow from I and II


def with_pulse(values, start, height=MV, length=100, line=True, limb=False):
    """The counts with a flat line to the end from 100 samples before `start` and a pulse of 200 ms in it."""
    values = values.copy()
    if line:
        values[:, start - 100 :] = 0
    values[:, start : start + length] += height
    if limb:
        values[:6, start : start + length] = np.round(height * np.array(LIMB))[:, None]
    return values


def read(tmp_path, content):
    (tmp_path / "a.xml").write_bytes(content)
    return formats.read(tmp_path / "a.xml")


@pytest.mark.parametrize("limb", [False, True])
def test_a_pulse_in_the_last_second_is_cut_off_with_the_line_around_it(tmp_path, limb):
    plain = vendor.counts()
    record = read(tmp_path, vendor.sierra(with_pulse(plain, 2200, limb=limb)))
    assert abs(record.signal_mv.shape[1] - 2100) <= 12
    assert_allclose(record.signal_mv, vendor.millivolt(plain)[:, : record.signal_mv.shape[1]], atol=1e-6)
    assert record.flags == ("calibration_pulse_cut:0.8s",)
    assert check_signal(record).problems["calibration_pulse_cut"] == "0.8s"


@pytest.mark.parametrize("write", [vendor.muse, vendor.mortara, vendor.hl7_aecg])
def test_a_pulse_is_cut_off_in_any_format(tmp_path, write):
    record = read(tmp_path, write(with_pulse(vendor.counts(), 2200, limb=True)))
    assert abs(record.signal_mv.shape[1] - 2100) <= 12
    assert "calibration_pulse_cut:0.8s" in record.flags


def test_a_pulse_at_the_start_is_cut_off(ecg):
    signal = ecg.copy()
    signal[:, :300] = 0
    signal[:, 100:200] = 1
    record = EcgRecord(signal, 500, STANDARD_LEADS)
    assert abs(record.signal_mv.shape[1] - 4700) <= 12
    assert_allclose(record.signal_mv, ecg[:, -record.signal_mv.shape[1] :])


def test_a_pulse_without_a_line_around_it_and_one_that_ends_the_recording_are_cut_off(ecg):
    for start, stop, replaced in ((4600, 4700, True), (4850, 4950, False), (4900, 5000, True)):
        signal = ecg.copy()
        signal[:, start:stop] = 1.0 if replaced else signal[:, start:stop] + 1.0
        record = EcgRecord(signal, 500, STANDARD_LEADS)
        assert abs(record.signal_mv.shape[1] - start) <= 12
        assert record.flags[0].startswith("calibration_pulse_cut")


@pytest.mark.parametrize(("height", "length"), [(0.5, 100), (2.0, 100), (1.0, 10), (1.0, 400)])
def test_what_is_no_standard_pulse_is_kept(ecg, height, length):
    signal = ecg.copy()
    signal[:, 4500 : 4500 + length] += height
    record = EcgRecord(signal, 500, STANDARD_LEADS)
    assert record.signal_mv.shape == signal.shape
    assert not any(flag.startswith("calibration") for flag in record.flags)


def test_a_pulse_in_one_lead_and_wide_beats_are_kept(ecg):
    one_lead = ecg.copy()
    one_lead[6, 4500:4600] += 1
    wide = np.tile(np.concatenate([np.zeros(400), np.hanning(200)]), (12, 8))[:, :4700]
    for signal in (one_lead, wide, ecg):
        assert EcgRecord(signal, 500, STANDARD_LEADS).signal_mv.shape == signal.shape


def test_a_pulse_in_a_recording_of_few_leads_is_cut_off_and_their_beats_are_kept(ecg):
    for leads in (["II"], ["I", "II"], ["V2", "V3", "V4"]):
        rows = [STANDARD_LEADS.index(lead) for lead in leads]
        signal = ecg[rows].copy()
        signal[:, 4600:] = 0
        signal[:, 4700:4800] = 1
        assert abs(EcgRecord(signal, 500, leads).signal_mv.shape[1] - 4600) <= 12
        wide = np.tile(np.concatenate([np.zeros(350), np.interp(np.arange(150), [0, 8, 75, 142, 150], WIDE)]), 10)
        assert EcgRecord(np.tile(wide, (len(rows), 1)), 500, leads).signal_mv.shape == (len(rows), 5000)


def test_leads_that_are_printed_one_after_another_hold_no_pulse_of_all_leads(ecg):
    page = np.full_like(ecg, np.nan)
    for lead in range(12):
        column = slice(lead // 3 * 1250, (lead // 3 + 1) * 1250)
        page[lead, column] = ecg[lead, column]
    page[9:, 4500:4600] = 1
    assert EcgRecord(page, 500, STANDARD_LEADS).signal_mv.shape == page.shape
