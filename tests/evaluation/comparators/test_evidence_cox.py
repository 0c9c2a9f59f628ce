"""Cox models whose penalties are averaged by evidence: likelihood, fit, and what they do with few events."""

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi

from ecgdan_hf.evaluation.comparators.evidence_cox import PRIOR_SDS, Components, CoxData, EvidenceCox, Scaling
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.model.survival_ecgdan import cox_loss


def rossi() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised features, event and week of re-arrest: 432 people, 114 events, many ties."""
    table = load_rossi()
    values = table.drop(columns=["week", "arrest"])
    scaled = (values - values.mean()) / values.std(ddof=0)
    return scaled.to_numpy(), table["arrest"].to_numpy(), table["week"].to_numpy(float)


def simulated(num: int, num_features: int, events: float, seed: int, signal: int = 5) -> tuple[np.ndarray, ...]:
    """Features, event, time and true log hazard, of which the first features tell."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, num_features))
    truth = 0.4 * features[:, :signal].sum(axis=1)
    time = rng.exponential(np.exp(-truth))
    end = np.quantile(time, events)
    return features, (time <= end).astype(int), np.minimum(time, end), truth


def test_likelihood_gradient_and_information_agree_with_automatic_differentiation_on_tied_times() -> None:
    features, event, time = rossi()
    weights = np.random.default_rng(0).normal(0, 0.3, features.shape[1])

    def log_likelihood(given: torch.Tensor) -> torch.Tensor:
        score = torch.from_numpy(features) @ given
        return -event.sum() * cox_loss(score, torch.from_numpy(event), torch.from_numpy(time))

    at = torch.tensor(weights, requires_grad=True)
    found, value = CoxData(features, event, time).likelihood(weights), log_likelihood(at)
    assert found.value == pytest.approx(value.item(), abs=1e-9)
    assert found.gradient == pytest.approx(torch.autograd.grad(value, at)[0].numpy(), abs=1e-9)
    hessian = torch.autograd.functional.hessian(log_likelihood, torch.tensor(weights))
    assert found.information == pytest.approx(-hessian.numpy(), abs=1e-9)


def test_sums_in_chunks_are_the_sums_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    features, event, time = rossi()
    weights = np.full(features.shape[1], 0.1)
    whole = CoxData(features, event, time).likelihood(weights)
    monkeypatch.setattr("ecgdan_hf.evaluation.comparators.evidence_cox._CHUNK", 17)
    parts = CoxData(features, event, time).likelihood(weights)
    assert parts.value == pytest.approx(whole.value, abs=1e-10)
    assert parts.gradient == pytest.approx(whole.gradient, abs=1e-10)
    assert parts.information == pytest.approx(whole.information, abs=1e-9)


def test_weights_and_standard_errors_of_one_penalty_are_those_of_lifelines() -> None:
    features, event, time = rossi()
    width = features.shape[1]
    fitted = EvidenceCox.fit(features, event, time, prior_sds=[0.4])
    table = pd.DataFrame(features).assign(time=time, event=event)
    size = len(table)
    penalizer = width / 0.4**2 * (size - 1) / size**2  # the block's variance is 1; lifelines' SD divides by n - 1
    oracle = CoxPHFitter(penalizer=penalizer).fit(table, "time", "event", fit_options={"precision": 1e-12})
    assert fitted.per_sd == pytest.approx(oracle.params_.to_numpy(), abs=5e-6)
    errors = np.sqrt(np.diag(fitted.covariance) / width)
    assert errors == pytest.approx(oracle.standard_errors_.to_numpy(), rel=1e-4)


def test_the_order_of_records_changes_nothing() -> None:
    features, event, time = rossi()
    order = np.random.default_rng(1).permutation(len(event))
    one, other = EvidenceCox.fit(features, event, time), EvidenceCox.fit(features[order], event[order], time[order])
    assert other.weights == pytest.approx(one.weights, abs=1e-7)
    assert other.shares == pytest.approx(one.shares, abs=1e-7)


def test_noise_is_shrunk_and_signal_is_kept() -> None:
    features, event, time, _ = simulated(1000, 40, 0.3, seed=0)
    noise = np.random.default_rng(9).normal(size=features.shape)
    mean_sd = [EvidenceCox.fit(values, event, time).shares @ np.array(PRIOR_SDS) for values in (noise, features)]
    assert mean_sd[0] < 0.25 and 0.5 < mean_sd[1] < 1.5


def test_evidence_beats_a_small_fixed_penalty_where_events_are_few() -> None:
    gains = []
    for seed in range(5):
        features, event, time, truth = simulated(600, 40, 0.05, seed)
        shown = slice(0, 300)
        given = features[shown], event[shown], time[shown]
        scores = [EvidenceCox.fit(*given, prior_sds=sds).log_hazard(features[300:]) for sds in (PRIOR_SDS, [20.0])]
        far = np.ones(300), np.exp(-truth[300:])  # ranked by the true hazard
        gains.append(concordance_index(*far, scores[0]) - concordance_index(*far, scores[1]))
    assert np.mean(gains) > 0.03


def test_a_free_covariate_is_hardly_shrunk_while_its_block_is() -> None:
    features, event, time, _ = simulated(2000, 30, 0.2, seed=3, signal=1)
    fitted = EvidenceCox.fit(features, event, time, free=1)
    alone = EvidenceCox.fit(features[:, :1], event, time, free=1)
    assert fitted.per_sd[0] == pytest.approx(0.4, abs=0.08)
    assert fitted.per_sd[0] == pytest.approx(alone.per_sd[0], abs=0.03)
    assert np.abs(fitted.per_sd[1:]).max() < 0.1


def test_standardisation_is_learned_without_outcome_and_gives_the_block_a_variance_of_one() -> None:
    features = np.random.default_rng(0).normal(5.0, 3.0, (400, 12))
    features[:, 7] = 2.0  # does not vary
    scaled = Scaling.of(features, free=2)(features)
    assert scaled[:, :2].std(axis=0) == pytest.approx([1, 1])
    assert scaled[:, 2:].var(axis=0).sum() == pytest.approx(1.0)
    assert not scaled[:, 7].any()


def test_principal_components_hold_the_variance_in_order() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 20)) + rng.normal(0, 0.01, (300, 20)) + 3
    found = Components.of(embeddings, count=5)
    variance = found(embeddings).var(axis=0)
    assert (np.diff(variance) < 0).all()
    assert variance.sum() > 0.999 * embeddings.var(axis=0).sum()
    assert Components.of(embeddings[:4]).directions.shape == (20, 3)


def test_what_cannot_be_fitted_is_refused() -> None:
    features, event, time = rossi()
    with pytest.raises(ValueError, match="event: no event among 432 records"):
        EvidenceCox.fit(features, 0 * event, time)
    with pytest.raises(ValueError, match="features: expected finite numbers"):
        EvidenceCox.fit(np.where(features > 2, np.nan, features), event, time)
    with pytest.raises(ValueError, match="prior_sds: expected positive numbers"):
        EvidenceCox.fit(features, event, time, prior_sds=[0.0])
