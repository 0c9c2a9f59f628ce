"""Twelve temporal attentions as one batched computation against a readable loop over leads with the same weights.

python tests/benchmarks/bench_time_attention.py [--threads 2] [--repeats 100]
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgdan_hf import EcgDanConfig, EcgDanModel
from ecgdan_hf.model.paper_ecgdan import _TimeAttention


class OneLead(nn.Module):
    """Block of one lead, from torch's own modules."""

    def __init__(self, width: int = 16, heads: int = 8, inner: int = 64):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T', C) -> (N, T', C)."""
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))


class LeadLoop(nn.Module):
    """Twelve such blocks, one after another."""

    def __init__(self, batched: _TimeAttention):
        super().__init__()
        leads = batched.qkv_weight.shape[0]
        self.blocks = nn.ModuleList(OneLead() for _ in range(leads))
        self.register_buffer("positions", batched.positions)
        for lead, block in enumerate(self.blocks):
            block.load_state_dict(self._weights_of(batched, lead))

    @staticmethod
    def _weights_of(batched: _TimeAttention, lead: int) -> dict[str, Tensor]:
        names = {
            "norm1.": "norm1_",
            "norm2.": "norm2_",
            "attention.in_proj_": "qkv_",
            "attention.out_proj.": "out_",
            "fc1.": "fc1_",
            "fc2.": "fc2_",
        }
        state = batched.state_dict()
        return {
            theirs + kind: state[ours + kind][lead].squeeze(0)
            if kind == "bias" or "norm" in ours
            else state[ours + kind][lead]
            for theirs, ours in names.items()
            for kind in ("weight", "bias")
        }

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, C, L, T') -> the same shape."""
        per_lead = tokens.permute(2, 0, 3, 1) + self.positions
        return torch.stack([block(x) for block, x in zip(self.blocks, per_lead, strict=True)]).permute(1, 3, 0, 2)


def compare(slow: Callable, fast: Callable, repeats: int) -> tuple[float, float]:
    """Shortest time of each in milliseconds, the two in turn, so that a busy machine slows both."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        for index, function in enumerate((slow, fast)):
            start = time.perf_counter()
            function()
            best[index] = min(best[index], 1e3 * (time.perf_counter() - start))
    return best[0], best[1]


def report(name: str, slow: Callable, fast: Callable, repeats: int) -> None:
    loop, batched = compare(slow, fast, repeats)
    print(f"{name:32s} loop {loop:7.2f} ms   batched {batched:7.2f} ms   ratio {loop / batched:5.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    batched = EcgDanModel(EcgDanConfig()).eval().time_attention
    loop = LeadLoop(batched).eval()
    print(f"torch {torch.__version__}, {arguments.threads} threads, shortest of {arguments.repeats}, in turn")
    for records in (1, 32):
        tokens = torch.randn(records, 16, 12, 19).to(memory_format=torch.channels_last)  # as the trunk hands them on
        with torch.inference_mode():
            difference = (batched(tokens)[0] - loop(tokens)).abs().max().item()
            assert difference < 1e-5, f"the two disagree by {difference}"
            report(f"batch {records}, inference", partial(loop, tokens), partial(batched, tokens), arguments.repeats)
        slow, fast = (lambda x=tokens: loop(x).sum().backward()), (lambda x=tokens: batched(x)[0].sum().backward())
        report(f"batch {records}, forward and backward", slow, fast, arguments.repeats)


if __name__ == "__main__":
    main()
