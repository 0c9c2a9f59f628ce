"""From the name of a source and a folder to a `datasets.Dataset`.

Only the prepared signals are cached in Arrow; labels, outcomes and covariates are joined in memory, so that another
label level, outcome or choice of folds does not prepare them again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, IterableDataset, List, Value, concatenate_datasets

from ecgdan_hf.data.prepared.cache import prepare_all
from ecgdan_hf.data.prepared.preparation import Preparation
from ecgdan_hf.data.prepared.record_file import READ_HINTS, RecordFile, UnreadableRecordError
from ecgdan_hf.data.prepared.streaming import stream
from ecgdan_hf.data.sources.csv_table import join_outcomes, read_outcomes
from ecgdan_hf.data.sources.hospital_tables import endpoint_pairs
from ecgdan_hf.data.sources.registry import find_source

logger = logging.getLogger(__name__)

FLOAT32_COLUMNS = ("age", "event", "time", "entry")
LIST_COLUMNS = {"labels": pa.int64(), "beat_seconds": pa.float64(), "beat_kinds": pa.string()}


def load(
    name: str | None,
    data_dir: str | Path,
    *,
    outcomes: str | Path | pd.DataFrame | None = None,
    with_outcome: bool = False,
    ecgs_per_patient: str = "all",
    feature_extractor: Any | None = None,
    label_level: str = "superclass",
    keep_labels: Sequence[str] | None = None,
    sampling_rate: int = 500,
    folds: Sequence[int] | None = None,
    limit: int | None = None,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
    streaming: bool = False,
    skip_bad: bool = False,
) -> Dataset | IterableDataset:
    """Loads a source.

    Args:
        name: a source, see `sources.registry`; None recognises it from the files.
        data_dir: its folder; for `"synthetic"`, a missing or empty one is filled first.
        outcomes: CSV or table with `record_id`, `event`, `time` (years), `entry` where it is delayed; records without
            an outcome are left out.
        with_outcome: leaves out records whose `event` or `time` is unknown, as survival needs both.
        ecgs_per_patient: `"all"`, or the `"first"` or `"last"` of each patient's ECGs with a known outcome: that with
            the longest, or the shortest, time to the end of follow-up.
        feature_extractor: prepares the signals; None keeps them as recorded.
        label_level: of PTB-XL: `"superclass"`, `"subclass"` or `"statement"`.
        keep_labels: only these of the source's labels, in this order; records without any of them are kept.
        sampling_rate: of PTB-XL: which of its two versions to read, 500 or 100 Hz.
        folds: keeps these folds only.
        limit: keeps the first so many records.
        num_proc: processes that prepare signals; default one for each core.
        cache_dir: where the Arrow files go; default that of `datasets`.
        streaming: prepares each record on access and writes nothing.
        skip_bad: leaves out unusable records and lists them at the end; otherwise the first is an error.

    Returns:
        The columns of the source's table; `labels` are class numbers that carry their names. With a feature
        extractor: `input_values` (leads, samples) float32, `lead_mask` (leads,), `flags`. Without: `signal` (samples,
        leads) float32 in millivolt, `sampling_rate` (Hz), `lead_names`, `flags`.

    Raises:
        FileNotFoundError: the folder or a part of it is missing.
        ValueError: an unknown source, an unusable table or record, or a requested outcome or label does not exist.
    """
    source = find_source(name, data_dir)
    known = None if outcomes is None else read_outcomes(outcomes)  # before any ECG is looked at
    table = source.read_table(data_dir, sampling_rate=sampling_rate, label_level=label_level)
    if keep_labels is not None:
        table = _with_labels(table, list(dict.fromkeys(keep_labels)))
    if known is not None:
        table = _with_outcomes(table, known, "outcomes" if isinstance(outcomes, pd.DataFrame) else str(outcomes))
    if with_outcome:
        table = _known_outcomes(table, source.name)
    if ecgs_per_patient != "all":
        table = _one_each(table, ecgs_per_patient)
    wanted = _in_folds(table, folds)
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least one record, got {limit}")
    if limit is not None or streaming:  # else all are prepared, so that every choice of folds uses one cache
        table = table.iloc[wanted[:limit]]
        wanted = np.arange(len(table))
    sources = RecordFile.of_table(table)
    leads = _first_lead_names(sources, skip_bad) if feature_extractor is None else ()
    preparation = Preparation(feature_extractor, leads, skip_bad)
    if streaming:
        return stream(sources, _metadata(table), preparation)
    prepared = prepare_all(sources, preparation, num_proc, cache_dir)
    good = np.array([error == "" for error in prepared.data["error"].to_pylist()])
    joined = concatenate_datasets([_metadata(table), prepared.remove_columns("error")], axis=1)
    kept = wanted[good[wanted]]
    return joined if len(kept) == len(joined) else joined.select(kept)


def _first_lead_names(sources: list[RecordFile], skip_bad: bool) -> tuple[str, ...]:
    """Leads of the first readable record; raises UnreadableRecordError if there is none, or without `skip_bad`."""
    for source in sources:
        try:
            return source.read().lead_names
        except (OSError, ValueError) as error:
            if not skip_bad:
                raise UnreadableRecordError(source.line(error)) from error
    raise UnreadableRecordError(f"{sources[0].file}: neither this nor any other of {len(sources)} records can be read")


def _with_outcomes(table: pd.DataFrame, known: pd.DataFrame, source: str) -> pd.DataFrame:
    for line in known.attrs.get("understood", ()):
        if not line.startswith("commas, "):  # which is what a plain CSV has
            logger.warning("%s: %s", source, line)
    joined = join_outcomes(table, known, source)
    left_out = joined.attrs["without_outcome"]
    if left_out:
        logger.warning("%s: %d of %d records have no outcome and are left out", source, left_out, len(table))
    return joined


def _one_each(table: pd.DataFrame, which: str) -> pd.DataFrame:
    """The first or the last ECG of each patient, by its time to the end of follow-up; the rows keep their order."""
    if which not in ("first", "last"):
        raise ValueError(f"ecgs_per_patient: expected all, first or last, got {which}")
    if "time" not in table:
        raise ValueError("ecgs_per_patient: expected an outcome whose time puts the ECGs in order, got none; use all")
    ordered = table[table["time"].notna()].sort_values("time", ascending=which == "last", kind="stable")
    kept = ordered.drop_duplicates("patient_id").index
    return table[table.index.isin(kept)].reset_index(drop=True)


def _with_labels(table: pd.DataFrame, wanted: list[str]) -> pd.DataFrame:
    """The table with only these labels."""
    names = _label_names(table) if "labels" in table else []
    unknown = [label for label in wanted if label not in names]
    if unknown or not wanted:
        raise ValueError(
            f"labels: expected some of {', '.join(names) or 'none, the data have no labels'}, got "
            f"{', '.join(unknown) or 'none'}; choose among them, or another label_level of ptb-xl"
        )
    labels = [[label for label in wanted if label in present] for present in table["labels"]]
    kept = table.assign(labels=pd.Series(labels, index=table.index, dtype=object))
    kept.attrs["label_names"] = wanted
    return kept


def _label_names(table: pd.DataFrame) -> list[str]:
    """All labels of a table: those declared by its source, else those that occur."""
    return list(table.attrs.get("label_names") or sorted({label for labels in table["labels"] for label in labels}))


def _known_outcomes(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The records with event and time, or with those of some endpoint."""
    if "event" not in table and (pairs := endpoint_pairs(table)):
        return table[table[[f"event_{name}" for name in pairs]].notna().any(axis=1)].reset_index(drop=True)
    if "event" not in table or "time" not in table:
        raise ValueError(f"outcomes: {name} has no event and time of its own here; give a table of them (--labels)")
    known = table["event"].notna() & table["time"].notna()
    if not known.any():
        raise ValueError(f"outcomes: none of {len(table)} records of {name} has event and time; give a table of them")
    if not known.all():
        logger.warning("%s: %d of %d records have no follow-up and are left out", name, (~known).sum(), len(table))
    return table[known].reset_index(drop=True)


