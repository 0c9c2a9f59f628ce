"""Held-out protocol of `ecgdan evaluate`: checkpoints and controls on records that no checkpoint was trained on.

Refuses evaluations that leak training data (`evaluation.folds`). The caller loads the rows; this module knows no
source.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

from ecgdan_hf.evaluation.comparators.baselines import AgeAndSex, random_encoder
from ecgdan_hf.evaluation.comparators.comparison import Outcome, age_sex_scores
from ecgdan_hf.evaluation.comparators.evidence_cox import Components, EvidenceCox, Scaling
from ecgdan_hf.evaluation.comparators.linear_classifier import LinearClassifier
from ecgdan_hf.evaluation.comparators.measurement_cox import MeasurementCox
from ecgdan_hf.evaluation.folds import check_unseen, recipe_of, select_folds
from ecgdan_hf.evaluation.measures.decisions import decision_intervals, reclassification
from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import FloatArray
from ecgdan_hf.evaluation.measures.survival import calibration, survival_metrics
from ecgdan_hf.evaluation.protocols.repeated_cv import Predictions
from ecgdan_hf.evaluation.protocols.subgroups import Found, classification_subgroups, survival_subgroups
from ecgdan_hf.evaluation.seen_records import check_records_unseen
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.heads import head_of
from ecgdan_hf.inference.rows import columns_of, embed, endpoint_rows, label_matrix, predict_rows, score_rows
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig

RISK = "model"
"""Name of the evaluated model in the risk column of `predictions`; see `Predictions.risk_column`."""
AGE_SEX, RANDOM_ENCODER, ATTAINABLE = "age and sex", "random encoder, linear", "attainable (true hazard)"
_CALIBRATION_YEARS = 5.0
_TABLE_COLUMNS = ["record_id", "patient_id", "fold", "age", "sex", "event", "time", "entry", "log_hazard"]

_OUTCOME = ["event", "time", "entry"]

_LoadRows = Callable[[Any], Any]


@dataclass(frozen=True)
class HeldOut:
    """Result of the held-out protocol.

    Attributes:
        metrics: of the result of kind `held-out`.
        predictions: one row per test record: ids, outcome, and the score of every model.
        risk_groups: scores of the evaluated survival model on the test records; None for classification.
        recipe: of the evaluated checkpoint, where its folder has one.
    """

    metrics: dict[str, Any]
    predictions: pd.DataFrame
    risk_groups: FloatArray | None
    recipe: dict[str, Any] | None = None


def held_out(
    checkpoints: Mapping[str, str],
    load_rows: _LoadRows,
    test_folds: Sequence[int] | None,
    train_folds: Sequence[int] | None = None,
    with_random_encoder: bool = True,
    data_dir: str | None = None,
    batch_size: int = 256,
    n: int = 1000,
    seed: int = 0,
    measurements: pd.DataFrame | None = None,
    thresholds: Sequence[float] = (),
    score_columns: Sequence[str] = (),
    load_controls: _LoadRows | None = None,
    control_measurements: pd.DataFrame | None = None,
) -> HeldOut:
    """Evaluates the first checkpoint and compares it with the others and the baselines.

    Args:
        checkpoints: name -> folder or Hub name; the first is evaluated.
        load_rows: feature extractor -> dataset with `input_values`, `lead_mask`, `patient_id`, and `event` and
            `time`, or `labels`.
        test_folds: folds to evaluate on; None for every record.
        train_folds: folds the baselines are fitted on; None omits the fitted baselines, or with `load_controls` takes
            every record.
        with_random_encoder: fit a linear model on a randomly initialised encoder of the same architecture.
        data_dir: folder of the rows, to recognise training data.
        batch_size: records per forward pass.
        n, seed: of the bootstrap.
        measurements: ECG measurements of the records (`data.measure.table`), to compare a survival model with Cox
            models on them; None leaves these out.
        thresholds: of the risk at five years, for decisions by a survival model.
        score_columns: columns of the data with scores or risks at five years computed elsewhere, to compare a
            survival model with.
        load_controls: loads the rows that the baselines are fitted on, of other patients than those of `load_rows`,
            such as another hospital's; None takes `train_folds` of the rows themselves.
        control_measurements: `measurements` of these rows.

    Raises:
        ValueError: models of different tasks, folds that a checkpoint was trained on, or data without the outcome.
    """
    if test_folds and not load_controls and set(test_folds) & set(train_folds or ()):
        raise ValueError(f"test_folds, train_folds: expected different folds, got {test_folds} and {train_folds}")
    scores: dict[str, FloatArray] = {}
    seen: dict[str, str] = {}
    judged: _Judged | None = None
    for name, path in checkpoints.items():
        check_unseen(path, test_folds, data_dir)
        model, extractor = load_checkpoint(path)
        everyone = load_rows(extractor)
        dataset = _first_endpoint(everyone, model)
        test = select_folds(dataset, test_folds)
        seen[name] = check_records_unseen(path, test)
        if judged is None:
            judged, all_rows = _Judged(model, dataset, test, extractor), everyone
        elif type(model) is not type(judged.model):
            raise ValueError(
                f"{path}: expected a {type(judged.model).__name__} as the first one, got {type(model).__name__}"
            )
        scores[name] = score_rows(model, test, batch_size)
    if judged is None:
        raise ValueError("checkpoint: expected one to evaluate, got none")
    outcome = judged.outcome()
    if train_folds or load_controls:
        others = judged.dataset
        if load_controls is not None:
            others = _first_endpoint(load_controls(judged.extractor), judged.model)
        fit = select_folds(others, train_folds)
        scores |= _baselines(judged, fit, with_random_encoder, batch_size, seed)
        if measurements is not None and head_of(judged.model).is_survival:
            of_fit = measurements if control_measurements is None else control_measurements
            scores |= _measurement_scores(judged, fit, of_fit, measurements)
    scores |= _given_scores(judged.test, score_columns)
    if outcome.simulated and "log_hazard" in judged.test.column_names:
        scores[ATTAINABLE] = np.asarray(judged.test["log_hazard"], dtype=np.float64)
    found = outcome.compare(scores, n=n, seed=seed)
    metrics = {"metric": outcome.name, **outcome.counts(), "models": found}
    metrics["seen_records"] = seen
    metrics["test_folds"] = list(test_folds) if test_folds else None
    main = next(iter(scores.values()))
    survival = head_of(judged.model).is_survival
    predictions = _predictions(judged, scores)
    if survival:
        risk = _risk(judged, batch_size)
        metrics |= {"calibration": _calibration(judged, risk), "endpoint": judged.model.config.endpoint}
        metrics |= _decisions(judged, risk, scores, score_columns, thresholds, n, seed)
        if risk is not None:
            predictions[Predictions.risk_column(RISK, _CALIBRATION_YEARS)] = risk
    if survival and judged.model.config.endpoint_names:
        rows = select_folds(all_rows, test_folds)
        metrics["endpoints"] = _further_endpoints(judged.model, rows, batch_size, n, seed)
    metrics["subgroups"] = _subgroups(judged, main, risk if survival else None, n, seed)
    recipe = recipe_of(next(iter(checkpoints.values())))
    return HeldOut(metrics, predictions, main if survival else None, recipe)


def _linear_scores(encoder: Any, fit: Any, test: Any, batch_size: int = 256) -> FloatArray:
    """Returns scores of `test` by a linear model on a frozen encoder: Cox by evidence for follow-up, else logistic."""
    features, tested = (embed(encoder, part, batch_size) for part in (fit, test))
    table = columns_of(fit, ["patient_id", *_OUTCOME])
    if "event" in table:
        components = Components.of(features)
        fitted, scaling = components(features), Scaling.of(components(features), standardise=False)
        fit_cox = EvidenceCox.fit(fitted, table["event"], FollowUp.time_of(table), scaling=scaling)
        return fit_cox.log_hazard(components(tested))
    return LinearClassifier.fit(features, label_matrix(fit), table["patient_id"].to_numpy()).logits(tested)


def _first_endpoint(dataset: Any, model: Any) -> Any:
    """The rows with the follow-up of the model's endpoint, the first of several, where the data have several."""
    if not head_of(model).is_survival or ("event" in dataset.column_names and not model.config.endpoint_names):
        return dataset
    return endpoint_rows(dataset, model.config.risk_names[0])


