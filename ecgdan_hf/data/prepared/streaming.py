"""Records prepared when they are asked for, as an `IterableDataset`; nothing is written.

A stream is made of small chunks of records. They are what `datasets` shares out among processes, nodes and the workers
of a `DataLoader`, what it shuffles, and where a stream resumed from its `state_dict` goes on.
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

CHUNK_RECORDS = 16  # at most; a resumed stream reads less than this many records twice
# numbers of chunks are multiples of the first that is no larger: 64 processes then share a large source out chunk by
# chunk; where chunks do not divide by processes, `datasets` lets each prepare every record and keep its share
EVEN_CHUNKS = (960, 48, 1)


def stream(sources: Sequence[RecordFile], metadata: Dataset, preparation: Preparation) -> IterableDataset:
    """Rows of all records beside their metadata.

    Args:
        sources: one for each row of `metadata`.
        metadata: labels, outcomes and the like.
        preparation: how records become rows; with `skip_bad` each bad record is logged where it is met.
    """
    types = {name: kind for name, kind in preparation.features.items() if name != "error"}
    files = pa.table(  # not a million objects, which would be hashed and sent to each worker one by one
        {
            "file": [source.file for source in sources],
            "options": [json.dumps(source.options) for source in sources],
        }
    )
    return IterableDataset.from_generator(
        _examples,
        features=Features({**metadata.features, **types}),
        gen_kwargs={
            "chunks": _chunks(len(sources)),  # a list is what is shared out
            "files": files,
            "metadata": metadata,
            "preparation": preparation,
        },
    )


def _chunks(records: int) -> list[tuple[int, int]]:
    """First and last row, the latter excluded, of each chunk; all are of almost the same size."""
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
