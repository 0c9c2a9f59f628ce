import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from ecgdan_hf.data.formats import kind, read
from ecgdan_hf.data.loading import load
from ecgdan_hf.data.readers import parquet as parquet_files
from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.publish.dataset import convert_dataset


@pytest.fixture(scope="module")
def converted(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "parquet"
    return convert_dataset("csv", cohort, out, keep_ids=True, cache_dir=out.with_name("cache"))


def test_a_row_is_the_record_it_was_made_of(cohort, converted):
    file = converted / "data/train-00000-of-00001.parquet"
    assert kind(file) == "parquet"
    for row in (39, 0, 17):
        record, recorded = read(file, member=str(row)), read(cohort / f"records/00/{row + 1:05d}")
        np.testing.assert_array_equal(record.signal_mv, recorded.signal_mv)
        assert (record.sampling_rate, record.lead_names) == (recorded.sampling_rate, recorded.lead_names)
        assert record.record_id == f"{row + 1:05d}"
    assert read(file, member="0", start_seconds=2, seconds=3).signal_mv.shape == (12, 1500)


def test_a_converted_folder_is_a_source_like_the_one_it_was_made_of(cohort, converted, extractor, tmp_path):
    assert find_source(None, converted).name == "parquet"
    options = {"feature_extractor": extractor, "folds": [1, 2], "cache_dir": tmp_path}
    before, after = load("csv", cohort, **options), load("parquet", converted, **options)
    for name in ("record_id", "patient_id", "age", "sex", "fold", "labels", "event", "time", "flags"):
        assert before[name][:] == after[name][:], name
    assert before.features["labels"] == after.features["labels"]
    np.testing.assert_array_equal(before[:]["input_values"], after[:]["input_values"])
    streamed = load("parquet", converted, streaming=True, **options)
    assert [row["record_id"] for row in streamed] == before["record_id"][:]


def test_anyone_can_load_it_without_this_package(converted, tmp_path):
    files = [str(file) for file in converted.glob("data/*.parquet")]
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert rows.features["labels"].feature.names
    assert np.asarray(rows[0]["signal"]).shape == (5000, 12)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (None, "member: expected the number of a row, got None"),
        ("-1", "number of a row"),
        ("40", "row below 40, got 40"),
    ],
)
def test_a_row_that_is_not_there_is_one_line(converted, member, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(converted / "data/train-00000-of-00001.parquet", member=member)
    assert "train-00000-of-00001.parquet" in str(caught.value)


def test_damaged_and_foreign_files_are_one_line(converted, tmp_path):
    good = (converted / "data/train-00000-of-00001.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(good[: len(good) // 2])
    for call in (
        lambda: parquet_files.read_parquet_folder(tmp_path),
        lambda: read(tmp_path / "a.parquet", member="0"),
    ):
        with pytest.raises(ValueError, match=r"a\.parquet: ") as caught:
            call()
        assert "\n" not in str(caught.value)
    pq.write_table(pa.table({"input_values": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="missing signal, sampling_rate, lead_names"):
        parquet_files.read_parquet_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected Parquet files"):
        parquet_files.read_parquet_folder(tmp_path / "absent")
