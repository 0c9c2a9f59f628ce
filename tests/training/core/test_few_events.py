"""The few-events model: its head is the fit, its limits are honest, and its checkpoint is an ordinary one."""

import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.training_runs import TINY_MODEL

import ecgdan_hf  # noqa: F401  # registers the pipelines
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.predict import predict
from ecgdan_hf.inference.rows import embed, score_rows
from ecgdan_hf.model.configuration_ecgdan import EcgDanSurvivalConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.model.risk_ecgdan import absolute_risk, baseline_hazard
from ecgdan_hf.training import finetune
from ecgdan_hf.training.arguments.fields import FinetuneArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.few_events import FewEventsHead

Build = Callable[..., FinetuneArguments]


def arguments(build: Build, encoder: Path, name: str = "few", **flags: Any) -> FinetuneArguments:
    given = {"method": "few-events", "covariates": "age,sex", "epochs": 60, "train_folds": "1-7", "test_folds": "8-10"}
    return build(name, checkpoint=str(encoder), **{**given, **flags})


@pytest.fixture(scope="module")
def run(module_finetune_args: Build, encoder: Path) -> tuple[FinetuneArguments, dict[str, Any]]:
    args = arguments(module_finetune_args, encoder)
    return args, finetune.finetune(args)


def prepared(args: FinetuneArguments) -> tuple[Any, Any]:
    model, extractor = load_checkpoint(str(args.output_dir))
    return model, rows.load_dataset(args, extractor)


def test_the_checkpoint_scores_what_the_run_reported_and_its_encoder_is_the_pretrained_one(run, encoder: Path) -> None:
    args, metrics = run
    model, dataset = prepared(args)
    found = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv", dtype={"record_id": str})
    assert set(found["part"]) == {"test"} and "valid" not in metrics
    position = {record: row for row, record in enumerate(dataset["record_id"])}
    scores = score_rows(model, dataset.select([position[record] for record in found["record_id"]]))
    assert scores == pytest.approx(found["log_hazard"].to_numpy(), abs=1e-4)
    before = load_checkpoint(encoder)[0].ecgdan.state_dict()
    assert all(torch.equal(weights, before[name]) for name, weights in model.ecgdan.state_dict().items())
    assert metrics["method"] == "few-events" and metrics["num_events"]["train"] > 0
    assert sum(metrics["log_hazard_sd"]["posterior"]) == pytest.approx(1.0, abs=1e-4)


def test_validation_patients_are_fitted_to_as_well(run) -> None:
    args, metrics = run
    folds = np.asarray(prepared(args)[1]["fold"])
    assert metrics["num_records"] == {"train": int((folds <= 7).sum()), "test": int((folds >= 8).sum())}


