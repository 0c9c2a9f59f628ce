"""Records prepared when they are asked for, as an `IterableDataset`; nothing is written.

A stream is made of small chunks of records. They are what `datasets` shares out among processes, nodes and the workers
of a `DataLoader`, what it shuffles, and where a stream resumed from its `state_dict` goes on.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from datasets import Dataset, Features, IterableDataset

from ecgdan_hf.data.preparation import Preparation
from ecgdan_hf.data.record_file import RecordFile

logger = logging.getLogger(__name__)

CHUNK_RECORDS = 16  # a resumed stream reads less than this many records twice


def stream(sources: Sequence[RecordFile], metadata: Dataset, preparation: Preparation) -> IterableDataset:
    """Rows of all records beside their metadata.

    Args:
        sources: one for each row of `metadata`.
        metadata: labels, outcomes and the like.
        preparation: how records become rows; with `skip_bad` each bad record is logged where it is met.
    """
    types = {name: kind for name, kind in preparation.features.items() if name != "error"}
    starts = range(0, len(sources), CHUNK_RECORDS)
    return IterableDataset.from_generator(
        _examples,
        features=Features({**metadata.features, **types}),
        gen_kwargs={
            "starts": list(starts),  # lists are what is shared out
            "chunks": [list(sources[start : start + CHUNK_RECORDS]) for start in starts],
            "metadata": metadata,
            "preparation": preparation,
        },
    )


def _examples(
    starts: list[int], chunks: list[list[RecordFile]], metadata: Dataset, preparation: Preparation
) -> Iterator[dict[str, Any]]:
    for start, sources in zip(starts, chunks, strict=True):
        rows = metadata.select(range(start, start + len(sources)))
        for row, example in zip(rows, preparation.examples(sources), strict=True):
            error = example.pop("error")
            if error:
                logger.warning("left out: %s", error)
            else:
                yield {**row, **example}
