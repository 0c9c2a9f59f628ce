"""The steps that all fine-tuning runs share: labels, batches, predictions of unseen patients, and metrics.

Labels besides the source's own are those of another level, and those that trained classifiers soften.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from ecgdan_hf.data.record import scp_likelihoods
from ecgdan_hf.data.sources import ptbxl
from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.data.text.statements import read_statements
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.inference.rows import columns_of, kept_leads
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.spreadsheets import plain_cells
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.arguments.options import check_options
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EcgCollator, multi_hot
from ecgdan_hf.training.core.run import TrainingRun
from ecgdan_hf.training.core.tasks import ClassificationTask, SurvivalTask, outcome_of


class FinetuningRun(TrainingRun[FinetuneArguments]):
    """A training run from labels or follow-up, which also predicts the parts that it did not train on."""

    kind = "finetune"
    task: SurvivalTask | ClassificationTask
    predictions: dict[str, pd.DataFrame]

    def check(self) -> None:
        """Rejects arguments that contradict each other."""
        self.check_arguments(self.args)

    @staticmethod
    def check_arguments(args: FinetuneArguments) -> None:
        """Rejects arguments of fine-tuning that the task ignores or that contradict each other."""
        check_options(args)
        if bool(args.checkpoint) == args.from_scratch:
            found = "both" if args.from_scratch else "neither"
            raise ValueError(f"checkpoint, from_scratch: expected exactly one of the two, got {found}")
        if args.lora_rank < 0:
            raise ValueError(f"lora_rank: expected one or more, or 0 to train every weight, got {args.lora_rank}")
        if args.lora_rank and not args.checkpoint:
            raise ValueError(
                f"lora_rank: expected a checkpoint whose weights to update, got rank {args.lora_rank} alone"
            )
        if args.shuffle_labels and args.teachers:
            raise ValueError("shuffle_labels, teachers: teachers would leak the true labels; leave one out")
        if args.task == "survival" and not args.labels and (args.data or args.data_dir):
            source = find_source(args.data, args.data_dir)
            if source.has_outcomes is False:
                raise ValueError(
                    f"labels: {source.name} has no follow-up of its own; give an outcomes table with --labels"
                )

    def configuration(self) -> Any:
        """The network's configuration, with the leads and the page that it is to look at."""
        config = super().configuration()
        if self.args.page_layout != "whole":
            config.page_layout = self.args.page_layout
        if self.args.leads:
            config.used_leads = np.array(config.lead_names)[kept_leads(self.args.leads, config.lead_names)].tolist()
        return config

    def read_rows(self) -> Any:
        """The rows with their labels or outcomes."""
        args = self.args
        return rows.load_dataset(args, self.feature_extractor, outcomes=args.labels, label_level=args.label_level)

    def name_labels(self, dataset: Any) -> None:
        """Stores the names of the labels in the configuration."""
        if "labels" not in dataset.column_names:
            raise ValueError("labels: classification needs a labels column, the data have none")
        names = dataset.features["labels"].feature.names
        self.config.id2label = dict(enumerate(names))
        self.config.label2id = {name: label for label, name in enumerate(names)}
        self.config.problem_type = "multi_label_classification"
        self.config.num_auxiliary_labels = len(_auxiliary_names(self.args))

    @staticmethod
    def covariates_of(part: Any, config: EcgDanSurvivalConfig) -> np.ndarray:
        """(records, covariates) of these rows, NaN where unknown."""
        found = Covariates.of(config)
        return found.matrix(columns_of(part, found.columns))

    def supervised_collator(self, part: Any, args: FinetuneArguments) -> EcgCollator:
        """Turns rows of this part into what the task's model is trained on."""
        collator = _collator(self.config, args, part)
        collator.lookups = _lookups(part, self.config, args)
        return _soften_labels(collator, part, self.config, args) if args.teachers else collator

    def supervised_loaders(self, parts: Mapping[str, Any]) -> dict[str, DataLoader[Any]]:
        """Each part in its order, as it is evaluated."""
        found = {
            name: replace(_collator(self.config, self.args, part), lookups=_lookups(part, self.config, self.args))
            for name, part in parts.items()
        }
        return self.loaders(parts, found)

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
            plain_cells(pd.concat(tables)).to_csv(folder / "predictions.csv", index=False, float_format="%.6g")


