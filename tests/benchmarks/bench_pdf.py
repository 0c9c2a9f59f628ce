r"""How exactly PDFs of ECGs are read: written from PTB-XL in many layouts and styles, read again, and damaged.

For each record a layout and a style of `fixtures/write_pdfs.py` in turn. Counts leads named, the root mean square of
the difference (around the median of each lead), damaged PDFs that are read wrong without an error or a flag, and with
`--checkpoint` the macro AUROC on fold 9 of native files and of PDFs, over labels with ten positives.

    python tests/benchmarks/bench_pdf.py --ptb-xl ptb-xl --records 264 --damaged 500 --out pdf.json
    python tests/benchmarks/bench_pdf.py --ptb-xl ptb-xl --records 0 \
      --checkpoint model_cards/ecg-dan-rhythm-statements-page-3x4
"""

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from fixtures.write_pdfs import LAYOUTS, LEADS, STYLES, printed, write_pdf

from ecgdan_hf.data import formats
from ecgdan_hf.data.record import EcgRecord, scp_likelihoods
from ecgdan_hf.data.sources.ptbxl import read_ptbxl

GOAL_UV = 10.0
MIN_POSITIVES = 10  # of a label, to be judged
WRONG_UV = 20.0  # more than the undamaged file


def pairs() -> Iterator[tuple[str, str]]:
    """Layouts and styles in turn, without end."""
    return itertools.cycle(itertools.product(LAYOUTS, STYLES))


def difference_uv(record: EcgRecord, signal_mv: np.ndarray, rate: float, layout: str) -> dict[str, float]:
    """Largest root mean square over leads in microvolt; shares of samples missing or invented."""
    shown = printed(signal_mv, rate, layout)
    read = np.full((12, shown.shape[1]), np.nan)
    length = min(record.signal_mv.shape[1], shown.shape[1])
    for lead, values in zip(record.lead_names, record.signal_mv, strict=True):
        read[LEADS.index(lead), :length] = values[:length]
    both = np.isfinite(read) & np.isfinite(shown)
    errors = [read[lead, both[lead]] - shown[lead, both[lead]] for lead in range(12) if both[lead].any()]
    rms = max(float(np.sqrt(np.mean((each - np.median(each)) ** 2))) for each in errors)
    missing = float((np.isfinite(shown) & ~both).sum() / np.isfinite(shown).sum())
    invented = float((np.isfinite(read) & ~both).sum() / np.isfinite(shown).sum())
    return {"rms_uv": 1000 * rms, "missing": missing, "invented": invented, "leads": int(both.any(axis=1).sum())}


def read_whole(files: list[Path], folder: Path) -> list[dict[str, Any]]:
    """One row for each record, written in the next layout and style and read again."""
    rows = []
    for file, (layout, style) in zip(files, pairs(), strict=False):
        native = formats.read(file)
        path = write_pdf(folder / "ecg.pdf", native.signal_mv, native.sampling_rate, layout, STYLES[style])
        start, row = time.perf_counter(), {"file": file.stem, "layout": layout, "style": style}
        try:
            record = formats.read(path)
            row |= difference_uv(record, native.signal_mv, native.sampling_rate, layout)
            row |= {"rate": record.sampling_rate, "flags": list(record.flags)}
        except ValueError as error:
            row |= {"error": str(error)}
        rows.append({**row, "seconds": time.perf_counter() - start})
    return rows


def damage(content: bytes, random_: random.Random) -> bytes:
    """One of: bytes changed, digits changed, a part cut out, doubled or moved, the end cut off."""
    kind, size = random_.choice(["bytes", "digits", "cut", "double", "move", "end"]), len(content)
    at, length = random_.randrange(size), random_.choice([1, 10, 100, 1000])
    changed = bytearray(content)
    if kind == "bytes":
        for place in random_.choices(range(size), k=random_.choice([1, 3, 10, 100])):
            changed[place] = random_.randrange(256)
    elif kind == "digits":
        digits = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
        for place in random_.choices(digits, k=random_.choice([1, 3, 10])):
            changed[place] = random_.randrange(48, 58)
    elif kind == "cut":
        del changed[at : at + length]
    elif kind == "double":
        changed[at:at] = changed[at : at + length]
    elif kind == "move":
        part = changed[at : at + length]
        del changed[at : at + length]
        to = random_.randrange(len(changed))
        changed[to:to] = part
    else:
        del changed[at:]
    return bytes(changed)


