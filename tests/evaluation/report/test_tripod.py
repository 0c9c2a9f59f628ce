import base64
import re
import tomllib
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ecgdan_hf.evaluation.report import tripod
from ecgdan_hf.evaluation.report.html_page import STYLE, html_page
from ecgdan_hf.evaluation.report.tripod import tripod_report
from ecgdan_hf.evaluation.report.tripod_answers import ANSWERS

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "img", "br", "hr", "link", "input"}


def interval(value: float) -> dict[str, float]:
    return {"estimate": value, "low": value - 0.05, "high": value + 0.05, "level": 0.95, "num_resamples": 1000}


METRICS: dict[str, Any] = {
    "task": "survival",
    "protocol": "repeated-cv",
    "simulated_outcome": True,
    "endpoint": "heart failure",
    "data": {
        "source": "PTB-XL",
        "num_records": 1543,
        "num_patients": 1402,
        "num_events": 87,
        "median_follow_up_years": 5.2,
        "max_follow_up_years": 8.9,
        "age": {"mean": 61.2, "sd": 12.1, "num_missing": 4},
        "sex": {"female": 700, "male": 841, "num_missing": 2},
    },
    "splits": {
        "num_folds": 2,
        "seeds": [0, 1],
        "stratified_by": "event",
        "grouped_by": "patient_id",
        "inner_valid_fraction": 0.2,
        "folds": [
            {"seed": seed, "fold": fold, "num_records": 771, "num_patients": 701, "num_events": 43 + fold}
            for seed in (0, 1)
            for fold in (0, 1)
        ],
    },
    "models": {
        "ECG-DAN": {
            "concordance_index": interval(0.712),
            "over_folds": {"mean": 0.711, "sd": 0.024, "values": [0.7, 0.72]},
            "over_seeds": {"mean": 0.711, "sd": 0.009, "values": [0.71, 0.712]},
            "horizons": {
                "5": {"auc": interval(0.733), "brier": interval(0.061), "scaled_brier": 0.052, "ici": 0.013},
                "10": {"auc": None, "not_estimable": {"auc": "follow-up is too short"}},
            },
        },
        "age and sex": {
            "concordance_index": interval(0.633),
            "over_folds": {"mean": 0.63, "sd": 0.02},
            "over_seeds": {"mean": 0.63, "sd": 0.01},
            "ahead": interval(0.079),
            "t_test": {"difference": 0.081, "t": 2.6, "df": 9, "p": 0.0287},
        },
    },
    "subgroups": {
        "sex": {
            "female": {"concordance_index": interval(0.701), "num_records": 700, "num_events": 30},
            "male": {"concordance_index": interval(0.723), "num_records": 841, "num_events": 57},
        },
        "age": {"under 50": {"num_records": 100, "num_events": 3}},
    },
    "covariates": {"names": ["age", "sex"], "means": [61.0, 0.5], "stds": [12.0, 0.5], "num_missing": [4, 2]},
    "hardware": {"cpu": "2 cores"},
    "seconds": 812.0,
    "versions": {"ecgdan-hf": "0.1.0"},
}
RECIPE = {"epochs": 12, "stratify": True, "model": {"input_kind": "median_beat", "normalization": "global"},
          "data_dir": "/home/someone/data", "checkpoint": "/home/someone/pretrained"}  # fmt: skip


def sections(text: str) -> dict[str, str]:
    """Text under each item, by its number."""
    found = re.split(r"^### (\S+) .*$", text, flags=re.MULTILINE)[1:]
    return {number: body.split("\n## ")[0] for number, body in zip(found[::2], found[1::2], strict=True)}


def tables(text: str) -> list[list[list[str]]]:
    """Cells of every Markdown table."""
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block.strip().splitlines()] for block in blocks]


