"""Fine-tuning for survival (Cox) or multi-label classification, from a checkpoint or from scratch.

    ecgdan finetune --config finetune-survival --data-dir ptb-xl --labels outcomes.csv --checkpoint runs/pretrained \
        --output-dir runs/survival
    accelerate launch -m ecgdan_hf.training.finetune --config finetune-survival ...

Survival: loss = survival_weight * Cox + reconstruction_weight * MSE. The epoch is chosen on validation patients, never
on the test folds; the baseline hazard is fitted at the end. Classification: binary cross-entropy for each label,
thresholds by the best F1 on the validation patients.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from datasets import concatenate_datasets
from torch.utils.data import DataLoader

from ecgdan_hf.data.sources import ptbxl
from ecgdan_hf.data.text.statements import read_statements
from ecgdan_hf.evaluation.comparators.baselines import (
    fit_ridge_cox,
)
from ecgdan_hf.evaluation.measures.concordance import has_pair
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.inference.covariates import covariate_matrix, expand_covariates, source_columns
from ecgdan_hf.inference.heads import head_of, weight_columns
from ecgdan_hf.inference.rows import columns_of
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EcgCollator, EpochBatchSampler, check_augmentation, multi_hot
from ecgdan_hf.training.core.collect import evaluation_loader
from ecgdan_hf.training.core.distillation import mean_probabilities
from ecgdan_hf.training.core.loop import Trainer, TrainingSet, build_accelerator
from ecgdan_hf.training.core.lora import add_lora, merge_lora
from ecgdan_hf.training.core.run_folder import begin_run, check_run, finish_run, is_finished, read_metrics
from ecgdan_hf.training.core.starting_weights import build_config, build_model, count_parameters
from ecgdan_hf.training.core.tasks import ClassificationTask, FinetuningTask, SurvivalTask, write_predictions

logger = logging.getLogger(__name__)

MODELS = {"survival": EcgDanForSurvival, "classification": EcgDanForSequenceClassification}
TASKS = {"survival": SurvivalTask, "classification": ClassificationTask}
OUTCOME_COLUMNS = ("labels", "scp_codes", "event", "time")
COVARIATE_PENALIZER = 1e-4  # next to none; keeps covariates that say the same from running apart


Split = Callable[[Any, FinetuneArguments, str | None], rows.Parts]


def run(
    args: FinetuneArguments, network: Callable[[EcgDanConfig], Any] | None = None, split: Split = rows.split
) -> dict[str, Any]:
    """Fine-tunes, and leaves a checkpoint folder with `metrics.json` and `predictions.csv`.

    Args:
        args: what, on what, how long.
        network: builds another network of the same interface from the configuration, to compare with ours.
        split: divides the rows in another way than the folds and fractions of `args` say.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    started, folder = time.monotonic(), check_run(args)
    check_arguments(args)
    if args.task not in MODELS:
        raise ValueError("task: danet is trained by `ecgdan finetune` or ecgdan_hf.training.finetune_danet")
    if args.resume and is_finished(folder):
        return read_metrics(folder)
    kind = EcgDanSurvivalConfig if args.task == "survival" else EcgDanConfig
    config = build_config(kind, args.model, args.checkpoint)
    check_augmentation(args, config)
    feature_extractor = EcgDanFeatureExtractor(**config.signal_contract)
    dataset = rows.load_dataset(args, feature_extractor, outcomes=args.labels, label_level=args.label_level)
    parts = prepare(dataset, config, args, split)
    if args.shuffle_labels:
        parts |= {name: with_shuffled_labels(parts[name], args.seed) for name in ("train", "valid")}
    accelerator = build_accelerator(args, folder)
    model, new_weights = build_model(network or MODELS[args.task], config, args.checkpoint)
    config = model.config
    if head_of(model).is_survival and (not args.checkpoint or "covariate_head.weight" in new_weights):
        start_covariates(model, parts["train"])
    if args.lora_rank:
        add_lora(model, args.lora_rank, new_weights)
    num_trained = count_parameters(model)
    collator = build_collator(parts["train"], config, args)
    if args.teachers:
        collator = soften(collator, parts["train"], config, args)
    loaders = build_loaders(parts, config, args, accelerator)
    task: FinetuningTask = TASKS[args.task](config, loaders["valid"])
    event = parts["train"]["event"] if args.task == "survival" and args.stratify is not False else None
    sampler = EpochBatchSampler(len(parts["train"]), args.batch_size, event, seed=args.seed)
    trainer = Trainer(model, task, TrainingSet(parts["train"], sampler, collator), args, folder, accelerator)
    if accelerator.is_main_process:
        begin_run(folder, args)
    accelerator.wait_for_everyone()
    progress = trainer.run()
    if args.lora_rank:
        merge_lora(model)
    predictions = finish_and_predict(task, model, parts, loaders, accelerator)
    metrics: dict[str, Any] = {
        "task": args.task,
        "simulated_outcome": getattr(config, "simulated_outcome", False),
        "checkpoint": args.checkpoint or "random weights",
        **({"shuffled_labels": True} if args.shuffle_labels else {}),
        "new_weights": new_weights if args.checkpoint else "all",
        "best_epoch": progress.best_epoch,
        **({"calibration_slope": task.calibration_slope} if isinstance(task, SurvivalTask) else {}),
        **({"covariates": covariate_summary(parts["train"], config)} if args.covariates else {}),
        "num_records": {name: len(part) for name, part in parts.items()},
        "num_parameters": count_parameters(model),
        **({"lora_rank": args.lora_rank, "num_trained_parameters": num_trained} if args.lora_rank else {}),
        **{name: summary_or_reason(task, table, args) for name, table in predictions.items()},
        **by_sex_and_age(task, predictions.get("test"), args),
        "history": progress.history,
        "seconds": round(time.monotonic() - started, 1),
    }
    if accelerator.is_main_process:
        finish_run(
            folder,
            lambda staging: write_result(staging, model, feature_extractor, predictions),
            Result("finetune", metrics),
        )
    accelerator.wait_for_everyone()
    return metrics


