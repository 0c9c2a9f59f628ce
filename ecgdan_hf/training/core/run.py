"""The steps that all training runs share, from the arguments to the folder of the result.

A verb subclasses [`TrainingRun`], which reads the rows, builds the network and reports the metrics. Arguments
and data that cannot be used are rejected before anything is written.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, set_seed
from torch.utils.data import DataLoader

from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.evaluation.seen_records import SeenRecords
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.training.arguments.fields import TrainingArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EcgCollator, EpochBatchSampler
from ecgdan_hf.training.core.loop import Trainer
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.core.starting_weights import build_config

Args = TypeVar("Args", bound=TrainingArguments)
Split = Callable[..., dict[str, Any]]
"""(dataset, args[, column to stratify by]) -> the parts `train`, `valid` and, optionally, `test`."""


class TrainingRun(ABC, Generic[Args]):
    """One training run; `split` divides the rows in another way than the folds and fractions of `args`.

    Attributes:
        kind: the kind of result, see `evaluation.result`.
        config, feature_extractor: of the network; known when the rows are read.
        parts: "train", "valid" and, where there is one, "test" -> rows.
        model, new_weights: the network, and the names of its randomly initialised weights.
        folder: of the run.
    """

    kind: ClassVar[str]
    config_class: ClassVar[type[EcgDanConfig]]
    config: Any
    feature_extractor: EcgDanFeatureExtractor
    parts: dict[str, Any]
    accelerator: Accelerator
    model: Any
    new_weights: list[str]
    trainer: Trainer
    folder: Path

    def __init__(self, args: Args, split: Split = rows.split):
        self.args, self._split = args, split

    def run(self) -> dict[str, Any]:
        """Trains, fills the run's folder and returns its metrics; a finished run's if it is resumed.

        Arguments or data that cannot be used are a ValueError before anything is trained.
        """
        started, args = time.monotonic(), self.args
        run_folder = RunFolder.check(args)
        self.folder = run_folder.path
        self.check()
        finished: dict[str, Any] | None = run_folder.metrics if args.resume else None
        if finished is not None:
            return finished
        self.config = self.configuration()
        EcgCollator.check(args, self.config)
        self.feature_extractor = EcgDanFeatureExtractor(**self.config.signal_contract)
        self.load()
        self.accelerate(args, self.folder)
        self.build()
        with ExitStack() as held:
            self._on_main_process(lambda: held.enter_context(run_folder.begun(args)))
            self.train()
            seconds = self.earlier_seconds() + time.monotonic() - started
            metrics = {**self.summary(), "seconds": round(seconds, 1)}
            self._on_main_process(lambda: run_folder.finish(self._write_all, Result(self.kind, metrics)))
        return metrics

    def configuration(self) -> Any:
        """The network's configuration: the checkpoint's, with the fields that `model` changes."""
        return build_config(self.config_class, self.args.model, self.args.checkpoint)

    @abstractmethod
    def check(self) -> None:
        """Rejects arguments that contradict each other."""

    @abstractmethod
    def load(self) -> None:
        """Reads the rows, divides them into `parts` and completes `config` with what only the data know."""

    @abstractmethod
    def build(self) -> None:
        """Builds the network and what trains it."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """The content of `metrics.json`."""

    def accelerate(self, args: TrainingArguments, folder: Path) -> None:
        """Sets the seed, and makes an Accelerator with the run's precision and trackers."""
        self.accelerator = _build_accelerator(args, folder)

    def train(self) -> None:
        """Runs the loop; the network then has the weights of the best epoch."""
        self.trainer.run()

    def earlier_seconds(self) -> float:
        """The seconds of the sessions that this one resumes, up to the state it began with."""
        return self.trainer.progress.earlier_seconds

    def write(self, folder: Path) -> None:
        """Writes the result into a new folder."""
        self.model.save_pretrained(folder)
        self.feature_extractor.save_pretrained(folder)

    def _write_all(self, folder: Path) -> None:
        self.write(folder)
        SeenRecords.of(self.parts, self.args.checkpoint).write(folder)

    def divided(self, dataset: Any, *stratify_by: str | None) -> dict[str, Any]:
        """The parts of the rows, by name."""
        return self._split(dataset, self.args, *stratify_by)

    def loaders(self, parts: Mapping[str, Any], collators: Mapping[str, EcgCollator]) -> dict[str, DataLoader[Any]]:
        """The rows of these parts in their order, without masking and augmentation."""
        placed = self.args.batch_size, self.accelerator
        return {name: collators[name].evaluation_loader(part, *placed) for name, part in parts.items()}

    def trainer_of(self, task: Any, collator: EcgCollator, sampler: EpochBatchSampler | None = None) -> Trainer:
        """The loop over the training rows; without a sampler each row occurs once an epoch."""
        train, args = self.parts["train"], self.args
        sampler = sampler or EpochBatchSampler(len(train), args.batch_size, seed=args.seed)
        loader = collator.training_loader(train, sampler, args.num_workers)
        return Trainer(self.model, task, loader, args, self.folder, self.accelerator)

    @property
    def num_learned(self) -> int:
        """The number of weights that are learned."""
        return sum(weights.numel() for weights in self.model.parameters() if weights.requires_grad)

    def starting_point(self) -> dict[str, Any]:
        """The origin of the weights, for `metrics.json`."""
        checkpoint = self.args.checkpoint
        return {"checkpoint": checkpoint or "random weights", "new_weights": self.new_weights if checkpoint else "all"}

    def _on_main_process(self, function: Callable[[], None]) -> None:
        if self.accelerator.is_main_process:
            function()
        self.accelerator.wait_for_everyone()


def _build_accelerator(args: TrainingArguments, folder: Path) -> Accelerator:
    """An Accelerator with the run's precision, trackers and seed.

    Raises:
        ValueError: a tracker is not installed, or processes that were launched together do not know of each other and
            would each train alone, in one folder.
    """
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    precision = ("bf16" if bf16 else "no") if args.precision == "auto" else args.precision
    if args.log_with == "trackio":
        from accelerate.utils import is_trackio_available

        if not is_trackio_available():
            raise ValueError("log_with: trackio is not installed; pip install trackio, or use tensorboard")
    set_seed(args.seed)
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else the processes of `torchrun` do not know of each other on CPU
        mixed_precision=precision,
        gradient_accumulation_steps=args.gradient_accumulation,
        log_with=None if args.log_with == "none" else args.log_with,
        project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / "logs")),
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise ValueError(
            f"WORLD_SIZE: {launched} processes were launched, Accelerate joined {accelerator.num_processes}; "
            "start them with `accelerate launch`, on CPU with ACCELERATE_USE_CPU=true"
        )
    return accelerator
