r"""A linear Cox model whose penalties are averaged by their evidence: for as few as fifteen events.

Weights have normal priors. Those of a block of features share one standard deviation \(\tau\), and the block is scaled
to a total variance of 1, so that \(\tau\) is the standard deviation of log hazard that the block may add. How far to
shrink is not chosen but averaged: each \(\tau\) of a grid counts by its Laplace evidence at the mode w,

\(\ell(w) - \tfrac12 w^T \Lambda w + \tfrac12 \log |\Lambda| - \tfrac12 \log |H + \Lambda|\)

(MacKay, Neural Computation 4:415, 1992), times a half-normal prior. \(\ell\) is the log partial likelihood (Efron
ties), H minus its second derivative. Everything runs in float64 by Newton's method; sums over risk sets are cumulative
sums over event times, so that a step takes O(n p^2) time and O(chunk p) memory besides the features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from ecgdan_hf.evaluation.measures.follow_up import FollowUp
from ecgdan_hf.evaluation.measures.intervals import FloatArray

PRIOR_SDS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Standard deviations of log hazard that a block may add; see the module."""
NUM_COMPONENTS = 48
"""Principal components of an embedding that a model is fitted to."""
_HALF_NORMAL_SD = 0.7  # prior of these
_FREE_SD = 1.0  # per SD of a covariate such as age: shrunk only where there is next to no information
_CHUNK = 65_536  # rows of features that are weighted at once
_MAX_STEPS = 50
_TOLERANCE = 1e-9  # of the decrement of Newton's method, in log likelihood


class _Likelihood(NamedTuple):
    """Log partial likelihood, its gradient, (p,), and minus its second derivative, (p, p)."""

    value: float
    gradient: FloatArray
    information: FloatArray


