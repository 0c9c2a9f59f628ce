"""Zero-phase filters of many leads.

They follow Kligfield et al., Circulation 115:1306 (2007): zero phase, because a causal 0.5 Hz high-pass bends the ST
segment. A recursive filter is linear in the samples and its state, so a block of samples is filtered by one small
matrix, and the states between blocks follow from another; the reflected ends need no samples of their own. The result
is that of `scipy.signal.sosfiltfilt` (Gustafsson, IEEE Trans. Signal Processing 44:988, 1996) to rounding.

Travels with the weights: numpy, and scipy where it is needed.
"""

from functools import lru_cache
from types import ModuleType

import numpy as np

HIGHPASS_ORDER = 2  # run forwards and backwards: fourth order, -6 dB at the corner, zero phase
NOTCH_QUALITY = 30.0  # centre frequency over bandwidth of the powerline notch
EDGE_SECONDS = 2.0  # reflected signal in front of and behind the record for the filters to settle on
SHORTEST, LONGEST = 20, 64  # samples of a block
MAX_STATES = 512  # of all blocks together; with more, the recursion itself is as fast


def import_scipy(name: str) -> ModuleType:
    """`scipy.signal` or `scipy.ndimage`, imported when first needed: a model can be loaded and run without it."""
    try:
        from scipy import ndimage, signal
    except ImportError as error:
        raise ImportError("EcgDanFeatureExtractor filters and resamples with scipy: pip install scipy") from error
    modules: dict[str, ModuleType] = {"ndimage": ndimage, "signal": signal}
    return modules[name]


