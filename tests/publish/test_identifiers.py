"""Identifiers that are planted in what is about to be published."""

import io
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from safetensors.torch import save_file

from ecgdan_hf.explain.page.paper import save_figure
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.publish.bundle import make_bundle
from ecgdan_hf.publish.card.model_card import build_card
from ecgdan_hf.publish.identifiers import check_identifiers, find_identifiers, known_of_run, read_known
from ecgdan_hf.publish.push import push_bundle

CARDS = Path(__file__).parents[2] / "model_cards"
KNOWN = ["Erika Mustermann", "Mustermann", "10457731", "E-00412-77"]
PLANTED = {
    "/home/erika/ecgs/001.xml": "absolute path",
    "file:///data/cohort-7/a.hea": "absolute path",
    "C:\\Users\\erika\\ecgs": "absolute path",
    "\\\\server\\share\\ecgs": "absolute path",
    "~/ecgs/table.csv": "absolute path",
    "erika.m@hospital.example.org": "e-mail address",
    "1951-03-07": "date",
    "07.03.1951": "date",
    "3/7/1951": "date",
    "19510307": "date",
    "7 March 1951": "date",
    "7. März 1951": "date",
    "March 7th, 1951": "date",
    "MRN: 4711882": "number of a person",
    '"patient_id": "00123456"': "number of a person",
    "078-05-1120": "number of a person",
    "MUSTERMANN^ERIKA": "name",
    "Patient name: Erika M": "name",
    "of Erika Mustermann": "name or id of the data",
    "ecg_10457731_lead": "name or id of the data",
    "E-00412-77": "name or id of the data",
}


def png(text: str, packed: bool) -> bytes:
    data = b"Comment\0\0" + zlib.compress(text.encode()) if packed else b"Comment\0" + text.encode("utf-8")
    kind = b"zTXt" if packed else b"tEXt"
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82"


