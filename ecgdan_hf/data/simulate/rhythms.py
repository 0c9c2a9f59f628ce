"""Rhythms of simulated recordings: the times of their R peaks, and which beats are premature or ventricular.

Half of the recordings are counter-examples, so that nothing easier to see than the disease is enough to tell them
apart: a changing rate, pauses, sinus arrhythmia, atrial fibrillation, and ventricular beats in a quarter of all.
"""

from collections.abc import Iterator
from itertools import repeat

import numpy as np

KINDS: dict[str, float] = {
    "premature": 0.5,
    "sinus": 0.18,
    "pause": 0.06,
    "arrhythmia": 0.1,
    "fibrillation": 0.16,
}
"""Kinds of simulated recordings and their shares."""

RATE_CHANGE = (0.9, 1.2)  # of the source's RR interval
RATE_CHANGE_PREMATURE = (0.9, 1.35)  # slower, to make room for early beats
RR_SECONDS = (0.45, 2.0)
MIN_EARLY_SECONDS, MIN_FIBRILLATION_SECONDS = 0.28, 0.3  # shortest RR intervals of atrioventricular conduction
OUTSIDE_SECONDS = 0.4  # beats this far outside the recording reach into it
RESPIRATION_HZ, RESPIRATION_DEPTH = (0.15, 0.35), 0.06  # respiratory sinus arrhythmia, share of RR at most
RR_JITTER = 0.01
PAUSES, PAUSE_SHARE = (1.4, 3.0), 0.12  # of the usual RR; share of beats after one
ARRHYTHMIA = (0.88, 1.2)
FIBRILLATION_SPREAD = (0.12, 0.3)  # standard deviation of log RR

FIRST_AFTER = (0, 7)  # sinus beats before the first premature one; ranges of integers exclude their end
# share of recordings; sinus beats from one run of premature beats to the next; beats of a run
PATTERNS: dict[str, tuple[float, tuple[int, int], tuple[int, int]]] = {
    "single": (0.45, (2, 12), (1, 2)),
    "frequent": (0.05, (2, 9), (1, 2)),
    "bigeminy": (0.08, (1, 2), (1, 2)),
    "trigeminy": (0.07, (2, 3), (1, 2)),
    "couplets": (0.1, (2, 9), (2, 3)),
    "runs": (0.1, (2, 9), (3, 8)),
    "close runs": (0.15, (1, 3), (1, 7)),
}
COUPLING = (0.5, 0.82)  # RR before the first premature beat of a run, of the usual one
RUN_RR, RUN_JITTER = (0.5, 0.9), 0.04  # RR within a run
PAUSE_AFTER, LONG_PAUSE_AFTER, LONG_PAUSE_SHARE = (1.0, 1.35), (1.3, 2.6), 0.2  # blocked beats cause long pauses

VENTRICULAR_SHARE = 0.25  # of recordings
VENTRICULAR_BEATS = 0.15  # of their beats that qualify
VENTRICULAR_EARLY, VENTRICULAR_COUPLING = 0.8, (0.45, 0.8)  # share of recordings; ratio of RR


