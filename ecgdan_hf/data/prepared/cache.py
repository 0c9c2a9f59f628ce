"""Cache of prepared records in Arrow: built once, in parallel, and identified by a fingerprint.

A build is a folder of shards. Each shard is written whole or not at all, so that an interrupted build resumes and is
never mistaken for a complete one. It ends with a digest, so that a damaged one is noticed and made again. Shards are
written a few records at a time and memory-mapped when read, so memory does not grow with the number of records.
"""

import ast
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, concatenate_datasets
from datasets import config as datasets_config
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock

from ecgdan_hf.data.prepared.preparation import Preparation
from ecgdan_hf.data.prepared.record_file import RecordFile, UnreadableRecordError
from ecgdan_hf.data.prepared.shards import write_shards
from ecgdan_hf.digests import is_sealed, seal
from ecgdan_hf.model.configuration_ecgdan import ECGDAN_VERSION

logger = logging.getLogger(__name__)

MIN_SHARD_RECORDS = 16
MAX_SHARD_RECORDS = 1024  # 50 MB of prepared rhythm records
USUAL_SHARDS = 128  # in between: enough for a progress bar and many processes
WRITER_BATCH_RECORDS = 32  # what a process holds before it writes; 12 leads x 10 s x 500 Hz are 240 kB each
MAX_LISTED_ERRORS = 20
_PACKAGE = Path(__file__).parents[2]


def prepare_all(
    sources: Sequence[RecordFile], preparation: Preparation, num_proc: int | None, cache_dir: str | Path | None
) -> Dataset:
    """Returns the rows of all records, in order, memory-mapped from Arrow; builds what the cache lacks.

    `cache_dir` defaults to the cache folder of `datasets`, `num_proc` to one process for each core.

    Raises:
        UnreadableRecordError: a record cannot be used (without `skip_bad`), or none can.
    """
    name = f"ecgdan-{fingerprint(sources, preparation)}"
    features = Features(preparation.features)
    prepared = made_once(name, sources, preparation.examples, features, num_proc, cache_dir, "Preparing ECGs")
    _report_bad([error for error in prepared.data["error"].to_pylist() if error], len(sources), preparation.skip_bad)
    return prepared


def made_once(
    name: str,
    items: Sequence[Any],
    examples: Callable[[Sequence[Any]], Iterator[dict[str, Any]]],
    features: Features,
    num_proc: int | None,
    cache_dir: str | Path | None,
    job: str,
) -> Dataset:
    """Returns one row per item, in order, memory-mapped from Arrow; builds what the cache lacks.

    `name` is the build's folder, which whatever changes the rows must change. `examples` makes the rows (typed by
    `features`) of some items; with several processes it must be picklable. `job` titles the progress bar.
    """
    folder = Path(cache_dir if cache_dir is not None else datasets_config.HF_DATASETS_CACHE) / name
    shards = _shards(len(items))
    files = [folder / f"{i:05d}-of-{len(shards):05d}.arrow" for i in range(len(shards))]
    if not all(map(is_sealed, files)):  # a finished build may be in a read-only folder
        write = partial(_write_arrow, examples, features)
        _build([items[rows.start : rows.stop] for rows in shards], files, write, num_proc, job)
    return concatenate_datasets([Dataset.from_file(str(file)) for file in files])


