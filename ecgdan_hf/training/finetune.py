"""Fine-tuning for survival (Cox) or multi-label classification, from a checkpoint or from scratch.

    ecgdan finetune --config finetune-survival --data-dir ptb-xl --labels outcomes.csv --checkpoint runs/pretrained \
        --output-dir runs/survival
    accelerate launch -m ecgdan_hf.training.finetune --config finetune-survival ...

Survival: loss = survival_weight * Cox + reconstruction_weight * MSE. The epoch is chosen on validation patients, never
on the test folds; the baseline hazard is fitted at the end. Classification: binary cross-entropy for each label,
thresholds by the best F1 on the validation patients.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import concatenate_datasets

from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.evaluation.measures.concordance import has_pair
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.covariates import add_covariates, covariates_of, start_covariates
from ecgdan_hf.training.core.further_labels import soften_labels
from ecgdan_hf.training.core.lora import add_lora, merge_lora
from ecgdan_hf.training.core.run import Split
from ecgdan_hf.training.core.sampling import EpochBatchSampler
from ecgdan_hf.training.core.starting_weights import build_model, count_parameters
from ecgdan_hf.training.core.supervised import FinetuningRun, supervised_collator
from ecgdan_hf.training.core.tasks import ClassificationTask, SurvivalTask

_OUTCOME_COLUMNS = ("labels", "scp_codes", "event", "time")

_Network = Callable[[EcgDanConfig], Any]


def finetune(args: FinetuneArguments, network: _Network | None = None, split: Split = rows.split) -> dict[str, Any]:
    """Fine-tunes, and writes a checkpoint folder with `metrics.json` and `predictions.csv`.

    Args:
        args: what to train, on what, for how long.
        network: builds another network of the same interface from the configuration, to compare with ours.
        split: divides the rows in another way than the folds and fractions of `args`.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    if args.task == "danet":
        raise ValueError("task: danet is trained by `ecgdan finetune` or ecgdan_hf.training.finetune_danet")
    kind = _SurvivalFinetuning if args.task == "survival" else _ClassificationFinetuning
    return kind(args, network, split).run()


class _Finetuning(FinetuningRun):
    model_class: Any
    task_class: Any

    def __init__(self, args: FinetuneArguments, network: _Network | None, split: Split):
        super().__init__(args, split)
        self.network = network or self.model_class

    def load(self) -> None:
        dataset = self.read_rows()
        self.divide(dataset)
        if self.args.shuffle_labels:
            shuffled = {name: _with_shuffled_labels(self.parts[name], self.args.seed) for name in ("train", "valid")}
            self.parts |= shuffled

    def divide(self, dataset: Any) -> None:
        raise NotImplementedError

    def sampler(self) -> EpochBatchSampler | None:
        return None

    def build(self) -> None:
        args = self.args
        self.model, self.new_weights = build_model(self.network, self.config, args.checkpoint)
        self.config = self.model.config
        if head_of(self.model).is_survival and (not args.checkpoint or "covariate_head.weight" in self.new_weights):
            start_covariates(self.model, self.parts["train"])
        if args.lora_rank:
            add_lora(self.model, args.lora_rank, self.new_weights)
        self.num_trained = count_parameters(self.model)
        collator = supervised_collator(self.parts["train"], self.config, args)
        if args.teachers:
            collator = soften_labels(collator, self.parts["train"], self.config, args)
        self.evaluated = self.supervised_loaders(self.parts)
        self.task = self.task_class(self.config, self.evaluated["valid"])
        self.trainer = self.trainer_of(self.task, collator, self.sampler())

    def train(self) -> None:
        super().train()
        if self.args.lora_rank:
            merge_lora(self.model)
        self.predict(self.evaluated)

    def summary(self) -> dict[str, Any]:
        args, progress = self.args, self.trainer.progress
        updates = {"lora_rank": args.lora_rank, "num_trained_parameters": self.num_trained} if args.lora_rank else {}
        start = self.starting_point()
        return {
            "task": args.task,
            "simulated_outcome": getattr(self.config, "simulated_outcome", False),
            "checkpoint": start["checkpoint"],
            **({"shuffled_labels": True} if args.shuffle_labels else {}),
            "new_weights": start["new_weights"],
            "best_epoch": progress.best_epoch,
            **self.outcome_summary(),
            "num_records": {name: len(part) for name, part in self.parts.items()},
            "num_parameters": count_parameters(self.model),
            **updates,
            **self.results(),
            "history": progress.history,
        }

    def outcome_summary(self) -> dict[str, Any]:
        return {}


class _ClassificationFinetuning(_Finetuning):
    config_class, model_class, task_class = EcgDanConfig, EcgDanForSequenceClassification, ClassificationTask

    def divide(self, dataset: Any) -> None:
        self.name_labels(dataset)
        self.parts = self.divided(dataset, None)


class _SurvivalFinetuning(_Finetuning):
    config_class, model_class, task_class = EcgDanSurvivalConfig, EcgDanForSurvival, SurvivalTask

    def divide(self, dataset: Any) -> None:
        self.parts = self.divided(dataset, "event")
        for name, part in self.parts.items():
            if not np.any(part["event"]):
                raise ValueError(
                    f"event: expected at least one event in the {name} part, got none in {len(part)} records"
                )
        valid = self.parts["valid"]
        if not has_pair(valid["event"], valid["time"]):
            raise ValueError(
                "event: expected a validation record still at risk at another's event, to choose the epoch by; none "
                f"of {len(valid)} is; give a larger valid_fraction"
            )
        describe_outcome(dataset, self.config, self.args)
        add_covariates(self.parts["train"], self.config, self.args)

    def sampler(self) -> EpochBatchSampler | None:
        event, args = self.parts["train"]["event"], self.args
        return EpochBatchSampler(len(event), args.batch_size, None if args.stratify is False else event, args.seed)

    def outcome_summary(self) -> dict[str, Any]:
        assert isinstance(self.task, SurvivalTask)
        found: dict[str, Any] = {"calibration_slope": self.task.calibration_slope}
        return {**found, "covariates": self._covariates()} if self.args.covariates else found

    def _covariates(self) -> dict[str, Any]:
        """Names, standardisation and missing values of the training part."""
        missing = np.isnan(covariates_of(self.parts["train"], self.config)).sum(axis=0).tolist()
        return {
            "names": self.config.covariate_names,
            "means": self.config.covariate_means,
            "stds": self.config.covariate_stds,
            "num_missing": missing,
        }


def describe_outcome(dataset: Any, config: EcgDanSurvivalConfig, args: FinetuneArguments) -> None:
    """Stores in the configuration what the event is, and whether it was simulated."""
    told = args.simulated_outcome
    config.simulated_outcome = (
        "log_hazard" in dataset.column_names or find_source(args.data, args.data_dir).is_simulated
        if told is None
        else told
    )
    if args.endpoint:
        config.endpoint = args.endpoint
    elif config.simulated_outcome:
        config.endpoint = "simulated event"


def _with_shuffled_labels(part: Any, seed: int) -> Any:
    """The part with labels and follow-up permuted among its records.

    A network trained on it learns nothing about the ECG (Adebayo et al., NeurIPS 2018, section 4). The validation part
    is permuted too, because choosing an epoch by true labels would leak them.
    """
    names = [name for name in _OUTCOME_COLUMNS if name in part.column_names]
    order = np.random.default_rng(seed).permutation(len(part))
    return concatenate_datasets([part.remove_columns(names), part.select_columns(names).select(order)], axis=1)


if __name__ == "__main__":
    run_as_program(FinetuneArguments, finetune)
