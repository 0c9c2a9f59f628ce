"""Whether a recording is probably not as it claims: inverted, of another rate or gain, reversed, arms exchanged.

Each doubt is a linear score of the median beat, positive for a corrupted recording. `tests/benchmarks/bench_doubts.py`
corrupts real recordings, fits the weights on PTB-XL folds 1-8 and measures on fold 9 how many are found and how many
are suspected for nothing. Travels with the weights: numpy only.
"""

import numpy as np

from .median_beat_ecgdan import R_POSITION

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")  # the other limb leads follow from them
RATE_HZ = 100
BEFORE, AFTER = 48, 72  # samples of the beat around its R peak
EDGES = (8, 16, 22, 28, 34, 40, 44, 46, 48, 50, 52, 54, 58, 64, 72, 80, 88, 98, 114)  # of bins: P, QRS, ST, T
QRS, P, T = slice(38, 60), slice(20, 40), slice(62, 95)
FASTEST = (2, 4, 6, 8, 10, 14, 18, 24, 30, 40, 60, 80)  # ranks of the samples by speed
FLOOR = 0.005  # mV, or of the beat's size: what is smaller is noise


_WEIGHTS = {  # doubt -> features, constant, and a weight for each of them
    "inverted": (
        "shape",
        -728,
        """
        -331 98 -999 -956 -677 -688 -265 -122 -85 -50 117 413 354 -158 -155 -134 234 -437
        -166 118 -617 -381 -92 156 68 -69 -72 43 236 912 918 -181 -149 -527 -982 145
        605 862 478 467 752 829 -149 52 54 82 -164 -378 -118 23 24 -253 -30 -214
        -191 -50 27 211 608 -269 -69 33 50 79 56 -110 -116 -95 -96 -148 -284 52
        -110 63 -32 47 581 35 70 17 32 73 103 67 -108 -101 -74 -53 -346 137
        -197 -125 -313 -366 341 113 40 -20 -17 92 130 288 -161 -148 -70 14 -165 123
        -305 104 6 -544 164 -431 -147 -47 -42 88 51 294 81 -160 -69 87 57 179
        -525 345 90 -680 171 -127 -156 -74 -58 -18 20 197 122 -206 -127 -92 -504 215
    """,
    ),
    "arms_exchanged": (
        "shape",
        -186,
        """
        -363 74 -353 -999 -344 98 -141 -148 -109 33 -65 -16 220 -304 -202 16 -230 -59
        -16 -152 5 -165 -39 -81 -12 -40 -26 15 -22 -13 -16 -96 -39 50 -75 50
        26 13 -85 20 -50 39 -5 2 0 4 0 -5 7 0 -4 37 -2 5
        -7 -2 41 -38 -5 -31 5 -1 -4 1 1 -5 16 1 -10 3 -25 9
        3 13 13 26 27 16 1 3 1 1 -5 -3 0 2 2 8 17 -5
        24 -18 -58 47 7 14 1 2 1 1 3 10 0 -2 1 -17 56 -11
        27 47 -24 29 0 -1 -3 4 1 -1 5 -11 -4 7 7 1 -9 -14
        31 2 40 93 25 1 5 12 6 -9 16 6 -1 30 23 -9 -14 -12
    """,
    ),
    "time_reversed": (
        "order",
        -274,
        """
        -26 128 52 -271 -283 -195 -96 -55 23 94 79 -55 311 5 -111 -201 176 -44
        156 147 40 -185 -277 -184 -69 -19 1 50 57 72 191 -47 -156 -242 -89 134
        250 31 2 46 213 151 -40 -37 16 45 -26 -170 -264 44 23 -202 -100 64
        -130 46 55 96 145 40 -40 -37 8 39 -32 -107 -228 -85 -56 5 70 52
        -44 19 18 101 125 -49 -48 -22 3 34 -20 -56 -209 -79 -39 -7 49 62
        -27 -5 -20 94 50 -160 -66 -27 3 46 -1 62 -40 -50 -21 50 5 59
        33 12 -19 49 -169 -216 -80 -28 2 54 -38 135 179 -35 -33 58 54 19
        44 66 21 12 -242 -62 6 -1 -6 26 -53 48 276 -53 -72 113 50 -26
        -66 238 205 648 880 217 -21 17 -16 -23 -48 -396 -999 -371 -214 -65 204 178
    """,
    ),
    "rate_doubled": (
        "timing",
        1586,
        """
        655 941 25 51 -23 -170 -41 221 -314 -16 999 -185 -253 43 618 -679 -266 -122
        124 163 95 121 162 -472 423 622 -468 51 149 -258 122 406 489 144 75 34
        80 165 634 -370 110 7 -54 -26 225 190 216 170 -102 -312
    """,
    ),
    "rate_halved": (
        "timing",
        -687,
        """
        -999 477 -82 213 105 -60 172 200 67 -109 192 18 -23 78 74 -201 -176 241
        432 329 19 2 -200 -239 -125 172 152 -232 -54 -33 161 157 -57 -216 -228 -149
        -159 -298 -338 -233 16 63 139 -51 -192 -103 -2 197 171 375
    """,
    ),
    "gain_tripled": (
        "size",
        9974,
        """
        153 169 163 181 115 58 248 155 164 137 153 94 113 96 230 173 191 46
        15 38 54 98 121 166 53 34 47 39 10 3 37 63 81 136 210 153
        55 95 154 106 76 107 30 37 57 48 83 52 80 136 139 151 211 47
        87 222 147 116 51 73 61 118 113 75 93 50 -180 -999 -51 -84 -78 71
        165 87 -7 -24 138 39 19 12 -223 -118 -25 -19 -27 -34 18 67 72 57
        170 -31 23 230 61 34 -16 -15 -111 41 37 5 7 15 16 78 -49 -73
        -113 -147 -162 -150 -99 -59 53 66
    """,
    ),
}


