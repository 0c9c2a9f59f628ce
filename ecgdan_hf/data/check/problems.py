"""The problems that a folder of ECGs can have, with severity, meaning and advice; and their summary for a terminal."""

from dataclasses import dataclass
from typing import Any, Literal

from ecgdan_hf.data.record import MAX_AGE_YEARS
from ecgdan_hf.model.conditioning_ecgdan import MAX_MISSING_FRACTION, MAX_RANGE_MV

DIFFERING_FACTOR = 4.0  # from the folder's typical amplitude; no record of PTB-XL differs that much
SHOWN_EXAMPLES = 3
SHOWN_VALUES = 4


@dataclass(frozen=True)
class _Problem:
    severity: Literal["error", "warning"]
    meaning: str
    advice: str


def _error(meaning: str, advice: str) -> _Problem:
    return _Problem("error", meaning, advice)


def _warning(meaning: str, advice: str) -> _Problem:
    return _Problem("warning", meaning, advice)


PROBLEMS: dict[str, _Problem] = {
    "unreadable": _error("cannot be read or used", "export them again, or train with --skip-bad"),
    "no_usable_lead": _error("no lead carries an ECG", "leave them out"),
    "no_heart_beat": _error("no heart beat found", "check rate and unit; models of the median beat refuse them"),
    "heart_rate_impossible": _error("heart rate outside 20 to 300/min", "the sampling rate is probably wrong"),
    "amplitude_impossible": _error("QRS complex smaller or larger than any ECG's", "correct the gain or the unit"),
    "duplicate_of_other_patient": _error(
        "same signal under different patients", "keep one, or give them one patient_id: training would test on it"
    ),
    "patient_in_several_folds": _error("patients with records in several folds", "split by patient"),
    "outcomes_refused": _error("the outcomes table cannot be used", "correct it"),
    "outcome_without_record": _error("outcomes whose record_id is not in the data", "correct or remove these rows"),
    "time_impossible": _error(f"follow-up above {MAX_AGE_YEARS:.0f} years", "give `time` in years, not in days"),
    "left_out": _warning("files that look like recordings and are not read", "export them in a format that is read"),
    "sampling_rate_doubtful": _warning("heart rate and QRS width suggest a wrong sampling rate", "check the rate"),
    "doubtful": _warning(
        "recordings that look inverted, reversed, of another rate or gain, or with the arms exchanged", "look at them"
    ),
    "partly_empty": _warning("stretches in which no lead changes", "look at them; nothing was recorded there"),
    "amplitude_doubtful": _warning("unusually small or large QRS complex", "check gain and unit"),
    "amplitude_differs": _warning(
        f"QRS complex {DIFFERING_FACTOR:g} times larger or smaller than the folder's", "look for mixed units or gains"
    ),
    "amplitudes_unusual": _warning("the folder's typical QRS complex is unlike that of ECGs", "check gain and unit"),
    "limb_leads_reversed": _warning(
        "limb leads reversed, or dextrocardia", "look at them; each name is followed by the electrodes"
    ),
    "chest_leads_exchanged": _warning("two chest leads probably exchanged", "look at V1 to V6"),
    "limb_leads_contradict": _warning(
        "limb leads that contradict I and II", "look for exchanged, inverted or mislabelled leads"
    ),
    "einthoven_residual": _warning("II is not I + III", "look for unequal gains or mislabelled leads"),
    "lead_missing": _warning("lack leads that most records here have", "a model masks them"),
    "lead_flat": _warning("flat leads", "a model masks them"),
    "lead_clipped": _warning("leads with peaks cut off", "look at them; amplitudes are too small"),
    "lead_missing_samples": _warning(
        f"leads with more than {MAX_MISSING_FRACTION:.0%} of samples missing", "a model masks them"
    ),
    "checksum_differs": _warning("samples that do not fit the checksum of their header", "copy the files again"),
    "lead_of_other_rate": _warning("leads of a lower rate than the others, left out", "export them at one rate"),
    "channel_skew": _warning(
        "leads sampled later than others, as the file says", "they are not shifted; look at them"
    ),
    "lead_off": _warning("leads that the cart says were off", "a model masks them"),
    "calibration_pulse_cut": _warning("calibration pulses at an end", "they were cut off; look at the rest"),
    "lead_questionable": _warning("leads that the cart calls questionable", "look at them"),
    "no_sample_codes": _warning("leads with codes of no sample, such as -32768", "these samples are missing"),
    "lead_out_of_range": _warning(
        f"leads with a range above {MAX_RANGE_MV:g} mV", "look for loose electrodes; a model leaves these samples out"
    ),
    "ends_missing": _warning("samples missing in all leads at an end", "look at them; the rest is used"),
    "short_gaps": _warning(
        f"leads with up to {MAX_MISSING_FRACTION:.0%} of samples missing", "gaps are filled by straight lines"
    ),
    "too_few_beats": _warning("fewer than 3 beats", "the median beat rests on single beats"),
    "duplicate_of_same_patient": _warning("same signal twice for one patient", "keep one"),
    "record_without_outcome": _warning("records without an outcome", "they are left out of training"),
}


def summary(facts: dict[str, Any]) -> list[str]:
    """Lines for a terminal from the `facts` of [`check`]: the contents, then each problem with examples."""
    lines = [f"{facts['source']}: {facts['records']} records of {facts['patients']} patients"]
    for key, title in (("sampling_rates", "rates, Hz"), ("durations_seconds", "durations, s"), ("leads", "leads")):
        lines.append(f"{title}: {_some_counts(facts[key])}")
    if outcomes := facts["outcomes"]:
        lines.append(
            f"outcomes: {outcomes['rows']} rows, {outcomes['events']} events, "
            f"{outcomes['shortest_years']:.3g} to {outcomes['longest_years']:.3g} years"
        )
    lines += [_problem_line(name, problem) for name, problem in facts["problems"].items()]
    return lines if facts["problems"] else [*lines, "nothing is wrong"]


def _problem_line(name: str, problem: dict[str, Any]) -> str:
    found = list(problem["found"].items())
    examples = [f"{record}: {detail}" if detail else record for record, detail in found[:SHOWN_EXAMPLES]]
    more = ", ..." if len(found) > SHOWN_EXAMPLES else ""
    return (
        f"{problem['severity']}: {name}: {problem['count']}: {problem['meaning']} ({', '.join(examples)}{more}); "
        f"{problem['advice']}"
    )


def _some_counts(counts: dict[str, int]) -> str:
    shown = [f"{value} ({count})" for value, count in list(counts.items())[:SHOWN_VALUES]]
    more = [f"and {len(counts) - SHOWN_VALUES} more"] if len(counts) > SHOWN_VALUES else []
    return "; ".join([*shown, *more]) or "none"
