"""Attribution by gradients: exact where the answer is known, complete on every head, and as captum has it."""

import numpy as np
import pytest
import torch
from tiny import TINY, signals

from ecgdan_hf import (
    DanetConfig,
    DanetForPreTraining,
    DanetForSequenceClassification,
    EcgDanConfig,
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanSurvivalConfig,
)
from ecgdan_hf.explain.maps.gradients import gradient_times_input, integrated_gradients
from ecgdan_hf.explain.maps.scores import score_of

LABELS = {"id2label": {0: "A", 1: "B", 2: "C"}}
DANET = {key: value for key, value in TINY.items() if not key.startswith("projection")}


def inputs(records: int = 3, absent: int | None = None) -> dict[str, torch.Tensor]:
    mask = torch.ones(records, 12, dtype=torch.bool)
    if absent is not None:
        mask[:, absent] = False
    return {"input_values": signals(records), "lead_mask": mask}


def networks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    soft = {**DANET, "waveform_module": "soft", "waveform_rule": "apc", "input_kind": "rhythm", **LABELS}
    found = {
        "survival": EcgDanForSurvival(EcgDanSurvivalConfig(**TINY, trunk="light")),
        "labels": EcgDanForSequenceClassification(EcgDanConfig(**TINY, trunk="light", **LABELS)),
        "embedding": EcgDanForPreTraining(EcgDanConfig(**TINY, trunk="light")),
        "danet": DanetForSequenceClassification(DanetConfig(**soft, classifier_network="resnet1d")),
    }
    return {name: network.eval() for name, network in found.items()}


NETWORKS = networks()


def linear(weights: torch.Tensor):
    return lambda given: (given["input_values"] * weights).sum((1, 2)) + 3.0


def test_of_a_linear_score_both_methods_are_weight_times_sample():
    given, weights = inputs(), signals(1, seed=5)[0]
    expected = (weights * given["input_values"]).numpy()
    np.testing.assert_allclose(gradient_times_input(linear(weights), given), expected, atol=1e-6)
    found = integrated_gradients(linear(weights), given)
    np.testing.assert_allclose(found.attribution, expected, atol=1e-5)
    np.testing.assert_allclose(found.change, expected.sum((1, 2)), rtol=1e-4, atol=1e-4)


def test_integrated_gradients_of_a_product_share_it_where_gradient_times_input_counts_it_twice():
    def product(given):
        return given["input_values"][:, 0, 0] * given["input_values"][:, 1, 0]

    given = inputs(1)
    first, second = given["input_values"][0, :2, 0].tolist()
    assert gradient_times_input(product, given).sum() == pytest.approx(2 * first * second, rel=1e-5)
    found = integrated_gradients(product, given).attribution[0]
    assert found[0, 0] == pytest.approx(first * second / 2, rel=1e-5) == found[1, 0]


@pytest.mark.parametrize("name", NETWORKS)
def test_integrated_gradients_sum_to_the_change_of_every_head(name: str):
    given = inputs(absent=4)
    score = score_of(NETWORKS[name], given)
    found = integrated_gradients(score, given, tolerance=0.05)
    flat = {**given, "input_values": torch.zeros_like(given["input_values"])}
    with torch.no_grad():
        change = (score(given) - score(flat)).numpy()
    np.testing.assert_allclose(found.change, change, atol=1e-5)
    assert (found.incompleteness <= 0.05).all()
    assert np.abs(found.attribution).sum() > 0 and not found.attribution[:, 4].any()
    assert not gradient_times_input(score, given)[:, 4].any()


def test_a_map_that_does_not_become_complete_is_refused_and_says_by_how_much():
    def jump(given):
        return torch.sigmoid(1e4 * (given["input_values"].sum((1, 2)) - 1))

    given = {"input_values": torch.full((1, 12, 64), 0.1)}
    with pytest.raises(ValueError, match=r"not complete after 8 steps: record 0's map sums to .* changes by 1\.0000"):
        integrated_gradients(jump, given, max_steps=8)
    found = integrated_gradients(jump, given, tolerance=None, max_steps=8)
    assert found.steps == 8 and found.incompleteness[0] > 0.5


def test_a_baseline_that_is_the_record_itself_leaves_nothing_to_explain():
    given = inputs()
    found = integrated_gradients(score_of(NETWORKS["survival"], given), given, baseline=given["input_values"])
    assert not found.attribution.any() and not found.change.any()


def test_the_score_follows_the_label_asked_for_and_else_the_one_predicted_first():
    network, given = NETWORKS["labels"], inputs()
    logits = network(**given).logits.detach()
    torch.testing.assert_close(score_of(network, given, "B")(given).detach(), logits[:, 1])
    torch.testing.assert_close(score_of(network, given)(given).detach(), logits.max(1).values)
    torch.testing.assert_close(score_of(network, given, torch.tensor([2, 0, 1]))(given)[0].detach(), logits[0, 2])
    with pytest.raises(ValueError, match="label: expected one of A, B, C, got 'D'"):
        score_of(network, given, "D")
    with pytest.raises(ValueError, match="label: EcgDanForSurvival has no labels"):
        score_of(NETWORKS["survival"], given, "A")
    soft = DanetConfig(**{**DANET, "waveform_module": "soft", "waveform_rule": "apc", "input_kind": "rhythm"})
    with pytest.raises(ValueError, match="model: expected a network that predicts something"):
        score_of(DanetForPreTraining(soft), given)


def test_explaining_leaves_gradients_mode_and_inputs_alone():
    network, given = NETWORKS["labels"].train(), inputs()
    before = given["input_values"].clone()
    first, second = (gradient_times_input(score_of(network, given), given) for _ in range(2))
    assert network.training and all(each.grad is None for each in network.parameters())
    assert torch.equal(given["input_values"], before) and not given["input_values"].requires_grad
    np.testing.assert_array_equal(first, second)
    network.eval()


def test_both_methods_are_captum_s():
    captum = pytest.importorskip("captum.attr", reason="captum is only an oracle")
    given = inputs()
    score = score_of(NETWORKS["labels"], given, "B")

    def forward(values):
        rows = len(values) // 3
        return (
            score_of(NETWORKS["labels"], given, "B")(
                {"input_values": values, "lead_mask": given["lead_mask"].repeat(rows, 1)}
            )
            if rows == 1
            else NETWORKS["labels"](values).logits[:, 1]
        )

    theirs = captum.InputXGradient(forward).attribute(given["input_values"].clone().requires_grad_())
    np.testing.assert_allclose(gradient_times_input(score, given), theirs.detach().numpy(), atol=1e-5)
    theirs = captum.IntegratedGradients(forward).attribute(
        given["input_values"].clone(), n_steps=64, method="riemann_middle"
    )
    ours = integrated_gradients(score, given, tolerance=None, max_steps=64).attribution
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-4)
