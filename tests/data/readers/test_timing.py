"""Rates, gaps, segments and declarations of WFDB and CSV, from all of the evidence."""

import numpy as np
import pytest
import wfdb
from numpy.testing import assert_allclose

from ecgdan_hf.data import formats


def write_csv(path, times, values, name="time"):
    rows = "\n".join(f"{time},{value:.4f}" for time, value in zip(times, values, strict=True))
    path.write_text(f"# unit: mV\n{name},II\n{rows}\n", encoding="utf-8")
    return path


def write_channels(tmp_path, name, channels, rate=500, extra=""):
    """A record whose channels (file, format, samples, unit and gain, label) have a file each, format 16."""
    lines = []
    for number, (storage, counts, unit, label) in enumerate(channels):
        (tmp_path / f"{name}{number}.dat").write_bytes(np.asarray(counts, dtype="<i2").tobytes())
        lines.append(f"{name}{number}.dat {storage} {unit} 16 0 0 0 0 {label}")
    frames = len(channels[-1][1]) // int([*channels[-1][0].split("x"), "1"][1])
    text = f"{name} {len(channels)} {rate} {frames}\n" + "\n".join(lines) + f"\n{extra}"
    (tmp_path / f"{name}.hea").write_text(text, encoding="utf-8")
    return tmp_path / f"{name}.hea"


@pytest.mark.parametrize("rate", [360, 400, 257, 1000, 512])
@pytest.mark.parametrize("digits", [2, 3, 4])
def test_a_rate_is_found_although_every_time_is_rounded(tmp_path, ecg, rate, digits):
    times = [f"{i / rate:.{digits}f}" for i in range(5000)]
    record = formats.read(write_csv(tmp_path / "a.csv", times, ecg[1]))
    assert record.sampling_rate == rate


def test_times_may_be_milliseconds_if_they_say_so(tmp_path, ecg):
    times = [f"{i * 2}" for i in range(5000)]
    assert formats.read(write_csv(tmp_path / "a.csv", times, ecg[1], "time_ms")).sampling_rate == 500
    with pytest.raises(ValueError, match=r"column time: expected times in seconds, got steps of 2; .* time_ms"):
        formats.read(write_csv(tmp_path / "b.csv", times, ecg[1]))


def test_a_gap_in_the_times_is_refused_with_its_place(tmp_path, ecg):
    times = np.arange(5000) / 500
    times[1000:] += 5
    with pytest.raises(ValueError, match=r"got a gap of 5 s after 1.998 s"):
        formats.read(write_csv(tmp_path / "a.csv", times.round(3), ecg[1]))


def test_all_samples_of_a_frame_are_read_at_their_rate(tmp_path, ecg):
    counts = np.round(ecg[:2] * 1000)
    pressure = np.full(1250, 80)
    channels = [("16x4", counts[0], "1000(0)/mV", "I"), ("16x4", counts[1], "1000(0)/mV", "II")]
    header = write_channels(tmp_path, "a", [*channels, ("16", pressure, "1(0)/mmHg", "ABP")], rate=125)
    record = formats.read(header)
    assert record.sampling_rate == 500
    assert record.flags == ("not_voltage:ABP",)
    assert_allclose(record.signal_mv, ecg[:2], atol=6e-4)
    part = formats.read(header, start_seconds=2, seconds=4)
    assert_allclose(part.signal_mv, record.signal_mv[:, 1000:3000])
    with pytest.raises(ValueError, match="contradicts the given 125"):
        formats.read(header, sampling_rate=125)


def test_a_lead_of_a_lower_rate_is_left_out_and_named(tmp_path, ecg):
    counts = np.round(ecg[:2] * 1000)
    channels = [("16x4", counts[0], "1000(0)/mV", "I"), ("16", counts[1][::4], "1000(0)/mV", "II")]
    record = formats.read(write_channels(tmp_path, "a", channels, rate=125))
    assert (record.lead_names, record.flags) == (("I",), ("lead_of_other_rate:II",))


def segments(tmp_path, ecg, unit="1000(0)/mV", leads=("I", "II"), rate=500, scale=1000.0):
    first = np.round(ecg[:2, :2000] * 1000)
    second = np.round(ecg[:2, 2000:4000] * scale)
    write_channels(tmp_path, "s", [("16", row, "1000(0)/mV", n) for row, n in zip(first, ("I", "II"), strict=True)])
    rows = [second[("I", "II").index(lead)] for lead in leads]
    write_channels(tmp_path, "t", [("16", row, unit, n) for row, n in zip(rows, leads, strict=True)], rate=rate)
    return tmp_path / "whole.hea"


