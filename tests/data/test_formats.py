import re

import numpy as np
import pytest

from ecgdan_hf.data import formats
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

LEADS = list(STANDARD_LEADS)


def edit_header(stem, old, new, count=-1):
    header = stem.with_suffix(".hea")
    text = header.read_text(encoding="utf-8")
    assert old in text
    header.write_text(text.replace(old, new, count), encoding="utf-8")


def refuse(path, message, error=ValueError, **options):
    with pytest.raises(error, match=message) as caught:
        formats.read(path, **options)
    assert str(path.parent / path.stem) in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- WFDB


@pytest.mark.parametrize("fmt", ["16", "516", "212", "24"])
def test_wfdb_formats_read_back_what_was_written(write_record, ecg, fmt):
    record = formats.read(write_record(fmt=fmt))
    np.testing.assert_allclose(record.signal_mv, ecg, atol=6e-4)
    assert (record.sampling_rate, record.lead_names, record.record_id) == (500, STANDARD_LEADS, "a")


def test_formats_16_and_516_are_the_same_to_the_bit(write_record):
    plain, flac = formats.read(write_record("a", fmt="16")), formats.read(write_record("b", fmt="516"))
    np.testing.assert_array_equal(plain.signal_mv, flac.signal_mv)


def test_stem_header_and_data_file_name_the_same_record(write_record):
    stem = write_record(fmt="516")
    names = (stem, stem.with_suffix(".hea"), stem.with_name("a_1.dat"), stem.with_name("a_2.dat"))
    signals = [formats.read(name).signal_mv for name in names]
    assert all(np.array_equal(signals[0], signal) for signal in signals)


def test_a_file_that_the_header_does_not_name_is_not_its_data(write_record):
    annotation = write_record().with_suffix(".atr")
    annotation.write_bytes(b"\x00\x01\x02\x03")
    refuse(annotation, "not a known ECG file, got one that begins with .*; what is read: WFDB")


def test_microvolt_in_the_header_becomes_millivolt(write_record, ecg):
    stem = write_record(signal_mv=ecg * 1000, units=["uV"] * 12, adc_gain=[1.0] * 12)
    np.testing.assert_allclose(formats.read(stem).signal_mv, ecg, atol=6e-4)


def test_channels_that_are_no_voltage_are_left_out_and_flagged(write_record, ecg):
    stem = write_record(signal_mv=ecg[:3], units=["mV", "mmHg", "mV"], sig_name=["I", "ABP", "V1"])
    record = formats.read(stem)
    assert record.lead_names == ("I", "V1")
    assert record.flags == ("not_voltage:ABP",)
    np.testing.assert_allclose(record.signal_mv, ecg[[0, 2]], atol=6e-4)
    edit_header(stem, "/mV", "/mmHg")
    refuse(stem, "unit: expected leads in mV, uV or V, got mmHg")


def test_age_and_sex_come_from_the_comments_of_the_header(write_record):
    record = formats.read(write_record(comments=["Age: 56", "Sex: F"]))
    assert (record.age, record.sex) == (56, "female")
    record = formats.read(write_record("b", comments=["<age>: 51  <sex>: M <diagnoses>:"]))
    assert (record.age, record.sex) == (51, "male")
    assert formats.read(write_record("c", comments=["Dosage: 10", "Essex: m"])).age is None


@pytest.mark.parametrize("keep", [0, 60000, 119999])
def test_a_truncated_dat_is_refused_with_both_sizes(write_record, keep):
    stem = write_record()
    data = stem.with_suffix(".dat")
    data.write_bytes(data.read_bytes()[:keep])
    refuse(stem, f"a.dat is truncated: expected 120000 bytes for 12 leads x 5000 samples, got {keep}")


@pytest.mark.parametrize("keep", [0, 100, 12000])
def test_a_truncated_flac_dat_is_refused(write_record, keep):
    stem = write_record(fmt="516")
    data = stem.with_name("a_1.dat")
    data.write_bytes(data.read_bytes()[:keep])
    refuse(stem, "truncated or damaged data, expected 12 leads x 5000 samples")


