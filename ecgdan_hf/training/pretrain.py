"""Pretraining: reconstruct hidden leads, and align the ECG with its report (arXiv 2403.10581).

    ecgdan pretrain --config pretrain-rhythm --data-dir ptb-xl --output-dir runs/pretrained
    accelerate launch -m ecgdan_hf.training.pretrain --config pretrain-rhythm --data-dir ptb-xl \
        --output-dir runs/pretrained

Loss = reconstruction_weight * MSE(reconstruction, unmasked signal) + alignment_weight * alignment(ECG, text)
[+ superclass_weight * BCE]. The text side comes from a frozen language model, computed once, unless `text_tower` lets
the language model learn too; the run then leaves an [`EcgTextModel`] that stores it. Records without text are left out
where there is a text side.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ecgdan_hf.evaluation.measures.retrieval import alignment_and_uniformity, embedding_spread, retrieval_recall
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.modeling_ecg_text import EcgTextModel
from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining
from ecgdan_hf.model.processing_ecgdan import EcgTextProcessor
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import PretrainArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import Batch, EcgCollator
from ecgdan_hf.training.core.loop import LAST_EPOCH
from ecgdan_hf.training.core.run import Split, TrainingRun
from ecgdan_hf.training.core.starting_weights import build_model
from ecgdan_hf.training.core.statement_alignment import MEASUREMENTS, TARGETS, TextList
from ecgdan_hf.training.core.tasks import collect, gather_with_grad
from ecgdan_hf.training.core.texts import Arrays, TextSide, ZeroShot

_MIN_PARTS = ("loss", "reconstruction_loss", "alignment_loss", "superclass_loss", "measurement_loss")
_LOWER_IS_BETTER = ("loss", "reconstruction_loss")
_SELECT_BY = (*_LOWER_IS_BETTER, "recall", "zero_shot", LAST_EPOCH)
_ONLY_FOR_LOSSES = ("superclass_targets", "text_targets", "text_weights", "measurement_targets")
_COLLAPSED = -0.1
"""Uniformity above which nearly all ECGs have one embedding; 0 is one point, a healthy run is below -2."""


def pretrain(args: PretrainArguments, split: Split = rows.split) -> dict[str, Any]:
    """Pretrains, and writes a checkpoint folder.

    Args:
        args: what to train, on what, for how long.
        split: divides the rows in another way than the folds and fractions of `args`.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    if args.task == "danet":
        raise ValueError("task: danet is trained by `ecgdan pretrain` or ecgdan_hf.training.pretrain_danet")
    return _Pretraining(args, split).run()


