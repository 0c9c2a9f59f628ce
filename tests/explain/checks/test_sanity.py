"""Deletion curves: a map that tells the truth is told from one that does not."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from tiny import TINY

from ecgdan_hf.evaluation.measures.classification import macro_auroc
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.explain.checks.deletion import (
    _change_of,
    _deletion_ranks,
    _macro_auroc_columns,
    _mean_gap,
    _remaining_leads,
    _row_entropy,
    delete,
)
from ecgdan_hf.explain.checks.sanity import _rows_with_outcome, _truth_of
from ecgdan_hf.explain.checks.sanity_report import _markdown, _verdict, write_sanity_report
from ecgdan_hf.explain.maps.methods import _lead_importance, _time_importance
from ecgdan_hf.explain.maps.occlusion import bridge, tokens_of_samples
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.modeling_ecgdan import (
    EcgDanClassifierOutput,
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
)

RECORDS, TOKENS, STRIDE = 60, 16, 4


class EnergyModel(EcgDanForSequenceClassification):
    """Label A is the energy of the signal; attention points at where the energy is, or, with `lot`, anywhere."""

    lot: int | None = None

    def forward(self, input_values, lead_mask=None, output_attentions=False, **kwargs):
        shown = input_values * lead_mask[:, :, None]
        energy = shown.square().unflatten(2, (TOKENS, STRIDE)).mean(-1)
        total = energy.mean((1, 2))
        maps = [energy.mean(2), energy]
        if self.lot is not None:
            draw = torch.Generator().manual_seed(self.lot)
            maps = [torch.rand(part.shape, generator=draw) for part in maps]
        lead, time = (part / part.sum(-1, keepdim=True) for part in maps)
        return EcgDanClassifierOutput(
            logits=torch.stack([4 * total - 2, -4 * total - 2], dim=1),
            lead_attention=lead[:, None].expand(-1, 12, -1) if output_attentions else None,
            time_attention=time[:, :, None].expand(-1, -1, TOKENS, -1) if output_attentions else None,
        )


def energy_model(lot: int | None = None) -> EnergyModel:
    model = EnergyModel(EcgDanConfig(**TINY, id2label={0: "A", 1: "B"})).eval()
    model.lot = lot
    return model


def dataset(**columns) -> datasets.Dataset:
    """Noise whose energy differs between leads and moments, the same for no two records."""
    rng = np.random.default_rng(0)
    lead, moment = rng.gamma(0.6, size=(RECORDS, 12, 1)), np.repeat(rng.gamma(0.4, size=(RECORDS, TOKENS)), STRIDE, 1)
    values = rng.standard_normal((RECORDS, 12, 64)) * np.sqrt(3 * lead * moment[:, None])
    rows = {
        "input_values": values.astype(np.float32).tolist(),
        "lead_mask": np.ones((RECORDS, 12), bool).tolist(),
        "patient_id": [str(row // 2) for row in range(RECORDS)],
    }
    return datasets.Dataset.from_dict(rows | columns)


def labelled() -> datasets.Dataset:
    """Label A where there is much energy."""
    rows = dataset()
    energy = np.square(np.array(rows["input_values"])).mean((1, 2))
    names = [[0] if value > np.median(energy) else [1] for value in energy]
    return rows.add_column("labels", names).cast_column("labels", datasets.Sequence(datasets.ClassLabel(names="AB")))


def test_a_truthful_map_has_an_area_above_zero_for_leads_and_for_time():
    model, rows = energy_model(), labelled()
    found = delete(model, rows, seed=1).summary(rows["patient_id"], _truth_of(model, rows), n=200)
    for unit, orders in (("leads", ("random", "reverse")), ("time", ("random", "reverse", "shifted"))):
        for order in orders:
            assert found[unit][f"area_over_{order}"]["low"] > 0, (unit, order)
        assert found[unit]["performance"]["metric"] == "macro_auroc"
        assert found[unit]["curves"]["attention"][0] > found[unit]["curves"]["random"][0]
        assert found[unit]["entropy"]["estimate"] < found[unit]["even_entropy"]
    assert found["num_patients"] == RECORDS // 2


def test_maps_drawn_by_lot_are_not_told_from_random_orders():
    """Of 95 % intervals one in twenty misses zero, so no single draw is asked for."""
    rows, covered = labelled(), []
    for lot in range(6):
        curves = delete(energy_model(lot), rows, draws=5, seed=lot)
        found = curves.summary(rows["patient_id"], _truth_of(energy_model(), rows), n=100)
        areas = [
            entry["area_over_random"]
            for unit in ("leads", "time")
            for entry in (found[unit], found[unit]["performance"])
        ]
        covered += [area["low"] < 0 < area["high"] for area in areas]
    assert len(covered) == 24
    assert np.mean(covered) > 0.75
    assert "is not told apart" in _markdown(found, "by lot")


@pytest.mark.parametrize("trunk", ["paper", "light"])
@pytest.mark.parametrize("kind", [EcgDanForPreTraining, EcgDanForSurvival])
def test_every_model_and_trunk_can_be_tested(kind: type, trunk: str, tmp_path: Path):
    torch.manual_seed(0)
    survival = kind is EcgDanForSurvival
    extra = {"covariate_names": ["age"], "covariate_means": [60.0], "covariate_stds": [10.0]} if survival else {}
    model = kind((EcgDanSurvivalConfig if survival else EcgDanConfig)(**TINY, trunk=trunk, **extra))
    outcome = {"event": [row % 3 == 0 for row in range(RECORDS)], "time": [1.0 + row for row in range(RECORDS)]}
    rows = dataset(**(outcome | {"age": [40.0 + row for row in range(RECORDS)]} if survival else {}))
    found = delete(model, rows, draws=2, time_steps=4).summary(rows["patient_id"], _truth_of(model, rows), n=30)
    assert len(found["leads"]["shares"]) == 11
    assert found["time"]["shares"] == [0.25, 0.5, 0.75]
    assert found["time"]["curves"]["attention"][-1] > 0
    assert ("performance" in found["leads"]) == survival
    assert json.loads(json.dumps(found)) == found
    if survival and trunk == "light":
        write_sanity_report(tmp_path, found, "tiny")
        assert (tmp_path / "deletion.png").stat().st_size > 10_000


def test_a_network_without_attention_has_nothing_to_test():
    model = EcgDanForSurvival(EcgDanSurvivalConfig(**TINY, use_lead_attention=False, use_time_attention=False))
    with pytest.raises(ValueError, match="model: expected lead or time attention to test"):
        delete(model, dataset())
    only_time = EcgDanForSurvival(EcgDanSurvivalConfig(**TINY, use_lead_attention=False))
    assert set(delete(only_time, dataset(), draws=1, time_steps=2).curves) == {"time"}


def test_importance_is_attention_received_from_present_leads():
    maps, mask = np.zeros((1, 3, 3)), np.array([[True, True, False]])
    maps[0, 0], maps[0, 1], maps[0, 2] = (0.2, 0.8, 0), (0.4, 0.6, 0), (0, 0, 1)
    np.testing.assert_allclose(_lead_importance(maps, mask), [[0.3, 0.7, np.nan]])
    times = np.zeros((1, 3, 2, 2))
    times[0, :2], times[0, 2] = (0.1, 0.9), (1, 0)
    np.testing.assert_allclose(_time_importance(times, mask), [[0.1, 0.9]])


def test_orders_follow_attention_its_reverse_or_neither():
    rng, values = np.random.default_rng(0), np.array([[0.1, 0.6, np.nan, 0.3]])
    assert _deletion_ranks(values, "attention", rng).tolist() == [[2, 0, 3, 1]]
    assert _deletion_ranks(values, "reverse", rng).tolist() == [[0, 2, 3, 1]]
    drawn = np.concatenate([_deletion_ranks(values, "random", rng) for _ in range(400)])
    assert (drawn[:, 2] == 3).all()
    np.testing.assert_allclose(drawn[:, [0, 1, 3]].mean(axis=0), 1, atol=0.15)
    even = np.concatenate([_deletion_ranks(np.full((1, 3), 0.5), "attention", rng) for _ in range(400)])
    np.testing.assert_allclose(even.mean(axis=0), 1, atol=0.15)  # ties are ordered by chance, not by index
    with pytest.raises(ValueError, match="order: expected one of attention, reverse, random, shifted, got 'best'"):
        _deletion_ranks(values, "best", rng)


def test_a_shifted_order_is_the_attention_order_elsewhere():
    values = np.arange(6.0)[None]
    ranks = _deletion_ranks(np.repeat(values, 200, axis=0), "shifted", np.random.default_rng(0))
    steps = (ranks - _deletion_ranks(values, "attention", np.random.default_rng(0))) % 6
    assert (steps == steps[:, :1]).all()
    assert set(steps[:, 0]) == {1, 2, 3, 4, 5}


def test_the_last_lead_of_a_record_is_never_deleted():
    ranks, mask = np.array([[0, 1, 2], [1, 0, 2]]), np.array([[True, True, True], [True, True, False]])
    assert _remaining_leads(ranks, mask, 1).tolist() == [[False, True, True], [True, False, False]]
    assert _remaining_leads(ranks, mask, 3).tolist() == [[False, False, True], [True, False, False]]


def test_deleted_time_becomes_a_straight_line_and_the_rest_stays():
    values = np.array([[[1.0, 5.0, 9.0, 4.0, 8.0, 7.0]]], dtype=np.float32)
    deleted = np.array([[False, True, True, False, False, True]])
    np.testing.assert_allclose(bridge(values, deleted), [[[1, 2, 3, 4, 8, 8]]], atol=1e-6)
    np.testing.assert_array_equal(bridge(values, np.zeros_like(deleted)), values)
    assert not bridge(values, np.ones_like(deleted)).any()


def test_each_sample_belongs_to_the_token_centred_nearest_to_it():
    assert tokens_of_samples(12, 3, 4).tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_the_entropy_of_an_even_map_is_the_logarithm_and_of_a_pointed_one_zero():
    maps = np.stack([np.full((4, 4), 0.25), np.eye(4)])
    np.testing.assert_allclose(_row_entropy(maps, np.ones((2, 4), bool)), [np.log(4), 0])


def test_areas_and_changes_by_hand():
    gap = _mean_gap([[[0.4, 0.6]]], [[[0.1, 0.3]], [[0.3, 0.5]]])
    np.testing.assert_allclose(gap, [0.2])
    assert _change_of("log_hazard", [[1.0]], [[-0.5]]) == 1.5
    np.testing.assert_allclose(_change_of("embedding", [[1.0, 0.0]], [[0.0, 2.0]]), [1])
    np.testing.assert_allclose(_change_of("probability", [[0.0, -1.0]], [[np.log(1 / 3), 5.0]]), [0.25])
    assert [_verdict({"low": low, "high": high}) for low, high in ((0.1, 0.2), (-0.1, 0.1), (-0.2, -0.1))] == [
        "changes the output sooner",
        "is not told apart",
        "changes the output later",
    ]


def test_many_aurocs_at_once_are_the_same_as_one_by_one():
    rng = np.random.default_rng(0)
    labels, scores = (rng.random((50, 4)) < 0.3).astype(float), rng.integers(0, 9, (50, 6, 4)).astype(float)
    labels[:, 3] = 0  # a label without positives is left out
    expected = [macro_auroc(labels, scores[:, column]) for column in range(6)]
    np.testing.assert_allclose(_macro_auroc_columns(labels, scores), expected)
    with pytest.raises(ValueError, match="none of 1 labels has positives"):
        _macro_auroc_columns(np.zeros((5, 1)), np.zeros((5, 2, 1)))


def test_the_performance_of_a_survival_model_is_its_concordance():
    torch.manual_seed(0)
    model = EcgDanForSurvival(EcgDanSurvivalConfig(**TINY))
    event, years = [row % 2 == 0 for row in range(RECORDS)], [1.0 + row for row in range(RECORDS)]
    rows = dataset(event=event, time=years)
    curves = delete(model, rows, draws=1, time_steps=2)
    found = curves.summary(rows["patient_id"], _truth_of(model, rows), n=20)["leads"]["performance"]
    scores = curves.curves["leads"].scores["reverse"][0, :, 4, 0]
    assert found["curves"]["reverse"][4] == pytest.approx(concordance_index(event, years, scores))


def test_a_survival_model_is_judged_on_the_records_whose_follow_up_is_known(caplog):
    model = EcgDanForSurvival(EcgDanSurvivalConfig(**TINY))
    event, years = [float(row % 2) for row in range(RECORDS)], [1.0 + row for row in range(RECORDS)]
    event[3], years[3], years[8] = np.nan, np.nan, np.nan
    rows = dataset(event=event, time=years)
    kept = _rows_with_outcome(model, rows)
    assert kept["time"] == [year for year in years if np.isfinite(year) and year != 9.0]
    assert "2 of 60 records have no follow-up and are left out" in caplog.text
    assert _rows_with_outcome(energy_model(), rows) is rows
    unknown = _rows_with_outcome(model, dataset(event=[np.nan] * RECORDS, time=[np.nan] * RECORDS))
    assert len(unknown) == RECORDS and _truth_of(model, unknown) is None
