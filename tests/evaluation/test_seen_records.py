"""The leakage guard that compares records by their signals."""

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from ecgdan_hf.evaluation.seen_records import FILE, UNKNOWN, SeenRecords, check_records_unseen


def signals(seed: int, records: int = 20, samples: int = 256) -> np.ndarray:
    """(records, 3, samples): random walks, as alike in scale as normalised ECGs."""
    walks = np.random.default_rng(seed).normal(size=(records, 3, samples)).cumsum(-1)
    return (walks / walks.std(-1, keepdims=True)).astype(np.float32)


def rows(values: np.ndarray) -> Dataset:
    return Dataset.from_dict({"input_values": values, "record_id": [f"patient {i}" for i in range(len(values))]})


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """Trained on the records of seed 0; those of seed 1 chose its epoch; it started from one trained on seed 2."""
    for name in ("base", "run"):
        (tmp_path / name).mkdir()
    SeenRecords.of({"train": rows(signals(2)), "valid": rows(signals(3))}, None).write(tmp_path / "base")
    parts = {"train": rows(signals(0)), "valid": rows(signals(1)), "test": rows(signals(4))}
    SeenRecords.of(parts, str(tmp_path / "base")).write(tmp_path / "run")
    return str(tmp_path / "run")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_records_that_it_or_a_checkpoint_before_it_was_trained_on_are_refused_wherever_they_lie(
    checkpoint: str, seed: int
):
    mixed = np.concatenate([signals(seed)[5:8], signals(9)])  # another order, other ids, among other records
    with pytest.raises(ValueError, match="run: was trained on 3 of 23 test records, recognised by their signals"):
        check_records_unseen(checkpoint, rows(mixed))


def test_records_that_only_chose_an_epoch_may_be_tested_where_nothing_was_learned_of_them(checkpoint: str):
    assert check_records_unseen(checkpoint, rows(signals(1)), with_chosen=False).startswith("0 of 20 test records")
    assert check_records_unseen(checkpoint, rows(signals(3))).startswith("0 of 20")  # chose the epoch of the base


def test_differences_between_machines_do_not_hide_a_record(checkpoint: str):
    noise = np.random.default_rng(5).normal(scale=1e-5, size=signals(0).shape)
    with pytest.raises(ValueError, match="was trained on 20 of 20"):
        check_records_unseen(checkpoint, rows(signals(0) + noise.astype(np.float32)))


def test_silence_is_nobodys_and_the_rest_of_a_short_record_is_recognised(tmp_path: Path):
    short = signals(6)
    short[..., 128:] = 0
    SeenRecords.of({"train": rows(short)}, None).write(tmp_path)
    other = signals(7)
    other[..., 64:] = 0
    assert check_records_unseen(str(tmp_path), rows(np.concatenate([other, 0 * other]))).startswith("0 of 40")
    with pytest.raises(ValueError, match="was trained on 20 of 20"):
        check_records_unseen(str(tmp_path), rows(short))


def beats_of_one_lead(seed: int, records: int = 120) -> np.ndarray:
    """(records, 12, 1000): about ten narrow beats in lead I, nothing between them, no other lead."""
    rng = np.random.default_rng(seed)
    values = np.zeros((records, 12, 1000), np.float32)
    starts = rng.uniform(0, 100, records)[:, None] + rng.uniform(80, 120, records)[:, None] * np.arange(9)
    for record, peaks in enumerate(starts.astype(int)):
        values[record, 0, peaks[peaks < 996][:, None] + np.arange(4)] = [1.0, 4.0, 4.0, -1.0]
    values[:, 0] += rng.normal(0, 0.1, (records, 1000))
    return values


def test_one_lead_of_other_people_is_not_taken_for_one_that_was_seen(tmp_path: Path):
    SeenRecords.of({"train": rows(beats_of_one_lead(0))}, None).write(tmp_path)
    assert check_records_unseen(str(tmp_path), rows(beats_of_one_lead(1))).startswith("0 of 120")
    with pytest.raises(ValueError, match="was trained on 120 of 120"):
        check_records_unseen(str(tmp_path), rows(beats_of_one_lead(0)))


def test_a_duplicate_among_many_records_is_said(checkpoint: str):
    many = np.concatenate([signals(8, records=400), signals(0)[:1]])
    with pytest.warns(match="1 of 401 test records have the signal of a record that it has seen"):
        assert check_records_unseen(checkpoint, rows(many)).startswith("1 of 401")


def test_what_is_not_known_is_said(tmp_path: Path):
    for name in ("silent", "tuned"):
        (tmp_path / name).mkdir()
    with pytest.warns(match="could not be checked"):
        assert check_records_unseen(str(tmp_path / "silent"), rows(signals(0))) == UNKNOWN
    SeenRecords.of({"train": rows(signals(0))}, str(tmp_path / "silent")).write(tmp_path / "tuned")
    with pytest.warns(match="the records of a checkpoint it started from are not known"):
        check_records_unseen(str(tmp_path / "tuned"), rows(signals(4)))


def test_the_file_names_nobody_and_two_checkpoints_cannot_be_compared(checkpoint: str, tmp_path: Path):
    content = Path(checkpoint, FILE).read_bytes()
    assert b"patient" not in content
    (tmp_path / "other").mkdir()
    SeenRecords.of({"train": rows(signals(0))}, None).write(tmp_path / "other")
    one, other = (SeenRecords.read(str(place)) for place in (checkpoint, tmp_path / "other"))
    assert one and other and not np.isin(one.trained, other.trained).any()


def test_a_damaged_file_is_named(checkpoint: str):
    Path(checkpoint, FILE).write_bytes(b"PK")
    with pytest.raises(ValueError, match=f"{FILE}: expected the records a checkpoint has seen, found a damaged file"):
        check_records_unseen(checkpoint, rows(signals(0)))
