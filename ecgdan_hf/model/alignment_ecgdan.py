"""Aligns ECG embeddings with text embeddings: the losses as pure functions, and the head that projects both.

`clip` is the symmetric InfoNCE of Radford et al. (2021), with one change ECG statements need: records that carry the
same text are not each other's negatives, so equal texts share the target mass. `siglip` is the pairwise sigmoid loss
of Zhai et al. (2023). `cosine` is ECG-DAN's own, positives only; nothing in it keeps different records apart.

Travels with the weights: imports only torch, transformers and its neighbour in this folder.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_ecgdan import EcgDanConfig

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


class EcgDanAlignmentHead(nn.Module):
    """Projects ECG and text embeddings into one space and measures their distance."""

    def __init__(self, config: EcgDanConfig):
        super().__init__()
        self.objective = config.alignment_objective
        self.ecg_projection = self._projection(config.hidden_size, config)
        self.text_projection = self._projection(config.text_embed_dim, config)
        if self.objective != "cosine":
            self.log_logit_scale = nn.Parameter(torch.empty(()))
        if self.objective == "siglip":
            self.logit_bias = nn.Parameter(torch.empty(()))
        if config.prompt_labels:
            self.register_buffer("prompt_embeds", torch.zeros(len(config.prompt_labels), config.projection_size))

    @staticmethod
    def _projection(width: int, config: EcgDanConfig) -> nn.Sequential:
        hidden = config.projection_hidden_size
        return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, config.projection_size))

    def initialise(self) -> None:
        """Starts at the temperatures of the papers: 0.07 for CLIP; scale 10 and bias -10 for SigLIP."""
        if self.objective != "cosine":
            init.constant_(self.log_logit_scale, math.log(10.0 if self.objective == "siglip" else 1 / 0.07))
        if self.objective == "siglip":
            init.constant_(self.logit_bias, -10.0)
        if "prompt_embeds" in self._buffers:
            init.zeros_(self.prompt_embeds)

    def project_ecg(self, pooled: Tensor) -> Tensor:
        """(N, hidden_size) -> (N, projection_size), of unit length."""
        return F.normalize(self.ecg_projection(pooled), dim=-1)

    def project_text(self, text: Tensor) -> Tensor:
        """(N, text_embed_dim) -> (N, projection_size), of unit length."""
        return F.normalize(self.text_projection(text), dim=-1)

    def forward(self) -> tuple[Tensor | float, Tensor | float]:
        """Returns scale and bias of the cosine similarities; a forward call loads offloaded weights."""
        scale = 1.0 if self.objective == "cosine" else self.log_logit_scale.clamp(max=math.log(100.0)).exp()
        return scale, self.logit_bias if self.objective == "siglip" else 0.0

    def logit_scale(self) -> Tensor | float:
        """Returns the scale of the cosine similarities."""
        return self()[0]

    def prompt_logits(self, ecg_embeds: Tensor) -> Tensor:
        """(N, projection_size) -> (N, prompts): scaled cosine similarity to each cached prompt."""
        return self.logit_scale() * ecg_embeds @ self.prompt_embeds.to(ecg_embeds.dtype).T

    @torch.no_grad()
    def set_prompts(self, text_embeds: Tensor) -> None:
        """Caches prompts: (K, text_embed_dim), or (K, templates, text_embed_dim), averaged once projected."""
        if text_embeds.ndim not in (2, 3):
            raise ValueError(f"text_embeds: expected (prompts, [templates,] width), got {tuple(text_embeds.shape)}")
        weight = self.text_projection[0].weight
        projected = self.project_text(text_embeds.to(weight))
        projected = projected if projected.ndim == 2 else F.normalize(projected.mean(1), dim=-1)
        self.register_buffer("prompt_embeds", projected.float())

    def loss(self, ecg_embeds: Tensor, text_embeds: Tensor, same_text: Tensor) -> Tensor:
        """Scalar distance of the paired, projected embeddings."""
        if self.objective == "cosine":
            return alignment_loss(ecg_embeds, text_embeds, "cosine")
        scale, bias = self()
        return alignment_loss(ecg_embeds, text_embeds, self.objective, scale, bias, same_text)