def _build(
    parts: Sequence[Sequence[Any]],
    files: Sequence[Path],
    write: Callable[[Any, Path], None],
    num_proc: int | None,
    job: str,
) -> None:
    """Writes the missing and the damaged shards of one folder."""
    folder = files[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # another process may run the same build
        for stray in set(folder.iterdir()) - set(files):
            stray.unlink()
        for file in files:
            if file.is_file() and not is_sealed(file):
                logger.warning("%s: expected the rows that were written, found a damaged file; making it again", file)
                file.unlink()
        write_shards(write, parts, files, num_proc, job)


def _shards(records: int) -> list[range]:
    """Rows of each shard; depends only on the number of records, so that a build can resume with other settings."""
    size = min(max(-(-records // USUAL_SHARDS), MIN_SHARD_RECORDS), MAX_SHARD_RECORDS)
    return [range(start, min(start + size, records)) for start in range(0, records, size)]


def _write_arrow(
    examples: Callable[[Sequence[Any]], Iterator[dict[str, Any]]], features: Features, items: Sequence[Any], file: Path
) -> None:
    with ArrowWriter(features=features, path=str(file), writer_batch_size=WRITER_BATCH_RECORDS) as writer:
        for example in examples(items):
            writer.write(features.encode_example(example))
        writer.finalize()
    seal(file)


def fingerprint(sources: Sequence[RecordFile], preparation: Preparation) -> str:
    """Key that changes with the records, sizes and times of their files, the feature extractor, and the code."""
    digest = hashlib.sha256(f"{ECGDAN_VERSION} {code_digest(Preparation.__module__)}".encode())
    extractor = preparation.feature_extractor
    settings = list(preparation.lead_names) if extractor is None else extractor.to_dict()
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    as_text = json.JSONEncoder(sort_keys=True).encode
    for source in sources:
        digest.update(as_text([source.file, source.options]).encode())
    medians = (source.options.get("median_file") for source in sources)
    for stamp in _file_stamps({file for file in chain((source.file for source in sources), medians) if file}):
        digest.update(stamp.encode())
    return digest.hexdigest()[:32]


def _file_stamps(files: set[str]) -> Iterator[str]:
    """Name, size and time of every file that may belong to a record: `STEM.hea`, `STEM.dat`, `STEM_1.dat`...

    Each folder is listed once, and only files of records are statted; paths stay text, as there may be a million
    folders.
    """
    wanted: dict[str, set[str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        wanted.setdefault(folder, set()).add(_stem(name))
    for folder in sorted(wanted):
        try:
            entries = os.scandir(folder or ".")
        except (FileNotFoundError, NotADirectoryError):  # reported when the record is read
            continue
        with entries:
            mine = [(entry.name, entry.stat()) for entry in entries if _stem(entry.name) in wanted[folder]]
        yield f"{folder}{sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in mine)}"


def _stem(name: str) -> str:
    head, _, tail = name.split(".")[0].rpartition("_")
    return head if head and tail.isdigit() else name.split(".")[0]


def _report_bad(errors: list[str], total: int, skip_bad: bool) -> None:
    """Logs the records left out; raises without `skip_bad`, as the build may come from a run with it."""
    if errors and not skip_bad:
        raise UnreadableRecordError(errors[0])
    if total and len(errors) == total:
        raise UnreadableRecordError(f"none of {total} records can be used; the first: {errors[0]}")
    if errors:
        shown = "".join(f"\n  {error}" for error in errors[:MAX_LISTED_ERRORS])
        more = "\n  ..." if len(errors) > MAX_LISTED_ERRORS else ""
        logger.warning("%d of %d records cannot be used and are left out:%s%s", len(errors), total, shown, more)


@cache
def code_digest(module: str, package: Path = _PACKAGE) -> str:
    """Digest of the source code of a module (full name) and of all it imports from the package.

    The package's own `__init__` is left out, as it only lists public names.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_reachable(module, package).items()):
        digest.update(name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _reachable(module: str, package: Path) -> dict[str, Path]:
    """The files, by name, of a module and of all it imports from the package, directly or not."""
    files: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file(name, package)
        if name in files or file is None:
            continue
        files[name] = file
        waiting += [*_imports(name, file), name.rpartition(".")[0]]
    return files


def _file(name: str, package: Path) -> Path | None:
    """The file of a module below the package; None for anything else, including the package itself."""
    first, *parts = name.split(".")
    if first != package.name or not parts:
        return None
    place = package.joinpath(*parts)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _imports(name: str, file: Path) -> tuple[str, ...]:
    """The names that a module imports; for `from a import b` both `a` and `a.b`, which may be a module."""
    parents = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    return _imported(tuple(parents), file.read_bytes())


@cache
def _imported(parents: tuple[str, ...], code: bytes) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(found)
