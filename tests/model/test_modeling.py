"""Contracts of the networks: shapes, leads, maps, masks, saving and loading, training."""

import json
import sys
from pathlib import Path

import pytest
import torch
from gradients import CONSTANT_IN_THE_LOG_HAZARD, untaught_parameters
from heads import TINY_HEADS, learnable
from heads import fresh as build
from safetensors.torch import load_file, save_file
from tiny import signals
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
)
from transformers.dynamic_module_utils import get_imports, get_relative_imports

from ecgdan_hf import (
    EcgDanConfig,
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanModel,
    EcgDanSurvivalConfig,
)
from ecgdan_hf.model import modeling_ecgdan
from ecgdan_hf.model.layers_ecgdan import EcgDanDropout
from ecgdan_hf.model.survival_ecgdan import cox_loss

HEADS = [name for name, head in TINY_HEADS.items() if head.is_ecg_dan]
TRUNKS = ("paper", "light")


@pytest.mark.parametrize(
    ("options", "encoder", "decoder"),
    [
        ({"lead_layout": "reference"}, 1_274_536, 110_570),
        ({"lead_layout": "reference", "input_kind": "rhythm"}, 3_313_976, 265_166),
        ({"lead_layout": "reference", "use_lead_attention": False}, 162_200, 110_570),
        ({"lead_layout": "reference", "use_time_attention": False}, 1_235_176, 110_570),
        ({"lead_layout": "reference", "use_lead_attention": False, "use_time_attention": False}, 122_840, 110_570),
        ({}, 1_263_976, 110_570),
    ],
)
def test_parameter_counts_are_those_of_the_paper(options, encoder, decoder):
    model = EcgDanForPreTraining(EcgDanConfig(**options))
    assert sum(p.numel() for p in model.ecgdan.parameters()) == encoder
    assert sum(p.numel() for p in model.decoder.parameters()) == decoder


def test_the_risk_head_has_the_papers_2573_parameters():
    head = EcgDanForSurvival(EcgDanSurvivalConfig()).risk_head
    assert sum(p.numel() for p in head.parameters()) == 2573


@pytest.mark.parametrize(("kind", "samples", "tokens"), [("median_beat", 608, 19), ("rhythm", 1024, 32)])
def test_both_inputs_give_the_documented_shapes(kind, samples, tokens):
    model = EcgDanModel(EcgDanConfig(input_kind=kind)).eval()
    output = model(signals(2, samples=samples), output_attentions=True, output_hidden_states=True)
    assert output.last_hidden_state.shape == (2, 12, tokens, 16)
    assert output.pooler_output.shape == (2, 512)
    assert output.lead_attention.shape == (2, 12, 12)
    assert output.time_attention.shape == (2, 12, tokens, tokens)
    assert len(output.hidden_states) == 7 and output.hidden_states[-1].shape == output.last_hidden_state.shape


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", HEADS)
def test_maps_are_real_fields_whose_rows_sum_to_one_and_are_absent_unless_asked_for(name, trunk):
    model, batch = build(name, trunk=trunk), learnable(name, with_optional=True)
    plain, mapped = model(**batch), model(**batch, output_attentions=True)
    assert plain.lead_attention is None and plain.time_attention is None
    for field in (mapped.lead_attention, mapped.time_attention):
        assert torch.allclose(field.sum(-1), torch.ones_like(field.sum(-1)), atol=1e-5)


@pytest.mark.parametrize(("kind", "samples", "tokens"), [("median_beat", 608, 38), ("rhythm", 1008, 63)])
def test_the_light_trunk_is_small_and_takes_pieces_of_a_record(kind, samples, tokens):
    model = EcgDanModel(EcgDanConfig(trunk="light", input_kind=kind)).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 284_496
    output = model(signals(2, samples=samples), output_attentions=True)
    assert output.last_hidden_state.shape == (2, 12, tokens, 48)
    assert output.pooler_output.shape == (2, 256) and output.readout_features.shape == (2, 128, tokens)
    assert output.time_attention.shape == (2, 12, tokens, tokens)
    assert model(signals(2, samples=320)).last_hidden_state.shape == (2, 12, 20, 48)
    with pytest.raises(ValueError, match=f"12 leads, {samples} samples"):
        model(signals(2, samples=330))


