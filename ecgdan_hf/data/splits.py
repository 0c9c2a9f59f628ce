"""Splits by patient: rejects a split with a patient in two parts."""

from collections.abc import Mapping

import numpy as np
import pandas as pd


def split_by_patient(
    table: pd.DataFrame, fractions: Mapping[str, float], seed: int, stratify_by: str | None = None
) -> dict[str, pd.DataFrame]:
    """Draws parts that share no patient; returns the rows of each part, in table order.

    Args:
        table: one row per record, with `patient_id`.
        fractions: share of patients of each named part; together 1.
        seed: the same patients and seed give the same parts, regardless of the order of rows.
        stratify_by: column with equal shares of its values in all parts, such as `event`, and at least one patient in
            each part if there are enough; a patient counts by the largest value of its records.

    Raises:
        ValueError: fractions that do not add up to 1, a missing column or value, or a part without patients.
    """
    if not fractions or any(share <= 0 for share in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"fractions: expected positive shares that add up to 1, got {dict(fractions)}")
    wanted = ["patient_id"] if stratify_by is None else ["patient_id", stratify_by]
    _require(table, wanted, "table")
    patients = table["patient_id"].astype(str)
    strata = pd.Series(0, index=table.index) if stratify_by is None else table[stratify_by]
    if strata.isna().any():
        raise ValueError(
            f"stratify_by: expected a value of {stratify_by} in each row, got none in {strata.isna().sum()}"
        )
    largest = strata.groupby(patients).max()
    rng = np.random.Generator(np.random.PCG64(seed))
    part_of: dict[str, str] = {}
    for _, members in sorted(largest.groupby(largest), key=lambda item: item[0]):
        shuffled = rng.permutation(np.array(sorted(members.index), dtype=object))
        edges = _edges(list(fractions.values()), len(shuffled), one_each=stratify_by is not None)
        for name, start, stop in zip(fractions, edges[:-1], edges[1:], strict=True):
            part_of.update(dict.fromkeys(shuffled[start:stop], name))
    parts = {name: table[(patients.map(part_of) == name).to_numpy()] for name in fractions}
    for name, part in parts.items():
        if part.empty:
            raise ValueError(
                f"fractions: {largest.size} patients leave none for part '{name}'; give more or fewer parts"
            )
    check_patients_disjoint(parts)
    return parts


def _edges(shares: list[float], count: int, one_each: bool) -> np.ndarray:
    """Borders of the parts among `count` patients; with `one_each`, no part is empty if possible."""
    edges = np.round(np.cumsum([0.0, *shares]) * count).astype(int)
    if one_each and count >= len(shares):
        places = np.arange(len(edges))
        edges = np.maximum.accumulate(edges - places) + places  # strictly increasing ...
        edges = np.minimum(edges, count - places[::-1])  # ... with room for later parts
    return edges


def split_by_fold(table: pd.DataFrame, folds: Mapping[str, list[int]]) -> dict[str, pd.DataFrame]:
    """Parts by published folds, such as `{"train": [1, 2], "test": [9]}`; no part may be empty or share a patient."""
    _require(table, ["fold", "patient_id"], "table")
    parts = {name: table[table["fold"].isin(numbers).to_numpy()] for name, numbers in folds.items()}
    for name, part in parts.items():
        if part.empty:
            present = ", ".join(str(fold) for fold in sorted(table["fold"].dropna().unique()))
            raise ValueError(f"folds: no record of part '{name}' in folds {list(folds[name])}; folds here: {present}")
    check_patients_disjoint(parts)
    return parts


def check_patients_disjoint(parts: Mapping[str, pd.DataFrame]) -> None:
    """Raises ValueError if two of the named tables share a patient."""
    seen: dict[str, str] = {}
    for name, part in parts.items():
        _require(part, ["patient_id"], f"part '{name}'")
        for patient in part["patient_id"].astype(str).unique():
            if patient in seen:
                raise ValueError(
                    f"patient {patient} is in two parts, '{seen[patient]}' and '{name}'; split by patient"
                )
            seen[patient] = name


def _require(table: pd.DataFrame, columns: list[str], what: str) -> None:
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise ValueError(f"{what}: expected a column {absent[0]}, got {', '.join(map(str, table.columns))}")
