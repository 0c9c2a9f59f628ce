"""The networks of the PTB-XL benchmark that the package is compared with: sizes, shapes, gradients."""

import pytest
import torch
from benchmarks.bench_all import _bytes_of
from benchmarks.ptbxl_networks import NETWORKS, BenchmarkNetwork, survival_network
from gradients import CONSTANT_IN_THE_LOG_HAZARD, untaught_parameters

from ecgdan_hf import EcgDanConfig, EcgDanSurvivalConfig

# Counted by hand from the benchmark's layer list (12 leads, 5 labels, a hidden layer of 128 in the head).
PARAMETERS = {"resnet1d_wang": 473_349, "xresnet1d101": 1_872_261}
names = pytest.mark.parametrize("name", list(NETWORKS))


def build(name: str, **config: object) -> BenchmarkNetwork:
    torch.manual_seed(0)
    return NETWORKS[name](EcgDanConfig(input_kind="rhythm", num_labels=5, **config))


@names
def test_the_network_has_as_many_parameters_as_the_benchmark_s(name: str):
    assert sum(parameter.numel() for parameter in build(name).parameters()) == PARAMETERS[name]


@names
def test_signals_of_any_length_give_one_row_of_logits(name: str):
    network = build(name).eval()
    for samples in (500, 999, 1024):
        assert network(torch.randn(2, 12, samples)).logits.shape == (2, 5)


@names
def test_a_masked_lead_is_not_seen(name: str):
    network, signal = build(name).eval(), torch.randn(2, 12, 512)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[:, 3] = False
    other = signal.clone()
    other[:, 3] += 7
    with torch.inference_mode():
        assert torch.equal(network(signal, mask).logits, network(other, mask).logits)
        assert not torch.allclose(network(signal).logits, network(other).logits)


@names
def test_the_loss_teaches_every_parameter(name: str):
    network = build(name, num_auxiliary_labels=7, problem_type="multi_label_classification")
    labels, auxiliary = torch.tensor([[1.0, 0, 0, 1, 0]] * 4), torch.ones(4, 7)
    batch = {"input_values": torch.randn(4, 12, 500), "labels": labels, "auxiliary_targets": auxiliary}
    assert untaught_parameters(network, batch) == set()


def test_auxiliary_labels_add_their_weighted_loss_and_unknown_ones_do_not_count():
    network = build("resnet1d_wang", num_auxiliary_labels=2, auxiliary_weight=2.5).eval()
    signal, labels = torch.randn(2, 12, 500), torch.tensor([[1.0, 0, 1, 0, 1]] * 2)
    alone = network(signal, labels=labels)
    auxiliary = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    added = torch.nn.functional.binary_cross_entropy_with_logits(alone.auxiliary_logits[:, 0], auxiliary[:, 0])
    both = network(signal, labels=labels, auxiliary_targets=auxiliary).loss
    assert torch.allclose(both, alone.loss + 2.5 * added)


@names
def test_under_our_survival_head_the_loss_teaches_every_parameter(name: str):
    torch.manual_seed(0)
    config = EcgDanSurvivalConfig(input_kind="rhythm", reconstruction_weight=0.0)
    model = survival_network(name)(config)
    event, time = torch.tensor([1.0, 0, 1, 1]), torch.tensor([1.0, 2, 3, 4])
    # a norm follows the projection
    batch = {"input_values": torch.randn(4, 12, 500), "event": event, "time": time}
    assert untaught_parameters(model, batch) == CONSTANT_IN_THE_LOG_HAZARD | {
        "ecgdan.projection.bias"
    }  # a norm follows


def test_the_memory_that_a_layer_moves_is_its_weights_its_input_and_its_output():
    network = torch.nn.Sequential(torch.nn.Conv1d(12, 4, 3, padding=1, bias=False), torch.nn.ReLU())
    assert _bytes_of(network, torch.zeros(2, 12, 100)) == 4 * (4 * 12 * 3 + 2 * 12 * 100 + 2 * 4 * 100)
