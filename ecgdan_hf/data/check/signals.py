"""Problems of one signal, by the names in `check.problems`.

The limits are those of the feature extractor, applied at 100 Hz, to find what it would refuse or flag in a fraction of
its time. In addition: impossible amplitudes, exchanged electrodes, and a hash that finds duplicates.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from ecgdan_hf.data.check.electrodes import BEAT_SAMPLES, RATE_HZ, electrode_problems
from ecgdan_hf.data.check.problems import PROBLEMS
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.model.conditioning_ecgdan import (
    LeadQuality,
    check_recording,
    fit_length,
    resample,
)
from ecgdan_hf.model.contract_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.doubts_ecgdan import doubts
from ecgdan_hf.model.filters_ecgdan import apply_filter
from ecgdan_hf.model.leads_ecgdan import LIMB_LEADS, canonical_leads, einthoven_residual
from ecgdan_hf.model.median_beat_ecgdan import MIN_BEATS, MedianBeat
from ecgdan_hf.model.preparation_ecgdan import (
    HEART_RATES,
    MAX_EINTHOVEN_RESIDUAL,
    MAX_SECONDS,
    MAX_STILL,
    MIN_ALIKE,
    TIME_SCALES,
)
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks, heart_rate

HIGHPASS_HZ = 0.5
QRS = slice(38, 60)  # of the beat: 100 ms before the R peak to 120 ms after it
# median over leads of the QRS, peak to peak; PTB-XL's 2,664 records lie between 0.27 and 2.8 mV, their median is 0.95
POSSIBLE_QRS_MV = (0.05, 8.0)
USUAL_QRS_MV = (0.2, 4.0)
INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
HASH_STEP_MV = 1e-3
HASH_NUDGE = 1e-3  # of a step: halves, which are frequent in files of 2.5 uV a count, all go the same way


@dataclass(frozen=True)
class SignalFindings:
    """Findings in one signal.

    Attributes:
        problems: name of a problem -> its detail (leads joined by `+`, a number, or nothing).
        qrs_mv: median over leads of the QRS complex, peak to peak, millivolt; NaN without a beat.
        signal_hash: equal for equal signals, regardless of file format, order of leads and unit; empty if no lead has
            an ECG.
    """

    problems: dict[str, str] = field(default_factory=dict)
    qrs_mv: float = float("nan")
    signal_hash: str = ""


def check_signal(record: EcgRecord) -> SignalFindings:
    """Finds the problems of a readable record, of any leads, rate and length.

    Raises ValueError for what the feature extractor refuses first: unknown leads, less than 2.4 s, impossible
    amplitudes.
    """
    usable, problems = _usable_leads(record)
    problems |= _said_by_the_reader(record)
    if not usable:
        return SignalFindings({**problems, "no_usable_lead": ""})
    digest = _signal_hash(record)
    signal_mv = _conditioned(np.stack(list(usable.values())), record.sampling_rate)
    residual = einthoven_residual(dict(zip(usable, signal_mv, strict=True)))
    if residual > MAX_EINTHOVEN_RESIDUAL:
        problems["einthoven_residual"] = f"{residual:.2f}"
    r_peaks = find_r_peaks(signal_mv, RATE_HZ)
    rate = heart_rate(r_peaks, signal_mv.shape[1], RATE_HZ)
    beat = _median_beat(signal_mv, r_peaks)
    if beat is None:
        return SignalFindings({**problems, "no_heart_beat": ""}, signal_hash=digest)
    problems |= _rhythm_problems(beat, rate)
    if found := doubts(beat.signal_mv, list(usable), RATE_HZ, rate):
        problems["doubtful"] = "+".join(found)
    qrs_mv = float(np.median(np.ptp(np.nan_to_num(beat.signal_mv)[:, QRS], axis=1)))
    problems |= _amplitude_problems(qrs_mv) | electrode_problems(dict(zip(usable, beat.signal_mv, strict=True)))
    return SignalFindings(problems, qrs_mv, digest)


def _said_by_the_reader(record: EcgRecord) -> dict[str, str]:
    """Flags of the reader that are problems, with their details."""
    flags = (flag.partition(":") for flag in record.flags)
    return {name: detail for name, _, detail in flags if name in PROBLEMS}


def _representative_beat(record: EcgRecord) -> dict[str, np.ndarray]:
    """The median beat, (120,) millivolt at 100 Hz, for each usable lead; raises ValueError if there is none."""
    usable, _ = _usable_leads(record)
    if not usable:
        raise ValueError(f"{record.source}: expected a lead with an ECG, got none")
    signal_mv = _conditioned(np.stack(list(usable.values())), record.sampling_rate)
    beat = _median_beat(signal_mv, find_r_peaks(signal_mv, RATE_HZ))
    if beat is None:
        raise ValueError(f"{record.source}: expected a heart beat, found none")
    return dict(zip(usable, beat.signal_mv, strict=True))


def _signal_hash(record: EcgRecord) -> str:
    """Hash of I, II and V1-V6, from which the other limb leads follow, or of all leads without I and II.

    In steps of 1 uV, without the sampling rate: a copy that claims another rate is a copy.
    """
    rows = dict(zip(canonical_leads(record.lead_names), record.signal_mv, strict=True))
    if "I" in rows and "II" in rows:
        rows = {lead: row for lead, row in rows.items() if lead not in LIMB_LEADS or lead in INDEPENDENT_LEADS}
    digest = hashlib.blake2b(digest_size=16)
    for lead in sorted(rows):
        steps = np.floor(rows[lead].astype(np.float64) / HASH_STEP_MV + 0.5 + HASH_NUDGE)
        digest.update(lead.encode() + np.nan_to_num(steps, nan=-(2.0**31)).astype("<i4").tobytes())
    return digest.hexdigest()


def _usable_leads(record: EcgRecord) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Standard leads with an ECG, (samples,) mV as recorded, gaps filled; and problems of the leads."""
    signal_mv, leads = check_recording(record.signal_mv, record.sampling_rate, "mV", list(record.lead_names))
    limit = round(MAX_SECONDS * record.sampling_rate)
    quality = LeadQuality(fit_length(signal_mv, limit) if signal_mv.shape[1] > limit else signal_mv)
    standard = np.array([lead in STANDARD_LEADS for lead in leads])
    good = standard & quality.usable
    found = {
        "lead_missing_samples": standard & quality.lost,
        "short_gaps": good & (quality.missing > 0),
        "lead_flat": standard & quality.flat,
        "lead_out_of_range": standard & quality.out_of_range,
        "lead_clipped": good & quality.clipped(record.sampling_rate),
    }
    problems = {name: "+".join(np.array(leads)[which]) for name, which in found.items() if which.any()}
    if (still := quality.still(record.sampling_rate)) > MAX_STILL:
        problems["partly_empty"] = f"{still:.0%}"
    if quality.ends_missing:
        problems["ends_missing"] = f"{quality.ends_missing:.0%}"
    return {lead: row for lead, row, usable in zip(leads, quality.filled_mv, good, strict=True) if usable}, problems


