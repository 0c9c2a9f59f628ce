r"""From log hazards to absolute risk: baselines, risk with limits, recalibration, competing causes.

The limits cover the baseline, which is estimated from a finite cohort, and the standard errors of log hazards where
these are known, as of a linear head on a frozen encoder. Else the log hazards are taken as known: the uncertainty of
the network, of its training sample and of its seed is not in the limits, which are too narrow for "the risk of this
patient".

Arguments are those of `survival_ecgdan`. Travels with the weights: imports only torch.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .survival_ecgdan import EventTable, at_years, cox_loss, refuse, working_dtype

ESTIMATORS = ("breslow", "kalbfleisch-prentice")
METHODS = ("baseline", "slope")


class Baseline(NamedTuple):
    """A cumulative baseline hazard in float64; the last knot is the end of follow-up."""

    times: Tensor
    """(knots,), years, ascending."""
    log_cumulative_hazard: Tensor
    """(knots,), natural logarithm."""
    standard_error: Tensor
    """(knots,), of `log_cumulative_hazard`, given the log hazards."""


class Risk(NamedTuple):
    """Probability of the event with its limits, all of one shape."""

    risk: Tensor
    low: Tensor
    high: Tensor


class Recalibration(NamedTuple):
    """A recalibration to a new population: predict with `slope * log_hazard` and `baseline`."""

    slope: float
    slope_standard_error: float
    """0 where the slope was not fitted."""
    baseline: Baseline


class _CumulativeIncidence(NamedTuple):
    """Aalen-Johansen estimate in float64; the last knot is the end of follow-up."""

    times: Tensor
    """(knots,), years, ascending."""
    incidence: Tensor
    """(causes, knots), probability that cause c + 1 has happened first by that time."""
    standard_error: Tensor
    """(causes, knots)."""

    def at(self, years: Tensor, level: float = 0.95) -> Risk:
        """Incidence at `years`, (m,), with limits on the log(-log) scale: (causes, m), NaN beyond the follow-up."""
        incidence, error = (at_years(self.times, values, years, before=0.0) for values in self[1:])
        scale = _normal_quantile(level) * error / (incidence * incidence.log().abs())
        limits = [torch.where(incidence > 0, incidence ** torch.exp(sign * scale), incidence) for sign in (1, -1)]
        return Risk(incidence, *limits)


def baseline_hazard(
    log_hazard: Tensor,
    event: Tensor,
    time: Tensor,
    estimator: str = "breslow",
    *,
    weights: Tensor | None = None,
    entry: Tensor | None = None,
) -> Baseline:
    r"""Cumulative baseline hazard with the standard error of its logarithm, given the log hazards.

    With S, D and W the sums of \(w e^\eta\) at risk, of \(w e^\eta\) among the events, and of \(w\) among the events
    of a time, the step at that time is

    * Breslow (1974): \(W / S\), of variance \(W / S^2\): Nelson-Aalen where all hazards are equal;
    * Kalbfleisch-Prentice (Biometrika 60:267, 1973): the u with
      \(\sum_{i \in D} w_i e^{\eta_i} / (1 - e^{-u e^{\eta_i}}) = S\), of variance \(W / (S (S - D))\): Kaplan-Meier
      and Greenwood where all hazards are equal. It is infinite, survival 0, where all who are at risk have the event
      at once; standard errors are NaN from there.

    `survival_curve(log_hazard, *baseline[:2], years)` takes either. Weights count subjects: for sampling weights the
    estimate holds, the standard error does not. Strata have a baseline each: call it once for each stratum. The last
    knot is the end of follow-up, event or not: beyond it nothing was observed.

    Args:
        log_hazard, event, time, weights, entry: as in `cox_loss`.
        estimator: "breslow" or "kalbfleisch-prentice".

    Raises:
        ValueError: as `cox_loss`, an unknown estimator, no event at all, or a log hazard that is not finite.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator: expected one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    table = EventTable.of(log_hazard, event, time, weights, entry)
    log_breslow = table.deaths.log() - table.log_at_risk
    if estimator == "breslow":
        log_step, log_variance = log_breslow, log_breslow - table.log_at_risk
    else:
        log_left = torch.log1p(-_share_of_deaths(table))  # log((S - D) / S)
        log_step = _kalbfleisch_prentice(table, log_breslow, log_breslow - log_left)
        log_variance = log_breslow - table.log_at_risk - log_left
    log_cumulative = torch.logcumsumexp(log_step, dim=0)
    error = torch.exp(torch.logcumsumexp(log_variance, dim=0) / 2 - log_cumulative)
    times, values = table.with_end_of_follow_up(torch.stack([log_cumulative, error]))
    return Baseline(times, *values)


