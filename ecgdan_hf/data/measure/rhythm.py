"""Measurements of rhythm over a whole recording, and of Q, R, ST and T by region.

They go with the measurements of the median beat (`measurements.py`) into the table and into measured sentences
(`data/text/measured.py`); comparators use the latter alone. Limits were chosen on PTB-XL folds 1-8. Not for diagnosis.
"""

import math

import numpy as np
from scipy.signal import butter, sosfiltfilt

from ecgdan_hf.data.measure.delineated_ecg import DelineatedEcg
from ecgdan_hf.data.measure.delineation import RATE_HZ
from ecgdan_hf.data.measure.measurements import measure_delineated, st_and_t
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.waveform_danet import qrs_likeness

MIN_BEATS = 4  # three RR intervals; with fewer nothing can be said of their variation
EARLY_NARROW, EARLY_WIDE = 0.85, 0.9  # RR before the beat, of the median of its neighbours; sinus arrhythmia is above
NEIGHBOURS = 3  # RR intervals to each side
UNLIKE = 0.85  # correlation of a QRS with the recording's median QRS, over all leads; less is another shape
END_SECONDS = 0.3  # this close to the ends of a recording only what looks like a QRS counts as one
SPIKE_HZ = 100.0  # a pacing spike lasts 2 ms or less; what the QRS has above this is small
SPIKE_WINDOW = (-150, 50)  # samples from R
MIN_SPIKE_RATE_HZ = 400.0  # slower recordings hold no spike

REGIONS = {"anterior": ("V1", "V2", "V3", "V4"), "lateral": ("I", "aVL", "V5", "V6"), "inferior": ("II", "III", "aVF")}
"""Leads of each wall (Wagner et al., Circulation 119:e262, 2009)."""

ANTERIOR_R = ("V2", "V3", "V4")
Q_SECONDS, Q_MV = 0.03, 0.1  # pathological Q waves (Thygesen et al., Circulation 138:e618, 2018)
QUIET_MV = 0.03  # what the first wave of a QRS exceeds

_HRV = "Task Force of the ESC and NASPE, Circulation 93:1043, 1996"

RHYTHM = {
    "num_beats": "whole beats in the recording",
    "rr_seconds": "median RR interval, s",
    "rr_variation": "standard deviation of the RR intervals over their mean",
    "rr_range_ms": "longest less shortest RR interval, ms",
    "rmssd_ms": f"root mean square of successive differences of RR, ms ({_HRV})",
    "pnn50": f"share of successive differences of RR above 50 ms, 0 to 1 ({_HRV})",
    "early_narrow_beats": "beats that come early with the QRS of the others",
    "early_wide_beats": "beats that come early with another QRS",
    "unlike_beats": "share of beats with another QRS, 0 to 1",
    "p_likeness": "mean correlation of what precedes each QRS with the median beat's P wave; near 0 in fibrillation; 0"
    " where no P wave is found, as when it falls into the T wave before",
    "spike_ratio": "largest deflection above 100 Hz near the QRS, of its largest slope per sample; high in pacing",
    **{
        f"{wave}_{region}_{end}_mv": f"{what} that two of {', '.join(leads)} both reach or go {way}, the {end}, mV"
        for wave, what in (("st", "ST level at J + 60 ms"), ("t", "T amplitude"))
        for region, leads in REGIONS.items()
        for end, way in (("lowest", "below"), ("highest", "above"))
    },
    **{
        f"q_{region}": f"second largest Q wave of {', '.join(leads)}: duration in units of 30 ms or depth in units of "
        "0.1 mV, the smaller; pathological above 1"
        for region, leads in REGIONS.items()
    },
    "r_anterior_mv": "smallest R wave of V2 to V4, mV",
}


def measure_ecg(record: EcgRecord) -> dict[str, float]:
    """Returns the keys of `MEASUREMENTS` and `RHYTHM`, NaN without the lead, wave or beats; errors as `measure`."""
    ecg = DelineatedEcg.of(record.signal_mv, record.sampling_rate, record.lead_names)
    return {**measure_delineated(ecg), **measure_rhythm(ecg)}


def measure_rhythm(ecg: DelineatedEcg) -> dict[str, float]:
    """Returns the keys of `RHYTHM`; what needs RR intervals is NaN with fewer than four beats."""
    r_peaks, likeness = _beats(ecg)
    found = dict.fromkeys(RHYTHM, math.nan)
    found |= {"num_beats": len(r_peaks), "p_likeness": ecg.p_likeness, "spike_ratio": _spike_ratio(ecg)}
    if len(r_peaks) >= MIN_BEATS:
        found |= _intervals(r_peaks) | _odd_beats(r_peaks, likeness)
    st, t = st_and_t(ecg.levels_mv, ecg.waves)
    found |= _by_region("st", st) | _by_region("t", t) | _q_and_r(ecg)
    return {name: float(value) for name, value in found.items()}


