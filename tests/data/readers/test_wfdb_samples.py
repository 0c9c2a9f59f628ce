"""Records that are decoded without wfdb have the samples, names and flags that wfdb gives."""

import numpy as np
import pytest
import wfdb

from ecgdan_hf.data import formats
from ecgdan_hf.data.readers import wfdb_records

CASES = {
    "format 16": {},
    "FLAC": {"fmt": "516"},
    "gains that float32 lacks": {"adc_gain": [1000.1, 200.3, 204.7]},
    "baselines": {"baseline": [-12, 0, 2047]},
    "microvolt": {"units": ["uV"] * 3, "adc_gain": [1.0] * 3},
}


@pytest.fixture
def forgotten_library(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("wfdb was asked")

    monkeypatch.setattr(wfdb, "rdrecord", refuse)


def _given(options, ecg):
    signal = ecg[:3].copy()
    return {"signal_mv": signal * (1000 if "units" in options else 1), **options}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("part", [{}, {"start_seconds": 2, "seconds": 3}], ids=["whole", "part"])
def test_samples_are_those_of_the_library(write_record, ecg, monkeypatch, options, part):
    stem = write_record(**_given(options, ecg))
    assert wfdb_records.common_samples(stem.parent, _lead_lines(stem), ecg.shape[1], 0, 1) is not None
    quick = formats.read(stem, **part)
    monkeypatch.setattr(wfdb_records, "common_samples", lambda *_: None)
    slow = formats.read(stem, **part)
    np.testing.assert_array_equal(quick.signal_mv, slow.signal_mv)
    assert (quick.lead_names, quick.flags, quick.sampling_rate) == (slow.lead_names, slow.flags, slow.sampling_rate)


def _lead_lines(stem):
    text = stem.with_name(stem.name + ".hea").read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines()[1:] if not line.startswith("#")]


def test_a_code_of_no_sample_is_nan_and_a_wrong_checksum_flagged(write_record, ecg, forgotten_library):
    stem = write_record(signal_mv=ecg[:2])
    data = stem.with_suffix(".dat")
    counts = np.fromfile(data, "<i2").reshape(-1, 2)
    counts[100:150, 1] = -32768
    counts.tofile(data)
    record = formats.read(stem)
    assert np.isnan(record.signal_mv[1]).nonzero()[0].tolist() == list(range(100, 150))
    assert record.flags == ("checksum_differs:II",)


def test_samples_behind_other_bytes_are_read_without_the_library(write_record, ecg, forgotten_library):
    stem = write_record(signal_mv=ecg[:2])
    expected = formats.read(stem).signal_mv
    header, data = stem.with_suffix(".hea"), stem.with_suffix(".dat")
    data.write_bytes(bytes(24) + data.read_bytes())
    header.write_text(header.read_text(encoding="utf-8").replace("dat 16 ", "dat 16+24 "), encoding="utf-8")
    np.testing.assert_array_equal(formats.read(stem).signal_mv, expected)


@pytest.mark.parametrize(
    "change", [("500 5000", "500/360 5000"), ("dat 16 ", "dat 16x1 "), ("(0)/mV", "(0)"), (" II", "")]
)
def test_an_unusual_header_is_left_to_the_library(write_record, ecg, forgotten_library, change):
    stem = write_record(signal_mv=ecg[:2])
    header = stem.with_suffix(".hea")
    text = header.read_text(encoding="utf-8")
    assert change[0] in text
    header.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(ValueError, match="wfdb was asked"):
        formats.read(stem)