def absolute_risk(
    log_hazard: Tensor,
    baseline: Baseline,
    years: Tensor,
    level: float = 0.95,
    standard_error: Tensor | None = None,
) -> Risk:
    r"""Probability of the event by each of `years`, \(1 - \exp(-H_0(t) e^{\eta})\), with limits.

    The limits are those of \(\log(-\log S(t)) = \log H_0(t) + \eta\), \(\pm z\) standard errors of the baseline and,
    where it is given, of \(\eta\). Without it the log hazards count as known.

    Args:
        log_hazard: (n,), the linear predictor, times the slope where the model was recalibrated.
        baseline: of [`baseline_hazard`] or [`recalibrate`].
        years: (m,), years since the ECG, zero or more.
        level: coverage of the limits, between 0 and 1.
        standard_error: (n,), of the log hazard relative to the average subject that the baseline was fitted to.

    Returns:
        Three of (n, m) in float32 or better; 0 before the first event, NaN beyond the end of follow-up.
    """
    dtype, quantile = working_dtype(log_hazard), _normal_quantile(level)
    log_cumulative = at_years(baseline.times, baseline.log_cumulative_hazard, years, before=-torch.inf)
    error = at_years(baseline.times, baseline.standard_error, years, before=0.0)
    if standard_error is not None:
        error = torch.hypot(error, standard_error.to(error.dtype)[:, None])
    error = quantile * error
    shifts = (torch.zeros_like(error), -error, error)
    exponents = [log_hazard.to(dtype)[:, None] + (log_cumulative + shift).to(dtype) for shift in shifts]
    return Risk(*(-torch.expm1(-torch.exp(exponent)) for exponent in exponents))


