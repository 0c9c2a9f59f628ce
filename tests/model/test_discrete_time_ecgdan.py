"""The discrete-time likelihood and its curves against person-period regression, the formula and arithmetic."""

import math

import numpy as np
import pytest
import torch
from lifelines import KaplanMeierFitter

from ecgdan_hf.model.discrete_time_ecgdan import discrete_incidence, discrete_survival, discrete_time_loss

CUTS = torch.tensor([0.0, 0.5, 2.0, 3.0, 7.0], dtype=torch.float64)


def cohort(n: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    time = torch.rand(n, generator=generator, dtype=torch.float64) * 9 + 0.01  # some beyond the last cut
    return {
        "logits": torch.randn(n, 4, generator=generator, dtype=torch.float64),
        "event": (torch.rand(n, generator=generator) < 0.5).double(),
        "time": time,
        "weights": torch.randint(1, 4, (n,), generator=generator).double(),
        "entry": time * torch.rand(n, generator=generator, dtype=torch.float64) * 1.2 - 0.2 * time,
    }


def loss_by_definition(logits, event, time, weights=None, entry=None):
    """Subject by subject, from the curve."""
    weights = torch.ones_like(time) if weights is None else weights
    entry, total = torch.zeros_like(time) if entry is None else entry.clamp(min=0), 0.0
    for row, logit in enumerate(logits):
        t, e = min(time[row].item(), 7.0), min(entry[row].item(), 7.0)
        interval = int((CUTS[1:] < t).sum())
        points = torch.tensor([e, t, max(CUTS[interval].item(), e), CUTS[interval + 1].item()], dtype=torch.float64)
        at_entry, at_time, start, end = discrete_survival(logit[None], CUTS, points)[0].tolist()
        died = event[row] == 1 and time[row] <= 7
        total -= weights[row].item() * (math.log(start - end if died else at_time) - math.log(at_entry))
    return total / weights.sum().item()


@pytest.mark.parametrize("chosen", [(), ("weights",), ("entry",), ("weights", "entry")], ids="-".join)
def test_the_loss_is_its_definition_from_the_curve(chosen):
    data = cohort(150, seed=1)
    keywords = {name: data[name] for name in ("logits", "event", "time", *chosen)}
    assert discrete_time_loss(**keywords, cuts=CUTS).item() == pytest.approx(loss_by_definition(**keywords), rel=1e-11)


def test_with_censoring_and_entry_at_cuts_it_is_the_logistic_regression_of_person_periods():
    statsmodels = pytest.importorskip("statsmodels.api")
    random = np.random.default_rng(0)
    n, grid = 120, CUTS.numpy()
    first = random.integers(0, 3, n)
    last = np.minimum(first + random.integers(0, 3, n), 3)
    event, age = random.integers(0, 2, n), random.normal(size=n)
    periods = [(row, k, event[row] * (k == last[row])) for row in range(n) for k in range(first[row], last[row] + 1)]
    row, k, died = (np.array(column) for column in zip(*periods, strict=True))
    design = np.column_stack([np.eye(4)[k], age[row]])
    params = np.array([-1.0, -0.5, 0.3, 0.8, 0.6])
    theirs = statsmodels.Logit(died, design).loglike(params)
    logits = torch.tensor(params[:4] + params[4] * age[:, None])
    inside = grid[last + 1] - np.where(event == 1, 0.1, 0)  # where in its interval an event happened does not matter
    data = (torch.tensor(event), torch.tensor(inside), CUTS)
    ours = -discrete_time_loss(logits, *data, entry=torch.tensor(grid[first])) * n
    assert ours.item() == pytest.approx(theirs, abs=1e-9)


def test_the_best_constant_hazard_of_whole_intervals_is_the_kaplan_meier_curve():
    random = np.random.default_rng(1)
    time, event = CUTS.numpy()[random.integers(1, 5, 300)], random.integers(0, 2, 300)
    logits = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure():
        optimiser.zero_grad()
        loss = discrete_time_loss(logits.expand(300, 4), torch.tensor(event), torch.tensor(time), CUTS)
        loss.backward()
        return loss

    optimiser.step(closure)
    theirs = KaplanMeierFitter().fit(time, event).survival_function_at_times(CUTS.numpy()).to_numpy()
    assert discrete_survival(logits.detach(), CUTS, CUTS)[0].numpy() == pytest.approx(theirs, abs=1e-6)


def test_survival_is_interpolated_with_a_constant_hazard_inside_an_interval():
    hazard = torch.tensor([[0.2, 0.5, 0.1, 0.9]], dtype=torch.float64)
    years = torch.tensor([0.0, 0.25, 0.5, 1.25, 2.0, 7.0, 7.1])
    survival = discrete_survival(hazard.logit(), CUTS, years)[0]
    assert survival[:6].tolist() == pytest.approx([1, 0.8**0.5, 0.8, 0.8 * 0.5**0.5, 0.4, 0.4 * 0.9 * 0.1], rel=1e-12)
    assert survival[6].isnan()


def test_before_a_first_cut_after_the_start_nothing_has_happened():
    assert discrete_survival(torch.zeros(2, 1), torch.tensor([1.0, 2.0]), torch.tensor([0.5])).tolist() == [[1], [1]]


@pytest.mark.parametrize("chosen", [(), ("weights", "entry")], ids="-".join)
def test_gradient_agrees_with_finite_differences(chosen):
    data = cohort(20, seed=2)
    keywords = {name: data[name] for name in ("event", "time", *chosen)}
    logits = data["logits"].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: discrete_time_loss(x, **keywords, cuts=CUTS), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [-1e3, -80.0, -20.0, 20.0, 80.0, 1e3])
