"""How well ECG measurements agree with hand marks (LUDB) and with cardiologists' statements (PTB-XL).

python tests/benchmarks/bench_measurements.py --ludb ../shared/data/ludb --ptb-xl ../shared/data/ptb-xl \
    [--neurokit] [--cache-dir runs/measurements] [--num-proc 1]

LUDB: median absolute error of the package's delineation of the median beat, and with `--neurokit` of neurokit2's
wavelets on the recording (median over I, II, V2, V5 and over beats) and on the repeated median beat, against the hand
marks: their median over leads, and their envelope (second earliest onset to second latest end of twelve leads).
Records 1-50 chose the constants, records 51-100 judge. PTB-XL: AUROC of measurements for the statements they ought to
tell, sensitivity and specificity of the flags, C-indices on simulated outcomes, and the time it all takes.
"""

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import neurokit2 as nk
import numpy as np
import pandas as pd
import wfdb
from sklearn.metrics import roc_auc_score

from ecgdan_hf.data.formats import read
from ecgdan_hf.data.measure.delineated_ecg import HIGHPASS_HZ
from ecgdan_hf.data.measure.delineation import BEAT_SAMPLES, RATE_HZ
from ecgdan_hf.data.measure.measurements import flags, measure
from ecgdan_hf.data.measure.table import measure_table
from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.data.simulate import plasmode
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.evaluation.comparators.comparison import age_sex_scores
from ecgdan_hf.evaluation.comparators.measurement_cox import KINDS, MeasurementCox
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS
from ecgdan_hf.model.filters_ecgdan import apply_filter
from ecgdan_hf.model.median_beat_ecgdan import MedianBeat
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks, heart_rate

INTERVALS = ("p_duration_ms", "pr_ms", "qrs_ms", "qt_ms")
NEUROKIT_LEADS = ("I", "II", "V2", "V5")
BOUNDS = ("p_on", "p_off", "qrs_on", "qrs_off", "t_off")

# measurement, sign (+1: large values tell it), the statements it ought to tell
AUROCS = (
    ("heart_rate_bpm", 1, ("STACH",)),
    ("heart_rate_bpm", -1, ("SBRAD",)),
    ("pr_ms", 1, ("1AVB",)),
    ("qrs_ms", 1, ("CLBBB", "CRBBB")),
    ("qrs_axis_deg", -1, ("LAFB",)),
    ("qrs_axis_deg", 1, ("LPFB",)),
    ("v1_late_mv", 1, ("CRBBB",)),
    ("v1_mean_mv", -1, ("CLBBB",)),
    ("lateral_mean_mv", 1, ("CLBBB",)),
    ("intrinsicoid_ms", 1, ("CLBBB",)),
    ("sokolow_lyon_mv", 1, ("LVH",)),
    ("cornell_mv", 1, ("LVH",)),
    ("chest_peak_to_peak_mv", -1, ("LVOLT",)),
    ("limb_peak_to_peak_mv", -1, ("LVOLT",)),
    ("qtc_fridericia_ms", 1, ("LNGQT",)),
    ("t_lowest_mv", -1, ("INVT", "ISC_", "ISCAL", "ISCAS", "ISCIL", "ISCLA", "ISCIN")),
    ("st_lowest_mv", -1, ("STD_", "INJAL", "INJIL", "INJLA", "INJIN", "INJAS")),  # subendocardial injury
    ("st_highest_mv", 1, ("STE_",)),
    ("qrs_t_angle_deg", 1, ("ISC_", "ISCAL", "ISCAS", "ISCIL", "ISCLA", "ISCIN")),
)
STATED = {
    "long_pr": ("1AVB",),
    "wide_qrs": ("CLBBB", "CRBBB", "IVCD"),
    "long_qt": ("LNGQT",),
    "left_axis": ("LAFB",),
    "rbbb": ("CRBBB",),
    "lbbb": ("CLBBB",),
    "lvh": ("LVH",),
    "low_voltage": ("LVOLT",),
    "st_t_abnormal": ("STD_", "INVT", "ISC_", "ISCAL", "ISCAS", "ISCIL", "ISCLA", "ISCIN", "NST_", "NDT", "DIG"),
}


