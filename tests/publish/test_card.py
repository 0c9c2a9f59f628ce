"""Model cards."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from ecgdan_hf.evaluation.checkpoints import load_checkpoint
from ecgdan_hf.model.modeling_ecgdan import (
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanModel,
)
from ecgdan_hf.publish.card import build_card, eval_results

INTERVAL = {"estimate": 0.9012, "low": 0.88, "high": 0.92}


def survival_card(checkpoint: Path) -> ModelCard:
    metrics = json.loads((checkpoint / "metrics.json").read_text())
    recipe = yaml.safe_load((checkpoint / "recipe.yaml").read_text())
    return build_card(load_checkpoint(checkpoint)[0], metrics, recipe, "ECG-DAN risk")


def result_rows(card: ModelCard) -> list[str]:
    section = card.text.split("## Results")[1].split("## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| part")]


def test_the_metadata_survive_a_round_trip_through_huggingface_hub(survival_checkpoint: Path, tmp_path: Path) -> None:
    survival_card(survival_checkpoint).save(tmp_path / "README.md")
    card = ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False)
    assert card.data.library_name == "transformers"
    assert card.data.license == "apache-2.0"
    assert card.data.datasets == ["ptb-xl"]
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
    assert "event: **simulated heart failure**" in card.text
    assert "The outcomes behind this model are simulated" in card.text
    model, metrics = (
        load_checkpoint(survival_checkpoint)[0],
        json.loads((survival_checkpoint / "metrics.json").read_text()),
    )
    assert all("simulated" in entry["notes"] for entry in eval_results(model, metrics, "owner/data"))


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
    assert "nothing is known of its accuracy" in card.text
    assert "Not reported: macro AUROC on test patients" in card.text
    assert card.data.eval_results is None
    assert "Not recorded" in card.text


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
    assert {result.metric_type for result in card.data.eval_results} == {
        "macro_auroc",
        "labels_MI_auroc",
        "labels_MI_f1",
    }


@pytest.mark.parametrize(
    "model_class", [EcgDanModel, EcgDanForPreTraining, EcgDanForSequenceClassification, EcgDanForSurvival]
)
def test_every_model_has_a_card_with_snippets_that_parse(model_class: type, survival_checkpoint: Path) -> None:
    config = model_class.config_class(trunk_channels=[2, 2, 4, 4, 4], num_attention_heads=2, hidden_size=16)
    text = str(build_card(model_class(config), None, None, "card"))
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        ast.parse(snippet)
    for phrase in ("Research use only", "## Limits", "arXiv:2403.10581", "948--960", "PTB-XL", "{154}"):
        assert phrase in text
    assert "\n\n\n" not in text
    assert "{{" not in text


def test_results_in_the_hubs_own_format_parse(survival_checkpoint: Path) -> None:
    model = load_checkpoint(survival_checkpoint)[0]
    entries = parse_eval_result_entries(eval_results(model, {"test": {"concordance_index": INTERVAL}}, "owner/data"))
    assert [(entry.dataset_id, entry.task_id, entry.value) for entry in entries] == [
        ("owner/data", "concordance_index", 0.9012)
    ]
