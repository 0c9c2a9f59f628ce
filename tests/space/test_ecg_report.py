import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from space.conftest import LABELS, ROOT, STATEMENTS

from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.explain.page.ecg_report import EcgReport, Networks
from ecgdan_hf.explain.page.figures import Explanation
from ecgdan_hf.explain.page.panels import draw_risk
from ecgdan_hf.explain.page.report_pages import html_report, pdf_report
from ecgdan_hf.explain.page.report_sections import STATEMENT_SCORE, statement_names, statement_section, statement_table
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import bench_shown_statements

PTB_XL = ROOT.parent / "shared" / "data" / "ptb-xl"
HOSTILE = "<script>x</script>|![a](http://x.org/a.png)$\\frac$"
PERCENT = r"\d %"


def ecg(leads: tuple[str, ...] = STANDARD_LEADS, name: str = "00042") -> EcgRecord:
    signal_mv = make_signal(strain=2.0, qrs_duration_ms=100.0, heart_rate_bpm=80.0, seed=0)
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    return EcgRecord(signal_mv[rows], 500, leads, record_id=name, age=63, sex="male")


@pytest.fixture(scope="module")
def found(networks: Networks) -> EcgReport:
    return EcgReport.of(replace(ecg(), report="Sinus rhythm;\n left axis"), networks)


def section(of: EcgReport, title: str):
    return next(part for part in of.sections if part.title.startswith(title))


def test_the_tables_hold_what_the_networks_said(networks: Networks, found: EcgReport) -> None:
    labels, extractor = networks.labels
    inputs = extractor(**ecg().as_inputs(), return_tensors="pt")
    with torch.no_grad():
        probabilities = labels(**inputs).logits[0].sigmoid()
    by_label = {labels.config.id2label[index]: f"{float(value):.2f}" for index, value in enumerate(probabilities)}
    table = section(found, "Labels").table
    assert {
        re.findall(r"\((\w+)\)", name)[0]: value for name, value in table[["Label", "Probability"]].to_numpy()
    } == by_label
    risk, low, high = networks.risk[0].predict_risk_interval(**inputs, horizon_years=5.0)
    cell = section(found, "Risk").table.set_index("Years after the ECG").iloc[:, 0]["5"]
    numbers = [float(number) for number in re.findall(r"\d+\.\d", cell)]
    assert numbers == pytest.approx([100 * float(value) for value in (risk, low, high)], abs=0.051)
    answers = networks.statements(ecg().as_inputs(), multi_label=True)
    said = {answer["label"]: f"{answer['score']:.2f}" for answer in answers if answer["score"] >= STATEMENT_SCORE}
    table = section(found, "Statements").table
    codes = [re.findall(r"\(([^()]+(?:\(S\))?)\)$", name)[0] for name in table["Statement"]]
    assert dict(zip(codes, table["Score"], strict=True)) == said and said


def test_statements_that_chance_may_have_given_are_not_shown(networks: Networks) -> None:
    head = networks.statements.model.alignment_head
    noise = replace(ecg(), signal_mv=np.random.default_rng(0).normal(0, 0.1, (12, 5000)).astype(np.float32))
    answers = networks.statements(noise.as_inputs(), multi_label=True)
    shown = statement_table(networks.statements, noise)
    assert len(shown) == sum(answer["score"] >= STATEMENT_SCORE for answer in answers) < 5
    empty = statement_section(shown[:0], 71)
    assert not len(empty.table) and empty.text.startswith("None of 71 statements")
    head.has_bias = False  # as after CLIP's loss: scores are shares, and chance gives an even one
    try:
        shares = statement_table(networks.statements, ecg())["score"]
    finally:
        head.has_bias = True
    assert (shares >= 1 / 71).all() and shares.sum() <= 1


