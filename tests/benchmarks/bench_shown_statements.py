"""How often the statements that a page shows of an ECG are in its cardiologist's report, and how often by chance.

A page shows zero-shot statements of `STATEMENT_SCORE` or more. By chance means: the
same statements shown of other ECGs of the fold. Normal ECG and sinus rhythm, which most reports have, are left out.

    python tests/benchmarks/bench_shown_statements.py --ptb-xl ptb-xl --folds 8,9
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdan_hf.data import formats
from ecgdan_hf.data.record import scp_likelihoods
from ecgdan_hf.data.sources.ptbxl import read_ptbxl
from ecgdan_hf.explain.page.report_sections import STATEMENT_SCORE
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.model.pipeline_ecgdan import ZeroShotEcgClassificationPipeline

USUAL = ("NORM", "SR")
CHECKPOINT = "model_cards/ecg-dan-rhythm"


def shown(scores: npt.ArrayLike, truth: npt.ArrayLike, least: float = STATEMENT_SCORE) -> dict[str, float]:
    """How many statements are shown, and which share is right.

    Args:
        scores: (records, statements).
        truth: (records, statements), whether the report has the statement.
        least: score of a statement that is shown.

    >>> shown([[0.9, 0.1], [0.9, 0.9]], [[1, 0], [0, 1]], least=0.8)
    {'shown_per_ecg': 1.5, 'in_the_report': 0.6667, 'by_chance': 0.5, 'of_the_reports': 1.0}
    """
    is_shown, is_true = np.asarray(scores) >= least, np.asarray(truth, dtype=bool)
    found = {
        "shown_per_ecg": is_shown.sum(axis=1).mean(),
        "in_the_report": (is_shown & is_true).sum() / is_shown.sum(),
        "by_chance": (is_shown * is_true.mean(axis=0)).sum() / is_shown.sum(),
        "of_the_reports": (is_shown & is_true).sum() / is_true.sum(),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Prints the shares of each fold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptb-xl", type=Path, required=True, help="PTB-XL folder")
    parser.add_argument("--folds", default="8,9", help="8 chose the score, 9 judges it")
    parser.add_argument("--limit", type=int, help="records of each fold")
    given = parser.parse_args(argv)
    model, extractor = load_checkpoint(CHECKPOINT)
    ask = ZeroShotEcgClassificationPipeline(model=model, feature_extractor=extractor)
    labels = [label for label in model.config.prompt_labels if label not in USUAL]
    table, found = read_ptbxl(given.ptb_xl), {}
    for fold in map(int, given.folds.split(",")):
        rows, scores = table[table["fold"] == fold][: given.limit], []
        for file in rows["file"]:
            answers = ask(formats.read(file).as_inputs(), multi_label=True)
            by_label = {answer["label"]: answer["score"] for answer in answers}
            scores.append([by_label[label] for label in labels])
        truth = [[label in scp_likelihoods(codes) for label in labels] for codes in rows["scp_codes"]]
        found[f"fold {fold}"] = {"ecgs": len(rows), **shown(scores, truth)}
    print(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
