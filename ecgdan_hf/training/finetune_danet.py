"""Fine-tuning of DANet in two stages: the classifier behind a waveform module that stays as it is, then both.

    ecgdan finetune --config finetune-danet --data-dir mit-bih --checkpoint runs/danet-pretrained \
        --output-dir runs/danet
    accelerate launch -m ecgdan_hf.training.finetune_danet --config finetune-danet ...

Stage 1 trains for `epochs`, stage 2 for `joint_epochs` at `joint_learning_rate`; the best epoch of both, by the mean
AUROC on the validation patients, is kept. Only a soft module can be frozen: with another module, or with none, stage 2
trains the same weights on, so that what is compared has had as many steps. Each stage is a run of the loop in a folder
of its own, which `resume` continues bit by bit.

The soft module goes on learning where to look, from the beats that the source has marked and from simulated ones.
Where a label is rare, `positive_weight` weighs its records in the loss, or `balance` draws them more often, patients
with many not much more often than those with few. A validation part of a few patients cannot tell which stage
is better; `keep_stage: last` then keeps the second, and validation only chooses the thresholds.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ecgdan_hf.evaluation.folds import recipe_of
from ecgdan_hf.model.configuration_danet import DanetConfig
from ecgdan_hf.model.modeling_danet import DanetForSequenceClassification
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.learned_rows import LearnedRows
from ecgdan_hf.training.core.loop import Trainer
from ecgdan_hf.training.core.run import Split
from ecgdan_hf.training.core.run_folder import RunFolder
from ecgdan_hf.training.core.starting_weights import build_model
from ecgdan_hf.training.core.states import Progress, SavedStates
from ecgdan_hf.training.core.supervised import FinetuningRun
from ecgdan_hf.training.core.tasks import ClassificationTask

_STAGE_SEED = 10_000
"""Added to the seed in stage 2, so that its batches differ."""


def finetune_danet(args: FinetuneArguments, split: Split = rows.split) -> dict[str, Any]:
    """Fine-tunes, and writes a checkpoint folder with `metrics.json` and `predictions.csv`.

    Args:
        args: what to train, on what, for how long; task danet.
        split: divides the rows in another way than the folds and fractions of `args`.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    return _DanetFinetuning(args, split).run()


class _DanetFinetuning(FinetuningRun):
    config_class = DanetConfig

    def check(self) -> None:
        super().check()
        _check_arguments(self.args)
        if self.args.valid_fraction == 0:
            if self._split is not rows.split:  # it leaves patients out, who would be trained on
                raise ValueError("valid_fraction: expected above 0 with a given split, got 0")
            self._split = _everyone

    def load(self) -> None:
        args, dataset = self.args, self.read_rows()
        self.name_labels(dataset)
        self.parts = self.divided(dataset, "labels")
        _check_thresholds(args, self.config)
        LearnedRows.check_labels(self.parts)
        self.learned = LearnedRows.of(self.parts["train"], self.config, self.feature_extractor, args)
        self.config.positive_weights = self.learned.positive_weights(args.positive_weight)

    def build(self) -> None:
        built = build_model(DanetForSequenceClassification, self.config, self.args.checkpoint)
        self.model, self.new_weights = built
        self.num_parameters = self.num_learned

    def train(self) -> None:
        self.stages = {name: self._train_stage(name, args) for name, args in self._stages().items()}
        self.kept = _keep_weights(self.model, self.stages, self.folder, self.args.keep_stage)
        loaders = self.supervised_loaders(self.parts)
        self.task = ClassificationTask(self.config, loaders["valid"])
        self.predict(loaders)
        if self.args.thresholds:
            given = {name: float(value) for name, value in self.args.thresholds.items()}
            self.model.config.thresholds = {**(self.model.config.thresholds or {}), **given}
        if self.args.valid_fraction == 0:
            self.predictions.pop("valid")  # they were trained on

    def _stages(self) -> dict[str, FinetuneArguments]:
        """The arguments of each stage, by its name, which is also that of its folder."""
        args = self.args
        if not args.joint_epochs:
            return {"stage-1": args}
        rate = float(args.joint_learning_rate or 0)
        joint = replace(args, epochs=args.joint_epochs, learning_rate=rate, seed=args.seed + _STAGE_SEED)
        return {"stage-1": args, "stage-2": joint}

    def _train_stage(self, name: str, args: FinetuneArguments) -> Progress:
        """Trains one stage; the model then has its best weights."""
        self.accelerate(args, self.folder / name)
        if self.config.waveform_module == "soft":
            first = name == "stage-1"
            (self.model.freeze_waveform_module if first else self.model.unfreeze_waveform_module)()
        loaders = self.supervised_loaders({"valid": self.parts["valid"]})
        task = ClassificationTask(self.config, loaders["valid"])
        learned, collator = self.learned, self.supervised_collator(self.learned.rows, args)
        if learned.waveform_targets is not None:
            collator.lookups = {**collator.lookups, "waveform_targets": learned.waveform_targets}
        batches = collator.training_loader(learned.rows, learned.sampler(args), args.num_workers)
        return Trainer(self.model, task, batches, args, self.folder / name, self.accelerator).run()

    def earlier_seconds(self) -> float:
        return sum(progress.earlier_seconds for progress in self.stages.values())

    def summary(self) -> dict[str, Any]:
        args, found = self.args, self.stages
        judged = {name: part for name, part in self.parts.items() if name == "train" or name in self.predictions}
        start, metric = self.starting_point(), ClassificationTask.metric
        metric = metric if args.valid_fraction else f"train_{metric}"
        return {
            "task": args.task,
            "simulated_outcome": False,
            "checkpoint": start["checkpoint"],
            "pretraining": _pretraining_of(args.checkpoint),
            "new_weights": start["new_weights"],
            "best_stage": self.kept,
            "best_epoch": found[self.kept].best_epoch,
            "stages": {name: {"best_epoch": each.best_epoch, metric: each.best_value} for name, each in found.items()},
            "num_records": {name: len(part) for name, part in judged.items()},
            "num_simulated": self.learned.num_simulated,
            "num_positive": {name: LearnedRows.positives(part) for name, part in judged.items()},
            "positive_weights": self.config.positive_weights,
            "num_parameters": self.num_parameters,
            **self.results(),
            "history": [{"stage": name, **entry} for name, progress in found.items() for entry in progress.history],
        }


