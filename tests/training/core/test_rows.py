"""Few labels: subsets of patients that lie inside each other, hold every label, and leave the test part alone."""

import itertools
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from ecgdan_hf.training import finetune
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core.rows import labelled_subset, split

NAMES = ["NORM", "MI", "HYP"]


def records(patients: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Patient of each record (one or two each) and labels, the last carried by one patient in twenty."""
    rng = np.random.default_rng(seed)
    patient_ids = np.repeat([f"p{number}" for number in range(patients)], rng.integers(1, 3, patients))
    labels = (rng.random((len(patient_ids), 3)) < [0.5, 0.3, 0.05]).astype(float)
    return patient_ids, labels


def as_dataset(patient_ids: np.ndarray, labels: np.ndarray) -> Dataset:
    patient = np.unique(patient_ids, return_inverse=True)[1]
    columns = {
        "record_id": [str(number) for number in range(len(patient_ids))],
        "patient_id": list(patient_ids),
        "fold": (patient % 10 + 1).tolist(),
        "labels": [np.flatnonzero(row).tolist() for row in labels],
    }
    kinds = {name: Value("string") for name in ("record_id", "patient_id")} | {"fold": Value("int64")}
    return Dataset.from_dict(columns, features=Features({**kinds, "labels": List(ClassLabel(names=NAMES))}))


def arguments(**changes: Any) -> FinetuneArguments:
    return FinetuneArguments(**{"train_folds": "1-8", "valid_folds": "9", "test_folds": "10", **changes})


@pytest.mark.parametrize("seed", range(5))
def test_a_smaller_subset_lies_inside_a_larger_one_and_keeps_patients_whole(seed: int):
    patient_ids, labels = records()
    subsets = [set(labelled_subset(patient_ids, labels, share, seed)) for share in (0.01, 0.1, 0.5, 1.0)]
    assert all(small < large for small, large in itertools.pairwise(subsets))
    assert len(subsets[-1]) == len(patient_ids)
    inside = set(patient_ids[sorted(subsets[1])])
    assert len(inside) == 40
    assert subsets[1] == set(np.flatnonzero(np.isin(patient_ids, list(inside))))


def test_every_label_keeps_its_share_of_patients():
    patient_ids, labels = records()
    shares = np.array([labels[labelled_subset(patient_ids, labels, 0.1, seed)].mean(0) for seed in range(20)])
    assert (shares[:, 2] > 0).all()
    np.testing.assert_allclose(shares.mean(0), labels.mean(0), atol=0.03)


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    patient_ids, labels = records()
    shuffled = np.random.default_rng(1).permutation(len(patient_ids))
    first = set(patient_ids[labelled_subset(patient_ids, labels, 0.1, 3)])
    assert set(patient_ids[shuffled][labelled_subset(patient_ids[shuffled], labels[shuffled], 0.1, 3)]) == first
    assert set(patient_ids[labelled_subset(patient_ids, labels, 0.1, 4)]) != first


def test_a_subset_grows_until_some_label_can_be_told_apart():
    patient_ids, labels = np.arange(100), np.zeros((100, 1))
    labels[7] = 1
    for seed in range(10):
        kept = labelled_subset(patient_ids, labels, 0.01, seed)
        assert set(labels[kept, 0]) == {0.0, 1.0}


def test_two_events_are_kept_where_follow_up_has_to_be_put_in_order():
    patient_ids, event = np.arange(100), (np.arange(100) % 20 == 0).astype(float)[:, None]
    for seed in range(10):
        assert event[labelled_subset(patient_ids, event, 0.02, seed, least=2)].sum() == 2


def test_training_and_validation_shrink_alike_and_the_test_part_stays():
    dataset = as_dataset(*records())
    whole, tenth = split(dataset, arguments()), split(dataset, arguments(label_fraction=0.1))
    assert tenth["test"]["record_id"] == whole["test"]["record_id"]
    for name in ("train", "valid"):
        small, large = (set(part[name]["patient_id"]) for part in (tenth, whole))
        assert small < large
        assert len(small) == round(0.1 * len(large))
    patients = [set(part["patient_id"]) for part in tenth.values()]
    assert len(set.union(*patients)) == sum(map(len, patients))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_fraction_that_means_nothing_is_refused(fraction: float):
    with pytest.raises(ValueError, match="label_fraction: expected a share above 0 and at most 1"):
        split(as_dataset(*records(40)), arguments(label_fraction=fraction))


@pytest.mark.parametrize("task", ["survival", "classification"])
def test_fine_tuning_learns_from_the_share_alone(finetune_args: Any, task: str):
    args = finetune_args(task=task, label_fraction=0.1, epochs=1, train_folds="1-6", test_folds="7-10")
    counts = finetune.finetune(args)["num_records"]
    assert (counts["train"] + counts["valid"]) * 2 < 48 - counts["test"]
    assert counts["train"] >= 2 and counts["valid"] >= 2


def test_folds_that_the_data_do_not_have_are_refused_with_what_to_do_instead():
    dataset = as_dataset(*records(20)).remove_columns("fold")
    with pytest.raises(
        ValueError, match="train_folds: expected data with folds for 1-8, found none; --train-folds ''"
    ):
        split(dataset, arguments())
