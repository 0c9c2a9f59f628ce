"""Rows of simulated recordings: the same for any number of processes, scaled as the input, answers beside."""

import numpy as np
import pytest
from datasets import Array2D, ClassLabel, Dataset, Features, List, Value
from model.synthetic_beats import LEADS, record

from ecgdan_hf import DanetConfig, EcgDanConfig, EcgDanFeatureExtractor
from ecgdan_hf.data.simulate.simulated_beats import in_millivolt, simulated_rows

RULE = DanetConfig().waveform_rule


def extractor(module: str = "soft", **options: object) -> EcgDanFeatureExtractor:
    options = {"lead_names": ["II", "V1"], "normalization": "per_lead_zscore", **options}
    return EcgDanFeatureExtractor(**DanetConfig(waveform_module=module, **options).signal_contract)


def recordings(fe: EcgDanFeatureExtractor, regular: int = 12, irregular: int = 3) -> Dataset:
    """Rows in millivolt; the last ones have premature wide beats, and the first lacks V1."""
    rows = []
    for number in range(regular + irregular):
        ectopics = () if number < regular else (2, 4, 7)
        signal, _ = record(rate=100, heart_rate=60 + 2 * number, ectopics=ectopics, noise_mv=0.01, seed=number)
        names = LEADS[:6] if number == 0 else LEADS
        prepared = in_millivolt(fe)(signal[: len(names)], sampling_rate=100, unit="mV", lead_names=names)
        mask = prepared["lead_mask"][0].tolist()
        rows.append({"patient_id": f"p{number}", "input_values": prepared["input_values"][0], "lead_mask": mask})
    features = {"input_values": Array2D((2, fe.num_samples), "float32"), "lead_mask": List(Value("bool"))}
    return Dataset.from_list(rows, features=Features({"patient_id": Value("string"), **features}))


@pytest.fixture(scope="module")
def source() -> Dataset:
    return recordings(extractor())