def _check_arguments(args: FinetuneArguments) -> None:
    """Rejects arguments that do not make two stages."""
    if args.task != "danet":
        raise ValueError(f"task: expected danet, got {args.task!r}")
    for name in ("joint_epochs", "simulated_records"):
        if getattr(args, name) < 0:
            raise ValueError(f"{name}: expected no negative number, got {getattr(args, name)}")
    rate = args.joint_learning_rate
    if bool(args.joint_epochs) != (rate is not None) or (rate is not None and rate <= 0):
        raise ValueError(
            f"joint_epochs, joint_learning_rate: expected both, and a positive rate, or neither, got "
            f"{args.joint_epochs} and {rate}"
        )
    weight = args.positive_weight
    if weight not in (None, "balanced") and not (isinstance(weight, int | float) and 0 < weight < np.inf):
        raise ValueError(f"positive_weight: expected balanced or a positive number, got {weight!r}")


def _everyone(dataset: Any, args: FinetuneArguments, stratify_by: str | None) -> dict[str, Any]:
    """Trains on every patient; the loop validates on the same, which decides nothing."""
    return {"train": dataset, "valid": dataset}


def _check_thresholds(args: FinetuneArguments, config: DanetConfig) -> None:
    """Rejects thresholds that are no probabilities, and a run on every patient that would need validation."""
    names = config.label_names
    for name, value in args.thresholds.items():
        if name not in names or not isinstance(value, int | float) or not 0 < value < 1:
            raise ValueError(
                f"thresholds: expected a probability for some of {', '.join(names)}, got {name}={value!r}"
            )
    if args.valid_fraction == 0:
        if args.keep_stage != "last" or args.epochs != 1 or args.joint_epochs > 1:
            raise ValueError(
                "valid_fraction: 0 leaves no validation patients; it needs keep_stage last and epochs of 1"
            )
        folds = args.train_folds or args.valid_folds or args.test_folds
        if set(args.thresholds) != set(names) or folds or args.test_fraction or args.label_fraction != 1:
            raise ValueError(
                "valid_fraction: 0 trains on every patient; give each label a threshold, no folds, test_fraction 0, "
                "label_fraction 1"
            )


def _keep_weights(model: nn.Module, stages: dict[str, Progress], folder: Path, keep_stage: str) -> str:
    """Gives the model the weights of the better stage, the earlier one if equal, or of the last; returns its name."""
    last, best = list(stages)[-1], max(stages, key=lambda name: stages[name].best_value or 0.0)
    kept = last if keep_stage == "last" else best
    model.load_state_dict(SavedStates(folder / kept).load_best(stages[kept]))
    return kept


def _pretraining_of(checkpoint: str | None) -> dict[str, Any] | None:
    """The arguments of the checkpoint's pretraining, from its folder; None if it has none or does not say."""
    folder = Path(str(checkpoint))
    metrics = RunFolder(folder).metrics if checkpoint and (folder / "recipe.yaml").is_file() else None
    if metrics is None or metrics.get("task") != "pretraining":  # a fine-tuned network has seen labels
        return None
    recipe = recipe_of(str(folder)) or {}
    recipe["pretext"] = metrics.get("pretext")  # by its name, where the recipe left it to the default
    wanted = ("task", "pretext", "data", "train_folds", "simulated_records", "seed")
    return {name: recipe[name] for name in wanted if recipe.get(name) is not None}


if __name__ == "__main__":
    run_as_program(FinetuneArguments, finetune_danet)