def without_each_entry(found: Any) -> Iterator[Any]:
    """The mapping with one entry left out, or one leaf None, for every entry at every depth."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            rest = {other: each for other, each in found.items() if other != key}
            yield rest
            yield {**rest, key: None}
            for less in without_each_entry(value):
                yield {**found, key: less}


def test_the_checklist_has_its_27_items_in_52_parts_in_order():
    numbers = [item.number for item in tripod._items()]
    assert len(numbers) == len(set(numbers)) == 52
    assert sorted({int(re.match(r"\d+", number)[0]) for number in numbers}) == list(range(1, 28))
    assert numbers == sorted(numbers, key=lambda number: (int(re.match(r"\d+", number)[0]), number))
    assert set(ANSWERS) <= set(numbers)


def test_every_item_is_answered_or_missing_with_who_must_state_it():
    found = sections(tripod_report(METRICS, RECIPE, {}, "ECG-DAN"))
    assert sorted(found) == sorted(item.number for item in tripod._items())
    assert list(found)[:2] == ["20a", "23a"], "numbers first"
    for item in tripod._items():
        if item.number not in ANSWERS:
            assert found[item.number].strip() == f"**Missing**, to be stated by the {item.who}: {item.ask}."
        assert found[item.number].strip()


def test_the_few_events_model_is_described_as_what_it_is():
    recipe = {**RECIPE, "method": "few-events"}
    (text,) = (
        body for body in sections(tripod_report(METRICS, recipe, {}, "few")).values() if "frozen encoder" in body
    )
    assert "frozen encoder pretrained" in text and "epochs" not in text
    assert "without validation patients" in text


def test_of_a_run_that_says_nothing_only_what_the_package_always_does_is_stated():
    text = tripod_report({}, None, None, "model")
    found = sections(text)
    missing = {item.number for item in tripod._items() if found[item.number].strip().startswith("**Missing**")}
    assert {item.number for item in tripod._items()} - missing == {"1", "18f", "27a"}
    assert not re.search(r"\d", " ".join(found[number] for number in ("1", "27a")))
    assert not tables(text)


def test_an_absent_entry_leaves_a_gap_and_no_error():
    for less in without_each_entry(METRICS):
        text = tripod_report(less, RECIPE, {}, "ECG-DAN")
        assert "None" not in text and "nan" not in text
    tripod_report(METRICS, {**RECIPE, "model": None}, {}, "ECG-DAN")


def test_what_the_run_knows_stands_under_its_item():
    found = sections(tripod_report(METRICS, RECIPE, {}, "ECG-DAN"))
    for number, words in {
        "5a": "PTB-XL",
        "10": "1,543 records of 1,402 patients, 87 simulated events",
        "11": "age: 4; sex: 2",
        "12a": "2-fold cross-validation, repeated 2 times (seeds 0, 1), stratified by event",
        "12b": "one scale for all leads",
        "12c": "epochs at most: 12",
        "13": "87 of 1,543 records have a simulated event (5.6 %)",
        "18f": "version 0.1.0",
        "20b": "61.2 (12.1)",
        "21": "| seed 1, fold 1 | 771 | 701 | 44 |",
        "23a": "| age and sex | 0.633 (0.583 to 0.683) | 0.630 (0.020; 0.010) | 0.079 (0.029 to 0.129) | 0.029 |",
        "26": "87 simulated events are fewer than the 100",
    }.items():
        assert words in found[number], number
    assert "No record was followed to 10 years" in found["26"]
    assert "| ECG-DAN, 5 years | 0.733 (0.683 to 0.783) | 0.061 (0.011 to 0.111) | 0.052 | 0.013 |" in found["23a"]
    assert "* ECG-DAN, 10 years, AUC: follow-up is too short" in found["23a"]
    assert "| age: under 50 | not estimated | 100 | 3 |" in found["23a"]


def test_a_simulated_outcome_is_called_so_at_every_number_that_rests_on_it():
    text = tripod_report(METRICS, RECIPE, {"calibration": Path("c.png")}, "ECG-DAN")
    for heading, *_ in tables(sections(text)["23a"] + sections(text)["21"]):
        for cell in heading[1:]:
            assert "simulated" in cell or cell.strip() in ("records", "patients"), cell
    for line in text.splitlines():
        if re.search(r"\d.* events|C-index.*\d|ollow-up: median", line) and not line.startswith("|"):
            assert "imulated" in line, line
    assert "![Simulated outcome: calibration]" in text and "> **The outcome is simulated.**" in text


def test_a_real_outcome_is_never_called_simulated_and_asks_how_it_was_found():
    text = tripod_report({**METRICS, "simulated_outcome": False}, RECIPE, {"calibration": Path("c.png")}, "ECG-DAN")
    assert "imulated" not in text
    assert "**Missing**" in sections(text)["8a"] and "**Missing**" in sections(text)["8b"]


def test_a_run_that_does_not_say_whether_its_outcome_is_real_is_asked():
    unknown = {key: value for key, value in METRICS.items() if key != "simulated_outcome"}
    assert "whether the outcome is real or simulated" in sections(tripod_report(unknown))["8a"]


def test_a_held_out_evaluation_does_not_claim_to_have_developed_a_model():
    text = tripod_report({**METRICS, "protocol": "held-out", "splits": {}, "test_folds": [9]}, RECIPE)
    found = sections(text)
    assert "cross-validation" not in text and "Models are developed" not in text
    assert "Judged on folds 9" in found["12a"] and "**Missing**" in found["16"]
    assert "**Missing**" in found["21"] and "87 simulated events" in found["21"]


def test_what_the_author_states_is_no_longer_missing():
    said = sections(tripod_report({**METRICS, "statements": {"17": "Approved by a board, 12/2020."}}))["17"]
    assert "Stated by the author: Approved by a board, 12/2020." in said and "Missing" not in said


def test_statements_come_from_a_file_and_only_of_items_that_exist(tmp_path: Path):
    path = tmp_path / "statements.yaml"
    path.write_text("17: Approved by the committee.\n18a: Nobody paid.\n", encoding="utf-8")
    assert tripod.read_author_statements(path) == {"17": "Approved by the committee.", "18a": "Nobody paid."}
    assert tripod.read_author_statements(None) == {}
    for content, message in (
        ("99: x", "expected items of TRIPOD"),
        ("- 17", "expected items and texts"),
        ("a: [", "YAML"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            tripod.read_author_statements(path)


def test_places_on_a_disk_are_not_published():
    text = tripod_report(METRICS, RECIPE, {"curves": Path("/home/someone/run/km.png")}, "ECG-DAN")
    assert "/home/someone" not in text and "pretrained" in text and "](<km.png>)" in text


def test_names_of_models_cannot_break_the_tables():
    models = {"a | b *c* <i>": METRICS["models"]["ECG-DAN"], "d\ne": METRICS["models"]["age and sex"]}
    page = html_page(tripod_report({**METRICS, "models": models}, RECIPE), ".")
    assert "a | b *c* &lt;i&gt;" in page
    for table in re.findall(r"<table>.*?</table>", page, flags=re.DOTALL):
        widths = {len(re.findall("<t[hd]", row)) for row in re.findall(r"<tr>.*?</tr>", table, flags=re.DOTALL)}
        assert len(widths) == 1


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([], "metrics: expected a mapping, found list"),
        ({"task": "classification"}, "metrics: expected task survival, found classification"),
        ({"statements": {"99": "x"}}, r"statements: expected items of TRIPOD\+AI such as 17 or 18a, found 99"),
    ],
)
def test_other_metrics_are_refused(metrics: Any, message: str):
    with pytest.raises(ValueError, match=message):
        tripod_report(metrics)


class Page(HTMLParser):
    """Checks that elements nest, and collects what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        if "p" in self.open:
            assert tag not in {"p", "div", "figure", "table", "ul", "pre", "h2", "h3"}, f"{tag} in p"
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()