def marked_beats(record: Path, lead: str) -> pd.DataFrame:
    """One row per marked QRS of a lead: the bounds of it and of the P before and the T after, samples."""
    marks = wfdb.rdann(str(record), lead)
    rows: list[dict[str, float]] = []
    p: dict[str, float] = {}
    for kind, *bounds in _waves(marks.symbol, marks.sample):
        if kind == "p":
            p = dict(zip(("p_on", "p_off"), bounds, strict=True))
        elif kind == "N":
            rows.append({**p, **dict(zip(("qrs_on", "qrs_off"), bounds, strict=True))})
            p = {}
        elif rows:
            rows[-1].setdefault("t_off", bounds[1])
    return pd.DataFrame(rows, columns=list(BOUNDS), dtype=float)


def _waves(symbols: list[str], samples: np.ndarray) -> list[tuple[str, float, float]]:
    found = []
    for i, kind in enumerate(symbols):
        if kind in "pNt":
            onset = float(samples[i - 1]) if i and symbols[i - 1] == "(" else math.nan
            end = float(samples[i + 1]) if symbols[i + 1 : i + 2] == [")"] else math.nan
            found.append((kind, onset, end))
    return found


def intervals(beats: pd.DataFrame) -> pd.Series:
    """Medians over beats of P, PR, QRS, QT (ms); a wave that most beats lack is none."""
    each = pd.DataFrame(
        {
            "p_duration_ms": beats["p_off"] - beats["p_on"],
            "pr_ms": beats["qrs_on"] - beats["p_on"],
            "qrs_ms": beats["qrs_off"] - beats["qrs_on"],
            "qt_ms": beats["t_off"] - beats["qrs_on"],
        }
    ) * (1000 / RATE_HZ)
    return each.median().where(each.notna().mean() > 0.5)


def reference(record: Path) -> tuple[pd.Series, pd.Series, float]:
    """Hand-marked intervals: median over leads, envelope of leads; and the heart rate."""
    leads = [marked_beats(record, lead.lower()) for lead in STANDARD_LEADS]
    per_lead = pd.DataFrame([intervals(beats) for beats in leads])
    rate = np.nanmedian([60 * RATE_HZ / beats["qrs_on"].diff().median() for beats in leads if len(beats) > 2])
    middle = per_lead.median().where(per_lead.notna().mean() > 0.5)
    return middle, intervals(_envelope(leads)), float(rate)


def _envelope(leads: list[pd.DataFrame]) -> pd.DataFrame:
    rows = []
    for onset in leads[1]["qrs_on"].dropna():
        near = [beats.loc[(beats["qrs_on"] - onset).abs() < 60] for beats in leads]
        joined = pd.concat([beats.iloc[:1] for beats in near])
        ordered = {name: np.sort(joined[name].dropna()) for name in BOUNDS}
        rows.append(
            {
                name: (values[1] if name.endswith("on") else values[-2]) if len(values) >= 6 else math.nan
                for name, values in ordered.items()
            }
        )
    return pd.DataFrame(rows, columns=list(BOUNDS))


def neurokit_recording(record: EcgRecord) -> dict[str, float]:
    """neurokit2's wavelet delineation of four leads of the recording."""
    signal = apply_filter(record.signal_mv.astype(float), record.sampling_rate, HIGHPASS_HZ)
    peaks = find_r_peaks(signal, record.sampling_rate)
    names = [lead.upper() for lead in record.lead_names]
    rows = [_neurokit(signal[names.index(lead)], peaks) for lead in NEUROKIT_LEADS]
    return dict(pd.DataFrame(rows, columns=list(INTERVALS)).median())


