"""Pretraining: reconstruct hidden leads, and align the ECG with what its report says (arXiv 2403.10581).

    ecgdan pretrain --config pretrain-ptb-xl --data-dir ptb-xl --output-dir runs/pretrained
    accelerate launch -m ecgdan_hf.training.pretrain --config pretrain-ptb-xl --data-dir ptb-xl \
        --output-dir runs/pretrained

Loss = reconstruction_weight * MSE(reconstruction, unmasked signal) + alignment_weight * alignment(ECG, text)
[+ superclass_weight * BCE]. The text side comes from a frozen language model, computed once.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ecgdan_hf.data import reports
from ecgdan_hf.evaluation.retrieval import alignment_and_uniformity, retrieval_recall
from ecgdan_hf.model.alignment_ecgdan import equal_rows
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining
from ecgdan_hf.training import rows
from ecgdan_hf.training.arguments import PretrainArguments
from ecgdan_hf.training.batching import EcgCollator, EpochBatchSampler, check_augmentation
from ecgdan_hf.training.checkpoints import build_config, build_model, count_parameters
from ecgdan_hf.training.collect import Batch, collect, evaluation_loader, gather_with_grad
from ecgdan_hf.training.command import run_as_program
from ecgdan_hf.training.loop import Trainer, TrainingSet, build_accelerator
from ecgdan_hf.training.run_folder import begin_run, check_run, finish_run, is_finished, read_metrics

MIN_PARTS = ("loss", "reconstruction_loss", "alignment_loss", "superclass_loss")
LOWER_IS_BETTER = ("loss", "reconstruction_loss")


class PretrainingTask:
    """Reconstruction, alignment and (optionally) superclasses, weighted by the configuration."""

    def __init__(self, config: EcgDanConfig, select_by: str, valid_loader: Any, batch_size: int):
        if select_by not in ("loss", "reconstruction_loss", "recall"):
            raise ValueError(f"select_by: expected loss, reconstruction_loss or recall, got {select_by!r}")
        if select_by == "recall" and not config.text_embed_dim:
            raise ValueError("select_by: recall needs a text_model, got none")
        self.config, self.valid_loader, self.batch_size = config, valid_loader, batch_size
        self.metric, self.higher_is_better = select_by, select_by not in LOWER_IS_BETTER

    def losses(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """Losses of a batch; with several processes, all their texts are each ECG's candidates."""
        output = model(**batch)
        if accelerator.num_processes > 1 and output.alignment_loss is not None:
            head = accelerator.unwrap_model(model).alignment_head
            ecg, text = (gather_with_grad(part, accelerator) for part in (output.ecg_embeds, output.text_embeds))
            everywhere = head.loss(ecg, text, equal_rows(gather_with_grad(batch["text_embeds"], accelerator)))
            output.loss = output.loss + self.config.alignment_weight * (everywhere - output.alignment_loss)
            output.alignment_loss = everywhere
        return {name: output[name] for name in MIN_PARTS if output.get(name) is not None}

    def validate(self, model: nn.Module, accelerator: Accelerator) -> dict[str, float]:
        """Each loss on unmasked signals, and how well ECG and text find each other."""
        found = collect(model, self.valid_loader, self._forward, accelerator)
        metrics = {"reconstruction_loss": float(found["reconstruction_error"].mean())}
        metrics["loss"] = self.config.reconstruction_weight * metrics["reconstruction_loss"]
        if "text_embeds" in found:
            metrics["alignment_loss"] = self._alignment(model, found)
            metrics["loss"] += self.config.alignment_weight * metrics["alignment_loss"]
            text_ids = np.unique(found["given_text"], axis=0, return_inverse=True)[1].reshape(-1)
            metrics |= retrieval_recall(found["ecg_embeds"], found["text_embeds"], text_ids)
            metrics |= alignment_and_uniformity(found["ecg_embeds"], found["text_embeds"])
        if "superclass_error" in found:
            metrics["superclass_loss"] = float(found["superclass_error"].mean())
            metrics["loss"] += self.config.superclass_weight * metrics["superclass_loss"]
        return metrics

    @staticmethod
    def _forward(model: nn.Module, batch: Batch) -> Batch:
        output = model(**{name: value for name, value in batch.items() if name != "superclass_targets"})
        error = (output.reconstruction.float() - batch["target_values"]).square().mean(-1)
        mask = batch["target_mask"].float()
        found = {"reconstruction_error": (error * mask).sum(1) / mask.sum(1).clamp(min=1)}
        if output.text_embeds is not None:
            found |= {"ecg_embeds": output.ecg_embeds, "text_embeds": output.text_embeds}
            found["given_text"] = batch["text_embeds"]
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


