"""Pipelines: recordings or files in, labels with scores out, by the same numbers as the model's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY
from transformers import pipeline

import ecgdan_hf
from ecgdan_hf.data.formats import read
from ecgdan_hf.data.reports import resolve_text_model
from ecgdan_hf.data.synthetic import write_cohort
from ecgdan_hf.model.pipeline_ecgdan import as_recording

TASK = "zero-shot-ecg-classification"
LABELS = ["NORM", "AFIB", "LVH"]
WIDTH = 384


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pipeline") / "cohort"
    write_cohort(folder, n=20, seed=0)
    return sorted(folder.rglob("*.hea"))[:2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("checkpoint"))


def save(folder: Path, **config: Any) -> Path:
    torch.manual_seed(0)
    settings = {**TINY, "sampling_rate": 50, "text_embed_dim": WIDTH, **config}
    model = ecgdan_hf.EcgDanForPreTraining(ecgdan_hf.EcgDanConfig(**settings))
    if model.alignment_head is not None:
        model.set_prompts(LABELS, torch.randn(len(LABELS), WIDTH))
    model.save_pretrained(folder)
    ecgdan_hf.EcgDanFeatureExtractor(**model.config.signal_contract).save_pretrained(folder)
    return folder


def by_label(found: list[dict[str, Any]]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in found}


@pytest.fixture
def classify(checkpoint: Path) -> Any:
    return pipeline(TASK, model=str(checkpoint))


def test_scores_are_the_softmax_of_the_models_prompt_logits(classify: Any, checkpoint: Path, files: list[Path]):
    found = classify(str(files[0]))
    features = classify.feature_extractor(**read(files[0]).as_inputs(), return_tensors="pt")
    model = ecgdan_hf.EcgDanForPreTraining.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        expected = model(**features, return_loss=False).prompt_logits[0].softmax(-1)
    assert sum(entry["score"] for entry in found) == pytest.approx(1)
    assert by_label(found) == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)
    assert [entry["score"] for entry in found] == sorted((entry["score"] for entry in found), reverse=True)


def test_a_recording_may_be_a_mapping_an_array_a_path_or_a_list_of_them(classify: Any, files: list[Path]):
    whole = read(files[0]).as_inputs()
    array = whole.pop("signal")
    expected = classify(files[0])
    assert classify({"signal": array, **whole}) == expected
    assert classify(array, **whole) == expected
    several = classify([{"signal": array, **whole}, str(files[1])])
    assert several[0] == expected
    batched = classify(list(map(str, files)), batch_size=2)
    assert [by_label(found) for found in batched] == [pytest.approx(by_label(found), rel=1e-4) for found in several]


def test_candidates_and_top_k_choose_among_the_labels(classify: Any, files: list[Path]):
    two = classify(files[0], candidate_labels="LVH, NORM")
    assert {entry["label"] for entry in two} == {"LVH", "NORM"}
    assert sum(entry["score"] for entry in two) == pytest.approx(1)
    assert classify(files[0], top_k=1) == classify(files[0])[:1]


def test_with_multi_label_a_score_does_not_depend_on_the_other_candidates(classify: Any, files: list[Path]):
    alone = classify(files[0], candidate_labels=["LVH"], multi_label=True)
    among = classify(files[0], multi_label=True)
    assert alone[0]["score"] == pytest.approx(next(e["score"] for e in among if e["label"] == "LVH"))


def test_free_texts_need_the_dual_encoder_and_then_agree_with_it(checkpoint: Path, files: list[Path]):
    from transformers import AutoTokenizer

    minilm = resolve_text_model("minilm")
    model = ecgdan_hf.EcgTextModel.from_ecgdan(str(checkpoint), minilm)
    extractor = ecgdan_hf.EcgDanFeatureExtractor.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    classify = pipeline(TASK, model=model, feature_extractor=extractor, tokenizer=tokenizer)
    found = classify(files[0], candidate_labels=["NORM", "a fast heart"], hypothesis_template="ECG of {}")
    tokens = tokenizer(["ECG of a fast heart"], return_tensors="pt")
    features = extractor(**read(files[0]).as_inputs(), return_tensors="pt")
    with torch.no_grad():
        output = model(**features, **tokens)
    expected = torch.stack([output.prompt_logits[0, 0], output.logits_per_ecg[0, 0]]).softmax(-1)
    assert by_label(found) == pytest.approx({"NORM": float(expected[0]), "a fast heart": float(expected[1])}, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"candidate_labels": ["NORM", "a fast heart"]},
            r"a fast heart: expected labels .* carries \(NORM",
        ),
        ({"candidate_labels": []}, "candidate_labels: expected at least one label"),
        ({"top_k": 0}, "top_k: expected one or more"),
        ({"rate": 500}, "rate: nothing reads it"),
    ],
)
def test_arguments_that_cannot_be_served_are_refused(classify: Any, files: list[Path], arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        classify(files[0], **arguments)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [({"ecg": 1}, "expected a mapping with signal, got ecg"), (np.zeros(5), "got ndarray"), (None, "got NoneType")],
)
def test_what_is_no_recording_is_refused(inputs: Any, message: str):
    with pytest.raises(ValueError, match=message):
        as_recording(inputs, {})


def test_a_checkpoint_without_texts_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="expected one pretrained with texts"):
        pipeline(TASK, model=str(save(tmp_path, text_embed_dim=None)))
