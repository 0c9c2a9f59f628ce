"""Pretraining: reconstruct hidden leads, and align the ECG with what its report says (arXiv 2403.10581).

    ecgdan pretrain --config pretrain-rhythm --data-dir ptb-xl --output-dir runs/pretrained
    accelerate launch -m ecgdan_hf.training.pretrain --config pretrain-rhythm --data-dir ptb-xl \
        --output-dir runs/pretrained

Loss = reconstruction_weight * MSE(reconstruction, unmasked signal) + alignment_weight * alignment(ECG, text)
[+ superclass_weight * BCE]. The text side comes from a frozen language model, computed once, unless `text_tower` lets
the language model learn too; the run then leaves an [`EcgTextModel`] that stores it. Records without text are left out
where there is a text side.
"""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from ecgdan_hf.evaluation.measures.retrieval import alignment_and_uniformity, embedding_spread, retrieval_recall
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.model.alignment_ecgdan import equal_rows
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecg_text import own_tokens
from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining
from ecgdan_hf.model.processing_ecgdan import EcgTextProcessor
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import PretrainArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import EcgCollator, EpochBatchSampler, check_augmentation
from ecgdan_hf.training.core.collect import Batch, collect, evaluation_loader, gather_with_grad
from ecgdan_hf.training.core.loop import Trainer, TrainingSet, build_accelerator
from ecgdan_hf.training.core.run_folder import begin_run, check_run, finish_run, is_finished, read_metrics
from ecgdan_hf.training.core.starting_weights import build_config, build_model, count_parameters
from ecgdan_hf.training.core.texts import (
    Arrays,
    EcgDanWithTextTower,
    TextSide,
    ZeroShotSuperclasses,
    check_texts,
    shuffled,
)

MIN_PARTS = ("loss", "reconstruction_loss", "alignment_loss", "superclass_loss")
LOWER_IS_BETTER = ("loss", "reconstruction_loss")
SELECT_BY = (*LOWER_IS_BETTER, "recall", "zero_shot")
COLLAPSED = -0.1
"""Uniformity above which nearly all ECGs have one embedding; 0 is one point, a healthy run is below -2."""


