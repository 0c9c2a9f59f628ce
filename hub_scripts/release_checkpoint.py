"""Writes a folder of model_cards/: the bundle of a checkpoint without code and licence, which the repository has.

python hub_scripts/release_checkpoint.py CHECKPOINT_DIR model_cards/NAME [--results FOLDER ...] \
    [--dataset-id OWNER/NAME] [--power-watts W] [--base-model OWNER/NAME] [--contact TEXT]

CHECKPOINT_DIR may be the folder itself: its card is then rebuilt from what the folder holds.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from ecgdan_hf.publish.bundle import make_bundle


def strip(folder: Path) -> None:
    """Takes out what only a folder on the Hub needs: code, its licence text, and the pointers to the code."""
    for path in (*folder.glob("*.py"), folder / "LICENSE"):
        path.unlink()
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        for pointer in ("auto_map", "custom_pipelines"):
            content.pop(pointer, None)
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def release(checkpoint: Path, out: Path, **options: object) -> None:
    """Replaces `out` whole, once the bundle has proved that it loads.

    Raises:
        ValueError: an `out` that holds something else than a released checkpoint, or as `make_bundle`.
    """
    if out.exists() and not (out / "config.json").is_file():
        raise ValueError(f"{out}: expected a new folder or a released checkpoint, found other files")
    with tempfile.TemporaryDirectory() as staging:
        folder = make_bundle(checkpoint, Path(staging) / out.name, **options)  # type: ignore[arg-type]
        strip(folder)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder, out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="folder with model, metrics.json and recipe.yaml")
    parser.add_argument("out", type=Path, help="folder of model_cards/, which is replaced")
    parser.add_argument("--results", action="append", default=[], type=Path, help="a further evaluation, for the card")
    parser.add_argument("--dataset-id", help="OWNER/NAME of the data on the Hub, for the card")
    parser.add_argument("--power-watts", type=float, help="of the hardware training kept busy")
    parser.add_argument("--base-model", help="OWNER/NAME on the Hub of the checkpoint it was fine-tuned from")
    parser.add_argument("--contact", help="whom to write to; default: the repository's Community tab")
    given = vars(parser.parse_args())
    try:
        release(given.pop("checkpoint"), given.pop("out"), **given)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
