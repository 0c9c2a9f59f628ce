"""Every attribution method in one form: how much each lead and each moment of a record matters.

[`maps_of`] serves the sanity checks, for many records; [`attribute`] serves the page, for one.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ecgdan_hf.explain.maps.attention import attention_rollup, sample_attention
from ecgdan_hf.explain.maps.gradients import gradient_times_input, integrated_gradients
from ecgdan_hf.explain.maps.occlusion import occlude_leads, occlude_time, occlude_waves, tokens_of_samples, waves_of
from ecgdan_hf.explain.maps.scores import Inputs, Score, label_column, output_of, score_of
from ecgdan_hf.inference.heads import head_of

FloatArray = npt.NDArray[np.float64]

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


@dataclass(frozen=True)
class Maps:
    """Maps of N records by one method.

    Attributes:
        leads: (N, L), NaN for absent leads; None for a method that does not distinguish leads.
        time: (N, T'), for each time token.
        incompleteness: (N,), only of integrated gradients, see [`Integrated`].
    """

    leads: FloatArray | None = None
    time: FloatArray | None = None
    incompleteness: FloatArray | None = None

    def units(self) -> dict[str, FloatArray]:
        """Returns `leads` and `time`, without those that are None."""
        return {name: found for name in ("leads", "time") if (found := getattr(self, name)) is not None}


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
        return Maps(occlude_leads(score, inputs), occlude_time(score, inputs, config.num_tokens, config.token_stride))
    if method == "gradient":
        return _summed(gradient_times_input(score, inputs), mask, config)
    found = integrated_gradients(score, inputs, tolerance=None, max_steps=steps)
    return replace(_summed(found.attribution, mask, config), incompleteness=found.incompleteness)


def _summed(attribution: FloatArray, mask: npt.NDArray[np.bool_], config: Any) -> Maps:
    return Maps(np.where(mask, attribution.sum(axis=2), np.nan), _token_sums(attribution.sum(axis=1), config))


def _token_sums(samples: FloatArray, config: Any) -> FloatArray:
    """(..., T) -> (..., T'), summed over the samples nearest to each token's centre."""
    token = tokens_of_samples(samples.shape[-1], config.num_tokens, config.token_stride)
    return np.add.reduceat(samples, np.searchsorted(token, np.arange(config.num_tokens)), axis=-1)


@torch.no_grad()
def _of_forward_pass(method: str, model: Any, inputs: Inputs, mask: npt.NDArray[np.bool_]) -> Maps:
    output = output_of(model, inputs, output_attentions=True)
    if method == "waveform":
        weights = output.waveform_attention.double().cpu().numpy()
        return Maps(time=_token_sums(weights, model.config) / _token_sums(np.ones_like(weights), model.config))
    lead, time = (_array(found) for found in (output.lead_attention, output.time_attention))
    if method == "rollup" and lead is not None and time is not None:
        shares = attention_rollup(lead, time, mask, model.config.attention_order)
        return Maps(np.where(mask, shares.sum(axis=2), np.nan), shares.sum(axis=1))
    return Maps(
        None if lead is None else _lead_importance(lead, mask), None if time is None else _time_importance(time, mask)
    )


def _array(found: torch.Tensor | None) -> npt.NDArray[np.float32] | None:
    return None if found is None else found.float().cpu().numpy()


def _lead_importance(lead_attention: npt.ArrayLike, lead_mask: npt.ArrayLike) -> FloatArray:
    """Attention that each lead receives: (N, L, L) -> (N, L), mean over the rows of present leads, NaN where absent.

    Args:
        lead_attention: (N, L, L), rows sum to 1.
        lead_mask: (N, L), True where the lead was recorded.
    """
    mask = np.asarray(lead_mask, dtype=bool)
    received = np.where(mask[:, :, None], np.asarray(lead_attention, dtype=np.float64), 0).sum(axis=1)
    return np.where(mask, received / np.maximum(mask.sum(axis=1, keepdims=True), 1), np.nan)


def _time_importance(time_attention: npt.ArrayLike, lead_mask: npt.ArrayLike) -> FloatArray:
    """Attention that each time token receives: (N, L, T', T') -> (N, T'), mean over queries and present leads.

    Args:
        time_attention: (N, L, T', T'), rows sum to 1.
        lead_mask: (N, L).
    """
    mask = np.asarray(lead_mask, dtype=bool)[:, :, None]
    received = np.asarray(time_attention, dtype=np.float64).mean(axis=2)
    return np.asarray(np.where(mask, received, 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1))


@dataclass(frozen=True)
class Attribution:
    """One record's map.

    Attributes:
        method: of `METHODS`.
        score: name of the explained score.
        samples: (leads, samples of the signal without padding).
        leads: (leads,), NaN for absent leads.
        signed: True for changes of the score, which may be negative; False for shares of attention.
        waves: change of the score without all P waves, QRS complexes, T waves; occlusion alone.
        note: one sentence that explains the colours.
    """

    method: str
    score: str
    samples: FloatArray
    leads: FloatArray
    signed: bool
    note: str
    waves: dict[str, float] = field(default_factory=dict)


def attribute(
    model: Any, inputs: Inputs, method: str, label: str | None = None, heart_rate_bpm: float = 60.0
) -> Attribution:
    """Computes the map of one record in the form that the page draws.

    Args:
        model: any model of the package.
        inputs: of one record, (1, ...), on the model's device.
        method: "rollup", "gradient", "integrated-gradients" or "occlusion"; attention is drawn by `explain_page`.
        label: whose logit is explained; default: the most probable label.
        heart_rate_bpm: of the record, for the waves of a median beat.

    Raises:
        ValueError: a method that does not apply to this network, an unknown label, or integrated gradients that do
            not become complete.
    """
    if method not in methods_of(model) or method in ("attention", "waveform"):
        known = ", ".join(name for name in methods_of(model) if name not in ("attention", "waveform"))
        raise ValueError(f"method: expected one of {known} for a map of this network, got {method!r}")
    score, name = score_of(model, inputs, label), _score_name(model, inputs, label)
    mask = inputs["lead_mask"][0].bool().cpu().numpy()
    if method == "rollup":
        return _rollup(model, inputs, mask, name)
    if method == "occlusion":
        return _occlusion(model, inputs, score, mask, name, heart_rate_bpm)
    if method == "gradient":
        samples, means = gradient_times_input(score, inputs)[0], "gradient x input"
    else:
        found = integrated_gradients(score, inputs)
        samples = found.attribution[0]
        means = (
            f"integrated gradients from a flat line ({found.steps} steps): all leads together sum to "
            f"{samples.sum():+.2f} of a change of {found.change[0]:+.2f}"
        )
    note = f"Colour: {means}, summed over {1000 * _WINDOW_SECONDS:.0f} ms; "
    note += "orange speaks for a higher score, blue against."
    leads = np.where(mask, samples.sum(axis=1), np.nan)
    return Attribution(method, name, _cut(_windowed(samples, model.config), model.config), leads, True, note)


def _score_name(model: Any, inputs: Inputs, label: str | None = None) -> str:
    """What [`score_of`] explains, in words."""
    head = head_of(model)
    if head.is_classifier:
        return f"logit of {model.config.id2label[int(label_column(model, inputs, label)[0])]}"
    return "log hazard" if head.is_survival else "length of the embedding"


@torch.no_grad()
def _rollup(model: Any, inputs: Inputs, mask: npt.NDArray[np.bool_], name: str) -> Attribution:
    output = output_of(model, inputs, output_attentions=True)
    lead, time = (found.float().cpu().numpy()[0] for found in (output.lead_attention, output.time_attention))
    shares = attention_rollup(lead, time, mask, model.config.attention_order)
    samples = sample_attention(shares * mask.sum(), model.config)
    note = "Colour and width: attention rollout, spread over the receptive field of each time token; 1 is even."
    return Attribution("rollup", name, samples, np.where(mask, shares.sum(axis=1), np.nan), False, note)


def _occlusion(
    model: Any, inputs: Inputs, score: Any, mask: npt.NDArray[np.bool_], name: str, heart_rate_bpm: float
) -> Attribution:
    config, values = model.config, inputs["input_values"]
    by_token = occlude_time(score, inputs, config.num_tokens, config.token_stride)[0]
    token = tokens_of_samples(values.shape[2], config.num_tokens, config.token_stride)
    samples = np.tile(by_token[token], (values.shape[1], 1))
    waves = occlude_waves(score, inputs, {k: v[None] for k, v in waves_of(config, inputs, heart_rate_bpm)[0].items()})
    milliseconds = 1000 * config.token_stride / config.sampling_rate
    note = (
        f"Colour: change of the score when {milliseconds:.0f} ms are bridged in all leads at once, so that all leads "
        "have the same; orange: it spoke for a higher score, blue: against."
    )
    found = {wave: float(change[0]) for wave, change in waves.items()}
    return Attribution("occlusion", name, _cut(samples, config), occlude_leads(score, inputs)[0], True, note, found)


def _windowed(samples: FloatArray, config: Any) -> FloatArray:
    """(L, T) summed over a window around each sample."""
    width = max(1, round(_WINDOW_SECONDS * float(config.sampling_rate)))
    return np.stack([np.convolve(row, np.ones(width), mode="same") for row in samples])


def _cut(samples: FloatArray, config: Any) -> FloatArray:
    """Without the zero padding."""
    pad = config.pad_samples or 0
    return samples[:, pad : samples.shape[1] - pad]
