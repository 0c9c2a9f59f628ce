"""Macro-averaged AUROC of a multi-label classifier as a module of the `evaluate` library.

The scanner of `evaluate` reads this file line by line: one import per line.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from ecgdan_hf.evaluation.measures.classification import auroc_per_label

_DESCRIPTION = "Mean AUROC of the labels that have positives and negatives, and how many those are."
_INPUTS = """
Args:
    predictions: one score per label for each record.
    references: one value per label for each record: 1 present, 0 absent, NaN unknown.
Returns:
    macro_auroc: mean over the estimable labels; NaN where there is none.
    num_labels: labels given.
    num_labels_estimable: labels that entered the mean.
Examples:
    >>> metric = evaluate.load(metric_path("macro_auroc"))
    >>> metric.compute(predictions=[[0.9, 0.2], [0.1, 0.3]], references=[[1, 0], [0, 0]])
    {'macro_auroc': 1.0, 'num_labels': 2, 'num_labels_estimable': 1}
"""
_CITATION = """@article{hanley1982meaning,
  title={The meaning and use of the area under a receiver operating characteristic (ROC) curve},
  author={Hanley, J. A. and McNeil, B. J.}, journal={Radiology}, volume={143}, pages={29--36}, year={1982}}"""


class _MacroAuroc(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Macro-averaged AUROC."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float | int]:
        values = auroc_per_label(references, predictions)
        estimable = values[~np.isnan(values)]
        return {
            "macro_auroc": float(estimable.mean()) if estimable.size else float("nan"),
            "num_labels": len(values),
            "num_labels_estimable": len(estimable),
        }
