"""Cox likelihood, baseline hazard and survival curves against lifelines, torchsurv and arithmetic."""

import math

import numpy as np
import pytest
import torch
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi

from ecgdan_hf.model.risk_ecgdan import baseline_hazard
from ecgdan_hf.model.survival_ecgdan import cox_loss, survival_curve


def cohort(n: int, seed: int, tied: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_hazard = torch.randn(n, generator=generator, dtype=torch.float64)
    event = (torch.rand(n, generator=generator) < 0.4).double()
    time = torch.rand(n, generator=generator, dtype=torch.float64) * 5 + 0.1
    return log_hazard, event, (time.round() + 1 if tied else time)


def loss_by_definition(log_hazard, event, time, ties):
    """The formula, subject by subject."""
    total, hazard = 0.0, log_hazard.exp()
    for t in time[event == 1].unique():
        at_risk, dead = hazard[time >= t].sum(), (time == t) & (event == 1)
        for rank in range(int(dead.sum())):
            share = rank / int(dead.sum()) if ties == "efron" else 0.0
            total += math.log(at_risk - share * hazard[dead].sum())
        total -= float(log_hazard[dead].sum())
    return total / float(event.sum())


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("tied", [False, True])
def test_cox_loss_is_the_partial_likelihood_of_its_definition(ties, tied):
    data = cohort(80, seed=1, tied=tied)
    assert cox_loss(*data, ties=ties).item() == pytest.approx(loss_by_definition(*data, ties), rel=1e-12)


def test_cox_loss_agrees_with_lifelines_efron_likelihood_on_the_rossi_data():
    rossi = load_rossi()
    fitter = CoxPHFitter().fit(rossi, "week", "arrest")
    covariates = rossi[fitter.params_.index].to_numpy(float)
    log_hazard = torch.tensor(covariates @ fitter.params_.to_numpy())
    event, time = torch.tensor(rossi["arrest"].to_numpy()), torch.tensor(rossi["week"].to_numpy(), dtype=torch.float64)
    total = -cox_loss(log_hazard, event, time).item() * event.sum().item()
    assert total == pytest.approx(fitter.log_likelihood_, abs=1e-6)


def test_cox_loss_agrees_with_torchsurv_on_ordinary_input():
    torchsurv = pytest.importorskip("torchsurv.loss.cox")
    log_hazard, event, time = cohort(60, seed=2, tied=False)
    theirs = torchsurv.neg_partial_log_likelihood(log_hazard, event.bool(), time)
    assert cox_loss(log_hazard, event, time).item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_cox_loss_ignores_a_constant_added_to_all_log_hazards_and_survives_large_ones(ties):
    log_hazard, event, time = (x.float() for x in cohort(200, seed=3, tied=True))
    reference = cox_loss(log_hazard, event, time, ties)
    assert torch.allclose(cox_loss(log_hazard + 100, event, time, ties), reference, atol=1e-4)
    assert cox_loss(log_hazard * 200, event, time, ties).isfinite()


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_gradient_of_the_cox_loss_agrees_with_finite_differences(ties):
    log_hazard, event, time = cohort(30, seed=4, tied=True)
    log_hazard.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cox_loss(x, event, time, ties), log_hazard)


def test_a_batch_without_events_gives_a_zero_that_still_has_a_gradient():
    log_hazard = torch.randn(5, requires_grad=True)
    loss = cox_loss(log_hazard, torch.zeros(5), torch.arange(1.0, 6.0))
    loss.backward()
    assert loss.item() == 0 and torch.equal(log_hazard.grad, torch.zeros(5))


def test_a_batch_of_one_event_gives_zero_and_not_nan():
    log_hazard = torch.tensor([3.0], requires_grad=True)
    loss = cox_loss(log_hazard, torch.ones(1), torch.ones(1))
    loss.backward()
    assert loss.item() == 0 and log_hazard.grad.isfinite().all()


def test_everyone_failing_at_once_with_extreme_hazards_stays_finite():
    log_hazard = torch.tensor([80.0, -80.0, 0.0], requires_grad=True)
    loss = cox_loss(log_hazard, torch.ones(3), torch.ones(3))
    loss.backward()
    assert loss.isfinite() and log_hazard.grad.isfinite().all()


def test_a_half_precision_score_is_computed_in_float32():
    log_hazard, event, time = cohort(300, seed=5, tied=False)
    assert cox_loss(log_hazard.bfloat16(), event, time).dtype == torch.float32


@pytest.mark.parametrize("arguments", [{"ties": "exact"}, {"time": torch.ones(3)}])
def test_cox_loss_refuses_what_it_cannot_compute(arguments):
    data = {"log_hazard": torch.zeros(4), "event": torch.ones(4), "time": torch.ones(4)} | arguments
    with pytest.raises(ValueError, match=r"expected"):
        cox_loss(**data)


@pytest.mark.parametrize("tied", [False, True])
def test_breslow_baseline_agrees_with_its_definition(tied):
    log_hazard, event, time = cohort(120, seed=6, tied=tied)
    times, log_cumulative, _ = baseline_hazard(log_hazard, event, time)
    expected, total = {}, 0.0
    for t in sorted(set(time[event == 1].tolist())):
        total += float(((time == t) & (event == 1)).sum() / log_hazard[time >= t].exp().sum())
        expected[t] = total
    got = dict(zip(times.tolist(), log_cumulative.exp().tolist(), strict=True))
    assert max(times.tolist()) == time.max()
    assert all(got[t] == pytest.approx(value, rel=1e-9) for t, value in expected.items())


def test_breslow_baseline_with_equal_hazards_is_the_nelson_aalen_estimate():
    event, time = torch.tensor([1, 1, 0, 1]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    _, log_cumulative, _ = baseline_hazard(torch.zeros(4), event, time)
    assert np.allclose(log_cumulative.exp(), [1 / 4, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3 + 1])


def test_breslow_baseline_refuses_a_cohort_without_events():
    with pytest.raises(ValueError, match="at least one event"):
        baseline_hazard(torch.zeros(4), torch.zeros(4), torch.ones(4))


def test_survival_starts_at_one_falls_and_is_unknown_beyond_follow_up():
    log_hazard, event, time = cohort(200, seed=7, tied=False)
    times, log_cumulative, _ = baseline_hazard(log_hazard, event, time)
    years = torch.tensor([0.0, 1.0, 3.0, time.max().item(), time.max().item() + 0.1])
    survival = survival_curve(log_hazard.float(), times, log_cumulative, years)
    assert survival.shape == (200, 5) and torch.equal(survival[:, 0], torch.ones(200))
    assert (survival[:, :4].diff(dim=1) <= 0).all() and survival[:, 4].isnan().all()


def test_a_higher_log_hazard_means_a_lower_survival():
    times, log_cumulative = torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2]).log()
    survival = survival_curve(torch.tensor([-1.0, 0.0, 1.0]), times, log_cumulative, torch.tensor([1.5]))
    assert survival[:, 0].tolist() == pytest.approx([math.exp(-0.1 * math.exp(x)) for x in (-1, 0, 1)])


def test_negative_years_are_refused():
    with pytest.raises(ValueError, match="years: expected zero or more"):
        survival_curve(torch.zeros(1), torch.ones(1), torch.zeros(1), torch.tensor([-1.0]))
