"""Measurements of ECGs: intervals, axes, voltages, flags, and the table of a source."""

import json
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

from ecgdan_hf.data.formats import read
from ecgdan_hf.data.measure import table as measurement_table
from ecgdan_hf.data.measure.delineated_ecg import DelineatedEcg
from ecgdan_hf.data.measure.delineation import delineate
from ecgdan_hf.data.measure.measurements import (
    FLAGS,
    MARKERS,
    MEASUREMENTS,
    _frontal_axis,
    flags,
    measure,
    measure_delineated,
)
from ecgdan_hf.data.measure.rhythm import measure_ecg
from ecgdan_hf.data.measure.table import measure_table
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

NORMAL = {
    "heart_rate_bpm": 70.0,
    "p_duration_ms": 105.0,
    "pr_ms": 155.0,
    "qrs_ms": 92.0,
    "qt_ms": 390.0,
    "qtc_bazett_ms": 421.0,
    "qtc_fridericia_ms": 411.0,
    "p_axis_deg": 45.0,
    "qrs_axis_deg": 30.0,
    "t_axis_deg": 40.0,
    "qrs_t_angle_deg": 10.0,
    "sokolow_lyon_mv": 2.2,
    "cornell_mv": 1.3,
    "limb_peak_to_peak_mv": 1.1,
    "chest_peak_to_peak_mv": 2.1,
    "st_lowest_mv": -0.01,
    "st_highest_mv": 0.02,
    "t_lowest_mv": 0.15,
    "intrinsicoid_ms": 42.0,
    "v1_late_mv": -0.15,
    "lateral_late_mv": 0.0,
    "v1_mean_mv": -0.2,
    "lateral_mean_mv": 0.1,
    "lateral_q_mv": 0.06,
}


def measure_signal(signal: np.ndarray, rate: float, leads: Sequence[str]) -> dict[str, float]:
    return measure_delineated(DelineatedEcg.of(signal, rate, leads))


def synthetic_measurements(strain: float = 0.0, qrs_ms: float = 98.0, rate: float = 70.0, seed: int = 3) -> dict:
    return measure_signal(synthetic.make_signal(strain, qrs_ms, rate, seed), 500, STANDARD_LEADS)


def flag(name: str, sex: str | None = None, **changes: float) -> float:
    return float(flags({**NORMAL, **changes}, sex)[name].iloc[0])


@pytest.mark.parametrize("rate", [50.0, 70.0, 105.0])
def test_a_synthetic_ecg_measures_as_it_was_made(rate: float) -> None:
    found = synthetic_measurements(rate=rate)
    assert list(found) == list(MEASUREMENTS)
    assert found["heart_rate_bpm"] == pytest.approx(rate, rel=0.04)
    assert found["pr_ms"] == pytest.approx(170, abs=30)  # P starts about 2.5 widths before its centre
    assert found["qrs_ms"] == pytest.approx(98, abs=20)
    assert found["qtc_fridericia_ms"] == pytest.approx(400, abs=50)
    assert np.isfinite(list(found.values())).all()


def test_the_qrs_measures_as_wide_as_it_is_made() -> None:
    widths = [synthetic_measurements(qrs_ms=width)["qrs_ms"] for width in (80, 110, 140, 170)]
    assert np.polyfit([80, 110, 140, 170], widths, 1)[0] == pytest.approx(1.0, abs=0.3)


def test_repolarisation_strain_turns_t_over_and_sinks_st() -> None:
    normal, strained = synthetic_measurements(0.0), synthetic_measurements(2.0)
    assert strained["t_lowest_mv"] < -0.1 < 0.05 < normal["t_lowest_mv"]
    assert strained["st_lowest_mv"] < normal["st_lowest_mv"]
    assert strained["qrs_t_angle_deg"] > 100 > normal["qrs_t_angle_deg"]
    assert strained["qrs_ms"] == pytest.approx(normal["qrs_ms"], abs=12)


def test_the_order_and_the_spelling_of_leads_and_the_sampling_rate_change_little() -> None:
    signal = synthetic.make_signal(0.0, 98.0, 70.0, 3)
    found = measure_signal(signal, 500, STANDARD_LEADS)
    turned = measure_signal(signal[::-1], 500, [lead.lower() for lead in STANDARD_LEADS[::-1]])
    slower = measure_signal(signal[:, ::2], 250, STANDARD_LEADS)
    assert turned == pytest.approx(found, abs=1e-6)
    for name in ("pr_ms", "qrs_ms", "qt_ms"):
        assert slower[name] == pytest.approx(found[name], abs=12)
    assert slower["sokolow_lyon_mv"] == pytest.approx(found["sokolow_lyon_mv"], rel=0.05)


