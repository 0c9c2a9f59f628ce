"""Uploads a bundle to a repository on the Hub, after checking that it loads.

The Hub is the one `HF_ENDPOINT` names; the token is the one of `hf auth login` or `HF_TOKEN`.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, RepoUrl, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # re-exported without __all__

from ecgdan_hf.publish.bundle import make_bundle
from ecgdan_hf.publish.card.checks import check_card, missing_parts
from ecgdan_hf.publish.card.model_card import PLACEHOLDER_REPOSITORY
from ecgdan_hf.publish.identifiers import check_identifiers, known_of_run
from ecgdan_hf.publish.verify import verify_bundle

_OF_A_BUNDLE = ["*.py", "*.safetensors", "*.safetensors.index.json", ".eval_results/*", "evaluation/*"]
_OF_A_BUNDLE += ["metrics.json", "recipe.yaml"]
"""Files of an earlier version that an upload deletes: unused code, and results of other weights."""


class HubRepository:
    """A repository on the Hub that something is uploaded to.

    Args:
        repo_id: `USER/NAME`.
        repo_type: `None` for a model, `"dataset"` or `"space"`.

    Raises:
        ValueError: a name that cannot be one, or no token. The Hub is not asked.
    """

    def __init__(self, repo_id: str, repo_type: str | None = None) -> None:
        try:
            validate_repo_id(repo_id)
            is_good = repo_id.count("/") == 1
        except HFValidationError:
            is_good = False
        if not is_good:
            raise ValueError(f"repository: expected USER/NAME, got {repo_id!r}")
        if get_token() is None:
            raise ValueError("token: expected a Hub token, found none; run 'hf auth login' or set HF_TOKEN")
        self.repo_id, self.repo_type, self.api = repo_id, repo_type, HfApi()

    def check_login(self) -> None:
        """Asks the Hub, before a long training, whether the token is valid; raises ValueError."""
        with self.asked("login"):
            self.api.whoami()

    def make(self, private: bool) -> RepoUrl:
        """Makes the repository if it does not exist; ValueError if it is public and `private` was asked for."""
        with self.asked():
            url = self.api.create_repo(self.repo_id, private=private, exist_ok=True, repo_type=self.repo_type)
            is_private = not private or self.api.repo_info(self.repo_id, repo_type=self.repo_type).private
        if not is_private:
            raise ValueError(
                f"{self.repo_id}: expected a private repository, found a public one; nothing was uploaded"
            )
        return url

    @contextmanager
    def asked(self, what: str = "upload") -> Iterator[None]:
        """Turns a refusal of the Hub, or a failure on the way to it, into a ValueError of one line."""
        try:
            yield
        except Exception as error:  # answers of the Hub, and a client library's errors of many unrelated classes
            raise ValueError(f"{self.repo_id}: the {what} failed: {_reason(error)}") from error


def push_bundle(
    bundle_dir: str | Path,
    repo_id: str,
    private: bool = False,
    message: str = "Upload model",
    revision: str | None = None,
    create_pr: bool = False,
    identifiers: Sequence[str] = (),
) -> CommitInfo:
    """Uploads a bundle in one commit, or nothing.

    Args:
        bundle_dir: written by `make_bundle`.
        repo_id: `USER/NAME`; made if it does not exist.
        private: make a new repository private.
        message: of the commit.
        revision: branch; made if it does not exist, default the main one.
        create_pr: open a pull request instead, as in a repository that is not yours.
        identifiers: names and ids that must not be in it, as `publish.identifiers.read_known` reads them.

    Returns:
        The commit: its `oid` pins this version, its `repo_url` is the repository, its `pr_url` the pull request.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a name that cannot be one, no token, a folder that is no bundle or does not load in a clean
            process, a file that could name a person or this machine, a card that lacks a required part (a warning
            with `private`), a repository that is public though `private` was asked for, one that changed meanwhile,
            or a refusal of the Hub.
            Nothing is asked of the Hub before the proof.
    """
    if revision and create_pr:
        raise ValueError("revision: a pull request goes to the main branch; leave out the one or the other")
    repository = HubRepository(repo_id)
    check_identifiers(bundle_dir, identifiers)
    verify_bundle(bundle_dir)
    check_card(bundle_dir, private)
    return _upload(Path(bundle_dir), repository, private, message, revision, create_pr)


def push_checkpoint(checkpoint_dir: str | Path, repo_id: str, private: bool = False, **said: Any) -> CommitInfo:
    """Bundles a checkpoint, which checks that it loads, and uploads the bundle.

    A new repository is private, with a warning, where `private` is set or the card lacks a required part: after hours
    of training, an unfinished card is no reason to keep nothing. `said` are further arguments of `make_bundle`.

    Raises:
        ValueError: what `make_bundle` and [`push_bundle`] refuse.
    """
    repository = HubRepository(repo_id)
    with tempfile.TemporaryDirectory() as work:
        folder = make_bundle(checkpoint_dir, Path(work, "bundle"), name=repo_id.split("/")[1], **said)
        private = private or bool(missing_parts((folder / "README.md").read_text(encoding="utf-8")))
        check_identifiers(folder, known_of_run(checkpoint_dir))
        check_card(folder, private)
        return _upload(folder, repository, private, "Upload model")


def _upload(
    bundle_dir: Path,
    repository: HubRepository,
    private: bool,
    message: str,
    revision: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    api, repo_id = repository.api, repository.repo_id
    repository.make(private)
    with tempfile.TemporaryDirectory() as work, repository.asked():
        folder = Path(work, "bundle")
        shutil.copytree(bundle_dir, folder)
        card = folder / "README.md"
        card.write_text(card.read_text(encoding="utf-8").replace(PLACEHOLDER_REPOSITORY, repo_id), encoding="utf-8")
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
            delete_patterns=_OF_A_BUNDLE,
            # two uploads at once must not leave a mixture of both
            parent_commit=api.repo_info(repo_id, revision=revision).sha,
        )


def _reason(error: BaseException) -> str:
    answer = error if isinstance(error, HfHubHTTPError) else None
    said = " ".join(str((answer and answer.server_message) or error).split()) or type(error).__name__
    if answer and answer.response.status_code == 401:
        return f"{said.rstrip('.')}; is the token still good? run 'hf auth login' or set HF_TOKEN"
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # of one file; why is in its cause
        return f"{said} ({_reason(error.__cause__)})"
    return said
