"""Bundles a checkpoint, proves that it loads without the package, and uploads it.

python hub_scripts/push_model.py CHECKPOINT_DIR BUNDLE_DIR USER/NAME [--private] [--dataset-id OWNER/NAME]
"""

import argparse
import sys

from ecgdan_hf.publish.bundle import bundle
from ecgdan_hf.publish.push import check_push, push


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="folder with model, feature extractor, metrics.json and recipe.yaml")
    parser.add_argument("bundle_dir", help="new or empty folder, or a previous bundle")
    parser.add_argument("repository", help="USER/NAME on the Hub")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dataset-id", help="OWNER/NAME of the evaluation data on the Hub, if they are there")
    arguments = parser.parse_args()
    try:
        check_push(arguments.repository)
        name = arguments.repository.split("/")[1]
        folder = bundle(arguments.checkpoint, arguments.bundle_dir, name=name, dataset_id=arguments.dataset_id)
        commit = push(folder, arguments.repository, private=arguments.private)
        print(f"{commit.repo_url}: {arguments.repository}@{commit.oid}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
