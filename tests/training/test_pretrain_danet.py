"""Pretraining of DANet on synthetic Holter recordings: every pretext learns, and says what it was."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.danet_arguments import TINY_DANET, danet_flags
from fixtures.write_holter import write_holter
from gradients import CONSTANT_BEFORE_A_NORM
from typer.testing import CliRunner

from ecgdan_hf import DanetForPreTraining, DanetForSequenceClassification
from ecgdan_hf.cli.main import app
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.model.configuration_danet import DanetConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.training import pretrain, pretrain_danet
from ecgdan_hf.training.arguments.fields import PretrainArguments
from ecgdan_hf.training.arguments.options import resolve
from ecgdan_hf.training.core import loop, rows
from ecgdan_hf.training.core.batching import EcgCollator
from ecgdan_hf.training.core.starting_weights import build_config, build_model
from ecgdan_hf.training.core.states import Progress

Build = Callable[..., PretrainArguments]


@pytest.fixture(scope="module")
def holter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_holter(tmp_path_factory.mktemp("pretraining") / "holter")


@pytest.fixture
def danet_args(holter: Path, cache: Path, tmp_path: Path) -> Build:
    def build(output: str = "run", **flags: object) -> PretrainArguments:
        return resolve(PretrainArguments, None, danet_flags(holter, cache, tmp_path / output, **flags))

    return build


@pytest.fixture
def first_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Fills with the weights that the next run starts from."""
    before: dict[str, torch.Tensor] = {}
    train = loop.Trainer.run

    def remember(trainer: loop.Trainer) -> Progress:
        before.update({name: value.detach().clone() for name, value in trainer.plain_model.named_parameters()})
        return train(trainer)

    monkeypatch.setattr(loop.Trainer, "run", remember)
    return before


@pytest.mark.parametrize(
    ("pretext", "flags", "kind", "untaught"),
    [
        ("hard-weights", {}, DanetForPreTraining, []),
        ("masked", {"span_masking_probability": 1.0}, DanetForPreTraining, ["attention_head"]),
        ("simulated-beats", {"simulated_records": 96}, DanetForSequenceClassification, []),
    ],
)
def test_a_pretext_lowers_its_loss_and_moves_every_parameter_it_teaches(
    danet_args: Build, first_weights: dict, pretext: str, flags: dict, kind: type, untaught: list[str]
):
    args = danet_args(pretext=pretext, epochs=8, batch_size=8, **flags)
    metrics = pretrain_danet.pretrain_danet(args)
    first, best = metrics["history"][0], metrics["history"][metrics["best_epoch"] - 1]
    assert best["loss"] < 0.97 * first["loss"]
    assert metrics["valid"]["loss"] == best["loss"] and metrics["pretext"] == pretext
    model, extractor = load_checkpoint(str(args.output_dir))
    assert type(model) is kind
    assert extractor.waveform_rule is None  # the soft module needs none, whatever taught it
    after = dict(model.named_parameters())
    still = {name for name, value in first_weights.items() if torch.equal(value, after[name])}
    assert all(any(part in name for part in untaught) for name in still - CONSTANT_BEFORE_A_NORM)


def test_what_is_simulated_is_judged_by_its_label_and_by_where_the_waves_are(danet_args: Build):
    args = danet_args(simulated_records=40, epochs=1, select_by="macro_auroc")
    metrics = pretrain_danet.pretrain_danet(args)
    assert metrics["pretext"] == "simulated-beats"
    assert metrics["num_records"] == {"train": 40, "valid": pretrain_danet._MIN_JUDGED}
    model, _ = load_checkpoint(str(args.output_dir))
    assert model.config.id2label == {0: "APC"}
    found = metrics["valid"]
    label = found["loss"] - model.config.waveform_weight * found["waveform_loss"]
    assert label > 0.1 and 0 <= found["macro_auroc"] <= 1
    half = danet_args("half", simulated_records=40, epochs=1, model={"waveform_weight": 0.5})
    assert set(pretrain_danet.pretrain_danet(half)["history"][0]) >= {
        "train_waveform_loss",
        "waveform_loss",
        "macro_auroc",
    }


