"""Maps of random weights and of shuffled labels: a map that says nothing about what was learned is seen to say so."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from explain.checks.test_sanity import RECORDS, dataset, energy_model, labelled
from scipy.stats import spearmanr
from tiny import TINY, signals

from ecgdan_hf import (
    DanetConfig,
    DanetForSequenceClassification,
    EcgDanConfig,
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanSurvivalConfig,
)
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.explain.checks.deletion import delete
from ecgdan_hf.explain.checks.randomisation import (
    _cascade,
    _compare_maps,
    _stages,
    randomisation,
    randomised,
    rank_correlation,
)
from ecgdan_hf.explain.checks.sanity import _drawn_rows
from ecgdan_hf.explain.checks.sanity_report import (
    _map_verdict,
    _markdown,
    map_findings,
    write_sanity_report,
)
from ecgdan_hf.explain.maps.methods import methods_of
from ecgdan_hf.training.finetune import _with_shuffled_labels

DANET = {key: value for key, value in TINY.items() if not key.startswith("projection")}
SOFT = {**DANET, "waveform_module": "soft", "waveform_rule": "apc", "input_kind": "rhythm"}
NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "survival": lambda: EcgDanForSurvival(EcgDanSurvivalConfig(**TINY)),
    "labels": lambda: EcgDanForSequenceClassification(EcgDanConfig(**TINY)),
    "light": lambda: EcgDanForSequenceClassification(EcgDanConfig(**TINY, trunk="light")),
    "pretraining": lambda: EcgDanForPreTraining(EcgDanConfig(**TINY)),
    "danet, resnet": lambda: DanetForSequenceClassification(DanetConfig(**SOFT, classifier_network="resnet1d")),
    "danet, ecgdan": lambda: DanetForSequenceClassification(DanetConfig(**SOFT, classifier_network="ecgdan")),
}


def network(name: str, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[name]().eval()


def inputs(records: int = 8) -> dict[str, torch.Tensor]:
    return {"input_values": signals(records), "lead_mask": torch.ones(records, 12, dtype=torch.bool)}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_stages_hold_every_weight_once(name: str):
    model = network(name)
    found = [part for names in _stages(model).values() for part in names]
    weights = [key for key, _ in model.named_parameters()]
    for key in weights:
        assert sum(key.startswith(f"{part}.") for part in found) == 1, key
    assert next(iter(_stages(model))) == "head"


def test_weights_are_drawn_anew_from_the_head_down_and_the_model_stays_as_it_was():
    model = network("light")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    reached: set[str] = set()
    for stage, twin in _cascade(model, seed=3):
        reached |= set(_stages(model)[stage])
        for key, value in twin.named_parameters():
            drawn = key.startswith(tuple(f"{part}." for part in reached))
            constant = value.unique().numel() == 1  # norms begin at 0 and 1, trained or not
            assert constant or torch.equal(value, before[key]) != drawn, (stage, key)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    one, same, other = (randomised(model, ["classifier"], seed).classifier.output.weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_random_weights_get_norms_that_fit_them():
    model, given = network("light"), inputs(32)
    for norm in (each for each in model.modules() if isinstance(each, torch.nn.BatchNorm2d)):
        norm.running_var.fill_(1e6)  # as if of other weights
    twin = randomised(model, [part for names in _stages(model).values() for part in names], 0, [given])
    seen = {}
    twin.ecgdan.stem.norm.register_forward_hook(lambda _, args, out: seen.update(out=out))
    hidden = twin.ecgdan.stem.conv(given["input_values"].unsqueeze(1))
    torch.testing.assert_close(twin.ecgdan.stem.norm.running_mean, hidden.mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(twin.ecgdan.stem.norm.running_var, hidden.var((0, 2, 3)), atol=1e-4, rtol=1e-3)
    assert not twin.training and not any(each.training for each in twin.modules())


def test_rank_correlation_is_spearman_s_over_the_units_there_are():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 5, 12))
    one[0, 3] = np.nan
    found = rank_correlation(one, other)
    keep = np.arange(12) != 3
    assert found[0] == pytest.approx(spearmanr(one[0, keep], other[0, keep]).statistic)
    assert found[4] == pytest.approx(spearmanr(one[4], other[4]).statistic)
    assert np.isnan(rank_correlation(np.ones((1, 12)), other[:1]))[0]


def test_attention_does_not_know_the_head_and_gradients_do():
    """Random weights in the head alone leave attention as it is: the first thing the cascade has to show."""
    rows = _drawn_rows(labelled(), 20, seed=0)
    found = randomisation(network("light", seed=7), rows, {}, ["attention", "gradient"], n=20)
    attention, gradient = (found[method]["time"]["random_weights"] for method in ("attention", "gradient"))
    assert list(attention) == ["head", "pooling", "lead_attention", "time_attention", "trunk", "stem"]
    for stage in ("head", "pooling", "lead_attention"):
        assert attention[stage]["estimate"] == pytest.approx(1)
    assert attention["time_attention"]["high"] < 0.9 and gradient["head"]["high"] < 0.9
    assert attention["stem"]["num_records"] == 20 and attention["stem"]["num_patients"] <= 20


def test_a_map_that_ignores_the_weights_is_seen_to_say_nothing():
    """The energy model's map is the signal's energy, whatever its weights are."""
    rows = labelled()
    found = delete(energy_model(), rows, methods=["attention"]).summary(rows["patient_id"], n=20)
    compared = randomisation(
        energy_model(), _drawn_rows(rows, 30, seed=0), {"a lot": energy_model(lot=1)}, ["attention"], n=20
    )
    entry = found["methods"][0]
    for unit in ("leads", "time"):
        entry[unit] |= compared["attention"][unit]
        assert _map_verdict(entry[unit], unit).startswith("This map does not change when the weights are random")
        assert "it says nothing about what was learned" in _map_verdict(entry[unit], unit)
        assert abs(entry[unit]["controls"]["a lot"]["estimate"]) < 0.3
    found |= {"map_records": 30, "map_draws": 1}
    assert "it says nothing about what was learned" in _markdown(found, "energy")


def test_the_maps_of_a_network_and_of_itself_are_the_same_and_of_another_are_not():
    model, rows = network("labels"), dataset()
    others = {"itself": model, "another": network("labels", seed=5)}
    found = _compare_maps(model, rows, others, ["attention", "gradient", "occlusion"])
    for units in found.values():
        for correlations in units.values():
            np.testing.assert_allclose(correlations["itself"], 1)
            assert np.nanmean(correlations["another"]) < 0.8


def test_true_maps_of_every_method_have_areas_above_zero():
    """What adds to the energy model's logit is energy: gradients and occlusion find it, and so does their deletion."""
    model, rows = energy_model(), labelled()
    methods = ["gradient", "integrated-gradients", "occlusion"]
    found = delete(model, rows, seed=1, methods=["attention", *methods]).summary(rows["patient_id"], n=100)
    assert [each["method"] for each in found["methods"]] == ["attention", *methods]
    for each in found["methods"]:
        for unit, orders in (("leads", ("random",)), ("time", ("random", "shifted"))):
            for order in orders:
                assert each[unit][f"area_over_{order}"]["low"] > 0, (each["method"], unit, order)
            assert _map_verdict(each[unit], unit).startswith("It points at ")
    assert found["methods"][0]["time"]["area_over_shifted"] == found["time"]["area_over_shifted"]


