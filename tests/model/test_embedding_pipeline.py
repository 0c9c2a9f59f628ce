"""The pipeline `ecg-feature-extraction`: the encoder's vectors, whatever head the checkpoint has."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.danet_arguments import TINY_DANET as RESIDUAL
from tiny import TINY
from transformers import pipeline

from ecgdan_hf import (
    DanetConfig,
    DanetForSequenceClassification,
    EcgDanConfig,
    EcgDanFeatureExtractor,
    EcgDanForPreTraining,
    EcgDanForSequenceClassification,
    EcgDanForSurvival,
    EcgDanModel,
    EcgDanSurvivalConfig,
    EcgTextConfig,
    EcgTextModel,
)
from ecgdan_hf.publish.verify import _probe_inputs

TASK = "ecg-feature-extraction"
SMALL = {**TINY, "sampling_rate": 50}
TINY_DANET = {**RESIDUAL, "classifier_network": "ecgdan"}


def build(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "survival with covariates":
        return EcgDanForSurvival(EcgDanSurvivalConfig(**SMALL, covariate_names=["age"])).eval()
    if kind == "dual encoder":
        return EcgTextModel(EcgTextConfig(ecg_config=EcgDanConfig(**SMALL, text_embed_dim=8))).eval()
    if kind.startswith("danet"):
        module = kind.removeprefix("danet ")
        return DanetForSequenceClassification(DanetConfig(**TINY_DANET, waveform_module=module)).eval()
    heads = {"encoder": EcgDanModel, "pretrained": EcgDanForPreTraining, "classifier": EcgDanForSequenceClassification}
    return heads[kind](EcgDanConfig(**SMALL)).eval()


KINDS = ("encoder", "pretrained", "classifier", "survival with covariates", "dual encoder", "danet soft", "danet hard")


def recording(model: Any) -> dict[str, Any]:
    inputs = _probe_inputs(model)
    return {
        "signal": inputs["signal"],
        "sampling_rate": 500,
        "unit": "mV",
        "lead_names": inputs["lead_names"].tolist(),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_vector_is_the_encoder_s_pooled_output_for_every_head(kind: str, tmp_path: Path):
    model = build(kind)
    model.save_pretrained(tmp_path)
    EcgDanFeatureExtractor(**model.config.signal_contract).save_pretrained(tmp_path)
    embed, given = pipeline(TASK, model=str(tmp_path)), recording(model)
    inputs = embed.feature_extractor(**given, return_tensors="pt")
    covariates = {"covariates": torch.zeros(1, 1)} if "survival" in kind else {}
    with torch.no_grad():
        output = model(**inputs, **covariates, output_hidden_states=True)
    vector = embed(given)
    assert isinstance(vector, list)
    assert vector == pytest.approx(output.pooler_output[0].tolist(), abs=1e-5)
    tokens = embed(given, pooling="none", return_tensors=True)
    assert torch.allclose(tokens, output.hidden_states[-1][0], atol=1e-5) and tokens.ndim == 3
    assert torch.allclose(embed(given, pooling="mean", return_tensors=True), tokens.mean((0, 1)), atol=1e-5)


def test_the_mean_leaves_out_leads_that_were_not_recorded():
    model = build("encoder")
    extractor = EcgDanFeatureExtractor(**model.config.signal_contract)
    embed, given = pipeline(TASK, model=model, feature_extractor=extractor, return_tensors=True), recording(model)
    few = given | {"signal": given["signal"][[6, 7, 8]], "lead_names": ["V1", "V2", "V3"]}
    tokens = embed(few, pooling="none")
    assert torch.allclose(embed(few, pooling="mean"), tokens[6:9].mean((0, 1)), atol=1e-6)
    batch = embed([few, given], pooling="mean", batch_size=2)
    assert torch.allclose(batch[0], embed(few, pooling="mean"), atol=1e-5)


def test_lists_stack_into_a_matrix_and_flags_come_where_asked_for():
    model = build("encoder")
    extractor = EcgDanFeatureExtractor(**model.config.signal_contract)
    embed, given = pipeline(TASK, model=model, feature_extractor=extractor), recording(model)
    assert np.array(embed([given, given], batch_size=2)).shape == (2, SMALL["hidden_size"])
    answer = embed(given, return_flags=True)
    assert set(answer) == {"features", "flags"} and answer["features"] == embed(given)
    assert "resampled:500Hz" in answer["flags"]


def test_a_pooling_that_cannot_be_served_is_refused():
    model = build("danet soft")
    embed = pipeline(TASK, model=model, feature_extractor=EcgDanFeatureExtractor(**model.config.signal_contract))
    with pytest.raises(ValueError, match=r"^pooling: expected one of pooler, mean, none, got 'max'$"):
        embed(recording(model), pooling="max")
    plain = DanetForSequenceClassification(DanetConfig(**RESIDUAL)).eval()
    embed = pipeline(TASK, model=plain, feature_extractor=embed.feature_extractor)
    assert len(embed(recording(plain))) == plain.config.hidden_size
    with pytest.raises(
        ValueError, match=r"^pooling: expected 'pooler', as a residual network has no tokens, got 'mean'$"
    ):
        embed(recording(plain), pooling="mean")
