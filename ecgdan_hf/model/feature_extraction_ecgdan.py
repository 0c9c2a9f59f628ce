"""Feature extractor of the ECG networks: signal + sampling rate + unit + lead names -> `input_values`, `lead_mask`.

The work is done in `preparation_ecgdan`, which needs no transformers; here is what saves, loads and returns it in the
way of transformers. Travels with the weights: transformers, numpy and its neighbours.
"""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.utils import logging
from transformers.utils.generic import TensorType

from .conditioning_ecgdan import resample
from .configuration_danet import resolve_waveform_rule
from .configuration_ecgdan import EcgDanConfig
from .contract_ecgdan import STANDARD_LEADS
from .doubts_ecgdan import doubts
from .filters_ecgdan import apply_filter
from .leads_ecgdan import canonical_leads
from .median_beat_ecgdan import MedianBeat
from .preparation_ecgdan import FLAGS as FLAGS
from .preparation_ecgdan import EcgPreparation
from .r_peaks_ecgdan import find_r_peaks
from .waveform_danet import waveform_weights

logger = logging.get_logger(__name__)

TRAVELS = (resample, resolve_waveform_rule, EcgDanConfig, doubts, apply_filter, canonical_leads, MedianBeat)
TRAVELS_TOO = (find_r_peaks, waveform_weights)
"""Not used here: a file that is loaded by name has to name every file it needs, also through a neighbour."""


class EcgDanFeatureExtractor(EcgPreparation, FeatureExtractionMixin):
    r"""Turns recordings into the input of the ECG networks.

    Made from a configuration: `EcgDanFeatureExtractor(**config.signal_contract)`; saved with the weights.

    Args:
        lead_names, used_leads, page_layout, sampling_rate, num_samples, pad_samples, unit, filter, normalization,
            global_mean_mv, global_std_mv: as in [`EcgDanConfig`].
        input_kind: `"median_beat"`, the median beat with its R peak at 40 % of the window, or `"rhythm"`, the middle
            of the recording.
        waveform_rule: rule of a disease, see [`resolve_waveform_rule`]; with one, and rhythm input, the outputs also
            hold `waveform_weights`.

    Raises:
        FileNotFoundError: a waveform rule that is a file and not there.
        ValueError: an unknown lead, input kind, unit or normalization, lengths that do not fit, or a waveform rule
            that cannot be used.
    """

    def __init__(
        self,
        lead_names: list[str] | tuple[str, ...] = STANDARD_LEADS,
        sampling_rate: float = 500,
        num_samples: int = 608,
        pad_samples: int = 4,
        input_kind: str = "median_beat",
        unit: str = "mV",
        filter: dict[str, float | None] | None = None,
        normalization: str = "per_lead_zscore",
        global_mean_mv: float = 0.0,
        global_std_mv: float = 0.25,
        waveform_rule: str | Path | dict[str, Any] | None = None,
        used_leads: list[str] | tuple[str, ...] | None = None,
        page_layout: str = "whole",
        **kwargs: Any,
    ) -> None:
        FeatureExtractionMixin.__init__(self, **kwargs)
        EcgPreparation.__init__(
            self,
            *(lead_names, sampling_rate, num_samples, pad_samples, input_kind, unit, filter, normalization),
            *(global_mean_mv, global_std_mv, waveform_rule, used_leads, page_layout),
        )

    def __call__(
        self,
        signal: np.ndarray | list[Any],
        sampling_rate: float | list[float] | None = None,
        unit: str | list[str] | None = None,
        lead_names: list[str] | tuple[str, ...] | list[list[str]] | None = None,
        return_tensors: str | TensorType | None = None,
        return_flags: bool = False,
        median_beat: np.ndarray | list[Any] | None = None,
    ) -> BatchFeature:
        """Prepares one recording or several.

        Args:
            signal: (leads, samples), a list of such, or (batch, leads, samples); NaN marks missing samples.
            sampling_rate: Hz, one for all recordings or one each.
            unit: `"mV"`, `"uV"` or `"V"`, one for all recordings or one each.
            lead_names: names of the rows of `signal`, in any order; one list for all recordings or one each.
            return_tensors: `"pt"` or `"np"`.
            return_flags: adds `flags`, a list of quality flags for each recording: names from `FLAGS`, some with
                details behind a colon (`"lead_flat:V3+V4"`).
            median_beat: (leads, samples), the median beat that came with the recording, with the rate, unit and lead
                names of `signal`; NaN where it has no sample. For several recordings a list, None where there is none.
                Taken in place of one computed here, to which it must be alike; rhythm input ignores it.

        Returns:
            `input_values` (batch, leads, num_samples) float32, scaled and zero-padded, masked leads 0; `lead_mask`
            (batch, leads) bool, True where a lead was recorded or derived. With a `waveform_rule` also
            `waveform_weights` (batch, num_samples) float32, from 0 to 1, 0 where there is no signal.

        Raises:
            ValueError: a recording that cannot be trusted; one line with argument, expectation and finding.
        """
        data = self.prepare(signal, sampling_rate, unit, lead_names, median_beat)
        if not return_flags:
            del data["flags"]
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=["flags"])

    def _say_once(self, message: str) -> None:
        logger.warning_once(message)

    def to_dict(self) -> dict[str, Any]:
        """Returns what is saved; leaves out an absent waveform rule, so that older files stay unchanged."""
        saved = super().to_dict()
        saved.pop("model_input_names", None)
        if self.waveform_rule is None:
            saved.pop("waveform_rule", None)
        return saved