class _Pretraining(TrainingRun[PretrainArguments]):
    """The steps of pretraining; `texts` is None without a language model."""

    kind = "pretrain"
    config_class = EcgDanConfig
    texts: TextSide | None = None

    def check(self) -> None:
        """All checks of the arguments alone are those of their fields."""

    def load(self) -> None:
        args, config = self.args, self.config
        dataset = rows.load_dataset(args, self.feature_extractor, label_level="superclass")
        _check_superclasses(dataset, config)
        TextSide.check(args, config, dataset.column_names)
        self.parts = self.divided(dataset)
        self.lookups: dict[str, Arrays] = {name: {} for name in self.parts}
        self.num_train_found = len(self.parts["train"])
        if args.text_model != "none":
            self.texts = TextSide(args, config)
            self.parts, self.lookups = _with_text(self.parts, self.texts, args)
            if self.texts.is_list:
                self.texts.targets.standardise(config, self.lookups["train"])
        judged = {name: part for name, part in self.parts.items() if name != "train"}
        self.zero_shot = self.texts.zero_shot(judged) if self.texts is not None else None
        _check_select_by(args.select_by, self.texts is not None, self.zero_shot is not None)

    def build(self) -> None:
        args, texts = self.args, self.texts
        text_list = None
        if texts is not None and texts.is_list:
            text_list = texts.targets.text_list(self.lookups["train"][TARGETS])
            self.config.text_embed_dim = text_list.wordings[0].shape[1]
        self.model = self._network()
        self.config = self.model.config
        collators = {name: self._collator(self.lookups[name], text_list) for name in self.parts}
        if texts is not None and args.statement_dropout:
            collators["train"].statement_embeds = texts.statement_embeds
            collators["train"].statement_dropout = args.statement_dropout
        judged = {name: part for name, part in self.parts.items() if name != "train"}
        self.evaluated = self.loaders(judged, collators)
        self.task = _PretrainingTask(
            self.config, args.select_by, self.evaluated, args.batch_size, self.zero_shot, text_list
        )
        self.trainer = self.trainer_of(self.task, collators["train"])

    def _network(self) -> Any:
        if self.texts is not None and self.texts.trained:
            return self.texts.network(self.config)
        if "text_embeds" in self.lookups["train"]:
            self.config.text_embed_dim = self.lookups["train"]["text_embeds"].shape[1]
        return build_model(EcgDanForPreTraining, self.config, self.args.checkpoint)[0]

    def _collator(self, lookups: Arrays, text_list: TextList | None) -> EcgCollator:
        options: dict[str, Any] = {"lookups": lookups, "text_list": text_list}
        options |= {"num_labels": self.config.num_superclasses, "labels_name": "superclass_targets"}
        options["with_target"] = self.config.reconstruction_weight > 0
        return EcgCollator.for_training(self.config, self.args, **options)

    def summary(self) -> dict[str, Any]:
        progress, text = self.trainer.progress, {}
        if self.texts is not None:
            num_without = self.num_train_found - len(self.parts["train"])
            text = {"text": {**self.texts.described(), "num_train_without_text": num_without}}
        return {
            "task": "pretraining",
            "best_epoch": progress.best_epoch,
            "num_records": {name: len(part) for name, part in self.parts.items()},
            "num_parameters": self.num_learned,
            **text,
            **{name: self.task.validate(self.model, self.accelerator, name) for name in self.evaluated},
            "history": progress.history,
        }

    def write(self, folder: Path) -> None:
        """Writes the checkpoint with its prompts, and the tokenizer of a language model that learned."""
        self.feature_extractor.save_pretrained(folder)
        model = self.model
        if self.texts is not None:
            model = self.texts.finished(model)
            if self.texts.trained:
                EcgTextProcessor(self.feature_extractor, self.texts.tokenizer).save_pretrained(folder)
        model.save_pretrained(folder)


