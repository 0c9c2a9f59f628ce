"""What a model card says of a checkpoint, worked out from its configuration, its training run and its evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import yaml
from huggingface_hub import EvalResult

from ecgdan_hf.data.sources.registry import Source, find_source
from ecgdan_hf.evaluation.folds import parse_folds
from ecgdan_hf.evaluation.report.subgroup_text import subgroup_text
from ecgdan_hf.inference.heads import Head, head_of
from ecgdan_hf.model.configuration_danet import DanetConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel
from ecgdan_hf.publish.card.evaluations import HUB_METRICS, METRIC_NAMES, PARTS, Evaluation, Number

WORLD_GCO2_PER_KWH = 475.0
"""Mean carbon intensity of the world's electricity (IEA, Global Energy and CO2 Status Report 2019, year 2018)."""

_VERBS = {"pretraining": "pretrain", "survival": "finetune", "classification": "finetune", "danet": "finetune"}
_TRAINING_TYPES = {"pretrain": "pre-training", "finetune": "fine-tuning"}
_JOULES_PER_KWH = 3.6e6
_NEARLY_EVEN = 0.95
"""Share of the largest possible entropy above which a map hardly distinguishes one key from another."""


@dataclass(frozen=True)
class CardFacts:
    """A checkpoint and its results; a power or an intensity that is not positive raises ValueError.

    Attributes:
        model: the network.
        metrics, recipe: content of the `metrics.json` and the `recipe.yaml` of its training, where there are any.
        evaluations: further results.
        power_watts: assumed power of the hardware that training kept busy, all processes together; None for none.
        grid_gco2_per_kwh: assumed carbon intensity of its electricity.
    """

    model: EcgDanPreTrainedModel
    metrics: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Evaluation] = ()
    power_watts: float | None = None
    grid_gco2_per_kwh: float = WORLD_GCO2_PER_KWH

    def __post_init__(self) -> None:
        power, grid = self.power_watts, self.grid_gco2_per_kwh
        if power is not None and (power <= 0 or grid <= 0):
            raise ValueError(f"power_watts, grid: expected positive numbers, got {power} and {grid}")

    @cached_property
    def config(self) -> Any:
        """The configuration; of a dual encoder, that of its ECG side."""
        return getattr(self.model.config, "ecg_config", self.model.config)

    @cached_property
    def head(self) -> Head:
        """Its entry in the list of model classes."""
        return head_of(self.model)

    @cached_property
    def _numbers(self) -> list[Number]:
        return [number for part in PARTS for number in Number.of_run(self.metrics.get(part), part)]

    @property
    def is_simulated(self) -> bool:
        """Whether the outcome was simulated, as the configuration or the metrics say."""
        return bool(getattr(self.config, "simulated_outcome", False) or self.metrics.get("simulated_outcome"))

    @property
    def source(self) -> Source | None:
        """Source of the training data, where it is known."""
        return _source_named(self.recipe.get("data"))

    @property
    def sources(self) -> list[Source]:
        """Known sources of the training data and of the pretraining data."""
        pretrained_on = _source_named((self.metrics.get("pretraining") or {}).get("data"))
        return [each for each in dict.fromkeys((self.source, pretrained_on)) if each]

    @property
    def _data_name(self) -> str:
        return self.source.title if self.source else "unknown data"

    @property
    def is_tested(self) -> bool:
        """Whether there are results on records that were not used in training."""
        tested = any(number.part == "test" for number in self._numbers)
        return tested or any(not each.is_sanity for each in self.evaluations)

    @property
    def verb(self) -> str:
        """The verb that trained it; empty where that was not recorded."""
        return _VERBS.get(str(self.metrics.get("task")), "")

    @property
    def base(self) -> str:
        """Name of the checkpoint it was fine-tuned from; empty where it began with random weights."""
        start = str(self.metrics.get("checkpoint") or "")
        return "" if start == "random weights" else start

    @property
    def network(self) -> str:
        """The network in words."""
        if not isinstance(self.config, DanetConfig):
            return "a dual attention network for the 12-lead ECG (ECG-DAN)"
        module = {
            "soft": "a waveform module that learns where to look, in front of",
            "hard": "weights of the waves under a rule, in front of",
            "none": "(without its module)",
        }[self.config.waveform_module]
        network = {"ecgdan": "the dual attention network", "resnet1d": "a residual network"}
        return f"DANet, {module} {network[self.config.classifier_network]}"

    @property
    def rule(self) -> str:
        """The waveform rule as YAML; empty for networks without one."""
        rule = getattr(self.config, "waveform_rule", None)
        used = rule and getattr(self.config, "waveform_module", "none") != "none"
        return yaml.safe_dump(rule, sort_keys=False, default_flow_style=None).strip() if used else ""

    @property
    def labels(self) -> list[tuple[str, str]]:
        """Labels and thresholds of a classifier; empty for other networks."""
        thresholds = self.config.thresholds or {}
        named = sorted(self.config.id2label.items()) if self.head.is_classifier else []
        return [(name, f"{thresholds[name]:.3f}" if name in thresholds else "0.5 (not chosen)") for _, name in named]

    @property
    def pretraining(self) -> str:
        """The pretraining data of a fine-tuned network; empty where they were not recorded."""
        found = self.metrics.get("pretraining")
        if not found:
            return ""
        source = _source_named(found.get("data"))
        data = source.description or source.title if source else "data that were not recorded"
        folds = f", folds {found['train_folds']}" if found.get("train_folds") else ""
        simulated = found.get("pretext") == "simulated-beats"
        made = f", {found['simulated_records']:,} records simulated from" if simulated else ""
        return f"Pretrained without labels ({found.get('pretext', found.get('task'))}){made}: {data}{folds}."

    @property
    def sizes(self) -> str:
        """Numbers of records by part; empty where they were not recorded."""
        sizes = self.metrics.get("num_records")
        return ", ".join(f"{count:,} {part}" for part, count in sizes.items()) if isinstance(sizes, Mapping) else ""

    @property
    def folds(self) -> str:
        """Folds of training, of choosing the epoch, and of the test."""
        parts = {"train_folds": "trained on", "valid_folds": "epoch chosen on", "test_folds": "tested on"}
        return ", ".join(f"{word} {self.recipe[key]}" for key, word in parts.items() if self.recipe.get(key))

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Part, metric and value of each number of the training run, and the labels that no average holds."""
        suffix = ", simulated outcome" if self.is_simulated else ""
        rows = [(PARTS[number.part], number.words, number.text + suffix) for number in self._numbers]
        left_out = {
            "labels_not_estimable": "labels without AUROC",
            "labels_too_rare": "labels too rare for the macro average",
        }
        return rows + [
            (words, said, ", ".join(found[name]))
            for words, found in self._parts
            for name, said in left_out.items()
            if found.get(name)
        ]

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Parts whose metrics could not be estimated, and why."""
        return [(words, found["not_estimable"]) for words, found in self._parts if "not_estimable" in found]

    @property
    def _parts(self) -> list[tuple[str, Mapping[str, Any]]]:
        found = [(words, self.metrics.get(part)) for part, words in PARTS.items()]
        return [(words, each) for words, each in found if isinstance(each, Mapping)]

    @property
    def groups(self) -> list[tuple[str, str, str]]:
        """Title, records and results by sex and age, of the run's own test part and of each evaluation."""
        found = self.metrics.get("subgroups")
        own = [("Test records of the run", "", subgroup_text(found, self.is_simulated))] if found else []
        return own + [(each.title, self._notes(each), each.groups) for each in self.evaluations if each.groups]

    def _notes(self, evaluation: Evaluation) -> str:
        """Describes the records of an evaluation, and whether the epoch was chosen on them."""
        counts, said = evaluation.metrics, []
        for key, word in (("num_records", "records"), ("num_patients", "patients")):
            if isinstance(counts.get(key), int):
                said.append(f"{counts[key]:,} {word}")
        if evaluation.folds:
            said.append(evaluation.split)
        elif isinstance(counts.get("valid"), Mapping) and "test" not in counts:
            said.append("validation part (the epoch was chosen on it: optimistic)")
        chosen = set(parse_folds(self.recipe.get("valid_folds"), "recipe: valid_folds") or ())
        chosen &= set(parse_folds(evaluation.folds or None, f"{evaluation.name}: test_folds") or ())
        source = _source_named(evaluation.result.data)
        same_data = evaluation.result.data is None or (source is not None and source.title == self._data_name)
        if chosen and same_data:
            said.append("the epoch was chosen on these records" + ("" if evaluation.is_sanity else ": optimistic"))
        if evaluation.result.is_simulated:
            said.append("**simulated outcome**")
        return "; ".join(said)

    @property
    def tables(self) -> list[tuple[Evaluation, str, list[tuple[str, str, str]]]]:
        """Each evaluation with its notes, and the words, the value and the model's lead of each of its numbers."""
        found = []
        for each in self.evaluations:
            suffix = ", simulated outcome" if each.result.is_simulated else ""
            rows = [(x.words or each.metric, x.text + suffix, x.ahead_text) for x in each.numbers()]
            found.append((each, self._notes(each), rows))
        return found

    @property
    def attention(self) -> list[str]:
        """A paragraph on the maps for each run of `ecgdan sanity`: only what it measured."""
        return [_attention_text(each.metrics) for each in self.evaluations if each.is_sanity]

    @property
    def missing(self) -> list[str]:
        """Expected results that there are none of."""
        tested = {key for number in self._numbers if number.part == "test" for key in number.path}
        tested |= {name for each in self.evaluations for name in _covered(each)}
        absent = [text for key, text in self.head.expected_results.items() if key not in tested]
        if self.head.task == "pretraining":
            kinds = {each.result.kind for each in self.evaluations}
            probed = kinds & {"probe", "label-efficiency"}
            absent += [] if probed else ["linear probe with a random encoder as control (`ecgdan probe`)"]
            if self.model.config.prompt_labels and "zero-shot" not in kinds:
                absent.append("zero-shot results and their controls (`ecgdan probe --zero-shot`)")
        absent += [] if self.attention else ["test of the attention maps (`ecgdan sanity`)"]
        absent += [] if self.metrics.get("seconds") else ["training time"]
        return absent if self.emissions else [*absent, "energy and carbon"]

    @property
    def time(self) -> str:
        """Time and hardware of the training; empty where the time was not recorded."""
        seconds, found = self.metrics.get("seconds"), self.metrics.get("hardware")
        if not seconds:
            return ""
        text = f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
        if not isinstance(found, Mapping):
            return f"{text}; the hardware was not recorded"
        processes, threads = found.get("processes", 1), found.get("threads", 1)
        return f"{text} on {found.get('device', 'unknown hardware')}, {processes} process(es) of {threads} thread(s)"

    @property
    def emissions(self) -> dict[str, Any]:
        """The metadata on carbon: energy = power x time, carbon = energy x intensity.

        Empty where the time was not recorded or no power is assumed.
        """
        seconds = float(self.metrics.get("seconds") or 0)
        if self.power_watts is None or not seconds:
            return {}
        kwh = self.power_watts * seconds / _JOULES_PER_KWH
        grams = kwh * self.grid_gco2_per_kwh
        energy = f"{self.power_watts:g} W x {seconds:.0f} s = {kwh:.2g} kWh"
        return {
            "emissions": round(grams, 3),
            "source": f"estimate, {energy}; x {self.grid_gco2_per_kwh:g} gCO2eq/kWh = {grams:.2g} g",
            "training_type": _TRAINING_TYPES.get(self.verb, "training"),
            "hardware_used": str((self.metrics.get("hardware") or {}).get("device", "not recorded")),
        }

    @property
    def hub_metrics(self) -> list[str]:
        """The metrics by which the Hub lists models; losses and diagnostics are only in the card's table."""
        names = {number.path[-1] for number in self._numbers}
        names |= {str(each.metrics.get("metric")) for each in self.evaluations}
        return sorted({HUB_METRICS[name] for name in names & HUB_METRICS.keys()})

    @property
    def model_index(self) -> list[EvalResult]:
        """The model's own results for the metadata: on test records, and of the further evaluations.

        Results on validation records, of controls and of the attention maps are only in the text.
        """
        found = [
            self._entry(number, number.path[-1], number.words, self._data_name, "test", self.is_simulated)
            for number in self._numbers
            if number.part == "test" and number.is_the_models
        ]
        for each in self.evaluations:
            source = _source_named(each.result.data)
            data = source.title if source else self._data_name
            simulated = self.is_simulated or each.result.is_simulated
            for number in () if each.is_sanity else each.numbers():
                last, words = number.path[-1], f"{each.title}: {number.words or each.metric}"
                key = last if last in METRIC_NAMES else str(each.metrics.get("metric") or last)
                if number.is_the_models:
                    found.append(self._entry(number, key, words, data, each.split, simulated))
        return found

    def _entry(self, number: Number, key: str, words: str, data: str, split: str, simulated: bool) -> EvalResult:
        task_type, task_name = self.head.card_task
        suffix = ", simulated outcomes" if simulated else ""
        return EvalResult(
            task_type=task_type,
            task_name=task_name + suffix,
            dataset_type=data.lower().replace(" ", "-"),
            dataset_name=data + suffix,
            dataset_split=split,
            metric_type=Number.metric_id(key),
            metric_name=words + suffix,
            metric_value=round(number.value, 4),
        )