def _conditioned(signal_mv: np.ndarray, sampling_rate: float) -> np.ndarray:
    """(leads, samples) at 100 Hz without baseline wander."""
    slow = resample(signal_mv.astype(np.float32), sampling_rate, RATE_HZ)  # single precision: twice as fast
    return apply_filter(slow.astype(np.float64), RATE_HZ, HIGHPASS_HZ)


def _median_beat(signal_mv: np.ndarray, r_peaks: np.ndarray) -> MedianBeat | None:
    try:
        return MedianBeat.of(signal_mv, r_peaks, RATE_HZ, BEAT_SAMPLES)
    except ValueError:  # no R peak, or none with its whole QRS complex inside the recording
        return None


def _rhythm_problems(beat: MedianBeat, beats_per_minute: float) -> dict[str, str]:
    if not HEART_RATES[0] <= beats_per_minute <= HEART_RATES[1]:
        return {"heart_rate_impossible": f"{beats_per_minute:.0f}/min"}
    problems = {} if beat.num_kept >= MIN_BEATS else {"too_few_beats": str(beat.num_kept)}
    alike = beat.num_kept / (beat.num_kept + beat.num_dropped)
    scale = beat.time_scale(RATE_HZ, beats_per_minute)
    if not TIME_SCALES[0] <= scale <= TIME_SCALES[1] or alike < MIN_ALIKE:
        problems["sampling_rate_doubtful"] = f"{beats_per_minute:.0f}/min"
    return problems


def _amplitude_problems(qrs_mv: float) -> dict[str, str]:
    for name, limits in (("amplitude_impossible", POSSIBLE_QRS_MV), ("amplitude_doubtful", USUAL_QRS_MV)):
        if not limits[0] <= qrs_mv <= limits[1]:
            return {name: f"QRS {qrs_mv:.3g} mV"}
    return {}
