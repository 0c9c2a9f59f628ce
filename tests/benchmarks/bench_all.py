"""One page of speed: ratios against named alternatives, and how far the networks are from what this processor can do.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_all.py [--out benchmarks.md] [--records FOLDER] [--quick]

Every ratio comes from one run, in which both sides take turns on the same records or numbers; the shortest time of
each counts. A ratio of 2 says twice as quick as the alternative. Without --records the ECGs are synthetic.
"""

import argparse
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import bench_concordance
import bench_inference
import bench_loading
import bench_preparation
import bench_time_attention
import numpy as np
import onnxruntime
import torch
import wfdb
from lifelines.utils import concordance_index as lifelines_concordance_index
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchsurv.metrics.cindex import ConcordanceIndex

from ecgdan_hf import EcgDanConfig, EcgDanFeatureExtractor, EcgDanModel
from ecgdan_hf.data.formats import read
from ecgdan_hf.data.simulate.synthetic import write_cohort
from ecgdan_hf.evaluation.measures.concordance import concordance_index
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.predict import Predictor
from ecgdan_hf.publish.export import export_onnx
from ecgdan_hf.training.core.batching import NumberedRows

CLASSIFIER = Path(__file__).parents[2] / "model_cards" / "ecg-dan-rhythm-superclasses"
PACKAGES = ("ecgdan-hf", "torch", "numpy", "scipy", "transformers", "datasets", "wfdb", "lifelines", "onnxruntime")
TITLE = """# Speed

Made by `make bench` (`tests/benchmarks/bench_all.py`). In each row both sides take turns in one run, on the same
records or numbers; the shortest time counts, of the processor where there is one thread."""
FLOOR = """The floor is the arithmetic at the speed of a large matrix product, and the weights, inputs and outputs of
all layers with weights at the speed of copying memory. Nothing can be quicker than the larger of the two."""
Row = tuple[str, str, float, float]
"""What, the alternative, milliseconds of ours, milliseconds of the alternative."""


