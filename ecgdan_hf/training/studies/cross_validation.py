"""Repeated cross-validation of survival models: every fold trains what is compared, and judges it on unseen patients.

    ecgdan evaluate --protocol repeated-cv --recipe finetune-survival --data csv --data-dir my-ecgs \
        --output-dir runs/cross-validation

2 folds x 5 seeds by default (the paper's), by patient, stratified by event. Within the training patients of a fold
a fifth chooses the epoch, so that nothing is chosen on those who are judged. A fold that is finished is not repeated:
the same command goes on after an interruption.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from ecgdan_hf.data.loading import read_table as read_source
from ecgdan_hf.data.measure.table import measure_table
from ecgdan_hf.data.splits import split_by_patient
from ecgdan_hf.evaluation.comparators.baselines import (
    age_sex_cox,
    cross_validated_ridge_cox,
    fit_ridge_cox,
    knows_age_and_sex,
    random_encoder,
)
from ecgdan_hf.evaluation.comparators.measurement_cox import beside, fit_comparators, usable_comparators
from ecgdan_hf.evaluation.folds import check_unseen, parse_folds, recipe_of
from ecgdan_hf.evaluation.protocols.held_out import AGE_SEX, ATTAINABLE, RANDOM_ENCODER
from ecgdan_hf.evaluation.protocols.reduced_leads import row_batches
from ecgdan_hf.evaluation.protocols.repeated_cv import (
    Fold,
    describe,
    fold_counts,
    judge,
    judge_risks,
    make_folds,
    risk_column,
    subgroups,
)
from ecgdan_hf.evaluation.report import tripod
from ecgdan_hf.evaluation.report.survival_report import Judged, write_survival_report
from ecgdan_hf.evaluation.result import Result
from ecgdan_hf.files import write_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.covariates import covariate_matrix, expand_covariates, source_columns
from ecgdan_hf.inference.rows import columns_of, embed, risk_within
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.survival_ecgdan import breslow_baseline
from ecgdan_hf.training import finetune, pretrain
from ecgdan_hf.training.arguments.fields import (
    NOT_PART_OF_THE_RUN,
    EvaluateArguments,
    FinetuneArguments,
    PretrainArguments,
    RunArguments,
)
from ecgdan_hf.training.arguments.options import resolve
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.covariates import COVARIATE_PENALIZER
from ecgdan_hf.training.core.run_folder import finish_run, hardware, read_metrics, versions
from ecgdan_hf.training.core.starting_weights import build_config
from ecgdan_hf.training.core.supervised import check_finetuning
from ecgdan_hf.training.studies.ablation import slug

_NO_PRETRAINING = "no pretraining"
_COVARIATES = "covariates alone"
_IN_FOLD = "pretrained in the fold"
_SUBJECT_COLUMNS = ["record_id", "patient_id", "age", "sex", "event", "time", "log_hazard"]
_SHARED = ("data", "data_dir", "labels", "cache_dir", "limit", "num_proc", "skip_bad")
"""Arguments handed on to every fine-tuning."""

_FOLD_DECIDES = {"train_folds": None, "valid_folds": None, "test_folds": None, "label_fraction": 1.0}
_OWN_SPLIT = (*_FOLD_DECIDES, "test_fraction")
"""Arguments of `ecgdan finetune` that a fold decides."""

_MAY_DIFFER = ("output_dir", "seeds", "bootstrap", "seed", "overwrite", "num_proc", "batch_size", "cache_dir",
              "statements")  # fmt: skip
"""Arguments with which a cross-validation may go on: further seeds add folds, the others change no prediction."""

_Networks = Mapping[str, Callable[[EcgDanConfig], Any]]
_Scores = tuple[np.ndarray, np.ndarray]
"""Log hazards of the records a model was fitted on, and of those it judges."""


@dataclass(frozen=True)
class _Contender:
    """A network that every fold trains: its name, where it starts, and who builds it (None: the package)."""

    name: str
    start: dict[str, Any]
    build: Callable[[EcgDanConfig], Any] | None = None


@dataclass(frozen=True)
class _Cohort:
    """What all folds share.

    Attributes:
        rows: the dataset as the judged network's feature extractor prepared it.
        table: one row per record: who, age, sex, outcome, the true log hazard where it was simulated.
        config: of the judged network.
        measurements: one row per record, aligned with `table`; None leaves the comparison out.
        covariates: of the networks, by name, aligned with `table`; None where they have none.
    """

    rows: Any
    table: pd.DataFrame
    config: EcgDanSurvivalConfig
    measurements: pd.DataFrame | None
    covariates: pd.DataFrame | None


def run(
    args: EvaluateArguments, networks: _Networks | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Trains and judges in cross-validation, and writes `predictions.csv`, figures, report and `metrics.json`.

    Args:
        args: data, recipe, folds and seeds.
        networks: further networks to compare with, by name, each built from the configuration.
        say: told what begins.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: arguments or data that cannot be used, before anything is trained.
    """
    begin, contenders = time.monotonic(), _plan(args, networks or {})
    contender, statements = contenders[0], tripod.read_statements(args.statements)
    _horizons(args)
    folder = _check_folder(args, contender)
    cohort = _load_cohort(args, contender)
    folds = make_folds(cohort.table, args.folds, parse_folds(args.seeds, "seeds"))
    _begin_folder(folder, args, contender)
    predictions, names = _predict_all_folds(args, contenders, cohort, folds, say)
    say("judging")
    metrics = {**_summarise(args, contender, cohort, predictions, names), **_cost(args, contender, predictions, begin)}
    metrics |= {"statements": statements} if statements else {}
    maps = _lead_attention(args, cohort, contender, predictions)
    judged = Judged(predictions, names, metrics, maps, cohort.config.lead_names)
    recipe = asdict(_trained_arguments(args, contender))
    finish_run(folder, lambda staging: write_survival_report(staging, judged, recipe), Result("repeated-cv", metrics))
    return metrics