def _source_named(name: object) -> Source | None:
    """The source that a recipe or result names; None if it names none, or one unknown to this version."""
    try:
        return find_source(str(name))
    except ValueError:
        return None


def _covered(evaluation: Evaluation) -> list[str]:
    """Expected results that an evaluation holds, controls by the names the verbs give them."""
    names = " ".join(key for number in evaluation.numbers() for key in number.path)
    given = {"age and sex": "age_sex", "random encoder": "random_encoder"}
    found = [key for words, key in given.items() if words in names]
    held_out = [str(evaluation.metrics.get("metric"))] if evaluation.result.kind in ("held-out", "repeated-cv") else []
    return found + held_out + (["calibration"] if evaluation.metrics.get("calibration") else [])


def _attention_text(metrics: Mapping[str, Any]) -> str:
    said = [
        f"On {metrics['num_records']:,} records, parts of the ECG were deleted in the order of the attention they "
        f"receive, and the {metrics['change']} was compared with that under other orders."
    ]
    said += [_map_text(unit, metrics[unit]) for unit in ("leads", "time") if unit in metrics]
    said.append("Attention is one step of the network: neither result makes a map an explanation of a cause.")
    return " ".join(said)


def _map_text(unit: str, found: Mapping[str, Any]) -> str:
    name = {"leads": "**Lead map**", "time": "**Temporal map**"}[unit]
    entropy, even = found["entropy"]["estimate"], found["even_entropy"]
    shape = "nearly even: it hardly singles anything out" if entropy > _NEARLY_EVEN * even else "not even"
    parts = [f"{name}: entropy {entropy:.2f} of {even:.2f} nats ({shape})."]
    parts.append(f"Deleting what is attended to most {_compared(found, 'random', 'a random order')}.")
    if found.get("area_over_shifted"):
        compared = _compared(found, "shifted", "there", "deleting there")
        parts.append(f"Compared with the same pattern moved elsewhere in the record, it {compared}.")
    what = {"leads": "leads", "time": "moments"}[unit]
    areas = [found[key] for key in ("area_over_random", "area_over_shifted") if key in found]
    if all(area["low"] > 0 for area in areas):
        return " ".join([*parts, f"So the map does point at {what} the output depends on."])
    return " ".join([*parts, f"So the map must not be read as showing the {what} the output depends on."])


def _compared(found: Mapping[str, Any], order: str, than: str, equal: str = "") -> str:
    area = found[f"area_over_{order}"]
    span = f"mean gap {area['estimate']:+.4f}, 95 % interval {area['low']:+.4f} to {area['high']:+.4f}"
    if area["low"] > 0:
        return f"changes the output sooner than {than} ({span})"
    if area["high"] < 0:
        return f"changes the output later than {than} ({span})"
    return f"cannot be told from {equal or than} ({span})"
