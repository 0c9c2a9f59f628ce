"""Which electrodes were probably exchanged, from the median beat.

Exchanged limb electrodes change I and II by a known linear map and leave V1-V6 unchanged, because the mean of the
three limb potentials stays the same (Batchvarov et al., Europace 9:1081, 2007). A linear regression per wave from
V1-V6, fitted on PTB-XL, predicts the heart's vector in the frontal plane; the likely exchange is the one whose undoing
brings the recorded vector closest to the prediction (after Kors and van Herpen, Am J Cardiol 88:396, 2001).

Dextrocardia looks like exchanged arms. An exchange of left arm and left leg changes the vector too little to be
detected, so it is not looked for. `tests/benchmarks/bench_lead_reversal.py` measures sensitivity and specificity and
fits the numbers below. Imports nothing of the package.
"""

from collections.abc import Mapping
from itertools import combinations, pairwise

import numpy as np

RATE_HZ = 100
BEAT_SAMPLES = 120  # 480 ms before the R peak, 720 ms after it
CHEST_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6")
WAVES = {"P": slice(20, 41), "QRS": slice(42, 56), "T": slice(62, 95)}  # samples of the beat
P_TO_T = slice(20, 100)
ISOELECTRIC = slice(40, 42)  # 80 to 60 ms before the R peak
NOISE_MV = 0.02  # smaller waves count less

# I and II after an exchange, as combinations of I and II before it. RA, LA: arms; LL: left leg; three: in turn.
SWAPS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "RA-LA": ((-1, 0), (-1, 1)),
    "RA-LL": ((1, -1), (0, -1)),
    "LA-LL": ((0, 1), (1, 0)),
    "RA-LA-LL": ((-1, 1), (-1, 0)),  # right arm electrode on the left arm, left arm on the leg
    "RA-LL-LA": ((0, -1), (1, -1)),
}
NOT_LOOKED_FOR = "LA-LL"
# Left and down from I and II. In these coordinates every exchange is a rotation or a reflection.
FRONTAL = np.array([[1.0, 0.0], [-1 / np.sqrt(3), 2 / np.sqrt(3)]])
TURNS = {
    "none": np.eye(2),
    **{kind: FRONTAL @ np.linalg.inv(np.array(swap)) @ np.linalg.inv(FRONTAL) for kind, swap in SWAPS.items()},
}

# I and II from V1-V6, one row for each; least squares over the samples of the wave, PTB-XL folds 1-4.
REGRESSION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "P": ((-0.59, 0.71, -0.39, -0.04, 0.45, 0.39), (-0.08, -0.05, 0.15, 0.16, 0.67, 0.69)),
    "QRS": ((-0.61, 0.28, 0.03, -0.07, 0.05, 0.35), (-0.03, -0.13, 0.1, 0.2, -0.17, 0.52)),
    "T": ((-0.43, 0.32, -0.09, -0.06, 0.18, 0.32), (0.03, 0.02, 0.11, 0.05, -0.2, 0.89)),
}
WEIGHTS = {"P": 3 / 6, "QRS": 2 / 6, "T": 1 / 6}  # of the waves' correlations; a conditional logit, rounded
LIMB_MARGIN = 0.2  # minimum rise of the correlation; 2 of the 1,140 records of folds 1-4 exceed it
SILENT_LEAD = 0.06  # share of the largest of I, II and III; less is the difference between two legs; PTB-XL: >= 0.15
CHEST_RATIO = 1.72  # minimum shortening of the path along V1-V6 by an exchange; 3 of those records exceed it
CHEST_FLOOR = 0.05