@pytest.mark.skipif(not PTB_XL.is_dir(), reason="needs ../shared/data/ptb-xl")
def test_the_benchmark_of_shown_statements_counts_right_ones_and_chance() -> None:
    found = bench_shown_statements.main(["--ptb-xl", str(PTB_XL), "--folds", "9", "--limit", "3"])["fold 9"]
    assert found["ecgs"] == 3 and 0 <= found["by_chance"] <= 1
    few = bench_shown_statements.shown([[0.9, 0.1], [0.9, 0.9]], [[1, 0], [0, 1]])
    assert few["in_the_report"] == pytest.approx(2 / 3, abs=1e-4) and few["by_chance"] == 0.5


def test_the_order_is_that_of_reading_an_ecg(found: EcgReport) -> None:
    assert [part.title.split()[0] for part in found.sections] == ["ECG", "Labels", "Which", "Risk", "Statements"]
    assert re.match(r"Measured: rate \d+/min, PR \d+ ms, QRS \d+ ms", found.findings[0])
    assert found.findings[1] == "In the file: Sinus rhythm; left axis"
    assert found.findings[2].startswith("Labels that reach") and len(found.findings) == 3


def test_the_lead_table_is_the_map_and_the_ecg_table_finds_the_highest_attention(
    networks: Networks, found: EcgReport
) -> None:
    said = Explanation.of(ecg(), *networks.labels)
    leads = section(found, "Which leads").table
    assert np.allclose(leads.iloc[:, 1:].astype(float).to_numpy(), said.lead_map, atol=0.0051)
    table = section(found, "ECG with").table.set_index("Lead")
    lead, sample = np.unravel_index(said.attention.argmax(), said.attention.shape)
    row = table.loc[STANDARD_LEADS[lead]].astype(float)
    assert row["at second"] == pytest.approx(sample / 100, abs=0.0051)
    assert row["Highest attention, times even"] == pytest.approx(said.attention.max(), abs=0.0051)
    assert row["Highest, mV"] == pytest.approx(said.signal_mv[lead].max(), abs=0.0051)


def test_alternative_texts_say_the_numbers(found: EcgReport) -> None:
    ecg_part, labels, leads, risk = (part for part in found.sections if part.figure is not None)
    assert "25 mm/s" in ecg_part.alt and "V6" in ecg_part.alt and re.search(r"\d\.\d\d times even", ecg_part.alt)
    assert re.search(r"Read most.*\d+ %.*even would be 8 %", leads.alt)
    assert all(value in labels.alt for value in labels.table["Probability"])
    assert all(cell in risk.alt for cell in risk.table.iloc[:, 1])


def test_every_risk_is_called_simulated_where_it_was_and_nowhere_else(networks: Networks, found: EcgReport) -> None:
    risk = section(found, "Risk")
    assert "simulated" in risk.title and "simulated" in risk.text
    cells = list(risk.table.iloc[:, 1])
    assert sum(bool(re.search(PERCENT, cell)) for cell in cells) == 5
    assert all("simulated outcome" in cell for cell in cells)
    assert risk.folded and not any(re.search(PERCENT, line) for line in found.findings)
    networks.risk[0].config.simulated_outcome = False
    try:
        other = EcgReport.of(ecg(), networks)
    finally:
        networks.risk[0].config.simulated_outcome = True
    said = [*other.findings, *(part.title + part.text + part.alt + part.table.to_string() for part in other.sections)]
    assert not any("simulated" in words for words in said)
    assert re.search(PERCENT, other.findings[-1]) and not section(other, "Risk").folded


def test_attention_is_drawn_of_the_network_that_was_asked_for(networks: Networks, found: EcgReport) -> None:
    other = EcgReport.of(ecg(), networks, maps_of="risk")
    said = Explanation.of(ecg(), *networks.risk)
    drawn = section(other, "Which leads").table.iloc[:, 1:].astype(float).to_numpy()
    assert np.allclose(drawn, said.lead_map, atol=0.0051)
    assert section(other, "ECG with").figure != section(found, "ECG with").figure
    with pytest.raises(ValueError, match="maps_of: expected labels or risk, got 'x'"):
        EcgReport.of(ecg(), networks, maps_of="x")


