"""Attention maps of the dual attention network, as arrays that can be drawn on an ECG.

A time token sees every sample of its receptive field: 381 samples in the paper's trunk, 203 in the light one. Its
attention is therefore spread over that field, in proportion to the number of paths through the convolutions from
sample to token; no map here is sharper than that. The normalisation over the whole record is ignored.

Source: arXiv 2403.10581. Pure functions on numpy arrays; nothing here needs the model but its configuration.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.light_ecgdan import BLOCK_KERNELS, STEM_KERNEL

FloatArray = npt.NDArray[np.float64]

_PAPER_KERNEL, _PAPER_STEM_CONVOLUTIONS = 5, 2  # every convolution of stem and trunk


@dataclass(frozen=True)
class ReceptiveField:
    """Receptive field of one time token before attention, from the network's kernels and strides.

    Attributes:
        paths: (width,), share of the paths through the convolutions that start at each sample; sums to 1, symmetric.
        stride: samples from one token's centre to the next; the first is centred on sample 0 of `input_values`.
        sampling_rate: Hz.

    >>> ReceptiveField.of(EcgDanConfig()).width
    381
    """

    paths: FloatArray
    stride: int
    sampling_rate: float

    @classmethod
    def of(cls, config: EcgDanConfig) -> "ReceptiveField":
        """The receptive field in a network of this configuration."""
        paths, step = np.ones(1), 1
        for kernel, stride in _convolutions(config):
            dilated = np.zeros((kernel - 1) * step + 1)
            dilated[::step] = 1.0
            paths = np.convolve(paths, dilated)
            step *= stride
        return cls(paths / paths.sum(), step, float(config.sampling_rate or 0))

    @property
    def width(self) -> int:
        """Samples from the first to the last that can change a token."""
        return len(self.paths)

    @property
    def milliseconds(self) -> float:
        """`width` in milliseconds."""
        return 1000.0 * self.width / self.sampling_rate

    @property
    def half_milliseconds(self) -> float:
        """Width of the middle that holds half of the paths, milliseconds."""
        outside = np.minimum(np.cumsum(self.paths), np.cumsum(self.paths[::-1])[::-1])
        return 1000.0 * float(np.sum(outside > 0.25)) / self.sampling_rate


def _convolutions(config: EcgDanConfig) -> list[tuple[int, int]]:
    """Kernel and stride of every convolution from signal to token, in order."""
    blocks = len(config.trunk_channels or ())
    if config.trunk == "light":
        first, second = BLOCK_KERNELS
        return [(STEM_KERNEL, 2), *([(first, 2), (second, 1)] * blocks)]
    block = [(_PAPER_KERNEL, 2), (_PAPER_KERNEL, 1)]
    return [(_PAPER_KERNEL, 1)] * _PAPER_STEM_CONVOLUTIONS + block * blocks


def attention_rollup(
    lead_attention: npt.ArrayLike, time_attention: npt.ArrayLike, lead_mask: npt.ArrayLike, order: str = "parallel"
) -> FloatArray:
    """Attention rollout (Abnar and Zuidema, ACL 2020, arXiv 2005.00928): each lead's and moment's share in the output.

    A = (I + attention) / 2 stands for a block and the shortcut around it, attention being the mean over heads. This
    network has one block over time within each lead, one across leads at each time, side by side or in a row:

        parallel:    R(l, t) = (r_time(l, t) / L + r_lead(l) / T') / 2
        sequential:  R(l, t) = r_lead(l) r_time(l, t)
        r_lead(l) = mean over present leads k of A_lead(k, l),   r_time(l, t) = mean over tokens s of A_time(l; s, t)

    on the assumption that the head weighs all outputs alike. There is only one layer, so rollout adds only a common
    scale to the two maps: with parallel attention it ranks leads and moments exactly as the maps alone do, and results
    of deletion for attention hold for it. It ignores the trunk, the head, and the size of the values that attention
    mixes.

    Args:
        lead_attention: (..., L, L), rows sum to 1.
        time_attention: (..., L, T', T'), rows sum to 1.
        lead_mask: (..., L), True where the lead was there.
        order: `config.attention_order`, "parallel" or "sequential".

    Returns:
        (..., L, T'), 0 for absent leads, sums to 1.

    Raises:
        ValueError: another order.
    """
    if order not in ("parallel", "sequential"):
        raise ValueError(f"order: expected parallel or sequential, got {order!r}")
    mask = np.asarray(lead_mask, dtype=bool)
    count = mask.sum(axis=-1)[..., None]
    across = np.where(mask[..., :, None], np.asarray(lead_attention, dtype=np.float64), 0).sum(axis=-2) / count
    within = np.asarray(time_attention, dtype=np.float64).mean(axis=-2)
    tokens = within.shape[-1]
    leads = np.where(mask, (1 / count + across) / 2, 0)[..., None]
    times = np.where(mask[..., None], (1 / tokens + within) / 2, 0)
    if order == "sequential":
        return np.asarray(leads * times)
    return np.asarray((times / count[..., None] + leads / tokens) / 2)


def sample_attention(tokens: npt.ArrayLike, config: EcgDanConfig) -> FloatArray:
    """Attention of each signal sample, as a multiple of even attention: (..., tokens) -> (..., signal samples).

    w(t) = sum_k a_k p_k(t) / sum_k p_k(t) / T' with a_k the attention of token k and p_k(t) its share of paths to t: 1
    where a sample is attended to as much as if all tokens were read alike, 2 where twice as much.

    Args:
        tokens: attention that each token receives, mean over queries; sums to 1.
        config: of the model that made it; the zero padding of `input_values` is left out of the result.
    """
    weights, field = np.asarray(tokens, dtype=np.float64), ReceptiveField.of(config)
    reach, samples, pad = field.width // 2, config.num_samples or 0, config.pad_samples or 0
    share = np.zeros((config.num_tokens, samples + 2 * reach + field.stride))
    for token in range(config.num_tokens):
        share[token, token * field.stride : token * field.stride + field.width] = field.paths
    share = share[:, reach : reach + samples]
    spread = weights @ share / share.sum(axis=0) * config.num_tokens
    return np.asarray(spread[..., pad : spread.shape[-1] - pad])
