"""The networks of the PTB-XL benchmark that the package is compared with: sizes, shapes, gradients."""

import pytest
import torch
from benchmarks.ptbxl_networks import NETWORKS, BenchmarkNetwork

from ecgdan_hf import EcgDanConfig

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
def test_the_loss_moves_every_parameter(name: str):
    network = build(name)
    network(torch.randn(4, 12, 500), labels=torch.tensor([[1.0, 0, 0, 1, 0]] * 4)).loss.backward()
    still = [label for label, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


def test_unknown_labels_do_not_count():
    network, signal = build("resnet1d_wang").eval(), torch.randn(2, 12, 500)
    labels = torch.tensor([[1.0, 0, 1, 0, 1], [float("nan")] * 5])
    alone = network(signal[:1], labels=labels[:1]).loss
    assert torch.allclose(network(signal, labels=labels).loss, alone)
