"""Every head the package has, small enough for tests, with a batch that gives it a loss.

A new head needs one entry in `TINY_HEADS`, from which the parametrised tests take their heads. A model class of the
package without an entry fails `tests/inference/test_heads.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from tiny import TINY, signals
from torch import Generator, Tensor
from transformers import BertConfig, BertModel

from ecgdan_hf import (
    DanetConfig,
    DanetForPreTraining,
    DanetForSequenceClassification,
    EcgDanConfig,
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanModel,
    EcgDanSurvivalConfig,
    EcgTextConfig,
    EcgTextModel,
)

STILL = {"head_dropout": 0.0, "mlp_dropout": 0.0, "drop_path_rate": 0.0}
"""Nothing random in training."""
DANET = {"classifier_hidden_size": 8, "waveform_channels": [4, 6, 8, 8], "waveform_kernel": 3}
BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
COVARIATES = {"covariate_names": ["age", "male"], "covariate_means": [60.0, 0.5], "covariate_stds": [10.0, 0.5]}

Batch = dict[str, Tensor]


def nothing(batch: Batch, generator: Generator) -> Batch:
    """No further inputs or targets."""
    return {}


@dataclass(frozen=True)
class TinyHead:
    """How tests build a head and what they feed it.

    Attributes:
        model_class: the class.
        options: of its configuration.
        inputs: signals and a generator -> what it takes besides the signals.
        targets: the same -> what it learns.
        optional: options of the parts that are off by default.
        optional_targets: what these parts learn.
        config: options -> configuration; default the model's own class.
        trained: gives a new model what training would leave: weights that are not zero, a baseline, prompts.
        is_ecg_dan: keeps the contracts of the dual attention network, in `tests/model/test_modeling.py`.
    """

    model_class: Callable[[Any], Any]
    options: dict[str, Any] = field(default_factory=dict)
    inputs: Callable[[Batch, Generator], Batch] = nothing
    targets: Callable[[Batch, Generator], Batch] = nothing
    optional: dict[str, Any] = field(default_factory=dict)
    optional_targets: Callable[[Batch, Generator], Batch] = nothing
    config: Callable[..., Any] = EcgDanConfig
    trained: Callable[[Any], object] = lambda model: None
    is_ecg_dan: bool = False


def covariates(batch: Batch, generator: Generator) -> Batch:
    """Age and sex; the first record's age is unknown."""
    values = torch.tensor([60.0, 0.5]) + torch.randn(len(batch["lead_mask"]), 2, generator=generator)
    values[0, 0] = torch.nan
    return {"covariates": values}


def follow_up(batch: Batch, generator: Generator) -> Batch:
    """Loud signals have the event early."""
    event = (torch.rand(len(batch["lead_mask"]), generator=generator) < 0.7).float()
    event[0] = 1.0
    return {"event": event, "time": torch.exp(-4 * loudness(batch)) + 0.1}


def labels(count: int) -> Callable[[Batch, Generator], Batch]:
    """So many labels that depend on how loud the signal is."""

    def targets(batch: Batch, generator: Generator) -> Batch:
        loud = loudness(batch)
        return {"labels": torch.stack([loud > 0, *[loud < 0.1 * i for i in range(1, count)]], dim=1).float()}

    return targets


def loudness(batch: Batch) -> Tensor:
    """(records,)."""
    return batch["input_values"][:, 0, :32].mean(1)


def chance(name: str, columns: int) -> Callable[[Batch, Generator], Batch]:
    """Targets of 0 and 1 that depend on nothing."""
    return lambda batch, generator: {
        name: (torch.rand(len(batch["lead_mask"]), columns, generator=generator) > 0.5).float()
    }


def train_survival(model: EcgDanForSurvival) -> None:
    """The covariates' weights start at zero, and would hide their input."""
    torch.nn.init.constant_(model.covariate_head.weight, 0.3)
    model.fit_baseline(torch.linspace(-1, 1, 9), torch.tensor([1.0, 0, 1, 1, 0, 1, 0, 1, 0]), torch.arange(1.0, 10))


def train_dual_encoder(model: EcgTextModel) -> None:
    """A language model that learns too, and two prompts."""
    model.load_text_model(BertModel(BertConfig(**BERT)))
    model.set_text_tower("full")
    model.set_prompts(["AFIB", "NORM"], torch.randn(2, 16))


