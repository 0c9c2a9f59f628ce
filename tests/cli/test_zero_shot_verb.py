"""`ecgdan zero-shot`: one line a prompt for one file, a CSV for several, and what may not be calibrated on."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from test_cli import ecgdan
from tiny import TINY

from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings with rates of 45 and 80 in turn, and a table whose labels do not follow the rate."""
    folder = tmp_path_factory.mktemp("zero-shot")
    files = [folder / f"{number:02}.npz" for number in range(12)]
    for number, file in enumerate(files):
        signal = synthetic.make_signal(0.0, 90.0, 45 + 35 * (number % 2), number)
        np.savez(file, signal=signal, sampling_rate=500, unit="mV", lead_names=STANDARD_LEADS)
    rows = {"file": [file.name for file in files], "patient_id": range(12), "fold": [1, 2] * 6}
    pd.DataFrame({**rows, "labels": ["AFLT", "AFLT", ""] * 4}).to_csv(folder / "table.csv", index=False)
    return folder


@pytest.fixture(params=["statements", "clip"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    options = {"text_embed_dim": 384, "alignment_objective": request.param}
    model = EcgDanForPreTraining(EcgDanConfig(**TINY, sampling_rate=50, **options))
    model.set_prompts(["SBRAD", "AFLT"], torch.randn(2, 2, 384))
    model.save_pretrained(tmp_path / request.param)
    EcgDanFeatureExtractor(**model.config.signal_contract).save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


def ask(checkpoint: Path, *arguments: object) -> int:
    return ecgdan("zero-shot", *arguments, "--prompt", "SBRAD", "--prompt", "AFLT", "--checkpoint", checkpoint)


def test_one_file_is_answered_on_the_terminal(
    checkpoint: Path, cohort: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(checkpoint, cohort / "00.npz", "--min-odds-ratio", 1) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith(f"{cohort / '00.npz'}: 12 leads; flags: resampled:500Hz")
    assert re.match(
        r"  SBRAD: 98%; heart rate 4\d/min, P waves present 9\d%, measured \(network .*, measurement", lines[1]
    )
    is_probability = checkpoint.name == "statements"
    pattern = (
        r"  AFLT: .*%; network \(network .*%\)" if is_probability else r"  AFLT: no answer, .* \(network score -?\d"
    )
    assert re.match(pattern, lines[2])
    assert lines[3].startswith("The network's probabilities are as trained") == is_probability
    assert lines[-1] == "Research use only: no diagnosis."


def test_several_files_need_a_csv_which_has_a_row_for_each_answer(
    checkpoint: Path, cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(checkpoint, cohort / "00.npz", cohort / "01.npz") == 2
    assert "error: --out: expected a CSV for the answers about 2 files, got none" in capfd.readouterr().err
    out, broken = tmp_path / "answers.csv", tmp_path / "broken.hea"
    broken.write_text("broken 12 500 5000\n", encoding="utf-8")
    assert ask(checkpoint, cohort / "00.npz", cohort / "01.npz", broken, "--out", out) == 0
    table = pd.read_csv(out)
    assert (len(table), table["error"].notna().sum()) == (6, 2)
    assert table.loc[table["prompt"] == "SBRAD", "probability"].notna().tolist() == [True, True, False]
    assert f"{out}: 6 answers about 3 files, " in capfd.readouterr().out
    assert ask(checkpoint, cohort / "00.npz", broken, "--out", out, "--strict") == 2
    assert "error: 1 of 2 files could not be used; the first: " in capfd.readouterr().err
    assert ask(checkpoint, broken) == 2


def test_labelled_records_and_a_prevalence_calibrate(
    checkpoint: Path, cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--calibrate-on", cohort / "table.csv", "--min-odds-ratio", 1]
    assert ask(checkpoint, cohort / "00.npz", *options) == 2  # four records without the label
    assert "error: calibrate_on: AFLT: expected at least 5 usable records" in capfd.readouterr().err
    table = pd.read_csv(cohort / "table.csv").assign(
        labels=["AFLT", ""] * 6, file=sorted(map(str, cohort.glob("*.npz")))
    )
    table.to_csv(tmp_path / "few.csv", index=False)
    options[1] = tmp_path / "few.csv"
    assert ask(checkpoint, cohort / "00.npz", *options, "--prevalence", 0.01, "--out", tmp_path / "one.csv") == 0
    shown = capfd.readouterr().out
    assert "as trained" not in shown
    assert pd.read_csv(tmp_path / "one.csv")["probability"].notna().all()


def test_records_that_the_network_was_trained_on_do_not_calibrate_it(
    checkpoint: Path, cohort: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = {"data_dir": str(cohort), "train_folds": "1"}
    (checkpoint / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    options = ["--calibrate-on", cohort, "--calibrate-folds"]
    assert ask(checkpoint, cohort / "00.npz", *options, "1") == 2
    assert "was trained on" in capfd.readouterr().err
    assert ask(checkpoint, cohort / "00.npz", *options, "3") == 2
    assert "expected records in folds [3], found none" in capfd.readouterr().err
