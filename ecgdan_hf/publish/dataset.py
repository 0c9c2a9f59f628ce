"""Converts a source into a folder of Parquet for the Hub, with a card and without what could identify a patient.

Only columns known to be harmless are written; files, dates and reports are left out. Pseudonyms replace record and
patient ids, and their key is deleted. Ages of 90 and above become 90, as the HIPAA safe-harbour rule requires.
"""

import hashlib
import hmac
import json
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, load_dataset
from huggingface_hub import DatasetCardData

from ecgdan_hf.data.loading import load
from ecgdan_hf.data.prepared.shards import write_shards
from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.files import content_of, locked_file, remove_leftovers, write_text
from ecgdan_hf.publish.card.model_card import PLACEHOLDER_REPOSITORY
from ecgdan_hf.publish.identifiers import check_identifiers
from ecgdan_hf.publish.push import HubRepository

_ARRAYS = ("signal", "input_values")
_SIGNALS = ("signal", "sampling_rate", "lead_names", "input_values", "lead_mask", "flags")
_SAFE_COLUMNS = (
    *("record_id", "patient_id", "age", "sex", "fold", "labels", "scp_codes", "event", "time", "entry"),
    "log_hazard",
    *_SIGNALS,
)
"""Columns that a published dataset may hold, unless its owner names more."""

_QUOTING_FLAGS = ("reader_warning", "not_voltage")  # what stands behind these is text of the file, and may be a date
_OLDEST_YEARS = 90.0
_ROW_GROUP_RECORDS = 64  # 15 MB of signals as recorded: what reading one record decompresses
_SHARD_RECORDS = 2048  # 500 MB of them, which the Hub likes
_STATE = ".conversion.json"
_FINE_TUNING = f"""
```bash
hf download {PLACEHOLDER_REPOSITORY} --repo-type dataset --local-dir ecgs
ecgdan finetune --data parquet --data-dir ecgs --output-dir run
```
"""

_DESCRIPTIONS = {
    "record_id": "name of the record",
    "patient_id": "name of the patient; records of one patient belong in one split",
    "age": "years at the ECG; 90 stands for 90 and above",
    "sex": "male or female",
    "fold": "fold of the source, by patient",
    "labels": "diagnoses of the source",
    "scp_codes": "SCP-ECG statements with their likelihood in percent, JSON",
    "event": "1 if the event happened, 0 if follow-up ended without it",
    "time": "years from the ECG to the event or to the end of follow-up",
    "entry": "years from the ECG to when the patient came under observation; 0 for most",
    "log_hazard": "what the outcome was simulated from; `event` and `time` are invented",
    "signal": "(samples, leads), millivolt, float32; missing samples are NaN",
    "sampling_rate": "Hz",
    "lead_names": "names of the columns of `signal`",
    "input_values": "(leads, samples), float32, as the network's feature extractor scales it",
    "lead_mask": "(leads,), true where the lead was recorded or derived",
    "flags": "what is poor about the signal",
}


def convert_dataset(
    name: str | None,
    data_dir: str | Path,
    out_dir: str | Path,
    *,
    license_id: str = "other",
    title: str | None = None,
    keep: Sequence[str] = (),
    keep_ids: bool = False,
    num_proc: int | None = None,
    **options: Any,
) -> Path:
    """Converts a source to Parquet; the same call resumes an interrupted conversion.

    Args:
        name: a source of `data.loading.load`; None recognises it from the files.
        data_dir: its folder.
        out_dir: a new or empty folder, or that of an interrupted conversion with the same arguments.
        license_id: of the data, as the Hub spells it: `cc-by-4.0`.
        title: of the card; default the name of the source.
        keep: further columns to write, such as `report`; check them for personal data yourself.
        keep_ids: write record and patient ids as the source has them, for public sources.
        num_proc: processes; default one for each core.
        options: of `load`: outcomes, feature_extractor, sampling_rate, limit, skip_bad...

    Returns:
        The folder: `data/train-*.parquet` and `README.md`.

    Raises:
        FileNotFoundError, ValueError: as `load`, a column to keep that is not there, a folder with other content,
            or one that another conversion is writing.
    """
    out, name = Path(out_dir), find_source(name, data_dir).name
    said = {"name": name, "keep": sorted(keep), "keep_ids": keep_ids, "license": license_id, "title": title}
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked_file(out):
        if out.is_dir():
            remove_leftovers(out)
        if out.exists() and (not out.is_dir() or (content_of(out) and not (out / _STATE).is_file())):
            raise ValueError(
                f"{out}: expected a new or empty folder, or an interrupted conversion, found something else"
            )
        dataset = load(name, data_dir, num_proc=num_proc, **options)
        absent = [column for column in keep if column not in dataset.column_names]
        if absent:
            raise ValueError(f"keep: expected columns of the data, {', '.join(dataset.column_names)}; got {absent[0]}")
        key = _start(out, {**said, "data": _fingerprint(dataset)})
        kept = dataset.select_columns([c for c in dataset.column_names if c in (*_SAFE_COLUMNS, *keep)])
        arrays = [name for name in _ARRAYS if name in kept.column_names]
        about = _harmless(kept.remove_columns(arrays), None if keep_ids else key)
        parts = _parts(len(kept), None if keep_ids else key)
        (out / "data").mkdir(exist_ok=True)
        files = [out / "data" / f"train-{i:05d}-of-{len(parts):05d}.parquet" for i in range(len(parts))]
        write_shards(partial(_write_parquet, about, kept, arrays), parts, files, num_proc, "Writing Parquet")
        for unfinished in set((out / "data").glob("train-*")) - set(files):  # of a run that was killed
            unfinished.unlink()
        card = _dataset_card(about, arrays, title or name, license_id, keep_ids=keep_ids)
        write_text(out / "README.md", card)
        (out / _STATE).unlink()
        return out


