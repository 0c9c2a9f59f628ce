"""Age and sex, ridge Cox, random encoder."""

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from lifelines import CoxPHFitter

from ecgdan_hf.evaluation.comparators.baselines import (
    RidgeCox,
    random_encoder,
)
from ecgdan_hf.evaluation.comparators.comparison import age_sex_scores
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.inference.rows import embed
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival

CONVERGED = {"precision": 1e-12}  # by default lifelines stops five digits early
TINY = {"trunk_channels": [2, 2, 4, 4, 4], "num_attention_heads": 2, "hidden_size": 16, "stem_features": 2}


def followed(log_hazard: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    times = rng.exponential(20 * np.exp(-log_hazard)) + 1e-3
    return {"event": (times < 10).astype(int), "time": np.minimum(times, 10.0)}


def people(num: int, seed: int) -> pd.DataFrame:
    """Ages and sexes with a hazard of 0.6 per decade and 0.8 for men."""
    rng = np.random.default_rng(seed)
    age, male = rng.uniform(30, 90, num), rng.random(num) < 0.5
    log_hazard = 0.6 * (age - 60) / 10 + 0.8 * male - 0.4
    return pd.DataFrame({"age": age, "sex": np.where(male, "male", "female"), **followed(log_hazard, rng)})


def tabular(num: int = 300, features: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(3.0, 2.0, (num, features))
    outcome = followed(0.5 * (values[:, 0] - 3) - 0.3 * (values[:, 1] - 3), rng)
    return values, outcome["event"], np.ceil(outcome["time"])


def test_age_sex_cox_recovers_the_hazard_it_was_drawn_from() -> None:
    train, test = people(2000, 0), people(500, 1)
    predicted = age_sex_scores(train, test)
    true = 0.6 * test["age"] / 10 + 0.8 * (test["sex"] == "male")
    slope = np.polyfit(true, predicted, 1)[0]
    assert slope == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(predicted, true)[0, 1] > 0.99


def test_age_sex_cox_agrees_with_lifelines_on_tied_times() -> None:
    train, test = people(500, 0), people(100, 1)
    train["time"] = np.ceil(train["time"])
    predictors = [
        pd.DataFrame({"age": table["age"] / 10, "male": table["sex"].eq("male").astype(float)})
        for table in (train, test)
    ]
    mean, sd = predictors[0].mean(), predictors[0].std(ddof=0)  # the prior is N(0, 1) per SD
    predictors = [(each - mean) / sd for each in predictors]
    oracle = CoxPHFitter(penalizer=(len(train) - 1) / len(train) ** 2).fit(  # its SD divides by n - 1
        predictors[0].assign(time=train["time"], event=train["event"]), "time", "event", fit_options=CONVERGED
    )
    expected = oracle.predict_log_partial_hazard(predictors[1]).to_numpy()
    assert age_sex_scores(train, test) == pytest.approx(expected, abs=1e-5)


def test_age_sex_cox_scores_every_record_though_age_and_sex_are_missing() -> None:
    train, test = people(400, 0), people(50, 1)
    train.loc[:30, "age"], train.loc[20:60, "sex"] = np.nan, None
    test.loc[:5, "age"], test.loc[3:9, "sex"] = np.nan, None
    predicted = age_sex_scores(train, test)
    assert predicted.shape == (50,)
    assert np.isfinite(predicted).all()


def test_age_sex_cox_goes_on_with_age_where_all_are_men() -> None:
    train = people(300, 0).assign(sex="male")
    test = people(100, 1)
    assert np.corrcoef(age_sex_scores(train, test), test["age"])[0, 1] > 0.999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"event": 0}, "train: no event among 50 records"),
        ({"age": np.nan, "sex": None}, "expected age or sex to vary"),
        ({"time": -1.0}, "time: expected positive years"),
        ({"sex": "M"}, r"train: sex: expected male, female or nothing, got \['M'\]"),
    ],
)
def test_age_sex_cox_refuses_what_it_cannot_be_fitted_to(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        age_sex_scores(people(50, 0).assign(**change), people(5, 1))
    with pytest.raises(ValueError, match="test: expected a column age"):
        age_sex_scores(people(50, 0), people(5, 1).drop(columns="age"))


@pytest.mark.parametrize("penalizer", [0.01, 0.5])
def test_ridge_cox_agrees_with_lifelines_on_tied_times(penalizer: float) -> None:
    values, event, time = tabular()
    fitted = RidgeCox.fit(values, event, time, penalizer)
    standardised = pd.DataFrame((values - values.mean(0)) / values.std(0, ddof=1))
    table = standardised.assign(time=time, event=event)
    oracle = CoxPHFitter(penalizer=penalizer).fit(table, "time", "event", fit_options=CONVERGED)
    assert fitted.weights == pytest.approx(oracle.params_.to_numpy(), abs=1e-6)


def test_ridge_cox_orders_records_it_has_not_seen_and_ignores_constant_features() -> None:
    values, event, time = tabular(600)
    values = np.hstack([values, np.full((600, 1), 7.0)])
    fitted = RidgeCox.fit(values[:400], event[:400], time[:400])
    assert fitted.weights[-1] == 0
    assert concordance_index(event[400:], time[400:], fitted.log_hazard(values[400:])) > 0.7


def test_cross_validation_prefers_a_strong_penalty_for_noise_and_a_weak_one_for_signal() -> None:
    values, event, time = tabular(300)
    rng = np.random.default_rng(0)
    noisy = np.hstack([values, rng.normal(size=(300, 80))])
    weak = RidgeCox.cross_validated(values[:, :2], event, time, penalizers=(1e-3, 100.0))
    strong = RidgeCox.cross_validated(noisy, event, time, patient_ids=np.arange(300) // 2, penalizers=(1e-3, 0.3))
    assert (weak.penalizer, strong.penalizer) == (1e-3, 0.3)


def test_ridge_cox_refuses_no_events_bad_features_and_no_penalty() -> None:
    values, event, time = tabular(30)
    with pytest.raises(ValueError, match="no event among 30 records"):
        RidgeCox.fit(values, np.zeros(30), time)
    with pytest.raises(ValueError, match=r"features: expected finite numbers \(30 records, features\)"):
        RidgeCox.fit(values[:20], event, time)
    with pytest.raises(ValueError, match="penalizer: expected a positive number"):
        RidgeCox.fit(values, event, time, penalizer=0)
    with pytest.raises(ValueError, match="events in at least two of 5 folds, got 1"):
        RidgeCox.cross_validated(values, np.eye(30)[0], time)


def test_random_encoder_is_fixed_by_its_seed_and_leaves_the_random_state_alone() -> None:
    config = EcgDanConfig(**TINY)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = random_encoder(config, 1), random_encoder(config, 1), random_encoder(config, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.training
    assert torch.equal(first.stem.conv1.weight, second.stem.conv1.weight)
    assert not torch.equal(first.stem.conv1.weight, other.stem.conv1.weight)


def test_embeddings_come_from_the_encoder_and_do_not_depend_on_the_batches() -> None:
    config = EcgDanSurvivalConfig(**TINY)
    model = EcgDanForSurvival(config).train()
    signals, mask = torch.randn(7, 12, 608), torch.ones(7, 12, dtype=torch.bool)
    mask[2, 4:] = False
    rows = Dataset.from_dict({"input_values": signals.tolist(), "lead_mask": mask.tolist()})
    whole, parts = embed(model, rows), embed(model, rows, batch_size=3)
    assert whole.shape == (7, 16)
    assert parts == pytest.approx(whole, abs=1e-5)
    assert model.ecgdan.training
    with torch.no_grad():
        expected = model.eval()(signals, mask, return_loss=False).pooler_output.numpy()
    assert whole == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="dataset: expected at least one row, got none"):
        embed(model, rows.select([]))