def shortest(ours: Callable[[], object], other: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Milliseconds of the quickest call of each, in turn; the first round warms up."""
    found = bench_inference.shortest({"ours": ours, "other": other}, repeats)
    return found["ours"], found["other"]


def machine() -> str:
    """What the numbers depend on."""
    name = platform.processor() or platform.machine()
    with_name = Path("/proc/cpuinfo")
    if with_name.exists():
        lines = with_name.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s); Python {platform.python_version()}, "
        f"{versions}."
    )


def files(headers: list[Path], repeats: int) -> Iterator[Row]:
    """Reading and preparation of one recording, medians over recordings."""
    cards = Path(__file__).parents[2] / "model_cards"
    extractors = {
        kind: EcgDanFeatureExtractor.from_pretrained(cards / name) for kind, name in bench_preparation.KINDS.items()
    }
    times: dict[str, list[float]] = {}
    for header in headers:
        for name, stage in bench_preparation.stages(header, extractors).items():
            times.setdefault(name, []).append(bench_preparation.shortest(stage, repeats))
    middle = {name: float(np.median(values)) for name, values in times.items()}
    pairs = {
        "read a WFDB recording": ("read", bench_preparation.READING, "wfdb"),
        "high-pass filter, 12 leads": ("filter", "filter by scipy", "scipy, sosfiltfilt"),
        "R peaks, 12 leads": ("R peaks", "R peaks of each lead by neurokit2", "neurokit2, lead by lead"),
        "resample 500 to 100 Hz": ("resample to 100 Hz", "resample to 100 Hz by scipy", "scipy, resample_poly"),
    }
    pairs |= {
        f"prepare, {kind}": (f"prepare, {kind}", bench_preparation.READING, "reading with wfdb") for kind in extractors
    }
    for name, (ours, other, alternative) in pairs.items():
        if ours in middle:
            yield name, alternative, middle[ours], middle[other]


def predictions(headers: list[Path], repeats: int) -> Iterator[Row]:
    """From files to rows of probabilities, for one recording, in one process."""
    predictor = Predictor(*load_checkpoint(CLASSIFIER))

    def read_all() -> None:
        for header in headers:
            wfdb.rdrecord(str(header.with_suffix("")))

    both = shortest(lambda: list(predictor.batches(headers)), read_all, repeats)
    ours, other = (each / len(headers) for each in both)
    yield "predict a recording, rhythm classifier", "reading with wfdb", ours, other


def networks(repeats: int) -> Iterator[Row]:
    """Classifiers on 10 s of 12 leads, and twelve attentions at once beside a loop."""
    found = bench_inference.build()
    for records in (1, 32):
        inputs = {name: torch.randn(records, 12, samples) for name, (_, samples) in found.items()}
        for name in ("light", "paper trunk"):
            for other in (bench_inference.REFERENCE, "xresnet1d101"):
                calls = [partial(found[each][0], inputs[each]) for each in (name, other)]
                with torch.inference_mode():
                    yield f"{name}, batch {records}", other, *shortest(*calls, repeats)
        batched = EcgDanModel(EcgDanConfig()).eval().time_attention
        loop = bench_time_attention.LeadLoop(batched).eval()
        tokens = torch.randn(records, 16, 12, 19).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            yield (
                f"temporal attention of 12 leads, batch {records}",
                "a loop over leads, same weights",
                *shortest(partial(batched, tokens), partial(loop, tokens), repeats),
            )


def without_torch(folder: Path, repeats: int) -> Iterator[Row]:
    """The network of a released classifier in ONNX Runtime, with one thread, beside torch."""
    export_onnx(CLASSIFIER, folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    model, _ = load_checkpoint(CLASSIFIER)
    for records in (1, 32):
        signal = torch.randn(records, 12, model.config.signal_contract["num_samples"])
        given = {"input_values": signal, "lead_mask": torch.ones(records, 12, dtype=torch.bool)}
        arrays = {name: value.numpy() for name, value in given.items()}
        with torch.inference_mode():
            ours, other = partial(session.run, ["logits"], arrays), partial(model, **given, return_loss=False)
            yield (
                f"light by ONNX Runtime, batch {records}",
                "the same network in torch",
                *shortest(ours, other, repeats),
            )


def statistics(records: int, repeats: int) -> Iterator[Row]:
    """Harrell's C of a large cohort."""
    event, times, score = bench_concordance.cohort(records)
    ours, theirs = (
        partial(concordance_index, event, times, score),
        partial(lifelines_concordance_index, times, -score, event),
    )
    both = [min(1e3 * bench_concordance.seconds(each) for _ in range(repeats)) for each in (ours, theirs)]
    yield f"C-index of {records:,} records", "lifelines", both[0], both[1]
    few = [torch.from_numpy(each[:5000]) for each in (score, event == 1, times)]
    pairs = partial(ConcordanceIndex(), *few)  # it compares all pairs at once, in gigabytes for more records
    ours = partial(concordance_index, event[:5000], times[:5000], score[:5000])
    yield "C-index of 5,000 records", "torchsurv", *shortest(ours, pairs, repeats)


def batches(headers: list[Path], folder: Path, records: int) -> Iterator[Row]:
    """Prepared rows, to batches of 64 tensors, for a thousand recordings."""
    dataset = bench_loading.prepared(records, folder)
    ours = 1e6 / bench_loading.batches_per_second(dataset, NumberedRows(dataset, ["input_values", "lead_mask"]))
    numpy_format = 1e6 / bench_loading.batches_per_second(dataset, bench_loading.NumpyFormat(dataset))
    extractor = EcgDanFeatureExtractor.from_pretrained(bench_loading.CHECKPOINT)
    start = time.process_time()
    for header in headers:
        record = read(header)
        extractor(record.signal_mv, record.sampling_rate, "mV", lead_names=record.lead_names)
    from_files = 1e6 * (time.process_time() - start) / len(headers)
    yield "1,000 rows as batches, from the cache", "the numpy format of datasets", ours, numpy_format
    yield "1,000 rows as batches, from the cache", "files read and prepared in every epoch", ours, from_files


def floor(repeats: int) -> Iterator[tuple[str, float, float, float]]:
    """Of each network: milliseconds, and those of its arithmetic and memory traffic at the speed of this machine."""
    peak, bandwidth = _flops_per_ms(repeats), _bytes_per_ms(repeats)
    for name, (network, samples) in bench_inference.build().items():
        for records in (1, 32):
            inputs = torch.randn(records, 12, samples)
            with torch.inference_mode():
                with FlopCounterMode(display=False) as counter:
                    network(inputs)
                taken = bench_inference.shortest({"": partial(network, inputs)}, repeats)[""]
                moved = _bytes_of(network, inputs)
            yield f"{name}, batch {records}", taken, counter.get_total_flops() / peak, moved / bandwidth


def _flops_per_ms(repeats: int) -> float:
    """Of a product of two matrices of 1024 x 1024, float32."""
    one = torch.randn(1024, 1024)
    return 2 * 1024**3 / bench_inference.shortest({"": lambda: one @ one}, repeats)[""]


def _bytes_per_ms(repeats: int) -> float:
    """Of copying 64 MB, which are read and written."""
    source = torch.zeros(1 << 24)
    target = torch.empty_like(source)
    return 2 * 4 * (1 << 24) / bench_inference.shortest({"": lambda: target.copy_(source)}, repeats)[""]


def _bytes_of(network: nn.Module, inputs: torch.Tensor) -> float:
    """Weights, and input and output of every layer with weights, as if the layers between cost nothing."""
    moved = [0]

    def count(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        tensors = [each for each in (*given, output, *module.parameters()) if isinstance(each, torch.Tensor)]
        moved[0] += sum(each.numel() * each.element_size() for each in tensors)

    heavy = (nn.Conv1d, nn.Conv2d, nn.Linear)
    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, heavy)]
    network(inputs)
    for hook in hooks:
        hook.remove()
    return moved[0]


