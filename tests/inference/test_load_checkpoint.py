"""Loading a checkpoint as the class it says it is."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from warm import WARM

from ecgdan_hf import EcgTextConfig, EcgTextModel
from ecgdan_hf.inference.checkpoints import load_checkpoint, load_config, repository_and_revision
from ecgdan_hf.inference.heads import HEADS
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSequenceClassification, EcgDanForSurvival, EcgDanPreTrainedModel
from ecgdan_hf.training.core.starting_weights import build_model

PAPER = {"trunk": "paper", "trunk_channels": [2, 2, 4, 4, 4]}
TINY = {**PAPER, "num_attention_heads": 2, "hidden_size": 16, "stem_features": 2}


def saved(
    model_class: type[EcgDanPreTrainedModel], folder: Path, with_extractor: bool = True, **fields: object
) -> Path:
    if model_class is EcgTextModel:
        config = EcgTextConfig(ecg_config={**TINY, "input_kind": "rhythm", "text_embed_dim": 8, **fields})
    else:
        config = model_class.config_class(**TINY, input_kind="rhythm", **fields)
    model_class(config).save_pretrained(folder)
    if with_extractor:
        EcgDanFeatureExtractor(**config.signal_contract).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model_class", [head.model_class for head in HEADS.values()])
def test_every_model_comes_back_as_itself_with_its_weights(
    model_class: type[EcgDanPreTrainedModel], tmp_path: Path
) -> None:
    folder = saved(model_class, tmp_path / "run")
    model, extractor = load_checkpoint(folder)
    assert type(model) is model_class
    assert not model.training
    assert extractor.input_kind == "rhythm"
    expected = model_class.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_without_a_saved_feature_extractor_the_configuration_makes_it(tmp_path: Path) -> None:
    folder = saved(EcgDanForSurvival, tmp_path / "run", with_extractor=False, normalization="global")
    extractor = load_checkpoint(folder)[1]
    assert (extractor.normalization, extractor.num_samples) == ("global", 1024)


def test_a_feature_extractor_for_another_signal_is_refused(tmp_path: Path) -> None:
    folder = saved(EcgDanForSurvival, tmp_path / "run")
    path = folder / "preprocessor_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"normalization": "global"}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="normalization: expected the model's per_lead_zscore, got global"):
        load_checkpoint(folder)


def test_missing_and_foreign_weights_are_refused_instead_of_random_ones_used(tmp_path: Path) -> None:
    folder = saved(EcgDanForSequenceClassification, tmp_path / "run")
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("classifier.output.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing, for example classifier.output.weight"):
        load_checkpoint(folder)
    save_file(
        {**weights, "classifier.output.weight": head, "extra": head.clone()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ValueError, match="1 weights are unexpected, for example extra"):
        load_checkpoint(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_to_predict_and_to_train_from(value: float, tmp_path: Path) -> None:
    folder = saved(EcgDanForSequenceClassification, tmp_path / "run")
    weights = load_file(folder / "model.safetensors")
    weights["ecgdan.stem.conv1.weight"].view(-1)[3] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = r"run: expected finite weights, found NaN or infinity in 1 of \d+, for example ecgdan.stem.conv1.weight"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder)
    with pytest.raises(ValueError, match=message):
        build_model(EcgDanForSequenceClassification, load_config(folder), str(folder))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"hidden_size": "wide"}, "not a checkpoint of this package: .*'hidden_size' expected int"),
        ("config.json", {"id2label": [1]}, "not a checkpoint of this package: "),
        ("config.json", {"dtype": "float-what"}, "not a checkpoint of this package|do not fit the configuration"),
        ("config.json", {"trunk_channels": []}, "not a checkpoint of this package|do not fit the configuration"),
        ("config.json", {"model_type": {"a": 1}}, "not a checkpoint of this package"),
        (
            "config.json",
            {"num_labels": 10**9},
            "config.json: num_labels: expected a number within 1,000,000",
        ),
        ("config.json", {"global_std_mv": float("nan")}, "config.json: global_std_mv: expected a number within"),
        ("config.json", "{" * 100_000, "config.json"),
        ("config.json", "", "config.json cannot be read"),
        ("preprocessor_config.json", {"sampling_rate": "fast"}, "preprocessor_config.json: "),
        ("preprocessor_config.json", {"pad_samples": [1]}, "preprocessor_config.json: "),
        ("preprocessor_config.json", {"num_samples": 10**12}, "preprocessor_config.json: num_samples: expected a num"),
        ("preprocessor_config.json", "[1, 2", "preprocessor_config.json cannot be read"),
    ],
)
def test_an_odd_configuration_is_refused_in_one_line_before_anything_is_built(
    file: str, change: dict | str, message: str, tmp_path: Path
) -> None:
    path = saved(EcgDanForSequenceClassification, tmp_path / "run") / file
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(change if isinstance(change, str) else json.dumps(content | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(path.parent)
    assert "\n" not in str(caught.value)


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "config.json").write_text(json.dumps({"model_type": "unheard-of"}), encoding="utf-8")
    no_weights = saved(EcgDanForSurvival, tmp_path / "no-weights")
    (no_weights / "model.safetensors").unlink()
    odd = saved(EcgDanForSurvival, tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text(encoding="utf-8"))
    (odd / "config.json").write_text(json.dumps(config | {"architectures": ["SomethingElse"]}), encoding="utf-8")
    cut = saved(EcgDanForSurvival, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-100])
    for source, kind, message in (
        (tmp_path / "absent", FileNotFoundError, "no such checkpoint folder"),
        (tmp_path / "crut", FileNotFoundError, f"no such checkpoint folder; did you mean {tmp_path / 'cut'}?"),
        (tmp_path / "empty", ValueError, r"expected a checkpoint folder with config\.json, found none"),
        (tmp_path / "bert" / "config.json", ValueError, "expected a checkpoint folder, found a file"),
        (tmp_path / "bert", ValueError, "model_type: expected one of ecgdan, .*got 'bert'"),
        (tmp_path / "unknown", ValueError, "not a checkpoint of this package"),
        (no_weights, ValueError, "the weights cannot be read"),
        (odd, ValueError, "architectures: expected one of .*, got 'SomethingElse'"),
        ("someone/absent", FileNotFoundError, "no such checkpoint folder, not in the Hub cache, .*OFFLINE is set"),
        ("someone/absent@v1", FileNotFoundError, "no such checkpoint folder, not in the Hub cache"),
        (f"{odd}@v1", ValueError, "expected a folder, or USER/NAME@REVISION on the Hub"),
        ("someone/absent@", ValueError, "expected a folder, or USER/NAME@REVISION on the Hub"),
        (cut, ValueError, "the weights cannot be read: .*incomplete metadata"),
    ):
        with pytest.raises(kind, match=message) as caught:
            load_checkpoint(source)
        assert "\n" not in str(caught.value)


def test_a_mistyped_name_fails_at_once_without_a_network_and_suggests_folders_of_similar_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(EcgDanForSurvival, tmp_path / "runs" / "survival")
    monkeypatch.chdir(tmp_path)
    program = """if True:
        import sys, time
        from ecgdan_hf.inference.checkpoints import load_config
        waits = []
        time.sleep = waits.append
        for name in sys.argv[1:]:
            try:
                load_config(name)
            except FileNotFoundError as error:
                print(error, waits, sep="|")
    """
    names = ("runs/survivel", "run/survival")
    with socket.socket() as closed:  # bound and not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        hub = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}"}
        call = [sys.executable, "-c", program, *names]
        done = WARM.run(call, env={**os.environ, **hub}, check=True)
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        message, waits = line.split("|")
        assert message.startswith(f"{name}: no such checkpoint folder, not in the Hub cache")
        assert message.endswith(f"did you mean {Path('runs', 'survival')}?")
        assert waits == "[]"  # the client would wait 23 seconds between its attempts


def test_a_configuration_copied_from_a_bundle_forgets_the_bundle(tmp_path: Path) -> None:
    folder = saved(EcgDanForSurvival, tmp_path / "run")
    path = folder / "config.json"
    bundled = {"auto_map": {"AutoModel": "modeling_ecgdan.EcgDanForSurvival"}, "ecgdan_code_revision": "abc"}
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | bundled), encoding="utf-8")
    load_config(folder).save_pretrained(tmp_path / "copy")
    assert not set(bundled) & set(json.loads((tmp_path / "copy" / "config.json").read_text(encoding="utf-8")))


def test_a_folder_whose_name_has_an_at_sign_is_a_folder(tmp_path: Path) -> None:
    folder = saved(EcgDanForSurvival, tmp_path / "someone" / "risk@home")
    assert repository_and_revision(folder) == (str(folder), "main")
    assert isinstance(load_checkpoint(folder)[0], EcgDanForSurvival)
    assert repository_and_revision("someone/risk@refs/pr/1") == ("someone/risk", "refs/pr/1")
