"""Pretraining of DANet without labels, under the rule of one disease.

    ecgdan pretrain --config pretrain-danet --data-dir ptb-xl --output-dir runs/danet-pretrained
    accelerate launch -m ecgdan_hf.training.pretrain_danet --config pretrain-danet ...

Three pretexts:

* `simulated-beats`: in regular recordings beats are moved so that the rule is met or not, and where is known exactly.
  Module and classifier learn together: BCE(label) + waveform_weight * BCE(a(t), known weights). The one label is the
  rule's name in capitals. A hard module, or none, learns the label alone.
* `hard-weights`: the soft module alone predicts the weights that the rule's delineation gives, BCE(a(t), weights).
* `masked`: the soft module alone finds hidden stretches of time again, mean squared error of the hidden samples.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.inference.heads import weight_columns
from ecgdan_hf.model.configuration_danet import DanetConfig, resolve_waveform_rule
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_danet import DanetForPreTraining, DanetForSequenceClassification
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import PretrainArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EcgCollator, EpochBatchSampler, check_augmentation
from ecgdan_hf.training.core.collect import Batch, collect, evaluation_loader
from ecgdan_hf.training.core.loop import Trainer, TrainingSet, build_accelerator
from ecgdan_hf.training.core.run_folder import begin_run, check_run, finish_run, is_finished, read_metrics
from ecgdan_hf.training.core.simulated_beats import in_millivolt, simulated_rows
from ecgdan_hf.training.core.starting_weights import build_config, build_danet, count_parameters
from ecgdan_hf.training.core.tasks import INPUTS, ClassificationTask
from ecgdan_hf.training.finetune_danet import check_labels

PRETEXTS = ("simulated-beats", "hard-weights", "masked")
TARGETS = ("waveform_targets",)
MIN_JUDGED = 64
"""Simulated records of a part that is judged, at least."""


class ModuleTask:
    """The soft module alone: weights of the waves, or hidden samples; the epoch with the least loss."""

    metric, higher_is_better = "loss", False

    def __init__(self, loaders: dict[str, DataLoader]):
        self.loaders = loaders

    def losses(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """The loss of a batch; only one of its two parts has a target."""
        return {"loss": model(**batch).loss}

    def validate(self, model: nn.Module, accelerator: Accelerator, part: str = "valid") -> dict[str, float]:
        """The mean loss over records, and over hidden samples."""
        found = collect(model, self.loaders[part], self._forward, accelerator)
        return {"loss": float(found["error"].sum() / found["count"].sum().clip(min=1))}

    @staticmethod
    def _forward(model: nn.Module, batch: Batch) -> Batch:
        output = model(batch["input_values"], batch["lead_mask"], return_loss=False)
        if "waveform_targets" in batch:
            error = waveform_error(output.waveform_attention, batch["waveform_targets"])
            return {"error": error, "count": torch.ones_like(error)}
        hidden = batch["target_mask"]
        error = (output.reconstruction.float() - batch["target_values"]).square() * hidden
        return {"error": error.sum((1, 2)), "count": hidden.sum((1, 2)).float()}


class SimulatedBeatsTask(ClassificationTask):
    """The label and a(t) of simulated records; the epoch by the loss of both, or by the label's AUROC."""

    def __init__(self, config: DanetConfig, loaders: dict[str, DataLoader], select_by: str):
        super().__init__(config, loaders["valid"])
        self.loaders = loaders
        self.metric, self.higher_is_better = select_by, select_by != "loss"

    def losses(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """The loss of a batch, and that of a(t)."""
        output = model(**batch)
        return {name: output[name] for name in ("loss", "waveform_loss") if output.get(name) is not None}

    def validate(self, model: nn.Module, accelerator: Accelerator, part: str = "valid") -> dict[str, float]:
        """Losses, and the AUROC of the label."""
        found = collect(model, self.loaders[part], self._with_error, accelerator)
        metrics = self.judge(found)
        if "waveform_error" in found:
            metrics["waveform_loss"] = float(found["waveform_error"].mean())
            metrics["loss"] += self.config.waveform_weight * metrics["waveform_loss"]
        return metrics

    @staticmethod
    def _with_error(model: nn.Module, batch: Batch) -> Batch:
        output = model(**{name: batch[name] for name in INPUTS if name in batch})
        found = {"logits": output.logits, "labels": batch["labels"]}
        if "waveform_targets" in batch:
            found["waveform_error"] = waveform_error(output.waveform_attention, batch["waveform_targets"])
        return found


def waveform_error(attention: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a(t) and what it should be, (N, T) twice -> (N,)."""
    logits = torch.logit(attention, eps=1e-6)  # as logits, since autocast refuses cross-entropy of probabilities
    return binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").mean(-1)


@dataclass
class Pretext:
    """What is learned: parts with their targets, the class of the model, and what a batch holds."""

    parts: dict[str, Any]
    model: type[DanetForPreTraining] | type[DanetForSequenceClassification]
    feature_extractor: EcgDanFeatureExtractor
    options: dict[str, Any]


def run(args: PretrainArguments, split: Callable[[Any, PretrainArguments], rows.Parts] = rows.split) -> dict[str, Any]:
    """Pretrains, and leaves a checkpoint folder.

    Args:
        args: what, on what, how long; task danet.
        split: divides the rows in another way than the folds and fractions of `args` say.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    started, folder = time.monotonic(), check_run(args)
    name = check_arguments(args)
    if args.resume and is_finished(folder):
        return read_metrics(folder)
    config = build_config(DanetConfig, args.model, args.checkpoint)
    check_augmentation(args, config)
    check_config(config, name)
    pretext = MAKERS[name](config, args, split)
    accelerator = build_accelerator(args, folder)
    model, new_weights = build_danet(pretext.model, config, args.checkpoint)
    if name == "masked":  # nothing would teach it, and several processes would wait for its gradient
        model.waveform_module.attention_head.requires_grad_(False)
    collator = build_collator(config, args, pretext.options)
    loaders = {
        part: evaluation_loader(rows_of, collator.still(), args.batch_size, accelerator)
        for part, rows_of in pretext.parts.items()
        if part != "train"
    }
    task = SimulatedBeatsTask(config, loaders, args.select_by) if name == "simulated-beats" else ModuleTask(loaders)
    train = pretext.parts["train"]
    training_set = TrainingSet(train, EpochBatchSampler(len(train), args.batch_size, seed=args.seed), collator)
    trainer = Trainer(model, task, training_set, args, folder, accelerator)
    if accelerator.is_main_process:
        begin_run(folder, args)
    accelerator.wait_for_everyone()
    progress = trainer.run()
    metrics: dict[str, Any] = {
        "task": "pretraining",
        "pretext": name,
        "checkpoint": args.checkpoint or "random weights",
        "new_weights": new_weights if args.checkpoint else "all",
        "best_epoch": progress.best_epoch,
        "num_records": {part: len(rows_of) for part, rows_of in pretext.parts.items()},
        "num_parameters": count_parameters(model),
        **{part: task.validate(model, accelerator, part) for part in loaders},
        "history": progress.history,
        "seconds": round(time.monotonic() - started, 1),
    }
    if accelerator.is_main_process:
        finish_run(
            folder, lambda staging: _write(staging, model, pretext.feature_extractor), Result("pretrain", metrics)
        )
    accelerator.wait_for_everyone()
    return metrics


def check_arguments(args: PretrainArguments) -> str:
    """The pretext, after refusing arguments that it would ignore.

    Raises:
        ValueError: another task, an unknown pretext, or an argument that only others use.
    """
    if args.task != "danet":
        raise ValueError(f"task: expected danet, got {args.task!r}")
    name = args.pretext or PRETEXTS[0]
    if args.simulated_records < 1:
        raise ValueError(f"simulated_records: expected one or more, got {args.simulated_records}")
    metrics = ("loss", "macro_auroc") if name == "simulated-beats" else ("loss",)
    if args.select_by not in metrics:
        raise ValueError(f"select_by: expected {' or '.join(metrics)} with pretext {name}, got {args.select_by!r}")
    if name == "masked" and not args.span_masking_probability:
        raise ValueError("span_masking_probability: pretext masked hides stretches of time, expected above 0, got 0")
    return name


def check_config(config: DanetConfig, pretext: str) -> None:
    """Refuses a network that the pretext cannot teach, and leaves out the head that it does not use.

    Raises:
        ValueError: a module other than soft, where it learns alone, or no rule.
    """
    if pretext != "simulated-beats" and config.waveform_module != "soft":
        raise ValueError(f"waveform_module: pretext {pretext} trains a soft one alone, got {config.waveform_module!r}")
    if pretext != "masked" and (config.waveform_rule is None or config.input_kind != "rhythm"):
        raise ValueError(f"waveform_rule: pretext {pretext} needs one, and rhythm input, to know what to look for")
    if pretext == "masked" and not config.reconstruction_weight:
        raise ValueError("reconstruction_weight: pretext masked reconstructs, expected above 0, got 0")
    if pretext == "hard-weights":
        config.reconstruction_weight = 0


def simulated_beats(config: DanetConfig, args: PretrainArguments, split: Any) -> Pretext:
    """Records simulated from those of each part, with the rule's label and the weights that are so by construction."""
    feature_extractor = EcgDanFeatureExtractor(**config.signal_contract)
    rule: Any = resolve_waveform_rule(args.simulated_rule or config.waveform_rule)
    sources = _parts(rows.load_dataset(args, in_millivolt(feature_extractor)), args, split)
    numbers = {
        name: max(round(args.simulated_records * len(part) / len(sources["train"])), MIN_JUDGED)
        for name, part in sources.items()
    } | {"train": args.simulated_records}
    parts = {
        name: simulated_rows(part, feature_extractor, rule, numbers[name], args.seed, args.num_proc, args.cache_dir)
        for name, part in sources.items()
    }
    check_labels(parts)
    names = parts["train"].features["labels"].feature.names
    config.id2label, config.label2id = dict(enumerate(names)), {label: place for place, label in enumerate(names)}
    config.problem_type = "multi_label_classification"
    targets = TARGETS if config.waveform_module == "soft" else ()
    options = {"sample_columns": (*weight_columns(config), *targets), "num_labels": len(names)}
    return Pretext(parts, DanetForSequenceClassification, feature_extractor, options)


def hard_weights(config: DanetConfig, args: PretrainArguments, split: Any) -> Pretext:
    """Unlabelled records with the rule's weights as targets."""
    contract = config.signal_contract
    with_rule = EcgDanFeatureExtractor(**{**contract, "waveform_rule": config.waveform_rule})
    dataset = rows.load_dataset(args, with_rule).rename_column("waveform_weights", *TARGETS)
    parts = _parts(dataset, args, split)
    return Pretext(parts, DanetForPreTraining, EcgDanFeatureExtractor(**contract), {"sample_columns": TARGETS})


def masked(config: DanetConfig, args: PretrainArguments, split: Any) -> Pretext:
    """Unlabelled records of which stretches are hidden, in training as in validation."""
    feature_extractor = EcgDanFeatureExtractor(**config.signal_contract)
    parts = _parts(rows.load_dataset(args, feature_extractor), args, split)
    return Pretext(parts, DanetForPreTraining, feature_extractor, {"with_target": True, "target_hidden": True})


MAKERS = dict(zip(PRETEXTS, (simulated_beats, hard_weights, masked), strict=True))


def _parts(dataset: Any, args: PretrainArguments, split: Any) -> dict[str, Any]:
    return {name: part for name, part in vars(split(dataset, args)).items() if part is not None}


def build_collator(config: DanetConfig, args: PretrainArguments, options: dict[str, Any]) -> EcgCollator:
    """Rows of any part -> what the model takes."""
    return EcgCollator(
        lead_names=config.lead_names,
        num_pad=config.pad_samples,
        lead_masking=args.lead_masking,
        lead_masking_probability=args.lead_masking_probability,
        span_masking_probability=args.span_masking_probability,
        crop_samples=args.crop_samples,
        augment_scale=args.augment_scale,
        augment_noise=args.augment_noise,
        seed=args.seed,
        **options,
    )


def _write(staging: Any, model: Any, feature_extractor: EcgDanFeatureExtractor) -> None:
    model.save_pretrained(staging)
    feature_extractor.save_pretrained(staging)


if __name__ == "__main__":
    run_as_program(PretrainArguments, run)
