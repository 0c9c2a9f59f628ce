"""A 12-lead ECG made of Gaussian waves, whose every beat is known, for the tests of this folder."""

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
WAVES = ((-0.16, 0.025), (-0.03, 0.010), (0.0, 0.012), (0.03, 0.010), (0.28, 0.045))  # P, Q, R, S, T: seconds from R
AMPLITUDES_MV = {
    "I": (0.10, -0.05, 0.80, -0.10, 0.20),
    "II": (0.15, -0.10, 1.20, -0.20, 0.30),
    "V1": (0.05, 0.00, 0.20, -1.00, -0.10),
    "V2": (0.06, 0.00, 0.50, -1.40, 0.40),
    "V3": (0.07, -0.02, 0.90, -0.90, 0.45),
    "V4": (0.08, -0.05, 1.50, -0.50, 0.40),
    "V5": (0.09, -0.08, 1.40, -0.25, 0.35),
    "V6": (0.09, -0.10, 1.10, -0.10, 0.28),
}


def beat(seconds: np.ndarray) -> np.ndarray:
    """(12, times) mV, seconds from the R peak."""
    waves = np.exp(-0.5 * np.stack([((seconds - centre) / width) ** 2 for centre, width in WAVES]))
    lead = {name: np.asarray(amplitudes) @ waves for name, amplitudes in AMPLITUDES_MV.items()}
    one, two = lead["I"], lead["II"]
    lead |= {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return np.stack([lead[name] for name in LEADS])


def ectopic(seconds: np.ndarray) -> np.ndarray:
    """(12, times) mV: a wide two-phase beat of another axis, without P wave."""
    shape = np.exp(-0.5 * (seconds / 0.03) ** 2) - 0.5 * np.exp(-0.5 * ((seconds - 0.07) / 0.03) ** 2)
    axis = np.roll(beat(np.zeros(1)), 6, axis=0)
    return -1.5 * axis * (shape - 0.3 * np.exp(-0.5 * ((seconds - 0.3) / 0.05) ** 2))


def record(
    rate: float = 500,
    duration: float = 10.0,
    heart_rate: float = 70,
    noise_mv: float = 0.0,
    ectopics: tuple[int, ...] = (),
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """(12, samples) mV and the R peak times in seconds; RR intervals vary by 3 %."""
    generator = np.random.default_rng(seed)
    intervals = 60 / heart_rate * (1 + 0.03 * generator.standard_normal(int(duration * heart_rate / 60) + 2))
    peaks = 0.35 + np.cumsum(intervals) - intervals[0]
    peaks = peaks[peaks < duration - 0.1]
    time = np.arange(round(duration * rate)) / rate
    signal = sum((ectopic if index in ectopics else beat)(time - peak) for index, peak in enumerate(peaks))
    return signal + noise_mv * generator.standard_normal(signal.shape), peaks