def check_arguments(args: FinetuneArguments) -> None:
    """Refuses arguments that contradict each other or that the task would ignore.

    Raises:
        ValueError: see above.
    """
    if bool(args.checkpoint) == args.from_scratch:
        found = "both" if args.from_scratch else "neither"
        raise ValueError(f"checkpoint, from_scratch: expected exactly one of the two, got {found}")
    if args.lora_rank < 0:
        raise ValueError(f"lora_rank: expected one or more, or 0 to train every weight, got {args.lora_rank}")
    if args.lora_rank and not args.checkpoint:
        raise ValueError(f"lora_rank: expected a checkpoint whose weights to update, got rank {args.lora_rank} alone")
    if args.shuffle_labels and args.teachers:
        raise ValueError("shuffle_labels, teachers: teachers know the labels that were dealt anew; leave one out")
    if not 0 <= args.teacher_weight <= 1:
        raise ValueError(f"teacher_weight: expected a share between 0 and 1, got {args.teacher_weight}")
    if args.task == "survival" and args.data in ("ptb-xl", "wfdb") and not args.labels:
        raise ValueError(f"labels: {args.data} has no follow-up of its own; give an outcomes table with --labels")


def prepare(dataset: Any, config: EcgDanConfig, args: FinetuneArguments, split: Split = rows.split) -> dict[str, Any]:
    """Splits the rows and completes the configuration with what only the data know.

    Raises:
        ValueError: no labels in the data, or a part without events.
    """
    if args.task == "survival":
        parts = {name: part for name, part in vars(split(dataset, args, "event")).items() if part is not None}
        for name, part in parts.items():
            if not np.any(part["event"]):
                raise ValueError(
                    f"event: expected at least one event in the {name} part, got none in {len(part)} records"
                )
        if not has_pair(parts["valid"]["event"], parts["valid"]["time"]):
            raise ValueError(
                "event: expected a validation record still at risk at another's event, to choose the epoch by; none "
                f"of {len(parts['valid'])} is; give a larger valid_fraction"
            )
        describe_outcome(dataset, config, args)
        add_covariates(parts["train"], config, args)
        return parts
    if "labels" not in dataset.column_names:
        raise ValueError("labels: classification needs a labels column, the data have none")
    names = dataset.features["labels"].feature.names
    config.id2label = dict(enumerate(names))
    config.label2id = {name: label for label, name in enumerate(names)}
    config.problem_type = "multi_label_classification"
    config.num_auxiliary_labels = len(auxiliary_names(args))
    by = "labels" if args.task == "danet" else None
    return {name: part for name, part in vars(split(dataset, args, by)).items() if part is not None}