@pytest.fixture
def page(tmp_path: Path) -> str:
    (tmp_path / "km.png").write_bytes(PNG)
    text = tripod_report(METRICS, RECIPE, {"Kaplan-Meier <curves>": tmp_path / "km.png"}, "ECG-DAN")
    return html_page(text, tmp_path, tripod.FOLDED, tripod.FOLDED_WORD)


def test_numbers_are_shown_first_and_what_is_missing_is_folded(page: str):
    shown = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    assert "Missing" in page and ">Missing<" not in shown
    folded = re.findall(r"<details>.*?</details>", page, flags=re.DOTALL)
    assert any("Ethic" in part for part in folded) and "Ethic" not in shown
    assert shown.index(">Numbers</h2>") < shown.index("<table>") < shown.index("Items of the checklist</h2>")
    assert all(
        re.match(r"<details>\n<summary>(Missing<|Missing, to be stated by|Show the items)", part) for part in folded
    )


def test_the_page_is_well_formed_and_has_one_title(page: str):
    parsed = Page(page)
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert parsed.tags.count("h1") == parsed.tags.count("title") == parsed.tags.count("main") == 1
    assert len(parsed.ids) == len(set(parsed.ids)) and all(parsed.ids)
    assert len([name for name in parsed.ids if re.match(r"\d", name)]) == 52
    assert ("meta", "name", "viewport") in parsed.attributes


