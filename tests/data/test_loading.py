import json
import logging
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from datasets import Array2D, IterableDataset

from ecgdan_hf.data.check.folder import check
from ecgdan_hf.data.loading import load
from ecgdan_hf.data.prepared.cache import fingerprint
from ecgdan_hf.data.prepared.preparation import Preparation
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.prepared.shards import _worker_pool, write_shards
from ecgdan_hf.data.simulate import plasmode, synthetic
from ecgdan_hf.data.sources import registry as sources
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def built(cohort, extractor, tmp_path_factory):
    """The cache of the cohort, built by one process; read it, do not write in it."""
    folder = tmp_path_factory.mktemp("built") / "cache"
    load("csv", cohort, feature_extractor=extractor, cache_dir=folder, num_proc=1)
    return folder


@pytest.fixture
def copied(built, tmp_path):
    """A copy of that cache to spoil."""
    return shutil.copytree(built, tmp_path / "copied")


@pytest.fixture
def folder(cohort, tmp_path):
    """A copy of the cohort to spoil."""
    return shutil.copytree(cohort, tmp_path / "cohort")


def arrow_files(cache):
    return sorted(path for path in cache.rglob("*.arrow"))


def truncate(folder, number):
    path = folder / f"records/00/{number:05d}.dat"
    path.write_bytes(path.read_bytes()[:1000])
    return path


def test_rows_hold_what_the_extractor_makes_of_the_files_beside_the_table(cohort, extractor, built):
    dataset = load("csv", cohort, feature_extractor=extractor, cache_dir=built)
    table = sources.read_source("csv", cohort)
    assert dataset["record_id"][:] == table["record_id"].tolist()
    assert dataset.features["input_values"] == Array2D((12, 1024), "float32")
    row = dataset.with_format("numpy")[7]
    record = RecordFile.of_table(table)[7].read()
    expected = extractor(**record.as_inputs(), return_flags=True)
    np.testing.assert_array_equal(row["input_values"], expected["input_values"][0])
    np.testing.assert_array_equal(row["lead_mask"], expected["lead_mask"][0])
    assert dataset[7]["flags"] == expected["flags"][0]
    assert row["log_hazard"] == table["log_hazard"][7]
    assert row["event"].dtype == row["time"].dtype == np.float32


def test_without_an_extractor_signals_are_kept_as_recorded(cohort, cache):
    dataset = load("csv", cohort, cache_dir=cache, limit=3)
    signals = [synthetic._signal_of(row, 3) for row in synthetic._make_subjects(40, seed=3).head(3).itertuples()]
    row = dataset.with_format("numpy")[2]
    np.testing.assert_allclose(row["signal"], signals[2].T, atol=6e-4)
    assert (row["sampling_rate"], tuple(row["lead_names"])) == (500, STANDARD_LEADS)


def test_labels_carry_their_names(ptbxl_folder, extractor, cache):
    dataset = load("ptb-xl", ptbxl_folder, feature_extractor=extractor, cache_dir=cache)
    names = dataset.features["labels"].feature
    assert names.names == ["NORM", "MI", "STTC", "CD", "HYP"]
    assert [names.int2str(labels) for labels in dataset["labels"]] == [["NORM"], ["MI", "STTC"], ["CD", "HYP"], []]
    assert json.loads(dataset[0]["scp_codes"]) == {"NORM": 100.0, "SR": 0.0}
    assert np.isnan(dataset["age"][2]) or dataset["age"][2] is None


def test_several_processes_give_the_same_rows_in_the_same_order(cohort, extractor, built, cache):
    one = load("csv", cohort, feature_extractor=extractor, cache_dir=built, num_proc=1)
    two = load("csv", cohort, feature_extractor=extractor, cache_dir=cache, num_proc=2)
    assert one["record_id"][:] == two["record_id"][:]
    np.testing.assert_array_equal(
        one.with_format("numpy")["input_values"][:], two.with_format("numpy")["input_values"][:]
    )


def test_a_column_of_labels_without_any_label_counts_as_none(folder, extractor, cache):
    table = pd.read_csv(folder / "table.csv", dtype=str)
    table.assign(labels="").to_csv(folder / "table.csv", index=False)
    assert "labels" not in load("csv", folder, feature_extractor=extractor, cache_dir=cache, limit=3).column_names


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_shard_of_the_cache_is_named_and_made_again(cohort, extractor, copied, caplog, damage):
    first, second, _ = arrow_files(copied)
    whole, kept = first.read_bytes(), second.stat().st_mtime_ns
    flipped = whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]
    first.write_bytes({"flip": flipped, "cut": whole[:-40], "empty": b""}[damage])
    os.utime(first, ns=(kept, kept + 1))
    load("csv", cohort, feature_extractor=extractor, cache_dir=copied, num_proc=1)
    assert f"{first}: expected the rows that were written, found a damaged file; making it again" in caplog.text
    assert first.read_bytes() == whole and second.stat().st_mtime_ns == kept


