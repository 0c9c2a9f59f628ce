"""The pipeline `ecg-classification`: the network's own probabilities, and where it looked, in the recording's time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wfdb
from synthetic_beats import LEADS, beat
from tiny import TINY
from transformers import pipeline

from ecgdan_hf import (
    DanetConfig,
    DanetForSequenceClassification,
    EcgClassificationPipeline,
    EcgDanConfig,
    EcgDanFeatureExtractor,
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    attended_intervals,
)
from ecgdan_hf.data.formats import read

TASK = "ecg-classification"
LABELS = ("APC", "PVC", "NORMAL")
SMALL = {
    "trunk_channels": [8, 8, 8],
    "num_attention_heads": 2,
    "hidden_size": 16,
    "classifier_hidden_size": 8,
    "waveform_channels": [4, 6, 8],
    "waveform_kernel": 3,
}
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {name: index for index, name in enumerate(LABELS)}}


def save(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    EcgDanFeatureExtractor(**model.config.signal_contract).save_pretrained(folder)
    return folder


def danet(module: str = "hard", **options: Any) -> DanetForSequenceClassification:
    torch.manual_seed(0)
    config = DanetConfig(waveform_module=module, classifier_network="resnet1d", **SMALL, **NAMES, **options)
    model = DanetForSequenceClassification(config)
    if model.waveform_module is not None:  # an untrained network's a(t) is flat
        torch.nn.init.normal_(model.waveform_module.attention_head.weight, std=5.0)
    return model.eval()


def recording(seconds: float = 10.0, rate: float = 500.0) -> dict[str, Any]:
    """Twelve leads with an RR of 0.8 s; a beat in the middle comes 0.3 s early."""
    peaks = np.arange(0.5, seconds - 0.3, 0.8)
    early = int(np.abs(peaks - 0.3 - seconds / 2).argmin())
    peaks[early] -= 0.3
    peaks[early + 1 :] -= 0.2
    time = np.arange(round(seconds * rate)) / rate
    signal = sum(beat(time - peak) for peak in peaks)
    return {
        "given": {"signal": signal, "sampling_rate": rate, "unit": "mV", "lead_names": list(LEADS)},
        "early": float(peaks[early]),
    }


def leads(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return given | {"signal": given["signal"][[LEADS.index(name) for name in names]], "lead_names": list(names)}


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = save(tmp_path_factory.mktemp("hard"), danet(thresholds={"APC": 0.01, "PVC": 0.99}))
    return pipeline(TASK, model=str(folder))


def scores(found: list[dict[str, Any]]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in found}


# Scores


@pytest.mark.parametrize("problem", ["multi_label_classification", "single_label_classification"])
def test_scores_are_the_network_s_probabilities_highest_first(tmp_path: Path, problem: str):
    torch.manual_seed(0)
    config = EcgDanConfig(**{**TINY, "sampling_rate": 50}, **NAMES, problem_type=problem)
    model = EcgDanForSequenceClassification(config).eval()
    classify = pipeline(TASK, model=str(save(tmp_path, model)))
    given = recording()["given"]
    found = classify(given)
    with torch.no_grad():
        logits = model(**classify.feature_extractor(**given, return_tensors="pt")).logits[0]
    expected = logits.softmax(-1) if problem.startswith("single") else logits.sigmoid()
    assert scores(found) == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)
    assert [entry["score"] for entry in found] == sorted(scores(found).values(), reverse=True)
    assert all(set(entry) == {"label", "score", "threshold", "positive", "flags"} for entry in found)
    assert all(entry["threshold"] is None and entry["positive"] is None for entry in found)


def test_a_threshold_decides_and_with_too_few_leads_none_does(hard: Any):
    given = recording()["given"]
    found = {entry["label"]: entry for entry in hard(given)}
    assert [found[label]["threshold"] for label in LABELS] == [0.01, 0.99, None]
    assert [found[label]["positive"] for label in LABELS] == [True, False, None]
    assert all("thresholds_need_more_leads" not in entry["flags"] for entry in found.values())
    few = hard(leads(given, "II", "V1"))
    assert all(entry["threshold"] is None and entry["positive"] is None for entry in few)
    assert all("thresholds_need_more_leads" in entry["flags"] for entry in few)


def test_a_given_threshold_takes_the_place_of_the_checkpoint_s_whatever_the_leads(hard: Any):
    given = recording()["given"]
    found = {entry["label"]: entry for entry in hard(given, thresholds={"APC": 0.999, "NORMAL": 0.0})}
    assert [found[label]["threshold"] for label in LABELS] == [0.999, 0.99, 0.0]
    assert [found[label]["positive"] for label in LABELS] == [False, False, True]
    few = {entry["label"]: entry for entry in hard(leads(given, "II"), thresholds={"NORMAL": 0.0})}
    assert [few[label]["threshold"] for label in LABELS] == [None, None, 0.0]
    assert [entry["threshold"] for entry in hard(given) if entry["label"] == "APC"] == [0.01]  # of that call alone


def test_a_recording_may_be_a_mapping_an_array_or_a_path_and_a_batch_says_what_each_says_alone(
    hard: Any, tmp_path: Path
):
    given = recording(12.0)["given"]
    alone = hard(given)
    array = given["signal"]
    assert hard(array, **{name: value for name, value in given.items() if name != "signal"}) == alone
    wfdb.wrsamp("strip", 500, ["mV"] * 12, list(LEADS), array.T, fmt=["16"] * 12, write_dir=str(tmp_path))
    assert scores(hard(str(tmp_path / "strip"))) == pytest.approx(scores(alone), abs=1e-3)
    several = [given, recording(5.0, 360)["given"], leads(given, "II")]
    one_by_one, batched = hard(several), hard(several, batch_size=3)
    assert one_by_one[0] == alone
    for together, apart in zip(batched, one_by_one, strict=True):
        assert scores(together) == pytest.approx(scores(apart), abs=1e-5)
        assert [entry["intervals"] for entry in together] == [entry["intervals"] for entry in apart]
    assert hard(given, top_k=1) == alone[:1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "top_k: expected one or more, got 0"),
        ({"rate": 500}, "rate: unknown argument"),
        ({"thresholds": {"AF": 0.5}}, "^thresholds: expected labels among APC, PVC, NORMAL, got AF$"),
        ({"thresholds": {"APC": 5}}, "^thresholds: APC: expected a probability from 0 to 1, got 5$"),
        ({"thresholds": 0.5}, "^thresholds: expected a mapping of labels, got float$"),
    ],
)
def test_arguments_that_cannot_be_served_are_refused(hard: Any, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        hard(recording()["given"], **arguments)


def test_a_model_without_a_classifier_is_refused():
    model = EcgDanForPreTraining(EcgDanConfig(**{**TINY, "sampling_rate": 50}))
    extractor = EcgDanFeatureExtractor(**model.config.signal_contract)
    with pytest.raises(
        ValueError, match=r"^model: expected a checkpoint for ecg-classification, got EcgDanForPreTraining"
    ):
        EcgClassificationPipeline(model=model, feature_extractor=extractor)


# Attended intervals


@pytest.mark.parametrize("rate", [360, 500])
@pytest.mark.parametrize("seconds", [5, 10, 30])
def test_the_first_interval_lies_on_the_early_p_wave_in_the_recording_s_own_time(hard: Any, seconds: int, rate: int):
    strip = recording(seconds, rate)
    for entry in hard(strip["given"]):
        first = entry["intervals"][0]
        p_peak = strip["early"] - 0.16
        assert first["start"] < p_peak < first["end"] and abs(first["peak"] - p_peak) < 0.06
        assert first["weight"] == max(each["weight"] for each in entry["intervals"]) > 0.9


@pytest.mark.parametrize("rate", [100, 360, 500])
@pytest.mark.parametrize("seconds", [5, 9.987, 10, 30])
def test_recorded_samples_are_those_to_which_the_feature_extractor_gives_weight(hard: Any, seconds: float, rate: int):
    given = recording(seconds, rate)["given"]
    fe = hard.feature_extractor
    first, end, start = fe.recorded_samples(given["signal"].shape[1], rate)
    weighed = np.flatnonzero(fe(**given)["waveform_weights"][0])
    assert (first, end) == (weighed[0], weighed[-1] + 1)
    assert start == (round((seconds - fe.signal_samples / 100) / 2 * 100) if seconds > 10 else 0)


def test_a_soft_network_s_intervals_are_those_of_its_attention_without_the_padding(tmp_path: Path):
    model = danet("soft")
    classify = pipeline(TASK, model=str(save(tmp_path, model)))
    given = recording(5.0)["given"]
    with torch.no_grad():
        attention = model(**classify.feature_extractor(**given, return_tensors="pt")).waveform_attention[0].numpy()
    found = classify(given)[0]["intervals"]
    first, end, _ = classify.feature_extractor.recorded_samples(2500, 500)
    assert end - first == 500 < len(attention)
    expected = attended_intervals(attention[first:end], 100)
    assert len(found) == len(expected) > 0
    for got, want in zip(found, expected, strict=True):
        assert got == pytest.approx(want, abs=1e-4)
    assert all(0 <= each["start"] <= each["peak"] <= each["end"] <= 5 for each in found)


def test_without_a_waveform_module_there_are_no_intervals(tmp_path: Path):
    classify = pipeline(TASK, model=str(save(tmp_path, danet("none"))))
    assert all("intervals" not in entry for entry in classify(recording()["given"]))


def test_intervals_are_what_stands_out_merged_over_short_gaps_and_highest_first():
    weights = np.full(1000, 0.1)
    weights[100:120] = 0.6  # 0.2 s
    weights[128:140] = 0.7  # 0.08 s later: the same interval
    weights[300:310] = 1.0
    weights[500:503] = 0.9  # too short
    weights[700:710] = 0.5  # not half way up
    found = attended_intervals(weights, 100, offset_seconds=7.0)
    assert found == [
        {"start": 10.0, "end": 10.1, "peak": 10.05, "weight": 1.0},
        {"start": 8.0, "end": 8.4, "peak": 8.34, "weight": pytest.approx(0.7)},
    ]
    assert len(attended_intervals(weights, 100, merge_seconds=0.05)) == 3
    assert len(attended_intervals(weights, 100, share=0.2, min_seconds=0.0)) == 4


@pytest.mark.parametrize("weights", [np.ones(500), 0.5 + 0.02 * np.sin(np.arange(500)), np.zeros(0)])
def test_flat_attention_attends_to_nothing(weights: np.ndarray):
    assert attended_intervals(weights, 100) == []


def test_attention_at_either_end_is_an_interval_too():
    weights = np.zeros(500)
    weights[:20] = weights[-20:] = 1.0
    assert [(each["start"], each["end"]) for each in attended_intervals(weights, 100)] == [(0.0, 0.2), (4.8, 5.0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": np.zeros((2, 10))}, r"weights: expected \(samples,\), got shape \(2, 10\)"),
        ({"share": 1.0}, "share: expected a number from 0 to below 1, got 1"),
    ],
)
def test_weights_or_a_share_that_make_no_sense_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        attended_intervals(**{"weights": np.zeros(10), "sampling_rate": 100} | arguments)


def test_intervals_of_a_prepared_row_count_from_the_beginning_of_the_row(hard: Any):
    given = recording(10.0)["given"]
    features = hard.feature_extractor(**given)
    row = {name: features[name][0] for name in hard.feature_extractor.model_input_names}
    alone, prepared = hard(given), hard({**row, "flags": []})
    assert scores(prepared) == pytest.approx(scores(alone), abs=1e-5)
    assert prepared[0]["intervals"] == alone[0]["intervals"] != []


# A real recording


def test_the_strongest_interval_lies_on_an_atrial_premature_beat_that_was_marked_by_hand(hard: Any, shared: Path):
    stem, begin, seconds = shared / "data" / "mit-bih" / "209", 143.0, 10.0
    marks = wfdb.rdann(str(stem), "atr")
    times = marks.sample[np.array(marks.symbol) == "A"] / 360 - begin
    (marked,) = times[(times > 0) & (times < seconds)]
    strip = read(stem, start_seconds=begin, seconds=seconds)
    first = hard(strip.as_inputs())[0]["intervals"][0]
    assert first["start"] < marked < first["end"] and first["end"] - first["start"] < 0.6
