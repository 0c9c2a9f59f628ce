"""Ten ways around the leakage guard; each is refused, or said where the records cannot be told from others."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset
from evaluation.test_seen_records import rows, signals

from ecgdan_hf.evaluation.folds import check_unseen
from ecgdan_hf.evaluation.seen_records import FILE, SeenRecords, check_records_unseen

Test = tuple[str, list[int], str, Dataset]  # checkpoint, folds, folder and rows that somebody tests on


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint trained on folds 1 to 3 of `cohort`: the signals of seed 0."""
    monkeypatch.chdir(tmp_path)
    return checkpoint(tmp_path / "run", 0, {"train_folds": "1-3"})


def checkpoint(folder: Path, seed: int, recipe: dict[str, object], start: str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"data_dir": "cohort", "checkpoint": start, **recipe}))
    SeenRecords.of({"train": rows(signals(seed))}, start).write(folder)
    return folder


def folds_as_a_text_of_a_list(run: Path) -> Test:
    (run / "recipe.yaml").write_text(yaml.safe_dump({"data_dir": "cohort", "train_folds": "[1, 2, 3]"}))
    (run / FILE).unlink()
    return str(run), [2], "cohort", rows(signals(0))


def the_table_in_place_of_its_folder(run: Path) -> Test:
    return str(run), [2], "cohort/table.csv", rows(signals(0))


def a_copy_with_other_ids_in_another_order(run: Path) -> Test:
    copy = rows(signals(0)[::-1].copy())
    return str(run), [9], "copy", copy.map(lambda row, index: {"record_id": f"x{index}"}, with_indices=True)


def the_bundle_of_the_run(run: Path) -> Test:
    bundle = run.with_name("bundle")
    bundle.mkdir()
    shutil.copy(run / FILE, bundle)
    (bundle / "recipe.yaml").write_text(yaml.safe_dump({"train_folds": "1-3"}))  # as published: no folder
    return str(bundle), [2], "cohort", rows(signals(0))


def a_relative_checkpoint_before_it(run: Path) -> Test:
    tuned = checkpoint(run.with_name("tuned"), 5, {"train_folds": "4-5"}, start="run")
    (run.with_name("elsewhere")).mkdir()
    return str(tuned), [2], "elsewhere/../cohort", rows(signals(0))


def no_recipe(run: Path) -> Test:
    (run / "recipe.yaml").unlink()
    return str(run), [2], "cohort", rows(signals(0))


def a_chain_of_checkpoints(run: Path) -> Test:
    second = checkpoint(run.with_name("second"), 5, {"data_dir": "b", "train_folds": "1"}, start=str(run))
    third = checkpoint(run.with_name("third"), 6, {"data_dir": "c", "train_folds": "1"}, start=str(second))
    shutil.rmtree(second)
    shutil.rmtree(run)
    return str(third), [2], "cohort", rows(signals(0))


def some_of_the_leads(run: Path) -> Test:
    fewer = signals(0)
    fewer[:, 1:] = 0
    return str(run), [2], "leads", rows(fewer)


def a_parquet_copy_with_rounded_values(run: Path) -> Test:
    path = str(run.with_name("copy.parquet"))
    rows(np.round(signals(0), 3)).to_parquet(path)
    return str(run), [2], path, Dataset.from_parquet(path, cache_dir=str(run.with_name("cache")))


def duplicates_among_many(run: Path) -> Test:
    return str(run), [9], "other", rows(np.concatenate([signals(8, records=400), signals(0)[:1]]))


REFUSED = [folds_as_a_text_of_a_list, the_table_in_place_of_its_folder, a_copy_with_other_ids_in_another_order]
REFUSED += [the_bundle_of_the_run, a_relative_checkpoint_before_it, no_recipe, a_chain_of_checkpoints]
REFUSED += [some_of_the_leads, a_parquet_copy_with_rounded_values]


def guard(path: str, folds: list[int], data_dir: str, test: Dataset) -> str:
    """As every verb that evaluates asks."""
    check_unseen(path, folds, data_dir)
    return check_records_unseen(path, test)


@pytest.mark.parametrize("trick", REFUSED, ids=lambda trick: trick.__name__)
def test_a_trick_around_the_leakage_guard_is_refused(trick: Callable[[Path], Test], run: Path) -> None:
    with pytest.raises(ValueError, match="was trained on"):
        guard(*trick(run))


def test_a_duplicate_among_many_records_is_said_and_other_records_are_not_suspected(run: Path) -> None:
    with pytest.warns(match="1 of 401 test records have the signal of a record that it has seen"):
        guard(*duplicates_among_many(run))
    fewer = signals(9)
    fewer[:, 1:] = 0
    for other in (signals(9), fewer):
        assert guard(str(run), [9], "other", rows(other)).startswith("0 of 20")


def test_missing_leads_are_said_where_a_checkpoint_does_not_know_its_records_by_lead(run: Path) -> None:
    with np.load(run / FILE) as found:
        old = {name: found[name] for name in ("key", "trained", "chosen", "is_complete")}
    np.savez_compressed(run / FILE, **old)
    fewer = signals(0)
    fewer[:, 1:] = 0
    with pytest.warns(match="20 more lack leads, so that it could not be checked"):
        guard(str(run), [9], "other", rows(fewer))
