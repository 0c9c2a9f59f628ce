"""Brier score of risks at a horizon under censoring as a module of the `evaluate` library.

The scanner of `evaluate` reads this file line by line: one import per line.
"""

from typing import Any

import datasets
import evaluate

from ecgdan_hf.evaluation.measures.absolute_risk import brier_score, scaled_brier_score

_DESCRIPTION = "Squared error of predicted risks at a horizon, weighted for censoring, and the share it explains."
_INPUTS = """
Args:
    predictions: risk of each record, the probability of the event within `horizon_years`.
    event: 1 happened, 0 censored.
    time: years since the ECG, positive.
    horizon_years: given to `compute`; at most the last follow-up.
Returns:
    brier_score: 0 is perfect.
    scaled_brier_score: 1 is perfect, 0 is one risk for all.
Examples:
    >>> metric = evaluate.load(metric_path("brier_score"))
    >>> metric.compute(predictions=[0.9, 0.5, 0.1, 0.0], event=[1, 1, 0, 1], time=[1.0, 2.0, 4.0, 5.0],
    ...                horizon_years=3.0)
    {'brier_score': 0.0675, 'scaled_brier_score': 0.73}
"""
_CITATION = """@article{graf1999assessment,
  title={Assessment and comparison of prognostic classification schemes for survival data},
  author={Graf, E. and Schmoor, C. and Sauerbrei, W. and Schumacher, M.},
  journal={Statistics in Medicine}, volume={18}, pages={2529--2545}, year={1999}}"""


class _BrierScore(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Brier score at a horizon, weighted for censoring."""

    def _info(self) -> evaluate.MetricInfo:
        values = {name: datasets.Value("float64") for name in ("predictions", "event", "time")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(values),
        )

    def _compute(self, predictions: Any, event: Any, time: Any, horizon_years: float) -> dict[str, float]:
        return {
            "brier_score": brier_score(event, time, predictions, horizon_years),
            "scaled_brier_score": scaled_brier_score(event, time, predictions, horizon_years),
        }
