"""Which electrodes were probably exchanged, judged on the median beat.

Exchanged limb electrodes change I and II by a known linear map and leave V1-V6 alone, because the mean of the three
limb potentials stays the same (Batchvarov et al., Europace 9:1081, 2007). So V1-V6 can be asked what I and II should
look like: a linear regression per wave, fitted on PTB-XL, foretells the heart's vector in the frontal plane, and the
exchange whose undoing brings the recorded vector closest to it is the likely one. The idea is that of Kors and van
Herpen (Am J Cardiol 88:396, 2001), who correlate each lead with its reconstruction from the others.

The mirrored heart of dextrocardia looks like exchanged arms. An exchange of left arm and left leg turns the vector too
little to be told from a heart that lies otherwise, so it is not looked for. What is found and what is missed is
measured by `tests/benchmarks/bench_lead_reversal.py`, which also fits the numbers below.

Imports nothing of the package.
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
NOISE_MV = 0.02  # a wave of this size is no evidence

# I and II after an exchange, as combinations of I and II before it. RA, LA: arms; LL: left leg; three: in turn.
SWAPS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "RA-LA": ((-1, 0), (-1, 1)),
    "RA-LL": ((1, -1), (0, -1)),
    "LA-LL": ((0, 1), (1, 0)),
    "RA-LA-LL": ((-1, 1), (-1, 0)),  # the electrode of the right arm on the left arm, that one's on the leg
    "RA-LL-LA": ((0, -1), (1, -1)),
}
NOT_LOOKED_FOR = "LA-LL"
# Left and down from I and II. Here every exchange, and so its undoing, is a rotation or a reflection.
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
LIMB_MARGIN = 0.2  # by how much the correlation must rise; 2 of the 1,140 records of folds 1-4 are above
SILENT_LEAD = 0.06  # of the largest of I, II and III: less is the difference between two legs; PTB-XL has 0.15 or more
CHEST_RATIO = 1.72  # by how much an exchange must shorten the path along V1-V6; 3 of those are above
CHEST_FLOOR = 0.05


def limb_swap(beat_mv: Mapping[str, np.ndarray]) -> str | None:
    """The likely exchange of limb electrodes: a key of `SWAPS`, `"RL"` for the right leg's, or None.

    Args:
        beat_mv: (120,) millivolt for each lead, 100 Hz, R peak at sample 48. Without I, II and V1-V6 nothing is said.
    """
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
    """Whether I, II or III is nearly silent beside the others: both its electrodes are on the legs.

    Args:
        beat_mv: with I and II, as in `limb_swap`.
    """
    first, second = beat_mv["I"], beat_mv["II"]
    sizes = [float(np.std(lead)) for lead in (first, second, second - first)]
    return min(sizes) < SILENT_LEAD * max(sizes)


def _limb_scores(beat_mv: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How well I and II agree with V1-V6, as recorded (`"none"`) and with each of `SWAPS` undone; -1 to 1.

    Args:
        beat_mv: with I, II and V1-V6, as in `limb_swap`.
    """
    chest = _level(np.stack([beat_mv[lead] for lead in CHEST_LEADS]))
    limb = _level(np.stack([beat_mv["I"], beat_mv["II"]]))
    likeness = np.zeros((2, 2))  # of foretold and recorded, left and down each
    for name, samples in WAVES.items():
        foretold, recorded = FRONTAL @ np.array(REGRESSION[name]) @ chest[:, samples], FRONTAL @ limb[:, samples]
        size = np.linalg.norm(foretold) * np.linalg.norm(recorded) + NOISE_MV**2 * foretold.shape[1]
        likeness += WEIGHTS[name] * foretold @ recorded.T / size
    return {kind: float((turn * likeness).sum()) for kind, turn in TURNS.items()}


def _level(leads_mv: np.ndarray) -> np.ndarray:
    level: np.ndarray = leads_mv - leads_mv[:, ISOELECTRIC].mean(axis=1, keepdims=True)
    return level


def chest_swap(beat_mv: Mapping[str, np.ndarray]) -> str | None:
    """The likely exchange of two chest electrodes, such as `"V1-V3"`, or None.

    Neighbouring chest leads look alike. Where the exchange of two makes the path from V1 to V6, the sum of 1 -
    correlation over neighbours, much shorter, they were probably exchanged.

    Args:
        beat_mv: as in `limb_swap`. Without V1-V6 nothing is said.
    """
    if any(lead not in beat_mv for lead in CHEST_LEADS):
        return None
    ratios = _chest_ratios(beat_mv)
    likely = max(ratios, key=ratios.__getitem__)
    return likely if ratios[likely] > CHEST_RATIO else None


def _chest_ratios(beat_mv: Mapping[str, np.ndarray]) -> dict[str, float]:
    """For each two chest leads the length of the path as recorded over that with both exchanged.

    Args:
        beat_mv: with V1-V6, as in `limb_swap`.
    """
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
    return CHEST_FLOOR + float(sum(apart[a, b] for a, b in pairwise(order)))
