r"""Zero-shot answers from a network and from measurements together, as probabilities, or none where neither knows.

A prompt has a score of the network, \(s\), and, if it is about something measured, the probability \(p\) that
measurements give it (`data.text.prompts`). With \(z = (s - \bar s) / \mathrm{sd}(s)\) and
\(m = \mathrm{logit}\,p\), cut off at \(\pm 4\),

\[ \mathrm{logit}\,P = b + w_s z + w_m (m - \bar m). \]

With a few labels, \(b, w_s \ge 0, w_m \ge 0\) are the most probable under normal priors (Platt scaling: Platt,
Advances in Large Margin Classifiers, 1999). Without labels, the prevalence has to be known or assumed: \(w_s\) is the
log likelihood ratio per standard deviation of two normal distributions of equal variance, told apart by the
measurements where there are any, else by EM; \(w_m = 1\), and \(b\) makes the mean probability the prevalence.
Functions of arrays.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

FloatArray = npt.NDArray[np.float64]

MAX_LOG_ODDS = 4.0  # of a measurement: a wave may be mistaken where its value is clear
PRIOR_WEIGHTS, PRIOR_SD = (1.0, 0.5), 1.0  # of the score and of the measurement
MIN_EVIDENCE = float(np.log(2))  # log odds away from the prevalence; less is no answer
_EM_STEPS = 200


@dataclass(frozen=True)
class FusedAnswer:
    """Answers to one prompt, (records,) each.

    Attributes:
        probability: that the prompt is true; NaN where neither network nor measurements know.
        network, measured: log odds that each contributes, 0 where it is missing.
    """

    probability: FloatArray
    network: FloatArray
    measured: FloatArray


@dataclass(frozen=True)
class FusedZeroShot:
    """How one prompt's score and measured probability become a probability.

    Attributes:
        center, scale: of the network's scores.
        measured_center: mean log odds by measurement.
        weights: of the standardised score and of the measured log odds.
        intercept: log odds of a record that is average in both.
        prevalence: share of records of which the prompt is true.
    """

    center: float
    scale: float
    measured_center: float
    weights: tuple[float, float]
    intercept: float
    prevalence: float

    @classmethod
    def from_labels(
        cls, scores: npt.ArrayLike, measured: npt.ArrayLike | None, labels: npt.ArrayLike
    ) -> "FusedZeroShot":
        """Calibrates on labelled records, of which a few of each kind are enough.

        Args:
            scores: (records,) of the network; NaN where there is none.
            measured: (records,) probabilities by measurement; NaN, or None, where it is not known.
            labels: (records,), 1 true, 0 false.

        Raises:
            ValueError: labels of one kind only, or shapes that differ.
        """
        truth = np.asarray(labels, dtype=np.float64)
        score, log_odds = _checked(scores, measured)
        if truth.shape != score.shape or not 0 < truth.mean() < 1:
            raise ValueError(
                f"labels: expected {len(score)} of 0 and 1, both kinds, got {truth.size} with mean {truth.mean():.3g}"
            )
        start = cls(*_location(score), _mean(log_odds), PRIOR_WEIGHTS, 0.0, float(truth.mean()))
        features = np.stack(start._features(score, log_odds))
        weights, intercept = _most_probable(features, truth)
        return cls(start.center, start.scale, start.measured_center, weights, intercept, start.prevalence)

    @classmethod
    def from_prevalence(
        cls, scores: npt.ArrayLike, measured: npt.ArrayLike | None, prevalence: float
    ) -> "FusedZeroShot":
        """Calibrates on unlabelled records of which the prompt is true of this share; arguments as [`from_labels`].

        Raises:
            ValueError: a prevalence that is not between 0 and 1, or shapes that differ.
        """
        _check_prevalence(prevalence)
        score, log_odds = _checked(scores, measured)
        start = cls(*_location(score), _mean(log_odds), (1.0, 1.0), 0.0, prevalence)
        z, m = start._features(score, log_odds)
        weight = _separation(z, np.asarray(expit(log_odds)), prevalence, np.isfinite(score))
        total = weight * z + m
        intercept = brentq(lambda b: float(expit(total + b).mean()) - prevalence, -60.0, 60.0)
        return cls(start.center, start.scale, start.measured_center, (weight, 1.0), float(intercept), prevalence)

    def at_prevalence(self, prevalence: float) -> "FusedZeroShot":
        """Returns the same for records of which the prompt is true of another share than of those with labels.

        The intercept changes by the difference of the log odds (King and Zeng, Political Analysis 9:137, 2001).

        Raises:
            ValueError: a prevalence that is not between 0 and 1.
        """
        _check_prevalence(prevalence)
        change = float(logit(prevalence) - logit(self.prevalence))
        return replace(self, intercept=self.intercept + change, prevalence=prevalence)

    def __call__(
        self, scores: npt.ArrayLike, measured: npt.ArrayLike | None = None, min_evidence: float = MIN_EVIDENCE
    ) -> FusedAnswer:
        """Returns the answers for records; none where the log odds are within `min_evidence` of the prevalence."""
        score, log_odds = _checked(scores, measured)
        z, m = self._features(score, log_odds)
        network, by_measurement = self.weights[0] * z, self.weights[1] * m
        total = self.intercept + network + by_measurement
        knows = np.abs(total - logit(self.prevalence)) >= min_evidence
        knows &= np.isfinite(score) | np.isfinite(log_odds)
        return FusedAnswer(np.where(knows, expit(total), np.nan), network, by_measurement)

    def _features(self, score: FloatArray, log_odds: FloatArray) -> tuple[FloatArray, FloatArray]:
        z, m = (score - self.center) / self.scale, log_odds - self.measured_center
        return np.nan_to_num(z), np.nan_to_num(m)


def _check_prevalence(prevalence: float) -> None:
    if not 0 < prevalence < 1:
        raise ValueError(f"prevalence: expected a share between 0 and 1, got {prevalence}")


def _checked(scores: npt.ArrayLike, measured: npt.ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    """Scores, and log odds by measurement cut off at the limits."""
    score = np.asarray(scores, dtype=np.float64)
    probability = np.full(score.shape, np.nan) if measured is None else np.asarray(measured, dtype=np.float64)
    if score.ndim != 1 or score.shape != probability.shape:
        raise ValueError(f"measured: expected shape {score.shape} as scores, (records,), got {probability.shape}")
    with np.errstate(divide="ignore"):
        return score, np.clip(logit(probability), -MAX_LOG_ODDS, MAX_LOG_ODDS)


def _location(score: FloatArray) -> tuple[float, float]:
    known = score[np.isfinite(score)]
    return (float(known.mean()), max(float(known.std()), 1e-12)) if len(known) else (0.0, 1.0)


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0


def _most_probable(features: FloatArray, truth: FloatArray) -> tuple[tuple[float, float], float]:
    """Weights, not negative, and intercept of a logistic regression with normal priors on the weights."""

    def loss(parameters: FloatArray) -> float:
        log_odds = parameters[2] + parameters[:2] @ features
        prior = (((parameters[:2] - PRIOR_WEIGHTS) / PRIOR_SD) ** 2).sum() / 2
        return float((np.logaddexp(0, log_odds) - truth * log_odds).sum() + prior)

    start = np.array([*PRIOR_WEIGHTS, logit(truth.mean())])
    found = minimize(loss, start, method="L-BFGS-B", bounds=[(0, None), (0, None), (None, None)]).x
    return (float(found[0]), float(found[1])), float(found[2])


def _separation(z: FloatArray, measured: FloatArray, prevalence: float, is_known: npt.NDArray[np.bool_]) -> float:
    """Log likelihood ratio per unit of z, where known, of two normals of equal variance; not negative."""
    is_both = is_known & np.isfinite(measured)
    if len(np.unique(measured[is_both])) > 1:
        return max(_normals(z[is_both], measured[is_both])[0], 0.0)
    values, slope = z[is_known], 0.0
    if len(np.unique(values)) < 2:
        return 0.0
    share = expit(3 * (values - np.quantile(values, 1 - prevalence)))
    for _ in range(_EM_STEPS):
        slope, middle = _normals(values, share)
        share = expit(logit(prevalence) + slope * (values - middle))
    return max(slope, 0.0)


def _normals(z: FloatArray, share: FloatArray) -> tuple[float, float]:
    """Slope and zero of the log likelihood ratio, from the share of the upper distribution in each value."""
    upper, lower = float(np.average(z, weights=share)), float(np.average(z, weights=1 - share))
    variance = float(np.mean(share * (z - upper) ** 2 + (1 - share) * (z - lower) ** 2))
    return (upper - lower) / max(variance, 1e-6), (upper + lower) / 2
