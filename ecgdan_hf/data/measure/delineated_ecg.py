"""A recording ready to be measured: filtered leads at 500 Hz, R peaks, the median beat and its waves.

Intervals, voltages (`measurements.py`) and rhythm (`rhythm.py`) are measured on the same one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ecgdan_hf.data.measure.delineation import BEAT_SAMPLES, R_SAMPLE, RATE_HZ, Waves, above_chord, delineate
from ecgdan_hf.model.conditioning_ecgdan import LeadQuality, check_recording, resample
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.filters_ecgdan import apply_filter
from ecgdan_hf.model.leads_ecgdan import derive_limb_lead
from ecgdan_hf.model.median_beat_ecgdan import MedianBeat
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks, heart_rate

HIGHPASS_HZ = 0.5  # zero phase, which keeps the level of the ST segment (Kligfield et al., Circulation 115:1306, 2007)
MIN_P_LIKENESS = 0.5  # mean correlation of single P waves with the median one; fibrillation waves are below
ISOELECTRIC_SAMPLES = (8, 2)  # baseline: 16 to 4 ms before the QRS


@dataclass(frozen=True)
class DelineatedEcg:
    """The usable leads of a recording, its beats and the waves of the median beat.

    Attributes:
        signal_mv: lead -> (samples,), mV, 500 Hz, high-pass filtered; limb leads that follow from two others included.
        r_peaks: (beats,), sample indices, ascending, at least one.
        beat_mv: lead -> (600,), the median beat, R peak at sample 240.
        waves: of the median beat; no P if single beats do not repeat it.
        p_likeness: mean correlation of what precedes single QRS complexes with the median beat's P wave; 0 without.
        heart_rate_bpm: from the median RR interval.
        recorded_hz: sampling rate before resampling.
    """

    signal_mv: Mapping[str, np.ndarray]
    r_peaks: np.ndarray
    beat_mv: Mapping[str, np.ndarray]
    waves: Waves
    p_likeness: float
    heart_rate_bpm: float
    recorded_hz: float

    @classmethod
    def of(cls, signal_mv: np.ndarray, sampling_rate: float, lead_names: Sequence[str]) -> "DelineatedEcg":
        """Prepares and delineates a recording, (leads, samples) in mV.

        Raises:
            ValueError: it cannot be in millivolt, is shorter than 2.4 s, or has no usable lead or beat.
        """
        signal, leads = check_recording(signal_mv, sampling_rate, "mV", list(lead_names))
        names, prepared = _usable_leads(signal, leads, sampling_rate)
        r_peaks = find_r_peaks(prepared, RATE_HZ)
        if not len(r_peaks):
            raise ValueError("signal_mv: no R peak found; is this an ECG at this sampling rate?")
        rate = heart_rate(r_peaks, prepared.shape[1], RATE_HZ)
        beat = np.nan_to_num(MedianBeat.of(prepared, r_peaks, RATE_HZ, BEAT_SAMPLES).signal_mv)
        waves = delineate(beat, rate)
        likeness = _p_likeness(prepared, r_peaks, beat, waves)
        waves = waves if likeness >= MIN_P_LIKENESS else replace(waves, p=None)
        by_lead = (dict(zip(names, rows, strict=True)) for rows in (prepared, beat))
        return cls(next(by_lead), r_peaks, next(by_lead), waves, likeness, rate, float(sampling_rate))

    @property
    def levels_mv(self) -> dict[str, np.ndarray]:
        """The median beat above its isoelectric level, which is that just before the QRS."""
        before, after = (self.waves.qrs[0] - samples for samples in ISOELECTRIC_SAMPLES)
        return {lead: beat - beat[before:after].mean() for lead, beat in self.beat_mv.items()}


def _usable_leads(signal_mv: np.ndarray, leads: list[str], sampling_rate: float) -> tuple[list[str], np.ndarray]:
    """Names and (leads, samples) of what carries an ECG: gaps filled, limb leads derived, filtered, at 500 Hz."""
    quality = LeadQuality(signal_mv)
    usable = {lead: row for lead, row, good in zip(leads, quality.filled_mv, quality.usable, strict=True) if good}
    recorded = {lead: row for lead, row in usable.items() if lead in STANDARD_LEADS}
    absent = [lead for lead in STANDARD_LEADS if lead not in leads]
    derived = {lead: derive_limb_lead(lead, recorded) for lead in absent}
    recorded |= {lead: values for lead, values in derived.items() if values is not None}
    if not recorded:
        raise ValueError(f"signal_mv: expected one of the twelve leads with an ECG, got none in {', '.join(leads)}")
    filtered = apply_filter(np.stack(list(recorded.values())), sampling_rate, HIGHPASS_HZ)
    return list(recorded), resample(filtered, sampling_rate, RATE_HZ)


def _p_likeness(signal_mv: np.ndarray, r_peaks: np.ndarray, beat_mv: np.ndarray, waves: Waves) -> float:
    if waves.p is None:
        return 0.0
    onset, end = waves.p
    offsets = np.arange(onset - 10, min(end + 10, waves.qrs[0])) - R_SAMPLE
    inside = r_peaks[(r_peaks + offsets[0] >= 0) & (r_peaks + offsets[-1] < signal_mv.shape[1])]
    template = above_chord(beat_mv[:, offsets + R_SAMPLE]).ravel()
    likeness = [np.corrcoef(above_chord(signal_mv[:, peak + offsets]).ravel(), template)[0, 1] for peak in inside]
    return float(np.mean(likeness)) if likeness else 0.0