class PretrainingTask:
    """Reconstruction, alignment and (optionally) superclasses, weighted by the configuration.

    Args:
        config: of the network.
        select_by: one of `SELECT_BY`.
        loaders: part -> its rows; "valid" chooses the epoch.
        batch_size: of training.
        zero_shot: judges the superclasses, where the data have them and there is text.

    Raises:
        ValueError: a `select_by` that is unknown or needs what is not there.
    """

    def __init__(
        self,
        config: EcgDanConfig,
        select_by: str,
        loaders: dict[str, Any],
        batch_size: int,
        zero_shot: ZeroShotSuperclasses | None = None,
    ):
        check_select_by(select_by, bool(config.text_embed_dim), zero_shot is not None)
        self.config, self.loaders, self.batch_size, self.zero_shot = config, loaders, batch_size, zero_shot
        self.metric, self.higher_is_better = select_by, select_by not in LOWER_IS_BETTER
        self.validations, self.warned = 0, False

    def losses(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """Losses of a batch; with several processes, all their texts are each ECG's candidates."""
        output = model(**batch)
        if output.alignment_loss is not None and (accelerator.num_processes > 1 or "input_ids" in batch):
            head = accelerator.unwrap_model(model).alignment_head
            ecg, text = (gather_with_grad(part, accelerator) for part in (output.ecg_embeds, output.text_embeds))
            everywhere = head.loss(ecg, text, equal_rows(gather_with_grad(given_text(batch), accelerator)))
            output.loss = output.loss + self.config.alignment_weight * (everywhere - output.alignment_loss)
            output.alignment_loss = everywhere
        return {name: output[name] for name in MIN_PARTS if output.get(name) is not None}

    def validate(self, model: nn.Module, accelerator: Accelerator, part: str = "valid") -> dict[str, float]:
        """Each loss on unmasked signals, how well ECG and text find each other, and how far the ECGs are spread."""
        found = collect(model, self.loaders[part], self._forward, accelerator)
        metrics = {"reconstruction_loss": float(found["reconstruction_error"].mean())}
        metrics["loss"] = self.config.reconstruction_weight * metrics["reconstruction_loss"]
        if "text_embeds" in found:
            metrics["alignment_loss"] = self._alignment(model, found)
            metrics["loss"] += self.config.alignment_weight * metrics["alignment_loss"]
            text_ids = np.unique(found["given_text"], axis=0, return_inverse=True)[1].reshape(-1)
            metrics |= retrieval_recall(found["ecg_embeds"], found["text_embeds"], text_ids)
            metrics |= alignment_and_uniformity(found["ecg_embeds"], found["text_embeds"])
            metrics |= embedding_spread(found["ecg_embeds"])
            self._warn_of_collapse(metrics["uniformity"])
            if self.zero_shot is not None:
                metrics["zero_shot"] = self.zero_shot.macro_auroc(model, part, found["ecg_embeds"])
        if "superclass_error" in found:
            metrics["superclass_loss"] = float(found["superclass_error"].mean())
            metrics["loss"] += self.config.superclass_weight * metrics["superclass_loss"]
        return metrics

    def _warn_of_collapse(self, uniformity: float) -> None:
        self.validations += 1
        if uniformity > COLLAPSED and self.validations > 1 and not self.warned:  # random weights hardly spread
            self.warned = True
            warnings.warn(
                f"uniformity: {uniformity:.3f} on validation, expected below {COLLAPSED}: the ECG embeddings lie "
                "nearly in one point; alignment_objective clip or siglip keeps them apart, cosine does not",
                stacklevel=2,
            )

    @staticmethod
    def _forward(model: nn.Module, batch: Batch) -> Batch:
        output = model(**{name: value for name, value in batch.items() if name != "superclass_targets"})
        error = (output.reconstruction.float() - batch["target_values"]).square().mean(-1)
        mask = batch["target_mask"].float()
        found = {"reconstruction_error": (error * mask).sum(1) / mask.sum(1).clamp(min=1)}
        if output.text_embeds is not None:
            found |= {"ecg_embeds": output.ecg_embeds, "text_embeds": output.text_embeds}
            found["given_text"] = given_text(batch)
        if output.superclass_logits is not None and "superclass_targets" in batch:
            logits, targets = output.superclass_logits.float(), batch["superclass_targets"]
            bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            found["superclass_error"] = bce.mean(-1)
        return found

    @torch.no_grad()
    def _alignment(self, model: nn.Module, found: dict[str, np.ndarray]) -> float:
        """Mean over batches of the training size, because the contrastive loss grows with the candidates."""
        total = 0.0
        for start in range(0, len(found["ecg_embeds"]), self.batch_size):
            part = slice(start, start + self.batch_size)
            ecg, text, given = (
                torch.from_numpy(found[name][part]) for name in ("ecg_embeds", "text_embeds", "given_text")
            )
            device = next(model.parameters()).device
            loss = model.alignment_head.loss(ecg.to(device), text.to(device), equal_rows(given).to(device))
            total += float(loss) * len(ecg)
        return total / len(found["ecg_embeds"])


def given_text(batch: Batch) -> Tensor:
    """(N, ...), rows equal where texts are: the tokens, or the embeddings of a frozen language model."""
    return own_tokens(batch["input_ids"], batch["attention_mask"]) if "input_ids" in batch else batch["text_embeds"]


def check_task(args: PretrainArguments) -> None:
    """Refuses another task, and what only that one uses.

    Raises:
        ValueError: see above.
    """
    if args.task == "danet":
        raise ValueError("task: danet is trained by `ecgdan pretrain` or ecgdan_hf.training.pretrain_danet")


def check_select_by(select_by: str, has_text: bool, has_zero_shot: bool) -> None:
    """Refuses a metric that will not be there.

    Raises:
        ValueError: see above.
    """
    if select_by not in SELECT_BY:
        raise ValueError(f"select_by: expected one of {', '.join(SELECT_BY)}, got {select_by!r}")
    if select_by in ("recall", "zero_shot") and not has_text:
        raise ValueError(f"select_by: {select_by} needs a text_model, got none")
    if select_by == "zero_shot" and not has_zero_shot:
        raise ValueError("select_by: zero_shot needs superclass labels and scp_statements.csv, as ptb-xl has them")


def with_text(
    parts: dict[str, Any], texts: TextSide, args: PretrainArguments
) -> tuple[dict[str, Any], dict[str, Arrays]]:
    """The records that say something, and what the network is given of it.

    Raises:
        ValueError: a part in which no record has text.
    """
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
        lookups["train"] = shuffled(lookups["train"], args.seed)
    return kept, lookups


def _network(config: EcgDanConfig, texts: TextSide | None, lookups: dict[str, Arrays], checkpoint: str | None) -> Any:
    """The network to train, with the language model in it where that learns too."""
    if texts is None:
        config.text_embed_dim = None
    elif texts.trained:
        config.text_embed_dim = AutoConfig.from_pretrained(texts.path).hidden_size
    else:
        config.text_embed_dim = lookups["train"]["text_embeds"].shape[1]
    trained = texts is not None and texts.trained
    model, _ = build_model(EcgDanWithTextTower if trained else EcgDanForPreTraining, config, checkpoint)
    if trained:
        model.text_model = texts.tower()
    return model


def _zero_shot(parts: dict[str, Any], texts: TextSide | None) -> ZeroShotSuperclasses | None:
    if texts is None or texts.statements is None or "labels" not in parts["valid"].column_names:
        return None
    names = parts["valid"].features["labels"].feature.names
    if not set(names) <= set(texts.statements.get("diagnostic_class", [])):
        return None
    labels = {name: part["labels"] for name, part in parts.items() if name != "train"}
    return ZeroShotSuperclasses(texts, labels, names)


def run(args: PretrainArguments, split: Callable[[Any, PretrainArguments], rows.Parts] = rows.split) -> dict[str, Any]:
    """Pretrains, and leaves a checkpoint folder.

    Args:
        args: what, on what, how long.
        split: divides the rows in another way than the folds and fractions of `args` say.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    check_task(args)
    started, folder = time.monotonic(), check_run(args)
    if args.resume and is_finished(folder):
        return read_metrics(folder)
    config = build_config(EcgDanConfig, args.model, args.checkpoint)
    check_augmentation(args, config)
    feature_extractor = EcgDanFeatureExtractor(**config.signal_contract)
    dataset = rows.load_dataset(args, feature_extractor, label_level="superclass")
    _check_superclasses(dataset, config)
    check_texts(args, dataset.column_names)
    parts = {name: part for name, part in vars(split(dataset, args)).items() if part is not None}
    texts, lookups, found = None, {name: {} for name in parts}, len(parts["train"])
    if args.text_model != "none":
        texts = TextSide(args)
        parts, lookups = with_text(parts, texts, args)
    zero_shot = _zero_shot(parts, texts)
    check_select_by(args.select_by, texts is not None, zero_shot is not None)
    accelerator = build_accelerator(args, folder)
    model = _network(config, texts, lookups, args.checkpoint)
    config = model.config
    collators = {name: _collator(lookups[name], config, args) for name in parts}
    if texts is not None and args.statement_dropout:
        collators["train"].statement_embeds = texts.statement_embeds
        collators["train"].statement_dropout = args.statement_dropout
    loaders = {
        name: evaluation_loader(part, collators[name].still(), args.batch_size, accelerator)
        for name, part in parts.items()
        if name != "train"
    }
    task = PretrainingTask(config, args.select_by, loaders, args.batch_size, zero_shot)
    sampler = EpochBatchSampler(len(parts["train"]), args.batch_size, seed=args.seed)
    trainer = Trainer(model, task, TrainingSet(parts["train"], sampler, collators["train"]), args, folder, accelerator)
    if accelerator.is_main_process:
        begin_run(folder, args)
    accelerator.wait_for_everyone()
    progress = trainer.run()
    metrics: dict[str, Any] = {
        "task": "pretraining",
        "best_epoch": progress.best_epoch,
        "num_records": {name: len(part) for name, part in parts.items()},
        "num_parameters": count_parameters(model),
    }
    if texts is not None:
        metrics["text"] = {**texts.described(), "num_train_without_text": found - len(parts["train"])}
    for name in loaders:
        metrics[name] = task.validate(model, accelerator, name)
    metrics |= {"history": progress.history, "seconds": round(time.monotonic() - started, 1)}
    if accelerator.is_main_process:
        finish_run(
            folder, lambda staging: _write(staging, model, feature_extractor, texts), Result("pretrain", metrics)
        )
    accelerator.wait_for_everyone()
    return metrics


def _write(
    staging: Path, model: PreTrainedModel, feature_extractor: EcgDanFeatureExtractor, texts: TextSide | None
) -> None:
    feature_extractor.save_pretrained(staging)
    if texts is not None:
        model = texts.finished(model)
        if texts.trained:
            EcgTextProcessor(feature_extractor, texts.tokenizer).save_pretrained(staging)
    model.save_pretrained(staging)


def _check_superclasses(dataset: Any, config: EcgDanConfig) -> None:
    if not config.num_superclasses:
        return
    if "labels" not in dataset.column_names:
        raise ValueError("model: num_superclasses needs a labels column in the data, found none")
    names = dataset.features["labels"].feature.names
    if len(names) != config.num_superclasses:
        raise ValueError(f"model: num_superclasses is {config.num_superclasses}, the data have {len(names)}: {names}")


def _collator(lookups: Arrays, config: EcgDanConfig, args: PretrainArguments) -> EcgCollator:
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
        with_target=True,
        num_labels=config.num_superclasses,
        labels_name="superclass_targets",
        seed=args.seed,
    )


if __name__ == "__main__":
    run_as_program(PretrainArguments, run)
