"""Premature beats simulated in regular recordings: the target is known exactly, without any label.

A partition of unity cuts a recording into its beats, each from before its P wave to before the next one. The beats are
placed at other times (`rhythms`) and summed, so that an early P wave falls on the previous T wave, as in a patient. P
waves of premature beats are scaled, inverted and shifted, as they originate elsewhere in the atria. Limits: gaps
between beats are isoelectric, the T wave does not follow the rate, early beats are never conducted with aberration,
and all premature beats of a recording have the same origin.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgdan_hf.data.simulate.rhythms import KINDS, VENTRICULAR_SHARE, draw_rhythm
from ecgdan_hf.model.waveform_danet import P_USUAL_SECONDS, QRS_USUAL_SECONDS, BeatWaves, qrs_likeness

# which recordings may be a source
MIN_BEATS = 4
MAX_RR_VARIATION = 0.1  # standard deviation over mean; fibrillation and most ectopy exceed it
ALIKE = 0.9  # correlation of a QRS complex with the recording's median
MIN_SHARE_ALIKE = 0.9
WHOLE_BEAT_SECONDS = (0.30, 0.45)  # before and after R; beats nearer to the ends are not moved

# where beats are cut
TP_SECONDS, TP_SHARE = 0.30, 0.40  # before R, but at most this share of the preceding RR interval
RAMP_SECONDS = 0.06  # crossfade from one beat to the next
P_SECONDS = (-0.26, -0.07)  # from R: the P wave of a beat
P_RAMP_SECONDS = 0.03
QRS_FROM_SECONDS = -0.07  # from R: start of a beat without P

P_FACTOR = (-1.2, 1.4)  # of each lead's P wave in premature beats
P_SHIFT_SECONDS = 0.045

# ventricular beats
SLOWING = (1.5, 2.4)  # factor by which a narrow QRS complex is stretched to a wide one
SLOWED_SMOOTH_SECONDS = 0.05
WIDE_QRS_END_SECONDS = (0.10, 0.14)  # from R: where the stretched QRS gives way to ST and T
WIDE_GAIN, WIDE_T_GAIN = (0.7, 1.8), (0.3, 1.2)

F_WAVE_HZ, F_WAVE_MV = (4.0, 8.0), (0.01, 0.15)

NOISE_REFERENCE = 1.5  # noise was chosen for recordings whose largest value is 1.5 mV
WHITE_LOG10 = (-2.5, -1.2)
WANDER, WANDER_HZ, WANDERS = 0.06, (0.3, 0.8), 2

T_USUAL_SECONDS = (0.12, 0.36)  # from R


@dataclass(frozen=True)
class SimulatedEcg:
    """A simulated recording and its beats.

    Attributes:
        signal_mv: (leads, samples), float32, mV.
        r_peaks: (beats,), sample indices, ascending.
        premature, ventricular, p_wave: (beats,), true for premature atrial beats, wide beats, and beats with a P wave.
    """

    signal_mv: np.ndarray
    r_peaks: np.ndarray
    premature: np.ndarray
    ventricular: np.ndarray
    p_wave: np.ndarray

    @staticmethod
    def can_start_from(signal_mv: np.ndarray, sampling_rate: float, r_peaks: np.ndarray) -> bool:
        """Whether a recording may be a source: regular, with enough beats that are alike; no label is used.

        `signal_mv` (leads, samples) is high-pass filtered, without unusable leads and NaN; `r_peaks` (beats,) are
        samples.
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

    @classmethod
    def simulate(
        cls,
        signal_mv: np.ndarray,
        sampling_rate: float,
        r_peaks: np.ndarray,
        rng: np.random.Generator,
        kind: str | None = None,
        ventricular_share: float = VENTRICULAR_SHARE,
    ) -> "SimulatedEcg":
        """The beats of a regular recording in another rhythm, of the same length.

        Args:
            signal_mv: (leads, samples), mV, high-pass filtered, without NaN.
            sampling_rate: Hz.
            r_peaks: (beats,), sample indices, ascending; at least two beats must be whole.
            rng: the same draws give the same times in seconds at any sampling rate.
            kind: one of `KINDS`; by default drawn with their shares.
            ventricular_share: probability of wide beats.
        """
        if kind is not None and kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        samples, peaks = signal_mv.shape[1], np.asarray(r_peaks, dtype=int)
        whole = _whole_beats(peaks, samples, sampling_rate)
        if len(whole) < 2:
            raise ValueError(f"r_peaks: expected at least two beats whole in the recording, got {len(whole)}")
        kind = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
        rr = float(np.median(np.diff(peaks))) / sampling_rate
        at, premature, ventricular = draw_rhythm(rng, kind, samples / sampling_rate, rr, ventricular_share)
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
        return cls(moved.astype(np.float32), place[inside], *flags)

    def noisy(self, sampling_rate: float, rng: np.random.Generator) -> np.ndarray:
        """The signal (leads, samples), mV, with white noise and baseline wander in proportion to its largest value."""
        signal_mv = self.signal_mv
        leads, samples = signal_mv.shape
        noise = 10 ** rng.uniform(*WHITE_LOG10) * rng.standard_normal((leads, samples))
        seconds = np.arange(samples) / sampling_rate
        for _ in range(WANDERS):
            size, phase = rng.uniform(0, WANDER, (leads, 1)), rng.uniform(0, 2 * np.pi, (leads, 1))
            noise += size * np.sin(2 * np.pi * rng.uniform(*WANDER_HZ) * seconds + phase)
        return np.asarray(signal_mv + noise * np.abs(signal_mv).max() / NOISE_REFERENCE, dtype=np.float32)

    @staticmethod
    def target_kinds(rule: Mapping[str, Any]) -> tuple[str, ...]:
        """Which simulated beats meet a complete rule (from `resolve_waveform_rule`) by construction.

        `"premature"` if the rule wants the QRS like the others, `"ventricular"` if unlike them, both if it does not
        say. Raises ValueError for a rule without a condition on beats, for which nothing can be simulated.
        """
        conditions = rule.get("beat")
        if not conditions:
            name = rule.get("name")
            raise ValueError(f"rule: expected one with a condition on beats, which can be simulated, got {name!r}")
        limits = conditions.get("qrs_likeness", {})
        if "above" in limits:
            return ("premature",)
        return ("ventricular",) if "below" in limits else ("premature", "ventricular")

    def targets(self, rule: Mapping[str, Any]) -> np.ndarray:
        """(beats,), true for beats of the kinds of [`target_kinds`]."""
        return np.asarray(np.any([getattr(self, kind) for kind in self.target_kinds(rule)], axis=0))

    def known_weights(self, sampling_rate: float, rule: Mapping[str, Any]) -> np.ndarray:
        """(samples,), float32, 0 to 1, as `waveform_weights`, from where the waves were placed, not where found."""
        waves = _usual_waves(self.r_peaks, sampling_rate, self.ventricular, self.p_wave)
        return waves.weights(self.targets(rule), self.signal_mv.shape[1], sampling_rate, rule)