class CoxData:
    r"""Features and follow-up in the order that the partial likelihood needs, with Efron's correction for ties.

    Args:
        features: (n, p), finite.
        event: (n,), 1 happened, 0 censored.
        time: (n,), years, or (n, 2) with the entry, as [`FollowUp`] takes it.

    With delayed entry, a record is at risk at t if its time is t or later but its entry is not: it counts once more,
    without an event, at its entry, with the sign turned.

    Raises:
        ValueError: what [`FollowUp`] refuses, no event, or features of another length or not finite.
    """

    def __init__(self, features: npt.ArrayLike, event: npt.ArrayLike, time: npt.ArrayLike) -> None:
        values, follow_up = np.asarray(features, dtype=np.float64), FollowUp(event, time)
        happened = np.asarray(follow_up.event, dtype=bool)
        if values.ndim != 2 or len(values) != len(happened) or not np.isfinite(values).all():
            raise ValueError(
                f"features: expected finite numbers ({len(happened)} records, features), got shape {values.shape}"
            )
        if not happened.any():
            raise ValueError(f"event: no event among {len(happened)} records, a Cox model cannot be fitted")
        time, sign = follow_up.time, np.ones(len(happened))
        if follow_up.entry is not None:
            late = np.flatnonzero(follow_up.entry > 0)
            values, time = np.concatenate([values, values[late]]), np.concatenate([time, follow_up.entry[late]])
            happened = np.concatenate([happened, np.zeros(len(late), dtype=bool)])
            sign = np.concatenate([sign, -np.ones(len(late))])
        order = np.lexsort((values[:, 0] if values.shape[1] else happened, ~happened, -time))
        time = time[order]
        self.features, self.event, self._sign = values[order], happened[order], sign[order]
        starts = np.flatnonzero(np.r_[True, time[1:] != time[:-1]])  # of each distinct time, the latest first
        group = np.cumsum(np.r_[False, time[1:] != time[:-1]])
        deaths = np.add.reduceat(self.event, starts)
        self._bounds = np.r_[starts, len(time)]
        self._deaths = deaths  # (times,)
        self._group = group  # (n,), index of the subject's time
        happened_group = group[self.event]
        rank = np.arange(len(happened_group)) - np.searchsorted(happened_group, happened_group)
        self._event_group = happened_group  # (events,)
        self._fraction = rank / deaths[happened_group]  # l / d of Efron, (events,)

    @property
    def num_events(self) -> int:
        """Events among the records."""
        return len(self._event_group)

    def likelihood(self, weights: FloatArray) -> _Likelihood:
        """Log partial likelihood and its first two derivatives at these weights, (p,)."""
        value, hazard, left = self._value(weights)
        first, mean = self._means(hazard, left)
        share = hazard * self._shares(left)
        gradient = self.features[self.event].sum(axis=0) - first
        return _Likelihood(value, gradient, self._weighted_gram(share) - mean)

    def mean_at_risk(self, weights: FloatArray) -> FloatArray:
        """Mean features of those at risk, weighted by their hazards, over all events: (p,)."""
        found: FloatArray = (
            self.features[self.event].mean(axis=0) - self.likelihood(weights).gradient / self.num_events
        )
        return found

    def value(self, weights: FloatArray) -> float:
        """Log partial likelihood alone."""
        return self._value(weights)[0]

    def _value(self, weights: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Log partial likelihood, signed hazards, (n,), and their sum over those at risk at each event, (events,)."""
        score = self.features @ weights
        peak = score.max()
        hazard = self._sign * np.exp(score - peak)
        at_risk = np.cumsum(np.add.reduceat(hazard, self._bounds[:-1]))
        dying = np.add.reduceat(np.where(self.event, hazard, 0.0), self._bounds[:-1])
        left = at_risk[self._event_group] - self._fraction * dying[self._event_group]
        return float((score[self.event] - peak).sum() - np.log(left).sum()), hazard, left

    def _shares(self, left: FloatArray) -> FloatArray:
        """What each subject's hazard is multiplied by in sums over all events, (n,): less in a tie of its own."""
        count = len(self._deaths)
        step = np.bincount(self._event_group, 1 / left, count)
        tied = np.bincount(self._event_group, self._fraction / left, count)
        later_or_same = np.cumsum(step[::-1])[::-1]  # events at the subject's time or before
        shares: FloatArray = later_or_same[self._group] - np.where(self.event, tied[self._group], 0.0)
        return shares

    def _means(self, hazard: FloatArray, left: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Sum over events of the mean features at risk, (p,), and of their outer products, (p, p)."""
        width = self.features.shape[1]
        total, outer, before = np.zeros(width), np.zeros((width, width)), np.zeros(width)
        for first, last in self._chunks():
            rows = slice(self._bounds[first], self._bounds[last])
            starts = self._bounds[first:last] - self._bounds[first]
            weighted = self.features[rows] * hazard[rows, None]
            sums = before + np.cumsum(np.add.reduceat(weighted, starts), axis=0)  # (times of the chunk, p)
            before = sums[-1]
            mine = slice(*np.searchsorted(self._event_group, (first, last)))
            if mine.start == mine.stop:
                continue
            here = self._event_group[mine] - first
            mean = sums[here]
            if (self._deaths[first:last] > 1).any():
                dying = np.add.reduceat(weighted * self.event[rows, None], starts)
                mean = mean - self._fraction[mine, None] * dying[here]
            mean = mean / left[mine, None]
            total += mean.sum(axis=0)
            outer += mean.T @ mean
        return total, outer

    def _chunks(self) -> list[tuple[int, int]]:
        """Ranges of distinct times with about `_CHUNK` subjects each."""
        cuts = np.searchsorted(self._bounds, np.arange(0, self._bounds[-1], _CHUNK))
        cuts = np.unique(np.r_[0, cuts, len(self._bounds) - 1])
        return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))

    def _weighted_gram(self, share: FloatArray) -> FloatArray:
        width = self.features.shape[1]
        gram = np.zeros((width, width))
        for start in range(0, len(share), _CHUNK):
            part = self.features[start : start + _CHUNK]
            gram += (part * share[start : start + _CHUNK, None]).T @ part
        return gram


@dataclass(frozen=True)
class _Mode:
    """The posterior of one prior: its mode, covariance and log evidence."""

    weights: FloatArray
    covariance: FloatArray
    log_evidence: float

    @classmethod
    def find(cls, data: CoxData, precision: FloatArray, start: FloatArray) -> "_Mode":
        """Newton's method with halved steps for prior precisions (p,)."""
        weights, here = start, data.likelihood(start)
        for _ in range(_MAX_STEPS):
            slope = here.gradient - precision * weights
            factor = cho_factor(here.information + np.diag(precision), lower=True)
            step = cho_solve(factor, slope)
            gain = float(slope @ step) / 2
            if gain < _TOLERANCE:
                weights = weights + step
                break
            size, now = 1.0, _penalised(here.value, weights, precision)
            while size > 1e-6 and _penalised_at(data, weights + size * step, precision) < now - 1e-12 * abs(now):
                size /= 2
            weights = weights + size * step
            here = data.likelihood(weights)
        factor = cho_factor(here.information + np.diag(precision), lower=True)
        log_determinant = 2 * float(np.log(np.diag(factor[0])).sum())
        evidence = _penalised(here.value, weights, precision) + (float(np.log(precision).sum()) - log_determinant) / 2
        return cls(weights, cho_solve(factor, np.eye(len(weights))), evidence)


def _penalised(value: float, weights: FloatArray, precision: FloatArray) -> float:
    return value - float(precision @ weights**2) / 2


def _penalised_at(data: CoxData, weights: FloatArray, precision: FloatArray) -> float:
    found = data.value(weights)
    return _penalised(found, weights, precision) if np.isfinite(found) else -np.inf


@dataclass(frozen=True)
class Scaling:
    """Standardisation of features, learned without any outcome.

    Attributes:
        mean, sd: (features,), of the features.
        scale: (features,), log hazards are linear in (features - mean) / scale; infinite for one that does not vary.
        free: how many of the first features are no block: each has an SD of 1 and a prior of its own.
    """

    mean: FloatArray
    sd: FloatArray
    scale: FloatArray
    free: int

    @classmethod
    def of(cls, features: npt.ArrayLike, free: int = 0, standardise: bool = True) -> "Scaling":
        """Learns it from features (n, features): the block behind the first `free` has a total variance of 1.

        With `standardise` each feature of the block has an equal share of it, as measurements in different units need;
        without, the block is divided by one number: of an embedding, directions of little variance mean little.
        """
        values = np.asarray(features, dtype=np.float64)
        mean, sd = values.mean(axis=0), values.std(axis=0)
        constant = sd <= 1e-9 * np.maximum(np.abs(mean), 1.0)
        size = max(int((~constant[free:]).sum()), 1)
        block = sd * np.sqrt(size) if standardise else np.full(len(sd), np.sqrt((sd[free:] ** 2).sum()))
        scale = np.where(constant, np.inf, np.where(np.arange(len(sd)) < free, sd, block))
        return cls(mean, sd, scale, free)

    def __call__(self, features: npt.ArrayLike) -> FloatArray:
        """(n, features) -> (n, features), scaled."""
        scaled: FloatArray = (np.asarray(features, dtype=np.float64) - self.mean) / self.scale
        return scaled


@dataclass(frozen=True)
class EvidenceCox:
    """A linear Cox model, averaged over penalties by their evidence.

    Attributes:
        scaling: of the features.
        weights: (features,), log hazard ratio per unit of the scaled features, the posterior mean.
        covariance: (features, features), of these weights: within each penalty, and between penalties.
        center: (features,), mean of the scaled features of those at risk, over all events: the subject that a baseline
            hazard is known best for.
        prior_sds: SDs of the grid.
        shares: (grid,), posterior probability of each of them.
    """

    scaling: Scaling
    weights: FloatArray
    covariance: FloatArray
    center: FloatArray
    prior_sds: tuple[float, ...]
    shares: FloatArray

    @classmethod
    def fit(
        cls,
        features: npt.ArrayLike,
        event: npt.ArrayLike,
        time: npt.ArrayLike,
        free: int = 0,
        prior_sds: Sequence[float] = PRIOR_SDS,
        scaling: Scaling | None = None,
    ) -> "EvidenceCox":
        """Fits the model.

        Args:
            features: (n, features), finite; the first `free` are covariates such as age and sex, with priors N(0, 1)
                per SD, the others one block.
            event: (n,), 1 happened, 0 censored.
            time: (n,), years, or (n, 2) with the entry.
            free: number of those covariates.
            prior_sds: the grid; one value fixes the penalty.
            scaling: learned on other records, without outcome; by default on these.

        Raises:
            ValueError: as [`CoxData`], or a prior SD that is not positive.
        """
        if not prior_sds or not all(sd > 0 for sd in prior_sds):
            raise ValueError(f"prior_sds: expected positive numbers, got {list(prior_sds)}")
        scaling = scaling or Scaling.of(features, free)
        data = CoxData(scaling(features), event, time)
        width, modes, start = len(scaling.mean), [], np.zeros(len(scaling.mean))
        grid = tuple(prior_sds) if width > scaling.free else (1.0,)
        for sd in grid:
            prior = np.where(np.arange(width) < scaling.free, _FREE_SD, sd)
            modes.append(_Mode.find(data, prior**-2.0, start))
            start = modes[-1].weights
        log_share = np.array([mode.log_evidence for mode in modes]) - (np.array(grid) / _HALF_NORMAL_SD) ** 2 / 2
        shares = np.exp(log_share - log_share.max())
        shares /= shares.sum()
        weights = np.stack([mode.weights for mode in modes])
        mean, apart = shares @ weights, weights - shares @ weights
        within = np.einsum("g,gij->ij", shares, np.stack([mode.covariance for mode in modes]))
        covariance = within + (apart * shares[:, None]).T @ apart
        return cls(scaling, mean, covariance, data.mean_at_risk(mean), grid, shares)

    @property
    def per_sd(self) -> FloatArray:
        """(features,), log hazard ratio per standard deviation; 0 for a feature that did not vary."""
        result: FloatArray = self.weights * self.scaling.sd / self.scaling.scale
        return result

    def log_hazard(self, features: npt.ArrayLike) -> FloatArray:
        """(n, features) -> (n,)."""
        result: FloatArray = self.scaling(features) @ self.weights
        return result


@dataclass(frozen=True)
class Components:
    """Principal components of embeddings, learned without any outcome.

    Attributes:
        mean: (width,), of the embeddings.
        directions: (width, components), orthonormal columns, the largest variance first.
    """

    mean: FloatArray
    directions: FloatArray

    @classmethod
    def of(cls, embeddings: npt.ArrayLike, count: int = NUM_COMPONENTS) -> "Components":
        """Learns them from embeddings (n, width); at most as many as vary."""
        values = np.asarray(embeddings, dtype=np.float64)
        mean = values.mean(axis=0)
        covariance = np.zeros((len(mean), len(mean)))
        for start in range(0, len(values), _CHUNK):
            part = values[start : start + _CHUNK] - mean
            covariance += part.T @ part
        variance, directions = np.linalg.eigh(covariance)
        kept = np.flatnonzero(variance > 1e-10 * variance[-1])[::-1][: min(count, len(values) - 1)]
        return cls(mean, directions[:, kept])

    def __call__(self, embeddings: npt.ArrayLike) -> FloatArray:
        """(n, width) -> (n, components)."""
        found: FloatArray = (np.asarray(embeddings, dtype=np.float64) - self.mean) @ self.directions
        return found
