"""Bundles a checkpoint, proves that it loads without the package, and uploads it.

python hub_scripts/push_model.py CHECKPOINT_DIR USER/NAME [--private] [--dataset-id OWNER/NAME]
"""

import argparse
import sys

from ecgdan_hf.publish.push import push_checkpoint


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="folder with model, feature extractor, metrics.json and recipe.yaml")
    parser.add_argument("repository", help="USER/NAME on the Hub")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dataset-id", help="OWNER/NAME of the data on the Hub, for the card")
    arguments = parser.parse_args()
    try:
        commit = push_checkpoint(
            arguments.checkpoint, arguments.repository, arguments.private, dataset_id=arguments.dataset_id
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{commit.repo_url}: {arguments.repository}@{commit.oid}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
