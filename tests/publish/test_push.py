"""Push to and pull from a local server that speaks the Hub's protocol, with the unmodified client."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import TOKEN, HubServer, Repository
from warm import WARM

from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.publish.push import HubRepository, push_bundle
from ecgdan_hf.publish.verify import _clean_process_outputs, _probe_inputs


def ecgdan_push(folder: Path, repository: str, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """The client reads its environment when it is imported, hence a process of its own."""
    command = [sys.executable, "-m", "ecgdan_hf.cli", "push", str(folder), repository, "--private"]
    return WARM.run(command, env={**os.environ, **environment})


def test_a_pushed_bundle_loads_by_name_without_the_package_and_again_without_the_hub(
    survival_bundle: Path, survival_checkpoint: Path, tmp_path: Path
) -> None:
    model, extractor = load_checkpoint(survival_checkpoint)
    inputs = _probe_inputs(model)
    with HubServer() as hub:
        environment = {**hub.environment, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
        hub.repositories["user/risk"] = Repository(private=True)
        hub.repositories["user/risk"].commit({".gitattributes": b"", "old_ecgdan.py": b"x = 1", "notes.txt": b"kept"})
        done = ecgdan_push(survival_bundle, "user/risk", environment)
        assert done.returncode == 0, done.stderr
        commit, files = hub.repositories["user/risk"].commits[-1]
        assert done.stdout == f"{hub.address}/user/risk: user/risk@{commit}\n"
        found = _clean_process_outputs("user/risk", "AutoModel", inputs, environment)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{hub.address}/user/risk/resolve/main/config.json")
    # the server is gone; another process, with nothing but the cache of the first
    again = _clean_process_outputs("user/risk", "AutoModel", inputs, {**environment, "HF_HUB_OFFLINE": "1"})
    assert np.array_equal(again["log_hazard"], found["log_hazard"])
    bundled = {path.relative_to(survival_bundle).as_posix() for path in survival_bundle.rglob("*") if path.is_file()}
    assert set(files) == bundled | {".gitattributes", "notes.txt"}
    assert files["model.safetensors"] == (survival_bundle / "model.safetensors").read_bytes()
    assert b'from_pretrained("user/risk", trust_remote_code=True)' in files["README.md"]
    assert "USER/NAME" in (survival_bundle / "README.md").read_text(encoding="utf-8")

    assert str(found["model_module"]).startswith("transformers_modules.user.risk.")
    assert str(found["model_class"]) == "EcgDanForSurvival"
    recording = {"sampling_rate": 500, "unit": "mV", "lead_names": inputs["lead_names"].tolist()}
    features = extractor(inputs["signal"], **recording, return_tensors="pt")
    assert np.array_equal(found["input_values"], features["input_values"].numpy())
    with torch.inference_mode():
        given = {**features, "covariates": torch.from_numpy(inputs["covariates"])}
        log_hazard, survival = model(**given).log_hazard, model.predict_survival(**given)
    assert found["log_hazard"] == pytest.approx(log_hazard.numpy(), abs=1e-5)
    assert found["survival"] == pytest.approx(survival.numpy(), abs=1e-5)
    assert np.isfinite(found["survival"]).all()


def test_without_a_token_nothing_is_tried(
    survival_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="token: expected a Hub token, found none; run 'hf auth login'") as caught:
        push_bundle(survival_checkpoint, "user/risk")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("repository", ["beats", "user/beats/again", "user/be ats", "/beats", ""])
def test_a_name_that_cannot_be_one_is_refused(repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ValueError, match="repository: expected USER/NAME, got"):
        HubRepository(repository)


def test_only_a_bundle_is_pushed(
    classification_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ValueError, match="expected a bundle, found none; make one with: ecgdan bundle"):
        push_bundle(classification_checkpoint, "user/beats")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        push_bundle(tmp_path / "absent", "user/beats")
