"""The page in a real browser, Chromium without a window: what a visitor sees, hears, types and keeps."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from space.conftest import LABELS, ROOT, STATEMENTS
from space.test_ecg_report import Page
from space.test_space import apart, csv_without_rate

from ecgdan_hf.data.formats import read
from ecgdan_hf.explain.page.ecg_report import EcgReport, Networks

pytest.importorskip("gradio", reason="the page needs Gradio: pip install -e '.[space]'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive a browser")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs a Chromium on the PATH", allow_module_level=True)

PATIENCE_MS = 90_000  # a machine may be busy
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# every host the server itself looks up, into a file
LISTENER = """
import os, sys
def note(event, arguments):
    if event == "socket.getaddrinfo":
        with open(os.environ["LOOKED_UP"], "a", encoding="utf-8") as file:
            print(arguments[0], file=file)
sys.addaudithook(note)
"""


class Site:
    """The running page: its address, where it keeps uploads, what it printed, whom it looked up."""

    def __init__(self, folder: Path, risk_checkpoint: Path) -> None:
        self.uploads, self.log, self.looked_up = folder / "uploads", folder / "log", folder / "looked-up"
        (folder / "sitecustomize.py").write_text(LISTENER, encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        environment = os.environ | {
            "ECGDAN_LABELS_MODEL": str(LABELS),
            "ECGDAN_STATEMENTS_MODEL": str(STATEMENTS),
            "ECGDAN_RISK_MODEL": str(risk_checkpoint),
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(self.uploads),
            "LOOKED_UP": str(self.looked_up),
            "PYTHONPATH": str(folder),
        }
        command = [sys.executable, str(ROOT / "hub_scripts" / "space" / "app.py")]
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
        self._wait()

    def _wait(self) -> None:
        for _ in range(600):
            try:
                urllib.request.urlopen(self.address, timeout=2).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
                time.sleep(0.3)
        raise TimeoutError(self.log.read_text(encoding="utf-8"))

    def kept(self) -> list[str]:
        """Names of the files that lie in the folder of uploads."""
        return [path.name for path in self.uploads.rglob("*") if path.is_file()]


@pytest.fixture(scope="session")
def site(risk_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("site"), risk_checkpoint)
    yield running
    running.process.terminate()
    running.process.wait(timeout=20)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(site: Site, browser) -> Iterator[Callable]:
    """Opens the page. In the end no visit may have asked another host, nor written an error to the console."""
    contexts, hosts, errors = [], set(), []

    def note(request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            hosts.add(request.url.split("/")[2])

    def open_page(viewport: dict[str, int] = DESKTOP, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE_MS)
        tab.on("request", note)
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(site.address)
        tab.wait_for_selector("#analyse-synthetic")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert hosts == {site.address.removeprefix("http://")}
    assert not errors


def finished(tab) -> None:
    """Waits until the result and the downloads are there and the result has the focus."""
    tab.wait_for_selector(".downloads a")
    tab.wait_for_function("document.activeElement.id === 'result'")


def analyse(tab, *files: Path) -> None:
    tab.set_input_files("#upload input[type=file]", [str(file) for file in files])
    tab.get_by_text(files[-1].stem).first.wait_for()
    tab.click("#analyse-file")


def test_an_uploaded_record_is_explained_and_gone(
    site: Site, visit: Callable, networks: Networks, wfdb_record: Path, tmp_path: Path
) -> None:
    tab = visit()
    analyse(tab, *apart(wfdb_record, tmp_path))
    finished(tab)
    expected = EcgReport.of(read(wfdb_record), networks)
    assert tab.locator("#result h2").inner_text() == f"ECG {wfdb_record.stem}"
    assert tab.locator("#result .findings li").all_inner_texts() == list(expected.findings)
    risks = tab.locator("#result section", has_text="Risk (simulated outcome)")
    assert not risks.locator("img").is_visible(), "a simulated risk is shown only after a click"
    risks.locator("summary").first.click()
    risks.locator("summary").last.click()
    assert "invented event" in risks.inner_text() and risks.get_by_text("simulated outcome").count() >= 6
    images = tab.locator("#result img")
    assert [image.get_attribute("alt") for image in images.all()] == [
        part.alt for part in expected.sections if part.alt
    ]
    assert all(image.evaluate("image => image.naturalWidth > 300 && image.complete") for image in images.all())
    assert tab.locator("#result section", has_text="Statements").locator("tbody tr").count() >= 1
    assert not [name for name in site.kept() if wfdb_record.stem in name]
    assert wfdb_record.stem not in site.log.read_text(encoding="utf-8")


def test_the_banner_stays_and_a_phone_needs_no_sideways_scrolling(visit: Callable) -> None:
    tab = visit(PHONE)
    tab.click("#analyse-synthetic")
    finished(tab)
    for place in (0, "document.body.scrollHeight / 2", "document.body.scrollHeight"):
        tab.evaluate(f"window.scrollTo(0, {place})")
        box = tab.locator(".banner").bounding_box()
        assert box["y"] == 0 and box["width"] == 390 and box["height"] < 80
        on_top = "([x, y]) => document.elementFromPoint(x, y).closest('.banner')?.innerText ?? ''"
        assert "Research use only" in tab.evaluate(on_top, [195, box["height"] / 2])
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    ecg = tab.locator("#result figure .scroll")
    assert ecg.evaluate("box => box.scrollWidth > 2 * box.clientWidth"), "the ECG keeps its size and scrolls by itself"


def test_the_keyboard_alone_reaches_a_result_and_opens_the_file_dialogue(visit: Callable) -> None:
    tab = visit()
    reached = []

    def tab_to(selector: str) -> None:
        for _ in range(40):
            tab.keyboard.press("Tab")
            reached.append(tab.evaluate("document.activeElement.closest('[id]')?.id"))
            if tab.evaluate(f"document.activeElement.matches({selector!r})"):
                return
        raise AssertionError(f"{selector} was not reached by Tab: {reached}")

    tab_to("#upload button")
    with tab.expect_file_chooser():
        tab.keyboard.press("Enter")
    tab_to("#choice input")
    tab.keyboard.press("ArrowDown")
    tab_to("#analyse-synthetic")
    tab.keyboard.press("Enter")
    finished(tab)
    assert "Inverted T waves" in tab.locator("#result h2").inner_text()
    tab_to("#result .scroll")
    tab_to("#result summary")
    tab.keyboard.press("Enter")
    assert tab.locator("#result details[open] table").count() == 1


def test_the_reports_that_are_downloaded_open(visit: Callable) -> None:
    tab = visit()
    tab.click("#analyse-synthetic")
    finished(tab)
    with tab.expect_download() as pdf:
        tab.get_by_text("Download the report as PDF").click()
    assert pdf.value.suggested_filename == "ECG-synthetic-Ordinary-72-beats-a-minute.pdf"
    content = Path(pdf.value.path()).read_bytes()
    assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
    with tab.expect_download() as html:
        tab.get_by_text("Download the report as a web page").click()
    page = Page(Path(html.value.path()).read_text(encoding="utf-8"))
    assert page.of("html")[0]["lang"] == "en" and len(page.of("img")) == 4 and len(page.of("table")) == 5
    for finding in tab.locator("#result .findings li").all_inner_texts():
        assert finding in page.text


def test_a_file_that_is_no_ecg_is_refused_in_one_line_and_deleted(site: Site, visit: Callable, tmp_path: Path) -> None:
    file = tmp_path / "holiday.jpg"
    file.write_bytes(b"\xff\xd8\xff\xe0 no ECG")
    tab = visit()
    analyse(tab, file)
    alert = tab.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().startswith("Not analysed. This is a picture of an ECG.")
    alert.locator("summary").click()
    assert "holiday.jpg: not a known ECG file" in alert.inner_text()
    assert tab.locator("#result").count() == 0 and not tab.locator("#rate input").is_visible()
    assert "holiday.jpg" not in site.kept() and "holiday" not in site.log.read_text(encoding="utf-8")


def test_a_file_without_a_rate_asks_for_it_and_is_then_read(site: Site, visit: Callable, tmp_path: Path) -> None:
    tab = visit()
    analyse(tab, csv_without_rate(tmp_path, "norate.csv"))
    tab.get_by_role("alert").wait_for()
    assert "samples it has per second" in tab.get_by_role("alert").inner_text()
    tab.get_by_label("Sampling rate, Hz").fill("500")
    tab.get_by_label("mV", exact=True).check()
    tab.click("#analyse-file")
    finished(tab)
    assert tab.locator("#result h2").inner_text() == "ECG norate"
    assert tab.get_by_role("alert").count() == 0 and "norate.csv" not in site.kept()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_no_rule_of_accessibility_is_broken(scheme: str, visit: Callable) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    tab = visit(color_scheme=scheme)
    tab.get_by_text("My file lacks").click()
    tab.get_by_label("Sampling rate, Hz").wait_for()
    tab.click("#analyse-synthetic")
    finished(tab)
    assert tab.evaluate("document.documentElement.lang") == "en"
    tree = tab.locator("body").aria_snapshot()
    roles = "button|radio|textbox|spinbutton|img|link|combobox|checkbox|group|region|navigation|article"
    unnamed = re.findall(rf"^ *- '?(?:{roles})(?! [\"/']).*$", tree, re.MULTILINE)
    assert not [line for line in unnamed if not re.search(r"- (img|group:.*(as a table|simulated outcomes))", line)]
    assert set(re.findall(r"heading .*level=(\d)", tree)) == {"1", "2", "3"}
    assert tab.get_by_role("status").first.inner_text().startswith("Analysed")
    found = axe.Axe().run(tab).response["violations"]
    assert not [(rule["id"], [node["html"][:120] for node in rule["nodes"]]) for rule in found]


def test_the_server_looks_up_no_other_host(site: Site, visit: Callable) -> None:
    visit()
    hosts = set(site.looked_up.read_text(encoding="utf-8").split()) if site.looked_up.exists() else set()
    assert hosts <= {"127.0.0.1", "localhost", "0.0.0.0", "None"}
