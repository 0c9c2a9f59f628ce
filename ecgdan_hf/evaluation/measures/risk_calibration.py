"""Calibration of predicted risks at a horizon: smooth curve, slope, intercept, observed over expected, ICI, E50, E90.

The status at the horizon is regressed on the prediction on the complementary log-log scale, on which a Cox model is
linear (Austin, Harrell, van Klaveren, Statistics in Medicine 39:2714-2742, 2020). Records censored earlier have no
status; those like them weigh more, by the inverse probability of censoring (Scheike, Zhang, Gerds, Biometrika
95:205-220, 2008). The weighted likelihood is concave, and with no predictor but a constant gives Kaplan-Meier;
pseudo-observations do not: those above 1 can drive the regression away. Standard errors are sandwiches, clustered by
patient, and take the weights as known. Plain functions of arrays: imports numpy and pandas alone.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgdan_hf.evaluation.measures.absolute_risk import observed_risk
from ecgdan_hf.evaluation.measures.follow_up import FollowUp, SurvivalCurve
from ecgdan_hf.evaluation.measures.intervals import AnalyticInterval, FloatArray, Patients, half_width

_SMALLEST_RISK = 1e-6  # risks of 0 and 1 are moved here and to its mirror image: their log(-log) is infinite
_KNOT_QUANTILES = (0.05, 0.35, 0.65, 0.95)  # Harrell, Regression Modeling Strategies, 2nd edition, table 2.3
_MAX_STEPS = 100


class RiskCalibration:
    r"""Calibration of predicted risks at a horizon.

    Args:
        event: (n,), 1 happened, 0 censored, 2, 3, ... a competing event.
        time: (n,), years, positive.
        risk: (n,), predicted probability p of the event within `horizon_years`.
        horizon_years: t, at most the last follow-up.
        patient_ids: patient of each record; None takes every record for a patient of its own.
        level: coverage of the intervals.
        censoring: survival of censoring, `FollowUp.censoring` of, say, the training records; None estimates it on
            these records.

    Raises:
        ValueError: what [`FollowUp`] refuses, a risk outside [0, 1], or ids that do not fit.
    """

    def __init__(
        self,
        event: npt.ArrayLike,
        time: npt.ArrayLike,
        risk: npt.ArrayLike,
        horizon_years: float,
        patient_ids: Sequence[Any] | npt.ArrayLike | None = None,
        level: float = 0.95,
        censoring: SurvivalCurve | None = None,
    ) -> None:
        self._follow_up, self._level, self._censoring = FollowUp(event, time), level, censoring
        self._risks = self._follow_up.risks(risk)
        self._horizon = self._follow_up.horizon(horizon_years)
        self._patient_ids, self._patients = patient_ids, Patients(patient_ids, len(self._risks))
        self._predicted = _log_minus_log(self._risks)

    def slope(self) -> AnalyticInterval:
        r"""Slope b of $\log(-\log(1 - P(T \le t))) = a + b \log(-\log(1 - p))$; 1 is right, below 1 is too extreme.

        Returns:
            The interval; its p value asks whether the slope is 1.

        Raises:
            ValueError: nobody with or without the event, one risk for all, or a regression that does not converge.
        """
        self._require_spread()
        coefficients, covariance = self._regress(np.stack([np.ones_like(self._predicted), self._predicted], axis=1))
        return self._interval(float(coefficients[1]), float(np.sqrt(covariance[1, 1])), null=1.0)

    def intercept(self) -> AnalyticInterval:
        r"""Intercept a of $\log(-\log(1 - P(T \le t))) = a + \log(-\log(1 - p))$; 0 is right, above 0 too low a risk.

        exp(a) is the ratio of the observed to the predicted cumulative hazard.

        Returns:
            The interval; its p value asks whether the intercept is 0.

        Raises:
            ValueError: as [`slope`]; a constant risk is allowed.
        """
        coefficients, covariance = self._regress(np.ones((len(self._risks), 1)), offset=self._predicted)
        return self._interval(float(coefficients[0]), float(np.sqrt(covariance[0, 0])), null=0.0)

    def observed_over_expected(self) -> AnalyticInterval:
        """Observed risk ([`observed_risk`]) over mean predicted risk, with limits on the log scale; 1 is right.

        Who happened to be in the cohort moves both risks alike; the error accounts for it, where that of the observed
        risk alone would be too wide.

        Returns:
            The interval; its p value asks whether the ratio is 1.

        Raises:
            ValueError: as [`observed_risk`], or a mean predicted risk of 0.
        """
        expected = float(self._risks.mean())
        if expected == 0:
            raise ValueError("risk: expected a positive mean, got 0 for every record; there is no ratio to it")
        known = self._follow_up
        observed = observed_risk(known.codes, known.time, self._horizon, self._patient_ids, self._level).estimate
        pseudo = known.pseudo_observations(self._horizon)
        influence = ((pseudo - pseudo.mean()) / observed - (self._risks - expected) / expected) / len(known)
        error = self._patients.error(influence)
        ratio, factor = observed / expected, float(np.exp(half_width(self._level) * error))
        z, limits = float(np.log(ratio)) / error, (ratio / factor, ratio * factor)
        return AnalyticInterval.of(ratio, limits, self._level, ratio * error, z, self._patients)

    def curve(self, num_points: int = 100) -> pd.DataFrame:
        """Returns a smooth curve of observed against predicted risk, with pointwise limits.

        A restricted cubic spline with four knots in log(-log(1 - risk)), as in Austin, Harrell, van Klaveren (2020).

        Args:
            num_points: rows, evenly spaced between the 1 % and the 99 % quantile of the predicted risk.

        Returns:
            One row per point: `predicted`, `observed`, `low`, `high`.

        Raises:
            ValueError: as [`slope`].
        """
        knots, coefficients, covariance = self._fit_spline()
        low, high = (float(end) for end in np.quantile(self._risks, [0.01, 0.99]))
        points = np.linspace(low, high, num_points)
        basis = _spline(_log_minus_log(points), knots)
        middle = basis @ coefficients
        half = half_width(self._level) * np.sqrt(np.einsum("ij,jk,ik->i", basis, covariance, basis))
        columns = {"observed": middle, "low": middle - half, "high": middle + half}
        return pd.DataFrame({"predicted": points} | {name: _to_risk(values) for name, values in columns.items()})

    def errors(self) -> dict[str, float]:
        """Returns the distance of the smooth curve from the diagonal over the records, in units of risk.

        Returns:
            `ici` (integrated calibration index, the mean distance), `e50` (median), `e90` (90 % quantile), `emax`.

        Raises:
            ValueError: as [`slope`].
        """
        knots, coefficients, _ = self._fit_spline()
        distance = np.abs(_to_risk(_spline(self._predicted, knots) @ coefficients) - self._risks)
        e50, e90, emax = (float(value) for value in np.quantile(distance, [0.5, 0.9, 1.0]))
        return {"ici": float(distance.mean()), "e50": e50, "e90": e90, "emax": emax}

    @cached_property
    def _status(self) -> tuple[FloatArray, FloatArray]:
        """Status at the horizon, and its weight (0 where it is not known): (n,) each."""
        cases, controls, weights = self._follow_up.status(self._horizon, self._censoring)
        if not cases.any() or not controls.any():
            raise ValueError(
                f"horizon_years: expected records with and without the event by {self._horizon:g} years, got "
                f"{cases.sum()} with and {controls.sum()} without; take another"
            )
        return cases.astype(np.float64), weights

    def _require_spread(self) -> None:
        if np.ptp(self._predicted) == 0:
            raise ValueError("risk: expected different risks, got one for all; take `intercept`")

    def _interval(self, estimate: float, error: float, null: float) -> AnalyticInterval:
        return AnalyticInterval.wald(estimate, error, null, self._level, self._patients)

    def _fit_spline(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Knots, coefficients and their covariance."""
        self._require_spread()
        knots = np.unique(np.quantile(self._predicted, _KNOT_QUANTILES))
        return knots, *self._regress(_spline(self._predicted, knots))

    def _regress(self, features: FloatArray, offset: FloatArray | float = 0.0) -> tuple[FloatArray, FloatArray]:
        r"""Weighted binomial regression with complementary log-log link by Fisher scoring, and the clustered sandwich.

        Solves $\sum_i w_i x_i \frac{\mu'_i}{\mu_i (1 - \mu_i)} (y_i - \mu_i) = 0$ with $\mu = 1 - e^{-e^{\eta}}$,
        where $\mu' / (\mu (1 - \mu)) = e^\eta / \mu$.
        """
        status, weights = self._status
        coefficients = np.zeros(features.shape[1])
        mean = float((weights * status).sum() / weights.sum())
        coefficients[0] = np.log(-np.log1p(-mean)) - np.mean(offset)
        for _ in range(_MAX_STEPS):
            linear = np.clip(features @ coefficients + offset, -30.0, 3.5)
            expected = -np.expm1(-np.exp(linear))
            gain = weights * np.exp(linear) / expected
            scores = features * (gain * (status - expected))[:, None]
            information = features.T @ (features * (gain * np.exp(linear - np.exp(linear)))[:, None])
            step = _solve(information, scores.sum(axis=0))
            coefficients = coefficients + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
            if np.abs(step).max() < 1e-9 * max(1.0, float(np.abs(coefficients).max())):
                break
        else:
            raise ValueError(
                f"risk: the calibration regression did not converge on {len(status)} records; add records"
            )
        columns = (scores @ np.linalg.inv(information)).T
        influence = np.stack([self._patients.sums(column) for column in columns])
        covariance: FloatArray = influence @ influence.T
        return coefficients, covariance