def test_extreme_logits_keep_the_loss_and_its_gradient_finite(logit, dtype):
    logits = torch.full((3, 4), logit, dtype=dtype, requires_grad=True)
    data = {"event": torch.tensor([1, 0, 1]), "time": torch.tensor([1.0, 2.5, 2.5]), "cuts": CUTS}
    entry = torch.tensor([0.0, 0.6, 2.25])
    loss = discrete_time_loss(logits, **data, entry=entry)
    loss.backward()
    assert loss.isfinite() and loss.dtype == dtype and logits.grad.isfinite().all()
    if logit <= -80:  # the logarithm of a tiny hazard is its logit; three quarters of an interval, three of a hazard
        assert loss.item() * 3 == pytest.approx(-2 * logit - math.log(0.75), rel=1e-6)


def test_float32_agrees_with_float64():
    data = cohort(2000, seed=3)
    exact = discrete_time_loss(**data, cuts=CUTS)
    rounded = discrete_time_loss(**data | {"logits": data["logits"].float()}, cuts=CUTS.float())
    assert rounded.dtype == torch.float32 and rounded.item() == pytest.approx(exact.item(), rel=1e-6)
    assert discrete_time_loss(**data | {"logits": data["logits"].bfloat16()}, cuts=CUTS).dtype == torch.float32


def test_a_subject_of_weight_two_is_that_subject_twice():
    data = cohort(50, seed=4)
    weights = data.pop("weights").long()
    repeated = {name: values.repeat_interleave(weights, dim=0) for name, values in data.items()}
    once = discrete_time_loss(**data, cuts=CUTS, weights=weights)
    assert once.item() == pytest.approx(discrete_time_loss(**repeated, cuts=CUTS).item(), rel=1e-13)


def test_an_event_after_the_last_cut_counts_as_censored_there_and_an_entry_there_as_nothing():
    logits = torch.randn(1, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    late = discrete_time_loss(logits, torch.ones(1), torch.tensor([9.0]), CUTS)
    assert late.item() == discrete_time_loss(logits, torch.zeros(1), torch.tensor([7.0]), CUTS).item()
    nothing = discrete_time_loss(logits, torch.ones(1), torch.tensor([9.0]), CUTS, entry=torch.tensor([8.0]))
    nothing.backward()
    assert nothing.item() == 0 and torch.equal(logits.grad, torch.zeros(1, 4))


def test_no_weight_at_all_gives_a_zero_with_a_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = discrete_time_loss(logits, torch.ones(3), torch.ones(3), CUTS, weights=torch.zeros(3))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros(3, 4))