def _in_folds(table: pd.DataFrame, folds: Sequence[int] | None) -> np.ndarray:
    """Row numbers of the folds."""
    if folds is None:
        return np.arange(len(table))
    if "fold" not in table:
        raise ValueError(f"folds: expected a source with folds, got columns {', '.join(table.columns)}")
    wanted = np.flatnonzero(table["fold"].isin(list(folds)))
    if not len(wanted):
        here = ", ".join(str(fold) for fold in sorted(table["fold"].unique()))
        raise ValueError(f"folds: no record in folds {list(folds)}; folds here: {here}")
    return wanted


def _metadata(table: pd.DataFrame) -> Dataset:
    """The columns of the table, with types; labels as class numbers."""
    features, columns = {}, {}
    for name in table.columns.drop(list(READ_HINTS), errors="ignore"):
        values = table[name]
        if name == "labels":
            names = _label_names(table)
            if not names:
                continue  # a column without any label is none
            features[name] = List(ClassLabel(names=names))
            number = {label: i for i, label in enumerate(names)}
            values = values.map(lambda labels, number=number: [number[label] for label in labels])
        elif name in LIST_COLUMNS:
            features[name] = List(Value("string" if name == "beat_kinds" else "float64"))
        elif pd.api.types.is_numeric_dtype(values):
            whole = "int64" if pd.api.types.is_integer_dtype(values) else "float64"
            features[name] = Value("float32" if name in FLOAT32_COLUMNS else whole)
        else:
            features[name] = Value("string")
            values = values.astype(object).where(values.notna(), None).map(lambda v: v if v is None else str(v))
        # as Arrow, because `datasets` encodes plain lists value by value: seconds for 300,000 records
        columns[name] = pa.array(values.tolist(), pa.list_(LIST_COLUMNS[name]) if name in LIST_COLUMNS else None)
    return Dataset.from_dict(columns, features=Features(features))
