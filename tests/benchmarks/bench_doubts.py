"""How many corrupted recordings the feature extractor calls doubtful, and how many recordings for nothing.

python tests/benchmarks/bench_doubts.py --ptb-xl ../shared/data/ptb-xl [--ludb ../shared/data/ludb] [--fit] \
    [--folds 9] [--checkpoint model_cards/ecg-dan-rhythm] [--num-proc 2] [--out doubts.json]

Real recordings are corrupted before the feature extractor reads them. PTB-XL folds 1-8 made the weights and thresholds
of `model/doubts_ecgdan.py` (`--fit` prints them, from the shares of false alarms in `FALSE_ALARMS`); fold 9 judges.
All records count as right, although a few of them are not: some arms were exchanged in the hospital.
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.model import doubts_ecgdan
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor

Corrupted = tuple[np.ndarray, float]  # signal in mV and the rate it claims
DOUBTS = ("doubtful", "sampling_rate_doubtful", "limb_leads_contradict", "ends_missing")
FALSE_ALARMS = {  # share of records as recorded, chosen so that all together stay below 1 %
    "inverted": 0.001,
    "arms_exchanged": 0.003,
    "time_reversed": 0.001,
    "rate_doubled": 0.0012,
    "rate_halved": 0.0012,
    "gain_tripled": 0.0025,
}
KINDS = {"inverted": "shape", "arms_exchanged": "shape", "time_reversed": "order"}
KINDS |= {"rate_doubled": "timing", "rate_halved": "timing", "gain_tripled": "size"}
PENALTY = {"size": 0.01}  # inverse, of the squared weights of standardised features; 0.1 for others


def exchange_arms(signal_mv: np.ndarray) -> np.ndarray:
    """Twelve leads as recorded with the electrodes of the arms exchanged."""
    lead_1, lead_2, lead_3, right, left, foot, *chest = signal_mv
    return np.stack([-lead_1, lead_3, lead_2, left, right, foot, *chest])


def empty_half(signal_mv: np.ndarray) -> np.ndarray:
    """Zeros in the second half."""
    signal_mv = signal_mv.copy()
    signal_mv[:, signal_mv.shape[1] // 2 :] = 0
    return signal_mv


CORRUPTIONS: dict[str, Callable[[np.ndarray, float], Corrupted]] = {
    "as recorded": lambda signal, rate: (signal, rate),
    "inverted": lambda signal, rate: (-signal, rate),
    "arms_exchanged": lambda signal, rate: (exchange_arms(signal), rate),
    "time_reversed": lambda signal, rate: (signal[:, ::-1], rate),
    "rate_doubled": lambda signal, rate: (signal, 2 * rate),
    "rate_halved": lambda signal, rate: (signal, rate / 2),
    "gain_tripled": lambda signal, rate: (3 * signal, rate),
    "half_empty": lambda signal, rate: (empty_half(signal), rate),
}


class Recorder:
    """Keeps the features of the last recording that the extractor looked at."""

    def __init__(self) -> None:
        self.features: dict[str, np.ndarray] | None = None
        self._compute = doubts_ecgdan.features

    def __call__(self, beat_mv: np.ndarray, beats_per_minute: float) -> dict[str, np.ndarray]:
        """The features, as `doubts_ecgdan.features`."""
        self.features = self._compute(beat_mv, beats_per_minute)
        return self.features


def examine(file: RecordFile, checkpoint: str, names: tuple[str, ...]) -> dict[str, Any]:
    """For each corruption the flags, or the error, and the features; and the milliseconds of the first."""
    extractor = EcgDanFeatureExtractor.from_pretrained(checkpoint)
    record, recorder = file.read(), Recorder()
    doubts_ecgdan.features, found = recorder, {}
    order = [record.lead_names.index(lead) for lead in STANDARD_LEADS]
    for name in names:
        signal_mv, rate = CORRUPTIONS[name](record.signal_mv[order], record.sampling_rate)
        recorder.features, start = None, time.process_time()
        try:
            flags = extractor(signal_mv, rate, "mV", list(STANDARD_LEADS), return_flags=True)["flags"][0]
        except ValueError as error:
            flags = [f"refused:{error}"]
        milliseconds = 1e3 * (time.process_time() - start)
        found[name] = {"flags": flags, "features": recorder.features, "milliseconds": milliseconds}
    doubts_ecgdan.features = recorder._compute
    return found


def is_doubted(flags: list[str]) -> bool:
    """Whether a recording is refused or flagged as one not to trust."""
    return any(flag.partition(":")[0] in (*DOUBTS, "refused") for flag in flags)


def table(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Share of recordings that are flagged at all, and flagged by the right name."""
    rows = {}
    for name in found[0]:
        flags = [each[name]["flags"] for each in found]
        named = [any(flag.startswith(f"doubtful:{name}") for flag in each) for each in flags]
        rows[name] = {
            "records": len(flags),
            "flagged": float(np.mean([is_doubted(each) for each in flags])),
            **({"named": float(np.mean(named))} if name in KINDS else {}),
        }
    return rows


