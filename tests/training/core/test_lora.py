"""Low-rank updates: stock peft on every head, and a run of them that leaves an ordinary checkpoint."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.training_runs import TINY_MODEL
from heads import build, inputs, learnable
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from training.core.test_loop import run_until

from ecgdan_hf import EcgDanConfig, EcgDanFeatureExtractor, EcgDanForPreTraining
from ecgdan_hf.data.loading import load
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.rows import score_rows
from ecgdan_hf.training import finetune
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.arguments.options import _read_recipe
from ecgdan_hf.training.core.supervised import FinetuningRun
from ecgdan_hf.training.finetune import _add_lora, _lora_targets, _merge_lora

Build = Callable[..., FinetuneArguments]
HEADS = [
    ("classification", "paper"),
    ("classification", "light"),
    ("survival", "paper"),
    ("pretraining", "light"),
    ("ecg-text", "paper"),
    ("danet", "paper"),
    ("danet-hard", "paper"),
    ("danet-pretraining", "paper"),
]


def layers(model: nn.Module) -> list[str]:
    """Linear layers and convolutions, as someone who knows peft and not this package would list them."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, kinds) and getattr(module, "groups", 1) == 1 and "pooler" not in name
    ]


def answers(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {key: value for key, value in model(**inputs(name)).items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize(("name", "trunk"), HEADS, ids=lambda value: value)
def test_stock_peft_trains_saves_and_merges_every_head(name: str, trunk: str, tmp_path: Path):
    options = {"trunk_channels": [8], **({} if name.startswith("danet") else {"trunk": trunk})}
    model, before = build(name, **options), build(name, **options).state_dict()
    plain = answers(model, name)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=layers(model)))
    for key, value in answers(adapted, name).items():
        torch.testing.assert_close(value, plain[key], msg=key)  # the updates begin at zero
    optimizer = torch.optim.AdamW([each for each in adapted.parameters() if each.requires_grad], lr=0.003)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = adapted(**learnable(name)).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    trained = answers(adapted, name)
    moved = [key for key in trained if not torch.allclose(trained[key], plain[key], atol=1e-4)]
    assert moved  # in evaluation mode too, where the light trunk folds its norms into the kernels
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(build(name, **options), tmp_path).eval()
    for key, value in answers(again, name).items():
        torch.testing.assert_close(value, trained[key], msg=key)
    merged = again.merge_and_unload()
    assert merged.state_dict().keys() == before.keys()
    for key, value in answers(merged, name).items():
        torch.testing.assert_close(value, trained[key], atol=1e-5, rtol=1e-4, msg=key)


def test_peft_refuses_the_convolution_whose_update_it_would_merge_as_another_one():
    model = build("classification", trunk="light")
    with pytest.raises(ValueError, match="_PairConvolution"):
        get_peft_model(model, LoraConfig(r=2, target_modules=["shortcut"]))


