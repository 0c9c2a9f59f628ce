"""Long recordings in windows: every window is judged, and one rule makes one row of them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY

from ecgdan_hf.data.formats import read
from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.inference.predict import predict
from ecgdan_hf.inference.windows import Windows, _runs
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import bench_holter


def write(path: Path, signal: np.ndarray) -> Path:
    np.savez(path, signal=signal, sampling_rate=500.0, unit="mV", lead_names=np.array(STANDARD_LEADS))
    return path


@pytest.fixture(scope="module")
def classifier() -> tuple[EcgDanForSequenceClassification, EcgDanFeatureExtractor]:
    torch.manual_seed(0)
    config = EcgDanConfig(**TINY, input_kind="rhythm", id2label={0: "NORM", 1: "MI"})
    return EcgDanForSequenceClassification(config).eval(), EcgDanFeatureExtractor(**config.signal_contract)


@pytest.fixture
def parts() -> list[np.ndarray]:
    rates = (60.0, 75.0, 90.0)
    options = {"strain": 0.0, "qrs_duration_ms": 98.0}
    return [make_signal(**options, heart_rate_bpm=rate, seed=int(rate))[:, :2000] for rate in rates]


def test_a_row_of_windows_is_what_the_windows_say_one_by_one(tmp_path: Path, classifier, parts) -> None:
    model, extractor = classifier
    alone = predict([write(tmp_path / f"{n}.npz", part) for n, part in enumerate(parts)], model, extractor)
    holter = write(tmp_path / "holter.npz", np.concatenate(parts, axis=1))
    scores = alone["MI"].to_numpy(dtype=float)
    model.config.thresholds = {"NORM": 2.0, "MI": float(np.sort(scores)[1])}
    expected = {"max": scores.max(), "mean": scores.mean(), "share": 2 / 3}
    for rule, value in expected.items():
        row = predict(holter, model, extractor, batch_size=2, windows=Windows(4, 4, rule)).iloc[0]
        assert row["MI"] == pytest.approx(value, abs=1e-5)
        assert row["windows"] == f"{rule} of 3 of 3 windows of 4 s"
    assert row["episodes"] == f"NORM=0;MI={1 + (np.argsort(scores)[0] == 1)}"
    assert row["burden_per_hour"] == "NORM=0;MI=600"
    assert row["positive"] == "MI" and row["num_leads"] == 12 and row["error"] == ""


def test_an_episode_is_a_run_of_windows_without_a_gap() -> None:
    assert [_runs(np.array(places)) for places in ([], [5], [0, 1, 2], [0, 2], [0, 1, 3, 4, 7])] == [0, 1, 1, 2, 3]


def test_without_windows_a_long_record_says_that_its_middle_was_judged(tmp_path: Path, classifier, parts) -> None:
    model, extractor = classifier
    seen = extractor.signal_samples / extractor.sampling_rate
    file = write(tmp_path / "a.npz", np.concatenate([*parts] * 3, axis=1))
    flags = predict(file, model, extractor)["flags"].iloc[0].split(";")
    assert f"only_middle_judged:{seen:g}s_of_36s" in flags


def test_a_checkpoint_carries_its_windows_for_recordings_longer_than_its_input(tmp_path, parts) -> None:
    torch.manual_seed(0)
    config = EcgDanConfig(**TINY | {"num_samples": 304}, input_kind="rhythm", id2label={0: "NORM", 1: "MI"})
    model, extractor = EcgDanForSequenceClassification(config).eval(), EcgDanFeatureExtractor(**config.signal_contract)
    assert 2.4 < extractor.signal_samples / extractor.sampling_rate < 4
    long = write(tmp_path / "long.npz", np.concatenate([*parts], axis=1))
    short = write(tmp_path / "short.npz", parts[0][:, :1300])
    asked = predict([long], model, extractor, windows=Windows(4, 4, "mean")).iloc[0]
    before = predict([short], model, extractor).iloc[0]
    model.config.windows = {"seconds": 4, "step_seconds": 4, "rule": "mean"}
    model.config.save_pretrained(tmp_path)
    rows = predict([long, short], model, extractor)
    middle = predict([long], model, extractor, windows=None).iloc[0]
    assert rows.iloc[0][["MI", "windows", "episodes"]].tolist() == asked[["MI", "windows", "episodes"]].tolist()
    assert rows.iloc[1][["NORM", "MI", "flags"]].tolist() == before[["NORM", "MI", "flags"]].tolist()
    assert rows["windows"].notna().tolist() == [True, False], "a short recording is judged as before"
    assert "only_middle_judged" in middle["flags"] and "only_middle_judged" not in rows["flags"].iloc[0]
    assert Windows.of_checkpoint(EcgDanConfig.from_pretrained(tmp_path)) == Windows(4, 4, "mean")


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ({"seconds": 10, "rule": "max"}, "windows: expected seconds, step_seconds and rule"),
        ({"seconds": 0, "step_seconds": 10, "rule": "max"}, "expected seconds above zero"),
        ({"seconds": 10, "step_seconds": 10, "rule": "sum"}, "rule: expected one of mean, max, share"),
    ],
)
def test_windows_of_a_configuration_are_checked(windows, message) -> None:
    with pytest.raises(ValueError, match=message):
        EcgDanConfig(**TINY, input_kind="rhythm", windows=windows)


@pytest.mark.parametrize(("used", "holds"), [(["I"], True), (None, False)])
def test_thresholds_hold_where_the_leads_that_the_network_uses_were_recorded(tmp_path, parts, used, holds) -> None:
    config = EcgDanConfig(**TINY, input_kind="rhythm", id2label={0: "NORM"}, thresholds={"NORM": 0.0}, used_leads=used)
    model, extractor = EcgDanForSequenceClassification(config), EcgDanFeatureExtractor(**config.signal_contract)
    file = tmp_path / "lead_i.npz"
    np.savez(file, signal=parts[0][:1], sampling_rate=500.0, unit="mV", lead_names=np.array(["I"]))
    for windows in (None, Windows(4, 4)):
        row = predict(file, model.eval(), extractor, windows=windows).iloc[0]
        assert row["error"] == "" and (row["positive"] == "NORM") is holds, windows
        assert ("thresholds_need_more_leads" in row["flags"]) is not holds


def test_a_share_of_windows_above_a_threshold_is_refused_for_risks(tmp_path: Path, parts) -> None:
    config = EcgDanSurvivalConfig(**TINY, input_kind="rhythm")
    model, extractor = EcgDanForSurvival(config), EcgDanFeatureExtractor(**config.signal_contract)
    with pytest.raises(ValueError, match="rule: expected mean or max for a model of risk, got 'share'"):
        predict(write(tmp_path / "a.npz", parts[0]), model, extractor, windows=Windows(4, 4, "share"))


def test_windows_that_cannot_be_judged_are_counted_and_do_not_stop_the_others(tmp_path, classifier, parts) -> None:
    model, extractor = classifier
    file = write(tmp_path / "a.npz", np.concatenate([parts[0], np.zeros_like(parts[0]), parts[1]], axis=1))
    row = predict(file, model, extractor, windows=Windows(4, 4)).iloc[0]
    assert row["windows"] == "max of 2 of 3 windows of 4 s"
    assert "windows_unusable:1" in row["flags"].split(";")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 10), "expected seconds above zero, got 0 and 10"), ((10, 10, "median"), "expected one of mean, max, share")],
)
def test_windows_without_length_or_of_an_unknown_rule_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        Windows(*arguments)


def test_the_benchmark_of_a_day_writes_three_leads_that_are_read_as_they_are(tmp_path: Path) -> None:
    record = read(bench_holter.write_holter(tmp_path, hours=0.01))
    assert (record.sampling_rate, record.lead_names) == (250, ("II", "V1", "V5"))
    assert record.duration_seconds == pytest.approx(36, abs=5) and 0.5 < np.ptp(record.signal_mv[0]) < 5