def neurokit_median_beat(record: EcgRecord) -> dict[str, float]:
    """The same of the median beat of each of the twelve leads, repeated seven times at the heart rate."""
    signal = apply_filter(record.signal_mv.astype(float), record.sampling_rate, HIGHPASS_HZ)
    peaks = find_r_peaks(signal, RATE_HZ)
    rr = round(60 * RATE_HZ / heart_rate(peaks, signal.shape[1], RATE_HZ))
    beat = np.nan_to_num(MedianBeat.of(signal, peaks, RATE_HZ, BEAT_SAMPLES).signal_mv)
    before = min(240, round(0.4 * rr))
    one = beat[:, 240 - before : 240 - before + rr]
    one = np.pad(one, ((0, 0), (0, rr - one.shape[1])), mode="edge")
    rows = [_neurokit(np.tile(lead, 7), before + rr * np.arange(7)) for lead in one]
    return dict(pd.DataFrame(rows, columns=list(INTERVALS)).median())


def _neurokit(lead_mv: np.ndarray, peaks: np.ndarray) -> dict[str, float]:
    try:
        cleaned = nk.ecg_clean(lead_mv, sampling_rate=RATE_HZ)
        _, found = nk.ecg_delineate(cleaned, peaks, sampling_rate=RATE_HZ, method="dwt")
    except Exception:  # what neurokit2 raises on a lead it cannot delineate varies
        return {}
    names = ("ECG_P_Onsets", "ECG_P_Offsets", "ECG_R_Onsets", "ECG_R_Offsets", "ECG_T_Offsets")
    bounds = pd.DataFrame({bound: np.asarray(found[name], float) for bound, name in zip(BOUNDS, names, strict=True)})
    return dict(intervals(bounds))


def ludb(folder: Path, with_neurokit: bool) -> None:
    """Prints the errors on the hand marks."""
    methods: dict[str, Callable[[EcgRecord], dict[str, float]]] = {"median beat": measure}
    if with_neurokit:
        methods |= {"neurokit2, recording": neurokit_recording, "neurokit2, median beat": neurokit_median_beat}
    records = [folder / "data" / str(number) for number in range(1, 101)]
    marked = [reference(record) for record in records]
    for name, method in methods.items():
        started = time.perf_counter()
        found = [method(read(f"{record}.hea")) for record in records]
        print(f"\nLUDB, {name}: {(time.perf_counter() - started) / len(records):.2f} s per record")
        for part, rows in (("records 1-50, tuned on", range(50)), ("records 51-100, held out", range(50, 100))):
            print(f"{part}: median absolute error (median error), ms")
            for interval in INTERVALS:
                print(f"  {interval:14s} {_errors(found, marked, rows, interval)}")
        if name == "median beat":
            rates = [abs(one["heart_rate_bpm"] - rate) for one, (_, _, rate) in zip(found, marked, strict=True)]
            print(f"  heart rate: median error {np.median(rates):.2f}, largest {max(rates):.1f} beats per minute")
            _print_p_waves(found, marked)


def _errors(found: list[dict[str, float]], marked: list, rows: range, interval: str) -> str:
    texts = []
    for which, name in enumerate(("median of leads", "envelope of leads")):
        errors = np.array([found[i].get(interval, math.nan) - marked[i][which][interval] for i in rows])
        absolute = np.abs(errors)
        spread = f"90 % below {np.nanpercentile(absolute, 90):.0f}"
        texts.append(
            f"{name}: {np.nanmedian(absolute):5.1f} ({np.nanmedian(errors):+5.1f}; {spread}; "
            f"n {np.isfinite(errors).sum()})"
        )
    return "   ".join(texts)


def _print_p_waves(found: list[dict[str, float]], marked: list) -> None:
    seen = np.isfinite([one["pr_ms"] for one in found])
    there = np.isfinite([middle["pr_ms"] for middle, _, _ in marked])
    print(
        f"  P waves: {(seen & there).sum()} of {there.sum()} found, "
        f"{(seen & ~there).sum()} of {(~there).sum()} made up"
    )


