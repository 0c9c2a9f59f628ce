"""One fold of a repeated cross-validation: trains every model without the fold's patients and scores their records."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgdan_hf.data.measure.table import measure_table
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.evaluation.comparators.baselines import AgeAndSex, random_encoder
from ecgdan_hf.evaluation.comparators.comparison import age_sex_scores
from ecgdan_hf.evaluation.comparators.evidence_cox import Components, EvidenceCox, Scaling
from ecgdan_hf.evaluation.comparators.measurement_cox import MeasurementCox
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.protocols.held_out import AGE_SEX, ATTAINABLE, RANDOM_ENCODER
from ecgdan_hf.evaluation.protocols.repeated_cv import Fold, Predictions
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.rows import columns_of, embed, predict_rows
from ecgdan_hf.model.configuration_ecgdan import EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.risk_ecgdan import baseline_hazard, cumulative_incidence
from ecgdan_hf.spreadsheets import original_cells
from ecgdan_hf.training import finetune, pretrain
from ecgdan_hf.training.arguments.fields import EvaluateArguments, FinetuneArguments, PretrainArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.starting_weights import build_config
from ecgdan_hf.training.studies.ablation import slug
from ecgdan_hf.training.studies.cv_recipes import Contender, Recipes

_COVARIATES = "covariates alone"
_SUBJECT_COLUMNS = ["record_id", "patient_id", "age", "sex", "event", "time", "entry", "log_hazard"]


@dataclass(frozen=True)
class _Cohort:
    """The records that all folds share.

    Attributes:
        rows: the dataset as the evaluated network's feature extractor prepared it.
        table: one row per record: patient, age, sex, outcome, and the true log hazard if it was simulated.
        config: of the evaluated network.
        measurements: one row per record, aligned with `table`; None leaves the comparison out.
        covariates: of the networks, by name, aligned with `table`; None if they have none.
    """

    rows: Any
    table: pd.DataFrame
    config: EcgDanSurvivalConfig
    measurements: pd.DataFrame | None
    covariates: pd.DataFrame | None

    @classmethod
    def load(cls, args: EvaluateArguments, run_args: FinetuneArguments) -> "_Cohort":
        """Reads the records of the source whose outcome is known."""
        config: Any = build_config(EcgDanSurvivalConfig, run_args.model, run_args.checkpoint)
        extractor = EcgDanFeatureExtractor(**config.signal_contract)
        run_args = replace(run_args, ecgs_per_patient=args.ecgs_per_patient)
        dataset = rows.load_dataset(run_args, extractor, outcomes=args.labels)
        if run_args.endpoints or "event" not in dataset.column_names:
            raise ValueError("endpoints: cross-validation judges one endpoint, got several; give a table of each")
        finetune.SurvivalFinetuning.describe_outcome(dataset, config, run_args)
        table = columns_of(dataset, _SUBJECT_COLUMNS)
        measured = _measurements(args, table) if args.measurements else None
        covariates = finetune.SurvivalFinetuning.covariate_table(dataset, run_args)
        return cls(dataset, table, config, measured, covariates)


def _measurements(args: EvaluateArguments, table: pd.DataFrame) -> pd.DataFrame:
    """ECG measurements of the cohort, with its subjects and outcomes, row for row."""
    files = read_source(args.data, str(args.data_dir))
    files = files[files["record_id"].astype(str).isin(set(table["record_id"]))]
    return MeasurementCox.joined(table, measure_table(files, num_proc=args.num_proc, cache_dir=args.cache_dir))


class FoldModels:
    """All models of the comparison, trained or fitted in each fold.

    Attributes:
        cohort: the records that all folds share.
        years: at which absolute risk is evaluated.
    """

    def __init__(self, args: EvaluateArguments, recipes: Recipes):
        self.args, self.recipes = args, recipes
        self.years = _horizons(args.horizon_years)
        self.cohort = _Cohort.load(args, recipes.evaluated())
        self._embeddings: dict[int, np.ndarray] = {}

    @property
    def names(self) -> list[str]:
        """The models in the order of the report, the evaluated network first."""
        return [*(each.name for each in self.recipes.contenders), *self._comparator_names()]

    def predict(self, fold: Fold) -> pd.DataFrame:
        """Log hazard and risks by every model for the records of one fold."""
        table = self.cohort.table.iloc[fold.test].rename(columns={"log_hazard": ATTAINABLE}).reset_index(drop=True)
        table.insert(0, "seed", fold.seed)
        table.insert(1, "fold", fold.number)
        columns: dict[str, np.ndarray] = {}
        for contender in self.recipes.contenders:
            columns |= self._network_columns(contender, fold, table)
        train = np.setdiff1d(np.arange(len(self.cohort.table)), fold.test)
        fitted_to = self.cohort.table.iloc[train]
        event, time = fitted_to["event"].to_numpy(dtype=np.float64), FollowUp.time_of(fitted_to)
        causes = range(1, self.cohort.config.num_risks + 1)
        codes = [FollowUp.of_cause(event, cause) for cause in causes]
        by_cause = [self._comparators(fold, train, FollowUp.of_cause(self.cohort.table["event"], c)) for c in causes]
        for name in by_cause[0]:
            fitted, tested = (np.stack([found[name][part] for found in by_cause], axis=1) for part in (0, 1))
            baselines = [_baseline(fitted[:, row], each, time) for row, each in enumerate(codes)]
            incidence = cumulative_incidence(torch.from_numpy(tested), baselines, torch.tensor(self.years))
            columns |= self._with_risks(name, tested[:, 0], incidence[:, 0].numpy())
        return pd.concat([table, pd.DataFrame(columns)], axis=1)

    def _network_columns(self, contender: Contender, fold: Fold, judged: pd.DataFrame) -> dict[str, np.ndarray]:
        """Fine-tunes one network without the patients of the fold, and predicts their records."""
        folder = Path(str(self.args.output_dir)) / fold.name / slug(contender.name)
        if contender.is_pretrained_in_fold:
            contender = replace(contender, start={"checkpoint": self._pretrain(fold, judged)})
        run_args = self.recipes.finetuning(contender, fold.seed, folder)
        if self.cohort.covariates is not None:
            run_args = replace(run_args, covariates=",".join(self.cohort.covariates.columns))

        def split(dataset: Any, run_args: FinetuneArguments, stratify_by: str | None) -> dict[str, Any]:
            return rows.inner_split(dataset, judged, run_args, stratify_by)

        finetune.finetune(run_args, network=contender.build, split=split)
        table = original_cells(pd.read_csv(folder / "predictions.csv", dtype={"record_id": str}))
        found = table.query("part == 'test'")
        scores = found.set_index("record_id").loc[judged["record_id"].tolist(), "log_hazard"].to_numpy()
        if contender.build:
            return {contender.name: scores}
        model: Any = load_checkpoint(folder)[0]
        risks = predict_rows(model, self.cohort.rows.select(fold.test), self.years, self.args.batch_size)[1]
        return self._with_risks(contender.name, scores, risks[:, 0])

    def _pretrain(self, fold: Fold, judged: pd.DataFrame) -> str:
        """Pretrains without the ECGs and texts of the fold's patients; returns the checkpoint's folder."""
        folder = Path(str(self.args.output_dir)) / fold.name / "pretraining"

        def split(dataset: Any, run_args: PretrainArguments) -> dict[str, Any]:
            parts = rows.inner_split(dataset, judged, run_args, None)
            return {name: parts[name] for name in ("train", "valid")}

        pretrain.pretrain(self.recipes.pretraining(fold.seed, folder), split=split)
        return str(folder)

    def _with_risks(self, name: str, log_hazard: np.ndarray, risks: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of log hazards (n,) and risks (n, years)."""
        columns = {Predictions.risk_column(name, year): risks[:, column] for column, year in enumerate(self.years)}
        return {name: log_hazard, **columns}

    def _comparator_names(self) -> list[str]:
        cohort, names = self.cohort, [RANDOM_ENCODER] if self.args.random_encoder else []
        with_age_and_sex = AgeAndSex.known(cohort.table)
        if cohort.measurements is not None:
            names += MeasurementCox.usable(with_age_and_sex)
        known = set(Covariates(cohort.covariates.columns.tolist()).columns) if cohort.covariates is not None else set()
        names += [_COVARIATES] if known - {"age", "sex"} else []
        names += [AGE_SEX] if with_age_and_sex else []
        return names + ([ATTAINABLE] if "log_hazard" in cohort.table else [])

    def _comparators(
        self, fold: Fold, train: np.ndarray, event: np.ndarray
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Log hazards, by models without a trained network, of the records they were fitted on and of the fold's.

        `event` (records,) has 1 for the cause whose hazard they are fitted to.
        """
        cohort, names, test = self.cohort, self._comparator_names(), fold.test
        table = cohort.table.assign(event=event)
        fitted, judged = table.iloc[train], table.iloc[test]
        times = FollowUp.time_of(fitted)
        found = {}
        if RANDOM_ENCODER in names:
            features = self._random_features(fold.seed)
            components = Components.of(features[train])
            parts = components(features[train]), components(features[test])
            scaling = Scaling.of(parts[0], standardise=False)
            cox = EvidenceCox.fit(parts[0], fitted["event"], times, scaling=scaling)
            found[RANDOM_ENCODER] = cox.log_hazard(parts[0]), cox.log_hazard(parts[1])
        if cohort.measurements is not None:
            measured = cohort.measurements.assign(event=event)
            known, unseen = measured.iloc[train], measured.iloc[test]
            models = MeasurementCox.fit_all(known, AgeAndSex.known(cohort.table))
            found |= {name: (model.log_hazard(known), model.log_hazard(unseen)) for name, model in models.items()}
        if _COVARIATES in names and cohort.covariates is not None:
            values = cohort.covariates.fillna(cohort.covariates.iloc[train].mean()).to_numpy(dtype=np.float64)
            linear = EvidenceCox.fit(values[train], fitted["event"], times, free=values.shape[1])
            found[_COVARIATES] = linear.log_hazard(values[train]), linear.log_hazard(values[test])
        if AGE_SEX in names:
            found[AGE_SEX] = age_sex_scores(fitted, fitted), age_sex_scores(fitted, judged)
        return found

    def _random_features(self, seed: int) -> np.ndarray:
        """Embeddings of all records by a randomly initialised encoder, computed once for each seed."""
        if seed not in self._embeddings:
            encoder = random_encoder(self.cohort.config, seed)
            self._embeddings[seed] = embed(encoder, self.cohort.rows, self.args.batch_size)
        return self._embeddings[seed]


def _baseline(log_hazard: np.ndarray, event: np.ndarray, time: np.ndarray) -> Any:
    happened, years = torch.from_numpy((event == 1).astype(np.float64)), torch.from_numpy(time.copy())
    entry, end = years.unbind(dim=1) if years.ndim == 2 else (None, years)
    return baseline_hazard(torch.from_numpy(log_hazard), happened, end, entry=entry)


def _horizons(text: str) -> list[float]:
    """Years at which absolute risk is evaluated, from `5` or `1,5`."""
    try:
        years = [float(part) for part in str(text).split(",")]
    except ValueError:
        years = []
    if not years or not all(np.isfinite(year) and year > 0 for year in years):
        raise ValueError(f"horizon_years: expected positive numbers such as 1,5, got {text!r}")
    return years
