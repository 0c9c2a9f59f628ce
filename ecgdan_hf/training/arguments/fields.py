"""Arguments of the training verbs: one dataclass each, filled from a YAML recipe and overridden by flags.

The field names are the keys of a recipe and the flags of the command line. A field that only some tasks use says so.
Must import neither torch nor transformers: the command line imports this module for its `--help`.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from ecgdan_hf.data.sources.registry import SOURCE_NAMES, SOURCES
from ecgdan_hf.training.arguments.options import option

_DATA_HELP = f"source, one of {SOURCE_NAMES} [default: recognised from the files]; see docs/data.md"
NOT_PART_OF_THE_RUN = (
    "resume", "overwrite", "push_to_hub", "num_workers", "num_proc", "cache_dir", "log_with", "progress"
)  # fmt: skip
"""Arguments that may differ between a run and its resumption, because no number depends on them."""

_COUNT, _NOT_NEGATIVE, _SHARE = (1, math.inf), (0, math.inf), (0, 1)
"""Ranges of numbers."""

_WITH_LEVELS = (None, *(source.name for source in SOURCES if source.label_levels))
"""Sources whose labels have levels; None is a source that is still to be recognised."""

_alignment, _danet, _survival, _classification = (
    partial(option, task=task) for task in ("alignment", "danet", "survival", "classification")
)
_linear, _zero_shot = partial(option, zero_shot=False), partial(option, zero_shot=True)
_held_out, _repeated_cv = partial(option, protocol="held-out"), partial(option, protocol="repeated-cv")


ECGS_PER_PATIENT = ("all", "first", "last")
_WHICH_ECGS = "ECGs of a patient that count: all, or the first or the last by time to the end of follow-up"


@dataclass(kw_only=True)
class _DataArguments:
    """Where the recordings are, how they are prepared, and where the result goes."""

    data: str | None = option(None, _DATA_HELP)
    data_dir: str | None = option(None, "folder with the recordings (for csv: the table, or a folder with one)")
    output_dir: str | None = option(None, "folder for the result")
    cache_dir: str | None = option(None, "folder for preprocessed signals and text embeddings [default: user cache]")
    limit: int | None = option(None, "use only the first records, for a trial run", within=_COUNT)
    skip_bad: bool = option(False, "leave out and list unusable records instead of stopping at the first")
    num_proc: int | None = option(None, "processes that preprocess signals [default: one per core]", within=_COUNT)
    overwrite: bool = option(False, "replace a result that is already in output_dir")


@dataclass(kw_only=True)
class RunArguments(_DataArguments):
    """Arguments of every run: its data, how they are split, and where the result goes."""

    output_dir: str | None = option(None, "folder for the checkpoint, metrics.json and recipe.yaml")
    train_folds: str | None = option(None, "folds to train on, as 1-8 or 1,2,5; default: split by patient")
    valid_folds: str | None = option(None, "folds that choose the epoch; default: valid_fraction of the patients")
    test_folds: str | None = option(None, "folds that are only evaluated, once, at the end")
    valid_fraction: float = option(
        0.2, "share of the training patients that choose the epoch, without valid_folds", within=_SHARE
    )
    test_fraction: float = option(0.2, "share of all patients kept for the test, without train_folds", within=_SHARE)
    label_fraction: float = option(1.0, "share of the training and of the validation patients that is used")
    seed: int = option(0, "seed of every random choice", within=_NOT_NEGATIVE)
    push_to_hub: str | None = option(None, "upload the bundled result to this repository, as USER/NAME")


@dataclass(kw_only=True)
class TrainingArguments(RunArguments):
    """Arguments of the training loop: its length, its rates, and how often it validates and saves."""

    checkpoint: str | None = option(None, "checkpoint folder or Hub name to start from")
    model: dict[str, Any] = option({}, "configuration fields of the network, as key=value; repeatable")
    epochs: int = option(60, "passes over the training records")
    batch_size: int = option(128, "records per step and process", within=_COUNT)
    gradient_accumulation: int = option(1, "batches per optimizer step; a Cox risk set stays one batch")
    learning_rate: float = option(1e-3, "peak learning rate of AdamW")
    min_learning_rate: float = option(0.0, "learning rate at the end of the cosine", within=_NOT_NEGATIVE)
    adam_beta1: float = option(0.9, "decay of the gradient mean", within=_SHARE)
    adam_beta2: float = option(0.95, "decay of the squared-gradient mean", within=_SHARE)
    weight_decay: float = option(
        1e-2, "decay of matrices and kernels; biases and norms are left alone", within=_NOT_NEGATIVE
    )
    layer_decay: float = option(1.0, "learning rate ratio between one layer and the next; 1 trains all alike")
    warmup_fraction: float = option(0.2, "share of the steps with rising learning rate")
    clip_norm: float = option(1.0, "largest gradient norm; 0 does not clip", within=_NOT_NEGATIVE)
    ema_decay: float = option(
        0.0, "decay of the averaged weights that are evaluated and saved; 0 uses the raw ones", within=_SHARE
    )
    lead_masking: str = option(
        "record", "draw of leads to hide: record, batch or none", choices=("record", "batch", "none")
    )
    lead_masking_probability: float = option(0.5, "how often leads are hidden at all", within=_SHARE)
    span_masking_probability: float = option(0.0, "how often stretches of time are hidden in all leads", within=_SHARE)
    crop_samples: int = option(0, "train on random pieces of so many samples (trunk: light); 0 uses whole records")
    augment_scale: float = option(
        0.0, "random amplitude factor within 1 +- this (normalization: global)", within=_NOT_NEGATIVE
    )
    augment_noise: float = option(
        0.0, "SD of white noise added to the scaled input (normalization: global)", within=_NOT_NEGATIVE
    )
    precision: str = option(
        "auto", "no, bf16, fp16, or auto: bf16 on a GPU that supports it", choices=("auto", "no", "bf16", "fp16")
    )
    evaluate_every: int = option(1, "epochs between validations")
    patience: int | None = option(None, "validations without improvement before stopping early", within=_COUNT)
    checkpoint_every: int = option(1, "epochs between resumable states")
    checkpoint_every_steps: int | None = option(
        None, "further states within an epoch, every so many optimizer steps", within=_COUNT
    )
    keep_checkpoints: int = option(2, "resumable states kept")
    num_workers: int = option(0, "processes that assemble batches", within=_NOT_NEGATIVE)
    log_with: str = option("tensorboard", "tensorboard, trackio or none", choices=("tensorboard", "trackio", "none"))
    progress: bool = option(True, "show a progress bar")
    resume: bool = option(False, "continue the unfinished run in output_dir, to the same end as if never interrupted")


@dataclass(kw_only=True)
class PretrainArguments(TrainingArguments):
    """Arguments of `ecgdan pretrain`."""

    task: str = option(
        "alignment",
        "alignment (reconstruction, and ECG with text) or danet (a waveform module)",
        choices=("alignment", "danet"),
    )
    pretext: str | None = _danet(
        None,
        "simulated-beats (default), hard-weights or masked: what a waveform module learns",
        choices=("simulated-beats", "hard-weights", "masked"),
    )
    simulated_records: int = _danet(
        8000, "training records simulated with and without early beats", pretext=(None, "simulated-beats")
    )
    simulated_rule: str | None = _danet(
        None, "rule that simulated records follow [default: the model's]", pretext=(None, "simulated-beats")
    )
    text_model: str = _alignment(
        "emilyalsentzer/Bio_ClinicalBERT", "language model: a name or folder; minilm; none for no alignment"
    )
    text_model_revision: str | None = _alignment(None, "branch, tag or commit of a text_model on the Hub")
    text_source: str = _alignment(
        "statements",
        "what is embedded: SCP statements, the raw report, or report_english: put into English by terms; with the "
        "objective statements also measured (sentences about what the signal measures) or statements,measured",
        choices=("statements", "report", "report_english", "measured", "statements,measured"),
    )
    text_prompts: str = _alignment(
        "names", "wordings of a statement: names, or definitions of what it is", choices=("names", "definitions")
    )
    text_style: str = _alignment(
        "default", "default, or authors: their prompts, padding and dropped statements", choices=("default", "authors")
    )
    text_tower: str = _alignment(
        "frozen",
        "what is learned of text_model: frozen (nothing), lora (needs peft) or full",
        choices=("frozen", "lora", "full"),
    )
    text_learning_rate: float | None = _alignment(
        None,
        "peak learning rate of text_model [default: lora 2e-4, full 2e-5]",
        text_tower=("lora", "full"),
        within=_NOT_NEGATIVE,
    )
    lora_rank: int = _alignment(
        8, "rank of the updates, with text_tower lora", text_tower="lora", within=_NOT_NEGATIVE
    )
    statement_dropout: float = _alignment(
        0.0, "share of a record's statements left out of its text, redrawn each time together with their wordings"
    )
    shuffle_text: bool = _alignment(False, "control: permute the training texts among the records")
    text_control: str = _alignment(
        "none",
        "control of the objective statements: permuted (each statement has another's definition), one_hot (no "
        "language) or random_model (a language model with random weights)",
        choices=("none", "permuted", "one_hot", "random_model"),
    )
    hold_out_statements: str | None = _alignment(None, "SCP codes kept out of all texts, as AFIB,LVH, to test on them")
    checkpoint: str | None = option(None, "checkpoint folder or Hub name to continue from; default: random weights")
    select_by: str = option(
        "loss",
        "validation metric that chooses the epoch: loss, reconstruction_loss, recall, zero_shot, or last: the last "
        "epoch, whatever validation says; danet: loss, or macro_auroc of simulated-beats",
    )


@dataclass(kw_only=True)
class FinetuneArguments(TrainingArguments):
    """Arguments of `ecgdan finetune`."""

    task: str = option(
        "survival",
        "survival, classification, or danet: classification behind a waveform module",
        choices=("survival", "classification", "danet"),
    )
    method: str = option(
        "auto",
        "fine-tune (train the network), few-events (survival: keep the encoder, fit a head shrunk by evidence), "
        "linear (classification: keep the encoder, fit a linear classifier), or auto: few-events below 250 training "
        "events if no argument of training is given, else fine-tune",
        choices=("fine-tune", "linear", "few-events", "auto"),
        task=("survival", "classification"),
    )
    from_scratch: bool = option(False, "start from random weights instead")
    lead_masking: str = option(
        "batch", "draw of leads to hide: record, batch or none", choices=("record", "batch", "none")
    )
    lead_masking_probability: float = option(
        1.0, "how often leads are drawn at all; half of the draws keep all", within=_SHARE
    )
    keep_epoch: str = option(
        "best",
        "epoch whose weights are kept: best by validation, or last, where pretraining saw the validation patients and "
        "validation therefore prefers early epochs",
        task=("survival", "classification"),
        choices=("best", "last"),
    )
    leads: str | None = option(
        None,
        "train and evaluate with these leads alone and those that follow from them, such as I or I,II",
        task=("survival", "classification"),
    )
    page_layout: str = option(
        "whole",
        "what of each lead is shown: whole, or 3x4: the 2.5 s of a printed page, and all of lead II, its strip",
        task=("survival", "classification"),
        choices=("whole", "3x4"),
    )
    lora_rank: int = option(
        0,
        "learn the head and low-rank updates of the encoder alone, of this rank (needs peft); 0 trains every weight",
        task=("survival", "classification"),
        within=_NOT_NEGATIVE,
    )
    labels: str | None = _survival(None, "outcomes table: record_id or patient_id, event, time in years")
    ecgs_per_patient: str = _survival("all", _WHICH_ECGS, choices=ECGS_PER_PATIENT)
    label_level: str | None = option(
        None,
        "labels of ptb-xl: superclass (default), subclass or statement",
        task=("classification", "danet"),
        data=_WITH_LEVELS,
    )
    keep_labels: str | None = option(
        None, "learn only these labels of the data, as APC or APC,PVC; default: all", task=("classification", "danet")
    )
    joint_epochs: int = _danet(0, "epochs in which the waveform module learns too, after those it is frozen")
    joint_learning_rate: float | None = _danet(None, "peak learning rate of joint_epochs")
    simulated_records: int = _danet(0, "records simulated from the training records and added to them")
    simulated_rule: str | None = _danet(None, "rule that simulated records follow [default: the model's]")
    beat_annotations: bool = _danet(True, "teach a soft module where the source's marked beats are")
    balance: bool = _danet(False, "draw half of the real records positive, patients evenly, half simulated")
    thresholds: dict[str, Any] = _danet(
        {},
        "decision thresholds from elsewhere, such as a cross-validation, as label=probability; needed where "
        "valid_fraction 0 trains on every patient",
    )
    keep_stage: str = _danet(
        "best", "stage whose weights are kept: best by validation, or last", choices=("best", "last")
    )
    positive_weight: str | float | None = _danet(
        None, "weight of a positive record in the loss: a number, or balanced: negatives per positive"
    )
    auxiliary_level: str | None = _classification(
        None, "level of further labels of ptb-xl to learn with those of label_level", data=_WITH_LEVELS
    )
    teachers: str | None = _classification(
        None, "classifiers, separated by commas, whose mean prediction softens the labels"
    )
    teacher_weight: float = _classification(0.5, "share of the teachers in the softened labels", within=_SHARE)
    shuffle_labels: bool = option(
        False,
        "control for ecgdan sanity: permute labels or follow-up among the training records",
        task=("survival", "classification"),
    )
    covariates: str | None = _survival(
        None, "columns to use with the ECG, such as age,sex; a text column becomes one column per level"
    )
    missing_covariates: str | None = _survival(
        None,
        "a missing covariate: mean (of training; default), indicator (mean and a column for it) or refuse (an error)",
        choices=("mean", "indicator", "refuse"),
    )
    stratify: bool | None = _survival(None, "give every batch the event fraction of the training set [default: true]")
    endpoint: str | None = _survival(None, "the event in words, for reports")
    causes: str | None = _survival(
        None,
        "competing causes, as heart failure,death: what event 1, 2, ... stand for, the endpoint first; each risk is a "
        "cumulative incidence",
    )
    endpoints: str | None = _survival(
        None,
        "several endpoints, as hf,death,af: the data have event_hf and time_hf and so on, blank where not known; one "
        "head each, none competes; the first is the main one",
    )
    hazard: str = _survival(
        "cox",
        "cox (log hazards and a baseline), or discrete (a hazard in each of some intervals, whose shape is learned)",
        choices=("cox", "discrete"),
    )
    hazard_cuts: str | None = _survival(
        None, "years at which the intervals of a discrete hazard begin and end, as 0,1,2,5,10 [default: by events]"
    )
    bootstrap: int = option(1000, "patient resamples behind each interval", within=_COUNT)
    simulated_outcome: bool | None = _survival(
        None, "the follow-up is simulated; default: whether it has a log_hazard column"
    )


@dataclass(kw_only=True)
class ProbeArguments(RunArguments):
    """Arguments of `ecgdan probe`."""

    task: str = option(
        "classification", "survival (ridge Cox) or classification (logistic)", choices=("survival", "classification")
    )
    train_folds: str | None = _linear(None, "folds to train on, as 1-8 or 1,2,5")
    valid_folds: str | None = _linear(None, "folds that would choose an epoch, added to training")
    label_fraction: float = _linear(1.0, "share of the training patients that is used")
    checkpoint: str | None = option(None, "checkpoint folder or Hub name whose frozen encoder is probed")
    labels: str | None = _survival(
        None, "outcomes table: record_id or patient_id, event, time in years", zero_shot=False
    )
    label_level: str | None = _classification(
        None, "labels of ptb-xl: superclass (default), subclass or statement", data=_WITH_LEVELS, zero_shot=False
    )
    control: dict[str, Any] = option({}, "a further checkpoint to compare with, as name=folder; repeatable")
    leads: str | None = option(None, "show only these leads of the test records and those that follow, such as I,II")
    label_fractions: str | None = _classification(
        None, "probe at these shares of the training patients, such as 0.01,0.1,1", zero_shot=False
    )
    seeds: int = option(5, "draws of patients and of random encoders behind each of the label_fractions")
    zero_shot: bool = option(
        False, "classify by the prompts a checkpoint carries, without any training", task="classification"
    )
    prompts: str | None = _zero_shot(None, "YAML file, label: [texts], to use in place of the checkpoint's")
    text_model: str | None = _zero_shot(None, "language model for prompts; default: the one of pretraining")
    aggregation: str = _zero_shot(
        "logsumexp", "class from its statements: logsumexp, max or mean", choices=("logsumexp", "max", "mean")
    )
    temperature: float = _zero_shot(1.0, "prompt logits are divided by it")
    prompt_softmax: bool = _zero_shot(False, "let all prompts compete for a record")
    min_positives: int = _zero_shot(10, "positives a class needs to be evaluated")
    permutations: int = _zero_shot(20, "random permutations of the prompts among the labels, as a control")
    batch_size: int = option(256, "records per forward pass", within=_COUNT)
    bootstrap: int = option(1000, "patient resamples behind each interval", within=_COUNT)


@dataclass(kw_only=True)
class EvaluateArguments(_DataArguments):
    """Arguments of `ecgdan evaluate`."""

    checkpoint: str | None = option(None, "checkpoint folder or Hub name to evaluate")
    control: dict[str, Any] = option({}, "a further checkpoint to compare with, as name=folder; repeatable")
    labels: str | None = option(None, "outcomes table: record_id, event, time in years (survival)")
    ecgs_per_patient: str = option("all", _WHICH_ECGS, choices=ECGS_PER_PATIENT)
    label_level: str | None = _held_out(
        None, "labels of ptb-xl: superclass (default), subclass or statement", data=_WITH_LEVELS
    )
    small_cells: int = option(
        0,
        "leave out groups with fewer records, patients or events, such as 5, and all rows; 0: none",
        within=_NOT_NEGATIVE,
    )
    test_folds: str | None = _held_out(None, "test folds; default: every record, for data never trained on")
    train_folds: str | None = _held_out(
        None, "folds the controls are fitted on: age and sex, random encoder; with controls_from, folds of that folder"
    )
    controls_from: str | None = _held_out(
        None, "folder of another site's recordings, with outcomes or labels, that the controls are fitted on"
    )
    random_encoder: bool = option(
        True, "compare with a linear model on an untrained encoder (needs train_folds or controls_from)"
    )
    output_dir: str | None = option(None, "folder for report.md, metrics.json and the figure")
    batch_size: int = option(256, "records per forward pass", within=_COUNT)
    bootstrap: int = option(1000, "patient resamples behind each interval", within=_COUNT)
    seed: int = option(0, "seed of the resampling and of the random encoder", within=_NOT_NEGATIVE)
    overwrite: bool = _held_out(False, "replace a report that is already in output_dir")
    protocol: str = option(
        "held-out",
        "held-out, or repeated-cv: train and evaluate in repeated cross-validation",
        choices=("held-out", "repeated-cv"),
    )
    recipe: str = _repeated_cv("finetune-survival", "recipe of ecgdan finetune that every fold trains")
    common: dict[str, Any] = _repeated_cv({}, "arguments of ecgdan finetune for every fold, as key=value; repeatable")
    pretrain: str | None = _repeated_cv(
        None, "recipe of ecgdan pretrain that every fold begins with, on its own patients"
    )
    pretrain_common: dict[str, Any] = _repeated_cv({}, "arguments of it for every fold, as key=value; repeatable")
    model: dict[str, Any] = _repeated_cv(
        {}, "configuration fields of a network from scratch, as key=value; repeatable"
    )
    folds: int = _repeated_cv(2, "folds of each repetition")
    seeds: str = _repeated_cv("0-4", "repetitions, as 0-4 or 0,1")
    horizon_years: str = _repeated_cv("5", "years at which absolute risk is evaluated, as 5 or 1,5")
    risk_thresholds: str = _held_out(
        "0.05,0.1,0.2", "risks within 5 years at which decisions are evaluated: sensitivity, net benefit (survival)"
    )
    scores: str | None = _held_out(
        None, "columns of the data or of labels with scores computed elsewhere, as pcp_hf,prevent, to compare with"
    )
    measurements: bool = option(True, "compare a survival model with Cox models of ECG measurements")
    few_events: bool = _repeated_cv(
        True, "compare fine-tuning with the few-events model on the same pretrained encoder"
    )
    no_pretraining: bool = _repeated_cv(True, "compare pretrained weights with the same network from scratch")
    statements: str | None = option(
        None, "YAML file, TRIPOD+AI item: text, of what only the authors know, such as 17: Approved by ... (survival)"
    )
    seen_in_pretraining: bool = _repeated_cv(
        False, "accept a checkpoint pretrained on these records without their outcome; the report notes it"
    )


@dataclass(kw_only=True)
class SanityArguments(_DataArguments):
    """Arguments of `ecgdan sanity`."""

    checkpoint: str | None = option(None, "checkpoint folder or Hub name whose maps are tested")
    labels: str | None = option(None, "outcomes table: record_id, event, time in years (survival)")
    label_level: str | None = option(None, "labels of ptb-xl: superclass (default), subclass or statement")
    test_folds: str | None = option(None, "folds to test on; default: every record, for data never trained on")
    methods: str | None = option(None, "maps to test, such as attention,gradient; default: all the network has")
    control: dict[str, Any] = option({}, "checkpoint whose maps are compared, as name=folder; repeatable")
    draws: int = option(3, "random orders per record")
    time_steps: int = option(10, "steps in which time is deleted")
    map_records: int = option(64, "records whose maps are compared with those of random weights; 0: none")
    map_draws: int = option(1, "networks with random weights at each depth")
    output_dir: str | None = option(None, "folder for report.md, metrics.json and the figures")
    limit: int | None = option(None, "test on so many of the records, drawn by the seed", within=_COUNT)
    batch_size: int = option(128, "records per forward pass", within=_COUNT)
    bootstrap: int = option(1000, "patient resamples behind each interval", within=_COUNT)
    seed: int = option(0, "seed of the random orders and of the resampling", within=_NOT_NEGATIVE)


@dataclass(kw_only=True)
class RecalibrateArguments(_DataArguments):
    """Arguments of `ecgdan recalibrate`."""

    checkpoint: str | None = option(None, "survival checkpoint, folder or Hub name, whose weights are kept")
    method: str = option(
        "baseline",
        "baseline (how often the event happens) or slope (that, and the spread of risks)",
        choices=("baseline", "slope"),
    )
    labels: str | None = option(None, "outcomes table: record_id, event, time in years")
    ecgs_per_patient: str = option("all", _WHICH_ECGS, choices=ECGS_PER_PATIENT)
    fit_folds: str | None = option(None, "folds to fit to; default: every record, for data never trained on")
    test_folds: str | None = option(None, "test folds, evaluated before and after; default: the folds it is fitted to")
    horizon_years: float = option(5.0, "years at which risk is evaluated")
    output_dir: str | None = option(None, "folder for the recalibrated checkpoint, metrics.json and report.md")
    batch_size: int = option(256, "records per forward pass", within=_COUNT)


@dataclass(kw_only=True)
class EventsArguments(_DataArguments):
    """Arguments of `ecgdan study events`."""

    checkpoint: str | None = option(None, "pretrained encoder, folder or Hub name, that has not seen these patients")
    control: dict[str, Any] = option({}, "a further encoder to compare with, as name=folder; repeatable")
    folds: str | None = option(None, "folds whose records are used; default: every record")
    hazards: str = option("default,measured,signal,statements,nothing", "known hazards, separated by commas")
    events: str = option("15,30,60,120,240", "numbers of training events, separated by commas")
    repetitions: int = option(30, "splits of the patients and draws of follow-up for each number of events")
    output_dir: str | None = option(None, "folder for report.md, metrics.json and the figure; a finished part is kept")
    seed: int = option(0, "first seed of the repetitions, and seed of the random encoder")


@dataclass(kw_only=True)
class AblateArguments:
    """Arguments of `ecgdan ablate`."""

    base: str = option("pretrain-rhythm", "recipe of ecgdan pretrain that every variant starts from")
    variants: dict[str, Any] = option({}, "what a variant changes, as name={key: value}; the first is compared with")
    common: dict[str, Any] = option({}, "arguments of ecgdan pretrain for all variants, as key=value; repeatable")
    only: str | None = option(None, "names of the variants to run, separated by commas; default: all")
    data: str | None = option(None, _DATA_HELP)
    data_dir: str | None = option(None, "folder with the recordings")
    output_dir: str | None = option(None, "folder for a run of each variant, report.md and metrics.json")
    cache_dir: str | None = option(None, "folder for preprocessed signals and text embeddings [default: user cache]")
    train_folds: str | None = option(None, "folds that pretrain the encoders and fit the probes")
    test_folds: str | None = option(None, "test folds of all variants")
    seeds: str = option("0", "seeds of each variant, as 0 or 0-2")
    epochs: int | None = option(None, "passes over the training records [default: the base recipe's]")
    label_fraction: float | None = option(None, "further probes on this share of the labelled patients, five draws")
    random_encoder: bool = option(True, "add a line for an encoder with random weights")
    limit: int | None = option(None, "use only the first records, for a trial run", within=_COUNT)
    num_proc: int | None = option(None, "processes that preprocess signals [default: one per core]", within=_COUNT)
    bootstrap: int = option(1000, "patient resamples behind each interval", within=_COUNT)
