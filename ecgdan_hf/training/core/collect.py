"""Every row through a model in evaluation mode, and tensors of all processes put together."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ecgdan_hf.training.core.batching import EcgCollator, NumberedRows

Batch = dict[str, Tensor]


def evaluation_loader(
    dataset: Any, collator: EcgCollator, batch_size: int, accelerator: Accelerator
) -> DataLoader[Any]:
    """Rows in their order, spread over the processes; make it once, not at every validation.

    Args:
        dataset: rows.
        collator: without masking or augmentation.
        batch_size: rows per pass and process.
        accelerator: places the batches.
    """
    rows = NumberedRows(dataset, collator.reads)
    loader: Any = DataLoader(rows, batch_size=batch_size, collate_fn=collator, generator=torch.Generator())
    prepared: DataLoader[Any] = accelerator.prepare_data_loader(loader)
    return prepared


@torch.no_grad()
def collect(
    model: nn.Module, loader: DataLoader[Any], forward: Callable[[nn.Module, Batch], Batch], accelerator: Accelerator
) -> dict[str, np.ndarray]:
    """Returns the output of `forward` for every row, in the order of the rows.

    Args:
        model: put into evaluation mode.
        loader: from [`evaluation_loader`].
        forward: (model, batch) -> named tensors with the batch in front.
        accelerator: gathers over processes.

    Returns:
        name -> (rows, ...) float arrays.
    """
    model.eval()
    parts: dict[str, list[np.ndarray]] = {}
    for batch in loader:
        with accelerator.autocast():
            outputs = forward(model, batch)
        for name, value in accelerator.gather_for_metrics(outputs).items():
            parts.setdefault(name, []).append(value.float().cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def gather_with_grad(value: Tensor, accelerator: Accelerator) -> Tensor:
    """Rows of all processes, with the gradient; the tensor itself for one process.

    Risk sets and negatives then reach across processes. Every process computes the same loss, the backward pass adds
    up what all of them ask of a row, and DDP's mean over processes gives the gradient of that one loss.
    """
    if accelerator.num_processes == 1:
        return value
    from torch.distributed.nn import functional

    sizes = accelerator.gather(torch.tensor([len(value)], device=value.device)).tolist()
    missing = value.new_zeros(max(sizes) - len(value), *value.shape[1:])  # batches differ by a record
    all_gather: Any = functional.all_gather
    gathered = all_gather(torch.cat([value, missing]))
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])