def text_embeddings(dataset: Any, args: PretrainArguments) -> np.ndarray | None:
    """The frozen language model's vector of each record, (records, width); None without a text model.

    Raises:
        ValueError: unknown choices, or data without the column the texts come from.
    """
    if args.text_model == "none":
        return None
    columns = {"statements": "scp_codes", "report": "report"}
    if args.text_source not in columns:
        raise ValueError(f"text_source: expected statements or report, got {args.text_source!r}")
    column = columns[args.text_source]
    if column not in dataset.column_names:
        raise ValueError(
            f"text_source: {args.text_source} needs a column {column!r} in the data; or --text-model none"
        )
    texts = list(dataset[column])
    if args.text_source == "report":
        return reports.embed_texts([text or "" for text in texts], args.text_model, args.cache_dir, args.text_style)
    statements = reports.read_statements(str(args.data_dir))
    return reports.record_embeddings(texts, statements, args.text_model, args.cache_dir, args.text_style)


def run(args: PretrainArguments) -> dict[str, Any]:
    """Pretrains, and leaves a checkpoint folder.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    started, folder = time.monotonic(), check_run(args)
    if args.resume and is_finished(folder):
        return read_metrics(folder)
    config = build_config(EcgDanConfig, args.model, args.checkpoint)
    check_augmentation(args.lead_masking, args.augment_scale, args.augment_noise, config.normalization)
    feature_extractor = EcgDanFeatureExtractor(**config.signal_contract)
    dataset = rows.load_dataset(args, feature_extractor, label_level="superclass")
    _check_superclasses(dataset, config)
    parts = {name: part for name, part in vars(rows.split(dataset, args)).items() if part is not None}
    texts = {name: text_embeddings(part, args) for name, part in parts.items()}
    config.text_embed_dim = None if texts["train"] is None else texts["train"].shape[1]
    accelerator = build_accelerator(args, folder)
    model, _ = build_model(EcgDanForPreTraining, config, args.checkpoint)
    config = model.config
    collators = {name: _collator(texts[name], config, args) for name in parts}
    loaders = {
        name: evaluation_loader(part, collators[name].still(), args.batch_size, accelerator)
        for name, part in parts.items()
        if name != "train"
    }
    task = PretrainingTask(config, args.select_by, loaders["valid"], args.batch_size)
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
    for name, loader in loaders.items():
        task.valid_loader = loader
        metrics[name] = task.validate(model, accelerator)
    metrics |= {"history": progress.history, "seconds": round(time.monotonic() - started, 1)}
    if accelerator.is_main_process:
        finish_run(folder, lambda staging: _write(staging, model, feature_extractor), metrics)
    accelerator.wait_for_everyone()
    return metrics


def _write(staging: Path, model: EcgDanForPreTraining, feature_extractor: EcgDanFeatureExtractor) -> None:
    model.save_pretrained(staging)
    feature_extractor.save_pretrained(staging)


def _check_superclasses(dataset: Any, config: EcgDanConfig) -> None:
    if not config.num_superclasses:
        return
    if "labels" not in dataset.column_names:
        raise ValueError("model: num_superclasses needs a labels column in the data, found none")
    names = dataset.features["labels"].feature.names
    if len(names) != config.num_superclasses:
        raise ValueError(f"model: num_superclasses is {config.num_superclasses}, the data have {len(names)}: {names}")


def _collator(text: np.ndarray | None, config: EcgDanConfig, args: PretrainArguments) -> EcgCollator:
    return EcgCollator(
        lead_names=config.lead_names,
        num_pad=config.pad_samples,
        lead_masking=args.lead_masking,
        lead_masking_probability=args.lead_masking_probability,
        augment_scale=args.augment_scale,
        augment_noise=args.augment_noise,
        lookups={} if text is None else {"text_embeds": text},
        with_target=True,
        num_labels=config.num_superclasses,
        labels_name="superclass_targets",
        seed=args.seed,
    )


if __name__ == "__main__":
    run_as_program(PretrainArguments, run)
