"""Model cards."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from danet_modules import LOCALISATION, compare, tables_text
from huggingface_hub import ModelCard

from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.model.modeling_ecgdan import (
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanModel,
)
from ecgdan_hf.publish.card.checks import missing_parts
from ecgdan_hf.publish.card.evaluations import Evaluation
from ecgdan_hf.publish.card.model_card import build_card

SANITY = {
    "num_records": 333,
    "change": "cosine distance of the embedding",
    "time": {
        "entropy": {"estimate": 3.1},
        "even_entropy": 4.1,
        "area_over_random": {"estimate": 0.05, "low": 0.04, "high": 0.06},
    },
}
INTERVAL = {"estimate": 0.9012, "low": 0.88, "high": 0.92}


def survival_card(checkpoint: Path) -> ModelCard:
    metrics = json.loads((checkpoint / "metrics.json").read_text(encoding="utf-8"))
    recipe = yaml.safe_load((checkpoint / "recipe.yaml").read_text(encoding="utf-8"))
    return build_card(load_checkpoint(checkpoint)[0], metrics, recipe, "ECG-DAN risk")


def result_rows(card: ModelCard) -> list[str]:
    section = card.text.split("## Results")[1].split("## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| part")]


def test_the_metadata_survive_a_round_trip_through_huggingface_hub(survival_checkpoint: Path, tmp_path: Path) -> None:
    survival_card(survival_checkpoint).save(tmp_path / "README.md")
    card = ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False)
    assert card.data.library_name == "transformers"
    assert card.data.license == "apache-2.0"
    assert card.data.language == "en"
    assert "custom_code" in card.data.tags
    result = card.data.eval_results[0]
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("concordance_index", 0.7123, "test")


def test_simulated_outcomes_are_called_simulated_beside_every_number(survival_checkpoint: Path) -> None:
    card = survival_card(survival_checkpoint)
    rows = result_rows(card)
    assert len(rows) >= 5
    assert all("simulated outcome" in row for row in rows)
    for result in card.data.eval_results:
        assert "simulated" in result.metric_name
        assert "simulated" in result.dataset_name
    assert "event: **simulated event**" in card.text
    assert "The outcomes behind this model are simulated" in card.text


def test_real_outcomes_are_not_called_simulated(survival_checkpoint: Path) -> None:
    model = load_checkpoint(survival_checkpoint)[0]
    model.config.simulated_outcome = False
    card = build_card(model, {"test": {"concordance_index": INTERVAL}}, None, "real")
    assert "simulated" not in str(card)
    assert "| test | C-index (Harrell) | 0.901 (0.880 to 0.920) |" in card.text


def test_validation_results_are_called_optimistic_and_stay_out_of_the_index(survival_checkpoint: Path) -> None:
    card = survival_card(survival_checkpoint)
    assert any("optimistic" in row and "0.746" in row for row in result_rows(card))
    assert all(result.metric_value != 0.7456 for result in card.data.eval_results)


def test_missing_results_are_listed_as_missing(survival_checkpoint: Path, classification_checkpoint: Path) -> None:
    text = survival_card(survival_checkpoint).text
    assert "Not reported: comparison with age and sex alone; comparison with a random encoder; calibration" in text
    card = build_card(load_checkpoint(classification_checkpoint)[0], None, None, "no results")
    assert "its accuracy is unknown" in card.text
    assert "Not reported: macro AUROC on test patients" in card.text
    assert card.data.eval_results is None
    assert [part.split(";")[0] for part in missing_parts(str(card))] == [
        "the training data",
        "results on records that it was not trained on",
        "results by sex and age",
    ]


def test_a_classifier_card_names_labels_thresholds_and_results_per_label(classification_checkpoint: Path) -> None:
    metrics = {
        "test": {
            "macro_auroc": INTERVAL,
            "labels_not_estimable": ["HYP"],
            "labels": {
                "MI": {"num_positives": 9, "num_negatives": 20, "auroc": INTERVAL, "f1": 0.5, "threshold": 0.3}
            },
        },
        "valid": {"not_estimable": "labels: none of 3 labels has positives and negatives"},
    }
    card = build_card(load_checkpoint(classification_checkpoint)[0], metrics, {"data": "synthetic"}, "labels")
    assert "| NORM | 0.600 |" in card.text
    assert "| HYP | 0.5 (not chosen) |" in card.text
    assert "| test | MI, AUROC | 0.901 (0.880 to 0.920) |" in card.text
    assert "| test | labels without AUROC | HYP |" in card.text
    assert "none of 3 labels" in card.text
    assert "no patient is behind them" in card.text
    assert {(result.metric_type, result.metric_name) for result in card.data.eval_results} == {
        ("roc_auc", "macro AUROC"),
        ("roc_auc", "MI, AUROC"),
        ("f1", "MI, F1 at the stored threshold"),
    }


@pytest.mark.parametrize(
    "model_class", [EcgDanModel, EcgDanForPreTraining, EcgDanForSequenceClassification, EcgDanForSurvival]
)
def test_every_model_has_a_card_with_snippets_that_parse(model_class: type, survival_checkpoint: Path) -> None:
    config = model_class.config_class(trunk_channels=[2, 2, 4, 4, 4], num_attention_heads=2, hidden_size=16)
    text = str(build_card(model_class(config), None, None, "card"))
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 3
    for snippet in snippets:
        ast.parse(snippet)
    for phrase in ("Research use only", "## Limits", "arXiv:2403.10581", "948--960", "PTB-XL", "{154}"):
        assert phrase in text
    assert "\n\n\n" not in text
    assert "{{" not in text


def test_a_card_names_its_language_and_paper_and_a_dataset_only_by_owner(survival_checkpoint: Path) -> None:
    model = load_checkpoint(survival_checkpoint)[0]
    card = build_card(model, None, {"data": "ptb-xl"}, "named")
    assert card.data.language == "en" and card.data.datasets is None and "arxiv:2403.10581" in card.data.tags
    assert "(https://arxiv.org/abs/2403.10581)" in card.text and "(https://doi.org/10.1109/TBDATA" in card.text
    named = build_card(model, None, {"data": "ptb-xl"}, "named", dataset_id="owner/ptb-xl")
    assert named.data.datasets == ["owner/ptb-xl"]


def section(text: str, heading: str) -> str:
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_further_evaluations_stand_in_the_card_with_their_controls_beside_them(pretrained_bundle: Path) -> None:
    found = section((pretrained_bundle / "README.md").read_text(encoding="utf-8"), "Results")
    for heading in ("Linear probe (`evaluation/probe.json`)", "Zero-shot (`evaluation/zero-shot.json`)"):
        assert f"### {heading}" in found
    assert "60 records; 60 patients; fold 9; the epoch was chosen on these records: optimistic" in found
    assert re.search(r"\| random encoder, linear \| 0\.\d{3} \(.* to .*\) \| \+0\.\d{3} \(", found)
    assert re.search(r"\| superclass, shuffled text \| 0\.\d{3} \| [+-]0\.\d{3} \(", found)
    assert "| superclass, prompts permuted (range) |" in found
    assert "| 1 % of the labels, this encoder, linear | 0.800 (0.780 to 0.820) |" in found
    assert "linear probe beside" not in found  # reported, so not missing


def test_only_the_model_s_own_results_enter_the_metadata(pretrained_bundle: Path) -> None:
    found = ModelCard.load(pretrained_bundle / "README.md", ignore_metadata_errors=False).data.eval_results
    names = {result.metric_name for result in found}
    assert {"Linear probe: this encoder, linear", "Zero-shot: superclass, macro AUROC"} <= names
    assert "Label efficiency, shown I, II alone: 1 % of the labels, this encoder, linear" in names
    assert not [name for name in names if "random encoder" in name or "permuted" in name or "shuffled" in name]
    assert {result.dataset_split for result in found} == {"fold 9"}
    assert len(names) == len(found)
    assert {result.metric_type for result in found} == {"roc_auc"}  # by which the Hub lists results
    assert not [name for name in names if "Deletion" in name or "area over" in name]


def test_the_paragraph_on_attention_says_what_the_deletion_test_found(pretrained_bundle: Path) -> None:
    found = section((pretrained_bundle / "README.md").read_text(encoding="utf-8"), "What the attention maps say")
    assert "entropy 2.42 of 2.48 nats (nearly even" in found
    assert "cannot be told from a random order (mean gap +0.0010, 95 % interval -0.0030 to +0.0050)" in found
    assert "must not be read as showing the leads the output depends on" in found
    assert "So the map does point at moments the output depends on" in found


def test_a_map_no_better_than_the_same_pattern_elsewhere_is_not_praised(survival_checkpoint: Path) -> None:
    time = {**SANITY["time"], "area_over_shifted": {"estimate": 0.0, "low": -0.01, "high": 0.01}}
    sanity = Evaluation("sanity", Result("sanity", {**SANITY, "time": time}))
    card = build_card(load_checkpoint(survival_checkpoint)[0], None, None, "maps", [sanity])
    found = section(card.text, "What the attention maps say")
    assert "cannot be told from deleting there" in found
    assert "does point at" not in found


def test_untested_attention_is_called_untested(survival_checkpoint: Path) -> None:
    card = survival_card(survival_checkpoint)
    assert "were not tested for this checkpoint" in section(card.text, "What the attention maps say")
    assert "test of the attention maps (`ecgdan sanity`); training time; energy and carbon" in card.text


def test_carbon_is_an_estimate_whose_assumptions_are_written_out(pretrained_bundle: Path) -> None:
    card = ModelCard.load(pretrained_bundle / "README.md")
    found = section(card.text, "Carbon and time")
    assert "60 minutes on A Processor, 1 process(es) of 2 thread(s)" in found
    assert "20 W x 3600 s = 0.02 kWh; x 475 gCO2eq/kWh = 9.5 g" in found
    emissions = card.data.to_dict()["co2_eq_emissions"]
    assert (emissions["emissions"], emissions["training_type"]) == (9.5, "pre-training")
    assert (emissions["hardware_used"], emissions["source"][:8]) == ("A Processor", "estimate")
    model = load_checkpoint(pretrained_bundle)[0]
    assert "co2_eq_emissions" not in build_card(model, {"seconds": 10}, None, "no power").data.to_dict()
    with pytest.raises(ValueError, match="power_watts, grid: expected positive numbers, got -1"):
        build_card(model, {"seconds": 10}, None, "negative power", power_watts=-1)


def test_the_card_gives_recipe_seed_folds_prompts_and_licences(pretrained_bundle: Path) -> None:
    text = (pretrained_bundle / "README.md").read_text(encoding="utf-8")
    assert "ecgdan pretrain --config recipe.yaml --data-dir ptb-xl --output-dir again" in text
    assert "Seed 7. Versions: python 3.12, torch 2.9." in text
    assert "Folds: trained on 1-8, epoch chosen on 9." in text
    assert "text embeddings of 3 labels, made with `owner/text-model` (revision `abc123`)" in text
    assert "Weights and code: Apache-2.0." in section(text, "Licence")
    assert "CC BY 4.0" in section(text, "Licence")
    assert "\n\n\n" not in text


@pytest.fixture(scope="module")
def module_results(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """DANet's modules compared, as the command leaves them: the recipe as it is, and a control with better numbers."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"record_id": [f"r{row}" for row in range(40)], "patient_id": np.arange(40) // 4})
    table["true"] = np.arange(40) % 2 == 0
    table["num_beats"] = 1.0
    table = table.assign(**{name: 0.25 + 0.125 * place for place, name in enumerate(LOCALISATION)})
    scores = {"soft": 0.3 * table["true"] + 0.7 * rng.random(40), "all-ones": 0.9 * table["true"]}
    found = compare({name: [table.assign(probability=p, positive=p > 0.5)] for name, p in scores.items()}, n=10)
    for entry in found["variants"].values():
        entry |= {"changed": "", "seeds": [0]}
    facts = {"title": "DANet's modules", "split": "cross-validation", "label": "APC", "data": "mit-bih", "folds": 5}
    metrics = facts | found | {"as_recipes": "soft"}
    folder = tmp_path_factory.mktemp("modules")
    Result("benchmark", metrics | {"report": tables_text(metrics)}).write(folder)
    return Evaluation.read(folder)


def test_what_attention_finds_by_chance_is_a_control_of_the_recipe_s_own_numbers(module_results: Evaluation) -> None:
    told = {number.path: number.is_control for number in module_results.numbers()}
    places = {(name,): name.endswith("_chance") for name in LOCALISATION}
    assert sorted(places.values()) == [False, False, True, True]
    assert {path: is_control for path, is_control in told.items() if path in places} == places
    assert told[("AUROC",)] is False and not any("all-ones" in path for path in told)


def test_no_number_found_by_chance_enters_the_metadata(
    module_results: Evaluation, classification_checkpoint: Path
) -> None:
    model = load_checkpoint(classification_checkpoint)[0]
    card = build_card(model, None, {"data": "mit-bih"}, "danet", [module_results])
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    recipe = module_results.metrics["variants"]["soft"]
    for words, name in {"AUROC": "AUROC", "highest attention on a beat of the label": "highest_on_beat"}.items():
        value = values[f"{module_results.title}: {words}"]
        assert value == pytest.approx(recipe[name]["estimate"], abs=1e-4)
    assert not [name for name in values if "chance" in name]
