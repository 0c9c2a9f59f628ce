"""Where DANet's waveform attention lies, against waves and beats that people marked.

python tests/benchmarks/bench_waveform_attention.py [--ludb ../shared/data/ludb] [--mit-bih ../shared/data/mit-bih] \
    [--checkpoint CKPT ...] [--out waveform-attention.json]

LUDB: share of a(t) inside the hand-marked P waves, QRS complexes and T waves of lead II, over the share of time they
take up (enrichment, 1 is uniform); 12 leads, from the first mark to the last. MIT-BIH: 10 s segments without overlap
that hold an atrial premature beat (`A`): whether a(t) peaks within 150 ms of its R peak, see
`waveform_attention.py`; the
records with paced beats are left out. Rules are those of the hard module; a checkpoint is judged as it is. Intervals:
95 %, patients resampled. Why the rule `apc` misses beats is counted too.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import wfdb
from waveform_attention import (
    attention_peaks,
    enrichment_interval,
    localisation_table,
    mass_in_intervals,
)

from ecgdan_hf import WAVEFORM_RULES, DanetConfig, EcgDanFeatureExtractor
from ecgdan_hf.data.formats import read
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.sources import mitbih
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks
from ecgdan_hf.model.waveform_danet import _beat_features, _meets_rule

WAVES = {"P": "p", "QRS": "N", "T": "t"}
SECONDS, TOLERANCE_SECONDS = 10.0, 0.15
Attention = Callable[[EcgRecord], tuple[np.ndarray, float]]


def of_rule(rule: str) -> Attention:
    """a(t) of the recorded samples (samples,) and its rate, under a rule."""
    config = DanetConfig(waveform_module="hard", waveform_rule=rule)
    extractor = EcgDanFeatureExtractor(**config.signal_contract)
    return lambda record: recorded(extractor(**record.as_inputs())["waveform_weights"][0], extractor, record)


def of_checkpoint(checkpoint: str) -> Attention:
    """The same of a trained network."""
    model, extractor = load_checkpoint(checkpoint)

    @torch.inference_mode()
    def attention(record: EcgRecord) -> tuple[np.ndarray, float]:
        output = model(**extractor(**record.as_inputs(), return_tensors="pt"))
        return recorded(output.waveform_attention[0].numpy(), extractor, record)

    return attention


def recorded(weights: np.ndarray, extractor: EcgDanFeatureExtractor, record: EcgRecord) -> tuple[np.ndarray, float]:
    first, end, start = extractor.recorded_samples(record.signal_mv.shape[1], record.sampling_rate)
    if start:
        raise ValueError(
            f"{record.record_id}: expected no more than the network's input, got {record.duration_seconds} s"
        )
    return weights[first:end], extractor.sampling_rate


# LUDB


def marked_waves(stem: Path) -> dict[str, np.ndarray]:
    """Onset and end (waves, 2) of each wave of lead II, seconds; and under `all` the first and the last mark."""
    marks = wfdb.rdann(str(stem), "ii")
    symbols, seconds = np.array(marks.symbol), marks.sample / 500
    found = {"all": seconds[[0, -1]][None]}
    for wave, symbol in WAVES.items():
        centres = [index for index in np.flatnonzero(symbols == symbol) if 0 < index < len(symbols) - 1]
        whole = [i for i in centres if symbols[i - 1] == "(" and symbols[i + 1] == ")"]
        found[wave] = np.array([[seconds[i - 1], seconds[i + 1]] for i in whole]).reshape(-1, 2)
    return found


def ludb(folder: Path, attentions: dict[str, Attention], records: int = 100) -> dict[str, dict[str, dict]]:
    """Enrichment of each kind of wave by name of attention."""
    stems = [folder / "data" / str(number) for number in range(1, records + 1)]
    known = [(read(stem), marked_waves(stem)) for stem in stems]
    table = {}
    for name, attention in attentions.items():
        shares = {wave: [] for wave in WAVES}
        for record, waves in known:
            weights, rate = attention(record)
            begin, end = np.rint(waves["all"][0] * rate).astype(int)
            for wave in WAVES:
                inside = mass_in_intervals(weights[begin : end + 1], waves[wave] - begin / rate, rate)
                shares[wave].append(inside)
        table[name] = {}
        for wave, pairs in shares.items():
            mass, time = np.array(pairs).T
            interval = enrichment_interval(mass, time).as_dict()
            table[name][wave] = interval | {"mass": float(mass.mean()), "time": float(time.mean())}
    return table


def print_ludb(table: dict[str, dict[str, dict]]) -> None:
    print("\n| a(t) | " + " | ".join(f"{wave}: share of a(t) | enrichment" for wave in WAVES) + " |")
    print("|---" * (1 + 2 * len(WAVES)) + "|")
    for name, waves in table.items():
        cells = [f"{each['mass']:.3f} | {limits(each)}" for each in waves.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("share of time: " + ", ".join(f"{wave} {each['time']:.3f}" for wave, each in table[name].items()))


# MIT-BIH


def segments(folder: Path) -> Iterator[tuple[EcgRecord, np.ndarray, str]]:
    """Segments with an `A` beat, the times of these beats in them (seconds), and the patient."""
    table = mitbih.read_mitbih(folder, SECONDS)
    for row in table[(table["beats_APC"] > 0) & (table["paced"] == 0)].itertuples():
        marks = wfdb.rdann(row.file, "atr")
        times = marks.sample[np.array(marks.symbol) == "A"] / marks.fs - row.start_seconds
        inside = times[(times >= 0) & (times < SECONDS)]
        yield read(row.file, start_seconds=row.start_seconds, seconds=SECONDS), inside, row.patient_id


def mit_bih(known: list[tuple[EcgRecord, np.ndarray, str]], attentions: dict[str, Attention]) -> dict[str, dict]:
    """Localisation by name of attention."""
    _, beats, patients = zip(*known, strict=True)
    table = {}
    for name, attention in attentions.items():
        found = [attention(record) for record, _, _ in known]
        weights, rates = zip(*found, strict=True)
        intervals = localisation_table(weights, beats, rates[0], patients, TOLERANCE_SECONDS)
        table[name] = {measure: interval.as_dict() for measure, interval in intervals.items()}
    return table


def print_mit_bih(table: dict[str, dict]) -> None:
    print("\n| a(t) | highest peak on an A beat | by chance | A beats at a peak | by chance | peaks per segment |")
    print("|---|---|---|---|---|---|")
    for name, row in table.items():
        cells = [limits(row["highest_on_beat"]), f"{row['highest_on_beat_chance']['estimate']:.3f}"]
        cells += [limits(row["beats_found"]), f"{row['beats_found_chance']['estimate']:.3f}"]
        print(f"| {name} | " + " | ".join(cells) + f" | {row['num_peaks']['estimate']:.1f} |")


def reasons(
    known: list[tuple[EcgRecord, np.ndarray, str]], rule: str = "apc"
) -> tuple[dict[str, int], dict[str, Counter]]:
    """Of the `A` beats: how many are found or missed, and why; and the same by record."""
    extractor = EcgDanFeatureExtractor(**DanetConfig(waveform_module="hard", waveform_rule=rule).signal_contract)
    rate, counts, by_record = extractor.sampling_rate, Counter(), {}
    for record, beats, _ in known:
        signal, mask, _ = extractor.condition(**record.as_inputs())
        peaks = find_r_peaks(signal[mask], rate)
        features = _beat_features(signal[mask], rate, peaks)
        met = _meets_rule(features, WAVEFORM_RULES[rule])
        at = (
            attention_peaks(recorded(extractor(**record.as_inputs())["waveform_weights"][0], extractor, record)[0])
            / rate
        )
        for beat in beats:
            why = reason(beat, at, peaks / rate, features, met, WAVEFORM_RULES[rule])
            counts[why] += 1
            by_record.setdefault(Path(record.source).stem, Counter())[why] += 1
    return dict(counts.most_common()), by_record


def reason(
    beat: float,
    attended: np.ndarray,
    r_peaks: np.ndarray,
    features: dict[str, np.ndarray],
    met: np.ndarray,
    rule: dict,
) -> str:
    near = np.abs(r_peaks - beat) <= TOLERANCE_SECONDS
    found = (np.abs(attended - beat) <= TOLERANCE_SECONDS + 1e-9).any()
    if not near.any():
        return "found, without R peak" if found else "missed: no R peak"
    index = int(np.abs(r_peaks - beat).argmin())
    if met[index]:
        early = attended[(attended < beat) & (attended > beat - 0.4)]
        return (
            "found, rule met"
            if found
            else f"missed: rule met, a(t) peaks {'too early' if len(early) else 'elsewhere'}"
        )
    if np.isnan(features["rr_ratio"][index]):
        return "found, first beat" if found else "missed: first beat, RR unknown"
    broken = [
        name
        for name, limits in rule["beat"].items()
        if not limits.get("above", -np.inf)
        < np.nan_to_num(features[name][index], nan=0.9)
        < limits.get("below", np.inf)
    ]
    return f"{'found' if found else 'missed'}, rule not met: {'+'.join(broken)}"


def limits(interval: dict) -> str:
    return f"{interval['estimate']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ludb", type=Path)
    parser.add_argument("--mit-bih", type=Path)
    parser.add_argument("--checkpoint", action="append", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    attentions = {name: of_rule(name) for name in WAVEFORM_RULES} | {
        Path(checkpoint).name: of_checkpoint(checkpoint) for checkpoint in options.checkpoint
    }
    results = {}
    if options.ludb:
        results["ludb"] = ludb(options.ludb, attentions)
        print_ludb(results["ludb"])
    if options.mit_bih:
        known = list(segments(options.mit_bih))
        results["mit_bih"] = mit_bih(known, attentions)
        print(f"\n{len(known)} segments, {sum(len(beats) for _, beats, _ in known)} A beats")
        print_mit_bih(results["mit_bih"])
        results["reasons"], by_record = reasons(known)
        print("\n" + "\n".join(f"{count:5d} {why}" for why, count in results["reasons"].items()))
        for record, counts in by_record.items():
            print(record, dict(counts))
    if options.out:
        options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
