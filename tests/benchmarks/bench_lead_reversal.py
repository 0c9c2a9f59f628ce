"""How many exchanged electrodes `ecgdan data check` finds, and how often it suspects them for nothing.

python tests/benchmarks/bench_lead_reversal.py --ptb-xl ../shared/data/ptb-xl [--ludb ../shared/data/ludb] [--fit] \
    [--num-proc 2] [--out lead_reversal.json]

Exchanges are simulated on real records: exactly for the limb electrodes (linear maps of I and II) and the chest
electrodes (rows exchanged), and for the right leg's under the assumption that the legs differ by 2 % of lead II.
PTB-XL folds 1-4 made the regression and the thresholds of `data/check/electrodes.py` (`--fit` prints them); folds 5-8
judge, fold 9 and LUDB confirm. Records count as correctly recorded, although a few of them may not be.
"""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ecgdan_hf.data.check import electrodes as electrode_swaps
from ecgdan_hf.data.check.electrodes import (
    CHEST_LEADS,
    REGRESSION,
    SWAPS,
    WAVES,
    _chest_ratios,
    _chest_swap,
    _limb_scores,
    _limb_swap,
)
from ecgdan_hf.data.check.signals import _representative_beat
from ecgdan_hf.data.prepared.record_file import RecordFile
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

Beat = dict[str, np.ndarray]

FIT_FOLDS, TEST_FOLDS, CONFIRM_FOLDS = (1, 2, 3, 4), (5, 6, 7, 8), (9,)
ALARMS_WHEN_FITTED = {"LIMB_MARGIN": 0.002, "CHEST_RATIO": 0.0025}
LEG_DIFFERENCE = 0.02
CHEST_SWAPS = ("V1-V2", "V2-V3", "V3-V4", "V4-V5", "V5-V6", "V1-V3", "V1-V6", "V2-V4", "V4-V6")


def beat_of(file: RecordFile) -> Beat | None:
    """The median beat that is judged, None where the record has none of twelve usable leads."""
    try:
        beat = _representative_beat(file.read())
    except ValueError:
        return None
    return beat if set(beat) == set(STANDARD_LEADS) else None


def beats_of(folder: Path, num_proc: int) -> tuple[list[Beat], np.ndarray]:
    """Beats of a folder and the folds they are in, 0 without folds."""
    table = read_source(None, folder)
    files = RecordFile.of_table(table)
    with ProcessPoolExecutor(num_proc) as pool:
        found = list(tqdm(pool.map(beat_of, files, chunksize=16), str(folder), len(files)))
    folds = table["fold"].to_numpy() if "fold" in table else np.zeros(len(table), int)
    kept = [i for i, beat in enumerate(found) if beat is not None]
    return [beat for beat in found if beat is not None], folds[kept]


def with_limb_swap(beat: Beat, kind: str) -> Beat:
    """I and II as they come with exchanged limb electrodes; the leads that follow from them are left out."""
    first, second = np.array(SWAPS[kind]) @ np.stack([beat["I"], beat["II"]])
    return {**{lead: beat[lead] for lead in CHEST_LEADS}, "I": first, "II": second}


def with_leg_swap(beat: Beat, arm: str) -> Beat:
    """I and II with the electrodes of an arm and the right leg exchanged."""
    legs = LEG_DIFFERENCE * beat["II"]  # right leg against left leg
    third = beat["II"] - beat["I"]
    first, second = (-third - legs, -legs) if arm == "RA" else (beat["II"] + legs, beat["II"])
    return {**{lead: beat[lead] for lead in CHEST_LEADS}, "I": first, "II": second}


def with_chest_swap(beat: Beat, pair: str) -> Beat:
    """Two chest leads exchanged."""
    a, b = pair.split("-")
    return {**beat, a: beat[b], b: beat[a]}


