"""Repeated stratified cross-validation of survival models: division into folds, and metrics over all folds.

Each repetition (seed) scores every record once, by a model that was not trained on its patient. Scores of different
folds come from different models and have no common scale, so they are standardised within their fold before they enter
one ranking. Two spreads are reported: over folds, which share training patients, and over seeds, the repetitions of
the whole procedure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.evaluation.measures.absolute_risk import brier_score, dynamic_auc, observed_risk, scaled_brier_score
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import FloatArray, Interval, bootstrap_comparison, bootstrap_interval
from ecgdan_hf.evaluation.measures.risk_calibration import RiskCalibration
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.evaluation.protocols.subgroups import Found, survival_subgroups

_SUBJECT = ["record_id", "patient_id", "event", "time"]
_RISK_MEASURES: dict[str, Callable[..., float]] = {
    "auc": dynamic_auc,
    "brier": brier_score,
    "scaled_brier": scaled_brier_score,
    "calibration_slope": lambda *given, **horizon: RiskCalibration(*given, **horizon).slope().estimate,
    "observed_over_expected": lambda *given, **horizon: (
        RiskCalibration(*given, **horizon).observed_over_expected().estimate
    ),
    "ici": lambda *given, **horizon: RiskCalibration(*given, **horizon).errors()["ici"],
}
"""Functions of (event, time, risk, horizon_years)."""


@dataclass(frozen=True)
class Fold:
    """One fold of one repetition: its test rows; all other rows train.

    Attributes:
        seed: repetition.
        number: from 1.
        test: (m,), row numbers, ascending.
    """

    seed: int
    number: int
    test: npt.NDArray[np.int64]

    @classmethod
    def divide(cls, table: pd.DataFrame, num_folds: int = 2, seeds: Sequence[int] = (0, 1, 2, 3, 4)) -> "list[Fold]":
        """Divides patients into folds with the same share of events, for every seed (scikit-learn).

        Args:
            table: columns `patient_id`, `event`, `time`, and `entry` where it is delayed, one row per record.
            num_folds: folds of each repetition.
            seeds: repetitions.

        Raises:
            ValueError: fewer than two folds, a seed given twice, too few events, or a fold without a comparable pair.
        """
        from sklearn.model_selection import StratifiedGroupKFold

        if num_folds < 2:
            raise ValueError(f"folds: expected two or more, got {num_folds}")
        if len(set(seeds)) < len(seeds) or not seeds:
            raise ValueError(f"seeds: expected different numbers, got {list(seeds)}")
        event, patients = table["event"].to_numpy(), table["patient_id"].astype(str).to_numpy()
        if len(np.unique(patients[event == 1])) < 2 * num_folds:
            found = len(np.unique(patients[event == 1]))
            raise ValueError(f"folds: expected two patients with an event in each of {num_folds}, got {found} in all")
        folds: list[Fold] = []
        for seed in seeds:
            splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
            parts = splitter.split(np.zeros(len(table)), event, patients)
            folds += [cls(seed, number, np.sort(test)) for number, (_, test) in enumerate(parts, start=1)]
        time = FollowUp.time_of(table)
        thin = next((fold for fold in folds if not FollowUp(event[fold.test], time[fold.test]).has_pair), None)
        if thin:
            raise ValueError(f"folds: {thin.name} has no record still at risk at another's event; ask for fewer folds")
        return folds

    @property
    def name(self) -> str:
        """Name of the fold, such as `seed-0-fold-1`."""
        return f"seed-{self.seed}-fold-{self.number}"


def _corrected_t_test(differences: npt.ArrayLike, test_over_train: float) -> dict[str, float]:
    r"""Corrected resampled t-test (Nadeau and Bengio, Machine Learning 52:239-281, 2003).

    Folds share their training records, so the variance of a mean difference is not \(s^2 / J\) but

    \((1 / J + n_\text{test} / n_\text{train}) s^2\), with J - 1 degrees of freedom.

    Args:
        differences: (J,), of the metric of two models on each fold of each repetition.
        test_over_train: records judged over records trained on; 1 for two folds.

    Returns:
        `difference`, `t`, `df` and the two-sided `p`; t and p are NaN where all differences are the same.

    Raises:
        ValueError: fewer than two differences, one that is not finite, or a share that is not positive.
    """
    from scipy.stats import t as student

    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"differences: expected two or more finite numbers, got {values.tolist()}")
    if not test_over_train > 0:
        raise ValueError(f"test_over_train: expected a positive share, got {test_over_train}")
    variance = (1 / len(values) + test_over_train) * values.var(ddof=1)
    statistic = float(values.mean() / np.sqrt(variance)) if variance > 0 else float("nan")
    p = float(2 * student.sf(abs(statistic), len(values) - 1))
    return {"difference": float(values.mean()), "t": statistic, "df": len(values) - 1, "p": p}


class Predictions:
    """Scores of every record in each repetition, by models that were not trained on its patient.

    Args:
        table: `record_id`, `patient_id`, `event`, `time`, `seed`, `fold`, age and sex where known, a log hazard under
            each model's name, and the risks that [`Predictions.risk_column`] names; each record once per seed.

    Attributes:
        table: as given.
        people: one row per record, in order of `record_id`: ids, outcome, and age and sex where known.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        columns = [*_SUBJECT, *(name for name in ("entry", "age", "sex") if name in table)]
        people = table[columns].drop_duplicates("record_id").sort_values("record_id")
        self.people = people.reset_index(drop=True)

    @property
    def times(self) -> FloatArray:
        """Follow-up of `people`, as [`FollowUp`] takes it."""
        return FollowUp.time_of(self.people)

    @staticmethod
    def risk_column(model: str, years: float) -> str:
        """Returns the name of the column with a model's risk within so many years."""
        return f"{model} | risk within {years:g} years"

    def standardised(self, column: str) -> FloatArray:
        """Returns scores as z-scores within each fold: (records, seeds), records in the order of `people`.

        Raises:
            ValueError: a record without a score in some seed.
        """
        folds = self.table.groupby(["seed", "fold"])[column]
        spread = folds.transform("std", ddof=0)
        return self._by_seed((self.table[column] - folds.transform("mean")) / spread.where(spread > 0, 1.0))

    def risks(self, model: str, years: float) -> FloatArray:
        """Returns a model's risks within so many years: (records, seeds), records in the order of `people`."""
        return self._by_seed(self.table[self.risk_column(model, years)])

    def compare(
        self, models: Sequence[str], n: int = 1000, seed: int = 0, trained_share: float = 1.0
    ) -> dict[str, dict[str, Any]]:
        """Returns the out-of-fold C-index of every model, its spread, and the lead of the first model.

        Args:
            models: names; the first is the evaluated model.
            n, seed: of the bootstrap over patients.
            trained_share: share of the records outside a fold that trained; the others chose the epoch.

        Returns:
            For each model `concordance_index` (mean over seeds of the C-index over all records, as the fields of
            `Interval`), `over_folds` and `over_seeds` (`mean`, `sd`, `values`) and, but for the first, `ahead` (paired
            interval of first minus this) and `t_test` ([`_corrected_t_test`] over folds).
        """
        truth = FollowUp(self.people["event"], self.times)
        intervals, ahead = bootstrap_comparison(
            _mean_over_seeds(concordance_index),
            truth.event,
            truth.times,
            scores={name: self.standardised(name) for name in models},
            patient_ids=self.people["patient_id"].to_numpy(),
            n=n,
            seed=seed,
        )
        values = {name: self._fold_values(name) for name in models}
        first, share = models[0], self._test_over_train() / trained_share
        found: dict[str, dict[str, Any]] = {}
        for name, interval in intervals.items():
            found[name] = {"concordance_index": interval.as_dict(), **_spreads(values[name])}
            if name in ahead:
                found[name]["ahead"] = ahead[name].as_dict()
                found[name]["t_test"] = _corrected_t_test(values[first].to_numpy() - values[name].to_numpy(), share)
        return found

    def evaluate_risks(
        self, model: str, horizons: Sequence[float], n: int = 1000, seed: int = 0
    ) -> dict[str, dict[str, Any]]:
        """Evaluates a model's absolute risks at each horizon; empty where it predicted none.

        Each measure is the mean over seeds, its interval a bootstrap of patients.

        Args:
            model: name.
            horizons: years.
            n, seed: of the bootstrap.

        Returns:
            Horizon as text -> `predicted_risk`, and, as fields of intervals, `observed_risk` and what `_RISK_MEASURES`
            names; under `not_estimable` the reason for each that does not exist on these records.
        """
        patients, follow_up = self.people["patient_id"].to_numpy(), FollowUp(self.people["event"], self.times)
        truth, found = (follow_up.codes, follow_up.times), {}
        for years in horizons:
            if self.risk_column(model, years) not in self.table:
                continue
            risks = self.risks(model, years)
            entry: dict[str, Any] = {"predicted_risk": float(risks.mean()), "not_estimable": {}}
            options: dict[str, Any] = {"patient_ids": patients, "n": n, "seed": seed}
            measures: dict[str, Callable[..., Any]]
            measures = {name: partial(_risk_interval, each, *truth, risks) for name, each in _RISK_MEASURES.items()}
            measures["observed_risk"] = lambda years, patient_ids, **_: observed_risk(*truth, years, patient_ids)
            for name, measure in measures.items():
                try:
                    entry[name] = measure(years, **options).as_dict()
                except ValueError as error:
                    entry["not_estimable"][name] = str(error)
            found[f"{years:g}"] = entry
        return found

    def subgroups(self, model: str, n: int = 1000, seed: int = 0) -> Found:
        """Returns [`survival_subgroups`] of the scores of all seeds."""
        scores = self.standardised(model)
        return survival_subgroups(self.people, scores, metric=_mean_over_seeds(concordance_index), n=n, seed=seed)

    def fold_counts(self) -> list[dict[str, int]]:
        """Counts records, patients and events of every fold."""
        return [
            {
                "seed": int(part["seed"].iloc[0]),
                "fold": int(part["fold"].iloc[0]),
                "num_records": len(part),
                "num_patients": int(part["patient_id"].nunique()),
                "num_events": int((part["event"] == 1).sum()),
            }
            for _, part in self.table.groupby(["seed", "fold"])
        ]

    def _by_seed(self, values: "pd.Series[float]") -> FloatArray:
        table = self.table[["record_id", "seed"]].assign(value=values).pivot(index="record_id", columns="seed")
        if table.isna().to_numpy().any():
            raise ValueError("predictions: expected each record once for every seed, some are missing")
        result: FloatArray = table.sort_index().to_numpy(dtype=np.float64)
        return result

    def _fold_values(self, model: str) -> "pd.Series[float]":
        """Returns the C-index in each fold, indexed by seed and fold."""
        found = {
            key: concordance_index(part["event"], FollowUp.time_of(part), part[model])
            for key, part in self.table.groupby(["seed", "fold"])
        }
        return pd.Series(found, dtype=float).rename_axis(["seed", "fold"])

    def _test_over_train(self) -> float:
        """Returns test records over training records of a fold, the mean of all folds."""
        sizes = self.table.groupby(["seed", "fold"]).size().to_numpy(dtype=float)
        return float(np.mean(sizes / (len(self.people) - sizes)))


