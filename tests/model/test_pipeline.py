"""What all pipelines share: forms of recordings, batches, refusals; and zero-shot, by the model's own numbers."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from fixtures.danet_arguments import TINY_DANET
from tiny import TINY
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

import ecgdan_hf
from ecgdan_hf.data.formats import read
from ecgdan_hf.data.loading import load
from ecgdan_hf.data.simulate.synthetic import write_cohort
from ecgdan_hf.data.text.statements import resolve_text_model

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


def with_extractor(model: Any) -> dict[str, Any]:
    return {
        "model": model.eval(),
        "feature_extractor": ecgdan_hf.EcgDanFeatureExtractor(**model.config.signal_contract),
    }


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
        ({"rate": 500}, "rate: unknown argument"),
    ],
)
def test_arguments_that_cannot_be_served_are_refused(classify: Any, files: list[Path], arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        classify(files[0], **arguments)


# What every pipeline is given


@pytest.fixture(scope="module")
def embed(checkpoint: Path) -> Any:
    return pipeline("ecg-feature-extraction", model=str(checkpoint), return_tensors=True)


@pytest.fixture(scope="module")
def archive(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first recording in a file that needs no other."""
    path = tmp_path_factory.mktemp("archive") / "ecg.npz"
    np.savez(path, **read(files[0]).as_inputs())
    return path


def test_every_form_of_a_recording_gives_the_same_answer(embed: Any, files: list[Path], archive: Path):
    whole = read(files[0]).as_inputs()
    signal, rest = whole["signal"], {name: value for name, value in whole.items() if name != "signal"}
    expected = embed(str(files[0]))
    forms = {
        "path": files[0],
        "record": read(files[0]),
        "mapping": whole,
        "mapping of lists": {**whole, "signal": signal.tolist()},
        "mapping with path": {"path": str(files[0]), "bytes": None, "age": 3},
        "mapping with bytes": {"path": "elsewhere", "bytes": archive.read_bytes()},
        "bytes": archive.read_bytes(),
        "file opened for reading": io.BytesIO(archive.read_bytes()),
        "array": signal,
        "tensor": torch.from_numpy(signal),
        "array the other way round": signal.T,
    }
    for form, recording in forms.items():
        arguments = rest if isinstance(recording, (np.ndarray, torch.Tensor)) else {}
        assert torch.allclose(embed(recording, **arguments), expected, atol=1e-5), form
    assert torch.allclose(embed(1000 * signal, **rest | {"unit": "uV"}), expected, atol=1e-5)
    content = io.BytesIO()
    np.save(content, signal)  # a file that says nothing of its signal
    for recording, arguments in (({"bytes": content.getvalue(), **rest}, {}), (content.getvalue(), rest)):
        assert torch.allclose(embed(recording, **arguments), expected, atol=1e-5)


def test_several_recordings_are_answered_in_order_and_a_batch_says_what_each_says_alone(embed: Any, files: list[Path]):
    paths = [str(path) for path in files] * 2 + [str(files[0])]
    alone = torch.stack([embed(path) for path in paths])
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)
    ways = {
        "list": embed(paths),
        "tuple": embed(tuple(paths)),
        "generator": list(embed(path for path in paths)),
        "iterator": list(embed(iter(paths))),
        "dataset by key": list(embed(KeyDataset(Dataset.from_dict({"ecg": paths}), "ecg"))),
        "batches": embed(paths, batch_size=2),
        "batches of a generator": list(embed((path for path in paths), batch_size=3)),
    }
    for way, answers in ways.items():
        assert torch.allclose(torch.stack(answers), alone, atol=1e-5), way
    assert embed([]) == []


