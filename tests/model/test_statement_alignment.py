"""Many texts a record, and what counts beats: the loss, the measurements, the crop of the trunk."""

import pytest
import torch
from gradients import untaught_parameters
from torch import Tensor

from ecgdan_hf import EcgDanConfig, EcgDanForPreTraining, EcgDanModel
from ecgdan_hf.model.heads_ecgdan import statement_loss

NAN = float("nan")
LIGHT = {
    "trunk": "light",
    "input_kind": "rhythm",
    "normalization": "global",
    "trunk_channels": (4, 4, 8),
    "stem_features": 4,
    "num_attention_heads": 2,
    "hidden_size": 16,
    "count_beats": True,
    "reconstruction_weight": 0.0,
    "drop_path_rate": 0.0,
}
STATEMENTS = {
    "alignment_objective": "statements",
    "text_embed_dim": 6,
    "measurement_names": ["pr_ms", "qrs_ms"],
    "measurement_means": [160.0, 90.0],
    "measurement_stds": [30.0, 20.0],
}


def encoder(**options: object) -> EcgDanModel:
    torch.manual_seed(0)
    return EcgDanModel(EcgDanConfig(**{**LIGHT, **options})).eval()


def beats(rr_samples: int, records: int = 1, samples: int = 1008) -> Tensor:
    """Spikes at a fixed distance in all leads."""
    signal = torch.zeros(records, 12, samples)
    signal[..., rr_samples // 2 :: rr_samples] = 3.0
    return signal


def test_the_loss_is_the_mean_cross_entropy_of_the_known_pairs():
    ecg, text = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    targets = torch.tensor([[1.0, 0.0, NAN], [NAN, 1.0, 0.0]])
    # logits are 2 * cosine - 1: [[1, -1, -3], [-1, 1, -1]]
    known = torch.ones(4)  # the logit of each known pair, times -1 where the text is not true
    expected = torch.nn.functional.softplus(-known).mean()
    assert torch.allclose(statement_loss(ecg, text, targets, 2.0, -1.0), expected)


def test_weights_multiply_what_is_true_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    ecg, text = torch.randn(5, 4, generator=generator), torch.randn(3, 4, generator=generator)
    targets = torch.zeros(5, 3)
    plain = statement_loss(ecg, text, targets, 5.0, 0.0)
    assert torch.equal(plain, statement_loss(ecg, text, targets, 5.0, 0.0, torch.tensor([9.0, 9.0, 9.0])))
    targets[0, 1] = 1.0
    light, heavy = (
        statement_loss(ecg, text, targets, 5.0, 0.0, torch.tensor([1.0, weight, 1.0])) for weight in (1.0, 3.0)
    )
    assert heavy > light


def test_nothing_known_is_a_loss_of_zero_that_can_be_differentiated():
    ecg = torch.randn(2, 4, requires_grad=True)
    loss = statement_loss(ecg, torch.randn(3, 4), torch.full((2, 3), NAN), 5.0, 0.0)
    loss.backward()
    assert loss.item() == 0 and torch.equal(ecg.grad, torch.zeros(2, 4))


def test_the_sigmoid_of_a_prompt_logit_is_the_probability_that_the_loss_trains():
    torch.manual_seed(0)
    model = EcgDanForPreTraining(EcgDanConfig(**LIGHT, **STATEMENTS)).eval()
    model.set_prompts(["AFIB", "NORM"], texts := torch.randn(2, 6))
    signal, targets = beats(80, records=3), torch.tensor([[1.0, 0.0]] * 3)
    output = model(signal, text_embeds=texts, text_targets=targets)
    probability = output.prompt_logits.sigmoid()
    expected = torch.nn.functional.binary_cross_entropy(probability, targets)
    assert torch.allclose(output.alignment_loss, expected, atol=1e-6)


def test_the_loss_teaches_every_parameter_it_depends_on():
    torch.manual_seed(0)
    model = EcgDanForPreTraining(EcgDanConfig(**LIGHT, **STATEMENTS)).train()
    generator = torch.Generator().manual_seed(1)
    batch = {
        "input_values": torch.randn(8, 12, 1008, generator=generator),
        "lead_mask": torch.ones(8, 12, dtype=torch.bool),
        "text_embeds": torch.randn(5, 6, generator=generator),
        "text_targets": (torch.rand(8, 5, generator=generator) < 0.4).float(),
        "measurement_targets": torch.tensor([160.0, 90.0]) + 20 * torch.randn(8, 2, generator=generator),
    }
    batch["lead_mask"][:4, 3] = False  # otherwise a constant of all records is lost before a batch norm
    assert untaught_parameters(model, batch, steps=2) == set()


def test_measurements_are_in_their_units_and_unknown_ones_are_ignored():
    torch.manual_seed(0)
    model = EcgDanForPreTraining(EcgDanConfig(**LIGHT, **STATEMENTS)).eval()
    torch.nn.init.zeros_(model.measurement_head.weight)
    torch.nn.init.zeros_(model.measurement_head.bias)
    targets = torch.tensor([[190.0, NAN], [NAN, NAN]])
    output = model(beats(80, records=2), measurement_targets=targets)
    assert torch.allclose(output.measurements, torch.tensor([[160.0, 90.0]] * 2))
    assert output.measurement_loss.item() == pytest.approx(0.5)  # one SD: Huber's 1/2, and one value is known


@pytest.mark.parametrize("steps", [25, 40, 60])
def test_the_autocorrelation_of_an_activity_is_one_at_the_rr_interval_and_low_between(steps: int):
    activity = torch.zeros(1, 1, 504)
    activity[..., 3::steps] = 1.0
    _, rhythm = encoder().beats._rhythm(activity)
    at_lag = [0.0, *rhythm[0, 0].tolist()]
    assert at_lag[steps] == pytest.approx(1.0, abs=0.1)
    assert max(at_lag[1:steps]) < 0.1


def test_the_average_beat_shows_each_lead_around_the_trigger():
    module, spike = encoder().beats, 80
    signal = torch.zeros(1, 12, 1008)
    activity = torch.zeros(1, 504)
    for start in range(100, 900, spike):
        activity[0, start // 2] = 1.0
        signal[0, 3, start - 16] = 1.0  # 160 ms before
        signal[0, 5, start + 30] = -1.0
    beat = module._average_beat(activity, signal)[0]
    assert abs(beat[3].argmax().item() - (module.before - 16)) <= 1
    assert abs(beat[5].argmin().item() - (module.before + 30)) <= 1
    assert torch.allclose(beat[0], torch.zeros_like(beat[0]))


def test_a_masked_lead_does_not_reach_the_embedding():
    model, signal = encoder(), torch.randn(2, 12, 1008)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[:, 4] = False
    other = signal.clone()
    other[:, 4] = 100.0
    with torch.no_grad():
        assert torch.equal(model(signal, mask).pooler_output, model(other, mask).pooler_output)


def test_beats_leave_tokens_and_maps_as_they_are():
    plain, counting = encoder(count_beats=False), encoder()
    plain.load_state_dict(counting.state_dict(), strict=False)
    signal = torch.randn(2, 12, 1008)
    with torch.no_grad():
        first, second = (model(signal, output_attentions=True) for model in (plain, counting))
    for name in ("last_hidden_state", "lead_attention", "time_attention"):
        assert torch.equal(first[name], second[name])
    assert not torch.allclose(first.pooler_output, second.pooler_output)


def test_the_trunk_reads_a_piece_in_training_and_the_whole_record_afterwards():
    model = encoder(trunk_crop=512)
    signal = torch.randn(2, 12, 1008)
    assert model.train()(signal).last_hidden_state.shape[2] == 512 // 16
    assert model.eval()(signal).last_hidden_state.shape[2] == 1008 // 16


def test_a_network_with_a_decoder_reads_the_whole_record():
    model = EcgDanForPreTraining(EcgDanConfig(**{**LIGHT, "trunk_crop": 512, "reconstruction_weight": 1.0})).train()
    assert model(beats(80, records=2)).reconstruction.shape == (2, 12, 1008)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trunk": "paper"}, "count_beats: needs trunk light and input_kind rhythm, got paper and rhythm"),
        ({"trunk_crop": 500}, "trunk_crop: expected 0, or a multiple of 16"),
        ({"measurement_names": ["pr_ms"], "measurement_stds": [0.0]}, "measurement_stds: expected positive values"),
        ({"measurement_names": ["pr_ms"], "measurement_means": [1.0, 2.0]}, "expected 1 values, one for each of"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        EcgDanConfig(**{"trunk": "light", "input_kind": "rhythm", "count_beats": True} | options)
