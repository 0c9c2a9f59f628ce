"""What 8-bit weights cost and buy: macro AUROC on a fold of PTB-XL, size, and time as a ratio.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_quantisation.py --data-dir ../shared/data/ptb-xl \
    --checkpoint model_cards/ecg-dan-rhythm-superclasses [--test-fold 9] [--repeats 20] [--limit 100]

Beside the network in torch: its export (`ecgdan export`), that with 8-bit weights (`--int8`), that with only its
matrix products in 8 bits, and torchao's 8-bit linear layers where torchao is installed. The loss is paired: the same
patients are resampled for both. Times are the shortest of many, taken in turn on one thread, so that a busy machine
slows all alike; a ratio above 1 says how many times slower than the network in torch.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_inference import shortest

from ecgdan_hf.data.loading import load
from ecgdan_hf.evaluation.measures.classification import macro_auroc
from ecgdan_hf.evaluation.measures.intervals import bootstrap_difference
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.rows import label_matrix
from ecgdan_hf.publish.export import export_onnx

Answer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(N, leads, samples) and (N, leads) -> logits (N, labels)."""
BATCH = 32


def torch_answer(model: torch.nn.Module, signal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.from_numpy(signal), torch.from_numpy(mask)).logits.numpy()


def onnx_answer(file: Path) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda signal, mask: session.run(["logits"], {"input_values": signal, "lead_mask": mask})[0]


def matrices_only(file: Path, out: Path) -> Path:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(file, out, op_types_to_quantize=["MatMul", "Gemm"])
    return out


def torchao_model(model: torch.nn.Module) -> torch.nn.Module | None:
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError:
        return None
    quantised = copy.deepcopy(model)
    quantize_(quantised, Int8DynamicActivationInt8WeightConfig())
    return quantised


def build(checkpoint: str, folder: Path) -> dict[str, tuple[Answer, int | None]]:
    """Name -> what answers, and the bytes of its file."""
    model, _ = load_checkpoint(checkpoint)
    weights = Path(checkpoint, "model.safetensors")
    found = {"torch, float32": (partial(torch_answer, model), weights.stat().st_size if weights.is_file() else None)}
    whole, int8 = (
        export_onnx(checkpoint, folder / f"{each}.onnx", int8=each == "int8") for each in ("float32", "int8")
    )
    matrices = matrices_only(whole.path, folder / "matrices.onnx")
    for name, file in (("float32", whole.path), ("int8", int8.path), ("int8, matrix products", matrices)):
        found[f"onnxruntime, {name}"] = onnx_answer(file), file.stat().st_size
    if (quantised := torchao_model(model)) is not None:
        found["torchao, int8 linear layers"] = partial(torch_answer, quantised), None
    return found


def scores(answer: Answer, signals: np.ndarray, masks: np.ndarray) -> np.ndarray:
    parts = range(0, len(signals), BATCH)
    return np.concatenate([answer(signals[start : start + BATCH], masks[start : start + BATCH]) for start in parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--test-fold", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--limit", type=int, help="only the first records of the fold, for a trial run")
    parser.add_argument("--cache-dir", help="folder for preprocessed signals")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, extractor = load_checkpoint(options.checkpoint)
    rows = load("ptb-xl", options.data_dir, feature_extractor=extractor, cache_dir=options.cache_dir)
    chosen = [row for row, fold in enumerate(rows["fold"]) if fold == options.test_fold][: options.limit]
    rows = rows.select(chosen)
    signals = np.stack([np.asarray(signal, dtype=np.float32) for signal in rows["input_values"]])
    signals, masks = as_batch(signals, model.config), np.array(rows["lead_mask"], dtype=bool)
    labels, patients = label_matrix(rows), np.array(rows["patient_id"])
    with tempfile.TemporaryDirectory() as folder:
        found = build(options.checkpoint, Path(folder))
        logits = {name: scores(answer, signals, masks) for name, (answer, _) in found.items()}
        times = {}
        for records in (1, BATCH):
            batch = signals[:records], masks[:records]
            calls = {name: partial(answer, *batch) for name, (answer, _) in found.items()}
            times[records] = shortest(calls, options.repeats)
    first = next(iter(found))
    print(f"{len(signals)} records of fold {options.test_fold}, torch {torch.__version__}, one thread")
    print(
        "| network | MB | macro AUROC | loss (95 % interval) | largest change of a probability | time, 1 | time, 32 |"
    )
    print("|---" * 7 + "|")
    for name, (_, size) in found.items():
        lost = bootstrap_difference(
            macro_auroc, labels, scores=logits[first], baseline_scores=logits[name], patient_ids=patients, n=1000
        )
        change = np.abs(1 / (1 + np.exp(-logits[name])) - 1 / (1 + np.exp(-logits[first]))).max()
        cells = [name, "" if size is None else f"{size / 1e6:.2f}", f"{macro_auroc(labels, logits[name]):.4f}"]
        cells += [f"{lost.estimate:+.4f} ({lost.low:+.4f} to {lost.high:+.4f})", f"{change:.4f}"]
        cells += [f"{times[records][name] / times[records][first]:.2f}" for records in times]
        print(f"| {' | '.join(cells)} |")


def as_batch(signals: np.ndarray, config) -> np.ndarray:
    """(N, leads, samples) with the network's zeros at both ends."""
    missing = config.num_samples - signals.shape[-1]
    return np.pad(signals, ((0, 0), (0, 0), (missing // 2, missing - missing // 2)))


if __name__ == "__main__":
    main()
