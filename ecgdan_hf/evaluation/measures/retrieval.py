"""Retrieval between ECG and text embeddings, where many records share a text.

Plain functions of arrays: imports numpy and scipy alone.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def retrieval_recall(
    ecg_embeds: npt.ArrayLike, text_embeds: npt.ArrayLike, text_ids: npt.ArrayLike, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Returns the share of queries with a match among their k nearest by cosine, in both directions.

    Texts repeat: half of all ECGs may say "normal ECG". So the candidates of an ECG are the distinct texts, and a
    text, asked once, is found where any ECG that carries it is among the k nearest.

    Args:
        ecg_embeds: (n, width).
        text_embeds: (n, width), row i the text of ECG i.
        text_ids: (n,), equal where texts are equal.
        ks: list lengths.

    Returns:
        `ecg_to_text_recall_at_K` and `text_to_ecg_recall_at_K` for each K, `num_texts`, and `recall`, the mean of both
        directions at the largest K.

    Raises:
        ValueError: shapes that do not fit, or fewer than two distinct texts.

    Examples:
        Two ECGs share a text; both find it, and it finds one of them.

        >>> ecg = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]
        >>> text = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
        >>> retrieval_recall(ecg, text, [0, 0, 1], ks=[1])["recall"]
        1.0
    """
    ecg, text = _unit_rows(ecg_embeds), _unit_rows(text_embeds)
    names, first, text_of = np.unique(np.asarray(text_ids), return_index=True, return_inverse=True)
    if ecg.shape != text.shape or len(text_of) != len(ecg):
        raise ValueError(
            f"embeds: expected two arrays of one shape and as many ids, got {ecg.shape}, {text.shape}, {len(text_of)}"
        )
    if len(names) < 2:
        raise ValueError("text_ids: expected at least two distinct texts, found one; nothing can be told apart")
    similarity = ecg @ text[first].T  # (n, texts)
    own = similarity[np.arange(len(ecg)), text_of]
    ecg_rank = (similarity > own[:, None]).sum(axis=1)
    matching = text_of[:, None] == np.arange(len(names))
    nearest = np.where(matching, similarity, -np.inf).max(axis=0)  # best ECG of each text
    text_rank = (similarity > nearest).sum(axis=0)
    found: dict[str, float] = {"num_texts": float(len(names))}
    for k in ks:
        found[f"ecg_to_text_recall_at_{k}"] = float((ecg_rank < k).mean())
        found[f"text_to_ecg_recall_at_{k}"] = float((text_rank < k).mean())
    last = max(ks)
    found["recall"] = (found[f"ecg_to_text_recall_at_{last}"] + found[f"text_to_ecg_recall_at_{last}"]) / 2
    return found


def alignment_and_uniformity(ecg_embeds: npt.ArrayLike, text_embeds: npt.ArrayLike) -> dict[str, float]:
    r"""Returns the distance of pairs, and how evenly the ECGs cover the sphere (Wang and Isola, ICML 2020).

    alignment = mean \(\|e_i - t_i\|^2\); uniformity = log mean \(e^{-2 \|e_i - e_j\|^2}\) over i < j: 0 when all ECGs
    have collapsed into one point, lower when they are spread.

    Args:
        ecg_embeds, text_embeds: (n, width), any scale.
    """
    ecg, text = _unit_rows(ecg_embeds), _unit_rows(text_embeds)
    squared = 2 - 2 * (ecg @ ecg.T)[np.triu_indices(len(ecg), k=1)]
    uniformity = float(np.log(np.exp(-2 * squared).mean())) if len(squared) else float("nan")
    return {"alignment": float(((ecg - text) ** 2).sum(axis=1).mean()), "uniformity": uniformity}


def embedding_spread(ecg_embeds: npt.ArrayLike) -> dict[str, float]:
    r"""Returns two measures of how much of their space the ECGs fill; both fall when embeddings collapse.

    Args:
        ecg_embeds: (n, width), any scale; taken to unit length.

    Returns:
        `embedding_std`: standard deviation of a coordinate, mean over coordinates, times \(\sqrt{width}\): 0 when all
        ECGs are one point, about 1 when they cover the sphere. `effective_rank`: exponential of the entropy of the
        centred embeddings' normalised singular values (Roy and Vetterli, 2007), at most the width.

    Examples:
        >>> embedding_spread([[1, 0], [1, 0], [1, 0]])
        {'embedding_std': 0.0, 'effective_rank': 1.0}
        >>> embedding_spread([[1, 0], [-1, 0], [0, 1], [0, -1]])
        {'embedding_std': 1.0, 'effective_rank': 2.0}
    """
    unit = _unit_rows(ecg_embeds)
    spread = float(unit.std(axis=0).mean() * np.sqrt(unit.shape[1]))
    values = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False)
    share = values[values > 1e-9] / max(values.sum(), 1e-12)
    rank = float(np.exp(-(share * np.log(share)).sum()))
    return {"embedding_std": round(spread, 6), "effective_rank": round(rank, 6)}


def _unit_rows(embeds: npt.ArrayLike) -> FloatArray:
    rows = np.asarray(embeds, dtype=np.float64)
    unit: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return unit
