"""Comparison of one model with its controls on the same held-out records, with intervals over patients.

Controls are age and sex, a randomly initialised encoder, further checkpoints, and, for a simulated outcome, the true
hazard, which no model can beat. Differences are paired: each resample draws the same patients for both models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.evaluation.comparators.baselines import AgeAndSex, column_of
from ecgdan_hf.evaluation.comparators.evidence_cox import EvidenceCox
from ecgdan_hf.evaluation.comparators.linear_classifier import LinearClassifier
from ecgdan_hf.evaluation.measures.classification import averaged_labels, macro_auroc
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import FloatArray, Metric, bootstrap_comparison
from ecgdan_hf.evaluation.measures.survival import concordance_index


@dataclass(frozen=True)
class Outcome:
    """Outcome of the test records, and the metric that evaluates scores of it.

    Attributes:
        name: `"concordance_index"` or `"macro_auroc"`.
        metric: function of the truth arrays and the scores.
        truth: `(event, time)`, or `(labels,)`.
        patient_ids: (n,).
        simulated: whether the follow-up was simulated.
    """

    name: str
    metric: Metric
    truth: tuple[npt.NDArray[Any], ...]
    patient_ids: npt.NDArray[Any]
    simulated: bool = False

    @classmethod
    def survival(cls, table: pd.DataFrame, simulated: bool = False) -> "Outcome":
        """Builds it from the columns `event`, `time` (years), `patient_id` and, where it is delayed, `entry` (years).

        Raises:
            ValueError: a column is missing.
        """
        event, _, patients = (column_of(table, name, "table").to_numpy() for name in ("event", "time", "patient_id"))
        truth = event, FollowUp.time_of(table)
        return cls("concordance_index", concordance_index, truth, patients, simulated)

    @classmethod
    def classification(cls, labels: npt.NDArray[Any], patient_ids: npt.NDArray[Any]) -> "Outcome":
        """Builds it from labels (n, labels) of 0, 1 or NaN; the average is over those of [`averaged_labels`]."""
        metric = partial(_macro_auroc_of, averaged_labels(labels))
        return cls("macro_auroc", metric, (labels,), patient_ids)

    def counts(self) -> dict[str, Any]:
        """Counts records, patients, and events or the positives of each label."""
        found: dict[str, Any] = {
            "num_records": len(self.patient_ids),
            "num_patients": len(np.unique(self.patient_ids)),
        }
        if self.name == "concordance_index":
            return found | self._events() | {"simulated_outcome": self.simulated}
        labels = self.truth[0]
        averaged = int(averaged_labels(labels).sum())
        return found | {
            "num_positives": np.nansum(labels, axis=0).astype(int).tolist(),
            "num_labels_averaged": averaged,
        }

    def _events(self) -> dict[str, int]:
        event = np.asarray(self.truth[0])
        competing = int((event > 1).sum())
        late = FollowUp(*self.truth).num_delayed
        return {
            "num_events": int((event == 1).sum()),
            **({"num_competing_events": competing} if competing else {}),
            **({"num_delayed_entry": late} if late else {}),
        }

    def compare(self, scores: Mapping[str, npt.ArrayLike], n: int = 1000, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Returns the metric of each score with its interval, and how far the first one is ahead of each other.

        Args:
            scores: name -> (n,) log hazards, or (n, labels); the first is the evaluated model.
            n: resamples.
            seed: of the resampling; the same patients are drawn for all.

        Returns:
            name -> the fields of `Interval`, and, for all but the first, under `ahead` those of the paired difference
            "first minus this".

        Raises:
            ValueError: no score, or what the metric refuses.
        """
        if not scores:
            raise ValueError("scores: expected at least one model to evaluate, got none")
        intervals, ahead = bootstrap_comparison(
            self.metric, *self.truth, scores=scores, patient_ids=self.patient_ids, n=n, seed=seed
        )
        return {
            name: interval.as_dict() | ({"ahead": ahead[name].as_dict()} if name in ahead else {})
            for name, interval in intervals.items()
        }


def _macro_auroc_of(averaged: npt.NDArray[np.bool_], labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    return macro_auroc(labels[:, averaged], scores[:, averaged])


def age_sex_scores(fit: pd.DataFrame, test: pd.DataFrame, labels: npt.NDArray[Any] | None = None) -> FloatArray:
    """Returns scores from age and sex: log hazards by Cox, or with `labels` logits by logistic regression.

    For the Cox model a missing age counts as the training median, a missing sex as the training share of men, so that
    no record is left out and the comparison is on the same records. A predictor that does not vary in training is
    dropped.

    Args:
        fit: table with `age` (years), `sex` ("male", "female" or None), and without `labels` `event`, `time` (years).
        test: table with `age`, `sex`.
        labels: (len(fit), labels) of 0 and 1.

    Raises:
        ValueError: a missing column, no event in training, or neither age nor sex varies in training.
    """
    if labels is None:
        return _age_sex_log_hazard(fit, test)
    age = column_of(fit, "age", "table").median()

    def features(table: pd.DataFrame) -> FloatArray:
        male = column_of(table, "sex", "table").map({"male": 1.0, "female": 0.0}).astype(float).fillna(0.5)
        return np.stack([table["age"].astype(float).fillna(age), male], axis=1)

    return LinearClassifier.fit(features(fit), labels, regularisation=(1.0,)).logits(features(test))


def _age_sex_log_hazard(train: pd.DataFrame, test: pd.DataFrame) -> FloatArray:
    """Returns the log hazard of the test records by a Cox model on age and sex (Efron ties).

    Weights per SD have the prior N(0, 1), which shrinks them only where there are next to no events.
    """
    follow_up = FollowUp(column_of(train, "event", "train"), FollowUp.time_of(train))
    if not follow_up.event.any():
        raise ValueError(f"train: no event among {len(follow_up)} records, a Cox model cannot be fitted")
    predictors = AgeAndSex.of(train, "train")
    varying = [name for name in predictors if predictors[name].nunique() > 1]
    if not varying:
        raise ValueError("train: expected age or sex to vary, found both constant or missing")
    fill = {"age_decades": predictors["age_decades"].median(), "male": predictors["male"].mean()}
    known = predictors[varying].fillna(fill)
    fitted = EvidenceCox.fit(known, follow_up.event, follow_up.times, free=len(varying))
    return fitted.log_hazard(AgeAndSex.of(test, "test")[varying].fillna(fill))
