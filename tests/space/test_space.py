import asyncio
import os
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from publish.hub_server import TOKEN, HubServer
from space.conftest import LABELS, ROOT, STATEMENTS
from space.test_ecg_report import Page, ecg

from ecgdan_hf.data.readers.child import decode
from ecgdan_hf.data.simulate.synthetic import SAMPLING_RATE, make_signal
from ecgdan_hf.explain.page.ecg_report import EcgReport, Networks
from ecgdan_hf.explain.page.figures import Explanation
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

pytest.importorskip("gradio", reason="the page needs Gradio: pip install -e '.[space]'")

import app
import page
import push_space
import uploads
from huggingface_hub import SpaceCard
from starlette.types import Message, Receive, Scope, Send

NO_OPTIONS = (None, "from the file", "")
HOSTILE = "<img src=x onerror=alert(1)>"


def apart(header: Path, folder: Path) -> list[Path]:
    """A WFDB record as Gradio delivers it: each file in a folder of its own."""
    files = []
    for number, suffix in enumerate((".dat", ".hea")):
        place = folder / str(number) / header.with_suffix(suffix).name
        place.parent.mkdir(parents=True)
        files.append(Path(shutil.copyfile(header.with_suffix(suffix), place)))
    return files


def csv_without_rate(folder: Path, name: str = "mine.csv") -> Path:
    rows = np.round(make_signal(0.0, 95.0, 70.0, seed=1).T, 4)
    file = folder / name
    np.savetxt(file, rows, fmt="%.4f", delimiter=",", header=",".join(STANDARD_LEADS), comments="")
    return file


def test_a_wfdb_record_is_read_from_its_two_files(wfdb_record: Path, tmp_path: Path) -> None:
    record = uploads.read_upload(apart(wfdb_record, tmp_path))
    assert record.record_id == wfdb_record.stem and record.source == wfdb_record.name
    assert record.signal_mv.shape == (12, 5000)


def test_what_a_file_does_not_say_can_be_said(tmp_path: Path) -> None:
    file = csv_without_rate(tmp_path)
    with pytest.raises(ValueError, match=r"^mine\.csv: .*sampling") as refused:
        uploads.read_upload([file])
    assert "\n" not in str(refused.value) and str(tmp_path) not in str(refused.value)
    assert uploads.read_upload([file], 250, "mV").sampling_rate == 250
    np.save(tmp_path / "bare.npy", make_signal(0.0, 95.0, 70.0, seed=1)[:2] * 1000)
    record = uploads.read_upload([tmp_path / "bare.npy"], SAMPLING_RATE, "uV", "II; v1")
    assert record.lead_names == ("II", "V1") and np.ptp(record.signal_mv[0]) < 5


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "file: expected an ECG file, found none; choose one"),
        (["a.csv", "b.csv"], "a.csv, b.csv: expected one ECG"),
        (["notes.txt"], "notes.txt: not a known ECG file"),
        (["header.hea"], "00007.dat"),
    ],
)
def test_uploads_that_are_no_ecg_are_refused_in_one_line_that_names_no_folder(
    files: list[str], said: str, wfdb_record: Path, tmp_path: Path
) -> None:
    for name in files:
        if name.endswith(".csv"):
            csv_without_rate(tmp_path, name)
        else:
            text = wfdb_record.read_text(encoding="utf-8") if name.endswith(".hea") else "nothing\n"
            (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises((ValueError, OSError), match=re.escape(said)) as refused:
        uploads.read_upload([tmp_path / name for name in files])
    assert "/" not in str(refused.value).split("; what is read")[0] and "\n" not in str(refused.value)


def test_uploads_at_the_same_time_never_mix(tmp_path: Path) -> None:
    signals = [make_signal(0.0, 95.0, 60.0 + 5 * number, seed=number) for number in range(4)]
    about = {"sampling_rate": SAMPLING_RATE, "unit": "mV", "lead_names": STANDARD_LEADS}
    for number, signal in enumerate(signals):
        np.savez(tmp_path / f"{number}.npz", signal=signal, **about)

    def is_own(visit: int) -> bool:
        record = uploads.read_upload([tmp_path / f"{visit % 4}.npz"])
        return record.source == f"{visit % 4}.npz" and np.array_equal(record.signal_mv, np.float32(signals[visit % 4]))

    with ThreadPoolExecutor(4) as visitors:
        assert all(visitors.map(is_own, range(12)))


def test_an_upload_has_limits_of_files_minutes_time_and_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="expected at most 4 files, got 5"):
        uploads.read_upload(["a.hea"] * 5)
    monkeypatch.setattr(uploads, "MAX_MINUTES", 0.1)
    about = {"sampling_rate": SAMPLING_RATE, "unit": "mV", "lead_names": STANDARD_LEADS}
    np.savez(tmp_path / "long.npz", signal=make_signal(0.0, 95.0, 70.0, seed=1), **about)
    with pytest.raises(ValueError, match=r"^long.npz: expected at most 0.1 minutes"):
        uploads.read_upload([tmp_path / "long.npz"])
    asked = []
    monkeypatch.setattr(uploads, "decode", lambda *given: asked.append(given) or decode(*given))
    monkeypatch.setattr(uploads, "MAX_MINUTES", 10)
    uploads.read_upload([tmp_path / "long.npz"])  # by the child process, whose limits have tests of their own
    assert [(place, seconds) for place, _, _, seconds in asked] == [("uploads:decoded", 10)]


