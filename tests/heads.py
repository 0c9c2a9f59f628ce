"""Every head the package has, small enough for tests, with a batch that gives it a loss."""

from collections.abc import Callable

import torch
from tiny import TINY, signals
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


def survival(**options) -> EcgDanForSurvival:
    model = EcgDanForSurvival(EcgDanSurvivalConfig(**{**TINY, **STILL, **COVARIATES, **options}))
    torch.nn.init.constant_(model.covariate_head.weight, 0.3)  # it starts at zero, and would hide its input
    model.fit_baseline(torch.linspace(-1, 1, 9), torch.tensor([1.0, 0, 1, 1, 0, 1, 0, 1, 0]), torch.arange(1.0, 10))
    return model


def dual(**options) -> EcgTextModel:
    ecg = EcgDanConfig(**{**TINY, **STILL, "text_embed_dim": 16, **options})
    model = EcgTextModel(EcgTextConfig(ecg_config=ecg))
    model.load_text_model(BertModel(BertConfig(**BERT)))
    model.set_text_tower("full")
    model.set_prompts(["AFIB", "NORM"], torch.randn(2, 16))
    return model


def danet(module: str, network: str = "ecgdan") -> Callable[..., DanetForSequenceClassification]:
    def build(**options) -> DanetForSequenceClassification:
        kind = {"waveform_module": module, "classifier_network": network, "num_labels": 2}
        return DanetForSequenceClassification(DanetConfig(**{**TINY, **STILL, **DANET, **kind, **options}))

    return build


BUILDERS: dict[str, Callable[..., torch.nn.Module]] = {
    "encoder": lambda **options: EcgDanModel(EcgDanConfig(**{**TINY, **STILL, **options})),
    "classification": lambda **options: EcgDanForSequenceClassification(
        EcgDanConfig(**{**TINY, **STILL, "num_labels": 3, **options})
    ),
    "survival": survival,
    "pretraining": lambda **options: EcgDanForPreTraining(
        EcgDanConfig(**{**TINY, **STILL, "text_embed_dim": 6, **options})
    ),
    "ecg-text": dual,
    "danet": danet("soft"),
    "danet-hard": danet("hard", "resnet1d"),
    "danet-pretraining": lambda **options: DanetForPreTraining(DanetConfig(**{**TINY, **STILL, **DANET, **options})),
}
TRAINED = tuple(name for name in BUILDERS if name != "encoder")


def build(name: str, **options) -> torch.nn.Module:
    """The head with fixed random weights, in evaluation mode, and with no two running statistics alike."""
    torch.manual_seed(0)
    model = BUILDERS[name](**options)
    for key, buffer in model.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            buffer.add_(0.2 * torch.rand_like(buffer))
    return model.eval()


def inputs(name: str, records: int = 4) -> dict[str, torch.Tensor]:
    """What it takes to answer, not to learn; the first record lacks a lead."""
    generator = torch.Generator().manual_seed(records)
    batch = {"input_values": signals(records), "lead_mask": torch.ones(records, 12, dtype=torch.bool)}
    batch["lead_mask"][0, 3] = False
    if name == "survival":
        batch["covariates"] = torch.tensor([60.0, 0.5]) + torch.randn(records, 2, generator=generator)
        batch["covariates"][0, 0] = torch.nan
    if name == "ecg-text":
        batch["input_ids"] = torch.randint(1, 40, (records, 5), generator=generator)
        batch["attention_mask"] = torch.ones(records, 5, dtype=torch.long)
    if name == "danet-hard":
        batch["waveform_weights"] = torch.rand(records, 64, generator=generator)
    return batch


def learnable(name: str, records: int = 4) -> dict[str, torch.Tensor]:
    """The same with what is to be learned; labels and follow-up depend on the signal."""
    batch, generator = inputs(name, records), torch.Generator().manual_seed(7)
    loud = batch["input_values"][:, 0, :32].mean(1)
    if name in ("classification", "danet", "danet-hard"):
        columns = 3 if name == "classification" else 2
        batch["labels"] = torch.stack([loud > 0, *[loud < 0.1 * i for i in range(1, columns)]], dim=1).float()
    if name == "survival":
        batch["event"] = (torch.rand(records, generator=generator) < 0.7).float()
        batch["event"][0] = 1.0
        batch["time"] = torch.exp(-4 * loud) + 0.1
    if name == "pretraining":
        batch["text_embeds"] = torch.randn(records, 6, generator=generator)
    if name == "danet-pretraining":
        batch["waveform_targets"] = (batch["input_values"][:, 0] > 0.5).float()
    return batch