def doubts(beat_mv: np.ndarray, leads: list[str], sampling_rate: float, beats_per_minute: float) -> list[str]:
    """What a recording probably is instead of what it is named as; nothing without I, II and V1 to V6.

    Args:
        beat_mv: (leads, samples), mV, the median beat with its R peak at 40 % of the window; NaN where none reaches.
        leads: names of the rows.
        sampling_rate: Hz, of the beat.
        beats_per_minute: heart rate.

    Returns:
        Names among `inverted`, `arms_exchanged`, `time_reversed`, `rate_doubled`, `rate_halved` (the stated rate is
        twice or half the true one) and `gain_tripled`, the likeliest first.
    """
    if any(lead not in leads for lead in LEADS):
        return []
    rows = beat_mv[[leads.index(lead) for lead in LEADS]]
    beat = beat_at_100_hz(rows, round(R_POSITION * rows.shape[1]), sampling_rate)
    if beat is None:
        return []
    found = features(beat, beats_per_minute)
    scores = {name: constant + weights @ found[kind] for name, (kind, constant, weights) in _SCORES.items()}
    return sorted((name for name, score in scores.items() if score > 0), key=lambda name: -scores[name])


def beat_at_100_hz(beat_mv: np.ndarray, centre: int, sampling_rate: float) -> np.ndarray | None:
    """The beat, (leads, 120) with the R peak at sample 48; None if the window is shorter or has gaps."""
    step = sampling_rate / RATE_HZ
    places = np.round(centre + step * np.arange(-BEFORE, AFTER)).astype(int)
    width = max(1, round(step))
    first, last = int(places[0]) - width // 2, int(places[-1]) + width - width // 2
    if first < -width or last > beat_mv.shape[1] + width:
        return None
    total = np.cumsum(np.pad(beat_mv, ((0, 0), (width + 1, width)), mode="edge"), axis=1)
    starts = places + width - width // 2
    beat: np.ndarray = (total[:, starts + width] - total[:, starts]) / width
    return beat if np.isfinite(beat).all() else None


def features(beat_mv: np.ndarray, beats_per_minute: float) -> dict[str, np.ndarray]:
    """Features of each kind, from the beat (8 leads in the order of `LEADS`, 120 samples at 100 Hz)."""
    level = beat_mv - np.median(beat_mv, axis=1, keepdims=True)
    edges = np.array(EDGES)
    bins = np.add.reduceat(level, edges, axis=1)[:, :-1] / np.diff(edges)
    size = np.sqrt((bins**2).mean()) + 1e-6
    shape = bins / size
    course = np.sqrt((shape**2).mean(axis=0))
    steps_mv = np.abs(np.diff(beat_mv, axis=1))
    speeds_mv = np.add.reduceat(steps_mv.mean(axis=0), edges)[:-1] / np.diff(edges)
    speeds = speeds_mv / (np.sqrt((level**2).mean()) + 1e-6)
    fastest = np.sort(np.sqrt((steps_mv**2).mean(axis=0)))[::-1]
    rate = np.log(beats_per_minute / 72)
    timing = [
        np.log(course + 0.05),
        np.log(speeds + FLOOR),
        np.log(fastest[list(FASTEST)] / (fastest[0] + 1e-9) + FLOOR),
    ]
    heights = np.log(np.ptp(beat_mv[:, QRS], axis=1) + 2 * FLOOR)
    waves = [np.log(np.sqrt((beat_mv[:, wave] ** 2).mean(axis=1)) + FLOOR) for wave in (P, T)]
    overall = [np.log(size), *np.sort(heights)[[1, 4, 6]], *map(np.median, waves)]
    speeds_and_waves = (*waves, np.log(course * size + FLOOR), np.log(speeds_mv + FLOOR / 10))
    return {
        "shape": shape.ravel(),
        "order": np.concatenate([shape.ravel(), course]),
        "timing": np.concatenate([[rate, rate**2], *timing]),
        "size": np.concatenate([overall, heights, *speeds_and_waves, [rate, rate**2], *timing]),
    }


_SCORES = {
    name: (kind, constant, np.array(weights.split(), dtype=np.float64))
    for name, (kind, constant, weights) in _WEIGHTS.items()
}
