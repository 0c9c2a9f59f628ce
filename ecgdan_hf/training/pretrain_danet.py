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

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from ecgdan_hf.data.simulate.simulated_beats import in_millivolt, simulated_rows
from ecgdan_hf.model.configuration_danet import DanetConfig, resolve_waveform_rule
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_danet import DanetForPreTraining, DanetForSequenceClassification
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import PretrainArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import Batch, EcgCollator
from ecgdan_hf.training.core.learned_rows import LearnedRows
from ecgdan_hf.training.core.run import Split, TrainingRun
from ecgdan_hf.training.core.starting_weights import build_model
from ecgdan_hf.training.core.tasks import INPUTS, ClassificationTask, collect

_TARGETS = ("waveform_targets",)
_MIN_JUDGED = 64
"""Minimum of simulated records in a validation or test part."""


def pretrain_danet(args: PretrainArguments, split: Split = rows.split) -> dict[str, Any]:
    """Pretrains, and writes a checkpoint folder.

    Args:
        args: what to train, on what, for how long; task danet.
        split: divides the rows in another way than the folds and fractions of `args`.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    kind = _PRETEXTS.get(args.pretext or "", _SimulatedBeats)  # an unknown pretext is rejected by its check
    return kind(args, split).run()


class _DanetPretraining(TrainingRun[PretrainArguments]):
    """The steps of all pretexts; `options` are fields of the collator."""

    kind = "pretrain"
    config_class = DanetConfig
    model_class: Any = DanetForPreTraining
    pretext: str
    options: dict[str, Any]

    def check(self) -> None:
        _check_arguments(self.args, self.pretext)

    def load(self) -> None:
        _check_config(self.config, self.pretext)
        self.make_rows()

    def make_rows(self) -> None:
        """Reads or simulates the rows of all parts."""
        raise NotImplementedError

    def build(self) -> None:
        self.model, self.new_weights = build_model(self.model_class, self.config, self.args.checkpoint)
        if self.pretext == "masked":  # nothing would teach it, and several processes would wait for its gradient
            self.model.waveform_module.attention_head.requires_grad_(False)
        collator = EcgCollator.for_training(self.config, self.args, **self.options)
        judged = {name: part for name, part in self.parts.items() if name != "train"}
        self.evaluated = self.loaders(judged, dict.fromkeys(judged, collator))
        self.task = self.make_task()
        self.trainer = self.trainer_of(self.task, collator)

    def make_task(self) -> Any:
        return _ModuleTask(self.evaluated)

    def summary(self) -> dict[str, Any]:
        progress = self.trainer.progress
        return {
            "task": "pretraining",
            "pretext": self.pretext,
            **self.starting_point(),
            "best_epoch": progress.best_epoch,
            "num_records": {name: len(part) for name, part in self.parts.items()},
            "num_parameters": self.num_learned,
            **{name: self.task.validate(self.model, self.accelerator, name) for name in self.evaluated},
            "history": progress.history,
        }


class _SimulatedBeats(_DanetPretraining):
    """Simulated records with the rule's label, and the weights that are known by construction."""

    pretext, model_class = "simulated-beats", DanetForSequenceClassification

    def make_rows(self) -> None:
        config, args, extractor = self.config, self.args, self.feature_extractor
        rule: Any = resolve_waveform_rule(args.simulated_rule or config.waveform_rule)
        sources = self.divided(rows.load_dataset(args, in_millivolt(extractor)))
        wanted, available = args.simulated_records, len(sources["train"])
        numbers = {name: max(round(wanted * len(part) / available), _MIN_JUDGED) for name, part in sources.items()}
        numbers["train"] = wanted
        self.parts = {
            name: simulated_rows(part, extractor, rule, numbers[name], args.seed, args.num_proc, args.cache_dir)
            for name, part in sources.items()
        }
        LearnedRows.check_labels(self.parts)
        names = self.parts["train"].features["labels"].feature.names
        config.id2label, config.label2id = dict(enumerate(names)), {label: place for place, label in enumerate(names)}
        config.problem_type = "multi_label_classification"
        targets = _TARGETS if config.waveform_module == "soft" else ()
        self.options = {"sample_columns": (*config.weight_columns, *targets), "num_labels": len(names)}

    def make_task(self) -> Any:
        return _SimulatedBeatsTask(self.config, self.evaluated, self.args.select_by)