@pytest.mark.parametrize("module", ["hard", "none"])
def test_without_a_soft_module_the_label_alone_is_learned(danet_args: Build, module: str):
    args = danet_args(simulated_records=32, epochs=1, model={"waveform_module": module})
    metrics = pretrain_danet.pretrain_danet(args)
    assert "waveform_loss" not in metrics["valid"]
    model, extractor = load_checkpoint(str(args.output_dir))
    assert model.waveform_module is None
    assert (extractor.waveform_rule is not None) == (module == "hard")


def test_a_control_learns_the_same_simulated_beats_as_the_rule_it_controls(danet_args: Build):
    flags = {"simulated_records": 32, "epochs": 1, "model": {"waveform_module": "none", "waveform_rule": "all-ones"}}
    args = danet_args(**flags, simulated_rule="apc")
    pretrain_danet.pretrain_danet(args)
    config = load_checkpoint(str(args.output_dir))[0].config
    assert config.id2label == {0: "APC"} and config.waveform_rule["name"] == "all-ones"
    with pytest.raises(ValueError, match=r"rule: expected one with a condition on beats, .* got 'all-ones'"):
        pretrain_danet.pretrain_danet(danet_args("without", **flags))


def test_masking_hides_stretches_of_all_leads_and_asks_for_them_alone(danet_args: Build):
    args = danet_args(pretext="masked", span_masking_probability=1.0)
    config = DanetConfig(**TINY_DANET)
    dataset = rows.load_dataset(args, EcgDanFeatureExtractor(**config.signal_contract)).select(range(6))
    collator = EcgCollator.for_training(config, args, **{"with_target": True, "target_hidden": True})
    batches = [each(each.rows(dataset).__getitems__([0, 3])) for each in (collator, collator._still())]
    for batch in batches:
        hidden = batch["target_mask"]
        assert hidden.shape == batch["target_values"].shape
        assert 0.05 < hidden.float().mean() < 0.35
        assert (hidden[:, 0] == hidden[:, 1]).all()
        assert (batch["input_values"][hidden] == 0).all() and batch["target_values"][hidden].abs().mean() > 0.1
        seen = ~hidden
        assert torch.equal(batch["input_values"][seen], batch["target_values"][seen])
    model, _ = build_model(DanetForPreTraining, config, None)
    model.eval()
    batch = batches[0]
    loss = model(**batch).loss
    changed = batch["target_values"].masked_fill(~batch["target_mask"], 99.0)
    assert torch.equal(model(**{**batch, "target_values": changed}).loss, loss)


def test_weights_are_cropped_with_the_signal_and_unknown_where_a_row_has_none(danet_args: Build):
    args = danet_args(model={"waveform_module": "hard"})
    config = DanetConfig(**TINY_DANET, waveform_module="hard")
    dataset = rows.load_dataset(args, EcgDanFeatureExtractor(**config.signal_contract)).select([4, 2, 9])
    whole = EcgCollator(config.lead_names, sample_columns=["waveform_weights"])
    piece = EcgCollator(config.lead_names, sample_columns=["waveform_weights"], crop_samples=400, seed=3)
    batches = [each(each.rows(dataset).__getitems__([0, 1, 2])) for each in (whole, piece)]
    np.testing.assert_array_equal(batches[0]["waveform_weights"][1], dataset[1]["waveform_weights"])
    signal, weights = batches[1]["input_values"][1], batches[1]["waveform_weights"][1]
    full = batches[0]["input_values"][1]
    start = next(i for i in range(full.shape[1] - 399) if torch.equal(full[:, i : i + 400], signal))
    assert torch.equal(weights, batches[0]["waveform_weights"][1, start : start + 400])


