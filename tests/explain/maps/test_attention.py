import numpy as np
import pytest
import torch

from ecgdan_hf.explain.maps.attention import ReceptiveField, sample_attention
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanModel

CONFIGS = [
    EcgDanConfig(),
    EcgDanConfig(input_kind="rhythm"),
    EcgDanConfig(trunk_channels=(8, 8), num_samples=96),
    EcgDanConfig(trunk="light", input_kind="rhythm"),
]


def gradient_of_token(config: EcgDanConfig, token: int) -> np.ndarray:
    """(num_samples,) how much each sample of lead II moves a token's sum of channels, before attention."""
    torch.manual_seed(0)
    model = EcgDanModel(config).eval()
    if config.trunk == "paper":
        # Normalisation over the whole record reaches everywhere a little; the field is that of the convolutions.
        model.stem.norm1, model.stem.norm2 = torch.nn.Identity(), torch.nn.Identity()
    values = torch.randn(1, 12, config.num_samples, requires_grad=True)
    hidden = model(values, output_hidden_states=True).hidden_states[len(config.trunk_channels) - 1]
    hidden[0, 1, token].sum().backward()
    return values.grad[0, 1].numpy()


@pytest.mark.parametrize("config", CONFIGS)
def test_receptive_field_is_what_the_network_s_gradient_reaches(config):
    field = ReceptiveField.of(config)
    for token in (0, config.num_tokens // 2, config.num_tokens - 1):
        reached = np.flatnonzero(gradient_of_token(config, token))
        centre, reach = token * field.stride, field.width // 2
        assert reached[0] == max(centre - reach, 0)
        assert reached[-1] == min(centre + reach, config.num_samples - 1)


def test_receptive_field_is_381_samples_in_the_paper_s_trunk_and_203_in_the_light_one():
    field = ReceptiveField.of(EcgDanConfig())
    assert (field.width, field.stride, field.milliseconds) == (381, 32, 762.0)
    assert ReceptiveField.of(EcgDanConfig(input_kind="rhythm")).milliseconds == 3810.0
    light = ReceptiveField.of(EcgDanConfig(trunk="light", input_kind="rhythm"))
    assert (light.width, light.stride, light.milliseconds) == (203, 16, 2030.0)


def test_paths_are_symmetric_sum_to_1_and_half_of_them_lie_in_the_stated_middle():
    field = ReceptiveField.of(EcgDanConfig())
    np.testing.assert_allclose(field.paths, field.paths[::-1])
    assert field.paths.sum() == pytest.approx(1)
    middle = round(field.half_milliseconds / 2) // 2  # samples to each side at 500 Hz
    centre = field.width // 2
    assert field.paths[centre - middle : centre + middle + 1].sum() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("config", CONFIGS)
def test_even_attention_is_1_everywhere(config):
    even = np.full((12, config.num_tokens), 1 / config.num_tokens)
    weights = sample_attention(even, config)
    assert weights.shape == (12, config.num_samples - 2 * config.pad_samples)
    np.testing.assert_allclose(weights, 1)


def test_attention_to_one_token_is_largest_at_its_centre_and_0_outside_its_receptive_field():
    config = EcgDanConfig()
    weights = sample_attention(np.eye(config.num_tokens)[9], config)
    centre = 9 * 32 - config.pad_samples
    assert abs(int(weights.argmax()) - centre) <= 4  # the comb of kernels makes the top a little ragged
    assert not weights[: centre - 190].any() and not weights[centre + 191 :].any()
    assert (weights[centre - 190 : centre + 191] > 0).all()


def test_no_sample_differs_more_from_even_than_the_tokens_do():
    config = EcgDanConfig()
    tokens = np.random.default_rng(0).dirichlet(np.ones(config.num_tokens), size=12)
    weights, multiples = sample_attention(tokens, config), tokens * config.num_tokens
    assert (weights.max(axis=1) <= multiples.max(axis=1)).all() and (
        weights.min(axis=1) >= multiples.min(axis=1)
    ).all()
