"""Absolute risk after training: shrunken to what other patients bear out, in the same order."""

import numpy as np
import pytest
import torch

from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.model.configuration_ecgdan import EcgDanSurvivalConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.training.core.tasks import _SLOPE_LIMITS, _log_hazard_slope, _scale_log_hazard

RNG = np.random.default_rng(0)
HAZARD = RNG.standard_normal(4000)
TIME = RNG.exponential(np.exp(-HAZARD)) + 1e-4
EVENT = np.ones(4000)


@pytest.mark.parametrize("spread", [1.0, 2.0, 5.0])
def test_the_slope_undoes_a_log_hazard_that_is_spread_too_wide(spread: float):
    assert _log_hazard_slope(EVENT, TIME, spread * HAZARD) == pytest.approx(1 / spread, rel=0.06)


def test_the_slope_never_turns_the_order_of_risks_round():
    assert _log_hazard_slope(EVENT, TIME, -HAZARD) == _SLOPE_LIMITS[0]
    assert _log_hazard_slope(EVENT, TIME, 0.01 * HAZARD) == _SLOPE_LIMITS[1]


def test_shrinking_scales_every_log_hazard_and_keeps_their_order():
    torch.manual_seed(0)
    config = EcgDanSurvivalConfig(num_samples=64, pad_samples=2, trunk_channels=[8, 8], covariate_names=["age"])
    model = EcgDanForSurvival(config).eval()
    inputs = {"input_values": torch.randn(50, 12, 64), "covariates": torch.randn(50, 1), "return_loss": False}
    with torch.no_grad():
        before = model(**inputs).log_hazard
        _scale_log_hazard(model, 0.4)
        after = model(**inputs).log_hazard
    torch.testing.assert_close(after, 0.4 * before)
    assert concordance_index(EVENT[:50], TIME[:50], after) == concordance_index(EVENT[:50], TIME[:50], before)
