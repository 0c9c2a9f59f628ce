"""Attribution by occlusion: the change of a score when a lead, a wave or a moment is removed.

The change is the whole record's score minus the occluded one's, in the score's unit: positive where the removed part
raised the score. Leads are removed with the lead mask, waves and moments with a straight line in all leads. After
Zeiler and Fergus (ECCV 2014, arXiv 1311.2901). Pure functions of a score (see `scores`) and its inputs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ecgdan_hf.data.measure.delineation import BEAT_SAMPLES, RATE_HZ, delineate
from ecgdan_hf.explain.maps.scores import Inputs, Score
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks
from ecgdan_hf.model.waveform_danet import BeatWaves

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

WAVES = ("P", "QRS", "T")
_USUAL_SD_MV = 0.25  # assumed for z-scored leads when waves are located


def tokens_of_samples(num_samples: int, num_tokens: int, stride: int) -> IntArray:
    """Returns the token nearest to each sample, (num_samples,); token k is centred on sample k * stride."""
    return np.minimum((np.arange(num_samples) + stride // 2) // stride, num_tokens - 1)


def bridge(values: npt.NDArray[np.float32], deleted: BoolArray) -> npt.NDArray[np.float32]:
    """Replaces deleted samples (N, T) of (N, L, T) by a line between their neighbours; by 0 where none is left."""
    length = values.shape[2]
    position = np.arange(length)
    before = np.maximum.accumulate(np.where(deleted, -1, position), axis=1)
    after = np.minimum.accumulate(np.where(deleted, length, position)[:, ::-1], axis=1)[:, ::-1]
    left, right = np.where(before < 0, after, before), np.where(after >= length, before, after)
    share = (position - left) / np.maximum(right - left, 1)
    start, end = (np.take_along_axis(values, np.clip(side, 0, length - 1)[:, None], axis=2) for side in (left, right))
    line = start + np.clip(share, 0, 1).astype(values.dtype)[:, None] * (end - start)
    none_left = np.asarray(deleted.all(axis=1))
    return np.where(none_left[:, None, None], 0, line).astype(values.dtype)


@torch.no_grad()
def occlude_leads(score: Score, inputs: Inputs) -> FloatArray:
    """F(x) - F(x without lead l): (N, L), NaN for absent leads and for a record's only lead.

    Leads are not independent (III = II - I): other leads often show the same, so a lead that matters can have a small
    change.
    """
    mask = _mask(inputs)
    whole, changes = score(inputs), []
    for lead in range(mask.shape[1]):
        left = mask.clone()
        left[:, lead] = False
        possible = mask[:, lead] & left.any(dim=1)
        left = torch.where(possible[:, None], left, mask)
        change = whole - score({**inputs, "lead_mask": left})
        changes.append(change.masked_fill(~possible, torch.nan))
    return torch.stack(changes, dim=1).double().cpu().numpy()


@torch.no_grad()
def occlude_time(score: Score, inputs: Inputs, num_tokens: int, stride: int) -> FloatArray:
    """F(x) - F(x with the samples around one time token bridged in all leads): (N, num_tokens)."""
    values = inputs["input_values"]
    token = tokens_of_samples(values.shape[2], num_tokens, stride)
    stretches = {str(each): np.tile(token == each, (len(values), 1)) for each in range(num_tokens)}
    return np.stack(list(occlude_waves(score, inputs, stretches).values()), axis=1)


@torch.no_grad()
def occlude_waves(score: Score, inputs: Inputs, stretches: Mapping[str, BoolArray]) -> dict[str, FloatArray]:
    """F(x) - F(x with these stretches bridged in all leads): name -> (N,), NaN for records without such a stretch.

    Args:
        score: of [`score_of`].
        inputs: (N, ...).
        stretches: name -> (N, T), true for the samples of the waves, all beats together; see [`wave_stretches`].
    """
    values = inputs["input_values"]
    signal, whole, found = values.float().cpu().numpy(), score(inputs), {}
    for name, stretch in stretches.items():
        without = torch.from_numpy(bridge(signal, stretch)).to(values)
        change = (whole - score({**inputs, "input_values": without})).double().cpu().numpy()
        found[name] = np.where(stretch.any(axis=1), change, np.nan)
    return found


def wave_stretches(
    signal_mv: npt.ArrayLike,
    lead_mask: npt.ArrayLike,
    sampling_rate: float,
    input_kind: str = "rhythm",
    heart_rate_bpm: float = 60.0,
) -> dict[str, BoolArray]:
    """Locates the P waves, QRS complexes and T waves of one record: name -> (samples,), all False if none was found.

    A rhythm strip is delineated as in DANet's rules ([`BeatWaves.delineate`]), a median beat as in the measurements
    ([`delineate`]), with ST and T as one wave from the end of the QRS to the end of the T wave.

    Args:
        signal_mv: (leads, samples), mV, high-pass filtered; may have zero padding at the ends.
        lead_mask: (leads,), True for recorded leads.
        sampling_rate: Hz.
        input_kind: "rhythm" or "median_beat", which has to be at 500 Hz, R peak at 40 % of the signal.
        heart_rate_bpm: of a median beat; limits where its T wave may end and its P wave may begin.
    """
    signal = np.asarray(signal_mv, dtype=np.float64)
    usable = signal[np.asarray(lead_mask, dtype=bool)]
    inside = np.zeros((len(WAVES), signal.shape[1]), dtype=bool)
    find = _of_beat if input_kind == "median_beat" else _of_rhythm
    for row, first, last in find(usable, sampling_rate, heart_rate_bpm):
        inside[row, max(round(first), 0) : max(round(last) + 1, 0)] = True
    return dict(zip(WAVES, inside, strict=True))


def waves_of(config: Any, inputs: Inputs, heart_rate_bpm: float = 60.0) -> list[dict[str, BoolArray]]:
    """Locates the waves of each record, in samples of `input_values`; see [`wave_stretches`].

    z-scored leads are assumed to have a typical SD in millivolt. Median beats with other than 600 samples at 500 Hz
    get no waves.
    """
    values = inputs["input_values"]
    if config.input_kind == "median_beat" and (config.sampling_rate != RATE_HZ or values.shape[2] < BEAT_SAMPLES):
        return [{wave: np.zeros(values.shape[2], dtype=bool) for wave in WAVES} for _ in values]
    scale = (config.global_mean_mv, config.global_std_mv) if config.normalization == "global" else (0.0, _USUAL_SD_MV)
    signals = scale[0] + scale[1] * values.double().cpu().numpy()
    masks = inputs["lead_mask"].bool().cpu().numpy()
    return [
        wave_stretches(signal, mask, config.sampling_rate, config.input_kind, heart_rate_bpm)
        for signal, mask in zip(signals, masks, strict=True)
    ]


def _of_rhythm(usable: FloatArray, sampling_rate: float, _: float) -> list[tuple[int, float, float]]:
    """(wave, first sample, last sample) of every wave of every beat."""
    waves = BeatWaves.delineate(usable, sampling_rate, find_r_peaks(usable, sampling_rate))
    edges = [(waves.p_onset, waves.p_end), (waves.qrs_onset, waves.qrs_end), (waves.t_onset, waves.t_end)]
    pairs = [
        (row, first, last) for row, (onset, end) in enumerate(edges) for first, last in zip(onset, end, strict=True)
    ]
    return [each for each in pairs if np.isfinite(each[1:]).all()]


def _of_beat(usable: FloatArray, sampling_rate: float, heart_rate_bpm: float) -> list[tuple[int, float, float]]:
    if sampling_rate != RATE_HZ or usable.shape[1] < BEAT_SAMPLES:
        raise ValueError(
            f"signal_mv: expected a median beat of {BEAT_SAMPLES} samples at {RATE_HZ} Hz to find waves in, got "
            f"{usable.shape[1]} at {sampling_rate:g} Hz"
        )
    pad = (usable.shape[1] - BEAT_SAMPLES) // 2
    waves = delineate(usable[:, pad : pad + BEAT_SAMPLES], heart_rate_bpm)
    found = [(1, *waves.qrs)]
    if waves.p is not None:
        found.append((0, *waves.p))
    if waves.t_end is not None:
        found.append((2, waves.qrs[1] + 1, waves.t_end))
    return [(row, pad + first, pad + last) for row, first, last in found]


def _mask(inputs: Inputs) -> torch.Tensor:
    values, mask = inputs["input_values"], inputs.get("lead_mask")
    return torch.ones(values.shape[:2], dtype=torch.bool, device=values.device) if mask is None else mask.bool()
