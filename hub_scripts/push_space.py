"""Puts the page of `hub_scripts/space` on the Hub, together with the package.

python hub_scripts/push_space.py USER/NAME [--models OWNER] [--private]

The checkpoints must be on the Hub already, OWNER's (USER's by default) under the names of `model_cards/`. The Hub is
the one `HF_ENDPOINT` names.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from ecgdan_hf.publish.push import HubRepository

ROOT = Path(__file__).parents[1]
SPACE, PACKAGE = ROOT / "hub_scripts" / "space", ROOT / "ecgdan_hf"
PLACEHOLDER = "OWNER/"


def stage(folder: Path, owner: str) -> None:
    """Writes the Space into a new folder: the page, the package (there is no wheel to ask for) and the licence."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(SPACE, folder, ignore=ignored)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignored)
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    for file in (folder / "README.md", folder / "app.py"):
        file.write_text(file.read_text(encoding="utf-8").replace(PLACEHOLDER, f"{owner}/"), encoding="utf-8")


def push_space(repository: str, owner: str, private: bool = False) -> str:
    """Makes the Space if it is not there, uploads it, and returns its address.

    Raises:
        ValueError: a name that cannot be one, no token, or a refusal of the Hub.
    """
    space = HubRepository(repository, "space")
    with tempfile.TemporaryDirectory() as work, space.asked():
        folder = Path(work, "space")
        stage(folder, owner)
        url = space.api.create_repo(repository, private=private, exist_ok=True, repo_type="space", space_sdk="gradio")
        # modules of an earlier version must not remain next to the new ones
        message = "Upload the page and its package"
        space.api.upload_folder(
            repo_id=repository, repo_type="space", folder_path=folder, commit_message=message, delete_patterns=["*.py"]
        )
    return str(url)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", help="USER/NAME of the Space")
    parser.add_argument("--models", metavar="OWNER", help="who has the checkpoints on the Hub; default: USER")
    parser.add_argument("--private", action="store_true", help="make a new Space private")
    arguments = parser.parse_args()
    try:
        owner = arguments.models or arguments.repository.split("/")[0]
        print(push_space(arguments.repository, owner, arguments.private))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
