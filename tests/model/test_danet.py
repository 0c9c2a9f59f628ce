"""DANet: what the waveform module does to the signal, what it learns, freezes, saves, and hands on."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from gradients import CONSTANT_BEFORE_A_NORM, untaught_parameters
from safetensors.torch import load_file, save_file
from tiny import signals
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
)
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

from ecgdan_hf import (
    WAVEFORM_RULES,
    DanetConfig,
    DanetForPreTraining,
    DanetForSequenceClassification,
    EcgDanConfig,
    EcgDanFeatureExtractor,
    EcgDanModel,
)
from ecgdan_hf.model import modeling_danet

SAMPLES = 80  # five tokens
TINY = {
    "num_samples": SAMPLES,
    "pad_samples": 2,
    "trunk_channels": [8, 8, 8],
    "num_attention_heads": 2,
    "hidden_size": 16,
    "classifier_hidden_size": 8,
    "waveform_channels": [4, 6, 8, 8, 8, 8],  # stride 32, which does not divide 80
    "waveform_kernel": 3,
}
MODULES = ("hard", "soft", "none")
NETWORKS = ("ecgdan", "resnet1d")


def classifier(module: str = "soft", network: str = "ecgdan", **options) -> DanetForSequenceClassification:
    torch.manual_seed(0)
    options = {"num_labels": 2} | TINY | options
    return DanetForSequenceClassification(
        DanetConfig(waveform_module=module, classifier_network=network, **options)
    ).eval()


def pretraining(**options) -> DanetForPreTraining:
    torch.manual_seed(1)
    return DanetForPreTraining(DanetConfig(**TINY | options)).eval()


def inputs(records: int = 4, labels: bool = True, leads: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    batch = {
        "input_values": signals(records, samples=SAMPLES)[:, :leads],
        "lead_mask": torch.ones(records, leads, dtype=torch.bool),
        "waveform_weights": torch.rand(records, SAMPLES, generator=generator),
    }
    return batch | ({"labels": torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(records // 2, 1)} if labels else {})


def seen_by(model: DanetForSequenceClassification, batch: dict) -> tuple[torch.Tensor, object]:
    """The signal that reaches the classifier network, and the output."""
    network = model.ecgdan if model.config.classifier_network == "ecgdan" else model.resnet
    caught = []
    handle = network.register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0]))
    output = model(**batch)
    handle.remove()
    return caught[0], output


# What the classifier sees


@pytest.mark.parametrize("network", NETWORKS)
def test_the_hard_module_multiplies_the_signal_by_the_given_weights(network):
    batch = inputs()
    seen, output = seen_by(classifier("hard", network), batch)
    assert torch.equal(seen, batch["waveform_weights"][:, None] * batch["input_values"])
    assert torch.equal(output.waveform_attention, batch["waveform_weights"])


@pytest.mark.parametrize("network", NETWORKS)
def test_the_soft_module_adds_to_the_signal_its_own_share_of_it_one_weight_for_all_leads(network):
    model, batch = classifier("soft", network), inputs()
    seen, output = seen_by(model, batch)
    attention = output.waveform_attention
    assert attention.shape == (4, SAMPLES) and attention.dtype == torch.float32
    assert 0 < attention.min() < attention.max() < 1
    assert torch.equal(seen, (1 + attention)[:, None] * batch["input_values"])
    assert torch.equal(attention, model.waveform_module(batch["input_values"])[0].sigmoid())
    del batch["waveform_weights"]  # not looked at
    assert torch.equal(model(**batch).logits, output.logits)


@pytest.mark.parametrize("network", NETWORKS)
def test_without_a_module_the_classifier_sees_the_ecg(network):
    batch = inputs()
    seen, output = seen_by(classifier("none", network), batch)
    assert torch.equal(seen, batch["input_values"]) and output.waveform_attention is None


def test_hard_weights_of_one_are_no_module_at_all():
    hard, none = classifier("hard"), classifier("none")
    none.load_state_dict(hard.state_dict())
    batch = inputs()
    batch["waveform_weights"] = torch.ones_like(batch["waveform_weights"])
    assert torch.equal(hard(**batch).logits, none(**batch).logits)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_what_stands_in_a_masked_lead_changes_nothing(module, network):
    model, batch = classifier(module, network), inputs()
    batch["lead_mask"][:, [2, 9]] = False
    garbage = batch | {"input_values": batch["input_values"].clone()}
    garbage["input_values"][:, [2, 9]] = float("nan")
    first, second = model(**batch), model(**garbage)
    assert torch.equal(first.logits, second.logits) and first.logits.isfinite().all()
    if module == "soft":
        assert torch.equal(first.waveform_attention, second.waveform_attention)
        batch["lead_mask"][:] = True
        assert not torch.equal(first.waveform_attention, model(**batch).waveform_attention)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_one_lead_is_enough(module, network):
    batch = inputs(leads=1)
    assert classifier(module, network, lead_names=["II"])(**batch).loss.isfinite()


def test_missing_or_misshapen_weights_are_refused_in_one_line():
    model, batch = classifier("hard"), inputs()
    for weights, got in ((None, "None"), (torch.ones(4, 79), r"\(4, 79\)"), (torch.ones(4, 12, 80), r"\(4, 12, 80\)")):
        with pytest.raises(ValueError, match=rf"waveform_weights: expected .*\(4, 80\), got {got}; prepare") as caught:
            model(**batch | {"waveform_weights": weights})
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="input_values: expected"):
        model(**batch | {"input_values": torch.zeros(4, 11, SAMPLES)})


def test_dual_attention_maps_are_there_when_asked_for():
    output = classifier()(**inputs(), output_attentions=True, output_hidden_states=True)
    assert output.lead_attention.shape == (4, 12, 12) and output.time_attention.shape == (4, 12, 5, 5)
    assert len(output.hidden_states) == 5
    plain = classifier("soft", "resnet1d")(**inputs(), output_attentions=True)
    assert plain.lead_attention is None and plain.pooler_output.shape == (4, 16)


def test_the_weight_of_a_sample_depends_on_several_rr_intervals():
    module = DanetForPreTraining(DanetConfig()).eval().waveform_module
    signal = torch.randn(1, 12, 1008, generator=torch.Generator().manual_seed(0)).requires_grad_()
    module(signal)[0][0, 504].backward()
    reached = signal.grad[0].abs().sum(0).nonzero()
    assert 504 - reached.min() > 250 and reached.max() - 504 > 250  # more than 2.5 s to each side at 100 Hz


def test_default_sizes_are_small():
    model = DanetForSequenceClassification(DanetConfig(classifier_network="resnet1d"))
    assert sum(p.numel() for p in model.waveform_module.parameters()) < 200_000
    assert 150_000 < sum(p.numel() for p in model.resnet.parameters()) < 300_000


# Losses


def test_positive_weights_multiply_the_loss_of_positive_records_alone():
    batch = inputs()
    plain = classifier(id2label={0: "NORM", 1: "PAC"})
    weighted = classifier(id2label={0: "NORM", 1: "PAC"}, positive_weights={"PAC": 5.0})
    logits, labels = plain(**batch).logits, batch["labels"]
    assert torch.equal(weighted(**batch).logits, logits)
    each = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    each = each * torch.where((labels == 1) & torch.tensor([False, True]), 5.0, 1.0)
    assert torch.allclose(weighted(**batch).loss, each.mean())
    batch["labels"][0, 1] = float("nan")
    assert torch.allclose(weighted(**batch).loss, each.flatten()[[0, *range(2, 8)]].mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive_weights": {"PVC": 2.0}}, "positive_weights: expected labels among LABEL_0, LABEL_1, got PVC"),
        ({"positive_weights": {"LABEL_0": 0.0}}, "LABEL_0: expected a positive number, got 0"),
        (
            {"positive_weights": {"LABEL_0": 2.0}, "problem_type": "single_label_classification"},
            "expected a multi-label problem",
        ),
        ({"waveform_module": "firm"}, "waveform_module: expected one of hard, soft, none, got 'firm'"),
        ({"classifier_network": "vgg"}, "classifier_network: expected one of ecgdan, resnet1d, got 'vgg'"),
        ({"waveform_rule": "afib"}, "waveform_rule: expected one of apc"),
        ({"waveform_module": "hard", "waveform_rule": None}, "expected a waveform_rule and input_kind='rhythm'"),
        ({"waveform_module": "hard", "input_kind": "median_beat"}, "expected a waveform_rule and input_kind='rhythm'"),
        ({"waveform_kernel": 4}, "waveform_kernel: expected an odd number of samples, got 4"),
        ({"waveform_channels": [8]}, "waveform_channels: expected two positive widths or more"),
        ({"waveform_weight": -1}, "waveform_weight: expected no negative weight, got -1"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(options, message):
    with pytest.raises(Exception, match=message):
        DanetForSequenceClassification(DanetConfig(**TINY | {"num_labels": 2} | options))


def test_pretraining_losses_are_the_weighted_sum_of_what_was_asked_for():
    model, batch = pretraining(waveform_weight=2.0, reconstruction_weight=0.5), inputs(labels=False)
    targets, signal = batch.pop("waveform_weights"), batch["input_values"]
    hidden = torch.zeros(4, 12, SAMPLES, dtype=torch.bool)
    hidden[..., 10:20] = True
    shown = batch | {"input_values": signal.masked_fill(hidden, 0)}
    output = model(**shown, waveform_targets=targets, target_values=signal, target_mask=hidden)
    expected = nn.functional.binary_cross_entropy(output.waveform_attention, targets)
    assert torch.allclose(output.waveform_loss, expected, atol=1e-5)
    error = (output.reconstruction - signal).square()
    assert torch.allclose(output.reconstruction_loss, error[hidden].mean())
    assert torch.allclose(output.loss, 2 * output.waveform_loss + 0.5 * output.reconstruction_loss)
    lone = model(**shown, waveform_targets=targets)
    assert lone.reconstruction_loss is None and torch.equal(lone.loss, 2 * lone.waveform_loss)
    recorded = batch["lead_mask"].clone()
    recorded[:, 5:] = False
    lost = signal.clone()
    lost[:, 5:] = float("nan")
    by_lead = model(lost, recorded, target_values=lost)
    error = (by_lead.reconstruction - signal).square()[:, :5]
    assert torch.allclose(by_lead.reconstruction_loss, error.mean())
    assert model(**batch).loss is None


def test_pretraining_refuses_targets_it_has_no_use_for():
    model, batch = pretraining(reconstruction_weight=0), inputs(labels=False)
    signal = batch["input_values"]
    assert model.reconstruction_head is None and model(signal).reconstruction is None
    with pytest.raises(ValueError, match="target_values: expected a model with reconstruction_weight above 0"):
        model(signal, target_values=signal)
    with pytest.raises(ValueError, match=r"waveform_targets: expected .*\(4, 80\), got \(4, 81\)"):
        model(signal, waveform_targets=torch.zeros(4, 81))
    with pytest.raises(ValueError, match=r"target_mask: expected \(4, 12, 80\) or \(4, 12\), got \(4, 80\)"):
        pretraining()(signal, target_values=signal, target_mask=torch.ones(4, 80))
    with pytest.raises(ValueError, match="waveform_module: expected 'soft' for pretraining, got 'none'"):
        pretraining(waveform_module="none")


def test_pretraining_learns_where_the_spikes_are():
    model = pretraining(waveform_channels=[8, 12, 16], waveform_kernel=9).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        signal, spike = signals(16, samples=SAMPLES) * 0.1, torch.randint(10, 70, (16,), generator=generator)
        targets = (torch.arange(SAMPLES) - spike[:, None]).abs().le(2).float()
        loss = model(signal + targets[:, None], waveform_targets=targets).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    attention = model.eval()(signal + targets[:, None]).waveform_attention
    assert attention[targets == 1].mean() > 0.6 > 0.2 > attention[targets == 0].mean()


# Training


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("module", MODULES)
def test_the_loss_teaches_every_parameter_it_depends_on(module, network):
    model = classifier(module, network, num_auxiliary_labels=3).train()
    batch = inputs() | {"auxiliary_targets": torch.ones(4, 3)}
    assert untaught_parameters(model, batch) == (CONSTANT_BEFORE_A_NORM if network == "ecgdan" else set())


def test_the_pretraining_loss_teaches_every_parameter():
    batch = inputs(labels=False)
    batch |= {"waveform_targets": batch.pop("waveform_weights"), "target_values": batch["input_values"]}
    assert untaught_parameters(pretraining().train(), batch) == set()


def test_a_frozen_module_keeps_weights_and_statistics_and_an_unfrozen_one_does_not():
    model, batch = classifier(), inputs()
    model.train()
    model.freeze_waveform_module()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def changed() -> set[str]:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}

    moved = changed()
    assert not any(name.startswith("waveform_module.") for name in moved)
    assert {"ecgdan.stem.conv.weight", "ecgdan.stem.norm.running_mean", "classifier.output.weight"} <= moved
    model.unfreeze_waveform_module()
    moved = changed()
    assert {"waveform_module.down.0.conv1.weight", "waveform_module.down.0.norm1.running_mean"} <= moved


@pytest.mark.parametrize("training", [True, False])
def test_freezing_takes_effect_at_once_and_unfreezing_gives_back_the_mode_of_the_model(training):
    model = classifier().train(training)
    model.freeze_waveform_module()
    assert not any(each.training for each in model.waveform_module.modules())
    assert model.ecgdan.training == training
    model.unfreeze_waveform_module()
    assert all(each.training == training for each in model.waveform_module.modules())


def test_only_a_soft_module_can_be_frozen():
    with pytest.raises(ValueError, match="waveform_module: expected 'soft' to freeze, got 'hard'"):
        classifier("hard").freeze_waveform_module()


@pytest.mark.parametrize("network", NETWORKS)
def test_gradient_checkpointing_changes_no_gradient(network):
    gradients = []
    for checkpointing in (False, True):
        model = classifier("soft", network, head_dropout=0.0, drop_path_rate=0.0).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**inputs()).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*gradients, atol=1e-6)


def test_a_hard_module_before_a_resnet_is_one_graph():  # a soft one before ECG-DAN: test_compile.py
    model, batch = classifier("hard", "resnet1d"), inputs()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(**batch).logits, model(**batch).logits, atol=1e-6)


@pytest.mark.parametrize("module", MODULES)
def test_the_stock_trainer_trains_and_evaluates_it(tmp_path, module):
    batch = inputs(8)
    rows = [{name: values[index] for name, values in batch.items()} for index in range(8)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        max_steps=2,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=2,
        logging_steps=1,
        learning_rate=0.0,
    )
    model = classifier(module, head_dropout=0.0, drop_path_rate=0.0)
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    reported = trainer.evaluate()["eval_loss"]
    assert reported == pytest.approx(model.eval()(**batch).loss.item(), rel=1e-4)
    assert all(loss == pytest.approx(reported, rel=0.8) for loss in logged)  # not twice as large by accumulation


# Saving and loading


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("module", MODULES)
def test_saving_and_loading_keeps_every_number_and_the_rule(tmp_path, module, network):
    model, batch = classifier(module, network, waveform_rule="pvc"), inputs()
    model.save_pretrained(tmp_path)
    loaded, report = DanetForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(model(**batch).logits, loaded(**batch).logits)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["waveform_rule"] == WAVEFORM_RULES["pvc"]
    assert loaded.config.to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()
    assert loaded.config.waveform_rule == WAVEFORM_RULES["pvc"]


def test_a_rule_from_a_file_travels_as_the_rule_and_not_as_its_path(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nwave_weights: {p: 1, qrs: 0.5, t: 0.2, baseline: 0}\n", encoding="utf-8")
    classifier(waveform_rule=str(file)).save_pretrained(tmp_path / "model")
    file.unlink()
    assert DanetConfig.from_pretrained(tmp_path / "model").waveform_rule["wave_weights"]["qrs"] == 0.5
    assert "mine.yaml" not in (tmp_path / "model" / "config.json").read_text(encoding="utf-8")


def test_a_pretrained_module_loads_into_the_classifier_bit_by_bit(tmp_path):
    pretrained = pretraining().train()
    pretrained(**{"input_values": signals(4, samples=SAMPLES)})  # statistics of the norms move
    pretrained.save_pretrained(tmp_path)
    model, report = DanetForSequenceClassification.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not any(name.startswith("waveform_module.") for name in report["missing_keys"])
    expected = pretrained.waveform_module.state_dict()
    found = model.waveform_module.state_dict()
    assert set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in expected)
    batch = inputs(labels=False)
    assert torch.equal(model(**batch).waveform_attention, pretrained.eval()(**batch).waveform_attention)


def test_an_encoder_of_the_package_loads_into_the_classifier(tmp_path):
    options = {name: value for name, value in TINY.items() if not name.startswith("waveform_")}
    encoder = EcgDanModel(EcgDanConfig(trunk="light", input_kind="rhythm", **options))
    encoder.save_pretrained(tmp_path)
    config = DanetConfig(**TINY, num_labels=2)
    model = DanetForSequenceClassification.from_pretrained(tmp_path, config=config)
    found = model.ecgdan.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("network", NETWORKS)
def test_what_a_checkpoint_lacks_is_initialised_and_never_raw_memory(tmp_path, network):
    model = classifier("soft", network)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if name == "classifier.output.weight"}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    poison = [torch.full((1 << 16,), 1e30) for _ in range(64)]  # dirty the allocator's free blocks
    del poison
    loaded = DanetForSequenceClassification.from_pretrained(tmp_path)
    for name, value in loaded.state_dict().items():
        assert value.isfinite().all() and value.abs().max() < 100, name
    fresh = dict(classifier("soft", network).named_buffers())
    assert all(torch.equal(value, fresh[name]) for name, value in loaded.named_buffers())


@pytest.mark.parametrize("module", MODULES)
def test_a_bfloat16_checkpoint_answers_finitely(tmp_path, module):
    classifier(module).to(torch.bfloat16).save_pretrained(tmp_path)
    loaded = DanetForSequenceClassification.from_pretrained(tmp_path)
    output = loaded(**inputs())
    assert loaded.dtype == torch.bfloat16 and output.logits.isfinite().all() and output.loss.dtype == torch.float32
    assert module == "none" or output.waveform_attention.dtype == torch.float32


def test_auto_classes_find_both_heads_and_the_feature_extractor(tmp_path):
    classifier("hard").save_pretrained(tmp_path / "classifier")
    pretraining().save_pretrained(tmp_path / "pretraining")
    EcgDanFeatureExtractor(**classifier("hard").config.signal_contract).save_pretrained(tmp_path / "classifier")
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "classifier")
    assert type(found) is DanetForSequenceClassification
    assert type(AutoModelForPreTraining.from_pretrained(tmp_path / "pretraining")) is DanetForPreTraining
    assert type(AutoConfig.from_pretrained(tmp_path / "pretraining")) is DanetConfig
    feature_extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "classifier")
    assert feature_extractor.waveform_rule == found.config.waveform_rule == WAVEFORM_RULES["apc"]


def test_hub_code_needs_only_what_a_reader_has_and_names_every_file_it_needs():
    source = Path(modeling_danet.__file__)
    needed = {Path(file) for file in get_relative_import_files(str(source))}
    lines = [line for line in source.read_text(encoding="utf-8").splitlines() if line.startswith("from .")]
    assert needed == {source.parent / f"{line.split()[1][1:]}.py" for line in lines}
    for file in (source, *needed):
        libraries = {"torch", "numpy", "transformers", "huggingface_hub"} | set(sys.stdlib_module_names)
        assert set(get_imports(str(file))) <= libraries


def test_evidence_is_the_highest_mean_of_the_soft_modules_logits_and_can_be_left_out():
    model = classifier("soft", id2label={0: "NORM", 1: "APC"}).eval()
    assert model.evidence.weight.tolist() == [0.0, 1.0]  # the label of the rule
    logits = torch.full((1, 80), -3.0)
    logits[:, 40:56] = 2.0
    assert model.evidence(logits).tolist() == [[0.0, 2.0]]
    logits[:, 40:56] = -3.0
    logits[:, 48] = 2.0  # one sample is no beat
    assert model.evidence(logits)[0, 1] < 0
    without = classifier("soft", id2label={0: "NORM", 1: "APC"}, use_attention_evidence=False).eval()
    without.load_state_dict({name: value for name, value in model.state_dict().items() if "evidence" not in name})
    batch = inputs()
    batch.pop("labels")
    attention = model.waveform_module(batch["input_values"], batch["lead_mask"])[0]
    expected = without(**batch).logits + model.evidence(attention)
    torch.testing.assert_close(model(**batch).logits, expected)


def test_waveform_targets_that_are_not_known_are_not_learned():
    model, batch = classifier("soft").train(), inputs()
    targets = torch.rand(len(batch["labels"]), batch["input_values"].shape[-1])
    assert model(**batch).waveform_loss is None
    known = model(**batch, waveform_targets=targets).waveform_loss
    half = targets.clone()
    half[1:] = math.nan
    assert math.isfinite(known.detach()) and known != model(**batch, waveform_targets=half).waveform_loss
    assert model(**batch, waveform_targets=torch.full_like(targets, math.nan)).waveform_loss == 0


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_the_loss_of_the_weights_counts_beside_that_of_the_labels_by_its_weight(weight):
    model, batch = classifier("soft", waveform_weight=weight), inputs()
    targets = torch.rand(len(batch["labels"]), SAMPLES)
    alone, both = model(**batch), model(**batch, waveform_targets=targets)
    logits = model.waveform_module(batch["input_values"], batch["lead_mask"])[0]
    torch.testing.assert_close(both.waveform_loss, nn.functional.binary_cross_entropy_with_logits(logits, targets))
    torch.testing.assert_close(both.loss, alone.loss + weight * both.waveform_loss)


def test_the_label_of_the_rule_is_known_in_either_spelling():
    for names, expected in {("NORM", "PAC"): [0.0, 1.0], ("APC", "PVC"): [1.0, 0.0], ("MI", "CD"): [0.0, 0.0]}.items():
        assert classifier("soft", id2label=dict(enumerate(names))).evidence.weight.tolist() == expected
