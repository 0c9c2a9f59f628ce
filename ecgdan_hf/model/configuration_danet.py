"""Configuration of the disease-specific attention network (DANet, arXiv 2407.18033), and its rules.

A rule says how much each wave weighs, and in which beats. It is data, so that another disease is another rule. A
configuration carries its rule whole, never the path it was read from. The weights of the published method could not be
read; those of `WAVEFORM_RULES` are a reconstruction from the criteria of the two beats:

* atrial premature contraction (`apc`): early (RR below 0.85 of the usual one), QRS like its neighbours, the pause
  after it incomplete (RR before and after together shorter than two), P wave abnormal or hidden in the T before it.
  The P wave decides, so it weighs most.
* ventricular premature contraction (`pvc`): early, QRS unlike the others. The QRS decides.

Travels with the weights: imports only transformers, huggingface_hub and its neighbours, and yaml to read a rule.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict

from .configuration_ecgdan import EcgDanConfig
from .contract_ecgdan import STANDARD_LEADS as STANDARD_LEADS  # names every file that travels

WAVES = ("p", "qrs", "t", "baseline")

BEAT_FEATURES: dict[str, str] = {
    "rr_ratio": "RR interval before the beat over the recording's usual one, which three quarters of its RR intervals "
    "do not exceed; 1 is on time",
    "rr_pair_ratio": "RR before plus RR after the beat over twice the usual one; below 1 the pause is incomplete",
    "qrs_likeness": "correlation, -1 to 1, of 80 ms to each side of R, all leads, with the recording's median QRS",
    "qrs_seconds": "duration of the QRS complex, seconds; 0.22 at most",
    "pr_seconds": "onset of P to onset of QRS, seconds; unknown without a P wave",
}

LIMITS = ("above", "below")
MAX_SMOOTH_SECONDS = 1.0

_APC_BEAT = {"rr_ratio": {"below": 0.85}, "rr_pair_ratio": {"below": 1.0}, "qrs_likeness": {"above": 0.8}}


def _rule(name: str, weights: tuple[float, ...], beat: Mapping[str, Any], smooth: float, other: float = 0.4) -> Any:
    """The rule with these weights of `WAVES`."""
    by_wave = dict(zip(WAVES, weights, strict=True))
    return {"name": name, "wave_weights": by_wave, "beat": beat, "other_beats": other, "smooth_seconds": smooth}


WAVEFORM_RULES: dict[str, dict[str, Any]] = {
    "apc": _rule("apc", (1.0, 0.6, 0.3, 0.1), _APC_BEAT, 0.12),
    "pvc": _rule("pvc", (0.3, 1.0, 0.6, 0.1), {"rr_ratio": {"below": 0.9}, "qrs_likeness": {"below": 0.8}}, 0.05),
    # the controls: what an explanation has to beat
    "all-ones": _rule("all-ones", (1.0, 1.0, 1.0, 1.0), {}, 0.0, other=1.0),
    "wrong-wave": _rule("wrong-wave", (0.3, 0.6, 1.0, 0.1), _APC_BEAT, 0.12),
    "random": {"name": "random", "random": True, "smooth_seconds": 0.2},
}
"""Shipped rules by name: two diseases, and controls."""

_KEYS = ("name", "wave_weights", "beat", "other_beats", "smooth_seconds", "random")

DANET_CHOICES: dict[str, tuple[str, ...]] = {
    "waveform_module": ("hard", "soft", "none"),
    "classifier_network": ("ecgdan", "resnet1d"),
}


def resolve_waveform_rule(rule: str | Path | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The complete rule: a shipped one by name, one read from a YAML file, or a given one, checked and a copy.

    Args:
        rule: a name of `WAVEFORM_RULES`, the path of a `.yaml` or `.yml` file, or a mapping. Its keys:
            `name`; `wave_weights`, one number from 0 to 1 for each of `WAVES` (baseline: whatever is no wave);
            `beat`, for each of some `BEAT_FEATURES` a limit `below` or `above` or both, all of which must hold;
            `other_beats`, 0 to 1, which multiplies the weights of beats for which they do not (default 1);
            `smooth_seconds`, length of the window the weights are smoothed by (default 0.05); or, for a control,
            `random: true` in place of weights and beat.

    Returns:
        A dictionary of plain numbers with every key; None for None.

    Raises:
        FileNotFoundError: no such YAML file.
        ValueError: an unknown name, key or feature, or a number out of range; one line that names it.
    """
    if rule is None:
        return None
    if isinstance(rule, Mapping):
        return _checked_rule(rule, "waveform_rule")
    if str(rule) in WAVEFORM_RULES:
        return copy.deepcopy(WAVEFORM_RULES[str(rule)])
    if Path(rule).suffix not in (".yaml", ".yml"):
        names = ", ".join(WAVEFORM_RULES)
        raise ValueError(f"waveform_rule: expected one of {names}, a YAML file or a dictionary, got {str(rule)!r}")
    return _checked_rule(_read_yaml(Path(rule)), str(rule))


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise ImportError("DanetConfig reads rules from files with yaml: pip install pyyaml") from error
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a waveform rule in YAML")
    try:
        rule = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected YAML, found what cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(rule, Mapping):
        raise ValueError(f"{path}: expected a waveform rule with the keys {', '.join(_KEYS)}, got {rule!r}")
    return rule