def test_doubling_the_signal_doubles_voltages_and_leaves_intervals() -> None:
    signal = synthetic.make_signal(0.0, 98.0, 70.0, 3)
    once, twice = (measure_signal(gain * signal, 500, STANDARD_LEADS) for gain in (1, 2))
    for name in MEASUREMENTS:
        gain = 2 if name.endswith("_mv") else 1
        assert twice[name] == pytest.approx(gain * once[name], rel=1e-6, abs=8 if name.endswith("_ms") else 1e-6)


def test_what_a_missing_lead_would_have_told_is_nan_and_limb_leads_are_derived() -> None:
    signal = synthetic.make_signal(0.0, 98.0, 70.0, 3)
    full = measure_signal(signal, 500, STANDARD_LEADS)
    limb = measure_signal(signal[:2], 500, ["I", "II"])
    assert limb["qrs_axis_deg"] == pytest.approx(full["qrs_axis_deg"], abs=5)
    assert limb["limb_peak_to_peak_mv"] == pytest.approx(full["limb_peak_to_peak_mv"], rel=0.05)
    for name in ("sokolow_lyon_mv", "cornell_mv", "chest_peak_to_peak_mv", "intrinsicoid_ms", "v1_late_mv"):
        assert np.isnan(limb[name]), name
    without_v1 = np.where((np.array(STANDARD_LEADS) == "V1")[:, None], np.nan, signal)
    found = measure(EcgRecord(without_v1, 500, STANDARD_LEADS))
    assert np.isnan(found["sokolow_lyon_mv"])
    assert found["cornell_mv"] == pytest.approx(full["cornell_mv"], rel=0.05)


def test_noise_between_beats_is_no_p_wave() -> None:
    signal = synthetic.make_signal(0.0, 98.0, 70.0, 3).astype(float)
    waves = dict(synthetic.WAVES)
    fibrillation = np.random.default_rng(0).normal(size=(12, 5000)).cumsum(axis=1)
    fibrillation -= pd.DataFrame(fibrillation.T).rolling(80, center=True, min_periods=1).mean().to_numpy().T
    try:
        synthetic.WAVES["P"] = (*waves["P"][:2], (0.0, 0.0, 0.0))
        without = synthetic.make_signal(0.0, 98.0, 70.0, 3) + 0.08 * fibrillation / fibrillation.std()
    finally:
        synthetic.WAVES.update(waves)
    assert np.isfinite(measure_signal(signal, 500, STANDARD_LEADS)["pr_ms"])
    found = measure_signal(without, 500, STANDARD_LEADS)
    assert all(np.isnan(found[name]) for name in ("pr_ms", "p_duration_ms", "p_axis_deg"))
    assert np.isfinite(found["qrs_ms"])


@pytest.mark.parametrize(
    ("signal", "rate", "leads", "message"),
    [
        (np.zeros((2, 5000)), 500, ["I", "II"], "expected one of the twelve leads with an ECG"),
        (np.ones((2, 500)) * np.arange(500) / 7, 500, ["I", "II"], "expected at least 2.4 s|millivolt|range"),
        (np.random.default_rng(0).normal(size=(1, 5000)), 500, ["V7"], "got none in V7"),
        (np.zeros((2, 5000)), None, ["I", "II"], "sampling_rate"),
    ],
)
def test_measuring_refuses_what_is_no_ecg(signal: np.ndarray, rate: float, leads: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_signal(signal, rate, leads)


def test_delineation_refuses_another_window_and_no_rate() -> None:
    with pytest.raises(ValueError, match=r"expected \(leads, 600\)"):
        delineate(np.zeros((12, 500)), 60)
    with pytest.raises(ValueError, match="expected a positive number, got 0"):
        delineate(np.zeros((12, 600)), 0)


@pytest.mark.parametrize("degrees", [-170, -60, 0, 45, 90, 150])
def test_the_frontal_axis_of_a_vector_is_its_direction(degrees: float) -> None:
    lead_i = np.cos(np.deg2rad(degrees))
    lead_ii = np.cos(np.deg2rad(degrees - 60))
    assert _frontal_axis(lead_i, lead_ii - lead_i / 2) == pytest.approx(degrees)
    assert np.isnan(_frontal_axis(np.nan, 1.0))
    assert np.isnan(_frontal_axis(0.0, 0.0))


def test_a_normal_ecg_carries_no_flag() -> None:
    found = flags(NORMAL)
    assert list(found) == list(MARKERS)
    assert len(MARKERS) == 15
    assert found[list(FLAGS)].to_numpy().sum() == 0
    assert found["heart_rate_bpm"].iloc[0] == 70


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("long_p", {"p_duration_ms": 121}),
        ("long_pr", {"pr_ms": 201}),
        ("wide_qrs", {"qrs_ms": 101}),
        ("long_qt", {"qtc_fridericia_ms": 460}),
        ("abnormal_p_axis", {"p_axis_deg": 80}),
        ("abnormal_p_axis", {"p_axis_deg": -1}),
        ("left_axis", {"qrs_axis_deg": -31}),
        ("right_axis", {"qrs_axis_deg": 91}),
        ("right_axis", {"qrs_axis_deg": -170}),
        ("abnormal_qrs_t_angle", {"qrs_t_angle_deg": 100}),
        ("rbbb", {"qrs_ms": 130, "v1_late_mv": 0.4, "v1_mean_mv": 0.1, "lateral_late_mv": -0.2}),
        ("lbbb", {"qrs_ms": 140, "v1_mean_mv": -0.5, "lateral_mean_mv": 0.5, "lateral_q_mv": 0.0}),
        ("lvh", {"sokolow_lyon_mv": 3.5}),
        ("lvh", {"cornell_mv": 2.9}),
        ("low_voltage", {"limb_peak_to_peak_mv": 0.45}),
        ("low_voltage", {"chest_peak_to_peak_mv": 0.9}),
        ("st_t_abnormal", {"st_lowest_mv": -0.06}),
        ("st_t_abnormal", {"t_lowest_mv": -0.2}),
        ("st_t_abnormal", {"st_highest_mv": 0.15}),
        ("delayed_intrinsicoid", {"intrinsicoid_ms": 50}),
    ],
)
def test_each_flag_is_raised_by_its_own_measurement_alone(name: str, changes: dict[str, float]) -> None:
    found = flags({**NORMAL, **changes})[list(FLAGS)].iloc[0]
    also = {"wide_qrs"} if name in ("rbbb", "lbbb") else set()
    assert set(found.index[found == 1]) == {name} | also