def page(headers: list[Path], folder: Path, quick: bool) -> Iterator[str]:
    """The lines of the page."""
    repeats, few = (3, 5) if quick else (50, 50)
    yield f"{TITLE}\n\n{machine()}\n"
    yield "| what | ms | alternative | ms | times as quick |\n|---|---|---|---|---|"
    rows = [
        files(headers[:few], 3),
        predictions(headers[:few], 3),
        networks(repeats),
        without_torch(folder, repeats),
        batches(headers[:few], folder, 256 if quick else 1024),
        statistics(20_000 if quick else 500_000, 1 if quick else 3),
    ]
    for part in rows:
        for name, alternative, ours, other in part:
            yield f"| {name} | {ours:.2f} | {alternative} | {other:.2f} | {other / ours:.2f} |"
    yield "\n## How far from the machine's own speed\n"
    yield f"{FLOOR}\n"
    yield "| network, 10 s of 12 leads | ms | arithmetic, ms | memory, ms | times the sum |\n|---|---|---|---|---|"
    for name, taken, arithmetic, memory in floor(repeats):
        yield f"| {name} | {taken:.2f} | {arithmetic:.2f} | {memory:.2f} | {taken / (arithmetic + memory):.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file to write; default: print")
    parser.add_argument("--records", type=Path, help="folder of WFDB recordings of 10 s and 500 Hz")
    parser.add_argument("--quick", action="store_true", help="a few repeats, to see that all parts run")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as work:
        if given.records is None:
            write_cohort(Path(work, "cohort"), n=64, seed=0)
        headers = sorted((given.records or Path(work, "cohort")).rglob("*.hea"))
        lines = []
        for line in page(headers, Path(work), given.quick):
            lines.append(line)
            print(line, flush=True)
    if given.out is not None:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