def recalibrate(
    log_hazard: Tensor,
    event: Tensor,
    time: Tensor,
    method: str = "baseline",
    *,
    estimator: str = "breslow",
    ties: str = "efron",
    weights: Tensor | None = None,
    entry: Tensor | None = None,
) -> Recalibration:
    r"""Fits a model to a new population without touching its weights (van Houwelingen, Stat Med 19:3401, 2000).

    "baseline" keeps the log hazards and refits how often the event happens; "slope" also refits their spread, the
    \(\beta\) of a Cox model on \(\beta \eta\): below 1 where the model was too sure of itself.

    Args:
        log_hazard: (n,), the model's predictions for the new cohort.
        event, time, ties, weights, entry: as in `cox_loss`.
        method: "baseline" or "slope".
        estimator: as in [`baseline_hazard`].

    Raises:
        ValueError: as [`baseline_hazard`]; for "slope", log hazards that are all alike, or that order the events
            without an error, so that no finite slope fits best.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    slope, error = 1.0, 0.0
    if method == "slope":
        sample = EventTable.of(log_hazard, event, time, weights, entry).subjects
        spread = sample.log_hazard.std(correction=0).item()
        if spread == 0:
            raise ValueError("log_hazard: expected values that differ to fit a slope, got one value for all")
        standard = (log_hazard.reshape(-1).double() - sample.log_hazard.mean()) / spread

        def loss(slope: Tensor) -> Tensor:
            return cox_loss(slope * standard, event, time, ties, weights=weights, entry=entry)

        slope, information = _minimise(loss)
        slope, error = slope / spread, (information * sample.weight[sample.event].sum().item()) ** -0.5 / spread
    baseline = baseline_hazard(slope * log_hazard.double(), event, time, estimator, weights=weights, entry=entry)
    return Recalibration(slope, error, baseline)


def aalen_johansen(
    cause: Tensor, time: Tensor, *, weights: Tensor | None = None, entry: Tensor | None = None
) -> _CumulativeIncidence:
    r"""Cumulative incidence of each cause while the others compete, without a model.

    With n at risk, d events of which \(d_c\) of cause c, and S Kaplan-Meier's survival free of every cause,
    \(F_c(t) = \sum_{t_i \le t} S(t_{i-1}) d_{ci} / n_i\) (Aalen and Johansen 1978); its variance is the delta method's
    (Marubini and Valsecchi 1995, 10.13). One minus Kaplan-Meier, which censors the others, would be too high.

    Args:
        cause: (n,), 0 = censored, 1 ... causes = what happened first.
        time, weights, entry: as in `cox_loss`; one event at least.
    """
    refuse("cause", ~((cause >= 0) & (cause == cause.long())), cause, "0 (censored), 1, 2 and so on")
    cause = cause.reshape(-1).long()
    causes = max(int(cause.max().item()), 1) if cause.numel() else 1
    table = EventTable.of(torch.zeros_like(time, dtype=torch.float64), cause > 0, time, weights, entry)
    happened = cause[table.subjects.row]
    deaths = torch.zeros(causes, len(table.times), dtype=torch.float64, device=time.device)
    at = happened > 0
    deaths.index_put_((happened[at] - 1, table.knot[at]), table.subjects.weight[at], accumulate=True)
    at_risk = table.log_at_risk.exp()
    survival = torch.cumprod((1 - table.deaths / at_risk).clamp(min=0), dim=0)
    before = torch.cat([torch.ones_like(survival[:1]), survival[:-1]])
    incidence = torch.cumsum(before * deaths / at_risk, dim=1)
    variance = _aalen_johansen_variance(incidence, deaths, table.deaths, at_risk, before)
    times, values = table.with_end_of_follow_up(torch.stack([incidence, variance.clamp(min=0).sqrt()]))
    return _CumulativeIncidence(times, *values)


def cumulative_incidence(
    log_hazards: Tensor, baselines: Sequence[Baseline] | Sequence[tuple[Tensor, Tensor]], years: Tensor
) -> Tensor:
    r"""Cumulative incidence of each cause for each subject, from cause-specific models.

    \(F_c(t) = \sum_{t_i \le t} S(t_{i-1}) (1 - e^{-h_i}) h_{ci} / h_i\), where \(h_{ci} = e^{\eta_c} \Delta
    H_{0c}(t_i)\), h is their sum over causes and \(S(t) = e^{-\sum h_i}\): the incidences and S add up to 1, and with
    one cause F is `1 - survival_curve`. Kalbfleisch-Prentice baselines give the Aalen-Johansen estimate where hazards
    are equal and no two events share a time. O(n causes knots) time.

    Args:
        log_hazards: (n, causes), as in `cause_specific_loss`.
        baselines: one for each cause, of [`baseline_hazard`] with the other causes censored.
        years: (m,), years since the ECG, zero or more.

    Returns:
        (n, causes, m) in float32 or better; NaN beyond the shortest follow-up of the baselines.
    """
    times, log_steps = _common_steps(log_hazards, baselines)
    parts = [
        at_years(times, _incidence(part.double()[:, :, None] + log_steps), years, before=0.0)
        for part in torch.split(log_hazards, max(1, 2**22 // log_steps.numel()))
    ]
    return torch.cat(parts).to(working_dtype(log_hazards))


def competing_risk(
    log_hazards: Tensor,
    baselines: Sequence[Baseline],
    years: Tensor,
    level: float = 0.95,
    standard_error: Tensor | None = None,
) -> Risk:
    r"""Cumulative incidence of each cause, as [`cumulative_incidence`], with limits.

    The variance is the delta method's: with \(v_j\) the variance of a step of the cumulative baseline hazard of cause
    j and \(D_{cj}(s) = 1[c = j] S(s) - (F_c(t) - F_c(s))\),

    \(\sum_j e^{2 \eta_j} \sum_{s \le t} v_j(s) D_{cj}(s)^2
    + \sum_j \sigma_j^2 \left( \sum_{s \le t} h_{js} D_{cj}(s) \right)^2\),

    \(\sigma_j\) the standard error of \(\eta_j\). The limits are symmetric on the log(-log) scale of 1 - F, and with
    one cause those of [`absolute_risk`].

    Args:
        log_hazards, baselines, years: as in [`cumulative_incidence`].
        level: coverage of the limits, between 0 and 1.
        standard_error: (n, causes), of the log hazards, as in [`absolute_risk`]; None counts them as known.

    Returns:
        Three of (n, causes, m) in float32 or better; limits are NaN where a baseline has no standard error.
    """
    times, log_steps = _common_steps(log_hazards, baselines)
    variances = torch.stack([_variance_steps(baseline, times) for baseline in baselines])
    errors = torch.zeros_like(log_hazards) if standard_error is None else standard_error
    found = []
    rows = max(1, 2**22 // (len(baselines) * log_steps.numel()))
    for part, error in zip(torch.split(log_hazards.double(), rows), torch.split(errors.double(), rows), strict=True):
        steps = part[:, :, None] + log_steps
        incidence = _incidence(steps)
        deviation = _incidence_error(incidence, steps.exp(), variances * part.exp()[:, :, None] ** 2, error)
        found.append(torch.stack([at_years(times, values, years, before=0.0) for values in (incidence, deviation)]))
    incidence, deviation = torch.cat(found, dim=1)
    log_free = torch.log1p(-incidence.clamp(max=1 - 1e-12))
    scale = _normal_quantile(level) * deviation / (-log_free * log_free.exp()).clamp(min=1e-300)
    limits = [torch.where(incidence == 0, 0.0, -torch.expm1(log_free * torch.exp(sign * scale))) for sign in (-1, 1)]
    return Risk(*(values.to(working_dtype(log_hazards)) for values in (incidence, *limits)))


def _common_steps(
    log_hazards: Tensor, baselines: Sequence[Baseline] | Sequence[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Times at which any of the baselines steps, and the logarithms of these steps, (causes, knots), in float64."""
    if log_hazards.ndim != 2 or log_hazards.shape[1] != len(baselines):
        shape = tuple(log_hazards.shape)
        raise ValueError(f"baselines: expected one for each column of log_hazards, got {len(baselines)} for {shape}")
    times = torch.unique(torch.cat([baseline[0] for baseline in baselines]))
    times = times[times <= min(baseline[0][-1].item() for baseline in baselines)]
    return times, torch.stack([_log_steps(baseline[0], baseline[1], times) for baseline in baselines])


