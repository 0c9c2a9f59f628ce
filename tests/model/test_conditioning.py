"""Filters and resampling of a recording do what scipy does."""

import numpy as np
import pytest
from scipy.signal import resample_poly, sosfiltfilt

from ecgdan_hf.model.conditioning_ecgdan import LeadQuality, resample
from ecgdan_hf.model.filters_ecgdan import _filter_sections, apply_filter, block_length


@pytest.mark.parametrize(
    ("from_rate", "to_rate", "up", "down"),
    [(500, 100, 1, 5), (360, 100, 5, 18), (257, 500, 500, 257), (100, 500, 5, 1), (977, 240, 240, 977)],
)
@pytest.mark.parametrize("samples", [240, 1000, 5001])
def test_resampling_in_blocks_is_polyphase_resampling(from_rate: int, to_rate: int, up: int, down: int, samples: int):
    signal = np.random.default_rng(samples).normal(size=(3, samples)).cumsum(axis=1)
    expected = resample_poly(signal, up, down, axis=1, padtype="line")
    np.testing.assert_allclose(resample(signal, from_rate, to_rate), expected, rtol=0, atol=1e-9)


def test_a_lead_is_clipped_where_a_peak_is_flat_and_nowhere_else():
    seconds = np.arange(5000) / 500
    wave = np.sin(2 * np.pi * seconds)
    cut, floor, touching, short = (wave.copy() for _ in range(4))
    cut[cut > 0.99] = 0.99
    floor[np.abs(floor) < 0.1] = 0.0  # flat, but no peak
    touching[4900:] = touching.max()  # some carts repeat their last sample
    short[120:129] = 1.5
    quality = LeadQuality(np.stack([wave, cut, -cut, floor, touching, short]))
    assert quality.clipped(500).tolist() == [False, True, True, False, False, False]


@pytest.mark.parametrize(
    ("rate", "samples", "corners"),
    [(500, 5000, (0.5,)), (100, 1000, (0.5,)), (360, 3600, (0.5, 40)), (250, 1000, (None, 40)), (500, 480, (0.5,))],
)
def test_the_filter_in_blocks_is_that_of_scipy_within_a_millionth_of_a_millivolt(rate, samples, corners):
    signal_mv = 5 + np.random.default_rng(samples).normal(0, 0.1, (3, samples)).cumsum(axis=1)
    corners = (*corners, None, None)[:3]
    sections = _filter_sections(rate, *corners)
    assert block_length(samples, len(sections)) is not None
    edge = min(samples - 1, 2 * rate)
    expected = sosfiltfilt(sections, signal_mv, axis=1, padtype="even", padlen=edge)
    np.testing.assert_allclose(apply_filter(signal_mv, rate, *corners), expected, rtol=0, atol=1e-7)


def test_a_length_that_no_block_divides_is_filtered_by_scipy():
    assert block_length(5003, 1) is None
    signal_mv = np.random.default_rng(0).normal(0, 1, (2, 5003))
    expected = sosfiltfilt(_filter_sections(500, 0.5, None, None), signal_mv, axis=1, padtype="even", padlen=1000)
    np.testing.assert_array_equal(apply_filter(signal_mv, 500, 0.5), expected)
