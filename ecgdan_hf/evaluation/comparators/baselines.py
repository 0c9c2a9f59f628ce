"""Baselines of a survival model: age and sex, a ridge Cox model, and a randomly initialised encoder.

Every baseline is fitted on training records and scores others. Imports the network only to embed ECGs with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import FloatArray
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanModel
from ecgdan_hf.model.survival_ecgdan import cox_loss

PENALIZERS = (0.001, 0.01, 0.1, 1.0, 10.0)


@dataclass(frozen=True)
class RidgeCox:
    """A fitted linear Cox model with a ridge penalty.

    Attributes:
        mean, scale: (features,), standardisation learned in training.
        weights: (features,), log hazard ratio per standard deviation.
        penalizer: strength of the penalty, λ of [`fit`].
    """

    mean: FloatArray
    scale: FloatArray
    weights: FloatArray
    penalizer: float

    @classmethod
    def fit(
        cls, features: npt.ArrayLike, event: npt.ArrayLike, time: npt.ArrayLike, penalizer: float = 0.1
    ) -> "RidgeCox":
        r"""Fits the model to standardised features.

        Minimises, with n subjects and the partial log likelihood \(\ell\) (Efron ties),

        $$-\ell(w) / n + \tfrac12 \lambda \|w\|^2$$

        (the convention of `lifelines.CoxPHFitter(penalizer=λ)`) by L-BFGS: for the 512 dimensions of an embedding that
        takes a tenth of a second where Newton's method takes fifteen.

        Args:
            features: (n, features), for example embeddings; constant columns get weight 0.
            event: (n,), 1 happened, 0 censored.
            time: (n,), years, or (n, 2) with the entry, as [`FollowUp`] takes it.
            penalizer: λ above.

        Raises:
            ValueError: what [`FollowUp`] refuses, no event, features of another length or not finite, or a penalty
                that is not positive.
        """
        values = np.asarray(features, dtype=np.float64)
        follow_up = FollowUp(event, time)
        events, times = follow_up.event, follow_up.times
        if values.ndim != 2 or len(values) != len(events) or not np.isfinite(values).all():
            raise ValueError(
                f"features: expected finite numbers ({len(events)} records, features), got shape {values.shape}"
            )
        if not events.any():
            raise ValueError(f"event: no event among {len(events)} records, a Cox model cannot be fitted")
        if penalizer <= 0:
            raise ValueError(f"penalizer: expected a positive number, got {penalizer}")
        mean, scale = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(values) - 1))
        constant = scale <= 1e-9 * np.maximum(np.abs(mean), 1.0)
        scale = np.where(constant, 1.0, scale)
        standardised = np.where(constant, 0.0, (values - mean) / scale)
        return cls(mean, scale, _minimise(standardised, events, times, penalizer), penalizer)

    @classmethod
    def cross_validated(
        cls,
        features: npt.ArrayLike,
        event: npt.ArrayLike,
        time: npt.ArrayLike,
        patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
        penalizers: Sequence[float] = PENALIZERS,
        num_folds: int = 5,
        seed: int = 0,
    ) -> "RidgeCox":
        """Fits the model with the penalty that has the best mean C-index over folds of patients.

        Args:
            features, event, time: as in [`fit`].
            patient_ids: patient of each record; a patient stays in one fold. None takes every record for a patient.
            penalizers: penalties to try.
            num_folds: folds of the inner cross-validation.
            seed: of the folds.

        Raises:
            ValueError: as [`fit`], or no fold has events on both sides.
        """
        values, follow_up = np.asarray(features, dtype=np.float64), FollowUp(event, time)
        events, times = follow_up.event, follow_up.times
        codes = np.arange(len(events)) if patient_ids is None else pd.factorize(np.asarray(patient_ids))[0]
        fold_of_patient = np.random.default_rng(seed).permutation(int(codes.max()) + 1) % num_folds
        fold = fold_of_patient[codes]
        scores: dict[float, list[float]] = {penalizer: [] for penalizer in penalizers}
        for held_out in range(num_folds):
            inside, outside = fold != held_out, fold == held_out
            if not events[inside].any() or not outside.any() or not FollowUp(events[outside], times[outside]).has_pair:
                continue
            for penalizer in penalizers:
                fitted = cls.fit(values[inside], events[inside], times[inside], penalizer)
                predicted = fitted.log_hazard(values[outside])
                scores[penalizer].append(concordance_index(events[outside], times[outside], predicted))
        if not scores[penalizers[0]]:
            raise ValueError(
                f"event: expected events in at least two of {num_folds} folds, got {int(events.sum())} in all"
            )
        best = max(penalizers, key=lambda penalizer: float(np.mean(scores[penalizer])))
        return cls.fit(values, events, times, best)

    @property
    def per_sd(self) -> FloatArray:
        """(features,), log hazard ratio per standard deviation."""
        return self.weights

    def log_hazard(self, features: npt.ArrayLike) -> FloatArray:
        """(n, features) -> (n,)."""
        result: FloatArray = ((np.asarray(features, dtype=np.float64) - self.mean) / self.scale) @ self.weights
        return result


def random_encoder(config: EcgDanConfig, seed: int = 0) -> EcgDanModel:
    """Returns a randomly initialised encoder in evaluation mode, the control of every pretraining.

    Args:
        config: configuration of the encoder it is compared with.
        seed: of the weights; the caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = EcgDanModel(config)
    encoder.train(False)
    return encoder


def _minimise(features: FloatArray, events: FloatArray, times: FloatArray, penalizer: float) -> FloatArray:
    inputs, event, years = (torch.from_numpy(np.ascontiguousarray(array)) for array in (features, events, times))
    entry, time = years.unbind(dim=1) if years.ndim == 2 else (None, years)
    weights = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    per_record = float(events.mean())  # cox_loss is a mean over events
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=500, tolerance_grad=1e-7, tolerance_change=1e-11, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = per_record * cox_loss(inputs @ weights, event, time, entry=entry)
        loss = loss + 0.5 * penalizer * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach().numpy()


class AgeAndSex:
    """Age and sex, the predictors that every comparison begins with."""

    @staticmethod
    def known(table: pd.DataFrame) -> bool:
        """Returns whether a table has both columns and at least one of them varies."""
        return {"age", "sex"} <= set(table) and any(table[name].nunique() > 1 for name in ("age", "sex"))

    @staticmethod
    def of(table: pd.DataFrame, name: str) -> pd.DataFrame:
        """Returns `age_decades` and `male` (1 or 0), NaN where unknown; errors call the table `name`.

        Raises:
            ValueError: a missing column, or another sex than male, female or nothing.
        """
        sex = column_of(table, "sex", name)
        unknown = set(sex.dropna().unique()) - {"male", "female"}
        if unknown:
            raise ValueError(f"{name}: sex: expected male, female or nothing, got {sorted(map(str, unknown))}")
        age = pd.to_numeric(column_of(table, "age", name), errors="coerce")
        return pd.DataFrame({"age_decades": age / 10, "male": sex.map({"male": 1.0, "female": 0.0}).astype(float)})


def column_of(table: pd.DataFrame, column: str, name: str) -> "pd.Series[Any]":
    """Returns a column with a new index.

    Raises:
        ValueError: the table, which the error calls `name`, lacks the column.
    """
    if column not in table:
        raise ValueError(f"{name}: expected a column {column}, got {', '.join(map(str, table.columns))}")
    return table[column].reset_index(drop=True)