def _further_endpoints(model: Any, rows: Any, batch_size: int, n: int, seed: int) -> dict[str, Any]:
    """Metrics of each endpoint but the first that the rows know, without comparators."""
    found: dict[str, Any] = {}
    for column, name in enumerate(model.config.endpoint_names[1:], start=1):
        try:
            known = endpoint_rows(rows, name)
            scores, risks = predict_rows(model, known, [_CALIBRATION_YEARS], batch_size)
            table, risk = columns_of(known, [*_OUTCOME, "patient_id"]), risks[:, column, 0]
            times = FollowUp.time_of(table)
            given = None if np.isnan(risk).any() or times.ndim > 1 else {_CALIBRATION_YEARS: risk}
            judge = partial(survival_metrics, table["event"], times, scores[:, column], table["patient_id"], n, seed)
            try:
                found[name] = judge(risks=given)
            except ValueError:  # its order may be judged where its risks cannot
                found[name] = judge()
        except ValueError as error:
            found[name] = {"not_estimable": str(error)}
    return found


@dataclass(frozen=True)
class _Judged:
    """The evaluated model, with the rows that its feature extractor made."""

    model: Any
    dataset: Any
    test: Any
    extractor: Any

    def outcome(self) -> Outcome:
        config: EcgDanConfig = self.model.config
        if head_of(self.model).is_survival:
            table = columns_of(self.test, _TABLE_COLUMNS)
            simulated = bool(getattr(config, "simulated_outcome", False)) or "log_hazard" in table
            if "event" not in table:
                raise ValueError("labels: survival needs event and time, the data have none; give an outcomes table")
            return Outcome.survival(table, simulated)
        names = self.test.features["labels"].feature.names if "labels" in self.test.column_names else []
        expected = config.label_names
        if names != expected:
            raise ValueError(f"labels: the model knows {expected}, the data have {names}; choose the same label_level")
        return Outcome.classification(label_matrix(self.test), np.asarray(self.test["patient_id"]))


