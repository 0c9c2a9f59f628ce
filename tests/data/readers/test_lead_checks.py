"""Each lead is looked at by itself wherever a reader ends: a part that is no signal is left out and flagged."""

import numpy as np
import pydicom
import pytest
from fixtures import write_vendor_files as vendor
from numpy.testing import assert_allclose, assert_array_equal

from ecgdan_hf.data import formats
from ecgdan_hf.data.check.signals import check_signal
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

V2 = STANDARD_LEADS.index("V2")


def record_of(signal_mv, rate=500, **options):
    return EcgRecord(signal_mv, rate, STANDARD_LEADS[: len(signal_mv)], **options)


def read_muse(tmp_path, values=None, change=lambda content: content):
    path = tmp_path / "a.xml"
    path.write_bytes(change(vendor.muse(vendor.counts() if values is None else values)))
    return formats.read(path)


def missing(record, lead):
    return np.isnan(record.signal_mv[record.lead_names.index(lead)])


@pytest.mark.parametrize("code", [-32768, 32767, -32767])
def test_a_run_of_the_code_of_no_sample_is_missing_in_its_lead_only(tmp_path, code):
    values = vendor.counts()
    values[V2, 1000:1060] = code
    record = read_muse(tmp_path, values)
    assert np.flatnonzero(missing(record, "V2")).tolist() == list(range(1000, 1060))
    assert np.isnan(record.signal_mv).sum() == 60
    assert "no_sample_codes:V2" in record.flags
    assert check_signal(record).problems["no_sample_codes"] == "V2"


def test_codes_in_all_leads_do_not_refuse_the_recording_as_counts(tmp_path, extractor):
    values = vendor.counts()
    values[:, -200:] = -32768
    record = read_muse(tmp_path, values)
    assert np.isnan(record.signal_mv[:, -200:]).all()
    assert not np.isnan(record.signal_mv[:, :-200]).any()
    inputs = extractor(**record.as_inputs(), return_flags=True)
    assert inputs["lead_mask"].all()
    assert "ends_missing:0.08" in inputs["flags"][0]


def test_a_derived_lead_is_missing_where_one_of_its_two_is(tmp_path):
    values = vendor.counts()
    values[0, 500:520] = 32767
    record = read_muse(tmp_path, values)
    for lead in ("III", "aVR", "aVL", "aVF"):
        assert np.flatnonzero(missing(record, lead)).tolist() == list(range(500, 520))
    assert not missing(record, "II").any()


def test_both_codes_in_one_lead_are_found(ecg):
    signal = ecg.copy()
    signal[3, 100:150], signal[3, 900:950] = -163.84, 163.835
    record = record_of(signal)
    assert np.isnan(record.signal_mv).sum() == 100
    assert record.flags == ("no_sample_codes:aVR",)


def test_an_amplifier_at_its_rail_and_a_pacing_spike_are_no_codes(ecg):
    clipped = np.clip(ecg * 3, -1.0, 1.0)
    assert_array_equal(record_of(clipped).signal_mv, clipped.astype(np.float32))
    paced = ecg.copy()
    paced[:, ::400] += 4.0
    paced[6, ::400] = 5.0  # all spikes at the same height
    record = record_of(paced)
    assert not [flag for flag in record.flags if flag.startswith("no_sample")]
    assert not np.isnan(record.signal_mv).any()


def test_a_lead_of_an_impossible_range_is_flagged_and_masked_by_the_feature_extractor(ecg, extractor):
    signal = ecg.copy()
    signal[9, 2000:3500] += 30.0
    record = record_of(signal)
    assert_array_equal(record.signal_mv, signal)  # as recorded
    assert record.flags == ("lead_out_of_range:V4",)
    assert check_signal(record).problems["lead_out_of_range"] == "V4"
    inputs = extractor(**record.as_inputs(), return_flags=True)
    assert [lead for lead, true in zip(STANDARD_LEADS, inputs["lead_mask"][0], strict=True) if not true] == ["V4"]
    assert "lead_out_of_range:V4" in inputs["flags"][0]