def _beats(ecg: DelineatedEcg) -> tuple[np.ndarray, np.ndarray]:
    """R peaks, and the likeness of each QRS to their median; without what the ends of the recording cut off.

    What is unlike a QRS there is often the P wave of the next beat.
    """
    likeness = qrs_likeness(np.stack(list(ecg.signal_mv.values())), RATE_HZ, ecg.r_peaks.astype(float))
    num_samples = len(next(iter(ecg.signal_mv.values())))
    from_end = np.minimum(ecg.r_peaks, num_samples - 1 - ecg.r_peaks)
    is_whole = (likeness >= UNLIKE) | (np.isfinite(likeness) & (from_end >= END_SECONDS * RATE_HZ))
    return ecg.r_peaks[is_whole], likeness[is_whole]


def _intervals(r_peaks: np.ndarray) -> dict[str, float]:
    rr_ms = np.diff(r_peaks) * 1000.0 / RATE_HZ
    successive = np.diff(rr_ms)
    return {
        "rr_seconds": float(np.median(rr_ms)) / 1000.0,
        "rr_variation": float(rr_ms.std() / rr_ms.mean()),
        "rr_range_ms": float(np.ptp(rr_ms)),
        "rmssd_ms": float(np.sqrt(np.mean(successive**2))),
        "pnn50": float(np.mean(np.abs(successive) > 50.0)),
    }


def _odd_beats(r_peaks: np.ndarray, likeness: np.ndarray) -> dict[str, float]:
    is_unlike = likeness < UNLIKE
    ratio = _of_neighbours(np.diff(r_peaks))  # the first beat cannot be early
    return {
        "early_narrow_beats": float(((ratio < EARLY_NARROW) & ~is_unlike[1:]).sum()),
        "early_wide_beats": float(((ratio < EARLY_WIDE) & is_unlike[1:]).sum()),
        "unlike_beats": float(is_unlike.mean()),
    }


def _of_neighbours(rr: np.ndarray) -> np.ndarray:
    """Each RR interval over the median of those around it, itself left out."""
    around = [np.r_[rr[max(0, i - NEIGHBOURS) : i], rr[i + 1 : i + 1 + NEIGHBOURS]] for i in range(len(rr))]
    return np.asarray(rr / np.array([np.median(values) for values in around]))


def _spike_ratio(ecg: DelineatedEcg) -> float:
    signal = np.stack(list(ecg.signal_mv.values()))
    before, after = SPIKE_WINDOW
    peaks = ecg.r_peaks[(ecg.r_peaks >= -before) & (ecg.r_peaks < signal.shape[1] - after)]
    if not len(peaks) or ecg.recorded_hz < MIN_SPIKE_RATE_HZ:
        return math.nan
    sharp = sosfiltfilt(butter(4, SPIKE_HZ, "highpass", fs=RATE_HZ, output="sos"), signal, axis=1)
    windows = peaks[:, None] + np.arange(before, after)
    largest = [np.sqrt((rows**2).sum(axis=0))[windows].max(axis=1) for rows in (sharp, np.gradient(signal, axis=1))]
    return float(np.median(largest[0] / np.maximum(largest[1], 1e-6)))


def _by_region(wave: str, by_lead: dict[str, float]) -> dict[str, float]:
    """Second lowest and second highest value of each region; NaN if one of its leads is missing."""
    found = {}
    for region, leads in REGIONS.items():
        values = sorted(by_lead.get(lead, math.nan) for lead in leads)
        complete = all(math.isfinite(value) for value in values)
        found[f"{wave}_{region}_lowest_mv"] = values[1] if complete else math.nan
        found[f"{wave}_{region}_highest_mv"] = values[-2] if complete else math.nan
    return found


def _q_and_r(ecg: DelineatedEcg) -> dict[str, float]:
    first, last = ecg.waves.qrs
    qrs = {lead: level[first:last] for lead, level in ecg.levels_mv.items()}
    sizes = {lead: _q_size(wave) for lead, wave in qrs.items()}
    found = {}
    for region, leads in REGIONS.items():
        known = [sizes[lead] for lead in leads if lead in sizes]
        found[f"q_{region}"] = sorted(known)[-2] if len(known) == len(leads) else math.nan
    r_waves = [max(0.0, float(qrs[lead].max())) if lead in qrs else math.nan for lead in ANTERIOR_R]
    return {**found, "r_anterior_mv": min(r_waves) if all(map(math.isfinite, r_waves)) else math.nan}


def _q_size(wave_mv: np.ndarray) -> float:
    """Duration or depth of the Q wave of a QRS in units of their limits, the smaller; 0 without a Q wave."""
    large = np.flatnonzero(np.abs(wave_mv) > QUIET_MV)
    if not len(large) or wave_mv[large[0]] > 0:
        return 0.0
    wave = wave_mv[large[0] :]
    crossings = np.flatnonzero(wave > 0)
    q_wave = wave[: crossings[0]] if len(crossings) else wave
    return float(min(len(q_wave) / (Q_SECONDS * RATE_HZ), -q_wave.min() / Q_MV))
