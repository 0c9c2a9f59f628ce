"""Occlusion: what is taken away, and from where; and attention rollout against the matrices it stands for."""

import numpy as np
import pytest
import torch
from tiny import TINY, signals

from ecgdan_hf import EcgDanConfig, EcgDanForSequenceClassification
from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.explain.maps.attention import attention_rollup
from ecgdan_hf.explain.maps.methods import _lead_importance, _time_importance, _token_sums, maps_of
from ecgdan_hf.explain.maps.occlusion import occlude_leads, occlude_time, occlude_waves, wave_stretches
from ecgdan_hf.explain.maps.scores import score_of
from ecgdan_hf.model.filters_ecgdan import apply_filter
from ecgdan_hf.model.median_beat_ecgdan import MedianBeat
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks


def shown(given):
    """The sum of what is there, each lead by its own weight."""
    values = given["input_values"] * given["lead_mask"][:, :, None]
    return (values.sum(2) * torch.arange(1.0, 13.0)).sum(1)


def test_occluding_a_lead_takes_its_own_part_away_and_no_more():
    given = {"input_values": signals(2), "lead_mask": torch.ones(2, 12, dtype=torch.bool)}
    given["lead_mask"][0, 3] = False
    given["lead_mask"][1, 1:] = False
    found = occlude_leads(shown, given)
    parts = (given["input_values"].sum(2) * torch.arange(1.0, 13.0)).numpy()
    there = given["lead_mask"].numpy()
    np.testing.assert_allclose(found[0][there[0]], parts[0][there[0]], atol=1e-3)
    assert np.isnan(found[0, 3])
    assert np.isnan(found[1]).all()  # the only lead there is cannot be taken away


def test_occluding_waves_bridges_them_and_leaves_out_records_without():
    values = torch.zeros(2, 12, 64)
    values[:, :, 20:24] = 1.0
    stretch = np.zeros((2, 64), bool)
    stretch[0, 20:24] = True
    given = {"input_values": values, "lead_mask": torch.ones(2, 12, dtype=torch.bool)}
    found = occlude_waves(shown, given, {"QRS": stretch})["QRS"]
    assert found[0] == pytest.approx(4 * 78) and np.isnan(found[1])
    assert values[0, 0, 21] == 1.0  # the inputs are as they were


def test_occluding_time_finds_the_token_under_which_something_happened():
    values = torch.zeros(1, 12, 64)
    values[:, :, 31:33] = 1.0
    found = occlude_time(shown, {"input_values": values, "lead_mask": torch.ones(1, 12, dtype=torch.bool)}, 16, 4)
    assert found.shape == (1, 16)
    assert set(np.flatnonzero(np.abs(found[0]) > 1e-6)) == {8}
    assert found[0, 8] == pytest.approx(2 * 78)


@pytest.fixture(scope="module")
def strip() -> np.ndarray:
    signal = make_signal(strain=0.0, qrs_duration_ms=95.0, heart_rate_bpm=70.0, seed=0)
    signal = signal if len(signal) == 12 else signal.T
    return apply_filter(signal, 500, highpass_hz=0.5, lowpass_hz=None, powerline_hz=50.0)


def test_waves_of_a_strip_lie_in_order_and_the_qrs_over_the_r_peaks(strip: np.ndarray):
    found = wave_stretches(strip, np.ones(12, bool), 500)
    assert list(found) == ["P", "QRS", "T"]
    assert found["QRS"][find_r_peaks(strip, 500)[1:-1]].all()
    share = {wave: stretch.mean() for wave, stretch in found.items()}
    assert 0.05 < share["QRS"] < 0.2 and share["P"] > 0.03 and share["T"] > share["QRS"] / 2
    assert not (found["QRS"] & found["T"]).any() and not (found["P"] & found["QRS"]).any()