def test_a_short_artefact_of_an_impossible_size_costs_its_samples_and_not_the_lead(ecg, extractor):
    signal = ecg.copy()
    signal[9, 2450:2500] += 30.0
    inputs = extractor(signal, 500, "mV", list(STANDARD_LEADS), return_flags=True)
    clean = extractor(ecg, 500, "mV", list(STANDARD_LEADS))
    assert inputs["lead_mask"].all()
    assert "lead_out_of_range:V4" in inputs["flags"][0]
    changed = np.abs(inputs["input_values"] - clean["input_values"])[0, 9] > 0.5  # standard deviations
    assert changed.mean() < 0.03


def test_one_artefact_in_a_long_recording_is_no_gain_that_is_wrong(ecg):
    long = np.tile(ecg[:3], 20)
    long[:, 50_000:50_100] += 40 * np.sin(np.arange(100) / 3)
    assert record_of(long).signal_mv.shape == (3, 100_000)


def test_counts_in_most_leads_are_still_refused(ecg):
    with pytest.raises(ValueError, match="median range over leads"):
        record_of(np.concatenate([ecg[:5], ecg[5:] * 1000]))


def test_a_lead_that_muse_calls_off_is_missing_and_so_are_those_derived_from_it(tmp_path):
    def off(lead):
        old = f"<LeadID>{lead}</LeadID>".encode()
        return lambda content: content.replace(old, old + b"<LeadOff>TRUE</LeadOff>")

    record = read_muse(tmp_path, change=off("V2"))
    assert missing(record, "V2").all()
    assert np.isnan(record.median_beat_mv[V2]).all()
    assert "lead_off:V2" in record.flags
    assert np.isnan(record.signal_mv).mean() == 1 / 12
    assert check_signal(record).problems["lead_off"] == "V2"
    record = read_muse(tmp_path, change=off("I"))
    assert [lead for lead in STANDARD_LEADS if missing(record, lead).all()] == ["I", "III", "aVR", "aVL", "aVF"]


def test_a_lead_off_that_says_false_is_on(tmp_path):
    record = read_muse(tmp_path, change=lambda text: text.replace(b"<LeadID>", b"<LeadOff>FALSE</LeadOff><LeadID>"))
    assert not np.isnan(record.signal_mv).any()
    assert record.flags == ("lead_derived:III+aVR+aVL+aVF",)


def test_all_leads_off_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.xml: expected a lead that was on, but the file says that all were off"):
        read_muse(tmp_path, change=lambda text: text.replace(b"<LeadID>", b"<LeadOff>TRUE</LeadOff><LeadID>"))


@pytest.mark.parametrize(
    ("status", "flag"),
    [
        ("DISCONNECTED", "lead_off:V1"),
        ("INVALID", "lead_off:V1"),
        ("UNCALIBRATED", "lead_questionable:V1"),
        ("OK", ""),
    ],
)
def test_the_channel_status_of_dicom_is_read(tmp_path, status, flag):
    file = pydicom.filebase.DicomBytesIO(vendor.dicom(vendor.counts()))
    dataset = pydicom.dcmread(file)
    dataset.WaveformSequence[0].ChannelDefinitionSequence[6].ChannelStatus = status
    dataset.save_as(tmp_path / "a.dcm")
    record = formats.read(tmp_path / "a.dcm")
    assert record.flags == ((flag,) if flag else ())
    assert missing(record, "V1").all() == flag.startswith("lead_off")


def test_a_median_beat_that_is_no_voltage_is_left_out_and_the_recording_is_read(ecg):
    record = record_of(ecg, median_beat_mv=ecg[:, :600] * 1000)
    assert record.median_beat_mv is None
    assert record.flags == ("median_beat_unusable",)


def test_filler_behind_a_median_beat_is_missing(ecg):
    beat = np.full((12, 1200), 163.835)
    beat[:, :600] = ecg[:, :600]
    record = record_of(ecg, median_beat_mv=beat)
    assert_allclose(record.median_beat_mv[:, :600], ecg[:, :600], rtol=1e-6)
    assert np.isnan(record.median_beat_mv[:, 600:]).all()
    assert record.flags == ()
