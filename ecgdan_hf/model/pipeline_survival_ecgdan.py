"""Recordings -> risk of the event within some years, with its limits, by a survival checkpoint.

    risk_of = pipeline("ecg-survival", model="runs/demo/model")  # import ecgdan_hf before: it registers the pipelines
    risk_of({"path": "ecg.hea", "age": 61, "sex": "female"}, horizon_years=[1, 5])

Travels with the weights: imports only torch, numpy, transformers and its neighbours.
"""

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from .covariates_ecgdan import Covariate
from .pipeline_base_ecgdan import SURVIVAL, EcgPipeline
from .recording_ecgdan import Recording
from .risk_ecgdan import Risk
from .survival_ecgdan import working_dtype

TRAVELS = (Recording, Risk, working_dtype)
"""Not called here: a file that is loaded by name has to name every file it needs, also through a neighbour."""

_PREDICTED = ("log_hazard", "log_hazard_error", "hazard_logits")
HORIZONS_YEARS = (1.0, 5.0, 10.0)


class EcgSurvivalPipeline(EcgPipeline):
    r"""Risk of an event within some years of the ECG, by a checkpoint of [`EcgDanForSurvival`].

    Its covariates are read from each mapping (`age`, `sex`, ..., or all of them under `covariates`), else from the
    argument, else from the file itself; what stays unknown counts as the mean of the training data, with a flag.

    Args of a call, besides those of [`EcgPipeline.__call__`]:
        horizon_years: one number or several, years since the ECG; default 1, 5 and 10, as far as the training data
            were followed up.
        covariates: a mapping of their names, for all recordings of the call.
        level: coverage of the limits.
        return_curve: add `curve`.

    Returns, for each recording, a dictionary:
        log_hazard: natural logarithm of the hazard relative to the baseline; orders recordings.
        risk: for each horizon `years` and `risk`, the probability of the event by then, with the limits `low` and
            `high`, which say how well the baseline hazard is known and, for a linear head that was fitted with few
            events, its weights; not how well another network is known. None beyond
            `follow_up_years`, and for limits of a checkpoint without standard errors. Empty where no baseline hazard
            was fitted.
        follow_up_years: end of the follow-up of the training data; None without a baseline.
        endpoint: the event in words; of competing causes the first.
        endpoints: of a model with several endpoints alone, by the name of each: `log_hazard`, and `risk` as above.
        causes: of a model with competing causes alone, by the name of each: `log_hazard`, and `risk` as above, its
            cumulative incidence. Those above are of the first.
        simulated: whether the outcomes it learned from were simulated; then these are no risks of real patients.
        covariates: as the network took them; None where unknown.
        flags: quality flags of the recording.
        curve: `years`, `survival` (the probability of no event until then, a step function) and its limits `low` and
            `high`, lists of one length. With competing causes, `survival` is free of all, and in the place of limits
            `incidence` has a list for each cause. Of several endpoints it is that of the first.
    """

    serves = SURVIVAL

    def _sanitize_parameters(
        self,
        horizon_years: float | Sequence[float] | None = None,
        covariates: Mapping[str, Any] | None = None,
        level: float | None = None,
        return_curve: bool | None = None,
        **signal: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        first = self._signal_arguments(signal, "horizon_years, covariates, level, return_curve")
        if covariates is not None:
            first["covariates"] = self._checked_covariates(covariates)
        if (horizon_years is not None or return_curve) and not self.model.config.gives_risks:
            raise ValueError(
                "model: expected one with a fitted baseline hazard for absolute risks, this one has log hazards only"
            )
        if level is not None and not 0 < level < 1:
            raise ValueError(f"level: expected a coverage between 0 and 1, got {level}")
        horizons = None if horizon_years is None else _checked_horizons(horizon_years)
        last = {"horizon_years": horizons, "level": level, "return_curve": return_curve}
        return first, {}, self._given_only(last)

    def _checked_covariates(self, covariates: Any) -> dict[str, Any]:
        columns = [Covariate(name).column for name in self.model.config.covariate_names]
        expected = ", ".join(dict.fromkeys(columns)) or "none, as the checkpoint takes none"
        if not isinstance(covariates, Mapping):
            raise ValueError(f"covariates: expected a mapping of {expected}, got {type(covariates).__name__}")
        unknown = [str(name) for name in covariates if name not in columns]
        if unknown:
            raise ValueError(f"covariates: expected {expected}, got {unknown[0]}")
        return dict(covariates)

    def preprocess(self, inputs: Any, covariates: Mapping[str, Any] | None = None, **signal: Any) -> dict[str, Any]:  # type: ignore[override]
        """As every pipeline here; and `covariates` (1, names), where the checkpoint takes any."""
        recording, names = Recording.read(inputs, signal), self.model.config.covariate_names
        prepared, own = self._prepare(recording), dict(recording.given)
        own |= self._checked_covariates(own.pop("covariates", None) or {})
        known = _known(recording.said) | _known(covariates or {}) | _known(own)
        return prepared | {"covariates": torch.tensor([[Covariate(name).value(known) for name in names]])}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        covariates = model_inputs["covariates"]
        given = {"covariates": covariates} if covariates.shape[1] else {}
        output = self.model(**self._network_inputs(model_inputs), **given, return_loss=False)
        found = {name: output[name].float() for name in _PREDICTED if name in output}
        return found | {"covariates": covariates, "flags": model_inputs["flags"]}

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: dict[str, Any],
        horizon_years: Sequence[float] | None = None,
        level: float = 0.95,
        return_curve: bool = False,
    ) -> dict[str, Any]:
        """Log hazard, risks and what they rest on."""
        config, found = self.model.config, {name: model_outputs[name] for name in _PREDICTED if name in model_outputs}
        given = {name: values.double().to(self.model.device) for name, values in found.items()}
        output = SimpleNamespace(**{**dict.fromkeys(_PREDICTED), **given})
        log_hazards = model_outputs["log_hazard"].double().reshape(-1).tolist()
        end = self.model.follow_up_years if config.gives_risks else None
        if horizon_years is None:
            within = [] if end is None else [years for years in HORIZONS_YEARS if years <= end * (1 + 1e-6)]
            horizon_years = within or ([] if end is None else [end])
        taken = [None if value is None else float(f"{value:.6g}") for value in _plain(model_outputs["covariates"][0])]
        risks = self._risks(output, horizon_years, level)
        answer = {
            "log_hazard": log_hazards[0],
            "risk": risks[0],
            "follow_up_years": end,
            "endpoint": config.endpoint_text,
            "simulated": bool(config.simulated_outcome),
            "covariates": dict(zip(config.covariate_names, taken, strict=True)),
            "flags": [*model_outputs["flags"], *self._unknown(taken)],
        }
        if config.cause_names:
            each = zip(config.cause_names, log_hazards, risks, strict=True)
            answer["causes"] = {name: {"log_hazard": score, "risk": risk} for name, score, risk in each}
        if config.endpoint_names:
            each = zip(config.endpoint_names, log_hazards, risks, strict=True)
            answer["endpoints"] = {name: {"log_hazard": score, "risk": risk} for name, score, risk in each}
        return answer | {"curve": self._curve(output, level)} if return_curve else answer

    def _risks(self, output: Any, horizons: Sequence[float], level: float) -> list[list[dict[str, float | None]]]:
        """For each risk its value and limits at each horizon."""
        if not horizons:
            return [[] for _ in self.model.config.risk_names]
        found = self.model.risks(output, horizons, level)
        columns = [[_plain(values[0, row]) for values in found] for row in range(self.model.config.num_risks)]
        names = ("years", "risk", "low", "high")
        return [[dict(zip(names, row, strict=True)) for row in zip(horizons, *each, strict=True)] for each in columns]

    def _curve(self, output: Any, level: float) -> dict[str, Any]:
        config = self.model.config
        knots = (
            torch.tensor(config.hazard_cuts[1:]) if config.hazard == "discrete" else self.model.baseline.times.cpu()
        )
        years = torch.cat([torch.zeros(1), knots])
        risk, low, high = (values[0] for values in self.model.risks(output, years, level))
        if config.cause_names:
            incidence = {name: _plain(values) for name, values in zip(config.cause_names, risk, strict=True)}
            return {"years": years.tolist(), "survival": _plain(1 - risk.sum(dim=0)), "incidence": incidence}
        limits = {"survival": 1 - risk[0], "low": 1 - high[0], "high": 1 - low[0]}
        return {"years": years.tolist()} | {name: _plain(values) for name, values in limits.items()}

    def _unknown(self, taken: Sequence[float | None]) -> list[str]:
        """A flag for each covariate that is unknown, unless the model has an indicator for its absence."""
        names = self.model.config.covariate_names
        absent = [Covariate(name).column for name, value in zip(names, taken, strict=True) if value is None]
        return [f"covariate_{name}_unknown" for name in dict.fromkeys(absent) if f"{name}?" not in names]


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without missing values (None and NaN), scalars of numpy and torch as plain ones."""
    plain = {name: value.item() if getattr(value, "ndim", None) == 0 else value for name, value in values.items()}
    return {name: value for name, value in plain.items() if not (value is None or _is_nan(value))}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _checked_horizons(horizon_years: Any) -> list[float]:
    try:
        horizons = [float(years) for years in (horizon_years if np.ndim(horizon_years) else [horizon_years])]
    except (TypeError, ValueError):
        horizons = []
    if not horizons or not all(0 < years < math.inf for years in horizons):
        raise ValueError(f"horizon_years: expected years above zero, one number or several, got {horizon_years!r}")
    return horizons


def _plain(values: torch.Tensor) -> list[float | None]:
    """Numbers, None for NaN."""
    return [None if _is_nan(value) else value for value in values.tolist()]