def _check_folder(args: EvaluateArguments, judged: _Contender) -> Path:
    """The folder of the cross-validation: new, empty, or one that was begun with the same arguments.

    Raises:
        ValueError: no folder named, one with other content, or begun otherwise.
    """
    if not args.output_dir:
        raise ValueError("output_dir: expected a folder for the folds and the report, got none; give --output-dir")
    folder, recipe = Path(args.output_dir), Path(args.output_dir) / "recipe.yaml"
    if not recipe.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder}: expected an empty folder or an earlier cross-validation, found other files")
        return folder
    given, before = _lasting(args, judged), yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    changed = next((name for name, value in given.items() if before.get(name) != value), None)
    if changed:
        raise ValueError(
            f"{changed}: the folds in {folder} began with {before.get(changed)!r}, got {given[changed]!r}; go on with "
            "the same arguments, or choose another folder"
        )
    return folder


def _lasting(args: EvaluateArguments, judged: _Contender) -> dict[str, Any]:
    """Arguments that all folds of one folder share, and what the recipes they name say today."""
    found = {name: value for name, value in asdict(args).items() if name not in _MAY_DIFFER}
    recipes = {"recipe": _trained_arguments(args, judged)}
    if args.pretrain:
        recipes["pretrain"] = _pretrain_arguments(args, 0, Path("unused"))
    for kind, recipe in recipes.items():
        keys = [name for name in asdict(recipe) if name not in (*NOT_PART_OF_THE_RUN, "output_dir")]
        found |= {f"{kind}: {name}": getattr(recipe, name) for name in keys}
    return found


