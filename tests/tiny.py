"""A network small enough for tests, of every part of the real one."""

import torch

TINY = {
    "num_samples": 64,
    "pad_samples": 2,
    "trunk_channels": [8, 8],
    "num_attention_heads": 2,
    "hidden_size": 16,
    "projection_hidden_size": 8,
    "projection_size": 8,
}


def signals(records: int, seed: int = 0, samples: int = 64) -> torch.Tensor:
    """(records, 12, samples) of noise."""
    return torch.randn(records, 12, samples, generator=torch.Generator().manual_seed(seed))