def score_of(features: np.ndarray, corrupted: np.ndarray, kind: str) -> tuple[np.ndarray, float]:
    """Weights of raw features and a constant; rows of `features` that are `corrupted` score higher."""
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    model = LogisticRegression(C=PENALTY.get(kind, 0.1), max_iter=500).fit((features - mean) / scale, corrupted)
    weights = model.coef_[0] / scale
    return weights, float(model.intercept_[0] - weights @ mean)


def fit(found: list[dict[str, Any]], folds: np.ndarray) -> None:
    """Prints the weights of `doubts_ecgdan`; thresholds are those of scores across folds."""
    for name, kind in KINDS.items():
        pairs = [(each["as recorded"]["features"], each[name]["features"]) for each in found]
        usable = [i for i, pair in enumerate(pairs) if None not in pair]
        rows = [np.stack([pairs[i][side][kind] for i in usable]) for side in (0, 1)]
        features, fold = np.concatenate(rows), np.tile(folds[usable], 2)
        corrupted = np.repeat([0, 1], len(usable))
        scores = np.zeros(len(features))
        for held_out in np.unique(folds):
            weights, constant = score_of(features[fold != held_out], corrupted[fold != held_out], kind)
            scores[fold == held_out] = features[fold == held_out] @ weights + constant
        threshold = np.quantile(scores[corrupted == 0], 1 - FALSE_ALARMS[name])
        weights, constant = score_of(features, corrupted, kind)
        scale = 999 / np.abs(weights).max()
        numbers = np.round(weights * scale).astype(int)
        print(f'    "{name}": ("{kind}", {(constant - threshold) * scale:.0f}, """')
        for start in range(0, len(numbers), 18):
            print("        " + " ".join(map(str, numbers[start : start + 18])))
        print('    """),')


def examined(
    folder: Path, folds: list[int], names: tuple[str, ...], args: argparse.Namespace
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Findings of the records in these folds, and their folds; all records where there are no folds."""
    records = read_source(None, folder)
    records = records[records["fold"].isin(folds)] if "fold" in records else records.assign(fold=0)
    files = RecordFile.of_table(records)
    with ProcessPoolExecutor(args.num_proc) as pool:
        look = partial(examine, checkpoint=args.checkpoint, names=names)
        found = list(tqdm(pool.map(look, files, chunksize=8), str(folder), len(files)))
    return found, records["fold"].to_numpy()


def show(title: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Prints one table and returns it."""
    rows = table(found)
    print(f"\n{title}\n{'':<18}{'records':>8}{'flagged':>9}{'named':>8}")
    for name, row in rows.items():
        named = f"{row['named']:>8.3f}" if "named" in row else ""
        print(f"{name:<18}{row['records']:>8}{row['flagged']:>9.3f}{named}")
    return rows


def main() -> None:
    """Measures, and fits first if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptb-xl", type=Path, required=True)
    parser.add_argument("--ludb", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=[9])
    parser.add_argument("--checkpoint", default="model_cards/ecg-dan-rhythm")
    parser.add_argument("--fit", action="store_true", help="print weights fitted on folds 1-8, and stop")
    parser.add_argument("--num-proc", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.fit:
        names = ("as recorded", *KINDS)
        fit(*examined(args.ptb_xl, list(range(1, 9)), names, args))
        return
    everything = tuple(CORRUPTIONS)
    found, _ = examined(args.ptb_xl, args.folds, everything, args)
    results = {f"PTB-XL, folds {args.folds}": show(f"PTB-XL, folds {args.folds}, {args.checkpoint}", found)}
    if args.ludb is not None:
        results["LUDB"] = show("LUDB", examined(args.ludb, [], everything, args)[0])
    if args.out is not None:
        args.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
