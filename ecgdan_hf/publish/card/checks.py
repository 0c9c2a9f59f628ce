"""What a model card must say before it is published, and whether it does.

A part that nothing was given for stands in the generated card as a line that begins with `**Missing:**` and ends with
the command that makes it. Whoever fills the part in by hand takes the line out. So the check reads the card alone, as
a stranger would, and holds for cards that were edited.
"""

import logging
import re
from pathlib import Path

from ecgdan_hf.publish.card.metadata import metadata_problems

logger = logging.getLogger(__name__)

SECTIONS = (
    "Use",
    "Input",
    "Intended use",
    "Training data",
    "Results",
    "By sex and age",
    "Limits",
    "What the attention maps say",
    "Carbon and time",
    "Licence",
    "Contact",
    "Citation",
)
"""Headings of the parts every card has."""

RESEARCH_USE = "Research use only"
MISSING = "**Missing:**"

RESULTS_MISSING = (
    "results on records that it was not trained on; run `ecgdan evaluate` (of an encoder `ecgdan probe`), then "
    "`ecgdan bundle` with `--results` and its folder"
)
GROUPS_MISSING = (
    "how it does by sex and age; `ecgdan evaluate` and `ecgdan probe` measure it where the data have `sex` and `age`, "
    "then `ecgdan bundle` with `--results` and their folder"
)
DATA_MISSING = "what it was trained on; say it with `ecgdan bundle --training-data TEXT`"


def missing_parts(card: str) -> list[str]:
    """Required parts that a card lacks, each with the command that makes it, where there is one.

    Args:
        card: the whole README.
    """
    text = card.split("\n---\n", 1)[-1]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)  # a comment in code is no title
    found = [] if re.search(r"^# \S", prose, re.MULTILINE) else ["a title"]
    found += [] if RESEARCH_USE in text else [f"the words '{RESEARCH_USE}'"]
    found += [f"the part '{name}'" for name in SECTIONS if not _section(text, name)]
    return found + [line.strip().rstrip(".") for line in re.findall(rf"{re.escape(MISSING)}(.*)", text)]


def check_card(folder: str | Path, private: bool = False) -> None:
    """Refuses to publish a card that says too little, or that the Hub would refuse.

    Args:
        folder: with the card as `README.md`.
        private: what is missing is then warned of: among colleagues a card may be unfinished.

    Raises:
        FileNotFoundError: no card.
        ValueError: metadata against the Hub's rules, or missing parts: one line that names them all.
    """
    path = Path(folder) / "README.md"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a model card, found none; make one with: ecgdan bundle")
    card = path.read_text(encoding="utf-8")
    if problems := metadata_problems(card):
        raise ValueError(f"{path}: the Hub would refuse its metadata: {'; '.join(problems)}")
    missing = "; and without ".join(missing_parts(card))
    if missing and not private:
        raise ValueError(f"{path}: not to be published without {missing}; or push it with --private")
    if missing:
        logger.warning("%s: not to be made public without %s", path, missing)


def _section(text: str, name: str) -> str:
    """What stands under a heading; empty where it has none."""
    found = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found.group(1).strip() if found else ""