@lru_cache(maxsize=64)
def block_length(num_samples: int, num_sections: int) -> int | None:
    """The best number of samples of a block that divides a recording; None where the recording is better not cut."""
    fitting = [length for length in range(SHORTEST, LONGEST + 1) if num_samples % length == 0]
    wide = [length for length in fitting if 2 * num_sections * (num_samples // length + 1) <= MAX_STATES]
    return min(wide, key=lambda length: length + (2 * num_sections / length) ** 2 * num_samples, default=None)


class ZeroPhase:
    """A filter run forwards and backwards over recordings of one length, the ends reflected evenly.

    Args:
        sections: (sections, 6), second-order sections.
        num_samples: of a recording, a multiple of `block`.
        edge: samples reflected at each end.
        block: samples filtered by one product.
    """

    def __init__(self, sections: np.ndarray, num_samples: int, edge: int, block: int) -> None:
        signal = import_scipy("signal")
        filtered = signal.sosfilt
        states = 2 * len(sections)
        zeros, unit = np.zeros((len(sections), states, 2)), np.eye(states)
        basis = unit.reshape(states, len(sections), 2).transpose(1, 0, 2)
        free, after = filtered(sections, np.zeros((states, block)), zi=basis)
        impulses = np.zeros((len(sections), block, 2))
        forced, driven = filtered(sections, np.eye(block), zi=impulses)
        _, step = filtered(sections, np.zeros((states, 1)), zi=basis)
        _, push = filtered(sections, np.ones((1, 1)), zi=zeros[:, :1])
        self.edge, self.block = edge, block
        self._outputs = np.concatenate((forced, free))  # (block + states, block), of a block's samples and its state
        self._driven = _rows(driven)  # (block, states), the state a block leaves
        count = num_samples // block
        self._states = _scan(_rows(after), count)
        settled = signal.sosfilt_zi(sections).reshape(-1)
        self._settle = _settling(_rows(step), _rows(push)[0], settled, edge)  # (edge, states)
        response, _ = filtered(sections, np.zeros((states, edge)), zi=basis)
        self._turn = filtered(sections, self._settle, axis=0)  # (edge, states), of the samples before the last
        self._turn_state = response @ self._settle[::-1]  # (states, states), of the state after the last sample

    def __call__(self, signal: np.ndarray) -> np.ndarray:
        """Filters (leads, num_samples), float64."""
        state = signal[:, 1 : self.edge + 1] @ self._settle[::-1]
        forward, state = self._run(signal, state, self._outputs, self._driven)
        state = signal[:, -1 - self.edge : -1] @ self._turn + state @ self._turn_state
        outputs = np.concatenate((self._outputs[: self.block][::-1, ::-1], self._outputs[self.block :, ::-1]))
        backward, _ = self._run(forward, state, outputs, self._driven[::-1], backwards=True)
        return backward

    def _run(
        self, signal: np.ndarray, state: np.ndarray, outputs: np.ndarray, driven: np.ndarray, backwards: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """One pass from a state (leads, states); also returns the last state."""
        leads, num_states = state.shape
        blocks = signal.reshape(leads, -1, self.block)
        given = blocks @ driven
        order = slice(None, None, -1) if backwards else slice(None)
        known = np.concatenate((state[:, None], given[:, order]), axis=1).reshape(leads, -1)
        states = (known @ self._states).reshape(leads, -1, num_states)
        entry = states[:, :-1][:, order]
        filtered = np.concatenate((blocks, entry), axis=2) @ outputs
        return filtered.reshape(leads, -1), states[:, -1]


def _rows(states: np.ndarray) -> np.ndarray:
    """States of scipy, (sections, rows, 2), as (rows, states)."""
    return np.ascontiguousarray(states.transpose(1, 0, 2)).reshape(states.shape[1], -1)


def _scan(step: np.ndarray, count: int) -> np.ndarray:
    """Square matrix of (count + 1) * states that adds up what blocks leave, each decayed by the blocks after it."""
    states = len(step)
    powers = [np.eye(states)]
    for _ in range(count):
        powers.append(powers[-1] @ step)
    matrix = np.zeros((count + 1, states, count + 1, states))
    for lag, power in enumerate(powers):
        places = np.arange(count + 1 - lag)
        matrix[places, :, places + lag] = power
    return matrix.reshape((count + 1) * states, -1)


def _settling(step: np.ndarray, push: np.ndarray, settled: np.ndarray, edge: int) -> np.ndarray:
    """(edge, states): the state after `edge` samples, started where the first of them had lasted forever."""
    rows = [push]
    for _ in range(edge - 1):
        rows.append(rows[-1] @ step)
    found = np.array(rows[::-1])
    found[0] += settled @ np.linalg.matrix_power(step, edge)
    return found


def apply_filter(
    signal_mv: np.ndarray,
    sampling_rate: float,
    highpass_hz: float | None = None,
    lowpass_hz: float | None = None,
    powerline_hz: float | None = None,
) -> np.ndarray:
    """Zero-phase Butterworth high-pass and low-pass and a powerline notch, each left out when None.

    A low-pass or notch at or above the Nyquist frequency has nothing to remove and is left out as well. `signal_mv`
    (leads, samples) has no NaN.
    """
    sections = _filter_sections(sampling_rate, highpass_hz, lowpass_hz, powerline_hz)
    if sections is None:
        return signal_mv
    edge = min(signal_mv.shape[1] - 1, round(EDGE_SECONDS * sampling_rate))
    block = block_length(signal_mv.shape[1], len(sections))
    if block is not None:
        corners = (highpass_hz, lowpass_hz, powerline_hz)
        return _zero_phase(sampling_rate, *corners, signal_mv.shape[1], edge, block)(np.asarray(signal_mv, np.float64))
    # An even reflection: the odd one adds an offset of twice the last sample, which may be the top of an R wave.
    filtered = import_scipy("signal").sosfiltfilt(sections, signal_mv, axis=1, padtype="even", padlen=edge)
    return np.asarray(filtered)


@lru_cache(maxsize=16)
def _zero_phase(
    sampling_rate: float,
    highpass_hz: float | None,
    lowpass_hz: float | None,
    powerline_hz: float | None,
    num_samples: int,
    edge: int,
    block: int,
) -> ZeroPhase:
    """The operator of all filters for recordings of one length."""
    sections = _filter_sections(sampling_rate, highpass_hz, lowpass_hz, powerline_hz)
    if sections is None:
        raise ValueError("sections: expected a filter, got none")
    return ZeroPhase(sections, num_samples, edge, block)


@lru_cache(maxsize=64)
def _filter_sections(
    sampling_rate: float, highpass_hz: float | None, lowpass_hz: float | None, powerline_hz: float | None
) -> np.ndarray | None:
    """Second-order sections of all filters, (sections, 6); None where there is nothing to filter."""
    signal, stages = import_scipy("signal"), []
    if highpass_hz:
        stages.append(signal.butter(HIGHPASS_ORDER, highpass_hz, "highpass", fs=sampling_rate, output="sos"))
    if lowpass_hz and lowpass_hz < sampling_rate / 2:
        stages.append(signal.butter(HIGHPASS_ORDER, lowpass_hz, "lowpass", fs=sampling_rate, output="sos"))
    if powerline_hz and powerline_hz < 0.95 * sampling_rate / 2:
        stages.append(signal.tf2sos(*signal.iirnotch(powerline_hz, NOTCH_QUALITY, fs=sampling_rate)))
    return np.concatenate(stages) if stages else None
