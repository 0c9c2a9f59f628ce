"""The probe reads a frozen encoder, beside an untrained one and age and sex."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ecgdan_hf.training import linear_probe
from ecgdan_hf.training.arguments.fields import ProbeArguments

BuildProbe = Callable[..., ProbeArguments]


@pytest.mark.parametrize("task", ["survival", "classification"])
def test_the_probe_compares_the_encoder_with_an_untrained_one_on_unseen_patients(probe_args: BuildProbe, task: str):
    args = probe_args(task=task, train_folds="1-6", test_folds="7-10")
    metrics = linear_probe.linear_probe(args)
    names = ["this encoder, linear", "random encoder, linear", "age and sex"]
    assert list(metrics["models"])[:3] == names
    assert "ahead" in metrics["models"]["random encoder, linear"]
    assert metrics["num_records"] + metrics["num_records_fitted"] == 48
    report = (Path(str(args.output_dir)) / "report.md").read_text(encoding="utf-8")
    assert all(name in report for name in names)
    assert ("Simulated" in report) == (task == "survival")
    assert (Path(str(args.output_dir)) / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"checkpoint": None}, "checkpoint: expected the encoder to probe"),
        ({"checkpoint": "x", "task": "guessing"}, "task: expected survival or classification"),
        ({"checkpoint": "x", "push_to_hub": "a/b"}, "a probe leaves no model"),
        ({"checkpoint": "x", "labels": "y.csv"}, "labels: only task survival"),
        ({"checkpoint": "x", "label_level": "statement"}, "label_level: only data ptb-xl uses it"),
        ({"checkpoint": "x", "train_folds": "1-6"}, "test_folds: expected test folds with train_folds"),
    ],
)
def test_a_probe_refuses_what_is_missing_or_would_be_ignored(probe_args: BuildProbe, flags: dict, message: str):
    args = probe_args(**flags)
    with pytest.raises(ValueError, match=message):
        linear_probe.linear_probe(args)
    assert not Path(str(args.output_dir)).exists()


def test_data_without_follow_up_are_refused_before_anything_is_written(probe_args: BuildProbe, no_outcomes: Path):
    args = probe_args(data_dir=str(no_outcomes), task="survival", train_folds="1-6", test_folds="7-10")
    with pytest.raises(ValueError, match=r"outcomes: csv has no event and time of its own here; .* \(--labels\)"):
        linear_probe.linear_probe(args)
    assert not Path(str(args.output_dir)).exists()
