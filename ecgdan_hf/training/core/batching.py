"""From rows to batches: which records meet, which leads are hidden, and how the signal is varied.

Every random draw is a function of the seed, the epoch and the records, never of a global generator: a resumed run,
or one with more worker processes, sees the same batches with the same masks.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from datasets import Array2D
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ecgdan_hf.data.prepared.mapped_memory import MappedArrays
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.training.arguments.fields import TrainingArguments
from ecgdan_hf.training.core.statement_alignment import TextList

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor]

LEAD_SUBSETS: tuple[tuple[float, tuple[str, ...] | None], ...] = (
    (0.1, ("I", "II")),
    (0.1, ("I", "II", "V2")),
    (0.1, ("I", "II", "III", "V2")),
    (0.1, ("I", "II", "III", "aVR", "aVL", "aVF")),
    (0.1, ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")),
    (0.5, None),
)
"""Lead sets of devices in use, with their probabilities (arXiv 2403.10581); None keeps every lead."""

STATEMENT_WEIGHTS = "statement_weights"
_SPANS = 3
_SPAN_SHARE = 0.1
"""Hidden stretches of time in a record that gets any, and the share of the signal each of them covers."""


class NumberedRows(Dataset[dict[str, Any]]):
    """A `datasets.Dataset` whose rows carry their number, so that the collator can look things up by it.

    Only `columns` are read. Signals are not copied: a row's `input_values` is a view of the mapped Arrow file, which
    the collator copies once, into the batch.
    """

    def __init__(self, dataset: Any, columns: Sequence[str]):
        arrays = [name for name in columns if isinstance(dataset.features[name], Array2D)]
        self.signals = {name: MappedArrays(dataset, name) for name in arrays}
        self.dataset = dataset.with_format("arrow", columns=[name for name in columns if name not in self.signals])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[dict[str, Any]]:
        """Many rows at once, which is how the loader asks for a batch."""
        MappedArrays.release_pages()  # otherwise a pass looks as if all data were loaded
        columns: dict[str, Sequence[Any]] = {name: arrays[rows] for name, arrays in self.signals.items()}
        table = self.dataset[rows]
        columns |= {name: _values(column) for name, column in zip(table.column_names, table.columns, strict=True)}
        return [{"row": row, **{name: values[i] for name, values in columns.items()}} for i, row in enumerate(rows)]


def _values(column: pa.ChunkedArray) -> Any:
    """Plain values; of lists of one length, such as one number for each sample, (rows, length), NaN where missing."""
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_pylist()
    values = np.full((len(column), column.type.list_size), np.nan, np.float32)
    known = column.drop_null().combine_chunks().flatten().to_numpy()
    values[column.is_valid().to_numpy()] = known.reshape(-1, column.type.list_size)
    return values


class EpochBatchSampler(Sampler[list[int]]):
    """Batches of row numbers in which every row occurs once an epoch.

    Batches differ in size by at most one, so that no batch is too small for batch normalisation. With `event`, each
    batch holds the set's fraction of events, rounded up or down, and at least one, because the Cox loss of a batch
    without events is zero. If there are fewer events than batches, the batches grow, with a warning. `set_epoch` draws
    a new order from the seed; `start_batch` skips batches that a resumed run has seen. Of several processes, each has
    as many batches as every other (`share_among`).

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
        self.process, self.num_processes = 0, 1
        wanted = -(-num_rows // batch_size)
        if self.num_batches < min(wanted, num_rows // 2):
            logger.warning(
                "batch_size: %d records a batch would leave some without any of the %d events; using %d",
                batch_size,
                int(self.event.sum()),
                -(-num_rows // self.num_batches),
            )

    def share_among(self, num_processes: int, process: int) -> None:
        """Keeps the batches of one of several processes, numbered from 0.

        Raises:
            ValueError: fewer than two rows per process.
        """
        if num_processes > 1 and self.num_rows < 2 * num_processes:
            raise ValueError(
                f"training set: expected at least two records for each of {num_processes} processes, "
                f"got {self.num_rows}; start fewer processes"
            )
        self.process, self.num_processes = process, num_processes

    @property
    def num_batches(self) -> int:
        """Batches of a whole epoch, of all processes together: a multiple of their number."""
        most = min(-(-self.num_rows // self.batch_size), self.num_rows // 2)
        wanted = max(1, min(most, int(self.event.sum()) or most))
        rounds = -(-wanted // self.num_processes)
        fits = rounds * self.num_processes <= max(1, self.num_rows // 2)
        return (rounds if fits else rounds - 1) * self.num_processes

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches that this process has yet to see in this epoch."""
        return self.num_batches // self.num_processes - self.start_batch

    @property
    def _mine(self) -> range:
        """The numbers of these batches."""
        first = self.start_batch * self.num_processes + self.process
        return range(first, self.num_batches, self.num_processes)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        count = self.num_batches
        sizes = np.full(count, self.num_rows // count) + (np.arange(count) < self.num_rows % count)
        events, others = np.flatnonzero(self.event), np.flatnonzero(~self.event)
        with_event = np.full(count, len(events) // count)
        with_event[rng.permutation(count)[: len(events) % count]] += 1
        event_parts = np.split(rng.permutation(events), np.cumsum(with_event)[:-1])
        other_parts = np.split(rng.permutation(others), np.cumsum(sizes - with_event)[:-1])
        for batch in self._mine:
            yield np.concatenate([event_parts[batch], other_parts[batch]]).tolist()


def share_of_batches(loader: DataLoader[Any], accelerator: Accelerator) -> Any:
    """This process's batches of a training loader, on its device.

    The sampler shares them out. Accelerate would pass over batches that are smaller than the largest.
    """
    sampler = cast(EpochBatchSampler, loader.batch_sampler)
    sampler.share_among(accelerator.num_processes, accelerator.process_index)
    return prepare_data_loader(loader, accelerator.device, 1, 0, put_on_device=True)


def _draw_lead_mask(
    lead_mask: np.ndarray, lead_names: Sequence[str], rng: np.random.Generator, shared: bool, probability: float
) -> np.ndarray:
    """Hides leads as if a device with fewer had been used (arXiv 2403.10581), in every record alike if `shared`.

    Returns a subset of `lead_mask`, (batch, leads); a record whose recorded leads would all be hidden keeps them.
    """
    draws = 1 if shared else len(lead_mask)
    choice = rng.choice(len(LEAD_SUBSETS), size=draws, p=[share for share, _ in LEAD_SUBSETS])
    keeps = np.array([[subset is None or name in subset for name in lead_names] for _, subset in LEAD_SUBSETS])
    keep = keeps[choice] | (rng.random(draws) >= probability)[:, None]
    hidden = lead_mask & keep
    return np.where(hidden.any(axis=1, keepdims=True), hidden, lead_mask)


def _draw_span_mask(records: int, samples: int, rng: np.random.Generator, probability: float) -> np.ndarray:
    """(records, samples), true in stretches of time to hide in all leads alike, which may overlap.

    With this probability a record gets `_SPANS` of them, else none.
    """
    length = max(1, round(_SPAN_SHARE * samples))
    starts = rng.integers(0, samples - length + 1, (records, _SPANS, 1))
    positions = np.arange(samples)
    inside = (positions >= starts) & (positions < starts + length)
    return inside.any(axis=1) & (rng.random((records, 1)) < probability)


@dataclass
class EcgCollator:
    """Turns rows into the keyword arguments of a model.

    Args:
        lead_names: names of the leads, in the order of `input_values`.
        num_pad: zeros at each end of the signal, which augmentation leaves zero.
        lead_masking: "record" (one draw each), "batch" (one draw for all) or "none".
        lead_masking_probability: how often leads are hidden.
        span_masking_probability: how often stretches of time are hidden, see [`_draw_span_mask`].
        crop_samples: length of the random piece of each record that is shown; 0 shows the whole.
        augment_scale: amplitude factor drawn from 1 +- this, per record, all leads alike; applied to the target too.
        augment_noise: SD of white noise added to the input, not to the target.
        statement_embeds: (statements, wordings, width); with the lookup `statement_weights`, each record's text is put
            together in each batch: some of its statements, in one wording for the whole batch.
        statement_dropout: how often a statement is left out of it; one always stays.
        text_list: texts that every record is compared with; each batch gets one wording of each.
        lookups: model argument -> array with one row per dataset row, such as text embeddings or covariates.
        with_target: also give the unmasked signal as `target_values`, and which leads it has as `target_mask`.
        target_hidden: `target_mask` is instead the samples of recorded leads that span masking hid, (batch, leads,
            samples), and span masking is kept for evaluation.
        sample_columns: dataset columns with one number for each sample, such as `waveform_weights`; cropped with the
            signal.
        columns: further numeric columns handed on as float32, such as event and time.
        num_labels: width of the multi-hot labels; 0 leaves labels out.
        labels_name: model argument the labels go to.
        seed, epoch: of the draws.
    """

    lead_names: Sequence[str]
    num_pad: int = 0
    lead_masking: str = "none"
    lead_masking_probability: float = 0.5
    span_masking_probability: float = 0.0
    crop_samples: int = 0
    augment_scale: float = 0.0
    augment_noise: float = 0.0
    statement_embeds: np.ndarray | None = None
    statement_dropout: float = 0.0
    text_list: TextList | None = None
    lookups: Mapping[str, np.ndarray] = field(default_factory=dict)
    with_target: bool = False
    target_hidden: bool = False
    columns: Sequence[str] = ()
    sample_columns: Sequence[str] = ()
    num_labels: int = 0
    labels_name: str = "labels"
    seed: int = 0
    epoch: int = 0

    @classmethod
    def for_training(cls, config: EcgDanConfig, args: TrainingArguments, **options: Any) -> "EcgCollator":
        """A collator that masks and augments as the run's arguments say; further fields as keywords."""
        names = ("lead_masking", "lead_masking_probability", "span_masking_probability", "crop_samples")
        drawn = {name: getattr(args, name) for name in (*names, "augment_scale", "augment_noise", "seed")}
        return cls(lead_names=config.lead_names, num_pad=config.pad_samples or 0, **drawn, **options)

    @staticmethod
    def check(args: TrainingArguments, config: EcgDanConfig) -> None:
        """Rejects settings that would have no effect or a wrong one.

        Raises:
            ValueError: a probability outside [0, 1], a scale outside [0, 1), negative noise, either of them with
                per-lead z-scores, whose unit variance they would break, or a crop that the network cannot take.
        """
        scale, noise, normalization = args.augment_scale, args.augment_noise, config.normalization
        crop, stride = args.crop_samples, config.token_stride
        if not 0 <= scale < 1 or noise < 0:
            raise ValueError(
                f"augment_scale, augment_noise: expected 0 <= scale < 1 and noise >= 0, got {scale}, {noise}"
            )
        if (scale or noise) and normalization != "global":
            raise ValueError(
                f"augment_scale, augment_noise: need normalization: global, got {normalization}; a z-scored lead has "
                "no amplitude to vary"
            )
        if not 0 <= args.span_masking_probability <= 1:
            raise ValueError(f"span_masking_probability: expected a probability, got {args.span_masking_probability}")
        if crop and config.trunk != "light":
            raise ValueError(f"crop_samples: only trunk light takes pieces of a record, got trunk {config.trunk}")
        if crop % stride or not 0 <= crop <= (config.num_samples or 0):
            raise ValueError(f"crop_samples: expected a multiple of {stride} up to {config.num_samples}, got {crop}")

    def rows(self, dataset: Any) -> NumberedRows:
        """The rows with the columns that this collator reads."""
        labels = ["labels"] if self.num_labels else []
        return NumberedRows(dataset, ["input_values", "lead_mask", *self.columns, *self.sample_columns, *labels])

    def training_loader(self, dataset: Any, sampler: EpochBatchSampler, num_workers: int = 0) -> DataLoader[Any]:
        """The batches of the sampler. The loader's own generator keeps it from advancing torch's."""
        rows, generator = self.rows(dataset), torch.Generator()
        options: dict[str, Any] = {"num_workers": num_workers, "generator": generator}
        return DataLoader(rows, batch_sampler=sampler, collate_fn=self, **options)

    def evaluation_loader(self, dataset: Any, batch_size: int, accelerator: Accelerator) -> DataLoader[Any]:
        """Rows in their order, as they are, spread over the processes; make it once, not at every validation."""
        still = self._still()
        loader: Any = DataLoader(
            still.rows(dataset), batch_size=batch_size, collate_fn=still, generator=torch.Generator()
        )
        prepared: DataLoader[Any] = accelerator.prepare_data_loader(loader)
        return prepared

    def _still(self) -> "EcgCollator":
        """The same without masking, cropping and augmentation."""
        spans = self.span_masking_probability if self.target_hidden else 0.0
        masking: dict[str, Any] = {"lead_masking": "none", "span_masking_probability": spans}
        return replace(self, **masking, crop_samples=0, augment_scale=0.0, augment_noise=0.0)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows -> tensors, with the batch in front."""
        numbers = np.array([row["row"] for row in rows])
        rng = np.random.default_rng([self.seed, self.epoch, *numbers])
        signal = np.stack([np.asarray(row["input_values"], dtype=np.float32) for row in rows])
        recorded = np.stack([np.asarray(row["lead_mask"], dtype=bool) for row in rows])
        batch = {name: torch.from_numpy(values[numbers]) for name, values in self.lookups.items()}
        if self.statement_embeds is not None:
            weights = batch.pop(STATEMENT_WEIGHTS).numpy()
            batch["text_embeds"] = torch.from_numpy(self._text(self.statement_embeds, weights, rng))
        if self.text_list is not None:
            batch["text_embeds"] = torch.from_numpy(self.text_list.draw(rng))
            batch["text_weights"] = torch.from_numpy(self.text_list.weights)
        for name in self.columns:
            batch[name] = torch.tensor([float(row[name]) for row in rows], dtype=torch.float32)
        if self.num_labels:
            batch[self.labels_name] = multi_hot([row["labels"] for row in rows], self.num_labels)
        piece = self._piece(signal, rng)
        for name in self.sample_columns:
            batch[name] = torch.from_numpy(piece(np.stack([row[name] for row in rows])))
        signal = self._scaled(piece(signal), rng)
        if self.with_target:
            batch |= {"target_values": torch.from_numpy(signal), "target_mask": torch.from_numpy(recorded)}
        shown = self._masked(recorded, rng)
        seen = self._seen(signal, rng)
        if self.with_target and not self.augment_noise:
            signal = signal.copy()  # what is hidden below stays in the target
        signal = self._noisy(signal, rng)
        signal[~shown] = 0
        np.copyto(signal, 0, where=~seen)
        if self.target_hidden:
            batch["target_mask"] = torch.from_numpy(recorded[:, :, None] & ~seen)
        return batch | {"input_values": torch.from_numpy(signal), "lead_mask": torch.from_numpy(shown)}

    def _masked(self, recorded: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.lead_masking == "none":
            return recorded
        shared = self.lead_masking == "batch"
        return _draw_lead_mask(recorded, self.lead_names, rng, shared, self.lead_masking_probability)

    def _text(self, statements: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(records, statements) -> (records, width); rounded, so that equal texts are equal to the last bit."""
        draw = np.where(weights > 0, rng.random(weights.shape), 0)
        kept = weights * ((draw > self.statement_dropout) | (draw == draw.max(axis=1, keepdims=True)))
        total = kept.sum(axis=1, keepdims=True)
        wording = statements[:, rng.integers(statements.shape[1])]
        return np.asarray((kept / np.where(total > 0, total, 1) @ wording).round(5), dtype=np.float32)

    def _piece(self, signal: np.ndarray, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        """Cuts arrays (records, ..., samples) to one random piece of each record."""
        if not self.crop_samples:
            return lambda values: values
        starts = rng.integers(0, signal.shape[2] - self.crop_samples + 1, len(signal))
        return lambda values: np.stack(
            [row[..., start : start + self.crop_samples] for row, start in zip(values, starts, strict=True)]
        )

    def _seen(self, signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(records, 1, samples), false where the signal is hidden."""
        if not self.span_masking_probability:
            return np.asarray(True)
        return ~_draw_span_mask(len(signal), signal.shape[2], rng, self.span_masking_probability)[:, None, :]

    def _scaled(self, signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not self.augment_scale:
            return signal
        factor = rng.uniform(1 - self.augment_scale, 1 + self.augment_scale, (len(signal), 1, 1))
        signal *= factor.astype(np.float32)  # the batch's own copy
        return signal

    def _noisy(self, signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not self.augment_noise:
            return signal
        noise = rng.standard_normal(signal.shape, dtype=np.float32)
        noise *= np.float32(self.augment_noise)
        if self.num_pad and not self.crop_samples:
            noise[..., : self.num_pad] = noise[..., -self.num_pad :] = 0
        noise += signal
        return noise


def multi_hot(labels: Sequence[Sequence[int]], num_labels: int) -> Tensor:
    """Lists of label numbers -> (batch, num_labels) of 0 and 1."""
    hot = torch.zeros(len(labels), num_labels)
    for row, present in enumerate(labels):
        hot[row, [int(label) for label in present]] = 1.0
    return hot