def test_rows_of_a_dataset_are_recordings_as_recorded_streamed_or_prepared(
    embed: Any, files: list[Path], tmp_path: Path
):
    options: dict[str, Any] = {"limit": 3, "num_proc": 1, "cache_dir": tmp_path}
    rows = load("wfdb", files[0].parents[2], **options)
    prepared = load("wfdb", files[0].parents[2], feature_extractor=embed.feature_extractor, **options)
    stream = load("wfdb", files[0].parents[2], streaming=True, **options)
    expected = torch.stack([embed(read(rows[0]["file"])), *(embed(read(row["file"])) for row in list(rows)[1:])])
    rest = {"sampling_rate": rows[0]["sampling_rate"], "unit": "mV", "lead_names": rows[0]["lead_names"]}
    ways = {
        "rows": embed(rows, batch_size=2),
        "rows of tensors": embed(rows.with_format("torch")),
        "a list of rows": embed(list(rows)),
        "a column": embed(KeyDataset(rows, "signal"), **rest),
        "a stream": embed(stream),
        "prepared": embed(prepared, batch_size=3),
    }
    for way, answers in ways.items():
        assert torch.allclose(torch.stack(list(answers)), expected, atol=1e-4), way


def test_flags_of_a_recording_are_in_the_answer_of_every_pipeline(
    classify: Any, embed: Any, checkpoint: Path, files: list[Path]
):
    recording = read(files[0]).as_inputs()
    poor = recording["signal"].copy()
    poor[recording["lead_names"].index("V3")] = 0.0
    two = [recording, {**recording, "signal": poor}, {**recording, "flags": ["reader_warning:x"]}]
    for answers in (classify(two, batch_size=3), classify(two)):
        flags = [{tuple(entry["flags"]) for entry in answer} for answer in answers]
        assert all(len(each) == 1 for each in flags)  # the same for every label
        good, bad, told = (next(iter(each)) for each in flags)
        assert "lead_flat:V3" in bad and "lead_flat:V3" not in good and told[0] == "reader_warning:x"
    assert "lead_flat:V3" in embed(two[1], return_flags=True)["flags"]


def test_precision_and_device_are_those_asked_for(checkpoint: Path, embed: Any, files: list[Path]):
    task, source = "ecg-feature-extraction", str(checkpoint)
    halved = pipeline(task, model=source, dtype=torch.bfloat16, device="cpu", local_files_only=True)
    assert halved.model.dtype == torch.bfloat16 and halved.device == torch.device("cpu")
    found, expected = torch.tensor(halved(files[0])), embed(files[0])
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_numbers_are_those_of_the_processor(checkpoint: Path, embed: Any, files: list[Path]):
    on_gpu = pipeline("ecg-feature-extraction", model=str(checkpoint), device=0, return_tensors=True)
    assert torch.allclose(on_gpu(str(files[0])), embed(str(files[0])), atol=1e-3)


ARRAY = np.random.default_rng(0).normal(size=(2, 5000))