def test_folding_norms_into_kernels_changes_no_number():
    model = build("encoder", trunk="light").train()
    for _ in range(3):
        model(signals(8) * 2 + 1)
    block = model.trunk[0]
    hidden = model.stem(signals(4)).detach()
    folded = block.eval()(hidden)
    pooled = nn.functional.avg_pool2d(hidden, (1, 2))
    identity = block.shortcut_norm(nn.functional.conv2d(pooled, block.shortcut.weight))
    main = block.norm1(nn.Conv2d.forward(block.conv1, hidden)).relu()
    main = block.scale(block.norm2(nn.Conv2d.forward(block.conv2, main)))
    assert torch.allclose(folded, (main + identity).relu(), atol=1e-5)


def test_the_light_lead_map_is_what_moves_values_between_leads():
    model = build("encoder", trunk="light", use_time_attention=False)
    module, tokens = model.lead_attention, torch.randn(2, 8, 12, 5)
    weights = torch.zeros(2, 2, 12, 12)
    weights[:, :, :, 4] = 1  # every lead reads V-something alone
    mixed = module._mix(weights, tokens.permute(0, 2, 3, 1))
    assert torch.allclose(mixed, tokens.permute(0, 2, 3, 1)[:, 4:5].expand_as(mixed))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("layout", ["lead_true", "reference"])
def test_sdpa_and_eager_attention_compute_the_same(name, layout):
    model, batch = build(name, lead_layout=layout), learnable(name, with_optional=True)
    batch["lead_mask"][:, 3:6] = False
    assert model.config._attn_implementation == "sdpa"
    fast = model(**batch).pooler_output
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"
    assert torch.allclose(fast, model(**batch).pooler_output, atol=1e-5)


def test_attention_implementation_can_be_chosen_without_a_warning(caplog):
    build("encoder").set_attn_implementation("eager")
    assert not [record for record in caplog.records if "attn_implementation" in record.getMessage()]


@pytest.mark.parametrize("options", [{}, {"attention_order": "sequential"}, {"trunk": "light"}])
def test_changing_one_lead_changes_no_other_leads_tokens_before_cross_lead_attention(options):
    model = EcgDanModel(EcgDanConfig(**options)).eval()
    before, changed = signals(2, samples=608), signals(2, samples=608)
    changed[:, 7] = torch.randn(2, 608)
    others = [lead for lead in range(12) if lead != 7]
    first = model(before, output_hidden_states=True, output_attentions=True)
    second = model(changed, output_hidden_states=True, output_attentions=True)
    for a, b in zip(first.hidden_states[:-1], second.hidden_states[:-1], strict=True):
        assert torch.equal(a[:, others], b[:, others]) and not torch.equal(a[:, 7], b[:, 7])
    assert torch.equal(first.time_attention[:, others], second.time_attention[:, others])
    assert not torch.equal(first.hidden_states[-1][:, others], second.hidden_states[-1][:, others])


def test_the_reference_layout_mixes_leads_which_is_why_it_is_not_the_default():
    model = EcgDanModel(EcgDanConfig(lead_layout="reference")).eval()
    before, changed = signals(1, samples=608), signals(1, samples=608)
    changed[:, 7] = 0
    a, b = (model(x, output_hidden_states=True).hidden_states[0] for x in (before, changed))
    assert not torch.equal(a[:, 0], b[:, 0])


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("options", [{}, {"attention_order": "sequential"}, {"use_time_attention": False}])
def test_what_stands_in_a_masked_lead_changes_nothing(name, options, trunk):
    model, batch = build(name, trunk=trunk, **options), learnable(name, with_optional=True)
    batch["lead_mask"][:, [2, 9]] = False
    garbage = {**batch, "input_values": batch["input_values"].clone()}
    garbage["input_values"][:, [2, 9]] = float("nan")
    first, second = model(**batch, output_attentions=True), model(**garbage, output_attentions=True)
    assert torch.equal(first.pooler_output, second.pooler_output)
    assert first.lead_attention[:, :, [2, 9]].abs().max() == 0
    if name == "encoder":
        assert first.last_hidden_state[:, [2, 9]].abs().max() == 0


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("leads", [1, 2, 3, 6, 8])
def test_a_record_with_few_leads_goes_through_and_reads_only_those(leads, trunk):
    model = build("encoder", trunk=trunk)
    mask = torch.zeros(3, 12, dtype=torch.bool)
    mask[:, :leads] = True
    output = model(signals(3), mask, output_attentions=True)
    assert output.pooler_output.isfinite().all()
    assert torch.allclose(output.lead_attention[..., :leads].sum(-1), torch.ones(3, 12), atol=1e-5)


