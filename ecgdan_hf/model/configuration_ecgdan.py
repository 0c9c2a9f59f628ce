"""Configurations of the dual attention ECG networks (ECG-DAN, arXiv 2403.10581).

A configuration carries two things: the switches of the network, and the physical contract of its input (leads,
sampling rate, unit, filter, scaling), so that a checkpoint says by itself what it must be fed. It validates itself.

Travels with the weights: imports only transformers, huggingface_hub and a neighbour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils import logging

from .contract_ecgdan import CHOICES as CHOICES
from .contract_ecgdan import DEFAULT_FILTER as DEFAULT_FILTER
from .contract_ecgdan import STANDARD_LEADS as STANDARD_LEADS
from .contract_ecgdan import check_windows, endpoint_text, thresholds_hold

logger = logging.get_logger(__name__)

_FROM_TRUNK: Any = None
if TYPE_CHECKING:  # what may be left out, and is never None once `__post_init__` has filled it in
    _Int = int
    _Float = float
    _Ints = Sequence[int]
    _Filter = dict[str, float | None]
else:
    _Int, _Float, _Ints = int | None, float | int | None, list[int] | tuple[int, ...] | None
    _Filter = dict[str, float | int | None] | None

ECGDAN_VERSION = "0.1.0"

WRITTEN_BESIDE = ("auto_map", "custom_pipelines", "ecgdan_code_revision", "quantization_config", "use_cache")
"""Fields that bundles and transformers add to a saved configuration; `Trainer` sets `use_cache` on every model."""

ENCODER_FIELDS = ("pooler_output", "lead_attention", "time_attention", "hidden_states")
"""Fields of the encoder's output that every head passes on."""

SIGNAL_FIELDS = (
    *("lead_names", "used_leads", "page_layout", "sampling_rate", "num_samples", "pad_samples", "input_kind"),
    *("unit", "filter", "normalization", "global_mean_mv", "global_std_mv"),
)

INPUT_DEFAULTS: dict[tuple[str, str], dict[str, int]] = {
    ("paper", "median_beat"): {"sampling_rate": 500, "num_samples": 608, "pad_samples": 4},
    ("paper", "rhythm"): {"sampling_rate": 100, "num_samples": 1024, "pad_samples": 12},
    ("light", "median_beat"): {"sampling_rate": 500, "num_samples": 608, "pad_samples": 4},
    ("light", "rhythm"): {"sampling_rate": 100, "num_samples": 1008, "pad_samples": 4},
}

TRUNK_DEFAULTS: dict[str, dict[str, Any]] = {
    "paper": {
        "stem_features": 4,
        "trunk_channels": (8, 16, 16, 16, 16),
        "num_attention_heads": 8,
        "mlp_ratio": 4,
        "mlp_dropout": 0.2,
        "hidden_size": 512,
        "attention_order": "parallel",
        "classifier_hidden_size": 0,
    },
    "light": {
        "stem_features": 16,
        "trunk_channels": (16, 32, 48),
        "num_attention_heads": 4,
        "mlp_ratio": 2,
        "mlp_dropout": 0.0,
        "hidden_size": 256,
        "attention_order": "sequential",
        "classifier_hidden_size": 128,
    },
}


