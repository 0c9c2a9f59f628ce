"""Measurements of a 12-lead ECG from its signal, and the fifteen markers of a Cox model on ECG measurements.

The markers are those the dual attention network was compared with (arXiv 2403.10581): heart rate and fourteen flags,
after O'Neal et al., J Am Heart Assoc 6:e006023 (2017). Everything is measured on the median beat of
`model/median_beat_ecgdan.py`, delineated by `delineation.py`; without a needed lead or wave the result is NaN. Not for
diagnosis.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.data.measure.delineated_ecg import DelineatedEcg
from ecgdan_hf.data.measure.delineation import RATE_HZ, Waves, above_chord
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS

ST_DELAY_SECONDS = 0.06  # ST level: 60 ms after the J point

LATERAL_LEADS = ("I", "V5", "V6")
LIMB_LEADS, CHEST_LEADS = STANDARD_LEADS[:6], STANDARD_LEADS[6:]
NEIGHBOURS = (("I", "aVL"), ("II", "aVF"), ("III", "aVF"), ("V2", "V3"), ("V3", "V4"), ("V4", "V5"), ("V5", "V6"))
UPRIGHT_T = (("I", "aVL"), ("I", "II"), ("V4", "V5"), ("V5", "V6"))  # neighbours whose T waves are upright in health
NO_ELEVATION = (("I", "aVL"), ("II", "aVF"), ("III", "aVF"), ("V4", "V5"), ("V5", "V6"))  # V2-V3 rise in health

MEASUREMENTS = {
    "heart_rate_bpm": "heart rate from the median RR interval, beats per minute",
    "p_duration_ms": "P wave, ms",
    "pr_ms": "PR interval, P onset to QRS onset, ms",
    "qrs_ms": "QRS complex, ms",
    "qt_ms": "QT interval, QRS onset to T end, ms",
    "qtc_bazett_ms": "QT / RR^(1/2), RR in seconds, ms (Bazett, Heart 7:353, 1920)",
    "qtc_fridericia_ms": "QT / RR^(1/3), RR in seconds, ms (Fridericia, Acta Med Scand 53:469, 1920)",
    "p_axis_deg": "frontal axis of the P wave's net area, degrees in (-180, 180], 0 = lead I, 90 = aVF",
    "qrs_axis_deg": "the same of the QRS complex",
    "t_axis_deg": "the same of the T wave",
    "qrs_t_angle_deg": "frontal angle between QRS and T axis, degrees, 0 to 180",
    "sokolow_lyon_mv": "S in V1 + the larger R of V5 and V6, mV (Sokolow and Lyon, Am Heart J 37:161, 1949)",
    "cornell_mv": "R in aVL + S in V3, mV (Casale et al., J Am Coll Cardiol 6:572, 1985)",
    "limb_peak_to_peak_mv": "largest QRS amplitude, peak to peak, of the limb leads, mV",
    "chest_peak_to_peak_mv": "the same of the chest leads",
    "st_lowest_mv": "ST level at J + 60 ms that two neighbouring leads both reach or go below, the deepest, mV",
    "st_highest_mv": "the same upwards, without V1-V3",
    "t_lowest_mv": "T amplitude that two neighbouring leads with upright T in health both reach or go below, mV",
    "intrinsicoid_ms": "QRS onset to the R peak in V5 or V6, the later, ms",
    "v1_late_mv": "mean of V1 over the last third of the QRS, mV: positive in right bundle branch block",
    "lateral_late_mv": "mean of I, V5, V6 over the same, mV: negative in right bundle branch block (wide S)",
    "v1_mean_mv": "mean of V1 over the QRS, mV: negative in left bundle branch block",
    "lateral_mean_mv": "mean of I, V5, V6 over the second half of the QRS, mV: positive in left bundle branch block",
    "lateral_q_mv": "depth of the deepest Q wave of I, V5, V6, mV, 0 without: none in left bundle branch block",
}

P_DURATION_LIMIT_MS = 120.0  # Bayes de Luna et al., J Electrocardiol 45:445 (2012)
PR_LIMIT_MS = 200.0  # Surawicz et al., Circulation 119:e235 (2009)
QRS_LIMIT_MS = 100.0  # as in the paper above; 110 in Surawicz et al.
QTC_LIMITS_MS = {"male": 450.0, "female": 460.0}  # Rautaharju et al., Circulation 119:e241 (2009)
NORMAL_P_AXIS_DEG = (0.0, 75.0)  # Li et al., Am J Cardiol 113:372 (2014)
NORMAL_QRS_AXIS_DEG = (-30.0, 90.0)  # Surawicz et al., Circulation 119:e235 (2009)
QRS_T_LIMIT_DEG = 100.0  # frontal; Aro et al., Europace 14:872 (2012)
BUNDLE_BRANCH_BLOCK_MS = 120.0  # Surawicz et al. 2009
LBBB_Q_LIMIT_MV = 0.05  # "absent Q": less than half a millimetre, the noise of a median beat
SOKOLOW_LIMIT_MV = 3.5  # Sokolow and Lyon 1949
CORNELL_LIMITS_MV = {"male": 2.8, "female": 2.0}  # Casale et al. 1985
LOW_LIMB_MV, LOW_CHEST_MV = 0.5, 1.0  # Minnesota code 9-1
ST_DEPRESSION_MV, ST_ELEVATION_MV = -0.05, 0.1  # Fourth Universal Definition, Thygesen et al., Circulation 138:e618
T_INVERSION_MV = -0.1  # the same source, 2018
INTRINSICOID_LIMIT_MS = 50.0  # O'Neal et al., Clin Cardiol 39:531 (2016)

FLAGS = (
    "long_p",
    "long_pr",
    "wide_qrs",
    "long_qt",
    "abnormal_p_axis",
    "left_axis",
    "right_axis",
    "abnormal_qrs_t_angle",
    "rbbb",
    "lbbb",
    "lvh",
    "low_voltage",
    "st_t_abnormal",
    "delayed_intrinsicoid",
)
MARKERS = ("heart_rate_bpm", *FLAGS)


def measure(record: EcgRecord) -> dict[str, float]:
    """Measures an ECG on its median beat; limb leads that follow from two others are derived.

    Returns the keys of `MEASUREMENTS`, which states units and sources; NaN without the lead or wave. Raises ValueError
    for a recording that cannot be in millivolt, is shorter than 2.4 s, or has no usable lead or beat.
    """
    return measure_delineated(DelineatedEcg.of(record.signal_mv, record.sampling_rate, record.lead_names))


def measure_delineated(ecg: DelineatedEcg) -> dict[str, float]:
    """Returns the keys of `MEASUREMENTS`, NaN without the lead or wave."""
    levels, waves, rate = ecg.levels_mv, ecg.waves, ecg.heart_rate_bpm
    found = {
        "heart_rate_bpm": rate,
        **_intervals(waves, rate),
        **_axes(levels, waves),
        **_voltages(levels, waves),
        **_repolarisation(levels, waves),
        **_conduction(levels, waves),
    }
    return {name: float(found[name]) for name in MEASUREMENTS}


def _intervals(waves: Waves, rate: float) -> dict[str, float]:
    milliseconds, rr_seconds = 1000.0 / RATE_HZ, 60.0 / rate
    first, last = waves.qrs
    qt = math.nan if waves.t_end is None else (waves.t_end - first) * milliseconds
    return {
        "p_duration_ms": math.nan if waves.p is None else (waves.p[1] - waves.p[0]) * milliseconds,
        "pr_ms": math.nan if waves.p is None else (first - waves.p[0]) * milliseconds,
        "qrs_ms": (last - first) * milliseconds,
        "qt_ms": qt,
        "qtc_bazett_ms": qt / rr_seconds ** (1 / 2),
        "qtc_fridericia_ms": qt / rr_seconds ** (1 / 3),
    }


def _frontal_axis(net_i: float, net_avf: float) -> float:
    """Frontal axis in degrees from net areas (or amplitudes) of I and aVF; NaN where either is missing or both are 0.

    aVF is an augmented lead, shorter than I by cos 30 degrees. Source: Novosel et al., Croat Med J 40:77 (1999).

    >>> round(_frontal_axis(1.0, 0.0)), round(_frontal_axis(0.0, 1.0))
    (0, 90)
    """
    if math.isnan(net_i + net_avf) or net_i == net_avf == 0:
        return math.nan
    return math.degrees(math.atan2(net_avf * 2 / math.sqrt(3), net_i))


def _axes(levels: Mapping[str, np.ndarray], waves: Waves) -> dict[str, float]:
    first, last = waves.qrs
    p_axis = t_axis = math.nan
    if waves.p is not None:
        onset, end = waves.p
        p_wave = {lead: above_chord(x[None, onset - 4 : end + 4])[0] for lead, x in levels.items()}
        p_axis = _frontal_axis(_net(p_wave, "I"), _net(p_wave, "aVF"))
    if waves.t_end is not None:
        t_wave = {lead: x[last + round(ST_DELAY_SECONDS * RATE_HZ) : waves.t_end] for lead, x in levels.items()}
        t_axis = _frontal_axis(_net(t_wave, "I"), _net(t_wave, "aVF"))
    qrs = {lead: x[first:last] for lead, x in levels.items()}
    qrs_axis = _frontal_axis(_net(qrs, "I"), _net(qrs, "aVF"))
    angle = abs(qrs_axis - t_axis)
    return {
        "p_axis_deg": p_axis,
        "qrs_axis_deg": qrs_axis,
        "t_axis_deg": t_axis,
        "qrs_t_angle_deg": min(angle, 360 - angle) if not math.isnan(angle) else math.nan,
    }


def _net(wave: Mapping[str, np.ndarray], lead: str) -> float:
    return float(wave[lead].sum()) if lead in wave else math.nan


def _voltages(levels: Mapping[str, np.ndarray], waves: Waves) -> dict[str, float]:
    qrs = {lead: x[waves.qrs[0] : waves.qrs[1]] for lead, x in levels.items()}
    r = {lead: max(0.0, float(x.max())) for lead, x in qrs.items()}
    s = {lead: max(0.0, -float(x.min())) for lead, x in qrs.items()}
    size = {lead: float(np.ptp(x)) for lead, x in qrs.items()}
    return {
        "sokolow_lyon_mv": s.get("V1", math.nan) + _largest([r.get("V5", math.nan), r.get("V6", math.nan)]),
        "cornell_mv": r.get("aVL", math.nan) + s.get("V3", math.nan),
        "limb_peak_to_peak_mv": _largest([size.get(lead, math.nan) for lead in LIMB_LEADS]),
        "chest_peak_to_peak_mv": _largest([size.get(lead, math.nan) for lead in CHEST_LEADS]),
    }


def _largest(values: Sequence[float]) -> float:
    """The largest value; NaN if one is missing, as a maximum over some of the leads would be a guess."""
    return math.nan if any(math.isnan(value) for value in values) or not values else max(values)


def _repolarisation(levels: Mapping[str, np.ndarray], waves: Waves) -> dict[str, float]:
    st, t = st_and_t(levels, waves)
    upwards = {lead: -level for lead, level in st.items()}
    return {
        "st_lowest_mv": _reached_by_two(st, NEIGHBOURS),
        "st_highest_mv": -_reached_by_two(upwards, NO_ELEVATION),
        "t_lowest_mv": _reached_by_two(t, UPRIGHT_T),
    }


def st_and_t(levels_mv: Mapping[str, np.ndarray], waves: Waves) -> tuple[dict[str, float], dict[str, float]]:
    """ST level at J + 60 ms and T amplitude of each lead, mV; no T amplitude without a T wave.

    Args:
        levels_mv: lead -> (600,), a median beat above its isoelectric level.
        waves: of that beat.
    """
    j60 = waves.qrs[1] + round(ST_DELAY_SECONDS * RATE_HZ)
    st = {lead: float(x[j60 - 2 : j60 + 3].mean()) for lead, x in levels_mv.items()}
    t = {} if waves.t_end is None else {lead: _extreme(x[j60 : waves.t_end]) for lead, x in levels_mv.items()}
    return st, t


def _extreme(wave: np.ndarray) -> float:
    return float(wave[np.abs(wave).argmax()]) if len(wave) else math.nan


def _reached_by_two(levels: Mapping[str, float], pairs: Sequence[tuple[str, str]]) -> float:
    """The lowest level that both leads of a pair reach; NaN if a pair is missing."""
    reached = [max(levels.get(a, math.nan), levels.get(b, math.nan), key=_nan_first) for a, b in pairs]
    return -_largest([-level for level in reached])


def _nan_first(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _conduction(levels: Mapping[str, np.ndarray], waves: Waves) -> dict[str, float]:
    first, last = waves.qrs
    nothing = {"intrinsicoid_ms", "v1_late_mv", "lateral_late_mv", "v1_mean_mv", "lateral_mean_mv", "lateral_q_mv"}
    found = dict.fromkeys(nothing, math.nan)
    if "V1" in levels:
        found["v1_late_mv"] = float(levels["V1"][last - (last - first) // 3 : last].mean())
        found["v1_mean_mv"] = float(levels["V1"][first:last].mean())
    if all(lead in levels for lead in LATERAL_LEADS):
        lateral = np.stack([levels[lead][first:last] for lead in LATERAL_LEADS])
        peaks = lateral.argmax(axis=1)
        found["lateral_late_mv"] = float(lateral[:, -((last - first) // 3) :].mean())
        found["lateral_mean_mv"] = float(lateral[:, (last - first) // 2 :].mean())
        found["lateral_q_mv"] = max(max(0.0, -float(x[: n + 1].min())) for x, n in zip(lateral, peaks, strict=True))
        found["intrinsicoid_ms"] = float(peaks[1:].max()) * 1000.0 / RATE_HZ
    return found


def flags(measurements: Mapping[str, Any] | pd.DataFrame, sex: Any = None) -> pd.DataFrame:
    """The fifteen markers: heart rate and fourteen flags, by the limits above.

    Args:
        measurements: the keys of `MEASUREMENTS`, of one record or as columns of a table.
        sex: `"male"`, `"female"` or None, one for each record; default the column `sex`, if there is one. Without a
            sex the higher limits of QTc and Cornell voltage apply.

    Returns:
        Columns `MARKERS`, one row per record: beats per minute, and flags of 1.0, 0.0, or NaN if a measurement is
        missing.
    """
    table = measurements if isinstance(measurements, pd.DataFrame) else pd.DataFrame([dict(measurements)])
    absent = [name for name in MEASUREMENTS if name not in table]
    if absent:
        raise ValueError(f"measurements: expected the columns of measure, missing {', '.join(absent)}")
    if sex is None:
        sex = table.get("sex")
    sexes = pd.Series([sex] * len(table) if sex is None or isinstance(sex, str) else list(sex), dtype=object)
    known = table[list(MEASUREMENTS)].astype("Float64").reset_index(drop=True)  # "or" and "and" of unknowns: Kleene
    found = {"heart_rate_bpm": known["heart_rate_bpm"], **_interval_flags(known, sexes), **_shape_flags(known, sexes)}
    columns = {name: found[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan) for name in MARKERS}
    return pd.DataFrame(columns, index=table.index)


def _interval_flags(known: pd.DataFrame, sexes: pd.Series) -> dict[str, pd.Series]:
    p_axis, qrs_axis = known["p_axis_deg"], known["qrs_axis_deg"]
    qtc_limit = sexes.map(QTC_LIMITS_MS).astype(float).fillna(max(QTC_LIMITS_MS.values()))
    return {
        "long_p": known["p_duration_ms"] > P_DURATION_LIMIT_MS,
        "long_pr": known["pr_ms"] > PR_LIMIT_MS,
        "wide_qrs": known["qrs_ms"] > QRS_LIMIT_MS,
        "long_qt": known["qtc_fridericia_ms"] >= qtc_limit,
        "abnormal_p_axis": (p_axis < NORMAL_P_AXIS_DEG[0]) | (p_axis > NORMAL_P_AXIS_DEG[1]),
        "left_axis": (qrs_axis < NORMAL_QRS_AXIS_DEG[0]) & (qrs_axis >= -90),
        "right_axis": (qrs_axis > NORMAL_QRS_AXIS_DEG[1]) | (qrs_axis < -90),
        "abnormal_qrs_t_angle": known["qrs_t_angle_deg"] >= QRS_T_LIMIT_DEG,
        "delayed_intrinsicoid": known["intrinsicoid_ms"] >= INTRINSICOID_LIMIT_MS,
    }


def _shape_flags(known: pd.DataFrame, sexes: pd.Series) -> dict[str, pd.Series]:
    wide = known["qrs_ms"] >= BUNDLE_BRANCH_BLOCK_MS
    left_late = (known["v1_mean_mv"] < 0) & (known["lateral_mean_mv"] > 0)
    cornell_limit = sexes.map(CORNELL_LIMITS_MV).astype(float).fillna(max(CORNELL_LIMITS_MV.values()))
    depressed = (known["st_lowest_mv"] <= ST_DEPRESSION_MV) | (known["t_lowest_mv"] <= T_INVERSION_MV)
    return {
        "rbbb": wide & (known["v1_late_mv"] > 0) & (known["lateral_late_mv"] < 0),
        "lbbb": wide & left_late & (known["lateral_q_mv"] < LBBB_Q_LIMIT_MV),
        "lvh": (known["sokolow_lyon_mv"] >= SOKOLOW_LIMIT_MV) | (known["cornell_mv"] > cornell_limit),
        "low_voltage": (known["limb_peak_to_peak_mv"] < LOW_LIMB_MV) | (known["chest_peak_to_peak_mv"] < LOW_CHEST_MV),
        "st_t_abnormal": depressed | (known["st_highest_mv"] >= ST_ELEVATION_MV),
    }
