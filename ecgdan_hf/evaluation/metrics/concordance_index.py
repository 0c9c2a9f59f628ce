"""Harrell's concordance index as a module of the `evaluate` library.

The scanner of `evaluate` reads this file line by line: one import per line.
"""

from typing import Any

import datasets
import evaluate

from ecgdan_hf.evaluation.measures.survival import concordance_index

_DESCRIPTION = "Harrell's concordance index: the share of comparable pairs that a log hazard orders as the events did."
_INPUTS = """
Args:
    predictions: log hazard of each record; higher means earlier.
    event: 1 happened, 0 censored.
    time: years since the ECG, positive.
Returns:
    concordance_index: between 0 and 1; 0.5 by chance.
Examples:
    >>> metric = evaluate.load(metric_path("concordance_index"))
    >>> metric.compute(predictions=[0.9, 0.1, 0.5], event=[1, 1, 0], time=[1.0, 2.0, 3.0])
    {'concordance_index': 0.6666666666666666}
"""
_CITATION = """@article{harrell1996multivariable,
  title={Multivariable prognostic models}, author={Harrell, F. E. and Lee, K. L. and Mark, D. B.},
  journal={Statistics in Medicine}, volume={15}, pages={361--387}, year={1996}}"""


class _ConcordanceIndex(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Harrell's concordance index."""

    def _info(self) -> evaluate.MetricInfo:
        values = {name: datasets.Value("float64") for name in ("predictions", "event", "time")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(values),
        )

    def _compute(self, predictions: Any, event: Any, time: Any) -> dict[str, float]:
        return {"concordance_index": concordance_index(event, time, predictions)}
