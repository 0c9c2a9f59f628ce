"""Fine-tuning for survival (Cox) or multi-label classification, from a checkpoint or from scratch.

    ecgdan finetune --config finetune-survival --data-dir ptb-xl --labels outcomes.csv --checkpoint runs/pretrained \
        --output-dir runs/survival
    accelerate launch -m ecgdan_hf.training.finetune --config finetune-survival ...

Survival: loss = survival_weight * Cox + reconstruction_weight * MSE. The epoch is chosen on validation patients, never
on the test folds; the baseline hazard is fitted at the end. Classification: binary cross-entropy for each label,
thresholds by the best F1 on the validation patients.

With few events or labels nothing is trained: the encoder stays as it is, and a linear head is fitted to its
embeddings (`method: few-events`, [`_FewEventsFinetuning`]; `method: linear`, [`_LinearFinetuning`]).
"""

import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from datasets import concatenate_datasets
from scipy.special import expit
from torch import nn
from transformers import PreTrainedModel

from ecgdan_hf.data.sources.registry import find_source
from ecgdan_hf.evaluation.comparators.baselines import RidgeCox
from ecgdan_hf.evaluation.comparators.linear_classifier import LinearClassifier
from ecgdan_hf.evaluation.folds import recipe_of
from ecgdan_hf.evaluation.measures.classification import best_f1_thresholds
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.inference.rows import columns_of, embed, endpoint_table, label_matrix
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import FinetuneArguments, RunArguments, TrainingArguments
from ecgdan_hf.training.arguments.options import check_options
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EpochBatchSampler
from ecgdan_hf.training.core.few_events import FewEventsHead, fit_heads, store_heads
from ecgdan_hf.training.core.loop import LAST_EPOCH
from ecgdan_hf.training.core.run import Split
from ecgdan_hf.training.core.starting_weights import build_model
from ecgdan_hf.training.core.supervised import FinetuningRun
from ecgdan_hf.training.core.tasks import (
    OUTCOME,
    ClassificationTask,
    SurvivalTask,
    collect,
    endpoint_columns,
    outcome_of,
    outcomes_by_risk,
)

logger = logging.getLogger(__name__)

COVARIATE_PENALIZER = 1e-4  # next to none; keeps collinear covariates from diverging
_INTERVALS, _EVENTS_AN_INTERVAL = 10, 10
"""Intervals of a discrete hazard, and events that each of them has at least."""
ANY_EVENT = "any_event"
"""Column that is 1 where any of several endpoints happened."""
_OUTCOME_COLUMNS = ("labels", "scp_codes", ANY_EVENT, *OUTCOME)
_KEPT_BY_LORA = ("ecgdan.", "decoder.")
"""Parts that keep the checkpoint's weights."""

FEW_EVENTS = 250
"""Training events below which no fine-tuning was found to add anything; see docs/few_events.md."""
_ALSO_WITHOUT_TRAINING = ("checkpoint", "model", "batch_size", "precision", "num_workers", "log_with", "progress",
                          "resume", "lead_masking", "lead_masking_probability")  # fmt: skip
_OF_TRAINING = tuple(
    item.name
    for item in dataclasses.fields(TrainingArguments)
    if item.name not in {*_ALSO_WITHOUT_TRAINING, *(item.name for item in dataclasses.fields(RunArguments))}
)
"""Arguments that only training uses."""

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
    if args.method == "auto":
        args = dataclasses.replace(args, method=_method_of(args, split))
    check_options(args)
    if (args.task, args.method) not in _RUNS:
        fitting = " or ".join(method for task, method in _RUNS if task == args.task)
        raise ValueError(f"method: expected {fitting} for task {args.task}, got {args.method}")
    return _RUNS[args.task, args.method](args, network, split).run()


def _method_of(args: FinetuneArguments, split: Split) -> str:
    """The method that `auto` stands for; says it in one line."""
    recipe = Path(str(args.output_dir)) / "recipe.yaml"
    if args.resume and recipe.is_file():
        return str((recipe_of(str(args.output_dir)) or {}).get("method", "fine-tune"))
    changed = next((name for name in _OF_TRAINING if _is_changed(args, name)), None)
    if args.task != "survival" or not args.checkpoint or args.lora_rank or changed:
        return "fine-tune"
    run = SurvivalFinetuning(args, None, split)
    run.check()
    events = run.count_events()
    few = events < FEW_EVENTS
    print(
        f"method: {'few-events' if few else 'fine-tune'}, because there are {events} training events "
        f"({'below' if few else 'at least'} {FEW_EVENTS}); --method decides otherwise",
        file=sys.stderr,
    )
    return "few-events" if few else "fine-tune"


