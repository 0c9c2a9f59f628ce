"""Macro-averaged area under the precision-recall curve as a module of the `evaluate` library.

The scanner of `evaluate` reads this file line by line: one import per line.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from ecgdan_hf.evaluation.measures.classification import auprc

_DESCRIPTION = "Mean average precision of the labels that have positives; by chance it is their share of positives."
_INPUTS = """
Args:
    predictions: one score per label for each record.
    references: one value per label for each record: 1 present, 0 absent, NaN unknown.
Returns:
    macro_auprc: mean over the labels with positives; NaN where there is none.
    chance: mean share of positives of those labels.
    num_labels: labels given.
    num_labels_estimable: labels that entered the mean.
Examples:
    >>> metric = evaluate.load(metric_path("macro_auprc"))
    >>> metric.compute(predictions=[[0.9, 0.2], [0.1, 0.3]], references=[[1, 0], [0, 0]])
    {'macro_auprc': 1.0, 'chance': 0.5, 'num_labels': 2, 'num_labels_estimable': 1}
"""
_CITATION = """@inproceedings{davis2006relationship,
  title={The relationship between precision-recall and {ROC} curves}, author={Davis, J. and Goadrich, M.},
  booktitle={International Conference on Machine Learning}, pages={233--240}, year={2006}}"""


class _MacroAuprc(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Macro-averaged area under the precision-recall curve."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float | int]:
        scores, truth = np.asarray(predictions, dtype=float), np.asarray(references, dtype=float)
        estimable = [column for column in range(truth.shape[1]) if (truth[:, column] == 1).any()]
        values = [auprc(truth[:, column], scores[:, column]) for column in estimable]
        return {
            "macro_auprc": float(np.mean(values)) if values else float("nan"),
            "chance": float(np.mean(np.nanmean(truth[:, estimable], axis=0))) if values else float("nan"),
            "num_labels": truth.shape[1],
            "num_labels_estimable": len(values),
        }