@pytest.fixture(scope="module")
def rows(source: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return simulated_rows(source, extractor(), RULE, 60, 0, 1, tmp_path_factory.mktemp("rows"))


def test_in_millivolt_is_the_same_contract_without_scale_and_rule():
    fe = extractor("hard")
    plain = in_millivolt(fe)
    assert fe.waveform_rule == RULE and plain.waveform_rule is None
    changed = {"normalization", "global_mean_mv", "global_std_mv", "waveform_rule"}
    kept = {name: value for name, value in fe.to_dict().items() if name not in changed}
    assert kept == {name: value for name, value in plain.to_dict().items() if name not in changed}
    signal, _ = record(rate=100)
    pad, heard = plain.pad_samples, {"sampling_rate": 100, "unit": "mV", "lead_names": LEADS}
    values = plain(signal, **heard)["input_values"][0, :, pad:-pad]
    np.testing.assert_allclose(values, plain.condition(signal, 100, "mV", LEADS)[0], atol=1e-6)


def test_a_median_beat_has_no_beats_to_move():
    with pytest.raises(ValueError, match="input_kind: expected 'rhythm' to move beats in, got 'median_beat'"):
        in_millivolt(EcgDanFeatureExtractor(**EcgDanConfig().signal_contract))


def test_rows_have_the_types_of_their_source_and_half_of_them_the_label(source, rows):
    assert len(rows) == 60 and rows[12]["record_id"] == "simulated-000012"
    for name in ("patient_id", "input_values", "lead_mask"):
        assert rows.features[name] == source.features[name]
    assert rows.features["labels"] == List(ClassLabel(names=["APC"])) and "waveform_weights" not in rows.features
    assert {tuple(labels) for labels in rows["labels"]} == {(), (0,)}
    assert 0.3 < np.mean([len(labels) for labels in rows["labels"]]) < 0.7


def test_known_weights_are_high_exactly_in_the_rows_with_the_label(rows):
    weights = np.array(rows["waveform_targets"])
    positive = np.array([len(labels) > 0 for labels in rows["labels"]])
    pad = extractor().pad_samples
    assert not weights[:, :pad].any() and not weights[:, -pad:].any() and (weights[:, pad:-pad] > 0).all()
    assert (weights.max(axis=1)[positive] > 0.55).all() and (weights.max(axis=1)[~positive] < 0.45).all()


def test_input_values_are_scaled_as_the_network_s_and_masked_leads_are_silent(rows):
    values, masks = np.array(rows["input_values"]), np.array(rows["lead_mask"])
    pad = extractor().pad_samples
    assert not values[:, :, :pad].any() and not values[:, :, -pad:].any()
    np.testing.assert_allclose(values[masks][:, pad:-pad].std(axis=1), 1, atol=1e-3)
    lone = np.array([patient == "p0" for patient in rows["patient_id"]])
    assert lone.any() and np.array_equal(masks[:, 1], ~lone) and not values[lone, 1].any()


def test_only_regular_recordings_are_sources(rows):
    assert set(rows["patient_id"]) <= {f"p{number}" for number in range(12)} and len(set(rows["patient_id"])) > 8


def test_two_processes_make_the_same_rows_and_another_seed_makes_others(source, rows, tmp_path):
    two = simulated_rows(source, extractor(), RULE, 60, 0, 2, tmp_path)
    assert two[:] == rows[:]
    more = simulated_rows(source, extractor(), RULE, 20, 0, 1, tmp_path)
    assert more[:] == rows[:20]
    other = simulated_rows(source, extractor(), RULE, 20, 1, 1, tmp_path)
    assert other["input_values"] != more["input_values"]


def test_rows_are_made_once_and_a_build_that_was_stopped_goes_on(source, tmp_path):
    first = simulated_rows(source, extractor(), RULE, 40, 0, 1, tmp_path)
    shards = sorted(tmp_path.glob("simulated-*/*.arrow"))
    kept = shards[0].stat().st_mtime_ns
    before = first[:]
    shards[1].unlink()
    assert simulated_rows(source, extractor(), RULE, 40, 0, 1, tmp_path)[:] == before
    assert shards[0].stat().st_mtime_ns == kept and shards[1].is_file()


def test_a_hard_module_s_rows_have_the_weights_found_in_the_simulated_signal(source, tmp_path):
    fe = extractor("hard")
    hard = simulated_rows(source, fe, fe.waveform_rule, 30, 0, 1, tmp_path)
    found, known = np.array(hard["waveform_weights"]), np.array(hard["waveform_targets"])
    assert found.shape == known.shape == (30, fe.num_samples) and 0 <= found.min() < found.max() <= 1
    positive = np.array([len(labels) > 0 for labels in hard["labels"]])
    agreement = np.corrcoef(found[positive], known[positive])[: positive.sum(), positive.sum() :]
    own, others = np.median(np.diag(agreement)), np.median(agreement)
    print(f"median correlation of found and known weights: {own:.2f}, with another row's {others:.2f}")
    assert own > 0.5 > others + 0.2


def test_the_ventricular_rule_has_its_own_label_and_about_half_of_the_rows(source, tmp_path):
    pvc = simulated_rows(source, extractor(), "pvc", 80, 0, 1, tmp_path)
    assert pvc.features["labels"].feature.names == ["PVC"]
    assert 0.3 < np.mean([len(labels) for labels in pvc["labels"]]) < 0.7


def test_what_cannot_be_simulated_is_refused_in_one_line(source, tmp_path):
    few = source.select(range(5, 15))
    with pytest.raises(ValueError, match="expected regular recordings to simulate from, at least 10, found 7 of 10"):
        simulated_rows(few, extractor(), RULE, 10, 0, 1, tmp_path)
    with pytest.raises(ValueError, match="found 0 of 0"):
        simulated_rows(source.select([]), extractor(), RULE, 10, 0, 1, tmp_path)
    with pytest.raises(ValueError, match="number: expected at least one simulated row, got 0"):
        simulated_rows(source, extractor(), RULE, 0, 0, 1, tmp_path)
    with pytest.raises(ValueError, match=r"dataset_mv: expected input_values of shape \(1, 1008\), found \(2, 1008\)"):
        simulated_rows(source, extractor(lead_names=["II"]), RULE, 10, 0, 1, tmp_path)
    with pytest.raises(ValueError, match="rule: expected one with a condition on beats"):
        simulated_rows(source, extractor(), "all-ones", 10, 0, 1, tmp_path)
