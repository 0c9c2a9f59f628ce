"""How well measurements alone tell the statements that measurements define, without any training.

    python tests/benchmarks/bench_measured_definitions.py --data-dir ptb-xl --folds 1-8

A statement is scored by the probability of its measured sentences (`data/text/definitions.yaml`); AUROC against all
other records, 95 % intervals by resampling patients. Prints a Markdown table.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from ecgdan_hf.data.measure.table import measure_table
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.data.text.definitions import definitions
from ecgdan_hf.data.text.prompts import measured_prompt
from ecgdan_hf.evaluation.folds import parse_folds
from ecgdan_hf.evaluation.measures.classification import classification_metrics

MIN_POSITIVES = 10


def measured_scores(table: pd.DataFrame, codes: list[str]) -> np.ndarray:
    """(records, codes): probabilities; what is not known counts as the mean of the others."""
    columns = [measured_prompt(definitions()[code].name).probability(table) for code in codes]
    return np.stack([np.where(np.isnan(column), np.nanmean(column), column) for column in columns], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--folds", default="1-8")
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--num-proc", type=int, default=1)
    parser.add_argument("--bootstrap", type=int, default=1000)
    options = parser.parse_args()
    source = read_source("ptb-xl", options.data_dir, label_level="statement")
    source = source[source["fold"].isin(parse_folds(options.folds) or range(1, 11))].reset_index(drop=True)
    table = measure_table(source, cache_dir=options.cache_dir, num_proc=options.num_proc)
    stated = {code: source["labels"].map(lambda labels, code=code: code in labels) for code in definitions()}
    codes = [code for code, each in definitions().items() if each.measured and stated[code].sum() >= MIN_POSITIVES]
    truth = np.stack([stated[code].to_numpy(dtype=float) for code in codes], axis=1)
    scores = measured_scores(table, codes)
    found = classification_metrics(truth, scores, codes, source["patient_id"].to_numpy(), n=options.bootstrap)
    print(f"{len(source)} records; macro AUROC of {len(codes)} statements: {_text(found['macro_auroc'])}\n")
    print("| statement | n | AUROC | measured sentences |\n|---|---|---|---|")
    for code in codes:
        entry, rests_on = found["labels"][code], ", ".join(definitions()[code].measured)
        print(f"| {code} | {entry['num_positives']} | {_text(entry['auroc'])} | {rests_on} |")


def _text(interval: dict[str, float]) -> str:
    return f"{interval['estimate']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


if __name__ == "__main__":
    main()
