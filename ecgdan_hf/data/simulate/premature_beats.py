"""Premature beats simulated in regular recordings: what a network must find is known exactly, without any label.

A partition of unity cuts a recording into its beats, each from before its P wave to before the next one. The beats are
put down again on other times and summed, so that an early P wave falls on the T wave before it, as in a patient. The P
waves of premature beats are scaled, turned and shifted, as they begin elsewhere in the atria.

Half of the recordings become counter-examples, for whatever is easier to see than the disease must not be enough: a
changing rate, pauses, sinus arrhythmia, atrial fibrillation (irregular, without P, with f waves), and in a quarter of
all recordings wide ventricular beats, most of them early too.

This is a simulation, and wrong where hearts are not sums of beats: where beats move apart the gap is isoelectric, the
T wave does not follow the rate, early beats are never conducted with aberration, and every premature beat of a
recording begins at the same place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from ecgdan_hf.model.waveform_danet import P_USUAL_SECONDS, QRS_USUAL_SECONDS, BeatWaves, qrs_likeness

# what may be a source
MIN_BEATS = 4
MAX_RR_VARIATION = 0.1  # standard deviation over mean: fibrillation and most ectopy have more
ALIKE = 0.9  # correlation of a QRS complex with the recording's median
MIN_SHARE_ALIKE = 0.9
WHOLE_BEAT_SECONDS = (0.30, 0.45)  # before and after R: beats nearer to the ends are not moved

# where beats are cut
TP_SECONDS, TP_SHARE = 0.30, 0.40  # before R, of the RR interval before it at most
RAMP_SECONDS = 0.06  # from one beat to the next
P_SECONDS = (-0.26, -0.07)  # from R: the part of a beat that counts as its P wave
P_RAMP_SECONDS = 0.03
QRS_FROM_SECONDS = -0.07  # from R: what of a beat is kept where it shall have no P

# which rhythm
KINDS: dict[str, float] = {
    "premature": 0.5,
    "sinus": 0.18,
    "pause": 0.06,
    "arrhythmia": 0.1,
    "fibrillation": 0.16,
}
"""Kinds of simulated recordings and their shares."""

RATE_CHANGE = (0.9, 1.2)  # of the source's RR interval
RATE_CHANGE_PREMATURE = (0.9, 1.35)  # slower: early beats need room
RR_SECONDS = (0.45, 2.0)
MIN_EARLY_SECONDS, MIN_FIBRILLATION_SECONDS = 0.28, 0.3  # shortest RR intervals: no faster atrioventricular conduction
OUTSIDE_SECONDS = 0.4  # beats this far outside reach into the recording
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
PAUSE_AFTER, LONG_PAUSE_AFTER, LONG_PAUSE_SHARE = (1.0, 1.35), (1.3, 2.6), 0.2  # blocked beats make long pauses

P_FACTOR = (-1.2, 1.4)  # of each lead's P wave in premature beats
P_SHIFT_SECONDS = 0.045

# ventricular beats
VENTRICULAR_SHARE = 0.25  # of recordings
VENTRICULAR_BEATS = 0.15  # of the beats in them that may be
VENTRICULAR_EARLY, VENTRICULAR_COUPLING = 0.8, (0.45, 0.8)  # share of recordings; the next beat stays where it was
SLOWING = (1.5, 2.4)  # a wide QRS complex is a narrow one slowed so much
SLOWED_SMOOTH_SECONDS = 0.05
WIDE_QRS_END_SECONDS = (0.10, 0.14)  # from R: where the slowed QRS gives way to ST and T
WIDE_GAIN, WIDE_T_GAIN = (0.7, 1.8), (0.3, 1.2)

F_WAVE_HZ, F_WAVE_MV = (4.0, 8.0), (0.01, 0.15)

NOISE_REFERENCE = 1.5  # noise was chosen for recordings whose largest value is 1.5 mV
WHITE_LOG10 = (-2.5, -1.2)
WANDER, WANDER_HZ, WANDERS = 0.06, (0.3, 0.8), 2

T_USUAL_SECONDS = (0.12, 0.36)  # from R


@dataclass(frozen=True)
class SimulatedEcg:
    """A simulated recording and what is in it.

    Attributes:
        signal_mv: (leads, samples), float32, mV.
        r_peaks: (beats,), sample indices, ascending.
        premature: (beats,), true for premature atrial beats.
        ventricular: (beats,), true for wide beats.
        p_wave: (beats,), true where a P wave was put before the beat.
    """

    signal_mv: np.ndarray
    r_peaks: np.ndarray
    premature: np.ndarray
    ventricular: np.ndarray
    p_wave: np.ndarray


@dataclass(frozen=True)
class _Piece:
    """A beat cut out: values (leads, samples) from sample `first` on, and where the beat begins, both from R."""

    values: np.ndarray
    first: int
    start: float

    @property
    def from_r(self) -> np.ndarray:
        """(samples,): each sample's distance from R."""
        return np.arange(self.first, self.first + self.values.shape[1])