def _begin_folder(folder: Path, args: EvaluateArguments, judged: _Contender) -> None:
    """Writes down what the folds share, so that nobody goes on with something else."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.yaml", yaml.safe_dump(_lasting(args, judged), sort_keys=False))


def _cost(args: EvaluateArguments, judged: _Contender, predictions: pd.DataFrame, begin: float) -> dict[str, Any]:
    """Time, machine and versions, and the covariates as the judged network of the first fold learned them."""
    first = Path(str(args.output_dir)) / f"seed-{predictions['seed'].iloc[0]}-fold-1" / slug(judged.name)
    covariates = read_metrics(first).get("covariates")
    found = {"seconds": round(time.monotonic() - begin, 1), "hardware": hardware(), "versions": versions()}
    return {**found, **({"covariates": covariates} if covariates else {})}


def _summarise(
    args: EvaluateArguments, judged: _Contender, cohort: _Cohort, predictions: pd.DataFrame, names: list[str]
) -> dict[str, Any]:
    """What the folds say together: the content of `metrics.json`."""
    valid_fraction = _trained_arguments(args, judged).valid_fraction
    models = judge(predictions, names, args.bootstrap, args.seed, trained_share=1 - valid_fraction)
    for name in names:
        found = judge_risks(predictions, name, _horizons(args), args.bootstrap, args.seed)
        models[name] |= {"horizons": found} if found else {}
    return {
        "task": "survival",
        "protocol": "repeated-cv",
        "metric": "concordance_index",
        "simulated_outcome": cohort.config.simulated_outcome,
        "endpoint": cohort.config.endpoint,
        "seen_in_pretraining": bool((args.checkpoint or args.control) and args.seen_in_pretraining),
        "data": {"source": args.data, **describe(cohort.table)},
        "splits": {
            "num_folds": args.folds,
            "seeds": sorted(int(seed) for seed in predictions["seed"].unique()),
            "stratified_by": "event",
            "grouped_by": "patient_id",
            "inner_valid_fraction": valid_fraction,
            "folds": fold_counts(predictions),
        },
        "models": models,
        "subgroups": subgroups(predictions, names[0], args.bootstrap, args.seed),
    }


def _predict_all_folds(
    args: EvaluateArguments,
    contenders: list[_Contender],
    cohort: _Cohort,
    folds: list[Fold],
    say: Callable[[str], None],
) -> tuple[pd.DataFrame, list[str]]:
    """Trains every contender on every fold and scores the patients it did not see.

    Returns:
        One row for each record and seed, and the names of the models, the judged first.
    """
    embeddings: dict[int, np.ndarray] = {}
    tables = []
    for fold in folds:
        path = Path(str(args.output_dir)) / fold.name / "predictions.csv"
        if not path.is_file():
            say(f"{fold.name}: {', '.join(each.name for each in contenders)}")
            table = _predict_fold(fold, cohort, contenders, args, embeddings)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, table.to_csv(index=False, float_format="%.9g"))
        tables.append(_read_fold(path, fold, cohort))
    names = [*(each.name for each in contenders), *_comparator_names(args, cohort)]
    return pd.concat(tables, ignore_index=True), names


def _read_fold(path: Path, fold: Fold, cohort: _Cohort) -> pd.DataFrame:
    """Predictions of a finished fold.

    Raises:
        ValueError: its records or outcomes are not those of the data now.
    """
    table = pd.read_csv(path, dtype={"record_id": str, "patient_id": str})
    now = cohort.table.iloc[fold.test].set_index("record_id")[["event", "time"]]
    before = table.set_index("record_id")[["event", "time"]]
    if set(now.index) != set(before.index) or not np.allclose(now.loc[before.index], before, rtol=1e-6):
        raise ValueError(
            f"{path}: expected the records and outcomes of {fold.name} as the data have them now, found others; "
            "choose another folder"
        )
    return table


def _plan(args: EvaluateArguments, networks: _Networks) -> list[_Contender]:
    """The networks to train, the judged one first.

    Raises:
        ValueError: names that are taken, or a checkpoint that has seen the records it would be judged on.
    """
    own = next((name for name in _OWN_SPLIT if name in args.common), None)
    if own:
        raise ValueError(f"common: {own}: repeated-cv makes its own folds and uses every label; leave it out")
    if args.checkpoint and args.pretrain:
        raise ValueError("checkpoint, pretrain: expected one of the two, got both")
    scratch = {"from_scratch": True}
    found = [_Contender("ECG-DAN", scratch)]
    if args.pretrain:
        _pretrain_arguments(args, 0, Path("unused"))
        found = [_Contender("ECG-DAN", {"checkpoint": _IN_FOLD})]
    if args.checkpoint:
        found = [_Contender(Path(args.checkpoint).name, {"checkpoint": args.checkpoint})]
    if args.no_pretraining and found[0].start is not scratch:
        found.append(_Contender(_NO_PRETRAINING, scratch))
    found += [_Contender(name, {"checkpoint": str(path)}) for name, path in args.control.items()]
    found += [_Contender(name, scratch, build) for name, build in networks.items()]
    names = [slug(each.name) for each in found]
    if len(set(names)) < len(names):
        raise ValueError(f"control: expected names that differ, got {', '.join(each.name for each in found)}")
    for each in found:
        _check_checkpoint(each.start.get("checkpoint"), args)
        _finetune_arguments(each, args, 0, Path("unused"))
    return found


def _check_checkpoint(checkpoint: str | None, args: EvaluateArguments) -> None:
    """Refuses a checkpoint that was fine-tuned on these records, and, unless accepted, one pretrained on them.

    Raises:
        ValueError: see above.
    """
    recipe = recipe_of(checkpoint) if checkpoint else None
    if not checkpoint or recipe is None:
        return
    learned = recipe.get("task")
    if learned or not args.seen_in_pretraining:
        try:
            check_unseen(checkpoint, None, args.data_dir)
        except ValueError as error:
            way = "" if learned else ", or --seen-in-pretraining where it saw no outcome"
            raise ValueError(f"{error}{way}") from error


def _finetune_arguments(contender: _Contender, args: EvaluateArguments, seed: int, folder: Path) -> FinetuneArguments:
    """The recipe for one network in one fold, resumed where its folder has a run.

    Raises:
        ValueError: a recipe that is none of survival, or arguments that `ecgdan finetune` does not know.
    """
    shared = {name: getattr(args, name) for name in _SHARED if getattr(args, name) is not None}
    network = {**args.common.get("model", {}), **(args.model if contender.start.get("from_scratch") else {})}
    given = {"output_dir": str(folder), "seed": seed, "resume": (folder / "recipe.yaml").is_file(), "bootstrap": 20}
    flags = {**args.common, **shared, "model": network, **contender.start, **given}
    found = replace(resolve(FinetuneArguments, args.recipe, flags), **_FOLD_DECIDES)
    if found.task != "survival":
        raise ValueError(f"recipe: expected one of survival, got task {found.task} in {args.recipe}")
    check_finetuning(found)
    return found


def _trained_arguments(args: EvaluateArguments, judged: _Contender) -> FinetuneArguments:
    """The recipe of the judged network, apart from its fold."""
    fresh = _Contender(judged.name, {"from_scratch": True}) if judged.start.get("checkpoint") == _IN_FOLD else judged
    return _finetune_arguments(fresh, args, 0, Path("unused"))


def _pretrain_arguments(args: EvaluateArguments, seed: int, folder: Path) -> PretrainArguments:
    """The recipe of pretraining in one fold, resumed where its folder has a run.

    Raises:
        ValueError: arguments that `ecgdan pretrain` does not know.
    """
    shared = {name: getattr(args, name) for name in _SHARED if name != "labels" and getattr(args, name) is not None}
    network = {**args.pretrain_common.get("model", {}), **args.model}
    given = {"output_dir": str(folder), "seed": seed, "resume": (folder / "recipe.yaml").is_file()}
    found = resolve(PretrainArguments, args.pretrain, {**args.pretrain_common, **shared, "model": network, **given})
    return replace(found, **_FOLD_DECIDES)


def _load_cohort(args: EvaluateArguments, judged: _Contender) -> _Cohort:
    """Rows and table of the records of the source whose outcome is known.

    Raises:
        ValueError: what loading refuses, such as a source without outcomes.
    """
    run_args = _trained_arguments(args, judged)
    config = build_config(EcgDanSurvivalConfig, run_args.model, run_args.checkpoint)
    extractor = EcgDanFeatureExtractor(**config.signal_contract)
    dataset = rows.load_dataset(run_args, extractor, outcomes=args.labels)
    finetune.describe_outcome(dataset, config, run_args)
    table = columns_of(dataset, _SUBJECT_COLUMNS)
    measured = _measure(args, table) if args.measurements else None
    return _Cohort(dataset, table, config, measured, _covariate_table(dataset, run_args))


def _covariate_table(dataset: Any, args: FinetuneArguments) -> pd.DataFrame | None:
    """The covariates by their names, one row per record; what is text and what a level is decided on all records."""
    columns = [name.strip() for name in (args.covariates or "").split(",") if name.strip()]
    if not columns:
        return None
    table = columns_of(dataset, source_columns(columns))
    names = expand_covariates(table, columns, args.missing_covariates or "mean")
    return pd.DataFrame(covariate_matrix(table, names), columns=names)


def _measure(args: EvaluateArguments, table: pd.DataFrame) -> pd.DataFrame:
    """ECG measurements of the cohort beside its subjects and outcomes, row for row."""
    files = read_source(args.data, str(args.data_dir))
    files = files[files["record_id"].astype(str).isin(set(table["record_id"]))]
    return beside(table, measure_table(files, num_proc=args.num_proc, cache_dir=args.cache_dir))


def _predict_fold(
    fold: Fold,
    cohort: _Cohort,
    contenders: list[_Contender],
    args: EvaluateArguments,
    embeddings: dict[int, np.ndarray],
) -> pd.DataFrame:
    """Log hazard and risks of every model for the patients of one fold."""
    train = np.setdiff1d(np.arange(len(cohort.table)), fold.test)
    table = cohort.table.iloc[fold.test].rename(columns={"log_hazard": ATTAINABLE}).reset_index(drop=True)
    table.insert(0, "seed", fold.seed)
    table.insert(1, "fold", fold.number)
    years = _horizons(args)
    columns: dict[str, np.ndarray] = {}
    for contender in contenders:
        columns |= _network_columns(contender, fold, table, cohort, args)
    for name, scores in _comparators(fold, train, cohort, args, embeddings).items():
        columns |= _linear_columns(name, scores, cohort.table.iloc[train], years)
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def _horizons(args: EvaluateArguments) -> list[float]:
    """Years at which absolute risk is judged.

    Raises:
        ValueError: not positive numbers.
    """
    try:
        years = [float(part) for part in str(args.horizon_years).split(",")]
    except ValueError:
        years = []
    if not years or not all(np.isfinite(year) and year > 0 for year in years):
        raise ValueError(f"horizon_years: expected positive numbers such as 1,5, got {args.horizon_years!r}")
    return years


def _network_columns(
    contender: _Contender, fold: Fold, judged: pd.DataFrame, cohort: _Cohort, args: EvaluateArguments
) -> dict[str, np.ndarray]:
    """Fine-tunes one network without the patients of the fold, and predicts their records."""
    folder, record_ids = Path(str(args.output_dir)) / fold.name / slug(contender.name), judged["record_id"].tolist()
    if contender.start.get("checkpoint") == _IN_FOLD:
        contender = replace(contender, start={"checkpoint": _pretrain_in_fold(fold, judged, args)})
    run_args = _finetune_arguments(contender, args, fold.seed, folder)
    if cohort.covariates is not None:
        run_args = replace(run_args, covariates=",".join(cohort.covariates.columns))

    def split(dataset: Any, run_args: FinetuneArguments, stratify_by: str | None) -> rows.Parts:
        return inner_split(dataset, judged, run_args, stratify_by)

    finetune.finetune(run_args, network=contender.build, split=split)
    found = pd.read_csv(folder / "predictions.csv", dtype={"record_id": str}).query("part == 'test'")
    scores = found.set_index("record_id").loc[record_ids, "log_hazard"].to_numpy()
    if contender.build:
        return {contender.name: scores}
    model, _ = load_checkpoint(folder)
    return _score_columns(contender.name, scores, model.baseline.knots, _horizons(args))


def _pretrain_in_fold(fold: Fold, judged: pd.DataFrame, args: EvaluateArguments) -> str:
    """Pretrains without the patients of the fold, neither their ECGs nor their texts; the checkpoint's folder."""
    folder = Path(str(args.output_dir)) / fold.name / "pretraining"

    def split(dataset: Any, run_args: PretrainArguments) -> rows.Parts:
        return replace(inner_split(dataset, judged, run_args, None), test=None)

    pretrain.pretrain(_pretrain_arguments(args, fold.seed, folder), split=split)
    return str(folder)


