"""Intervals over patients: bootstrap percentiles, and formulas from the influence of each record.

The bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13) resamples patients with all
their records, because two ECGs of one person are not independent. The formulas add the influences of a patient's
records before they are squared. Imports numpy, pandas and scipy only.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri
from scipy.stats import norm

FloatArray = npt.NDArray[np.float64]
Metric = Callable[..., float]

_MAX_UNDEFINED_SHARE = 0.5


class Patients:
    """The patient of each record, whose records are one cluster: what is resampled, and whose influences are summed.

    Args:
        patient_ids: patient of each record; None takes every record for a patient of its own.
        num_records: how many there are.

    Raises:
        ValueError: ids that are missing or of another number.
    """

    def __init__(self, patient_ids: Sequence[Any] | npt.ArrayLike | None, num_records: int) -> None:
        codes = np.arange(num_records) if patient_ids is None else pd.factorize(np.asarray(patient_ids))[0]
        if len(codes) != num_records:
            raise ValueError(f"patient_ids: expected {num_records} ids, one per record, got {len(codes)}")
        if (codes < 0).any():
            raise ValueError(f"patient_ids: expected an id for every record, {int((codes < 0).sum())} are missing")
        self._codes, self._counts = codes, np.bincount(codes)

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def num_records(self) -> int:
        """How many records they have together."""
        return len(self._codes)

    def sums(self, values: FloatArray) -> FloatArray:
        """Returns (patients,), values (n,) of the records, summed by patient.

        Raises:
            ValueError: fewer than two patients, which have no variance.
        """
        if len(self) < 2:
            raise ValueError(f"patient_ids: expected at least two patients, got {len(self)}; one has no variance")
        return np.bincount(self._codes, weights=values).astype(np.float64)

    def error(self, influence: FloatArray) -> float:
        """Returns the standard error from the influence (n,), how far the estimate moves with each record's weight.

        Raises:
            ValueError: fewer than two patients.
        """
        return float(np.sqrt((self.sums(influence) ** 2).sum()))

    def resample(self, rng: np.random.Generator) -> npt.NDArray[np.intp]:
        """Returns the rows of as many patients as there are, drawn with replacement."""
        drawn = rng.integers(0, len(self), len(self))
        counts = self._counts[drawn]
        ends = np.cumsum(counts)
        within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        rows: npt.NDArray[np.intp] = self._order[np.repeat(self._starts[drawn], counts) + within]
        return rows

    @cached_property
    def _order(self) -> npt.NDArray[np.intp]:
        """Rows by patient, arranged so that a resample takes three numpy calls."""
        return np.argsort(self._codes, kind="stable")

    @cached_property
    def _starts(self) -> npt.NDArray[np.intp]:
        """Where each patient's rows start in `_order`."""
        starts: npt.NDArray[np.intp] = np.cumsum(self._counts) - self._counts
        return starts


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile interval.

    Attributes:
        estimate: the metric on all records.
        low, high: percentile limits.
        level: coverage aimed at, 0.95 by default.
        num_records, num_patients: what was resampled.
        num_resamples: resamples asked for.
        num_undefined: resamples on which the metric does not exist (for example none with an event); left out.
    """

    estimate: float
    low: float
    high: float
    level: float
    num_records: int
    num_patients: int
    num_resamples: int
    num_undefined: int = 0

    def __str__(self) -> str:
        return f"{self.estimate:.3f} ({self.level:.0%} interval {self.low:.3f} to {self.high:.3f})"

    def as_dict(self) -> dict[str, float | int]:
        """The fields as plain numbers, for `metrics.json`."""
        return asdict(self)


def bootstrap_interval(
    metric: Metric,
    *arrays: npt.ArrayLike,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the percentile interval of `metric(*arrays)`, resampling patients.

    Args:
        metric: function of the arrays; a `ValueError` on a resample marks that resample as undefined.
        arrays: one row per record.
        patient_ids: patient of each record; None takes every record for a patient of its own.
        n: number of resamples.
        seed: of the resampling; the same seed draws the same patients for every metric.
        level: coverage.

    Raises:
        ValueError: arrays of different length, missing patient ids, or a metric undefined on most resamples.
    """
    *outcome, scores = arrays
    options: dict[str, Any] = {"patient_ids": patient_ids, "n": n, "seed": seed, "level": level}
    return bootstrap_comparison(metric, *outcome, scores={"": scores}, **options)[0][""]


