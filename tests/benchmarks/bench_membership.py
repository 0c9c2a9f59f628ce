"""Membership inference: can somebody who has the weights tell on which ECGs a released checkpoint was trained?

    python tests/benchmarks/bench_membership.py --data-dir ../shared/data/ptb-xl [--out FILE]

Members are records of the folds that its recipe trained on, others those of folds 9 and 10; no patient is in both. Two
attacks give each record a score: by the loss of its labels (members have a lower one; classifiers only; Yeom et al.,
IEEE CSF 2018), and by the distance between the embedding of a record and those of copies with noise of 2 % (members
move less). AUROC with a 95 % interval over patients; 0.5 is a coin. A network with random weights is the control:
what it shows lies in the folds, not in the training. `seen_records.npz` needs no attack: its key is in the file, so
whoever has a recording can look it up.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import log_expit
from scipy.stats import rankdata

from ecgdan_hf.data.loading import load
from ecgdan_hf.evaluation.folds import parse_folds, recipe_of
from ecgdan_hf.evaluation.measures.intervals import bootstrap_interval
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.inference.rows import embed, label_matrix, score_rows

CARDS = Path(__file__).parents[2] / "model_cards"
OTHERS = (9, 10)
COPIES, NOISE = 3, 0.02


def auroc(is_member: np.ndarray, score: np.ndarray) -> float:
    """Probability that a member scores higher than another record; ties count half.

    >>> auroc(np.array([1, 1, 0]), np.array([3.0, 2.0, 1.0]))
    1.0
    """
    members = int(is_member.sum())
    others = len(is_member) - members
    if not members or not others:
        raise ValueError("is_member: expected both kinds")
    return float((rankdata(score)[is_member == 1].sum() - members * (members + 1) / 2) / (members * others))


def losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean cross-entropy (records,) of logits and labels (records, labels); unknown labels are left out."""
    each = -np.where(labels > 0.5, log_expit(scores), log_expit(-scores))
    return np.nanmean(np.where(np.isnan(labels), np.nan, each), axis=1)


def movement(model: Any, rows: Any) -> np.ndarray:
    """Mean cosine distance (records,) between the embedding of a record and those of noisy copies."""
    plain = embed(model, rows, 64)
    moved = np.zeros(len(plain))
    for seed in range(COPIES):
        copies = rows.map(with_noise, fn_kwargs={"seed": seed}, with_indices=True, keep_in_memory=True)
        noisy = embed(model, copies, 64)
        cosine = (plain * noisy).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(noisy, axis=1)
        moved += (1 - cosine) / COPIES
    return moved


def with_noise(row: dict[str, Any], index: int, seed: int) -> dict[str, Any]:
    values = np.asarray(row["input_values"], dtype=np.float32)
    noise = np.random.default_rng((seed, index)).normal(scale=NOISE * values.std(), size=values.shape)
    return {"input_values": (values + noise * (values != 0)).astype(np.float32)}


def rows_of(model: Any, extractor: Any, folder: Path, data_dir: Path, cache: str, most: int) -> tuple[Any, np.ndarray]:
    """Members and others in equal number, and which are members."""
    trained = parse_folds((recipe_of(str(folder)) or {}).get("train_folds")) or list(range(1, 9))
    options = {"keep_labels": model.config.label_names} if head_of(model).is_classifier else {}
    level = (recipe_of(str(folder)) or {}).get("label_level")
    options |= {"label_level": level} if level else {}
    rows = load("ptb-xl", data_dir, feature_extractor=extractor, num_proc=1, cache_dir=cache, **options)
    folds, draw = np.asarray(rows["fold"]), np.random.default_rng(0)
    others = np.flatnonzero(np.isin(folds, OTHERS))[:most]
    members = draw.permutation(np.flatnonzero(np.isin(folds, trained)))[: len(others)]
    patients = np.asarray(rows["patient_id"])
    assert not set(patients[members]) & set(patients[others])
    return rows.select(np.r_[members, others]), np.r_[np.ones(len(members)), np.zeros(len(others))]


def attack(folder: Path, data_dir: Path, cache: str, most: int, n: int) -> dict[str, Any]:
    """AUROCs of the attacks on a checkpoint, and of the control."""
    model, extractor = load_checkpoint(folder)
    rows, is_member = rows_of(model, extractor, folder, data_dir, cache, most)
    scores = {"distance of embeddings": -movement(model, rows)}
    if head_of(model).is_classifier:
        scores["loss"] = -losses(score_rows(model, rows, 64), label_matrix(rows))
    torch.manual_seed(0)
    scores["distance of embeddings, random weights"] = -movement(type(model)(model.config).eval(), rows)
    patients = np.asarray(rows["patient_id"])
    found: dict[str, Any] = {"members": int(is_member.sum()), "others": int((is_member == 0).sum())}
    for name, score in scores.items():
        interval = bootstrap_interval(auroc, is_member, score, patient_ids=patients, n=n)
        found[name] = {key: round(float(getattr(interval, key)), 3) for key in ("estimate", "low", "high")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--checkpoints", help="names in model_cards, separated by commas; default: all of PTB-XL")
    parser.add_argument("--most", type=int, default=700, help="members, and others, at most")
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--cache-dir", help="folder for prepared signals; default: one that is deleted")
    asked = parser.parse_args()
    recipes = {folder.name: recipe_of(str(folder)) or {} for folder in sorted(CARDS.iterdir())}
    ours = [name for name, recipe in recipes.items() if recipe.get("data") == "ptb-xl"]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in asked.checkpoints.split(",") if asked.checkpoints else ours:
            folder = asked.cache_dir or cache
            found[name] = attack(CARDS / name, asked.data_dir, folder, asked.most, asked.bootstrap)
            print(json.dumps({name: found[name]}), flush=True)
            if asked.out:
                asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