def text(batch: Batch, generator: Generator) -> Batch:
    """Five tokens a record."""
    records = len(batch["lead_mask"])
    ids = torch.randint(1, 40, (records, 5), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones(records, 5, dtype=torch.long)}


def of_width(name: str, width: int) -> Callable[[Batch, Generator], Batch]:
    """Random vectors, one a record."""
    return lambda batch, generator: {name: torch.randn(len(batch["lead_mask"]), width, generator=generator)}


TINY_HEADS = {
    "encoder": TinyHead(EcgDanModel, is_ecg_dan=True),
    "classification": TinyHead(
        EcgDanForSequenceClassification,
        {"num_labels": 3},
        targets=labels(3),
        optional={"num_auxiliary_labels": 7},
        optional_targets=chance("auxiliary_targets", 7),
        is_ecg_dan=True,
    ),
    "survival": TinyHead(
        EcgDanForSurvival,
        COVARIATES,
        covariates,
        follow_up,
        config=EcgDanSurvivalConfig,
        trained=train_survival,
        is_ecg_dan=True,
    ),
    "pretraining": TinyHead(
        EcgDanForPreTraining,
        {"text_embed_dim": 6},
        targets=of_width("text_embeds", 6),
        optional={"num_superclasses": 5, "superclass_weight": 1.0},
        optional_targets=chance("superclass_targets", 5),
        is_ecg_dan=True,
    ),
    "ecg-text": TinyHead(
        EcgTextModel,
        {"text_embed_dim": 16},
        text,
        config=lambda **options: EcgTextConfig(ecg_config=EcgDanConfig(**options)),
        trained=train_dual_encoder,
    ),
    "danet": TinyHead(
        DanetForSequenceClassification,
        {**DANET, "waveform_module": "soft", "classifier_network": "ecgdan", "num_labels": 2},
        targets=labels(2),
        config=DanetConfig,
    ),
    "danet-hard": TinyHead(
        DanetForSequenceClassification,
        {**DANET, "waveform_module": "hard", "classifier_network": "resnet1d", "num_labels": 2},
        lambda batch, generator: {"waveform_weights": torch.rand(len(batch["lead_mask"]), 64, generator=generator)},
        labels(2),
        config=DanetConfig,
    ),
    "danet-pretraining": TinyHead(
        DanetForPreTraining,
        DANET,
        targets=lambda batch, generator: {"waveform_targets": (batch["input_values"][:, 0] > 0.5).float()},
        config=DanetConfig,
    ),
}
TRAINED = tuple(name for name in TINY_HEADS if name != "encoder")


def tiny_head(name: str) -> TinyHead:
    """Returns the entry of `TINY_HEADS`.

    Raises:
        ValueError: a head that has none.
    """
    if name not in TINY_HEADS:
        raise ValueError(f"head: expected one of {', '.join(TINY_HEADS)}, got {name!r}; add it to tests/heads.py")
    return TINY_HEADS[name]


def fresh(name: str, **options) -> torch.nn.Module:
    """A new model with all its optional parts, in evaluation mode, as its class initialises it."""
    head = tiny_head(name)
    torch.manual_seed(0)
    return head.model_class(head.config(**{**TINY, **head.options, **head.optional, **options})).eval()


def build(name: str, **options) -> torch.nn.Module:
    """The head with fixed random weights, in evaluation mode, and with no two running statistics alike."""
    head = tiny_head(name)
    torch.manual_seed(0)
    model = head.model_class(head.config(**{**TINY, **STILL, **head.options, **options}))
    head.trained(model)
    for key, buffer in model.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            buffer.add_(0.2 * torch.rand_like(buffer))
    return model.eval()


def inputs(name: str, records: int = 4) -> Batch:
    """What it takes to answer, not to learn; the first record lacks a lead."""
    batch = {"input_values": signals(records), "lead_mask": torch.ones(records, 12, dtype=torch.bool)}
    batch["lead_mask"][0, 3] = False
    return batch | tiny_head(name).inputs(batch, torch.Generator().manual_seed(records))


def learnable(name: str, records: int = 4, with_optional: bool = False) -> Batch:
    """The same with what is to be learned; labels and follow-up depend on the signal."""
    head, batch, generator = tiny_head(name), inputs(name, records), torch.Generator().manual_seed(7)
    batch |= head.targets(batch, generator)
    return batch | head.optional_targets(batch, generator) if with_optional else batch
