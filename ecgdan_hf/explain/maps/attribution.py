"""One record's map by any method, in the form the page draws: a value per sample and per lead, and what they are."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ecgdan_hf.explain.maps.attention import attention_rollup, sample_attention
from ecgdan_hf.explain.maps.deletion import tokens_of_samples
from ecgdan_hf.explain.maps.gradients import gradient_times_input, integrated_gradients
from ecgdan_hf.explain.maps.methods import methods_of
from ecgdan_hf.explain.maps.occlusion import occlude_leads, occlude_time, occlude_waves, waves_of
from ecgdan_hf.explain.maps.scores import Inputs, label_column, output_of, score_of
from ecgdan_hf.inference.heads import head_of

FloatArray = npt.NDArray[np.float64]

WINDOW_SECONDS = 0.1  # over which gradients are summed to be drawn: a QRS complex; one sample alone says little


@dataclass(frozen=True)
class Attribution:
    """One record's map.

    Attributes:
        method: of `METHODS`.
        score: what is explained, in words.
        samples: (leads, samples of the signal without padding).
        leads: (leads,), NaN for absent leads.
        signed: values are changes of the score, which may be negative; else shares of attention.
        waves: change of the score without all P waves, QRS complexes, T waves; occlusion alone.
        note: what the colours are, one sentence.
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
    """The map of one record.

    Args:
        model: any model of the package.
        inputs: of one record, (1, ...), on the model's device.
        method: "rollup", "gradient", "integrated-gradients" or "occlusion"; attention is drawn by `explain_page`.
        label: whose logit is explained; by default the label predicted first.
        heart_rate_bpm: of the record, for the waves of a median beat.

    Raises:
        ValueError: a method that this network has nothing for, a label there is not, or integrated gradients that do
            not become complete.
    """
    if method not in methods_of(model) or method in ("attention", "waveform"):
        known = ", ".join(name for name in methods_of(model) if name not in ("attention", "waveform"))
        raise ValueError(f"method: expected one of {known} for a map of this network, got {method!r}")
    score, name = score_of(model, inputs, label), score_name(model, inputs, label)
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
    note = (
        f"Colour: {means}, summed over {1000 * WINDOW_SECONDS:.0f} ms; orange speaks for a higher score, blue against."
    )
    leads = np.where(mask, samples.sum(axis=1), np.nan)
    return Attribution(method, name, _cut(_windowed(samples, model.config), model.config), leads, True, note)


def score_name(model: Any, inputs: Inputs, label: str | None = None) -> str:
    """What [`score_of`] explains, in words."""
    head = head_of(model)
    if head.is_classifier:
        return f"logit of {model.config.id2label[int(label_column(model, inputs, label)[0])]}"
    return "log hazard" if head.is_survival else "length of the embedding"


@torch.no_grad()
def _rollup(model: Any, inputs: Inputs, mask: npt.NDArray[np.bool_], name: str) -> Attribution:
    output = output_of(model, inputs, output_attentions=True)
    maps = (found.float().cpu().numpy()[0] for found in (output.lead_attention, output.time_attention))
    shares = attention_rollup(*maps, mask, model.config.attention_order)
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
    width = max(1, round(WINDOW_SECONDS * float(config.sampling_rate)))
    return np.stack([np.convolve(row, np.ones(width), mode="same") for row in samples])


def _cut(samples: FloatArray, config: Any) -> FloatArray:
    """Without the zero padding."""
    pad = config.pad_samples or 0
    return samples[:, pad : samples.shape[1] - pad]
