"""Predictions for an archive: on disk as they come, and the same whatever happened on the way."""

import csv
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.write_sources import write_code15
from heads import build
from inference.test_prediction import TINY, write_npz
from transformers import pipeline
from typer.testing import CliRunner
from warm import WARM

from ecgdan_hf.cli.main import app
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.sources.ecg_folder import expand_files
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.files import locked_file
from ecgdan_hf.inference import prepared_files
from ecgdan_hf.inference.archive import rows_to_file, shard_of
from ecgdan_hf.inference.checkpoints import place
from ecgdan_hf.inference.covariates import FileCovariates
from ecgdan_hf.inference.predict import Predictor, encoder_of, predict
from ecgdan_hf.inference.windows import Windows
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival

FORKS = multiprocessing.get_start_method() == "fork"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    config = EcgDanConfig(**TINY, input_kind="rhythm", sampling_rate=100, num_labels=2, id2label={0: "A", 1: "B"})
    EcgDanForSequenceClassification(config).save_pretrained(folder)
    EcgDanFeatureExtractor(**config.signal_contract).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for seed in range(11):
        write_npz(folder / f"ecg, {seed:02d}.npz", seed)
    write_npz(folder / "ecg, 05.npz", unit="furlong")
    return folder


@pytest.fixture
def predictor(checkpoint: Path) -> Predictor:
    model = EcgDanForSequenceClassification.from_pretrained(checkpoint).eval()
    return Predictor(model, EcgDanFeatureExtractor.from_pretrained(checkpoint), batch_size=2)


def test_csv_and_parquet_hold_the_table_of_predict(predictor: Predictor, archive: Path, tmp_path: Path) -> None:
    expected = predict(archive, predictor.model, predictor.feature_extractor)
    files = expand_files(archive)
    for name, read in (("a.csv", pd.read_csv), ("a.parquet", pd.read_parquet)):
        table = rows_to_file(predictor, files, tmp_path / name)
        assert (table.num_rows, table.num_bad) == (11, 1) and "ecg, 05.npz" in table.first_error
        found = read(tmp_path / name)
        assert list(found.columns) == list(expected.columns) and len(found) == 11
        pd.testing.assert_series_equal(found["A"], expected["A"], rtol=1e-5, check_dtype=False)
        assert found["file"].tolist() == expected["file"].tolist()
        assert found["error"].fillna("").tolist() == expected["error"].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.parquet"]