class _PretrainingTask:
    """Reconstruction, alignment and (optionally) superclasses, weighted by the configuration.

    `loaders` has the rows of each part; "valid" chooses the epoch by `select_by`. `zero_shot` evaluates the
    superclasses.
    """

    def __init__(
        self,
        config: EcgDanConfig,
        select_by: str,
        loaders: dict[str, Any],
        batch_size: int,
        zero_shot: ZeroShot | None = None,
        text_list: TextList | None = None,
    ):
        _check_select_by(select_by, bool(config.text_embed_dim), zero_shot is not None)
        self.config, self.loaders, self.batch_size, self.zero_shot = config, loaders, batch_size, zero_shot
        self.metric, self.higher_is_better = select_by, select_by not in _LOWER_IS_BETTER
        self.text_list, self.warned = text_list, False
        self.validations = 0

    def losses(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """Losses of a batch; with several processes, all their texts are each ECG's candidates."""
        output = model(**batch)
        if TARGETS in batch and accelerator.num_processes > 1:
            self._replace_alignment_loss(output, self._statement_loss(model, output, batch, accelerator))
        elif output.alignment_loss is not None and (accelerator.num_processes > 1 or "input_ids" in batch):
            head = accelerator.unwrap_model(model).alignment_head
            ecg, text = (gather_with_grad(part, accelerator) for part in (output.ecg_embeds, output.text_embeds))
            everywhere = head.loss(ecg, text, gather_with_grad(_given_text(batch), accelerator))
            self._replace_alignment_loss(output, everywhere)
        return {name: output[name] for name in _MIN_PARTS if output.get(name) is not None}

    def _replace_alignment_loss(self, output: Any, loss: Tensor) -> None:
        output.loss = output.loss + self.config.alignment_weight * (loss - output.alignment_loss)
        output.alignment_loss = loss

    @staticmethod
    def _statement_loss(model: nn.Module, output: Any, batch: Batch, accelerator: Accelerator) -> Tensor:
        """The loss over the known pairs of all processes: their shares of unknown pairs may differ."""
        ecg, targets = (gather_with_grad(part, accelerator) for part in (output.ecg_embeds, batch[TARGETS]))
        head = accelerator.unwrap_model(model).alignment_head
        loss: Tensor = head.statement_loss(ecg, output.text_embeds, targets, batch["text_weights"])
        return loss

    def validate(self, model: nn.Module, accelerator: Accelerator, part: str = "valid") -> dict[str, float]:
        """Each loss on unmasked signals, how well ECG and text find each other, and how far the ECGs are spread."""
        found = collect(model, self.loaders[part], self._forward, accelerator)
        metrics: dict[str, float] = {"loss": 0.0}
        if "reconstruction_error" in found:
            metrics["reconstruction_loss"] = float(found["reconstruction_error"].mean())
            metrics["loss"] = self.config.reconstruction_weight * metrics["reconstruction_loss"]
        if TARGETS in found and self.text_list is not None:
            metrics |= self._statements(model, found, self.text_list)
            metrics["loss"] += self.config.alignment_weight * metrics["alignment_loss"]
        if "text_embeds" in found:
            metrics["alignment_loss"] = self._alignment(model, found)
            metrics["loss"] += self.config.alignment_weight * metrics["alignment_loss"]
            text_ids = np.unique(found["given_text"], axis=0, return_inverse=True)[1].reshape(-1)
            metrics |= retrieval_recall(found["ecg_embeds"], found["text_embeds"], text_ids)
            metrics |= alignment_and_uniformity(found["ecg_embeds"], found["text_embeds"])
            metrics |= embedding_spread(found["ecg_embeds"])
            self._warn_of_collapse(metrics["uniformity"])
        if "ecg_embeds" in found and self.zero_shot is not None:
            metrics["zero_shot"] = self.zero_shot(model, part, found["ecg_embeds"])
        if "superclass_error" in found:
            metrics["superclass_loss"] = float(found["superclass_error"].mean())
            metrics["loss"] += self.config.superclass_weight * metrics["superclass_loss"]
        return metrics

    @torch.no_grad()
    def _statements(self, model: Any, found: dict[str, np.ndarray], texts: TextList) -> dict[str, float]:
        """The loss, each text in its first wording, and how well measurements are read from the embedding."""
        head, device = model.alignment_head, next(model.parameters()).device
        text = torch.from_numpy(np.stack([wording[0] for wording in texts.wordings])).to(device)
        weights = torch.from_numpy(texts.weights).to(device)
        ecg, targets = (torch.from_numpy(found[name]).to(device) for name in ("ecg_embeds", TARGETS))
        metrics = {"alignment_loss": float(head.statement_loss(ecg, head.project_text(text), targets, weights))}
        for column, name in enumerate(self.config.measurement_names):
            truth, read = found[MEASUREMENTS][:, column], found["measurements"][:, column]
            known = ~np.isnan(truth)
            if known.any() and truth[known].var() > 0:
                metrics[f"r2_{name}"] = float(1 - np.mean((truth - read)[known] ** 2) / truth[known].var())
        return metrics

    def _warn_of_collapse(self, uniformity: float) -> None:
        self.validations += 1
        if uniformity > _COLLAPSED and self.validations > 1 and not self.warned:  # random weights hardly spread
            self.warned = True
            warnings.warn(
                f"uniformity: {uniformity:.3f} on validation, expected below {_COLLAPSED}: the ECG embeddings lie "
                "nearly in one point; alignment_objective clip or siglip keeps them apart, cosine does not",
                stacklevel=2,
            )

    @staticmethod
    def _forward(model: nn.Module, batch: Batch) -> Batch:
        output = model(**{name: value for name, value in batch.items() if name not in _ONLY_FOR_LOSSES})
        found: Batch = {}
        if output.reconstruction is not None:
            error = (output.reconstruction.float() - batch["target_values"]).square().mean(-1)
            mask = batch["target_mask"].float()
            found = {"reconstruction_error": (error * mask).sum(1) / mask.sum(1).clamp(min=1)}
        if TARGETS in batch:
            found |= {"ecg_embeds": output.ecg_embeds, TARGETS: batch[TARGETS]}
            if output.measurements is not None:
                found |= {"measurements": output.measurements, MEASUREMENTS: batch[MEASUREMENTS]}
        elif output.text_embeds is not None:
            found |= {"ecg_embeds": output.ecg_embeds, "text_embeds": output.text_embeds}
            found["given_text"] = _given_text(batch)
        if output.superclass_logits is not None and "superclass_targets" in batch:
            logits, targets = output.superclass_logits.float(), batch["superclass_targets"]
            bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            found["superclass_error"] = bce.mean(-1)
        return found

    @torch.no_grad()
    def _alignment(self, model: Any, found: dict[str, np.ndarray]) -> float:
        """Mean over batches of the training size, because the contrastive loss grows with the candidates."""
        total = 0.0
        for start in range(0, len(found["ecg_embeds"]), self.batch_size):
            part = slice(start, start + self.batch_size)
            ecg, text, given = (
                torch.from_numpy(found[name][part]) for name in ("ecg_embeds", "text_embeds", "given_text")
            )
            device = next(model.parameters()).device
            loss = model.alignment_head.loss(ecg.to(device), text.to(device), given)
            total += float(loss) * len(ecg)
        return total / len(found["ecg_embeds"])


def _given_text(batch: Batch) -> Tensor:
    """(N, ...), rows equal where texts are: the tokens, or the embeddings of a frozen language model."""
    if "input_ids" not in batch:
        return batch["text_embeds"]
    return EcgTextModel.own_tokens(batch["input_ids"], batch["attention_mask"])


def _check_select_by(select_by: str, has_text: bool, has_zero_shot: bool) -> None:
    """Rejects a metric that validation does not compute."""
    if select_by not in _SELECT_BY:
        raise ValueError(f"select_by: expected one of {', '.join(_SELECT_BY)}, got {select_by!r}")
    if select_by in ("recall", "zero_shot") and not has_text:
        raise ValueError(f"select_by: {select_by} needs a text_model, got none")
    if select_by == "zero_shot" and not has_zero_shot:
        raise ValueError("select_by: zero_shot needs superclass labels and scp_statements.csv, as ptb-xl has them")


def _with_text(
    parts: dict[str, Any], texts: TextSide, args: PretrainArguments
) -> tuple[dict[str, Any], dict[str, Arrays]]:
    """The records that have text, and what the network is given of it."""
    kept, lookups = {}, {}
    for name, part in parts.items():
        values, says = texts.lookups(part)
        if not says.any():
            raise ValueError(f"text_source: expected records with text in every part, {name} has none")
        chosen = np.flatnonzero(says)
        kept[name] = part if says.all() else part.select(chosen)
        lookups[name] = {key: value[chosen] for key, value in values.items()}
    if args.statement_dropout:
        lookups["train"] = texts.varied(kept["train"], lookups["train"])
    if args.shuffle_text:
        lookups["train"] = TextSide.shuffled(lookups["train"], args.seed)
    return kept, lookups


def _check_superclasses(dataset: Any, config: EcgDanConfig) -> None:
    if not config.num_superclasses:
        return
    if "labels" not in dataset.column_names:
        raise ValueError("model: num_superclasses needs a labels column in the data, found none")
    names = dataset.features["labels"].feature.names
    if len(names) != config.num_superclasses:
        raise ValueError(f"model: num_superclasses is {config.num_superclasses}, the data have {len(names)}: {names}")


if __name__ == "__main__":
    run_as_program(PretrainArguments, pretrain)