class _HardWeights(_DanetPretraining):
    """Unlabelled records with the rule's weights as targets."""

    pretext = "hard-weights"

    def make_rows(self) -> None:
        self.options = {"sample_columns": _TARGETS}
        with_rule = EcgDanFeatureExtractor(
            **{**self.config.signal_contract, "waveform_rule": self.config.waveform_rule}
        )
        dataset = rows.load_dataset(self.args, with_rule).rename_column("waveform_weights", *_TARGETS)
        self.parts = self.divided(dataset)


class _Masked(_DanetPretraining):
    """Unlabelled records of which stretches of time are hidden, in training as in validation."""

    pretext = "masked"

    def make_rows(self) -> None:
        self.options = {"with_target": True, "target_hidden": True}
        self.parts = self.divided(rows.load_dataset(self.args, self.feature_extractor))


_PRETEXTS: dict[str, type[_DanetPretraining]] = {
    kind.pretext: kind for kind in (_SimulatedBeats, _HardWeights, _Masked)
}


class _ModuleTask:
    """The soft module alone: weights of the waves, or hidden samples; the epoch with the least loss."""

    metric, higher_is_better = "loss", False

    def __init__(self, loaders: dict[str, DataLoader[Any]]):
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
            error = _waveform_error(output.waveform_attention, batch["waveform_targets"])
            return {"error": error, "count": torch.ones_like(error)}
        hidden = batch["target_mask"]
        error = (output.reconstruction.float() - batch["target_values"]).square() * hidden
        return {"error": error.sum((1, 2)), "count": hidden.sum((1, 2)).float()}


class _SimulatedBeatsTask(ClassificationTask):
    """The label and a(t) of simulated records; the epoch by the loss of both, or by the label's AUROC."""

    def __init__(self, config: DanetConfig, loaders: dict[str, DataLoader[Any]], select_by: str):
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
            found["waveform_error"] = _waveform_error(output.waveform_attention, batch["waveform_targets"])
        return found


def _waveform_error(attention: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a(t) and what it should be, (N, T) twice -> (N,)."""
    logits = torch.logit(attention, eps=1e-6)  # autocast does not support cross-entropy of probabilities
    return binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").mean(-1)


def _check_arguments(args: PretrainArguments, name: str) -> None:
    """Rejects arguments that the pretext cannot use."""
    if args.task != "danet":
        raise ValueError(f"task: expected danet, got {args.task!r}")
    if args.simulated_records < 1:
        raise ValueError(f"simulated_records: expected one or more, got {args.simulated_records}")
    metrics = ("loss", "macro_auroc") if name == "simulated-beats" else ("loss",)
    if args.select_by not in metrics:
        raise ValueError(f"select_by: expected {' or '.join(metrics)} with pretext {name}, got {args.select_by!r}")
    if name == "masked" and not args.span_masking_probability:
        raise ValueError("span_masking_probability: pretext masked hides stretches of time, expected above 0, got 0")


def _check_config(config: DanetConfig, pretext: str) -> None:
    """Rejects a network that the pretext cannot train, and leaves out the head that it does not use."""
    if pretext != "simulated-beats" and config.waveform_module != "soft":
        raise ValueError(f"waveform_module: pretext {pretext} trains a soft one alone, got {config.waveform_module!r}")
    if pretext != "masked" and (config.waveform_rule is None or config.input_kind != "rhythm"):
        raise ValueError(f"waveform_rule: pretext {pretext} needs one, and rhythm input, to know what to look for")
    if pretext == "masked" and not config.reconstruction_weight:
        raise ValueError("reconstruction_weight: pretext masked reconstructs, expected above 0, got 0")
    if pretext == "hard-weights":
        config.reconstruction_weight = 0


if __name__ == "__main__":
    run_as_program(PretrainArguments, pretrain_danet)
