"""Every method's map in one form: how much each lead, and each moment, of each record is said to matter.

What `sanity` deletes in the order of, what `randomisation` compares, and what the page draws.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ecgdan_hf.explain.maps.attention import attention_rollup
from ecgdan_hf.explain.maps.deletion import lead_importance, time_importance, tokens_of_samples
from ecgdan_hf.explain.maps.gradients import gradient_times_input, integrated_gradients
from ecgdan_hf.explain.maps.occlusion import occlude_leads, occlude_time
from ecgdan_hf.explain.maps.scores import Inputs, Score, output_of
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
STEPS = 32  # of integrated gradients, where many records are explained


@dataclass(frozen=True)
class Maps:
    """What a method says of N records.

    Attributes:
        leads: (N, L), NaN for absent leads; None for a method that tells no leads apart.
        time: (N, T'), for each time token.
        incompleteness: (N,), of integrated gradients alone, see [`Integrated`].
    """

    leads: FloatArray | None = None
    time: FloatArray | None = None
    incompleteness: FloatArray | None = None

    def units(self) -> dict[str, FloatArray]:
        """`leads` and `time`, those there are."""
        return {name: found for name in ("leads", "time") if (found := getattr(self, name)) is not None}


def methods_of(model: Any) -> list[str]:
    """The methods that have something to show for this network, in the order of `METHODS`."""
    config = model.config
    waveform = head_of(model).is_classifier and getattr(config, "waveform_module", "none") != "none"
    attends = getattr(config, "classifier_network", "ecgdan") == "ecgdan"
    lead, time = (attends and getattr(config, name, False) for name in ("use_lead_attention", "use_time_attention"))
    there = {"attention": lead or time, "rollup": lead and time, "waveform": waveform}
    return [method for method in METHODS if there.get(method, True)]


def maps_of(method: str, model: Any, inputs: Inputs, score: Score, steps: int = STEPS) -> Maps:
    """One method's maps of these records.

    Gradients are summed over the samples of a lead, or of a moment in all leads: the change they claim for it. They
    may be negative, and so may occlusion.

    Args:
        method: of `METHODS`.
        model: any model of the package.
        inputs: (N, ...), on the model's device.
        score: of [`score_of`], for the same inputs.
        steps: of integrated gradients.

    Raises:
        ValueError: a method there is not, or one that this network has nothing for.
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
    return Maps(np.where(mask, attribution.sum(axis=2), np.nan), token_sums(attribution.sum(axis=1), config))


def token_sums(samples: FloatArray, config: Any) -> FloatArray:
    """(..., T) -> (..., T'), summed over the samples nearest to each token's centre."""
    token = tokens_of_samples(samples.shape[-1], config.num_tokens, config.token_stride)
    return np.add.reduceat(samples, np.searchsorted(token, np.arange(config.num_tokens)), axis=-1)


@torch.no_grad()
def _of_forward_pass(method: str, model: Any, inputs: Inputs, mask: npt.NDArray[np.bool_]) -> Maps:
    output = output_of(model, inputs, output_attentions=True)
    if method == "waveform":
        weights = output.waveform_attention.double().cpu().numpy()
        return Maps(time=token_sums(weights, model.config) / token_sums(np.ones_like(weights), model.config))
    lead, time = (
        None if found is None else found.float().cpu().numpy()
        for found in (output.lead_attention, output.time_attention)
    )
    if method == "rollup":
        shares = attention_rollup(lead, time, mask, model.config.attention_order)
        return Maps(np.where(mask, shares.sum(axis=2), np.nan), shares.sum(axis=1))
    return Maps(
        None if lead is None else lead_importance(lead, mask), None if time is None else time_importance(time, mask)
    )