def test_a_request_that_is_too_large_is_cut_off(tmp_path: Path) -> None:
    taken: list[int] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            taken.append(len(message["body"]))

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    asyncio.run(app.LimitedUploads(page, limit=35)({"type": "http"}, receive, None))  # type: ignore[arg-type]
    assert taken == [10, 10, 10]
    assert app.MAX_UPLOAD_BYTES <= 50 << 20


def test_files_are_deleted_after_the_analysis_and_with_them_their_folder(
    networks: Networks, wfdb_record: Path, tmp_path: Path
) -> None:
    files = apart(wfdb_record, tmp_path)
    answers = list(app.analyse_upload([str(file) for file in files], "of the labels", *NO_OPTIONS, networks))
    assert not list(tmp_path.iterdir())
    assert "<article" in answers[-1][1] and "application/pdf" in answers[-1][2]
    assert answers[1][2] == "", "the result comes before its downloads"


def test_a_file_that_no_option_can_mend_is_deleted_and_one_that_lacks_a_rate_stays(
    networks: Networks, tmp_path: Path
) -> None:
    (tmp_path / "hopeless").mkdir()
    hopeless, lacking = tmp_path / "hopeless" / "notes.txt", csv_without_rate(tmp_path)
    hopeless.write_text("nothing", encoding="utf-8")
    status, result, downloads, files, options = next(
        app.analyse_upload([str(hopeless)], "of the labels", *NO_OPTIONS, networks)
    )
    assert not hopeless.parent.exists() and files is None and not options.open
    assert "Not analysed" in status and (result, downloads) == ("", "")
    *_, options = next(app.analyse_upload([str(lacking)], "of the labels", *NO_OPTIONS, networks))
    assert lacking.exists() and options.open


def test_of_an_unforeseen_error_only_its_kind_is_told_and_the_file_is_deleted(
    wfdb_record: Path, tmp_path: Path
) -> None:
    files = [str(file) for file in apart(wfdb_record, tmp_path)]
    *_, (status, *_) = app.analyse_upload(files, "of the labels", *NO_OPTIONS, None)  # type: ignore[arg-type]
    assert "could not be analysed (AttributeError)" in status and wfdb_record.stem not in status
    assert not list(tmp_path.iterdir())


def test_uploads_nobody_analysed_are_deleted_after_ten_minutes(networks: Networks) -> None:
    assert app.build(networks).delete_cache == (60, 600)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "a.csv: sampling_rate, unit: the file does not say them; give --sampling-rate HZ",
            "samples it has per second",
        ),
        (
            "a.jpg: not a known ECG file, got a picture of an ECG at best; digitise it",
            "Pictures and scans cannot be read",
        ),
        ("a.npy: signal_mv: expected millivolt, got 266: probably ADC counts or microvolt", "choose another unit"),
        ("a.hea: its data file is missing: a.dat", "upload the .hea file together with its .dat"),
    ],
)
def test_errors_are_told_in_plain_words_with_the_programs_own_behind_a_click(error: str, said: str) -> None:
    plain, _, detail = page.error_html(error).partition("<details>")
    assert said in plain and "--" not in plain and error in detail
    assert page.error_html("something new").count("something new") == 1


def test_names_of_files_and_records_are_shown_as_text(networks: Networks) -> None:
    assert HOSTILE not in page.error_html(f"{HOSTILE}.csv: no")
    found = EcgReport.of(ecg(name=HOSTILE), networks)
    shown = page.result_html(found)
    assert HOSTILE not in shown and "&lt;img src=x" in shown
    assert re.findall(r'download="([^"]+)"', page.downloads_html(found)) == [
        "ECG-img-src-x-onerror-alert-1.pdf",
        "ECG-img-src-x-onerror-alert-1.html",
    ]


