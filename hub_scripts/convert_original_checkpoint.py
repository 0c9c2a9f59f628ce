"""Turns an authors' ECG-DAN checkpoint into a folder that `from_pretrained` loads.

python hub_scripts/convert_original_checkpoint.py IN.ckpt OUT_DIR [--sequential]
"""

import argparse
import sys

from ecgdan_hf.publish.convert import convert_checkpoint


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="pretraining or fine-tuned checkpoint of the authors' code")
    parser.add_argument("out_dir", help="new or empty folder")
    parser.add_argument("--sequential", action="store_true", help="it was trained with --apply_subsequent_attention")
    arguments = parser.parse_args()
    try:
        print(convert_checkpoint(arguments.checkpoint, arguments.out_dir, arguments.sequential))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
