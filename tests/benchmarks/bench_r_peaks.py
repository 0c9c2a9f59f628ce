"""How many heart beats the feature extractor finds, on recordings whose beats were marked by hand.

python tests/benchmarks/bench_r_peaks.py [--ludb ../shared/data/ludb] [--mit-bih ../shared/data/mit-bih] \
    [--records 1-100] [--reference median]

The signal reaches `find_r_peaks` as in the feature extractor: only the given leads, limb leads derived from them,
filtered, at the rate of median beat models (500 Hz) or of rhythm models (100 Hz).

LUDB: a beat is the median over leads of their hand marks ("N", between onset and end of the QRS), or the mark of lead
II with `--reference ii`. Beats near the ends of a record are not marked, so detections before its first and after its
last mark count neither way. MIT-BIH: the first five minutes of each record, a minute at a time because the extractor
takes no more; ventricular flutter, which has no beats, counts neither way. Intervals: 95 %, records resampled.
"""

import argparse
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import neurokit2 as nk
import numpy as np
import wfdb
from wfdb.processing import compare_annotations

from ecgdan_hf.evaluation.folds import parse_folds
from ecgdan_hf.evaluation.measures.intervals import Interval, bootstrap_interval
from ecgdan_hf.model.conditioning_ecgdan import resample
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.filters_ecgdan import apply_filter
from ecgdan_hf.model.leads_ecgdan import canonical_leads, derive_limb_lead
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks

TOLERANCES = (0.05, 0.15)  # seconds: the median beat's, and the one of ANSI/AAMI EC57
MODEL_RATES = (500, 100)  # Hz: median beat and rhythm checkpoints
LEAD_SETS: tuple[tuple[str, ...], ...] = (
    ("I",),
    ("II",),
    ("I", "II"),
    ("I", "II", "V2"),
    STANDARD_LEADS[:6],
    ("I", "II", *STANDARD_LEADS[6:]),
    STANDARD_LEADS,
)
ONE_BEAT_SECONDS = 0.15  # marks of different leads this close to the next are one beat
EDGE_SECONDS = 0.25  # a mark this close to the end of a piece may be half a beat
BEAT_SYMBOLS = "NLRBAaJSVrFejnE/fQ?"
PIECE_SECONDS, PIECES = 60, 5


@dataclass(frozen=True)
class Marked:
    """A recording and where its beats are.

    Attributes:
        record: name, the unit that is resampled.
        leads: (samples,) mV by standard lead name.
        sampling_rate: Hz.
        beats: (beats,) seconds, ascending.
        not_judged: (first, last) seconds of stretches without beats.
    """

    record: str
    leads: dict[str, np.ndarray]
    sampling_rate: float
    beats: np.ndarray
    not_judged: list[tuple[float, float]] = field(default_factory=list)


def ludb(folder: Path, records: Iterable[int], reference: str = "median") -> Iterator[Marked]:
    """Records of LUDB.

    Args:
        folder: with `data/1.hea` and the marks `data/1.i` to `data/1.v6`.
        records: numbers, 1 to 200.
        reference: `"median"` over the leads, or the lead whose marks count, such as `"ii"`.
    """
    for number in records:
        path = str(folder / "data" / str(number))
        recording = wfdb.rdrecord(path)
        marks = {name: _qrs_marks(path, name) for name in recording.sig_name}
        samples = common_beats(list(marks.values()), recording.fs) if reference == "median" else marks[reference]
        leads = dict(zip(canonical_leads(recording.sig_name), recording.p_signal.T, strict=True))
        yield Marked(str(number), leads, recording.fs, samples / recording.fs)


def _qrs_marks(path: str, lead: str) -> np.ndarray:
    annotation = wfdb.rdann(path, lead)
    return annotation.sample[np.array(annotation.symbol) == "N"]


def common_beats(per_lead: Sequence[np.ndarray], sampling_rate: float) -> np.ndarray:
    """Median over leads of the marks of each beat that half of the leads mark; sample indices (beats,)."""
    every = np.sort(np.concatenate(per_lead))
    groups = np.split(every, np.flatnonzero(np.diff(every) > ONE_BEAT_SECONDS * sampling_rate) + 1)
    return np.array([np.median(group) for group in groups if 2 * len(group) >= len(per_lead)])


def mit_bih(folder: Path) -> Iterator[Marked]:
    """The first five minutes of each MIT-BIH record in `folder`, a minute at a time."""
    for header in sorted(folder.glob("*.hea")):
        path, rate = str(header.with_suffix("")), wfdb.rdheader(str(header.with_suffix(""))).fs
        recording = wfdb.rdrecord(path, sampto=PIECES * PIECE_SECONDS * rate)
        annotation = wfdb.rdann(path, "atr")
        symbols, seconds = np.array(annotation.symbol), annotation.sample / rate
        flutter = list(zip(seconds[symbols == "["], seconds[symbols == "]"], strict=True))
        beats = seconds[np.isin(symbols, list(BEAT_SYMBOLS))]
        for start in range(0, PIECES * PIECE_SECONDS, PIECE_SECONDS):
            end = start + PIECE_SECONDS
            inside = beats[(beats >= start + EDGE_SECONDS) & (beats < end - EDGE_SECONDS)]
            rows = recording.p_signal[start * rate : end * rate].T
            leads = dict(zip(canonical_leads(recording.sig_name), rows, strict=True))
            apart = [(first - start, last - start) for first, last in flutter]
            yield Marked(header.stem, leads, rate, inside - start, apart)


