"""AdamW with layer-wise learning rates, and warm-up followed by a cosine: timm's, fitted to our parameter names."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from timm.optim._param_groups import param_groups_layer_decay
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn

from ecgdan_hf.model.light_ecgdan import EcgDanLeadScale
from ecgdan_hf.training.arguments.fields import TrainingArguments

_LAYERS = {
    "waveform": r"^waveform_module",
    "stem": r"^(?:ecgdan|resnet)\.(?:stem|norm)",
    "trunk": r"^(?:ecgdan\.trunk|resnet\.blocks)\.(\d+)",
    "attention": [(r"^ecgdan\.(?:time_attention|lead_attention)", None)],
    "projection": r"^ecgdan\.(?:average_projection|max_projection|readout)",
}
"""Groups from the input to the output, as timm's `group_matcher` writes them; heads match none and come last."""

_TEXT_LEARNING_RATES = {"lora": 2e-4, "full": 2e-5}
"""Customary for language models that are trained further; a network from scratch needs many times more."""


class _LayeredModel:
    """A model as timm's parameter grouping wants to see it, without touching the model itself."""

    def __init__(self, model: nn.Module):
        self.model = model

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.model.named_parameters()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return _LAYERS


def build_optimizer(
    model: nn.Module, args: TrainingArguments, total_steps: int
) -> tuple[torch.optim.AdamW, CosineLRScheduler]:
    """AdamW, and linear warm-up over `warmup_fraction` of the steps, then a cosine down to `min_learning_rate`.

    Biases and norms have no weight decay; each layer below the heads learns `layer_decay` times slower. Call
    `step_update(step)` of the scheduler after each optimizer step; it scales each group by its layer's factor.
    """
    if args.learning_rate <= 0:
        raise ValueError(f"learning_rate: expected a positive number, got {args.learning_rate}")
    if not 0 < args.layer_decay <= 1:
        raise ValueError(f"layer_decay: expected a number in (0, 1], got {args.layer_decay}")
    groups = param_groups_layer_decay(
        cast(nn.Module, _LayeredModel(model)),
        weight_decay=args.weight_decay,
        layer_decay=args.layer_decay,
        no_weight_decay_list=_stacked_vectors(model),
    )
    if not groups:
        raise ValueError("model: expected at least one trainable parameter, found none")
    groups, betas = _text_apart(groups, model, args), (args.adam_beta1, args.adam_beta2)
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, betas=betas)
    warmup = round(args.warmup_fraction * total_steps)
    steps: dict[str, Any] = {"t_initial": max(total_steps - warmup, 1), "warmup_t": warmup, "t_in_epochs": False}
    return optimizer, CosineLRScheduler(optimizer, lr_min=args.min_learning_rate, warmup_prefix=True, **steps)


def _text_apart(groups: list[dict[str, Any]], model: nn.Module, args: TrainingArguments) -> list[dict[str, Any]]:
    """The language model's weights, if any are learned, in groups of their own with its own learning rate."""
    text = {id(weight) for name, weight in model.named_parameters() if name.startswith("text_model.")}
    if not text:
        return groups
    rate = getattr(args, "text_learning_rate", None) or _TEXT_LEARNING_RATES[getattr(args, "text_tower", "full")]
    parts = []
    for group in groups:
        for is_text, factor in ((False, 1.0), (True, rate / args.learning_rate)):
            weights = [weight for weight in group["params"] if (id(weight) in text) == is_text]
            scaled = {"params": weights, "lr_scale": group["lr_scale"] * factor}
            parts += [{**group, **scaled}] if weights else []
    return parts


def _stacked_vectors(model: nn.Module) -> list[str]:
    """Biases, scales and embeddings kept for every lead: stacked over leads, they look like matrices to timm."""
    last = {name: name.rsplit(".", 1)[-1] for name, _ in model.named_parameters()}
    leaves = ("norm1_weight", "norm2_weight", "lead_embedding")
    of_leads = [name for name, module in model.named_modules() if isinstance(module, EcgDanLeadScale)]
    scales = {f"{name}.{kind}" for name in of_leads for kind in ("weight", "bias")}
    return [name for name, leaf in last.items() if leaf.endswith("_bias") or leaf in leaves or name in scales]
