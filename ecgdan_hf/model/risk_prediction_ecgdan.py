"""What follows from a fitted hazard: the baseline, absolute risks with limits, recalibration.

Travels with the weights.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .discrete_time_ecgdan import discrete_incidence
from .risk_ecgdan import Baseline, Recalibration, Risk, absolute_risk, baseline_hazard, competing_risk, recalibrate
from .survival_ecgdan import survival_curve


class RiskPredictionMixin:
    """Absolute risks of a model whose `forward` gives `log_hazard`, or `hazard_logits` of a discrete hazard.

    The model has a `config` of type [`EcgDanSurvivalConfig`] and a `baseline`, [`EcgDanBaselineHazard`].
    """

    config: Any
    baseline: Any
    __call__: Callable[..., Any]

    def risks(self, output: Any, years: Sequence[float] | Tensor, level: float = 0.95) -> Risk:
        """Absolute risks with limits, from the output of `forward`: three of (N, risks, years).

        The risk of a competing cause is its cumulative incidence, that of an endpoint its own. Limits are those of
        [`absolute_risk`] and [`competing_risk`]; those of a discrete hazard are NaN, as it is not known how well it is
        known.

        Raises:
            ValueError: the baseline hazard has not been fitted, or negative years.
        """
        log_hazard: Any = output.log_hazard
        years = torch.as_tensor(years, dtype=torch.float32, device=log_hazard.device)
        if output.hazard_logits is not None:
            cuts = output.hazard_logits.new_tensor(self.config.hazard_cuts, dtype=torch.float32)
            risk = discrete_incidence(output.hazard_logits, cuts, years)
            return Risk(risk, *(torch.full_like(risk, torch.nan) for _ in range(2)))
        self._require_baseline()
        baselines, error = self.baseline.of_risks(), output.log_hazard_error
        if self.config.cause_names:
            return competing_risk(log_hazard, baselines, years, level, error)
        if self.config.endpoint_names:
            errors = [None] * len(baselines) if error is None else error.unbind(dim=1)
            columns = zip(log_hazard.unbind(dim=1), baselines, errors, strict=True)
            each = [absolute_risk(scores, one, years, level, own) for scores, one, own in columns]
            return Risk(*(torch.stack(values, dim=1) for values in zip(*each, strict=True)))
        return Risk(*(values[:, None] for values in absolute_risk(log_hazard, baselines[0], years, level, error)))

    def _one_a_risk(self, values: Tensor) -> Tensor:
        """(N, risks, ...) -> the same, without the dimension where there is one risk alone."""
        return values.squeeze(1) if self.config.num_risks == 1 else values

    @property
    def follow_up_years(self) -> float:
        """Years within which absolute risks are known: the end of the training follow-up, or the last cut."""
        if self.config.hazard == "discrete":
            return float(self.config.hazard_cuts[-1])
        self._require_baseline()
        return float(self.baseline.times[-1])

    def _require_baseline(self) -> None:
        if not self.config.gives_risks:
            raise ValueError("baseline: expected a fitted baseline hazard, found none; call fit_baseline first")

    @torch.no_grad()
    def fit_baseline(self, log_hazard: Tensor, event: Tensor, time: Tensor, entry: Tensor | None = None) -> None:
        """Stores Breslow's baseline hazard of each risk, so that `predict_risk` gives absolute risk.

        Args:
            log_hazard: (n,) or (n, risks), this model's predictions for its training subjects, in evaluation mode.
            event, time: as in `forward`: (n,), or (n, endpoints).
            entry: (n,), as in `forward`.

        Raises:
            ValueError: no event at all, or none of a cause; a discrete hazard, which has no baseline.
        """

        def baseline(scores: Tensor, happened: Tensor, time: Tensor, entry: Tensor | None) -> Baseline:
            return baseline_hazard(scores, happened, time, entry=entry)

        fitted = self._each_risk(baseline, log_hazard, event, time, entry)
        self.config.num_baseline_times = self.baseline.store(*fitted)

    def _each_risk(
        self, fit: Callable[..., Any], log_hazard: Tensor, event: Tensor, time: Tensor, entry: Tensor | None
    ) -> list[Any]:
        """Results of a function of log hazard, event, time and entry of each risk, (n,) of those who are known."""
        names = self.config.risk_names
        if self.config.hazard == "discrete":
            raise ValueError("hazard: a discrete hazard is fitted as a whole, it has no baseline; fine-tune it again")
        if self.config.endpoint_names:
            known = ~(event.isnan() | time.isnan())
            rows = [(column, mask) for column, mask in enumerate(known.unbind(dim=1))]
            return [
                fit(log_hazard[at, c], event[at, c], time[at, c], None if entry is None else entry[at])
                for c, at in rows
            ]
        event = event.reshape(-1)
        if not self.config.cause_names:
            return [fit(log_hazard, event, time, entry)]
        absent = [name for code, name in enumerate(names, start=1) if not (event == code).any()]
        if absent:
            raise ValueError(f"event: expected at least one event of each of {', '.join(names)}, none of {absent[0]}")
        scores = log_hazard.reshape(len(event), len(names)).unbind(dim=1)
        return [fit(score, (event == code).to(score.dtype), time, entry) for code, score in enumerate(scores, start=1)]

    @torch.no_grad()
    def recalibrate(
        self,
        log_hazard: Tensor,
        event: Tensor,
        time: Tensor,
        method: str = "baseline",
        entry: Tensor | None = None,
    ) -> float | list[float]:
        """Fits the absolute risks to a new population without touching a weight.

        Args:
            log_hazard: (n,) or (n, risks), this model's predictions for the new population, in evaluation mode.
            event, time, entry: as in `fit_baseline`.
            method: "baseline" refits how often the event happens; "slope" also how far log hazards are apart, which
                is kept in `config.calibration_slope` and multiplies every later `log_hazard`.

        Returns:
            The slope, 1 for "baseline"; with several risks the slope of each.

        Raises:
            ValueError: as `risk_ecgdan.recalibrate` and `fit_baseline`, or a slope that reverses the order of the
                risks.
        """

        def refit(scores: Tensor, happened: Tensor, time: Tensor, entry: Tensor | None) -> Recalibration:
            with torch.enable_grad():
                return recalibrate(scores, happened, time, method, entry=entry)

        found: list[Recalibration] = self._each_risk(refit, log_hazard, event, time, entry)
        slopes = [each.slope for each in found]
        if min(slopes) <= 0:
            raise ValueError(
                f"log_hazard: expected higher values where the event comes earlier, got a slope of {min(slopes):.3g}: "
                "the model does not rank this population; retrain it"
            )
        before: Any = self.config.calibration_slope
        before = before if isinstance(before, list) else [before] * len(slopes)
        changed = [old * new for old, new in zip(before, slopes, strict=True)]
        self.config.calibration_slope = changed if len(slopes) > 1 else changed[0]
        self.config.num_baseline_times = self.baseline.store(*(each.baseline for each in found))
        return slopes if len(slopes) > 1 else slopes[0]

    @torch.no_grad()
    def predict_survival(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        covariates: Tensor | None = None,
        years: Sequence[float] | Tensor = (1.0, 5.0, 10.0),
    ) -> Tensor:
        """Probability of being free of every event at each of `years`: (N, len(years)), NaN beyond the follow-up.

        Raises:
            ValueError: the baseline hazard has not been fitted, negative years, or several endpoints.
        """
        if self.config.endpoint_names:
            raise ValueError("endpoint_names: how several endpoints come together is not known; call predict_risk")
        output = self._risk_output(input_values, lead_mask, covariates)
        if self.config.num_risks > 1 or output.hazard_logits is not None:
            return 1 - self.risks(output, years).risk.sum(dim=1)
        years = torch.as_tensor(years, dtype=torch.float32, device=output.log_hazard.device)
        return survival_curve(output.log_hazard, self.baseline.times, self.baseline.log_cumulative_hazard, years)

    @torch.no_grad()
    def predict_risk(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        covariates: Tensor | None = None,
        horizon_years: float = 10.0,
    ) -> Tensor:
        """Probability of the event within `horizon_years`: (N,), NaN beyond the follow-up.

        Of several risks (N, risks), in the order of `config.risk_names`: of competing causes the cumulative incidence
        of each, of several endpoints the risk of each.
        """
        output = self._risk_output(input_values, lead_mask, covariates)
        return self._one_a_risk(self.risks(output, [horizon_years]).risk)[..., 0]

    @torch.no_grad()
    def predict_risk_interval(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        covariates: Tensor | None = None,
        horizon_years: float = 10.0,
        level: float = 0.95,
    ) -> Risk:
        """Risk within `horizon_years` with limits, `(risk, low, high)`, each as of `predict_risk`.

        The limits say how well the baseline hazard is known, from the number of events it was fitted to. How well the
        weights are known is in them for a linear head that was fitted with few events, and not for other networks.
        """
        output = self._risk_output(input_values, lead_mask, covariates)
        return Risk(*(self._one_a_risk(values)[..., 0] for values in self.risks(output, [horizon_years], level)))

    def _risk_output(self, input_values: Tensor, lead_mask: Tensor | None, covariates: Tensor | None) -> Any:
        self._require_baseline()
        return self(input_values, lead_mask, covariates, return_loss=False)
