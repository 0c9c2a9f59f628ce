"""The stock Trainer of transformers trains every head; evaluation gives the loss, and the metrics of our modules.

Gradient accumulation gives the update of the large batch where the loss is a mean over records. It cannot where a
record's loss depends on who else is in the batch: the Cox loss (risk sets) and the contrastive one (negatives). Norms
are in evaluation mode here, for batch statistics too depend on the batch.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heads import TRAINED, build, inputs, learnable
from torch import nn
from transformers import Trainer, TrainingArguments

from ecgdan_hf.evaluation.measures.concordance import concordance_index
from ecgdan_hf.evaluation.metrics import metric_path

LABELS = {"survival": ["event", "time"]}
MEAN_OVER_RECORDS = ("classification", "danet", "danet-pretraining")
DEPENDS_ON_THE_BATCH = ("survival", "ecg-text", "pretraining")


def rows(name: str, n: int, single_label: bool = False) -> list[dict[str, torch.Tensor]]:
    batch = learnable(name, n)
    if single_label:
        batch["labels"] = batch["labels"].argmax(-1)
    return [{key: value[row] for key, value in batch.items()} for row in range(n)]


class FixedNorms(Trainer):
    """Norms keep their statistics, so that a record's answer does not depend on the batch."""

    def training_step(self, model: nn.Module, *args, **kwargs) -> torch.Tensor:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        model.train = lambda mode=True: model
        return super().training_step(model, *args, **kwargs)


def trainer(
    name: str, folder: Path, kind: type[Trainer] = Trainer, n: int = 16, problem_type: str | None = None, **options
) -> Trainer:
    settings = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "use_cpu": True}
    settings |= {"label_names": LABELS[name]} if name in LABELS else {}
    arguments = TrainingArguments(output_dir=str(folder), **{**settings, **options})
    model, given = build(name), rows(name, n, single_label=problem_type == "single_label_classification")
    model.config.problem_type = problem_type or model.config.problem_type
    return kind(model, arguments, train_dataset=given, eval_dataset=given)


def whole(name: str, model: nn.Module, n: int = 16) -> float:
    with torch.no_grad():
        return float(model.eval()(**learnable(name, n)).loss)


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_goes_down_and_evaluation_reports_it(name: str, tmp_path: Path):
    train = trainer(
        name, tmp_path, max_steps=6, per_device_train_batch_size=16, per_device_eval_batch_size=16, learning_rate=5e-3
    )
    before = train.evaluate()["eval_loss"]
    assert before == pytest.approx(whole(name, build(name)), rel=1e-4)
    train.train()
    logged = [entry["loss"] for entry in train.state.log_history if "loss" in entry]
    assert logged[-1] < logged[0]


@pytest.mark.parametrize("name", TRAINED)
def test_a_last_batch_of_one_record_is_trained_on(name: str, tmp_path: Path):
    train = trainer(name, tmp_path, n=5, per_device_train_batch_size=4, num_train_epochs=1)
    train.train()
    assert train.state.global_step == 2
    assert all(bool(weights.isfinite().all()) for weights in train.model.parameters())


def update(name: str, folder: Path, **options) -> dict[str, torch.Tensor]:
    """What one optimizer step of plain gradient descent adds to each weight."""
    before = build(name).state_dict()
    train = trainer(name, folder, FixedNorms, max_steps=1, optim="sgd", max_grad_norm=0, learning_rate=1.0, **options)
    train.train()
    after = train.model.state_dict()
    return {key: after[key] - before[key] for key in before if before[key].is_floating_point()}