def _is_changed(args: FinetuneArguments, name: str) -> bool:
    field = next(item for item in dataclasses.fields(FinetuneArguments) if item.name == name)
    return bool(getattr(args, name) != field.default)


class _Finetuning(FinetuningRun):
    model_class: Any
    task_class: Any

    def __init__(self, args: FinetuneArguments, network: _Network | None, split: Split):
        super().__init__(args, split)
        self.network = network or self.model_class

    def load(self) -> None:
        dataset = self.read_rows()
        self.divide(dataset)
        _warn_of_another_input(self.config, self.args)
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
            _start_covariates(self.model, self.parts["train"])
        if args.lora_rank:
            _add_lora(self.model, args.lora_rank, self.new_weights)
        if getattr(self.config, "hazard", None) == "discrete" and "risk_head.output.bias" in self.new_weights:
            self.model.start_hazard(**outcome_of(self.parts["train"]))
        self.num_trained = self.num_learned
        collator = self.supervised_collator(self.parts["train"], args)
        self.evaluated = self.supervised_loaders(self.parts)
        self.task = self.task_class(self.config, self.evaluated["valid"])
        if args.keep_epoch == "last":
            self.task.metric, self.task.higher_is_better = LAST_EPOCH, True
        self.trainer = self.trainer_of(self.task, collator, self.sampler())

    def train(self) -> None:
        super().train()
        if self.args.lora_rank:
            _merge_lora(self.model)
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
            "num_parameters": self.num_learned,
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