def is_regular(signal_mv: np.ndarray, sampling_rate: float, r_peaks: np.ndarray) -> bool:
    """Whether a recording may be a source: regular, its beats alike, and enough of them; no label is asked.

    Args:
        signal_mv: (leads, samples), mV, high-pass filtered, usable leads only, without NaN.
        sampling_rate: Hz.
        r_peaks: (beats,), sample indices, ascending.
    """
    peaks = np.asarray(r_peaks, dtype=float)
    if len(peaks) < MIN_BEATS or len(_whole_beats(peaks, signal_mv.shape[1], sampling_rate)) < 2:
        return False
    rr = np.diff(peaks)
    if rr.std() >= MAX_RR_VARIATION * rr.mean():
        return False
    likeness = qrs_likeness(signal_mv, sampling_rate, peaks)
    known = likeness[np.isfinite(likeness)]
    return len(known) > 1 and bool((known > ALIKE).mean() >= MIN_SHARE_ALIKE)


def simulate(
    signal_mv: np.ndarray,
    sampling_rate: float,
    r_peaks: np.ndarray,
    rng: np.random.Generator,
    kind: str | None = None,
    ventricular_share: float = VENTRICULAR_SHARE,
) -> SimulatedEcg:
    """The beats of a regular recording in another rhythm, of the same length.

    Args:
        signal_mv: (leads, samples), mV, high-pass filtered, without NaN.
        sampling_rate: Hz.
        r_peaks: (beats,), sample indices, ascending.
        rng: of all draws. The same draws give the same times in seconds at any sampling rate.
        kind: one of `KINDS`; drawn with their shares if not given.
        ventricular_share: probability that wide beats are mixed in.

    Raises:
        ValueError: an unknown kind, or fewer than two whole beats.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    samples, peaks = signal_mv.shape[1], np.asarray(r_peaks, dtype=int)
    whole = _whole_beats(peaks, samples, sampling_rate)
    if len(whole) < 2:
        raise ValueError(f"r_peaks: expected at least two beats whole in the recording, got {len(whole)}")
    kind = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
    at, premature = _rhythm(rng, kind, samples / sampling_rate, float(np.median(np.diff(peaks))) / sampling_rate)
    at, ventricular = _with_ventricular(rng, at, premature, ventricular_share)
    sources, place = rng.choice(whole, len(at)), np.rint(at * sampling_rate).astype(int)
    factor = rng.uniform(*P_FACTOR, size=len(signal_mv)) * (kind != "fibrillation")
    shift = round(rng.uniform(-P_SHIFT_SECONDS, P_SHIFT_SECONDS) * sampling_rate)
    changed = premature | (kind == "fibrillation")
    narrow = ~ventricular
    moved = _move_beats(
        signal_mv, sampling_rate, peaks, place[narrow], sources[narrow], changed[narrow], factor, shift
    )
    if ventricular.any():
        wide = _wide(_cut(signal_mv, sampling_rate, peaks)[sources[ventricular][0]], sampling_rate, rng)
        for r_peak in place[ventricular]:
            _add(moved, wide, r_peak)
    if kind == "fibrillation":
        moved += _f_waves(rng, moved.shape, sampling_rate)
    inside = (place >= 0) & (place < samples)
    has_p = narrow & (kind != "fibrillation")
    flags = (each[inside] for each in (premature, ventricular, has_p))
    return SimulatedEcg(moved.astype(np.float32), place[inside], *flags)


def _whole_beats(peaks: np.ndarray, samples: int, sampling_rate: float) -> np.ndarray:
    """Numbers of the beats that lie in the recording from before P to after T."""
    before, after = (seconds * sampling_rate for seconds in WHOLE_BEAT_SECONDS)
    return np.flatnonzero((peaks > before) & (peaks < samples - after))


# Rhythms: times in seconds


def _rhythm(rng: np.random.Generator, kind: str, seconds: float, rr: float) -> tuple[np.ndarray, np.ndarray]:
    """Times of the R peaks (beats,), some a little outside the recording, and which of them are premature."""
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
    """Times of beats without any order, (beats,)."""
    most = int((seconds + 1) / MIN_FIBRILLATION_SECONDS) + 1
    spread = rng.uniform(*FIBRILLATION_SPREAD)
    intervals = np.maximum(rr * np.exp(rng.normal(0, spread, most)), MIN_FIBRILLATION_SECONDS)
    return np.cumsum(np.concatenate([[rng.uniform(-MIN_FIBRILLATION_SECONDS, rr)], intervals]))


def _sinus_rhythm(
    rng: np.random.Generator, ratios: Iterator[tuple[float, bool]], seconds: float, rr: float
) -> tuple[np.ndarray, np.ndarray]:
    """Times (beats,) and which are premature: the usual RR follows the breath, each beat's own is a share of it."""
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
    """For one beat after the other: its RR over the usual one, and whether it is premature."""
    if kind == "premature":
        return _premature_ratios(rng)
    if kind == "arrhythmia":
        return ((rng.uniform(*ARRHYTHMIA), False) for _ in repeat(None))
    if kind == "pause":
        return ((rng.uniform(*PAUSES) if rng.random() < PAUSE_SHARE else 1.0, False) for _ in repeat(None))
    return repeat((1.0, False))


