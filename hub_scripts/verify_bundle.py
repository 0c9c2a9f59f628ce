"""Loads bundles in a process without the package and compares every output with the package's own.

python hub_scripts/verify_bundle.py BUNDLE_DIR [BUNDLE_DIR ...]
"""

import argparse
import sys

from ecgdan_hf.publish.verify import verify_bundle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", metavar="bundle_dir", help="folder written by: ecgdan bundle")
    failed = False
    for folder in parser.parse_args().bundles:
        try:
            print(f"{folder}: the same without the package (largest difference {verify_bundle(folder):.1g})")
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