@pytest.mark.parametrize(("name", "trunk"), [("survival", "paper"), ("classification", "light")])
def test_only_updates_head_and_new_weights_learn_and_merging_changes_no_answer(name: str, trunk: str):
    model, before = build(name, trunk=trunk), build(name, trunk=trunk)
    _add_lora(model, 2, ["ecgdan.trunk.0.norm1.weight"])
    learned = {key for key, value in model.named_parameters() if value.requires_grad}
    head = {key for key, _ in before.named_parameters() if key.startswith(("classifier", "risk_head", "covariate"))}
    updates = {key for key in learned if "lora_" in key}
    assert head and learned - updates == head | {"ecgdan.trunk.0.norm1.weight"}
    assert len(updates) == 2 * len(_lora_targets(before)) and all(key.startswith("ecgdan.") for key in updates)
    for key, value in model.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(value, std=0.1)
    unmerged = answers(model, name)
    _merge_lora(model)
    assert model.state_dict().keys() == before.state_dict().keys() and type(model) is type(before)
    found = answers(model, name)
    assert not torch.allclose(found["pooler_output"], answers(before, name)["pooler_output"], atol=1e-3)
    for key, value in found.items():
        torch.testing.assert_close(value, unmerged[key], atol=1e-5, rtol=1e-5, msg=key)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of the light trunk, as pretraining leaves it."""
    torch.manual_seed(0)
    model = EcgDanForPreTraining(EcgDanConfig(**TINY_MODEL, trunk="light"))
    folder = tmp_path_factory.mktemp("pretrained")
    model.save_pretrained(folder)
    EcgDanFeatureExtractor(**model.config.signal_contract).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("task", ["classification", "survival"])
def test_a_run_leaves_an_ordinary_checkpoint_with_a_moved_head_and_kept_norms(
    finetune_args: Build, pretrained: str, task: str, monkeypatch: pytest.MonkeyPatch
):
    recipe = {**_read_recipe("finetune-lora"), "task": task, "epochs": 2, "batch_size": 16}
    args = finetune_args(**{**recipe, "checkpoint": pretrained, "lora_rank": 2})
    metrics = finetune.finetune(args)
    folder = Path(str(args.output_dir))
    assert metrics["lora_rank"] == 2 and 0 < metrics["num_trained_parameters"] < metrics["num_parameters"]
    found, before = load_file(folder / "model.safetensors"), load_file(Path(pretrained) / "model.safetensors")
    assert not [key for key in found if "lora" in key] and "lora" not in (folder / "config.json").read_text(
        encoding="utf-8"
    )
    targets = {f"{name}.weight" for name in _lora_targets(load_checkpoint(folder)[0])}
    for key in before.keys() & found.keys():
        if key.startswith("ecgdan.") and "running" not in key and "num_batches" not in key:
            assert torch.equal(found[key], before[key]) == (key not in targets), key
    monkeypatch.setitem(sys.modules, "peft", None)
    model, extractor = load_checkpoint(folder)  # without peft
    assert metrics["num_parameters"] == sum(value.numel() for value in model.parameters())
    assert_it_predicts_what_the_run_reported(model, extractor, args, task)


def assert_it_predicts_what_the_run_reported(model, extractor, args: FinetuneArguments, task: str) -> None:
    table = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv", dtype={"record_id": str}).set_index(
        "record_id"
    )
    rows = load("csv", str(args.data_dir), feature_extractor=extractor, cache_dir=args.cache_dir, num_proc=1)
    part = rows.select([row for row, record in enumerate(rows["record_id"]) if record in table.index])
    scores = score_rows(model, part)
    if task == "survival":
        found, expected = scores, table.loc[list(part["record_id"]), "log_hazard"]
    else:
        found, expected = 1 / (1 + np.exp(-scores[:, 0])), table.loc[list(part["record_id"]), model.config.id2label[0]]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    finetune_args: Build, pretrained: str, monkeypatch: pytest.MonkeyPatch
):
    flags = {"task": "classification", "lora_rank": 2, "checkpoint": pretrained, "epochs": 2, "ema_decay": 0.9}
    finetune.finetune(finetune_args("whole", **flags))
    run_until(finetune_args("cut", **flags), monkeypatch, states=1)
    torch.rand(5)
    finetune.finetune(finetune_args("cut", **flags, resume=True))
    whole, cut = (load_file(Path(finetune_args(name).output_dir) / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[key], cut[key]) for key in whole)


def test_without_peft_it_is_one_line_before_anything_is_written(
    finetune_args: Build, pretrained: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "peft", None)
    args = finetune_args(task="classification", lora_rank=2, checkpoint=pretrained)
    with pytest.raises(ValueError, match="lora_rank: needs peft; pip install peft, or leave it out") as refusal:
        finetune.finetune(args)
    assert "\n" not in str(refusal.value) and not Path(str(args.output_dir)).exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"lora_rank": 2}, "lora_rank: expected a checkpoint whose weights to update"),
        ({"lora_rank": -1, "checkpoint": "somewhere", "from_scratch": False}, "lora_rank: expected .* got -1"),
        ({"lora_rank": 2, "task": "danet", "checkpoint": "x", "from_scratch": False}, "lora_rank: only task survival"),
    ],
)
def test_what_cannot_have_updates_is_refused(finetune_args: Build, flags: dict, message: str):
    with pytest.raises(ValueError, match=message):
        FinetuningRun.check_arguments(dataclasses.replace(finetune_args(), **flags))
