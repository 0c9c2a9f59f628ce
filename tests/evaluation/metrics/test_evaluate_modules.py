"""The metrics as modules of the `evaluate` library."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tiny import TINY
from transformers import EvalPrediction, Trainer, TrainingArguments

from ecgdan_hf import EcgDanConfig, EcgDanForSequenceClassification
from ecgdan_hf.evaluation.measures.absolute_risk import brier_score, dynamic_auc, scaled_brier_score
from ecgdan_hf.evaluation.measures.classification import macro_auroc
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.evaluation.metrics import metric_path


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


def test_macro_auprc_equals_scikit_learn_and_stands_beside_chance(evaluate: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, (40, 3)).astype(float), rng.random((40, 3))
    labels[:, 2] = 0
    labels[:5, 0] = np.nan
    metric = evaluate.load(metric_path("macro_auprc"), cache_dir=str(tmp_path / "cache"))
    expected = [
        average_precision_score(labels[5:, 0], scores[5:, 0]),
        average_precision_score(labels[:, 1], scores[:, 1]),
    ]
    assert metric.compute(predictions=scores, references=labels) == {
        "macro_auprc": pytest.approx(np.mean(expected)),
        "chance": pytest.approx((labels[5:, 0].mean() + labels[:, 1].mean()) / 2),
        "num_labels": 3,
        "num_labels_estimable": 2,
    }


def test_modules_combine_and_serve_a_trainer(evaluate: Any, tmp_path: Path) -> None:
    metrics = evaluate.combine([metric_path("macro_auroc"), metric_path("macro_auprc")], force_prefix=False)

    def compute_metrics(found: EvalPrediction) -> dict[str, float]:
        logits = found.predictions
        return metrics.compute(predictions=logits, references=found.label_ids)

    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(8, 12, 64)).astype("float32"), np.tile([[1.0, 0.0], [0.0, 1.0]], (4, 1))
    rows = [
        {"input_values": one, "labels": other.astype("float32")} for one, other in zip(inputs, labels, strict=True)
    ]
    model = EcgDanForSequenceClassification(EcgDanConfig(**TINY, num_labels=2))
    args = TrainingArguments(str(tmp_path / "out"), report_to="none", use_cpu=True)
    found = Trainer(model, args, eval_dataset=rows, compute_metrics=compute_metrics).evaluate()
    with torch.no_grad():
        logits = model.eval()(torch.as_tensor(inputs)).logits.numpy()
    assert found["eval_macro_auroc"] == pytest.approx(macro_auroc(labels, logits))
    assert found["eval_macro_auprc"] == pytest.approx(
        np.mean([average_precision_score(labels[:, i], logits[:, i]) for i in (0, 1)])
    )


@pytest.mark.parametrize("name", ["brier_score", "dynamic_auc"])
def test_modules_load_offline_and_equal_the_functions(evaluate: Any, tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    event, time, risk = rng.integers(0, 2, 60), 10 * rng.random(60) + 0.1, rng.random(60)
    metric = evaluate.load(metric_path(name), cache_dir=str(tmp_path / "cache"))
    metric.add_batch(predictions=risk[:30], event=event[:30], time=time[:30])
    metric.add_batch(predictions=risk[30:], event=event[30:], time=time[30:])
    functions = {"dynamic_auc": dynamic_auc, "brier_score": brier_score, "scaled_brier_score": scaled_brier_score}
    found = metric.compute(horizon_years=5.0)
    assert set(found) == {"dynamic_auc"} if name == "dynamic_auc" else {"brier_score", "scaled_brier_score"}
    for key, value in found.items():
        assert value == pytest.approx(functions[key](event, time, risk, 5.0), abs=1e-9)


@pytest.mark.parametrize("name", ["brier_score", "dynamic_auc"])
def test_the_example_of_a_module_holds(evaluate: Any, tmp_path: Path, name: str) -> None:
    metric = evaluate.load(metric_path(name), cache_dir=str(tmp_path / "cache"))
    risk = {"brier_score": [0.9, 0.5, 0.1, 0.0], "dynamic_auc": [0.9, 0.2, 0.3, 0.1]}[name]
    found = metric.compute(predictions=risk, event=[1, 1, 0, 1], time=[1.0, 2.0, 4.0, 5.0], horizon_years=3.0)
    expected = {
        "brier_score": {"brier_score": 0.0675, "scaled_brier_score": 0.73},
        "dynamic_auc": {"dynamic_auc": 0.75},
    }
    assert found == pytest.approx(expected[name])


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError,
        match="expected one of brier_score, concordance_index, dynamic_auc, macro_auprc, macro_auroc, got 'auc'",
    ):
        metric_path("auc")
