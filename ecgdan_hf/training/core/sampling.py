"""Which records meet in a training batch.

Every draw is a function of the seed and the epoch, so that a resumed run sees the same batches.
"""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

logger = logging.getLogger(__name__)


class EpochBatchSampler(Sampler[list[int]]):
    """Batches of row numbers in which every row occurs once an epoch.

    Batches differ in size by at most one, so that no batch is too small for batch normalisation. With `event`, each
    batch holds the set's fraction of events, rounded up or down, and at least one, because the Cox loss of a batch
    without events is zero. If there are fewer events than batches, the batches grow, with a warning. `set_epoch` draws
    a new order from the seed; `start_batch` skips batches that a resumed run has seen.

    Args:
        num_rows: number of rows.
        batch_size: largest batch; exceeded by one only where a batch of one would be left over.
        event: (num_rows,), 1 where the event happened; None does not stratify.
        seed: of the order.

    Raises:
        ValueError: no rows, a batch size below one, or `event` of another length.
    """

    def __init__(self, num_rows: int, batch_size: int, event: Sequence[float] | None = None, seed: int = 0):
        if num_rows < 1:
            raise ValueError("training set: expected at least one record, found none")
        if batch_size < 1:
            raise ValueError(f"batch_size: expected one or more, got {batch_size}")
        self.event = np.zeros(num_rows, bool) if event is None else np.asarray(event).astype(bool)
        if len(self.event) != num_rows:
            raise ValueError(f"event: expected {num_rows} values, one per record, got {len(self.event)}")
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        self.epoch, self.start_batch, self.drop_last = 0, 0, False
        wanted = -(-num_rows // batch_size)
        if self.num_batches < min(wanted, num_rows // 2):
            logger.warning(
                "batch_size: %d records a batch would leave some without any of the %d events; using %d",
                batch_size,
                int(self.event.sum()),
                -(-num_rows // self.num_batches),
            )

    @property
    def num_batches(self) -> int:
        """Batches of a whole epoch."""
        most = min(-(-self.num_rows // self.batch_size), self.num_rows // 2)
        return max(1, min(most, int(self.event.sum()) or most))

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches - self.start_batch

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        count = self.num_batches
        sizes = np.full(count, self.num_rows // count) + (np.arange(count) < self.num_rows % count)
        events, others = np.flatnonzero(self.event), np.flatnonzero(~self.event)
        with_event = np.full(count, len(events) // count)
        with_event[rng.permutation(count)[: len(events) % count]] += 1
        event_parts = np.split(rng.permutation(events), np.cumsum(with_event)[:-1])
        other_parts = np.split(rng.permutation(others), np.cumsum(sizes - with_event)[:-1])
        for batch in range(self.start_batch, count):
            yield np.concatenate([event_parts[batch], other_parts[batch]]).tolist()


class DrawnBatchSampler(EpochBatchSampler):
    """Batches of rows drawn with given probabilities, with replacement; as many in an epoch as the rows make.

    Args:
        shares: (num_rows,), how often each row is drawn, up to a factor.
        batch_size: rows of every batch.
        seed: of the draws.

    Raises:
        ValueError: no rows, a batch size below one, or shares of which none is positive.
    """

    def __init__(self, shares: Sequence[float] | np.ndarray, batch_size: int, seed: int = 0):
        super().__init__(len(shares), batch_size, seed=seed)
        total = float(np.sum(shares))
        if not total > 0 or np.min(shares) < 0:
            raise ValueError("shares: expected positive numbers for some rows and negative ones for none")
        self.shares = np.asarray(shares, dtype=float) / total

    @classmethod
    def balanced(
        cls, positive: np.ndarray, patient_ids: Sequence[str], simulated: np.ndarray, batch_size: int, seed: int
    ) -> "DrawnBatchSampler":
        """A sampler that balances kinds of records and patients, as [`_balanced_shares`] describes."""
        return cls(_balanced_shares(positive, patient_ids, simulated), batch_size, seed)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        drawn = rng.choice(self.num_rows, (self.num_batches, self.batch_size), p=self.shares)
        yield from drawn[self.start_batch :].tolist()


def _balanced_shares(positive: np.ndarray, patient_ids: Sequence[str], simulated: np.ndarray) -> np.ndarray:
    """Probabilities of rows that balance kinds of records and patients.

    Half of what is drawn is simulated, where anything is; half of the real records are positive. A patient's positives
    together are drawn in proportion to the root of their number: one with a hundred early beats ten times as often as
    one with one, not a hundred times.

    Args:
        positive: (rows,), true for records with the label.
        patient_ids: of each row.
        simulated: (rows,), true for simulated records, which are drawn alike.

    Returns:
        (rows,), together 1, unless there are no positive or no negative records.
    """
    patients = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)[1].reshape(-1)
    real_share = 0.5 if simulated.any() else 1.0
    shares = np.where(simulated, 0.5 / max(simulated.sum(), 1), 0.0)
    positives, negatives = positive & ~simulated, ~positive & ~simulated
    shares[negatives] = 0.5 * real_share / max(negatives.sum(), 1)
    counts = np.bincount(patients[positives], minlength=patients.max() + 1)
    each = 1 / np.sqrt(np.maximum(counts, 1))  # root of the number, divided among so many
    shares[positives] = 0.5 * real_share * each[patients[positives]] / np.sqrt(counts).sum()
    return shares
