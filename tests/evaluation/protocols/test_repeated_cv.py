"""Folds by patient, scores in one ranking, spreads by their names, a t-test that knows folds share patients."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.evaluation.protocols.repeated_cv import Fold, Predictions, _corrected_t_test


def cohort(patients: int = 120, seed: int = 0) -> pd.DataFrame:
    """Patients with one to three records, half of them with the event; `truth` is the log hazard."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        truth = rng.normal()
        time = rng.exponential() / np.exp(truth)
        for _ in range(1 + patient % 3):
            rows.append((f"p{patient}", int(time < 1), min(time, 1.0) + 1e-3 * rng.random(), truth))
    table = pd.DataFrame(rows, columns=["patient_id", "event", "time", "truth"])
    return table.assign(record_id=[f"r{number:04d}" for number in range(len(table))])


def predicted(table: pd.DataFrame, seeds: tuple[int, ...] = (0, 1), num_folds: int = 2) -> pd.DataFrame:
    """Every record judged once per seed; `shifted` is the truth on another scale in every fold, `noise` is none."""
    rng, parts = np.random.default_rng(1), []
    for fold in Fold.divide(table, num_folds, seeds):
        part = table.iloc[fold.test].assign(seed=fold.seed, fold=fold.number)
        part["shifted"] = 100 * fold.number + (1 + fold.seed) * part["truth"]
        part["noise"] = rng.normal(size=len(part))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_folds_hold_every_record_once_and_no_patient_twice_with_equal_shares_of_events():
    table = cohort()
    folds = Fold.divide(table, 3, [0, 5])
    for seed in (0, 5):
        tests = [fold.test for fold in folds if fold.seed == seed]
        assert np.array_equal(np.sort(np.concatenate(tests)), np.arange(len(table)))
        patients = [set(table["patient_id"].iloc[test]) for test in tests]
        assert not patients[0] & patients[1] and not patients[1] & patients[2] and not patients[0] & patients[2]
        shares = [table["event"].iloc[test].mean() for test in tests]
        assert max(shares) - min(shares) < 0.08
    assert not np.array_equal(folds[0].test, folds[3].test)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_folds": 1}, "folds: expected two or more, got 1"),
        ({"seeds": [0, 0]}, r"seeds: expected different numbers, got \[0, 0\]"),
        ({"num_folds": 40}, "folds: expected two patients with an event in each of 40"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(given: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Fold.divide(cohort(60), **{"num_folds": 2, "seeds": [0], **given})


def test_a_fold_without_a_comparable_pair_is_refused():
    table = cohort(40)
    table["time"] = np.where(table["event"] == 1, 5.0, 1.0)  # whoever has no event has left by then
    with pytest.raises(ValueError, match="has no record still at risk at another's event; ask for fewer folds"):
        Fold.divide(table, 2, [0])


def test_the_corrected_t_test_is_the_formula_by_hand():
    found = _corrected_t_test([0.1, 0.2, 0.3, 0.4], test_over_train=1.0)
    variance = np.var([0.1, 0.2, 0.3, 0.4], ddof=1)
    statistic = 0.25 / np.sqrt((1 / 4 + 1) * variance)
    assert found["t"] == pytest.approx(statistic) and found["df"] == 3
    assert found["p"] == pytest.approx(2 * student.sf(statistic, 3)) and found["difference"] == pytest.approx(0.25)
    assert np.isnan(_corrected_t_test([0.1, 0.1], 1.0)["p"])
    with pytest.raises(ValueError, match="differences: expected two or more finite numbers"):
        _corrected_t_test([0.1], 1.0)


def test_scores_are_standardised_within_their_fold_whatever_its_scale():
    predictions = predicted(cohort())
    scores = Predictions(predictions).standardised("shifted")
    assert np.allclose(scores, Predictions(predictions).standardised("truth"))
    order = predictions["record_id"].drop_duplicates().sort_values()
    for (seed, _), part in predictions.groupby(["seed", "fold"]):
        inside = scores[order.isin(part["record_id"]).to_numpy(), seed]
        assert inside.mean() == pytest.approx(0, abs=1e-9) and inside.std() == pytest.approx(1)


def test_a_record_that_is_missing_in_one_repetition_is_refused():
    predictions = predicted(cohort())
    with pytest.raises(ValueError, match="expected each record once for every seed, some are missing"):
        Predictions(predictions.iloc[1:]).standardised("truth")


def test_a_model_is_judged_by_its_ranking_out_of_fold_and_its_spreads_are_told_apart():
    table = cohort()
    predictions = predicted(table)
    found = Predictions(predictions).compare(["shifted", "noise"], n=50)
    best = concordance_index(table["event"], table["time"], table["truth"])
    assert found["shifted"]["concordance_index"]["estimate"] == pytest.approx(best, abs=0.01)
    assert found["noise"]["concordance_index"]["low"] < 0.5 < found["noise"]["concordance_index"]["high"]
    by_hand = {key: concordance_index(part["event"], part["time"], part["truth"])
               for key, part in predictions.groupby(["seed", "fold"])}  # fmt: skip
    assert found["shifted"]["over_folds"]["values"] == pytest.approx(list(by_hand.values()), abs=1e-6)
    assert found["shifted"]["over_folds"]["sd"] == pytest.approx(np.std(list(by_hand.values()), ddof=1))
    seeds = [np.mean([by_hand[seed, fold] for fold in (1, 2)]) for seed in (0, 1)]
    assert found["shifted"]["over_seeds"]["sd"] == pytest.approx(np.std(seeds, ddof=1), abs=1e-9)
    assert found["noise"]["ahead"]["low"] > 0 and "ahead" not in found["shifted"]


def test_records_that_chose_the_epoch_did_not_train():
    predictions = predicted(cohort())
    t = [
        Predictions(predictions).compare(["shifted", "noise"], 20, trained_share=share)["noise"]["t_test"]["t"]
        for share in (1, 0.8)
    ]
    sizes = predictions.groupby(["seed", "fold"]).size()
    ratio = (sizes / (predictions["record_id"].nunique() - sizes)).mean()
    assert t[1] / t[0] == pytest.approx(np.sqrt((1 / 4 + ratio) / (1 / 4 + ratio / 0.8)))


def test_a_subgroup_with_few_events_is_counted_and_not_judged():
    predictions = predicted(cohort())
    few = predictions["patient_id"].isin([f"p{number}" for number in range(6)])
    predictions = predictions.assign(sex=np.where(few, "female", "male"))
    found = Predictions(predictions).subgroups("truth", n=20)["sex"]
    assert "concordance_index" not in found["female"] and "concordance_index" in found["male"]
    assert found["female"]["num_records"] + found["male"]["num_records"] == predictions["record_id"].nunique()