class VersionedConfig(PreTrainedConfig):
    """A configuration that knows which version of the package wrote it."""

    def __post_init__(self, **kwargs: Any) -> None:
        # Inside the package its own pipelines serve a bundle: transformers would ask to trust the bundle's, and prefer
        # them.
        if not __name__.startswith("transformers_modules."):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; says where the configuration comes from another version of the package."""
        cls.say_what_differs(config_dict)
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As in transformers; whatever version it was read from, it is written by this one."""
        return super().to_dict() | {"ecgdan_version": ECGDAN_VERSION}

    @classmethod
    def say_what_differs(cls, saved: Mapping[str, Any]) -> None:
        """Warns, once, where a saved configuration is not as this version of the package would have written it.

        Without `transformers_version` it was not saved but written by hand, and nothing is said.
        """
        if "transformers_version" not in saved:
            return
        version, said = saved.get("ecgdan_version"), []
        inherited = {each.name for each in fields(PreTrainedConfig)}
        lacking = {each.name: each.default for each in fields(cls) if each.name not in {*inherited, *saved}}
        beside = tuple(name for name in saved if name.startswith("_") or name in WRITTEN_BESIDE)
        unknown = [name for name in saved if not hasattr(cls, name) and name not in beside]
        if version != ECGDAN_VERSION:
            code = f" (code {saved['ecgdan_code_revision']})" if "ecgdan_code_revision" in saved else ""
            writer = f"{version or 'of an unnamed version'}{code}"
            said.append(f"was written by ecgdan-hf {writer}, this is {ECGDAN_VERSION}")
        if unknown:
            said.append(f"has fields unknown here, which are ignored: {', '.join(sorted(unknown))}")
        if lacking:
            defaults = (name if value is None else f"{name} ({value})" for name, value in sorted(lacking.items()))
            said.append(f"lacks fields, which take their defaults: {', '.join(defaults)}")
        advice = "Check the names in config.json, or save the checkpoint again."
        if version not in (None, ECGDAN_VERSION):
            advice = f"Should it not do as published: pip install ecgdan-hf=={version}, or its own code by "
            advice += "trust_remote_code=True where ecgdan_hf is not imported."
        if said:
            logger.warning_once(f"The {cls.model_type} checkpoint {'; it '.join(said)}. {advice}")