def _premature_ratios(rng: np.random.Generator) -> Iterator[tuple[float, bool]]:
    """Sinus beats, a run of one or more premature beats, the pause, and again."""
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
    """The times, some moved forward, and which beats are ventricular; none beside another or a premature one."""
    at, ventricular = at.copy(), np.zeros(len(at), dtype=bool)
    if rng.random() >= share:
        return at, ventricular
    early = rng.random() < VENTRICULAR_EARLY
    for beat in range(2, len(at) - 1):
        alone = not premature[beat - 1 : beat + 2].any() and not ventricular[beat - 1]
        if alone and rng.random() < VENTRICULAR_BEATS:
            ventricular[beat] = True
            if early:  # the next beat stays: the pause is complete
                at[beat] = at[beat - 1] + (at[beat] - at[beat - 1]) * rng.uniform(*VENTRICULAR_COUPLING)
    return at, ventricular


# Beats: cut out, changed, put down


def _move_beats(
    signal_mv: np.ndarray,
    sampling_rate: float,
    r_peaks: np.ndarray,
    to: np.ndarray,
    sources: np.ndarray,
    changed: np.ndarray,
    p_factor: np.ndarray,
    p_shift: int,
) -> np.ndarray:
    """The sum of beats put down elsewhere; all put down where they were are the recording, from first to last.

    Args:
        signal_mv: (leads, samples), mV, high-pass filtered, without NaN.
        sampling_rate: Hz.
        r_peaks: (beats,), at least two, sample indices, ascending.
        to: (new beats,), samples where R peaks are to be.
        sources: (new beats,), number of the beat that is put there.
        changed: (new beats,), true where its P wave is changed.
        p_factor: (leads,), what a changed P wave is multiplied by.
        p_shift: samples it is shifted by.

    Returns:
        (leads, samples), mV, float64.
    """
    moved = np.zeros(signal_mv.shape)
    pieces = _cut(signal_mv, sampling_rate, np.asarray(r_peaks))
    for source in np.unique(sources):
        usual = pieces[source]
        for r_peak in to[(sources == source) & ~changed]:
            _add(moved, usual, r_peak)
        if changed[sources == source].any():
            other = _with_p_changed(usual, sampling_rate, p_factor, p_shift)
            for r_peak in to[(sources == source) & changed]:
                _add(moved, other, r_peak)
    return moved


def _cut(signal_mv: np.ndarray, sampling_rate: float, peaks: np.ndarray) -> list[_Piece]:
    """The beats; the windows they are cut by add up to one from the first to the last.

    What lies before and after them is in no piece: a QRS complex at the end of a recording is often not found.
    """
    ramp, samples = RAMP_SECONDS * sampling_rate, signal_mv.shape[1]
    rr = np.diff(peaks, prepend=2 * peaks[0] - peaks[1])
    before = np.minimum(TP_SECONDS * sampling_rate, TP_SHARE * rr)
    starts = peaks - before
    end = min(peaks[-1] + rr[-1] - before[-1], samples - ramp / 2)
    begun = np.clip((np.arange(samples) - np.append(starts, end)[:, None]) / ramp + 0.5, 0, 1)
    windows = begun[:-1] - begun[1:]
    pieces = []
    for window, peak, start in zip(windows, peaks, starts, strict=True):
        inside = np.flatnonzero(window)
        part = slice(inside[0], inside[-1] + 1)
        pieces.append(_Piece(signal_mv[:, part] * window[part], int(inside[0] - peak), start - peak))
    return pieces


