"""DANet fine-tuned in two stages on synthetic Holter recordings: what learns when, and what reaches the model."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from fixtures.danet_arguments import TINY_DANET, danet_flags
from fixtures.write_holter import RATE, beats, signal, write_holter
from fixtures.write_sources import write_record
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ecgdan_hf.cli.main import app
from ecgdan_hf.data.loading import load
from ecgdan_hf.evaluation.measures.classification import _f1_at
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.predict import predict
from ecgdan_hf.inference.rows import score_rows
from ecgdan_hf.model.configuration_danet import DanetConfig
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.training import finetune, finetune_danet, pretrain_danet
from ecgdan_hf.training.arguments.fields import FinetuneArguments, PretrainArguments
from ecgdan_hf.training.arguments.options import resolve
from ecgdan_hf.training.core import loop, rows
from ecgdan_hf.training.core.learned_rows import LearnedRows, _annotated_targets
from ecgdan_hf.training.core.states import Progress

Build = Callable[..., FinetuneArguments]
JOINT = {"joint_epochs": 2, "joint_learning_rate": 0.005}


class Stopped(Exception):
    """A run killed from outside."""


@pytest.fixture(scope="module")
def holter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_holter(tmp_path_factory.mktemp("finetuning") / "holter")


@pytest.fixture(scope="module")
def pretrained(holter: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A soft module and its classifier after a look at simulated beats."""
    folder = tmp_path_factory.mktemp("finetuning") / "pretrained"
    flags = danet_flags(holter, cache, folder, simulated_records=32, epochs=1)
    pretrain_danet.pretrain_danet(resolve(PretrainArguments, None, flags))
    return str(folder)


@pytest.fixture
def danet_args(holter: Path, cache: Path, tmp_path: Path) -> Build:
    return builder(holter, cache, tmp_path)


def builder(holter: Path, cache: Path, folder: Path) -> Build:
    def build(output: str = "run", **flags: object) -> FinetuneArguments:
        start = {} if "checkpoint" in flags else {"from_scratch": True}
        given = {"keep_labels": "APC", "bootstrap": 20, **start, **flags}
        return resolve(FinetuneArguments, None, danet_flags(holter, cache, folder / output, **given))

    return build


