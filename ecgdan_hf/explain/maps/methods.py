"""Every attribution method in one form: how much each lead and each moment of a record matters.

[`maps_of`] serves the sanity checks, for many records; [`Attribution`] serves the page, for one.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ecgdan_hf.explain.maps.attention import attention_rollup, sample_attention
from ecgdan_hf.explain.maps.gradients import gradient_times_input, integrated_gradients
from ecgdan_hf.explain.maps.occlusion import occlude_leads, occlude_time, occlude_waves, tokens_of_samples, waves_of
from ecgdan_hf.explain.maps.scores import Inputs, Score, output_of, score_of
from ecgdan_hf.inference.heads import head_of

FloatArray = npt.NDArray[np.float64]
Maps = dict[str, FloatArray]

METHODS = {
    "attention": "attention received",
    "rollup": "attention rollout over both maps",
    "waveform": "a(t) of the waveform module",
    "gradient": "gradient x input",
    "integrated-gradients": "integrated gradients from the flat line",
    "occlusion": "change of the score without the lead or the moment",
}
_STEPS = 32  # of integrated gradients, where many records are explained
_WINDOW_SECONDS = 0.1  # over which gradients are summed to be drawn: a QRS complex; one sample alone says little


def methods_of(model: Any) -> list[str]:
    """Returns the methods that apply to this network, in the order of `METHODS`."""
    config = model.config
    waveform = head_of(model).is_classifier and getattr(config, "waveform_module", "none") != "none"
    attends = getattr(config, "classifier_network", "ecgdan") == "ecgdan"
    lead, time = (attends and getattr(config, name, False) for name in ("use_lead_attention", "use_time_attention"))
    there = {"attention": lead or time, "rollup": lead and time, "waveform": waveform}
    return [method for method in METHODS if there.get(method, True)]


def maps_of(method: str, model: Any, inputs: Inputs, score: Score, steps: int = _STEPS) -> Maps:
    """Computes one method's maps of these records.

    Gradients are summed over the samples of a lead, or over a moment in all leads. They may be negative, as may
    occlusion.

    Args:
        method: of `METHODS`.
        model: any model of the package.
        inputs: (N, ...), on the model's device.
        score: of [`score_of`], for the same inputs.
        steps: of integrated gradients.

    Returns:
        `leads` (N, L), NaN for absent leads, and `time` (N, T'), one value a time token; without what the method does
        not distinguish.

    Raises:
        ValueError: an unknown method, or one that does not apply to this network.
    """
    if method not in methods_of(model):
        known = ", ".join(methods_of(model))
        raise ValueError(f"method: expected one of {known} for this network, got {method!r}")
    config = model.config
    mask = inputs["lead_mask"].bool().cpu().numpy()
    if method in ("attention", "rollup", "waveform"):
        return _of_forward_pass(method, model, inputs, mask)
    if method == "occlusion":
        moments = occlude_time(score, inputs, config.num_tokens, config.token_stride)
        return {"leads": occlude_leads(score, inputs), "time": moments}
    if method == "gradient":
        found = gradient_times_input(score, inputs)
    else:
        found = integrated_gradients(score, inputs, tolerance=None, max_steps=steps).attribution
    return {"leads": np.where(mask, found.sum(axis=2), np.nan), "time": _token_sums(found.sum(axis=1), config)}


def _token_sums(samples: FloatArray, config: Any) -> FloatArray:
    """(..., T) -> (..., T'), summed over the samples nearest to each token's centre."""
    token = tokens_of_samples(samples.shape[-1], config.num_tokens, config.token_stride)
    return np.add.reduceat(samples, np.searchsorted(token, np.arange(config.num_tokens)), axis=-1)


@torch.no_grad()
def _of_forward_pass(method: str, model: Any, inputs: Inputs, mask: npt.NDArray[np.bool_]) -> Maps:
    output = output_of(model, inputs, output_attentions=True)
    if method == "waveform":
        weights = output.waveform_attention.double().cpu().numpy()
        return {"time": _token_sums(weights, model.config) / _token_sums(np.ones_like(weights), model.config)}
    attention = {"leads": output.lead_attention, "time": output.time_attention}
    found = {unit: values.float().cpu().numpy() for unit, values in attention.items() if values is not None}
    if method == "rollup":
        shares = attention_rollup(found["leads"], found["time"], mask, model.config.attention_order)
        return {"leads": np.where(mask, shares.sum(axis=2), np.nan), "time": shares.sum(axis=1)}
    received = {"leads": _lead_importance, "time": _time_importance}
    return {unit: received[unit](values, mask) for unit, values in found.items()}


def _lead_importance(lead_attention: npt.ArrayLike, lead_mask: npt.ArrayLike) -> FloatArray:
    """Attention that each lead receives: (N, L, L) -> (N, L), mean over present rows, NaN where absent."""
    mask = np.asarray(lead_mask, dtype=bool)
    received = np.where(mask[:, :, None], np.asarray(lead_attention, dtype=np.float64), 0).sum(axis=1)
    return np.where(mask, received / np.maximum(mask.sum(axis=1, keepdims=True), 1), np.nan)


def _time_importance(time_attention: npt.ArrayLike, lead_mask: npt.ArrayLike) -> FloatArray:
    """Attention that each time token receives: (N, L, T', T') -> (N, T'), mean over queries and present leads."""
    mask = np.asarray(lead_mask, dtype=bool)[:, :, None]
    received = np.asarray(time_attention, dtype=np.float64).mean(axis=2)
    return np.asarray(np.where(mask, received, 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1))


@dataclass(frozen=True)
class Attribution:
    """One record's map."""

    method: str  # of `METHODS`
    score: str  # name of the explained score
    samples: FloatArray  # (leads, samples of the signal without padding)
    leads: FloatArray  # (leads,), NaN for absent leads
    signed: bool  # True for changes of the score, which may be negative; False for shares of attention
    note: str  # one sentence that explains the colours
    waves: dict[str, float] = field(default_factory=dict)  # change without all P, QRS or T waves; occlusion alone

    @classmethod
    def of(cls, model: Any, inputs: Inputs, method: str, label: str | None = None) -> "Attribution":
        """Computes the map of one record, inputs (1, ...), in the form that the page draws.

        Raises:
            ValueError: a method that does not apply to this network, attention (which `explain_page` draws), an
                unknown label, or integrated gradients that do not become complete.
        """
        drawn = [name for name in methods_of(model) if name not in ("attention", "waveform")]
        if method not in drawn:
            raise ValueError(f"method: expected one of {', '.join(drawn)} for a map of this network, got {method!r}")
        score, mask = score_of(model, inputs, label), inputs["lead_mask"][0].bool().cpu().numpy()
        if method == "rollup":
            return _rollup(model, inputs, mask, score.name)
        if method == "occlusion":
            return _occlusion(model, inputs, score, score.name)
        samples, means = _gradients(method, score, inputs)
        note = f"Colour: {means}, summed over {1000 * _WINDOW_SECONDS:.0f} ms; "
        note += "orange speaks for a higher score, blue against."
        leads = np.where(mask, samples.sum(axis=1), np.nan)
        width = max(1, round(_WINDOW_SECONDS * float(model.config.sampling_rate)))
        summed = np.stack([np.convolve(row, np.ones(width), mode="same") for row in samples])
        return cls(method, score.name, _without_padding(summed, model.config), leads, True, note)


def _gradients(method: str, score: Score, inputs: Inputs) -> tuple[FloatArray, str]:
    """Map of one record, (L, T), and what it is in words."""
    if method == "gradient":
        return gradient_times_input(score, inputs)[0], "gradient x input"
    found = integrated_gradients(score, inputs)
    total, change = found.attribution[0].sum(), found.change[0]
    means = f"integrated gradients from a flat line ({found.steps} steps): all leads together sum to "
    return found.attribution[0], f"{means}{total:+.2f} of a change of {change:+.2f}"


@torch.no_grad()
def _rollup(model: Any, inputs: Inputs, mask: npt.NDArray[np.bool_], name: str) -> Attribution:
    output = output_of(model, inputs, output_attentions=True)
    lead, time = (found.float().cpu().numpy()[0] for found in (output.lead_attention, output.time_attention))
    shares = attention_rollup(lead, time, mask, model.config.attention_order)
    samples = sample_attention(shares * mask.sum(), model.config)
    note = "Colour and width: attention rollout, spread over the receptive field of each time token; 1 is even."
    return Attribution("rollup", name, samples, np.where(mask, shares.sum(axis=1), np.nan), False, note)


def _occlusion(model: Any, inputs: Inputs, score: Score, name: str) -> Attribution:
    config, values = model.config, inputs["input_values"]
    by_token = occlude_time(score, inputs, config.num_tokens, config.token_stride)[0]
    token = tokens_of_samples(values.shape[2], config.num_tokens, config.token_stride)
    samples = np.tile(by_token[token], (values.shape[1], 1))
    waves = occlude_waves(score, inputs, {k: v[None] for k, v in waves_of(config, inputs)[0].items()})
    milliseconds = 1000 * config.token_stride / config.sampling_rate
    note = (
        f"Colour: change of the score when {milliseconds:.0f} ms are bridged in all leads at once, so that all leads "
        "have the same; orange: it spoke for a higher score, blue: against."
    )
    found = {wave: float(change[0]) for wave, change in waves.items()}
    return Attribution(
        "occlusion", name, _without_padding(samples, config), occlude_leads(score, inputs)[0], True, note, found
    )


def _without_padding(samples: FloatArray, config: Any) -> FloatArray:
    pad = config.pad_samples or 0
    return samples[:, pad : samples.shape[1] - pad]