def _log_minus_log(risks: FloatArray) -> FloatArray:
    values: FloatArray = np.log(-np.log1p(-np.clip(risks, _SMALLEST_RISK, 1 - _SMALLEST_RISK)))
    return values


def _to_risk(values: FloatArray) -> FloatArray:
    risks: FloatArray = -np.expm1(-np.exp(np.clip(values, -40.0, 4.0)))
    return risks


def _spline(values: FloatArray, knots: FloatArray) -> FloatArray:
    """Restricted cubic spline basis with intercept: (n, len(knots)); linear outside, or with fewer than 3, knots."""
    columns = [np.ones_like(values), values]
    if len(knots) > 2:
        cubes = np.maximum(values[:, None] - knots, 0.0) ** 3
        *inner, before, last = knots
        for index, knot in enumerate(inner):
            bend = cubes[:, -2] * (last - knot) / (last - before) - cubes[:, -1] * (before - knot) / (last - before)
            columns.append((cubes[:, index] - bend) / (last - knots[0]) ** 2)
    return np.stack(columns, axis=1)


def _solve(information: FloatArray, score: FloatArray) -> FloatArray:
    try:
        return np.linalg.solve(information, score).astype(np.float64)
    except np.linalg.LinAlgError:
        raise ValueError("risk: too few different risks for the calibration regression; add records") from None
