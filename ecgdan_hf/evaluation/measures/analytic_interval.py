"""Estimates whose interval comes from a formula: clustered standard errors from the influence of each record.

Records of one patient are not independent: their influences are added before they are squared. Imports numpy, pandas
and scipy alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri
from scipy.stats import norm

from ecgdan_hf.evaluation.measures.bootstrap import FloatArray


@dataclass(frozen=True)
class AnalyticInterval:
    """An estimate with the interval of a formula instead of resamples.

    Attributes:
        estimate: on all records.
        low, high: limits.
        level: coverage aimed at, 0.95 by default.
        standard_error: of the estimate, on its own scale.
        p_value: two-sided, of the value that would mean nothing: 0.5 for a C-index, 0 for a difference or an
            intercept, 1 for a slope or a ratio.
        num_records, num_patients: what it rests on; a patient's records count as one piece of evidence.
    """

    estimate: float
    low: float
    high: float
    level: float
    standard_error: float
    p_value: float
    num_records: int
    num_patients: int

    def __str__(self) -> str:
        return f"{self.estimate:.3f} ({self.level:.0%} interval {self.low:.3f} to {self.high:.3f})"

    def as_dict(self) -> dict[str, float | int]:
        """The fields as plain numbers, for `metrics.json`."""
        return asdict(self)


def clustered_error(influence: FloatArray, patient_ids: Sequence[Any] | npt.ArrayLike | None) -> tuple[float, int]:
    """Standard error from the influence of each record, summed by patient, and the number of patients.

    Args:
        influence: (n,), by how much the estimate moves with the weight of each record.
        patient_ids: patient of each record; None takes every record for a patient of its own.

    Raises:
        ValueError: ids that are missing or of another number, or fewer than two patients.
    """
    codes = patient_codes(patient_ids, len(influence))
    sums = np.bincount(codes, weights=influence)
    return float(np.sqrt((sums**2).sum())), len(sums)


def patient_codes(patient_ids: Sequence[Any] | npt.ArrayLike | None, num_records: int) -> npt.NDArray[np.intp]:
    """0, 1, ... for the patient of each record: (n,).

    Raises:
        ValueError: ids that are missing or of another number, or fewer than two patients.
    """
    if patient_ids is None:
        return np.arange(num_records)
    codes, patients = pd.factorize(np.asarray(patient_ids))
    if len(codes) != num_records:
        raise ValueError(f"patient_ids: expected {num_records} ids, one per record, got {len(codes)}")
    if (codes < 0).any():
        raise ValueError(f"patient_ids: expected an id for every record, {int((codes < 0).sum())} are missing")
    if len(patients) < 2:
        raise ValueError(f"patient_ids: expected at least two patients, got {len(patients)}; one has no variance")
    return codes


def half_width(level: float) -> float:
    """Half width of the normal interval of this coverage, in standard errors: 1.96 for 0.95.

    Raises:
        ValueError: a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a coverage between 0 and 1, got {level:g}")
    return float(ndtri((1 + level) / 2))


def two_sided(z: float) -> float:
    """Two-sided p value of a standard normal statistic."""
    return float(2 * norm.sf(abs(z)))
