"""The one training loop, on Accelerate: accumulate, clip, log, evaluate, checkpoint, resume.

It knows nothing of ECGs but the names of our layers, whose learning rates may differ. A task gives it a loss and a
validation; the loop keeps the weights of the best validation, and can be killed at any moment: `resume` continues from
the last state and ends with the same weights, bit by bit (same machine, same number of processes).
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from timm.optim._param_groups import param_groups_layer_decay
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ecgdan_hf.digests import digest_of
from ecgdan_hf.files import whole_file
from ecgdan_hf.model.light_ecgdan import EcgDanLeadScale
from ecgdan_hf.training.arguments.fields import TrainingArguments
from ecgdan_hf.training.core.batching import Batch, EpochBatchSampler, share_of_batches
from ecgdan_hf.training.core.states import Progress, SavedStates

_LAYERS = {
    "waveform": r"^waveform_module",
    "stem": r"^(?:ecgdan|resnet)\.(?:stem|norm)",
    "trunk": r"^(?:ecgdan\.trunk|resnet\.blocks)\.(\d+)",
    "attention": [(r"^ecgdan\.(?:time_attention|lead_attention)", None)],
    "projection": r"^ecgdan\.(?:average_projection|max_projection|readout)",
}
"""Groups from the input to the output, as timm's `group_matcher` writes them; heads match none and come last."""

_TEXT_LEARNING_RATES = {"lora": 2e-4, "full": 2e-5}
"""Customary for language models that are trained further; a network from scratch needs many times more."""