def test_the_page_needs_nothing_from_elsewhere(page: str):
    parsed = Page(page)
    assert not set(parsed.tags) & {"script", "link", "iframe", "object"}
    sources = [value for _, name, value in parsed.attributes if name in ("src", "srcset", "data")]
    assert [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources] == [PNG]
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page


def test_every_link_within_the_page_leads_somewhere(page: str):
    parsed = Page(page)
    inner = [value[1:] for tag, name, value in parsed.attributes if tag == "a" and name == "href" and value[0] == "#"]
    assert inner and set(inner) <= set(parsed.ids)


def test_a_figure_has_a_caption_and_an_alternative_text(page: str):
    parsed = Page(page)
    assert parsed.tags.count("figure") == parsed.tags.count("figcaption") == 1
    assert ("img", "alt", "Simulated outcome: Kaplan-Meier <curves>") in parsed.attributes
    assert "Kaplan-Meier &lt;curves&gt;</figcaption>" in page


def test_raw_html_and_scripts_in_markdown_are_shown_and_not_obeyed():
    page = html_page("# T\n\n<script>alert(1)</script> [x](javascript:alert(1))\n", ".")
    assert "<script" not in page and "&lt;script&gt;" in page and 'href="javascript' not in page
    Page(page)


def test_equal_headings_get_ids_of_their_own():
    parsed = Page(html_page("# T\n\n## Same\n\n## Same\n\n## ?\n", "."))
    assert parsed.ids == ["t", "same", "same-again", "section"]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("../secret.png", ValueError, "expected figures inside .*, found ../secret.png"),
        ("https://example.org/a.png", ValueError, "expected figures inside .*, found https://example.org/a.png"),
        ("//example.org/a.png", ValueError, "expected figures inside"),
        ("absent.png", FileNotFoundError, "absent.png: expected a figure of the report, found no such file"),
        ("notes.txt", ValueError, "notes.txt: expected a PNG, JPEG or SVG, found text/plain"),
    ],
)
def test_figures_from_elsewhere_are_refused(tmp_path: Path, source: str, error: type[Exception], message: str):
    folder = tmp_path / "report"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "notes.txt").write_text("no figure", encoding="utf-8")
    with pytest.raises(error, match=message):
        html_page(f"# T\n\n![a figure]({source})\n", folder)


def test_a_page_without_a_title_is_refused():
    with pytest.raises(ValueError, match="markdown_text: expected a heading of the first level as title, found none"):
        html_page("no heading", ".")


def test_the_checklist_and_the_style_are_installed_with_the_package():
    settings = tomllib.loads(Path(__file__).parents[3].joinpath("pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["ecgdan_hf"]
    for path in (tripod.ITEMS, STYLE):
        inside = path.relative_to(Path(tripod.__file__).parents[2])
        assert path.is_file() and any(inside.match(pattern) for pattern in patterns)
