"""To the Hub and back with the unmodified client, over HTTP: versions, rights, broken connections, the cache.

Every test has a repository of its own; what it does to it is done in processes of `HubClient`.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from changed_code import with_higher_log_hazard
from hub_client import WITHOUT_THE_PACKAGE, HubClient
from hub_server import PAGE_ENTRIES, STRANGERS_TOKEN, TOKEN, HubServer, Repository
from safetensors.numpy import load

from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.publish.hub_code import HubCode

STRANGER = {"HF_TOKEN": STRANGERS_TOKEN}
NOBODY = {"HF_TOKEN": None}

UPLOAD = """
import sys
from pathlib import Path
from ecgdan_hf.publish.push import HubRepository, _upload
try:
    print(_upload(Path(sys.argv[1]), HubRepository(sys.argv[2]), False, "Upload model").oid)
except ValueError as error:
    sys.exit(str(error))
"""
"""What `ecgdan push` does after the proof, for tests of nothing but the upload."""

PUSH_TO_HUB = """
import sys
import torch
from ecgdan_hf.inference.checkpoints import load_checkpoint
model, extractor = load_checkpoint(sys.argv[1])
extractor.push_to_hub(sys.argv[2])
for shift in (0.0, 1.0):
    with torch.no_grad():
        model.risk_head.output.bias += shift
    print(model.push_to_hub(sys.argv[2]).oid)
"""
"""Pushes a survival model twice, the second with log hazards greater by one."""

LOG_HAZARD = """
def log_hazard(model):
    given = {"input_values": torch.linspace(-1, 1, 12 * 1024).reshape(1, 12, 1024), "covariates": torch.ones(1, 2)}
    with torch.inference_mode():
        return model.eval()(**given).log_hazard.item()