class _Task(Protocol):
    """A loss to minimise and a validation."""

    metric: str
    """Name of the validation metric that chooses the epoch."""
    higher_is_better: bool

    def losses(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """The `loss` to minimise, and its parts for the log."""

    def validate(self, model: nn.Module, accelerator: Accelerator) -> dict[str, float]:
        """Metrics of a model in evaluation mode."""


LAST_EPOCH = "last"
"""The metric by which the last epoch is the best."""


class Trainer:
    """One run of the loop; after `run` the model carries the best weights."""

    def __init__(
        self,
        model: nn.Module,
        task: _Task,
        loader: DataLoader[Any],
        args: TrainingArguments,
        folder: Path,
        accelerator: Accelerator,
    ):
        _check_counts(args)
        self.task, self.args, self.folder, self.accelerator = task, args, folder, accelerator
        self.sampler = cast(EpochBatchSampler, loader.batch_sampler)
        self.collator: Any = loader.collate_fn
        # the paper's kernels over few channels run up to three times faster channels-last, the light trunk's slower
        paper = getattr(getattr(model, "config", None), "trunk", "paper") == "paper"
        layout = torch.channels_last if paper else torch.contiguous_format
        move: Any = model.to
        self.plain_model: nn.Module = move(accelerator.device, memory_format=layout)
        # before `prepare`, which may wrap forward: a copy of a wrapped forward would still call the original
        self.ema = ModelEmaV3(model, decay=args.ema_decay) if args.ema_decay else None
        self.loader = share_of_batches(loader, accelerator)
        batches = len(self.sampler)
        self.total_steps = args.epochs * -(-batches // args.gradient_accumulation)
        optimizer, self.scheduler = _build_optimizer(model, args, self.total_steps)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.progress, self.states = Progress(), SavedStates(folder)
        self._started = time.monotonic()

    @property
    def evaluated_model(self) -> nn.Module:
        """The weights that are validated and saved: averaged ones if asked for."""
        averaged: nn.Module | None = self.ema.module if self.ema else None
        return self.plain_model if averaged is None else averaged

    def run(self) -> Progress:
        """Trains; the progress has one entry of `history` for each validation.

        Raises:
            FloatingPointError: the loss became infinite or NaN.
        """
        if self.args.resume:
            self._load_state()
        if self.accelerator.log_with:
            self.accelerator.init_trackers("ecgdan", config=_loggable(asdict(self.args)))
        bar = tqdm(
            total=self.total_steps,
            initial=self.progress.step,
            unit="step",
            desc="training",
            disable=not (self.args.progress and self.accelerator.is_main_process),
            dynamic_ncols=True,
        )
        try:
            while self.progress.epoch < self.args.epochs and not self._out_of_patience():
                losses = self._train_epoch(bar)
                self._close_epoch(losses, bar)
        finally:
            bar.close()
            for tracker in self.accelerator.trackers:  # `end_training` would also part the processes, too early
                tracker.finish()
        self.accelerator.wait_for_everyone()
        self._load_best()
        return self.progress

    def _train_epoch(self, bar: tqdm) -> dict[str, float]:
        """The rest of the current epoch; mean losses over all its batches."""
        progress = self.progress
        self.model.train()
        self.sampler.set_epoch(progress.epoch)
        self.sampler.start_batch = progress.batch
        self.collator.epoch = progress.epoch
        self.loader.iteration = progress.epoch
        for batch in self.loader:
            losses = self._step(batch)
            for name, value in losses.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
            progress.batch += 1
            if self.accelerator.sync_gradients:
                progress.step += 1
                bar.update()
                self.accelerator.log({f"train/{name}": value for name, value in losses.items()}, step=progress.step)
                every = self.args.checkpoint_every_steps
                if every and progress.step % every == 0:
                    self._save_state()
        return {f"train_{name}": value / progress.batch for name, value in progress.sums.items()}

    def _step(self, batch: Batch) -> dict[str, float]:
        with self.accelerator.accumulate(self.model):
            step: Any = self.progress.step + 0.5
            self.scheduler.step_update(step)  # mid-step: neither the first nor the last rate is 0
            losses = self.task.losses(self.model, batch, self.accelerator)
            values = {name: float(value.detach()) for name, value in losses.items()}
            if not math.isfinite(values["loss"]):
                parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
                raise FloatingPointError(
                    f"loss: not finite at step {self.progress.step + 1} of epoch {self.progress.epoch + 1} ({parts}); "
                    "lower learning_rate, or look for odd signals with `ecgdan data check`"
                )
            self.accelerator.backward(losses["loss"])
            if self.args.clip_norm and self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.args.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.ema and self.accelerator.sync_gradients:
            self.ema.update(self.plain_model, step=self.progress.step + 1)
        return values

    def _close_epoch(self, losses: dict[str, float], bar: tqdm) -> None:
        """Validates, keeps the best, saves the state."""
        progress, args = self.progress, self.args
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, {}
        last = progress.epoch == args.epochs
        if progress.epoch % args.evaluate_every == 0 or last:
            model = self.evaluated_model.eval()
            with torch.no_grad():
                metrics = self.task.validate(model, self.accelerator)
            if self.task.metric == LAST_EPOCH:
                metrics[LAST_EPOCH] = float(progress.epoch)
            progress.history.append({"epoch": progress.epoch, **losses, **metrics})
            self.accelerator.log({f"valid/{name}": value for name, value in metrics.items()}, step=progress.step)
            self._keep_if_best(metrics)
            bar.set_postfix(epoch=progress.epoch, **{self.task.metric: f"{metrics[self.task.metric]:.4f}"})
        if progress.epoch % args.checkpoint_every == 0 or last:
            self._save_state()

    def _keep_if_best(self, metrics: dict[str, float]) -> None:
        value, best = metrics[self.task.metric], self.progress.best_value
        if math.isnan(value):
            raise FloatingPointError(f"{self.task.metric}: not a number after epoch {self.progress.epoch}")
        if best is None or (value > best if self.task.higher_is_better else value < best):
            self.progress.best_value, self.progress.best_epoch = value, self.progress.epoch
            _save_weights(self.evaluated_model, self.states.best, self.accelerator)
            self.progress.best_digest = digest_of(self.states.best)

    def _out_of_patience(self) -> bool:
        if self.args.patience is None or not self.progress.history:
            return False
        since = sum(entry["epoch"] > self.progress.best_epoch for entry in self.progress.history)
        return since >= self.args.patience

    def _save_state(self) -> None:
        """Writes a resumable state, whole or not at all, and deletes the oldest."""
        self.progress.seconds = self.progress.earlier_seconds + time.monotonic() - self._started
        with self.states.writing(self.progress) as partial:
            self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()  # every process has written its part
        if self.accelerator.is_main_process:
            with self.states.writing(self.progress) as partial:
                if self.ema:
                    save_file(_state(self.ema.module), partial / "ema.safetensors")
                self.states.finish(self.progress, self.args.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _load_state(self) -> None:
        """Goes back to the newest whole state, or to the beginning, which is the same for every session."""
        state = self.states.newest()
        self.accelerator.wait_for_everyone()  # every process has chosen
        if self.accelerator.is_main_process:
            self.states.go_back(state, self.args.keep_checkpoints)
        self.accelerator.wait_for_everyone()
        if state is None:
            return
        self.accelerator.load_state(str(state))
        self.progress = self.states.read(state)
        if self.ema:
            self.ema.module.load_state_dict(load_file(state / "ema.safetensors"))

    def _load_best(self) -> None:
        self.plain_model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.plain_model.load_state_dict(self.states.load_best(self.progress))
        self.plain_model.to(memory_format=torch.contiguous_format).eval()


def _check_counts(args: TrainingArguments) -> None:
    for name in ("epochs", "gradient_accumulation", "evaluate_every", "checkpoint_every", "keep_checkpoints"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name}: expected one or more, got {getattr(args, name)}")
    for name, below in (("warmup_fraction", 1.0), ("ema_decay", 1.0)):
        if not 0 <= getattr(args, name) < below:
            raise ValueError(f"{name}: expected a number in [0, {below:g}), got {getattr(args, name)}")


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}


def _save_weights(model: nn.Module, path: Path, accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            save_file(_state(model), part)
    accelerator.wait_for_everyone()


def _loggable(values: dict[str, Any]) -> dict[str, Any]:
    """Tracker configurations take only scalars and text."""
    return {
        name: value if isinstance(value, int | float | bool | str) else str(value) for name, value in values.items()
    }


class _LayeredModel:
    """A model as timm's parameter grouping wants to see it, without touching the model itself."""

    def __init__(self, model: nn.Module):
        self.model = model

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.model.named_parameters()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return _LAYERS


def _build_optimizer(
    model: nn.Module, args: TrainingArguments, total_steps: int
) -> tuple[torch.optim.AdamW, CosineLRScheduler]:
    """AdamW, and linear warm-up over `warmup_fraction` of the steps, then a cosine down to `min_learning_rate`.

    Biases and norms have no weight decay; each layer below the heads learns `layer_decay` times slower. Call
    `step_update(step)` of the scheduler after each optimizer step; it scales each group by its layer's factor.
    """
    if args.learning_rate <= 0:
        raise ValueError(f"learning_rate: expected a positive number, got {args.learning_rate}")
    if not 0 < args.layer_decay <= 1:
        raise ValueError(f"layer_decay: expected a number in (0, 1], got {args.layer_decay}")
    groups = param_groups_layer_decay(
        cast(nn.Module, _LayeredModel(model)),
        weight_decay=args.weight_decay,
        layer_decay=args.layer_decay,
        no_weight_decay_list=_stacked_vectors(model),
    )
    if not groups:
        raise ValueError("model: expected at least one trainable parameter, found none")
    groups, betas = _text_apart(groups, model, args), (args.adam_beta1, args.adam_beta2)
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, betas=betas)
    warmup = round(args.warmup_fraction * total_steps)
    steps: dict[str, Any] = {"t_initial": max(total_steps - warmup, 1), "warmup_t": warmup, "t_in_epochs": False}
    return optimizer, CosineLRScheduler(optimizer, lr_min=args.min_learning_rate, warmup_prefix=True, **steps)


def _text_apart(groups: list[dict[str, Any]], model: nn.Module, args: TrainingArguments) -> list[dict[str, Any]]:
    """The language model's weights, if any are learned, in groups of their own with its own learning rate."""
    text = {id(weight) for name, weight in model.named_parameters() if name.startswith("text_model.")}
    if not text:
        return groups
    rate = getattr(args, "text_learning_rate", None) or _TEXT_LEARNING_RATES[getattr(args, "text_tower", "full")]
    parts = []
    for group in groups:
        for is_text, factor in ((False, 1.0), (True, rate / args.learning_rate)):
            weights = [weight for weight in group["params"] if (id(weight) in text) == is_text]
            scaled = {"params": weights, "lr_scale": group["lr_scale"] * factor}
            parts += [{**group, **scaled}] if weights else []
    return parts


def _stacked_vectors(model: nn.Module) -> list[str]:
    """Biases, scales and embeddings kept for every lead: stacked over leads, they look like matrices to timm."""
    last = {name: name.rsplit(".", 1)[-1] for name, _ in model.named_parameters()}
    leaves = ("norm1_weight", "norm2_weight", "lead_embedding")
    of_leads = [name for name, module in model.named_modules() if isinstance(module, EcgDanLeadScale)]
    scales = {f"{name}.{kind}" for name in of_leads for kind in ("weight", "bias")}
    return [name for name, leaf in last.items() if leaf.endswith("_bias") or leaf in leaves or name in scales]
