"""Zero-shot from a checkpoint with prompts: no language model, no fitting, nothing it was trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import TINY

from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining
from ecgdan_hf.training import zero_shot_probe
from ecgdan_hf.training.arguments.fields import ProbeArguments
from ecgdan_hf.training.arguments.options import resolve

LABELS = ["NORM", "LVH", "CLBBB", "CRBBB"]
TEXT_WIDTH = 384


def save_checkpoint(folder: Path, labels: list[str] = LABELS, seed: int = 0) -> Path:
    """A random network with random prompts."""
    torch.manual_seed(seed)
    model = EcgDanForPreTraining(EcgDanConfig(**TINY, sampling_rate=50, text_embed_dim=TEXT_WIDTH))
    if labels:
        model.set_prompts(labels, torch.randn(len(labels), 2, TEXT_WIDTH))
    model.save_pretrained(folder)
    EcgDanFeatureExtractor(**model.config.signal_contract).save_pretrained(folder)
    return folder


@pytest.fixture
def zero_shot_args(cohort: Path, cache: Path, tmp_path: Path) -> Callable[..., ProbeArguments]:
    def build(**flags: Any) -> ProbeArguments:
        flags.setdefault("checkpoint", save_checkpoint(tmp_path / "pretrained", cohort_labels(cohort)))
        paths = {"data_dir": cohort, "cache_dir": cache, "output_dir": tmp_path / "zero-shot", "data": "csv"}
        few = {"zero_shot": True, "num_proc": 1, "bootstrap": 20, "permutations": 3, "min_positives": 2}
        return resolve(ProbeArguments, None, {**{k: str(v) for k, v in paths.items()}, **few, **flags})

    return build


def cohort_labels(cohort: Path) -> list[str]:
    from ecgdan_hf.data.sources.registry import read_source

    return sorted({label for labels in read_source("csv", cohort)["labels"] for label in labels})


def test_every_label_with_a_prompt_is_judged_beside_permuted_prompts_and_a_control(
    zero_shot_args: Callable[..., ProbeArguments], cohort: Path, tmp_path: Path
):
    control = save_checkpoint(tmp_path / "other", cohort_labels(cohort), seed=1)
    args = zero_shot_args(control={"shuffled": str(control)}, test_folds="1-10")
    metrics = zero_shot_probe.zero_shot_probe(args)
    found = metrics["levels"]["label"]
    assert metrics["num_records"] == 48
    assert set(found["labels"]) | set(found["not_judged"]) == set(cohort_labels(cohort))
    assert found["permuted_prompts"]["permutations"] == 3
    ahead, theirs = (found["controls"]["shuffled"][name] for name in ("ahead", "macro_auroc"))
    assert ahead["estimate"] == pytest.approx(found["macro_auroc"]["estimate"] - theirs)
    text = (tmp_path / "zero-shot" / "report.md").read_text(encoding="utf-8")
    assert "prompts permuted" in text and "shuffled" in text


def test_fewer_leads_change_what_the_network_sees(zero_shot_args: Callable[..., ProbeArguments]):
    whole, two = (
        zero_shot_probe._prompted(str(args.checkpoint), args)
        for args in (zero_shot_args(), zero_shot_args(leads="I,II"))
    )
    assert whole.logits.shape == two.logits.shape
    assert not np.allclose(whole.logits, two.logits)


def test_the_logits_are_those_of_the_model_itself(zero_shot_args: Callable[..., ProbeArguments]):
    args = zero_shot_args()
    found = zero_shot_probe._prompted(str(args.checkpoint), args)
    model, _ = load_checkpoint(str(args.checkpoint))
    batch = found.test.with_format("torch", columns=["input_values", "lead_mask"])[:]
    with torch.no_grad():
        expected = model(batch["input_values"], batch["lead_mask"].bool(), return_loss=False).prompt_logits
    np.testing.assert_allclose(found.logits, expected.numpy(), atol=1e-5)


def test_prompts_from_a_file_take_the_place_of_those_in_the_checkpoint(
    zero_shot_args: Callable[..., ProbeArguments], cohort: Path, tmp_path: Path
):
    first, second = cohort_labels(cohort)[:2]
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text(yaml.safe_dump({first: ["one wording", "another wording"], second: "a text"}), encoding="utf-8")
    args = zero_shot_args(prompts=str(prompts), text_model="minilm")
    found = zero_shot_probe._prompted(str(args.checkpoint), args)
    assert found.labels == [first, second]
    model, _ = load_checkpoint(str(args.checkpoint))
    labels, embeds = zero_shot_probe._custom_prompts(model, args)
    torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(2))
    assert set(zero_shot_probe.zero_shot_probe(args)["levels"]["label"]["labels"]) <= set(labels)


def test_statements_held_out_of_pretraining_are_judged_apart(
    zero_shot_args: Callable[..., ProbeArguments], cohort: Path, tmp_path: Path
):
    labels = cohort_labels(cohort)
    folder = save_checkpoint(tmp_path / "held-out", labels)
    recipe = {"data_dir": "elsewhere", "train_folds": "1-8", "hold_out_statements": f"{labels[0]}, {labels[1]}"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    metrics = zero_shot_probe.zero_shot_probe(zero_shot_args(checkpoint=str(folder), min_positives=1))
    assert set(metrics["levels"]["statement, held out of pretraining"]["labels"]) == set(labels[:2])


def test_folds_that_trained_are_refused_and_folds_that_chose_the_epoch_are_said(
    zero_shot_args: Callable[..., ProbeArguments], cohort: Path, tmp_path: Path
):
    folder = save_checkpoint(tmp_path / "trained", cohort_labels(cohort))
    recipe = {"data_dir": str(cohort), "train_folds": "1-6", "valid_folds": "7-10"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with pytest.raises(ValueError, match=r"was trained on folds \[6\]"):
        zero_shot_probe.zero_shot_probe(zero_shot_args(checkpoint=str(folder), test_folds="6-7"))
    metrics = zero_shot_probe.zero_shot_probe(zero_shot_args(checkpoint=str(folder), test_folds="7-10"))
    assert "was chosen on folds that are judged here" in metrics["notes"][0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"task": "survival"}, "zero_shot: only task classification"),
        ({"train_folds": "1-6", "test_folds": "7"}, "train_folds: not used with zero_shot; leave it out"),
        ({"zero_shot": False, "prompts": "x.yaml"}, "prompts: not used without zero_shot; leave it out"),
        (
            {
                "zero_shot": False,
                "label_fractions": "1",
                "label_fraction": 0.5,
                "min_positives": 10,
                "permutations": 20,
            },
            "expected one of the two, got both",
        ),
        ({"text_model": "minilm"}, "text_model: only prompts of your own need one"),
        ({"min_positives": 1000}, "no class with a prompt and 1000 positives"),
    ],
)
def test_what_contradicts_itself_or_cannot_be_judged_is_refused(
    zero_shot_args: Callable[..., ProbeArguments], flags: dict, message: str
):
    with pytest.raises(ValueError, match=message):
        zero_shot_probe.zero_shot_probe(zero_shot_args(**flags))


def test_a_checkpoint_without_prompts_is_refused(zero_shot_args: Callable[..., ProbeArguments], tmp_path: Path):
    args = zero_shot_args(checkpoint=str(save_checkpoint(tmp_path / "bare", [])))
    with pytest.raises(ValueError, match="expected a checkpoint that carries prompts"):
        zero_shot_probe.zero_shot_probe(args)


@pytest.mark.parametrize("content", ["- a\n", "{}", "NORM: []", "NORM: [1]", "NORM: ''"])
def test_a_prompt_file_without_texts_is_refused(content: str, tmp_path: Path):
    path = tmp_path / "prompts.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a (mapping|text)"):
        zero_shot_probe._read_prompts(str(path))
