"""Losses that align ECG embeddings with text embeddings, as pure functions.

`clip` is the symmetric InfoNCE of Radford et al. (2021), with one change ECG statements need: records that carry the
same text are not each other's negatives, so equal texts share the target mass. `siglip` is the pairwise sigmoid loss
of Zhai et al. (2023). `cosine` is ECG-DAN's own, positives only; nothing in it keeps different records apart.

Travels with the weights: imports nothing but torch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

OBJECTIVES = ("clip", "siglip", "cosine")


def alignment_loss(
    ecg_embeds: Tensor,
    text_embeds: Tensor,
    objective: str = "clip",
    logit_scale: Tensor | float = 1.0,
    logit_bias: Tensor | float = 0.0,
    same_text: Tensor | None = None,
) -> Tensor:
    """Distance between paired embeddings, row i of one belonging to row i of the other.

    Args:
        ecg_embeds: (n, width), any scale; normalised here.
        text_embeds: (n, width).
        objective: "clip", "siglip" or "cosine".
        logit_scale: multiplies the cosine similarities (not its logarithm).
        logit_bias: added to them, "siglip" only.
        same_text: (n, n) boolean, true where two rows have equal text; None means no two have.

    Returns:
        Scalar; exchanging the two modalities leaves it unchanged.

    Raises:
        ValueError: unknown objective.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {objective!r}")
    ecg, text = F.normalize(ecg_embeds.float(), dim=-1), F.normalize(text_embeds.float(), dim=-1)
    if objective == "cosine":
        return (1 - (ecg * text).sum(-1)).mean()
    if same_text is None:
        same_text = torch.eye(len(ecg), dtype=torch.bool, device=ecg.device)
    logits = logit_scale * ecg @ text.T
    if objective == "clip":
        target = same_text.float() / same_text.sum(-1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    sign = same_text.float() * 2 - 1
    return -F.logsigmoid(sign * (logits + logit_bias)).sum() / len(ecg)


def equal_rows(text_embeds: Tensor) -> Tensor:
    """(n, n) boolean, true where two rows of (n, width) are the same text embedding, value by value."""
    _, text = torch.unique(text_embeds.detach(), dim=0, return_inverse=True)
    return text[:, None] == text[None, :]
