"""Covariates of a survival model: columns of the data that enter its head, standardised on the training part."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgdan_hf.evaluation.comparators.baselines import fit_ridge_cox
from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.rows import columns_of
from ecgdan_hf.model.configuration_ecgdan import EcgDanSurvivalConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.training.arguments.fields import FinetuneArguments

logger = logging.getLogger(__name__)

COVARIATE_PENALIZER = 1e-4  # next to none; keeps collinear covariates from diverging


def covariate_table(dataset: Any, args: FinetuneArguments) -> pd.DataFrame | None:
    """The covariates that `args` names, one row per record and one column per number; None without any.

    Raises:
        ValueError: a column that is missing, or what [`Covariates.expanded`] rejects.
    """
    columns = [name.strip() for name in (args.covariates or "").split(",") if name.strip()]
    if not columns:
        return None
    table = columns_of(dataset, Covariates(columns).columns)
    found = Covariates.expanded(table, columns, args.missing_covariates or "mean")
    return pd.DataFrame(found.matrix(table), columns=found.names)


def covariates_of(part: Any, config: EcgDanSurvivalConfig) -> np.ndarray:
    """(records, covariates) of these rows, NaN where unknown."""
    found = Covariates.of(config)
    return found.matrix(columns_of(part, found.columns))


def add_covariates(train: Any, config: EcgDanSurvivalConfig, args: FinetuneArguments) -> None:
    """Stores the covariates' names, and their mean and SD in the training part.

    A covariate that does not vary there is left out with a warning: it has no scale.

    Raises:
        ValueError: nothing varies, or what [`covariate_table`] rejects.
    """
    values = covariate_table(train, args)
    if values is None:
        return
    names = values.columns.tolist()
    varying = [name for name in names if values[name].nunique() > 1]
    if not varying:
        raise ValueError(f"covariates: expected {names[0]!r} to vary among the training records, it does not")
    for name in sorted(set(names) - set(varying)):
        logger.warning("covariates: %s does not vary among the training records and is left out", name)
    config.covariate_names = varying
    config.covariate_means = values[varying].mean().tolist()
    config.covariate_stds = values[varying].std(ddof=0).tolist()


@torch.no_grad()
def start_covariates(model: EcgDanForSurvival, train: Any) -> None:
    """Initialises the covariates' weights with those of a Cox model of the covariates alone.

    A few hundred small steps would not take them there.
    """
    config = model.config
    if model.covariate_head is None:
        return
    values = covariates_of(train, config)
    values = np.nan_to_num((values - config.covariate_means) / config.covariate_stds)
    fitted = fit_ridge_cox(values, train["event"], train["time"], penalizer=COVARIATE_PENALIZER)
    model.covariate_head.weight.copy_(torch.from_numpy(fitted.weights / fitted.scale)[None])