def test_signals_are_prepared_once_whatever_labels_outcomes_or_folds_are_asked_for(ptbxl_folder, extractor, cache):
    options = {"feature_extractor": extractor, "cache_dir": cache}
    load("ptb-xl", ptbxl_folder, **options)
    before = [(path, path.stat().st_mtime_ns) for path in arrow_files(cache)]
    outcomes = pd.DataFrame({"record_id": ["1", "2", "7", "9"], "event": [0, 1, 0, 0], "time": [1.0, 2.0, 3.0, 4.0]})
    load("ptb-xl", ptbxl_folder, label_level="statement", **options)
    load("ptb-xl", ptbxl_folder, outcomes=outcomes, folds=[2], **options)
    assert [(path, path.stat().st_mtime_ns) for path in arrow_files(cache)] == before


def test_signals_are_prepared_anew_when_a_file_or_the_extractor_changed(folder, extractor, cache):
    options = {"cache_dir": cache, "limit": 4}
    first = load("csv", folder, feature_extractor=extractor, **options)
    data = folder / "records/00/00001.dat"
    samples = np.fromfile(data, dtype="<i2")
    (samples // 2).tofile(data)
    os.utime(data, (time.time() + 10, time.time() + 10))
    changed = load("csv", folder, feature_extractor=extractor, **options)
    raw = load("csv", folder, **options).with_format("numpy")["signal"][0]
    np.testing.assert_allclose(raw[:, 0], (samples.reshape(5000, 12)[:, 0] // 2) / 1000, atol=1e-6)
    assert first["input_values"][0] != changed["input_values"][0]
    scaled = EcgDanFeatureExtractor(**EcgDanConfig(input_kind="rhythm", normalization="global").signal_contract)
    other = load("csv", folder, feature_extractor=scaled, **options)
    assert changed["input_values"][1] != other["input_values"][1]
    assert len(arrow_files(cache)) == 4


def test_a_build_is_known_by_the_files_of_its_records_alone(tmp_path, write_record, monkeypatch):
    def now(*names: str) -> str:
        return fingerprint([RecordFile(name, {}) for name in names], Preparation(None, ("I",)))

    write_record("a"), write_record("b")
    (tmp_path / "a_1.dat").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    whole = now("a", "away/c"), now("a.hea", "b")
    (tmp_path / "note.txt").write_text("of no record", encoding="utf-8")
    assert (now("a", "away/c"), now("a.hea", "b")) == whole
    (tmp_path / "b.dat").write_bytes(b"changed")
    assert now("a", "away/c") == whole[0] and now("a.hea", "b") != whole[1]
    (tmp_path / "a_1.dat").write_bytes(b"changed")
    assert now("a", "away/c") != whole[0]


def test_folds_and_limit_choose_records(cohort, extractor, cache):
    table = sources.read_source("csv", cohort)
    options = {"feature_extractor": extractor, "cache_dir": cache}
    chosen = load("csv", cohort, folds=[2, 5], **options)
    assert chosen["record_id"][:] == table[table["fold"].isin([2, 5])]["record_id"].tolist()
    few = load("csv", cohort, folds=[2, 5], limit=3, **options)
    assert few["record_id"][:] == chosen["record_id"][:3]
    np.testing.assert_array_equal(few["input_values"][2], chosen["input_values"][2])
    with pytest.raises(ValueError, match=r"folds: no record in folds \[11\]; folds here: 1, 2, 3"):
        load("csv", cohort, folds=[11], **options)
    with pytest.raises(ValueError, match="limit: expected at least one record, got 0"):
        load("csv", cohort, limit=0, **options)


def test_outcomes_are_joined_from_a_file_and_the_others_left_out(ptbxl_folder, extractor, cache, tmp_path, caplog):
    outcomes = plasmode.simulate(sources.read_source("ptb-xl", ptbxl_folder), seed=0, event_rate=0.5)
    path = tmp_path / "outcomes.csv"
    outcomes.to_csv(path, index=False)
    options = {"feature_extractor": extractor, "cache_dir": cache}
    dataset = load("ptb-xl", ptbxl_folder, outcomes=path, **options)
    np.testing.assert_allclose(dataset["time"][:], outcomes["time"], rtol=1e-6)
    assert dataset["log_hazard"][:] == outcomes["log_hazard"].tolist()
    cohort_only = outcomes[outcomes["event"] == 1]
    dataset = load("ptb-xl", ptbxl_folder, outcomes=cohort_only, **options)
    assert dataset["record_id"][:] == cohort_only["record_id"].tolist()
    assert "2 of 4 records have no outcome and are left out" in caplog.text
    with pytest.raises(ValueError, match="1 of 4 ids are not in the data: x"):
        load("ptb-xl", ptbxl_folder, outcomes=outcomes.assign(record_id=["1", "2", "7", "x"]), **options)
    with pytest.raises(ValueError, match="outcomes: event: expected at least one event, got none in 4 rows"):
        load("ptb-xl", ptbxl_folder, outcomes=outcomes.assign(event=0), **options)


@pytest.mark.parametrize(("which", "expected"), [("all", "abcdef"), ("first", "bde"), ("last", "ace")])
def test_one_ecg_of_a_patient_is_the_first_or_the_last_by_its_time_to_the_end(
    write_record, extractor, cache, tmp_path, which, expected
):
    for name in "abcdef":
        write_record(name)
    rows = {"file": list("abcdef"), "patient_id": [1, 1, 2, 2, 3, 1], "event": [1, 1, 0, 0, 1, 1]}
    pd.DataFrame({**rows, "time": [1.0, 5.0, 3.0, 7.5, 2.0, 4.0]}).to_csv(tmp_path / "table.csv", index=False)
    options = {"feature_extractor": extractor, "with_outcome": True, "cache_dir": cache, "num_proc": 1}
    found = load("csv", tmp_path, ecgs_per_patient=which, **options)
    assert [Path(name).stem for name in found["record_id"]] == list(expected)


def test_the_first_ecg_of_a_patient_needs_an_outcome_to_be_known(ptbxl_folder, cache):
    with pytest.raises(ValueError, match="ecgs_per_patient: expected an outcome whose time puts the ECGs in order"):
        load("ptb-xl", ptbxl_folder, ecgs_per_patient="first", cache_dir=cache)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_bad_record_is_one_line_that_names_its_file_and_nothing_is_left_behind(folder, extractor, cache, num_proc):
    path = truncate(folder, 20)
    with pytest.raises(ValueError, match="truncated") as caught:
        load("csv", folder, feature_extractor=extractor, cache_dir=cache, num_proc=num_proc)
    assert str(path.with_suffix("")) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in arrow_files(cache)] in (
        ["00000-of-00003.arrow"],
        ["00000-of-00003.arrow", "00002-of-00003.arrow"],
    )
    assert not [path for path in cache.rglob("*") if path.suffix not in (".arrow", ".lock") and path.is_file()]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_bad_records_can_be_left_out_and_are_listed_once_at_the_end(folder, extractor, cache, caplog, num_proc):
    truncate(folder, 20)
    (folder / "records/00/00030.hea").unlink()
    options = {"feature_extractor": extractor, "cache_dir": cache, "num_proc": num_proc}
    dataset = load("csv", folder, skip_bad=True, **options)
    ids = [f"{i:05d}" for i in range(1, 41) if i not in (20, 30)]
    assert dataset["record_id"][:] == ids
    assert "error" not in dataset.column_names
    warnings = [message.getMessage() for message in caplog.records if message.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "2 of 40 records cannot be used and are left out" in warnings[0]
    assert "00020.dat is truncated" in warnings[0]
    assert "00030: no such file" in warnings[0]
    with pytest.raises(ValueError, match="truncated"):  # the build is there, and still no excuse
        load("csv", folder, **options)


def test_no_usable_record_at_all_is_an_error(folder, extractor, cache):
    shutil.rmtree(folder / "records")
    for options in ({"feature_extractor": extractor}, {}):
        with pytest.raises(ValueError, match=r"none of 40 records|any other of 40 records"):
            load("csv", folder, skip_bad=True, cache_dir=cache, **options)


class Interrupting:
    """A feature extractor during whose work somebody presses Ctrl-C."""

    def __init__(self, extractor, after):
        self.extractor, self.left, self.calls = extractor, after, 0
        self.lead_names, self.num_samples = extractor.lead_names, extractor.num_samples

    def to_dict(self):
        return self.extractor.to_dict()

    def __call__(self, *args, **kwargs):
        self.left -= 1
        self.calls += 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.extractor(*args, **kwargs)


def test_an_interrupted_build_goes_on_where_it_stopped(cohort, extractor, built, cache):
    options = {"cache_dir": cache, "num_proc": 1}
    with pytest.raises(KeyboardInterrupt):
        load("csv", cohort, feature_extractor=Interrupting(extractor, 20), **options)
    assert [path.name for path in arrow_files(cache)] == ["00000-of-00003.arrow"]  # 16 of 40 records, whole
    assert [path.suffix for path in cache.rglob("*") if path.is_file() and path.suffix != ".arrow"] == [".lock"]
    resumed = Interrupting(extractor, 100)
    rows = load("csv", cohort, feature_extractor=resumed, **options)
    assert resumed.calls == 24
    again = load("csv", cohort, feature_extractor=extractor, cache_dir=built)
    assert rows["record_id"][:] == again["record_id"][:] == [f"{i:05d}" for i in range(1, 41)]
    np.testing.assert_array_equal(
        rows.with_format("numpy")["input_values"], again.with_format("numpy")["input_values"]
    )


def test_what_a_killed_build_left_is_not_taken_for_a_shard_and_is_removed(cohort, extractor, copied):
    shards = arrow_files(copied)
    half = shards[1].with_suffix(".4711")
    half.write_bytes(shards[1].read_bytes()[:1000])
    shards[1].unlink()
    dataset = load("csv", cohort, feature_extractor=extractor, cache_dir=copied, num_proc=1)
    assert dataset["record_id"][:] == [f"{i:05d}" for i in range(1, 41)]
    assert arrow_files(copied) == shards
    assert not half.exists()


def test_workers_end_when_their_build_was_killed(tmp_path):
    """Waiting for work that nobody will send, they would hold their memory until the machine is restarted."""
    reading, writing = os.pipe()
    builder = os.fork()
    if builder == 0:
        with _worker_pool(1) as pool:
            os.write(writing, str(pool.submit(os.getpid).result()).encode())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(builder, 0)
    _, alive = psutil.wait_procs([psutil.Process(int(os.read(reading, 20)))], timeout=20)
    for worker in alive:
        worker.kill()
    assert not alive


def kill_own_process(part, path):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_said_in_one_line_that_names_what_to_change(tmp_path):
    files = [tmp_path / f"{i}.arrow" for i in range(3)]
    with pytest.raises(ChildProcessError, match=r"num_proc: one of 2 processes was killed, .* memory runs out"):
        write_shards(kill_own_process, ["a", "b", "c"], files, 2, "Killing")
    assert not [file for file in files if file.exists()]  # leftovers of the killed have other names


def write_to_full_disk(part, path):
    Path("/dev/full").write_text("x", encoding="utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_said_with_the_file_that_did_not_fit(tmp_path, processes):
    files = [tmp_path / f"{i}.arrow" for i in range(2)]
    with pytest.raises(OSError, match=r"\d\.arrow: cannot be written: .*No space left on device"):
        write_shards(write_to_full_disk, ["a", "b"], files, processes, "Filling")


def test_a_finished_build_is_read_without_writing_beside_it(cohort, extractor, copied):
    """As from a folder that is shared read-only."""
    (lock,) = copied.glob("*.lock")
    lock.unlink()
    assert len(load("csv", cohort, feature_extractor=extractor, cache_dir=copied)) == 40
    assert not lock.exists()


def test_streaming_gives_the_same_rows_and_writes_nothing(folder, extractor, cache, caplog):
    options = {"feature_extractor": extractor, "cache_dir": cache, "folds": [1, 2]}
    stored, streamed = (load("csv", folder, streaming=streaming, **options) for streaming in (False, True))
    assert isinstance(streamed, IterableDataset)
    rows = list(streamed)
    assert [row["record_id"] for row in rows] == stored["record_id"][:]
    assert rows[3]["labels"] == stored[3]["labels"]
    np.testing.assert_array_equal(rows[3]["input_values"], stored[3]["input_values"])
    assert streamed.features == stored.features
    files = arrow_files(cache)
    truncate(folder, int(rows[1]["record_id"]))
    skipping = load("csv", folder, streaming=True, skip_bad=True, **options)
    assert [row["record_id"] for row in skipping] == [rows[0]["record_id"], *(row["record_id"] for row in rows[2:])]
    assert "left out: " in caplog.text
    with pytest.raises(ValueError, match="truncated"):
        list(load("csv", folder, streaming=True, **options))
    assert arrow_files(cache) == files


def test_records_with_other_leads_need_a_feature_extractor(write_record, ecg, tmp_path, extractor, cache):
    write_record("data/a")
    order = [0, 1, 2, 3, 5, 4, *range(6, 12)]
    write_record("data/b", signal_mv=ecg[order], sig_name=[STANDARD_LEADS[i] for i in order])
    swapped = load("wfdb", tmp_path / "data", cache_dir=cache).with_format("numpy")
    np.testing.assert_array_equal(swapped[0]["signal"], swapped[1]["signal"])  # by name, not by position
    write_record("data/c", signal_mv=ecg[:2])
    with pytest.raises(ValueError, match=r"expected the leads of the first record, I, II.*give a feature extractor"):
        load("wfdb", tmp_path / "data", cache_dir=cache)
    dataset = load("wfdb", tmp_path / "data", feature_extractor=extractor, cache_dir=cache)
    assert [sum(mask) for mask in dataset["lead_mask"]] == [12, 12, 6]  # four limb leads follow from I and II


def test_missing_and_flat_leads_are_flagged_with_and_without_an_extractor(
    write_record, ecg, tmp_path, extractor, cache
):
    spoiled = ecg.copy()
    spoiled[7] = 0
    spoiled[8, :2500] = np.nan
    write_record("data/a", signal_mv=spoiled)
    raw = load("wfdb", tmp_path / "data", cache_dir=cache)
    assert raw[0]["flags"] == ["lead_missing_samples:V3", "lead_flat:V2"]
    row = load("wfdb", tmp_path / "data", feature_extractor=extractor, cache_dir=cache)[0]
    assert {"lead_missing_samples:V3", "lead_flat:V2"} <= set(row["flags"])
    assert [lead for lead, there in zip(STANDARD_LEADS, row["lead_mask"], strict=True) if not there] == ["V2", "V3"]


def test_arrays_take_rate_unit_and_leads_from_the_table(tmp_path, ecg, cache):
    np.save(tmp_path / "a.npy", ecg * 1000)
    leads = ";".join(STANDARD_LEADS)
    table = f"file,patient_id,sampling_rate,unit,lead_names\na.npy,P1,500,uV,{leads}\n"
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    dataset = load("csv", tmp_path, cache_dir=cache).with_format("numpy")
    np.testing.assert_allclose(dataset[0]["signal"], ecg.T, rtol=1e-5, atol=1e-6)
    (tmp_path / "table.csv").write_text(table.replace(",500,", ",,"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.npy: sampling_rate: the file does not say it"):
        load("csv", tmp_path, cache_dir=cache)


def test_an_absent_synthetic_cohort_is_made_and_a_present_one_read(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_write_record", lambda folder, row, seed: row.record_id)  # 600 take seconds
    assert len(sources.read_source("synthetic", cohort)) == 40
    (tmp_path / "new").mkdir()
    assert len(sources.read_source("synthetic", tmp_path / "new")) == 600
    assert (tmp_path / "new/table.csv").is_file()


def test_unknown_sources_and_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data: expected a source, one of ptb-xl, .*, got 'mimic-iii'"):
        load("mimic-iii", tmp_path)
    for name in ("ptb-xl", "wfdb", "csv"):
        with pytest.raises(FileNotFoundError, match="absent"):
            load(name, tmp_path / "absent")


def test_check_finds_out_what_a_folder_holds(ptbxl_folder, cohort, write_record, tmp_path):
    write_record("data/a")
    assert check(None, tmp_path / "data").facts["source"] == "wfdb"
    assert sources.find_source(None, ptbxl_folder).name == "ptb-xl"
    assert sources.find_source(None, cohort).name == "csv"
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="found none of them"):
        check(None, tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        check(None, tmp_path / "absent")


def test_outcomes_are_checked_before_any_ecg_is_looked_at(tmp_path):
    (tmp_path / "ecgs").mkdir()
    (tmp_path / "ecgs/broken.xml").write_text("<CardiologyXML>", encoding="utf-8")
    days = tmp_path / "outcomes.csv"
    days.write_text("record_id;event;time\nbroken;1;900\n", encoding="utf-8")
    with pytest.raises(ValueError, match="got a median of 900, which looks like days"):
        load("folder", tmp_path / "ecgs", outcomes=days)
