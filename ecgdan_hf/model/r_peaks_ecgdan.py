"""R peaks of a multi-lead recording.

R peaks are found in every usable lead and accepted where at least half of the leads agree, so that one noisy lead or
one tall T wave decides nothing. Within a lead, a QRS complex is where the slope, smoothed over 0.1 s, exceeds 1.5
times its mean over 0.75 s, and its R peak is the local maximum of the largest prominence: the method of NeuroKit2
(Makowski et al., Behavior Research Methods 53:1689, 2021), for all leads at once.

Travels with the weights: numpy, and scipy where it is needed.
"""

import numpy as np

from .filters_ecgdan import import_scipy

QRS_SECONDS = 0.1  # to each side of the R peak: the part that beats are compared by
SLOPE_SECONDS, AVERAGE_SECONDS = 0.1, 0.75  # moving averages of the slope: in a QRS complex, and around it
STEEP = 1.5  # slope of a QRS complex over the average around it
MIN_LENGTH = 0.4  # of a steep stretch, in mean lengths of its lead's; shorter is noise
REFRACTORY_SECONDS = 0.2  # between two beats of one lead; 300 per minute
SMOOTH_SECONDS = 0.02  # moving average before detection: a zero at 50 Hz
VOTE_SECONDS = 0.08  # detections of different leads this close are one beat
MIN_PER_SECOND = 1 / 3  # beats, 20 per minute; with fewer a lead is read the other way up as well
CENTRE_SECONDS = 0.04  # an R peak is moved this far at most to the leads' common maximum


def find_r_peaks(signal_mv: np.ndarray, sampling_rate: float) -> np.ndarray:
    """Returns sample indices of R peaks, (beats,) ascending, on which at least half of the leads agree.

    The most regular lead decides where there are one or two. A QRS without positive R wave counts by its largest
    deflection. `signal_mv`: (leads, samples), mV, high-pass filtered, usable leads only.
    """
    signal_mv = _smooth(signal_mv, round(SMOOTH_SECONDS * sampling_rate))
    if len(signal_mv) < 3:  # among more leads another one has the R wave
        per_lead = [_lone_lead_peaks(lead, sampling_rate) for lead in signal_mv]
        regularity = [_regularity(lead, peaks, sampling_rate) for lead, peaks in zip(signal_mv, per_lead, strict=True)]
        peaks = per_lead[int(np.argmax(regularity))]
    else:
        peaks = _vote(_lead_peaks(signal_mv, sampling_rate), signal_mv.shape[1], sampling_rate)
    return _centre(peaks, signal_mv, round(CENTRE_SECONDS * sampling_rate))


def heart_rate(r_peaks: np.ndarray, num_samples: int, sampling_rate: float) -> float:
    """Beats per minute: from the median RR interval, or from count over duration with fewer than two R peaks."""
    if len(r_peaks) < 2:
        return 60.0 * len(r_peaks) * sampling_rate / num_samples
    return 60.0 * sampling_rate / float(np.median(np.diff(r_peaks)))


def _smooth(signal_mv: np.ndarray, width: int) -> np.ndarray:
    """Centred moving average over `width` samples, the ends repeated."""
    if width < 2:
        return signal_mv
    return np.asarray(import_scipy("ndimage").uniform_filter1d(signal_mv, width, axis=1, mode="nearest"))


def _lead_peaks(signal_mv: np.ndarray, sampling_rate: float) -> list[np.ndarray]:
    """R peaks of each lead by itself, as sample indices."""
    lead, begin, end = _qrs_complexes(signal_mv, sampling_rate)
    lead, peaks = _most_prominent(signal_mv, lead, begin, end)
    delay = round(REFRACTORY_SECONDS * sampling_rate)
    return [_after_delay(peaks[lead == row], delay) for row in range(len(signal_mv))]