def inner_split(dataset: Any, judged: pd.DataFrame, args: RunArguments, stratify_by: str | None) -> rows.Parts:
    """Judged rows, and those of other patients divided by patient into those that train and that choose the epoch.

    A judged patient's other records, such as those without an outcome, are in no part.

    Args:
        dataset: rows; may hold more records than the cohort.
        judged: `record_id` and `patient_id` of the fold.
        args: `valid_fraction` and seed.
        stratify_by: column whose values both parts should hold in equal shares.
    """
    table = rows.table_to_split(dataset, stratify_by)
    is_judged = table["record_id"].isin(set(judged["record_id"]))
    patients = set(judged["patient_id"].astype(str)) | set(table.loc[is_judged, "patient_id"].astype(str))
    inside = ~is_judged & ~table["patient_id"].astype(str).isin(patients)
    shares = {"train": 1 - args.valid_fraction, "valid": args.valid_fraction}
    inner = split_by_patient(table[inside], shares, args.seed, stratify_by)
    parts = {name: dataset.select(part["row"].to_numpy()) for name, part in inner.items()}
    return rows.Parts(parts["train"], parts["valid"], dataset.select(table.loc[is_judged, "row"].to_numpy()))


def _comparator_names(args: EvaluateArguments, cohort: _Cohort) -> list[str]:
    """Names of what every network is compared with, in the order of the report."""
    names = [RANDOM_ENCODER] if args.random_encoder else []
    with_age_and_sex = knows_age_and_sex(cohort.table)
    if cohort.measurements is not None:
        names += usable_comparators(with_age_and_sex)
    known = set(source_columns(list(cohort.covariates))) if cohort.covariates is not None else set()
    names += [_COVARIATES] if known - {"age", "sex"} else []
    names += [AGE_SEX] if with_age_and_sex else []
    return names + ([ATTAINABLE] if "log_hazard" in cohort.table else [])


