"""Logistic regression for each label on fixed features, such as the embeddings of a frozen encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.evaluation.measures.intervals import FloatArray

_REGULARISATION = (0.0001, 0.001, 0.01, 0.1, 1.0)
"""Inverse penalties that are tried; embeddings have hundreds of correlated features."""


@dataclass(frozen=True)
class LinearClassifier:
    """One linear classifier a label, on features standardised with the mean and SD of training.

    A label without positives or negatives in training has weights of 0 and the log odds of its share.

    Attributes:
        mean, scale: (features,), of training.
        weights: (labels, features), per SD.
        bias: (labels,).
        inverse_penalties: (labels,), NaN where there was nothing to fit.
        unseen_logits: (n, labels), of the training records, each by a fit to the other folds of patients; NaN where
            there were too few patients. Thresholds can be chosen by them without keeping patients back.
    """

    mean: FloatArray
    scale: FloatArray
    weights: FloatArray
    bias: FloatArray
    inverse_penalties: FloatArray
    unseen_logits: FloatArray

    @classmethod
    def fit(
        cls,
        features: npt.ArrayLike,
        labels: npt.NDArray[Any],
        patient_ids: Sequence[Any] | npt.NDArray[Any] | None = None,
        regularisation: Sequence[float] = _REGULARISATION,
        num_folds: int = 5,
    ) -> "LinearClassifier":
        """Fits it; cross-validated AUROC chooses each label's penalty (scikit-learn).

        Args:
            features: (n, features), standardised inside.
            labels: (n, labels) of 0 and 1.
            patient_ids: patient of each record; a patient stays in one fold.
            regularisation: inverse penalties to try; a single one is used without cross-validation. A label of too few
                patients to choose by takes the middle one.
            num_folds: folds of the cross-validation.
        """
        from sklearn.preprocessing import StandardScaler

        values = np.asarray(features, dtype=np.float64)
        scaler = StandardScaler().fit(values)
        scaled = scaler.transform(values)
        fits = [
            _fit_label(scaled, truth, _splits(scaled, truth, patient_ids, num_folds), regularisation)
            for truth in labels.astype(int).T
        ]
        weights, bias, penalties, unseen = (np.array(part) for part in zip(*fits, strict=True))
        return cls(scaler.mean_, scaler.scale_, weights, bias, penalties, unseen.T)

    def logits(self, features: npt.ArrayLike) -> FloatArray:
        """(m, features) -> (m, labels)."""
        standardised = (np.asarray(features, dtype=np.float64) - self.mean) / self.scale
        found: FloatArray = standardised @ self.weights.T + self.bias
        return found


def _splits(
    values: FloatArray, truth: npt.NDArray[Any], patient_ids: Any, num_folds: int
) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Folds of patients with both kinds of record in each part; none if there are too few patients."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.arange(len(values)) if patient_ids is None else pd.factorize(np.asarray(patient_ids))[0]
    folds = min(num_folds, *(len(np.unique(groups[truth == kind])) for kind in (0, 1)))
    splits = list(StratifiedGroupKFold(folds).split(values, truth, groups)) if folds > 1 else []
    return splits if all(len(np.unique(truth[part])) == 2 for split in splits for part in split) else []


def _fit_label(
    values: FloatArray, truth: npt.NDArray[Any], splits: list[Any], regularisation: Sequence[float]
) -> tuple[FloatArray, float, float, FloatArray]:
    """Weights, bias, inverse penalty and unseen logits of one label."""
    from sklearn.linear_model import LogisticRegression

    unseen = np.full((len(regularisation), len(truth)), np.nan)
    if truth.min() == truth.max():
        share = (truth.sum() + 0.5) / (len(truth) + 1)
        return np.zeros(values.shape[1]), float(np.log(share / (1 - share))), float("nan"), unseen[0]
    best = len(regularisation) // 2
    if len(regularisation) > 1 and splits:
        for kept, left in splits:
            unseen[:, left] = _logits_by_penalty(values[kept], truth[kept], values[left], regularisation)
        best = int(np.argmax([_mean_auroc(truth, row, splits) for row in unseen]))
    fitted = LogisticRegression(C=regularisation[best], max_iter=500).fit(values, truth)
    return fitted.coef_[0], float(fitted.intercept_[0]), float(regularisation[best]), unseen[best]


def _logits_by_penalty(
    values: FloatArray, truth: npt.NDArray[Any], tested: FloatArray, regularisation: Sequence[float]
) -> FloatArray:
    """(penalties, m) for `tested` (m, features); each fit starts at the last one."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=500, warm_start=True)
    return np.stack(
        [model.set_params(C=penalty).fit(values, truth).decision_function(tested) for penalty in regularisation]
    )


def _mean_auroc(truth: npt.NDArray[Any], logits: FloatArray, splits: list[Any]) -> float:
    """Mean over the folds that were left out."""
    from sklearn.metrics import roc_auc_score

    return float(np.mean([roc_auc_score(truth[left], logits[left]) for _, left in splits]))
