"""The loop: it learns, stops at NaN, resumes bit by bit, and keeps the best."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import PartialState
from accelerate.utils import is_trackio_available
from gradients import CONSTANT_BEFORE_A_NORM, CONSTANT_IN_THE_LOG_HAZARD
from safetensors.torch import load_file

from ecgdan_hf.model.configuration_ecgdan import EcgDanSurvivalConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.training import finetune
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.arguments.options import resolve
from ecgdan_hf.training.core import loop
from ecgdan_hf.training.core.loop import _build_optimizer
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.core.states import Progress, SavedStates

Build = Callable[..., FinetuneArguments]


class Stopped(Exception):
    """A run killed from outside."""


def run_until(args: FinetuneArguments, monkeypatch: pytest.MonkeyPatch, states: int) -> None:
    """Runs, and is killed right after the given number of states has been written."""
    save, written = loop.Trainer._save_state, []

    def save_and_die(trainer: loop.Trainer) -> None:
        save(trainer)
        written.append(1)
        if len(written) == states:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_save_state", save_and_die)
        with pytest.raises(Stopped):
            finetune.finetune(args)


def weights(folder: str | None) -> dict[str, torch.Tensor]:
    return load_file(Path(str(folder)) / "model.safetensors")


def damage(folder: str | None) -> None:
    """Empties the random generators of the newest state, which Accelerate alone would pass over; zeroes weights."""
    states = SavedStates(Path(str(folder)))
    (states.all()[-1] / "random_states_0.pkl").write_bytes(b"")
    states.best.write_bytes(states.best.read_bytes()[:-1000] + bytes(1000))


@pytest.mark.parametrize(
    ("flags", "damaged"),
    [
        ({}, True),
        ({"checkpoint_every_steps": 1, "ema_decay": 0.9, "num_workers": 2}, False),
        ({"checkpoint_every_steps": 1, "gradient_accumulation": 2, "batch_size": 8}, False),
    ],
    ids=["between epochs, last state damaged", "within an epoch, averaged, with workers", "with accumulation"],
)
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    finetune_args: Build, monkeypatch: pytest.MonkeyPatch, flags: dict, damaged: bool
):
    flags = {**flags, "epochs": 3, "model": {"dropout_scope": "batch"}}
    whole = finetune.finetune(finetune_args("whole", **flags))
    run_until(finetune_args("cut", **flags), monkeypatch, states=2)
    torch.rand(5)
    args = finetune_args("cut", **flags, resume=True)
    if damaged:
        damage(args.output_dir)
    with pytest.warns(match=r"random_states_0.pkl: damaged.*0 bytes") if damaged else nullcontext():
        resumed = finetune.finetune(args)
    expected, found = (weights(finetune_args(name).output_dir) for name in ("whole", "cut"))
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name
    assert resumed["history"] == whole["history"]


def test_a_run_is_refused_while_another_one_has_its_folder(finetune_args: Build, monkeypatch: pytest.MonkeyPatch):
    args, refusals, train = finetune_args(epochs=1), [], loop.Trainer.run

    def meet_another(trainer: loop.Trainer) -> Progress:
        with ThreadPoolExecutor(1) as other:
            refusals.append(other.submit(RunFolder(Path(str(args.output_dir))).begun(args).__enter__).exception())
        return train(trainer)

    monkeypatch.setattr(loop.Trainer, "run", meet_another)
    finetune.finetune(args)
    assert "expected no other run in this folder, found one" in str(refusals[0])
    assert RunFolder(Path(str(args.output_dir))).metrics["task"] == "survival"


def test_a_resumed_run_refuses_other_arguments(finetune_args: Build, monkeypatch: pytest.MonkeyPatch):
    run_until(finetune_args(), monkeypatch, states=1)
    with pytest.raises(ValueError, match=r"learning_rate: the run in .* began with 0.001, got 0.5"):
        finetune.finetune(finetune_args(resume=True, learning_rate=0.5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a mapping of argument names to values, found NoneType"),
        ("task: survival\nepochs: [3", "not readable as YAML"),
        ("task: survival\n", "the run in .* began with None"),
    ],
)
def test_a_damaged_recipe_is_named_when_a_run_is_resumed(
    finetune_args: Build, tmp_path: Path, content: str, message: str
):
    args = finetune_args(resume=True)
    Path(str(args.output_dir)).mkdir(parents=True)
    (Path(str(args.output_dir)) / "recipe.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refusal:
        RunFolder.check(args)
    assert "\n" not in str(refusal.value)


def test_the_loss_goes_down_on_a_set_that_can_be_learned(finetune_args: Build):
    found = finetune.finetune(finetune_args(epochs=12, learning_rate=0.01, batch_size=40))["history"]
    assert found[-1]["train_cox_loss"] < 0.8 * found[0]["train_cox_loss"]


def test_every_parameter_moves_in_training(finetune_args: Build, monkeypatch: pytest.MonkeyPatch):
    before: dict[str, torch.Tensor] = {}
    train = loop.Trainer.run

    def remember(trainer: loop.Trainer) -> Progress:
        before.update({name: value.detach().clone() for name, value in trainer.plain_model.named_parameters()})
        return train(trainer)

    monkeypatch.setattr(loop.Trainer, "run", remember)
    args = finetune_args(lead_masking="none", covariates="age,sex", learning_rate=0.01)
    finetune.finetune(args)
    after = weights(args.output_dir)
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert still <= CONSTANT_IN_THE_LOG_HAZARD | CONSTANT_BEFORE_A_NORM


def test_a_loss_that_is_not_finite_stops_the_run_with_one_line(finetune_args: Build):
    args = finetune_args(learning_rate=1e30, clip_norm=0.0)
    with pytest.raises(FloatingPointError, match=r"loss: not finite at step \d of epoch \d \(loss nan.*learning_rate"):
        finetune.finetune(args)
    assert not (Path(str(args.output_dir)) / "metrics.json").exists()


def test_the_saved_weights_are_those_of_the_best_validation(finetune_args: Build):
    args = finetune_args(epochs=6, learning_rate=0.03)
    found = finetune.finetune(args)
    by_epoch = {entry["epoch"]: entry["concordance_index"] for entry in found["history"]}
    assert by_epoch[found["best_epoch"]] == max(by_epoch.values())
    assert found["valid"]["concordance_index"]["estimate"] == pytest.approx(max(by_epoch.values()), abs=1e-12)


def test_every_epoch_hides_other_leads(finetune_args: Build, monkeypatch: pytest.MonkeyPatch):
    masks: list[torch.Tensor] = []
    step = loop.Trainer._step

    def remember(trainer: loop.Trainer, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        masks.append(batch["lead_mask"].sum(0))
        return step(trainer, batch)

    monkeypatch.setattr(loop.Trainer, "_step", remember)
    finetune.finetune(finetune_args(lead_masking="record", lead_masking_probability=1.0, batch_size=64, epochs=3))
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])


def test_only_a_few_states_are_kept(finetune_args: Build):
    args = finetune_args(epochs=4, keep_checkpoints=1)
    finetune.finetune(args)
    assert [path.name for path in SavedStates(Path(str(args.output_dir))).all()] == ["state-00004-000000"]


def test_training_stops_early_when_patience_is_over(finetune_args: Build):
    found = finetune.finetune(finetune_args(epochs=30, patience=1, learning_rate=1e-9))
    assert len(found["history"]) < 10


def test_a_run_writes_a_tensorboard_log(finetune_args: Build):
    args = finetune_args(epochs=1, log_with="tensorboard")
    finetune.finetune(args)
    assert list((Path(str(args.output_dir)) / "logs").rglob("events.out.tfevents*"))


def test_layers_near_the_input_learn_more_slowly_and_vectors_do_not_decay():
    model = EcgDanForSurvival(EcgDanSurvivalConfig(num_samples=64, pad_samples=2, trunk_channels=[4, 8]))
    args = resolve(FinetuneArguments, None, {"layer_decay": 0.5})
    optimizer, _ = _build_optimizer(model, args, total_steps=10)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        name_of[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found.keys() == dict(model.named_parameters()).keys()
    scales = [
        found[name][0]
        for name in ("ecgdan.stem.conv1.weight", "ecgdan.trunk.0.conv1.weight", "ecgdan.trunk.1.conv1.weight",
                     "ecgdan.time_attention.qkv_weight", "ecgdan.max_projection.weight", "risk_head.hidden.weight")
    ]  # fmt: skip
    assert scales == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
    assert found["ecgdan.lead_attention.fc1.weight"] == (1 / 4, args.weight_decay)
    undecayed = {name.rsplit(".", 1)[-1] for name, (_, decay) in found.items() if decay == 0}
    assert {"bias", "norm1_weight", "norm2_bias", "qkv_bias", "weight"} <= undecayed
    assert "qkv_weight" not in undecayed


def test_the_learning_rate_warms_up_and_follows_a_cosine_down():
    model = torch.nn.Linear(2, 2)
    args = resolve(FinetuneArguments, None, {"learning_rate": 1.0, "warmup_fraction": 0.2, "min_learning_rate": 0.1})
    optimizer, scheduler = _build_optimizer(model, args, total_steps=100)

    def rate(step: float) -> float:
        scheduler.step_update(step)
        return optimizer.param_groups[0]["lr"]

    assert [rate(0), rate(10), rate(20)] == pytest.approx([0, 0.5, 1.0])
    assert rate(60) == pytest.approx(0.1 + 0.9 * (1 + np.cos(np.pi / 2)) / 2)
    assert rate(99.99) == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"epochs": 0}, "epochs: expected one or more"),
        ({"learning_rate": 0.0}, "learning_rate: expected a positive"),
        ({"layer_decay": 0.0}, r"layer_decay: expected a number in \(0, 1\]"),
        ({"ema_decay": 1.0}, r"ema_decay: expected a number in \[0, 1\)"),
        ({"precision": "fp8"}, "precision: expected auto, no, bf16 or fp16"),
        ({"log_with": "paper"}, "log_with: expected tensorboard, trackio or none"),
    ],
)
def test_arguments_of_the_loop_are_checked_before_anything_is_written(finetune_args: Build, flags: dict, message: str):
    args = finetune_args(**flags)
    with pytest.raises(ValueError, match=message):
        finetune.finetune(args)
    assert not Path(str(args.output_dir)).exists()


def test_metrics_are_plain_json(finetune_args: Build):
    args = finetune_args(epochs=1)
    found = finetune.finetune(args)
    text = (Path(str(args.output_dir)) / "metrics.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text) == {"schema": 1, "kind": "finetune"} | RunFolder(Path(str(args.output_dir))).metrics
    assert json.loads(text)["best_epoch"] == found["best_epoch"]


def test_half_precision_training_evaluates_and_saves_in_full_precision(finetune_args: Build):
    args = finetune_args(precision="bf16", ema_decay=0.9, learning_rate=0.01)
    metrics = finetune.finetune(args)
    assert {value.dtype for value in weights(args.output_dir).values() if value.is_floating_point()} == {torch.float32}
    best = max(entry["concordance_index"] for entry in metrics["history"])
    assert metrics["valid"]["concordance_index"]["estimate"] == pytest.approx(best, abs=0.05)


def test_a_tracker_that_is_not_installed_is_named(finetune_args: Build):
    if is_trackio_available():
        pytest.skip("trackio is installed")
    with pytest.raises(ValueError, match="log_with: trackio is not installed; pip install trackio"):
        finetune.finetune(finetune_args(log_with="trackio"))


def test_processes_that_do_not_know_of_each_other_are_refused(finetune_args: Build, monkeypatch: pytest.MonkeyPatch):
    PartialState(cpu=True)  # this process is alone,
    monkeypatch.setenv("WORLD_SIZE", "2")  # though a launcher says that there is another
    args = finetune_args()
    with pytest.raises(ValueError, match="WORLD_SIZE: 2 processes were launched, Accelerate joined 1"):
        finetune.finetune(args)
    assert not Path(args.output_dir).exists()