def _collator(config: EcgDanConfig, args: FinetuneArguments, part: Any = None) -> EcgCollator:
    """Turns rows such as these into what the task's model takes, but for what is looked up by row."""
    survival = isinstance(config, EcgDanSurvivalConfig)
    outcome = () if getattr(config, "endpoint_names", ()) else ("event", "time")  # of several endpoints: looked up
    entry = ("entry",) if part is not None and "entry" in part.column_names else ()
    return EcgCollator.for_training(
        config,
        args,
        with_target=survival and config.reconstruction_weight > 0,
        columns=(*outcome, *entry) if survival else (),
        sample_columns=config.weight_columns,
        num_labels=0 if survival else config.num_labels,
    )


def _lookups(part: Any, config: EcgDanConfig, args: FinetuneArguments) -> dict[str, np.ndarray]:
    """The covariates and further labels of these rows."""
    found = {}
    if isinstance(config, EcgDanSurvivalConfig) and config.covariate_names:
        found["covariates"] = FinetuningRun.covariates_of(part, config)
    if isinstance(config, EcgDanSurvivalConfig) and config.endpoint_names:
        known = outcome_of(part, config.endpoint_names)
        found |= {name: known[name].float().numpy() for name in ("event", "time")}
    if args.auxiliary_level:
        found["auxiliary_targets"] = _auxiliary_targets(part, args)
    return found


def _auxiliary_names(args: FinetuneArguments) -> list[str]:
    """Names of the labels of `auxiliary_level`; none without it."""
    if args.auxiliary_level is None:
        return []
    return list(ptbxl.codes_by_label(read_statements(str(args.data_dir)), args.auxiliary_level))


def _auxiliary_targets(part: Any, args: FinetuneArguments) -> np.ndarray:
    """(records, labels of `auxiliary_level`) of 0 and 1."""
    labels = ptbxl.codes_by_label(read_statements(str(args.data_dir)), str(args.auxiliary_level))
    column_of_code = {code: column for column, codes in enumerate(labels.values()) for code in codes}
    numbers = [
        [column_of_code[code] for code in scp_likelihoods(codes) if code in column_of_code]
        for codes in part["scp_codes"]
    ]
    return multi_hot(numbers, len(labels)).numpy()


def _soften_labels(collator: EcgCollator, train: Any, config: EcgDanConfig, args: FinetuneArguments) -> EcgCollator:
    """The collator with labels moved towards the mean probability of the teachers (Hinton et al., 2015).

    The teachers may read another view of the record than the network that learns from them.
    """
    names = config.label_names
    hard = multi_hot(train["labels"], len(names)).numpy()
    teachers = str(args.teachers).split(",")
    total = np.zeros(hard.shape, np.float32)
    for teacher in teachers:
        total += _probabilities(teacher.strip(), train["record_id"], names, args)
    mixed = ((1 - args.teacher_weight) * hard + args.teacher_weight * (total / len(teachers))).astype(np.float32)
    return replace(collator, num_labels=0, lookups={**collator.lookups, "labels": mixed})


@torch.inference_mode()
def _probabilities(
    teacher: str, record_ids: Sequence[str], names: Sequence[str], args: FinetuneArguments
) -> np.ndarray:
    """(records, labels) by one teacher."""
    model: Any
    model, feature_extractor = load_checkpoint(teacher)
    if not head_of(model).is_classifier or list(model.config.id2label.values()) != list(names):
        raise ValueError(f"teachers: expected a classifier of {', '.join(names)}, got {teacher}")
    dataset = rows.load_dataset(args, feature_extractor, label_level=args.label_level)
    position = {record: row for row, record in enumerate(dataset["record_id"])}
    part = dataset.select([position[record] for record in record_ids])
    collator = EcgCollator(model.config.lead_names, sample_columns=model.config.weight_columns)
    loader = DataLoader(collator.rows(part), batch_size=args.batch_size, collate_fn=collator)
    return torch.cat([model(**batch).logits for batch in loader]).sigmoid().numpy()