def _comparators(
    fold: Fold, train: np.ndarray, cohort: _Cohort, args: EvaluateArguments, embeddings: dict[int, np.ndarray]
) -> dict[str, _Scores]:
    """Log hazards of the models without a trained network, on the records they were fitted on and on the judged."""
    names = _comparator_names(args, cohort)
    fitted, judged = cohort.table.iloc[train], cohort.table.iloc[fold.test]
    found = {}
    if RANDOM_ENCODER in names:
        features = _random_features(cohort, fold.seed, args.batch_size, embeddings)
        outcome = fitted["event"], fitted["time"], fitted["patient_id"].to_numpy()
        cox = cross_validated_ridge_cox(features[train], *outcome, seed=fold.seed)
        found[RANDOM_ENCODER] = cox.log_hazard(features[train]), cox.log_hazard(features[fold.test])
    if cohort.measurements is not None:
        parts = cohort.measurements.iloc[train], cohort.measurements.iloc[fold.test]
        models = fit_comparators(parts[0], knows_age_and_sex(cohort.table))
        found |= {name: (model.log_hazard(parts[0]), model.log_hazard(parts[1])) for name, model in models.items()}
    if _COVARIATES in names and cohort.covariates is not None:
        values = cohort.covariates.fillna(cohort.covariates.iloc[train].mean()).to_numpy(dtype=np.float64)
        linear = fit_ridge_cox(values[train], fitted["event"], fitted["time"], COVARIATE_PENALIZER)
        found[_COVARIATES] = linear.log_hazard(values[train]), linear.log_hazard(values[fold.test])
    if AGE_SEX in names:
        found[AGE_SEX] = age_sex_cox(fitted, fitted), age_sex_cox(fitted, judged)
    return found


