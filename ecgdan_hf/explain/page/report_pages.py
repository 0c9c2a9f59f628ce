"""The report of one ECG as self-contained files: an HTML page, also for screen readers, and a PDF to print."""

import textwrap
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib.image
import pandas as pd
from matplotlib.backends.backend_pdf import PdfPages

from ecgdan_hf.evaluation.report.html_page import html_page
from ecgdan_hf.evaluation.report.tripod_run import escape
from ecgdan_hf.explain.page.ecg_report import EcgReport
from ecgdan_hf.explain.page.figures import A4_LANDSCAPE_MM
from ecgdan_hf.explain.page.paper import GREY, Page
from ecgdan_hf.explain.page.report_sections import Section

RESEARCH_USE = "Research use only. Not a medical device; nothing here is a diagnosis or a basis for treatment."
EDGE_MM = 12.0
LINE_MM = 3.7  # of 7.5 points


def html_report(report: EcgReport) -> str:
    """One self-contained HTML page: headings in order, figures with alternative text, every number in a table."""
    lines = [f"# {escape(report.title)}", f"> **{RESEARCH_USE}**", escape(report.facts)]
    lines.append("\n".join(f"* {escape(line)}" for line in report.findings))
    if report.notices:
        lines += ["## What may be wrong with the recording", "\n".join(f"* {escape(line)}" for line in report.notices)]
    with TemporaryDirectory() as folder:
        for number, section in enumerate(report.sections):
            lines += [f"## {escape(section.title)}", escape(section.text)]
            if section.figure is not None:
                Path(folder, f"{number}.png").write_bytes(section.figure)
                lines.append(f"![{escape(section.alt)}]({number}.png)")
            if len(section.table):
                lines.append(_markdown(section.table))
        folded = {section.title: section.folded for section in report.sections if section.folded}
        return html_page("\n\n".join(lines) + "\n", folder, folded)


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    cells = [[cell if cell == "---" else escape(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def pdf_report(report: EcgReport) -> bytes:
    """A4 landscape: the ECG at 25 mm/s when printed in full size, then the other figures, then the tables.

    What is folded away on a page to click on is on the last one.
    """
    content = BytesIO()
    about = {"Title": report.title, "Subject": RESEARCH_USE, "Creator": "ecgdan_hf"}
    with PdfPages(content, metadata=about) as pages:
        for page in (_first_page(report), _figures_page(report), _tables_page(report)):
            pages.savefig(page.figure)
    return content.getvalue()


def _page(report: EcgReport) -> Page:
    page = Page(*A4_LANDSCAPE_MM)
    _write(page, EDGE_MM, 10, report.title[:80], size=13, weight="bold")
    page.warn(EDGE_MM, 17, RESEARCH_USE, 8.5, va="top")
    return page


def _write(page: Page, left_mm: float, top_mm: float, text: str, size: float = 8.0, **style: Any) -> None:
    """Text with its upper left corner at so many millimetres from that of the page."""
    # a dollar sign in a file name would start a formula
    page.write(left_mm, top_mm, text.replace("$", r"\$"), size, va="top", **style)


def _draw(page: Page, section: Section, left_mm: float, top_mm: float) -> None:
    """The section's figure in its own size."""
    if section.figure is None:
        return
    axes = page.axes(left_mm, page.height_mm - top_mm - section.size_mm[1], *section.size_mm)
    axes.imshow(matplotlib.image.imread(BytesIO(section.figure)), aspect="auto", interpolation="none")
    axes.set_axis_off()


def _first_page(report: EcgReport) -> Page:
    page, ecg = _page(report), report.sections[0]
    lines = [report.facts, *report.findings]
    lines += [f"Note: {line}" for line in report.notices]
    wrapped = [part for line in lines for part in textwrap.wrap(line, 200)][:9]
    _write(page, EDGE_MM, 25, "\n".join(wrapped), linespacing=1.4)
    _draw(page, ecg, (page.width_mm - ecg.size_mm[0]) / 2, page.height_mm - ecg.size_mm[1] - 6)
    return page


def _figures_page(report: EcgReport) -> Page:
    """Two columns: labels over leads, risk over statements."""
    page = _page(report)
    for left, order in ((EDGE_MM, (1, 2)), (150.0, (3, 4))):
        top = 27.0
        for section in (report.sections[index] for index in order):
            if not section.folded:
                top = _draw_section(page, section, left, top)
    return page


def _draw_section(page: Page, section: Section, left: float, top: float) -> float:
    """A section with its figure, or its table where it has none; returns where the next one begins."""
    words = textwrap.wrap(section.text, 92)
    _write(page, left, top, section.title, size=10, weight="bold")
    _draw(page, section, left, top + 4)
    below = top + section.size_mm[1] + 5
    _write(page, left, below, "\n".join(words), size=7.5, color=GREY, linespacing=1.35)
    top = below + LINE_MM * len(words) + 4
    if section.figure is None:
        _write(page, left, top - 2, _as_text(section.table), size=7.5, family="monospace", linespacing=1.35)
        top += LINE_MM * (1 + len(section.table))
    return top


def _tables_page(report: EcgReport) -> Page:
    """Numbers of the figures: the ECG and the leads at the left, labels and risk at the right."""
    page = _page(report)
    for left, order in ((EDGE_MM, (0, 2)), (175.0, (1, 3))):
        top = 27.0
        for section in (report.sections[index] for index in order):
            text = _as_text(section.table)
            if section.folded:
                top = _draw_section(page, section, left, top)
            else:
                _write(page, left, top, section.title, size=9, weight="bold")
            _write(page, left, top + 5, text, size=6.5, family="monospace", linespacing=1.35)
            top += 14 + 3.2 * len(text.splitlines())
    return page


def _as_text(table: pd.DataFrame) -> str:
    return table.to_string(index=False, justify="left") if len(table) else ""