def _baselines(judged: _Judged, fit: Any, with_random: bool, batch_size: int, seed: int) -> dict[str, FloatArray]:
    survival = head_of(judged.model).is_survival
    columns = ["age", "sex", *_OUTCOME]
    labels = None if survival else label_matrix(fit)
    tables = columns_of(fit, columns), columns_of(judged.test, columns)
    found = {AGE_SEX: age_sex_scores(*tables, labels)} if AgeAndSex.known(tables[0]) else {}
    if with_random:
        encoder = random_encoder(judged.model.config, seed)
        needed = ["input_values", "lead_mask", "patient_id", *(_OUTCOME if survival else ["labels"])]
        given = fit.select_columns([name for name in needed if name in fit.column_names])
        found[RANDOM_ENCODER] = _linear_scores(encoder, given, judged.test, batch_size)
    return found


def _measurement_scores(
    judged: _Judged, fit: Any, of_fit: pd.DataFrame, of_test: pd.DataFrame
) -> dict[str, FloatArray]:
    columns = ["record_id", "age", "sex", *_OUTCOME]
    train = MeasurementCox.joined(columns_of(fit, columns), of_fit)
    test = MeasurementCox.joined(columns_of(judged.test, columns), of_test)
    models = MeasurementCox.fit_all(train, AgeAndSex.known(train))
    return {name: model.log_hazard(test) for name, model in models.items()}


def _risk(judged: _Judged, batch_size: int) -> FloatArray | None:
    """Returns the risk at five years; None where the checkpoint's follow-up is shorter."""
    risk: FloatArray = predict_rows(judged.model, judged.test, [_CALIBRATION_YEARS], batch_size)[1][:, 0, 0]
    return None if np.isnan(risk).any() else risk


