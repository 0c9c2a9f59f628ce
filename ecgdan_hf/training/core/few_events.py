"""A linear risk head on the embeddings of a frozen encoder, for follow-up with few events.

The features are covariates such as age and sex, each with a prior N(0, 1) per SD, and the first principal components
of the embedding as one block, whose shrinkage is averaged by its evidence ([`EvidenceCox`]). The components keep their
natural scale: a direction in which the encoder tells ECGs apart by little may move the log hazard by little. The fit
is linear in the embedding, so that it becomes the head of an ordinary checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ecgdan_hf.evaluation.comparators.evidence_cox import Components, EvidenceCox, Scaling
from ecgdan_hf.evaluation.measures.follow_up import BoolArray
from ecgdan_hf.evaluation.measures.intervals import FloatArray


@dataclass(frozen=True)
class FewEventsHead:
    """A fitted head.

    Attributes:
        components: of the embedding.
        cox: the fit to covariates and components, in this order.
    """

    components: Components
    cox: EvidenceCox

    @classmethod
    def fit(
        cls,
        embeddings: FloatArray,
        covariates: FloatArray,
        event: FloatArray,
        time: FloatArray,
        components: Components | None = None,
    ) -> "FewEventsHead":
        """Fits the head.

        Args:
            embeddings: (n, width), of the frozen encoder.
            covariates: (n, covariates), standardised, 0 where unknown; no column without any.
            event: (n,), 1 happened, 0 censored.
            time: (n,), years, or (n, 2) with the entry, as [`FollowUp`] takes it.
            components: learned before, on the same embeddings; None learns them.

        Raises:
            ValueError: as [`EvidenceCox.fit`].
        """
        components, free = components or Components.of(embeddings), covariates.shape[1]
        features = np.hstack([covariates, components(embeddings)])
        scaling = Scaling.of(features, free, standardise=False)
        return cls(components, EvidenceCox.fit(features, event, time, free, scaling=scaling))

    def log_hazard(self, embeddings: FloatArray, covariates: FloatArray) -> FloatArray:
        """(n, width) and (n, covariates) -> (n,)."""
        return self.cox.log_hazard(np.hstack([covariates, self.components(embeddings)]))

    def store_in(self, model: Any) -> None:
        """Makes it the risk head of an `EcgDanForSurvival` with `survival_hidden_size` 0."""
        store_heads(model, [self])

    def linear_parts(self) -> tuple[FloatArray, ...]:
        """Weights of the embedding, bias, weights of the covariates, and the posterior, as `store_linear` has them."""
        weights = self._folded(self.cox.weights[None])[0]
        width = len(self.components.mean)
        root: FloatArray = np.linalg.cholesky(self.cox.covariance).astype(np.float64)
        directions = self._folded(root.T)
        directions[:, -1] -= root.T @ self.cox.center
        return weights[:width], weights[-1:], weights[width:-1], directions

    def _folded(self, directions: FloatArray) -> FloatArray:
        """Directions (m, features) of scaled features -> (m, width + covariates + 1): of embedding, covariates, 1."""
        scaling, free = self.cox.scaling, self.cox.scaling.free
        per_feature = directions / scaling.scale
        embedding = per_feature[:, free:] @ self.components.directions.T
        constant = -per_feature @ scaling.mean - embedding @ self.components.mean
        return np.hstack([embedding, per_feature[:, :free], constant[:, None]])

    def summary(self) -> dict[str, Any]:
        """How many components there are and how far they were shrunk, for `metrics.json`."""
        cox = self.cox
        return {
            "num_components": self.components.directions.shape[1],
            "log_hazard_sd": {"prior_sds": list(cox.prior_sds), "posterior": cox.shares.round(6).tolist()},
            "mean_log_hazard_sd": float(cox.shares @ np.array(cox.prior_sds)),
        }


def fit_heads(
    embeddings: FloatArray, covariates: FloatArray, outcomes: Sequence[tuple[BoolArray, FloatArray, FloatArray]]
) -> list[FewEventsHead]:
    """Fits a head for each cause or endpoint, on the same components.

    Args:
        embeddings, covariates: as in [`FewEventsHead.fit`], of all records.
        outcomes: of each, the records whose follow-up is known, (n,), and their event and time as there.
    """
    components = Components.of(embeddings)
    return [
        FewEventsHead.fit(embeddings[known], covariates[known], event, time, components)
        for known, event, time in outcomes
    ]


def store_heads(model: Any, heads: Sequence[FewEventsHead]) -> None:
    """Makes them the risk head of an `EcgDanForSurvival` with `survival_hidden_size` 0 and as many risks."""
    parts = [np.stack(each) for each in zip(*(head.linear_parts() for head in heads), strict=True)]
    parts = parts if len(heads) > 1 else [part[0] for part in parts]
    model.store_linear(*(torch.tensor(part, dtype=torch.float32) for part in parts))