def regression(beats: list[Beat]) -> dict[str, np.ndarray]:
    """I and II from V1-V6, (2, 6) for each wave, by least squares."""
    found = {}
    for name, samples in WAVES.items():
        level = electrode_swaps._level
        chest = np.hstack([level(np.stack([beat[lead] for lead in CHEST_LEADS]))[:, samples] for beat in beats])
        limb = np.hstack([level(np.stack([beat["I"], beat["II"]]))[:, samples] for beat in beats])
        found[name] = np.linalg.lstsq(chest.T, limb.T, rcond=None)[0].T.round(2)
    return found


def limb_margin(beat: Beat) -> float:
    """By how much the best exchange that is looked for agrees better with V1-V6 than the record."""
    scores = _limb_scores(beat)
    return max(value for kind, value in scores.items() if kind not in ("none", "LA-LL")) - scores["none"]


def fit(beats: list[Beat]) -> None:
    """Prints the numbers of `electrode_swaps`, from the folds that may choose them."""
    for name, rows in regression(beats).items():
        print(f'    "{name}": {tuple(tuple(row) for row in rows.tolist())},')
        REGRESSION[name] = tuple(tuple(row) for row in rows.tolist())
    measured = {
        "LIMB_MARGIN": [limb_margin(beat) for beat in beats],
        "CHEST_RATIO": [max(_chest_ratios(beat).values()) for beat in beats],
    }
    for name, values in measured.items():
        print(f"{name} {np.quantile(values, 1 - ALARMS_WHEN_FITTED[name]):.2f}")


def share(beats: list[Beat], tell: Callable[[Beat], str | None], right: str | None = None) -> dict[str, float]:
    """Share of beats that raise an alarm, and that name the exchange rightly."""
    told = [tell(beat) for beat in beats]
    return {
        "alarm": float(np.mean([name is not None for name in told])),
        **({} if right is None else {"named": float(np.mean([name == right for name in told]))}),
    }


def shares(beats: list[Beat]) -> dict[str, Any]:
    """Shares of beats that raise an alarm, as recorded and with each exchange."""
    swapped = {kind: share([with_limb_swap(beat, kind) for beat in beats], _limb_swap, kind) for kind in SWAPS}
    legs = {f"{arm}-RL": share([with_leg_swap(beat, arm) for beat in beats], _limb_swap, "RL") for arm in ("RA", "LA")}
    chest = {pair: share([with_chest_swap(beat, pair) for beat in beats], _chest_swap, pair) for pair in CHEST_SWAPS}
    return {
        "records": len(beats),
        "limb": {"as recorded": share(beats, _limb_swap), **swapped, **legs},
        "chest": {"as recorded": share(beats, _chest_swap), **chest},
    }


def show(name: str, found: dict[str, Any]) -> None:
    """Prints one table."""
    print(f"\n{name}: {found['records']} records")
    for part in ("limb", "chest"):
        print(f"  {part}, as recorded: specificity {1 - found[part]['as recorded']['alarm']:.4f}")
        for kind, values in found[part].items():
            if kind != "as recorded":
                note = "; not looked for, hardly detectable" if kind == "LA-LL" else ""
                print(f"  {part} {kind:9} found {values['alarm']:.3f}, rightly named {values['named']:.3f}{note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptb-xl", type=Path, required=True)
    parser.add_argument("--ludb", type=Path)
    parser.add_argument("--fit", action="store_true", help="print the numbers that folds 1-4 choose, and judge them")
    parser.add_argument("--num-proc", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    beats, folds = beats_of(args.ptb_xl, args.num_proc)
    parts = {
        f"PTB-XL folds {min(wanted)}-{max(wanted)}": [b for b, f in zip(beats, folds, strict=True) if f in wanted]
        for wanted in (FIT_FOLDS, TEST_FOLDS, CONFIRM_FOLDS)
    }
    if args.fit:
        fit(next(iter(parts.values())))
    if args.ludb:
        parts["LUDB"] = beats_of(args.ludb, args.num_proc)[0]
    results = {name: shares(part) for name, part in parts.items()}
    for name, found in results.items():
        show(name, found)
    if args.out:
        args.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
