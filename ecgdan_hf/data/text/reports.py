"""Raw reports -> the words in them that speak of the heart, and those of German and Swedish readers in English.

PTB-XL's reports are mostly German, else English or Swedish, without capitals but for the umlauts. Later editors wrote
the SCP codes they agreed on behind the text; a model must not read them there, for they are the labels.
"""

import csv
import re
from functools import cache
from pathlib import Path

TERMS_PATH = Path(__file__).with_name("report_terms.csv")
"""German and Swedish terms with their English, about 190; words that are not in it stay as they are."""

SCP_CODES_BEHIND = re.compile(r"(edit:|consensus label derived from:).*")
UNCONFIRMED = re.compile(r"4\.46( unb\w*( b\w*)?)?$")  # often cut off at 256 characters
ONLY_A_TRACE = re.compile(r"^\W*trace only requested\W*$")


def clean_report(report: str | None) -> str:
    """The report without the codes written behind it, "4.46 unbestätigter bericht" (unconfirmed) and odd white space.

    Returns:
        Lower case; empty where nothing is said of the heart ("trace only requested").

    Examples:
        >>> clean_report("sinusrhythmus  normales ekg 4.46       unbestÄtigter bericht Edit: NORM 80, (NORM 100)")
        'sinusrhythmus normales ekg'
    """
    text = re.sub(r"\s+", " ", (report or "").lower()).strip()
    text = UNCONFIRMED.sub("", SCP_CODES_BEHIND.sub("", text).strip()).strip()
    return "" if ONLY_A_TRACE.match(text) or not re.search(r"\w{2}", text) else text


def to_english(text: str) -> str:
    """Puts the frequent German and Swedish terms of a cleaned report into English, the longest first.

    A glossary, no translation: it leaves grammar, negation and rare words as they are. Language models that know
    several languages do without it.

    Examples:
        >>> to_english("sinusrhythmus linkstyp sonst normales ekg")
        'sinus rhythm leftward axis otherwise normal ecg'
    """
    pattern, english = _glossary()
    return pattern.sub(lambda found: english[found.group()], text)


@cache
def _glossary() -> tuple[re.Pattern[str], dict[str, str]]:
    with TERMS_PATH.open(encoding="utf-8", newline="") as file:
        english = {row["term"]: row["english"] for row in csv.DictReader(file)}
    longest_first = sorted(english, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])"), english
