"""Reads thousands of mutated ECG files of every format: does each end as a record or as one line?

    python tests/benchmarks/bench_mutations.py --files 20000 [--shared ../shared/data] [--keep DIR] [--out FILE]

Whole files of `tests/fixtures`, and real recordings where there are some, are changed at random: bits flipped, the end
cut off, blocks repeated, removed or zeroed, bytes exchanged, and in text numbers, tags and separators changed. Each
is read by `formats.read` in a process of its own kind, which is replaced if it is lost. Counted are records, refusals
in one line, foreign exceptions (no ValueError or OSError, several lines, or a line without the file's name), warnings
that reach the user, lost processes, and files above the limits of time and memory. `--first N` goes on with file N.
"""

import argparse
import json
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))

import wfdb
from fixtures import write_cardiosoft, write_vendor_files

from ecgdan_hf.data import formats
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

LIMIT_SECONDS = 5.0
LIMIT_BYTES = 1 << 30
MAX_LETTERS = 600  # of a refusal
PROGRESS_FILES = 1000  # between lines of progress
WAIT_SECONDS = 120.0  # until a process counts as lost, however busy the machine is
ABOUT = {"sampling_rate": 500.0, "unit": "mV", "lead_names": STANDARD_LEADS}
NEEDS_ABOUT = ("ecg.npy", "tracings.h5")
MEMBERS = {"tracings.h5": "1", "rows.parquet": "1"}