def _calibration(judged: _Judged, risk: FloatArray | None) -> dict[str, Any]:
    """Returns predicted and observed risk by fifths of predicted risk; empty without risks."""
    if risk is None:
        return {}
    table = columns_of(judged.test, _OUTCOME)
    groups = calibration(table["event"], FollowUp.time_of(table), risk, _CALIBRATION_YEARS)
    return {"horizon_years": _CALIBRATION_YEARS, "groups": groups.to_dict(orient="records")}


def _given(name: str) -> str:
    """Name of a given score among the models; that of its column may be one of the subject's."""
    return f"{name} (given)"


def _given_scores(test: Any, names: Sequence[str]) -> dict[str, FloatArray]:
    """Columns of numbers, complete in the test rows."""
    table, found = columns_of(test, names), {}
    for name in names:
        values = pd.to_numeric(table[name], errors="coerce") if name in table else None
        if values is None or values.isna().any():
            missing = "no such column" if values is None else f"{int(values.isna().sum())} rows without a number"
            raise ValueError(f"scores: expected a column {name} with a number for each test record, got {missing}")
        found[_given(name)] = values.to_numpy(dtype=np.float64)
    return found


def _decisions(
    judged: _Judged,
    risk: FloatArray | None,
    scores: Mapping[str, FloatArray],
    score_columns: Sequence[str],
    thresholds: Sequence[float],
    n: int,
    seed: int,
) -> dict[str, Any]:
    """Decisions by thresholds of the risk, and reclassification against given risks; empty without risks."""
    if risk is None:
        return {}
    table, found = columns_of(judged.test, [*_OUTCOME, "patient_id"]), {}
    truth = table["event"], FollowUp.time_of(table)
    if thresholds and truth[1].ndim == 1:
        options: dict[str, Any] = {"patient_ids": table["patient_id"].to_numpy(), "n": n, "seed": seed}
        rows = decision_intervals(*truth, risk, _CALIBRATION_YEARS, thresholds, **options)
        found["decisions"] = {"horizon_years": _CALIBRATION_YEARS, "thresholds": rows}
    given = {name: scores[_given(name)] for name in score_columns}
    risks = {name: values for name, values in given.items() if ((values >= 0) & (values <= 1)).all()}
    if risks and truth[1].ndim == 1:
        found["reclassification"] = {
            name: reclassification(*truth, risk, other, _CALIBRATION_YEARS) for name, other in risks.items()
        }
    return found


def _subgroups(judged: _Judged, scores: FloatArray, risk: FloatArray | None, n: int, seed: int) -> Found:
    """Returns the metric of the evaluated model by sex and age."""
    table = columns_of(judged.test, ["patient_id", "age", "sex", *_OUTCOME])
    if head_of(judged.model).is_survival:
        return survival_subgroups(table, scores, risk, _CALIBRATION_YEARS, n=n, seed=seed)
    config, labels = judged.model.config, judged.test.features["labels"].feature.names
    one_of = config.problem_type == "single_label_classification"
    probabilities = softmax(scores, axis=1) if one_of else expit(scores)
    thresholds = config.thresholds or {}
    return classification_subgroups(table, label_matrix(judged.test), probabilities, labels, thresholds, n, seed)


def _predictions(judged: _Judged, scores: Mapping[str, FloatArray]) -> pd.DataFrame:
    table = columns_of(judged.test, _TABLE_COLUMNS).rename(columns={"log_hazard": "true_log_hazard"})
    columns: dict[str, FloatArray] = {}
    for name, values in scores.items():
        if values.ndim == 1:
            columns[name] = values
        else:
            labels = judged.test.features["labels"].feature.names
            columns |= {f"{name}: {label}": values[:, index] for index, label in enumerate(labels)}
    columns.pop(ATTAINABLE, None)
    return pd.concat([table, pd.DataFrame(columns)], axis=1)