def test_the_sequential_variant_hands_on_lead_attention_alone():
    parallel, sequential = build("encoder"), build("encoder", attention_order="sequential")
    sequential.load_state_dict(parallel.state_dict())
    a, b = parallel(signals(2), output_hidden_states=True), sequential(signals(2), output_hidden_states=True)
    assert torch.equal(a.hidden_states[-2], b.hidden_states[-2])
    expected = sequential.lead_attention(b.hidden_states[-2].permute(0, 3, 1, 2), None)[0]
    assert torch.allclose(b.last_hidden_state, expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("shape", [(2, 11, 64), (2, 12, 63), (12, 64)])
def test_input_of_another_shape_is_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"input_values: expected \(batch, 12 leads, 64 samples\), got"):
        build("encoder")(torch.zeros(shape))


def test_a_lead_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="lead_mask: expected"):
        build("encoder")(signals(2), torch.ones(2, 11, dtype=torch.bool))


# Saving and loading


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", HEADS)
def test_saving_and_loading_keeps_every_number(tmp_path, name, trunk):
    model, batch = build(name, trunk=trunk), learnable(name, with_optional=True)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists() and not list(tmp_path.glob("*.bin")) + list(tmp_path.glob("*.py"))
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for a, b in zip(model(**batch).values(), loaded(**batch).values(), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else True


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", HEADS)
def test_what_a_checkpoint_lacks_is_initialised_and_never_raw_memory(tmp_path, name, trunk):
    model = build(name, trunk=trunk)
    model.save_pretrained(tmp_path)
    kept = {
        k: v for k, v in load_file(tmp_path / "model.safetensors").items() if k.endswith("classifier.output.weight")
    }
    save_file(kept or {"nothing": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    poison = [torch.full((1 << 16,), 1e30) for _ in range(64)]  # dirty the allocator's free blocks
    del poison
    loaded = type(model).from_pretrained(tmp_path)
    for key, value in loaded.state_dict().items():
        assert value.isfinite().all() and value.abs().max() < 100 if value.numel() else True, key
    fresh = dict(type(model)(model.config).named_buffers())
    for key, value in loaded.named_buffers():
        assert torch.equal(value, fresh[key]), key


@pytest.mark.parametrize("name", HEADS)
def test_initialisation_follows_the_paper(name):
    model = build(name)
    for key, value in model.named_parameters():
        if key.endswith("bias") and "logit" not in key:
            assert value.abs().max() == 0, key
    if name == "encoder":
        weight = model.time_attention.fc1_weight.detach()
        assert weight.abs().max() <= (6 / sum(weight.shape[1:])) ** 0.5
        assert weight.std() == pytest.approx((2 / sum(weight.shape[1:])) ** 0.5, rel=0.1)


def test_auto_classes_find_every_head_by_import(tmp_path):
    doors = {
        "encoder": AutoModel,
        "pretraining": AutoModelForPreTraining,
        "classification": AutoModelForSequenceClassification,
        "survival": AutoModel,
    }
    for name, door in doors.items():
        model = build(name)
        model.save_pretrained(tmp_path / name)
        assert type(door.from_pretrained(tmp_path / name)) is type(model)
        assert type(AutoConfig.from_pretrained(tmp_path / name)) is type(model.config)


def test_an_encoder_loads_from_a_checkpoint_with_a_head_and_the_other_way_round(tmp_path):
    pretrained = build("pretraining")
    pretrained.save_pretrained(tmp_path / "pretraining")
    encoder = EcgDanModel.from_pretrained(tmp_path / "pretraining")
    assert torch.equal(encoder.stem.conv1.weight, pretrained.ecgdan.stem.conv1.weight)
    encoder.save_pretrained(tmp_path / "encoder")
    classifier, report = EcgDanForSequenceClassification.from_pretrained(
        tmp_path / "encoder", num_labels=7, output_loading_info=True
    )
    assert torch.equal(classifier.ecgdan.stem.conv1.weight, encoder.stem.conv1.weight)
    assert all(not key.startswith("ecgdan.") for key in report["missing_keys"])


def test_a_classifier_can_be_reloaded_with_other_labels(tmp_path):
    build("classification").save_pretrained(tmp_path)
    names = {0: "NORM", 1: "MI"}
    loaded = EcgDanForSequenceClassification.from_pretrained(tmp_path, id2label=names, ignore_mismatched_sizes=True)
    assert loaded(signals(2)).logits.shape == (2, 2) and loaded.config.id2label == names


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", HEADS)
def test_a_bfloat16_checkpoint_stays_bfloat16_and_answers_finitely(tmp_path, name, trunk):
    build(name, trunk=trunk).to(torch.bfloat16).save_pretrained(tmp_path)
    loaded = type(build(name, trunk=trunk)).from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    output = loaded(**learnable(name, with_optional=True))
    assert output.pooler_output.isfinite().all()
    assert output.get("loss") is None or (output.loss.isfinite() and output.loss.dtype == torch.float32)


def test_configurations_come_back_from_disk_unchanged(tmp_path):
    for index, config in enumerate(
        [
            EcgDanConfig(
                input_kind="rhythm", sampling_rate=500, id2label={0: "A", 1: "B", 2: "C"}, thresholds={"A": 0.3}
            ),
            EcgDanSurvivalConfig(covariate_names=["age"], covariate_means=[61.5], ties="breslow"),
        ]
    ):
        config.save_pretrained(tmp_path / str(index))
        back = type(config).from_pretrained(tmp_path / str(index))
        assert back.to_dict() == config.to_dict()
        assert json.loads((tmp_path / str(index) / "config.json").read_text(encoding="utf-8"))["ecgdan_version"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trunk": "heavy"}, "trunk: expected one of"),
        ({"trunk": "light", "lead_layout": "reference"}, "leave one of them out"),
        ({"num_samples": 600}, "num_samples: expected a positive multiple of 32"),
        ({"num_samples": "608"}, "num_samples"),
        ({"lead_names": ["I", "I"]}, "lead_names: expected different names"),
        ({"lead_names": ["I"], "lead_layout": "reference"}, "twelve standard leads"),
        ({"head_dropout": 1.0}, "head_dropout: expected a probability"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(options, message):
    with pytest.raises(Exception, match=message):
        EcgDanConfig(**options)


def test_no_hub_file_imports_anything_a_checkpoint_folder_would_not_have():
    folder = Path(modeling_ecgdan.__file__).parent
    for file in sorted(folder.glob("*_ecgdan.py")):
        foreign = set(get_imports(file)) - sys.stdlib_module_names
        assert foreign <= {"torch", "numpy", "transformers", "huggingface_hub"}, file.name
        assert all((folder / f"{name}.py").exists() for name in get_relative_imports(file)), file.name
        assert "from . import" not in file.read_text(encoding="utf-8") and "from .." not in file.read_text(
            encoding="utf-8"
        )


# Losses and training


UNTAUGHT = {
    "survival": CONSTANT_IN_THE_LOG_HAZARD,
    # the reconstruction is standardised
    ("paper", "pretraining"): {"decoder.output.bias"},
    ("paper", "survival"): {"decoder.output.bias"},
    # the head begins with a batch norm
    ("paper", "classification"): {"ecgdan.average_projection.bias", "ecgdan.max_projection.bias"},
}


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", [name for name in HEADS if name != "encoder"])
@pytest.mark.parametrize("scope", ["element", "batch"])
def test_the_loss_teaches_every_parameter_it_depends_on(name, scope, trunk):
    model, batch = build(name, trunk=trunk, dropout_scope=scope).train(), learnable(name, with_optional=True)
    invariant = {label for key in (name, (trunk, name)) for label in UNTAUGHT.get(key, ())}
    assert untaught_parameters(model, batch, steps=2) == invariant  # two: the weights of covariates begin at zero


def test_a_pretraining_loss_is_the_weighted_sum_of_its_parts():
    weights = {"reconstruction_weight": 0.5, "alignment_weight": 2.0, "superclass_weight": 3.0}
    model = build("pretraining", **weights)
    output = model(**learnable("pretraining", with_optional=True))
    parts = (output.reconstruction_loss, output.alignment_loss, output.superclass_loss)
    assert torch.allclose(output.loss, sum(w * p for w, p in zip(weights.values(), parts, strict=True)))


def test_reconstruction_is_measured_against_the_unmasked_signal_where_there_is_one():
    model, target = build("pretraining"), signals(2)
    shown = torch.ones(2, 12, dtype=torch.bool)
    shown[:, 2:] = False
    recorded = torch.ones(2, 12, dtype=torch.bool)
    recorded[:, 11] = False
    output = model(target, shown, target_values=target, target_mask=recorded)
    error = (output.reconstruction - target).square().mean(-1)[recorded].mean()
    assert torch.allclose(output.reconstruction_loss, error)


def test_unknown_labels_do_not_enter_the_classification_loss():
    model, batch = build("classification"), learnable("classification", with_optional=True)
    batch["labels"][0] = batch["auxiliary_targets"][0] = float("nan")
    rest = {key: value[1:] for key, value in batch.items()}
    assert torch.allclose(model(**batch).loss, model(**rest).loss)


def test_auxiliary_labels_add_their_weighted_loss_and_soft_targets_are_allowed():
    model, batch = build("classification", auxiliary_weight=2.5), learnable("classification", with_optional=True)
    batch["labels"] = batch["labels"] * 0.8 + 0.1
    output = model(**batch)
    parts = [
        nn.functional.binary_cross_entropy_with_logits(logits, batch[name])
        for logits, name in ((output.logits, "labels"), (output.auxiliary_logits, "auxiliary_targets"))
    ]
    assert torch.allclose(output.loss, parts[0] + 2.5 * parts[1])
    del batch["auxiliary_targets"]
    assert torch.allclose(model(**batch).loss, parts[0])


def test_cached_prompts_classify_without_a_text_model_and_travel(tmp_path):
    model, text = build("pretraining"), torch.randn(5, 2, 6)
    model.set_prompts(list("abcde"), text)
    output = model(signals(3))
    head = model.alignment_head
    each = head.project_text(text).mean(1)
    expected = head.logit_scale() * output.ecg_embeds @ nn.functional.normalize(each, dim=-1).T
    assert torch.allclose(output.prompt_logits, expected, atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = EcgDanForPreTraining.from_pretrained(tmp_path)
    assert loaded.config.prompt_labels == list("abcde")
    assert torch.equal(loaded(signals(3)).prompt_logits, output.prompt_logits)
    with pytest.raises(ValueError, match=r"text_embeds: expected \(2, \[templates,\] 6\), got \(2, 5\)"):
        model.set_prompts(["a", "b"], torch.randn(2, 5))


def test_a_missing_covariate_counts_as_the_training_mean():
    model, batch = build("survival"), learnable("survival", with_optional=True)
    nn.init.constant_(model.covariate_head.weight, 0.7)
    mean = {**batch, "covariates": batch["covariates"].nan_to_num(60.0)}
    assert torch.equal(model(**batch).log_hazard, model(**mean).log_hazard)
    with pytest.raises(ValueError, match="age, male"):
        model(batch["input_values"])


def test_batch_scope_dropout_shares_one_mask_and_element_scope_does_not():
    ones = torch.ones(8, 100)
    shared, own = (EcgDanDropout(0.5, scope).train()(ones) for scope in ("batch", "element"))
    assert (shared == shared[:1]).all() and not (own == own[:1]).all()
    assert torch.equal(EcgDanDropout(0.5, "batch").eval()(ones), ones)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_gradient_checkpointing_changes_no_gradient(trunk):
    gradients = []
    for checkpointing in (False, True):
        model, batch = (
            build("pretraining", trunk=trunk, mlp_dropout=0.0, drop_path_rate=0.0).train(),
            learnable("pretraining", with_optional=True),
        )
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*gradients, atol=1e-6)


# Absolute risk


def fitted() -> tuple[EcgDanForSurvival, dict[str, torch.Tensor]]:
    model, batch = build("survival"), learnable("survival")
    batch |= {"event": torch.ones(4), "time": torch.arange(1.0, 5)}
    model.fit_baseline(model(**batch).log_hazard, batch["event"], batch["time"])
    return model, {key: batch[key] for key in ("input_values", "lead_mask", "covariates")}


def test_risk_is_one_minus_survival_rises_with_time_and_survives_saving(tmp_path):
    model, batch = fitted()
    survival = model.predict_survival(**batch, years=[0.5, 1, 2, 4, 4.5])
    assert survival.shape == (4, 5) and (survival[:, 0] == 1).all() and survival[:, 4].isnan().all()
    assert (survival[:, :4].diff(dim=1) <= 0).all()
    assert torch.allclose(model.predict_risk(**batch, horizon_years=2), 1 - survival[:, 2], atol=1e-7)
    model.save_pretrained(tmp_path)
    loaded = EcgDanForSurvival.from_pretrained(tmp_path)
    assert torch.equal(loaded.predict_survival(**batch, years=[1, 2, 4]), survival[:, 1:4])


def test_the_baseline_keeps_its_precision_in_a_half_precision_network(tmp_path):
    model, _ = fitted()
    model.baseline.knots += 1 / 3
    times = model.baseline.times.clone()
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert torch.equal(model.baseline.times, times) and model.ecgdan.dtype == torch.bfloat16
    loaded = EcgDanForSurvival.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(loaded.baseline.times, times)


def test_weights_entry_and_strata_reach_the_cox_loss():
    model, batch = build("survival").eval(), learnable("survival", with_optional=True)
    outcome = batch["event"], batch["time"]
    given = {
        "weights": torch.tensor([1.0, 2, 1, 0.5]),
        "entry": batch["time"] / 2,
        "strata": torch.tensor([0, 0, 1, 1]),
    }
    output = model(**batch, **given)
    expected = cox_loss(output.log_hazard, *outcome, **given)
    assert torch.equal(output.cox_loss, expected) and not torch.equal(expected, cox_loss(output.log_hazard, *outcome))


def test_whole_numbers_as_covariates_are_numbers_and_an_infinite_one_is_refused():
    model, batch = build("survival").eval(), learnable("survival", with_optional=True)
    model.covariate_head.weight.data.fill_(1.0)
    whole = batch["covariates"].nan_to_num(60.0).round()
    ecg = {name: batch[name] for name in ("input_values", "lead_mask")}
    found = [model(**ecg, covariates=each).log_hazard for each in (whole, whole.long())]
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="covariates: expected finite numbers or NaN, got an infinite"):
        model(**ecg, covariates=torch.full_like(whole, torch.inf))


def test_the_limits_of_a_risk_enclose_it_and_survive_saving(tmp_path):
    model, batch = fitted()
    found = model.predict_risk_interval(**batch, horizon_years=2)
    assert torch.allclose(found.risk, model.predict_risk(**batch, horizon_years=2), atol=1e-6)
    assert (found.low < found.risk).all() and (found.risk < found.high).all()
    model.save_pretrained(tmp_path)
    again = EcgDanForSurvival.from_pretrained(tmp_path).predict_risk_interval(**batch, horizon_years=2)
    assert all(torch.equal(*pair) for pair in zip(found, again, strict=True))


def test_a_checkpoint_without_limits_loads_and_has_none(tmp_path):
    model, batch = fitted()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["baseline.standard_error"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = EcgDanForSurvival.from_pretrained(tmp_path)
    found = loaded.predict_risk_interval(**batch, horizon_years=2)
    assert torch.equal(found.risk, model.predict_risk_interval(**batch, horizon_years=2).risk)
    assert found.low.isnan().all() and found.high.isnan().all()


def test_recalibration_changes_risks_and_no_weight_and_travels_with_the_checkpoint(tmp_path):
    model, batch = fitted()
    weights = {name: weight.clone() for name, weight in model.named_parameters()}
    before = model(**batch, return_loss=False).log_hazard
    rng = torch.Generator().manual_seed(0)
    log_hazard = 3 * torch.randn(500, generator=rng)
    time = -torch.log(torch.rand(500, generator=rng)) / (0.2 * torch.exp(0.5 * log_hazard))  # three times too sure
    slope = model.recalibrate(log_hazard, torch.ones(500), time, method="slope")
    assert slope == pytest.approx(0.5, abs=0.1) and model.config.calibration_slope == slope
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())
    assert torch.allclose(model(**batch, return_loss=False).log_hazard, slope * before)
    model.save_pretrained(tmp_path)
    loaded = EcgDanForSurvival.from_pretrained(tmp_path)
    assert torch.equal(loaded.predict_risk(**batch, horizon_years=1), model.predict_risk(**batch, horizon_years=1))


def test_a_model_that_orders_a_population_the_wrong_way_round_is_not_recalibrated():
    model, _ = fitted()
    time = torch.arange(1.0, 51)
    with pytest.raises(ValueError, match="log_hazard: expected higher values where the event comes earlier"):
        model.recalibrate(time + 20 * torch.sin(time), torch.ones(50), time, method="slope")


def test_risk_without_a_fitted_baseline_is_refused():
    batch = learnable("survival", with_optional=True)
    with pytest.raises(ValueError, match="call fit_baseline first"):
        build("survival").predict_risk(batch["input_values"], None, batch["covariates"])