def with_shuffled_labels(part: Any, seed: int) -> Any:
    """The part with each record's labels and follow-up dealt to another record, as often as they occur.

    What a network learns from it is nothing about the ECG (Adebayo et al., NeurIPS 2018, section 4). The validation
    part is dealt anew too, for whoever chooses an epoch by true labels has learned from them.
    """
    names = [name for name in OUTCOME_COLUMNS if name in part.column_names]
    order = np.random.default_rng(seed).permutation(len(part))
    return concatenate_datasets([part.remove_columns(names), part.select_columns(names).select(order)], axis=1)


def describe_outcome(dataset: Any, config: EcgDanSurvivalConfig, args: FinetuneArguments) -> None:
    """Says in the configuration what the event is, and whether it was simulated."""
    told = args.simulated_outcome
    config.simulated_outcome = (
        "log_hazard" in dataset.column_names or args.data == "synthetic" if told is None else told
    )
    if args.endpoint:
        config.endpoint = args.endpoint
    elif config.simulated_outcome:
        config.endpoint = "simulated event"


def add_covariates(train: Any, config: EcgDanSurvivalConfig, args: FinetuneArguments) -> None:
    """Stores the covariates' names and their mean and SD in the training part.

    One that does not vary there is left out, with a warning: it says nothing and has no scale.

    Raises:
        ValueError: a column that is missing, nothing that varies, or what [`expand_covariates`] refuses.
    """
    columns = [name.strip() for name in (args.covariates or "").split(",") if name.strip()]
    if not columns:
        return
    table = columns_of(train, source_columns(columns))
    names = expand_covariates(table, columns, args.missing_covariates or "mean")
    values = pd.DataFrame(covariate_matrix(table, names), columns=names)
    varying = [name for name in names if values[name].nunique() > 1]
    if not varying:
        raise ValueError(f"covariates: expected {names[0]!r} to vary among the training records, it does not")
    for name in sorted(set(names) - set(varying)):
        logger.warning("covariates: %s does not vary among the training records and is left out", name)
    config.covariate_names = varying
    config.covariate_means = values[varying].mean().tolist()
    config.covariate_stds = values[varying].std(ddof=0).tolist()


@torch.no_grad()
def start_covariates(model: EcgDanForSurvival, train: Any) -> None:
    """Starts the covariates at their own Cox model: a few hundred small steps would not take them there."""
    config = model.config
    if model.covariate_head is None:
        return
    values = covariates_of(train, config)
    values = np.nan_to_num((values - config.covariate_means) / config.covariate_stds)
    fitted = fit_ridge_cox(values, train["event"], train["time"], penalizer=COVARIATE_PENALIZER)
    model.covariate_head.weight.copy_(torch.from_numpy(fitted.weights / fitted.scale)[None])


def covariates_of(part: Any, config: EcgDanSurvivalConfig) -> np.ndarray:
    """(records, covariates) of these rows, NaN where unknown."""
    names = config.covariate_names
    return covariate_matrix(columns_of(part, source_columns(names)), names)


def covariate_summary(part: Any, config: EcgDanSurvivalConfig) -> dict[str, Any]:
    """Names, standardisation and missing values of the training part, for `metrics.json`."""
    missing = np.isnan(covariates_of(part, config)).sum(axis=0).tolist()
    return {
        "names": config.covariate_names,
        "means": config.covariate_means,
        "stds": config.covariate_stds,
        "num_missing": missing,
    }


def auxiliary_names(args: FinetuneArguments) -> list[str]:
    """Names of the labels of `auxiliary_level`; none without it."""
    if args.auxiliary_level is None:
        return []
    names = ptbxl.names_by_code(read_statements(str(args.data_dir)), args.auxiliary_level)
    return ptbxl.label_names(names, args.auxiliary_level)


