from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from ecgdan_hf.data.loading import load
from ecgdan_hf.data.prepared.preparation import Preparation
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.prepared.streaming import stream


@pytest.fixture(scope="module")
def short(tmp_path_factory, ecg) -> Path:
    """A table of 40 records of one lead, which are read quickly."""
    folder = tmp_path_factory.mktemp("short")
    np.save(folder / "ecg.npy", ecg[:1, :1500])
    options = {"file": "ecg.npy", "sampling_rate": 500, "unit": "mV", "lead_names": "I"}
    pd.DataFrame({"record_id": ALL, "patient_id": ALL, **options}).to_csv(folder / "table.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def streamed(short, extractor) -> IterableDataset:
    return load("csv", short, feature_extractor=extractor, streaming=True)


def ids(rows) -> list[str]:
    return [row["record_id"] for row in rows]


ALL = [f"{i:05d}" for i in range(1, 41)]


def test_a_stream_is_shared_out_in_chunks_of_records(streamed):
    assert streamed.num_shards == 3  # 40 records, at most 16 each
    parts = [ids(split_dataset_by_node(streamed, rank, world_size=3)) for rank in range(3)]
    assert sorted(name for part in parts for name in part) == ALL
    assert [len(part) for part in parts] == [13, 13, 14]
    uneven = [ids(split_dataset_by_node(streamed, rank, world_size=2)) for rank in range(2)]
    assert (
        sorted(name for part in uneven for name in part) == ALL
    )  # 3 chunks do not divide by 2: rows are dealt out in turn


@pytest.mark.parametrize(("records", "processes"), [(1_000, 16), (16_000, 64), (40_001, 64)])
def test_a_large_stream_divides_among_processes_without_any_reading_the_records_of_others(records, processes):
    sources = [RecordFile(f"part.hdf5[{row}]", {"member": str(row), "sampling_rate": 400.0}) for row in range(records)]
    rows = stream(sources, Dataset.from_dict({"row": range(records)}), NumbersOnly(None))
    assert rows.num_shards % processes == 0
    mine = list(split_dataset_by_node(rows, 5, world_size=processes))
    assert 0 <= len(mine) - records // processes <= 16
    assert all(row["flags"] == [f"part.hdf5[{row['row']}]", str(row["row"]), "400.0"] for row in mine)


class NumbersOnly(Preparation):
    """Hands on where a record lies instead of reading it."""

    def examples(self, sources):
        for source in sources:
            yield {**self._empty(), "flags": [source.file, *map(str, source.options.values())], "error": ""}


@pytest.mark.parametrize("workers", [0, 2])
def test_every_record_comes_once_from_the_workers_of_a_data_loader(streamed, workers):
    loader = DataLoader(streamed.with_format("numpy"), batch_size=None, num_workers=workers)
    assert sorted(ids(loader)) == ALL


@pytest.mark.parametrize("seen", [0, 5, 16, 39, 40])
def test_a_stream_goes_on_where_its_state_was_taken(short, extractor, seen):
    streamed = load("csv", short, feature_extractor=extractor, streaming=True)  # a state stays with its dataset
    rows = iter(streamed)
    for _ in range(seen):
        next(rows)
    state = streamed.state_dict()
    resumed = load("csv", short, feature_extractor=extractor, streaming=True)  # as in a new process
    resumed.load_state_dict(state)
    assert ids(resumed) == ALL[seen:]


def test_shuffling_mixes_chunks_and_their_records_by_a_seed(streamed):
    first, again = (ids(streamed.shuffle(seed=1, buffer_size=8)) for _ in range(2))
    other = ids(streamed.shuffle(seed=2, buffer_size=8))
    assert first == again != other != ALL
    assert sorted(first) == sorted(other) == ALL


def test_rows_keep_their_labels_and_outcomes(cohort, extractor, tmp_path):
    options = {"feature_extractor": extractor, "cache_dir": tmp_path, "folds": [1, 2]}
    stored, streamed = (load("csv", cohort, streaming=streaming, **options) for streaming in (False, True))
    assert len(stored) == 8
    for row, other in zip(streamed, stored, strict=True):
        np.testing.assert_array_equal(row.pop("input_values"), other.pop("input_values"))
        assert row == other


def test_prepared_rows_stream_from_arrow_too(short, extractor, tmp_path):
    stored = load("csv", short, feature_extractor=extractor, cache_dir=tmp_path).to_iterable_dataset(num_shards=4)
    rows = iter(stored)
    assert ids([next(rows) for _ in range(12)]) == ALL[:12]
    state = stored.state_dict()
    stored.load_state_dict(state)
    assert ids(stored) == ALL[12:]