def test_a_pretrained_module_is_taken_on_whole_and_nothing_else(danet_args: Build):
    args = danet_args(pretext="hard-weights", epochs=1)
    pretrain_danet.pretrain_danet(args)
    folder = str(args.output_dir)
    before = load_checkpoint(folder)[0].state_dict()
    config = build_config(DanetConfig, {"classifier_network": "ecgdan"}, folder)  # the module fixes no classifier
    model, new = build_model(DanetForSequenceClassification, config, folder)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name in before)
    assert sum(name.startswith("waveform_module.") for name in before) > 10
    assert all(name.startswith(("ecgdan.", "classifier.", "evidence.")) for name in new)
    again = danet_args("again", checkpoint=folder, simulated_records=32, epochs=1, learning_rate=1e-12)
    metrics = pretrain_danet.pretrain_danet(again)
    assert not any(name.startswith("waveform_module.") for name in metrics["new_weights"])
    with pytest.raises(ValueError, match=r"model: waveform_channels is .* in .*, got .*; the weights fix it"):
        build_config(DanetConfig, {"waveform_channels": [3, 3]}, folder)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"pretext": "luck"}, "pretext: expected simulated-beats, hard-weights or masked, got 'luck'"),
        ({"text_model": "minilm"}, "text_model: only task alignment uses it, got task danet"),
        ({"pretext": "masked"}, "span_masking_probability: pretext masked hides stretches of time, expected above 0"),
        ({"pretext": "hard-weights", "simulated_records": 9}, "simulated_records: only pretext simulated-beats uses"),
        ({"pretext": "hard-weights", "simulated_rule": "pvc"}, "simulated_rule: only pretext simulated-beats uses it"),
        (
            {"pretext": "masked", "span_masking_probability": 1.0, "simulated_rule": "pvc"},
            "simulated_rule: only pretext simulated-beats uses it, got pretext masked",
        ),
        ({"simulated_records": 0}, "simulated_records: expected one or more, got 0"),
        (
            {"select_by": "recall"},
            "select_by: expected loss or macro_auroc with pretext simulated-beats",
        ),
        (
            {"pretext": "hard-weights", "select_by": "macro_auroc"},
            "select_by: expected loss with pretext hard",
        ),
        ({"pretext": "hard-weights", "model": {"waveform_module": "none"}}, "waveform_module: .* got 'none'"),
        ({"model": {"waveform_rule": "sinus"}}, "waveform_rule: expected one of apc, pvc"),
        ({"model": {"positive_weights": {"APC": 2}}}, "model: unknown key 'positive_weights'"),
        ({"limit": 12}, "fractions|regular recordings"),
        ({"checkpoint": "/nowhere/at/all"}, "/nowhere/at/all: no such checkpoint"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(danet_args: Build, flags: dict, message: str):
    args = danet_args(**flags)
    with pytest.raises(ValueError if "nowhere" not in message else FileNotFoundError, match=message) as refusal:
        pretrain_danet.pretrain_danet(args)
    assert "\n" not in str(refusal.value)
    assert not Path(str(args.output_dir)).exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"task": "danet"}, "task: danet is trained by `ecgdan pretrain`"),
        ({"task": "survival"}, "task: expected alignment or danet, got 'survival'"),
        ({"pretext": "masked"}, "pretext: only task danet uses it, got task alignment"),
        ({"simulated_records": 5}, "simulated_records: only task danet uses it"),
    ],
)
def test_alignment_refuses_what_only_danet_uses(pretrain_args: Build, flags: dict, message: str):
    with pytest.raises(ValueError, match=message):
        pretrain.pretrain(pretrain_args(**flags))


def test_the_command_chooses_by_task(danet_args: Build, holter: Path, cache: Path, tmp_path: Path):
    args = danet_args()
    given = [f"--model={key}={value}" for key, value in TINY_DANET.items()]
    flags = ["--task=danet", "--pretext=masked", "--span-masking-probability=1", "--epochs=1", "--log-with=none"]
    paths = [f"--data={args.data}", f"--data-dir={holter}", f"--cache-dir={cache}", f"--output-dir={tmp_path}/cli"]
    done = CliRunner().invoke(app, ["pretrain", *flags, *paths, *given, "--num-proc=1", "--no-progress"])
    assert done.exit_code == 0, done.output
    assert "best epoch 1, loss " in done.output
    assert isinstance(load_checkpoint(tmp_path / "cli")[0], DanetForPreTraining)