def _random_features(cohort: _Cohort, seed: int, batch_size: int, embeddings: dict[int, np.ndarray]) -> np.ndarray:
    """Embeddings of all records by an untrained encoder, computed once for each seed."""
    if seed not in embeddings:
        embeddings[seed] = embed(random_encoder(cohort.config, seed), row_batches(cohort.rows, batch_size))
    return embeddings[seed]


def _linear_columns(name: str, scores: _Scores, fitted: pd.DataFrame, years: list[float]) -> dict[str, np.ndarray]:
    """A linear model's log hazards of the judged records, and their risks by its own Breslow baseline."""
    outcome = (torch.from_numpy(fitted[column].to_numpy(dtype=np.float64)) for column in ("event", "time"))
    return _score_columns(name, scores[1], breslow_baseline(torch.from_numpy(scores[0]), *outcome), years)


def _score_columns(name: str, log_hazard: np.ndarray, baseline: Any, years: list[float]) -> dict[str, np.ndarray]:
    """Log hazards, and their risks by a baseline as [`risk_within`] takes it."""
    risks = risk_within(log_hazard, baseline, years)
    return {name: log_hazard, **{risk_column(name, year): risks[:, column] for column, year in enumerate(years)}}


def _lead_attention(args: EvaluateArguments, cohort: _Cohort, judged: _Contender, predictions: pd.DataFrame) -> Any:
    """Maps of every record by the network of the first seed that did not see it, (records, leads, leads).

    In order of `record_id`; None for a network without attention across leads.
    """
    first = predictions[predictions["seed"] == predictions["seed"].iloc[0]]
    row_of = {record: row for row, record in enumerate(cohort.table["record_id"])}
    maps = {}
    for (seed, fold), part in first.groupby(["seed", "fold"]):
        model, _ = load_checkpoint(Path(str(args.output_dir)) / f"seed-{seed}-fold-{fold}" / slug(judged.name))
        if not model.config.use_lead_attention:
            return None
        found = _attention_maps(
            model.ecgdan, cohort.rows.select([row_of[record] for record in part["record_id"]]), args
        )
        maps.update(zip(part["record_id"], found, strict=True))
    return np.stack([maps[record] for record in sorted(maps)])


@torch.inference_mode()
def _attention_maps(encoder: Any, dataset: Any, args: EvaluateArguments) -> np.ndarray:
    """(records, leads, leads), averaged over heads."""
    parts = []
    for batch in row_batches(dataset, args.batch_size):
        inputs = {name: torch.as_tensor(batch[name]) for name in ("input_values", "lead_mask")}
        parts.append(encoder(**inputs, output_attentions=True).lead_attention.numpy())
    return np.concatenate(parts)
