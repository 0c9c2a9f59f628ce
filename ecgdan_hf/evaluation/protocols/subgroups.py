"""Metrics of a model by sex and by band of age, and the difference of each group from everyone else.

A number for everyone can hide a group for which it does not hold (Chen, Johansson and Sontag, NeurIPS 2018; TRIPOD+AI,
Collins et al., BMJ 385:e078378, 2024, item 23a). A group is judged where enough patients have what is judged, else it
is counted; records whose sex or age is not stated are a group of their own. Patients are resampled, not records. Many
differences are looked at, so some leave zero out of their interval by chance: `subgroup_text` says how many.

Plain functions of arrays and tables: imports numpy and pandas alone, nothing of the network.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.evaluation.measures.classification import DEFAULT_THRESHOLD, auroc, macro_auroc
from ecgdan_hf.evaluation.measures.concordance import concordance_index
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import FloatArray, bootstrap_interval
from ecgdan_hf.evaluation.measures.risk_calibration import RiskCalibration

BoolArray = npt.NDArray[np.bool_]
Groups = dict[str, dict[str, BoolArray]]
Found = dict[str, dict[str, dict[str, Any]]]
Metric = Callable[..., float]

_AGE_BANDS = (0.0, 50.0, 65.0, 80.0, 200.0)
"""Years; four bands, because ten-year bands of a few hundred records hold too few events to be judged."""
NOT_STATED = "not stated"
MIN_PATIENTS = 10
"""Patients with the event (or label), and without it, below which a group is counted and not judged."""
_SHARES = {"sensitivity": 1.0, "false_positive_rate": 0.0}
"""Share called positive at the threshold, of those who have the label and of those who do not."""


def _groups_of(table: pd.DataFrame) -> Groups:
    """Returns the rows of each group by sex and by band of age, without empty groups.

    Args:
        table: `sex` ("female", "male" or missing) and `age` (years, or missing); a column may be absent.

    Examples:
        >>> people = pd.DataFrame({"sex": ["female", None], "age": [49.9, 50.0]})
        >>> {name: list(found) for name, found in _groups_of(people).items()}
        {'sex': ['female', 'not stated'], 'age': ['under 50', '50 to 64']}
    """
    sex = table["sex"] if "sex" in table else pd.Series(None, index=table.index, dtype=object)
    age = (table["age"] if "age" in table else pd.Series(np.nan, index=table.index)).astype(float)
    by_sex = {name: (sex == name).to_numpy(dtype=bool) for name in ("female", "male")}
    by_age = {
        _band(low, high): ((age >= low) & (age < high)).to_numpy(dtype=bool) for low, high in pairwise(_AGE_BANDS)
    }
    return {
        name: {group: where for group, where in _with_the_rest(members, len(table)).items() if where.any()}
        for name, members in (("sex", by_sex), ("age", by_age))
    }


def survival_subgroups(
    table: pd.DataFrame,
    log_hazard: npt.ArrayLike,
    risk: npt.ArrayLike | None = None,
    horizon_years: float | None = None,
    metric: Metric = concordance_index,
    n: int = 1000,
    seed: int = 0,
) -> Found:
    """Returns the C-index of each group, and its calibration where there are risks.

    Args:
        table: `patient_id`, `event`, `time` (years), `entry` where it is delayed, and `sex` and `age` where known.
        log_hazard: (n,), or (n, seeds) where `metric` takes that.
        risk: (n,), probability of the event within `horizon_years`; None judges the order alone.
        horizon_years: of `risk`.
        metric: of event, time and score.
        n, seed: of the bootstrap over patients.

    Returns:
        "sex" and "age" -> group -> `num_records`, `num_patients`, `num_events` and, where enough patients have the
        event, `concordance_index` (fields of an interval, under `versus_rest` those of the difference "group minus
        everyone else") and `observed_over_expected`; what could not be estimated is absent.
    """
    scores, event = np.asarray(log_hazard, dtype=np.float64), table["event"].to_numpy(dtype=float)
    truth = event, FollowUp.time_of(table)
    patients = table["patient_id"].astype(str).to_numpy()
    options: dict[str, Any] = {"patients": patients, "n": n, "seed": seed}

    def one(where: BoolArray, with_rest: bool) -> dict[str, Any]:
        found = _counts(where, patients) | {"num_events": int((event[where] == 1).sum())}
        judged = [_num_patients(patients, part & (event == 1)) >= MIN_PATIENTS for part in (where, ~where)]
        if not judged[0]:
            return found
        found |= _measure("concordance_index", metric, truth, scores, where, with_rest and judged[1], **options)
        if risk is not None and horizon_years is not None:
            found |= _calibration(truth, np.asarray(risk, dtype=np.float64), horizon_years, where, patients)
        return found

    return _of_each(one, table)


def classification_subgroups(
    table: pd.DataFrame,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    names: Sequence[str],
    thresholds: Mapping[str, float] | None = None,
    n: int = 1000,
    seed: int = 0,
) -> Found:
    """Returns the macro AUROC of each group, and AUROC, decisions and calibration of every label.

    Args:
        table: `patient_id`, and `sex` and `age` where known.
        labels: (n, labels), 1, 0 or NaN.
        scores: (n, labels), higher means more likely.
        names: of the labels.
        thresholds: by label (one half where a label has none); `scores` are then probabilities. None judges the
            order alone.
        n, seed: of the bootstrap over patients.

    Returns:
        "sex" and "age" -> group -> `num_records`, `num_patients`, `labels`, and `macro_auroc` over the labels
        (`labels_judged`) that enough patients have and have not, in the group and outside: the same labels on both
        sides of the difference. Each label has `num_positives` and, where judged, `auroc` and, with thresholds,
        `sensitivity`, `false_positive_rate` and `predicted_minus_observed` (mean probability minus share of
        positives). Measures are fields of an interval, with the difference "group minus everyone else" under
        `versus_rest`.
    """
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    patients = table["patient_id"].astype(str).to_numpy()
    options: dict[str, Any] = {"patients": patients, "n": n, "seed": seed}

    def one(where: BoolArray, with_rest: bool) -> dict[str, Any]:
        found, judged = _counts(where, patients) | {"labels": {}}, []
        for column, name in enumerate(names):
            cut = None if thresholds is None else thresholds.get(name, DEFAULT_THRESHOLD)
            found["labels"][name] = _label(truth[:, column], values[:, column], where, with_rest, cut, **options)
            if _can_be_judged(truth[:, column], where, patients) == (True, True) or (
                where.all() and "auroc" in found["labels"][name]
            ):
                judged.append(column)
        if judged:
            found["labels_judged"] = [names[column] for column in judged]
            given = (truth[:, judged],), values[:, judged], where, with_rest and not where.all()
            found |= _measure("macro_auroc", macro_auroc, *given, **options)
        return found

    return _of_each(one, table)


def _of_each(judge: Callable[[BoolArray, bool], dict[str, Any]], table: pd.DataFrame) -> Found:
    """Evaluates each group; the second of two groups has no difference, as it mirrors that of the first."""
    return {
        name: {
            group: judge(where, len(members) > 2 or place == 0) for place, (group, where) in enumerate(members.items())
        }
        for name, members in _groups_of(table).items()
    }


def _band(low: float, high: float) -> str:
    if low == 0:
        return f"under {high:g}"
    return f"{low:g} and over" if high == _AGE_BANDS[-1] else f"{low:g} to {high - 1:g}"


def _with_the_rest(members: dict[str, BoolArray], length: int) -> dict[str, BoolArray]:
    stated = np.any(list(members.values()), axis=0) if length else np.zeros(0, dtype=bool)
    return {**members, NOT_STATED: ~stated}


def _counts(where: BoolArray, patients: npt.NDArray[Any]) -> dict[str, Any]:
    return {"num_records": int(where.sum()), "num_patients": _num_patients(patients, where)}


def _num_patients(patients: npt.NDArray[Any], where: BoolArray) -> int:
    return len(np.unique(patients[where]))


def _can_be_judged(truth: FloatArray, where: BoolArray, patients: npt.NDArray[Any]) -> tuple[bool, bool]:
    """Returns whether the group, and everyone else, have enough patients with and without the label."""
    inside, outside = (
        all(_num_patients(patients, part & (truth == value)) >= MIN_PATIENTS for value in (1, 0))
        for part in (where, ~where)
    )
    return inside, outside


def _label(
    truth: FloatArray,
    scores: FloatArray,
    where: BoolArray,
    with_rest: bool,
    threshold: float | None,
    **options: Any,
) -> dict[str, Any]:
    found: dict[str, Any] = {"num_positives": int((truth[where] == 1).sum())}
    inside, outside = _can_be_judged(truth, where, options["patients"])
    outside = outside and with_rest
    if not inside:
        return found
    found |= _measure("auroc", auroc, (truth,), scores, where, outside, **options)
    if threshold is None:
        return found
    called = (scores >= threshold).astype(np.float64)
    for name, value in _SHARES.items():
        found |= _measure(name, _share_called(value), (truth,), called, where, outside, **options)
    return found | _measure("predicted_minus_observed", _excess, (truth,), scores, where, outside, **options)


def _share_called(value: float) -> Metric:
    """Returns a metric: the share called positive among those whose label has this value."""

    def share(truth: FloatArray, called: FloatArray) -> float:
        among = truth == value
        if not among.any():
            raise ValueError("labels: nobody to judge the decisions by")
        return float(called[among].mean())

    return share


def _excess(truth: FloatArray, probability: FloatArray) -> float:
    """Returns calibration in the large: mean probability minus the share with the label; 0 is right."""
    known = ~np.isnan(truth)
    return float(probability[known].mean() - truth[known].mean())


def _measure(
    name: str,
    metric: Metric,
    truth: tuple[FloatArray, ...],
    scores: FloatArray,
    where: BoolArray,
    with_rest: bool,
    patients: npt.NDArray[Any],
    n: int,
    seed: int,
) -> dict[str, Any]:
    """Returns `{name: interval}` within the group, with the difference from everyone else; empty where undefined."""
    inside = [each[where] for each in (*truth, scores)]
    try:
        found = bootstrap_interval(metric, *inside, patient_ids=patients[where], n=n, seed=seed).as_dict()
    except ValueError:  # the metric does not exist on most resamples
        return {}
    entry: dict[str, Any] = dict(found)
    if with_rest:
        try:
            apart = bootstrap_interval(_gap(metric), *truth, where, scores, patient_ids=patients, n=n, seed=seed)
            entry["versus_rest"] = apart.as_dict()
        except ValueError:
            pass
    return {name: entry}


def _gap(metric: Metric) -> Metric:
    """Returns a metric of truth arrays, membership and scores: within the group minus everyone else."""

    def gap(*arrays: Any) -> float:
        *truth, where, scores = arrays
        inside = metric(*(each[where] for each in truth), scores[where])
        return inside - metric(*(each[~where] for each in truth), scores[~where])

    return gap


def _calibration(
    truth: tuple[FloatArray, ...], risk: FloatArray, years: float, where: BoolArray, patients: npt.NDArray[Any]
) -> dict[str, Any]:
    event, time = (each[where] for each in truth)
    try:
        found = RiskCalibration(event, time, risk[where], years, patients[where]).observed_over_expected()
    except ValueError:  # nobody had the event by then, or nobody was left, or some entered late
        return {}
    return {"observed_over_expected": {**found.as_dict(), "horizon_years": years}}