def _variance_steps(baseline: Baseline, times: Tensor) -> Tensor:
    """Increase of the variance of the cumulative baseline hazard at each of `times`; its steps are independent."""
    log_error = baseline.log_cumulative_hazard.double() + baseline.standard_error.double().log()
    variance = at_years(baseline.times.double(), torch.exp(2 * log_error), times.double(), before=0.0)
    return torch.diff(variance, prepend=variance.new_zeros(1)).clamp(min=0)


def _incidence_error(incidence: Tensor, hazards: Tensor, variances: Tensor, errors: Tensor) -> Tensor:
    """Standard error of incidences (n, causes, knots), of the formula in [`competing_risk`]."""
    own = torch.eye(incidence.shape[1], dtype=incidence.dtype, device=incidence.device)[None, :, :, None]
    survival = 1 - incidence.sum(dim=1)[:, None, None]
    reach, later = own * survival + incidence[:, :, None], incidence[:, :, None]  # (n, cause, source, knots)
    steps, hazard = variances[:, None], hazards[:, None]
    baseline = (steps * reach**2).cumsum(-1) - 2 * later * (steps * reach).cumsum(-1) + later**2 * steps.cumsum(-1)
    slope = (hazard * reach).cumsum(-1) - later * hazard.cumsum(-1)
    total: Tensor = (baseline.clamp(min=0) + (slope * errors[:, None, :, None]) ** 2).sum(dim=2)
    return total.sqrt()