def test_a_killed_run_goes_on_to_the_same_table(
    predictor: Predictor, checkpoint: Path, archive: Path, tmp_path: Path
) -> None:
    files = expand_files(archive)
    rows_to_file(predictor, files, tmp_path / "whole.csv")
    code = f"""
import os, signal
from ecgdan_hf.inference import archive
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.cli.main import app
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.sources.ecg_folder import expand_files
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.inference.predict import Predictor
append, rows = archive.GrowingTable.append, []
def append_twice(table, batch):
    append(table, batch)
    rows.append(batch)
    if len(rows) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
archive.GrowingTable.append = append_twice
predictor = Predictor(*load_checkpoint({str(checkpoint)!r}), batch_size=2)
archive.rows_to_file(predictor, expand_files({str(archive)!r}), {str(tmp_path / "killed.csv")!r})
"""
    assert WARM.run([sys.executable, "-c", code]).returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    rows = tmp_path / "killed.csv.rows"
    with rows.open("a", encoding="utf-8") as file:
        file.write(f'"{files[4]}",0.5\n"{files[5]}",0.')  # a crash of the machine may leave parts of rows
    with pytest.raises(ValueError, match=r"killed\.csv\.rows: an interrupted run; give --resume to go on"):
        rows_to_file(predictor, files, tmp_path / "killed.csv")
    table = rows_to_file(predictor, files, tmp_path / "killed.csv", resume=True)
    assert (table.num_rows, table.num_bad) == (11, 1)
    assert (tmp_path / "killed.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert rows_to_file(predictor, files, tmp_path / "killed.csv", resume=True).was_complete


def interrupted(predictor: Predictor, files: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicts for two batches."""
    batches = iter(predictor.batches(files[:4]))

    def stop(*_: object, **__: object) -> object:
        yield next(batches)
        yield next(batches)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Predictor, "batches", stop)
        rows_to_file(predictor, files, out)


def test_rows_of_another_model_or_of_other_files_are_not_gone_on_with(
    predictor: Predictor, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, out = expand_files(archive), tmp_path / "a.csv"
    interrupted(predictor, files, out, monkeypatch)
    with pytest.raises(ValueError, match=r"its row 2 is of .*ecg, 01\.npz, the files are others now"):
        rows_to_file(predictor, [files[0], *files[2:]], out, resume=True)
    with torch.no_grad():
        next(iter(predictor.model.parameters())).add_(1)
    with pytest.raises(ValueError, match=r"a\.csv\.rows: an interrupted run with another model"):
        rows_to_file(predictor, files, out, resume=True)
    with (tmp_path / "a.csv.rows").open(encoding="utf-8", newline="") as file:
        assert [row[0] for row in csv.reader(file)][1:] == [str(path) for path in files[:4]]


def test_a_table_that_another_run_is_writing_is_left_alone_with_resume_too(
    predictor: Predictor, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "table.csv"
    with locked_file(out):
        for resume in (False, True):
            with pytest.raises(ValueError, match=r"table.csv: expected no other run that writes it, found one; wait"):
                rows_to_file(predictor, expand_files(archive), out, resume)
    rows_to_file(predictor, expand_files(archive), out)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_shards_are_all_files_once(archive: Path) -> None:
    files = expand_files(archive)
    shards = [shard_of(files, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(path for shard in shards for path in shard) == files == list(shard_of(files, None))
    for wrong in ("0/3", "4/3", "1", "a/b", "1/"):
        with pytest.raises(ValueError, match="shard: expected i/n with i from 1 to n, such as 3/8"):
            shard_of(files, wrong)


def test_workers_give_the_rows_of_one_process(predictor: Predictor, archive: Path) -> None:
    given = archive, predictor.model, predictor.feature_extractor
    pd.testing.assert_frame_equal(predict(*given, num_workers=2), predict(*given))
    with pytest.raises(ValueError, match=r"ecg, 05\.npz") as raised:
        predict(*given, on_error="raise", num_workers=2)
    assert "Traceback" not in str(raised.value)
    with pytest.raises(ValueError, match="num_workers: expected at least 0, got -1"):
        predict(*given, num_workers=-1)


@pytest.mark.skipif(not FORKS, reason="the workers of this system start without this test's change")
def test_a_file_that_kills_its_reader_is_told(
    predictor: Predictor, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_files, "read_recording", lambda file, options: os._exit(1))
    with pytest.raises(ValueError, match="num_workers: a process that reads files was killed"):
        predict(archive, predictor.model, predictor.feature_extractor, num_workers=1)


def test_a_device_that_is_not_here_is_told(predictor: Predictor) -> None:
    assert place(predictor.model, "cpu").device.type == "cpu"
    with pytest.raises(ValueError, match=r"device: expected auto, cpu.*got 'nonsense'"):
        place(predictor.model, "nonsense")


def test_the_embeddings_of_an_archive_are_those_of_the_pipeline(checkpoint: Path, archive: Path, tmp_path: Path):
    command = ["predict", str(archive), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "a.csv")]
    result = CliRunner().invoke(app, [*command, "--embeddings"])
    assert result.exit_code == 0, result.output
    found = pd.read_csv(tmp_path / "a.csv")
    names = [name for name in found if name.startswith("embedding_")]
    assert len(names) == EcgDanConfig(**TINY).hidden_size and "A" not in found
    unreadable = found["file"].str.endswith("05.npz")
    assert found[names].isna().all(axis=1).tolist() == unreadable.tolist() == found["error"].notna().tolist()
    embed = pipeline("ecg-feature-extraction", model=str(checkpoint))
    expected = np.array([embed(file) for file in found["file"][~unreadable]]).reshape(10, -1)
    np.testing.assert_allclose(found[names][~unreadable], expected, atol=1e-5)


def test_embeddings_need_no_covariates_and_refuse_what_has_none(checkpoint: Path, archive: Path):
    survival = EcgDanForSurvival(
        EcgDanSurvivalConfig(**TINY, input_kind="rhythm", sampling_rate=100, covariate_names=["age"])
    ).eval()
    extractor = EcgDanFeatureExtractor.from_pretrained(checkpoint)
    assert predict(archive, encoder_of(survival), extractor)["error"].ne("").sum() == 1
    with pytest.raises(ValueError, match="window: an embedding is of one recording"):
        Predictor(encoder_of(survival), extractor, windows=Windows(10, 10, "max"))
    with pytest.raises(ValueError, match="embeddings: expected a model with an ECG-DAN encoder, got Danet"):
        encoder_of(build("danet"))


def test_records_of_a_source_that_share_a_file_have_a_row_and_an_id_each(checkpoint: Path, tmp_path: Path):
    folder = write_code15(tmp_path / "code15")
    table = read_source("code-15", folder)
    for verb, own in ((["predict"], ["--checkpoint", checkpoint]), (["data", "measure"], [])):
        command = [*verb, folder, "--data", "code-15", "--out", tmp_path / "a.parquet", *own]
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == 0, result.output
        found = pd.read_parquet(tmp_path / "a.parquet")
        assert found["record_id"].tolist() == table["record_id"].tolist()
        assert found["file"].is_unique and found["file"].str.contains(r"hdf5\[\d+\]").all()
        (tmp_path / "a.parquet").unlink()
    result = CliRunner().invoke(app, [*map(str, command[:3]), str(folder), *map(str, command[3:])])
    assert "paths: expected the one folder of the source code-15, got 2 paths" in str(result.exception)


def test_covariates_of_a_source_are_those_of_its_table(checkpoint: Path, tmp_path: Path):
    table = read_source("code-15", write_code15(tmp_path / "code15"))
    config = EcgDanSurvivalConfig(**TINY, input_kind="rhythm", sampling_rate=100, covariate_names=["age", "sex"])
    known = FileCovariates(config, table.drop(columns="file"))
    for recording, age in zip(RecordFile.of_table(table), table["age"], strict=True):
        assert known.of(recording, recording.read())[0][0] == age
