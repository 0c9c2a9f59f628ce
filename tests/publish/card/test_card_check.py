"""A card that says too little, or that the Hub would refuse, is not published."""

import logging
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from ecgdan_hf.publish.card.checks import MISSING_KEY, SECTIONS, check_card, metadata_problems, missing_parts
from ecgdan_hf.publish.push import push_bundle

CARDS = Path(__file__).parents[3] / "model_cards"
FOLDERS = sorted(folder for folder in CARDS.iterdir() if folder.is_dir())


def released() -> str:
    return (CARDS / "ecg-dan-rhythm-superclasses" / "README.md").read_text(encoding="utf-8")


def with_metadata(**changed: object) -> str:
    """A released card with other metadata; None takes an entry out."""
    _, block, text = released().split("---\n", 2)
    data = {**yaml.safe_load(block), **{name.replace("model_index", "model-index"): v for name, v in changed.items()}}
    kept = {name: value for name, value in data.items() if value is not None}
    return f"---\n{yaml.safe_dump(kept)}---\n{text}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_released_card_may_be_published(folder: Path) -> None:
    check_card(folder)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_card_without_one_of_its_parts_is_refused_and_the_part_is_named(name: str, tmp_path: Path) -> None:
    card = released()
    start = card.index(f"\n## {name}\n") + 1
    end = card.find("\n## ", start)
    empty = card[:start] + f"## {name}\n" + card[end if end > 0 else len(card) :]
    (tmp_path / "README.md").write_text(empty, encoding="utf-8")
    with pytest.raises(ValueError, match=f"README.md: cannot be published; it lacks the part '{name}'. Fill in"):
        check_card(tmp_path)


def test_title_and_research_use_are_required() -> None:
    assert missing_parts(released()) == []
    assert missing_parts(released().replace("# ecg-dan-rhythm-superclasses\n", "")) == ["a title"]
    assert missing_parts(released().replace("Research use only", "Use it")) == ["the words 'Research use only'"]


def test_what_nothing_was_given_for_is_refused_in_one_line_with_what_makes_it(
    classification_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"by sex and age.*--private") as caught:
        check_card(classification_bundle)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(
        f"{classification_bundle / 'README.md'}: cannot be published; it lacks "
    )
    for command in ("ecgdan bundle --training-data TEXT", "`ecgdan evaluate`", "--results"):
        assert command in said
    with caplog.at_level(logging.WARNING):
        check_card(classification_bundle, private=True)
    assert "results by sex and age" in caplog.text
    card = ModelCard.load(classification_bundle / "README.md")
    card.data.pop(MISSING_KEY)
    card.save(tmp_path / "README.md")
    check_card(tmp_path)


def test_missing_parts_are_those_the_builder_listed_whatever_the_text_says(classification_bundle: Path) -> None:
    card = (classification_bundle / "README.md").read_text(encoding="utf-8")
    found = missing_parts(card)
    assert found == yaml.safe_load(card.split("---\n")[1])[MISSING_KEY] and len(found) >= 2
    assert missing_parts(card + "\n**Missing:** a word that a reader wrote.\n") == found
    for part in found:
        assert f"**Missing:** {part}.\n" in card and "recipe.yaml" not in part


def test_an_unfinished_bundle_is_not_pushed(classification_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.setattr("ecgdan_hf.publish.push._upload", lambda *given: pytest.fail("uploaded"))
    with pytest.raises(ValueError, match="cannot be published; it lacks"):
        push_bundle(classification_bundle, "user/beats")


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a model card, found none"):
        check_card(tmp_path)


RESULT = {
    "task": {"type": "t"},
    "dataset": {"type": "ptb-xl", "name": "PTB-XL"},
    "metrics": [{"type": "f1", "value": 1}],
}


def index(**changed: object) -> list[dict[str, object]]:
    return [{"name": "model", "results": [{**RESULT, **changed}]}]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"license": "Apache 2.0"}, "license: expected one of the Hub's identifiers"),
        ({"license": "other"}, "license_name: expected a name"),
        ({"pipeline_tag": "ecg-classification"}, "pipeline_tag: expected one of the Hub's tasks"),
        ({"pipeline_tag": None}, "pipeline_tag: expected one of the Hub's tasks, got None"),
        ({"library_name": None}, "library_name: expected text"),
        ({"datasets": ["PTB XL"]}, r"datasets\[0\]: expected an id OWNER/NAME"),
        ({"datasets": ["ptb-xl"]}, r"datasets\[0\]: expected an id OWNER/NAME"),
        ({"datasets": "owner/ptb-xl"}, "datasets: expected a list"),
        ({"tags": ["ecg", None]}, r"tags\[1\]: expected text"),
        ({"language": ["English"]}, r"language\[0\]: expected an ISO 639 code"),
        ({"base_model": "../ecg-dan"}, "base_model: expected an id"),
        ({"base_model": "owner/name", "base_model_relation": "child"}, "base_model_relation: expected one of"),
        ({"base_model_relation": "finetune"}, "base_model: expected a model with base_model_relation"),
        ({"co2_eq_emissions": {"emissions": "little"}}, "co2_eq_emissions: emissions: expected grams"),
        (
            {"model_index": index(dataset={"type": "MIT BIH", "name": "MIT"})},
            r"results\[0\]: dataset.type: expected an id",
        ),
        ({"model_index": index(metrics=[{"type": "f1", "value": float("nan")}])}, "metrics: f1: expected a value"),
        ({"model_index": index(metrics=[{"type": "macro AUROC", "value": 1}])}, "type: expected the id of a metric"),
        ({"model_index": index(dataset=None)}, "metadata: not readable"),
    ],
)
def test_metadata_that_the_hub_would_refuse_are_found(changed: dict[str, object], problem: str) -> None:
    found = metadata_problems(with_metadata(**changed))
    assert len(found) == 1
    with pytest.raises(ValueError, match=problem):
        raise ValueError(found[0])


def test_good_metadata_have_no_problem_and_a_card_without_any_has_one() -> None:
    assert metadata_problems(with_metadata(base_model="owner/ecg-dan", base_model_relation="finetune")) == []
    assert metadata_problems(with_metadata(model_index=index(), language="en")) == []
    assert metadata_problems("# a card\n") == ["metadata: expected a YAML block at the top, found none"]
    assert metadata_problems("---\nlicense: [\n---\n")[0].startswith("metadata: not readable")


def test_a_bundle_says_what_its_maker_says_of_it_and_keeps_the_evaluations_it_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecgdan_hf.publish import bundle as module

    monkeypatch.setattr(module, "verify_bundle", lambda folder: 0.0)  # what the card says is looked at here
    source = shutil.copytree(CARDS / "ecg-dan-rhythm-superclasses", tmp_path / "source")
    said = {"contact": "ecg@example.org", "training_data": "Ours, 2020 to 2024", "base_model": "owner/ecg-dan-rhythm"}
    card = (module.make_bundle(source, tmp_path / "out", **said) / "README.md").read_text(encoding="utf-8")
    assert "observed harm: ecg@example.org." in card and "\nOurs, 2020 to 2024." in card
    data = yaml.safe_load(card.split("---\n")[1])
    assert (data["base_model"], data["base_model_relation"]) == ("owner/ecg-dan-rhythm", "finetune")
    assert "Held-out evaluation (`evaluation/held-out.json`)" in card and "| sex: female | 149 | 143 |" in card
