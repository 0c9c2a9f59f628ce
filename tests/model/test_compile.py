"""Every head as one graph: torch.compile(fullgraph=True), torch.export with a dynamic batch.

Tracing takes as long as a network is deep: one block stands for a trunk of them, and the attentions are traced with
the classification head (the paper's) and DANet (the light trunk's).
"""

import warnings

import pytest
import torch
from heads import TRAINED, build, inputs, learnable

PLAIN = {"use_time_attention": False, "use_lead_attention": False}
OPTIONS = {
    "survival": PLAIN,
    "pretraining": PLAIN,
    "ecg-text": {**PLAIN, "trunk": "light"},
    "danet": {"waveform_channels": [4, 6]},
    "danet-pretraining": {"waveform_channels": [4, 6]},
}


def shallow(name: str, **options) -> torch.nn.Module:
    return build(name, trunk_channels=[8], **{**OPTIONS.get(name, {}), **options})


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


@pytest.mark.parametrize("name", TRAINED)
def test_the_forward_pass_is_one_graph_for_any_batch(name: str):
    model, graphs = shallow(name), []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for records in (4, 3):
        batch = inputs(name, records)
        expected = answer(model, batch)
        for value in batch.values():
            torch._dynamo.mark_dynamic(value, 0)  # refused where the graph holds for this number of records alone
        found = answer(compiled, batch)
        assert found.keys() == expected.keys()
        for key, value in found.items():
            torch.testing.assert_close(value, expected[key], atol=1e-5, rtol=1e-5, msg=f"{key} of {records}")
    assert len(graphs) == 1  # nothing was compiled anew for another batch


@pytest.mark.parametrize("name", ["encoder", "ecg-text", "pretraining", "danet-pretraining"])
def test_torch_exports_a_head_with_a_dynamic_batch(name: str):  # the others: test_export.py, through ONNX
    model, batch = shallow(name), inputs(name, 4)
    dims = {key: {0: torch.export.Dim("records")} for key in batch}
    if name == "ecg-text":  # as many texts as ECGs, or not
        dims |= {key: {0: torch.export.Dim("texts")} for key in ("input_ids", "attention_mask")}
    without_loss = {} if name == "encoder" else {"return_loss": False}
    batch, dims = {**batch, **without_loss}, {**dims, **dict.fromkeys(without_loss)}
    program = torch.export.export(model, (), kwargs=batch, dynamic_shapes=dims)
    again = inputs(name, 6)
    if name == "ecg-text":
        again |= {key: again[key][:5] for key in ("input_ids", "attention_mask")}
    found = tensors(program.module()(**again, **without_loss))
    for key, value in answer(model, again).items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.parametrize(
    ("name", "options"), [("classification", PLAIN), ("danet", {})], ids=["classification", "danet"]
)
def test_a_training_step_is_one_graph_too(name: str, options: dict):
    """In float64: in float32 either gradient is 1e-5 of its size away from it, and no nearer to the other."""
    plain, other = (shallow(name, **options).double().train() for _ in range(2))
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    batch = {key: value.double() if value.is_floating_point() else value for key, value in learnable(name).items()}
    for model in (plain, compiled):
        model(**batch).loss.backward()
    expected = {key: value.grad for key, value in plain.named_parameters()}
    for key, value in other.named_parameters():
        torch.testing.assert_close(value.grad, expected[key], atol=1e-12, rtol=1e-9, msg=key)
