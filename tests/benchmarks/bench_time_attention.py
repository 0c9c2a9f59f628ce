"""Twelve temporal attentions as one batched computation against a readable loop over leads with the same weights.

python tests/benchmarks/bench_time_attention.py [--threads 2] [--repeats 100]
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgdan_hf import EcgDanConfig, EcgDanModel
from ecgdan_hf.model.modeling_ecgdan import EcgDanTimeAttention


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

    def __init__(self, batched: EcgDanTimeAttention):
        super().__init__()
        leads = batched.qkv_weight.shape[0]
        self.blocks = nn.ModuleList(OneLead() for _ in range(leads))
        self.register_buffer("positions", batched.positions)
        for lead, block in enumerate(self.blocks):
            block.load_state_dict(self._weights_of(batched, lead))

    @staticmethod
    def _weights_of(batched: EcgDanTimeAttention, lead: int) -> dict[str, Tensor]:
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


def seconds(function, repeats: int) -> float:
    """Median of `repeats` calls."""
    for _ in range(5):
        function()
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        durations.append(time.perf_counter() - start)
    return sorted(durations)[repeats // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    batched = EcgDanModel(EcgDanConfig()).eval().time_attention
    loop = LeadLoop(batched).eval()
    print(f"torch {torch.__version__}, {arguments.threads} threads, median of {arguments.repeats} calls")
    for records in (1, 32):
        tokens = torch.randn(records, 16, 12, 19)
        with torch.inference_mode():
            difference = (batched(tokens)[0] - loop(tokens)).abs().max().item()
            fast = seconds(lambda x=tokens: batched(x), arguments.repeats)
            slow = seconds(lambda x=tokens: loop(x), arguments.repeats)
        print(
            f"batch {records:2d} inference: loop {slow * 1e3:6.2f} ms, batched {fast * 1e3:6.2f} ms, "
            f"ratio {slow / fast:4.1f}, largest difference {difference:.0e}"
        )
        train_fast = seconds(lambda x=tokens: batched(x)[0].sum().backward(), arguments.repeats)
        train_slow = seconds(lambda x=tokens: loop(x).sum().backward(), arguments.repeats)
        print(
            f"batch {records:2d} forward and backward: loop {train_slow * 1e3:6.2f} ms, batched "
            f"{train_fast * 1e3:6.2f} ms, ratio {train_slow / train_fast:4.1f}"
        )


if __name__ == "__main__":
    main()