@pytest.mark.parametrize(
    ("inputs", "arguments", "message"),
    [
        ({"ecg": 1}, {}, "^inputs: expected a mapping with signal, path or bytes, got ecg$"),
        (None, {}, "^inputs: expected a path, .*, got NoneType$"),
        (np.zeros(5), {}, r"^inputs: expected an array \(leads, samples\), got shape \(5,\); give several .* list$"),
        (["a", "b"], {}, "got a list that is no array$"),
        (ARRAY, {"unit": "mV", "lead_names": ["I", "II"]}, "^sampling_rate: expected the recording's rate in Hz, got"),
        (ARRAY, {"sampling_rate": 500, "lead_names": ["I", "II"]}, "^unit: expected one of mV, uV, V, got None$"),
        (ARRAY, {"sampling_rate": 500, "unit": "mV"}, "^lead_names: expected one name for each row of signal, got"),
        ("absent.hea", {}, r"^absent\.hea: no such file"),
        (b"no ECG at all", {}, "^bytes: not a known ECG file, got"),
        ({"input_values": [[0.0]], "lead_mask": [True]}, {}, r"^inputs: input_values: .* \(12, 64\), got \(1, 1\)$"),
        ({"input_values": np.zeros((12, 64))}, {}, r"^inputs: lead_mask: expected .* \(12,\), got None$"),
        (ARRAY, {"rate": 500}, "^rate: unknown argument; expected sampling_rate, unit, lead_names, pooling"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(embed: Any, inputs: Any, arguments: dict, message: str):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        embed([inputs] if isinstance(inputs, list) else inputs, **arguments)
    assert "\n" not in str(caught.value)


def test_without_the_package_arrays_serve_and_files_say_what_to_install(
    embed: Any, files: list[Path], archive: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = read(files[0]).as_inputs()
    monkeypatch.setitem(sys.modules, "ecgdan_hf.data.formats", None)
    assert len(embed(whole)) == TINY["hidden_size"]
    for recording, name in ((files[0], files[0].name), (archive.read_bytes(), "bytes")):
        with pytest.raises(ValueError, match=rf"{name}: reading files needs the package \(pip install ecgdan-hf\)"):
            embed(recording)


# Which checkpoint fits which pipeline

TASKS = ("ecg-classification", "ecg-survival", "zero-shot-ecg-classification", "ecg-feature-extraction")


def model_of(kind: str, **config: Any) -> Any:
    torch.manual_seed(0)
    settings = {**TINY, "sampling_rate": 50, **config}
    if kind.startswith("Danet"):
        return getattr(ecgdan_hf, kind)(ecgdan_hf.DanetConfig(**TINY_DANET))
    if kind == "EcgTextModel":
        return ecgdan_hf.EcgTextModel(ecgdan_hf.EcgTextConfig(ecg_config={**settings, "text_embed_dim": WIDTH}))
    if kind == "EcgDanForSurvival":
        return ecgdan_hf.EcgDanForSurvival(ecgdan_hf.EcgDanSurvivalConfig(**settings))
    model = getattr(ecgdan_hf, kind)(ecgdan_hf.EcgDanConfig(**settings))
    if settings.get("text_embed_dim") and kind == "EcgDanForPreTraining":
        model.set_prompts(LABELS, torch.randn(len(LABELS), WIDTH))
    return model


@pytest.mark.parametrize(
    ("kind", "config", "fitting"),
    [
        ("EcgDanForPreTraining", {}, TASKS[3:]),
        ("EcgDanForPreTraining", {"text_embed_dim": WIDTH}, TASKS[2:]),
        # of a text-pretrained encoder: the configuration still speaks of an alignment head
        ("EcgDanForSequenceClassification", {"text_embed_dim": WIDTH, "prompt_labels": LABELS}, (TASKS[0], TASKS[3])),
        ("EcgDanForSurvival", {}, (TASKS[1], TASKS[3])),
        ("EcgTextModel", {}, TASKS[2:]),
        ("DanetForSequenceClassification", {}, (TASKS[0], TASKS[3])),
        ("DanetForPreTraining", {}, ()),
    ],
)
def test_a_checkpoint_is_refused_by_the_pipelines_of_other_heads_with_a_line_that_says_which_fit(
    kind: str, config: dict[str, Any], fitting: tuple[str, ...], tmp_path: Path
):
    given = with_extractor(model_of(kind, **config))
    given["model"].save_pretrained(tmp_path)
    given["feature_extractor"].save_pretrained(tmp_path)
    instead = f"it fits {' and '.join(fitting)}" if fitting else "it fits none"
    for task in TASKS:
        if task in fitting:
            assert pipeline(task, model=str(tmp_path)).serves == task
            continue
        with pytest.raises(ValueError, match=f"^model: expected a checkpoint for {task}, got .*{kind}.*; {instead}$"):
            pipeline(task, model=str(tmp_path))


def test_a_classifier_that_was_just_trained_on_a_pretrained_encoder_needs_no_saving(checkpoint: Path):
    labels = {"id2label": {0: "NORM", 1: "MI"}, "label2id": {"NORM": 0, "MI": 1}}
    model = ecgdan_hf.EcgDanForSequenceClassification.from_pretrained(checkpoint, **labels)
    assert pipeline("ecg-classification", **with_extractor(model)).model is model