def _mean_over_seeds(metric: Callable[..., float]) -> Callable[..., float]:
    """Returns a metric of (event, time, scores (n, seeds)) that averages over seeds."""

    def mean(event: FloatArray, time: FloatArray, scores: FloatArray) -> float:
        return float(np.mean([metric(event, time, column) for column in np.asarray(scores).T]))

    return mean


def _spreads(values: "pd.Series[float]") -> dict[str, dict[str, Any]]:
    """Returns mean and SD over all folds, and over seeds (each the mean of its folds); the SD of one value is NaN."""
    seeds = values.groupby("seed").mean()
    return {
        name: {"mean": float(each.mean()), "sd": float(each.std(ddof=1)), "values": each.round(6).tolist()}
        for name, each in (("over_folds", values), ("over_seeds", seeds))
    }


def _risk_interval(
    measure: Callable[..., float], event: FloatArray, time: FloatArray, risks: FloatArray, years: float, **options: Any
) -> Interval:
    return bootstrap_interval(_mean_over_seeds(partial(measure, horizon_years=years)), event, time, risks, **options)


def describe_cohort(table: pd.DataFrame) -> dict[str, Any]:
    """Describes the records: counts, follow-up, age and sex, with the number of missing values."""
    found: dict[str, Any] = {
        "num_records": len(table),
        "num_patients": int(table["patient_id"].nunique()),
        "num_events": int((table["event"] == 1).sum()),
        **({"num_competing_events": int((table["event"] > 1).sum())} if (table["event"] > 1).any() else {}),
        "median_follow_up_years": float(table["time"].median()),
        "max_follow_up_years": float(table["time"].max()),
    }
    if late := FollowUp(table["event"], FollowUp.time_of(table)).num_delayed:
        found["num_delayed_entry"] = late
    if "age" in table:
        age = table["age"].astype(float)
        found["age"] = {"mean": age.mean(), "sd": age.std(), "num_missing": int(age.isna().sum())}
    if "sex" in table:
        counts = {name: int((table["sex"] == name).sum()) for name in ("female", "male")}
        found["sex"] = {**counts, "num_missing": int(table["sex"].isna().sum())}
    return found