class EnergyDanet(DanetForSequenceClassification):
    """Label A is the energy of the signal; a(t) is where the energy is."""

    def forward(self, input_values, lead_mask=None, waveform_weights=None, **kwargs):
        energy = input_values.square().mean(1)
        output = super().forward(input_values, lead_mask, waveform_weights, **kwargs)
        output.waveform_attention = energy / energy.amax(1, keepdim=True).clamp(min=1e-9)
        output.logits = torch.stack([4 * energy.mean(1) - 2, -4 * energy.mean(1) - 2], dim=1)
        return output


def test_danet_is_deleted_along_its_waveform_attention(tmp_path: Path):
    torch.manual_seed(0)
    config = {**SOFT, "classifier_network": "resnet1d", "id2label": {0: "A", 1: "B"}}
    model = EnergyDanet(DanetConfig(**config)).eval()
    assert methods_of(model) == ["waveform", "gradient", "integrated-gradients", "occlusion"]
    rows = labelled()
    found = delete(model, rows, methods=["waveform", "gradient"]).summary(rows["patient_id"], n=50)
    waveform = found["methods"][0]
    assert waveform["method"] == "waveform" and "leads" not in waveform
    assert waveform["time"]["area_over_random"]["low"] > 0 and waveform["time"]["area_over_shifted"]["low"] > 0
    assert found["change"].startswith("drop in the probability") and "time" not in found
    write_sanity_report(tmp_path, found, "danet")
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "maps.png"}
    assert "a(t)" not in (tmp_path / "report.md").read_text(encoding="utf-8") or "waveform" in (
        tmp_path / "report.md"
    ).read_text(encoding="utf-8")