def auxiliary_targets(part: Any, args: FinetuneArguments) -> np.ndarray:
    """(records, labels of `auxiliary_level`) of 0 and 1."""
    name_of_code = ptbxl.names_by_code(read_statements(str(args.data_dir)), str(args.auxiliary_level))
    position = {name: column for column, name in enumerate(auxiliary_names(args))}
    records = [{name_of_code.get(code) for code in json.loads(codes)} for codes in part["scp_codes"]]
    numbers = [[position[name] for name in names if name in position] for names in records]
    return multi_hot(numbers, len(position)).numpy()


def soften(collator: EcgCollator, train: Any, config: EcgDanConfig, args: FinetuneArguments) -> EcgCollator:
    """The collator with labels drawn towards the teachers' mean probability (Hinton et al., 2015).

    Raises:
        ValueError: a teacher that is no classifier of the same labels.
    """
    names = [config.id2label[label] for label in range(config.num_labels)]
    hard = multi_hot(train["labels"], len(names)).numpy()
    soft = mean_probabilities(str(args.teachers).split(","), train["record_id"], names, args)
    mixed = ((1 - args.teacher_weight) * hard + args.teacher_weight * soft).astype(np.float32)
    return replace(collator, num_labels=0, lookups={**collator.lookups, "labels": mixed})


def build_collator(part: Any, config: EcgDanConfig, args: FinetuneArguments) -> EcgCollator:
    """Rows of this part -> what the task's model takes."""
    survival = isinstance(config, EcgDanSurvivalConfig)
    lookups = {"covariates": covariates_of(part, config)} if survival and config.covariate_names else {}
    if args.auxiliary_level:
        lookups["auxiliary_targets"] = auxiliary_targets(part, args)
    return EcgCollator(
        lead_names=config.lead_names,
        num_pad=config.pad_samples,
        lead_masking=args.lead_masking,
        lead_masking_probability=args.lead_masking_probability,
        span_masking_probability=args.span_masking_probability,
        crop_samples=args.crop_samples,
        augment_scale=args.augment_scale,
        augment_noise=args.augment_noise,
        lookups=lookups,
        with_target=survival and config.reconstruction_weight > 0,
        columns=("event", "time") if survival else (),
        sample_columns=weight_columns(config),
        num_labels=0 if survival else config.num_labels,
        seed=args.seed,
    )


def build_loaders(
    parts: dict[str, Any], config: EcgDanConfig, args: FinetuneArguments, accelerator: Accelerator
) -> dict[str, DataLoader]:
    """Each part in its order, as it is evaluated."""
    return {
        name: evaluation_loader(part, build_collator(part, config, args).still(), args.batch_size, accelerator)
        for name, part in parts.items()
    }


def finish_and_predict(
    task: FinetuningTask, model: Any, parts: dict[str, Any], loaders: dict[str, DataLoader], accelerator: Accelerator
) -> dict[str, pd.DataFrame]:
    """Fits what comes after the weights, and predicts the parts that were not trained on."""
    task.finish(model, loaders["train"], accelerator)
    return {
        name: task.predictions(model, loaders[name], parts[name], accelerator) for name in parts if name != "train"
    }


def summary_or_reason(task: FinetuningTask, predictions: pd.DataFrame, args: FinetuneArguments) -> dict[str, Any]:
    """The summary, or why a part is too small for one: hours of training are not thrown away for it."""
    try:
        return task.summary(predictions, args.bootstrap, args.seed)
    except ValueError as error:
        return {"not_estimable": str(error)}


def by_sex_and_age(task: FinetuningTask, predictions: pd.DataFrame | None, args: FinetuneArguments) -> dict[str, Any]:
    """Under `subgroups` how the test part does by sex and age; nothing without a test part."""
    return {} if predictions is None else {"subgroups": task.subgroups(predictions, args.bootstrap, args.seed)}


def write_result(
    staging: Path, model: Any, feature_extractor: EcgDanFeatureExtractor, predictions: dict[str, pd.DataFrame]
) -> None:
    """Fills the folder that becomes the result."""
    model.save_pretrained(staging)
    feature_extractor.save_pretrained(staging)
    write_predictions(staging, predictions)


if __name__ == "__main__":
    run_as_program(FinetuneArguments, run)
