"""The ECG-text dual encoder: losses by hand, both ways to save it, LoRA, and the frozen language model."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny import TINY, signals
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoProcessor,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)

from ecgdan_hf import (
    STANDARD_LEADS,
    EcgDanConfig,
    EcgDanFeatureExtractor,
    EcgDanForPreTraining,
    EcgTextConfig,
    EcgTextModel,
    EcgTextProcessor,
)

WIDTH = 16
BERT = {
    "vocab_size": 40,
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}
IDS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0], [2, 5, 6, 3]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]])
TEXTS = {"input_ids": IDS, "attention_mask": MASK}


def bert() -> BertModel:
    torch.manual_seed(1)
    return BertModel(BertConfig(**BERT)).eval()


def build(objective: str = "clip", text_model: BertModel | None = None) -> EcgTextModel:
    torch.manual_seed(0)
    config = EcgDanConfig(**TINY, text_embed_dim=WIDTH, alignment_objective=objective)
    model = EcgTextModel(EcgTextConfig(ecg_config=config))
    model.load_text_model(text_model or bert())
    return model.eval()


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    bert().save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_the_output_is_clips_and_the_loss_is_the_formulas():
    model = build()
    output = model(signals(3), **TEXTS)
    text = bert()(**TEXTS).last_hidden_state
    pooled = torch.stack([text[0].mean(0), text[1, :3].mean(0), text[2].mean(0)])
    expected = F.normalize(model.alignment_head.text_projection(pooled), dim=-1)
    torch.testing.assert_close(output.text_embeds, expected)
    logits = output.ecg_embeds @ expected.T / 0.07
    torch.testing.assert_close(output.logits_per_ecg, logits)
    torch.testing.assert_close(output.logits_per_text, logits.T)
    target = torch.tensor([[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]])  # texts 0 and 2 are equal
    by_hand = (
        -(target * logits.log_softmax(1)).sum(1).mean() / 2 - (target * logits.T.log_softmax(1)).sum(1).mean() / 2
    )
    torch.testing.assert_close(output.loss, by_hand)


def test_siglip_and_cosine_are_their_formulas_too():
    model = build("siglip")
    output = model(signals(3), **TEXTS)
    sign = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    logits = 10 * output.ecg_embeds @ output.text_embeds.T - 10
    torch.testing.assert_close(output.logits_per_ecg, logits)
    torch.testing.assert_close(output.loss, -F.logsigmoid(sign * logits).sum() / 3)
    output = build("cosine")(signals(3), **TEXTS)
    torch.testing.assert_close(output.loss, (1 - (output.ecg_embeds * output.text_embeds).sum(1)).mean())


def test_features_are_the_projected_unit_vectors_of_the_forward_pass():
    model, ecgs = build(), signals(3)
    output = model(ecgs, **TEXTS)
    torch.testing.assert_close(model.get_ecg_features(ecgs).pooler_output, output.ecg_embeds)
    torch.testing.assert_close(model.get_text_features(**TEXTS).pooler_output, output.text_embeds)
    assert model(ecgs).loss is None
    assert model(ecgs, **TEXTS, return_loss=False).loss is None
    assert model(ecgs[:2], **TEXTS).logits_per_ecg.shape == (2, 3)


def test_embeddings_computed_before_stand_for_their_texts():
    model = build()
    cached = EcgTextModel.mean_over_tokens(bert()(**TEXTS).last_hidden_state, MASK)
    before, now = model(signals(3), text_embeds=cached), model(signals(3), **TEXTS)
    torch.testing.assert_close(before.logits_per_ecg, now.logits_per_ecg)


def test_by_reference_the_text_model_is_left_out_and_comes_when_asked_for(bert_folder: Path, tmp_path: Path):
    model = build()
    model.config.text_model_name = str(bert_folder)
    model.set_prompts(["a", "b"], torch.randn(2, 3, WIDTH))
    before = model(signals(3), **TEXTS)
    model.save_pretrained(tmp_path / "saved")
    assert not any(name.startswith("text_model") for name in load_file(tmp_path / "saved" / "model.safetensors"))
    assert model.text_model is not None
    again, info = EcgTextModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert again.text_model is None
    torch.testing.assert_close(again(signals(3)).prompt_logits, before.prompt_logits, rtol=0, atol=0)
    assert again.text_model is None
    torch.testing.assert_close(again(signals(3), **TEXTS).logits_per_ecg, before.logits_per_ecg)
    assert again.text_model is not None


def test_stored_the_text_model_is_in_the_checkpoint(bert_folder: Path, tmp_path: Path):
    model = build()
    model.set_text_tower("full")
    before = model(signals(3), **TEXTS).logits_per_ecg
    model.save_pretrained(tmp_path / "saved")
    again, info = EcgTextModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert isinstance(again.text_model, BertModel)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    torch.testing.assert_close(again(signals(3), **TEXTS).logits_per_ecg, before, rtol=0, atol=0)


def test_a_text_model_that_is_not_there_is_missed_only_when_asked_for(tmp_path: Path):
    model = build()
    model.text_model, model.config.text_model_name = None, "nobody/nothing"
    assert model(signals(1)).ecg_embeds.shape == (1, 8)
    with pytest.raises(OSError, match=r"text_model: nobody/nothing is neither a folder nor cached.*prompts"):
        model(signals(3), **TEXTS)
    model.config.text_model_name = None
    with pytest.raises(ValueError, match="this checkpoint names none"):
        model.get_text_features(IDS)


def test_a_frozen_text_model_gets_no_gradient_and_no_dropout():
    model = build().train()
    model(signals(3), **TEXTS).loss.backward()
    assert all(parameter.grad is None for parameter in model.text_model.parameters())
    assert not model.text_model.training
    torch.testing.assert_close(
        model.get_text_features(**TEXTS).pooler_output, model.get_text_features(**TEXTS).pooler_output
    )


@pytest.mark.parametrize("tower", ["full", "lora"])
def test_a_trained_text_model_changes_and_is_saved(tower: str, tmp_path: Path):
    if tower == "lora":
        pytest.importorskip("peft")
    model = build()
    model.set_text_tower(tower, lora_rank=2)
    model.train()
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.5)
    for _ in range(2):  # LoRA's first matrix moves once its second is not zero
        optimizer.zero_grad()
        model(signals(3), **TEXTS).loss.backward()
        silent = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
        assert silent == []
        optimizer.step()
    model.eval()
    trained = model(signals(3), **TEXTS).text_embeds
    if tower == "lora":
        with pytest.raises(ValueError, match="call merge_text_lora first"):
            model.save_pretrained(tmp_path)
    model.merge_text_lora()
    torch.testing.assert_close(model(signals(3), **TEXTS).text_embeds, trained, atol=1e-5, rtol=1e-4)
    assert sorted(model.text_model.state_dict()) == sorted(bert().state_dict())
    query = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(model.text_model.state_dict()[query], bert().state_dict()[query])
    model.save_pretrained(tmp_path)
    again = EcgTextModel.from_pretrained(tmp_path)
    torch.testing.assert_close(again(signals(3), **TEXTS).text_embeds, trained, atol=1e-5, rtol=1e-4)


def test_a_pretraining_checkpoint_becomes_a_dual_encoder(tmp_path: Path, bert_folder: Path):
    torch.manual_seed(0)
    config = EcgDanConfig(**TINY, text_embed_dim=WIDTH, text_model_name="owner/encoder", text_model_revision="v1")
    source = EcgDanForPreTraining(config).eval()
    source.set_prompts(["NORM", "MI"], torch.randn(2, WIDTH))
    source.save_pretrained(tmp_path / "pretrained")
    expected = source(signals(2))
    for given in (source, tmp_path / "pretrained"):
        model = EcgTextModel.from_ecgdan(given, text_model=str(bert_folder))
        torch.testing.assert_close(model(signals(2)).ecg_embeds, expected.ecg_embeds, rtol=0, atol=0)
        torch.testing.assert_close(model(signals(2)).prompt_logits, expected.prompt_logits, rtol=0, atol=0)
        assert (model.config.text_model_name, model.config.text_model_revision) == ("owner/encoder", "v1")
        assert model(signals(3), **TEXTS).loss > 0


def test_what_does_not_fit_is_refused_in_one_line():
    model = build()
    wide = BertModel(BertConfig(**{**BERT, "hidden_size": 32}))
    with pytest.raises(ValueError, match="text_model: expected the one of pretraining, 16 wide, got one 32 wide"):
        model.load_text_model(wide)
    with pytest.raises(ValueError, match="text_tower: expected one of frozen, lora, full"):
        model.set_text_tower("half")
    with pytest.raises(ValueError, match=r"text_embeds: expected \(1, \[templates,\] 16\)"):
        model.set_prompts(["a"], torch.randn(2, WIDTH))
    with pytest.raises(ValueError, match="no alignment head"):
        EcgTextModel.from_ecgdan(EcgDanForPreTraining(EcgDanConfig(**TINY)))
    with pytest.raises(ValueError, match="needs a text_config"):
        EcgTextConfig(store_text_model=True)
    with pytest.raises(ValueError, match="text_embed_dim 8, got 16"):
        EcgTextConfig(ecg_config={**TINY, "text_embed_dim": 8}, text_config=BertConfig(**BERT))


def test_lora_without_peft_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ValueError, match="pip install peft"):
        build().set_text_tower("lora")


def test_configuration_and_model_come_back_through_the_auto_classes(tmp_path: Path):
    model = build()
    model.set_text_tower("full")
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, EcgTextConfig)
    assert config.text_config.hidden_size == WIDTH
    assert config.ecg_config.trunk_channels == TINY["trunk_channels"]
    assert config.to_dict()["ecg_config"]["num_samples"] == 64
    assert isinstance(AutoModel.from_pretrained(tmp_path), EcgTextModel)


def test_a_checkpoint_with_lost_weights_has_no_raw_memory_in_it(tmp_path: Path):
    model = build()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "alignment_head" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = EcgTextModel.from_pretrained(tmp_path)
    assert again.alignment_head.log_logit_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-5)
    assert all(value.isfinite().all() for value in again.state_dict().values() if value.is_floating_point())


def test_the_processor_prepares_ecgs_and_texts_and_comes_back(tmp_path: Path):
    model, tokenizer = build(), a_tokenizer()
    extractor = EcgDanFeatureExtractor(**model.config.signal_contract)
    processor = EcgTextProcessor(extractor, tokenizer)
    record = {"sampling_rate": 500, "unit": "mV", "lead_names": list(STANDARD_LEADS)}
    ecg = synthetic_recording()
    found = processor(ecg=ecg, text=["sinus rhythm", "old infarct of the heart"], **record, return_tensors="pt")
    assert found["input_values"].shape == (1, 12, 64)
    assert found["input_ids"].shape == found["attention_mask"].shape
    assert model(**found).logits_per_ecg.shape == (1, 2)
    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    for again in (EcgTextProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(again, EcgTextProcessor)
        assert again.feature_extractor.to_dict() == extractor.to_dict()
        same = again(ecg=ecg, text=["sinus rhythm", "old infarct of the heart"], **record, return_tensors="pt")
        assert all(torch.equal(same[name], found[name]) for name in found)
    assert AutoFeatureExtractor.from_pretrained(tmp_path).to_dict() == extractor.to_dict()


def test_the_processor_does_without_a_tokenizer_until_there_is_text(tmp_path: Path):
    model = build()
    processor = EcgTextProcessor(EcgDanFeatureExtractor(**model.config.signal_contract))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for again in (EcgTextProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert again.tokenizer is None
        assert again.model_input_names == ["input_values", "lead_mask"]
        with pytest.raises(ValueError, match="text: needs the language model's tokenizer"):
            again(text="sinus rhythm")
        with pytest.raises(ValueError, match="expected at least one of them"):
            again()


def a_tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "sinus", "rhythm", "old", "infarct", "of", "the", "heart"]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def synthetic_recording() -> np.ndarray:
    """(12, 5000), ten seconds of beats at 500 Hz."""
    time = np.arange(5000) / 500
    beat = sum(np.exp(-0.5 * ((time - start) / 0.012) ** 2) for start in np.arange(0.5, 10, 0.8))
    return np.linspace(0.4, 1.4, 12)[:, None] * beat + 0.05 * np.sin(2 * np.pi * time)
