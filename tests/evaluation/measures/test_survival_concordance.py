"""Concordance: pairs of single records, analytic intervals, paired comparisons, Uno's weights."""

import doctest
from functools import partial

import numpy as np
import pytest
from effort import effort_of
from lifelines import KaplanMeierFitter
from lifelines.datasets import load_gbsg2, load_lung, load_rossi
from lifelines.utils import concordance_index as lifelines_concordance_index

from ecgdan_hf.evaluation.measures import concordance, follow_up
from ecgdan_hf.evaluation.measures.concordance import (
    concordance_difference,
    concordance_index,
    concordance_interval,
    uno_concordance_index,
)
from ecgdan_hf.evaluation.measures.follow_up import FollowUp, SurvivalCurve
from ecgdan_hf.evaluation.measures.intervals import bootstrap_difference, bootstrap_interval

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def cohort(num: int, seed: int = 0, effect: float = 1.0) -> Arrays:
    """Event, time and the true log hazard of an exponential model, censored at random within 15 years."""
    rng = np.random.default_rng(seed)
    log_hazard = effect * rng.normal(size=num)
    times, ends = rng.exponential(15 * np.exp(-log_hazard)), rng.uniform(0, 15, num)
    return (times < ends).astype(float), np.minimum(times, ends), log_hazard


def public_cohorts() -> dict[str, Arrays]:
    """Event, time and a score of three published cohorts, ties and all."""
    rossi, lung, gbsg2 = load_rossi(), load_lung(), load_gbsg2()
    return {
        "rossi": (rossi["arrest"].to_numpy(float), rossi["week"].to_numpy(float), rossi["prio"].to_numpy(float)),
        "lung": (lung["status"].to_numpy(float), lung["time"].to_numpy(float), lung["age"].to_numpy(float)),
        "gbsg2": (gbsg2["cens"].to_numpy(float), gbsg2["time"].to_numpy(float), gbsg2["pnodes"].to_numpy(float)),
    }