def random_head(num: int = 400, width: int = 16, seed: int = 0) -> tuple[FewEventsHead, tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(seed)
    embeddings, covariates = rng.normal(2.0, 1.0, (num, width)) * np.linspace(0.2, 2, width), rng.normal(size=(num, 2))
    truth = 0.3 * embeddings[:, -1] + 0.5 * covariates[:, 0]
    time = rng.exponential(np.exp(-truth))
    end = np.quantile(time, 0.2)
    data = embeddings, covariates, (time <= end).astype(float), np.minimum(time, end)
    return FewEventsHead.fit(*data), data


def test_the_stored_head_is_the_fit_and_its_standard_error_that_of_the_posterior() -> None:
    head, (embeddings, covariates, *_) = random_head()
    torch.manual_seed(0)
    config = EcgDanSurvivalConfig(**TINY_MODEL, survival_hidden_size=0, covariate_names=["a", "b"])
    model = EcgDanForSurvival(config).eval()
    head.store_in(model)
    pooled, known = torch.from_numpy(embeddings).float(), torch.from_numpy(covariates).float()
    scores = model.risk_head(pooled) + model.covariate_head(known)
    assert scores.squeeze(-1).detach().numpy() == pytest.approx(head.log_hazard(embeddings, covariates), abs=1e-4)
    scaled = head.cox.scaling(np.hstack([covariates, head.components(embeddings)])) - head.cox.center
    expected = np.sqrt(np.einsum("ni,ij,nj->n", scaled, head.cox.covariance, scaled))
    assert model.risk_head.standard_error(pooled, known)[:, 0].numpy() == pytest.approx(expected, rel=1e-3)
    assert np.ptp(expected) > 0.1  # those unlike the others are known less well


def test_limits_hold_the_uncertainty_of_the_coefficients_and_survive_saving(run, tmp_path: Path) -> None:
    args, _ = run
    model, dataset = prepared(args)
    part = dataset.select(range(6)).with_format("torch")
    covariates = torch.tensor([[60.0, 1.0]] * 6)
    inputs = {"input_values": part["input_values"][:], "lead_mask": part["lead_mask"][:], "covariates": covariates}
    output = model(**inputs, return_loss=False)
    found = model.predict_risk_interval(**inputs, horizon_years=5.0)
    alone = absolute_risk(output.log_hazard, model.baseline.fitted, torch.tensor([5.0]))
    assert (output.log_hazard_error > 0.05).all()
    assert (found.low < alone.low[:, 0]).all() and (found.high > alone.high[:, 0]).all()
    assert torch.allclose(found.risk, alone.risk[:, 0])
    model.save_pretrained(tmp_path)
    again = EcgDanForSurvival.from_pretrained(tmp_path).eval()(**inputs, return_loss=False)
    assert torch.allclose(again.log_hazard_error, output.log_hazard_error)
    model.config.calibration_slope = 0.5
    assert torch.allclose(model(**inputs, return_loss=False).log_hazard_error, output.log_hazard_error / 2)


def test_pipeline_prediction_and_onnx_take_it_as_any_survival_checkpoint(run, cohort: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from transformers import pipeline

    from ecgdan_hf.publish.export import export_onnx

    folder = str(run[0].output_dir)
    file = sorted((cohort / "records").rglob("*.hea"))[0]
    model, extractor = load_checkpoint(folder)
    row = predict(file, model, extractor, missing_covariates="mean").iloc[0]
    answer = pipeline("ecg-survival", model=folder)(str(file), horizon_years=5)
    assert answer["log_hazard"] == pytest.approx(row["log_hazard"], abs=1e-5)
    (risk,) = answer["risk"]
    assert risk["low"] < risk["risk"] < risk["high"]
    assert export_onnx(folder, tmp_path / "few.onnx").path.is_file()


def test_limits_of_95_percent_cover_the_true_risk_at_thirty_events() -> None:
    covered = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        embeddings, covariates = rng.normal(size=(700, 20)), rng.normal(size=(700, 1))
        truth = embeddings @ rng.normal(0, 0.5 / np.sqrt(20), 20) + 0.4 * covariates[:, 0]
        happens = rng.exponential(np.exp(-truth) / 0.012)  # in years: some 30 of 500 events by year 5
        time = np.minimum(happens, 5.0)
        fit = slice(0, 500)
        given = (happens <= 5.0).astype(float)[fit], time[fit]
        head = FewEventsHead.fit(embeddings[fit], covariates[fit], *given)
        fitted = torch.from_numpy(head.log_hazard(embeddings, covariates))
        scaled = head.cox.scaling(np.hstack([covariates, head.components(embeddings)])) - head.cox.center
        error = torch.from_numpy(np.sqrt(np.einsum("ni,ij,nj->n", scaled, head.cox.covariance, scaled)))
        baseline = baseline_hazard(fitted[fit], *map(torch.from_numpy, given))
        limits = absolute_risk(fitted[500:], baseline, torch.tensor([4.9]), standard_error=error[500:])
        true = torch.from_numpy(-np.expm1(-0.012 * 4.9 * np.exp(truth[500:])))
        covered.append(((limits.low[:, 0] <= true) & (true <= limits.high[:, 0])).double().mean().item())
    assert 0.9 < np.mean(covered) < 0.99


def test_two_thousand_records_take_seconds() -> None:
    rng = np.random.default_rng(0)
    embeddings, covariates = rng.normal(size=(2000, 256)), rng.normal(size=(2000, 2))
    event, time = (rng.random(2000) < 0.1).astype(float), rng.exponential(size=2000) + 1e-3
    began = clock.process_time()
    FewEventsHead.fit(embeddings, covariates, event, time)
    assert clock.process_time() - began < 10


def test_without_a_recipe_few_events_decide_the_method_and_it_is_said(
    finetune_args: Build, encoder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = arguments(finetune_args, encoder, method="auto")
    assert finetune.finetune(args)["method"] == "few-events"
    assert "method: few-events, because there are" in capfd.readouterr().err
    monkeypatch.setattr(finetune, "FEW_EVENTS", 3)
    assert finetune._method_of(args, rows.split) == "fine-tune"
    assert "(at least 3); --method decides otherwise" in capfd.readouterr().err
    monkeypatch.undo()
    assert finetune._method_of(arguments(finetune_args, encoder, epochs=2, method="auto"), rows.split) == "fine-tune"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, "epochs: only method fine-tune uses it, got method few-events; leave it out"),
        ({"lora_rank": 2}, "lora_rank: only method fine-tune uses it"),
        ({"task": "classification"}, "method: expected fine-tune or linear for task classification"),
    ],
)
def test_arguments_that_it_would_ignore_are_refused(finetune_args: Build, encoder: Path, change, message) -> None:
    with pytest.raises(ValueError, match=message):
        finetune.finetune(arguments(finetune_args, encoder, **{"covariates": None, **change}))


def test_the_ecg_alone_is_enough(finetune_args: Build, encoder: Path) -> None:
    metrics = finetune.finetune(arguments(finetune_args, encoder, "alone", covariates=None))
    assert "covariates" not in metrics and metrics["num_records"]["test"] > 0


def test_it_needs_an_encoder(finetune_args: Build) -> None:
    with pytest.raises(ValueError, match="checkpoint: method few-events needs a pretrained encoder"):
        finetune.finetune(finetune_args("none", method="few-events", epochs=60))


def test_embeddings_are_those_of_the_leads_that_are_asked_for(finetune_args: Build, encoder: Path) -> None:
    args = arguments(finetune_args, encoder, "one", leads="I")
    finetune.finetune(args)
    model, dataset = prepared(args)
    assert model.config.used_leads == ["I"] and not np.asarray(dataset["lead_mask"])[:, 1:].any()
    pooled = embed(model, dataset)
    found = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv", dtype={"record_id": str})
    row = list(dataset["record_id"]).index(found["record_id"][0])
    head = model.risk_head(torch.from_numpy(pooled[[row]]).float())
    age, male = (dataset["age"][row] - model.config.covariate_means[0]) / model.config.covariate_stds[0], None
    male = (float(dataset["sex"][row] == "male") - model.config.covariate_means[1]) / model.config.covariate_stds[1]
    term = model.covariate_head(torch.tensor([[age, male]], dtype=torch.float32))
    assert float((head + term.squeeze(-1)).detach()) == pytest.approx(found["log_hazard"][0], abs=1e-4)
