"""Baselines with limits, recalibration and competing causes against other packages, formulas and simulation.

| claim | judged by |
|---|---|
| Breslow limits where hazards are equal | lifelines `NelsonAalenFitter.confidence_interval_` |
| Kalbfleisch-Prentice where hazards are equal | lifelines `KaplanMeierFitter` and its Greenwood limits |
| Kalbfleisch-Prentice in general | its equation, solved time by time by scipy |
| slope and its standard error | lifelines `CoxPHFitter` on the log hazard |
| Aalen-Johansen, variance, limits | lifelines `AalenJohansenFitter`, scikit-survival |
| coverage of the limits | simulation |
"""

import math

import numpy as np
import pytest
import torch
from lifelines import AalenJohansenFitter, CoxPHFitter, KaplanMeierFitter, NelsonAalenFitter
from lifelines.datasets import load_gbsg2
from scipy.optimize import brentq

from ecgdan_hf.model.risk_ecgdan import (
    Baseline,
    aalen_johansen,
    absolute_risk,
    baseline_hazard,
    competing_risk,
    cumulative_incidence,
    recalibrate,
)
from ecgdan_hf.model.survival_ecgdan import survival_curve

ESTIMATORS = ["breslow", "kalbfleisch-prentice"]


def cohort(n: int, seed: int, tied: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    time = torch.rand(n, generator=generator, dtype=torch.float64) * 5 + 0.1
    return {
        "log_hazard": torch.randn(n, generator=generator, dtype=torch.float64),
        "event": (torch.rand(n, generator=generator) < 0.5).double(),
        "time": time.mul(4).ceil() if tied else time,
    }


def causes_of(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("entered", [False, True])
def test_breslow_risk_and_limits_with_equal_hazards_are_those_of_nelson_and_aalen(entered):
    data = cohort(150, seed=1)
    event, time, entry = data["event"], data["time"], data["time"] / 3
    late = {"entry": entry} if entered else {}
    baseline = baseline_hazard(torch.zeros(150), event, time, **late)
    # without ties the smooth variance is the sum of 1 / n^2; the other one is a binomial's
    fitter = NelsonAalenFitter(nelson_aalen_smoothing=True)
    fitter.fit(time.numpy(), event.numpy(), entry=entry.numpy() if entered else None)
    years = baseline.times
    risk = absolute_risk(torch.zeros(1, dtype=torch.float64), baseline, years)
    assert risk.risk[0].numpy() == pytest.approx(
        1 - np.exp(-fitter.cumulative_hazard_.loc[years.numpy()].to_numpy()[:, 0]), abs=1e-9
    )
    limits = 1 - np.exp(-fitter.confidence_interval_.loc[years.numpy()].to_numpy())
    assert torch.cat([risk.low, risk.high]).T.numpy() == pytest.approx(limits, abs=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_kalbfleisch_prentice_with_equal_hazards_is_kaplan_meier_with_greenwood_limits(tied):
    data = cohort(150, seed=2, tied=tied)
    data["event"][data["time"] == data["time"].max()] = 0
    baseline = baseline_hazard(torch.zeros(150), data["event"], data["time"], "kalbfleisch-prentice")
    fitter = KaplanMeierFitter().fit(data["time"].numpy(), data["event"].numpy())
    risk = absolute_risk(torch.zeros(1, dtype=torch.float64), baseline, baseline.times)
    theirs = fitter.survival_function_.join(fitter.confidence_interval_).loc[baseline.times.numpy()].to_numpy()
    ours = 1 - torch.stack([risk.risk[0], risk.high[0], risk.low[0]], dim=1)
    assert ours.numpy() == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_kalbfleisch_prentice_solves_its_equation_at_every_time(scale, tied):
    data = cohort(100, seed=3, tied=tied)
    weights = 1.0 + torch.arange(100, dtype=torch.float64) % 3
    entry = data["time"] * 0.4
    log_hazard, event, time = data["log_hazard"] * scale, data["event"], data["time"]
    event[time == time.max()] = 0
    keywords = {"weights": weights, "entry": entry}
    baseline = baseline_hazard(log_hazard, event, time, "kalbfleisch-prentice", **keywords)
    hazard, total = log_hazard.exp(), 0.0
    got = dict(zip(baseline.times.tolist(), baseline.log_cumulative_hazard.exp().tolist(), strict=True))
    for t in time[event == 1].unique().tolist():
        dead, at_risk = (time == t) & (event == 1), (entry < t) & (time >= t)
        mass, dead_hazard = (weights * hazard)[at_risk].sum().item(), hazard[dead].numpy()
        dead_weight = weights[dead].numpy()

        def excess(u, h=dead_hazard, w=dead_weight, mass=mass):
            return (w * h / -np.expm1(-u * h)).sum() - mass

        total += brentq(excess, 1e-9, 1e6, xtol=1e-16, rtol=1e-14)
        assert got[t] == pytest.approx(total, rel=1e-8)


def test_kalbfleisch_prentice_is_infinite_where_everyone_left_has_the_event():
    baseline = baseline_hazard(torch.zeros(3), torch.ones(3), torch.tensor([1.0, 2.0, 2.0]), "kalbfleisch-prentice")
    assert baseline.log_cumulative_hazard.exp().tolist() == pytest.approx([-np.log(2 / 3), np.inf])
    risk = absolute_risk(torch.tensor([0.5]), baseline, torch.tensor([2.0]))
    assert risk.risk.item() == 1 and risk.low.isnan().all() and risk.high.isnan().all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("constant", [-500.0, 500.0])
def test_a_constant_added_to_all_log_hazards_leaves_risk_and_limits_alone(constant, estimator):
    data = cohort(200, seed=4, tied=True)
    log_hazard, event, time = data.values()
    years = torch.tensor([1.0, 9.0, 15.0])
    plain = absolute_risk(log_hazard, baseline_hazard(log_hazard, event, time, estimator), years)
    shifted = absolute_risk(
        log_hazard + constant, baseline_hazard(log_hazard + constant, event, time, estimator), years
    )
    for one, other in zip(plain, shifted, strict=True):
        assert torch.allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_subject_of_weight_two_is_that_subject_twice(estimator):
    log_hazard, event, time = cohort(80, seed=5, tied=True).values()
    copies = 1 + torch.arange(80) % 3
    weighted = baseline_hazard(log_hazard, event, time, estimator, weights=copies)
    twice = baseline_hazard(*(x.repeat_interleave(copies) for x in (log_hazard, event, time)), estimator)
    for one, other in zip(weighted, twice, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, equal_nan=True)


def test_risk_is_one_minus_the_survival_curve_and_tiny_risks_keep_their_digits():
    log_hazard, event, time = cohort(120, seed=6).values()
    baseline, years = baseline_hazard(log_hazard, event, time), torch.tensor([0.0, 0.05, 1.0, 3.0, 5.0, 6.0])
    risk = absolute_risk(log_hazard, baseline, years)
    assert torch.allclose(1 - risk.risk, survival_curve(log_hazard, *baseline[:2], years), equal_nan=True)
    assert (risk.low[:, 2:5] < risk.risk[:, 2:5]).all() and (risk.risk[:, 2:5] < risk.high[:, 2:5]).all()
    assert (torch.stack(risk)[..., 0] == 0).all() and torch.stack(risk)[..., 5].isnan().all()
    tiny = absolute_risk(torch.tensor([-25.0]), baseline, years[3:4])
    hazard = survival_curve(torch.zeros(1, dtype=torch.float64), *baseline[:2], years[3:4]).log().item()
    assert tiny.risk.item() == pytest.approx(-hazard * np.exp(-25), rel=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_limits_cover_the_true_risk_as_often_as_they_say(estimator):
    """300 cohorts of 80 with a known hazard of 0.2 e^eta a year, censored within six years: 95 % and 80 %."""
    generator, covered = torch.Generator().manual_seed(0), {0.95: 0, 0.8: 0}
    for _ in range(300):
        log_hazard = torch.randn(80, generator=generator, dtype=torch.float64)
        event_time = torch.empty(80, dtype=torch.float64).exponential_(generator=generator) / (0.2 * log_hazard.exp())
        censored = 3 + 3 * torch.rand(80, generator=generator, dtype=torch.float64)
        baseline = baseline_hazard(log_hazard, event_time <= censored, torch.minimum(event_time, censored), estimator)
        for level in covered:
            risk = absolute_risk(torch.tensor([0.3]), baseline, torch.tensor([2.0]), level)
            covered[level] += bool(risk.low < 1 - np.exp(-0.2 * np.exp(0.3) * 2) < risk.high)
    assert covered[0.95] / 300 == pytest.approx(0.95, abs=0.035)  # 2.8 standard errors
    assert covered[0.8] / 300 == pytest.approx(0.8, abs=0.065)


def gbsg2_scores() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    table = load_gbsg2()
    score = 0.02 * table["tsize"] + 0.1 * table["pnodes"] - 0.01 * table["age"]
    return tuple(torch.tensor(column.to_numpy(float)) for column in (score, table["cens"], table["time"] / 365.25))


@pytest.mark.parametrize("entered", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_slope_and_its_standard_error_are_those_of_a_cox_model_on_the_log_hazard(weighted, entered):
    import pandas as pd

    score, event, time = gbsg2_scores()
    keywords = {}
    if weighted:
        keywords["weights"] = 1.0 + torch.arange(len(time), dtype=torch.float64) % 2
    if entered:
        keywords["entry"] = time * 0.3
    table = pd.DataFrame({"score": score, "event": event, "time": time} | keywords)
    columns = {"weights_col": "weights"} if weighted else {}
    columns |= {"entry_col": "entry"} if entered else {}
    fitter = CoxPHFitter().fit(table, "time", "event", fit_options={"precision": 1e-12}, **columns)
    result = recalibrate(score, event, time, "slope", **keywords)
    assert result.slope == pytest.approx(fitter.params_["score"], abs=1e-6)
    assert result.slope_standard_error == pytest.approx(fitter.standard_errors_["score"], abs=1e-6)
    expected = baseline_hazard(result.slope * score, event, time, **keywords)
    assert torch.equal(result.baseline.log_cumulative_hazard, expected.log_cumulative_hazard)


def test_the_baseline_method_keeps_the_log_hazards():
    score, event, time = gbsg2_scores()
    result = recalibrate(score, event, time, estimator="kalbfleisch-prentice")
    assert (result.slope, result.slope_standard_error) == (1.0, 0.0)
    expected = baseline_hazard(score, event, time, "kalbfleisch-prentice")
    assert torch.equal(result.baseline.log_cumulative_hazard, expected.log_cumulative_hazard)


def test_recalibration_recovers_the_slope_and_the_risk_of_a_new_population():
    generator = torch.Generator().manual_seed(3)
    score = 5 + 2 * torch.randn(20_000, generator=generator)
    hazard = 0.05 * torch.exp(0.5 * (score - 5))
    event_time = torch.empty(20_000).exponential_(generator=generator) / hazard
    with torch.no_grad():
        result = recalibrate(score, event_time <= 8, event_time.clamp(max=8), "slope")
    assert result.slope == pytest.approx(0.5, abs=3 * result.slope_standard_error)
    assert result.slope_standard_error < 0.02
    risk = absolute_risk(result.slope * score[:50], result.baseline, torch.tensor([5.0]))
    assert torch.allclose(risk.risk[:, 0], -torch.expm1(-5 * hazard[:50]), atol=0.02)


def test_a_slope_that_does_not_exist_is_refused():
    time = torch.arange(1.0, 9.0)
    with pytest.raises(ValueError, match="log_hazard: expected values that differ to fit a slope"):
        recalibrate(torch.full((8,), 0.3), torch.ones(8), time, "slope")
    for sign in (1, -1):
        with pytest.raises(ValueError, match="log_hazard: expected a finite best slope, found none"):
            recalibrate(sign * time, torch.ones(8), time, "slope")


@pytest.mark.parametrize("entered", [False, True])
def test_aalen_johansen_agrees_with_lifelines_in_estimate_variance_and_limits(entered):
    cause, time = causes_of(200, seed=7), cohort(200, seed=7)["time"]
    late = {"entry": time * 0.2} if entered else {}
    cause[time == time.max()] = 0
    estimate = aalen_johansen(cause, time, **late)
    for which in (1, 2):
        fitter = AalenJohansenFitter().fit(
            time.numpy(), cause.numpy(), which, entry=late["entry"].numpy() if entered else None
        )
        chosen = estimate.incidence[which - 1] > 0
        times = estimate.times[chosen].numpy()
        theirs = fitter.cumulative_density_.iloc[:, 0].loc[times].to_numpy()
        assert estimate.incidence[which - 1, chosen].numpy() == pytest.approx(theirs, abs=1e-9)
        variance = estimate.standard_error[which - 1, chosen].numpy() ** 2
        assert variance == pytest.approx(fitter.variance_.loc[times].to_numpy(), abs=1e-9)
        limits = estimate.at(estimate.times[chosen])
        ours = torch.stack([limits.low[which - 1], limits.high[which - 1]], dim=1).numpy()
        assert np.sort(ours) == pytest.approx(np.sort(fitter.confidence_interval_.loc[times].to_numpy()), abs=1e-6)
        assert (limits.low[which - 1] < limits.risk[which - 1]).all()


def test_aalen_johansen_with_ties_agrees_with_scikit_survival():
    sksurv = pytest.importorskip("sksurv.nonparametric")
    cause, time = causes_of(300, seed=8), cohort(300, seed=8, tied=True)["time"]
    cause[time == time.max()] = 0
    estimate = aalen_johansen(cause, time)
    times, theirs = sksurv.cumulative_incidence_competing_risks(cause.numpy(), time.numpy())
    ours = estimate.at(torch.tensor(times)).risk
    assert ours.numpy() == pytest.approx(theirs[1:], abs=1e-9)
    survival = KaplanMeierFitter().fit(time.numpy(), cause.numpy() > 0).survival_function_at_times(times)
    assert ours.sum(dim=0).numpy() == pytest.approx(1 - survival.to_numpy(), abs=1e-9)


def test_aalen_johansen_with_one_cause_is_one_minus_kaplan_meier_with_greenwoods_error():
    _, event, time = cohort(100, seed=9, tied=True).values()
    event[time == time.max()] = 0
    estimate = aalen_johansen(event, time)
    fitter = KaplanMeierFitter().fit(time.numpy(), event.numpy())
    theirs = 1 - fitter.survival_function_at_times(estimate.times.numpy()).to_numpy()
    assert estimate.incidence[0].numpy() == pytest.approx(theirs, abs=1e-12)
    n, d = (fitter.event_table[name].loc[estimate.times.numpy()].to_numpy() for name in ("at_risk", "observed"))
    greenwood = (1 - theirs) * np.sqrt(np.cumsum(d / (n * (n - d))))
    assert estimate.standard_error[0].numpy() == pytest.approx(greenwood, abs=1e-12)


def test_aalen_johansen_counts_a_subject_of_weight_two_twice():
    cause, time = causes_of(90, seed=10), cohort(90, seed=10, tied=True)["time"]
    copies = torch.arange(90) % 3
    weighted = aalen_johansen(cause, time, weights=copies)
    twice = aalen_johansen(cause.repeat_interleave(copies), time.repeat_interleave(copies))
    for one, other in zip(weighted, twice, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_aalen_johansen_ends_with_everyone_accounted_for():
    estimate = aalen_johansen(torch.tensor([1, 2, 1]), torch.tensor([1.0, 2.0, 3.0]))
    assert estimate.incidence[:, -1].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert estimate.standard_error.isfinite().all()
    at = estimate.at(torch.tensor([0.5, 3.5]))
    assert at.risk[:, 0].tolist() == [0, 0] and at.low[:, 0].tolist() == [0, 0] and at.high[:, 1].isnan().all()


def cause_specific_baselines(log_hazards, cause, time, estimator="breslow"):
    columns = range(log_hazards.shape[1])
    return [baseline_hazard(log_hazards[:, c], cause == c + 1, time, estimator) for c in columns]


def test_cumulative_incidence_with_equal_hazards_is_the_aalen_johansen_estimate():
    cause, time = causes_of(150, seed=11), cohort(150, seed=11)["time"]
    zeros = torch.zeros(150, 2, dtype=torch.float64)
    baselines = cause_specific_baselines(zeros, cause, time, "kalbfleisch-prentice")
    years = torch.tensor([0.0, 0.5, 2.0, 4.0, 5.0, 9.0])
    ours = cumulative_incidence(zeros[:2], baselines, years)
    theirs = aalen_johansen(cause, time).at(years).risk
    assert torch.allclose(ours, theirs.expand(2, 2, 6), atol=1e-10, equal_nan=True)
    assert ours[..., 5].isnan().all()


def test_cumulative_incidences_and_survival_add_up_to_one():
    generator = torch.Generator().manual_seed(12)
    cause, time = causes_of(200, seed=12), cohort(200, seed=12, tied=True)["time"]
    log_hazards = torch.randn(200, 2, generator=generator, dtype=torch.float64) * 3
    baselines, years = cause_specific_baselines(log_hazards, cause, time), torch.tensor([1.0, 5.0, 12.0])
    incidence = cumulative_incidence(log_hazards, baselines, years)
    survival = torch.stack(
        [survival_curve(log_hazards[:, c], *baseline[:2], years) for c, baseline in enumerate(baselines)]
    ).prod(dim=0)
    assert torch.allclose(incidence.sum(dim=1) + survival, torch.ones(200, 3, dtype=torch.float64), atol=1e-12)


def test_cumulative_incidence_of_one_cause_is_the_absolute_risk():
    log_hazard, event, time = cohort(100, seed=13).values()
    baseline, years = baseline_hazard(log_hazard, event, time), torch.tensor([0.0, 1.0, 4.0, 6.0])
    ours = cumulative_incidence(log_hazard[:, None], [baseline], years)[:, 0]
    assert torch.allclose(ours, absolute_risk(log_hazard, baseline, years).risk, rtol=1e-11, equal_nan=True)


def test_limits_of_the_incidence_of_one_cause_are_those_of_the_absolute_risk():
    log_hazard, event, time = cohort(100, seed=16).values()
    baseline, years = baseline_hazard(log_hazard, event, time), torch.tensor([0.0, 1.0, 4.0, 6.0])
    error = torch.rand(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = competing_risk(log_hazard[:, None], [baseline], years, standard_error=error[:, None])
    theirs = absolute_risk(log_hazard, baseline, years, standard_error=error)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one[:, 0], other, atol=1e-9, equal_nan=True)


def test_limits_of_incidences_cover_the_truth_of_two_causes():
    years, covered, rounds = torch.tensor([4.0]), torch.zeros(2), 100
    truth = torch.tensor([0.06, 0.1]) / 0.16 * -math.expm1(-4 * 0.16)
    for seed in range(rounds):
        generator = torch.Generator().manual_seed(seed)
        times = torch.empty(200, 2, dtype=torch.float64).exponential_(generator=generator)
        first, cause = (times / torch.tensor([0.06, 0.1])).min(dim=1)
        cause, zeros = torch.where(first <= 6, cause + 1, 0), torch.zeros(200, 2, dtype=torch.float64)
        baselines = cause_specific_baselines(zeros, cause, first.clamp(max=6))
        found = competing_risk(zeros[:1], baselines, years)
        covered += ((found.low[0, :, 0] < truth) & (truth < found.high[0, :, 0])).float()
    assert (covered >= 0.89 * rounds).all() and (covered <= 0.99 * rounds).all(), covered


def test_the_standard_error_of_a_log_hazard_moves_the_incidence_as_a_finite_difference_does():
    cause, time = causes_of(150, seed=17), cohort(150, seed=17)["time"]
    scores = torch.randn(150, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    baselines = [each._replace(standard_error=torch.zeros_like(each.times)) for each in
                 cause_specific_baselines(scores, cause, time)]  # fmt: skip
    years, error = torch.tensor([3.0]), torch.tensor([[0.0, 0.2]]).double()
    found = competing_risk(scores[:1], baselines, years, level=0.6827, standard_error=error)
    step = torch.tensor([[0.0, 1e-4]]).double()
    above, below = (cumulative_incidence(scores[:1] + sign * step, baselines, years) for sign in (1, -1))
    slope = (above - below) / 2e-4
    assert ((found.high - found.low) / 2).flatten() == pytest.approx(0.2 * slope.abs().flatten().numpy(), rel=0.03)


def test_cumulative_incidence_recovers_competing_hazards_that_are_known():
    generator = torch.Generator().manual_seed(14)
    log_hazards = torch.randn(20_000, 2, generator=generator)
    rates = torch.tensor([0.05, 0.1]) * log_hazards.exp()
    event_times = torch.empty(20_000, 2).exponential_(generator=generator) / rates
    first, cause = event_times.min(dim=1)
    cause = torch.where(first <= 6, cause + 1, 0)
    baselines = cause_specific_baselines(log_hazards, cause, first.clamp(max=6))
    ours = cumulative_incidence(log_hazards[:200], baselines, torch.tensor([5.0]))[..., 0]
    total = rates.sum(dim=1, keepdim=True)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, (rates / total * -torch.expm1(-5 * total))[:200], atol=0.02)


def test_an_infinite_baseline_hazard_leaves_nobody_free_of_the_event():
    cause, time = torch.tensor([1, 2, 1]), torch.tensor([1.0, 2.0, 3.0])
    zeros = torch.zeros(3, 2, dtype=torch.float64)
    baselines = cause_specific_baselines(zeros, cause, time, "kalbfleisch-prentice")
    incidence = cumulative_incidence(torch.tensor([[0.0, 0.0], [30.0, -3.0]]), baselines, torch.tensor([3.0]))
    assert incidence[0, :, 0].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert incidence.sum(dim=1)[:, 0].tolist() == pytest.approx([1, 1])


REFUSED = [
    (lambda: baseline_hazard(torch.zeros(3), torch.ones(3), torch.ones(3), "weibull"), r"estimator: expected one of"),
    (lambda: baseline_hazard(torch.zeros(3), torch.zeros(3), torch.ones(3)), r"event: expected at least one event"),
    (
        lambda: recalibrate(torch.zeros(3), torch.ones(3), torch.ones(3), "weights"),
        r"method: expected one of baseline",
    ),
    (
        lambda: recalibrate(torch.zeros(3), torch.zeros(3), torch.ones(3), "slope"),
        r"event: expected at least one event",
    ),
    (lambda: aalen_johansen(torch.zeros(3), torch.ones(3)), r"event: expected at least one event"),
    (
        lambda: aalen_johansen(torch.tensor([0.0, 1.5]), torch.ones(2)),
        r"cause: expected 0 \(censored\), 1, 2 .*, got 1.5",
    ),
    (lambda: aalen_johansen(torch.tensor([0, -1, 2]), torch.ones(3)), r"cause: expected 0 .* got -1 in row 1"),
    (lambda: aalen_johansen(torch.tensor([0, 1]), torch.ones(3)), r"one value per subject"),
    (lambda: cumulative_incidence(torch.zeros(3, 2), [], torch.ones(1)), r"baselines: expected one for each column"),
    (
        lambda: absolute_risk(torch.zeros(1), Baseline(*torch.ones(3, 1)), torch.ones(1), level=95),
        r"level: expected a coverage between 0 and 1, got 95",
    ),
    (
        lambda: absolute_risk(torch.zeros(1), Baseline(*torch.ones(3, 1)), -torch.ones(1)),
        r"years: expected zero or more, got -1 in row 0",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:28] for _, message in REFUSED])
def test_what_cannot_be_estimated_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