def electrode_problems(beat_mv: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Problems `limb_leads_reversed` and `chest_leads_exchanged`, with the electrodes that were probably exchanged.

    These are a key of `SWAPS`, `"RL"` if the right leg is involved, or a chest pair such as `"V1-V3"`. `beat_mv` is
    (120,) millivolt for each lead, 100 Hz, R peak at sample 48; without a needed lead (I and II, V1-V6) nothing is
    found.
    """
    if any(np.isnan(lead).any() for lead in beat_mv.values()):  # no beat with all of its window in the recording
        return {}
    found = {"limb_leads_reversed": _limb_swap(beat_mv), "chest_leads_exchanged": _chest_swap(beat_mv)}
    return {name: kind for name, kind in found.items() if kind is not None}


def _limb_swap(beat_mv: Mapping[str, np.ndarray]) -> str | None:
    if any(lead not in beat_mv for lead in ("I", "II", *CHEST_LEADS)):
        return None
    if _right_leg_swap(beat_mv):
        return "RL"
    scores = _limb_scores(beat_mv)
    recorded = scores.pop("none")
    scores.pop(NOT_LOOKED_FOR)
    likely = max(scores, key=scores.__getitem__)
    return likely if scores[likely] - recorded > LIMB_MARGIN else None


def _right_leg_swap(beat_mv: Mapping[str, np.ndarray]) -> bool:
    """Whether I, II or III is nearly silent compared with the others: both its electrodes are on the legs."""
    first, second = beat_mv["I"], beat_mv["II"]
    sizes = [float(np.std(lead)) for lead in (first, second, second - first)]
    return min(sizes) < SILENT_LEAD * max(sizes)


def _limb_scores(beat_mv: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Agreement, -1 to 1, of I and II with V1-V6, as recorded (`"none"`) and with each of `SWAPS` undone."""
    chest = _level(np.stack([beat_mv[lead] for lead in CHEST_LEADS]))
    limb = _level(np.stack([beat_mv["I"], beat_mv["II"]]))
    likeness = np.zeros((2, 2))  # predicted x recorded; left, down
    for name, samples in WAVES.items():
        predicted, recorded = FRONTAL @ np.array(REGRESSION[name]) @ chest[:, samples], FRONTAL @ limb[:, samples]
        size = np.linalg.norm(predicted) * np.linalg.norm(recorded) + NOISE_MV**2 * predicted.shape[1]
        likeness += WEIGHTS[name] * predicted @ recorded.T / size
    return {kind: float((turn * likeness).sum()) for kind, turn in TURNS.items()}


def _level(leads_mv: np.ndarray) -> np.ndarray:
    level: np.ndarray = leads_mv - leads_mv[:, ISOELECTRIC].mean(axis=1, keepdims=True)
    return level


def _chest_swap(beat_mv: Mapping[str, np.ndarray]) -> str | None:
    """The pair whose exchange makes the path from V1 to V6 much shorter, as neighbouring chest leads look alike."""
    if any(lead not in beat_mv for lead in CHEST_LEADS):
        return None
    ratios = _chest_ratios(beat_mv)
    likely = max(ratios, key=ratios.__getitem__)
    return likely if ratios[likely] > CHEST_RATIO else None


def _chest_ratios(beat_mv: Mapping[str, np.ndarray]) -> dict[str, float]:
    """For each pair of chest leads the length of the path as recorded over that with the two exchanged."""
    beat = np.stack([beat_mv[lead] for lead in CHEST_LEADS])[:, P_TO_T]
    beat = beat - beat.mean(axis=1, keepdims=True)
    unit = beat / np.maximum(np.linalg.norm(beat, axis=1, keepdims=True), 1e-6)
    apart = 1 - unit @ unit.T
    as_recorded = _path(apart, range(6))
    ratios = {}
    for a, b in combinations(range(6), 2):
        order = list(range(6))
        order[a], order[b] = b, a
        ratios[f"{CHEST_LEADS[a]}-{CHEST_LEADS[b]}"] = as_recorded / _path(apart, order)
    return ratios


def _path(apart: np.ndarray, order: range | list[int]) -> float:
    """Sum of 1 - correlation over neighbours."""
    return CHEST_FLOOR + float(sum(apart[a, b] for a, b in pairwise(order)))
