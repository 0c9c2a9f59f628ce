"""The metrics as modules of the `evaluate` library."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdan_hf.evaluation.classification import macro_auroc
from ecgdan_hf.evaluation.metrics import metric_path
from ecgdan_hf.evaluation.survival import concordance_index


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The library, with its module cache in a folder of these tests."""
    import evaluate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
        yield evaluate


def test_concordance_index_loads_offline_and_equals_the_function(evaluate: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    event, time, score = rng.integers(0, 2, 40), rng.random(40) + 0.1, rng.normal(size=40)
    metric = evaluate.load(metric_path("concordance_index"), cache_dir=str(tmp_path / "cache"))
    for start in (0, 20):
        part = slice(start, start + 20)
        metric.add_batch(predictions=score[part], event=event[part], time=time[part])
    assert metric.compute() == {"concordance_index": pytest.approx(concordance_index(event, time, score))}


def test_macro_auroc_loads_offline_and_says_how_many_labels_entered(evaluate: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, (40, 3)).astype(float), rng.random((40, 3))
    labels[:, 2] = 0
    labels[:5, 0] = np.nan
    metric = evaluate.load(metric_path("macro_auroc"), cache_dir=str(tmp_path / "cache"))
    found = metric.compute(predictions=scores, references=labels)
    assert found == {
        "macro_auroc": pytest.approx(macro_auroc(labels, scores)),
        "num_labels": 3,
        "num_labels_estimable": 2,
    }


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="expected one of concordance_index, macro_auroc, got 'auc'"):
        metric_path("auc")
