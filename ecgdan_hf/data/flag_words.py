"""Quality flags in a clinician's words, those that matter first.

A flag is a name with details behind a colon: `lead_flat:V1+V2`, `doubtful:inverted`. Pages show its words, tables the
flag itself, in the same order.
"""

from collections.abc import Iterable

DOUBTS = {
    "inverted": "looks upside down",
    "arms_exchanged": "looks as if the arm electrodes were exchanged",
    "time_reversed": "looks reversed in time",
    "rate_doubled": "looks recorded at half the stated sampling rate",
    "rate_halved": "looks recorded at twice the stated sampling rate",
    "gain_tripled": "amplitudes look three times too large",
}
MATTERS = {
    "doubtful": "probably not what the file says",
    "no_r_peaks": "no heart beat found",
    "no_heart_beat": "no heart beat found",
    "heart_rate_impossible": "impossible heart rate; the sampling rate is probably wrong",
    "sampling_rate_doubtful": "heart rate and QRS width suggest a wrong sampling rate",
    "amplitude_impossible": "QRS complexes no heart writes; the gain or unit is probably wrong",
    "amplitude_doubtful": "unusually small or large QRS complexes; check the gain",
    "limb_leads_reversed": "limb leads reversed, or dextrocardia",
    "chest_leads_exchanged": "two chest leads are probably exchanged",
    "limb_leads_contradict": "limb leads contradict each other: exchanged, mislabelled or inverted",
    "einthoven_residual": "II is not I + III: unequal gains, or mislabelled leads",
    "lead_off": "electrode off, as the cart says; not used",
    "lead_out_of_range": "amplitudes that no heart writes; not used where it is so",
    "lead_flat": "flat line; not used",
    "lead_missing_samples": "large parts not recorded; not used",
    "lead_clipped": "peaks cut off",
    "lead_questionable": "questionable, as the cart says",
    "no_sample_codes": "parts not recorded",
    "partly_empty": "no lead changes in a part of the recording",
    "ends_missing": "nothing recorded at an end",
    "checksum_differs": "samples do not fit the checksum of the file",
    "thresholds_need_more_leads": "too few leads to say whether a label reaches its threshold",
    "lead_absent": "not in the recording; masked",
    "lead_in_part": "printed in part",
    "only_middle_judged": "only the middle was judged",
    "too_few_beats": "few beats",
}
HARMLESS = {
    "short_gaps": "short gaps, filled with straight lines",
    "nan_interpolated": "short gaps, filled with straight lines",
    "outlier_beats_dropped": "beats of another shape left out of the median beat",
    "median_beat_of_file": "median beat of the cart",
    "median_beat_unlike": "the cart's median beat looks different and was not used",
    "calibration_pulse_cut": "calibration pulse cut off",
    "lead_ignored": "leads that are not among the twelve",
    "lead_derived": "computed from two other limb leads",
    "cropped": "longer than the network's input",
    "padded": "shorter than the network's input",
    "resampled": "resampled",
}
"""Says how a recording was used, not that anything is wrong with it."""
_FIRST = {name: place for place, name in enumerate(MATTERS)}
_LAST = {name: len(MATTERS) + 1 + place for place, name in enumerate(HARMLESS)}


def by_importance(flags: Iterable[str]) -> list[str]:
    """Returns flags without repetition: those that matter, then unknown ones, then the harmless.

    >>> by_importance(["resampled:500Hz", "trace_gap:V1", "lead_flat:V3"])
    ['lead_flat:V3', 'trace_gap:V1', 'resampled:500Hz']
    """
    return sorted(dict.fromkeys(flags), key=lambda flag: (_FIRST | _LAST).get(_name(flag), len(MATTERS)))


def flag_words(flag: str) -> str:
    """Returns a flag in words, with its leads or numbers in front.

    >>> flag_words("lead_flat:V1+V2"), flag_words("doubtful:inverted"), flag_words("trace_gap:V1")
    ('V1, V2: flat line; not used', 'looks upside down', 'V1: trace gap')
    """
    name, _, detail = flag.partition(":")
    if name == "doubtful" and detail:
        return "; ".join(map(_doubt, detail.split("+")))
    words = (MATTERS | HARMLESS).get(name, name.replace("_", " "))
    return f"{detail.replace('+', ', ').replace('_', ' ')}: {words}" if detail else words


def notable(flags: Iterable[str]) -> list[str]:
    """Returns the words of the flags that matter, the most important first; leaves out the harmless."""
    return list(dict.fromkeys(flag_words(flag) for flag in by_importance(flags) if _name(flag) not in HARMLESS))


def _doubt(detail: str) -> str:
    if detail.startswith("empty_"):
        return f"no lead changes for {float(detail.removeprefix('empty_')):.0%} of the recording"
    return DOUBTS.get(detail, detail.replace("_", " "))


def _name(flag: str) -> str:
    return flag.partition(":")[0]
