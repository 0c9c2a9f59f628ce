"""Recipes, flags and folds: what is given is used or refused."""

import dataclasses
from pathlib import Path

import pytest
import typer
import yaml

from ecgdan_hf.training.arguments.command import _parse_assignments, with_flags
from ecgdan_hf.training.arguments.fields import (
    AblateArguments,
    EvaluateArguments,
    FinetuneArguments,
    PretrainArguments,
    ProbeArguments,
)
from ecgdan_hf.training.arguments.options import _RECIPES_DIR, _read_recipe, check_options, resolve
from ecgdan_hf.training.studies.ablation import _plan

KINDS = {
    "pretrain": PretrainArguments,
    "finetune": FinetuneArguments,
    "demo": FinetuneArguments,
    "ablation": AblateArguments,
}


@pytest.mark.parametrize("recipe", sorted(_RECIPES_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_has_only_known_keys_and_a_reason_beside_each_number(recipe: Path):
    args = resolve(KINDS[recipe.stem.split("-")[0]], recipe)
    if isinstance(args, AblateArguments):
        _plan(args)
    for line in recipe.read_text(encoding="utf-8").splitlines():
        key, _, rest = line.strip().partition(": ")
        value = rest.split("#")[0].strip()
        if value.replace(".", "").replace("e-", "").isdigit() and key != "seed":
            assert "#" in rest, f"{recipe.name}: {key} has no reason"


def test_flags_override_the_recipe_and_the_recipe_overrides_the_defaults(tmp_path: Path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "epochs: 7\nlearning_rate: 1e-4\nmodel: {hidden_size: 32, dropout_scope: batch}\n", encoding="utf-8"
    )
    args = resolve(FinetuneArguments, recipe, {"epochs": 3, "batch_size": None, "model": {"hidden_size": 64}})
    assert (args.epochs, args.learning_rate, args.batch_size) == (3, 1e-4, 128)
    assert args.model == {"hidden_size": 64, "dropout_scope": "batch"}


def test_an_unknown_key_is_refused_with_the_one_that_was_meant(tmp_path: Path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("learning_rat: 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"unknown key 'learning_rat'; did you mean learning_rate\?"):
        resolve(FinetuneArguments, recipe)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("epochs", "many", "int"), ("epochs", True, "int"), ("learning_rate", "fast", "float"), ("model", 3, "dict")],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(key: str, value: object, expected: str):
    with pytest.raises(ValueError, match=f"{key}: expected .*{expected}"):
        resolve(PretrainArguments, None, {key: value})


def test_a_recipe_that_does_not_exist_names_the_shipped_ones():
    with pytest.raises(FileNotFoundError, match="shipped: ablation, demo, finetune-classification"):
        _read_recipe("no-such-recipe")


def test_the_recipe_of_a_finished_run_is_a_recipe_again(tmp_path: Path):
    args = resolve(FinetuneArguments, "finetune-survival", {"output_dir": "x"})
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**dataclasses.asdict(args), "versions": {"torch": "2"}}), encoding="utf-8")
    assert resolve(FinetuneArguments, path) == args


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (PretrainArguments, {"simulated_rule": "pvc"}, "simulated_rule: only task danet uses it, got task alignment"),
        (PretrainArguments, {"lora_rank": 4}, "lora_rank: only text_tower lora uses it, got text_tower frozen"),
        (PretrainArguments, {"lead_masking": "often"}, "lead_masking: expected record, batch or none, got 'often'"),
        (
            FinetuneArguments,
            {"teacher_weight": 0.1},
            "teacher_weight: only task classification uses it, got task surv",
        ),
        (ProbeArguments, {"zero_shot": True, "label_fraction": 0.1}, "label_fraction: not used with zero_shot; leave"),
        (EvaluateArguments, {"folds": 5}, "folds: only protocol repeated-cv uses it, got protocol held-out; leave it"),
        (EvaluateArguments, {"protocol": "repeated-cv", "overwrite": True}, "overwrite: only protocol held-out uses"),
    ],
)
def test_a_value_that_the_chosen_task_ignores_is_rejected(kind: type, given: dict, message: str):
    with pytest.raises(ValueError, match=message):
        check_options(kind(**given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip_norm": -1.0}, "clip_norm: expected at least 0, got -1.0"),
        ({"clip_norm": float("nan")}, "clip_norm: expected at least 0, got nan"),
        ({"patience": -1}, "patience: expected at least 1, got -1"),
        ({"lead_masking_probability": 5.0}, "lead_masking_probability: expected a share between 0 and 1, got 5.0"),
        ({"checkpoint_every_steps": 0}, "checkpoint_every_steps: expected at least 1, got 0"),
        ({"weight_decay": -0.1}, "weight_decay: expected at least 0, got -0.1"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
    ],
)
def test_a_number_out_of_its_range_is_rejected(given: dict, message: str):
    with pytest.raises(ValueError, match=message):
        check_options(FinetuneArguments(**given))


@pytest.mark.parametrize("kind", [PretrainArguments, FinetuneArguments, ProbeArguments, EvaluateArguments])
def test_every_condition_of_an_argument_names_an_argument_and_values_that_it_may_have(kind: type):
    fields = {item.name: item for item in dataclasses.fields(kind)}
    check_options(kind())
    for item in fields.values():
        for name, values in item.metadata["when"].items():
            possible = fields[name].metadata["choices"] or ((True, False) if fields[name].type is bool else values)
            assert set(values) - {None} <= set(possible), f"{item.name}: {name}"


def test_model_flags_are_read_as_yaml_and_need_an_equals_sign():
    assert _parse_assignments(["a=1", "b=x", "c=[1, 2]"]) == {"a": 1, "b": "x", "c": [1, 2]}
    with pytest.raises(ValueError, match="--model: expected key=value, got 'a'"):
        _parse_assignments(["a"])


def test_a_source_that_is_not_named_is_recognised_and_said_in_one_line(tmp_path, capsys):
    (tmp_path / "table.csv").write_text("file,patient_id\n", encoding="utf-8")
    seen = []
    app = typer.Typer()
    app.command()(with_flags(FinetuneArguments, lambda args: seen.append(args.data), "Fine-tune."))
    app(["--data-dir", str(tmp_path), "--config", "finetune-survival"], standalone_mode=False)
    assert seen == ["csv"]
    assert capsys.readouterr().err == f"data: {tmp_path} is recognised as csv (own recordings)\n"
    app(["--data-dir", str(tmp_path), "--data", "PTBXL"], standalone_mode=False)
    assert seen[1:] == ["ptb-xl"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"learning_rate": float("nan")}, "learning_rate: expected a finite number, got nan"),
        ({"epochs": 10**15}, "epochs: expected a number within 4,294,967,295"),
        ({"ema_decay": 2.0}, "ema_decay: expected a share between 0 and 1, got 2.0"),
    ],
)
def test_numbers_that_no_run_can_have_are_refused(flags: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options(resolve(FinetuneArguments, None, {"task": "survival", **flags}))
