"""A dual encoder on the Hub: its language model and its tokenizer travel with it."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from warm import WARM

from ecgdan_hf import EcgDanConfig, EcgDanFeatureExtractor, EcgTextConfig, EcgTextModel, EcgTextProcessor
from ecgdan_hf.publish.bundle import make_bundle
from ecgdan_hf.publish.verify import pipelines_of

ECG = {"trunk_channels": [2, 2, 4, 4, 4], "num_attention_heads": 2, "hidden_size": 16, "stem_features": 2}
LANGUAGE = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}

STRANGER = """
import sys, transformers
sys.modules["ecgdan_hf"] = None
processor = transformers.AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
model = transformers.AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
tokens = processor(text=["sinus rhythm", "sinus"], return_tensors="pt")
print(type(processor).__name__, model.get_text_features(**tokens).pooler_output.sum().item())
"""


def dual_encoder() -> tuple[EcgTextModel, Any]:
    """A dual encoder that stores its language model, and the tokenizer of that; no cached prompts."""
    torch.manual_seed(0)
    model = EcgTextModel(EcgTextConfig(ecg_config=EcgDanConfig(**ECG, text_embed_dim=8)))
    model.load_text_model(BertModel(BertConfig(**LANGUAGE, intermediate_size=8)))
    model.set_text_tower("full")
    words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "sinus": 2, "rhythm": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    return model.eval(), tokenizer


def test_a_stranger_embeds_texts_with_the_bundle_alone(tmp_path: Path):
    model, tokenizer = dual_encoder()
    processor = EcgTextProcessor(EcgDanFeatureExtractor(**model.config.signal_contract), tokenizer)
    model.save_pretrained(tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    folder = make_bundle(tmp_path / "run", tmp_path / "bundle")
    expected = model.get_text_features(**processor(text=["sinus rhythm", "sinus"], return_tensors="pt"))
    command = [sys.executable, "-I", "-c", STRANGER, str(folder)]
    environment = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = WARM.run(command, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-800:]
    name, total = done.stdout.split()
    assert name == "EcgTextProcessor"
    assert abs(float(total) - expected.pooler_output.sum().item()) < 1e-4
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["auto_map"]["AutoProcessor"] == "processing_ecgdan.EcgTextProcessor"
    # the bundle's proof asked it for texts, with the language model it stores
    assert set(config["custom_pipelines"]) == {"zero-shot-ecg-classification", "ecg-feature-extraction"}


def test_a_dual_encoder_without_language_model_and_prompts_promises_no_zero_shot():
    model, _ = dual_encoder()
    assert "zero-shot-ecg-classification" in [pipeline.serves for pipeline in pipelines_of(model)]
    model.config.store_text_model = False
    assert [pipeline.serves for pipeline in pipelines_of(model)] == ["ecg-feature-extraction"]
    model.set_prompts(["NORM"], torch.randn(1, 8))
    assert "zero-shot-ecg-classification" in [pipeline.serves for pipeline in pipelines_of(model)]
