import pickle
import sys

import numpy as np
import pyarrow as pa
import pytest
from datasets import Array2D, Dataset, Features, Value, concatenate_datasets

from ecgdan_hf.data.prepared.mapped_memory import MappedArrays, _shared_bytes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")


def test_pages_of_mapped_arrow_files_are_given_back_and_read_the_same_again(tmp_path):
    path = tmp_path / "rows.arrow"
    table = pa.table({"x": np.arange(8_000_000, dtype=np.float64)})  # 64 MB
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    mapped = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()["x"]
    before = _shared_bytes()
    total = pa.compute.sum(mapped).as_py()
    held = _shared_bytes() - before
    assert held > 50e6
    assert MappedArrays.release_pages(limit_bytes=1 << 50) == 0
    assert MappedArrays.release_pages(limit_bytes=0) >= 1
    assert _shared_bytes() - before < held / 2
    assert pa.compute.sum(mapped).as_py() == total


def test_mapped_arrays_are_the_rows_of_a_dataset_however_it_was_selected(tmp_path):
    values = np.random.default_rng(0).standard_normal((50, 2, 3)).astype(np.float32)
    features = Features({"signal": Array2D((2, 3), "float32"), "row": Value("int64")})
    parts = [slice(0, 20), slice(20, 50)]
    for number, part in enumerate(parts):
        rows = {"signal": values[part], "row": np.arange(50)[part]}
        Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / str(number))
    dataset = concatenate_datasets([Dataset.load_from_disk(tmp_path / str(number)) for number in range(2)])
    for chosen in (dataset, dataset.select(range(15, 30)), dataset.shuffle(seed=1), dataset.select([49, 3, 3, 20])):
        arrays = MappedArrays(chosen, "signal")
        wanted = [len(chosen) - 1, 0, 2]
        np.testing.assert_array_equal(np.stack(arrays[wanted]), values[np.asarray(chosen["row"][:])[wanted]])
        assert not arrays[[0]][0].flags.owndata  # a view of the file
        again = pickle.loads(pickle.dumps(arrays))
        np.testing.assert_array_equal(np.stack(again[wanted]), np.stack(arrays[wanted]))
        assert len(pickle.dumps(arrays)) < 20_000
