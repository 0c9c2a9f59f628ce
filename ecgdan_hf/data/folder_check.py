"""What a folder holds and what is wrong with it, before hours of training find out."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ecgdan_hf.data.preparation import CHUNK_RECORDS, Preparation, num_processes
from ecgdan_hf.data.record_file import RecordFile, record_files
from ecgdan_hf.data.sources import detect_source, read_table
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor


def check(
    name: str | None, data_dir: str | Path, limit: int | None = None, num_proc: int | None = None
) -> dict[str, Any]:
    """Reads every record of a folder and counts what is there and what is wrong, before hours of training do.

    Args:
        name: a source of `load`; None finds out by the files.
        data_dir: its folder.
        limit: reads the first so many records only.
        num_proc: processes; default one for each core.

    Returns:
        `source`; the numbers `records`, `patients`, `events`, `age_missing` and `sex_missing`; counts by value of
        `folds`, `labels`, `sampling_rates` (Hz), `leads`, `durations_seconds` and `flags` (of the median beat's
        feature extractor, without details); and `unreadable`: one line for each record that cannot be used.

    Raises:
        FileNotFoundError: as `read_table`.
        ValueError: as `read_table`.
    """
    source = name or detect_source(data_dir)
    table = read_table(source, data_dir).iloc[:limit]
    sources = record_files(table)
    with ProcessPoolExecutor(num_processes(len(sources), num_proc)) as pool:
        found = list(tqdm(pool.map(_inspect, sources, chunksize=CHUNK_RECORDS), "Checking records", len(sources)))
    good = [facts for facts in found if "error" not in facts]
    labels = table["labels"].explode().dropna() if "labels" in table else ()
    return {
        "source": source,
        "records": len(table),
        "patients": int(table["patient_id"].nunique()),
        "events": int(table["event"].sum()) if "event" in table else None,
        "age_missing": int(table["age"].isna().sum()) if "age" in table else len(table),
        "sex_missing": int(table["sex"].isna().sum()) if "sex" in table else len(table),
        "folds": _counts(sorted(table["fold"]) if "fold" in table else (), by_size=False),
        "labels": _counts(labels),
        "sampling_rates": _counts(facts["sampling_rate"] for facts in good),
        "leads": _counts(facts["leads"] for facts in good),
        "durations_seconds": _counts(facts["duration_seconds"] for facts in good),
        "flags": _counts(flag for facts in good for flag in facts["flags"]),
        "unreadable": [facts["error"] for facts in found if "error" in facts],
    }


def _inspect(source: RecordFile) -> dict[str, Any]:
    preparation = Preparation(EcgDanFeatureExtractor(**EcgDanConfig().signal_contract))
    try:
        record = source.read()
        flags = preparation.prepare(record)["flags"]
    except (OSError, ValueError) as error:
        return {"error": source.line(error)}
    return {
        "sampling_rate": f"{record.sampling_rate:g}",
        "leads": ", ".join(record.lead_names),
        "duration_seconds": f"{record.duration_seconds:g}",
        "flags": [flag.split(":")[0] for flag in flags],
    }


def _counts(values: Iterable[Any], by_size: bool = True) -> dict[str, int]:
    counter = Counter(str(value) for value in values)
    return dict(counter.most_common() if by_size else counter.items())
