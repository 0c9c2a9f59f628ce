"""Cox models on ECG measurements, the comparator that needs no network.

The comparator of arXiv 2403.10581 is heart rate and fourteen flags of the ECG. The measurements behind the flags, on
their own scale, lose nothing at a limit; age and sex can be added to either. The table comes from
`data.measure.table.measure_table`, or from a cart's own measurements under the same names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.measure.measurements import MEASUREMENTS, flags
from ecgdan_hf.evaluation.comparators.baselines import PENALIZERS, AgeAndSex, RidgeCox, column_of
from ecgdan_hf.evaluation.comparators.evidence_cox import EvidenceCox
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import FloatArray

KINDS = ("values", "flags")
COMPARATORS: dict[str, dict[str, Any]] = {
    "ECG measurements": {"kind": "values"},
    "ECG measurements as 15 flags": {"kind": "flags"},
    "ECG measurements, age and sex": {"kind": "values", "age_and_sex": True},
    "15 flags, age and sex": {"kind": "flags", "age_and_sex": True},
}
"""What reports compare a network with, as arguments of [`MeasurementCox.fit`]."""
_REPEATED = ("qt_ms", "qtc_bazett_ms", "t_axis_deg")  # told by the rate with QTc, or by QRS axis and angle
_VALUES = tuple(name for name in MEASUREMENTS if name not in _REPEATED)
_NORMAL_AXES_DEG = {"p_axis_deg": 50.0, "qrs_axis_deg": 40.0}  # medians of normal records of PTB-XL, rounded
_AGE_AND_SEX = ("age_decades", "male")
_TRUSTED_SHARE = 0.99  # values are cut off at the limits of this middle share of the training values
_FEWEST_MISSING = 5  # records with a missing value before "missing" becomes a predictor of its own


@dataclass(frozen=True)
class _Standardiser:
    """Turns columns into predictors, as learned in training.

    Attributes:
        columns: measured columns that vary in training.
        indicators: columns of them whose absence is a predictor of its own.
        fill: (columns,), training medians for what is missing.
        low, high: (columns,), cut-offs.
    """

    columns: tuple[str, ...]
    indicators: tuple[str, ...]
    fill: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the predictors."""
        return (*self.columns, *(f"{column}_missing" for column in self.indicators))

    def __call__(self, table: pd.DataFrame) -> FloatArray:
        """Predictors (records, names) of a table, without NaN."""
        values = table[list(self.columns)].to_numpy(dtype=np.float64)
        filled = np.clip(np.where(np.isnan(values), self.fill, values), self.low, self.high)
        missing = table[list(self.indicators)].isna().to_numpy(dtype=np.float64)
        result: FloatArray = np.hstack([filled, missing])
        return result


