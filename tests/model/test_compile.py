"""Every head as one graph: torch.compile(fullgraph=True), torch.export with a dynamic batch."""

import warnings

import pytest
import torch
from heads import BUILDERS, build, inputs, learnable

CASES = [*((name, {}) for name in BUILDERS), ("classification", {"trunk": "light"})]
IDS = [f"{name}-{options.get('trunk', 'paper')}" for name, options in CASES]


def tensors(output) -> dict[str, torch.Tensor]:
    return {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}


def answer(model, batch) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return tensors(model(**batch, return_loss=False))


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_the_forward_pass_is_one_graph_for_any_batch(name: str, options: dict):
    model, graphs = build(name, **options), []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for records in (4, 3):
        batch = inputs(name, records)
        expected, found = answer(model, batch), answer(compiled, batch)
        assert found.keys() == expected.keys()
        for key, value in found.items():
            torch.testing.assert_close(value, expected[key], atol=1e-5, rtol=1e-5, msg=f"{key} of {records}")
    assert len(graphs) == 1  # nothing was compiled anew for another batch


@pytest.mark.parametrize("name", ["survival", "ecg-text", "pretraining", "danet-hard", "danet-pretraining"])
def test_torch_exports_a_head_with_a_dynamic_batch(name: str):  # the others: test_export.py, through ONNX
    model, batch = build(name), inputs(name, 4)
    dims = {key: {0: torch.export.Dim("records")} for key in batch}
    if name == "ecg-text":  # as many texts as ECGs, or not
        dims |= {key: {0: torch.export.Dim("texts")} for key in ("input_ids", "attention_mask")}
    batch, dims = {**batch, "return_loss": False}, {**dims, "return_loss": None}
    program = torch.export.export(model, (), kwargs=batch, dynamic_shapes=dims)
    again = inputs(name, 6)
    found = tensors(program.module()(**again, return_loss=False))
    for key, value in answer(model, again).items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.parametrize("name", ["classification", "danet-hard"])
def test_a_training_step_is_one_graph_too(name: str):
    plain, other = build(name).train(), build(name).train()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    batch = learnable(name)
    for model in (plain, compiled):
        model(**batch).loss.backward()
    expected = {key: value.grad for key, value in plain.named_parameters()}
    for key, value in other.named_parameters():
        atol = 1e-4 * float(expected[key].abs().max()) + 1e-7
        torch.testing.assert_close(value.grad, expected[key], atol=atol, rtol=0, msg=key)