def test_segments_with_a_gap_and_another_unit_and_order_are_put_together(tmp_path, ecg):
    header = segments(tmp_path, ecg, unit="1/uV", leads=("II", "I"))
    header.write_text("whole/3 2 500 4500\ns 2000\n~ 500\nt 2000\n", encoding="utf-8")
    record = formats.read(header)
    assert record.lead_names == ("I", "II")
    assert_allclose(record.signal_mv[:, :2000], ecg[:2, :2000], atol=6e-4)
    assert np.isnan(record.signal_mv[:, 2000:2500]).all()
    assert_allclose(record.signal_mv[:, 2500:], ecg[:2, 2000:4000], atol=6e-4)
    part = formats.read(header, start_seconds=3.0, seconds=4.0)
    assert np.isnan(part.signal_mv[:, 500:1000]).all()
    assert_allclose(part.signal_mv[:, 1000:], ecg[:2, 2000:3000], atol=6e-4)


def test_a_layout_segment_and_a_segment_without_a_lead_are_read(tmp_path, ecg):
    header = segments(tmp_path, ecg, leads=("II",))
    lines = "".join(f"~ 0 1000(0)/mV 16 0 0 0 0 {lead}\n" for lead in ("I", "II"))
    (tmp_path / "layout.hea").write_text(f"layout 2 500 0\n{lines}", encoding="utf-8")
    header.write_text("whole/3 2 500 4000\nlayout 0\ns 2000\nt 2000\n", encoding="utf-8")
    record = formats.read(header)
    assert np.isnan(record.signal_mv[0, 2000:]).all()
    assert_allclose(record.signal_mv[1], ecg[1, :4000], atol=6e-4)


def test_segments_of_other_rates_or_lengths_are_refused(tmp_path, ecg):
    header = segments(tmp_path, ecg, rate=250)
    header.write_text("whole/2 2 500 4000\ns 2000\nt 2000\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"segment t\.hea: expected a rate of 500, got 250"):
        formats.read(header)
    header.write_text("whole/2 2 500 4000\ns 2000\nt 1000\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected segments of 4000 samples together, got 3000"):
        formats.read(header)
    header.write_text("whole/2 2 500 3000\ns 2000\nu 1000\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"its segment is missing: u\.hea"):
        formats.read(header)


def test_segments_agree_with_wfdb_where_it_reads_them(tmp_path, ecg):
    header = segments(tmp_path, ecg)
    header.write_text("whole/2 2 500 4000\ns 2000\nt 2000\n", encoding="utf-8")
    expected = wfdb.rdrecord(str(header.with_suffix(""))).p_signal.T
    assert_allclose(formats.read(header).signal_mv, expected, rtol=1e-6)


def test_a_record_line_of_zero_samples_is_named(tmp_path, ecg):
    header = write_channels(tmp_path, "a", [("16", np.round(ecg[1] * 1000), "1000(0)/mV", "II")])
    header.write_text(header.read_text(encoding="utf-8").replace("500 5000", "500 0"), encoding="utf-8")
    with pytest.raises(ValueError, match="expected the number of samples in the record line, or none, got 0"):
        formats.read(header)


def test_samples_that_do_not_fit_the_checksum_are_flagged(write_record):
    stem = write_record()
    assert formats.read(stem).flags == ()
    data = stem.with_suffix(".dat")
    content = bytearray(data.read_bytes())
    content[24 * 1000 + 2] ^= 1  # lead II
    data.write_bytes(content)
    assert formats.read(stem).flags == ("checksum_differs:II",)
    assert formats.read(stem, start_seconds=1, seconds=3).flags == ()  # of a part there is none


@pytest.mark.parametrize(
    ("comment", "age"),
    [
        ("Gestational age: 38 weeks", None),
        ("Age: 38 weeks", None),
        ("Maternal age: 31", None),
        ("Age: 56", 56),
        ("age: 56 years", 56),
        ("<age>: 51  <sex>: M", 51),
        ("Patient age: 44", 44),
    ],
)
def test_only_the_age_of_the_patient_in_years_is_an_age(write_record, comment, age):
    assert formats.read(write_record(comments=[comment])).age == age