REFUSED = [
    (
        {"cuts": torch.tensor([0.0, 2.0, 1.0])},
        r"cuts: expected finite years in ascending order, got \[0.0, 2.0, 1.0\]",
    ),
    ({"cuts": torch.tensor([0.0, 1.0, 1.0])}, r"cuts: expected finite years in ascending order"),
    ({"cuts": torch.tensor([0.0, 1.0, torch.inf])}, r"cuts: expected finite years in ascending order"),
    (
        {"cuts": torch.tensor([0.0, 1.0])},
        r"cuts: expected one more than the intervals of logits, got \(2,\) for \(2, 2",
    ),
    ({"time": torch.tensor([1.0, 0.0])}, r"time: expected years after the first cut, 0, got 0 in row 1"),
    ({"time": torch.tensor([1.0, torch.nan])}, r"time: expected finite years, got nan in row 1"),
    ({"event": torch.tensor([0, 2])}, r"event: expected 1 \(happened\) or 0 \(censored\), got 2 in row 1"),
    ({"entry": torch.tensor([1.0, 0.0])}, r"entry: expected years before `time`, got 1 in row 0"),
    ({"weights": torch.tensor([1.0, -1.0])}, r"weights: expected finite .* zero or more, got -1 in row 1"),
    ({"weights": torch.ones(3)}, r"weights: expected one value per subject, 2, got 3"),
    ({"time": torch.ones(3)}, r"event and time: expected one value per subject, got 2, 2 and 3"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[message[:24] for _, message in REFUSED])
def test_the_loss_says_in_one_line_what_it_refuses(arguments, message):
    data = {"logits": torch.zeros(2, 2), "event": torch.ones(2), "time": torch.ones(2), "cuts": torch.arange(3.0)}
    with pytest.raises(ValueError, match=message) as error:
        discrete_time_loss(**data | arguments)
    assert "\n" not in str(error.value)


def test_survival_at_negative_years_is_refused():
    with pytest.raises(ValueError, match="years: expected zero or more, got -1 in row 0"):
        discrete_survival(torch.zeros(1, 2), torch.arange(3.0), torch.tensor([-1.0]))


def causes_loss_by_definition(logits, cause, time):
    """Subject by subject, from incidences and survival."""
    total = 0.0
    for row in range(len(time)):
        t = min(time[row].item(), 7.0)
        interval = int((CUTS[1:] < t).sum())
        edges = CUTS[interval : interval + 2]
        incidence = discrete_incidence(logits[row : row + 1], CUTS, edges)[0]
        died = cause[row] > 0 and time[row] <= 7
        survival = 1 - discrete_incidence(logits[row : row + 1], CUTS, torch.tensor([t]).double())[0].sum()
        total -= math.log(incidence[int(cause[row]) - 1].diff().item() if died else survival.item())
    return total / len(time)


def test_the_loss_of_several_causes_is_its_definition_from_the_incidences():
    data, generator = cohort(120, seed=2), torch.Generator().manual_seed(3)
    logits = torch.randn(120, 3, 4, generator=generator, dtype=torch.float64)
    cause = torch.randint(0, 4, (120,), generator=generator)
    loss = discrete_time_loss(logits, cause, data["time"], CUTS)
    assert loss.item() == pytest.approx(causes_loss_by_definition(logits, cause, data["time"]), rel=1e-7)


def test_incidences_add_up_with_survival_and_of_one_cause_are_its_complement():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(50, 2, 4, generator=generator, dtype=torch.float64) * 3
    years = torch.tensor([0.0, 0.2, 2.0, 5.0, 7.0, 7.1])
    one = discrete_incidence(logits[:, 0], CUTS, years)[:, 0]
    assert torch.allclose(one, 1 - discrete_survival(logits[:, 0], CUTS, years), atol=1e-12, equal_nan=True)
    both = discrete_incidence(logits, CUTS, years)
    free = torch.stack([discrete_survival(each, CUTS, years) for each in logits.unbind(dim=1)]).prod(dim=0)
    assert torch.allclose((both.sum(dim=1) + free)[:, :5], torch.ones(50, 5).double(), atol=1e-12)
    assert both[:, :, 5].isnan().all()


def test_the_loss_of_several_causes_has_a_gradient_where_hazards_are_next_to_nothing():
    logits = torch.full((2, 2, 4), -40.0, requires_grad=True)
    loss = discrete_time_loss(logits, torch.tensor([1, 2]), torch.tensor([0.3, 2.5]), CUTS.float())
    loss.backward()
    assert loss.item() == pytest.approx(40.0, rel=1e-3)
    assert logits.grad[0, 0, 0] == pytest.approx(-0.5, abs=1e-4) and logits.grad[0, 1, 0] == pytest.approx(0, abs=1e-4)


def test_a_cause_without_its_logits_is_refused():
    with pytest.raises(ValueError, match=r"cause: expected 0 \(censored\) or 1 to 2, got 3 in row 1"):
        discrete_time_loss(torch.zeros(2, 2, 4), torch.tensor([1, 3]), torch.tensor([0.3, 2.5]), CUTS.float())