def _fingerprint(dataset: Dataset) -> str:
    """Identifies the prepared signals and the records, so that only a conversion of the same data is resumed."""
    digest = hashlib.sha256()
    for file in sorted({Path(file["filename"]).parent.name for file in dataset.cache_files}):
        digest.update(file.encode())
    for column in sorted(set(dataset.column_names) - set(_SIGNALS)):
        digest.update(json.dumps([column, dataset[column][:]], default=str).encode())
    return digest.hexdigest()


def _start(out: Path, said: dict[str, Any]) -> bytes:
    """Returns the key of the pseudonyms: a new one, or that of the interrupted conversion with the same arguments."""
    state = out / _STATE
    if state.is_file():
        try:
            earlier = dict(json.loads(state.read_text(encoding="utf-8")))
        except ValueError:
            raise ValueError(
                f"{state}: expected the state of an interrupted conversion, got no JSON; remove its folder"
            ) from None
        key = earlier.pop("key")
        if earlier != said:
            changed = next(name for name in said if earlier.get(name) != said[name])
            other = "other data or another version" if changed == "data" else f"another {changed}"
            raise ValueError(f"{out}: holds an interrupted conversion with {other}; remove it or name another folder")
        return bytes.fromhex(key)
    key = secrets.token_hex(32)
    write_text(state, json.dumps({**said, "key": key}))  # first: without it a folder with files is not gone on with
    return bytes.fromhex(key)


def _parts(records: int, key: bytes | None) -> list[list[int]]:
    """Returns the row numbers of each file; with a key they are shuffled, because their order may follow the ids."""
    rows = np.arange(records)
    if key is not None:
        rows = np.random.default_rng(list(key)).permutation(records)
    return [rows[start : start + _SHARD_RECORDS].tolist() for start in range(0, records, _SHARD_RECORDS)]


def _harmless(about: Dataset, key: bytes | None) -> Dataset:
    """Replaces ids by pseudonyms where there is a key, and high ages by 90; removes text of the file from flags."""
    columns = {name: about[name][:] for name in about.column_names}
    if key is not None:
        for name in ("record_id", "patient_id"):
            digests = [hmac.new(key, f"{name}:{value}".encode(), hashlib.sha256) for value in columns[name]]
            columns[name] = [name[0] + digest.hexdigest()[:16] for digest in digests]
    if "age" in columns:
        columns["age"] = [None if age is None else min(age, _OLDEST_YEARS) for age in columns["age"]]
    for flags in columns["flags"]:
        names = [flag.partition(":")[0] for flag in flags]
        flags[:] = [name if name in _QUOTING_FLAGS else flag for name, flag in zip(names, flags, strict=True)]
    return Dataset.from_dict(columns, features=about.features)


def _write_parquet(about: Dataset, dataset: Dataset, names: list[str], rows: list[int], file: Path) -> None:
    arrays = dataset.select_columns(names)  # not before: pickled, a table that lost all columns loses its rows too
    schema = Features({**about.features, **arrays.features}).arrow_schema  # carries the types of `datasets` along
    sides = [side.select(rows).with_format("arrow").iter(_ROW_GROUP_RECORDS) for side in (about, arrays)]
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for tables in zip(*sides, strict=True):
            columns = {name: table[name] for table in tables for name in table.column_names}
            writer.write_table(pa.table({name: columns[name] for name in schema.names}).cast(schema))