def test_limits_of_qtc_and_cornell_voltage_depend_on_sex() -> None:
    assert [flag("long_qt", sex, qtc_fridericia_ms=455) for sex in ("male", "female", None)] == [1, 0, 0]
    assert [flag("lvh", sex, cornell_mv=2.4) for sex in ("male", "female", None)] == [0, 1, 0]
    table = pd.DataFrame(
        [{**NORMAL, "cornell_mv": 2.4, "sex": sex} for sex in ("male", "female", None)], index=[5, 6, 9]
    )
    assert flags(table)["lvh"].to_dict() == {5: 0, 6: 1, 9: 0}


def test_a_flag_is_nan_only_where_what_is_missing_could_decide_it() -> None:
    assert np.isnan(flag("long_pr", pr_ms=np.nan))
    assert np.isnan(flag("lvh", cornell_mv=np.nan))
    assert flag("lvh", cornell_mv=np.nan, sokolow_lyon_mv=4.0) == 1
    assert flag("rbbb", v1_late_mv=np.nan) == 0  # the QRS is narrow
    assert np.isnan(flag("rbbb", v1_late_mv=np.nan, qrs_ms=130, lateral_late_mv=-0.1))


def test_flags_refuse_a_table_without_a_measurement() -> None:
    with pytest.raises(ValueError, match="missing pr_ms, qrs_ms"):
        flags(pd.DataFrame([NORMAL]).drop(columns=["pr_ms", "qrs_ms"]))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "synthetic"
    synthetic.write_cohort(folder, 20)
    return folder


