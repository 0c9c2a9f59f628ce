"""Every python and bash block of the released cards runs, with the released weights, on a synthetic ECG."""

import os
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement

import ecgdan_hf.cli.main
from ecgdan_hf.data.simulate.synthetic import _make_subjects, _signal_of, write_cohort
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

CARDS = Path(__file__).parents[3] / "model_cards"
FOLDERS = sorted(folder for folder in CARDS.iterdir() if folder.is_dir())
SHOWN = ["I", "II", "V1", "V2"]
"""Leads the cards' python blocks name."""


def blocks(folder: Path, language: str) -> list[str]:
    """Code of the card, with the folder in place of the repository's name."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```(.*)$", card, re.MULTILINE)
    assert set(fences[::2]) <= {"python", "bash", "yaml", "bibtex"} and set(fences[1::2]) == {
        ""
    }  # none without a name
    found = re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)
    return [block.replace("USER/NAME", str(folder)) for block in found]


@pytest.fixture(scope="module")
def signal() -> np.ndarray:
    """(4, 5000), millivolt."""
    twelve = _signal_of(next(_make_subjects(20, seed=0).itertuples()), 0)
    return twelve[[STANDARD_LEADS.index(lead) for lead in SHOWN]]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WFDB record `ecg.hea` with its signals beside it."""
    folder = tmp_path_factory.mktemp("recording")
    write_cohort(folder / "cohort", n=20, seed=0)
    header = next((folder / "cohort").rglob("*.hea"))
    header.with_suffix(".dat").rename(folder / header.with_suffix(".dat").name)
    return header.rename(folder / "ecg.hea")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_python_block_of_a_released_card_runs(folder: Path, signal: np.ndarray) -> None:
    names = {"signal": signal}
    found = blocks(folder, "python")
    assert len(found) == 3
    for block in found:
        exec(block, names)
    assert len(names["vector"]) == names["model"].config.hidden_size
    assert np.isfinite(names["vector"]).all()
    if "risk_of" in names:
        assert all(0 < each["risk"] < 1 for each in names["answer"]["risk"]) and names["answer"]["simulated"]
    elif "answer" in names:
        labels = names["model"].config.prompt_labels or names["model"].config.id2label.values()
        assert {each["label"] for each in names["answer"]} <= set(labels)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_bash_block_of_a_released_card_runs(
    folder: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (*recording.parent.glob("*.dat"), recording):
        os.link(path, tmp_path / path.name)
    (tmp_path / "recipe.yaml").write_bytes((folder / "recipe.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    ran = []
    for line in "".join(blocks(folder, "bash")).splitlines():
        program, verb, *arguments = shlex.split(line)
        if program == "pip":
            needed = [Requirement(each) for each in arguments]
            assert {each.name for each in needed} >= {"torch", "transformers"}
            assert all(each.specifier.contains(metadata.version(each.name)) for each in needed)
            continue
        assert program == "ecgdan"
        monkeypatch.setattr(sys, "argv", ["ecgdan", verb, *arguments])
        with pytest.raises(SystemExit) as end:
            ecgdan_hf.cli.main.main()
        said = capsys.readouterr().err
        if "--data-dir" in arguments:  # the recipe is read whole; only the data, or what it began with, are not here
            absent = {yaml.safe_load((tmp_path / "recipe.yaml").read_text(encoding="utf-8")).get("checkpoint")} - {
                None
            }
            absent |= {arguments[arguments.index("--data-dir") + 1]}
            last = said.splitlines()[-1]
            assert end.value.code == 2 and any(last.startswith(f"error: {name}") for name in absent), said
        else:
            assert not end.value.code, said
        ran.append(verb)
    if "predict" in ran:
        assert pd.read_csv("predictions.csv")["error"].isna().all()
    assert {"explain", "pretrain"} <= set(ran) or {"explain", "predict", "finetune"} <= set(ran)
    assert Path("figure.png").stat().st_size > 10_000 and not Path("again").exists()