Mutation = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Whole:
    """An ECG as it was: the file that is read and mutated, those beside it, and what it counts as in the table."""

    name: str
    content: bytes
    beside: tuple[tuple[str, bytes], ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Finding:
    """How reading a mutated file ended.

    `ending` is `record`, `refusal`, `foreign`, `warning` or `lost`; `seconds` are of the processor, `peak_bytes` the
    most memory that the process, or its decoder, has had so far.
    """

    number: int
    group: str
    name: str
    mutations: tuple[str, ...]
    ending: str
    said: str
    seconds: float
    peak_bytes: int


# ---- whole files


def corpus(folder: Path, shared: Path | None = None) -> list[Whole]:
    """One file of each format, WFDB records with their data, and recordings of the shared folder."""
    write_vendor_files.write_all(folder)
    _write_more(folder)
    single = [Whole(file.name, file.read_bytes(), group=file.name) for file in sorted(folder.iterdir())]
    return [*single, *_wfdb_records(folder / "wfdb"), *_real(shared)]


def _write_more(folder: Path) -> None:
    """Formats that `write_vendor_files` has no writer of."""
    counts = write_vendor_files.counts()
    signal = write_vendor_files.millivolt(counts).astype(np.float32)
    write_vendor_files.hdf5_rows(folder / "tracings.h5", counts)
    beat = np.pad(signal[:, 400:700], ((0, 0), (150, 150)), mode="edge")
    (folder / "cardiosoft.xml").write_text(write_cardiosoft.cardiosoft_xml(signal, beat), encoding="latin-1")
    rows = [";".join(f"{value:.3f}".replace(".", ",") for value in row) for row in signal[:, :1000].T]
    head = ["# sampling_rate: 500", ";".join(f"{lead} (mV)" for lead in STANDARD_LEADS)]
    (folder / "german.csv").write_text("\r\n".join([*head, *rows]), encoding="utf-16")
    rows = [f"{i / 500:.3f},{a:.3f},{b:.3f}" for i, (a, b) in enumerate(signal[:2].T)]
    (folder / "timed.csv").write_text("\n".join(["time,I [mV],II [mV]", *rows]), encoding="utf-8")
    columns = {"signal": [signal.T.tolist()] * 2, "sampling_rate": [500.0] * 2}
    columns |= {"unit": ["mV"] * 2, "lead_names": [list(STANDARD_LEADS)] * 2, "record_id": ["a", "b"]}
    pq.write_table(pa.table(columns), folder / "rows.parquet")


def _wfdb_records(folder: Path) -> Iterator[Whole]:
    """Records of which the header or the data are mutated: plain, in segments, with frames, FLAC."""
    counts = write_vendor_files.counts()[:, :1000]
    data, header = counts.T.astype("<i2").tobytes(), _header("plain", "plain.dat", counts)
    frames = _header("frames", "plain.dat", counts, "16x4").replace(b"1000\n", b"250\n", 1)
    plain = {"plain.hea": header, "plain.dat": data}
    yield from _parts("WFDB", plain)
    yield from _parts(
        "WFDB segments", {"parts.hea": b"parts/3 12 500 2500\nplain 1000\n~ 500\nplain 1000\n"} | plain, 1
    )
    yield from _parts("WFDB frames", {"frames.hea": frames} | plain, 1)
    folder.mkdir()
    names, storage = list(STANDARD_LEADS), ["516"] * 12
    about = {"units": ["mV"] * 12, "sig_name": names, "adc_gain": [200.0] * 12, "baseline": [0] * 12, "fmt": storage}
    wfdb.wrsamp("flac", fs=500, d_signal=counts.T.astype(np.int64), write_dir=str(folder), **about)
    yield from _parts("WFDB FLAC", {file.name: file.read_bytes() for file in sorted(folder.iterdir(), reverse=True)})


def _header(name: str, data: str, counts: np.ndarray, storage: str = "16") -> bytes:
    lines = [f"{name} {len(counts)} 500 {counts.shape[1]}"]
    for lead, row in zip(STANDARD_LEADS, counts, strict=True):
        lines.append(f"{data} {storage} 200(0)/mV 16 0 {row[0]} {int(row.sum()) % 65536} 0 {lead}")
    return "\n".join([*lines, "# Age: 56", "# Sex: F", ""]).encode()


def _parts(group: str, files: dict[str, bytes], count: int | None = None) -> Iterator[Whole]:
    """For each of the first files of a record, that file as the one that is mutated."""
    for name in list(files)[:count]:
        yield Whole(name, files[name], tuple(pair for pair in files.items() if pair[0] != name), group)


def _real(shared: Path | None) -> Iterator[Whole]:
    """A few recordings of each data set that is there, as WFDB records."""
    for source in () if shared is None else ("ptb-xl", "ludb", "mit-bih"):
        for header in _first(shared / source):
            names = re.findall(r"^(\S+\.dat)\s", header.read_text(encoding="utf-8"), re.MULTILINE)
            files = {name: header.with_name(name).read_bytes() for name in dict.fromkeys((header.name, *names))}
            yield from _parts(source, files)


def _first(folder: Path, count: int = 2) -> list[Path]:
    found = sorted(folder.rglob("*.hea")) if folder.is_dir() else []
    return found[:: max(1, len(found) // count)][:count]


# ---- mutations


def flip_bits(content: bytes, draw: random.Random) -> bytes:
    """One to eight bits, half of the time near the beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        changed[_place(changed, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def replace_bytes(content: bytes, draw: random.Random) -> bytes:
    """Values at the edge of what fits: 0, 127, 128, 255."""
    changed = bytearray(content)
    at, value = _place(changed, draw), draw.choice((0, 127, 128, 255))
    for i in range(at, min(at + draw.choice((1, 2, 4, 8)), len(changed))):
        changed[i] = value
    return bytes(changed)


def truncate(content: bytes, draw: random.Random) -> bytes:
    """Loses the end."""
    return content[: draw.choice((draw.randrange(len(content)), len(content) - draw.randint(1, 16)))]


def repeat_block(content: bytes, draw: random.Random) -> bytes:
    """A block twice, at its place or at another."""
    start, end = _block(content, draw)
    at = draw.choice((end, draw.randrange(len(content))))
    return content[:at] + content[start:end] + content[at:]


def remove_block(content: bytes, draw: random.Random) -> bytes:
    """A block less."""
    start, end = _block(content, draw)
    return content[:start] + content[end:]


def clear_block(content: bytes, draw: random.Random) -> bytes:
    """Zeros in place of a block, as of a copy that was interrupted."""
    start, end = _block(content, draw)
    return content[:start] + bytes(end - start) + content[end:]


def swap_bytes(content: bytes, draw: random.Random) -> bytes:
    """Neighbours exchanged, in a block, as of another byte order."""
    start, end = _block(content, draw)
    end -= (end - start) % 2
    block = bytearray(content[start:end])
    block[::2], block[1::2] = block[1::2], block[::2]
    return content[:start] + bytes(block) + content[end:]


def change_number(content: bytes, draw: random.Random) -> bytes:
    """Another number in a text; half of the time one of the first 50."""
    found = list(re.finditer(rb"-?\d+(?:[.,]\d+)?", content[:200_000]))
    if not found:
        return flip_bits(content, draw)
    place = draw.choice(found[:50] if draw.random() < 0.5 else found)
    new = draw.choice(
        (b"0", b"-1", b"1e308", b"nan", b"", b"99999999999", b"0.0000001", b"1,5", b"x", b"65536", b"-0")
    )
    return content[: place.start()] + new + content[place.end() :]


def change_tag(content: bytes, draw: random.Random) -> bytes:
    """A word of a text exchanged with another of its words, spelt another way, or lost."""
    found = list(re.finditer(rb"[A-Za-z_]{2,30}", content[:200_000]))
    if len(found) < 2:
        return flip_bits(content, draw)
    place = draw.choice(found[:80] if draw.random() < 0.5 else found)
    other = draw.choice(found).group()
    new = draw.choice((other, place.group().swapcase(), b"", place.group() * 2, b"\xff\xfe", b"\xc3\xa9"))
    return content[: place.start()] + new + content[place.end() :]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    replace_bytes,
    truncate,
    repeat_block,
    remove_block,
    clear_block,
    swap_bytes,
    change_number,
    change_tag,
)


def _place(content: bytes | bytearray, draw: random.Random) -> int:
    reach = min(len(content), 600) if draw.random() < 0.5 else len(content)
    return draw.randrange(max(reach, 1))


def _block(content: bytes, draw: random.Random) -> tuple[int, int]:
    start = _place(content, draw)
    return start, min(start + draw.choice((2, 4, 16, 64, 512, 4096)), len(content))


def mutated(content: bytes, draw: random.Random) -> tuple[bytes, tuple[str, ...]]:
    """The content after one to three mutations, and their names."""
    chosen = [draw.choice(MUTATIONS) for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    for mutation in chosen:
        content = mutation(content, draw) if content else content
    return content, tuple(mutation.__name__ for mutation in chosen)


# ---- reading


def write_mutant(number: int, seed: int, wholes: list[Whole], folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Writes mutated file `number` into an empty folder: always the same for a seed."""
    draw = random.Random(f"{seed}/{number}")
    whole = wholes[number % len(wholes)]
    content, mutations = mutated(whole.content, draw)
    return write(whole, content, folder), mutations


def write(whole: Whole, content: bytes, folder: Path) -> Path:
    """Writes a file with this content, and those beside it, into an empty folder; the path of the file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, other in (*whole.beside, (whole.name, content)):
        (folder / name).write_bytes(other)
    return folder / whole.name


def read_mutant(path: Path) -> tuple[str, str]:
    """How reading a file ends, and what is said."""
    about = ABOUT if path.name in NEEDS_ABOUT else {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            formats.read(path, member=MEMBERS.get(path.name), **about)
            ending, said = "record", ""
        except (ValueError, OSError) as error:
            said = str(error)
            is_line = "\n" not in said and len(said) <= MAX_LETTERS and str(path.parent) in said
            is_ours = type(error) in (ValueError, FileNotFoundError)
            ending, said = "refusal" if is_line and is_ours else "foreign", f"{type(error).__name__}: {said}"
        except Exception as error:
            ending, said = "foreign", f"{type(error).__name__}: {error}"
    if caught and ending in ("record", "refusal"):
        return "warning", f"{caught[0].category.__name__}: {caught[0].message}"
    return ending, said


def examine(number: int, seed: int, wholes: list[Whole], folder: Path) -> Finding:
    """Writes, reads and judges one mutated file."""
    path, mutations = write_mutant(number, seed, wholes, folder)
    before = _seconds()
    ending, said = read_mutant(path)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    said, group = said.replace(str(path.parent), ""), wholes[number % len(wholes)].group
    return Finding(number, group, path.name, mutations, ending, said, _seconds() - before, peak << 10)


def _seconds() -> float:
    """Of the processor, this process and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _work(line: Connection, seed: int, wholes: list[Whole], folder: Path) -> None:
    """Examines the files whose numbers come in, until there is none."""
    for number in iter(line.recv, None):
        line.send(examine(number, seed, wholes, folder))


def findings(numbers: range, seed: int, wholes: list[Whole], folder: Path) -> Iterator[Finding]:
    """Reads files in a child process, which is replaced if a file takes it along."""
    context = get_context("fork")
    child, line = None, None
    for number in numbers:
        if child is None or line is None:
            line, other = context.Pipe()
            child = context.Process(target=_work, args=(other, seed, wholes, folder), daemon=False)
            child.start()
            other.close()
        line.send(number)
        try:
            if not line.poll(WAIT_SECONDS):
                raise EOFError("no answer")
            yield line.recv()
        except EOFError as error:
            child.kill()
            child.join()
            whole = wholes[number % len(wholes)]
            yield Finding(number, whole.group, whole.name, (), "lost", f"exit code {child.exitcode} {error}", 0.0, 0)
            child = None
    if child is not None and line is not None:
        line.send(None)
        child.join()


def main() -> None:
    """Reads the files and prints what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file, to see one again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", type=Path, help="folder with real recordings")
    parser.add_argument("--keep", type=Path, help="folder for the files of findings")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    started, kept, ends = time.monotonic(), list[Finding](), Counter[tuple[str, str]]()
    slowest = largest = Finding(-1, "", "", (), "", "", 0.0, 0)
    with tempfile.TemporaryDirectory() as base:
        wholes = corpus(Path(base) / "whole", args.shared)
        for found in findings(range(args.first, args.first + args.files), args.seed, wholes, Path(base) / "mutant"):
            ends[found.group, found.ending] += 1
            slowest = max(slowest, found, key=lambda each: each.seconds)
            largest = max(largest, found, key=lambda each: each.peak_bytes)
            if found.number % PROGRESS_FILES == 0:
                print(f"{found.number} of {args.first + args.files} files", file=sys.stderr, flush=True)
            if found.ending not in ("record", "refusal") or found.seconds > LIMIT_SECONDS:
                kept.append(found)
                print(json.dumps(asdict(found)), flush=True)
                if args.keep is not None:
                    write_mutant(found.number, args.seed, wholes, args.keep / str(found.number))
    total = Counter(ending for (_, ending), count in ends.items() for _ in range(count))
    result = {
        "files": args.files,
        "endings": dict(total),
        "by_group": {name: {e: c for (n, e), c in ends.items() if n == name} for name, _ in ends},
        "slowest": asdict(slowest),
        "largest": asdict(largest),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "findings": [asdict(each) for each in kept],
    }
    print(json.dumps({key: value for key, value in result.items() if key != "findings"}, indent=1))
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(kept) or largest.peak_bytes > LIMIT_BYTES)


if __name__ == "__main__":
    main()