def test_a_folder_becomes_a_table_that_is_read_again_without_measuring(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure_table(cohort, cache_dir=tmp_path, num_proc=2)
    truth = pd.read_csv(cohort / "table.csv", dtype={"record_id": str})
    assert list(first["record_id"]) == list(truth["record_id"])
    assert list(first["age"]) == list(truth["age"])
    assert np.corrcoef(first["heart_rate_bpm"], truth["heart_rate_bpm"])[0, 1] > 0.99
    assert np.corrcoef(first["qrs_ms"], truth["qrs_duration_ms"])[0, 1] > 0.9
    monkeypatch.setattr(measurement_table, "measure_ecg", None)
    pd.testing.assert_frame_equal(measure_table(cohort, cache_dir=tmp_path), first)


def test_an_interrupted_run_goes_on_where_it_stopped(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure_table(cohort, cache_dir=tmp_path / "whole")
    measured = []

    def until_interrupted(record: EcgRecord) -> dict[str, float]:
        if len(measured) == 18:
            raise KeyboardInterrupt
        measured.append(record.record_id)
        return measure_ecg(record)

    monkeypatch.setattr(measurement_table, "measure_ecg", until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_table(cohort, cache_dir=tmp_path)
    measured.clear()
    pd.testing.assert_frame_equal(measure_table(cohort, cache_dir=tmp_path), whole)
    assert len(measured) == 4  # a shard of 16 was written


def test_a_record_that_cannot_be_measured_is_nan_and_counted(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flat = tmp_path / "flat"
    wfdb.wrsamp("flat", 500, ["mV"] * 2, ["I", "II"], np.full((5000, 2), 0.1), fmt=["16"] * 2, write_dir=str(tmp_path))
    good = next(cohort.rglob("*.hea")).with_suffix("")
    table = pd.DataFrame({"record_id": [7, 8], "file": [str(good), str(flat)]})
    with caplog.at_level(logging.WARNING):
        found = measure_table(table, cache_dir=tmp_path)
    assert np.isnan(found.loc[1, list(MEASUREMENTS)].astype(float)).all()
    assert np.isfinite(found.loc[0, "qrs_ms"])
    assert "1 of 2 records cannot be measured" in caplog.text
    with pytest.raises(ValueError, match="none of 1 records can be measured"):
        measure_table(table[1:], cache_dir=tmp_path)


def test_a_table_must_name_each_record_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing file"):
        measure_table(pd.DataFrame({"record_id": [1]}), cache_dir=tmp_path)
    with pytest.raises(ValueError, match="got 1 more than once"):
        measure_table(pd.DataFrame({"record_id": [1, 1], "file": ["a", "b"]}), cache_dir=tmp_path)
    with pytest.raises(ValueError, match="at least one record"):
        measure_table(pd.DataFrame({"record_id": [], "file": []}), cache_dir=tmp_path)


def hand_marked(record: Path, lead: str) -> dict[str, float]:
    """Median P, PR, QRS and QT of one lead, ms, from the marks `(`, wave, `)`."""
    marks = wfdb.rdann(str(record), lead)
    waves = [
        (kind, marks.sample[i - 1], marks.sample[i + 1])
        for i, kind in enumerate(marks.symbol)
        if kind in "pNt" and marks.symbol[i - 1 : i] == ["("] and marks.symbol[i + 1 : i + 2] == [")"]
    ]
    found: dict[str, list[float]] = {"p_duration_ms": [], "pr_ms": [], "qrs_ms": [], "qt_ms": []}
    for one, two in pairwise(waves):
        if one[0] == "p":
            found["p_duration_ms"].append(2.0 * (one[2] - one[1]))
        if (one[0], two[0]) == ("p", "N"):
            found["pr_ms"].append(2.0 * (two[1] - one[1]))
        if one[0] == "N":
            found["qrs_ms"].append(2.0 * (one[2] - one[1]))
        if (one[0], two[0]) == ("N", "t"):
            found["qt_ms"].append(2.0 * (two[2] - one[1]))
    return {name: float(np.median(values)) if values else np.nan for name, values in found.items()}


def test_intervals_agree_with_the_hand_marks_of_records_they_were_not_tuned_on(shared: Path) -> None:
    folder = shared / "data" / "ludb" / "data"
    leads = [lead.lower() for lead in STANDARD_LEADS]
    errors = []
    for number in range(51, 76):
        marked = pd.DataFrame([hand_marked(folder / str(number), lead) for lead in leads]).median()
        errors.append(pd.Series(measure(read(folder / f"{number}.hea")))[marked.index] - marked)
    found = pd.DataFrame(errors).abs().median()
    assert found["pr_ms"] < 10
    assert found["qrs_ms"] < 10
    assert found["qt_ms"] < 12
    assert found["p_duration_ms"] < 20  # over all leads the P wave is longer than in one


def test_measurements_tell_the_blocks_rates_and_axes_that_cardiologists_stated(shared: Path) -> None:
    table = read_source("ptb-xl", shared / "data" / "ptb-xl")
    stated = table["scp_codes"].map(lambda text: set(json.loads(text)))
    groups = ("CLBBB", "CRBBB", "1AVB", "LAFB", "STACH", "SBRAD", "AFIB", "NORM")
    chosen = {group: table[[group in codes for codes in stated]].head(10) for group in groups}
    found = {
        group: pd.DataFrame([measure(file.read()) for file in RecordFile.of_table(rows)])
        for group, rows in chosen.items()
    }
    normal = found["NORM"].median()
    assert 80 < normal["qrs_ms"] < 100
    assert 140 < normal["pr_ms"] < 170
    assert min(found["CLBBB"]["qrs_ms"].median(), found["CRBBB"]["qrs_ms"].median()) > 120
    assert found["1AVB"]["pr_ms"].median() > 195
    assert found["LAFB"]["qrs_axis_deg"].median() < -30
    assert found["STACH"]["heart_rate_bpm"].median() > 100
    assert found["SBRAD"]["heart_rate_bpm"].median() < 60
    assert found["AFIB"]["pr_ms"].isna().mean() >= 0.7
    assert flags(found["CLBBB"])["lbbb"].mean() >= 0.6
    assert flags(found["CRBBB"])["rbbb"].mean() >= 0.6
    assert flags(found["NORM"])[["rbbb", "lbbb"]].to_numpy().sum() == 0
