"""Low-rank updates of an encoder that is otherwise kept (LoRA, Hu et al. 2021): few weights learn, the head fully.

Made by peft inside the network, whose names stay, so that the loop saves and resumes it as any other. At the end the
updates are added to the weights, and the checkpoint is an ordinary one that needs no peft.
"""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

_KEPT = ("ecgdan.", "decoder.")
"""Parts that keep the checkpoint's weights."""


def _lora_targets(model: PreTrainedModel) -> list[str]:
    """Names of the encoder's linear layers and convolutions; those grouped by lead are left as they are."""
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [
        name
        for name, module in model.named_modules()
        if name.startswith("ecgdan.") and isinstance(module, layers) and getattr(module, "groups", 1) == 1
    ]


def add_lora(model: PreTrainedModel, rank: int, new_weights: Sequence[str] = ()) -> None:
    """Puts low-rank updates into the encoder; they, the head and what the checkpoint did not have will learn.

    Args:
        model: with an encoder named `ecgdan`; changed in place, its answers are not.
        rank: of the updates.
        new_weights: names of parameters that start from random values.

    Raises:
        ValueError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("lora_rank: needs peft; pip install peft, or leave it out to train every weight") from error
    learned = {name for name, _ in model.named_parameters() if not name.startswith(_KEPT)} | set(new_weights)
    head = [parameter for name, parameter in model.named_parameters() if name in learned]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_lora_targets(model)), model)
    for parameter in head:
        parameter.requires_grad_(True)


def merge_lora(model: PreTrainedModel) -> None:
    """Adds the updates to the weights, in place; the network is then an ordinary one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    model.requires_grad_(True)
