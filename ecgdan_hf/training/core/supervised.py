"""The steps that all fine-tuning runs share: labels, batches, predictions of unseen patients, and metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch.utils.data import DataLoader

from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.inference.heads import weight_columns
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.arguments.options import check_options
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EcgCollator
from ecgdan_hf.training.core.covariates import covariates_of
from ecgdan_hf.training.core.further_labels import auxiliary_names, auxiliary_targets
from ecgdan_hf.training.core.run import TrainingRun
from ecgdan_hf.training.core.tasks import FinetuningTask


class FinetuningRun(TrainingRun[FinetuneArguments]):
    """A training run from labels or follow-up, which also predicts the parts that it did not train on."""

    kind = "finetune"
    task: FinetuningTask
    predictions: dict[str, pd.DataFrame]

    def check(self) -> None:
        """Rejects arguments that contradict each other."""
        check_finetuning(self.args)

    def read_rows(self) -> Any:
        """The rows with their labels or outcomes."""
        args = self.args
        return rows.load_dataset(args, self.feature_extractor, outcomes=args.labels, label_level=args.label_level)

    def name_labels(self, dataset: Any) -> None:
        """Stores the names of the labels in the configuration.

        Raises:
            ValueError: the data have no labels.
        """
        if "labels" not in dataset.column_names:
            raise ValueError("labels: classification needs a labels column, the data have none")
        names = dataset.features["labels"].feature.names
        self.config.id2label = dict(enumerate(names))
        self.config.label2id = {name: label for label, name in enumerate(names)}
        self.config.problem_type = "multi_label_classification"
        self.config.num_auxiliary_labels = len(auxiliary_names(self.args))

    def supervised_loaders(self, parts: Mapping[str, Any]) -> dict[str, DataLoader[Any]]:
        """Each part in its order, as it is evaluated."""
        collators = {name: supervised_collator(part, self.config, self.args) for name, part in parts.items()}
        return self.loaders(parts, collators)

    def predict(self, loaders: Mapping[str, DataLoader[Any]]) -> None:
        """Fits what comes after the weights, and predicts the parts that were not trained on."""
        self.task.finish(self.model, loaders["train"], self.accelerator)
        self.predictions = {
            name: self.task.predictions(self.model, loaders[name], part, self.accelerator)
            for name, part in self.parts.items()
            if name != "train"
        }

    def results(self) -> dict[str, Any]:
        """Metrics of each predicted part, and under `subgroups` of the test part by sex and age.

        A part that is too small for a metric has the reason instead, as training must not be lost to it.
        """
        n, seed, found = self.args.bootstrap, self.args.seed, {}
        for name, table in self.predictions.items():
            try:
                found[name] = self.task.summary(table, n, seed)
            except ValueError as error:
                found[name] = {"not_estimable": str(error)}
        if "test" in self.predictions:
            found["subgroups"] = self.task.subgroups(self.predictions["test"], n, seed)
        return found

    def write(self, folder: Path) -> None:
        """Writes the checkpoint and `predictions.csv`, whose column `part` names the part of each row."""
        super().write(folder)
        tables = [table.assign(part=part) for part, table in self.predictions.items()]
        if tables:  # empty where every patient was trained on
            pd.concat(tables).to_csv(folder / "predictions.csv", index=False, float_format="%.6g")


def supervised_collator(part: Any, config: EcgDanConfig, args: FinetuneArguments) -> EcgCollator:
    """Turns rows of this part into what the task's model takes."""
    survival = isinstance(config, EcgDanSurvivalConfig)
    lookups = {}
    if isinstance(config, EcgDanSurvivalConfig) and config.covariate_names:
        lookups["covariates"] = covariates_of(part, config)
    if args.auxiliary_level:
        lookups["auxiliary_targets"] = auxiliary_targets(part, args)
    return EcgCollator.for_training(
        config,
        args,
        lookups=lookups,
        with_target=survival and config.reconstruction_weight > 0,
        columns=("event", "time") if survival else (),
        sample_columns=weight_columns(config),
        num_labels=0 if survival else config.num_labels,
    )


def check_finetuning(args: FinetuneArguments) -> None:
    """Rejects arguments of fine-tuning that the task ignores or that contradict each other.

    Raises:
        ValueError: see above.
    """
    check_options(args)
    if bool(args.checkpoint) == args.from_scratch:
        found = "both" if args.from_scratch else "neither"
        raise ValueError(f"checkpoint, from_scratch: expected exactly one of the two, got {found}")
    if args.lora_rank < 0:
        raise ValueError(f"lora_rank: expected one or more, or 0 to train every weight, got {args.lora_rank}")
    if args.lora_rank and not args.checkpoint:
        raise ValueError(f"lora_rank: expected a checkpoint whose weights to update, got rank {args.lora_rank} alone")
    if args.shuffle_labels and args.teachers:
        raise ValueError("shuffle_labels, teachers: teachers would leak the true labels; leave one out")
    if not 0 <= args.teacher_weight <= 1:
        raise ValueError(f"teacher_weight: expected a share between 0 and 1, got {args.teacher_weight}")
    if args.task == "survival" and not args.labels and (args.data or args.data_dir):
        source = find_source(args.data, args.data_dir)
        if source.has_outcomes is False:
            raise ValueError(
                f"labels: {source.name} has no follow-up of its own; give an outcomes table with --labels"
            )