def _share_of_deaths(table: EventTable) -> Tensor:
    """D / S at each event time, at most 1: (knots,)."""
    sets = table.subjects
    share = sets.weight * torch.exp(sets.log_hazard - sets.log_at_risk)
    total = torch.zeros_like(table.deaths).index_add(0, table.knot[sets.event], share[sets.event])
    return torch.where(total > 1 - 1e-12, torch.ones_like(total), total)


def _kalbfleisch_prentice(table: EventTable, low: Tensor, high: Tensor) -> Tensor:
    """log of the steps u, by bisection between their bounds W / S and W / (S - D): (knots,)."""
    sets = table.subjects
    knot, log_hazard, weight = table.knot[sets.event], sets.log_hazard[sets.event], sets.weight[sets.event]
    endless = high.isinf()
    high = torch.where(endless, low, high)
    for _ in range(64):
        middle = (low + high) / 2
        x = torch.exp(middle[knot] + log_hazard)  # u e^eta
        terms = weight * torch.where(x < 1e-8, 1 + x / 2, x / -torch.expm1(-x))
        total = torch.zeros_like(middle).index_add(0, knot, terms)  # u times the left side of the equation
        too_low = total.log() > middle + table.log_at_risk
        low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
    return torch.where(endless, torch.inf, (low + high) / 2)


def _minimise(loss: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """The minimum of a convex function of one number and its second derivative there, by Newton's method.

    The second derivative is a central difference, good to some nine digits in float64.
    """

    def value_and_slope(x: float) -> tuple[float, float]:
        with torch.enable_grad():
            at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
            value = loss(at)
            return value.item(), torch.autograd.grad(value, at)[0].item()

    x, width = 0.0, 1e-4
    for _ in range(50):
        value, slope = value_and_slope(x)
        curvature = (value_and_slope(x + width)[1] - value_and_slope(x - width)[1]) / (2 * width)
        if curvature < 1e-9:
            break
        step = slope / curvature
        if abs(step) < 1e-7 * (1 + abs(x)):
            return x - step, curvature
        while abs(step) > 1e-9 and value_and_slope(x - step)[0] > value:
            step /= 2
        x -= step
    raise ValueError("log_hazard: expected a finite best slope, found none; it orders the events without an error")


def _aalen_johansen_variance(
    incidence: Tensor, deaths: Tensor, all_deaths: Tensor, at_risk: Tensor, before: Tensor
) -> Tensor:
    """The delta method's three sums over times up to each, by cumulative sums: (causes, knots)."""
    left = at_risk - all_deaths
    greenwood = torch.where(left > 1e-12 * at_risk, all_deaths / (at_risk * left), 0)  # nothing follows without any
    linear = before * deaths / at_risk**2
    square = incidence**2 * greenwood.cumsum(0) - 2 * incidence * (greenwood * incidence).cumsum(1)
    square = square + (greenwood * incidence**2).cumsum(1)
    own = (before**2 * deaths * (at_risk - deaths) / at_risk**3).cumsum(1)
    return square + own - 2 * (incidence * linear.cumsum(1) - (linear * incidence).cumsum(1))


def _log_steps(knots: Tensor, log_cumulative: Tensor, times: Tensor) -> Tensor:
    """log of the increase of a cumulative hazard at each of `times`: (times,), float64; -inf where there is none."""
    after = at_years(knots.double(), log_cumulative.double().clamp(max=700), times.double(), before=-torch.inf)
    before = torch.cat([after.new_full((1,), -torch.inf), after[:-1]])
    steps = after + torch.log(-torch.expm1(before - after))
    return torch.where(after > before, steps, -torch.inf)


def _incidence(log_hazards: Tensor) -> Tensor:
    """Incidence of each cause after each step, (n, causes, knots), from the hazards of the steps."""
    hazard = torch.logsumexp(log_hazards, dim=1, keepdim=True).exp()
    share = torch.softmax(log_hazards, dim=1).nan_to_num(nan=0.0)  # no cause has a step
    before = torch.exp(-torch.cumsum(torch.cat([torch.zeros_like(hazard[..., :1]), hazard[..., :-1]], dim=2), dim=2))
    return torch.cumsum(before * -torch.expm1(-hazard) * share, dim=2)


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level: expected a coverage between 0 and 1, got {level}")
    return float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