def npz(text: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("names.npy", b"\x93NUMPY\0\0" + text.encode())
    return content.getvalue()


PLACES: dict[str, Callable[[str], bytes]] = {
    "README.md": lambda text: (
        f"---\nlicense: mit\n---\n# A model\n\nTrained on {text}.\n\n## Contact\n\na@b.org\n".encode()
    ),
    "recipe.yaml": lambda text: f"data_dir: {text}\n".encode(),
    "metrics.json": lambda text: json.dumps({"task": {"deep": [text]}}).encode(),
    "evaluation/predictions.csv": lambda text: f"file,risk\n{text},0.5\n".encode(),
    "code_ecgdan.py": lambda text: f"# {text}\n".encode(),
    "figure.svg": lambda text: f"<svg><!-- {text} --></svg>".encode(),
    "figure.png": lambda text: png(text, packed=False),
    "packed.png": lambda text: png(text, packed=True),
    "model.onnx": lambda text: b"\x08\x07\x12\0\x00\x93" + text.encode() + b"\x00\xff\x01",
    "rows.npz": npz,
}


@pytest.mark.parametrize("planted", PLANTED)
def test_an_identifier_is_found_in_every_kind_of_file(planted: str, tmp_path: Path) -> None:
    for place, write in PLACES.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(write(planted))
    save_file({"w": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"made": planted})
    pq.write_table(pa.table({"report": [planted], "record_id": ["r1"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"labels": [[planted]]}), tmp_path / "lists.parquet")
    found = {each.file for each in find_identifiers(tmp_path, KNOWN) if each.kind == PLANTED[planted]}
    assert found == {*PLACES, "model.safetensors", "a.parquet", "lists.parquet"}


def test_an_identifier_is_found_in_the_name_of_a_file_and_shown_masked(tmp_path: Path) -> None:
    (tmp_path / "ecg_10457731.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match=r"not published; found ecg_10457731.txt: name or id of the data \(10…, 8"):
        check_identifiers(tmp_path, KNOWN)


def test_the_account_is_found_as_a_word_and_not_in_other_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "emuster")
    (tmp_path / "a.txt").write_text("emustering", encoding="utf-8")
    assert not find_identifiers(tmp_path)
    (tmp_path / "a.txt").write_text("by emuster", encoding="utf-8")
    assert [each.kind for each in find_identifiers(tmp_path)] == ["name of your account"]


@pytest.mark.parametrize("folder", sorted(CARDS.iterdir()), ids=lambda folder: folder.name)
def test_nothing_is_found_in_a_released_checkpoint(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 2**20:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert find_identifiers(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "https://arxiv.org/abs/2403.10581",
        "10.1109/TBDATA.2025.3536922",
        "2.9.1 and/or 0.7123456",
        "mV/s",
        "1-8",
    ],
)
def test_addresses_versions_and_numbers_are_no_identifiers(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert find_identifiers(tmp_path, ["7123456"]) == []


def test_digests_of_records_are_no_text(tmp_path: Path) -> None:
    looks_like_a_name = np.frombuffer(b"Maier^Eva  aMaier^Eva  a", np.uint64)
    np.savez(tmp_path / "seen_records.npz", trained=looks_like_a_name)
    assert find_identifiers(tmp_path) == []
    np.savez(tmp_path / "names.npz", names=np.array([b"Maier^Eva"]))
    assert [each.kind for each in find_identifiers(tmp_path)] == ["name"]


def test_a_push_is_refused_before_anything_is_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    (tmp_path / "README.md").write_text("see /home/erika/ecgs", encoding="utf-8")
    with pytest.raises(ValueError, match=r"not published; found README.md: absolute path \(/home/…, 16 characters\)"):
        push_bundle(tmp_path, "user/risk")


def test_known_names_and_ids_come_from_a_table_and_from_the_predictions_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("id;name;age\n10457731;Erika Mustermann;61\n", encoding="utf-8")
    assert read_known(tmp_path / "cohort.csv") == ["10457731", "Erika Mustermann", "name"]
    (tmp_path / "predictions.csv").write_text("record_id,patient_id,risk\n12,P00417,0.123456\n", encoding="utf-8")
    assert known_of_run(tmp_path) == ["P00417"] and known_of_run(tmp_path / "absent") == []


def test_a_run_folder_with_a_card_is_bundled_without_its_paths_and_what_its_card_says_is_warned_of(
    survival_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ecgdan_hf.publish.bundle.verify_bundle", lambda folder: None)  # a process of seconds
    run = tmp_path / "run"
    shutil.copytree(survival_checkpoint, run)
    recipe = {"data": "csv", "data_dir": "/home/someone/Klinik-Nord", "epochs": 3}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (run / "README.md").write_text("# Written by hand\n\nData: /home/someone/Klinik-Nord\n", encoding="utf-8")
    (run / "predictions.csv").write_text("record_id,patient_id\n1,10457731\n", encoding="utf-8")
    bundle = make_bundle(run, tmp_path / "bundle")
    assert yaml.safe_load((bundle / "recipe.yaml").read_text(encoding="utf-8"))["data_dir"] == "csv"
    leaking = [path.name for path in bundle.rglob("*") if path.is_file() and b"someone" in path.read_bytes()]
    assert leaking == ["README.md"] and not (bundle / "predictions.csv").exists()
    assert "`ecgdan push` will refuse it; found README.md: absolute path (/home/…, 25 characters)" in caplog.text


def test_labels_and_endpoints_are_shown_as_text_in_a_card(survival_checkpoint: Path) -> None:
    model = load_checkpoint(survival_checkpoint)[0]
    model.config.endpoint = "death <img src=x onerror=alert(1)> within <5 years"
    metrics = {"test": {"labels": {"<script>MI</script>": {"auroc": {"estimate": 0.8, "low": 0.7, "high": 0.9}}}}}
    text = build_card(model, metrics, None, "card").text
    assert "&lt;img src=x" in text and "&lt;script>MI&lt;/script>" in text and "within <5 years" in text
    assert "<img" not in text and "<script" not in text
    assert "extractor(signal, sampling_rate=500" in text


def test_a_figure_as_svg_holds_no_text_beside_what_is_drawn(tmp_path: Path) -> None:
    figure = Figure(figsize=(1, 1))
    figure.text(0.1, 0.1, "ECG 10457731")
    save_figure(figure, tmp_path / "figure.svg")
    assert find_identifiers(tmp_path, KNOWN) == [] and "<path" in (tmp_path / "figure.svg").read_text(encoding="utf-8")
    figure.savefig(tmp_path / "figure.svg")
    assert {each.kind for each in find_identifiers(tmp_path, KNOWN)} == {"date", "name or id of the data"}
