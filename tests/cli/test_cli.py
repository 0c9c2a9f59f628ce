"""The command line: quick help, one-line errors, exit codes, and a story from data to explanation."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner
from warm import WARM

import ecgdan_hf.cli.main
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.files import content_of

VERBS = ["pretrain", "finetune", "probe", "evaluate", "recalibrate", "sanity", "predict", "explain", "zero-shot",
         "bundle", "push", "demo",
         "study events", "data plasmode", "data synthetic", "data check", "data outcomes", "data ukb-cohort",
         "data convert", "data push"]  # fmt: skip
SEEDED = ["pretrain", "finetune", "probe", "evaluate", "sanity", "demo", "study events",
          "data plasmode", "data synthetic"]  # fmt: skip
TINY = ["sampling_rate=50", "num_samples=64", "pad_samples=2", "trunk_channels=[4, 8]", "num_attention_heads=2",
        "hidden_size=16"]  # fmt: skip


def ecgdan(*arguments: object) -> int:
    """Runs a command in this process, as the entry point would; its exit code."""
    old, sys.argv = sys.argv, ["ecgdan", *map(str, arguments)]
    try:
        ecgdan_hf.cli.main.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = old
    return 0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "cohort"
    synthetic.write_cohort(folder, n=48, seed=0)
    return folder


@pytest.fixture(scope="module")
def checkpoint(cohort: Path) -> Path:
    """A survival checkpoint made by the command line."""
    folder = cohort.parent / "survival"
    model = [part for value in TINY for part in ("--model", value)]
    code = ecgdan("finetune", "--data", "csv", "--data-dir", cohort, "--output-dir", folder, "--from-scratch",
                  "--train-folds", "1-6", "--test-folds", "7-10", "--epochs", "1", "--batch-size", "16",
                  "--num-proc", "1",
                  "--cache-dir", cohort.parent / "cache", "--log-with", "none", "--no-progress", "--bootstrap", "20",
                  *model)  # fmt: skip
    assert code == 0
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_an_example_whose_options_exist(verb: str):
    shown = CliRunner().invoke(ecgdan_hf.cli.main.app, [*verb.split(), "--help"], terminal_width=200).output
    example = shown.split("Example:")[1].split("Options:")[0].split("Arguments:")[0]
    assert f"ecgdan {verb}" in example
    options = shown.split("Options:")[1]
    for option in re.findall(r"--[a-z-]+", example):
        assert option in options, option
    assert ("--seed" in options) == (verb in SEEDED)


def test_every_field_of_the_arguments_is_a_flag_with_help():
    shown = CliRunner().invoke(ecgdan_hf.cli.main.app, ["pretrain", "--help"], terminal_width=200).output
    for flag in (
        "--config",
        "--text-model",
        "--lead-masking-probability",
        "--adam-beta2",
        "--resume",
        "--push-to-hub",
    ):
        assert flag in shown
    assert re.search(r"--learning-rate .* \[default: 0.001\]", shown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune", "--from-scratch"], "error: output_dir: expected a folder"),
        (["pretrain", "--config", "nothing"], "error: --config: no file nothing and no shipped recipe"),
        (["finetune", "--model", "x"], "error: --model: expected key=value, got 'x'"),
        (["evaluate", "--output-dir", "{tmp}/e"], "error: checkpoint: expected one, got none"),
        (["evaluate", "--protocol", "cv"], "error: protocol: expected held-out or repeated-cv, got 'cv'"),
        (
            ["evaluate", "--protocol", "repeated-cv", "--test-folds", "9"],
            "error: test_folds: only protocol held-out uses it, got protocol repeated-cv; leave it out",
        ),
        (["recalibrate", "--output-dir", "{tmp}/r"], "error: checkpoint: expected one, got none; give --checkpoint"),
        (["predict", "{tmp}", "--checkpoint", "/none", "--out", "{tmp}/a/b.csv"], "error: --out: expected a file"),
        (
            ["zero-shot", "{tmp}/x.hea", "--prompt", "SR", "--checkpoint", "c", "--calibrate-folds", "9"],
            "error: calibrate_folds: only --calibrate-on uses it; leave it out",
        ),
        (["explain", "{tmp}/x.hea", "--checkpoint", "c", "--out", "{tmp}/x.gif"], "error: --out: expected a name"),
        (["data", "check", "{tmp}/none"], "error: {tmp}/none"),
        (["data", "plasmode", "{tmp}", "--out", "{tmp}/o.csv"], "no such file"),
        (["pretrain", "--output-dir", "{tmp}/r", "--push-to-hub", "nobody"], "expected USER/NAME, got 'nobody'"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert ecgdan(*(argument.format(tmp=tmp_path) for argument in arguments)) == 2
    shown = capfd.readouterr().err.strip().splitlines()
    assert message.format(tmp=tmp_path) in shown[-1]
    assert "Traceback" not in "".join(shown)


def test_an_unknown_option_is_a_usage_error(capfd: pytest.CaptureFixture[str]):
    assert ecgdan("finetune", "--learning-speed", "1") == 2
    assert "No such option" in capfd.readouterr().err


def test_the_traceback_is_there_for_those_who_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECGDAN_TRACEBACK", "1")
    with pytest.raises(ValueError, match="output_dir: expected"):
        ecgdan("finetune", "--from-scratch")


def test_a_loss_that_is_not_finite_ends_with_exit_code_1(
    cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    code = ecgdan("pretrain", "--data", "csv", "--data-dir", cohort, "--output-dir", tmp_path / "run",
                  "--text-model", "none",
                  "--learning-rate", "1e30", "--clip-norm", "0", "--no-progress", "--log-with", "none",
                  "--num-proc", "1",
                  "--cache-dir", cohort.parent / "cache", "--batch-size", "8",
                  *(part for value in TINY for part in ("--model", value)))  # fmt: skip
    assert code == 1
    assert "error: loss: not finite" in capfd.readouterr().err


def test_finetune_reports_simulated_outcomes_as_simulated(checkpoint: Path):
    metrics = json.loads((checkpoint / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["simulated_outcome"] is True
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "recipe.yaml", "predictions.csv"} <= {
        path.name for path in checkpoint.iterdir()
    }


def test_evaluate_writes_report_metrics_and_figure(
    checkpoint: Path, cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / "evaluation"
    arguments = ["evaluate", "--checkpoint", checkpoint, "--control", f"twin={checkpoint}", "--data", "csv",
                 "--data-dir", cohort, "--train-folds", "1-6", "--test-folds", "7-10", "--output-dir", out,
                 "--bootstrap", "20", "--cache-dir", cohort.parent / "cache", "--num-proc", "1"]  # fmt: skip
    assert ecgdan(*arguments) == 0
    written = {"report.md", "report.html", "metrics.json", "predictions.csv", "kaplan_meier.png"}
    assert written <= {path.name for path in out.iterdir()}
    models = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["models"]
    assert models["twin"]["ahead"]["estimate"] == 0
    assert ecgdan(*arguments) == 2
    assert "give --overwrite to replace it" in capfd.readouterr().err
    assert ecgdan(*arguments, "--overwrite") == 0


def test_sanity_tests_the_maps_on_records_the_network_was_not_trained_on(
    checkpoint: Path, cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / "sanity"
    arguments = ["sanity", "--checkpoint", checkpoint, "--data", "csv", "--data-dir", cohort, "--output-dir", out,
                 "--bootstrap", "20", "--draws", "1", "--time-steps", "4", "--cache-dir", cohort.parent / "cache",
                 "--limit", "12", "--methods", "attention,gradient", "--map-records", "6",
                 "--control", f"itself={checkpoint}", "--num-proc", "1"]  # fmt: skip
    assert ecgdan(*arguments, "--test-folds", "6-10") == 2
    assert "was trained on folds [6]" in capfd.readouterr().err
    assert ecgdan(*arguments, "--test-folds", "7-10") == 0
    written = {"report.md", "metrics.json", "deletion.png", "maps.png", "randomisation.png"}
    assert {path.name for path in content_of(out)} == written
    assert "The outcome is simulated" in (out / "report.md").read_text(encoding="utf-8")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["leads"]["performance"]["metric"] == "concordance_index"
    assert metrics["num_records"] == 12
    assert [each["method"] for each in metrics["methods"]] == ["attention", "gradient"]
    assert all(each["time"]["controls"]["itself"]["estimate"] > 0.999 for each in metrics["methods"])
    assert metrics["hardware"]["threads"] >= 1


def test_predict_writes_a_row_for_every_file_even_a_broken_one(
    checkpoint: Path, cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "broken.hea").write_text("broken 12 500 5000\n", encoding="utf-8")
    files = sorted((cohort / "records").rglob("*.hea"))[:2]
    out = tmp_path / "predictions.csv"
    assert ecgdan("predict", *files, tmp_path / "broken.hea", "--checkpoint", checkpoint, "--out", out) == 0
    rows = pd.read_csv(out)
    assert rows["log_hazard"].notna().tolist() == [True, True, False]
    assert {"risk_1y", "risk_5y", "risk_10y", "flags", "error"} <= set(rows.columns)
    out.unlink()
    broken = tmp_path / "broken.hea"
    assert ecgdan("predict", *files, broken, "--checkpoint", checkpoint, "--out", out, "--strict") == 2
    assert "1 of 3 files could not be used; the first: " in capfd.readouterr().err
    assert len(pd.read_csv(out)) == 3
    assert ecgdan("predict", tmp_path / "broken.hea", "--checkpoint", checkpoint, "--out", out) == 2
    assert "1 of 1 files could not be used; the first: " in capfd.readouterr().err


def test_explain_draws_a_page(checkpoint: Path, cohort: Path, tmp_path: Path):
    file = sorted((cohort / "records").rglob("*.hea"))[0]
    assert ecgdan("explain", file, "--checkpoint", checkpoint, "--out", tmp_path / "page.png") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["page.png"]
    assert (tmp_path / "page.png").stat().st_size > 20_000
    other = ["explain", file, "--checkpoint", checkpoint, "--out", tmp_path / "other.png", "--method"]
    assert ecgdan(*other, "occlusion") == 0
    assert ecgdan(*other, "gradient", "--label", "MI") == 2  # of a survival model
    assert (tmp_path / "page.png").read_bytes() != (tmp_path / "other.png").read_bytes()


def test_data_verbs_make_and_check_a_cohort(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    folder, out, page = tmp_path / "c", tmp_path / "check.json", tmp_path / "check.html"
    assert ecgdan("data", "synthetic", folder, "--n", "20", "--seed", "1") == 0
    assert "simulated events" in capfd.readouterr().out
    assert ecgdan("data", "check", folder, "--out", out, "--html", page, "--strict") == 0
    assert json.loads(out.read_text(encoding="utf-8"))["records"] == 20
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    next((folder / "records").rglob("*.dat")).write_bytes(b"cut")
    assert ecgdan("data", "check", folder, "--out", out, "--html", page) == 2
    shown = capfd.readouterr()
    assert "error: unreadable: 1: cannot be read or used" in shown.out
    assert shown.err.strip().splitlines()[-1] == f"error: {folder}: 1 with errors, 0 with warnings, see above"
    assert "unreadable" in json.loads(out.read_text(encoding="utf-8"))["problems"]
    assert "is truncated" in page.read_text(encoding="utf-8")


def test_data_check_fails_on_warnings_only_when_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert ecgdan("data", "synthetic", tmp_path / "c", "--n", "20", "--seed", "1") == 0
    outcomes = pd.read_csv(tmp_path / "c" / "table.csv", dtype=str)[["record_id", "event", "time"]]
    outcomes.iloc[1:].to_csv(tmp_path / "outcomes.csv", index=False)
    arguments = ("data", "check", tmp_path / "c", "--labels", tmp_path / "outcomes.csv", "--num-proc", "1")
    assert ecgdan(*arguments) == 0
    assert "warning: record_without_outcome: 1:" in capfd.readouterr().out
    assert ecgdan(*arguments, "--strict") == 2
    assert ecgdan(*arguments, "--html", tmp_path / "none" / "page.html") == 2
    assert "error: --html: expected a file in an existing folder" in capfd.readouterr().err


def test_training_modules_are_programs_of_their_own_for_accelerate_launch():
    done = WARM.run([sys.executable, "-m", "ecgdan_hf.training.finetune", "--push-to-hub", "a/b"])
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: push_to_hub: only the command ecgdan uploads")


def test_names_that_the_terminal_cannot_show_are_escaped_and_stop_nothing(tmp_path: Path):
    folder = tmp_path / "Zürich"
    command = [sys.executable, "-m", "ecgdan_hf.cli", "data", "synthetic", str(folder), "--n", "20"]
    variables = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr
    assert rb"Z\xfcrich" in done.stdout


def test_a_hospitals_table_becomes_outcomes_and_what_was_understood_is_said(tmp_path, capsys):
    table, out = tmp_path / "follow-up.csv", tmp_path / "outcomes.csv"
    table.write_text("EKG-Nr;Ereignis;Tage\n007;1;365,25\n008;0;730,5\n009;;\n", encoding="utf-8")
    assert ecgdan("data", "outcomes", table, "--out", out) == 2
    names = "record_id=EKG-Nr,event=Ereignis,time_days=Tage"
    assert ecgdan("data", "outcomes", table, "--columns", names, "--out", out) == 0
    said = capsys.readouterr()
    text = " ".join((said.out + said.err).split())
    assert "expected a column record_id, got EKG-Nr, Ereignis, Tage" in text
    assert (
        "semicolons, 3 rows" in text and "time in years from time_days" in text and "1 rows without an outcome" in text
    )
    written = pd.read_csv(out, dtype={"record_id": str})
    assert written[["record_id", "event", "time"]].to_numpy().tolist() == [["007", 1, 1.0], ["008", 0, 2.0]]