def _dataset_card(about: Dataset, arrays: Sequence[str], title: str, license_id: str, keep_ids: bool = False) -> str:
    """Says what is in the dataset (`about`, and the arrays of these names), what was left out, and how to load it."""
    sizes = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    data = DatasetCardData(
        license=license_id,
        tags=["ecg", "electrocardiogram", "cardiology", "medical"],
        size_categories=next((name for limit, name in sizes.items() if len(about) < limit), "1M<n<10M"),
        pretty_name=title,
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
    )
    facts = "\n".join(f"| {name} | {value} |" for name, value in _facts(about).items())
    columns = "\n".join(
        f"| `{name}` | {_DESCRIPTIONS.get(name, 'column of the source, kept by its owner')} |"
        for name in [*about.column_names, *arrays]
    )
    ids = "Ids are those of the source." if keep_ids else "Ids are pseudonyms; their key was not kept."
    return f"""---
{data.to_yaml()}
---
# {title}

ECGs in Parquet, one row for each record. For research; not for the care of patients.

| | |
|---|---|
{facts}

## Columns

| column | content |
|---|---|
{columns}

{ids} Ages of 90 and above are 90. File names, dates and reports are left out unless they are named above.

## Use

```python
from datasets import load_dataset

ecgs = load_dataset("{PLACEHOLDER_REPOSITORY}", split="train")
```
{_FINE_TUNING if "signal" in arrays else ""}"""


def _facts(about: Dataset) -> dict[str, str]:
    facts = {"records": f"{len(about):,}", "patients": f"{len(set(about['patient_id'][:])):,}"}
    if "event" in about.column_names:
        simulated = " (simulated)" if "log_hazard" in about.column_names else ""
        facts["events" + simulated] = f"{int((np.asarray(about['event'][:], dtype=float) == 1).sum()):,}"
    if "age" in about.column_names:
        ages = np.asarray([age for age in about["age"][:] if age is not None], dtype=float)
        if len(ages):
            low, middle, high = np.nanquantile(ages, [0.25, 0.5, 0.75])
            facts["age, years"] = f"median {middle:.0f}, quartiles {low:.0f} and {high:.0f}; known of {len(ages):,}"
    if "sex" in about.column_names:
        counts = Counter(sex or "unknown" for sex in about["sex"][:])
        facts["sex"] = ", ".join(f"{sex} {count:,}" for sex, count in counts.most_common())
    if "sampling_rate" in about.column_names:
        rates = Counter(f"{rate:g} Hz" for rate in about["sampling_rate"][:])
        facts["sampling rate"] = ", ".join(f"{rate} ({count:,})" for rate, count in rates.most_common())
        facts["leads"] = ", ".join(about[0]["lead_names"])
    names = getattr(getattr(about.features.get("labels"), "feature", None), "names", None)
    if names:
        counts = Counter(names[label] for labels in about["labels"][:] for label in labels)
        facts["labels"] = ", ".join(f"{name} {counts[name]:,}" for name in names)
    return facts


def push_dataset(folder: str | Path, repo_id: str, private: bool = False, message: str = "Upload dataset") -> str:
    """Uploads a converted dataset after checking that it loads; returns the address of the repository.

    The repository `USER/NAME` is made if it does not exist.

    Raises:
        FileNotFoundError, ValueError: as [`check_converted`], `check_identifiers` and `HubRepository`, or the Hub
            refuses.
    """
    repository, folder = HubRepository(repo_id, "dataset"), Path(folder)
    check_converted(folder)
    check_identifiers(folder)
    card = (folder / "README.md").read_text(encoding="utf-8").replace(PLACEHOLDER_REPOSITORY, repo_id)
    url = repository.make(private)
    with repository.asked():
        options: dict[str, Any] = {"repo_id": repo_id, "repo_type": "dataset", "commit_message": message}
        repository.api.upload_folder(
            folder_path=folder, allow_patterns="data/*.parquet", delete_patterns="data/*", **options
        )
        repository.api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", **options)
    return str(url)


def check_converted(folder: Path) -> int:
    """Loads every row of a converted dataset once; returns their number.

    Raises:
        FileNotFoundError, ValueError: no Parquet, an unfinished conversion, or a damaged file.
    """
    files = sorted(str(file) for file in folder.glob("data/*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder}: expected a dataset made by `ecgdan data convert`, found no data/*.parquet")
    if (folder / _STATE).exists() or not (folder / "README.md").is_file():
        raise ValueError(f"{folder}: the conversion is not finished; run `ecgdan data convert` again")
    work = tempfile.mkdtemp()
    try:
        rows = load_dataset("parquet", data_files=files, split="train", cache_dir=work, streaming=True)
        return sum(len(batch["record_id"]) for batch in rows.select_columns("record_id").iter(1000))
    except Exception as error:  # pyarrow's and the library's errors have no common class
        raise ValueError(f"{folder}: does not load: {' '.join(str(error).split())}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