class SurvivalFinetuning(_Finetuning):
    """Fine-tuning from follow-up."""

    config_class, model_class, task_class = EcgDanSurvivalConfig, EcgDanForSurvival, SurvivalTask

    def divide(self, dataset: Any) -> None:
        """Divides the records by event, and completes the configuration with outcome and covariates."""
        self.describe_outcome(dataset, self.config, self.args)
        self.parts = self.divided(dataset, self.stratum)
        for name, part in self.parts.items():
            self.check_events(part, name)
        valid = self.parts["valid"]
        if not any(FollowUp(*each).has_pair for _, *each in outcomes_by_risk(valid, self.config)):
            raise ValueError(
                "event: expected a validation record still at risk at another's event, to choose the epoch by; none "
                f"of {len(valid)} is; give a larger valid_fraction"
            )
        _add_covariates(self.parts["train"], self.config, self.args)
        if self.args.hazard == "discrete":
            self.config.hazard = "discrete"
            self.config.hazard_cuts = _hazard_cuts(self.parts["train"], self.args)
            self.config.check()
        elif self.args.hazard_cuts:
            raise ValueError(f"hazard_cuts: only hazard discrete has intervals, got {self.args.hazard_cuts} for cox")

    def check_events(self, part: Any, name: str) -> None:
        """Raises a ValueError for a part without an event, or a training part without one of each risk."""
        happened, names = set(part[self.stratum]), self.config.risk_names
        if self.config.endpoint_names:
            table = columns_of(part, endpoint_columns(names))
            happened = {code for code, name in enumerate(names, start=1) if (table[f"event_{name}"] == 1).any()}
        wanted = range(1, 1 + (len(names) if name == "train" else 1))
        absent = next((code for code in wanted if code not in happened), None)
        if absent is not None:
            what = "event" if len(names) == 1 else f"event of {names[absent - 1]} (code {absent})"
            found = f"got none in {len(part)} records"
            raise ValueError(f"event: expected at least one {what} in the {name} part, {found}")

    @property
    def stratum(self) -> str:
        """The column by which parts and batches hold equal shares of events."""
        return ANY_EVENT if self.args.endpoints else "event"

    def read_rows(self) -> Any:
        """The rows with their outcomes; with several endpoints also whether any of them happened."""
        dataset, names = super().read_rows(), _listed(self.args.endpoints)
        if not names:
            if "event" not in dataset.column_names:
                raise ValueError("event: expected one outcome, the data have several; name them with --endpoints")
            return dataset
        for name in names:
            endpoint_table(columns_of(dataset, endpoint_columns(names)), name)
        kept = [column for column in ("event", "time") if column in dataset.column_names]
        happened = columns_of(dataset, [f"event_{name}" for name in names]).max(axis=1).fillna(0.0)
        return dataset.remove_columns(kept).add_column(ANY_EVENT, happened.to_numpy())

    def count_events(self) -> int:
        """Events, of the first of several endpoints, among the records that are trained on or choose the epoch."""
        self.config = self.configuration()
        self.feature_extractor = EcgDanFeatureExtractor(**self.config.signal_contract)
        dataset, names = self.read_rows(), _listed(self.args.endpoints)
        column, parts = f"event_{names[0]}" if names else "event", self.divided(dataset, self.stratum)
        return int(sum(np.sum(np.equal(part[column], 1)) for name, part in parts.items() if name != "test"))

    def sampler(self) -> EpochBatchSampler | None:
        """Batches with equal shares of events, unless `stratify` is off."""
        event, args = self.parts["train"][self.stratum], self.args
        return EpochBatchSampler(len(event), args.batch_size, None if args.stratify is False else event, args.seed)

    def outcome_summary(self) -> dict[str, Any]:
        """What only survival reports: the calibration slope and the covariates."""
        assert isinstance(self.task, SurvivalTask)
        found: dict[str, Any] = {"calibration_slope": self.task.calibration_slope}
        return {**found, "covariates": self._covariates()} if self.args.covariates else found

    def _covariates(self) -> dict[str, Any]:
        """Names, standardisation and missing values of the training part."""
        missing = np.isnan(self.covariates_of(self.parts["train"], self.config)).sum(axis=0).tolist()
        return {
            "names": self.config.covariate_names,
            "means": self.config.covariate_means,
            "stds": self.config.covariate_stds,
            "num_missing": missing,
        }

    @staticmethod
    def describe_outcome(dataset: Any, config: EcgDanSurvivalConfig, args: FinetuneArguments) -> None:
        """Stores in the configuration what the event is, which causes compete with it, and whether it was simulated.

        Raises:
            ValueError: events of causes that `args` does not name.
        """
        told = args.simulated_outcome
        config.simulated_outcome = (
            "log_hazard" in dataset.column_names or find_source(args.data, args.data_dir).is_simulated
            if told is None
            else told
        )
        config.cause_names, config.endpoint_names = _listed(args.causes), _listed(args.endpoints)
        config.check()
        if config.endpoint_names and args.hazard != "cox":
            raise ValueError(f"endpoints: several endpoints need hazard cox, got {args.hazard}")
        _check_codes(dataset, config)
        if config.endpoint_names:
            config.endpoint = config.endpoint_names[0]
        elif config.cause_names:
            config.endpoint = config.cause_names[0]
        elif args.endpoint:
            config.endpoint = args.endpoint
        elif config.simulated_outcome:
            config.endpoint = "simulated event"

    @staticmethod
    def covariate_table(dataset: Any, args: FinetuneArguments) -> pd.DataFrame | None:
        """The covariates that `args` names, one row per record and one column per number; None without any."""
        columns = [name.strip() for name in (args.covariates or "").split(",") if name.strip()]
        if not columns:
            return None
        table = columns_of(dataset, Covariates(columns).columns)
        found = Covariates.expanded(table, columns, args.missing_covariates or "mean")
        return pd.DataFrame(found.matrix(table), columns=found.names)