def read_damaged(files: list[Path], folder: Path, count: int, seed: int) -> dict[str, Any]:
    """What happened to damaged PDFs: refused, flagged, read right, or wrong without a word."""
    random_, found, silent = random.Random(seed), {"refused": 0, "flagged": 0, "right": 0, "silent": 0}, []
    for number, (layout, style) in zip(range(count), pairs(), strict=False):
        native = formats.read(files[number % len(files)])
        path = write_pdf(folder / "ecg.pdf", native.signal_mv, native.sampling_rate, layout, STYLES[style])
        undamaged = formats.read(path)
        own_uv = difference_uv(undamaged, native.signal_mv, native.sampling_rate, layout)["rms_uv"]
        path.write_bytes(damage(path.read_bytes(), random_))
        try:
            record = formats.read(path)
        except ValueError:
            found["refused"] += 1
            continue
        error = difference_uv(record, native.signal_mv, native.sampling_rate, layout)
        wrong = error["rms_uv"] > own_uv + WRONG_UV or error["missing"] > 0.01 or error["invented"] > 0.01
        outcome = "right" if not wrong else "flagged" if set(record.flags) - set(undamaged.flags) else "silent"
        found[outcome] += 1
        silent += [{"number": number, "layout": layout, "style": style, **error}] if outcome == "silent" else []
    return {**found, "cases": silent}


def accuracy(table: Any, checkpoint: str, folder: Path) -> dict[str, float]:
    """Macro AUROC on fold 9: native files, and PDFs of each layout that is asked for."""
    import torch
    from sklearn.metrics import roc_auc_score

    from ecgdan_hf.inference.checkpoints import load_checkpoint

    model, extractor = load_checkpoint(checkpoint)
    labels = list(model.config.id2label.values())
    said = [{*row, *scp_likelihoods(codes)} for row, codes in zip(table["labels"], table["scp_codes"], strict=True)]
    truth = np.array([[label in row for label in labels] for row in said])
    judged = truth.sum(axis=0) >= MIN_POSITIVES
    found: dict[str, list[np.ndarray]] = {"native": [], "3x4+1": [], "12x1": []}
    for file in table["file"]:
        native = formats.read(file)
        for name, scores in found.items():
            record = native
            if name != "native":
                record = formats.read(write_pdf(folder / "a.pdf", native.signal_mv, native.sampling_rate, name))
            inputs = extractor(**record.as_inputs(), return_tensors="pt")
            with torch.inference_mode():
                scores.append(model(**inputs).logits[0].numpy())
    return {
        name: float(roc_auc_score(truth[:, judged], np.array(scores)[:, judged], average="macro"))
        for name, scores in found.items()
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts and the largest differences, together and by style."""
    read = [row for row in rows if "error" not in row]
    return {
        "pdfs": len(rows),
        "read": len(read),
        "layouts": len({row["layout"] for row in rows}),
        "all_leads_named": sum(row["leads"] == 12 for row in read),
        "rms_uv_median": float(np.median([row["rms_uv"] for row in read])),
        "rms_uv_largest": max(row["rms_uv"] for row in read),
        "rms_within_goal": sum(row["rms_uv"] <= GOAL_UV for row in read),
        "missing_largest": max(row["missing"] for row in read),
        "rms_uv_by_style": {s: max((r["rms_uv"] for r in read if r["style"] == s), default=None) for s in STYLES},
        "flags": {f: sum(f in row["flags"] for row in read) for row in read for f in row["flags"]},
        "seconds_median": float(np.median([row["seconds"] for row in rows])),
        "errors": [row for row in rows if "error" in row],
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Writes and prints what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptb-xl", type=Path, required=True, help="PTB-XL folder")
    parser.add_argument("--records", type=int, default=264, help="PDFs to write and read")
    parser.add_argument("--damaged", type=int, default=0, help="PDFs to damage")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage")
    parser.add_argument("--checkpoint", help="classifier of superclasses or statements, judged on fold 9")
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args(argv)
    table = read_ptbxl(given.ptb_xl)
    files = [
        Path(file) for file in table["file"].iloc[:: max(1, len(table) // max(1, given.records or given.damaged))]
    ]
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        if given.records:
            found["whole"] = summary(read_whole(files[: given.records], Path(folder)))
        if given.damaged:
            found["damaged"] = read_damaged(files, Path(folder), given.damaged, given.seed)
        if given.checkpoint:
            found["accuracy"] = accuracy(table[table["fold"] == 9], given.checkpoint, Path(folder))
    print(json.dumps(found, indent=1))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
