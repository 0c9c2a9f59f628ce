"""Looks at every lead of a recording by itself, wherever a reader ends: `EcgRecord` calls `checked_leads`.

Limits are medians over leads, which a single lead that is none passes. A part that cannot be used becomes NaN, and a
flag with the leads behind a colon says so. Imports only the conditioning of signals from the package.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecgdan_hf.model.conditioning_ecgdan import out_of_range, without_codes

FloatArray = NDArray[np.float32]

NO_SAMPLE = "no_sample_codes"
OUT_OF_RANGE = "lead_out_of_range"


def checked_leads(
    signal_mv: FloatArray, sampling_rate: float, lead_names: Sequence[str]
) -> tuple[FloatArray, tuple[str, ...]]:
    """Returns the signal, (leads, samples) mV, with NaN for what is no sample, and flags with the leads' names.

    Flags: `no_sample_codes` (NaN now), `lead_out_of_range` (kept: the feature extractor leaves such samples out).
    """
    signal_mv, coded = without_codes(signal_mv, sampling_rate)
    found = {NO_SAMPLE: coded, OUT_OF_RANGE: out_of_range(signal_mv)}
    return signal_mv, tuple(_flag(name, lead_names, which) for name, which in found.items() if which.any())


def _flag(name: str, lead_names: Sequence[str], which: NDArray[np.bool_]) -> str:
    return f"{name}:{'+'.join(lead for lead, true in zip(lead_names, which, strict=True) if true)}"