@strict
class EcgDanConfig(VersionedConfig):
    r"""Configuration of [`EcgDanModel`] and of its pretraining and classification heads.

    Args:
        lead_names: leads in input order; by default the twelve of `STANDARD_LEADS`.
        used_leads: those of them that the network was trained to look at; others are masked, also where they were
            recorded. None uses all.
        page_layout: `"whole"`, or `"3x4"`: the network looks at what a printed page of 3 rows and 4 columns shows of
            10 s of rhythm, a quarter of each lead and all of lead II.
        input_kind: `"median_beat"` (one representative beat, 600 samples at 500 Hz) or `"rhythm"` (10 s at 100 Hz).
            Together with `trunk` it sets the defaults of the next three.
        sampling_rate: Hz of `input_values`.
        num_samples: length of `input_values`, zero padding included; a multiple of `token_stride`. The light trunk
            also takes shorter pieces.
        pad_samples: zeros added at each end after scaling (4 for 600 -> 608; for 1000 samples 12, light trunk 4).
        unit: unit of the signal before scaling; always `"mV"`.
        filter: zero-phase filter applied before scaling: `highpass_hz`, `lowpass_hz`, `powerline_hz`; None leaves
            that stage out.
        normalization: `"per_lead_zscore"` (the paper) or `"global"` (one scale for all leads, keeps voltage).
        global_mean_mv, global_std_mv: the scale of `normalization="global"`, millivolt.
        trunk: `"paper"`, the network of arXiv 2403.10581, or `"light"`: fewer and shorter steps of time, attention
            whose weights the leads share, maps of one number for each pair of leads; see `light_ecgdan`. It sets the
            defaults of `attention_order` and of the widths below.
        lead_layout: `"lead_true"` keeps leads apart until cross-lead attention; `"reference"` is bit-faithful to the
            authors' code, which mixes them in the stem.
        use_lead_attention, use_time_attention: ablation switches.
        attention_order: `"parallel"` (both read the trunk, outputs added) or `"sequential"` (lead attention reads the
            time branch and its output alone goes on).
        dropout_scope: `"element"`, or `"batch"`: one mask for all records of the batch, so that the subjects of one
            risk set are compared under one sub-network.
        stem_features: features per lead after the stem.
        trunk_channels: channels after each residual block; every block halves time, as does the light stem.
        num_attention_heads: heads of both attentions.
        mlp_ratio: width of the attention blocks' MLPs over their token width.
        mlp_dropout: dropout inside those MLPs.
        drop_path_rate: light trunk: how often a residual branch is skipped in training.
        hidden_size: width of `pooler_output`; half average-, half max-pooled.
        count_beats: light trunk on rhythm: add to the embedding the autocorrelation of learned activities, which
            counts beats, and a beat averaged where one of them is large; see `_Beats`.
        trunk_crop: samples of a record that the trunk reads in training, a random stretch; 0: all. `count_beats`
            reads the whole record, and so does a network with a decoder.
        projection_hidden_size, projection_size: widths of the alignment heads.
        projection_dropout: dropout of the embedding before its projection.
        text_embed_dim: width of given text embeddings; None builds no alignment head.
        text_model_name, text_model_revision: language model whose embeddings the alignment head was trained with.
        prompt_labels: labels whose projected text embeddings the checkpoint carries, for zero-shot without text model.
        num_superclasses: width of the superclass head of [`EcgDanForPreTraining`]; 0 builds none.
        alignment_objective: `"statements"` (each record with many texts, one sigmoid a pair), or `"clip"`, `"siglip"`,
            `"cosine"` (the paper's positives-only loss) with one text a record.
        measurement_names: quantities that [`EcgDanForPreTraining`] reads from the embedding, such as `pr_ms`.
        measurement_means, measurement_stds: their standardisation, learned on the training set.
        reconstruction_weight, alignment_weight, superclass_weight, measurement_weight: weights of the pretraining
            losses; a `reconstruction_weight` of 0 builds no decoder.
        head_dropout: dropout of the task heads.
        classifier_hidden_size: width of the classifier's hidden layer; 0 is a linear classifier.
        num_auxiliary_labels: further labels that are learned with the classifier's, such as all SCP statements; 0
            builds no head for them.
        auxiliary_weight: weight of their loss.
        thresholds: decision threshold of each label, by label name.
        windows: how `ecgdan predict` judges a recording longer than the input: `seconds`, `step_seconds` and `rule`
            (see `contract_ecgdan.WINDOW_RULES`); None judges its middle.
        ecgdan_version: version of the package that wrote the configuration.

    Raises:
        ValueError: a value outside its choices, or lengths that do not fit the network.
    """

    if TYPE_CHECKING:  # transformers allows None for both
        num_labels: int
        id2label: dict[int, str]

    model_type = "ecgdan"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        *("reconstruction_loss", "alignment_loss", "superclass_loss", "measurement_loss", "waveform_loss", "cox_loss"),
        *("auxiliary_logits", "waveform_attention", "readout_features", *ENCODER_FIELDS),
    ]
    """Outputs that `Trainer` leaves out of `predictions`, so that a classifier's are its logits alone."""

    lead_names: list[str] | tuple[str, ...] = STANDARD_LEADS
    used_leads: list[str] | tuple[str, ...] | None = None
    page_layout: str = "whole"
    input_kind: str = "median_beat"
    sampling_rate: _Int = _FROM_TRUNK
    num_samples: _Int = _FROM_TRUNK
    pad_samples: _Int = _FROM_TRUNK
    unit: str = "mV"
    filter: _Filter = _FROM_TRUNK
    normalization: str = "per_lead_zscore"
    global_mean_mv: float | int = 0.0
    global_std_mv: float | int = 0.25

    trunk: str = "paper"
    lead_layout: str = "lead_true"
    use_lead_attention: bool = True
    use_time_attention: bool = True
    attention_order: str | None = None
    dropout_scope: str = "element"
    stem_features: _Int = _FROM_TRUNK
    trunk_channels: _Ints = _FROM_TRUNK
    num_attention_heads: _Int = _FROM_TRUNK
    mlp_ratio: _Int = _FROM_TRUNK
    mlp_dropout: _Float = _FROM_TRUNK
    drop_path_rate: float | int = 0.05
    hidden_size: _Int = _FROM_TRUNK
    count_beats: bool = False
    trunk_crop: int = 0

    projection_hidden_size: int = 256
    projection_size: int = 128
    projection_dropout: float | int = 0.0
    text_embed_dim: int | None = None
    text_model_name: str | None = None
    text_model_revision: str | None = None
    prompt_labels: list[str] | tuple[str, ...] = ()
    num_superclasses: int = 0
    alignment_objective: str = "clip"
    reconstruction_weight: float | int = 1.0
    alignment_weight: float | int = 1.0
    superclass_weight: float | int = 0.0
    measurement_names: list[str] | tuple[str, ...] = ()
    measurement_means: list[float | int] | tuple[float | int, ...] = ()
    measurement_stds: list[float | int] | tuple[float | int, ...] = ()
    measurement_weight: float | int = 1.0

    head_dropout: float | int = 0.25
    classifier_hidden_size: _Int = _FROM_TRUNK
    num_auxiliary_labels: int = 0
    auxiliary_weight: float | int = 1.0
    thresholds: dict[str, float | int] | None = None
    windows: dict[str, float | int | str] | None = None
    ecgdan_version: str = ECGDAN_VERSION

    def __post_init__(self, **kwargs: Any) -> None:
        self.lead_names = list(self.lead_names)
        self.used_leads = None if self.used_leads is None else list(self.used_leads)
        self.prompt_labels = list(self.prompt_labels)
        self.measurement_names = list(self.measurement_names)
        self.measurement_means = list(self.measurement_means) or [0.0] * len(self.measurement_names)
        self.measurement_stds = list(self.measurement_stds) or [1.0] * len(self.measurement_names)
        defaults = INPUT_DEFAULTS.get((self.trunk, self.input_kind), {}) | TRUNK_DEFAULTS.get(self.trunk, {})
        for name, value in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        self.trunk_channels = list(self.trunk_channels or ())
        if self.filter is None:
            self.filter = dict(DEFAULT_FILTER)
        super().__post_init__(**kwargs)
        self.check()

    def check(self) -> None:
        """Raises for values that the network cannot be built from."""
        for name, choices in CHOICES.items():
            value = getattr(self, name, choices[0])
            if value not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        stride = self.token_stride
        if self.num_samples <= 0 or self.num_samples % stride:
            raise ValueError(f"num_samples: expected a positive multiple of {stride}, got {self.num_samples}")
        if not 0 <= 2 * self.pad_samples < self.num_samples:
            raise ValueError(f"pad_samples: expected less than half of num_samples, got {self.pad_samples}")
        if self.sampling_rate <= 0:
            raise ValueError(f"sampling_rate: expected a positive rate in Hz, got {self.sampling_rate}")
        if not self.lead_names or len(set(self.lead_names)) != len(self.lead_names):
            raise ValueError(f"lead_names: expected different names, got {self.lead_names}")
        if (self.used_leads is not None and not set(self.used_leads) <= set(self.lead_names)) or self.used_leads == []:
            raise ValueError(f"used_leads: expected some of {', '.join(self.lead_names)}, got {self.used_leads}")
        if self.lead_layout == "reference" and self.num_leads != len(STANDARD_LEADS):
            raise ValueError(f"lead_layout='reference' needs the twelve standard leads, got {self.num_leads}")
        if self.hidden_size % 2:
            raise ValueError(f"hidden_size: expected an even number, got {self.hidden_size}")
        if self.trunk_channels[-1] % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads: {self.num_attention_heads} does not divide the trunk's "
                f"{self.trunk_channels[-1]} channels"
            )
        if self.global_std_mv <= 0:
            raise ValueError(f"global_std_mv: expected a positive scale in mV, got {self.global_std_mv}")
        if self.trunk == "light" and self.lead_layout == "reference":
            raise ValueError(
                "lead_layout='reference' is the paper's network, got trunk='light'; leave one of them out"
            )
        if self.count_beats and (self.trunk, self.input_kind) != ("light", "rhythm"):
            raise ValueError(
                f"count_beats: needs trunk light and input_kind rhythm, got {self.trunk} and {self.input_kind}"
            )
        if self.trunk_crop and (self.trunk != "light" or self.trunk_crop % stride):
            raise ValueError(
                f"trunk_crop: expected 0, or a multiple of {stride} with trunk light, got {self.trunk_crop} with "
                f"{self.trunk}"
            )
        self._check_standardisation("measurement")
        if self.windows is not None:
            if set(self.windows) != {"seconds", "step_seconds", "rule"}:
                raise ValueError(f"windows: expected seconds, step_seconds and rule, got {self.windows}")
            check_windows(**self.windows)
        for name in ("mlp_dropout", "head_dropout", "drop_path_rate", "projection_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a probability below 1, got {getattr(self, name)}")

    def _check_standardisation(self, of: str) -> None:
        """Raises a ValueError unless there is a mean and a positive SD for each of the names."""
        names, means, stds = (getattr(self, f"{of}_{part}") for part in ("names", "means", "stds"))
        if not len(names) == len(means) == len(stds):
            raise ValueError(f"{of}_means and {of}_stds: expected {len(names)} values, one for each of {names}")
        if any(std <= 0 for std in stds):
            raise ValueError(f"{of}_stds: expected positive values, got {stds}")

    @property
    def num_leads(self) -> int:
        """Number of leads of `input_values`."""
        return len(self.lead_names)

    def thresholds_hold(self, num_leads: int) -> bool:
        """Whether the thresholds can be used of a record with so many of the leads that the network looks at.

        With fewer than half they do not hold: with lead I alone a classifier of twelve leads says "MI" of 95 % of
        those who have none (docs/data.md). Its order of records still does.
        """
        return thresholds_hold(num_leads, self.used_leads or self.lead_names)

    @property
    def token_stride(self) -> int:
        """Samples per time token: 32 for the five blocks of the paper, 16 for the light stem and its three."""
        return 1 << (len(self.trunk_channels) + (self.trunk == "light"))

    @property
    def num_tokens(self) -> int:
        """Time tokens per lead."""
        return self.num_samples // self.token_stride

    @property
    def signal_contract(self) -> dict[str, Any]:
        """The contract of the input, as keyword arguments of [`EcgDanFeatureExtractor`]."""
        return {name: getattr(self, name) for name in SIGNAL_FIELDS}

    @property
    def weight_columns(self) -> list[str]:
        """Inputs beside `input_values` and `lead_mask`, one number for each sample: weights of DANet's hard module."""
        return ["waveform_weights"] if self.signal_contract.get("waveform_rule") else []

    @property
    def label_names(self) -> list[str]:
        """Labels of a classifier, in the order of its logits."""
        return [str(name) for _, name in sorted((self.id2label or {}).items())]

    def label_probabilities(self, logits: Any) -> Any:
        """Logits (..., labels) -> probabilities: a softmax where exactly one label holds, else one sigmoid a label."""
        return logits.softmax(-1) if self.problem_type == "single_label_classification" else logits.sigmoid()


