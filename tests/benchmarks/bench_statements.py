"""What each part of the statement-wise pretraining adds: variants and controls, every seed, one table.

python tests/benchmarks/bench_statements.py --data-dir ../shared/data/ptb-xl --output-dir runs/statements \
    [--only "statements and measured,shuffled texts"] [--seeds 0-2] [--train-folds 1-8 --test-folds 9] \
    [--set epochs=20] [--report]

Each variant is the recipe `pretrain-statements` with one thing changed. Every run is a folder of its own; finished
ones are not repeated, and an unfinished one goes on. The table has the macro AUROC of the prompts at each level, for
held-out statements and by paraphrases that no training text has, and the R2 of a ridge regression of measurements on
the frozen embedding: the mean over seeds, and the SD where there are several. `--report` trains nothing.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecgdan_hf.data.measure.table import measure_table
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.data.text.definitions import definitions
from ecgdan_hf.data.text.statements import embed_texts
from ecgdan_hf.evaluation.folds import parse_folds, select_folds
from ecgdan_hf.files import write_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.rows import embed
from ecgdan_hf.training import pretrain
from ecgdan_hf.training.arguments.command import _parse_assignments
from ecgdan_hf.training.arguments.fields import PretrainArguments, ProbeArguments
from ecgdan_hf.training.arguments.options import resolve
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.studies.ablation import slug
from ecgdan_hf.training.zero_shot_probe import zero_shot_probe

RHYTHMS = "SR,AFIB,STACH,SBRAD,SARRH,AFLT,SVARR,SVTAC,PSVT,BIGU,TRIGU,PACE,1AVB,IVCD"
EIGHT = "AFIB,PVC,LVH,IRBBB,LAFB,ASMI,1AVB,ISC_"
_NAMES = {"text_source": "statements", "text_prompts": "names"}
_ONE_TEXT = {**_NAMES, "statement_dropout": 0.5}
VARIANTS: dict[str, dict[str, Any]] = {
    "statements and measured": {},
    "statements alone": {"text_source": "statements"},
    "names instead of definitions": {"text_prompts": "names"},
    "names alone": _NAMES,
    "measured alone": {"text_source": "measured"},
    "shuffled texts": {"shuffle_text": True},
    "permuted definitions": {"text_control": "permuted"},
    "one-hot, no language": {"text_control": "one_hot"},
    "random language model": {"text_control": "random_model"},
    "without counting beats": {"model": {"count_beats": False}},
    "clip": {**_ONE_TEXT, "model": {"alignment_objective": "clip", "alignment_weight": 1.0}},
    "siglip": {**_ONE_TEXT, "model": {"alignment_objective": "siglip", "alignment_weight": 1.0}},
    "cosine": {**_ONE_TEXT, "model": {"alignment_objective": "cosine", "alignment_weight": 1.0}},
    "rhythms held out": {"hold_out_statements": RHYTHMS},
    "rhythms held out, permuted definitions": {"hold_out_statements": RHYTHMS, "text_control": "permuted"},
    "rhythms held out, one-hot": {"hold_out_statements": RHYTHMS, "text_control": "one_hot"},
    "rhythms held out, random language model": {"hold_out_statements": RHYTHMS, "text_control": "random_model"},
    "rhythms held out, statements alone": {"hold_out_statements": RHYTHMS, "text_source": "statements"},
    "eight held out": {"hold_out_statements": EIGHT},
}
COLUMNS = ("superclass", "rhythm", "statement", "held out", "held out, paraphrased", "statement, paraphrased")
MEASURED = {"rate": "heart_rate_bpm", "RR": "rr_variation", "QRS": "qrs_ms", "PR": "pr_ms", "QTc": "qtc_fridericia_ms"}


def run(name: str, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """Pretrains one variant where that is missing, and returns what the table has of it."""
    folder = Path(given.output_dir) / slug(name) / f"seed-{seed}"
    if RunFolder(folder).metrics is None:
        if given.report:
            return {}
        pretrain.pretrain(_pretrain_arguments(name, seed, folder, given))
    done = folder / "table.yaml"
    if not done.is_file():
        found = {**_zero_shot(folder, given), **_measured(folder, given)}
        write_text(done, yaml.safe_dump(found))
    found = yaml.safe_load(done.read_text(encoding="utf-8"))
    return dict(found)


def _pretrain_arguments(name: str, seed: int, folder: Path, given: argparse.Namespace) -> PretrainArguments:
    flags = {"data": "ptb-xl", "data_dir": given.data_dir, "train_folds": given.train_folds, "text_model": "minilm"}
    flags |= {
        "output_dir": str(folder),
        "seed": seed,
        "resume": (folder / "recipe.yaml").is_file(),
        "log_with": "none",
    }
    flags |= {"cache_dir": given.cache_dir, "progress": False, **VARIANTS[name], **_parse_assignments(given.set)}
    return resolve(PretrainArguments, "pretrain-statements", flags)


def _zero_shot(folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """Macro AUROC at every level, by the checkpoint's prompts and by paraphrases."""
    options: dict[str, Any] = {"checkpoint": str(folder), "zero_shot": True, "data": "ptb-xl"}
    options |= {"data_dir": given.data_dir, "test_folds": given.test_folds, "cache_dir": given.cache_dir}
    options |= {"bootstrap": 20, "permutations": 2, "overwrite": True}
    found = _levels(zero_shot_probe(ProbeArguments(**options, output_dir=str(folder / "zero-shot"))))
    if load_checkpoint(folder)[0].config.text_embed_dim != 384:  # one-hot: no other text can be asked
        return found
    texts = {code: [known.paraphrase] for code, known in definitions().items()}
    write_text(folder / "paraphrases.yaml", yaml.safe_dump(texts))
    options |= {"prompts": str(folder / "paraphrases.yaml"), "text_model": "minilm"}
    asked = _levels(zero_shot_probe(ProbeArguments(**options, output_dir=str(folder / "paraphrased"))))
    renamed = {f"{name}, paraphrased": asked[name] for name in ("statement", "held out") if name in asked}
    return {**found, **renamed}