class _FrozenFinetuning(_Finetuning):
    """A linear head on a frozen encoder.

    Nothing is chosen on validation patients, so they are fitted to as well.
    """

    unused: tuple[str, ...] = ("lora_rank", "keep_epoch", "auxiliary_level", "teachers")
    """Arguments that the method does not use, besides those of training."""

    def check(self) -> None:
        """Rejects arguments that only training uses, and a run without an encoder."""
        super().check()
        args, method = self.args, self.args.method
        if not args.checkpoint:
            raise ValueError(f"checkpoint: method {method} needs a pretrained encoder, got none; give --checkpoint")
        for name in (*_OF_TRAINING, *self.unused):
            if _is_changed(args, name):
                raise ValueError(f"{name}: only method fine-tune uses it, got method {method}; leave it out")

    def fitted_and_test(self, parts: dict[str, Any]) -> dict[str, Any]:
        """The records that are fitted to, under "train", and those of the test."""
        tested = {"test": parts["test"]} if "test" in parts else {}
        return {"train": concatenate_datasets([parts["train"], parts["valid"]]), **tested}

    def build(self) -> None:
        """Builds the network around the checkpoint's encoder."""
        self.model, self.new_weights = build_model(self.network, self.config, self.args.checkpoint)
        self.config = self.model.config
        self.model.to(self.accelerator.device).eval()

    def earlier_seconds(self) -> float:
        """None: an interrupted fit begins again."""
        return 0.0

    def predict_test(self) -> None:
        """Predicts the test records; there is no validation."""
        tested = {name: part for name, part in self.parts.items() if name == "test"}
        loaders = self.supervised_loaders(tested)
        self.task = self.task_class(self.config, cast(Any, loaders.get("test")))
        self.predictions = {
            name: self.task.predictions(self.model, loader, tested[name], self.accelerator)
            for name, loader in loaders.items()
        }


class _LinearFinetuning(_FrozenFinetuning, _ClassificationFinetuning):
    """Logistic regression for each label on the embeddings of a frozen encoder; thresholds by cross-validation."""

    head: LinearClassifier

    def divide(self, dataset: Any) -> None:
        """Divides the records into those that are fitted to and those of the test."""
        self.name_labels(dataset)
        self.config.classifier_hidden_size = self.config.num_auxiliary_labels = 0
        self.parts = self.fitted_and_test(self.divided(dataset, None))

    def train(self) -> None:
        """Fits the head and its thresholds, and predicts the test records."""
        train = self.parts["train"]
        loader = self.supervised_loaders({"train": train})["train"]
        embeddings = collect(self.model, loader, self._embed, self.accelerator)["embeddings"].astype(np.float64)
        labels, patients = label_matrix(train), np.asarray(train["patient_id"])
        self.head = LinearClassifier.fit(embeddings, labels, patients)
        parts = self.head.mean, self.head.scale, self.head.weights, self.head.bias
        self.model.classifier.store_linear(*(torch.from_numpy(part) for part in parts))
        self.config.thresholds = self._thresholds(labels)
        self.predict_test()

    def _thresholds(self, labels: np.ndarray) -> dict[str, float]:
        """By F1 of patients that a fit did not see; 0.5 where there are too few of them."""
        probabilities = expit(self.head.unseen_logits)
        known = ~np.isnan(probabilities)
        return best_f1_thresholds(
            np.where(known, labels, 0), np.where(known, probabilities, 0), self.config.label_names
        )

    @staticmethod
    def _embed(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"embeddings": model(batch["input_values"], batch["lead_mask"]).pooler_output}

    def summary(self) -> dict[str, Any]:
        """What was fitted, and the metrics of the test part."""
        start, names = self.starting_point(), self.config.label_names
        positives = label_matrix(self.parts["train"]).sum(axis=0).astype(int).tolist()
        penalties = [None if np.isnan(value) else value for value in self.head.inverse_penalties.tolist()]
        return {
            "task": "classification",
            "method": "linear",
            "simulated_outcome": False,
            "checkpoint": start["checkpoint"],
            **({"shuffled_labels": True} if self.args.shuffle_labels else {}),
            "new_weights": start["new_weights"],
            "num_records": {name: len(part) for name, part in self.parts.items()},
            "num_positives": dict(zip(names, positives, strict=True)),
            "inverse_penalties": dict(zip(names, penalties, strict=True)),
            "num_parameters": sum(weights.numel() for weights in self.model.parameters()),
            **self.results(),
        }