@strict
class EcgDanSurvivalConfig(EcgDanConfig):
    r"""Configuration of [`EcgDanForSurvival`]: an `EcgDanConfig` plus the survival head.

    Args:
        survival_hidden_size: width of the risk head's hidden layer; 0: the log hazard is linear in the embedding.
        num_posterior_directions: linear risk heads fitted with few events keep how well their weights are known, in so
            many directions; 0 where that is not known.
        hazard: `"cox"`, one log hazard and a baseline fitted to the training data; or `"discrete"`, a logistic hazard
            in each interval of `hazard_cuts`, whose shape is learned.
        hazard_cuts: years at which intervals of the discrete hazard begin and end, ascending from 0.
        cause_names: competing causes, in the order of their codes 1, 2, ... in `event`; the first is the endpoint.
            Each has a log hazard of its own, and its risk is a cumulative incidence. Empty: one cause.
        endpoint_names: several endpoints, each with a follow-up, a log hazard and a baseline of its own; they do not
            compete, and their risks do not add up. Empty: one endpoint, or competing causes.
        survival_weight: weight of the Cox loss; `reconstruction_weight` is the other part (0 builds no decoder).
        ties: `"efron"` or `"breslow"`.
        covariate_names: linear terms of the log hazard besides the ECG. A name says how it is made: `age` is a
            column, `smoking=current` is 1 where the column says so, `bmi?` is 1 where `bmi` is missing.
        covariate_means, covariate_stds: their standardisation, learned on the training set.
        num_baseline_times: knots of the fitted baseline hazard; 0 until it is fitted.
        calibration_slope: multiplies every log hazard; 1 unless the model was recalibrated to another population. With
            causes it may be a list, one for each.
        endpoint: what the event is, in words, for cards and reports.
        simulated_outcome: True where the follow-up was simulated; every report then says so.
    """

    model_type = "ecgdan-survival"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [*EcgDanConfig.keys_to_ignore_at_inference, "reconstruction"]

    survival_hidden_size: int = 3
    num_posterior_directions: int = 0
    hazard: str = "cox"
    hazard_cuts: list[float | int] | tuple[float | int, ...] = ()
    cause_names: list[str] | tuple[str, ...] = ()
    endpoint_names: list[str] | tuple[str, ...] = ()
    survival_weight: float | int = 0.5
    reconstruction_weight: float | int = 0.5
    ties: str = "efron"
    covariate_names: list[str] | tuple[str, ...] = ()
    covariate_means: list[float | int] | tuple[float | int, ...] = ()
    covariate_stds: list[float | int] | tuple[float | int, ...] = ()
    num_baseline_times: int = 0
    calibration_slope: float | int | list[float | int] = 1.0
    endpoint: str = "event"
    simulated_outcome: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.covariate_names = list(self.covariate_names)
        count = len(self.covariate_names)
        self.covariate_means = list(self.covariate_means) or [0.0] * count
        self.covariate_stds = list(self.covariate_stds) or [1.0] * count
        self.hazard_cuts, self.cause_names = list(self.hazard_cuts), list(self.cause_names)
        self.endpoint_names = list(self.endpoint_names)
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Raises for values that the network or its survival head cannot be built from."""
        super().check()
        self._check_standardisation("covariate")
        if self.survival_hidden_size < 0:
            raise ValueError(f"survival_hidden_size: expected zero or more, got {self.survival_hidden_size}")
        if self.num_posterior_directions and self.survival_hidden_size:
            raise ValueError("num_posterior_directions: needs a linear risk head, survival_hidden_size 0")
        self._check_hazard()
        slopes = self.calibration_slope if isinstance(self.calibration_slope, list) else [self.calibration_slope]
        if not all(slope > 0 for slope in slopes) or len(slopes) not in (1, self.num_risks):
            raise ValueError(f"calibration_slope: expected a positive number, got {self.calibration_slope}")

    def _check_hazard(self) -> None:
        cuts = list(self.hazard_cuts)
        for field in ("cause_names", "endpoint_names"):
            names = list(getattr(self, field))
            if len(set(names)) != len(names) or len(names) == 1:
                raise ValueError(f"{field}: expected two or more different names, or none, got {names}")
        if self.endpoint_names and (self.cause_names or self.hazard != "cox"):
            found = "competing causes" if self.cause_names else f"hazard {self.hazard!r}"
            raise ValueError(
                f"endpoint_names: several endpoints need hazard 'cox' and no competing causes, got {found}"
            )
        if self.hazard == "cox" and cuts:
            raise ValueError(f"hazard_cuts: only hazard='discrete' has intervals, got {cuts} for 'cox'")
        if self.hazard == "discrete" and (len(cuts) < 2 or cuts[0] != 0 or cuts != sorted(set(cuts))):
            raise ValueError(f"hazard_cuts: expected years ascending from 0 for hazard='discrete', got {cuts}")
        if self.hazard == "discrete" and self.num_posterior_directions:
            raise ValueError("num_posterior_directions: needs hazard='cox', got 'discrete'")

    @property
    def risk_names(self) -> list[str]:
        """What the model gives risks of: its causes or endpoints, or its one endpoint."""
        return list(self.cause_names) or list(self.endpoint_names) or [self.endpoint]

    @property
    def num_risks(self) -> int:
        """Number of `risk_names`."""
        return len(self.cause_names) or len(self.endpoint_names) or 1

    @property
    def gives_risks(self) -> bool:
        """Whether absolute risks are known: a baseline was fitted, or the hazard has a shape of its own."""
        return bool(self.num_baseline_times) or self.hazard == "discrete"

    @property
    def endpoint_text(self) -> str:
        """The event in words, with "simulated" in front where the follow-up was simulated."""
        return endpoint_text(self.endpoint, self.simulated_outcome)