def _with_p_changed(piece: _Piece, sampling_rate: float, factor: np.ndarray, shift: int) -> _Piece:
    """What stands over the chord of the P wave's place, multiplied and shifted; nothing else."""
    margin = abs(shift)
    piece = _Piece(np.pad(piece.values, ((0, 0), (margin, margin))), piece.first - margin, piece.start)
    low, high = max(P_SECONDS[0] * sampling_rate, piece.start), P_SECONDS[1] * sampling_rate
    from_r, one = piece.from_r, 0.01 * sampling_rate
    place = np.flatnonzero((from_r >= low - one) & (from_r <= high + one))
    if len(place) < 2:
        return piece
    there = piece.values[:, place]
    ramp = P_RAMP_SECONDS * sampling_rate
    rise, fall = (from_r[place] - low) / ramp + 0.5, (high - from_r[place]) / ramp + 0.5
    wave = there - np.linspace(there[:, 0], there[:, -1], len(place), axis=1)
    wave *= np.clip(rise, 0, 1) * np.clip(fall, 0, 1)
    piece.values[:, place] -= wave
    piece.values[:, place + shift] += factor[:, None] * wave
    return piece


def _wide(piece: _Piece, sampling_rate: float, rng: np.random.Generator) -> _Piece:
    """A ventricular beat made of a narrow one: no P, the QRS slowed, other leads tall, T against the QRS."""
    low, fade = QRS_FROM_SECONDS * sampling_rate, P_RAMP_SECONDS * sampling_rate
    without_p = piece.values * np.clip((piece.from_r - low) / fade, 0, 1)
    slowing = rng.uniform(*SLOWING)
    first, end = (int(np.floor(slowing * edge)) for edge in (piece.first, piece.first + piece.values.shape[1]))
    at = np.arange(first, end)
    slow = np.stack([np.interp(at / slowing, piece.from_r, lead) for lead in without_p])
    box = np.full(max(1, round(SLOWED_SMOOTH_SECONDS * sampling_rate)), 1.0)
    slow = np.stack([np.convolve(lead, box / len(box), "same") for lead in slow])
    turn = rng.choice([-1.0, 1.0], (len(slow), 1))
    gain, t_gain = rng.uniform(*WIDE_GAIN, (len(slow), 1)), rng.uniform(*WIDE_T_GAIN)
    last, gone = (seconds * sampling_rate for seconds in WIDE_QRS_END_SECONDS)
    qrs = np.clip((gone - at) / (gone - last), 0, 1)
    return _Piece(turn * (gain * slow * qrs - t_gain * np.abs(slow) * (1 - qrs)), first, slowing * piece.start)


def _add(signal_mv: np.ndarray, piece: _Piece, r_peak: int) -> None:
    """Adds what of the piece lies in the recording when its R peak is there; changes `signal_mv`."""
    first = int(r_peak) + piece.first
    low, high = max(0, first), min(signal_mv.shape[1], first + piece.values.shape[1])
    if low < high:
        signal_mv[:, low:high] += piece.values[:, low - first : high - first]


def _f_waves(rng: np.random.Generator, shape: tuple[int, int], sampling_rate: float) -> np.ndarray:
    """Fibrillatory waves, (leads, samples) mV: one frequency that wanders, its harmonic, a size for each lead."""
    leads, samples = shape
    smallest, largest = np.log(F_WAVE_MV)
    size = np.exp(rng.uniform(smallest, largest, (leads, 1)))
    frequency = rng.uniform(*F_WAVE_HZ) * (1 + 0.15 * _wandering(rng, samples, round(0.4 * sampling_rate)))
    envelope = 1 + 0.5 * _wandering(rng, samples, round(0.6 * sampling_rate))
    phase = 2 * np.pi * np.cumsum(frequency) / sampling_rate
    return np.asarray(size * envelope * (np.sin(phase) + 0.4 * np.sin(2 * phase + 1)))


def _wandering(rng: np.random.Generator, samples: int, width: int) -> np.ndarray:
    """(samples,): noise of standard deviation 1 that changes within `width` samples."""
    return np.convolve(rng.standard_normal(samples + width - 1), np.full(width, width**-0.5), "valid")


def add_noise(signal_mv: np.ndarray, sampling_rate: float, rng: np.random.Generator) -> np.ndarray:
    """White noise and a wandering baseline on top, in proportion to the recording's largest value.

    Args:
        signal_mv: (leads, samples), mV.
        sampling_rate: Hz.
        rng: of all draws.

    Returns:
        (leads, samples), float32, mV.
    """
    leads, samples = signal_mv.shape
    noise = 10 ** rng.uniform(*WHITE_LOG10) * rng.standard_normal((leads, samples))
    seconds = np.arange(samples) / sampling_rate
    for _ in range(WANDERS):
        size, phase = rng.uniform(0, WANDER, (leads, 1)), rng.uniform(0, 2 * np.pi, (leads, 1))
        noise += size * np.sin(2 * np.pi * rng.uniform(*WANDER_HZ) * seconds + phase)
    return np.asarray(signal_mv + noise * np.abs(signal_mv).max() / NOISE_REFERENCE, dtype=np.float32)