@dataclass(frozen=True)
class _Piece:
    """A beat: values (leads, samples) from sample `first` on, and where the beat begins, both relative to R."""

    values: np.ndarray
    first: int
    start: float

    @property
    def from_r(self) -> np.ndarray:
        """(samples,): distance from R in samples."""
        return np.arange(self.first, self.first + self.values.shape[1])


def _whole_beats(peaks: np.ndarray, samples: int, sampling_rate: float) -> np.ndarray:
    """Numbers of the beats that are in the recording from before P to after T."""
    before, after = (seconds * sampling_rate for seconds in WHOLE_BEAT_SECONDS)
    return np.flatnonzero((peaks > before) & (peaks < samples - after))


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
    """Returns the sum (leads, samples) of beats placed at the samples `to`; in their old places they are unchanged.

    `sources` numbers the beat placed there; where `changed`, its P wave is multiplied by `p_factor` (leads,) and
    shifted by `p_shift` samples.
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
    """Cuts out the beats with windows that add up to one from the first beat to the last.

    The rest is dropped, because a QRS complex at the end of a recording is often not detected.
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
    """Scales and shifts what exceeds the chord of the P wave's interval; changes nothing else."""
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
    """A ventricular beat from a narrow one: no P, stretched QRS, new gains of the leads, T opposite to the QRS."""
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
    """Adds the piece in place with its R peak at `r_peak`, clipped to the recording."""
    first = int(r_peak) + piece.first
    low, high = max(0, first), min(signal_mv.shape[1], first + piece.values.shape[1])
    if low < high:
        signal_mv[:, low:high] += piece.values[:, low - first : high - first]


def _f_waves(rng: np.random.Generator, shape: tuple[int, int], sampling_rate: float) -> np.ndarray:
    """Fibrillatory waves, (leads, samples) mV: a wandering frequency, its harmonic, and a size for each lead."""
    leads, samples = shape
    smallest, largest = np.log(F_WAVE_MV)
    size = np.exp(rng.uniform(smallest, largest, (leads, 1)))
    frequency = rng.uniform(*F_WAVE_HZ) * (1 + 0.15 * _wandering(rng, samples, round(0.4 * sampling_rate)))
    envelope = 1 + 0.5 * _wandering(rng, samples, round(0.6 * sampling_rate))
    phase = 2 * np.pi * np.cumsum(frequency) / sampling_rate
    return np.asarray(size * envelope * (np.sin(phase) + 0.4 * np.sin(2 * phase + 1)))


def _wandering(rng: np.random.Generator, samples: int, width: int) -> np.ndarray:
    """(samples,): noise of standard deviation 1, smoothed over `width` samples."""
    return np.convolve(rng.standard_normal(samples + width - 1), np.full(width, width**-0.5), "valid")


def annotated_weights(
    r_peaks: np.ndarray, met: np.ndarray, samples: int, sampling_rate: float, rule: Mapping[str, Any]
) -> np.ndarray:
    """As [`SimulatedEcg.known_weights`], for annotated beats with waves at their usual places.

    `r_peaks` (beats,) are samples, ascending; `met` (beats,) is true for beats annotated as meeting the rule.
    """
    met = np.asarray(met, dtype=bool)
    waves = _usual_waves(np.asarray(r_peaks), sampling_rate, np.zeros(len(met), bool), np.ones(len(met), bool))
    return waves.weights(met, samples, sampling_rate, rule)


def _usual_waves(r_peaks: np.ndarray, sampling_rate: float, ventricular: np.ndarray, has_p: np.ndarray) -> BeatWaves:
    """Usual positions from R, wider in ventricular beats; P starts after the last QRS, T ends before the next P."""
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