"""

LOAD = f"""
import json, sys
import torch
from ecgdan_hf.inference.checkpoints import load_checkpoint
{LOG_HAZARD}
print(json.dumps([log_hazard(load_checkpoint(source)[0]) for source in sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubServer, HubClient]]:
    folder = tmp_path_factory.mktemp("client")
    with HubServer() as hub, HubClient({**hub.environment, "HF_TOKEN": TOKEN}, folder) as client:
        yield hub, client


@pytest.fixture
def hub(running: tuple[HubServer, HubClient]) -> HubServer:
    """The server, with nothing asked of it yet by this test."""
    server = running[0]
    for left_over in (server.requests, server.breaks, server.large_files):
        left_over.clear()
    server.part_bytes, server.before = None, lambda request: None
    return server


@pytest.fixture
def client(running: tuple[HubServer, HubClient]) -> HubClient:
    return running[1]


@pytest.fixture(scope="module")
def local_hazard(running: tuple[HubServer, HubClient], survival_checkpoint: Path) -> float:
    """Log hazard of the survival checkpoint, from its folder."""
    return float(json.loads(running[1].run(LOAD, survival_checkpoint).stdout)[0])


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of twelve leads that look like beats."""
    file = tmp_path_factory.mktemp("recording") / "ecg.csv"
    beat = np.exp(-0.5 * ((np.arange(5000) / 500 % 0.85 - 0.4) / 0.012) ** 2)
    leads = "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"
    np.savetxt(file, np.outer(beat, np.linspace(-0.6, 1.4, 12)), delimiter=",", header=leads, comments="")
    return file


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(hub: HubServer, name: str, folder: Path, **rights: bool) -> Repository:
    """A repository with the files of a folder."""
    hub.repositories[name] = Repository(**rights)
    hub.repositories[name].commit(files_of(folder))
    return hub.repositories[name]


def one_line(text: str) -> str:
    """The only line that begins with error."""
    (line,) = [each for each in text.splitlines() if each.startswith("error: ")]
    assert text.strip().endswith(line)
    return line


def test_push_to_hub_and_every_way_to_pin_a_version(
    hub: HubServer, client: HubClient, survival_checkpoint: Path, local_hazard: float
) -> None:
    done = client.run(PUSH_TO_HUB, survival_checkpoint, "user/pinned")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()
    api = "from huggingface_hub import HfApi; import sys; api = HfApi()\n"
    named = "api.create_tag('user/pinned', tag='v1', revision=sys.argv[1])\n"
    named += "api.create_branch('user/pinned', branch='for/paper', revision=sys.argv[1])"
    assert client.run(api + named, first).returncode == 0
    revisions = ["", f"@{second}", f"@{first}", "@v1", "@for/paper"]
    found = client.run(LOAD, *[f"user/pinned{each}" for each in revisions])
    assert found.returncode == 0, found.stderr
    shifts = [1.0, 1.0, 0.0, 0.0, 0.0]
    assert json.loads(found.stdout) == pytest.approx([local_hazard + shift for shift in shifts], abs=1e-5)

    missing = client.run(LOAD, "user/pinned@v2")
    assert "user/pinned@v2: no such checkpoint folder or Hub repository (it has no such branch, tag" in missing.stderr


def test_the_classes_of_the_package_load_by_name_and_by_revision(
    hub: HubServer, client: HubClient, survival_checkpoint: Path, local_hazard: float
) -> None:
    repository = put(hub, "user/classes", survival_checkpoint)
    pinned = repository.commits[0][0]
    repository.commit({"README.md": b"the weights are gone"})
    code = f"""
import json, sys
import torch
from transformers import AutoFeatureExtractor, AutoModel
from ecgdan_hf import EcgDanFeatureExtractor, EcgDanForSurvival
{LOG_HAZARD}
pin = {{"revision": sys.argv[1]}}
models = [kind.from_pretrained("user/classes", **pin) for kind in (EcgDanForSurvival, AutoModel)]
assert {{type(model) for model in models}} == {{EcgDanForSurvival}}
kinds = (EcgDanFeatureExtractor, AutoFeatureExtractor)
assert {{type(kind.from_pretrained("user/classes", **pin)) for kind in kinds}} == {{EcgDanFeatureExtractor}}
print(json.dumps([log_hazard(model) for model in models]))
"""
    done = client.run(code, pinned)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx([local_hazard] * 2, abs=1e-5)


def test_without_the_package_code_and_weights_are_pinned_together_or_apart(
    hub: HubServer, client: HubClient, survival_bundle: Path, local_hazard: float
) -> None:
    repository = put(hub, "user/coded", survival_bundle)
    first, files = repository.commits[0]
    changed = with_higher_log_hazard(files["heads_ecgdan.py"].decode(), by=10)
    config = json.loads(files["config.json"])
    slope = json.dumps(config | {"calibration_slope": 2.0}).encode()  # stands for other weights
    repository.commit({**files, "heads_ecgdan.py": changed.encode(), "config.json": slope})
    load = f"""{WITHOUT_THE_PACKAGE}
import json
import torch
from transformers import AutoModel
{LOG_HAZARD}
kinds = [{{}}, {{"revision": sys.argv[1]}}, {{"code_revision": sys.argv[1]}}]
models = [AutoModel.from_pretrained("user/coded", trust_remote_code=True, **kind) for kind in kinds]
assert all(type(model).__module__.startswith("transformers_modules.user.coded.") for model in models)
print(json.dumps([[log_hazard(model), model.config.calibration_slope] for model in models]))
"""
    done = client.run(load, first)
    assert done.returncode == 0, done.stderr
    (newest, newest_slope), (pinned, pinned_slope), (old_code, new_weights) = json.loads(done.stdout)
    assert (newest_slope, pinned_slope, new_weights) == (2.0, 1.0, 2.0)
    assert pinned == pytest.approx(local_hazard, abs=1e-5)
    assert newest == pytest.approx(old_code + 2 * 10, abs=1e-4)


def test_a_private_repository_serves_its_owner_and_tells_others_what_to_do(
    hub: HubServer, client: HubClient, classification_checkpoint: Path, recording: Path, tmp_path: Path
) -> None:
    put(hub, "user/private", classification_checkpoint, private=True)
    out = tmp_path / "predictions.csv"
    predict = ["predict", recording, "--checkpoint", "user/private", "--out", out]
    predict += ["--sampling-rate", "500", "--unit", "mV"]
    for login in (NOBODY, STRANGER):
        done = client.cli(*predict, environment=login)
        assert done.returncode == 2
        message = "error: user/private: no such checkpoint folder or Hub repository (there is none, or it is private: "
        assert one_line(done.stderr) == message + "log in with 'hf auth login' or set HF_TOKEN)"
        assert not out.exists()
    done = client.cli(*predict)
    assert done.returncode == 0, done.stderr
    header, row = out.read_text(encoding="utf-8").splitlines()
    assert "NORM" in header and "ecg.csv" in row


def test_a_gated_repository_says_that_it_is_gated(
    hub: HubServer, client: HubClient, survival_checkpoint: Path, local_hazard: float
) -> None:
    put(hub, "user/gated", survival_checkpoint, gated=True)
    for login in (NOBODY, STRANGER):
        done = client.run(LOAD, "user/gated", environment=login)
        assert done.returncode == 1
        assert "(it is gated: ask for access on its page, then log in with 'hf auth login'" in done.stderr
    assert {each.status for each in hub.asked("HEAD /user/gated/resolve/.*/config.json")} == {401, 403}
    done = client.run(LOAD, "user/gated")
    assert json.loads(done.stdout) == pytest.approx([local_hazard], abs=1e-5)


def test_a_token_that_is_not_known_is_said_to_be_so(
    hub: HubServer, client: HubClient, survival_bundle: Path, tmp_path: Path
) -> None:
    wrong = {"HF_TOKEN": "hf_of_last_year"}
    said = "Invalid credentials in Authorization header"
    done = client.run(UPLOAD, survival_bundle, "user/risk", environment=wrong)
    assert done.stderr.strip().splitlines()[-1] == (
        f"user/risk: the upload failed: {said}; is the token still good? run 'hf auth login' or set HF_TOKEN"
    )
    done = client.run(LOAD, "user/risk", environment=wrong)
    assert f"user/risk: no such checkpoint folder or Hub repository ({said})" in done.stderr
    assert "user/risk" not in hub.repositories

    train = ["finetune", "--data", "csv", "--data-dir", tmp_path, "--from-scratch", "--push-to-hub", "user/risk"]
    done = client.cli(*train, "--output-dir", tmp_path / "run", environment=wrong)
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("error: user/risk: the login failed: Invalid user token")
    assert not (tmp_path / "run").exists()


def test_a_broken_upload_is_gone_on_with_and_nothing_goes_twice(
    hub: HubServer, client: HubClient, survival_bundle: Path
) -> None:
    hub.breaks = ["PUT /lfs/[0-9a-f]+", "POST /api/models/user/broken/commit/main"]
    done = client.run(UPLOAD, survival_bundle, "user/broken")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("user/broken: the upload failed: ")
    assert [each.status for each in hub.asked("PUT /lfs/.*")] == [0, 200]
    assert set(hub.repositories["user/broken"].commits[-1][1]) == {".gitattributes"}  # all or nothing

    hub.requests.clear()
    done = client.run(UPLOAD, survival_bundle, "user/broken")
    assert done.returncode == 0, done.stderr
    assert hub.asked("PUT .*") == []
    files = hub.repositories["user/broken"].commits[-1][1]
    assert files["model.safetensors"] == (survival_bundle / "model.safetensors").read_bytes()
    assert set(files) == {".gitattributes", *files_of(survival_bundle)}

    hub.requests.clear()
    again = client.run(UPLOAD, survival_bundle, "user/broken")
    assert again.stdout == done.stdout == hub.repositories["user/broken"].commits[-1][0] + "\n"
    assert hub.asked("PUT .*") == hub.asked("POST .*/commit/.*") == []


def test_of_a_large_file_only_the_broken_part_goes_again(
    hub: HubServer, client: HubClient, survival_bundle: Path
) -> None:
    weights = (survival_bundle / "model.safetensors").read_bytes()
    hub.part_bytes = len(weights) // 3 + 1
    hub.breaks = ["PUT /lfs/[0-9a-f]+/part/2"]
    done = client.run(UPLOAD, survival_bundle, "user/parts")
    assert done.returncode == 0, done.stderr
    parts = [(each.path[-1], each.status) for each in hub.asked("PUT .*")]
    assert parts == [("1", 200), ("2", 0), ("2", 200), ("3", 200)]
    assert hub.repositories["user/parts"].commits[-1][1]["model.safetensors"] == weights


def test_a_broken_download_is_made_good_and_a_long_one_goes_on_where_it_stopped(
    hub: HubServer, client: HubClient, survival_checkpoint: Path, local_hazard: float
) -> None:
    repository = put(hub, "user/fetched", survival_checkpoint)
    hub.breaks = ["GET /cdn/.*"]
    done = client.run(LOAD, "user/fetched")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx([local_hazard], abs=1e-5)
    assert [each.status for each in hub.asked("GET /cdn/.*")] == [0, 200]

    repository.commit({"long.bin": np.arange(3 << 20).tobytes()})  # 24 MiB; the client keeps pieces of 10 MiB
    hub.requests.clear()
    hub.breaks = ["GET /cdn/.*"]
    download = "import sys; from huggingface_hub import hf_hub_download as get; print(get('user/fetched', 'long.bin'))"
    done = client.run(download)
    assert done.returncode == 0, done.stderr
    asked = [(each.status, each.range) for each in hub.asked("GET /cdn/.*")]
    assert asked == [(0, None), (206, f"bytes={10 << 20}-")]
    assert Path(done.stdout.strip()).read_bytes() == repository.commits[-1][1]["long.bin"]


def test_what_was_loaded_once_is_not_fetched_again_and_a_pinned_commit_asks_for_nothing(
    hub: HubServer, client: HubClient, survival_checkpoint: Path, local_hazard: float
) -> None:
    pinned = put(hub, "user/cached", survival_checkpoint).commits[0][0]
    assert client.run(LOAD, "user/cached").returncode == 0
    hub.requests.clear()
    assert client.run(LOAD, "user/cached").returncode == 0
    assert hub.asked("GET .*/(resolve|cdn)/.*") == []
    assert hub.asked("GET /api/models/user/cached/revision/main")  # whether there is something new
    hub.requests.clear()
    done = client.run(LOAD, f"user/cached@{pinned}")
    assert json.loads(done.stdout) == pytest.approx([local_hazard], abs=1e-5)
    assert hub.requests == []


TINY = ["sampling_rate=50", "num_samples=64", "pad_samples=2", "trunk_channels=[4, 8]", "num_attention_heads=2"]
TINY += ["hidden_size=8", "input_kind=rhythm", "trunk=paper"]


def test_a_training_verb_pushes_what_it_trained(hub: HubServer, client: HubClient, tmp_path: Path) -> None:
    synthetic.write_cohort(tmp_path / "cohort", n=32, seed=0)
    train = ["finetune", "--data", "csv", "--data-dir", tmp_path / "cohort", "--from-scratch", "--epochs", "1"]
    train += ["--train-folds", "1-6", "--test-folds", "7-10", "--batch-size", "16", "--num-proc", "1", "--no-progress"]
    train += ["--cache-dir", tmp_path / "cache", "--log-with", "none", "--bootstrap", "20"]
    train += [part for value in TINY for part in ("--model", value)]
    done = client.cli(*train, "--output-dir", tmp_path / "run", "--push-to-hub", "user/trained")
    assert done.returncode == 0, done.stderr
    commit, files = hub.repositories["user/trained"].commits[-1]
    assert done.stdout.splitlines()[-1] == f"{hub.address}/user/trained: user/trained@{commit}"
    pushed = load(files["model.safetensors"])
    trained = load((tmp_path / "run" / "model.safetensors").read_bytes())
    assert {name: value.tolist() for name, value in pushed.items()} == {
        name: value.tolist() for name, value in trained.items()
    }
    assert b"simulated" in files["README.md"]


def tampered(bundle: Path, folder: Path, name: str) -> Path:
    """A copy of which something was changed after its proof."""
    shutil.copytree(bundle, folder / name)
    file = folder / name / {"weights": "model.safetensors"}.get(name, "heads_ecgdan.py")
    if name == "weights":
        file.write_bytes(file.read_bytes()[:-100])
        return folder / name
    file.write_text(with_higher_log_hazard(file.read_text(encoding="utf-8"), by=1), encoding="utf-8")
    if name == "code and its revision":
        config = folder / name / "config.json"
        revision = {"ecgdan_code_revision": HubCode((folder / name).glob("*.py")).revision}
        config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | revision), encoding="utf-8")
    return folder / name


def test_nothing_is_asked_of_the_hub_before_a_clean_process_has_proved_the_bundle(
    hub: HubServer, client: HubClient, survival_bundle: Path, tmp_path: Path
) -> None:
    for name, reason in {
        "weights": "the weights cannot be read",
        "code": "the code is not the bundled one",
        "code and its revision": "without the package log_hazard differs by",
    }.items():
        done = client.cli("push", tampered(survival_bundle, tmp_path, name), "user/tampered")
        assert done.returncode == 2, name
        assert re.search(reason, one_line(done.stderr)), done.stderr
        assert hub.requests == [], name


def test_a_branch_or_a_pull_request_leaves_the_main_branch_as_it_is(
    hub: HubServer, client: HubClient, survival_bundle: Path, survival_checkpoint: Path, local_hazard: float
) -> None:
    repository = put(hub, "user/shared", survival_checkpoint)
    main = repository.branches["main"]
    code = UPLOAD.replace('"Upload model")', '"Upload model", **eval(sys.argv[3]))').replace(".oid", "")
    for _ in range(2):  # the second finds the branch
        done = client.run(code, survival_bundle, "user/shared", {"revision": "trial"})
        assert done.returncode == 0, done.stderr
    opened = client.run(code, survival_bundle, "user/shared", {"create_pr": True}, environment=STRANGER)
    assert opened.returncode == 0, opened.stderr
    assert repository.branches["main"] == main
    for branch in ("trial", "refs/pr/1"):
        assert "modeling_ecgdan.py" in repository.at(repository.branches[branch])[1]
    found = client.run(LOAD, "user/shared@trial", "user/shared@refs/pr/1")
    assert json.loads(found.stdout) == pytest.approx([local_hazard] * 2, abs=1e-5)

    refused = client.run(UPLOAD, survival_bundle, "user/shared", environment=STRANGER)
    assert "user/shared: the upload failed: you may not write to user/shared" in refused.stderr
    both = client.cli("push", survival_bundle, "user/shared", "--revision", "trial", "--create-pr")
    assert "revision: a pull request goes to the main branch; leave out" in one_line(both.stderr)


def test_what_is_private_does_not_go_to_a_repository_that_is_public(
    hub: HubServer, client: HubClient, survival_bundle: Path
) -> None:
    put(hub, "user/public", survival_bundle)
    done = client.run(UPLOAD.replace("False", "True"), survival_bundle, "user/public")
    assert done.stderr.strip().splitlines()[-1] == (
        "user/public: expected a private repository, found a public one; nothing was uploaded"
    )
    assert hub.asked("POST .*/(preupload|commit)/.*|PUT .*") == []
    assert client.run(UPLOAD.replace("False", "True"), survival_bundle, "user/secret").returncode == 0
    assert hub.repositories["user/secret"].private


def test_of_two_uploads_at_once_one_is_refused_and_no_mixture_is_left(
    hub: HubServer, client: HubClient, survival_bundle: Path
) -> None:
    repository = put(hub, "user/busy", survival_bundle)
    theirs = {"README.md": b"of somebody else, a moment earlier"}

    def meanwhile(request: str) -> None:
        if "preupload" in request and len(repository.commits) == 1:
            repository.commit(theirs)

    hub.before = meanwhile
    (card := tampered(survival_bundle, client.folder, "mine") / "README.md").write_text(
        card.read_text(encoding="utf-8") + "more",
        encoding="utf-8",
    )
    done = client.run(UPLOAD, card.parent, "user/busy")
    assert "user/busy: the upload failed: A commit has happened since. Please refresh" in done.stderr
    assert repository.commits[-1][1] == theirs


def test_what_a_bundle_brings_replaces_what_an_earlier_one_brought(
    hub: HubServer, client: HubClient, survival_bundle: Path
) -> None:
    earlier = ["old_ecgdan.py", "evaluation/old.json", ".eval_results/old.yaml", "model-00001-of-00002.safetensors"]
    repository = put(hub, "user/replaced", survival_bundle)
    kept = {f"pictures/{number}.png": b"kept" for number in range(2 * PAGE_ENTRIES)}
    repository.commit({".gitattributes": b"", **kept, **dict.fromkeys(earlier, b"of other weights")})
    assert client.run(UPLOAD, survival_bundle, "user/replaced").returncode == 0
    assert set(repository.commits[-1][1]) == {".gitattributes", *kept, *files_of(survival_bundle)}
    assert len(hub.asked("GET /api/models/user/replaced/tree/main")) == 3  # pages


ERRORS = """
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
api, name = HfApi(), "user/errors"
def status(function, *arguments, kind=HfHubHTTPError, **options):
    try:
        function(*arguments, **options)
    except kind as error:
        return error.response.status_code
print([
    status(api.create_repo, name),
    status(api.create_repo, "somebody/errors"),
    status(api.create_tag, name, tag="v1"),
    status(api.create_tag, name, tag="v1"),
    status(api.create_branch, name, branch="main"),
    status(api.model_info, "user/absent", kind=RepositoryNotFoundError),
    status(api.model_info, "user/absent", token=False, kind=RepositoryNotFoundError),
    status(api.model_info, name, revision="v2", kind=RevisionNotFoundError),
    status(hf_hub_download, name, "absent.txt", kind=EntryNotFoundError),
    status(api.delete_file, "absent.txt", name, kind=EntryNotFoundError),
    status(api.create_commit, name, [], commit_message="late", parent_commit="0" * 40),
])
print(api.list_repo_refs(name).tags[0].name, api.create_repo(name, exist_ok=True).repo_id)
"""


def test_the_stand_in_refuses_as_the_hub_does(hub: HubServer, client: HubClient) -> None:
    hub.repositories["user/errors"] = Repository()
    hub.repositories["user/errors"].commit({"README.md": b"here"})
    done = client.run(ERRORS)
    assert done.returncode == 0, done.stderr
    statuses, others = done.stdout.splitlines()
    assert json.loads(statuses.replace("None", "null")) == [409, 403, None, 409, 409, 404, 401, 404, 404, 404, None]
    assert others == "v1 user/errors"