def _qrs_complexes(signal_mv: np.ndarray, sampling_rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lead, begin and end (complexes,) of the steep stretches that lie wholly in the recording and are long enough."""
    mean = import_scipy("ndimage").uniform_filter1d
    slope = np.empty_like(signal_mv)
    slope[:, 1:-1] = (signal_mv[:, 2:] - signal_mv[:, :-2]) / 2
    slope[:, [0, -1]] = signal_mv[:, [1, -1]] - signal_mv[:, [0, -2]]
    np.abs(slope, out=slope)
    slope = mean(slope, round(SLOPE_SECONDS * sampling_rate), axis=1, mode="nearest")
    steep = slope > STEEP * mean(slope, round(AVERAGE_SECONDS * sampling_rate), axis=1, mode="nearest")
    before, after = steep[:, :-1], steep[:, 1:]
    (lead, begin), (end_lead, end) = np.nonzero(after & ~before), np.nonzero(before & ~after)
    last, first = np.diff(lead, append=-1) != 0, np.diff(end_lead, prepend=-1) != 0
    whole = ~(last & steep[lead, -1])
    lead, begin, end = lead[whole], begin[whole], end[~(first & steep[end_lead, 0])]
    count = np.bincount(lead, minlength=len(signal_mv))
    mean_length = np.bincount(lead, end - begin, len(signal_mv)) / np.maximum(count, 1)
    enough = end - begin >= MIN_LENGTH * mean_length[lead]
    return lead[enough], begin[enough], end[enough]


def _most_prominent(
    signal_mv: np.ndarray, lead: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lead and sample (peaks,) of the most prominent local maximum of each stretch; a stretch may have none.

    All stretches are looked at in one row, a wall between each and the next.
    """
    find, prominence = import_scipy("signal").find_peaks, import_scipy("signal").peak_prominences
    length = end - begin + 1
    stretch = np.repeat(np.arange(len(lead)), length)
    sample = np.arange(len(stretch)) - np.repeat(np.cumsum(length) - length, length) + begin[stretch]
    is_wall = sample == end[stretch]
    row = np.where(is_wall, np.inf, signal_mv[lead[stretch], np.minimum(sample, signal_mv.shape[1] - 1)])
    found = find(row)[0]
    found = found[~is_wall[found]]
    order = found[np.lexsort((found, -prominence(row, found)[0], stretch[found]))]
    order = order[np.diff(stretch[order], prepend=-1) != 0]
    return lead[stretch[order]], sample[order]


def _after_delay(peaks: np.ndarray, delay: int) -> np.ndarray:
    """Leaves out peaks within `delay` samples of the one before, or of the begin of the recording."""
    kept = [0]
    for peak in peaks.tolist():
        if peak - kept[-1] > delay:
            kept.append(peak)
    return np.array(kept[1:], dtype=int)


def _lone_lead_peaks(lead_mv: np.ndarray, sampling_rate: float) -> np.ndarray:
    """Peaks with the QRS turned upwards, as a QRS without a local maximum has none; else the other way up."""
    upright = lead_mv * _polarity(lead_mv, sampling_rate)
    (peaks,) = _lead_peaks(upright[None], sampling_rate)
    if len(peaks) < MIN_PER_SECOND * len(lead_mv) / sampling_rate:
        peaks = max(peaks, *_lead_peaks(-upright[None], sampling_rate), key=len)
    return peaks


def _polarity(lead_mv: np.ndarray, sampling_rate: float) -> float:
    """-1 where QRS complexes point down, else 1: what a moving average of a QRS's length removes is mostly QRS."""
    sharp = lead_mv - _smooth(lead_mv[None], round(QRS_SECONDS * sampling_rate))[0]
    width = min(len(sharp), round(sampling_rate))
    seconds = sharp[: len(sharp) // width * width].reshape(-1, width)
    return -1.0 if np.median(seconds.min(axis=1)) < -np.median(seconds.max(axis=1)) else 1.0


def _vote(per_lead: list[np.ndarray], num_samples: int, sampling_rate: float) -> np.ndarray:
    """Peaks (beats,) on which at least half of the leads agree."""
    reach = round(VOTE_SECONDS * sampling_rate)
    every = np.sort(np.concatenate(per_lead))
    # peaks of one lead are farther apart than twice the reach, so that no lead votes twice
    gained = np.bincount(np.maximum(every - reach, 0), minlength=num_samples + 1)
    lost = np.bincount(np.minimum(every + reach + 1, num_samples), minlength=num_samples + 1)
    votes = np.cumsum(gained - lost)[:-1]
    agreed = np.concatenate(([False], 2 * votes >= len(per_lead), [False]))
    edges = np.flatnonzero(agreed[1:] != agreed[:-1])
    starts, ends = edges[::2], edges[1::2]
    first, last = np.searchsorted(every, starts - reach), np.searchsorted(every, ends + reach)
    first, last = first[last > first], last[last > first]
    return np.asarray(every[(first + last - 1) // 2] + every[(first + last) // 2]) // 2  # the median of each group


def _regularity(lead_mv: np.ndarray, peaks: np.ndarray, sampling_rate: float) -> float:
    """Mean correlation of a lead's QRS complexes with their median; -1 with fewer than two."""
    reach = round(QRS_SECONDS * sampling_rate)
    peaks = peaks[(peaks >= reach) & (peaks < len(lead_mv) - reach)]
    if len(peaks) < 2:
        return -1.0
    complexes = unit_rows(lead_mv[peaks[:, None] + np.arange(-reach, reach)])
    return float(np.mean(complexes @ unit_rows(np.median(complexes, axis=0))))


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (..., samples) minus their mean, over their length: the product of two is a correlation."""
    rows = rows - rows.mean(axis=-1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return rows


def lead_sizes(signal_mv: np.ndarray) -> np.ndarray:
    """(leads, 1), about the median absolute value; over it, a lead full of noise weighs little."""
    level = np.median(np.abs(signal_mv[:, ::5]), axis=1, keepdims=True)  # every fifth sample is plenty and fast
    return np.asarray(np.maximum(level + 0.1 * np.median(level), 1e-6))


def _centre(peaks: np.ndarray, signal_mv: np.ndarray, reach: int) -> np.ndarray:
    """Moves each peak to the largest root mean square over leads within `reach`.

    Each lead is cut off at the leads' usual maximum: a spike is no R wave.
    """
    if not len(peaks):
        return peaks
    size = lead_sizes(signal_mv)
    largest = np.maximum(signal_mv.max(axis=1), -signal_mv.min(axis=1)) / size[:, 0]
    places = peaks[:, None] + np.arange(-reach, reach + 1)
    inside = np.clip(places, 0, signal_mv.shape[1] - 1)
    near = np.abs(signal_mv[:, inside.ravel()]) / size
    power = (np.minimum(near, np.median(largest)) ** 2).sum(axis=0).reshape(places.shape)
    power[places != inside] = -1.0
    return np.unique(peaks - reach + power.argmax(axis=1))
