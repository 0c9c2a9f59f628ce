"""Raw reports without what does not describe the ECG, and frequent German and Swedish terms in English.

PTB-XL's reports are mostly German, else English or Swedish, without capitals except umlauts. Later editors appended
the agreed SCP codes to the text; a model must not see them, as they would leak the labels.
"""

import csv
import re
from functools import cache
from pathlib import Path

_TERMS_PATH = Path(__file__).with_name("report_terms.csv")
"""About 190 German and Swedish terms with their English; other words stay unchanged."""

_APPENDED_SCP_CODES = re.compile(r"(edit:|consensus label derived from:).*")
_UNCONFIRMED = re.compile(r"4\.46( unb\w*( b\w*)?)?$")  # often cut off at 256 characters
_ONLY_A_TRACE = re.compile(r"^\W*trace only requested\W*$")


def clean_report(report: str | None, to_english: bool = False) -> str:
    """Removes appended SCP codes, "4.46 unbestätigter bericht" (unconfirmed) and superfluous white space.

    Returns lower case; empty if nothing describes the heart ("trace only requested"). With `to_english` it translates
    frequent German and Swedish terms by a glossary, the longest first; grammar, negation and rare words stay.

    Examples:
        >>> clean_report("sinusrhythmus  normales ekg 4.46       unbestÄtigter bericht Edit: NORM 80, (NORM 100)")
        'sinusrhythmus normales ekg'
        >>> clean_report("sinusrhythmus linkstyp sonst normales ekg", to_english=True)
        'sinus rhythm leftward axis otherwise normal ecg'
    """
    text = re.sub(r"\s+", " ", (report or "").lower()).strip()
    text = _UNCONFIRMED.sub("", _APPENDED_SCP_CODES.sub("", text).strip()).strip()
    if _ONLY_A_TRACE.match(text) or not re.search(r"\w{2}", text):
        return ""
    if not to_english:
        return text
    pattern, english = _glossary()
    return pattern.sub(lambda found: english[found.group()], text)


@cache
def _glossary() -> tuple[re.Pattern[str], dict[str, str]]:
    with _TERMS_PATH.open(encoding="utf-8", newline="") as file:
        english = {row["term"]: row["english"] for row in csv.DictReader(file)}
    longest_first = sorted(english, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])"), english
