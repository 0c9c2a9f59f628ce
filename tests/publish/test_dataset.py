import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from fixtures.write_vendor_files import kardia
from hub_server import TOKEN, HubServer
from huggingface_hub import DatasetCard
from typer.testing import CliRunner
from warm import WARM

from ecgdan_hf.cli.main import app
from ecgdan_hf.data.formats import read
from ecgdan_hf.data.simulate.synthetic import write_cohort
from ecgdan_hf.files import locked_file
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.publish import dataset as published
from ecgdan_hf.publish.dataset import check_converted, convert_dataset, push_dataset


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """40 synthetic ECGs of 20 patients; the table also names doctors, dates and a report."""
    folder = tmp_path_factory.mktemp("cohort") / "data"
    table = write_cohort(folder, n=40, seed=3)
    table = pd.read_csv(folder / "table.csv", dtype={"record_id": str})
    table["patient_id"] = [f"MRN-{4711 + i // 2}" for i in range(40)]
    table["age"] = [93.0, *table["age"][1:]]
    table["report"] = "Dr. Secret saw this on 2019-03-04"
    table["recorded_on"] = "2019-03-04"
    table.to_csv(folder / "table.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def converted(cohort, cache, tmp_path_factory):
    return convert_dataset(
        "csv", cohort, tmp_path_factory.mktemp("out") / "parquet", cache_dir=cache, license_id="cc0-1.0"
    )


def rows_of(folder) -> pd.DataFrame:
    tables = [pq.read_table(file) for file in sorted(folder.glob("data/*.parquet"))]
    return pd.concat([table.drop(["signal"]).to_pandas() for table in tables])


def test_nothing_that_could_identify_a_patient_is_written(cohort, converted):
    content = b"".join(path.read_bytes() for path in converted.rglob("*") if path.is_file())
    for secret in (b"MRN-", b"Secret", b"2019-03", str(cohort).encode(), b"recorded_on"):
        assert secret not in content
    for file in converted.glob("data/*.parquet"):  # compressed columns, read back
        text = pq.read_table(file).drop(["signal"]).to_pandas().to_csv()
        assert not re.search(r"MRN-|Secret|2019-03|records/", text)
    rows = rows_of(converted)
    assert rows["age"].max() == 90
    assert rows["record_id"].is_unique
    assert not set(rows["record_id"]) & {f"{i:05d}" for i in range(1, 41)}


def test_records_of_a_patient_stay_together_and_nothing_else_changes(cohort, converted):
    rows, table = rows_of(converted), pd.read_csv(cohort / "table.csv")
    hazards = rows["log_hazard"].to_numpy()
    place = [int(np.argmin(np.abs(hazards - hazard))) for hazard in table["log_hazard"]]
    assert sorted(place) == list(range(40))
    assert place != sorted(place)  # the order of rows tells nobody's id
    rows = rows.iloc[place]
    assert (rows["patient_id"].to_numpy()[::2] == rows["patient_id"].to_numpy()[1::2]).all()
    assert rows["patient_id"].nunique() == 20
    for row in (0, 25):
        signal = read(converted / "data/train-00000-of-00001.parquet", member=str(place[row])).signal_mv
        np.testing.assert_array_equal(signal, read(cohort / f"records/00/{row + 1:05d}").signal_mv)
    np.testing.assert_array_equal(rows["event"], table["event"])
    np.testing.assert_allclose(rows["time"], table["time"], rtol=1e-6)
    np.testing.assert_allclose(rows["age"], table["age"].clip(upper=90), rtol=1e-6)


def test_pseudonyms_of_two_conversions_cannot_be_matched(cohort, converted, cache, tmp_path):
    again = convert_dataset("csv", cohort, tmp_path / "again", cache_dir=cache)
    assert not set(rows_of(converted)["patient_id"]) & set(rows_of(again)["patient_id"])
    assert not list(again.rglob(".*"))  # the key is gone


def test_what_a_reader_quotes_of_a_file_is_not_written(tmp_path):
    content = kardia(np.tile(np.arange(3000) % 300, (6, 1))).replace(
        b"2024-06-01T10:20:30Z", b"1 June 2024, Mrs Secret"
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.json").write_bytes(content)
    assert "Secret" in read(tmp_path / "in/a.json").flags[0]
    rows = rows_of(convert_dataset("folder", tmp_path / "in", tmp_path / "out", cache_dir=tmp_path / "cache"))
    assert rows["flags"].iloc[0][0] == "reader_warning" and "Secret" not in rows.to_csv()


def test_columns_and_ids_are_kept_when_their_owner_says_so(cohort, cache, tmp_path):
    out = convert_dataset("csv", cohort, tmp_path / "out", cache_dir=cache, keep=["report"], keep_ids=True)
    rows = rows_of(out)
    assert rows["report"].iloc[0].startswith("Dr. Secret")
    assert rows["patient_id"].iloc[0] == "MRN-4711"
    assert "recorded_on" not in rows
    assert "Ids are those of the source" in (out / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="got diagnosis"):
        convert_dataset("csv", cohort, tmp_path / "other", cache_dir=cache, keep=["diagnosis"])
    assert not (tmp_path / "other").exists()


def test_the_card_counts_what_was_written_and_is_valid(converted):
    card = DatasetCard.load(converted / "README.md")
    assert card.data.license == "cc0-1.0"
    assert card.data.configs == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]
    assert "| records | 40 |" in card.text
    assert "| patients | 20 |" in card.text
    assert "| events (simulated) |" in card.text  # a cohort whose follow-up is invented stays recognisable
    assert "500 Hz (40)" in card.text
    for column in [*rows_of(converted).columns, "signal"]:
        assert f"| `{column}` |" in card.text


def test_bad_records_are_left_out_and_the_others_keep_their_signals(cohort, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(published, "_SHARD_RECORDS", 15)
    copy = shutil.copytree(cohort, tmp_path / "copy")
    (copy / "records/00/00003.dat").write_bytes(b"short")
    out = convert_dataset("csv", copy, tmp_path / "out", cache_dir=tmp_path / "cache", skip_bad=True, keep_ids=True)
    rows = rows_of(out)
    assert rows["record_id"].tolist() == [f"{i:05d}" for i in range(1, 41) if i != 3]
    assert rows.columns[:3].tolist() == ["record_id", "patient_id", "age"]
    last = read(out / "data/train-00002-of-00003.parquet", member="8")
    assert last.record_id == "00040"
    np.testing.assert_array_equal(last.signal_mv, read(cohort / "records/00/00040").signal_mv)
    assert "1 of 40 records cannot be used" in caplog.text


class Stopped(Exception):
    pass


def test_an_interrupted_conversion_goes_on_and_keeps_its_pseudonyms(cohort, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "_SHARD_RECORDS", 15)
    write, written = published._write_parquet, []

    def stop_after_two(about, dataset, names, rows, file):
        if len(written) == 2:
            raise Stopped
        written.append(file)
        write(about, dataset, names, rows, file)

    monkeypatch.setattr(published, "_write_parquet", stop_after_two)
    out, options = tmp_path / "out", {"cache_dir": cache, "num_proc": 1}
    with pytest.raises(Stopped):
        convert_dataset("csv", cohort, out, **options)
    with pytest.raises(ValueError, match="not finished; run `ecgdan data convert` again"):
        check_converted(out)
    first = {file.name: file.read_bytes() for file in out.glob("data/*.parquet")}
    assert sorted(first) == ["train-00000-of-00003.parquet", "train-00001-of-00003.parquet"]
    monkeypatch.setattr(published, "_write_parquet", write)
    with pytest.raises(ValueError, match="interrupted conversion with another keep_ids"):
        convert_dataset("csv", cohort, out, keep_ids=True, **options)
    (out / "data/train-00002-of-00003.4711").write_bytes(b"half")  # as a killed process leaves it
    convert_dataset("csv", cohort, out, **options)
    assert len(list((out / "data").iterdir())) == 3
    assert all((out / "data" / name).read_bytes() == content for name, content in first.items())
    assert rows_of(out)["patient_id"].nunique() == 20  # patients across the shards of two runs
    assert rows_of(out)["record_id"].nunique() == 40  # and the rows in one order
    assert check_converted(out) == 40


def test_a_folder_that_holds_something_else_is_left_alone(cohort, cache, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(ValueError, match="expected a new or empty folder, or an interrupted conversion"):
        convert_dataset("csv", cohort, tmp_path, cache_dir=cache)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_network_input_can_be_converted_too(cohort, tmp_path):
    extractor = EcgDanFeatureExtractor(**EcgDanConfig().signal_contract)
    out = convert_dataset("csv", cohort, tmp_path / "out", feature_extractor=extractor, cache_dir=tmp_path, limit=4)
    columns = pq.read_schema(next(out.glob("data/*.parquet"))).names
    assert {"input_values", "lead_mask"} <= set(columns) and "signal" not in columns
    assert "ecgdan finetune" not in (out / "README.md").read_text(encoding="utf-8")


LOAD = """
import sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], split="train")
print(len(rows), rows.features["labels"].feature.names[:1], rows[0]["sampling_rate"], len(rows[0]["signal"]))
"""


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    """The client reads its environment when it is imported, hence a process of its own."""
    return WARM.run([sys.executable, *arguments], env={**os.environ, **environment})


def test_it_is_pushed_and_loads_from_the_hub_by_name(converted, tmp_path):
    with HubServer() as hub:
        environment = {**hub.environment, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
        command = ["-m", "ecgdan_hf.cli", "data", "push", str(converted), "user/ecgs", "--private"]
        done = run(command, environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().splitlines()[-1] == f"{hub.address}/datasets/user/ecgs"
        files = hub.repositories["user/ecgs"].commits[-1][1]
        loaded = run(["-c", LOAD, "user/ecgs"], environment)
        assert loaded.returncode == 0, loaded.stderr
        hub.repositories["user/ecgs"].commit({**files, "data/train-00001-of-00002.parquet": b"of an earlier version"})
        assert run(command, environment).returncode == 0
        again = hub.repositories["user/ecgs"].commits[-1][1]
    assert hub.repositories["user/ecgs"].private
    assert set(files) == set(again) == {".gitattributes", "README.md", "data/train-00000-of-00001.parquet"}
    assert b'load_dataset("user/ecgs", split="train")' in files["README.md"]
    assert loaded.stdout.split() == ["40", "['normal']", "500.0", "5000"]


def test_an_unfinished_folder_is_not_pushed(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    with pytest.raises(FileNotFoundError, match="found no data/"):
        push_dataset(tmp_path, "someone/ecgs")


def test_the_command_line_finds_out_the_source_and_converts(cohort, tmp_path, cache):
    out = tmp_path / "out"
    options = ["--license", "cc0-1.0", "--limit", "5", "--cache-dir", str(cache)]
    result = CliRunner().invoke(app, ["data", "convert", str(cohort), str(out), *options])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 5 records\n"
    names = json.loads(pq.read_schema(next(out.glob("data/*.parquet"))).metadata[b"huggingface"])["info"]["features"]
    rows = load_dataset("parquet", data_files=str(out / "data/*.parquet"), split="train", cache_dir=str(cache))
    assert list(names) == rows.column_names


def test_several_processes_write_several_files(cohort, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "_SHARD_RECORDS", 16)
    out = convert_dataset("csv", cohort, tmp_path / "out", cache_dir=cache, keep_ids=True, num_proc=2)
    assert len(list(out.glob("data/*.parquet"))) == 3
    assert rows_of(out)["record_id"].tolist() == pd.read_csv(cohort / "table.csv", dtype=str)["record_id"].tolist()


def test_two_conversions_never_write_one_folder(tmp_path):
    with locked_file(tmp_path / "out"), pytest.raises(ValueError, match="out: expected no other run that writes it"):
        convert_dataset("synthetic", tmp_path / "cohort", tmp_path / "out", license_id="other")
    assert not list(tmp_path.iterdir())
