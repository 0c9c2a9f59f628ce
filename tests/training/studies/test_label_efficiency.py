"""Few labels: the same patients for every encoder, spread over seeds and over test patients."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecgdan_hf.training.arguments.fields import ProbeArguments
from ecgdan_hf.training.studies.label_efficiency import (
    _compare_over_seeds,
    _parse_fractions,
    _report,
    label_efficiency,
)

BuildProbe = Callable[..., ProbeArguments]
NAMES = ["this encoder, linear", "random encoder, linear", "twin"]


def test_the_probe_is_repeated_for_shares_and_seeds_beside_controls(probe_args: BuildProbe):
    args = probe_args(label_fractions="1,0.1", seeds=2, train_folds="1-6", test_folds="7-10")
    args.control = {"twin": args.checkpoint}
    metrics = label_efficiency(args)
    few, all_ = metrics["label_fractions"]["0.1"], metrics["label_fractions"]["1"]
    assert max(few["num_patients_fitted"]) < min(all_["num_patients_fitted"])
    assert metrics["num_records"] + all_["num_records_fitted"][0] == 48
    for entry in (few, all_):
        assert list(entry["models"]) == NAMES
        assert entry["models"]["twin"]["ahead"]["values"] == [0, 0]
        ahead = entry["models"][NAMES[1]]["ahead"]
        values = [entry["models"][name]["values"] for name in NAMES[:2]]
        np.testing.assert_allclose(ahead["values"], np.subtract(*values))
        assert ahead["interval"]["estimate"] == pytest.approx(ahead["mean"])
    assert all_["models"][NAMES[0]]["sd"] == 0
    text = (Path(str(args.output_dir)) / "report.md").read_text(encoding="utf-8")
    assert all(name in text for name in NAMES)


def test_a_label_that_few_records_cannot_teach_is_scored_as_chance_and_said(probe_args: BuildProbe):
    args = probe_args(label_fractions="0.03", seeds=3, train_folds="1-6", test_folds="7-10")
    metrics = label_efficiency(args)
    assert metrics["label_fractions"]["0.03"]["labels_not_learned"]
    assert "scored as chance (.5)" in _report(metrics)


def test_the_seed_mean_and_its_spread_are_what_they_say():
    truth, patients = np.array([[0.0], [1.0], [0.0], [1.0]]), np.arange(4)
    perfect, reverse = truth.copy(), -truth
    scores = {"ours": np.stack([perfect, perfect]), "theirs": np.stack([perfect, reverse])}
    found = _compare_over_seeds(truth, scores, patients, ProbeArguments(bootstrap=20))
    assert found["theirs"]["values"] == [1, 0]
    assert found["theirs"]["mean"] == found["theirs"]["interval"]["estimate"] == 0.5
    assert found["theirs"]["ahead"]["values"] == [0, 1]
    assert found["theirs"]["ahead"]["sd"] == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize("text", ["", "a", "0,1", "2", None])
def test_shares_that_mean_nothing_are_refused(text: str | None):
    with pytest.raises(ValueError, match=r"label_fractions: expected shares such as 0.01,0.1,1"):
        _parse_fractions(text)


def test_shares_are_read_once_each_and_ascending():
    assert _parse_fractions("1, 0.1,0.1") == [0.1, 1.0]