def _checked_rule(rule: Mapping[str, Any], where: str) -> dict[str, Any]:
    _check_keys(rule, _KEYS, where)
    checked: dict[str, Any] = {"name": str(rule.get("name", "custom"))}
    if rule.get("random", False) not in (True, False):
        raise ValueError(f"{where}: random: expected true or false, got {rule['random']!r}")
    smooth = _number(rule.get("smooth_seconds", 0.05), 0, MAX_SMOOTH_SECONDS, f"{where}: smooth_seconds")
    if rule.get("random"):
        useless = [key for key in ("wave_weights", "beat", "other_beats") if key in rule]
        if useless:
            raise ValueError(f"{where}: random weights know no {useless[0]}; leave one of them out")
        return checked | {"random": True, "smooth_seconds": smooth}
    weights = _mapping(rule.get("wave_weights"), WAVES, f"{where}: wave_weights")
    missing = [wave for wave in WAVES if wave not in weights]
    if missing:
        raise ValueError(f"{where}: wave_weights: expected {', '.join(WAVES)}, {missing[0]} is missing")
    return checked | {
        "wave_weights": {wave: _number(weights[wave], 0, 1, f"{where}: wave_weights: {wave}") for wave in WAVES},
        "beat": _checked_conditions(rule.get("beat") or {}, f"{where}: beat"),
        "other_beats": _number(rule.get("other_beats", 1.0), 0, 1, f"{where}: other_beats"),
        "smooth_seconds": smooth,
    }


def _checked_conditions(beat: Any, where: str) -> dict[str, dict[str, float]]:
    conditions = {}
    for feature, limits in _mapping(beat, tuple(BEAT_FEATURES), where).items():
        limits = _mapping(limits, LIMITS, f"{where}: {feature}")
        if not limits:
            raise ValueError(f"{where}: {feature}: expected a limit, below or above, got none")
        conditions[feature] = {
            side: _number(value, -10, 10, f"{where}: {feature}: {side}") for side, value in limits.items()
        }
    return conditions


def _mapping(value: Any, keys: tuple[str, ...], where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected a dictionary with keys among {', '.join(keys)}, got {value!r}")
    _check_keys(value, keys, where)
    return value


def _check_keys(value: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown = sorted(str(key) for key in value if key not in keys)
    if unknown:
        raise ValueError(f"{where}: expected keys among {', '.join(keys)}, got {unknown[0]}")


def _number(value: Any, low: float, high: float, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{where}: expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


@strict
class DanetConfig(EcgDanConfig):
    r"""Configuration of [`DanetForPreTraining`] and [`DanetForSequenceClassification`].

    An [`EcgDanConfig`] with other defaults (light trunk, 10 s of rhythm) and a waveform-enhanced module in front.

    Args:
        waveform_module: `"hard"`: the feature extractor weighs the waves by `waveform_rule`, and the network sees
            a(t) x(t); `"soft"`: a small U-Net predicts a(t) in (0, 1), and the network sees (1 + a(t)) x(t); `"none"`:
            the network sees the ECG.
        waveform_rule: see [`resolve_waveform_rule`]. Resolved at once to the whole rule. The soft module's rule is
            the one whose weights it was pretrained on.
        classifier_network: `"ecgdan"`, the dual attention network of this configuration, or `"resnet1d"`, a plain
            one-dimensional residual network over all leads.
        waveform_channels: widths of the U-Net on its way down, each at half the rate of the one before; two or more.
        waveform_kernel: samples of the kernels that halve time, an odd number.
        use_attention_evidence: soft module: add to the logit of the rule's label how sure the module is of its
            strongest wave. Not in the paper.
        waveform_weight: weight of the loss of a(t), in pretraining and with the labels; `reconstruction_weight`
            is that of masked reconstruction (0 builds no head for it).
        positive_weights: for some labels, by name, what the loss of a positive record is multiplied by; a label not
            named has 1. For labels that few records have.

    Raises:
        FileNotFoundError: `waveform_rule` is a file that is not there.
        ValueError: a value outside its choices, a rule that cannot be used, or lengths that do not fit the network.
    """

    model_type = "danet"

    trunk: str = "light"
    input_kind: str = "rhythm"
    waveform_module: str = "soft"
    waveform_rule: str | dict[str, Any] | None = "apc"
    classifier_network: str = "ecgdan"
    waveform_channels: list[int] | tuple[int, ...] = (16, 24, 32, 48, 64)
    waveform_kernel: int = 9
    use_attention_evidence: bool = True
    waveform_weight: float | int = 1.0
    positive_weights: dict[str, float | int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.waveform_rule = resolve_waveform_rule(self.waveform_rule)
        self.waveform_channels = list(self.waveform_channels)
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Raises for values that the network, its waveform module or its loss cannot be built from."""
        super().check()
        for name, choices in DANET_CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.waveform_module == "hard" and (self.waveform_rule is None or self.input_kind != "rhythm"):
            got = f"waveform_rule={self.waveform_rule!r} and input_kind={self.input_kind!r}"
            raise ValueError(f"waveform_module='hard': expected a waveform_rule and input_kind='rhythm', got {got}")
        if len(self.waveform_channels) < 2 or min(self.waveform_channels) < 1:
            raise ValueError(f"waveform_channels: expected two positive widths or more, got {self.waveform_channels}")
        if self.waveform_kernel < 1 or not self.waveform_kernel % 2:
            raise ValueError(f"waveform_kernel: expected an odd number of samples, got {self.waveform_kernel}")
        if self.waveform_weight < 0:
            raise ValueError(f"waveform_weight: expected no negative weight, got {self.waveform_weight}")
        for label, weight in (self.positive_weights or {}).items():
            if not weight > 0:
                raise ValueError(f"positive_weights: {label}: expected a positive number, got {weight}")

    @property
    def signal_contract(self) -> dict[str, Any]:
        """The contract of the input; includes the rule where the feature extractor computes its weights."""
        contract = super().signal_contract
        return contract | {"waveform_rule": self.waveform_rule} if self.waveform_module == "hard" else contract