def test_waves_of_a_median_beat_lie_around_its_r_peak_at_40_percent_and_padding_moves_them(strip: np.ndarray):
    beat = MedianBeat.of(strip, find_r_peaks(strip, 500), 500, 600).signal_mv
    found = wave_stretches(beat, np.ones(12, bool), 500, "median_beat", heart_rate_bpm=70.0)
    p, qrs, t = (np.flatnonzero(found[wave]) for wave in ("P", "QRS", "T"))
    assert p.max() < qrs.min() < 240 < qrs.max() < t.min()
    padded = wave_stretches(np.pad(beat, ((0, 0), (4, 4))), np.ones(12, bool), 500, "median_beat", 70.0)
    np.testing.assert_array_equal(np.flatnonzero(padded["QRS"]), qrs + 4)
    with pytest.raises(ValueError, match="expected a median beat of 600 samples at 500 Hz to find waves in, got 64"):
        wave_stretches(np.zeros((12, 64)), np.ones(12, bool), 100, "median_beat")


def maps(leads: int, tokens: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(leads), leads), rng.dirichlet(np.ones(tokens), (leads, tokens))


@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_rollup_is_what_the_matrices_over_all_leads_and_tokens_multiply_to(order: str):
    """Rollout as published, on the matrix of every (lead, token) pair, averaged over the outputs."""
    leads, tokens = 3, 4
    across, within = maps(leads, tokens)
    time = np.zeros((leads * tokens, leads * tokens))
    for lead in range(leads):
        block = slice(lead * tokens, (lead + 1) * tokens)
        time[block, block] = within[lead]
    lead = np.kron(across, np.eye(tokens))
    time, lead = (np.eye(leads * tokens) + time) / 2, (np.eye(leads * tokens) + lead) / 2
    whole = (time + lead) / 2 if order == "parallel" else lead @ time
    found = attention_rollup(across, within, np.ones(leads, bool), order)
    np.testing.assert_allclose(found, whole.mean(axis=0).reshape(leads, tokens))
    assert found.sum() == pytest.approx(1)


def test_side_by_side_rollup_ranks_leads_and_moments_exactly_as_attention_does():
    across, within = maps(12, 16)
    mask = np.arange(12) != 5
    across[:, 5] = 0
    across /= across.sum(axis=1, keepdims=True)
    found = attention_rollup(across, within, mask)
    assert not found[5].any() and found.sum() == pytest.approx(1)
    leads, time = _lead_importance(across[None], mask[None])[0], _time_importance(within[None], mask[None])[0]
    np.testing.assert_array_equal(np.argsort(found.sum(1)[mask]), np.argsort(leads[mask]))
    np.testing.assert_array_equal(np.argsort(found.sum(0)), np.argsort(time))
    with pytest.raises(ValueError, match="order: expected parallel or sequential, got 'both'"):
        attention_rollup(across, within, mask, "both")


@pytest.mark.parametrize("method", ["attention", "rollup", "gradient", "integrated-gradients", "occlusion"])
def test_every_method_has_a_map_of_leads_and_of_time(method: str):
    torch.manual_seed(0)
    network = EcgDanForSequenceClassification(EcgDanConfig(**TINY)).eval()
    given = {"input_values": signals(2), "lead_mask": torch.ones(2, 12, dtype=torch.bool)}
    given["lead_mask"][0, 7] = False
    found = maps_of(method, network, given, score_of(network, given), steps=4)
    assert found["leads"].shape == (2, 12) and found["time"].shape == (2, network.config.num_tokens)
    np.testing.assert_array_equal(np.isnan(found["leads"]), ~given["lead_mask"].numpy())
    assert np.ptp(found["time"], axis=1).min() > 0


def test_token_sums_lose_nothing():
    samples = np.random.default_rng(0).normal(size=(2, 64))
    config = EcgDanConfig(**TINY)
    np.testing.assert_allclose(_token_sums(samples, config).sum(-1), samples.sum(-1))
    assert _token_sums(np.ones((1, 64)), config)[0, 1] == config.token_stride


def test_a_method_that_the_network_has_nothing_for_is_refused():
    network = EcgDanForSequenceClassification(EcgDanConfig(**TINY, use_lead_attention=False)).eval()
    given = {"input_values": signals(1), "lead_mask": torch.ones(1, 12, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"method: expected one of attention, gradient, .* got 'rollup'"):
        maps_of("rollup", network, given, score_of(network, given))