# What is known


def target_kinds(rule: Mapping[str, Any]) -> tuple[str, ...]:
    """Which simulated beats are the rule's, by construction: `"premature"`, `"ventricular"`, or both.

    Premature where the rule wants the QRS like the others, ventricular where it wants it unlike them, both where it
    does not say.

    Args:
        rule: a complete rule, from `resolve_waveform_rule`.

    Raises:
        ValueError: a rule without a condition on beats, so that nothing can be simulated for it.
    """
    conditions = rule.get("beat")
    if not conditions:
        name = rule.get("name")
        raise ValueError(f"rule: expected one with a condition on beats, which can be simulated, got {name!r}")
    limits = conditions.get("qrs_likeness", {})
    if "above" in limits:
        return ("premature",)
    return ("ventricular",) if "below" in limits else ("premature", "ventricular")


def targets(simulated: SimulatedEcg, rule: Mapping[str, Any]) -> np.ndarray:
    """(beats,), true where a beat is the rule's, as `target_kinds` says.

    Args:
        simulated: from `simulate`.
        rule: a complete rule, from `resolve_waveform_rule`.

    Raises:
        ValueError: as `target_kinds`.
    """
    return np.asarray(np.any([getattr(simulated, kind) for kind in target_kinds(rule)], axis=0))


def known_weights(simulated: SimulatedEcg, sampling_rate: float, rule: Mapping[str, Any]) -> np.ndarray:
    """How much each sample weighs under a rule, its waves where they were put and not where they are found.

    Args:
        simulated: from `simulate`.
        sampling_rate: Hz.
        rule: a complete rule, from `resolve_waveform_rule`.

    Returns:
        (samples,), float32, 0 to 1, as `waveform_weights`.

    Raises:
        ValueError: as `target_kinds`.
    """
    met = targets(simulated, rule)
    waves = _usual_waves(simulated.r_peaks, sampling_rate, simulated.ventricular, simulated.p_wave)
    return waves.weights(met, simulated.signal_mv.shape[1], sampling_rate, rule)


def annotated_weights(
    r_peaks: np.ndarray, met: np.ndarray, samples: int, sampling_rate: float, rule: Mapping[str, Any]
) -> np.ndarray:
    """How much each sample weighs under a rule where somebody has marked the beats that meet it.

    Args:
        r_peaks: (beats,), samples, ascending.
        met: (beats,), true where a beat was marked as one of the rule's.
        samples: of the recording.
        sampling_rate: Hz.
        rule: a complete rule, from `resolve_waveform_rule`.

    Returns:
        (samples,), float32, 0 to 1, as `waveform_weights`; waves lie at their usual places.
    """
    met = np.asarray(met, dtype=bool)
    waves = _usual_waves(np.asarray(r_peaks), sampling_rate, np.zeros(len(met), bool), np.ones(len(met), bool))
    return waves.weights(met, samples, sampling_rate, rule)


def _usual_waves(r_peaks: np.ndarray, sampling_rate: float, ventricular: np.ndarray, has_p: np.ndarray) -> BeatWaves:
    """Usual places from R, wider in ventricular beats; P begins after the QRS before it, T ends before the next P."""
    r_peak = r_peaks.astype(float)
    width = np.where(ventricular, np.mean(SLOWING), 1.0) * sampling_rate
    qrs_onset, qrs_end = (r_peak + seconds * width for seconds in QRS_USUAL_SECONDS)
    t_onset, t_end = (r_peak + seconds * width for seconds in T_USUAL_SECONDS)
    p_onset, p_end = (r_peak + seconds * sampling_rate for seconds in P_USUAL_SECONDS)
    p_onset[1:] = np.maximum(p_onset[1:], qrs_end[:-1])
    t_end[:-1] = np.minimum(t_end[:-1], p_onset[1:])
    has_p, has_t = has_p & (p_onset < p_end), t_onset < t_end
    p_onset, p_end = (np.where(has_p, edge, np.nan) for edge in (p_onset, p_end))
    t_onset, t_end = (np.where(has_t, edge, np.nan) for edge in (t_onset, t_end))
    return BeatWaves(r_peak, p_onset, p_end, qrs_onset, qrs_end, t_onset, (t_onset + t_end) / 2, t_end)
