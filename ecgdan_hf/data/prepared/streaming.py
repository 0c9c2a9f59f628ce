"""Records prepared on access, as an `IterableDataset`; nothing is written.

A stream consists of small chunks of records, which `datasets` distributes to processes, nodes and `DataLoader`
workers, and shuffles; a stream resumed from its `state_dict` continues at a chunk.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, IterableDataset

from ecgdan_hf.data.prepared.preparation import Preparation
from ecgdan_hf.data.prepared.record_file import RecordFile

logger = logging.getLogger(__name__)

CHUNK_RECORDS = 16  # at most; a resumed stream reads fewer records than this twice
# the number of chunks is a multiple of the first of these that is not larger, so that 64 processes share a large
# source evenly; otherwise `datasets` lets each process prepare every record and keep its share
EVEN_CHUNKS = (960, 48, 1)


def stream(sources: Sequence[RecordFile], metadata: Dataset, preparation: Preparation) -> IterableDataset:
    """Rows of all records with their metadata (labels, outcomes); with `skip_bad` bad records are logged."""
    types = {name: kind for name, kind in preparation.features.items() if name != "error"}
    files = pa.table(  # not a million objects, which would be hashed and pickled one by one
        {
            "file": [source.file for source in sources],
            "options": [json.dumps(source.options) for source in sources],
        }
    )
    return IterableDataset.from_generator(
        _examples,
        features=Features({**metadata.features, **types}),
        gen_kwargs={
            "chunks": _chunks(len(sources)),  # `datasets` distributes lists
            "files": files,
            "metadata": metadata,
            "preparation": preparation,
        },
    )


def _chunks(records: int) -> list[tuple[int, int]]:
    """First row (inclusive) and last row (exclusive) of each chunk; all have almost the same size."""
    number = -(-records // CHUNK_RECORDS)
    even = next(even for even in EVEN_CHUNKS if even <= number)
    number = -(-number // even) * even
    return list(pairwise(i * records // number for i in range(number + 1)))


def _examples(
    chunks: list[tuple[int, int]], files: pa.Table, metadata: Dataset, preparation: Preparation
) -> Iterator[dict[str, Any]]:
    for start, stop in chunks:
        rows = metadata.select(range(start, stop))
        sources = [RecordFile(row["file"], json.loads(row["options"])) for row in files[start:stop].to_pylist()]
        for row, example in zip(rows, preparation.examples(sources), strict=True):
            error = example.pop("error")
            if error:
                logger.warning("left out: %s", error)
            else:
                yield {**row, **example}
