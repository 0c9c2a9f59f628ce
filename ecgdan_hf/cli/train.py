"""Verbs that train: `ecgdan pretrain`, `finetune`, `probe`, `ablate`, `recalibrate`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ecgdan_hf.cli.output import say
from ecgdan_hf.training.arguments.command import with_flags
from ecgdan_hf.training.arguments.fields import (
    AblateArguments,
    EventsArguments,
    FinetuneArguments,
    PretrainArguments,
    ProbeArguments,
    RecalibrateArguments,
    RunArguments,
)


def _pretrain(args: PretrainArguments) -> None:
    """Pretrain an encoder by reconstruction and text alignment, or a waveform module by the rule of a disease.

    \b
    Example:
      ecgdan pretrain --config pretrain-rhythm --data-dir ptb-xl --output-dir runs/pretrained
      ecgdan pretrain --config pretrain-danet --data-dir ptb-xl --output-dir runs/danet-pretrained
    """
    _check_push(args)
    if args.task == "danet":
        from ecgdan_hf.training.pretrain_danet import pretrain_danet as pretrain
    else:
        from ecgdan_hf.training.pretrain import pretrain
    metrics = pretrain(args)
    say(f"{args.output_dir}: best epoch {metrics['best_epoch']}, {_losses(metrics['valid'])}")
    _push_if_asked(args)


def _finetune(args: FinetuneArguments) -> None:
    """Fine-tune for survival or classification, with or without a waveform module, from a checkpoint or from scratch.

    \b
    Example:
      ecgdan finetune --config finetune-survival --data ptb-xl --data-dir ptb-xl --labels outcomes.csv \\
        --train-folds 1-8 --test-folds 9 --checkpoint runs/pretrained --output-dir runs/survival
      ecgdan finetune --config finetune-danet --data-dir mit-bih --checkpoint runs/danet-pretrained \\
        --output-dir runs/danet
    """
    _check_push(args)
    if args.task == "danet":
        from ecgdan_hf.training.finetune_danet import finetune_danet

        metrics = finetune_danet(args)
    else:
        from ecgdan_hf.training.finetune import finetune

        metrics = finetune(args)
    simulated = " (simulated outcome)" if metrics["simulated_outcome"] else ""
    for part in ("valid", "test"):
        if part in metrics:
            say(f"{args.output_dir}: {part}{simulated}: {_metric_in_words(metrics[part])}")
    _push_if_asked(args)


def _probe(args: ProbeArguments) -> None:
    """Fit a linear model on a frozen encoder and on a randomly initialised one; or classify by prompts, untrained.

    \b
    Example:
      ecgdan probe --checkpoint runs/pretrained --data ptb-xl --data-dir ptb-xl --train-folds 1-8 --test-folds 9 \\
        --output-dir runs/probe
      ecgdan probe --zero-shot --checkpoint runs/pretrained --data ptb-xl --data-dir ptb-xl --test-folds 9 \\
        --output-dir runs/zero-shot
    """
    if args.zero_shot:
        from ecgdan_hf.training.zero_shot_probe import zero_shot_probe as probe
    elif args.label_fractions:
        from ecgdan_hf.training.studies.label_efficiency import label_efficiency as probe
    else:
        from ecgdan_hf.training.linear_probe import linear_probe as probe
    probe(args)
    show_report(args.output_dir)


def _ablate(args: AblateArguments) -> None:
    """Pretrain variants of a recipe, each with one change, and compare their encoders in one table.

    \b
    Example:
      ecgdan ablate --config ablation --data-dir ptb-xl --output-dir runs/ablation
    """
    from ecgdan_hf.training.studies.ablation import ablate

    ablate(args, say=say)
    show_report(args.output_dir)


def _events(args: EventsArguments) -> None:
    """Compare a frozen encoder, measurements, and age and sex at several numbers of events, on simulated follow-up.

    \b
    Example:
      ecgdan study events --checkpoint runs/encoder --control "shuffled texts=runs/shuffled" --data-dir ptb-xl \\
        --folds 6-9 --output-dir runs/events
    """
    from ecgdan_hf.training.studies.events import study_events

    study_events(args, say=say)
    show_report(args.output_dir)


def _recalibrate(args: RecalibrateArguments) -> None:
    """Fit the absolute risks of a survival checkpoint to another population; the weights do not change.

    \b
    Example:
      ecgdan recalibrate --checkpoint runs/survival --method slope --data csv --data-dir their-ecgs \\
        --output-dir runs/survival-there
    """
    from ecgdan_hf.training.recalibration import recalibrate_checkpoint

    recalibrate_checkpoint(args)
    show_report(args.output_dir)


def show_report(folder: str | Path | None) -> None:
    """Prints the `report.md` of a run."""
    say((Path(str(folder)) / "report.md").read_text(encoding="utf-8"))


def _metric_in_words(metrics: Mapping[str, Any]) -> str:
    """Returns the concordance index or macro AUROC of one part of a result in words, with its interval."""
    for name, words in (("concordance_index", "C-index"), ("macro_auroc", "macro AUROC")):
        if name in metrics:
            found, best = metrics[name], metrics.get("attainable_concordance_index")
            text = f"{words} {found['estimate']:.3f} (95 % interval {found['low']:.3f} to {found['high']:.3f})"
            text += f", {metrics['num_records']} records"
            text += f", {metrics['num_events']} events" if "num_events" in metrics else ""
            return text + (f", attainable {best:.3f}" if best else "")
    return str(metrics.get("not_estimable", metrics))


def _check_push(args: RunArguments) -> None:
    """Refuses, before hours of training, an upload that would fail after them."""
    if args.push_to_hub:
        from ecgdan_hf.publish.push import HubRepository

        HubRepository(args.push_to_hub).check_login()


def _push_if_asked(args: RunArguments) -> None:
    if args.push_to_hub:
        from ecgdan_hf.publish.push import push_checkpoint

        commit = push_checkpoint(str(args.output_dir), args.push_to_hub)
        say(f"{commit.repo_url}: {args.push_to_hub}@{commit.oid}")


def _losses(metrics: dict[str, Any]) -> str:
    parts = ("reconstruction_loss", "alignment_loss", "superclass_loss", "recall", "waveform_loss", "macro_auroc")
    found = [name for name in parts if name in metrics] or ["loss"]
    return ", ".join(f"{name} {metrics[name]:.4f}" for name in found if name in metrics)


VERBS: dict[str, Callable[..., None]] = {
    "pretrain": with_flags(PretrainArguments, _pretrain),
    "finetune": with_flags(FinetuneArguments, _finetune),
    "probe": with_flags(ProbeArguments, _probe),
    "ablate": with_flags(AblateArguments, _ablate),
    "recalibrate": with_flags(RecalibrateArguments, _recalibrate),
}
STUDIES: dict[str, Callable[..., None]] = {"events": with_flags(EventsArguments, _events)}
