"""How often beats are taken for a calibration pulse: real recordings, their leads alone, and stretches of long ones.

python tests/benchmarks/bench_calibration_pulses.py --ptb-xl ../shared/data/ptb-xl --ludb ../shared/data/ludb \
    --mit-bih ../shared/data/mit-bih

None of these recordings has a pulse, so each one that is cut is a false cut. A record is taken whole, as each of its
leads alone, as I and II, and as V1 to V3; MIT-BIH in stretches of 10 s.
"""

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from ecgdan_hf.data.formats import read
from ecgdan_hf.data.lead_checks import PULSE
from ecgdan_hf.data.record import EcgRecord

STRETCH_SECONDS = 10.0
GROUPS = {"I and II": ("I", "II"), "V1 to V3": ("V1", "V2", "V3")}


def parts_of(record: EcgRecord) -> Iterator[tuple[str, EcgRecord]]:
    """A record of twelve leads, and of some of them, by the words of the table."""
    yield "all leads", record
    groups = [("one lead", (name,)) for name in record.lead_names] + list(GROUPS.items())
    for words, names in groups:
        rows = [record.lead_names.index(name) for name in names]
        with contextlib.suppress(ValueError):  # a lead that is refused alone, as no voltage
            yield words, EcgRecord(record.signal_mv[rows], record.sampling_rate, names)


def stretches_of(record: EcgRecord) -> Iterator[EcgRecord]:
    """A long record in pieces, one after another."""
    samples = round(STRETCH_SECONDS * record.sampling_rate)
    for first in range(0, record.signal_mv.shape[1] - samples + 1, samples):
        yield EcgRecord(record.signal_mv[:, first : first + samples], record.sampling_rate, record.lead_names)


def main() -> None:
    """Prints cuts and recordings of each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--ptb-xl", "--ludb", "--mit-bih"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    cut: Counter[str] = Counter()
    taken: Counter[str] = Counter()

    def count(words: str, record: EcgRecord) -> None:
        taken[words] += 1
        cut[words] += any(flag.startswith(PULSE) for flag in record.flags)

    twelve = [("records500/*/*.hea", asked.ptb_xl), ("data/*.hea", asked.ludb)]
    for file in tqdm([file for pattern, folder in twelve if folder for file in sorted(folder.glob(pattern))]):
        for words, record in parts_of(read(file)):
            count(words, record)
    for file in sorted(asked.mit_bih.glob("*.hea")) if asked.mit_bih else []:
        for stretch in stretches_of(read(file)):
            count("MIT-BIH, 10 s", stretch)
    print("| part | recordings | cut |\n|---|---|---|")
    for words, number in taken.items():
        print(f"| {words} | {number:,} | {cut[words]} |")


if __name__ == "__main__":
    main()