def _levels(metrics: Mapping[str, Any]) -> dict[str, float]:
    found = {name: _estimate(level["macro_auroc"]) for name, level in metrics["levels"].items()}
    return {("held out" if "held out" in name else name): value for name, value in found.items()}


def _estimate(value: Any) -> float:
    return float(value["estimate"] if isinstance(value, Mapping) else value)


def _measured(folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """R2 on the test folds of a ridge regression on the embedding of the training folds."""
    model, extractor = load_checkpoint(folder)
    arguments = ProbeArguments(data="ptb-xl", data_dir=given.data_dir, cache_dir=given.cache_dir)
    dataset = rows.load_dataset(arguments, extractor)
    table = measure_table(read_source("ptb-xl", given.data_dir), cache_dir=given.cache_dir).set_index("record_id")
    parts = {}
    for part, folds in (("train", given.train_folds), ("test", given.test_folds)):
        chosen = select_folds(dataset, parse_folds(folds, part))
        known = table.loc[[str(record) for record in chosen["record_id"]], list(MEASURED.values())]
        parts[part] = embed(model, chosen), known.to_numpy(float)
    return {f"R2 {word}": _r2(parts, column) for column, word in enumerate(MEASURED)}


def _r2(parts: Mapping[str, tuple[np.ndarray, np.ndarray]], column: int) -> float:
    (features, truth), (tested, expected) = parts["train"], parts["test"]
    fit = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
    known, judged = ~np.isnan(truth[:, column]), ~np.isnan(expected[:, column])
    fit.fit(features[known], truth[known, column])
    error = expected[judged, column] - fit.predict(tested[judged])
    return float(1 - np.mean(error**2) / np.var(expected[judged, column]))


def nearest_definitions() -> float:
    """Share of the paraphrases to which the language model itself puts a text of the right statement first."""
    known = [(code, text) for code, each in definitions().items() for text in each.texts]
    vectors = [embed_texts(texts, "minilm") for texts in ([text for _, text in known], _paraphrases())]
    texts, asked = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in vectors)
    nearest = [known[index][0] for index in (asked @ texts.T).argmax(axis=1)]
    return float(np.mean([code == found for code, found in zip(definitions(), nearest, strict=True)]))


def _paraphrases() -> list[str]:
    return [known.paraphrase for known in definitions().values()]


def table(found: Mapping[str, list[dict[str, float]]]) -> str:
    """One line a variant: seeds, and mean (SD) of every column."""
    columns = [*COLUMNS, *(f"R2 {word}" for word in MEASURED)]
    lines = [f"| variant | seeds | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 2)]
    for name, runs in found.items():
        cells = [_cell([run[column] for run in runs if column in run]) for column in columns]
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--output-dir", required=True)
    parser.add_argument("--cache-dir")
    parser.add_argument("--only", help="variants, separated by semicolons")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--train-folds", default="1-8")
    parser.add_argument("--test-folds", default="9")
    parser.add_argument("--set", action="append", default=[], help="argument of ecgdan pretrain for all, as epochs=2")
    parser.add_argument("--report", action="store_true", help="only what has been trained")
    given = parser.parse_args()
    names = [name.strip() for name in given.only.split(";")] if given.only else list(VARIANTS)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in parse_folds(given.seeds, "seeds") or []:
        for name in names:
            if result := run(name, seed, given):
                found.setdefault(name, []).append(result)
    text = table({name: found[name] for name in names if name in found})
    print(text)
    if found:
        write_text(Path(given.output_dir) / "table.md", text + "\n")
    print(f"\nParaphrases to which MiniLM puts the right definition first: {nearest_definitions():.0%}")


if __name__ == "__main__":
    main()
