"""Agreement with scikit-survival, which is GPL and therefore only ever an oracle of these tests.

It weighs by G(t) where we take the left limit G(t-). The two differ only where an event and a censoring fall on one
time, so that censored times are moved by less than the smallest gap; the tied case is written out in the other files.
"""

import numpy as np
import pandas as pd
import pytest
from lifelines.datasets import load_gbsg2, load_lung, load_rossi

from ecgdan_hf.evaluation.measures.absolute_risk import brier_score, dynamic_auc
from ecgdan_hf.evaluation.measures.concordance import concordance_index, uno_concordance_index
from ecgdan_hf.evaluation.measures.follow_up import FollowUp

sksurv_metrics = pytest.importorskip("sksurv.metrics")
COHORTS = ["rossi", "lung", "gbsg2", "whas500"]


def load(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Event, time in years (no event tied with a censoring) and a score with ties."""
    if name == "whas500":
        from sksurv.datasets import load_whas500

        features, outcome = load_whas500()
        event, days, score = outcome["fstat"], outcome["lenfol"], features["age"].round(-1) / 20
    else:
        table: pd.DataFrame = {"rossi": load_rossi, "lung": load_lung, "gbsg2": load_gbsg2}[name]()
        columns = {
            "rossi": ("arrest", "week", "prio"),
            "lung": ("status", "time", "age"),
            "gbsg2": ("cens", "time", "age"),
        }
        event, days, score = (table[column] for column in columns[name])
        score = score / score.std()
    event, days = np.asarray(event, dtype=float), np.asarray(days, dtype=float)
    return event, (days + 0.1 * (1 - event)) / 365.25, np.asarray(score, dtype=float)


def structured(event: np.ndarray, time: np.ndarray) -> np.ndarray:
    return np.array(list(zip(event.astype(bool), time, strict=True)), dtype=[("event", bool), ("time", float)])


def horizons(event: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Between the times, and where both events and follow-up remain."""
    return np.quantile(time[event == 1], [0.2, 0.5, 0.8]) + 0.03 / 365.25


def risks_at(score: np.ndarray, years: np.ndarray) -> np.ndarray:
    hazard = np.exp(score - score.mean())[:, None]
    return 1 - np.exp(-0.5 * hazard * years / years[-1])


@pytest.mark.parametrize("name", COHORTS)
def test_harrell_and_uno_concordance(name: str) -> None:
    event, time, score = load(name)
    outcome, tau = structured(event, time), float(horizons(event, time)[-1])
    expected = sksurv_metrics.concordance_index_censored(event.astype(bool), time, score)[0]
    assert concordance_index(event, time, score) == pytest.approx(expected, abs=1e-12)
    expected = sksurv_metrics.concordance_index_ipcw(outcome, outcome, score, tau=tau)[0]
    assert uno_concordance_index(event, time, score, tau) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", COHORTS)
def test_uno_concordance_without_truncation(name: str) -> None:
    event, time, score = load(name)
    last = time == time.max()
    event = np.where(last, 0.0, event)  # G is 0 at a last event, which scikit-survival weighs by infinity
    outcome = structured(event, time)
    expected = sksurv_metrics.concordance_index_ipcw(outcome, outcome, score)[0]
    assert uno_concordance_index(event, time, score) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", COHORTS)
def test_auc_at_each_year(name: str) -> None:
    event, time, score = load(name)
    outcome, years = structured(event, time), horizons(event, time)
    expected, _ = sksurv_metrics.cumulative_dynamic_auc(outcome, outcome, score, years)
    assert [dynamic_auc(event, time, score, year) for year in years] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", COHORTS)
def test_brier_score_at_each_year(name: str) -> None:
    event, time, score = load(name)
    outcome, years = structured(event, time), horizons(event, time)
    risks = risks_at(score, years)
    _, expected = sksurv_metrics.brier_score(outcome, outcome, 1 - risks, years)
    found = [brier_score(event, time, risks[:, k], year) for k, year in enumerate(years)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_censoring_of_the_training_records_weighs_the_test_records() -> None:
    event, time, score = load("gbsg2")
    train = np.random.default_rng(0).random(len(event)) < 0.5
    train |= time > np.quantile(time, 0.95)
    test = ~train
    outcomes = structured(event[train], time[train]), structured(event[test], time[test])
    curve, truth = FollowUp(event[train], time[train]).censoring(), (event[test], time[test])
    years = horizons(*truth)
    expected, _ = sksurv_metrics.cumulative_dynamic_auc(*outcomes, score[test], years)
    found = [dynamic_auc(*truth, score[test], year, curve) for year in years]
    assert found == pytest.approx(expected, abs=1e-12)
    risks = risks_at(score[test], years)
    _, expected = sksurv_metrics.brier_score(*outcomes, 1 - risks, years)
    assert [brier_score(*truth, risks[:, k], year, curve) for k, year in enumerate(years)] == pytest.approx(expected)
    expected = sksurv_metrics.concordance_index_ipcw(*outcomes, score[test])[0]
    assert uno_concordance_index(*truth, score[test], censoring=curve) == pytest.approx(expected, abs=1e-12)