def apart(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Distance of two updates over their length."""
    one, other = (torch.cat([value.flatten() for value in each.values()]) for each in (first, second))
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize("name", [*MEAN_OVER_RECORDS, "survival", "ecg-text"])
def test_accumulated_gradients_are_those_of_the_large_batch_where_the_loss_is_a_mean(name: str, tmp_path: Path):
    large = update(name, tmp_path / "large", per_device_train_batch_size=16)
    small = update(name, tmp_path / "small", per_device_train_batch_size=4, gradient_accumulation_steps=4)
    if name in MEAN_OVER_RECORDS:
        assert apart(large, small) < 1e-4
    else:
        assert apart(large, small) > 1e-2  # and that it cannot be is no rounding


@pytest.mark.parametrize("name", DEPENDS_ON_THE_BATCH)  # the others' update is compared above
def test_accumulation_does_not_inflate_the_reported_loss(name: str, tmp_path: Path):
    options = {"max_steps": 1, "learning_rate": 0.0, "per_device_train_batch_size": 4}
    train = trainer(name, tmp_path, FixedNorms, gradient_accumulation_steps=4, **options)
    train.train()
    logged = next(entry["loss"] for entry in train.state.log_history if "loss" in entry)
    batches = [{key: value[i : i + 4] for key, value in learnable(name, 16).items()} for i in range(0, 16, 4)]
    with torch.no_grad():
        losses = [float(build(name)(**batch).loss) for batch in batches]
    # the sampler shuffles, and some losses depend on who is in the batch; four times too large would be far off
    assert logged == pytest.approx(np.mean(losses), rel=0.5)


@pytest.mark.parametrize("name", ["survival", "danet"])  # either trunk
def test_gradient_checkpointing_gives_the_same_update(name: str, tmp_path: Path):
    plain = update(name, tmp_path / "plain", per_device_train_batch_size=16)
    saved = update(name, tmp_path / "saved", per_device_train_batch_size=16, gradient_checkpointing=True)
    assert apart(plain, saved) < 1e-5


def test_a_run_resumed_from_trainers_checkpoint_ends_with_the_same_weights(tmp_path: Path):
    options = {"max_steps": 4, "save_steps": 2, "save_strategy": "steps", "per_device_train_batch_size": 8}
    first = trainer("survival", tmp_path, **options)
    first.train()
    assert (tmp_path / "checkpoint-2" / "model.safetensors").is_file() and not list(tmp_path.rglob("pytorch_model*"))
    again = trainer("survival", tmp_path, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    expected = first.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in again.model.state_dict().items())


def test_metrics_of_classification_come_from_our_evaluate_module(evaluate: Any, tmp_path: Path):
    metric = evaluate.load(metric_path("macro_auroc"), cache_dir=str(tmp_path / "cache"))

    def judge(prediction) -> dict[str, float]:
        return metric.compute(predictions=prediction.predictions, references=prediction.label_ids)

    train = trainer("classification", tmp_path, per_device_eval_batch_size=8)
    train.compute_metrics = judge
    found = train.evaluate()
    assert 0 <= found["eval_macro_auroc"] <= 1 and "eval_loss" in found


def test_metrics_of_survival_see_event_and_time(evaluate: Any, tmp_path: Path):
    metric = evaluate.load(metric_path("concordance_index"), cache_dir=str(tmp_path / "cache"))
    seen = {}

    def judge(prediction) -> dict[str, float]:
        seen["event"], seen["time"] = prediction.label_ids
        return metric.compute(predictions=prediction.predictions, event=seen["event"], time=seen["time"])

    train = trainer("survival", tmp_path, per_device_eval_batch_size=8)
    train.compute_metrics = judge
    found, batch = train.evaluate(), learnable("survival", 16)
    with torch.no_grad():
        log_hazard = build("survival")(**batch).log_hazard
    expected = concordance_index(batch["event"].numpy(), batch["time"].numpy(), log_hazard.numpy())
    assert found["eval_concordance_index"] == pytest.approx(expected)
    assert seen["event"].tolist() == batch["event"].tolist()
    assert seen["time"].tolist() == pytest.approx(batch["time"].tolist())


@pytest.mark.parametrize("name", ["classification", "danet", "danet-hard"])
def test_the_compute_metrics_of_the_transformers_course_works_unchanged(name: str, tmp_path: Path):
    def compute_metrics(eval_pred) -> dict[str, float]:
        predictions, labels = eval_pred
        predictions = np.argmax(predictions, axis=-1)
        return {"accuracy": float((predictions == labels).mean())}

    train = trainer(name, tmp_path, problem_type="single_label_classification", per_device_eval_batch_size=8)
    train.compute_metrics = compute_metrics
    batch = learnable(name, 16)
    with torch.no_grad():
        logits = train.model.eval()(**inputs(name, 16)).logits
    expected = float((logits.argmax(-1) == batch["labels"].argmax(-1)).float().mean())
    assert train.evaluate()["eval_accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("name", [*TRAINED, "danet-hard"])
def test_what_trainer_saves_loads_without_a_warning(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    train = trainer(name, tmp_path)
    train.save_model(str(tmp_path / "saved"))
    logging.Logger.warning_once.cache_clear()
    kind = logging.getLogger("ecgdan_hf.model.configuration_ecgdan")
    kind.addHandler(caplog.handler)
    type(train.model).from_pretrained(tmp_path / "saved")
    kind.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
