"""Deletion: which leads and which stretches of time to take away, in which order, and how much that changed.

If a map says where the network looked, taking away what it looked at most must change the output sooner than taking
away anything (Samek et al., IEEE TNNLS 28(11):2660-2673, 2017). Orders: `attention` (most attended first), `reverse`,
`random`, and for time `shifted`: the attention order moved along the record, which is as clustered as attention but
looks elsewhere. Pure functions on numpy arrays; nothing here needs a model.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

ORDERS = ("attention", "reverse", "random", "shifted")


def lead_importance(lead_attention: npt.ArrayLike, lead_mask: npt.ArrayLike) -> FloatArray:
    """Attention that each lead receives: (N, L, L) -> (N, L), mean over the rows of present leads, NaN where absent.

    Args:
        lead_attention: (N, L, L), rows sum to 1.
        lead_mask: (N, L), True where the lead was recorded.
    """
    mask = np.asarray(lead_mask, dtype=bool)
    received = np.where(mask[:, :, None], np.asarray(lead_attention, dtype=np.float64), 0).sum(axis=1)
    return np.where(mask, received / np.maximum(mask.sum(axis=1, keepdims=True), 1), np.nan)


def time_importance(time_attention: npt.ArrayLike, lead_mask: npt.ArrayLike) -> FloatArray:
    """Attention that each time token receives: (N, L, T', T') -> (N, T'), mean over queries and present leads.

    Args:
        time_attention: (N, L, T', T'), rows sum to 1.
        lead_mask: (N, L).
    """
    mask = np.asarray(lead_mask, dtype=bool)[:, :, None]
    received = np.asarray(time_attention, dtype=np.float64).mean(axis=2)
    return np.where(mask, received, 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)


def row_entropy(maps: npt.ArrayLike, present: npt.ArrayLike) -> FloatArray:
    """Mean entropy of the rows of each map, nats: (N, K, K) -> (N,); log of the number of keys where all are alike.

    Args:
        maps: (N, K, K), rows sum to 1.
        present: (N, K), False for rows that do not count.

    >>> round(float(row_entropy(np.full((1, 12, 12), 1 / 12), np.ones((1, 12)))[0]), 2)
    2.48
    """
    weights, rows = np.asarray(maps, dtype=np.float64), np.asarray(present, dtype=bool)
    entropy = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(axis=-1)
    return np.where(rows, entropy, 0).sum(axis=1) / np.maximum(rows.sum(axis=1), 1)


def deletion_ranks(importance: npt.ArrayLike, order: str, rng: np.random.Generator) -> IntArray:
    """When each unit is deleted: (N, units) of 0 (first), 1, ...; absent units, whose importance is NaN, come last.

    Args:
        importance: (N, units), attention received. Equal values are ordered by chance.
        order: one of `ORDERS`.
        rng: source of chance.

    Raises:
        ValueError: another order.
    """
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
    values, chance = np.asarray(importance, dtype=np.float64), rng.random(np.shape(importance))
    if order == "shifted":
        shift = rng.integers(1, max(values.shape[1], 2), len(values))
        values = np.take_along_axis(values, (np.arange(values.shape[1]) - shift[:, None]) % values.shape[1], axis=1)
    key = {"reverse": values, "random": np.where(np.isnan(values), np.nan, 0)}.get(order, -values)
    sequence = np.lexsort((chance, np.nan_to_num(key, nan=np.inf)), axis=1)
    return np.argsort(sequence, axis=1)


def remaining_leads(ranks: IntArray, lead_mask: npt.ArrayLike, count: int) -> BoolArray:
    """Leads left after `count` deletions, (N, L); the last lead of a record is never taken.

    Args:
        ranks: (N, L), see [`deletion_ranks`].
        lead_mask: (N, L), leads that were there.
        count: deletions.
    """
    mask = np.asarray(lead_mask, dtype=bool)
    last = np.where(mask, ranks, -1).argmax(axis=1)
    left = mask & (ranks >= count)
    left[np.arange(len(left)), last] |= mask.any(axis=1)
    return left


def tokens_of_samples(num_samples: int, num_tokens: int, stride: int) -> IntArray:
    """The token whose centre is nearest to each sample, (num_samples,); token k is centred on sample k * stride."""
    return np.minimum((np.arange(num_samples) + stride // 2) // stride, num_tokens - 1)


def bridge(values: npt.NDArray[np.float32], deleted: BoolArray) -> npt.NDArray[np.float32]:
    """Replaces deleted samples by the straight line between the samples beside them; zero where none is left.

    Args:
        values: (N, L, T).
        deleted: (N, T), the same for all leads.
    """
    length = values.shape[2]
    position = np.arange(length)
    before = np.maximum.accumulate(np.where(deleted, -1, position), axis=1)
    after = np.minimum.accumulate(np.where(deleted, length, position)[:, ::-1], axis=1)[:, ::-1]
    left, right = np.where(before < 0, after, before), np.where(after >= length, before, after)
    share = (position - left) / np.maximum(right - left, 1)
    ends = (np.take_along_axis(values, np.clip(side, 0, length - 1)[:, None], axis=2) for side in (left, right))
    start, end = ends
    line = start + np.clip(share, 0, 1).astype(values.dtype)[:, None] * (end - start)
    return np.where(deleted.all(axis=1)[:, None, None], 0, line).astype(values.dtype)


def mean_gap(first: npt.ArrayLike, second: npt.ArrayLike) -> FloatArray:
    """Area between two deletion curves of each record: mean over the steps, and over the draws of each order.

    Args:
        first, second: (draws, N, steps), change of the output.

    Returns:
        (N,), positive where the first order changes the output sooner.
    """
    one, other = (np.asarray(curve, dtype=np.float64).mean(axis=(0, 2)) for curve in (first, second))
    return one - other


def macro_auroc_columns(labels: npt.ArrayLike, scores: npt.ArrayLike) -> FloatArray:
    """Macro AUROC of many score matrices at once: (n, labels) and (n, columns, labels) -> (columns,).

    The same numbers as [`macro_auroc`] gives one by one, in one sort, which makes a bootstrap of whole curves
    affordable.

    Raises:
        ValueError: no label has positives and negatives.
    """
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores)
    positives = truth.sum(axis=0)
    usable = (positives > 0) & (positives < len(truth))
    if not usable.any():
        raise ValueError(f"labels: none of {truth.shape[1]} labels has positives and negatives")
    truth, positives, values = truth[:, usable], positives[usable], values[:, :, usable]
    ranks = np.einsum("nck,nk->ck", rankdata(values, axis=0), truth)
    aurocs = (ranks - positives * (positives + 1) / 2) / (positives * (len(truth) - positives))
    return aurocs.mean(axis=1)


def performance_gap(columns: Callable[..., FloatArray], num_steps: int) -> Callable[..., float]:
    """A metric for the bootstrap: how much sooner the first of two sets of deletion curves loses performance.

    Args:
        columns: truth arrays and (n, columns, outputs) -> performance of each column.
        num_steps: the first `num_steps` columns of the scores are the judged order, the others the draws of control.
    """

    def gap(*arrays: FloatArray) -> float:
        found = columns(*arrays)
        return float(found[num_steps:].mean() - found[:num_steps].mean())

    return gap