def bootstrap_comparison(
    metric: Metric,
    *outcome: npt.ArrayLike,
    scores: Mapping[str, npt.ArrayLike],
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Returns intervals of several models and of their differences, on the same resamples.

    The metric is computed once for each model and resample, however many are compared.

    Args:
        metric: function of the outcome arrays and one score array, in this order.
        outcome: arrays of the outcome.
        scores: name -> scores of the same records; the first is compared with each other.
        patient_ids, n, seed, level: as in [`bootstrap_interval`].

    Returns:
        The interval of every model, and, for all but the first, that of "first minus this".

    Raises:
        ValueError: as [`bootstrap_interval`].
    """
    truth, given = [np.asarray(array) for array in outcome], {name: np.asarray(each) for name, each in scores.items()}
    patients = _patients_of([*truth, *given.values()], patient_ids)
    estimates = {name: float(metric(*truth, each)) for name, each in given.items()}
    values = {name: np.ma.masked_array(np.zeros(n), mask=True) for name in given}
    rng = np.random.default_rng(seed)
    for draw in range(n):
        rows = patients.resample(rng)
        resampled = [column[rows] for column in truth]
        for name, each in given.items():
            with suppress(ValueError):
                values[name][draw] = float(metric(*resampled, each[rows]))
    first, *others = given
    intervals = {name: _interval(estimates[name], values[name], level, patients) for name in given}
    return intervals, {
        name: _interval(estimates[first] - estimates[name], values[first] - values[name], level, patients)
        for name in others
    }


def bootstrap_intervals(
    metrics: Callable[..., Mapping[str, float]],
    *arrays: npt.ArrayLike,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval | None]:
    """Returns the intervals of several metrics that are computed together, once for each resample.

    Args:
        metrics: function of the arrays -> name: value, NaN where one does not exist; the same names every time. A
            `ValueError` marks a resample as undefined for all.
        arrays, patient_ids, n, seed, level: as in [`bootstrap_interval`].

    Returns:
        None for a metric that does not exist, on all records or on most resamples.

    Raises:
        ValueError: arrays of different length, missing patient ids, or what `metrics` raises for all records.
    """
    columns = [np.asarray(array) for array in arrays]
    patients = _patients_of(columns, patient_ids)
    estimates = metrics(*columns)
    values = np.full((n, len(estimates)), np.nan)
    rng = np.random.default_rng(seed)
    for draw in range(n):
        rows = patients.resample(rng)
        with suppress(ValueError):
            values[draw] = list(metrics(*(column[rows] for column in columns)).values())
    found: dict[str, Interval | None] = dict.fromkeys(estimates)
    for column, (name, estimate) in enumerate(estimates.items()):
        with suppress(ValueError):
            if not np.isnan(estimate):
                found[name] = _interval(estimate, np.ma.masked_invalid(values[:, column]), level, patients)
    return found


def bootstrap_difference(
    metric: Metric,
    *outcome: npt.ArrayLike,
    scores: npt.ArrayLike,
    baseline_scores: npt.ArrayLike,
    patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the interval of `metric(*outcome, scores) - metric(*outcome, baseline_scores)` on the same patients.

    Both scores are evaluated on the same resampled patients, so that chance in who had an event cancels.

    Args:
        metric: function of the outcome arrays and one score array, in this order.
        outcome: arrays of the outcome, for example `event, time` or `labels`.
        scores, baseline_scores: of two models for the same records in the same order.
        patient_ids, n, seed, level: as in [`bootstrap_interval`].

    Raises:
        ValueError: as [`bootstrap_interval`].
    """
    both = {"ours": scores, "theirs": baseline_scores}
    options: dict[str, Any] = {"patient_ids": patient_ids, "n": n, "seed": seed, "level": level}
    return bootstrap_comparison(metric, *outcome, scores=both, **options)[1]["theirs"]


def _interval(estimate: float, values: "np.ma.MaskedArray[Any, Any]", level: float, patients: Patients) -> Interval:
    """Builds the interval from one value per resample, masked where the metric does not exist."""
    n, known = len(values), values.compressed()
    undefined = n - len(known)
    if not len(known) or undefined > _MAX_UNDEFINED_SHARE * n:
        raise ValueError(
            f"bootstrap: the metric does not exist on {undefined} of {n} resamples; too few events or labels"
        )
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, patients.num_records, len(patients), n, undefined)


def _patients_of(columns: list[npt.NDArray[Any]], patient_ids: Sequence[Any] | npt.ArrayLike | None) -> Patients:
    lengths = [len(column) for column in columns]
    if patient_ids is not None:
        lengths.append(len(np.asarray(patient_ids)))
    if len(set(lengths)) != 1:
        raise ValueError(f"bootstrap: expected one row per record in every array, got lengths {lengths}")
    if lengths[0] == 0:
        raise ValueError("bootstrap: expected at least one record, got none")
    return Patients(patient_ids, lengths[0])


@dataclass(frozen=True)
class AnalyticInterval:
    """An estimate whose interval comes from a formula.

    Attributes:
        estimate: on all records.
        low, high: limits.
        level: coverage aimed at, 0.95 by default.
        standard_error: of the estimate, on its own scale.
        p_value: two-sided, against the null value: 0.5 for a C-index, 0 for a difference or an
            intercept, 1 for a slope or a ratio.
        num_records, num_patients: records and patients behind it; a patient's records are one cluster.
    """

    estimate: float
    low: float
    high: float
    level: float
    standard_error: float
    p_value: float
    num_records: int
    num_patients: int

    @classmethod
    def of(
        cls, estimate: float, limits: tuple[float, float], level: float, error: float, z: float, patients: Patients
    ) -> "AnalyticInterval":
        """Returns the interval between limits, with the two-sided p value of a standard normal statistic `z`."""
        p_value = float(2 * norm.sf(abs(z)))
        return cls(estimate, *limits, level, error, p_value, patients.num_records, len(patients))

    @classmethod
    def wald(cls, estimate: float, error: float, null: float, level: float, patients: Patients) -> "AnalyticInterval":
        """Returns the interval that is symmetric around its estimate; its p value asks whether the truth is `null`.

        Raises:
            ValueError: a level that is not between 0 and 1.
        """
        half = half_width(level) * error
        z = (estimate - null) / error if error > 0 else 0.0
        return cls.of(estimate, (estimate - half, estimate + half), level, error, z, patients)

    def __str__(self) -> str:
        return f"{self.estimate:.3f} ({self.level:.0%} interval {self.low:.3f} to {self.high:.3f})"

    def as_dict(self) -> dict[str, float | int]:
        """The fields as plain numbers, for `metrics.json`."""
        return asdict(self)


def half_width(level: float) -> float:
    """Returns the half width of the normal interval of this coverage, in standard errors: 1.96 for 0.95.

    Raises:
        ValueError: a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a coverage between 0 and 1, got {level:g}")
    return float(ndtri((1 + level) / 2))