def pair_tables(event: np.ndarray, time: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) value and existence of each pair, the definition written out."""
    earlier = (time[:, None] < time) | ((time[:, None] == time) & (event == 0))
    exists = (event[:, None] == 1) & earlier
    value = (score[:, None] > score) + 0.5 * (score[:, None] == score)
    return np.where(exists, value, 0.0), exists.astype(float)


@pytest.mark.parametrize("name", ["rossi", "lung", "gbsg2"])
def test_concordance_index_equals_lifelines_on_published_cohorts(name: str) -> None:
    event, time, score = public_cohorts()[name]
    assert concordance_index(event, time, score) == pytest.approx(
        lifelines_concordance_index(time, -score, event), abs=1e-12
    )


def test_interval_is_its_formula_written_out_over_all_pairs_and_patients() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        num = int(rng.integers(12, 50))
        event, time = rng.integers(0, 2, num).astype(float), rng.integers(1, 9, num) / 2
        score, patients = rng.integers(0, 6, num).astype(float), rng.integers(0, 10, num)
        value, exists = pair_tables(event, time, score)
        expected = value.sum() / exists.sum()
        influence = (value.sum(0) + value.sum(1) - expected * (exists.sum(0) + exists.sum(1))) / exists.sum()
        for ids in (None, patients):
            sums = influence if ids is None else np.bincount(ids, weights=influence)
            found = concordance_interval(event, time, score, ids)
            assert found.estimate == pytest.approx(expected, abs=1e-12)
            assert found.standard_error == pytest.approx(np.sqrt((sums**2).sum()), abs=1e-12)


def test_influence_is_the_derivative_by_the_weight_of_a_record() -> None:
    event, time, score = cohort(40, seed=2)
    value, influence = concordance._influence(event, time, np.round(score, 1))
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    table, exists = pair_tables(event, time, np.round(score, 1))
    for record in range(40):
        weights = np.ones(40)
        weights[record] += 1e-6
        moved = weights @ table @ weights / (weights @ exists @ weights)
        assert (moved - value) / 1e-6 == pytest.approx(influence[record], abs=1e-6)


def test_analytic_interval_agrees_with_the_bootstrap_also_of_clustered_records() -> None:
    event, time, score = cohort(400)
    score = score + np.random.default_rng(1).normal(size=400)
    for patients in (None, np.arange(400) // 4):
        analytic = concordance_interval(event, time, score, patients)
        resampled = bootstrap_interval(concordance_index, event, time, score, patient_ids=patients, n=800)
        assert analytic.low == pytest.approx(resampled.low, abs=0.012)
        assert analytic.high == pytest.approx(resampled.high, abs=0.012)
    assert analytic.num_patients == 100
    assert analytic.p_value < 1e-6


def test_copies_of_a_patient_do_not_narrow_the_interval() -> None:
    event, time, score = cohort(150)
    once = concordance_interval(event, time, score)
    fourfold = [np.repeat(values, 4) for values in (event, time, score)]
    together = concordance_interval(*fourfold, patient_ids=np.repeat(np.arange(150), 4))
    apart = concordance_interval(*fourfold)
    assert together.standard_error == pytest.approx(once.standard_error, rel=0.05)
    assert apart.standard_error == pytest.approx(once.standard_error / 2, rel=0.05)


def test_paired_difference_agrees_with_the_bootstrap_and_with_its_formula() -> None:
    event, time, score = cohort(300, seed=5)
    rng = np.random.default_rng(2)
    ours, theirs = score + 0.5 * rng.normal(size=300), score + 2.0 * rng.normal(size=300)
    found = concordance_difference(event, time, ours, theirs)
    resampled = bootstrap_difference(concordance_index, event, time, scores=ours, baseline_scores=theirs, n=800)
    assert found.estimate == pytest.approx(resampled.estimate, abs=1e-12)
    assert found.high - found.low == pytest.approx(resampled.high - resampled.low, rel=0.1)
    (first, pairs), (second, _) = pair_tables(event, time, ours), pair_tables(event, time, theirs)
    value = first - second
    influence = (value.sum(0) + value.sum(1) - found.estimate * (pairs.sum(0) + pairs.sum(1))) / pairs.sum()
    assert found.standard_error == pytest.approx(np.sqrt((influence**2).sum()), abs=1e-12)
    swapped = concordance_difference(event, time, theirs, ours)
    assert (swapped.estimate, swapped.p_value) == pytest.approx((-found.estimate, found.p_value))
    assert 0 < found.p_value < 0.05


def test_scores_that_order_alike_do_not_differ() -> None:
    event, time, score = cohort(80)
    found = concordance_difference(event, time, score, np.exp(score))
    assert (found.estimate, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_p_values_of_equally_good_scores_are_uniform() -> None:
    values = []
    for seed in range(300):
        event, time, score = cohort(120, seed=seed)
        noise = np.random.default_rng(1000 + seed).normal(size=(2, 120))
        values.append(concordance_difference(event, time, score + noise[0], score + noise[1]).p_value)
    for level in (0.05, 0.5):
        assert np.mean(np.array(values) < level) == pytest.approx(level, abs=3.3 * np.sqrt(level * (1 - level) / 300))


def test_censoring_survival_is_kaplan_meier_of_the_censorings_where_nothing_is_tied() -> None:
    event, time, _ = cohort(200)
    fitter = KaplanMeierFitter().fit(time, 1 - event)
    grid = np.linspace(0, time.max(), 50)
    assert FollowUp(event, time).censoring().at(grid) == pytest.approx(fitter.predict(grid).to_numpy(), abs=1e-12)
    survival = KaplanMeierFitter().fit(time, event)
    assert FollowUp(event, time).survival().at(grid) == pytest.approx(survival.predict(grid).to_numpy(), abs=1e-12)


@pytest.mark.parametrize("name", ["rossi", "lung", "gbsg2"])
def test_uno_concordance_index_is_its_formula_written_out(name: str) -> None:
    event, time, score = public_cohorts()[name]
    value, exists = pair_tables(event, time, score)
    at_risk = time[:, None] <= time
    censored, at = (event == 0)[:, None] & (time[:, None] == time), np.unique(time)
    chance = np.ones(len(time))
    for year in at:
        happened = ((time == year) & (event == 1)).sum()
        exposed = (time >= year).sum() - happened
        share = ((time == year) & (event == 0)).sum() / max(exposed, 1)
        chance[time > year] *= 1 - share
    tau = float(np.quantile(time, 0.7))
    weights = np.where(time < tau, 1 / np.maximum(chance, 1e-300) ** 2, 0.0)[:, None] * exists
    assert at_risk.any() and censored.any()
    expected = (weights * value).sum() / weights.sum()
    assert uno_concordance_index(event, time, score, tau) == pytest.approx(expected, abs=1e-12)


def test_uno_and_harrell_are_one_without_censoring() -> None:
    _, time, score = cohort(200)
    everybody = np.ones(200)
    assert uno_concordance_index(everybody, time, score) == pytest.approx(concordance_index(everybody, time, score))


def test_uno_does_not_depend_on_how_long_the_cohort_was_followed_and_harrell_does() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(size=100_000)
    # Hazards that cross: the score says much of early events and nothing of late ones.
    early = rng.exponential(4 * np.exp(-1.5 * score))
    times = np.where(early < 2, early, 2 + rng.exponential(6, 100_000))
    found = {}
    for name, ends in {"short": rng.uniform(0, 9, 100_000), "long": rng.uniform(6, 30, 100_000)}.items():
        event, time = (times < ends).astype(float), np.minimum(times, ends)
        found[name] = concordance_index(event, time, score), uno_concordance_index(event, time, score, 6.0)
    assert abs(found["short"][0] - found["long"][0]) > 0.02
    assert found["short"][1] == pytest.approx(found["long"][1], abs=0.006)


def test_effort_grows_with_the_records_and_not_with_their_pairs() -> None:
    event, time, score = cohort(100_000)
    for function in (concordance_index, concordance_interval, partial(uno_concordance_index, tau_years=10.0)):
        lines, peak_bytes = effort_of(partial(function, event, time, score))
        assert lines < 4000 and peak_bytes < 300 * 100_000  # up to 1000 and 150


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: concordance_interval([1, 1, 0], [1, 2, 3], [3, 2, 1]), "got a C-index of 1 without variance"),
        (lambda: concordance_interval([1, 1, 0], [1, 2, 3], [3, 1, 2], [7, 7, 7]), "at least two patients, got 1"),
        (lambda: concordance_interval([1, 1, 0], [1, 2, 3], [3, 1, 2], [1, 2]), "patient_ids: expected 3 ids.*got 2"),
        (
            lambda: concordance_interval([1, 1, 0], [1, 2, 3], [3, 1, 2], level=95),
            "level: expected a coverage.*got 95",
        ),
        (
            lambda: concordance_interval([1, 1, 0], [1, 2, 3], [3, 1, 2], np.array(["a", None, "b"], dtype=object)),
            "patient_ids: expected an id for every record, 1 are missing",
        ),
        (lambda: concordance_difference([1, 1, 0], [1, 2, 3], [3, 2, 1], [1, 2, 3]), "without variance cannot be"),
        (
            lambda: uno_concordance_index([1, 1, 0], [1, 2, 3], [3, 2, 1], 4),
            "tau_years: expected at most.*3 years, got 4",
        ),
        (lambda: uno_concordance_index([1, 1, 0], [1, 2, 3], [3, 2, 1], 1), "no comparable pair"),
        (
            lambda: uno_concordance_index([1, 1, 0], [1, 2, 3], [3, np.nan, 1]),
            "log_hazard: expected finite values, got 1",
        ),
        (
            lambda: uno_concordance_index(
                [1, 1, 0], [1, 2, 3], [3, 2, 1], censoring=SurvivalCurve(np.array([1.5]), np.zeros(1))
            ),
            "censoring: expected a positive chance of follow-up, got 0 at 2 years; take a shorter horizon",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_interval_reads_as_a_sentence_and_as_numbers() -> None:
    interval = concordance_interval(*cohort(100))
    assert str(interval).endswith(f"(95% interval {interval.low:.3f} to {interval.high:.3f})")
    assert {"estimate", "low", "high", "level", "standard_error", "p_value", "num_patients"} <= set(interval.as_dict())


@pytest.mark.parametrize("module", [concordance, follow_up])
def test_docstring_examples_hold(module) -> None:
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted >= 2