def test_labels_are_dealt_to_other_records_together_and_signals_stay():
    rows = labelled()
    rows = rows.add_column("scp_codes", [json.dumps({"code": row}) for row in range(RECORDS)])
    rows = rows.add_column("row", list(range(RECORDS)))
    dealt = _with_shuffled_labels(rows, seed=0)
    assert dealt["row"] == rows["row"] and dealt["patient_id"] == rows["patient_id"]
    np.testing.assert_array_equal(
        dealt.with_format("numpy")["input_values"], rows.with_format("numpy")["input_values"]
    )
    came_from = [json.loads(code)["code"] for code in dealt["scp_codes"]]
    assert sorted(came_from) == list(range(RECORDS)) and np.mean(np.array(came_from) == np.arange(RECORDS)) < 0.2
    assert dealt["labels"] == [rows["labels"][row] for row in came_from]
    assert dealt.features["labels"] == rows.features["labels"]


def area(low: float, high: float) -> dict[str, float]:
    return {"estimate": (low + high) / 2, "low": low, "high": high}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"area_over_random": area(0.1, 0.2)}, "It points at moments the output depends on."),
        ({"area_over_random": area(-0.1, 0.2)}, "matters as a random choice"),
        ({"area_over_random": area(-0.2, -0.1)}, "points away"),
        ({"area_over_random": area(0.1, 0.2), "area_over_shifted": area(-0.1, 0.1)}, "moved elsewhere does as well"),
        ({"area_over_random": area(0.1, 0.2), "random_weights": {"stem": area(0.3, 0.6)}}, "with random weights too"),
        ({"area_over_random": area(0.1, 0.2), "random_weights": {"stem": area(0.6, 0.9)}}, "says nothing"),
        ({"area_over_random": area(0.1, 0.2), "random_weights": {"head": area(1, 1), "stem": None}}, "It points at"),
    ],
)
def test_verdicts(entry: dict, said: str):
    assert said in _map_verdict(entry, "time")


def test_the_page_says_what_was_tested_and_what_was_not(tmp_path: Path):
    assert map_findings(tmp_path, "gradient") == [
        "Not tested: ecgdan sanity has not said whether gradient maps of this network mean anything."
    ]
    older = {"change": "", "num_records": 9, "leads": {"area_over_random": area(0.1, 0.2)}}
    (tmp_path / "evaluation").mkdir()
    Result("sanity", older).write(tmp_path / "evaluation" / "a.json")
    (line,) = map_findings(tmp_path, "attention")
    assert line.startswith("Leads, 9 test records: deletion +0.150 over random, random weights not tested. It points")
    assert map_findings(tmp_path, "rollup") == map_findings(tmp_path, "attention")
    assert map_findings(tmp_path, "occlusion")[0].startswith("Not tested")
    newer = {**older, "methods": [{"method": "occlusion", "time": {"area_over_random": area(-0.2, -0.1)}}]}
    Result("sanity", newer).write(tmp_path / "evaluation" / "b.json")
    Result("benchmark", {"title": "", "report": ""}).write(tmp_path / "evaluation" / "c.json")
    assert "points away" in map_findings(tmp_path, "occlusion")[0]