def test_a_missing_file_is_named(write_record, tmp_path):
    refuse(tmp_path / "absent", "no such file", FileNotFoundError)
    stem = write_record()
    stem.with_suffix(".dat").unlink()
    refuse(stem, "its data file is missing: a.dat", FileNotFoundError)


def test_a_header_that_names_more_leads_than_it_lists_is_refused(write_record):
    stem = write_record()
    header = stem.with_suffix(".hea")
    header.write_text("\n".join(header.read_text(encoding="utf-8").splitlines()[:9]) + "\n", encoding="utf-8")
    refuse(stem, "the record line names 12 leads, got 8 lead lines")


def test_a_header_that_names_leads_the_data_do_not_hold_is_refused(write_record, ecg):
    stem = write_record(signal_mv=ecg[:8])
    header = stem.with_suffix(".hea")
    last = header.read_text(encoding="utf-8").splitlines()[-1]
    header.write_text(
        header.read_text(encoding="utf-8").replace("a 8", "a 9", 1) + last.replace(" V2", " V3") + "\n",
        encoding="utf-8",
    )
    refuse(stem, "a.dat is truncated: expected 90000 bytes for 9 leads")


def test_a_header_that_names_fewer_leads_than_the_data_hold_is_refused(write_record):
    stem = write_record()
    header = stem.with_suffix(".hea")
    lines = header.read_text(encoding="utf-8").replace("a 12", "a 8", 1).splitlines()[:9]
    header.write_text("\n".join(lines) + "\n", encoding="utf-8")
    refuse(stem, "a.dat holds more than the header names: expected 80000 bytes for 8 leads")


@pytest.mark.parametrize("rate", ["0", "-500", "abc", "nan"])
def test_a_wrong_rate_in_the_header_is_refused_and_not_guessed(write_record, rate):
    stem = write_record()
    edit_header(stem, "a 12 500 5000", f"a 12 {rate} 5000")
    refuse(stem, f"sampling_rate: expected a sampling rate in Hz above zero, got '{rate}'")


def test_a_header_without_a_rate_is_refused_and_not_read_as_250_hz(write_record):
    stem = write_record()
    edit_header(stem, "a 12 500 5000", "a 12")
    refuse(stem, "sampling_rate: expected a sampling rate in Hz above zero, got None")


def test_a_rate_unit_or_lead_that_contradicts_the_header_is_refused(write_record):
    stem = write_record()
    refuse(stem, "sampling_rate: the file says 500.0, which contradicts the given 100", sampling_rate=100)
    refuse(stem, "unit: the file says mV, given uV", unit="uV")
    refuse(stem, "lead_names: the file says I, II.*, given II, I", lead_names=["II", "I", *LEADS[2:]])
    assert formats.read(stem, sampling_rate=500, unit="mV", lead_names=[name.lower() for name in LEADS])


@pytest.mark.parametrize("gain", ["0(0)/mV", "0"])
def test_a_gain_of_zero_is_refused_as_adc_counts(write_record, gain):
    stem = write_record()
    edit_header(stem, "1000.0(0)/mV", gain)
    refuse(stem, "lead I has no gain, so its values are ADC counts")


def test_an_absent_gain_is_refused_and_not_read_as_200(write_record):
    stem = write_record()
    lines = stem.with_suffix(".hea").read_text(encoding="utf-8").splitlines()
    stem.with_suffix(".hea").write_text("\n".join([lines[0], *["a.dat 16"] * 12]), encoding="utf-8")
    refuse(stem, "has no gain, so its values are ADC counts", lead_names=LEADS)


def test_adc_counts_under_a_gain_of_one_are_refused(write_record, ecg):
    stem = write_record(signal_mv=ecg * 1000, adc_gain=[1.0] * 12)
    refuse(stem, "probably ADC counts")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "hello\nworld\n"])
def test_what_is_no_header_is_refused(write_record, text):
    stem = write_record()
    stem.with_suffix(".hea").write_text(text, encoding="utf-8")
    refuse(stem, "expected a WFDB record line|the file is empty")


