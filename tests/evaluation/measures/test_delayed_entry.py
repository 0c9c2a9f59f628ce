"""Delayed entry (left truncation) in every measure: against lifelines, statsmodels and explicit sums, or refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter, KaplanMeierFitter
from statsmodels.duration.survfunc import survdiff

from ecgdan_hf.evaluation.comparators.baselines import RidgeCox
from ecgdan_hf.evaluation.comparators.evidence_cox import CoxData, EvidenceCox
from ecgdan_hf.evaluation.measures.absolute_risk import brier_score, decision_curve, dynamic_auc, observed_risk
from ecgdan_hf.evaluation.measures.concordance import (
    concordance_difference,
    concordance_index,
    concordance_interval,
    uno_concordance_index,
)
from ecgdan_hf.evaluation.measures.cumulative_incidence import aalen_johansen_table
from ecgdan_hf.evaluation.measures.decisions import decision_measure
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import bootstrap_interval
from ecgdan_hf.evaluation.measures.risk_calibration import RiskCalibration
from ecgdan_hf.evaluation.measures.survival import calibration, kaplan_meier, logrank_p_value, survival_metrics
from ecgdan_hf.model.survival_ecgdan import cox_loss


@pytest.fixture
def data() -> dict[str, Any]:
    """120 records with tied times and entries, half of them late."""
    rng, n = np.random.default_rng(0), 120
    time = np.round(rng.exponential(3.0, n) + 0.1, 1)
    entry = np.where(rng.random(n) < 0.5, np.round(time * rng.random(n), 1), 0.0)
    entry = np.where(entry >= time, 0.0, entry)
    features = rng.normal(size=(n, 3))
    return {
        "event": (rng.random(n) < 0.6).astype(float),
        "entry": entry,
        "time": time,
        "times": np.stack([entry, time], axis=1),
        "features": features,
        "score": np.round(features[:, 0], 1),
    }


def pairs(data: dict[str, Any]) -> list[tuple[int, int, float]]:
    """Every comparable pair and its value, by definition."""
    event, entry, time, score = (data[name] for name in ("event", "entry", "time", "score"))
    found = []
    for i in np.flatnonzero(event == 1):
        at_risk = (entry < time[i]) & ((time > time[i]) | ((time == time[i]) & (event == 0)))
        found += [(i, j, (score[i] > score[j]) + 0.5 * (score[i] == score[j])) for j in np.flatnonzero(at_risk)]
    return found


def test_the_c_index_compares_an_event_with_those_who_had_entered_before_it(data) -> None:
    found = pairs(data)
    expected = np.mean([value for _, _, value in found])
    assert concordance_index(data["event"], data["times"], data["score"]) == pytest.approx(expected, abs=1e-12)
    assert concordance_index(data["event"], data["time"], data["score"]) != pytest.approx(expected, abs=1e-3)
    influence = np.zeros(len(data["time"]))
    for i, j, value in found:
        influence[[i, j]] += (value - expected) / len(found)
    interval = concordance_interval(data["event"], data["times"], data["score"])
    assert interval.standard_error == pytest.approx(np.sqrt((influence**2).sum()), rel=1e-9)
    same = concordance_difference(data["event"], data["times"], data["score"], 2 * data["score"])
    assert same.estimate == 0


def test_kaplan_meier_agrees_with_lifelines(data) -> None:
    theirs = KaplanMeierFitter().fit(data["time"], data["event"], entry=data["entry"])
    ours = kaplan_meier(data["event"], data["times"])
    assert ours["survival"].to_numpy() == pytest.approx(
        theirs.survival_function_at_times(ours["time"]).to_numpy(), abs=1e-12
    )
    at_risk = [((data["entry"] < t) & (data["time"] >= t)).sum() for t in ours["time"][1:]]
    assert ours["at_risk"].tolist() == [(data["entry"] == 0).sum(), *at_risk]


def test_the_log_rank_test_agrees_with_statsmodels(data) -> None:
    group = (data["features"][:, 1] > 0).astype(int)
    theirs = survdiff(data["time"], data["event"], group, entry=data["entry"])[1]
    assert logrank_p_value(data["event"], data["times"], group) == pytest.approx(theirs, abs=1e-12)


def test_the_aalen_johansen_estimate_is_that_of_the_follow_up(data) -> None:
    codes = np.where((data["event"] == 0) & (data["score"] > 0), 2, data["event"])
    ours = aalen_johansen_table(codes, data["times"])
    free = FollowUp(codes, data["times"]).free().at(ours["time"])
    assert ours["incidence"].to_numpy() == pytest.approx(1 - free, abs=1e-12)
    survival, incidence = 1.0, 0.0  # by definition; lifelines' own leaves the entries out of its survival
    for t in np.unique(data["time"][data["time"] <= 4.0]):
        at_risk = ((data["entry"] < t) & (data["time"] >= t)).sum()
        incidence += survival * ((data["time"] == t) & (codes == 1)).sum() / at_risk
        survival *= 1 - ((data["time"] == t) & (codes > 0)).sum() / at_risk
    assert ours[ours["time"] <= 4.0]["incidence"].iloc[-1] == pytest.approx(incidence, abs=1e-12)


def test_the_cox_models_agree_with_lifelines(data) -> None:
    table = pd.DataFrame(data["features"]).assign(time=data["time"], event=data["event"], entry=data["entry"])
    theirs = CoxPHFitter(penalizer=1e-8).fit(table, "time", "event", entry_col="entry").params_.to_numpy()
    given = data["features"], data["event"], data["times"]
    flat = EvidenceCox.fit(*given, prior_sds=[1e4])
    assert flat.weights / flat.scaling.scale == pytest.approx(theirs, abs=1e-5)
    ridge = RidgeCox.fit(*given, penalizer=1e-8)
    assert ridge.weights / ridge.scale == pytest.approx(theirs, abs=1e-4)


def test_the_likelihood_by_evidence_is_that_of_the_network_with_its_derivatives(data) -> None:
    cox, weights, step = CoxData(data["features"], data["event"], data["times"]), np.array([0.3, -0.2, 0.5]), 1e-5
    given = (torch.from_numpy(data[name]) for name in ("event", "time"))
    loss = cox_loss(torch.from_numpy(data["features"] @ weights), *given, entry=torch.from_numpy(data["entry"]))
    assert cox.value(weights) == pytest.approx(-loss.item() * data["event"].sum(), abs=1e-9)
    found, near = cox.likelihood(weights), [(weights + step * e, weights - step * e) for e in np.eye(3)]
    slope = [(cox.value(above) - cox.value(below)) / (2 * step) for above, below in near]
    assert found.gradient == pytest.approx(slope, abs=1e-5)
    bend = [(cox.likelihood(above).gradient - cox.likelihood(below).gradient) / (2 * step) for above, below in near]
    assert found.information == pytest.approx(-np.array(bend), abs=1e-5)


def test_entries_at_the_ecg_change_nothing(data) -> None:
    plain = np.stack([np.zeros_like(data["time"]), data["time"]], axis=1)
    risk = 1 / (1 + np.exp(-data["score"]))
    assert FollowUp(data["event"], plain).entry is None
    assert brier_score(data["event"], plain, risk, 2.0) == brier_score(data["event"], data["time"], risk, 2.0)
    assert FollowUp.time_of(pd.DataFrame({"time": data["time"], "entry": 0.0})).ndim == 1


def test_resampled_records_keep_their_entries(data) -> None:
    found = bootstrap_interval(concordance_index, data["event"], data["times"], data["score"], n=20)
    assert found.estimate == concordance_index(data["event"], data["times"], data["score"])
    assert found.low < found.estimate < found.high


def test_calibration_groups_show_the_observed_risk_of_those_who_were_followed(data) -> None:
    risk = 1 / (1 + np.exp(-data["score"]))
    found = calibration(data["event"], data["times"], risk, 2.0, num_groups=1).iloc[0]
    theirs = KaplanMeierFitter().fit(data["time"], data["event"], entry=data["entry"])
    assert found["observed"] == pytest.approx(1 - float(theirs.predict(2.0)), abs=1e-12)
    assert found["low"] < found["observed"] < found["high"]


REFUSING = {
    "brier": lambda event, times, risk: brier_score(event, times, risk, 2.0),
    "auc": lambda event, times, risk: dynamic_auc(event, times, risk, 2.0),
    "uno": lambda event, times, risk: uno_concordance_index(event, times, risk),
    "observed": lambda event, times, risk: observed_risk(event, times, 2.0),
    "slope": lambda event, times, risk: RiskCalibration(event, times, risk, 2.0).slope(),
    "decision": lambda event, times, risk: decision_measure(event, times, risk, 2.0, 0.5, "sensitivity"),
    "net benefit": lambda event, times, risk: decision_curve(event, times, risk, 2.0),
    "horizons": lambda event, times, risk: survival_metrics(event, times, risk, n=2, risks={2.0: risk}),
}


@pytest.mark.parametrize("name", REFUSING)
def test_a_measure_that_does_not_know_delayed_entry_refuses_it_in_one_line(data, name: str) -> None:
    risk = 1 / (1 + np.exp(-data["score"]))
    with pytest.raises(
        ValueError, match=r"entry: .*got \d+ of 120 records that entered later; judge by C-index"
    ) as error:
        REFUSING[name](data["event"], data["times"], risk)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("entry", [-0.5, 3.0, np.nan])
def test_an_entry_that_is_not_before_the_end_is_refused(entry: float) -> None:
    with pytest.raises(
        ValueError, match=r"entry: expected years from 0 to before time, got .* in row 1 \(1 such rows\)"
    ):
        FollowUp([1, 0], [[0.0, 1.0], [entry, 3.0]])