def test_each_figure_of_the_page_has_a_text_and_a_table(networks: Networks) -> None:
    found = EcgReport.of(ecg(), networks)
    shown = Page(page.result_html(found))
    assert [image["alt"] for image in shown.of("img")] == [part.alt for part in found.sections if part.figure]
    assert len(shown.of("details")) == 1 + len(shown.of("img")) == 5, "a table of each, and a simulated risk"
    assert len(shown.of("table")) == 5 and all(head.get("scope") for head in shown.of("th"))
    cells = [str(cell) for part in found.sections for cell in part.table.to_numpy().ravel()]
    assert all(cell in shown.text for cell in cells)
    assert [tag for tag, _ in shown.tags if re.fullmatch("h[1-6]", tag)] == ["h2"] + ["h3"] * 5


def test_the_banner_says_simulated_only_of_a_simulated_outcome() -> None:
    assert "simulated" in page.banner_html(True) and "simulated" not in page.banner_html(False)
    assert "Research use only" in page.banner_html(False)


def test_every_synthetic_choice_is_an_ecg_the_networks_take(networks: Networks) -> None:
    for choice in uploads.SYNTHETIC:
        record = uploads.synthetic_ecg(choice)
        assert np.isfinite(Explanation.of(record, *networks.labels).output.logits).all() and choice in record.record_id
        assert np.array_equal(record.signal_mv, uploads.synthetic_ecg(choice).signal_mv)
    assert record.lead_names == ("I", "II")


def test_the_card_of_the_space_is_what_the_hub_expects() -> None:
    card = SpaceCard.load(
        ROOT / "hub_scripts" / "space" / "README.md", repo_type="space", ignore_metadata_errors=False
    )
    assert card.data.sdk == "gradio" and card.data.app_file == "app.py" and card.data.license == "apache-2.0"
    assert card.data.sdk_version.split(".")[0] == app.gr.__version__.split(".")[0]
    assert card.data.models == list(app.DEFAULTS.values())
    assert len(card.data.short_description) <= 60


def test_requirements_are_those_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    lines = (ROOT / "hub_scripts" / "space" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if not line.startswith("#") and line not in declared]


HIDDEN = """
import sys
from importlib.machinery import PathFinder
class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {hidden} else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
import app, ecgdan_hf, uploads
networks = app.networks_of_environment()
answers = list(app.analyse(uploads.synthetic_ecg(next(iter(uploads.SYNTHETIC))), networks, "of the risk"))
print(ecgdan_hf.__file__, len(answers), "application/pdf" in answers[-1][2])
"""


def test_a_staged_space_answers_with_the_package_beside_it_and_nothing_but_its_requirements(
    risk_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path.resolve() / "space"
    push_space.stage(folder, "somebody")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    kept = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    hidden = {re.split(r"[\[>=<]", line)[0] for line in declared if line not in kept}
    assert {"timm", "tensorboard"} <= hidden
    models = dict(zip(app.DEFAULTS, map(str, (LABELS, STATEMENTS, risk_checkpoint)), strict=True))
    environment = {**os.environ, **models, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HIDDEN.format(hidden=hidden)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{folder / 'ecgdan_hf' / '__init__.py'} 3 True"


def test_the_space_is_pushed_with_its_package_and_its_models(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "hub_scripts" / "push_space.py"), "user/page", "--models", "lab"]
    with HubServer() as hub:
        environment = {**os.environ, **hub.environment, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        files = hub.repositories["user/page"].commits[-1][1]
    assert {"app.py", "page.py", "uploads.py", "style.css", "requirements.txt", "LICENSE"} <= set(files)
    assert "ecgdan_hf/data/text/statement_names.csv" in files and "ecgdan_hf/evaluation/report/html_page.css" in files
    assert not [name for name in files if "__pycache__" in name]
    assert b"- lab/ecg-dan-rhythm\n" in files["README.md"] and b"OWNER" not in files["README.md"]
    assert b'"lab/ecg-dan-rhythm-survival-simulated"' in files["app.py"] and b"OWNER" not in files["app.py"]
    assert f"{hub.address}/spaces/user/page" in done.stdout


def test_a_bad_name_of_a_space_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["push_space.py", "nobody"])
    assert push_space.main() == 2
    assert capsys.readouterr().err == "error: repository: expected USER/NAME, got 'nobody'\n"
