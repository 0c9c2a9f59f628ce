"""Inference time of the classifiers on 10 s ECGs, as ratios, the networks timed in turn.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_inference.py [--threads 1] [--repeats 100] [--batches 1,32]

A ratio above 1 says how many times slower than resnet1d_wang a network is. The shortest of many times is taken, and
the networks take turns, so that a busy machine slows all of them alike.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from ptbxl_networks import Resnet1dWang, Xresnet1d101

from ecgdan_hf import EcgDanConfig, EcgDanForSequenceClassification

REFERENCE = "resnet1d_wang"


def build() -> dict[str, tuple[torch.nn.Module, int]]:
    """Name -> network in evaluation mode, and the samples it is given: 10 s at 100 Hz and its own padding."""
    light = EcgDanConfig(trunk="light", input_kind="rhythm", num_labels=5)
    paper = EcgDanConfig(trunk="paper", input_kind="rhythm", num_labels=5)
    found = {
        "light": (EcgDanForSequenceClassification(light), light.num_samples),
        REFERENCE: (Resnet1dWang(light), light.num_samples),
        "xresnet1d101": (Xresnet1d101(light), light.num_samples),
        "paper trunk": (EcgDanForSequenceClassification(paper), paper.num_samples),
    }
    return {name: (network.eval(), samples) for name, (network, samples) in found.items()}


def shortest(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds of the quickest of `repeats` calls of each, one of each in turn; the first rounds warm up.

    Of the processor with one thread, so that other programs count less; else by the clock.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(functions, float("inf"))
    for turn in range(repeats + 3):
        for name, function in functions.items():
            start = clock()
            function()
            if turn >= 3:
                best[name] = min(best[name], 1e3 * (clock() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--batches", default="1,32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    networks = build()
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), shortest of {arguments.repeats}, in turn")
    print("| batch | network | parameters | ms | times resnet1d_wang |\n|---|---|---|---|---|")
    for records in map(int, arguments.batches.split(",")):
        calls = {name: partial(net, torch.randn(records, 12, samples)) for name, (net, samples) in networks.items()}
        with torch.inference_mode():
            found = shortest(calls, arguments.repeats)
        for name, milliseconds in found.items():
            size = sum(parameter.numel() for parameter in networks[name][0].parameters()) / 1e6
            ratio = milliseconds / found[REFERENCE]
            print(f"| {records} | {name} | {size:.2f} M | {milliseconds:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
