"""Fine-tuning of DANet in two stages: the classifier behind a waveform module that stays as it is, then both.

    ecgdan finetune --config finetune-danet --data-dir mit-bih --checkpoint runs/danet-pretrained \
        --output-dir runs/danet
    accelerate launch -m ecgdan_hf.training.finetune_danet --config finetune-danet ...

Stage 1 trains for `epochs`, stage 2 for `joint_epochs` at `joint_learning_rate`; the best epoch of both, by the mean
AUROC on the validation patients, is kept. Only a soft module can be frozen: with another module, or with none, stage 2
trains the same weights on, so that what is compared has had as many steps. Each stage is a run of the loop in a folder
of its own, which `resume` continues bit by bit.

The soft module goes on learning where to look, from the beats that the source has marked and from simulated ones.
Where a label is rare, `positive_weight` weighs its records in the loss, or `balance` draws them more often, patients
with many not much more often than those with few. A validation part of a few patients says little of which stage is
better; `keep_stage: last` then keeps the second, and validation chooses the thresholds alone.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from accelerate import Accelerator
from datasets import concatenate_datasets
from safetensors.torch import load_file

from ecgdan_hf.data.simulate.premature_beats import annotated_weights
from ecgdan_hf.data.sources.mitbih import BEATS
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.inference.heads import input_names
from ecgdan_hf.inference.rows import label_matrix
from ecgdan_hf.model.configuration_danet import DanetConfig, resolve_waveform_rule
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_danet import DanetForSequenceClassification
from ecgdan_hf.model.pipeline_ecgdan import recorded_samples
from ecgdan_hf.training.arguments.command import run_as_program
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.batching import DrawnBatchSampler, EpochBatchSampler, balanced_shares, check_augmentation
from ecgdan_hf.training.core.loop import Progress, Trainer, TrainingSet, build_accelerator
from ecgdan_hf.training.core.run_folder import begin_run, check_run, finish_run, is_finished, read_metrics
from ecgdan_hf.training.core.simulated_beats import in_millivolt, simulated_rows
from ecgdan_hf.training.core.starting_weights import build_config, build_danet, count_parameters
from ecgdan_hf.training.core.tasks import ClassificationTask
from ecgdan_hf.training.finetune import (
    Split,
    build_collator,
    build_loaders,
    by_sex_and_age,
    check_arguments,
    finish_and_predict,
    prepare,
    summary_or_reason,
    write_result,
)

MAX_POSITIVE_WEIGHT = 10.0
"""Of a balanced loss; a weight of hundreds would let a few records decide."""
STAGE_SEED = 10_000
"""Added to the seed in stage 2, whose batches are then other ones."""


@dataclass
class Stage:
    """One run of the loop.

    Attributes:
        name: also of its folder in the run's.
        args: those of the run, with the stage's epochs, rate and seed.
        frozen: the waveform module does not learn.
    """

    name: str
    args: FinetuneArguments
    frozen: bool


def run(args: FinetuneArguments, split: Split = rows.split) -> dict[str, Any]:
    """Fine-tunes, and leaves a checkpoint folder with `metrics.json` and `predictions.csv`.

    Args:
        args: what, on what, how long; task danet.
        split: divides the rows in another way than the folds and fractions of `args` say.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    started, folder = time.monotonic(), check_run(args)
    check_arguments(args)
    check_danet_arguments(args)
    if args.valid_fraction == 0 and split is not rows.split:  # it leaves patients out, who would be trained on
        raise ValueError("valid_fraction: expected above 0 beside a given split, got 0")
    if args.resume and is_finished(folder):
        return read_metrics(folder)
    config = build_config(DanetConfig, args.model, args.checkpoint)
    check_augmentation(args, config)
    feature_extractor = EcgDanFeatureExtractor(**config.signal_contract)
    dataset = rows.load_dataset(args, feature_extractor, label_level=args.label_level)
    parts = prepare(dataset, config, args, everyone if args.valid_fraction == 0 else split)
    check_thresholds(args, config)
    check_labels(parts)
    learned = what_is_learned(parts["train"], config, feature_extractor, args)
    config.positive_weights = positive_weights(learned.rows, args.positive_weight)
    stages = plan(args, config)
    accelerator = build_accelerator(args, folder)
    model, new_weights = build_danet(DanetForSequenceClassification, config, args.checkpoint)
    num_parameters = count_parameters(model)
    if accelerator.is_main_process:
        begin_run(folder, args)
    accelerator.wait_for_everyone()
    found = {}
    for stage in stages:
        accelerator = build_accelerator(stage.args, folder / stage.name)
        found[stage.name] = run_stage(stage, model, parts, learned, folder, accelerator)
    chosen = keep_weights(model, found, folder, args.keep_stage)
    loaders = build_loaders(parts, config, args, accelerator)
    task = ClassificationTask(config, loaders["valid"])
    predictions = finish_and_predict(task, model, parts, loaders, accelerator)
    if args.thresholds:
        given = {name: float(value) for name, value in args.thresholds.items()}
        model.config.thresholds = {**(model.config.thresholds or {}), **given}
    if args.valid_fraction == 0:
        predictions.pop("valid")  # they were trained on
    judged = {name: part for name, part in parts.items() if name == "train" or name in predictions}
    metrics: dict[str, Any] = {
        "task": args.task,
        "simulated_outcome": False,
        "checkpoint": args.checkpoint or "random weights",
        "pretraining": pretraining_of(args.checkpoint),
        "new_weights": new_weights if args.checkpoint else "all",
        "best_stage": chosen,
        "best_epoch": found[chosen].best_epoch,
        "stages": {name: summary(progress, args) for name, progress in found.items()},
        "num_records": {name: len(part) for name, part in judged.items()},
        "num_simulated": learned.num_simulated,
        "num_positive": {name: positives(part) for name, part in judged.items()},
        "positive_weights": config.positive_weights,
        "num_parameters": num_parameters,
        **{name: summary_or_reason(task, table, args) for name, table in predictions.items()},
        **by_sex_and_age(task, predictions.get("test"), args),
        "history": [{"stage": name, **entry} for name, progress in found.items() for entry in progress.history],
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


def check_danet_arguments(args: FinetuneArguments) -> None:
    """Refuses what the two stages cannot be made of.

    Raises:
        ValueError: another task; a rate without epochs, epochs without a rate, a negative number, or a weight that is
            none.
    """
    if args.task != "danet":
        raise ValueError(f"task: expected danet, got {args.task!r}")
    for name in ("joint_epochs", "simulated_records"):
        if getattr(args, name) < 0:
            raise ValueError(f"{name}: expected no negative number, got {getattr(args, name)}")
    rate = args.joint_learning_rate
    if bool(args.joint_epochs) != (rate is not None) or (rate is not None and rate <= 0):
        raise ValueError(
            f"joint_epochs, joint_learning_rate: expected both, and a positive rate, or neither, got "
            f"{args.joint_epochs} and {rate}"
        )
    weight = args.positive_weight
    if weight not in (None, "balanced") and not (isinstance(weight, int | float) and 0 < weight < np.inf):
        raise ValueError(f"positive_weight: expected balanced or a positive number, got {weight!r}")


def everyone(dataset: Any, args: FinetuneArguments, stratify_by: str | None) -> rows.Parts:
    """Every patient trains; the loop validates on the same, which decides nothing."""
    return rows.Parts(dataset, dataset, None)


def check_thresholds(args: FinetuneArguments, config: DanetConfig) -> None:
    """Refuses thresholds that are none, and a run on every patient in which validation would have to decide something.

    Raises:
        ValueError: see above.
    """
    names = [config.id2label[label] for label in range(config.num_labels)]
    for name, value in args.thresholds.items():
        if name not in names or not isinstance(value, int | float) or not 0 < value < 1:
            raise ValueError(
                f"thresholds: expected a probability for some of {', '.join(names)}, got {name}={value!r}"
            )
    if args.valid_fraction == 0:
        if args.keep_stage != "last" or args.epochs != 1 or args.joint_epochs > 1:
            raise ValueError("valid_fraction: 0 leaves nobody to choose by; it needs keep_stage last and epochs of 1")
        folds = args.train_folds or args.valid_folds or args.test_folds
        if set(args.thresholds) != set(names) or folds or args.test_fraction or args.label_fraction != 1:
            raise ValueError(
                "valid_fraction: 0 trains on every patient; give each label a threshold, no folds, test_fraction 0, "
                "label_fraction 1"
            )


def check_labels(parts: dict[str, Any]) -> None:
    """Refuses parts that nothing can be learned from, or no epoch be chosen by.

    A test part without positives is allowed, as one fold of a cross-validation may have none; its summary says so.

    Raises:
        ValueError: no label that some records of the part have and some have not.
    """
    for name in ("train", "valid"):
        counts, total = positives(parts[name]), len(parts[name])
        if not any(0 < count < total for count in counts.values()):
            said = ", ".join(f"{label} in {count}" for label, count in counts.items())
            raise ValueError(
                f"labels: expected records with and without a label in the {name} part, found {said} of {total} "
                "records; choose other folds or fractions"
            )


def positives(part: Any) -> dict[str, int]:
    """How many records have each label."""
    counts = label_matrix(part).sum(axis=0).astype(int).tolist()
    return dict(zip(part.features["labels"].feature.names, counts, strict=True))


def positive_weights(part: Any, wanted: str | float | None) -> dict[str, float] | None:
    """What the loss of a positive record is multiplied by, for each label.

    Args:
        part: what is trained on.
        wanted: "balanced", records without the label over records with it, `MAX_POSITIVE_WEIGHT` at most; one number
            for all labels; None for none.
    """
    if wanted is None:
        return None
    counts = positives(part)
    if wanted != "balanced":
        return dict.fromkeys(counts, float(wanted))
    return {
        label: min((len(part) - count) / count, MAX_POSITIVE_WEIGHT) if 0 < count < len(part) else 1.0
        for label, count in counts.items()
    }


@dataclass
class Learned:
    """What is trained on: real records, then simulated ones.

    Attributes:
        rows: of both.
        patient_ids: of each row.
        num_simulated: of them, the last ones.
        waveform_targets: (rows, samples), what a(t) should be, NaN where it is not known; None where nothing is.
    """

    rows: Any
    patient_ids: list[str]
    num_simulated: int = 0
    waveform_targets: np.ndarray | None = None


def what_is_learned(
    train: Any, config: DanetConfig, feature_extractor: EcgDanFeatureExtractor, args: FinetuneArguments
) -> Learned:
    """The training rows, behind them those simulated from the regular ones among them, and where a(t) is known.

    Raises:
        ValueError: labels other than the rule's own, which is all that is known of a simulated record.
    """
    soft = config.waveform_module == "soft"
    known = [annotated_targets(train, config, feature_extractor)] if soft and args.beat_annotations else [None]
    learned = Learned(train, list(train["patient_id"]))
    if args.simulated_records:
        made = simulate_from(train, config, feature_extractor, args)
        columns = [*input_names(config), "labels"]
        both = concatenate_datasets([part.select_columns(columns) for part in (train, made)])
        learned = Learned(both, [*train["patient_id"], *made["patient_id"]], len(made))
        known.append(np.asarray(made.with_format("numpy")["waveform_targets"], dtype=np.float32) if soft else None)
    if any(each is not None for each in known):
        counts = (len(train), learned.num_simulated)
        unknown = [np.full((count, config.num_samples), np.nan, np.float32) for count in counts]
        found = [unknown[part] if each is None else each for part, each in enumerate(known)]
        learned.waveform_targets = np.concatenate(found)
    return learned


def simulate_from(
    train: Any, config: DanetConfig, feature_extractor: EcgDanFeatureExtractor, args: FinetuneArguments
) -> Any:
    """Rows simulated from the training records.

    Raises:
        ValueError: labels other than the rule's own.
    """
    rule = resolve_waveform_rule(args.simulated_rule or config.waveform_rule) or {}
    names, own = train.features["labels"].feature.names, str(rule.get("name")).upper()
    if names != [own]:
        raise ValueError(
            f"simulated_records: expected keep_labels {own}, the one label of the waveform rule, got "
            f"{', '.join(names)}"
        )
    in_mv = rows.load_dataset(args, in_millivolt(feature_extractor), label_level=args.label_level)
    position = {record: row for row, record in enumerate(in_mv["record_id"])}
    sources = in_mv.select([position[record] for record in train["record_id"]])
    return simulated_rows(
        sources, feature_extractor, rule, args.simulated_records, args.seed, args.num_proc, args.cache_dir
    )


def annotated_targets(part: Any, config: DanetConfig, feature_extractor: EcgDanFeatureExtractor) -> np.ndarray | None:
    """(records, samples), the rule's weights around the beats that the source has marked; None where it marks none.

    Beats count by their kind, which must have the rule's name: `APC` for `apc`. Of a rule of another name nothing is
    known: that no beat meets it would be learned otherwise.
    """
    rule: Any = config.waveform_rule
    if "beat_seconds" not in part.column_names or not (rule and "wave_weights" in rule):
        return None
    if rule["name"].upper() not in BEATS.values():
        return None
    rate, kind, targets = feature_extractor.sampling_rate, rule["name"].upper(), []
    columns = (part[name] for name in ("beat_seconds", "beat_kinds", "duration_seconds"))
    for seconds, kinds, duration in zip(*columns, strict=True):
        first, end, start = recorded_samples(feature_extractor, round(duration * rate), rate)
        peaks = np.asarray(seconds, dtype=float) * rate - start
        weights = annotated_weights(peaks, np.array(kinds) == kind, end - first, rate, rule)
        targets.append(np.pad(weights, (first, config.num_samples - end)))
    return np.stack(targets)


def plan(args: FinetuneArguments, config: DanetConfig) -> list[Stage]:
    """The stages of a run."""
    first = Stage("stage-1", args, config.waveform_module == "soft")
    if not args.joint_epochs:
        return [first]
    seed, rate = args.seed + STAGE_SEED, float(args.joint_learning_rate or 0)
    return [first, Stage("stage-2", replace(args, epochs=args.joint_epochs, learning_rate=rate, seed=seed), False)]


def run_stage(
    stage: Stage,
    model: DanetForSequenceClassification,
    parts: dict[str, Any],
    learned: Learned,
    folder: Path,
    accelerator: Accelerator,
) -> Progress:
    """Trains one stage, and leaves the model with its best weights."""
    config, args = model.config, stage.args
    if config.waveform_module == "soft":
        (model.freeze_waveform_module if stage.frozen else model.unfreeze_waveform_module)()
    loaders = build_loaders({"valid": parts["valid"]}, config, args, accelerator)
    task = ClassificationTask(config, loaders["valid"])
    sampler = build_sampler(learned, args)
    collator = build_collator(learned.rows, config, args)
    if learned.waveform_targets is not None:
        collator.lookups["waveform_targets"] = learned.waveform_targets
    training_set = TrainingSet(learned.rows, sampler, collator)
    return Trainer(model, task, training_set, args, folder / stage.name, accelerator).run()


def build_sampler(learned: Learned, args: FinetuneArguments) -> EpochBatchSampler:
    """Every row once an epoch, or with `balance` rows drawn as [`balanced_shares`] says."""
    if not args.balance:
        return EpochBatchSampler(len(learned.rows), args.batch_size, seed=args.seed)
    simulated = np.arange(len(learned.rows)) >= len(learned.rows) - learned.num_simulated
    positive = label_matrix(learned.rows).any(axis=1)
    return DrawnBatchSampler(balanced_shares(positive, learned.patient_ids, simulated), args.batch_size, args.seed)


def keep_weights(
    model: DanetForSequenceClassification, found: dict[str, Progress], folder: Path, keep_stage: str
) -> str:
    """Gives the model the weights of the better stage, the earlier one if they are equal, or of the last; its name."""
    last, best = list(found)[-1], max(found, key=lambda name: found[name].best_value or 0.0)
    kept = last if keep_stage == "last" else best
    model.load_state_dict(load_file(folder / kept / "checkpoints" / "best.safetensors"))
    return kept


def pretraining_of(checkpoint: str | None) -> dict[str, Any] | None:
    """What the checkpoint was pretrained on, as its own folder says; None where it was not, or does not say so."""
    folder = Path(str(checkpoint))
    if not checkpoint or not (folder / "recipe.yaml").is_file() or not is_finished(folder):
        return None
    metrics, recipe = read_metrics(folder), yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    if metrics.get("task") != "pretraining":  # a fine-tuned network has seen labels
        return None
    recipe["pretext"] = metrics.get("pretext")  # by its name, where the recipe left it to the default
    wanted = ("task", "pretext", "data", "train_folds", "simulated_records", "seed")
    return {name: recipe[name] for name in wanted if recipe.get(name) is not None}


def summary(progress: Progress, args: FinetuneArguments) -> dict[str, Any]:
    """A stage in `metrics.json`; what was validated on training patients says so."""
    name = ClassificationTask.metric if args.valid_fraction else f"train_{ClassificationTask.metric}"
    return {"best_epoch": progress.best_epoch, name: progress.best_value}


if __name__ == "__main__":
    run_as_program(FinetuneArguments, run)
