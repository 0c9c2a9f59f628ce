"""Rhythm, early beats, pacing spikes, and ST and T by region, against synthetic ECGs whose truth is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgdan_hf.data.measure.delineated_ecg import DelineatedEcg
from ecgdan_hf.data.measure.delineation import Waves
from ecgdan_hf.data.measure.measurements import MEASUREMENTS
from ecgdan_hf.data.measure.rhythm import REGIONS, RHYTHM, _q_and_r, measure_ecg, measure_rhythm
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.data.simulate.premature_beats import SimulatedEcg
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks


def measured(signal_mv: np.ndarray, rate: float = 500, leads: tuple[str, ...] = STANDARD_LEADS) -> dict[str, float]:
    return measure_rhythm(DelineatedEcg.of(signal_mv, rate, leads))


def simulated(kind: str, ventricular_share: float, seed: int) -> SimulatedEcg:
    signal = synthetic.make_signal(0.0, 98.0, 62.0, seed).astype(float)
    rng = np.random.default_rng(seed)
    return SimulatedEcg.simulate(signal, 500, find_r_peaks(signal, 500), rng, kind, ventricular_share)


def test_rhythm_and_beat_measurements_share_no_name_and_go_together() -> None:
    assert not set(RHYTHM) & set(MEASUREMENTS)
    record = EcgRecord(synthetic.make_signal(0.0, 98.0, 70.0, 3), 500, STANDARD_LEADS)
    assert list(measure_ecg(record)) == [*MEASUREMENTS, *RHYTHM]


@pytest.mark.parametrize("rate", [50.0, 70.0, 105.0])
def test_a_regular_rhythm_measures_as_it_was_made(rate: float) -> None:
    found = measured(synthetic.make_signal(0.0, 98.0, rate, seed=3))
    assert list(found) == list(RHYTHM)
    assert found["rr_seconds"] == pytest.approx(60 / rate, rel=0.04)
    assert found["num_beats"] == pytest.approx(rate / 6, abs=1.5)
    assert found["rr_variation"] < 0.06
    assert found["early_narrow_beats"] == found["early_wide_beats"] == found["unlike_beats"] == 0
    assert found["p_likeness"] > 0.7
    assert found["spike_ratio"] < 0.25


def test_variation_is_that_of_the_intervals() -> None:
    made = [simulated("arrhythmia", 0.0, seed) for seed in range(6)]
    intervals = [np.diff(true.r_peaks) * 2.0 for true in made]
    true = pd.DataFrame(
        {
            "rr_variation": [rr.std() / rr.mean() for rr in intervals],
            "rr_range_ms": [np.ptp(rr) for rr in intervals],
            "rmssd_ms": [np.sqrt(np.mean(np.diff(rr) ** 2)) for rr in intervals],
            "pnn50": [np.mean(np.abs(np.diff(rr)) > 50) for rr in intervals],
        }
    )
    found = pd.DataFrame([measured(each.signal_mv) for each in made])[true.columns]
    assert ((found - true).abs() / true).median().max() < 0.1


def test_fibrillation_is_irregular_and_has_no_p_wave() -> None:
    found = pd.DataFrame([measured(simulated("fibrillation", 0.0, seed).signal_mv) for seed in range(8)]).median()
    regular = pd.DataFrame([measured(simulated("sinus", 0.0, seed).signal_mv) for seed in range(8)]).median()
    assert found["rr_variation"] > 0.1 > regular["rr_variation"]
    assert found["p_likeness"] < 0.5 < regular["p_likeness"]


def test_early_beats_are_told_apart_by_their_shape() -> None:
    narrow = [simulated("premature", 0.0, seed) for seed in range(10)]
    found = pd.DataFrame([measured(true.signal_mv) for true in narrow])
    assert np.corrcoef(found["early_narrow_beats"], [true.premature.sum() for true in narrow])[0, 1] > 0.6
    assert (found["early_wide_beats"] == 0).mean() >= 0.9
    wide = [simulated("sinus", 1.0, seed) for seed in range(20)]
    wide = [true for true in wide if 1 <= true.ventricular.sum() <= 3]
    found = pd.DataFrame([measured(true.signal_mv) for true in wide])
    assert len(wide) >= 5
    assert (found["unlike_beats"] > 0).mean() >= 0.8
    assert found["early_wide_beats"].sum() > 2 * found["early_narrow_beats"].sum()


def test_the_start_of_a_beat_that_the_end_cuts_off_is_no_early_beat(shared: Path) -> None:
    table = read_source("ptb-xl", shared / "data" / "ptb-xl")
    cut_off = table[table["record_id"].isin(["15", "60", "68", "89", "97"])]  # a P wave within 0.3 s of the end
    found = pd.DataFrame([measure_ecg(file.read()) for file in RecordFile.of_table(cut_off)])
    assert (found["early_wide_beats"] == 0).all()
    assert (found["rr_variation"] < 0.1).all()


def test_too_few_beats_say_nothing_of_variation() -> None:
    found = measured(synthetic.make_signal(0.0, 98.0, 50.0, 3)[:, :1500])
    assert found["num_beats"] in (2, 3)
    assert np.isfinite(found["st_lateral_lowest_mv"])
    for name in ("rr_seconds", "rr_variation", "rr_range_ms", "rmssd_ms", "pnn50", "early_wide_beats", "unlike_beats"):
        assert np.isnan(found[name]), name


def test_strain_is_measured_in_the_region_that_shows_it_and_needs_its_leads() -> None:
    normal, strained = (measured(synthetic.make_signal(strain, 98.0, 70.0, 3)) for strain in (0.0, 2.0))
    assert strained["t_lateral_lowest_mv"] < -0.1 < normal["t_lateral_lowest_mv"]
    assert strained["st_lateral_lowest_mv"] < normal["st_lateral_lowest_mv"]
    limb = measured(synthetic.make_signal(0.0, 98.0, 70.0, 3)[:6], leads=STANDARD_LEADS[:6])
    assert np.isnan(
        [limb[f"{wave}_{region}_highest_mv"] for wave in "st" for region in ("anterior",) if wave == "t"]
    ).all()
    missing = ("st_lateral_lowest_mv", "t_anterior_lowest_mv", "q_lateral", "q_anterior", "r_anterior_mv")
    assert np.isnan([limb[name] for name in missing]).all()
    assert limb["t_inferior_lowest_mv"] == pytest.approx(normal["t_inferior_lowest_mv"], abs=0.02)
    for region in REGIONS:
        assert normal[f"st_{region}_lowest_mv"] <= normal[f"st_{region}_highest_mv"]


def q_waves(milliseconds: int, depth_mv: float, leads: tuple[str, ...]) -> dict[str, float]:
    """Measurements of a beat whose QRS begins with a negative wave in these leads and is positive in the others."""
    qrs, start, samples = np.zeros((12, 600)), 220, milliseconds // 2
    qrs[:, start + samples : start + samples + 20] = np.hanning(20)
    for lead in leads:
        qrs[STANDARD_LEADS.index(lead), start : start + samples] = -depth_mv
    waves = Waves((start - 2, start + samples + 24), None, None)
    beat = dict(zip(STANDARD_LEADS, qrs, strict=True))
    return _q_and_r(DelineatedEcg({}, np.array([240]), beat, waves, 0.0, 60.0, 500.0))


def test_a_q_wave_counts_by_duration_and_depth_in_two_leads_of_its_region() -> None:
    assert q_waves(60, 0.2, ("III", "aVF"))["q_inferior"] == pytest.approx(2, abs=0.1)
    assert q_waves(60, 0.05, ("III", "aVF"))["q_inferior"] == pytest.approx(0.5)
    assert q_waves(20, 0.4, ("III", "aVF"))["q_inferior"] == pytest.approx(2 / 3, abs=0.1)
    assert q_waves(60, 0.2, ("III",))["q_inferior"] == 0
    found = q_waves(60, 0.2, ("I", "V6"))
    assert found["q_lateral"] > 1
    assert found["q_anterior"] == found["q_inferior"] == 0
    assert found["r_anterior_mv"] == pytest.approx(1.0, abs=0.02)


def test_pacing_spikes_are_seen_where_the_sampling_rate_can_hold_them() -> None:
    signal = synthetic.make_signal(0.0, 150.0, 70.0, 3).astype(float)
    paced = signal.copy()
    for peak in find_r_peaks(signal, 500):
        paced[:, max(0, peak - 40)] += np.linspace(-1, 2, 12)
    assert measured(paced)["spike_ratio"] > 0.4 > 0.25 > measured(signal)["spike_ratio"]
    assert np.isnan(measured(paced[:, ::2], 250)["spike_ratio"])


def test_rhythms_that_cardiologists_stated_measure_so(shared: Path) -> None:
    table = read_source("ptb-xl", shared / "data" / "ptb-xl", label_level="statement")
    table = table[table["fold"] < 9]
    stated = table["scp_codes"].map(lambda text: set(json.loads(text)))
    stated = stated.map(lambda codes: codes - {"NORM"} if codes & {"PVC", "PAC", "PRC(S)"} else codes)
    groups = {code: table[[code in codes for codes in stated]].head(8) for code in ("AFIB", "NORM", "PACE", "PVC")}
    found = {
        code: pd.DataFrame([measure_ecg(file.read()) for file in RecordFile.of_table(rows)])
        for code, rows in groups.items()
    }
    medians = pd.DataFrame({code: values.median() for code, values in found.items()})
    assert medians.loc["rr_variation", "AFIB"] > 2 * medians.loc["rr_variation", "NORM"]
    assert medians.loc["p_likeness", "AFIB"] < 0.2 < 0.7 < medians.loc["p_likeness", "NORM"]
    assert medians.loc["spike_ratio", "PACE"] > 2 * medians.loc["spike_ratio", "NORM"]
    assert (found["PVC"]["early_wide_beats"] > 0).mean() > 0.7 > 0.1 > (found["NORM"]["early_wide_beats"] > 0).mean()


def test_premature_beats_of_holter_recordings_are_counted(mitbih_table: pd.DataFrame) -> None:
    table = mitbih_table
    ventricular = table[(table["beats_PVC"] > 0) & (table["beats_PVC"] <= 3) & (table["beats_APC"] == 0)].iloc[::24]
    atrial = table[(table["beats_APC"] > 0) & (table["beats_APC"] <= 3) & (table["beats_PVC"] == 0)].iloc[::6]
    normal = table[(table["beats_NORMAL"] == table["num_beats"]) & (table["patient_id"] != "203")].iloc[::40]
    found = {
        name: pd.DataFrame([measure_ecg(file.read()) for file in RecordFile.of_table(rows)])
        for name, rows in (("ventricular", ventricular), ("atrial", atrial), ("normal", normal))
    }
    early = pd.DataFrame(
        {name: (each[["early_wide_beats", "early_narrow_beats"]] > 0).mean() for name, each in found.items()}
    )
    assert early.loc["early_wide_beats", "ventricular"] > 0.7 > 0.2 > early.loc["early_wide_beats", "normal"]
    assert early.loc["early_narrow_beats", "atrial"] > 0.6 > 0.2 > early.loc["early_narrow_beats", "normal"]