def detect(recording: Marked, given: Sequence[str], model_rate: float) -> np.ndarray:
    """Beats in seconds, found in the given leads as the feature extractor finds them."""
    known = {lead: recording.leads[lead] for lead in given}
    derived = {lead: derive_limb_lead(lead, known) for lead in STANDARD_LEADS if lead not in known}
    known |= {lead: values for lead, values in derived.items() if values is not None}
    signal = np.stack([known[lead] for lead in STANDARD_LEADS if lead in known])
    signal = apply_filter(signal, recording.sampling_rate, **EcgDanFeatureExtractor().filter)
    return find_r_peaks(resample(signal, recording.sampling_rate, model_rate), model_rate) / model_rate


def detect_with_neurokit(recording: Marked, lead: str) -> np.ndarray:
    """Beats in seconds, found by neurokit2 as it comes: its cleaning, its detector, one lead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = nk.ecg_clean(recording.leads[lead], recording.sampling_rate)
        found = nk.ecg_findpeaks(clean, recording.sampling_rate)["ECG_R_Peaks"]
    return np.asarray(found) / recording.sampling_rate


def score(found: np.ndarray, recording: Marked, tolerance: float) -> tuple[int, int, int]:
    """Hits, misses and false alarms between the first and the last mark, one detection for one mark.

    Args:
        found: (detections,) seconds.
        recording: its beats, seconds.
        tolerance: seconds.
    """
    marks = recording.beats
    judged = (found >= marks[0] - tolerance) & (found <= marks[-1] + tolerance)
    for first, last in recording.not_judged:
        judged &= (found < first) | (found > last)
    milliseconds = [np.rint(1000 * values).astype(int) for values in (marks, found[judged])]
    if not len(milliseconds[1]):
        return 0, len(marks), 0
    compared = compare_annotations(*milliseconds, round(1000 * tolerance) + 1)  # its window is exclusive
    return compared.tp, compared.fn, compared.fp


def share(hits: np.ndarray, others: np.ndarray) -> float:
    """Hits over hits and others: sensitivity with misses, positive predictive value with false alarms."""
    return float(hits.sum() / (hits.sum() + others.sum()))


def rates(counts: np.ndarray, records: Sequence[str], n: int = 1000) -> tuple[Interval, Interval]:
    """Sensitivity and positive predictive value with intervals; `counts` (recordings, 3) from [`score`]."""
    hits, missed, false = counts.T
    return tuple(bootstrap_interval(share, hits, others, patient_ids=records, n=n) for others in (missed, false))


def row(name: str, recordings: Sequence[Marked], found: Sequence[np.ndarray], seconds: float) -> str:
    """One line of the table; `seconds` is the time all detections took."""
    cells = [name, str(sum(len(recording.beats) for recording in recordings))]
    for tolerance in TOLERANCES:
        counts = np.array([score(*pair, tolerance) for pair in zip(found, recordings, strict=True)])
        intervals = rates(counts, [recording.record for recording in recordings])
        cells += [f"{each.estimate:.4f} ({each.low:.3f} to {each.high:.3f})" for each in intervals]
    return f"| {' | '.join(cells)} | {1000 * seconds / len(recordings):.1f} |"


def table(recordings: Sequence[Marked], lead_sets: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of Markdown: each set of leads at each rate, and neurokit2 on lead II."""
    heads = ["leads", "beats", *(f"{what}, {1000 * t:.0f} ms" for t in TOLERANCES for what in ("sensitivity", "PPV"))]
    yield f"| {' | '.join([*heads, 'ms each'])} |"
    yield "|---" * (len(heads) + 1) + "|"
    for rate in MODEL_RATES:
        for leads in lead_sets:
            have = [recording for recording in recordings if set(leads) <= set(recording.leads) or not leads]
            start = time.perf_counter()
            found = [detect(recording, leads or list(recording.leads), rate) for recording in have]
            name = f"{len(leads)} ({', '.join(leads)})" if leads else "as recorded"
            yield row(f"{name}, {rate} Hz", have, found, time.perf_counter() - start)
    start = time.perf_counter()
    found = [detect_with_neurokit(recording, "II") for recording in recordings]
    yield row("1 (II), neurokit2 alone", recordings, found, time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ludb", type=Path)
    parser.add_argument("--mit-bih", type=Path)
    parser.add_argument("--records", default="1-100", help="of LUDB, such as 51-100")
    parser.add_argument("--reference", default="median", help="LUDB: median over leads, or a lead such as ii")
    options = parser.parse_args()
    if options.ludb:
        print(f"LUDB {options.records}, reference: {options.reference}\n")
        for line in table(list(ludb(options.ludb, parse_folds(options.records), options.reference)), LEAD_SETS):
            print(line, flush=True)
    if options.mit_bih:
        print("\nMIT-BIH, first five minutes\n")
        for line in table(list(mit_bih(options.mit_bih)), ((), ("II",))):
            print(line, flush=True)


if __name__ == "__main__":
    main()