def ptbxl(folder: Path, cache_dir: Path | None, num_proc: int) -> None:
    """Prints how measurements and flags agree with the statements."""
    started = time.perf_counter()
    source = read_source("ptb-xl", folder)
    table = measure_table(source, cache_dir=cache_dir, num_proc=num_proc)
    print(f"\nPTB-XL: {len(table)} records in {time.perf_counter() - started:.0f} s with {num_proc} process(es)")
    print(f"not measurable: {(table['error'] != '').sum()}")
    codes = source["scp_codes"].map(lambda text: {code for code, stated in json.loads(text).items() if stated != 0})
    any_codes = source["scp_codes"].map(lambda text: set(json.loads(text)))
    normal = codes.map(lambda found: "NORM" in found).to_numpy()
    columns = [name for name in table if pd.api.types.is_float_dtype(table[name])]
    print("\nnormal records:")
    print(table.loc[normal, columns].describe(percentiles=[0.025, 0.5, 0.975]).T.round(2).to_string())
    _print_aurocs(table, any_codes)
    _print_flags(table, any_codes, normal)
    _print_simulated_risk(table, source)
    without_p = table["pr_ms"].isna().to_numpy()
    fibrillating = any_codes.map(lambda found: bool(found & {"AFIB", "AFLT"})).to_numpy()
    print(
        f"\nno P wave: {without_p[fibrillating].mean():.3f} of fibrillation or flutter, "
        f"{without_p[normal].mean():.3f} of normal"
    )


def _print_simulated_risk(table: pd.DataFrame, source: pd.DataFrame) -> None:
    """C-index on folds 7-9 of models fitted on folds 1-6; outcomes are simulated from age, sex and the statements."""
    outcomes = plasmode.simulate(source, seed=0)
    joined = table.drop(columns="patient_id").merge(outcomes, on="record_id").assign(fold=source["fold"].to_numpy())
    train, test = (joined[mask].reset_index(drop=True) for mask in (joined["fold"] <= 6, joined["fold"] > 6))
    scores = {"age and sex": age_sex_scores(train, test), "the true hazard": test["log_hazard"].to_numpy()}
    for kind in KINDS:
        for both in (False, True):
            scores[f"{kind}{', age, sex' if both else ''}"] = MeasurementCox.fit(train, kind, both).log_hazard(test)
    print(f"\nsimulated outcomes, {int(test['event'].sum())} events among {len(test)} test records, C-index:")
    for name, log_hazard in scores.items():
        print(f"  {name:18s} {concordance_index(test['event'], test['time'], log_hazard):.3f}")


def _print_aurocs(table: pd.DataFrame, codes: pd.Series) -> None:
    print("\nAUROC against all other records:")
    for name, sign, statements in AUROCS:
        stated = codes.map(lambda found, wanted=set(statements): bool(found & wanted)).to_numpy()
        known = table[name].notna().to_numpy()
        if stated[known].any():
            auroc = roc_auc_score(stated[known], sign * table[name][known])
            print(
                f"  {name:22s} {'high' if sign > 0 else 'low':4s} {'/'.join(statements)[:40]:40s} "
                f"n {stated[known].sum():4d}  {auroc:.3f}"
            )


def _print_flags(table: pd.DataFrame, codes: pd.Series, normal: np.ndarray) -> None:
    found = flags(table)
    print("\nflags: share of records, share of normal records, sensitivity and specificity for statements")
    for name in found.columns[1:]:
        raised = found[name]
        text = f"  {name:22s} {raised.mean():.3f}  {raised[normal].mean():.3f}"
        if name in STATED:
            stated = codes.map(lambda have, wanted=set(STATED[name]): bool(have & wanted)).to_numpy()
            text += f"  {raised[stated].mean():.2f} {1 - raised[~stated].mean():.3f}"
            text += f"  {'/'.join(STATED[name])} ({stated.sum()})"
        print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ludb", type=Path)
    parser.add_argument("--ptb-xl", type=Path)
    parser.add_argument("--neurokit", action="store_true")
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--num-proc", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.ludb:
        ludb(options.ludb, options.neurokit)
    if options.ptb_xl:
        ptbxl(options.ptb_xl, options.cache_dir, options.num_proc)


if __name__ == "__main__":
    main()