@dataclass(frozen=True)
class MeasurementCox:
    """A fitted Cox model on ECG measurements.

    Attributes:
        kind: `"values"` or `"flags"`.
        age_and_sex: whether they are predictors as well.
        standardiser: how a table becomes predictors.
        cox: the fit.
    """

    kind: str
    age_and_sex: bool
    standardiser: _Standardiser
    cox: RidgeCox | EvidenceCox

    @staticmethod
    def joined(table: pd.DataFrame, measurements: pd.DataFrame) -> pd.DataFrame:
        """Adds to each row the measurements of its record; existing columns stay."""
        columns = ["record_id", *(name for name in measurements if name not in table)]
        return table.merge(measurements[columns], on="record_id", how="left", validate="one_to_one")

    @classmethod
    def fit(
        cls,
        train: pd.DataFrame,
        kind: str = "flags",
        age_and_sex: bool = False,
        penalizer: float | str | None = "evidence",
        penalizers: Sequence[float] = PENALIZERS,
        seed: int = 0,
    ) -> "MeasurementCox":
        """Fits the model to a table.

        A missing value counts as the training median. Where at least five training records lack a value, its absence
        is a predictor too (atrial fibrillation has no P wave). Axes become distances from a normal axis. No record is
        left out, so that all models are compared on the same records.

        Args:
            train: table with the measurements, `event` and `time` (years), `entry` where it is delayed, and, as
                asked for, `age` and `sex`.
            kind: "flags" (heart rate, fourteen flags) or "values".
            age_and_sex: whether they are predictors as well.
            penalizer: "evidence" averages penalties by their evidence, as the few-events model does; None chooses one
                of `penalizers` by cross-validation; a number is that of a ridge.
            penalizers: penalties to try.
            seed: of the cross-validation.

        Raises:
            ValueError: a missing column, no event, or measurements that are all constant or missing.
        """
        candidates = _candidates(train, "train", kind, age_and_sex)
        follow_up = FollowUp(column_of(train, "event", "train"), FollowUp.time_of(train))
        if not follow_up.event.any():
            raise ValueError(f"train: no event among {len(follow_up)} records, a Cox model cannot be fitted")
        standardiser = _standardiser(candidates)
        given = standardiser(candidates), follow_up.event, follow_up.times
        if isinstance(penalizer, str):
            free = sum(name in _AGE_AND_SEX for name in standardiser.columns)
            return cls(kind, age_and_sex, standardiser, EvidenceCox.fit(*given, free=free))
        if penalizer is not None:
            return cls(kind, age_and_sex, standardiser, RidgeCox.fit(*given, penalizer))
        patients = train["patient_id"].to_numpy() if "patient_id" in train else None
        cox = RidgeCox.cross_validated(*given, patients, penalizers, seed=seed)
        return cls(kind, age_and_sex, standardiser, cox)

    @classmethod
    def fit_all(cls, train: pd.DataFrame, with_age_and_sex: bool) -> "dict[str, MeasurementCox]":
        """Fits each model that [`usable`] names to one table."""
        return {name: cls.fit(train, **COMPARATORS[name]) for name in cls.usable(with_age_and_sex)}

    @staticmethod
    def predictors(table: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        """Age and sex, (n, 2), standardised with 0 where unknown; measurements on their own scale, (n, predictors).

        Standardised on this table without any outcome, for models that are fitted to parts of it.
        """
        both = AgeAndSex.of(table, "table")
        known = ((both - both.mean()) / both.std(ddof=0)).fillna(0.0).to_numpy(dtype=np.float64)
        candidates = _candidates(table, "table", "values", False)
        return known, _standardiser(candidates)(candidates)

    @staticmethod
    def usable(with_age_and_sex: bool) -> list[str]:
        """Returns the names of `COMPARATORS`, or only of those that need neither age nor sex."""
        return [name for name, given in COMPARATORS.items() if with_age_and_sex or "age_and_sex" not in given]

    def log_hazard(self, table: pd.DataFrame, name: str = "table") -> FloatArray:
        """Log hazard (records,) of a table with the columns the model was fitted on.

        Raises:
            ValueError: a missing column.
        """
        return self.cox.log_hazard(self.standardiser(_candidates(table, name, self.kind, self.age_and_sex)))

    @property
    def weights(self) -> dict[str, float]:
        """Log hazard ratio per training standard deviation of each predictor."""
        return dict(zip(self.standardiser.names, self.cox.per_sd.tolist(), strict=True))


def _standardiser(candidates: pd.DataFrame) -> _Standardiser:
    varying = [str(name) for name in candidates if candidates[name].nunique() > 1]
    missing = candidates[varying].isna()
    if not varying:
        raise ValueError("train: expected measurements that vary, found all constant or missing")
    values = candidates[varying]
    flag = values.nunique() == 2  # a flag that few records carry keeps them
    low = values.quantile((1 - _TRUSTED_SHARE) / 2).where(~flag, values.min())
    high = values.quantile((1 + _TRUSTED_SHARE) / 2).where(~flag, values.max())
    fill, lowest, highest = (column.to_numpy(dtype=float) for column in (values.median(), low, high))
    return _Standardiser(tuple(varying), _indicators(missing), fill, lowest, highest)


def _indicators(missing: pd.DataFrame) -> tuple[str, ...]:
    """Columns often missing, one of each pattern: PR and P axis are missing where the P wave is."""
    often = missing.loc[:, missing.sum() >= _FEWEST_MISSING]
    return tuple(str(name) for name in often.columns[~often.T.duplicated().to_numpy(dtype=bool)])


def _candidates(table: pd.DataFrame, name: str, kind: str, age_and_sex: bool) -> pd.DataFrame:
    """Every predictor before standardisation, NaN where missing."""
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    for column in (*MEASUREMENTS, *(("age", "sex") if age_and_sex else ())):
        column_of(table, column, name)
    chosen = (flags(table) if kind == "flags" else _values(table)).reset_index(drop=True)
    if not age_and_sex:
        return chosen
    return pd.concat([AgeAndSex.of(table, name), chosen], axis=1)


def _values(table: pd.DataFrame) -> pd.DataFrame:
    """The measurements, axes as degrees away from a normal one: too far left and too far right are both abnormal."""
    values = table[[name for name in _VALUES if name not in _NORMAL_AXES_DEG]].astype(float)
    for name, normal in _NORMAL_AXES_DEG.items():
        turn = (table[name].astype(float) - normal + 180) % 360 - 180
        values[f"{name}_left"], values[f"{name}_right"] = (-turn).clip(lower=0), turn.clip(lower=0)
    return values
