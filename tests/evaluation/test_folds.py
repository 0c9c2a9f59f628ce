"""Folds: every spelling that training accepts, the leakage guard reads too."""

from pathlib import Path

import pytest
import yaml

from ecgdan_hf.evaluation.folds import check_unseen, parse_folds

SPELLINGS = ["1-3", "1,2,3", "[1, 2, 3]", "[1,2-3]", " 1 , 2 , 3 ", [1, 2, 3], ["1-2", 3], (1, 2, 3)]


@pytest.mark.parametrize("folds", SPELLINGS)
def test_every_spelling_of_the_same_folds_gives_the_same_numbers(folds: object):
    assert parse_folds(folds) == [1, 2, 3]


@pytest.mark.parametrize(("folds", "numbers"), [("9", [9]), (9, [9]), ("1,3,5-6", [1, 3, 5, 6]), (None, None)])
def test_folds_are_read_as_ranges_lists_and_single_numbers(folds: object, numbers: list[int] | None):
    assert parse_folds(folds) == numbers


@pytest.mark.parametrize("folds", ["", "a", "3-", "1-2-3", "1,1", "5-3", "3,5-4", "[1,2", True, 1.5, [], {"a": 1}])
def test_folds_that_mean_nothing_are_refused_in_one_line_with_the_argument(folds: object):
    with pytest.raises(ValueError, match=r"^test_folds: expected [^\n]*$"):
        parse_folds(folds, "test_folds")


@pytest.mark.parametrize("folds", SPELLINGS)
@pytest.mark.parametrize("seen", [1, 2, 3])
def test_the_guard_refuses_each_training_fold_however_the_recipe_spells_it(tmp_path: Path, folds: object, seen: int):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"data_dir": "cohort", "train_folds": _plain(folds)}))
    with pytest.raises(ValueError, match=rf"was trained on folds \[{seen}\]; choose test folds it has not seen"):
        check_unseen(str(tmp_path), [seen, 4], "cohort")
    check_unseen(str(tmp_path), [4], "cohort")


def test_the_guard_names_a_recipe_whose_folds_it_cannot_read(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text("data_dir: cohort\ntrain_folds: most of them\n")
    with pytest.raises(ValueError, match=r"recipe\.yaml: train_folds: expected numbers such as 1-8"):
        check_unseen(str(tmp_path), [4], "cohort")


def _plain(folds: object) -> object:
    return list(folds) if isinstance(folds, tuple) else folds