def draw_rhythm(
    rng: np.random.Generator, kind: str, seconds: float, rr: float, ventricular_share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a rhythm of one of `KINDS`, from the source's median RR interval in seconds.

    Returns:
        (beats,) each: times of the R peaks in seconds, some a little outside the recording; whether a beat is
        premature; whether it is ventricular, of which there are none with probability 1 - `ventricular_share`.
    """
    at, premature = _times(rng, kind, seconds, rr)
    at, ventricular = _with_ventricular(rng, at, premature, ventricular_share)
    return at, premature, ventricular


def _times(rng: np.random.Generator, kind: str, seconds: float, rr: float) -> tuple[np.ndarray, np.ndarray]:
    change = RATE_CHANGE_PREMATURE if kind == "premature" else RATE_CHANGE
    rr = float(np.clip(rr * rng.uniform(*change), *RR_SECONDS))
    if kind == "fibrillation":
        at = _fibrillation(rng, seconds, rr)
        premature = np.zeros(len(at), dtype=bool)
    else:
        at, premature = _sinus_rhythm(rng, _ratios(rng, kind), seconds, rr)
    near = (at > -OUTSIDE_SECONDS) & (at < seconds + OUTSIDE_SECONDS)
    return at[near], premature[near]


def _fibrillation(rng: np.random.Generator, seconds: float, rr: float) -> np.ndarray:
    """Times of irregular beats, (beats,)."""
    most = int((seconds + 1) / MIN_FIBRILLATION_SECONDS) + 1
    spread = rng.uniform(*FIBRILLATION_SPREAD)
    intervals = np.maximum(rr * np.exp(rng.normal(0, spread, most)), MIN_FIBRILLATION_SECONDS)
    return np.cumsum(np.concatenate([[rng.uniform(-MIN_FIBRILLATION_SECONDS, rr)], intervals]))


def _sinus_rhythm(
    rng: np.random.Generator, ratios: Iterator[tuple[float, bool]], seconds: float, rr: float
) -> tuple[np.ndarray, np.ndarray]:
    """Times (beats,) and which are premature; the usual RR varies with respiration, each beat's own is a ratio."""
    depth, breaths = rng.uniform(0, RESPIRATION_DEPTH), 2 * np.pi * rng.uniform(*RESPIRATION_HZ)
    phase = rng.uniform(0, 2 * np.pi)
    at, early = [rng.uniform(0.1, 0.9) * rr], [False]
    while at[-1] < seconds + OUTSIDE_SECONDS:
        usual = rr * (1 + depth * np.sin(breaths * at[-1] + phase) + rng.normal(0, RR_JITTER))
        ratio, premature = next(ratios)
        at.append(at[-1] + max(usual * ratio, MIN_EARLY_SECONDS))
        early.append(premature)
    return np.array(at), np.array(early)


def _ratios(rng: np.random.Generator, kind: str) -> Iterator[tuple[float, bool]]:
    """For each beat: the ratio of its RR to the usual one, and whether it is premature."""
    if kind == "premature":
        return _premature_ratios(rng)
    if kind == "arrhythmia":
        return ((rng.uniform(*ARRHYTHMIA), False) for _ in repeat(None))
    if kind == "pause":
        return ((rng.uniform(*PAUSES) if rng.random() < PAUSE_SHARE else 1.0, False) for _ in repeat(None))
    return repeat((1.0, False))


def _premature_ratios(rng: np.random.Generator) -> Iterator[tuple[float, bool]]:
    """Repeats: sinus beats, a run of one or more premature beats, a pause."""
    shares = [share for share, _, _ in PATTERNS.values()]
    _, between, run = PATTERNS[str(rng.choice(list(PATTERNS), p=shares))]
    yield from [(1.0, False)] * int(rng.integers(*FIRST_AFTER))
    while True:
        run_rr = rng.uniform(*RUN_RR)
        yield rng.uniform(*COUPLING), True
        for _ in range(int(rng.integers(*run)) - 1):
            yield run_rr * (1 + rng.normal(0, RUN_JITTER)), True
        yield rng.uniform(*(LONG_PAUSE_AFTER if rng.random() < LONG_PAUSE_SHARE else PAUSE_AFTER)), False
        yield from [(1.0, False)] * (int(rng.integers(*between)) - 1)


def _with_ventricular(
    rng: np.random.Generator, at: np.ndarray, premature: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """The times, some earlier, and which beats are ventricular; none is next to another or to a premature one."""
    at, ventricular = at.copy(), np.zeros(len(at), dtype=bool)
    if rng.random() >= share:
        return at, ventricular
    early = rng.random() < VENTRICULAR_EARLY
    for beat in range(2, len(at) - 1):
        alone = not premature[beat - 1 : beat + 2].any() and not ventricular[beat - 1]
        if alone and rng.random() < VENTRICULAR_BEATS:
            ventricular[beat] = True
            if early:  # the next beat stays: a compensatory pause
                at[beat] = at[beat - 1] + (at[beat] - at[beat - 1]) * rng.uniform(*VENTRICULAR_COUPLING)
    return at, ventricular
