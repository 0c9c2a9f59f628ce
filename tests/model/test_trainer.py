"""The stock transformers Trainer trains every head: the loss it reports is the loss, and evaluation reports one."""

import pytest
import torch
from tiny import TINY, signals
from transformers import Trainer, TrainingArguments

from ecgdan_hf import (
    EcgDanConfig,
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanSurvivalConfig,
)


def rows(name: str, n: int = 16) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ecgs = signals(n)
    extra = {
        "pretraining": lambda i: {"text_embeds": torch.randn(6, generator=generator)},
        "classification": lambda i: {"labels": (torch.rand(3, generator=generator) > 0.5).float()},
        "survival": lambda i: {"event": torch.tensor(float(i % 2)), "time": torch.tensor(1.0 + i)},
    }[name]
    return [{"input_values": ecgs[i], "lead_mask": torch.ones(12, dtype=torch.bool), **extra(i)} for i in range(n)]


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "survival":
        return EcgDanForSurvival(EcgDanSurvivalConfig(**TINY, head_dropout=0.0, mlp_dropout=0.0))
    if name == "pretraining":
        return EcgDanForPreTraining(EcgDanConfig(**TINY, text_embed_dim=6, mlp_dropout=0.0))
    return EcgDanForSequenceClassification(EcgDanConfig(**TINY, num_labels=3, head_dropout=0.0, mlp_dropout=0.0))


def trainer(name: str, folder, **options) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        remove_unused_columns=True,
        **options,
    )
    return Trainer(build(name), arguments, train_dataset=rows(name), eval_dataset=rows(name))


def test_accumulating_gradients_does_not_inflate_the_reported_loss(tmp_path):
    name = "classification"  # Trainer counts items only where it finds `labels`, so only here could it go wrong
    train = trainer(
        name, tmp_path, max_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=4, learning_rate=0.0
    )
    train.train()
    logged = next(entry["loss"] for entry in train.state.log_history if "loss" in entry)
    model = build(name).train()
    batches = [rows(name)[i : i + 4] for i in range(0, 16, 4)]
    losses = [model(**{k: torch.stack([row[k] for row in batch]) for k in batch[0]}).loss.item() for batch in batches]
    # the sampler shuffles, and a loss over a batch depends on who is in it; four times too large would be far off
    assert logged == pytest.approx(sum(losses) / 4, rel=0.35)


@pytest.mark.parametrize(
    ("name", "label_names"),
    [("pretraining", None), ("classification", None), ("survival", None), ("survival", ["event", "time"])],
)
def test_evaluation_reports_a_loss(tmp_path, name, label_names):
    options = {} if label_names is None else {"label_names": label_names}
    metrics = trainer(name, tmp_path, per_device_eval_batch_size=16, **options).evaluate()
    batch = {k: torch.stack([row[k] for row in rows(name)]) for k in rows(name)[0]}
    assert metrics["eval_loss"] == pytest.approx(build(name).eval()(**batch).loss.item(), rel=1e-4)


def test_survival_metrics_see_event_and_time_when_they_are_named_as_labels(tmp_path):
    seen = {}
    train = trainer("survival", tmp_path, per_device_eval_batch_size=8, label_names=["event", "time"])
    train.compute_metrics = lambda prediction: seen.update(labels=prediction.label_ids) or {"subjects": 1.0}
    metrics = train.evaluate()
    assert metrics["eval_subjects"] == 1.0
    event, time = seen["labels"]
    assert event.tolist() == [i % 2 for i in range(16)] and time.tolist() == [1.0 + i for i in range(16)]
