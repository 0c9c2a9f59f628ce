"""Filters and resampling of a recording do what scipy does."""

import numpy as np
import pytest
from scipy.signal import resample_poly

from ecgdan_hf.model.conditioning_ecgdan import LeadQuality, resample


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
