"""Definitions of the labels: complete, each with its own texts and source, the paraphrases held out."""

import re

import pandas as pd
import pytest

from ecgdan_hf.data.sources.ptbxl import codes_by_label
from ecgdan_hf.data.text.definitions import LEVELS, Definition, definitions, definitions_file
from ecgdan_hf.data.text.measured import _file, measured_sentences

ALL = [each for level in LEVELS for each in definitions(level).values()]
OWN = [each for each in ALL if each.level == "statement" or each.texts != definitions().get(each.code, each).texts]
OWN += [each for each in ALL if each.level != "statement" and each.code not in definitions()]


def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def grams(text: str, length: int = 5) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)}


def test_every_label_of_ptb_xl_is_defined_at_each_level(shared) -> None:
    statements = pd.read_csv(shared / "data/ptb-xl/scp_statements.csv", index_col=0)
    for level in LEVELS:
        assert set(definitions(level)) == set(codes_by_label(statements, level))


def test_there_are_71_statements_23_subclasses_and_5_superclasses() -> None:
    assert [len(definitions(level)) for level in LEVELS] == [71, 23, 5]
    assert all(definitions(each.level)[each.code] is each for each in ALL)
    with pytest.raises(ValueError, match="level: expected one of statement, subclass, superclass, got 'rhythm'"):
        definitions("rhythm")


def test_each_has_a_definition_three_wordings_and_a_paraphrase() -> None:
    for each in ALL:
        assert len(each.wordings) >= 3, each.code
        assert all(text.strip() == text and text for text in (*each.texts, each.paraphrase)), each.code
        assert len(words(each.definition)) >= 6, each.code
        assert not each.definition.endswith("."), each.code


def test_no_two_labels_share_a_text() -> None:
    texts = [(text, each.code) for each in OWN for text in (*each.texts, each.paraphrase)]
    seen: dict[str, str] = {}
    for text, code in texts:
        assert seen.setdefault(text.lower(), code) == code, text
    for each in ALL:
        assert len({text.lower() for text in (*each.texts, each.paraphrase)}) == len(each.texts) + 1, each.code


def test_a_paraphrase_is_no_training_text_and_shares_no_five_words_with_one() -> None:
    trained = {gram for each in ALL for text in each.texts for gram in grams(text)}
    trained |= {
        gram for sentence in measured_sentences().values() for text in sentence.wordings for gram in grams(text)
    }
    texts = {text.lower() for each in ALL for text in each.texts}
    for each in ALL:
        assert each.paraphrase.lower() not in texts, each.code
        assert not grams(each.paraphrase) & trained, each.code


def test_every_source_is_cited_and_every_citation_is_a_source() -> None:
    content = definitions_file()
    entries = [entry for level in LEVELS.values() for entry in content[level].values() if entry != "statement"]
    cited = {entry["source"] for entry in [*entries, *_file()["sentences"].values()]}
    assert cited == set(content["sources"])
    assert all(re.search(r"\((19|20)\d\d\)|SCP-ECG|folds 1-8", text) for text in content["sources"].values())


def test_what_measurements_define_is_defined_by_sentences_that_exist() -> None:
    measured: dict[str, Definition] = {code: each for code, each in definitions().items() if each.measured}
    assert {"SR", "AFIB", "STACH", "SBRAD", "SARRH", "1AVB", "IVCD", "PACE", "PVC"} <= set(measured)
    for code, each in measured.items():
        assert set(each.measured) <= set(measured_sentences()), code
    assert definitions()["SBRAD"].measured == ("rate_below_60", "p_present")
    assert not definitions()["AFLT"].measured


def test_a_class_of_one_statement_has_its_texts() -> None:
    assert definitions("subclass")["CLBBB"].texts == definitions()["CLBBB"].texts
    assert definitions("subclass")["IMI"].texts != definitions()["IMI"].texts
    assert definitions("superclass")["MI"].name == "myocardial infarction"