class _FewEventsFinetuning(_FrozenFinetuning, SurvivalFinetuning):
    """A linear risk head, shrunk by evidence: for as few as fifteen events."""

    heads: list[FewEventsHead]
    unused = (*_FrozenFinetuning.unused, "hazard", "hazard_cuts")

    def divide(self, dataset: Any) -> None:
        """Divides the records into those that are fitted to and those of the test."""
        self.describe_outcome(dataset, self.config, self.args)
        self.parts = self.fitted_and_test(self.divided(dataset, self.stratum))
        self.check_events(self.parts["train"], "train")
        self.config.survival_hidden_size, self.config.reconstruction_weight = 0, 0.0
        _add_covariates(self.parts["train"], self.config, self.args)

    def train(self) -> None:
        """Fits head and baseline, and predicts the test records."""
        train, args = self.parts["train"], self.args
        embeddings = embed(self.model, train, args.batch_size)
        covariates = self.covariates_of(train, self.config).astype(np.float64)
        covariates = covariates if covariates.shape[1] else np.empty((len(train), 0))
        standardised = np.nan_to_num((covariates - self.config.covariate_means) / self.config.covariate_stds)
        self.heads = fit_heads(embeddings, standardised, outcomes_by_risk(train, self.config))
        store_heads(self.model, self.heads)
        log_hazards = np.stack([head.log_hazard(embeddings, standardised) for head in self.heads], axis=1)
        fitted = log_hazards if len(self.heads) > 1 else log_hazards[:, 0]
        self.model.fit_baseline(torch.from_numpy(fitted), **outcome_of(train, self.config.endpoint_names))
        self.predict_test()

    def summary(self) -> dict[str, Any]:
        """What was fitted, how far it was shrunk, and the metrics of the test part."""
        num_events = {
            name: int((outcomes_by_risk(part, self.config)[0][1] == 1).sum()) for name, part in self.parts.items()
        }
        start, names = self.starting_point(), self.config.risk_names
        further = {name: head.summary() for name, head in zip(names[1:], self.heads[1:], strict=True)}
        return {
            "task": "survival",
            "method": "few-events",
            "simulated_outcome": self.config.simulated_outcome,
            "checkpoint": start["checkpoint"],
            **({"shuffled_labels": True} if self.args.shuffle_labels else {}),
            "new_weights": start["new_weights"],
            **({"covariates": self._covariates()} if self.args.covariates else {}),
            "num_records": {name: len(part) for name, part in self.parts.items()},
            "num_events": num_events,
            **self.heads[0].summary(),
            **({f"further_{'endpoints' if self.config.endpoint_names else 'causes'}": further} if further else {}),
            "num_parameters": sum(weights.numel() for weights in self.model.parameters()),
            **self.results(),
        }


_RUNS: dict[tuple[str, str], type[_Finetuning]] = {
    ("survival", "fine-tune"): SurvivalFinetuning,
    ("survival", "few-events"): _FewEventsFinetuning,
    ("classification", "fine-tune"): _ClassificationFinetuning,
    ("classification", "linear"): _LinearFinetuning,
}


def _add_covariates(train: Any, config: EcgDanSurvivalConfig, args: FinetuneArguments) -> None:
    """Stores the covariates' names, and their mean and SD in the training part.

    A covariate that does not vary there is left out with a warning: it has no scale.
    """
    values = SurvivalFinetuning.covariate_table(train, args)
    if values is None:
        return
    names = values.columns.tolist()
    varying = [name for name in names if values[name].nunique() > 1]
    if not varying:
        raise ValueError(f"covariates: expected {names[0]!r} to vary among the training records, it does not")
    for name in sorted(set(names) - set(varying)):
        logger.warning("covariates: %s does not vary among the training records and is left out", name)
    config.covariate_names = varying
    config.covariate_means = values[varying].mean().tolist()
    config.covariate_stds = values[varying].std(ddof=0).tolist()


@torch.no_grad()
def _start_covariates(model: EcgDanForSurvival, train: Any) -> None:
    """Initialises the covariates' weights with those of a Cox model of the covariates alone.

    A few hundred small steps would not take them there.
    """
    if model.covariate_head is None:
        return
    config, values = model.config, FinetuningRun.covariates_of(train, model.config)
    values = np.nan_to_num((values - config.covariate_means) / config.covariate_stds)
    outcomes = outcomes_by_risk(train, config)
    for weights, (known, codes, times) in zip(model.covariate_head.weight, outcomes, strict=True):
        fitted = RidgeCox.fit(values[known], codes, times, penalizer=COVARIATE_PENALIZER)
        weights.copy_(torch.from_numpy(fitted.weights / fitted.scale))