def test_missing_samples_of_wfdb_arrive_as_nan(write_record, ecg):
    gappy = ecg.copy()
    gappy[4, 100:120] = np.nan
    record = formats.read(write_record(signal_mv=gappy))
    assert np.isnan(record.signal_mv).sum() == 20
    assert np.isnan(record.signal_mv[4, 100:120]).all()


def test_real_recordings_of_three_sources_are_read(shared):
    expected = {
        "ptb-xl/records500/00000/00409_hr": ((12, 5000), 500, STANDARD_LEADS),
        "ludb/data/1": ((12, 5000), 500, STANDARD_LEADS),
        "mit-bih/101": ((2, 650000), 360, ("MLII", "V1")),
    }
    for name, (shape, rate, leads) in expected.items():
        record = formats.read(shared / "data" / name)
        assert (record.signal_mv.shape, record.sampling_rate, record.lead_names) == (shape, rate, leads)
        assert 0.3 < np.median(np.ptp(record.signal_mv, axis=1)) < 10


# ---- arrays


def test_an_array_is_read_by_its_content_in_either_orientation(tmp_path, ecg):
    for name, array in (("a.npy", ecg), ("b.bin", ecg.T)):
        with (tmp_path / name).open("wb") as file:
            np.save(file, array)
        record = formats.read(tmp_path / name, sampling_rate=500, unit="mV", lead_names=LEADS)
        np.testing.assert_array_equal(record.signal_mv, ecg)


@pytest.mark.parametrize(
    ("unit", "factor"), [("mV", 1), ("uV", 1e3), ("V", 1e-3), ("\u00b5V", 1e3), ("\u03bcV", 1e3), ("microvolt", 1e3)]
)
def test_units_are_converted_to_millivolt(tmp_path, ecg, unit, factor):
    np.save(tmp_path / "a.npy", ecg.astype(np.float64) * factor)
    record = formats.read(tmp_path / "a.npy", sampling_rate=500, unit=unit, lead_names=LEADS)
    np.testing.assert_allclose(record.signal_mv, ecg, rtol=1e-6)


@pytest.mark.parametrize("missing", ["sampling_rate", "unit", "lead_names"])
def test_an_array_without_rate_unit_or_leads_is_refused_and_nothing_is_guessed(tmp_path, ecg, missing):
    np.save(tmp_path / "a.npy", ecg)
    options = {"sampling_rate": 500, "unit": "mV", "lead_names": LEADS}
    del options[missing]
    refuse(tmp_path / "a.npy", f"{missing}: the file does not say", **options)


def test_all_that_an_array_does_not_say_is_asked_for_at_once(tmp_path, ecg):
    np.save(tmp_path / "a.npy", ecg)
    asked = r"a\.npy: sampling_rate, unit, lead_names: .*--sampling-rate HZ; --unit mV, uV or V; --lead-names I,II"
    refuse(tmp_path / "a.npy", asked)
    refuse(tmp_path / "a.npy", r"a\.npy: unit, lead_names: the file does not say them", sampling_rate=500)


def test_an_npz_says_rate_unit_and_leads_itself(tmp_path, ecg):
    path = tmp_path / "a.npz"
    np.savez(path, signal=ecg, sampling_rate=500, unit="mV", lead_names=LEADS)
    record = formats.read(path)
    np.testing.assert_array_equal(record.signal_mv, ecg)
    assert (record.sampling_rate, record.lead_names) == (500, STANDARD_LEADS)
    refuse(path, "sampling_rate: the file says 500, which contradicts the given 250", sampling_rate=250)
    np.savez(path, ecg=ecg, noise=ecg)
    refuse(path, r"expected an array named 'signal', or one array only .*, got ecg \(12, 5000\), noise")