def test_of_two_leads_only_those_are_told_and_thresholds_are_left_out(networks: Networks) -> None:
    found = EcgReport.of(ecg(("II", "V2")), networks)
    assert "2 of 12 leads" in found.facts
    table = section(found, "ECG with").table.set_index("Lead")
    assert (table["Lowest, mV"] == "not recorded").sum() == 10
    assert list(section(found, "Which leads").table.columns) == ["Lead, reads from", "II", "V2"]
    labels = section(found, "Labels")
    assert set(labels.table["Threshold"]) == {"none"} and "do not hold" in labels.text
    assert any(line.startswith("Most probable label:") for line in found.findings)
    assert any("masked" in notice and "V6" in notice for notice in found.notices)


def test_reversed_electrodes_are_noticed(networks: Networks) -> None:
    right = ecg()
    swapped = right.signal_mv.copy()  # both arms exchanged
    swapped[[0, 1, 2, 3, 4]] = np.stack(
        [-right.signal_mv[0], right.signal_mv[2], right.signal_mv[1], *right.signal_mv[[4, 3]]]
    )
    assert not EcgReport.of(right, networks).notices
    assert any(
        "limb leads reversed" in notice for notice in EcgReport.of(replace(right, signal_mv=swapped), networks).notices
    )


def test_the_band_of_the_risk_curve_is_the_limits_of_the_baseline(networks: Networks) -> None:
    model, extractor = networks.risk
    inputs = extractor(**ecg().as_inputs(), return_tensors="pt")
    axes = Figure().add_subplot()
    with torch.no_grad():
        draw_risk(axes, model, model(**inputs))
    band = next(part for part in axes.collections if isinstance(part, PolyCollection))
    corners = band.get_paths()[0].vertices
    at_five = corners[np.abs(corners[:, 0] - 5.0) < 0.06]
    _, low, high = model.predict_risk_interval(**inputs, horizon_years=5.0)
    assert at_five[:, 1].min() == pytest.approx(float(low), abs=0.01)
    assert at_five[:, 1].max() == pytest.approx(float(high), abs=0.01)
    assert float(high - low) > 0.02


class Page(HTMLParser):
    """Tags with their attributes, headings, and the text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_html_report_stands_alone_and_a_hostile_name_stays_text(networks: Networks) -> None:
    found = EcgReport.of(ecg(name=HOSTILE), networks)
    page = Page(html_report(found))
    assert page.of("html") == [{"lang": "en"}]
    assert not page.of("script")
    images = page.of("img")
    assert len(images) == 4 and all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert [image["alt"] for image in images] == [part.alt for part in found.sections if part.figure is not None]
    assert len(page.of("table")) == 5
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(headings))
    assert HOSTILE in page.text and "Research use only" in page.text
    assert "simulated outcome" in page.text
    assert len(page.of("details")) == 1 and page.text.index("Risk (sim") < page.text.index("Show a risk that was")


def test_the_pdf_has_three_pages_also_for_a_hostile_name(networks: Networks) -> None:
    content = pdf_report(EcgReport.of(ecg(name=HOSTILE), networks))
    assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type /Page\b", content)) == 3


def test_checkpoints_of_another_kind_are_refused_by_name(risk_checkpoint: Path) -> None:
    with pytest.raises(
        ValueError, match=r"expected a checkpoint of EcgDanForSequenceClassification, found EcgDanForS"
    ):
        Networks.load(risk_checkpoint, STATEMENTS, risk_checkpoint)
    with pytest.raises(ValueError, match=r"superclasses: expected a checkpoint of EcgDanForPreTraining"):
        Networks.load(LABELS, LABELS, risk_checkpoint)


def test_every_label_of_the_released_checkpoints_has_a_name() -> None:
    codes = json.loads((STATEMENTS / "config.json").read_text(encoding="utf-8"))["prompt_labels"]
    labels = json.loads((LABELS / "config.json").read_text(encoding="utf-8"))["label2id"]
    assert not [code for code in (*codes, *labels) if len(statement_names().get(code, "")) < 5]
