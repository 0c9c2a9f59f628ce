"""A bundle -> a repository on the Hub, after the bundle has proved that it loads.

The Hub is the one `HF_ENDPOINT` names; the token is the one of `hf auth login` or `HF_TOKEN`.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from ecgdan_hf.publish.card import PLACEHOLDER_REPOSITORY
from ecgdan_hf.publish.verify import verify_bundle


def push(bundle_dir: str | Path, repo_id: str, private: bool = False, message: str = "Upload model") -> str:
    """Uploads a bundle.

    Args:
        bundle_dir: written by `bundle`.
        repo_id: `USER/NAME`; made if it does not exist.
        private: make a new repository private.
        message: of the commit.

    Returns:
        Address of the repository.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a name that cannot be one, no token, a folder that is no bundle or does not load in a clean
            process, or a refusal of the Hub. Nothing is uploaded before the proof.
    """
    check_push(repo_id)
    verify_bundle(bundle_dir)
    api = HfApi()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "bundle")
        shutil.copytree(bundle_dir, folder)
        card = folder / "README.md"
        card.write_text(card.read_text(encoding="utf-8").replace(PLACEHOLDER_REPOSITORY, repo_id), encoding="utf-8")
        with said_by_the_hub(repo_id):
            url = api.create_repo(repo_id, private=private, exist_ok=True)
            # code of an earlier version must not stay behind beside the new one
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, delete_patterns=["*.py"])
    return str(url)


def check_push(repo_id: str) -> None:
    """Refuses what would fail at the end of a long training: a bad name, no token.

    Raises:
        ValueError: see above.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        repo_id_is_good = False
    else:
        repo_id_is_good = repo_id.count("/") == 1
    if not repo_id_is_good:
        raise ValueError(f"repository: expected USER/NAME, got {repo_id!r}")
    if get_token() is None:
        raise ValueError("token: expected a Hub token, found none; run 'hf auth login' or set HF_TOKEN")


@contextmanager
def said_by_the_hub(repo_id: str) -> Iterator[None]:
    """Turns what fails during an upload into one line.

    Raises:
        ValueError: a refusal of the Hub, or a failure on the way to it.
    """
    try:
        yield
    except Exception as error:  # answers of the Hub, and a client library's errors of many unrelated classes
        message = error.server_message if isinstance(error, HfHubHTTPError) else None
        reason = " ".join(str(message or error).split()) or type(error).__name__
        raise ValueError(f"{repo_id}: the upload failed: {reason}") from error
