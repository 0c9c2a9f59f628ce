"""The steps that all training runs share, from the arguments to the folder of the result.

A verb subclasses [`TrainingRun`], which reads the rows, builds the network and reports the metrics. Arguments
and data that cannot be used are rejected before anything is written.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from accelerate import Accelerator
from torch.utils.data import DataLoader

from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.training.arguments.fields import TrainingArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EcgCollator, check_augmentation
from ecgdan_hf.training.core.collect import evaluation_loader
from ecgdan_hf.training.core.loop import Trainer, TrainingSet, build_accelerator
from ecgdan_hf.training.core.run_folder import begin_run, check_run, finish_run, is_finished, read_metrics
from ecgdan_hf.training.core.sampling import EpochBatchSampler
from ecgdan_hf.training.core.starting_weights import build_config

Args = TypeVar("Args", bound=TrainingArguments)
Split = Callable[..., rows.Parts]
"""(dataset, args[, column to stratify by]) -> parts."""


class TrainingRun(ABC, Generic[Args]):
    """One training run.

    Args:
        args: what to train, on what, for how long.
        split: divides the rows in another way than the folds and fractions of `args`.

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
        """Trains and fills the run's folder; returns a finished run's metrics if it is resumed.

        Returns:
            The content of `metrics.json`.

        Raises:
            ValueError: arguments or data that cannot be used, before anything is trained.
        """
        started, args = time.monotonic(), self.args
        self.folder = check_run(args)
        self.check()
        if args.resume and is_finished(self.folder):
            return read_metrics(self.folder)
        self.config = build_config(self.config_class, args.model, args.checkpoint)
        check_augmentation(args, self.config)
        self.feature_extractor = EcgDanFeatureExtractor(**self.config.signal_contract)
        self.load()
        self.accelerator = build_accelerator(args, self.folder)
        self.build()
        self._on_main_process(begin_run, self.folder, args)
        self.train()
        metrics = {**self.summary(), "seconds": round(time.monotonic() - started, 1)}
        self._on_main_process(finish_run, self.folder, self.write, Result(self.kind, metrics))
        return metrics

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

    def train(self) -> None:
        """Runs the loop; the network then has the weights of the best epoch."""
        self.trainer.run()

    def write(self, folder: Path) -> None:
        """Writes the result into a new folder."""
        self.model.save_pretrained(folder)
        self.feature_extractor.save_pretrained(folder)

    def divided(self, dataset: Any, *stratify_by: str | None) -> dict[str, Any]:
        """The parts of the rows, by name."""
        parts = vars(self._split(dataset, self.args, *stratify_by))
        return {name: part for name, part in parts.items() if part is not None}

    def loaders(self, parts: Mapping[str, Any], collators: Mapping[str, EcgCollator]) -> dict[str, DataLoader[Any]]:
        """The rows of these parts in their order, without masking and augmentation."""
        size = self.args.batch_size
        return {
            name: evaluation_loader(part, collators[name].still(), size, self.accelerator)
            for name, part in parts.items()
        }

    def trainer_of(self, task: Any, collator: EcgCollator, sampler: EpochBatchSampler | None = None) -> Trainer:
        """The loop over the training rows; without a sampler each row occurs once an epoch."""
        train, args = self.parts["train"], self.args
        sampler = sampler or EpochBatchSampler(len(train), args.batch_size, seed=args.seed)
        training_set = TrainingSet(train, sampler, collator)
        return Trainer(self.model, task, training_set, args, self.folder, self.accelerator)

    def starting_point(self) -> dict[str, Any]:
        """The origin of the weights, for `metrics.json`."""
        checkpoint = self.args.checkpoint
        return {
            "checkpoint": checkpoint or "random weights",
            "new_weights": self.new_weights if checkpoint else "all",
        }

    def _on_main_process(self, function: Callable[..., None], *args: Any) -> None:
        if self.accelerator.is_main_process:
            function(*args)
        self.accelerator.wait_for_everyone()
