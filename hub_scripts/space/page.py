"""Renders the report of one ECG as HTML, usable by keyboard and screen reader, and holds the style of the page."""

import re
from base64 import b64encode
from html import escape
from pathlib import Path

import pandas as pd
from plain_errors import in_plain_words

from ecgdan_hf.explain.page.ecg_report import EcgReport
from ecgdan_hf.explain.page.report_pages import html_report, pdf_report
from ecgdan_hf.explain.page.report_sections import Section

STYLE = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
SIMULATED = " The risk is that of a <strong>simulated</strong> outcome."
INTRODUCTION = """
<h1>One ECG, explained</h1>
<p>Upload an ECG of 1 to 12 leads. You get the tracing, rate, intervals and axis, and what three small research
networks say of it.</p>
"""
PRIVACY = """
<p>Your file is deleted from this server as soon as it has been analysed; a rejected file after ten minutes at the
latest. Neither files nor results are stored or logged, and nothing is sent to anyone else. Upload only what your data
protection rules allow.</p>
"""
ABOUT = """
<p>One network predicts five labels, one compares the ECG with statements of reports, one predicts a risk over the
years. Blue bands behind the tracing show where a network looked; that is not why it answered, and proves no cause. The
numbers of every figure are also in a table.</p>
"""
# Adds what Gradio leaves out: names of groups and of the file field, radio buttons that form one group for the arrow
# keys, and a live region that exists before it changes.
ON_LOAD = """
() => {
  const name = (element, words) => {
    if (element && words && !element.getAttribute('aria-label')) element.setAttribute('aria-label', words.trim());
  };
  const mend = () => {
    document.querySelectorAll('fieldset').forEach(group => {
      name(group, group.querySelector('span')?.innerText);
      const radios = [...group.querySelectorAll('input[type=radio]')];
      radios.filter(radio => radio.name !== radios[0].name).forEach(radio => { radio.name = radios[0].name; });
    });
    document.querySelectorAll('#upload input[type=file]').forEach(input => name(input, 'ECG file'));
    document.querySelectorAll('#upload button.center, #upload [role=button]').forEach(button => {
      if (!button.dataset.named) {
        button.dataset.named = 'yes';
        button.setAttribute('aria-label', 'ECG file, or the header and data of a WFDB record: choose or drop');
      }
    });
  };
  document.getElementById('status')?.setAttribute('role', 'status');
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
  mend();
}
"""
TO_RESULT = """
() => {
  const result = document.getElementById('result');
  result?.focus({ preventScroll: true });
  result?.scrollIntoView({ block: 'start' });
  if (!result) document.querySelector('#status [role=alert]')?.scrollIntoView({ block: 'center' });
}
"""


def banner_html(simulated: bool) -> str:
    """Returns the banner: research use only, and that the outcome is simulated if it is."""
    words = "<strong>Research use only.</strong> Not a medical device."
    return f'<p class="banner" role="note">{words}{SIMULATED if simulated else ""}</p>'


def result_html(report: EcgReport) -> str:
    """Returns the report as one article, with headings from the second level down."""
    findings = "".join(f"<li>{escape(line)}</li>" for line in report.findings)
    parts = [
        '<article id="result" tabindex="-1" aria-labelledby="result-title">',
        f'<h2 id="result-title">{escape(report.title)}</h2>',
        f"<p>{escape(report.facts)}</p><ul class='findings'>{findings}</ul>",
    ]
    if report.notices:
        notices = "".join(f"<li>{escape(line)}</li>" for line in report.notices)
        parts.append(f'<div class="notices"><h3>What may be wrong with the recording</h3><ul>{notices}</ul></div>')
    parts += ['<div class="sections">', *map(_section, report.sections), "</div></article>"]
    return "".join(parts)


def _section(section: Section) -> str:
    title, text = escape(section.title), escape(section.text)
    if section.figure is None:
        return f'<section class="wide"><h3>{title}</h3><p>{text}</p>{_table(section.table, title)}</section>'
    width = round(section.size_mm[0] * 6)  # pixels at which the letters of the figure are readable
    wide = section.size_mm[0] > 200
    image = (
        f'<img src="data:image/png;base64,{_base64(section.figure)}" alt="{escape(section.alt)}" '
        f'style="width: {"100%" if wide else f"{width}px"}">'
    )
    if wide:
        image = f'<div class="scroll" role="region" aria-label="{title}, scrolls sideways" tabindex="0">{image}</div>'
    table = f"<details><summary>{title}: the numbers as a table</summary>{_table(section.table, title)}</details>"
    shown = f"<figure>{image}<figcaption>{text}</figcaption></figure>{table}"
    if section.folded:
        shown = f'<details class="folded"><summary>{escape(section.folded)}</summary>{shown}</details>'
    return f'<section class="{"wide" if wide else "narrow"}"><h3>{title}</h3>{shown}</section>'


def _table(table: pd.DataFrame, title: str) -> str:
    if not len(table):
        return ""
    heads = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in table.columns)
    rows = []
    for first, *others in table.astype(str).to_numpy().tolist():
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        rows.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    opening = f'<div class="scroll" role="region" aria-label="{title}, table" tabindex="0">'
    return f"{opening}<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def downloads_html(report: EcgReport) -> str:
    """Returns links that contain the files, so that none is stored on the server."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", report.title).strip("-")[:60] or "ECG"
    pdf, page = pdf_report(report), html_report(report).encode()
    links = [
        _link(f"{name}.pdf", "application/pdf", pdf, "Download the report as PDF"),
        _link(f"{name}.html", "text/html", page, "Download the report as a web page"),
    ]
    return f'<nav class="downloads" aria-label="Downloads">{"".join(links)}</nav>'


def _link(name: str, kind: str, content: bytes, words: str) -> str:
    return f'<a download="{name}" href="data:{kind};base64,{_base64(content)}">{words}</a>'


def error_html(message: str) -> str:
    """Returns the error as one line in plain words, with the program's own words behind a click."""
    said = in_plain_words(message)
    details = f"<details><summary>In detail</summary>{escape(message)}</details>" if said else ""
    shown = escape(said or message)
    return f'<div class="error" role="alert"><strong>Not analysed.</strong> {shown}{details}</div>'


def _base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")
