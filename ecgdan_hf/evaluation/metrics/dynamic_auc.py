"""Cumulative/dynamic AUC at a horizon under censoring as a module of the `evaluate` library.

The scanner of `evaluate` reads this file line by line: one import per line.
"""

from typing import Any

import datasets
import evaluate

from ecgdan_hf.evaluation.measures.absolute_risk import dynamic_auc

_DESCRIPTION = "How well a score separates those with the event by a horizon from those still free of it."
_INPUTS = """
Args:
    predictions: log hazard or risk of each record; higher means likelier.
    event: 1 happened, 0 censored.
    time: years since the ECG, positive.
    horizon_years: given to `compute`; at most the last follow-up.
Returns:
    dynamic_auc: between 0 and 1; 0.5 by chance.
Examples:
    >>> metric = evaluate.load(metric_path("dynamic_auc"))
    >>> metric.compute(predictions=[0.9, 0.2, 0.3, 0.1], event=[1, 1, 0, 1], time=[1.0, 2.0, 4.0, 5.0],
    ...                horizon_years=3.0)
    {'dynamic_auc': 0.75}
"""
_CITATION = """@article{uno2007evaluating,
  title={Evaluating prediction rules for t-year survivors with censored regression models},
  author={Uno, H. and Cai, T. and Tian, L. and Wei, L. J.},
  journal={Journal of the American Statistical Association}, volume={102}, pages={527--537}, year={2007}}"""


class _DynamicAuc(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Cumulative/dynamic AUC at a horizon, cases weighted for censoring."""

    def _info(self) -> evaluate.MetricInfo:
        values = {name: datasets.Value("float64") for name in ("predictions", "event", "time")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(values),
        )

    def _compute(self, predictions: Any, event: Any, time: Any, horizon_years: float) -> dict[str, float]:
        return {"dynamic_auc": dynamic_auc(event, time, predictions, horizon_years)}
