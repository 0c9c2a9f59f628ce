"""Corrupted recordings are called doubtful, and recordings as they are not."""

import numpy as np
import pytest
from bench_doubts import CORRUPTIONS, is_doubted

from ecgdan_hf.data.check.signals import check_signal
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.doubts_ecgdan import LEADS, beat_at_100_hz, doubts
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor

RHYTHM = EcgDanFeatureExtractor(num_samples=1008, sampling_rate=100, input_kind="rhythm")
MEDIAN_BEAT = EcgDanFeatureExtractor()


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    """(12, 5000) millivolt, 500 Hz."""
    return synthetic.make_signal(strain=0.0, qrs_duration_ms=98.0, heart_rate_bpm=70.0, seed=1)


def flags_of(extractor, signal_mv, rate=500.0, leads=STANDARD_LEADS):
    found = extractor(signal_mv, rate, "mV", list(leads), return_flags=True)["flags"][0]
    return [flag for flag in found if flag.startswith("doubtful")]


@pytest.mark.parametrize("extractor", [RHYTHM, MEDIAN_BEAT], ids=["rhythm", "median beat"])
@pytest.mark.parametrize("name", ["inverted", "time_reversed", "rate_doubled", "rate_halved", "gain_tripled"])
def test_a_corrupted_recording_is_called_doubtful_with_the_reason(ecg, extractor, name):
    assert f"doubtful:{name}" in flags_of(extractor, *CORRUPTIONS[name](ecg, 500.0))


@pytest.mark.parametrize("extractor", [RHYTHM, MEDIAN_BEAT], ids=["rhythm", "median beat"])
def test_a_recording_as_it_is_is_not_doubtful_nor_in_another_unit_rate_or_order(ecg, extractor):
    assert flags_of(extractor, ecg) == []
    assert flags_of(extractor, ecg[:, ::2], 250.0) == []
    assert flags_of(extractor, ecg[::-1], leads=STANDARD_LEADS[::-1]) == []


@pytest.mark.parametrize("empty", [slice(2500, None), slice(None, 2500), slice(1000, 1600)])
def test_a_part_in_which_nothing_changes_is_named_with_its_share(ecg, empty):
    signal = ecg.copy()
    signal[:, empty] = 0
    share = len(range(*empty.indices(5000))) / 5000
    assert f"doubtful:empty_{share:.2f}" in flags_of(RHYTHM, signal)


def test_without_all_leads_nothing_is_doubted(ecg):
    assert flags_of(RHYTHM, -ecg[:6], leads=STANDARD_LEADS[:6]) == []
    assert doubts(ecg[:6, :600], list(STANDARD_LEADS[:6]), 500, 70) == []


def test_a_beat_at_any_rate_is_the_same_beat_at_100_hz_and_none_if_it_is_too_short():
    def wave(rate, seconds=1.2):
        time = np.arange(round(seconds * rate)) / rate - 0.4 * seconds
        return np.exp(-((time / 0.05) ** 2))[None] * np.ones((len(LEADS), 1))

    slow = beat_at_100_hz(wave(100), 48, 100)
    np.testing.assert_allclose(beat_at_100_hz(wave(500), 240, 500), slow, atol=0.08)  # 2 ms apart
    np.testing.assert_allclose(beat_at_100_hz(wave(250), 120, 250), slow, atol=0.08)  # 2 ms apart
    assert beat_at_100_hz(wave(100, 0.6), 24, 100) is None
    gappy = wave(100)
    gappy[0, 3] = np.nan
    assert beat_at_100_hz(gappy, 48, 100) is None


def test_the_check_of_a_folder_says_so_too(ecg):
    assert "doubtful" not in check_signal(EcgRecord(ecg, 500, STANDARD_LEADS)).problems
    assert "inverted" in check_signal(EcgRecord(-ecg, 500, STANDARD_LEADS)).problems["doubtful"]


def test_real_recordings_are_doubted_if_corrupted_alone(shared):
    table = read_source("ptb-xl", shared / "data/ptb-xl")
    records = [file.read() for file in RecordFile.of_table(table[table["fold"] == 8].iloc[:40])]
    for name, corrupt in CORRUPTIONS.items():
        found = []
        for record in records:
            signal, rate = corrupt(record.signal_mv, record.sampling_rate)
            found.append(
                is_doubted(RHYTHM(signal, rate, "mV", list(record.lead_names), return_flags=True)["flags"][0])
            )
        assert np.mean(found) <= 0.025 if name == "as recorded" else np.mean(found) >= 0.9, name