@pytest.fixture(scope="module")
def hard_run(holter: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier behind the rule's own weights."""
    build = builder(holter, cache, tmp_path_factory.mktemp("runs"))
    args = build("hard", model={"waveform_module": "hard"}, epochs=3, positive_weight="balanced")
    finetune_danet.finetune_danet(args)
    return Path(str(args.output_dir))


def best_of(args: FinetuneArguments, stage: str) -> dict[str, torch.Tensor]:
    return load_file(Path(str(args.output_dir)) / stage / "checkpoints" / "best.safetensors")


def test_stage_one_leaves_the_module_as_it_was_and_stage_two_changes_it(
    whole: tuple[FinetuneArguments, dict], pretrained: str
):
    before = load_checkpoint(pretrained)[0].state_dict()
    args, metrics = whole
    first, second = (best_of(args, stage) for stage in ("stage-1", "stage-2"))
    module = [name for name in before if name.startswith("waveform_module.") and "num_batches" not in name]
    assert any("running_mean" in name for name in module)
    assert all(torch.equal(before[name], first[name]) for name in module)  # weights, and the norms' statistics
    assert not any(torch.equal(first[name], second[name]) for name in module)
    assert not torch.equal(before["classifier.output.weight"], first["classifier.output.weight"])
    assert metrics["new_weights"] == []  # the labels are the same, so the head goes on too
    assert set(metrics["stages"]) == {"stage-1", "stage-2"}
    assert [entry["stage"] for entry in metrics["history"]] == ["stage-1"] * 2 + ["stage-2"] * 2
    assert metrics["num_positive"]["train"]["APC"] > 0 and metrics["num_positive"]["valid"]["APC"] > 0


@pytest.fixture(scope="module")
def whole(
    pretrained: str, holter: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FinetuneArguments, dict]:
    """A run of both stages that nothing interrupted."""
    build = builder(holter, cache, tmp_path_factory.mktemp("whole"))
    args = build(checkpoint=pretrained, **JOINT, positive_weight=2.0)
    return args, finetune_danet.finetune_danet(args)


@pytest.mark.parametrize("states", [1, 2, 3], ids=["in stage 1", "between the stages", "in stage 2"])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    whole: tuple[FinetuneArguments, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: int
):
    args = replace(whole[0], output_dir=str(tmp_path / "cut"))
    save, written = loop.Trainer._save_state, []

    def save_and_die(trainer: loop.Trainer) -> None:
        save(trainer)
        written.append(1)
        if len(written) == states:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_save_state", save_and_die)
        with pytest.raises(Stopped):
            finetune_danet.finetune_danet(args)
    torch.rand(5)
    resumed = finetune_danet.finetune_danet(replace(args, resume=True))
    assert resumed["history"] == whole[1]["history"]
    for place in ("model.safetensors", "stage-2/checkpoints/best.safetensors"):
        expected, found = (load_file(Path(str(each.output_dir)) / place) for each in (whole[0], args))
        assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_the_best_epoch_of_both_stages_is_kept(danet_args: Build):
    args = danet_args(epochs=6, joint_epochs=1, joint_learning_rate=30.0, clip_norm=0.0)  # which ruins everything
    metrics = finetune_danet.finetune_danet(args)
    values = {name: found["macro_auroc"] for name, found in metrics["stages"].items()}
    assert values["stage-1"] > values["stage-2"]
    assert metrics["best_stage"] == "stage-1"
    kept = load_file(Path(str(args.output_dir)) / "model.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in best_of(args, "stage-1").items() if name in kept)
    assert metrics["valid"]["macro_auroc"]["estimate"] == pytest.approx(values["stage-1"])
    last = finetune_danet.finetune_danet(replace(args, output_dir=f"{args.output_dir}-last", keep_stage="last"))
    assert last["best_stage"] == "stage-2" and last["stages"] == metrics["stages"]


@pytest.mark.parametrize(
    ("values", "keep_stage", "kept"),
    [
        ((0.7, 0.8), "best", "stage-2"),
        ((0.8, 0.7), "best", "stage-1"),
        ((0.8, 0.8), "best", "stage-1"),
        ((0.8, None), "best", "stage-1"),
        ((0.8, 0.7), "last", "stage-2"),
        ((0.8,), "last", "stage-1"),
    ],
)
def test_the_earlier_of_equal_stages_is_kept_or_the_last_if_asked_for(
    values: tuple[float | None, ...], keep_stage: str, kept: str, tmp_path: Path
):
    model, found = torch.nn.Linear(1, 1, bias=False), {}
    for number, value in enumerate(values, 1):
        found[f"stage-{number}"] = Progress(best_value=value)
        folder = tmp_path / f"stage-{number}" / "checkpoints"
        folder.mkdir(parents=True)
        save_file({"weight": torch.full((1, 1), float(number))}, folder / "best.safetensors")
    assert finetune_danet._keep_weights(model, found, tmp_path, keep_stage) == kept
    assert kept == f"stage-{model.weight.item():.0f}"


def test_balanced_batches_hold_real_positives_negatives_and_simulated_records(danet_args: Build, pretrained: str):
    flags = {"checkpoint": pretrained, "simulated_records": 16, "batch_size": 64, "epochs": 1, "balance": True}
    args = danet_args(**flags)
    config = load_checkpoint(pretrained)[0].config
    extractor = EcgDanFeatureExtractor(**config.signal_contract)
    dataset = rows.load_dataset(args, extractor)
    config.id2label, config.label2id = {0: "APC"}, {"APC": 0}
    learned = LearnedRows.of(dataset, config, extractor, args)
    assert len(learned.rows) == len(learned.patient_ids) == len(dataset) + 16
    positive = np.array([len(labels) > 0 for labels in learned.rows["labels"]])
    drawn = np.concatenate([batch for _ in range(20) for batch in learned.sampler(args)])
    assert np.mean(drawn >= len(dataset)) == pytest.approx(0.5, abs=0.1)
    assert np.mean(positive[drawn[drawn < len(dataset)]]) == pytest.approx(0.5, abs=0.1)
    assert np.isfinite(learned.waveform_targets).all()  # real beats are marked, simulated ones known
    with_beats = learned.waveform_targets[: len(dataset)].max(axis=1) > 0.9
    assert np.array_equal(with_beats, positive[: len(dataset)])
    assert finetune_danet.finetune_danet(args)["num_simulated"] == 16


EVERYONE = {"valid_fraction": 0.0, "keep_stage": "last", "epochs": 1, "thresholds": {"APC": 0.7}}


def test_every_patient_can_be_trained_on_with_thresholds_from_elsewhere(danet_args: Build):
    args = danet_args(**EVERYONE)
    metrics = finetune_danet.finetune_danet(args)
    folder = Path(str(args.output_dir))
    assert metrics["num_records"] == {"train": 60} and "valid" not in metrics
    assert not (folder / "predictions.csv").exists()
    assert load_checkpoint(folder)[0].config.thresholds == {"APC": 0.7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep_stage": "best"}, "valid_fraction: 0 leaves no validation patients"),
        ({"epochs": 2}, "valid_fraction: 0 leaves no validation patients"),
        ({"thresholds": {}}, "valid_fraction: 0 trains on every patient; give each label"),
        ({"test_fraction": 0.2}, "valid_fraction: 0 trains on every patient"),
        ({"train_folds": "1-8"}, "valid_fraction: 0 trains on every patient; .* no folds"),
        ({"valid_folds": "9"}, "valid_fraction: 0 trains on every patient; .* no folds"),
        ({"test_folds": "10"}, "valid_fraction: 0 trains on every patient; .* no folds"),
        ({"label_fraction": 0.5}, "valid_fraction: 0 trains on every patient; .* label_fraction 1"),
        ({"thresholds": {"APC": 1.5}}, "thresholds: expected a probability for some of APC, got APC=1.5"),
        ({"thresholds": {"PVC": 0.5}}, "thresholds: expected a probability for some of APC, got PVC=0.5"),
    ],
)
def test_training_on_every_patient_leaves_nothing_to_choose(danet_args: Build, change: dict, message: str):
    args = danet_args(**{**EVERYONE, **change})
    with pytest.raises(ValueError, match=message) as refusal:
        finetune_danet.finetune_danet(args)
    assert "\n" not in str(refusal.value) and not Path(str(args.output_dir)).exists()


def test_a_split_that_leaves_patients_out_is_not_overruled_by_training_on_every_patient(danet_args: Build):
    args = danet_args(**EVERYONE)
    with pytest.raises(ValueError, match="valid_fraction: expected above 0 with a given split, got 0") as refusal:
        finetune_danet.finetune_danet(args, split=lambda *_: pytest.fail("was asked to divide the rows"))
    assert "\n" not in str(refusal.value) and not Path(str(args.output_dir)).exists()


def test_a_given_threshold_stands_beside_the_chosen_ones_and_is_the_one_that_is_judged(danet_args: Build):
    args = danet_args(keep_labels="NORMAL,APC", epochs=1)
    finetune_danet.finetune_danet(args)
    table = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv")
    thresholds = load_checkpoint(str(args.output_dir))[0].config.thresholds
    given = float(table["APC"].median())
    assert given != thresholds["APC"]
    again = replace(args, output_dir=f"{args.output_dir}-given", thresholds={"APC": given})
    judged = finetune_danet.finetune_danet(again)["valid"]["labels"]
    assert load_checkpoint(str(again.output_dir))[0].config.thresholds == {**thresholds, "APC": given}
    assert judged["APC"]["f1"] == pytest.approx(_f1_at(table["true_APC"], table["APC"], given))


def test_what_a_network_was_pretrained_on_is_said_of_those_that_were(
    pretrained: str, whole: tuple[FinetuneArguments, dict], hard_run: Path, tmp_path: Path
):
    facts = {"task": "danet", "pretext": "simulated-beats", "data": "mit-bih", "simulated_records": 32, "seed": 0}
    assert whole[1]["pretraining"] == finetune_danet._pretraining_of(pretrained) == facts
    begun = shutil.copytree(pretrained, tmp_path / "begun")
    (begun / "metrics.json").unlink()
    bare = shutil.copytree(pretrained, tmp_path / "bare")
    (bare / "recipe.yaml").unlink()
    fine_tuned, elsewhere = str(hard_run), "owner/danet"
    assert json.loads((hard_run / "metrics.json").read_text(encoding="utf-8"))["pretraining"] is None
    for checkpoint in (None, elsewhere, str(begun), str(bare), fine_tuned):
        assert finetune_danet._pretraining_of(checkpoint) is None, checkpoint


def test_another_label_starts_a_new_head_behind_the_same_network(danet_args: Build, pretrained: str, holter: Path):
    args = danet_args(checkpoint=pretrained, keep_labels="NORMAL,APC", epochs=1)
    metrics = finetune_danet.finetune_danet(args)
    assert {name.split(".")[0] for name in metrics["new_weights"]} == {"classifier", "evidence"}
    model, _ = load_checkpoint(str(args.output_dir))
    assert model.config.id2label == {0: "NORMAL", 1: "APC"}
    table = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv").set_index("record_id")
    dataset = load("mit-bih", holter, feature_extractor=EcgDanFeatureExtractor(), limit=60, num_proc=1)
    truth = dict(zip(dataset["record_id"], dataset["beats_APC"], strict=True))
    assert all((truth[record] > 0) == row["true_APC"] for record, row in table.iterrows())


def test_kept_labels_are_learned_by_plain_classification_too(danet_args: Build):
    small = {name: value for name, value in TINY_DANET.items() if hasattr(EcgDanConfig(), name)}
    args = replace(
        danet_args(task="classification", epochs=1, keep_labels="PVC,APC"),
        model={**small, "trunk": "light", "input_kind": "rhythm"},
    )
    finetune.finetune(args)
    model, extractor = load_checkpoint(str(args.output_dir))
    assert model.config.id2label == {0: "PVC", 1: "APC"}
    dataset = rows.load_dataset(args, extractor)
    positive = np.asarray(dataset["beats_APC"]) > 0
    assert [labels == [1] for labels in dataset["labels"]] == positive.tolist() and positive.any()


def labelled(*rows_of: tuple[str, list[int]], names: tuple[str, ...] = ("APC", "PVC")) -> Dataset:
    columns = {
        "record_id": [str(number) for number in range(len(rows_of))],
        "patient_id": [patient for patient, _ in rows_of],
        "labels": [labels for _, labels in rows_of],
    }
    kinds = {
        "record_id": Value("string"),
        "patient_id": Value("string"),
        "labels": List(ClassLabel(names=list(names))),
    }
    return Dataset.from_dict(columns, features=Features(kinds))


def test_positives_weigh_what_makes_them_even_and_no_more_than_ten():
    part = labelled(*[("p", [0])] * 2, *[("p", [1])], *[("p", [])] * 17)
    assert LearnedRows(part, []).positive_weights("balanced") == {"APC": 9.0, "PVC": 10.0}
    assert LearnedRows(part, []).positive_weights(3.0) == {"APC": 3.0, "PVC": 3.0}
    assert LearnedRows(part, []).positive_weights(None) is None
    assert LearnedRows(labelled(("p", []), ("q", [])), []).positive_weights("balanced") == {"APC": 1.0, "PVC": 1.0}


QRS_ALONE = {"name": "apc", "wave_weights": {"p": 0.0, "qrs": 1.0, "t": 0.0, "baseline": 0.0}}
QRS_ALONE |= {"beat": {}, "other_beats": 0.5, "smooth_seconds": 0.0}


def marked(rule: str | dict, num_samples: int = 1024, pad: int = 12) -> tuple[DanetConfig, EcgDanFeatureExtractor]:
    config = DanetConfig(**TINY_DANET, waveform_rule=rule, num_samples=num_samples, pad_samples=pad)
    return config, EcgDanFeatureExtractor(**config.signal_contract)


@pytest.mark.parametrize(
    ("seconds", "num_samples", "expected"),
    [(10.0, 1024, 12 + 500), (10.0, 784, 12 + 500 - 120), (6.0, 1024, 12 + 500 + 200), (30.0, 1024, 12 + 500 - 1000)],
    ids=["whole", "cropped", "padded", "of a long recording"],
)
def test_targets_lie_on_the_samples_of_the_marked_beats(seconds: float, num_samples: int, expected: int):
    """A QRS complex reaches from 4 samples before R to 6 after it, that of the rule's own beats from where P ends."""
    later = 11.0 if seconds == 30 else 5.0  # of 30 s the first ten are not shown
    part = Dataset.from_dict(
        {"beat_seconds": [[later, later + 0.8]], "beat_kinds": [["NORMAL", "APC"]], "duration_seconds": [seconds]}
    )
    found = _annotated_targets(part, *marked(QRS_ALONE, num_samples))
    weights = np.zeros((1, num_samples), np.float32)
    r_peak = expected + round((later - 5.0) * RATE)
    weights[0, r_peak - 4 : r_peak + 7], weights[0, r_peak + 80 - 6 : r_peak + 80 + 7] = 0.5, 1.0
    np.testing.assert_array_equal(found, weights)


@pytest.mark.parametrize(
    ("rule", "known"),
    [("apc", True), ("pvc", True), ({**QRS_ALONE, "name": "mine"}, False), ("all-ones", False), ("random", False)],
)
def test_of_a_rule_whose_beats_nobody_marked_nothing_is_learned(rule: str | dict, known: bool):
    """That no beat meets it would be learned otherwise."""
    part = Dataset.from_dict({"beat_seconds": [[5.0]], "beat_kinds": [["NORMAL"]], "duration_seconds": [10.0]})
    assert (_annotated_targets(part, *marked(rule)) is not None) == known
    assert _annotated_targets(part.select_columns("duration_seconds"), *marked(rule)) is None


@pytest.mark.parametrize("seed", range(6))
def test_every_part_has_patients_with_the_label_where_there_are_enough(seed: int):
    sick = [(f"s{number}", [0]) for number in range(3)]
    dataset = labelled(*sick, *[(f"h{number}", []) for number in range(17)], *[("s0", [])] * 3, names=("APC",))
    args = FinetuneArguments(seed=seed, valid_fraction=0.1, test_fraction=0.1)
    parts = rows.split(dataset, args, "labels")
    assert {name: sum(map(len, part["labels"])) for name, part in parts.items()} == dict.fromkeys(parts, 1)
    patients = [set(part["patient_id"]) for part in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 20


def test_the_balance_travels_in_the_configuration(hard_run: Path):
    model, extractor = load_checkpoint(hard_run)
    weights = model.config.positive_weights
    assert 1 < weights["APC"] <= 10 and model.positive_weights == [weights["APC"]]
    assert extractor.waveform_rule == model.config.waveform_rule is not None
    assert model.config.thresholds.keys() == {"APC"}


def test_the_weights_of_the_rule_reach_the_model_wherever_it_classifies(
    hard_run: Path, holter: Path, cache: Path, tmp_path: Path
):
    model, extractor = load_checkpoint(hard_run)
    table = pd.read_csv(hard_run / "predictions.csv").set_index("record_id")
    dataset = load("mit-bih", holter, feature_extractor=extractor, cache_dir=cache, num_proc=1)
    rows_of = [row for row, record in enumerate(dataset["record_id"]) if record in table.index]
    part = dataset.select(rows_of)
    found = 1 / (1 + np.exp(-score_rows(model, part)[:, 0]))
    expected = table.loc[list(part["record_id"]), "APC"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    ones = [np.ones_like(weights) for weights in part["waveform_weights"]]
    uniform = Dataset.from_dict({**part.to_dict(), "waveform_weights": ones}, features=part.features)
    assert np.abs(1 / (1 + np.exp(-score_rows(model, uniform)[:, 0])) - expected).max() > 1e-3
    number = int(str(part["record_id"][0])[1:3])
    whole = signal(beats(number)[0], number)[:, : 10 * RATE]
    write_record(tmp_path / "strip", whole, RATE, ("MLII", "V1"), fmt="16", adc_gain=1000.0)
    with torch.inference_mode():
        direct = model(**extractor(whole, RATE, "mV", ["II", "V1"], return_tensors="pt")).logits.sigmoid().item()
    assert predict(tmp_path / "strip.hea", model, extractor)["APC"][0] == pytest.approx(direct, abs=1e-3)
    out = tmp_path / "out.csv"
    done = CliRunner().invoke(
        app, ["predict", str(tmp_path / "strip.hea"), f"--checkpoint={hard_run}", f"--out={out}"]
    )
    assert done.exit_code == 0, done.output
    assert pd.read_csv(out)["APC"][0] == pytest.approx(direct, abs=1e-3)


def test_a_danet_is_judged_on_the_labels_it_knows(hard_run: Path, cache: Path, tmp_path: Path):
    elsewhere = write_holter(tmp_path / "holter", seed=1)  # a copy would be recognised by its signals
    flags = ["--data=mit-bih", f"--data-dir={elsewhere}", f"--cache-dir={cache}", "--bootstrap=10", "--num-proc=1"]
    where = [f"--checkpoint={hard_run}", f"--output-dir={tmp_path / 'judged'}"]
    done = CliRunner().invoke(app, ["evaluate", *flags, *where])
    assert done.exit_code == 0, done.output
    assert "60 held-out records of 12 patients" in done.output


@pytest.mark.parametrize("module", ["soft", "hard"])
def test_simulated_records_are_learned_beside_the_real_ones(
    danet_args: Build, module: str, monkeypatch: pytest.MonkeyPatch
):
    batches, train = [], loop.Trainer.run

    def look(trainer: loop.Trainer) -> Progress:
        batches.append(trainer.collator(trainer.loader.dataset.__getitems__([3, 19, 40, 63])))
        return train(trainer)

    monkeypatch.setattr(loop.Trainer, "run", look)
    args = danet_args(simulated_records=24, epochs=1, model={"waveform_module": module}, positive_weight="balanced")
    metrics = finetune_danet.finetune_danet(args)
    assert metrics["num_simulated"] == 24 and metrics["num_records"]["train"] == 40
    real = metrics["num_positive"]["train"]["APC"]
    assert metrics["positive_weights"]["APC"] < (40 - real) / real  # half of what is simulated is positive
    column = {"soft": "waveform_targets", "hard": "waveform_weights"}[module]
    assert set(batches[0]) == {"input_values", "lead_mask", "labels", column}
    simulated = batches[0][column][2:]
    assert 0 <= simulated.min() < 0.3 and 0.3 < simulated.amax(dim=1).min() <= 1


def test_a_control_is_shown_simulated_beats_of_the_rule_it_controls(danet_args: Build):
    flags = {"simulated_records": 8, "epochs": 1, "model": {"waveform_module": "none", "waveform_rule": "all-ones"}}
    with pytest.raises(ValueError, match=r"simulated_records: expected keep_labels ALL-ONES, .* got APC"):
        finetune_danet.finetune_danet(danet_args(**flags))
    assert finetune_danet.finetune_danet(danet_args(**flags, simulated_rule="apc"))["num_simulated"] == 8


def test_a_given_split_divides_the_rows(danet_args: Build):
    def one_record_out(dataset: Dataset, args: FinetuneArguments, stratify_by: str | None) -> dict[str, Dataset]:
        patients = np.asarray(dataset["patient_id"])
        kept = {"train": ~np.isin(patients, ["100", "101", "103"]), "valid": np.isin(patients, ["101", "103"])}
        chosen = {name: dataset.select(np.flatnonzero(where)) for name, where in kept.items()}
        return dict(**chosen, test=dataset.select(np.flatnonzero(patients == "100")))

    args = danet_args(epochs=1, joint_epochs=0)
    metrics = finetune_danet.finetune_danet(args, split=one_record_out)
    assert metrics["num_records"] == {"train": 45, "valid": 10, "test": 5}
    assert metrics["num_positive"]["test"] == {"APC": 0}
    assert "not_estimable" in metrics["test"] or metrics["test"]["labels_not_estimable"] == ["APC"]
    table = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv")
    assert set(table.loc[table["part"] == "test", "patient_id"]) == {100}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"joint_epochs": 2}, "joint_epochs, joint_learning_rate: expected both"),
        ({"joint_learning_rate": 0.1}, "joint_epochs, joint_learning_rate: expected both"),
        ({"joint_epochs": -1, "joint_learning_rate": 0.1}, "joint_epochs: expected no negative number, got -1"),
        ({"positive_weight": "heavy"}, "positive_weight: expected balanced or a positive number, got 'heavy'"),
        ({"positive_weight": 0}, "positive_weight: expected balanced or a positive number, got 0"),
        ({"keep_labels": "APC,apb"}, "labels: expected some of NORMAL, .*, got apb"),
        (
            {"keep_labels": "PVC"},
            "labels: expected records with and without a label in the train part, found PVC",
        ),
        (
            {"keep_labels": "APC,PVC", "simulated_records": 9},
            "simulated_records: expected keep_labels APC, .* got APC",
        ),
        ({"teachers": "x"}, "teachers: only task classification uses it, got task danet"),
        ({"covariates": "age"}, "covariates: only task survival uses it, got task danet"),
        ({"stratify": False}, "stratify: only task survival uses it, got task danet"),
        ({"task": "classification", "positive_weight": 2}, "positive_weight: only task danet uses it, got task class"),
        ({"task": "survival", "keep_labels": "APC"}, "keep_labels: only task classification or danet uses it"),
        ({"model": {"classifier_network": "vgg"}}, "classifier_network: expected one of ecgdan, resnet1d, got 'vgg'"),
        ({"resume": True}, "expected a run to resume, found no recipe.yaml"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(danet_args: Build, flags: dict, message: str):
    args = danet_args(**flags)
    with pytest.raises(ValueError, match=message) as refusal:
        (finetune_danet.finetune_danet if args.task == "danet" else finetune.finetune)(args)
    assert "\n" not in str(refusal.value)
    assert not Path(str(args.output_dir)).exists()


def test_a_checkpoint_is_not_contradicted_and_not_taken_for_another(danet_args: Build, pretrained: str):
    with pytest.raises(ValueError, match=r"model: waveform_module is 'soft' in .*, got 'none'; the weights fix it"):
        finetune_danet.finetune_danet(danet_args(checkpoint=pretrained, model={"waveform_module": "none"}))
    with pytest.raises(ValueError, match="is a DANet checkpoint; go on from it with task danet"):
        finetune.finetune(danet_args(task="classification", checkpoint=pretrained))
    with pytest.raises(ValueError, match="task: danet is trained by `ecgdan finetune`"):
        finetune.finetune(danet_args())