def test_the_only_array_with_two_dimensions_is_the_signal_and_a_single_lead_may_have_one(tmp_path, ecg):
    np.savez(tmp_path / "a.npz", ecg=ecg, heart_rate=np.array([70.0]), time=np.arange(5000)[None])
    record = formats.read(tmp_path / "a.npz", sampling_rate=500, unit="mV", lead_names=LEADS)
    np.testing.assert_array_equal(record.signal_mv, ecg)
    np.save(tmp_path / "b.npy", ecg[1])
    record = formats.read(tmp_path / "b.npy", sampling_rate=500, unit="mV", lead_names=["II"])
    np.testing.assert_array_equal(record.signal_mv, ecg[[1]])


def write_csv(path, ecg, names=LEADS, head="", times=None):
    columns = list(ecg) if times is None else [times, *ecg]
    header = ",".join(names if times is None else ["time_s", *names])
    rows = "\n".join(",".join(f"{value:.6f}" for value in row) for row in zip(*columns, strict=True))
    path.write_text(f"{head}{header}\n{rows}\n", encoding="utf-8")
    return path


def test_a_csv_says_its_leads_and_may_say_rate_and_unit(tmp_path, ecg):
    head = "# sampling_rate: 500\n# unit: mV\n"
    record = formats.read(write_csv(tmp_path / "a.csv", ecg, head=head))
    np.testing.assert_allclose(record.signal_mv, ecg, atol=1e-6)
    assert (record.sampling_rate, record.lead_names) == (500, STANDARD_LEADS)


def test_the_rate_of_a_csv_may_come_from_its_times_and_may_not_contradict(tmp_path, ecg):
    path = write_csv(tmp_path / "a.csv", ecg, times=np.arange(5000) / 500)
    assert formats.read(path, unit="mV").sampling_rate == 500
    refuse(path, "sampling_rate: the file says 500.0, which contradicts the given 250", unit="mV", sampling_rate=250)
    backwards = write_csv(tmp_path / "b.csv", ecg, times=-np.arange(5000) / 500)
    refuse(backwards, "column time_s: expected a sampling rate in Hz above zero", unit="mV")


def test_a_csv_without_names_or_with_text_is_refused(tmp_path, ecg):
    path = tmp_path / "a.csv"
    np.savetxt(path, ecg.T, delimiter=",")
    refuse(path, "expected a first row with lead names, got numbers", sampling_rate=500, unit="mV")
    path.write_text("I,II\n0.1,low\n0.2,0.3\n", encoding="utf-8")
    refuse(path, "column II: expected numbers, got text", sampling_rate=500, unit="mV")


def test_arrays_of_another_shape_or_kind_are_refused(tmp_path, ecg):
    path = tmp_path / "a.npy"
    options = {"sampling_rate": 500, "unit": "mV", "lead_names": LEADS}
    np.save(path, ecg[:8])
    refuse(path, re.escape("for 12 leads, got float32 (8, 5000)"), **options)
    np.save(path, np.array([["a"] * 12]))
    refuse(path, "expected numbers", **options)
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    refuse(path, "truncated or damaged numpy file: Object arrays cannot be loaded", **options)
    np.save(path, np.round(ecg * 1000).astype(np.int16))
    refuse(path, "probably ADC counts", **options)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_truncated_arrays_are_refused(tmp_path, ecg, name):
    path = tmp_path / name
    np.save(path, ecg) if name == "a.npy" else np.savez(path, signal=ecg)
    path.write_bytes(path.read_bytes()[:5000])
    refuse(path, "truncated or damaged (numpy|zip) file", sampling_rate=500, unit="mV", lead_names=LEADS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b'<?xml version="1.0"?><!-- <RestingECG> --><svg/>', "not a known ECG file, got XML of 'svg'"),
        (b"RIFF\0\0\0\0", "not a known ECG file, got one that begins with "),
        (b"\x89PNG\r\n", "not a known ECG file, got a picture of an ECG at best; digitise it "),
        (b"Dear colleague", "not a known ECG file, got one that begins with b'Dear col'"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_can(tmp_path, content, message):
    (tmp_path / "a.xyz").write_bytes(content)
    refuse(tmp_path / "a.xyz", f"{message}.*; what is read: WFDB")
    assert formats.kind(tmp_path / "a.xyz") is None
