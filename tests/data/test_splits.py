import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.data.splits import check_patients_disjoint, split_by_fold, split_by_patient

SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}


@pytest.fixture
def table():
    patients = np.repeat([f"P{i}" for i in range(100)], np.arange(100) % 3 + 1)  # one to three records each
    return pd.DataFrame(
        {
            "record_id": [str(i) for i in range(len(patients))],
            "patient_id": patients,
            "event": [int(int(patient[1:]) % 5 == 0) for patient in patients],
            "fold": [int(patient[1:]) % 10 + 1 for patient in patients],
        }
    )


def test_parts_share_no_patient_and_lose_no_record(table):
    parts = split_by_patient(table, SHARES, seed=0)
    assert sorted(pd.concat(parts.values())["record_id"]) == sorted(table["record_id"])
    patients = [set(part["patient_id"]) for part in parts.values()]
    assert [len(names) for names in patients] == [70, 10, 20]
    assert len(set.union(*patients)) == 100


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_rows(table):
    first = split_by_patient(table, SHARES, seed=0)
    shuffled = split_by_patient(table.sample(frac=1, random_state=1), SHARES, seed=0)
    other = split_by_patient(table, SHARES, seed=1)
    assert set(first["test"]["record_id"]) == set(shuffled["test"]["record_id"])
    assert set(first["test"]["record_id"]) != set(other["test"]["record_id"])
    assert first["train"].index.is_monotonic_increasing


def test_a_stratified_split_has_the_same_share_of_events_in_every_part(table):
    parts = split_by_patient(table, SHARES, seed=0, stratify_by="event")
    for part in parts.values():
        assert part.groupby("patient_id")["event"].max().mean() == pytest.approx(0.2)


def test_published_folds_become_parts(table):
    parts = split_by_fold(table, {"train": [1, 2, 3], "valid": [9]})
    assert set(parts["train"]["fold"]) == {1, 2, 3}
    assert set(parts["valid"]["fold"]) == {9}
    with pytest.raises(ValueError, match="no record of part 'test' in folds \\[11\\]; folds here: 1, 2"):
        split_by_fold(table, {"train": [1], "test": [11]})


def test_one_patient_in_two_parts_is_refused(table):
    table.loc[0, "fold"] = 9
    table.loc[table.index[-1], "patient_id"] = table.loc[0, "patient_id"]
    with pytest.raises(ValueError, match="patient P0 is in two parts, 'train' and 'valid'; split by patient"):
        split_by_fold(table, {"train": [1, 2, 3, 4, 5, 6, 7, 8, 10], "valid": [9]})
    with pytest.raises(ValueError, match="patient P0 is in two parts"):
        check_patients_disjoint({"train": table.iloc[:1], "valid": table.iloc[-1:]})
    check_patients_disjoint({"train": table.iloc[:1], "valid": table.iloc[50:60]})


@pytest.mark.parametrize("shares", [{}, {"train": 0.5, "test": 0.6}, {"train": 1.1, "test": -0.1}])
def test_shares_that_are_no_shares_are_refused(table, shares):
    with pytest.raises(ValueError, match="expected positive shares that add up to 1"):
        split_by_patient(table, shares, seed=0)


def test_too_few_patients_and_missing_columns_are_refused(table):
    with pytest.raises(ValueError, match="2 patients leave none for part 'test'"):
        split_by_patient(table.head(3), SHARES, seed=0)
    with pytest.raises(ValueError, match="expected a column patient_id, got record_id"):
        split_by_patient(table[["record_id"]], SHARES, seed=0)
    with pytest.raises(ValueError, match="expected a column died"):
        split_by_patient(table, SHARES, seed=0, stratify_by="died")
    with pytest.raises(ValueError, match="stratify_by: expected a value of event in each row, got none in 1"):
        split_by_patient(table.assign(event=table["event"].where(table.index > 0)), SHARES, 0, stratify_by="event")