def _listed(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _check_codes(dataset: Any, config: EcgDanSurvivalConfig) -> None:
    """Raises a ValueError for events of causes without a name."""
    if config.endpoint_names:
        return  # the table was checked: 0 and 1 alone
    known = len(config.cause_names) or 1
    highest = int(np.nanmax(np.asarray(dataset["event"], dtype=np.float64), initial=0))
    if highest > known:
        have = f"names for {known} causes" if config.cause_names else "0 (censored) and 1 (happened)"
        raise ValueError(
            f"event: expected {have}, got {highest}; name the causes 1, 2, ... with --causes, the endpoint first, as "
            '--causes "heart failure,death"'
        )


def _hazard_cuts(train: Any, args: FinetuneArguments) -> list[float]:
    """Years at which intervals of a discrete hazard begin and end: as given, or with equal shares of the events."""
    time, event = np.asarray(train["time"], dtype=np.float64), np.asarray(train["event"])
    if args.hazard_cuts:
        try:
            return [float(part) for part in args.hazard_cuts.split(",")]
        except ValueError as error:
            raise ValueError(f"hazard_cuts: expected years as 0,1,2,5, got {args.hazard_cuts!r}") from error
    shares = np.linspace(0, 1, min(_INTERVALS, max(int((event > 0).sum()) // _EVENTS_AN_INTERVAL, 1)) + 1)[1:-1]
    inner = np.quantile(time[event > 0], shares)
    return sorted({0.0, *np.round(inner, 3).tolist(), float(np.ceil(time.max() * 1000) / 1000)})


def _warn_of_another_input(config: EcgDanConfig, args: FinetuneArguments) -> None:
    """Warns where the checkpoint reads 10 s of rhythm and the recipe, which does not mention it, median beats."""
    told = "input_kind" in args.model or "trunk" in args.model or args.lora_rank or args.method != "fine-tune"
    if args.checkpoint and not told and config.input_kind == "rhythm":
        logger.warning(
            "checkpoint: %s reads 10 s of rhythm by the %s trunk, which the recipe does not mention; "
            "finetune-%s is made for it",
            args.checkpoint,
            config.trunk,
            "survival-rhythm" if args.task == "survival" else "rhythm",
        )


def _with_shuffled_labels(part: Any, seed: int) -> Any:
    """The part with labels and follow-up permuted among its records.

    A network trained on it learns nothing about the ECG (Adebayo et al., NeurIPS 2018, section 4). The validation part
    is permuted too, because choosing an epoch by true labels would leak them.
    """
    names = [name for name in part.column_names if name in _OUTCOME_COLUMNS or name.startswith(("event_", "time_"))]
    order = np.random.default_rng(seed).permutation(len(part))
    return concatenate_datasets([part.remove_columns(names), part.select_columns(names).select(order)], axis=1)


def _lora_targets(model: PreTrainedModel) -> list[str]:
    """Names of the encoder's linear layers and convolutions; those grouped by lead are left as they are."""
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [
        name
        for name, module in model.named_modules()
        if name.startswith("ecgdan.") and isinstance(module, layers) and getattr(module, "groups", 1) == 1
    ]


def _add_lora(model: PreTrainedModel, rank: int, new_weights: Sequence[str] = ()) -> None:
    """Puts low-rank updates into the encoder in place (LoRA, Hu et al. 2021); its answers do not change yet.

    The updates, the head and `new_weights` (names) will learn. peft keeps the names of the network, so that the loop
    saves and resumes it as any other.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("lora_rank: needs peft; pip install peft, or leave it out to train every weight") from error
    learned = {name for name, _ in model.named_parameters() if not name.startswith(_KEPT_BY_LORA)} | set(new_weights)
    head = [parameter for name, parameter in model.named_parameters() if name in learned]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_lora_targets(model)), model)
    for parameter in head:
        parameter.requires_grad_(True)


def _merge_lora(model: PreTrainedModel) -> None:
    """Adds the updates to the weights, in place; the network is then an ordinary one, which needs no peft."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    model.requires_grad_(True)


if __name__ == "__main__":
    run_as_program(FinetuneArguments, finetune)
