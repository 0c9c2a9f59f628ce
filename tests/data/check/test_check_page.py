import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from ecgdan_hf.data.check.folder import _explained
from ecgdan_hf.data.check.page import html
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The elements of a page, which must be closed in order; texts by the element they are in."""

    VOID = ("meta",)

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def inside(self, tag):
        return [text for name, text in self.texts if name == tag]


def facts(**found):
    problems = _explained(found)
    return {
        "source": "csv", "records": 4, "readable": 3, "patients": 4, "patients_with_several_records": 0,
        "age_missing": 0, "sex_missing": 4, "folds": {}, "labels": {}, "sampling_rates": {"500": 3},
        "durations_seconds": {"10": 3}, "leads": {EVIL: 3}, "flags": {},
        "qrs_mv": {"p5": 0.5, "p50": 0.9, "p95": 1.4}, "outcomes": None, "errors": 1, "warnings": 2,
        "problems": problems,
    }  # fmt: skip


@pytest.fixture
def record(ecg):
    return EcgRecord(ecg, 500.0, STANDARD_LEADS, record_id="a", patient_id="patient-17")


def test_the_page_is_whole_escaped_and_needs_nothing_else(record):
    found = facts(unreadable={EVIL: EVIL}, lead_flat={"a": "V3"})
    text = html(found, [(EVIL, record), ("a", record)], EVIL)
    page = Page(text)
    assert page.all("script") == page.all("link") == page.all("img") == []
    assert "alert(1)</script>" not in text
    assert not re.search(r"(src|href|url)\s*[=(]", text)
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'")
    assert page.all("html") == [{"lang": "en"}]


def test_tables_have_captions_and_drawings_have_words(record):
    page = Page(html(facts(lead_flat={"a": "V3"}), [("a", record)], "my-ecgs"))
    assert len(page.inside("caption")) == len(page.all("table")) == 3
    assert page.inside("h1") == ["my-ecgs: data check"]
    sections = ["What is there", "What is wrong", "The worst records", "Every problem and its records"]
    assert page.inside("h2") == sections
    assert page.inside("summary") == ["flat leads: 1"]
    (drawing,) = page.all("svg")
    assert (drawing["role"], drawing["aria-label"]) == ("img", "12 leads of a: V3: flat line; not used")


def test_names_of_records_are_shown_and_patients_are_not(record):
    text = html(facts(lead_flat={"a": "V3"}), [("a", record)], "my-ecgs")
    assert "<strong>a</strong>" in text
    assert "patient-17" not in text


def test_each_lead_is_drawn_inside_the_picture_and_the_named_ones_are_marked(record):
    page = Page(html(facts(chest_leads_exchanged={"a": "V1-V3"}), [("a", record)], "x"))
    lines = [attrs["points"] for attrs in page.all("polyline")]
    assert len(lines) == 12
    points = np.array([[float(n) for n in pair.split(",")] for line in lines for pair in line.split()])
    width, height = (float(n) for n in page.all("svg")[0]["viewbox"].split()[2:])
    assert points.min() >= 0
    assert points[:, 0].max() <= width
    assert points[:, 1].max() <= height
    marked = [i for i, attrs in enumerate(page.all("g")) if attrs.get("class") == "named"]
    assert [STANDARD_LEADS[i] for i in marked] == ["V1", "V3"]


def test_the_ecg_is_on_paper_at_25_mm_a_second_with_squares_and_a_pulse_of_a_millivolt(record):
    page = Page(html(facts(lead_flat={"a": "V3"}), [("a", record)], "x"))
    points = [float(pair.split(",")[0]) for pair in page.all("polyline")[0]["points"].split()]
    assert np.diff(points).mean() * 100 == pytest.approx(25, rel=0.03)
    dashes = [attrs["stroke-dasharray"].split() for attrs in page.all("line")]
    assert [sum(map(float, dash)) for dash in dashes] == [1, 1, 5, 5]
    gain = re.search(r"25 mm/s, (\S+) mm/mV", " ".join(page.inside("figcaption")))[1]
    pulses = [attrs["d"] for attrs in page.all("path")]
    assert len(pulses) == 3 and all(f"v-{gain}h5v{gain}" in pulse for pulse in pulses)
    heights = [float(pair.split(",")[1]) for pair in page.all("polyline")[7]["points"].split()]
    shown = record.signal_mv[7, :1250:5]
    assert np.ptp(heights) == pytest.approx(float(gain) * np.ptp(shown), abs=0.05)


def test_the_drawn_line_is_the_signal(ecg):
    record = EcgRecord(ecg[:1], 500.0, ("I",))
    page = Page(html(facts(lead_clipped={"a": "I"}), [("a", record)], "x"))
    drawn = np.array([float(pair.split(",")[1]) for pair in page.all("polyline")[0]["points"].split()])
    assert np.corrcoef(-drawn, ecg[0, :1250:5])[0, 1] > 0.999


def test_gaps_stay_gaps_and_lost_leads_stay_empty(ecg):
    signal = ecg[:3].copy()
    signal[1, 400:500] = np.nan
    signal[2] = np.nan
    page = Page(html(facts(short_gaps={"a": "II"}), [("a", EcgRecord(signal, 500.0, ("I", "II", "III")))], "x"))
    assert [len(re.findall("polyline", group)) for group in html_groups(signal)] == [1, 2, 0]
    assert len(page.all("polyline")) == 3


def html_groups(signal):
    text = html(facts(short_gaps={"a": "II"}), [("a", EcgRecord(signal, 500.0, ("I", "II", "III")))], "x")
    return re.findall(r"<g.*?</g>", text, re.DOTALL)


def test_a_folder_without_problems_says_so():
    page = Page(html({**facts(), "errors": 0, "warnings": 0}, [], "my-ecgs"))
    assert page.inside("p")[1:] == ["Nothing.", "None that could be drawn.", "None."]


def test_long_lists_are_cut_and_say_so():
    page = Page(html(facts(lead_flat={f"r{i}": "V1" for i in range(500)}), [], "x"))
    assert any("the first 20 of 500" in caption for caption in page.inside("caption"))
    assert sum(cell.startswith("r") and cell[1:].isdigit() for cell in page.inside("th")) == 20


def red_pixels(text, folder):
    """Of the page as chromium draws it, which must not have had to refuse anything."""
    folder.mkdir()
    (folder / "page.html").write_text(text, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1000,1200"]
    files = [f"--user-data-dir={folder / 'profile'}", f"--screenshot={folder / 'page.png'}"]
    command = ["chromium", *options, *files, (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert "Content Security Policy" not in done.stderr
    pixels = imread(folder / "page.png")[..., :3]
    assert pixels.shape[:2] == (1200, 1000)
    return int(((pixels[..., 0] > 0.6) & (pixels[..., 1:].max(axis=2) < 0.5)).sum())


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium")
def test_a_browser_draws_the_lead_that_a_problem_names_in_red(record, tmp_path):
    pages = (html(facts(lead_flat={"a": lead}), [("a", record)], EVIL) for lead in ("V3", "V9"))
    named, unnamed = (red_pixels(page, tmp_path / str(i)) for i, page in enumerate(pages))
    assert named > unnamed + 60
